"""One loss a type of outcome on motet's own path: what the rank loss adds where all else is equal.

Squared error on rank-inverse-normal numbers, logistic loss, Cox's partial likelihood; network, proximal solver, refits,
rules of choice and the test against chance are those of `motet.estimators.MixedOutcomeNetCV`.
"""

from functools import cached_property
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.nn.functional import softplus

from mixed_outcomes_peers import RULES, Fitted, Folds, Target, rank_normal, rank_table
from motet.estimators import MixedOutcomeNetCV
from motet.estimators.outcomes import Encoded
from motet.estimators.search import Data
from motet.losses.rank import Pairs


class Typed:
    """The loss of one outcome's kind, behind the interface of `motet.losses.rank.Pairs`.

    Scores are centred by the path, so intercepts are profiled out: their gradient is zero at the optimum.
    """

    def __init__(self, task: Encoded, weight: np.ndarray) -> None:
        self.pairs = Pairs(task.y, task.event, weight)
        self.total = self.pairs.total
        known = ~np.isnan(task.y)
        self.rows, self.kind = torch.from_numpy(np.flatnonzero(known)), task.kind
        y = task.y[known]
        self.weight = torch.from_numpy(weight[known] / weight[known].sum())
        if task.event is not None:
            longest = np.argsort(-y, kind="stable")
            self.order = torch.from_numpy(longest)
            times = y[longest]
            self.last = torch.from_numpy(np.searchsorted(-times, -times, side="right") - 1)
            self.event = torch.from_numpy(np.asarray(task.event, float)[known][longest])
        elif task.kind != "binary":
            y = rank_normal(y)
            y = (y - y.mean()) / y.std()
        self.y = torch.from_numpy(y)

    def loss(self, scores: Tensor, kind: str = "", bandwidth: float = 1.0) -> Tensor:  # noqa: ARG002 - as Pairs
        f = scores[self.rows]
        if self.kind == "survival":
            risk, weight = -f[self.order], self.weight[self.order]
            at_risk = torch.logcumsumexp(risk + weight.log(), 0)[self.last]
            return (self.event * weight * (at_risk - risk)).sum() / (self.event * weight).sum()
        if self.kind == "binary":
            with torch.no_grad():
                shift = f.new_zeros(())
                for _ in range(20):
                    chance = (f + shift).sigmoid()
                    slope = (self.weight * (chance - self.y)).sum()
                    shift = shift - slope / (self.weight * chance * (1 - chance)).sum().clamp_min(1e-6)
            return (self.weight * (softplus(f + shift) - self.y * (f + shift))).sum()
        return (self.weight * (f - (self.weight * f).sum() - self.y).square()).sum() / 2

    def concordance(self, scores: Tensor) -> float:
        return self.pairs.concordance(scores)


class TypedData(Data):
    @cached_property
    def pairs(self) -> list[Any]:
        return [Typed(task, self.weight) for task in self.tasks]


class TypedNetCV(MixedOutcomeNetCV):
    """MixedOutcomeNetCV with typed losses."""

    def _canonical_data(self, *given: Any) -> TypedData:
        data = super()._canonical_data(*given)
        return TypedData(data.values, data.tasks, data.weight, data.share, data.censoring, data.device)


def both_rules(base: type[MixedOutcomeNetCV]) -> Any:
    """A method that searches once and chooses by each rule."""

    class Both(base):  # type: ignore[valid-type,misc]
        def _keep(self, search: Any, index: int, rows: Any, seed: int) -> None:
            self.rules = {}
            for rule in RULES:
                super()._keep(search, search.choose(rule, self.alpha), rows, seed)
                self.rules[rule] = (self._state, np.asarray(self.support_))
            super()._keep(search, index, rows, seed)

        def scores_by(self, rule: str, X: np.ndarray) -> np.ndarray:
            self._state = self.rules[rule][0]
            return np.asarray(self.decision_function(X))

    def fit(X: np.ndarray, targets: list[Target], splits: Folds, seed: int) -> dict[str, Fitted]:
        Y, outcomes = rank_table(targets)
        net = Both(outcomes, cv=splits, random_state=seed, calibrate=False).fit(X, Y)
        return {
            rule: Fitted(lambda A, rule=rule: net.scores_by(rule, A), support)
            for rule, (_, support) in net.rules.items()
        }

    return fit
