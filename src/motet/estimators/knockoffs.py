"""Model-X knockoffs: Candès, Fan, Janson & Lv, JRSS B 2018; MVR: Spector & Janson 2022; e-values: Ren & Barber 2024."""

import math
import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import ArrayLike
from scipy.linalg import cho_factor, cho_solve, cholesky, eigvalsh
from sklearn.covariance import ledoit_wolf

from motet.estimators.trust import (
    Bools,
    Floats,
    Progress,
    RandomState,
    Result,
    entropy,
    first_of,
    generator,
    in_parallel,
    names_of,
    seed,
    share,
    whole,
)

METHODS = ("mvr", "equicorrelated")


class CovarianceWarning(UserWarning):
    """The covariance of the features can't be known well enough for the promise of knockoffs."""


def gaussian_knockoffs(
    X: ArrayLike, rng: RandomState = None, *, covariance: ArrayLike | None = None, method: str = "mvr"
) -> Floats:
    """One draw of second-order Gaussian knockoffs of X, (n, p): see :class:`GaussianKnockoffs`."""
    return GaussianKnockoffs(X, covariance=covariance, method=method).draw(np.random.default_rng(entropy(rng)))


class GaussianKnockoffs:
    r"""The law of knockoffs X̃ given X, if the rows of X are N(μ, Σ).

    With S = diag(s), 0 ≤ S ≤ 2Σ, on the scale on which Σ is a correlation matrix,

        X̃ | X ~ N(X - (X - μ) Σ⁻¹ S,  2S - S Σ⁻¹ S),   so   Cov(X, X̃) = (Σ, Σ - S; Σ - S, Σ):

    swapping any X_j with its X̃_j leaves the first two moments as they are, and the law if X is Gaussian.

    Args:
        X: (n, p), finite, no outcome in it. Constant columns are their own knockoffs.
        covariance: Σ, (p, p), if it is known from elsewhere, such as many rows without outcomes. None estimates it:
            Ledoit & Wolf's shrinkage of the correlations of X.
        method: How s is chosen. ``"mvr"`` minimises the variance with which X_j is known from all other X and X̃,
            Σ_j 1/s_j + tr (2Σ - S)⁻¹, coordinate by coordinate. ``"equicorrelated"``: s = min(1, 2 λ_min(Σ)), which is
            weak where any two columns are nearly the same.

    Attributes:
        s: (p,), from 0 to 1 for a correlation matrix; a feature with s near 0 has no power.
        doubt: What makes the covariance doubtful, or an empty text. It is also warned of, as a CovarianceWarning.

    Cost:
        O(p³): with "mvr" some 20 to 30 inverses of a p × p matrix, once for all draws. A draw is O(n p²).

    Note:
        Knockoffs promise that the false discovery rate is at most q if the law of X is known. Here it is Gaussian with
        an estimated Σ. For p ≥ n/2 rows don't determine Σ, and the promise is a hope.
    """

    def __init__(self, X: ArrayLike, *, covariance: ArrayLike | None = None, method: str = "mvr") -> None:
        X = np.asarray(X, dtype=np.float64)
        if X.ndim != 2 or len(X) < 2 or not X.shape[1]:
            raise ValueError(f"X must be (n, p) with at least 2 rows and a column, and has shape {X.shape}")
        if not np.isfinite(X).all():
            raise ValueError("X must be finite: knockoffs of missing values aren't defined, impute them beforehand")
        if method not in METHODS:
            raise ValueError(f"method must be one of {', '.join(METHODS)}, not {method!r}")
        n, p = X.shape
        self.X, self.mean, self.doubt = X, X.mean(axis=0), ""
        if covariance is None:
            scale = X.std(axis=0)
            # A column whose spread is rounding error of its mean is constant.
            self.varies = scale > 1e-12 * np.abs(X).max(axis=0)
            self.scale = np.where(self.varies, scale, 1.0)
            Z = (X - self.mean) / self.scale
            correlation = ledoit_wolf(Z[:, self.varies], assume_centered=True)[0] if self.varies.any() else np.eye(0)
            if p >= n / 2:
                self.doubt = (
                    f"{n} rows don't determine the covariance of {p} features: knockoffs need its truth, so that the "
                    "false discovery rate may be above q. Use fewer features, chosen without the outcomes, give a "
                    "covariance from more rows, or take stability selection, which needs no law of X"
                )
                warnings.warn(self.doubt, CovarianceWarning, stacklevel=2)
        else:
            given = np.asarray(covariance, dtype=np.float64)
            if given.shape != (p, p) or not np.allclose(given, given.T, rtol=1e-8, atol=1e-12 * np.abs(given).max()):
                raise ValueError(f"covariance must be symmetric ({p}, {p}), and has shape {given.shape}")
            self.varies = np.diag(given) > 0
            self.scale = np.where(self.varies, np.sqrt(np.maximum(np.diag(given), 0)), 1.0)
            correlation = (given / np.outer(self.scale, self.scale))[np.ix_(self.varies, self.varies)]
        correlation = correlation / np.sqrt(np.outer(np.diag(correlation), np.diag(correlation)))
        least = float(eigvalsh(correlation, subset_by_index=[0, 0])[0]) if len(correlation) else 1.0
        if least < 1e-8:  # Below, rounding decides whether the law of X̃ is one.
            raise ValueError(
                f"the covariance is singular (smallest eigenvalue of the correlations {least:.1e}): drop columns that "
                "follow from others, or shrink it"
            )
        # Strictly inside 0 ≤ S ≤ 2Σ: on the edge the law of X̃ is degenerate, and rounding makes it none.
        s = np.full(len(correlation), min(1.0, 2 * least) * (1 - 1e-6))
        if method == "mvr" and len(s):
            s = _mvr(correlation, s)
        self.s = np.zeros(p)
        self.s[self.varies] = s
        if len(s):
            inverse_s = cho_solve(cho_factor(correlation, lower=True), np.diag(s))
            law = 2 * np.diag(s) - s[:, None] * inverse_s
            self._shift, self._factor = inverse_s, cholesky((law + law.T) / 2, lower=True)

    def draw(self, rng: np.random.Generator) -> Floats:
        """Knockoffs of the rows of X, (n, p), without a look at any outcome."""
        out = self.X.copy()
        if self.varies.any():
            Z = ((self.X - self.mean) / self.scale)[:, self.varies]
            drawn = Z - Z @ self._shift + rng.standard_normal(Z.shape) @ self._factor.T
            out[:, self.varies] = drawn * self.scale[self.varies] + self.mean[self.varies]
        return out


