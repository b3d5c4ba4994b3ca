"""A study from start to end: paired, deterministic, kept on disk, resumed, refused where it can't be right."""

import json
import sqlite3
from dataclasses import replace

import pytest
import torch

import motet
from motet.problems.base import Data
from motet.study.results import Run
from motet.study.store import Store, StoreError, read_runs
from motet.study.study import Study, opened
from motet.study.training import train
from tests.study.tiny import TINY

ARMS = ("fair-grad", "famo")


@pytest.fixture(scope="module")
def study(tmp_path_factory) -> Study:
    return Study(TINY, ARMS, seeds=2, out=tmp_path_factory.mktemp("study") / "runs").run()


def results(study: Study) -> list[dict]:
    """Everything but what a clock measured."""
    rows = []
    for run in study.runs():
        row = run.to_json()
        for part in (row, *row["curve"], row["cost"]):
            for key in ("seconds", "seconds_per_step"):
                part.pop(key, None)
        row["provenance"].pop("finished")
        rows.append(row)
    return rows


def same(left: list[dict], right: list[dict]) -> bool:
    return json.dumps(left, sort_keys=True) == json.dumps(right, sort_keys=True)


def test_every_arm_is_there_with_single_task_and_sum_first(study):
    assert [(run.arm, run.seed) for run in study.runs()] == [
        (arm, seed) for arm in ("stl", "sum", "fair-grad", "famo") for seed in (0, 1)
    ]
    assert list(study.table().index) == ["stl", "sum", "fair-grad", "famo"]


def test_a_run_records_results_curves_weights_cosines_and_cost(study):
    run = next(run for run in study.runs() if run.arm == "fair-grad")
    assert set(run.test) == {"dose", "ill", "grade"} == set(run.validation)
    assert [row.epoch for row in run.curve] == [1, 2, 3]
    assert set(run.weights[0].of) == {"dose", "ill", "grade"}
    assert [c.epoch for c in run.cosines] == [1, 3]
    assert run.cosines[0].matrix[0][0] == pytest.approx(1)
    assert run.cost.steps == 9
    assert run.cost.backwards_per_step == 3
    assert run.cost.peak_memory_mib > 0
    assert 0 < run.cost.step_length < 100


def test_the_cost_counts_the_passes_of_each_way(study):
    passes = {run.arm: (run.cost.forwards_per_step, run.cost.backwards_per_step) for run in study.runs()}
    assert passes == {"stl": (3, 3), "sum": (1, 1), "fair-grad": (1, 3), "famo": (2, 1)}
    assert {run.arm: run.cost.step_length for run in study.runs()}["sum"] == pytest.approx(1, rel=1e-5)


def test_arms_are_paired_by_initial_parameters_batches_and_dropout():
    """An arm that does what the sum does, by another way, trains the same model."""
    data = TINY.load(3)
    arms = [motet.study.arms.parse(text) for text in ("sum", "sum@exact")]
    plain, exact = (train(TINY, data, arm, 3, TINY.training, REFERENCE) for arm in arms)
    for name, value in plain.parameters.items():
        torch.testing.assert_close(exact.parameters[name], value, rtol=1e-4, atol=1e-6)


def test_the_same_seed_gives_the_same_numbers_and_leaves_the_users_generator_alone(study, tmp_path):
    torch.manual_seed(5)
    before = torch.random.get_rng_state()
    again = Study(TINY, ARMS, seeds=2, out=tmp_path / "again").run()
    assert torch.equal(torch.random.get_rng_state(), before)
    assert same(results(study), results(again))


def test_another_seed_gives_other_numbers(study):
    first, second = (run for run in study.runs() if run.arm == "sum")
    assert first.test != second.test


class Killed(Exception):
    pass


