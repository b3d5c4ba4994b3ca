"""The features route: the tasks' gradients at the shared representation, then one backward pass of the trunk."""

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor
from torch.autograd.graph import GradientEdge, get_gradient_edge

from motet.linalg import as_double, gram
from motet.routes import graph
from motet.routes.base import NoPathError, TaskGradients, empty_rows, fill
from motet.routes.layers import Product, products
from motet.routes.release import release

_BLOCK = 1 << 18
"""Numbers a task that moments are made of at a time, so that no copy of all rows is needed."""


class Features(TaskGradients):
    """Gradients of every task with respect to the features, as rows of length B·d.

    About the cost of a plain step, whatever K is. ``‖J‖`` at the features bounds the trunk's gradients from
    above, up to the trunk's own Jacobian: angles are near the exact ones where conflict is weak, norms are
    not, and a promise of no conflict holds at the features only.

    A feature may be computed from another: what counts at the lower one is what the heads take from it, past the
    upper one, so that the trunk's backward pass from both gives every gradient once.
    """

    def __init__(
        self,
        losses: Sequence[Tensor],
        heads: Sequence[Sequence[Tensor]],
        taps: Sequence[Tensor],
        reuse: Tensor | None = None,
        retain: bool = False,
    ) -> None:
        """Run the heads' backward passes: one for all tasks that share nothing above the features, one each for others.

        Args:
            losses: K scalars.
            heads: Every loss's parameters above the features; those of `motet.routes.graph.branches` save a walk.
            taps: The features.
            reuse: An earlier step's rows, to be overwritten.
            retain: Whether the heads' graph is needed again.

        Raises:
            NoPathError: if a loss does not depend on the features.
        """
        self.taps = graph.distinct(taps)
        self.rows = empty_rows(len(losses), self.taps, reuse)
        self.heads = [[] for _ in losses]
        known = [head for head in heads if isinstance(head, graph.Branch)]
        if len(known) < len(losses) or len(self.taps) < len(taps):
            known = graph.branches(losses, self.taps)
        # What lies between two features is part of the passes through the heads, if only for nothing to flow there.
        self._held = list(losses) if len(self.taps) > 1 and not retain else []
        retain = retain or len(self.taps) > 1
        private = graph.private(known)
        together = [task for task, alone in enumerate(private) if alone]
        passes = [*([together] if together else []), *([task] for task, alone in enumerate(private) if not alone)]
        self._parts = [self._split(row) for row in self.rows]
        self._found = [[False] * len(self.taps) for _ in losses]
        for number, tasks in enumerate(passes):
            self._backward(losses, tasks, known, heads, retain or number < len(passes) - 1)
        for parts, found in zip(self._parts, self._found, strict=True):
            for part, there in zip(parts, found, strict=True):
                if not there:
                    part.zero_()
        if pathless := [task for task, found in enumerate(self._found) if not any(found)]:
            raise NoPathError(pathless)
        self.trunk_backwards = 1
        self.head_backwards = len(passes)

    def _backward(
        self,
        losses: Sequence[Tensor],
        tasks: list[int],
        branches: Sequence[graph.Branch],
        heads: Sequence[Sequence[Tensor]],
        retain: bool,
    ) -> None:
        """One pass through the heads of some tasks: rows and head gradients."""
        handles = []
        inputs = [*self.taps, *(leaf for task in tasks for leaf in heads[task])]
        try:
            for task in tasks:
                for node, places in branches[task].entries.items():
                    handles.append(node.register_hook(self._catcher(task, places)))
            found = torch.autograd.grad([losses[k] for k in tasks], inputs, retain_graph=retain, allow_unused=True)
        finally:
            for handle in handles:
                handle.remove()
        for task in tasks:
            for tap in branches[task].bare:
                self._add(task, tap, found[tap])
        gradients = iter(found[len(self.taps) :])
        for task in tasks:
            own = [(parameter, next(gradients)) for parameter in heads[task]]
            self.heads[task] = [(parameter, gradient) for parameter, gradient in own if gradient is not None]

    def _catcher(self, task: int, places: list[tuple[int, int]]) -> Callable[..., tuple[Tensor | None, ...]]:
        """A hook that takes what a node gives to the features, and lets nothing of it go on into the trunk."""

        def catch(inputs: Any, _: Any) -> tuple[Tensor | None, ...]:
            kept = list(inputs)
            for position, tap in places:
                self._add(task, tap, inputs[position])
                kept[position] = None
            return tuple(kept)

        return catch

    def _add(self, task: int, tap: int, gradient: Tensor | None) -> None:
        if gradient is None:
            return
        gradient = gradient if gradient.layout == torch.strided else gradient.to_dense()
        if self._found[task][tap]:
            self._parts[task][tap] += gradient
        else:
            self._parts[task][tap].copy_(gradient)
            self._found[task][tap] = True

    def moments(self) -> tuple[Tensor, Tensor]:
        """Signal M̂ and noise Ĉ of the batch-mean gradients, summed over samples: (K, K) each, float64.

        With rₖ[b] sample b's part of task k's row, zero where the task has no label there, nₖ the number of the others
        and μₖ = Σ_b rₖ[b] the mean of nₖ gradients nₖrₖ[b], the noise is the sum over the samples that both tasks know

            Ĉₖⱼ = Σ_b ⟨rₖ[b] - μₖ/nₖ, rⱼ[b] - μⱼ/nⱼ⟩ √(nₖnⱼ / ((nₖ - 1)(nⱼ - 1))),   M̂ = μμᵀ - Ĉ.

        Both are unbiased if the tasks know the same samples; with others entries off the diagonal of Ĉ are off by a
        share of about 1/n. A gradient of exactly zero counts as a missing label. NaN in the rows and columns of tasks
        with fewer than two samples.

        Raises:
            ValueError: if the features are not of the same samples, along their first dimension.
        """
        sizes = {len(tap) if tap.dim() else 1 for tap in self.taps}
        if len(sizes) > 1:
            raise ValueError(
                f"the noise between samples needs features whose first dimension is the batch, and they have "
                f"{' and '.join(map(str, sorted(sizes)))} rows: pass those that have one row a sample"
            )
        batch = sizes.pop()
        tasks = len(self.rows)
        wide = torch.promote_types(self.rows.dtype, torch.float32)
        parts = [part.view(tasks, batch, -1) for part in self.rows.split([tap.numel() for tap in self.taps], 1)]
        known = torch.stack([(part.amax(2) > 0) | (part.amin(2) < 0) for part in parts]).any(0)
        count = known.sum(1).to(wide)
        share = (known / count.clamp(min=1)[:, None]).unsqueeze(2)
        means = as_double(self.rows.new_zeros(tasks, tasks, dtype=wide))
        noise = torch.zeros_like(means)
        for part in parts:
            for block in part.split(max(1, _BLOCK // batch), 2):
                block = block.to(wide)
                mean = block.sum(1, keepdim=True)
                means += gram(mean.squeeze(1))
                noise += gram(torch.addcmul(block, mean, share, value=-1).view(tasks, -1))
        factor = as_double(torch.where(count > 1, count / (count - 1), torch.nan)).sqrt()
        noise = noise * factor[:, None] * factor
        return means - noise, noise

    def keep(self, tasks: Sequence[int]) -> None:
        """As the base class does, for what each task uses of the features too."""
        super().keep(tasks)
        self._found = [self._found[task] for task in tasks]

    def _used(self, row: Tensor) -> tuple[list[Tensor], list[Tensor]]:
        """The features that any task uses, each with its part of a row."""
        used = [any(found) for found in zip(*self._found, strict=True)]
        pairs = [(tap, part) for tap, part, there in zip(self.taps, self._split(row), used, strict=True) if there]
        return [tap for tap, _ in pairs], [part.to(tap.dtype) for tap, part in pairs]

    def _split(self, row: Tensor) -> list[Tensor]:
        """A row's parts in the shapes of the features."""
        parts = row.split([tap.numel() for tap in self.taps])
        return [part.view(tap.shape) for tap, part in zip(self.taps, parts, strict=True)]

    def _write_trunk(self, direction: Tensor) -> None:
        torch.autograd.backward(*self._used(direction))
        leaves = [leaf for head in self.heads for leaf, _ in head]
        if self._held and leaves:
            release(self._held, leaves)


MANY, SKETCH = 64, 8192
"""Beyond so many tasks the last layer's gradients are projected on so many numbers a task."""


class LastLayer(Features):
    """The features route with the exact Gram matrix of the trunk's last layer.

    From the gradients at the features each task's gradient of the last layer's parameters is one partial
    backward pass away. Unlike the Gram matrix at the features it sums over samples before it takes inner
    products, so norms and angles stay near the exact route's also under strong conflict.

    Linear and convolutional layers need no backward pass of their own: what comes back to them is held against
    what went in, for all tasks at once, with the weights' gradients formed or not, whichever is less work. Beyond 64
    tasks the gradients are first brought down to 8,192 numbers each, by random signs that are the same in every step:
    cosines between tasks are then off by 0.01 or less in the mean, less than the last layer is from the whole trunk.
    """

    def __init__(
        self,
        losses: Sequence[Tensor],
        heads: Sequence[Sequence[Tensor]],
        taps: Sequence[Tensor],
        layer: Sequence[Tensor],
        reuse: Tensor | None = None,
        *,
        products: Callable[[Sequence[Tensor], Sequence[Tensor]], list[Product]] = products,
    ) -> None:
        """As `Features`.

        Args:
            losses: K scalars.
            heads: Every loss's parameters above the features.
            taps: The features.
            layer: The last layer's parameters, see `motet.routes.graph.last_layer`.
            reuse: An earlier step's rows, to be overwritten.
            products: What finds the layers that need no backward pass of their own.
        """
        super().__init__(losses, heads, taps, reuse)
        tasks = len(losses)
        sketch = SKETCH if tasks > MANY else None
        known = [found for found in products(self.taps, layer) if found.unfolds(tasks)]
        covered = {id(parameter) for found in known for parameter in found.parameters()}
        rest = [parameter for parameter in layer if id(parameter) not in covered]
        if not rest and len(known) == 1 and (pattern := self._pattern(known[0])) is not None:
            parts = self.rows.view(tasks, -1, pattern.shape[1])
            self._gram = known[0].spread_gram(parts, pattern, sketch)
            return
        inputs = [*(GradientEdge(found.node, 0) for found in known), *map(get_gradient_edge, rest)]
        sums = [found.accumulator(tasks, sketch) for found in known]
        rows = empty_rows(tasks, rest, None, like=self.rows)
        for task in range(tasks):
            there, cotangents = self._used(self.rows[task])
            gradients = torch.autograd.grad(there, inputs, cotangents, retain_graph=True, allow_unused=True)
            for total, gradient in zip(sums, gradients, strict=False):
                total.put(task, gradient)
            fill(rows[task], rest, gradients[len(known) :])
        self._gram = gram(rows)
        for total in sums:
            self._gram = self._gram + total.gram()

    def _pattern(self, layer: Product) -> Tensor | None:
        """m: (N, out), where what comes back to a layer is rₖ[b, o] m[bp, o], with rₖ the task's row: (B, out).

        So it is behind an activation, a pooling or an average over positions, and two passes stand for one a task:
        the first gives m, the second shows on random numbers that it is all there is.
        """
        tap = self.taps[0]
        count, _, outputs = layer.shape()
        if len(self.taps) > 1 or len(self.rows) <= 2 or tap.numel() % outputs:
            return None
        batch = tap.numel() // outputs
        if tap.shape[:2] != (batch, outputs) or not count or count % batch:
            return None
        generator = torch.Generator().manual_seed(0)
        numbers = torch.randn(batch, outputs, generator=generator, dtype=torch.float64).to(tap)
        edge = GradientEdge(layer.node, 0)
        found: list[Tensor | None] = [
            torch.autograd.grad(tap, edge, cotangent.view(tap.shape), retain_graph=True, allow_unused=True)[0]
            for cotangent in (torch.ones_like(numbers), numbers)
        ]
        one, other = found
        if one is None or other is None:
            return None
        pattern, shown = layer.unfolded(one), layer.unfolded(other)
        difference = (shown - numbers.repeat_interleave(count // batch, 0) * pattern).abs().amax()
        return pattern if bool(difference <= 8 * torch.finfo(tap.dtype).eps * shown.abs().amax()) else None

    def gram(self) -> Tensor:
        """G of the last layer's gradients: (K, K), float64."""
        return self._gram

    def keep(self, tasks: Sequence[int]) -> None:
        """As the base class does, for the last layer's Gram matrix too."""
        super().keep(tasks)
        kept = list(tasks)
        self._gram = self._gram[kept][:, kept]
