"""UMDA and what is left of it without each of its blocks, beside simple models of no more parameters.

python benchmarks/umda.py run --problems mfeat musk --seeds 6    # goes on where it stopped; abmil needs torchmil
python benchmarks/umda.py run --seeds 3 --first 3                # the second half, in another process if you like
python benchmarks/umda.py controls                               # noise of the trunk's gradient, and views shuffled
python benchmarks/umda.py table                                  # what the finished runs say, as Markdown

Each arm on each problem gets the same grid of learning rate, width and dropout, on one seed that is not evaluated, by
its validation score: the mean over tasks of accuracy (AUROC of binary tasks, R² of regressions). At the chosen setting
it is trained on every seed, on the same splits and batches as all others, with AdamW, gradients clipped at 1, and the
epoch that is best in validation. A width is UMDA's; the others have the width at which they have no more parameters.
Test results are looked at in the table alone.
"""

import argparse
import itertools
import json
import math
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from scipy import special
from torch import Tensor

import motet
from motet import problems
from motet.methods import SelfGuided
from motet.nn.diagnostics import view_consistency
from motet.problems.base import Data
from umda_models import (
    ARMS,
    MEASURES,
    SIMPLE,
    Setting,
    Whole,
    build,
    evaluate,
    fit,
    loaded,
    matched,
    means,
    plan,
    skipped,
    task_losses,
)

PROBLEMS = ("mfeat", "yeast-views", "musk", "mnist-bags")
RATES, WIDTHS, DROPOUTS = (1e-3, 3e-3), (32, 64), (0.0, 0.3)
TRIAL_SEED = 100
"""Settings are chosen on it, so that no seed of the table was used for it."""
BATCHES, LEARNING = 200, 60
"""Fresh batches for the moments of the gradient, and those from which the weights are learnt before."""
Row = dict[str, Any]


GRID = [Setting(*values) for values in itertools.product(RATES, WIDTHS, DROPOUTS)]


def train(problem: str, arm: str, setting: Setting, seed: int) -> Row:
    """One row of the results: a training, or one of each task for single-task models."""
    start = time.process_time()
    data = loaded(problem, seed)
    width, count, allowed = matched(problem, arm, setting.width, TRIAL_SEED)
    begun = time.process_time()
    groups = [[task] for task in data.tasks] if ARMS[arm].single else [data.tasks]
    validation: dict[str, dict[str, float]] = {}
    test: dict[str, dict[str, float]] = {}
    row: Row = {"problem": problem, "arm": arm, "seed": seed, **vars(setting), "own_width": width}
    epochs = []
    for tasks in groups:
        model, epoch = fit(problem, arm, data, tasks, width, setting, seed)
        validation |= evaluate(model, data.validation, tasks)[0]
        measured, _, info = evaluate(model, data.test, tasks)
        test |= measured
        epochs.append(epoch)
        if "shared" in info and len(info["views"]) > 1:
            generator = torch.Generator().manual_seed(seed)
            row["views"] = view_consistency(info["shared"], info["view_mask"], generator)
            row["views"]["codes"] = info["shared"].shape[-1]
    row |= {"validation": means(validation), "test": means(test), "epochs": epochs}
    row |= {"parameters": count, "allowed": allowed}
    return row | {"tasks": test, "seconds": time.process_time() - begun, "loading": begun - start}


def key(row: Row) -> tuple[Any, ...]:
    return (row["part"], row["problem"], row["arm"], row["seed"], row["lr"], row["width"], row["dropout"])


def read(out: Path) -> list[Row]:
    """All rows; a line that was cut off is left out, and of two with one key the later counts."""
    found: dict[tuple[Any, ...], Row] = {}
    for line in out.read_text(encoding="utf-8").splitlines() if out.exists() else ():
        try:
            row = json.loads(line)
        except json.JSONDecodeError:
            continue
        found[(*key(row), row.get("stage"))] = row
    return list(found.values())


def write(out: Path, row: Row) -> None:
    out.parent.mkdir(parents=True, exist_ok=True)
    cut = out.exists() and out.stat().st_size and not out.read_bytes().endswith(b"\n")
    with out.open("a", encoding="utf-8") as file:
        file.write(("\n" if cut else "") + json.dumps(row) + "\n")


