"""What every method in the registry promises."""

import logging

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor
from torch.testing import assert_close

from motet import methods
from motet.linalg import combine
from tests.matrices import FULL_RANK, jacobian, jacobians

NAMES = methods.available()
NEEDS = {name: methods.get(name).needs for name in NAMES}
ON_LOSSES = [name for name in NAMES if NEEDS[name] == "losses"]
ON_GRADIENTS = [name for name in NAMES if NEEDS[name] != "losses"]
RANDOM = ["rlw", "pcgrad", "grad-drop"]
SHORT = {"stch": {"warmup": 3}, "dwa": {"window": 2}, "db-mtl": {"beta": 0.9}}
"""Options under which all of a method's state is in use after a few steps."""
STATEFUL = ["uw", "dwa", "imtl-l", "famo", "stch", "db-mtl"]

NO_CONFLICT = [
    ("upgrad", {}),
    ("dual-proj", {}),
    ("mgda", {}),
    ("cagrad", {"c": 1.0}),
    ("cagrad", {"c": 2.0}),
    ("nash-mtl", {}),
    ("fair-grad", {}),
]

SCALE = {
    "sum": 1, "si": 0, "gls": 1, "uw": 1, "dwa": 1, "rlw": 1, "imtl-l": 1, "famo": 1, "stch": 0,
    "mgda": 1, "pcgrad": 1, "cagrad": 1, "imtl-g": 1, "nash-mtl": 0, "fair-grad": -1 / 3, "aligned-mtl": 1,
    "upgrad": 1, "dual-proj": 1, "db-mtl": 0, "grad-drop": 1,
}  # fmt: skip
"""The first update when all losses are multiplied by c is c to this power times what it was."""

FREE_OF_ONE_SCALE = ["si", "gls", "stch", "nash-mtl", "db-mtl"]
"""The first update keeps its direction when one loss is multiplied by c."""


def update(method: methods.Method, losses: Tensor, rows: Tensor) -> Tensor:
    """The update of the trunk, as a Balancer makes it: rows are the gradients of the losses."""
    if isinstance(method, methods.LossMethod):
        return combine(method.weights(losses), rows)
    assert isinstance(method, methods.GramMethod | methods.JacobianMethod)
    factors = method.loss_weights(losses)
    return method.direction(rows if factors is None else factors[:, None] * rows)


def make(name: str, **options: object) -> methods.Method:
    if name in RANDOM:
        options["generator"] = torch.Generator().manual_seed(0)
    return methods.get(name, **options)


def some_losses(count: int, seed: int = 0) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.rand(count, generator=generator, dtype=torch.float64) + 0.1


@pytest.mark.parametrize("name", ON_GRADIENTS)
@given(matrix=jacobians())
def test_any_jacobian_gives_a_finite_direction(name, matrix):
    direction = make(name).direction(matrix)
    assert direction.shape == matrix.shape[1:]
    assert direction.isfinite().all()


@pytest.mark.parametrize("name", ON_GRADIENTS)
@pytest.mark.parametrize("kind", [*FULL_RANK, "duplicates", "opposites", "zero-rows", "stationary", "all-zero"])
def test_float32_jacobians_keep_their_dtype(name, kind):
    direction = make(name).direction(jacobian(kind, 6, 0).float())
    assert direction.dtype == torch.float32
    assert direction.isfinite().all()


@pytest.mark.parametrize("name", ON_LOSSES)
@given(exponents=st.lists(st.floats(-12, 12), min_size=1, max_size=5))
def test_losses_of_any_size_give_finite_weights(name, exponents):
    losses = 10 ** torch.tensor(exponents, dtype=torch.float64)
    method = make(name)
    for _ in range(3):
        weights = method.weights(losses)
        assert weights.shape == losses.shape
        assert weights.isfinite().all()
        assert (weights >= 0).all()
        method.update(losses * 0.9)


@pytest.mark.parametrize("name", NAMES)
def test_one_task_alone_is_followed(name):
    rows = torch.tensor([[3.0, -4.0]], dtype=torch.float64)
    direction = update(make(name), torch.tensor([2.0]), rows)
    assert_close(direction / direction.norm(), rows[0] / 5)


