"""Adaptive momentum: APT, arXiv 2604.08939 (reconstruction)."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from numbers import Real
from typing import Any

import torch
from torch import Tensor
from torch.optim import Optimizer

Group = dict[str, Any]

KAPPA, C0 = 5.0, 0.0
"""Slope and centre of rule A3's sigmoid."""
CLOSE = 1e-5
"""Squared distances below this share of the squared norms are rounding of the float32 products."""


def _sigmoid(c: Tensor) -> Tensor:
    low, value, high = (torch.sigmoid(KAPPA * (x - C0)) for x in (-torch.ones_like(c), c, torch.ones_like(c)))
    return (value - low) / (high - low)


PHI: dict[str, Callable[[Tensor], Tensor]] = {
    "A1": lambda c: (1 + c) / 2,
    "A2": lambda c: c.clamp(min=0),
    "A3": _sigmoid,
    "A4": lambda c: (1 + c) / 2,
    "A5": lambda c: (1 - c) / 2,
    "A6": lambda c: (1 + c) / 2,
}
"""φ of each rule: a cosine in [-1, 1] to a position in [0, 1] between β_min and β_max."""
SMOOTHING = {"A6": 0.9, "A7": 0.9}
REFERENCES = ("previous", "momentum")
SCOPES = ("global", "group", "tensor")


