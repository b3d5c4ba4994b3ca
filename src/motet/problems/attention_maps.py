"""Attention on the instances of bags, written out for other programs: one table a bag."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal

import numpy as np
import pandas as pd
import torch
from torch import Tensor

Values = Tensor | Sequence[Any]


def write_attention(
    path: str | Path,
    bags: Sequence[str],
    attention: Values,
    coordinates: Values | None = None,
    *,
    offsets: Tensor | None = None,
    mask: Tensor | None = None,
    format: Literal["csv", "parquet"] = "csv",  # noqa: A002  as pandas and matplotlib call it
) -> list[Path]:
    """One file a bag, ``BAG.csv`` with the columns instance (from 0), x, y, z as far as known, and weight.

    Args:
        path: A folder; it is made where it is missing, and files of the same name are replaced.
        bags: Names of the B bags.
        attention: One (n,) for each bag; or flat (ΣN,) with offsets; or padded (B, N) with a mask.
        coordinates: In the same form, with an axis of 2 or 3 at the end.
        offsets: (B + 1,), for the flat form.
        mask: (B, N), for the padded form; without it every place is an instance.
        format: Of the files.

    Returns:
        The files, in the order of the bags.

    Raises:
        ValueError: if sizes do not fit, or a bag's name is given twice or can't be the name of a file.
    """
    names = [str(name) for name in bags]
    if format not in ("csv", "parquet"):
        raise ValueError(f"write_attention: format must be 'csv' or 'parquet', not {format!r}")
    for name in names:
        if Path(name).name != name or name in (".", ".."):
            raise ValueError(f"bag {name!r} can't be the name of a file")
    if twice := [name for number, name in enumerate(names) if name in names[:number]]:
        raise ValueError(f"bag {twice[0]!r} is named twice, and one file would replace the other")
    weights = _split("attention", attention, len(names), offsets, mask)
    points = None if coordinates is None else _split("coordinates", coordinates, len(names), offsets, mask)
    tables = []
    for number, (name, weight) in enumerate(zip(names, weights, strict=True)):
        if weight.ndim != 1:
            raise ValueError(f"attention of bag {name!r} must be one weight an instance, not {weight.shape}")
        columns = {"instance": np.arange(len(weight))}
        if points is not None:
            where = points[number]
            if where.shape not in ((len(weight), 2), (len(weight), 3)):
                raise ValueError(f"coordinates of bag {name!r} must be ({len(weight)}, 2 or 3), not {where.shape}")
            columns |= dict(zip("xyz", where.T, strict=False))
        tables.append(pd.DataFrame(columns | {"weight": weight}))
    folder = Path(path)
    folder.mkdir(parents=True, exist_ok=True)
    files = [folder / f"{name}.{format}" for name in names]
    for file, table in zip(files, tables, strict=True):
        table.to_csv(file, index=False) if format == "csv" else table.to_parquet(file)
    return files


def _split(what: str, values: Values, bags: int, offsets: Tensor | None, mask: Tensor | None) -> list[Any]:
    parts: Sequence[Any]
    if not isinstance(values, Tensor):
        parts = values
    elif offsets is not None:
        if len(values) != int(offsets[-1]):
            raise ValueError(f"{what} must have {int(offsets[-1])} instances as offsets say, not {len(values)}")
        parts = values.split(offsets.diff().tolist())
    elif mask is not None:
        if values.shape[:2] != mask.shape:
            raise ValueError(f"{what} must begin with the shape of mask, {tuple(mask.shape)}: {tuple(values.shape)}")
        parts = [row[there] for row, there in zip(values, mask, strict=True)]
    else:
        parts = list(values)
    if len(parts) != bags:
        raise ValueError(f"{what} must be for {bags} bags, not {len(parts)}")
    return [torch.as_tensor(part).detach().cpu().to(torch.float64).numpy() for part in parts]
