"""The page of ``motet select``: complete in one file, safe with any name, and honest about what is not known."""

import re
import warnings
from dataclasses import replace

import numpy as np
import pandas as pd
import pytest

from motet.report.select import write
from motet.selecting import fitting, sentences
from motet.selecting.analysis import analyse
from motet.selecting.options import Select
from motet.selecting.table import open_table
from motet.selecting.terminal import stage
from tests.report.pages import Page, assert_whole

GENES = ["<script>alert(1)</script>", "a & b", "{{ 7 * 7 }}", "数" * 30, "$x$ long " + "name " * 20]
SECTIONS = ["result", "outcomes", "features", "path", "trust", "calibration", "survival", "reading", "provenance"]


def frame(n=48):
    rng = np.random.default_rng(0)
    x = rng.normal(size=(n, 5))
    f = x[:, 0] + x[:, 1]
    table = pd.DataFrame(x, columns=GENES)
    table["<b>age"] = 50 + 8 * f + rng.normal(size=n)
    table["er & co"] = np.where(f + rng.normal(size=n) > 0, "<yes>", "no")
    table["grade"] = np.digitize(f + rng.normal(size=n), [-0.8, 0.8])
    T, C = np.exp(f + rng.normal(size=n)), rng.exponential(4, size=n)
    table["t"], table["e"] = np.minimum(T, C), (T <= C).astype(int)
    return table


@pytest.fixture(scope="module")
def found(tmp_path_factory):
    folder = tmp_path_factory.mktemp("analysis")
    frame().to_csv(folder / "<i>odd.csv", index=False)
    outcomes = ("<b>age:continuous", "er & co:binary", "grade:ordinal", "os:survival=t,e")
    options = Select(folder / "<i>odd.csv", outcomes, folds=2, lambdas=4, stability=2, permutations=1, quiet=True)
    table = open_table(options.table, options.outcome)
    real = fitting.estimator
    with pytest.MonkeyPatch.context() as patch, warnings.catch_warnings():
        small = {"max_iter": 4, "hidden_shared": 3, "hidden_task": (2,)}
        patch.setattr(fitting, "estimator", lambda *given: real(*given).set_params(**small))
        return analyse(table, options, folder, lambda name: stage(name, shown=False), bar=False)


@pytest.fixture(scope="module")
def page(found, tmp_path_factory):
    path = write(tmp_path_factory.mktemp("page") / "report.html", found, "motet select <x>")
    return path.read_text(encoding="utf-8")


def test_the_page_is_well_formed_and_refers_to_nothing_outside(page):
    assert_whole(page)


def test_every_section_is_there_in_order(page):
    assert [id_ for id_ in Page(page).ids if id_ in SECTIONS] == SECTIONS


def test_names_are_text_and_stand_whole(page, found):
    text = Page(page).text
    for name in [*(one.name for one in found.outcomes), *found.selected, *(found.stable or [])]:
        assert name.strip() in text
    assert "<b>age" not in page
    assert "<i>odd" not in page
    assert "<yes>" not in page
    assert "49" not in text.split()


def test_colours_follow_the_page_into_the_dark(page):
    drawn = "".join(re.findall(r"<svg.*?</svg>", page, re.DOTALL))
    assert not re.findall(r"(?:fill|stroke): ?#[0-9a-f]+", drawn)


def test_there_is_a_figure_for_each_thing(page):
    titles = re.findall(r'<title id="([\w-]+)-title">', page)
    assert titles == ["path", "cv", "stability", *(f"calibration-{i}" for i in range(4)), "survival-0"]


def test_the_figures_of_the_results_are_on_the_page(page, found):
    text = Page(page).text
    for one in found.outcomes:
        assert f"{one.concordance:.3f}" in text
    assert sentences.headline(found) in text
    assert "motet select <x>" in text


def test_options_that_a_note_names_are_not_broken(found, tmp_path):
    without = replace(found, stability=None, stability_display=None, control=None,
                      features=found.features.drop(columns=["stable", "probability", "standard_error"]))  # fmt: skip
    page = write(tmp_path / "a.html", without).read_text(encoding="utf-8")
    assert 'id="trust"' not in page
    assert '<code class="whole">--stability 50</code>' in page


def test_an_empty_model_and_an_interruption_are_said(found, tmp_path):
    features = found.features.assign(selected=False, stable=False)
    text = Page(write(tmp_path / "a.html", replace(found, features=features, unfinished="permuted outcomes")).read_text(
        encoding="utf-8")).text  # fmt: skip
    assert "None of 5 features is selected" in text
    assert "No feature is in the model." in text
    assert "INTERRUPTED" in text
    assert "--resume" in text


def test_what_a_reader_must_mind_is_said(found):
    few = replace(found.outcomes[3], rare=4, concordance=0.52, standard_error=0.03)
    said = " ".join(sentences.cautions(replace(found, outcomes=(few,))))
    assert "os has 4 events" in said
    assert "os is not clearly predicted better than by chance: concordance 0.52 ± 0.03" in said
    wide = replace(found, predictions=found.predictions.head(3))
    assert "There are 5 features and 3 rows" in " ".join(sentences.cautions(wide))
    assert "Rely on stable ones and on a second cohort" in " ".join(sentences.cautions(wide))
