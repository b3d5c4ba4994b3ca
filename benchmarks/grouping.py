"""What group updates cost, what the ways of measuring affinity are worth, and where the estimators fail.

python benchmarks/grouping.py overhead      # beyond the M forward, backward and optimizer steps, at K = 40
python benchmarks/grouping.py cost          # a batch by M and K, beside methods on K gradients (figure with --picture)
python benchmarks/grouping.py regroup       # a call of partition
python benchmarks/grouping.py memory        # over 500 steps
python benchmarks/grouping.py noise         # each way of measuring against the truth
python benchmarks/grouping.py recovery      # planted clusters as noise grows (figure with --picture)
"""

import argparse
import gc
import statistics
import sys
import time
import tracemalloc
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import matplotlib.pyplot as plt
import numpy as np
import torch
from sklearn.metrics import adjusted_rand_score
from torch import Tensor, nn

import motet
from models import MODELS, Bench
from motet.grouping import Affinity, partition
from timing import medians

CPU = time.process_time


def losses(bench: Bench) -> dict[str, Tensor]:
    return {str(k): loss for k, loss in enumerate(bench.forward()[1])}


def split(tasks: int, groups: int) -> list[list[int]]:
    """So many groups, as equal as possible."""
    return [list(range(start, tasks, groups)) for start in range(groups)]


def by_hand(bench: Bench, optimizer: torch.optim.Optimizer, groups: list[list[int]]) -> None:
    """The loop that one would write: all losses, the group's sum, one step, M times."""
    for group in groups:
        optimizer.zero_grad()
        every = bench.forward()[1]
        torch.stack([every[task] for task in group]).sum().backward()
        optimizer.step()


def updates_of(bench: Bench, groups: list[list[int]], tasks: int, **options: object) -> motet.GroupedUpdates:
    optimizer = torch.optim.AdamW(bench.parameters(), lr=1e-5, weight_decay=0.0, fused=True)
    return motet.GroupedUpdates([str(k) for k in range(tasks)], optimizer, grouping=groups, **options)  # type: ignore[arg-type]


def overhead(options: argparse.Namespace) -> None:
    """What a batch takes beyond the loop that one would write, both without their passes and steps.

    Closures, backward passes, optimizer steps and zeroing gradients are timed where they happen and subtracted, since
    they are the same on both sides and the difference of two whole runs is noise. A group alone is looked at by a pass
    more every tenth batch, which is no overhead but a pass: nothing is measured there.
    """
    tasks = 40
    print("| trunk | M | plain step, ms | beyond a loop by hand, ms a batch | ms a group | of a plain step, a batch |")
    print("| --- | ---: | ---: | ---: | ---: | ---: |")
    for name, make in MODELS.items():
        for count in (1, 2, 5, 10, 20):
            bench, groups = make(tasks), split(tasks, count)
            updates = updates_of(bench, groups, tasks, measure=None if count == 1 else "losses")
            optimizer = updates.optimizers[0]
            everyone = [list(range(tasks))]
            plain = medians({"plain": partial(by_hand, bench, optimizer, everyone)}, options.rounds, CPU)["plain"]
            inside = Stopwatch()
            optimizer.step, optimizer.zero_grad = inside.around(optimizer.step), inside.around(optimizer.zero_grad)  # type: ignore[method-assign]
            backward, torch.Tensor.backward = torch.Tensor.backward, inside.around(torch.Tensor.backward)  # type: ignore[method-assign]
            closure = inside.around(partial(losses, bench))
            more: dict[str, list[float]] = {"ours": [], "hand": []}
            for turn in range(options.rounds + 1):
                for side in more:
                    inside.total = 0.0
                    start = CPU()
                    if side == "ours":
                        updates.step(closure)
                    else:
                        loop_by_hand(closure, optimizer, groups)
                    if turn:
                        more[side].append(CPU() - start - inside.total)
            torch.Tensor.backward = backward  # type: ignore[method-assign]
            found = statistics.median(more["ours"]) - statistics.median(more["hand"])
            print(
                f"| {name} | {count} | {1e3 * plain:.1f} | {1e3 * found:.2f} | {1e3 * found / count:.2f} | "
                f"{found / plain:.1%} |",
                flush=True,
            )


