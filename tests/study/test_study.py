"""A study from start to end: paired, deterministic, kept on disk, resumed, refused where it can't be right."""

import json
import math
from dataclasses import asdict, replace

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

import motet
from motet.study.files import StoreError, write_json
from motet.study.store import Store, read_runs
from motet.study.study import Study, opened
from motet.study.training import train
from tests.study.tiny import TINY

ARMS = ("fair-grad", "famo")
REFERENCE = dict.fromkeys(("dose", "ill", "grade"), 0.5)


@pytest.fixture(scope="module")
def study(tmp_path_factory) -> Study:
    return Study(TINY, ARMS, seeds=2, out=tmp_path_factory.mktemp("study") / "runs").run()


def results(study: Study) -> list[dict]:
    """Everything but what a clock measured."""
    rows = []
    for run in study.runs():
        row = asdict(run)
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


def test_missing_labels_are_left_out_of_every_result(study):
    for run in study.runs():
        assert all(map(math.isfinite, [*run.test.values(), *run.validation.values()]))
        test = TINY.load(run.seed).test
        stored = load_file(study.folder / "runs" / run.provenance["id"] / "predictions.safetensors")
        dose, ill, grade = (test.targets[task].numpy() for task in ("dose", "ill", "grade"))
        assert np.isnan(dose).any()
        assert np.isnan(ill).any()
        assert (grade < 0).any()
        assert run.test["dose"] == pytest.approx(np.nanmean(np.abs(stored["dose"].squeeze(1).numpy() - dose)), rel=1e-5)
        right = (stored["ill"].squeeze(1).numpy() > 0) == ill
        assert run.test["ill"] == pytest.approx(right[~np.isnan(ill)].mean())
        right = stored["grade"].argmax(1).numpy() == grade
        assert run.test["grade"] == pytest.approx(right[grade >= 0].mean())


def test_large_seeds_are_seeds_too(tmp_path):
    found = Study(TINY, (), seeds=[20_240_101, 2**32 - 1], out=tmp_path / "runs").run()
    assert {run.seed for run in found.runs()} == {20_240_101, 2**32 - 1}


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
            patch.setattr("motet.study.store.write_json", _dies_on("run.json"))
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
    def write(path, data):
        if path.name == name:
            path.write_text("{", encoding="utf8")
            raise Killed
        write_json(path, data)

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
    with pytest.raises(StoreError, match=r"another study \(epochs was 3 and is 5\).*--out"):
        other.run()


def test_a_finished_study_opens_for_its_verdict_and_report(study, tmp_path):
    again = opened(study.folder)
    assert again.verdict() == study.verdict()
    assert again.verdict().decision == "UNDECIDED"
    assert any("6 seeds" in reason for reason in again.verdict().reasons)
    page = again.report(tmp_path / "report.html").read_text(encoding="utf8")
    assert "UNDECIDED" in page
    assert "three made-up outcomes" in page


@pytest.mark.parametrize(
    ("arms", "message"),
    [
        (["fairgrda"], "no arm 'fairgrda': did you mean 'fair-grad'"),
        (["fair-grad:alhpa=1"], "no option 'alhpa': did you mean 'alpha'"),
        (["fair-grad:alpha=-1"], "alpha .* positive"),
        (["fair-grad:alpha"], "name=value"),
        (["fair-grad@exakt"], "did you mean 'exact'"),
        (["grad-drop@last-layer"], "needs whole gradients"),
        (["stl@exact"], "no options, no wrapper and no route"),
    ],
)
def test_wrong_arms_are_refused_before_any_work(arms, message):
    with pytest.raises(ValueError, match=message):
        Study(TINY, arms)


@pytest.mark.parametrize("seeds", [0, [], [-1], [2**32], "3", [1.5], True, [True]])
def test_wrong_seeds_are_refused_before_any_work(seeds):
    with pytest.raises(ValueError, match="seeds must be"):
        Study(TINY, (), seeds=seeds)


@pytest.mark.parametrize("seeds", [3, np.int64(3), [0, 1, 2], np.arange(3), (0, 1, 1, 2), range(3)])
def test_seeds_are_a_number_or_a_list_of_any_kind(seeds):
    assert Study(TINY, (), seeds=seeds).seeds == [0, 1, 2]


def test_an_unknown_problem_is_refused_before_any_work():
    with pytest.raises(ValueError, match="did you mean 'yeast'"):
        Study("yeats")


def test_no_trials_are_no_tuning_whatever_the_folder_or_the_arms_would_have(tmp_path):
    with pytest.raises(ValueError, match="sum:tuned is tuned, and 0 trials are no tuning"):
        Study(TINY, "sum:tuned", 1, tuning=0)
    short = replace(TINY.training, epochs=1)
    Study(TINY, (), 1, out=tmp_path / "runs", training=short, tuning=2).run()
    again = Study(TINY, (), 1, out=tmp_path / "runs", training=short, tuning=0, resume=True)
    with pytest.raises(StoreError, match="tuning was .*trials.* and is none"):
        again.run()


def test_a_report_on_a_running_study_is_of_one_moment(tmp_path, monkeypatch):
    """A run that is finished between two looks would stand in one part of the page and not in another."""
    running = Study(TINY, (), 1, out=tmp_path / "runs").run()
    reading, real, looks = opened(running.folder), read_runs, []

    def read(folder):
        looks.append(folder)
        return real(folder)

    monkeypatch.setattr("motet.study.study.read_runs", read)
    reading.report(tmp_path / "report.html")
    reading.verdict()
    assert len(looks) == 1


@pytest.mark.parametrize(
    ("arms", "seeds", "text"),
    [
        ((), 1, "1 seed can't show that an arm is better"),
        ("si", 5, "5 seeds can't show that an arm is better"),
        (("si", "uw"), 6, "6 seeds can't show that one of 2 arms is better"),
    ],
)
def test_too_few_seeds_are_pointed_out_in_words(arms, seeds, text):
    assert Study(TINY, arms, seeds).too_few_seeds().startswith(text)


def test_names_are_found_however_they_are_written():
    study = Study("Digits", arms=["FairGrad", "fair_grad", "NASH-MTL"])
    assert [arm.label for arm in study.arms] == ["stl", "sum", "fair-grad", "nash-mtl"]
    assert [arm.label for arm in Study(TINY, arms="si").arms] == ["stl", "sum", "si"]
