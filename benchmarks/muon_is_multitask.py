"""What optimizers make of the tasks' gradients: Muon as a multi-task learner, and how little one gradient changes.

python benchmarks/muon_is_multitask.py --json docs/images/apt.json
python benchmarks/muon_is_multitask.py real --seeds 1 --rates fastest
python benchmarks/apt_figures.py docs/images/apt.json docs/images

``synthetic`` are tasks whose gradients are made up, ``tracking`` is a mean that moves and is seen through noise, and
``real`` trains the plain sum on two problems and measures on the way; ``rates`` finds its learning rates.
"""

import argparse
import copy
import json
import math
import statistics
import sys
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.optim import Optimizer

import motet
from motet.losses import task_loss
from motet.methods import FairGrad
from motet.optim import MomentumRecorder, effective_rank, muon_for
from motet.optim.newton_schulz import newton_schulz
from motet.optim.preservation import preserved_input
from motet.problems.base import Data, Model
from motet.routes import Exact

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))
from tests.optim.tracking import fixed_error, gradients, tracking_error

Found = dict[str, Any]

# ---------------------------------------------------------------------------------------------- synthetic gradients

SCALES = (1.0, 0.1, 0.01)
SHAPE, RANK = (64, 48), 6


def random(*shape: int, seed: int) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def cosine(A: Tensor, B: Tensor) -> float:
    return float((A * B).sum() / (A.norm() * B.norm()))


def unit(A: Tensor) -> Tensor:
    return A / A.norm()


def polar(G: Tensor) -> Tensor:
    """U Vᵀ over the singular values that are not rounding."""
    U, s, Vh = torch.linalg.svd(G, full_matrices=False)
    kept = s > 1e-10 * s[0]
    return U[:, kept] @ Vh[kept]


def orthogonal(G: Tensor) -> Tensor:
    return newton_schulz(G, dtype=torch.float64)


def low_rank_tasks(seed: int, noise: float) -> tuple[Tensor, Tensor]:
    """Three gradients of rank 6, of norm 1, 0.1 and 0.01, and with noise of this share of their norm: (3, 64, 48)."""
    tasks = [
        random(SHAPE[0], RANK, seed=100 * seed + i) @ random(RANK, SHAPE[1], seed=100 * seed + 10 + i)
        for i in range(len(SCALES))
    ]
    noises = [random(*SHAPE, seed=100 * seed + 20 + i) for i in range(len(SCALES))]
    scales = torch.tensor(SCALES, dtype=torch.float64)[:, None, None]
    clean, noises = torch.stack([unit(G) for G in tasks]), torch.stack([unit(N) for N in noises])
    return scales * clean, scales * (clean + noise * noises)


def preserving(variant: str, rho: float, tasks: Tensor) -> Tensor:
    U = tasks.sum(0)[None]
    return preserved_input(variant, rho, U, U, U, tasks[:, None])[0]


RULES: dict[str, Callable[[Tensor], tuple[Tensor, Tensor]]] = {
    "SGD": lambda tasks: (tasks.sum(0), tasks.sum(0)),
    "sign (Adam's first step)": lambda tasks: (tasks.sum(0), tasks.sum(0).sign()),
    "Muon": lambda tasks: (tasks.sum(0), orthogonal(tasks.sum(0))),
    **{
        f"Muon, {variant} ρ = {rho}": lambda tasks, v=variant, r=rho: (  # type: ignore[misc]
            preserving(v, r, tasks),
            orthogonal(preserving(v, r, tasks)),
        )
        for variant in ("L1", "L2")
        for rho in (0.1, 0.5)
    },
}
"""Tasks' gradients → what the rule is given, and its update."""