class AdaptiveMomentum:
    r"""A momentum coefficient that falls when the gradient turns away from where it pointed before.

    With the gradient d_t that a multi-task method made (one vector over all parameters in `scope`) and its
    reference r_t (the previous gradient d_{t-1}, or the momentum m_{t-1}):

        c_t = ⟨d_t, r_t⟩ / (‖d_t‖ ‖r_t‖),   c̄_t = γ c̄_{t-1} + (1-γ) c_t,
        β_t = β_min + (β_max - β_min) φ(c̄_t),   m_t = β_t m_{t-1} + (1-β_t) d_t.

    | rule | φ(c) | what it is for |
    |---|---|---|
    | A1 | (1+c)/2 | the default |
    | A2 | max(c, 0) | forgets at a right angle already; best on jumps with little noise |
    | A3 | sigmoid(5c), rescaled so that φ(-1) = 0 and φ(1) = 1 | a threshold |
    | A4 | A1 against the momentum, whatever `reference` says | no extra buffer; sees slow turns that A1 misses |
    | A5 | (1-c)/2 | the opposite sign: a negative control, not a rule to train with |
    | A6 | A1 on the smoothed cosine, γ = 0.9 | less noise in β |
    | A7 | none: 1-β = clip((2 D²/s²)^(1/3), 1-β_max, 1-β_min) | the β that minimises the tracking bound |

    A7 needs the squared drift D² = ‖μ_t - μ_{t-1}‖² of the mean gradient μ and the squared noise s² = E‖d-μ‖².
    For steady drift two distances have known means, where a is the mean age of the gradients in m and q the sum
    of their squared weights:

        Q = ‖d_t - d_{t-1}‖²  →  D² + 2s²,        R = ‖d_t - m_{t-1}‖²  →  a²D² + (1+q)s²,

    so D² = (R - Q(1+q)/2) / (a² - (1+q)/2) and s² = (Q - D²)/2, each smoothed with γ before the division. With
    `noise_hook`, s² is what the hook returns and D² = Q - 2s².

    The options are in each param group, so they may differ from group to group: `beta_min` (None: the group does
    not adapt and its gradients enter no cosine), `rule`, `reference`, `scope`, `smoothing`; β_max is
    ``group["betas"][0]``, or ``group["momentum"]`` where there are no betas. What runs over steps is kept in the
    same place, so that ``state_dict`` saves it, one entry a parameter: ``group["beta"]``,
    ``group["momentum_weight"]`` = 1 - Πβ (for bias correction), ``group["cosine"]`` (c̄ of the parameter's scope),
    and for A7 ``group["momentum_age"]``, ``["momentum_squares"]``, ``["drift"]``, ``["noise"]``; the previous
    gradient is ``state[p]["previous_gradient"]``.

    Args:
        starts_full: Whether the momentum starts as the first gradient (SGD), not as zero (Adam, Muon).

    Cost:
        Three products over the parameters, one more copy of the gradients in memory for the previous gradient
        and none for the momentum; five products for A7. No number is read back from the device.

    Note:
        Reconstruction. The paper's abstract says that momentum adapts to the cosine of successive gradients
        between two bounds. Its mapping φ, which moments adapt, the scope and the bounds are not public; the rules
        above are the candidates. A1 with the previous gradient over all parameters is the plainest reading.

        c = 1, so β = β_max, at the first step, where a norm is zero, and where the product is not finite (a NaN
        gradient, or a norm beyond about 1e18 or below 1e-18 in float32). A parameter without a gradient, or
        without a reference yet, does not enter the cosine. The gradient is read as it is at ``step()``: after
        clipping and unscaling, without weight decay.

        Mini-batch noise alone gives c ≈ ‖μ‖²/(‖μ‖²+s²): where noise dominates, every rule but A7 shortens the
        memory when it should be long, and a fixed β tracks better.
    """

    noise_hook: Callable[[], Tensor | float] | None = None
    """For A7 with the global scope: returns this step's s², for example `noise_of` two half batches' gradients. Set it
    on the optimizer's own rule: ``optimizer.adaptive.noise_hook = …``."""

    def __init__(self, starts_full: bool = False) -> None:
        self.starts_full = starts_full

    @staticmethod
    def options(
        beta_min: float | None = None,
        rule: str = "A1",
        reference: str = "previous",
        scope: str = "global",
        smoothing: float | None = None,
    ) -> Group:
        """What an optimizer adds to its defaults. `smoothing` None is the rule's own γ: 0.9 for A6 and A7, else 0."""
        return {
            "beta_min": beta_min,
            "rule": rule.upper() if isinstance(rule, str) else rule,
            "reference": reference,
            "scope": scope,
            "smoothing": smoothing,
        }

    @staticmethod
    def check(group: Group) -> None:
        """Refuse options out of range and parameters that no rule is defined for; for `add_param_group`."""
        rules = (*PHI, "A7")
        if isinstance(group["rule"], str):
            group["rule"] = group["rule"].upper()
        for option, allowed in (("rule", rules), ("reference", REFERENCES), ("scope", SCOPES)):
            if group[option] not in allowed:
                raise ValueError(f"{option} must be one of {', '.join(allowed)}, not {group[option]!r}")
        for option in ("beta_min", "smoothing"):
            if group[option] is not None:
                check_number(option, group[option])
        check_number("the momentum coefficient", group["betas"][0] if "betas" in group else group["momentum"])
        top, low, smoothing = beta_max(group), group["beta_min"], group["smoothing"]
        if not 0 <= top < 1:
            raise ValueError(f"the momentum coefficient must be in [0, 1), not {top}")
        if low is not None and not 0 <= low <= top:
            raise ValueError(f"beta_min must be in [0, {top}], up to the momentum coefficient, or None, not {low}")
        if smoothing is not None and not 0 <= smoothing < 1:
            raise ValueError(f"smoothing must be in [0, 1) or None, not {smoothing}")
        check_parameters(group)
        if low is not None:
            refuse_sharded(group, "adapting momentum", "keep it fixed (beta_min=None) or use torch's own optimizer")

    @staticmethod
    def check_used(groups: Sequence[Group], rule: str, reference: str, scope: str, smoothing: float | None) -> None:
        """Refuse options of adaptive momentum, given for all groups of which none adapts; for constructors."""
        plain = AdaptiveMomentum.options()
        given = AdaptiveMomentum.options(None, rule, reference, scope, smoothing)
        for option, value in given.items():
            if value != plain[option] and all(group["beta_min"] is None for group in groups):
                raise ValueError(f"{option}={value!r} is an option of adaptive momentum: pass beta_min with it, as 0.5")

    @torch.no_grad()
    def betas(
        self,
        groups: Sequence[Group],
        state: Mapping[Tensor, dict[str, Any]],
        buffers: str | Sequence[str] = "exp_avg",
    ) -> list[list[Tensor | None]]:
        """β of this step for every parameter; to be called once a step, before any momentum moves.

        `buffers` names the momentum in ``state[p]``, one name for all groups or one a group; a missing buffer is
        no momentum yet. Make buffers where their own key is missing from ``state[p]``, not where ``state[p]`` is
        empty: the previous gradient may be there already. ``betas[i][j]`` is a 0-dim float64 tensor (float32 on
        MPS) for ``groups[i]["params"][j]``, None where that has no gradient or its group does not adapt. `p.grad`
        is read, never changed.
        """
        if self.noise_hook is not None and not any(g["rule"] == "A7" and g["beta_min"] is not None for g in groups):
            raise ValueError("noise_hook is set and no group would call it: only rule A7, with a beta_min, does")
        names = [buffers] * len(groups) if isinstance(buffers, str) else buffers
        result: list[list[Tensor | None]] = [[None] * len(group["params"]) for group in groups]
        measured: dict[int, tuple[list[int], Tensor]] = {}
        for i, group in enumerate(groups):
            js = active(group) if group["beta_min"] is not None else []
            if js:
                measured[i] = js, _measure(group, js, state, names[i])
        pools: dict[str, Tensor] = {}
        for i, (_, own) in measured.items():
            if groups[i]["scope"] == "global":
                kind = _kind(groups[i])
                pools[kind] = own.sum(0, keepdim=True) + (pools[kind].to(own.device) if kind in pools else 0)
        for i, (js, own) in measured.items():
            group = groups[i]
            if group["scope"] == "global":
                own = pools[_kind(group)].to(own.device)
            elif group["scope"] == "group":
                own = own.sum(0, keepdim=True)
            fall = self._bound(group, js, own) if group["rule"] == "A7" else _turn(group, js, own)
            self._advance(group, js, (beta_max(group) - fall).expand(len(js)))
            for j, beta in zip(js, entries(group, "beta", js, own).unbind(), strict=True):
                result[i][j] = beta
        return result

    def _bound(self, group: Group, js: list[int], measure: Tensor) -> Tensor:
        """β_max - β_t of rule A7 from the sums (D², s², Q) of the scope, (1, 3) or (n, 3)."""
        drift, noise, Q = measure.unbind(1)
        if self.noise_hook is not None:
            if group["scope"] != "global":
                raise ValueError(f"noise_hook measures all parameters: scope must be global, not {group['scope']}")
            noise = torch.as_tensor(self.noise_hook()).detach().to(Q).reshape(-1).expand_as(Q)
            drift = Q - 2 * noise
        drift, noise = (_smooth(group, name, js, x, 0.0) for name, x in (("drift", drift), ("noise", noise)))
        low = 1 - beta_max(group)
        high = max(low, 1 - group["beta_min"])
        noise = noise.clamp(min=torch.finfo(noise.dtype).tiny)
        return (2 * drift.clamp(min=0) / noise).pow(1 / 3).clamp(low, high) - low

    def _advance(self, group: Group, js: list[int], beta: Tensor) -> None:
        """Keep β, and what the momentum is then made of: the sum of its weights, of their squares, and their ages."""
        fresh = 1 - beta
        weight = entries(group, "momentum_weight", js, beta)
        if self.starts_full:
            fresh = torch.where(weight == 0, 1.0, fresh)
        if group["rule"] == "A7":
            age = entries(group, "momentum_age", js, beta)
            store(group, "momentum_age", js, (1 - fresh) * (age + weight) + fresh)
            squares = entries(group, "momentum_squares", js, beta)
            store(group, "momentum_squares", js, (1 - fresh) ** 2 * squares + fresh**2)
        store(group, "momentum_weight", js, (1 - fresh) * weight + fresh)
        store(group, "beta", js, beta)


