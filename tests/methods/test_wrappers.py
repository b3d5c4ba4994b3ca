"""What a wrapper adds to a method, and what it leaves as it was."""

import pytest
import torch
import torchjd.aggregation
from torch import Tensor
from torch.testing import assert_close

from motet import methods
from motet.linalg import gram as gram_of
from motet.methods import EMA, SI, Every, FairGrad, LogLosses, Method, NashMTL, PCGrad, Preference, Sum
from motet.testing import check_method
from tests.matrices import jacobian

R = torch.tensor([1.0, 2.0, 3.0], dtype=torch.float64)
LOSSES = torch.tensor([0.5, 2.0, 4.0], dtype=torch.float64)


def grams(count: int) -> list[Tensor]:
    return [gram_of(jacobian("strong", 3, seed)) for seed in range(count)]


class Counted(methods.GramMethod):
    """Counts how often it is asked."""

    def __init__(self) -> None:
        super().__init__()
        self.asked = 0

    def weights(self, gram: Tensor) -> Tensor:
        self.asked += 1
        return gram.diagonal()


@pytest.mark.parametrize(
    "wrapped",
    [
        EMA("fair-grad"),
        EMA("uw"),
        EMA(PCGrad(), beta=0.0),
        LogLosses("mgda"),
        LogLosses("sum"),
        LogLosses("grad-drop"),
        Every(3, "nash-mtl"),
        Every(2, PCGrad()),
        Preference("mgda", [1.0] * 5),
        Preference("uw", [1.0] * 5),
        EMA(LogLosses(Every(3, "upgrad"))),
        Every(3, EMA(LogLosses("cagrad"))),
    ],
    ids=repr,
)
def test_a_wrapped_method_passes_the_conformance_suite(wrapped):
    check_method(wrapped)


def test_ema_is_cr_mogm():
    theirs = torchjd.aggregation.CRMOGMWeighting(torchjd.aggregation.IMTLGWeighting(), 0.8)
    ours = EMA("imtl-g", beta=0.8)
    for gram in grams(6):
        assert_close(ours.weights(gram), theirs(gram))


def test_ema_of_nothing_is_the_method():
    for gram in grams(3):
        assert_close(EMA(NashMTL(), beta=0.0).weights(gram), NashMTL().weights(gram))


def test_ema_starts_a_new_task_at_its_own_weight():
    method = EMA(Counted(), beta=0.9)
    with method.on_tasks(torch.tensor([0, 1]), 2):
        method.weights(torch.diag(torch.tensor([1.0, 1.0]).double()))
    with method.on_tasks(torch.tensor([0, 2]), 3):
        weights = method.weights(torch.diag(torch.tensor([2.0, 5.0]).double()))
    assert_close(weights, torch.tensor([1.1, 5.0], dtype=torch.float64))


def test_log_losses_of_the_sum_is_scale_invariance():
    assert_close(LogLosses(Sum()).weights(LOSSES), SI().weights(LOSSES))


def test_log_losses_ignore_the_unit_of_any_task():
    rows, factors = jacobian("strong", 3, 0), torch.tensor([1e3, 1.0, 1e-2], dtype=torch.float64)

    def update(losses: Tensor, rows: Tensor) -> Tensor:
        method = LogLosses("mgda")
        return method.direction(method.loss_weights(losses)[:, None] * rows)

    assert_close(update(LOSSES * factors, rows * factors[:, None]), update(LOSSES, rows))


def test_every_asks_each_nth_step_and_keeps_the_weights_in_between():
    inner = Counted()
    method, seen = Every(3, inner), []
    for step in range(7):
        known = method.known_weights(LOSSES)
        seen.append(method.weights(torch.diag(R + step)) if known is None else known)
    assert inner.asked == 3
    for start, kept in ((0, 3), (3, 6)):
        assert all(torch.equal(weights, R + start) for weights in seen[start:kept])


def test_every_asks_at_once_for_a_task_it_has_not_seen():
    method = Every(10, Counted())
    with method.on_tasks(torch.tensor([0, 1]), 2):
        method.weights(torch.eye(2).double())
        assert method.known_weights(LOSSES[:2]) is not None
    with method.on_tasks(torch.tensor([1, 2]), 3):
        assert method.known_weights(LOSSES[1:]) is None


def test_a_preference_of_the_sum_is_the_weighted_sum():
    assert_close(Preference("sum", R).weights(LOSSES), R / R.mean())


def test_a_preference_scales_losses_and_gradients():
    rows, r = jacobian("strong", 3, 0), (R / R.mean())[:, None]
    assert_close(Preference("mgda", R).direction(rows), methods.MGDA().direction(rows * r))
    gram = gram_of(rows)
    assert_close(Preference("mgda", R).weights(gram) @ rows, methods.MGDA().direction(rows * r))
    assert_close(Preference("nash-mtl", R).direction(rows), NashMTL().direction(rows))


def test_an_equal_preference_changes_nothing():
    gram = grams(1)[0]
    assert_close(Preference("cagrad", [7.0] * 3).weights(gram), methods.CAGrad().weights(gram))


def test_promises_of_no_conflict_pass_where_they_hold():
    assert LogLosses("mgda").no_conflict
    assert Preference("upgrad", R).no_conflict
    assert not EMA("upgrad").no_conflict
    assert not Every(2, "upgrad").no_conflict


@pytest.mark.parametrize("make", [lambda: EMA(FairGrad()), lambda: EMA(LogLosses(Every(2, PCGrad())))])
def test_a_saved_state_goes_on_bit_for_bit_with_what_is_inside(make):
    def run(method: Method, first: int, last: int) -> list[Tensor]:
        found = []
        for gram in grams(last)[first:]:
            known = method.known_weights(LOSSES)
            found.append(method.weights(gram) if known is None else known)
        return found

    whole, resumed = make(), make()
    run(whole, 0, 5)
    resumed.load_state_dict(whole.state_dict())
    for one, other in zip(run(whole, 5, 9), run(resumed, 5, 9), strict=True):
        assert torch.equal(one, other)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: EMA("mgda", beta=1.0), "beta .* below 1"),
        (lambda: EMA("grad-drop"), "direction and no weights"),
        (lambda: Every(0, "mgda"), "whole number of at least 1"),
        (lambda: Every(2.5, "mgda"), "whole number of at least 1"),
        (lambda: Every(2, "uw"), "needs no gradients"),
        (lambda: Every(2, "grad-drop"), "direction and no weights"),
        (lambda: LogLosses("gls"), "logarithms of losses are not"),
        (lambda: Preference("mgda", [1.0, 0.0]), "positive number a task"),
        (lambda: Preference("mgda", [1.0, float("nan")]), "positive number a task"),
        (lambda: Preference("mgda", R).weights(torch.eye(4)), "3 values, one a task, and there are 4"),
        (lambda: EMA("mgdaa"), "did you mean 'mgda'"),
    ],
)
def test_what_can_not_be_wrapped_is_refused_with_the_reason(make, message):
    with pytest.raises(ValueError, match=message):
        make()


def test_a_class_in_place_of_an_object_is_refused():
    with pytest.raises(TypeError, match=r"write FairGrad\(\)"):
        EMA(FairGrad)
    with pytest.raises(TypeError, match="motet method or its name"):
        LogLosses(3)
