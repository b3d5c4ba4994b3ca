"""Train one arm with one seed, and measure what it did and what it took."""

import math
import statistics
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field

import torch
from torch import Tensor, nn

from motet.linalg import cosines
from motet.losses import task_loss
from motet.metrics import METRICS
from motet.problems.base import Data, Model, Problem, Split, Task, Training
from motet.routes import Exact
from motet.step import NonFiniteError
from motet.study.arms import Arm
from motet.study.memory import peak_memory
from motet.study.results import Cosines, Epoch, Run, RunCost, Weights

_PROBE_BATCHES = 4
_STREAM = 300  # Rows that a stream of weights is thinned to.


@dataclass
class Trained:
    """A finished run with what does not fit into JSON."""

    run: Run
    parameters: dict[str, Tensor]
    predictions: dict[str, Tensor]


def train(
    problem: Problem,
    data: Data,
    arm: Arm,
    seed: int,
    training: Training,
    reference: Mapping[str, float] | None = None,
    tick: Callable[[], None] = lambda: None,
) -> Trained:
    """Train an arm.

    The initial parameters, the order of the batches and the dropout masks depend on the seed alone, so they
    are the same for every arm. The epoch that counts is chosen on validation data: of a single-task model
    the one with the best metric, of a shared model the one with the best Δm on validation against
    ``reference``, the single-task models' validation metrics of the same seed.

    Args:
        reference: Validation metric of every task; needed for shared models.
        tick: Called after each epoch.
    """
    with torch.random.fork_rng(devices=[]):
        if arm.method is None:
            return _single(problem, data, arm, seed, training, tick)
        assert reference is not None
        model = problem.model(data, seed, training)
        return _Fit(model, data, data.tasks, arm, seed, training, reference, tick).finish()


def _single(problem: Problem, data: Data, arm: Arm, seed: int, training: Training, tick: Callable[[], None]) -> Trained:
    """One model a task, each the whole shared model with its own head only."""
    parts = {}
    for task in data.tasks:
        whole = problem.model(data, seed, training)
        alone = Model(whole.trunk, {task.name: whole.heads[whole.tasks.index(task.name)]})
        arm_alone = Arm(arm.label, "sum")
        # The tick is for one epoch of the whole arm: the tasks share it.
        last = task is data.tasks[-1]
        parts[task.name] = _Fit(
            alone, data, (task,), arm_alone, seed, training, None, tick if last else lambda: None
        ).finish()
    runs = [part.run for part in parts.values()]
    return Trained(
        Run(
            arm=arm.label,
            seed=seed,
            test={k: v for run in runs for k, v in run.test.items()},
            validation={k: v for run in runs for k, v in run.validation.items()},
            best_epoch={k: v for run in runs for k, v in run.best_epoch.items()},
            curve=_join_curves([run.curve for run in runs]),
            weights=[],
            cosines=[],
            cost=_add_costs([run.cost for run in runs]),
            warnings=[warning for run in runs for warning in run.warnings],
        ),
        {f"{task}/{name}": value for task, part in parts.items() for name, value in part.parameters.items()},
        {name: value for part in parts.values() for name, value in part.predictions.items()},
    )


def _join_curves(curves: list[list[Epoch]]) -> list[Epoch]:
    """The single-task curves side by side, as long as the longest."""
    rows = []
    for index in range(max(map(len, curves))):
        here = [curve[index] for curve in curves if index < len(curve)]
        ended = [curve[-1] for curve in curves if index >= len(curve)]
        rows.append(
            Epoch(
                epoch=index + 1,
                seconds=sum(row.seconds for row in here + ended),
                train_loss={k: v for row in here for k, v in row.train_loss.items()},
                validation={k: v for row in here for k, v in row.validation.items()},
            )
        )
    return rows


def _add_costs(costs: list[RunCost]) -> RunCost:
    """One step of the arm is one step of each of its models; they are trained one after another."""
    return RunCost(
        steps=max(cost.steps for cost in costs),
        seconds=sum(cost.seconds for cost in costs),
        seconds_per_step=sum(cost.seconds_per_step for cost in costs),
        peak_memory_mib=max(cost.peak_memory_mib for cost in costs),
        forwards_per_step=sum(cost.forwards_per_step for cost in costs),
        backwards_per_step=sum(cost.backwards_per_step for cost in costs),
        parameters=sum(cost.parameters for cost in costs),
        step_length=statistics.median(cost.step_length for cost in costs),
    )


def _key(seed: int, epoch: int, step: int = 0) -> int:
    """A seed for the random numbers of one step, the same for every arm."""
    return (seed * 1_000_003 + epoch) * 1_000_003 + step