def test_a_study_that_is_killed_anywhere_resumes_to_the_same_table(study, tmp_path, monkeypatch):
    """Killed in training, and killed in writing, once in each run."""
    out = tmp_path / "killed"
    real_train, real_put = motet.study.study.train, Store.put
    todo = 8

    def dying(*arguments: object, **options: object) -> object:
        raise Killed

    for done in range(todo):
        with monkeypatch.context() as patch:
            patch.setattr(motet.study.study, "train", dying)
            with pytest.raises(Killed):
                Study(TINY, ARMS, seeds=2, out=out, resume=True).run()
        with monkeypatch.context() as patch:
            patch.setattr("motet.study.store._write_json", _dies_on("run.json"))
            with pytest.raises(Killed):
                Study(TINY, ARMS, seeds=2, out=out, resume=True).run()
        counted = {"runs": 0}

        def one_more(*arguments, counted=counted):
            if counted["runs"]:
                raise Killed
            counted["runs"] += 1
            return real_put(*arguments)

        with monkeypatch.context() as patch:
            patch.setattr(Store, "put", one_more)
            if done < todo - 1:
                with pytest.raises(Killed):
                    Study(TINY, ARMS, seeds=2, out=out, resume=True).run()
            else:
                finished = Study(TINY, ARMS, seeds=2, out=out, resume=True).run()
        assert len(read_runs(out)) == done + 1
    assert real_train is motet.study.study.train
    assert same(results(finished), results(study))


def _dies_on(name: str):
    from motet.study.store import _write_json

    def write(path, data):
        if path.name == name:
            path.write_text("{", encoding="utf8")
            raise Killed
        _write_json(path, data)

    return write


def test_seeds_and_arms_can_be_added_to_a_finished_study(tmp_path):
    out = tmp_path / "runs"
    Study(TINY, (), seeds=1, out=out).run()
    before = {path: path.stat().st_mtime_ns for path in out.glob("runs/*/run.json")}
    more = Study(TINY, ("si",), seeds=2, out=out, resume=True).run()
    assert len(more.runs()) == 6
    assert all(path.stat().st_mtime_ns == stamp for path, stamp in before.items())


def test_an_existing_study_is_not_touched_without_resume(study):
    with pytest.raises(StoreError, match="8 finished runs: add --resume"):
        Study(TINY, ARMS, seeds=2, out=study.folder).run()


def test_a_study_with_other_settings_is_not_mixed_in(study):
    other = Study(TINY, ARMS, out=study.folder, resume=True, training=replace(TINY.training, epochs=5))
    with pytest.raises(StoreError, match=r"another study \(training was .*--out"):
        other.run()


def test_changed_data_are_noticed(study):
    def changed(seed: int) -> Data:
        data = TINY.load(seed)
        data.train.inputs[0, 0] += 1
        return data

    with pytest.raises(StoreError, match="data of seed 0 are not those"):
        Study(replace(TINY, load=changed), (*ARMS, "si"), seeds=2, out=study.folder, resume=True).run()


def test_a_folder_with_something_else_in_it_is_refused(tmp_path):
    (tmp_path / "thesis.tex").write_text("precious")
    with pytest.raises(StoreError, match="not empty and holds no study"):
        Study(TINY, (), seeds=1, out=tmp_path).run()


def test_a_folder_of_another_format_is_refused_with_both_numbers(tmp_path):
    out = tmp_path / "runs"
    Study(TINY, (), seeds=1, out=out).run()
    described = out / "study.json"
    described.write_text(described.read_text().replace('"format": 1', '"format": 99'))
    with pytest.raises(StoreError, match="format 99, this motet reads format 1"):
        opened(out)


@pytest.mark.parametrize("content", ["", '{"format": 1, "arm": "sum"', '{"format": 1}'])
def test_a_damaged_run_is_named_with_the_fix(tmp_path, content):
    out = tmp_path / "runs"
    Study(TINY, (), seeds=1, out=out).run()
    (out / "runs" / "sum-seed0" / "run.json").write_text(content)
    with pytest.raises(StoreError, match=r"sum-seed0.*delete .* --resume"):
        opened(out)


