"""States that come from elsewhere, and copies."""

import copy

import pytest
import torch
from torch import nn

from motet.optim import APTSGD, APTAdamW, APTMuon, Hybrid


def after(optimizer: torch.optim.Optimizer, p: nn.Parameter, steps: int) -> torch.Tensor:
    for _ in range(steps):
        p.grad = torch.ones_like(p)
        optimizer.step()
    return p.detach().clone()


@pytest.mark.parametrize("momentum", [0.0, 0.9])
def test_momentum_of_zero_is_plain_descent(momentum):
    ours, theirs = nn.Parameter(torch.ones(3)), nn.Parameter(torch.ones(3))
    plain = torch.optim.SGD([theirs], 0.1, momentum=momentum, dampening=momentum)
    torch.testing.assert_close(after(APTSGD([ours], 0.1, momentum=momentum), ours, 4), after(plain, theirs, 4))


def test_a_turning_gradient_may_take_momentum_down_to_zero():
    p = nn.Parameter(torch.ones(3))
    optimizer = APTSGD([p], 0.1, beta_min=0.0, rule="A2")
    for sign in (1.0, -1.0):
        p.grad = sign * torch.ones(3)
        optimizer.step()
    torch.testing.assert_close(p.detach(), torch.ones(3))  # The second step forgets the first one.


def test_hybrid_goes_on_from_the_moments_of_torchs_adamw():
    old = nn.Parameter(torch.zeros(4))
    adamw = torch.optim.AdamW([old], 0.1, weight_decay=0.0)
    start = after(adamw, old, 3)
    moved = []
    for make in (
        lambda p: APTAdamW([p], 0.1, beta_min=0.5, weight_decay=0.0),
        lambda p: Hybrid([{"params": [p]}], None, {"lr": 0.1, "beta_min": 0.5, "weight_decay": 0.0}),
    ):
        p = nn.Parameter(start.clone())
        optimizer = make(p)
        optimizer.load_state_dict(copy.deepcopy(adamw.state_dict()))
        moved.append(after(optimizer, p, 1) - start)
    torch.testing.assert_close(moved[1], moved[0])


def test_options_that_a_loaded_state_lacks_stay_those_of_the_group():
    p, q = nn.Parameter(torch.zeros(2)), nn.Parameter(torch.zeros(2))
    theirs = torch.optim.AdamW([{"params": [p]}, {"params": [q]}])
    ours = APTAdamW([{"params": [p]}, {"params": [q], "beta_min": None}], beta_min=0.5)
    ours.load_state_dict(theirs.state_dict())
    assert [group["beta_min"] for group in ours.param_groups] == [0.5, None]


def test_a_copy_keeps_how_it_works():
    p = nn.Parameter(torch.ones(3, 3))
    twin = copy.deepcopy(APTMuon([p], batch=False, record=True))
    assert (twin.batch, twin.record) == (False, True)
