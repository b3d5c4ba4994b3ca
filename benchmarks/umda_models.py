"""The models that benchmarks/umda.py compares, each no larger than UMDA, and the one way in which all are trained.

All are built of the same layer (linear, ReLU, layer norm, dropout) and have two of them between the inputs and a linear
head, as UMDA has: one in each view's encoder, one in the branching. What is not UMDA puts the views side by side, bags
after a layer for their instances and a pooling for each view.
"""

import importlib.util
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cache
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

import motet
from motet import problems
from motet.losses import task_loss
from motet.losses.masked import labelled
from motet.methods import SelfGuided
from motet.metrics import METRICS
from motet.nn import (
    PLE,
    UMDA,
    GatedAttentionPooling,
    HardSharing,
    MeanPooling,
    MMoE,
    SharedModel,
    TransformerPooling,
)
from motet.nn.bag import Bag
from motet.nn.sharing import Sharing
from motet.optim import TaskRates
from motet.problems import mfeat
from motet.problems.base import Data, Split, Task
from motet.problems.views import Views

Outputs = tuple[dict[str, Tensor], dict[str, Any]]
Tasks = Sequence[Task]
EXPERTS = 4
"""Of MMoE. The paper's 8 would leave each half as wide at equal parameters."""
PLANS = {"mfeat": (20, 5, 64), "yeast-views": (16, 4, 64), "musk": (15, 5, 8), "mnist-bags": (12, 4, 32)}
"""Epochs, patience and rows in a batch: short, for there are some 600 trainings. Other problems have their own."""
MEASURES = ("accuracy", "auroc", "f1", "r2")
"""Means over the tasks that have them: top-1 accuracy, AUROC and F1 of binary tasks, R² of regressions."""
POOLINGS: dict[str, Callable[[int], nn.Module]] = {
    "attention": GatedAttentionPooling,
    "mean": MeanPooling,
    "transformer": lambda width: TransformerPooling(width, heads=2),
}


def layer(inputs: int, width: int, dropout: float) -> nn.Sequential:
    return nn.Sequential(nn.Linear(inputs, width), nn.ReLU(), nn.LayerNorm(width), nn.Dropout(dropout))


def bags_of(views: Views) -> set[str]:
    return {name for name, view in views.views.items() if isinstance(view, Bag)}


class SideBySide(nn.Module):
    """All views of a row as one vector: bags are pooled, what is missing is zeros, the mean of standardised data."""

    def __init__(self, inputs: Views, width: int, dropout: float, pooling: str) -> None:
        super().__init__()
        self.names, bags = tuple(inputs.views), bags_of(inputs)
        own = {name: layer(inputs.widths[name], width, dropout) for name in self.names if name in bags}
        self.layers = nn.ModuleList(own.get(name, nn.Identity()) for name in self.names)
        self.poolings = nn.ModuleList(
            POOLINGS[pooling](width) if name in bags else nn.Identity() for name in self.names
        )
        self.out_features = sum(width if name in bags else inputs.widths[name] for name in self.names)

    def forward(self, inputs: Views) -> Tensor:
        parts = []
        for name, own, pooling in zip(self.names, self.layers, self.poolings, strict=True):
            view = inputs.views[name]
            if isinstance(view, Bag):
                bag = view.flat()
                parts.append(pooling(own(bag.x), offsets=bag.offsets)[0])
            else:
                parts.append(view.masked_fill(inputs.missing(name)[:, None], 0))
        return torch.cat(parts, dim=1)


class Shared(nn.Module):
    """Views side by side, a common layer unless the trunk has its own, and a way of sharing."""

    def __init__(self, front: SideBySide, common: nn.Module, sharing: Sharing, tasks: Tasks, width: int) -> None:
        super().__init__()
        self.front, self.common = front, common
        self.model = SharedModel(sharing, {task.name: nn.Linear(width, task.outputs) for task in tasks})

    def forward(self, inputs: Views) -> Outputs:
        return self.model.explain(self.common(self.front(inputs)))


