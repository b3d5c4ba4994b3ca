"""The newer weightings of losses beside their definitions, by hand over a few steps; their limits and invariances."""

import math
import statistics

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor
from torch.testing import assert_close

from motet import methods
from motet.methods import IGB, LBTW, LDCMTL, RECAP, SI, SLAW, STCH, TCH, UWSO, AdaLoss, CoVWeighting, RevisedUW
from motet.testing import check_method

LOSSES = torch.tensor([0.5, 2.0], dtype=torch.float64)
RUN = [[1.0, 4.0, 0.3], [0.8, 4.4, 0.31], [0.9, 3.0, 0.2], [0.5, 3.2, 0.25], [0.6, 2.5, 0.1]]
"""Losses of three tasks in five steps."""

OPTIONS = [
    ("revised-uw", {"lr": 0.3}),
    ("uw-so", {"temperature": 30.0}),
    ("uw-so", {"temperature": 1e-300}),
    ("ada-loss", {"beta": 0.0}),
    ("lbtw", {"alpha": 2.0, "period": 3}),
    ("slaw", {"beta": 0.5}),
    ("igb", {"warmup": 2, "target": 0.3}),
    ("igb", {"warmup": 1, "target": [0.1, 0.2, 0.3, 0.4, 0.5]}),
    ("tch", {"warmup": 1}),
    ("ldc-mtl", {"lam": 2.0, "lr": 0.1}),
    ("recap", {"window": 3, "temperature": 0.1, "balance": 0.2}),
]


def tensor(values: object) -> Tensor:
    return torch.tensor(values, dtype=torch.float64)


def run(method: methods.Method, losses: list[list[float]]) -> list[Tensor]:
    return [method.weights(tensor(step)) for step in losses]


def softmax(values: list[float]) -> list[float]:
    powers = [math.exp(value) for value in values]
    return [power / sum(powers) for power in powers]


@pytest.mark.parametrize("name", sorted({name for name, _ in OPTIONS} | {"cov-weighting"}))
def test_they_keep_what_motet_relies_on(name):
    check_method(name)


@pytest.mark.parametrize(("name", "options"), OPTIONS)
def test_they_do_with_other_options_too(name, options):
    check_method(lambda: methods.get(name, **options))


@pytest.mark.parametrize(
    ("name", "options"),
    [
        ("revised-uw", {"lr": -0.1}),
        ("uw-so", {"temperature": 0.0}),
        ("ada-loss", {"beta": 1.0}),
        ("lbtw", {"alpha": -1.0}),
        ("lbtw", {"period": 0}),
        ("slaw", {"beta": 0.0}),
        ("igb", {"target": -1.0}),
        ("igb", {"target": [[1.0]]}),
        ("igb", {"warmup": 0}),
        ("tch", {"warmup": 0}),
        ("ldc-mtl", {"lam": -1.0}),
        ("ldc-mtl", {"lr": -1.0}),
        ("recap", {"window": 1}),
        ("recap", {"temperature": 0.0}),
        ("recap", {"balance": 1.5}),
    ],
)
def test_an_option_out_of_range_is_named(name, options):
    (option,) = options
    with pytest.raises(ValueError, match=option):
        methods.get(name, **options)


# Revised UW


def test_revised_uw_learns_by_adam_on_its_own_objective():
    method, log_variance = RevisedUW(lr=0.1), torch.zeros(3, dtype=torch.float64, requires_grad=True)
    adam = torch.optim.Adam([log_variance], lr=0.1)
    for losses in RUN:
        assert_close(method.weights(tensor(losses)), 1 / (2 * log_variance.detach().exp()))
        adam.zero_grad()
        variance = log_variance.exp()
        (tensor(losses) / (2 * variance) + (1 + variance).log()).sum().backward()
        adam.step()


def test_revised_uw_settles_where_its_docstring_says():
    method, losses = RevisedUW(), tensor([0.01, 0.5, 2.0, 50.0])
    for _ in range(4000):
        weights = method.weights(losses)
    assert_close(weights, 2 / (losses + (losses**2 + 8 * losses).sqrt()), rtol=1e-3, atol=0)


# UW-SO


