"""Numbers in tables: digits, signs, units, and what is missing."""

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from motet.report import numbers
from motet.study.results import Interval


@pytest.mark.parametrize(
    ("value", "text"),
    [(3.24, "+3.2"), (-0.44, "−0.4"), (-0.04, "0.0"), (0.04, "0.0"), (1234.5, "+1\u202f234.5"), (math.nan, "–")],
)
def test_changes_always_show_their_sign_but_zero_has_none(value, text):
    assert numbers.change(value) == text


def test_an_interval_without_bounds_is_left_out():
    assert numbers.bounds(Interval(1.0, math.nan, math.nan)) == ""
    assert numbers.bounds(Interval(1.0, -0.5, 2.0)) == "[−0.5, +2.0]"


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (0.0032, "3.20 ms"),
        (41.2, "41.2 s"),
        (99.99, "100 s"),
        (185, "3 min 05 s"),
        (7800, "2 h 10 min"),
        (3599.7, "1 h 00 min"),
        (0.99996, "1.00 s"),
        (math.nan, "–"),
    ],
)
def test_durations_choose_their_unit(value, text):
    assert numbers.seconds(value).replace("\u202f", " ").replace("\u00a0", " ") == text


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (0.93124, "0.9312"),
        (41.067, "41.07"),
        (1204.4, "1\u202f204"),
        (1.2041e-5, "1.204·10⁻⁵"),
        (0.0, "0.000"),
        (-0.5, "−0.5000"),
        (0.99999, "1.000"),
        (math.inf, "∞"),
    ],
)
def test_results_have_four_significant_digits(value, text):
    assert numbers.measure(value) == text


def test_a_probability_is_never_shown_as_zero():
    assert numbers.probability(1e-9) == "<\u202f0.001"
    assert numbers.probability(0.03125) == "0.031"
    assert numbers.probability(math.nan) == "–"


def test_ratios_and_memory():
    assert [numbers.ratio(v) for v in (1.254, 14.16, 210.0, math.nan)] == ["1.25×", "14.2×", "210×", "–"]
    assert [numbers.mebibytes(v) for v in (0.93, 48.2, 1536.0, math.nan)] == [
        "0.9\u202fMiB",
        "48\u202fMiB",
        "1.5\u202fGiB",
        "–",
    ]


@given(st.floats(allow_nan=True, allow_infinity=True))
def test_no_number_breaks_a_table(value):
    for show in (numbers.change, numbers.ratio, numbers.seconds, numbers.mebibytes, numbers.measure):
        text = show(abs(value) if show is numbers.seconds else value)
        assert text
        assert "-" not in text
        assert "nan" not in text
