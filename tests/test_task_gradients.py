"""A Balancer hands the tasks' own gradients over to whoever asks for them, without a second computation."""

import math

import pytest
import torch
from torch import nn
from torch.testing import assert_close

import motet
from motet.methods import EMA, Every
from motet.optim import APTMuon, muon_for
from tests.test_balancer import TASKS, Fixed, Halves, Ones, Rows, grads, make, plain


class Kept(list):
    """What was handed over in each step: copies of the rows, and the parameters."""

    def __call__(self, rows, parameters):
        self.append((rows.clone(), list(parameters)))


def rows_by_hand(model, x):
    losses = model.losses(x)[1].values()
    found = [torch.autograd.grad(loss, list(model.trunk.parameters()), retain_graph=True) for loss in losses]
    return torch.stack([torch.cat([g.flatten() for g in row]) for row in found])


@pytest.mark.parametrize("method", ["sum", "uw", "mgda", "pcgrad", "grad-drop", Rows(), Halves(), EMA("upgrad")])
@pytest.mark.parametrize("route", ["auto", "exact"])
def test_the_rows_are_the_tasks_own_gradients_whatever_the_method_makes_of_them(method, route):
    model, x = make()
    kept, expected = Kept(), rows_by_hand(model, x)
    z, losses = model.losses(x)
    step = motet.Balancer(method, route, on_gradients=kept).backward(losses, features=z)
    assert step.cost.route == "exact"
    [(rows, parameters)] = kept
    # In whatever order the parameters come, the columns are theirs.
    parts = dict(zip(parameters, rows.split([p.numel() for p in parameters], 1), strict=True))
    assert_close(torch.cat([parts[p] for p in model.trunk.parameters()], 1), expected)


@pytest.mark.parametrize("method", ["sum", "upgrad", Fixed(0.2, 3.0, 0.5), Halves()])
def test_handing_over_changes_no_gradient(method):
    results = []
    for options in ({}, {"on_gradients": Kept()}):
        model, x = make()
        z, losses = model.losses(x)
        motet.Balancer(method, **options).backward(losses, features=z)
        results.append(grads(model))
    for name, expected in results[0].items():
        assert_close(results[1][name], expected, msg=name)


def test_heads_keep_their_own_gradients_and_the_trunk_its_sum():
    model, x = make()
    motet.Balancer("sum", on_gradients=Kept()).backward(model.losses(x)[1], shared=model.trunk)
    for name, expected in plain().items():
        assert_close(grads(model)[name], expected, msg=name)


def test_an_absent_task_has_a_row_of_zeros_in_its_own_place():
    model, x = make()
    kept, expected = Kept(), rows_by_hand(model, x)
    balancer = motet.Balancer(Ones(), tasks=TASKS, on_gradients=kept)
    losses = model.losses(x)[1]
    given = {"edges": losses["edges"], "depth": losses["depth"], "normals": None}
    balancer.backward(given, shared=model.trunk.parameters())
    expected[1] = 0
    assert_close(kept[0][0], expected)


def test_a_skipped_task_has_a_row_of_zeros_too():
    model, x = make()
    kept, expected = Kept(), rows_by_hand(model, x)
    losses = model.losses(x)[1]
    losses["depth"] = losses["depth"] * math.nan
    balancer = motet.Balancer(Every(3, "upgrad"), tasks=TASKS, nonfinite="skip", on_gradients=kept)
    balancer.backward(losses, shared=model.trunk.parameters())
    expected[0] = 0
    assert_close(kept[0][0], expected)


def test_nothing_is_handed_over_where_no_task_is_there():
    kept = Kept()
    motet.Balancer("sum", tasks=TASKS, on_gradients=kept).backward(dict.fromkeys(TASKS), shared=make()[0].trunk)
    assert not kept


def test_of_two_batches_the_first_ones_rows_are_handed_over():
    model, x = make()
    kept, expected = Kept(), rows_by_hand(model, x)
    balancer = motet.Balancer("modo", on_gradients=kept)
    balancer.backward(model.losses(x)[1], shared=model.trunk, validation=model.losses(x.flip(1))[1])
    assert_close(kept[0][0], expected)


def test_steps_whose_weights_are_known_hand_over_too_and_take_these_weights():
    results = []
    for options in ({}, {"on_gradients": (kept := Kept())}):
        model, x = make()
        balancer = motet.Balancer(Every(3, "upgrad"), "exact", **options)
        optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
        weights = []
        for _ in range(5):
            optimizer.zero_grad()
            z, losses = model.losses(x)
            weights.append(torch.as_tensor(balancer.backward(losses, features=z).weights))
            optimizer.step()
        results.append((torch.stack(weights), grads(model)))
    assert len(kept) == 5
    assert_close(results[0][0], results[1][0])
    for name, expected in results[0][1].items():
        assert_close(results[1][1][name], expected, msg=name)


@pytest.mark.parametrize("route", ["features", "last-layer", "probe", "disjoint"])
def test_a_route_without_whole_gradients_is_refused_by_name(route):
    with pytest.raises(ValueError, match=f"the {route} route does not have: use route='exact'"):
        motet.Balancer("upgrad", route, on_gradients=Kept())


def test_without_features_or_parameters_it_says_what_to_pass():
    model, x = make()
    with pytest.raises(ValueError, match="on_gradients needs shared=model.trunk.parameters"):
        motet.Balancer("sum", on_gradients=Kept()).backward(model.losses(x)[1])


def test_muon_preserves_the_tasks_directions_from_the_balancers_own_step():
    """One computation for both: the same step as with gradients computed apart."""
    updated = []
    for handed in (True, False):
        torch.manual_seed(0)
        trunk = nn.Sequential(nn.Linear(4, 6), nn.ReLU(), nn.Linear(6, 5))
        heads = nn.ModuleDict({task: nn.Linear(5, 1) for task in "ab"})
        model = nn.ModuleDict({"trunk": trunk, "heads": heads})
        optimizer = muon_for(model, 0.01, heads=heads, preserve=0.3)
        x = torch.randn(8, 4)
        balancer = motet.Balancer("upgrad", "exact", on_gradients=optimizer.task_gradients if handed else None)
        z = trunk(x)
        losses = {task: (head(z) - i).pow(2).mean() for i, (task, head) in enumerate(heads.items())}
        if not handed:
            parameters = list(trunk.parameters())
            rows = [torch.autograd.grad(loss, parameters, retain_graph=True) for loss in losses.values()]
            optimizer.task_gradients(torch.stack([torch.cat([g.flatten() for g in row]) for row in rows]), parameters)
        balancer.backward(losses, features=z)
        optimizer.step()
        updated.append(trunk[2].weight.detach().clone())
    assert torch.equal(*updated)
    assert isinstance(optimizer._parts["muon"], APTMuon)
