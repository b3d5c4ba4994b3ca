"""The command as a stranger uses it, mistakes included: one sentence, an exit code, nothing lost."""

import json
import re

import numpy as np
import pandas as pd
import pytest

import motet
from motet import cli


@pytest.fixture
def table(tmp_path):
    rng = np.random.default_rng(0)
    x = rng.normal(size=(120, 4))
    frame = pd.DataFrame(x, columns=["height", "weight", "pulse", "salt"])
    frame["age"] = np.round(50 + 5 * x[:, 0] + rng.normal(size=120), 2)
    frame["ill"] = np.where(x[:, 1] + 0.3 * rng.normal(size=120) > 0, "yes", "no")
    frame.loc[::9, "age"] = np.nan
    frame["ward"] = np.repeat([f"ward {i}" for i in range(24)], 5)
    path = tmp_path / "patients.csv"
    frame.to_csv(path, index=False)
    return path


def run(capsys, *arguments: object) -> tuple[int, str, str]:
    code = cli.main([str(argument) for argument in arguments])
    out, err = capsys.readouterr()
    return code, out, err


def quick(table, tmp_path, *more: object) -> list[object]:
    targets = ["--target", "age", "ill"]
    small = ["--epochs", 2, "--seeds", 2, "--width", 8, "--batch-size", 32, "--quiet"]
    places = ["--out", tmp_path / "runs", "--report", tmp_path / "report.html"]
    return ["compare", table, *targets, *small, *places, *more]


def test_compare_on_a_table_prints_the_verdict_and_writes_the_report(table, tmp_path, capsys):
    code, out, _ = run(capsys, *quick(table, tmp_path, "--arms", "si", "fair-grad"))
    assert code == 0
    assert "UNDECIDED" in out
    assert "age" in out
    assert str(tmp_path / "report.html") in out.replace("\n", "")
    assert "<html" in (tmp_path / "report.html").read_text(encoding="utf8")
    assert max(map(len, out.splitlines())) <= max(80, len(str(tmp_path)) + 20)


def test_compare_gives_machines_strict_json_and_nothing_else(table, tmp_path, capsys):
    code, out, _ = run(capsys, *quick(table, tmp_path, "--arms", "si", "--json"))
    assert code == 0
    found = json.loads(out, parse_constant=lambda name: pytest.fail(f"{name} is no JSON"))
    assert [arm["arm"] for arm in found["arms"]] == ["stl", "sum", "si"]
    assert found["verdict"]["decision"] == "UNDECIDED"


def test_an_interrupted_study_keeps_its_runs_and_goes_on(table, tmp_path, capsys, monkeypatch):
    real, calls = motet.study.study.train, []

    def train(*arguments):
        calls.append(1)
        if len(calls) == 4:
            raise KeyboardInterrupt
        return real(*arguments)

    monkeypatch.setattr(motet.study.study, "train", train)
    code, out, _ = run(capsys, *quick(table, tmp_path, "--arms", "si"))
    assert code == cli.INTERRUPTED
    assert "3 of 6 runs are kept" in out
    assert "--resume" in out
    code, _, err = run(capsys, *quick(table, tmp_path, "--arms", "si"))
    assert code == cli.BAD_INPUT
    assert "add --resume" in err
    code, _, _ = run(capsys, *quick(table, tmp_path, "--arms", "si", "--resume"))
    assert code == 0
    assert len(calls) == 4 + 3


def test_report_reads_finished_runs(table, tmp_path, capsys):
    run(capsys, *quick(table, tmp_path, "--arms", "si"))
    code, out, _ = run(capsys, "report", tmp_path / "runs")
    assert code == 0
    assert "UNDECIDED" in out
    assert (tmp_path / "runs" / "report.html").exists()
    code, out, _ = run(capsys, "report", tmp_path / "runs", "--json")
    assert json.loads(out)[0]["problem"] == "patients"


def test_methods_lists_all_with_what_each_needs(capsys):
    code, out, _ = run(capsys, "methods")
    assert code == 0
    assert all(name in out for name in motet.methods.available())
    assert max(map(len, out.splitlines())) <= 80
    code, out, _ = run(capsys, "methods", "--json")
    assert [entry["name"] for entry in json.loads(out)] == motet.methods.available()
    code, out, _ = run(capsys, "methods", "fairgrad")
    assert "alpha=2.0" in out


def test_problems_lists_all_and_says_how_to_fetch(capsys, tmp_path, monkeypatch):
    monkeypatch.setenv("MOTET_DATA", str(tmp_path))
    code, out, _ = run(capsys, "problems")
    assert code == 0
    assert re.search(r"digits-overlay\s+ready", out)
    assert "problems fetch yeast" in re.sub(r"\s+", " ", out)
    assert max(map(len, out.splitlines())) <= 80
    code, out, _ = run(capsys, "problems", "fetch", "digits")
    assert "come with motet" in out


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["compare", "digitz"], "no problem 'digitz': did you mean 'digits-overlay'"),
        (["compare", "digits", "--arms", "fairgrda"], "did you mean 'fair-grad'"),
        (["compare", "digits", "--arms", "fair-grad:alpha=0"], "alpha"),
        (["compare", "digits", "--arms", "groups"], "no arm 'groups'"),
        (["compare", "digits", "--seeds", "0"], "seeds must be"),
        (["compare", "digits", "--epochs", "0"], "--epochs must be at least 1"),
        (["compare", "digits", "--learning-rate", "0"], "--learning-rate must be positive"),
        (["compare", "digits", "--dropout", "1"], "--dropout must be"),
        (["compare", "digits", "--target", "left"], "--target is for tables"),
        (["compare", "digits", "--group", "left"], "--group is for tables"),
        (["compare", "digits", "--report", "no/such/folder/r.html"], "there is no folder"),
        (["compare", "missing.csv", "--target", "a"], "missing.csv"),
        (["compare", "{table}"], "target"),
        (["compare", "{table}", "--target", "aeg"], "did you mean 'age'"),
        (["compare", "{table}", "--target", "age:colour"], "colour"),
        (["compare", "{table}", "--target", "age", "--group", "wrad"], "did you mean 'ward'"),
        (["compare", "{table}", "--target", "age", "--resume", "--out", "{folder}"], "not empty"),
        (["report", "{folder}"], "no study.json"),
        (["report"], "which study"),
        (["methods", "famoo"], "did you mean 'famo'"),
        (["problems", "fetch", "yeats"], "did you mean 'yeast'"),
        (["problems", "fetch"], "which problem"),
        (["problems", "list", "yeast"], "motet problems fetch yeast"),
    ],
)
def test_a_mistake_ends_in_one_sentence_that_names_it(table, tmp_path, capsys, monkeypatch, arguments, message):
    monkeypatch.chdir(tmp_path)
    places = {"table": table, "folder": tmp_path}
    code, out, err = run(capsys, *(argument.format(**places) for argument in arguments))
    assert code == cli.BAD_INPUT
    assert message in err
    assert "Traceback" not in err
    assert err.startswith("motet: ")
    assert out == "" or "compare" in arguments
    assert list(tmp_path.iterdir()) == [table]


@pytest.mark.parametrize("arguments", [["compare"], ["compar", "digits"], ["compare", "digits", "--seed", "3"], []])
def test_a_wrong_command_line_exits_with_two(capsys, arguments):
    with pytest.raises(SystemExit) as stopped:
        cli.main(arguments)
    assert stopped.value.code == 2
