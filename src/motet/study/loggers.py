"""Loggers: every epoch of a study to TensorBoard or MLflow too, which are not needed for anything else."""

import difflib
import logging
import os
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Protocol

from motet.study import runner
from motet.study.database import hidden
from motet.study.description import read_study
from motet.study.files import StoreError
from motet.study.fit import Tick
from motet.study.results import Run

_log = logging.getLogger(__name__)

_Key = tuple[str, int]


class Logger(runner.Logger, Protocol):
    """What `motet.study.runner.Logger` is, and an end: runs that were not ended by then were interrupted."""

    def close(self) -> None:
        """Nothing more comes."""


class TensorBoard:
    """Event files in FOLDER/tensorboard/ARM-seedN: ``tensorboard --logdir FOLDER/tensorboard``.

    Scalars by epoch: TASK/METRIC of validation, loss/TASK of training, and gain/validation, the mean relative gain over
    single-task models by which the epoch is chosen. At the end the settings as hyperparameters, with test/TASK/METRIC.

    Raises:
        ImportError: that names the extra.
    """

    def __init__(self) -> None:
        self._make = _imported("tensorboard", _writer)
        self._open: dict[_Key, tuple[Any, _Study]] = {}

    def start(self, folder: Path, arm: str, seed: int, settings: dict[str, Any]) -> None:
        """Open an event file."""
        name = re.sub(r"[^\w.-]", "_", arm)
        place = str(folder / "tensorboard" / f"{name}-seed{seed}")
        self._open[arm, seed] = self._make(place), _Study.of(folder, arm, seed, settings)

    def epoch(self, tick: Tick) -> None:
        """Write this epoch's scalars."""
        writer, study = self._open[tick.arm, tick.seed]
        for name, value in study.values(tick).items():
            writer.add_scalar(name, value, tick.epoch.epoch)

    def end(self, run: Run) -> None:
        """Write settings and test results."""
        writer, study = self._open.pop((run.arm, run.seed))
        settings = {k: v if isinstance(v, bool | int | float | str) else str(v) for k, v in study.settings.items()}
        writer.add_hparams(settings, study.results(run), run_name=".")
        writer.close()

    def close(self) -> None:
        """Write what is left."""
        for writer, _ in self._open.values():
            writer.close()
        self._open.clear()


class MLflow:
    """A run of MLflow for every run of the study, in an experiment named after the problem.

    Metrics are named as in `TensorBoard`, settings are parameters. They go where MLFLOW_TRACKING_URI says, and without
    it to FOLDER/mlflow.db: ``mlflow ui --backend-store-uri sqlite:///FOLDER/mlflow.db``. A server that goes away later
    ends the records and not the study, whose results do not need them; a warning says so, once.

    Raises:
        ImportError: that names the extra.
    """

    def __init__(self) -> None:
        # Before the import, which would send how MLflow is used to its makers: motet reaches for no network by itself.
        os.environ.setdefault("MLFLOW_DISABLE_TELEMETRY", "true")
        self._make = _imported("mlflow", _client)
        self._client: Any = None
        self._uri, self._lost = "", False
        self._open: dict[_Key, tuple[str, _Study]] = {}

    def start(self, folder: Path, arm: str, seed: int, settings: dict[str, Any]) -> None:
        """Begin a run of MLflow.

        Raises:
            StoreError: if its database or server can't be used for the first run.
        """
        if self._lost:
            return
        study = _Study.of(folder, arm, seed, settings)
        self._uri = os.environ.get("MLFLOW_TRACKING_URI") or f"sqlite:///{(folder / 'mlflow.db').resolve()}"
        with self._reached(first=self._client is None):
            client = self._client or self._make(tracking_uri=self._uri)
            number = _experiment(client, study.problem)
            tags = {"arm": arm, "seed": str(seed), "folder": str(folder)}
            identity = client.create_run(number, run_name=f"{arm} seed {seed}", tags=tags).info.run_id
            self._client = client
            self._open[arm, seed] = identity, study
            for name, value in study.settings.items():
                client.log_param(identity, _allowed(name), value)

    def epoch(self, tick: Tick) -> None:
        """Write this epoch's metrics."""
        if self._lost:
            return
        with self._reached():
            identity, study = self._open[tick.arm, tick.seed]
            for name, value in study.values(tick).items():
                self._client.log_metric(identity, _allowed(name), value, step=tick.epoch.epoch)

    def end(self, run: Run) -> None:
        """Write test results and finish the run."""
        if self._lost:
            return
        with self._reached():
            identity, study = self._open.pop((run.arm, run.seed))
            for name, value in study.results(run).items():
                self._client.log_metric(identity, _allowed(name), value)
            self._client.set_terminated(identity, status="FINISHED")

    def close(self) -> None:
        """Mark what was interrupted."""
        for identity, _ in self._open.values() if not self._lost else ():
            with self._reached():
                self._client.set_terminated(identity, status="KILLED")
        self._open.clear()

    @contextmanager
    def _reached(self, first: bool = False) -> Iterator[None]:
        """Ends the records where MLflow can't be reached any more, and the study where it never was."""
        from mlflow.exceptions import MlflowException

        try:
            yield
        except MlflowException as error:
            what = f"MLflow can't be used at {hidden(self._uri)} ({' '.join(str(error).split())[:200]})"
            if first:
                raise StoreError(
                    f"{what}: correct MLFLOW_TRACKING_URI, or leave --log mlflow out; finished runs are kept, and "
                    "--resume goes on"
                ) from None
            self._lost = True
            _log.warning("%s any more: the study goes on, and what it trains from now on is not recorded there", what)


