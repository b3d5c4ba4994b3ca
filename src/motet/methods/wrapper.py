"""What all wrappers share: a method around a method, with all that a route and a checkpoint ask of it."""

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from typing import Any

import torch
from torch import Tensor

from motet.linalg import combine, gram
from motet.methods.base import Method
from motet.methods.registry import get

_INNER = "inner."


class Wrapper(Method):
    """Passes everything on to the ``method`` inside: its needs, bounds, tasks, state and random numbers.

    A wrapper of a wrapper is one too: ``EMA(LogLosses(MGDA()))``.
    """

    def __init__(self, method: Method | str) -> None:
        super().__init__()
        if isinstance(method, type):
            raise TypeError(f"{type(self).__name__} wraps an object, not a class: write {method.__name__}()")
        self.method = get(method) if isinstance(method, str) else method
        if not isinstance(self.method, Method):
            raise TypeError(f"{type(self).__name__} wraps a motet method or its name, not {type(method).__name__}")
        self.needs = self.method.needs
        self.lower_bound = self.method.lower_bound
        self.same_rows = self.method.same_rows
        self.wants_feedback = self.method.wants_feedback
        self.no_conflict = self.method.no_conflict
        self.symmetric = self.method.symmetric
        self.least_tasks = self.method.least_tasks
        self.scale = self.method.scale
        self.by_products = self.method.by_products
        self.two_samples = self.method.two_samples
        self.samples = self.method.samples

    def __getattr__(self, name: str) -> Any:
        """What the method inside offers beyond a method's own, as ``report`` or ``draw``."""
        if name.startswith("_") or name == "method":
            raise AttributeError(name)
        return getattr(self.method, name)

    @property
    def kind(self) -> str:
        return f"{type(self).__name__}({self.method.kind})"

    @property
    def converged(self) -> bool | Tensor:
        """Whether the solver of the method inside has converged."""
        return self.method.converged

    @converged.setter
    def converged(self, value: bool | Tensor) -> None:
        """Ignored: it is the inner method that knows."""

    @property
    def generator(self) -> torch.Generator | None:
        """The random numbers of the method inside."""
        return self.method.generator if hasattr(self, "method") else None

    @generator.setter
    def generator(self, value: torch.Generator | None) -> None:
        """Ignored: it is the inner method that draws."""

    def loss_weights(self, losses: Tensor) -> Tensor | None:
        return self.method.loss_weights(losses)

    def observe(self, losses: Tensor) -> None:
        self.method.observe(losses)

    def known_weights(self, losses: Tensor) -> Tensor | None:
        return self.method.known_weights(losses)

    def weights(self, given: Tensor) -> Tensor:
        return self.method.weights(given)

    def pair_weights(self, joint: Tensor) -> Tensor:
        return self.method.pair_weights(joint)

    def sample_weights(self, signal: Tensor, noise: Tensor) -> Tensor:
        return self.method.sample_weights(signal, noise)

    def direction(self, jacobian: Tensor) -> Tensor:
        if self.needs != "gram":
            return self.method.direction(jacobian)
        jacobian = jacobian.detach()
        return combine(self.weights(gram(jacobian)), jacobian)

    def update(self, losses: Tensor) -> None:
        self.method.update(losses)

    @contextmanager
    def on_tasks(self, rows: Tensor, count: int) -> Iterator[None]:
        with ExitStack() as stack:
            stack.enter_context(super().on_tasks(rows, count))
            stack.enter_context(self.method.on_tasks(rows, count))
            yield

    def use_generator(self, generator: torch.Generator | None) -> None:
        self.method.use_generator(generator)

    def state_dict(self) -> dict[str, Tensor]:
        inner = {_INNER + name: value for name, value in self.method.state_dict().items()}
        return {name: value.clone() for name, value in self._state.items()} | inner

    def load_state_dict(self, state: dict[str, Tensor]) -> None:
        inner = {name.removeprefix(_INNER): value for name, value in state.items() if name.startswith(_INNER)}
        self.method.load_state_dict(inner)
        self._state = {name: value.clone() for name, value in state.items() if not name.startswith(_INNER)}

    def _needs_weights(self, why: str) -> None:
        """Refuse methods that give a direction and no weights.

        Raises:
            ValueError: if the method inside works on whole gradients.
        """
        if self.needs == "jacobian":
            raise ValueError(f"{self.method!r} gives a direction and no weights, and {why}")
