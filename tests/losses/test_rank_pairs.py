"""Rank losses: the definition over all pairs, gradients, invariances, and what is refused."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.testing import assert_close

from motet.losses.rank import KINDS, Pairs, function, pairwise_rank_loss
from tests.losses.rank_cases import OUTCOMES, Case, case_of, dense, scores_of, weighted_pairs

EXACT = {"rtol": 1e-10, "atol": 1e-12}


@pytest.fixture(params=["levels", "tiles"])
def way(request, monkeypatch):
    """Both ways of computing a loss, whatever the number of rows."""
    below = 0 if request.param == "levels" else 10**9
    monkeypatch.setattr(function, "DENSE_BELOW", dict.fromkeys(function.FAST, below))


def loss_of(case: Case, f: np.ndarray, kind: str, bandwidth: float):
    scores = torch.tensor(f, requires_grad=True)
    loss = case.pairs().loss(scores, kind, bandwidth)
    loss.backward()
    return loss.item(), scores.grad.numpy()


def check(case: Case, f: np.ndarray, kind: str, bandwidth: float) -> None:
    value, gradient = loss_of(case, f, kind, bandwidth)
    expected, slope, concordance = dense(case, f, kind, bandwidth)
    assert_close(value, expected, **EXACT)
    np.testing.assert_allclose(gradient, slope, rtol=1e-10, atol=1e-12 * max(1.0, np.abs(slope).max()))
    assert_close(case.pairs().concordance(f), concordance, **EXACT)


@pytest.mark.usefixtures("way")
@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("outcome", OUTCOMES)
def test_loss_gradient_and_concordance_are_those_of_the_definition(outcome, kind):
    for seed, (weighted, missing, tied) in enumerate([(False, 0, False), (True, 0.2, False), (True, 0, True)]):
        case = case_of(outcome, 40, seed, weighted=weighted, missing=missing, norm="all" if seed == 1 else "comparable")
        check(case, scores_of(40, seed, tied=tied), kind, (1.0, 0.3, 2.5)[seed])


@settings(max_examples=40, deadline=None)
@given(st.data())
def test_levels_and_tiles_agree_for_any_outcome_scores_and_bandwidth(data):
    n = data.draw(st.integers(3, 90))
    case = case_of(
        data.draw(st.sampled_from(OUTCOMES)),
        n,
        data.draw(st.integers(0, 10**6)),
        weighted=data.draw(st.booleans()),
        missing=data.draw(st.sampled_from([0.0, 0.4])),
    )
    steps = data.draw(st.lists(st.integers(-12, 12), min_size=n, max_size=n))
    scores = torch.tensor(steps, dtype=torch.float64) / data.draw(st.sampled_from([1, 2, 3, 4, 7]))
    bandwidth = data.draw(st.sampled_from([1e-6, 0.1, 0.5, 1.0, 2.0, 100.0]))
    rows = case.pairs().rows
    x = scores[rows.index] / bandwidth
    for kind, fast in function.FAST.items():
        if kind == "exponential" and bandwidth < 0.1:
            continue  # overflows in float64
        value, gradient = fast(rows, x)
        expected, slope = function.blocked(rows, x, kind)
        assert_close(value, expected, rtol=1e-10, atol=1e-10 * rows.pair_weight)
        if kind != "drelu" or not ((x[:, None] - x).abs() == 0.5).any():  # a kink has no one slope
            assert_close(gradient, slope, rtol=1e-10, atol=1e-10 * max(1.0, float(slope.abs().max())))


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("outcome", ["continuous", "ordinal", "uno"])
def test_both_ways_agree_over_several_levels_and_tiles(outcome, kind, monkeypatch):
    case = case_of(outcome, 1500, 3, weighted=True, missing=0.1)
    f = scores_of(1500, 3)
    results = []
    for below in (0, 10**9):
        monkeypatch.setattr(function, "DENSE_BELOW", dict.fromkeys(function.FAST, below))
        results.append(loss_of(case, f, kind, 0.7))
    assert_close(results[0][0], results[1][0], **EXACT)
    assert_close(results[0][1], results[1][1], rtol=1e-10, atol=1e-13)


@pytest.mark.usefixtures("way")
@pytest.mark.parametrize("kind", KINDS)
def test_the_gradient_is_that_of_finite_differences(kind):
    case = case_of("uno", 60, 5, weighted=True)
    f = scores_of(60, 5)
    _, gradient = loss_of(case, f, kind, 0.8)
    pairs = case.pairs()
    for row in range(0, 60, 7):
        step = np.zeros(60)
        step[row] = 1e-6
        rise = pairs.loss(torch.tensor(f + step), kind, 0.8) - pairs.loss(torch.tensor(f - step), kind, 0.8)
        assert abs(rise.item() / 2e-6 - gradient[row]) < 1e-8


@pytest.mark.parametrize("kind", ["drelu", "epanechnikov"])
def test_small_bandwidths_lose_no_digits(kind):
    # Scores up to 10⁵ bandwidths apart with groups of near neighbours: moments of x itself would cancel.
    rng = np.random.default_rng(0)
    f = np.repeat(rng.standard_normal(150), 4) + 2e-5 * rng.random(600)
    rows = case_of("continuous", 600, 1).pairs().rows
    x = torch.tensor(f)[rows.index] / 3e-5
    value, gradient = function.FAST[kind](rows, x)
    expected, slope = function.blocked(rows, x, kind)
    assert_close(value / rows.pair_weight, expected / rows.pair_weight, rtol=0, atol=1e-13)
    assert_close(gradient, slope, rtol=1e-10, atol=1e-10)


@pytest.mark.usefixtures("way")
@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("outcome", ["continuous", "ordinal", "uno"])
def test_a_strictly_increasing_transform_of_y_changes_no_bit(outcome, kind):
    case = case_of(outcome, 300, 2, weighted=True, missing=0.1)
    f = scores_of(300, 2)
    plain = loss_of(case, f, kind, 1.0)
    for transform in (lambda y: np.exp(y / 4), lambda y: 1e6 * y + 1e7, lambda y: (y / 2 + np.sinh(y / 9)) / 1e3 + 5):
        other = loss_of(Case(transform(case.y), case.event, case.weight, case.censoring), f, kind, 1.0)
        assert plain[0] == other[0]
        np.testing.assert_array_equal(plain[1], other[1])


def test_integers_beyond_float64_keep_their_order():
    y = torch.tensor([2**53, 2**53 + 1, 2**53 + 2])
    assert Pairs(y).total == 3


@pytest.mark.usefixtures("way")
@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("outcome", ["continuous", "binary", "uno"])
def test_a_weight_of_2_is_the_row_twice(outcome, kind):
    case, f = case_of(outcome, 30, 4), scores_of(30, 4)
    count = np.random.default_rng(0).integers(0, 4, 30)
    count[:2] = 1
    rows = np.repeat(np.arange(30), count)
    copied = Case(case.y[rows], None if case.event is None else case.event[rows], None, case.censoring, case.tau)
    weighted = Case(case.y, case.event, count.astype(float), case.censoring, case.tau)
    value, gradient = loss_of(weighted, f, kind, 1.0)
    expected, parts = loss_of(copied, f[rows], kind, 1.0)
    assert_close(value, expected, **EXACT)
    assert_close(gradient, np.bincount(rows, parts, 30), **EXACT)
    assert_close(weighted.pairs().total, copied.pairs().total, **EXACT)


@pytest.mark.usefixtures("way")
@pytest.mark.parametrize("kind", KINDS)
def test_the_order_of_the_rows_does_not_matter(kind):
    case, f = case_of("uno", 80, 6, weighted=True, missing=0.2), scores_of(80, 6)
    order = np.random.default_rng(1).permutation(80)
    value, gradient = loss_of(case, f, kind, 1.0)
    moved = Case(case.y[order], case.event[order], case.weight[order], "uno")
    other, slope = loss_of(moved, f[order], kind, 1.0)
    assert_close(value, other, **EXACT)
    assert_close(gradient[order], slope, **EXACT)


@pytest.mark.parametrize("kind", ["drelu", "epanechnikov", "sigmoid"])
def test_the_loss_of_a_binary_outcome_tends_to_1_minus_auc_with_the_bandwidth(kind):
    from sklearn.metrics import roc_auc_score

    case = case_of("binary", 400, 7)
    f = np.round(scores_of(400, 7), 1)  # with ties
    auc = roc_auc_score(case.y, f)
    assert_close(case.pairs().concordance(f), auc, **EXACT)
    assert_close(case.pairs().loss(torch.tensor(f), kind, 1e-9).item(), 1 - auc, **EXACT)


def test_a_row_without_a_pair_has_a_gradient_of_exactly_zero():
    y, event = np.array([5.0, np.nan, 2.0, 1.0]), np.array([1.0, 1.0, 1.0, 0.0])
    _, gradient = loss_of(Case(y, event), np.array([1.0, 2.0, 1.2, 0.3]), "logistic", 1.0)
    assert gradient[1] == gradient[3] == 0 != gradient[0]


def test_pairs_of_censored_times_are_those_of_the_definition():
    #                  times 3+ and 3 tie: the censored one is the longer; 1+ is nobody's shorter time.
    case = Case(np.array([3.0, 3.0, 1.0, 2.0, 3.0]), np.array([0.0, 1.0, 0.0, 1.0, 1.0]))
    assert {(i, j) for i, j, _ in weighted_pairs(case)} == {(0, 1), (0, 4), (0, 3), (1, 3), (4, 3)}
    assert case.pairs().total == 5


@settings(max_examples=30, deadline=None)
@given(st.integers(0, 10**6), st.sampled_from(KINDS), st.floats(-1e3, 1e3), st.floats(0.1, 10))
def test_a_shift_changes_nothing_and_scale_and_bandwidth_are_one(seed, kind, shift, factor):
    case, f = case_of("survival", 25, seed), scores_of(25, seed)
    value, gradient = loss_of(case, f, kind, 1.0)
    other, slope = loss_of(case, factor * (f + shift), kind, factor)
    assert_close(value, other, rtol=1e-8, atol=1e-9)
    if kind != "drelu":
        assert_close(gradient, factor * slope, rtol=1e-7, atol=1e-8)
    assert abs(gradient.sum()) < 1e-9 * max(1.0, np.abs(gradient).max())


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32, torch.float64])
def test_loss_and_gradient_have_the_scores_dtype_and_float64_inside(dtype):
    case = case_of("continuous", 700, 8)
    scores = torch.tensor(scores_of(700, 8), dtype=dtype, requires_grad=True)
    loss = case.pairs().loss(scores)
    loss.backward()
    assert loss.dtype == scores.grad.dtype == dtype
    value, gradient = loss_of(case, scores.detach().double().numpy(), "drelu", 1.0)
    assert loss.item() == torch.tensor(value, dtype=torch.float64).to(dtype).item()
    assert_close(scores.grad, torch.tensor(gradient).to(dtype))


def test_the_gradient_is_scaled_by_what_comes_from_above_and_flows_on():
    y, w = [1.0, 3.0, 2.0], torch.tensor([1.0, 2.0], dtype=torch.float64, requires_grad=True)
    x = torch.tensor([[1.0, 0.2], [0.3, 0.1], [0.5, 2.0]], dtype=torch.float64)
    torch.autograd.gradcheck(lambda w: 3 * pairwise_rank_loss(x @ w, y, "logistic"), [w])


def test_a_second_derivative_is_refused():
    scores = torch.zeros(3, requires_grad=True)
    loss = pairwise_rank_loss(scores, [1, 2, 3], "logistic")
    (gradient,) = torch.autograd.grad(loss, scores, create_graph=True)
    with pytest.raises(RuntimeError, match="no second derivative"):
        gradient.square().sum().backward()


def test_extreme_weights_neither_over_nor_underflow():
    case, f = case_of("continuous", 50, 9, weighted=True), scores_of(50, 9)
    plain = loss_of(case, f, "logistic", 1.0)
    for scale in (2.0**-900, 2.0**900):
        assert loss_of(Case(case.y, weight=case.weight * scale), f, "logistic", 1.0)[0] == plain[0]


def test_large_scores_are_summed_without_overflow():
    pairs = Pairs([0.0, 1.0])
    wrong, right = torch.tensor([1e4, -1e4]), torch.tensor([-1e4, 1e4])
    assert pairs.loss(wrong, "logistic").item() == pytest.approx(2e4)
    assert pairs.loss(right, "logistic").item() == pairs.loss(right, "exponential").item() == 0
    with pytest.raises(ValueError, match="the exponential loss is too large"):
        pairs.loss(wrong, "exponential")
    with pytest.raises(ValueError, match="range is"):
        pairs.loss(torch.tensor([0.0, 1.0], dtype=torch.float64), bandwidth=1e-20)


@pytest.mark.parametrize(
    ("message", "arguments"),
    [
        ("y has infinite", {"y": [1.0, np.inf]}),
        ("y needs numbers", {"y": ["a", "b"]}),
        ("y needs the shape", {"y": [[1.0, 2.0]]}),
        ("negative", {"y": [1.0, 2.0], "weight": [1.0, -1.0]}),
        ("missing values", {"y": [1.0, 2.0], "weight": [1.0, np.nan]}),
        ("weight needs the shape", {"y": [1.0, 2.0], "weight": [1.0]}),
        ("event needs the shape", {"y": [1.0, 2.0], "event": [1]}),
        ("event needs the times", {"y": None, "event": [1, 0]}),
        ("row 1 has 2.0", {"y": [1.0, 2.0], "event": [1, 2]}),
        ("row 0 has nan", {"y": [1.0, 2.0], "event": [np.nan, 1]}),
        ("times are at least 0", {"y": [-1.0, 2.0], "event": [1, 1]}),
        ("censoring is", {"y": [1.0, 2.0], "event": [1, 1], "censoring": "cox"}),
        ("event is needed", {"y": [1.0, 2.0], "censoring": "uno"}),
        ("norm is", {"y": [1.0, 2.0], "norm": "none"}),
        ("tau is", {"y": [1.0, 2.0], "event": [1, 1], "tau": 3.0}),
        ("tau is", {"y": [1.0, 2.0], "event": [1, 1], "censoring": "uno", "tau": 0.0}),
    ],
)
def test_an_outcome_that_cannot_be_is_one_clear_error(message, arguments):
    with pytest.raises(ValueError, match=message):
        Pairs(**arguments)


@pytest.mark.parametrize(
    ("message", "scores"),
    [
        ("NaN or infinite", [0.0, np.nan]),
        ("NaN or infinite", [0.0, np.inf]),
        ("shape", [[0.0], [1.0]]),
        ("shape", [0.0]),
    ],
)
def test_scores_that_cannot_be_are_one_clear_error(message, scores):
    pairs = Pairs([1.0, 2.0])
    with pytest.raises(ValueError, match=message):
        pairs.loss(torch.tensor(scores))
    with pytest.raises(ValueError, match=message):
        pairs.concordance(np.array(scores))
    with pytest.raises(ValueError, match="floating"):
        pairs.loss(torch.tensor([1, 2]))


@pytest.mark.parametrize("options", [("hinge", 1.0), ("drelu", 0.0), ("drelu", -1.0), ("drelu", np.nan)])
def test_kind_and_bandwidth_are_checked(options):
    with pytest.raises(ValueError, match=r"kind is one of|bandwidth is"):
        Pairs([1.0, 2.0]).loss(torch.zeros(2), *options)


@pytest.mark.parametrize(
    "case",
    [
        Case(np.ones(4)),
        Case(np.full(3, np.nan)),
        Case(np.array([])),
        Case(np.array([1.0])),
        Case(np.arange(3.0), np.zeros(3)),
        Case(np.arange(3.0), np.array([0.0, 0.0, 1.0])),
        Case(np.arange(3.0), weight=np.array([0.0, 1.0, 0.0])),
        Case(np.ones(4), norm="all"),
    ],
)
def test_an_outcome_without_a_comparable_pair_says_so_when_used(case):
    pairs = case.pairs()
    assert pairs.total == 0
    for use in (lambda: pairs.loss(torch.zeros(pairs.n)), lambda: pairs.concordance(np.zeros(pairs.n))):
        with pytest.raises(ValueError, match="no comparable pair"):
            use()


def test_nothing_that_is_given_is_changed():
    case, f = case_of("uno", 20, 1, weighted=True), scores_of(20, 1)
    before = [case.y.copy(), case.event.copy(), case.weight.copy()]
    scores = torch.tensor(f, requires_grad=True)
    case.pairs().loss(scores).backward()
    for old, new in zip(before, (case.y, case.event, case.weight), strict=True):
        np.testing.assert_array_equal(old, new)
    np.testing.assert_array_equal(scores.detach().numpy(), f)


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
@pytest.mark.parametrize("kind", KINDS)
def test_a_gpu_gives_the_same(kind):
    case, f = case_of("uno", 2000, 1, weighted=True), scores_of(2000, 1)
    value, gradient = loss_of(case, f, kind, 1.0)
    scores = torch.tensor(f, device="cuda", requires_grad=True)
    loss = case.pairs(device="cuda").loss(scores, kind)
    loss.backward()
    assert_close(loss.item(), value, **EXACT)
    assert_close(scores.grad.cpu().numpy(), gradient, **EXACT)
