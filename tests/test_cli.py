"""The command as a stranger uses it, mistakes included: one sentence, an exit code, nothing lost."""

import json
import re
import signal
import sys

import numpy as np
import pandas as pd
import pytest

import motet
import motet.report.affinity
from motet import cli


@pytest.fixture
def table(tmp_path):
    rng = np.random.default_rng(0)
    x = rng.normal(size=(120, 4))
    frame = pd.DataFrame(x, columns=["height", "weight", "pulse", "salt"])
    frame["age"] = np.round(50 + 5 * x[:, 0] + rng.normal(size=120), 2)
    frame["ill"] = np.where(x[:, 1] + 0.3 * rng.normal(size=120) > 0, "yes", "no")
    frame.loc[::9, "age"] = np.nan
    frame.loc[4::10, "ill"] = None
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
    # What has a path in it, to be copied, stands on a line of its own and is not broken.
    assert all(len(line) <= (len(str(tmp_path)) + 40 if str(tmp_path) in line else 80) for line in out.splitlines())


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


def test_a_study_goes_on_with_its_own_settings_where_nothing_is_said_of_them(table, tmp_path, capsys):
    run(capsys, *quick(table, tmp_path, "--arms", "si"))
    again = ["compare", table, "--target", "age", "ill", "--resume", "--quiet"]
    places = ["--out", tmp_path / "runs", "--report", tmp_path / "report.html"]
    (tmp_path / "runs" / "runs" / "si-seed1" / "run.json").unlink()
    code, _, _ = run(capsys, *again, *places)
    assert code == 0
    assert len(list((tmp_path / "runs" / "runs").glob("*/run.json"))) == 6
    code, out, _ = run(capsys, *again, *places, "--seeds", 3, "--arms", "uw")
    assert code == 0
    assert len(list((tmp_path / "runs" / "runs").glob("*/run.json"))) == 11
    assert "seeds" in out.split("stl")[0]  # A column, since arms have other seeds now.
    code, _, err = run(capsys, *again, *places, "--epochs", 3)
    assert code == cli.BAD_INPUT
    assert "epochs was 2 and is 3" in err


CHANGED = """
import numpy as np
from motet.problems import Problem, Task, Training, assemble, cut

TASKS = Task("dose", "regression", "mae"), Task("toxic", "binary", "auroc")

def load(seed):
    rng = np.random.default_rng(seed)
    x = rng.normal(size=(90, 3))
    parts = np.split(np.arange(90), [50, 70])
    values = {"dose": x[:, 0] + rng.normal(size=90), "toxic": (x[:, 1] > 0).astype(float)}
    return assemble(TASKS, cut(x, parts), {name: cut(value, parts) for name, value in values.items()})

def problem():
    return Problem("own", "Own", "made up", load, training=Training(epochs=2))
"""


def test_a_problem_of_ones_own_goes_on_with_the_studys_settings_unless_its_own_have_changed(tmp_path, capsys):
    code = tmp_path / "own_c.py"
    code.write_text(CHANGED)
    start = ["compare", f"{code}:problem", "--arms", "si", "--seeds", 1, "--quiet", "--out", tmp_path / "runs"]
    start += ["--report", tmp_path / "r.html"]
    assert run(capsys, *start, "--width", 4, "--epochs", 1)[0] == 0
    assert run(capsys, *start, "--resume")[0] == 0
    sys.modules.pop("own_c")
    code.write_text(CHANGED.replace("epochs=2", "epochs=33"))
    found, _, err = run(capsys, *start, "--resume")
    assert found == cli.BAD_INPUT
    assert "epochs was 1 and is 33" in err


