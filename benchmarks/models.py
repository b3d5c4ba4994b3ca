"""The models that steps are timed on: a wide perceptron, where parameters dominate, and a small convolutional trunk,
where activations do. K linear heads each; labels are random."""

from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy, mse_loss


@dataclass
class Bench:
    """A trunk, its heads, one batch, and the loss."""

    trunk: nn.Module
    heads: nn.ModuleList
    inputs: Tensor
    targets: Tensor

    def forward(self) -> tuple[Tensor, list[Tensor]]:
        """Features, and one loss a task."""
        z = self.trunk(self.inputs)
        loss = cross_entropy if self.targets.dtype == torch.long else mse_loss
        return z, [loss(head(z).squeeze(1), y) for head, y in zip(self.heads, self.targets, strict=True)]

    def parameters(self) -> list[nn.Parameter]:
        return [*self.trunk.parameters(), *self.heads.parameters()]

    def zero(self) -> None:
        for parameter in self.parameters():
            parameter.grad = None


def mlp(tasks: int) -> Bench:
    """64-512-512-512, batch 256, regression: 558,592 shared parameters."""
    torch.manual_seed(0)
    layers: list[nn.Module] = []
    for inputs in (64, 512, 512):
        layers += [nn.Linear(inputs, 512), nn.ReLU()]
    heads = nn.ModuleList(nn.Linear(512, 1) for _ in range(tasks))
    return Bench(nn.Sequential(*layers), heads, torch.randn(256, 64), torch.randn(tasks, 256))


def conv(tasks: int) -> Bench:
    """3-64-64-128-128 with strides 1, 2, 2, 2 and average pooling, batch 64 of 32×32: 260,160 shared parameters."""
    torch.manual_seed(0)
    layers: list[nn.Module] = []
    for inputs, outputs, stride in ((3, 64, 1), (64, 64, 2), (64, 128, 2), (128, 128, 2)):
        layers += [nn.Conv2d(inputs, outputs, 3, stride, padding=1), nn.ReLU()]
    trunk = nn.Sequential(*layers, nn.AdaptiveAvgPool2d(1), nn.Flatten())
    heads = nn.ModuleList(nn.Linear(128, 10) for _ in range(tasks))
    return Bench(trunk, heads, torch.randn(64, 3, 32, 32), torch.randint(10, (tasks, 64)))


MODELS = {"mlp": mlp, "conv": conv}
