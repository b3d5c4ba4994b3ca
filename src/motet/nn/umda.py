"""One model for many views, bags of instances and related tasks: after UMDA, Scientific Reports 2026."""

import math
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import replace
from typing import Any, Literal

import torch
from torch import Tensor, nn

from motet.nn.bag import Bag
from motet.nn.branching import TaskBranching
from motet.nn.cross_view import HybridCrossViewAttention
from motet.nn.instance_pooling import GraphInstancePooling
from motet.nn.masking import blank, masked_mean, segment_sum
from motet.nn.pooling import GatedAttentionPooling, MaxPooling, MeanPooling, TransformerPooling
from motet.nn.view_inputs import (
    Instances,
    ViewInputs,
    check_finite,
    pick,
    present_instances,
    present_rows,
    read_views,
    same_layout,
)

View = int | nn.Module | tuple[nn.Module, int]
Info = dict[str, Any]

COEFFICIENTS = {
    "attention.concentration": 0.01,
    "attention.consistency": 0.1,
    "attention.dispersion": 0.1,
    "pooling.attention_entropy": 0.01,
    "pooling.smoothness": 0.01,
    "branching.divergence": 0.01,
    "branching.consistency": 0.01,
}
"""What `UMDA.regularisation` multiplies each penalty with; others, such as "branching.redundancy", with 0."""


