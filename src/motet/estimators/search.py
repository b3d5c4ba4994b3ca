"""The same path on all rows and without each fold: what chooses λ and calibrates, with all preprocessing inside."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any, Literal, Self, get_args

import numpy as np
import torch
from joblib import Parallel, delayed
from numpy.typing import NDArray

from motet.estimators.chance import LeftOut, p_value
from motet.estimators.dense import concordances
from motet.estimators.features import Features
from motet.estimators.outcomes import Encoded
from motet.estimators.path import Path, PathOptions, State, adaptive_weights, fit_path, refit
from motet.estimators.relax import relax
from motet.estimators.score_scale import ScoreScale
from motet.losses.rank import Pairs

Floats = NDArray[np.float64]
Rows = NDArray[np.bool_]
Selection = Literal["best", "1se", "within_tol"]
SELECTIONS = get_args(Selection)

WITHIN = 0.005
"""How much mean concordance "within_tol" gives up for a smaller model."""


@dataclass(frozen=True, eq=False)
class Data:
    """What a fit sees.

    Attributes:
        values: X as given, (n, p).
        tasks: Outcomes.
        weight: Of the rows, > 0.
        share: w_k of the tasks, with sum 1.
        censoring: Of the pairs of survival outcomes.
        device: Of the network.
    """

    values: Floats
    tasks: list[Encoded]
    weight: Floats
    share: tuple[float, ...]
    censoring: str = "harrell"
    device: str = "cpu"

    def at(self, rows: Rows) -> Self:
        """Some of the rows."""
        tasks = [task.at(rows) for task in self.tasks]
        return replace(self, values=self.values[rows], tasks=tasks, weight=self.weight[rows])

    @cached_property
    def pairs(self) -> list[Pairs]:
        """The comparable pairs of each task."""
        rules = ["harrell" if task.event is None else self.censoring for task in self.tasks]
        return [
            Pairs(task.y, task.event, self.weight, censoring=rule, device=self.device)
            for task, rule in zip(self.tasks, rules, strict=True)
        ]


@dataclass(frozen=True, eq=False)
class Fitted:
    """A path, and the scale of its features.

    Attributes:
        features: Standardises X by the rows of the path.
        path: From dense to empty.
        options: Of the path.
        refits: The features of each λ trained without the penalty, where that was done.
    """

    features: Features
    path: Path
    options: PathOptions
    refits: list[State | None] | None = None

    def inputs(self, values: Floats, device: str = "cpu") -> torch.Tensor:
        """X (n, p), standardised."""
        return torch.from_numpy(self.features.standardised(values)).to(device)

    def final(self, data: Data, index: int, relaxed: bool, seed: int) -> State:
        """The network at λ number `index`, or its features trained without the penalty where that is asked for."""
        state = self.path.states[index]
        if not relaxed or not len(state.features):
            return state
        if self.refits and (known := self.refits[index]) is not None:
            return known
        X, generator = self.inputs(data.values, data.device), torch.Generator().manual_seed(seed)
        chosen = self.path.support[index]
        return refit(X, data.pairs, data.share, chosen, options=self.options, generator=generator)

    def relaxed(self, data: Data, seed: int) -> "Fitted":
        """The same with refits."""
        X = self.inputs(data.values, data.device)
        return replace(self, refits=relax(X, data.pairs, data.share, self.path, options=self.options, seed=seed).states)


def fit(
    data: Data,
    options: PathOptions,
    seed: int,
    penalties: Floats | None = None,
    progress: Callable[[int, float, int], None] | None = None,
) -> Fitted:
    """The path on all rows of the data.

    Args:
        data: Rows and outcomes.
        options: Of the path.
        seed: Of the initial weights.
        penalties: a_q (p,), infinite for a feature that may not enter.
        progress: As `fit_path` calls it.
    """
    features = Features().learn(data.values, data.weight)
    X = torch.from_numpy(features.standardised(data.values)).to(data.device)
    a = torch.from_numpy(np.where(features.constant_, np.inf, 1.0 if penalties is None else penalties))
    generator = torch.Generator().manual_seed(seed)
    path = fit_path(X, data.pairs, data.share, options=options, adaptive=a, generator=generator, progress=progress)
    return Fitted(features, path, options)


@dataclass(frozen=True, eq=False)
class Search:
    """A path on all rows, and one without each fold at the same λ.

    Attributes:
        data: All rows.
        fold: (n,) of each row; None for no folds.
        whole: The path on all rows.
        parts: The path without fold 0, 1, …
        concordance: (L, K, folds) of the fold that was left out; NaN where it can't be told.
        refitted: (L,) whether a λ stands for its features trained without the penalty, or for the path's network.
        chance: p-value of the hypothesis that no λ orders held-out rows better than chance.
    """

    data: Data
    fold: NDArray[Any] | None
    whole: Fitted
    parts: list[Fitted]
    concordance: Floats
    refitted: Rows
    chance: float

    @classmethod
    def run(
        cls,
        data: Data,
        fold: NDArray[Any] | None,
        options: PathOptions,
        seed: int,
        relaxed: bool = True,
        n_jobs: int | None = None,
        progress: Callable[[str], Callable[[int, float, int], None] | None] | None = None,
        first: "tuple[Search, int] | None" = None,
        groups: NDArray[Any] | None = None,
    ) -> "Search":
        """Fit all paths.

        Args:
            data: Rows and outcomes.
            fold: (n,) fold of each row, or None.
            options: Of the paths; without λ in it, those of the path on all rows are used for all.
            seed: Of the initial weights.
            relaxed: Whether a λ may stand for its features trained without the penalty. The penalty also shrinks what
                it keeps, so that where few features matter networks of the path itself predict best with far too
                many; where many matter a little, shrinking is right. At each λ the folds tell.
            n_jobs: Processes for the folds.
            progress: Gives the callback of a path, by its name.
            first: A search and the λ that was chosen in it: a second stage with adaptive penalties.
            groups: (n,): rows of one group are permuted together in the test of chance.
        """
        parallel = n_jobs not in (None, 1)
        show = progress or _silent
        before = None if first is None else first[0].whole.path.states[first[1]]
        whole = fit(data, options, seed, _penalties(before), show("all rows"))
        folds = 0 if fold is None else int(fold.max()) + 1
        fixed = replace(options, lambdas=tuple(whole.path.lambdas))
        show = _silent if parallel else show  # A progress bar can't go to another process.

        def one(number: int) -> tuple[Fitted, Floats, LeftOut]:
            before = None if first is None else first[0].parts[number].path.states[first[1]]
            out = np.asarray(fold == number)
            train, held = data.at(~out), data.at(out)
            # Every fold begins at the same weights, so that folds differ by their rows alone.
            part = fit(train, fixed, seed, _penalties(before), show(f"without fold {number + 1}"))
            kinds: list[list[State | None]] = [list(part.path.states)]
            if relaxed:
                part = part.relaxed(train, seed)
                kinds.append(part.refits or [])
            X, unknown = part.inputs(held.values, data.device), torch.full((len(data.tasks),), torch.nan)
            nothing = torch.zeros(len(X), len(data.tasks), dtype=torch.float64)
            scores = [[nothing if state is None else state.scores(X) for state in states] for states in kinds]
            concordance = [
                [
                    (unknown if state is None else concordances(held.pairs, each)).numpy()
                    for state, each in zip(states, found, strict=True)
                ]
                for states, found in zip(kinds, scores, strict=True)
            ]
            every = torch.stack([each for found in scores for each in found])
            kin = None if groups is None else groups[out]
            left_out = LeftOut(held.tasks, held.weight, every.cpu().numpy(), kin)
            return part, np.array(concordance), left_out

        if parallel:
            done = Parallel(n_jobs=n_jobs)(delayed(_alone)(one, number) for number in range(folds))
        else:
            done = [one(number) for number in range(folds)]
        shape = 1 + relaxed, len(whole.path.lambdas), len(data.tasks), 0
        kinds = np.stack([scores for _, scores, _ in done], axis=3) if done else np.zeros(shape)
        refitted = np.full(shape[1], relaxed)
        if done and relaxed:
            # A λ at which some fold has too many features to refit stands for the path's network.
            plain, again = (_over_tasks(values, data.share).mean(axis=1) for values in kinds)
            refitted = again >= plain
        values = np.where(refitted[:, None, None], kinds[-1], kinds[0])
        chance = p_value([held for _, _, held in done], data.share, seed=seed) if done else 1.0
        return cls(data, fold, whole, [part for part, _, _ in done], values, refitted, chance)

    def by_outcome(self) -> tuple[list[str], Floats]:
        """Names, and concordance (L, outcomes, folds), classes of a nominal outcome averaged."""
        names = list(dict.fromkeys(task.outcome.name for task in self.data.tasks))
        member = np.array([names.index(task.outcome.name) for task in self.data.tasks])
        return names, np.stack([mean_known(self.concordance[:, member == j], 1) for j in range(len(names))], axis=1)

    def mean_by_fold(self) -> Floats:
        """Mean concordance over tasks by their weights, (L, folds)."""
        return _over_tasks(self.concordance, self.data.share)

    def final(self, index: int, seed: int) -> State:
        """The network on all rows that λ number `index` stands for."""
        return self.whole.final(self.data, index, bool(self.refitted[index]), seed)

    def choose(self, selection: Selection, alpha: float) -> int:
        """Which λ: the best mean concordance, or the largest λ that is hardly worse; the last where it is chance."""
        if self.chance > alpha:
            return len(self.whole.path.lambdas) - 1
        each = self.mean_by_fold()
        known = np.isfinite(each).sum(axis=1)
        # A λ at which some fold keeps too many features is not compared with those that all folds know.
        mean = np.where(known == known.max(), mean_known(each, 1), -np.inf)
        best = len(mean) - 1 - int(np.argmax(mean[::-1]))  # of equals the smallest model
        if selection == "best":
            return best
        slack = WITHIN if selection == "within_tol" else np.nanstd(each[best], ddof=1) / np.sqrt(known[best])
        return int(np.flatnonzero(mean >= mean[best] - slack)[-1])

    def out_of_fold(self, index: int, seed: int) -> Floats:
        """Ranks (n, K) of rows by the networks that did not see them."""
        assert self.fold is not None
        ranks = np.full((len(self.fold), len(self.data.tasks)), np.nan)
        for number, part in enumerate(self.parts):
            out = self.fold == number
            train = self.data.at(~out)
            state = part.final(train, index, bool(self.refitted[index]), seed)
            seen, new = (
                state.scores(part.inputs(values, self.data.device)).cpu().numpy()
                for values in (train.values, self.data.values[out])
            )
            for k in range(ranks.shape[1]):
                ranks[out, k] = ScoreScale().fit(seen[:, k], train.weight).transform(new[:, k])
        return ranks


def _over_tasks(concordance: Floats, share: Sequence[float]) -> Floats:
    """Weighted mean of (L, K, folds) over the tasks that are known: (L, folds)."""
    weights = np.broadcast_to(np.array(share)[None, :, None], concordance.shape)
    there = np.isfinite(concordance)
    weight = (weights * there).sum(axis=1)
    total = np.where(there, concordance * weights, 0.0).sum(axis=1)
    return np.asarray(np.divide(total, weight, out=np.full(total.shape, np.nan), where=weight > 0))


def _silent(_: str) -> None:
    """No progress to show."""


def _penalties(state: State | None) -> Floats | None:
    return None if state is None else np.asarray(adaptive_weights(state).cpu())


def _alone(one: Callable[[int], tuple[Fitted, Floats, LeftOut]], number: int) -> tuple[Fitted, Floats, LeftOut]:
    """In a process of its own, which shares the cores with others."""
    torch.set_num_threads(1)
    return one(number)


def mean_known(values: Floats, axis: int) -> Floats:
    """The mean of what is finite, NaN where nothing is."""
    there = np.isfinite(values)
    count = there.sum(axis=axis)
    total = np.where(there, values, 0.0).sum(axis=axis)
    return np.asarray(np.divide(total, count, out=np.full(total.shape, np.nan), where=count > 0))


def outcome_weights(tasks: Sequence[Encoded], given: dict[str, float] | None) -> tuple[dict[str, float], list[float]]:
    """Weights of outcomes by name, and of tasks with sum 1.

    Raises:
        ValueError: for a name that is no outcome, a weight that is not finite and ≥ 0, or only zeros.
    """
    names = list(dict.fromkeys(task.outcome.name for task in tasks))
    weights = dict.fromkeys(names, 1.0)
    for name, weight in (given or {}).items():
        if name not in weights:
            raise ValueError(f"task_weights names {name!r}, which is no outcome: there are {', '.join(names)}")
        if not 0 <= weight < np.inf:
            raise ValueError(f"task_weights[{name!r}] must be finite and not negative, not {weight!r}")
        weights[name] = float(weight)
    total = sum(weights.values())
    if not total > 0:
        raise ValueError("all task_weights are 0: leave them out, or give some outcome a weight")
    return weights, [weights[task.outcome.name] * task.share / total for task in tasks]
