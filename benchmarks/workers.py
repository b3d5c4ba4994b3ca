"""The same study with one process, with two, and with two that share it through PostgreSQL: how much faster, and equal?

``python benchmarks/workers.py [PROBLEM] [SEEDS] [EPOCHS]``. Beside the ratio of wall-clock times stands that of what
the processors gave: seconds of processor time a second, which is what an otherwise busy machine lets a study have.
"""

import os
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

from motet import problems
from motet.study.study import Study
from tests.study import postgres
from tests.study.killing import forked, same, side_by_side

ARMS = ("si", "famo", "fair-grad", "groups")


def measured(work: Callable[[], None]) -> tuple[float, float]:
    """Seconds of wall clock and of processors that a piece of work took, those of its processes included."""
    before, start = os.times(), time.monotonic()
    work()
    after = os.times()
    return time.monotonic() - start, sum(after[2:4]) - sum(before[2:4])


def together(make: Callable[[str], Study], names: list[str]) -> None:
    """Participants side by side."""
    assert side_by_side([make(name).run for name in names]) == [0] * len(names)


def main(name: str, seeds: int, epochs: int | None, folder: Path) -> None:
    problem = problems.get(name)
    training = replace(problem.training, epochs=epochs) if epochs else problem.training

    def study(out: str, **options: object) -> Study:
        return Study(problem, ARMS, seeds=seeds, out=folder / out, training=training, **options)

    rows = {
        "one process": measured(lambda: forked(lambda: study("one").run())),
        "two workers": measured(lambda: forked(lambda: study("two", workers=2).run())),
    }
    equal = {"two workers": same(folder / "two", folder / "one")}
    try:
        with postgres.server() as server:
            rows["two through PostgreSQL"] = measured(
                lambda: together(lambda out: study(out, storage=server.url), ["a", "b"])
            )
        equal["two through PostgreSQL"] = all(same(folder / out, folder / "one") for out in "ab")
    except postgres.Missing as reason:
        print(f"no PostgreSQL: {reason}")
    wall, processor = rows["one process"]
    print(f"{problem.name}: {len(ARMS) + 2} arms, {seeds} seeds, {training.epochs} epochs")
    for label, (seconds, spent) in rows.items():
        ideal = processor / spent * (1 if label == "one process" else 2)
        print(
            f"{label:24s} {seconds:7.1f} s, {spent:7.1f} s of processors ({spent / seconds:.2f} at once), "
            f"{wall / seconds:.2f}x faster; at full speed {ideal:.2f}x"
            + ("" if label not in equal else ", the same bits" if equal[label] else ", OTHER BITS")
        )


if __name__ == "__main__":
    chosen = [*sys.argv[1:], *["yeast", "6", "0"][len(sys.argv) - 1 :]]
    with tempfile.TemporaryDirectory() as place:
        main(chosen[0], int(chosen[1]), int(chosen[2]) or None, Path(place))
