"""Every problem keeps the promises of `check_problem`, and what is particular to it."""

import sys
from dataclasses import replace
from functools import partial

import numpy as np
import pytest
import torch

from motet import problems
from motet.problems import DataError, digits_overlay, pbmc, qm9_mini, yeast
from motet.testing import check_problem
from tests.problems.wheels import pbmc_wheel, qm9_wheel, yeast_wheel

WHEELS = {"yeast": (yeast, yeast_wheel), "pbmc": (pbmc, pbmc_wheel), "qm9-mini": (qm9_mini, qm9_wheel)}
SHAPES = {"yeast": (103, 14, 2417), "pbmc": (765, 6, 700), "qm9-mini": (104, 8, 5000)}


def fixture_problem(name, folder, monkeypatch):
    """The problem on a tiny wheel; the digest is the tiny wheel's, so the check of it runs as always."""
    monkeypatch.setenv("MOTET_DATA", str(folder))
    module, wheel = WHEELS[name]
    return replace(module.PROBLEM, load=partial(module.load, package=wheel(folder)))


@pytest.mark.parametrize("name", WHEELS)
def test_fetched_problems_conform_on_small_files_of_the_same_layout(name, tmp_path, monkeypatch):
    check_problem(fixture_problem(name, tmp_path, monkeypatch))


@pytest.mark.parametrize("name", SHAPES)
def test_fetched_problems_conform_on_the_real_files(name):
    problem = problems.get(name)
    if not problem.package.is_fetched():
        pytest.skip(f"`motet problems fetch {name}` was not run: tests use no network")
    check_problem(problem)
    data = problem.load(0)
    features, tasks, rows = SHAPES[name]
    assert data.train.inputs.shape[1] == features
    assert len(data.tasks) == tasks
    assert len(data.train) + len(data.validation) + len(data.test) == rows


def test_the_digits_conform():
    problem = problems.get("digits")
    check_problem(problem)
    data = problem.load(0)
    assert [len(part) for part in (data.train, data.validation, data.test)] == [6000, 1000, 1500]


@pytest.mark.parametrize("corner", [np.s_[:, :4, :8], np.s_[:, 8:, 4:]], ids=["left", "right"])
def test_no_source_digit_is_in_two_parts(corner):
    """The upper rows show the left digit alone and the lower ones the right: they identify the source image."""
    data = problems.get("digits").load(0)
    sources = [{image.numpy().tobytes() for image in part.inputs[corner]} for part in (data.train, data.test)]
    assert len(sources[0]) > 1000
    assert not sources[0] & sources[1]


def test_the_derived_digit_targets_are_what_they_say():
    data = problems.get("digits").load(0)
    targets = data.test.targets
    total = (targets["left"] + targets["right"]).double()
    assert torch.corrcoef(torch.stack([total, targets["sum"].double()]))[0, 1] > 1 - 1e-6
    ink = data.test.inputs.sum((1, 2)).double()
    assert torch.corrcoef(torch.stack([ink, targets["ink"].double()]))[0, 1] > 1 - 1e-6


def test_the_brighter_pixel_wins_in_the_overlap():
    dark, bright = np.full((1, 8, 8), 0.25), np.full((1, 8, 8), 0.75)
    canvas = digits_overlay.overlay(dark, bright)[0]
    assert canvas[0, 0] == 0.25
    assert canvas[5, 5] == canvas[11, 11] == 0.75
    assert canvas[0, 11] == 0


def test_pbmc_has_every_cell_type_in_every_part(tmp_path, monkeypatch):
    data = fixture_problem("pbmc", tmp_path, monkeypatch).load(3)
    for part in (data.train, data.validation, data.test):
        assert part.targets["cell_type"].unique().tolist() == list(range(10))


def test_pbmc_without_h5py_says_what_to_install(monkeypatch):
    monkeypatch.setitem(sys.modules, "h5py", None)
    with pytest.raises(ImportError, match=r"'pbmc' is an HDF5 file and needs h5py: run `pip install 'motet\[pbmc\]'`"):
        pbmc.load(0)


def test_molecules_look_the_same_however_they_are_turned_or_listed():
    generator = np.random.default_rng(0)
    charges, positions = np.array([6.0, 6, 8, 1, 1, 7]), generator.normal(0, 2, (6, 3))
    turn, _ = np.linalg.qr(generator.normal(size=(3, 3)))
    order = generator.permutation(6)
    features = qm9_mini.featurise(charges, positions)
    assert features.shape == (104,)
    np.testing.assert_allclose(features, qm9_mini.featurise(charges[order], (positions @ turn + 5)[order]), atol=1e-9)


def test_water_has_two_bonds_of_hydrogen_to_oxygen():
    water = qm9_mini.featurise(np.array([8.0, 1, 1]), np.array([[0.0, 0, 0], [0.96, 0, 0], [-0.24, 0.93, 0]]))
    assert water[29:34].tolist() == [2, 0, 0, 1, 0]
    assert water[34:].sum() == 2
    assert water[34 + 7 * qm9_mini._PAIRS.index((1, 8))] == 2


def test_the_cut_of_qm9_is_made_once_and_needs_the_package_no_more(tmp_path, monkeypatch):
    problem = fixture_problem("qm9-mini", tmp_path, monkeypatch)
    first = problem.load(0)
    (tmp_path / qm9_mini.PACKAGE.file).unlink()
    assert torch.equal(problem.load(0).test.inputs, first.test.inputs)


def test_a_damaged_cut_of_qm9_is_named_with_its_fix(tmp_path, monkeypatch):
    problem = fixture_problem("qm9-mini", tmp_path, monkeypatch)
    problem.load(0)
    (cut,) = tmp_path.glob("*.npz")
    cut.write_bytes(cut.read_bytes()[:1000])
    with pytest.raises(DataError, match=r"'qm9-mini' are damaged: .*\.npz can't be read.*delete it"):
        problem.load(0)
    cut.unlink()
    problem.load(0)
