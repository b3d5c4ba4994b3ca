"""Losses in, ``.grad`` out: the drop-in for ``loss.backward()`` when there are several losses."""

import copy
import difflib
import logging
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import asdict, dataclass, replace
from typing import Any, Literal

import torch
from torch import Tensor

from motet import audit, methods, routes
from motet.gathering import Gatherer
from motet.incoming import (
    host_values,
    read_assignment,
    read_blocks,
    read_features,
    read_losses,
    read_second,
    read_shared,
    task_names,
)
from motet.linalg import as_double
from motet.solvers.products import ProductGram
from motet.step import BalancerStep, NonFiniteError, StepCost, TaskVector

logger = logging.getLogger("motet")

Losses = Mapping[str, Tensor | None]


@dataclass(frozen=True)
class _Batch:
    """The tasks that take part in one step: their losses, the values of these on the host, and what lies below."""

    present: dict[str, Tensor]
    numbers: Tensor
    taps: list[Tensor]
    trunk: list[Tensor]
    skipped: tuple[str, ...]

    @property
    def tasks(self) -> tuple[str, ...]:
        return tuple(self.present)

    def keep(self, kept: list[int], skipped: tuple[str, ...]) -> "_Batch":
        """The same without the other tasks."""
        tasks = [self.tasks[index] for index in kept]
        present = {task: self.present[task] for task in tasks}
        return replace(self, present=present, numbers=self.numbers[kept], skipped=self.skipped + skipped)