def beta_max(group: Group) -> float:
    """The upper bound of β: the coefficient that a fixed momentum would have."""
    return float(group["betas"][0] if "betas" in group else group["momentum"])


def name_of(group: Group, j: int) -> str:
    """The name of the group's parameter j for messages: its own where the optimizer was given names."""
    names = group.get("param_names")
    return f"parameter {names[j]!r}" if names else f"parameter {j} of its group {tuple(group['params'][j].shape)}"


def check_parameters(group: Group) -> None:
    """Refuse complex and sparse parameters by name."""
    for j, p in enumerate(group["params"]):
        if p.is_complex() or p.layout != torch.strided:
            kind = "complex" if p.is_complex() else "sparse"
            raise TypeError(f"{name_of(group, j)} is {kind}; only dense real parameters are supported")


def refuse_sharded(group: Group, what: str, instead: str) -> None:
    """Refuse DTensors, known without torch.distributed, by name."""
    for j, p in enumerate(group["params"]):
        if hasattr(p, "device_mesh") and hasattr(p, "placements"):
            raise TypeError(f"{name_of(group, j)} is sharded (a DTensor), with which {what} does not work: {instead}")


def check_number(option: str, value: Any) -> None:
    """Refuse what is no number; a tensor may hold one."""
    if isinstance(value, Tensor):
        if value.numel() != 1:
            raise ValueError(f"{option} must be one number, not a tensor of shape {tuple(value.shape)}")
    elif isinstance(value, bool) or not isinstance(value, Real):
        raise TypeError(f"{option} must be a number, not {value!r}")


