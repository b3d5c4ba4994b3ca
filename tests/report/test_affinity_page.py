"""The page of ``motet affinity``: complete in one file, safe with any name, and honest about what is not known."""

import re
from dataclasses import replace

import pytest
import torch

from motet.loop import Loop
from motet.report.affinity import write
from motet.study.affinity import measure, of_loop
from motet.study.measured import Measured, Pair
from motet.study.sentences import RULE, percent, sureness
from tests.report.pages import Page, assert_whole

NAMES = ["<script>alert(1)</script>", "a & b", "{{ 7 * 7 }}", "bell\x07", "数" * 30, "epoch 3"]
SECTIONS = ["proposal", "groups", "map", "pairs", "beside", "reading", "provenance"]


def result(**options) -> Measured:
    """Six tasks with such names; the first and the last never meet, the others pull a vector to and fro."""
    targets = {name: torch.full((3,), 1.0 if i % 2 else -1.0) + 0.1 * i for i, name in enumerate(NAMES)}

    def make(seed):
        model = torch.nn.Linear(1, 3)
        shifts = 0.1 * torch.randn(40, 3, generator=torch.Generator().manual_seed(seed))

        def losses(batch):
            number, shift = batch
            absent = NAMES[0] if number % 2 else NAMES[-1]
            u = model(torch.ones(1)) + shift
            return {name: None if name == absent else (u - t).pow(2).sum() for name, t in targets.items()}

        return of_loop(Loop(model, losses, list(enumerate(shifts))), "train:<b>loop</b>")

    return measure(make, **({"epochs": 2, "runs": 2} | options))


@pytest.fixture(scope="module")
def found() -> Measured:
    return result()


@pytest.fixture(scope="module")
def page(found, tmp_path_factory) -> str:
    return write(tmp_path_factory.mktemp("page") / "a.html", found, "motet affinity <x>").read_text(encoding="utf-8")


def test_the_page_is_well_formed_and_refers_to_nothing_outside(page):
    assert_whole(page)


def test_every_section_is_there_in_order(page):
    assert [id_ for id_ in Page(page).ids if id_ in SECTIONS] == SECTIONS


def test_names_are_text_and_stand_whole(page):
    text = Page(page).text
    for name in NAMES:
        assert name.replace("\x07", "�") in text
    assert "49" not in text.split()
    assert "<b>loop" not in page


def test_colours_follow_the_page_into_the_dark(page):
    drawn = "".join(re.findall(r"<svg.*?</svg>", page, re.DOTALL))
    assert not re.findall(r"(?:fill|stroke): ?#[0-9a-f]+", drawn)


def test_greyed_pairs_are_named_with_their_reason(page, found):
    assert [(one, other) for one, other, _ in found.greyed] == [(NAMES[0], NAMES[-1])]
    assert "0 measurements, fewer than 40" in Page(page).text


def test_maps_of_three_moments_the_timeline_and_both_other_measures_are_drawn(page):
    text = Page(page).text
    for words in ("Early", "Middle", "Late", "Look-ahead affinity", "Gradient cosines", "early: batch 8", "batch 80"):
        assert words in text
    assert page.count("<svg") == 6


def test_maps_side_by_side_have_one_scale_without_powers_of_ten(page):
    maps = re.findall(r"<svg.*?</svg>", page, re.DOTALL)
    scales = [re.findall(r"helps, ±[^<]*", drawn) for drawn in maps]
    every = [scale[0] for scale in scales if scale]
    assert len(every) == 4  # The last is of the look-ahead affinity.
    assert len(set(every[:3])) == 1
    assert "10" not in every[0].partition(".")[2]


def test_the_foot_of_the_map_names_pairs_that_share_too_little(page):
    assert "2 of 30 pairs share too little" in Page(page).text


def test_the_rule_and_the_missing_measurement_are_explained(page):
    text = Page(page).text
    assert RULE in text
    assert "the last of each batch, another one each time, is not measured" in text
    assert "in 2\N{NO-BREAK SPACE}short trainings of 80 batches" in text
    assert "2 trainings of 80 batches" in text


def test_the_page_says_that_it_is_no_proof_and_how_sure_it_is(page, found):
    text = Page(page).text
    assert "It is no proof" in text
    for group in found.groups:
        assert sureness(group) in text


def test_an_interrupted_measurement_says_so_and_draws_what_there_is(tmp_path):
    def tick(done, total):
        if done == 50:
            raise KeyboardInterrupt

    text = Page(write(tmp_path / "a.html", result(runs=1, tick=tick)).read_text(encoding="utf-8")).text
    assert "INTERRUPTED" in text
    assert "after 50 of 80 batches" in text


def test_nothing_measured_clearly_is_a_page_too(tmp_path, found):
    nothing = replace(found, pairs=[], disagreements=[], undecided=[], greyed=[])
    text = Page(write(tmp_path / "a.html", nothing).read_text(encoding="utf-8")).text
    assert "No pair clearly helps." in text
    assert "nothing can be compared" in text


def test_a_disagreement_names_both_sides(tmp_path, found):
    pair = Pair("p", "q", 0.01, 0.001, -0.02, 0.001, 0.3, 0.1, 50, None)
    text = Page(
        write(tmp_path / "a.html", replace(found, disagreements=[(pair, "look-ahead")])).read_text("utf-8")
    ).text
    assert "affinity +1.00 ± 0.20 %, look-ahead −2.00 ± 0.20 %, cosine +0.30: look-ahead disagrees" in text


def test_a_folder_is_no_page(tmp_path, found):
    with pytest.raises(IsADirectoryError, match="is a folder"):
        write(tmp_path, found)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("value", "error", "said"),
    [
        (0.00312, 0.00025, "+0.312 ± 0.050"),
        (-0.1, 0.02, "−10.0 ± 4.0"),
        (0.0, 0.0, "0.00 ± 0.00"),
        (0.01, float("inf"), "+1.000 ± ?"),
        (float("nan"), 0.1, "–"),
    ],
)
def test_per_cent_has_the_digits_that_its_error_allows(value, error, said):
    assert percent(value, error) == said
