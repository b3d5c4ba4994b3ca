"""Methods with a preference: each against its definition, and where it ends on fronts that are known."""

import logging
import math

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from scipy.optimize import linprog, minimize
from torch.testing import assert_close

from motet.methods import COSMOS, EPO, FERERO, PBI, PMTL, STCH, WCMGDA, Preference, Sum
from motet.methods.preferred import ray, simplex_lattice
from motet.solvers.simplex import minimise_on_simplex
from motet.testing import check_method
from motet.testing.steps import ask
from tests.matrices import jacobians

R = [1.0, 2.0, 3.0, 0.5, 1.5]
VECTORS = [[1.0, 2.0, 3.0, 4.0, 5.0], [5.0, 4.0, 3.0, 2.0, 1.0], [1.0] * 5]
VARIANTS = {
    "epo": lambda: EPO(R, epsilon=1e-2),
    "pmtl": lambda: PMTL(R),
    "pmtl with vectors": lambda: PMTL(R, VECTORS, warmup=0),
    "wc-mgda": lambda: WCMGDA(R, u=0.1),
    "ferero": lambda: FERERO(R, rate=2.0),
    "cosmos": lambda: COSMOS(R, lambda_=3.0, ray="inverse"),
    "cosmos with draws": lambda: COSMOS(alpha=0.5),
    "pbi": lambda: PBI(R, theta=0.5),
    "pbi with reference": lambda: PBI(R, reference=[-1.0, 0.0, 0.0, 0.0, 0.1]),
    "stch": lambda: STCH(preference=R),
}


@pytest.mark.parametrize("variant", VARIANTS)
def test_other_options_keep_what_motet_relies_on(variant):
    check_method(VARIANTS[variant])


def random_losses(tasks, seed):
    return torch.rand(tasks, generator=torch.Generator().manual_seed(seed), dtype=torch.float64) + 0.1


def asked(method, losses, jacobian):
    method.observe(losses)
    return method.weights(jacobian @ jacobian.T)


@given(jacobians(tasks=(2, 6)), st.integers(0, 99), st.booleans())
def test_simplex_programmes_match_a_generic_solver(jacobian, seed, quadratic):
    rows = jacobian / jacobian.norm(dim=1).amax().clamp(min=1e-300)
    gram = rows @ rows.T
    linear = gram @ (random_losses(len(gram), seed) - 0.6)
    matrix = gram * 0.5 if quadratic else torch.zeros_like(gram)
    weights, converged = minimise_on_simplex(matrix, linear, gram, torch.zeros(len(gram)).double())
    assert converged
    assert_close(weights.sum(), torch.tensor(1.0).double())
    assert (weights >= 0).all()
    assert (gram @ weights >= -1e-6).all()
    value = float(weights @ matrix @ weights / 2 + linear @ weights)
    if quadratic:
        found = minimize(
            lambda w: w @ matrix.numpy() @ w / 2 + linear.numpy() @ w,
            weights.numpy(),
            jac=lambda w: matrix.numpy() @ w + linear.numpy(),
            bounds=[(0, 1)] * len(gram),
            constraints=[
                {"type": "eq", "fun": lambda w: w.sum() - 1},
                {"type": "ineq", "fun": lambda w: gram.numpy() @ w},
            ],
            method="SLSQP",
            options={"ftol": 1e-14},
        )
        assert value <= found.fun + 1e-6
    else:
        bound = (np.ones((1, len(gram))), [1.0])
        found = linprog(linear.numpy(), -gram.numpy(), np.zeros(len(gram)), *bound, bounds=(0, None))
        assert abs(value - found.fun) <= 1e-6


def epo_by_linprog(r, losses, gram):
    """The largest value of the balance programme, from its definition: r sums to 1."""
    share = r * losses / (r * losses).sum()
    mu = (share * (len(r) * share).log()).sum()
    anchor = r * ((len(r) * share).log() - mu)
    pull = gram @ anchor
    floor = torch.where(pull > 0, -torch.inf, pull) if (pull > 0).any() else torch.zeros_like(pull)
    if (pull > 0).any():
        floor[(r * losses).argmax()] = 0.0
    kept = floor.isfinite()
    found = linprog(
        -pull.numpy(), -gram[kept].numpy(), -floor[kept].numpy(), np.ones((1, len(r))), [1.0], bounds=(0, None)
    )
    return -found.fun, pull, floor


