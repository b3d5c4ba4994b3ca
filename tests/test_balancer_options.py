"""Weights per layer, second batches, audits and weights that are known in advance."""

import gc
import logging
import weakref

import pytest
import torch
from torch import Tensor, nn
from torch.testing import assert_close

import motet
from motet.linalg import gram as gram_of
from motet.methods import Every, GramMethod, TwoSampleMethod
from motet.routes import Exact
from tests.test_balancer import TASKS, Fixed, Net, Ones, grads, make, plain


def rows_of(model: Net, x: Tensor) -> Tensor:
    return Exact(list(model.losses(x)[1].values()), list(model.trunk.parameters())).rows


class Second(TwoSampleMethod):
    """Keeps the joint Gram matrix; weight 1 for the training rows, 0.5 for the second batch's."""

    def pair_weights(self, joint: Tensor) -> Tensor:
        self.joint = joint
        count = len(joint) // 2
        return torch.cat([joint.new_ones(count), joint.new_full((count,), 0.5)])


class Recorded(GramMethod):
    """Remembers the losses that it was given with each Gram matrix."""

    def weights(self, gram: Tensor) -> Tensor:
        self.last = self.observed(gram[0])
        return gram.new_ones(len(gram))


def test_weights_per_tensor_are_the_methods_on_each_tensors_own_gram_matrix():
    model, x = make()
    rows = rows_of(model, x)
    parameters = list(model.trunk.parameters())
    parts = rows.split([p.numel() for p in parameters], dim=1)
    expected = [motet.methods.UPGrad().direction(part) for part in parts]
    z, losses = model.losses(x)
    step = motet.Balancer("upgrad", granularity="tensor").backward(losses, features=z, shared=parameters)
    for parameter, direction in zip(parameters, expected, strict=True):
        assert_close(parameter.grad, direction.view_as(parameter))
    assert step.weights is None
    assert step.block_weights.shape == (len(parameters), len(TASKS))
    assert_close(step.gram, gram_of(rows))


def test_weights_per_module_take_weight_and_bias_together():
    model, x = make()
    rows = rows_of(model, x)
    first = sum(p.numel() for p in model.trunk[0].parameters())
    motet.Balancer("mgda", granularity="module").backward(model.losses(x)[1], shared=model.trunk)
    expected = [motet.methods.MGDA().direction(part) for part in (rows[:, :first], rows[:, first:])]
    for module, direction in zip((model.trunk[0], model.trunk[2]), expected, strict=True):
        assert_close(torch.cat([p.grad.flatten() for p in module.parameters()]), direction)


def test_heads_keep_their_own_gradient_where_weights_differ_by_layer():
    model, x = make()
    motet.Balancer("upgrad", granularity="module").backward(model.losses(x)[1], shared=model.trunk)
    for name, expected in plain().items():
        if name.startswith("heads"):
            assert_close(grads(model)[name], expected, msg=name)


@pytest.mark.parametrize(
    ("make_it", "message"),
    [
        (lambda: motet.Balancer("upgrad", route="features", granularity="tensor"), "needs the exact route"),
        (lambda: motet.Balancer("uw", granularity="tensor"), "UW gives one weight a task .* those that do: .*upgrad"),
        (lambda: motet.Balancer("upgrad", granularity="layer"), "'model', 'module' or 'tensor', not 'layer'"),
        (lambda: motet.Balancer("upgrad", audit_every=0), "audit_every .* at least 1"),
        (lambda: motet.Balancer("auto-lambda", route="features"), "two batches, which only route='exact' has"),
    ],
)
def test_an_option_that_can_not_be_is_refused_at_once(make_it, message):
    with pytest.raises(ValueError, match=message):
        make_it()


def test_weights_per_module_need_the_module_itself():
    model, x = make()
    with pytest.raises(ValueError, match=r"needs shared=model\.trunk, the module itself"):
        motet.Balancer("upgrad", granularity="module").backward(model.losses(x)[1], shared=model.trunk.parameters())
    assert all(p.grad is None for p in model.parameters())


@pytest.mark.parametrize("lazily", [False, True])
def test_a_second_batch_gives_the_joint_gram_matrix_and_may_have_weights(lazily):
    model, x = make()
    other = torch.randn(8, 4, dtype=torch.double)
    rows, second = rows_of(model, x), rows_of(model, other)
    method = Second()
    given = (lambda: model.losses(other)[1]) if lazily else model.losses(other)[1]
    step = motet.Balancer(method).backward(model.losses(x)[1], shared=model.trunk, validation=given)
    assert_close(method.joint, gram_of(torch.cat([rows, second])))
    found = torch.cat([p.grad.flatten() for p in model.trunk.parameters()])
    assert_close(found, rows.sum(0) + 0.5 * second.sum(0))
    assert step.gram.shape == (3, 3)
    assert_close(torch.as_tensor(step.weights), torch.ones(3).double())
    for name, expected in plain().items():
        if name.startswith("heads"):
            assert_close(grads(model)[name], expected, msg=name)


def test_a_task_without_a_loss_on_the_second_batch_has_zeros_there():
    model, x = make()
    method = Second()
    second = model.losses(x)[1] | {"normals": None}
    motet.Balancer(method).backward(model.losses(x)[1], shared=model.trunk, validation=second)
    assert (method.joint[4] == 0).all()
    assert (method.joint[3] != 0).any()


def test_without_a_second_batch_the_first_stands_in_and_the_log_says_so(caplog):
    model, x = make()
    rows = rows_of(model, x)
    motet.Balancer(Second()).backward(model.losses(x)[1], shared=model.trunk)
    assert "no validation=" in caplog.text
    assert_close(torch.cat([p.grad.flatten() for p in model.trunk.parameters()]), 1.5 * rows.sum(0))


