"""What the results mean and do not mean, in sentences that terminal and page share."""

import math
from collections.abc import Sequence

from motet.selecting.analysis import Analysis
from motet.selecting.results import OutcomeResult

FEW_EVENTS, FEW_OF_A_CLASS = 30, 15
MANY = 12
"""Names that a sentence lists at most."""

IMPORTANCE = (
    "Importance: how much of an outcome's concordance is lost when the feature is shuffled, in the rows that were "
    "fitted. It says which outcome uses a feature, not how well that holds in other rows."
)
CONCORDANCE = (
    "Concordance: of two rows whose outcomes differ, how often the one with the larger outcome has the larger score; "
    "the AUC where there are two classes. 0.5 is chance, 1 is perfect. It is of held-out rows, ± the standard error "
    "over the folds; λ was chosen on the same folds, so expect slightly less of new rows."
)


def intervals(level: float) -> str:
    """What the share of intervals that hold is."""
    return f"In interval: the share of held-out rows in their interval, of which {100 * level:g} % are promised."


def headline(found: Analysis) -> str:
    """What was selected, in one sentence."""
    among = found.net.n_features_in_
    chosen, stable = found.selected, found.stable
    if not chosen and not stable:
        return f"None of {among:,} features is selected: an empty model predicts as well, within one standard error."
    if stable is None:
        return f"{len(chosen):,} of {among:,} features are in the model."
    model = f"{len(chosen):,} of {among:,} features are in the model"
    if not stable:
        return f"{model}, and none is stable."
    kept = "1 is" if len(stable) == 1 else f"{len(stable):,} are"
    return f"{model}, and {kept} stable: {listed(stable)}."


def listed(names: Sequence[str], most: int = MANY) -> str:
    """Names, and how many more there are."""
    return ", ".join(names[:most]) + (f" and {len(names) - most} more" if len(names) > most else "")


def cautions(found: Analysis) -> list[str]:
    """What a reader of the results must know, the gravest first."""
    said = [
        *_unfinished(found),
        *found.table.warnings,
        *_shape(found),
        *_over_selects(found),
        *(sentence for outcome in found.outcomes for sentence in _outcome(outcome)),
        *map(_plain, found.said),
    ]
    return list(dict.fromkeys(said))


def _plain(warning: str) -> str:
    """A warning of the estimator in words that need no option of Python."""
    if warning.startswith("the network at lambda="):
        return (
            "The fit at the λ that is used is not solved to the end: a feature whose exit λ is near it may be in or "
            "out by chance. MixedOutcomeNetCV in Python has max_iter for more steps."
        )
    return warning


def _unfinished(found: Analysis) -> list[str]:
    if not found.unfinished:
        return []
    rest = "what is done of it is kept" if found.unfinished == "stability selection" else "what was done of it is lost"
    return [
        f"Interrupted: the check of {found.unfinished} is not in these results; {rest}, and the same command with "
        "--resume goes on."
    ]


def _shape(found: Analysis) -> list[str]:
    rows, features = len(found.predictions), found.net.n_features_in_
    if features <= rows:
        return []
    remedy = "" if found.stability is not None else ", such as --stability 50 finds,"
    return [
        f"There are {features:,} features and {rows:,} rows: many other sets of features would predict about as well, "
        f"and other patients would give another set. Rely on stable ones{remedy} and on a second cohort."
    ]


def _over_selects(found: Analysis) -> list[str]:
    if found.stability is not None or not found.selected:
        return []
    minutes = 2 * 50 * found.seconds / (found.options.folds + 1) / 60
    return [
        "The λ that predicts well selects more features than matter: these are candidates. --resume --stability 50 "
        f"says which hold on halves of the rows, with a bound on false ones; that takes about {_minutes(minutes)} here."
    ]


def _minutes(minutes: float) -> str:
    if minutes < 1:
        return "a minute"
    return f"{minutes:.0f} minutes" if minutes < 100 else f"{minutes / 60:.0f} hours"


def _outcome(outcome: OutcomeResult) -> list[str]:
    said = []
    if outcome.kind == "survival" and outcome.rare < FEW_EVENTS:
        said.append(
            f"{outcome.name} has {outcome.rare} events: with fewer than about {FEW_EVENTS} its concordance is vague."
        )
    if outcome.kind == "binary" and outcome.rare < FEW_OF_A_CLASS:
        said.append(f"{outcome.name} has {outcome.rare} rows of its rarer class: too few for a sure concordance.")
    if math.isnan(outcome.concordance):
        said.append(f"{outcome.name} could not be scored in any fold.")
    elif not outcome.concordance - 2 * outcome.standard_error > 0.5:
        said.append(
            f"{outcome.name} is not clearly predicted better than by chance: concordance {outcome.concordance:.2f} ± "
            f"{outcome.standard_error:.2f}."
        )
    return said
