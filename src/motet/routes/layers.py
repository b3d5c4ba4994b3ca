"""What an autograd graph knows of a layer: what went in, and so the parameters' gradients from what comes back."""

import math
from abc import ABC, abstractmethod
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.autograd.graph import Node

from motet.linalg import as_double, gram
from motet.routes.graph import leaf_of, nodes

# Numbers in a block: large enough for a product to be quick, small enough to stay in a processor's cache.
_BLOCK = 1 << 20


@dataclass
class Layer(ABC):
    """One use of a layer.

    Its inputs and what comes back to its output, Δ = ∂L/∂y, are seen as N rows: the batch, or batch times positions.
    Every row gives its part of the gradients, and they are the sum over rows.

    Attributes:
        node: Its node in the graph.
    """

    node: Node

    @abstractmethod
    def parameters(self) -> list[Tensor]:
        """The parameters that are asked for."""

    @abstractmethod
    def rows(self, cotangent: Tensor) -> tuple[Tensor, ...]:
        """Δ and what went in, all with N rows first: Δ comes first, as the engine gave it."""

    @abstractmethod
    def gradients(self, *rows: Tensor) -> list[Tensor]:
        """Gradients of `parameters`, summed over any set of `rows`."""

    def segments(self, rows: Sequence[Tensor], owners: Tensor, counts: Sequence[int]) -> list[Tensor]:  # noqa: ARG002
        """Gradients of `parameters` for every owner, from rows that are sorted by owner: (K, …) each."""
        found = [parameter.new_zeros(len(counts), *parameter.shape) for parameter in self.parameters()]
        pieces = zip(*(part.split(list(counts)) for part in rows), strict=True)
        for owner, (count, piece) in enumerate(zip(counts, pieces, strict=True)):
            if count:
                for segment, gradient in zip(found, self.gradients(*piece), strict=True):
                    segment[owner] = gradient
        return found

    def gram(self, rows: Sequence[Tensor], owners: Tensor, counts: Sequence[int]) -> tuple[Tensor, list[Tensor] | None]:
        """Gram matrix of the owners' gradients, and those gradients where they take no more room than the rows.

        Args:
            rows: As `rows` gives them, sorted by owner.
            owners: (N,): whose each row is.
            counts: How many rows each of the K owners has.
        """
        segments = self.segments(rows, owners, counts)
        total = sum(gram(segment.reshape(len(counts), -1)) for segment in segments)
        assert isinstance(total, Tensor)
        room = sum(segment.numel() for segment in segments)
        return total, segments if room <= sum(part.numel() for part in rows) else None


