"""Tables of a user: what is inferred, what leaks, and what each mistake is answered with."""

import gzip
import re

import numpy as np
import pandas as pd
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from motet.problems.table import from_table
from motet.problems.table.columns import features, outcome
from motet.problems.table.leaks import correlations
from motet.testing import check_problem
from tests.problems.tables import TARGETS, patients, refuses


@pytest.fixture
def save(tmp_path):
    """Write text as a CSV and return its path."""

    def write(text, name="table.csv"):
        path = tmp_path / name
        path.write_bytes(text if isinstance(text, bytes) else text.encode())
        return path

    return write


# Conformance and what is inferred


@pytest.mark.parametrize("options", [{}, {"group": "patient"}, {"time": "visit"}], ids=["random", "group", "time"])
def test_tables_conform(options):
    check_problem(from_table(patients(), TARGETS, **options), fixed_split="time" in options)


def test_csv_parquet_and_a_table_in_memory_are_the_same(tmp_path):
    table = patients()
    table.to_csv(tmp_path / "a.csv", index=False)
    table.to_csv(tmp_path / "b.csv.gz", index=False)
    table.to_csv(tmp_path / "c.tsv", index=False, sep="\t")
    table.to_csv(tmp_path / "d.csv", index=False, sep=";", encoding="utf-8-sig")
    table.to_parquet(tmp_path / "e.parquet")
    expected = from_table(table, TARGETS).load(0)
    for path in sorted(tmp_path.iterdir()):
        data = from_table(path, TARGETS).load(0)
        torch.testing.assert_close(data.train.inputs, expected.train.inputs)
        for task in TARGETS:
            torch.testing.assert_close(data.test.targets[task], expected.test.targets[task], equal_nan=True)


def test_the_overview_says_how_each_column_was_understood():
    problem = from_table(patients(), TARGETS, drop=["visit"])
    text = "\n".join(problem.describe())
    assert re.search(r"target survival: regression, 1\d\d of 200 labelled, type inferred", text)
    assert re.search(r"target relapse: binary, 1 is 'yes', 1\d\d of 200 labelled, type inferred", text)
    assert "target stage: multiclass, 4 classes, 200 of 200 labelled, type inferred" in text
    assert "code (text that differs in every row), site (constant), visit (dropped)" in text
    assert "within the classes of 'stage'" in text
    assert set(problem.describe()) <= set(problem.load(0).notes)


@pytest.mark.parametrize(
    ("values", "kind"),
    [
        ([0.5, 1.5], "binary"),
        ([True, False], "binary"),
        (["no", "yes"], "binary"),
        (list("abc"), "multiclass"),
        (list(range(10)), "multiclass"),
        (list(range(11)), "regression"),
        ([0.1, 0.2, 0.3], "regression"),
    ],
)
def test_kinds_are_inferred_from_the_values(values, kind):
    assert outcome(pd.Series(values * 10), "y", None).task.kind == kind


def test_a_given_type_wins_over_the_inferred():
    problem = from_table(patients(), ["stage:regression", "relapse"])
    kinds = {task.name: task.kind for task in problem.load(0).tasks}
    assert kinds == {"stage": "regression", "relapse": "binary"}


def test_a_column_whose_name_has_a_colon_is_found():
    assert from_table(patients().rename(columns={"survival": "t:days"}), ["t:days"]).load(0).tasks[0].name == "t:days"


@settings(deadline=None, max_examples=25)
@given(
    values=st.lists(
        st.one_of(st.none(), st.booleans(), st.integers(-5, 5), st.floats(allow_nan=True), st.text(max_size=3)),
        min_size=2,
        max_size=40,
    )
)
def test_any_column_becomes_finite_or_missing_features(values):
    found = features(pd.DataFrame({"x": pd.Series(values, dtype=object)}))
    assert not np.isinf(found.numbers.to_numpy(float)).any()
    assert not found.categories.isna().any().any()
    assert len(found.columns) == 1


