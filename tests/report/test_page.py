"""The page: complete in one file, safe with any name, the same for the same input."""

import base64
import hashlib
import math
import re
from dataclasses import replace
from itertools import combinations
from pathlib import Path

import numpy as np
import pytest

from motet import report
from motet.report import front, health, numbers, tuning
from motet.report import runs as run_list
from motet.report.figures.theme import VARIABLES
from motet.study.live import TUNING, State
from motet.study.results import Interval, Notice, Tuning, Weights
from tests.report.make import ARMS, NASTY, minimal, problem_of, provenance_of, study
from tests.report.pages import Page, write

STYLE = (Path(report.__file__).parent / "style.css").read_text(encoding="utf-8")
SECTIONS = [
    "verdict",
    "arms",
    "changes",
    "tasks",
    "cost",
    "budget",
    "curves",
    "cosines",
    "weights",
    "health",
    "reading",
]
SECTIONS += ["runs", "provenance"]


@pytest.fixture(scope="module")
def nasty(tmp_path_factory):
    path = write(
        tmp_path_factory.mktemp("nasty"),
        study(9, 8, 14, nasty=True, wild=True),
        nasty=True,
        title="</title><script>alert('title')</script>",
    )
    return path.read_text(encoding="utf-8")


@pytest.fixture(scope="module")
def usual(tmp_path_factory):
    return write(tmp_path_factory.mktemp("usual"), study()).read_text(encoding="utf-8")


@pytest.fixture(scope="module")
def least(tmp_path_factory):
    return write(tmp_path_factory.mktemp("least"), minimal()).read_text(encoding="utf-8")


@pytest.fixture(params=["nasty", "usual", "least"])
def page(request):
    return request.getfixturevalue(request.param)


def test_the_page_parses_and_all_tags_balance(page):
    assert Page(page).open == []


def test_ids_are_unique_and_every_reference_has_one(page):
    parsed = Page(page)
    assert len(parsed.ids) == len(set(parsed.ids))
    assert set(parsed.references) <= set(parsed.ids)


def test_nothing_is_loaded_and_only_the_one_script_may_run(page):
    tags = Page(page).tags
    assert not {"link", "img", "iframe", "object", "embed"} & {tag for tag, _ in tags}
    assert [attrs for tag, attrs in tags if tag == "script"] == [{}]
    script = re.search(r"<script>(.*?)</script>", page, re.DOTALL)[1]
    digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
    assert f"script-src 'sha256-{digest}'" in page
    assert not re.search(r"fetch|XMLHttp|WebSocket|import\(|innerHTML|eval", script)
    assert not [key for _, attrs in tags for key in attrs if key.startswith("on")]
    assert "http:" not in page
    assert "https:" not in page
    assert "@import" not in page
    assert "default-src 'none'" in page


def test_every_section_is_there_in_order(page):
    found = [id_ for id_ in Page(page).ids if id_ in SECTIONS]
    assert found == SECTIONS


def test_no_name_becomes_markup(nasty):
    for name in NASTY + ARMS:
        if "<" in name:
            assert name not in nasty
    assert "49" not in [word.strip() for word in Page(nasty).words]  # {{ 7 * 7 }} was not computed


def test_every_name_stands_whole_in_the_page(nasty):
    text = Page(nasty).text
    for name in NASTY + ARMS:
        assert name.replace("\x07", "�") in text


def test_characters_that_html_forbids_are_replaced(nasty):
    assert not re.search("[\x00-\x08\x0b-\x1f\x7f-\x9f]", nasty)


def test_every_colour_follows_the_page_into_the_dark(page):
    drawn = "".join(re.findall(r"<svg.*?</svg>", page, re.DOTALL))
    assert not re.findall(r"(?:fill|stroke): ?#[0-9a-f]+", drawn)
    light, dark = STYLE.split("@media screen and (prefers-color-scheme: dark)", 1)
    for variable in set(re.findall(r"var\((--[\w-]+)\)", drawn)):
        assert f"{variable}:" in light
        assert f"{variable}:" in dark


def test_figures_and_style_agree_on_the_light_colours():
    light = STYLE.split("@media", 1)[0]
    for colour, variable in VARIABLES.items():
        if variable != "--paper":  # the figures' white is one step off, to tell it from matplotlib's own
            assert f"{variable}: {colour}" in light


def colours(block):
    """Linear RGB (A, 3) of the arms, and that of the page."""
    found = dict(re.findall(r"(--(?:arm-\d|stl|sum|paper)): #([0-9a-f]{6})", block))
    rgb = np.array([[int(code[i : i + 2], 16) / 255 for i in (0, 2, 4)] for code in found.values()])
    linear = np.where(rgb <= 0.04045, rgb / 12.92, ((rgb + 0.055) / 1.055) ** 2.4)
    page = list(found).index("--paper")
    return np.delete(linear, page, 0), linear[page]