@given(jacobians(full_rank=True, tasks=(2, 6)), st.integers(0, 99))
def test_epo_solves_its_linear_programme(jacobian, seed):
    tasks = len(jacobian)
    r = random_losses(tasks, seed + 100)
    losses, gram = random_losses(tasks, seed), jacobian @ jacobian.T
    weights = asked(EPO(r.tolist(), epsilon=1e-9), losses, jacobian)
    best, pull, floor = epo_by_linprog(r / r.sum(), losses, gram)
    size = float(gram.diagonal().amax())
    assert abs(float(pull @ weights) - best) <= 1e-6 * size
    assert (gram @ weights >= floor - 1e-6 * size).all()


def test_epo_lets_a_loss_rise_to_reach_balance_and_none_once_it_is_there():
    jacobian = torch.tensor([[1.0, 0.2], [-1.0, 0.2]]).double()
    method = EPO()
    balance = jacobian @ method.direction(jacobian)  # no losses seen: all equal
    assert (balance > 0).all()
    ahead = asked(method, torch.tensor([4.0, 1.0]).double(), jacobian)
    assert ((jacobian @ jacobian.T) @ ahead)[1] < 0 < ((jacobian @ jacobian.T) @ ahead)[0]


@given(jacobians(full_rank=True, tasks=(2, 5)), st.integers(0, 99))
def test_wc_mgda_weights_maximise_its_objective(jacobian, seed):
    tasks = len(jacobian)
    r, losses = random_losses(tasks, seed + 100), random_losses(tasks, seed)
    r = r / r.sum()
    weights = asked(WCMGDA(r.tolist(), u=0.7), losses, jacobian)
    alpha = weights / (tasks * r)
    rows = r[:, None] * jacobian

    def objective(alpha):
        combined = alpha @ rows
        return alpha @ (r * losses) / (r * losses).amax() - 0.35 * combined @ combined / rows.square().sum(1).amax()

    assert_close(alpha.sum(), torch.tensor(1.0).double())
    for _ in range(50):  # concave: no better point nearby or far away
        other = torch.from_numpy(np.random.default_rng(seed + _).dirichlet(np.ones(tasks)))
        for step in (1.0, 0.1, 0.001):
            assert objective(alpha) >= objective(alpha + step * (other - alpha)) - 1e-7


def test_ferero_meets_its_constraint_and_descends_along_the_ray():
    jacobian = torch.tensor([[1.0, 0.3, 0.0], [-0.5, 1.0, 0.2]]).double()
    losses, r = torch.tensor([2.0, 1.0]).double(), torch.tensor([0.4, 0.6]).double()
    direction = asked(FERERO(r.tolist(), rate=0.5), losses, jacobian) @ jacobian
    v = ray(r)
    across = torch.stack([v[1], -v[0]])
    # Softened by δ, which is about 1 % of |H| here.
    assert_close(across @ jacobian @ direction, 0.5 * across @ losses, rtol=0.05, atol=0)
    # One parameter is left, the descent along the ray: the best of a fine grid is no better.
    solve = jacobian.T @ torch.linalg.inv(jacobian @ jacobian.T)
    across_change = jacobian @ direction - v * (v @ jacobian @ direction)

    def value(along):
        change = across_change + along * v
        d = solve @ change
        return float(change.amin() - d @ d / 2)

    grid = max(value(along) for along in np.linspace(-3, 3, 6001))
    assert value(float(v @ jacobian @ direction)) >= grid - 1e-2