class Whole(nn.Module):
    """UMDA with or without some of its blocks."""

    def __init__(self, inputs: Views, tasks: Tasks, width: int, dropout: float, **options: Any) -> None:
        super().__init__()
        outputs = {task.name: task.outputs for task in tasks}
        self.umda = UMDA(inputs.widths, outputs, bags_of(inputs), dim=width, dropout=dropout, **options)

    def forward(self, inputs: Views) -> Outputs:
        return self.umda(inputs.views)

    def trunk(self) -> list[nn.Parameter]:
        """All between the inputs and z, which the heads take."""
        blocks = (self.umda.encoders, self.umda.poolings, self.umda.fuse, self.umda.attention)
        return [parameter for block in blocks if block is not None for parameter in block.parameters()]


class Alone(nn.Module):
    """torchmil's gated ABMIL for one task, on the instances with their views side by side."""

    def __init__(self, inputs: Views, tasks: Tasks, width: int, dropout: float) -> None:
        super().__init__()
        from torchmil.models import ABMIL

        (self.task,) = tasks
        features = sum(inputs.widths.values())
        self.model = ABMIL((features,), att_dim=width, gated=True, feat_ext=layer(features, width, dropout))

    def forward(self, inputs: Views) -> Outputs:
        bags = [view.padded() for view in inputs.views.values()]
        found = self.model(torch.cat([bag.x for bag in bags], dim=-1), bags[0].mask)
        return {self.task.name: found[:, None]}, {"regularisers": {}}


@dataclass(frozen=True)
class Arm:
    """One way of making a model of a width, and how it is trained.

    Attributes:
        build: (inputs, tasks, width, dropout, hierarchy) → model.
        step: What widths are multiples of.
        bags: Whether it is for problems with bags alone.
        single: Whether each task has a model of its own.
        regularised: Whether UMDA's penalties are added.
        guided: Whether `SelfGuided("progress")` weighs the tasks and their learning rates.
    """

    build: Callable[[Views, Tasks, int, float, Any], nn.Module]
    step: int = 1
    bags: bool = False
    single: bool = False
    regularised: bool = False
    guided: bool = False


def sharing(kind: str, pooling: str = "attention", **options: Any) -> Arm:
    def build(inputs: Views, tasks: Tasks, width: int, dropout: float, hierarchy: Any) -> nn.Module:  # noqa: ARG001
        names = [task.name for task in tasks]
        front = SideBySide(inputs, width, dropout, pooling)
        common = layer(front.out_features, width, dropout)

        def expert() -> nn.Module:
            return layer(width, width, dropout)

        ways: dict[str, Callable[[], Sharing]] = {
            "hard": lambda: HardSharing(expert(), names),
            "mmoe": lambda: MMoE(expert, names, EXPERTS),
            "ple": lambda: PLE([expert, expert], names),
        }
        return Shared(front, common, ways[kind](), tasks, width)

    return Arm(build, **options)


def umda(regularised: bool = True, guided: bool = False, **changes: Any) -> Arm:
    def build(inputs: Views, tasks: Tasks, width: int, dropout: float, hierarchy: Any) -> nn.Module:
        options = changes if "branching" in changes else {"hierarchy": hierarchy} | changes
        return Whole(inputs, tasks, width, dropout, **options)

    step = 1 if changes.get("attention") is False else 4
    return Arm(build, step, bags="pooling" in changes, regularised=regularised, guided=guided)


ARMS: dict[str, Arm] = {
    "hard": sharing("hard"),
    "mmoe": sharing("mmoe"),
    "ple": sharing("ple"),
    "mean": sharing("hard", "mean", bags=True),
    "transformer": sharing("hard", "transformer", step=2, bags=True),
    "abmil": Arm(lambda inputs, tasks, width, dropout, _: Alone(inputs, tasks, width, dropout), bags=True, single=True),
    "umda": umda(),
    "umda-attention": umda(attention=False),
    "umda-branching": umda(branching=False),
    "umda-graph": umda(pooling="attention"),
    "umda-regularisers": umda(regularised=False),
    "umda+guided": umda(guided=True),
    "umda+concat": umda(fuse="concat"),
}
"""By name: a minus leaves a block out, a plus adds one. The last is no ablation but the other way to fuse views."""
SIMPLE = ("hard", "mmoe", "ple", "mean", "transformer", "abmil")


