"""The trials of one arm, held by optuna: in a file, or in a database that several machines share.

A trial has the number of its point as a user attribute, and what came of it as others, so that `optuna-dashboard` on
the same storage shows everything. Trials are enqueued with their parameters and claimed by changing their state, which
one process alone can do. One that was interrupted is failed, and its point enqueued once more.
"""

import json
import math
import os
import statistics
import threading
import warnings
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import optuna
from optuna.distributions import BaseDistribution, CategoricalDistribution, FloatDistribution
from optuna.storages import BaseStorage, JournalStorage, RDBStorage
from optuna.storages.journal import JournalFileBackend, JournalFileOpenLock
from optuna.trial import FrozenTrial, TrialState
from sqlalchemy import URL
from sqlalchemy.exc import DBAPIError, SQLAlchemyError

from motet.study.database import BEAT, STALE, address, cause, hidden, options
from motet.study.files import StoreError
from motet.study.plans import Followed
from motet.study.spaces import Range, Space, Values
from motet.study.tuned import Point

JOURNAL = "tuning.journal"
"""The file in a study's folder, where no database is named."""


@dataclass(frozen=True)
class Outcome:
    """What came of a trial.

    Attributes:
        scores: Best score of each model, by task, or under `motet.study.tuned.SHARED`; -inf where it is undefined.
        validation: Metrics of the tasks at the best epoch; NaN where they are undefined.
        epochs: How many were trained.
        broken: Why a model broke down, for those that did.
        pruned: Whether it was ended early for its scores.
        follow: What controls take over from it, of the arm `groups`.
    """

    scores: dict[str, float]
    validation: dict[str, float]
    epochs: int
    broken: dict[str, str] = field(default_factory=dict)
    pruned: bool = False
    follow: Followed | None = None

    def score(self, of: str) -> float:
        """Of one model; a model that broke down has none."""
        return -math.inf if of in self.broken else self.scores[of]


class Median(optuna.pruners.BasePruner):
    """End a trial whose best score so far is below the median of the first trials' at the same epoch.

    The first trials are never pruned, and all of them are finished before a later one begins, so that what is pruned
    depends on nothing but the points.

    Args:
        first: Number of those trials.
        warmup: Epochs in which no trial is pruned.
    """

    def __init__(self, first: int, warmup: int) -> None:
        self.first, self.warmup = first, warmup
        self._known: list[dict[int, float]] | None = None

    def prune(self, study: optuna.Study, trial: FrozenTrial) -> bool:
        """Whether to end it now."""
        step = trial.last_step
        if trial.user_attrs["point"] < self.first or step is None or step <= self.warmup:
            return False
        if self._known is None:
            found = {t.user_attrs["point"]: t.intermediate_values for t in study.get_trials(False) if finished(t)}
            self._known = [found[point] for point in range(self.first)]
        return _best(trial.intermediate_values, step) < statistics.median(_best(v, step) for v in self._known)


def _best(values: Mapping[int, float], step: int) -> float:
    return max((value for at, value in values.items() if at <= step), default=-math.inf)


def finished(trial: FrozenTrial) -> bool:
    """Whether it came to an end by itself, and was not interrupted."""
    return trial.state.is_finished() and "scores" in trial.user_attrs


@contextmanager
def quiet() -> Iterator[None]:
    """Without optuna's lines for every trial."""
    before = optuna.logging.get_verbosity()
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    try:
        yield
    finally:
        optuna.logging.set_verbosity(before)


def open_storage(url: str | None, folder: Path, mend: bool) -> BaseStorage:
    """The database of a URL, or the journal in a study's folder.

    Args:
        mend: Whether this process alone has the folder, so that what a kill left in the journal can be cleared away.

    Raises:
        StoreError: if the database can't be used, with the reason.
    """
    if url is None:
        path = folder / JOURNAL
        if mend:
            _mend(path)
        # Not the lock by a symbolic link, which Windows reserves for administrators.
        return JournalStorage(JournalFileBackend(str(path), JournalFileOpenLock(str(path))))
    with storage_errors(url), warnings.catch_warnings():
        # The heartbeat has been there for years, and has no other name without a warning.
        warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)
        try:
            return optuna.storages.get_storage(_connect(address(url)))
        except RuntimeError as error:  # Its tables are of another optuna.
            raise StoreError(f"the storage of the trials, {hidden(url)}, can't be used: {error}") from error