def check_positive(group: Group, *options: str) -> None:
    """Refuse options that are no finite number of at least 0, by name."""
    for option in options:
        check_number(option, group[option])
        if not 0 <= group[option] < math.inf:
            raise ValueError(f"{option} must be finite and at least 0, not {group[option]}")


def check_betas(group: Group) -> None:
    """Refuse betas that are not two numbers, or a second one out of [0, 1); the first is `AdaptiveMomentum.check`'s."""
    betas = group["betas"]
    if not isinstance(betas, tuple | list) or len(betas) != 2:
        raise ValueError(f"betas must be two coefficients in [0, 1), not {betas!r}")
    for beta in betas:
        check_number("each of betas", beta)
    if not 0 <= betas[1] < 1:
        raise ValueError(f"betas must be two coefficients in [0, 1), not {betas}")


def active(group: Group) -> list[int]:
    """The positions of the parameters that have a gradient."""
    js = [j for j, p in enumerate(group["params"]) if p.grad is not None]
    for j in js:
        if group["params"][j].grad.layout != torch.strided:
            raise TypeError(f"the gradient of {name_of(group, j)} is sparse; only dense gradients are supported")
    return js


def noise_of(gradients: Tensor) -> Tensor:
    """s², the squared noise of the mean of independent gradients of one thing, for `noise_hook`.

        s² = Σᵢ ‖gᵢ - ḡ‖² / (K(K-1))

    Two half batches (K = 2) give the noise of the whole batch. With K tasks' gradients their differences count as
    noise as well, so that s² is an upper bound. For the noise of the sum, multiply by K².

    Shapes:
        gradients (K, P), K ≥ 2 → 0-dim.
    """
    K = len(gradients)
    if K < 2:
        raise ValueError(f"noise needs at least two gradients to compare, not {K}")
    return (gradients - gradients.mean(0)).square().sum() / (K * (K - 1))


def _kind(group: Group) -> str:
    """What the group's gradient is compared with; groups of a kind share the global scope."""
    if group["rule"] == "A7":
        return "bound"
    return "momentum" if group["rule"] == "A4" else str(group["reference"])


