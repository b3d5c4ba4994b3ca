"""A PostgreSQL server of one's own, from the installed binaries, on a socket in a temporary folder."""

import os
import pwd
import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path


class Missing(Exception):
    """Why no server can be started here."""


class Server:
    """A server that can be stopped and started again.

    Attributes:
        url: Its address for SQLAlchemy.
    """

    def __init__(self, folder: Path, tools: Path, user: str | None) -> None:
        self.folder, self.tools, self.user = folder, tools, user
        name = user or pwd.getpwuid(os.getuid()).pw_name
        self.url = f"postgresql://{name}:secret@/postgres?host={folder}"
        self._run("initdb", "--auth=trust", "--no-sync", "--encoding=UTF8", "--locale=C")

    def start(self) -> None:
        options = f"-k {self.folder} -c listen_addresses= -c fsync=off -c shared_buffers=16MB"
        self._run("pg_ctl", "start", "--wait", f"--log={self.folder / 'log'}", f"--options={options}")

    def stop(self) -> None:
        self._run("pg_ctl", "stop", "--wait", "--mode=immediate")

    def _run(self, tool: str, *arguments: str) -> None:
        other = {"user": self.user, "group": pwd.getpwnam(self.user).pw_gid, "extra_groups": []} if self.user else {}
        subprocess.run(
            [self.tools / tool, *arguments],
            env={"PGDATA": str(self.folder / "data"), "PATH": os.environ["PATH"], "LC_ALL": "C"},
            stdout=subprocess.DEVNULL,
            check=True,
            cwd="/",
            **other,
        )


@contextmanager
def server() -> Iterator[Server]:
    """A running server, gone at the end.

    Raises:
        Missing: without the binaries, or as root where there is no other user: PostgreSQL refuses to run as root.
    """
    found = shutil.which("initdb") or next(iter(sorted(Path("/usr/lib/postgresql").glob("*/bin/initdb"))), None)
    if found is None:
        raise Missing("there is no initdb on the path: PostgreSQL is not installed")
    user = None
    if os.getuid() == 0:
        try:
            user = pwd.getpwnam("nobody").pw_name
        except KeyError:
            raise Missing("PostgreSQL does not run as root, and there is no user nobody") from None
    folder = Path(tempfile.mkdtemp(prefix="pg"))  # Short, as the name of a socket must be.
    try:
        if user:
            shutil.chown(folder, user)
        running = Server(folder, Path(found).resolve().parent, user)
        running.start()
        try:
            yield running
        finally:
            running.stop()
    finally:
        shutil.rmtree(folder, ignore_errors=True)
