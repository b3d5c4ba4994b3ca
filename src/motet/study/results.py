"""What a finished run leaves behind, and what a study makes of many: plain data, no computation.

Sign convention everywhere: a *change* is in per cent of the single-task result and positive means WORSE,
as in Δm, whichever direction the metric itself has.
"""

import math
from dataclasses import dataclass, field
from typing import Any, Literal

SINGLE = "stl"
SUM = "sum"
"""The arms that every study has: one model a task, and the plain sum."""
GROUPS = "groups"
"""The arm whose number of groups its controls may take over."""

Decision = Literal["ADOPT", "KEEP SUM", "KEEP SINGLE", "UNDECIDED"]


@dataclass(frozen=True)
class Epoch:
    """One row of a learning curve. Seconds, updates and passes count from the start of the run, without evaluation."""

    epoch: int
    seconds: float
    train_loss: dict[str, float]
    validation: dict[str, float]
    test: dict[str, float] = field(default_factory=dict)
    """Test metrics of what would have been kept, had training ended here: those of the best epoch so far. Nothing is
    chosen by them. Empty is not known."""
    updates: int = 0
    """Optimizer steps; 0 is not known, as for the passes."""
    forwards: int = 0
    backwards: int = 0


@dataclass(frozen=True)
class Weights:
    """The weights of the tasks that took part in one step."""

    step: int
    of: dict[str, float]


@dataclass(frozen=True)
class Cosines:
    """Cosines between the tasks' exact gradients of the trunk, averaged over a few fixed batches."""

    epoch: int
    tasks: list[str]
    matrix: list[list[float]]


@dataclass(frozen=True)
class Momentum:
    """What momentum made of the gradient of the trunk in one optimizer step, as `motet.optim.MomentumStep` says.

    NaN where it is not defined.

    Attributes:
        step: Number of the optimizer's step.
        beta: The momentum coefficient in that step, the mean over the trunk's numbers.
        nominal: Weight that it gives to the current gradient in the update.
        instant: The exact share of the current gradient in what the update was made of.
        shares: The same by age in the momentum: the current gradient, the one before, …; empty where undefined.
        cosine_gradient: Cosine of the update and the current gradient.
        cosine_tasks: Cosine of the update and each task's own gradient: positive where the step helps the task.
        counterfactual: By how much of its length the update had been another one, given the plain sum in this step.
    """

    step: int
    beta: float
    nominal: float
    instant: float
    shares: list[float]
    cosine_gradient: float
    cosine_tasks: dict[str, float]
    counterfactual: float


@dataclass(frozen=True)
class RunCost:
    """What training took. A backward pass of a task means one through the trunk, for that task alone or for all."""

    steps: int
    seconds: float
    seconds_per_step: float
    peak_memory_mib: float
    forwards_per_step: float
    backwards_per_step: float
    parameters: int
    step_length: float
    """Median norm of the trunk's gradient after combination, over that of the plain sum on the same batches. NaN for
    arms that update more than once a batch."""
    updates: int = 0
    """Optimizer steps in all; 0 is not known."""
    forwards: int = 0
    """Forward passes in all; 0 is not known."""
    backwards: int = 0
    """Backward passes through the trunk in all; 0 is not known."""


@dataclass(frozen=True)
class Partition:
    """The groups from one batch on, until the next partition; batches count from 0."""

    batch: int
    groups: list[list[str]]


@dataclass(frozen=True)
class Groups:
    """How an arm grouped the tasks, and what it measured of their effects on each other.

    Attributes:
        timeline: The partitions in order, thinned to a few hundred.
        batches: How many were trained on.
        warmup: Batches before the first partition was learnt; None if training ended before that.
        mean: Groups updated in a batch, the mean after the warm-up, or over all where it never ended.
        affinity: (K, K), row = source, column = target: positive where an update of the row's task lowers the
            column's loss, as a share of it.
        counts: Measurements behind each entry.
        standard_errors: Infinite where there are too few measurements.
    """

    tasks: list[str]
    timeline: list[Partition]
    batches: int
    warmup: int | None
    mean: float
    affinity: list[list[float]]
    counts: list[list[int]]
    standard_errors: list[list[float]]


@dataclass(frozen=True)
class Gates:
    """What each task takes of each expert, the mean over the test split.

    Attributes:
        name: Of the level, empty where there is one.
        experts: Names of the columns.
        mean: (K, E). Rows sum to 1, but for stitches.
        spread: (K, E), standard deviations over the test rows: 0 where a gate does not look at the inputs.
    """

    name: str
    experts: list[str]
    mean: list[list[float]]
    spread: list[list[float]]


@dataclass(frozen=True)
class ViewAttention:
    """How the views of a sample attend to each other, means over heads and the test rows that have the asking view.

    NaN where nothing is known.

    Attributes:
        views: V names.
        present: Share of the test rows that have each view.
        attention: (V, V), row = the asking view.
        entropy: Of each row over its largest: 0 is one view alone, 1 all present views alike.
        coherence: Mean cosine of the shared codes of a sample's views.
        shuffled: The same between views of different samples: what they agree on whatever they show.
        effective_rank, width: How many directions the shared codes use, and could.
    """

    views: list[str]
    present: list[float]
    attention: list[list[float]]
    entropy: list[float]
    coherence: float
    shuffled: float
    effective_rank: float
    width: int


