"""Rank losses: value and gradient beside a sort-plus-Fenwick loop (numba) and the dense form, one thread, one run.

python benchmarks/rank.py             n = 1,000 … 100,000 by kind, ratios to both peers, memory
python benchmarks/rank.py --switch    where levels become faster than dense tiles, by kind

The loop is numba's where that is installed (it is no dependency of motet), and left out where not.
"""

import argparse
import resource
import subprocess
import sys
from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from torch import Tensor

from motet.losses.rank import KINDS, Pairs, pairwise_rank_loss
from motet.losses.rank.arrangement import Arrangement
from motet.losses.rank.blocked import blocked
from motet.losses.rank.function import FAST
from timing import CLOCKS, medians

try:
    from numba import njit
except ImportError:
    njit = None


MOMENTS = {"drelu": 1, "squared_hinge": 2, "epanechnikov": 3}


def fenwick(kind: str) -> Callable[..., Any] | None:
    """A piecewise polynomial loss by a sweep in the order of y over Fenwick trees on the ranks of f, for one thread.

    It has the same identity for the value as motet, Σ u φ'(u) = Σ f g, which spares it the highest moment. None without
    numba, or for other kinds. Kind and number of moments are constants when it is compiled.
    """
    if njit is None or kind not in MOMENTS:
        return None
    Q, hinge, cubic = MOMENTS[kind], kind == "squared_hinge", kind == "epanechnikov"
    reach = 0.5 if kind == "drelu" else 1.0

    @njit(cache=False)
    def add(tree, k, mass, x):  # type: ignore[no-untyped-def]
        k += 1
        while k < len(tree):
            power = mass
            for q in range(Q):
                tree[k, q] += power
                power *= x
            k += k & -k

    @njit(cache=False)
    def before(tree, k, out, sign):  # type: ignore[no-untyped-def]
        while k > 0:
            for q in range(Q):
                out[q] += sign * tree[k, q]
            k -= k & -k

    @njit(cache=False)
    def derivative(x, m):  # type: ignore[no-untyped-def]
        """Σ S'(u) over the neighbours with these moments, for a loss of windows."""
        return 0.75 * (m[0] - x * (x * m[0] - 2 * m[1]) - m[2]) if cubic else m[0]

    @njit(cache=False)
    def sweep(y, by_y, x, by_x, c, b):  # type: ignore[no-untyped-def]
        n = len(x)
        place, lo, hi = np.empty(n, np.int64), np.empty(n, np.int64), np.empty(n, np.int64)
        left = right = 0
        for k in range(n):
            i = by_x[k]
            place[i] = k
            while right < n and x[by_x[right]] < x[i] + reach:
                right += 1
            while x[by_x[left]] <= x[i] - reach:
                left += 1
            lo[i], hi[i] = left, right
        g, value, pairs, linear = np.zeros(n), 0.0, 0.0, 0.0
        tree, seen, low, m = np.zeros((n + 1, Q)), np.zeros(Q), np.zeros(Q), np.zeros(Q)
        start = 0
        while start < n:
            stop = start
            while stop < n and y[by_y[stop]] == y[by_y[start]]:
                i = by_y[stop]
                low[:] = 0.0
                before(tree, lo[i], low, 1.0)
                if hinge:
                    short = c[i] * ((seen[0] - low[0]) * (1 - x[i]) + seen[1] - low[1])
                    g[i] -= 2 * short
                    value += short
                else:
                    for q in range(Q):
                        m[q] = -low[q]
                    before(tree, hi[i], m, 1.0)
                    g[i] -= c[i] * derivative(x[i], m)
                    linear += x[i] * c[i] * m[0]
                    value += c[i] * (seen[0] - low[0] - 0.5 * m[0])
                pairs += c[i] * seen[0]
                stop += 1
            for k in range(start, stop):
                j = by_y[k]
                add(tree, place[j], b[j], x[j])
                power = b[j]
                for q in range(Q):
                    seen[q] += power
                    power *= x[j]
            start = stop
        tree[:] = 0.0
        stop = n
        while stop > 0:
            start = stop
            while start > 0 and y[by_y[start - 1]] == y[by_y[stop - 1]]:
                i = by_y[start - 1]
                m[:] = 0.0
                before(tree, hi[i], m, 1.0)
                if hinge:
                    g[i] += 2 * b[i] * (m[0] * (1 + x[i]) - m[1])
                else:
                    before(tree, lo[i], m, -1.0)
                    g[i] += b[i] * derivative(x[i], m)
                    linear -= x[i] * b[i] * m[0]
                start -= 1
            for k in range(start, stop):
                j = by_y[k]
                add(tree, place[j], c[j], x[j])
            stop = start
        product = 0.0
        for i in range(n):
            product += g[i] * x[i]
        value += product / 2 if hinge else product / 3 - linear / 2 if cubic else product
        return value / pairs, g / pairs

    def run(y: Any, f: Any, c: Any, b: Any, w: float, by_y: Any) -> Any:
        value, g = sweep(y, by_y, f / w, np.argsort(f), c, b)
        return value, g / w

    return run


DENSE: dict[str, Callable[[Tensor], Tensor]] = {
    "drelu": lambda u: 1 - (u + 0.5).clamp(0, 1),
    "epanechnikov": lambda u: 0.5 - 0.75 * u.clamp(-1, 1) + 0.25 * u.clamp(-1, 1) ** 3,
    "squared_hinge": lambda u: (1 - u).clamp(min=0) ** 2,
    "exponential": lambda u: (-u).exp(),
    "logistic": lambda u: torch.nn.functional.softplus(-u),
    "sigmoid": lambda u: (-u).sigmoid(),
}