def test_the_index_lists_the_runs_and_is_made_anew_from_the_folders(study):
    (study.folder / "index.sqlite").unlink()
    study.run()
    with sqlite3.connect(study.folder / "index.sqlite") as index:
        assert index.execute("select count(*), count(distinct arm) from runs").fetchone() == (8, 4)


def test_a_run_survives_the_way_to_disk_with_undefined_values(study):
    run = study.runs()[0]
    undefined = replace(run, test={**run.test, "dose": float("nan")})
    from motet.study.store import _plain, _restore

    text = json.dumps(_plain(undefined.to_json()), allow_nan=False)
    assert repr(Run.from_json(_restore(json.loads(text)))) == repr(undefined)


def test_a_finished_study_opens_for_its_verdict_and_report(study, tmp_path):
    again = opened(study.folder)
    assert again.verdict() == study.verdict()
    assert again.verdict().decision == "UNDECIDED"
    assert any("6 seeds" in reason for reason in again.verdict().reasons)
    page = again.report(tmp_path / "report.html").read_text(encoding="utf8")
    assert "UNDECIDED" in page
    assert "three made-up outcomes" in page


def breaks_after(steps: int, monkeypatch) -> None:
    from motet.losses import task_loss

    calls = {"dose": 0}

    def loss(task, outputs, targets):
        calls["dose"] += task.name == "dose" and outputs.requires_grad
        return task_loss(task, outputs, targets) * (torch.nan if calls["dose"] > steps else 1.0)

    monkeypatch.setattr("motet.study.training.task_loss", loss)


REFERENCE = dict.fromkeys(("dose", "ill", "grade"), 0.5)


def test_training_that_breaks_down_keeps_the_best_epoch_and_says_so(monkeypatch):
    # An epoch has three steps and a probe, and the first one a probe of cosines of three batches.
    breaks_after(8, monkeypatch)
    run = train(TINY, TINY.load(0), motet.study.arms.parse("sum"), 0, TINY.training, REFERENCE).run
    assert len(run.curve) == 1
    assert run.warnings[0].startswith("training stopped in epoch 2: the loss of task 'dose'")


def test_training_that_breaks_down_at_once_names_arm_and_seed(monkeypatch):
    breaks_after(2, monkeypatch)
    with pytest.raises(ValueError, match="arm 'sum', seed 4: the loss of task 'dose'"):
        train(TINY, TINY.load(4), motet.study.arms.parse("sum"), 4, TINY.training, REFERENCE)


@pytest.mark.parametrize(
    ("arms", "message"),
    [
        (["fairgrda"], "no arm 'fairgrda': did you mean 'fair-grad'"),
        (["fair-grad:alhpa=1"], "no option 'alhpa': did you mean 'alpha'"),
        (["fair-grad:alpha=-1"], "alpha .* positive"),
        (["fair-grad:alpha"], "name=value"),
        (["fair-grad@exakt"], "did you mean 'exact'"),
        (["grad-drop@last-layer"], "needs whole gradients"),
        (["stl@exact"], "no options and no route"),
    ],
)
def test_wrong_arms_are_refused_before_any_work(arms, message):
    with pytest.raises(ValueError, match=message):
        Study(TINY, arms)


def test_wrong_seeds_and_problems_are_refused_before_any_work():
    with pytest.raises(ValueError, match="seeds must be"):
        Study(TINY, (), seeds=0)
    with pytest.raises(ValueError, match="seeds must be"):
        Study(TINY, (), seeds=[-1])
    with pytest.raises(ValueError, match="did you mean 'yeast'"):
        Study("yeats")


def test_names_are_found_however_they_are_written():
    study = Study("Digits", arms=["FairGrad", "fair_grad", "NASH-MTL"])
    assert [arm.label for arm in study.arms] == ["stl", "sum", "fair-grad", "nash-mtl"]
