"""Outcomes: what is inferred, how they are encoded, and what each mistake is answered with."""

import re

import numpy as np
import pandas as pd
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from scipy import sparse

from motet.estimators.outcomes import Outcome, Survival, check_rows, comparable, encode, read_outcomes

NAN = np.nan


def kinds(Y, outcomes="infer"):
    return {outcome.name: outcome.kind for outcome in read_outcomes(outcomes, Y)}


def read(Y, outcomes="infer"):
    return encode(read_outcomes(outcomes, Y), Y)


def refuses(message, Y, outcomes="infer"):
    with pytest.raises(ValueError, match=message):
        read_outcomes(outcomes, Y)


def patients(rows=40):
    """One outcome of each kind, with gaps."""
    rng = np.random.default_rng(0)
    age, er = rng.normal(60, 10, rows), rng.permutation(np.arange(rows) % 2).astype(float)
    age[3], er[5] = NAN, NAN
    return pd.DataFrame(
        {
            "age": age,
            "er": er,
            "grade": pd.Categorical(rng.choice(["low", "mid", "high"], rows), ["low", "mid", "high"], ordered=True),
            "nodes": rng.permutation(rows),
            "phase": rng.choice(["G1", "S", "G2M"], rows),
            "time": rng.exponential(5, rows),
            "event": np.arange(rows) % 3 == 0,
        }
    )


DECLARED = {
    "age": "continuous",
    "er": "binary",
    "grade": "ordinal",
    "nodes": "count",
    "phase": "nominal",
    "os": Survival("time", "event"),
}


# What is inferred


@pytest.mark.parametrize(
    ("column", "kind"),
    [
        ([True, False, None, True], "binary"),
        (["yes", "no", None, "yes"], "binary"),
        ([1, 2, 1, 2], "binary"),
        ([0.5, 1.5, NAN, 0.5], "binary"),
        (pd.Categorical(["b", "a", "c"] * 2, ["b", "a", "c"], ordered=True), "ordinal"),
        (pd.Categorical(["b", "a", "c"] * 2), "nominal"),
        (pd.Categorical([3, 1, 2] * 2), "nominal"),
        (pd.cut([1, 2, 3, 4, 5, 6], 3), "ordinal"),
        ([1.0, 2.0, 3.0, NAN] * 2, "ordinal"),
        ([-1, 0, 1] * 2, "ordinal"),
        (list(range(11)) * 2, "count"),
        ([0, 1, 2, 3, 4], "count"),
        (list(range(30, 60)), "continuous"),
        (list(range(-30, 30)), "continuous"),
        ([0.5, 1.0, 2.0], "continuous"),
        (["a", "b", "c"] * 2, "nominal"),
        (pd.array([1, 2, None, 3, 1, 2, 3], dtype="Int64"), "ordinal"),
        (pd.array([True, None, False], dtype="boolean"), "binary"),
    ],
)
def test_kinds_are_inferred(column, kind):
    assert kinds({"y": column}) == {"y": kind}


def test_what_was_inferred_is_shown_with_its_doubts():
    (outcome,) = read_outcomes("infer", pd.DataFrame({"grade": [1, 2, 3, NAN] * 2}))
    assert str(outcome) == "grade: ordinal (inferred), 1 < 2 < 3, 6 of 8 rows observed"
    assert "declare it count" in outcome.notes[0]
    (declared,) = read_outcomes({"grade": "ordinal"}, pd.DataFrame({"grade": [1, 2, 3, NAN] * 2}))
    assert str(declared).startswith("grade: ordinal, ")
    assert declared.notes == ()


def test_a_time_and_an_event_that_nobody_declared_are_doubted():
    Y = patients()
    notes = [note for outcome in read_outcomes("infer", Y) for note in outcome.notes]
    assert any("Survival('time', 'event')" in note for note in notes)
    assert not any("Survival" in n for o in read_outcomes("infer", Y.drop(columns="event")) for n in o.notes)


def test_rare_classes_are_doubted():
    (outcome,) = read_outcomes("infer", {"y": [0] * 20 + [1] * 4})
    assert "1 (4)" in outcome.notes[0]


def test_declared_and_inferred_outcomes_can_be_mixed_and_keep_the_order_of_the_declaration():
    Y = patients()
    assert list(kinds(Y, DECLARED)) == list(DECLARED)
    assert kinds(Y, {"os": Survival("time", "event"), "er": "infer"}) == {"os": "survival", "er": "binary"}
    assert kinds(Y[["age", "nodes"]], "continuous") == {"age": "continuous", "nodes": "continuous"}


# How outcomes are encoded


