"""The models that steps are timed on: a wide perceptron, where parameters dominate, a small convolutional trunk, where
activations do, and a small transformer. K linear heads each; labels are random."""

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
        return z, [self.loss(head(z), y) for head, y in zip(self.heads, self.targets, strict=True)]

    def part(self, divisor: int) -> list[Tensor]:
        """The losses on the first part of the batch."""
        count = len(self.inputs) // divisor
        z = self.trunk(self.inputs[:count])
        return [self.loss(head(z), y[:count]) for head, y in zip(self.heads, self.targets, strict=True)]

    def forward_apart(self) -> tuple[Tensor, list[Tensor], Tensor]:
        """Features, losses, and the task of every sample, where each belongs to one: the tasks in turn."""
        z = self.trunk(self.inputs)
        tasks = min(len(self.heads), len(z) // 2)
        owner = torch.arange(len(z)) % tasks
        pairs = list(zip(self.heads, self.targets, strict=True))[:tasks]
        losses = [self.loss(head(z[k::tasks]), y[k::tasks]) for k, (head, y) in enumerate(pairs)]
        return z, losses, owner

    def loss(self, output: Tensor, target: Tensor) -> Tensor:
        """Cross entropy for classes, the mean squared error for numbers."""
        return cross_entropy(output, target) if target.dtype == torch.long else mse_loss(output.squeeze(1), target)

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


class Tokens(nn.Module):
    """Four transformer layers of width 128 with 4 heads, averaged over the tokens."""

    def __init__(self) -> None:
        super().__init__()
        layer = nn.TransformerEncoderLayer(128, 4, 512, dropout=0.0, batch_first=True, norm_first=True)
        self.layers = nn.TransformerEncoder(layer, 4, norm=nn.LayerNorm(128), enable_nested_tensor=False)

    def forward(self, inputs: Tensor) -> Tensor:
        output: Tensor = self.layers(inputs).mean(1)
        return output


def transformer(tasks: int) -> Bench:
    """Four transformer layers of width 128, batch 32 of 32 tokens: 793,344 shared parameters."""
    torch.manual_seed(0)
    heads = nn.ModuleList(nn.Linear(128, 10) for _ in range(tasks))
    return Bench(Tokens(), heads, torch.randn(32, 32, 128), torch.randint(10, (tasks, 32)))


MODELS = {"mlp": mlp, "conv": conv, "transformer": transformer}
