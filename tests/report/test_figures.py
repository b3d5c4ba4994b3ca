"""Every figure stands on its own: with much, with little, with nothing."""

import math
import warnings
from dataclasses import replace
from itertools import pairwise

import matplotlib
import pytest
from matplotlib import _pylab_helpers
from matplotlib.figure import Figure

from motet.report import cosine_matrices, cost, forest, learning_curves, weight_streams
from motet.report.figures.forest import worst_first
from motet.report.figures.theme import label, styles
from motet.report.svg import inline
from motet.study.results import Cosines, Interval, Summary, Weights
from tests.report.make import NAN, minimal, study
from tests.report.pages import words


def drawn(tasks, summary, runs):
    return [
        forest(summary),
        cost(summary),
        cost(summary, "total"),
        learning_curves(runs, tasks),
        cosine_matrices(runs),
        weight_streams(runs),
    ]


def only_single():
    tasks, summary, runs = study(1, 6, 3)
    return tasks, summary, [run for run in runs if run.arm == "stl"]


def not_a_number():
    tasks, summary, runs = study(3, 2, 3)
    nothing = Interval(NAN, NAN, NAN)
    arms = [
        replace(
            arm,
            delta_m=nothing,
            log_ratio=nothing,
            over_sum=nothing,
            per_task=dict.fromkeys(arm.per_task, nothing),
            step_cost=NAN,
            total_seconds=NAN,
        )
        for arm in summary.arms
    ]
    runs = [
        replace(
            run,
            test=dict.fromkeys(run.test, NAN),
            curve=[replace(row, validation=dict.fromkeys(row.validation, NAN)) for row in run.curve],
            weights=[Weights(row.step, row.of | {"left": NAN}) for row in run.weights],
            cosines=[Cosines(c.epoch, c.tasks, [[NAN] * len(c.tasks)] * len(c.tasks)) for c in run.cosines],
        )
        for run in runs
    ]
    return tasks, Summary(arms, summary.verdict, summary.rule, dict.fromkeys(summary.baseline, NAN)), runs


def large():
    return study(9, 3, 14, nasty=True, wild=True)


@pytest.mark.parametrize("make", [study, minimal, only_single, not_a_number, large])
def test_every_figure_is_drawn_and_can_be_inlined(make):
    for i, figure in enumerate(drawn(*make())):
        assert isinstance(figure, Figure)
        assert inline(figure, f"figure-{i}", "title").startswith("<svg ")


def test_figures_leave_pyplot_and_the_settings_alone():
    before = dict(matplotlib.rcParams)
    drawn(*study(3, 2, 2))
    assert dict(matplotlib.rcParams) == before
    assert not _pylab_helpers.Gcf.figs


def test_a_dollar_in_a_name_is_no_formula():
    _, summary, _ = study(4, 2, 4, nasty=True)
    shown = words(forest(summary))
    assert "$x_1^2$ costs $5" in shown
    figure = forest(summary)
    figure.draw_without_rendering()
    assert not any(text.get_parse_math() for text in figure.findobj(matplotlib.text.Text) if "$" in text.get_text())


def test_the_worst_task_comes_first():
    _, summary, _ = study(4, 6, 4)
    first = worst_first(summary)[0]
    worst = {task: max(arm.per_task[task].mean for arm in summary.arms[1:]) for task in summary.baseline}
    assert worst[first] == max(worst.values())


def test_an_outlier_is_an_arrow_and_keeps_its_number():
    _, summary, _ = study(5, 6, 4, wild=True)
    figure = forest(summary)
    assert max(ax.get_xlim()[1] for ax in figure.axes) < 200
    assert "+480.0" in words(figure)
    arrows = [line for line in figure.findobj(matplotlib.lines.Line2D) if line.get_marker() == 5]
    assert arrows


def test_one_panel_has_the_scale_of_the_whole_figure():
    _, summary, _ = study(5, 6, 4)
    whole, part = forest(summary), forest(summary, [worst_first(summary)[-1]], 1)
    assert {ax.get_xlim() for ax in whole.axes} == {ax.get_xlim() for ax in part.axes}


def test_a_task_with_large_changes_does_not_hide_the_small_ones_of_others():
    _, summary, _ = study(4, 6, 2)
    arms = [
        replace(
            arm, delta_m=Interval(60, 50, 70), per_task={"left": Interval(120, 100, 140), "right": Interval(1, 0.5, 2)}
        )
        for arm in summary.arms
    ]
    figure = forest(replace(summary, arms=arms))
    widths = {round(ax.get_xlim()[1] - ax.get_xlim()[0]) for ax in figure.axes}
    assert min(widths) < 5
    assert max(widths) > 100
    assert words(figure).count("own scale") == 3