@pytest.mark.parametrize("name", ON_GRADIENTS)
def test_no_gradient_at_all_gives_no_update(name):
    method = make(name)
    assert (method.direction(torch.zeros(3, 5)) == 0).all()
    if isinstance(method, methods.GramMethod):
        assert method.weights(torch.zeros(3, 3)).isfinite().all()


@pytest.mark.parametrize("name", [name for name in NAMES if name not in RANDOM])
@given(matrix=jacobians(full_rank=True), seed=st.integers(0, 100))
def test_the_order_of_the_tasks_does_not_matter(name, matrix, seed):
    losses = some_losses(len(matrix), seed)
    order = torch.randperm(len(matrix), generator=torch.Generator().manual_seed(seed))
    expected = update(make(name), losses, matrix)
    permuted = update(make(name), losses[order], matrix[order])
    assert_close(permuted, expected, rtol=1e-6, atol=1e-7 * float(expected.norm()))


@pytest.mark.parametrize(("name", "options"), NO_CONFLICT)
@given(matrix=jacobians(full_rank=True))
def test_no_task_loses(name, options, matrix):
    direction = make(name, **options).direction(matrix)
    cosines = matrix @ direction / (matrix.norm(dim=1) * direction.norm())
    assert cosines.min() >= -1e-6


@pytest.mark.parametrize(("name", "options"), NO_CONFLICT[:5])
@given(matrix=jacobians())
def test_no_task_loses_even_on_degenerate_jacobians(name, options, matrix):
    """Up to rounding of the terms that cancel; Nash-MTL and FairGrad have no solution on some of these."""
    method = make(name, **options)
    weights = method.weights(matrix @ matrix.T)
    norms = matrix.norm(dim=1)
    unit = matrix / torch.where(norms > 0, norms, 1.0)[:, None]
    assert (unit @ (weights @ matrix)).min() >= -1e-7 * (weights.abs() * norms).max()


@pytest.mark.parametrize("name", ["upgrad", "dual-proj"])
@pytest.mark.parametrize("ratio", [1e-1, 1e-2, 1e-3, 1e-6])
def test_a_task_with_a_tiny_gradient_is_not_run_over(name, ratio):
    rows = torch.tensor([[1.0, 0.0], [-0.5, 0.75**0.5]])
    rows[1] *= ratio
    direction = methods.get(name).direction(rows)
    assert rows[1] @ direction / (rows[1].norm() * direction.norm()) >= -1e-6
    assert rows[0] @ direction > 0


def test_every_method_declares_its_scale():
    assert set(SCALE) == set(NAMES)


@pytest.mark.parametrize("factor", [1e-12, 1e-6, 1e3, 1e12])
@pytest.mark.parametrize("name", NAMES)
@given(matrix=jacobians(full_rank=True))
def test_the_scale_of_all_losses_has_the_declared_effect(name, factor, matrix):
    losses = some_losses(len(matrix))
    expected = update(make(name), losses, matrix) * factor ** SCALE[name]
    actual = update(make(name), losses * factor, matrix * factor)
    assert_close(actual, expected, rtol=1e-6, atol=1e-7 * float(expected.norm()))


@pytest.mark.parametrize("factor", [1e-3, 1e2])
@pytest.mark.parametrize("name", FREE_OF_ONE_SCALE)
@given(matrix=jacobians(full_rank=True, kinds=("weak", "strong")))
def test_the_scale_of_one_loss_leaves_the_direction(name, factor, matrix):
    losses = some_losses(len(matrix))
    factors = torch.ones_like(losses)
    factors[0] = factor
    before = update(make(name), losses, matrix)
    after = update(make(name), losses * factors, matrix * factors[:, None])
    assert_close(after / after.norm(), before / before.norm(), rtol=1e-6, atol=1e-7)


