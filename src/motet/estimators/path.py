"""The path from a dense network to an empty one: Lemhadri et al., LassoNet, JMLR 2021."""

import itertools
import math
import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from typing import Literal, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from sklearn.exceptions import ConvergenceWarning
from torch import Tensor

from motet.estimators.dense import concordances, train
from motet.estimators.network import Layout, SharedNet, draw, forward
from motet.estimators.proximal import Penalty
from motet.estimators.solver import Criterion, Objective, Solver

Validation = tuple[Tensor, Sequence[Criterion]]
EXTRA = 5  # times n_lambdas: a path that is not empty by then ends with an error


@dataclass(frozen=True)
class PathOptions:
    """How a path is computed.

    Args:
        hidden_shared: H, units of the shared layer.
        hidden_task: Units of each task's own layers.
        corner: δ > 0, over which the corner of the ReLU is rounded. With corners the loss has kinks in the weights at
            which descent stops and no certificate can hold.
        bound: B of ‖A_k‖_F ≤ B and ‖v_k‖ ≤ B. λ scales with B to the number of head layers.
        loss: Kind of the rank loss.
        bandwidth: Its bandwidth w.
        penalty: "group_lasso", "group_mcp" or "lassonet". group_mcp starts at each λ from the group lasso's network.
        gamma: Of group_mcp.
        reach: M of lassonet.
        lambdas: Penalties to visit, increasing. None: `n_lambdas` in geometric progression from `first` times λ_max up
            to λ_max, and on at the same ratio until no feature is left. λ_max is a bound on the λ at which the
            empty network is stationary, of the pairs and X alone: it is the same for every start.
        last: The λ at which that grid ends instead, where it comes to it; only without `lambdas`.
        n_lambdas: Length of that grid, ≥ 2.
        first: λ_0 over λ_max, in (0, 1).
        dense_steps: Adam steps of the dense start; fewer with validation rows, where concordance has a maximum.
        lr: Of Adam, in the dense start and in the refit.
        max_iter: Most proximal steps per λ.
        tol: Residual over λ at which a λ counts as converged.
        n_init: Starts; the path with the best validation concordance is kept, without validation rows the one with
            the lowest mean loss.
        dtype: Of the network; the losses are float64 in any case.
    """

    hidden_shared: int = 32
    hidden_task: tuple[int, ...] = (16,)
    corner: float = 0.2
    bound: float = 1.5
    loss: str = "logistic"
    bandwidth: float = 1.0
    penalty: Literal["group_lasso", "group_mcp", "lassonet"] = "group_lasso"
    gamma: float = 3.0
    reach: float = 10.0
    lambdas: Sequence[float] | None = None
    last: float | None = None
    n_lambdas: int = 60
    first: float = 0.01
    dense_steps: int = 100
    lr: float = 0.01
    max_iter: int = 60
    tol: float = 0.02
    n_init: int = 1
    dtype: torch.dtype = torch.float32

    def __post_init__(self) -> None:
        positive = {"corner": self.corner, "bound": self.bound, "lr": self.lr, "tol": self.tol}
        for name, value in positive.items():
            if not 0 < value < math.inf:
                raise ValueError(f"{name} must be positive, not {value}")
        least = {"max_iter": 1, "n_init": 1, "hidden_shared": 1, "n_lambdas": 2}
        for name, fewest in least.items():
            count = getattr(self, name)
            if count != int(count) or count < fewest:
                raise ValueError(f"{name} must be a whole number from {fewest} on, not {count!r}")
        if not 0 < self.first < 1:
            raise ValueError(f"first is λ_0 over λ_max and must lie in (0, 1), not {self.first}")
        if self.lambdas is not None and not (len(self.lambdas) and (np.diff([0.0, *self.lambdas]) > 0).all()):
            raise ValueError("lambdas must be positive and increasing")
        if self.last is not None and not 0 < self.last < math.inf:
            raise ValueError(f"last is a λ and must be positive, not {self.last}")

    def layout(self, features: int, tasks: int) -> Layout:
        """Of the networks on this path."""
        skip = self.penalty == "lassonet"
        return Layout(features, tasks, self.hidden_shared, tuple(self.hidden_task), skip, self.corner)

    def rule(self, tasks: int) -> Penalty:
        """The penalty with its options."""
        return Penalty(self.penalty, self.gamma, self.reach, tasks)


