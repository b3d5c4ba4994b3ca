"""Mixed outcomes with a known truth: which columns matter, and the score behind every outcome."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import lru_cache
from typing import Any, Literal

import numpy as np
import pandas as pd
from numpy.random import Generator, default_rng
from numpy.typing import NDArray

from motet.estimators.outcomes import Survival

Floats = NDArray[np.float64]
Bools = NDArray[np.bool_]

KINDS = ("continuous", "binary", "ordinal", "count", "survival")
"""The outcomes of S3, S5 and S6, in the order of their scores f₁ … f₅."""

SCENARIOS: dict[str, dict[str, Any]] = {
    "S1": {"tasks": 3},
    "S2": {"tasks": 3},
    "S3": {"kinds": KINDS, "censoring": 0.4},
    "S4": {"tasks": 3, "overlap": 0.5},
    "S5": {"kinds": KINDS, "censoring": 0.4, "missing": 0.3},
    "S6": {"kinds": KINDS, "censoring": 0.4, "variant": "null"},
}
"""The options of each scenario and their defaults; all have ``covariance="ar"`` and ``noise=1.0``, too."""

_COMMON: dict[str, Any] = {"covariance": "ar", "noise": 1.0}
_PREVALENCES = (0.5, 0.2, 0.1)
_LEVELS = 5
_ZEROS = 0.4
_BLOCK = 10
_REFERENCE = 50_000  # rows from which what belongs to the law and not to a sample is computed
# Widths of the errors beside a score of deviation 1.
_WIDTHS = {"t2": 0.5, "normal": 0.7, "cauchy": 0.5, "logistic": 0.35, "gumbel": 0.5}


@dataclass(frozen=True)
class Simulated:
    """Rows of one scenario, and the truth about them.

    Attributes:
        X: (n, p), standard normal columns.
        Y: A column an outcome, and for survival the two columns of its declaration; NaN where missing.
        outcomes: Name of the outcome → its kind, or ``Survival(time, event)``.
        support: (p,), the columns that any outcome depends on.
        supports: (K, p), the columns that each outcome depends on.
        f: (n, K), the true scores; higher means larger, likelier or longer-lived.
        names: Of the K outcomes.
        width_column: The column that sets the errors' width and nothing else (S6, misspecified), or None.
    """

    X: Floats
    Y: pd.DataFrame
    outcomes: dict[str, str | Survival]
    support: Bools
    supports: Bools
    f: Floats
    names: list[str]
    width_column: int | None = None


@dataclass(frozen=True)
class _Recipe:
    name: str
    kind: Literal["continuous", "binary", "ordinal", "count", "survival"]
    errors: str
    score: int  # which of the five functions
    stream: int  # of random numbers, so that an outcome is the same whichever others there are
    transform: str = ""
    prevalence: float = 0.5


def simulate(name: str, n: int = 400, p: int = 200, s: int = 8, seed: int = 0, **options: Any) -> Simulated:
    """Draw rows of one of six scenarios: Y⁽ᵏ⁾ = Dₖ(fₖ(x_S) + εₖ), Dₖ increasing, S the same for all tasks but in S4.

    The columns x are standard normal with correlation 0.5^|q−r| (``covariance="ar"``) or 0.3 within blocks of 10
    (``"block"``). The s columns of S are spread evenly over the p. With a = x_S, and terms beyond s left out,

        f₁ = 1.5 a₁ + 2 sin 1.5a₂ + a₃² + a₄a₅ + a₆ − |a₇| + tanh 2a₈
        f₂ = −1.2 a₁ + a₂² + 1.5 a₃ + 1.5 tanh a₄ − a₅ + a₆a₇ + 1.2 a₈
        f₃ = a₁ + 1.2|a₂| − 1.5 sin a₃ + 1.2 a₄ + a₅ + 0.8 a₆² + 1.2 a₇ + a₈

    f₄ and f₅ are f₁ and f₂ of a rolled by three places. With s > 8 each further eight columns add the same function
    of themselves. Every fₖ is centred and scaled to standard deviation 1. Rows of all sizes and seeds come from one
    law, since its constants (scales, cuts, intercepts, the rate of censoring) are computed from a fixed sample of
    50,000 rows and not from the rows that are returned: test data are another seed.

    ========  ==========================================================  ===============================
    scenario  outcomes, with L = f + ε                                    errors ε (width beside f)
    ========  ==========================================================  ===============================
    S1        ``tasks`` (3) continuous: exp 2L, L³, L, in turns           t₂ (0.5), N (0.7), 0.7 N + 0.3
                                                                          Cauchy (0.5)
    S2        ``tasks`` (3) binary of prevalence 0.5, 0.2, 0.1            logistic (0.35)
    S3        ``kinds``: continuous exp 2L; binary of prevalence 0.5;     t₂; logistic; logistic; N;
              ordinal of 5 equal classes; count, ⌈3(exp(L − q) − 1)⌉      Gumbel of minima (0.5)
              above the 40 % quantile q and 0 below; survival exp L,
              censored independently at an exponential time,
              ``censoring`` (0.4) of the rows
    S4        S1's transforms; of each task's s columns the share         N (0.7)
              ``overlap`` (0.5) is common, the others are its own
    S5        S3, each outcome missing completely at random in the        as S3
              share ``missing`` (0.3) of rows
    S6        S3 with ``variant="null"``: f = 0, S empty; or              as S3
              ``"misspecified"``: the errors' width is multiplied by
              exp(0.75 x_c − 0.28), c outside S
    ========  ==========================================================  ===============================

    Args:
        name: ``"S1"`` … ``"S6"``.
        n: Rows.
        p: Columns.
        s: Columns that each outcome depends on; in S4 their union is larger.
        seed: Of everything that is drawn.
        **options: Those of the scenario in the table, ``covariance``, and ``noise``, a factor on the errors' widths.

    Note:
        Reconstruction: the settings of the paper's simulations are not known. Functions, correlations and purposes
        are a protocol in its spirit; f₄, f₅, the widths and the count's transform are choices made here.
    """
    if name not in SCENARIOS:
        raise ValueError(f"name must be one of {', '.join(SCENARIOS)}, not {name!r}")
    allowed = SCENARIOS[name] | _COMMON
    if unknown := sorted(set(options) - set(allowed)):
        raise ValueError(f"{name} has the options {', '.join(sorted(allowed))}, not {', '.join(unknown)}")
    given = allowed | options
    _check(given, n, p, s)
    recipes = _recipes(name, given)
    columns = _columns(p, s, recipes, given.get("overlap", 1.0))
    null = given.get("variant") == "null"
    wide = None
    if given.get("variant") == "misspecified":
        wide = next(q for q in range(p - 1, -1, -1) if q not in set(np.concatenate(columns)))
    X = _draw(default_rng([seed, 0]), n, p, given["covariance"])
    supports = np.zeros((len(recipes), p), dtype=bool)
    scores: list[Floats] = []
    parts: dict[str, Floats] = {}
    outcomes: dict[str, str | Survival] = {}
    for k, recipe in enumerate(recipes):
        law = _law(
            recipe, tuple(columns[k]), wide, given["covariance"], null, given["noise"], given.get("censoring", 0.4)
        )
        f = np.zeros(n) if null else (_score(recipe.score, X[:, columns[k]]) - law.mean) / law.deviation
        supports[k, columns[k]] = not null
        errors = law.width * _errors(recipe.errors, default_rng([seed, 1, recipe.stream]), n)
        latent = f + errors * (1 if wide is None else _widening(X[:, wide]))
        drawn = law.outcome(latent, default_rng([seed, 2, recipe.stream]))
        if "missing" in given:
            missing = default_rng([seed, 3, recipe.stream]).random(n) < given["missing"]
            drawn = {column: np.where(missing, np.nan, values) for column, values in drawn.items()}
        scores.append(f)
        parts.update(drawn)
        outcomes[recipe.name] = Survival(*drawn) if recipe.kind == "survival" else recipe.kind
    return Simulated(
        X=X,
        Y=pd.DataFrame(parts),
        outcomes=outcomes,
        support=np.asarray(supports.any(0)),
        supports=supports,
        f=np.stack(scores, 1),
        names=list(outcomes),
        width_column=wide,
    )


def _check(given: Mapping[str, Any], n: int, p: int, s: int) -> None:
    if not (n >= 1 and 1 <= s <= p):
        raise ValueError(f"n must be at least 1 and s within 1 … p, not n={n}, s={s}, p={p}")
    for option in ("censoring", "overlap", "missing"):
        high = 1.0 if option == "overlap" else 0.95
        if option in given and not 0 <= given[option] <= high:
            raise ValueError(f"{option} must be within 0 … {high:g}, not {given[option]}")
    if given["covariance"] not in ("ar", "block"):
        raise ValueError(f"covariance must be 'ar' or 'block', not {given['covariance']!r}")
    if given.get("variant", "null") not in ("null", "misspecified"):
        raise ValueError(f"variant must be 'null' or 'misspecified', not {given['variant']!r}")
    if given.get("variant") == "misspecified" and s == p:
        raise ValueError("a misspecified S6 needs a column outside the support: s must be below p")
    if "kinds" in given and not (given["kinds"] and set(given["kinds"]) <= set(KINDS)):
        raise ValueError(f"kinds must be some of {', '.join(KINDS)}, not {given['kinds']}")


def _recipes(name: str, given: Mapping[str, Any]) -> list[_Recipe]:
    if name == "S2":
        return [
            _Recipe(f"y{k + 1}", "binary", "logistic", k % 5, k, prevalence=_PREVALENCES[k % 3])
            for k in range(given["tasks"])
        ]
    if name in ("S1", "S4"):
        transforms, errors = ("exp", "cube", "identity"), ("t2", "normal", "cauchy")
        return [
            _Recipe(f"y{k + 1}", "continuous", errors[k % 3] if name == "S1" else "normal", k % 5, k, transforms[k % 3])
            for k in range(given["tasks"])
        ]
    errors_of = dict(zip(KINDS, ("t2", "logistic", "logistic", "normal", "gumbel"), strict=True))
    every = [_Recipe(kind, kind, errors_of[kind], k, k, "exp") for k, kind in enumerate(KINDS)]  # type: ignore[arg-type]
    return [recipe for recipe in every if recipe.name in given["kinds"]]


def _columns(p: int, s: int, recipes: list[_Recipe], overlap: float) -> list[NDArray[np.int64]]:
    """The columns of each task: common ones first, then its own; all together spread evenly over the p."""
    common = round(overlap * s)
    total = common + len(recipes) * (s - common)
    if total > p:
        raise ValueError(f"the outcomes depend on {total} columns together, more than p={p}")
    spread = (2 * np.arange(total) + 1) * p // (2 * total)
    shared = np.linspace(0, total - 1, common).round().astype(int)
    own = np.setdiff1d(np.arange(total), shared).reshape(s - common, len(recipes))
    return [spread[np.concatenate([shared, own[:, k]])] for k in range(len(recipes))]


def _draw(rng: Generator, n: int, p: int, covariance: str) -> Floats:
    X = rng.standard_normal((n, p))
    if covariance == "block":
        blocks = rng.standard_normal((n, -(-p // _BLOCK)))
        return np.asarray(np.sqrt(0.7) * X + np.sqrt(0.3) * np.repeat(blocks, _BLOCK, axis=1)[:, :p])
    for q in range(1, p):
        X[:, q] = 0.5 * X[:, q - 1] + np.sqrt(0.75) * X[:, q]
    return X


def _correlation(columns: NDArray[np.int64], covariance: str) -> Floats:
    distance = np.abs(columns[:, None] - columns)
    if covariance == "ar":
        return np.asarray(0.5**distance)
    same = columns[:, None] // _BLOCK == columns // _BLOCK
    return np.where(distance == 0, 1.0, 0.3 * same)


def _f1(a: Floats) -> Floats:
    linear = 1.5 * a[0] + 2 * np.sin(1.5 * a[1]) + a[5] - np.abs(a[6]) + np.tanh(2 * a[7])
    return np.asarray(linear + a[2] ** 2 + a[3] * a[4])


def _f2(a: Floats) -> Floats:
    linear = -1.2 * a[0] + 1.5 * a[2] + 1.5 * np.tanh(a[3]) - a[4] + 1.2 * a[7]
    return np.asarray(linear + a[1] ** 2 + a[5] * a[6])


def _f3(a: Floats) -> Floats:
    linear = a[0] + 1.2 * np.abs(a[1]) - 1.5 * np.sin(a[2]) + 1.2 * a[3] + a[4] + 1.2 * a[6] + a[7]
    return np.asarray(linear + 0.8 * a[5] ** 2)


def _score(which: int, active: Floats) -> Floats:
    """The function of this number on (n, s) active columns, in eights; unscaled."""
    function = (_f1, _f2, _f3, _f1, _f2)[which]
    total = np.zeros(len(active))
    for start in range(0, active.shape[1], 8):
        eight = active[:, start : start + 8]
        a = np.zeros((8, len(active)))
        a[: eight.shape[1]] = (np.roll(eight, 3, axis=1) if which >= 3 else eight).T
        total += function(a)
    return total


def _errors(kind: str, rng: Generator, n: int) -> Floats:
    if kind == "t2":
        return rng.standard_t(2, n)
    if kind == "cauchy":
        return np.where(rng.random(n) < 0.7, rng.standard_normal(n), rng.standard_cauchy(n))
    if kind == "logistic":
        return rng.logistic(size=n)
    if kind == "gumbel":
        return np.asarray(
            np.log(rng.standard_exponential(n))
        )  # exp of it is exponential: survival times with proportional hazards
    return rng.standard_normal(n)


def _widening(column: Floats) -> Floats:
    return np.asarray(np.exp(0.75 * column - 0.28))  # mean 1


@dataclass(frozen=True)
class _Law:
    """What is the same for all samples of an outcome."""

    mean: float
    deviation: float
    width: float
    outcome: Callable[[Floats, Generator], dict[str, Floats]]


@lru_cache(maxsize=64)
def _law(
    recipe: _Recipe,
    columns: tuple[int, ...],
    wide: int | None,
    covariance: str,
    null: bool,
    noise: float,
    censoring: float,
) -> _Law:
    rng = default_rng(20_260_701)
    every = np.array([*columns, *([] if wide is None else [wide])])
    root = np.linalg.cholesky(_correlation(every, covariance))
    active = rng.standard_normal((_REFERENCE, len(every))) @ root.T
    f = _score(recipe.score, active[:, : len(columns)])
    mean, deviation = float(f.mean()), float(f.std())
    f = np.zeros(_REFERENCE) if null else (f - mean) / deviation
    width = noise * _WIDTHS[recipe.errors]
    errors = width * _errors(recipe.errors, rng, _REFERENCE)
    latent = f + errors * (1 if wide is None else _widening(active[:, -1]))
    return _Law(mean, deviation, width, _outcome(recipe, latent, censoring))


def _outcome(recipe: _Recipe, reference: Floats, censoring: float) -> Callable[[Floats, Generator], dict[str, Floats]]:
    """Dₖ, with its constants from the latent values of the reference rows."""
    if recipe.kind == "survival":
        rate = _censoring_rate(np.exp(reference), censoring)
        return lambda latent, rng: _censored(np.exp(latent), rate, rng)
    if recipe.kind == "binary":
        cuts = np.quantile(reference, [1 - recipe.prevalence])
    elif recipe.kind == "ordinal":
        cuts = np.quantile(reference, np.arange(1, _LEVELS) / _LEVELS)
    elif recipe.kind == "count":
        floor = np.quantile(reference, _ZEROS)
        return lambda latent, _: {recipe.name: np.ceil(3 * np.expm1(np.clip(latent - floor, 0, 30)))}
    else:
        transform = _TRANSFORMS[recipe.transform]
        return lambda latent, _: {recipe.name: transform(latent)}
    return lambda latent, _: {recipe.name: np.searchsorted(cuts, latent).astype(float)}


_TRANSFORMS: dict[str, Callable[[Floats], Floats]] = {
    "exp": lambda latent: np.exp(np.clip(2 * latent, -700, 700)),  # t₂ errors reach where exp overflows
    "cube": lambda latent: latent**3,
    "identity": lambda latent: latent,
}


def _censored(times: Floats, rate: float, rng: Generator) -> dict[str, Floats]:
    limits = rng.standard_exponential(len(times)) / rate if rate else np.full(len(times), np.inf)
    return {"time": np.minimum(times, limits), "event": (times <= limits).astype(float)}


def _censoring_rate(times: Floats, share: float) -> float:
    """The rate r of exponential censoring with E(1 − exp(−rT)) = share, by bisection of log r."""
    if share == 0:
        return 0.0
    low, high = -20.0, 20.0
    for _ in range(60):
        middle = (low + high) / 2
        low, high = (middle, high) if np.mean(-np.expm1(-np.exp(middle) * times)) < share else (low, middle)
    return float(np.exp(middle))
