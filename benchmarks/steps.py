"""Time and memory of a step: motet's routes and TorchJD's, as ratios to the plain sum in the same run.

python benchmarks/steps.py                     # both models, K = 10 and 40
python benchmarks/steps.py --tasks 40 --models conv --methods fair-grad
"""

import argparse
import warnings
from collections.abc import Callable

import torch
import torchjd.aggregation
from torchjd.autojac import jac_to_grad, mtl_backward

import motet
from models import MODELS, Bench
from motet.study.memory import peak_memory
from timing import CLOCKS, medians

PEERS = {
    "upgrad": torchjd.aggregation.UPGrad,
    "fair-grad": lambda: torchjd.aggregation.FairGrad(alpha=2.0),
    "mgda": torchjd.aggregation.MGDA,
    "pcgrad": torchjd.aggregation.PCGrad,
    "cagrad": lambda: torchjd.aggregation.CAGrad(c=0.4),
    "imtl-g": torchjd.aggregation.IMTLG,
    "aligned-mtl": torchjd.aggregation.AlignedMTL,
}


def plain(bench: Bench) -> None:
    bench.zero()
    torch.stack(bench.forward()[1]).sum().backward()


def ours(bench: Bench, balancer: motet.Balancer) -> None:
    bench.zero()
    z, losses = bench.forward()
    balancer.backward({str(k): loss for k, loss in enumerate(losses)}, features=z)


def peer(bench: Bench, aggregator: Callable[[torch.Tensor], torch.Tensor], chunk: int | None) -> None:
    bench.zero()
    z, losses = bench.forward()
    mtl_backward(losses, features=z, parallel_chunk_size=chunk)
    jac_to_grad(list(bench.trunk.parameters()), aggregator)


def works(bench: Bench, method: str, peers: bool) -> dict[str, Callable[[], None]]:
    found: dict[str, Callable[[], None]] = {"plain sum": lambda: plain(bench)}
    for route in motet.routes.ROUTES:
        balancer = motet.Balancer(method, route=route)
        found[f"motet {route}"] = lambda b=balancer: ours(bench, b)
    if peers and method in PEERS:
        aggregator = PEERS[method]()
        found["TorchJD"] = lambda: peer(bench, aggregator, None)
        found["TorchJD chunk=1"] = lambda: peer(bench, aggregator, 1)
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--models", nargs="+", default=list(MODELS), choices=list(MODELS))
    parser.add_argument("--tasks", nargs="+", type=int, default=[10, 40])
    parser.add_argument("--methods", nargs="+", default=["fair-grad", "upgrad"])
    parser.add_argument("--no-peers", action="store_true", help="leave TorchJD out")
    parser.add_argument("--rounds", type=int, default=9)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--clock", choices=list(CLOCKS), default="wall")
    options = parser.parse_args()
    warnings.simplefilter("ignore")
    torch.set_num_threads(options.threads)
    print(f"torch {torch.__version__}, {options.threads} threads, {options.clock} time, {options.rounds} rounds\n")
    print("| model | K | method | way | time × plain | memory MiB | memory × plain |")
    print("| --- | --- | --- | --- | --- | --- | --- |")
    for model in options.models:
        for tasks in options.tasks:
            for method in options.methods:
                todo = works(MODELS[model](tasks), method, not options.no_peers)
                memory = {
                    name: peak_memory(work)[1]
                    for name, work in works(MODELS[model](tasks), method, not options.no_peers).items()
                }
                times = medians(todo, options.rounds, CLOCKS[options.clock])
                for name, seconds in times.items():
                    ratio, mib = seconds / times["plain sum"], memory[name]
                    print(
                        f"| {model} | {tasks} | {method} | {name} | {ratio:.2f} | {mib:.0f} "
                        f"| {mib / memory['plain sum']:.1f} |",
                        flush=True,
                    )


if __name__ == "__main__":
    main()