class State(NamedTuple):
    """A network of which only the live columns are kept."""

    layout: Layout  # of all p features
    features: Tensor  # (a,) live columns
    flat: Tensor  # of layout.restricted(a)
    centre: Tensor  # (K,) mean training scores

    def scores(self, X: Tensor) -> Tensor:
        """Scores (n, K), with mean 0 on the training rows."""
        if not len(self.features):
            return torch.zeros(len(X), self.layout.tasks, dtype=torch.float64, device=X.device)
        layout = self.layout.restricted(len(self.features))
        chosen = X.to(self.flat.dtype)[:, self.features]
        return forward(layout, self.flat, chosen).scores.double() - self.centre

    def net(self) -> SharedNet:
        """As a module over all p features."""
        live = self.layout.restricted(len(self.features))
        rows = self.flat.new_zeros(self.layout.features, self.layout.width)
        rows[self.features] = live.split(self.flat).first
        return SharedNet.from_flat(self.layout, torch.cat([rows.reshape(-1), self.flat[live.sizes[0] :]]))

    def norms(self) -> Tensor:
        """‖W_q‖ of all features (p,)."""
        norms = self.flat.new_zeros(self.layout.features)
        norms[self.features] = self.layout.restricted(len(self.features)).split(self.flat).first.norm(dim=1)
        return norms


@dataclass(frozen=True)
class Path:
    """Networks from dense to empty, one per λ. Arrays have one row per λ, increasing."""

    lambdas: NDArray[np.float64]
    states: list[State] = field(repr=False)
    dense: State = field(repr=False)
    loss: NDArray[np.float64]  # (L, K)
    concordance_train: NDArray[np.float64]  # (L, K)
    concordance_validation: NDArray[np.float64] | None  # (L, K)
    kkt: NDArray[np.float64]  # residual over λ
    steps: NDArray[np.int64]
    tol: float

    @property
    def converged(self) -> NDArray[np.bool_]:
        """Which λ are solved."""
        return self.kkt <= self.tol

    @property
    def support(self) -> NDArray[np.bool_]:
        """Which features each network sees: (L, p)."""
        chosen = np.zeros((len(self.states), self.dense.layout.features), dtype=bool)
        for row, state in zip(chosen, self.states, strict=True):
            row[state.features.cpu().numpy()] = True
        return chosen

    @property
    def n_selected(self) -> NDArray[np.int64]:
        """Features per λ."""
        return np.array([len(state.features) for state in self.states])

    @property
    def exit_lambda(self) -> NDArray[np.float64]:
        """The largest λ at which a feature is still selected, 0 where none: (p,)."""
        return np.asarray((self.support * self.lambdas[:, None]).max(0))

    def net(self, index: int) -> SharedNet:
        """The network at λ number `index`."""
        return self.states[index].net()

    def scores(self, index: int, X: Tensor) -> Tensor:
        """Its scores (n, K), centred on the training rows."""
        return self.states[index].scores(X)

    def warn(self, index: int) -> None:
        """Say so where λ number `index` is not solved."""
        if not self.converged[index]:
            warnings.warn(
                f"the network at lambda={self.lambdas[index]:.3g} is not solved: its residual is {self.kkt[index]:.2g} "
                f"times lambda after {self.steps[index]} steps (tol={self.tol:g}), and its features may still change. "
                "Raise max_iter, or choose a larger lambda; if neither helps, standardise X and look for "
                "columns that repeat each other.",
                ConvergenceWarning,
                stacklevel=3,
            )


def lambda_max(X: Tensor, objective: Objective, options: PathOptions, adaptive: Tensor | None = None) -> float:
    """The λ from which the empty network is stationary whatever its heads are.

    At W = 0 all scores of a task are equal, and ‖∇_q‖ ≤ Σ_k w_k |x_q·∂L_k/∂f_k| B^(head layers + 1). For the hierarchy
    the skip's own gradient is taken and that of hidden weights on their bound.
    """
    slope = objective.losses(X.new_zeros(len(X), len(objective.weights)))[1]
    marginal = (X.T @ slope).double().abs()
    reach = marginal.sum(1) * options.bound ** (len(options.hidden_task) + 1)
    if options.penalty == "lassonet":
        reach = marginal.norm(dim=1) + options.reach * math.sqrt(options.hidden_shared) * reach
    if adaptive is not None:
        reach = reach / adaptive.double()
    return float(reach.amax())