def lab(linear):
    xyz = linear @ XYZ.T / [0.9505, 1, 1.089]
    f = np.where(xyz > 0.008856, np.cbrt(xyz), 7.787 * xyz + 16 / 116)
    return np.stack([116 * f[:, 1] - 16, 500 * (f[:, 0] - f[:, 1]), 200 * (f[:, 1] - f[:, 2])], 1)


XYZ = np.array([[0.4124, 0.3576, 0.1805], [0.2126, 0.7152, 0.0722], [0.0193, 0.1192, 0.9505]])
# Complete protanopia and deuteranopia after Machado, Oliveira and Fernandes (2009), on linear RGB.
PROTANOPIA = [[0.152286, 1.052583, -0.204868], [0.114503, 0.786281, 0.099216], [-0.003882, -0.048116, 1.051998]]
DEUTERANOPIA = [[0.367322, 0.860646, -0.227968], [0.280085, 0.672501, 0.047413], [-0.01182, 0.04294, 0.968881]]


@pytest.mark.parametrize("part", [0, 1], ids=["light", "dark"])
@pytest.mark.parametrize("sight", [np.eye(3), PROTANOPIA, DEUTERANOPIA], ids=["full", "protanopia", "deuteranopia"])
def test_arms_stay_apart_for_the_colour_blind_and_stand_out_from_the_page(part, sight):
    arms, page = colours(STYLE.split("@media screen and (prefers-color-scheme: dark)")[part])
    assert len(arms) == 10
    seen = lab((arms @ np.array(sight).T).clip(0, 1))
    assert min(np.linalg.norm(a - b) for a, b in combinations(seen, 2)) > 15
    light = np.sort(np.stack([arms @ XYZ[1], np.full(10, page @ XYZ[1])]), 0) + 0.05
    assert (light[1] / light[0]).min() > 2.99


def test_every_figure_has_a_title_for_those_who_do_not_see_it(usual):
    svgs = re.findall(r"<figure>(.*?)</figure>", usual, re.DOTALL)
    assert len(svgs) > 15
    for svg in svgs:
        assert re.search(r"<title[^>]*>[^<]+</title>", svg)
        assert 'role="img"' in svg


def test_the_largest_study_stays_small(nasty):
    assert len(nasty.encode()) < 3_000_000


def test_the_same_study_gives_the_same_bytes(tmp_path):
    first = write(tmp_path, study(3, 2, 2)).read_bytes()
    assert write(tmp_path, study(3, 2, 2)).read_bytes() == first


def test_the_order_of_the_runs_does_not_matter(tmp_path):
    tasks, summary, runs = study(3, 2, 2)
    first = write(tmp_path, (tasks, summary, runs)).read_bytes()
    assert write(tmp_path, (tasks, summary, runs[::-1])).read_bytes() == first


def test_what_was_not_recorded_is_said(least):
    text = Page(least).text
    assert "No learning curve was recorded." in text
    assert "No cosines between gradients were recorded." in text
    assert not re.search(r"\bnan\b", text, re.IGNORECASE)


def test_the_card_says_what_was_decided_and_what_it_costs(usual):
    _, summary, _ = study()
    verdict = summary.verdict
    card = re.search(r'<section class="card adopt".*?</section>', usual, re.DOTALL)[0]
    text = Page(card).text
    assert verdict.headline in text
    assert all(reason in text for reason in verdict.reasons)
    chosen = next(arm for arm in summary.arms if arm.arm == verdict.arm)
    assert f"{chosen.step_cost:.2f}×" in text


def test_seeds_that_would_decide_are_named(least):
    assert "1\u00a0seed; about 5 more would decide" in Page(least).text
    assert "Fewer than six paired seeds can't give p below 0.05" in Page(least).text


def test_cautions_notes_warnings_and_runs_are_shown(nasty):
    text = Page(nasty).text
    assert problem_of()["caution"] in text
    assert all(note in text for note in problem_of()["notes"])
    assert "the solver stopped at its iteration limit <100>" in text
    assert "imtl-g: 2\u00a0runs" in text
    assert "00-05-5f1d3c" in text
    assert provenance_of()["command"] in text


def test_a_study_of_single_task_alone_says_so(tmp_path):
    text = Page(write(tmp_path, study(1, 2, 2)).read_text(encoding="utf-8")).text
    assert "No arm besides single-task was trained" in text


def test_folders_are_made_and_no_half_page_is_left(tmp_path):
    path = write(tmp_path / "new" / "folder", minimal())
    assert [child.name for child in path.parent.iterdir()] == ["report.html"]


