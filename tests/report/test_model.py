"""The section on models: shares, attention and bags of those that tell of themselves, and a word of warning."""

import math
from dataclasses import replace

import pytest

from motet.report.figures.model import bag_map, share_map
from motet.report.svg import inline
from motet.study.results import BagAttention, Gates, Influence, Shown, ViewAttention
from tests.report.make import NASTY, study
from tests.report.pages import words, written

NAN = math.nan


def even(rows, columns):
    return [[1 / columns] * columns for _ in range(rows)]


def bag(view="slide", instances=9, kept=9, located=False, edges=((0, 1), (1, 2))):
    points = [[float(i), float(i % 3)] for i in range(kept)]
    return BagAttention(
        view, 4, instances, points, located, [0.3] + [0.7 / instances] * (kept - 1), list(map(list, edges))
    )


def told(tasks, views=("blood", "slide"), **given):
    k, v = len(tasks), len(views)
    prior = [[0.8 + 0.2 / k if i == j else 0.2 / k for j in range(k)] for i in range(k)]
    moved = [[value - 0.01 * (-1) ** j for j, value in enumerate(row)] for row in prior]
    attention = ViewAttention(list(views), [1.0, *[0.75] * (v - 1)], even(v, v), [0.9] * v, 0.6, 0.2, 12.3, 32)
    gates = [Gates("level 1", ["own", "shared"], even(k, 2), even(k, 2))]
    return Shown(list(tasks), gates, attention, Influence(moved, prior, [1.0] * k, False), [bag()], **given)


def shown(k=3, arms=4, nasty=False, views=("blood", "slide")):
    """A made-up study whose last arm tells of itself."""
    tasks, summary, runs = study(arms, 3, k, nasty)
    last = summary.arms[-1].arm
    found = told([task.name for task in tasks], views)
    return tasks, summary, [replace(run, shown=found if run.arm == last else None) for run in runs]


def test_the_page_has_the_section_only_where_a_model_tells_of_itself(tmp_path):
    page, _ = written(tmp_path, *study(3, 2, 3))
    assert "model" not in page.ids
    page, text = written(tmp_path, *shown())
    assert "model" in page.ids
    assert set(page.references) <= set(page.ids)
    assert not page.open
    section = text[text.index('id="model"') : text.index('id="reading"')]
    assert section.count("<figure>") == 5  # Gates, attention, influence and its change, and one bag.
    assert "None of it explains whether an outcome is right" in section
    assert "<td>0.600</td><td>0.200</td><td>12.3<small>of 32</small></td><td>0.90</td>" in section
    assert "These figures show single bags of the test split" in section


def test_names_that_try_to_break_the_page_do_not(tmp_path):
    page, text = written(tmp_path, *shown(len(NASTY), 9, nasty=True, views=NASTY[:4]), nasty=True)
    assert not page.open
    assert "<script>alert(1)" not in text
    assert set(page.references) <= set(page.ids)


def test_columns_with_the_rows_names_are_numbered_and_short_names_stand_themselves():
    assert {"1", "2", "a", "b"} <= set(words(share_map(["a", "b"], ["a", "b"], even(2, 2), title="t")))
    assert {"own", "shared"} <= set(words(share_map(["a", "b"], ["own", "shared"], even(2, 2), title="t")))
    long = words(share_map(["a"], ["one long name", "another name"], even(1, 2), title="t"))
    assert "1 one long name   2 another name" in long
    experts = words(share_map(["a"], [f"expert {i + 1}" for i in range(3)], even(1, 3), title="t", across="of expert"))
    assert {"1", "2", "3", "of expert"} <= set(experts)


@pytest.mark.parametrize("k", [1, 14, 40])
def test_any_number_of_rows_is_drawn_and_what_is_not_known_is_left_empty(k):
    names = [f"task {i}" for i in range(k)]
    values = [[NAN if i == j else -0.5 for j in range(k)] for i in range(k)]
    figure = share_map(names, names, values, title="t", notes=["1"] * k, note="n", foot="f")
    assert inline(figure, "x", "title").startswith("<svg ")
    assert words(share_map([], [], [], title="t")) == ["There is nothing to show."]


def test_a_bag_says_how_much_of_it_is_seen_and_where_its_instances_lie():
    found = words(bag_map(bag(instances=1044, kept=9), "umda+sum"))
    assert "slide, test row 4: 1\u202f044 instances, the 9 with most attention" in found
    assert "by the first two principal components of their features" in found
    assert "at their coordinates" in words(bag_map(bag(located=True), "t"))
    assert any(
        text.startswith("largest share 30\u202f%; equal shares would be 11.11") for text in words(bag_map(bag(), "t"))
    )


def test_a_bag_without_edges_or_attention_is_drawn_and_one_without_instances_says_so():
    blank = replace(bag(edges=()), weights=[0.0] * 9, points=[[1.0, 1.0]] * 9)
    assert inline(bag_map(blank, "t"), "x", "title").startswith("<svg ")
    assert words(bag_map(replace(blank, points=[], weights=[]), "t")) == ["The bag has no instances."]
