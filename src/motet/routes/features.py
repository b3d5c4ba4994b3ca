"""The features route: the tasks' gradients at the shared representation, then one backward pass of the trunk."""

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor
from torch.autograd.graph import GradientEdge, get_gradient_edge

from motet.linalg import as_double, gram
from motet.routes import graph
from motet.routes.base import NoPathError, TaskGradients, empty_rows, fill
from motet.routes.layers import Linear, Product, products
from motet.routes.release import release

_BLOCK = 1 << 22
"""Numbers of all tasks that moments are made of at a time, so that no copy of all rows is needed."""
_ROUNDING = 64
"""Noise below so many units in the last place of what it is the difference of is none."""


class Features(TaskGradients):
    """Gradients of every task with respect to the features, as rows of length B·d.

    About the cost of a plain step, whatever K is. ``‖J‖`` at the features bounds the trunk's gradients from
    above, up to the trunk's own Jacobian: angles are near the exact ones where conflict is weak, norms are
    not, and a promise of no conflict holds at the features only.

    The trunk's gradient is a sum over the batch and J has a row a sample, so that ``‖Σ_b r[b]‖² ≤ B Σ_b ‖r[b]‖²``, with
    equality where samples agree. Methods are given B·J Jᵀ: without the factor B, weights that fall with the gradients'
    norms, as those of FairGrad and Nash-MTL, would grow with the root of the batch size.

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
        samples: bool = False,
    ) -> None:
        """Run the heads' backward passes: one for all tasks that share nothing above the features, one each for others.

        Args:
            losses: K scalars.
            heads: Every loss's parameters above the features; those of `motet.routes.graph.branches` save a walk.
            taps: The features.
            reuse: An earlier step's rows, to be overwritten.
            retain: Whether the heads' graph is needed again.
            samples: Whether `moments` are wanted: then the Gram matrix is a by-product of theirs.

        Raises:
            NoPathError: if a loss does not depend on the features.
        """
        self.taps = graph.distinct(taps)
        self.samples = samples
        self.hindrance = ""
        self._inner: Tensor | None = None
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

    @property
    def factor(self) -> float:
        """The number of samples B; of several features that differ in it, the largest."""
        return float(max(len(tap) if tap.dim() else 1 for tap in self.taps))

    def gram(self) -> Tensor:
        """G = J Jᵀ of the rows: (K, K), float64."""
        return as_double(self._products()).sum(0) if self.samples else super().gram()

    def moments(self) -> tuple[Tensor, Tensor]:
        """Signal M̂ and noise Ĉ of the batch-mean gradients, summed over samples: (K, K) each, float64.

        With rₖ[b] sample b's part of task k's row, zero where the task has no label there, nₖ the number of the others
        and nₖⱼ how many samples both tasks know,

            Gₖⱼ = ⟨Σ_b rₖ[b], Σ_b rⱼ[b]⟩,   Qₖⱼ = Σ_b ⟨rₖ[b], rⱼ[b]⟩,   s = nₖⱼ/(nₖnⱼ),
            Ĉₖⱼ = (Qₖⱼ - sGₖⱼ)/(1 - s),     M̂ₖⱼ = Gₖⱼ - Ĉₖⱼ.

        G has mean M + C, and Q has mean sM + C, so both are unbiased, whichever samples the tasks know. A gradient of
        exactly zero counts as a missing label. Noise that rounding alone could make is none. NaN in the rows and
        columns of tasks with fewer than two samples.

        Raises:
            ValueError: if the features are not of the same samples, along their first dimension.
        """
        products = self._products()
        sums = sum(gram(part.sum(1, dtype=products.dtype).flatten(1)) for part in self._sampled())
        assert isinstance(sums, Tensor)
        return self._unbiased(sums, as_double(products).sum(0))

    def _unbiased(self, sums: Tensor, single: Tensor) -> tuple[Tensor, Tensor]:
        """M̂ and Ĉ from G and Q, see `moments`."""
        products = self._products()
        # What is not finite has a gradient.
        known = (products.diagonal(dim1=1, dim2=2) != 0).to(sums)
        count = known.sum(0)
        share = (known.T @ known) / (count[:, None] * count).clamp(min=1)
        noise = (single - share * sums) / (1 - share)
        least = _ROUNDING * torch.finfo(products.dtype).eps * single.diagonal()
        noisy = noise.diagonal() > least
        noise = torch.where(noisy[:, None] & noisy, noise, 0.0)
        alone = count < 2
        noise = noise.masked_fill(alone[:, None] | alone, torch.nan)
        return sums - noise, noise

    def _sampled(self) -> list[Tensor]:
        """The rows, by features and samples: (K, B, …) each."""
        sizes = {len(tap) if tap.dim() else 1 for tap in self.taps}
        if len(sizes) > 1:
            raise ValueError(
                f"the noise between samples needs features whose first dimension is the batch, and they have "
                f"{' and '.join(map(str, sorted(sizes)))} rows: pass those that have one row a sample"
            )
        parts = self.rows.split([tap.numel() for tap in self.taps], 1)
        return [part.view(len(self.rows), *sizes, -1) for part in parts]

    def _products(self) -> Tensor:
        """Inner products of every sample's rows: (B, K, K), in float32 or float64; the rows are read once."""
        if self._inner is None:
            self._inner = sum(map(_sample_grams, self._sampled()))  # type: ignore[assignment]
        assert self._inner is not None
        return self._inner

    def keep(self, tasks: Sequence[int]) -> None:
        """As the base class does, for what each task uses of the features too."""
        super().keep(tasks)
        self._found = [self._found[task] for task in tasks]
        self._inner = None if self._inner is None else self._inner[:, list(tasks)][:, :, list(tasks)]

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


