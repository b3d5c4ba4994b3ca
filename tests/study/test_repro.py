"""A run that is trained again: the same to the last bit, and where not, what differs."""

import json
from dataclasses import replace

import pytest
import torch
from safetensors.torch import load_file, save_file

from motet.problems.base import Training
from motet.study import repro
from motet.study.arms import parse
from motet.study.description import read_study
from motet.study.files import StoreError, read_json, write_json
from motet.study.repro import ROUNDING, settled
from motet.study.results import Run
from motet.study.study import Study
from tests.study.tiny import TINY, load

ARMS = ["stl", "sum", "fair-grad", "groups", "sum:steps=groups"]


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    folder = tmp_path_factory.mktemp("study") / "runs-of-tiny"
    Study(TINY, ARMS, 1, out=folder, training=replace(TINY.training, epochs=2)).run()
    return folder


@pytest.fixture
def folder(finished, tmp_path):
    """A copy that a test may change."""
    for path in finished.rglob("*"):
        if path.is_file():
            there = tmp_path / "copy" / path.relative_to(finished)
            there.parent.mkdir(parents=True, exist_ok=True)
            there.write_bytes(path.read_bytes())
    return tmp_path / "copy"


def place_of(folder, arm):
    return next(p.parent for p in (folder / "runs").glob("*/run.json") if read_json(p, Run).arm == arm)


def edit(place, change):
    data = json.loads((place / "run.json").read_text(encoding="utf8"))
    change(data)
    (place / "run.json").write_text(json.dumps(data), encoding="utf8")


@pytest.mark.parametrize("arm", ARMS)
def test_every_kind_of_arm_comes_out_identical(finished, arm):
    found = repro.repro(place_of(finished, arm), TINY)
    assert found.outcome == "identical", found.sentences()
    assert found.exit_code == 0
    assert {"test results", "learning curve", "parameters"} <= {part.name for part in found.parts}
    assert "identical, to the last bit" in found.sentences()[0]


def test_tasks_in_another_order_are_another_problem(finished):
    def turned(seed):
        data = load(seed)
        return replace(data, tasks=data.tasks[::-1])

    with pytest.raises(StoreError, match=r"the tasks were .* and are .*, and their order counts"):
        repro.repro(place_of(finished, "sum"), replace(TINY, load=turned))


def test_nothing_is_written(finished):
    def seen():
        return {path: (path.stat().st_mtime_ns, path.stat().st_size) for path in finished.rglob("*")}

    before = seen()
    repro.repro(place_of(finished, "sum"), TINY)
    assert seen() == before


def test_another_result_is_found_and_named(folder):
    place = place_of(folder, "sum")
    edit(place, lambda run: run["test"].update(dose=run["test"]["dose"] * 1.01))
    found = repro.repro(place, TINY)
    assert found.outcome == "different"
    assert found.exit_code == 1
    said = " ".join(found.sentences())
    assert "DIFFERENT: the test results differ at most by 0.0099, relative, in dose" in said
    assert "Equal to the last bit: validation results" in said
    assert "Data and versions are the same" in said


def test_a_difference_within_rounding_is_no_failure(folder):
    place = place_of(folder, "sum")
    edit(place, lambda run: run["test"].update(dose=run["test"]["dose"] * (1 + ROUNDING / 2)))
    edit(place, lambda run: run["provenance"].update(torch="1.0"))
    found = repro.repro(place, TINY)
    assert (found.outcome, found.exit_code) == ("rounding", 0)
    assert f"torch was 1.0 and is {torch.__version__}" in " ".join(found.sentences())


def test_one_changed_parameter_is_no_identity(folder):
    place = place_of(folder, "sum")
    parameters = load_file(place / "model.safetensors")
    name = next(iter(parameters))
    parameters[name].view(-1)[0] += 1e-6
    save_file(parameters, place / "model.safetensors")
    found = repro.repro(place, TINY)
    assert found.outcome == "rounding"
    assert [part.where for part in found.parts if not part.same] == [name]


def test_a_missing_epoch_is_a_difference(folder):
    place = place_of(folder, "sum")
    edit(place, lambda run: run["curve"].pop())
    part = next(part for part in repro.repro(place, TINY).parts if part.name == "learning curve")
    assert not part.same
    assert part.where.startswith("epoch 2")


def test_other_data_are_not_trained_on(finished, monkeypatch):
    monkeypatch.setattr(repro, "train", lambda *_: pytest.fail("trained"))
    found = repro.repro(place_of(finished, "sum"), replace(TINY, load=lambda seed: load(seed + 1)))
    assert not found.data
    assert found.exit_code == 1
    assert "the data are not those that it was trained on" in found.sentences()[0]


def test_a_folder_that_is_no_run_is_refused(tmp_path):
    with pytest.raises(StoreError, match="is no run: name a folder such as STUDY/runs/sum-seed0"):
        repro.repro(tmp_path)


def test_a_control_without_its_groups_run_says_what_is_missing(folder):
    (place_of(folder, "groups") / "run.json").unlink()
    with pytest.raises(StoreError, match="was trained after groups of the same seed"):
        repro.repro(place_of(folder, "sum:steps=groups"), TINY)


def test_a_problem_that_is_not_motets_own_must_be_named(folder):
    with pytest.raises(ValueError, match=r"a problem that is none of motet's own, 'tiny'.*--problem TABLE"):
        repro.repro(place_of(folder, "sum"))


def test_the_hint_has_the_columns_of_the_first_command(folder):
    line = "motet compare 'my patients.csv' --target age er:binary --seeds 6 --drop id --out runs/x"
    write_json(folder / "history.json", {"commands": ["python script.py", line], "looks": []})
    study = json.loads((folder / "study.json").read_text(encoding="utf8")) | {"table": True}
    (folder / "study.json").write_text(json.dumps(study), encoding="utf8")
    with pytest.raises(ValueError, match="--problem 'my patients.csv' --target age er:binary --drop id$"):
        repro.repro(place_of(folder, "sum"))


def test_what_tuning_chose_is_used_again(finished):
    values = {"trial": 3, "learning_rate": 0.02, "weight_decay": 0.1, "dropout": 0.0}
    run = read_json(place_of(finished, "fair-grad") / "run.json", Run)
    stored = read_study(finished)
    own = {"trials": 4, "epochs": 9, **values, "options": {"fair-grad.alpha": 3.0}}
    arm, training = settled(replace(run, settings=own), stored, finished)
    assert dict(arm.options)["alpha"] == 3.0
    assert training == replace(stored.training, learning_rate=0.02, weight_decay=0.1, dropout=0.0)
    alone = read_json(place_of(finished, "stl") / "run.json", Run)
    tasks = {task: values | {"dropout": 0.1 * i} for i, task in enumerate(alone.test)}
    arm, training = settled(replace(alone, settings={"trials": 4, "epochs": 9, "tasks": tasks}), stored, finished)
    assert arm == parse("stl")
    assert [one.dropout for one in training.values()] == [0.0, 0.1, 0.2]
    assert all(isinstance(one, Training) for one in training.values())


def test_chosen_weights_of_the_tasks_are_used_again(finished):
    run = read_json(place_of(finished, "sum") / "run.json", Run)
    weights = {"dose": 2.0, "ill": 0.5, "grade": 0.5}
    chosen = {"trials": 4, "epochs": 9, "learning_rate": 0.02, "weight_decay": 0.0, "dropout": 0.0, "weights": weights}
    arm, _ = settled(replace(run, arm="sum:tuned", settings=chosen), read_study(finished), finished)
    assert arm.wrappers == (("prefer", (2.0, 0.5, 0.5)),)
