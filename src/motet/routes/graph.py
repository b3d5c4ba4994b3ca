"""Questions to an autograd graph: which parameters lie under a tensor, and which are nearest to it."""

from collections import deque
from collections.abc import Iterable, Iterator, Sequence

from torch import Tensor
from torch.autograd.graph import Node, get_gradient_edge

# Nodes that pass a parameter on as it is.
VIEWS = frozenset(
    name + "Backward0"
    for name in ("T", "Transpose", "Permute", "View", "UnsafeView", "ReshapeAlias", "Unsqueeze", "Squeeze", "ToCopy")
)


class Branch(list[Tensor]):
    """What lies between one loss and the taps: its leaves, nearest first, and where it takes the taps.

    Attributes:
        entries: For every node that takes a tap: the positions among its inputs, each with the tap's index.
        nodes: All nodes of the branch.
        bare: The taps that are the loss itself.
    """

    def __init__(self) -> None:
        super().__init__()
        self.entries: dict[Node, list[tuple[int, int]]] = {}
        self.nodes: set[Node] = set()
        self.bare: list[int] = []


def branches(losses: Sequence[Tensor], taps: Sequence[Tensor]) -> list[Branch]:
    """The branch of every loss above the taps, in one walk each."""
    walls = {(edge.node, edge.output_nr): index for index, edge in enumerate(map(get_gradient_edge, taps))}
    return [_branch(loss, walls) for loss in losses]


def _branch(loss: Tensor, walls: dict[tuple[Node, int], int]) -> Branch:
    branch = Branch()
    root = get_gradient_edge(loss)
    if (root.node, root.output_nr) in walls:
        branch.bare.append(walls[root.node, root.output_nr])
        return branch
    queue = deque([root.node])
    branch.nodes.add(root.node)
    while queue:
        node = queue.popleft()
        following = node.next_functions
        if not following and (leaf := leaf_of(node)) is not None:
            branch.append(leaf)
        for position, edge in enumerate(following):
            if edge in walls:
                branch.entries.setdefault(node, []).append((position, walls[edge]))
            elif (below := edge[0]) is not None and below not in branch.nodes:
                branch.nodes.add(below)
                queue.append(below)
    return branch


def private(branches: Sequence[Branch]) -> list[bool]:
    """For every branch, whether it has no node in common with another."""
    owners: dict[Node, int] = {}
    alone = [not branch.bare for branch in branches]
    for index, branch in enumerate(branches):
        for node in branch.nodes:
            owner = owners.setdefault(node, index)
            if owner != index:
                alone[owner] = alone[index] = False
    return alone


def distinct(taps: Sequence[Tensor]) -> list[Tensor]:
    """The taps, each once."""
    found: dict[tuple[Node, int], Tensor] = {}
    for tap in taps:
        edge = get_gradient_edge(tap)
        found.setdefault((edge.node, edge.output_nr), tap)
    return list(found.values())


def owned(losses: Sequence[Tensor], inside: set[int]) -> tuple[list[list[Tensor]], list[Tensor], list[int]]:
    """Who uses the leaves whose id is not ``inside``, in one walk through the graph.

    Returns:
        Every loss's own leaves; the leaves of more than one loss; the losses that reach nothing ``inside``.
    """
    several = -1
    owners: dict[Node, int] = {}
    pathless = []
    for task, loss in enumerate(losses):
        # What another loss has reached before has more than one owner, and so has all below it: a second look at
        # nodes of one owner is enough, and none is needed at nodes of several.
        reached = False
        stack = [get_gradient_edge(loss).node]
        while stack:
            node = stack.pop()
            owner = owners.get(node)
            if owner is not None:
                reached = reached or owner != task
                if owner in (task, several):
                    continue
            elif (leaf := leaf_of(node)) is not None:
                reached = reached or id(leaf) in inside
            owners[node] = task if owner is None else several
            stack.extend(below for below, _ in node.next_functions if below is not None)
        if not reached:
            pathless.append(task)
    own: list[list[Tensor]] = [[] for _ in losses]
    common: list[Tensor] = []
    for node, owner in owners.items():
        if (leaf := leaf_of(node)) is not None and id(leaf) not in inside:
            (common if owner == several else own[owner]).append(leaf)
    return own, common, pathless


def leaf_of(node: Node | None) -> Tensor | None:
    """The leaf tensor whose gradient the node accumulates, if it is such a node."""
    if node is None or not node.name().endswith("AccumulateGrad"):
        return None
    leaf: Tensor = node.variable  # type: ignore[attr-defined]
    return leaf


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
    normalisation after the matrix belong to the layer; those that lie below the matrix do not, as the
    normalisation before it, or a layer that a residual connection leads to. Without any matrix, all
    parameters are taken.

    Args:
        taps: The trunk's outputs.
        among: The ids of the tensors that count, or None for all leaves.
    """
    found: dict[int, Tensor] = {}
    for tap in taps:
        near: dict[int, Tensor] = {}
        reached: int | None = None
        above: dict[Node, Node] = {}
        layer: Node | None = None
        for node, distance in _visit([tap], (), above):
            if reached is not None and distance > reached:
                break
            leaf = leaf_of(node)
            if leaf is None or (among is not None and id(leaf) not in among):
                continue
            near.setdefault(id(leaf), leaf)
            if leaf.dim() >= 2 and reached is None:
                reached = distance
                layer = above.get(node)
                while layer in above and layer.name() in VIEWS:
                    layer = above[layer]
        if layer is not None:
            own = _held(layer)
            if any(key not in own for key in near):
                below = {id(leaf) for node in _under(layer) if (leaf := leaf_of(node)) is not None}
                near = {key: leaf for key, leaf in near.items() if key in own or key not in below}
        found |= near
    return list(found.values())


def _held(layer: Node) -> set[int]:
    """The ids of the leaves that a node takes directly or by way of views."""
    held = set()
    for node, _ in layer.next_functions:
        while node is not None and node.name() in VIEWS:
            node = node.next_functions[0][0]
        if (leaf := leaf_of(node)) is not None:
            held.add(id(leaf))
    return held


def _under(top: Node) -> Iterable[Node]:
    """All nodes below one."""
    seen: set[Node] = set()
    stack = [top]
    while stack:
        for node, _ in stack.pop().next_functions:
            if node is not None and node not in seen:
                seen.add(node)
                stack.append(node)
    return seen


def _walk(roots: Sequence[Tensor], stop: Sequence[Tensor]) -> Iterator[tuple[Tensor, int]]:
    """Every leaf with its distance in graph nodes, nearest first."""
    for node, distance in _visit(roots, stop):
        if (leaf := leaf_of(node)) is not None:
            yield leaf, distance


def _visit(
    roots: Sequence[Tensor], stop: Sequence[Tensor], above: dict[Node, Node] | None = None
) -> Iterator[tuple[Node, int]]:
    """Breadth-first: every node with its distance from the nearest root; ``above`` takes whence each was reached."""
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
                if above is not None:
                    above[following] = node
                queue.append((following, distance + 1))