def test_pmtl_first_brings_the_losses_into_its_part_and_then_descends():
    r, others = [0.5, 0.5], [[0.9, 0.1], [0.1, 0.9]]
    jacobian = torch.tensor([[1.0, 0.0], [0.0, 1.0]]).double()
    method = PMTL(r, others, warmup=5)
    # The loss of the second task is ten times too small: the only active constraint is the ray of its preference.
    losses = torch.tensor([10.0, 1.0]).double()
    weights = asked(method, losses, jacobian)
    apart = ray(torch.tensor([0.1, 0.9]).double()) - ray(torch.tensor(r).double())
    apart = apart / apart.norm()
    assert_close(weights, apart)
    # On the ray nothing is active, which ends the first phase: the shortest vector of the gradients themselves.
    assert_close(asked(method, torch.ones(2).double(), jacobian), torch.tensor([0.5, 0.5]).double())
    # The second phase has both: the shortest vector in the hull of three.
    vectors = torch.cat([torch.eye(2).double(), apart[None]])
    weights = asked(method, losses, jacobian)
    gram = vectors @ vectors.T
    best = minimize(
        lambda a: a @ gram.numpy() @ a,
        np.ones(3) / 3,
        bounds=[(0, 1)] * 3,
        constraints={"type": "eq", "fun": lambda a: a.sum() - 1},
        options={"ftol": 1e-15},
    )
    assert_close(float(weights @ weights), best.fun, rtol=0, atol=1e-8)


@pytest.mark.parametrize("share", [1 / 6, 5 / 6])
@pytest.mark.parametrize("start", [[0.2, 0.9], [0.9, 0.1]])
def test_pmtl_with_its_defaults_ends_in_its_part_of_two_quadratics(share, start, caplog):
    targets, r = torch.tensor([[1.0, 0.0], [-1.0, 0.0]]).double(), torch.tensor([share, 1 - share]).double()
    x, method = torch.tensor(start).double(), PMTL(r.tolist())
    for _ in range(400):
        rows = x - targets
        losses = rows.square().sum(1) / 2
        x = x - 0.05 * asked(method, losses, rows) @ rows
    assert x[1].abs() < 0.01
    losses = losses / losses.norm()
    assert ray(r) @ losses >= (ray(simplex_lattice(2, 9)) @ losses).amax() - 1e-6
    assert not caplog.records


def test_pmtl_says_once_that_its_warmup_ended_outside(caplog):
    method = PMTL(vectors=[[0.1, 0.9], [0.9, 0.1]], warmup=2)
    with caplog.at_level(logging.WARNING, logger="motet"):
        for _ in range(6):
            asked(method, torch.tensor([10.0, 1.0]).double(), torch.eye(2).double())
    assert [record.message for record in caplog.records if "warmup=2" in record.message] == [caplog.messages[0]]
    assert len(caplog.messages) == 1


def test_pmtl_gives_up_the_first_phase_after_its_steps():
    jacobian, losses = torch.eye(2).double(), torch.tensor([10.0, 1.0]).double()
    method = PMTL(vectors=[[0.1, 0.9], [0.9, 0.1]], warmup=2)
    first, second, third = (asked(method, losses, jacobian) for _ in range(3))
    assert_close(first, second)
    assert (first < 0).any()
    assert not torch.allclose(third, second)


@given(st.integers(0, 99), st.integers(1, 6), st.sampled_from([0.0, 0.5, 3.0]))
def test_cosmos_and_pbi_are_the_derivatives_of_torchjds(seed, tasks, factor):
    scalarization = pytest.importorskip("torchjd.scalarization")
    losses, r = random_losses(tasks, seed), random_losses(tasks, seed + 100)
    r = r / r.sum()
    for ours, theirs in (
        (COSMOS(r.tolist(), lambda_=factor), scalarization.COSMOS(factor, r)),
        (PBI(r.tolist(), theta=factor), scalarization.PBI(factor, 1 / r)),
        (PBI(r.tolist(), factor, [0.05] * tasks), scalarization.PBI(factor, 1 / r, torch.full_like(r, 0.05))),
    ):
        values = losses.clone().requires_grad_()
        (expected,) = torch.autograd.grad(theirs(values), values)
        assert_close(ours.weights(losses), expected, rtol=1e-3, atol=1e-3)


