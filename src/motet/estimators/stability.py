"""Stability selection with complementary pairs: Meinshausen & Bühlmann 2010; Shah & Samworth 2013, arXiv 1105.5578."""

import hashlib
import os
import time
import warnings
import zipfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from motet.estimators.error_bounds import ASSUMPTIONS, error_bound
from motet.estimators.trust import (
    Array,
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

_REDRAWS = 100
"""Draws of one pair before it is left out. If a tenth of all draws can be used, one in 40,000 pairs is lost."""
_SAVE_EVERY = 2.0  # Seconds: paths that take less than that are not worth a file each.


@dataclass(frozen=True, eq=False, repr=False)
class StabilitySelection(Result):
    """How often each feature is selected on half of the rows, and which are selected often enough.

    Attributes:
        per_lambda: Shares of the half-samples at every λ, (L, p).
        halves: Which features each half-sample selects anywhere in its region, (2B, p) bool; rows 2j and 2j + 1 are a
            complementary pair.
        threshold: π.
        max_features: Size at which every half-sample's region ends, if it was given.
        lambdas: The λ, (L,), if they were given.
        redrawn: Pairs that were drawn again because an outcome could not be fitted on a half.
        left_out: Pairs that could not be drawn in this way at all.
        random_state: The number that repeats the run.
    """

    per_lambda: Floats
    halves: Bools
    threshold: float
    max_features: int | None = None
    lambdas: Floats | None = None
    redrawn: int = 0
    left_out: int = 0
    random_state: int = 0

    @property
    def probabilities(self) -> Floats:
        """Π, (p,): the largest share over the λ region."""
        return np.asarray(self.per_lambda.max(axis=0))

    @property
    def standard_errors(self) -> Floats:
        """At most √(Π(1 - Π)/B), (p,): what other random halves of the same rows would change."""
        return np.sqrt(self.probabilities * (1 - self.probabilities) / self.pairs)

    @property
    def pairs(self) -> int:
        """B, the complementary pairs that were used."""
        return len(self.halves) // 2

    @property
    def q(self) -> float:
        """q_Λ: the mean number of features that a half-sample selects anywhere in its region."""
        return float(self.halves.sum(axis=1).mean())

    @property
    def selected(self) -> Bools:
        """Π ≥ π, (p,) bool."""
        return self.probabilities >= self.threshold - 1e-9

    @property
    def agreement(self) -> float:
        """Mean Jaccard index of the two halves of a pair, which share no row; NaN if all halves select nothing."""
        first, second = self.halves[::2], self.halves[1::2]
        union = (first | second).sum(axis=1)
        return float(((first & second).sum(axis=1)[union > 0] / union[union > 0]).mean()) if union.any() else np.nan

    def bound(self, assumption: str = "none") -> float:
        """The bound on the expected number of false selections, as of :func:`error_bound`."""
        return error_bound(self.q, self.per_lambda.shape[1], self.threshold, self.pairs, assumption)

    def at(self, threshold: float) -> "StabilitySelection":
        """The same half-samples at another threshold. Fix it before looking at who passes it."""
        return replace(self, threshold=share("threshold", threshold, "up to 1"))

    def to_frame(self, names: Sequence[str] | None = None) -> pd.DataFrame:
        """One row a feature, the most stable first."""
        columns: dict[str, Any] = {
            "probability": self.probabilities,
            "standard_error": self.standard_errors,
            "selected": self.selected,
        }
        if self.lambdas is not None:
            columns["lambda"] = self.lambdas[self.per_lambda.argmax(axis=0)]
        table = pd.DataFrame(columns, index=pd.Index(names_of(names, len(self.selected)), name="feature"))
        return table.sort_values("probability", ascending=False, kind="stable")

    def explain(self, names: Sequence[str] | None = None) -> str:
        """What was selected, what that promises, and what to change where it says nothing."""
        p, chosen, pi = self.per_lambda.shape[1], np.flatnonzero(self.selected), self.threshold
        named, bound = names_of(names, p), self.bound()
        said = [
            f"{self.pairs} complementary pairs of half-samples; each half selects {self.q:.3g} of {p} features on "
            f"average over the λ region."
        ]
        if not self.halves.any():
            said.append("No half-sample selects anything: the region holds only λ that empty the model. Lower them.")
        elif not len(chosen):
            best = int(self.probabilities.argmax())
            said.append(
                f"Nothing is selected: the most stable feature, {named[best]}, is in {self.probabilities[best]:.0%} of "
                f"the half-samples and {pi:.0%} are needed. Half of the rows may be too few to find these effects, or "
                "there are none; correlated features also share the votes of one effect. A wider λ region or a lower "
                "threshold selects more, and raises the bound."
            )
        else:
            said.append(f"{len(chosen)} selected at {pi:.0%}: {first_of([named[i] for i in chosen])}.")
        if pi <= 0.5:
            said.append(f"A threshold of {pi:g} has no error bound: it must be above 0.5, usually 0.6 to 0.9.")
        elif bound >= p:
            said.append(
                f"The error bound, {bound:.3g}, is no less than p = {p} and says nothing: the λ region selects too "
                f"much. With max_features={max(1, int(((2 * pi - 1) * p) ** 0.5))} it would be about 1 or less."
            )
        else:
            under = {name: self.bound(name) for name in ASSUMPTIONS}
            said.append(
                f"At most {bound:.3g} false selections are expected if noise features are exchangeable "
                f"({under['unimodal']:.3g} if the shares are unimodal, {under['r-concave']:.3g} if r-concave)."
            )
            if len(chosen) and bound >= len(chosen):
                said.append("That is no fewer than were selected: it doesn't tell them from noise.")
        near = (np.abs(self.probabilities - pi) < 2 * self.standard_errors).sum()
        if near:
            said.append(f"{near} lie within two standard errors of the threshold: another seed may decide otherwise.")
        if self.redrawn or self.left_out:
            said.append(
                f"{self.redrawn} pairs were redrawn and {self.left_out} left out, as an outcome couldn't be fitted."
            )
        return " ".join(said)

    def __repr__(self) -> str:
        chosen, p = int(self.selected.sum()), self.per_lambda.shape[1]
        return (
            f"StabilitySelection({chosen} of {p} selected at {self.threshold:g}, {self.pairs} pairs, "
            f"q={self.q:.3g}, E[V] ≤ {self.bound():.3g})"
        )


def stability_selection(
    select: Callable[[Array, int], Array],
    n: int,
    p: int,
    *,
    pairs: int = 50,
    threshold: float = 0.75,
    max_features: int | None = None,
    lambdas: Array | None = None,
    strata: Array | None = None,
    groups: Array | None = None,
    weights: Array | None = None,
    usable: Callable[[Array], bool] | None = None,
    random_state: RandomState = None,
    n_jobs: int | None = None,
    prefer: str = "processes",
    progress: Progress | None = None,
    checkpoint: str | os.PathLike[str] | None = None,
    tag: str = "",
) -> StabilitySelection:
    r"""Which features are selected on most halves of the rows, with a bound on how many of them are false.

    B times the rows are dealt into two halves of ⌊n/2⌋. With Ŝ^λ(A) the features that are selected on the half A at λ,

        Π_j = max_{λ ∈ Λ} share of the 2B halves A with j ∈ Ŝ^λ(A),   Ŝ = {j : Π_j ≥ π},
        E[V] ≤ q² / ((2π - 1) p),   q = mean of |∪_{λ ∈ Λ} Ŝ^λ(A)|.

    Args:
        select: ``select(rows, seed)`` fits on the rows (sorted numbers) and returns what is selected at each λ,
            (L, p) bool. The λ are fixed beforehand: a region chosen on each half, or one that goes on to λ → 0, selects
            everything always. For processes it must be picklable by cloudpickle, which functions in functions are.
        n: Number of rows.
        p: Number of features.
        pairs: B. 50 by Shah & Samworth.
        threshold: π, in (0, 1], 0.6 to 0.9 by Meinshausen & Bühlmann. Up to ½ there is no bound.
        max_features: q at most: each half's region starts at its sparse end and ends before it would select more. This
            fixes the bound beforehand, and is part of the selection that it covers.
        lambdas: The λ of the rows of ``select``, (L,): for the tables, and the largest is the sparse end. Without them
            the last row is, as in a path from dense to sparse.
        strata: Labels of the rows, (n,): each half gets half of every stratum, to within one row. For rare classes and
            events. NaN is a stratum as well.
        groups: Labels of the rows, (n,): a group goes into one half as a whole. Its stratum is that of its first row.
        weights: Of the rows, (n,), from 0. Rows of weight 0 are in no half. Weights other than 0 are for ``select`` to
            use: a row of weight 2 is drawn once, and isn't the same as two rows.
        usable: ``usable(rows)`` says whether every outcome can be fitted on a half. Pairs with a half that can't be
            used are drawn again, up to 100 times, and then left out: the result counts both.
        random_state: None, an int or a generator. Pair j depends on it and on j alone, not on n_jobs or ``pairs``.
        n_jobs: Jobs at a time, as of joblib. One job is one half.
        prefer: "processes" or "threads".
        progress: ``progress(done, halves)`` after each half.
        checkpoint: Path of an .npz file, without pickle and written as a whole. A run with the same options goes on
            where it was interrupted, or adds pairs to a finished one.
        tag: What must be the same to go on from a checkpoint, apart from n, p, the seed and the rows: say, a hash of
            the data and the options of ``select``.

    Cost:
        2B paths on half of the rows. The result holds 2B·p bool, the run 2B·L·p bits.

    Raises:
        ValueError: for options out of range, a select that returns another shape, a checkpoint of another run, or
            if no pair can be used.
    """
    p, pairs = whole("p", p, 1), whole("pairs", pairs, 1)
    threshold = share("threshold", threshold, "up to 1")
    if max_features is not None:
        whole("max_features", max_features, 1)
    units, kinds = _units(whole("n", n, 2), strata, groups, weights)
    saved = _Checkpoint(checkpoint)
    about = {"n": str(n), "p": str(p), "tag": tag, "rows": _digest(*units, kinds)}
    root = saved.root(about, random_state)
    jobs: list[tuple[int, Array, int]] = []
    redrawn = left_out = 0
    used: list[int] = []
    for pair in range(pairs):
        halves, tries = _draw(units, kinds, root, pair, usable)
        redrawn += tries > 0 and halves is not None
        left_out += halves is None
        if halves is not None:
            used += [2 * pair, 2 * pair + 1]
            jobs += [(2 * pair + half, halves[half], seed(root, pair, 1 + half)) for half in (0, 1)]
    if not jobs:
        raise ValueError("no pair of half-samples has an outcome that can be fitted on both: give strata or more rows")
    if left_out:
        warnings.warn(f"{left_out} of {pairs} pairs of half-samples can't be used and are left out", stacklevel=2)
    jobs = [job for job in jobs if job[0] not in saved.supports]
    done = len(used) - len(jobs)
    last = time.monotonic()
    try:
        for index, support in in_parallel(_one, [(select, p, *job) for job in jobs], n_jobs, prefer):
            saved.add(index, support)
            done += 1
            if progress is not None:
                progress(done, len(used))
            if time.monotonic() - last > _SAVE_EVERY:
                saved.write(about, root)
                last = time.monotonic()
    finally:
        if jobs:
            saved.write(about, root)
    path = np.stack([saved.read(index, p) for index in used])
    if lambdas is not None:
        lambdas = np.asarray(lambdas, dtype=np.float64)
        if lambdas.shape != path.shape[1:2]:
            raise ValueError(f"select returned {path.shape[1]} λ and there are {lambdas.shape} lambdas")
    if max_features is not None:
        path &= _region(path, lambdas, max_features)
    return StabilitySelection(
        path.mean(axis=0), np.asarray(path.any(axis=1)), threshold, max_features, lambdas, redrawn, left_out, root
    )


def _units(n: int, strata: Array | None, groups: Array | None, weights: Array | None) -> tuple[list[Array], Array]:
    """The rows that are dealt together, as lists of row numbers, and each list's stratum (a code)."""
    for name, values in (("strata", strata), ("groups", groups), ("weights", weights)):
        if values is not None and np.shape(values) != (n,):
            raise ValueError(f"{name} must have one value a row, ({n},), and has shape {np.shape(values)}")
    kept = np.arange(n)
    if weights is not None:
        given = np.asarray(weights, dtype=np.float64)
        if not (np.isfinite(given).all() and (given >= 0).all()):
            raise ValueError("weights must be finite and not negative")
        kept = np.flatnonzero(given > 0)
    codes = (
        np.zeros(n, dtype=np.int64) if strata is None else pd.factorize(np.asarray(strata), use_na_sentinel=False)[0]
    )
    if groups is None:
        units = [np.array([row]) for row in kept]
    else:
        labels = pd.factorize(np.asarray(groups), use_na_sentinel=False)[0][kept]
        units = [kept[labels == label] for label in pd.unique(labels)]
    if len(units) < 2:
        raise ValueError(f"two halves need at least 2 rows or groups of positive weight, and there are {len(units)}")
    return units, codes[[unit[0] for unit in units]]


def _deal(units: list[Array], kinds: Array, rng: np.random.Generator) -> tuple[Array, Array]:
    """Two halves with as many units, and half of every stratum to within one.

    In random order within strata, units go left and right in turn. Of an odd number, one of the largest stratum stays
    out, so that the halves are as large as each other.
    """
    order = rng.permutation(len(units))
    if len(units) % 2:
        largest = np.bincount(kinds).argmax()
        order = np.delete(order, np.flatnonzero(kinds[order] == largest)[0])
    # Strata in random order, or the same ones would always begin on the left.
    order = order[np.argsort(rng.permutation(kinds.max() + 1)[kinds[order]], kind="stable")]
    side = rng.integers(2)
    left, right = ([units[i] for i in order[start::2]] for start in (side, 1 - side))
    return np.sort(np.concatenate(left)), np.sort(np.concatenate(right))


def _draw(
    units: list[Array], kinds: Array, root: int, pair: int, usable: Callable[[Array], bool] | None
) -> tuple[tuple[Array, Array] | None, int]:
    """The halves of a pair, or None, and how many draws were thrown away."""
    rng = generator(root, pair)
    for tries in range(_REDRAWS):
        halves = _deal(units, kinds, rng)
        if usable is None or (usable(halves[0]) and usable(halves[1])):
            return halves, tries
    return None, _REDRAWS


def _one(select: Callable[[Array, int], Array], p: int, index: int, rows: Array, seed: int) -> tuple[int, Bools]:
    support = np.atleast_2d(np.asarray(select(rows, seed)))
    if support.dtype != np.bool_ or support.ndim != 2 or support.shape[1] != p or not len(support):
        raise ValueError(f"select must return bool (L, {p}), and returned {support.dtype} {support.shape}")
    return index, support


def _region(path: Bools, lambdas: Floats | None, max_features: int) -> Bools:
    """Which λ of which half are in its region: from the sparse end on, while the union has ≤ max_features."""
    order = np.arange(path.shape[1])[::-1] if lambdas is None else np.argsort(-lambdas, kind="stable")
    sizes = np.logical_or.accumulate(path[:, order], axis=1).sum(axis=2)
    inside = np.empty_like(path[:, :, :1])
    inside[:, order] = (sizes <= max_features)[:, :, None]
    return inside


def _digest(*arrays: Array) -> str:
    """A number of the rows that are dealt, to tell checkpoints of different runs apart."""
    digest = hashlib.sha256()
    for array in arrays:
        digest.update(np.ascontiguousarray(array, dtype=np.int64).tobytes() + b"|")
    return digest.hexdigest()[:16]


class _Checkpoint:
    """The halves that are done: in memory as packed bits, and in a file if there is a path."""

    def __init__(self, path: str | os.PathLike[str] | None) -> None:
        self.path = None if path is None else Path(path)
        self.supports: dict[int, Array] = {}
        self.count = 0  # L
        self.stored: dict[str, str] = {}
        if self.path is None or not self.path.exists():
            return
        try:
            # numpy leaves a damaged file that it opened itself open.
            with self.path.open("rb") as opened, np.load(opened, allow_pickle=False) as file:
                self.stored = dict(zip(file["keys"].tolist(), file["values"].tolist(), strict=True))
                self.count = int(file["count"])
                self.supports = dict(zip(file["index"].tolist(), file["supports"], strict=True))
        except (OSError, EOFError, ValueError, KeyError, zipfile.BadZipFile) as error:
            raise ValueError(f"{self.path} is no checkpoint of a stability selection ({error}): delete it") from None

    def root(self, about: dict[str, str], random_state: RandomState) -> int:
        """The number that all seeds come from: the file's where there is one."""
        wrong = [
            f"{key} was {self.stored[key]!r}, now {value!r}"
            for key, value in about.items()
            if self.stored and self.stored[key] != value
        ]
        stored = int(self.stored["random_state"]) if self.stored else None
        root = stored if stored is not None and random_state is None else entropy(random_state)
        if stored is not None and stored != root:
            wrong.append(f"random_state was {stored}, now {root}")
        if wrong:
            raise ValueError(f"{self.path} is of another run ({'; '.join(wrong)}): give another path, or delete it")
        return root

    def add(self, index: int, support: Bools) -> None:
        if self.supports and len(support) != self.count:
            raise ValueError(
                f"select returned {self.count} λ for one half and {len(support)} for another: fix the λ beforehand"
            )
        self.count = len(support)
        self.supports[index] = np.packbits(support)

    def read(self, index: int, p: int) -> Bools:
        return np.unpackbits(self.supports[index], count=self.count * p).reshape(self.count, p).astype(np.bool_)

    def write(self, about: dict[str, str], root: int) -> None:
        if self.path is None or not self.supports:
            return
        known = {**about, "random_state": str(root)}
        beside = self.path.with_name(self.path.name + ".tmp")
        with beside.open("wb") as file:
            np.savez_compressed(
                file,
                keys=np.array(list(known)),
                values=np.array(list(known.values())),
                count=np.array(self.count),
                index=np.array(list(self.supports)),
                supports=np.stack(list(self.supports.values())),
            )
            file.flush()
            os.fsync(file.fileno())
        beside.replace(self.path)