def loop_by_hand(
    closure: Callable[[], dict[str, Tensor]], optimizer: torch.optim.Optimizer, groups: list[list[int]]
) -> None:
    """`by_hand` with a closure."""
    for group in groups:
        optimizer.zero_grad()
        every = closure()
        torch.stack([every[str(task)] for task in group]).sum().backward()
        optimizer.step()


class Stopwatch:
    """Sums the CPU time spent in functions."""

    def __init__(self) -> None:
        self.total = 0.0

    def around(self, function: Callable[..., Any]) -> Callable[..., Any]:
        """The function, timed."""

        def timed(*arguments: Any, **named: Any) -> Any:
            start = CPU()
            try:
                return function(*arguments, **named)
            finally:
                self.total += CPU() - start

        return timed


def cost(options: argparse.Namespace) -> None:
    """A batch of M groups beside methods that need every task's gradient."""
    rows: dict[tuple[str, int], dict[str, float]] = {}
    counts = {4: (1, 2, 3, 4), 11: (1, 2, 4, 6, 8, 11), 40: (1, 2, 4, 8, 16, 27)}
    for name in options.models:
        for tasks, several in counts.items():
            bench = MODELS[name](tasks)
            optimizer = torch.optim.AdamW(bench.parameters(), lr=1e-5, fused=True)
            works: dict[str, Callable[[], object]] = {
                "sum": lambda b=bench, o=optimizer: by_hand(b, o, [list(range(len(b.heads)))]),  # type: ignore[misc]
                "pcgrad exact": lambda b=bench, o=optimizer: gradients(b, o, "exact"),  # type: ignore[misc]
                "pcgrad last-layer": lambda b=bench, o=optimizer: gradients(b, o, "last-layer"),  # type: ignore[misc]
                "K backward passes": lambda b=bench, o=optimizer: loop(b, o),  # type: ignore[misc]
            }
            for count in several:
                ours = updates_of(bench, split(tasks, count), tasks, measure=None if count == 1 else "losses")
                works[f"groups {count}"] = lambda b=bench, u=ours: u.step(lambda: losses(b))  # type: ignore[misc]
            found = medians(works, options.rounds, CPU)
            rows[name, tasks] = {way: seconds / found["sum"] for way, seconds in found.items()}
            print(name, tasks, {way: round(ratio, 2) for way, ratio in rows[name, tasks].items()}, flush=True)
    if options.picture:
        draw_cost(rows, options.picture)


def gradients(bench: Bench, optimizer: torch.optim.Optimizer, route: str) -> None:
    optimizer.zero_grad()
    z, found = bench.forward()
    named = {str(k): loss for k, loss in enumerate(found)}
    motet.Balancer("pcgrad", route).backward(named, features=z)  # type: ignore[arg-type]
    optimizer.step()


def loop(bench: Bench, optimizer: torch.optim.Optimizer) -> None:
    """What a published PCGrad costs: one backward pass a task, projections left out."""
    optimizer.zero_grad()
    trunk = list(bench.trunk.parameters())
    _, found = bench.forward()
    rows = [torch.autograd.grad(loss, trunk, retain_graph=True) for loss in found]
    torch.autograd.backward(found, inputs=list(bench.heads.parameters()))
    for parameter, parts in zip(trunk, zip(*rows, strict=True), strict=True):
        parameter.grad = torch.stack(parts).sum(0)
    optimizer.step()


