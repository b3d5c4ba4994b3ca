"""Bags of instances: padded with a mask, or flat with offsets, and from one to the other."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor

# A tuple's eq would compare tensors elementwise, hence eq=False: two bags are equal when they are the same object.


@dataclass(frozen=True, eq=False)
class Bag:
    """A batch of B bags, each with its own number of instances, in one of two forms that mean the same.

    Padded: x (B, N, D), with a mask where bags are shorter than N. What padding holds is never read, NaN included.
    Flat: x (ΣN, D), the bags one after another, bag b at ``offsets[b]:offsets[b + 1]``. A bag may be empty.

    Args:
        x: Instances, (B, N, D) or (ΣN, D).
        mask: (B, N) bool, True where an instance is present. None: all of them are. Padded form only.
        offsets: (B + 1,) int64, from 0 to ΣN, never decreasing. Flat form only, which needs it.
        coordinates: Where each instance lies, (B, N, C) or (ΣN, C) as x, C = 2 or 3. A bag has one space: where its
            instances come from several slides, move the slides apart first, or they lie on top of one another.
        edges: (2, E) int64, pairs of instances of one bag by their number in the flat form, in either form.

    Cost:
        The checks of offsets and edges read them on the host: on a GPU that waits for them once.
    """

    x: Tensor
    mask: Tensor | None = None
    offsets: Tensor | None = None
    coordinates: Tensor | None = None
    edges: Tensor | None = None

    def __post_init__(self) -> None:
        for name in ("x", "mask", "offsets", "coordinates", "edges"):
            value = getattr(self, name)
            if not isinstance(value, Tensor) and (value is not None or name == "x"):
                raise ValueError(f"{name} must be a tensor, not a {type(value).__name__}: torch.as_tensor makes one")
        self._check_form()
        if self.coordinates is not None and (
            self.coordinates.shape[:-1] != self.x.shape[:-1] or self.coordinates.shape[-1] not in (2, 3)
        ):
            wanted = (*self.x.shape[:-1], "2 or 3")
            raise ValueError(
                f"coordinates must be ({', '.join(map(str, wanted))}), one point for each instance of x "
                f"{tuple(self.x.shape)}, not {tuple(self.coordinates.shape)}"
            )
        if self.edges is not None:
            self._check_edges(self.edges)

    def _check_form(self) -> None:
        x, mask, offsets = self.x, self.mask, self.offsets
        if mask is not None and offsets is not None:
            raise ValueError("a bag has a mask (padded, x (B, N, D)) or offsets (flat, x (sum N, D)), not both")
        if x.ndim == 3 and offsets is None:
            if mask is not None and (mask.shape != x.shape[:2] or mask.dtype != torch.bool):
                raise ValueError(
                    f"mask must be bool {tuple(x.shape[:2])}, True where an instance is present, "
                    f"not {str(mask.dtype).removeprefix('torch.')} {tuple(mask.shape)}"
                )
            return
        if x.ndim != 2 or mask is not None or offsets is None:
            given = "offsets" if offsets is not None else "a mask" if mask is not None else "no offsets"
            raise ValueError(
                "x must be padded (B, N, D), or flat (sum N, D) with offsets (one bag: [0, N]), "
                f"not {tuple(x.shape)} with {given}"
            )
        if offsets.ndim != 1 or len(offsets) < 1 or offsets.dtype != torch.int64:
            raise ValueError(
                f"offsets must be int64 (B + 1,), not {str(offsets.dtype).removeprefix('torch.')} "
                f"{tuple(offsets.shape)}"
            )
        if torch.compiler.is_compiling():  # what follows reads values
            return
        if int(offsets[0]) != 0 or int(offsets[-1]) != len(x) or bool((offsets.diff() < 0).any()):
            raise ValueError(
                f"offsets must start at 0, never decrease and end at the number of instances, {len(x)}: "
                f"{offsets[:8].tolist()}{' …' if len(offsets) > 8 else ''} ends at {int(offsets[-1])}"
            )

    def _check_edges(self, edges: Tensor) -> None:
        if edges.ndim != 2 or len(edges) != 2 or edges.dtype != torch.int64:
            raise ValueError(
                f"edges must be int64 (2, E), not {str(edges.dtype).removeprefix('torch.')} {tuple(edges.shape)}"
            )
        if torch.compiler.is_compiling() or edges.shape[1] == 0:
            return
        owner = self.owner
        if int(edges.min()) < 0 or int(edges.max()) >= len(owner):
            raise ValueError(
                f"edges must number the {len(owner)} instances that are present, in the flat order, from 0: "
                f"found {int(edges.min())} to {int(edges.max())}"
            )
        across = owner[edges[0]] != owner[edges[1]]
        if bool(across.any()):
            i, j = edges[:, across][:, 0].tolist()
            raise ValueError(
                f"edges must stay within a bag: ({i}, {j}) joins bag {int(owner[i])} and bag {int(owner[j])}"
            )

    @classmethod
    def of(cls, bags: Sequence[Any], coordinates: Sequence[Any] | None = None) -> Bag:
        """The flat form of a list of bags, each an array or tensor (Nᵦ, D); coordinates likewise."""
        if absent := [b for b, bag in enumerate(bags) if bag is None]:
            raise ValueError(f"bag {absent[0]} is None: a sample without instances is torch.zeros(0, D)")
        xs = [torch.as_tensor(bag) for bag in bags]
        if not xs:
            raise ValueError("Bag.of needs at least one bag, for the number of features")
        for b, x in enumerate(xs):
            if x.ndim != 2 or x.shape[1] != xs[0].shape[1]:
                width = xs[0].shape[1] if xs[0].ndim == 2 else "features"
                raise ValueError(f"bag {b} must be (instances, {width}), not {tuple(x.shape)}")
        points = None if coordinates is None else [torch.as_tensor(p) for p in coordinates]
        if points is not None and [len(p) for p in points] != [len(x) for x in xs]:
            raise ValueError("coordinates must have one point for each instance of each bag")
        sizes = torch.tensor([0, *(len(x) for x in xs)], device=xs[0].device)
        return cls(torch.cat(xs), offsets=sizes.cumsum(0), coordinates=None if points is None else torch.cat(points))

    @property
    def sizes(self) -> Tensor:
        """How many instances each bag has: (B,)."""
        if self.offsets is not None:
            return self.offsets.diff()
        return (
            self.x.new_full((len(self.x),), self.x.shape[1], dtype=torch.int64)
            if self.mask is None
            else self.mask.sum(1)
        )

    @property
    def owner(self) -> Tensor:
        """The bag of each instance, in the flat order: (ΣN,)."""
        sizes = self.sizes
        return torch.arange(len(sizes), device=sizes.device).repeat_interleave(sizes)

    def flat(self) -> Bag:
        """The same bags without padding. A flat bag is returned as it is."""
        if self.offsets is not None:
            return self
        sizes = self.sizes
        offsets = torch.cat([sizes.new_zeros(1), sizes.cumsum(0)])

        def pick(values: Tensor) -> Tensor:
            return values.flatten(0, 1) if self.mask is None else values[self.mask]

        points = None if self.coordinates is None else pick(self.coordinates)
        return Bag(pick(self.x), None, offsets, points, self.edges)

    def padded(self) -> Bag:
        """The same bags filled up with zeros to the longest. A padded bag gets the mask that it may lack."""
        if self.offsets is None:
            if self.mask is not None:
                return self
            return replace(self, mask=self.x.new_ones(self.x.shape[:2], dtype=torch.bool))
        sizes = self.sizes
        longest = int(sizes.max()) if len(sizes) else 0
        mask = torch.arange(longest, device=sizes.device) < sizes[:, None]

        def fill(values: Tensor) -> Tensor:
            # Writing through an index keeps the gradient, and zero is what padding holds.
            return values.new_zeros(*mask.shape, values.shape[-1]).index_put((mask,), values)

        points = None if self.coordinates is None else fill(self.coordinates)
        return Bag(fill(self.x), mask, None, points, self.edges)

    def to(self, device: torch.device | str | torch.dtype) -> Bag:
        """The same bags on a device, or with features of a dtype; coordinates keep theirs."""
        if isinstance(device, torch.dtype):
            return replace(self, x=self.x.to(device))

        def move(values: Tensor | None) -> Tensor | None:
            return None if values is None else values.to(device)

        return Bag(self.x.to(device), move(self.mask), move(self.offsets), move(self.coordinates), move(self.edges))

    def __len__(self) -> int:
        return len(self.x) if self.offsets is None else len(self.offsets) - 1

    def __getitem__(self, index: int | slice | Sequence[int] | Tensor) -> Bag:
        """The picked bags, in the picked order and the same form; an int picks one and keeps it a batch."""
        # Numbers of bags, whatever the index was: a bool tensor, a slice, negative numbers.
        bags = torch.arange(len(self), device=self.x.device)[[index] if isinstance(index, int) else index].reshape(-1)
        if self.edges is not None and bags.unique().numel() != bags.numel():
            raise IndexError("a bag with edges can be picked once only, for its edges name its instances")
        edges = None if self.edges is None else self._edges_of(bags, self.edges)
        if self.offsets is None:
            mask = None if self.mask is None else self.mask[bags]
            points = None if self.coordinates is None else self.coordinates[bags]
            return Bag(self.x[bags], mask, None, points, edges)
        rows = self._rows_of(bags)
        sizes = self.sizes[bags]
        offsets = torch.cat([sizes.new_zeros(1), sizes.cumsum(0)])
        return Bag(self.x[rows], None, offsets, None if self.coordinates is None else self.coordinates[rows], edges)

    def _rows_of(self, bags: Tensor) -> Tensor:
        """The numbers of the picked bags' instances in the flat order."""
        sizes = self.sizes
        starts, sizes = (sizes.cumsum(0) - sizes)[bags], sizes[bags]
        within = torch.arange(int(sizes.sum()), device=sizes.device) - (sizes.cumsum(0) - sizes).repeat_interleave(
            sizes
        )
        return starts.repeat_interleave(sizes) + within

    def _edges_of(self, bags: Tensor, edges: Tensor) -> Tensor:
        """The picked bags' edges, with the new numbers of their instances."""
        rows = self._rows_of(bags)
        number = rows.new_full((len(self.owner),), -1)
        number[rows] = torch.arange(len(rows), device=rows.device)
        edges = number[edges]
        return edges[:, (edges >= 0).all(0)]
