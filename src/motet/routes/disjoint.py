"""The disjoint route: where every sample belongs to one task, one backward pass holds all tasks' gradients."""

from collections.abc import Sequence

import torch
from torch import Tensor
from torch.autograd.graph import GradientEdge, get_gradient_edge

from motet.linalg import combine
from motet.routes import graph
from motet.routes.base import NoPathError, TaskGradients, accumulate
from motet.routes.features import Features
from motet.routes.layers import Layer, find

Layouts = dict[tuple[object, ...], int]
"""What `Disjoint` found out about a layer's rows, from step to step: how many in a row belong to one sample."""

# All rows of a sample lie together, however many they are: a sequence may be longer in the next batch.
_ALL = 0


class Disjoint(TaskGradients):
    r"""Exact, as `motet.routes.Exact`, for batches in which every sample belongs to one task.

    A row of what comes back to a layer is then one task's alone, so the rows of the summed loss's backward pass
    tell all tasks' gradients apart, layer by layer: ⟨∂Lₖ/∂W, ∂Lₗ/∂W⟩ is the sum of (aₙ·aₘ)(δₙ·δₘ) over the rows n of
    k and m of l, or that of the gradients formed from each task's rows, whichever is less work.

    Time is about 1.5 to 2 plain steps, whatever K is; memory is that of a plain step, the inputs of all layers and
    what comes back to them, and the K gradients of a part of one layer at a time.

    Note:
        Every shared parameter must belong to a layer that is known: linear, convolution, embedding, layer and group
        normalisation, batch normalisation in evaluation mode, or a parameter that is added, multiplied or expanded;
        and be used once. The samples must lie along one axis of the batch and not be mixed by the model. That is tried
        the first time that a layer is seen with a batch of such a size, by a second backward pass with another factor
        for every task: then every row must have its own task's.
    """

    def __init__(
        self,
        losses: Sequence[Tensor],
        shared: Sequence[Tensor],
        assignment: Tensor,
        layouts: Layouts | None = None,
        names: Sequence[str] = (),
    ) -> None:
        """Run the backward pass.

        Args:
            losses: K scalars, each of its own samples.
            shared: Leaves that require a gradient.
            assignment: The loss that every sample belongs to: (B,), from 0 to K - 1, or -1 for none.
            layouts: Kept by the caller from step to step, so that layers are tried once. None tries them now.
            names: The tasks' names, for errors.

        Raises:
            NoPathError: if a loss depends on none of the shared parameters.
            ValueError: if a shared parameter is used in a way that is not known, a parameter outside is used by
                several losses, a loss has no samples, or the model mixes the samples of a batch.
        """
        tasks = len(losses)
        self.names = list(names) or [str(task) for task in range(tasks)]
        owners = self._owners(assignment, tasks).to(losses[0].device)
        own, common, pathless = graph.owned(losses, {id(parameter) for parameter in shared})
        if pathless:
            raise NoPathError(pathless)
        if common:
            raise ValueError(
                f"a parameter of shape {tuple(common[0].shape)} is used by several losses and is not among the shared "
                "ones: add it to shared=, or use route='exact'"
            )
        self.layers, left = find(losses, shared)
        if left:
            parameter, reason = left[0]
            raise ValueError(
                f"the disjoint route can't tell the tasks' gradients of a parameter of shape {tuple(parameter.shape)} "
                f"apart: it {reason}{self._hint(losses)}; use route='exact' or 'last-layer'"
            )
        edges = [GradientEdge(layer.node, 0) for layer in self.layers]
        layouts = {} if layouts is None else layouts
        # Of one task all rows are that task's.
        new = {
            index: layer
            for index, layer in enumerate(self.layers)
            if tasks > 1 and self._key(layer, owners) not in layouts
        }
        factors = _factors(tasks, shared)
        trial: tuple[Tensor | None, ...] = ()
        if new:
            scales = [factor.to(loss) for factor, loss in zip(factors, losses, strict=True)]
            tried = [edges[index] for index in new]
            trial = torch.autograd.grad(losses, tried, scales, retain_graph=True, allow_unused=True)
        self.trunk_backwards = 1 + bool(new)
        self.head_backwards = 0
        inputs = [*edges, *(get_gradient_edge(leaf) for head in own for leaf in head)]
        found: tuple[Tensor | None, ...] = torch.autograd.grad(losses, inputs, allow_unused=True)
        for (index, layer), other in zip(new.items(), trial, strict=True):
            cotangent = found[index]
            if cotangent is not None and other is not None:
                run = self._run(layer, layer.rows(cotangent)[0], layer.rows(other)[0], factors, owners, losses)
                if run is not None:
                    layouts[self._key(layer, owners)] = run
        gradients = iter(found[len(edges) :])
        self.heads = [[(leaf, g) for leaf in head if (g := next(gradients)) is not None] for head in own]
        self.rows = losses[0].new_empty(tasks, 0)
        self._present = list(range(tasks))
        self._parts: list[tuple[Layer, tuple[Tensor, ...], Tensor, list[Tensor] | None]] = []
        self._gram = losses[0].new_zeros(tasks, tasks, dtype=torch.float64)
        for layer, cotangent in zip(self.layers, found, strict=False):
            if cotangent is not None:
                rows = layer.rows(cotangent)
                count = len(rows[0])
                if tasks == 1:
                    self._add(layer, rows, owners.new_zeros(count))
                else:
                    self._add(layer, rows, _spread(owners, count, layouts.get(self._key(layer, owners), _ALL)))

    def _owners(self, assignment: Tensor, tasks: int) -> Tensor:
        if assignment.dim() != 1 or assignment.is_floating_point() or assignment.is_complex():
            raise ValueError(
                f"the assignment must hold one whole number a sample, not {assignment.dtype} of shape "
                f"{tuple(assignment.shape)}"
            )
        owners = assignment.detach().long()
        counts = torch.bincount(owners.clamp(-1, tasks) + 1, minlength=tasks + 2).tolist()
        if counts[-1] or (len(owners) and int(owners.min()) < -1):
            raise ValueError(f"the assignment must lie between -1 and {tasks - 1}, the last of {tasks} losses")
        for task, count in enumerate(counts[1:-1]):
            if not count:
                raise ValueError(f"no sample is assigned to task {self.names[task]!r}, which has a loss")
        return owners

    def _add(self, layer: Layer, rows: tuple[Tensor, ...], owners: Tensor) -> None:
        """A layer's part of the Gram matrix."""
        order = owners.argsort(stable=True)
        counts = torch.bincount(owners + 1, minlength=len(self._present) + 1).tolist()
        order = order[counts[0] :]
        # Of rows of numbers `index_select` is the quicker one, of pictures indexing is.
        ordered = [part.index_select(0, order) if part.dim() <= 2 else part[order] for part in rows]
        total, segments = layer.gram(ordered, owners[order], counts[1:])
        self._gram = self._gram + total.to(self._gram)
        # With the gradients at hand, the rows that they were made of are no longer needed.
        self._parts.append((layer, () if segments else rows, owners, segments))

    def _key(self, layer: Layer, owners: Tensor) -> tuple[object, ...]:
        return (len(owners), *map(id, layer.parameters()))

    def _run(
        self,
        layer: Layer,
        cotangent: Tensor,
        trial: Tensor,
        factors: Tensor,
        owners: Tensor,
        losses: Sequence[Tensor],
    ) -> int | None:
        """How many rows in a row are one sample's, from what comes back to a layer with and without ``factors``.

        Every row must have its own task's factor. None where nothing comes back.
        """
        count, batch = len(cotangent), len(owners)
        where = "the layer with parameters of shape " + " and ".join(str(tuple(p.shape)) for p in layer.parameters())
        if count % batch:
            raise ValueError(
                f"{where} has {count} rows, not a whole number for each of the {batch} samples: it does not treat "
                "every sample by itself; use route='exact' or 'last-layer'"
            )
        if not bool((cotangent != 0).any()):
            return None
        wide = torch.promote_types(cotangent.dtype, torch.float32)
        cotangent, trial = cotangent.reshape(count, -1).to(wide), trial.reshape(count, -1).to(wide)
        # With factors that are powers of two nothing is rounded, unless sums are added up in another order.
        size = cotangent.abs().amax(1)
        slack = 1e-3 * size + 1e-6 * size.nan_to_num(0, 0, 0).amax()
        own = torch.cat([factors, factors.new_zeros(1)]).to(cotangent)[owners]  # The last one is of no task.
        first = 0
        for run in _runs(count // batch):
            factor = _spread(own, count, run)
            # Rows that are not finite tell nothing.
            strange = (trial - factor[:, None] * cotangent).abs().amax(1) > slack * factor
            if not bool(strange.any()):
                return run
            if run == _ALL:
                first = int(strange.nonzero()[0])
        sample = first * batch // count
        task = "no task" if owners[sample] < 0 else f"task {self.names[int(owners[sample])]!r}"
        raise ValueError(
            f"{where} has a gradient of other tasks in the rows of sample {sample}, which belongs to {task}: the model "
            f"mixes samples, a loss uses samples of another task, or the samples do not lie along the batch's first "
            f"axis{self._hint(losses)}; use route='exact' or 'last-layer'"
        )

    @staticmethod
    def _hint(losses: Sequence[Tensor]) -> str:
        training = any(getattr(node, "_saved_training", False) for node in graph.nodes(losses))
        return ". Batch normalisation in training mode mixes samples: use GroupNorm or eval()" if training else ""

    def gram(self) -> Tensor:
        """G of all shared parameters: (K, K), float64."""
        return self._gram[self._present][:, self._present]

    def keep(self, tasks: Sequence[int]) -> None:
        """As the base class does; the rows of the others are passed over in `write`."""
        super().keep(tasks)
        self._present = [self._present[task] for task in tasks]

    def write(self, weights: Tensor, scale: Tensor) -> None:
        """As the base class does; the gradients are formed here, once for all tasks."""
        every = weights.new_zeros(len(self._gram))
        every[self._present] = weights
        lost = len(self._present) < len(self._gram)
        for layer, rows, owners, segments in self._parts:
            if segments is not None:
                found = [combine(weights, segment[self._present] if lost else segment) for segment in segments]
            else:
                found = layer.gradients(*self._weighted(rows, owners, every, lost))
            for parameter, gradient in zip(layer.parameters(), found, strict=True):
                accumulate(parameter, gradient)
        self._write_heads(scale)

    def _weighted(self, rows: tuple[Tensor, ...], owners: Tensor, weights: Tensor, lost: bool) -> tuple[Tensor, ...]:
        """Rows times their task's weight. Rows of no task are left out: they need not be finite."""
        there = owners >= 0
        if lost:
            there &= torch.isin(owners, torch.tensor(self._present, device=owners.device))
        if not bool(there.all()):
            rows, owners = tuple(part[there] for part in rows), owners[there]
        # Weights may lie beyond what half precision can hold.
        wide = torch.promote_types(rows[0].dtype, torch.float32)
        factors = weights.to(rows[0].device, wide)[owners].view(-1, *[1] * (rows[0].dim() - 1))
        return (rows[0] * factors).to(rows[0].dtype), *rows[1:]

    def write_direction(self, *_: Tensor) -> None:
        """Refused: this way knows the products of the gradients, and no direction but their combinations."""
        raise TypeError("a direction of all parameters needs their rows: use motet.routes.Exact")

    def _write_trunk(self, direction: Tensor) -> None:
        raise NotImplementedError(direction)


def infer_assignment(losses: Sequence[Tensor], taps: Sequence[Tensor], names: Sequence[str] = ()) -> Tensor:
    """The task of every sample, from whose gradient there is at the features: (B,), -1 where there is none.

    Args:
        losses: K scalars.
        taps: The features, samples first.
        names: The tasks' names, for errors.

    Raises:
        ValueError: if a sample has a gradient of two tasks.
    """
    names = list(names) or [str(task) for task in range(len(losses))]
    batch = len(taps[0]) if taps[0].dim() else 0
    if any(tap.dim() == 0 or len(tap) != batch for tap in taps) or not batch:
        shapes = ", ".join(str(tuple(tap.shape)) for tap in taps)
        raise ValueError(f"all features must have the samples first, and not the shapes {shapes}")
    gradients = Features(losses, [[] for _ in losses], taps, retain=True)
    touched = torch.zeros(len(losses), batch, dtype=torch.bool, device=taps[0].device)
    for tap, part in zip(gradients.taps, gradients.rows.split([t.numel() for t in gradients.taps], dim=1), strict=True):
        touched |= (part.reshape(len(losses), batch, tap.numel() // batch) != 0).any(2)
    several = touched.sum(0) > 1
    if bool(several.any()):
        sample = int(several.nonzero()[0])
        who = " and ".join(repr(names[int(task)]) for task in touched[:, sample].nonzero().flatten())
        raise ValueError(
            f"sample {sample} has a gradient of the tasks {who}: the disjoint route needs every sample to belong to one"
        )
    return torch.where(touched.any(0), touched.int().argmax(0), -1)


def _factors(tasks: int, shared: Sequence[Tensor]) -> Tensor:
    """A power of two for every task, neighbours' not the same: (K,)."""
    span = 8 if any(parameter.dtype == torch.float16 for parameter in shared) else 64
    return torch.exp2((torch.arange(tasks, device=shared[0].device) % span - span // 2).float())


def _runs(positions: int) -> list[int]:
    """How many rows in a row may be one sample's: all of its positions, one, or a part of them."""
    return [_ALL, *(run for run in range(1, positions) if positions % run == 0)]


def _spread(owners: Tensor, count: int, run: int) -> Tensor:
    """From samples to rows: every sample's entry ``run`` times in a row, and all that over again up to ``count``."""
    once = owners.repeat_interleave(count // len(owners) if run == _ALL else run)
    return once if len(once) == count else once.repeat(count // len(once))
