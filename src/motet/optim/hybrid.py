"""Muon for a model's hidden matrices and AdamW for the rest, as one optimizer: Jordan et al., Muon, 2024."""

from __future__ import annotations

import inspect
import logging
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim.optimizer import Optimizer, ParamsT

from motet.optim.adamw import APTAdamW
from motet.optim.momentum import AdaptiveMomentum, Group, active, refuse_foreign, tensor_steps
from motet.optim.muon import APTMuon
from motet.optim.preservation import EffectiveRank, RankOne
from motet.optim.routing import Modules, Route, routes_of, split_up

logger = logging.getLogger("motet")

BUFFERS = {"muon": "momentum_buffer", "adamw": "exp_avg"}
"""The momentum in each part's state."""

_SHARED = frozenset(inspect.signature(AdaptiveMomentum.options).parameters)
"""Options of adaptive momentum, which both parts have."""


class _Given:
    """β's that were computed for the whole optimizer, handed to one of its parts."""

    def __init__(self, betas: dict[int, list[Tensor | None]]) -> None:
        self._betas = betas

    def betas(self, groups: Sequence[Group], *_: Any) -> list[list[Tensor | None]]:
        return [self._betas[id(group)] for group in groups]


class Hybrid(Optimizer):
    r"""Muon on some param groups and AdamW on the others, with one state and one list of groups.

    Schedulers, gradient scalers, clipping, hooks and ``state_dict`` see one optimizer. Adaptive momentum with the
    global scope takes one cosine over both.

    Args:
        params: Param groups, each with ``"optimizer"``: "muon" or "adamw"; without it "adamw", which takes any.
        muon: Options of `APTMuon` for all its groups.
        adamw: Options of `APTAdamW` for all its groups.

    Raises:
        ValueError, TypeError: for options or parameters that a part refuses, as a vector in a group of Muon.

    Shapes:
        Parameters any shape; those of Muon ndim ≥ 2.

    Cost:
        That of its parts, see `APTMuon` and `APTAdamW`.

    Note:
        APT (applicability of advanced optimizers), arXiv 2604.08939, reconstruction. For rule A7 with a measured noise
        set ``optimizer.adaptive.noise_hook``, see `AdaptiveMomentum`.

        A group has the options of its own optimizer only, "momentum" or "betas". A "momentum" that is written into a
        group of AdamW, as OneCycleLR and CyclicLR do, becomes its β₁ at the next step.
    """

    decoupled_weight_decay = True
    """Whether weight decay acts on the parameters; `motet.GroupedUpdates` asks."""

    def __init__(
        self, params: ParamsT, muon: Mapping[str, Any] | None = None, adamw: Mapping[str, Any] | None = None
    ) -> None:
        self.options = {"muon": dict(muon or {}), "adamw": dict(adamw or {})}
        self.adaptive = AdaptiveMomentum()
        self.routes: tuple[Route, ...] = ()
        self._parts: dict[str, APTMuon | APTAdamW] = {}
        super().__init__(params, {})
        for kind, options in self.options.items():
            groups = [group for group in self.param_groups if group["optimizer"] == kind]
            given = AdaptiveMomentum.options(**{k: v for k, v in options.items() if k in _SHARED})
            if groups:
                AdaptiveMomentum.check_used(groups, **{k: v for k, v in given.items() if k != "beta_min"})
        # Schedulers that cycle the momentum ask here whether there is one.
        self.defaults = {"momentum": self.options["muon"].get("momentum", 0.95)}

    def add_param_group(self, param_group: dict[str, Any]) -> None:
        """Add a group to the part that its ``"optimizer"`` names; without it AdamW's, matrices too.

        `muon_for` routes a whole model only: a matrix that is to go to Muon needs ``"optimizer": "muon"`` here.
        """
        filled = [name for name in self.defaults if name not in param_group]
        super().add_param_group(param_group)
        group = self.param_groups[-1]
        for name in filled:  # Each part has its own.
            group.pop(name, None)
        try:
            self._join(group)
        except (TypeError, ValueError):
            self.param_groups.pop()
            raise

    def _join(self, group: Group) -> None:
        """Give a group to its part; both hold the same dictionary."""
        kind = group.setdefault("optimizer", "adamw")
        if kind not in BUFFERS:
            raise ValueError(f"a group's optimizer must be 'muon' or 'adamw', not {kind!r}")
        if kind in self._parts:
            self._parts[kind].add_param_group(group)
        else:
            part: APTMuon | APTAdamW
            part = APTMuon([group], **self.options[kind]) if kind == "muon" else APTAdamW([group], **self.options[kind])
            part.state = self.state
            self._parts[kind] = part

    def __getstate__(self) -> dict[str, Any]:
        own = {"options": self.options, "routes": self.routes, "adaptive": self.adaptive}
        return super().__getstate__() | own

    def __setstate__(self, state: dict[str, Any]) -> None:
        super().__setstate__(state)
        self.__dict__.setdefault("adaptive", AdaptiveMomentum())
        task_gradients = self._muon._tasks if self._muon is not None else {}
        self._parts = {}
        for group in self.param_groups:
            self._join(group)
        if self._muon is not None:
            self._muon._tasks = task_gradients
        tensor_steps(self.state)

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Restore a state, also of torch's AdamW: options that it lacks stay as they are.

        Raises:
            ValueError: if it is of an optimizer that steps in another way, as AdamW with ``amsgrad=True``.
        """
        groups = state_dict["param_groups"]
        for group in groups:
            refuse_foreign(group, type(self).__name__)
        if len(groups) == len(self.param_groups):  # Else torch says what is wrong.
            filled = []
            for mine, given in zip(self.param_groups, groups, strict=True):
                names = ("optimizer", *self._parts[mine["optimizer"]].defaults)
                filled.append({name: mine[name] for name in names if name in mine} | given)
            state_dict = state_dict | {"param_groups": filled}
        super().load_state_dict(state_dict)

    @property
    def _muon(self) -> APTMuon | None:
        part = self.__dict__.get("_parts", {}).get("muon")
        return part if isinstance(part, APTMuon) else None

    @torch.no_grad()
    def step(self, closure: Callable[[], Any] | None = None) -> Any:
        """One update of both parts; a closure is called first, once, with gradients on, and its loss returned."""
        loss = None
        if closure is not None:
            with torch.enable_grad():
                loss = closure()
        for group in self.param_groups:
            part = self._parts[group["optimizer"]]
            if isinstance(part, APTAdamW):  # Moments that were there before know how full they are.
                if "momentum" in group:
                    group["betas"] = (group.pop("momentum"), group["betas"][1])
                part._prepare(group, active(group))
        names = [BUFFERS[group["optimizer"]] for group in self.param_groups]
        betas = self.adaptive.betas(self.param_groups, self.state, names)
        given = _Given({id(group): row for group, row in zip(self.param_groups, betas, strict=True)})
        for part in self._parts.values():
            part.adaptive = given  # type: ignore[assignment]
            # Past torch's wrapper, so that hooks on the steps of all optimizers are called for this one alone.
            inspect.unwrap(type(part).step)(part)
        return loss

    def task_gradients(
        self, gradients: Tensor | Mapping[Tensor, Tensor | RankOne], parameters: Sequence[Tensor] | None = None
    ) -> None:
        """Give the tasks' gradients for direction preservation: see `APTMuon.task_gradients`."""
        if self._muon is None:
            raise ValueError("this optimizer has no matrices for Muon, so there is nothing to preserve")
        self._muon.task_gradients(gradients, parameters)

    @property
    def effective_ranks(self) -> dict[Tensor, EffectiveRank]:
        """Of the last step, by parameter, where Muon was made with ``record=True``."""
        return {} if self._muon is None else self._muon.effective_ranks

    def routing(self) -> str:
        """A table of where every parameter goes and why, as `muon_for` decided."""
        shapes = [" x ".join(map(str, route.shape)) or "scalar" for route in self.routes]
        rows = [("parameter", "shape", "optimizer", "why")]
        rows += [
            (route.name, shape, route.optimizer, route.reason) for route, shape in zip(self.routes, shapes, strict=True)
        ]
        widths = [max(len(row[column]) for row in rows) for column in range(3)]
        return "\n".join(
            "  ".join([*(cell.ljust(width) for cell, width in zip(row, widths, strict=False)), row[3]]) for row in rows
        )


