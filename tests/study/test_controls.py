"""Whether a gain is the grouping's: a control that does as well takes the claim away, one that is beaten backs it."""

from collections.abc import Callable
from dataclasses import replace

import numpy as np
import pytest

from motet.study.controls import corrected, sentences
from motet.study.inference import sign_flip
from motet.study.results import Groups, Notice, Partition, Run, Summary
from motet.study.statistics import summarise
from tests.study.runs import lower, study, tasks


def summary(changes: dict[str, float], seeds: int = 8, updates: dict[str, int] | None = None) -> Summary:
    """Arms that are worse than single-task by so many per cent, each with as many optimizer steps unless said."""
    runs = study(changes, seeds, noise=0.5)
    runs = [replace(run, cost=replace(run.cost, updates=(updates or {}).get(run.arm, 300))) for run in runs]
    return summarise(tasks(3), runs, higher_is_better=lower(3))


def said(changes: dict[str, float], **options) -> str:
    return sentences(summary(changes, **options))["groups"]


def test_a_study_without_groups_has_nothing_to_say():
    found = summary({"sum": 0, "sum:steps=3": -5, "fair-grad": -5})
    assert found.comparisons == []
    assert sentences(found) == {}


def test_a_gain_that_every_control_lacks_is_not_explained_by_any():
    text = said({"sum": 0, "groups": -10, "sum:steps=groups": -2, "sum:epochs=groups": -1, "groups:random": 1})
    assert text.startswith("groups is better than the plain sum (difference in Δm −")
    assert "does not explain the gain" in text
    assert "more optimizer steps on every batch, longer training or dividing the tasks at all" in text
    assert "not held against" not in text
    assert "as well" not in text


def test_a_control_that_does_as_well_takes_the_gain_away():
    text = said({"sum": 0, "groups": -10, "sum:steps=groups": -10, "sum:epochs=groups": -1, "groups:random": 1})
    assert "but sum:steps=groups (difference" in text
    assert "does as well or better, as far as 8 seeds can tell" in text
    assert "not shown to be the grouping's: more optimizer steps on every batch may bring as much" in text
    assert "It is better than sum:epochs=groups" in text


def test_random_groups_that_do_as_well_say_that_it_does_not_matter_who_shares_one():
    text = said({"sum": 0, "groups": -10, "sum:steps=groups": -1, "groups:random": -10})
    assert "dividing the tasks at all, whoever shares a group may bring as much" in text
    assert "It was not held against sum:epochs=groups." in text


def test_without_a_control_nothing_can_be_said():
    text = said({"sum": 0, "groups": -10})
    assert "not held against sum:steps=groups, sum:epochs=groups and groups:random" in text
    assert text.endswith("So it can't be said whether the gain is the grouping's.")


def test_to_beat_a_control_with_fewer_steps_proves_nothing():
    fewer = {"groups": 900, "sum:steps=groups": 300, "sum:epochs=groups": 850, "groups:random": 900}
    changes = {"sum": 0, "groups": -10, "sum:steps=groups": -2, "sum:epochs=groups": -1, "groups:random": 1}
    text = said(changes, updates=fewer)
    assert (
        "fewer optimizer steps than its 900, so to be better than they are proves nothing: sum:steps=groups 300" in text
    )
    assert "more optimizer steps on every batch" not in text
    assert "longer training or dividing" in text


def test_where_there_is_no_gain_there_is_nothing_to_explain_and_better_controls_are_named():
    text = said({"sum": 0, "groups": 0, "sum:steps=groups": -10})
    assert "is not shown to be better than the plain sum" in text
    assert "so no gain is established that needs explaining. sum:steps=groups (difference in Δm +" in text
    assert "p = 0.008 uncorrected) is better than it" in text
    assert said({"sum": 0, "groups": 9}).startswith("groups is worse than the plain sum")


@pytest.mark.parametrize("seeds", [1, 2, 5])
def test_too_few_seeds_claim_nothing(seeds):
    text = said({"sum": 0, "groups": -10, "sum:steps=groups": -10}, seeds=seeds)
    assert text.startswith(f"{seeds} seed")
    assert "can't show a difference to the plain sum after Holm over 2 arms, however large; 7 can" in text
    assert "better than" not in text


