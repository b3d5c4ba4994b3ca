"""Krum, the trimmed mean, random and constant weights."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor
from torch.testing import assert_close

from motet.linalg import gram as gram_of
from motet.methods import RLW, AutoScale, CAGrad, Constant, FairGrad, Krum, Random, TrimmedMean
from motet.testing import check_method
from tests.matrices import jacobian, jacobians

NAMES = ["krum", "trimmed-mean", "random", "constant"]
OTHERS = [
    lambda: Krum(n_byzantine=2, n_selected=3),
    lambda: Krum(n_byzantine=1),
    lambda: TrimmedMean(trim=2),
    lambda: TrimmedMean(trim=0),
]


@pytest.mark.parametrize("name", NAMES)
def test_defaults_keep_what_motet_relies_on(name):
    check_method(name)


@pytest.mark.parametrize("make", OTHERS)
def test_other_options_keep_it_too(make):
    check_method(make)


# Krum


def brute_krum(rows: Tensor, faulty: int, selected: int, power: int = 2) -> Tensor:
    """Weights by the definition, loop by loop. For scores without ties."""
    scores = []
    for i, row in enumerate(rows):
        others = sorted(float((row - other).norm() ** power) for j, other in enumerate(rows) if j != i)
        scores.append(sum(others[: len(rows) - faulty - 2]))
    best = sorted(range(len(rows)), key=scores.__getitem__)[:selected]
    return torch.tensor([1 / selected if i in best else 0.0 for i in range(len(rows))], dtype=rows.dtype)


@given(st.integers(0, 1000), st.integers(0, 2), st.integers(1, 4))
def test_krum_selects_by_its_definition(seed, faulty, selected):
    rows = jacobian("weak", faulty + 4, seed)
    expected = brute_krum(rows, faulty, min(selected, len(rows)))
    assert_close(Krum(faulty, selected).weights(gram_of(rows)), expected)


@pytest.mark.parametrize("selected", [1, 3])
def test_krum_is_torchjd_s_where_squaring_the_distances_selects_the_same(selected):
    aggregation = pytest.importorskip("torchjd.aggregation")
    compared = 0
    for seed in range(20):
        rows = jacobian("weak", 7, seed)
        peer = aggregation.Krum(n_byzantine=1, n_selected=selected)(rows)
        assert_close(peer, brute_krum(rows, 1, selected, power=1) @ rows)
        if torch.equal(brute_krum(rows, 1, selected, power=1), brute_krum(rows, 1, selected)):
            compared += 1
            assert_close(Krum(1, selected).direction(rows), peer)
    assert compared >= 10


def test_krum_leaves_an_outlier_out_however_large():
    rows = torch.ones(5, 3, dtype=torch.float64) + 0.01 * jacobian("weak", 5, 0)[:, :3]
    rows[3] = -1e6
    for selected in (1, 2, 4):
        assert Krum(n_byzantine=1, n_selected=selected).weights(gram_of(rows))[3] == 0


@pytest.mark.parametrize("tasks", [1, 2, 3, 4])
def test_krum_has_an_answer_with_fewer_tasks_than_its_guarantee_needs(tasks):
    weights = Krum(n_byzantine=3, n_selected=6).weights(gram_of(jacobian("weak", tasks, 0)))
    assert_close(weights, torch.full((tasks,), 1 / tasks, dtype=torch.float64))


def test_gradients_of_equal_score_share_the_weight():
    rows = torch.tensor([[0.0], [1.0], [10.0]], dtype=torch.float64)
    # One neighbour counts; 0 and 1 are each other's nearest.
    assert_close(Krum(n_byzantine=1).weights(gram_of(rows)), torch.tensor([0.5, 0.5, 0.0], dtype=torch.float64))
    assert_close(Krum(1, 2).weights(gram_of(rows)), torch.tensor([0.5, 0.5, 0.0], dtype=torch.float64))


# Trimmed mean


@given(jacobians(tasks=(3, 6)))
def test_the_trimmed_mean_is_the_mean_of_what_is_left_in_each_column(matrix):
    expected = torch.stack([torch.tensor(sorted(column.tolist())[1:-1]).double().mean() for column in matrix.T])
    assert_close(TrimmedMean(1).direction(matrix), expected, rtol=1e-6, atol=1e-9)


def test_the_trimmed_mean_is_torchjd_s():
    aggregation = pytest.importorskip("torchjd.aggregation")
    for trim in (0, 1, 2):
        rows = jacobian("strong", 6, trim)
        assert_close(TrimmedMean(trim).direction(rows), aggregation.TrimmedMean(trim)(rows))


@pytest.mark.parametrize("tasks", [1, 2, 3, 4])
def test_the_trimmed_mean_of_too_few_tasks_is_the_median(tasks):
    rows = jacobian("weak", tasks, 0)
    expected = torch.quantile(rows, 0.5, dim=0)
    assert_close(TrimmedMean(5).direction(rows), expected)


def test_the_trimmed_mean_is_the_same_in_blocks(monkeypatch):
    rows = jacobian("weak", 5, 0)
    expected = TrimmedMean().direction(rows)
    monkeypatch.setattr("motet.methods.trimmed_mean._BLOCK", 4)
    assert torch.equal(TrimmedMean().direction(rows), expected)


# Random and constant weights


def test_random_weights_draw_as_torchjd_s_and_rlw_do():
    aggregation = pytest.importorskip("torchjd.aggregation")
    rows = jacobian("weak", 4, 0).float()
    torch.manual_seed(5)
    expected = aggregation.RandomWeighting()(rows)
    assert_close(Random(torch.Generator().manual_seed(5)).weights(gram_of(rows)), expected.double(), rtol=1e-6, atol=0)
    twin = RLW(torch.Generator().manual_seed(5)).weights(torch.ones(4))
    assert_close(Random(torch.Generator().manual_seed(5)).known_weights(torch.ones(4)), twin)


def test_random_weights_differ_from_step_to_step():
    method = Random(torch.Generator().manual_seed(0))
    assert not torch.equal(method.known_weights(torch.ones(4)), method.known_weights(torch.ones(4)))


def test_constant_weights_are_known_before_any_gradient():
    method = Constant([1.0, 0.0, -2.0])
    expected = torch.tensor([1.0, 0.0, -2.0], dtype=torch.float64)
    assert torch.equal(method.known_weights(torch.rand(3)), expected)
    assert torch.equal(method.weights(torch.eye(3)), expected)
    assert torch.equal(Constant().known_weights(torch.rand(3)), torch.ones(3, dtype=torch.float64))


def test_constant_weights_are_those_of_the_present_tasks():
    method = Constant([1.0, 2.0, 3.0])
    with method.on_tasks(torch.tensor([0, 2]), 3):
        assert method.known_weights(torch.rand(2)).tolist() == [1.0, 3.0]


def test_constant_weights_are_torchjd_s():
    aggregation = pytest.importorskip("torchjd.aggregation")
    rows = jacobian("weak", 3, 0)
    peer = aggregation.Constant(torch.tensor([1.0, 2.0, 3.0], dtype=torch.float64))
    assert_close(Constant([1, 2, 3]).direction(rows), peer(rows))


def test_as_many_constants_as_tasks():
    with pytest.raises(ValueError, match="2 values, one a task, and there are 3"):
        Constant([1.0, 2.0]).weights(torch.eye(3))


def test_options_show_in_the_repr_of_constant():
    assert repr(Constant([1, 2])) == "Constant(weights=(1.0, 2.0))"


@pytest.mark.parametrize(
    ("cls", "options", "named"),
    [
        (Krum, {"n_byzantine": -1}, "n_byzantine"),
        (Krum, {"n_byzantine": 1.5}, "n_byzantine of Krum .* at least 0"),
        (Krum, {"n_selected": True}, "n_selected of Krum .* at least 1"),
        (TrimmedMean, {"trim": 1.5}, "trim of TrimmedMean .* at least 0"),
        (AutoScale, {"probe": True}, "probe of AutoScale .* at least 1"),
        (Constant, {"weights": []}, "weights of Constant"),
        (FairGrad, {"alpha": float("inf")}, "alpha .* FairGrad .* finite"),
        (CAGrad, {"c": float("inf")}, "CAGrad.* finite"),
        (Krum, {"n_selected": 0}, "n_selected"),
        (TrimmedMean, {"trim": -1}, "trim"),
        (Constant, {"weights": [1.0, float("nan")]}, "weights"),
    ],
)
def test_an_option_out_of_range_is_named(cls, options, named):
    with pytest.raises(ValueError, match=named):
        cls(**options)
