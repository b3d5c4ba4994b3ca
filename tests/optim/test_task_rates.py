"""Learning rates of the tasks' own parameters: factors within a step only, with schedulers and saved states."""

import copy

import pytest
import torch
from torch import nn
from torch.testing import assert_close

from motet.optim import APTAdamW, TaskRates, muon_for


def model() -> nn.ModuleDict:
    torch.manual_seed(0)
    return nn.ModuleDict({"trunk": nn.Linear(3, 4), "a": nn.Linear(4, 2), "b": nn.Linear(4, 2)})


def heads(net: nn.ModuleDict) -> dict[str, nn.Module]:
    return {"a": net["a"], "b": net["b"]}


def fill(net: nn.Module, seed: int) -> None:
    generator = torch.Generator().manual_seed(seed)
    for p in net.parameters():
        p.grad = torch.randn(p.shape, generator=generator)


@pytest.mark.parametrize(
    "make",
    [
        lambda p: torch.optim.SGD(p, lr=0.1, momentum=0.9),
        lambda p: torch.optim.AdamW(p, lr=0.1),
        lambda p: APTAdamW(p, lr=0.1, beta_min=0.5),
    ],
)
def test_each_head_moves_as_with_a_group_of_its_own_rate(make):
    net, other = model(), model()
    optimizer = make(net.parameters())
    rates = TaskRates(optimizer, heads(net))
    rates.set({"a": 0.5, "b": 2.0})
    groups = [{"params": other["trunk"].parameters()}, {"params": other["a"].parameters(), "lr": 0.05}]
    reference = make([*groups, {"params": other["b"].parameters(), "lr": 0.2}])
    for seed in range(4):
        fill(net, seed)
        fill(other, seed)
        optimizer.step()
        reference.step()
    for p, q in zip(net.parameters(), other.parameters(), strict=True):
        assert_close(p, q)


def test_the_optimizer_shows_the_scheduled_rate_between_steps():
    net = model()
    optimizer = torch.optim.SGD(net.parameters(), lr=1.0)
    rates = TaskRates(optimizer, heads(net))
    scheduler = torch.optim.lr_scheduler.ExponentialLR(optimizer, 0.5)
    rates.set({"a": 3.0})
    for step in range(3):
        fill(net, step)
        before = {name: net[name].weight.detach().clone() for name in net}
        optimizer.step()
        scheduler.step()
        for name, factor in {"trunk": 1.0, "a": 3.0, "b": 1.0}.items():
            assert_close(before[name] - net[name].weight, 0.5**step * factor * net[name].weight.grad)
        assert [group["lr"] for group in optimizer.param_groups] == [0.5 ** (step + 1)] * 3


def test_rates_as_tensors_stay_the_same_tensors():
    net = model()
    lr = torch.tensor(0.1)
    optimizer = torch.optim.AdamW(net.parameters(), lr=lr)
    TaskRates(optimizer, heads(net)).set({"a": 0.5})
    fill(net, 0)
    optimizer.step()
    assert all(group["lr"] is lr for group in optimizer.param_groups)
    assert float(lr) == pytest.approx(0.1)


def test_factors_are_in_the_optimizers_state_and_go_on_bit_for_bit():
    net = model()
    optimizer = torch.optim.AdamW(net.parameters(), lr=0.1)
    rates = TaskRates(optimizer, heads(net))
    rates.set({"a": 0.5, "b": 1.7})
    fill(net, 0)
    optimizer.step()
    other = copy.deepcopy(net)
    resumed = torch.optim.AdamW(other.parameters(), lr=0.3)
    again = TaskRates(resumed, heads(other))
    resumed.load_state_dict(copy.deepcopy(optimizer.state_dict()))
    assert again.factors == {"a": 0.5, "b": 1.7}
    for seed in (1, 2):
        for each, steps in ((net, optimizer), (other, resumed)):
            fill(each, seed)
            steps.step()
    for p, q in zip(net.parameters(), other.parameters(), strict=True):
        assert torch.equal(p, q)