def draw_cost(rows: dict[tuple[str, int], dict[str, float]], picture: Path) -> None:
    models = list(dict.fromkeys(model for model, _ in rows))
    figure, axes = plt.subplots(1, len(models), figsize=(4.2 * len(models), 3.6), layout="constrained", squeeze=False)
    colours = {4: "#5fa8d3", 11: "#2a9d8f", 40: "#c8553d"}
    for axis, model in zip(axes[0], models, strict=True):
        for tasks, colour in colours.items():
            found = rows[model, tasks]
            points = [(int(way.split()[1]), ratio) for way, ratio in found.items() if way.startswith("groups")]
            axis.plot(*zip(*points, strict=True), color=colour, marker="o", ms=4, label=f"groups, K = {tasks}")
            axis.axhline(
                found["K backward passes"], color=colour, ls="--", lw=1, label=f"K backward passes, K = {tasks}"
            )
            axis.axhline(found["pcgrad last-layer"], color=colour, ls=":", lw=1, label=f"last-layer route, K = {tasks}")
        axis.set(title=model, xlabel="groups M", xscale="log", yscale="log")
        axis.set_xticks([1, 2, 4, 8, 16, 27], ["1", "2", "4", "8", "16", "27"])
        axis.set_yticks([1, 2, 5, 10, 20], ["1", "2", "5", "10", "20"])
        axis.minorticks_off()
        axis.spines[["top", "right"]].set_visible(False)
    axes[0][0].set_ylabel("time of a batch, plain sum = 1")
    figure.legend(*axes[0][0].get_legend_handles_labels(), loc="outside lower center", ncols=3, frameon=False)
    figure.savefig(picture, dpi=150)


def regroup(options: argparse.Namespace) -> None:
    """Random maps with positive diagonals, as training gives them."""
    print("| K | method | median, ms | 95 %, ms |\n| ---: | --- | ---: | ---: |")
    for tasks in (4, 9, 11, 40):
        for method in ("affinity-propagation", "correlation"):
            times = []
            for seed in range(options.rounds * 3):
                generator = torch.Generator().manual_seed(seed)
                matrix = 0.02 * torch.randn(tasks, tasks, generator=generator, dtype=torch.float64)
                matrix.fill_diagonal_(0.08)
                start = CPU()
                partition(matrix, method)
                times.append(1e3 * (CPU() - start))
            print(
                f"| {tasks} | {method} | {statistics.median(times):.2f} | {np.quantile(times, 0.95):.2f} |", flush=True
            )


def memory(options: argparse.Namespace) -> None:
    """Bytes that Python and torch hold after 100 and after 500 steps."""
    del options
    for estimator in ("pairwise", "regression"):
        bench = MODELS["mlp"](40)
        updates = updates_of(bench, split(40, 4), 40, estimator=estimator)
        tracemalloc.start()
        sizes = {}
        for step in range(1, 501):
            updates.step(lambda b=bench: losses(b))  # type: ignore[misc]
            if step in (100, 300, 500):
                gc.collect()
                tensors = sum(
                    o.untyped_storage().nbytes() for o in gc.get_objects() if type(o) in (Tensor, nn.Parameter)
                )
                sizes[step] = (tracemalloc.get_traced_memory()[0], tensors)
        tracemalloc.stop()
        print(estimator, {step: f"{python / 1024:.0f} KiB Python, {tensors / 2**20:.2f} MiB tensors"
                          for step, (python, tensors) in sizes.items()})  # fmt: skip


WAYS = {
    "losses, masks drawn anew": ("losses", False),
    "losses": ("losses", True),
    "jvp": ("jvp", True),
    "features": ("features", True),
}


def noise(options: argparse.Namespace) -> None:
    """One real update of a group by AdamW on a perceptron with dropout, seen in each way, 40 times over.

    The truth is the mean over 400 draws of masks of the relative change of each loss on the batch, in float64. Each way
    sees the update once, in float32, with its own masks. "features" sees no update and has another scale than B, so
    that only the correlation counts.
    """
    seen: dict[str, list[float]] = {way: [] for way in WAYS}
    truths: list[float] = []
    for repeat in range(40):
        found, truth = one_update(repeat, options.rate)
        truths += truth
        for way, values in found.items():
            seen[way] += values
    truth = np.array(truths)
    print(f"lr {options.rate:g}: median size of the truth {np.median(np.abs(truth)):.2g}")
    print("| measured by | rms error over rms truth | correlation with the truth | wrong sign |")
    print("| --- | ---: | ---: | ---: |")
    for way, values in seen.items():
        got = np.array(values)
        error = np.sqrt(np.mean((got - truth) ** 2) / np.mean(truth**2))
        wrong = np.mean(np.sign(got) != np.sign(truth))
        shown = "–" if way == "features" else f"{error:.3f}"
        print(f"| {way} | {shown} | {np.corrcoef(got, truth)[0, 1]:.3f} | {wrong:.0%} |", flush=True)


