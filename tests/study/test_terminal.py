"""The verdict in a terminal: labels of any length stay readable and whole."""

import io

import pytest
from rich.console import Console

from motet.study import terminal
from motet.study.results import Rule, Verdict
from motet.study.statistics import summarise
from tests.study.runs import lower, study, tasks

LONG = "groups:estimator=regression,regroup_every=20"


def shown(*arms: str, width: int = 80) -> list[str]:
    out = io.StringIO()
    found = summarise(tasks(3), study(dict.fromkeys(["sum", *arms], 0), 8, noise=1.0), higher_is_better=lower(3))
    terminal.summary(Console(file=out, width=width), "title", found)
    return out.getvalue().splitlines()


def column(lines: list[str]) -> list[str]:
    """What stands under "arm", line by line."""
    start = next(i for i, line in enumerate(lines) if line.startswith(" arm ")) + 2
    end = next(i for i, line in enumerate(lines) if line.startswith("Δm: "))
    return [line.split()[0] for line in lines[start:end] if line.strip()]


@pytest.mark.parametrize(
    "label", [LONG, "groups:fixed=[[0,1],[2]],order=theorem-5", "ema=0.9+log+every=10+fair-grad@exact"]
)
def test_a_long_label_is_folded_behind_its_punctuation_and_nothing_of_it_is_lost(label):
    lines = shown(label)
    cells = column(lines)
    first = next(i for i, cell in enumerate(cells) if label.startswith(cell) and cell != "sum")
    parts = cells[first:]
    while "".join(parts) != label:
        parts.pop()
    assert len(parts) > 1
    assert all(part[-1] in ":,+@=_-" for part in parts[:-1])
    assert max(map(len, lines)) <= 80


def test_a_label_that_fits_stays_on_its_line():
    assert LONG in column(shown(LONG, width=120))
    assert "sum:epochs=groups" in column(shown("sum:epochs=groups"))


def test_a_word_longer_than_its_column_is_still_shown_whole():
    name = "groups:" + "x" * 60
    assert name in "".join(column(shown(name)))


def printed(changes: dict[str, float], seeds: int, rule: Rule, noise: float = 0.3) -> str:
    out = io.StringIO()
    found = summarise(tasks(3), study(changes, seeds, noise), rule, higher_is_better=lower(3))
    terminal.summary(Console(file=out, width=80), "title", found)
    assert max(map(len, out.getvalue().splitlines())) <= 80
    return out.getvalue()


def test_the_title_says_how_many_seeds_are_missing():
    assert "UNDECIDED (needs 1 more seed) ─" in printed({"sum": 8.0, "a": 5.0}, 5, Rule())
    assert "UNDECIDED (needs 2 more seeds) ─" in printed({"sum": 3.0, "a": -4.0, "b": -3.0}, 5, Rule())
    assert "─ ADOPT ─" in printed({"sum": 3.0, "a": -4.0}, 8, Rule())
    refused = Verdict("UNDECIDED", "a", "No verdict: …", [], 8, None, refused=True)
    assert terminal.title_of(refused) == "NO VERDICT"


def test_the_least_gain_that_would_be_shown_stands_below_the_table():
    text = " ".join(printed({"sum": 0.0, "a": 0.0, "b": 1.0}, 8, Rule(), noise=2.0).split())
    assert "Least gain on the sum, in points, that such a study shows 4 times in 5: " in text
    text = printed({"sum": 0.0, "a": 0.0}, 5, Rule())
    assert "With 5 seeds no gain on the sum could be shown, however large." in text


def test_a_planned_look_says_its_level_and_the_other_looks():
    text = printed({"sum": 3.0, "a": -4.0}, 8, Rule(looks=(6, 8, 10, 12)))
    assert "98.7 % interval" in text
    assert "The verdict may be read at 6, 8, 10 and 12 seeds." in " ".join(text.split())
    assert "p after Holm over the share of this look" in " ".join(text.split())
    assert "share" not in printed({"sum": 3.0, "a": -4.0}, 8, Rule())