def test_a_step_that_raises_does_not_leave_its_rate():
    net = model()
    optimizer = torch.optim.SGD(net.parameters(), lr=1.0)
    TaskRates(optimizer, heads(net)).set({"a": 2.0})
    fill(net, 0)

    def closure() -> float:
        raise RuntimeError("no loss")

    with pytest.raises(RuntimeError, match="no loss"):
        optimizer.step(closure)
    before = net["a"].weight.detach().clone()
    optimizer.step()
    assert_close(before - net["a"].weight, 2.0 * net["a"].weight.grad)
    assert [group["lr"] for group in optimizer.param_groups] == [1.0] * 3


def test_groups_keep_their_options_names_and_every_parameter():
    net = model()
    named = [(name, p) for name, p in net.named_parameters() if "weight" in name]
    biases = [(name, p) for name, p in net.named_parameters() if "bias" in name]
    optimizer = torch.optim.AdamW([{"params": named, "weight_decay": 0.3}, {"params": biases}], lr=0.1)
    TaskRates(optimizer, heads(net))
    found = {name: group["weight_decay"] for group in optimizer.param_groups for name in group["param_names"]}
    assert found == {name: 0.3 if "weight" in name else 0.01 for name, _ in net.named_parameters()}
    listed = [p for group in optimizer.param_groups for p in group["params"]]
    assert {id(p) for p in listed} == {id(p) for p in net.parameters()}
    assert len(listed) == 6


def test_a_hybrid_optimizer_takes_them_too():
    net = nn.Sequential(nn.Linear(3, 8), nn.ReLU(), nn.Linear(8, 8), nn.ReLU(), nn.Linear(8, 2))
    optimizer = muon_for(net, lr=0.1, heads=[net[4]])
    rates = TaskRates(optimizer, {"only": net[4]})
    assert len(optimizer.param_groups) == 3  # The head had a group of its own already.
    fill(net, 0)
    other = copy.deepcopy(net)
    reference = muon_for(other, lr=0.1, heads=[other[4]])
    fill(other, 0)
    rates.set({"only": 0.5})
    before = net[4].weight.detach().clone()
    optimizer.step()
    reference.step()
    assert_close(before - net[4].weight, 0.5 * (before - other[4].weight), rtol=1e-5, atol=1e-7)
    assert_close(net[2].weight, other[2].weight)


def test_after_removal_nothing_is_multiplied():
    net = model()
    optimizer = torch.optim.SGD(net.parameters(), lr=1.0)
    rates = TaskRates(optimizer, heads(net))
    rates.set({"a": 2.0})
    rates.remove()
    fill(net, 0)
    before = net["a"].weight.detach().clone()
    optimizer.step()
    assert_close(before - net["a"].weight, net["a"].weight.grad)


def test_what_is_wrong_is_named():
    net = model()
    optimizer = torch.optim.SGD(net.parameters(), lr=1.0)
    with pytest.raises(ValueError, match="both 'a' and 'b'"):
        TaskRates(optimizer, {"a": net["a"], "b": net["a"]})
    with pytest.raises(ValueError, match="'c'.*not one of the optimizer's"):
        TaskRates(optimizer, {"c": nn.Linear(2, 2)})
    with pytest.raises(ValueError, match="'c' has no parameter"):
        TaskRates(optimizer, {"c": []})
    rates = TaskRates(optimizer, heads(net))
    with pytest.raises(ValueError, match="no task 'c'"):
        rates.set({"c": 1.0})
    with pytest.raises(ValueError, match="'a' must be positive"):
        rates.set({"b": 2.0, "a": 0.0})
    assert rates.factors == {"a": 1.0, "b": 1.0}
    with pytest.raises(ValueError, match="has task rates already"):
        TaskRates(optimizer, heads(net))
    scheduled = torch.optim.SGD(net.parameters(), lr=1.0)
    torch.optim.lr_scheduler.StepLR(scheduled, 1)
    with pytest.raises(ValueError, match="make TaskRates before it"):
        TaskRates(scheduled, heads(net))