def setting_of(rows: Sequence[Row], problem: str, arm: str, grid: Sequence[Setting]) -> Setting:
    """The one with the best validation score on the trial seed."""
    score = {
        Setting(row["lr"], row["width"], row["dropout"]): row["validation"].get("score", -math.inf)
        for row in rows
        if row["part"] == "trial" and (row["problem"], row["arm"]) == (problem, arm)
    }
    missing = [setting for setting in grid if setting not in score]
    if missing:
        raise ValueError(f"{problem}, {arm}: no trial of {missing[0]} yet, run that first")
    return max(grid, key=lambda setting: score[setting])


def run(given: argparse.Namespace) -> None:
    grid = GRID[: given.settings]
    for problem in given.problems:
        arms = []
        for arm in given.arms:
            why = skipped(arm, loaded(problem, TRIAL_SEED))
            if why:
                print(f"{problem}, {arm}: left out, {why}", flush=True)
            else:
                arms.append(arm)
        for arm in arms:
            for setting in grid:
                once(given.out, "trial", problem, arm, setting, TRIAL_SEED)
        rows = read(given.out)
        for seed in range(given.first, given.first + given.seeds):
            for arm in arms:
                once(given.out, "run", problem, arm, setting_of(rows, problem, arm, grid), seed)
            loaded.cache_clear()


def once(out: Path, part: str, problem: str, arm: str, setting: Setting, seed: int) -> None:
    asked = {"part": part, "problem": problem, "arm": arm, "seed": seed, **vars(setting)}
    if key(asked) in {key(row) for row in read(out)}:
        return
    row = {"part": part} | train(problem, arm, setting, seed)
    write(out, row)
    reached = " ".join(f"{name} {value:.3f}" for name, value in row["validation"].items())
    print(
        f"{part} {problem} {arm} seed {seed} lr {setting.lr:g} width {setting.width} dropout {setting.dropout:g}: "
        f"validation {reached}, epochs {row['epochs']}, {row['seconds']:.1f} s",
        flush=True,
    )


# ---- controls


def moments(model: Whole, data: Data, batches: Iterator[Tensor], count: int) -> tuple[Tensor, Tensor]:
    """Signal and noise (K, K) of the tasks' gradients of the trunk over so many fresh batches, without bias."""
    trunk = model.trunk()
    first, squares = 0.0, torch.zeros(())
    for rows in itertools.islice(batches, count):
        losses = task_losses(model(data.train.inputs[rows])[0], data.train, rows, data.tasks)
        # A task without a label in the batch pulls nowhere.
        gradients = torch.zeros(len(data.tasks), sum(parameter.numel() for parameter in trunk), dtype=torch.float64)
        for k, task in enumerate(data.tasks):
            if task.name in losses:
                parts = torch.autograd.grad(losses[task.name], trunk, retain_graph=True, materialize_grads=True)
                gradients[k] = torch.cat([part.flatten() for part in parts])
        first, squares = first + gradients, squares + gradients @ gradients.T
    mean = first / count
    noise = (squares - count * mean @ mean.T) / (count - 1)
    return mean @ mean.T - noise / count, noise