class UMDA(nn.Module):
    r"""Encode each view, pool its bags, let views attend to each other, fuse them, branch into tasks.

        view ─ encoder ─ pooling of its bag ─┐
        view ─ encoder ─ pooling of its bag ─┼─ cross-view attention ─ fuse ─ z ─ branching ─ a head for each task
        view ─ encoder ──────────────────────┘

    Every block can be left out or replaced, which is how one finds out whether it was worth it. Blocks draw their first
    weights in such an order that models with and without attention or branching start, from one seed, as the same
    function.

    Args:
        views: {name: width}. In place of the width a module that maps (n, …) to (n, width'), instances of bags one by
            one, with its ``out_features`` or as (module, width'); it should treat rows alone, as batch normalisation
            does not.
        tasks: {name: outputs}, the width of each head. Names of views and tasks may be anything.
        bags: Which views are bags of instances: True, False, or their names.
        hierarchy: How tasks are related, see `TaskBranching`.
        dim: D, the width of everything between encoders and heads.
        heads: Attention heads of the blocks that have such, a divisor of dim.
        rank: Of the private projections, see `TaskBranching`.
        neighbours: Of the instances' graph, see `GraphInstancePooling`.
        wiring: "ragged" as drawn above, where each view has its own instances. "aligned": each instance has all views,
            attention runs over the views of an instance, which are fused, and then pooled.
        attention: Whether there is `HybridCrossViewAttention`.
        pooling: "graph" (`GraphInstancePooling`), "mean", "max", "attention" or "transformer".
        fuse: "mean" over the views that are present, or "concat": a linear map of all, zeros for the missing.
        branching: Whether there is `TaskBranching`; without it all heads take one projection of z.
        signed: See `TaskBranching`.
        dropout: After each encoder and on z, from 0 to below 1.

    Shapes:
        inputs {view: x}, x (B, width) or, of a bag, a `Bag` or (B, N, width); view_mask {view: (B,) bool}.
        → outputs {task: (B, outputs)} and info with
        "features": z (B, D), all that the heads take: ``features=`` of `motet.Balancer`;
        "regularisers": {name: scalar}, named "attention.…", "pooling.<view>.…" (aligned: "pooling.…"), "branching.…";
        "view_mask": (B, V) which views were there; "views": their names;
        "attention", "gate", "shared", "private", "coherence" of the cross-view attention; aligned wiring has them for
        each instance, (B, N, …) or (ΣN, …) in place of (B, …);
        "instances": {view: info of its pooling}, with "attention" of the shape of the bags as given;
        "influence", "strength", "prior" of the branching.

    Note:
        Reconstruction: the order of the blocks, the encoders, both wirings and the fusion are not the paper's, whose
        equations were not available. Untuned, it did not beat concatenation with hard sharing on the data it was tried
        on: compare it, block by block.

        A view is missing for a sample if it is None or not among the inputs, if its row is all NaN, if its bag has no
        instance, if all instances are NaN rows, or by ``view_mask``. What is missing may hold anything. An instance of
        a bag that is all NaN is missing too. A row or an instance with a few NaN is not missing and is refused: fill
        them first. On a GPU the host waits for that look at each view; compiled, there is none, and such a row's
        outputs are NaN.

        A sample without any view gets finite outputs, the same for all such samples: what the heads make of z = 0
        (of the pooling's learned empty bag with wiring="aligned"). Leave it out of the losses.

        A view that no sample of a batch has leaves its encoder without a gradient (None), which
        DistributedDataParallel must be told of (``find_unused_parameters=True``).

        Vector views compile with ``fullgraph=True``; bags break the graph, where flat ones wait for the device.

        For Muon: ``muon_for(model, lr, heads=model.heads, inputs=model.encoders)``.

    >>> from motet import Balancer
    >>> from motet.nn.bag import Bag
    >>> views, tasks = {"rna": 20, "slide": 32}, {"grade": 3, "msi": 1, "stage": 4}
    >>> model = UMDA(views, tasks, bags={"slide"}, hierarchy=[["grade", "stage"], ["msi"]], dim=16)
    >>> slides = Bag.of([torch.randn(patches, 32) for patches in (40, 0, 25)])  # the second patient has no slide
    >>> rna = torch.randn(3, 20).index_fill(0, torch.tensor([2]), torch.nan)  # the third was not sequenced
    >>> outputs, info = model({"rna": rna, "slide": slides})
    >>> losses = {task: output.square().mean() for task, output in outputs.items()}  # yours
    >>> model.regularisation(info, step=5, total=100).backward(retain_graph=True)  # wanted only if you say so
    >>> step = Balancer("fair-grad").backward(losses, features=info["features"])
    >>> info["view_mask"].tolist(), info["instances"]["slide"]["attention"].shape  # what to draw on the slides
    ([[True, True], [True, False], [False, True]], torch.Size([65]))
    """

    def __init__(
        self,
        views: Mapping[str, View],
        tasks: Mapping[str, int],
        bags: bool | Collection[str] = False,
        hierarchy: Any = None,
        *,
        dim: int = 64,
        heads: int = 4,
        rank: int = 8,
        neighbours: int = 8,
        wiring: Literal["ragged", "aligned"] = "ragged",
        attention: bool = True,
        pooling: Literal["graph", "mean", "max", "attention", "transformer"] = "graph",
        fuse: Literal["mean", "concat"] = "mean",
        branching: bool = True,
        signed: bool = False,
        dropout: float = 0.0,
    ) -> None:
        super().__init__()
        _check(views, tasks, dim, dropout)
        poolings: dict[str, Callable[[], nn.Module]] = {
            "graph": lambda: GraphInstancePooling(dim, neighbours),
            "mean": lambda: MeanPooling(dim),
            "max": lambda: MaxPooling(dim),
            "attention": lambda: GatedAttentionPooling(dim),
            "transformer": lambda: TransformerPooling(dim, heads),
        }
        for option, value, known in (
            ("wiring", wiring, ("ragged", "aligned")),
            ("pooling", pooling, tuple(poolings)),
            ("fuse", fuse, ("mean", "concat")),
        ):
            if value not in known:
                raise ValueError(f"UMDA: {option} must be one of {', '.join(known)}, not {value!r}")
        # ModuleDict forbids names with dots or names of its own methods, and a view or task may be called anything.
        self.views, self.tasks = tuple(views), tuple(tasks)
        self.bags = _bags(bags, self.views)
        self.dim, self.wiring = dim, wiring
        self.coefficients = dict(COEFFICIENTS)
        if wiring == "aligned" and len(self.bags) < len(self.views):
            raise ValueError(
                "UMDA: with wiring='aligned' instances have all views, so that all views are bags: bags=True"
            )
        if hierarchy is not None and not branching:
            raise ValueError("UMDA: hierarchy says how tasks branch, and branching=False leaves that out")
        # All that every variant has comes first, so that variants of one seed share it.
        encoders = [_Encoder(name, view, dim, dropout) for name, view in views.items()]
        self.widths = {encoder.name: encoder.given for encoder in encoders}
        self.encoders = nn.ModuleList(encoders)
        pooled = (1 if wiring == "aligned" else len(self.bags)) if self.bags else 0
        self.poolings = nn.ModuleList(poolings[pooling]() for _ in range(pooled))
        self.fuse = nn.Linear(len(views) * dim, dim) if fuse == "concat" else None
        last = nn.ModuleList(nn.Linear(dim, outputs) for outputs in tasks.values())
        self.branching = TaskBranching(dim, self.tasks, rank, hierarchy, signed=signed) if branching else None
        self.shared = None if branching else nn.Sequential(nn.Linear(dim, dim), nn.ReLU())
        self.attention = HybridCrossViewAttention(dim, heads) if attention else None
        self.dropout = nn.Dropout(dropout)
        self.heads = last

    def forward(
        self, inputs: Mapping[str, Tensor | Bag | None], view_mask: Mapping[str, Tensor] | None = None
    ) -> tuple[dict[str, Tensor], Info]:
        """{view: x} → {task: (B, outputs)}, info; see the class for both."""
        given = read_views(inputs, view_mask, self.widths, self.bags)
        info: Info = {"views": self.views, "instances": {}, "regularisers": {}}
        z = self._aligned(given, info) if self.wiring == "aligned" else self._ragged(given, info)
        z = self.dropout(z)
        info["features"] = z
        if self.branching is not None:
            features, told = self.branching(z)
            info |= {name: value for name, value in told.items() if name != "regularisers"}
            _tell(info, "branching", told)
        else:
            assert self.shared is not None
            features = dict.fromkeys(self.tasks, self.shared(z))
        return {task: head(features[task]) for task, head in zip(self.tasks, self.heads, strict=True)}, info

    def regularisation(self, info: Info, step: int | None = None, total: int | None = None) -> Tensor:
        """The penalties of one forward pass, times ``self.coefficients``, which are `COEFFICIENTS` at first, added up.

        Penalties of several poolings count with their mean. With step and total, the number of this step from 0 and of
        all steps, it grows from 0 to its full size over the first tenth.

        Args:
            info: Of a forward pass.
            step: ≥ 0.
            total: ≥ 1.

        Returns:
            A scalar, constant 0 for a model without penalties. It is a loss of no task: with a `motet.Balancer` call
            its ``backward(retain_graph=True)`` before the Balancer's, so that it weighs no method's statistics.
        """
        if (step is None) != (total is None):
            raise ValueError(f"step and total come together or not at all, not {step} and {total}")
        if step is not None and total is not None and not (step >= 0 and total >= 1):
            raise ValueError(f"step counts from 0 and total from 1, and they are {step} and {total}")
        grown = 1.0 if step is None or total is None else min(1.0, 10 * step / total)
        found: dict[str, list[Tensor]] = {}
        for name, value in info["regularisers"].items():
            # The view in the middle may have dots of its own.
            found.setdefault(f"{name.partition('.')[0]}.{name.rpartition('.')[2]}", []).append(value)
        result: Tensor = info["features"].new_zeros(())
        for name, values in found.items():
            if coefficient := self.coefficients.get(name, 0.0):
                result = result + grown * coefficient * torch.stack(values).mean()
        return result

    def _ragged(self, given: ViewInputs, info: Info) -> Tensor:
        """Each view's bags into a vector for each sample, then the views of a sample into one: (B, D)."""
        poolings = dict(zip((name for name in self.views if name in self.bags), self.poolings, strict=True))
        found: list[Tensor | None] = []
        present = list(given.allowed.unbind(1))
        for v, (name, encoder) in enumerate(zip(self.views, self.encoders, strict=True)):
            value = given.values.get(name)
            if value is None:
                found.append(None)
            elif isinstance(value, Bag):
                instances = pick(value, present_instances(value, present[v]))
                present[v] = instances.offsets.diff() > 0
                rows = instances.of(value.x)
                check_finite(name, rows, instances.places, value)
                z, info["instances"][name] = _pool(poolings[name], encoder(rows), instances)
                _tell(info, f"pooling.{name}", info["instances"][name])
                found.append(z)
            else:
                present[v] = present_rows(value, present[v])
                mask = present[v].reshape(-1, *(1,) * (value.ndim - 1))
                rows = torch.where(mask, value, 0)
                check_finite(name, rows)
                found.append(encoder(rows))
        mask = info["view_mask"] = torch.stack(present, dim=1)
        z, told = self._across(_stack(found), mask)
        info |= {name: value for name, value in told.items() if name != "regularisers"}
        _tell(info, "attention", told)
        return z

    def _aligned(self, given: ViewInputs, info: Info) -> Tensor:
        """The views of each instance into one, then the instances of each bag: (B, D)."""
        bags = same_layout({name: value for name, value in given.values.items() if isinstance(value, Bag)})
        # Places and edges are those of the instances, so that any view may hold them.
        layout = replace(
            next(iter(bags.values())),
            coordinates=next((bag.coordinates for bag in bags.values() if bag.coordinates is not None), None),
            edges=next((bag.edges for bag in bags.values() if bag.edges is not None), None),
        )
        nowhere = torch.zeros(layout.x.shape[:-1], dtype=torch.bool, device=layout.x.device)
        there = torch.stack(
            [
                present_instances(bags[name], given.allowed[:, v]) if name in bags else nowhere
                for v, name in enumerate(self.views)
            ],
            dim=-1,
        )
        instances = pick(layout, there.any(-1))
        mask = instances.of(there)
        info["view_mask"] = segment_sum(mask.float(), instances.offsets) > 0
        found: list[Tensor | None] = []
        for v, (name, encoder) in enumerate(zip(self.views, self.encoders, strict=True)):
            rows = blank(instances.of(bags[name].x), mask[:, v]) if name in bags else None
            if rows is not None:
                check_finite(name, rows, instances.places, layout)
            found.append(None if rows is None else encoder(rows))
        x, told = self._across(_stack(found), mask)
        for name, value in told.items():
            if name != "regularisers":
                info[name] = instances.back(value, math.nan if name == "coherence" else 0.0)
        _tell(info, "attention", told)
        z, told = _pool(self.poolings[0], x, instances)
        info["instances"] = dict.fromkeys(self.views, told)
        _tell(info, "pooling", told)
        return z

    def _across(self, x: Tensor, mask: Tensor) -> tuple[Tensor, Info]:
        """Attention over views and their fusion: (n, V, D), (n, V) → (n, D)."""
        told: Info = {}
        x = blank(x, mask)
        if self.attention is not None:
            x, told = self.attention(x, mask)
        return (masked_mean(x, mask, 1) if self.fuse is None else self.fuse(blank(x, mask).flatten(1))), told

    def extra_repr(self) -> str:
        """What torch shows of the model."""
        return f"views={', '.join(self.views)}; tasks={', '.join(self.tasks)}; wiring={self.wiring}"


