"""How every arm of a study trains on its seeds: as the study does, or as tuning chose."""

import time
from collections.abc import Callable, Sequence

from motet.problems.base import Data, Problem, Training
from motet.study.arms import Arm
from motet.study.fit import Tick
from motet.study.jobs import Recipe
from motet.study.live import TUNING, Live
from motet.study.results import Tuning
from motet.study.store import Store


def usual(arms: Sequence[Arm], training: Training) -> dict[str, Recipe]:
    """All alike, by the arms' labels."""
    return {arm.label: Recipe(arm, training) for arm in arms}


def tuned(
    problem: Problem,
    load: Callable[[int], Data],
    arms: Sequence[Arm],
    training: Training,
    tuning: Tuning,
    *,
    store: Store,
    storage: str | None,
    workers: int,
    live: Live,
    runs: int,
) -> dict[str, Recipe]:
    """Tune all arms, or go on with it, and give each what was chosen for it.

    Args:
        load: The data of a seed.
        runs: How many seeds each arm is going to have, for the time left.

    Raises:
        StoreError, ValueError: as `motet.study.tuning.tune` does.
    """
    from motet.study.tuning import tune  # Here, since optuna takes half a second that other studies need not wait for.

    live.plan(len(store.keys), [_trial(arm.label) for arm in arms for _ in range(tuning.trials)], TUNING)
    live.expect(arm.label for arm in arms for _ in range(runs))
    last = time.monotonic()
    active = False

    def tick(found: Tick) -> None:
        nonlocal active
        active = True
        live.tell(f"tuning {found.arm}")

    def finished(arm: str, _: int) -> None:
        nonlocal last
        now = time.monotonic()
        # Those that were done before are told of at once, before anything is trained.
        live.did(_trial(arm), (now - last) * workers if active else None)
        last = now

    found = tune(
        problem,
        load(tuning.seed),
        arms,
        training,
        tuning,
        storage=storage,
        folder=store.folder,
        name=f"{problem.name}-{store.description.digest()}",
        workers=workers,
        tick=tick,
        finished=finished,
    )
    live.tuned = len(arms) * tuning.trials
    return {arm.label: Recipe(*arm.tuned(found[arm.label], training), found[arm.label].settings()) for arm in arms}


def _trial(arm: str) -> str:
    """A kind of work; see `motet.study.estimate`."""
    return f"trial of {arm}"
