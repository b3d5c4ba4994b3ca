"""Which parameters of a model are hidden matrices, for Muon, and which are not, and why."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping
from fnmatch import fnmatchcase
from typing import NamedTuple

from torch import Tensor, nn

Modules = nn.Module | Mapping[str, nn.Module] | Iterable[nn.Module]

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
_FUSED = "fused projection of unknown blocks: name it in splits for Muon"


class Route(NamedTuple):
    """Where one parameter goes, and why."""

    name: str
    shape: tuple[int, ...]
    optimizer: str
    """"muon" or "adamw"."""
    reason: str
    split: int = 1


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


def routes_of(model: nn.Module, heads: Modules | None, inputs: Modules | None) -> tuple[list[Route], dict[str, Tensor]]:
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


def split_up(routes: list[Route], splits: Mapping[str, int]) -> list[Route]:
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