def _sample_grams(rows: Tensor) -> Tensor:
    """Inner products of every sample's rows: (K, B, d) → (B, K, K). Half precision is converted block by block."""
    wide = torch.promote_types(rows.dtype, torch.float32)
    step = max(1, _BLOCK // max(1, len(rows) * rows.shape[2])) if rows.dtype != wide else max(1, rows.shape[1])
    blocks = [block.to(wide).transpose(0, 1) for block in rows.split(step, 1)]
    return torch.cat([block @ block.transpose(1, 2) for block in blocks])


MANY, SKETCH = 64, 8192
"""Beyond so many tasks the last layer's gradients are projected on so many numbers a task."""
WIDTH = 32
"""Where single samples' gradients of a linear layer count, what goes in is brought down to so many numbers."""


def sampled(
    taps: Sequence[Tensor],
    layer: Sequence[Tensor],
    products: Callable[[Sequence[Tensor], Sequence[Tensor]], list[Product]] = products,
) -> tuple[list[Linear], str]:
    """The linear layers that single samples' gradients can be had of, or why they can't.

    A normalisation or a scale behind a matrix is left out.

    Args:
        taps: The features.
        layer: The parameters of the trunk's last layer.
        products: What finds the layers.
    """
    known = [found for found in products(taps, layer) if isinstance(found, Linear) and found.weight is not None]
    held = {id(parameter) for found in known for parameter in found.parameters()}
    if not known or any(parameter.dim() >= 2 and id(parameter) not in held for parameter in layer):
        return [], "the trunk's last layer is not a linear one that is used once"
    sizes = {len(tap) if tap.dim() else 1 for tap in taps} | {found.shape()[0] for found in known}
    if len(sizes) > 1:
        return [], "the trunk's last layer has several rows a sample"
    return known, ""


class LastLayer(Features):
    """The features route with the exact Gram matrix of the trunk's last layer.

    From the gradients at the features each task's gradient of the last layer's parameters is one partial
    backward pass away. Unlike the Gram matrix at the features it sums over samples before it takes inner
    products, so norms and angles stay near the exact route's also under strong conflict.

    Linear and convolutional layers need no backward pass of their own: what comes back to them is held against
    what went in, for all tasks at once, with the weights' gradients formed or not, whichever is less work. Beyond 64
    tasks the gradients are first brought down to 8,192 numbers each, by random signs that are the same in every step:
    cosines between tasks are then off by 0.01 or less in the mean, less than the last layer is from the whole trunk.

    Where the gradients of single samples are wanted too, inner products are those of a linear layer's weight, which has
    ⟨δₖ[b], δⱼ[b]⟩⟨a[b], a[b]⟩ for sample b. Of inputs a with 64 numbers or more it takes 32, by random signs that are
    the same in every step, in the Gram matrix and in the moments alike: so noise stays a covariance, and what the
    projection does to all tasks' sizes together does not matter. Behind other layers, and where a sample has several
    rows, Gram matrix and moments are those at the features, and `hindrance` says why.
    """

    def __init__(
        self,
        losses: Sequence[Tensor],
        heads: Sequence[Sequence[Tensor]],
        taps: Sequence[Tensor],
        layer: Sequence[Tensor],
        reuse: Tensor | None = None,
        *,
        samples: bool = False,
        products: Callable[[Sequence[Tensor], Sequence[Tensor]], list[Product]] = products,
    ) -> None:
        """As `Features`.

        Args:
            losses: K scalars.
            heads: Every loss's parameters above the features.
            taps: The features.
            layer: The last layer's parameters, see `motet.routes.graph.last_layer`.
            reuse: An earlier step's rows, to be overwritten.
            samples: Whether `moments` are wanted.
            products: What finds the layers that need no backward pass of their own.
        """
        super().__init__(losses, heads, taps, reuse, samples=samples)
        tasks = len(losses)
        self._gram: Tensor | None = None
        self._single: Tensor | None = None
        if samples:
            linear, self.hindrance = sampled(self.taps, layer, products)
            if linear:
                self._look_at_samples(linear)
            return
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
        whole = gram(rows)
        for total in sums:
            whole = whole + total.gram()
        self._gram = whole

    def _look_at_samples(self, layers: Sequence[Linear]) -> None:
        """The products of all samples' gradients of the layers, summed before and after."""
        tasks = len(self.rows)
        pattern = self._pattern(layers[0]) if len(layers) == 1 else None
        if pattern is not None:
            cotangents = [self.rows.view(tasks, *pattern.shape)]
        else:
            edges = [GradientEdge(layer.node, 0) for layer in layers]
            cotangents = [self.rows.new_zeros(tasks, *layer.shape()[::2]) for layer in layers]
            for task in range(tasks):
                there, given = self._used(self.rows[task])
                found = torch.autograd.grad(there, edges, given, retain_graph=True, allow_unused=True)
                for whole, part in zip(cotangents, found, strict=True):
                    if part is not None:
                        whole[task] = part
        self._gram = self._single = as_double(self.rows.new_zeros(tasks, tasks))
        for layer, whole in zip(layers, cotangents, strict=True):
            sums, single = self._layer_products(layer, whole, pattern)
            self._gram, self._single = self._gram + sums, self._single + single

    @staticmethod
    def _layer_products(layer: Linear, cotangents: Tensor, pattern: Tensor | None) -> tuple[Tensor, Tensor]:
        """G and Q of one layer, block by block of outputs: (K, B, out) times the pattern → (K, K) each."""
        inputs = layer.entering(WIDTH)
        tasks, batch, outputs = cotangents.shape
        sums = as_double(inputs.new_zeros(tasks, tasks))
        products = inputs.new_zeros(batch, tasks, tasks)
        step = max(64, _BLOCK // max(1, tasks * batch))
        for start in range(0, outputs, step):
            here = slice(start, start + step)
            block = cotangents[:, :, here].to(inputs)
            if pattern is not None:
                block = block * pattern[:, here]
            sums += gram((inputs @ block).flatten(1))
            rows = block.transpose(0, 1)
            products.baddbmm_(rows, rows.transpose(1, 2))
        return sums, (as_double(products) * as_double(inputs).square().sum(0)[:, None, None]).sum(0)

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
        numbers = (torch.rand(batch, outputs, generator=generator) + 0.5).to(tap)  # A third of the time of normal ones.
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

    @property
    def factor(self) -> float:
        """1 where the Gram matrix is the layer's."""
        return super().factor if self._gram is None else 1.0

    def gram(self) -> Tensor:
        """G of the last layer's gradients: (K, K), float64."""
        return super().gram() if self._gram is None else self._gram

    def moments(self) -> tuple[Tensor, Tensor]:
        """Signal and noise of the last layer's gradients, or at the features where there is a `hindrance`."""
        if self._gram is None or self._single is None:
            return super().moments()
        return self._unbiased(self._gram, self._single)

    def keep(self, tasks: Sequence[int]) -> None:
        """As the base class does, for the last layer's Gram matrix too."""
        super().keep(tasks)
        kept = list(tasks)
        self._gram = None if self._gram is None else self._gram[kept][:, kept]
        self._single = None if self._single is None else self._single[kept][:, kept]
