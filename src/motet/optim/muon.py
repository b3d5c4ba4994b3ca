"""Muon with adaptive momentum and direction preservation: APT, arXiv 2604.08939 (reconstruction); Jordan, 2024."""

from __future__ import annotations

import logging
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.optim.optimizer import ParamsT

from motet.optim import preservation
from motet.optim.momentum import Adapting, AdaptiveMomentum, Group, active, check_number, check_positive, name_of
from motet.optim.newton_schulz import COEFFICIENTS, EPS, STEPS, newton_schulz
from motet.optim.preservation import EffectiveRank, RankOne
from motet.optim.rescaling import Rescaling

logger = logging.getLogger("motet")

DTYPES = {"bfloat16": torch.bfloat16, "float32": torch.float32}
_SMALL = 1 << 16
"""On a CPU matrices up to this size gain from one batched product; larger ones occupy it alone."""


class APTMuon(Adapting):
    r"""Muon whose momentum forgets when the gradient turns, and whose update keeps the tasks' directions.

    For a matrix θ with the gradient D_t that a multi-task method made of the tasks',

        M_t = β_t M_{t-1} + (1 - β_t) D_t,
        U_t = β_t M_t + (1 - β_t) D_t  with Nesterov's correction, else M_t,
        O_t = NS(U'_t),   U'_t = U_t and what `preserve` adds,
        θ_t = (1 - lr λ) θ_{t-1} - lr s O_t,

    with NS of `newton_schulz`, β_t between `beta_min` and `momentum` from `AdaptiveMomentum`, U' from
    `preserved_input` and s from the matrix's shape. With ``beta_min=None`` (or equal to `momentum`) and
    ``preserve=0`` it is torch.optim.Muon, whose state it loads.

    Args:
        params: Parameters of at least two dimensions, (name, parameter) pairs, or param groups; each group may set
            any option below but `batch` and `record`. A convolution counts as a matrix of (out, all else).
        lr: Learning rate, ≥ 0. torch's default.
        momentum: β_max, in [0, 1).
        beta_min: Lower bound of β_t, in [0, momentum]; None does not adapt. 0.5 is where to start.
        rule: "A1" … "A7", see `AdaptiveMomentum`.
        reference: What the gradient is compared with: "previous" (gradient; one more buffer) or "momentum" (none).
        preserve: Strength ρ of direction preservation, ≥ 0, at most 1 for L3, L4 and L5; 0.1 is where to start.
            The tasks' gradients are given to `task_gradients` before every step.
        variant: "L2" adds what the update lacks of the tasks' mean direction, "L1" that direction as it is, "L6" a
            gated L1, "L3" blends in the instant gradient, "L4" the update before orthogonalisation, and "L5" one
            momentum and one orthogonalisation a task, a costly upper reference. L3 and L4 need no tasks.
        scope: One cosine over all parameters ("global"), a group ("group") or a parameter ("tensor").
        smoothing: γ of the cosine's moving average, in [0, 1); None is the rule's own.
        weight_decay: Decoupled decay λ, ≥ 0. torch's default.
        nesterov: Whether to orthogonalise U or M.
        ns_coefficients: (a, b, c) of the iteration.
        ns_steps: Iterations, from 1 to 99.
        eps: Smallest norm to divide by, ≥ 0; 0 makes the step independent of the losses' scale at any scale.
        ns_dtype: "bfloat16", as torch, or "float32".
        adjust_lr_fn: "original" or None: s = √max(1, rows/columns); "match_rms_adamw": s = 0.2 √max(rows, columns),
            so that AdamW's learning rate and decay can be kept; "none": s = 1.
        split: Number of equal blocks of rows that are matrices of their own: 3 for a fused QKV projection or a GRU,
            4 for an LSTM.
        batch: Whether matrices of equal shape are orthogonalised together. None does so with small ones on the CPU
            and with all elsewhere. False rounds as torch does.
        record: Whether `effective_ranks` is filled at every step; a singular value decomposition each.

    Raises:
        ValueError, TypeError: for an option out of range or, where none adapts, of adaptive momentum, and for vectors
            and complex or sparse parameters, or sharded ones that adapt, by name.

    Shapes:
        Parameters (m, …) of ndim ≥ 2; the tasks' gradients (K, P).

    Cost:
        Newton–Schulz is nearly all of it; L1 and L2 add one pass over the tasks' gradients. Memory: the momentum, one
        more buffer for the previous gradient, and K more for L5.

    Note:
        APT (applicability of advanced optimizers), arXiv 2604.08939, reconstruction: the formulas of both parts are not
        public. For A7 with a measured noise set ``optimizer.adaptive.noise_hook``.
        L2 is the default since it leaves U whole and adds only what is missing, so ρ is the tangent of the
        angle between U' and U, and since it lifts a task of weak gradients most at equal ρ. Whether the paper inserts
        its term before the momentum is open; here it is at the orthogonalisation. The momentum is an
        average, M = βM + (1-β)D; the sum B = βB + D differs from it by
        more than scale once β varies. Keller Jordan's scale of a convolution is that of its kernel's last two
        dimensions; here it is that of the matrix which is orthogonalised. A gradient that is not finite moves the
        parameter as in every torch optimizer, but never β.
    """

    decoupled_weight_decay = True
    """Whether weight decay acts on the parameters; `motet.GroupedUpdates` asks."""

    def __init__(
        self,
        params: ParamsT,
        lr: float | Tensor = 1e-3,
        momentum: float = 0.95,
        beta_min: float | None = None,
        rule: str = "A1",
        reference: str = "previous",
        preserve: float = 0.0,
        *,
        variant: str = "L2",
        scope: str = "global",
        smoothing: float | None = None,
        weight_decay: float = 0.1,
        nesterov: bool = True,
        ns_coefficients: tuple[float, float, float] = COEFFICIENTS,
        ns_steps: int = STEPS,
        eps: float = EPS,
        ns_dtype: str = "bfloat16",
        adjust_lr_fn: str | None = None,
        split: int = 1,
        batch: bool | None = None,
        record: bool = False,
    ) -> None:
        defaults: dict[str, Any] = {"lr": lr, "momentum": momentum, "preserve": preserve, "variant": variant}
        defaults |= {"weight_decay": weight_decay, "nesterov": nesterov, "ns_coefficients": ns_coefficients}
        defaults |= {"ns_steps": ns_steps, "eps": eps, "ns_dtype": ns_dtype, "adjust_lr_fn": adjust_lr_fn}
        defaults |= {"split": split} | AdaptiveMomentum.options(beta_min, rule, reference, scope, smoothing)
        self.adaptive = AdaptiveMomentum()
        self.batch = batch
        self.record = record
        self.effective_ranks: dict[Tensor, EffectiveRank] = {}
        self._tasks: dict[Tensor, Tensor | RankOne] = {}
        self._rescaling: Rescaling | None = None
        self._factor = 1.0
        self._said = False
        super().__init__(params, defaults)
        if not any("optimizer" in group for group in self.param_groups):  # A `Hybrid` knows its other groups.
            AdaptiveMomentum.check_used(self.param_groups, rule, reference, scope, smoothing)

    def add_param_group(self, param_group: dict[str, Any]) -> None:
        """Add a group, with options of its own; refuses what this optimizer cannot do, by name."""
        super().add_param_group(param_group)
        group = self.param_groups[-1]
        try:
            _check(group)
            AdaptiveMomentum.check(group)
        except (TypeError, ValueError):
            self.param_groups.pop()
            raise

    kept = ("adaptive", "batch", "record")

    def fresh(self) -> dict[str, Any]:
        """As `Adapting.fresh`."""
        own: dict[str, Any] = {"batch": None, "record": False, "_said": False, "effective_ranks": {}, "_tasks": {}}
        own["_rescaling"] = None
        return super().fresh() | own

    def task_gradients(
        self, gradients: Tensor | Mapping[Tensor, Tensor | RankOne], parameters: Sequence[Tensor] | None = None
    ) -> None:
        """Give the K tasks' gradients for the next `step`, which direction preservation looks at.

        They are kept by reference, read in that step and forgotten; a later call replaces an earlier one. Parameters
        that are not of this optimizer, or without a strength of preservation, are passed over. A task of zero
        gradient counts as absent. For L5, the one variant to which the gradients' length matters, ``.grad`` must be
        written already: what multiplies it until the step, as unscaling and clipping by the norm do, multiplies the
        tasks' gradients too, and where it is not one factor, `step` raises.

        Args:
            gradients: The Jacobian, (K, P), with the parameters whose gradients its rows hold one after another; or by
                parameter K gradients, (K, *shape), or their `RankOne` summary.
            parameters: The columns' parameters.
        """
        if isinstance(gradients, Tensor):
            if parameters is None:
                raise ValueError("a Jacobian needs parameters=, those whose gradients its rows hold")
            sizes = [parameter.numel() for parameter in parameters]
            if gradients.ndim != 2 or gradients.shape[1] != sum(sizes):
                raise ValueError(f"the Jacobian must be (K, {sum(sizes)}), not {tuple(gradients.shape)}")
            parts = gradients.detach().split(sizes, 1)
            found: Mapping[Tensor, Tensor | RankOne] = dict(zip(parameters, parts, strict=True))
        else:
            found = gradients
        wanted = {p: group for group in self.param_groups if group["preserve"] for p in group["params"]}
        tasks = {p: _matrices_of_tasks(p, given, wanted[p]) for p, given in found.items() if p in wanted}
        if wanted and not tasks:
            raise ValueError("none of these parameters is one whose directions this optimizer preserves")
        self._tasks = tasks
        measured = [p for p in tasks if wanted[p]["variant"] == "L5"]
        self._rescaling = Rescaling(measured) if measured else None

    @torch.no_grad()
    def step(self, closure: Callable[[], Any] | None = None) -> Any:
        """One update; a closure is called first, with gradients on, and its loss returned."""
        loss = None
        if closure is not None:
            with torch.enable_grad():
                loss = closure()
        chosen = [active(group) for group in self.param_groups]
        self._factor = 1.0 if self._rescaling is None else self._rescaling.factor()
        betas = self.adaptive.betas(self.param_groups, self.state, "momentum_buffer")
        self.effective_ranks = {}
        for group, js, found in zip(self.param_groups, chosen, betas, strict=True):
            for bucket in self._buckets(group, js):
                self._update(group, bucket, found)
        self._tasks, self._rescaling = {}, None
        return loss

    def _buckets(self, group: Group, js: list[int]) -> list[list[int]]:
        """Parameters to orthogonalise together: those of equal matrices, or each alone."""
        buckets: dict[Any, list[int]] = {}
        for j in js:
            p = group["params"][j]
            if p.numel():  # An empty parameter has nothing to move.
                key = j if self._alone(p.device, _shape(p, group)) else (_shape(p, group), p.dtype, p.device)
                buckets.setdefault(key, []).append(j)
        return list(buckets.values())

    def _alone(self, device: torch.device, shape: tuple[int, int]) -> bool:
        """Whether matrices of this shape are orthogonalised one by one."""
        if self.batch is not None:
            return not self.batch
        return device.type == "cpu" and math.prod(shape) > _SMALL

    def _update(self, group: Group, bucket: list[int], betas: Sequence[Tensor | None]) -> None:
        """Move the parameters of one bucket."""
        items = [self._item(group, group["params"][j], betas[j]) for j in bucket]
        options = group["ns_steps"], group["ns_coefficients"], group["eps"], DTYPES[group["ns_dtype"]]
        inputs = items[0].input if len(items) == 1 else torch.cat([item.input for item in items])
        # A matrix alone goes through the two-dimensional product, which is what torch does.
        if len(inputs) == 1:
            outputs = newton_schulz(inputs[0], *options)[None]
        elif len(items) == 1 and self._alone(inputs.device, _shape(items[0].parameter, group)):
            outputs = torch.stack([newton_schulz(matrix, *options) for matrix in inputs])
        else:
            outputs = newton_schulz(inputs, *options)
        lr, scale = group["lr"], _scale(_shape(items[0].parameter, group), group["adjust_lr_fn"])
        for item, output in zip(items, outputs.split([len(item.input) for item in items]), strict=True):
            p, O = item.parameter, output  # noqa: E741 - the symbol of the field
            if group["preserve"] and group["variant"] == "L4":
                O = preservation.blended(group["preserve"], O, item.plain)  # noqa: E741
            elif group["preserve"] and group["variant"] == "L5" and item.tasks is not None:
                by_task = self._by_task(group, item, options)
                O = O if by_task is None else preservation.oracle(group["preserve"], O, by_task)  # noqa: E741
            if self.record:
                ranks = (preservation.effective_rank(matrices) for matrices in (item.plain, item.input, O))
                self.effective_ranks[p] = EffectiveRank(*ranks)
            p.mul_(1 - lr * group["weight_decay"])
            if isinstance(lr, Tensor):
                p.sub_(O.reshape(p.shape).to(p.dtype) * (lr * scale).to(p))
            else:
                p.add_(O.reshape(p.shape), alpha=-lr * scale)

    def _item(self, group: Group, p: Tensor, beta: Tensor | None) -> _Item:
        """Advance one parameter's momentum and make what is to be orthogonalised of it."""
        assert p.grad is not None
        D, state = p.grad, self.state[p]
        if "momentum_buffer" not in state:
            state["momentum_buffer"] = torch.zeros_like(D, memory_format=torch.preserve_format)
        M = state["momentum_buffer"]
        if beta is None:
            M.lerp_(D, 1 - group["momentum"])
            U = D.lerp(M, group["momentum"]) if group["nesterov"] else M
        else:
            M.lerp_(D, (1 - beta).to(M))
            U = D.lerp(M, beta.to(M)) if group["nesterov"] else M
        rho, variant, shape = group["preserve"], group["variant"], (group["split"], *_shape(p, group))
        plain, tasks = U.reshape(shape), self._tasks.get(p)
        if rho and tasks is None and variant in preservation.BY_TASKS:
            self._say_untold(variant)
        if not rho or variant not in preservation.AT_INPUT or (variant != "L3" and tasks is None):
            return _Item(p, plain, plain, tasks)
        kept = preservation.preserved_input(variant, rho, plain, M.reshape(shape), D.reshape(shape), tasks)
        return _Item(p, plain, kept, tasks)

    def _by_task(self, group: Group, item: _Item, options: tuple[Any, ...]) -> Tensor | None:
        """L5's orthogonalised momenta: (K, B, m, n); None with one task, for which there is nothing to preserve."""
        p, tasks = item.parameter, item.tasks
        G = torch.einsum("kbm,kbn->kbmn", *tasks) if isinstance(tasks, RankOne) else tasks
        assert G is not None
        G = (G if self._factor == 1 else G * self._factor).to(p.dtype)
        if len(G) == 1:
            return None
        M = self.state[p].get("task_momentum")
        if M is None:
            M = self.state[p]["task_momentum"] = torch.zeros_like(G, memory_format=torch.contiguous_format)
        if M.shape != G.shape:
            raise ValueError(
                f"L5 keeps one momentum a task: it had {len(M)} tasks and is given {len(G)}; give zeros for absent ones"
            )
        there = (G != 0).flatten(1).any(1)[:, None, None, None]
        M.copy_(torch.where(there, M.lerp(G, 1 - group["momentum"]), M))
        return newton_schulz(M.flatten(0, 1), *options).view(G.shape)

    def _say_untold(self, variant: str) -> None:
        if not self._said:
            self._said = True
            logger.warning(
                "preserve with variant %s has no tasks' gradients for some parameters: these take plain Muon's step. "
                "Call optimizer.task_gradients before step, or use L3 or L4, which need none; not said again",
                variant,
            )


