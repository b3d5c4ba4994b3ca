"""Losses in, ``.grad`` out: the drop-in for ``loss.backward()`` when there are several losses."""

import difflib
import logging
from collections.abc import Iterable, Mapping, Sequence
from contextlib import AbstractContextManager
from typing import Any, Literal

import torch
from torch import Tensor

from motet import methods, routes
from motet.incoming import host_values, read_features, read_losses, read_shared, task_names
from motet.step import BalancerStep, NonFiniteError, StepCost, TaskVector

logger = logging.getLogger("motet")


class Balancer:
    """Combine the tasks' losses into one update by a method, on the cheapest route that can feed it.

    Heads get their own task's gradient, unscaled, unless the method weights losses, which scales everything.
    Gradients add to ``.grad`` as those of ``backward()`` do. Nothing is written before the losses and, on a route,
    the tasks' gradients as far as the route sees them are known to be finite: the exact route sees all of them, the
    others those of the heads and at the features.

    Args:
        method: A method or its name.
        route: "exact", "last-layer" or "features"; "auto" picks from the method's needs, the number of
            tasks and the budget, and says in one log line what it picked and why. With a route named, a
            method that weights losses takes it too, so that `BalancerStep.gram` is known.
        budget: Largest factor over a plain step that "auto" may spend; None leaves it free.
        tasks: All tasks there may be. None takes names as they come; with names given, another name is an
            error, which catches typing mistakes.
        nonfinite: "raise" a `NonFiniteError` that names the task, or "skip" that task for this step and log it.

    Cost:
        One transfer of K numbers from the device a step, to check the losses. On a route one more for the gradients,
        and those with which the method's solver watches its convergence.

    >>> trunk, a, b = torch.nn.Linear(3, 4), torch.nn.Linear(4, 1), torch.nn.Linear(4, 1)
    >>> z = trunk(torch.ones(8, 3))
    >>> losses = {"a": (a(z) - 1).pow(2).mean(), "b": (b(z) + 1).pow(2).mean()}
    >>> step = Balancer("upgrad").backward(losses, features=z)
    >>> step.tasks
    ('a', 'b')
    """

    def __init__(
        self,
        method: "methods.Method | str" = "sum",
        route: routes.RouteName = "auto",
        budget: float | None = None,
        *,
        tasks: Sequence[str] | None = None,
        nonfinite: Literal["raise", "skip"] = "raise",
    ) -> None:
        self.method = methods.get(method) if isinstance(method, str) else method
        if isinstance(method, type):
            raise TypeError(f"method must be an object, not a class: write {method.__name__}()")
        if not isinstance(self.method, methods.Method):
            raise TypeError(f"method must be a motet method or its name, not {type(method).__name__}")
        if route != "auto" and route not in routes.ROUTES:
            near = difflib.get_close_matches(str(route), routes.ROUTES, n=1)
            hint = f"did you mean {near[0]!r}?" if near else f"there are auto, {', '.join(routes.ROUTES)}"
            raise ValueError(f"there is no route {route!r}: {hint}")
        if budget is not None and not budget >= 1:
            raise ValueError(f"budget is a factor over the plain step and must be at least 1, not {budget}")
        if nonfinite not in ("raise", "skip"):
            raise ValueError(f"nonfinite must be 'raise' or 'skip', not {nonfinite!r}")
        if route == "last-layer" and self.method.needs == "jacobian":
            raise ValueError(
                f"{type(self.method).__name__} needs whole gradients, which the last-layer route does not have: "
                "use route='exact', or route='features' for the gradients at the features"
            )
        if route == "features" and self.method.same_rows:
            raise ValueError(
                f"{self.method!r} averages gradients over steps, which must be of the same parameters, and not of a "
                "batch's features: use route='exact'"
            )
        self.route = route
        self.budget = budget
        self.nonfinite = nonfinite
        self._fixed = tasks is not None
        self._index = {task: index for index, task in enumerate(task_names(tasks or ()))}
        self._buffer: Tensor | None = None
        self._checked: frozenset[int] = frozenset()
        self._hindered: str | None = None
        self._said: set[str] = set()

    @property
    def tasks(self) -> tuple[str, ...]:
        """All tasks known so far, in the order of the method's state."""
        return tuple(self._index)

    @property
    def wants_feedback(self) -> bool:
        """Whether the method learns from `update`."""
        return self.method.wants_feedback

    def backward(
        self,
        losses: Mapping[str, Tensor | None],
        features: Tensor | Sequence[Tensor] | Mapping[str, Tensor] | None = None,
        shared: Iterable[Tensor] | torch.nn.Module | None = None,
    ) -> BalancerStep:
        """Add the combined gradient to every parameter's ``.grad``.

        Args:
            losses: A scalar loss for every task; None for a task that is absent from the batch, whose state
                and head stay untouched. A constant, as a loss over no labels gives, counts as absent.
            features: The tensor or tensors between trunk and heads, none computed from another. All below is shared.
            shared: The shared parameters, where there are no such features. Frozen ones are passed over. On the exact
                route their ``.grad`` are parts of one storage.

        Raises:
            NonFiniteError: if a loss or a gradient is not finite, with ``nonfinite="raise"``.
            ValueError: if a loss is unknown, not a scalar, below the method's bound, or does not depend on the trunk.
        """
        found, constant = read_losses(losses, self._index, self._fixed)
        taps, trunk = read_features(features), read_shared(shared)
        # Only now that nothing is wrong with them.
        for task in losses:
            self._index.setdefault(task, len(self._index))
        for task in constant:
            self._say(f"the loss of task {task!r} is a constant: it counts as absent from such batches")
        values = host_values(found)
        bad = [task for task, value in values.items() if not value.isfinite()]
        skipped = self._refuse(bad, "loss") if bad else ()
        present = {task: loss for task, loss in found.items() if task not in skipped}
        route = self._route(len(present), taps, trunk)
        if not present:
            return self._nothing(StepCost(route, 0, 0), skipped)
        numbers = torch.stack([values[task] for task in present])
        self._check_bound(present, numbers)
        self._check_alone(route)
        if route == "none":
            with self._on(present):
                return self._sum(present, numbers, skipped)
        gradients = self._gradients(route, present, taps, trunk)
        cost = StepCost(route, gradients.trunk_backwards, gradients.head_backwards)
        gram = gradients.gram()
        fine = gradients.finite(gram).tolist()
        if not all(fine):
            skipped += self._refuse([task for task, ok in zip(present, fine, strict=True) if not ok], "gradient")
            kept = [index for index, ok in enumerate(fine) if ok]
            present = {task: loss for task, loss in present.items() if task not in skipped}
            if not present:
                return self._nothing(cost, skipped)
            gradients.keep(kept)
            gram, numbers = gram[kept][:, kept], numbers[kept]
        with self._on(present):
            weights = self._combine(gradients, gram, numbers, tuple(present))
        named = None if weights is None else TaskVector.of(weights, tuple(present))
        return BalancerStep(tuple(present), named, gram, cost, skipped, self._converged())

    def update(self, losses: Mapping[str, Tensor | None]) -> None:
        """Give the losses on the same batch after the optimizer's step, where `wants_feedback` is true.

        Tasks that are absent or not finite are passed over.
        """
        for task, loss in losses.items():
            if task not in self._index:
                raise ValueError(f"there is no task {task!r} here: {', '.join(self._index)}")
            if loss is not None and not isinstance(loss, Tensor):
                raise TypeError(f"the loss of task {task!r} must be a tensor, not {type(loss).__name__}")
        values = host_values({task: loss for task, loss in losses.items() if loss is not None})
        finite = {task: value for task, value in values.items() if value.isfinite()}
        if finite:
            numbers = torch.stack(list(finite.values()))
            self._check_bound(finite, numbers)
            with self._on(finite):
                self.method.update(numbers)

    def state_dict(self) -> dict[str, Any]:
        """Everything for an exact resume: {"tasks": [str], "method": {name: Tensor}, "kind": the method's class}."""
        return {"tasks": list(self._index), "method": self.method.state_dict(), "kind": type(self.method).__name__}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Restore what `state_dict` gave. Nothing is changed if it does not fit.

        Raises:
            ValueError: if the state is incomplete, or of another method or other tasks than this Balancer's.
        """
        missing = {"tasks", "method", "kind"} - set(state)
        if missing:
            raise ValueError(f"this is no state of a Balancer: it lacks {', '.join(sorted(missing))}")
        if state["kind"] != type(self.method).__name__:
            raise ValueError(f"the state is of the method {state['kind']}, this Balancer's is {self.method!r}")
        tasks = task_names(state["tasks"])
        if self._fixed and tasks != list(self._index):
            raise ValueError(f"the state is of the tasks {tasks}, this Balancer's are {list(self._index)}")
        self.method.load_state_dict(state["method"])
        self._index = {task: index for index, task in enumerate(tasks)}

    # What follows is `backward` in its steps.

    def _on(self, tasks: Iterable[str]) -> AbstractContextManager[None]:
        """Tell the method which of all tasks it is given."""
        return self.method.on_tasks(torch.tensor([self._index[task] for task in tasks]), len(self._index))

    @staticmethod
    def _nothing(cost: StepCost, skipped: tuple[str, ...]) -> BalancerStep:
        return BalancerStep((), TaskVector.of(torch.empty(0), ()), None, cost, skipped)

    def _refuse(self, tasks: list[str], what: str) -> tuple[str, ...]:
        names = ", ".join(map(repr, tasks))
        if self.nonfinite == "raise":
            raise NonFiniteError(
                f"the {what} of task {names} is not finite; no .grad was touched. Look for a division by zero, a "
                "logarithm of zero or too large a learning rate, or pass nonfinite='skip' to leave such tasks out",
                tasks,
            )
        self._say(f"the {what} of task {names} is not finite: left out of this step, and of later ones without notice")
        return tuple(tasks)

    def _check_bound(self, tasks: Iterable[str], values: Tensor) -> None:
        bound = self.method.lower_bound
        if bound is None:
            return
        for task, value in zip(tasks, values.tolist(), strict=True):
            if not value > bound:
                raise ValueError(
                    f"{type(self.method).__name__} needs losses above {bound:g}; that of task {task!r} is {value:g}: "
                    "add a constant to that loss or use a method that takes any losses, such as sum"
                )

    def _route(self, count: int, taps: list[Tensor], shared: list[Tensor]) -> str:
        name = type(self.method).__name__
        if self.route != "auto":
            if self.route != "exact" and not taps:
                raise ValueError(f"the {self.route} route needs features=z, the tensor that all heads take")
            if not taps and not shared:
                raise ValueError("the exact route needs shared=model.trunk.parameters() or features=z")
            return self.route
        count = max(count, len(self._index))  # The choice must not change with the tasks that a batch has.
        try:
            route, reason = routes.choose(
                self.method.needs, count, bool(taps), bool(shared), self.budget, self.method.same_rows
            )
        except ValueError as error:
            raise ValueError(f"{name}: {error}") from None
        if route in ("exact", "last-layer") and taps and self._obstacle(taps) and self.method.needs == "gram":
            route, reason = "features", self._obstacle(taps) or ""
        level = logging.WARNING if "over the budget" in reason else logging.INFO
        self._say(f"{name} takes the route {route!r}: {reason}", level)
        return route

    def _obstacle(self, taps: list[Tensor]) -> str | None:
        """What keeps the exact and the last-layer route from this trunk; looked up once."""
        if self._hindered is None:
            self._hindered = routes.obstacle(taps) or ""
        return self._hindered or None

    def _check_alone(self, route: str) -> None:
        """Task gradients do not pass the hooks that average over processes, and nobody would notice."""
        distributed = torch.distributed
        if not (distributed.is_available() and distributed.is_initialized() and distributed.get_world_size() > 1):
            return
        if route != "none":
            raise RuntimeError(
                f"the {route} route does not average gradients over processes yet, so each of the "
                f"{distributed.get_world_size()} would train a model of its own: use a method that weights losses"
            )
        self._say(f"{type(self.method).__name__} weights losses by the values of each process alone")

    def _sum(self, present: dict[str, Tensor], values: Tensor, skipped: tuple[str, ...]) -> BalancerStep:
        assert isinstance(self.method, methods.LossMethod)
        weights = self.method.weights(values)
        for task, weight, loss in zip(present, weights.unbind(), present.values(), strict=True):
            self._check_weights(weight, loss.dtype, (task,))
        losses = list(present.values())
        factors = [weight.to(loss) for weight, loss in zip(weights.unbind(), losses, strict=True)]
        torch.autograd.backward(losses, factors)
        named = TaskVector.of(weights, tuple(present))
        return BalancerStep(tuple(present), named, None, StepCost("none", 1, 0), skipped, self._converged())

    def _gradients(
        self, route: str, present: dict[str, Tensor], taps: list[Tensor], shared: list[Tensor]
    ) -> routes.TaskGradients:
        losses = list(present.values())
        if any(not tap.requires_grad for tap in taps):
            raise ValueError("the features require no gradient: is the trunk frozen, or were they detached?")
        if route != "features" and (hindrance := self._obstacle(taps or losses)):
            raise ValueError(f"the {route} route can't go through this trunk: {hindrance}")
        try:
            gradients: routes.TaskGradients
            if route == "exact":
                trunk = shared or self._trunk(present, taps)
                gradients = routes.exact(losses, trunk, self.method.needs == "jacobian", self._buffer)
                self._warn_of_lonely(gradients, len(present))
            else:
                if len(taps) > 1 and routes.nested(taps):
                    raise ValueError(
                        "one of the features is computed from another, or given twice, so its gradient would count "
                        "twice: pass the trunk's parameters as shared= with route='exact'"
                    )
                heads = self._heads(present, taps)
                if route == "features":
                    gradients = routes.Features(losses, heads, taps, self._buffer)
                else:
                    layer = routes.last_layer(taps, {id(parameter) for parameter in shared} or None)
                    if not layer:
                        raise ValueError("none of the shared parameters lies below the features")
                    gradients = routes.LastLayer(losses, heads, taps, layer, self._buffer)
        except routes.NoPathError as error:
            names = [list(present)[index] for index in error.tasks]
            what = "shared parameters" if shared and route == "exact" else "features"
            who = "no loss uses" if len(names) == len(present) else f"the loss of task {names[0]!r} does not use"
            raise ValueError(
                f"{who} the {what}: was a head called on a detached copy, "
                "or is this another tensor than the one the heads take?"
            ) from None
        if self._buffer is None or self._buffer.shape[1] != gradients.rows.shape[1] or len(present) > len(self._buffer):
            self._buffer = gradients.rows
        return gradients

    def _warn_of_lonely(self, gradients: routes.TaskGradients, tasks: int) -> None:
        """A head among the shared parameters would get a combined gradient in place of its own."""
        if tasks == len(self._index) > 1 and 1 in gradients.users:
            self._say(
                "the shared parameters hold some that only one task uses, as a head's: they get that task's gradient "
                "times its weight; pass the trunk's parameters alone if that is not meant"
            )

    def _trunk(self, present: dict[str, Tensor], taps: list[Tensor]) -> list[Tensor]:
        """The parameters below the features."""
        self._heads(present, taps)
        return list({id(leaf): leaf for tap in taps for leaf in routes.leaves(tap)}.values())

    def _heads(self, present: dict[str, Tensor], taps: list[Tensor]) -> list[list[Tensor]]:
        """Every task's parameters above the features, none of which may be one of the trunk's."""
        heads = [routes.leaves(loss, stop=taps) for loss in present.values()]
        # The trunk's graph is the larger one: it is walked again only when heads or features have moved.
        ids = frozenset(map(id, [*map(routes.nearest, taps), *(leaf for head in heads for leaf in head)]))
        if ids != self._checked:
            trunk = {id(leaf) for tap in taps for leaf in routes.leaves(tap)}
            for task, head in zip(present, heads, strict=True):
                for leaf in head:
                    if id(leaf) in trunk:
                        raise ValueError(
                            f"the loss of task {task!r} reaches a trunk parameter of shape {tuple(leaf.shape)} past "
                            "the features (a skip connection, or a parameter in both trunk and head): pass the "
                            "trunk's parameters as shared= with route='exact', or, where the head takes the output of "
                            "another branch too, both outputs as features=[...]"
                        )
            self._checked = ids
        return heads

    def _combine(
        self, gradients: routes.TaskGradients, gram: Tensor, values: Tensor, tasks: tuple[str, ...]
    ) -> Tensor | None:
        """Let the method speak and write ``.grad``; returns the weights of the tasks' own gradients, if it has any."""
        method = self.method
        if isinstance(method, methods.LossMethod):
            weights = scale = method.weights(values).to(gram)
        else:
            factors = method.loss_weights(values)
            scale = gram.new_ones(len(gram)) if factors is None else factors.to(gram)
            if method.needs == "jacobian":
                assert isinstance(method, methods.GramMethod | methods.JacobianMethod)
                rows = gradients.rows if factors is None else gradients.rows * scale.to(gradients.rows)[:, None]
                gradients.write_direction(method.direction(rows), scale)
                return None
            assert isinstance(method, methods.GramMethod)
            weights = method.weights(gram * scale[:, None] * scale[None, :]).to(gram) * scale
        # Rows of half precision are combined in float32.
        self._check_weights(weights, torch.promote_types(gradients.rows.dtype, torch.float32), tasks)
        gradients.write(weights, scale)
        return weights

    def _check_weights(self, weights: Tensor, dtype: torch.dtype, tasks: tuple[str, ...]) -> None:
        """In the dtype in which they are about to be used."""
        if not weights.to(dtype).isfinite().all():
            raise NonFiniteError(
                f"{type(self.method).__name__} gave weights of {', '.join(map(repr, tasks))} that are not finite in "
                f"{str(dtype).removeprefix('torch.')}: {weights.tolist()}; no .grad was touched",
                tasks,
            )

    def _converged(self) -> bool | Tensor:
        converged = self.method.converged
        if "converged" not in self._said and not converged:
            self._said.add("converged")
            logger.warning(
                "the solver of %s stopped at its iteration limit in a step and its best point was used; "
                "later ones are counted in step.converged only",
                type(self.method).__name__,
            )
        return converged

    def _say(self, message: str, level: int = logging.WARNING) -> None:
        """Log once."""
        if message not in self._said:
            self._said.add(message)
            logger.log(level, "%s", message)
