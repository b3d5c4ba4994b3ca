"""The address of a database that machines share, and how it is opened; its password is never shown."""

import re
from importlib.util import find_spec
from typing import Any

from sqlalchemy import URL, Engine, create_engine, make_url
from sqlalchemy.exc import ArgumentError
from sqlalchemy.pool import NullPool

BEAT = 15.0
"""Seconds between two signs of life of whoever trains something for all."""
STALE = 60.0
"""Seconds without one after which another takes its work over."""

_PASSWORD = re.compile(r"(?<=://)([^\s/:@]*):[^\s@]*@|(?<=password=)[^\s&'\"]+")


def hidden(text: str) -> str:
    """A text without the passwords of the addresses in it.

    >>> hidden("motet compare yeast --storage postgresql://ann:secret@host/db")
    'motet compare yeast --storage postgresql://ann:***@host/db'
    """
    return _PASSWORD.sub(lambda found: f"{found[1]}:***@" if found[1] is not None else "***", text)


def address(storage: str) -> URL:
    """The database that a text names: ``sqlite:///FILE`` or ``postgresql://USER@HOST/NAME``.

    Raises:
        ValueError: for anything else.
        ImportError: for PostgreSQL without its driver.
    """
    try:
        url = make_url(storage)
    except (ArgumentError, ValueError):
        raise ValueError(
            f"{hidden(storage)!r} is no address of a database: write sqlite:///FILE or postgresql://USER@HOST/NAME"
        ) from None
    kind = url.get_backend_name()
    if kind == "sqlite" and url.database and url.database != ":memory:":
        return url.set(drivername="sqlite")
    if kind in ("postgresql", "postgres"):
        if find_spec("psycopg") is None:
            raise ImportError('PostgreSQL needs its driver: pip install "motet[postgres]"')
        return url.set(drivername="postgresql+psycopg")
    raise ValueError(
        f"{hidden(storage)!r} can't be shared: write sqlite:///FILE for processes of one machine, or "
        "postgresql://USER@HOST/NAME for several machines"
    )


def options(url: URL) -> dict[str, Any]:
    """How it is opened. Every use opens a connection of its own, since a study asks a few times a minute.

    Where the address does not say how long the driver waits for a lock on the file, or for a server, this does.
    """
    name, seconds = ("timeout", 60) if url.get_backend_name() == "sqlite" else ("connect_timeout", 15)
    return {"poolclass": NullPool, "connect_args": {} if name in url.query else {name: seconds}}


def engine(url: URL) -> Engine:
    """Connections to it."""
    return create_engine(url, **options(url))


def cause(error: BaseException) -> str:
    """What a database said, in one line, of an error of SQLAlchemy or one that was raised from it."""
    while error.__cause__ is not None and getattr(error, "orig", None) is None:
        error = error.__cause__
    lines = hidden(str(getattr(error, "orig", None) or error)).strip().splitlines()
    return " ".join(lines[:1])