def muon_for(
    model: nn.Module,
    lr: float,
    heads: Modules | None = None,
    apt: bool = False,
    *,
    inputs: Modules | None = None,
    adamw: Mapping[str, Any] | None = None,
    weight_decay: float = 1e-2,
    splits: Mapping[str, int] | None = None,
    **options: Any,
) -> Hybrid:
    """Route a model's parameters: hidden matrices to Muon, all else to AdamW.

    To AdamW go
    - the heads: all in `heads`; without it what `find_heads` takes for such,
    - the first layer: all in `inputs`; without it what the first linear, convolutional, attention or recurrent layer in
      the order of registration does to its input, unless an embedding comes before it,
    - embeddings and normalisation layers, by their type,
    - biases, scalars, vectors and single rows or columns,
    - depthwise and grouped convolutions,
    - what a parametrisation other than weight or spectral norm makes a weight of,
    - matrices of a layer that is named qkv or c_attn and do not have three times as many rows as columns, unless
      `splits` names them: how queries, keys and values lie in them can't be told,
    - tensors of more than two dimensions that belong to no layer of torch, and matrices of such modules that are named
      after an embedding, token or position.

    All other weights go to Muon: convolutions as (out, all else), transposed ones as (in, all else), a fused QKV
    projection in 3 blocks (of MultiheadAttention, or a Linear or convolution with three times as many rows as columns
    that is named qkv, in_proj or c_attn) and the gates of a recurrent layer in 3 (GRU) or 4 (LSTM). A parameter with
    several owners goes to AdamW if any of them says so. ``print(optimizer.routing())`` shows the outcome, and why.

    Args:
        model: Its parameters must have their shapes: run a batch first where layers are lazy.
        lr: For both parts: the matrices' updates are scaled to the size of AdamW's (``match_rms_adamw``), so AdamW's
            rate is a starting point; Muon's best is often another, so sweep ×0.3 … ×10.
        heads: The output layers, or modules that hold them.
        apt: Adaptive momentum with ``beta_min=0.5`` unless the options say otherwise. The heads, whose gradients no
            method changes, keep a fixed one.
        inputs: The input layers, for models with several or whose first layer is registered late.
        adamw: Options of `APTAdamW` alone.
        weight_decay: Decoupled decay of both parts. AdamW's default.
        splits: Equal blocks of rows that are matrices of their own, 1 for none, by name of the parameter or its layer;
            ``*`` stands for anything, as in ``{"blocks.*.kv": 2}``. Beyond and instead of those above.
        **options: Options of `APTMuon`. Those of adaptive momentum hold for both parts.

    >>> model = nn.Sequential(nn.Linear(8, 16), nn.ReLU(), nn.Linear(16, 16), nn.ReLU(), nn.Linear(16, 2))
    >>> print(muon_for(model, lr=1e-3).routing())
    parameter  shape    optimizer  why
    0.weight   16 x 8   adamw      first layer
    0.bias     16       adamw      vector
    2.weight   16 x 16  muon       hidden matrix
    2.bias     16       adamw      vector
    4.weight   2 x 16   adamw      head: the last layer
    4.bias     2        adamw      head: the last layer
    """
    if apt:
        options.setdefault("beta_min", 0.5)
    elif options.get("beta_min") is not None:
        raise ValueError("beta_min is the lower bound of adaptive momentum: pass apt=True with it")
    muon = {"adjust_lr_fn": "match_rms_adamw", "weight_decay": weight_decay, "lr": lr} | options
    other = (
        {"weight_decay": weight_decay, "lr": lr}
        | {k: v for k, v in options.items() if k in _SHARED}
        | dict(adamw or {})
    )
    routes, owners = routes_of(model, heads, inputs)
    routes = split_up(routes, splits or {})
    groups: dict[Any, Group] = {}
    for route in routes:
        head = route.reason.startswith("head")
        fresh: Group = {"params": [], "optimizer": route.optimizer}
        if route.optimizer == "muon":
            fresh["split"] = route.split
        elif head:
            fresh["beta_min"] = None
        groups.setdefault((route.optimizer, route.split, head), fresh)["params"].append(owners[route.name])
    if not groups:
        raise ValueError("the model has no parameters")
    if all(route.optimizer == "adamw" for route in routes):
        logger.warning("no parameter of this model is a hidden matrix: all go to AdamW, see optimizer.routing()")
    optimizer = Hybrid(list(groups.values()), muon, other)
    optimizer.routes = tuple(routes)
    return optimizer
