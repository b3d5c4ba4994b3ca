"""Affinity by least squares: what each member adds to the effect of a group, from the effects of many groups."""

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from motet.grouping.attribution import Floats, Integers

_BLOCK = 64
"""Measurements are folded into the sums this many at a time."""
_SINGULAR = 1e-10
"""Directions of less than this share of the largest eigenvalue count as never explored."""


class _Sums(NamedTuple):
    """Σ over the measurements of each target, weighted with (1-β)^(how many the target has had since)."""

    design: Integers  # (K,): which of the C designs below is the target's
    normal: Floats  # (C, K, K): Σ w x xᵀ; targets that were always present together share one
    squared: Floats  # (C, K, K): Σ w² x xᵀ
    moment: Floats  # (K, K): Σ w y x, row = target
    power: Floats  # (K,): Σ w y²
    measured: Integers  # (K,): how many there were


class Regression:
    r"""Exponentially weighted least squares of a target's relative decrease on who was in the updated group.

    To first order the effect of a group on a target is the sum of its members' effects, r_t = Σ_{s∈G} B_{s→t}. So

        B_{·→t} = argmin_b Σᵢ (1-β)^(n-i) (r_tᵢ - xᵢ·b)²,    x = indicator of G,

    which is what recursive least squares with the forgetting factor 1-β computes. Where the groups so far leave a
    direction open the solution of least norm is taken: members that were always together share alike.

    Args:
        tasks: K.
        decay: β.

    Cost:
        O(K²) memory, and 2CK² for C sets of targets that were present in different batches (C = 1 where no task is
        ever absent, at most K). An eigendecomposition of a K×K matrix for each of the C when it is solved.

    Note:
        Standard errors: Cov b = σ² N⁺ N₂ N⁺ with N = Σ w x xᵀ and N₂ = Σ w² x xᵀ, σ² = Σ w e² / (Σw - tr N⁺N₂).
        Infinite for a source whose effect the groups so far do not tell from others', and where nothing is left over
        to estimate σ² from.
    """

    def __init__(self, tasks: int, decay: float) -> None:
        self.decay = decay
        self.counts = np.zeros((tasks, tasks), dtype=np.int64)
        self._members, self._relative = np.zeros((_BLOCK, tasks)), np.full((_BLOCK, tasks), np.nan)
        self._pending = 0
        square, row = np.zeros((1, tasks, tasks)), np.zeros(tasks)
        numbers = np.zeros(tasks, dtype=np.int64)
        self._sums = _Sums(numbers, square, square, square[0], row, numbers)

    def add(self, relative: Floats, groups: Sequence[Integers]) -> None:
        """Take the relative decrease (M, K) of the losses by updates of M groups, NaN where unknown."""
        for change, members in zip(relative, groups, strict=True):
            self._members[self._pending, members] = 1.0
            self._relative[self._pending] = change
            self._pending += 1
            self.counts[members] += ~np.isnan(change)
            if self._pending == _BLOCK:
                self._sums = self._folded()
                self._members[:], self._relative[:], self._pending = 0.0, np.nan, 0

    def _folded(self) -> _Sums:
        """The sums with the pending measurements."""
        old, x, y = self._sums, self._members[: self._pending], self._relative[: self._pending]
        present = ~np.isnan(y)
        since = present[::-1].cumsum(0)[::-1] - present
        weights = np.where(present, (1 - self.decay) ** since, 0.0)
        keep = (1 - self.decay) ** present.sum(0)
        history = np.vstack([old.design, present])
        _, first, design = np.unique(history, axis=1, return_index=True, return_inverse=True)
        w, was, kept = weights.T[first, None, :], old.design[first], keep[first, None, None]
        y = np.where(present, y, 0.0)
        return _Sums(
            design.reshape(-1),
            kept * old.normal[was] + (x.T * w) @ x,
            kept**2 * old.squared[was] + (x.T * w**2) @ x,
            keep[:, None] * old.moment + (weights * y).T @ x,
            keep * old.power + (weights * y * y).sum(0),
            old.measured + present.sum(0),
        )

    def solve(self) -> tuple[Floats, Floats]:
        """The estimates and their standard errors, row = source, column = target: (K, K) each."""
        sums = self._folded() if self._pending else self._sums
        values, vectors = np.linalg.eigh(sums.normal)
        explored = values > _SINGULAR * values[:, -1:].clip(min=1e-300)
        inverse = (vectors * np.where(explored, 1 / np.where(explored, values, 1), 0)[:, None]) @ vectors.swapaxes(1, 2)
        effects = (inverse[sums.design] @ sums.moment[:, :, None])[:, :, 0]
        covariance = inverse @ sums.squared @ inverse
        used = np.einsum("cij,cji->c", inverse, sums.squared)[sums.design]
        total = -np.expm1(sums.measured * np.log1p(-self.decay)) / self.decay
        left = total - used
        with np.errstate(divide="ignore", invalid="ignore"):
            noise = (sums.power - (effects * sums.moment).sum(1)).clip(min=0) / left
            error = np.sqrt(noise[:, None] * covariance.diagonal(axis1=1, axis2=2)[sums.design])
        # A source is told apart where its unit vector lies in the explored directions.
        hidden = (vectors**2 * ~explored[:, None]).sum(2)[sums.design] > 1e-6
        error[hidden | (left <= 1e-9 * total)[:, None]] = np.inf
        effects = np.where(self.counts.T > 0, effects, 0.0)
        return effects.T.copy(), error.T.copy()

    def arrays(self) -> dict[str, NDArray[Any]]:
        """All state, with a target's sums in its row; what `restore` takes."""
        sums = self._sums
        spread = sums._replace(normal=sums.normal[sums.design], squared=sums.squared[sums.design])._asdict()
        del spread["design"]
        pending = np.array(self._pending)
        return {
            "counts": self.counts,
            "members": self._members,
            "relative": self._relative,
            "pending": pending,
        } | spread

    def restore(self, arrays: Mapping[str, NDArray[Any]]) -> None:
        """Take over a state of `arrays`, of the same shapes.

        Raises:
            ValueError: if more measurements are pending than can be; nothing is changed then.
        """
        state = dict(arrays)
        pending = int(state.pop("pending"))
        if not 0 <= pending < _BLOCK:
            raise ValueError(f"pending in the state must be from 0 to {_BLOCK - 1}, not {pending}")
        self._pending = pending
        self.counts, self._members, self._relative = (state.pop(name) for name in ("counts", "members", "relative"))
        both = np.concatenate([state["normal"], state["squared"]], axis=1).reshape(len(state["normal"]), -1)
        _, first, design = np.unique(both, axis=0, return_index=True, return_inverse=True)
        state["normal"], state["squared"] = state["normal"][first], state["squared"][first]
        self._sums = _Sums(design.reshape(-1), **state)
