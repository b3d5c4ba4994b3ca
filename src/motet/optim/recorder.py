"""Measures, while an optimizer trains, what its momentum makes of the current gradient."""

from __future__ import annotations

import copy
import inspect
import math
import weakref
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.optim.optimizer import Optimizer

from motet.optim.hybrid import Hybrid
from motet.optim.linear import (
    all_parameters,
    buffer_of,
    check_supported,
    coefficient,
    decoupled_decay,
    entering,
    fresh_weight,
    made_of,
    nominal_weight,
)
from motet.optim.momentum import Group, active
from motet.optim.muon import APTMuon
from motet.optim.rescaling import Rescaling

_PIECE = 1 << 13
"""Numbers of each vector that are looked at together."""

ATTACHED: weakref.WeakSet[MomentumRecorder] = weakref.WeakSet()
"""Recorders whose hooks are on an optimizer."""


@dataclass(frozen=True)
class MomentumStep:
    """What momentum made of one step's gradient, over the measured parameters that had one.

    With d_{t-k} the gradient of k steps ago, W_k its weight in the momentum m_t = Σₖ W_k d_{t-k}, and u_t the update
    that was applied, θ_t = (1 - lr λ) θ_{t-1} - u_t. What is not defined (nothing moved, not finite, not given) is
    None.

    Attributes:
        step: Number of the optimizer's step since the recorder was attached, from 1; None for a state alone.
        beta: β_t, the mean over numbers.
        betas: β_t by param group, None for a group that had no part in the step.
        nominal: Weight that β gives to d_t in what the step is made of: 1-β, or (1-β)(1+β) with Nesterov's correction.
        weights: Weights by age that β gives in the momentum, (1-β_{t-k}) Π_{j>t-k} β_j for k = 0, 1, …
        instant: Share of d_t in what the step is made of: ``shares[0]``, but of the momentum with Nesterov's correction
            where that is on.
        shares: Exact shares by age W_k ⟨d_{t-k}, m_t⟩ / ‖m_t‖²; negative where a gradient points against the momentum.
        older: Share of all gradients beyond the window; with `shares` it adds up to 1.
        cosine_gradient: Cosine of u_t and d_t.
        cosine_momentum: Cosine of u_t and m_{t-1}.
        cosine_tasks: Cosine of u_t and each task's gradient: positive where the step helps the task.
        counterfactual: ‖u(d) - u(Σₖ gₖ)‖ / ‖u(d)‖, how much of this update would have been another one, had the
            optimizer been given the plain sum of the tasks' gradients in this step.
        reason: Why `cosine_tasks` and `counterfactual` are None although tasks were given; None where they are not.
        gradient_norm: ‖d_t‖.
        momentum_norm: ‖m_t‖, as the state holds it, without bias correction.
        update_norm: ‖u_t‖.
        effective_ranks: Means over matrices of `APTMuon.effective_ranks`, (plain, preserved, update), if recorded.
    """

    step: int | None
    beta: float | None
    betas: tuple[float | None, ...]
    nominal: float | None
    weights: tuple[float, ...]
    momentum_norm: float | None
    instant: float | None = None
    shares: tuple[float, ...] | None = None
    older: float | None = None
    cosine_gradient: float | None = None
    cosine_momentum: float | None = None
    cosine_tasks: dict[str, float | None] = field(default_factory=dict)
    counterfactual: float | None = None
    reason: str | None = None
    gradient_norm: float | None = None
    update_norm: float | None = None
    effective_ranks: tuple[float, float, float] | None = None


