"""How often each feature is selected on half of the rows."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Self

import numpy as np

from motet.estimators.display import drawing
from motet.estimators.display.drawing import Floats
from motet.estimators.stability import StabilitySelection
from motet.theme import COLOURS, INK, LINE, MUTED, PAPER


@dataclass(eq=False)
class StabilityDisplay:
    """The most stable features: share of the half-samples that select them ± one standard error, and the threshold.

    Attributes:
        names: Of the features that are shown, the most stable first.
        probabilities, standard_errors: Of the same.
        threshold: Of the selection.
        bound: Expected number of false selections, at most.
        pairs: Complementary pairs of half-samples.
        selected: Number of features above the threshold, shown or not.
        among: Number of all features.
        letters: Of a name at most; longer ones are cut in the middle.
    """

    names: list[str]
    probabilities: Floats
    standard_errors: Floats
    threshold: float
    bound: float
    pairs: int
    selected: int
    among: int
    letters: int = drawing.LETTERS

    @classmethod
    def from_selection(
        cls, result: StabilitySelection, names: Sequence[str] | None = None, ax: Any = None, *, most: int = 20
    ) -> Self:
        """Draw what `stability_selection` returned.

        Args:
            result: Of `MixedOutcomeNet.stability_selection`.
            names: Of all features (p,).
            ax: Axes to draw into.
            most: Features that are shown, at least 1. Those above the threshold are shown whatever their number.
        """
        return cls.of(result, names, most=most).plot(ax)

    @classmethod
    def of(cls, result: StabilitySelection, names: Sequence[str] | None = None, *, most: int = 20) -> Self:
        """The same, not drawn yet."""
        if most < 1:
            raise ValueError(f"most is how many features are shown, at least 1, not {most}")
        table = result.to_frame(names)
        count = int(result.selected.sum())
        shown = table[table["probability"] > 0].head(max(most, count))
        return cls(
            names=[str(name) for name in shown.index],
            probabilities=shown["probability"].to_numpy(),
            standard_errors=shown["standard_error"].to_numpy(),
            threshold=result.threshold,
            bound=result.bound() if result.threshold > 0.5 else np.nan,
            pairs=result.pairs,
            selected=count,
            among=len(table),
        )

    def plot(self, ax: Any = None) -> Self:
        """Draw, into given axes or a new figure."""
        with drawing.style():
            (panel,) = drawing.axes(ax, size=(6.4, 1.3 + 0.21 * max(len(self.names), 3)))
            detail = f"{self.selected} of {self.among} reach {self.threshold:g}"
            if np.isfinite(self.bound) and self.bound < self.among:
                detail += f"; at most {self.bound:.2g} false expected"
            drawing.bare(panel, f"Selected on half of the rows, {2 * self.pairs} times", detail, grid="x")
            panel.axvline(self.threshold, color=INK, lw=1, ls=(0, (3, 2)), zorder=2)
            for row, (share, error) in enumerate(zip(self.probabilities, self.standard_errors, strict=True)):
                above = share >= self.threshold - 1e-9
                colour = COLOURS[0] if above else LINE
                panel.plot([0, share], [row, row], color=colour, lw=1, alpha=0.6, zorder=2)
                ends = np.clip([share - error, share + error], 0, 1)
                panel.plot(ends, [row, row], color=colour, lw=3, solid_capstyle="butt", zorder=3)
                face = colour if above else PAPER
                panel.plot([share], [row], "o", ms=6, mfc=face, mec=colour, zorder=4, clip_on=False)
            names = [drawing.short(name, self.letters) for name in self.names]
            panel.set(
                xlim=(0, 1.02), ylim=(max(len(names), 1) - 0.4, -0.7), yticks=range(len(names)), yticklabels=names
            )
            for text, share in zip(panel.get_yticklabels(), self.probabilities, strict=True):
                text.set_color(INK if share >= self.threshold - 1e-9 else MUTED)
            if not names:
                drawing.note(panel, 0.5, 0.5, "No half selects anything.", ha="center")
            panel.set_xlabel("share of the half-samples that select it, ± 1 SE", loc="right")
        self.ax_, self.figure_ = panel, panel.figure
        return self