def _mvr(correlation: Floats, s: Floats, tol: float = 1e-3, sweeps: int = 30) -> Floats:
    """Minimise Σ 1/s_j + tr(2Σ - S)⁻¹ over one s_j after the other.

    With M = (2Σ - S)⁻¹, v = M_jj and u = ‖M e_j‖², adding δ to s_j adds δ u / (1 - δ v) to the trace (Sherman &
    Morrison), and the derivative vanishes where 1 - δ v = √u (s_j + δ). As the objective is convex and infinite at the
    edge of 0 ≤ S ≤ 2Σ, no step leaves it.
    """
    p, block = len(s), 64
    for _ in range(sweeps):
        # Anew in every sweep: rounding errors of p updates of rank one don't add up.
        M = np.linalg.inv(2 * correlation - np.diag(s))
        before = s.copy()
        for start in range(0, p, block):
            # One pass over M for a block of updates of rank one: each column takes up those before it in its block.
            size = min(block, p - start)
            columns, scaled = np.zeros((size, p)), np.zeros((size, p))
            for k, j in enumerate(range(start, start + size)):
                column = M[j] + scaled[:k, j] @ columns[:k]
                root, v = math.sqrt(column @ column), column[j]
                delta = (1 - root * s[j]) / (v + root)
                s[j] += delta
                columns[k], scaled[k] = column, column * (delta / (1 - delta * v))
            M += columns.T @ scaled
        if np.abs(s - before).max() < tol:
            break
    return s