def test_cosmos_without_a_cosine_is_the_weighted_sum_and_pbi_without_a_penalty_a_projection():
    losses = random_losses(3, 0)
    assert_close(COSMOS([1.0, 2.0, 1.0], lambda_=0.0).weights(losses), torch.tensor([0.25, 0.5, 0.25]).double())
    assert_close(PBI([1.0, 2.0, 2.0], theta=0.0).weights(losses), torch.tensor([2.0, 1.0, 1.0]).double() / math.sqrt(6))


def test_pbi_on_its_ray_has_no_penalty():
    assert_close(PBI([1.0, 2.0]).weights(torch.tensor([2.0, 1.0])), torch.tensor([2.0, 1.0]).double() / math.sqrt(5))


def test_cosmos_uses_the_preference_it_has_drawn():
    method = COSMOS(alpha=0.8, lambda_=0.0, generator=torch.Generator().manual_seed(3))
    drawn = [method.draw(3) for _ in range(2)]
    assert not torch.allclose(*drawn)
    assert_close(method.weights(random_losses(3, 0)), drawn[1])  # the last one drawn
    assert not torch.allclose(method.weights(random_losses(3, 0)), drawn[1])  # a step without one draws its own
    with pytest.raises(ValueError, match="only with alpha"):
        COSMOS().draw(3)


def test_stch_with_equal_preference_is_what_it_was_and_ends_at_equal_weighted_ratios():
    equal, plain = STCH(warmup=1, preference=[3.0, 3.0]), STCH(warmup=1)
    for losses in (torch.tensor([1.0, 2.0]).double(), torch.tensor([0.5, 1.8]).double()):
        assert_close(equal.weights(losses), plain.weights(losses))
    method = STCH(mu=0.01, warmup=1, preference=[1.0, 3.0])
    method.weights(torch.ones(2).double())
    # r L/n is the same for both, so each has half the weight: w = 2 · ½ / L.
    losses = torch.tensor([0.9, 0.3], dtype=torch.float64)
    assert_close(method.weights(losses), 1 / losses)


def concave(x):
    """Fonseca & Fleming's problem, whose front bulges away from the origin: any weighted sum ends at its ends."""
    centre = 1 / math.sqrt(len(x))
    return torch.stack([1 - torch.exp(-(x - centre).square().sum()), 1 - torch.exp(-(x + centre).square().sum())])


def convex(x):
    """|x ∓ e|² + 0.1, whose front is √(L₁ - 0.1) + √(L₂ - 0.1) = 2."""
    e = torch.tensor([1.0, 0.0, 0.0, 0.0, 0.0], dtype=torch.float64)
    return torch.stack([(x - e).square().sum(), (x + e).square().sum()]) + 0.1


def end(problem, method, start, lr, steps=200):
    """Losses after gradient descent with a learning rate that falls to zero."""
    x = start.clone()
    for number in range(steps):
        x.requires_grad_()
        losses = problem(x)
        rows = torch.stack([torch.autograd.grad(loss, x, retain_graph=True)[0] for loss in losses])
        x = x.detach() - lr * (1 - number / steps) * ask(method, losses.detach(), rows)
    return problem(x)


def off_front(problem, losses):
    """How far from the front, in the sum of the square roots that is constant on it."""
    depth = losses - 0.1 if problem is convex else -torch.log(1 - losses)
    return abs(float(depth.sqrt().sum()) - 2)


EXACT = {
    "epo": (lambda r: EPO(r, epsilon=1e-5), 0.1),
    "wc-mgda": (WCMGDA, 0.3),
    "ferero": (FERERO, 0.2),
    "pbi": (PBI, 0.02),
    "stch": (lambda r: STCH(mu=0.01, warmup=1, preference=r), 0.05),
}
PROBLEMS = {"concave": concave, "convex": convex}


