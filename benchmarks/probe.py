"""Cost and fidelity of the probe route: steps as ratios to the plain sum's, and cosines to the exact method's update.

python benchmarks/probe.py                       # cost, one thread, CPU time
python benchmarks/probe.py --fidelity            # cosines instead
"""

import argparse
import warnings
from collections.abc import Callable, Sequence
from contextlib import nullcontext
from functools import partial

import torch
from torch import Tensor
from torch.nn.attention import SDPBackend, sdpa_kernel

import motet
from models import MODELS, Bench
from motet.routes.exact import Exact
from motet.routes.probe import WAYS, Probe
from motet.solvers.products import ProductGram
from timing import CLOCKS, medians

METHODS = ("mgda", "cagrad", "upgrad", "fair-grad", "nash-mtl")


def names(bench: Bench) -> list[str]:
    return [str(k) for k in range(len(bench.heads))]


def plain(bench: Bench) -> None:
    bench.zero()
    torch.stack(bench.forward()[1]).sum().backward()


class Stepper:
    """The probe route without a Balancer: weights from the estimate, one backward pass, one product."""

    def __init__(self, bench: Bench, method: str, fraction: int | None, ways: Sequence[str] = WAYS) -> None:
        self.bench, self.tasks = bench, names(bench)
        self.method, self.estimate = motet.methods.get(method), ProductGram()
        self.rows = torch.arange(len(self.tasks))
        self.shared, self.heads = list(bench.trunk.parameters()), list(bench.heads.parameters())
        self.probe = Probe(None if fraction is None else partial(self.losses, fraction), ways)

    def losses(self, fraction: int) -> dict[str, Tensor]:
        return dict(zip(self.tasks, self.bench.part(fraction), strict=True))

    def __call__(self) -> None:
        self.bench.zero()
        # Fused attention has no second derivative, so without a closure the step itself takes the plain kernel.
        with nullcontext() if self.probe.closure else sdpa_kernel(SDPBackend.MATH):
            losses = self.bench.forward()[1]
        self.estimate.begin(self.rows, len(self.rows))
        assert isinstance(self.method, motet.methods.GramMethod)
        weights = self.method.weights(self.estimate.gram())
        step = self.probe.step(losses, self.tasks, self.shared, self.heads)
        product = step.finish(weights, torch.ones_like(weights))
        step.gradients.write()
        self.estimate.update(weights, product)


def cost(options: argparse.Namespace) -> None:
    print("| model | K | way | time × plain |\n| --- | --- | --- | --- |")
    for model in options.models:
        for tasks in options.tasks:
            bench = MODELS[model](tasks)
            works: dict[str, Callable[[], object]] = {
                "plain sum": partial(plain, bench),
                "double backward": Stepper(bench, options.method, None),
                "closure, whole batch": Stepper(bench, options.method, 1),
                "closure, a quarter": Stepper(bench, options.method, 4),
                "closure, a quarter, differences": Stepper(bench, options.method, 4, WAYS[2:]),
            }
            times = medians(works, options.rounds, CLOCKS[options.clock])
            for way, seconds in times.items():
                print(f"| {model} | {tasks} | {way} | {seconds / times['plain sum']:.2f} |", flush=True)


def fidelity(options: argparse.Namespace) -> None:
    """Cosine of the update with one product a step to the exact method's, while the model learns its one batch."""
    print("| model | K | method | mean cosine | of the plain sum |\n| --- | --- | --- | --- | --- |")
    for model in options.models:
        for tasks in options.tasks:
            for name in METHODS:
                bench = MODELS[model](tasks)
                stepper = Stepper(bench, name, None)
                optimizer = torch.optim.SGD(bench.parameters(), lr=options.lr)
                ours, sums = [], []
                for _ in range(options.steps):
                    gradients = Exact(bench.forward()[1], stepper.shared)
                    expected = stepper.method.direction(gradients.rows)
                    stepper()
                    found = torch.cat([p.grad.reshape(-1) for p in stepper.shared if p.grad is not None])
                    ours.append(torch.cosine_similarity(found, expected, dim=0))
                    sums.append(torch.cosine_similarity(gradients.rows.sum(0), expected, dim=0))
                    optimizer.step()
                late = options.steps // 5
                columns = " | ".join(f"{float(torch.stack(x[late:]).mean()):.3f}" for x in (ours, sums))
                print(f"| {model} | {tasks} | {name} | {columns} |", flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--models", nargs="+", default=list(MODELS), choices=list(MODELS))
    parser.add_argument("--tasks", nargs="+", type=int, default=[40])
    parser.add_argument("--method", default="fair-grad")
    parser.add_argument("--rounds", type=int, default=9)
    parser.add_argument("--clock", choices=list(CLOCKS), default="cpu")
    parser.add_argument("--fidelity", action="store_true")
    parser.add_argument("--steps", type=int, default=50)
    parser.add_argument("--lr", type=float, default=0.01)
    options = parser.parse_args()
    warnings.simplefilter("ignore")
    torch.set_num_threads(1)
    print(f"torch {torch.__version__}, one thread, {options.clock} time, {options.rounds} rounds\n")
    (fidelity if options.fidelity else cost)(options)


if __name__ == "__main__":
    main()
