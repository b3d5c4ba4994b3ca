"""Numbers in sentences."""

import math

import pytest

from motet.study.wording import number, signed, times


@pytest.mark.parametrize(
    ("value", "said"), [(-0.554, "−0.55"), (12.04, "12.0"), (-0.001, "0.00"), (math.nan, "–"), (1234.5, "1234.5")]
)
def test_a_number_has_a_true_minus_and_few_digits(value, said):
    assert number(value) == said


@pytest.mark.parametrize(("value", "said"), [(0.31, "+0.3"), (-2, "−2.0"), (-0.04, "0.0"), (10.0, "+10.0")])
def test_a_change_has_a_sign_unless_it_is_none(value, said):
    assert signed(value) == said


@pytest.mark.parametrize(
    ("value", "said"), [(968.2, "970×"), (4.74, "4.7×"), (0.0516, "0.052×"), (99.9, "100×"), (math.nan, "–")]
)
def test_a_ratio_has_no_exponent(value, said):
    assert times(value) == said
