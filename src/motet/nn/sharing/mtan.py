"""Multi-task attention network: Liu et al., CVPR 2019, arXiv 1803.10704."""

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from motet.nn.sharing.base import Info, Owned, Sharing
from motet.nn.sharing.copying import stages as members
from motet.nn.sharing.gating import taps
from motet.nn.sharing.widths import gives


class MTAN(Sharing):
    r"""One convolutional trunk, and in every stage a soft mask a task on its channels and positions.

    With uˡ and pˡ what lies before and behind the last member of stage l,

        âₖˡ = aₖˡ ⊙ pˡ,    aₖˡ = σ(BN hₖˡ(ReLU(BN gₖˡ([uˡ; fˡ(âₖˡ⁻¹)])))),    zₖ = âₖᴸ,

    where g and h are convolutions of size 1, each task's own, and f is one of size 3 with BN, ReLU and max-pooling to
    the positions of uˡ, shared by the tasks. The first stage has no f.

    Args:
        stages: Sequential or list of L modules, used as they are, not copied. In a Sequential of several members the
            last one leads from u to p, as the last block of a ResNet's layer; of any other module u = p. Put what comes
            before the first stage into it.
        tasks: K names.

    Shapes:
        x (B, C, …) → {task: (B, C', …)} as the trunk's output, 1 to 3 dimensions behind the channels;
        info["masks"]: for each stage (B, K, C', …), in (0, 1).

    Note:
        Reconstruction in these: f gives as many channels as u, and g as many as p, as far as the authors' code for
        SegNet goes; theirs for ResNets makes them narrower. Where u has other positions than p it is averaged to those
        of p. The paper's masks in a decoder are not here: heads take zₖ.

        f lies above the features that ``info`` names: routes at the features give it the plain sum of the gradients.
    """

    def __init__(self, stages: nn.Sequential | Sequence[nn.Module], tasks: Sequence[str]) -> None:
        super().__init__(tasks)
        self.stages: Any = nn.ModuleList(_split(stage) for stage in members(stages))  # type: ignore[arg-type]
        kinds = {type(layer) for layer in self.stages.modules() if isinstance(layer, nn.modules.conv._ConvNd)}
        sizes = {size for size in (1, 2, 3) if getattr(nn, f"Conv{size}d") in kinds}
        if len(sizes) != 1:
            raise ValueError(
                f"stages must hold convolutions of one dimension, 1, 2 or 3, and they hold {sorted(sizes)}"
            )
        self.size = sizes.pop()
        self.attention: Any = nn.ModuleList(nn.ModuleList() for _ in self.tasks)
        self.passing = nn.ModuleList()
        before = 0
        stage: Any
        own: Any
        for number, stage in enumerate(self.stages):
            inner, outer = gives(stage[0]), gives(stage)
            if inner is None or outer is None:
                raise ValueError(f"stages[{number}] does not tell its channels: set out_channels on its members")
            for own in self.attention:
                own.append(self._mask(inner * (2 if number else 1), outer))
            if number:
                self.passing.append(self._layer(before, inner, 3))
            before = outer
        self.out_features = before

    def forward(self, x: Tensor) -> tuple[dict[str, Tensor], Info]:
        """See the class."""
        hidden: list[Tensor] = []
        masks: list[Tensor] = []
        ends: list[Tensor] = []
        p = x
        for number, (first, last) in enumerate(self.stages):
            u = first(p)
            p = last(u)
            ends += [u, p]
            if u.shape[2:] != p.shape[2:]:
                u = _POOLS["avg"][self.size - 1](u, p.shape[2:])
            seen = [u] * len(self.tasks)
            if number:
                passed = (_POOLS["max"][self.size - 1](self.passing[number - 1](h), u.shape[2:]) for h in hidden)
                seen = [torch.cat([u, own], 1) for own in passed]
            found = [own[number](h) for own, h in zip(self.attention, seen, strict=True)]
            hidden = [mask * p for mask in found]
            masks.append(torch.stack(found, 1))
        info: Info = {"regularisers": {}, "features": taps(*ends), "masks": masks}
        return dict(zip(self.tasks, hidden, strict=True)), info

    def owned(self, index: int) -> Owned:
        """Its masks."""
        return [self.attention[index]]

    def _layer(self, inputs: int, outputs: int, width: int) -> nn.Sequential:
        convolution = getattr(nn, f"Conv{self.size}d")(inputs, outputs, width, padding=width // 2)
        return nn.Sequential(convolution, getattr(nn, f"BatchNorm{self.size}d")(outputs), nn.ReLU())

    def _mask(self, inputs: int, outputs: int) -> nn.Sequential:
        masking = self._layer(outputs, outputs, 1)
        masking[-1] = nn.Sigmoid()
        return nn.Sequential(self._layer(inputs, outputs, 1), masking)


_POOLS: dict[str, tuple[Callable[..., Tensor], ...]] = {
    "avg": (nn.functional.adaptive_avg_pool1d, nn.functional.adaptive_avg_pool2d, nn.functional.adaptive_avg_pool3d),
    "max": (nn.functional.adaptive_max_pool1d, nn.functional.adaptive_max_pool2d, nn.functional.adaptive_max_pool3d),
}


def _split(stage: nn.Module) -> nn.Sequential:
    """What leads to u, and from there to p."""
    if isinstance(stage, nn.Sequential) and len(stage) > 1:
        return nn.Sequential(stage[:-1], stage[-1])
    return nn.Sequential(stage, nn.Identity())
