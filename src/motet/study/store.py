"""Finished runs on disk: one folder a run with JSON and safetensors, and a SQLite index over them.

A run is written beside its place and moved there whole, so what a kill left behind is known by its name and swept
away at the next start. A folder that is no whole run for another reason is moved aside, and never deleted.
"""

import hashlib
import logging
import shutil
from collections.abc import Iterable, Set
from dataclasses import asdict
from pathlib import Path

from safetensors.torch import save_file

from motet.study import description as described
from motet.study import history, index, live, lock
from motet.study.description import Description, read_study
from motet.study.files import DamagedError, StoreError, read_json, read_tensors, write_json
from motet.study.fit import Trained
from motet.study.jobs import other_data
from motet.study.results import Run

_log = logging.getLogger(__name__)


class Store:
    """The runs of one study in one folder, open for writing by this process alone until `close`.

    Args:
        folder: Made if it does not exist.
        description: What all runs of the study share.
        resume: Whether finished runs of an earlier start may be kept and used.

    Raises:
        StoreError: if the folder holds something else, runs and ``resume`` is false, runs of other settings or of
            another format, or if another motet is writing in it.
    """

    def __init__(self, folder: Path, description: Description, resume: bool = False) -> None:
        self.folder = Path(folder)
        self.description = description
        _check_free(self.folder, resume)
        (self.folder / "runs").mkdir(parents=True, exist_ok=True)
        self._lock = lock.Lock(self.folder)
        try:
            for rest in (self.folder / "runs").glob(".partial-*"):
                shutil.rmtree(rest)
            for place in _places(self.folder):
                self._set_aside_if_damaged(place)
            self._runs = {(run.arm, run.seed): run for run in read_runs(self.folder)}
            self._agree()
            self._index()
        except BaseException:
            self._lock.release()
            raise

    def close(self) -> None:
        """Let others write in the folder."""
        self._lock.release()

    def __enter__(self) -> "Store":
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def path(self, arm: str, seed: int) -> Path:
        """The folder of one run."""
        return self.folder / "runs" / f"{_stem(arm)}-seed{seed}"

    def __contains__(self, key: tuple[str, int]) -> bool:
        return key in self._runs

    def get(self, arm: str, seed: int) -> Run:
        """One finished run."""
        return self._runs[arm, seed]

    @property
    def keys(self) -> Set[tuple[str, int]]:
        """Arm and seed of all finished runs."""
        return self._runs.keys()

    def trained(self, arm: str, seed: int) -> Trained:
        """One finished run with its parameters and predictions.

        Raises:
            DamagedError: if one of these files is missing or damaged.
        """
        place = self.path(arm, seed)
        try:
            tensors = [read_tensors(place / f"{name}.safetensors") for name in ("model", "predictions")]
        except DamagedError as error:
            raise DamagedError(f"{error}: delete the folder {place}, and the run is trained again") from None
        return Trained(self.get(arm, seed), *tensors)

    def seeds(self, arms: Iterable[str]) -> int:
        """How many seeds these arms have in common."""
        of = [{seed for name, seed in self._runs if name == arm} for arm in arms]
        return len(set.intersection(*of)) if of else 0

    def check_data(self, seed: int, fingerprint: str) -> None:
        """Refuse to train on other data than the finished runs of the same seed.

        Raises:
            StoreError: that names the seed.
        """
        if self.data(seed) not in ("", fingerprint):
            raise other_data(seed, self.folder)

    def data(self, seed: int) -> str:
        """Fingerprint of the data of a seed's finished runs; empty where there are none."""
        return next((str(run.provenance["data"]) for (_, other), run in self._runs.items() if other == seed), "")

    def put(self, trained: Trained) -> Path:
        """Keep a finished run."""
        run = trained.run
        place = self.path(run.arm, run.seed)
        self._set_aside_if_damaged(place)
        partial = place.with_name(f".partial-{place.name}")
        shutil.rmtree(partial, ignore_errors=True)
        partial.mkdir()
        save_file({k: v.contiguous() for k, v in trained.parameters.items()}, partial / "model.safetensors")
        save_file({k: v.contiguous() for k, v in trained.predictions.items()}, partial / "predictions.safetensors")
        write_json(partial / "run.json", asdict(run))
        partial.rename(place)
        self._runs[run.arm, run.seed] = run
        self._index()
        return place

    def _agree(self) -> None:
        """Make sure that study.json says what is to be done here, and make it anew where it is lost."""
        path = self.folder / described.NAME
        try:
            self.description.must_equal(read_study(self.folder), self.folder)
            return
        except DamagedError:
            lost = True
        except StoreError:
            if path.exists():
                raise
            lost = bool(self._runs)
        if lost and any(run.provenance.get("study") != self.description.digest() for run in self._runs.values()):
            raise StoreError(
                f"{path} is lost, and the {len(self._runs)} finished runs beside it were made with other settings than "
                "these: repeat the first command with all its options and --resume, or put that file back; "
                "the runs are kept"
            )
        if lost:
            _log.warning("%s was lost and is made anew: the settings of the runs beside it are the same", path)
        write_json(path, asdict(self.description))

    def _set_aside_if_damaged(self, place: Path) -> None:
        if not place.exists():
            return
        try:
            _read_run(place)
        except DamagedError as error:
            number = 1
            while (aside := place.with_name(f".damaged-{place.name}-{number}")).exists():
                number += 1
            place.rename(aside)
            _log.warning("%s, so this run is trained again; what is left of it is now %s", error, aside.name)

    def _index(self) -> None:
        index.agree(self.folder / "index.sqlite", {self.path(*key).name: run for key, run in self._runs.items()})


