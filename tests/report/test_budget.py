"""The section on equal cost: drawn where the runs tell what they spent, and saying why where they don't."""

import math
from dataclasses import replace

import numpy as np
import pytest

from motet.metrics import METRICS
from motet.report import budget
from motet.report.figures.budget import beyond, budget_curves
from motet.report.svg import inline
from motet.study.budgets import CLOCKS, Ledger, ledger
from motet.study.pairing import pair
from motet.study.statistics import summarise
from tests.report.make import minimal, study
from tests.report.pages import words, written


def told(arms=5, seeds=6, k=2, nasty=False, far=None):
    """A made-up study whose runs tell what they kept and spent after each epoch."""
    tasks, _, runs = study(arms, seeds, k, nasty, epochs=12)
    names = list(dict.fromkeys(run.arm for run in runs))
    worse = [task.metric == "mae" for task in tasks]
    found = []
    for run in runs:
        cost, curve = names.index(run.arm) + 1, []
        ends = {t: v * (3 if run.arm == far and up else 1) for (t, v), up in zip(run.test.items(), worse, strict=True)}
        for row in run.curve:
            early = 1 + 0.8 * (1 / row.epoch - 1 / len(run.curve))
            test = {t: v * early if up else v / early for (t, v), up in zip(ends.items(), worse, strict=True)}
            curve.append(replace(row, test=test, updates=10 * row.epoch, forwards=1, backwards=10 * cost * row.epoch))
        found.append(replace(run, curve=curve, test=ends))
    higher = {task.name: METRICS[task.metric].higher_is_better for task in tasks}
    return tasks, summarise(tasks, found, higher_is_better=higher), found


def found_of(tasks, runs):
    higher = {task.name: METRICS[task.metric].higher_is_better for task in tasks}
    return ledger(pair([task.name for task in tasks], runs, higher))


def section_of(path, *made, nasty=False):
    page, text = written(path, *made, nasty)
    start = text.index('<section aria-labelledby="budget"')
    return page, text[start : text.index("</section>", start)]


def test_every_clock_has_a_figure_and_every_arm_a_row_in_each_table(tmp_path):
    page, section = section_of(tmp_path, *told())
    assert not page.open
    assert set(page.references) <= set(page.ids)
    assert section.count("<figure>") == len(CLOCKS)
    assert section.count('<th scope="row">') == 5 + 4 + 5  # the plain sum is not held against itself
    assert "seconds" in section


def test_the_table_tells_what_the_ledger_tells(tmp_path):
    tasks, summary, runs = told()
    rows = {row["arm"]: row for row in budget.section(summary, runs, tasks)["rows"]}
    stopped = found_of(tasks, runs).stopped()
    for arm, row in rows.items():
        np.testing.assert_equal(row["stopped"], [by_arm[arm] for by_arm in stopped.values()])
    assert rows["sum"]["memory_ratio"] == 1
    assert rows["sum"]["whole"].mean == pytest.approx(rows["sum"]["stopped"][0].delta_m.mean)


def test_runs_that_do_not_tell_draw_nothing_and_the_page_says_why(tmp_path):
    page, section = section_of(tmp_path, *study(3, 2, 2))
    assert not page.open
    assert "<figure>" not in section
    assert "<table>" not in section
    assert "are not known" in section
    _, section = section_of(tmp_path, *minimal())
    assert "are not known" in section


def test_no_runs_at_all_are_said_too():
    tasks, summary, _ = study()
    assert "no run of 'stl'" in budget.section(summary, [], tasks)["why"]


def test_an_arm_that_does_not_tell_is_named(tmp_path):
    tasks, summary, runs = told()
    runs = [replace(run, curve=[]) if run.arm == "uw" else run for run in runs]
    _, section = section_of(tmp_path, tasks, summary, runs)
    assert "Left out. uw: " in section
    assert section.count('<th scope="row">') == 4 + 3 + 4


def test_one_seed_is_drawn_without_intervals(tmp_path):
    page, section = section_of(tmp_path, *told(3, seeds=1))
    assert not page.open
    assert section.count("<figure>") == len(CLOCKS)
    assert "nan" not in section


def test_names_that_try_to_break_the_page_do_not(tmp_path):
    page, section = section_of(tmp_path, *told(9, 6, 2, nasty=True), nasty=True)
    assert not page.open
    assert "<b>tuned" not in section


def test_an_arm_that_ends_far_out_stands_at_the_top_with_its_figure(tmp_path):
    tasks, summary, runs = told(k=4, far="uw")
    found = found_of(tasks, runs)
    assert beyond(found.curves()) == ["uw"]
    end = next(arm.delta_m.mean for arm in summary.arms if arm.arm == "uw")
    assert f"↑ +{end:.1f}" in words(budget_curves(found, ["epoch"]))
    assert "the ends of uw" in section_of(tmp_path, tasks, summary, runs)[1]
    assert beyond(found_of(*told(k=4)[::2]).curves()) == []


def test_the_figure_is_the_same_each_time_and_in_the_pages_colours():
    tasks, _, runs = told(9)
    once, again = (inline(budget_curves(found_of(tasks, runs)), "b", "t") for _ in range(2))
    assert once == again
    assert "#" not in once.replace("url(#", "").replace('href="#', "")


def test_a_key_is_drawn_for_use_outside_the_page():
    tasks, _, runs = told()
    found = found_of(tasks, runs)
    assert {"sum", "uw"} <= set(words(budget_curves(found, ["epoch"])))
    assert "uw" not in words(budget_curves(found, ["epoch"], key=False))


def test_a_figure_of_nothing_says_so():
    assert words(budget_curves(Ledger({}, {}, {}))) == ["No results at equal cost are known."]


def test_noise_is_the_slowest_seed_over_the_fastest():
    tasks, summary, runs = told()
    slow = [
        replace(run, cost=replace(run.cost, seconds_per_step=(5.0 if run.seed == 3 and run.arm == "uw" else 1.0)))
        for run in runs
    ]
    assert budget.section(summary, slow, tasks)["noise"] == 5
    assert math.isnan(budget.section(summary, [], tasks)["noise"])