def test_a_failure_leaves_the_old_report(tmp_path, monkeypatch):
    path = write(tmp_path, minimal())
    before = path.read_bytes()
    monkeypatch.setattr(Path, "replace", lambda *_: (_ for _ in ()).throw(OSError("disk full")))
    with pytest.raises(OSError, match="disk full"):
        write(tmp_path, study(2, 2, 2))
    assert path.read_bytes() == before
    assert [child.name for child in tmp_path.iterdir()] == ["report.html"]


def test_a_folder_is_no_file(tmp_path):
    (tmp_path / "report.html").mkdir()
    with pytest.raises(IsADirectoryError, match="name the file"):
        write(tmp_path, minimal())


def test_a_summary_of_other_tasks_is_refused(tmp_path):
    tasks, summary, runs = study(2, 2, 2)
    with pytest.raises(ValueError, match="problem has no task 'right', which the summary has"):
        write(tmp_path, (tasks[:1], summary, runs))
    with pytest.raises(ValueError, match="summary has no task 'more', which the problem has"):
        write(tmp_path, ([*tasks, replace(tasks[0], name="more")], summary, runs))


def test_an_unknown_metric_is_named(tmp_path):
    tasks, summary, runs = study(2, 2, 2)
    with pytest.raises(ValueError, match="'left' is judged by 'glory', which is not one of"):
        write(tmp_path, ([replace(tasks[0], metric="glory"), tasks[1]], summary, runs))


def test_a_cell_shows_each_seed_and_leads_to_the_runs_of_its_task(usual):
    _, summary, runs = study()
    tags = Page(usual).tags
    hints = [attrs["title"] for tag, attrs in tags if tag == "a" and "title" in attrs]
    for run in runs:
        assert any(f"{run.seed}: {numbers.measure(run.test['left'])}" in hint.split("\n") for hint in hints)
    assert len([1 for _, attrs in tags if attrs.get("id", "").startswith("cell-")]) == len(summary.arms) * 4


def test_a_seed_that_enters_no_mean_has_no_delta_m():
    tasks, summary, runs = study(2, 3, 2)
    del summary.arms[1].by_seed[1]
    of_sum = run_list.section(tasks, summary, runs, "")[1]
    assert of_sum["seeds"] == [0, 1, 2]
    assert [math.isnan(value) for value in of_sum["delta_m"]] == [False, True, False]


def test_every_run_has_its_folder_and_the_command_that_repeats_it(tmp_path):
    made = study(2, 2, 2)
    given = provenance_of() | {"folder": "my runs/a"}
    text = Page(write(tmp_path, made, provenance=given).read_text(encoding="utf-8")).text
    for run in made[2]:
        assert f"motet repro 'my runs/a/runs/{run.provenance['id']}'" in text


def test_without_a_folder_there_is_no_command(usual):
    assert "motet repro" not in Page(usual).text


def test_a_study_that_runs_gets_no_verdict(tmp_path):
    made = study(3, 3, 2)
    text = Page(write(tmp_path, made, running=State(37, 64, 740.0)).read_text(encoding="utf-8")).text
    assert "Running: 37 of 64 runs , about 12\u202fmin left" in text
    assert "No verdict yet" in text
    assert made[1].verdict.headline not in text
    unknown = Page(write(tmp_path, made, running=State(0, 9, float("nan"), what=TUNING)).read_text("utf-8")).text
    assert "Running: 0 of 9 trials and runs . This page" in unknown


def test_a_refused_verdict_is_called_none(tmp_path):
    tasks, summary, runs = study(3, 6, 2)
    refused = replace(summary, verdict=replace(summary.verdict, decision="UNDECIDED", refused=True))
    page = write(tmp_path, (tasks, refused, runs)).read_text(encoding="utf-8")
    assert '<h2 id="verdict">NO VERDICT</h2>' in page


def test_what_could_have_been_shown_is_on_the_card_and_in_the_table(tmp_path):
    tasks, summary, runs = study(3, 6, 2)
    assert summary.verdict.arm != "stl"
    arms = [replace(arm, mde_sum=2.345) if arm.arm not in ("stl", "sum") else arm for arm in summary.arms]
    text = Page(write(tmp_path, (tasks, replace(summary, arms=arms), runs)).read_text(encoding="utf-8")).text
    assert "Smallest gain it could show 2.3 points" in re.sub(r"\s+", " ", text)
    arms = [replace(arm, mde_sum=math.inf) if arm.arm not in ("stl", "sum") else arm for arm in summary.arms]
    text = Page(write(tmp_path, (tasks, replace(summary, arms=arms), runs)).read_text(encoding="utf-8")).text
    assert "Smallest gain it could show none too few seeds" in re.sub(r"\s+", " ", text)


