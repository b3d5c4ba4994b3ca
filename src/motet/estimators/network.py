"""The network of mixed outcomes: one shared first layer, one small head per task.

Its gradient is written out for the fixed architecture: at a few hundred rows the bookkeeping of automatic
differentiation would cost more than the arithmetic.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import NamedTuple

import torch
from torch import Tensor, nn


@dataclass(frozen=True)
class Layout:
    """How a flat vector holds a network: the rows of the first layer, its biases, the heads.

    The first layer is kept with one row per feature, (features, H), so that dropping features is dropping rows;
    with a linear skip its last K columns are the skip's weights and a row is the whole group of its feature.
    """

    features: int
    tasks: int
    hidden_shared: int = 32
    hidden_task: tuple[int, ...] = (16,)
    linear_skip: bool = False
    corner: float = 0.0  # δ

    @cached_property
    def shapes(self) -> list[tuple[int, ...]]:
        """Shapes in the order of the vector: first, first bias, (weight, bias) of each head layer, readout."""
        shapes: list[tuple[int, ...]] = [(self.features, self.width), (self.hidden_shared,)]
        incoming = self.hidden_shared
        for units in self.hidden_task:
            shapes += [(self.tasks, units, incoming), (self.tasks, units)]
            incoming = units
        return [*shapes, (self.tasks, incoming)]

    @property
    def width(self) -> int:
        """Numbers per feature: the group that lives or dies together."""
        return self.hidden_shared + (self.tasks if self.linear_skip else 0)

    @cached_property
    def sizes(self) -> list[int]:
        """Elements per shape."""
        return [math.prod(shape) for shape in self.shapes]

    def split(self, flat: Tensor) -> "Parts":
        """The parts of a flat vector, as views."""
        first, bias, *heads, readout = [
            part.view(shape) for part, shape in zip(flat.split(self.sizes), self.shapes, strict=True)
        ]
        return Parts(first, bias, heads[::2], heads[1::2], readout)

    def restricted(self, features: int) -> "Layout":
        """The same network over fewer, or more, features."""
        return replace(self, features=features)


class Parts(NamedTuple):
    """Views into a flat vector."""

    first: Tensor  # (features, width)
    bias: Tensor  # (H,)
    weights: list[Tensor]  # (K, out, in) per head layer
    shifts: list[Tensor]  # (K, out)
    readout: Tensor  # (K, m)


class Activations(NamedTuple):
    """What the backward pass needs of the forward pass."""

    scores: Tensor
    layers: list[Tensor]  # h (n, H), then (K, n, m) per head layer
    slopes: list[Tensor]  # derivatives of the activation, in the same shapes


def activate(z: Tensor, width: float) -> tuple[Tensor, Tensor]:
    """The ReLU with its corner rounded over [0, δ], z²/(2δ) inside and z - δ/2 beyond, and its derivative."""
    if not width:
        return z.relu(), (z > 0).to(z)
    inside = z.clamp(0, width)
    slope = inside / width
    return torch.addcmul(z * slope, inside, slope, value=-0.5), slope


def forward(layout: Layout, flat: Tensor, X: Tensor) -> Activations:
    """Scores (n, K) of X (n, features), and the activations on the way."""
    net = layout.split(flat)
    linear = X @ net.first
    flow, slope = activate(linear[:, : layout.hidden_shared] + net.bias, layout.corner)
    layers, slopes = [flow], [slope]
    for weight, shift in zip(net.weights, net.shifts, strict=True):
        if flow.ndim == 2:  # all heads read the same h: one product for all of them
            flow = torch.addmm(shift.view(-1), flow, weight.flatten(0, 1).T).view(len(X), *shift.shape).transpose(0, 1)
        else:
            flow = torch.baddbmm(shift.unsqueeze(1), flow, weight.transpose(1, 2))
        flow, slope = activate(flow, layout.corner)
        layers.append(flow)
        slopes.append(slope)
    scores = flow @ net.readout.T if flow.ndim == 2 else (flow @ net.readout.unsqueeze(2)).squeeze(2).T
    if layout.linear_skip:
        scores = scores + linear[:, layout.hidden_shared :]
    return Activations(scores, layers, slopes)


def backward(layout: Layout, flat: Tensor, X: Tensor, passed: Activations, slope: Tensor) -> tuple[Tensor, Tensor]:
    """Gradient of Σ slope·scores as a flat vector, and Δ (n, width) with which XᵀΔ is the first layer's gradient.

    Args:
        layout: Of `flat`.
        flat: The network.
        X: (n, features).
        passed: Of the forward pass at the same point.
        slope: (n, K), the derivative of the loss in the scores.
    """
    gradient = torch.empty_like(flat)
    net, into = layout.split(flat), layout.split(gradient)
    last = passed.layers[-1]
    if last.ndim == 2:
        into.readout.copy_(slope.T @ last)
        delta = slope @ net.readout
    else:
        into.readout.copy_((slope.T.unsqueeze(1) @ last).squeeze(1))
        delta = slope.T.unsqueeze(2) * net.readout.unsqueeze(1)  # (K, n, m)
    for layer in reversed(range(len(net.weights))):
        before = passed.layers[layer]
        delta = delta * passed.slopes[layer + 1]
        into.shifts[layer].copy_(delta.sum(1))
        if layer:
            into.weights[layer].copy_(delta.transpose(1, 2) @ before)
            delta = delta @ net.weights[layer]
        else:
            joint = delta.transpose(0, 1).reshape(len(X), -1)
            into.weights[0].view(-1, layout.hidden_shared).copy_(joint.T @ before)
            delta = joint @ net.weights[0].flatten(0, 1)
    delta = delta * passed.slopes[0]
    into.bias.copy_(delta.sum(0))
    if layout.linear_skip:
        delta = torch.cat([delta, slope], 1)
    into.first.copy_(X.T @ delta)
    return gradient, delta


def draw(layout: Layout, generator: torch.Generator | None = None, dtype: torch.dtype = torch.float32) -> Tensor:
    """A flat start: every weight and bias uniform on ±1/√(inputs of its layer), as `torch.nn.Linear` draws them."""
    flat = torch.empty(sum(layout.sizes), dtype=dtype).uniform_(-1, 1, generator=generator)
    net = layout.split(flat)
    for part in (net.first, net.bias):
        part.div_(math.sqrt(max(layout.features, 1)))
    for weight, shift in zip(net.weights, net.shifts, strict=True):
        weight.div_(math.sqrt(weight.shape[-1]))
        shift.div_(math.sqrt(weight.shape[-1]))
    net.readout.div_(math.sqrt(net.readout.shape[-1]))
    return flat


def clip(layout: Layout, flat: Tensor, bound: float) -> Tensor:
    """Euclidean projection on ‖A_k‖_F ≤ B, ‖v_k‖ ≤ B for every head layer, in place; biases are free."""
    net = layout.split(flat)
    for part in (*net.weights, net.readout):
        norms = part.flatten(1).norm(dim=1)
        part.mul_((bound / norms.clamp(min=bound)).view(-1, *[1] * (part.ndim - 1)))
    return flat


def rescale(layout: Layout, flat: Tensor, bound: float) -> Tensor:
    """The same function with the smallest first layer that heads within the norm balls allow, in place.

    ReLU networks are unchanged by (W, b, A, v) → (cW, cb, A/c, v), and per task by (A_k, v_k) → (cA_k, v_k/c). Of all
    these the one is taken whose heads have equal norms per layer and whose largest head lies on the ball.
    """
    net = layout.split(flat)
    matrices = [*net.weights, net.readout]
    norms = torch.stack([part.flatten(1).double().norm(dim=1) for part in matrices])  # (layers, K)
    live = (norms > 0).all(0)
    product = norms.log().sum(0)
    if not live.any():
        return flat
    shrink = len(matrices) * math.log(bound) - product[live].amax()  # log c
    target = (product + shrink) / len(matrices)
    factors = torch.where(live, target - norms.log(), shrink / len(matrices)).exp()
    for part in (net.first[:, : layout.hidden_shared], net.bias):
        part.div_(shrink.exp().to(flat.dtype))
    reach = (-shrink).exp()
    for part, shift, factor in zip(net.weights, net.shifts, factors, strict=False):
        reach = reach * factor
        part.mul_(factor.to(flat.dtype).view(-1, 1, 1))
        shift.mul_(reach.to(flat.dtype).unsqueeze(1))
    net.readout.mul_(factors[-1].to(flat.dtype).unsqueeze(1))
    return flat


class SharedNet(nn.Module):
    r"""One hidden layer for all tasks and a small network per task on top of it.

    h = ReLU(W x + b),  f_k(x) = v_kᵀ ReLU(A_k h + c_k)  [+ β_kᵀ x with `linear_skip`],  k = 1…K.

    A column W_q = 0 (and β_q = 0) means that no task sees feature q. Scores order the rows and have no location: there
    is no bias after the readout.

    Args:
        p: Features.
        tasks: K.
        hidden_shared: Units of the shared layer, ≥ 1.
        hidden_task: Units of each task's own hidden layers; () reads the scores off the shared layer.
        generator: Of the initial weights.
        linear_skip: Give every task a linear term in x, which LassoNet's hierarchy needs.
        corner: δ ≥ 0: ReLU(z) becomes z²/(2δ) over 0 ≤ z ≤ δ and z - δ/2 beyond. 0 is the ReLU.

    Shapes:
        X (n, p) → scores (n, K).
    """

    def __init__(
        self,
        p: int,
        tasks: int,
        hidden_shared: int = 32,
        hidden_task: Sequence[int] = (16,),
        generator: torch.Generator | None = None,
        linear_skip: bool = False,
        corner: float = 0.0,
    ) -> None:
        super().__init__()
        sizes = {"p": p, "tasks": tasks, "hidden_shared": hidden_shared, "hidden_task": min(hidden_task, default=1)}
        for name, size in sizes.items():
            if size < (name != "p"):
                raise ValueError(f"{name} counts units and must be at least 1, not {size}")
        if not 0 <= corner < math.inf:
            raise ValueError(f"corner is a width and must be 0 or more, not {corner}")
        self.layout = Layout(p, tasks, hidden_shared, tuple(hidden_task), linear_skip, corner)
        self.load_flat(draw(self.layout, generator))

    @classmethod
    def from_flat(cls, layout: Layout, flat: Tensor) -> "SharedNet":
        """A network of these weights, which are copied."""
        net = cls.__new__(cls)
        nn.Module.__init__(net)
        net.layout = layout
        net.load_flat(flat)
        return net

    def load_flat(self, flat: Tensor) -> None:
        """Take the weights of a flat vector."""
        parts, hidden = self.layout.split(flat.detach().clone()), self.layout.hidden_shared
        self.first = nn.Parameter(parts.first[:, :hidden].T.contiguous())
        self.skip = nn.Parameter(parts.first[:, hidden:].T.contiguous()) if self.layout.linear_skip else None
        self.bias = nn.Parameter(parts.bias)
        self.heads = nn.ParameterList(parts.weights)
        self.shifts = nn.ParameterList(parts.shifts)
        self.readout = nn.Parameter(parts.readout)

    def flat(self) -> Tensor:
        """All weights in one detached vector, in the layout's order."""
        first = self.first if self.skip is None else torch.cat([self.first, self.skip])
        heads = [part for pair in zip(self.heads, self.shifts, strict=True) for part in pair]
        parts = [first.T, self.bias, *heads, self.readout]
        return torch.cat([part.detach().reshape(-1) for part in parts])

    def forward(self, X: Tensor) -> Tensor:
        """Scores (n, K) by ordinary autograd operations."""
        flow = activate(X @ self.first.T + self.bias, self.layout.corner)[0].expand(self.layout.tasks, -1, -1)
        for weight, shift in zip(self.heads, self.shifts, strict=True):
            flow = activate(torch.baddbmm(shift.unsqueeze(1), flow, weight.transpose(1, 2)), self.layout.corner)[0]
        scores = torch.einsum("knm,km->nk", flow, self.readout)
        return scores if self.skip is None else scores + X @ self.skip.T

    def project(self, bound: float) -> None:
        """Hold ‖A_k‖_F ≤ B and ‖v_k‖ ≤ B, in place.

        Of a ReLU network the heads' scale is moved into W, or out of it, until the largest head lies on the ball: the
        function stays, (W, b, A) and (cW, cb, A/c) come out as one network, and ‖W_q‖ has one meaning at every scale.
        Rounded corners and a linear skip have a scale of their own: heads outside of the ball are shortened.
        """
        fixed_scale = self.layout.linear_skip or self.layout.corner
        flat = self.flat()
        self.load_flat((clip if fixed_scale else rescale)(self.layout, flat, bound))
