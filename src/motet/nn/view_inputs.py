"""What a model of several views is given, checked: vectors, bags, views and rows that are missing."""

import difflib
import math
from collections.abc import Collection, Mapping
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor

from motet.nn.bag import Bag
from motet.nn.masking import segment_ids


@dataclass(frozen=True)
class ViewInputs:
    """The views of one batch, as they came.

    Attributes:
        values: The views that are there: (B, …) for vectors, a Bag for bags. Rows that are missing hold anything.
        allowed: (B, V) bool, False where ``view_mask`` says that a view is missing, or it is not there at all.
    """

    values: dict[str, Tensor | Bag]
    allowed: Tensor


def read_views(
    inputs: Any, view_mask: Mapping[str, Tensor] | None, widths: Mapping[str, int | None], bags: Collection[str]
) -> ViewInputs:
    """Check what a model is given against its views.

    Args:
        inputs: {view: Tensor | Bag | None}. A tensor (B, N, D) of a bag view is a bag without padding.
        view_mask: {view: (B,) bool}, False where the view is missing.
        widths: All views; None for one that goes into a module of the user's, which is not checked.
        bags: Those of them that are bags.

    Raises:
        ValueError: for an unknown view, a wrong width, bags for a vector view, a vector for a bag view, batches of
            different sizes, and if there is no view at all.
    """
    if not isinstance(inputs, Mapping):
        raise ValueError(f"inputs must be a dict of views, as {{{next(iter(widths))!r}: x}}, not {_type(inputs)}")
    if view_mask is not None and not isinstance(view_mask, Mapping):
        raise ValueError(
            f"view_mask must be a dict of views, as {{{next(iter(widths))!r}: there}} with there (B,) bool, "
            f"not {_type(view_mask)}"
        )
    for what, given in (("inputs", inputs), ("view_mask", view_mask or {})):
        for name in given:
            if name not in widths:
                near = difflib.get_close_matches(str(name), widths, n=1)
                hint = f"did you mean {near[0]!r}?" if near else f"the views are {', '.join(widths)}"
                raise ValueError(f"{what} holds {name!r}, which is no view: {hint}")
    values: dict[str, Tensor | Bag] = {}
    for name, width in widths.items():
        if (value := inputs.get(name)) is not None:
            values[name] = (_bag if name in bags else _vector)(name, value, width)
    if not values:
        raise ValueError("no view is there: give at least one of inputs, with NaN in the rows that lack it")
    sizes = {name: len(value) for name, value in values.items()}
    size = next(iter(sizes.values()))
    if any(other != size for other in sizes.values()):
        counted = ", ".join(f"{name} {number}" for name, number in sizes.items())
        raise ValueError(f"the views have different numbers of samples ({counted}): rows must be the same samples")
    first = next(iter(values.values()))
    device = first.x.device if isinstance(first, Bag) else first.device
    allowed = []
    for name in widths:
        mask = None if view_mask is None else view_mask.get(name)
        if mask is not None and not isinstance(mask, Tensor):
            raise ValueError(f"view_mask of {name!r} must be a tensor, not {_type(mask)}: torch.as_tensor makes one")
        if mask is not None and (mask.shape != (size,) or mask.dtype != torch.bool):
            given_as = f"{str(mask.dtype).removeprefix('torch.')} {tuple(mask.shape)}"
            raise ValueError(f"view_mask of {name!r} must be bool ({size},), True where present, not {given_as}")
        there = torch.full((size,), name in values, dtype=torch.bool, device=device)
        allowed.append(there if mask is None else there & mask.to(device))
    return ViewInputs(values, torch.stack(allowed, dim=1))


def _vector(name: str, value: Any, width: int | None) -> Tensor:
    if not isinstance(value, Tensor):
        fix = f"list it in bags={{{name!r}}} if it is one" if isinstance(value, Bag) else "make it a tensor"
        raise ValueError(f"view {name!r} is a vector for each sample and was given {_type(value)}: {fix}")
    if width is None:
        if value.ndim < 2:
            raise ValueError(f"view {name!r} must be (B, …), not {tuple(value.shape)}")
        return value
    if value.ndim == 3:
        raise ValueError(
            f"view {name!r} is a vector for each sample (B, {width}) and was given bags of them "
            f"{tuple(value.shape)}: list it in bags={{{name!r}}} if it is one"
        )
    if value.ndim != 2 or value.shape[1] != width:
        raise ValueError(f"view {name!r} must be (B, {width}), not {tuple(value.shape)}")
    return _floating(name, value)


def _bag(name: str, value: Any, width: int | None) -> Bag:
    if isinstance(value, Tensor) and value.ndim == 3:
        value = Bag(value)
    if not isinstance(value, Bag):
        given = f"a tensor {tuple(value.shape)}" if isinstance(value, Tensor) else _type(value)
        raise ValueError(
            f"view {name!r} is a bag for each sample: give a Bag, as Bag.of([…]), or (B, N, D), not {given}"
        )
    if width is not None:
        if value.x.shape[-1] != width:
            raise ValueError(f"view {name!r} must have instances of width {width}, not {value.x.shape[-1]}")
        _floating(name, value.x)
    return value


def _floating(name: str, x: Tensor) -> Tensor:
    if not x.is_floating_point():
        raise ValueError(f"view {name!r} must hold floating-point numbers, not {str(x.dtype).removeprefix('torch.')}")
    return x