class _Encoder(nn.Module):
    """Rows of one view, (n, width), to (n, D): a module of the user's if there is one, Linear, ReLU, LayerNorm."""

    def __init__(self, name: str, view: View, dim: int, dropout: float) -> None:
        super().__init__()
        self.name = name
        module, width = view if isinstance(view, tuple) and len(view) == 2 else (view, None)
        self.module = module if isinstance(module, nn.Module) else None
        if self.module is None and (width is not None or not _is_count(module)):
            raise ValueError(
                f"UMDA: view {name!r} must be a width of at least 1, a module or (module, width), not {view!r}"
            )
        if isinstance(module, nn.Module):
            width = getattr(module, "out_features", None) if width is None else width
        else:
            width = module
        if not isinstance(width, int) or not _is_count(width):
            raise ValueError(f"UMDA: the module of view {name!r} does not tell its width: give (module, width)")
        self.width = width
        self.project = nn.Sequential(nn.Linear(width, dim), nn.ReLU(), nn.LayerNorm(dim), nn.Dropout(dropout))

    @property
    def given(self) -> int | None:
        """The width of what it is given, if that is known."""
        return self.width if self.module is None else None

    def forward(self, x: Tensor) -> Tensor:
        if self.module is not None:
            rows, x = len(x), self.module(x)
            if x.shape != (rows, self.width):
                raise ValueError(
                    f"the module of view {self.name!r} must give ({rows}, {self.width}) for {rows} rows, "
                    f"not {tuple(x.shape)}"
                )
        first: Any = self.project[0]
        have, want = x.dtype, first.weight.dtype
        # Autocast casts every dtype but float64.
        if have != want and (have == torch.float64 or not torch.is_autocast_enabled(x.device.type)):
            names = [str(dtype).removeprefix("torch.") for dtype in (have, want)]
            raise ValueError(
                f"view {self.name!r} is in {names[0]} and the model in {names[1]}: give x.to(torch.{names[1]}), of "
                "tensors and bags alike"
            )
        encoded: Tensor = self.project(x)
        return encoded


