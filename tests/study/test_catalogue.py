"""The listing of methods: grouped, readable in a terminal, with the record of their conformance."""

import inspect
import io
import re

import pytest
from rich.cells import cell_len
from rich.console import Console

from motet import methods
from motet.methods.registry import Entry, Option
from motet.study import arms, catalogue
from motet.study.roles import EXPLAINED, role

ENTRIES = [methods.entry(name) for name in methods.available()]


HEADINGS = (
    "Weights from the losses",
    "Weights from the Gram matrix of the tasks' gradients",
    "Weights from two batches (exact route), or single samples",
    "Directions from",
    "Around a method",
)


def listing(width=80, entries=ENTRIES):
    stream = io.StringIO()
    catalogue.methods(Console(file=stream, width=width, highlight=False), entries)
    return stream.getvalue()


@pytest.fixture
def record(monkeypatch):
    found = {
        "mgda": {
            "passes": True,
            "oracle": "how",
            "oracle_covers": "every update",
            "length_agreeing": 0.8364,
            "length_conflicting": 0.459,
            "scale": 1.0,
            "never_conflicted": True,
            "no_conflict_declared": True,
        },
        "pcgrad": {
            "passes": True,
            "oracle": False,
            "length_agreeing": 1534.2,
            "length_conflicting": 5.3759,
            "scale": None,
            "never_conflicted": False,
            "no_conflict_declared": False,
        },
        "upgrad": {"passes": False, "faults": ["one"]},
        "dwa": {
            "passes": True,
            "oracle": "even",
            "oracle_covers": "first update",
            "length_agreeing": 5.0,
            "length_conflicting": 5.0,
            "scale": 1.0,
            "never_conflicted": False,
            "no_conflict_declared": False,
        },
    }
    monkeypatch.setattr(catalogue, "_record", lambda: found)
    return found


@pytest.mark.parametrize("width", [80, 100, 120])
def test_no_line_is_wider_than_the_terminal(width):
    assert max(map(cell_len, listing(width).splitlines())) <= width


@pytest.mark.parametrize("width", [80, 120])
def test_every_method_has_one_line_of_columns(width):
    columns = re.findall(r"^(?!name )[a-z0-9-]+ +(?:✓✓|✓|✗|\?) .*$", listing(width), re.MULTILINE)
    assert {line.split()[0] for line in columns} == set(methods.available())
    assert len(columns) == len(ENTRIES)
    # Aligned over all groups: the badge ends in the same column.
    assert len({re.search(r"(?:✓|✗|\?) ", line).end() for line in columns}) == 1


def test_a_method_takes_no_more_than_a_few_lines():
    assert len(listing(80).splitlines()) <= 4.5 * len(ENTRIES) + 20
    methods, *_ = listing(120).split("\nOptimizers before an arm")
    assert len(methods.splitlines()) <= 3.5 * len(ENTRIES)


def test_methods_are_grouped_by_what_they_need():
    out = listing()
    heads = [out.index(heading) for heading in HEADINGS]
    assert heads == sorted(heads)
    place = {name: re.search(rf"^{name} ", out, re.MULTILINE).start() for name in methods.available()}
    for entry in ENTRIES:
        group = sum(place[entry.name] > head for head in heads)
        expected = {"losses": 1, "extra-forward": 1, "gram": 2, "jacobian": 4}[entry.cost]
        assert group == (3 if entry.cls.two_samples or entry.cls.samples else expected), entry.name


def test_summary_reference_and_options_are_there():
    out = re.sub(r"\s+", " ", listing())
    for entry in ENTRIES:
        assert " ".join(entry.summary.split()) in out
        assert f"[{' '.join(entry.reference.split())}]" in out
    assert "alpha=2.0" in out
    assert "generator" not in out.split("✓ passes")[0]