def dense(f: Tensor, y: Tensor, kind: str) -> Tensor:
    """The definition: all n² differences, and autograd."""
    mask = (y[:, None] > y).to(f)
    loss = (DENSE[kind](f[:, None] - f) * mask).sum() / mask.sum()
    loss.backward()
    return loss


def outcome(n: int, kind: str) -> Tensor:
    y = torch.randn(n, dtype=torch.float64, generator=torch.Generator().manual_seed(1))
    return {"continuous": y, "ordinal": (y * 2).round(), "binary": (y > 0).double()}[kind]


def compare(options: argparse.Namespace) -> None:
    peers = "the loop is numba's" if njit else "numba is not installed: no Fenwick loop"
    print(f"torch {torch.__version__}, one thread, {options.clock} time, {options.rounds} rounds; {peers}\n")
    print("| outcome | kind | n | motet ms | with setup | loop ms | motet / loop | dense ms | dense / motet |")
    print("| --- | --- | --- | --- | --- | --- | --- | --- | --- |")
    for n in options.rows:
        for y_kind in options.outcomes:
            y = outcome(n, y_kind)
            f = torch.randn(n, dtype=torch.float64, generator=torch.Generator().manual_seed(2), requires_grad=True)
            pairs = Pairs(y)
            for kind in options.kinds:
                if n > 20_000 and kind not in FAST:
                    continue  # O(n²): minutes
                runs: dict[str, Callable[[], Any]] = {"motet": lambda: pairs.loss(f, kind).backward()}  # noqa: B023
                if n < 20_000 or kind in FAST:
                    runs["with setup"] = lambda: pairwise_rank_loss(f, y, kind).backward()  # noqa: B023
                if loop := fenwick(kind):
                    a = y.numpy(), f.detach().numpy(), np.ones(n), np.ones(n), 1.0, np.argsort(y.numpy())
                    value, gradient = loop(*a)
                    f.grad = None
                    own = pairs.loss(f, kind)
                    own.backward()
                    assert abs(own.item() - value) < 1e-10
                    assert np.abs(f.grad.numpy() - gradient).max() < 1e-10  # type: ignore[union-attr]
                    runs["loop"] = lambda: loop(*a)  # noqa: B023
                ms = times(runs, options)
                if n <= options.dense_rows:
                    ms |= times({"dense": lambda: dense(f, y, kind)}, options, min(options.rounds, 5))  # noqa: B023
                own_ms, all_ms, loop_ms, dense_ms = (
                    ms.get(name, float("nan")) for name in ("motet", "with setup", "loop", "dense")
                )
                print(
                    f"| {y_kind} | {kind} | {n:,} | {own_ms:.2f} | {all_ms:.2f} | {loop_ms:.2f} "
                    f"| {own_ms / loop_ms:.2f} | {dense_ms:.0f} | {dense_ms / own_ms:.0f} |",
                    flush=True,
                )


def times(
    runs: dict[str, Callable[[], Any]], options: argparse.Namespace, rounds: int | None = None
) -> dict[str, float]:
    return {
        name: seconds * 1e3
        for name, seconds in medians(runs, rounds=rounds or options.rounds, clock=CLOCKS[options.clock]).items()
    }


def switch(options: argparse.Namespace) -> None:
    print("| kind | outcome | n | levels ms | tiles ms | tiles / levels |\n| --- | --- | --- | --- | --- | --- |")
    for kind, fast in FAST.items():
        for y_kind in options.outcomes:
            for n in (32, 64, 128, 256, 384, 512, 768, 1024):
                rows: Arrangement = Pairs(outcome(n, y_kind)).rows
                x = torch.randn(n, dtype=torch.float64)
                ms = times(
                    {"levels": lambda: fast(rows, x), "tiles": lambda: blocked(rows, x, kind)},  # noqa: B023
                    options,
                )
                ratio = ms["tiles"] / ms["levels"]
                print(f"| {kind} | {y_kind} | {n} | {ms['levels']:.2f} | {ms['tiles']:.2f} | {ratio:.2f} |", flush=True)


def memory(n: int) -> None:
    """Peak memory of value and gradient above what was there, in a process of its own."""
    torch.set_num_threads(1)
    y, f = outcome(n, "continuous"), torch.randn(n, dtype=torch.float64, requires_grad=True)
    Pairs(y[:1000]).loss(f[:1000]).backward()
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    Pairs(y).loss(f).backward()
    print((resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) * 1024 / n)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", nargs="+", type=int, default=[1_000, 5_000, 20_000, 100_000])
    parser.add_argument("--kinds", nargs="+", default=list(KINDS))
    parser.add_argument("--outcomes", nargs="+", default=["continuous", "ordinal", "binary"])
    parser.add_argument("--dense-rows", type=int, default=5_000, help="largest n of the dense definition: n² memory")
    parser.add_argument("--rounds", type=int, default=11)
    parser.add_argument("--clock", choices=CLOCKS, default="wall", help="cpu leaves out what other processes take")
    parser.add_argument("--switch", action="store_true")
    parser.add_argument("--memory", type=int, help=argparse.SUPPRESS)
    options = parser.parse_args()
    torch.set_num_threads(1)
    if options.memory:
        memory(options.memory)
        return
    if options.switch:
        switch(options)
        return
    compare(options)
    for n in (1_000_000, 2_000_000):  # fewer rows need less than the imports did
        out = subprocess.run([sys.executable, __file__, "--memory", str(n)], capture_output=True, text=True, check=True)
        print(f"\npeak memory of the double ReLU at n = {n:,}: {float(out.stdout):.0f} bytes a row")


if __name__ == "__main__":
    main()