@dataclass
class _Fit:
    """One model in training: the loop, with its bookkeeping beside it."""

    model: Model
    data: Data
    tasks: tuple[Task, ...]
    arm: Arm
    seed: int
    training: Training
    reference: Mapping[str, float] | None
    tick: Callable[[], None]
    curve: list[Epoch] = field(default_factory=list)
    stream: list[Weights] = field(default_factory=list)
    cosines: list[Cosines] = field(default_factory=list)
    warnings: list[str] = field(default_factory=list)
    times: list[float] = field(default_factory=list)
    lengths: list[float] = field(default_factory=list)
    passes: tuple[int, int] = (1, 1)
    unconverged: int = 0
    peak: float | None = None

    def finish(self) -> Trained:
        """Train to the end and evaluate the best epoch on the test split."""
        names = [task.name for task in self.tasks]
        self.balancer = self.arm.balancer(names, self.seed)
        self.optimizer = torch.optim.AdamW(
            self.model.parameters(), lr=self.training.learning_rate, weight_decay=self.training.weight_decay
        )
        best, best_epoch, best_state = -float("inf"), 0, _copy(self.model)
        early = max(1, round(0.1 * self.training.epochs))
        for epoch in range(1, self.training.epochs + 1):
            losses = self._epoch(epoch)
            if losses is None:
                break
            validation = self._metrics(self.data.validation)[0]
            self.curve.append(Epoch(epoch, sum(self.times), losses, validation))
            score = self._score(validation)
            if score > best or not best_epoch:
                best, best_epoch, best_state = score, epoch, _copy(self.model)
            stop = epoch == self.training.epochs or epoch - best_epoch >= self.training.patience
            if len(self.tasks) > 1 and (epoch == early or stop):
                self.cosines.append(Cosines(epoch, names, self._probe_cosines()))
            self.tick()
            if stop:
                break
        self.model.load_state_dict(best_state)
        test, predictions = self._metrics(self.data.test)
        if self.unconverged:
            self.warnings.append(f"the method's solver stopped at its iteration limit in {self.unconverged} steps")
        if best_epoch >= self.training.epochs - 1:
            self.warnings.append("the best epoch is one of the last two: more epochs may help")
        run = Run(
            arm=self.arm.label,
            seed=self.seed,
            test=test,
            validation=self._metrics(self.data.validation)[0],
            best_epoch=dict.fromkeys(names, best_epoch),
            curve=self.curve,
            weights=self.stream[:: max(1, len(self.stream) // _STREAM)],
            cosines=self.cosines,
            cost=self._cost(),
            warnings=self.warnings,
        )
        return Trained(run, best_state, predictions)

    def _epoch(self, epoch: int) -> dict[str, float] | None:
        """One pass over the training split: the mean loss of every task, or None where training broke down."""
        self.model.train()
        seen: dict[str, list[float]] = {task.name: [] for task in self.tasks}
        for step, (inputs, targets) in enumerate(self._batches(epoch)):
            plain = self._plain_length(epoch, inputs, targets) if step == 0 else 0.0
            try:
                losses = self._timed_step(epoch, step, inputs, targets)
            except (NonFiniteError, ValueError) as error:
                if not self.curve:
                    raise ValueError(f"arm {self.arm.label!r}, seed {self.seed}: {error}") from error
                self.warnings.append(f"training stopped in epoch {epoch}: {error}; the best epoch before it counts")
                return None
            if plain > 0:
                self.lengths.append(_norm(parameter.grad for parameter in self._trunk()) / plain)
            for task, loss in losses.items():
                if loss is not None:
                    seen[task].append(float(loss.detach()))
        return {task: statistics.fmean(losses) if losses else float("nan") for task, losses in seen.items()}

    def _timed_step(
        self, epoch: int, step: int, inputs: Tensor, targets: dict[str, Tensor]
    ) -> dict[str, Tensor | None]:
        if self.peak is None:  # The very first step allocates everything that later ones reuse.
            losses, self.peak = peak_memory(lambda: self._step(epoch, step, inputs, targets), str(inputs.device))
            return losses
        start = time.perf_counter()
        losses = self._step(epoch, step, inputs, targets)
        self.times.append(time.perf_counter() - start)
        return losses

    def _step(self, epoch: int, step: int, inputs: Tensor, targets: dict[str, Tensor]) -> dict[str, Tensor | None]:
        torch.manual_seed(_key(self.seed, epoch, step))
        self.optimizer.zero_grad()
        features, losses = self._losses(inputs, targets)
        done = self.balancer.backward(losses, features=features)
        self.optimizer.step()
        if self.balancer.wants_feedback:
            # The same dropout masks, or the change of the losses would measure them.
            torch.manual_seed(_key(self.seed, epoch, step))
            with torch.no_grad():
                self.balancer.update(self._losses(inputs, targets)[1])
        self.passes = (2 if self.balancer.wants_feedback else 1, max(self.passes[1], done.cost.trunk_backwards))
        self.unconverged += not done.converged
        if done.weights is not None:
            weights = {task: float(weight) for task, weight in done.weights.items()}
            self.stream.append(Weights(len(self.times), weights))
        return losses

    def _losses(self, inputs: Tensor, targets: dict[str, Tensor]) -> tuple[Tensor, dict[str, Tensor | None]]:
        features, outputs = self.model(inputs)
        return features, {task.name: task_loss(task, outputs[task.name], targets[task.name]) for task in self.tasks}

    def _batches(self, epoch: int) -> Iterator[tuple[Tensor, dict[str, Tensor]]]:
        generator = torch.Generator().manual_seed(_key(self.seed, epoch))
        order = torch.randperm(len(self.data.train), generator=generator)
        for rows in order.split(self.training.batch_size):
            yield self._take(self.data.train, rows)

    def _take(self, split: Split, rows: Tensor) -> tuple[Tensor, dict[str, Tensor]]:
        return split.inputs[rows], {task.name: split.targets[task.name][rows] for task in self.tasks}

    def _metrics(self, split: Split) -> tuple[dict[str, float], dict[str, Tensor]]:
        self.model.eval()
        with torch.no_grad():
            outputs = self.model(split.inputs)[1]
        metrics = {
            task.name: METRICS[task.metric].function(outputs[task.name], split.targets[task.name], task)
            for task in self.tasks
        }
        return metrics, outputs

    def _score(self, validation: Mapping[str, float]) -> float:
        """What the best epoch is best in: higher is better, and undefined is worst."""
        changes = []
        for task in self.tasks:
            value = validation[task.name] * (1 if METRICS[task.metric].higher_is_better else -1)
            if self.reference is not None:
                base = abs(self.reference[task.name])
                value = (value - math.copysign(base, value)) / max(base, 1e-12)
            changes.append(value)
        known = [change for change in changes if not math.isnan(change)]
        return statistics.fmean(known) if known else -math.inf

    def _trunk(self) -> list[Tensor]:
        return [parameter for parameter in self.model.trunk.parameters() if parameter.requires_grad]

    def _plain_length(self, epoch: int, inputs: Tensor, targets: dict[str, Tensor]) -> float:
        """Norm of the plain sum's gradient of the trunk on a batch."""
        torch.manual_seed(_key(self.seed, epoch))
        losses = [loss for loss in self._losses(inputs, targets)[1].values() if loss is not None]
        if not losses:
            return 0.0
        return _norm(torch.autograd.grad(torch.stack(losses).sum(), self._trunk(), allow_unused=True))

    def _probe_cosines(self) -> list[list[float]]:
        """Exact cosines on fixed training rows, the same for every arm and epoch, with dropout off."""
        self.model.eval()
        rows = torch.randperm(len(self.data.train), generator=torch.Generator().manual_seed(self.seed))
        matrices = []
        for batch in rows.split(self.training.batch_size)[:_PROBE_BATCHES]:
            losses = [
                loss for loss in self._losses(*self._take(self.data.train, batch))[1].values() if loss is not None
            ]
            if len(losses) == len(self.tasks):
                matrices.append(cosines(Exact(losses, self._trunk()).gram()))
        if not matrices:
            return [[math.nan] * len(self.tasks) for _ in self.tasks]
        mean: list[list[float]] = torch.stack(matrices).mean(0).tolist()
        return mean

    def _cost(self) -> RunCost:
        return RunCost(
            steps=len(self.times) + 1,
            seconds=sum(self.times),
            seconds_per_step=statistics.median(self.times) if self.times else math.nan,
            peak_memory_mib=self.peak or 0.0,
            forwards_per_step=self.passes[0],
            backwards_per_step=self.passes[1],
            parameters=sum(parameter.numel() for parameter in self.model.parameters()),
            step_length=statistics.median(self.lengths) if self.lengths else math.nan,
        )


def _copy(model: nn.Module) -> dict[str, Tensor]:
    return {name: value.clone() for name, value in model.state_dict().items()}


def _norm(gradients: Iterable[Tensor | None]) -> float:
    """Norm of all gradients together."""
    return math.sqrt(sum(float(gradient.norm()) ** 2 for gradient in gradients if gradient is not None))
