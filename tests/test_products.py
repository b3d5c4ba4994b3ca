"""A Gram matrix learned from products: exact where it rests, and never far from being one."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor
from torch.testing import assert_close

from motet.methods import MGDA, CAGrad, FairGrad, NashMTL, UPGrad
from motet.solvers.products import ProductGram
from tests.matrices import jacobian, jacobians

METHODS = {"mgda": MGDA, "cagrad": CAGrad, "upgrad": UPGrad, "fair-grad": FairGrad, "nash-mtl": NashMTL}


def gram(tasks: int, seed: int, conflict: float = 0.7, spread: float = 1.0) -> Tensor:
    """Two opposed groups of tasks with log-normal norms."""
    generator = torch.Generator().manual_seed(seed)
    rows = torch.randn(tasks, 400, generator=generator, dtype=torch.float64)
    rows += (
        conflict * torch.randn(400, generator=generator, dtype=torch.float64) * ((-1.0) ** torch.arange(tasks))[:, None]
    )
    rows *= (spread * torch.randn(tasks, 1, generator=generator, dtype=torch.float64)).exp()
    return rows @ rows.T / 400


def cosine(G: Tensor, a: Tensor, b: Tensor) -> float:
    return float(a @ G @ b / ((a @ G @ a) * (b @ G @ b)).sqrt())


def begun(tasks: int) -> ProductGram:
    estimate = ProductGram()
    estimate.begin(torch.arange(tasks), tasks)
    return estimate


def search(G: Tensor, method: type, products: int) -> Tensor:
    """Products of one step, then the weights."""
    estimate = begun(len(G))
    for _ in range(products):
        v = estimate.next_probe(method().weights(estimate.gram()))
        if v is None:
            break
        estimate.update(v, G @ v)
    return method().weights(estimate.gram())


def train(G: Tensor, method: type, products: int) -> Tensor:
    """One product a step along the weights, always of one and the same G."""
    estimate = ProductGram()
    for _ in range(products):
        estimate.begin(torch.arange(len(G)), len(G))
        w = method().weights(estimate.gram())
        estimate.update(w, G @ w)
    return method().weights(estimate.gram())


@pytest.mark.parametrize("seed", [0, 1])
@pytest.mark.parametrize("method", METHODS)
def test_fifty_products_in_one_step_give_the_exact_methods_direction(method, seed):
    G = gram(40, seed)
    assert cosine(G, search(G, METHODS[method], 50), METHODS[method]().weights(G)) > 0.9999


@pytest.mark.parametrize("method", ["mgda", "fair-grad", "nash-mtl"])
def test_weights_that_depend_on_the_product_alone_come_to_rest_at_the_exact_ones(method):
    G = gram(40, 2)
    assert cosine(G, train(G, METHODS[method], 50), METHODS[method]().weights(G)) > 0.985
    assert cosine(G, train(G, METHODS[method], 200), METHODS[method]().weights(G)) > 0.999


def test_nash_mtls_equation_holds_after_twenty_products():
    for seed in range(3):
        G = gram(40, seed, conflict=0.3)
        w = search(G, NashMTL, 20)
        assert float((w * (G @ w) - 1).square().mean().sqrt()) < 1e-3


@given(jacobians(tasks=(2, 6)), st.integers(0, 9))
def test_what_was_learned_last_holds_and_the_estimate_is_positive_semidefinite(rows, seed):
    generator = torch.Generator().manual_seed(seed)
    G, estimate = rows @ rows.T, begun(len(rows))
    for _ in range(4):
        v = torch.rand(len(G), generator=generator, dtype=torch.float64) + 0.1
        t = G @ v
        estimate.begin(torch.arange(len(G)), len(G))
        estimate.update(v, t)
        found = estimate.gram()
        assert found.isfinite().all()
        assert_close(found, found.T, rtol=1e-9, atol=1e-12 * float(found.abs().max()))
        assert torch.linalg.eigvalsh(found)[0] >= -1e-9 * found.diagonal().sum()
        if v @ t > 1e-5 * (v * t).abs().sum():
            assert_close(found @ v, t, rtol=1e-6, atol=1e-7 * float(t.abs().max()))


def test_as_many_products_as_tasks_in_one_step_give_the_gram_matrix():
    G = gram(6, 0)
    estimate = begun(6)
    for _ in range(6):
        v = estimate.next_probe(torch.ones(6))
        assert v is not None
        estimate.update(v, G @ v)
    assert_close(estimate.gram(), G, rtol=1e-6, atol=1e-9)
    assert estimate.next_probe(torch.ones(6)) is None


def test_two_products_by_hand():
    """The first sets the norms as if all tasks were at right angles: t / v. The second, against it, is BFGS."""
    estimate = begun(2)
    estimate.update(torch.tensor([1.0, 2.0]), torch.tensor([4.0, 2.0]))
    assert_close(estimate.gram(), torch.diag(torch.tensor([4.0, 1.0], dtype=torch.float64)))
    # v₂ < 0 leaves the second norm as it is; the first becomes 2 by 4n² = 2. So Ĝ = diag(2, 1), Ĝv = (2, -1),
    # vᵀĜv = 3, vᵀt = 2: Ĝ - (4, -2; -2, 1)/3 + (4, 0; 0, 0)/2.
    v, t = torch.tensor([1.0, -1.0], dtype=torch.float64), torch.tensor([2.0, 0.0], dtype=torch.float64)
    estimate.begin(torch.arange(2), 2)
    estimate.update(v, t)
    expected = torch.tensor([[2 - 4 / 3 + 2, 2 / 3], [2 / 3, 1 - 1 / 3]], dtype=torch.float64)
    assert_close(estimate.gram(), expected)
    assert_close(estimate.gram() @ v, t)


def test_an_absent_task_keeps_its_own_and_the_whole_stays_positive_semidefinite():
    G, estimate = gram(5, 0), begun(5)
    for v in (torch.ones(5), torch.arange(1.0, 6.0)):
        estimate.begin(torch.arange(5), 5)
        estimate.update(v, G @ v.double())
    before = estimate.gram()
    present = torch.tensor([0, 2, 3])
    for v in (torch.tensor([1.0, 0.2, 3.0]), torch.tensor([0.3, -1.0, 0.1])):
        estimate.begin(present, 5)
        assert estimate.gram().shape == (3, 3)
        estimate.update(v, 2 * G[present][:, present] @ v.double())
    estimate.begin(torch.arange(5), 5)
    after, absent = estimate.gram(), torch.tensor([1, 4])
    assert torch.equal(after[absent][:, absent], before[absent][:, absent])
    assert not torch.equal(after[present][:, present], before[present][:, present])
    assert torch.linalg.eigvalsh(after)[0] > -1e-12


def test_a_task_absent_from_the_closure_is_passed_over():
    G, estimate = gram(4, 0), begun(4)
    v = torch.ones(4, dtype=torch.float64)
    t = G @ v
    t[1] = torch.nan
    estimate.update(v, t)
    assert estimate.gram().isfinite().all()
    estimate.update(v, torch.full((4,), torch.nan))
    assert estimate.gram().isfinite().all()


def test_a_new_task_has_the_mean_length_until_its_first_product():
    estimate = begun(2)
    estimate.update(torch.ones(2), torch.tensor([1.0, 3.0]))
    estimate.begin(torch.arange(3), 3)
    assert_close(estimate.gram().diagonal(), torch.tensor([1.0, 3.0, 2.0], dtype=torch.float64))
    estimate.update(torch.ones(3), torch.tensor([1.0, 3.0, 50.0]))
    assert_close(estimate.gram()[2, 2].item(), 50.0, rtol=1e-4, atol=0)


@pytest.mark.parametrize("scale", [1e-12, 1e12])
def test_the_scale_of_all_losses_changes_nothing_but_the_scale(scale):
    G = gram(6, 0)

    def learn(factor: float) -> Tensor:
        estimate = begun(6)
        for v in (torch.ones(6).double(), torch.arange(1.0, 7.0).double()):
            estimate.begin(torch.arange(6), 6)
            estimate.update(v, factor * G @ v)
        return estimate.gram()

    assert_close(learn(scale**2) / scale**2, learn(1.0), rtol=1e-6, atol=1e-9)


@pytest.mark.parametrize("kind", ["zero-rows", "all-zero", "stationary", "opposites", "wildly-scaled"])
@pytest.mark.parametrize("method", METHODS)
def test_hopeless_gradients_leave_finite_weights(method, kind):
    rows = jacobian(kind, 6, 0)
    G = rows @ rows.T
    assert search(G, METHODS[method], 12).isfinite().all()
    assert train(G, METHODS[method], 12).isfinite().all()


def test_a_saved_estimate_goes_on_bit_for_bit():
    G = [gram(5, seed) for seed in range(6)]

    def go(estimate: ProductGram, some: list[Tensor]) -> ProductGram:
        for matrix in some:
            estimate.begin(torch.arange(5), 5)
            w = UPGrad().weights(estimate.gram())
            estimate.update(w, matrix @ w)
        return estimate

    whole, half, resumed = go(ProductGram(), G), go(ProductGram(), G[:3]), ProductGram()
    resumed.load_state_dict(half.state_dict())
    assert torch.equal(go(resumed, G[3:]).gram(), whole.gram())
