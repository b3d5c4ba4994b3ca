"""How long the rest of a study takes, from how long its parts took: arms differ tenfold in cost."""

import statistics
from collections.abc import Iterable
from dataclasses import dataclass


@dataclass
class Running:
    """What is being trained now.

    Attributes:
        kind: What takes equally long: an arm's runs, or its trials.
        since: When it began, in seconds of any clock.
        share: Of its epochs, of the most that it may take: it can end before.
    """

    kind: str
    since: float
    share: float = 0.0


class Estimate:
    """Seconds of every kind of work.

    Args:
        before: Kinds with seconds of earlier starts. They count where this start has none, since they were measured
            in another way, or on a machine that was less busy.
    """

    def __init__(self, before: Iterable[tuple[str, float]] = ()) -> None:
        self._before: dict[str, list[float]] = {}
        self._now: dict[str, list[float]] = {}
        for kind, seconds in before:
            self._before.setdefault(kind, []).append(seconds)

    def add(self, kind: str, seconds: float) -> None:
        """One piece of work of this kind took so long."""
        self._now.setdefault(kind, []).append(seconds)

    def of(self, kind: str, otherwise: float | None = None) -> float | None:
        """Seconds of such work: measured ones, then ``otherwise``, then those of the mean kind, else None."""
        for known in (self._now, self._before):
            if kind in known:
                return statistics.fmean(known[kind])
        known = {**self._before, **self._now}
        if otherwise is not None or not known:
            return otherwise
        return statistics.fmean(map(statistics.fmean, known.values()))

    def left(self, waiting: Iterable[str], running: Iterable[Running], now: float, workers: int = 1) -> float | None:
        """Seconds until all is done; None where nothing can be said yet.

        Args:
            waiting: The kind of every piece of work that has not begun.
            running: What has.
            now: On the clock of `Running.since`.
            workers: How many work at once.
        """
        work = list(running)
        projected = [(now - one.since) / one.share for one in work if one.share > 0]
        # Before anything is finished, what runs now is all that is known.
        usual = statistics.fmean(projected) if projected else None
        rests = []
        for one in work:
            spent = now - one.since
            whole = self.of(one.kind, spent / one.share if one.share > 0 else usual)
            rests.append(None if whole is None else max(whole - spent, 0.0))
        expected = [self.of(kind) for kind in waiting]
        parts = [*rests, *(usual if seconds is None else seconds for seconds in expected)]
        known = [seconds for seconds in parts if seconds is not None]
        if len(known) < len(parts):
            return None
        return max([sum(known) / max(workers, 1), *known[: len(rests)]], default=0.0)
