"""JSON files of a study: strict JSON, written whole or not at all, of one known format."""

import json
import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any, TypeVar

from safetensors.torch import load_file
from torch import Tensor

from motet.study.typed import build

FORMAT = 6
"""Version of every JSON file of a study. Another version is refused, never guessed at.

Add one whenever a field of `Run`, `Description` or `History`, or of anything inside them, is added, removed or changes
its meaning: a file of the former format must be told from a damaged one.
"""
_READ = (2, 3, 4, 5, FORMAT)
"""Formats whose fields are all known here. Versions 3 to 6 added fields that have a value for "not known"."""

_T = TypeVar("_T")


class StoreError(ValueError):
    """A folder of runs that can't be used, with the reason and what to do."""


class DamagedError(StoreError):
    """A file that is not what motet wrote: cut short, or edited."""


def read_json(path: Path, cls: type[_T]) -> _T:
    """Read a dataclass that `write_json` wrote.

    Raises:
        DamagedError: if the file is missing or is not what was written.
        StoreError: if it is of another format.
    """
    try:
        data = json.loads(path.read_text(encoding="utf8"))
    except (json.JSONDecodeError, UnicodeDecodeError, FileNotFoundError, NotADirectoryError) as error:
        raise DamagedError(f"{path} is damaged ({error})") from None
    if not isinstance(data, dict) or "format" not in data:
        raise DamagedError(f"{path} is damaged (it names no format)")
    if (version := data.pop("format")) not in _READ:
        raise StoreError(
            f"{path} is of format {version}, this motet reads format {FORMAT}: "
            "use the version of motet that wrote it, or start anew with --out"
        )
    try:
        return build(cls, restore(data))
    except ValueError as error:
        raise DamagedError(f"{path} is damaged ({error})") from None


def read_tensors(path: Path) -> dict[str, Tensor]:
    """Read a file of tensors.

    Raises:
        DamagedError: if it is missing or is not what was written.
    """
    try:
        return load_file(path)
    except Exception as error:  # safetensors has its own kinds, which are no ValueError
        raise DamagedError(f"{path} is damaged ({error})") from None


def write_json(path: Path, data: Mapping[str, Any]) -> None:
    """Write an object under its format, so that the file is whole whenever it is there."""
    beside = path.with_suffix(".tmp")
    text = json.dumps(plain({"format": FORMAT, **data}), indent=1, ensure_ascii=False, allow_nan=False)
    beside.write_text(text, encoding="utf8")
    beside.replace(path)


_NAN, _INF = "#NaN", "#Infinity"


def plain(value: Any) -> Any:
    """To strict JSON: what is not finite becomes a string, since JSON has no such numbers."""
    if isinstance(value, float) and not math.isfinite(value):
        return _NAN if math.isnan(value) else _INF if value > 0 else f"-{_INF}"
    if isinstance(value, Mapping):
        return {str(k): plain(v) for k, v in value.items()}
    if isinstance(value, list | tuple):
        return [plain(v) for v in value]
    return value


def restore(value: Any) -> Any:
    """The inverse of `plain`."""
    if isinstance(value, str) and value in (_NAN, _INF, f"-{_INF}"):
        return float(value.replace("#", ""))
    if isinstance(value, dict):
        return {k: restore(v) for k, v in value.items()}
    if isinstance(value, list):
        return [restore(v) for v in value]
    return value
