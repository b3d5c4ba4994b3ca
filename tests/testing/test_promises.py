"""What a method declares is checked: each promise passes where it is kept, and is one readable line where it is not."""

import re

import pytest
import torch

from motet import methods
from motet.linalg import as_double
from motet.methods import GramMethod, LossMethod, Method, TwoSampleMethod
from motet.methods.ema import EMA
from motet.methods.every import Every
from motet.methods.log_losses import LogLosses
from motet.methods.preference import Preference
from motet.testing import check_method


def faults(method):
    with pytest.raises(AssertionError) as caught:
        check_method(method)
    return str(caught.value).split("\n- ")[1:]


def only_fault(method):
    (fault,) = faults(method)
    return fault


class Even(GramMethod):
    def weights(self, gram):
        return as_double(gram.detach()).new_ones(gram.shape[:-1]) / gram.shape[-1]


class UnitLength(GramMethod):
    """Gradients of length 1, whatever the losses: of scale 0."""

    def weights(self, gram):
        norms = as_double(gram.detach()).diagonal().clamp(min=0).sqrt()
        return torch.where(norms > 0, 1 / norms, 0.0)


@pytest.mark.parametrize("kind", [LossMethod, GramMethod])
def test_a_declared_scale_that_is_another_is_told_the_one_that_fits(kind):
    class Inverse(kind):
        scale = 1.0
        lower_bound = 0.0

        def loss_weights(self, losses):
            return 1 / self.above_bound(losses)

        def weights(self, given):
            return torch.ones_like(given[0]) if given.dim() == 2 else 1 / self.above_bound(given)

    fault = only_fault(Inverse)
    assert re.search(r"the declared scale 1: .*times 1e-06 the update is 1 times as long, and must be 1e-06", fault)
    assert "scale = 0 fits, None is for no law" in fault


def test_a_declared_scale_that_holds_or_is_none_passes():
    class Declares(UnitLength):
        scale = 0.0

    check_method(Declares)
    check_method(UnitLength)


def test_an_update_that_turns_with_the_losses_scale_is_told():
    class Softmax(LossMethod):
        scale = 1.0

        def weights(self, losses):
            weights = losses.detach().softmax(0)
            return weights / (weights.square().sum().sqrt())

    assert any("the declared scale 1: " in fault for fault in faults(Softmax))


def test_the_scale_of_a_method_with_a_bound_is_of_what_exceeds_it():
    class Excess(LossMethod):
        scale = 0.0
        lower_bound = 2.0

        def weights(self, losses):
            return 1 / self.above_bound(losses)

    check_method(Excess)


def test_a_promise_of_no_conflict_that_is_broken_names_the_worst_case():
    class Hopeful(Even):
        no_conflict = True

    fault = only_fault(Hopeful)
    assert re.search(r"the declared no_conflict: at worst \(.*conflict.*\) an update has the cosine -0\.\d+", fault)
    assert "declare no_conflict = False" in fault


def test_a_promise_of_no_conflict_holds_for_later_steps_too():
    class Stale(Method):
        """Keeps none for its first step's sake: MGDA's first weights for ever."""

        needs = "gram"
        no_conflict = True

        def weights(self, gram):
            weights = methods.MGDA().weights(gram)
            kept = self.recall("kept", weights, -1.0)
            self.remember("kept", torch.where(kept < 0, weights, kept))
            return torch.where(kept < 0, weights, kept)

        direction = GramMethod.direction

    assert re.search(r"at worst \(step [2-5] of a run\)", "\n".join(faults(Stale)))


class Ranked(GramMethod):
    """The first task counts double."""

    def weights(self, gram):
        weights = as_double(gram.detach()).new_ones(len(gram))
        weights[0] = 2.0
        return weights


def test_only_a_symmetric_method_must_not_look_at_the_tasks_order():
    assert "the tasks in another order" in only_fault(Ranked)

    class Declares(Ranked):
        symmetric = False

    check_method(Declares)


@pytest.mark.parametrize("name", [name for name in methods.available() if methods.get(name).batched])
def test_batched_methods_of_the_registry_pass(name):
    check_method(name)


def test_batched_weights_must_be_those_of_each_matrix_alone():
    class Batched(Even):
        batched = True

    class Mixes(Batched):
        def weights(self, gram):
            return super().weights(gram) * gram.detach().double().diagonal(dim1=-2, dim2=-1).sum() / gram.sum()

    class Flattens(Batched):
        def weights(self, gram):
            return super().weights(gram.reshape(-1, *gram.shape[-2:])[0])

    check_method(Batched)
    assert any("the declared batched" in fault and "each matrix alone" in fault for fault in faults(Mixes))
    assert "a stack (6, 5, 5) gave weights (5,), and must give (6, 5)" in only_fault(Flattens)


