"""The methods that mixed outcomes are compared with, behind one interface, all tuned on the same folds by one rule.

A `Method` is called with X, the targets and the folds and gives a `Fitted` for each rule of choice. Most are a `Path`:
models from dense to sparse, of which the mean concordance over tasks and folds chooses one ("best"), or the sparsest
within one standard error of it ("1se"). X comes standardised; outcomes are encoded from the training rows alone.
"""

import warnings
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import pandas as pd
import torch
from scipy.stats import norm, rankdata
from sklearn.ensemble import RandomForestClassifier, RandomForestRegressor
from sklearn.linear_model import MultiTaskLasso
from sklearn.model_selection import KFold
from torch import Tensor
from torch.nn.functional import softplus

RULES = ("best", "1se")
Rows = np.ndarray
Folds = list[tuple[Rows, Rows]]


@dataclass(frozen=True)
class Target:
    """One outcome: higher is larger, likelier or longer-lived; NaN is missing; `event` only where it is censored."""

    name: str
    kind: str
    y: np.ndarray
    event: np.ndarray | None = None

    def at(self, rows: Rows) -> "Target":
        return replace(self, y=self.y[rows], event=None if self.event is None else self.event[rows])

    @property
    def known(self) -> np.ndarray:
        return ~np.isnan(self.y)


def read(Y: pd.DataFrame, outcomes: Mapping[str, Any]) -> list[Target]:
    """Targets of a declared table."""
    found = []
    for name, declared in outcomes.items():
        if isinstance(declared, str):
            found.append(Target(name, declared, Y[name].to_numpy(float)))
            continue
        found.append(Target(name, "survival", Y[declared.time].to_numpy(float), Y[declared.event].to_numpy(float)))
    return found


def concordance(target: Target, scores: np.ndarray) -> float:
    """Harrell's C, the AUC of a binary outcome; ties of scores count one half; NaN without a comparable pair.

    In O(n log² n): two rows' ranks of y first differ in one bit, so each bit counts the pairs of one level.
    """
    known = target.known
    if not known.any() or np.isnan(scores[known]).any():
        return float("nan")
    y, f = target.y[known], np.unique(scores[known], return_inverse=True)[1]
    event = np.ones(len(y), bool) if target.event is None else target.event[known] > 0
    # Of equal times the censored one is longer; and only rows with the event are known to be the shorter.
    order = np.unique(np.stack([y, ~event if target.event is not None else 0 * y], 1), axis=0, return_inverse=True)[1]
    order, n = order.ravel(), len(y)
    right = pairs = 0.0
    for bit in range(int(order.max()).bit_length()):
        block, upper = order >> (bit + 1), (order >> bit) & 1 == 1
        key = block * (n + 1) + f
        shorter = np.sort(key[~upper & event])
        longer, first = key[upper], block[upper] * (n + 1)
        start, below, upto, end = (
            np.searchsorted(shorter, value, side)
            for value, side in ((first, "left"), (longer, "left"), (longer, "right"), (first + n, "right"))
        )
        right += (below - start).sum() + 0.5 * (upto - below).sum()
        pairs += (end - start).sum()
    return right / pairs if pairs else float("nan")


def concordances(targets: Sequence[Target], scores: np.ndarray) -> np.ndarray:
    """(K,) of (n, K) scores."""
    return np.array([concordance(target, scores[:, k]) for k, target in enumerate(targets)])


def folds(n: int, seed: int, count: int = 5) -> Folds:
    """The folds that all methods share."""
    return list(KFold(count, shuffle=True, random_state=seed).split(np.zeros(n)))


@dataclass(frozen=True)
class Fitted:
    """What a method came to.

    Attributes:
        predict: X → (n, K) scores, NaN for a task that the method cannot do.
        selected: (p,), or (K, p) where tasks choose for themselves; None for a method that uses all columns.
    """

    predict: Callable[[np.ndarray], np.ndarray]
    selected: np.ndarray | None


Method = Callable[[np.ndarray, list[Target], Folds, int], dict[str, Fitted]]


@dataclass(frozen=True)
class Path:
    """Models from dense to sparse: their penalties (L,), scores X → (L, n, K), and columns (L, p) or None."""

    lambdas: np.ndarray
    scores: Callable[[np.ndarray], np.ndarray]
    support: np.ndarray | None


