"""AdaTask, moments of each task's own: Yang et al., AAAI 2023, arXiv 2211.15055."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor
from torch.optim.optimizer import Optimizer, ParamsT

from motet.optim.momentum import active, check_betas, check_parameters, check_positive, refuse_sharded
from motet.optim.rescaling import Rescaling


class AdaTask(Optimizer):
    r"""AdamW with moments a task, so that no task's gradients set the step length of another.

    With task k's own gradient g_k of a shared parameter,

        m_k ← β₁ m_k + (1-β₁) g_k,   v_k ← β₂ v_k + (1-β₂) g_k²,
        θ ← (1 - lr·λ) θ - lr Σ_k m̂_k / (√v̂_k + ε),

    with Adam's bias correction by the steps in which task k was there. Other parameters, as those of heads, take
    AdamW's step on their ``.grad``. With one task it is AdamW.

    Args:
        params: Parameters, (name, parameter) pairs, or param groups.
        lr: Learning rate, ≥ 0.
        betas: (β₁, β₂), each in [0, 1). Adam's defaults.
        eps: ε, ≥ 0.
        weight_decay: Decoupled decay λ, ≥ 0. AdamW's default.

    Raises:
        ValueError, TypeError: for an option out of range, and complex, sparse or sharded parameters, by name.

    Shapes:
        Parameters of any shape; the tasks' gradients (K, P).

    Scale:
        A step does not depend on the scale of any task's loss, so constant weights have no effect, and it is up to K
        times as long as AdamW's on the sum.

    Cost:
        2·K numbers a shared parameter, and K gradients a step. Two numbers a step are read from the device.

    Note:
        What a method made of the tasks' gradients is not used: it is a reference for separate moments alone. The
        paper separates the accumulated gradients of AdaGrad, RMSProp and Adam; that the tasks' steps are added up
        unweighted, and that decay is decoupled, is a reconstruction. A task whose gradient is zero everywhere counts
        as absent: its moments stay as they are, and it moves nothing. What multiplies all ``.grad`` of the tasks'
        parameters between `task_gradients` and `step`, as a GradScaler that unscales or clipping by the norm, is made
        good in the tasks' gradients; where it is not one factor, `step` raises. Of several micro-batches the last
        one's gradients count.

    >>> import motet
    >>> trunk, a, b = torch.nn.Linear(3, 4), torch.nn.Linear(4, 1), torch.nn.Linear(4, 1)
    >>> optimizer = AdaTask([*trunk.parameters(), *a.parameters(), *b.parameters()])
    >>> balancer = motet.Balancer("sum", on_gradients=optimizer.task_gradients)
    >>> z = trunk(torch.ones(8, 3))
    >>> step = balancer.backward({"a": a(z).pow(2).mean(), "b": (b(z) - 1).pow(2).mean()}, features=z)
    >>> optimizer.step()
    >>> optimizer.state[trunk.weight]["exp_avg"].shape
    torch.Size([2, 4, 3])
    """

    decoupled_weight_decay = True
    """Whether weight decay acts on the parameters; `motet.GroupedUpdates` asks."""

    def __init__(
        self,
        params: ParamsT,
        lr: float | Tensor = 1e-3,
        betas: tuple[float, float] = (0.9, 0.999),
        *,
        eps: float = 1e-8,
        weight_decay: float = 1e-2,
    ) -> None:
        self._tasks: dict[Tensor, Tensor] = {}
        self._there: Tensor | None = None
        self._rescaling: Rescaling | None = None
        super().__init__(params, {"lr": lr, "betas": betas, "eps": eps, "weight_decay": weight_decay})

    def add_param_group(self, param_group: dict[str, Any]) -> None:
        """Add a group, with options of its own; refuses what this optimizer cannot do, by name."""
        super().add_param_group(param_group)
        try:
            _check(self.param_groups[-1])
        except (TypeError, ValueError):
            self.param_groups.pop()
            raise

    def task_gradients(self, gradients: Tensor, parameters: Sequence[Tensor]) -> None:
        """Give the tasks' gradients for the next `step`: (K, P), and the parameters that its columns belong to.

        They are kept by reference and forgotten in that step. K and the order of tasks stay from step to step, so an
        absent task has a row of zeros: as a `Balancer` hands them over. ``.grad`` must be written already.
        """
        sizes = [parameter.numel() for parameter in parameters]
        if gradients.ndim != 2 or gradients.shape[1] != sum(sizes):
            raise ValueError(f"the Jacobian must be (K, {sum(sizes)}), not {tuple(gradients.shape)}")
        self._there = (gradients.detach() != 0).any(1)
        self._tasks = dict(zip(parameters, gradients.detach().split(sizes, 1), strict=True))
        own = {p for group in self.param_groups for p in group["params"]}
        self._rescaling = Rescaling(p for p in self._tasks if p in own)

    def __setstate__(self, state: dict[str, Any]) -> None:
        super().__setstate__(state)
        self.__dict__.setdefault("_tasks", {})
        self.__dict__.setdefault("_there", None)
        self.__dict__.setdefault("_rescaling", None)

    @torch.no_grad()
    def step(self, closure: Callable[[], Any] | None = None) -> Any:
        """One update; a closure is called first, with gradients on, and its loss returned."""
        loss = None
        if closure is not None:
            with torch.enable_grad():
                loss = closure()
        moving = [(group, p) for group in self.param_groups for p in (group["params"][j] for j in active(group))]
        there, tasks, rescaling = self._there, self._tasks, self._rescaling
        self._tasks, self._there, self._rescaling = {}, None, None
        if not moving:
            return loss
        if there is None or rescaling is None:
            if not any(bool(p.grad.any()) for _, p in moving):
                return loss  # Every task of the batch was absent or left out.
            raise RuntimeError(
                "AdaTask needs the tasks' gradients before every step: make the Balancer with "
                "on_gradients=optimizer.task_gradients. GroupedUpdates has no such hook, and its groups' updates are "
                "separate already: give it AdamW"
            )
        factor = rescaling.factor()
        for group, p in moving:
            G = tasks.get(p)
            if G is None:
                self._move(group, p, p.grad[None], torch.ones(1, dtype=torch.bool))
            else:
                G = G.view(len(G), *p.shape).to(p)
                self._move(group, p, G if factor == 1 else G * factor, there)
        return loss

    def _move(self, group: dict[str, Any], p: Tensor, G: Tensor, there: Tensor) -> None:
        """One parameter, from the gradients G (K, *shape) of the tasks that are there (K,)."""
        state, (beta1, beta2) = self.state[p], group["betas"]
        there = there.to(p.device)
        if not state:
            state["step"] = torch.zeros(len(G), device=p.device)
            state["exp_avg"], state["exp_avg_sq"] = torch.zeros_like(G), torch.zeros_like(G)
        if state["exp_avg"].shape != G.shape:
            had = state["step"].numel()
            raise ValueError(f"AdaTask keeps moments a task: it had {had} tasks, and is given {len(G)}")
        state["step"] = t = state["step"] + there
        t = t.clamp(min=1).view(-1, *[1] * p.ndim).to(torch.float32 if p.device.type == "mps" else torch.float64)
        first, second = (1 - beta1**t).to(p), (1 - beta2**t).to(p)
        moves = there.view_as(t)
        m, v = state["exp_avg"], state["exp_avg_sq"]
        m.copy_(torch.where(moves, m.lerp(G, 1 - beta1), m))
        v.copy_(torch.where(moves, v.lerp(G * G, 1 - beta2), v))
        steps = (m / first) / ((v / second).sqrt() + group["eps"])
        lr, step = group["lr"], torch.where(moves, steps, 0).sum(0)
        p.mul_(1 - lr * group["weight_decay"])
        if isinstance(lr, Tensor):
            p.sub_(step * lr.to(p))
        else:
            p.sub_(step, alpha=lr)


def _check(group: dict[str, Any]) -> None:
    check_positive(group, "lr", "eps", "weight_decay")
    check_betas(group)
    if not 0 <= group["betas"][0] < 1:
        raise ValueError(f"betas must be two coefficients in [0, 1), not {group['betas']}")
    check_parameters(group)
    refuse_sharded(group, "a moment a task", "use torch.optim.AdamW")
