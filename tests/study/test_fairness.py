"""Arms that had unequal chances: no verdict, or a word of caution."""

from dataclasses import replace

import pytest

from motet.study.fairness import edge, of_step_lengths, of_tuning, refusal
from motet.study.results import Run, Tuning
from motet.study.statistics import summarise
from tests.study.runs import lower, study, tasks

TUNING = Tuning(trials=20, epochs=30)
GOOD = study({"sum": 3.0, "a": -6.0, "b": 2.0}, seeds=8, noise=0.2)


def tuned(trials: dict[str, int], **more) -> list[Run]:
    return [
        replace(run, settings={"trials": trials[run.arm], **more.get(run.arm, {})} if trials.get(run.arm) else {})
        for run in GOOD
    ]


ALIKE = dict.fromkeys(["stl", "sum", "a", "b"], 20)


def test_unequal_trials_refuse_a_verdict_and_name_who_had_what():
    assert summarise(tasks(3), GOOD, higher_is_better=lower(3)).verdict.decision == "ADOPT"
    found = summarise(tasks(3), tuned({**ALIKE, "sum": 0, "b": 1}), higher_is_better=lower(3)).verdict
    assert (found.decision, found.more_seeds, found.refused) == ("UNDECIDED", None, True)
    assert found.headline == (
        "No verdict: the arms were not tuned alike. stl and a had 20 trials; sum had no trials; b had 1 trial."
    )
    assert "give every arm the same --trials" in found.reasons[0]
    assert not any(reason.startswith(("No ADOPT", "If means")) for reason in found.reasons)


def test_trials_that_differ_between_the_seeds_of_an_arm_are_unequal_too():
    runs = [replace(run, settings={"trials": 5}) if run.seed == 3 and run.arm == "a" else run for run in tuned(ALIKE)]
    assert "a had 5 trials or 20 trials" in refusal(runs)[0]


@pytest.mark.parametrize("trials", [ALIKE, {}])
def test_equal_trials_change_no_decision(trials):
    assert refusal(tuned(trials)) == ("", "")
    found = summarise(tasks(3), tuned(trials), higher_is_better=lower(3)).verdict
    assert (found.decision, found.refused) == ("ADOPT", False)


def with_lengths(**lengths: float) -> list[Run]:
    return [replace(run, cost=replace(run.cost, step_length=lengths.get(run.arm, 1.0))) for run in GOOD]


def cautions(runs: list[Run]) -> list[str]:
    reasons = summarise(tasks(3), runs, higher_is_better=lower(3)).verdict.reasons
    return [reason for reason in reasons if "step length" in reason]


def test_steps_of_other_lengths_at_one_learning_rate_are_pointed_out():
    (said,) = cautions(with_lengths(a=0.4, b=2.0))
    assert said.startswith("Methods differ in step length by up to 5.0× (a 0.40×, b 2.0× the sum's)")
    assert "--trials" in said
    assert cautions(with_lengths(a=0.5, b=1.4)) == []
    assert cautions(with_lengths(a=float("nan"), stl=50.0)) == []


def test_tuned_arms_need_no_word_on_step_lengths():
    runs = [replace(run, settings={"trials": 20}) for run in with_lengths(a=0.1)]
    assert cautions(runs) == []
    assert of_step_lengths([], runs) == []


def test_an_arm_with_a_learning_rate_of_its_own_is_not_held_to_the_others():
    runs = [replace(run, arm="muon(lr=0.02)+sum" if run.arm == "a" else run.arm) for run in with_lengths(a=0.1, b=1.0)]
    assert cautions(runs) == []


def test_a_rate_at_the_edge_of_its_range_is_pointed_out_for_arms_and_for_single_tasks():
    runs = tuned(
        ALIKE,
        a={"learning_rate": 9.5e-3},
        b={"learning_rate": 1e-3},
        stl={"tasks": {"t0": {"learning_rate": 1e-4}, "t1": {"learning_rate": 1e-3}, "t2": {"learning_rate": 1.1e-4}}},
    )
    lower_edge, upper_edge, _ = of_tuning(runs, TUNING, rows_recur=False)
    assert "for stl (t0, t2) lies at the lower edge of its range, 0.0001 to 0.01" in lower_edge
    assert "for a lies at the upper edge" in upper_edge
    found = summarise(tasks(3), runs, higher_is_better=lower(3), tuning=TUNING).verdict
    assert upper_edge in found.reasons


@pytest.mark.parametrize(
    ("rate", "side"),
    [(1e-4, "lower"), (1.2e-4, "lower"), (2e-4, ""), (8.5e-3, "upper"), (float("nan"), ""), (None, "")],
)
def test_an_edge_is_a_tenth_of_a_decade_wide(rate, side):
    assert edge(rate, TUNING) == side


def test_recurring_rows_that_tuning_has_seen_are_pointed_out():
    lucky, said = of_tuning(tuned(ALIKE), replace(TUNING, seed=3), rows_recur=True)
    assert "once, on seed 3" in lucky
    assert "training and validation rows of seed 3" in said
    assert len(of_tuning(tuned(ALIKE), TUNING, rows_recur=False)) == 1
    assert of_tuning(GOOD, None, rows_recur=True) == []


def test_equal_trials_of_very_unequal_length_are_pointed_out():
    said, _ = of_tuning(tuned(ALIKE, a={"epochs": 100}, sum={"epochs": 300}), TUNING, rows_recur=False)
    assert "100 epochs for a and 300 for sum" in said
    assert len(of_tuning(tuned(ALIKE, a={"epochs": 200}, sum={"epochs": 300}), TUNING, rows_recur=False)) == 1