@pytest.mark.parametrize(("problem", "share"), [("concave", 0.25), ("convex", 0.6)])
@pytest.mark.parametrize("method", EXACT)
def test_ends_on_the_front_and_on_its_ray(method, problem, share):
    make, lr = EXACT[method]
    start = torch.tensor([0.0, 0.3, -0.3, 0.2, -0.2]).double()  # as far from one end as from the other
    losses = end(PROBLEMS[problem], make([share, 1 - share]), start, lr)
    assert off_front(PROBLEMS[problem], losses) < 0.03
    weighted = torch.tensor([share, 1 - share]).double() * losses
    assert abs(float(weighted[0] / weighted.sum()) - 0.5) < 0.02


@pytest.mark.parametrize("share", [0.25, 0.6])
@pytest.mark.parametrize("problem", PROBLEMS)
def test_pmtl_ends_on_the_front_in_the_part_of_its_ray(problem, share):
    start = torch.tensor([0.3, 0.3, -0.3, 0.2, -0.2]).double()
    lattice = simplex_lattice(2, 9)
    losses = end(PROBLEMS[problem], PMTL([share, 1 - share], warmup=100), start, 0.1, steps=500)
    assert off_front(PROBLEMS[problem], losses) < 0.03
    angles = ray(lattice) @ (losses / losses.norm())
    own = ray(torch.tensor([share, 1 - share]).double()) @ (losses / losses.norm())
    assert own >= angles.amax() - 1e-3


@pytest.mark.parametrize("share", [0.25, 0.4, 0.6])
def test_the_weighted_sum_finds_only_the_ends_of_a_concave_front(share):
    start = torch.tensor([0.1, 0.3, -0.3, 0.2, -0.2]).double()
    losses = end(concave, Preference(Sum(), [share, 1 - share]), start, 0.1)
    assert losses.amin() < 0.02
    assert losses.amax() > 0.95


@pytest.mark.parametrize("make", [EPO, PMTL, WCMGDA, FERERO, PBI, STCH])
def test_an_absent_task_leaves_the_preference_of_the_others(make):
    whole, method = make(preference=[1.0, 3.0]), make(preference=[1.0, 2.0, 3.0])
    losses, rows = torch.tensor([0.4, 0.9]).double(), torch.tensor([[1.0, 0.2], [-0.8, 0.7]]).double()
    if isinstance(method, STCH):
        whole.warmup = method.warmup = 1
    for _ in range(2):
        expected = ask(whole, losses, rows)
        with method.on_tasks(torch.tensor([0, 2]), 3):
            actual = ask(method, losses, rows)
        assert_close(actual, expected)


BAD = {
    "preference .*EPO.* positive": lambda: EPO([1.0, 0.0]),
    "preference .*PMTL": lambda: PMTL([1.0, math.nan]),
    "preference .*STCH": lambda: STCH(preference=[-1.0, 2.0]),
    "epsilon .* positive": lambda: EPO(epsilon=0.0),
    "u is .* positive": lambda: WCMGDA(u=0.0),
    "rate .* positive": lambda: FERERO(rate=-1.0),
    "mu .* finite": lambda: STCH(mu=math.inf),
    "warmup .* negative": lambda: PMTL(warmup=-1),
    "vectors .* one length": lambda: PMTL(vectors=[[1.0, 2.0], [1.0, 2.0, 3.0]]),
    "lambda_ .* negative": lambda: COSMOS(lambda_=-1.0),
    "ray .* 'paper' or 'inverse'": lambda: COSMOS(ray="both"),
    "alpha .* without one": lambda: COSMOS([1.0, 2.0], alpha=1.0),
    "theta .* negative": lambda: PBI(theta=-1.0),
    "reference .* finite": lambda: PBI(reference=[math.inf, 0.0]),
    "with 2 values, one a task, and there are 3": lambda: EPO([1.0, 2.0]).weights(torch.eye(3)),
}


@pytest.mark.parametrize("message", BAD)
def test_a_wrong_option_is_an_error_that_names_it(message):
    with pytest.raises(ValueError, match=message):
        BAD[message]()
