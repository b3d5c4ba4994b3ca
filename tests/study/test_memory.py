"""Peak memory of a piece of work: exact, and silent."""

import gc

import pytest
import torch

from motet.study.memory import peak_memory


def test_the_peak_is_what_was_held_at_once():
    def work():
        for _ in range(3):
            torch.zeros(2**18)  # 1 MiB each, freed before the next.
        return [torch.zeros(2**18), torch.zeros(2**18)]

    found, peak = peak_memory(work)
    assert len(found) == 2
    assert peak == pytest.approx(2, abs=0.01)


def test_garbage_of_a_former_run_is_not_collected_in_it(capfd):
    """The profiler would write to stderr that it does not know what is freed there."""

    class Cycle:
        def __init__(self):
            self.tensor, self.itself = torch.zeros(1000), self

    peak_memory(lambda: torch.zeros(3))  # From the first one on it knows what is allocated.
    gc.collect()
    capfd.readouterr()
    gc.disable()
    Cycle()
    gc.enable()
    peak_memory(lambda: [[] for _ in range(50_000)])
    assert gc.isenabled()
    assert capfd.readouterr().err == ""