def one_update(seed: int, rate: float) -> tuple[dict[str, list[float]], list[float]]:
    """What each way sees of one group's update, for six tasks, and the truth."""
    torch.manual_seed(seed)
    names = [str(k) for k in range(6)]
    layers = [nn.Linear(20, 64), nn.ReLU(), nn.Dropout(0.15), nn.Linear(64, 64), nn.ReLU(), nn.Dropout(0.15)]
    trunk, heads = nn.Sequential(*layers), nn.ModuleList(nn.Linear(64, 1) for _ in names)
    model = nn.ModuleList([trunk, heads])
    x, basis = torch.randn(128, 20), torch.randn(20, 2)
    y = torch.stack([(x @ basis)[:, k % 2] * (1 if k < 4 else -1) + 0.3 * torch.randn(128) for k in range(6)])
    start = {name: value.clone() for name, value in model.state_dict().items()}
    group = [k for k in range(6) if torch.rand(()) < 0.4] or [0]
    rows: list[Tensor] = []

    def closure() -> tuple[dict[str, Tensor], Tensor]:
        z = trunk(x)
        found = [(head(z)[:, 0] - part).pow(2).mean() for head, part in zip(heads, y, strict=True)]
        return dict(zip(names, found, strict=True)), z

    def note(_: object, before: Tensor, after: Tensor) -> None:
        rows.append(((before - after) / before)[0])

    def note_pairs(values: Tensor) -> None:
        rows.append(values[group].sum(0))

    seen = {}
    for way, (measure, replay) in WAYS.items():
        model.load_state_dict(start)
        optimizer = torch.optim.AdamW(model.parameters(), lr=rate, weight_decay=0.0)
        updates = motet.GroupedUpdates(
            names, optimizer, grouping="all", measure=measure, replay=replay, regroup_every=1
        )  # type: ignore[arg-type]
        # Only this group: the others would blur what is compared.
        updates._schedule.next = lambda: ([group], False)  # type: ignore[method-assign]
        updates.affinity.update_batch = note  # type: ignore[method-assign]
        updates.affinity.update_pairs = note_pairs  # type: ignore[method-assign]
        torch.manual_seed(seed + 1000)
        updates.step(closure)
        seen[way] = rows.pop().tolist()
    after = {name: value.clone() for name, value in model.state_dict().items()}
    model.double()
    x, y = x.double(), y.double()
    means = []
    for state in (start, after):
        model.load_state_dict(state)
        torch.manual_seed(0)
        with torch.no_grad():
            means.append(torch.stack([torch.stack(list(closure()[0].values())) for _ in range(400)]).mean(0))
    return seen, (1 - means[1] / means[0]).tolist()


CLUSTERS = [[0, 1, 2, 3], [4, 5, 6, 7], [8, 9, 10]]
RULES = {
    "paper, pairwise": {"attribution": "paper"},
    "released (lagged)": {"attribution": "released"},
    "regression": {"estimator": "regression"},
}


