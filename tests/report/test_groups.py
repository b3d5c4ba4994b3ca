"""The section on groups, and its figures: only where there are groups, readable with many tasks and any names."""

from dataclasses import replace

import matplotlib
import numpy as np
import pytest

from motet.report import affinity_map, group_timeline
from motet.report.groups import soft
from motet.report.svg import inline
from motet.study.results import Comparison, Groups, Interval, Partition
from tests.report.make import NASTY, study
from tests.report.pages import words, written

TASKS = ["left", "right", "edge", "depth"]
INF = float("inf")


def groups_of(names, seed=0):
    k, rng = len(names), np.random.default_rng(seed)
    affinity = 0.01 * rng.standard_normal((k, k)) + 0.03 * np.eye(k)
    errors = np.full((k, k), 0.002)
    errors[0, 1:] = INF
    counts = np.full((k, k), 40)
    counts[-1, 0] = 0
    alone = [[name] for name in names]
    timeline = [
        Partition(0, alone),
        Partition(100, [names[:2], names[2:]] if k > 2 else [names]),
        Partition(150, [names]),
    ]
    return Groups(names, timeline, 400, 100, 1.3, affinity.tolist(), counts.tolist(), errors.tolist())


def with_groups(k=4, nasty=False, seeds=6, labels=("groups", "sum:steps=groups", "groups:random=2")):
    """A made-up study whose last arms are such."""
    tasks, summary, runs = study(2 + len(labels), seeds, k, nasty)
    names = [arm.arm for arm in summary.arms]
    renamed = dict(zip(names[2:], labels, strict=True))
    arms = [replace(arm, arm=renamed.get(arm.arm, arm.arm), updates=300, forwards=310) for arm in summary.arms]
    arms = [replace(arm, groups=2.4) if arm.arm.startswith("groups") else arm for arm in arms]
    tasks_names = [task.name for task in tasks]
    runs = [replace(run, arm=renamed.get(run.arm, run.arm)) for run in runs]
    runs = [
        replace(run, groups=groups_of(tasks_names, run.seed)) if run.arm.startswith("groups") else run for run in runs
    ]
    pairs = [(a, c) for a in labels if a == "groups" for c in ("sum", *labels) if c != a]
    comparisons = [Comparison(a, c, Interval(-2.0, -3.0, -1.0), 0.03125, True, False) for a, c in pairs]
    verdict = replace(summary.verdict, arm=renamed.get(summary.verdict.arm, summary.verdict.arm))
    return tasks, replace(summary, arms=arms, comparisons=comparisons, verdict=verdict), runs


def with_holm(p, tasks, summary, runs):
    arms = [replace(arm, p_sum_holm=p) if arm.arm == "groups" else arm for arm in summary.arms]
    return tasks, replace(summary, arms=arms), runs


def section_of(text):
    return " ".join(text[text.index('id="groups"') : text.index('id="curves"')].split())


def test_the_page_has_the_section_only_where_an_arm_has_groups(tmp_path):
    page, _ = written(tmp_path, *study())
    assert "groups" not in page.ids
    assert "Groups of tasks" not in page.text
    page, _ = written(tmp_path, *with_groups())
    assert "groups" in page.ids
    assert set(page.references) <= set(page.ids)


def test_the_section_sets_groups_beside_their_controls_and_says_what_each_is_for(tmp_path):
    page, text = written(tmp_path, *with_holm(0.0312, *with_groups(seeds=8)))
    section = section_of(text)
    order = [section.index(f"#sign-{i}") for i in (1, 2, 3, 4)]
    assert order == sorted(order)
    for phrase in (
        "groups is better than the plain sum (difference in Δm −2.0, p = 0.031 after Holm over 4 arms)",
        "does not explain the gain",
        "It was not held against sum:epochs=groups",
        "makes 300 optimizer steps (groups: 300) on the same batches, for the plain sum: a whole number of steps a",
        "has 2.4 groups (groups, after its warm-up: 2.4) a batch, drawn at random and kept",
        "In the verdict the controls are candidates like any other arm: it may name one, and each counts in Holm",
        "<small>a batch,</small><small>after warm-up</small>",
        "control: plain sum, several optimizer steps on every batch",
        "groups minus this<small>points of Δm (below 0: groups is better)</small>",
        "<td>2.4</td><td>300</td><td>310</td>",
    ):
        assert phrase in section, phrase
    assert "trained for several times the epochs" not in page.text