class MomentumRecorder:
    """Watches an optimizer train, and measures every so many steps what share of its update the gradient has.

        with MomentumRecorder(optimizer, every=50) as recorder:
            for batch in batches:
                ...                                             # .grad is d_t, made by a multi-task method
                if recorder.due:
                    recorder.tasks({"depth": …, "normals": …})  # the tasks' own gradients, if they are to be compared
                optimizer.step()
        print(momentum_report(recorder))

    A `motet.Balancer` hands the tasks' gradients over by itself, ``on_gradients=recorder.task_gradients``, but has them
    made in every step: on the exact route, not only where a step is due.

    The results are in ``recorder.steps``, one `MomentumStep` a measured step. Training is the same bit for bit: the
    counterfactual is the optimizer's own rule on a copy of parameters and state.

    Args:
        optimizer: One of torch.optim.SGD, Adam, AdamW, Muon or of motet.optim's.
        window: Number of ages, ≥ 1, whose shares are told apart; older gradients are one number.
        every: One step in so many is measured, ≥ 1: steps `every`, 2·`every`, …
        parameters: What is measured; all of the optimizer's by default. Give the trunk's where the heads, whose
            gradients no method changes, should not count, or one part of a `Hybrid` at a time.
        names: The tasks of `task_gradients`, in the order of its rows; "0", "1", … by default.

    Cost:
        A measured step takes a copy of the optimizer with its parameters and state, and one more step on it where tasks
        are given: with a window of 8 about as long as 30 steps of fused AdamW on one CPU thread, less beside a slower
        step. The window - 1 steps before it copy their gradients; other steps are free. Memory: at most `window`
        gradients and that copy, all given back after the measured step unless `every` is below `window`.

    Note:
        Gradients of the window are kept whole: sketches would need the whole gradient at every step as well and be
        right to some 2 % of ‖d‖‖m‖ only, which where noise dominates is as much as the share itself.

        d_t is what enters the momentum: after clipping, with the sign of `maximize` and with weight decay where the
        optimizer adds it to the gradient. Decoupled decay is no part of the update. A hook that changes gradients must
        be registered before the recorder. The updates are differences of parameters, so they carry these' rounding.
        Parameters of different optimizers in a `Hybrid` are one long vector here; weights are then means over its
        numbers. Of `APTMuon` the shares are those before direction preservation, the cosines those after it.

        The plain sum enters the counterfactual as the tasks were given, times the one factor by which ``.grad`` was
        multiplied from then to the step, as a GradScaler that unscales and clipping by the norm of all do. Where it is
        not one factor, counterfactual and tasks' cosines are None, and ``step.reason`` says so. Heads' own gradients in
        ``.grad`` are part of the difference. β is chosen anew. With a `noise_hook`, which must not be asked twice
        a step, the counterfactual is None.
    """

    def __init__(
        self,
        optimizer: Optimizer,
        window: int = 8,
        every: int = 50,
        parameters: Iterable[Tensor] | None = None,
        names: Sequence[str] | None = None,
    ) -> None:
        check_supported(optimizer)
        for option, value in (("window", window), ("every", every)):
            if not isinstance(value, int) or value < 1:
                raise ValueError(f"{option} must be a whole number of at least 1, not {value!r}")
        self.optimizer = optimizer
        self.window = window
        self.every = every
        self.count = 0
        """Steps of the optimizer since the recorder was attached."""
        self.steps: list[MomentumStep] = []
        self._chosen = None if parameters is None else list(parameters)
        theirs = set(all_parameters(optimizer))
        if self._chosen is not None and not (self._chosen and theirs.issuperset(self._chosen)):
            raise ValueError("parameters must be one or more of the optimizer's own parameters")
        self.names = None if names is None else tuple(names)
        if self.names is not None and (isinstance(names, str) or len(set(self.names)) != len(self.names)):
            raise ValueError(f"names must be different names, one a task, not {names!r}")
        self._tasks: dict[str, list[Tensor | None]] = {}
        self._rescaling: Rescaling | None = None
        self._written: list[tuple[Tensor, weakref.ref[Tensor]]] = []
        self._factor: float | None = 1.0
        self._reason: str | None = None
        self._kept: list[_Kept] = []
        self._pending: _Kept | None = None
        self._replica: Optimizer | None = None
        self._handles = (
            optimizer.register_step_pre_hook(self._before_step),
            optimizer.register_step_post_hook(self._after_step),
        )
        ATTACHED.add(self)

    @property
    def parameters(self) -> list[Tensor]:
        """What is measured, in the order of the tasks' gradients."""
        return all_parameters(self.optimizer) if self._chosen is None else list(self._chosen)

    @property
    def due(self) -> bool:
        """Whether the next step is measured, so that it is worth having the tasks' gradients."""
        return self in ATTACHED and (self.count + 1) % self.every == 0

    def tasks(
        self,
        gradients: Mapping[str, Sequence[Tensor | None]] | Tensor,
        names: Sequence[str] | None = None,
        parameters: Sequence[Tensor] | None = None,
    ) -> None:
        """Give the tasks' gradients of the next step; they are read in it and forgotten, and ignored if it is not due.

        What multiplies ``.grad`` between here and the step counts for them too. A ``.grad`` that is replaced since is
        taken for one that was not written yet, and is compared with them as they are.

        Args:
            gradients: By task one gradient for each of the parameters, None where the task has none; or the Jacobian,
                (K, P), whose rows hold those of all parameters one after another.
            names: The Jacobian's tasks; those of the recorder by default, or "0", "1", ….
            parameters: Whose gradients these are, in their order; `MomentumRecorder.parameters` by default. Others
                than the recorder's are passed over, and one of the recorder's that is not among them has none.
        """
        self._tasks = self._by_task(gradients, names, parameters)
        self._rescaling, self._written = None, []
        if self.due:
            mine = [p for p in self.parameters if p.grad is not None]
            self._rescaling = Rescaling(mine)
            self._written = [(p, weakref.ref(p.grad)) for p in mine if p.grad is not None]

    def task_gradients(self, gradients: Tensor, parameters: Sequence[Tensor]) -> None:
        """Give the tasks' gradients as a `motet.Balancer` does: ``on_gradients=recorder.task_gradients``.

        As `tasks`, with the names of the recorder; ``.grad`` must be written already.

        Args:
            gradients: The Jacobian, (K, P).
            parameters: The columns' parameters, in any order.
        """
        self.tasks(gradients, None, parameters)
        self._written = []

    def _by_task(
        self,
        gradients: Mapping[str, Sequence[Tensor | None]] | Tensor,
        names: Sequence[str] | None,
        parameters: Sequence[Tensor] | None,
    ) -> dict[str, list[Tensor | None]]:
        """The gradients of each task in the order of `parameters` of the recorder, checked."""
        mine = self.parameters
        theirs = mine if parameters is None else list(parameters)
        missing = set(mine).difference(theirs)
        if len(missing) == len(mine) or any(p.grad is not None for p in missing):
            raise ValueError(
                f"the tasks' gradients are not those of the recorder's parameters: {len(missing)} of its {len(mine)} "
                f"have a gradient and are missing among the {len(theirs)} given. Make the recorder with parameters=, "
                f"those that the tasks share"
            )
        if isinstance(gradients, Tensor):
            sizes = [p.numel() for p in theirs]
            if gradients.ndim != 2 or not len(gradients) or gradients.shape[1] != sum(sizes):
                raise ValueError(f"the Jacobian must be (K, {sum(sizes)}), not {tuple(gradients.shape)}")
            names = names if names is not None else self.names
            names = [str(k) for k in range(len(gradients))] if names is None else list(names)
            if len(names) != len(gradients) or len(set(names)) != len(names):
                raise ValueError(f"names must be {len(gradients)} different names, one a task, not {names}")
            columns = dict(zip(theirs, gradients.detach().split(sizes, 1), strict=True))
            return {name: [columns[p][k] if p in columns else None for p in mine] for k, name in enumerate(names)}
        if names is not None or not gradients:
            raise ValueError("names are for a Jacobian; a mapping has its own, and at least one")
        found: dict[str, list[Tensor | None]] = {}
        for name, given in gradients.items():
            sizes_given = [None if g is None else g.numel() for g in given]
            if len(sizes_given) != len(theirs) or any(
                n not in (None, p.numel()) for n, p in zip(sizes_given, theirs, strict=True)
            ):
                raise ValueError(
                    f"task {name!r} must have one gradient, or None, for each of the {len(theirs)} measured "
                    f"parameters and of its size"
                )
            own = {p: g.detach() for p, g in zip(theirs, given, strict=True) if g is not None}
            found[name] = [own.get(p) for p in mine]
        return found

    def _rescaled(self) -> None:
        """Find the factor by which ``.grad`` was multiplied since the tasks' were given."""
        self._factor, self._reason = 1.0, None
        if self._rescaling is None or any(grad() is not p.grad for p, grad in self._written):
            return
        try:
            self._factor = self._rescaling.factor()
        except RuntimeError as error:
            self._factor, self._reason = None, str(error)

    def remove(self) -> None:
        """Take the hooks off the optimizer and give back all memory but the results."""
        for handle in self._handles:
            handle.remove()
        ATTACHED.discard(self)
        self._tasks, self._kept, self._pending, self._replica = {}, [], None, None
        self._rescaling, self._written = None, []

    def __enter__(self) -> MomentumRecorder:
        return self

    def __exit__(self, *_: object) -> None:
        self.remove()

    def _before_step(self, _: Optimizer, args: Any, kwargs: Any) -> tuple[Any, Any] | None:
        """Look at the gradients before the step, or inside it where a closure makes them there."""
        if -(self.count + 1) % self.every >= self.window:
            return None
        closure = args[1] if len(args) > 1 else kwargs.get("closure")
        if closure is None:
            self._look()
            return None

        def looked_at() -> Any:
            loss = closure()
            self._look()
            return loss

        return (args[:1], {**kwargs, "closure": looked_at})

    @torch.no_grad()
    def _look(self) -> None:
        if getattr(self.optimizer, "grad_scale", None) is not None:
            raise ValueError(
                "a GradScaler hands this fused optimizer scaled gradients, which cannot be compared with its momentum: "
                "call scaler.unscale_(optimizer) before scaler.step(optimizer)"
            )
        wanted = set(self.parameters)
        self._pending = _Kept({}, set(), {})
        for group in self.optimizer.param_groups:
            for p in (group["params"][j] for j in active(group)):
                if p in wanted and p.numel():
                    self._pending.gradients[p] = entering(self.optimizer, group, p)
                    if self.optimizer.state.get(p, {}).get(buffer_of(group)) is None:
                        self._pending.first.add(p)
        if self.due:
            self._rescaled()
            self._replica = _replicate(self.optimizer)

    @torch.no_grad()
    def _after_step(self, *_: Any) -> None:
        pending, self._pending = self._pending, None
        tasks, self._tasks = self._tasks, {}
        self._rescaling, self._written = None, []
        replica, self._replica = self._replica, None
        self.count += 1
        if pending is None:
            return
        for group in self.optimizer.param_groups:
            # No number is read from the device before a step that is measured.
            beta = coefficient(group)
            for j, p in enumerate(group["params"]):
                if p in pending.gradients:
                    pending.beta[p] = beta[j] if isinstance(beta, Tensor) and beta.ndim else beta
        self._kept.append(pending)
        if replica is not None:
            self.steps.append(self._measure(replica, tasks))
        # At the next measured step the youngest of these is `ahead` steps old.
        ahead = self.every - self.count % self.every
        self._kept = self._kept[-(self.window - ahead) :] if ahead < self.window else []

    def _measure(self, replica: Optimizer, tasks: dict[str, list[Tensor | None]]) -> MomentumStep:
        """All numbers of the step that was just made; `replica` is the optimizer before it."""
        optimizer = self.optimizer
        rescaled, reason = self._factor, self._reason
        by_parameter = {p: [given[i] for given in tasks.values()] for i, p in enumerate(self.parameters)}
        items = list(_items(optimizer, replica, self._kept[-1]))
        numbers = sum(item.p.numel() for item in items)
        ages = len(self._kept)
        shares, weights = [0.0] * ages, [0.0] * ages
        task_squares, task_products = [0.0] * len(tasks), [0.0] * len(tasks)
        nominal = instant = linear = uu = ud = dd = um = mm = momentum = 0.0
        betas: list[list[tuple[float, int]]] = [[] for _ in optimizer.param_groups]
        for i, group, p, before in items:
            share = p.numel() / numbers
            a, b = self._kept[-1].coefficients(optimizer, group, p)
            betas[i].append((a, p.numel()))
            d = self._kept[-1].gradients[p]
            past = {k: kept for k, kept in enumerate(reversed(self._kept)) if p in kept.gradients}
            given = {k: g for k, g in enumerate(by_parameter[p]) if g is not None}
            previous = replica.state.get(before, {}).get(buffer_of(group))
            found = _products(
                p,
                before,
                1 - decoupled_decay(optimizer, group),
                optimizer.state[p][buffer_of(group)] if a else d,
                [torch.zeros_like(d) if previous is None else previous]
                + [kept.gradients[p] for kept in past.values()]
                + list(given.values()),
            )
            of_u, of_m, squares = zip(*found.tolist(), strict=True)
            last = 3 + len(past)
            factor = 1.0
            for (k, kept), product in zip(past.items(), of_m[3:last], strict=True):
                decay, fresh = kept.coefficients(optimizer, group, p)
                shares[k] += factor * fresh * float(product)
                weights[k] += factor * (1 - decay) * share
                factor *= decay
            d_d, d_m, m_m = float(squares[3]), float(of_m[3]), float(squares[1])
            c, e = made_of(optimizer, group, a)
            instant += (c + e * b) * (c * d_d + e * d_m)
            linear += c * c * d_d + 2 * c * e * d_m + e * e * m_m
            nominal += nominal_weight(group, a) * share
            momentum, dd, uu = momentum + m_m, dd + d_d, uu + float(squares[0])
            ud, um, mm = ud + float(of_u[3]), um + float(of_u[2]), mm + float(squares[2])
            for k, product, square in zip(given, of_u[last:], squares[last:], strict=True):
                task_products[k] += float(product) * (-1 if group.get("maximize") else 1)
                task_squares[k] += float(square)
        exact = [_ratio(share, momentum) for share in shares]
        told = tuple(share for share in exact if share is not None)
        whole = bool(exact) and len(told) == len(exact)
        return MomentumStep(
            step=self.count,
            beta=_mean([pair for row in betas for pair in row]),
            betas=tuple(_mean(row) for row in betas),
            nominal=nominal if items else None,
            weights=tuple(weights),
            momentum_norm=_finite(math.sqrt(momentum)),
            instant=_ratio(instant, linear),
            shares=told if whole else None,
            older=1 - sum(told) if whole else None,
            cosine_gradient=_cosine(ud, uu, dd),
            cosine_momentum=_cosine(um, uu, mm),
            cosine_tasks={
                name: None if rescaled is None else _cosine(product, uu, square)
                for name, product, square in zip(tasks, task_products, task_squares, strict=True)
            },
            counterfactual=(
                _counterfactual(optimizer, replica, items, by_parameter, rescaled, uu)
                if tasks and rescaled is not None
                else None
            ),
            reason=reason,
            gradient_norm=_finite(math.sqrt(dd)),
            update_norm=_finite(math.sqrt(uu)),
            effective_ranks=_mean_ranks(optimizer, [item.p for item in items]),
        )


