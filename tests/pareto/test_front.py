"""A sweep over preferences: what it returns, what it survives, and what it refuses."""

import json
import logging
import math
import re
from xml.etree import ElementTree

import pytest
import torch

from motet import pareto


def exact(preference):
    """The point of the front √L₁ + √L₂ = 2 at which r₁L₁ = r₂L₂."""
    root = torch.sqrt(preference[1] / preference[0])
    second = 2 / (1 + root)
    return [float((root * second) ** 2), float(second**2)]


def test_a_sweep_returns_points_by_preference():
    found = pareto.front(exact, preferences=5, reference=[4.0, 4.0])
    assert found.tasks == ("task 1", "task 2")
    assert found.complete
    assert found.preferences.shape == found.points.shape == (5, 2)
    assert torch.allclose((found.preferences * found.points).diff(dim=1), torch.zeros(5, 1).double())
    assert found.nondominated.all()
    assert found.hypervolume == pareto.hypervolume(found.points, [4.0, 4.0])
    # Ever more points tend to 16 less the area below (2 - √x)², which is 8/3.
    many = pareto.front(exact, preferences=400, reference=[4.0, 4.0])
    assert found.hypervolume < many.hypervolume < 16 - 8 / 3
    assert many.hypervolume == pytest.approx(16 - 8 / 3, rel=0.02)


def test_losses_by_name_come_in_the_order_of_the_tasks():
    named = pareto.front(lambda r: {"b": exact(r)[1], "a": torch.tensor(exact(r)[0])}, preferences=3, tasks=["a", "b"])
    assert named.tasks == ("a", "b")
    assert torch.allclose(named.points, pareto.front(exact, preferences=3).points, atol=1e-6)
    assert pareto.front(lambda r: {"b": 1.0, "a": 2.0}, preferences=1).tasks == ("b", "a")


def test_own_preferences_are_brought_to_a_sum_of_one():
    seen = []
    pareto.front(lambda r: seen.append(r) or [1.0, 2.0, 3.0], preferences=[[1, 1, 2], [3, 1, 1]])
    assert torch.allclose(torch.stack(seen), torch.tensor([[0.25, 0.25, 0.5], [0.6, 0.2, 0.2]]).double())


def test_all_models_start_from_the_same_seed_and_the_users_numbers_go_on():
    torch.manual_seed(5)
    before = torch.get_rng_state()
    found = pareto.front(lambda r: torch.rand(2), preferences=3, seed=7)
    assert torch.equal(found.points[0], found.points[2])
    assert torch.equal(torch.get_rng_state(), before)
    free = pareto.front(lambda r: torch.rand(2), preferences=3, seed=None)
    assert not torch.equal(free.points[0], free.points[2])


def test_the_table_says_what_is_dominated():
    found = pareto.front(lambda r: [1.0, 2.0] if r[0] > 0.6 else exact(r), preferences=3, tasks=["depth", "flow"])
    table = found.table()
    assert "depth" in table
    assert table.count("dominated") == 2  # the point, and the count below
    assert "2 of 3" in table
    assert re.search(r"hypervolume \d", table)


def stops(after, error):
    """Trains that many models and then raises."""
    calls = []

    def train(preference):
        if len(calls) == after:
            raise error
        calls.append(preference)
        return exact(preference)

    train.calls = calls
    return train


def test_an_interrupted_sweep_returns_what_is_there_and_goes_on_where_it_was(tmp_path, caplog):
    path = tmp_path / "new" / "points.jsonl"
    with caplog.at_level(logging.WARNING, logger="motet"):
        first = pareto.front(stops(2, KeyboardInterrupt()), preferences=5, path=path)
    assert not first.complete
    assert len(first.points) == len(first.preferences) == 2
    assert "2 of 5" in caplog.text
    assert "interrupted" in first.table()
    rest = stops(99, None)
    whole = pareto.front(rest, preferences=5, path=path)
    assert len(rest.calls) == 3
    assert whole.complete
    assert torch.equal(whole.points, pareto.front(exact, preferences=5).points)
    again = pareto.front(stops(0, AssertionError("nothing is left to train")), preferences=5, path=path)
    assert torch.equal(again.points, whole.points)


