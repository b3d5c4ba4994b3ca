"""The section on momentum: what is left of each arm's gradient, side by side, and only where it was measured."""

import math
from dataclasses import replace

import pytest

from motet.report import momentum_roles
from motet.report.figures.momentum import cosines_of, middle_of, shares_of
from motet.report.svg import inline
from motet.study.results import Momentum
from tests.report.make import NASTY, study
from tests.report.pages import words, written

NAN = math.nan


def step(number, tasks, beta=0.9, share=0.1, cosine=0.5):
    ages = [share * 0.9**k for k in range(6)]
    cosines = {task: cosine - 0.2 * k for k, task in enumerate(tasks)}
    return Momentum(number, beta, 1 - beta, share, ages, 0.3, cosines, 0.25)


def measured(k=4, nasty=False, arms=4):
    """A made-up study in which all arms but single-task were measured."""
    tasks, summary, runs = study(arms, 6, k, nasty)
    names = [task.name for task in tasks]
    # The last arm adapts, and its updates go against its last tasks.
    steps = [step(number, names) for number in (60, 120, 180)]
    adapting = [step(60 * i, names, beta, 0.4, 0.1) for i, beta in ((1, 0.9), (2, 0.7), (3, 0.6))]
    last = summary.arms[-1].arm
    given = {arm.arm: steps for arm in summary.arms if arm.arm != "stl"} | {last: adapting}
    return tasks, summary, [replace(run, momentum=given.get(run.arm, [])) for run in runs]


def test_the_page_has_the_section_only_where_a_step_was_measured(tmp_path):
    page, _ = written(tmp_path, *study())
    assert "momentum" not in page.ids
    page, _ = written(tmp_path, *measured())
    assert "momentum" in page.ids
    assert set(page.references) <= set(page.ids)
    assert not page.open


def test_every_measured_arm_has_a_row_and_a_figure_and_the_others_are_named(tmp_path):
    _, text = written(tmp_path, *measured())
    section = text[text.index('id="momentum"') :].partition("</section>")[0]
    assert section.count("<figure>") == section.count("<tr") - 1 == 3
    assert "Not measured: stl." in section
    row = section[section.index("famo<small>18") :]
    row = row[: row.index("</tr>")]
    for cell in (
        "0.70<small>0.60 to 0.90</small>",
        "<td>0.30</td>",
        "<td>0.40</td>",
        "−0.50<small>ink</small>",
        "25.0",
    ):
        assert cell in row


def test_names_that_try_to_break_the_page_do_not(tmp_path):
    page, text = written(tmp_path, *measured(len(NASTY), nasty=True, arms=9), nasty=True)
    assert not page.open
    assert "<script>alert(1)" not in text


def test_a_figure_shows_shares_cosines_and_the_coefficient():
    _, _, runs = measured()
    shown = words(momentum_roles(runs, ["sum"]))
    assert {"sum", "now", "5", "all older", "0.10", "0.53", "−0.10"} <= set(shown)


def test_all_arms_have_one_scale_of_shares_even_alone():
    _, _, runs = measured()
    limits = {momentum_roles(runs, [arm], 1).axes[0].get_ylim() for arm in ("sum", "uw", "famo")}
    assert len(limits) == 1


def test_what_was_not_defined_is_left_out_and_nothing_at_all_is_said():
    blank = Momentum(9, NAN, NAN, NAN, [], NAN, {"left": NAN}, NAN)
    _, _, runs = study(3, 2, 3)
    assert words(momentum_roles(runs)) == ["Momentum was measured in no arm."]
    figure = momentum_roles([replace(run, momentum=[blank]) for run in runs])
    assert inline(figure, "momentum-0", "title").startswith("<svg ")


def test_figures_of_an_arm_are_medians_over_what_is_known():
    steps = [step(9, ["a"], share=0.1, cosine=0.2), step(18, ["a"], share=0.3), step(27, ["a", "b"], share=0.2)]
    steps.append(replace(steps[0], shares=[], cosine_tasks={"a": NAN}))
    assert shares_of(steps)[0] == pytest.approx(0.2)
    assert shares_of(steps)[-1] == pytest.approx(1 - sum(0.2 * 0.9**k for k in range(6)))
    assert cosines_of(steps) == pytest.approx({"a": 0.5, "b": 0.3})
    assert math.isnan(middle_of([NAN]))