class Balancer:
    """Combine the tasks' losses into one update by a method, on the cheapest route that can feed it.

    Heads get their own task's gradient, unscaled, unless the method weights losses, which scales everything.
    Gradients add to ``.grad`` as those of ``backward()`` do. Nothing is written before the losses and, on a route,
    the tasks' gradients as far as the route sees them are known to be finite: the exact route sees all of them, the
    others those of the heads and at the features.

    Args:
        method: A method or its name.
        route: "exact", "last-layer", "features", "probe" or "disjoint"; "auto" picks from the method's needs, the
            number of tasks, the sizes of the model's layers and the budget, and says in one log line what it picked
            and why. With a route named, a method that weights losses takes it too, so that `BalancerStep.gram` is
            known.
        budget: Largest factor over a plain step that "auto" may spend; None leaves it free.
        tasks: All tasks there may be. None takes names as they come; with names given, another name is an
            error, which catches typing mistakes.
        nonfinite: "raise" a `NonFiniteError` that names the task, or "skip" that task for this step and log it.
        granularity: "model" for one weight a task; "module" or "tensor" for weights of their own for every module or
            parameter tensor of the trunk, from its own Gram matrix, on the exact route.
        iterations: Products with the Gram matrix a step on the probe route. One is the route's idea; K make it exact.
        audit_every: Every so many steps compute the exact Gram matrix too and report in `BalancerStep.audit`, and in
            the log, how far the route's is from it. Such a step costs as much as one on the exact route on top.
        on_gradients: Called in every step that has a task, once ``.grad`` is written, with the tasks' own gradients and
            the shared parameters that they are of: (K, P) for all tasks known, with zeros for absent ones, overwritten
            by the next step. It is for optimizers that look at them: ``on_gradients=optimizer.task_gradients``. Only
            the exact route has them, so "auto" takes it.

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
        granularity: Literal["model", "module", "tensor"] = "model",
        iterations: int = 1,
        audit_every: int | None = None,
        on_gradients: Callable[[Tensor, Sequence[Tensor]], None] | None = None,
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
        if isinstance(budget, str):
            raise TypeError(f"budget must be a number, not {budget!r}")
        if budget is not None and not budget >= 1:
            raise ValueError(f"budget is a factor over the plain step and must be at least 1, not {budget}")
        if nonfinite not in ("raise", "skip"):
            raise ValueError(f"nonfinite must be 'raise' or 'skip', not {nonfinite!r}")
        if granularity not in ("model", "module", "tensor"):
            raise ValueError(f"granularity must be 'model', 'module' or 'tensor', not {granularity!r}")
        if audit_every is not None and not (isinstance(audit_every, int) and audit_every >= 1):
            raise ValueError(f"audit_every must be a whole number of steps of at least 1, not {audit_every!r}")
        if audit_every is not None and (route == "exact" or self.method.needs == "jacobian"):
            why = "the exact route is itself exact" if route == "exact" else f"{self.method!r} gives no weights"
            raise ValueError(f"audit_every has nothing to compare: {why}")
        if audit_every is not None and self.method.samples:
            raise ValueError(
                f"audit_every has nothing to compare: {self.method!r} looks at the noise between samples, which the "
                "exact Gram matrix does not have"
            )
        if not (isinstance(iterations, int) and iterations >= 1):
            raise ValueError(f"iterations must be a whole number of products of at least 1, not {iterations!r}")
        if iterations > 1 and route not in ("auto", "probe"):
            raise ValueError(f"iterations are products of the probe route, and the route is {route!r}")
        self._check_route(route, granularity)
        if on_gradients is not None and self.method.samples:
            raise ValueError(
                f"on_gradients is for the exact route, and {self.method!r} needs route='features' or 'last-layer'"
            )
        if on_gradients is not None and route not in ("auto", "exact"):
            raise ValueError(
                f"on_gradients is given the tasks' gradients of all shared parameters, which the {route} route does "
                "not have: use route='exact'"
            )
        self.route = route
        self.budget = budget
        self.nonfinite = nonfinite
        self.granularity = granularity
        self.iterations = iterations
        self.audit_every = audit_every
        self.on_gradients = on_gradients
        self._fixed = tasks is not None
        self._index = {task: index for index, task in enumerate(task_names(tasks or ()))}
        self._said: set[str] = set()
        self._gatherer = Gatherer()
        self._estimate = ProductGram()
        self._probe: routes.Probe | None = None
        self._chosen: dict[routes.Wish, str] = {}
        self._steps = 0
        self._unprobed = ""
        self._blocks: list[str] = []

    def _check_route(self, route: str, granularity: str) -> None:
        """Raise a ValueError for a method that this route can't feed."""
        method, name = self.method, type(self.method).__name__
        if route in ("last-layer", "probe", "disjoint") and method.needs == "jacobian":
            raise ValueError(
                f"{name} needs whole gradients, which the {route} route does not have: "
                "use route='exact', or route='features' for the gradients at the features"
            )
        if route == "features" and method.same_rows:
            raise ValueError(
                f"{method!r} averages gradients over steps, which must be of the same parameters, and not of a "
                "batch's features: use route='exact'"
            )
        if route not in ("auto", "exact") and method.two_samples:
            raise ValueError(f"{name} needs gradients on two batches, which only route='exact' has")
        if method.samples and route not in ("auto", "features", "last-layer"):
            raise ValueError(
                f"{name} needs the noise between samples, and the {route} route's gradients are sums over the batch: "
                "use route='features' or 'last-layer' with features=z"
            )
        if granularity != "model":
            if route not in ("auto", "exact"):
                raise ValueError(f"granularity={granularity!r} needs the exact route, not {route!r}")
            if method.needs != "gram" or not method.batched:
                able = [known for known in methods.available() if methods.entry(known).cls.batched]
                raise ValueError(
                    f"{name} gives one weight a task for the whole model, none per {granularity}; "
                    f"those that do: {', '.join(able)}"
                )

    @property
    def tasks(self) -> tuple[str, ...]:
        """All tasks known so far, in the order of the method's state."""
        return tuple(self._index)

    @property
    def learning_rates(self) -> TaskVector | None:
        """Factors on the learning rates of the tasks' own parameters where the method gives any, else None.

        They are for `motet.optim.TaskRates.set`: (all tasks,), as plain 1 before the method has seen a task.
        """
        rates = getattr(self.method, "learning_rates", None)
        if rates is None:
            return None
        return TaskVector.of(torch.cat([rates, rates.new_ones(len(self._index) - len(rates))]), self.tasks)

    @property
    def wants_feedback(self) -> bool:
        """Whether the method learns from `update`."""
        return self.method.wants_feedback

    def backward(
        self,
        losses: Losses,
        features: Tensor | Sequence[Tensor] | Mapping[str, Tensor] | None = None,
        shared: Iterable[Tensor] | torch.nn.Module | None = None,
        *,
        validation: Callable[[], Losses] | Losses | None = None,
        probe: Callable[[], Losses] | None = None,
        assignment: Tensor | Sequence[str] | None = None,
    ) -> BalancerStep:
        """Add the combined gradient to every parameter's ``.grad``.

        Args:
            losses: A scalar loss for every task; None for a task that is absent from the batch, whose state
                and head stay untouched. A constant, as a loss over no labels gives, counts as absent.
            features: The tensor or tensors between trunk and heads: all that any head takes, also where one is computed
                from another, as a skip connection's. All below is shared.
            shared: The shared parameters, where there are no such features. Frozen ones are passed over. On the exact
                route their ``.grad`` are parts of one storage.
            validation: The losses on a second batch, or a function that computes them, for methods that weigh the tasks
                by what helps there (`AutoLambda`, `MOML`, `FORUM`) or want an independent sample (`MoDo`, `SDMGrad`).
            probe: On the probe route a function that computes the losses again, on this batch or a part of it.
                Without it the product with the gradients is taken through the graph of ``losses``.
            assignment: Where every sample belongs to one task, which: (B,) numbers in the order of ``losses``, or
                names. On the disjoint route it can be left out if there are features: their gradients tell.

        Raises:
            NonFiniteError: if a loss or a gradient is not finite, with ``nonfinite="raise"``.
            ValueError: if a loss is unknown, not a scalar, below the method's bound, or does not depend on the trunk.
        """
        found, constant = read_losses(losses, self._index, self._fixed)
        taps, trunk = read_features(features), read_shared(shared)
        if found and self.method.needs != "losses" and not all(tap.requires_grad for tap in taps):
            raise ValueError("the features require no gradient: is the trunk frozen, or were they detached?")
        if validation is not None and not self.method.two_samples:
            raise ValueError(f"{type(self.method).__name__} learns from one batch: leave validation= out")
        if probe is not None and not callable(probe):
            raise TypeError(f"probe must be a function that computes the losses, not {type(probe).__name__}")
        owners = None if assignment is None else read_assignment(assignment, list(losses))
        # Only now that nothing is wrong with them.
        for task in losses:
            self._index.setdefault(task, len(self._index))
        for task in constant:
            self._say(f"the loss of task {task!r} is a constant: it counts as absent from such batches")
        values = host_values(found)
        bad = [task for task, value in values.items() if not value.isfinite()]
        skipped = self._refuse(bad, "loss") if bad else ()
        present = {task: loss for task, loss in found.items() if task not in skipped}
        self._steps += 1
        numbers = torch.stack([values[task] for task in present]) if present else torch.empty(0)
        batch = _Batch(present, numbers, taps, trunk, skipped)
        route = self._route(batch, owners is not None)
        if not present:
            return self._nothing(StepCost(route, 0, 0), skipped)
        self._check_bound(present, numbers)
        self._check_alone(route)
        with self._on(present):
            if route == "none":
                return self._sum(batch)
            self.method.observe(numbers)
            known = None if self.method.needs == "losses" else self.method.known_weights(numbers)
        if known is not None and self.on_gradients is None:
            return self._weighted(batch, known)
        if route == "probe":
            try:
                return self._probed(batch, probe)
            except routes.ProbeError as error:
                if self.route != "auto" or probe is not None:
                    raise
                self._unprobed = str(error)
                route = self._route(batch, owners is not None)
        second = self._second(validation, present)
        if owners is not None:
            places = torch.tensor([list(present).index(t) if t in present else -1 for t in losses] + [-1])
            owners = places.to(owners.device)[owners]
        elif route == "disjoint":
            owners = routes.infer_assignment(list(present.values()), taps, list(present))
        return self._routed(route, batch, second, owners, shared, known)

    def update(self, losses: Mapping[str, Tensor | None]) -> None:
        """Give the losses on the same batch after the optimizer's step, where `wants_feedback` is true.

        Tasks that are absent or not finite are passed over.
        """
        for task, loss in losses.items():
            if task not in self._index:
                raise ValueError(f"there is no task {task!r} here: {', '.join(self._index)}")
            if loss is not None and not isinstance(loss, Tensor):
                raise TypeError(f"the loss of task {task!r} must be a tensor, not {type(loss).__name__}")
            if loss is not None and loss.numel() != 1:
                raise ValueError(f"the loss of task {task!r} has shape {tuple(loss.shape)}: reduce it to a scalar")
        values = host_values({task: loss for task, loss in losses.items() if loss is not None})
        finite = {task: value for task, value in values.items() if value.isfinite()}
        if finite:
            numbers = torch.stack(list(finite.values()))
            self._check_bound(finite, numbers)
            with self._on(finite):
                self.method.update(numbers)

    def state_dict(self) -> dict[str, Any]:
        """Everything for an exact resume.

        {"tasks": [str], "method": {name: Tensor}, "kind": the method's class, "products": {name: Tensor}, "routes":
        [dict], "steps": int}: products is what the probe route has learnt, routes what "auto" has chosen.
        """
        return {
            "tasks": list(self._index),
            "method": self.method.state_dict(),
            "kind": self.method.kind,
            "products": self._estimate.state_dict(),
            "routes": [{**asdict(wish), "route": route} for wish, route in self._chosen.items()],
            "steps": self._steps,
        }

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Restore what `state_dict` gave. Nothing is changed if it does not fit.

        Raises:
            ValueError: if the state is incomplete, or of another method or other tasks than this Balancer's.
        """
        missing = {"tasks", "method", "kind"} - set(state)
        if missing:
            raise ValueError(f"this is no state of a Balancer: it lacks {', '.join(sorted(missing))}")
        if state["kind"] != self.method.kind:
            raise ValueError(f"the state is of the method {state['kind']}, this Balancer's is {self.method!r}")
        tasks = task_names(state["tasks"])
        if self._fixed and tasks != list(self._index):
            raise ValueError(f"the state is of the tasks {tasks}, this Balancer's are {list(self._index)}")
        estimate = ProductGram()
        if "products" in state:
            estimate.load_state_dict(state["products"])
        chosen = {}
        for row in state.get("routes", ()):
            wish = {name: value for name, value in row.items() if name != "route"}
            chosen[routes.Wish(**wish)] = row["route"]
        self.method.load_state_dict(state["method"])
        self._estimate, self._chosen, self._steps = estimate, chosen, int(state.get("steps", 0))
        self._unprobed = next((wish.unprobed for wish in chosen if wish.unprobed), "")
        self._index = {task: index for index, task in enumerate(tasks)}

    # What follows is `backward` in its steps.

    def _on(self, tasks: Iterable[str]) -> AbstractContextManager[None]:
        """Tell the method which of all tasks it is given."""
        return self.method.on_tasks(torch.tensor([self._index[task] for task in tasks]), len(self._index))

    def _second(self, validation: Callable[[], Losses] | Losses | None, present: Iterable[str]) -> list[Tensor | None]:
        """The losses on the second batch, for methods that want one."""
        if validation is not None:
            return read_second(validation, list(present), self._index)
        if self.method.two_samples:
            self._say(f"{type(self.method).__name__} was given no validation=: the training batch stands in for it")
        return []

    def _routed(
        self,
        route: str,
        batch: "_Batch",
        second: list[Tensor | None],
        owners: Tensor | None,
        shared: Any,
        known: Tensor | None,
    ) -> BalancerStep:
        """A step in which the method is given what the route finds, unless its weights are known."""
        present, gather = batch.present, self._gatherer.gather
        truth = None if route == "exact" else self._truth(batch)
        whole = self.method.needs == "jacobian" or self.granularity != "model" or self.on_gradients is not None
        samples = self.method.samples
        gradients = gather(
            route, present, batch.taps, batch.trunk, whole=whole, second=second, assignment=owners, samples=samples
        )
        self._warn_of_lonely(gradients, len(present))
        cost = StepCost(route, gradients.trunk_backwards, gradients.head_backwards)
        gram = gradients.gram() * gradients.factor
        fine = gradients.finite(gram)
        if not fine.all():
            kept = fine.nonzero().flatten().tolist()
            bad = [task for task, ok in zip(present, fine.tolist(), strict=True) if not ok]
            batch = batch.keep(kept, self._refuse(bad, "gradient"))
            if not batch.present:
                return self._nothing(cost, batch.skipped)
            gradients.keep(kept)
            gram, truth = gradients.gram() * gradients.factor, None
            known = None if known is None else known[kept]
        with self._on(batch.present):
            self.method.observe(batch.numbers)
            twin = None if truth is None else copy.deepcopy(self.method)
            weights = self._combine(gradients, gram, batch, shared, known)
            checked = self._audit(route, gram, weights, truth, twin, batch.numbers)
        count = len(batch.present)
        if self.on_gradients is not None:
            assert isinstance(gradients, routes.Exact)
            self.on_gradients(self._of_all(gradients.rows[:count], batch.tasks), gradients.shared)
        return self._done(batch, weights, gram[:count, :count], cost, checked)

    def _of_all(self, rows: Tensor, tasks: Sequence[str]) -> Tensor:
        """Rows of some tasks as rows of all, in the order of `tasks`."""
        if tuple(tasks) == self.tasks:
            return rows
        whole = rows.new_zeros(len(self._index), rows.shape[1])
        whole[[self._index[task] for task in tasks]] = rows
        return whole

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

    def _route(self, batch: "_Batch", assigned: bool) -> str:
        taps, trunk = batch.taps, batch.trunk
        if self.route != "auto":
            if self.route not in ("exact", "probe", "disjoint") and not taps:
                raise ValueError(f"the {self.route} route needs features=z, the tensor that all heads take")
            if not taps and not trunk:
                raise ValueError(f"the {self.route} route needs shared=model.trunk.parameters() or features=z")
            if self.route == "disjoint" and not assigned and not taps:
                raise ValueError("the disjoint route needs assignment=, the task that every sample belongs to")
            if self.route == "probe" and self.method.needs == "gram" and not self.method.by_products:
                self._say(
                    f"{type(self.method).__name__} looks at more of the Gram matrix than its product with the weights: "
                    "on the probe route it sees an estimate that stays off where no update goes (iterations=K is exact)"
                )
            if self.route == "features" and self.method.no_conflict:
                self._say(
                    f"{type(self.method).__name__} promises that no task loses, and on the features route it keeps "
                    "that at the features only: the trunk's update may go against a task. route='last-layer' comes "
                    "closer"
                )
            return self.route
        return self._choose(batch, assigned)

    def _choose(self, batch: "_Batch", assigned: bool) -> str:
        """The route of ``route="auto"``: looked for once for each set of circumstances, and said in one line."""
        method, taps = self.method, batch.taps
        if self.on_gradients is not None:
            if not taps and not batch.trunk:
                raise ValueError("on_gradients needs shared=model.trunk.parameters() or features=z")
            self._say(f"{type(method).__name__} takes the route 'exact' for on_gradients", logging.INFO)
            return "exact"
        hindered = (self._gatherer.obstacle(taps) or "") if taps and method.needs != "losses" else ""
        unsampled = self._gatherer.unsampled(taps, batch.trunk) if taps and method.samples and not hindered else ""
        wish = routes.Wish(
            method.needs,
            max(len(batch.present), len(self._index)),  # The choice must not change with the tasks that a batch has.
            bool(taps),
            bool(batch.trunk),
            self.budget,
            method.same_rows,
            method.two_samples or self.granularity != "model",
            assigned,
            hindered,
            self._unprobed or ("" if method.by_products else "the method needs more than products"),
            method.samples,
            unsampled,
        )
        if wish not in self._chosen:
            try:
                sized = batch.present and wish.needs != "losses" and not hindered
                work = routes.measure(list(batch.present.values()), taps, batch.trunk) if sized else None
                route, reason = routes.choose(wish, work)
            except ValueError as error:
                raise ValueError(f"{type(method).__name__}: {error}") from None
            level = logging.WARNING if "over the budget" in reason else logging.INFO
            self._say(f"{type(method).__name__} takes the route {route!r}: {reason}", level)
            self._chosen[wish] = route
        return self._chosen[wish]

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

    def _sum(self, batch: "_Batch") -> BalancerStep:
        weights = self.method.weights(batch.numbers)
        losses = list(batch.present.values())
        for task, weight, loss in zip(batch.tasks, weights.unbind(), losses, strict=True):
            self._check_weights(weight, loss.dtype, (task,))
        torch.autograd.backward(
            losses, [weight.to(loss) for weight, loss in zip(weights.unbind(), losses, strict=True)]
        )
        return self._done(batch, weights, None, StepCost("none", 1, 0))

    def _weighted(self, batch: "_Batch", known: Tensor) -> BalancerStep:
        """A step whose weights are known before any gradient is: one pass through the trunk."""
        self._gatherer.check_taps(batch.taps)
        with self._on(batch.present):
            weights, scale = self._scaled(known, batch)
        losses = list(batch.present.values())
        try:
            gradients = routes.Weighted(
                losses, weights, scale, self._gatherer.below(batch.present, batch.taps, batch.trunk)
            )
        except routes.NoPathError as error:
            raise self._gatherer.pathless(error, batch.tasks, bool(batch.trunk)) from None
        cost = StepCost("known", gradients.trunk_backwards, gradients.head_backwards)
        if not gradients.finite():
            bad = [batch.tasks[index] for index in gradients.culprits()]
            # What is summed up can't be taken apart again: the whole step is left out.
            return self._nothing(cost, batch.skipped + self._refuse(bad, "gradient"))
        gradients.write()
        return self._done(batch, weights, None, cost)

    def _probed(self, batch: "_Batch", closure: Callable[[], Losses] | None) -> BalancerStep:
        """A step along weights from what earlier products taught of the Gram matrix, which yields one product more.

        Raises:
            ProbeError: if this model can't be differentiated along its update; nothing has been written.
        """
        gatherer, estimate, losses = self._gatherer, self._estimate, list(batch.present.values())
        gatherer.check_taps(batch.taps)
        if hindrance := gatherer.obstacle(batch.taps or losses):
            raise ValueError(f"the probe route can't go through this trunk: {hindrance}")
        shared = gatherer.below(batch.present, batch.taps, batch.trunk)
        if self._probe is None or (self._probe.closure is None) != (closure is None):
            self._probe = routes.Probe(closure)
        self._probe.closure = closure
        truth = self._truth(batch)
        try:
            step = self._probe.step(losses, batch.tasks, shared)
            with self._on(batch.present):
                estimate.begin(torch.tensor([self._index[task] for task in batch.tasks]), len(self._index))
                for _ in range(self.iterations - 1):
                    weights, scale = self._from_estimate(copy.deepcopy(self.method), batch)
                    direction = estimate.next_probe(weights)
                    if direction is None:
                        break
                    estimate.update(direction, step.product(direction))
                twin = None if truth is None else copy.deepcopy(self.method)
                gram = estimate.gram()
                weights, scale = self._from_estimate(self.method, batch)
            product = step.finish(weights, scale)
        except routes.NoPathError as error:
            raise gatherer.pathless(error, batch.tasks, bool(batch.trunk)) from None
        cost = StepCost("probe", step.trunk_backwards, step.gradients.head_backwards, step.products)
        if not step.gradients.finite():
            if closure is not None:  # The graph is gone.
                bad = [batch.tasks[index] for index in step.gradients.culprits()]
                return self._nothing(cost, batch.skipped + self._refuse(bad, "gradient"))
            fine = gatherer.finite(losses, [*shared, *step.heads])
            bad = [task for task, ok in zip(batch.tasks, fine, strict=True) if not ok]
            rest = batch.keep([k for k, ok in enumerate(fine) if ok], self._refuse(bad, "gradient"))
            return self._probed(rest, closure) if rest.present and bad else self._nothing(cost, rest.skipped)
        step.gradients.write()
        if closure is None:
            routes.release(losses, shared)
        estimate.update(weights, product)
        with self._on(batch.present):
            checked = self._audit("probe", gram, weights, truth, twin, batch.numbers)
        return self._done(batch, weights, gram, cost, checked)

    def _from_estimate(self, method: "methods.Method", batch: "_Batch") -> tuple[Tensor, Tensor]:
        """Weights from the estimated Gram matrix, and the heads' scale."""
        if method.needs == "losses":
            weights = scale = as_double(method.weights(batch.numbers))
            self._check_weights(weights, torch.float32, batch.tasks)
            return weights, scale
        method.observe(batch.numbers)
        factors = method.loss_weights(batch.numbers)
        gram = self._estimate.gram()
        scale = torch.ones_like(gram[0]) if factors is None else factors.to(gram)
        return self._scaled(method.weights(gram * scale[:, None] * scale[None, :]), batch)

    def _truth(self, batch: "_Batch") -> Tensor | None:
        """The exact Gram matrix, in steps that are audited."""
        if self.audit_every is None or self._steps % self.audit_every:
            return None
        if hindrance := self._gatherer.obstacle(batch.taps or list(batch.present.values())):
            self._say(f"no audit: {hindrance}")
            return None
        gather = self._gatherer.gather
        return gather("exact", batch.present, batch.taps, batch.trunk, whole=False, retain=True).gram()

    def _scaled(self, weights: Tensor, batch: "_Batch") -> tuple[Tensor, Tensor]:
        """Weights of the tasks' own gradients and of their heads', with the method's factors on the losses."""
        factors = self.method.loss_weights(batch.numbers)
        weights = as_double(weights)
        scale = torch.ones_like(weights) if factors is None else factors.to(weights)
        for task, weight, loss in zip(batch.tasks, (weights * scale).unbind(), batch.present.values(), strict=True):
            self._check_weights(weight, loss.dtype, (task,))
        return weights * scale, scale

    def _done(
        self,
        batch: "_Batch",
        weights: Tensor | None,
        gram: Tensor | None,
        cost: StepCost,
        checked: audit.Audit | None = None,
    ) -> BalancerStep:
        """What is reported of a step."""
        names: tuple[str, ...] = ()
        tasks, blocks = batch.tasks, None
        if weights is not None and weights.dim() == 2:
            weights, blocks, names = None, weights, tuple(self._blocks)
        named = None if weights is None else TaskVector.of(weights, tasks)
        return BalancerStep(tasks, named, gram, cost, batch.skipped, self._converged(), blocks, names, checked)

    def _warn_of_lonely(self, gradients: routes.TaskGradients, tasks: int) -> None:
        """A head among the shared parameters would get a combined gradient in place of its own."""
        if tasks == len(self._index) > 1 and 1 in gradients.users:
            self._say(
                "the shared parameters hold some that only one task uses, as a head's: they get that task's gradient "
                "times its weight; pass the trunk's parameters alone if that is not meant"
            )

    def _combine(
        self, gradients: routes.TaskGradients, gram: Tensor, batch: "_Batch", shared: Any, known: Tensor | None
    ) -> Tensor | None:
        """Let the method speak and write ``.grad``; returns the weights of the tasks' own gradients, if it has any."""
        method, values = self.method, batch.numbers
        if known is not None:
            weights, scale = self._scaled(known.to(gram), batch)
        elif method.needs == "losses":
            weights = scale = method.weights(values).to(gram)
        else:
            factors = method.loss_weights(values)
            scale = gram.new_ones(len(values)) if factors is None else factors.to(gram)
            if method.needs == "jacobian":
                rows = gradients.rows if factors is None else gradients.rows * scale.to(gradients.rows)[:, None]
                gradients.write_direction(method.direction(rows), scale)
                return None
            if self.granularity != "model":
                assert isinstance(gradients, routes.Exact)
                return self._combine_blocks(gradients, scale, batch, shared)
            if len(gram) == 2 * len(values):
                both = scale.repeat(2)
                weights = method.pair_weights(gram * both[:, None] * both[None, :]).to(gram) * both
            elif method.samples:
                assert isinstance(gradients, routes.Features)
                if gradients.hindrance:
                    self._say(f"{type(method).__name__} takes its moments at the features: {gradients.hindrance}")
                signal, noise = (
                    part * gradients.factor * scale[:, None] * scale[None, :] for part in gradients.moments()
                )
                weights = method.sample_weights(signal, noise).to(gram) * scale
            else:
                weights = method.weights(gram * scale[:, None] * scale[None, :]).to(gram) * scale
        # Rows of half precision are combined in float32.
        self._check_weights(weights, torch.promote_types(gradients.rows.dtype, torch.float32), batch.tasks)
        gradients.write(weights, scale)
        return weights[: len(values)]

    def _combine_blocks(self, gradients: routes.Exact, scale: Tensor, batch: "_Batch", shared: Any) -> Tensor:
        """Weights for every block of the trunk: (L, K)."""
        assert self.granularity != "model"
        self._blocks, sizes = read_blocks(shared, gradients.shared, self.granularity)
        grams = gradients.blocks(sizes) * scale[:, None] * scale[None, :]
        weights = self.method.weights(grams).to(grams) * scale
        self._check_weights(weights, torch.promote_types(gradients.rows.dtype, torch.float32), batch.tasks)
        gradients.write_blocks(weights, sizes, scale)
        return weights

    def _audit(
        self, route: str, gram: Tensor, weights: Tensor | None, truth: Tensor | None, twin: Any, values: Tensor
    ) -> audit.Audit | None:
        """Compare with what the method's ``twin`` makes of the exact Gram matrix."""
        if truth is None or weights is None:
            return None
        factors = twin.loss_weights(values) if twin.needs != "losses" else None
        scale = truth.new_ones(len(truth)) if factors is None else factors.to(truth)
        given = values if twin.needs == "losses" else truth * scale[:, None] * scale[None, :]
        found = audit.compare(route, gram, weights, truth, twin.weights(given).to(truth) * scale)
        logger.info("%s", found)
        return found

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
        if isinstance(converged, Tensor):
            converged = converged.all()  # Of many blocks each has its own.
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
