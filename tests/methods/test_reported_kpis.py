"""DTP and AMTL: what they make of KPIs, whose they are, and what stands in for them."""

import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor
from torch.testing import assert_close

from motet import methods
from motet.methods import AMTL, DTP
from motet.testing import check_method

NAN = math.nan
LOSSES = torch.tensor([0.5, 2.0], dtype=torch.float64)
BOTH = [DTP, AMTL]
OPTIONS = [
    ("dtp", {}),
    ("dtp", {"gamma": 3.0, "alpha": 1.0}),
    ("dtp", {"gamma": 0.0}),
    ("amtl", {}),
    ("amtl", {"normalise": "sum", "single": 0.5, "margin": 0.0}),
    ("amtl", {"single": [0.1, 0.2, 0.3, 0.4, 0.5], "gamma": 0.5}),
]


def tensor(values: object) -> Tensor:
    return torch.tensor(values, dtype=torch.float64)


def prioritised(kpis: list[float], gamma: float) -> Tensor:
    return tensor([-((1 - kpi) ** gamma) * math.log(kpi) for kpi in kpis])


def geometric(losses: list[float], shares: list[float]) -> Tensor:
    """The gradient of Π L^v by the losses."""
    given = tensor(losses).requires_grad_()
    (gradient,) = torch.autograd.grad((given ** tensor(shares)).prod(), given)
    return gradient


@pytest.mark.parametrize(("name", "options"), OPTIONS)
def test_they_keep_what_motet_relies_on(name, options):
    check_method(lambda: methods.get(name, **options))


# DTP


def test_dtp_weighs_the_likelihood_of_its_losses_until_there_is_a_report():
    method = DTP(gamma=2.0, alpha=0.25)
    assert_close(method.weights(LOSSES), prioritised([math.exp(-0.5), math.exp(-2)], 2.0))
    second = [0.75 * math.exp(-0.5) + 0.25 * math.exp(-1), 0.75 * math.exp(-2) + 0.25 * math.exp(-0.1)]
    assert_close(method.weights(tensor([1.0, 0.1])), prioritised(second, 2.0))


def test_dtp_weighs_the_average_of_reports():
    method = DTP(gamma=2.0, alpha=0.25)
    method.weights(LOSSES)
    method.report([0.8, 0.4])
    assert_close(method.weights(LOSSES), prioritised([0.8, 0.4], 2.0))
    method.report(tensor([0.9, 0.2]))
    for losses in (LOSSES, LOSSES / 100):
        assert_close(method.weights(losses), prioritised([0.825, 0.35], 2.0))


def test_focus_zero_leaves_the_logarithm():
    method = DTP(gamma=0.0)
    assert_close(method.weights(LOSSES), LOSSES)


def test_a_solved_task_and_a_hopeless_one_have_finite_weights():
    method = DTP()
    method.report([1.0, 0.0])
    weights = method.weights(LOSSES)
    assert 0 < weights[0] < 1e-10
    assert_close(weights[1], tensor(-(1 - 1e-6) * math.log(1e-6)))


def test_a_loss_below_zero_counts_as_solved():
    assert DTP().weights(tensor([-3.0, 1.0]))[0] < 1e-10


# AMTL


@pytest.mark.parametrize("normalise", ["softmax", "sum"])
def test_amtl_descends_the_weighted_geometric_mean(normalise):
    method = AMTL(single=[0.9, 0.6], margin=0.1, gamma=2.0, normalise=normalise, alpha=0.5)
    method.report([0.8, 0.2])
    method.report([0.9, 0.3])
    left = [(1 - 0.85 / (1.1 * 0.9)) ** 2, (1 - 0.25 / (1.1 * 0.6)) ** 2]
    terms = [math.exp(each) for each in left] if normalise == "softmax" else left
    assert_close(method.weights(LOSSES), geometric([0.5, 2.0], [term / sum(terms) for term in terms]))


def test_amtl_goes_by_likelihood_until_there_is_a_report():
    left = [(1 - math.exp(-loss) / 1.05) ** 2 for loss in (0.5, 2.0)]
    shares = [term / sum(left) for term in left]
    assert_close(AMTL(normalise="sum").weights(LOSSES), geometric([0.5, 2.0], shares))