def test_the_forest_refuses_a_task_that_is_not_there():
    _, summary, _ = study(2, 2, 2)
    with pytest.raises(ValueError, match="no task 'dpeth': it has 'left', 'right'"):
        forest(summary, ["dpeth"])


def test_arms_look_alike_in_every_order_and_differ_by_marker():
    names = ["stl", "sum", *"abcdefgh"]
    looks = styles(names)
    assert looks == styles(reversed(names))
    assert len({look.marker for look in looks.values()}) == len(names)
    assert len({look.colour for look in looks.values()}) == len(names)


def test_names_of_arms_in_the_cost_figure_keep_apart():
    _, summary, _ = study(9, 6, 4)
    same = [replace(arm, delta_m=Interval(1.0, 0.5, 1.5)) for arm in summary.arms]
    figure = cost(replace(summary, arms=same))
    heights = sorted(
        text.get_position()[1] * 300 for text in figure.texts if text.get_text() in {label(a.arm) for a in same}
    )
    assert len(heights) == 9
    assert min(b - a for a, b in pairwise(heights)) > 11


def test_a_curve_ends_where_most_of_its_seeds_have_stopped():
    tasks, _, runs = study(2, 3, 2)
    lengths = [4, 10, 20]
    runs = [replace(run, curve=run.curve[: lengths[run.seed]]) for run in runs]
    figure = learning_curves(runs, tasks[:1], 1, key=False)
    assert {int(line.get_xdata()[-1]) for line in figure.axes[0].lines} == {10}


def test_cosines_are_averaged_over_seeds_early_below_and_late_above():
    _, _, runs = study(2, 2, 2)
    runs = [run for run in runs if run.arm == "sum"]
    pair = lambda value: [[1.0, value], [value, 1.0]]  # noqa: E731
    runs = [
        replace(run, cosines=[Cosines(9, ["a", "b"], pair(late)), Cosines(1, ["a", "b"], pair(early))])
        for run, early, late in zip(runs, (0.2, 0.4), (-0.5, math.nan), strict=True)
    ]
    cells = {text.get_text(): text.get_position() for text in cosine_matrices(runs).axes[0].texts}
    assert set(cells) == {"0.30", "−0.50"}
    column, row = cells["0.30"]
    assert column < row  # rows count downwards: below the diagonal


def test_cosines_of_different_tasks_are_not_averaged():
    _, _, runs = study(2, 2, 2)
    runs = [run for run in runs if run.arm == "sum"]
    other = [replace(c, tasks=["left", "other"]) for c in runs[0].cosines]
    with pytest.raises(ValueError, match="'sum' measured cosines of different tasks"):
        cosine_matrices([replace(runs[0], cosines=other), runs[1]])


def test_weights_are_shares_whatever_their_scale():
    _, _, runs = study(3, 2, 2)
    run = next(run for run in runs if run.arm == "uw")
    rows = [Weights(step, {"left": 30.0, "right": 10.0}) for step in range(0, 100, 10)]
    shown = words(weight_streams([replace(run, weights=rows)]))
    assert {"1.50×", "0.50×"} <= set(shown)


def test_arms_of_equal_weights_have_no_panel():
    _, _, runs = study(3, 2, 2)
    shown = words(weight_streams(runs))
    assert "uw" in shown
    assert "sum" not in shown


def test_a_negative_weight_is_drawn_at_the_floor():
    _, _, runs = study(3, 2, 2)
    run = next(run for run in runs if run.arm == "uw")
    rows = [Weights(step, {"left": 3.0, "right": -1.0}) for step in range(0, 100, 10)]
    assert "−0.50×" in words(weight_streams([replace(run, weights=rows)]))


def test_long_names_are_cut_in_the_middle_and_stay_apart():
    names = [f"a_very_long_task_name_that_goes_on_{i:02d}" for i in range(20)]
    cut = [label(name) for name in names]
    assert len(set(cut)) == 20
    assert {len(name) for name in cut} == {18}
    assert len(label("測" * 40)) <= 9
    assert label("bell\x07\ud800") == "bell��"


def test_letters_that_matplotlib_lacks_warn_nobody_on_the_page():
    _, summary, _ = study(2, 2, 8, nasty=True)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert "測定値の平均" in inline(forest(summary), "figure", "title")