def noise(problem: str, setting: Setting, seed: int, batches: int) -> Iterator[Row]:
    """What self-guided weights do at fixed parameters: at the start, and where UMDA's training ended.

    Weights are learnt from batches of their own. Both results are relative to uniform weights: below 0 is less noise.
    """
    data, batch = loaded(problem, seed), plan(problem)[2]
    for stage in ("start", "end"):
        if stage == "start":
            torch.manual_seed(seed)
            model = build(problem, "umda", data, data.tasks, setting.width, setting.dropout)
        else:
            model, _ = fit(problem, "umda", data, data.tasks, setting.width, setting, seed)
        assert isinstance(model, Whole)
        model.train()
        torch.manual_seed(seed)

        def draws(number: int) -> Iterator[Tensor]:
            generator = torch.Generator().manual_seed(number)
            while True:
                yield torch.randint(len(data.train), (batch,), generator=generator)

        names = [task.name for task in data.tasks]
        balancer = motet.Balancer(SelfGuided("progress", warmup=0), route="features", tasks=names)
        for rows in itertools.islice(draws(3000 + seed), LEARNING):
            outputs, info = model(data.train.inputs[rows])
            losses = task_losses(outputs, data.train, rows, data.tasks)
            step = balancer.backward({name: losses.get(name) for name in names}, features=info["features"])
        weights = step.weights
        assert weights is not None
        w = weights.as_subclass(Tensor).double()
        signal, spread = moments(model, data, draws(2000 + seed), batches)
        variance = float(w @ spread @ w / spread.sum())
        progress = float(w @ signal @ w / signal.sum())
        yield {
            "part": "noise", "problem": problem, "arm": "umda", "seed": seed, **vars(setting), "stage": stage,
            "batches": batches, "variance": variance - 1, "noise_to_signal": variance / progress - 1,
            "noise": float(spread.sum()), "signal": float(signal.sum()),
            "least": float(w.min()), "largest": float(w.max()),
        }  # fmt: skip


def controls(given: argparse.Namespace) -> None:
    """Measure the noise on every seed that has not been, then show both controls."""
    for problem in given.problems:
        rows = read(given.out)
        try:
            setting = setting_of(rows, problem, "umda", GRID[: given.settings])
        except ValueError as error:
            print(error)
            continue
        done = {row["seed"] for row in rows if (row["part"], row["problem"]) == ("noise", problem)}
        for seed in range(given.first, given.first + given.seeds):
            if seed not in done:
                for row in noise(problem, setting, seed, given.batches):
                    write(given.out, row)
                loaded.cache_clear()
    rows = [row for row in read(given.out) if row["problem"] in given.problems]
    print("| problem | arm | coherence | of shuffled views | effective rank | of | spread |")
    print("|---|---|---:|---:|---:|---:|---:|")
    for (problem, arm), group in grouped(row for row in rows if row["part"] == "run" and "views" in row):
        names = ("coherence", "shuffled", "effective_rank", "codes", "spread")
        told = {name: shown([row["views"][name] for row in group]) for name in names}
        print(f"| {problem} | {arm} | {' | '.join(told.values())} |")
    print("\n| problem | parameters | seeds | variance | noise to signal | noise over signal, uniform | weights |")
    print("|---|---|---:|---:|---:|---:|---:|")
    for (problem, stage), group in grouped((row for row in rows if row["part"] == "noise"), "stage"):
        cells = [percent([row[name] for row in group]) for name in ("variance", "noise_to_signal")]
        # An estimate of a squared mean without bias may be negative where noise hides it.
        ratio = np.mean([row["noise"] for row in group]) / np.mean([row["signal"] for row in group])
        cells.append(f"{ratio:.1f}" if ratio > 0 else "not known")
        cells.append(f"{min(row['least'] for row in group):.2f} to {max(row['largest'] for row in group):.2f}")
        print(f"| {problem} | at the {stage} | {len(group)} | {' | '.join(cells)} |")


# ---- tables


def grouped(rows: Any, second: str = "arm") -> list[tuple[tuple[str, str], list[Row]]]:
    found: dict[tuple[str, str], list[Row]] = {}
    for row in rows:
        found.setdefault((row["problem"], row[second]), []).append(row)
    return list(found.items())


def shown(values: Sequence[float]) -> str:
    spread = f" ± {np.std(values, ddof=1):.3f}" if len(values) > 1 and np.ptp(values) > 0 else ""
    return f"{np.mean(values):.3f}{spread}"


def percent(values: Sequence[float]) -> str:
    spread = f" ± {100 * np.std(values, ddof=1):.0f}" if len(values) > 1 else ""
    return f"{100 * np.mean(values):+.0f}{spread} %"


def interval(values: np.ndarray) -> tuple[float, float]:
    """Student's 95 % interval of the mean of paired differences."""
    if len(values) < 2:
        return math.nan, math.nan
    reach = float(special.stdtrit(len(values) - 1, 0.975)) * values.std(ddof=1) / math.sqrt(len(values))
    return float(values.mean() - reach), float(values.mean() + reach)