@dataclass(frozen=True, eq=False)
class Paired:
    """[X, X̃] with the columns of each pair in random order, so that a network can't tell which are the knockoffs.

    Attributes:
        features: (n, 2p): column j and column p + j are a pair.
        swapped: (p,) bool: the knockoff comes first.
    """

    features: Floats
    swapped: Bools

    def undo(self, values: ArrayLike) -> tuple[Floats, Floats]:
        """Of values (2p,) or (…, 2p) a column: those of X and those of X̃."""
        values = np.asarray(values, dtype=np.float64)
        p = len(self.swapped)
        if values.shape[-1:] != (2 * p,):
            raise ValueError(f"there are {2 * p} columns, and values of shape {values.shape}")
        first, second = values[..., :p], values[..., p:]
        return np.where(self.swapped, second, first), np.where(self.swapped, first, second)

    def contrast(self, importances: ArrayLike) -> Floats:
        """W_j = Z_j - Z̃_j of importances (2p,), such as exit λ: its sign is a fair coin for a noise feature."""
        Z, knockoff = self.undo(importances)
        if not (np.isfinite(Z).all() and np.isfinite(knockoff).all()):
            raise ValueError("importances must be finite")
        return Z - knockoff


def paired(X: ArrayLike, knockoffs: ArrayLike, rng: RandomState = None) -> Paired:
    """Put X and its knockoffs side by side, the columns of each pair in random order."""
    X, Xk = np.asarray(X, dtype=np.float64), np.asarray(knockoffs, dtype=np.float64)
    if X.ndim != 2 or X.shape != Xk.shape:
        raise ValueError(f"X and its knockoffs must both be (n, p), and have shapes {X.shape} and {Xk.shape}")
    swapped = np.asarray(np.random.default_rng(entropy(rng)).random(X.shape[1]) < 0.5)
    return Paired(np.hstack([np.where(swapped, Xk, X), np.where(swapped, X, Xk)]), swapped)


def knockoff_threshold(W: ArrayLike, q: float = 0.1, offset: int = 1) -> float:
    """T = min{t > 0 : (offset + #{W ≤ -t}) / max(1, #{W ≥ t}) ≤ q} over t = |W_j|, or ∞.

    Args:
        W: (p,), finite.
        q: Level of the false discovery rate, 0 < q < 1.
        offset: 1 (knockoffs+) controls the rate; 0 controls only E[V / (R + 1/q)].
    """
    W = np.asarray(W, dtype=np.float64)
    if W.ndim != 1 or not np.isfinite(W).all():
        raise ValueError(f"W must be one finite number a feature, and has shape {W.shape}")
    if offset not in (0, 1):
        raise ValueError(f"offset must be 0 or 1, not {offset!r}")
    q = share("q", q)
    t = np.unique(np.abs(W[W != 0]))
    ordered = np.sort(W)
    above = len(W) - np.searchsorted(ordered, t, side="left")
    below = np.searchsorted(ordered, -t, side="right")
    passed = t[(offset + below) <= q * np.maximum(1, above) * (1 + 1e-12)]
    return float(passed[0]) if len(passed) else math.inf


def knockoff_filter(W: ArrayLike, q: float = 0.1, offset: int = 1) -> Bools:
    """Which features are selected, (p,) bool: W ≥ T with T of :func:`knockoff_threshold`."""
    return np.asarray(np.asarray(W, dtype=np.float64) >= knockoff_threshold(W, q, offset))


def e_values(W: ArrayLike, level: float) -> Floats:
    """e_j = p · 1{W_j ≥ T} / (1 + #{W ≤ -T}), (p,), with T at ``level``: Ren & Barber's e-values of one draw."""
    W = np.asarray(W, dtype=np.float64)
    T = knockoff_threshold(W, level)
    return np.asarray(len(W) * (W >= T) / (1.0 + (W <= -T).sum()))


def e_filter(e: ArrayLike, q: float) -> Bools:
    """The e-BH procedure: the k̂ features with the largest e, k̂ = max{k : e_(k) ≥ p / (q k)}; (p,) bool."""
    e, q = np.asarray(e, dtype=np.float64), share("q", q)
    ordered = np.sort(e)[::-1]
    passed = np.flatnonzero(ordered * q * np.arange(1, len(e) + 1) >= len(e) * (1 - 1e-12))
    return e >= ordered[passed[-1]] if len(passed) else np.zeros(len(e), dtype=np.bool_)


