"""Fits that are kept: the estimator, its selection on halves of the rows, and on permuted outcomes."""

import hashlib
import io
import json
import time
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager, redirect_stdout
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd
from safetensors import SafetensorError, safe_open
from safetensors.numpy import load_file, save_file

from motet.estimators.cv import MixedOutcomeNetCV
from motet.estimators.permuted import PermutedControl
from motet.estimators.stability import StabilitySelection
from motet.selecting.options import Select
from motet.selecting.table import Table

Tick = Callable[[int, int], object]
"""Called with the number of fits done and to do."""
MODEL, ROWS, HALVES = "model.safetensors", "rows.safetensors", "halves.npz"


@dataclass(frozen=True, eq=False)
class Fit:
    """An estimator, how long its fit took, and what it warned of."""

    net: MixedOutcomeNetCV
    seconds: float
    said: tuple[str, ...]


def estimator(table: Table, options: Select) -> MixedOutcomeNetCV:
    """The estimator that the options ask for."""
    return MixedOutcomeNetCV(
        table.outcomes,
        cv=options.folds,
        selection=options.selection,
        penalty=options.penalty,
        n_lambdas=options.lambdas,
        n_jobs=None if options.jobs == 1 else options.jobs,
        random_state=options.seed,
    )


def holds_analysis(folder: Path) -> bool:
    """Whether something of an earlier analysis is there."""
    return any((folder / name).exists() for name in (MODEL, ROWS, HALVES))


def fitted(table: Table, options: Select, folder: Path, *, bar: bool) -> Fit:
    """Fit, or take the fit of an earlier start of the same analysis.

    Raises:
        ValueError: if the folder holds another analysis, or the data can't be fitted.
    """
    net = estimator(table, options)
    mark = _fingerprint(table, net)
    kept = _kept(folder, mark, net.n_jobs)
    if kept is not None:
        return kept
    said: list[str] = []
    begun = time.monotonic()
    with recorded(said), redirect_stdout(io.StringIO()):
        net.set_params(verbose=int(bar)).fit(table.X, table.Y, groups=table.groups)
    net.set_params(verbose=0)
    seconds = time.monotonic() - begun
    net.save(folder / MODEL)
    # After the model: where this file is, the fit is whole.
    about = {"analysis": mark, "seconds": str(seconds), "said": json.dumps(said)}
    assert net.fold_ is not None
    rows = {"out_of_fold": np.ascontiguousarray(net.out_of_fold_), "fold": net.fold_}
    save_file(rows, folder / ROWS, metadata=about)
    return Fit(net, seconds, tuple(said))


def _kept(folder: Path, mark: str, jobs: int | None) -> Fit | None:
    if not (folder / ROWS).exists() or not (folder / MODEL).exists():
        return None
    try:
        with safe_open(folder / ROWS, framework="numpy") as file:
            about = file.metadata() or {}
    except SafetensorError as error:
        raise ValueError(f"{folder / ROWS} is damaged ({error}): delete it, and the fit is done again") from error
    if about.get("analysis") != mark:
        raise ValueError(
            f"{folder} holds an analysis of another table or with other options: give the same, or another --out"
        )
    net = MixedOutcomeNetCV.load(folder / MODEL).set_params(n_jobs=jobs)
    rows = load_file(folder / ROWS)
    net.out_of_fold_, net.fold_ = rows["out_of_fold"], rows["fold"]
    return Fit(net, float(about["seconds"]), tuple(json.loads(about["said"])))


def _fingerprint(table: Table, net: MixedOutcomeNetCV) -> str:
    given = {name: value for name, value in net.get_params().items() if name not in ("n_jobs", "verbose", "device")}
    digest = hashlib.sha256(f"2{given!r}".encode())  # 2: the files hold folds, too
    for frame in (table.X, table.Y):
        digest.update(repr(list(frame.columns)).encode())
        digest.update(pd.util.hash_pandas_object(frame, index=False).to_numpy().tobytes())
    if table.groups is not None:
        digest.update(table.groups.tobytes())
    return digest.hexdigest()[:32]


def stability(table: Table, options: Select, net: MixedOutcomeNetCV, folder: Path, tick: Tick) -> StabilitySelection:
    """Selection on halves, which goes on where it was interrupted."""
    try:
        found: StabilitySelection = net.stability_selection(
            table.X, table.Y, pairs=options.stability, groups=table.groups, progress=tick, checkpoint=folder / HALVES
        )
        return found
    except ValueError as error:
        if HALVES in str(error):
            raise ValueError(
                f"{folder / HALVES} can't be gone on with: delete it, or give another --out ({error})"
            ) from error
        raise


def control(table: Table, options: Select, net: MixedOutcomeNetCV, tick: Tick) -> PermutedControl:
    """The analysis on permuted outcomes."""
    return net.permuted_control(table.X, table.Y, repeats=options.permutations, groups=table.groups, progress=tick)


@contextmanager
def recorded(said: list[str]) -> Iterator[None]:
    """Warnings inside go to the list, each once, and not to the terminal."""
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        yield
    for warning in caught:
        own = issubclass(warning.category, UserWarning | RuntimeWarning)
        if own and str(warning.message) not in said:
            said.append(str(warning.message))
