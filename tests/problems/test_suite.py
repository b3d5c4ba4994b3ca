"""The problems of the suite on tiny packages of the real layout, and what is particular to each."""

import subprocess
from dataclasses import replace
from functools import partial

import numpy as np
import pytest
import torch

from motet import problems
from motet.problems import DataError, Package, bikeshare, census, chemicals, multi_mnist, reviews, support2
from motet.problems.base import Training
from motet.testing import check_problem
from tests.problems.suite_wheels import (
    bikeshare_wheel,
    census_source,
    chemicals_wheel,
    mnist_wheel,
    pack_source,
    reviews_wheel,
    support2_wheel,
)

PACKAGES = {
    "support2": (support2, support2_wheel),
    "bikeshare": (bikeshare, bikeshare_wheel),
    "census": (census, census_source),
    "chemicals": (chemicals, chemicals_wheel),
    "reviews": (reviews, reviews_wheel),
    "multi-mnist": (multi_mnist, mnist_wheel),
}
ROWS = {
    "support2": (9105, 6),
    "bikeshare": (8645, 2),
    "census": (60_000, 4),
    "chemicals": (20_903, 12),
    "reviews": (8000, 6),
    "multi-mnist": (6500, 2),
}


@pytest.fixture
def tiny(tmp_path, monkeypatch):
    """A problem on its tiny package, whose digest is checked as always."""
    monkeypatch.setenv("MOTET_DATA", str(tmp_path))
    monkeypatch.setattr(multi_mnist, "PAIRS", (80, 30, 30))

    def make(name):
        module, package = PACKAGES[name]
        return replace(module.PROBLEM, load=partial(module.load, package=package(tmp_path)))

    return make


@pytest.mark.parametrize("name", PACKAGES)
def test_conforms_on_small_files_of_the_same_layout(name, tiny):
    check_problem(tiny(name))


@pytest.mark.parametrize("name", ROWS)
def test_has_the_rows_and_tasks_that_are_claimed_on_the_real_files(name):
    problem = problems.get(name)
    if not problem.package.is_fetched():
        pytest.skip(f"`motet problems fetch {name}` was not run: tests use no network")
    data = problem.load(0)
    rows = len(data.train) + len(data.validation) + len(data.test)
    assert (rows, len(data.tasks)) == ROWS[name]


def test_outcomes_and_predictions_of_other_models_are_no_features_of_patients():
    outcomes = (
        "death hospdead slos d.time charges totcst totmcst avtisst aps sps surv2m surv6m prg2m prg6m dnr dnrday sfdm2"
    )
    assert not set(support2.FEATURES) & set(outcomes.split())


def test_missing_charges_are_missing_labels(tiny):
    data = tiny("support2").load(0)
    labels = [part.targets["charges"] for part in (data.train, data.validation, data.test)]
    assert sum(int(part.isnan().sum()) for part in labels) == 17


def test_no_day_of_bicycles_is_in_two_parts(tiny):
    data = tiny("bikeshare").load(0)
    days = [set(part.targets["casual"].tolist()) for part in (data.train, data.validation, data.test)]
    assert not days[0] & days[1]
    assert not days[0] & days[2]
    assert not days[1] & days[2]
    assert sum(map(len, days)) == 40


def test_the_official_test_rows_of_the_census_stay_test_rows(tiny):
    """Ages are row numbers, those of the official test file being the larger ones."""
    data = tiny("census").load(3)
    ages = [part.inputs[:, 0] for part in (data.train, data.validation, data.test)]
    assert [len(part) for part in ages] == [160, 40, 200]
    assert max(ages[0].max(), ages[1].max()) < ages[2].min()


def test_test_rows_of_the_census_are_the_same_for_all_seeds(tiny, monkeypatch):
    monkeypatch.setattr(census, "ROWS", 100)
    problem = tiny("census")
    one, other = (problem.load(seed).test.targets["weeks_worked"] for seed in (0, 1))
    # Standardised on training rows that differ: the same up to shift and scale.
    assert torch.corrcoef(torch.stack([one.double(), other.double()]))[0, 1] > 1 - 1e-6


def test_labels_and_the_columns_that_tell_them_are_no_features_of_the_census():
    assert not {4, 7, 24, 39, 41} & {*census._NUMBERS, *census._CATEGORIES}


def test_molecules_are_joined_however_their_number_is_written(tiny):
    data = tiny("chemicals").load(0)
    labels = torch.stack(
        [torch.cat([p.targets[t.name] for p in (data.train, data.validation, data.test)]) for t in data.tasks]
    )
    known = ~labels.isnan()
    # Each of twelve tables has half of the molecules: if numbers did not match, none would have labels of many.
    assert known.sum(dim=0).max() >= 8
    assert known.sum(dim=0).min() >= 1
    assert 110 <= known.shape[1] <= 115  # The last five of 120 have no structure.


