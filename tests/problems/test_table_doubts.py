"""Columns that are not what they look like: marks, dates, identifiers, copies of rows."""

import re

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from motet.problems.table import from_table
from motet.problems.table.columns import features
from motet.problems.table.leaks import _renames
from tests.problems.tables import TARGETS, patients, refuses


def noise(rows=60, **columns):
    r = np.random.default_rng(0)
    return pd.DataFrame({"x": r.normal(size=rows), "y": r.normal(size=rows), **columns})


# Marks of missing values, and targets that mix numbers and text


def test_marks_among_numbers_are_missing_values_and_told():
    table = noise(100, blood=np.random.default_rng(1).choice(["+", "-"], 100)).astype(str)
    table.loc[:9, "x"] = "n/d"
    table.loc[10:14, "y"] = "?"
    problem = from_table(table, ["y"])
    assert {c.name: (c.kind, c.detail) for c in problem.columns} == {
        "y": ("regression", "95 of 100 labelled, type inferred"),
        "x": ("number", "10 missing"),
        "blood": ("category", "2 values"),
    }
    assert "column 'x': 'n/d' among its numbers read as missing, 10 of 100" in problem.describe()
    assert not problem.warnings


def test_declared_categories_keep_their_marks():
    kept = noise(60, grade=pd.Categorical(["1", "2", "?"] * 20))
    assert "grade" in features(kept).categories
    assert {c.name: c.kind for c in from_table(kept, ["y"]).columns}["grade"] == "category"


def test_a_target_of_one_number_and_a_mark_is_nothing_to_learn():
    table = noise(300, mixed=["3.5"] * 270 + ["n/d"] * 30)
    refuses("'mixed' is '3.5' in all 270 labelled rows: nothing to learn", table, ["mixed"])


def test_a_target_that_mixes_numbers_and_text_is_warned_of_unless_its_type_is_given():
    table = noise(300, mixed=["3.5"] * 270 + ["lost"] * 30).drop(columns="y")
    (warning,) = from_table(table, ["mixed"]).warnings
    assert "target 'mixed' mixes numbers ('3.5' …) and text ('lost')" in warning
    assert not from_table(table, ["mixed:binary"]).warnings


# Dates and identifiers


