"""``motet select`` as a biostatistician uses it, mistakes included: one sentence, an exit code, nothing lost."""

import io
import json
import re
import warnings
from contextlib import redirect_stdout

import numpy as np
import pandas as pd
import pytest

from motet import cli
from motet.estimators import MixedOutcomeNetCV
from motet.selecting import analysis, fitting
from motet.selecting.preparation import Preparation
from motet.selecting.table import open_table

OUTCOMES = ["--outcome", "age", "er:binary=no,yes", "os:survival=time,event"]
SMALL = ["--folds", 2, "--lambdas", 4, "--quiet"]


@pytest.fixture(scope="module", autouse=True)
def few_steps():
    """Networks of four units and five steps: what is tested here is all around them."""
    real = fitting.estimator

    def small(table, options):
        return real(table, options).set_params(max_iter=5, hidden_shared=4, hidden_task=(3,))

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(fitting, "estimator", small)
        yield


def frame(n=60, seed=0):
    rng = np.random.default_rng(seed)
    x = rng.normal(size=(n, 5))
    f = x[:, 0] + x[:, 1]
    T, C = np.exp(f + rng.normal(size=n)) * 100, rng.exponential(400, size=n)
    table = pd.DataFrame(x, columns=[f"gene {i}" for i in range(5)])
    table["centre"] = np.array(["north", "south"])[(x[:, 2] > 0).astype(int)]
    table["stage"] = np.array(["I", "II", "III"])[np.digitize(x[:, 3], [-0.5, 0.5])]
    table["age"] = np.round(50 + 8 * f + 4 * rng.normal(size=n), 1)
    table["er"] = np.where(f + rng.logistic(size=n) > 0, "yes", "no")
    table["time"], table["event"] = np.minimum(T, C).round(1), (T <= C).astype(int)
    table.insert(0, "patient_id", [f"P{i:03d}" for i in range(n)])
    table.loc[::7, "age"] = np.nan
    table.loc[2::9, "gene 4"] = np.nan
    table.loc[[5, 6], ["age", "er", "time", "event"]] = np.nan
    return table


@pytest.fixture(scope="module")
def csv(tmp_path_factory):
    path = tmp_path_factory.mktemp("data") / "patients.csv"
    frame().to_csv(path, index=False)
    return path


def run(capsys, *arguments: object) -> tuple[int, str, str]:
    code = cli.main([str(argument) for argument in arguments])
    out, err = capsys.readouterr()
    return code, out, err


@pytest.fixture(scope="module")
def done(csv, tmp_path_factory):
    """A whole analysis, and what it printed."""
    folder = tmp_path_factory.mktemp("out") / "result"
    new = csv.with_name("new.csv")
    frame(8, seed=1).to_csv(new, index=False)
    checks = ["--stability", 2, "--permutations", 1, "--predict", new]
    printed = io.StringIO()
    with redirect_stdout(printed):
        code = cli.main([str(a) for a in ["select", csv, *OUTCOMES, *SMALL, *checks, "--out", folder]])
    assert code == 0
    return folder, printed.getvalue()


def test_it_says_what_was_understood_found_and_written(done):
    folder, out = done
    words = re.sub(r"\s+", " ", out)
    assert "patients.csv: 58 rows" in words
    assert "2 of 60 rows have no outcome at all and are left out" in words
    assert "9 features: 5 numbers and 4 one-hot columns of 2 categories" in words
    assert "1 of them have missing values" in words or "have missing values" in words
    assert "left out: patient_id" in words
    for name in ("age", "er", "os", "continuous *", "* inferred", "survival", "Concordance:", "Note:"):
        assert name in words
    assert "complementary pairs" in words
    assert "permutation" in words
    for line in out.partition("\nIn ")[0].splitlines():
        assert len(line.rstrip()) <= 80 or "patients.csv" in line, line
    for name in re.findall(r"^  (\S+\.\w+) ", out, flags=re.MULTILINE):
        assert (folder / name).exists()


def test_every_row_has_a_prediction_on_the_outcomes_scale(done):
    folder, _ = done
    table, raw = pd.read_csv(folder / "predictions.csv"), frame()
    assert list(table["row"]) == [i + 1 for i in range(60) if i not in (5, 6)]
    assert list(table["patient_id"]) == list(raw["patient_id"].drop([5, 6]))
    np.testing.assert_allclose(table["age.observed"], raw["age"].drop([5, 6]))
    assert table["age.predicted"].between(raw["age"].min(), raw["age"].max()).all()
    assert (table["age.lower"] <= table["age.predicted"]).all()
    np.testing.assert_allclose(table["er.probability.no"] + table["er.probability.yes"], 1, rtol=1e-5)
    assert set(table["er.predicted"]) <= {"no", "yes"}
    assert {"os.observed.time", "os.observed.event", "os.predicted", "os.rank"} <= set(table)
    assert "os.upper" not in table