@dataclass
class Product(Layer):
    """A layer that is a product, y = A Wᵀ + b, or can be unfolded into one.

    Attributes:
        weight: W: (out, …), or None where it has no gradient.
        bias: b: (out,), or None.
    """

    weight: Tensor | None
    bias: Tensor | None

    def parameters(self) -> list[Tensor]:
        """W and b, where they are asked for."""
        return [parameter for parameter in (self.weight, self.bias) if parameter is not None]

    @abstractmethod
    def shape(self) -> tuple[int, int, int]:
        """(N, in, out) of the product."""

    @abstractmethod
    def matrix(self) -> Tensor:
        """A: (N, in)."""

    @abstractmethod
    def unfolded(self, cotangent: Tensor) -> Tensor:
        """Δ as the product has it: (N, out)."""

    def unfolds(self, tasks: int) -> bool:
        """Whether it can be made a product in no more room than the cotangents of K tasks take."""
        _, inputs, outputs = self.shape()
        return self.weight is not None and inputs <= tasks * outputs

    def product_gram(self, cotangents: Tensor, inputs: Tensor | None = None) -> Tensor:
        r"""Gram matrix of the tasks' gradients of W and b.

        ∂Lₖ/∂W = ΔₖᵀA, so ⟨ΔₖᵀA, ΔₗᵀA⟩ = ⟨Δₖ, (A Aᵀ) Δₗ⟩: with fewer rows than inputs that is less work, and
        no gradient of a weight is ever formed. A bias adds 1 to A Aᵀ.

        Shapes:
            cotangents (K, N, out), inputs (N, in) → (K, K), float64.
        """
        inputs = self.matrix() if inputs is None else inputs
        tasks, rows, _ = cotangents.shape
        if not self.kernel_pays(tasks):
            total = gram((cotangents.transpose(1, 2) @ inputs).reshape(tasks, -1))
            return total if self.bias is None else total + gram(cotangents.sum(1))
        # Products of half-precision numbers would not survive in their own dtype.
        wide = torch.promote_types(cotangents.dtype, torch.float32)
        kernel = inputs.to(wide) @ inputs.to(wide).T
        if self.bias is not None:
            kernel += 1
        total = kernel.new_zeros(tasks, tasks)
        # In one block, unless the products would take more room than is reasonable.
        for block in cotangents.split(max(64, 8 * _BLOCK // (tasks * rows)), dim=2):
            block = block.to(wide)
            total.addmm_((kernel @ block).view(tasks, -1), block.reshape(tasks, -1).T)
        return as_double(total)

    def gram(self, rows: Sequence[Tensor], owners: Tensor, counts: Sequence[int]) -> tuple[Tensor, list[Tensor] | None]:
        """As the base class does; gradients that take much room are formed and forgotten block by block."""
        room = len(counts) * sum(parameter.numel() for parameter in self.parameters())
        few = room <= sum(part.numel() for part in rows)
        if few or self.weight is None or (pair := self.pair(rows, sum(map(bool, counts)))) is None:
            return super().gram(rows, owners, counts)
        cotangent, inputs = pair
        per = len(cotangent) // sum(counts)
        lengths = [per * count for count in counts]
        inside = inputs.split(lengths)
        total = gram(torch.stack([part.sum(0) for part in cotangent.split(lengths)])) if self.bias is not None else 0
        step = max(16, _BLOCK // (len(counts) * inputs.shape[1]))
        table = cotangent.new_empty(len(counts), min(step, cotangent.shape[1]), inputs.shape[1])
        for block in cotangent.split(step, dim=1):
            block_table = table[:, : block.shape[1]]
            for gradient, part, entering in zip(block_table, block.split(lengths), inside, strict=True):
                torch.mm(part.T, entering, out=gradient)
            total = total + gram(block_table.flatten(1))
        assert isinstance(total, Tensor)
        return total, None

    @abstractmethod
    def pair(self, rows: Sequence[Tensor], owners: int) -> tuple[Tensor, Tensor] | None:
        """Δ and A of the product from some rows, or None if it had better not be made one for so many owners."""

    def spread_gram(self, rows: Tensor, pattern: Tensor, sketch: int | None = None) -> Tensor:
        r"""Gram matrix of the tasks' gradients, where each cotangent is one pattern times a number a sample and output.

        With Δₖ[bp, o] = rₖ[b, o] m[bp, o] over the positions p of sample b, the sum over positions is the same for
        all tasks: ∂Lₖ/∂W[o] = Σ_b rₖ[b, o] Σₚ m[bp, o] A[bp].

        Shapes:
            rows (K, B, out), pattern (N, out) → (K, K), float64; ``sketch``: see `sketched`.
        """
        tasks, batch, outputs = rows.shape
        short = self.sketched(sketch)
        if len(pattern) == batch and short is None:
            return self.product_gram(rows * pattern)
        wide = torch.promote_types(rows.dtype, torch.float32)
        inputs = (self.matrix() if short is None else short).to(wide).view(batch, len(pattern) // batch, -1)
        patterns = pattern.to(wide).view(batch, -1, outputs)
        total = inputs.new_zeros(tasks, tasks)
        step = max(1, _BLOCK // (max(batch, tasks) * inputs.shape[2]))
        for row, part in zip(rows.to(wide).split(step, 2), patterns.split(step, 2), strict=True):
            sums = (part.transpose(1, 2) @ inputs).transpose(0, 1)  # (some outputs, B, in)
            gradients = (row.permute(2, 0, 1) @ sums).transpose(0, 1).reshape(tasks, -1)
            total.addmm_(gradients, gradients.T)
        found = as_double(total)
        return found if self.bias is None else found + gram((rows * patterns.sum(1)).sum(1))

    def kernel_pays(self, tasks: int) -> bool:
        """Whether N×N inner products of the inputs are less work than K gradients of the weight."""
        rows, inputs, outputs = self.shape()
        kernel = rows * rows * (inputs + tasks * outputs) + tasks * tasks * rows * outputs
        return kernel < inputs * outputs * tasks * (rows + tasks)

    def accumulator(self, tasks: int, sketch: int | None = None) -> "ProductGram":
        """What gathers the cotangents of K tasks; ``sketch``: see `sketched`."""
        return ProductGram(self, tasks, sketch)

    def sketched(self, numbers: int | None) -> Tensor | None:
        r"""A R/√width with random signs R: (N, width), or None where that saves little or nothing is asked for.

        ⟨ΔₖᵀA R, ΔₗᵀA R⟩/width is ⟨ΔₖᵀA, ΔₗᵀA⟩ in the mean over R, and the more numbers a task, width times outputs,
        the closer: cosines are off by about 1/√numbers or less. R is the same in every step, or resumed runs would
        differ.
        """
        _, inputs, outputs = self.shape()
        width = 0 if numbers is None else -(-numbers // outputs)
        if numbers is None or inputs < 2 * width:
            return None
        matrix = self.matrix()
        signs = torch.randint(2, (inputs, width), generator=torch.Generator().manual_seed(0))
        short: Tensor = matrix @ ((2 * signs - 1) / width**0.5).to(matrix)
        return short


class ProductGram:
    """The Gram matrix of K tasks' gradients of one `Product`, whose cotangents come one task after another."""

    def __init__(self, layer: Product, tasks: int, sketch: int | None = None) -> None:
        rows, _, outputs = layer.shape()
        self.layer = layer
        short = layer.sketched(sketch)
        self.inputs = layer.matrix() if short is None else short
        self.kernel = short is None and layer.kernel_pays(tasks)
        width = rows if self.kernel else self.inputs.shape[1]
        size = (tasks, rows, outputs) if self.kernel else (tasks, outputs, width)
        assert width  # An empty batch has no gradients.
        self.kept = self.inputs.new_empty(size)
        self.shifts = self.inputs.new_empty(tasks, outputs)

    def put(self, task: int, cotangent: Tensor | None) -> None:
        """Take one task's cotangent; None is zero."""
        if cotangent is None:
            self.kept[task] = 0
            self.shifts[task] = 0
            return
        rows = self.layer.unfolded(cotangent)
        if self.kernel:
            self.kept[task] = rows
            return
        torch.mm(rows.T, self.inputs, out=self.kept[task])
        if self.layer.bias is not None:
            torch.sum(rows, 0, out=self.shifts[task])

    def gram(self) -> Tensor:
        """(K, K), float64."""
        if self.kernel:
            return self.layer.product_gram(self.kept, self.inputs)
        total = gram(self.kept.flatten(1))
        return total if self.layer.bias is None else total + gram(self.shifts)


@dataclass
class Linear(Product):
    """y = A Wᵀ + b.

    Attributes:
        inputs: A: (N, in), N the rows of the batch, or rows times positions.
        turned: Whether W is kept as (in, out), as in ``A @ W``.
    """

    inputs: Tensor
    turned: bool = False

    def shape(self) -> tuple[int, int, int]:
        """(N, in, out)."""
        assert self.weight is not None
        rows, inputs = self.inputs.shape
        return rows, inputs, self.weight.shape[1 if self.turned else 0]

    def matrix(self) -> Tensor:
        """A: (N, in)."""
        return self.inputs

    def unfolded(self, cotangent: Tensor) -> Tensor:
        """Δ: (N, out)."""
        return cotangent

    def unfolds(self, tasks: int) -> bool:  # noqa: ARG002
        """Nothing need be unfolded."""
        return self.weight is not None

    def rows(self, cotangent: Tensor) -> tuple[Tensor, ...]:
        """Δ: (N, out), A: (N, in)."""
        return cotangent, self.inputs

    def entering(self, width: int) -> Tensor:
        """What went in, by random signs in that many numbers where it has twice as many, and 1 for a bias: (in, N)."""
        short = self.sketched(width * self.shape()[2])
        inputs = self.inputs if short is None else short
        inputs = inputs.to(torch.promote_types(inputs.dtype, torch.float32)).T
        return inputs if self.bias is None else torch.cat([inputs, inputs.new_ones(1, inputs.shape[1])])

    def pair(self, rows: Sequence[Tensor], owners: int) -> tuple[Tensor, Tensor] | None:  # noqa: ARG002
        """The rows are those of the product."""
        return None if self.turned else (rows[0], rows[1])

    def gradients(self, *rows: Tensor) -> list[Tensor]:
        """ΔᵀA and the sum of Δ."""
        cotangent, inputs = rows
        found = []
        if self.weight is not None:
            found.append(inputs.T @ cotangent if self.turned else cotangent.T @ inputs)
        if self.bias is not None:
            found.append(cotangent.sum(0))
        return found

    def gram(self, rows: Sequence[Tensor], owners: Tensor, counts: Sequence[int]) -> tuple[Tensor, list[Tensor] | None]:
        r"""As the base class does, or from (A Aᵀ) ∘ (Δ Δᵀ), whose sum over the rows of k and l is ⟨ΔₖᵀAₖ, ΔₗᵀAₗ⟩."""
        if self.weight is None:
            return super().gram(rows, owners, counts)
        cotangent, inputs = rows
        present = sum(map(bool, counts))
        pairs = len(cotangent) ** 2 * (inputs.shape[1] + cotangent.shape[1])
        # Writing a task's gradient takes about as long as 16 rows' part in it.
        if pairs > self.weight.numel() * (len(cotangent) + present * (present + 16)):
            return super().gram(rows, owners, counts)
        wide = torch.promote_types(cotangent.dtype, torch.float32)
        cotangent, inputs = cotangent.to(wide), inputs.to(wide)
        total = cotangent.new_zeros(len(counts), len(counts))
        step = max(1, _BLOCK // len(cotangent))
        for some, entering, mine in zip(cotangent.split(step), inputs.split(step), owners.split(step), strict=True):
            kernel = inputs @ entering.T
            if self.bias is not None:
                kernel += 1
            kernel *= cotangent @ some.T
            # Sums, and no products with zeros and ones: a task that is not finite must not spoil the others.
            sums = kernel.new_zeros(len(counts), len(mine)).index_add_(0, owners, kernel)
            total.index_add_(0, mine, sums.T)
        return as_double(total), None


@dataclass
class Conv(Product):
    """A convolution of one, two or three dimensions.

    Attributes:
        inputs: (B, in, …).
        options: stride, padding, dilation, transposed, output_padding and groups, as ATen takes them.
    """

    inputs: Tensor
    options: tuple[list[int], list[int], list[int], bool, list[int], int]
    kernel: Tensor

    def shape(self) -> tuple[int, int, int]:
        """(N, in, out) of the unfolded product, N batch times positions of the output."""
        return len(self.inputs) * math.prod(self._positions()), self.kernel[0].numel(), len(self.kernel)

    def _positions(self) -> list[int]:
        stride, padding, dilation, *_ = self.options
        sizes = zip(self.inputs.shape[2:], self.kernel.shape[2:], stride, padding, dilation, strict=True)
        return [(size + 2 * p - d * (k - 1) - 1) // s + 1 for size, k, s, p, d in sizes]

    def unfolds(self, tasks: int) -> bool:
        """Not with groups, and not if transposed."""
        *_, transposed, _, groups = self.options
        return not transposed and groups == 1 and super().unfolds(tasks)

    def matrix(self) -> Tensor:
        """Every output position's inputs: (N, in·kernel)."""
        return self._unfold(self.inputs)

    def _unfold(self, inputs: Tensor) -> Tensor:
        stride, padding, dilation, *_ = self.options
        margins = [margin for p in reversed(padding) for margin in (p, p)]
        padded = torch.nn.functional.pad(inputs, margins).contiguous()
        rows, channels, *space = padded.stride()
        steps = [step * s for step, s in zip(space, stride, strict=True)]
        inner = [step * d for step, d in zip(space, dilation, strict=True)]
        sizes = (len(padded), *self._positions(), *self.kernel.shape[1:])
        return padded.as_strided(sizes, (rows, *steps, channels, *inner)).reshape(-1, self.kernel[0].numel())

    def pair(self, rows: Sequence[Tensor], owners: int) -> tuple[Tensor, Tensor] | None:
        """Where the owners' gradients take more room than what is unfolded, and calls more time than products."""
        *_, transposed, _, groups = self.options
        if transposed or groups > 1 or self.shape()[0] > owners * len(self.kernel):
            return None
        return self.unfolded(rows[0]), self._unfold(rows[1])

    def unfolded(self, cotangent: Tensor) -> Tensor:
        """Δ: (N, out)."""
        return cotangent.movedim(1, -1).reshape(-1, cotangent.shape[1])

    def rows(self, cotangent: Tensor) -> tuple[Tensor, ...]:
        """Δ: (B, out, …), the inputs: (B, in, …)."""
        return cotangent, self.inputs

    def gradients(self, *rows: Tensor) -> list[Tensor]:
        """By the convolution's own backward pass."""
        cotangent, inputs = rows
        found = []
        if self.weight is not None:
            mask = [False, True, False]
            back: Callable[..., Any] = torch.ops.aten.convolution_backward
            found.append(back(cotangent, inputs, self.kernel, None, *self.options, mask)[1])
        if self.bias is not None:
            found.append(cotangent.flatten(2).sum((0, 2)))
        return found


@dataclass
class Rowwise(Layer):
    """A layer whose parameters are no larger than a row, so that every row's part of their gradients can be formed."""

    @abstractmethod
    def each(self, *rows: Tensor) -> list[Tensor]:
        """Every row's part of the gradients: (N, …) for each of `parameters`."""

    def gradients(self, *rows: Tensor) -> list[Tensor]:
        """The sum of the rows' parts."""
        return [parts.sum(0) for parts in self.each(*rows)]

    def segments(self, rows: Sequence[Tensor], owners: Tensor, counts: Sequence[int]) -> list[Tensor]:
        """The rows' parts summed for every owner: (K, …) each."""
        parts = [part.to(torch.promote_types(part.dtype, torch.float32)) for part in self.each(*rows)]
        return [part.new_zeros(len(counts), *part.shape[1:]).index_add_(0, owners, part) for part in parts]


@dataclass
class Norm(Rowwise):
    """The factor and the shift after a normalisation, or a shift alone.

    Attributes:
        weight: The factor, or None where it has no gradient.
        bias: The shift, or None.
        normal: What gives what is multiplied by the factor, where there is one.
        channels: Whether the parameters belong to channels, the second axis, and not to the last axes.
        width: Numbers in the last axes, where they belong to those.
    """

    weight: Tensor | None
    bias: Tensor | None
    normal: Callable[[], Tensor] | None
    channels: bool
    width: int

    def parameters(self) -> list[Tensor]:
        """The factor and the shift, where they are asked for."""
        return [parameter for parameter in (self.weight, self.bias) if parameter is not None]

    def rows(self, cotangent: Tensor) -> tuple[Tensor, ...]:
        """Δ and the normalised inputs: (N, C, …) or (N, width)."""
        parts = [cotangent] if self.normal is None else [cotangent, self.normal()]
        return tuple(parts if self.channels else [part.reshape(-1, self.width) for part in parts])

    def each(self, *rows: Tensor) -> list[Tensor]:
        """Δ ∘ x̂, and Δ."""
        found = []
        if self.weight is not None:
            found.append(self._shaped(rows[0] * rows[1], self.weight))
        if self.bias is not None:
            found.append(self._shaped(rows[0], self.bias))
        return found

    def _shaped(self, rows: Tensor, parameter: Tensor) -> Tensor:
        if self.channels:
            return rows.flatten(2).sum(2) if rows.dim() > 2 else rows
        return rows.view(-1, *parameter.shape)


@dataclass
class Elementwise(Rowwise):
    """A parameter that is added to something, multiplied with it or expanded: a bias, a scale, a position, a token.

    Attributes:
        parameter: The parameter.
        factor: What it is multiplied by: a number, or a tensor that Δ's shape can hold.
    """

    parameter: Tensor
    factor: Tensor | float

    def parameters(self) -> list[Tensor]:
        """The parameter."""
        return [self.parameter]

    def rows(self, cotangent: Tensor) -> tuple[Tensor, ...]:
        """Δ times the factor; rows are the leading axes that the parameter has not."""
        product = cotangent * self.factor
        own = [1] * (product.dim() - self.parameter.dim()) + list(self.parameter.shape)
        leading = next((axis for axis, size in enumerate(own) if size != 1), len(own))
        return (product.reshape(-1, *product.shape[leading:]),)

    def each(self, *rows: Tensor) -> list[Tensor]:
        """Δ times the factor, summed over the axes that the parameter has not."""
        (part,) = rows
        size = [1] * (part.dim() - 1 - self.parameter.dim()) + list(self.parameter.shape)
        size = size[len(size) - (part.dim() - 1) :]
        axes = [axis + 1 for axis, length in enumerate(size) if length == 1 and part.shape[axis + 1] != 1]
        part = part.sum(axes, keepdim=True) if axes else part
        return [part.reshape(len(part), *self.parameter.shape)]


@dataclass
class Embedding(Layer):
    """Rows of a table.

    Attributes:
        weight: The table: (V, d).
        indices: Which rows were taken.
        padding: The index that gets no gradient, or a negative number.
    """

    weight: Tensor
    indices: Tensor
    padding: int

    def parameters(self) -> list[Tensor]:
        """The table."""
        return [self.weight]

    def rows(self, cotangent: Tensor) -> tuple[Tensor, ...]:
        """Δ: (N, d), the indices: (N,)."""
        indices = self.indices.flatten()
        cotangent = cotangent.reshape(len(indices), -1)
        return cotangent.masked_fill((indices == self.padding)[:, None], 0), indices

    def gradients(self, *rows: Tensor) -> list[Tensor]:
        """Δ added up in the table's rows."""
        cotangent, indices = rows
        return [cotangent.new_zeros(self.weight.shape).index_add_(0, indices, cotangent)]

    def gram(self, rows: Sequence[Tensor], owners: Tensor, counts: Sequence[int]) -> tuple[Tensor, list[Tensor] | None]:
        """Over the rows of the table that the batch has, block by block, and never over the whole table."""
        cotangent, indices = rows
        tasks = len(counts)
        pairs, where = torch.unique(indices * tasks + owners, return_inverse=True)
        wide = torch.promote_types(cotangent.dtype, torch.float32)
        sums = cotangent.new_zeros(len(pairs), cotangent.shape[1], dtype=wide).index_add_(0, where, cotangent.to(wide))
        _, entry, sizes = torch.unique_consecutive(pairs // tasks, return_inverse=True, return_counts=True)
        step = max(1, _BLOCK // (tasks * cotangent.shape[1]))
        total = torch.zeros(tasks, tasks, dtype=wide, device=cotangent.device)
        lengths = [int(part.sum()) for part in sizes.split(step)]
        pieces = zip(pairs.split(lengths), entry.split(lengths), sums.split(lengths), strict=True)
        for number, (pair, place, part) in enumerate(pieces):
            table = part.new_zeros(tasks, step, part.shape[1])
            table[pair % tasks, place - number * step] = part
            total += table.flatten(1) @ table.flatten(1).T
        return as_double(total), None


def find(roots: Sequence[Tensor], among: Iterable[Tensor]) -> tuple[list[Layer], list[tuple[Tensor, str]]]:
    """The layers of all kinds that are known here, under the roots, and why other parameters belong to none.

    A parameter that is used twice has a gradient that is the sum of two, for which the Gram matrix of one is not
    enough; and a hook on a parameter changes its gradient. Neither belongs to a layer here.

    Args:
        roots: Where to begin, such as losses.
        among: The parameters that count.

    Returns:
        The layers, all of whose `Layer.parameters` are among those given; and every other parameter that the graph
        has, with the reason.
    """
    wanted = {id(parameter): parameter for parameter in among}
    found: list[Layer] = []
    uses: Counter[int] = Counter()
    users: dict[int, str] = {}
    for node in nodes(roots):
        for following, _ in node.next_functions:
            if (leaf := leaf_of(following)) is not None and id(leaf) in wanted:
                uses[id(leaf)] += 1
                users[id(leaf)] = node.name()
        maker = _MAKERS.get(node.name())
        if maker is not None and (layer := maker(node, wanted)) is not None and layer.parameters():
            found.append(layer)
    # One transposed weight may enter several products: then its leaf has one edge and several layers.
    held = Counter(id(parameter) for layer in found for parameter in layer.parameters())

    def reason(key: int) -> str | None:
        if uses[key] > 1 or held[key] > 1:
            return "is used more than once"
        if wanted[key]._backward_hooks:
            return "has a hook"
        if held[key] == 0:
            return f"is used in a way that is not known here ({users[key]})"
        return None

    reasons = {key: why for key in uses if (why := reason(key)) is not None}
    layers = [layer for layer in found if not any(id(parameter) in reasons for parameter in layer.parameters())]
    covered = {id(parameter) for layer in layers for parameter in layer.parameters()}
    left = [
        (parameter, reasons.get(key, "belongs to a layer with such a one"))
        for key, parameter in wanted.items()
        if uses[key] and key not in covered
    ]
    return layers, left


def products(roots: Sequence[Tensor], among: Iterable[Tensor]) -> list[Product]:
    """The layers under the roots that are products of their weight, see `find`."""
    return [layer for layer in find(roots, among)[0] if isinstance(layer, Product) and layer.weight is not None]


# Makers: what a node is, given the parameters that count by their ids. What goes in is detached, since it hangs on
# the graph that is about to be freed.

Wanted = dict[int, Tensor]


def _wanted(node: Node | None, wanted: Wanted) -> Tensor | None:
    leaf = leaf_of(node)
    return leaf if leaf is not None and id(leaf) in wanted else None


def _linear(node: Any, wanted: Wanted) -> Layer | None:
    """``addmm(b, A, Wᵀ)`` or ``mm(A, Wᵀ)``, or the same with W."""
    added = node.name() == "AddmmBackward0"
    if added and node._saved_alpha != 1:
        return None
    bias = _wanted(node.next_functions[0][0], wanted) if added and node._saved_beta == 1 else None
    if bias is not None and bias.dim() != 1:
        bias = None
    last = node.next_functions[-1][0]
    weight = _wanted(last, wanted)
    turned = weight is not None
    if last is not None and last.name() == "TBackward0":
        weight = _wanted(last.next_functions[0][0], wanted)
    if weight is None:
        return None if bias is None else Elementwise(node, bias, 1.0)
    inputs = node._saved_mat1 if added else node._saved_self
    return Linear(node, weight, bias, inputs.detach(), turned)


def _conv(node: Any, wanted: Wanted) -> Layer | None:
    weight, bias = _affine(node, wanted)
    if weight is None:
        return None if bias is None else Norm(node, None, bias, None, True, 0)
    inputs: Tensor = node._saved_input.detach()
    kernel: Tensor = node._saved_weight.detach()

    def each(option: Sequence[int]) -> list[int]:
        return [int(value) for value in option] * ((inputs.dim() - 2) // len(option))

    options = (
        each(node._saved_stride),
        each(node._saved_padding),
        each(node._saved_dilation),
        bool(node._saved_transposed),
        each(node._saved_output_padding),
        int(node._saved_groups),
    )
    return Conv(node, weight, bias, inputs, options, kernel)


def _embedding(node: Any, wanted: Wanted) -> Layer | None:
    weight = _wanted(node.next_functions[0][0], wanted)
    # Sparse gradients, and those divided by frequencies in the whole batch, are others than the sum over rows.
    if weight is None or node._saved_sparse or node._saved_scale_grad_by_freq:
        return None
    padding = int(node._saved_padding_idx)
    # The graph keeps -1, none at all, as an unsigned number.
    return Embedding(node, weight, node._saved_indices.detach(), padding if padding < len(weight) else -1)


def _layer_norm(node: Any, wanted: Wanted) -> Layer | None:
    weight, bias = _affine(node, wanted)
    width = math.prod(int(size) for size in node._saved_normalized_shape)
    if weight is None:
        return Norm(node, None, bias, None, False, width)
    inputs, mean, scale = (saved.detach() for saved in (node._saved_input, node._saved_result1, node._saved_result2))
    return Norm(node, weight, bias, lambda: (inputs - mean) * scale, False, width)


def _group_norm(node: Any, wanted: Wanted) -> Layer | None:
    weight, bias = _affine(node, wanted)
    if weight is None:
        return Norm(node, None, bias, None, True, 0)
    saved: list[Tensor] = [node._saved_input, node._saved_result1, node._saved_result2]
    inputs, mean, scale = (part.detach() for part in saved)

    def normal() -> Tensor:
        groups = (len(inputs), mean.numel() // len(inputs), -1)
        return ((inputs.reshape(groups) - mean.view(groups)) * scale.view(groups)).view(inputs.shape)

    return Norm(node, weight, bias, normal, True, 0)


def _batch_norm(node: Any, wanted: Wanted) -> Layer | None:
    """In evaluation mode: in training it mixes the samples of a batch."""
    weight, bias = _affine(node, wanted)
    if node._saved_training or node._saved_running_mean is None:
        return None
    if weight is None:
        return Norm(node, None, bias, None, True, 0)
    saved: list[Tensor] = [node._saved_input, node._saved_running_mean, node._saved_running_var]
    inputs, mean = saved[0].detach(), saved[1]
    scale = torch.rsqrt(saved[2] + float(node._saved_eps))

    def normal() -> Tensor:
        shape = (1, -1, *[1] * (inputs.dim() - 2))
        return (inputs - mean.view(shape)) * scale.view(shape)

    return Norm(node, weight, bias, normal, True, 0)


def _affine(node: Node, wanted: Wanted) -> tuple[Tensor | None, Tensor | None]:
    weight, bias = (_wanted(following, wanted) for following, _ in node.next_functions[1:3])
    return weight, bias


def _add(node: Any, wanted: Wanted) -> Layer | None:
    for position, (following, _) in enumerate(node.next_functions):
        if (leaf := _wanted(following, wanted)) is not None:
            return Elementwise(node, leaf, float(node._saved_alpha) if position else 1.0)
    return None


def _multiply(node: Any, wanted: Wanted) -> Layer | None:
    for following, other in zip(node.next_functions, ("_saved_other", "_saved_self"), strict=True):
        if (leaf := _wanted(following[0], wanted)) is not None:
            return Elementwise(node, leaf, getattr(node, other).detach())
    return None


def _expand(node: Any, wanted: Wanted) -> Layer | None:
    leaf = _wanted(node.next_functions[0][0], wanted)
    return None if leaf is None else Elementwise(node, leaf, 1.0)


_MAKERS: dict[str, Callable[[Any, Wanted], Layer | None]] = {
    "AddmmBackward0": _linear,
    "MmBackward0": _linear,
    "ConvolutionBackward0": _conv,
    "EmbeddingBackward0": _embedding,
    "NativeLayerNormBackward0": _layer_norm,
    "NativeGroupNormBackward0": _group_norm,
    "NativeBatchNormBackward0": _batch_norm,
    "CudnnBatchNormBackward0": _batch_norm,
    "AddBackward0": _add,
    "MulBackward0": _multiply,
    "ExpandBackward0": _expand,
}