@dataclass(frozen=True)
class Influence:
    """Who takes what of whom: row k is task k's share of each task's private features, (K, K), and its start."""

    matrix: list[list[float]]
    prior: list[list[float]]
    strength: list[float]
    """What each row is multiplied with."""
    signed: bool


@dataclass(frozen=True)
class BagAttention:
    """One bag of the test split, thinned where it is large.

    Attributes:
        view: Its name.
        row: Number of the bag in the test split.
        instances: How many it has.
        points: (n, 2), where the instances lie.
        located: Whether these are the first two of the bag's coordinates, and not principal components of features.
        weights: (n,), the share of the attention.
        edges: Pairs of places in ``points`` that the graph joins, if there is one.
    """

    view: str
    row: int
    instances: int
    points: list[list[float]]
    located: bool
    weights: list[float]
    edges: list[list[int]]


@dataclass(frozen=True)
class Shown:
    """What an architecture tells of itself after training, on the test split."""

    tasks: list[str]
    gates: list[Gates] = field(default_factory=list)
    attention: ViewAttention | None = None
    influence: Influence | None = None
    bags: list[BagAttention] = field(default_factory=list)


@dataclass(frozen=True)
class Notice:
    """Something that a reader of the results must know of one run.

    Attributes:
        kind: ``broke down``: a loss or gradient that is not finite ended training early. ``unconverged``: the
            method's solver stopped at its iteration limit. ``last epoch``: the best epoch was one of the last two.
            ``second batch``: the method's second batch came from the training split. ``stand-in``: a figure that the
            method wants of a task was not known. ``warm-up``: training ended before any groups were learnt.
        text: The same with its particulars.
    """

    kind: Literal["broke down", "unconverged", "last epoch", "second batch", "stand-in", "warm-up"]
    text: str


@dataclass(frozen=True)
class Run:
    """One arm trained with one seed. Results are NaN where there are none."""

    arm: str
    seed: int
    test: dict[str, float]
    validation: dict[str, float]
    best_epoch: dict[str, int]
    curve: list[Epoch]
    weights: list[Weights]
    """The tasks' loss or gradient weights as they went, thinned to a few hundred rows."""
    cosines: list[Cosines]
    cost: RunCost
    warnings: list[Notice] = field(default_factory=list)
    provenance: dict[str, Any] = field(default_factory=dict)
    groups: Groups | None = None
    momentum: list[Momentum] = field(default_factory=list)
    """A few steps that were measured; none for single-task models, and for optimizers with a momentum a task."""
    shown: Shown | None = None
    """What an architecture other than hard sharing tells of itself."""
    specialised: dict[str, float] = field(default_factory=dict)
    """Test metric of every task at the epoch that is the best for this task alone, as if a checkpoint were kept for
    each. Of single-task models it is the result itself. Empty is not known."""
    settings: dict[str, Any] = field(default_factory=dict)
    """What tuning chose: names of `Training` and of the arm's own options with their values; of single-task models
    one such mapping a task. Empty where the arm was not tuned."""


@dataclass(frozen=True)
class Interval:
    """A mean over paired seeds with its BCa bootstrap interval of `Summary.level`; bounds are NaN below two seeds."""

    mean: float
    low: float
    high: float


UNKNOWN = Interval(math.nan, math.nan, math.nan)


