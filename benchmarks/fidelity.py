"""How near the cheap routes come to the exact one: cosine of their update to it, and with the task that fares worst.

python benchmarks/fidelity.py                    # three trunks, weak and strong conflict, at the start and in training
python benchmarks/fidelity.py --models mlp --methods upgrad --steps 50
"""

import argparse
import statistics
import warnings
from collections.abc import Iterator

import torch
from torch import Tensor, nn
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.nn.functional import mse_loss

import motet
from models import MODELS, Bench
from motet.routes import Exact

ROUTES = ("features", "last-layer", "probe")


class Camps(Bench):
    """Regression heads that start alike. Strong conflict: two camps of tasks want opposite functions of the input, each
    with its own noise. Weak conflict: every task has random targets."""

    @classmethod
    def of(cls, model: str, tasks: int, strong: bool, size: int) -> "Camps":
        plain = MODELS[model](1)
        width = plain.heads[0].in_features
        torch.manual_seed(1)
        head = nn.Linear(width, 1)
        heads = nn.ModuleList(nn.Linear(width, 1) for _ in range(tasks))
        if strong:
            for other in heads:
                other.load_state_dict(head.state_dict())
        bench = cls(plain.trunk, heads, plain.inputs[:size], torch.empty(0))
        bench.strong = strong
        bench.renew(0)
        return bench

    strong: bool

    def renew(self, seed: int) -> None:
        """A fresh batch from the same distribution."""
        generator = torch.Generator().manual_seed(seed)
        tasks = len(self.heads)
        self.inputs = torch.randn(self.inputs.shape, generator=generator)
        targets = torch.randn(tasks, len(self.inputs), generator=generator)
        if self.strong:
            flat = self.inputs.flatten(1)
            wanted = flat[:, : flat.shape[1] // 4].sum(1) / (flat.shape[1] / 4) ** 0.5
            side = 1.0 - 2.0 * (torch.arange(tasks) % 2)
            targets = side[:, None] * (1 + wanted) + 0.3 * targets
        self.targets = targets

    def loss(self, output: Tensor, target: Tensor) -> Tensor:
        return mse_loss(output.squeeze(1), target)


def compare(bench: Camps, method: str, route: str, steps: int) -> Iterator[tuple[float, float, float]]:
    """Cosine with the exact update, worst task's cosine, and the exact update's worst, step by step of training by the
    route with Adam and a fresh batch a step."""
    trunk = list(bench.trunk.parameters())
    balancer = motet.Balancer(method, route=route)
    optimizer = torch.optim.Adam(bench.parameters(), lr=1e-3)
    for step in range(steps):
        bench.renew(step)
        _, losses = bench.forward()
        rows = Exact(losses, trunk).rows
        due = motet.methods.get(method).direction(rows)
        bench.zero()
        z, losses = bench.forward()
        balancer.backward({str(k): loss for k, loss in enumerate(losses)}, features=z)
        made = torch.cat([parameter.grad.reshape(-1) for parameter in trunk])
        yield cosine(made, due), worst(rows, made), worst(rows, due)
        optimizer.step()


def cosine(one: Tensor, other: Tensor) -> float:
    return float(torch.cosine_similarity(one.double(), other.double(), dim=0))


def worst(rows: Tensor, update: Tensor) -> float:
    return float((rows @ update / (rows.norm(dim=1) * update.norm()).clamp(min=1e-30)).min())


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--models", nargs="+", default=list(MODELS), choices=list(MODELS))
    parser.add_argument("--methods", nargs="+", default=["upgrad", "pcgrad", "mgda", "cagrad", "nash-mtl", "fair-grad"])
    parser.add_argument("--tasks", type=int, default=10)
    parser.add_argument("--size", type=int, default=32, help="samples a batch")
    parser.add_argument("--steps", type=int, default=20)
    options = parser.parse_args()
    warnings.simplefilter("ignore")
    torch.set_num_threads(1)
    print(f"K = {options.tasks}, batch {options.size}, {options.steps} steps of Adam, a fresh batch each\n")
    print("| trunk | conflict | method | route | cosine, start | cosine, training (least) | worst task, start "
          "| worst task, training | exact's own worst |")  # fmt: skip
    print("| --- | --- | --- | --- | --- | --- | --- | --- | --- |")
    for model in options.models:
        for strong in (False, True):
            for method in options.methods:
                for route in ROUTES:
                    bench = Camps.of(model, options.tasks, strong, options.size)
                    with sdpa_kernel(SDPBackend.MATH):  # Fused attention has no second derivative, for the probe.
                        made, harmed, due = zip(*compare(bench, method, route, options.steps), strict=True)
                    later = slice(1, None)
                    print(
                        f"| {model} | {'strong' if strong else 'weak'} | {method} | {route} | {made[0]:.3f} "
                        f"| {statistics.mean(made[later]):.3f} ({min(made[later]):.3f}) | {harmed[0]:+.3f} "
                        f"| {min(harmed[later]):+.3f} | {min(due):+.3f} |",
                        flush=True,
                    )


if __name__ == "__main__":
    main()