@dataclass
class _Kept:
    """What one step put into the momentum, by parameter."""

    gradients: dict[Tensor, Tensor]
    first: set[Tensor]
    """Parameters that had no momentum before."""
    beta: dict[Tensor, float | Tensor]

    def coefficients(self, optimizer: Optimizer, group: Group, p: Tensor) -> tuple[float, float]:
        """(a, b) of m = a m + b d in this step."""
        a = float(self.beta[p])
        return a, fresh_weight(optimizer, group, a, p in self.first)


class _Item(NamedTuple):
    """A measured parameter that had a gradient: the number and options of its group, itself, and as it was before."""

    place: int
    group: Group
    p: Tensor
    before: Tensor


def _muon(optimizer: Optimizer) -> APTMuon | None:
    if isinstance(optimizer, Hybrid):
        return optimizer._muon
    return optimizer if isinstance(optimizer, APTMuon) else None


def _replicate(optimizer: Optimizer) -> Optimizer:
    """A copy with parameters and state of its own, which makes the step that the optimizer would."""
    replica = copy.deepcopy(optimizer)
    ours, theirs = _muon(optimizer), _muon(replica)
    if ours is not None and theirs is not None:
        copies = dict(zip(all_parameters(optimizer), all_parameters(replica), strict=True))
        theirs.batch, theirs.record, theirs._said = ours.batch, False, True
        theirs._tasks = {copies[p]: given for p, given in ours._tasks.items()}
        theirs._rescaling = ours._rescaling  # It looks at our gradients, which the copy is given.
    return replica


