"""Muon for a model's hidden matrices and AdamW for the rest, as one optimizer: Jordan et al., Muon, 2024."""

from __future__ import annotations

import inspect
import logging
import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from fnmatch import fnmatchcase
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.optim.optimizer import Optimizer, ParamsT

from motet.optim.adamw import APTAdamW
from motet.optim.momentum import AdaptiveMomentum, Group, active, refuse_foreign, tensor_steps
from motet.optim.muon import APTMuon
from motet.optim.preservation import EffectiveRank, RankOne

logger = logging.getLogger("motet")

Modules = nn.Module | Mapping[str, nn.Module] | Iterable[nn.Module]

BUFFERS = {"muon": "momentum_buffer", "adamw": "exp_avg"}
"""The momentum in each part's state."""

_NORMS = (
    nn.modules.batchnorm._NormBase,
    nn.LayerNorm,
    nn.GroupNorm,
    *([nn.RMSNorm] if hasattr(nn, "RMSNorm") else []),
)
_CONVOLUTIONS = nn.modules.conv._ConvNd
_GATES = {nn.LSTM: 4, nn.LSTMCell: 4, nn.GRU: 3, nn.GRUCell: 3}
_LAYERS = (nn.Linear, nn.Bilinear, _CONVOLUTIONS, nn.MultiheadAttention, nn.RNNBase, nn.RNNCellBase)
"""Layers whose weights multiply what comes in, so that the first of them is the input layer."""


_TAKES = (
    *("in_features", "in1_features", "in2_features", "in_channels", "num_features", "num_channels"),
    *("embed_dim", "kdim", "vdim", "input_size"),
)
"""How layers of torch call the number of numbers or channels that they take."""
_DIRECTIONS = ("_WeightNorm", "_SpectralNorm")
"""Parametrisations whose tensors point where the weight does; others are coordinates of some other kind."""
_OLD_NORMS = ("_g", "_v", "_orig")
"""What the hooks of torch.nn.utils.weight_norm and spectral_norm add to a tensor's name."""


_SHARED = frozenset(inspect.signature(AdaptiveMomentum.options).parameters)
"""Options of adaptive momentum, which both parts have."""
_FUSED = "fused projection of unknown blocks: name it in splits for Muon"


class Route(NamedTuple):
    """Where one parameter goes, and why."""

    name: str
    shape: tuple[int, ...]
    optimizer: str
    """"muon" or "adamw"."""
    reason: str
    split: int = 1


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
    routes, owners = _routes(model, heads, inputs)
    routes = _split(routes, splits or {})
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


def find_heads(model: nn.Module) -> dict[nn.Module, str]:
    """The output layers of a model, as far as its modules tell, and what tells it.

    The modules with a name like ``head``, ``task_heads``, ``head_depth``, ``classifier`` or ``predictor``, outside of
    attention. Where nothing has such a name: the last layer with a weight in the order of registration and, where this
    is in a ModuleDict, the dictionary's other members, which in a multi-task model are other tasks' heads; further
    layers beside the last one that take as many inputs, and last layers of its fellows in a ModuleList or of modules
    beside one that holds it and with inputs like it (towers that are attributes), if no layer takes as many numbers as
    they give.

    Nothing is known here of the order of the forward pass: a model that registers other layers last under names that
    say nothing, or whose heads are as wide as its trunk, should pass ``heads=``.
    """
    layers = dict(_leaves(model))
    named: dict[nn.Module, str] = {}
    for path, module in model.named_modules():
        # A name for all of the model tells nothing.
        whole = bool(layers) and set(module.modules()).issuperset(layers.values())
        new = _names_head(path) and not whole and not any(module in head.modules() for head in named)
        if new and any(True for _ in module.parameters()):
            named[module] = f"head, by the name {path.rpartition('.')[2]!r}"
    if named or not layers:
        return named
    (first, *_), (*_, (path, last)) = layers.values(), layers.items()
    found = {last: "head: the last layer"}
    for place, module in reversed(list(model.named_modules())):
        inside = set(module.modules())
        # A container of all layers, trunk and heads, tells nothing.
        if last in inside and first not in inside:
            if isinstance(module, nn.ModuleDict):
                return {module: f"head: in {place!r}, as the last layer is"}
            if isinstance(module, nn.ModuleList):
                ends = (list(_leaves(member))[-1:] for member in module)
                found |= {layer: _untaken(layer) for end in ends for _, layer in end if _gives(layer, model)}
    for layer in _ends_of_fellows(model, last):
        if _gives(layer, model):
            found.setdefault(layer, _untaken(layer))
    for beside, layer in layers.items():
        alike = beside.rpartition(".")[0] == path.rpartition(".")[0] and type(layer) is type(last)
        if alike and _widths(layer)[0] == _widths(last)[0] and _gives(layer, model):
            found.setdefault(layer, _untaken(layer))
    return found


