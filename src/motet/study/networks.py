"""The models that a study trains on any problem: hard sharing, another sharing architecture, or UMDA."""

from collections.abc import Callable, Iterable, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from motet.nn.bag import Bag
from motet.nn.masking import segment_mean
from motet.nn.sharing import CGC, PLE, CrossStitch, DSelectK, MMoE, SharedModel, Sharing
from motet.nn.umda import UMDA, View
from motet.problems.base import Data, Model, Problem, Training, mlp
from motet.problems.encoder import ViewEncoder, view_encoder
from motet.problems.views import Inputs, Views

VIEW = "inputs"
"""What the one view of a plain tensor is called."""

_LAYERS = (nn.Linear, nn.modules.conv._ConvNd)


class ViewModel(nn.Module):
    """UMDA on a problem's inputs. ``forward`` gives the features and every task's output, as `Model` does.

    Args:
        umda: With a view for each of `Views`, or the one view `VIEW` of a tensor.
    """

    def __init__(self, umda: UMDA) -> None:
        super().__init__()
        self.umda = umda
        self.tasks = umda.tasks

    @property
    def heads(self) -> nn.ModuleList:
        """One a task."""
        return self.umda.heads

    @property
    def trunk(self) -> nn.ModuleList:
        """All that lies below the features. Not registered, since it is in ``umda`` already."""
        parts = (self.umda.encoders, self.umda.poolings, self.umda.fuse, self.umda.attention)
        return nn.ModuleList(part for part in parts if part is not None)

    def forward(self, inputs: Inputs) -> tuple[Tensor, dict[str, Tensor]]:
        """N rows → features (N, D), {task: (N, outputs)}."""
        outputs, info = self.explain(inputs)
        return info["features"], outputs

    def explain(self, inputs: Inputs) -> tuple[dict[str, Tensor], dict[str, Any]]:
        """The outputs, and all that UMDA tells of them."""
        outputs: dict[str, Tensor]
        outputs, info = self.umda(inputs.views if isinstance(inputs, Views) else {VIEW: inputs})
        return outputs, info


Network = Model | SharedModel | ViewModel
"""What a study trains: each has ``trunk``, ``heads`` and ``tasks``, and gives features and outputs."""


def shared_of(model: Network) -> list[nn.Parameter]:
    """The parameters that tasks share, and a method acts on: of UMDA those below the features."""
    if isinstance(model, SharedModel):
        return model.trunk.shared_parameters()
    return list(model.trunk.parameters())


def gates_of(model: Network) -> list[nn.Module]:
    """Modules that mix experts: small maps to a choice, which belong with the heads."""
    if not isinstance(model, SharedModel):
        return []
    return [module for name, module in model.trunk.named_modules() if name.rpartition(".")[2] in ("gates", "common")]


def inputs_of(model: Network) -> list[nn.Module] | None:
    """The layers that take the inputs; None where they are found by their order."""
    if isinstance(model, ViewModel):
        return list(model.umda.encoders)
    if isinstance(model, Model):
        return _first_layers(model.trunk) if isinstance(model.trunk, ViewEncoder) else None
    trunk: Any = model.trunk
    if isinstance(trunk, CrossStitch):
        firsts: Iterable[nn.Module] = (column[0] for column in trunk.columns)
    elif isinstance(trunk, PLE):
        firsts = [*trunk.levels[0].shared, *(expert for group in trunk.levels[0].own for expert in group)]
    else:
        firsts = trunk.experts
    return [layer for expert in firsts for layer in _first_layers(expert)]


def hard(problem: Problem, data: Data, seed: int, training: Training) -> Model:
    """The problem's own model."""
    return problem.model(data, seed, training)


def sharing(
    name: str, options: dict[str, Any], problem: Problem, data: Data, seed: int, training: Training
) -> SharedModel:
    """Experts, columns or levels of the problem's trunk, with the heads of its own model.

    The first expert or column starts as the trunk of hard sharing does with the same seed, and so do the heads.

    Raises:
        ValueError: if gates can't see this problem's inputs, or an option does not fit.
    """
    base = problem.model(data, seed, training)
    tasks, inputs = list(base.tasks), data.train.inputs
    with torch.random.fork_rng(devices=[]):
        # Another stream than that of the model whose parts are taken over: seeds of a study have 32 bits.
        torch.manual_seed(seed + 2**32)

        def trunks(count: int) -> list[nn.Module]:
            return [base.trunk, *(_trunk(problem, inputs, training) for _ in range(count - 1))]

        found: Sharing
        if name == "cross-stitch":
            found = CrossStitch(_sources(map(split, trunks(len(tasks)))), tasks, options["alpha"])
        elif name in ("ple", "cgc"):
            shared, own = options["shared"], options["own"]
            given = trunks(shared + own * len(tasks))
            gate = _gate(name, problem, inputs)
            if name == "ple":
                found = PLE(_sources(map(split, given)), tasks, shared, own, gate=gate)
            else:
                found = CGC(_source(given), tasks, shared, own, gate=gate)
        elif name == "mmoe":
            gate = _gate(name, problem, inputs)
            found = MMoE(_source(trunks(options["experts"])), tasks, options["experts"], gate=gate)
        else:
            static = options["static"]
            gate = None if static else _gate(name, problem, inputs)
            experts = _source(trunks(options["experts"]))
            found = DSelectK(experts, tasks, options["experts"], options["k"], gate=gate, static=static)
    return SharedModel(found, dict(zip(tasks, base.heads, strict=True)))