def recovery(options: argparse.Namespace) -> None:
    """K = 11 in 3 clusters: B is .08 on oneself, .03 within a cluster, -.03 across, plus noise on every measurement.

    300 batches: 30 of single tasks, then the partition that the rule itself finds, every tenth batch a random one into
    four groups. The adjusted Rand index of the last partition with the planted one, over seeds.
    """
    tasks = 11
    label = np.empty(tasks, dtype=int)
    for index, cluster in enumerate(CLUSTERS):
        label[cluster] = index
    truth = np.where(label[:, None] == label[None, :], 0.03, -0.03)
    np.fill_diagonal(truth, 0.08)
    noises = (0.001, 0.003, 0.01, 0.03, 0.1, 0.3, 1.0)
    rows: dict[str, list[float]] = {}
    for rule, how in RULES.items():
        for method in ("correlation", "affinity-propagation"):
            means = []
            for noise in noises:
                scores = []
                for seed in range(options.seeds):
                    affinity = Affinity([str(k) for k in range(tasks)], decay=1e-3, **how)  # type: ignore[arg-type]
                    found = simulate(affinity, truth, noise, seed, method)
                    guess = np.empty(tasks, dtype=int)
                    for index, group in enumerate(found):
                        guess[group] = index
                    scores.append(adjusted_rand_score(label, guess))
                means.append(statistics.fmean(scores))
            rows[f"{rule} + {method}"] = means
            print(f"{rule} + {method}:", dict(zip(noises, (round(m, 2) for m in means), strict=True)), flush=True)
    if options.picture:
        figure, axis = plt.subplots(figsize=(6, 3.8), layout="constrained")
        colours = dict(zip(RULES, ("#1b4965", "#8c8c8c", "#c8553d"), strict=True))
        for name, means in rows.items():
            rule, _, method = name.rpartition(" + ")
            axis.plot(
                noises,
                means,
                "-" if method == "correlation" else ":",
                color=colours[rule],
                marker="o",
                ms=4,
                label=name,
            )
        axis.axvline(0.03, color="#cccccc", lw=1, zorder=0)
        axis.annotate("size of the effect", (0.03, 0.02), rotation=90, color="#888888", fontsize=8, ha="right")
        axis.set(xscale="log", xlabel="noise of a measurement", ylabel="adjusted Rand index")
        axis.spines[["top", "right"]].set_visible(False)
        figure.legend(loc="outside lower center", ncols=2, frameon=False, fontsize=8)
        figure.savefig(options.picture, dpi=150)


def simulate(affinity: Affinity, truth: np.ndarray, noise: float, seed: int, method: str) -> list[list[int]]:
    """300 batches of group measurements, fed back into the partition."""
    random = np.random.default_rng(seed)
    tasks = len(truth)
    groups = [[task] for task in range(tasks)]
    for batch in range(300):
        if batch >= 30 and batch % 10 == 0:
            options = {"significance": 1.0} if method == "correlation" else {}
            groups = partition(affinity, method, previous=groups, **options)  # type: ignore[arg-type]
        now = groups
        if batch >= 30 and batch % 10 == 9:
            drawn = random.integers(4, size=tasks)
            now = [list(np.flatnonzero(drawn == part)) for part in range(4) if (drawn == part).any()]
        order = [now[index] for index in random.permutation(len(now))]
        losses = np.ones(tasks)
        for place, group in enumerate(order[:-1]):
            after = losses * (1 - truth[group].sum(0) - noise * random.standard_normal(tasks))
            affinity.update_vectors(group, torch.from_numpy(losses), torch.from_numpy(after), order[place + 1])
            losses = after
            losses = np.where(losses > 0.05, losses, 1.0)
    return partition(affinity, method, **({"significance": 1.0} if method == "correlation" else {}))  # type: ignore[arg-type]


TOPICS = {f.__name__: f for f in (overhead, cost, regroup, memory, noise, recovery)}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("topic", choices=list(TOPICS))
    parser.add_argument("--rounds", type=int, default=15)
    parser.add_argument("--seeds", type=int, default=10)
    parser.add_argument("--models", nargs="+", default=["mlp", "conv"])
    parser.add_argument("--rate", type=float, default=1e-3)
    parser.add_argument("--picture", type=Path)
    options = parser.parse_args()
    torch.set_num_threads(1)
    TOPICS[options.topic](options)


if __name__ == "__main__":
    sys.exit(main())