def read_runs(folder: str | Path) -> list[Run]:
    """All finished runs in a study's folder, in the order of their names.

    Raises:
        StoreError: if one is damaged, or runs of one seed were trained on different data.
    """
    runs: list[Run] = []
    for place in _places(Path(folder)):
        try:
            runs.append(_read_run(place))
        except DamagedError as error:
            raise DamagedError(
                f"{error}: repeat the command that made it with --resume --out {folder}, which sets it aside and "
                "trains this run again"
            ) from None
    data: dict[int, Run] = {}
    for run in runs:
        first = data.setdefault(run.seed, run)
        if run.provenance.get("data") != first.provenance.get("data"):
            raise StoreError(
                f"{first.arm} and {run.arm} were trained on different data with seed {run.seed} in {folder}, so they "
                "can't be compared: train both anew in another folder with --out"
            )
    return runs


def holds_study(folder: Path) -> bool:
    """Whether there is anything to go on with in a folder."""
    return (folder / described.NAME).exists() or bool(_places(folder))


def default_folder(problem: str, resume: bool) -> Path:
    """``runs/PROBLEM``, with the first number that is free; the newest one that exists, to go on with."""
    base, number = Path("runs") / problem, 1
    place = base
    while place.exists():
        newest, number = place, number + 1
        place = base.with_name(f"{base.name}-{number}")
        if resume and not place.exists():
            return newest
    return place


def _check_free(folder: Path, resume: bool) -> None:
    if holds_study(folder):
        if not resume:
            raise StoreError(
                f"{folder} holds a study with {len(_places(folder))} finished runs: "
                "add --resume to go on with it, or name another folder with --out"
            )
    elif folder.exists():
        # A kill before study.json was there leaves these.
        ours = {"runs", "study.tmp", history.NAME, "history.tmp", live.NAME, "progress.tmp"}
        ours |= {name + end for name in (lock.NAME, "index.sqlite") for end in ("", "-journal")}
        held = [path for path in (folder / "runs").glob("*") if not path.name.startswith(".")]
        if held or any(path.name not in ours for path in folder.iterdir()):
            raise StoreError(f"{folder} is not empty and holds no study: name another folder with --out")


def _places(folder: Path) -> list[Path]:
    return sorted(
        place for place in (folder / "runs").glob("*-seed*") if place.is_dir() and not place.name.startswith(".")
    )


def _read_run(place: Path) -> Run:
    return read_json(place / "run.json", Run)


def _stem(arm: str) -> str:
    """A file name for an arm: its label where that is harmless, with a hash where characters were lost."""
    safe = "".join(c if c.isalnum() or c in "-." else "_" for c in arm)
    return safe if safe == arm else f"{safe[:60]}-{hashlib.sha256(arm.encode()).hexdigest()[:8]}"
