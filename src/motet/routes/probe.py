"""The probe route: weights from the method's state, one backward pass, and what every task gains along it."""

import logging
import math
from collections.abc import Callable, Mapping, Sequence
from typing import TypeVar

import torch
from torch import Tensor

from motet.linalg import as_double
from motet.routes.base import NoPathError
from motet.routes.forward_mode import Losses, difference_product, forward_product, no_fused_kernels, untouched
from motet.routes.graph import outside
from motet.routes.weighted import Weighted, backward_of, factors

_T = TypeVar("_T")
logger = logging.getLogger("motet")

Closure = Callable[[], Mapping[str, Tensor | None]]
"""Computes losses by task anew, on the batch or a part of it."""

WAYS = _FORWARD, _DOUBLE, _DIFFERENCES = "forward mode", "a double backward pass", "finite differences"
_TRUST = 1e-2
"""Relative error of a product at which a way is taken to be wrong for this model, and not merely rounding."""


class ProbeError(RuntimeError):
    """No way to the product is open for this model."""


class Probe:
    """How t = J d is had on this model: tried in order, each way left for good, with one log line, where it fails.

    With a closure: dual numbers, a double backward pass of the closure's losses, finite differences. Without: a double
    backward pass on the graph of the step itself, which needs no second evaluation, so dropout masks are the step's
    and buffers are not touched.

    Args:
        closure: Losses by task, from the batch or a part of it, as `Balancer.backward` takes them.
        ways: With a closure, what to try and in which order. ``("finite differences",)`` takes two plain forward
            passes in place of one with tangents of about three, where a product right to 1e-2 will do.

    Attributes:
        way: What is used at present, for the log.
    """

    def __init__(self, closure: Closure | None = None, ways: Sequence[str] = WAYS) -> None:
        if not ways or not set(ways) <= set(WAYS):
            raise ValueError(f"ways must be some of {', '.join(map(repr, WAYS))}, not {tuple(ways)}")
        self.closure = closure
        self._ways = list(ways) if closure else [_DOUBLE]
        self._checked = False
        self._tried = False

    @property
    def way(self) -> str:
        """What is used at present."""
        return self._ways[0]

    def step(
        self,
        losses: Sequence[Tensor],
        tasks: Sequence[str],
        shared: Sequence[Tensor],
        heads: Sequence[Tensor] | None = None,
    ) -> "ProbeStep":
        """The products and gradients of one step.

        Args:
            losses: K scalars.
            tasks: Their names, by which the closure's losses are known.
            shared: The shared parameters.
            heads: All other parameters under the losses, if they are known.
        """
        return ProbeStep(self, losses, tasks, shared, heads)

    def along(self, tasks: Sequence[str], shared: Sequence[Tensor], direction: Sequence[Tensor | None]) -> Tensor:
        """t = J d of the closure's losses for any direction: (K,) float64, NaN for tasks absent from the closure."""
        losses = self._losses(tasks)
        if not self._tried:
            self._try(losses, shared)
        while True:
            try:
                if self.way == _FORWARD:
                    product = forward_product(losses, shared, direction)
                elif self.way == _DOUBLE:
                    product = _double_of_closure(losses, shared, direction)
                else:
                    product = difference_product(losses, shared, direction)
                self._trust(losses, shared, direction, product)
                return as_double(product)
            except (RuntimeError, TypeError) as error:  # NotImplementedError is a RuntimeError
                if isinstance(error, torch.OutOfMemoryError):
                    raise
                self._leave(error)

    def _losses(self, tasks: Sequence[str]) -> Losses:
        closure = self.closure
        assert closure is not None

        def evaluate() -> list[Tensor | None]:
            found = closure()
            if not isinstance(found, Mapping):
                raise ValueError(f"the probe's closure must return a dict of losses, not {type(found).__name__}")
            for task, loss in found.items():
                if loss is not None and not (isinstance(loss, Tensor) and loss.numel() == 1):
                    raise ValueError(f"the probe's loss of task {task!r} must be a scalar tensor")
            if all(found.get(task) is None for task in tasks):
                raise ValueError(
                    f"the probe's closure has none of the tasks {', '.join(tasks)}; it returned {', '.join(found)}"
                )
            return [found.get(task) for task in tasks]

        return evaluate

    def _try(self, losses: Losses, shared: Sequence[Tensor]) -> None:
        """Before the first product: what is wrong with the closure itself is no failure of a way.

        Raises:
            ValueError: if it does not give the same losses twice, as it must within a step.
        """
        with untouched(shared), torch.no_grad():
            first = losses()
        with untouched(shared), torch.no_grad():
            second = losses()
        for one, other in zip(first, second, strict=True):
            if one is not None and other is not None and not torch.allclose(one, other, rtol=1e-3, equal_nan=True):
                raise ValueError(
                    f"the probe's closure gives other losses each time ({float(one):.4g}, then {float(other):.4g}): "
                    "it must compute the same ones, so take the next batch outside of it"
                )
        self._tried = True

    def _trust(
        self, losses: Losses, shared: Sequence[Tensor], direction: Sequence[Tensor | None], product: Tensor
    ) -> None:
        """Once for every way, hold it to an ordinary backward pass: ⟨u, J d⟩ = ⟨Jᵀu, d⟩ for a random u.

        A compiled graph that drops tangents, or a custom function's wrong ``jvp``, would go unnoticed otherwise.
        """
        if self._checked:
            return
        with untouched(shared), torch.enable_grad():
            found = losses()
            live = [k for k, loss in enumerate(found) if loss is not None and loss.requires_grad]
            present = [loss for loss in found if loss is not None and loss.requires_grad]
            # Its own draws: those of training must not move.
            signs = torch.randint(2, (len(present),), generator=torch.Generator().manual_seed(0)) * 2.0 - 1
            gradients = torch.autograd.grad(present, list(shared), factors(present, signs), allow_unused=True)
        pairs = [(g, d) for g, d in zip(gradients, direction, strict=True) if g is not None and d is not None]
        expected = sum(float((as_double(g) * as_double(d.to(g))).sum()) for g, d in pairs)
        size = sum(float(as_double(g).square().sum()) for g, _ in pairs) ** 0.5
        size *= sum(float(as_double(d).square().sum()) for _, d in pairs) ** 0.5
        if not math.isfinite(expected):
            return  # A task is to blame, and not this way.
        got = float(as_double(product)[live].cpu() @ as_double(signs))
        trust = 10 * _TRUST if self.way == _DIFFERENCES else _TRUST
        if not abs(got - expected) <= trust * max(abs(expected), 0.01 * size):
            raise RuntimeError(f"it gives {got:.4g} where a backward pass gives {expected:.4g}")
        self._checked = True

    def check(self, direction: Sequence[Tensor | None], product: Tensor) -> None:
        """Once, hold ⟨w, G w⟩ to |Jᵀw|²: it fails where an operation's backward pass hides from differentiation."""
        if self._checked:
            return
        expected = sum(float(as_double(part).square().sum()) for part in direction if part is not None)
        if not math.isfinite(expected):
            return  # A task is to blame, and not this way.
        if not abs(float(product) - expected) <= _TRUST * expected:
            self._leave(RuntimeError(f"⟨w, G w⟩ is {float(product):.4g} and |Jᵀw|² is {expected:.4g}"))
        self._checked = True

    def guard(self, work: Callable[[], _T]) -> _T:
        """Work on the step's own graph, whose failure says what to do about it."""
        try:
            return work()
        except torch.OutOfMemoryError:
            raise
        except RuntimeError as error:
            self._leave(error)
            raise

    def _leave(self, error: Exception) -> None:
        failed = self._ways[0]
        reason = str(error).strip().split("\n")[0] or type(error).__name__
        if len(self._ways) == 1:
            fix = "route='features' and 'last-layer' need no such product"
            if self.closure is None and "scaled_dot_product" in reason:
                fix = f"run the forward pass under sdpa_kernel(SDPBackend.MATH), or pass probe=closure; {fix}"
            elif self.closure is None:
                fix = f"pass probe=closure, which computes the losses anew, or use another route: {fix}"
            raise ProbeError(
                f"the probe route can't differentiate this model along its update by {failed} ({reason}): {fix}"
            ) from error
        self._ways.pop(0)
        self._checked = False
        logger.warning("the probe uses %s, since %s failed: %s", self.way, failed, reason)