@dataclass
class _Item:
    """One parameter in a step, as matrices: (parts, m, n)."""

    parameter: Tensor
    plain: Tensor
    input: Tensor
    tasks: Tensor | RankOne | None


def _shape(p: Tensor, group: Group) -> tuple[int, int]:
    """Rows and columns of each of a parameter's matrices."""
    return p.shape[0] // group["split"], math.prod(p.shape[1:])


def _scale(shape: tuple[int, int], adjust: str | None) -> float:
    """s of the update."""
    rows, columns = shape
    if adjust == "none":
        return 1.0
    return 0.2 * math.sqrt(max(shape)) if adjust == "match_rms_adamw" else math.sqrt(max(1, rows / columns))


def _matrices_of_tasks(p: Tensor, given: Tensor | RankOne, group: Group) -> Tensor | RankOne:
    """The tasks' gradients of one parameter by its matrices: (K, parts, m, n), or rank-one."""
    parts, (m, n) = group["split"], _shape(p, group)
    dtype = torch.promote_types(p.dtype, torch.float32)
    if not isinstance(given, RankOne):
        if len(given) < 1 or given[0].numel() != p.numel():
            raise ValueError(f"the tasks' gradients of a parameter {tuple(p.shape)} have shape {tuple(given.shape)}")
        return given.detach().to(p.device, dtype).reshape(len(given), parts, m, n)
    left, right = given.left.detach().to(p.device, dtype), given.right.detach().to(p.device, dtype)
    if left.shape[1:] != (parts * m,) or right.shape[1:] != (n,) or len(left) != len(right) or not len(left):
        shapes = f"{tuple(left.shape)} and {tuple(right.shape)}"
        raise ValueError(f"a rank-one summary of {tuple(p.shape)} must be (K, {parts * m}) and (K, {n}), not {shapes}")
    return RankOne(left.view(len(left), parts, m), right[:, None].expand(-1, parts, -1))


