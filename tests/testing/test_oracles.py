"""Methods beside their definitions, solved in another way; and the comparison itself."""

import re

import numpy as np
import pytest
import torch
from torch.testing import assert_close

from motet import methods
from motet.methods import GramMethod, JacobianMethod, LossMethod
from motet.testing import check_method
from tests.golden.torchjd_values import DIRECTIONS
from tests.matrices import REFERENCE
from tests.oracles import ORACLES, conflict_averse_within, fair

OPTIONS = [
    ("fair-grad", {"alpha": 0.5}, fair(0.5)),
    ("fair-grad", {"alpha": 8.0}, fair(8.0)),
    ("cagrad", {"c": 0.0}, lambda jacobian: jacobian.mean(0)),
    ("cagrad", {"c": 1.0}, conflict_averse_within(1.0)),
    ("cagrad", {"c": 2.0}, conflict_averse_within(2.0)),
]


def test_every_oracle_is_one_of_a_method():
    assert set(ORACLES) <= set(methods.available())


@pytest.mark.parametrize(("name", "options", "oracle"), OPTIONS)
def test_other_options_are_the_definitions_too(name, options, oracle):
    check_method(lambda: methods.get(name, **options), oracle=oracle)


@pytest.mark.parametrize("name", ["mgda", "upgrad", "dual-proj", "imtl-g", "aligned-mtl"])
def test_the_oracles_know_the_published_values(name):
    (expected,) = [direction for known, options, direction in DIRECTIONS if known == name and not options]
    actual = ORACLES[name](jacobian=torch.tensor(REFERENCE, dtype=torch.float64))
    assert_close(torch.as_tensor(actual), torch.tensor(expected, dtype=torch.float64), rtol=0, atol=1e-3)


class Mean(GramMethod):
    def weights(self, gram):
        return torch.full((len(gram),), 1 / len(gram), dtype=torch.float64)


def off_by(share):
    return lambda jacobian: jacobian.mean(0) * (1 + share)


def said(method, oracle):
    with pytest.raises(AssertionError) as caught:
        check_method(method, oracle=oracle)
    return str(caught.value)


@pytest.mark.parametrize("share", [2e-4, -1e-3, 1.0])
def test_a_method_that_is_off_its_definition_is_told_by_how_much(share):
    found = said(Mean, off_by(share))
    assert float(re.search(r"the oracle: at worst .* is off the oracle's by (\S+) of", found)[1]) == pytest.approx(
        abs(share) / (1 + share), rel=0.1
    )


def test_a_difference_below_the_tolerance_passes():
    check_method(Mean, oracle=off_by(5e-5))


@pytest.mark.parametrize(
    "oracle",
    [
        lambda jacobian: jacobian.mean(0),
        lambda jacobian: jacobian.numpy().mean(0),
        lambda gram: [1 / len(gram)] * len(gram),
        lambda losses: np.full(len(losses), 1 / len(losses)),
        lambda gram, jacobian: jacobian.T @ torch.ones_like(gram[0]) / len(gram),
    ],
)
def test_an_oracle_is_given_what_its_parameters_name(oracle):
    check_method(Mean, oracle=oracle)


def test_an_oracle_of_losses_judges_a_method_on_losses():
    class Inverse(LossMethod):
        lower_bound = 0.0

        def weights(self, losses):
            return 1 / self.above_bound(losses)

    check_method(Inverse, oracle=lambda losses: 1 / losses)
    assert "of its largest entry" in said(Inverse, lambda losses: 1 / losses**0.99)


def test_an_oracle_of_gradients_judges_a_method_on_losses_by_its_direction():
    # Both are right on unit vectors.
    check_method("si", oracle=lambda losses, jacobian: (1 / losses) @ jacobian)
    assert "of its largest entry" in said("si", lambda losses, jacobian: (1 / losses) @ jacobian.abs())
    check_method("sum", oracle=lambda gram: [1.0] * len(gram))
    assert "of its largest entry" in said("sum", lambda gram: gram.diagonal())


def test_an_oracle_draws_what_the_method_draws():
    class Draws(JacobianMethod):
        def __init__(self):
            super().__init__()
            self.use_generator(None)

        def direction(self, jacobian):
            return torch.rand(len(jacobian), generator=self.generator).to(jacobian) @ jacobian.detach()

    def drawn(jacobian, generator):
        return torch.rand(len(jacobian), generator=generator).double() @ jacobian

    check_method(Draws, oracle=drawn)
    assert "of its largest entry" in said(Draws, lambda jacobian: torch.rand(len(jacobian)).double() @ jacobian)


def test_an_oracle_without_any_answer_is_a_fault():
    assert "no answer on any input" in said(Mean, lambda jacobian: None)


def test_where_the_definition_is_zero_so_must_the_update_be():
    opposite = "two opposite gradients"

    class NotQuite(Mean):
        def weights(self, gram):
            cancels = len(gram) == 2 and torch.allclose(gram.sum(0), torch.zeros_like(gram[0]), atol=1e-9)
            return super().weights(gram) * (1 + torch.arange(len(gram)) * 1e-3 * cancels)

    assert opposite in said(NotQuite, lambda jacobian: jacobian.mean(0))


@pytest.mark.parametrize(("oracle", "named"), [(lambda matrix: matrix, "matrix"), (lambda: None, "")])
def test_an_oracle_of_anything_else_is_refused(oracle, named):
    with pytest.raises(ValueError, match=rf"the oracle takes \({named}\).*losses, gram, jacobian"):
        check_method(Mean, oracle=oracle)


def test_an_answer_of_another_shape_is_said():
    assert "the oracle's answer has the shape (3,), and must have (13,)" in said(Mean, lambda jacobian: [1.0] * 3)