def test_an_interrupt_before_the_first_point_goes_through():
    with pytest.raises(KeyboardInterrupt):
        pareto.front(stops(0, KeyboardInterrupt()), preferences=3)


def test_a_line_cut_in_half_is_trained_again(tmp_path, caplog):
    path = tmp_path / "points.jsonl"
    whole = pareto.front(exact, preferences=3, path=path)
    text = path.read_text()
    path.write_text(text[: len(text) - 20])
    train = stops(99, None)
    assert torch.equal(pareto.front(train, preferences=3, path=path).points, whole.points)
    assert len(train.calls) == 1
    assert "half a line" in caplog.text
    assert path.read_text() == text


def test_every_line_is_plain_json(tmp_path):
    path = tmp_path / "points.jsonl"
    pareto.front(exact, preferences=2, tasks=["a", "b"], path=path)
    head, *points = [json.loads(line) for line in path.read_text().splitlines()]
    assert head["format"] == 1
    assert [list(point["losses"]) for point in points] == [["a", "b"], ["a", "b"]]


@pytest.mark.parametrize("change", [{"preferences": 4}, {"seed": 1}])
def test_points_of_another_sweep_are_refused(tmp_path, change):
    path = tmp_path / "points.jsonl"
    pareto.front(exact, preferences=3, path=path)
    with pytest.raises(ValueError, match="of other preferences or of another seed"):
        pareto.front(exact, **({"preferences": 3, "path": path} | change))


def test_points_of_other_tasks_and_other_files_are_refused(tmp_path):
    path = tmp_path / "points.jsonl"
    pareto.front(exact, preferences=2, tasks=["a", "b"], path=path)
    with pytest.raises(ValueError, match="the tasks are 'a', 'c'"):
        pareto.front(exact, preferences=2, tasks=["a", "c"], path=path)
    path.write_text("a,b\n1,2\n")
    with pytest.raises(ValueError, match="no file of a front"):
        pareto.front(exact, preferences=2, path=path)
    assert path.read_text() == "a,b\n1,2\n"


def test_an_error_in_training_names_the_preference():
    with pytest.raises(ZeroDivisionError) as caught:
        pareto.front(stops(1, ZeroDivisionError("no data")), preferences=3)
    assert any("(0.5, 0.5), number 2" in note and "path=" in note for note in caught.value.__notes__)


RESULTS = {
    "returned 3 losses": [1.0, 2.0, 3.0],
    "did the training diverge": [1.0, math.nan],
    "the tasks are 'a', 'b'": {"a": 1.0, "c": 2.0},
}


@pytest.mark.parametrize("message", RESULTS)
def test_a_bad_result_names_the_preference(message):
    with pytest.raises(ValueError, match=rf"(?s){message}|{message}") as caught:
        pareto.front(lambda r: RESULTS[message], preferences=3, tasks=["a", "b"])
    assert "preference (0.25, 0.75), number 1" in str(caught.value)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"preferences": [[1.0, 0.0]]}, "positive number a task"),
        ({"preferences": [1.0, 2.0]}, "positive number a task"),
        ({"preferences": [[1.0, 2.0]], "tasks": 3}, "2 values each, and there are 3 tasks"),
        ({"preferences": 0}, "at least 1"),
        ({"tasks": ["a", "a"]}, "different names"),
        ({"reference": [1.0]}, "2 finite losses"),
    ],
)
def test_bad_arguments_are_named(options, message):
    with pytest.raises(ValueError, match=message):
        pareto.front(exact, **options)


def test_the_reference_lies_a_tenth_beyond_the_worst():
    found = pareto.front(lambda r: [float(r[0]), 5.0], preferences=[[1.0, 3.0], [3.0, 1.0]])
    assert torch.allclose(found.reference, torch.tensor([0.75 + 0.05, 5.5]).double())


def in_three(preference):
    return [float(1 - share) for share in preference]