def test_uw_so_is_a_softmax_of_inverse_losses():
    assert_close(UWSO(2.0).weights(LOSSES), tensor(softmax([1 / (2 * 0.5), 1 / (2 * 2.0)])))


def test_a_high_temperature_is_even_and_a_low_one_follows_the_smallest_loss():
    assert_close(UWSO(1e9).weights(LOSSES), tensor([0.5, 0.5]), rtol=0, atol=1e-8)
    assert_close(UWSO(1e-9).weights(LOSSES), tensor([1.0, 0.0]))


@given(factor=st.floats(1e-3, 1e3))
def test_the_scale_of_all_losses_acts_as_a_temperature(factor):
    assert_close(UWSO(1.0).weights(LOSSES * factor), UWSO(factor).weights(LOSSES))


# AdaLoss


def test_ada_loss_divides_by_the_moving_average():
    first, second, third = (step[1] for step in RUN[:3])
    average = [first, (0.9 * 0.1 * first + 0.1 * second) / (1 - 0.9**2)]
    average.append((0.9**2 * 0.1 * first + 0.9 * 0.1 * second + 0.1 * third) / (1 - 0.9**3))
    assert_close(torch.stack(run(AdaLoss(), RUN[:3]))[:, 1], 1 / tensor(average))


def test_ada_loss_without_a_past_is_si():
    assert_close(run(AdaLoss(beta=0.0), RUN), run(SI(), RUN))


# LBTW


def test_lbtw_compares_with_the_first_loss():
    assert_close(run(LBTW(alpha=0.5), RUN)[3], tensor([0.5**0.5, 0.8**0.5, (0.25 / 0.3) ** 0.5]))


def test_lbtw_takes_the_first_loss_anew_with_every_period():
    weights = run(LBTW(alpha=1.0, period=3), RUN)
    assert_close(weights[0], torch.ones(3, dtype=torch.float64))
    assert_close(weights[2], tensor([0.9, 0.75, 0.2 / 0.3]))
    assert_close(weights[3], torch.ones(3, dtype=torch.float64))
    assert_close(weights[4], tensor([0.6 / 0.5, 2.5 / 3.2, 0.1 / 0.25]))


def test_lbtw_with_exponent_zero_is_the_plain_sum():
    assert_close(run(LBTW(alpha=0.0), RUN)[-1], torch.ones(3, dtype=torch.float64))


# CoV-Weighting


def test_cov_weighting_is_the_variation_of_loss_ratios():
    ratios = [[1.0] * 3]
    for step in range(1, 5):
        means = [statistics.fmean(losses[:step]) for losses in map(list, zip(*RUN, strict=True))]
        ratios.append([loss / mean for loss, mean in zip(RUN[step], means, strict=True)])
    expected = [[1 / 3] * 3] * 2
    for step in range(2, 5):
        past = [list(ratio)[:step] for ratio in zip(*ratios, strict=True)]
        variation = [(statistics.pvariance(ratio) + 1e-8) ** 0.5 / statistics.fmean(ratio) for ratio in past]
        expected.append([each / sum(variation) for each in variation])
    assert_close(torch.stack(run(CoVWeighting(), RUN)), tensor(expected))


def test_losses_that_stand_still_share_evenly():
    assert_close(run(CoVWeighting(), [[1.0, 1e-6, 1e6]] * 5)[-1], tensor([1 / 3] * 3))


# SLAW


def test_slaw_is_the_inverse_standard_deviation():
    weights = run(SLAW(), RUN)
    assert_close(weights[0], torch.ones(3, dtype=torch.float64))
    for step in range(1, 5):
        deviations = [statistics.pstdev(losses[: step + 1]) for losses in zip(*RUN, strict=True)]
        expected = [3 / deviation / sum(1 / d for d in deviations) for deviation in deviations]
        assert_close(weights[step], tensor(expected))


def test_slaw_forgets_exponentially_once_the_mean_is_long_enough():
    mean, square = 0.0, 0.0
    for step, (first, _, _) in enumerate(RUN):
        rate = max(1 / (step + 1), 0.5)
        mean, square = (1 - rate) * mean + rate * first, (1 - rate) * square + rate * first**2
    method = SLAW(beta=0.5)
    run(method, RUN)
    assert_close(method.state_dict()["variance"][0], tensor(square - mean**2))


