"""What the methods with a preference share: how it is read, and where it points."""

from collections.abc import Sequence

import torch
from torch import Tensor

from motet.methods.base import GramMethod, Method


def read_preference(owner: Method, preference: Sequence[float] | Tensor | None) -> Tensor | None:
    """One positive number a task, in float64 and summing to 1, or None where all tasks count alike.

    Raises:
        ValueError: if a number isn't positive and finite.
    """
    if preference is None:
        return None
    values = torch.as_tensor(preference, dtype=torch.float64).detach().cpu()
    if values.dim() != 1 or not len(values) or not (values.isfinite() & (values > 0)).all():
        raise ValueError(f"preference of {type(owner).__name__} is one positive number a task, not {preference}")
    return values / values.sum()


def uneven(values: Tensor | None) -> bool:
    """Whether a preference tells tasks apart, so that their order matters."""
    return values is not None and bool((values != values[0]).any())


def shares(method: Method, values: Tensor | None, like: Tensor) -> Tensor:
    """The present tasks' preference, summing to 1 over them: (K,), as ``like``."""
    if values is None:
        return torch.full_like(like, 1 / len(like))
    present = method.chosen(values, like)
    return present / present.sum()


def ray(shares: Tensor) -> Tensor:
    """The unit vector along which all rₖLₖ are equal, L ∝ 1/r, for each row of shares: (…, K) → (…, K)."""
    inverse = shares.amin(-1, keepdim=True) / shares
    length: Tensor = torch.linalg.vector_norm(inverse, dim=-1, keepdim=True)
    return inverse / length


class PreferredMethod(GramMethod):
    """A Gram method that steers positive losses to where all rₖLₖ are equal, r being the ``preference``."""

    lower_bound = 0.0

    def __init__(self, preference: Sequence[float] | None = None) -> None:
        super().__init__()
        self._preference = read_preference(self, preference)
        self.preference = None if self._preference is None else self._preference.tolist()
        self.symmetric = not uneven(self._preference)

    def observe(self, losses: Tensor) -> None:
        self.above_bound(losses)
        super().observe(losses)

    def shares(self, like: Tensor) -> Tensor:
        """The present tasks' preference r, summing to 1: (K,)."""
        return shares(self, self._preference, like)


def simplex_lattice(tasks: int, divisions: int) -> Tensor:
    """All preferences whose entries are equally spaced, none of them zero, in descending order: (N, K), float64.

    With H divisions these are (a + s) / (H + K s) for all whole a ≥ 0 with Σa = H, and s = 1/(K - 1). For two tasks
    that is (1, H + 1) / (H + 2) … (H + 1, 1) / (H + 2). N = (H + K - 1)! / (H! (K - 1)!).
    """
    counts = torch.tensor(list(_compositions(divisions, tasks)), dtype=torch.float64)
    shift = 1 / max(tasks - 1, 1)
    return (counts + shift) / (divisions + tasks * shift)


def _compositions(total: int, parts: int) -> list[tuple[int, ...]]:
    if parts == 1:
        return [(total,)]
    return [(first, *rest) for first in range(total, -1, -1) for rest in _compositions(total - first, parts - 1)]
