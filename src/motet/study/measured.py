"""What `motet.study.affinity.measure` found: plain data, no computation but what tells a clear sign from none."""

import math
from dataclasses import dataclass
from typing import Any

Matrix = list[list[float]]

CLEAR = 2.0
"""Standard errors from zero at which a sign is called clear."""
LOW, HIGH = 0.2, 0.8
"""Between these shares of the draws, whether two tasks belong together is undecided."""


def is_clear(value: float, error: float) -> bool:
    """Whether a value is known and at least two standard errors from zero."""
    return math.isfinite(value) and abs(value) > CLEAR * error


@dataclass(frozen=True)
class Snapshot:
    """What was known at one point of the training: all matrices (K, K), row = source, column = target.

    Attributes:
        name: "early", "middle" or "late".
        batch: After so many batches.
        epoch: The same in epochs; NaN where their length is not known.
        matrix: Proximal affinity: the relative decrease of the target's loss by one update of the source.
        counts: Measurements behind each entry.
        standard_errors: Of ``matrix``.
        lookahead: Look-ahead affinity by its definition, the mean over fixed batches. NaN where not measured.
        lookahead_errors: Standard errors of that mean.
        cosines: Between the exact gradients of the shared parameters, the mean over the same batches.
        cosine_errors: Standard errors of that mean.
    """

    name: str
    batch: int
    epoch: float
    matrix: Matrix
    counts: list[list[int]]
    standard_errors: Matrix
    lookahead: Matrix
    lookahead_errors: Matrix
    cosines: Matrix
    cosine_errors: Matrix


@dataclass(frozen=True)
class Groups:
    """The groups that the affinity proposed after so many batches."""

    batch: int
    groups: list[list[str]]


@dataclass(frozen=True)
class Pair:
    """One direction of one pair of tasks at the end: what an update of the source does to the target's loss."""

    source: str
    target: str
    affinity: float
    error: float
    lookahead: float
    lookahead_error: float
    cosine: float
    cosine_error: float
    measurements: int
    rows: int | None
    """Training rows with labels of both; None where rows are not known."""

    @property
    def clear(self) -> bool:
        """Whether the sign of the affinity is known."""
        return is_clear(self.affinity, self.error)


@dataclass(frozen=True)
class Sure:
    """One proposed group: of all draws of the map within its errors, how many keep it.

    Attributes:
        tasks: Its members.
        together: Of the pairs within it, the smallest share of draws in which a pair is together. NaN for one task.
        weakest: That pair.
        outside: The largest share of draws in which a member is together with a task outside.
        neighbour: That member and that task.
        known: Whether anything was measured between a member and any other task.
    """

    tasks: list[str]
    together: float
    weakest: list[str]
    outside: float
    neighbour: list[str]
    known: bool = True


@dataclass(frozen=True)
class Measured:
    """The whole result, plain data.

    Attributes:
        title: What was measured.
        source: Where the data come from.
        command: What to run to test the proposal; empty where no command can, or there is no proposal.
        tasks: Their names.
        snapshots: In order of time; the last is what everything below is told from.
        timeline: The proposed groups over time.
        groups: The proposal at the end, each with how sure it is.
        together: Share of draws in which two tasks are in one group, (K, K).
        undecided: Pairs with a share between `LOW` and `HIGH`.
        pairs: Every directed pair that is not greyed, strongest help first.
        greyed: Pairs of tasks that share too few rows or measurements, with the reason.
        disagreements: Pairs on which two measures have clear and opposite signs.
        notes: What a reader must know.
        settings: How it was measured.
        cost: Batches, updates, forward passes and seconds.
        interrupted: Whether training was stopped before its end.
    """

    title: str
    source: str
    command: str
    tasks: list[str]
    snapshots: list[Snapshot]
    timeline: list[Groups]
    groups: list[Sure]
    together: Matrix
    undecided: list[tuple[str, str, float]]
    pairs: list[Pair]
    greyed: list[tuple[str, str, str]]
    disagreements: list[tuple[Pair, str]]
    notes: list[str]
    settings: dict[str, Any]
    cost: dict[str, float]
    interrupted: bool = False

    @property
    def late(self) -> Snapshot:
        """The last snapshot."""
        return self.snapshots[-1]

    def helping(self) -> list[Pair]:
        """Pairs that clearly help, the strongest first."""
        return [pair for pair in self.pairs if pair.clear and pair.affinity > 0]

    def hurting(self) -> list[Pair]:
        """Pairs that clearly hurt, the strongest first."""
        return [pair for pair in reversed(self.pairs) if pair.clear and pair.affinity < 0]
