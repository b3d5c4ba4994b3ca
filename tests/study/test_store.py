"""The folder of a study after kills, damage and a second writer: nothing lost, nothing mixed."""

import json
import os
import shutil
import signal
import sqlite3
import sys
from contextlib import closing
from dataclasses import asdict, replace
from subprocess import PIPE, Popen

import pytest

from motet.study import lock
from motet.study.description import read_study
from motet.study.files import FORMAT, StoreError, plain, restore
from motet.study.lock import Lock
from motet.study.results import Rule, Run
from motet.study.store import Store, read_runs
from motet.study.study import Study, opened
from motet.study.typed import build
from tests.study.tiny import TINY


@pytest.fixture(scope="module")
def template(tmp_path_factory):
    out = tmp_path_factory.mktemp("store") / "runs"
    Study(TINY, (), seeds=2, out=out).run()
    return out


@pytest.fixture
def out(template, tmp_path):
    return shutil.copytree(template, tmp_path / "runs")


def resumed(out, **options) -> Study:
    return Study(TINY, (), seeds=2, out=out, resume=True, **options)


def results_of(out) -> dict:
    return {(run.arm, run.seed): run.test for run in read_runs(out)}


def indexed(out) -> list:
    with sqlite3.connect(out / "index.sqlite") as index:
        return index.execute("select arm, seed, finished from runs order by arm, seed").fetchall()


# Runs

DAMAGE = ["", '{"format": 2, "arm": "sum"', '{"format": 2}', "[]", "wrong type", "unknown field", "no file", "binary"]


def damage(place, how: str) -> None:
    path = place / "run.json"
    data = json.loads(path.read_text(encoding="utf8"))
    if how == "wrong type":
        path.write_text(json.dumps(data | {"test": [0.5]}))
    elif how == "unknown field":
        path.write_text(json.dumps(data | {"colour": 3}))
    elif how == "no file":
        path.unlink()
    elif how == "binary":
        path.write_bytes(b"\xff\xfe\x00")
    else:
        path.write_text(how)


@pytest.mark.parametrize("how", DAMAGE)
def test_a_damaged_run_is_named_when_read_and_trained_again_when_resumed(out, how, caplog):
    before = results_of(out)
    damage(out / "runs" / "sum-seed0", how)
    with pytest.raises(StoreError, match=r"sum-seed0.*is damaged.*--resume --out"):
        opened(out)
    resumed(out).run()
    assert results_of(out) == before
    assert (out / "runs" / ".damaged-sum-seed0-1" / "model.safetensors").exists()
    assert len([record for record in caplog.records if "trained again" in record.message]) == 1


def test_a_run_that_is_damaged_twice_loses_neither_remains(out):
    for _ in range(2):
        damage(out / "runs" / "sum-seed0", "")
        resumed(out).run()
    assert sorted(path.name for path in (out / "runs").glob(".damaged-*")) == [
        ".damaged-sum-seed0-1",
        ".damaged-sum-seed0-2",
    ]


def test_runs_of_one_seed_on_different_data_are_not_compared(out):
    path = out / "runs" / "sum-seed1" / "run.json"
    path.write_text(path.read_text().replace(read_runs(out)[1].provenance["data"], "0" * 16))
    with pytest.raises(StoreError, match="stl and sum were trained on different data with seed 1"):
        opened(out)


def test_a_run_survives_the_way_to_disk_with_undefined_values(out):
    run = read_runs(out)[0]
    undefined = replace(run, test={**run.test, "dose": float("nan"), "ill": float("inf"), "grade": float("-inf")})
    text = json.dumps(plain(asdict(undefined)), allow_nan=False)
    assert repr(build(Run, restore(json.loads(text)))) == repr(undefined)


# study.json


def test_a_folder_of_another_format_is_refused_with_both_numbers(out):
    described = out / "study.json"
    described.write_text(described.read_text().replace(f'"format": {FORMAT}', '"format": 99'))
    for use in (lambda: opened(out), resumed(out).run):
        with pytest.raises(StoreError, match=f"format 99, this motet reads format {FORMAT}"):
            use()


