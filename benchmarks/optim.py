"""Time and memory of an optimizer's step: motet's optimizers beside torch's, as ratios in the same run.

python benchmarks/optim.py                              # 10M parameters in 12 square matrices, one CPU thread
python benchmarks/optim.py --parameters 1000000 --tensors 200 --rounds 30 --out optim.json
python benchmarks/optim.py --families muon --shapes unequal --clock cpu --rounds 3   # Newton–Schulz takes its time
"""

import argparse
import json
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path

import torch
from torch.optim import Optimizer

from motet.optim import APTSGD, APTAdamW, APTMuon
from timing import CLOCKS, medians

Maker = Callable[[list[torch.nn.Parameter]], Optimizer]
ADAMW: dict[str, Maker] = {
    "torch AdamW fused": lambda params: torch.optim.AdamW(params, fused=True),
    "torch AdamW foreach": lambda params: torch.optim.AdamW(params, foreach=True),
    "APTAdamW fixed β": lambda params: APTAdamW(params),
    "APTAdamW previous": lambda params: APTAdamW(params, beta_min=0.5),
    "APTAdamW momentum": lambda params: APTAdamW(params, beta_min=0.5, reference="momentum"),
    "APTAdamW previous, per tensor": lambda params: APTAdamW(params, beta_min=0.5, scope="tensor"),
    "APTAdamW A7": lambda params: APTAdamW(params, beta_min=0.5, rule="A7"),
    "APTAdamW previous, both moments": lambda params: APTAdamW(params, beta_min=0.5, adapt_second=True),
    "APTAdamW previous, foreach": lambda params: APTAdamW(params, beta_min=0.5, foreach=True),
}
SGD: dict[str, Maker] = {
    "torch SGD fused": lambda params: torch.optim.SGD(params, momentum=0.9, dampening=0.9, fused=True),
    "APTSGD fixed β": lambda params: APTSGD(params),
    "APTSGD previous": lambda params: APTSGD(params, beta_min=0.5),
    "APTSGD momentum": lambda params: APTSGD(params, beta_min=0.5, reference="momentum"),
}
MUON: dict[str, Maker] = {
    "torch Muon": lambda params: torch.optim.Muon(params),
    "APTMuon fixed β": lambda params: APTMuon(params),
    "APTMuon previous": lambda params: APTMuon(params, beta_min=0.5),
    "APTMuon momentum": lambda params: APTMuon(params, beta_min=0.5, reference="momentum"),
    "APTMuon A7": lambda params: APTMuon(params, beta_min=0.5, rule="A7"),
    "APTMuon preserve L1": lambda params: APTMuon(params, preserve=0.1, variant="L1"),
    "APTMuon preserve L2": lambda params: APTMuon(params, preserve=0.1, variant="L2"),
    "APTMuon previous, preserve L2": lambda params: APTMuon(params, beta_min=0.5, preserve=0.1, variant="L2"),
    "APTMuon preserve L6": lambda params: APTMuon(params, preserve=0.1, variant="L6"),
}
FAMILIES: dict[str, dict[str, Maker]] = {"adamw": ADAMW, "sgd": SGD, "muon": MUON}
"""The first row of a family is the one that its ratios are against."""
TASKS = 3
"""Whose gradients direction preservation is handed."""


def stepper(
    make: Maker, shapes: list[tuple[int, ...]], tasks: Sequence[torch.Tensor]
) -> tuple[Callable[[], object], Optimizer]:
    torch.manual_seed(0)
    params = [torch.nn.Parameter(torch.randn(shape)) for shape in shapes]
    for p in params:
        p.grad = torch.randn_like(p)
    optimizer = make(params)
    step: Callable[[], object] = optimizer.step
    if isinstance(optimizer, APTMuon) and optimizer.defaults["preserve"]:
        step = partial(step_with_tasks, optimizer, dict(zip(params, tasks, strict=True)))
    step()
    return step, optimizer


def step_with_tasks(optimizer: APTMuon, given: dict[torch.Tensor, torch.Tensor]) -> None:
    """A step that is handed the tasks' gradients first; making these is the training's cost, not the optimizer's."""
    optimizer.task_gradients(given)
    optimizer.step()


def shapes_of(parameters: int, tensors: int, kind: str) -> list[tuple[int, ...]]:
    """Square matrices, or in turns squares, tall and flat ones of three sizes, as a transformer's; about so many."""
    forms = [(1, 1)] if kind == "equal" else [(1, 1), (3, 1), (4, 1), (1, 4), (1, 2), (2, 2)]
    sides = [forms[i % len(forms)] for i in range(tensors)]
    unit = (parameters / sum(m * n for m, n in sides)) ** 0.5
    return [(round(m * unit), round(n * unit)) for m, n in sides]


def state_per_parameter(optimizer: Optimizer) -> float:
    """Numbers of state for each number of the parameters."""
    held = sum(x.numel() for state in optimizer.state.values() for x in state.values() if torch.is_tensor(x))
    return held / sum(p.numel() for group in optimizer.param_groups for p in group["params"])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--parameters", type=int, default=10_000_000)
    parser.add_argument("--tensors", type=int, default=12)
    parser.add_argument("--shapes", choices=("equal", "unequal"), default="equal")
    parser.add_argument("--families", nargs="+", choices=FAMILIES, default=list(FAMILIES))
    parser.add_argument("--rounds", type=int, default=15)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--clock", choices=CLOCKS, default="wall")
    parser.add_argument("--out", type=Path)
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    shapes = shapes_of(options.parameters, options.tensors, options.shapes)
    tasks = [torch.randn(TASKS, *shape) for shape in shapes]
    kinds = ", ".join(f"{shapes.count(shape)} of {shape[0]} × {shape[1]}" for shape in dict.fromkeys(shapes))
    print(f"{options.tensors} matrices: {kinds}; {options.threads} thread(s), torch {torch.__version__}")
    results = {}
    for family in options.families:
        made = {name: stepper(make, shapes, tasks) for name, make in FAMILIES[family].items()}
        times = medians({name: step for name, (step, _) in made.items()}, options.rounds, CLOCKS[options.clock])
        base = next(iter(times.values()))
        print(f"\n{'':34}{'ms':>8}{'ratio':>8}{'state':>8}")
        for name, seconds in times.items():
            held = state_per_parameter(made[name][1])
            results[name] = {"ms": 1e3 * seconds, "ratio": seconds / base, "state": held}
            print(f"{name:34}{1e3 * seconds:8.1f}{seconds / base:8.2f}{held:8.1f}", flush=True)
    if options.out:
        options.out.write_text(json.dumps({"options": vars(options) | {"out": None}, "rows": results}, indent=1))


if __name__ == "__main__":
    main()
