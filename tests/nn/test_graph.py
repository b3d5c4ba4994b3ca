"""Graphs of instances against brute force: neighbours, weights, spectrum, propagation, signature."""

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.testing import assert_close

from motet.nn import neighbours as module
from motet.nn import propagation
from motet.nn.cells import cell_candidates
from motet.nn.graph import InstanceGraph, log_similarity, normalise, smoothness
from motet.nn.interactions import pairs_and_triples
from motet.nn.neighbours import coordinate_edges, feature_edges, undirected
from motet.nn.propagation import propagate
from motet.nn.signature import bag_signature, node_signature


def features(n: int, seed: int, d: int = 5, copies: int = 0) -> torch.Tensor:
    """Random unit vectors, the last ``copies`` of them equal to the first."""
    e = torch.randn(n, d, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
    if copies:
        e[n - copies :] = e[:copies].clone()
    return torch.nn.functional.normalize(e, dim=1)


def brute_force(distance: torch.Tensor, k: int) -> set[tuple[int, int]]:
    """The rule, pair by pair: not farther than the k-th of one of the two."""
    found = set()
    for i, row in enumerate(distance.tolist()):
        others = sorted(value for j, value in enumerate(row) if j != i)
        if others:
            kth = others[min(k, len(others)) - 1]
            found |= {(min(i, j), max(i, j)) for j, value in enumerate(row) if j != i and value <= kth + 1e-9}
    return found


def pairs(edges: torch.Tensor) -> set[tuple[int, int]]:
    assert (edges[0] < edges[1]).all()
    found = [(i, j) for i, j in edges.T.tolist()]
    assert len(set(found)) == len(found)
    return set(found)


def dense(values: torch.Tensor, graph: InstanceGraph, n: int) -> torch.Tensor:
    matrix = values.new_zeros(n, n)
    i, j = graph.edges
    matrix[i, j] = values
    matrix[j, i] = values
    return matrix


def built(n: int, seed: int, k: int = 3) -> tuple[torch.Tensor, InstanceGraph, torch.Tensor, torch.Tensor]:
    e = features(n, seed, copies=n // 4)
    graph = InstanceGraph.of(feature_edges(e, [n], k, 1000), n)
    matrix, degree = normalise(log_similarity(e, graph, k), graph)
    return e, graph, matrix, degree


@pytest.mark.parametrize("n", [2, 3, 9, 40, 300])
@pytest.mark.parametrize("copies", [0, 2])
@pytest.mark.parametrize("k", [1, 4])
def test_feature_neighbours_are_those_of_brute_force(n, k, copies):
    e = features(n, seed=n, copies=min(copies, n - 1))
    assert pairs(feature_edges(e, [n], k, 1000)) == brute_force(2 - 2 * e @ e.T, k)


@pytest.mark.parametrize("k", [1, 5, 40])
def test_a_long_bag_in_blocks_is_a_short_one(k, monkeypatch):
    e = features(200, 1, copies=3)
    short = feature_edges(e, [200], k, 1000)
    monkeypatch.setattr(module, "SHORT", 1)
    assert_close(feature_edges(e, [200], k, 1000), short)


def test_bags_do_not_mix_and_short_ones_are_batched_by_size():
    sizes = [3, 0, 1, 20, 280, 2, 5]
    e = features(sum(sizes), 3)
    edges = feature_edges(e, sizes, 4, 1000)
    start, expected = 0, set()
    for n in sizes:
        own = e[start : start + n]
        expected |= {(start + i, start + j) for i, j in brute_force(2 - 2 * own @ own.T, 4)}
        start += n
    assert pairs(edges) == expected


@pytest.mark.parametrize("d", [2, 3])
def test_coordinate_neighbours_are_those_of_brute_force(d):
    points = torch.rand(60, d, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    assert pairs(coordinate_edges(points, [60], 5)) == brute_force(torch.cdist(points, points), 5)


def test_coordinates_on_a_grid_keep_all_ties():
    points = torch.cartesian_prod(torch.arange(6.0), torch.arange(5.0))
    assert pairs(coordinate_edges(points, [30], 3)) == brute_force(torch.cdist(points, points), 3)


@pytest.mark.parametrize("short", [1, 1000])
def test_a_crowd_of_copies_stays_linear_and_joins_nobody_by_order(short, monkeypatch):
    monkeypatch.setattr(module, "SHORT", short)
    e = torch.cat([features(1, 0).expand(300, -1), features(40, 1)])
    edges = feature_edges(e, [340], 4, 1000)
    assert not any(i < 300 and j < 300 for i, j in pairs(edges))
    assert edges.shape[1] <= 340 * 4 * module.MOST
    points = torch.zeros(300, 2)
    assert coordinate_edges(points, [300], 4).shape[1] == 0


def test_beyond_the_exact_size_nine_of_ten_neighbours_are_found():
    generator = torch.Generator().manual_seed(0)
    centres = torch.randn(40, 32, generator=generator)
    e = centres[torch.randint(40, (4000,), generator=generator)] + 0.5 * torch.randn(4000, 32, generator=generator)
    exact, found = (pairs(feature_edges(e, [4000], 8, limit)) for limit in (4000, 100))
    assert len(found & exact) / len(exact) > 0.9


def test_cells_cover_every_row_once():
    e = features(500, 0)
    rows = torch.cat([rows for rows, _ in cell_candidates(e)])
    assert sorted(rows.tolist()) == list(range(500))


def test_given_edges_lose_loops_copies_and_direction():
    edges = torch.tensor([[0, 1, 2, 2, 3], [1, 0, 2, 0, 1]])
    assert undirected(edges, 4).T.tolist() == [[0, 1], [0, 2], [1, 3]]


def test_weights_follow_their_formula():
    n, k = 12, 3
    e = features(n, 5)
    graph = InstanceGraph.of(feature_edges(e, [n], k, 1000), n)
    squared = 2 - 2 * e @ e.T
    squared.fill_diagonal_(torch.inf)
    sigma = squared.sort(1).values[:, k - 1]
    expected = (-squared / (sigma[:, None] * sigma).sqrt()).exp()
    i, j = graph.edges
    assert_close(log_similarity(e, graph, k).exp(), expected[i, j], rtol=1e-9, atol=1e-12)


@given(st.integers(2, 30), st.integers(0, 1000))
def test_spectrum_is_within_one(n, seed):
    e, graph, matrix, degree = built(n, seed)
    s = dense(matrix, graph, n)
    w = dense(log_similarity(e, graph, 3).exp(), graph, n)
    assert_close(degree, w.sum(1), rtol=1e-9, atol=1e-12)
    assert_close(s, w / (degree[:, None] * degree).sqrt().clamp(min=1e-300), rtol=1e-9, atol=1e-12)
    assert torch.linalg.eigvalsh(s).abs().max() <= 1 + 1e-9


@given(st.integers(2, 25), st.integers(0, 1000), st.sampled_from([0.0, 0.3, 0.5, 0.9]), st.integers(1, 6))
def test_propagation_is_its_transfer_function_on_every_frequency(n, seed, alpha, steps):
    _, graph, matrix, _ = built(n, seed)
    x = torch.randn(n, 3, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))
    s = dense(matrix, graph, n)
    out, moved = propagate(x, matrix, graph, steps, alpha)
    values, vectors = torch.linalg.eigh(s)
    transfer = (1 - alpha) * sum((alpha * values) ** t for t in range(steps)) + (alpha * values) ** steps
    assert transfer.abs().max() <= 1 + 1e-9
    assert_close(out, vectors @ (transfer[:, None] * (vectors.T @ x)), rtol=0, atol=1e-9)
    laplacian = torch.eye(n, dtype=torch.float64) - s
    assert (out * (laplacian @ out)).sum() <= (x * (laplacian @ x)).sum() + 1e-9
    assert_close(moved[:, -1], (out - x).square().mean(1), rtol=0, atol=1e-9)


def test_isolated_instances_pass_to_the_last_bit_and_keep_their_gradient():
    graph = InstanceGraph.of(torch.tensor([[0, 1], [1, 3]]), 5)
    x = torch.randn(5, 70, generator=torch.Generator().manual_seed(0), requires_grad=True)
    out, moved = propagate(x, torch.tensor([0.7, 0.6]), graph, 4, 0.3)
    assert (out[[2, 4]] == x[[2, 4]]).all()
    assert (moved[[2, 4]] == 0).all()
    out.sum().backward()
    assert (x.grad[[2, 4]] == 1).all()


@pytest.mark.parametrize("width", [3, 5])
def test_gradients_of_propagation(width, monkeypatch):
    monkeypatch.setattr(propagation, "WIDTH", 3)  # one piece, and two of which the last is narrower
    _, graph, matrix, _ = built(5, 0, k=2)
    x = torch.randn(5, width, dtype=torch.float64, generator=torch.Generator().manual_seed(1), requires_grad=True)
    matrix = matrix.detach().requires_grad_()
    assert torch.autograd.gradcheck(lambda x, matrix: propagate(x, matrix, graph, 3, 0.4), (x, matrix))


def test_gradients_of_weights_and_normalisation_with_copies_are_finite():
    e = features(12, 0, copies=6).requires_grad_()
    graph = InstanceGraph.of(feature_edges(e, [12], 3, 1000), 12)
    matrix, degree = normalise(log_similarity(e, graph, 3), graph)
    (matrix.sum() + degree.sum()).backward()
    assert e.grad.isfinite().all()


@given(st.integers(0, 7), st.integers(0, 100))
def test_interactions_are_sums_over_pairs_and_triples(n, seed):
    y = torch.randn(n, 2, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))
    second, third = pairs_and_triples(torch.cat([y, y[:1]]), torch.tensor([0, n, n, n + min(n, 1)]))
    zero = y.new_zeros(2)
    two = sum((y[i] * y[j] for j in range(n) for i in range(j)), zero)
    three = sum((y[i] * y[j] * y[m] for m in range(n) for j in range(m) for i in range(j)), zero)
    assert_close(second, torch.stack([two, zero, zero]), rtol=1e-9, atol=1e-9)
    assert_close(third, torch.stack([three, zero, zero]), rtol=1e-9, atol=1e-9)


@settings(max_examples=10)
@given(st.integers(2, 20), st.integers(0, 100))
def test_smoothness_is_its_definition_and_zero_for_equal_logits(n, seed):
    e, graph, _, _ = built(n, seed)
    weights = log_similarity(e, graph, 3).exp()
    f = torch.randn(n, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))
    offsets = torch.tensor([0, n, n])
    w = dense(weights, graph, n)
    expected = (w * (f[:, None] - f) ** 2).sum() / (2 * w.sum())
    assert_close(smoothness(f, weights, graph, offsets), expected, rtol=1e-9, atol=1e-12)
    assert_close(smoothness(f, 7 * weights, graph, offsets), expected, rtol=1e-9, atol=1e-12)
    assert smoothness(torch.ones_like(f), weights, graph, offsets) == 0


def test_signature_follows_its_definition():
    n = 9
    _, graph, matrix, degree = built(n, 2)
    moved = torch.rand(n, 2, dtype=torch.float64)
    nodes = node_signature(matrix, degree, moved, graph)
    s = dense(matrix, graph, n)
    assert_close(nodes, torch.cat([(1 + degree).log()[:, None], moved, s.square().sum(1)[:, None]], 1))
    signature = bag_signature(nodes, torch.tensor([0, n, n]))
    expected = torch.cat([nodes.mean(0), nodes.std(0, correction=0), torch.tensor([math.log(n)])])
    assert_close(signature[0], expected, rtol=0, atol=2e-4)
    assert (signature[1] == 0).all()