def test_a_task_that_has_reached_its_aim_gives_way_and_all_together_share():
    method = AMTL(single=0.5, normalise="sum", alpha=1.0)
    method.report([0.6, 0.1])
    assert_close(method.weights(LOSSES), tensor([0.0, 1.0]))
    method.report([0.6, 0.9])
    assert_close(method.weights(LOSSES), geometric([0.5, 2.0], [0.5, 0.5]))


@given(exponents=st.lists(st.floats(-6, 6), min_size=2, max_size=2))
def test_with_reports_amtls_direction_is_free_of_scale(exponents):
    scale, updates = 10 ** tensor(exponents), []
    for factors in (torch.ones(2), scale):
        method = AMTL()
        method.report([0.8, 0.2])
        updates.append(method.weights(LOSSES * factors) * factors)
    assert_close(updates[1] / updates[1].sum(), updates[0] / updates[0].sum())


def test_accuracies_may_have_any_unit_if_the_single_tasks_have_it_too():
    percent, plain = AMTL(single=90.0), AMTL(single=0.9)
    percent.report([80.0, 20.0])
    plain.report([0.8, 0.2])
    assert_close(percent.weights(LOSSES), plain.weights(LOSSES))


def test_the_single_task_accuracies_stay_with_their_tasks():
    whole, part = AMTL(single=[0.9, 0.4, 0.6]), AMTL(single=[0.9, 0.6])
    with whole.on_tasks(torch.tensor([0, 2]), 3):
        weights = whole.weights(LOSSES)
    assert_close(weights, part.weights(LOSSES))


# Reports


@pytest.mark.parametrize("kind", BOTH)
def test_a_task_that_was_not_measured_keeps_its_kpi(kind):
    method = kind()
    method.report([0.8, 0.4])
    method.report([NAN, 0.6])
    assert_close(method.state_dict()["kpi"], tensor([0.8, 0.42]))


@pytest.mark.parametrize("kind", BOTH)
def test_a_task_without_a_report_goes_on_by_its_loss(kind):
    method = kind(alpha=1.0)
    method.report([NAN, 0.4])
    method.weights(LOSSES)
    assert_close(method.state_dict()["kpi"], tensor([math.exp(-0.5), 0.4]))


@pytest.mark.parametrize("kind", BOTH)
def test_reports_come_before_the_first_step_and_before_a_new_task(kind):
    method = kind()
    method.report([0.8])
    method.report([0.8, 0.3])
    method.weights(LOSSES)
    assert_close(method.state_dict()["kpi"], tensor([0.8, 0.3]))


@pytest.mark.parametrize("kind", BOTH)
def test_reports_survive_a_checkpoint(kind):
    method, resumed = kind(), kind()
    method.weights(LOSSES)
    method.report([0.8, 0.4])
    resumed.load_state_dict(method.state_dict())
    assert torch.equal(resumed.weights(LOSSES), method.weights(LOSSES))


@pytest.mark.parametrize("kind", BOTH)
@pytest.mark.parametrize("bad", [[-0.1, 0.5], [0.5, math.inf], [0.5], 0.5])
def test_a_report_that_makes_no_sense_is_an_error_and_changes_nothing(kind, bad):
    method = kind()
    method.weights(LOSSES)
    before = method.state_dict()
    with pytest.raises(ValueError, match="KPI"):
        method.report(bad)
    assert all(torch.equal(value, before[name]) for name, value in method.state_dict().items())


def test_dtp_takes_no_percentages():
    with pytest.raises(ValueError, match="from 0 to 1"):
        DTP().report([80.0, 40.0])


@pytest.mark.parametrize(
    ("name", "options"),
    [
        ("dtp", {"gamma": -1.0}),
        ("dtp", {"alpha": 0.0}),
        ("amtl", {"alpha": 1.5}),
        ("amtl", {"single": 0.0}),
        ("amtl", {"single": [0.5, NAN]}),
        ("amtl", {"margin": -0.1}),
        ("amtl", {"gamma": -0.1}),
        ("amtl", {"normalise": "mean"}),
    ],
)
def test_an_option_out_of_range_is_named(name, options):
    (option,) = options
    with pytest.raises(ValueError, match=option):
        methods.get(name, **options)
