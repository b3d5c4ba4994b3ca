"""What a method is: K losses, a K×K Gram matrix or a K×P Jacobian in; weights or a direction out.

A method knows nothing of models, optimizers or routes. State that must survive a checkpoint is kept as
tensors through `recall` and `remember`, one row a task, so that a task that is absent from a batch keeps
its row untouched.
"""

import inspect
import math
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Literal

import torch
from torch import Tensor

from motet.linalg import as_double, combine, gram
from motet.methods.registry import register

_SALT = 0x6D6F746574

__all__ = ["GramMethod", "JacobianMethod", "LossMethod", "Method", "SampleMethod", "TwoSampleMethod", "register"]


Needs = Literal["losses", "gram", "jacobian"]


class Method:
    """State and task bookkeeping that all methods share. Derive from one of the three kinds below."""

    needs: Needs
    lower_bound: float | None = None
    """Losses must exceed this, or None where any finite loss will do. The Balancer checks it and names the task."""
    same_rows: bool = False
    """True where the rows of a Jacobian must be of the same parameters in every step, not of a batch's features."""
    wants_feedback: bool = False
    """True for methods that learn from the losses on the same batch after the optimizer's step: see `update`."""
    batched: bool = False
    """True where `GramMethod.weights` takes many Gram matrices at once, (…, K, K) → (…, K), for weights per layer."""
    scale: float | None = None
    """e, where all losses times c make the first update cᵉ times what it was; None where there is no such law."""
    no_conflict: bool = False
    """True where the method promises that no update goes against any task's gradient."""
    symmetric: bool = True
    """False where the tasks' order has a meaning, as with a main task or a preference."""
    least_tasks: int = 1
    """How many tasks there must be at least: main = 3 names the fourth."""
    by_products: bool = False
    """True where w is known to be right from the product G w alone, so that the probe route comes to rest at it."""
    two_samples: bool = False
    """True where the method wants gradients on a second batch too: see `TwoSampleMethod`."""
    samples: bool = False
    """True where the method wants the noise between a batch's samples too: see `SampleMethod`."""

    def __init__(self) -> None:
        self.converged: bool | Tensor = True
        self.generator: torch.Generator | None = None
        self._observed: Tensor | None = None
        self._state: dict[str, Tensor] = {}
        self._rows: Tensor | None = None
        self._count: int | None = None

    def __repr__(self) -> str:
        held = {name: vars(self)[name] for name in inspect.signature(type(self)).parameters if name in vars(self)}
        return f"{type(self).__name__}({', '.join(f'{k}={v!r}' for k, v in held.items() if k != 'generator')})"

    def loss_weights(self, losses: Tensor) -> Tensor | None:  # noqa: ARG002 - for methods on log-losses
        """Factors on the losses that are applied before any gradient is looked at: (K,) → (K,), or None.

        A method that works on log-losses returns 1/L here. These factors scale heads and trunk alike.
        """
        return None

    def observe(self, losses: Tensor) -> None:
        """Take the losses (K,) of a step before its gradients are asked for. For methods on gradients *and* losses."""
        self._observed = as_double(losses.detach())

    def observed(self, like: Tensor) -> Tensor:
        """The losses that `observe` was given for this step, as ``like``: (K,); used up by being read.

        A method that is called with gradients alone takes all losses as equal: ones.
        """
        losses, self._observed = self._observed, None
        if losses is None or len(losses) != len(like):
            return like.new_ones(len(like))
        return losses.to(like)

    def known_weights(self, losses: Tensor) -> Tensor | None:  # noqa: ARG002 - for methods that ask less often
        """Weights of the tasks' gradients where this step's need no gradients: (K,) → (K,), or None.

        With them a step costs a plain one on any route. A method that returns weights has counted the step, and is
        not asked for `weights` in it.
        """
        return None

    def chosen(self, values: Tensor, like: Tensor) -> Tensor:
        """The present tasks' entries of an option that has one value a task: (all tasks, …) → (K, …), as ``like``.

        Raises:
            ValueError: if there are not as many values as tasks.
        """
        count = len(like) if self._count is None else self._count
        if len(values) != count:
            raise ValueError(
                f"{type(self).__name__} was made with {len(values)} values, one a task, and there are {count} tasks"
            )
        values = values.to(like)
        return values if self._rows is None else values[self._rows.to(values.device)]

    def weights(self, given: Tensor) -> Tensor:
        """Weights (K,) from what `needs` names: losses (K,) or the Gram matrix (K, K)."""
        raise NotImplementedError

    def pair_weights(self, joint: Tensor) -> Tensor:
        """Weights of all 2K gradients where `two_samples` is true: (2K, 2K) → (2K,).

        Most methods leave those of the second batch at zero.
        """
        raise NotImplementedError

    def sample_weights(self, signal: Tensor, noise: Tensor) -> Tensor:
        """Weights of the tasks' gradients where `samples` is true: (K, K), (K, K) → (K,)."""
        raise NotImplementedError

    def direction(self, jacobian: Tensor) -> Tensor:
        """The update, to be descended: (K, P) → (P,). For methods on gradients."""
        raise NotImplementedError

    @property
    def kind(self) -> str:
        """What the state of this method fits: its class, and the class of what it wraps."""
        return type(self).__name__

    def above_bound(self, losses: Tensor) -> Tensor:
        """What the losses exceed `lower_bound` by, in float64: (K,) → (K,). For methods that cannot do without.

        Raises:
            ValueError: naming the first loss that does not exceed it, or is infinite.
        """
        bound = self.lower_bound or 0.0
        excess = as_double(losses.detach()) - bound
        for index, value in enumerate(excess.tolist()):
            if value == math.inf:
                raise ValueError(f"{type(self).__name__} needs finite losses; loss {index} is inf: leave that task out")
            if not value > 0:
                own = "lower_bound" in vars(self)
                fix = "set lower_bound below it" if own else "add a constant to it, or use a method such as sum"
                raise ValueError(f"{type(self).__name__} needs losses above {bound:g}; loss {index} is not: {fix}")
        return excess

    def update(self, losses: Tensor) -> None:
        """Take the losses on the same batch after the optimizer's step: (K,). Most methods ignore them."""

    @contextmanager
    def on_tasks(self, rows: Tensor, count: int) -> Iterator[None]:
        """Within this context the K tasks given are the ``rows`` of ``count`` known tasks."""
        outer = self._rows, self._count
        self._rows, self._count = rows, count
        try:
            yield
        finally:
            self._rows, self._count = outer

    @contextmanager
    def on_pairs(self, name: str, tasks: int) -> Iterator[None]:
        """Within this context the rows of the state ``name`` are all pairs of the K = ``tasks`` tasks given: (K², …).

        Pairs are numbered so that more tasks change no number.

        Raises:
            ValueError: if the number of tasks has changed and nothing says which they are.
        """
        rows, count = self._rows, self._count
        stored = self._state.get(name)
        if rows is None and stored is not None and len(stored) != tasks**2:
            raise ValueError(
                f"{type(self).__name__} holds the state of {math.isqrt(len(stored))} tasks and was given {tasks}: "
                "use a Balancer, which knows tasks by name, or a new method"
            )
        task = torch.arange(tasks) if rows is None else rows
        i, j = task[:, None], task[None, :]
        pairs = torch.where(i < j, j * j + i, i * i + i + j).flatten()
        try:
            with self.on_tasks(pairs, (tasks if count is None else count) ** 2):
                yield
        finally:
            self._rows, self._count = rows, count

    def recall(self, name: str, like: Tensor, fill: float) -> Tensor:
        """The present tasks' rows of a state, shaped as ``like``: (K, …). Rows never seen hold ``fill``.

        Raises:
            ValueError: if the number of tasks has changed and nothing says which they are.
        """
        count = len(like) if self._count is None else self._count
        stored = self._state.get(name)
        if stored is not None and stored.shape[1:] != like.shape[1:]:
            raise ValueError(
                f"the state {name!r} of {type(self).__name__} has rows of shape {tuple(stored.shape[1:])}, and it now "
                f"needs {tuple(like.shape[1:])}: was it saved with other options, or has the trunk changed?"
            )
        known = 0 if stored is None else len(stored)
        if self._rows is None and stored is not None and known != count:
            raise ValueError(
                f"{type(self).__name__} holds the state of {known} tasks and was given {count}: "
                "use a Balancer, which knows tasks by name, or a new method"
            )
        if known < count:
            fresh = like.new_full((count - known, *like.shape[1:]), fill)
            stored = fresh if stored is None else torch.cat([stored.to(like), fresh])
        assert stored is not None
        self._state[name] = stored = stored.to(like)
        return stored.clone() if self._rows is None else stored[self._rows.to(stored.device)]

    def remember(self, name: str, values: Tensor) -> None:
        """Store the present tasks' rows of a state that `recall` has made."""
        values = values.detach()
        if self._rows is None:
            self._state[name] = values.clone()
        else:
            self._state[name][self._rows.to(values.device)] = values

    def use_generator(self, generator: torch.Generator | None) -> None:
        """Draw from ``generator``, or from an own one seeded as torch was last seeded. Its state is saved.

        An own generator keeps a random method from shifting the draws of everything else, and gives all
        processes that were seeded alike the same weights.
        """
        # Not torch's own seed: the draws would be those that the first layer was initialised with.
        self.generator = generator or torch.Generator().manual_seed(torch.initial_seed() ^ _SALT)

    def state_dict(self) -> dict[str, Tensor]:
        """All state as tensors: safe to write with safetensors, complete for an exact resume."""
        state = {name: value.clone() for name, value in self._state.items()}
        if self.generator is not None:
            state["generator"] = self.generator.get_state()
        return state

    def load_state_dict(self, state: dict[str, Tensor]) -> None:
        """Restore what `state_dict` gave, into a new method too.

        Raises:
            ValueError: if the state has a random generator and this method has none, or the other way round.
        """
        if ("generator" in state) != (self.generator is not None):
            has, lacks = ("the state", "the method") if "generator" in state else ("the method", "the state")
            raise ValueError(f"{has} has a random generator and {lacks} has none: is it the state of another method?")
        self._state = {name: value.clone() for name, value in state.items() if name != "generator"}
        if "generator" in state and self.generator is not None:
            self.generator.set_state(state["generator"].cpu())