Paths = Callable[[np.ndarray, list[Target], list[Rows], int], list[Path]]
"""X, targets, sets of rows, seed → a path for each set of rows; all on the first one's penalties."""


def tuned(paths: Paths) -> Method:
    """The model of a path that cross-validation chooses."""

    def fit(X: np.ndarray, targets: list[Target], splits: Folds, seed: int) -> dict[str, Fitted]:
        made = paths(X, targets, [np.arange(len(X)), *(train for train, _ in splits)], seed)
        whole, count = made[0], len(made[0].lambdas)
        curve = np.full((len(splits), count), np.nan)
        for fold, (_, rows) in enumerate(splits):
            scores, held = made[fold + 1].scores(X[rows]), [target.at(rows) for target in targets]
            # A fold's path may be empty earlier: what is empty orders nothing.
            with warnings.catch_warnings():
                warnings.simplefilter("ignore", RuntimeWarning)
                reached = [np.nanmean(concordances(held, at)) for at in scores]
            curve[fold] = [*reached, *[0.5] * (count - len(reached))][:count]
        return {rule: _chosen(whole, curve, rule) for rule in RULES}

    return fit


def _chosen(whole: Path, curve: np.ndarray, rule: str) -> Fitted:
    mean = np.nanmean(curve, axis=0)
    best = len(mean) - 1 - int(np.argmax(mean[::-1]))  # of equals the sparsest
    at = best
    if rule == "1se" and whole.support is not None:
        margin = np.nanstd(curve[:, best], ddof=1) / np.sqrt(len(curve))
        at = int(np.flatnonzero(mean >= mean[best] - margin).max())
    return Fitted(lambda X: whole.scores(X)[at], None if whole.support is None else whole.support[at])


def each(method: Method, kinds: Sequence[str] | None = None) -> Method:
    """The method for one outcome at a time, on the rows that have it; NaN for outcomes of other kinds."""

    def fit(X: np.ndarray, targets: list[Target], splits: Folds, seed: int) -> dict[str, Fitted]:
        parts: list[dict[str, Fitted] | None] = []
        for target in targets:
            if kinds is not None and target.kind not in kinds:
                parts.append(None)
                continue
            rows = np.flatnonzero(target.known)
            place = np.full(len(X), -1)
            place[rows] = np.arange(len(rows))
            inside = [(place[train][place[train] >= 0], place[held][place[held] >= 0]) for train, held in splits]
            parts.append(method(X[rows], [target.at(rows)], inside, seed))
        return {rule: _together([part and part[rule] for part in parts], X.shape[1]) for rule in RULES}

    return fit


def _together(parts: Sequence[Fitted | None], p: int) -> Fitted:
    def predict(X: np.ndarray) -> np.ndarray:
        return np.stack([np.full(len(X), np.nan) if part is None else part.predict(X)[:, 0] for part in parts], 1)

    done = [part for part in parts if part is not None]
    if any(part.selected is None for part in done):
        return Fitted(predict, None)
    nothing = np.zeros(p, bool)
    return Fitted(predict, np.stack([nothing if part is None else part.selected for part in parts]))


def within(method: Method, columns: np.ndarray) -> Method:
    """The method with these columns alone, as one who knows the support would have it."""

    def fit(X: np.ndarray, targets: list[Target], splits: Folds, seed: int) -> dict[str, Fitted]:
        inner = method(X[:, columns], targets, splits, seed)
        return {
            rule: Fitted(lambda A, part=part: part.predict(A[:, columns]), columns.copy())
            for rule, part in inner.items()
        }

    return fit


# Outcomes as numbers.


def rank_normal(y: np.ndarray) -> np.ndarray:
    """Normal quantiles of mid-ranks, (r − 3/8) / (n + 1/4); NaN stays."""
    known = ~np.isnan(y)
    out = np.full(len(y), np.nan)
    out[known] = norm.ppf((rankdata(y[known]) - 0.375) / (known.sum() + 0.25))
    return out


