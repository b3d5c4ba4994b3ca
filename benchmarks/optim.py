"""Time and memory of an optimizer's step: motet's optimizers beside torch's, as ratios in the same run.

python benchmarks/optim.py                              # 10M parameters in 12 square matrices, one CPU thread
python benchmarks/optim.py --parameters 1000000 --tensors 200 --rounds 30 --out optim.json
"""

import argparse
import json
from collections.abc import Callable
from pathlib import Path

import torch
from torch.optim import Optimizer

from motet.optim import APTSGD, APTAdamW
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
FAMILIES: dict[str, dict[str, Maker]] = {"adamw": ADAMW, "sgd": SGD}
"""The first row of a family is the one that its ratios are against."""


def stepper(make: Maker, shapes: list[tuple[int, ...]]) -> tuple[Callable[[], object], Optimizer]:
    torch.manual_seed(0)
    params = [torch.nn.Parameter(torch.randn(shape)) for shape in shapes]
    for p in params:
        p.grad = torch.randn_like(p)
    optimizer = make(params)
    optimizer.step()
    return optimizer.step, optimizer


def state_per_parameter(optimizer: Optimizer) -> float:
    """Numbers of state for each number of the parameters."""
    held = sum(x.numel() for state in optimizer.state.values() for x in state.values() if torch.is_tensor(x))
    return held / sum(p.numel() for group in optimizer.param_groups for p in group["params"])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--parameters", type=int, default=10_000_000)
    parser.add_argument("--tensors", type=int, default=12)
    parser.add_argument("--families", nargs="+", choices=FAMILIES, default=list(FAMILIES))
    parser.add_argument("--rounds", type=int, default=15)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--clock", choices=CLOCKS, default="wall")
    parser.add_argument("--out", type=Path)
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    side = round((options.parameters / options.tensors) ** 0.5)
    shapes: list[tuple[int, ...]] = [(side, side)] * options.tensors
    print(f"{options.tensors} matrices of {side} × {side}, {options.threads} thread(s), torch {torch.__version__}")
    results = {}
    for family in options.families:
        made = {name: stepper(make, shapes) for name, make in FAMILIES[family].items()}
        times = medians({name: step for name, (step, _) in made.items()}, options.rounds, CLOCKS[options.clock])
        base = next(iter(times.values()))
        print(f"\n{'':34}{'ms':>8}{'ratio':>8}{'state':>8}")
        for name, seconds in times.items():
            held = state_per_parameter(made[name][1])
            results[name] = {"ms": 1e3 * seconds, "ratio": seconds / base, "state": held}
            print(f"{name:34}{1e3 * seconds:8.1f}{seconds / base:8.2f}{held:8.1f}")
    if options.out:
        options.out.write_text(json.dumps({"options": vars(options) | {"out": None}, "rows": results}, indent=1))


if __name__ == "__main__":
    main()
