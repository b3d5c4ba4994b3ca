"""MixedOutcomeNet with the rule for λ as an option."""

from collections.abc import Mapping
from typing import Any, Literal

from motet.estimators.mixed_outcome import MixedOutcomeNet
from motet.estimators.outcomes import Survival
from motet.estimators.search import SELECTIONS, Search, Selection


class MixedOutcomeNetCV(MixedOutcomeNet):
    """`MixedOutcomeNet` whose λ is chosen by cross-validation.

    All preprocessing is inside the folds, which spread rare classes, events and gaps evenly. With m(λ) the mean
    held-out concordance over outcomes and folds, and λ* its best:

    | selection | λ |
    |---|---|
    | "best" | λ*: for prediction; selects too many features |
    | "1se" | the largest with m(λ) ≥ m(λ*) minus the standard error of m(λ*) over folds |
    | "within_tol" | the largest with m(λ) ≥ m(λ*) - 0.005 |

    Args:
        outcomes: As of `MixedOutcomeNet`, as all other options.
        cv: Folds.
        selection: The rule.

    Attributes:
        scores_path_: (L, outcomes, folds) held-out concordance.
        lambda_best_: The λ that was chosen.
    """

    def __init__(
        self,
        outcomes: str | Survival | Mapping[str, str | Survival] = "infer",
        *,
        cv: Any = 5,
        selection: Selection = "1se",
        hidden_shared: int = 32,
        hidden_task: tuple[int, ...] = (16,),
        loss: str = "logistic",
        bandwidth: float = 1.0,
        penalty: Literal["group_lasso", "group_mcp", "lassonet"] = "group_lasso",
        adaptive: bool = False,
        alpha: float = 0.05,
        refit: bool = True,
        n_lambdas: int = 60,
        bound: float = 1.5,
        task_weights: Mapping[str, float] | None = None,
        censoring: Literal["harrell", "uno"] = "harrell",
        calibrate: bool = True,
        n_init: int = 1,
        max_iter: int = 60,
        tol: float = 0.02,
        device: str = "auto",
        n_jobs: int | None = None,
        random_state: Any = None,
        verbose: int = 0,
    ) -> None:
        super().__init__(
            outcomes,
            hidden_shared=hidden_shared,
            hidden_task=hidden_task,
            loss=loss,
            bandwidth=bandwidth,
            penalty=penalty,
            adaptive=adaptive,
            alpha=alpha,
            refit=refit,
            n_lambdas=n_lambdas,
            bound=bound,
            task_weights=task_weights,
            censoring=censoring,
            calibrate=calibrate,
            cv=cv,
            n_init=n_init,
            max_iter=max_iter,
            tol=tol,
            device=device,
            n_jobs=n_jobs,
            random_state=random_state,
            verbose=verbose,
        )
        self.selection = selection

    def _check(self) -> None:
        super()._check()
        if self.selection not in SELECTIONS:
            raise ValueError(f"selection must be one of {', '.join(SELECTIONS)}, not {self.selection!r}")

    def _choose(self, search: Search) -> int:
        return search.choose(self.selection, self.alpha)
