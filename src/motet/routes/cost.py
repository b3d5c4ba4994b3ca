"""What a step costs on each route, estimated from the graph's layers and sizes before any of them is taken.

An estimate from sizes, and no stopwatch: the same model gets the same route on a busy machine, and a resumed
run the route that it had.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass

from torch import Tensor
from torch.autograd.graph import Node

from motet.routes.features import MANY, SKETCH, WIDTH
from motet.routes.graph import last_layer, nodes

_TRAFFIC = 12.0
"""Multiply-adds in the time of writing and reading one number: about 10 to 30 on CPUs, more on GPUs."""
_CALL = 3e5
"""Multiply-adds in the time of running one node of the graph backwards, however small."""
_STEP = 3e7
"""Multiply-adds in the time that a Balancer's step takes around the passes, however small the model."""
_SOLVER = 1.2e4
"""The same for a solver, over K^2.3: two milliseconds at K = 40."""
_DOUBLE = 4.5
"""Forward passes in the time of the probe's product, which is a double backward pass without a closure."""
_SPREAD = 4.0
"""How much slower multiply-adds are in the many small products behind a pooling than in one large one."""


@dataclass(frozen=True)
class Work:
    """A forward pass in multiply-adds, memory traffic and calls included at their price.

    Attributes:
        trunk: Of the part below the features, or of all where there are none.
        heads: Of all heads together.
        rows: Numbers in the features, or 0.
        parameters: Numbers in the shared parameters.
        layer: Multiply-adds of one task's gradient of the trunk's last layer.
        layer_parameters: Numbers in its parameters.
        cotangents: Numbers in the outputs of all linear layers, or 0 where other layers hold most of the parameters.
    """

    trunk: float
    heads: float
    rows: int
    parameters: int
    layer: float
    layer_parameters: int
    cotangents: int = 0

    def ratios(self, tasks: int, samples: bool = False) -> dict[str, float]:
        """A step's time over a plain step's, by route, with K ``tasks``; good to about a third.

        With ``samples`` the last layer's is that of single samples' gradients.
        """
        plain = 3 * (self.trunk + self.heads)
        rest = _STEP + _SOLVER * tasks**2.3
        traffic = 2 * tasks * _TRAFFIC + tasks**2  # For every column of the K rows: written, read, multiplied.
        exact = self.heads * 3 + self.trunk * (1 + 2 * tasks) + self.parameters * traffic
        if 0 < self.cotangents < self.parameters:  # Without the gradients of the linear layers' weights.
            layerwise = self.heads * 3 + self.trunk * (2 + tasks) + self.cotangents * traffic
            exact = min(exact, layerwise)
        features = plain + self.rows * traffic
        numbers = self.layer_parameters if tasks <= MANY else min(self.layer_parameters, SKETCH)
        share = numbers / max(self.layer_parameters, 1)
        last = features + tasks * self.layer * share + numbers * traffic
        if samples:
            last = features + self.rows * (tasks * WIDTH + traffic)
        probe = plain + _DOUBLE * self.trunk
        return {
            "exact": (exact + rest) / plain,
            "last-layer": (last + rest) / plain,
            "probe": (probe + rest) / plain,
            "features": (features + rest) / plain,
        }


def measure(losses: Sequence[Tensor], taps: Sequence[Tensor], shared: Sequence[Tensor]) -> Work:
    """Add up the graph of one step.

    Args:
        losses: K scalars.
        taps: The features, or nothing.
        shared: The shared parameters, or nothing where the features tell them.
    """
    below = nodes(taps) if taps else nodes(losses)
    trunk = sum(map(_work, below))
    leaves = [node.variable for node in below if node.name().endswith("AccumulateGrad")]  # type: ignore[attr-defined]
    known = {id(parameter) for parameter in shared}
    parameters = shared or leaves
    heads = sum(map(_work, nodes(losses))) - trunk if taps else 0.0
    layer = last_layer(taps, known or None) if taps else []
    size = sum(parameter.numel() for parameter in layer)
    # Every number of a layer is used once for every row or position that goes through it.
    uses = max((_work(node) for node in below if _uses(node, layer)), default=0.0)
    batch = taps[0].shape[0] if taps and taps[0].dim() == 2 else 0
    if any(node.name().startswith("Convolution") and _uses(node, layer) for node in below) and batch:
        uses = min(uses, _SPREAD * batch * size)  # Positions are summed up once for all tasks.
    elif batch:
        widths = [parameter.shape[1] for parameter in layer if parameter.dim() == 2]
        uses *= min([1.0, *(batch / width for width in widths if width)])  # Inner products of the batch's rows instead.
    linear = [node for node in below if node.name().startswith(("Addmm", "Mm"))]
    held = sum(map(_weights, linear))
    return Work(
        trunk,
        max(heads, 0.0),
        sum(tap.numel() for tap in taps),
        sum(parameter.numel() for parameter in parameters),
        uses,
        size,
        sum(map(_outputs, linear)) if 2 * held > sum(parameter.numel() for parameter in parameters) else 0,
    )


def _uses(node: Node, layer: Sequence[Tensor]) -> bool:
    ids = {id(parameter) for parameter in layer if parameter.dim() >= 2}
    for following, _ in node.next_functions:
        steps = [following] + ([nxt for nxt, _ in following.next_functions] if following is not None else [])
        for step in steps:
            if step is not None and id(getattr(step, "variable", None)) in ids:
                return True
    return False


def _work(node: Node) -> float:
    """Multiply-adds of one node's forward pass, with the traffic of its output and the call."""
    name = node.name()
    if name.endswith("AccumulateGrad"):
        return 0.0
    return _CALL + _outputs(node) * (_TRAFFIC + _inner(node, name))


def _outputs(node: Node) -> int:
    """Numbers in its largest output."""
    known = node._input_metadata
    return max((math.prod(data.shape) for data in known if data is not None), default=0)


def _weights(node: Node) -> int:
    """Numbers in the matrix of a linear layer."""
    return math.prod(node._saved_mat2_sym_sizes)  # type: ignore[attr-defined]


def _inner(node: Node, name: str) -> float:
    """Multiply-adds for one number of the output, where the node is a matrix product or a convolution."""
    if name.startswith("Addmm"):
        return float(node._saved_mat1_sym_sizes[1])  # type: ignore[attr-defined]
    if name.startswith("Mm"):
        return float(node._saved_self_sym_sizes[1])  # type: ignore[attr-defined]
    if name.startswith("Convolution"):
        weight = node._saved_weight  # type: ignore[attr-defined]
        return float(math.prod(weight.shape[1:]))
    if name.startswith(("Bmm", "Baddbmm")):
        saved = getattr(node, "_saved_self", None)
        return float(saved.shape[2]) if saved is not None else 1.0
    return 0.0
