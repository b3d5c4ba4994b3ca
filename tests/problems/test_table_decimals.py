"""Decimal commas: read where a file has them, and left alone where it may not."""

import numpy as np
import pandas as pd
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from motet.problems.table import from_table
from motet.problems.table.decimals import decimal_commas
from motet.problems.table.reading import read
from tests.problems.tables import TARGETS, patients


@pytest.fixture
def save(tmp_path):
    """Write lines of three columns, twenty times over, and return the path."""

    def write(*lines, sep=";"):
        path = tmp_path / "table.csv"
        path.write_text("\n".join(["x;d;y", *lines * 20, ""]).replace(";", sep))
        return path

    return write


@pytest.mark.parametrize("sep", [";", "\t"])
def test_decimal_commas_are_read_and_told(tmp_path, sep):
    table = patients()
    table.to_csv(tmp_path / "table.csv", sep=sep, decimal=",", index=False)
    problem = from_table(tmp_path / "table.csv", TARGETS)
    data, expected = problem.load(0), from_table(table, TARGETS).load(0)
    torch.testing.assert_close(data.train.inputs, expected.train.inputs)
    torch.testing.assert_close(data.test.targets["survival"], expected.test.targets["survival"], equal_nan=True)
    assert "decimal commas read in 'age', 'survival'" in problem.describe()


def test_points_are_separators_for_thousands_where_commas_are_decimal(save):
    table, notes = read(save("1.234,5;1.234;0,5", "17,25;999;0,25", "-3,0;12.500;1e3"))
    assert table["x"].tolist()[:3] == [1234.5, 17.25, -3.0]
    assert table["d"].tolist()[:3] == [1234, 999, 12500]
    assert table["y"].tolist()[:3] == [0.5, 0.25, 1000]
    assert "points read as separators for thousands, as in 1.234, in 'd'" in notes


def test_three_places_after_every_comma_are_decimals_in_a_file_with_semicolons_and_no_points(save):
    assert read(save("1,234;a;1", "12,345;b;2"))[0]["x"].tolist()[:2] == [1.234, 12.345]
    assert read(save("1,234;a;1", "12,345;b;2", sep="\t"))[0]["x"].tolist()[:2] == ["1,234", "12,345"]


def test_marks_and_stray_texts_do_not_hide_decimal_commas(save):
    table, _ = read(save("1,5;0,1;n/d", "2,5;0,2;3,5", "72 kg;0,3;4,5"))
    assert table["x"].tolist()[:3] == ["1.5", "2.5", "72 kg"]
    assert table["y"].tolist()[:3] == ["n/d", "3.5", "4.5"]


@pytest.mark.parametrize("sep", [";", "\t"])
def test_commas_for_thousands_beside_decimal_points_are_no_decimal_commas(save, sep):
    table, notes = read(save("1,234;a;0.5", "12,345;b;0.25", sep=sep))
    assert table["x"].tolist()[:2] == ["1,234", "12,345"]
    assert len(notes) == 1


def test_words_dates_and_lists_of_codes_are_no_decimal_commas(save):
    table, notes = read(save("a, b;31.01.2026;1,2,3", "c;01.02.2026;1,2"))
    assert table.iloc[0].tolist() == ["a, b", "31.01.2026", "1,2,3"]
    assert len(notes) == 1


@settings(deadline=None, max_examples=40)
@given(st.lists(st.one_of(st.integers(-(10**9), 10**9), st.floats(-1e9, 1e9)), min_size=1, max_size=20))
def test_any_numbers_survive_decimal_commas(numbers):
    text = [str(float(number)).replace(".", ",") for number in numbers]
    # This column decides: without it, 1,234 alone might be a thousand and more.
    raw = pd.DataFrame({"x": pd.Series(text, dtype=str), "half": ["0,5"] * len(text)})
    found, _ = decimal_commas(raw, raw, semicolons=False)
    assert found["x"].tolist() == [float(number) for number in numbers]


def test_numbers_with_commas_that_stay_text_are_warned_of():
    r = np.random.default_rng(0)
    table = pd.DataFrame({"x": r.normal(size=60), "y": r.normal(size=60)})
    table["price"] = [f"{number:,}" for number in r.integers(1000, 10**7, 60)]
    (warning,) = from_table(table, ["y"]).warnings
    assert warning.startswith("column 'price' looks like numbers with commas, such as '")
    assert warning.endswith("and is left out: write 1234.5")
