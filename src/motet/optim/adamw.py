"""AdamW with adaptive momentum: APT, arXiv 2604.08939 (reconstruction); AdamW: arXiv 1711.05101."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor
from torch.optim.adamw import adamw
from torch.optim.optimizer import ParamsT

from motet.optim.momentum import Adapting, AdaptiveMomentum, Group, active, check_betas, check_positive, entries, store

Lists = tuple[list[Tensor], list[Tensor], list[Tensor], list[Tensor], list[Tensor]]


class APTAdamW(Adapting):
    r"""AdamW whose β₁ falls when the gradient turns, so that a multi-task method's gradient is not averaged away.

        m_t = β_t m_{t-1} + (1-β_t) d_t,            m̂_t = m_t / (1 - Π_{s≤t} β_s),
        v_t = β₂ v_{t-1} + (1-β₂) d_t²,             v̂_t = v_t / (1 - β₂^t),
        θ_t = (1 - lr·λ) θ_{t-1} - lr m̂_t / (√v̂_t + ε),

    with β_t between `beta_min` and ``betas[0]`` from `AdaptiveMomentum`. With ``beta_min=None``, or `beta_min`
    equal to ``betas[0]``, it is torch.optim.AdamW.

    Args:
        params: Parameters, (name, parameter) pairs, or param groups; each group may set any option below.
            ``beta_min=None`` in a group keeps it out of the cosine: use it for heads, which no method manipulates.
        lr: Learning rate, ≥ 0.
        betas: (β_max, β₂), each in [0, 1). Adam's defaults.
        eps: ε, ≥ 0.
        weight_decay: Decoupled decay λ, ≥ 0. torch's default.
        beta_min: Lower bound of β_t, in [0, β_max]; None does not adapt. 0.5 is where to start.
        rule: "A1" … "A7", see `AdaptiveMomentum`.
        reference: What the gradient is compared with: "previous" (gradient; one more buffer) or "momentum" (none).
        scope: One cosine over all parameters ("global"), a group ("group") or a parameter ("tensor").
        smoothing: γ of the cosine's moving average, in [0, 1); None is the rule's own.
        adapt_second: Shorten the second moment's memory by the same factor:
            1 - β₂,t = (1-β₂)(1-β_t)/(1-β_max), at most 1.
        maximize: Ascend instead of descend.
        foreach, fused: Implementation, as in torch; None takes the fused kernel on the CPU and torch's choice
            elsewhere. A group that adapts is fused on the CPU only: the kernel takes β as a number of the host.

    Raises:
        ValueError, TypeError: for an option out of range or, where none adapts, of adaptive momentum, and for complex
            or sparse parameters, or sharded ones that adapt, by name.

    Shapes:
        Parameters of any shape.

    Cost:
        benchmarks/optim.py, 10M parameters on one CPU thread, against torch's fused AdamW: 1.0 with a fixed β, 1.7
        with the momentum reference, 1.9 with the previous gradient, 2.5 with A7.

    Note:
        APT (applicability of advanced optimizers), arXiv 2604.08939, reconstruction: which moment the paper adapts, and
        how, is not public. For A7 with a measured noise set ``optimizer.adaptive.noise_hook``.
        The bias correction is exact for a β that varies; it is Adam's where β is constant.
        A parameter without a gradient does not move and nor does
        its state. A gradient that is not finite moves the parameter and its moments as in every torch optimizer,
        but never β: guard it with GradScaler, by clipping with ``error_if_nonfinite``, or with `Balancer`.
        State of torch.optim.AdamW can be loaded.

        torch's fused kernel on the CPU pairs numbers by their place in memory, so that a channels-last parameter
        with a contiguous gradient goes wrong in torch.optim.AdamW(fused=True) (seen in torch 2.13). Here the
        gradient is laid out as the parameter first, and a parameter with gaps in memory takes plain operations.
    """

    decoupled_weight_decay = True
    """Whether weight decay acts on the parameters; `motet.GroupedUpdates` asks."""

    def __init__(
        self,
        params: ParamsT,
        lr: float | Tensor = 1e-3,
        betas: tuple[float, float] = (0.9, 0.999),
        beta_min: float | None = None,
        rule: str = "A1",
        reference: str = "previous",
        scope: str = "global",
        *,
        eps: float = 1e-8,
        weight_decay: float = 1e-2,
        smoothing: float | None = None,
        adapt_second: bool = False,
        maximize: bool = False,
        foreach: bool | None = None,
        fused: bool | None = None,
    ) -> None:
        defaults = AdaptiveMomentum.options(beta_min, rule, reference, scope, smoothing)
        defaults |= {"lr": lr, "betas": betas, "eps": eps, "weight_decay": weight_decay, "adapt_second": adapt_second}
        defaults |= {"maximize": maximize, "foreach": foreach, "fused": fused}
        self.adaptive = AdaptiveMomentum()
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

    @torch.no_grad()
    def step(self, closure: Callable[[], Any] | None = None) -> Any:
        """One update; a closure is called first, with gradients on, and its loss returned."""
        loss = None
        if closure is not None:
            with torch.enable_grad():
                loss = closure()
        chosen = [active(group) for group in self.param_groups]
        for group, js in zip(self.param_groups, chosen, strict=True):
            self._prepare(group, js)
        self.adaptive.betas(self.param_groups, self.state)
        for group, js in zip(self.param_groups, chosen, strict=True):
            if group["beta_min"] is None:
                self._fixed(group, js)
            elif js:
                self._adapt(group, js)
        return loss

    def _prepare(self, group: Group, js: list[int]) -> None:
        """Make the state of groups and parameters that are met for the first time."""
        for name, beta in zip(("momentum_weight", "square_weight"), group["betas"], strict=True):
            if group["beta_min"] is None:
                group.pop(name, None)
            elif name not in group:  # new, or so far updated with a fixed β, perhaps by torch.optim.AdamW
                steps = [float(self.state[p].get("step", 0)) if p in self.state else 0.0 for p in group["params"]]
                group[name] = torch.tensor([1 - beta**step for step in steps], dtype=torch.float64)
        for p in (group["params"][j] for j in js):
            state = self.state[p]
            if "exp_avg" not in state:
                state["step"] = torch.zeros((), device=p.device if group["fused"] else "cpu")
                state["exp_avg"] = torch.zeros_like(p, memory_format=torch.preserve_format)
                state["exp_avg_sq"] = torch.zeros_like(p, memory_format=torch.preserve_format)

    def _fixed(self, group: Group, js: list[int]) -> None:
        """torch.optim.AdamW's own kernels."""
        for part, fused in zip(self._split(group, js), (True, False), strict=True):
            if part:
                params, grads, exp_avgs, exp_avg_sqs, steps = self._lists(group, part)
                adamw(
                    params,
                    grads,
                    exp_avgs,
                    exp_avg_sqs,
                    [],
                    steps,
                    foreach=None if fused else group["foreach"],
                    fused=True if fused else None if group["fused"] is None else False,
                    amsgrad=False,
                    beta1=group["betas"][0],
                    beta2=group["betas"][1],
                    lr=group["lr"],
                    weight_decay=group["weight_decay"],
                    eps=group["eps"],
                    maximize=group["maximize"],
                )

    def _adapt(self, group: Group, js: list[int]) -> None:
        beta1 = entries(group, "beta", js, group["beta"])
        beta2 = torch.full_like(beta1, group["betas"][1])
        if group["adapt_second"]:
            beta2 = 1 - ((1 - beta2) * (1 - beta1) / (1 - group["betas"][0])).clamp(max=1)
        store(group, "square_weight", js, beta2 * entries(group, "square_weight", js, beta1) + 1 - beta2)
        weights = [entries(group, name, js, beta1) for name in ("momentum_weight", "square_weight")]
        table = torch.stack([beta1, beta2, *weights], 1)
        fused, rest = self._split(group, js)
        if fused:
            self._adapt_fused(group, fused, dict(zip(js, table.tolist(), strict=True)))
        if rest:
            at = {j: row for row, j in enumerate(js)}
            self._adapt_foreach(group, rest, table if rest == js else torch.stack([table[at[j]] for j in rest]))

    def _adapt_fused(self, group: Group, js: list[int], table: dict[int, list[float]]) -> None:
        """torch's kernel on the CPU. It corrects by 1 - β^t; the right correction goes into lr, λ and ε instead."""
        alike: dict[tuple[Any, ...], list[int]] = {}
        for j in js:
            p = group["params"][j]
            alike.setdefault((*table[j], self.state[p]["step"].item() + 1, p.dtype), []).append(j)
        for (beta1, beta2, weight, square_weight, t, _), part in alike.items():
            first = (1 - beta1**t) / weight
            root = ((1 - beta2**t) / square_weight) ** 0.5
            params, grads, exp_avgs, exp_avg_sqs, steps = self._lists(group, part)
            torch._foreach_add_(steps, torch.ones(()), alpha=1.0)  # a number would be wrapped once a tensor
            torch._fused_adamw_(
                params,
                grads,
                exp_avgs,
                exp_avg_sqs,
                [],
                steps,
                lr=float(group["lr"]) * first / root,
                beta1=beta1,
                beta2=beta2,
                weight_decay=group["weight_decay"] * root / first,
                eps=group["eps"] / root,
                amsgrad=False,
                maximize=group["maximize"],
            )

    def _adapt_foreach(self, group: Group, js: list[int], rows: Tensor) -> None:
        """Plain tensor operations, in which β stays on the device."""
        params, grads, exp_avgs, exp_avg_sqs, steps = self._lists(group, js)
        if group["maximize"]:
            grads = list(torch._foreach_neg(grads))
        keep1, fresh1, keep2, fresh2, weight, square_weight = (
            [x.to(p.device, torch.promote_types(p.dtype, torch.float32)) for x, p in zip(column, params, strict=True)]
            for column in (rows[:, 0], 1 - rows[:, 0], rows[:, 1], 1 - rows[:, 1], rows[:, 2], rows[:, 3])
        )
        lr, decay = group["lr"], group["weight_decay"]
        torch._foreach_add_(steps, 1)
        if isinstance(lr, Tensor):
            torch._foreach_mul_(params, [(1 - lr * decay).to(p.device) for p in params])
        else:
            torch._foreach_mul_(params, 1 - lr * decay)
        # A sum of products: β of zero must leave nothing of a long memory, which a difference would round off.
        squares = torch._foreach_mul(grads, grads)
        for moments, new, keep, fresh in ((exp_avgs, grads, keep1, fresh1), (exp_avg_sqs, squares, keep2, fresh2)):
            torch._foreach_mul_(moments, keep)
            torch._foreach_add_(moments, torch._foreach_mul(new, fresh))
        denominator = torch._foreach_div(exp_avg_sqs, square_weight)
        torch._foreach_sqrt_(denominator)
        torch._foreach_add_(denominator, group["eps"])
        torch._foreach_mul_(denominator, weight)
        if isinstance(lr, Tensor):  # No number is read from its device.
            step = torch._foreach_div(exp_avgs, denominator)
            torch._foreach_mul_(step, [lr.to(p.device) for p in params])
            torch._foreach_sub_(params, step)
        else:
            torch._foreach_addcdiv_(params, exp_avgs, denominator, value=-lr)

    def _split(self, group: Group, js: list[int]) -> tuple[list[int], list[int]]:
        """Which parameters go through the fused kernel: all where it is asked for, else those on the CPU."""
        fused: list[int] = []
        rest: list[int] = []
        for j in js:
            p = group["params"][j]
            wanted = group["fused"] or (group["fused"] is None and group["foreach"] is None and p.device.type == "cpu")
            (fused if wanted and fusable(p, self.state[p]["exp_avg"], self.state[p]["exp_avg_sq"]) else rest).append(j)
        return fused, rest

    def _lists(self, group: Group, js: list[int]) -> Lists:
        params = [group["params"][j] for j in js]
        states = [self.state[p] for p in params]
        m, v, steps = ([state[name] for state in states] for name in ("exp_avg", "exp_avg_sq", "step"))
        return params, [laid_out(p) for p in params], m, v, steps


def fusable(p: Tensor, *buffers: Tensor) -> bool:
    """Whether a fused kernel, which walks through memory, meets every number and the same one in each tensor."""
    dense = p.is_contiguous() or torch.ops.aten.is_non_overlapping_and_dense(p)
    return dense and all(b.stride() == p.stride() for b in buffers)


def laid_out(p: Tensor) -> Tensor:
    """The gradient, copied to the parameter's memory layout if it has another."""
    assert p.grad is not None
    return p.grad if p.grad.stride() == p.stride() else torch.empty_like(p).copy_(p.grad)


def _check(group: Group) -> None:
    check_betas(group)
    check_positive(group, "lr", "eps", "weight_decay")
    if group["fused"] and group["foreach"]:
        raise ValueError("fused and foreach are two implementations: only one of them can be True")
    if group["fused"] and group["beta_min"] is not None and any(p.device.type != "cpu" for p in group["params"]):
        raise ValueError("fused must be None or False where beta_min is set and parameters are not on the CPU")