def umda(options: dict[str, Any], problem: Problem, data: Data, seed: int, training: Training) -> ViewModel:
    """UMDA with the views and bags of the inputs; a tensor is one view, encoded by the problem's trunk if it has one.

    Raises:
        ValueError: if an option does not fit, as heads that do not divide the width.
    """
    inputs = data.train.inputs
    views: dict[str, View]
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        if isinstance(inputs, Views):
            views = dict(inputs.widths)
            bags = {name for name, view in inputs.views.items() if isinstance(view, Bag)}
        else:
            bags = set()
            width = inputs[0].numel()
            if problem.trunk is not None:
                views = {VIEW: (problem.trunk(inputs, training), training.width)}
            else:
                views = {VIEW: width if inputs.ndim == 2 else (nn.Flatten(), width)}
        tasks = {task.name: task.outputs for task in data.tasks}
        if options["heads"] is None:
            options = options | {"heads": max(heads for heads in (1, 2, 3, 4) if training.width % heads == 0)}
        return ViewModel(UMDA(views, tasks, bags, dim=training.width, dropout=training.dropout, **options))


def split(trunk: nn.Module) -> list[nn.Module]:
    """A trunk as stages, each of which begins with a layer that has weights; what can't be told apart is one stage."""
    if isinstance(trunk, ViewEncoder):
        # Each view's own layers and poolings, and then the common layer: the encoder gives its views side by side.
        common, trunk.fuse = trunk.fuse, nn.Sequential()
        return [trunk, common]
    stages: list[list[nn.Module]] = [[]]
    weighted = False
    for layer in _members(trunk):
        has = any(isinstance(module, _LAYERS) for module in layer.modules())
        if has and weighted:
            stages.append([])
        weighted = weighted or has
        stages[-1].append(layer)
    return [nn.Sequential(*layers) for layers in stages]


class ViewGate(nn.Module):
    """What gates see of `Views`: vectors as they are, bags by their mean, zeros where a row lacks a view.

    Args:
        widths: D of each view.
    """

    def __init__(self, widths: dict[str, int]) -> None:
        super().__init__()
        self.out_features = sum(widths.values())

    def forward(self, inputs: Views) -> Tensor:
        """N rows → (N, ΣD)."""
        parts = []
        for name, view in inputs.views.items():
            if isinstance(view, Bag):
                bag = view.flat()
                assert bag.offsets is not None  # by what flat() means
                parts.append(segment_mean(bag.x, bag.offsets))
            else:
                parts.append(view.masked_fill(inputs.missing(name)[:, None], 0))
        return torch.cat(parts, 1)


def _gate(name: str, problem: Problem, inputs: Inputs) -> nn.Module | None:
    if isinstance(inputs, Views):
        return ViewGate(inputs.widths)
    if inputs.ndim == 2:
        return None
    if problem.trunk is not None:
        raise ValueError(
            f"{name} has gates that look at the inputs, and those of {problem.name} are {tuple(inputs.shape[1:])}, as "
            "images: gates need a network of their own there, which a problem does not have. dselect-k(static=true) "
            "and cross-stitch need none, or use motet.nn with gate= in a loop of your own"
        )
    # The usual trunk flattens its inputs too.
    gate = nn.Flatten()
    gate.out_features = inputs[0].numel()  # type: ignore[assignment]
    return gate


def _trunk(problem: Problem, inputs: Inputs, training: Training) -> nn.Module:
    if problem.trunk is not None:
        return problem.trunk(inputs, training)
    return view_encoder(inputs, training) if isinstance(inputs, Views) else mlp(inputs, training)


def _source(modules: Iterable[nn.Module]) -> Callable[[], nn.Module]:
    """A function that hands out one after another."""
    rest = iter(modules)
    return lambda: next(rest)


def _sources(split_up: Iterable[Sequence[nn.Module]]) -> list[Callable[[], nn.Module]]:
    """One for each stage."""
    return [_source(stage) for stage in zip(*split_up, strict=True)]


def _members(module: nn.Module) -> Iterable[nn.Module]:
    """The members of nested Sequentials in order."""
    if not isinstance(module, nn.Sequential):
        return [module]
    return [member for child in module for member in _members(child)]


def _first_layers(module: nn.Module) -> list[nn.Module]:
    """The first layer with weights; of several views that of each."""
    parts = module.layers if isinstance(module, ViewEncoder) else [module]
    firsts = (next((m for m in part.modules() if isinstance(m, _LAYERS)), None) for part in parts)
    return [layer for layer in firsts if layer is not None]