def _items(optimizer: Optimizer, replica: Optimizer, kept: _Kept) -> Iterator[_Item]:
    for i, (group, old) in enumerate(zip(optimizer.param_groups, replica.param_groups, strict=True)):
        for p, before in zip(group["params"], old["params"], strict=True):
            if p in kept.gradients:
                yield _Item(i, group, p, before)


def _counterfactual(
    optimizer: Optimizer,
    replica: Optimizer,
    items: list[_Item],
    tasks: dict[Tensor, list[Tensor | None]],
    factor: float,
    square: float,
) -> float | None:
    """‖u(d) - u(c Σₖ gₖ)‖ / ‖u(d)‖, with the step of the replica, which is used up; `square` is ‖u(d)‖², `factor` c."""
    if getattr(getattr(optimizer, "adaptive", None), "noise_hook", None) is not None:
        return None
    for p, other in zip(all_parameters(optimizer), all_parameters(replica), strict=True):
        other.grad = p.grad
    for item in items:
        assert item.p.grad is not None
        total = torch.zeros_like(item.p.grad)
        for g in tasks[item.p]:
            if g is not None:
                total += (g if factor == 1 else g * factor).to(total.device).reshape(total.shape)
        item.before.grad = total
    # Past torch's wrapper, so that hooks on the steps of all optimizers do not hear of it.
    step: Callable[[Optimizer], Any] = inspect.unwrap(type(replica).step)
    step(replica)
    total_square = sum(float(_products(item.p, item.before, 1.0, item.p, [])[0, 2]) for item in items)
    ratio = _ratio(total_square, square)
    return None if ratio is None else math.sqrt(ratio)


