"""What self-guided weights do to the noise of the trunk's gradient, and what they cost, in CPU time.

python benchmarks/self_guided.py                 # both parts
python benchmarks/self_guided.py noise --batches 400 --seeds 3
python benchmarks/self_guided.py cost --rounds 21
python benchmarks/self_guided.py noise --route features

The noise is measured at fixed parameters, on batches that the weights were not learnt from: after so many steps of the
plain sum with AdamW the parameters are frozen, every mode learns its weights from 60 batches, and the trunk's gradients
of fresh batches are combined with the last weights. Variance is tr Cov of the combined gradient, signal the debiased
square of its mean; both relative to those of uniform weights. Moments are those of the trunk's last layer, or with
--route features those at the features. One JSON line a measurement, and a table at the end.
"""

import argparse
import json
from collections.abc import Callable, Iterator

import torch
from torch import Tensor
from torch.nn.functional import binary_cross_entropy_with_logits, cross_entropy, mse_loss

import motet
from motet import problems
from motet.methods import Every, Method, SelfGuided
from motet.problems.base import Data, Model, Training
from motet.routes import RouteName
from timing import medians

MODES = ("progress", "magnitude", "invvar", "simplex")
STAGES = (0, 150, 600)
LEARNING = 60


def losses(model: Model, data: Data, rows: Tensor) -> tuple[Tensor, dict[str, Tensor]]:
    z, outputs = model(data.train.inputs[rows])
    found = {}
    for task in data.tasks:
        output, target = outputs[task.name], data.train.targets[task.name][rows]
        if task.kind == "multiclass":
            found[task.name] = cross_entropy(output, target)
        else:
            loss = binary_cross_entropy_with_logits if task.kind == "binary" else mse_loss
            found[task.name] = loss(output[:, 0], target)
    return z, found


def batches(data: Data, size: int, seed: int) -> Iterator[Tensor]:
    """Independent draws without end, so that batches are samples of one distribution."""
    generator = torch.Generator().manual_seed(seed)
    while True:
        yield torch.randint(len(data.train), (size,), generator=generator)


def task_gradients(model: Model, data: Data, rows: Tensor) -> Tensor:
    """Each task's gradient of the whole trunk: (K, P)."""
    parameters = list(model.trunk.parameters())
    _, found = losses(model, data, rows)
    gradients = [torch.autograd.grad(loss, parameters, retain_graph=True) for loss in found.values()]
    return torch.stack([torch.cat([part.flatten() for part in row]) for row in gradients])


def true_moments(model: Model, data: Data, size: int, count: int, seed: int) -> tuple[Tensor, Tensor]:
    """Signal and noise (K, K) of the trunk's gradients over so many fresh batches, without bias."""
    stream = batches(data, size, seed)
    first = torch.zeros(())
    squares = torch.zeros(())
    for _ in range(count):
        rows = task_gradients(model, data, next(stream)).double()
        first, squares = first + rows, squares + rows @ rows.T
    means = first / count
    noise = (squares - count * means @ means.T) / (count - 1)
    return means @ means.T - noise / count, noise


def learnt(method: SelfGuided, model: Model, data: Data, size: int, seed: int, route: RouteName) -> Tensor:
    """The weights after some batches at fixed parameters."""
    balancer = motet.Balancer(method, route=route)
    stream = batches(data, size, seed)
    for _ in range(LEARNING):
        z, found = losses(model, data, next(stream))
        weights = balancer.backward(found, features=z).weights
    model.zero_grad()
    assert weights is not None
    return weights.as_subclass(Tensor).double()


def noise(name: str, seed: int, count: int, route: RouteName) -> Iterator[dict[str, object]]:
    problem = problems.get(name)
    data = problem.load(seed)
    model, size = problem.model(data, seed), problem.training.batch_size
    optimizer = torch.optim.AdamW(model.parameters(), lr=problem.training.learning_rate)
    stream, done = batches(data, size, 1000 + seed), 0
    for stage in STAGES:
        for _ in range(stage - done):
            optimizer.zero_grad()
            torch.stack(list(losses(model, data, next(stream))[1].values())).sum().backward()
            optimizer.step()
        done = stage
        signal, spread = true_moments(model, data, size, count, 2000 + seed)
        for mode in MODES:
            w = learnt(SelfGuided(mode, warmup=0), model, data, size, 3000 + seed, route)
            variance = float(w @ spread @ w / spread.sum())
            progress = float(w @ signal @ w / signal.sum())
            yield {
                "part": "noise", "problem": name, "route": route, "seed": seed, "step": stage, "mode": mode,
                "batches": count,
                "variance": variance - 1, "noise_to_signal": variance / progress - 1,
                "least": float(w.min()), "largest": float(w.max()),
            }  # fmt: skip


