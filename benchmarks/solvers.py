"""Time of one weighting, the Gram matrix given: motet beside TorchJD, one thread, in one run.

python benchmarks/solvers.py
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


def jacobian(tasks: int, seed: int) -> Tensor:
    """Two opposed groups of tasks with log-normal norms, in 2,000 dimensions."""
    generator = torch.Generator().manual_seed(seed)
    rows = torch.randn(tasks, 2000, generator=generator)
    common = torch.randn(2000, generator=generator)
    rows[: tasks // 2] += 0.7 * common
    rows[tasks // 2 :] -= 0.7 * common
    return rows * torch.randn(tasks, 1, generator=generator).exp()


def _next(weigh: Callable[[Tensor], Tensor], matrices: Iterator[Tensor]) -> Tensor:
    return weigh(next(matrices))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--tasks", nargs="+", type=int, default=[2, 10, 40])
    parser.add_argument("--rounds", type=int, default=21)
    options = parser.parse_args()
    warnings.simplefilter("ignore")
    torch.set_num_threads(1)
    print(f"torch {torch.__version__}, one thread, wall time, {options.rounds} rounds\n")
    print("| method | K | motet ms | TorchJD ms | TorchJD / motet |")
    print("| --- | --- | --- | --- | --- |")
    for tasks in options.tasks:
        # A new matrix each call, as in training: TorchJD's Nash-MTL starts from its last solution.
        rows = [jacobian(tasks, seed) for seed in range(8)]
        grams = [row @ row.T for row in rows]
        for name in motet.methods.available():
            method = motet.methods.get(name)
            if not isinstance(method, motet.methods.GramMethod):
                continue
            works: dict[str, Callable[[], object]] = {"motet": partial(_next, method.weights, cycle(grams))}
            if name in PEERS:
                works["TorchJD"] = partial(_next, PEERS[name](), cycle(grams))
            elif name == "nash-mtl":  # The only one of theirs that takes the Jacobian.
                works["TorchJD"] = partial(_next, peer.NashMTL(n_tasks=tasks), cycle(rows))
            times = medians(works, options.rounds, CLOCKS["wall"])
            other = times.get("TorchJD")
            columns = [f"{1000 * other:.2f}", f"{other / times['motet']:.1f}"] if other else ["–", "–"]
            print(f"| {name} | {tasks} | {1000 * times['motet']:.2f} | {columns[0]} | {columns[1]} |", flush=True)


if __name__ == "__main__":
    main()