@pytest.mark.parametrize("dtype", ["Int64", "Float64", "boolean", "category", "string"])
def test_pandas_own_types_with_missing_values_are_understood(dtype):
    values = [True, False, None] if dtype == "boolean" else ["a", "b", None] if dtype == "string" else [1, 2, None]
    series = pd.Series(values * 20).astype(dtype)
    found = outcome(series, "y", None)
    assert found.task.kind == "binary"
    assert found.labelled.tolist() == [True, True, False] * 20
    assert len(features(pd.DataFrame({"x": series})).columns) == 1


def test_dates_become_numbers_and_other_formats_are_not_guessed():
    days = pd.date_range("2024-01-01", periods=60, freq="11h")
    table = pd.DataFrame(
        {"iso": days.strftime("%Y-%m-%d %H:%M"), "native": days, "odd": days.strftime("%d/%m/%Y %H:%M")}
    )
    found = features(table)
    assert {c.name: c.kind for c in found.columns} == {
        "iso": "date",
        "native": "date",
        "odd": "text that differs in every row",
    }
    assert found.numbers["iso:days"].iloc[2] - found.numbers["iso:days"].iloc[0] == pytest.approx(22 / 24)
    assert found.numbers["native:hour"].tolist()[:3] == [0, 11, 22]


def test_running_numbers_and_lists_are_left_out():
    table = pd.DataFrame({"id": range(100, 140), "tags": [["a"]] * 40, "x": np.arange(40) % 7})
    kinds = {column.name: column.kind for column in features(table).columns}
    assert kinds == {"id": "running number", "tags": "holds objects", "x": "number"}


# Fitted on training, and nothing of the targets among the features


def test_medians_scales_and_categories_come_from_training_alone():
    """What changes in the other parts changes nothing in training."""
    table = patients()
    problem = from_table(table, ["survival"], time="visit", drop=["code"])
    late = pd.to_datetime(table["visit"]) > pd.to_datetime(table["visit"]).quantile(0.7)
    other = table.copy()
    other.loc[late, ["age", "survival"]] *= 1000
    other.loc[late, "ward"] = "never seen before"
    before = problem.load(0)
    after = from_table(other, ["survival"], time="visit", drop=["code"]).load(0)
    torch.testing.assert_close(before.train.inputs, after.train.inputs, rtol=0, atol=0)
    assert before.tasks == after.tasks
    assert after.test.inputs.isfinite().all()


def test_missing_numbers_are_told_apart_from_the_median():
    table = pd.DataFrame({"x": [1.0, 2.0, 3.0, np.nan] * 25, "y": np.random.default_rng(0).normal(size=100)})
    inputs = from_table(table, ["y"]).load(0).train.inputs
    assert inputs.shape[1] == 2
    assert len({tuple(row.tolist()) for row in inputs}) == 4


def test_targets_group_time_and_dropped_columns_are_no_features():
    table = pd.DataFrame(np.random.default_rng(0).normal(size=(100, 4)), columns=list("abcd"))
    assert from_table(table, ["a", "b"], drop=["c"]).load(0).train.inputs.shape == (60, 1)
    table["g"] = np.arange(100) // 5 % 7
    table["t"] = np.random.default_rng(1).permutation(100)
    assert from_table(table, ["a", "b"], group="g", drop=["t"]).load(0).train.inputs.shape[1] == 2
    assert from_table(table, ["a", "b"], time="t", drop=["g"]).load(0).train.inputs.shape[1] == 2


def test_rows_without_any_label_are_dropped_and_counted():
    table = pd.DataFrame(
        {"x": np.random.default_rng(0).normal(size=100), "y": np.random.default_rng(1).normal(size=100)}
    )
    table.loc[:19, "y"] = np.nan
    problem = from_table(table, ["y"])
    data = problem.load(0)
    assert len(data.train) + len(data.validation) + len(data.test) == 80
    assert "20 of 100 rows have no label at all and are dropped" in problem.describe()


# Splits


