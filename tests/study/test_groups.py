"""Arms that update group by group beside their controls, trained for real."""

import json
from dataclasses import replace
from itertools import chain, pairwise

import pytest
import torch
from torch import nn

from motet.study.arms import Arm, parse
from motet.study.plans import Repeats
from motet.study.results import Run
from motet.study.steppers import Batch, RepeatedSteps
from motet.study.store import read_runs
from motet.study.study import Study
from motet.study.training import train
from tests.study.tiny import TINY

TASKS = ["dose", "ill", "grade"]
REFERENCE = dict.fromkeys(TASKS, 0.5)
BATCHES = 9  # of a run: three epochs of three


@pytest.fixture(scope="module")
def study(tmp_path_factory) -> Study:
    # The controls stand before what they follow.
    arms = ["groups:random", "sum:steps=groups", "sum:epochs=groups", "groups", "groups:warmup=4,regroup_every=2"]
    return Study(TINY, arms, seeds=2, out=tmp_path_factory.mktemp("groups") / "runs").run()


def found(study: Study, arm: str, seed: int = 0) -> Run:
    return next(run for run in study.runs() if (run.arm, run.seed) == (arm, seed))


def trained(label: str, seed: int = 0) -> Run:
    return train(TINY, TINY.load(seed), parse(label), seed, TINY.training, REFERENCE).run


def same_results(left: Run, right: Run) -> bool:
    return (left.test, left.validation, left.weights) == (right.test, right.validation, right.weights)


def test_within_the_warm_up_every_task_is_alone_and_the_report_says_so(study):
    run = found(study, "groups")
    assert [part.groups for part in run.groups.timeline] == [[["dose"], ["ill"], ["grade"]]]
    assert (run.groups.batches, run.groups.warmup, run.groups.mean) == (BATCHES, None, 3)
    assert (run.cost.steps, run.cost.updates, run.cost.forwards) == (BATCHES, 3 * BATCHES, 3 * BATCHES)
    assert "warm-up" in {notice.kind for notice in run.warnings}
    assert any("No groups were learnt in groups (2 of 2 runs)" in reason for reason in study.verdict().reasons)


def test_groups_are_learnt_after_the_warm_up_and_recorded(study):
    groups = found(study, "groups:warmup=4,regroup_every=2").groups
    assert groups.warmup == 4
    assert groups.timeline[0].batch == 0
    assert len(groups.timeline[0].groups) == 3
    assert all(sorted(chain(*part.groups)) == sorted(TASKS) for part in groups.timeline)
    assert all(left.groups != right.groups for left, right in pairwise(groups.timeline))
    assert 1 <= groups.mean <= 3
    for table in (groups.affinity, groups.counts, groups.standard_errors):
        assert [len(row) for row in table] == [3, 3, 3]
    assert max(map(max, groups.counts)) > 0


def test_controls_take_their_number_from_the_groups_run_of_their_seed(study):
    assert found(study, "sum:steps=groups").cost.updates == 3 * BATCHES
    assert found(study, "sum:steps=groups").cost.forwards_per_step == 3
    epochs = found(study, "sum:epochs=groups")
    assert (epochs.cost.steps, epochs.cost.updates, epochs.curve[-1].epoch) == (3 * BATCHES, 3 * BATCHES, 9)
    assert found(study, "groups:random").groups.mean == 3


def test_the_number_is_that_of_all_training_for_steps_and_that_after_the_warm_up_for_groups(study):
    run = found(study, "groups")
    run = replace(run, groups=replace(run.groups, mean=1.4), cost=replace(run.cost, steps=10, updates=24))
    assert parse("sum:steps=groups").settled(run).plan == Repeats("steps", 2)
    assert parse("sum:epochs=groups").settled(run).longer == 2
    assert parse("groups:random").settled(run).plan.number == 1
    assert parse("groups:random=3").settled(run).plan.number == 3


def test_the_same_study_again_gives_the_same_runs(study, tmp_path):
    again = Study(TINY, ["groups:warmup=4,regroup_every=2"], seeds=1, out=tmp_path / "again").run()
    left = found(again, "groups:warmup=4,regroup_every=2")
    right = found(study, "groups:warmup=4,regroup_every=2")
    assert same_results(left, right)
    assert left.groups == right.groups


def test_a_control_without_the_groups_arm_is_refused_before_any_training(tmp_path):
    with pytest.raises(ValueError, match="sum:steps=groups takes its number of groups from the arm groups"):
        Study(TINY, ["sum:steps=groups"], seeds=1, out=tmp_path / "runs")


