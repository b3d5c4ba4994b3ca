"""Predictions on the outcome's own scale: do intervals hold what they promise, and are survival curves good?

python benchmarks/mixed_outcomes_scale.py coverage --reps 20              # heavy tails, 1,000 test rows each
python benchmarks/mixed_outcomes_scale.py coverage --data gse7390 --reps 20
python benchmarks/mixed_outcomes_scale.py survival --reps 20              # integrated Brier score beside Coxnet

Coverage is of nominal 90 % intervals, its error over repetitions; of survival the lower bound's. Coxnet's penalty is
chosen by the same five folds' concordance as in mixed_outcomes.py. Scores are of uncensored test times.
"""

import argparse
import warnings
from statistics import fmean, stdev
from typing import Any

import numpy as np
import pandas as pd
import torch

from mixed_outcomes_data import TABLES, load
from mixed_outcomes_peers import Target, concordance, folds, rank_table, read
from motet.estimators import MixedOutcomeNetCV
from motet.metrics.survival import integrated_brier_score
from motet.testing.mixed_outcomes import simulate

LEVEL = 0.9


def net(outcomes: dict[str, Any], seed: int) -> MixedOutcomeNetCV:
    return MixedOutcomeNetCV(outcomes, cv=5, selection="1se", n_lambdas=20, random_state=seed)


def held(interval: pd.DataFrame, targets: list[Target]) -> dict[str, np.ndarray]:
    """Which test values lie inside, by outcome; censored times count where they are known to be outlived."""
    found = {}
    for target in targets:
        lower, upper = interval[target.name, "lower"].to_numpy(float), interval[target.name, "upper"].to_numpy(float)
        y, known = target.y, target.known
        if target.event is not None:
            known = known & ((target.event > 0) | (y >= lower))
        found[target.name] = ((y >= lower) & (y <= upper))[known]
    return found


def coverage(options: argparse.Namespace) -> None:
    shares: dict[str, list[float]] = {}
    for seed in range(options.reps):
        if options.data:
            table = load(options.data)
            train, test = table.splits(max(20, options.reps))[seed]
            X, X_test, _ = table.prepared(train, test, 1000)
            every = read(table.Y, table.outcomes)
            Y, outcomes = rank_table([target.at(train) for target in every])
            targets = [target.at(test) for target in every]
        else:
            drawn = simulate("S3", options.n, options.p, 8, seed)
            fresh = simulate("S3", 1000, options.p, 8, 1_000_000 + seed, censoring=0.0)
            X, X_test, targets = drawn.X, fresh.X, read(fresh.Y, fresh.outcomes)
            Y, outcomes = rank_table(read(drawn.Y, drawn.outcomes))
        made = net(outcomes, seed).fit(X, Y)
        for name, inside in held(made.predict_interval(X_test, LEVEL), targets).items():
            shares.setdefault(name, []).append(float(inside.mean()))
        print(seed, {name: round(values[-1], 3) for name, values in shares.items()}, flush=True)
    print("\n| outcome | coverage of 90 % intervals | runs |\n| --- | ---: | ---: |")
    for name, values in shares.items():
        error = stdev(values) / len(values) ** 0.5
        print(f"| {name} | {fmean(values):.3f} ± {error:.3f} | {len(values)} |")


def coxnet_curves(X: np.ndarray, target: Target, X_test: np.ndarray, times: np.ndarray, seed: int) -> np.ndarray:
    from sksurv.linear_model import CoxnetSurvivalAnalysis
    from sksurv.util import Surv

    def fitted(rows: np.ndarray, **grid: Any) -> Any:
        model = CoxnetSurvivalAnalysis(l1_ratio=1.0, fit_baseline_model=True, **grid)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            return model.fit(X[rows], Surv.from_arrays(target.event[rows] > 0, target.y[rows]))

    whole = fitted(np.arange(len(X)), n_alphas=60, alpha_min_ratio=0.05)
    curve = np.zeros(len(whole.alphas_))
    for train, out in folds(len(X), seed):
        part = fitted(train, alphas=whole.alphas_)
        for at, alpha in enumerate(whole.alphas_):
            curve[at] += concordance(target.at(out), -part.predict(X[out], alpha=alpha)) / 5
    alpha = whole.alphas_[int(np.argmax(curve))]
    functions = whole.predict_survival_function(X_test, alpha=alpha)
    return np.stack([function(np.clip(times, *function.domain)) for function in functions])


def survival(options: argparse.Namespace) -> None:
    rows = []
    for seed in range(options.reps):
        drawn = simulate("S3", options.n, options.p, 8, seed)
        fresh = simulate("S3", 1000, options.p, 8, 1_000_000 + seed, censoring=0.0)
        targets, truth = read(drawn.Y, drawn.outcomes), read(fresh.Y, fresh.outcomes)
        target = next(target for target in targets if target.kind == "survival")
        test = next(target for target in truth if target.kind == "survival")
        times = np.unique(np.quantile(target.y[target.event > 0], np.linspace(0.05, 0.85, 60)))
        Y, outcomes = rank_table(targets)
        several = net(outcomes, seed).fit(drawn.X, Y)
        alone = net({target.name: outcomes[target.name]}, seed).fit(drawn.X, Y)
        curves = {
            "motet, five outcomes": several.predict_survival_function(fresh.X, times)[target.name].to_numpy(),
            "motet, survival alone": alone.predict_survival_function(fresh.X, times)[target.name].to_numpy(),
            "Coxnet": coxnet_curves(drawn.X, target, fresh.X, times, seed),
            "Kaplan–Meier": np.tile(marginal(target, times), (1000, 1)),
        }
        rows.append(
            {name: integrated_brier_score(test.y, test.event, S, times) for name, S in curves.items()}
            | {"times without a curve": float(np.isnan(curves["motet, five outcomes"]).mean())}
        )
        print(seed, {name: round(value, 4) for name, value in rows[-1].items()}, flush=True)
    table = pd.DataFrame(rows)
    print("\n| | integrated Brier score | − Coxnet |\n| --- | ---: | ---: |")
    for name in table.columns[:4]:
        apart = table[name] - table["Coxnet"]
        print(f"| {name} | {table[name].mean():.4f} | {apart.mean():+.4f} ± {1.96 * apart.sem():.4f} |")


def marginal(target: Target, times: np.ndarray) -> np.ndarray:
    from sksurv.nonparametric import kaplan_meier_estimator

    at, chance = kaplan_meier_estimator(target.event > 0, target.y)
    return chance[np.searchsorted(at, times, side="right") - 1]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("topic", choices=("coverage", "survival"))
    parser.add_argument("--data", choices=TABLES)
    parser.add_argument("--reps", type=int, default=20)
    parser.add_argument("-n", type=int, default=400)
    parser.add_argument("-p", type=int, default=20)
    options = parser.parse_args()
    torch.set_num_threads(1)
    {"coverage": coverage, "survival": survival}[options.topic](options)


if __name__ == "__main__":
    main()
