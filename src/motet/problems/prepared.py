"""What takes long to read out of a package is read once, and kept in the cache beside it."""

import tempfile
import zipfile
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from motet.problems.assemble import Array
from motet.problems.packages import DataError, Package, cache


def prepared(
    package: Package, names: Sequence[str], make: Callable[[], Sequence[Array]], seed: int | None = None
) -> list[Array]:
    """The arrays of these names, from the cache or else from ``make``, which is called once.

    The file is named after the problem and the package's digest: other bytes are another file.

    Args:
        seed: Where the arrays are fitted on the training part, and so differ with it.

    Raises:
        DataError: if the file is damaged, or what ``make`` raises.
    """
    part = "" if seed is None else f"-{seed}"
    file = cache() / f"{package.problem}-{package.sha256[:12]}{part}.npz"
    if not file.is_file():
        arrays: dict[str, Any] = dict(zip(names, make(), strict=True))
        with tempfile.TemporaryDirectory(dir=file.parent, prefix=".cutting-") as folder:
            written = Path(folder) / file.name
            np.savez_compressed(written, **arrays)
            # In one step: an interrupted call leaves nothing behind.
            written.replace(file)
    try:
        with file.open("rb") as stream, np.load(stream, allow_pickle=False) as archive:
            return [archive[name] for name in names]
    except (ValueError, KeyError, EOFError, OSError, zipfile.BadZipFile) as error:
        raise DataError(
            f"the data of problem {package.problem!r} are damaged: {file} can't be read ({error}): "
            "delete it, and it is made again from the package"
        ) from error
