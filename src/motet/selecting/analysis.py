"""The analysis of ``motet select`` from the table to what was found."""

from collections.abc import Callable
from contextlib import AbstractContextManager
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import pandas as pd

from motet.estimators.cv import MixedOutcomeNetCV
from motet.estimators.display.calibration import CalibrationDisplay
from motet.estimators.display.cross_validation import CVDisplay
from motet.estimators.display.path import PathDisplay
from motet.estimators.display.stability import StabilityDisplay
from motet.estimators.display.survival import SurvivalDisplay
from motet.estimators.held_out import HeldOut, Judged, OnRanks
from motet.estimators.permuted import PermutedControl
from motet.estimators.stability import StabilitySelection
from motet.selecting import fitting
from motet.selecting.fitting import Tick, recorded
from motet.selecting.options import Select
from motet.selecting.results import OutcomeResult, features_of, outcomes_of, path_of, predictions_of
from motet.selecting.table import Table, open_new

Stage = Callable[[str], AbstractContextManager[Tick]]
"""Opens a progress bar of this name."""
REPEATS = 10
"""Shuffles of a feature for its importance."""


@dataclass(frozen=True, eq=False)
class Analysis:
    """What was found.

    Attributes:
        table: What was fitted.
        options: Of the command.
        net: The estimator.
        outcomes: A row each.
        features: One row a feature, the last to leave the path first: selected, exit_lambda, "importance NAME" for each
            outcome, and after stability selection probability, standard_error, stable.
        path: As `MixedOutcomeNet.path`, with the mean concordance, its standard error, and which λ is used.
        predictions: Of the rows of the table, each by what has not seen it.
        new: Of the new rows, or None.
        stability, control: Of the checks that were asked for and came to an end.
        path_display, cv_display, calibration, survival, stability_display: Pictures that are not drawn yet.
        said: Warnings of the fit and the predictions.
        seconds: That the fit took.
        unfinished: The check that was interrupted.
    """

    table: Table
    options: Select
    net: MixedOutcomeNetCV
    outcomes: tuple[OutcomeResult, ...]
    features: pd.DataFrame
    path: pd.DataFrame
    predictions: pd.DataFrame
    new: pd.DataFrame | None
    stability: StabilitySelection | None
    control: PermutedControl | None
    path_display: PathDisplay
    cv_display: CVDisplay
    calibration: CalibrationDisplay
    survival: SurvivalDisplay | None
    stability_display: StabilityDisplay | None
    said: tuple[str, ...]
    seconds: float
    unfinished: str = ""

    @property
    def selected(self) -> list[str]:
        """Features of the model, the last to leave the path first."""
        return list(self.features.index[self.features["selected"]])

    @property
    def stable(self) -> list[str] | None:
        """Features that stability selection keeps, the most stable first; None without it."""
        if "stable" not in self.features:
            return None
        order = self.features.sort_values("probability", ascending=False, kind="stable")
        return list(order.index[order["stable"]])


def analyse(table: Table, options: Select, folder: Path, stage: Stage, *, bar: bool) -> Analysis:
    """Fit, predict and check the selection. An interrupted check is left out, and said to be.

    Raises:
        ValueError: if the table can't be fitted, or the folder holds another analysis.
    """
    fit = fitting.fitted(table, options, folder, bar=bar)
    net, said = fit.net, list(fit.said)
    with recorded(said):
        held_out = HeldOut(net, None, table.Y)
        outcomes = outcomes_of(net, held_out, options.level)
        ranks = {task.name: held_out.ranks(k) for k, task in enumerate(held_out.tasks) if task.kind != "nominal"}
        intervals = held_out.predict_interval(options.level)
        predictions = predictions_of(
            net.outcomes_, held_out.predict(), held_out.predict_proba(), intervals, ranks, table.labels, table.Y
        )
        calibration = CalibrationDisplay.from_predictions(held_out, options.level)
        some = any(outcome.kind == "survival" for outcome in net.outcomes_)
        survival = SurvivalDisplay.from_predictions(held_out) if some else None
        new = None
        if options.predict is not None:
            new, scores, seen = _new(net, table, options)
            said += seen
            outcomes = tuple(replace(one, new=scores.get(one.name, np.nan)) for one in outcomes)
        importance = None
        if net.support_.any():
            importance = net.permutation_importance(table.X, table.Y, repeats=REPEATS, random_state=options.seed)
    found, chance, unfinished = _checks(table, options, folder, net, stage, said)
    names = net.features_.names_
    return Analysis(
        table=table,
        options=options,
        net=net,
        outcomes=outcomes,
        features=features_of(net, importance, found),
        path=path_of(net),
        predictions=predictions,
        new=new,
        stability=found,
        control=chance,
        path_display=PathDisplay.of(net),
        cv_display=CVDisplay.of(net),
        calibration=calibration,
        survival=survival,
        stability_display=None if found is None else StabilityDisplay.of(found, names),
        said=tuple(said),
        seconds=fit.seconds,
        unfinished=unfinished,
    )


def _checks(
    table: Table, options: Select, folder: Path, net: MixedOutcomeNetCV, stage: Stage, said: list[str]
) -> tuple[StabilitySelection | None, PermutedControl | None, str]:
    found, chance = None, None
    doing = ""
    try:
        if options.stability:
            doing = "stability selection"
            with stage(doing) as tick, recorded(said):
                found = fitting.stability(table, options, net, folder, tick)
        if options.permutations:
            doing = "permuted outcomes"
            # What fits to permuted outcomes warn of is no fault of the analysis.
            with stage(doing) as tick, recorded([]):
                chance = fitting.control(table, options, net, tick)
    except KeyboardInterrupt:
        return found, chance, doing
    return found, chance, ""


def _new(net: MixedOutcomeNetCV, table: Table, options: Select) -> tuple[pd.DataFrame, dict[str, float], list[str]]:
    """Predictions of the new rows, their concordance if the outcomes are there too, and what to mind."""
    assert options.predict is not None
    assert net.scales_ is not None
    X, labels, Y = open_new(options.predict, table)
    u = net._positions(X)
    judged = [Judged(np.arange(len(u)), u, net.scales_)]
    judge = OnRanks(net.outcomes_, net.tasks_, net.scales_)
    known = [o for o, (k, *_) in net._by_outcome() if o.kind != "nominal" and judged[0].scales[k].conformal is not None]
    intervals = OnRanks(known, net.tasks_, net.scales_).predict_interval(u, options.level) if known else pd.DataFrame()
    classes = [outcome for outcome in net.outcomes_ if outcome.classes]
    proba = OnRanks(classes, net.tasks_, net.scales_).predict_proba(u) if classes else {}
    ranks = {task.name: u[:, k] for k, task in enumerate(net.tasks_) if task.kind != "nominal"}
    scores: dict[str, float] = {}
    said = []
    if Y is not None:
        try:
            scores = net.score_per_task(X, Y).to_dict()
        except ValueError as error:
            said.append(f"the outcomes in {options.predict} can't be scored: {error}")
    ranks = {name: values for name, values in ranks.items() if name in {o.name for o in net.outcomes_}}
    predictions = predictions_of(net.outcomes_, judge.predict(u), proba, intervals, ranks, labels, Y)
    known_rows = set(pd.util.hash_pandas_object(table.X, index=False))
    old = sum(row in known_rows for row in pd.util.hash_pandas_object(X, index=False))
    if old:
        said.append(
            f"{old} of {len(X)} new rows are in {table.source} too, and were fitted: concordance there is too good"
        )
    return predictions, scores, said