def fit_path(
    X: Tensor,
    pairs: Sequence[Criterion],
    weights: Sequence[float] | Tensor,
    *,
    validation: Validation | None = None,
    options: PathOptions | None = None,
    adaptive: Tensor | None = None,
    start: SharedNet | None = None,
    generator: torch.Generator | None = None,
    progress: Callable[[int, float, int], None] | None = None,
) -> Path:
    """Follow the penalised minimum from dense to empty.

    Args:
        X: (n, p), standardised.
        pairs: One criterion per task, with comparable pairs.
        weights: w_k of the tasks.
        validation: X and pairs of other rows, for early stopping, restarts and `concordance_validation`.
        options: PathOptions().
        adaptive: a_q ≥ 0 (p,), infinite for a feature that may not enter; 1 by default.
        start: Initial weights, in place of random ones.
        generator: Of the initial weights: the only random numbers drawn.
        progress: Called with (index, λ, features left) after each λ.
    """
    options = options or PathOptions()
    X = X.to(options.dtype)
    if validation is not None:
        validation = (validation[0].to(X), validation[1])
    objective = Objective(
        pairs,
        torch.as_tensor(weights, dtype=torch.float64, device=X.device),
        options.loss,
        options.bandwidth,
        X.dtype,
    )
    if start is not None and options.n_init > 1:
        raise ValueError("n_init counts random starts: with a start of your own it must be 1")
    if start is not None and start.layout != options.layout(X.shape[1], len(pairs)):
        raise ValueError(f"start is a network of {start.layout}, and the options ask for another")
    paths = [
        _one_path(X, objective, validation, options, adaptive, start, generator, progress)
        for _ in range(options.n_init)
    ]
    return max(paths, key=_quality)


def _quality(path: Path) -> float:
    if path.concordance_validation is None:
        return -float(path.loss.mean())
    return float(np.nanmean(path.concordance_validation, 1).max())


def _one_path(
    X: Tensor,
    objective: Objective,
    validation: Validation | None,
    options: PathOptions,
    adaptive: Tensor | None,
    start: SharedNet | None,
    generator: torch.Generator | None,
    progress: Callable[[int, float, int], None] | None,
) -> Path:
    tasks = len(objective.weights)
    layout = options.layout(X.shape[1], tasks)
    a = torch.ones_like(X[0]) if adaptive is None else adaptive.to(X)
    features = a.isfinite().nonzero().squeeze(1)
    flat = draw(layout, generator, X.dtype).to(X.device) if start is None else start.flat().to(X)
    flat = _columns(layout, flat, features)
    flat = train(
        layout.restricted(len(features)),
        flat,
        X[:, features],
        objective,
        options.bound,
        steps=options.dense_steps,
        lr=options.lr,
        validation=None if validation is None else (validation[0][:, features], validation[1]),
    )
    dense = _state(layout, features, flat, X)
    solver = Solver(layout, objective, X, options.rule(tasks), options.bound, steps=options.max_iter, tol=options.tol)
    # A concave penalty leaves the long rows of a dense network alone: its path branches off the convex one's at each λ.
    concave = options.penalty == "group_mcp"
    trunk = replace(solver, penalty=Penalty("group_lasso")) if concave else solver
    lambdas, rows, step_size = [], [], 1.0
    states: list[State] = []
    open_end = options.lambdas is None and options.last is None
    for index, value in enumerate(_grid(X, objective, options, adaptive)):
        if open_end and states and not len(states[-1].features):
            break
        solved = trunk.solve(flat, features, value * a, step_size)
        flat, features, step_size = solved.flat, solved.features, solved.step_size
        if concave:
            solved = solver.solve(flat, features, value * a, step_size)
        lambdas.append(value)
        states.append(State(layout, solved.features, solved.flat, solved.scores.double().mean(0)))
        held_out = None if validation is None else concordances(validation[1], states[-1].scores(validation[0]))
        rows.append((solved, concordances(objective.pairs, solved.scores), held_out))
        if progress is not None:
            progress(index, value, len(solved.features))
    else:
        if open_end:
            raise RuntimeError(
                f"{len(features)} features are left at lambda={lambdas[-1]:.3g}, {EXTRA} times beyond the grid: "
                "give lambdas yourself, or a smaller bound"
            )
    return Path(
        np.array(lambdas),
        states,
        dense,
        torch.stack([solved.losses for solved, _, _ in rows]).cpu().numpy(),
        torch.stack([train for _, train, _ in rows]).numpy(),
        None if validation is None else torch.stack([held for _, _, held in rows if held is not None]).numpy(),
        np.array([solved.kkt for solved, _, _ in rows]),
        np.array([solved.steps for solved, _, _ in rows]),
        options.tol,
    )


