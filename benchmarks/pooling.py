"""Training steps of graph pooling against torchmil's gated ABMIL in one run, memory of a long bag, padding or flat.

python benchmarks/pooling.py steps      # N = 1,000 and 10,000: neighbours by features, by coordinates, kept edges
python benchmarks/pooling.py memory     # N = 100,000 with coordinates
python benchmarks/pooling.py ragged     # an epoch of 102 bags sized like MUSK2's
python benchmarks/pooling.py recall     # neighbours found by cells instead of all pairs

steps needs torchmil (pip install torchmil==1.0.2). One thread; CPU time, the least of several alternating repeats.
"""

import argparse
import resource
import time
import warnings
from collections.abc import Callable

import torch

from motet.nn.bag import Bag
from motet.nn.instance_pooling import GraphInstancePooling
from motet.nn.neighbours import feature_edges

ATTENTION = 128
"""Width of ABMIL's attention: torchmil's default."""


def least(runs: dict[str, Callable[[], object]], repeats: int) -> dict[str, float]:
    """CPU seconds of each, taking turns, so that what else runs on the machine meets all of them."""
    found = dict.fromkeys(runs, float("inf"))
    for repeat in range(repeats + 1):
        for name, run in runs.items():
            start = time.process_time()
            run()
            if repeat:  # the first fills caches
                found[name] = min(found[name], time.process_time() - start)
    return found


def train(pool: GraphInstancePooling, x: torch.Tensor, **given: torch.Tensor | None) -> dict[str, torch.Tensor]:
    pool.zero_grad()
    z, info = pool(x, **given)
    (z.sum() + sum(info["regularisers"].values())).backward()
    return info["graph"]


def steps(dims: list[int], sizes: list[int], repeats: int) -> None:
    from torchmil.models import ABMIL

    print("| D | N | ABMIL ms | features | coordinates | kept edges |\n|---|---|---|---|---|---|")
    for dim in dims:
        for n in sizes:
            torch.manual_seed(0)
            x, points = torch.randn(1, n, dim), torch.rand(1, n, 2)
            peer, pool = ABMIL((dim,), att_dim=ATTENTION, gated=True), GraphInstancePooling(dim)
            edges = train(pool, x, coordinates=points)["edges"]

            def other(peer: ABMIL = peer, x: torch.Tensor = x) -> None:
                peer.zero_grad()
                peer(x).sum().backward()

            took = least(
                {
                    "ABMIL": other,
                    "features": lambda pool=pool, x=x: train(pool, x),
                    "coordinates": lambda pool=pool, x=x, points=points: train(pool, x, coordinates=points),
                    "kept": lambda pool=pool, x=x, edges=edges: train(pool, x, edges=edges),
                },
                repeats,
            )
            ratios = " | ".join(f"{took[name] / took['ABMIL']:.1f}×" for name in ("features", "coordinates", "kept"))
            print(f"| {dim} | {n:,} | {took['ABMIL'] * 1e3:.1f} | {ratios} |", flush=True)


def memory(dim: int) -> None:
    """Peak memory of a training step above what the process had before, at growing N."""
    pool = GraphInstancePooling(dim)
    for n in (25_000, 50_000, 100_000):
        x, points = torch.randn(n, dim), torch.rand(n, 2)
        before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
        start = time.process_time()
        train(pool, x, offsets=torch.tensor([0, n]), coordinates=points)
        took = time.process_time() - start
        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
        print(f"N = {n:,}, D = {dim}: {took:.1f} s of CPU, peak {peak - before:,.0f} MB above {before:,.0f} MB")


def ragged(dim: int, repeats: int) -> None:
    """MUSK2 has 102 bags of 1 to 1,044 instances, most of them small: sizes like these, one epoch in batches of 17."""
    torch.manual_seed(0)
    sizes = [*(torch.linspace(0, 1, 101).pow(6) * 500 + 1).long().tolist(), 1044]
    whole = Bag.of([torch.randn(n, dim) for n in sizes])
    order = torch.randperm(len(sizes)).split(17)
    flat = [whole[part] for part in order]
    longest = max(sizes)
    padded = []
    for bag in flat:  # to the longest bag of the data, as a fixed-size data set does it
        short = bag.padded()
        more = longest - short.x.shape[1]
        pad = torch.nn.functional.pad
        padded.append(Bag(pad(short.x, (0, 0, 0, more)), pad(short.mask, (0, more))))
    gate = GraphInstancePooling(dim)

    def dense(bag: Bag) -> None:
        """What a padded implementation computes for padding too: every bag is as long as the longest."""
        train(gate, bag.x)

    took = least(
        {
            "flat": lambda: [train(gate, bag.x, offsets=bag.offsets) for bag in flat],
            "padded, mask": lambda: [train(gate, bag.x, mask=bag.mask) for bag in padded],
            "padded, all computed": lambda: [dense(bag) for bag in padded],
        },
        repeats,
    )
    print(f"{sum(sizes):,} instances, padded {len(sizes) * longest / sum(sizes):.1f} times")
    for name, seconds in took.items():
        print(f"{name}: {seconds:.2f} s of CPU an epoch, {seconds / took['flat']:.1f}×")


def recall(dim: int) -> None:
    """Share of the true edges that cells find, for features with and without clusters."""
    for n in (5_000, 20_000):
        centres = torch.randn(50, dim)
        clustered = centres[torch.randint(50, (n,))] + 0.5 * torch.randn(n, dim)
        for name, x in (("without structure", torch.randn(n, dim)), ("clustered", clustered)):
            exact, found = (feature_edges(x, [n], 8, limit) for limit in (n, 1))
            keys = [edges[0] * n + edges[1] for edges in (exact, found)]
            print(f"N = {n:,}, {dim} features {name}: recall {torch.isin(*keys).double().mean():.3f}")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("what", choices=["steps", "memory", "ragged", "recall"])
    parser.add_argument("--dims", type=int, nargs="+", default=[64, 512])
    parser.add_argument("--sizes", type=int, nargs="+", default=[1000, 10_000])
    parser.add_argument("--repeats", type=int, default=5)
    chosen = parser.parse_args()
    torch.set_num_threads(1)
    warnings.simplefilter("ignore")
    if chosen.what == "steps":
        steps(chosen.dims, chosen.sizes, chosen.repeats)
    elif chosen.what == "memory":
        memory(chosen.dims[0])
    elif chosen.what == "ragged":
        ragged(166, chosen.repeats)
    else:
        recall(32)
