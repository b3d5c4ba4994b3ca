"""What an architecture tells of itself after training: gates, attention between views and in bags, influence."""

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from motet.linalg import as_double
from motet.nn.bag import Bag
from motet.nn.diagnostics import view_consistency
from motet.nn.masking import entropy
from motet.nn.sharing import PLE, SharedModel
from motet.problems.views import Inputs, Views
from motet.study.networks import ViewModel
from motet.study.results import BagAttention, Gates, Influence, Shown, ViewAttention

_BAGS = 3
"""Bags that are kept of each view."""
_INSTANCES = 400
"""Instances that are kept of a bag, those with most attention first."""
_EDGES = 1200


def show(model: SharedModel | ViewModel, inputs: Inputs, seed: int) -> Shown:
    """All that is known of these rows. The model is in eval mode, and there is no graph.

    Args:
        model: After training.
        inputs: Of the test split.
        seed: Of the shuffled control.
    """
    tasks = list(model.tasks)
    _, info = model.explain(inputs)
    if isinstance(model, SharedModel):
        own = len(model.trunk.levels[0].own[0]) if isinstance(model.trunk, PLE) else 0
        return Shown(tasks, gates=_gates(tasks, info, own))
    influence = None
    if "influence" in info:
        signed = model.umda.branching is not None and model.umda.branching.signed
        influence = Influence(
            as_double(info["influence"]).tolist(),
            as_double(info["prior"]).tolist(),
            as_double(info["strength"]).tolist(),
            signed,
        )
    attention = _views(info, seed) if "attention" in info and len(info["views"]) > 1 else None
    bags = _bags(info, inputs) if isinstance(inputs, Views) else []
    return Shown(tasks, attention=attention, influence=influence, bags=bags)


def _gates(tasks: Sequence[str], info: dict[str, Any], own: int) -> list[Gates]:
    if "stitches" in info:
        stages = list(info["stitches"])
        return [
            Gates(f"after layer {i + 1}", list(tasks), as_double(matrix).tolist(), torch.zeros_like(matrix).tolist())
            for i, matrix in enumerate(stages)
        ]
    found = info["gates"]
    if isinstance(found, Tensor):
        return [_gate("", [f"expert {i + 1}" for i in range(found.shape[2])], found)]
    many = len(found) > 1
    return [
        _gate(f"level {i + 1}" if many else "", _named("own", own) + _named("shared", gate.shape[2] - own), gate)
        for i, gate in enumerate(found)
    ]


def _named(what: str, count: int) -> list[str]:
    return [what] if count == 1 else [f"{what} {i + 1}" for i in range(count)]


def _gate(name: str, experts: list[str], values: Tensor) -> Gates:
    """Of (B, K, E)."""
    values = as_double(values)
    return Gates(name, experts, values.mean(0).tolist(), values.std(0, correction=0).tolist())


def _views(info: dict[str, Any], seed: int) -> ViewAttention:
    mask, attention = info["view_mask"], as_double(info["attention"])
    several = mask.sum(1) >= 2
    asked = mask.double()
    mean = torch.einsum("bv,bhvu->vu", asked, attention) / attention.shape[1] / asked.sum(0)[:, None]
    most = mask.sum(1).clamp(min=2).double().log()
    h = entropy(attention).mean(1) / most[:, None]
    known = (mask & several[:, None]).double()
    told = view_consistency(info["shared"], mask, torch.Generator().manual_seed(seed))
    return ViewAttention(
        views=list(info["views"]),
        present=asked.mean(0).tolist(),
        attention=mean.tolist(),
        entropy=((h * known).sum(0) / known.sum(0)).tolist(),
        coherence=told["coherence"],
        shuffled=told["shuffled"],
        effective_rank=told["effective_rank"],
        width=info["shared"].shape[-1],
    )


def _bags(info: dict[str, Any], inputs: Views) -> list[BagAttention]:
    """The same rows in every arm: a smaller, a middling and a larger bag of those that have several instances."""
    found: list[BagAttention] = []
    for name, told in info["instances"].items():
        view = inputs.views[name]
        assert isinstance(view, Bag)
        bag = view.flat()
        weights = _flat(told["attention"], view)
        edges = told["graph"]["edges"] if "graph" in told else None
        found += [_bag(name, row, bag, weights, edges) for row in _chosen(bag.sizes)]
    return found


def _flat(values: Tensor, bag: Bag) -> Tensor:
    """(B, N) or (ΣN,) → (ΣN,)."""
    if bag.offsets is not None:
        return as_double(values)
    return as_double(values[bag.mask] if bag.mask is not None else values.flatten())


def _chosen(sizes: Tensor) -> list[int]:
    rows = (sizes >= 3).nonzero().squeeze(1)
    rows = rows[sizes[rows].argsort(stable=True)]
    places = {round(share * (len(rows) - 1)) for share in (0.25, 0.5, 0.75)} if len(rows) else set()
    return [int(rows[place]) for place in sorted(places)[:_BAGS]]


def _bag(name: str, row: int, bag: Bag, weights: Tensor, edges: Tensor | None) -> BagAttention:
    assert bag.offsets is not None
    start, end = int(bag.offsets[row]), int(bag.offsets[row + 1])
    located = bag.coordinates is not None
    points = as_double(bag.coordinates[start:end, :2]) if bag.coordinates is not None else _components(bag.x[start:end])
    given = weights[start:end]
    kept = given.argsort(descending=True, stable=True)[:_INSTANCES].sort().values
    pairs: list[list[int]] = []
    if edges is not None:
        place = torch.full((len(bag.x),), -1)
        place[start + kept] = torch.arange(len(kept))
        inside = place[edges]
        inside = inside[:, (inside >= 0).all(0)]
        pairs = inside.T[:: max(1, -(-inside.shape[1] // _EDGES))].tolist()
    return BagAttention(name, row, end - start, points[kept].tolist(), located, given[kept].tolist(), pairs)


def _components(x: Tensor) -> Tensor:
    """The first two principal components of instances, (n, D) → (n, 2), with signs that do not depend on rounding."""
    x = as_double(x).nan_to_num()
    x = x - x.mean(0)
    left, sigma, right = torch.linalg.svd(x, full_matrices=False)
    largest = right.abs().argmax(1, keepdim=True)
    sign = torch.where(right.gather(1, largest).squeeze(1) < 0, -1.0, 1.0)
    both = (left * sigma * sign)[:, :2]
    return torch.nn.functional.pad(both, (0, 2 - both.shape[1]))
