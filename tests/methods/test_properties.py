"""What every method in the registry promises, beyond the fixed inputs of the public check: on drawn ones.

A new method needs no line here: what it promises is what it declares.
"""

import logging

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor
from torch.testing import assert_close

from motet import methods
from motet.testing.steps import ask, scaled_losses, some_losses, step
from tests.matrices import jacobian, jacobians

NAMES = methods.available()
MADE = {name: methods.get(name) for name in NAMES}
ON_LOSSES = [name for name in NAMES if MADE[name].needs == "losses"]
ON_GRADIENTS = [name for name in NAMES if MADE[name].needs != "losses"]
RANDOM = [name for name in NAMES if MADE[name].generator is not None]
BOUNDED = [name for name in NAMES if MADE[name].lower_bound is not None]
SCALED = [name for name in NAMES if MADE[name].scale is not None]
NO_CONFLICT = [
    *((name, {}) for name in NAMES if MADE[name].no_conflict),
    ("cagrad", {"c": 1.0}),
    ("cagrad", {"c": 2.0}),
]

FREE_OF_ONE_SCALE = ["si", "gls", "stch", "nash-mtl", "db-mtl"]
"""Their docstrings say so: the first update keeps its direction when one loss is multiplied by c."""
NEGATIVE = ["cosmos", "pbi"]
"""On losses, and with weights below zero: their docstrings say so."""


def make(name: str, **options: object) -> methods.Method:
    if name in RANDOM:
        options["generator"] = torch.Generator().manual_seed(0)
    return methods.get(name, **options)


def with_state() -> list[str]:
    """Methods that remember a row a task from the first step on."""
    found = []
    for name in NAMES:
        method = make(name)
        step(method, some_losses(method, 3), jacobian("weak", 3, 0))
        if any(len(value) == 3 for key, value in method.state_dict().items() if key != "generator" and value.dim()):
            found.append(name)
    return found


@pytest.mark.parametrize("name", ON_GRADIENTS)
@settings(max_examples=10)
@given(matrix=jacobians(), seed=st.integers(0, 100))
def test_any_jacobian_gives_a_finite_direction(name, matrix, seed):
    method = make(name)
    for _ in range(2):
        direction = step(method, some_losses(method, len(matrix), seed), matrix)
        assert direction.shape == matrix.shape[1:]
        assert direction.isfinite().all()


@pytest.mark.parametrize("name", ON_LOSSES)
@given(exponents=st.lists(st.floats(-12, 12), min_size=1, max_size=5))
def test_losses_of_any_size_give_finite_weights(name, exponents):
    losses = 10 ** torch.tensor(exponents, dtype=torch.float64)
    method = make(name)
    for _ in range(3):
        weights = ask(method, losses, torch.eye(len(losses), dtype=torch.float64))
        assert weights.isfinite().all()
        assert (weights >= 0).all() or name in NEGATIVE
        method.update(losses * 0.9)


@pytest.mark.parametrize("name", NAMES)
def test_one_task_alone_is_followed(name):
    rows = torch.tensor([[3.0, -4.0]], dtype=torch.float64)
    direction = ask(make(name), torch.tensor([2.0], dtype=torch.float64), rows)
    assert_close(direction / direction.norm(), rows[0] / 5)


@pytest.mark.parametrize("name", ON_GRADIENTS)
def test_no_gradient_at_all_gives_no_update(name):
    assert (make(name).direction(torch.zeros(3, 5)) == 0).all()


@pytest.mark.parametrize(("name", "options"), NO_CONFLICT)
@given(matrix=jacobians(full_rank=True))
def test_no_task_loses(name, options, matrix):
    method = make(name, **options)
    direction = ask(method, some_losses(method, len(matrix)), matrix)
    cosines = matrix @ direction / (matrix.norm(dim=1) * direction.norm())
    assert cosines.min() >= -1e-6


@pytest.mark.parametrize(("name", "options"), NO_CONFLICT)
@given(matrix=jacobians())
def test_no_task_loses_on_degenerate_jacobians_either_where_there_is_a_solution(name, options, matrix):
    """Up to rounding of the terms that cancel; Nash-MTL and FairGrad have no solution on some of these."""
    method = make(name, **options)
    if method.needs != "gram":
        return
    weights = method.weights(matrix @ matrix.T)
    norms = matrix.norm(dim=1)
    unit = matrix / torch.where(norms > 0, norms, 1.0)[:, None]
    lost = (unit @ (weights @ matrix)).min() < -1e-7 * (weights.abs() * norms).max()
    assert not (lost and method.converged)