def _measure(group: Group, js: list[int], state: Mapping[Tensor, dict[str, Any]], buffer: str) -> Tensor:
    """What adds up over the parameters of a scope: ⟨d,r⟩, ‖d‖², ‖r‖² for a cosine; D², s², Q for A7. (n, 3)."""
    kind, sign = _kind(group), -1 if group.get("maximize") else 1
    products: list[Tensor] = []
    alone: list[bool] = []
    for p in (group["params"][j] for j in js):
        d, own = p.grad, state[p]
        references = [] if kind == "momentum" else [own.get("previous_gradient")]
        if kind != "previous":
            references.append(own.get(buffer))
        alone.append(any(r is None for r in references))
        flat = _flat(d)
        square = torch.dot(flat, flat)
        products.append(square)
        for r in references:
            flat_r = None if r is None else _flat(r)
            products += [square, square] if flat_r is None else [torch.dot(flat, flat_r), torch.dot(flat_r, flat_r)]
        if kind != "momentum":  # at once, while both are in the cache
            if references[0] is None:
                own["previous_gradient"] = d.clone()
            else:
                references[0].copy_(d)
    device, dtype = products[0].device, products[0].dtype
    if any(x.device != device or x.dtype != dtype for x in products):
        dtype = _widest(device)
        products = [x.to(device, dtype, non_blocking=True) for x in products]
    table = torch.stack(products).view(len(js), -1).to(_widest(device))
    if kind != "previous":
        table[:, -2] *= sign
    weight = entries(group, "momentum_weight", js, table)
    dd, dr, rr = table[:, :3].unbind(1)
    measure = torch.stack([dr, dd, rr], 1)
    if kind == "bound":
        dm, mm = table[:, 3] / weight, table[:, 4] / weight**2
        age = entries(group, "momentum_age", js, table) / weight
        q = entries(group, "momentum_squares", js, table) / weight**2
        Q, R, lever = _distance(dd, dr, rr), _distance(dd, dm, mm), age**2 - (1 + q) / 2
        drift = torch.where(lever > CLOSE, (R - Q * (1 + q) / 2) / lever, 0.0)
        measure = torch.stack([drift, (Q - drift) / 2, Q], 1)
    if kind != "previous":
        measure = measure.masked_fill((weight == 0).unsqueeze(1), 0.0)
    if any(alone):
        measure = measure.masked_fill(torch.tensor(alone, device=measure.device).unsqueeze(1), 0.0)
    return measure


def _turn(group: Group, js: list[int], measure: Tensor) -> Tensor:
    """β_max - β_t of the cosine rules from the sums (⟨d,r⟩, ‖d‖², ‖r‖²) of the scope, (1, 3) or (n, 3)."""
    dr, dd, rr = measure.unbind(1)
    c = dr / (dd.sqrt() * rr.sqrt())
    c = torch.where(c.isfinite(), c.clamp(-1, 1), 1.0)
    c = _smooth(group, "cosine", js, c, 1.0)
    span: float = max(0.0, beta_max(group) - group["beta_min"])  # A schedule may take β_max below.
    return span * (1 - PHI[group["rule"]](c))


def _smooth(group: Group, name: str, js: list[int], value: Tensor, start: float) -> Tensor:
    """γ·old + (1-γ)·value, kept under `name`; a value that is not finite leaves the old one."""
    gamma = SMOOTHING.get(group["rule"], 0.0) if group["smoothing"] is None else group["smoothing"]
    old = entries(group, name, js, value, start)[: len(value)]
    new = torch.where(value.isfinite(), gamma * old + (1 - gamma) * value, old)
    if group["scope"] == "tensor":
        store(group, name, js, new)
    else:
        group[name] = new.expand(len(group["params"])).clone()
    return new


def _flat(x: Tensor) -> Tensor:
    """In one row, in at least float32: products of half precision numbers are not half precision."""
    x = x.reshape(-1)
    return x if x.dtype in (torch.float32, torch.float64) else x.float()


def _widest(device: torch.device) -> torch.dtype:
    return torch.float32 if device.type == "mps" else torch.float64