def numbers(target: Target, rows: Rows, ranks: bool) -> np.ndarray:
    """(len(rows),), of mean 0 and deviation 1 over these rows; survival is the log of the time, censored or not."""
    y = target.y[rows]
    if target.kind == "survival":
        y = np.log(np.maximum(y, 1e-12))
    if ranks and target.kind != "binary":
        y = rank_normal(y)
    deviation = np.nanstd(y)
    return np.asarray((y - np.nanmean(y)) / (deviation if deviation > 0 else 1.0))


# Linear: MultiTaskLasso and Coxnet.


def multitask_lasso(ranks: bool) -> Paths:
    """The l₂₁ path on all outcomes as columns of numbers; missing ones are imputed by their mean, that is 0."""

    def paths(X: np.ndarray, targets: list[Target], rowsets: list[Rows], _: int) -> list[Path]:
        made: list[Path] = []
        for rows in rowsets:
            A = X[rows]
            B = np.nan_to_num(np.stack([numbers(target, rows, ranks) for target in targets], 1))
            centre = A.mean(0)
            grid = {"alphas": made[0].lambdas[::-1]} if made else {"alphas": 60, "eps": 0.02}
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")  # of convergence at the dense end
                alphas, coefficients, _ = MultiTaskLasso.path(A - centre, B, l1_ratio=1.0, max_iter=1000, **grid)
            made.append(_linear(alphas[::-1], coefficients[:, :, ::-1]))
        return made

    return paths


def _linear(lambdas: np.ndarray, coefficients: np.ndarray) -> Path:
    """Penalties rising, coefficients (K, p, L)."""
    return Path(
        np.array(lambdas),
        lambda X: np.einsum("np,kpl->lnk", X, coefficients),
        (coefficients != 0).any(0).T,
    )


def coxnet(X: np.ndarray, targets: list[Target], rowsets: list[Rows], _: int) -> list[Path]:
    """The Cox lasso of scikit-survival, 60 penalties."""
    from sksurv.linear_model import CoxnetSurvivalAnalysis
    from sksurv.util import Surv

    (target,) = targets
    made: list[Path] = []
    for rows in rowsets:
        grid: dict[str, Any] = {"alphas": made[0].lambdas[::-1]} if made else {"n_alphas": 60, "alpha_min_ratio": 0.05}
        model = CoxnetSurvivalAnalysis(l1_ratio=1.0, **grid)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            model.fit(X[rows], Surv.from_arrays(target.event[rows] > 0, target.y[rows]))
        made.append(_linear(model.alphas_[::-1], -model.coef_[None, :, ::-1]))
    return made


# Forests: the "path" is a grid of leaf sizes, and there is no sparsity.


def forest(trees: int = 100, leaves: Sequence[int] = (3, 10)) -> Paths:
    def paths(X: np.ndarray, targets: list[Target], rowsets: list[Rows], seed: int) -> list[Path]:
        (target,) = targets
        made = []
        for rows in rowsets:
            models = [_forest(target.kind, leaf, trees, seed) for leaf in leaves]
            for model in models:
                model.fit(X[rows], _forest_target(target.at(rows)))
            made.append(
                Path(
                    np.array(leaves, float),
                    lambda A, models=models: np.stack([_forest_scores(model, A)[:, None] for model in models]),
                    None,
                )
            )
        return made

    return paths


def _forest(kind: str, leaf: int, trees: int, seed: int) -> Any:
    common = {"n_estimators": trees, "min_samples_leaf": leaf, "max_features": 1 / 3, "random_state": seed, "n_jobs": 1}
    if kind == "survival":
        from sksurv.ensemble import RandomSurvivalForest

        # Risks need no curves: low_memory keeps the cumulative hazards' sums alone.
        return RandomSurvivalForest(**common | {"max_features": "sqrt", "low_memory": True})
    return RandomForestClassifier(**common) if kind == "binary" else RandomForestRegressor(**common)


def _forest_target(target: Target) -> np.ndarray:
    if target.kind == "survival":
        from sksurv.util import Surv

        return Surv.from_arrays(target.event > 0, target.y)
    return target.y if target.kind == "binary" else rank_normal(target.y)


