"""A page as a file: whole before it appears under its name."""

import base64
import hashlib
import os
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

from jinja2 import Environment, FileSystemLoader, StrictUndefined

_CONTROL = re.compile("[\x00-\x08\x0b-\x1f\x7f-\x9f\ud800-\udfff]")
"""Characters that HTML forbids, or that UTF-8 can't write."""


def environment() -> Environment:
    """The templates, in which every name is escaped and none may be missing."""
    return Environment(
        loader=FileSystemLoader(Path(__file__).parent / "templates"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
    )


def script_hash(script: str) -> str:
    """What a page's security policy names, so that this script may run and no other one."""
    digest = hashlib.sha256(script.encode()).digest()
    return f"'sha256-{base64.b64encode(digest).decode()}'"


def write_page(path: str | Path, what: str, render: Callable[..., str], *arguments: Any) -> Path:
    """Render a page and write it. Folders on the way are made; an existing file is replaced.

    Raises:
        IsADirectoryError: if the path is a folder; before anything is rendered.
    """
    path = Path(path)
    if path.is_dir():
        raise IsADirectoryError(f"{path} is a folder: name the file that the {what} shall be written to")
    page = _CONTROL.sub("�", render(*arguments))
    path.parent.mkdir(parents=True, exist_ok=True)
    part = path.with_name(f".{path.name}.{os.getpid()}.part")
    try:
        part.write_text(page, encoding="utf-8", newline="\n")
        part.replace(path)
    finally:
        part.unlink(missing_ok=True)
    return path