def test_new_rows_are_predicted_by_the_saved_model_and_scored(done):
    folder, out = done
    table = pd.read_csv(folder / "new_predictions.csv")
    net = MixedOutcomeNetCV.load(folder / "model.safetensors")
    new = frame(8, seed=1)
    X = Preparation.load(folder / "columns.json").transform(new)
    np.testing.assert_allclose(table["age.predicted"], net.predict(X)["age"], rtol=1e-6)
    assert list(table["patient_id"]) == list(new["patient_id"])
    assert "new rows" in out


def test_features_have_their_exit_stability_and_importance(done):
    folder, _ = done
    every, chosen = pd.read_csv(folder / "features.csv"), pd.read_csv(folder / "selected.csv")
    assert len(every) == 9
    assert {"centre=south", "stage=I", "stage=II", "stage=III"} <= set(every["feature"])
    assert (every["exit_lambda"].diff().dropna() <= 0).all()
    assert set(chosen["feature"]) == set(every["feature"][every["selected"] | every["stable"]])
    assert every["probability"].between(0, 1).all()
    assert {"importance age", "importance er", "importance os"} <= set(every) or not every["selected"].any()
    path = pd.read_csv(folder / "path.csv")
    assert path["used"].sum() == 1
    assert path["selected"][path["used"]].item() == every["selected"].sum()


def test_an_analysis_is_not_done_again_unless_asked(done, csv, capsys, monkeypatch):
    folder, _ = done
    code, _, err = run(capsys, "select", csv, *OUTCOMES, *SMALL, "--out", folder)
    assert code == cli.BAD_INPUT
    assert "add --resume" in err
    monkeypatch.setattr(MixedOutcomeNetCV, "fit", lambda *_, **__: pytest.fail("fitted again"))
    before = (folder / "predictions.csv").read_bytes()
    again = ["select", csv, *OUTCOMES, *SMALL, "--out", folder, "--resume", "--json"]
    code, out, _ = run(capsys, *again, "--stability", 2)
    assert code == 0
    found = json.loads(out, parse_constant=lambda name: pytest.fail(f"{name} is no JSON"))
    assert [one["name"] for one in found["outcomes"]] == ["age", "er", "os"]
    assert found["stable"] is not None
    assert (folder / "predictions.csv").read_bytes() == before
    code, _, err = run(capsys, *again, "--selection", "best")
    assert code == cli.BAD_INPUT
    assert "another table or with other options" in err


def test_ctrl_c_keeps_the_halves_and_resume_goes_on(csv, done, tmp_path, capsys, monkeypatch):
    folder, _ = done
    for name in (fitting.MODEL, fitting.ROWS):
        (tmp_path / name).write_bytes((folder / name).read_bytes())
    real, calls = MixedOutcomeNetCV.stability_selection, []

    def interrupted(self, *arguments, progress, **options):
        def tick(one, among):
            calls.append((one, among))
            progress(one, among)
            if one == 3 and len(calls) == 3:
                raise KeyboardInterrupt

        return real(self, *arguments, progress=tick, **options)

    monkeypatch.setattr(MixedOutcomeNetCV, "stability_selection", interrupted)
    again = ["select", csv, *OUTCOMES, *SMALL, "--out", tmp_path, "--resume", "--stability", 2]
    code, out, _ = run(capsys, *again)
    assert code == cli.INTERRUPTED
    assert "Interrupted: the check of stability selection" in re.sub(r"\s+", " ", out)
    assert (tmp_path / "report.html").exists()
    code, _, _ = run(capsys, *again)
    assert code == 0
    assert calls == [(1, 4), (2, 4), (3, 4), (4, 4)]


