"""What commands print: JSON, and errors in one sentence."""

import errno
import json
import logging
import math
from typing import Any

from rich.console import Console
from rich.logging import RichHandler

INTERRUPTED = 130
BAD_INPUT = 2


def print_json(value: Any) -> None:
    """On standard output, strictly: JSON has no NaN, so what is undefined becomes null."""
    print(json.dumps(_finite(value), indent=1, ensure_ascii=False, default=str))


def print_error(error: Exception | str) -> None:
    """On standard error, one line that no markup in it can change."""
    text = system_error(error) if isinstance(error, OSError) else str(error)
    Console(stderr=True, highlight=False, soft_wrap=True).print(f"motet: {text}", style="red", markup=False)


def system_error(error: OSError) -> str:
    """What the operating system refused, with what can be done about it."""
    if error.strerror is None:
        return str(error)  # motet's own, such as a folder in place of a file.
    where = f" at {error.filename}" if error.filename else ""
    if error.errno in (errno.ENOSPC, errno.EDQUOT):
        return (
            f"the disk is full{where}: make room, then repeat the same command with --resume; what was finished is kept"
        )
    if error.errno in (errno.EACCES, errno.EPERM, errno.EROFS):
        return f"writing or reading is not allowed{where} ({error.strerror}): name another place, or change its rights"
    return f"{error.strerror}{where}"


def is_disk_full(error: Exception) -> bool:
    """Whether a library that has errors of its own means that."""
    return "No space left" in str(error) or "disk is full" in str(error)


def log() -> None:
    """Warnings of the library, once each, on standard error."""
    logger = logging.getLogger("motet")
    if not logger.handlers:
        logger.addHandler(RichHandler(console=Console(stderr=True), show_time=False, show_path=False, show_level=False))


def _finite(value: Any) -> Any:
    if isinstance(value, float) and not math.isfinite(value):
        return None
    if isinstance(value, dict):
        return {key: _finite(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_finite(item) for item in value]
    return value