def skipped(arm: str, data: Data) -> str:
    """Why an arm has nothing to do on a problem, or nothing."""
    chosen, views = ARMS[arm], data.train.inputs
    assert isinstance(views, Views)
    if chosen.bags and not bags_of(views):
        return "there are no bags"
    if arm == "umda+concat" and len(views.views) < 2:
        return "there is one view"
    if arm == "abmil":
        if importlib.util.find_spec("torchmil") is None:
            return "torchmil is not installed"
        bags = [view.flat().sizes for view in views.views.values() if isinstance(view, Bag)]
        if len(bags) < len(views.views) or any(not torch.equal(bags[0], other) for other in bags):
            return "the views are not of the same instances"
        if any(task.kind == "multiclass" for task in data.tasks):
            return "torchmil's model has one output"
    return ""


def hierarchy(problem: str, data: Data) -> dict[str, str | None] | None:
    """Which task follows from which, where that is known."""
    if problem != "mfeat":
        return None
    return {task.name: mfeat.HIERARCHY.get(task.name) for task in data.tasks}


@cache
def loaded(problem: str, seed: int) -> Data:
    return problems.get(problem).load(seed)


def build(problem: str, arm: str, data: Data, tasks: Tasks, width: int, dropout: float) -> nn.Module:
    inputs = data.train.inputs
    assert isinstance(inputs, Views)
    return ARMS[arm].build(inputs, tasks, width, dropout, hierarchy(problem, data))


def parameters(problem: str, arm: str, data: Data, width: int) -> int:
    """All that are trained, of all models of the arm."""
    groups = [[task] for task in data.tasks] if ARMS[arm].single else [data.tasks]
    with torch.random.fork_rng(devices=[]):
        models = [build(problem, arm, data, group, width, 0.0) for group in groups]
    return sum(parameter.numel() for model in models for parameter in model.parameters())


@cache
def matched(problem: str, arm: str, width: int, seed: int) -> tuple[int, int, int]:
    """The largest width with no more parameters than UMDA has at this one; its parameters, and UMDA's."""
    data = loaded(problem, seed)
    allowed, step = parameters(problem, "umda", data, width), ARMS[arm].step
    low, high = 1, 2
    while parameters(problem, arm, data, high * step) <= allowed:
        low, high = high, 2 * high
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (middle, high) if parameters(problem, arm, data, middle * step) <= allowed else (low, middle)
    found = parameters(problem, arm, data, low * step)
    if found > allowed:
        raise ValueError(f"{arm} has more parameters than UMDA of width {width} on {problem} at any width")
    return low * step, found, allowed


@dataclass(frozen=True)
class Setting:
    lr: float
    width: int
    dropout: float


def plan(problem: str) -> tuple[int, int, int]:
    usual = problems.get(problem).training
    return PLANS.get(problem, (usual.epochs, usual.patience, usual.batch_size))


def task_losses(outputs: dict[str, Tensor], split: Split, rows: Tensor, tasks: Sequence[Task]) -> dict[str, Tensor]:
    """Of the tasks that have a label in this batch."""
    found = {task.name: task_loss(task, outputs[task.name], split.targets[task.name][rows]) for task in tasks}
    return {task: loss for task, loss in found.items() if loss is not None}


