"""What a caller gives for an outcome, checked and turned into tensors."""

from typing import Any

import numpy as np
import torch
from torch import Tensor


def column(name: str, values: Any, rows: int | None, device: torch.device) -> Tensor:
    """One number a row, in the dtype it came in: large integers and float32 keep their order exactly."""
    found = _tensor(name, values).detach().to(device)
    if found.is_complex():
        raise ValueError(f"{name} needs real numbers, and has the dtype {found.dtype}")
    if found.ndim != 1 or (rows is not None and len(found) != rows):
        expected = "(n,)" if rows is None else f"({rows},)"
        raise ValueError(f"{name} needs the shape {expected}, and has {tuple(found.shape)}")
    # NumPy, which sorts faster, knows no bfloat16; float16 is widened with it, both exactly.
    wider = {torch.bool: torch.uint8, torch.bfloat16: torch.float32, torch.float16: torch.float32}
    return found.to(wider.get(found.dtype, found.dtype))


def _tensor(name: str, values: Any) -> Tensor:
    if isinstance(values, Tensor):
        return values
    array = np.array(values)  # a copy: torch warns of arrays that are read-only
    if array.dtype.kind not in "fiub":
        raise ValueError(f"{name} needs numbers, and has the dtype {array.dtype}")
    return torch.from_numpy(array)


def outcome(y: Any, device: torch.device) -> tuple[Tensor, Tensor]:
    """y (n,) and which of its rows are there (n,): NaN is a missing outcome."""
    y = column("y", y, None, device)
    there = ~y.isnan()
    if y.isinf().any():
        raise ValueError("y has infinite values: an outcome is a finite number, or NaN where it is missing")
    return y, there


def weights(weight: Any, n: int, device: torch.device) -> tuple[Tensor, float]:
    """Row weights (n,) in float64, divided by a power of two, and that power: no product of two over- or underflows."""
    if weight is None:
        return torch.ones(n, dtype=torch.float64, device=device), 1.0
    c = column("weight", weight, n, device).double()
    if not (c.isfinite() & (c >= 0)).all():
        raise ValueError("weight has negative, infinite or missing values: row weights are finite and at least 0")
    largest = float(c.max()) if n else 0.0
    scale = 2.0 ** np.floor(np.log2(largest)) if largest > 0 else 1.0
    return c / scale, float(scale)


def events(event: Any, y: Tensor, there: Tensor) -> Tensor:
    """1 where the event was seen and 0 where the time is censored, (n,) in float64; y holds the times."""
    d = column("event", event, len(y), y.device).double()
    wrong = there & (d != 0) & (d != 1)
    if wrong.any():
        row = int(wrong.nonzero()[0])
        raise ValueError(f"event is 0 (censored) or 1 (seen) where there is a time, and row {row} has {float(d[row])}")
    if (there & (y < 0)).any():
        raise ValueError(f"times are at least 0, and y has {float(y[there].min())}")
    return d.where(there, 0.0)


def finite_scores(scores: Any, n: int, device: torch.device) -> Tensor:
    """Scores (n,) as a tensor; the graph is kept."""
    if not isinstance(scores, Tensor):
        scores = _tensor("scores", scores).to(device)
    if scores.shape != (n,):
        raise ValueError(f"scores need the shape ({n},), one for each row of y, and have {tuple(scores.shape)}")
    if not scores.is_floating_point():
        raise ValueError(f"scores need a floating dtype, and have {scores.dtype}")
    if scores.device != device:
        raise ValueError(f"scores are on {scores.device} and the pairs on {device}: give Pairs the scores' device")
    if not scores.detach().isfinite().all():
        raise ValueError("scores have NaN or infinite values: the model has diverged, or its inputs have such values")
    found: Tensor = scores
    return found