def _type(value: Any) -> str:
    return "a Bag" if isinstance(value, Bag) else f"a {type(value).__name__}"


def present_rows(x: Tensor, allowed: Tensor) -> Tensor:
    """Which samples of a vector view are there: (B, …), (B,) → (B,). One that is all NaN is not."""
    present: Tensor = allowed & ~x.isnan().flatten(1).all(1)
    return present


def present_instances(bag: Bag, allowed: Tensor) -> Tensor:
    """Which instances of a bag view are there, in the bag's form: (B, N) or (ΣN,). One that is all NaN is not."""
    there = ~bag.x.isnan().all(-1)
    if bag.offsets is not None:
        return there & allowed[segment_ids(bag.offsets, len(bag.x))]
    there = there & allowed[:, None]
    return there if bag.mask is None else there & bag.mask


def check_finite(name: str, rows: Tensor, where: Tensor | None = None, bag: Bag | None = None) -> None:
    """Raise a ValueError that names the first row of a view that is neither all there nor all missing.

    Args:
        name: Of the view.
        rows: (n, …), with zeros in place of what is missing.
        where: Of instances: each row's place in the bags as given.
        bag: These.

    Cost:
        The host waits for the device once.
    """
    # A sum is a cheap first look; it may overflow without any such row.
    if torch.compiler.is_compiling() or not rows.is_floating_point() or bool(rows.detach().sum().isfinite()):
        return
    bad = ~rows.detach().flatten(1).isfinite().all(1)
    if not bool(bad.any()):
        return
    row = int(bad.nonzero()[0, 0])
    if where is None or bag is None:
        place, fix = f"row {row}", "make the whole row NaN if the view is missing there"
    else:
        row, fix = int(where[row]), "make the whole instance NaN if it is missing"
        if bag.offsets is None:
            b, number = divmod(row, bag.x.shape[1])
        else:
            b = int(bag.owner[row])
            number = row - int(bag.offsets[b])
        place = f"instance {number} of bag {b}"
    raise ValueError(f"view {name!r} has NaN or infinite values in {place}, from 0: fill them in, or {fix}")


@dataclass(frozen=True)
class Instances:
    """The instances that are there, one after another, and where they came from.

    Attributes:
        places: Their rows in the given form: of its (B·N,) or (ΣN,) rows.
        numbers: Their numbers in the flat form of the bags as given, which is how edges name them.
        shape: (B, N) or (ΣN,), of the given form.
        offsets: (B + 1,), where each bag begins among them.
        coordinates: (n, C), if the bags have them.
        edges: (2, E) by their new numbers, if the bags have them.
    """

    places: Tensor
    numbers: Tensor
    shape: tuple[int, ...]
    offsets: Tensor
    coordinates: Tensor | None
    edges: Tensor | None

    def of(self, values: Tensor) -> Tensor:
        """Their rows of something in the given form: (B, N, …) or (ΣN, …) → (n, …)."""
        return values.flatten(0, len(self.shape) - 1)[self.places]

    def back(self, values: Tensor, fill: float = 0.0) -> Tensor:
        """The other way round, with a number where there is no instance."""
        everywhere = values.new_full((math.prod(self.shape), *values.shape[1:]), fill)
        return everywhere.index_copy(0, self.places, values).reshape(*self.shape, *values.shape[1:])


def pick(bag: Bag, there: Tensor) -> Instances:
    """Find the instances that are there, (B, N) or (ΣN,) bool. Waits for the device, as it counts them."""
    places = there.flatten().nonzero().squeeze(1)
    if bag.offsets is None:
        sizes = there.sum(1)
        numbers = places if bag.mask is None else (bag.mask.flatten().cumsum(0) - 1)[places]
    else:
        sizes, numbers = there.new_zeros(len(bag), dtype=torch.int64).index_add(0, bag.owner, there.long()), places
    edges = bag.edges
    if edges is not None:
        new = edges.new_full((there.numel(),), -1).index_copy(0, numbers, torch.arange(len(numbers)).to(edges))
        edges = new[edges]
        edges = edges[:, (edges >= 0).all(0)]
    offsets = torch.cat([sizes.new_zeros(1), sizes.cumsum(0)])
    found = Instances(places, numbers, tuple(there.shape), offsets, None, edges)
    return found if bag.coordinates is None else replace(found, coordinates=found.of(bag.coordinates))


def same_layout(bags: Mapping[str, Bag]) -> dict[str, Bag]:
    """Bags whose instances correspond, all padded or all flat.

    Raises:
        ValueError: if a sample has different numbers of instances in two views.
    """
    padded = {bag.x.shape[1] for bag in bags.values() if bag.offsets is None}
    if len(padded) > 1 or any(bag.offsets is not None for bag in bags.values()):
        bags = {name: bag.flat() for name, bag in bags.items()}
    (first, one), *others = bags.items()
    for name, other in others:
        same = one.x.shape[:-1] == other.x.shape[:-1]
        if same and one.offsets is not None and other.offsets is not None:
            same = torch.equal(one.offsets, other.offsets)
        elif same and (one.mask is not None or other.mask is not None):
            masks = one.padded().mask, other.padded().mask
            same = masks[0] is not None and masks[1] is not None and torch.equal(masks[0], masks[1])
        if not same:
            raise ValueError(
                f"views {first!r} and {name!r} have different numbers of instances, and with wiring='aligned' each "
                "instance has all views: put NaN in the rows that lack one, or use wiring='ragged'"
            )
    return dict(bags)