def test_the_numbers_of_a_control_are_its_own(tmp_path):
    tasks, summary, runs = with_groups(labels=("groups", "sum:steps=2", "sum:steps=groups"))
    updates = {"groups": 503, "sum:steps=2": 288, "sum:steps=groups": 432}
    arms = [replace(arm, updates=updates.get(arm.arm, 144)) for arm in summary.arms]
    _, text = written(tmp_path, tasks, replace(summary, arms=arms), runs)
    section = section_of(text)
    assert "steps=<wbr>2</dt><dd>makes 288 optimizer steps (groups: 503)" in section
    assert "steps=<wbr>groups</dt><dd>makes 432 optimizer steps (groups: 503)" in section


@pytest.mark.parametrize(("p", "established"), [(0.0312, True), (0.094, False)])
def test_table_and_sentence_call_a_gain_over_the_sum_what_the_verdict_calls_it(tmp_path, p, established):
    _, text = written(tmp_path, *with_holm(p, *with_groups(seeds=8)))
    section = section_of(text)
    cell = section[: section.index(f"p {p:.3f} Holm")].rpartition("<td>")[2]
    assert ('class="better"' in cell) == established
    assert ("groups is better than the plain sum" in section) == established
    assert section.count("p 0.031 uncorrected") == 2


def test_what_the_test_does_not_establish_is_not_coloured(tmp_path):
    tasks, summary, runs = with_groups(seeds=8)
    unsure = [replace(c, p=0.3, better=False) for c in summary.comparisons]
    _, text = written(tmp_path, tasks, replace(summary, comparisons=unsure), runs)
    cells = [part.rpartition("<td>")[2] for part in section_of(text).split("uncorrected</small>")[:-1]]
    assert len(cells) == 2
    assert not any("better" in cell for cell in cells)


def test_random_groups_that_divide_nothing_are_said_to_test_nothing(tmp_path):
    tasks, summary, runs = with_groups(seeds=8)
    arms = [replace(arm, undivided=8, seeds=8) if arm.arm == "groups:random=2" else arm for arm in summary.arms]
    _, text = written(tmp_path, tasks, replace(summary, arms=arms), runs)
    section = section_of(text)
    assert "</dt><dd>had every task alone or all in one group in 8 of 8 runs: it tests nothing.</dd>" in section
    assert "it does not matter which tasks share a group" not in section


def test_an_arm_that_learnt_no_groups_is_not_held_against_controls(tmp_path):
    tasks, summary, runs = with_groups(seeds=8)
    arms = [replace(arm, unlearnt=8, seeds=8) if arm.arm == "groups" else arm for arm in summary.arms]
    _, text = written(tmp_path, tasks, replace(summary, arms=arms), runs)
    section = section_of(text)
    assert "groups learnt no groups in 8 of 8 runs" in section
    assert "uncorrected</small>" not in section
    assert section.count("Holm</small>") == 1  # the plain sum


def test_a_study_of_controls_alone_shows_their_groups_and_claims_nothing(tmp_path):
    page, text = written(tmp_path, *with_groups(labels=("groups:random=2", "groups:fixed=[[0],[1],[2],[3]]")))
    assert "groups-1-title" in page.ids
    assert "gain to explain" not in text
    assert "minus this" not in text


@pytest.mark.parametrize("k", [1, 5])
def test_any_names_of_tasks_are_harmless(tmp_path, k):
    page, text = written(tmp_path, *with_groups(k, nasty=True), nasty=True)
    assert not page.open
    assert text.count("<script") == 1  # the page's own, which sorts its tables
    assert text.count('aria-labelledby="affinity-0-title') == 1


def test_forty_tasks_with_any_names_are_drawn():
    names = [f"{NASTY[i % len(NASTY)]}{i}" for i in range(40)]
    groups = groups_of(names)
    for figure in (affinity_map(names, groups.affinity), group_timeline(names, [(0, [names[:2], names[2:]])])):
        assert "<script" not in inline(figure, "x", "t")


def test_labels_may_break_behind_their_punctuation_and_stay_harmless():
    assert soft("groups:fixed=[[0,1]]") == "groups:<wbr>fixed=<wbr>[[0,<wbr>1]]"
    assert soft("<b>:") == "&lt;b&gt;:<wbr>"


# Affinity


def test_pairs_without_measurements_or_certainty_are_grey_and_counted():
    matrix = np.array([[0.5, 0.1, -0.2], [0.3, 0.5, 0.01], [0.2, 0.2, 0.5]])
    counts = np.array([[9, 9, 9], [0, 9, 9], [9, 1, 9]])
    errors = np.array([[0.01, 0.01, 0.01], [0.01, 0.01, 0.01], [INF, 0.01, 0.01]])
    found = words(affinity_map(["a", "b", "c"], matrix, counts, errors, least=2, significance=2))
    assert "pale grey: 2 of 6 pairs not measured" in found
    assert "grey: 2 of 6 pairs within 2 standard errors of zero" in found
    assert "0.10" in found
    assert "0.30" not in found  # never measured: no number
    assert "0.20" in found  # infinite error: grey, with its number