def test_groups_do_not_straddle_parts():
    """The one feature tells the group, so that no value of it may be in two parts."""
    groups = np.random.default_rng(0).permutation(np.repeat(np.arange(25), 6))
    table = pd.DataFrame({"g": groups, "x": np.sin(groups), "y": np.random.default_rng(1).normal(size=150)})
    data = from_table(table, ["y"], group="g").load(1)
    parts = [set(part.inputs[:, 0].tolist()) for part in (data.train, data.validation, data.test)]
    assert sum(map(len, parts)) == len(set.union(*parts)) == 25


def test_time_puts_the_future_into_the_test_part():
    table = patients().assign(clock=lambda t: pd.to_datetime(t["visit"]).astype("int64") / 1e18)
    data = from_table(table[["visit", "clock", "survival"]], ["survival"], time="visit").load(0)
    assert data.train.inputs.max() < data.validation.inputs.min()
    assert data.validation.inputs.max() < data.test.inputs.min()


# Leaks


def river(rows=600):
    """Slow series, as hourly flows are: each row is nearly its neighbour."""
    r = np.random.default_rng(0)
    walk = np.cumsum(r.normal(size=(rows, 4)), axis=0)
    return pd.DataFrame(walk, columns=["north", "south", "level", "flow"]).assign(hour=r.permutation(rows))


def test_neighbouring_rows_that_are_nearly_identical_are_warned_of():
    warnings = from_table(river(), ["flow"]).warnings
    assert any(re.search(r"nearly identical .*0\.9\d+.*--time or --group", warning) for warning in warnings)
    assert not from_table(river().sample(frac=1, random_state=0), ["flow"]).warnings
    assert not from_table(river(), ["flow"], time="hour").warnings


def test_a_copy_of_a_target_is_warned_of():
    table = patients()
    table["months"] = table["survival"] * 12 + 1
    table["relapse_code"] = table["relapse"].map({"yes": "R", "no": "N"})
    table["stage_name"] = table["stage"].map({1: "I", 2: "II", 3: "III", 4: "IV"})
    warnings = " ".join(from_table(table, TARGETS).warnings)
    for feature, target in [("months", "survival"), ("relapse_code", "relapse"), ("stage_name", "stage")]:
        assert f"feature {feature!r} is nearly a copy of target {target!r}" in warnings
    assert not from_table(patients(), TARGETS, group="patient").warnings


@settings(deadline=None, max_examples=40)
@given(
    seed=st.integers(0, 10**6),
    scale=st.sampled_from([1e-200, 1e-6, 1.0, 1e6, 1e200]),
    offset=st.sampled_from([0.0, 3.0]),
)
def test_correlations_are_numpys_on_shared_rows_at_any_scale(seed, scale, offset):
    r = np.random.default_rng(seed)
    a, b = r.normal(size=(50, 3)) + offset, r.normal(size=(50, 3))
    b[:, 0] += 2 * a[:, 0]
    a[r.random(a.shape) < 0.2] = np.nan
    for column, found in enumerate(correlations(a * scale, b)):
        shared = ~np.isnan(a[:, column])
        assert found == pytest.approx(np.corrcoef(a[shared, column], b[shared, column])[0, 1], abs=1e-9)


def test_rare_classes_and_numbers_with_a_stray_text_are_warned_of():
    table = patients()
    table["stage"] = table["stage"].astype(str)
    table.loc[:1, "stage"] = "4b"
    table["weight"] = np.random.default_rng(0).integers(50, 99, 200).astype(str)
    table.loc[7, "weight"] = "72 kg"
    warnings = " ".join(from_table(table, ["stage"]).warnings)
    assert "target 'stage' has classes of fewer than 5 rows, too few for three parts: '4b' (2)" in warnings
    assert "column 'weight' is mostly numbers but used as categories, because of '72 kg'" in warnings


# Mistakes: files