@contextmanager
def storage_errors(url: str | None) -> Iterator[None]:
    """What a storage of `open_storage` raises, as one sentence.

    Raises:
        StoreError: that names it without its password.
    """
    try:
        yield
    except (optuna.exceptions.StorageInternalError, SQLAlchemyError) as error:
        raise StoreError(
            f"the storage of the trials, {hidden(url or JOURNAL)}, can't be used ({cause(error)}): finished trials are "
            "kept, and --resume goes on when it can"
        ) from None


def _connect(url: URL) -> RDBStorage:
    for again in (True, True, False):
        try:
            return RDBStorage(
                url.render_as_string(hide_password=False),
                options(url),
                heartbeat_interval=round(BEAT),
                grace_period=round(STALE),
            )
        except DBAPIError:
            # Two machines that make the tables at one moment: the second finds them there.
            if not again:
                raise
    raise AssertionError


def _mend(path: Path) -> None:
    """Remove the lock and the half line that a kill may leave behind."""
    Path(f"{path}.lock").unlink(missing_ok=True)
    for left in path.parent.glob(f"{path.name}.lock*.rename"):
        left.unlink()
    if not path.exists():
        return
    with path.open("r+b") as file:
        content = file.read()
        if content and not content.endswith(b"\n"):
            file.truncate(content.rfind(b"\n") + 1)
            file.flush()
            os.fsync(file.fileno())