def test_the_scale_is_that_of_the_effects_on_other_tasks():
    matrix = np.array([[50.0, 3e-5], [-2e-5, 50.0]])
    found = words(affinity_map(["a", "b"], matrix))
    assert "helps, ±3.00 · 10⁻⁵" in found
    assert {"3.00", "−2.00"} <= set(found)
    assert "all 2 effects are clear of zero" in found


def test_groups_order_the_tasks_and_are_framed():
    figure = affinity_map(TASKS, np.eye(4), groups=[["depth", "left"], [2, 1]])
    assert [w for w in words(figure) if w in TASKS] == ["depth", "left", "edge", "right"]
    frames = [p for p in figure.findobj(matplotlib.patches.Rectangle) if not p.get_fill()]
    assert [(p.get_x(), round(p.get_width())) for p in frames] == [(0, 2), (2, 2)]


@pytest.mark.parametrize("values", [np.zeros((2, 2)), np.full((2, 2), np.nan), np.array([[1, INF], [np.nan, 1]])])
def test_a_map_of_nothing_is_drawn_too(values):
    inline(affinity_map(["a", "b"], values, standard_errors=np.zeros((2, 2))), "x", "t")
    assert "No affinity was measured." in words(affinity_map([], np.zeros((0, 0))))


def test_matrices_and_groups_that_do_not_fit_are_refused():
    with pytest.raises(ValueError, match="counts must be 2×2"):
        affinity_map(["a", "b"], np.eye(2), np.ones((3, 3)))
    with pytest.raises(ValueError, match="every task exactly once"):
        affinity_map(["a", "b"], np.eye(2), groups=[[0]])
    with pytest.raises(ValueError, match="'c', which is none of the tasks"):
        affinity_map(["a", "b"], np.eye(2), groups=[["a", "c"]])


# Timeline


def stretches(figure):
    """(left, right, row, colour) of what was drawn as one stretch."""
    found = figure.axes[0].patches
    return [(p.get_x(), p.get_x() + p.get_width(), int(p.get_y()), p.get_facecolor()) for p in found]


def test_tasks_that_end_together_stand_together_and_unchanged_stretches_are_one():
    timeline = [(0, [[0, 2], [1, 3]]), (10, [[0, 2], [1], [3]]), (20, [[0, 2], [1, 3]])]
    figure = group_timeline(TASKS, timeline, end=40)
    assert [w for w in words(figure) if w in TASKS] == ["left", "edge", "right", "depth"]
    first = [(left, right) for left, right, row, _ in stretches(figure) if row == 0]
    assert first == [(0, 40)]


def test_a_group_keeps_its_letter_through_a_change_and_an_absence():
    timeline = [(0, [[0, 1, 2], [3]]), (10, [[0, 1], [2, 3]]), (20, [[0], [1], [2, 3]]), (30, [[0, 1], [2, 3]])]
    found = stretches(group_timeline(TASKS, timeline, end=40))
    colours = {(left, row): colour for left, _, row, colour in found}
    assert colours[0, 0] == colours[30, 0]  # A until 20, alone, and A again
    assert colours[10, 3] != colours[0, 0]
    assert len({colour for (_, row), colour in colours.items() if row == 0}) == 2


def test_names_and_numbers_of_tasks_mean_the_same():
    left = group_timeline(TASKS, [(0, [[0, 1], [2], [3]])])
    right = group_timeline(TASKS, [(0, [["left", "right"], ["edge"], ["depth"]])])
    assert stretches(left) == stretches(right)
    assert words(left) == words(right)


def test_a_timeline_says_what_is_wrong_with_it():
    assert "No groups were recorded." in words(group_timeline(TASKS, []))
    with pytest.raises(ValueError, match="in order of time"):
        group_timeline(TASKS, [(5, [[0]]), (1, [[0]])])
    with pytest.raises(ValueError, match="'nobody', which is none"):
        group_timeline(TASKS, [(0, [["nobody"]])])


@pytest.mark.parametrize("k", [1, 30])
def test_more_groups_than_letters_or_colours_are_drawn(k):
    names = [f"task {i}" for i in range(2 * k)]
    pairs = [[2 * i, 2 * i + 1] for i in range(k)]
    found = words(group_timeline(names, [(0, pairs)]))
    assert ("D2" in found) == (k == 30)