@pytest.mark.parametrize(("train", "tasks"), [(exact, ["depth <x> & $y$", "flow"]), (in_three, ["a", "b", "c"])])
def test_the_figure_is_an_svg_of_its_own_in_light_and_dark(tmp_path, train, tasks):
    found = pareto.front(train, preferences=7, tasks=tasks)
    path = found.plot(tmp_path / "new" / "front.svg")
    root = ElementTree.fromstring(path.read_text())
    assert root.tag == "{http://www.w3.org/2000/svg}svg"
    words = "".join(root.itertext())
    assert tasks[0] in words
    assert "prefers-color-scheme: dark" in words
    assert set(re.findall(r"var\((--[\w-]+)\)", path.read_text())) <= set(re.findall(r"(--[\w-]+):", words))
    page = found.plot(tmp_path / "front.html").read_text()
    assert "<svg" in page
    assert "hypervolume" in page


def test_a_figure_of_one_point_and_of_negative_losses_can_be_drawn(tmp_path):
    pareto.front(lambda r: [-1.0, 2.0], preferences=1).plot(tmp_path / "one.svg")
    pareto.front(lambda r: [-float(r[0]), 0.0, 0.0], preferences=3, tasks=3).plot(tmp_path / "three.svg")


def test_other_formats_are_refused(tmp_path):
    with pytest.raises(ValueError, match=r"\.svg or \.html file, not 'x.png'"):
        pareto.front(exact, preferences=2).plot(tmp_path / "x.png")


@pytest.mark.parametrize("content", [b"my only notes", b"{}", b"\xff\xfe", b"5\n", b"\n"])
def test_a_file_that_is_somebody_elses_is_left_alone(tmp_path, content):
    path = tmp_path / "notes.txt"
    path.write_bytes(content)
    with pytest.raises(ValueError, match=r"notes\.txt is no file of a front"):
        pareto.front(exact, preferences=2, path=path)
    assert path.read_bytes() == content


@pytest.mark.parametrize("length", [0, 12])
def test_an_empty_file_or_half_a_first_line_is_begun_anew(tmp_path, length):
    path = tmp_path / "points.jsonl"
    pareto.front(exact, preferences=2, path=path)
    text = path.read_text()
    path.write_text(text[:length])
    pareto.front(exact, preferences=2, path=path)
    assert path.read_text() == text


def test_points_that_are_read_are_counted_and_those_of_another_label_refused(tmp_path, caplog):
    path = tmp_path / "points.jsonl"
    pareto.front(exact, preferences=3, path=path, label="lr 0.1")
    with caplog.at_level(logging.INFO, logger="motet"):
        pareto.front(exact, preferences=3, path=path, label="lr 0.1")
    assert f"3 of 3 points read from {path}" in caplog.text
    for other in ("", "lr 0.2"):
        with pytest.raises(ValueError, match=r"label='lr 0\.1', not .*: name another file"):
            pareto.front(exact, preferences=3, path=path, label=other)


@pytest.mark.parametrize("result", [None, torch.tensor(1.0), 1.0, [None, 1.0], "ab", [torch.ones(2), 1.0]])
def test_what_is_no_list_of_losses_is_named(result):
    with pytest.raises(ValueError, match=r"preference \(0\.25, 0\.75\), number 1"):
        pareto.front(lambda r: result, preferences=3)


def test_losses_may_carry_a_graph():
    loss = torch.ones(2, requires_grad=True) * 2
    assert pareto.front(lambda r: loss, preferences=1).points.tolist() == [[2.0, 2.0]]
    assert pareto.front(lambda r: list(loss), preferences=1).points.tolist() == [[2.0, 2.0]]


def test_points_that_are_near_each_other_can_be_told_apart(tmp_path):
    found = pareto.front(lambda r: [-1 - 1e-6 * float(r[0]), -1 + 1e-6 * float(r[0])], preferences=3)
    rows = [line.split()[2:4] for line in found.table().splitlines()[1:4]]
    assert len({row[0] for row in rows}) == len({row[1] for row in rows}) == 3
    words = "".join(ElementTree.fromstring(found.plot(tmp_path / "near.svg").read_text()).itertext())
    assert "1e" in words