def _forest_scores(model: Any, X: np.ndarray) -> np.ndarray:
    if isinstance(model, RandomForestClassifier):
        share: np.ndarray = model.predict_proba(X)[:, list(model.classes_).index(1.0)] if 1.0 in model.classes_ else 0
        return share
    predicted: np.ndarray = model.predict(X)
    return predicted if isinstance(model, RandomForestRegressor) else -predicted


# LassoNet.


def lassonet(multiplier: float = 1.1, ranks: bool = True, whole: bool = False) -> Paths:
    """LassoNet's path: the classifier for one binary outcome, Cox for one survival time, else squared errors.

    With several outcomes all are numbers, and missing ones imputed by their mean. Its defaults, but a path in steps of
    `multiplier` instead of 1.02 and 32 hidden units, so that six paths an outcome are affordable.
    Penalties at which all columns stay are left out but for the last, unless the `whole` path is wanted.
    """

    def paths(X: np.ndarray, targets: list[Target], rowsets: list[Rows], seed: int) -> list[Path]:
        made: list[Path] = []
        for rows in rowsets:
            model, y = _lassonet(targets, rows, multiplier, ranks, seed)
            states: list[dict[str, Tensor]] = []
            A = X[rows].astype(np.float32)
            keep = lambda it, _, states=states: states.append(it.model.cpu_state_dict())  # noqa: E731
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")
                history = model.path(A, y, callback=keep, lambda_seq=list(made[0].lambdas[1:]) if made else None)
            support = np.stack([step.selected.numpy().astype(bool) for step in history])
            # Half of the path is dense; the folds need not repeat it.
            start = 0 if made or whole else max(1, int(np.argmin(support.all(1))) - 1)
            chosen = [0, *range(max(start, 1), len(history))]
            lambdas = np.array([history[at].lambda_ for at in chosen])
            states = [states[at] for at in chosen]
            made.append(Path(lambdas, lambda B, m=model, s=states: _lassonet_scores(m, s, B), support[chosen]))
        return made

    return paths


def _lassonet(targets: list[Target], rows: Rows, multiplier: float, ranks: bool, seed: int) -> tuple[Any, np.ndarray]:
    from lassonet import LassoNetClassifier, LassoNetCoxRegressor, LassoNetRegressor

    options = {"hidden_dims": (32,), "path_multiplier": multiplier, "verbose": 0, "random_state": seed}
    options |= {"torch_seed": seed, "device": torch.device("cpu")}
    kind = targets[0].kind if len(targets) == 1 else "continuous"
    if kind == "binary":
        return LassoNetClassifier(**options), targets[0].y[rows].astype(int)
    if kind == "survival":
        y = np.stack([targets[0].y[rows], targets[0].event[rows]], 1).astype(np.float32)
        return LassoNetCoxRegressor(tie_approximation="breslow", **options), y
    y = np.nan_to_num(np.stack([numbers(target, rows, ranks) for target in targets], 1)).astype(np.float32)
    return LassoNetRegressor(**options), y


def _lassonet_scores(model: Any, states: list[dict[str, Tensor]], X: np.ndarray) -> np.ndarray:
    A, found = torch.tensor(X, dtype=torch.float32), []
    for state in states:
        model.load(state).model.eval()
        with torch.no_grad():
            out = model.model(A).numpy()
        if type(model).__name__ == "LassoNetClassifier":
            out = out[:, 1:] - out[:, :1]
        found.append(-out if type(model).__name__ == "LassoNetCoxRegressor" else out)
    return np.stack(found)


# The same network with one loss a type of outcome: squared error, logistic, Cox.


