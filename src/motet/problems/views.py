"""Inputs that are more than one tensor: several views of the same rows, vectors or bags of instances."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

from motet.nn.bag import Bag

View = Tensor | Bag


@dataclass(frozen=True, eq=False)
class Views:
    """N rows, each seen in several ways.

    A row of a vector view that is all NaN is missing in that view, and so is an empty bag. `len` is the number of rows,
    ``views[rows]`` picks some of them in every view, with a tensor of numbers or truth values or a slice, as from a
    tensor: a training loop needs to know no more.

    Args:
        views: By name: (N, D) tensors, or `Bag`s of N bags.

    Raises:
        ValueError: if there is no view, or they differ in their number of rows.

    >>> views = Views({"text": torch.randn(3, 4), "patches": Bag.of([torch.randn(n, 2) for n in (5, 0, 1)])})
    >>> len(views), views[torch.tensor([2, 0])].views["patches"].sizes.tolist(), views.missing("patches").tolist()
    (3, [1, 5], [False, True, False])
    """

    views: Mapping[str, View]

    def __post_init__(self) -> None:
        if not self.views:
            raise ValueError("Views: give at least one view")
        for name, view in self.views.items():
            if isinstance(view, Tensor) and view.ndim != 2:
                raise ValueError(f"view {name!r} must be (N, D), or a Bag for instances, not {tuple(view.shape)}")
        rows = {name: len(view) for name, view in self.views.items()}
        if len(set(rows.values())) > 1:
            raise ValueError(f"all views must have the same rows, and they have {_listed(rows)}")

    def __len__(self) -> int:
        return len(next(iter(self.views.values())))

    def __getitem__(self, rows: Tensor | slice) -> "Views":
        return Views({name: view[rows] for name, view in self.views.items()})

    # Without it Python would count rows upwards until one fails.
    __iter__ = None

    @property
    def device(self) -> torch.device:
        """Where the first view is."""
        return next(self.tensors())[1].device

    @property
    def widths(self) -> dict[str, int]:
        """D of each view."""
        return {name: _values(view).shape[-1] for name, view in self.views.items()}

    def to(self, device: torch.device | str) -> "Views":
        """The same on a device."""
        return Views({name: view.to(device) for name, view in self.views.items()})

    def missing(self, name: str) -> Tensor:
        """Which rows the view lacks: bool (N,)."""
        view = self.views[name]
        return view.sizes == 0 if isinstance(view, Bag) else view.isnan().all(dim=1)

    def tensors(self) -> Iterator[tuple[str, Tensor]]:
        """All that the views are made of, by name."""
        for name, view in self.views.items():
            if isinstance(view, Tensor):
                yield name, view
                continue
            for part in ("x", "mask", "offsets", "coordinates", "edges"):
                tensor = getattr(view, part)
                if tensor is not None:
                    yield name if part == "x" else f"{name}.{part}", tensor


Inputs = Tensor | Views
"""What a model of a problem takes."""


def standardised(views: Views, train: Tensor) -> Views:
    """Each feature with mean 0 and deviation 1 over the training rows that have the view, or over their instances.

    A feature that is constant there becomes 0, and missing rows stay so. In float32.

    Raises:
        ValueError: if no training row has a view.
    """
    done: dict[str, View] = {}
    for name, view in views.views.items():
        flat = view.flat() if isinstance(view, Bag) else view
        known = flat[train].x if isinstance(flat, Bag) else flat[train][~flat[train].isnan().all(dim=1)]
        if not len(known):
            raise ValueError(f"no training row has the view {name!r}: take it out, or split another way")
        known = known.double()
        mean, deviation = known.mean(dim=0), known.std(dim=0, correction=0)
        scale = torch.where(deviation <= 1e-8 * mean.abs().clamp(min=1), torch.inf, deviation)
        values = ((_values(flat).double() - mean) / scale).float()
        if isinstance(flat, Bag):
            points = None if flat.coordinates is None else flat.coordinates.float()
            done[name] = Bag(values, None, flat.offsets, points, flat.edges)
        else:
            done[name] = values
    return Views(done)


def _values(view: View) -> Tensor:
    return view.x if isinstance(view, Bag) else view


def _listed(rows: Mapping[str, int]) -> str:
    return ", ".join(f"{count} ({name!r})" for name, count in rows.items())