_LOGGERS: dict[str, Callable[[], Logger]] = {"tensorboard": TensorBoard, "mlflow": MLflow}


def check(names: Sequence[str]) -> None:
    """Refuse names of loggers that there are not, before anything is imported.

    Raises:
        ValueError: with the nearest one.
    """
    for name in names:
        if name not in _LOGGERS:
            near = difflib.get_close_matches(name.lower(), _LOGGERS, n=1)
            hint = f"did you mean {near[0]!r}?" if near else f"there are {' and '.join(_LOGGERS)}"
            raise ValueError(f"--log: there is no logger {name!r}: {hint}")


def chosen(names: Sequence[str]) -> list[Logger]:
    """The loggers of these names, each once.

    Raises:
        ValueError: for an unknown name.
        ImportError: that names the extra, where one is not installed.
    """
    check(names)
    return [_LOGGERS[name]() for name in dict.fromkeys(names)]


@dataclass(frozen=True)
class _Study:
    """What a run's records need to know of its study.

    Attributes:
        metrics: Of each task, named TASK/METRIC.
        settings: How the run is trained.
    """

    problem: str
    metrics: dict[str, str]
    settings: dict[str, Any]

    @classmethod
    def of(cls, folder: Path, arm: str, seed: int, settings: Mapping[str, Any]) -> "_Study":
        """As study.json has it, and then as tuning has chosen."""
        study = read_study(folder)
        metrics = {task.name: f"{task.name}/{task.metric}" for task in study.tasks}
        return cls(study.problem, metrics, {"arm": arm, "seed": seed, **asdict(study.training), **_flat(settings)})

    def values(self, tick: Tick) -> dict[str, float]:
        """What is known after an epoch, by name. A single-task model's epoch knows its own task alone."""
        found = {self.metrics[task]: value for task, value in tick.epoch.validation.items()}
        found |= {f"loss/{task}": value for task, value in tick.epoch.train_loss.items()}
        # Of single-task models the score is the metric itself.
        return found if tick.task else found | {"gain/validation": tick.score}

    def results(self, run: Run) -> dict[str, float]:
        """On the test part."""
        return {f"test/{self.metrics[task]}": value for task, value in run.test.items()}


def _imported(extra: str, load: Callable[[], Any]) -> Any:
    try:
        return load()
    except ImportError as error:
        raise ImportError(f"--log {extra} needs {extra}, which is not installed: pip install motet[{extra}]") from error


def _writer() -> Any:
    from torch.utils.tensorboard import SummaryWriter

    return SummaryWriter


def _client() -> Any:
    from mlflow import MlflowClient

    return MlflowClient


def _flat(settings: Mapping[str, Any], before: str = "") -> dict[str, Any]:
    """Settings of settings, as single-task models have one mapping a task, side by side."""
    found: dict[str, Any] = {}
    for name, value in settings.items():
        if isinstance(value, Mapping):
            found |= _flat(value, f"{before}{name}.")
        else:
            found[f"{before}{name}"] = value
    return found


def _allowed(name: str) -> str:
    """MLflow takes letters, digits and these."""
    return re.sub(r"[^\w./: -]", "_", name)


def _experiment(client: Any, name: str) -> str:
    """The number of MLflow's experiment of this name, which is made where there is none."""
    if (found := client.get_experiment_by_name(name)) is None:
        try:
            return str(client.create_experiment(name))
        except Exception:  # Another participant may have made it at the same moment.
            if (found := client.get_experiment_by_name(name)) is None:
                raise
    return str(found.experiment_id)