def judged(task: Task, output: Tensor, target: Tensor) -> dict[str, float]:
    """The measures of one task, and its score in validation."""
    if task.kind == "regression":
        rows = labelled(task, target)
        error = (output[rows, 0] - target[rows]).square().sum() / (target[rows] - target[rows].mean()).square().sum()
        return {"r2": 1 - float(error), "score": 1 - float(error)}
    rows = labelled(task, target)
    if task.kind == "multiclass":
        accuracy = float((output[rows].argmax(1) == target[rows]).double().mean())
        return {"accuracy": accuracy, "score": accuracy}
    chosen, true = output[rows, 0] > 0, target[rows] > 0.5
    positive = float(chosen.sum() + true.sum())
    found = {
        "accuracy": float((chosen == true).double().mean()),
        "f1": 2 * float((chosen & true).sum()) / positive if positive else math.nan,
    }
    auroc = METRICS["auroc"](output, target, task)
    return found | {"auroc": auroc, "score": auroc}


def evaluate(model: nn.Module, split: Split, tasks: Tasks) -> tuple[dict[str, dict[str, float]], float, dict[str, Any]]:
    """The measures of each task, the sum of losses, and what the model has to tell."""
    model.eval()
    with torch.no_grad():
        outputs, info = model(split.inputs)
        losses = task_losses(outputs, split, torch.arange(len(split)), tasks)
    return (
        {task.name: judged(task, outputs[task.name], split.targets[task.name]) for task in tasks},
        sum(map(float, losses.values())),
        info,
    )


def means(found: dict[str, dict[str, float]]) -> dict[str, float]:
    """Over the tasks that have a measure: a class that is not in a part has no AUROC."""
    listed = {name: [row[name] for row in found.values() if name in row] for name in (*MEASURES, "score")}
    listed = {name: [value for value in values if not math.isnan(value)] for name, values in listed.items()}
    return {name: float(np.mean(values)) for name, values in listed.items() if values}


def fit(
    problem: str, arm: str, data: Data, tasks: Sequence[Task], width: int, setting: Setting, seed: int
) -> tuple[nn.Module, int]:
    """The model of the epoch that is best in validation, and its number."""
    chosen, (epochs, patience, batch) = ARMS[arm], plan(problem)
    torch.manual_seed(seed)
    model = build(problem, arm, data, tasks, width, setting.dropout)
    optimizer = torch.optim.AdamW(model.parameters(), lr=setting.lr, weight_decay=0.01, fused=True)
    balancer = motet.Balancer(SelfGuided("progress"), route="features") if chosen.guided else None
    rates = None
    if balancer is not None:
        assert isinstance(model, Whole)
        rates = TaskRates(optimizer, dict(zip(model.umda.tasks, model.umda.heads, strict=True)))
    order = torch.Generator().manual_seed(seed)
    torch.manual_seed(seed)
    best, best_epoch, kept, step = (-math.inf, -math.inf), 0, {}, 0
    total = epochs * math.ceil(len(data.train) / batch)
    for epoch in range(1, epochs + 1):
        model.train()
        for rows in torch.randperm(len(data.train), generator=order).split(batch):
            outputs, info = model(data.train.inputs[rows])
            losses = task_losses(outputs, data.train, rows, tasks)
            optimizer.zero_grad()
            penalty = None
            if chosen.regularised:
                assert isinstance(model, Whole)
                penalty = model.umda.regularisation(info, step, total)
            step += 1
            if not losses:
                continue
            if balancer is None or rates is None:
                loss = torch.stack(list(losses.values())).sum()
                (loss if penalty is None else loss + penalty).backward()
            else:
                if penalty is not None and penalty.requires_grad:
                    penalty.backward(retain_graph=True)
                balancer.backward(losses, features=info["features"])
                factors = balancer.learning_rates
                assert factors is not None
                rates.set(dict(zip(balancer.tasks, factors.tolist(), strict=True)))
            nn.utils.clip_grad_norm_(model.parameters(), 1.0)
            optimizer.step()
        found, loss_there, _ = evaluate(model, data.validation, tasks)
        # Small validation parts have many ties, and the loss breaks them.
        reached = (round(means(found).get("score", -math.inf), 6), -loss_there)
        if reached > best:
            best, best_epoch = reached, epoch
            kept = {name: value.clone() for name, value in model.state_dict().items()}
        elif epoch - best_epoch >= patience:
            break
    if kept:
        model.load_state_dict(kept)
    return model, best_epoch