def _ends_of_fellows(model: nn.Module, last: nn.Module) -> Iterator[nn.Module]:
    """Last layers of modules beside one that ends with `last` and take what it takes, as towers of tasks do."""
    for around in model.modules():
        members = [list(_leaves(child)) for child in around.children()]
        holds = next((leaves for leaves in members if any(layer is last for _, layer in leaves)), None)
        if holds is None or isinstance(around, nn.Sequential):  # Of which each member feeds the next.
            continue
        for leaves in members:
            if leaves and leaves is not holds and _widths(leaves[0][1])[0] == _widths(holds[0][1])[0]:
                yield leaves[-1][1]


def _names_head(path: str) -> bool:
    """Whether a module's own name is one that heads have, and none around it is an attention's."""
    *around, own = (re.sub(r"(?<=[a-z0-9])(?=[A-Z])", "_", name).lower() for name in path.split("."))
    words = re.split(r"[_\d]+", own)
    if any("att" in name for name in (*around, own)):
        return False
    return any(re.fullmatch(r"heads?|classifiers?|preds?|predict(s|or|ors|ion|ions)?", word) for word in words)


def _widths(layer: nn.Module) -> tuple[set[int], int | None]:
    """How many numbers, or channels, a layer takes and gives, where it says so."""
    found = {getattr(layer, name) for name in _TAKES if isinstance(getattr(layer, name, None), int)}
    if isinstance(shape := getattr(layer, "normalized_shape", None), tuple):
        found.add(shape[-1])
    return found, getattr(layer, "out_features", getattr(layer, "out_channels", None))


def _gives(layer: nn.Module, model: nn.Module) -> bool:
    """Whether a layer gives what no layer of the model takes, so that it is an output."""
    given = _widths(layer)[1]
    return given is not None and all(given not in _widths(module)[0] for module in model.modules())


def _untaken(layer: nn.Module) -> str:
    return f"head: no layer takes its {_widths(layer)[1]} outputs"


def _leaves(model: nn.Module) -> Iterator[tuple[str, nn.Module]]:
    """The layers in the order of registration; an attention is one layer, not its projections."""
    inside: set[int] = set()
    for name, module in model.named_modules():
        if isinstance(module, _LAYERS) and id(module) not in inside:
            inside.update(map(id, module.modules()))
            yield name, module


def _parameters_of(modules: Modules | None) -> set[int]:
    if modules is None:
        return set()
    if isinstance(modules, Mapping):
        modules = modules.values()
    found = [modules] if isinstance(modules, nn.Module) else list(modules)
    for module in found:
        if not isinstance(module, nn.Module):
            raise TypeError(f"heads and inputs are modules, not {type(module).__name__}")
    return {id(parameter) for module in found for parameter in module.parameters()}


def _routes(model: nn.Module, heads: Modules | None, inputs: Modules | None) -> tuple[list[Route], dict[str, Tensor]]:
    """Where every parameter goes, and the parameters by name."""
    all_ids = {id(parameter) for parameter in model.parameters()}
    given: dict[int, str] = {}
    for option, modules, reason in (("inputs", inputs, "first layer, as given"), ("heads", heads, "head, as given")):
        found = _parameters_of(modules)
        if not found <= all_ids:
            raise ValueError(f"{option} holds parameters that are not the model's")
        given |= dict.fromkeys(found, reason)
    if inputs is None:
        given = dict.fromkeys(_first(model), "first layer") | given
    if heads is None:
        for head, reason in find_heads(model).items():
            given |= dict.fromkeys(_parameters_of(head), reason)
    chosen: dict[int, Route] = {}
    owners: dict[str, Tensor] = {}
    for name, place in _places(model):
        parameter = place.parameter
        if isinstance(parameter, nn.parameter.UninitializedParameter):
            raise ValueError(f"{name} has no shape yet: run one batch through the model before muon_for")
        if parameter.is_complex():
            raise TypeError(f"{name} is complex; only dense real parameters are supported")
        if getattr(place.module, "sparse", False):
            raise TypeError(f"{name} has sparse gradients: make the embedding with sparse=False")
        optimizer, reason, split = _route(place, given.get(id(parameter), ""))
        known = chosen.get(id(parameter))
        if known is None:
            owners[name] = parameter
            chosen[id(parameter)] = Route(name, tuple(parameter.shape), optimizer, reason, split)
        elif known.optimizer == "muon" and optimizer == "adamw":
            chosen[id(parameter)] = known._replace(optimizer=optimizer, reason=reason, split=1)
    return list(chosen.values()), owners


class _Place(NamedTuple):
    """A parameter, the layer whose tensor it makes, both their names in that layer, and by which parametrisations."""

    parameter: Tensor
    module: nn.Module
    layer: str
    tensor: str
    made_by: tuple[str, ...]