def test_slaw_sees_small_variations_of_large_losses():
    weights = run(SLAW(), [[1e6 + 100 * (-1) ** step, 1e6 + 200 * (-1) ** step] for step in range(10)])[-1]
    assert_close(weights, tensor([4 / 3, 2 / 3]))


def test_slaw_takes_losses_of_any_sign_and_leaves_out_those_that_are_always_zero():
    weights = run(SLAW(), [[1.0 * step, -2.0 * step, 0.0] for step in range(4)])[-1]
    assert_close(weights, tensor([4 / 3, 2 / 3, 1.0]))


# IGB


def test_igb_favours_the_task_with_the_larger_gap():
    method = IGB(target=[0.1, 1.0, 0.0], warmup=2)
    weights = run(method, RUN)
    assert_close(weights[1], 1 / tensor(RUN[1]))
    levels = [0.9, 4.2, 0.305]
    gaps = [(loss - goal) / level for loss, goal, level in zip(RUN[4], [0.1, 1.0, 0.0], levels, strict=True)]
    assert_close(weights[4], 3 * tensor(softmax(gaps)) / tensor(RUN[4]))


def test_a_loss_below_its_target_has_no_gap():
    method = IGB(target=1.0, warmup=1)
    run(method, [[2.0, 2.0]])
    assert_close(method.weights(tensor([0.5, 1.5])), 2 * tensor(softmax([0.0, 0.25])) / tensor([0.5, 1.5]))


def test_targets_stay_with_their_tasks():
    whole, part = IGB(target=[0.1, 0.7, 0.2], warmup=1), IGB(target=[0.1, 0.2], warmup=1)
    for losses in RUN:
        with whole.on_tasks(torch.tensor([0, 2]), 3):
            weights = whole.weights(tensor(losses)[[0, 2]])
        assert_close(weights, part.weights(tensor(losses)[[0, 2]]))


def test_a_wrong_number_of_targets_is_an_error():
    with pytest.raises(ValueError, match="IGB was made with 2 values.*3 tasks"):
        IGB(target=[0.1, 0.2]).weights(tensor(RUN[0]))


# TCH


def test_tch_follows_the_task_that_is_worst_off():
    weights = run(TCH(warmup=2), RUN)
    assert_close(weights[1], 1 / tensor(RUN[1]))
    # Relative to the levels 0.9, 4.2 and 0.305 the last losses are 0.67, 0.60 and 0.33.
    assert_close(weights[4], tensor([3 / 0.6, 0.0, 0.0]))


def test_tch_is_stch_without_smoothing():
    sharp, smooth = TCH(warmup=2), STCH(mu=1e-4, warmup=2)
    for losses in RUN:
        assert_close(sharp.weights(tensor(losses)), smooth.weights(tensor(losses)))


def test_tasks_that_are_equally_bad_share():
    method = TCH(warmup=1)
    method.weights(tensor([1.0, 2.0, 4.0]))
    assert_close(method.weights(tensor([0.5, 1.0, 1.0])), 3 * tensor([0.5 / 0.5, 0.5 / 1.0, 0.0]))


def test_tch_leaves_a_task_that_warms_up_alone():
    method = TCH(warmup=1)
    with method.on_tasks(torch.tensor([0, 1]), 3):
        method.weights(tensor([1.0, 2.0]))
    with method.on_tasks(torch.tensor([0, 1, 2]), 3):
        assert_close(method.weights(tensor([0.5, 0.5, 8.0])), tensor([2 / 0.5, 0.0, 1 / 8]))


# LDC-MTL


def test_ldc_mtl_descends_its_objective():
    """Weights and logits beside autograd and torch's Adam on Σu + λΣ|uₖ - uₖ₊₁|."""
    method, logits = LDCMTL(lam=0.3, lr=0.2), torch.zeros(3, dtype=torch.float64, requires_grad=True)
    adam = torch.optim.Adam([logits], lr=0.2)
    ratio = tensor(RUN[0]) / min(RUN[0])
    for step, values in enumerate(RUN):
        losses = tensor(values).requires_grad_()
        # In the first step all terms are equal, and a sum of rounding errors has a sign.
        scaled = tensor([0.3] * 3) * losses / losses.detach() if step == 0 else losses / ratio
        weighted = logits.softmax(0) * scaled
        adam.zero_grad()
        (weighted.sum() + 0.3 * (weighted[:-1] - weighted[1:]).abs().sum()).backward()
        assert_close(method.weights(tensor(values)), losses.grad)
        adam.step()


