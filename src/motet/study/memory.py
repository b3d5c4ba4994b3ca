"""Peak memory of a piece of work, counted exactly at the allocator."""

import gc
import os
from collections.abc import Callable
from typing import TypeVar

import torch
from torch.profiler import ProfilerActivity, profile

_T = TypeVar("_T")


def peak_memory(work: Callable[[], _T], device: str = "cpu") -> tuple[_T, float]:
    """Run ``work`` and give its result with the MiB that it had allocated, at most, beyond what was there before.

    On a CPU the profiler's allocation events are added up, which is exact and does not depend on what else
    the process holds, as resident memory does. It slows the work down, so one step is measured and not timed.
    """
    if device.startswith("cuda"):
        torch.cuda.reset_peak_memory_stats(device)
        before = torch.cuda.memory_allocated(device)
        result = work()
        return result, (torch.cuda.max_memory_allocated(device) - before) / 2**20
    os.environ.setdefault("KINETO_LOG_LEVEL", "99")  # Without it the profiler writes two lines to stderr a run.
    # What a collection frees was allocated before, and the profiler writes to stderr that it does not know it.
    collects = gc.isenabled()
    gc.disable()
    try:
        with profile(activities=[ProfilerActivity.CPU], profile_memory=True) as recorded:
            result = work()
    finally:
        if collects:
            gc.enable()
    now = peak = 0
    results = recorded.profiler.kineto_results if recorded.profiler is not None else None
    for event in results.events() if results is not None else ():
        if event.name() == "[memory]":
            now += event.nbytes()
            peak = max(peak, now)
    return result, peak / 2**20
