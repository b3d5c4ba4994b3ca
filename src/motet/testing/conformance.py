"""The record of which methods pass `check_method`, and of what was measured: ``python -m motet.testing.conformance``.

The record is kept beside the methods and shown by ``motet methods``. It is written in a checkout, where the oracles
are; with ``--check`` nothing is written, and the exit code is 1 where the record is not what is measured now.
"""

import argparse
import copy
import importlib
import json
import math
import sys
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any

import torch

from motet import methods
from motet.testing.method_report import measure
from motet.testing.methods import check_method
from motet.testing.oracle import first_is_all

PATH = Path(methods.__file__).with_name("conformance.json")
TOLERANCE = 1e-3
"""Relative: what measured lengths may differ by between two machines."""
EVERY, FIRST = "every update", "first update"
"""What an oracle's agreement says: all of a method that does the same in every step, or the start of another's."""
_DIGITS = 5

Record = dict[str, Any]


def measured(name: str, oracles: Mapping[str, Callable[..., Any]]) -> Record:
    """Whether a method passes with its default options, beside its definition where there is an oracle, and figures."""
    try:
        with _seeded():
            check_method(name, oracle=oracles.get(name))
    except AssertionError as error:
        return {"passes": False, "faults": str(error).split("\n- ")[1:]}
    compared: Record = {"oracle": False}
    if name in oracles:
        with _seeded():
            covers = EVERY if first_is_all(lambda: methods.get(name)) else FIRST
        compared = {"oracle": _how(oracles[name]), "oracle_covers": covers}
    return {"passes": True, **compared, **figures(name)}


def figures(name: str) -> Record:
    """What a method declares and was seen to do."""
    with _seeded():
        method = methods.get(name)
        report = measure(partial(copy.deepcopy, method))
    return {
        "length_agreeing": _rounded(report.length_agreeing),
        "length_conflicting": _rounded(report.length_conflicting),
        "scale": report.scale_exponent,
        "scale_declared": None if method.scale is None else _rounded(method.scale),
        "never_conflicted": report.never_conflicted,
        "no_conflict_declared": method.no_conflict,
    }


@contextmanager
def _seeded() -> Iterator[None]:
    """The same draws at every time: the generators of random methods are seeded with torch's seed."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        yield


def differences(recorded: Mapping[str, Record], now: Mapping[str, Record]) -> list[str]:
    """One line for each thing in which the record is not what is measured."""
    lines = [f"{name}: no longer a method" for name in recorded if name not in now]
    for name, record in now.items():
        if name not in recorded:
            lines.append(f"{name}: not in the record")
            continue
        for key in {**recorded[name], **record}:
            was, is_ = recorded[name].get(key), record.get(key)
            if not _alike(was, is_):
                lines.append(f"{name}: {key} is {is_}, and the record has {was}")
    return lines


def _alike(one: object, other: object) -> bool:
    numbers = [isinstance(value, int | float) and not isinstance(value, bool) for value in (one, other)]
    if all(numbers):
        return math.isclose(float(str(one)), float(str(other)), rel_tol=TOLERANCE, abs_tol=1e-9)
    return one == other


def _rounded(value: float) -> float:
    return float(f"{value:.{_DIGITS}g}")


def _how(oracle: Callable[..., Any]) -> str:
    return (oracle.__doc__ or "").strip().partition("\n")[0].rstrip(".") or "solved in another way"


def main(arguments: list[str] | None = None) -> int:
    """Write or check the record; 0 where all is well."""
    parser = argparse.ArgumentParser(prog="python -m motet.testing.conformance", description=__doc__)
    parser.add_argument("--check", action="store_true", help="write nothing; exit with 1 where the record is stale")
    parser.add_argument("--oracles", default="tests.oracles", help="module whose ORACLES are definitions by name")
    options = parser.parse_args(arguments)
    torch.set_num_threads(1)
    oracles: dict[str, Callable[..., Any]] = importlib.import_module(options.oracles).ORACLES
    if unknown := sorted(set(oracles) - set(methods.available())):
        parser.error(f"{options.oracles} has oracles of what is no method: {', '.join(unknown)}")
    now = {name: measured(name, oracles) for name in methods.available()}
    for name, record in now.items():
        for fault in record.get("faults", ()):
            print(f"{name}: {fault}")
    failing = [name for name, record in now.items() if not record["passes"]]
    if options.check:
        recorded = json.loads(PATH.read_text(encoding="utf-8")) if PATH.exists() else {}
        stale = differences(recorded, now)
        print("\n".join(stale) or f"{PATH.name} is up to date: {len(now)} methods")
        return int(bool(stale or failing))
    lines = [f"  {json.dumps(name)}: {json.dumps(record, ensure_ascii=False)}" for name, record in now.items()]
    PATH.write_text("{\n" + ",\n".join(lines) + "\n}\n", encoding="utf-8")
    every, first = (sum(record.get("oracle_covers") == covers for record in now.values()) for covers in (EVERY, FIRST))
    print(
        f"{PATH.name}: {len(now)} methods, {len(now) - len(failing)} pass, {every} beside their definition, "
        f"{first} beside its first update"
    )
    return int(bool(failing))


if __name__ == "__main__":
    sys.exit(main())