@dataclass(frozen=True, eq=False, repr=False)
class KnockoffSelection(Result):
    """Which features differ from their knockoffs, with the false discovery rate at most q if X's law is right.

    Attributes:
        W: Of every draw, (draws, p). Noise features have either sign with probability ½.
        e: e-values, (p,), the mean over the draws.
        selected: (p,) bool.
        q: Level of the false discovery rate.
        level: At which each draw is thresholded.
        doubt: What makes the covariance doubtful, or an empty text.
        random_state: The number that repeats the run.
    """

    W: Floats
    e: Floats
    selected: Bools
    q: float
    level: float
    doubt: str
    random_state: int

    @property
    def frequency(self) -> Floats:
        """Share of the draws in which a feature passes, (p,): how much the knockoffs' own chance decides."""
        return np.asarray(np.stack([knockoff_filter(W, self.level) for W in self.W]).mean(axis=0))

    def to_frame(self, names: Sequence[str] | None = None) -> pd.DataFrame:
        """One row a feature, the largest e-value first."""
        columns: dict[str, Any] = {
            "W": self.W.mean(axis=0),
            "e_value": self.e,
            "frequency": self.frequency,
            "selected": self.selected,
        }
        table = pd.DataFrame(columns, index=pd.Index(names_of(names, len(self.e)), name="feature"))
        return table.sort_values(["e_value", "W"], ascending=False, kind="stable")

    def explain(self, names: Sequence[str] | None = None) -> str:
        """What was selected and what that promises, or why nothing was."""
        named, chosen = names_of(names, len(self.e)), np.flatnonzero(self.selected)
        draws, fewest = len(self.W), math.ceil(1 / self.level - 1e-9)
        kind = "one draw" if draws == 1 else f"{draws} draws"
        if len(chosen):
            said = [
                f"{len(chosen)} selected from {kind} of knockoffs: {first_of([named[i] for i in chosen])}. If the law "
                f"of the features is right, the expected share of false ones is at most {self.q:g}."
            ]
        else:
            ahead = float(np.median((self.W > 0).sum(axis=1)))
            said = [
                f"Nothing is selected from {kind} of knockoffs. A draw selects nothing or at least {fewest} features, "
                f"as 1/{fewest} is the smallest rate that it can show at level {self.level:g}; {ahead:.3g} features "
                "beat their knockoffs (median). With fewer true features than that no data can pass: raise q, or take "
                "stability selection."
            ]
        if self.doubt:
            said.append(f"Doubtful: {self.doubt}.")
        return " ".join(said)

    def __repr__(self) -> str:
        doubt = ", covariance doubtful" if self.doubt else ""
        chosen = f"{self.selected.sum()} of {len(self.e)} selected at q={self.q:g}"
        return f"KnockoffSelection({chosen}, {len(self.W)} draws{doubt})"