def test_ldc_mtl_brings_the_weighted_losses_together():
    """Gradient descent on two losses that fall at different speeds."""

    def gap(lam: float) -> float:
        method, curvature, position = LDCMTL(lam=lam, lr=0.0), tensor([1.0, 4.0]), tensor([1.0, 0.5])
        for _ in range(100):
            losses = curvature * position**2 / 2
            position = position - 0.01 * method.weights(losses) * curvature * position
        return float(losses.diff().abs())

    assert 0 < gap(0.4) < 0.5 * gap(0.0)


def test_ldc_mtl_compares_neighbours():
    """So the order counts: the middle one of three has two of them."""
    method = LDCMTL(lam=0.1)
    method.weights(tensor([1.0, 1.0, 1.0]))
    method.load_state_dict(method.state_dict() | {"logits": torch.zeros(3, dtype=torch.float64)})
    assert_close(method.weights(tensor([0.5, 1.0, 0.6])) * 3, tensor([0.9, 1.2, 0.9]))


# RECAP


def test_recap_weighs_lag_and_swing_over_its_window():
    method = RECAP(window=3, temperature=0.5, balance=0.25)
    weights = run(method, RUN)
    assert_close(weights[1], torch.ones(3, dtype=torch.float64))
    for step in range(2, 5):
        windows = [losses[step - 2 : step + 1] for losses in zip(*RUN, strict=True)]
        means = [statistics.fmean(window) for window in windows]
        lag = [window[-1] / mean for window, mean in zip(windows, means, strict=True)]
        swing = [statistics.pstdev(window) / mean for window, mean in zip(windows, means, strict=True)]
        scores = [(0.25 * c + 0.75 * i) / 0.5 for c, i in zip(lag, swing, strict=True)]
        assert_close(weights[step], 3 * tensor(softmax(scores)))


def test_a_high_temperature_makes_recap_even():
    assert_close(run(RECAP(window=2, temperature=1e9), RUN)[-1], torch.ones(3, dtype=torch.float64), rtol=0, atol=1e-8)


# What is said under Scale


@pytest.mark.parametrize("name", ["lbtw", "cov-weighting", "recap"])
@given(exponents=st.lists(st.floats(-6, 6), min_size=3, max_size=3))
def test_weights_do_not_depend_on_the_scale_of_any_loss(name, exponents):
    scale = 10 ** tensor(exponents)
    options = {"window": 3} if name == "recap" else {}
    one, other = methods.get(name, **options), methods.get(name, **options)
    for losses in RUN:
        assert_close(other.weights(tensor(losses) * scale), one.weights(tensor(losses)), rtol=1e-6, atol=1e-9)


@pytest.mark.parametrize(("name", "options"), [("ada-loss", {}), ("igb", {"warmup": 2}), ("tch", {"warmup": 2})])
@given(exponents=st.lists(st.floats(-6, 6), min_size=3, max_size=3))
def test_a_loss_has_the_same_say_at_any_scale(name, options, exponents):
    scale = 10 ** tensor(exponents)
    one, other = methods.get(name, **options), methods.get(name, **options)
    for losses in RUN:
        assert_close(other.weights(tensor(losses) * scale) * scale, one.weights(tensor(losses)), rtol=1e-6, atol=0)


@pytest.mark.parametrize("name", ["slaw", "ldc-mtl"])
@given(exponents=st.lists(st.floats(-3, 3), min_size=3, max_size=3))
def test_a_loss_has_the_same_share_at_any_scale(name, exponents):
    """LDC-MTL from the first step on, SLAW from the second."""
    scale = 10 ** tensor(exponents)
    one, other = methods.get(name), methods.get(name)
    for step, losses in enumerate(RUN):
        expected, actual = one.weights(tensor(losses)), other.weights(tensor(losses) * scale) * scale
        if step or name == "ldc-mtl":
            assert_close(actual / actual.sum(), expected / expected.sum(), rtol=1e-5, atol=1e-7)