@pytest.mark.parametrize("name", NAMES)
def test_training_goes_on_bit_for_bit_from_a_saved_state(name):
    def steps(method: methods.Method, first: int, last: int) -> list[Tensor]:
        updates = []
        for step in range(first, last):
            losses = some_losses(4, step)
            updates.append(update(method, losses, jacobian("strong", 4, step)))
            method.update(losses * some_losses(4, 100 + step))
        return updates

    options = SHORT.get(name, {})
    uninterrupted = methods.get(name, **options)
    steps(uninterrupted, 0, 7)
    state = uninterrupted.state_dict()
    assert all(isinstance(value, Tensor) for value in state.values())
    resumed = methods.get(name, **options)
    resumed.load_state_dict(state)
    for expected, actual in zip(steps(uninterrupted, 7, 12), steps(resumed, 7, 12), strict=True):
        assert torch.equal(actual, expected)


@pytest.mark.parametrize("name", STATEFUL)
def test_an_absent_task_keeps_its_state(name):
    method = make(name, **SHORT.get(name, {}))
    for step in range(5):
        update(method, some_losses(3, step), jacobian("strong", 3, step))
        method.update(some_losses(3, 50 + step))
    before = method.state_dict()
    with method.on_tasks(torch.tensor([0, 2]), 3):
        update(method, some_losses(2), jacobian("strong", 3, 9)[[0, 2]])
        method.update(some_losses(2, 60))
    after = method.state_dict()
    assert before
    assert any(not torch.equal(after[key], before[key]) for key in before)
    for key in before:
        assert torch.equal(after[key][1], before[key][1]), key


@pytest.mark.parametrize("name", [name for name in NAMES if name not in [*STATEFUL, *RANDOM]])
def test_methods_without_state_have_none(name):
    method = methods.get(name)
    update(method, some_losses(3), jacobian("weak", 3, 0))
    assert method.state_dict() == {}


@pytest.mark.parametrize("name", [name for name in STATEFUL if name != "db-mtl"])
def test_a_changed_number_of_tasks_is_an_error_that_says_what_to_do(name):
    method = make(name)
    method.weights(some_losses(3))
    with pytest.raises(ValueError, match="3 tasks and was given 2.*Balancer"):
        method.weights(some_losses(2))


@pytest.mark.parametrize("name", RANDOM)
def test_random_methods_draw_from_their_generator(name):
    def run(seed: int) -> Tensor:
        method = methods.get(name, generator=torch.Generator().manual_seed(seed))
        return torch.stack([update(method, some_losses(5), jacobian("strong", 5, 0)) for _ in range(3)])

    assert torch.equal(run(1), run(1))
    assert not torch.equal(run(1), run(2))


@pytest.mark.parametrize("name", RANDOM)
def test_random_methods_do_not_shift_the_draws_of_others(name):
    torch.manual_seed(3)
    expected = torch.rand(2)
    torch.manual_seed(3)
    update(methods.get(name), some_losses(5), jacobian("strong", 5, 0))
    assert torch.equal(torch.rand(2), expected)


@pytest.mark.parametrize("name", NAMES)
def test_weights_carry_no_graph(name):
    method, losses = make(name), some_losses(3).requires_grad_()
    if isinstance(method, methods.LossMethod):
        assert not method.weights(losses).requires_grad
    elif isinstance(method, methods.GramMethod):
        factors = method.loss_weights(losses)
        assert factors is None or not factors.requires_grad
        assert not method.weights(torch.eye(3).requires_grad_()).requires_grad


@pytest.mark.parametrize("name", [name for name in NAMES if methods.get(name).lower_bound is not None])
@pytest.mark.parametrize("bad", [0.0, -1.0, float("nan")])
def test_a_loss_that_is_not_above_the_bound_is_named(name, bad):
    method = make(name)
    ask = method.weights if isinstance(method, methods.LossMethod) else method.loss_weights
    with pytest.raises(ValueError, match="above 0; loss 1 is"):
        ask(torch.tensor([1.0, bad, 1.0]))


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
    assert_close(update(methods.Sum(), some_losses(4), rows), rows.sum(0))


def test_no_method_logs_where_nothing_is_wrong(caplog):
    with caplog.at_level(logging.INFO, logger="motet"):
        for name in NAMES:
            method = make(name)
            update(method, some_losses(3), jacobian("weak", 3, 0))
            method.update(some_losses(3))
    assert not caplog.records