class ProbeStep:
    """One step of the probe route.

    `product` may be called any number of times before `finish`, which fixes the weights of the step.

    Attributes:
        gradients: What `finish` computed, not written yet.
        trunk_backwards: Backward passes through the trunk so far.
        products: Products so far.
    """

    gradients: Weighted

    def __init__(
        self,
        probe: Probe,
        losses: Sequence[Tensor],
        tasks: Sequence[str],
        shared: Sequence[Tensor],
        heads: Sequence[Tensor] | None,
    ) -> None:
        self.probe, self.losses, self.tasks, self.shared = probe, list(losses), list(tasks), list(shared)
        self.heads = outside(losses, {id(p) for p in shared}) if heads is None else list(heads)
        self.trunk_backwards = self.products = 0
        self._transposed: tuple[Tensor, tuple[Tensor | None, ...]] | None = None

    def product(self, weights: Tensor) -> Tensor:
        """G v for weights v: (K,) → (K,) float64. One backward pass and one product; nothing is written."""
        return self.along(self._direction(weights))

    def along(self, direction: Sequence[Tensor | None]) -> Tensor:
        """J r for any direction, one part a shared parameter: (K,) float64. No backward pass with a closure."""
        self.products += 1
        if self.probe.closure is not None:
            return self.probe.along(self.tasks, self.shared, direction)
        if self._transposed is None:
            ones = torch.ones(len(self.losses), device=self.losses[0].device)
            self._transposed = self.probe.guard(lambda: _transpose(self.losses, self.shared, ones))
        u, transposed = self._transposed
        return as_double(self.probe.guard(lambda: _along(u, transposed, direction)))

    def finish(self, weights: Tensor, scale: Tensor) -> Tensor:
        """Compute the step's gradients for these weights and scale, (K,) each, and return t = G w: (K,) float64."""
        if self.probe.closure is not None:
            self.trunk_backwards += 1
            self.gradients = Weighted(self.losses, weights, scale, self.shared, self.heads)
            if not self.gradients.finite():
                return torch.full_like(as_double(weights), torch.nan)  # A task is to blame, and no way to the product.
            return self.along(self.gradients.direction)
        direction = self._direction(weights)
        self.gradients = Weighted(self.losses, weights, scale, self.shared, self.heads, direction)
        product = self.along(direction)
        self.probe.check(direction, as_double(weights) @ product.to(weights.device))
        self._transposed = None
        return product

    def _direction(self, weights: Tensor) -> list[Tensor | None]:
        self.trunk_backwards += 1
        if self.probe.closure is None and self._transposed is None:
            self._transposed = self.probe.guard(lambda: _transpose(self.losses, self.shared, weights))
            found: Sequence[Tensor | None] = self._transposed[1]
        else:
            found = backward_of(self.losses, self.shared, weights, keep=True)
        if all(part is None for part in found):
            raise NoPathError(list(range(len(self.losses))))
        return [None if part is None else part.detach() for part in found]


