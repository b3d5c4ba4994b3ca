"""Questions to an autograd graph: which parameters lie under a tensor, and which are nearest to it."""

from collections import deque
from collections.abc import Iterator, Sequence

from torch import Tensor
from torch.autograd.graph import Node, get_gradient_edge


def leaves(root: Tensor, stop: Sequence[Tensor] = ()) -> list[Tensor]:
    """Leaf tensors that ``root`` depends on by a way that does not lead through ``stop``, nearest first."""
    return [leaf for leaf, _ in _walk([root], stop)]


def nearest(root: Tensor) -> Tensor:
    """The leaf tensor nearest to ``root``, without a look at the rest of the graph."""
    return next((leaf for leaf, _ in _walk([root], ())), root)


def outside(roots: Sequence[Tensor], inside: set[int]) -> list[Tensor]:
    """The leaf tensors under any root whose id is not ``inside``."""
    return [leaf for leaf, _ in _walk(roots, ()) if id(leaf) not in inside]


def nodes(roots: Sequence[Tensor]) -> list[Node]:
    """All nodes under the roots, each once."""
    return [node for node, _ in _visit(roots, ())]


def nested(taps: Sequence[Tensor]) -> bool:
    """Whether one tap lies below another, or is given twice: its gradient would then count twice."""
    edges = [get_gradient_edge(tap) for tap in taps]
    if len({(edge.node, edge.output_nr) for edge in edges}) < len(edges):
        return True
    own = {edge.node for edge in edges}
    return any(node in own for tap in taps for node, distance in _visit([tap], ()) if distance > 0)


def obstacle(roots: Sequence[Tensor]) -> str | None:
    """What in a graph forbids going through it more than once, or hides parameters from view."""
    for node, _ in _visit(roots, ()):
        if node.name().startswith("CompiledFunction"):
            return "the trunk is compiled, and a compiled graph runs backwards once: use route='features'"
        if node.name().startswith("CheckpointFunction"):
            return "reentrant checkpointing hides parameters: pass use_reentrant=False to checkpoint()"
    return None


def last_layer(taps: Sequence[Tensor], among: set[int] | None = None) -> list[Tensor]:
    """The parameters of the layer that made the taps.

    These are the parameters at most as far from a tap as its nearest matrix, so a bias and a
    normalisation after the matrix belong to the layer. Without any matrix, all parameters are taken.

    Args:
        taps: The trunk's outputs.
        among: The ids of the tensors that count, or None for all leaves.
    """
    found: list[Tensor] = []
    for tap in taps:
        reached: int | None = None
        for leaf, distance in _walk([tap], ()):
            if reached is not None and distance > reached:
                break
            if among is not None and id(leaf) not in among:
                continue
            if all(leaf is not known for known in found):
                found.append(leaf)
            if leaf.dim() >= 2 and reached is None:
                reached = distance
    return found


def _walk(roots: Sequence[Tensor], stop: Sequence[Tensor]) -> Iterator[tuple[Tensor, int]]:
    """Every leaf with its distance in graph nodes, nearest first."""
    for node, distance in _visit(roots, stop):
        if node.name().endswith("AccumulateGrad"):
            yield node.variable, distance  # type: ignore[attr-defined]


def _visit(roots: Sequence[Tensor], stop: Sequence[Tensor]) -> Iterator[tuple[Node, int]]:
    """Breadth-first: every node with its distance from the nearest root."""
    # Nodes are kept alive by ``seen``: their Python wrappers are made anew once the last reference is gone.
    walls = {(edge.node, edge.output_nr) for edge in map(get_gradient_edge, stop)}
    queue: deque[tuple[Node, int]] = deque()
    seen: set[Node] = set()
    for root in roots:
        edge = get_gradient_edge(root)
        if (edge.node, edge.output_nr) not in walls and edge.node not in seen:
            seen.add(edge.node)
            queue.append((edge.node, 0))
    while queue:
        node, distance = queue.popleft()
        yield node, distance
        for following, output in node.next_functions:
            if following is not None and following not in seen and (following, output) not in walls:
                seen.add(following)
                queue.append((following, distance + 1))
