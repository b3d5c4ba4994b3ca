import copy
import math
import pickle
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor
from torch._subclasses.fake_tensor import DataDependentOutputException, FakeTensorMode
from torch.nn import Parameter

from motet.optim import APTSGD, APTAdamW

SHAPES = ((7, 5), (5,), (3, 2, 3, 3), ())
KERNELS = ({}, {"foreach": True}, {"fused": False})


def parameters(dtype: torch.dtype = torch.float32) -> list[Parameter]:
    generator = torch.Generator().manual_seed(0)
    params = [Parameter(torch.randn(shape, generator=generator).to(dtype)) for shape in SHAPES]
    params[2].data = params[2].data.to(memory_format=torch.channels_last)
    return params


def train(
    params: list[Parameter],
    optimizer: torch.optim.Optimizer,
    steps: range,
    missing: Callable[[int, int], bool] | None = None,
) -> None:
    """Steps with gradients that turn slowly, the same for the same step; `missing(t, j)` has none."""
    for t in steps:
        generator = torch.Generator().manual_seed(t)
        still = torch.Generator().manual_seed(100 + t // 4)
        for j, p in enumerate(params):
            d = torch.randn(p.shape, generator=generator) + 2 * torch.randn(p.shape, generator=still)
            p.grad = None if missing and missing(t, j) else d.to(p.dtype)
        optimizer.step()


def assert_alike(one: list[Parameter], two: list[Parameter], tolerance: float = 1e-6) -> None:
    for p, q in zip(one, two, strict=True):
        torch.testing.assert_close(p, q, rtol=tolerance, atol=tolerance)


@pytest.mark.parametrize("kernel", KERNELS)
@pytest.mark.parametrize(
    "options",
    [
        {"beta_min": None},
        {"beta_min": 0.9},
        {"beta_min": 0.9, "reference": "momentum"},
        {"beta_min": 0.9, "scope": "tensor"},
        {"beta_min": 0.9, "rule": "A7", "scope": "group"},
        {"beta_min": 0.9, "adapt_second": True},
        {"beta_min": 0.9, "weight_decay": 0.3, "eps": 1e-3, "maximize": True},
        {"beta_min": 0.5, "betas": (0.5, 0.9), "lr": 0.1},
        {"beta_min": 0.0, "betas": (0.0, 0.99)},
    ],
)
def test_a_fixed_beta_is_torch_adamw_step_for_step(options, kernel):
    options = {"lr": 1e-2} | options
    plain = {
        name: value for name, value in options.items() if name in ("lr", "betas", "eps", "weight_decay", "maximize")
    }
    ours, theirs = parameters(), parameters()
    one, two = APTAdamW(ours, **options, **kernel), torch.optim.AdamW(theirs, **plain)
    for t in range(30):
        train(ours, one, range(t, t + 1), lambda t, j: t % 3 == 1 and j == 1)
        train(theirs, two, range(t, t + 1), lambda t, j: t % 3 == 1 and j == 1)
        assert_alike(ours, theirs)


def test_a_fixed_beta_is_torch_adamw_in_double_precision():
    ours, theirs = parameters(torch.float64), parameters(torch.float64)
    train(ours, APTAdamW(ours, beta_min=0.9), range(30))
    train(theirs, torch.optim.AdamW(theirs), range(30))
    assert_alike(ours, theirs, 1e-12)


def by_hand(gradients: list[Tensor], beta_min: float, adapt_second: bool, lr: float, decay: float) -> Tensor:
    """The definition for one parameter that starts at one: rule A1, previous gradient."""
    theta, m, v = torch.ones_like(gradients[0]), 0.0, 0.0
    products, previous = [1.0, 1.0], None
    for d in gradients:
        c = 1.0 if previous is None else float(d @ previous / (d.norm() * previous.norm()))
        beta = beta_min + (0.9 - beta_min) * (1 + c) / 2
        second = 1 - min(1.0, 0.01 * (1 - beta) / (1 - 0.9)) if adapt_second else 0.99
        m, v = beta * m + (1 - beta) * d, second * v + (1 - second) * d**2
        products = [products[0] * beta, products[1] * second]
        theta = theta * (1 - lr * decay)
        theta = theta - lr * (m / (1 - products[0])) / ((v / (1 - products[1])).sqrt() + 1e-8)
        previous = d
    return theta


@pytest.mark.parametrize("kernel", KERNELS)
@pytest.mark.parametrize("adapt_second", [False, True])
def test_the_step_is_the_definition_with_the_bias_correction_of_a_beta_that_varies(kernel, adapt_second):
    generator = torch.Generator().manual_seed(1)
    gradients = list(torch.randn(12, 6, generator=generator, dtype=torch.float64))
    p = Parameter(torch.ones(6, dtype=torch.float64))
    options = {"lr": 0.03, "betas": (0.9, 0.99), "weight_decay": 0.2, "adapt_second": adapt_second}
    optimizer = APTAdamW([p], beta_min=0.1, **options, **kernel)
    for t, d in enumerate(gradients):
        p.grad = d.clone()
        optimizer.step()
        torch.testing.assert_close(
            p.data, by_hand(gradients[: t + 1], 0.1, adapt_second, 0.03, 0.2), rtol=1e-12, atol=1e-12
        )
        assert torch.equal(p.grad, d)


@pytest.mark.parametrize("options", [{"scope": "tensor"}, {"rule": "A7"}, {"reference": "momentum", "maximize": True}])
def test_the_fused_kernel_and_the_plain_operations_agree(options):
    ours, theirs = parameters(), parameters()
    train(ours, APTAdamW(ours, beta_min=0.3, **options), range(20), lambda t, j: (t + j) % 5 == 0)
    train(theirs, APTAdamW(theirs, beta_min=0.3, foreach=True, **options), range(20), lambda t, j: (t + j) % 5 == 0)
    assert_alike(ours, theirs)


def test_parameters_and_gradients_of_any_memory_layout_move_as_contiguous_ones():
    generator = torch.Generator().manual_seed(2)
    values = [torch.randn(4, 3, 5, 5, generator=generator) for _ in range(7)]
    wide = torch.zeros(4, 3, 5, 10)
    made = [
        Parameter(values[0].clone()),
        Parameter(values[0].clone(memory_format=torch.channels_last)),
        Parameter(values[0].transpose(0, 3).contiguous().transpose(0, 3)),
        Parameter(wide[..., ::2].copy_(values[0])),
    ]
    for p in made:
        for beta_min in (None, 0.5):
            p.data.copy_(values[0])
            optimizer = APTAdamW([p], beta_min=beta_min, lr=0.1)
            reference = Parameter(values[0].clone())
            plain = APTAdamW([reference], beta_min=beta_min, lr=0.1, fused=False)
            for value in values[1:]:
                p.grad, reference.grad = value, value
                optimizer.step()
                plain.step()
            torch.testing.assert_close(p, reference, rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize("kernel", KERNELS)
@pytest.mark.parametrize(
    "options",
    [
        {"beta_min": None},
        {"beta_min": 0.3},
        {"beta_min": 0.3, "rule": "A4", "scope": "tensor"},
        {"beta_min": 0.3, "rule": "A6", "scope": "group"},
        {"beta_min": 0.3, "rule": "A7", "adapt_second": True},
    ],
)
def test_twenty_steps_are_ten_saved_and_loaded_and_ten_more_bit_for_bit(options, kernel):
    whole, first = parameters(), parameters()
    train(whole, APTAdamW(whole, **options, **kernel), range(20), lambda t, j: (t + j) % 4 == 0)
    optimizer = APTAdamW(first, **options, **kernel)
    train(first, optimizer, range(10), lambda t, j: (t + j) % 4 == 0)
    saved = copy.deepcopy(optimizer.state_dict())
    second = [Parameter(p.detach().clone()) for p in first]
    again = APTAdamW(second, **options, **kernel)
    again.load_state_dict(saved)
    train(first, optimizer, range(10, 20), lambda t, j: (t + j) % 4 == 0)
    train(second, again, range(10, 20), lambda t, j: (t + j) % 4 == 0)
    for p, q, r in zip(whole, first, second, strict=True):
        assert torch.equal(p, q)
        assert torch.equal(p, r)


def test_a_saved_state_is_not_changed_by_later_steps_of_its_reader():
    params = parameters()
    optimizer = APTAdamW(params, beta_min=0.3)
    train(params, optimizer, range(3))
    saved = optimizer.state_dict()
    weight = saved["param_groups"][0]["momentum_weight"]
    kept = weight.clone()
    train(params, optimizer, range(3, 5))
    assert torch.equal(weight, kept)


def test_bfloat16_parameters_resume_with_their_scalars_in_full_precision():
    first = parameters(torch.bfloat16)
    optimizer = APTAdamW(first, beta_min=0.3, scope="tensor")
    train(first, optimizer, range(5))
    second = [Parameter(p.detach().clone()) for p in first]
    again = APTAdamW(second, beta_min=0.3, scope="tensor")
    again.load_state_dict(copy.deepcopy(optimizer.state_dict()))
    train(first, optimizer, range(5, 10))
    train(second, again, range(5, 10))
    assert all(torch.equal(p, q) for p, q in zip(first, second, strict=True))


def test_the_state_of_torch_adamw_can_be_continued():
    theirs = parameters()
    plain = torch.optim.AdamW(theirs)
    train(theirs, plain, range(7))
    ours = [Parameter(p.detach().clone()) for p in theirs]
    optimizer = APTAdamW(ours, beta_min=0.9)
    optimizer.load_state_dict(copy.deepcopy(plain.state_dict()))
    assert optimizer.param_groups[0]["beta_min"] == 0.9
    train(theirs, plain, range(7, 14))
    train(ours, optimizer, range(7, 14))
    assert_alike(ours, theirs)


def test_a_beta_that_is_fixed_for_a_while_adapts_with_the_right_correction_afterwards():
    ours, theirs = parameters(), parameters()
    optimizer, plain = APTAdamW(ours, beta_min=0.9), torch.optim.AdamW(theirs)
    for beta_min, steps in ((0.9, range(4)), (None, range(4, 8)), (0.9, range(8, 12))):
        optimizer.param_groups[0]["beta_min"] = beta_min
        train(ours, optimizer, steps)
        train(theirs, plain, steps)
    assert_alike(ours, theirs)


def test_one_cosine_over_all_parameters_scales_with_no_loss():
    ours, theirs = parameters(torch.float64), parameters(torch.float64)
    one, two = APTAdamW(ours, beta_min=0.3, eps=0.0), APTAdamW(theirs, beta_min=0.3, eps=0.0)
    generator = torch.Generator().manual_seed(3)
    for _ in range(10):
        for p, q in zip(ours, theirs, strict=True):
            p.grad = torch.randn(p.shape, generator=generator, dtype=torch.float64)
            q.grad = 1e3 * p.grad
        one.step()
        two.step()
    assert_alike(ours, theirs, 1e-10)


@pytest.mark.parametrize("kernel", KERNELS)
@pytest.mark.parametrize("beta_min", [None, 0.5])
def test_a_parameter_without_a_gradient_does_not_move_and_nor_does_its_state(beta_min, kernel):
    params = parameters()
    optimizer = APTAdamW(params, beta_min=beta_min, **kernel)
    train(params, optimizer, range(3))
    before = copy.deepcopy((params[0].detach(), dict(optimizer.state[params[0]])))
    train(params, optimizer, range(3, 6), lambda t, j: j == 0)
    assert torch.equal(before[0], params[0])
    for name, value in before[1].items():
        assert torch.equal(value, optimizer.state[params[0]][name])
    fresh = APTAdamW(parameters(), beta_min=beta_min, **kernel)
    fresh.step()
    assert not fresh.state


def test_heads_can_keep_their_fixed_beta_beside_a_trunk_that_adapts():
    params, alone = parameters(), parameters()
    optimizer = APTAdamW([{"params": params[:2]}, {"params": params[2:], "beta_min": None}], beta_min=0.3)
    train(params, optimizer, range(8))
    train(alone, torch.optim.AdamW(alone), range(8))
    assert_alike(params[2:], alone[2:])
    assert not torch.allclose(params[0], alone[0], rtol=1e-4)
    assert "previous_gradient" not in optimizer.state[params[2]]


def test_a_group_can_be_added_while_training_and_joins_the_cosine():
    params = parameters()
    optimizer = APTAdamW(params[:2], beta_min=0.3)
    train(params[:2], optimizer, range(4))
    optimizer.add_param_group({"params": params[2:], "lr": 0.1})
    train(params, optimizer, range(4, 9))
    first, second = (group["beta"] for group in optimizer.param_groups)
    assert float(first[0]) == float(second[1])
    assert 0.3 <= float(first[0]) <= 0.9


def test_schedulers_drive_lr_and_beta():
    ours, theirs = parameters(), parameters()
    one, two = APTAdamW(ours, beta_min=0.3), torch.optim.AdamW(theirs)
    schedules = [torch.optim.lr_scheduler.OneCycleLR(x, max_lr=0.01, total_steps=12) for x in (one, two)]
    for t in range(12):
        train(ours, one, range(t, t + 1))
        train(theirs, two, range(t, t + 1))
        assert one.param_groups[0]["betas"] == two.param_groups[0]["betas"]
        beta, top = float(one.param_groups[0]["beta"][0]), one.param_groups[0]["betas"][0]
        assert beta == pytest.approx(top - (top - 0.3) * (1 - float(one.param_groups[0]["cosine"][0])) / 2)
        for schedule in schedules[: 2 if t < 11 else 0]:
            schedule.step()


def test_a_learning_rate_in_a_tensor_is_read_at_every_step():
    ours, theirs = parameters(), parameters()
    lr = torch.tensor(1e-2)
    one = APTAdamW(ours, lr=lr, beta_min=0.3)
    two = APTAdamW(theirs, lr=1e-2, beta_min=0.3)
    train(ours, one, range(3))
    train(theirs, two, range(3))
    lr.fill_(1e-3)
    two.param_groups[0]["lr"] = 1e-3
    train(ours, one, range(3, 6))
    train(theirs, two, range(3, 6))
    assert_alike(ours, theirs)


def test_grad_scaler_unscales_before_the_cosine_and_skips_a_step_that_overflows():
    p, q = (Parameter(torch.ones(3)) for _ in range(2))
    one, two = APTAdamW([p], beta_min=0.3, lr=0.1), APTAdamW([q], beta_min=0.3, lr=0.1)
    scaler = torch.amp.GradScaler("cpu", init_scale=1024.0)
    for factor in (1.0, -1.0, math.inf, 2.0):
        row = torch.tensor([factor, 1.0, 2.0])
        one.zero_grad()
        scaler.scale((p * row).sum()).backward()
        before = p.detach().clone()
        scaler.step(one)
        scaler.update()
        if factor == math.inf:
            assert torch.equal(p, before)
        else:
            q.grad = row
            two.step()
        torch.testing.assert_close(p, q)
        assert torch.equal(one.param_groups[0]["beta"], two.param_groups[0]["beta"])


def test_a_closure_is_called_once_with_gradients_on_and_its_loss_returned():
    p, calls = Parameter(torch.tensor([3.0])), []
    optimizer = APTAdamW([p], beta_min=0.5)

    def closure() -> Tensor:
        optimizer.zero_grad(set_to_none=True)
        loss = (p**2).sum()
        loss.backward()
        calls.append(loss)
        return loss

    assert float(optimizer.step(closure).detach()) == 9.0
    assert len(calls) == 1
    optimizer.zero_grad()
    assert p.grad is None


def test_hooks_of_steps_and_states_are_called():
    params, seen = parameters(), []
    optimizer = APTAdamW(params, beta_min=0.5)
    optimizer.register_step_pre_hook(lambda *_: seen.append("before"))
    optimizer.register_step_post_hook(lambda *_: seen.append("after"))
    optimizer.register_state_dict_post_hook(lambda *_: seen.append("saved"))
    train(params, optimizer, range(1))
    optimizer.state_dict()
    assert seen == ["before", "after", "saved"]


@pytest.mark.parametrize("copied", [copy.deepcopy, lambda x: pickle.loads(pickle.dumps(x))])
def test_a_copied_optimizer_steps_as_the_original(copied):
    params = parameters()
    optimizer = APTAdamW(params, beta_min=0.5)
    train(params, optimizer, range(3))
    twin = copied(optimizer)
    train(params, optimizer, range(3, 6))
    train(twin.param_groups[0]["params"], twin, range(3, 6))
    assert all(torch.equal(p, q) for p, q in zip(params, twin.param_groups[0]["params"], strict=True))


def test_named_parameters_are_kept_and_named_in_errors():
    model = torch.nn.Linear(3, 2)
    optimizer = APTAdamW(model.named_parameters(), beta_min=0.5)
    assert optimizer.param_groups[0]["param_names"] == ["weight", "bias"]
    model.weight.grad = torch.zeros(2, 3).to_sparse()
    with pytest.raises(TypeError, match="the gradient of parameter 'weight' is sparse"):
        optimizer.step()


@pytest.mark.parametrize(
    ("p", "kind"), [(torch.zeros(3, dtype=torch.complex64), "complex"), (torch.eye(2).to_sparse(), "sparse")]
)
def test_complex_and_sparse_parameters_are_refused_by_name_and_the_optimizer_stays_as_it_was(p, kind):
    with pytest.raises(TypeError, match=f"parameter 1 of its group .* is {kind}"):
        APTAdamW([Parameter(torch.zeros(2)), Parameter(p)])
    optimizer = APTAdamW([("a", Parameter(torch.zeros(2)))])
    with pytest.raises(TypeError, match=f"parameter 'b' is {kind}"):
        optimizer.add_param_group({"params": [("b", Parameter(p))]})
    assert len(optimizer.param_groups) == 1


@pytest.mark.parametrize("bad", [math.nan, math.inf])
def test_a_gradient_that_is_not_finite_acts_as_in_torch_and_never_on_beta(bad):
    ours, theirs = ([Parameter(torch.ones(2)), Parameter(torch.ones(2))] for _ in range(2))
    one, two = APTAdamW(ours, beta_min=0.5), torch.optim.AdamW(theirs)
    for d in (1.0, bad, 1.0, 1.0):
        for p in ours + theirs:
            p.grad = torch.tensor([1.0, 1.0])
        ours[1].grad = torch.tensor([d, 1.0])
        theirs[1].grad = torch.tensor([d, 1.0])
        one.step()
        two.step()
        assert one.param_groups[0]["beta"].isfinite().all()
    assert_alike(ours[:1], theirs[:1])
    assert torch.equal(ours[1].isfinite(), theirs[1].isfinite())


def test_a_learning_rate_in_a_tensor_never_leaves_the_device_either():
    for make in (APTAdamW, APTSGD):
        params = parameters()
        optimizer = make(params, lr=0.1, beta_min=0.5, foreach=True)
        with FakeTensorMode(allow_non_fake_inputs=True):
            optimizer.param_groups[0]["lr"] = torch.tensor(0.1) * torch.rand(())
            for p in params:
                p.grad = torch.randn(p.shape)
            optimizer.step()


@pytest.mark.parametrize("make", [APTAdamW, APTSGD])
@pytest.mark.parametrize("options", [{}, {"rule": "A7"}, {"scope": "tensor"}, {"reference": "momentum"}])
def test_beta_never_leaves_the_device_in_the_plain_operations(make, options):
    with FakeTensorMode():  # tensors without values: reading one raises
        params = [Parameter(torch.randn(shape)) for shape in SHAPES]
        optimizer = make(params, beta_min=0.5, foreach=True, **options)
        for _ in range(3):
            for p in params:
                p.grad = torch.randn(p.shape)
            optimizer.step()
        with pytest.raises(DataDependentOutputException):
            float(optimizer.param_groups[0]["beta"][0])


def test_the_momentum_reference_needs_no_buffer_and_the_previous_gradient_one():
    def numbers(**options: Any) -> float:
        params = parameters()
        optimizer = APTAdamW(params, **options)
        train(params, optimizer, range(2))
        held = sum(x.numel() for s in optimizer.state.values() for name, x in s.items() if name != "step")
        return held / sum(p.numel() for p in params)

    assert numbers() == numbers(beta_min=0.5, reference="momentum") == 2
    assert numbers(beta_min=0.5) == numbers(beta_min=0.5, rule="A7") == 3


def test_it_minimises_a_quadratic_and_follows_a_target_that_jumps_faster_than_a_fixed_beta():
    def regret(beta_min: float | None) -> float:
        p, total = Parameter(torch.zeros(10)), 0.0
        optimizer = APTAdamW([p], lr=0.05, beta_min=beta_min, weight_decay=0.0, betas=(0.95, 0.999))
        for t in range(400):
            target = 1.0 if t // 100 % 2 else -1.0
            optimizer.zero_grad()
            loss = ((p - target) ** 2).sum()
            loss.backward()
            optimizer.step()
            total += float(loss.detach())
        return total

    assert regret(0.0) < regret(None)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"lr": -1.0}, "lr"),
        ({"eps": -1.0}, "eps"),
        ({"weight_decay": math.nan}, "weight_decay"),
        ({"betas": (1.0, 0.9)}, "momentum coefficient"),
        ({"betas": (0.9, 1.0)}, "betas"),
        ({"beta_min": 0.95}, "beta_min"),
        ({"rule": "A8"}, "rule"),
        ({"fused": True, "foreach": True}, "fused and foreach"),
    ],
)
def test_an_option_out_of_range_is_refused_by_name(options, message):
    with pytest.raises(ValueError, match=message):
        APTAdamW(parameters(), **options)