def _places(model: nn.Module) -> Iterator[tuple[str, _Place]]:
    """All parameters by name, in the order of registration, where they belong."""
    for prefix, module in model.named_modules():
        for own, parameter in module.named_parameters(recurse=False):
            owner, path, tensor = module, prefix, own
            made_by: tuple[str, ...] = ()
            before, mark, within = f".{prefix}.".partition(".parametrizations.")
            if mark:  # layer.parametrizations.weight.original0
                path, tensor = before.strip("."), within.split(".")[0]
                owner = model.get_submodule(path)
                made_by = tuple(type(each).__name__ for each in getattr(owner.parametrizations, tensor))
            for suffix in _OLD_NORMS:
                tensor = tensor.removesuffix(suffix)
            name = f"{prefix}.{own}" if prefix else own
            yield name, _Place(parameter, owner, path.rpartition(".")[2], tensor, made_by)


def _first(model: nn.Module) -> set[int]:
    """The weights that the model's input is multiplied with, or nothing where an embedding is the input."""
    layers = {id(layer) for _, layer in _leaves(model)}
    for module in model.modules():
        if isinstance(module, nn.Embedding | nn.EmbeddingBag):
            break
        if id(module) in layers:
            own = [place for _, place in _places(module) if place.module is module]
            if isinstance(module, nn.RNNBase | nn.RNNCellBase):
                # Not a cell's or layer's own state, nor what later layers of it are given.
                firsts = ("weight_ih", "weight_ih_l0", "weight_ih_l0_reverse")
                own = [place for place in own if place.tensor in firsts]
            return {id(place.parameter) for place in own}
    return set()


def _route(place: _Place, given: str) -> tuple[str, str, int]:
    """Optimizer, reason and number of blocks of one parameter; `given` is why it is a head's or the first layer's."""
    parameter, module, own = place.parameter, place.module, place.tensor
    rows, columns = (parameter.shape[0], parameter[0].numel()) if parameter.ndim and len(parameter) else (1, 1)
    known = isinstance(module, _LAYERS)
    reason = ""
    if given.startswith("head"):
        reason = given
    elif isinstance(module, nn.Embedding | nn.EmbeddingBag):
        reason = "embedding"
    elif isinstance(module, _NORMS):
        reason = "normalisation"
    elif parameter.ndim < 2:
        reason = "vector" if parameter.ndim else "scalar"
    elif given:
        reason = given
    elif own.startswith("bias"):
        reason = "bias"
    elif not set(place.made_by) <= set(_DIRECTIONS):
        reason = f"parametrised by {', '.join(place.made_by)}"
    elif min(rows, columns) < 2:
        reason = "single row or column"
    elif isinstance(module, _CONVOLUTIONS) and module.groups > 1:
        reason = "grouped convolution"
    elif not known and any(word in own.lower() for word in ("embed", "token", "pos")):
        reason = "embedding, by its name"
    elif not known and parameter.ndim > 2:
        reason = "no known layer"
    if reason:
        return "adamw", reason, 1
    split, why = 1, ""
    if isinstance(module, nn.MultiheadAttention) and own == "in_proj_weight":
        split = 3
    elif own.startswith(("weight_ih", "weight_hh")):
        split = next((gates for kind, gates in _GATES.items() if isinstance(module, kind)), 1)
    elif _names_qkv(place.layer):
        if isinstance(module, nn.Linear | nn.Conv1d | nn.Conv2d) and rows == 3 * columns:
            split, why = 3, f" by the name {place.layer!r}"
        elif place.layer != "in_proj" and rows != columns:  # Others are called in_proj as well.
            return "adamw", _FUSED, 1
    what = "hidden convolution" if isinstance(module, _CONVOLUTIONS) else "hidden matrix"
    return "muon", what if split == 1 else f"{what}, {split} blocks{why}", split


def _names_qkv(layer: str) -> bool:
    return "qkv" in layer.lower() or layer in ("in_proj", "c_attn")


def _split(routes: list[Route], splits: Mapping[str, int]) -> list[Route]:
    """The same with the caller's numbers of blocks."""
    for key, split in splits.items():
        if not isinstance(split, int) or isinstance(split, bool) or split < 1:
            raise ValueError(f"splits[{key!r}] must be a whole number of blocks of at least 1, not {split!r}")
        names = [
            route.name
            for route in routes
            if (route.optimizer == "muon" or route.reason == _FUSED)
            and any(fnmatchcase(route.name, form) for form in (key, f"{key}.*"))
        ]
        if not names:
            raise ValueError(f"splits[{key!r}] names no parameter that goes to Muon: see muon_for(…).routing()")
        for i, route in enumerate(routes):
            if route.name in names:
                if route.shape[0] % split:
                    raise ValueError(f"splits[{key!r}] does not divide the {route.shape[0]} rows of {route.name}")
                what = "fused projection, whole" if route.reason == _FUSED else route.reason.partition(",")[0]
                reason = what if split == 1 else f"{what.partition(',')[0]}, {split} blocks, as given"
                routes[i] = route._replace(optimizer="muon", split=split, reason=reason)
    return routes
