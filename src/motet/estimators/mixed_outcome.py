"""Features shared by outcomes of different kinds: arXiv 2607.00995 (reconstruction)."""

import warnings
from collections.abc import Iterable, Mapping
from dataclasses import replace
from numbers import Integral, Real
from typing import Any, Literal, Self

import numpy as np
import pandas as pd
import torch
from numpy.typing import ArrayLike, NDArray
from sklearn.base import BaseEstimator
from sklearn.feature_selection import SelectorMixin
from sklearn.utils import check_random_state
from sklearn.utils.validation import check_is_fitted

from motet.estimators.canonical import Canonical, canonical
from motet.estimators.display import Seeing
from motet.estimators.features import Features, check_weights
from motet.estimators.outcomes import Encoded, Survival, check_rows, encode, read_outcomes
from motet.estimators.path import PathOptions
from motet.estimators.prediction import Floats, Predictions, TaskScale, bare
from motet.estimators.progress import shown
from motet.estimators.search import Data, Search, mean_known, outcome_weights
from motet.estimators.splits import assign_folds, check_folds, given_folds, without_pairs
from motet.estimators.stored import Stored
from motet.estimators.trusting import Trust
from motet.losses.rank import KINDS


class MixedOutcomeNet(Predictions, Trust, Stored, Seeing, SelectorMixin, BaseEstimator):  # type: ignore[misc]
    r"""A network that predicts outcomes of different kinds from the few features that any of them needs.

    .. math:: \min_f \sum_k w_k L_k(f_k) + λ \sum_q a_q ‖W_q‖_2, \qquad f(x) = (f_1(x), …, f_K(x)),

    where L_k is the smoothed share of comparable pairs of rows that the score f_k puts in the wrong order, and W_q are
    the weights that leave feature q in the first layer, which all outcomes share. Only orders enter, so that outcomes
    of any kind weigh the same and no scale has to be chosen: a strictly increasing transform of an outcome gives the
    same fit, bit for bit. A feature that leaves the model has weights of exactly zero.

    Scores are brought back to the outcome's scale by isotonic distributional regression on scores from
    cross-validation, from which predictions, probabilities, survival curves and conformal intervals come.

    Args:
        outcomes: {name: kind} with continuous, binary, ordinal, count, nominal or ``Survival("time", "event")``; one
            kind for all; or "infer", whose guesses are in `outcomes_`. Y must have columns of these names.
        hidden_shared: Units of the shared layer.
        hidden_task: Units of each outcome's own layers.
        loss: Of a pair: "logistic" (convex, the default), or "drelu", "sigmoid", "epanechnikov", "squared_hinge",
            "exponential". "drelu" is the criterion of the paper's authors in earlier work.
        bandwidth: w of the loss.
        penalty: "group_lasso", "group_mcp" (shrinks large effects less) or "lassonet".
        lambda_: Strength of the penalty. None: the one that predicts best in rows that are held out, as
            `MixedOutcomeNetCV` finds it with `selection` "1se".
        adaptive: A second stage with a_q = 1/‖W_q‖ of the first.
        alpha: Level of a permutation test of the held-out concordance: where it can't be told from chance (p > alpha),
            the λ that is looked for is the largest, and nothing is selected. 1 turns it off.
        refit: Train the features of each λ once more without the penalty, and choose λ and predict by these networks
            where they order held-out rows at least as well as the penalised ones.
            The penalty also shrinks what it keeps, so that without it far too many features are selected.
        n_lambdas: Length of the path from dense to empty.
        bound: B of ‖A_k‖ ≤ B of the outcomes' own layers, without which λ would mean nothing.
        task_weights: {outcome: w}; 1 where not given.
        censoring: "harrell" or "uno" (inverse probability of censoring), in loss and score.
        calibrate: Learn the outcomes' scales, which takes a path for each of `cv` folds. Without it there are scores
            only.
        cv: Folds for calibration, and for λ where it is None: their number, a splitter, or the splits themselves, of
            which each row is left out in one. A number spreads rare classes, events and gaps evenly.
        n_init: Random starts of each path; the one with the lowest loss is kept.
        max_iter: Steps per λ.
        tol: Optimality residual over λ at which a λ counts as solved.
        device: "auto" (a GPU where there is one), or a torch device.
        n_jobs: Processes for the folds.
        random_state: Seed of the initial weights and of the folds.
        verbose: 1 shows a progress bar and what was inferred.

    Attributes:
        selected_features_: Names of the features that are used, by the λ at which they leave the path, last first.
        support_: (p,) bool.
        exit_lambda_: (p,) the largest λ at which a feature is in the model: its importance.
        outcomes_, task_names_: What was fitted, and the columns of `decision_function`.
        lambda_, lambda_path_, n_selected_path_, kkt_path_: λ that is used, and (L,) the path.
        scores_path_: (L, outcomes, folds) held-out concordance; None without folds.
        chance_: p-value of "no λ orders held-out rows better than chance"; None without folds.
        converged_, kkt_residual_: Of the λ that is used.
        fold_: (n,) the fold in which each row is left out, -1 for weight 0; None without folds.
        out_of_fold_: (n, tasks) ranks of the rows by the networks that did not see them, with `calibrate`.
        feature_names_in_, n_features_in_: Of X.

    Shapes:
        X (n, p) numbers without gaps; Y a table of n rows, where missing outcomes are NaN or None.

    Cost:
        For n rows a path is some 1,000 to 3,000 passes over the live columns and O(n²) for the logistic loss, and
        `cv` paths more for calibration.

    Note:
        Reconstruction. The paper's abstract gives the model, the smoothed rank criterion, the group lasso and the
        shared first layer. Smoother, bandwidth, task weights, depth, optimiser and the choice of λ are not public. Here
        the pair loss is logistic (alternatives: `loss`), w_k = 1/K, the corners of the ReLU are rounded so that a
        minimum can be certified, and paths run from dense to sparse, since at W = 0 a feature with an even effect has
        no gradient.

        Missing outcomes are left out of their own loss only, which is right where they are missing at random given X.
        Features that λ chosen for prediction selects are more than the true ones: see `stability_selection`.

    >>> import numpy as np, pandas as pd
    >>> rng = np.random.default_rng(0)
    >>> X = pd.DataFrame(rng.normal(size=(120, 6)), columns=list("abcdef"))
    >>> Y = pd.DataFrame({"dose": np.exp(X["a"] + X["b"]), "ill": (X["a"] - X["b"] > 0).where(X["f"] < 1)})
    >>> net = MixedOutcomeNet({"dose": "continuous", "ill": "binary"}, n_lambdas=15, random_state=0).fit(X, Y)
    >>> sorted(net.selected_features_)
    ['a', 'b']
    >>> net.predict(X).shape, bool(net.score(X, Y) > 0.9)
    ((120, 2), True)
    """

    def __init__(
        self,
        outcomes: str | Survival | Mapping[str, str | Survival] = "infer",
        *,
        hidden_shared: int = 32,
        hidden_task: tuple[int, ...] = (16,),
        loss: str = "logistic",
        bandwidth: float = 1.0,
        penalty: Literal["group_lasso", "group_mcp", "lassonet"] = "group_lasso",
        lambda_: float | None = None,
        adaptive: bool = False,
        alpha: float = 0.05,
        refit: bool = True,
        n_lambdas: int = 60,
        bound: float = 1.5,
        task_weights: Mapping[str, float] | None = None,
        censoring: Literal["harrell", "uno"] = "harrell",
        calibrate: bool = True,
        cv: Any = 5,
        n_init: int = 1,
        max_iter: int = 60,
        tol: float = 0.02,
        device: str = "auto",
        n_jobs: int | None = None,
        random_state: Any = None,
        verbose: int = 0,
    ) -> None:
        self.outcomes = outcomes
        self.hidden_shared = hidden_shared
        self.hidden_task = hidden_task
        self.loss = loss
        self.bandwidth = bandwidth
        self.penalty = penalty
        self.lambda_ = lambda_
        self.adaptive = adaptive
        self.alpha = alpha
        self.refit = refit
        self.n_lambdas = n_lambdas
        self.bound = bound
        self.task_weights = task_weights
        self.censoring = censoring
        self.calibrate = calibrate
        self.cv = cv
        self.n_init = n_init
        self.max_iter = max_iter
        self.tol = tol
        self.device = device
        self.n_jobs = n_jobs
        self.random_state = random_state
        self.verbose = verbose

    def fit(self, X: Any, Y: Any, sample_weight: ArrayLike | None = None, groups: ArrayLike | None = None) -> Self:
        """Fit.

        Args:
            X: (n, p) table or array of finite numbers.
            Y: A table of n rows with the outcomes' columns, an array (columns y0, y1, …), or scikit-survival's
                structured array for a survival outcome alone.
            sample_weight: (n,), ≥ 0: 2 is the same as the row twice.
            groups: (n,): rows of one group, such as a patient's, are never on both sides of a fold.

        Raises:
            ValueError: that names the outcome or column, for what can't be fitted.
        """
        data, rows, grouped = self._read(X, Y, sample_weight, groups)
        seed = self._seed()
        options = self._options()
        fold = self._folds(data, grouped, seed)
        kin = None if groups is None else np.asarray(groups)[rows.rows]
        with shown(self.verbose, (1 + (0 if fold is None else int(fold.max()) + 1)) * (1 + self.adaptive)) as progress:
            search = self._search(data, fold, options, seed, progress, kin)
            index = self._choose(search)
            if self.adaptive and search.whole.path.n_selected[index]:
                search = self._search(data, fold, options, seed, progress, kin, (search, index))
                index = self._choose(search)
        self._keep(search, index, rows, seed)
        if self.calibrate:
            self._calibrate(search, index, rows, seed)
        return self

    def _search(
        self,
        data: Data,
        fold: NDArray[Any] | None,
        options: PathOptions,
        seed: int,
        progress: Any,
        kin: NDArray[Any] | None,
        first: tuple[Search, int] | None = None,
    ) -> Search:
        """All paths: to the emptied network where λ is looked for, or to λ where it is given (of the last stage)."""
        if self.lambda_ is not None and (first is not None or not self.adaptive):
            options = replace(options, last=float(self.lambda_))
        return Search.run(data, fold, options, seed, self.refit, self.n_jobs, progress, first, kin)

    def _choose(self, search: Search) -> int:
        return len(search.whole.path.lambdas) - 1 if self.lambda_ is not None else search.choose("1se", self.alpha)

    def _read(
        self, X: Any, Y: Any, sample_weight: ArrayLike | None, groups: ArrayLike | None
    ) -> tuple[Data, Canonical, NDArray[Any] | None]:
        """Check everything that was given, before any work."""
        self._check()
        self.features_ = Features()
        values = self.features_.read(X, owner=self)
        if Y is None:
            raise ValueError("requires y to be passed, but the target y is None")
        check_rows(X if hasattr(X, "shape") else values, Y)
        weight = check_weights(sample_weight, len(values))
        if groups is not None and np.shape(groups) != (len(values),):
            raise ValueError(f"groups has the shape {np.shape(groups)}: it must be ({len(values)},), one for each row")
        apart = None if groups is None else np.asarray(groups)
        if not isinstance(self.cv, Integral):
            apart = given_folds(self.cv, values, apart, Y)
        self._named = not isinstance(Y, np.ndarray | list)
        self._flat = not self._named and np.ndim(Y if isinstance(Y, np.ndarray) else Y[:1]) == 1
        kept = np.flatnonzero(weight)
        if len(kept) < len(weight):
            values, Y, apart = values[kept], _rows_of(Y, kept), None if apart is None else apart[kept]
        self.outcomes_ = read_outcomes(self.outcomes, Y)
        tasks = encode(self.outcomes_, Y)
        self._tell()
        self.outcome_weights_, share = outcome_weights(
            tasks, None if self.task_weights is None else {**self.task_weights}
        )
        rows = canonical(values, tasks, weight[kept], apart)
        data = self._canonical_data(values, tasks, share, rows)
        place = np.full(len(weight), -1)
        place[kept] = rows.place
        return data, rows._replace(rows=kept[rows.rows], place=place), None if apart is None else apart[rows.rows]

    def _canonical_data(self, values: Floats, tasks: list[Encoded], share: list[float], rows: Canonical) -> Data:
        """The rows that are fitted; features' scale and tasks' names are kept."""
        values, tasks = values[rows.rows], [task.at(rows.rows) for task in tasks]
        self.features_.learn(values, rows.weight)
        self.tasks_, self.task_names_ = bare(tasks), [task.name for task in tasks]
        device = self.device if self.device != "auto" else "cuda" if torch.cuda.is_available() else "cpu"
        return Data(values, tasks, rows.weight, tuple(share), self.censoring, device)

    def _check(self) -> None:
        """Options that no part of the fit would refuse by name."""
        if self.loss not in KINDS:
            raise ValueError(f"loss must be one of {', '.join(KINDS)}, not {self.loss!r}")
        if self.censoring not in ("harrell", "uno"):
            raise ValueError(f'censoring must be "harrell" or "uno", not {self.censoring!r}')
        if self.lambda_ is not None and not _positive(self.lambda_):
            raise ValueError(f"lambda_ must be positive, or None to look for it, not {self.lambda_!r}")
        if not 0 < self.alpha <= 1:
            raise ValueError(f"alpha is a level, above 0 and up to 1, not {self.alpha!r}")
        number = isinstance(self.cv, Real | str)
        whole = isinstance(self.cv, Integral) and int(self.cv) >= 2
        if (self.calibrate or self.lambda_ is None) and number and not whole:
            raise ValueError(f"cv is a number of folds, at least 2, a splitter or splits, not {self.cv!r}")
        if not _positive(self.bandwidth):
            raise ValueError(f"bandwidth must be a positive number, not {self.bandwidth!r}")
        sizes: Any = self.hidden_task
        weights: Any = self.task_weights
        if not isinstance(sizes, Iterable) or not all(_positive(size) and isinstance(size, Integral) for size in sizes):
            raise ValueError(f"hidden_task has a number of units for each layer, such as (16,) or (), not {sizes!r}")
        if weights is not None and not isinstance(weights, Mapping):
            raise ValueError(f"task_weights is {{outcome: weight}}, not {weights!r}")
        try:
            torch.empty(0, device="cpu" if self.device == "auto" else self.device)
        except (RuntimeError, AssertionError) as error:
            raise ValueError(f'device is "auto" or one that torch has here, not {self.device!r}: {error}') from error

    def _options(self) -> PathOptions:
        return PathOptions(
            hidden_shared=self.hidden_shared,
            hidden_task=tuple(self.hidden_task),
            loss=self.loss,
            bandwidth=self.bandwidth,
            penalty=self.penalty,
            n_lambdas=self.n_lambdas,
            bound=self.bound,
            n_init=self.n_init,
            max_iter=self.max_iter,
            tol=self.tol,
        )

    def _seed(self) -> int:
        return int(check_random_state(self.random_state).randint(2**31 - 1))

    def _folds(self, data: Data, groups: NDArray[Any] | None, seed: int) -> NDArray[Any] | None:
        if not self.calibrate and self.lambda_ is not None:
            return None
        if isinstance(self.cv, Integral):
            fold = assign_folds(data.tasks, int(self.cv), groups, seed)
        else:
            assert groups is not None
            fold = np.unique(groups, return_inverse=True)[1].reshape(-1)
            check_folds(data.tasks, fold)
        if unscored := without_pairs(data.tasks, fold):
            more = f" (and {len(unscored) - 3} more)" if len(unscored) > 3 else ""
            warnings.warn(
                f"{'; '.join(unscored[:3])}{more}: λ is chosen without these; fewer folds have more of what is rare",
                UserWarning,
                stacklevel=3,
            )
        return fold

    def _tell(self) -> None:
        """What was inferred, and doubts about it."""
        if self.verbose:
            for outcome in self.outcomes_:
                print(outcome)
        for outcome in self.outcomes_:
            for note in outcome.notes if outcome.inferred else ():
                warnings.warn(note, UserWarning, stacklevel=4)

    def _keep(self, search: Search, index: int, rows: Canonical, seed: int) -> None:
        """Everything that is fitted, but for the outcomes' scales."""
        path = search.whole.path
        path.warn(index)
        state = search.final(index, seed)
        # In float64, so that a row's scores hardly depend on which rows stand beside it.
        self._state = state._replace(flat=state.flat.double())
        self.scales_ = None
        self.lambda_path_, self.lambda_best_ = path.lambdas, float(path.lambdas[index])
        self.n_selected_path_, self.exit_lambda_ = path.n_selected, path.exit_lambda
        self.support_path_, self.kkt_path_ = path.support, path.kkt
        self.support_ = path.support[index]
        self.converged_, self.kkt_residual_ = bool(path.converged[index]), float(path.kkt[index])
        self.n_iter_ = int(path.steps.sum())
        names, order = self._names(), np.argsort(-self.exit_lambda_, kind="stable")
        self.selected_features_ = [names[q] for q in order if self.support_[q]]
        self.scores_path_ = search.by_outcome()[1] if search.parts else None
        self.chance_ = search.chance if search.parts else None
        self.fold_ = None if search.fold is None else np.where(rows.place < 0, -1, search.fold[rows.place])

    def _calibrate(self, search: Search, index: int, rows: Canonical, seed: int) -> None:
        assert search.fold is not None
        ranks = search.out_of_fold(index, seed)
        data = search.data
        scores = self._scores(self.features_.standardised(data.values))
        self.scales_ = [
            TaskScale.fit(task, scores[:, k], ranks[:, k], search.fold, data.weight, seed)
            for k, task in enumerate(data.tasks)
        ]
        self.out_of_fold_ = np.full((len(rows.place), len(data.tasks)), np.nan)
        self.out_of_fold_[rows.place >= 0] = ranks[rows.place[rows.place >= 0]]

    def _scores(self, Z: NDArray[np.float32]) -> Floats:
        scores: Floats = self._state.scores(torch.from_numpy(Z).to(self._state.flat.device)).cpu().numpy()
        return scores

    def _names(self) -> list[str]:
        return self.features_.names_

    def transform(self, X: Any) -> Any:
        """The selected columns of X."""
        check_is_fitted(self)
        return super().transform(X)

    def _get_support_mask(self) -> NDArray[np.bool_]:
        check_is_fitted(self)
        return np.asarray(self.support_)

    def __sklearn_is_fitted__(self) -> bool:
        return hasattr(self, "_state")

    def __sklearn_tags__(self) -> Any:
        tags = super().__sklearn_tags__()
        tags.target_tags.required = True
        tags.target_tags.multi_output = True
        return tags

    def path(self) -> pd.DataFrame:
        """One row a λ: features left, residual, held-out concordance of each outcome and their mean."""
        check_is_fitted(self)
        table = pd.DataFrame(
            {"lambda": self.lambda_path_, "selected": self.n_selected_path_, "residual": self.kkt_path_}
        )
        if self.scores_path_ is not None:
            for j, outcome in enumerate(self.outcomes_):
                table[outcome.name] = mean_known(self.scores_path_[:, j], 1)
        return table


def _positive(value: Any) -> bool:
    return isinstance(value, Real) and 0 < float(value) < np.inf


def _rows_of(Y: Any, kept: NDArray[np.int64]) -> Any:
    """Some rows of outcomes in any form."""
    if isinstance(Y, pd.DataFrame | pd.Series):
        return Y.iloc[kept]
    if isinstance(Y, Mapping):
        return {name: np.asarray(column, dtype=object)[kept] for name, column in Y.items()}
    return Y[kept] if hasattr(Y, "__array__") or hasattr(Y, "columns") else [Y[row] for row in kept]
