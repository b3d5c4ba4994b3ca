"""Medians of interleaved rounds: what is compared runs in turns in one process, so that the machine's moods cancel."""

import random
import statistics
import time
from collections.abc import Callable, Mapping


def medians(works: Mapping[str, Callable[[], object]], rounds: int, clock: Callable[[], float]) -> dict[str, float]:
    """Median seconds of each work over shuffled rounds, after one round that is not counted."""
    order = random.Random(0)
    taken: dict[str, list[float]] = {name: [] for name in works}
    for turn in range(rounds + 1):
        names = list(works)
        order.shuffle(names)
        for name in names:
            start = clock()
            works[name]()
            if turn:
                taken[name].append(clock() - start)
    return {name: statistics.median(times) for name, times in taken.items()}


CLOCKS = {"wall": time.perf_counter, "cpu": time.process_time}
