"""What adaptive momentum is for, and where it loses: the momentum recursion of the optimizers on means that move."""

import math

import pytest
import torch

from motet.optim import AdaptiveMomentum
from tests.optim.tracking import fixed_error, gradients, targets, tracking_error

BOUNDS = {"momentum": 0.95, "beta_min": 0.5}
A1_PREVIOUS = BOUNDS | {"rule": "A1"}
A1_MOMENTUM = BOUNDS | {"rule": "A1", "reference": "momentum"}
A2_MOMENTUM = BOUNDS | {"rule": "A2", "reference": "momentum"}
A7 = BOUNDS | {"rule": "A7"}


def errors(case: str, noise: float, **arms: dict[str, object]) -> tuple[dict[float, float], dict[str, float]]:
    mu, d = gradients(case, noise, steps=800)
    return fixed_error(mu, d), tracking_error(mu, d, arms)


@pytest.mark.parametrize("beta", [0.5, 0.9])
def test_the_error_on_a_static_mean_is_the_closed_form(beta):
    mu, d = gradients("static", 1.0, steps=1500)
    found = tracking_error(mu, d, {"fixed": {"momentum": beta}})["fixed"]
    assert found == pytest.approx((1 - beta) / (1 + beta), rel=0.1)


@pytest.mark.parametrize(("beta", "expected"), [(0.9, 0.4261), (0.95, 0.7520)])
def test_the_error_on_a_rotating_mean_is_the_closed_form(beta, expected):
    assert abs((1 - beta) / (1 - beta * complex(math.cos(0.1), -math.sin(0.1))) - 1) ** 2 == pytest.approx(
        expected, abs=1e-4
    )
    mu, d = gradients("rotate", 0.0, steps=1500)
    found = tracking_error(mu[300:], d[300:], {"fixed": {"momentum": beta}})["fixed"]
    assert found == pytest.approx(expected, rel=0.06)


def test_the_error_on_a_jump_is_the_closed_form():
    mu, d = gradients("flip", 0.0, steps=1000)
    found = tracking_error(mu, d, {"fixed": {"momentum": 0.8}})["fixed"]
    assert found == pytest.approx(4 / 5 * 4 * 0.8**2 / ((1 - 0.8**2) * 200), rel=1e-6)  # four flips in five periods


@pytest.mark.parametrize("case", ["jump", "flip"])
def test_at_low_noise_a2_against_the_momentum_follows_jumps_better_than_the_best_fixed_beta(case):
    fixed, found = errors(case, 0.3, a2=A2_MOMENTUM)
    assert found["a2"] < min(fixed.values())


@pytest.mark.parametrize("case", ["jump", "flip"])
def test_at_high_noise_a1_against_the_momentum_follows_jumps_better_than_the_best_fixed_beta(case):
    fixed, found = errors(case, 1.0, a1=A1_MOMENTUM)
    assert found["a1"] < min(fixed.values())


def test_the_default_follows_flips_better_than_the_usual_fixed_betas():
    fixed, found = errors("flip", 0.3, a1=A1_PREVIOUS)
    assert found["a1"] < fixed[0.9] < fixed[0.95]


def test_the_previous_gradient_hardly_sees_a_slow_rotation_and_a7_does():
    fixed, found = errors("rotate", 0.3, a1=A1_PREVIOUS, a7=A7)
    assert found["a1"] > fixed[0.9]
    assert found["a7"] < 1.1 * min(fixed.values())


def test_where_noise_dominates_every_cosine_rule_loses_to_a_fixed_beta_and_a7_nearly_keeps_up():
    fixed, found = errors("static", 3.0, a1=A1_PREVIOUS, a1_momentum=A1_MOMENTUM, a2_momentum=A2_MOMENTUM, a7=A7)
    assert min(found["a1"], found["a1_momentum"], found["a2_momentum"]) > 2 * fixed[0.9]
    assert found["a7"] < fixed[0.9] < 2 * fixed[0.95]


def test_the_tracking_error_stays_under_its_bound():
    """E‖e_t‖² ≤ β E‖e_{t-1}‖² + β²/(1-β) D² + (1-β)² s² for a β that does not depend on the noise."""
    beta, noise, runs = 0.8, 0.5, 400
    generator = torch.Generator().manual_seed(11)
    mu = targets("rotate", 60, generator)[:, :1].expand(-1, runs, -1)
    m, bound = mu[0], 0.0
    for t in range(1, len(mu)):
        xi = torch.randn(m.shape, generator=generator, dtype=torch.float64) * noise / math.sqrt(m.shape[-1])
        m = beta * m + (1 - beta) * (mu[t] + xi)
        drift = float((mu[t, 0] - mu[t - 1, 0]).square().sum())
        bound = beta * bound + beta**2 / (1 - beta) * drift + (1 - beta) ** 2 * noise**2
        assert float((m - mu[t]).square().sum(-1).mean()) <= bound * 1.02


def test_a7_settles_at_the_beta_that_minimises_the_bound():
    drift, noise = 0.05, 1.0
    p = torch.nn.Parameter(torch.zeros(1000, dtype=torch.float64))
    group = {"params": [p], "momentum": 0.99} | AdaptiveMomentum.options(0.1, "A7", smoothing=0.99)
    state: dict[torch.Tensor, dict[str, torch.Tensor]] = {p: {}}
    rule, generator, betas = AdaptiveMomentum(), torch.Generator().manual_seed(12), []
    for t in range(600):
        p.grad = torch.randn(1000, generator=generator, dtype=torch.float64) * noise / math.sqrt(1000)
        p.grad += t * drift / math.sqrt(1000)
        beta = rule.betas([group], state, "m")[0][0]
        assert beta is not None
        m = state[p].get("m", torch.zeros_like(p.data))
        state[p]["m"] = beta * m + (1 - beta) * p.grad
        betas.append(float(beta))
    best = min((b / 1000 for b in range(100, 990)), key=lambda b: b**2 * drift**2 / (1 - b) ** 2 + (1 - b) * noise**2)
    assert sum(betas[300:]) / 300 == pytest.approx(best, abs=0.05)