@pytest.mark.parametrize("form", ["%d/%m/%Y", "%d.%m.%y", "%Y/%m/%d", "%d-%b-%Y", "%m/%d/%Y %H:%M"])
@pytest.mark.parametrize(("repeat", "use"), [(1, "left out"), (3, "used as categories")])
def test_dates_in_other_formats_are_warned_of(form, repeat, use):
    days = pd.date_range("2025-01-01", periods=90 // repeat).strftime(form)
    (warning,) = from_table(noise(90, visit=np.repeat(days, repeat)), ["y"]).warnings
    assert re.search(
        rf"column 'visit' looks like dates, such as '.*', and is {use}: only dates like 2026-01-31", warning
    )


def test_one_broken_date_is_named():
    days = pd.date_range("2025-01-01", periods=90).strftime("%Y-%m-%d").to_series().reset_index(drop=True)
    days[70] = "2025-02-30"
    (warning,) = from_table(noise(90, visit=days), ["y"]).warnings
    assert "column 'visit' looks like dates, such as '2025-02-30', and is left out" in warning


@pytest.mark.parametrize("name", ["id", "ID", "sample_id", "patientId", "pid", "Row Nr", "MRN", "subject.id"])
def test_whole_numbers_that_differ_under_an_identifiers_name_are_left_out(name):
    r = np.random.default_rng(0)
    table = pd.DataFrame({name: r.permutation(10**6)[:60], "x": r.normal(size=60)})
    assert [column.role for column in features(table).columns] == ["left out", "feature"]
    assert [column.role for column in features(table.rename(columns={name: "acid"})).columns] == ["feature", "feature"]


@pytest.mark.parametrize("text", [False, True])
def test_an_identifier_that_rows_share_is_warned_of(text):
    table = patients().drop(columns="patient")
    table["case_id"] = np.random.default_rng(0).permutation(np.repeat(np.arange(50), 4))
    if text:
        table["case_id"] = "c" + table["case_id"].astype(str)
    (warning,) = from_table(table, TARGETS).warnings
    assert "feature 'case_id' is named like an identifier, and rows share its 50 values" in warning
    assert "--group" in warning
    assert not from_table(table, TARGETS, group="case_id").warnings


@pytest.mark.parametrize(("sign", "word"), [(1, "rises"), (-1, "falls")])
def test_whole_numbers_in_order_are_warned_of(sign, word):
    r = np.random.default_rng(0)
    order = np.cumsum(r.integers(1, 9, 60)) * sign
    (warning,) = from_table(noise(60, order=order, shuffled=r.permutation(order)), ["y"]).warnings
    assert f"feature 'order' is a whole number that {word} from each row to the next" in warning


# Rows that are copies


def doubled(table):
    return pd.concat([table, table]).sample(frac=1, random_state=0).reset_index(drop=True)


def test_rows_that_are_copies_are_warned_of_wherever_they_stand():
    (warning,) = from_table(doubled(patients().drop(columns=["patient", "visit"])), TARGETS).warnings
    assert "rows have copies in the table, with all features alike" in warning
    assert "drop the copies, or keep them together with --group" in warning


def test_copies_with_other_outcomes_are_warned_of():
    """A second measurement of the same thing is as much of a leak."""
    table = doubled(patients().drop(columns=["patient", "visit"]))
    table["survival"] += np.random.default_rng(2).normal(size=400)
    assert any("rows have copies" in warning for warning in from_table(table, TARGETS).warnings)


def test_copies_within_a_group_do_no_harm_and_those_across_groups_do():
    table = doubled(patients().drop(columns=["visit", "patient"]).assign(row=range(200)))
    within, across = table.assign(g=table["row"] % 60), table.assign(g=np.arange(400) % 60)
    assert not from_table(within, TARGETS, group="g", drop="row").warnings
    warnings = from_table(across, TARGETS, group="g", drop="row").warnings
    assert any("rows have copies in other groups" in warning for warning in warnings)


def test_coarse_tables_have_copies_by_chance_and_are_not_warned_of():
    r = np.random.default_rng(0)
    table = pd.DataFrame(r.integers(0, 2, (300, 5)), columns=list("abcde")).assign(y=r.integers(0, 2, 300))
    assert not from_table(table, ["y"]).warnings
    table["y"] = r.normal(size=300)
    assert not from_table(table, ["y"]).warnings
    assert any("features and targets alike" in warning for warning in from_table(doubled(table), ["y"]).warnings)


# Many columns at once


@settings(deadline=None, max_examples=25)
@given(seed=st.integers(0, 10**6), kinds=st.lists(st.integers(0, 5), min_size=1, max_size=6))
def test_many_columns_at_once_are_understood_as_each_alone(seed, kinds):
    r = np.random.default_rng(seed)
    makers = [
        lambda: r.normal(size=12),
        lambda: np.where(r.random(12) < 0.4, np.nan, 1.0),
        lambda: np.full(12, 7),
        lambda: np.arange(12) + 5,
        lambda: np.where(r.random(12) < 0.3, np.inf, r.normal(size=12)),
        lambda: np.full(12, np.nan),
    ]
    table = pd.DataFrame({f"c{i}": makers[kind]() for i, kind in enumerate(kinds)})
    together = features(table)
    # pandas' own "Float64" takes the other way through the code.
    alone = [features(table[[name]].astype("Float64" if i % 2 else "float64")) for i, name in enumerate(table)]
    assert together.columns == tuple(one.columns[0] for one in alone)
    for one in alone:
        pd.testing.assert_frame_equal(one.numbers, together.numbers[list(one.numbers.columns)], check_column_type=False)


@settings(deadline=None, max_examples=40)
@given(seed=st.integers(0, 10**6), rows=st.integers(10, 30))
def test_columns_that_rename_the_classes_are_found_whatever_is_missing(seed, rows):
    """Against the definition: the pairs that occur are one to one."""
    r = np.random.default_rng(seed)
    classes = r.integers(-1, 3, rows)
    values = np.stack([r.permutation(4)[classes], r.integers(0, 3, rows), np.minimum(classes, 1)], axis=1).astype(float)
    values[r.random(values.shape) < 0.2] = np.nan
    for column, found in zip(values.T, _renames(values, classes), strict=True):
        pairs = {(v, c) for v, c in zip(column, classes, strict=True) if c >= 0 and not np.isnan(v)}
        one_to_one = len(pairs) == len({v for v, _ in pairs}) == len({c for _, c in pairs})
        assert found == (one_to_one and len(pairs) > 1)


def test_features_that_are_named_like_outcomes_are_warned_of_and_dropped_ones_are_not():
    table = noise(60, event=[0, 1] * 30, days_to_death=np.random.default_rng(1).random(60))
    (warning,) = from_table(table.rename(columns={"y": "age"}), ["age"]).warnings
    assert "by name, 'event', 'days_to_death' may be outcomes too" in warning
    assert "--drop" in warning
    assert not from_table(table, ["y"], drop=["event", "days_to_death"]).warnings