def _pool(pooling: nn.Module, x: Tensor, instances: Instances) -> tuple[Tensor, Info]:
    """Bags of encoded instances to vectors; what is told of instances and edges is of the bags as given."""
    if isinstance(pooling, GraphInstancePooling):
        z, told = pooling(x, None, instances.offsets, instances.coordinates, instances.edges)
        told["graph"] = told["graph"] | {"edges": instances.numbers[told["graph"]["edges"]]}
    else:
        z, told = pooling(x, None, instances.offsets)
    return z, told | {"attention": instances.back(told["attention"])}


def _stack(views: Sequence[Tensor | None]) -> Tensor:
    """Views side by side, (n, V, D), with zeros for those that are not there."""
    one = next(view for view in views if view is not None)
    return torch.stack([torch.zeros_like(one) if view is None else view for view in views], dim=1)


def _tell(info: Info, prefix: str, told: Info) -> None:
    """Add a block's penalties under its name."""
    info["regularisers"] |= {f"{prefix}.{name}": value for name, value in told.get("regularisers", {}).items()}


def _is_count(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and value >= 1


def _check(views: Mapping[str, View], tasks: Mapping[str, int], dim: int, dropout: float) -> None:
    """Raise a ValueError for what no block checks by itself."""
    for what, example, given in (("views", "{'image': 512}", views), ("tasks", "{'grade': 3}", tasks)):
        if not isinstance(given, Mapping) or not given:
            raise ValueError(f"UMDA: {what} must be a dict with at least one of them, as {example}, not {given!r}")
        for name in given:
            if not isinstance(name, str):
                raise ValueError(f"UMDA: {what} have names, which are strings, not {name!r}")
    for task, outputs in tasks.items():
        if not _is_count(outputs):
            raise ValueError(
                f"UMDA: task {task!r} must have at least 1 output, not {outputs!r}: how many numbers is it?"
            )
    if not _is_count(dim):
        raise ValueError(f"UMDA: dim must be a whole number of at least 1, not {dim!r}")
    if not 0 <= dropout < 1:
        raise ValueError(f"UMDA: dropout is a probability from 0 to below 1, not {dropout}")


def _bags(bags: bool | Collection[str], views: Sequence[str]) -> frozenset[str]:
    """The names of the views that are bags."""
    if isinstance(bags, bool):
        return frozenset(views if bags else ())
    if isinstance(bags, str):
        raise ValueError(f"UMDA: bags must be True, False or a set of views; write {{{bags!r}}}")
    for name in bags:
        if name not in views:
            raise ValueError(f"UMDA: bags holds {name!r}, which is no view: the views are {', '.join(views)}")
    return frozenset(bags)
