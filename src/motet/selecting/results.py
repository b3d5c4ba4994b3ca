"""What was found, as tables: outcomes, features, the path, predictions."""

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import pandas as pd

from motet.estimators.cv import MixedOutcomeNetCV
from motet.estimators.display.calibration import coverage
from motet.estimators.display.path import averaged, over_folds
from motet.estimators.held_out import HeldOut
from motet.estimators.importance import PermutationImportance
from motet.estimators.outcomes import Outcome
from motet.estimators.stability import StabilitySelection


@dataclass(frozen=True)
class OutcomeResult:
    """What is known of one outcome.

    Attributes:
        name, kind, detail: Of the outcome; the detail says how many rows have it and what is what.
        inferred: Whether the kind was guessed.
        concordance: With held-out scores at the λ that is used, mean over folds; 0.5 is chance.
        standard_error: Of that mean, over folds.
        held: Share of its intervals that hold it in rows that are held out, with standard error; NaN for none.
        rows, rare: Rows that have it; events, or rows of the rarer class.
        new: Concordance in the new rows, NaN without these.
    """

    name: str
    kind: str
    detail: str
    inferred: bool
    concordance: float
    standard_error: float
    held: tuple[float, float]
    rows: int
    rare: int
    new: float = np.nan


def outcomes_of(net: MixedOutcomeNetCV, held_out: HeldOut, level: float) -> tuple[OutcomeResult, ...]:
    """A row for each outcome."""
    assert net.scores_path_ is not None
    at = int(np.argmin(abs(net.lambda_path_ - net.lambda_best_)))
    means, errors = over_folds(net.scores_path_[at])
    held = coverage(held_out, level)
    found = []
    for j, outcome in enumerate(net.outcomes_):
        task = next(task for task in held_out.tasks if task.outcome.name == outcome.name)
        rows, rare = int(task.observed.sum()), 0
        if task.event is not None:
            rare = int(np.nansum(task.event))
        elif outcome.kind == "binary":
            rare = int(min((task.y == 0).sum(), (task.y == 1).sum()))
        interval = held.get(outcome.name, (np.nan, np.nan))
        found.append(
            OutcomeResult(
                name=outcome.name,
                kind=outcome.kind,
                detail=outcome.detail,
                inferred=outcome.inferred,
                concordance=float(means[j]),
                standard_error=float(errors[j]),
                held=interval,
                rows=rows,
                rare=rare,
            )
        )
    return tuple(found)


def features_of(
    net: MixedOutcomeNetCV, importance: PermutationImportance | None, found: StabilitySelection | None
) -> pd.DataFrame:
    """One row a feature."""
    index = pd.Index(net.features_.names_, name="feature")
    table = pd.DataFrame({"selected": net.support_, "exit_lambda": net.exit_lambda_}, index=index)
    if found is not None:
        table["probability"], table["standard_error"] = found.probabilities, found.standard_errors
        table["stable"] = found.selected
    if importance is not None:
        drops = pd.DataFrame(importance.mean, index=list(importance.features), columns=list(importance.outcomes))
        for name in drops:
            table[f"importance {name}"] = drops[name].reindex(index).fillna(0.0)
    order = np.argsort(-table["exit_lambda"].to_numpy(), kind="stable")
    return table.iloc[order]


def path_of(net: MixedOutcomeNetCV) -> pd.DataFrame:
    """The path as a table."""
    table = net.path()
    mean, error = averaged(net)
    table["mean"], table["standard_error"] = mean, error
    table["used"] = net.lambda_path_ == net.lambda_best_
    return table


def predictions_of(
    outcomes: list[Outcome],
    predicted: pd.DataFrame,
    proba: Mapping[str, pd.DataFrame],
    intervals: pd.DataFrame,
    ranks: Mapping[str, np.ndarray],
    labels: pd.DataFrame,
    Y: pd.DataFrame | None,
) -> pd.DataFrame:
    """One row a row, columns OUTCOME.what.

    observed (time and event of survival), predicted (median time), lower and upper of the interval, probability.CLASS,
    and rank: where the row's score lies between the lowest, 0, and the highest, 1.
    """
    columns = {name: labels[name].to_numpy() for name in labels}
    for outcome in outcomes:
        name = outcome.name
        if Y is not None:
            parts = ("observed",) if len(outcome.columns) == 1 else ("observed.time", "observed.event")
            columns |= {f"{name}.{part}": Y[c].to_numpy() for part, c in zip(parts, outcome.columns, strict=True)}
        columns[f"{name}.predicted"] = predicted[name].to_numpy()
        for end in ("lower", "upper"):
            if (name, end) in intervals and not (outcome.kind == "survival" and end == "upper"):
                columns[f"{name}.{end}"] = intervals[name, end].to_numpy()
        for label in proba.get(name, ()):
            columns[f"{name}.probability.{label}"] = proba[name][label].to_numpy()
        if name in ranks:
            columns[f"{name}.rank"] = ranks[name]
    return pd.DataFrame(columns)