def test_a_damaged_run_is_named_by_report_and_trained_again_by_resume(table, tmp_path, capsys):
    run(capsys, *quick(table, tmp_path, "--arms", "si"))
    broken = tmp_path / "runs" / "runs" / "si-seed1" / "run.json"
    whole = broken.read_text(encoding="utf8")
    broken.write_text(whole[: len(whole) // 2])
    code, _, err = run(capsys, "report", tmp_path / "runs")
    assert code == cli.BAD_INPUT
    assert "si-seed1" in err
    assert len(err.splitlines()) == 1
    code, _, _ = run(capsys, *quick(table, tmp_path, "--arms", "si", "--resume"))
    assert code == 0
    assert json.loads(broken.read_text(encoding="utf8"))["test"] == json.loads(whole)["test"]


@pytest.mark.parametrize(
    ("place", "said"),
    [
        ("motet.study.study.Store", "Interrupted: nothing was trained yet; the same command starts anew."),
        ("motet.study.tuning.attempt", "Interrupted: what was finished of its tuning is kept in {}; the same command"),
    ],
)
def test_ctrl_c_before_the_first_run_says_what_there_is_to_go_on_with(
    table, tmp_path, capsys, monkeypatch, place, said
):
    def interrupted(*arguments, **options):
        raise KeyboardInterrupt

    monkeypatch.setattr(place, interrupted)
    code, out, _ = run(capsys, *quick(table, tmp_path, "--arms", "sum", "--trials", 2))
    assert code == cli.INTERRUPTED
    assert said.format(tmp_path / "runs") in out


def test_ctrl_c_anywhere_ends_in_one_word(table, tmp_path, capsys, monkeypatch):
    def interrupted(*arguments, **options):
        raise KeyboardInterrupt

    for place in ("motet.cli.chosen.from_table", "motet.study.study.Study.report"):
        with monkeypatch.context() as patch:
            patch.setattr(place, interrupted)
            code, _, err = run(capsys, *quick(table, tmp_path, "--arms", "sum"))
        assert code == cli.INTERRUPTED
        assert err == "Interrupted.\n"


def test_the_rule_cannot_be_changed_after_the_results(table, tmp_path, capsys):
    arms = ["--arms", "si"]
    code, out, _ = run(capsys, *quick(table, tmp_path, *arms, "--margin", 3))
    assert "less than 3 in Δm does not matter" in out
    code, out, err = run(capsys, *quick(table, tmp_path, *arms, "--resume", "--margin", 30, "--worst-task", 100))
    assert code == cli.BAD_INPUT
    assert "fixed before its first result" in err
    for again in (quick(table, tmp_path, *arms, "--resume"), ["report", tmp_path / "runs"]):
        code, out, _ = run(capsys, *again)
        assert code == 0
        assert "less than 3 in Δm does not matter" in out


def test_what_the_results_cannot_show_stands_with_them(table, tmp_path, capsys):
    _, out, _ = run(capsys, *quick(table, tmp_path, "--arms", "si"))
    assert "the same rows recur in every seed" in re.sub(r"[\s│]+", " ", out)
    timed = quick(table, tmp_path, "--arms", "si", "--time", "pulse")
    timed[timed.index("--out") + 1] = tmp_path / "time"
    _, out, _ = run(capsys, *timed)
    assert "The split is the same for every seed" in re.sub(r"[\s│]+", " ", out)
    small = ["--epochs", 1, "--seeds", 1, "--width", 8, "--quiet", "--arms", "sum", "--report", tmp_path / "r.html"]
    _, out, _ = run(capsys, "compare", "digits", *small, "--out", tmp_path / "digits")
    assert "Caution: The images are real" in out


def test_missing_labels_leave_every_task_in_the_results(table, tmp_path, capsys):
    _, out, _ = run(capsys, *quick(table, tmp_path, "--arms", "si", "--json"))
    found = json.loads(out)
    for arm in found["arms"]:
        assert all(change["mean"] is not None for change in arm["per_task"].values())
    assert all(level is not None for level in found["baseline"].values())
    assert not any("left out" in reason for reason in found["verdict"]["reasons"])


def test_arms_with_long_names_are_told_apart(table, tmp_path, capsys):
    arms = ["cagrad:c=0.1234567890123456", "cagrad:c=0.1234567890123499"]
    _, out, _ = run(capsys, *quick(table, tmp_path, "--arms", *arms))
    top = out[: out.index("Δm: mean change")]
    assert "…" not in top
    assert "3456 " in top
    assert "3499 " in top
    assert max(map(len, top.splitlines())) <= 80


def brief(source, tmp_path, *more: object) -> list[object]:
    return ["affinity", source, "--out", tmp_path / "affinity.html", "--runs", 2, "--quiet", *more]


LOOP = """
import torch
from motet.loop import Loop

def loop():
    model = torch.nn.Linear(2, 2)
    return Loop(model, lambda x: dict(zip("ab", (model(x) - 1).pow(2).mean(0))), list(torch.randn(30, 8, 2)))
"""


def test_affinity_of_a_table_prints_pairs_groups_and_what_they_are_worth(table, tmp_path, capsys):
    arguments = brief(table, tmp_path, "--target", "age", "ill", "--drop", "ward", "--epochs", 30)
    code, out, _ = run(capsys, *arguments)
    assert code == 0
    text = re.sub(r"[\s│]+", " ", out)
    assert "It is no proof" in text
    command = f"motet compare {table} --target age ill --drop ward --arms 'groups:fixed=[["
    assert [line for line in out.splitlines() if line.startswith(command)]
    assert "the command below tests that" in text
    assert "age (regression" in text or "age" in text
    assert str(tmp_path / "affinity.html") in out.replace("\n", "")
    assert "<html" in (tmp_path / "affinity.html").read_text(encoding="utf8")


def test_affinity_gives_machines_strict_json_and_nothing_else(table, tmp_path, capsys):
    code, out, _ = run(capsys, *brief(table, tmp_path, "--target", "age", "ill", "--epochs", 1, "--json"))
    assert code == 0
    found = json.loads(out, parse_constant=lambda name: pytest.fail(f"{name} is no JSON"))
    assert found["tasks"] == ["age", "ill"]
    assert found["greyed"][0][:2] == ["age", "ill"]
    assert [snapshot["name"] for snapshot in found["snapshots"]][-1] == "late"


def test_affinity_of_a_loop_of_ones_own(tmp_path, capsys, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("sys.path", [*sys.path])
    (tmp_path / "loop_of_test_cli.py").write_text(LOOP)
    code, out, _ = run(capsys, *brief("loop_of_test_cli:loop", tmp_path, "--epochs", 2))
    assert code == 0
    assert "The loop loop_of_test_cli:loop" in re.sub(r"\s+", " ", out)
    assert "Proposed" in out
    # What has a path in it, to be copied, stands on a line of its own and is not broken.
    assert all(len(line) <= (len(str(tmp_path)) + 40 if str(tmp_path) in line else 80) for line in out.splitlines())


def test_a_second_interrupt_while_the_page_is_written_does_not_lose_it(tmp_path, capsys, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("sys.path", [*sys.path])
    (tmp_path / "loop_of_test_cli.py").write_text(LOOP)
    write = motet.report.affinity.write

    def interrupted(*arguments):
        signal.raise_signal(signal.SIGINT)
        return write(*arguments)

    monkeypatch.setattr("motet.report.affinity.write", interrupted)
    code, _, _ = run(capsys, *brief("loop_of_test_cli:loop", tmp_path, "--epochs", 1))
    assert code == 0
    assert (tmp_path / "affinity.html").exists()


def test_an_unwritable_page_is_said_before_training(table, tmp_path, capsys, monkeypatch):
    monkeypatch.setattr("motet.study.affinity.measure", lambda *_, **__: pytest.fail("it trained"))
    too_long = "takes no such file (File name too long)"
    for name, message in (("x" * 300, too_long), ("x" * 250, too_long), ("no/folder/a.html", "there is no folder")):
        code, _, err = run(capsys, "affinity", "digits", "--out", tmp_path / name)
        assert code == cli.BAD_INPUT
        assert "the page can't be written: " in err
        assert message in err
    assert list(tmp_path.iterdir()) == [table]


def test_an_interrupted_affinity_reports_what_was_measured(tmp_path, capsys, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("sys.path", [*sys.path])
    (tmp_path / "loop_of_test_cli.py").write_text(LOOP)

    def update(self, done, total):
        if done == 100:
            raise KeyboardInterrupt

    monkeypatch.setattr("motet.study.affinity_terminal.Bar.update", update)
    code, out, _ = run(capsys, *brief("loop_of_test_cli:loop", tmp_path, "--epochs", 3))
    assert code == cli.INTERRUPTED
    assert "Interrupted in training 2 of 2" in re.sub(r"\s+", " ", out)
    assert "INTERRUPTED" in (tmp_path / "affinity.html").read_text(encoding="utf8")


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
    code, out, _ = run(capsys, "methods", "fairgrad", "--json")
    assert (json.loads(out)["name"], json.loads(out)["options"]["alpha"]) == ("fair-grad", 2.0)


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
        (["compare", "digits", "--arms", "groupz"], "groupz"),
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
        (["compare", "{table}", "--target", "age", "--out", "{folder}"], "not empty"),
        (["compare", "{table}", "--target", "age", "--resume", "--out", "{folder}"], "nothing to resume in {folder}"),
        (["compare", "digits", "--resume", "--out", "rnus"], "nothing to resume in rnus"),
        (["compare", "digits", "--resume"], "nothing to resume in runs/digits-overlay"),
        (["compare", "digits", "--report", "."], "is a folder"),
        (["compare", "digits", "--margin", "nan"], "--margin must be"),
        (["compare", "digits", "--worst-task", "-1"], "--worst-task must be"),
        (["compare", "digits", "--weight-decay", "nan"], "--weight-decay must be"),
        (["compare", "digits", "--learning-rate", "nan"], "--learning-rate must be positive"),
        (["compare", "digits", "--learning-rate", "inf"], "--learning-rate must be positive"),
        (["compare", "digits", "--arms", "si", "--arms", "uw"], "--arms is given twice"),
        (["report", "{folder}"], "no study.json"),
        (["report"], "which study"),
        (["affinity", "digitz"], "no problem 'digitz': did you mean 'digits-overlay'"),
        (["affinity", "digits", "--epochs", "0"], "--epochs must be at least 1"),
        (["affinity", "digits", "--runs", "0"], "--runs must be at least 1"),
        (["affinity", "digits", "--decay", "1"], "--decay must lie between 0 and 1"),
        (["affinity", "digits", "--out", "."], "is a folder"),
        (["affinity", "digits", "--target", "left"], "--target is for tables"),
        (
            ["affinity", "{table}", "--target", "age", "--epochs", "1"],
            "--target names one column, age: name two or more",
        ),
        (["affinity", "digits", "--seed", "-1"], "--seed must be a whole number from 0 to"),
        (["affinity", "digits", "--seed", "4294967295"], "--seed must be a whole number from 0 to 4294967293"),
        (["affinity", "no_such_module_e:loop"], "there is no module 'no_such_module_e'"),
        (["affinity", "json:lodas"], "'json' has no 'lodas': did you mean 'loads'"),
        (["affinity", "json:loads"], "called without arguments"),
        (["affinity", "json:loads", "--target", "a"], "makes its own batches: leave it out"),
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
    assert message.format(**places) in err
    assert "Traceback" not in err
    assert err.startswith("motet: ")
    assert out == "" or {"compare", "affinity"} & set(arguments)
    assert list(tmp_path.iterdir()) == [table]


@pytest.mark.parametrize("arguments", [["compare"], ["compar", "digits"], ["compare", "digits", "--seed", "3"], []])
def test_a_wrong_command_line_exits_with_two(capsys, arguments):
    with pytest.raises(SystemExit) as stopped:
        cli.main(arguments)
    assert stopped.value.code == 2


def test_a_table_without_targets_is_told_what_to_type_and_that_works(table, tmp_path, capsys, monkeypatch):
    monkeypatch.chdir(tmp_path)
    code, _, err = run(capsys, "compare", "patients.csv")
    assert code == cli.BAD_INPUT
    assert "ill (binary)" in err
    command = err.strip().split("for example: motet ")[1]
    assert command == "compare patients.csv --target ill"
    small = ["--epochs", 1, "--seeds", 1, "--width", 8, "--quiet", "--arms", "sum"]
    code, out, _ = run(capsys, *command.split(), *small)
    assert code == 0
    assert "UNDECIDED" in out


def test_a_running_study_is_reported_so_far_and_not_disturbed(table, tmp_path, capsys, monkeypatch):
    real, said, folder = motet.study.study.train, [], tmp_path / "runs"

    def train(*arguments):
        said.append(run(capsys, "report", folder))
        said[-1] += (run(capsys, "report", folder, "--json"),)
        return real(*arguments)

    monkeypatch.setattr(motet.study.study, "train", train)
    code, _, _ = run(capsys, *quick(table, tmp_path, "--arms", "si"))
    assert code == 0
    assert len(said) == 6
    first, last = said[0], said[-1]
    assert first[0] == cli.BAD_INPUT
    assert "no finished run yet (0 of 6 runs are done): wait for more" in first[2]
    text = re.sub(r"\s+", " ", last[1])
    assert re.search(r"This is the verdict so far: \d of 6 runs are done", text)  # The file is a second old at most.
    assert "UNDECIDED" in text
    assert json.loads(last[3][1])[0]["running"]["total"] == 6
    code, out, _ = run(capsys, "report", folder, "--json")
    assert json.loads(out)[0]["running"] is None


OWN = """
import torch
from motet.problems import Data, Problem, Split, Task, Training

def load(seed):
    generator = torch.Generator().manual_seed(seed)
    def part():
        x = torch.randn(40, 3, generator=generator)
        return Split(x, {"dose": (x[:, 0] - x[:, 0].mean()) / x[:, 0].std(correction=0), "ill": (x[:, 1] > 0).float()})
    return Data((Task("dose", "regression", "mae"), Task("ill", "binary", "auroc")), part(), part(), part())

def problem():
    return Problem("own-data", "my own", "me", load, training=Training(epochs=1, width=8))
"""


def test_a_problem_of_ones_own_is_compared_and_a_run_of_it_repeated(tmp_path, capsys, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("sys.path", [*sys.path])
    (tmp_path / "code").mkdir()
    (tmp_path / "code" / "own_of_test_cli.py").write_text(OWN)
    name = "code/own_of_test_cli.py:problem"
    code, out, _ = run(capsys, "compare", name, "--arms", "si", "--seeds", 1, "--quiet")
    assert code == 0
    assert "runs/own-data" in out
    place = "runs/own-data/runs/sum-seed0"
    code, _, err = run(capsys, "repro", place)
    assert code == cli.BAD_INPUT
    assert f"motet repro {place} --problem" in err
    code, out, _ = run(capsys, "repro", place, "--problem", name, "--quiet")
    assert code == 0
    assert "sum, seed 0 came out identical" in out
    code, out, _ = run(capsys, "repro", place, "--problem", name, "--quiet", "--json")
    assert json.loads(out)["outcome"] == "identical"


def test_the_help_of_compare_is_short_and_grouped(capsys):
    with pytest.raises(SystemExit) as stopped:
        cli.main(["compare", "--help"])
    out = capsys.readouterr().out
    assert stopped.value.code == 0
    for heading in ("table options", "rule options", "training options", "running options"):
        assert heading in out
    assert "None" not in out
    assert "Every arm" in out
    assert len(out.splitlines()) <= 100
