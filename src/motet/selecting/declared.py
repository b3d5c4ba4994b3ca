"""``--outcome``: which columns are the outcomes, and of what kind."""

import difflib
from collections.abc import Sequence
from dataclasses import dataclass

import pandas as pd

from motet.columns import find, some, text
from motet.estimators.outcomes import Survival

KINDS = ("continuous", "binary", "ordinal", "count", "nominal", "survival")
_OTHER = {"regression": "continuous", "multiclass": "nominal", "categorical": "nominal", "surv": "survival"}


@dataclass(frozen=True)
class Declared:
    """One outcome as it was asked for.

    Attributes:
        name: Of the outcome.
        kind: As `MixedOutcomeNet` takes it.
        columns: Of the table.
        order: Its classes from the lowest to the highest, where they were given.
    """

    name: str
    kind: str | Survival
    columns: tuple[str, ...]
    order: tuple[str, ...] = ()


def read_declarations(given: Sequence[str], columns: Sequence[str]) -> list[Declared]:
    """The outcomes that were named; a column whose own name has a colon wins.

    Raises:
        ValueError: for none, an unknown column or kind, or a column that is in two outcomes.
    """
    if not given:
        raise ValueError("name at least one outcome, such as --outcome age er:binary os:survival=time,event")
    found = [_one(one, columns) for one in given]
    used: dict[str, str] = {}
    names: set[str] = set()
    for outcome in found:
        if outcome.name in names:
            raise ValueError(f"outcome {outcome.name!r} is named twice: leave one out")
        names.add(outcome.name)
        for column in outcome.columns:
            if column in used:
                raise ValueError(
                    f"column {column!r} is in the outcomes {used[column]!r} and {outcome.name!r}: leave one out"
                )
            used[column] = outcome.name
    return found


def ordered(raw: pd.Series, outcome: Declared, *, new: bool = False) -> pd.Series:
    """A column as ordered categories where an order was given; new rows need not have all classes.

    Raises:
        ValueError: if its classes are others than those of the order, or it needs an order and has none.
    """
    known = raw.dropna()
    labels = list(dict.fromkeys(text(value) for value in known))
    if not outcome.order:
        declared = isinstance(raw.dtype, pd.CategoricalDtype) and raw.dtype.ordered
        textual = not declared and not pd.api.types.is_numeric_dtype(raw) and not pd.api.types.is_bool_dtype(raw)
        if outcome.kind == "ordinal" and textual and pd.to_numeric(known, errors="coerce").isna().any():
            example = ",".join(sorted(labels)[:4])
            raise ValueError(
                f"outcome {outcome.name!r} is ordinal and its classes are text: say their order from the lowest on, as "
                f"in --outcome {outcome.name}:ordinal={example}"
            )
        return raw
    if missing := [label for label in labels if label not in outcome.order]:
        raise ValueError(
            f"outcome {outcome.name!r} has the classes {some(missing)}, which {outcome.name}:{outcome.kind}="
            f"{','.join(outcome.order)} leaves out: name all of them"
        )
    if not new and (absent := [label for label in outcome.order if label not in labels]):
        raise ValueError(f"outcome {outcome.name!r} has no class {absent[0]!r}: it has {some(labels)}")
    values = raw.map(text, na_action="ignore")
    return pd.Series(pd.Categorical(values, categories=outcome.order, ordered=True), index=raw.index)


def _one(given: str, columns: Sequence[str]) -> Declared:
    if given in columns:
        return Declared(given, "infer", (given,))
    head, equals, details = given.partition("=")
    name, colon, kind = head.rpartition(":")
    if not colon:
        return Declared(find(given, columns, "for the outcome"), "infer", (given,))
    kind = _kind(name, kind)
    if kind == "survival":
        return _survival(name, details, columns)
    find(name, columns, "for the outcome")
    order = tuple(part.strip() for part in details.split(",")) if equals else ()
    if equals and kind not in ("ordinal", "binary"):
        raise ValueError(f"outcome {name!r} is {kind}, which has no order of classes: leave out {'=' + details!r}")
    if equals and (len(set(order)) < len(order) or len(order) < 2 or not all(order)):
        raise ValueError(f"the classes of {name!r} must be two or more and differ, not {details!r}")
    if kind == "binary" and len(order) > 2:
        raise ValueError(f"outcome {name!r} is binary and {details!r} has {len(order)} classes: make it ordinal")
    return Declared(name, kind, (name,), order)


def _kind(name: str, kind: str) -> str:
    if kind in KINDS:
        return kind
    near = [_OTHER[kind]] if kind in _OTHER else difflib.get_close_matches(kind, KINDS, n=1)
    hint = f"did you mean {name}:{near[0]}?" if near else f"it is one of {', '.join(KINDS)}"
    raise ValueError(f"outcome {name!r} can't be of kind {kind!r}: {hint}")


def _survival(name: str, details: str, columns: Sequence[str]) -> Declared:
    """TIME,EVENT, where a comma may also be in a column's name."""
    usage = f"say where its time and its event (1) or censoring (0) are: --outcome {name or 'os'}:survival=TIME,EVENT"
    if not name:
        raise ValueError(f"a survival outcome needs a name: {usage}")
    parts = details.split(",")
    pairs = [(",".join(parts[:i]).strip(), ",".join(parts[i:]).strip()) for i in range(1, len(parts))]
    if not pairs or not all(pairs[0]):
        raise ValueError(f"outcome {name!r} is a survival time: {usage}")
    time, event = next(((t, e) for t, e in pairs if t in columns and e in columns), pairs[0])
    find(time, columns, f"for the time of outcome {name!r}")
    find(event, columns, f"for the event of outcome {name!r}")
    if time == event:
        raise ValueError(f"outcome {name!r} has the column {time!r} for its time and its event: {usage}")
    return Declared(name, Survival(time, event), (time, event))