def synthetic(seeds: int) -> Found:
    found: Found = {"theorem": theorem(), "opposed": opposed()}
    print(f"\nTheorem: weights change the polar factor by {found['theorem']:.1e}")
    print("Opposed in a shared space, cosines with both tasks:", found["opposed"])
    for noise in (0.0, 0.02, 0.1):
        rows = found[f"noise {noise:g}"] = {}
        print(f"\nthree tasks of norm {SCALES}, noise {noise:.0%}: cosines with the tasks, erank of input and update")
        for name, rule in RULES.items():
            lines = []
            for seed in range(seeds):
                clean, tasks = low_rank_tasks(seed, noise)
                given, update = rule(tasks)
                ranks = [float(effective_rank(x)) for x in (given, update)]
                lines.append([*(cosine(update, G) for G in clean), *ranks])
            mean = torch.tensor(lines).mean(0).tolist()
            rows[name] = {"cosines": mean[:3], "erank_input": mean[3], "erank_update": mean[4]}
            print(f"{name:28}" + "".join(f"{x:8.3f}" for x in mean[:3]) + "".join(f"{x:8.1f}" for x in mean[3:]))
    return found


def theorem() -> float:
    """Largest change of the polar factor as weights vary, of tasks in orthogonal row and column spaces."""
    left, right = torch.linalg.qr(random(12, 12, seed=0)).Q, torch.linalg.qr(random(10, 10, seed=1)).Q
    tasks = [left[:, 3 * i : 3 * i + 3] @ random(3, 3, seed=i + 2) @ right[:, 3 * i : 3 * i + 3].T for i in range(3)]
    base = polar(sum(tasks, torch.zeros(12, 10, dtype=torch.float64)))
    changes = [
        (polar(a * tasks[0] + b * tasks[1] + c * tasks[2]) - base).abs().max()
        for a, b, c in ((1, 1e-2, 1e2), (7, 0.3, 1e-4))
    ]
    return float(max(changes))


def opposed() -> dict[str, list[float]]:
    """Task 2 is -0.9 of one half of task 1 and a part of its own."""
    left, right = torch.linalg.qr(random(12, 12, seed=0)).Q, torch.linalg.qr(random(12, 12, seed=1)).Q
    half, other, own = (left[:, k : k + 3] @ right[:, k : k + 3].T for k in (0, 3, 6))
    tasks = [half + other, -0.9 * half + own]
    total = tasks[0] + tasks[1]
    return {name: [cosine(U, G) for G in tasks] for name, U in (("SGD", total), ("Muon", polar(total)))}


# ------------------------------------------------------------------------------- a moving mean seen through noise

BOUNDS = {"momentum": 0.95, "beta_min": 0.5}
TRACKERS: dict[str, dict[str, object]] = {
    "A1, previous": BOUNDS | {"rule": "A1"},
    "A2, previous": BOUNDS | {"rule": "A2"},
    "A1, momentum": BOUNDS | {"rule": "A1", "reference": "momentum"},
    "A2, momentum": BOUNDS | {"rule": "A2", "reference": "momentum"},
    "A7": BOUNDS | {"rule": "A7"},
}
CASES = (
    ("jump", 0.3), ("flip", 0.3), ("jump", 1.0), ("flip", 1.0), ("rotate", 0.3), ("static", 1.0), ("static", 3.0),
)  # fmt: skip
NOISES = (0.1, 0.3, 1.0, 3.0)


def tracking(steps: int) -> list[Found]:
    rows = []
    cases = dict.fromkeys((*CASES, *((case, s) for case in ("jump", "rotate", "static") for s in NOISES)))
    print("\nmean squared tracking error")
    for case, noise in cases:
        mu, d = gradients(case, noise, steps)
        fixed = fixed_error(mu, d)
        best = min(fixed, key=lambda beta: fixed[beta])
        row = {"fixed 0.9": fixed[0.9], "fixed 0.95": fixed[0.95], "best fixed": fixed[best]}
        row |= tracking_error(mu, d, TRACKERS)
        rows.append({"case": case, "noise": noise, "best": best, "errors": row})
        print(f"{case:7} s={noise:<4g} best {best:<5g}" + "".join(f"  {k} {x:.4f}" for k, x in row.items()), flush=True)
    return rows


# ---------------------------------------------------------------------------------------------------- real problems

