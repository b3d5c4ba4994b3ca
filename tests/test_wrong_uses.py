"""Wrong uses of the command: each ends in one sentence that names the cause and the fix, before anything is trained."""

import errno
import re
import sys

import numpy as np
import pandas as pd
import pytest
from safetensors import SafetensorError

from motet import cli
from motet.study.lock import Lock

ROWS = 60


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A folder as a stranger may have it: one good table, many bad ones."""
    place = tmp_path_factory.mktemp("wrong")
    rng = np.random.default_rng(0)
    x = rng.normal(size=(ROWS, 3))
    good = pd.DataFrame(x, columns=["height", "weight", "pulse"])
    good["age"] = np.round(50 + 5 * x[:, 0], 2)
    good["ill"] = np.where(x[:, 1] > 0, "yes", "no")
    good["ward"] = [f"ward {i % 6}" for i in range(ROWS)]
    good.to_csv(place / "good.csv", index=False)
    tables = {
        "constant": good.assign(age=50),
        "classes": good.assign(grade=[f"g{i}" for i in range(ROWS)]),
        "unlabelled": good.assign(age=np.nan),
        "text": good.assign(age=[*good["age"][:-1], "fifty"]),
        "untimed": good.assign(seen=["01/02/2026"] * ROWS),
        "gaps": good.assign(ward=[None, *good["ward"][1:]]),
        "born": good.assign(born="2001-01-31", seen=[f"2001-01-{1 + i % 28:02d}" for i in range(ROWS)]),
        "small": good[:10],
        "alone": good.assign(ill=["yes", *["no"] * (ROWS - 1)]),
        "infinite": good.assign(age=[np.inf, *good["age"][1:]]),
    }
    for name, table in tables.items():
        table.to_csv(place / f"{name}.csv", index=False)
    text = (place / "good.csv").read_text()
    (place / "empty.csv").write_text("")
    (place / "header.csv").write_text("a,b,c\n")
    (place / "one.csv").write_text("a\n1\n2\n")
    (place / "twice.csv").write_text("age,age,x\n1,2,3\n")
    (place / "quotes.csv").write_text(text.replace("yes", '"yes', 1))
    (place / "ragged.csv").write_text(text + "1,2\n")
    (place / "latin.csv").write_bytes(text.replace("ward 1", "Österreich").encode("latin-1"))
    (place / "book.xlsx").write_bytes(b"PK\x03\x04\0\0")
    (place / "tables").mkdir()
    (place / "tables" / "march.csv").write_text(text)
    (place / "file").write_text("")
    (place / "code_e.py").write_text(CODE)
    (place / "broken_e.py").write_text("def problem(:\n")
    return place


CODE = """
from dataclasses import replace
import torch
from motet.problems import Data, Problem, Split, Task, Training

TASKS = (Task("a", "regression", "mae"), Task("b", "binary", "auroc"))

def part(b=torch.float32):
    x = torch.randn(40, 3, generator=torch.Generator().manual_seed(1))
    a = (x[:, 0] - x[:, 0].mean()) / x[:, 0].std(correction=0)
    return Split(x, {"a": a, "b": (x[:, 1] > 0).to(b)})

def whole(seed):
    return Data(TASKS, part(), part(), part())

def integers(seed):
    return Data(TASKS, part(torch.int64), part(torch.int64), part(torch.int64))

def raising(seed):
    return {}["absent"]

def good():
    return Problem("own", "my own", "me", whole, training=Training(width=8))

def wrong_dtype():
    return replace(good(), load=integers)

def fails():
    return replace(good(), load=raising)

def frame():
    return replace(good(), load=lambda seed: [1, 2])

def unnamed():
    return replace(good(), name="a/b")

def nothing():
    pass
