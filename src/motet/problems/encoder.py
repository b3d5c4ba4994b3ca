"""The trunk of a problem with several views, unless it brings its own."""

from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn

from motet.nn.bag import Bag
from motet.nn.pooling import GatedAttentionPooling
from motet.problems.views import Views

if TYPE_CHECKING:
    from motet.problems.base import Training


class ViewEncoder(nn.Module):
    """Each view through layers of its own, bags pooled by gated attention, all side by side into one more layer.

    A view that a row lacks is a learned vector.

    Args:
        widths: D of each view.
        bags: The views that are bags.
        width: Of every layer and of the features.
        depth: Layers from a view to the features, the common one included; a view has one of its own at least.
        dropout: After each layer.

    Shapes:
        `Views` of N rows → (N, width).
    """

    def __init__(self, widths: dict[str, int], bags: set[str], width: int, depth: int, dropout: float = 0.0) -> None:
        super().__init__()
        # Lists and not dicts of modules, which forbid some names: a view may be called anything.
        self.names = tuple(widths)
        self.layers = nn.ModuleList(_layers(d, width, max(1, depth - 1), dropout) for d in widths.values())
        self.pooling = nn.ModuleList(
            GatedAttentionPooling(width) if name in bags else nn.Identity() for name in self.names
        )
        self.null = nn.Parameter(torch.zeros(len(self.names), width))
        """What stands for a missing view; a pooling has its own vector for an empty bag."""
        self.fuse = _layers(len(self.names) * width, width, 1, dropout)

    def forward(self, inputs: Views) -> Tensor:
        """Features of each row."""
        parts = []
        for name, layers, pooling, null in zip(self.names, self.layers, self.pooling, self.null, strict=True):
            view = inputs.views[name]
            if isinstance(view, Bag):
                bag = view.flat()
                parts.append(pooling(layers(bag.x), offsets=bag.offsets)[0])
            else:
                missing = inputs.missing(name)[:, None]
                parts.append(torch.where(missing, null, layers(view.masked_fill(missing, 0))))
        features: Tensor = self.fuse(torch.cat(parts, dim=1))
        return features


def view_encoder(inputs: Views, training: "Training") -> nn.Module:
    """The encoder for inputs like these."""
    bags = {name for name, view in inputs.views.items() if isinstance(view, Bag)}
    return ViewEncoder(inputs.widths, bags, training.width, training.depth, training.dropout)


def _layers(inputs: int, width: int, depth: int, dropout: float) -> nn.Sequential:
    layers: list[nn.Module] = []
    for _ in range(depth):
        layers += [nn.Linear(inputs, width), nn.ReLU()]
        if dropout:
            layers.append(nn.Dropout(dropout))
        inputs = width
    return nn.Sequential(*layers)