@dataclass(frozen=True)
class ArmSummary:
    """One row of the verdict's table. Changes are in per cent against single-task, positive = worse."""

    arm: str
    seeds: int
    delta_m: Interval
    log_ratio: Interval
    """Mean log-ratio of the errors in per cent: as Δm, but a doubling and a halving weigh the same."""
    mean_rank: float
    per_task: dict[str, Interval]
    worst_task: str
    worst_change: float
    harmed: list[str]
    """Tasks that are shown to be worse than single-task: by their interval and by the sign-flip test with Holm over
    this arm's tasks."""
    over_sum: Interval
    """Δm of this arm minus Δm of the plain sum, in points; negative = better than the sum."""
    p_sum: float
    """Two-sided sign-flip tests; at a planned look they are divided by its share of the level."""
    p_sum_holm: float
    p_single: float
    seconds_per_step: float
    step_cost: float
    """Time of a step over the plain sum's: the median over seeds of the paired ratios."""
    total_seconds: float
    peak_memory_mib: float
    forwards_per_step: float
    backwards_per_step: float
    step_length: float
    parameters: int
    updates: float = math.nan
    """Optimizer steps of one seed's training, the mean over seeds; NaN where an arm's runs did not count them."""
    forwards: float = math.nan
    """Forward passes of one seed's training, likewise."""
    groups: float = math.nan
    """Groups updated in a batch after the warm-up, the mean over seeds; NaN where there are none."""
    unlearnt: int = 0
    """Seeds whose training ended within the warm-up, before any groups were learnt."""
    warmup: float = math.nan
    """Share of the batches that the warm-up took, the mean over the other seeds; NaN where there are none."""
    undivided: int = 0
    """Seeds in which every task was alone, or all were in one group, from the first batch to the last."""
    suspected: list[str] = field(default_factory=list)
    """Tasks whose interval lies on the worse side of single-task, but that are not shown to be harmed."""
    mde_sum: float = math.nan
    """Points of Δm by which this arm would have to differ from the sum to be shown with probability 0.8, given its
    spread, the number of seeds, the look's share and Holm's factor; infinite where no difference could be shown."""
    mde_single: float = math.nan
    """The same against single-task, without Holm."""
    specialised: Interval = UNKNOWN
    """Δm with a checkpoint for every task, each at its own best epoch, as single-task has; unknown where a run did not
    keep it."""
    delta_m_resampled: Interval = UNKNOWN
    """Δm with Nadeau's and Bengio's corrected variance, where seeds split the same rows anew; for information."""
    over_sum_resampled: Interval = UNKNOWN
    """The same of the difference to the sum."""
    hypervolume: float = math.nan
    """Share of `Summary.hypervolume` that only this arm contributes; NaN where that is NaN."""
    means: dict[str, float] = field(default_factory=dict)
    """Mean result of every task on the metric's own scale, over the same seeds as its change."""
    by_seed: dict[int, float] = field(default_factory=dict)
    """Δm of every seed of which ``delta_m`` is the mean."""
    left_out: str = ""
    """Why nothing may be decided on this arm; empty where it may."""


@dataclass(frozen=True)
class Comparison:
    """An arm that updates group by group, against a control or the plain sum, paired by seed."""

    arm: str
    control: str
    difference: Interval
    """Δm of the arm minus Δm of the control, in points; negative = the arm is better."""
    p: float
    """Two-sided sign-flip test, uncorrected."""
    better: bool
    """Whether the arm is shown to be better: both the interval and the test say so."""
    worse: bool
    """Whether it is shown to be worse, likewise."""


@dataclass(frozen=True)
class Rule:
    """When to adopt, fixed before the results are seen."""

    alpha: float = 0.05
    margin: float = 1.0
    """A difference in Δm below this many points does not matter."""
    worst_task: float = 10.0
    """No task may lose more than this many per cent against single-task."""
    looks: tuple[int, ...] = ()
    """Numbers of seeds after which the verdict is read, the last being the most that may be spent; the level is shared
    out between them. Empty for one look, whenever it is."""


@dataclass(frozen=True)
class Tuning:
    """How every arm of a study was tuned before its seeds were trained: fixed beforehand, and the same for all.

    Attributes:
        trials: Of each arm.
        epochs: Most epochs of a trial.
        seed: Whose training and validation parts the trials see, and never its test part.
        learning_rate: Least and largest; the search is uniform in the logarithm.
        weight_decay: Values that are tried.
        dropout: Values that are tried.
    """

    trials: int
    epochs: int
    seed: int = 0
    learning_rate: tuple[float, float] = (1e-4, 1e-2)
    weight_decay: tuple[float, ...] = (0.0, 1e-4, 1e-2)
    dropout: tuple[float, ...] = (0.0, 0.1, 0.3)


@dataclass(frozen=True)
class Labels:
    """How many labels the training rows of one seed have.

    Attributes:
        share: Of the rows that have a label of the task, for every task.
        least: The two tasks that share the fewest rows; empty with one task.
        shared: Rows with labels of both of these over rows with a label of either; NaN with one task.
    """

    share: dict[str, float]
    least: list[str] = field(default_factory=list)
    shared: float = math.nan


@dataclass(frozen=True)
class Verdict:
    """The decision and why."""

    decision: Decision
    arm: str
    """The arm to use: the adopted one, ``sum``, ``stl``, or the best candidate where undecided."""
    headline: str
    reasons: list[str]
    seeds: int
    more_seeds: int | None
    """How many more seeds would decide, where undecided and it can be told."""
    refused: bool = False
    """Whether a verdict was refused whatever the numbers, as the arms had unequal budgets."""


@dataclass(frozen=True)
class Summary:
    """All that the tables and the report's first pages show."""

    arms: list[ArmSummary]
    verdict: Verdict
    rule: Rule
    baseline: dict[str, float]
    """Mean single-task result of every task, on the metric's own scale."""
    comparisons: list[Comparison] = field(default_factory=list)
    """Arms that update group by group against their controls; none where there is no such arm."""
    level: float = 0.95
    """Of all intervals; higher at a planned look, which has only a share of the rule's level."""
    hypervolume: float = math.nan
    """Volume that the front of all arms dominates in the space of the tasks' mean changes, up to a change of
    ``rule.worst_task`` per cent for every task; single-task alone has 1. For 2 to 4 tasks, else NaN."""
