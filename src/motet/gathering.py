"""From losses, features and shared parameters to the tasks' gradients on one route, with errors that name the task."""

from collections.abc import Sequence

import torch
from torch import Tensor

from motet import routes

_TRIAL = 100
"""Steps of the disjoint route between two trials of its assumptions."""


class Gatherer:
    """Runs the routes, and keeps from step to step what need not be done twice: buffers and walks through the graph."""

    def __init__(self) -> None:
        self._buffer: Tensor | None = None
        self._checked: frozenset[int] = frozenset()
        self._hindered: str | None = None
        self._unsampled: str | None = None
        self._layouts: routes.Layouts = {}
        self._connected: set[str] = set()
        self._disjoint = 0

    def obstacle(self, roots: Sequence[Tensor]) -> str | None:
        """What keeps all but the features route from this trunk; looked up once."""
        if self._hindered is None:
            self._hindered = routes.obstacle(roots) or ""
        return self._hindered or None

    def unsampled(self, taps: Sequence[Tensor], shared: Sequence[Tensor]) -> str:
        """Why the last layer can't tell single samples' gradients, or ""; looked up once."""
        if self._unsampled is None:
            self._unsampled = routes.sampled(taps, self._last_layer(taps, shared))[1]
        return self._unsampled

    @staticmethod
    def _last_layer(taps: Sequence[Tensor], shared: Sequence[Tensor]) -> list[Tensor]:
        layer = routes.last_layer(taps, {id(parameter) for parameter in shared} or None)
        if not layer:
            raise ValueError("none of the shared parameters lies below the features")
        return layer

    def gather(
        self,
        route: str,
        present: dict[str, Tensor],
        taps: Sequence[Tensor],
        shared: Sequence[Tensor],
        *,
        whole: bool,
        retain: bool = False,
        second: Sequence[Tensor | None] = (),
        assignment: Tensor | None = None,
        samples: bool = False,
    ) -> routes.TaskGradients:
        """The tasks' gradients.

        Args:
            route: "exact", "last-layer", "features" or "disjoint".
            present: Scalar losses by task.
            taps: The features.
            shared: The shared parameters, or nothing where the features tell them.
            whole: Whether the gradients themselves are needed, not only products of them.
            retain: Whether the graph must live on.
            second: Losses of the same tasks on a second batch, None for those that have none; exact route only.
            assignment: On the disjoint route the task of every sample: (B,).
            samples: Whether the noise between samples is wanted, on the features and last-layer routes.

        Raises:
            ValueError: if the route can't go through this trunk, or a loss does not depend on it.
        """
        losses = list(present.values())
        self.check_taps(taps)
        if route != "features" and (hindrance := self.obstacle(taps or losses)):
            raise ValueError(f"the {route} route can't go through this trunk: {hindrance}")
        try:
            gradients = self._run(route, present, taps, shared, whole, retain, second, assignment, samples)
        except routes.NoPathError as error:
            raise self.pathless(error, list(present), bool(shared) and route == "exact") from None
        rows = gradients.rows
        if self._buffer is None or self._buffer.shape[1] != rows.shape[1] or len(rows) > len(self._buffer):
            self._buffer = rows
        return gradients

    def _run(
        self,
        route: str,
        present: dict[str, Tensor],
        taps: Sequence[Tensor],
        shared: Sequence[Tensor],
        whole: bool,
        retain: bool,
        second: Sequence[Tensor | None],
        assignment: Tensor | None,
        samples: bool,
    ) -> routes.TaskGradients:
        losses = list(present.values())
        if route == "exact":
            trunk = self.below(present, taps, shared)
            if second or retain:
                return routes.Exact(losses, trunk, self._buffer, second=second, retain=retain)
            return routes.exact(losses, trunk, whole, self._buffer)
        if route == "disjoint":
            assert assignment is not None
            below = self.below(present, taps, shared)
            self._disjoint += 1
            if self._disjoint % _TRIAL == 0:  # That samples do not mix, and whose each row is, is tried again.
                self._layouts.clear()
            return routes.Disjoint(losses, below, assignment, self._layouts, list(present))
        heads = self.heads(present, taps)
        if route == "features":
            return routes.Features(losses, heads, taps, self._buffer, samples=samples)
        return routes.LastLayer(losses, heads, taps, self._last_layer(taps, shared), self._buffer, samples=samples)

    @staticmethod
    def finite(losses: Sequence[Tensor], parameters: Sequence[Tensor]) -> list[bool]:
        """Whose gradients are finite, by a backward pass each: to find who made a sum of them infinite."""
        fine = []
        for loss in losses:
            found = torch.autograd.grad(loss, list(parameters), retain_graph=True, allow_unused=True)
            fine.append(all(bool(gradient.isfinite().all()) for gradient in found if gradient is not None))
        return fine

    @staticmethod
    def check_taps(taps: Sequence[Tensor]) -> None:
        """Raise a ValueError for features without a gradient."""
        if any(not tap.requires_grad for tap in taps):
            raise ValueError("the features require no gradient: is the trunk frozen, or were they detached?")

    @staticmethod
    def pathless(error: routes.NoPathError, tasks: Sequence[str], by_parameters: bool) -> ValueError:
        """The error of losses that do not depend on the trunk, with the tasks' names."""
        names = [tasks[index] for index in error.tasks]
        what = "shared parameters" if by_parameters else "features"
        who = "no loss uses" if len(names) == len(tasks) else f"the loss of task {names[0]!r} does not use"
        return ValueError(
            f"{who} the {what}: was a head called on a detached copy, "
            "or is this another tensor than the one the heads take?"
        )

    def below(self, present: dict[str, Tensor], taps: Sequence[Tensor], shared: Sequence[Tensor]) -> list[Tensor]:
        """The shared parameters: those given, or all below the features.

        Raises:
            ValueError: if the loss of a task that is new depends on none of them.
        """
        found = list(shared)
        if not found:
            self.heads(present, taps)
            found = list({id(leaf): leaf for tap in taps for leaf in routes.leaves(tap)}.values())
        if not self._connected.issuperset(present):
            ids = {id(parameter) for parameter in found}
            leaves = [routes.leaves(loss) for loss in present.values()]
            pathless = [task for task, below in enumerate(leaves) if ids.isdisjoint(map(id, below))]
            if pathless:
                raise self.pathless(routes.NoPathError(pathless), list(present), bool(shared))
            self._connected.update(present)
        return found

    def heads(self, present: dict[str, Tensor], taps: Sequence[Tensor]) -> Sequence[list[Tensor]]:
        """Every task's parameters above the features, none of which may be one of the trunk's."""
        heads = routes.branches(list(present.values()), taps)
        # The trunk's graph is the larger one: it is walked again only when heads or features have moved.
        ids = frozenset(map(id, [*map(routes.nearest, taps), *(leaf for head in heads for leaf in head)]))
        if ids != self._checked:
            trunk = {id(leaf) for tap in taps for leaf in routes.leaves(tap)}
            for task, head in zip(present, heads, strict=True):
                for leaf in head:
                    if id(leaf) in trunk:
                        raise ValueError(
                            f"the loss of task {task!r} reaches a trunk parameter of shape {tuple(leaf.shape)} past "
                            "the features (a skip connection, a parameter in both trunk and head, or features of "
                            "another forward pass): name all that the heads take, as in features=[skip, z], or pass "
                            "the trunk's parameters as shared= with route='exact'"
                        )
            self._checked = ids
        return heads