def knockoff_selection(
    importances: Callable[[Floats, int], ArrayLike],
    X: ArrayLike,
    *,
    q: float = 0.1,
    draws: int = 1,
    level: float | None = None,
    covariance: ArrayLike | None = None,
    method: str = "mvr",
    random_state: RandomState = None,
    n_jobs: int | None = None,
    prefer: str = "processes",
    progress: Progress | None = None,
) -> KnockoffSelection:
    r"""Select features with the false discovery rate controlled by knockoffs, of one draw or of many.

    Each draw fits once on [X, X̃] and compares every feature with its knockoff. One draw depends on the knockoffs' own
    chance; the mean of the draws' e-values, filtered by e-BH at q, does so less, with the same promise.

    Args:
        importances: ``importances(features, seed)`` fits on features (n, 2p) and returns how important each column is,
            (2p,), finite: exit λ, |coefficients|. It must treat all columns alike: start a network's weights from the
            same law for each, and don't look at a column's number.
        X: (n, p), finite.
        q: Level of the false discovery rate, 0 < q < 1.
        draws: M, of knockoffs.
        level: At which each draw is thresholded. None takes q for one draw, when e-BH is the plain filter, and q/2 for
            more, as Ren & Barber do.
        covariance: Σ, if it is known. None estimates it.
        method: "mvr" or "equicorrelated", as of :class:`GaussianKnockoffs`.
        random_state: None, an int or a generator. Draw m depends on it and on m alone.
        n_jobs: Jobs at a time, as of joblib. One job is one draw.
        prefer: "processes" or "threads".
        progress: ``progress(done, draws)`` after each draw.

    Cost:
        M fits on 2p columns, and once O(p³).
    """
    q, draws = share("q", q), whole("draws", draws, 1)
    level = share("level", (q if draws == 1 else q / 2) if level is None else level)
    root = entropy(random_state)
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        law = GaussianKnockoffs(X, covariance=covariance, method=method)
    for warning in caught:  # Again from here, so that it points at the caller.
        warnings.warn(str(warning.message), warning.category, stacklevel=2)
    W = np.empty((draws, law.X.shape[1]))
    done = in_parallel(_contrast, [(importances, law, root, draw) for draw in range(draws)], n_jobs, prefer)
    for count, (draw, row) in enumerate(done, 1):
        W[draw] = row
        if progress is not None:
            progress(count, draws)
    e = np.mean([e_values(row, level) for row in W], axis=0)
    return KnockoffSelection(W, e, e_filter(e, q), q, level, law.doubt, root)


def _contrast(
    importances: Callable[[Floats, int], ArrayLike], law: GaussianKnockoffs, root: int, draw: int
) -> tuple[int, Floats]:
    rng = generator(root, draw)
    pair = paired(law.X, law.draw(rng), rng)
    return draw, pair.contrast(importances(pair.features, seed(root, draw, 0)))


def exchangeability(X: ArrayLike, knockoffs: ArrayLike, rng: RandomState = None, *, permutations: int = 999) -> float:
    r"""p-value of the hypothesis that swapping columns of X with their knockoffs changes no second moment.

    Half of the features, S, are chosen at random. With m = (X + X̃)/2 and d = (X - X̃)/2, swapping S in a row turns its
    d_S into -d_S, so that all first and second moments that a swap changes are in d_Sᵀ H, H = [1, m, d_{not S}]. The
    statistic is ‖d_Sᵀ H‖², and its law under the hypothesis is found by swapping each row by a coin of its own.

    Args:
        X: (n, p).
        knockoffs: (n, p).
        rng: None, an int or a generator.
        permutations: B. The smallest p-value is 1/(1 + B).

    Cost:
        O(n² (p + B)).

    Note:
        Exact for knockoffs of a known law. Knockoffs whose mean or Σ was estimated on the same rows fit these rows
        better than others: a large p-value is then no evidence for them, but a small one is still evidence against.
    """
    X, Xk = np.asarray(X, dtype=np.float64), np.asarray(knockoffs, dtype=np.float64)
    if X.ndim != 2 or X.shape != Xk.shape or len(X) < 2:
        raise ValueError(f"X and its knockoffs must both be (n, p), and have shapes {X.shape} and {Xk.shape}")
    whole("permutations", permutations, 1)
    random, p = np.random.default_rng(entropy(rng)), X.shape[1]
    both = np.vstack([X, Xk])  # One centre and scale for both: a swap must not change them.
    scale = both.std(axis=0)
    both = (both - both.mean(axis=0)) / np.where(scale > 0, scale, 1.0)
    m, d = (both[: len(X)] + both[len(X) :]) / 2, (both[: len(X)] - both[len(X) :]) / 2
    swap = np.zeros(p, dtype=np.bool_)
    swap[random.permutation(p)[: max(1, p // 2)]] = True
    H = np.hstack([np.ones((len(X), 1)), m, d[:, ~swap]])
    kernel = (d[:, swap] @ d[:, swap].T) * (H @ H.T)
    signs = random.choice([-1.0, 1.0], size=(permutations, len(X)))
    null = np.einsum("bi,bi->b", signs @ kernel, signs)
    return float((1 + (null >= kernel.sum() * (1 - 1e-12)).sum()) / (1 + permutations))
