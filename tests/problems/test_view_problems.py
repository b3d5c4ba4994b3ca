"""Problems with several views or bags keep the promises of `check_problem`, and what is particular to each."""

import pickle
from dataclasses import replace
from functools import partial

import numpy as np
import pytest
import torch

from motet import problems
from motet.nn.bag import Bag
from motet.problems import DataError, icons, mfeat, mnist_bags, musk, registry
from motet.problems.frames import read_frame
from motet.problems.texts import hashed
from motet.testing import check_problem
from tests.problems.view_wheels import WHEELS

SHAPES = {
    "mfeat": ({"fou": 76, "fac": 216, "kar": 64, "pix": 240, "zer": 47}, 7, 2000),
    "yeast-views": ({"expression": 79, "phylogeny": 24}, 14, 2417),
    "musk": ({"distances": 162, "oxygen": 4}, 2, 194),
    "ucsb": ({"patches": 708}, 1, 58),
    "birds": ({"segments": 38}, 1, 548),
    "mnist-bags": ({"digits": 784}, 3, 1750),
    "icons": ({"solid": 576, "outline": 576, "words": 512}, 35, 1395),
    "movies": ({"title": 512, "facts": 5}, 9, 12_000),
}


def fixture_problem(name, folder, monkeypatch):
    monkeypatch.setenv("MOTET_DATA", str(folder))
    module = __import__(f"motet.problems.{name.replace('-', '_')}", fromlist=["load"])
    return replace(module.PROBLEM, load=partial(module.load, package=WHEELS[name](folder)))


@pytest.mark.parametrize("name", WHEELS)
def test_problems_conform_on_small_files_of_the_same_layout(name, tmp_path, monkeypatch):
    check_problem(fixture_problem(name, tmp_path, monkeypatch))


@pytest.mark.parametrize("name", SHAPES)
def test_problems_have_the_known_shape_on_the_real_files(name):
    problem = registry.get(name)
    if not problem.package.is_fetched():
        pytest.skip(f"`motet problems fetch {name}` was not run: tests use no network")
    data = problem.load(0)
    widths, tasks, rows = SHAPES[name]
    assert data.train.inputs.widths == widths
    assert len(data.tasks) == tasks
    assert len(data.train) + len(data.validation) + len(data.test) == rows


def test_the_properties_of_digits_follow_from_the_digit(tmp_path, monkeypatch):
    targets = fixture_problem("mfeat", tmp_path, monkeypatch).load(0).train.targets
    digit = targets["digit"]
    assert torch.equal(targets["odd"], (digit % 2).float())
    assert torch.equal(targets["five_or_more"], (digit > 4).float())
    assert set(digit[targets["loop"] == 1].tolist()) == {0, 6, 8, 9}
    assert set(mfeat.HIERARCHY.values()) == {"digit"}


def test_the_two_views_of_yeast_are_the_columns_of_the_one(tmp_path, monkeypatch):
    data = fixture_problem("yeast-views", tmp_path, monkeypatch).load(1)
    package = WHEELS["yeast-views"](tmp_path)
    whole = problems.yeast.load(1, package)
    views = data.test.inputs.views
    torch.testing.assert_close(torch.cat([views["expression"], views["phylogeny"]], 1), whole.test.inputs)
    assert torch.equal(data.test.targets["class3"], whole.test.targets["class3"])


def test_each_molecule_has_a_label_of_its_own_set_only(tmp_path, monkeypatch):
    data = fixture_problem("musk", tmp_path, monkeypatch).load(0)
    labelled = torch.stack([~target.isnan() for target in data.train.targets.values()]).sum(0)
    assert (labelled == 1).all()


def test_bags_that_are_each_others_nearest_are_paired():
    first = Bag.of([torch.tensor([[0.0, 0], [5, 5]]), torch.tensor([[20.0, 0]]), torch.tensor([[90.0, 0]])])
    second = Bag.of([torch.tensor([[21.0, 0], [70, 0]]), torch.tensor([[5.0, 6]])])
    one, other = musk.pairs(first, second)
    assert (one.tolist(), other.tolist()) == ([0, 1], [1, 0])


def test_pairs_of_the_real_sets_agree_in_their_labels():
    if not musk.PACKAGE.is_fetched():
        pytest.skip("`motet problems fetch musk` was not run: tests use no network")
    (first, labels), (second, others) = (problems.mil.read(musk.PACKAGE, name) for name in ("musk1", "musk2"))
    one, other = musk.pairs(first, second)
    assert len(one) == 73
    assert (labels[one] == others[other]).all()


def test_instance_truth_fits_the_labels_of_the_bags(tmp_path, monkeypatch):
    problem = fixture_problem("mnist-bags", tmp_path, monkeypatch)
    data = problem.load(4)
    package = WHEELS["mnist-bags"](tmp_path)
    for part, digits in zip((data.train, data.validation, data.test), mnist_bags.digits(4, package), strict=True):
        bags = np.split(digits, part.inputs.views["digits"].offsets[1:-1].numpy())
        assert part.targets["nine"].tolist() == [float(9 in bag) for bag in bags]
        assert part.targets["four_and_two"].tolist() == [float(4 in bag and 2 in bag) for bag in bags]
        different = torch.tensor([float(len(set(bag.tolist()))) for bag in bags])
        assert torch.corrcoef(torch.stack([different, part.targets["different"]]))[0, 1] > 1 - 1e-5


def test_no_image_is_in_two_parts(tmp_path, monkeypatch):
    data = fixture_problem("mnist-bags", tmp_path, monkeypatch).load(0)
    parts = [
        {row.tobytes() for row in part.inputs.views["digits"].x.numpy()}
        for part in (data.train, data.validation, data.test)
    ]
    assert not parts[0] & parts[1] | parts[0] & parts[2] | parts[1] & parts[2]


def test_icons_without_an_outline_lack_that_view_and_small_categories_are_no_tasks(tmp_path, monkeypatch):
    data = fixture_problem("icons", tmp_path, monkeypatch).load(0)
    assert [task.name for task in data.tasks] == ["first", "even"]
    missing = data.train.inputs.missing("outline")
    assert missing.any()
    assert not missing.all()
    assert not data.train.inputs.missing("solid").any()


def test_a_line_that_categories_never_have_is_refused():
    assert icons.read_categories("a:\n  icons:\n    - 'n'\n    - cat\n  label: A\n") == {"a": ["n", "cat"]}
    with pytest.raises(DataError, match=r"line 2 .*'  icons: !!python/object"):
        icons.read_categories("a:\n  icons: !!python/object\n")


def test_age_ratings_are_missing_where_the_film_has_none(tmp_path, monkeypatch):
    data = fixture_problem("movies", tmp_path, monkeypatch).load(0)
    assert set(data.train.targets["mpaa"].tolist()) == {-1, 0, 1, 2}


class _Evil:
    def __reduce__(self):
        return print, ("this code ran",)


def test_a_pickle_that_would_run_code_is_refused(capsys):
    with pytest.raises(DataError, match=r"asks for builtins\.print, which no table needs"):
        read_frame(pickle.dumps(_Evil()))
    assert not capsys.readouterr().out


def test_hashed_texts_depend_on_words_alone_and_are_the_same_everywhere():
    one, other, empty = hashed(["Night, of the", "of the night", ""], 64)
    np.testing.assert_array_equal(one, other)
    assert not empty.any()
    # CRC-32 of "a" is 0xE8B7BE43; its one run of letters is "<a>".
    assert hashed(["a"], 1024)[0, 0xE8B7BE43 % 1024] > 0
