"""Twenty SIGKILLs at random moments, of tuning and of training, in one process and in two: is it the same study?

``python benchmarks/kill.py [KILLS] [FOLDER]``. Each start is a fork of this process, which trains nothing itself.
"""

import random
import shutil
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from pathlib import Path

from motet.study.live import read_state
from motet.study.study import Study
from tests.study.killing import forked, same
from tests.study.tiny import TINY


def study(out: Path, trials: int | None, workers: int) -> Study:
    training = replace(TINY.training, epochs=4)
    arms = ("sum:tuned", "famo") if trials else ("groups", "sum:steps=groups", "famo")
    return Study(TINY, arms, seeds=3, out=out, resume=True, training=training, tuning=trials, workers=workers)


def killed(make: Callable[[], Study], folder: Path, kills: int, within: float, draws: random.Random) -> list[str]:
    """At which moment and in which phase each kill came; the study is taken up after each, and ended at last."""
    died: list[str] = []
    while len(died) < kills:
        moment = draws.uniform(0, within)
        if forked(lambda: make().run(), moment):
            print(f"  came to its end before {moment:.1f} s: begun anew", flush=True)
            shutil.rmtree(folder)
            continue
        runs = len(list(folder.glob("runs/*-seed*")))
        died.append(
            f"{moment:5.1f} s: {runs:2d} runs, {'trials begun' if list(folder.glob('tuning*')) else 'no trial'}"
        )
        assert read_state(folder) is None, "a dead study is taken for a living one"
    assert forked(lambda: make().run())
    return died


def main(kills: int, folder: Path) -> None:
    draws = random.Random(20)
    cases = {"one process": (None, 1), "one process, tuned": (4, 1), "two workers": (None, 2), "two, tuned": (4, 2)}
    good = 0
    for number, (name, (trials, workers)) in enumerate(cases.items()):
        whole, out = folder / f"whole{number}", folder / f"killed{number}"
        start = time.monotonic()
        assert forked(lambda out=whole, trials=trials: study(out, trials, 1).run())
        taken = time.monotonic() - start
        share = kills // len(cases) + (number < kills % len(cases))
        # Two workers take longer to start than these runs to train.
        within = 0.5 * taken if workers == 1 else taken + 15
        died = killed(partial(study, out, trials, workers), out, share, within, draws)
        equal = same(out, whole)
        good += equal * len(died)
        print(
            f"{name}: {len(died)} kills, {'the same bits' if equal else 'ANOTHER STUDY'}", *died, sep="\n  ", flush=True
        )
    print(f"{good} of {kills} kills ended in the same study, bit for bit")


if __name__ == "__main__":
    count = int(sys.argv[1]) if len(sys.argv) > 1 else 20
    with tempfile.TemporaryDirectory() as place:
        main(count, Path(sys.argv[2]) if len(sys.argv) > 2 else Path(place))