@pytest.mark.parametrize("content", ["", '{"format": 2, "problem"', '{"format": 2, "problem": 3}', None])
def test_a_lost_description_is_made_anew_from_the_same_settings_and_no_run_is_lost(out, content, caplog):
    described, before, description = out / "study.json", results_of(out), read_study(out)
    described.write_text(content) if content is not None else described.unlink()
    with pytest.raises(StoreError, match=r"damaged.*--resume.*runs are kept" if content is not None else "no study"):
        opened(out)
    with pytest.raises(StoreError, match="made with other settings.*runs are kept"):
        resumed(out, training=replace(TINY.training, epochs=9)).run()
    stamps = [path.stat().st_mtime_ns for path in sorted(out.glob("runs/*/run.json"))]
    resumed(out).run()
    assert read_study(out) == description
    assert results_of(out) == before
    assert stamps == [path.stat().st_mtime_ns for path in sorted(out.glob("runs/*/run.json"))]
    assert "made anew" in caplog.text


def test_a_lost_description_does_not_let_the_rule_be_changed(out):
    (out / "study.json").unlink()
    with pytest.raises(StoreError, match="made with other settings"):
        resumed(out, rule=Rule(margin=30.0)).run()


def test_a_damaged_history_costs_the_commands_and_nothing_else(out, caplog):
    (out / "history.json").write_text("{")
    assert opened(out).verdict().decision == "UNDECIDED"
    assert "which commands made these runs is not known" in caplog.text


# What a kill leaves


@pytest.mark.parametrize(
    "left", [(), ("runs",), ("runs", "lock.sqlite"), ("runs", "lock.sqlite", "lock.sqlite-journal", "study.tmp")]
)
def test_a_folder_in_which_a_study_hardly_began_is_taken(tmp_path, left):
    out = tmp_path / "runs"
    out.mkdir()
    for name in left:
        (out / name).mkdir() if name == "runs" else (out / name).touch()
    assert len(Study(TINY, (), seeds=1, out=out).run().runs()) == 2


def test_a_folder_with_something_else_in_it_is_refused_and_left_as_it_was(tmp_path):
    (tmp_path / "thesis.tex").write_text("precious")
    with pytest.raises(StoreError, match="not empty and holds no study"):
        Study(TINY, (), seeds=1, out=tmp_path).run()
    assert [path.name for path in tmp_path.iterdir()] == ["thesis.tex"]


def test_someone_elses_runs_are_not_swept_away(tmp_path):
    (tmp_path / "runs" / "2024").mkdir(parents=True)
    with pytest.raises(StoreError, match="not empty and holds no study"):
        Study(TINY, (), seeds=1, out=tmp_path, resume=True).run()


# One writer


def test_a_second_writer_is_refused_and_sweeps_nothing(out):
    partial = out / "runs" / ".partial-si-seed0"
    with Store(out, read_study(out), resume=True):
        partial.mkdir()
        with pytest.raises(StoreError, match="another motet is writing in"):
            resumed(out).run()
        assert partial.exists()
    resumed(out).run()
    assert not partial.exists()


def test_a_lock_ends_with_its_process_even_by_sigkill(tmp_path):
    code = "import sys, pathlib, motet.study.lock as l; held = l.Lock(pathlib.Path(sys.argv[1])); print(1); input()"
    with Popen([sys.executable, "-c", code, tmp_path], stdin=PIPE, stdout=PIPE) as other:
        assert other.stdout.readline() == b"1\n"
        with pytest.raises(StoreError, match="another motet is writing"):
            Lock(tmp_path)
        os.kill(other.pid, signal.SIGKILL)
        other.wait()
    Lock(tmp_path).release()


# The index


@pytest.mark.parametrize("content", [None, b"this is no database at all, and it is long enough to be one" * 99])
def test_the_index_is_made_anew_from_the_folders(out, content):
    before = indexed(out)
    (out / "index.sqlite").unlink()
    if content is not None:
        (out / "index.sqlite").write_bytes(content)
    resumed(out).run()
    assert indexed(out) == before
    assert [row[:2] for row in before] == [("stl", 0), ("stl", 1), ("sum", 0), ("sum", 1)]
    assert all(row[2] for row in before)


def test_a_tool_that_has_the_index_open_does_not_stop_a_study(out, caplog):
    before = indexed(out)
    with closing(sqlite3.connect(out / "index.sqlite", isolation_level=None)) as tool:
        tool.execute("begin exclusive")
        resumed(out).run()
        tool.execute("rollback")
    assert "open elsewhere" in caplog.text
    assert indexed(out) == before


def test_a_lock_that_cannot_be_used_is_no_other_writer(tmp_path):
    (tmp_path / lock.NAME).mkdir()
    with pytest.raises(StoreError, match="can't be used.*name another folder with --out"):
        Lock(tmp_path)


def test_a_table_may_lie_elsewhere_on_another_machine(out):
    stored = read_study(out)
    moved = replace(stored, source="another/place.csv")
    moved.must_equal(stored, out)
    assert moved.digest() == stored.digest()