def _grid(X: Tensor, objective: Objective, options: PathOptions, adaptive: Tensor | None) -> list[float]:
    if options.lambdas is not None:
        return [float(value) for value in options.lambdas]
    largest = lambda_max(X, objective, options, adaptive)
    ratio = options.first ** (-1 / (options.n_lambdas - 1))
    grid = (largest * options.first * ratio**i for i in range(EXTRA * options.n_lambdas))
    if (last := options.last) is None:
        return list(grid)
    return [*itertools.takewhile(lambda value: value < last * (1 - 1e-9), grid), last]


def _columns(layout: Layout, flat: Tensor, features: Tensor) -> Tensor:
    return torch.cat([layout.split(flat).first[features].reshape(-1), flat[layout.sizes[0] :]])


def _state(layout: Layout, features: Tensor, flat: Tensor, X: Tensor) -> State:
    scores = forward(layout.restricted(len(features)), flat, X[:, features]).scores
    return State(layout, features, flat, scores.double().mean(0))


def adaptive_weights(state: State, epsilon: float = 1e-3) -> Tensor:
    """a_q = 1/(‖W_q‖ + ε), infinite where W_q = 0, scaled so that the strongest feature has a_q = 1.

    ε counts in units of the largest norm.
    """
    norms = state.norms().double()
    largest = norms.amax()
    return torch.where(norms > 0, (1 + epsilon) * largest / (norms + epsilon * largest), torch.inf)


def refit(
    X: Tensor,
    pairs: Sequence[Criterion],
    weights: Sequence[float] | Tensor,
    support: Tensor | NDArray[np.bool_],
    *,
    validation: Validation | None = None,
    options: PathOptions | None = None,
    ridge: float = 0.003,
    steps: int = 150,
    start: State | None = None,
    generator: torch.Generator | None = None,
) -> State:
    """Train on the selected features alone, without the sparsity penalty that shrinks them on the path.

    Args:
        X: (n, p).
        pairs: As for `fit_path`.
        weights: As for `fit_path`.
        support: bool (p,).
        validation: For early stopping.
        options: For layout, loss, bound and learning rate.
        ridge: ρ of ρ/2·‖W‖², which takes the penalty's place.
        steps: Of Adam.
        start: A network of the path on the same features; None draws new weights.
        generator: Of these.
    """
    options = options or PathOptions()
    X = X.to(options.dtype)
    objective = Objective(
        pairs,
        torch.as_tensor(weights, dtype=torch.float64, device=X.device),
        options.loss,
        options.bandwidth,
        X.dtype,
    )
    layout = options.layout(X.shape[1], len(objective.weights))
    features = torch.as_tensor(support, device=X.device).nonzero().squeeze(1)
    live = layout.restricted(len(features))
    if start is None:
        flat = draw(live, generator, X.dtype).to(X.device)
    elif torch.equal(start.features, features):
        flat = start.flat
    else:
        raise ValueError("start has other features than support")
    flat = train(
        live,
        flat,
        X[:, features],
        objective,
        options.bound,
        steps=steps,
        lr=options.lr,
        ridge=ridge,
        validation=None if validation is None else (validation[0].to(X)[:, features], validation[1]),
    )
    return _state(layout, features, flat, X)