@pytest.mark.parametrize("name", ["upgrad", "dual-proj", "mgda", "cagrad"])
@settings(max_examples=40)
@given(matrix=jacobians())
def test_there_is_always_a_solution(name, matrix):
    method = make(name)
    method.weights(matrix @ matrix.T)
    assert method.converged


@pytest.mark.parametrize("name", ["upgrad", "dual-proj"])
@pytest.mark.parametrize("ratio", [1e-1, 1e-2, 1e-3, 1e-6])
def test_a_task_with_a_tiny_gradient_is_not_run_over(name, ratio):
    rows = torch.tensor([[1.0, 0.0], [-0.5, 0.75**0.5]])
    rows[1] *= ratio
    direction = methods.get(name).direction(rows)
    assert rows[1] @ direction / (rows[1].norm() * direction.norm()) >= -1e-6
    assert rows[0] @ direction > 0


@pytest.mark.parametrize("factor", [1e-12, 1e12])
@pytest.mark.parametrize("name", SCALED)
def test_the_declared_scale_holds_at_the_ends_of_what_losses_may_be(name, factor):
    for kind in ("weak", "scaled-strong"):
        method, other, rows = make(name), make(name), jacobian(kind, 4, 0)
        losses = some_losses(method, 4)
        expected = ask(method, losses, rows) * factor**method.scale
        actual = ask(other, scaled_losses(other, losses, factor), rows * factor)
        assert_close(actual, expected, rtol=1e-6, atol=1e-7 * float(expected.norm()))


@pytest.mark.parametrize("factor", [1e-3, 1e2])
@pytest.mark.parametrize("name", FREE_OF_ONE_SCALE)
@given(matrix=jacobians(full_rank=True, kinds=("weak", "strong")))
def test_the_scale_of_one_loss_leaves_the_direction(name, factor, matrix):
    method = make(name)
    losses = some_losses(method, len(matrix))
    factors = torch.ones_like(losses)
    factors[0] = factor
    before = ask(method, losses, matrix)
    after = ask(make(name), losses * factors, matrix * factors[:, None])
    assert_close(after / after.norm(), before / before.norm(), rtol=1e-6, atol=1e-7)


@pytest.mark.parametrize("name", with_state())
def test_a_changed_number_of_tasks_is_an_error_that_says_what_to_do(name):
    method = make(name)
    ask(method, some_losses(method, 3), jacobian("weak", 3, 0))
    with pytest.raises(ValueError, match="3 tasks and was given 2.*Balancer"):
        ask(method, some_losses(method, 2), jacobian("weak", 3, 0)[:2])


@pytest.mark.parametrize("name", RANDOM)
def test_random_methods_draw_from_their_generator(name):
    def run(seed: int) -> Tensor:
        method = methods.get(name, generator=torch.Generator().manual_seed(seed))
        return torch.stack([step(method, some_losses(method), jacobian("strong", 5, n)) for n in range(3)])

    assert torch.equal(run(1), run(1))
    assert not torch.equal(run(1), run(2))


@pytest.mark.parametrize("name", BOUNDED)
def test_a_loss_that_is_no_number_is_named_where_there_is_a_bound(name):
    with pytest.raises(ValueError, match="above 0; loss 1 is"):
        ask(make(name), torch.tensor([1.0, torch.nan, 1.0]), jacobian("weak", 3, 0))


@pytest.mark.parametrize(
    ("name", "options"),
    [
        ("uw", {"lr": -1.0}),
        ("imtl-l", {"lr": -1.0}),
        ("dwa", {"temperature": 0.0}),
        ("dwa", {"window": 0}),
        ("famo", {"gamma": -1.0}),
        ("stch", {"mu": 0.0}),
        ("stch", {"warmup": 0}),
        ("cagrad", {"c": -0.1}),
        ("nash-mtl", {"max_norm": 0.0}),
        ("fair-grad", {"alpha": 0.0}),
        ("db-mtl", {"beta": 1.0}),
    ],
)
def test_an_option_out_of_range_is_named(name, options):
    (option,) = options
    with pytest.raises(ValueError, match=option):
        methods.get(name, **options)


def test_equal_weights_are_the_plain_sum():
    rows = jacobian("weak", 4, 0)
    assert_close(ask(methods.Sum(), torch.rand(4), rows), rows.sum(0))


@pytest.mark.parametrize("name", NAMES)
def test_no_method_logs_where_nothing_is_wrong(name, caplog):
    with caplog.at_level(logging.INFO, logger="motet"):
        method = make(name)
        ask(method, some_losses(method, 3), jacobian("weak", 3, 0))
    assert not caplog.records