def difference(one: dict[int, Row], other: dict[int, Row], measure: str) -> str:
    """Of two arms in test, over the seeds that both have: bold where the interval leaves zero out."""
    seeds = sorted(
        seed for seed in set(one) & set(other) if all(measure in found[seed]["test"] for found in (one, other))
    )
    if not seeds:
        return "–"
    gap = np.array([one[seed]["test"][measure] - other[seed]["test"][measure] for seed in seeds])
    low, high = interval(gap)
    text = f"{gap.mean():+.3f} [{low:+.3f}, {high:+.3f}]"
    return f"**{text}**" if low > 0 or high < 0 else text


def table(given: argparse.Namespace) -> None:
    rows = read(given.out)
    for problem in given.problems:
        arms: dict[str, dict[int, Row]] = {}
        for row in rows:
            if row["part"] == "run" and row["problem"] == problem:
                arms.setdefault(row["arm"], {})[row["seed"]] = row
        if "hard" not in arms:
            continue
        measures = [name for name in MEASURES if all(name in r["test"] for r in arms["hard"].values())]
        heads = " | ".join(f"{name} | against hard" for name in measures)
        print(f"\n{problem}: mean ± deviation over seeds in test, and paired difference with its 95 % interval")
        print(f"| arm | seeds | rate, width, dropout | parameters (of UMDA's) | {heads} | seconds | last epoch |")
        print("|---|---:|---|---:|" + "---:|---|" * len(measures) + "---:|---:|")
        for arm in (name for name in ARMS if name in arms):
            group = [arms[arm][seed] for seed in sorted(arms[arm])]
            one = group[0]
            cells = [f"{one['lr']:g}, {one['width']}, {one['dropout']:g}"]
            cells.append(f"{one['parameters']} ({one['parameters'] / one['allowed']:.2f})")
            for name in measures:
                values = [row["test"][name] for row in group if name in row["test"]]
                cells.append(shown(values) if values else "–")
                cells.append("" if arm == "hard" else difference(arms[arm], arms["hard"], name))
            cells.append(f"{np.mean([row['seconds'] for row in group]):.1f}")
            cells.append(f"{sum(max(row['epochs']) >= plan(problem)[0] for row in group)}")
            print(f"| {arm} | {len(group)} | {' | '.join(cells)} |")
        print('"last epoch": of how many seeds the best epoch was the last one, so that more might have helped.')
        print(best_of_both(arms, measures))


def best_of_both(arms: dict[str, dict[int, Row]], measures: Sequence[str]) -> str:
    """The best configuration of UMDA against the best simple model, both the best in validation over the seeds."""

    def best(names: Sequence[str]) -> str:
        return max(names, key=lambda arm: np.mean([row["validation"]["score"] for row in arms[arm].values()]))

    own, simple = ([arm for arm in arms if (arm in SIMPLE) is wanted] for wanted in (False, True))
    if not own:
        return ""
    one, other = best(own), best(simple)
    gaps = "; ".join(f"{name} {difference(arms[one], arms[other], name)}" for name in measures)
    return f"\n{one} against {other}, each the best of its kind in validation: {gaps}."


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("what", choices=("run", "controls", "table"))
    parser.add_argument("--problems", nargs="+", choices=problems.available(), default=list(PROBLEMS))
    parser.add_argument("--arms", nargs="+", choices=list(ARMS), default=list(ARMS))
    parser.add_argument("--seeds", type=int, default=6, help="how many")
    parser.add_argument("--first", type=int, default=0, help="the first seed")
    parser.add_argument("--settings", type=int, default=len(GRID), help="how many of the grid, to try whether all runs")
    parser.add_argument("--batches", type=int, default=BATCHES, help="for the moments of the gradient")
    parser.add_argument("--out", type=Path, default=Path("runs/umda.jsonl"))
    given = parser.parse_args()
    torch.set_num_threads(1)
    commands: dict[str, Callable[[argparse.Namespace], None]] = {"run": run, "controls": controls, "table": table}
    commands[given.what](given)


if __name__ == "__main__":
    main()