def test_each_kind_is_encoded_with_nan_for_missing():
    Y = patients()
    tasks = {task.name: task for task in read(Y, DECLARED)}
    np.testing.assert_array_equal(tasks["age"].y, Y["age"])
    np.testing.assert_array_equal(tasks["er"].y, Y["er"])
    np.testing.assert_array_equal(tasks["grade"].y, Y["grade"].cat.codes)
    np.testing.assert_array_equal(tasks["os"].y, Y["time"])
    np.testing.assert_array_equal(tasks["os"].event, Y["event"])
    assert [name for name in tasks if name.startswith("phase")] == ["phase=G1", "phase=G2M", "phase=S"]
    one = tasks["phase=S"]
    np.testing.assert_array_equal(one.y, Y["phase"] == "S")
    assert (one.kind, one.label, one.share, one.outcome.kind) == ("binary", "S", 1 / 3, "nominal")
    assert all(task.y.dtype == np.float64 for task in tasks.values())
    assert sum(task.share for task in tasks.values()) == pytest.approx(len(DECLARED))


@pytest.mark.parametrize(
    ("column", "positive"),
    [
        ([True, False], True),
        ([1, 2], 2),
        (["yes", "no"], "yes"),
        ([0.0, NAN, 1.0], 1),
        (pd.Categorical(["bad", "good"], ["good", "bad"], ordered=True), "bad"),
        (pd.Categorical(["bad", "good"], ["good", "bad"]), "good"),
    ],
)
def test_the_positive_class_is_sorted_last(column, positive):
    (task,) = read({"y": column})
    assert task.outcome.classes[1] == positive
    assert type(task.outcome.classes[1]) is type(positive)
    raw = pd.Series(column).astype(object)
    np.testing.assert_array_equal(task.y[task.observed], (raw[raw.notna()] == positive).astype(float))


def test_the_order_of_categories_is_the_order_of_codes_and_unused_ones_keep_their_place():
    column = pd.Categorical(["III", "I", "I", None], ["I", "II", "III"], ordered=True)
    Y = pd.DataFrame({"stage": column, "x": [1.5, 2, 3, 4]})
    outcome = read_outcomes({"stage": "ordinal"}, Y)[0]
    assert outcome.classes == ("I", "II", "III")
    assert "'II'" in outcome.notes[0]
    np.testing.assert_array_equal(encode([outcome], Y)[0].y, [2, 0, 0, NAN])


def test_parts_of_a_table_are_encoded_as_the_whole():
    Y = patients()
    outcomes = read_outcomes(DECLARED, Y)
    rows = np.array([30, 2, 5, 3])
    for whole, part in zip(encode(outcomes, Y), encode(outcomes, Y.iloc[rows]), strict=True):
        np.testing.assert_array_equal(whole.at(rows).y, part.y)
        if whole.event is not None:
            np.testing.assert_array_equal(whole.at(rows).event, part.event)


def test_a_class_that_was_not_there_at_fit_is_refused():
    outcomes = read_outcomes({"g": "nominal"}, {"g": list("abc") * 3})
    with pytest.raises(ValueError, match=r"outcome 'g' is 'd' in row 1 \(counted from 0\), which no row was at fit"):
        encode(outcomes, {"g": ["a", "d"]})


def test_a_part_may_be_constant_or_missing():
    outcomes = read_outcomes("infer", {"a": [0, 1, 0], "b": ["x", "y", "x"], "c": [0.5, 1.5, 2.5]})
    tasks = encode(outcomes, {"a": [1, 1], "b": [None, None], "c": [NAN, NAN]})
    assert not any(comparable(task) for task in tasks)


# Forms of Y


def test_all_forms_of_y_say_the_same():
    array = np.array([[0.5, 1.0], [NAN, 0.0], [2.5, 1.0], [3.0, NAN]])
    expected = read(array)
    assert [task.name for task in expected] == ["y0", "y1"]
    forms = [
        array.tolist(),
        array.astype(object),
        torch.tensor(array),
        np.ma.masked_invalid(array),
        pd.DataFrame(array, columns=["y0", "y1"]),
        pd.DataFrame(array, columns=["y0", "y1"], index=list("dcba")),
        pd.DataFrame(array, columns=["y0", "y1"]).convert_dtypes(),
        {"y0": array[:, 0], "y1": pd.Series(array[:, 1], index=list("dcba"))},
    ]
    for form in forms:
        for task, wanted in zip(read(form), expected, strict=True):
            assert (task.name, task.kind) == (wanted.name, wanted.kind)
            np.testing.assert_array_equal(task.y, wanted.y)


@pytest.mark.parametrize("form", [list, np.array, pd.Series, lambda y: pd.Series(y, name="")])
def test_one_dimension_is_one_outcome(form):
    (task,) = read(form([0.5, 1.5, 2.5]))
    assert task.name == "y0"
    np.testing.assert_array_equal(task.y, [0.5, 1.5, 2.5])
    assert read(pd.Series([0.5, 1.5], name="age"))[0].name == "age"