def test_p_against_the_sum_is_the_verdicts_and_p_against_a_control_is_named_uncorrected():
    arms = {"sum": 0, "groups": -10, "sum:steps=groups": -2, "groups:random": 1}
    found = summary(arms)
    holm = next(arm.p_sum_holm for arm in found.arms if arm.arm == "groups")
    text = sentences(found)["groups"]
    assert holm == 3 * sign_flip(-np.ones(8))
    assert f"p = {holm:.3f} after Holm over 3 arms)." in text
    assert "sum:steps=groups (difference in Δm −" in text
    assert text.count("p = 0.008 uncorrected)") == 2


def test_a_gain_that_holm_does_not_leave_is_no_gain():
    found = summary({"sum": 0, "groups": -10, "sum:steps=2": -2, "fair-grad": 1})
    arms = [replace(arm, p_sum_holm=0.094) if arm.arm == "groups" else arm for arm in found.arms]
    found = replace(found, arms=arms)
    assert next(c for c in found.comparisons if c.control == "sum").better
    assert not next(c for c in corrected(found) if c.control == "sum").better
    text = sentences(found)["groups"]
    assert text.startswith("groups is not shown to be better than the plain sum (difference in Δm −")
    assert "p = 0.094 after Holm over 3 arms), so no gain is established" in text


def test_seeds_that_holm_makes_too_few_are_called_so():
    arms = {"sum": 0, "groups": -10, "sum:steps=2": -2, "fair-grad": 1}
    assert "6 seeds can't show a difference to the plain sum after Holm over 3 arms, however large; 7 can" in said(
        arms, seeds=6
    )
    assert "6 seeds can't" not in said({"sum": 0, "groups": -10}, seeds=6)


ALL = {"sum": 0, "groups": -10, "sum:steps=groups": -2, "sum:epochs=groups": -1, "groups:random": 1}


def with_groups(changed: dict[str, Callable[[int], Groups]], seeds: int = 8) -> Summary:
    """`ALL`, with what each seed's run of an arm found of groups."""
    runs = study(ALL, seeds, noise=0.5)
    runs = [replace(run, groups=changed[run.arm](run.seed)) if run.arm in changed else run for run in runs]
    runs = [replace(run, cost=replace(run.cost, updates=300)) for run in runs]
    return summarise(tasks(3), runs, higher_is_better=lower(3))


def grouped(warmup: int | None, *partitions: list[list[str]], batches: int = 100) -> Groups:
    timeline = [Partition(10 * i, partition) for i, partition in enumerate(partitions)]
    return Groups(["t0", "t1", "t2"], timeline, batches, warmup, 2.0, [[0.0] * 3] * 3, [[0] * 3] * 3, [[0.0] * 3] * 3)


ALONE, PAIR, ONE = [["t0"], ["t1"], ["t2"]], [["t0", "t1"], ["t2"]], [["t0", "t1", "t2"]]


@pytest.mark.parametrize("without", [8, 5])
def test_where_most_runs_learnt_no_groups_that_is_all_that_is_said(without):
    found = with_groups({"groups": lambda seed: grouped(None if seed < without else 20, ALONE)})
    text = sentences(found)["groups"]
    assert text.startswith(f"groups learnt no groups in {without} of 8 runs: training ended within its warm-up")
    assert "nothing can be said of its groups" in text
    assert "better" not in text
    assert "sum:steps" not in text


def test_where_a_few_runs_learnt_no_groups_that_comes_first():
    text = sentences(with_groups({"groups": lambda seed: grouped(None if seed < 2 else 20, ALONE, PAIR)}))["groups"]
    assert text.startswith("groups learnt no groups in 2 of 8 runs")
    assert "every task is alone. groups is better than the plain sum" in text


@pytest.mark.parametrize(("warmup", "cautious"), [(64, True), (50, False)])
def test_a_warm_up_of_most_of_the_training_is_named(warmup, cautious):
    text = sentences(with_groups({"groups": lambda _: grouped(warmup, ALONE, PAIR)}))["groups"]
    assert ("The warm-up took 64 % of the batches of groups" in text) == cautious
    assert ("warm-up" in text) == cautious