def _check(group: Group) -> None:
    """Refuse options out of range and parameters that are no matrices."""
    split, variant, rho = group["split"], group["variant"], group["preserve"]
    check_positive(group, "lr", "weight_decay", "eps")
    check_number("preserve", rho)
    if not (isinstance(group["ns_steps"], int) and 1 <= group["ns_steps"] < 100):
        raise ValueError(f"ns_steps must be a whole number from 1 to 99, not {group['ns_steps']!r}")
    if len(group["ns_coefficients"]) != 3:
        raise ValueError(f"ns_coefficients must be three numbers (a, b, c), not {group['ns_coefficients']!r}")
    if group["ns_dtype"] not in DTYPES:
        raise ValueError(f"ns_dtype must be one of {', '.join(DTYPES)}, not {group['ns_dtype']!r}")
    if group["adjust_lr_fn"] not in (None, "original", "match_rms_adamw", "none"):
        raise ValueError(f"adjust_lr_fn must be original, match_rms_adamw, none or None, not {group['adjust_lr_fn']!r}")
    if variant not in preservation.VARIANTS:
        raise ValueError(f"variant must be one of {', '.join(preservation.VARIANTS)}, not {variant!r}")
    top = 1 if variant in ("L3", "L4", "L5") else math.inf
    if not (0 <= rho < math.inf and rho <= top):
        raise ValueError(
            f"preserve must be at least 0{'' if top == math.inf else ' and at most 1'} for {variant}, not {rho}"
        )
    if not (isinstance(split, int) and split >= 1):
        raise ValueError(f"split must be a whole number of blocks of at least 1, not {split!r}")
    for j, p in enumerate(group["params"]):
        if p.ndim < 2:
            raise ValueError(
                f"{name_of(group, j)} has {p.ndim} dimensions and Muon needs two: give it to AdamW, as muon_for does"
            )
        if p.shape[0] % split:
            raise ValueError(f"{name_of(group, j)} has {p.shape[0]} rows, which split={split} does not divide")
