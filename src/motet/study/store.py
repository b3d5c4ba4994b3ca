"""Finished runs on disk: one folder a run with JSON and safetensors, and a SQLite index over them.

A run is written beside its place and moved there whole, so a folder that exists is complete; what a kill left
behind is swept away when the store is opened again. The index can always be made anew from the folders.
"""

import hashlib
import json
import math
import shutil
import sqlite3
from collections.abc import Mapping
from contextlib import closing
from pathlib import Path
from typing import Any

from safetensors.torch import save_file

from motet.study.results import Run
from motet.study.training import Trained

FORMAT = 1
"""Version of what is described here. Another version is refused, never guessed at."""

_SCHEMA = """
create table if not exists runs (
    id text primary key, arm text not null, seed integer not null, seconds real not null, finished text not null
)
"""


class StoreError(ValueError):
    """A folder of runs that can't be used, with the reason and what to do."""


class Store:
    """The runs of one study in one folder.

    Args:
        folder: Made if it does not exist.
        config: What all runs of the study share: problem, training, versions. JSON types.
        resume: Whether finished runs of an earlier start may be kept and used.

    Raises:
        StoreError: if the folder holds runs and ``resume`` is false, or runs of another config or format.
    """

    def __init__(self, folder: Path, config: Mapping[str, Any], resume: bool = False) -> None:
        self.folder = Path(folder)
        self.config = dict(config)
        described = self.folder / "study.json"
        if described.exists():
            found = read_study(self.folder)
            if not resume:
                count = len(list(self.folder.glob("runs/*/run.json")))
                raise StoreError(
                    f"{self.folder} holds a study with {count} finished runs: "
                    "add --resume to go on with it, or name another folder with --out"
                )
            changed = sorted(
                key for key in {*found, *self.config} - {"format"} if found.get(key) != _plain(self.config.get(key))
            )
            if changed:
                parts = "; ".join(f"{k} was {found.get(k)!r} and is {_plain(self.config.get(k))!r}" for k in changed)
                raise StoreError(
                    f"{self.folder} holds runs of another study ({parts}): "
                    "start this one in another folder with --out, or use the settings of that one"
                )
        elif self.folder.exists() and any(self.folder.iterdir()):
            raise StoreError(f"{self.folder} is not empty and holds no study: name another folder with --out")
        (self.folder / "runs").mkdir(parents=True, exist_ok=True)
        if not described.exists():
            _write_json(described, {"format": FORMAT, **self.config})
        for rest in (self.folder / "runs").glob(".partial-*"):
            shutil.rmtree(rest)
        self._index()

    def path(self, arm: str, seed: int) -> Path:
        """The folder of one run."""
        return self.folder / "runs" / f"{_stem(arm)}-seed{seed}"

    def __contains__(self, key: tuple[str, int]) -> bool:
        return (self.path(*key) / "run.json").exists()

    def get(self, arm: str, seed: int) -> Run:
        """Read one finished run."""
        return _read_run(self.path(arm, seed))

    def put(self, trained: Trained, finished: str) -> Path:
        """Keep a finished run. ``finished``: when, in ISO 8601."""
        run = trained.run
        place = self.path(run.arm, run.seed)
        partial = place.with_name(f".partial-{place.name}")
        shutil.rmtree(partial, ignore_errors=True)
        partial.mkdir()
        save_file({k: v.contiguous() for k, v in trained.parameters.items()}, partial / "model.safetensors")
        save_file({k: v.contiguous() for k, v in trained.predictions.items()}, partial / "predictions.safetensors")
        _write_json(partial / "run.json", {"format": FORMAT, **run.to_json()})
        partial.rename(place)
        with closing(self._connect()) as index, index:
            index.execute(
                "insert or replace into runs values (?, ?, ?, ?, ?)",
                (place.name, run.arm, run.seed, run.cost.seconds, finished),
            )
        return place

    def _connect(self) -> sqlite3.Connection:
        return sqlite3.connect(self.folder / "index.sqlite")

    def _index(self) -> None:
        """Make the index agree with the folders."""
        runs = read_runs(self.folder)
        with closing(self._connect()) as index, index:
            index.execute(_SCHEMA)
            known = {row[0] for row in index.execute("select id from runs")}
            here = {self.path(run.arm, run.seed).name: run for run in runs}
            index.executemany("delete from runs where id = ?", [(name,) for name in known - set(here)])
            index.executemany(
                "insert into runs values (?, ?, ?, ?, ?)",
                [(n, r.arm, r.seed, r.cost.seconds, "") for n, r in here.items() if n not in known],
            )


def read_study(folder: Path) -> dict[str, Any]:
    """The description of the study in a folder.

    Raises:
        StoreError: if there is none, or it is of another format.
    """
    path = Path(folder) / "study.json"
    if not path.exists():
        raise StoreError(f"{folder} holds no study: there is no study.json in it")
    return _read_json(path)


def read_runs(folder: Path) -> list[Run]:
    """All finished runs in a study's folder, in the order of their names."""
    return [_read_run(path.parent) for path in sorted((Path(folder) / "runs").glob("*/run.json"))]


def _read_run(folder: Path) -> Run:
    data = _read_json(folder / "run.json")
    data.pop("format")
    try:
        return Run.from_json(data)
    except (KeyError, TypeError) as error:
        raise StoreError(f"{folder} is not a run of motet ({error}): delete this folder and --resume") from None


def _read_json(path: Path) -> dict[str, Any]:
    try:
        data = json.loads(path.read_text(encoding="utf8"))
    except (json.JSONDecodeError, UnicodeDecodeError):
        raise StoreError(f"{path} is damaged: delete the folder {path.parent} and --resume") from None
    version = data.get("format") if isinstance(data, dict) else None
    if version != FORMAT:
        raise StoreError(
            f"{path} is of format {version}, this motet reads format {FORMAT}: "
            "use the version of motet that wrote it, or start anew with --out"
        )
    return _restore(data)  # type: ignore[no-any-return]


def _write_json(path: Path, data: Mapping[str, Any]) -> None:
    beside = path.with_suffix(".tmp")
    beside.write_text(json.dumps(_plain(data), indent=1, ensure_ascii=False, allow_nan=False), encoding="utf8")
    beside.replace(path)


_NAN, _INF = "#NaN", "#Infinity"


def _plain(value: Any) -> Any:
    """To strict JSON: what is not finite becomes a string, since JSON has no such numbers."""
    if isinstance(value, float) and not math.isfinite(value):
        return _NAN if math.isnan(value) else _INF if value > 0 else f"-{_INF}"
    if isinstance(value, Mapping):
        return {str(k): _plain(v) for k, v in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(v) for v in value]
    return value


def _restore(value: Any) -> Any:
    if isinstance(value, str) and value in (_NAN, _INF, f"-{_INF}"):
        return float(value.replace("#", ""))
    if isinstance(value, dict):
        return {k: _restore(v) for k, v in value.items()}
    if isinstance(value, list):
        return [_restore(v) for v in value]
    return value


def _stem(arm: str) -> str:
    """A file name for an arm: its label where that is harmless, with a hash where characters were lost."""
    safe = "".join(c if c.isalnum() or c in "-." else "_" for c in arm)
    return safe if safe == arm else f"{safe[:60]}-{hashlib.sha256(arm.encode()).hexdigest()[:8]}"
