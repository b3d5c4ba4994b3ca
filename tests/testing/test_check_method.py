"""The conformance check passes what motet has, and finds what it says it finds."""

import math
import re
from itertools import count

import pytest
import torch

from motet import methods
from motet.linalg import as_double, combine
from motet.linalg import gram as gram_of
from motet.methods import GramMethod, JacobianMethod, LossMethod
from motet.testing import MethodReport, check_method
from tests.oracles import ORACLES

STEPS = count()
"""For a method whose state lives outside of it."""


class Even(GramMethod):
    """A method of a user's own that keeps everything: the mean gradient."""

    def weights(self, gram):
        return as_double(gram.detach()).new_ones(len(gram)) / len(gram)


class Normalised(Even):
    def weights(self, gram):
        return 1 / gram.detach().diagonal().sqrt()


class First(Even):
    def weights(self, gram):
        return super().weights(gram) * torch.linspace(1, 2, len(gram))


class KeepsGraph(LossMethod):
    def weights(self, losses):
        return losses / losses.detach().sum().clamp(min=1) if (losses > 0).all() else losses


class NormalisesInPlace(Even):
    def weights(self, gram):
        gram /= gram.diagonal().max().clamp(min=1e-300)
        return super().weights(gram)


class ClampsInPlace(JacobianMethod):
    def direction(self, jacobian):
        return jacobian.detach().clamp_(-1, 1).sum(0)


class Counts(Even):
    def __init__(self):
        super().__init__()
        self.steps = 0

    def weights(self, gram):
        self.steps += 1
        return super().weights(gram) / self.steps


class CountsForAll(Even):
    def weights(self, gram):
        return super().weights(gram) * (1 + next(STEPS))


class Averages(LossMethod):
    """Keeps everything: weights from a moving average of the losses that leaves out what is not finite."""

    def weights(self, losses):
        losses = as_double(losses.detach())
        mean = self.recall("mean", losses, 1.0)
        mean = torch.where(losses.isfinite(), 0.9 * mean + 0.1 * losses, mean)
        self.remember("mean", mean)
        return mean


class FadesAbsent(Averages):
    def weights(self, losses):
        self._state = {name: 0.9 * value for name, value in self._state.items()}
        return super().weights(losses)


class RemembersAnything(Averages):
    def weights(self, losses):
        mean = self.recall("mean", as_double(losses), 1.0)
        self.remember("mean", 0.9 * mean + 0.1 * losses)
        return mean


class LendsState(Averages):
    def state_dict(self):
        return self._state

    def remember(self, name, values):
        if self._rows is None:
            self._state[name].copy_(values)
        else:
            super().remember(name, values)


class SavesNumbers(Averages):
    def state_dict(self):
        return {**super().state_dict(), "rate": 0.1}


class OtherDirection(Even):
    def direction(self, jacobian):
        return 2 * super().direction(jacobian)


class DrawsFromTorch(Even):
    def weights(self, gram):
        return torch.rand(len(gram), dtype=torch.float64)


class DrawsOwn(Even):
    """Keeps everything, though the tasks' order matters to it."""

    def __init__(self):
        super().__init__()
        self.use_generator(None)

    def weights(self, gram):
        return torch.rand(len(gram), generator=self.generator, dtype=torch.float64)


class HidesGenerator(DrawsOwn):
    def state_dict(self):
        return {}

    def load_state_dict(self, state):
        pass


class TakesAnyLoss(LossMethod):
    lower_bound = 0.0

    def weights(self, losses):
        return 1 / losses.detach().abs().clamp(min=1e-30)


class NamesNoLoss(LossMethod):
    lower_bound = 0.0

    def weights(self, losses):
        if not (losses > 0).all():
            raise ValueError("losses must be positive")
        return torch.ones_like(losses)


class RefusesLosses(LossMethod):
    def weights(self, losses):
        if not (losses > 0).all():
            raise ValueError("losses must be positive")
        return torch.ones_like(losses)


class Column(Even):
    def weights(self, gram):
        return super().weights(gram)[:, None]


class Widens(JacobianMethod):
    def direction(self, jacobian):
        return jacobian.detach().double().sum(0)


class Coarse(JacobianMethod):
    def direction(self, jacobian):
        return (
            jacobian.detach().sum(0) if jacobian.dtype == torch.float64 else jacobian.detach().sum(0).bfloat16().float()
        )


class Wordy(Even):
    def weights(self, gram):
        self.converged = "yes"
        return super().weights(gram)


class Decomposes(Even):
    def weights(self, gram):
        return torch.linalg.eigh(gram.detach())[0].clamp(min=0).mean().expand(len(gram))