def _distance(aa: Tensor, ab: Tensor, bb: Tensor) -> Tensor:
    """‖a-b‖², zero where it is rounding only."""
    distance = aa - 2 * ab + bb
    return torch.where(distance > CLOSE * (aa + bb), distance, torch.where(distance.isfinite(), 0.0, distance))


def entries(group: Group, name: str, js: list[int], like: Tensor, start: float = 0.0) -> Tensor:
    """The running quantity of the parameters `js`, on the device of `like`."""
    whole = group.get(name)
    if whole is None or len(whole) != len(group["params"]):
        whole = like.new_full((len(group["params"]),), start)
    group[name] = whole = whole.to(like.device)
    found: Tensor = whole if len(js) == len(whole) else torch.stack([whole[j] for j in js])
    return found


def store(group: Group, name: str, js: list[int], values: Tensor) -> None:
    """Replace the running quantity of the parameters `js`; never in place, as a saved state may share it."""
    whole = group.get(name)
    if len(js) == len(group["params"]):
        group[name] = values.clone()
        return
    rows = list(values.new_full((len(group["params"]),), beta_max(group)) if whole is None else whole)
    for j, value in zip(js, values, strict=True):
        rows[j] = value
    group[name] = torch.stack(rows)


def refuse_foreign(group: Group, name: str) -> None:
    """Refuse to go on from a group of another optimizer whose steps ours can't make."""
    why = ""
    if group.get("amsgrad"):
        why = "amsgrad=True, which divides by the largest second moment so far"
    elif not group.get("decoupled_weight_decay", True) and group.get("weight_decay"):
        why = "the weight decay of Adam, which is added to the gradient"
    elif "dampening" in group and group["momentum"] and (group["dampening"] != group["momentum"] or group["nesterov"]):
        why = "a momentum that is a sum, or Nesterov's: it must be an average, with dampening=momentum"
    if why:
        raise ValueError(f"this state has {why}; {name} would go on in another way")


def tensor_steps(state: Mapping[Tensor, dict[str, Any]]) -> None:
    """Numbers of steps as float32 tensors, which old states have as whole numbers."""
    for own in state.values():
        step = own.get("step")
        if step is not None and not (isinstance(step, Tensor) and step.is_floating_point()):
            device = step.device if isinstance(step, Tensor) else None
            own["step"] = torch.as_tensor(step, dtype=torch.float32, device=device)


class Adapting(Optimizer):
    """What the adaptive optimizers share: states from elsewhere, and copies that keep how they work."""

    kept: tuple[str, ...] = ("adaptive",)
    """Attributes that a copy takes along."""

    def fresh(self) -> dict[str, Any]:
        """Attributes of an optimizer that has none, as one from a pickle of an older version."""
        return {"adaptive": AdaptiveMomentum()}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Restore a state, also of torch's optimizer of the same name: options that it lacks stay as they are.

        Raises:
            ValueError: if it is of an optimizer that steps in another way, as AdamW with ``amsgrad=True``.
        """
        groups = state_dict["param_groups"]
        for group in groups:
            refuse_foreign(group, type(self).__name__)
        if len(groups) == len(self.param_groups):  # Else torch says what is wrong.
            own = [{name: group[name] for name in self.defaults if name in group} for group in self.param_groups]
            filled = [mine | given for mine, given in zip(own, groups, strict=True)]
            state_dict = state_dict | {"param_groups": filled}
        super().load_state_dict(state_dict)

    def __getstate__(self) -> dict[str, Any]:
        return super().__getstate__() | {name: self.__dict__[name] for name in self.kept}

    def __setstate__(self, state: dict[str, Any]) -> None:
        super().__setstate__(state)
        for name, value in self.fresh().items():
            self.__dict__.setdefault(name, value)
        tensor_steps(self.state)
        for group in self.param_groups:
            for option, value in self.defaults.items():
                group.setdefault(option, value)