class LossMethod(Method):
    """Weights from the values of the losses alone: one backward pass of Σ wₖLₖ, which scales the heads too."""

    needs = "losses"

    def weights(self, losses: Tensor) -> Tensor:
        """Weights of the losses, for finite ``losses`` above `lower_bound`: (K,) → (K,)."""
        raise NotImplementedError


class GramMethod(Method):
    """Weights from the Gram matrix G = J Jᵀ of the tasks' gradients. Heads get their own gradient, unscaled."""

    needs: Needs = "gram"

    def weights(self, gram: Tensor) -> Tensor:
        """Weights of the tasks' gradients: (K, K) → (K,)."""
        raise NotImplementedError

    def direction(self, jacobian: Tensor) -> Tensor:
        """The update Jᵀw, to be descended: (K, P) → (P,)."""
        jacobian = jacobian.detach()
        return combine(self.weights(gram(jacobian)), jacobian)


class TwoSampleMethod(GramMethod):
    """Weights that need the tasks' gradients on a second batch too: validation data, or an independent sample.

    The Balancer takes the second batch's losses as ``validation=``. The exact route delivers the Gram matrix of all
    2K gradients, first those on the training batch, then those on the second. A task without a loss on the second
    batch has zeros there.
    """

    two_samples = True

    def weights(self, gram: Tensor) -> Tensor:
        """The weights if the training batch stands in for the second one, too: (K, K) → (K,)."""
        both = self.pair_weights(gram.repeat(2, 2))
        return both[: len(gram)] + both[len(gram) :]


class SampleMethod(GramMethod):
    """Weights that need to know how much of the tasks' gradients is noise between the samples of a batch.

    The last-layer and features routes deliver two matrices of the batch-mean gradients of the trunk's last layer, or at
    the features, which are sums over samples there: the noise Ĉ, an estimate of their covariance, and the signal M̂,
    the Gram matrix less Ĉ. A task whose noise is not known, as with one sample, has NaN in its rows and columns of
    both.
    """

    samples = True

    def sample_weights(self, signal: Tensor, noise: Tensor) -> Tensor:
        """Weights of the tasks' gradients: M̂ (K, K), Ĉ (K, K) → (K,)."""
        raise NotImplementedError

    def weights(self, gram: Tensor) -> Tensor:
        """The weights if there were no noise: (K, K) → (K,)."""
        return self.sample_weights(gram, torch.zeros_like(gram))


class JacobianMethod(Method):
    """A direction that is no fixed combination of the tasks' gradients, so it needs all of them."""

    needs = "jacobian"

    def direction(self, jacobian: Tensor) -> Tensor:
        """The update, to be descended: (K, P) → (P,)."""
        raise NotImplementedError