def test_files_that_are_no_tables(save, tmp_path):
    refuses(r"there is no file .*absent\.csv", tmp_path / "absent.csv")
    refuses("is empty", save(""))
    refuses("has a header and no rows", save("a,b\n"))
    refuses("is an Excel or zip file and not a CSV", save(b"PK\x03\x04\0\0\0", "book.xlsx"))
    refuses("is a binary file and not a CSV", save(b"\x89PNG\0\0\0"))
    refuses("is a damaged Parquet file", save(b"PAR1 and then nothing", "t.parquet"))
    refuses("is a damaged gzip file", save(gzip.compress(b"a,b\n" + b"1,2\n" * 99)[:-9], "t.csv.gz"))
    refuses("is not UTF-8 text .byte 0xe9.: save it as CSV in UTF-8", save("caf\u00e9,b\n1,2\n".encode("latin-1")))
    refuses("has one column only, since its first line has no comma", save("a b\n1 2\n"))
    refuses("line 3 has 3 fields and the header 2", save("a,b\n1,2\n1,2,3\n"))
    refuses("line 3 has 1 fields and the header 2", save("a,b\n1,2\n1\n"))
    refuses("has the column 'a' twice: rename one", save("a,b,a\n1,2,3\n"))


def test_an_absent_file_is_answered_with_the_tables_beside_it(save, tmp_path):
    save("a,b\n1,2\n", "patients.csv")
    refuses(r"its folder has patients\.csv", tmp_path / "patient.csv")


# Mistakes: columns


@pytest.mark.parametrize(
    ("targets", "options", "message"),
    [
        ([], {}, "name at least one target"),
        (["survivl"], {}, "no column 'survivl' for the target: did you mean 'survival'"),
        (["survival:regresion"], {}, "'survival' can't be of type 'regresion': did you mean 'regression'"),
        (["survival:date"], {}, "it is one of regression, binary, multiclass"),
        (["survival", "survival:regression"], {}, "target 'survival' is named twice"),
        (["relapse:regression"], {}, r"'relapse' can't be regression: row \d+ holds '(yes|no)', which is not a number"),
        (["survival:multiclass"], {}, r"'survival' can't be classes: it has 1\d\d in 1\d\d labelled rows"),
        (["stage:binary"], {}, "'stage' can't be binary: it has 4 values, '1', '2', '3', '4'"),
        (["site"], {}, "'site' is 'north' in all 200 labelled rows: nothing to learn"),
        (["code"], {}, "'code' is neither classes nor a number: it has 200 different strings"),
        (["survival"], {"group": "patiant"}, "no column 'patiant' for the group: did you mean 'patient'"),
        (["survival"], {"group": "site"}, "'site' has 1 groups, and a split needs three"),
        (["survival"], {"group": "ward"}, r"the group column 'ward' is empty in row \d+"),
        (["survival"], {"time": "age"}, r"the time column 'age' is empty in row \d+"),
        (["survival"], {"time": "sex"}, "the time column 'sex' can't be read as dates, for example '[fm]'"),
        (["survival"], {"time": "visit", "group": "patient"}, "by group or by time, not by both"),
        (["survival"], {"drop": ["agee"]}, "no column 'agee' to drop: did you mean 'age'"),
        (["survival"], {"drop": ["survival"]}, "'survival' is a target and can't be the one to drop too"),
        (["survival"], {"time": "survival"}, "'survival' is a target and can't be the one for the time too"),
    ],
)
def test_mistakes_about_columns_are_answered_with_cause_and_fix(targets, options, message):
    refuses(message, patients(), targets, **options)


def test_targets_without_labels_or_with_broken_ones():
    table = patients()
    refuses("'empty' has no labels: all 200 of its cells are empty", table.assign(empty=np.nan), ["empty"])
    refuses("'day' holds dates", table.assign(day=pd.Timestamp("2020-01-01")), ["day"])
    refuses("'y' is infinite in row 1", table.assign(y=[np.inf, *range(199)]), ["y"])
    texts = [str(number) for number in range(200)]
    texts[2] = "n.b."
    refuses("'y' is neither classes nor a number: row 3 holds 'n.b.', which", table.assign(y=texts), ["y"])


def test_too_few_rows_and_no_features():
    refuses("the table has 20 rows with a label, and a comparison needs 30", patients(20), ["stage"])
    refuses("no feature is left", patients()[["survival", "site", "code"]])
    refuses("has the column 'age' twice", pd.concat([patients(), patients()[["age"]]], axis=1))