def cost(rounds: int, width: int, depth: int, batch: int) -> dict[str, object]:
    """A step, forward to ``.grad``, over the plain sum's without motet, at K = 14."""
    problem = problems.get("yeast")
    data = problem.load(0)
    model = problem.model(data, 0, Training(width=width, depth=depth))
    rows = torch.arange(batch)
    gradients = list(model.parameters())

    def plain() -> None:
        for p in gradients:
            p.grad = None
        torch.stack(list(losses(model, data, rows)[1].values())).sum().backward()

    def balanced(method: Method | str, route: RouteName) -> Callable[[], None]:
        balancer = motet.Balancer(method, route=route)

        def run() -> None:
            for p in gradients:
                p.grad = None
            z, found = losses(model, data, rows)
            balancer.backward(found, features=z)

        return run

    def guided(mode: str) -> SelfGuided:
        return SelfGuided(mode, warmup=0)  # type: ignore[arg-type]

    works = {
        "plain": plain,
        "sum by motet": balanced("sum", "auto"),
        "mgda at the features": balanced("mgda", "features"),
        "progress at the features": balanced(guided("progress"), "features"),
        **{mode: balanced(guided(mode), "last-layer") for mode in MODES},
        "every 10th progress": balanced(Every(10, guided("progress")), "last-layer"),
    }

    def ten(work: Callable[[], None]) -> Callable[[], None]:
        def run() -> None:
            for _ in range(10):
                work()

        return run

    import time

    times = medians({name: ten(work) for name, work in works.items()}, rounds, time.thread_time)
    ratios = {name: taken / times["plain"] for name, taken in times.items()}
    return {
        "part": "cost", "width": width, "depth": depth, "batch": batch, "plain_ms": 100 * times["plain"], **ratios
    }  # fmt: skip


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("part", nargs="?", choices=["noise", "cost", "both"], default="both")
    parser.add_argument("--problems", nargs="+", default=["digits-overlay", "yeast"])
    parser.add_argument("--batches", type=int, default=200)
    parser.add_argument("--seeds", type=int, default=1)
    parser.add_argument("--rounds", type=int, default=11)
    parser.add_argument("--route", choices=["last-layer", "features"], default="last-layer")
    options = parser.parse_args()
    torch.set_num_threads(1)
    tables: list[str] = []
    if options.part != "cost":
        tables += [
            "| problem | seed | step | mode | variance | noise to signal | weights |",
            "|---|---|---|---|---|---|---|",
        ]
        for name in options.problems:
            for seed in range(options.seeds):
                for row in noise(name, seed, options.batches, options.route):
                    print(json.dumps(row), flush=True)
                    tables.append(
                        f"| {name} | {seed} | {row['step']} | {row['mode']} | {row['variance']:+.1%} | "
                        f"{row['noise_to_signal']:+.1%} | {row['least']:.2f} to {row['largest']:.2f} |"
                    )
    if options.part != "noise":
        for width, depth, batch in ((128, 2, 64), (512, 2, 256), (1024, 4, 256)):
            row = cost(options.rounds, width, depth, batch)
            print(json.dumps(row), flush=True)
            ways = [key for key in row if key not in ("part", "width", "depth", "batch", "plain_ms")]
            if not any(line.startswith("| width") for line in tables):
                tables += [
                    "",
                    f"| width × depth, batch | plain ms | {' | '.join(ways)} |",
                    "|---" * (len(ways) + 2) + "|",
                ]
            ratios = " | ".join(f"{row[way]:.2f}" for way in ways)
            tables.append(f"| {width} × {depth}, {batch} | {row['plain_ms']:.2f} | {ratios} |")
    print("\n" + "\n".join(tables))


if __name__ == "__main__":
    main()