def _transpose(
    losses: Sequence[Tensor], shared: Sequence[Tensor], weights: Tensor
) -> tuple[Tensor, tuple[Tensor | None, ...]]:
    """Cotangents u = w, and Jᵀu with the graph that leads back to u. It is linear in u, so that w does not matter."""
    # In float64, since what comes back to u is as exact as u itself.
    u = as_double(weights.detach()).clone().requires_grad_()
    return u, torch.autograd.grad(list(losses), list(shared), factors(losses, u), create_graph=True, allow_unused=True)


def _along(u: Tensor, transposed: Sequence[Tensor | None], direction: Sequence[Tensor | None]) -> Tensor:
    """J d = ∂⟨Jᵀu, d⟩/∂u."""
    pairs = [(g, d) for g, d in zip(transposed, direction, strict=True) if g is not None and d is not None]
    found = torch.autograd.grad([g for g, _ in pairs], u, [d.to(g) for g, d in pairs], retain_graph=True)
    return found[0]


def _double_of_closure(closure: Losses, shared: Sequence[Tensor], direction: Sequence[Tensor | None]) -> Tensor:
    with untouched(shared), no_fused_kernels(), torch.enable_grad():
        losses = closure()
        live = [(k, loss) for k, loss in enumerate(losses) if loss is not None and loss.requires_grad]
        present = [loss for _, loss in live]
        product = _along(*_transpose(present, shared, torch.ones(len(present), device=present[0].device)), direction)
    found = torch.stack([product.new_full((), torch.nan if loss is None else 0.0) for loss in losses])
    found[[k for k, _ in live]] = product
    return found