class Knows(Even):
    """Asks for gradients in every other step."""

    answer = 1.0

    def known_weights(self, losses):
        age = self.recall("age", as_double(losses), 0.0)
        self.remember("age", age + 1)
        return None if (age % 2 == 0).any() else torch.full_like(age, self.answer)


def test_known_weights_are_taken_in_place_of_others():
    check_method(Knows)

    class NoNumber(Knows):
        answer = torch.nan

    assert any("known_weights came out as" in fault for fault in faults(NoNumber))

    class Short(Knows):
        def known_weights(self, losses):
            known = super().known_weights(losses)
            return None if known is None else known[:1]

    assert any("known_weights came out" in fault for fault in faults(Short))


class Weighs(GramMethod):
    """Weights of gradients from the losses' values."""

    lower_bound = 0.0

    def weights(self, gram):
        return 1 / self.above_bound(self.observed(as_double(gram.detach())[0]))


def test_methods_on_gradients_that_read_losses_are_given_all_sorts_of_losses():
    check_method(Weighs)

    class Unbound(Weighs):
        def weights(self, gram):
            return self.observed(as_double(gram.detach())[0]).reciprocal()

    found = "\n".join(faults(Unbound))
    assert "a loss of 0, a loss of -1: was accepted" in found

    class NoBound(Unbound):
        lower_bound = None

    assert "zero losses and no lower_bound: weights came out as [inf" in "\n".join(faults(NoBound))


class Validates(TwoSampleMethod):
    """Weights by how much a task's gradient lowers the losses on the second batch."""

    def pair_weights(self, joint):
        joint = as_double(joint.detach())
        tasks = len(joint) // 2
        gain = joint[:tasks, tasks:].sum(1)
        size = gain.abs().sum()
        gain = torch.where(size > 0, gain / torch.where(size > 0, size, 1.0), 0.0)
        return torch.cat([gain, torch.zeros_like(gain)])


def test_weights_from_two_batches_are_checked():
    check_method(Validates)

    class Half(Validates):
        def pair_weights(self, joint):
            return super().pair_weights(joint)[: len(joint) // 2]

        def weights(self, gram):
            return self.pair_weights(gram.repeat(2, 2))

    assert "a second batch: pair_weights came out in the shape (5,), and must have (10,)" in only_fault(Half)

    class Divides(Validates):
        def pair_weights(self, joint):
            second = joint.detach().double()[len(joint) // 2 :, len(joint) // 2 :].trace()
            return super().pair_weights(joint) / second

        def weights(self, gram):
            return torch.ones_like(gram[0])

    assert "from no gradient on the second batch, and must be finite" in only_fault(Divides)


@pytest.mark.parametrize(
    "make",
    [
        lambda: Every(3, methods.MGDA()),
        lambda: LogLosses(methods.CAGrad()),
        lambda: LogLosses(methods.Sum()),
        lambda: EMA(methods.UW()),
        lambda: EMA(methods.FairGrad()),
        lambda: EMA(LogLosses(methods.MGDA())),
        lambda: Preference(methods.UPGrad(), [1, 2, 3, 4, 5]),
    ],
)
def test_wrappers_are_what_they_wrap(make):
    check_method(make)


def test_a_method_for_another_number_of_tasks_is_refused():
    with pytest.raises(ValueError, match=r"made with 3 values, one a task.*make the method for 5 tasks"):
        check_method(Preference(methods.MGDA(), [1, 2, 3]))


def test_a_wrapped_method_that_has_made_steps_is_refused():
    method = LogLosses(methods.UW(lr=0.1)) if methods.UW.lower_bound is None else EMA(methods.UW())
    method.weights(torch.ones(3))
    with pytest.raises(ValueError, match=r"holds the state .*log_variance.*pass a new one"):
        check_method(method)


def test_what_changes_without_being_saved_is_named():
    class Remembers(Even):
        def __init__(self):
            super().__init__()
            self.history = []

        def weights(self, gram):
            self.history.append(float(gram.detach().diagonal().mean()))
            return super().weights(gram) * len(self.history)

    assert "self.history changed and is not saved; keep all state as tensors" in only_fault(Remembers)


def test_an_error_says_where_it_was_raised():
    class Raises(Even):
        def weights(self, gram):
            return super().weights(gram) if len(gram) > 1 else {}["one task"]

    fault = only_fault(Raises)
    assert re.search(r"one task: raised KeyError, .*'one task' \(line \d+ of test_promises.py\)", fault)