def test_pieces_of_smiles_are_counted():
    counts = chemicals.pieces("CCO")
    assert counts.sum() == 3 + 2 + 1
    assert counts[chemicals.zlib.crc32(b"C") % 512] >= 2


def test_words_of_test_reviews_do_not_change_those_of_training():
    train = np.array(["soft blue dress", "soft red dress", "blue red top", "soft top dress"] * 3, dtype=object)
    one = reviews.embed((train, train[:2], np.array(["soft dress"] * 9, dtype=object)))
    other = reviews.embed((train, train[:2], np.array(["zebra quartz", "red"], dtype=object)))
    np.testing.assert_array_equal(one[0], other[0])
    np.testing.assert_allclose(other[2][0], 0, atol=1e-12)


def test_reviews_that_stand_twice_or_are_empty_are_dropped(tiny):
    data = tiny("reviews").load(0)
    assert len(data.train) + len(data.validation) + len(data.test) == 198


def test_features_of_a_seed_are_kept_apart_from_those_of_another(tiny, tmp_path):
    problem = tiny("reviews")
    problem.load(0)
    problem.load(1)
    assert len(list(tmp_path.glob("reviews-*.npz"))) == 2
    next(tmp_path.glob("reviews-*-0.npz")).write_bytes(b"half")
    with pytest.raises(DataError, match="'reviews' are damaged: .*delete it"):
        problem.load(0)
    problem.load(1)


def test_no_source_digit_is_in_two_parts(tiny):
    """The upper rows show the left digit alone: they identify the source image."""
    data = tiny("multi-mnist").load(0)
    sources = [
        {image.numpy().tobytes() for image in p.inputs[:, 0, :8, :28]} for p in (data.train, data.validation, data.test)
    ]
    assert not sources[0] & sources[2]
    assert not sources[0] & sources[1]
    assert len(sources[0]) > 40


def test_the_brighter_pixel_wins_and_the_right_digit_lies_lower():
    canvas = multi_mnist.overlay(np.full((1, 28, 28), 10, np.uint8), np.full((1, 28, 28), 200, np.uint8))[0]
    assert canvas.shape == (36, 36)
    assert canvas[0, 0] == 10
    assert canvas[8, 8] == canvas[35, 35] == 200
    assert canvas[0, 35] == canvas[35, 0] == 0


def test_width_depth_and_dropout_reach_the_convolutional_trunk():
    trunk = multi_mnist.convolutions(torch.zeros(2, 1, 36, 36), Training(width=17, depth=2, dropout=0.5))
    assert trunk(torch.zeros(3, 1, 36, 36)).shape == (3, 17)
    assert sum(isinstance(module, torch.nn.Dropout) for module in trunk.modules()) == 2


@pytest.fixture
def index(tmp_path, monkeypatch):
    """A folder that pip takes for its index; the cache is empty, and setuptools is taken from this environment."""
    pytest.importorskip("setuptools")
    monkeypatch.setenv("MOTET_DATA", str(tmp_path / "cache"))
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    monkeypatch.setenv("PIP_FIND_LINKS", str(tmp_path / "index"))
    monkeypatch.setenv("PIP_NO_BUILD_ISOLATION", "0")
    monkeypatch.setenv("PIP_DISABLE_PIP_VERSION_CHECK", "1")
    return tmp_path / "index"


SOURCE = Package("demo", "demo-data", "1.2", "demo-data-1.2.tar.gz", "", 0)


def test_a_source_distribution_is_fetched_and_its_members_are_read_in_the_order_asked(index):
    package = pack_source(index, SOURCE, {"b.csv": b"2", "a.csv": b"1"})
    assert package.fetch() == package.path
    assert package.read("a.csv", "b.csv") == [b"1", b"2"]
    assert [path.name for path in package.path.parent.iterdir()] == [package.file]


def test_the_setup_of_a_source_distribution_with_another_digest_is_never_run(index, tmp_path):
    trace = tmp_path / "it ran"
    pinned = pack_source(tmp_path / "elsewhere", SOURCE, {"a.csv": b"1"})
    pack_source(index, SOURCE, {"a.csv": b"1"}, setup=f"open({str(trace)!r}, 'w').close()\n")
    with pytest.raises(DataError, match="pip could not download demo-data 1.2 for problem 'demo': .*HASHES"):
        pinned.fetch()
    assert not trace.exists()


def test_a_member_that_a_source_distribution_lacks_is_named(index):
    package = pack_source(index, SOURCE, {"a.csv": b"1"})
    package.fetch()
    with pytest.raises(KeyError, match=r"no item named 'c\.csv'"):
        package.read("c.csv")


def test_a_wheel_is_asked_for_without_a_file_of_requirements(index, monkeypatch):
    seen = []
    monkeypatch.setattr(
        subprocess, "run", lambda command, **_: seen.append(command) or subprocess.CompletedProcess([], 1, "", "")
    )
    with pytest.raises(DataError):
        support2.PACKAGE.fetch()
    assert "--only-binary" in seen[0]
    assert "--requirement" not in seen[0]