@dataclass(frozen=True)
class TypedNet:
    """Shared first layer with a group penalty, heads of 16: squared error, logistic and Cox losses, their mean.

    From dense to sparse with warm starts. The first layer takes proximal steps of one length for all its weights
    (Adam's second moment as a mean over the layer), so fixed points are those of the penalty; the other layers take
    Adam's, and their norms stay within a ball. All folds are fitted at once, as a batch of networks.

    Args:
        ranks: Rank-inverse-normal numbers for continuous, ordinal and count outcomes; else standardised ones.
    """

    ranks: bool
    hidden: int = 32
    head: int = 16
    ball: float = 3.0
    dense_steps: int = 200
    steps: int = 40
    factor: float = 1.15
    rate: float = 5e-3

    def __call__(self, X: np.ndarray, targets: list[Target], rowsets: list[Rows], seed: int) -> list[Path]:
        n, p = X.shape
        A = torch.tensor(X, dtype=torch.float32)
        losses = [self._loss(target, rowsets, n) for target in targets]
        M, K, H, G = len(rowsets), len(targets), self.hidden, self.head
        g = torch.Generator().manual_seed(seed)
        # Every fold starts from the same weights.
        W = (torch.randn(1, H, p, generator=g) / p**0.5).repeat(M, 1, 1)
        upper = [
            torch.zeros(M, H),
            (torch.randn(1, K, G, H, generator=g) / H**0.5).repeat(M, 1, 1, 1),
            torch.zeros(M, K, G),
            (torch.randn(1, K, G, generator=g) / G**0.5).repeat(M, 1, 1),
            torch.zeros(M, K),
        ]
        for parameter in upper:
            parameter.requires_grad_()
        optimizer = torch.optim.Adam(upper, lr=self.rate)
        active = torch.arange(p)
        mean, square, count = torch.zeros_like(W), torch.zeros(M, 1, 1), 0
        kept: list[tuple[Tensor, Tensor, list[Tensor]]] = []
        lambdas: list[float] = []
        penalty, first = 0.0, None
        while len(active) and len(lambdas) < 200:
            part = A[:, active]
            for _ in range(self.steps if lambdas else self.dense_steps):
                W.requires_grad_()
                optimizer.zero_grad()
                scores = _forward(part, W, upper)
                total = torch.stack([loss(scores[:, :, k]) for k, loss in enumerate(losses)]).mean(0).sum()
                total.backward()
                with torch.no_grad():
                    gradient, count = W.grad, count + 1
                    first = gradient[0].norm(dim=0).max().item() if first is None else first
                    mean = 0.9 * mean + 0.1 * gradient
                    square = 0.99 * square + 0.01 * gradient.square().mean((1, 2), keepdim=True)
                    length = self.rate / ((square / (1 - 0.99**count)).sqrt() + 1e-8)
                    W = W.detach() - length * mean / (1 - 0.9**count)
                    W *= (1 - length * penalty / W.norm(dim=1, keepdim=True).clamp_min(1e-12)).clamp_min(0)
                    optimizer.step()
                    for weight, axes in ((upper[1], (2, 3)), (upper[3], (2,))):
                        weight *= (self.ball / weight.norm(dim=axes, keepdim=True).clamp_min(1e-12)).clamp_max(1)
            here = W.norm(dim=1) > 0
            if lambdas and not here[0].any():
                here[:] = False  # the whole data's path is at its end
            kept.append((active, W.detach().clone(), [parameter.detach().clone() for parameter in upper]))
            lambdas.append(penalty)
            stay = here.any(0)
            active, W, mean = active[stay], W.detach()[:, :, stay], mean[:, :, stay]
            penalty = penalty * self.factor if penalty else 1e-2 * first
        return [self._path(m, p, np.array(lambdas), kept) for m in range(M)]

    @staticmethod
    def _path(m: int, p: int, lambdas: np.ndarray, kept: list[tuple[Tensor, Tensor, list[Tensor]]]) -> Path:
        support = np.zeros((len(kept), p), bool)
        for at, (active, W, _) in enumerate(kept):
            support[at, active[W[m].norm(dim=0) > 0].numpy()] = True

        def scores(X: np.ndarray) -> np.ndarray:
            A = torch.tensor(X, dtype=torch.float32)
            return np.stack(
                [_forward(A[:, active], W[m : m + 1], [u[m : m + 1] for u in upper])[0] for active, W, upper in kept]
            )

        return Path(lambdas, scores, support)

    def _loss(self, target: Target, rowsets: list[Rows], n: int) -> Callable[[Tensor], Tensor]:
        """(M, n) scores → (M,)."""
        weight, y = torch.zeros(len(rowsets), n), torch.zeros(len(rowsets), n)
        for m, rows in enumerate(rowsets):
            known = rows[target.known[rows]]
            weight[m, known] = 1.0
            plain = target.kind in ("binary", "survival")
            values = target.y[known] if plain else numbers(target, known, self.ranks)
            y[m, known] = torch.tensor(values, dtype=torch.float32)
        size = weight.sum(1).clamp_min(1)
        if target.kind == "binary":
            return lambda s: (weight * (softplus(s) - y * s)).sum(1) / size
        if target.kind != "survival":
            return lambda s: (weight * (s - y).square()).sum(1) / (2 * size)
        return _cox(target, weight)


