"""Mixed outcomes with shared sparsity: simulations of known truth, two real studies, and speed, beside the peers.

python benchmarks/mixed_outcomes.py simulations --scenarios S3 --reps 20   # resumes: what is in the file isn't redone
python benchmarks/mixed_outcomes.py simulations --scenarios S4:overlap=0 S5:missing=0.6 --methods motet Coxnet
python benchmarks/mixed_outcomes.py real --data gse7390 gse1992            # --permuted for the control
python benchmarks/mixed_outcomes.py table                                  # Markdown of all lines in the file
python benchmarks/mixed_outcomes.py speed                                  # losses and path

Each line of the file is one (data, n, p, s, seed, method, rule of choice). scikit-survival, lassonet, SurvSet and
numba are needed by the peers, the data and the loop that they name: where one is absent, it is skipped with a message.
Two processes may share a file if their seeds (``--first``) differ.
"""

import argparse
import importlib.util
import json
import math
import time
from collections import defaultdict
from collections.abc import Iterator
from functools import partial
from itertools import combinations
from pathlib import Path
from statistics import fmean, stdev
from typing import Any

import numpy as np
import torch
from scipy.stats import t as student

from mixed_outcomes_data import TABLES, load
from mixed_outcomes_peers import (
    METHODS,
    NEEDS,
    RULES,
    Method,
    Target,
    TypedNet,
    concordances,
    folds,
    read,
    tuned,
    within,
)
from motet.problems.packages import DataError
from motet.testing.mixed_outcomes import simulate
from timing import CLOCKS, medians

SCENARIOS = [
    *("S1", "S2", "S3", "S3:censoring=0.6"),
    *("S4:overlap=1", "S4:overlap=0.5", "S4:overlap=0"),
    *("S5:missing=0", "S5:missing=0.3", "S5:missing=0.6"),
    *("S6:variant=null", "S6:variant=misspecified"),
]
KEY = ("data", "n", "p", "s", "seed", "method")
ORACLES = {"oracle S": None, "oracle f": None}
Line = dict[str, Any]


# The file of results.


def lines(path: Path) -> list[Line]:
    """All lines; a last one that was cut off counts as not done."""
    found = []
    for line in path.read_text().splitlines() if path.is_file() else []:
        try:
            found.append(json.loads(line))
        except json.JSONDecodeError:
            print(f"skipped a line of {path} that is cut off: {line[:60]}…")
    return found