WRONG = [
    ([], "name at least one outcome"),
    (["--outcome", "agge"], "did you mean 'age' or 'stage'?"),
    (["--outcome", "age:regression"], "did you mean age:continuous?"),
    (["--outcome", "age:rank"], "it is one of continuous"),
    (["--outcome", "os:survival"], "--outcome os:survival=TIME,EVENT"),
    (["--outcome", "os:survival=time,evnt"], "did you mean 'event'"),
    (["--outcome", "os:survival=time,time"], "for its time and its event"),
    (["--outcome", "age", "age"], "named twice"),
    (["--outcome", "time", "os:survival=time,event"], "in the outcomes 'time' and 'os'"),
    (["--outcome", "stage:ordinal"], "stage:ordinal=I,II,III"),
    (["--outcome", "stage:ordinal=I,II"], "leaves out"),
    (["--outcome", "stage:ordinal=I,II,III,IV"], "has no class 'IV'"),
    (["--outcome", "age:continuous=1,2"], "has no order of classes"),
    (["--outcome", "age", "--drop", "age"], "can't be the one to drop too"),
    (["--outcome", "age", "--group", "age"], "can't be the one for the group too"),
    (["--outcome", "age", "--drop", "gene9"], "did you mean"),
    (["--outcome", "age", "--folds", "1"], "--folds must be at least 2"),
    (["--outcome", "age", "--level", "90"], "--level must lie between 0 and 1"),
    (["--outcome", "age", "--predict", "nowhere.csv"], "there is no file nowhere.csv"),
    (["--outcome", "age", "--resume"], "nothing to resume"),
    (["--outcome", "patient_id"], "identifier"),
]


@pytest.mark.parametrize(("given", "said"), WRONG, ids=[" ".join(given) or "none" for given, _ in WRONG])
def test_wrong_uses_end_in_one_helpful_sentence(csv, tmp_path, capsys, given, said):
    code, _, err = run(capsys, "select", csv, *given, "--quiet", "--out", tmp_path / "out")
    assert code == cli.BAD_INPUT
    assert said in err
    assert len(err.strip().splitlines()) == 1
    assert err.startswith("motet: ")


def test_tables_that_cannot_be_used_are_refused(tmp_path, capsys):
    table = frame()
    few, bare, odd = (tmp_path / name for name in ("few.csv", "bare.csv", "odd.csv"))
    table.head(20).to_csv(few, index=False)
    table[["age", "patient_id"]].to_csv(bare, index=False)
    table.drop(columns="gene 1").to_csv(odd, index=False)
    out = ["--quiet", "--out", tmp_path / "out"]
    assert "needs 30 or more" in run(capsys, "select", few, "--outcome", "age", *out)[2]
    assert "no feature is left" in run(capsys, "select", bare, "--outcome", "age", *out)[2]
    whole = tmp_path / "whole.csv"
    table.to_csv(whole, index=False)
    err = run(capsys, "select", whole, "--outcome", "age", "--predict", odd, *out)[2]
    assert "has no column 'gene 1' which is a feature" in err
    assert not (tmp_path / "out").exists()


def test_what_is_doubtful_is_said(tmp_path):
    def warned(table, **options):
        table.to_csv(tmp_path / "t.csv", index=False)
        return " | ".join(open_table(tmp_path / "t.csv", ("age",), **options).warnings)

    table = frame()
    assert "'time', 'event' are named like an outcome or its time" in warned(table)
    assert warned(table, drop=("time", "event")) == ""
    assert "orders the rows as 'age' does (rank correlation -1.00)" in warned(table.assign(born=2000 - table["age"]))
    assert "named like an identifier" in warned(table.assign(subject_nr=np.arange(60) // 2 * 7 % 90))
    again = pd.concat([table, table], ignore_index=True)
    assert "same features as another row" in warned(again, drop=("patient_id",))


def test_categories_and_gaps_of_new_rows_are_those_of_the_fit():
    numbers = pd.DataFrame({"a": [1.0, 2.0, np.nan, 9.0] * 3})
    categories = pd.DataFrame({"sex": ["f", "m"] * 6, "ward": ["x"] * 6 + ["y"] * 5 + ["z"]})
    found = Preparation.learn(numbers, categories)
    X = found.apply(numbers, categories)
    assert list(X.columns) == ["a", "sex=m", "ward=x", "ward=y", "ward=(rare)"]
    assert X["a"][2] == 2
    assert X["ward=(rare)"].sum() == 1
    new = pd.DataFrame({"ward": ["q", None], "a": [np.nan, 4], "sex": ["m", "f"], "other": [0, 0]})
    got = found.transform(new)
    assert got.to_numpy().tolist() == [[2, 1, 0, 0, 1], [4, 0, 0, 0, 1]]
    with pytest.raises(ValueError, match="holds 'high', and was numbers at the fit"):
        found.transform(new.assign(a=["high", "1"]))


def test_no_warning_of_python_reaches_the_user(done):
    assert "Warning:" not in done[1]
    said: list[str] = []
    with analysis.recorded(said):
        warnings.warn("twice", UserWarning, stacklevel=1)
        warnings.warn("twice", UserWarning, stacklevel=1)
        warnings.warn("of a library", DeprecationWarning, stacklevel=1)
    assert said == ["twice"]
