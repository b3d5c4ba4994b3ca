"""Time of one weighting, the Gram matrix given: motet beside TorchJD, one thread, in one run.

python benchmarks/solvers.py                    two opposed groups of tasks, log-normal norms
python benchmarks/solvers.py --rank-deficient   gradients in K/2 dimensions, half of which are stationary points
python benchmarks/solvers.py --robustness       10,000 matrices that solvers fail on: finite, converged, residual
"""

import argparse
import warnings
from collections.abc import Callable, Iterator
from functools import partial
from itertools import cycle

import torch
import torchjd.aggregation as peer
from torch import Tensor

import motet
import robustness
from timing import CLOCKS, medians

PEERS: dict[str, Callable[[], Callable[[Tensor], Tensor]]] = {
    "upgrad": peer.UPGradWeighting,
    "dual-proj": peer.DualProjWeighting,
    "mgda": peer.MGDAWeighting,
    "cagrad": lambda: peer.CAGradWeighting(c=0.4),
    "fair-grad": lambda: peer.FairGradWeighting(alpha=2.0),
    "pcgrad": peer.PCGradWeighting,
    "imtl-g": peer.IMTLGWeighting,
    "aligned-mtl": peer.AlignedMTLWeighting,
}
MATRICES = 12
"""Matrices that take turns: a new one each call, as in training."""


def opposed(tasks: int, seed: int) -> Tensor:
    """Two opposed groups of tasks with log-normal norms, in 2,000 dimensions."""
    generator = torch.Generator().manual_seed(seed)
    rows = torch.randn(tasks, 2000, generator=generator)
    common = torch.randn(2000, generator=generator)
    rows[: tasks // 2] += 0.7 * common
    rows[tasks // 2 :] -= 0.7 * common
    return rows * torch.randn(tasks, 1, generator=generator).exp()


def dependent(tasks: int, seed: int) -> Tensor:
    """Random gradients with log-normal norms in K/2 dimensions."""
    generator = torch.Generator().manual_seed(seed)
    rows = torch.randn(tasks, max(tasks // 2, 1), generator=generator)
    return rows * torch.randn(tasks, 1, generator=generator).exp()


def _next(weigh: Callable[[Tensor], Tensor], matrices: Iterator[Tensor]) -> Tensor:
    return weigh(next(matrices))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--tasks", nargs="+", type=int, default=[2, 10, 40, 200])
    parser.add_argument("--methods", nargs="+", help="by default all that need the Gram matrix alone")
    parser.add_argument("--rounds", type=int, default=51)
    parser.add_argument("--clock", choices=CLOCKS, default="wall", help="cpu leaves out what other processes take")
    parser.add_argument("--rank-deficient", action="store_true")
    parser.add_argument("--no-peers", action="store_true", help="leave out TorchJD, which takes minutes at K = 200")
    parser.add_argument("--robustness", action="store_true")
    parser.add_argument("--matrices", type=int, default=10_000, help="how many for --robustness")
    options = parser.parse_args()
    warnings.simplefilter("ignore")
    torch.set_num_threads(1)
    if options.robustness:
        robustness.main(options.matrices)
        return
    kind = "gradients in K/2 dimensions" if options.rank_deficient else "two opposed groups of tasks"
    print(f"torch {torch.__version__}, one thread, {options.clock} time, {options.rounds} rounds, {kind}\n")
    print("| method | K | motet ms | TorchJD ms | TorchJD / motet |")
    print("| --- | --- | --- | --- | --- |")
    for tasks in options.tasks:
        rows = [(dependent if options.rank_deficient else opposed)(tasks, seed) for seed in range(MATRICES)]
        grams = [row @ row.T for row in rows]
        for name in options.methods or _gram_methods(tasks):
            method = motet.methods.get(name)
            works: dict[str, Callable[[], object]] = {"motet": partial(_next, method.weights, cycle(grams))}
            if options.no_peers:
                pass
            elif name in PEERS:
                works["TorchJD"] = partial(_next, PEERS[name](), cycle(grams))
            elif name == "nash-mtl":  # The only one of theirs that takes the Jacobian, and starts from its last answer.
                works["TorchJD"] = partial(_next, peer.NashMTL(n_tasks=tasks), cycle(rows))
            times = medians(works, options.rounds, CLOCKS[options.clock])
            other = times.get("TorchJD")
            columns = [f"{1000 * other:.2f}", f"{other / times['motet']:.1f}"] if other else ["–", "–"]
            print(f"| {name} | {tasks} | {1000 * times['motet']:.2f} | {columns[0]} | {columns[1]} |", flush=True)


def _gram_methods(tasks: int) -> list[str]:
    """The registry's methods that weigh a K×K Gram matrix without options, losses or gradients on a second batch."""
    able = []
    for name in motet.methods.available():
        try:
            method = motet.methods.get(name)
            ready = method.needs == "gram" and not method.two_samples
            if ready:
                method.weights(torch.eye(tasks))
        except (TypeError, ValueError):
            continue
        able += [name] if ready else []
    return able


if __name__ == "__main__":
    main()