@pytest.mark.parametrize("fields", [[("cens", "?"), ("t", "<f8")], [("t", "<f8"), ("cens", "?")]])
def test_a_structured_array_is_one_survival_outcome_whatever_its_fields_are_called(fields):
    Y = np.zeros(3, dtype=fields)
    Y["cens"], Y["t"] = [True, False, True], [1.0, 2.0, 3.0]
    for outcomes in ("infer", "survival"):
        (task,) = read(Y, outcomes)
        assert (task.name, task.kind) == ("survival", "survival")
        np.testing.assert_array_equal(task.y, [1, 2, 3])
        np.testing.assert_array_equal(task.event, [1, 0, 1])
    assert kinds(Y, {"os": Survival("t", "cens")}) == {"os": "survival"}
    assert kinds(Y, Survival("t", "cens")) == {"survival": "survival"}


@pytest.mark.parametrize("fields", [[("e", "<f8"), ("t", "<f8")], [("e", "?"), ("d", "?")], [("e", "?")]])
def test_other_structured_arrays_are_refused(fields):
    refuses("structured array of 'e'.*one bool", np.zeros(3, dtype=fields))


def test_polars_is_read_as_pandas_is():
    polars = pytest.importorskip("polars")
    Y = polars.DataFrame(
        {
            "age": [1.5, None, 3.0, 2.0],
            "er": [True, None, False, True],
            "grade": polars.Series(["lo", "hi", None, "mid"], dtype=polars.Enum(["lo", "mid", "hi"])),
            "phase": ["a", "b", "a", "b"],
        }
    )
    tasks = {task.name: task for task in read(Y)}
    np.testing.assert_array_equal(tasks["age"].y, [1.5, NAN, 3, 2])
    np.testing.assert_array_equal(tasks["er"].y, [1, NAN, 0, 1])
    np.testing.assert_array_equal(tasks["grade"].y, [0, 2, NAN, 1])
    np.testing.assert_array_equal(tasks["phase"].y, [0, 1, 0, 1])
    assert tasks["grade"].kind == "ordinal"
    assert read(Y["age"])[0].name == "age"
    assert read({"a": Y["age"]})[0].name == "a"


# Comparable pairs


@given(
    st.lists(
        st.tuples(st.integers(0, 3), st.booleans(), st.booleans()),
        min_size=1,
        max_size=6,
    )
)
def test_comparable_agrees_with_the_definition(rows):
    time, event, missing = map(np.array, zip(*rows, strict=True))
    y, d = np.where(missing, NAN, time), np.where(missing, NAN, event)
    outcome = Outcome("s", "survival", ("t", "d"))
    (task,) = encode([outcome], {"t": y, "d": d})
    expected = any(
        d[j] == 1 and (y[i] > y[j] or (y[i] == y[j] and d[i] == 0)) for i in range(len(y)) for j in range(len(y))
    )
    assert comparable(task) == expected
    (task,) = encode([Outcome("c", "continuous", ("t",))], {"t": y})
    assert comparable(task) == any(a > b for a in y for b in y)


# Mistakes


@pytest.mark.parametrize(
    ("message", "column", "kind"),
    [
        (r"outcome 'y' is 3 in all 2 observed rows", [3, 3, None], "infer"),
        (r"outcome 'y' has no value: all 2 rows are missing", [None, NAN], "infer"),
        (r"column 'y' is infinite \(inf\) in row 1 \(counted from 0\)", [1.0, np.inf, 2.0], "infer"),
        (r"column 'y' holds dates", pd.date_range("2020-01-01", periods=3), "infer"),
        (r"column 'y' holds durations", pd.to_timedelta([1, 2, 3], unit="D"), "infer"),
        (r"column 'y' holds set objects", [{1}, {2}, {3}], "infer"),
        (r"'y' holds numbers that are stored as text: use pd.to_numeric", ["1", "2", "4"], "infer"),
        (r"'y' mixes numbers and text \('unkown' in row 3", ["1", "2", "3", "unkown"], "infer"),
        (r"'y' has 3 different classes in 3 rows, as an identifier has", ["a", "b", "c"], "infer"),
        (r"can't be binary: it has 3 values, 0, 1, 2", [0, 1, 2], "binary"),
        (r"can't be nominal with two classes, 'a', 'b': declare it binary", ["a", "b"], "nominal"),
        (r"can't be ordinal: its classes 'hi', 'lo' are text .* ordered=True", ["lo", "hi"], "ordinal"),
        (r"can't be ordinal: it has 4 classes in 4 rows", [1, 2, 3, 4], "ordinal"),
        (r"can't be count: row 1 .* holds -1", [0, -1, 2], "count"),
        (r"can't be count: row 2 .* holds 1.5", [0, 1, 1.5], "count"),
        (r"can't be continuous: row 0 .* holds 'a', which is not a number", ["a", "b"], "continuous"),
        (r"'y' can't be 'gaussian': its kind is continuous, binary", [1, 2], "gaussian"),
        (r"outcome 'y' needs two columns", [1, 2], "survival"),
    ],
)
def test_a_column_that_does_not_fit_is_refused(message, column, kind):
    refuses(message, {"y": column}, {"y": kind})