PROBLEMS = ("digits-overlay", "qm9-mini")
STEPS, EVERY, WINDOW, AHEAD, DEPTH = 300, 50, 12, 20, 3
GRID_SEED = 100
Maker = Callable[[Model, float], Optimizer]
OPTIMIZERS: dict[str, tuple[Maker, tuple[float, ...]]] = {
    "SGD": (lambda m, lr: torch.optim.SGD(m.parameters(), lr=lr, momentum=0.9), (0.01, 0.03, 0.1, 0.3)),
    "AdamW": (lambda m, lr: torch.optim.AdamW(m.parameters(), lr=lr, weight_decay=0.0), (3e-4, 1e-3, 3e-3, 1e-2)),
    "Muon": (lambda m, lr: muon_for(m, lr, heads=m.heads, weight_decay=0.0), (3e-4, 1e-3, 3e-3, 1e-2, 3e-2)),
}
"""Each with its usual momentum, and learning rates to choose from."""
USUAL = {"SGD": 1e-2, "AdamW": 1e-3, "Muon": 1e-3}
"""Learning rates that these are often begun with; Muon's is scaled to AdamW's length of step."""
FASTEST = {
    "digits-overlay": {"SGD": 0.1, "AdamW": 1e-2, "Muon": 3e-3},
    "qm9-mini": {"SGD": 0.03, "AdamW": 3e-3, "Muon": 3e-3},
}
"""What ``rates`` found."""


class Training:
    """A model that trains on the plain sum, or on FairGrad's gradient of the sum's length, with given batches."""

    def __init__(self, data: Data, model: Model, optimizer: Optimizer) -> None:
        self.data, self.model, self.optimizer = data, model, optimizer

    def fork(self) -> "Training":
        """A copy that goes its own way; hooks stay behind."""
        return Training(self.data, *copy.deepcopy((self.model, self.optimizer)))

    @property
    def trunk(self) -> list[Tensor]:
        return list(self.model.trunk.parameters())

    @property
    def hidden(self) -> list[Tensor]:
        """The matrices that Muon trains: what is measured with every optimizer."""
        return [p for p in self.trunk if p.ndim == 2][1:]

    def losses(self, rows: Tensor) -> dict[str, Tensor]:
        _, outputs = self.model(self.data.train.inputs[rows])
        made = {
            task.name: task_loss(task, outputs[task.name], self.data.train.targets[task.name][rows])
            for task in self.data.tasks
        }
        return {name: loss for name, loss in made.items() if loss is not None}

    def plain(self, rows: Tensor) -> float:
        """Fill ``.grad`` with the plain sum's gradient; the summed loss."""
        self.optimizer.zero_grad()
        total = torch.stack(list(self.losses(rows).values())).sum()
        total.backward()
        return float(total.detach())

    def tasks(self, rows: Tensor) -> tuple[Tensor, Tensor]:
        """The tasks' gradients at the trunk, (K, P), and FairGrad's weights at the length of the plain sum."""
        J = Exact(list(self.losses(rows).values()), self.trunk, retain=True).rows.detach().clone()
        w = FairGrad().weights((J @ J.T).double()).to(J)
        return J, w * (J.sum(0).norm() / (w @ J).norm())

    def fair(self, rows: Tensor) -> None:
        """Fill ``.grad`` with FairGrad's at the trunk and each task's own at its head."""
        self.plain(rows)
        J, w = self.tasks(rows)
        for p, part in zip(self.trunk, (w @ J).split([p.numel() for p in self.trunk]), strict=True):
            p.grad = part.view_as(p).clone()

    def whole(self) -> Tensor:
        """The hidden matrices' gradient on all training rows: (P',)."""
        total = torch.stack(list(self.losses(torch.arange(len(self.data.train))).values())).sum()
        return torch.cat([g.flatten() for g in torch.autograd.grad(total, self.hidden)])

    def place(self) -> Tensor:
        return torch.cat([p.detach().flatten() for p in self.hidden])

    def batch_gradient(self) -> Tensor:
        return torch.cat([p.grad.flatten() for p in self.hidden if p.grad is not None])