def test_a_second_batch_for_a_method_that_wants_none_is_refused():
    model, x = make()
    with pytest.raises(ValueError, match="UPGrad learns from one batch"):
        motet.Balancer("upgrad").backward(model.losses(x)[1], shared=model.trunk, validation=model.losses(x)[1])


def test_a_second_loss_that_is_not_finite_is_named_before_anything_is_written():
    model, x = make()
    second = model.losses(x)[1]
    second["edges"] = second["edges"] * torch.nan
    with pytest.raises(ValueError, match="validation loss of task 'edges' is nan"):
        motet.Balancer(Second()).backward(model.losses(x)[1], shared=model.trunk, validation=second)
    assert all(p.grad is None for p in model.parameters())


def test_an_audit_compares_with_the_exact_gram_matrix_and_changes_nothing(caplog):
    def run(every: int | None) -> tuple[list, dict]:
        model, x = make()
        balancer = motet.Balancer(motet.methods.PCGrad(torch.Generator().manual_seed(0)), "features", audit_every=every)
        audits = []
        for _ in range(4):
            z, losses = model.losses(x)
            audits.append(balancer.backward(losses, features=z).audit)
        return audits, grads(model)

    with caplog.at_level(logging.INFO, logger="motet"):
        audits, audited = run(2)
    _, unaudited = run(None)
    assert [audit is not None for audit in audits] == [False, True, False, True]
    assert caplog.text.count("audit of the route 'features'") == 2
    assert 0 < audits[1].cosine_error < 1
    assert -1 <= audits[1].update_cosine <= 1
    for name, gradient in unaudited.items():
        assert torch.equal(audited[name], gradient)


def test_an_audit_of_a_single_linear_layer_finds_nothing_wrong():
    """Where the last layer is the whole trunk its Gram matrix is the exact one."""
    torch.manual_seed(0)
    trunk, heads = nn.Linear(4, 5), nn.ModuleList(nn.Linear(5, 1) for _ in range(3))
    z = trunk(torch.randn(16, 4))
    losses = {str(k): (head(z) - k).pow(2).mean() for k, head in enumerate(heads)}
    audit = motet.Balancer("upgrad", "last-layer", audit_every=1).backward(losses, features=z).audit
    assert audit.cosine_error == pytest.approx(0, abs=1e-5)
    assert audit.norm_correlation == pytest.approx(1, abs=1e-5)
    assert audit.update_cosine == pytest.approx(1, abs=1e-5)
    assert audit.worst_cosine == pytest.approx(audit.worst_cosine_exact, abs=1e-4)


def test_losses_reach_a_method_on_gradients_before_its_gram_matrix():
    model, x = make()
    method = Recorded()
    z, losses = model.losses(x)
    motet.Balancer(method).backward(losses, features=z)
    assert_close(method.last, torch.stack([loss.detach() for loss in losses.values()]))


@pytest.mark.parametrize("given", ["features", "shared", "both"])
@pytest.mark.parametrize("route", ["auto", "exact"])
def test_a_step_whose_weights_are_known_costs_one_backward_pass(given, route):
    model, x = make()
    method = Every(3, Fixed(0.2, 3.0, 0.5))
    balancer = motet.Balancer(method, route)
    passes = []
    for _ in range(3):
        z, losses = model.losses(x)
        model.zero_grad()
        below = {"features": z} if given != "shared" else {}
        below |= {"shared": model.trunk} if given != "features" else {}
        step = balancer.backward(losses, **below)
        passes.append((step.cost.route, step.cost.trunk_backwards))
    assert passes[0][0] == "exact"
    assert passes[1:] == [("known", 1)] * 2
    trunk, heads = plain(weights=(0.2, 3.0, 0.5)), plain()
    for name, found in grads(model).items():
        assert_close(found, heads[name] if name.startswith("heads") else trunk[name], msg=name)
    assert step.gram is None
    assert_close(torch.as_tensor(step.weights), torch.tensor([0.2, 3.0, 0.5]).double())


def test_features_for_a_method_that_promises_no_conflict_is_a_warning(caplog):
    model, x = make()
    for method in ("upgrad", "pcgrad"):
        z, losses = model.losses(x)
        motet.Balancer(method, route="features").backward(losses, features=z)
    assert caplog.text.count("promises that no task loses") == 1
    assert "UPGrad" in caplog.text


def test_the_state_of_a_wrapper_fits_its_own_kind_only():
    state = motet.Balancer(Every(2, "mgda")).state_dict()
    motet.Balancer(Every(2, "mgda")).load_state_dict(state)
    with pytest.raises(ValueError, match=r"Every\(MGDA\)"):
        motet.Balancer("mgda").load_state_dict(state)


def test_ones_by_way_of_known_weights_are_the_plain_sum():
    model, x = make()
    balancer = motet.Balancer(Every(2, Ones()))
    for _ in range(2):
        z, losses = model.losses(x)
        balancer.backward(losses, features=z)
    for name, expected in plain().items():
        assert_close(grads(model)[name], 2 * expected, rtol=1e-6, atol=1e-12, msg=name)


def test_a_forgotten_balancer_gives_its_buffer_back_at_once():
    model, x = make()
    z, losses = model.losses(x)
    balancer = motet.Balancer(Ones())
    balancer.backward(losses, features=z)
    gone = weakref.ref(balancer)
    gc.disable()
    try:
        del balancer
        assert gone() is None
    finally:
        gc.enable()