def test_the_badge_length_and_conflict_are_the_records(record):
    lines = listing(
        entries=[methods.entry(name) for name in ("mgda", "pcgrad", "upgrad", "dwa", "cagrad")]
    ).splitlines()
    rows = {line.split()[0]: line.split()[1:5] for line in lines if line and line[0].isalpha()}
    assert rows["mgda"] == ["✓✓", "0.836", "0.459", "none"]
    assert rows["pcgrad"] == ["✓", "1534", "5.38", "seen"]
    assert rows["upgrad"][0] == "✗"
    # Only its first update has been compared.
    assert rows["dwa"][0] == "✓"
    assert rows["cagrad"][:2] == ["?", "?"]


def test_one_method_tells_its_badge_in_words(record):
    def told(name):
        stream = io.StringIO()
        catalogue.method(Console(file=stream, width=100), methods.entry(name))
        return " ".join(stream.getvalue().split())

    assert "✓✓ passes motet.testing.check_method; definition checked: how." in told("mgda")
    assert "0.836 times the mean gradient where tasks agree, 0.459 where they clash" in told("mgda")
    assert "conflict with a task's gradient: none, as promised." in told("mgda")
    assert "its length follows no power of the losses" in told("pcgrad")
    assert "conflict with a task's gradient: seen in the check." in told("pcgrad")
    assert "✓ passes motet.testing.check_method; first update checked: even." in told("dwa")
    assert "✗ fails" in told("upgrad")
    assert "? not in the record" in told("cagrad")


def test_the_json_of_a_method_has_its_record(record):
    assert catalogue.method_json(methods.entry("mgda"))["conformance"] == record["mgda"]
    assert catalogue.method_json(methods.entry("cagrad"))["conformance"] is None


def test_the_markdown_has_a_table_for_each_group_and_a_row_for_each_method():
    text = catalogue.methods_markdown(ENTRIES)
    rows = re.findall(r"^\| `([a-z0-9-]+)` \|.*\|$", text, re.MULTILINE)
    assert sorted(rows) == sorted(methods.available())
    assert text.count("## ") == len(HEADINGS) + 2  # and the arms that update group by group, and the optimizers
    tables = [line for line in text.partition("## Around")[0].splitlines() if line.startswith("|")]
    # A bar in a cell is escaped.
    assert {len(re.findall(r"(?<!\\)\|", line)) for line in tables} == {10}
    assert text.endswith("\n")


def test_an_option_without_a_default_is_its_name():
    option = Option("r", inspect.Parameter.empty, "")
    entry = Entry("own", methods.Method, 2026, "gram", "Own", "nobody", "A method of one's own.", (option,))
    assert re.search(r"^own .* r$", listing(entries=[entry]), re.MULTILINE)


def test_the_arms_with_groups_and_their_controls_are_listed_as_they_can_be_written():
    plain, text = re.sub(r"\s+", " ", listing()), catalogue.methods_markdown(ENTRIES)
    for written, does, _ in catalogue._GROUPED:
        example = written.replace("option=value,…", "decay=0.01")
        assert arms.parse(example).label == example
        assert f"| `{written}` | {does} |" in text
        assert re.sub(r"\s+", " ", f"{written} {does}") in plain
    kinds = {role(written) for written, _, _ in catalogue._GROUPED}
    assert kinds == set(EXPLAINED)


def test_the_wrappers_are_listed_as_arms_can_be_written():
    plain, text = re.sub(r"\s+", " ", listing()), catalogue.methods_markdown(ENTRIES)
    for written, does, cls in catalogue._WRAPPERS:
        arm = arms.parse(written.replace("METHOD", "mgda"))
        assert arm.label == written.replace("METHOD", "mgda")
        assert isinstance(arm.balancer(("a", "b"), seed=0).method, getattr(methods, cls))
        assert f"{written} {does} [motet.methods.{cls}]" in plain
        assert f"| `{written}` | {does} | `motet.methods.{cls}` |" in text
    assert {written.split("+")[0].split("=")[0] for written, *_ in catalogue._WRAPPERS} == set(arms._WRAPPERS)