def begin(name: str, optimizer: str, lr: float, seed: int) -> tuple[Training, Iterator[Tensor]]:
    problem = motet.problems.get(name)
    data, settings = problem.load(seed), replace(problem.training, depth=DEPTH)
    model = problem.model(data, seed, settings)
    generator = torch.Generator().manual_seed(seed)

    def batches() -> Iterator[Tensor]:
        while True:
            order = torch.randperm(len(data.train), generator=generator)
            yield from order.split(settings.batch_size)[: len(order) // settings.batch_size]

    return Training(data, model, OPTIMIZERS[optimizer][0](model, lr)), batches()


def rates() -> Found:
    """The learning rates that bring the training loss down most in as many steps, on a seed of its own."""
    found: Found = {name: {} for name in PROBLEMS}
    for name in PROBLEMS:
        for optimizer in OPTIMIZERS:
            ends = {}
            for lr in OPTIMIZERS[optimizer][1]:
                training, batches = begin(name, optimizer, lr, GRID_SEED)
                losses = []
                for _ in range(STEPS):
                    losses.append(training.plain(next(batches)))
                    training.optimizer.step()
                ends[lr] = statistics.mean(losses[-50:])
            best = min((lr for lr in ends if math.isfinite(ends[lr])), key=lambda lr: ends[lr])
            print(name, optimizer, {lr: round(end, 3) for lr, end in ends.items()}, "→", best, flush=True)
            found[name][optimizer] = best
    return found


def measure(name: str, optimizer: str, lr: float, seed: int) -> list[Found]:
    """One training of the plain sum, looked at every `EVERY` steps."""
    training, batches = begin(name, optimizer, lr, seed)
    found = []
    sizes = [p.numel() for p in training.trunk]
    where = [any(p is q for q in training.hidden) for p in training.trunk]
    with MomentumRecorder(training.optimizer, WINDOW, EVERY, training.hidden) as recorder:
        previous = None
        for step in range(1, STEPS + 1):
            rows = next(batches)
            due = recorder.due and step > EVERY
            if due:
                upcoming = [rows, *(next(batches) for _ in range(AHEAD - 1))]
                row = {"ahead": ahead(training, upcoming)}
                before, mean = training.place(), training.whole()
                J, w = training.tasks(rows)
                mine = [part for part, inside in zip(J.split(sizes, 1), where, strict=True) if inside]
                own = torch.cat(mine, 1)
                d, fair = own.sum(0), w @ own
                # Positive weights change no cosine, and the sum that the update is compared with is FairGrad's.
                recorder.tasks(w[:, None] * own, [task.name for task in training.data.tasks])
            training.plain(rows)
            now = training.batch_gradient()
            training.optimizer.step()
            if due:
                measured = recorder.steps[-1]
                after = training.whole()
                update = before - training.place()
                noise, drift = float((now - mean).square().sum()), float((after - mean).square().sum())
                parts = [p.numel() for p in training.hidden]
                shapes = [p.shape for p in training.hidden]
                ranks = {
                    key: statistics.mean(
                        float(effective_rank(x.view(s))) for x, s in zip(v.split(parts), shapes, strict=True)
                    )
                    for key, v in (("gradient", now), ("update", update))
                }
                row |= {
                    "step": step, "shares": measured.shares, "older": measured.older, "instant": measured.instant,
                    "nominal": measured.nominal, "cosine_gradient": measured.cosine_gradient,
                    "cosines": measured.cosine_tasks, "counterfactual": measured.counterfactual,
                    "gradient_changed": float((d - fair).norm() / d.norm()),
                    "norms": dict(zip(measured.cosine_tasks, own.norm(dim=1).tolist(), strict=True)),
                    "gradient_cosines": dict(zip(measured.cosine_tasks, [cosine(d, g) for g in own], strict=True)),
                    "erank": ranks, "noise": noise, "drift": drift, "mean": float(mean.square().sum()),
                    "successive": None if previous is None else cosine(now, previous),
                }  # fmt: skip
                found.append(row)
            previous = now
    return found


def ahead(training: Training, batches: Sequence[Tensor]) -> list[float]:
    """How far FairGrad's way is from the plain sum's after 1, 2, … steps from here on equal batches.

    The difference of both displacements as a share of the plain sum's.
    """
    start = training.place()
    ways = [training.fork(), training.fork()]
    found = []
    for rows in batches:
        ways[0].plain(rows)
        ways[1].fair(rows)
        for way in ways:
            way.optimizer.step()
        plain, other = (way.place() - start for way in ways)
        found.append(float((plain - other).norm() / plain.norm()))
    return found


def real(seeds: int, kinds: Sequence[str]) -> Found:
    found: Found = {}
    for name in PROBLEMS:
        found[name] = {}
        for optimizer in OPTIMIZERS:
            usual = USUAL[optimizer]
            rates = {"slow": usual / 10, "usual": usual, "fastest": FASTEST[name][optimizer]}
            found[name][optimizer] = {}
            for kind in kinds:
                lr = rates[kind]
                steps = [row for seed in range(seeds) for row in measure(name, optimizer, lr, seed)]
                found[name][optimizer][kind] = summary(steps) | {"lr": lr}
                print_summary(f"{name}, {optimizer}, {kind}", found[name][optimizer][kind])
    return found


def middle(values: Sequence[float | None]) -> float:
    """The median, in which what diverged is infinite."""
    known = [value if math.isfinite(value) else math.inf for value in values if value is not None]
    return statistics.median(known)


def summary(steps: list[Found]) -> Found:
    """Medians over the measured steps of all seeds; tasks ordered from the longest gradient to the shortest."""
    tasks = sorted(steps[0]["norms"], key=lambda task: -middle([step["norms"][task] for step in steps]))
    same = ("instant", "nominal", "older", "cosine_gradient", "counterfactual", "gradient_changed", "successive")
    return {
        "measured": len(steps),
        **{key: middle([step[key] for step in steps]) for key in same},
        "shares": [middle([step["shares"][k] for step in steps]) for k in range(WINDOW)],
        "ahead": [middle([step["ahead"][k] for step in steps]) for k in range(AHEAD)],
        "norms": {task: middle([step["norms"][task] for step in steps]) for task in tasks},
        "cosines": {task: middle([step["cosines"][task] for step in steps]) for task in tasks},
        "gradient_cosines": {task: middle([step["gradient_cosines"][task] for step in steps]) for task in tasks},
        "worst": middle([min(step["cosines"].values()) for step in steps]),
        "against": statistics.mean(min(step["cosines"].values()) < 0 for step in steps),
        "erank": {key: middle([step["erank"][key] for step in steps]) for key in ("gradient", "update")},
        "noise_to_mean": middle([(step["noise"] / step["mean"]) ** 0.5 for step in steps]),
        "drift_to_mean": middle([(step["drift"] / step["mean"]) ** 0.5 for step in steps]),
        "best_beta": middle([1 - min(1.0, (2 * step["drift"] / step["noise"]) ** (1 / 3)) for step in steps]),
    }


def print_summary(what: str, row: Found) -> None:
    print(f"\n{what}: {row['measured']} steps")
    for key, value in row.items():
        if isinstance(value, dict):
            print(f"  {key}: " + ", ".join(f"{k} {x:.3f}" for k, x in value.items()))
        elif isinstance(value, list):
            print(f"  {key}: " + " ".join(f"{x:.3f}" for x in value))
        else:
            print(f"  {key}: {value:.4g}")
    sys.stdout.flush()


def rounded(value: Any) -> Any:
    """To four digits."""
    if isinstance(value, dict):
        return {key: rounded(each) for key, each in value.items()}
    if isinstance(value, list):
        return [rounded(each) for each in value]
    return float(f"{value:.4g}") if isinstance(value, float) else value


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parts = ("synthetic", "tracking", "rates", "real")
    parser.add_argument("parts", nargs="*", choices=parts, default=list(parts))
    parser.add_argument("--seeds", type=int, default=3, help="trainings of each optimizer on each real problem")
    parser.add_argument("--rates", nargs="+", choices=("slow", "usual", "fastest"), default=["slow", "usual"])
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()
    torch.set_num_threads(1)
    kept: Found = json.loads(options.json.read_text()) if options.json and options.json.exists() else {}
    made: dict[str, Callable[[], Any]] = {
        "synthetic": lambda: synthetic(20),
        "tracking": lambda: tracking(2000),
        "rates": rates,
        "real": lambda: real(options.seeds, options.rates),
    }
    for part in options.parts:
        kept[part] = made[part]()
        if options.json:
            options.json.write_text(json.dumps(rounded(kept), indent=1) + "\n")


if __name__ == "__main__":
    main()