BROKEN = [
    (Normalised, "tasks with zero gradients: weights came out as .*inf.*finite: look for a division by zero"),
    (First, "the tasks in another order: the update is off by .*treat all tasks alike"),
    (KeepsGraph, "inputs that require gradients: weights came out with a graph.*detach the input"),
    (NormalisesInPlace, "a step: gram changed in place, and must stay as given: clone"),
    (ClampsInPlace, "a step: jacobian changed in place"),
    (Counts, "a resume from the saved state: the updates are not those of an uninterrupted run.*self.remember"),
    (CountsForAll, "the same steps twice: two new copies gave different updates.*self.remember"),
    (FadesAbsent, "a task absent from a step: its rows of the state 'mean' changed, and must stay"),
    (RemembersAnything, "a loss of nan, a loss of inf: it stays in the state 'mean'.*finite numbers only"),
    (LendsState, "a resume from the saved state: the saved state changed as the method went on.*clone"),
    (SavesNumbers, "a resume from the saved state: state_dict holds 'rate', and must hold tensors only"),
    (OtherDirection, "direction.J. beside weights.J Jᵀ.: direction is off Jᵀw by 1 of its largest entry"),
    (DrawsFromTorch, "the same steps twice: torch's global generator moved.*self.use_generator"),
    (HidesGenerator, "a resume from the saved state: the updates are not those of an uninterrupted run"),
    (TakesAnyLoss, "a loss of 0, a loss of -1: was accepted.*ValueError that names its index.*self.above_bound"),
    (NamesNoLoss, "a loss of 0, a loss of -1: the error does not name the loss, whose index is 3: losses must be"),
    (
        RefusesLosses,
        "zero losses and no lower_bound, negative .*: raised ValueError, and must give an answer: losses must",
    ),
    (Column, r"weights came out in the shape \(5, 1\) from torch.float64, and must have the shape \(5,\)"),
    (Widens, "direction came out in torch.float64 from torch.float32, and must have the dtype of the Jacobian"),
    (Coarse, "float32 in place of float64: the update is off by .*compute in float64"),
    (Wordy, "a step: converged came out as 'yes', and must be a bool"),
    (Decomposes, "a gradient of nan, a gradient of inf: raised _LinAlgError.*raise a ValueError"),
]

CASCADES = [Normalised, Column, OtherDirection]
"""Where one thing that is wrong shows on several inputs, in numbers of their own."""


def faults(method):
    with pytest.raises(AssertionError) as caught:
        check_method(method)
    heading, *lines = str(caught.value).split("\n- ")
    assert heading.endswith("does not keep what motet relies on:")
    return lines


@pytest.mark.parametrize("name", methods.available())
def test_every_method_of_the_registry_passes_beside_its_definition_where_there_is_an_oracle(name):
    assert check_method(methods.get(name), oracle=ORACLES.get(name)) is None


@pytest.mark.parametrize(
    "make",
    [
        lambda: methods.GradSim(main=3),
        lambda: methods.GradSim(main=4, weighted=True),
        lambda: methods.MetaBalance(main=4),
        lambda: methods.OLAUX(main=2, steps=1),
        lambda: methods.AutoLambda(main=(0, 2)),
        lambda: methods.PIVRG(baseline=[0.1, 0.2, 0.3, 0.4, 0.5]),
    ],
)
def test_a_method_with_a_task_of_its_own_choice_passes(make):
    assert check_method(make) is None


def test_a_method_that_wants_more_tasks_than_there_are_is_refused():
    with pytest.raises(ValueError, match=r"GradSim\(main=5, .* wants 6 tasks or more, and check_method works with 5"):
        check_method(lambda: methods.GradSim(main=5))


def test_too_few_tasks_are_a_fault_where_the_method_does_not_say_so():
    method = methods.GradSim(main=3)
    method.least_tasks = 1
    assert any("main names the task 3" in line for line in faults(method))


@pytest.mark.parametrize("baseline", [[1.0, 0.0], [1.0, math.inf], [1.0, math.nan], 1.0, [[1.0, 2.0]]])
def test_pivrg_refuses_a_baseline_that_is_not_one_loss_a_task(baseline):
    with pytest.raises(ValueError, match="baseline of PIVRG"):
        methods.PIVRG(baseline=baseline)


@pytest.mark.parametrize(
    "make", [lambda: methods.DBMTL(beta=0.9), lambda: methods.DWA(window=1), lambda: methods.STCH(warmup=1)]
)
def test_methods_whose_state_is_all_in_use_from_the_second_step_on_pass(make):
    check_method(make)


@pytest.mark.parametrize("make", [lambda: methods.FAMO(lower_bound=-2.0), lambda: methods.FAMO(lower_bound=3.0)])
def test_methods_with_a_bound_of_their_own_pass(make):
    check_method(make)