class Trials:
    """The trials of one arm.

    Args:
        storage: Of `open_storage`.
        name: Of the optuna study.
        space: Of the arm.
        settings: What else all trials share; trials with other settings are refused.
        pruner: None where no trial is pruned.

    Raises:
        StoreError: if there are trials with other settings.
    """

    def __init__(self, storage: BaseStorage, name: str, space: Space, settings: str, pruner: Median | None) -> None:
        self.storage, self.space, self.name = storage, space, name
        self.study = optuna.create_study(
            storage=storage,
            study_name=name,
            direction="maximize",
            load_if_exists=True,
            sampler=optuna.samplers.RandomSampler(seed=0),  # Never asked: every trial comes with its parameters.
            pruner=pruner or optuna.pruners.NopPruner(),
        )
        self._id = storage.get_study_id_from_name(name)
        known = self.study.user_attrs.get("settings")
        if known is None:
            self.study.set_user_attr("arm", space.arm.label)
            self.study.set_user_attr("settings", settings)
        elif known != settings:
            raise StoreError(
                f"the storage holds trials of {name!r} with other settings or other data: name another storage, or "
                "another folder with --out"
            )
        self._distributions = {key: _distribution(space) for key, space in space.ranges.items()}
        self._outcomes: dict[int, Outcome] = {}

    def recover(self, all_running: bool) -> None:
        """Give up the trials of processes that are dead: all that run, or those without a sign of life."""
        if not all_running:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)
                optuna.storages.fail_stale_trials(self.study)
            return
        for trial in self.study.get_trials(False, (TrialState.RUNNING,)):
            self.study.tell(trial.number, state=TrialState.FAIL)

    def outcomes(self) -> dict[int, Outcome]:
        """Of all finished trials, by point."""
        for trial in self.study.get_trials(deepcopy=False):
            point = trial.user_attrs["point"]
            if point not in self._outcomes and finished(trial):
                self._outcomes[point] = _outcome(trial)
        return self._outcomes

    def points(self) -> list[Point]:
        """Those that are known."""
        return self.space.points({point: outcome.score("") for point, outcome in self._shared().items()})

    def enqueue(self) -> None:
        """Make a trial of every known point that has none that waits, runs or is finished."""
        there = {trial.user_attrs["point"] for trial in self.study.get_trials(False) if _alive(trial)}
        for number, point in enumerate(self.points()):
            if number not in there:
                self.study.add_trial(
                    optuna.trial.create_trial(
                        state=TrialState.WAITING,
                        params=self.space.params(point),
                        distributions=self._distributions,
                        user_attrs={"point": number},
                    )
                )

    def claim(self, below: int) -> tuple[int, int] | None:
        """Take the first trial that waits, of the points below a number: that of the trial, and of its point."""
        trials = self.study.get_trials(deepcopy=False)
        for trial in sorted(trials, key=lambda trial: (trial.user_attrs["point"], trial.number)):
            point = trial.user_attrs["point"]
            if trial.state != TrialState.WAITING or point >= below:
                continue
            # Two machines may have enqueued one point at the same moment: the first trial of it counts.
            twins = [t for t in trials if t.user_attrs["point"] == point and t.number < trial.number and _alive(t)]
            state = TrialState.FAIL if twins else TrialState.RUNNING
            id_ = self.storage.get_trial_id_from_study_id_trial_number(self._id, trial.number)
            if isinstance(self.storage, optuna.storages._heartbeat.BaseHeartbeat):
                self.storage.record_heartbeat(id_)  # A trial that runs and never gave a sign is taken for living.
            try:
                taken = self.storage.set_trial_state_values(id_, state=state)
            except optuna.exceptions.UpdateFinishedTrialError:
                continue
            if taken and not twins:
                return trial.number, point
        return None

    def begin(self, number: int) -> optuna.Trial:
        """A claimed trial, to report to."""
        return optuna.Trial(self.study, self.storage.get_trial_id_from_study_id_trial_number(self._id, number))

    def finish(self, trial: optuna.Trial, outcome: Outcome) -> None:
        """Write down what came of a claimed trial."""
        trial.set_user_attr("epochs", outcome.epochs)
        trial.set_user_attr("validation", _plain(outcome.validation))
        if outcome.broken:
            trial.set_user_attr("broke down", outcome.broken)
        if outcome.follow is not None:
            trial.set_user_attr("follow", asdict(outcome.follow))
        # Last, since it says that the others are there.
        trial.set_user_attr("scores", _plain(outcome.scores))
        if outcome.broken:
            self.study.tell(trial, state=TrialState.FAIL)
        elif outcome.pruned:
            self.study.tell(trial, state=TrialState.PRUNED)
        else:
            self.study.tell(trial, statistics.fmean(outcome.scores.values()))

    def abandon(self, trial: optuna.Trial) -> None:
        """Training was interrupted: let another have the point."""
        self.study.tell(trial, state=TrialState.FAIL, skip_if_finished=True)

    @contextmanager
    def living(self, trial: optuna.Trial) -> Iterator[None]:
        """Give signs of life while a trial is trained, where the storage wants them."""
        storage = self.storage
        if not isinstance(storage, optuna.storages._heartbeat.BaseHeartbeat):
            yield
            return
        id_, over = self.storage.get_trial_id_from_study_id_trial_number(self._id, trial.number), threading.Event()

        def beat() -> None:
            while not over.wait(BEAT):
                with suppress(SQLAlchemyError, optuna.exceptions.StorageInternalError):  # The next one may get there.
                    storage.record_heartbeat(id_)

        storage.record_heartbeat(id_)
        thread = threading.Thread(target=beat, daemon=True)
        thread.start()
        try:
            yield
        finally:
            over.set()
            thread.join()

    def _shared(self) -> dict[int, Outcome]:
        return {point: outcome for point, outcome in self.outcomes().items() if "" in outcome.scores}


def _alive(trial: FrozenTrial) -> bool:
    return not trial.state.is_finished() or finished(trial)


def _outcome(trial: FrozenTrial) -> Outcome:
    attrs = trial.user_attrs
    return Outcome(
        scores={key: -math.inf if value is None else value for key, value in attrs["scores"].items()},
        validation={key: math.nan if value is None else value for key, value in attrs["validation"].items()},
        epochs=attrs["epochs"],
        broken=attrs.get("broke down", {}),
        pruned=trial.state == TrialState.PRUNED,
        follow=Followed(**attrs["follow"]) if "follow" in attrs else None,
    )


def _plain(values: Mapping[str, float]) -> dict[str, float | None]:
    """Strict JSON has no numbers that are not finite."""
    return {key: value if math.isfinite(value) else None for key, value in values.items()}


def _distribution(space: Range | Values) -> BaseDistribution:
    if isinstance(space, Range):
        return FloatDistribution(space.low, space.high, log=space.log)
    return CategoricalDistribution(space.values)


def settings_of(values: Mapping[str, Any]) -> str:
    """Settings as a text that can be compared."""
    return json.dumps(values, sort_keys=True, default=str)