def append(path: Path, new: list[Line]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("a") as file:
        file.write("".join(json.dumps(line) + "\n" for line in new))


def key(line: Line) -> tuple[Any, ...]:
    return tuple(line.get(name) for name in KEY)


# One fit and what it is worth.


def chosen(options: argparse.Namespace) -> dict[str, Method | None]:
    """The methods that were asked for and whose packages are there."""
    every: dict[str, Method | None] = {**METHODS, **ORACLES}
    wanted = options.methods or list(every)
    if unknown := [name for name in wanted if name not in every]:
        raise SystemExit(f"there is no method {unknown[0]!r}: there are {', '.join(every)}")
    absent = {name for name in wanted if name in NEEDS and importlib.util.find_spec(NEEDS[name]) is None}
    for name in sorted(absent):
        print(f"skipped {name}: {NEEDS[name]} is not installed")
    return {name: every[name] for name in wanted if name not in absent}


def fit(
    method: Method,
    X: np.ndarray,
    targets: list[Target],
    seed: int,
    test: tuple[np.ndarray, list[Target]],
    base: Line,
    truth: tuple[np.ndarray, np.ndarray] | None = None,
) -> list[Line]:
    """A line for each rule of choice; the time is of tuning and fitting, for both rules together."""
    start, cpu = time.perf_counter(), time.process_time()
    made = method(X, targets, folds(len(X), seed), seed)
    spent = {"seconds": round(time.perf_counter() - start, 2), "cpu": round(time.process_time() - cpu, 2)}
    found: list[Line] = []
    for rule in RULES:
        scores = made[rule].predict(test[0])
        if np.isnan(scores).all():
            return []  # none of these outcomes is of a kind that the method is for
        chose = selection(made[rule].selected, *(truth or (None, None)))
        found.append(base | {"rule": rule} | worth(scores, test[1]) | chose | spent)
    return found


def worth(scores: np.ndarray, targets: list[Target]) -> Line:
    reached = concordances(targets, scores)
    found = {
        target.name: None if math.isnan(c) else round(float(c), 5) for target, c in zip(targets, reached, strict=True)
    }
    done = [c for c in found.values() if c is not None]
    return {"c": found, "mean_c": fmean(done) if len(done) == len(found) else None}


def selection(selected: np.ndarray | None, support: np.ndarray | None, supports: np.ndarray | None) -> Line:
    """The columns that any task uses; with a truth also how right they are, and the mean over tasks that chose alone.

    FDP of nothing selected is 0; TPR and F1 of an empty truth are not defined.
    """
    if selected is None:
        return {"selected": None, "size": None}
    union = selected if selected.ndim == 1 else selected.any(0)
    found: Line = {"selected": np.flatnonzero(union).tolist(), "size": int(union.sum())}
    if support is None or supports is None:
        return found
    found |= rates(union, support)
    if selected.ndim == 2:
        alone = [rates(row, truth) for row, truth in zip(selected, supports, strict=True) if row.any() or truth.any()]
        for name in ("tpr", "fpr"):
            values = [rate[name] for rate in alone if rate[name] is not None]
            found[f"{name}_task"] = fmean(values) if values else None
    return found


def rates(selected: np.ndarray, support: np.ndarray) -> Line:
    true, false = int((selected & support).sum()), int((selected & ~support).sum())
    return {
        "tpr": true / support.sum() if support.any() else None,
        "fpr": false / (~support).sum() if not support.all() else None,
        "f1": 2 * true / (support.sum() + true + false) if support.any() else None,
        "fdp": false / max(true + false, 1),
    }


def run(options: argparse.Namespace, jobs: Iterator[tuple[Line, Any]]) -> None:
    """Each job's methods that the file doesn't have yet; one that fails leaves a line that says so, and is not done."""
    done = {key(line) for line in lines(options.out) if "failed" not in line}
    methods = chosen(options)
    for base, prepare in jobs:
        left = [name for name in methods if key(base | {"method": name}) not in done]
        if not left:
            continue
        work = prepare()
        for name in left:
            here = base | {"method": name}
            try:
                new = work(name, methods[name], here)
            except ImportError as error:
                print(f"skipped {name}: {error}")
                methods.pop(name)  # in the jobs to come, too
                continue
            except Exception as error:  # one method's failure is a result, and the others go on
                new = [here | {"failed": f"{type(error).__name__}: {error}"}]
            append(options.out, new)
            for line in new:
                print(describe(line), flush=True)


def describe(line: Line) -> str:
    head = f"{line['data']} n={line['n']} p={line['p']} seed {line['seed']}: {line['method']}"
    if "failed" in line:
        return f"{head} FAILED: {line['failed']}"
    parts = [f"{head} ({line['rule']})", f"C {number(line['mean_c'])}", f"columns {number(line['size'])}"]
    parts += [f"{name.upper()} {number(line[name])}" for name in ("tpr", "fpr") if name in line]
    return ", ".join([*parts, f"{line.get('seconds', 0):.0f} s"])


def number(value: float | None, digits: int = 3) -> str:
    if value is None:
        return "–"
    return str(value) if isinstance(value, int) else f"{value:.{digits}f}"


# Simulations.


def simulations(options: argparse.Namespace) -> None:
    def jobs() -> Iterator[tuple[Line, Any]]:
        for seed in range(options.first, options.first + options.reps):
            for scenario in options.scenarios:
                base = {"data": scenario, "n": options.n, "p": options.p, "s": options.s, "seed": seed}
                yield base, partial(simulated, scenario, options.n, options.p, options.s, seed)

    run(options, jobs())


def simulated(scenario: str, n: int, p: int, s: int, seed: int) -> Any:
    """What fits one method to one draw; the test rows, 1,000 of the same law, miss no outcome."""
    name, _, given = scenario.partition(":")
    settings: dict[str, Any] = {}
    for part in given.split(",") if given else []:
        option, _, value = part.partition("=")
        settings[option] = float(value) if value.replace(".", "", 1).isdigit() else value
    drawn = simulate(name, n, p, s, seed, **settings)
    test = simulate(name, 1000, p, s, 1_000_000 + seed, **settings | ({"missing": 0.0} if name == "S5" else {}))
    mean, deviation = drawn.X.mean(0), drawn.X.std(0)
    X, held = (drawn.X - mean) / deviation, (test.X - mean) / deviation
    targets, truth = read(drawn.Y, drawn.outcomes), read(test.Y, test.outcomes)

    def work(method_name: str, method: Method | None, base: Line) -> list[Line]:
        if method_name == "oracle f":
            spot = base | worth(test.f, truth) | selection(drawn.support, drawn.support, drawn.supports)
            return [spot | {"rule": rule, "seconds": 0.0, "cpu": 0.0} for rule in RULES]
        if method_name == "oracle S":
            if not drawn.support.any():
                return [base | {"rule": rule, "c": {}, "mean_c": None, "size": 0, "selected": []} for rule in RULES]
            method = within(tuned(TypedNet(ranks=True)), drawn.support)
        assert method is not None
        return fit(method, X, targets, seed, (held, truth), base, (drawn.support, drawn.supports))

    return work


# Real data.


def real(options: argparse.Namespace) -> None:
    def jobs() -> Iterator[tuple[Line, Any]]:
        for name in options.data:
            try:
                table = load(name)
            except DataError as error:
                print(f"skipped {name}: {error}")
                continue
            label = f"{name}, permuted" if options.permuted else name
            splits = table.splits(max(20, options.first + options.reps))
            for seed in range(options.first, options.first + options.reps):
                train, test = splits[seed]
                base = {
                    "data": label,
                    "n": len(train),
                    "p": min(options.genes, table.X.shape[1]),
                    "s": None,
                    "seed": seed,
                }
                yield base, partial(measured, table, train, test, options.genes, options.permuted, seed)

    options.methods = options.methods or list(METHODS)
    run(options, jobs())


def measured(table: Any, train: np.ndarray, test: np.ndarray, genes: int, permuted: bool, seed: int) -> Any:
    """What fits one method to one split; permuted, the training rows' outcomes are another row's, all together."""
    X, held, kept = table.prepared(train, test, genes)
    rows = np.random.default_rng(seed).permutation(train) if permuted else train
    every = read(table.Y, table.outcomes)
    targets, truth = [target.at(rows) for target in every], [target.at(test) for target in every]

    def work(_: str, method: Method | None, base: Line) -> list[Line]:
        if method is None:
            raise ValueError("there is no truth for an oracle")
        made = fit(method, X, targets, seed, (held, truth), base)
        for line in made:
            if line["selected"] is not None:
                line["selected"] = kept[line["selected"]].tolist()
        return made

    return work


# Tables.


def table(options: argparse.Namespace) -> None:
    every = [line for line in lines(options.out) if "failed" not in line]
    done = {key(line) for line in every}
    failed = {key(line): line for line in lines(options.out) if "failed" in line and key(line) not in done}
    groups: dict[tuple[Any, ...], list[Line]] = defaultdict(list)
    for line in every:
        if line["rule"] in options.rules:
            groups[line["data"], line["n"], line["p"], line["s"]].append(line)
    for (data, n, p, s), group in groups.items():
        print(f"\n### {data}: n = {n}, p = {p}" + (f", s = {s}" if s else "") + "\n")
        tasks = max((list(line["c"]) for line in group), key=len)
        simulated_data = s is not None
        head = ["method", "rule", "runs"] + (["TPR", "FPR", "F1", "FDP"] if simulated_data else [])
        head += ["columns", "none", "Jaccard", *tasks, "mean C", f"− {options.reference}", "s"]
        print("| " + " | ".join(head) + " |\n| --- | --- |" + " ---: |" * (len(head) - 2))
        for rule in options.rules:
            reference = {
                row["seed"]: row["mean_c"] for row in group if (row["method"], row["rule"]) == (options.reference, rule)
            }
            for method in [*METHODS, *ORACLES]:
                rows = [row for row in group if (row["method"], row["rule"]) == (method, rule)]
                if rows:
                    cells = [method, rule, str(len({row["seed"] for row in rows}))]
                    print("| " + " | ".join([*cells, *summary(rows, tasks, reference, simulated_data)]) + " |")
    for line in failed.values():
        print(describe(line))


def summary(rows: list[Line], tasks: list[str], reference: dict[int, float], simulated_data: bool) -> list[str]:
    def mean(name: str, digits: int = 3) -> str:
        values = [row[name] for row in rows if row.get(name) is not None]
        return number(fmean(values), digits) if values else "–"

    cells = []
    if simulated_data:
        for name in ("tpr", "fpr", "f1", "fdp"):
            alone = f" ({mean(name + '_task')})" if any(row.get(name + "_task") is not None for row in rows) else ""
            cells.append(mean(name) + alone)
    sets = [set(row["selected"]) for row in rows if row["selected"] is not None]
    cells += [mean("size", 1), f"{fmean(not one for one in sets):.0%}" if sets else "–", number(jaccard(sets))]
    for task in tasks:
        values = [row["c"][task] for row in rows if row["c"].get(task) is not None]
        cells.append(number(fmean(values)) if values else "–")
    means = [row["mean_c"] for row in rows if row["mean_c"] is not None]
    cells.append(f"{fmean(means):.3f} ± {stdev(means) / len(means) ** 0.5:.3f}" if len(means) > 1 else mean("mean_c"))
    pairs = [(row["mean_c"], reference.get(row["seed"])) for row in rows]
    cells.append(difference([a - b for a, b in pairs if a is not None and b is not None], not simulated_data))
    return [*cells, mean("seconds", 1)]


def jaccard(sets: list[set[int]]) -> float | None:
    """Mean over pairs of runs; two empty sets agree."""
    if len(sets) < 2:
        return None
    return fmean(len(a & b) / len(a | b) if a | b else 1.0 for a, b in combinations(sets, 2))


def difference(differences: list[float], splits: bool) -> str:
    """Mean and 95 % interval of paired differences.

    Splits of the same rows overlap: their variance gets Nadeau and Bengio's factor 1/J + 0.2/0.8 instead of 1/J.
    """
    count = len(differences)
    if count < 2 or not any(differences):
        return "–"
    factor = 1 / count + (0.25 if splits else 0.0)
    half = float(student.ppf(0.975, count - 1)) * stdev(differences) * factor**0.5
    return f"{fmean(differences):+.3f} ± {half:.3f}"


# Speed.


def speed(options: argparse.Namespace) -> None:
    clock = CLOCKS[options.clock]
    if "losses" in options.topics:
        speed_of_losses(options, clock)
    if "path" in options.topics:
        speed_of_path(options, clock)


def speed_of_losses(options: argparse.Namespace, clock: Any) -> None:
    """Value and gradient of one continuous outcome, double ReLU: motet, a numba loop, and all pairs at once."""
    from motet.losses.rank import KINDS, Pairs

    rng = np.random.default_rng(0)
    sweep = None
    if importlib.util.find_spec("numba") is None:
        print("skipped the sort-plus-Fenwick loop: numba is not installed")
    else:
        from mixed_outcomes_sweep import sweep
    print("| n | " + " | ".join(("what", "ms", "of the loop")) + " |\n| ---: | --- | ---: | ---: |")
    for n in options.sizes:
        y, f = rng.standard_normal(n), rng.standard_normal(n)
        scores = torch.tensor(f, requires_grad=True)
        pairs = Pairs(torch.tensor(y))
        works: dict[str, Any] = {"motet, drelu": partial(value_and_gradient, pairs, scores, "drelu")}
        for kind in (kind for kind in KINDS if kind != "drelu" and (kind not in ("logistic", "sigmoid") or n <= 5000)):
            works[f"motet, {kind}"] = partial(value_and_gradient, pairs, scores, kind)
        if sweep is not None:
            works["numba sort and Fenwick, drelu"] = partial(sweep, y, f)
            value, gradient = sweep(y, f)
            mine = value_and_gradient(pairs, scores, "drelu")
            torch.testing.assert_close(mine[0].item(), value, rtol=1e-9, atol=1e-12)
            np.testing.assert_allclose(mine[1].numpy(), gradient, rtol=1e-7, atol=1e-12)
        if n <= 5000:
            works["all pairs at once, drelu"] = partial(dense, torch.tensor(y), scores)
        taken = medians(works, options.rounds, clock)
        loop = taken.get("numba sort and Fenwick, drelu")
        for name, seconds in taken.items():
            print(f"| {n} | {name} | {1e3 * seconds:.2f} | {number(seconds / loop if loop else None, 2)} |", flush=True)


def value_and_gradient(pairs: Any, scores: torch.Tensor, kind: str) -> tuple[torch.Tensor, torch.Tensor]:
    loss = pairs.loss(scores, kind)
    return loss.detach(), torch.autograd.grad(loss, scores)[0]


def dense(y: torch.Tensor, scores: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    better = (y[:, None] > y).double()
    loss = 1 - (better * (scores[:, None] - scores + 0.5).clamp(0, 1)).sum() / better.sum()
    return loss.detach(), torch.autograd.grad(loss, scores)[0]


def speed_of_path(options: argparse.Namespace, clock: Any) -> None:
    """The path of three outcomes by motet, and of one by LassoNet with as many penalties, n = 400 and p = 2,000."""
    from motet.estimators.path import PathOptions, fit_path
    from motet.losses.rank import Pairs

    drawn = simulate("S3", 400, 2000, kinds=("continuous", "binary", "survival"))
    targets = read(drawn.Y, drawn.outcomes)
    pairs = [Pairs(target.y, target.event) for target in targets]
    start = clock()
    X = torch.tensor(drawn.X, dtype=torch.float32)
    path = fit_path(X, pairs, [1 / 3] * 3, options=PathOptions(), generator=torch.Generator().manual_seed(0))
    mine, count = clock() - start, len(path.lambdas)
    print(f"motet: {count} penalties, 3 outcomes, {mine:.1f} s")
    if importlib.util.find_spec("lassonet") is None:
        print("skipped LassoNet: lassonet is not installed")
        return
    from mixed_outcomes_peers import lassonet

    # A step with which its path, which decides for itself where to start and end, has about as many penalties.
    start = clock()
    (peer,) = lassonet(options.multiplier, whole=True)(drawn.X, targets[:1], [np.arange(400)], 0)
    spent = clock() - start
    print(f"LassoNet: {len(peer.lambdas)} penalties, 1 outcome, {spent:.1f} s; motet takes {mine / spent:.2f} of it")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    commands = parser.add_subparsers(required=True)
    shared = argparse.ArgumentParser(add_help=False)
    shared.add_argument("--out", type=Path, default=Path("runs/mixed-outcomes.jsonl"))
    runs = argparse.ArgumentParser(add_help=False, parents=[shared])
    runs.add_argument("--reps", type=int, default=20)
    runs.add_argument("--first", type=int, default=0, help="the first seed or split")
    runs.add_argument("--methods", nargs="+", help=f"of {', '.join([*METHODS, *ORACLES])}")
    simulated_runs = commands.add_parser("simulations", parents=[runs])
    simulated_runs.add_argument("--scenarios", nargs="+", default=SCENARIOS)
    simulated_runs.add_argument("-n", type=int, default=400)
    simulated_runs.add_argument("-p", type=int, default=200)
    simulated_runs.add_argument("-s", type=int, default=8)
    simulated_runs.set_defaults(do=simulations)
    real_runs = commands.add_parser("real", parents=[runs])
    real_runs.add_argument("--data", nargs="+", choices=TABLES, default=list(TABLES))
    real_runs.add_argument("--genes", type=int, default=1000, help="those of largest variance in the training rows")
    real_runs.add_argument("--permuted", action="store_true")
    real_runs.set_defaults(do=real)
    tables = commands.add_parser("table", parents=[shared])
    tables.add_argument("--rules", nargs="+", choices=RULES, default=list(RULES))
    tables.add_argument("--reference", default="motet", help="the method that mean C is compared with, run by run")
    tables.set_defaults(do=table)
    speeds = commands.add_parser("speed")
    speeds.add_argument("--topics", nargs="+", choices=("losses", "path"), default=["losses", "path"])
    speeds.add_argument("--sizes", nargs="+", type=int, default=[1000, 5000, 20_000, 100_000])
    speeds.add_argument("--rounds", type=int, default=5)
    speeds.add_argument("--multiplier", type=float, default=1.1)
    speeds.add_argument("--clock", choices=CLOCKS, default="cpu")
    speeds.set_defaults(do=speed)
    options = parser.parse_args()
    torch.set_num_threads(1)
    options.do(options)


if __name__ == "__main__":
    main()
