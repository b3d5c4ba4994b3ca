"""Held-out concordance of each outcome along the path: where λ was chosen, and whom it costs."""

from dataclasses import dataclass
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray
from sklearn.utils.validation import check_is_fitted

from motet.estimators.display import drawing
from motet.estimators.display.drawing import Floats
from motet.estimators.display.path import averaged, over_folds
from motet.theme import COLOURS, INK, LINE, MARKERS


@dataclass(eq=False)
class CVDisplay:
    """Held-out concordance over λ: a line for each outcome, and their mean ± one standard error over the folds.

    Attributes:
        lambdas: (L,).
        names: Of the outcomes (K,).
        outcomes: (L, K) means over folds.
        mean: (L,) over outcomes.
        standard_error: (L,) of it.
        n_selected: (L,) features.
        lambda_: The λ that is used.
    """

    lambdas: Floats
    names: list[str]
    outcomes: Floats
    mean: Floats
    standard_error: Floats
    n_selected: NDArray[np.int64]
    lambda_: float

    @classmethod
    def from_estimator(cls, net: Any, ax: Any = None) -> Self:
        """Draw the cross-validation of a fitted `MixedOutcomeNet`.

        Raises:
            ValueError: if it has no folds.
        """
        return cls.of(net).plot(ax)

    @classmethod
    def of(cls, net: Any) -> Self:
        """The same, not drawn yet."""
        check_is_fitted(net)
        mean, error = averaged(net)
        if mean is None or error is None:
            raise ValueError("there is no cross-validation to see: lambda_ was given, with calibrate=False")
        return cls(
            lambdas=net.lambda_path_,
            names=[outcome.name for outcome in net.outcomes_],
            outcomes=over_folds(net.scores_path_)[0],
            mean=mean,
            standard_error=error,
            n_selected=net.n_selected_path_,
            lambda_=net.lambda_best_,
        )

    def plot(self, ax: Any = None) -> Self:
        """Draw, into given axes or a new figure."""
        with drawing.style():
            (panel,) = drawing.axes(ax, size=(6.8, 4.2))
            drawing.bare(panel, "Held-out concordance of each outcome")
            low, high = self.mean - self.standard_error, self.mean + self.standard_error
            panel.fill_between(self.lambdas, low, high, color=INK, alpha=0.14, lw=0, zorder=1)
            every = max(1, len(self.lambdas) // 8)
            lines = [
                (name, column, COLOURS[k % len(COLOURS)], MARKERS[k % len(MARKERS)], 1.3)
                for k, (name, column) in enumerate(zip(self.names, self.outcomes.T, strict=True))
            ]
            if len(self.names) > 1:
                lines.append(("mean ± 1 SE", self.mean, INK, "", 2.2))
            for name, values, colour, marker, width in lines:
                panel.plot(
                    self.lambdas, values, color=colour, lw=width, marker=marker, ms=4.5, markevery=every,
                    label=drawing.short(name, 20), zorder=3,
                )  # fmt: skip
            panel.axhline(0.5, color=LINE, lw=1.2, zorder=1)
            known = np.concatenate([self.outcomes.ravel(), low, high])
            known = np.append(known[np.isfinite(known)], 0.5)
            air = 0.06 * (known.max() - known.min()) + 0.005
            panel.set(xlim=(self.lambdas[0], self.lambdas[-1] * 1.02), ylim=(known.min() - air, known.max() + air))
            drawing.powers(panel)
            count = int(self.n_selected[int(np.argmin(abs(self.lambdas - self.lambda_)))])
            drawing.chosen(panel, self.lambda_, drawing.used(count))
            panel.set_xlabel("λ: larger is sparser →", loc="right")
            drawing.key(panel, loc="upper left", bbox_to_anchor=(-0.01, -0.13), ncols=2, columnspacing=1.4)
        self.ax_, self.figure_ = panel, panel.figure
        return self
