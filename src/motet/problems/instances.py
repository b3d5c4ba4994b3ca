"""Files of instances, one a bag: .npy, .npz, .csv or .parquet."""

import zipfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd
from numpy.typing import NDArray

KINDS = (".npy", ".npz", ".csv", ".parquet")


@dataclass(frozen=True)
class Instances:
    """One bag in one view: x (n, D) and, where the file has them, coordinates (n, 2 or 3) and names of the columns."""

    x: NDArray[np.float32]
    coordinates: NDArray[np.float32] | None = None
    columns: tuple[str, ...] | None = None


def find(view: str, folder: str | Path, bags: Sequence[str], gaps: bool) -> list[Path | None]:
    """The file of each bag, None where it has none and that is allowed.

    Raises:
        ValueError: if there is no folder, a bag has no file or two, or its name is no file name.
    """
    folder = Path(folder).expanduser()
    if not folder.is_dir():
        raise ValueError(f"view {view!r}: there is no folder {folder}")
    files: list[Path | None] = []
    missing = []
    for bag in bags:
        if Path(bag).name != bag or bag in (".", ".."):
            raise ValueError(f"bag {bag!r} can't be the name of a file: rename it and its files")
        found = [path for kind in KINDS if (path := folder / f"{bag}{kind}").is_file()]
        if len(found) > 1:
            raise ValueError(f"view {view!r} has {found[0].name} and {found[1].name} for bag {bag!r}: keep one of them")
        missing += [] if found else [bag]
        files.append(found[0] if found else None)
    if len(missing) == len(bags) or (missing and not gaps):
        count = f" and {len(missing) - 3} more" if len(missing) > 3 else ""
        raise ValueError(
            f"view {view!r} has no file for bag {', '.join(map(repr, missing[:3]))}{count} in {folder}: add "
            f"{missing[0]}.npy (or {', '.join(KINDS[1:])})"
            + ("" if len(missing) == len(bags) else ", or say gaps=True if a bag may lack a view")
        )
    return files


def read(view: str, bag: str, path: Path, coordinates: Sequence[str]) -> Instances:
    """The instances of one file.

    Raises:
        ValueError: if the file can't be read, is no table of numbers, or has a number that is not finite.
    """
    where = f"bag {bag!r} of view {view!r} ({path})"
    try:
        found = _READERS[path.suffix](path, coordinates)
    except (ValueError, KeyError, EOFError, OSError, zipfile.BadZipFile, pd.errors.ParserError) as error:
        raise ValueError(f"{where} can't be read: {str(error).splitlines()[0] if str(error) else error!r}") from error
    for what, values in (("features", found.x), ("coordinates", found.coordinates)):
        if values is None:
            continue
        if values.ndim != 2:
            raise ValueError(f"{where} must hold {what} as (instances, columns), not {values.shape}")
        if not (finite := np.isfinite(values)).all():
            row, column = np.argwhere(~finite)[0]
            raise ValueError(
                f"{where} has {values[row, column]} in instance {row + 1}, {what[:-1]} {column + 1}: "
                "correct it, or leave the instance out"
            )
    if found.coordinates is not None and (
        len(found.coordinates) != len(found.x) or found.coordinates.shape[1] not in (2, 3)
    ):
        raise ValueError(
            f"{where} must have coordinates ({len(found.x)}, 2 or 3), one for each instance, "
            f"not {found.coordinates.shape}"
        )
    return found


def _npy(path: Path, coordinates: Sequence[str]) -> Instances:  # noqa: ARG001  the signature of all readers
    return Instances(_numbers(np.load(path, allow_pickle=False)))


def _npz(path: Path, coordinates: Sequence[str]) -> Instances:  # noqa: ARG001
    with np.load(path, allow_pickle=False) as arrays:
        names = set(arrays.files)
        if "features" not in names or names - {"features", "coordinates"}:
            raise ValueError(f"it must hold 'features' and, if any, 'coordinates', and holds {sorted(names)}")
        points = _numbers(arrays["coordinates"]) if "coordinates" in names else None
        return Instances(_numbers(arrays["features"]), points)


def _csv(path: Path, coordinates: Sequence[str]) -> Instances:
    return _table(pd.read_csv(path), coordinates)


def _parquet(path: Path, coordinates: Sequence[str]) -> Instances:
    return _table(pd.read_parquet(path), coordinates)


def _table(table: pd.DataFrame, coordinates: Sequence[str]) -> Instances:
    points = [name for name in coordinates if name in table.columns]
    if points and len(points) < min(2, len(coordinates)):
        raise ValueError(f"it has the coordinate {points[0]!r} alone, of {', '.join(coordinates)}")
    columns = [name for name in table.columns if name not in points]
    where = _numbers(table[points].to_numpy()) if points else None
    return Instances(_numbers(table[columns].to_numpy()), where, tuple(map(str, columns)))


def _numbers(values: NDArray[np.generic]) -> NDArray[np.float32]:
    if values.size and values.dtype.kind not in "buif":
        raise ValueError(f"it holds {values.dtype} and not numbers alone")
    return values.astype(np.float32)


_READERS = {".npy": _npy, ".npz": _npz, ".csv": _csv, ".parquet": _parquet}
