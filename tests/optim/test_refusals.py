"""What all optimizers refuse, by name."""

import pytest
import torch

from motet.optim.adamw import APTAdamW
from motet.optim.muon import APTMuon
from motet.optim.per_task import AdaTask
from motet.optim.sgd import APTSGD


@pytest.mark.parametrize("make", [APTAdamW, APTMuon, APTSGD, AdaTask])
def test_options_that_are_no_finite_number_are_refused_by_name(make):
    p = [torch.nn.Parameter(torch.ones(2, 2))]
    with pytest.raises(ValueError, match="lr must be finite"):
        make(p, lr=torch.inf)
    with pytest.raises(TypeError, match="lr must be a number, not '0.1'"):
        make(p, lr="0.1")
    if make is AdaTask:
        return
    with pytest.raises(TypeError, match="beta_min must be a number, not '0.5'"):
        make(p, beta_min="0.5")
    for option, value in (("rule", "A2"), ("reference", "momentum"), ("scope", "tensor"), ("smoothing", 0.5)):
        with pytest.raises(ValueError, match=f"{option}=.* pass beta_min with it"):
            make(p, **{option: value})
        make([{"params": p, "beta_min": 0.5}], **{option: value})
    assert make(p, beta_min=0.5, rule="a2").param_groups[0]["rule"] == "A2"
    with pytest.raises(ValueError, match="rule must be one of"):
        make(p, beta_min=0.5, rule="a9")


def test_a_hook_that_nothing_calls_is_refused_at_the_step():
    p = torch.nn.Parameter(torch.ones(2, 2))
    p.grad = torch.ones(2, 2)
    optimizer = APTAdamW([p], beta_min=0.5)
    optimizer.adaptive.noise_hook = lambda: 1.0
    with pytest.raises(ValueError, match="only rule A7"):
        optimizer.step()


class Sharded(torch.nn.Parameter):
    """What tells a DTensor."""

    device_mesh = placements = None


def test_sharded_parameters_are_refused_by_name_where_they_would_adapt():
    p = Sharded(torch.ones(2, 2))
    for make in (APTAdamW, APTMuon, APTSGD):
        make([p])
        with pytest.raises(TypeError, match=r"parameter 'w' is sharded \(a DTensor\)"):
            make([("w", p)], beta_min=0.5)
    with pytest.raises(TypeError, match="sharded"):
        AdaTask([p])
