"""One scale for the scores of different fits: their rank among the scores of the rows a fit was trained on."""

from collections.abc import Mapping
from typing import Any, Self

import numpy as np
from numpy.typing import ArrayLike

from motet.estimators.calibration_rows import Floats, scores, vector
from motet.estimators.isotonic import by_score, interpolated


class ScoreScale:
    r"""Scores to (0, 1) by the empirical distribution of the training scores.

        u(s) = (W(<s) + ½ W(=s)) / W   at training scores, W = weight of the rows; linear between, constant outside.

    A score has no unit of its own, so the folds of a cross-validation give scores on different scales. With the
    scale of each fold's training rows,

        u[held_out] = ScoreScale().fit(net.scores(X[training])).transform(net.scores(X[held_out])),

    they can be pooled; the final model uses the scale of its own training rows.

    Shapes:
        scores (n,) → (n,), in [½w/W, 1 - ½w/W] with w the weight at the lowest and the highest score. A model that
        is constant gives ½.

    Note:
        Linear interpolation instead of steps, so that two new scores between the same training scores stay in order.
    """

    def __init__(self) -> None:
        self.knots: Floats = np.zeros(0)
        self.values: Floats = np.zeros(0)

    def fit(self, training_scores: ArrayLike, weight: ArrayLike | None = None) -> Self:
        """Take the scale of the rows that the model was trained on.

        Raises:
            ValueError: without a row of positive weight, or for a score that is not finite.
        """
        s = scores(training_scores)
        w = np.ones(len(s)) if weight is None else vector(weight, "the weights", len(s))
        if not (np.isfinite(w).all() and (w >= 0).all() and (w > 0).any()):
            raise ValueError("a scale needs a training row, and weights that are finite, not negative and not all zero")
        self.knots, _, at = by_score(s[w > 0], w[w > 0])
        self.values = (np.cumsum(at) - at / 2) / at.sum()
        return self

    def transform(self, new_scores: ArrayLike) -> Floats:
        """Scores on the common scale: (N,) → (N,)."""
        return interpolated(scores(new_scores), self.knots, self.values[:, None])[:, 0]

    def state(self) -> dict[str, Any]:
        """All there is to keep; what `from_state` takes."""
        return {"knots": self.knots, "values": self.values}

    @classmethod
    def from_state(cls, state: Mapping[str, Any]) -> Self:
        """The scale that gave this state."""
        scale = cls()
        scale.knots, scale.values = np.asarray(state["knots"]), np.asarray(state["values"])
        return scale