def _cox(target: Target, weight: Tensor) -> Callable[[Tensor], Tensor]:
    """Minus Breslow's partial log likelihood an event; the risk is minus the score."""
    longest = np.argsort(-np.nan_to_num(target.y), kind="stable")
    order = torch.tensor(longest)
    # The last row of each tie has the whole risk set.
    times = np.nan_to_num(target.y)[longest]
    last = torch.tensor(np.searchsorted(-times, -times, side="right") - 1)
    inside = weight[:, order]
    event = inside * torch.tensor(np.nan_to_num(target.event)[longest], dtype=torch.float32)
    out = torch.where(inside > 0, 0.0, -1e9)

    def loss(s: Tensor) -> Tensor:
        risk = -s[:, order]
        at_risk = torch.logcumsumexp(risk + out, dim=1)[:, last]
        return (event * (at_risk - risk)).sum(1) / event.sum(1).clamp_min(1)

    return loss


def _forward(A: Tensor, W: Tensor, upper: list[Tensor]) -> Tensor:
    """X (n, q), W (M, H, q) and the layers above → (M, n, K)."""
    b, heads, inner, v, c = upper
    M, H, _ = W.shape
    h = torch.relu((A @ W.reshape(M * H, -1).T).view(-1, M, H).transpose(0, 1) + b[:, None])
    K, G = heads.shape[1:3]
    u = torch.relu(torch.baddbmm(inner.reshape(M, 1, K * G), h, heads.reshape(M, K * G, H).transpose(1, 2)))
    return (u.view(M, -1, K, G) * v[:, None]).sum(-1) + c[:, None]


# motet's own.


def rank_table(targets: list[Target]) -> tuple[pd.DataFrame, dict[str, Any]]:
    """Outcomes as motet takes them: Y and what its columns are."""
    from motet.estimators.outcomes import Survival

    Y: dict[str, np.ndarray] = {}
    outcomes: dict[str, Any] = {}
    for target in targets:
        if target.event is None:
            Y[target.name], outcomes[target.name] = target.y, target.kind
        else:
            Y |= {f"{target.name} time": target.y, f"{target.name} event": target.event}
            outcomes[target.name] = Survival(f"{target.name} time", f"{target.name} event")
    return pd.DataFrame(Y), outcomes


def motet_net(typed: bool = False) -> Method:
    """MixedOutcomeNetCV on these folds; `typed` has one loss a type of outcome in the rank loss's place."""

    def fit(X: np.ndarray, targets: list[Target], splits: Folds, seed: int) -> dict[str, Fitted]:
        from mixed_outcomes_typed import TypedNetCV, both_rules
        from motet.estimators import MixedOutcomeNetCV

        return both_rules(TypedNetCV if typed else MixedOutcomeNetCV)(X, targets, splits, seed)

    return fit


METHODS: dict[str, Method] = {
    "motet": motet_net(),
    "motet's path, MSE+BCE+Cox": motet_net(typed=True),
    "motet, single tasks": each(motet_net()),
    "MSE+BCE+Cox net, raw": tuned(TypedNet(ranks=False)),
    "MSE+BCE+Cox net, rank-normal": tuned(TypedNet(ranks=True)),
    "MultiTaskLasso, raw": tuned(multitask_lasso(ranks=False)),
    "MultiTaskLasso, rank-normal": tuned(multitask_lasso(ranks=True)),
    "LassoNet, single tasks": each(tuned(lassonet())),
    "LassoNet, MSE of all": tuned(lassonet()),
    "Coxnet": each(tuned(coxnet), kinds=("survival",)),
    "random forests": each(tuned(forest())),
}
NEEDS = {"Coxnet": "sksurv", "LassoNet, single tasks": "lassonet", "LassoNet, MSE of all": "lassonet"}
"""Packages that are imported inside, by the methods that need them; forests need sksurv where there is survival."""
