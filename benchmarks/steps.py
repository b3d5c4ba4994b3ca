"""Time and memory of a step: motet's routes beside TorchJD's and a loop of K backward passes, as ratios to the plain
sum in the same run.

python benchmarks/steps.py                                  # every route, three trunks, K = 2, 10, 40 and 200
python benchmarks/steps.py --tasks 40 --models conv --methods fair-grad
python benchmarks/steps.py --every-method --tasks 40        # every method on the route that it gets
"""

import argparse
import json
import warnings
from collections.abc import Callable
from pathlib import Path

import torch
import torchjd.aggregation
from torch.nn.attention import SDPBackend, sdpa_kernel
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
LARGEST = 40
"""Up to so many tasks what takes K backward passes is timed: at K = 200 a step would be 100 plain ones."""
Works = dict[str, Callable[[], None]]


def plain(bench: Bench) -> None:
    bench.zero()
    torch.stack(bench.forward()[1]).sum().backward()


def ours(bench: Bench, balancer: motet.Balancer, part: int | None = None) -> None:
    bench.zero()
    z, losses = bench.forward()
    probe = None if part is None else lambda: named(bench.part(part))
    balancer.backward(named(losses), features=z, probe=probe)


def named(losses: list[torch.Tensor]) -> dict[str, torch.Tensor]:
    return {str(k): loss for k, loss in enumerate(losses)}


def apart(bench: Bench, balancer: motet.Balancer) -> None:
    """Every sample belongs to one task."""
    bench.zero()
    z, losses, owner = bench.forward_apart()
    balancer.backward(named(losses), features=z, assignment=owner)


def plain_apart(bench: Bench) -> None:
    bench.zero()
    torch.stack(bench.forward_apart()[1]).sum().backward()


def loop(bench: Bench, weigh: Callable[[torch.Tensor], torch.Tensor]) -> None:
    """What other libraries and most papers' codes do: K backward passes, each flattened, stacked and combined."""
    bench.zero()
    _, losses = bench.forward()
    trunk = list(bench.trunk.parameters())
    rows = []
    for loss in losses:
        gradients = torch.autograd.grad(loss, trunk, retain_graph=True)
        rows.append(torch.cat([gradient.reshape(-1) for gradient in gradients]))
    jacobian = torch.stack(rows)
    update = weigh(jacobian @ jacobian.T).to(jacobian) @ jacobian
    torch.autograd.backward(losses, inputs=list(bench.heads.parameters()))
    for parameter, part in zip(trunk, update.split([p.numel() for p in trunk]), strict=True):
        parameter.grad = part.view(parameter.shape)


def peer(bench: Bench, aggregator: Callable[[torch.Tensor], torch.Tensor], chunk: int | None) -> None:
    bench.zero()
    z, losses = bench.forward()
    mtl_backward(losses, features=z, parallel_chunk_size=chunk)
    jac_to_grad(list(bench.trunk.parameters()), aggregator)


def with_plain_attention(work: Callable[[], None]) -> Callable[[], None]:
    def run() -> None:
        with sdpa_kernel(SDPBackend.MATH):
            work()

    return run


def works(bench: Bench, method: str, peers: bool) -> Works:
    found: Works = {"plain sum": lambda: plain(bench)}
    ways = (
        ("features", "last-layer", "probe", "exact")
        if len(bench.heads) <= LARGEST
        else ("features", "last-layer", "probe")
    )
    for route in ways:
        balancer = motet.Balancer(method, route=route)
        found[f"motet {route}"] = lambda b=balancer: ours(bench, b)
    # Fused attention has no second derivative, which the probe needs where it has no closure.
    found["motet probe"] = with_plain_attention(found["motet probe"])
    quarter = motet.Balancer(method, route="probe")
    found["motet probe f=1/4"] = lambda: ours(bench, quarter, 4)
    if peers and len(bench.heads) <= LARGEST:
        weighting = motet.methods.get(method)
        found["K backward passes"] = lambda: loop(bench, weighting.weights)
        if method in PEERS:
            aggregator = PEERS[method]()
            found["TorchJD"] = lambda: peer(bench, aggregator, None)
            found["TorchJD chunk=1"] = lambda: peer(bench, aggregator, 1)
    return found


def works_apart(bench: Bench, method: str) -> Works:
    balancer = motet.Balancer(method, route="disjoint")
    return {"plain sum": lambda: plain_apart(bench), "motet disjoint": lambda: apart(bench, balancer)}


def works_of_all(bench: Bench) -> Works:
    found: Works = {"plain sum": lambda: plain(bench)}
    for name in motet.methods.available():
        balancer = motet.Balancer(name)
        found[name] = lambda b=balancer: ours(bench, b)
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--models", nargs="+", default=list(MODELS), choices=list(MODELS))
    parser.add_argument("--tasks", nargs="+", type=int, default=[2, 10, 40, 200])
    parser.add_argument("--methods", nargs="+", default=["fair-grad"])
    parser.add_argument("--every-method", action="store_true", help="every method on its own route, nothing else")
    parser.add_argument("--no-peers", action="store_true", help="leave TorchJD and the loop out")
    parser.add_argument("--rounds", type=int, default=9)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--clock", choices=list(CLOCKS), default="wall")
    parser.add_argument("--json", type=Path, help="write the figures here too")
    options = parser.parse_args()
    warnings.simplefilter("ignore")
    torch.set_num_threads(options.threads)
    print(f"torch {torch.__version__}, {options.threads} threads, {options.clock} time, {options.rounds} rounds\n")
    print("| model | K | method | way | time × plain | memory MiB | memory × plain |")
    print("| --- | --- | --- | --- | --- | --- | --- |")
    rows = []
    for model in options.models:
        for tasks in options.tasks:
            if options.every_method:
                sets: list[tuple[str, Callable[[], Works]]] = [
                    ("all", lambda m=model, t=tasks: works_of_all(MODELS[m](t)))
                ]
            else:
                sets = []
                for name in options.methods:
                    sets.append((name, lambda m=model, t=tasks, n=name: works(MODELS[m](t), n, not options.no_peers)))
                    sets.append((name, lambda m=model, t=tasks, n=name: works_apart(MODELS[m](t), n)))
            for method, make in sets:
                memory = {name: peak_memory(work)[1] for name, work in make().items()}
                times = medians(make(), options.rounds, CLOCKS[options.clock])
                for name, seconds in times.items():
                    ratio, mib = seconds / times["plain sum"], memory[name]
                    more = mib / memory["plain sum"]
                    rows.append(
                        {"model": model, "tasks": tasks, "method": method, "way": name, "time": ratio, "mib": mib}
                    )
                    print(
                        f"| {model} | {tasks} | {method} | {name} | {ratio:.2f} | {mib:.0f} | {more:.1f} |", flush=True
                    )
    if options.json:
        options.json.write_text(json.dumps(rows, indent=1) + "\n")


if __name__ == "__main__":
    main()
