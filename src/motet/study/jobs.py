"""One run that is to be done, and how: in this process and in a worker alike."""

from collections import OrderedDict
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from motet.problems.base import Data, Problem, Training
from motet.study.arms import Arm
from motet.study.files import StoreError
from motet.study.fit import Tick, Trained
from motet.study.provenance import fingerprint


@dataclass(frozen=True)
class Recipe:
    """How an arm trains on every seed.

    Attributes:
        arm: With what tuning chose for it.
        training: With what tuning chose, likewise.
        settings: What it chose, for the runs' record; empty where the arm is not tuned.
    """

    arm: Arm
    training: Training | Mapping[str, Training]
    settings: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Job:
    """One arm with one seed, and all that its training needs to know of other runs.

    Attributes:
        arm: Settled: its number of groups is filled in.
        reference: The single-task models' validation metrics of this seed; None for these themselves.
        data: Fingerprint of the data that finished runs of this seed had; empty where there are none.
        settings: What tuning chose, for the run's record.
    """

    arm: Arm
    seed: int
    training: Training | Mapping[str, Training]
    reference: Mapping[str, float] | None = None
    data: str = ""
    settings: Mapping[str, Any] = field(default_factory=dict)

    @property
    def key(self) -> tuple[str, int]:
        """Arm and seed."""
        return self.arm.label, self.seed

    @property
    def epochs(self) -> int:
        """The most it may take."""
        each = self.training.values() if isinstance(self.training, Mapping) else (self.training,)
        return self.arm.longer * max(training.epochs for training in each)

    @property
    def name(self) -> str:
        """For people."""
        return f"{self.arm.label}, seed {self.seed}"


class Bench:
    """Loads a problem's data and trains on them.

    Args:
        problem: Whose data and models.
        folder: Of the study, for errors.
        kept: For how many seeds the data are kept, since all arms of a seed need them.
    """

    def __init__(self, problem: Problem, folder: Path, kept: int = 1) -> None:
        self.problem = problem
        self.folder = folder
        self.kept = kept
        self._data: OrderedDict[int, tuple[Data, str]] = OrderedDict()

    def load(self, seed: int) -> tuple[Data, str]:
        """The data of one seed with their fingerprint."""
        if seed not in self._data:
            while len(self._data) >= self.kept:
                self._data.popitem(last=False)
            data = self.problem.load(seed)
            self._data[seed] = (data, fingerprint(data))
        self._data.move_to_end(seed)
        return self._data[seed]

    def train(self, job: Job, train: Callable[..., Trained], tick: Callable[[Tick], None]) -> Trained:
        """Do a job with `motet.study.training.train`, or what stands for it.

        Raises:
            StoreError: if the data are not those of the seed's finished runs.
            ValueError: as `motet.study.training.train` does.
        """
        data, known = self.load(job.seed)
        if job.data not in ("", known):
            raise other_data(job.seed, self.folder)
        trained = train(self.problem, data, job.arm, job.seed, job.training, job.reference, tick)
        parts = {"train": data.train, "validation": data.validation, "test": data.test}
        rows = {name: len(part) for name, part in parts.items()}
        provenance = {**trained.run.provenance, "data": known, "rows": rows}
        run = replace(trained.run, settings=dict(job.settings), provenance=provenance)
        return replace(trained, run=run)


def other_data(seed: int, folder: Path) -> StoreError:
    """Why this seed can't be gone on with."""
    return StoreError(
        f"the data of seed {seed} are not those that the finished runs in {folder} were trained on: "
        "start anew in another folder with --out, and see that load(seed) gives the same data in every process (the "
        "order of a set is another in each)"
    )
