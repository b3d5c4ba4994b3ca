"""The path from dense to empty: when features leave, how many are left, and how well the rest predicts."""

from dataclasses import dataclass
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray
from sklearn.utils.validation import check_is_fitted

from motet.estimators.display import drawing
from motet.estimators.display.drawing import Floats
from motet.estimators.search import mean_known
from motet.theme import COLOURS, INK, LINE, MUTED, PAPER


@dataclass(eq=False)
class PathDisplay:
    """Three panels over λ: exits of features, number of features, held-out concordance ± one standard error.

    Attributes:
        lambdas: (L,), from dense to empty.
        names: Of all features, (p,).
        exit_lambda: (p,) the largest λ at which a feature is in the model.
        selected: (p,) bool, in the model that is used.
        n_selected: (L,).
        concordance: (L,) mean over outcomes and folds; None without folds.
        standard_error: (L,) of that mean over folds.
        lambda_: The λ that is used.
        most: Features whose exit is shown, the last ones to leave.
        letters: Of a name at most; longer ones are cut in the middle.
    """

    lambdas: Floats
    names: list[str]
    exit_lambda: Floats
    selected: NDArray[np.bool_]
    n_selected: NDArray[np.int64]
    concordance: Floats | None
    standard_error: Floats | None
    lambda_: float
    most: int = 20
    letters: int = drawing.LETTERS

    @classmethod
    def from_estimator(cls, net: Any, ax: Any = None, *, most: int = 20) -> Self:
        """Draw the path of a fitted `MixedOutcomeNet`; ``ax`` takes three axes, for exits, number and concordance."""
        return cls.of(net, most=most).plot(ax)

    @classmethod
    def of(cls, net: Any, *, most: int = 20) -> Self:
        """The same, not drawn yet."""
        check_is_fitted(net)
        if most < 1:
            raise ValueError(f"most is how many features are shown, at least 1, not {most}")
        mean, error = averaged(net)
        return cls(
            lambdas=net.lambda_path_,
            names=list(net.features_.names_),
            exit_lambda=net.exit_lambda_,
            selected=net.support_,
            n_selected=net.n_selected_path_,
            concordance=mean,
            standard_error=error,
            lambda_=net.lambda_best_,
            most=most,
        )

    @property
    def shown(self) -> NDArray[np.int64]:
        """Numbers of the features whose exits are drawn, the last to leave first."""
        order = np.argsort(-self.exit_lambda, kind="stable")[: self.most]
        return np.asarray(order[self.exit_lambda[order] > 0])

    @property
    def used(self) -> int:
        """Number of features in the model that is used."""
        return int(self.n_selected[int(np.argmin(abs(self.lambdas - self.lambda_)))])

    def plot(self, ax: Any = None) -> Self:
        """Draw, into three given axes or a new figure."""
        count = 2 + (self.concordance is not None)
        heights = [0.6 + 0.19 * max(len(self.shown), 4), 1.7, 1.9][:count]
        with drawing.style():
            ratios = {"height_ratios": heights}
            size = (6.4, sum(heights) / count)
            panels = drawing.axes(ax, count, size=size, sharex=True, gridspec_kw=ratios)
            self._exits(panels[0])
            self._number(panels[1])
            if self.concordance is not None:
                self._concordance(panels[2])
            for panel in panels:
                panel.set_xlim(self.lambdas[0], self.lambdas[-1] * 1.02)
                drawing.powers(panel)
                drawing.chosen(panel, self.lambda_, drawing.used(self.used) if panel is panels[1] else "")
            panels[-1].set_xlabel("λ: larger is sparser →", loc="right")
        self.ax_, self.figure_ = np.array(panels, dtype=object), panels[0].figure
        return self

    def _exits(self, ax: Any) -> None:
        out = int((self.exit_lambda > 0).sum()) - len(self.shown)
        more = f"; {out} more leave earlier" if out > 0 else ""
        detail = f"filled: in use{more}"
        drawing.bare(ax, "Features leave the model as λ grows", detail, grid="x")
        for row, q in enumerate(self.shown):
            colour = COLOURS[0] if self.selected[q] else LINE
            ax.plot([self.lambdas[0], self.exit_lambda[q]], [row, row], color=colour, lw=2, solid_capstyle="butt")
            face = colour if self.selected[q] else PAPER
            ax.plot([self.exit_lambda[q]], [row], "o", ms=5, mfc=face, mec=colour, zorder=3, clip_on=False)
        names = [drawing.short(self.names[q], self.letters) for q in self.shown]
        ax.set(ylim=(max(len(names), 1) - 0.4, -0.6), yticks=range(len(names)), yticklabels=names)
        for text, q in zip(ax.get_yticklabels(), self.shown, strict=True):
            text.set_color(INK if self.selected[q] else MUTED)

    def _number(self, ax: Any) -> None:
        drawing.bare(ax, "Features in the model")
        ax.plot(self.lambdas, self.n_selected, color=INK, lw=1.6, drawstyle="steps-post")
        ax.plot([self.lambda_], [self.used], "o", color=INK, ms=5, zorder=4)
        ax.set_ylim(0, max(self.n_selected.max(), 1) * 1.3)  # room for the words above
        ax.yaxis.get_major_locator().set_params(integer=True)

    def _concordance(self, ax: Any) -> None:
        assert self.concordance is not None
        assert self.standard_error is not None
        drawing.bare(ax, "Held-out concordance ± 1 SE")
        low, high = self.concordance - self.standard_error, self.concordance + self.standard_error
        ax.fill_between(self.lambdas, low, high, color=COLOURS[0], alpha=0.25, lw=0)
        ax.plot(self.lambdas, self.concordance, color=COLOURS[0], lw=1.8)
        ax.axhline(0.5, color=LINE, lw=1.2, zorder=1)
        drawing.note(ax, 0.005, 0.5, "chance", transform=ax.get_yaxis_transform(), va="bottom", fontsize=8)


def averaged(net: Any) -> tuple[Floats, Floats] | tuple[None, None]:
    """Mean held-out concordance over outcomes by their weights, (L,), and its standard error over folds."""
    if net.scores_path_ is None:
        return None, None
    weights = np.array([net.outcome_weights_[outcome.name] for outcome in net.outcomes_])
    there = np.isfinite(net.scores_path_)
    weight = weights[None, :, None] * there
    total = np.where(there, net.scores_path_, 0.0) * weight
    each = total.sum(axis=1) / np.where(weight.sum(axis=1) > 0, weight.sum(axis=1), np.nan)
    return over_folds(each)


def over_folds(values: Floats) -> tuple[Floats, Floats]:
    """Mean and standard error over the last axis, of what is finite; NaN where nothing is, or one fold alone."""
    mean, count = mean_known(values, -1), np.isfinite(values).sum(axis=-1)
    variance = mean_known((values - mean[..., None]) ** 2, -1)
    return mean, np.sqrt(variance / np.where(count > 1, count - 1, np.nan))