@pytest.mark.parametrize("partition", [ALONE, ONE])
def test_random_groups_that_divide_nothing_are_no_control(partition):
    text = sentences(with_groups({"groups:random": lambda _: grouped(0, partition)}))["groups"]
    assert "groups:random had every task alone or all in one group in 8 of 8 runs" in text
    assert "no control of which tasks share a group" in text
    assert "groups:random (difference" not in text
    assert "dividing the tasks at all" not in text


def test_random_groups_that_divide_nothing_in_a_few_runs_stay_a_control():
    text = sentences(with_groups({"groups:random": lambda seed: grouped(0, ALONE if seed < 2 else PAIR)}))["groups"]
    assert "groups:random (difference" in text
    assert "in 2 of 8 runs, in which nothing about it is random." in text


def test_steps_are_the_mean_over_seeds():
    runs = [replace(r, cost=replace(r.cost, updates=(300, 300, 360)[r.seed])) for r in study({"sum": 0}, 3)]
    arm = next(a for a in summarise(tasks(3), runs, higher_is_better=lower(3)).arms if a.arm == "sum")
    assert arm.updates == 320


def test_the_differences_are_those_of_the_verdict():
    found = summary({"sum": 0, "groups": -3, "sum:steps=2": -1})
    arms = {arm.arm: arm for arm in found.arms}
    over = {c.control: c for c in found.comparisons}
    assert over["sum"].difference == arms["groups"].over_sum
    assert over["sum"].p == arms["groups"].p_sum
    mean = arms["groups"].delta_m.mean - arms["sum:steps=2"].delta_m.mean
    assert over["sum:steps=2"].difference.mean == pytest.approx(mean)
    assert over["sum:steps=2"].p == sign_flip(-np.ones(8))  # all eight seeds have one sign: the least p of all
    assert over["sum:steps=2"].better
    assert not over["sum:steps=2"].worse


def test_every_arm_that_learns_groups_is_held_against_every_control():
    found = summary({"sum": 0, "groups": -3, "groups:released": -3, "groups:fixed=[[0,1],[2]]": -1, "fair-grad": -3})
    pairs = {(c.arm, c.control) for c in found.comparisons}
    controls = {"sum", "groups:fixed=[[0,1],[2]]"}
    assert pairs == {(arm, control) for arm in ("groups", "groups:released") for control in controls}


def test_a_control_that_broke_down_is_no_evidence():
    runs = study({"sum": 0, "groups": -10, "sum:steps=2": 20}, 8, noise=0.5)
    broken = [
        replace(run, warnings=[Notice("broke down", "it did")]) if run.arm == "sum:steps=2" else run for run in runs
    ]
    found = summarise(tasks(3), broken, higher_is_better=lower(3))
    assert {c.control for c in found.comparisons} == {"sum"}


def test_the_table_has_steps_passes_and_groups():
    def counted(run: Run) -> Run:
        groups = Groups(["t0"], [], 9, 0, 1.0 + run.seed, [[0.0]], [[0]], [[0.0]]) if run.arm == "groups" else None
        return replace(run, groups=groups, cost=replace(run.cost, updates=10 * run.seed, forwards=20 * run.seed))

    runs = [counted(run) for run in study({"sum": 0, "groups": -1}, 3)]
    arms = {arm.arm: arm for arm in summarise(tasks(3), runs, higher_is_better=lower(3)).arms}
    assert (arms["groups"].updates, arms["groups"].forwards, arms["groups"].groups) == (15, 30, 2)
    assert arms["sum"].groups != arms["sum"].groups


def test_where_the_plain_sum_broke_down_nothing_is_said_of_groups():
    runs = study({"sum": 0, "groups": -10, "groups:random": 1}, 8, noise=0.5)
    broken = [replace(run, warnings=[Notice("broke down", "")]) if run.arm == "sum" else run for run in runs]
    found = summarise(tasks(3), broken, higher_is_better=lower(3))
    assert (
        sentences(found)["groups"] == "The training of sum broke down, so nothing can be said of the groups of groups."
    )
