"""SGD with adaptive momentum: APT, arXiv 2604.08939 (reconstruction)."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor
from torch.optim.optimizer import ParamsT

from motet.optim.adamw import fusable, laid_out
from motet.optim.momentum import Adapting, AdaptiveMomentum, Group, active, check_positive


class APTSGD(Adapting):
    r"""SGD with an averaged momentum whose β falls when the gradient turns.

        d_t = gradient + λ θ_{t-1},   m_1 = d_1,   m_t = β_t m_{t-1} + (1-β_t) d_t,   θ_t = θ_{t-1} - lr m_t,

    with β_t between `beta_min` and `momentum` from `AdaptiveMomentum`. With ``beta_min=None``, or `beta_min` equal
    to `momentum`, it is torch.optim.SGD with ``dampening=momentum``.

    Args:
        params: Parameters, (name, parameter) pairs, or param groups; each group may set any option below.
        lr: Learning rate, ≥ 0.
        momentum: β_max, in [0, 1).
        beta_min: Lower bound of β_t, in [0, momentum]; None does not adapt.
        rule: "A1" … "A7", see `AdaptiveMomentum`.
        reference: What the gradient is compared with: "previous" (gradient; one more buffer) or "momentum" (none).
        scope: One cosine over all parameters ("global"), a group ("group") or a parameter ("tensor").
        smoothing: γ of the cosine's moving average, in [0, 1); None is the rule's own.
        weight_decay: λ ≥ 0, added to the gradient as in torch.optim.SGD; the cosine does not see it.
        maximize: Ascend instead of descend.
        foreach, fused: Implementation, as in torch; None takes the fused kernel on the CPU and foreach elsewhere.

    Raises:
        ValueError, TypeError: for an option out of range or, where none adapts, of adaptive momentum, and for complex
            or sparse parameters, or sharded ones that adapt, by name.

    Shapes:
        Parameters of any shape.

    Cost:
        That of APTAdamW's rule: three products over the parameters and, for the previous gradient, one more buffer.

    Note:
        APT (applicability of advanced optimizers), arXiv 2604.08939, reconstruction; for A7 with a measured noise set
        ``optimizer.adaptive.noise_hook``.
        The paper's optimizers are Adam-like and Muon, so this is the rule without the rest. The
        averaged form keeps the step's length when β changes. The heavy-ball form m = βm + d, torch's default, is
        1/(1-β) times as long: multiply its learning rate by 1/(1-β) to get the same steps here. What holds for
        missing and non-finite gradients is said at `APTAdamW`.
    """

    decoupled_weight_decay = False
    """Whether weight decay acts on the parameters; `motet.GroupedUpdates` asks."""

    def __init__(
        self,
        params: ParamsT,
        lr: float | Tensor = 1e-3,
        momentum: float = 0.9,
        beta_min: float | None = None,
        rule: str = "A1",
        reference: str = "previous",
        scope: str = "global",
        *,
        smoothing: float | None = None,
        weight_decay: float = 0.0,
        maximize: bool = False,
        foreach: bool | None = None,
        fused: bool | None = None,
    ) -> None:
        defaults = AdaptiveMomentum.options(beta_min, rule, reference, scope, smoothing)
        defaults |= {"lr": lr, "momentum": momentum, "weight_decay": weight_decay}
        defaults |= {"maximize": maximize, "foreach": foreach, "fused": fused}
        self.adaptive = AdaptiveMomentum(starts_full=True)
        super().__init__(params, defaults)
        AdaptiveMomentum.check_used(self.param_groups, rule, reference, scope, smoothing)

    def add_param_group(self, param_group: dict[str, Any]) -> None:
        """Add a group, with options of its own; refuses what this optimizer cannot do, by name."""
        super().add_param_group(param_group)
        group = self.param_groups[-1]
        try:
            AdaptiveMomentum.check(group)
            check_positive(group, "lr", "weight_decay")
            if group["fused"] and (group["foreach"] or any(p.device.type != "cpu" for p in group["params"])):
                raise ValueError("fused must be None or False where foreach is True or parameters are not on the CPU")
        except (TypeError, ValueError):
            self.param_groups.pop()
            raise

    def fresh(self) -> dict[str, Any]:
        """As `Adapting.fresh`."""
        return {"adaptive": AdaptiveMomentum(starts_full=True)}

    @torch.no_grad()
    def step(self, closure: Callable[[], Any] | None = None) -> Any:
        """One update; a closure is called first, with gradients on, and its loss returned."""
        loss = None
        if closure is not None:
            with torch.enable_grad():
                loss = closure()
        chosen = [active(group) for group in self.param_groups]
        betas = self.adaptive.betas(self.param_groups, self.state, "momentum_buffer")
        for group, js, found in zip(self.param_groups, chosen, betas, strict=True):
            fused: dict[tuple[Any, ...], list[Tensor]] = {}
            for j in js:
                p, beta = group["params"][j], found[j]
                first = self.state[p].get("momentum_buffer") is None
                if first:
                    self.state[p]["momentum_buffer"] = torch.zeros_like(p, memory_format=torch.preserve_format)
                m = self.state[p]["momentum_buffer"]
                wanted = group["fused"] is not False and not group["foreach"] and p.device.type == "cpu"
                if wanted and fusable(p, m):
                    number = group["momentum"] if beta is None else float(beta)
                    if number:
                        fused.setdefault((number, first, p.dtype), []).append(p)
                        continue
                    # torch's kernel takes no momentum of 0 together with a buffer.
                _update(group, p, m, beta, first)
            for (number, first, _), params in fused.items():
                torch._fused_sgd_(
                    params,
                    [laid_out(p) for p in params],
                    [self.state[p]["momentum_buffer"] for p in params],
                    weight_decay=group["weight_decay"],
                    momentum=number,
                    lr=float(group["lr"]),
                    dampening=number,
                    nesterov=False,
                    maximize=group["maximize"],
                    is_first_step=first,
                )
        return loss


def _update(group: Group, p: Tensor, m: Tensor, beta: Tensor | None, first: bool) -> None:
    """One parameter with plain tensor operations, in which β stays on the device."""
    assert p.grad is not None
    d = -p.grad if group["maximize"] else p.grad
    if group["weight_decay"]:
        d = d.add(p, alpha=group["weight_decay"])
    fresh = 1 - group["momentum"] if beta is None else (1 - beta).to(p.device, p.dtype)
    m.copy_(d) if first else m.lerp_(d, fresh)
    if isinstance(group["lr"], Tensor):  # No number is read from its device.
        p.sub_(m * group["lr"].to(p))
    else:
        p.add_(m, alpha=-group["lr"])
