"""Studies that are killed by SIGKILL and resumed. Every start is a fork of a process that has imported everything.

A fork begins in milliseconds, and importing torch anew takes seconds. The forking process itself trains nothing, so
that it has one thread. ``python -m tests.study.killing FOLDER`` prints what `tests/study/test_kill.py` looks at.
"""

import hashlib
import json
import os
import random
import signal
import sys
import time
import traceback
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path

from motet.study.study import Study, opened
from motet.study.tables import CLOCKS, numbers
from motet.study.trials import JOURNAL
from tests.study.tiny import TINY

Work = Callable[[], object]


def _started(work: Work) -> int:
    """The number of a process of its own that does the work."""
    pid = os.fork()
    if pid == 0:
        code = 1
        try:
            work()
            code = 0
        except BaseException:
            traceback.print_exc()
        finally:
            os._exit(code)
    return pid


def forked(work: Work, kill_after: float | None = None) -> bool:
    """Whether a process of its own came to the end of the work; False where it was killed."""
    pid = _started(work)
    until = time.monotonic() + kill_after if kill_after is not None else None
    while not (found := os.waitpid(pid, os.WNOHANG))[0]:
        if until is not None and time.monotonic() >= until:
            os.kill(pid, signal.SIGKILL)
            until = None
        time.sleep(0.002)
    code = os.waitstatus_to_exitcode(found[1])
    if code not in (0, -signal.SIGKILL):
        raise RuntimeError(f"a study ended with exit code {code}")
    return code == 0


def side_by_side(works: Sequence[Work]) -> list[int]:
    """Do all of it at once, each in a process of its own: their exit codes."""
    pids = [_started(work) for work in works]
    return [os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) for pid in pids]


def bits(folder: Path) -> str:
    """All that a finished study holds, but for what clocks measured."""
    study = opened(folder)
    table = study.table().drop(columns=list(CLOCKS))
    runs = [numbers(run) for run in study.runs()]
    tensors = {
        str(path.relative_to(folder)): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in sorted(folder.glob("runs/*/*.safetensors"))
    }
    return json.dumps([table.to_json(double_precision=15), runs, tensors, study.verdict().headline], sort_keys=True)


def same(left: Path, right: Path) -> bool:
    """Whether two folders hold the same, bit for bit; a table that is not the same is printed."""
    if (equal := bits(left) == bits(right)) is False:
        print(opened(left).table(), opened(right).table(), sep="\n", file=sys.stderr)
    return equal


def killed_until(make: Callable[[], Study], kills: int, within: float, draws: random.Random) -> list[float]:
    """Start a study and kill it, at moments drawn evenly from ``within`` seconds, so many times; then let it end.

    Returns:
        The moments. A start that came to its end before is no kill.
    """
    moments: list[float] = []
    while len(moments) < kills:
        moment = draws.uniform(0, within)
        if forked(lambda: make().run(), moment):
            break
        moments.append(moment)
    assert forked(lambda: make().run())
    return moments


def killed_in_tuning(make: Callable[[], Study], journal: Path, lines: Sequence[int]) -> None:
    """Kill a study when its journal of trials has so many lines, and again when it has more; then let it end."""

    def written() -> int:
        return journal.read_bytes().count(b"\n") if journal.exists() else 0

    for count in lines:
        pid = os.fork()
        if pid == 0:
            try:
                make().run()
            finally:
                os._exit(1)
        while written() < count:
            assert os.waitpid(pid, os.WNOHANG) == (0, 0), f"the study ended with {written()} lines"
            time.sleep(0.002)
        os.kill(pid, signal.SIGKILL)
        os.waitpid(pid, 0)
    assert forked(lambda: make().run())


def killed_at_writes(make: Callable[[Path], Study], folder: Path, whole: Path) -> list[str]:
    """Kill a study as it moves its first file into place, then its second, and so on, each time in a new folder.

    Returns:
        The files that it died of, all of which were resumed to the end with the result of ``whole``.
    """
    died: list[str] = []
    while True:
        out, log = folder / str(len(died)), folder / "log"
        if forked(lambda out=out, log=log: _dying(lambda: make(out).run(), len(died) + 1, log)):
            return died
        died.append(log.read_text())
        assert forked(lambda out=out: make(out).run())
        assert same(out, whole), f"after a kill at {died[-1]}"


def _dying(work: Work, at: int, log: Path) -> None:
    """Do it, and die as the ``at``-th file is moved: in turns before and after it is."""
    count = 0

    def dangerous(real: Callable) -> Callable:
        def move(source, target, **options):
            nonlocal count
            count += 1
            if count == at:
                log.write_text(Path(target).name)
                if at % 2:
                    real(source, target, **options)
                os.kill(os.getpid(), signal.SIGKILL)
            return real(source, target, **options)

        return move

    os.replace, os.rename = dangerous(os.replace), dangerous(os.rename)
    work()


def main(folder: Path) -> None:
    short = replace(TINY.training, epochs=2)

    def small(out: Path) -> Study:
        return Study(TINY, (), seeds=1, out=out, resume=True, training=short)

    def larger(out: Path) -> Study:
        return Study(TINY, ("famo", "groups", "sum:steps=groups"), seeds=2, out=out, resume=True, training=short)

    forked(lambda: small(folder / "small").run())
    start = time.monotonic()
    forked(lambda: larger(folder / "larger").run())
    taken = time.monotonic() - start
    moments = killed_until(lambda: larger(folder / "killed"), 3, taken / 4, random.Random(8))

    def tuned(out: Path, workers: int) -> Study:
        return Study(TINY, (), seeds=1, out=out, resume=True, training=short, tuning=4, workers=workers)

    forked(lambda: tuned(folder / "tuned", 1).run())
    journal = (folder / "tuned" / JOURNAL).read_bytes().count(b"\n")
    killed_in_tuning(lambda: tuned(folder / "crew", 2), folder / "crew" / JOURNAL, [journal // 2])
    found = {
        "tuned": same(folder / "crew", folder / "tuned"),
        "kills": len(moments),
        "same": same(folder / "killed", folder / "larger"),
        "writes": killed_at_writes(small, folder / "writes", folder / "small"),
    }
    print(json.dumps(found))


if __name__ == "__main__":
    place = Path(sys.argv[1])
    (place / "writes").mkdir()
    main(place)
