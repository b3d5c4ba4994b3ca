"""What a verdict's reasons say beside its numbers."""

from dataclasses import replace

import pytest

from motet.study import caveats
from motet.study.results import Notice
from motet.study.statistics import summarise
from tests.study.runs import lower, study, tasks


def noticed(runs, kind, arm, seeds):
    return [replace(run, warnings=[Notice(kind, "…")]) if run.arm == arm and run.seed in seeds else run for run in runs]


GOOD = study({"sum": 3.0, "a": -6.0, "b": 2.0}, seeds=8, noise=0.2)


@pytest.mark.parametrize(
    ("kind", "sentence"),
    [
        ("broke down", "Training broke down in a (2 of 8 runs): a loss or gradient was not finite."),
        ("unconverged", "The method's solver stopped at its iteration limit in a (2 of 8 runs)."),
        ("last epoch", "The best epoch was one of the last two in a (2 of 8 runs): more epochs may change the result."),
    ],
)
def test_notices_of_runs_reach_the_reasons_in_one_sentence_a_kind(kind, sentence):
    found = summarise(tasks(3), noticed(GOOD, kind, "a", (1, 5)), higher_is_better=lower(3))
    assert sentence in found.verdict.reasons
    assert sum(reason.startswith(sentence[:12]) for reason in found.verdict.reasons) == 1


def test_an_arm_whose_training_broke_down_is_not_adopted_though_its_results_are_finite():
    assert summarise(tasks(3), GOOD, higher_is_better=lower(3)).verdict.arm == "a"
    found = summarise(tasks(3), noticed(GOOD, "broke down", "a", (1,)), higher_is_better=lower(3)).verdict
    assert found.decision != "ADOPT"
    assert "a is left out of the decision: its training broke down." in found.reasons


def test_single_task_that_broke_down_is_not_kept():
    runs = study({"sum": 8.0, "a": 5.0}, seeds=8)
    assert summarise(tasks(3), runs, higher_is_better=lower(3)).verdict.decision == "KEEP SINGLE"
    found = summarise(tasks(3), noticed(runs, "broke down", "stl", (0,)), higher_is_better=lower(3)).verdict
    assert found.decision == "UNDECIDED"


def test_a_notice_of_every_run_lists_no_arms():
    runs = [replace(run, warnings=[Notice("last epoch", "…")]) for run in GOOD]
    assert caveats.of_runs(runs)[0].startswith("The best epoch was one of the last two in every run:")


def with_data(fingerprints):
    return [replace(run, provenance={"data": fingerprints[run.seed % len(fingerprints)]}) for run in GOOD]


@pytest.mark.parametrize(
    ("fingerprints", "fixed_test", "text"),
    [
        ("ab", False, "the same rows recur in every seed"),
        ("ab", True, "Every seed is tested on the same rows"),
        ("a", False, "The split is the same"),
        ("a", True, "The split is the same"),
    ],
)
def test_what_p_cannot_say_is_said(fingerprints, fixed_test, text):
    (sentence,) = caveats.of_seeds(with_data(fingerprints), fresh=False, fixed_test=fixed_test)
    assert text in sentence


def test_fresh_rows_and_single_seeds_need_no_such_word():
    assert caveats.of_seeds(with_data("ab"), fresh=True, fixed_test=False) == []
    assert caveats.of_seeds([run for run in with_data("a") if run.seed == 0], fresh=False, fixed_test=False) == []


def test_looks_that_the_rule_planned_need_no_caution():
    (said,) = caveats.of_looks([6, 8], (), seeds=8, wanted=8)
    assert said.startswith("This is look 2 at the verdict, after 6 and 8 seeds.")
    assert caveats.of_looks([6, 8], (6, 8, 10), 8, 10) == caveats.of_looks([8], (), 8, 8) == []


def test_a_study_that_is_not_at_its_end_says_so():
    (said,) = caveats.of_looks([], (), seeds=6, wanted=12)
    assert said.startswith("6 of the 12 seeds that were planned are there")


def test_where_rates_were_searched_nobody_is_told_to_try_others():
    arms = ["stl", "sum", "muon+sum", "muon(lr=0.01)+sum"]
    assert any("try others" in said for said in caveats.of_optimizers(arms))
    tuned = caveats.of_optimizers(arms, tuned=True)
    assert not any("try others" in said for said in tuned)
    assert any(
        "muon(lr=0.01)+sum trains at a learning rate of its own, that was not searched" in said for said in tuned
    )