def test_rows_are_named_by_their_label():
    Y = pd.DataFrame({"y": [1.0, np.inf, 2.0]}, index=["TCGA-1", "TCGA-2", "TCGA-3"])
    refuses("in row 'TCGA-2'", Y)


@pytest.mark.parametrize(
    ("message", "time", "event"),
    [
        (r"time in column 't' is negative \(-1\) in row 1", [1, -1, 2], [1, 0, 1]),
        (r"'t' is infinite", [1, np.inf, 2], [1, 0, 1]),
        (r"event column 'e' holds 1, 2, .* \(Y\['e'\] == 2\)", [1, 2, 3], [1, 2, 1]),
        (r"event column 'e' holds 'alive', 'dead'", [1, 2, 3], ["dead", "alive", None]),
        (r"an event but no time \('t' is missing\) in row 2", [1, 2, None], [1, 0, 1]),
        (r"a time but no event \('e' is missing\) in row 0", [1, 2, 3], [None, 0, 1]),
        (r"no event: all 3 observed rows are censored", [1, 2, 3], [0, 0, 0]),
        (r"no comparable pair: .* longer than the first event, at 3", [1, 2, 3], [0, 0, 1]),
        (r"has no value", [None, None], [None, None]),
        (r"time column 't' must hold numbers, and row 0 .* holds 'a'", ["a", "b", "c"], [0, 0, 1]),
    ],
)
def test_a_survival_outcome_that_does_not_fit_is_refused(message, time, event):
    refuses(f"outcome 'os'.*{message}", {"t": time, "e": event}, {"os": Survival("t", "e")})


def test_the_advice_for_other_codings_of_events_works():
    Y = pd.DataFrame({"t": [1.0, 2, 3, NAN], "e": [1, 2, 1, NAN]})
    with pytest.raises(ValueError, match="recode") as caught:
        read_outcomes(Survival("t", "e"), Y)
    advice = re.search(r"for example (.*)$", str(caught.value)).group(1)
    Y["e"] = eval(advice, {"Y": Y})
    np.testing.assert_array_equal(read(Y, Survival("t", "e"))[0].event, [0, 1, 0, NAN])


@pytest.mark.parametrize(
    ("message", "Y", "outcomes"),
    [
        ("no column 'agge' for outcome 'agge': did you mean 'age'", {"age": [1.5, 2]}, {"agge": "continuous"}),
        ("no column 'd' for the event of outcome 'os'", {"t": [1.5, 2]}, {"os": Survival("t", "d")}),
        (
            "column 'e' is in the outcomes 'os' and 'e'",
            {"t": [1.5, 2], "e": [1, 0]},
            {"os": Survival("t", "e"), "e": "binary"},
        ),
        ("outcomes must be", {"y": [1, 2]}, {}),
        ("can't be 'guess'", {"y": [1, 2]}, "guess"),
        ("needs? two columns", {"y": [1, 2]}, "survival"),
        ("Y has the column 'a' twice", pd.DataFrame([[1, 2], [3, 4]], columns=["a", "a"]), "infer"),
        ("Y has 2 rows in 'a' and 3 in 'b'", {"a": [1, 2], "b": [1, 2, 3]}, "infer"),
        ("Y is a sparse matrix", sparse.eye(3), "infer"),
        ("Y has 3 dimensions", np.zeros((2, 2, 2)), "infer"),
        ("Y has 0 rows", np.zeros((0, 2)), "infer"),
        ("Y has 3 rows and 0 columns", np.zeros((3, 0)), "infer"),
        (r"Y\['a'\] has 2 dimensions", {"a": np.zeros((2, 2))}, "infer"),
    ],
)
def test_a_y_that_can_not_be_read_is_refused(message, Y, outcomes):
    refuses(message, Y, outcomes)


def test_rows_of_x_and_y_belong_together():
    X = pd.DataFrame({"x": [1.0, 2, 3]}, index=list("abc"))
    Y = pd.DataFrame({"y": [1.0, 2, 3]}, index=list("cba"))
    with pytest.raises(ValueError, match="X has 3 rows and Y has 2"):
        check_rows(X, Y.iloc[:2])
    with pytest.raises(ValueError, match="different order: pass Y.loc"):
        check_rows(X, Y)
    check_rows(X, Y.loc[X.index])
    check_rows(X, Y.to_numpy())
    check_rows(X.to_numpy(), [1, 2, 3])
    check_rows(X, Y.reset_index(drop=True))
