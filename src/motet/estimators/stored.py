"""A fitted estimator to a file and back, without pickle."""

from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any, Self

import numpy as np
import torch
from sklearn.utils.validation import check_is_fitted

from motet.estimators.features import Features
from motet.estimators.network import Layout
from motet.estimators.outcomes import Encoded, Outcome, Survival
from motet.estimators.path import State
from motet.estimators.prediction import TaskScale
from motet.estimators.saving import load, save

FITTED = (
    *("lambda_path_", "lambda_best_", "n_selected_path_", "exit_lambda_", "support_path_", "kkt_path_", "support_"),
    *("converged_", "kkt_residual_", "n_iter_", "selected_features_", "scores_path_", "chance_", "outcome_weights_"),
    *("task_names_", "_named", "_flat"),
)
"""Attributes that are kept as they are."""


class Stored:
    """`save` and `load` of an estimator."""

    def save(self, path: str | Path) -> None:
        """Write the fitted estimator to one file: arrays as safetensors, the rest as JSON. No code is stored.

        A random state that is no number is not kept, nor are the out-of-fold scores of the rows.
        """
        check_is_fitted(self)
        state: State = self._state  # type: ignore[attr-defined]
        params = self.get_params(deep=False)  # type: ignore[attr-defined]
        if not isinstance(params.get("random_state"), int | None):
            params["random_state"] = None
        scales: list[TaskScale] | None = self.scales_  # type: ignore[attr-defined]
        tree = {
            "params": {name: _written(value) for name, value in params.items()},
            "features": self.features_.state(),  # type: ignore[attr-defined]
            "outcomes": [asdict(outcome) for outcome in self.outcomes_],  # type: ignore[attr-defined]
            "tasks": [
                {"name": t.name, "kind": t.kind, "outcome": t.outcome.name, "share": t.share, "label": t.label}
                for t in self.tasks_  # type: ignore[attr-defined]
            ],
            "net": {
                "layout": asdict(state.layout),
                "features": state.features,
                "flat": state.flat,
                "centre": state.centre,
            },
            "scales": None if scales is None else [scale.state() for scale in scales],
            "fitted": {name: getattr(self, name) for name in FITTED if hasattr(self, name)},
        }
        save(path, type(self).__name__, tree)

    @classmethod
    def load(cls, path: str | Path) -> Self:
        """Read what `save` wrote; predictions are the same, bit for bit.

        Raises:
            FileNotFoundError: if there is no such file.
            ValueError: if it is damaged, or of another class or format.
        """
        tree = load(path, cls.__name__)
        self = cls(**{name: _read(value) for name, value in tree["params"].items()})
        self.features_ = Features.from_state(tree["features"])  # type: ignore[attr-defined]
        for name in ("n_features_in_", "feature_names_in_"):
            if hasattr(self.features_, name):  # type: ignore[attr-defined]
                setattr(self, name, getattr(self.features_, name))  # type: ignore[attr-defined]
        outcomes = [Outcome(**{name: _tuple(value) for name, value in one.items()}) for one in tree["outcomes"]]
        by_name, none = {outcome.name: outcome for outcome in outcomes}, np.zeros(0)
        self.outcomes_ = outcomes  # type: ignore[attr-defined]
        self.tasks_ = [  # type: ignore[attr-defined]
            Encoded(
                one["name"],
                one["kind"],
                none,
                none if one["kind"] == "survival" else None,
                by_name[one["outcome"]],
                one["share"],
                one["label"],
            )
            for one in tree["tasks"]
        ]
        net = tree["net"]
        layout = Layout(**{name: _tuple(value) for name, value in net["layout"].items()})
        tensors = (torch.as_tensor(net[name]) for name in ("features", "flat", "centre"))
        self._state = State(layout, *tensors)  # type: ignore[attr-defined]
        scales = tree["scales"]
        self.scales_ = None if scales is None else [TaskScale.from_state(one) for one in scales]  # type: ignore[attr-defined]
        for name, value in tree["fitted"].items():
            setattr(self, name, value)
        return self


def _written(value: Any) -> Any:
    if isinstance(value, Survival):
        return {"survival": [value.time, value.event]}
    if isinstance(value, Mapping):
        return {"mapping": {name: _written(one) for name, one in value.items()}}
    return value


def _read(value: Any) -> Any:
    if not isinstance(value, Mapping):
        return value
    return (
        Survival(*value["survival"]) if "survival" in value else {k: _read(one) for k, one in value["mapping"].items()}
    )


def _tuple(value: Any) -> Any:
    return tuple(value) if isinstance(value, list) else value