def test_more_than_five_reasons_are_folded_but_there(tmp_path):
    tasks, summary, runs = study(2, 2, 2)
    many = replace(summary.verdict, reasons=[f"reason number {i}" for i in range(9)])
    page = write(tmp_path, (tasks, replace(summary, verdict=many), runs)).read_text(encoding="utf-8")
    assert "4\u00a0more things to know" in Page(page).text
    assert all(reason in page for reason in many.reasons)


def test_health_counts_runs_and_names_tasks_without_results():
    tasks, _, runs = study(2, 3, 2, epochs=4)
    bad = replace(runs[-1], test=runs[-1].test | {"left": math.nan}, warnings=[Notice("broke down", "it did")])
    half = [Weights(row.step, {"right": 1.0}) if i % 2 else row for i, row in enumerate(bad.weights)]
    found = health.section(tasks, [*runs[:-1], replace(bad, weights=half)])
    counts = {row["arm"]: (row["runs"], row["counts"]["broke down"], row["nothing"]) for row in found["arms"]}
    assert counts == {"stl": (3, 0, 0), "sum": (3, 1, 1)}
    left = next(iter(found["troubled"]))
    assert left["nothing"] == 1
    absent = sum(i % 2 for i in range(len(half)))
    assert left["absent"] == pytest.approx(absent / sum(len(run.weights) for run in runs))
    assert [row["task"] for row in found["troubled"]] == ["left"]


def test_tuning_shows_what_was_chosen_and_edges(tmp_path):
    tasks, summary, runs = study(3, 2, 2)
    values = {"trial": 3, "learning_rate": 0.0098, "weight_decay": 0.01, "dropout": 0.1}
    of_arm = {
        "stl": {"trials": 8, "epochs": 90, "tasks": {t.name: values | {"learning_rate": 1e-3} for t in tasks}},
        "sum": {"trials": 8, "epochs": 80, **values, "weights": {"left": 1.5, "right": 0.5}},
    }
    tuned = [replace(run, settings=of_arm.get(run.arm, {})) for run in runs]
    found = tuning.section(Tuning(8, 40), tuned)
    assert [(row["arm"], row["task"], row["edge"]) for row in found["rows"]] == [
        ("stl", "left", ""),
        ("stl", "right", ""),
        ("sum", "", "upper"),
    ]
    assert found["untuned"] == ["uw"]
    page = write(tmp_path, (tasks, summary, tuned), tuning=Tuning(8, 40)).read_text(encoding="utf-8")
    text = Page(page).text
    assert "Every arm had 8\u00a0trials of at most 40\u00a0epochs" in text
    assert "weight of left 1.5" in text
    assert "upper edge" in text
    assert "Not tuned: uw." in text
    fewer = [replace(run, settings=run.settings | {"trials": 4}) if run.arm == "sum" else run for run in tuned]
    assert tuning.section(Tuning(8, 40), fewer)["unequal"]
    assert tuning.section(Tuning(8, 40), runs) is None


def test_trade_offs_are_of_the_tasks_that_pull_apart():
    tasks, summary, _ = study(7, 6, 4)
    orders = {
        "left": [1, 2, 3, 4, 5, 6],
        "right": [6, 5, 4, 3, 2, 1],
        "sum": [1, 2, 4, 3, 6, 5],
        "ink": [1, 1, 1, 1, 1, 2],
    }
    arms = [summary.arms[0]]
    for i, arm in enumerate(summary.arms[1:]):
        arms.append(replace(arm, per_task={task: Interval(row[i], row[i], row[i]) for task, row in orders.items()}))
    found = front.section(replace(summary, arms=arms), tasks)
    assert "Trade-off of left and right" in found["figures"][0]
    assert found["front"] == [arm.arm for arm in arms[1:]]  # each is the best in one of left and right, or between
    two = front.section(*[f(study(4, 6, 2)) for f in (lambda s: s[1], lambda s: s[0])])
    assert two["all"]
    assert len(two["figures"]) == 1
    assert front.section(study(2, 6, 2)[1], tasks[:2]) is None


def test_means_over_other_seeds_are_not_called_means_over_the_same(tmp_path, usual):
    assert "means over the same seeds for every arm" in usual
    tasks, summary, runs = study()
    fewer = [replace(arm, seeds=arm.seeds - 1) if i == 2 else arm for i, arm in enumerate(summary.arms)]
    text = write(tmp_path, (tasks, replace(summary, arms=fewer), runs)).read_text(encoding="utf-8")
    assert "the seeds that an arm has, which are not the same for all of them" in text