@pytest.mark.parametrize("own", [Even, Averages, DrawsOwn])
def test_a_method_of_ones_own_passes(own):
    check_method(own)


@pytest.mark.parametrize(("broken", "line"), BROKEN, ids=lambda value: getattr(value, "__name__", ""))
def test_what_is_wrong_is_one_line(broken, line):
    found = faults(broken)
    assert any(re.search(line, fault) for fault in found), found
    assert broken in CASCADES or len(found) == 1, found


def test_all_faults_are_reported_together():
    class Poor(First):
        def weights(self, gram):
            return super().weights(gram) * (1 if gram.any() else torch.nan)

    found = "\n".join(faults(Poor))
    assert "all gradients zero" in found
    assert "another order" in found


def test_a_method_that_always_fails_is_one_line():
    class Missing(GramMethod):
        def weights(self, gram):
            raise KeyError("no such\nthing")

    found = faults(Missing)
    assert all("raised KeyError" in fault for fault in found)
    assert len(found) <= 3, found


def test_the_same_check_says_the_same():
    assert faults(First) == faults(First)


def test_instances_classes_functions_and_names_will_do():
    for method in (methods.RLW(), methods.RLW, lambda: methods.RLW(), "rlw"):
        check_method(method)


def test_the_method_given_is_not_stepped():
    method = methods.RLW()
    before = method.state_dict()["generator"]
    check_method(method)
    assert torch.equal(method.state_dict()["generator"], before)


def test_torchs_generator_stays_where_it_was():
    before = torch.get_rng_state()
    faults(DrawsFromTorch)
    assert torch.equal(torch.get_rng_state(), before)


def test_it_works_where_gradients_are_off():
    with torch.no_grad():
        assert "graph" in faults(KeepsGraph)[0]


def test_a_method_that_has_made_steps_is_refused():
    method = methods.UW()
    method.weights(torch.ones(3))
    with pytest.raises(ValueError, match=r"UW.*holds the state log_variance.*pass a new one"):
        check_method(method)


def test_what_is_no_method_is_refused():
    with pytest.raises(TypeError, match="must derive from LossMethod, GramMethod or JacobianMethod"):
        check_method(dict)


def test_the_report_measures_the_plain_sum():
    report = check_method("sum", report=True)
    assert isinstance(report, MethodReport)
    assert report.length_agreeing == pytest.approx(5)
    assert report.length_conflicting == pytest.approx(5)
    assert report.scale_exponent == 1
    assert report.worst_cosine < -0.5
    assert not report.never_conflicted


@pytest.mark.parametrize(
    ("name", "exponent", "never"),
    [("nash-mtl", 0, True), ("fair-grad", -0.333, True), ("mgda", 1, True), ("gls", 1, False), ("cagrad", 1, False)],
)
def test_the_report_measures_scale_and_conflict(name, exponent, never):
    report = check_method(name, report=True)
    assert report.scale_exponent == exponent
    assert report.never_conflicted is never
    if name == "nash-mtl":
        assert report.length_conflicting > 2 * report.length_agreeing


def test_a_scale_that_is_no_power_is_none():
    class Saturates(JacobianMethod):
        def direction(self, jacobian):
            return jacobian.detach().sum(0).tanh()

    assert check_method(Saturates, report=True).scale_exponent is None


def test_a_gram_methods_direction_carries_no_graph():
    rows = torch.eye(3).requires_grad_()
    assert not Even().direction(rows).requires_grad
    assert torch.equal(Even().direction(rows), combine(Even().weights(gram_of(rows)), rows).detach())


@pytest.mark.parametrize("make", [methods.UW, methods.IMTLL])
def test_a_loss_that_is_not_finite_does_not_teach_its_weight(make):
    hurt, spared = make(), make()
    for method, loss in ((hurt, torch.nan), (spared, None)):
        method.weights(torch.tensor([1.0, 2.0]))
        if loss is None:
            with method.on_tasks(torch.tensor([0]), 2):
                method.weights(torch.tensor([3.0]))
        else:
            method.weights(torch.tensor([3.0, loss]))
    for name, value in spared.state_dict().items():
        assert torch.equal(hurt.state_dict()[name], value)


def test_an_infinite_loss_is_named():
    with pytest.raises(ValueError, match="SI needs finite losses; loss 1 is inf"):
        methods.SI().weights(torch.tensor([1.0, torch.inf]))


def test_db_mtl_forgets_a_gradient_that_is_not_finite():
    method, rows = methods.DBMTL(beta=0.9), torch.eye(3)
    method.direction(rows)
    before = method.state_dict()
    assert not method.direction(rows.index_fill(0, torch.tensor([1]), torch.nan)).isfinite().any()
    assert all(torch.equal(value, before[name]) for name, value in method.state_dict().items())
