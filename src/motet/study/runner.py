"""Trains what a study has not got yet: one run after another, several at once, or together with other machines."""

import logging
import time
from collections.abc import Mapping, Sequence
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Protocol

from motet.study import history
from motet.study.arms import Arm
from motet.study.database import hidden
from motet.study.exchange import Exchange
from motet.study.files import StoreError
from motet.study.fit import Tick, Trained
from motet.study.jobs import Job, Recipe
from motet.study.live import Live
from motet.study.provenance import command
from motet.study.results import GROUPS, SINGLE, Run
from motet.study.schedule import Item, check_followers, is_ready, ordered
from motet.study.store import Store

_log = logging.getLogger(__name__)

_POLL = 1.0
"""Seconds between two looks at what other participants have finished."""


class Crew(Protocol):
    """Who trains: `motet.study.pool.Inline` or `motet.study.pool.Pool`."""

    @property
    def free(self) -> int:
        """How many jobs can be started now."""

    def start(self, job: Job) -> None:
        """Take a job."""

    def wait(self, timeout: float | None) -> tuple[Job, Trained] | None:
        """The next run to be finished; None if none was within these seconds."""

    def close(self) -> None:
        """End whatever is being trained."""


class Logger(Protocol):
    """Told of every run that this process trains, from this process alone; runs overlap where workers train them."""

    def start(self, folder: Path, arm: str, seed: int, settings: dict[str, Any]) -> None:
        """A run begins; ``settings`` are what tuning chose."""

    def epoch(self, tick: Tick) -> None:
        """An epoch is over; ``tick`` names arm and seed."""

    def end(self, run: Run) -> None:
        """A run is finished, and in the folder."""


class Runner:
    """Trains arms on seeds, each run as soon as what it needs to know of others is there.

    Args:
        store: Where finished runs go.
        recipes: How each arm trains.
        live: What is shown meanwhile.
        exchange: Where runs are shared with other participants.
        loggers: Who else is told.
    """

    def __init__(
        self,
        store: Store,
        recipes: Mapping[str, Recipe],
        live: Live,
        exchange: Exchange | None = None,
        loggers: Sequence[Logger] = (),
    ) -> None:
        self.store, self.recipes, self.live = store, recipes, live
        self.exchange, self.loggers = exchange, loggers
        self._trained = 0
        self._running: set[tuple[str, int]] = set()
        self._asked = -_POLL
        self._own = {arm for arm, _ in store.keys}
        """Arms that are to be in this folder; those of others come as well."""
        if exchange is not None:
            self._share(exchange)

    def tick(self, tick: Tick) -> None:
        """An epoch is over."""
        if tick.counts:
            self.live.epoch(_name(tick.arm, tick.seed))
        for logger in self.loggers:
            logger.epoch(tick)

    def run(self, crew: Crew, arms: Sequence[Arm], seeds: Sequence[int]) -> None:
        """Train what is not there yet, and wait for what other participants train.

        Raises:
            ValueError: if a control's `groups` run is neither there nor to come; and what training raises.
        """
        self._own |= {arm.label for arm in arms}
        self._fetch(now=True)
        items = ordered(arms, seeds, self.store.keys)
        check_followers(items, self.store.keys)
        total = len(arms) * len(seeds)
        self.live.plan(total - len(items), [arm.label for arm, _ in items])
        while items:
            self._begin(crew, items)
            if self._running:
                finished = crew.wait(_POLL if self.exchange is not None else None)
                if finished is not None:
                    self._keep(*finished)
            else:
                self.live.tell(f"waiting for {items[0][0].label}, seed {items[0][1]}, of another participant")
                time.sleep(_POLL / 4)
            self._fetch()
            items = [item for item in items if (item[0].label, item[1]) not in self.store]

    def _begin(self, crew: Crew, items: Sequence[Item]) -> None:
        """Give work to whoever has none."""
        for item in items:
            if not crew.free:
                return
            arm, seed = item
            key = (arm.label, seed)
            if key in self._running or not is_ready(item, self.store.keys):
                continue
            if self.exchange is not None and not self.exchange.claim(key):
                continue
            job = self._job(arm, seed)
            self._running.add(key)
            self.live.start(job.name, arm.label, job.epochs)
            for logger in self.loggers:
                logger.start(self.store.folder, arm.label, seed, dict(job.settings))
            crew.start(job)

    def _job(self, arm: Arm, seed: int) -> Job:
        recipe = self.recipes[arm.label]
        settled = recipe.arm.settled(self.store.get(GROUPS, seed)) if arm.follows else recipe.arm
        reference = None if arm.label == SINGLE else self.store.get(SINGLE, seed).validation
        return Job(settled, seed, recipe.training, reference, self.store.data(seed), recipe.settings)

    def _keep(self, job: Job, trained: Trained) -> None:
        """Put a run that was trained here into the folder, and hand it to the others."""
        description = self.store.description
        known = {
            **trained.run.provenance,
            "id": self.store.path(*job.key).name,
            "study": description.digest(),
            "finished": datetime.now(UTC).isoformat(timespec="seconds"),
            **description.versions,
        }
        self.store.check_data(job.seed, known["data"])
        trained = replace(trained, run=replace(trained.run, provenance=known))
        if not self._trained:
            history.started(self.store.folder, hidden(command()))
        self._trained += 1
        self.store.put(self._published(trained))
        self._running.remove(job.key)
        self.live.finish(job.name)
        for logger in self.loggers:
            logger.end(trained.run)

    def _published(self, trained: Trained) -> Trained:
        """The run that counts: this one, but where another participant took it over and finished it first."""
        if self.exchange is None:
            return trained
        try:
            won = self.exchange.publish(trained)
        except StoreError:
            self.store.put(trained)  # It is handed over at the next start.
            raise
        return trained if won else self.exchange.fetch((trained.run.arm, trained.run.seed))

    def _share(self, exchange: Exchange) -> None:
        """Hand over what this folder had before: of earlier starts without this database, or while it was away."""
        finished = exchange.finished()
        for key in self.store.keys:
            if key not in finished:
                exchange.publish(self.store.trained(*key))

    def _fetch(self, now: bool = False) -> None:
        """Take what other participants have finished."""
        if self.exchange is None or not (now or time.monotonic() - self._asked >= _POLL):
            return
        for key in sorted(self.exchange.finished() - self.store.keys - self._running):
            if key[0] not in self._own and self.store.description.rule.looks:
                raise StoreError(
                    f"another participant also trains {key[0]}: where seeds are added until it is decided, all "
                    "must name the same arms, or each would decide on others; name them all, with --resume"
                )
            trained = self.exchange.fetch(key)
            self.store.check_data(key[1], trained.run.provenance["data"])
            self.store.put(trained)
            self.live.did(key[0])
            if key[0] not in self._own:
                self._own.add(key[0])
                _log.warning(
                    "another participant also trains %s, and its runs count here too, as far as they are there: name "
                    "the same arms everywhere, so that all end with the same table and verdict",
                    key[0],
                )
        self._asked = time.monotonic()


def _name(arm: str, seed: int) -> str:
    return f"{arm}, seed {seed}"