"""

GOOD = "compare good.csv --target age ill"
USES = {
    "a misspelt command": ("compair digits", "did you mean 'compare'"),
    "no command": ("", "which command? There are compare"),
    "a misspelt option": ("compare digits --sede 3", "no option --sede: did you mean '--seeds'"),
    "one dash": ("compare digits -seeds 3", "no option -seeds: did you mean '--seeds'"),
    "an option's value is missing": (f"{GOOD} --seeds", "--seeds needs a value"),
    "words for a number": ("compare digits --seeds abc", "--seeds must be a whole number, not 'abc'"),
    "a fraction for a whole number": ("compare digits --seeds 2.5", "--seeds must be a whole number, not '2.5'"),
    "code without its function": ("compare code_e.py", "name the function in it that returns the problem"),
    "a survival target": ("compare good.csv --target age os:survival=t,e", "outcomes of `motet select TABLE --outcome"),
    "another command's option": ("select good.csv --target age", "no option --target: did you mean '--outcome'"),
    "no seeds": ("compare digits --seeds 0", "--seeds must be at least 1"),
    "negative seeds": ("compare digits --seeds -1", "--seeds must be at least 1, and 6 to show anything, not -1"),
    "a flag with a value": ("compare digits --resume yes", "one problem or table, 'digits', and 'yes' is one too many"),
    "the table behind the targets": ("compare --target age ill good.csv", "which problem or table? It stands first"),
    "a name with spaces": ("compare my table.csv --target age", "'table.csv' is one too many: put quotes"),
    "an option twice": (f"{GOOD} --seeds 2 --seeds 3", "--seeds is given twice"),
    "an unknown problem": ("compare digitz", "no problem 'digitz': did you mean 'digits-overlay'"),
    "a missing table": ("compare patients.csv --target age", "no file patients.csv; its folder has alone.csv"),
    "a missing folder": ("compare data/good --target age", "no file data/good, and no problem has a name like this"),
    "a folder for a table": (
        "compare tables --target age",
        "tables is a folder, and a table is one file: it has march",
    ),
    "an empty table": ("compare empty.csv --target age", "empty.csv is empty"),
    "a header alone": ("compare header.csv --target a", "has a header and no rows"),
    "one column": ("compare one.csv --target a", "one column only"),
    "an Excel file": ("compare book.xlsx --target age", "an Excel or zip file and not a CSV: save it as CSV"),
    "another encoding": ("compare latin.csv --target age", "not UTF-8 text (byte 0xd6): save it as CSV in UTF-8"),
    "columns twice": ("compare twice.csv --target x", "has the column 'age' twice: rename one"),
    "unbalanced quotes": ("compare quotes.csv --target age", "that goes on to line 61: close it"),
    "a row too short": ("compare ragged.csv --target age", "line 62 has 2 fields and the header 6"),
    "no target": ("compare good.csv", "compare good.csv --target ill"),
    "a target that is no column": (
        "compare good.csv --target agge",
        "no column 'agge' for the target: did you mean 'age'",
    ),
    "targets with commas": (
        "compare good.csv --target age,ill",
        "with spaces between them, not commas: --target age ill",
    ),
    "an unknown type": ("compare good.csv --target age:regresion", "did you mean 'regression'"),
    "a target twice": ("compare good.csv --target age age", "'age' is named twice"),
    "a constant target": ("compare constant.csv --target age ill", "'age' is '50' in all 60 labelled rows: nothing to"),
    "a row a class": ("compare classes.csv --target grade", "'grade' is neither classes nor a number"),
    "a row a class, said": ("compare classes.csv --target grade:multiclass", "it has 60 in 60 labelled rows"),
    "no labels at all": (
        "compare unlabelled.csv --target age ill",
        "'age' has no labels: all 60 of its cells are empty",
    ),
    "text in a number": ("compare text.csv --target age:regression", "row 60 holds 'fifty', which is not a number"),
    "three classes as two": ("compare good.csv --target ward:binary", "it has 6 values"),
    "an infinite target": ("compare infinite.csv --target age", "infinite in row 1: correct that cell"),
    "a date as a target": ("compare born.csv --target seen ill", "'seen' holds dates: make it a number, such as days"),
    "one row of a class": ("compare alone.csv --target age ill", "class 'yes' in 1 row, and"),
    "ten rows": ("compare small.csv --target age", "10 rows with a label, and a comparison needs 30"),
    "no group column": (f"{GOOD} --group patient", "no column 'patient' for the group"),
    "a row without a group": ("compare gaps.csv --target age --group ward", "'ward' is empty in row 1: fill it"),
    "a time that is a word": (f"{GOOD} --time ward", "can't be read as dates, for example 'ward 0'"),
    "a time of one country": ("compare untimed.csv --target age --time seen", "write them as 2026-01-31"),
    "one day alone": ("compare born.csv --target age --time born", "have the same time"),
    "group and time": (f"{GOOD} --group ward --time pulse", "by group or by time, not by both"),
    "a target that is dropped": (f"{GOOD} --drop age", "'age' is a target and can't be the one to drop too"),
    "a problem with targets": ("compare digits --target left", "--target is for tables"),
    "an unknown arm": (f"{GOOD} --arms famoo", "no arm 'famoo': did you mean 'famo'"),
    "an option out of range": (f"{GOOD} --arms fair-grad:alpha=-1", "arm 'fair-grad:alpha=-1': "),
    "an option that is none": (f"{GOOD} --arms fair-grad:alhpa=1", "alpha"),
    "arms with commas": (f"{GOOD} --arms si,uw", "with spaces between them, not commas: --arms si uw"),
    "an arm twice": (f"{GOOD} --arms si uw si", "names the arm 'si' 2 times: name it once"),
    "an arm in two spellings": (f"{GOOD} --arms fair-grad FairGrad", "fair-grad and FairGrad are the same"),
    "no arms": (f"{GOOD} --arms", "--arms needs one value or more"),
    "tuned, misspelt": (f"{GOOD} --arms sum:tunde", "no arm 'sum:tunde': did you mean 'sum:tuned'"),
    "one trial": (f"{GOOD} --trials 1", "--trials must be 0, for no tuning, or at least 2, not 1"),
    "no trials for an arm of trials": (
        f"{GOOD} --arms sum:tuned --trials 0",
        "sum:tuned is tuned, and 0 trials are no tuning: leave the arm out",
    ),
    "negative trials": (f"{GOOD} --trials -3", "--trials must be 0, for no tuning, or at least 2, not -3"),
    "no workers": (f"{GOOD} --workers 0", "--workers must lie between 1 and "),
    "too many workers": (f"{GOOD} --workers 1000", "processors of this machine"),
    "fewer seeds at most": (f"{GOOD} --seeds 8 --max-seeds 6", "--max-seeds must be more than --seeds, which is 8"),
    "an address that is none": (f"{GOOD} --storage studies", "write sqlite:///FILE or postgresql://USER@HOST/NAME"),
    "a database that can't": (f"{GOOD} --storage redis://localhost", "redis"),
    "no server": (
        f"{GOOD} --arms si --out served --storage postgresql://me:secret@127.0.0.1:9/no?connect_timeout=2",
        "the database postgresql://me:***@127.0.0.1:9/no?connect_timeout=2 can't be used",
    ),
    "an unknown logger": (f"{GOOD} --log tensorbord", "no logger 'tensorbord': did you mean 'tensorboard'"),
    "a file as folder": (f"{GOOD} --out file", "--out file: the runs can't be kept there, since file is a file"),
    "a file on the way": (f"{GOOD} --out file/runs", "since file is a file: name a folder"),
    "a folder of something else": (f"{GOOD} --out tables", "tables is not empty and holds no study"),
    "a report in no folder": (f"{GOOD} --report no/where/r.html", "the report can't be written: there is no folder"),
    "a report that is a folder": (f"{GOOD} --report tables", "tables is a folder, name a file in it"),
    "nothing to resume": (f"{GOOD} --resume", "nothing to resume in runs/good: leave --resume out"),
    "a rate of zero": (f"{GOOD} --learning-rate 0", "--learning-rate must be positive"),
    "a report of nothing": ("report nowhere", "there is no folder nowhere"),
    "a report of a file": ("report file", "file is a file: name the study's folder"),
    "a report of another folder": ("report tables", "tables holds no study"),
    "no module": ("compare no_such_e:problem", "no module 'no_such_e'"),
    "no file of code": ("compare code/data.py:problem", "no file code/data.py"),
    "no function": ("compare code_e.py:godd", "'code_e' has no 'godd': did you mean 'good'"),
    "a function without result": (
        "compare code_e.py:nothing",
        "must return a motet.problems.Problem and returned None",
    ),
    "labels of another type": (
        "compare code_e.py:wrong_dtype",
        "train targets of 'b' are torch.int64 (40,), not torch.f",
    ),
    "code that fails": (
        "compare code_e.py:fails",
        "load(0) of code_e.py:fails() failed: KeyError: 'absent' (code_e.py,",
    ),
    "no data": ("compare code_e:frame", "must return a motet.problems.Data and returned list"),
    "a name with a slash": ("compare code_e.py:unnamed", "has the name 'a/b'"),
    "code that can't be read": ("compare broken_e.py:problem", "broken_e.py can't be imported: SyntaxError"),
    "a problem with a target": ("compare code_e.py:good --target a", "--target is for tables"),
}


def used(capsys, line: str) -> tuple[int, str, str]:
    try:
        code = cli.main(line.split())
    except SystemExit as stopped:
        code = stopped.code
    out, err = capsys.readouterr()
    return code, out, err


def is_one_sentence(err: str) -> bool:
    return (
        err.startswith("motet: ")
        and err.count("\n") == 1
        and "Traceback" not in err
        and not re.search(r"\[Errno|Error\(|<class|\bself\b", err)
    )


@pytest.mark.parametrize("use", USES)
def test_a_wrong_use_ends_in_one_sentence(folder, capsys, monkeypatch, use):
    line, message = USES[use]
    monkeypatch.chdir(folder)
    monkeypatch.setattr("sys.path", [*sys.path])
    monkeypatch.setattr("motet.study.study.train", lambda *_: pytest.fail("it trained"))
    before = sorted(folder.iterdir())
    code, _, err = used(capsys, line)
    assert code == cli.BAD_INPUT
    assert message in err
    assert is_one_sentence(err)
    assert "secret" not in err
    assert sorted(path for path in folder.iterdir() if path.name != "__pycache__") == [
        path for path in before if path.name != "__pycache__"
    ]


SMALL = "--target age ill --arms sum --epochs 1 --seeds 1 --width 8 --quiet --out study --report r.html"


@pytest.fixture(scope="module")
def study(folder):
    """The same folder with a finished study in it."""
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        assert cli.main(f"compare good.csv {SMALL}".split()) == 0
    return folder


STUDIED = {
    "started again": ("", "study holds a study with 2 finished runs: add --resume to go on with it, or name another"),
    "another epoch": ("--resume --epochs 3", "study holds runs of another study (epochs was 1 and is 3)"),
    "another order": (
        "--resume --target ill age",
        "study (the tasks were age and ill and are ill and age, and their order counts)",
    ),
    "another rule": ("--resume --margin 2", "the rule of the study in study was fixed before its first result"),
    "another table": ("--resume", "start this one in another folder with --out"),
    "tuned afterwards": ("--resume --trials 4", "study holds runs of another study (tuning was"),
}


@pytest.mark.parametrize("use", STUDIED)
def test_a_wrong_use_of_a_finished_study_ends_in_one_sentence(study, capsys, monkeypatch, use):
    more, message = STUDIED[use]
    monkeypatch.chdir(study)
    monkeypatch.setattr("motet.study.study.train", lambda *_: pytest.fail("it trained"))
    words, more = SMALL.split(), more.split()
    for option in {"--epochs", "--target"} & {*more}:
        at = words.index(option)
        del words[at : next((i for i in range(at + 1, len(words)) if words[i].startswith("-")), None)]
    table = "infinite.csv --drop age --target ill" if use == "another table" else "good.csv"
    if use == "another table":
        words = words[words.index("--arms") :]
    code, _, err = used(capsys, " ".join(["compare", table, *words, *more]))
    assert code == cli.BAD_INPUT
    assert message in err
    assert is_one_sentence(err)


def test_two_processes_on_one_folder_end_in_one_sentence(study, capsys, monkeypatch):
    monkeypatch.chdir(study)
    held = Lock(study / "study")
    try:
        code, _, err = used(capsys, f"compare good.csv {SMALL} --resume")
    finally:
        held.release()
    assert code == cli.BAD_INPUT
    assert "another motet is writing in study: wait until it is done" in err
    assert is_one_sentence(err)


def no_room(*_, **__):
    raise OSError(errno.ENOSPC, "No space left on device")


def no_room_for_tensors(*_, **__):
    raise SafetensorError("Error while serializing: I/O error: No space left on device (os error 28)")


@pytest.mark.parametrize("fault", [no_room, no_room_for_tensors])
def test_a_full_disk_ends_in_one_sentence_and_loses_nothing(folder, tmp_path, capsys, monkeypatch, fault):
    monkeypatch.chdir(tmp_path)
    line = f"compare {folder / 'good.csv'} {SMALL}"
    with monkeypatch.context() as patch:
        patch.setattr("motet.study.store.save_file", fault)
        code, _, err = used(capsys, line)
    assert code == cli.BAD_INPUT
    assert "the disk is full" in err
    assert "repeat the same command with --resume" in err
    assert is_one_sentence(err)
    assert used(capsys, f"{line} --resume")[0] == 0


def test_a_folder_without_rights_ends_in_one_sentence(folder, capsys, monkeypatch):
    monkeypatch.chdir(folder)
    monkeypatch.setattr("os.access", lambda *_: False)  # root, as which tests may run, has all rights.
    code, _, err = used(capsys, f"{GOOD} --out here")
    assert code == cli.BAD_INPUT
    assert "you may not write in" in err
    assert "name another folder" in err
    assert is_one_sentence(err)


def test_a_missing_driver_ends_in_one_sentence(folder, capsys, monkeypatch):
    monkeypatch.chdir(folder)
    monkeypatch.setattr("motet.study.database.find_spec", lambda _: None)
    code, _, err = used(capsys, f"{GOOD} --storage postgresql://me@host/name")
    assert code == cli.BAD_INPUT
    assert 'pip install "motet[postgres]"' in err
    assert is_one_sentence(err)