def _mean_ranks(optimizer: Optimizer, parameters: list[Tensor]) -> tuple[float, float, float] | None:
    muon = _muon(optimizer)
    found = [] if muon is None else [muon.effective_ranks[p] for p in parameters if p in muon.effective_ranks]
    if not found:
        return None
    plain, preserved, update = (
        float(torch.cat([ranks.to("cpu") for ranks in column]).mean()) for column in zip(*found, strict=True)
    )
    return (plain, preserved, update) if math.isfinite(plain + preserved + update) else None


def _products(p: Tensor, before: Tensor, keep: float, m: Tensor, others: list[Tensor]) -> Tensor:
    """Products of the rows u, m, others with u, with m and with themselves: (2 + others, 3), on the CPU.

    u = keep · before - p. In the widest type of the device, and in pieces that stay in its cache.
    """
    dtype = torch.float32 if p.device.type == "mps" else torch.float64
    rows = [x.detach().to(p.device).reshape(-1).split(_PIECE) for x in (before, p, m, *others)]
    total = torch.zeros(len(rows) - 1, 3, dtype=dtype, device=p.device)
    for old, new, *rest in zip(*rows, strict=True):
        piece = torch.stack([new, *rest]).to(dtype)  # At once: one by one takes twice as long.
        piece[0] = keep * old.to(dtype) - piece[0]
        total += torch.cat([piece @ piece[:2].T, torch.linalg.vector_norm(piece, dim=1, keepdim=True) ** 2], 1)
    return total.cpu()


def _mean(pairs: list[tuple[float, int]]) -> float | None:
    """The mean over numbers of (value, count)."""
    total = sum(count for _, count in pairs)
    return sum(value * count for value, count in pairs) / total if total else None


def _finite(x: float) -> float | None:
    return x if math.isfinite(x) else None


def _ratio(x: float, y: float) -> float | None:
    return _finite(x / y) if y else None


def _cosine(product: float, one: float, two: float) -> float | None:
    cosine = _ratio(product, math.sqrt(one) * math.sqrt(two))
    return None if cosine is None else max(-1.0, min(1.0, cosine))
