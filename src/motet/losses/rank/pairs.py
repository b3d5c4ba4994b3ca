"""Smoothed rank estimation: Han, Journal of Econometrics 1987; with censoring Khan & Tamer, J. of Econometrics 2007."""

from typing import Any

import torch
from torch import Tensor

from motet.losses.rank.arrangement import Arrangement, dense_rank
from motet.losses.rank.censoring import uno_weights
from motet.losses.rank.function import KINDS, RankLoss
from motet.losses.rank.polynomial import concordant
from motet.losses.rank.reading import events, finite_scores, outcome, weights
from motet.losses.rank.sampling import SampledPairs, sample


class Pairs:
    r"""The comparable pairs of one outcome: all that does not change while the scores do.

    With P the ordered pairs (i, j) in which row i has the better (larger, longer) outcome, scores f, u = (fᵢ - fⱼ)/w
    and weights pᵢⱼ of the pairs,

    .. math:: L(f) = \frac{1}{A} \sum_{(i,j) ∈ P} pᵢⱼ\, φ(u), \qquad A = \sum_P pᵢⱼ, \qquad pᵢⱼ = cᵢ cⱼ.

    ==============  ====================================  =============  ==============
    kind            φ(u)                                  time           1 - C-index as
    ==============  ====================================  =============  ==============
    drelu           1 - clip(u + 1/2, 0, 1)               O(n log n)     w → 0
    epanechnikov    1/2 - 3u/4 + u³/4 in \|u\| < 1        O(n log n)     w → 0
    sigmoid         1/(1 + exp u)                         O(n²)          w → 0
    squared_hinge   max(0, 1 - u)²                        O(n log n)
    exponential     exp(-u)                               O(n log n)
    logistic        log(1 + exp(-u))                      O(n²)
    ==============  ====================================  =============  ==============

    Only the order of y enters: a strictly increasing transform of y changes no bit of any loss. Rows of equal y
    form no pair, so a binary outcome gives 1 - AUC, smoothed. Of right-censored times, i outlives j where j's event
    was seen and Tᵢ > Tⱼ, or Tᵢ = Tⱼ and i is censored.

    Args:
        y: Outcome, or time; any numbers. NaN is missing, and such a row is in no pair.
        event: 1 where the event was seen at that time, 0 where the time is censored. None: nothing is censored.
        weight: Row weights c ≥ 0, 1 by default. 2 is the same as the row twice.
        censoring: "harrell": p = cᵢcⱼ. "uno": p = cᵢcⱼ/G(Tⱼ-)² with the Kaplan–Meier estimate G of the censoring, which
            makes the limit free of the censoring's law where it is independent of the outcome.
        tau: With "uno", pairs whose shorter time is ≥ tau are left out. None: none is.
        norm: "comparable" divides by A, so that unbalanced and censored outcomes weigh as much as others. "all"
            divides by Σ_{i≠j} cᵢcⱼ over the rows with an outcome, as in Han's criterion (1 - Σ p S over all pairs for
            drelu, epanechnikov and sigmoid): a binary outcome's loss then moves within π(1 - π) only. Equality of
            weights and duplicates then lacks the pairs of a duplicate with itself.
        device: Where the scores will be; by default y's, or the CPU for arrays.

    Attributes:
        n: Rows given.
        total: A, in the caller's weights; 0 where there is no comparable pair, and ``loss`` then raises.

    Shapes:
        y, event, weight and scores (n,).

    Cost:
        O(n) memory for all. One sort here, one sort of the scores and log₂(ranks) passes over them in a loss: one pass
        for a binary outcome. Few rows are computed in dense tiles; both ways agree to rounding. Losses are computed in
        float64 whatever the scores' dtype, and wait for the device once or twice to check them. Sums of squared hinges
        keep 1e-10 while the scores' range is below some 10⁴ bandwidths, other losses always.

    Note:
        The network that this criterion trains has its own scale, so bandwidth and scale of f are one parameter; the
        published variants are drelu with w free and the sigmoid with w = n^(-1/2). Ties count in neither sum here.
        Some published code orders ties by row number, or counts pairs whose shorter time is censored as discordant.

    >>> pairs = Pairs([1.0, 2.0, 2.0, 4.0])
    >>> pairs.total, pairs.concordance([0.1, 0.2, 0.3, 0.15])
    (5.0, 0.6)
    >>> scores = torch.tensor([0.1, 0.2, 0.3, 0.15], requires_grad=True)
    >>> pairs.loss(scores, "drelu", bandwidth=1.0).backward()
    >>> scores.grad
    tensor([ 0.6000,  0.0000,  0.0000, -0.6000])
    """

    def __init__(
        self,
        y: Any,
        event: Any = None,
        weight: Any = None,
        *,
        censoring: str = "harrell",
        tau: float | None = None,
        norm: str = "comparable",
        device: torch.device | str | None = None,
    ) -> None:
        if censoring not in ("harrell", "uno"):
            raise ValueError(f'censoring is "harrell" or "uno", and got {censoring!r}')
        if norm not in ("comparable", "all"):
            raise ValueError(f'norm is "comparable" or "all", and got {norm!r}')
        if tau is not None and (censoring != "uno" or not tau > 0):
            raise ValueError(f'tau is a positive time for censoring="uno", and got {tau} with {censoring!r}')
        if y is None:
            raise ValueError("event needs the times as y" if event is not None else "y is missing")
        if event is None and censoring == "uno":
            raise ValueError('event is needed for censoring="uno"')
        if device is None:
            device = y.device if isinstance(y, Tensor) else "cpu"
        y, there = outcome(y, torch.device(device))
        self.n, self.device = len(y), y.device
        c, scale = weights(weight, self.n, y.device)
        b = c
        if event is not None:
            d = events(event, y, there)
            b = c * d
        index = (there & (c > 0)).nonzero().squeeze(1)
        y, c, b = y[index], c[index], b[index]
        key = dense_rank(y)
        if event is not None:
            d = d[index]
            if censoring == "uno":
                b = b * uno_weights(y, d, c, tau)
            key = 2 * key + (d == 0)  # of equal times the censored one is the longer
        self.rows = Arrangement(index, key, c, b)
        self.total = self.rows.pair_weight * scale * scale
        self.divisor = self.rows.pair_weight
        if norm == "all" and self.divisor > 0:
            self.divisor = float(c.sum() ** 2 - c.square().sum())

    def loss(self, scores: Tensor, kind: str = "drelu", bandwidth: float = 1.0) -> Tensor:
        """L(f): scores (n,) → a scalar in their dtype, with a gradient, and without a second one.

        Raises:
            ValueError: scores of another shape or device, or with NaN or infinities; an unknown kind; a bandwidth that
                isn't positive; no comparable pair; a loss that overflows.
        """
        if kind not in KINDS:
            raise ValueError(f"kind is one of {', '.join(KINDS)}, and got {kind!r}")
        if not 0 < bandwidth < torch.inf:
            raise ValueError(f"bandwidth is a positive number, and got {bandwidth}")
        self._need_pairs(self.divisor)
        scores = finite_scores(scores, self.n, self.device)
        loss: Tensor = RankLoss.apply(  # type: ignore[no-untyped-call]
            scores, self.rows, kind, float(bandwidth), self.divisor
        )
        return loss

    @torch.no_grad()
    def concordance(self, scores: Any) -> float:
        """The C-index (AUC for a binary outcome): weight of the pairs in order, and half of the pairs tied in score."""
        self._need_pairs(self.rows.pair_weight)
        f = finite_scores(scores, self.n, self.device).double()
        return float(concordant(self.rows, f[self.rows.index])) / self.rows.pair_weight

    def subset(self, rows: Any) -> "Pairs":
        """The pairs within a minibatch: row k of the new scores is row rows[k] of the old.

        The divisor is the constant A·m(m-1)/(n(n-1)) and not the batch's own sum of weights: over batches of m ≥ 2 rows
        drawn uniformly without replacement from all n, loss and gradient are then unbiased. A batch without a
        comparable pair has a gradient of 0. G of Uno's weights stays that of all rows.
        """
        self._need_pairs(self.divisor)
        rows = torch.as_tensor(rows, device=self.device)
        if rows.ndim != 1 or rows.is_floating_point() or len(rows) < 2 or len(rows.unique()) < len(rows):
            raise ValueError("a subset is at least two different row numbers, (m,)")
        if not ((rows >= 0) & (rows < self.n)).all():
            raise ValueError(f"row numbers of a subset are 0…{self.n - 1}")
        place = torch.full((self.n,), -1, device=self.device)
        place[self.rows.index] = torch.arange(self.rows.m, device=self.device)
        place = place[rows]
        kept = (place >= 0).nonzero().squeeze(1)
        place = place[kept]
        part = object.__new__(Pairs)
        part.n, part.device = len(rows), self.device
        part.rows = Arrangement(kept, self.rows.rank[place].long(), self.rows.c[place], self.rows.b[place])
        part.total = part.rows.pair_weight * (self.total / self.rows.pair_weight)
        part.divisor = self.divisor * (part.n * (part.n - 1)) / (self.n * (self.n - 1))
        return part

    def sample(self, count: int, generator: torch.Generator | None = None) -> SampledPairs:
        """`count` comparable pairs drawn with replacement in proportion to their weights: ``.loss`` is unbiased."""
        self._need_pairs(self.divisor)
        if count < 1:
            raise ValueError(f"count is at least 1, and got {count}")
        return sample(self, count, generator)

    def _need_pairs(self, weight: float) -> None:
        if not weight > 0:
            raise ValueError(
                "no comparable pair: the outcome is constant, missing, or censored before any other row's time"
            )


def pairwise_rank_loss(
    scores: Tensor,
    y: Any,
    kind: str = "drelu",
    bandwidth: float = 1.0,
    event: Any = None,
    weight: Any = None,
    *,
    censoring: str = "harrell",
    tau: float | None = None,
    norm: str = "comparable",
) -> Tensor:
    """The rank loss of scores for an outcome: ``Pairs(y, event, weight, …).loss(scores, kind, bandwidth)``.

    Where the outcome stays and the scores change, as in training, keep the ``Pairs``: it has sorted y already.

    >>> round(pairwise_rank_loss(torch.tensor([0.0, 1.0, 3.0]), [1, 3, 2], kind="logistic").item(), 4)
    0.8296
    """
    pairs = Pairs(y, event, weight, censoring=censoring, tau=tau, norm=norm, device=scores.device)
    return pairs.loss(scores, kind, bandwidth)
