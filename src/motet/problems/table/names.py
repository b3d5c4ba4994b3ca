"""Columns whose names sound like outcomes: to be proposed as targets, and doubted as features."""

import re
from collections.abc import Iterable

from motet.columns import some

# Words of names such as "hospdead", "days_to_death", "tumor grade", "y2". What they mean is for the user to say.
_WORDS = (
    *("outcome", "target", "label", "response", "endpoint", "result", "event", "score", "rating", "quality"),
    *(
        "dead",
        "death",
        "died",
        "mortality",
        "surviv",
        "alive",
        "relapse",
        "recur",
        "readmi",
        "remission",
        "progression",
    ),
    *("grade", "stage", "status", "diagnos", "toxicity", "severity", "disease", "cancer", "stay", "duration"),
    *("price", "cost", "charge", "sales", "revenue", "demand", "yield", "churn", "fraud", "fail", "defect"),
)
_WHOLE = {"y", "class", "los", "slos", "er", "pr", "os", "pfs", "her2", "ill"}


def outcomes_among(names: Iterable[str]) -> list[str]:
    """A warning of features that sound like outcomes; none where there is nothing to say."""
    if not (found := [name for name in names if named_as_outcome(name)]):
        return []
    return [
        f"by name, {some(found)} may be {'outcomes' if len(found) > 1 else 'an outcome'} too, and "
        f"{'are features' if len(found) > 1 else 'is a feature'} here: leave out with --drop what is known only after "
        "the targets"
    ]


def named_as_outcome(name: str) -> bool:
    """Whether a word of the name says so."""
    words = re.split(r"[^a-z0-9]+", re.sub(r"(?<=[a-z])(?=[A-Z])", "_", name).lower())
    return any(word in _WHOLE or any(word.startswith(w) or word.endswith(w) for w in _WORDS) for word in words if word)
