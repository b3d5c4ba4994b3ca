"""The displays as methods of an estimator."""

from typing import Any

from motet.estimators.display.calibration import CalibrationDisplay
from motet.estimators.display.cross_validation import CVDisplay
from motet.estimators.display.path import PathDisplay
from motet.estimators.display.stability import StabilityDisplay
from motet.estimators.display.survival import SurvivalDisplay
from motet.estimators.stability import StabilitySelection


class Seeing:
    """Pictures of a fitted `MixedOutcomeNet`: each returns a display with the numbers, `ax_` and `figure_`."""

    def plot_path(self, ax: Any = None, *, most: int = 20) -> PathDisplay:
        """When features leave the model, how many are left, and how well the rest predicts; ``ax`` takes three axes."""
        return PathDisplay.from_estimator(self, ax, most=most)

    def plot_cv(self, ax: Any = None) -> CVDisplay:
        """Held-out concordance of each outcome over λ."""
        return CVDisplay.from_estimator(self, ax)

    def plot_stability(self, result: StabilitySelection, ax: Any = None, *, most: int = 20) -> StabilityDisplay:
        """How often features are selected on half of the rows, from what `stability_selection` returned."""
        return StabilityDisplay.from_selection(result, self.features_.names_, ax, most=most)  # type: ignore[attr-defined]

    def plot_calibration(
        self, X: Any = None, Y: Any = None, ax: Any = None, *, level: float = 0.9
    ) -> CalibrationDisplay:
        """Probabilities against frequencies, and quantiles against coverage.

        Args:
            X: New rows; or None, with the Y of the fit, for its rows, each predicted by what has not seen it.
            Y: Their outcomes.
            ax: As many axes as there are outcomes.
            level: Of the intervals whose coverage is told.
        """
        return CalibrationDisplay.from_estimator(self, X, _given(Y, "plot_calibration"), ax, level=level)

    def plot_survival(self, X: Any = None, Y: Any = None, ax: Any = None) -> SurvivalDisplay:
        """Kaplan and Meier's curves by thirds of the predicted risk, and mean predicted curves; X and Y as above."""
        return SurvivalDisplay.from_estimator(self, X, _given(Y, "plot_survival"), ax)


def _given(Y: Any, method: str) -> Any:
    if Y is None:
        raise ValueError(f"{method} needs outcomes: {method}(Y=Y) for the rows of the fit, {method}(X, Y) for new ones")
    return Y
