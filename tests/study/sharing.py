"""Two participants of one study, each a process with a folder of its own, and one of them is killed on the way.

``python -m tests.study.sharing STORAGE FOLDER`` prints what `tests/study/test_exchange.py` looks at.
"""

import json
import os
import signal
import sys
from collections import Counter
from functools import partial
from pathlib import Path

from motet.study import exchange
from motet.study.study import Study
from tests.study.killing import forked, same, side_by_side
from tests.study.tiny import TINY


def participant(storage: str, out: Path, dies_at: int = 0) -> None:
    """Take part; die at the start of one of the runs."""
    started = Counter()

    class Deadly:
        def start(self, folder, arm, seed, settings):
            started["runs"] += 1
            if started["runs"] == dies_at:
                os.kill(os.getpid(), signal.SIGKILL)

        def epoch(self, tick): ...

        def end(self, run):
            with (out / "trained").open("a") as file:
                file.write(f"{run.arm} {run.seed}\n")

    exchange.BEAT, exchange.STALE = 0.2, 3.0
    Study(TINY, ("famo",), seeds=4, out=out, resume=True, storage=storage, loggers=[Deadly()]).run()


def main(storage: str, folder: Path) -> None:
    forked(lambda: Study(TINY, ("famo",), seeds=4, out=folder / "alone").run())
    names = ["a", "b", "c"]
    codes = side_by_side(
        [partial(participant, storage, folder / name, dies_at=2 if name == "c" else 0) for name in names]
    )
    lines = [line for name in names for line in (folder / name / "trained").read_text().splitlines()]
    found = {
        "codes": codes,
        "same": [same(folder / name, folder / "alone") for name in names[:2]],
        "trained": len(lines),
        "twice": [line for line, times in Counter(lines).items() if times > 1],
        "shared": all("motet_runs" not in path.name for path in folder.iterdir()),
    }
    print(json.dumps(found))


if __name__ == "__main__":
    main(sys.argv[1], Path(sys.argv[2]))