def test_a_control_can_be_added_where_the_groups_arm_is_finished(tmp_path):
    folder = tmp_path / "runs"
    Study(TINY, ["groups"], seeds=1, out=folder).run()
    study = Study(TINY, ["sum:steps=groups"], seeds=1, out=folder, resume=True).run()
    assert found(study, "sum:steps=groups").cost.updates == 3 * BATCHES
    with pytest.raises(ValueError, match="takes its number of groups from the arm groups"):
        Study(TINY, ["sum:steps=groups"], seeds=[1], out=folder, resume=True).run()


def test_groups_that_are_not_the_problems_are_refused_before_any_training(tmp_path):
    with pytest.raises(ValueError, match="0 dose, 1 ill, 2 grade"):
        Study(TINY, ["groups:fixed=[[0],[1]]"], seeds=1, out=tmp_path / "runs").run()
    assert not (tmp_path / "runs").exists()


def test_one_group_of_all_tasks_and_one_step_a_batch_are_the_plain_sum():
    plain = trained("sum")
    assert trained("groups:fixed=[[0,1,2]],measure=None").test == plain.test
    once = Arm("sum:steps=1", "sum", plan=Repeats("steps", 1))
    assert train(TINY, TINY.load(0), once, 0, TINY.training, REFERENCE).run.test == plain.test


def test_several_steps_on_a_batch_are_not_the_plain_sum():
    assert trained("sum:steps=3").test != trained("sum").test


def test_random_groups_are_drawn_once_a_seed():
    partitions = []
    for seed in range(4):
        groups = trained("groups:random=2", seed).groups
        assert len(groups.timeline) == 1
        assert len(groups.timeline[0].groups) == 2
        partitions.append(sorted(map(sorted, groups.timeline[0].groups)))
    assert any(partition != partitions[0] for partition in partitions)


@pytest.mark.parametrize(
    "label",
    [
        "groups:released,warmup=3",
        "groups:estimator=regression,warmup=3",
        "groups:measure=jvp,warmup=3",
        "groups:measure=features,warmup=3",
        "groups:grouping=affinity-propagation,warmup=3",
        "groups:max_groups=2,warmup=3",
        "groups:order=theorem-5,warmup=3",
        "groups:method=fair-grad,warmup=3",
        "groups:method=dtp,warmup=3",
        "groups:fixed=[[0,1],[2]]",
    ],
)
def test_every_kind_of_grouping_trains_on_a_problem_with_missing_labels(label):
    run = trained(label)
    assert run.groups.batches == BATCHES
    assert all(value == value for value in run.test.values())
    assert run.cost.updates >= BATCHES
    assert run.cost.step_length != run.cost.step_length  # several updates have no one length


def test_a_method_within_groups_gives_weights_and_one_without_does_not():
    assert set().union(*(row.of for row in trained("groups:method=fair-grad").weights)) == set(TASKS)
    assert trained("groups").weights == []


def test_repeated_steps_see_the_same_dropout_masks_decay_once_and_move_statistics_once():
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(4, 6), nn.BatchNorm1d(6), nn.Dropout(0.5), nn.Linear(6, 1))
    x = torch.randn(8, 4)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    seen: list[float] = []

    def forward():
        loss = model(x).pow(2).mean()
        seen.append(float(loss.detach()))
        return x, {"a": loss * 0.0, "b": None}  # no gradient, so that only masks could tell the passes apart

    step = RepeatedSteps(3, model, optimizer).step(Batch(forward, dict, lambda: None))
    assert seen[0] == seen[1] == seen[2]
    assert (step.updates, step.forwards, list(step.losses)) == (3, 3, ["a"])
    assert int(model[1].num_batches_tracked) == 1

    # Without a gradient what changes is decay alone, by 1 - lr·decay each time it is applied.
    weight = nn.Parameter(torch.ones(1))
    decaying = torch.optim.AdamW([weight], lr=0.1, weight_decay=0.5)
    stepper = RepeatedSteps(3, nn.Identity(), decaying)
    stepper.step(Batch(lambda: (x, {"a": (weight * 0.0).sum()}), dict, lambda: None))
    assert float(weight.detach()) == pytest.approx(1 - 0.1 * 0.5)


def test_runs_of_the_format_before_groups_still_load(study, tmp_path):
    folder = tmp_path / "runs"
    old = Study(TINY, [], seeds=1, out=folder).run()
    for path in folder.glob("runs/*/run.json"):
        data = json.loads(path.read_text())
        assert data.pop("groups") is None
        for name in ("updates", "forwards"):
            del data["cost"][name]
        path.write_text(json.dumps(data | {"format": 2}))
    run = next(run for run in read_runs(folder) if run.arm == "sum")
    assert (run.groups, run.cost.updates) == (None, 0)
    arm = next(arm for arm in old.summary().arms if arm.arm == "sum")
    assert arm.updates != arm.updates
