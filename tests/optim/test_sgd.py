import copy

import pytest
import torch
from torch.nn import Parameter

from motet.optim import APTSGD

SHAPES = ((4, 3), (5,), ())


def parameters() -> list[Parameter]:
    generator = torch.Generator().manual_seed(0)
    return [Parameter(torch.randn(shape, generator=generator)) for shape in SHAPES]


def train(params: list[Parameter], optimizer: torch.optim.Optimizer, steps: range) -> None:
    for t in steps:
        generator = torch.Generator().manual_seed(t)
        for j, p in enumerate(params):
            d = torch.randn(p.shape, generator=generator)
            p.grad = None if (t + j) % 4 == 3 else d
        optimizer.step()


@pytest.mark.parametrize("kernel", [{}, {"foreach": True}, {"fused": False}])
@pytest.mark.parametrize(
    "options", [{}, {"beta_min": 0.9}, {"beta_min": 0.9, "rule": "A7"}, {"weight_decay": 0.1, "maximize": True}]
)
def test_a_fixed_beta_is_torch_sgd_with_its_dampening(options, kernel):
    plain = {name: value for name, value in options.items() if name in ("weight_decay", "maximize")}
    ours, theirs = parameters(), parameters()
    train(ours, APTSGD(ours, lr=0.1, **options, **kernel), range(20))
    train(theirs, torch.optim.SGD(theirs, lr=0.1, momentum=0.9, dampening=0.9, **plain), range(20))
    for p, q in zip(ours, theirs, strict=True):
        torch.testing.assert_close(p, q, rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize("kernel", [{}, {"foreach": True}])
def test_three_steps_by_hand(kernel):
    p = Parameter(torch.tensor([1.0, 1.0], dtype=torch.float64))
    optimizer = APTSGD([p], lr=0.5, momentum=0.8, beta_min=0.2, rule="A2", weight_decay=0.1, **kernel)
    theta = torch.tensor([1.0, 1.0], dtype=torch.float64)
    m = None
    # (1, 0), then at a right angle (β_min), then at cosine 0.6
    for gradient, beta in (([1.0, 0.0], None), ([0.0, 2.0], 0.2), ([0.8, 0.6], 0.2 + 0.6 * 0.6)):
        p.grad = torch.tensor(gradient, dtype=torch.float64)
        d = p.grad + 0.1 * theta
        m = d if beta is None else beta * m + (1 - beta) * d
        theta = theta - 0.5 * m
        optimizer.step()
        torch.testing.assert_close(p.data, theta)
    assert float(optimizer.param_groups[0]["momentum_weight"]) == 1.0


@pytest.mark.parametrize("kernel", [{}, {"foreach": True}])
@pytest.mark.parametrize("options", [{}, {"rule": "A4", "scope": "tensor"}, {"rule": "A6"}, {"rule": "A7"}])
def test_twenty_steps_are_ten_saved_and_loaded_and_ten_more_bit_for_bit(options, kernel):
    whole, first = parameters(), parameters()
    train(whole, APTSGD(whole, beta_min=0.3, **options, **kernel), range(20))
    optimizer = APTSGD(first, beta_min=0.3, **options, **kernel)
    train(first, optimizer, range(10))
    again = APTSGD(first, beta_min=0.3, **options, **kernel)
    again.load_state_dict(copy.deepcopy(optimizer.state_dict()))
    train(first, again, range(10, 20))
    assert all(torch.equal(p, q) for p, q in zip(whole, first, strict=True))


def test_a_copied_optimizer_still_starts_from_the_first_gradient():
    params = parameters()
    twin = copy.deepcopy(APTSGD(params, beta_min=0.3, lr=1.0))
    copies = twin.param_groups[0]["params"]
    before = copies[0].detach().clone()
    train(copies, twin, range(1))
    torch.testing.assert_close(before - copies[0], copies[0].grad)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"lr": -0.1}, "lr"),
        ({"momentum": 1.0}, "momentum"),
        ({"beta_min": 0.95}, "beta_min"),
        ({"weight_decay": -1.0}, "weight_decay"),
        ({"fused": True, "foreach": True}, "fused"),
    ],
)
def test_an_option_out_of_range_is_refused_by_name(options, message):
    with pytest.raises(ValueError, match=message):
        APTSGD(parameters(), **options)


def test_sparse_gradients_are_refused_by_name():
    p = Parameter(torch.eye(2))
    optimizer = APTSGD([("table", p)], beta_min=0.5)
    p.grad = torch.eye(2).to_sparse()
    with pytest.raises(TypeError, match="the gradient of parameter 'table' is sparse"):
        optimizer.step()
