"""One model in training: the loop, and what is measured on the way."""

import math
import statistics
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field

import torch
from torch import Tensor, nn
from torch.optim import Optimizer

from motet.linalg import cosines
from motet.losses import task_loss
from motet.metrics import METRICS
from motet.problems.base import Data, Model, Split, Task, Training
from motet.problems.views import Inputs
from motet.routes import Exact
from motet.step import NonFiniteError
from motet.study.arms import Arm
from motet.study.choice import score
from motet.study.memory import peak_memory
from motet.study.momentum import Watch
from motet.study.networks import Network, shared_of
from motet.study.pairing import listed
from motet.study.results import SINGLE, SUM, Cosines, Epoch, Notice, Run, RunCost, Shown, Weights
from motet.study.shown import show
from motet.study.steppers import Batch, Features

_PROBE_BATCHES = 4
_STREAM = 300  # Rows that a stream of weights is thinned to.


@dataclass
class Trained:
    """A finished run with what does not fit into JSON."""

    run: Run
    parameters: dict[str, Tensor]
    predictions: dict[str, Tensor]


@dataclass(frozen=True)
class Tick:
    """What is known after an epoch.

    Attributes:
        task: Of a single-task model; empty for a shared one.
        score: Of this epoch on validation, as `motet.study.choice.score` says; higher is better.
        counts: Whether this epoch stands for one of the arm: of single-task models, those of the last task do.
    """

    arm: str
    seed: int
    epoch: Epoch
    score: float
    task: str = ""
    counts: bool = True


def _key(seed: int, epoch: int, step: int = 0) -> int:
    """A seed for the random numbers of one step, the same for every arm; generators take 64 bits."""
    return ((seed * 1_000_003 + epoch) * 1_000_003 + step) % 2**63


@dataclass
class Fit:
    """The training of one model, with its bookkeeping beside it; see `motet.study.training.train`."""

    model: Network
    data: Data
    tasks: tuple[Task, ...]
    arm: Arm
    seed: int
    training: Training
    reference: Mapping[str, float] | None
    tick: Callable[[Tick], None]
    curve: list[Epoch] = field(default_factory=list)
    stream: list[Weights] = field(default_factory=list)
    cosines: list[Cosines] = field(default_factory=list)
    warnings: list[Notice] = field(default_factory=list)
    times: list[float] = field(default_factory=list)
    lengths: list[float] = field(default_factory=list)
    forwards: list[int] = field(default_factory=list)
    backwards: list[int] = field(default_factory=list)
    updates: int = 0
    unconverged: int = 0
    peak: float | None = None

    def finish(self) -> Trained:
        """Train to the end and evaluate the best epoch on the test split."""
        names = [task.name for task in self.tasks]
        optimizer = self._optimizer()
        self.stepper = self.arm.stepper(names, self.seed, self.model, optimizer)
        self.watch = self._watch(optimizer)
        self._penalty: Tensor | None = None
        self._done = 0
        best, best_epoch, best_state = -math.inf, 0, _copy(self.model)
        kept, own = dict.fromkeys(names, math.nan), _OwnBest(self.tasks)
        early = max(1, round(0.1 * self.training.epochs))
        for epoch in range(1, self.training.epochs + 1):
            try:
                losses = self._epoch(epoch)
            except (NonFiniteError, ValueError) as error:
                self._broke_down(epoch, error, results=best > -math.inf)
                break
            validation = self._metrics(self.data.validation)[0]
            self._report(validation)
            found = score(self.tasks, validation, self.reference)
            better, improved = found > best or not best_epoch, own.improved(validation)
            if better or improved:
                here = self._metrics(self.data.test)[0]
                own.keep(improved, here)
            if better:
                best, best_epoch, best_state, kept = found, epoch, _copy(self.model), here
            spent = (self.updates, sum(self.forwards), sum(self.backwards))
            self.curve.append(Epoch(epoch, sum(self.times), losses, validation, kept, *spent))
            stop = epoch == self.training.epochs or epoch - best_epoch >= self.training.patience
            if len(self.tasks) > 1 and (epoch == early or stop):
                self.cosines.append(Cosines(epoch, names, self._probe_cosines()))
            self.tick(Tick(self.arm.label, self.seed, self.curve[-1], found))
            if stop:
                break
        self.model.load_state_dict(best_state)
        validation, test = dict.fromkeys(names, math.nan), dict.fromkeys(names, math.nan)
        predictions: dict[str, Tensor] = {}
        if best_epoch:
            validation = self._metrics(self.data.validation)[0]
            test, predictions = self._metrics(self.data.test)
        self._notice(best_epoch)
        run = Run(
            arm=self.arm.label,
            seed=self.seed,
            test=test,
            validation=validation,
            best_epoch=dict.fromkeys(names, best_epoch),
            curve=self.curve,
            weights=self.stream[:: max(1, len(self.stream) // _STREAM)],
            cosines=self.cosines,
            cost=self._cost(),
            warnings=self.warnings,
            groups=self.stepper.groups(),
            momentum=self.watch.found(),
            shown=self._show() if best_epoch else None,
            specialised=own.test,
        )
        return Trained(run, best_state, predictions)

    def _optimizer(self) -> Optimizer:
        try:
            return self.arm.optimizer.make(self.model, self.training)
        except ValueError as error:
            raise ValueError(f"arm {self.arm.label!r}: {error}") from None

    @property
    def _batches_an_epoch(self) -> int:
        return math.ceil(len(self.data.train) / self.training.batch_size)

    def _watch(self, optimizer: Optimizer) -> Watch:
        batches = self._batches_an_epoch
        trunk = self._trunk() if len(self.tasks) > 1 else []
        return Watch(optimizer, trunk, batches * self.training.epochs, batches * self.training.patience)

    def _broke_down(self, epoch: int, error: Exception, results: bool) -> None:
        """Training can't go on. ``results``: whether an epoch before it has some."""
        if not self.curve and not isinstance(error, NonFiniteError):
            raise ValueError(f"arm {self.arm.label!r}, seed {self.seed}: {error}") from error
        cause = str(error)
        if isinstance(error, NonFiniteError) and error.tasks:
            # The error's own text advises an option of the Balancer, which a study does not have.
            who = listed("task", [repr(task) for task in error.tasks])
            several = len(error.tasks) > 1
            cause = f"the {'losses or gradients' if several else 'loss or gradient'} of {who} "
            cause += "are not finite" if several else "is not finite"
        if not results and self.arm.label in (SINGLE, SUM):
            raise ValueError(
                f"training of {self.arm.label!r} broke down in epoch {epoch} with seed {self.seed}, before it had a "
                f"result: {cause}. Every arm is compared with this one: try a smaller learning rate "
                f"(--learning-rate) than {self.training.learning_rate:g}"
            ) from error
        kept = "the best epoch before it counts" if results else "there is no result"
        self.warnings.append(Notice("broke down", f"training broke down in epoch {epoch}: {cause}; {kept}"))

    def _report(self, validation: dict[str, float]) -> None:
        """Hand figures of merit to methods that weigh tasks by them: those that lie between 0 and 1, and grow."""
        report = getattr(self.stepper.method, "report", None)
        if report is not None:
            good = [task.metric in ("accuracy", "auroc") for task in self.tasks]
            found = [validation[t.name] if ok else math.nan for t, ok in zip(self.tasks, good, strict=True)]
            report(found)

    def _show(self) -> Shown | None:
        """What the architecture has to show of the test split, after training."""
        if isinstance(self.model, Model):
            return None
        self.model.eval()
        with torch.no_grad():
            return show(self.model, self.data.test.inputs, self.seed)

    def _notice(self, best_epoch: int) -> None:
        missing = [task.name for task in self.tasks if task.metric not in ("accuracy", "auroc")]
        method, groups = self.stepper.method, self.stepper.groups()
        if missing and hasattr(method, "report"):
            text = f"{listed('task', missing)}: e^(-loss) stood in for an accuracy"
            self.warnings.append(Notice("stand-in", text))
        if method is not None and method.two_samples and len(self.tasks) > 1:
            text = "its second batch is another one of the training split: the validation split chooses the epoch"
            self.warnings.append(Notice("second batch", text))
        if self.unconverged:
            text = f"the method's solver stopped at its iteration limit in {self.unconverged} steps"
            self.warnings.append(Notice("unconverged", text))
        if groups is not None and groups.warmup is None:
            text = f"training ended after {groups.batches} batches, before any groups were learnt: set warmup="
            self.warnings.append(Notice("warm-up", text))
        if best_epoch and best_epoch >= self.training.epochs - 1:
            self.warnings.append(Notice("last epoch", "the best epoch is one of the last two: more epochs may help"))

    def _epoch(self, epoch: int) -> dict[str, float]:
        """One pass over the training split: the mean loss of every task."""
        self.model.train()
        seen: dict[str, list[float]] = {task.name: [] for task in self.tasks}
        for step, (inputs, targets) in enumerate(self._batches(epoch)):
            measured = step == 0 and self.stepper.single
            plain = self._plain_length(epoch, inputs, targets) if measured else 0.0
            losses = self._timed_step(epoch, step, inputs, targets)
            if plain > 0:
                self.lengths.append(_norm(parameter.grad for parameter in self._trunk()) / plain)
            for task, loss in losses.items():
                seen[task].append(float(loss.detach()))
        return {task: statistics.fmean(losses) if losses else float("nan") for task, losses in seen.items()}

    def _timed_step(self, epoch: int, step: int, inputs: Inputs, targets: dict[str, Tensor]) -> Mapping[str, Tensor]:
        if self.peak is None:  # The very first step allocates everything that later ones reuse.
            losses, self.peak = peak_memory(lambda: self._step(epoch, step, inputs, targets), str(inputs.device))
            return losses
        start, known = time.perf_counter(), self.watch.measured
        losses = self._step(epoch, step, inputs, targets)
        seconds = time.perf_counter() - start
        if self.watch.measured > known and self.times:
            seconds = statistics.median(self.times)  # Measuring is no part of training.
        self.times.append(seconds)
        return losses

    def _step(self, epoch: int, step: int, inputs: Inputs, targets: dict[str, Tensor]) -> Mapping[str, Tensor]:
        def seed() -> None:
            # torch.manual_seed looks for every kind of device: half a millisecond, as much as a small step.
            if inputs.device.type == "cpu":
                torch.default_generator.manual_seed(_key(self.seed, epoch, step))
            else:
                torch.manual_seed(_key(self.seed, epoch, step))

        def second() -> dict[str, Tensor | None]:
            # The split for validation chooses the epoch, so that it must not choose the weights too.
            generator = torch.Generator().manual_seed(_key(self.seed, -epoch, step))
            rows = torch.randint(len(self.data.train), (len(inputs),), generator=generator)
            return self._losses(*self._take(self.data.train, rows))[1]

        def forward() -> tuple[Features, dict[str, Tensor | None]]:
            features, losses = self._losses(inputs, targets)
            self.watch.look(losses)
            return features, losses

        seed()
        done = self.stepper.step(Batch(forward, second, seed, lambda: self._penalty))
        self._done += 1
        self.forwards.append(done.forwards)
        self.backwards.append(done.backwards)
        self.updates += done.updates
        self.unconverged += not done.converged
        if done.weights:
            weights = {task: float(weight) for task, weight in done.weights.items()}
            self.stream.append(Weights(len(self.times), weights))
        return done.losses

    def _losses(self, inputs: Inputs, targets: dict[str, Tensor]) -> tuple[Features, dict[str, Tensor | None]]:
        """Features and losses; what the architecture adds to them, in this step, is kept aside."""
        features: Features
        outputs: dict[str, Tensor]
        if isinstance(self.model, Model):
            features, outputs = self.model(inputs)
        else:
            outputs, info = self.model.explain(inputs)
            features = info["features"]
            total = self._batches_an_epoch * self.training.epochs
            self._penalty = self.arm.architecture.penalty(self.model, info, self._done, total)
        return features, {task.name: task_loss(task, outputs[task.name], targets[task.name]) for task in self.tasks}

    def _batches(self, epoch: int) -> Iterator[tuple[Inputs, dict[str, Tensor]]]:
        generator = torch.Generator().manual_seed(_key(self.seed, epoch))
        order = torch.randperm(len(self.data.train), generator=generator)
        for rows in order.split(self.training.batch_size):
            yield self._take(self.data.train, rows)

    def _take(self, split: Split, rows: Tensor) -> tuple[Inputs, dict[str, Tensor]]:
        return split.inputs[rows], {task.name: split.targets[task.name][rows] for task in self.tasks}

    def _metrics(self, split: Split) -> tuple[dict[str, float], dict[str, Tensor]]:
        self.model.eval()
        with torch.no_grad():
            outputs = self.model(split.inputs)[1]
        metrics = {
            task.name: METRICS[task.metric](outputs[task.name], split.targets[task.name], task) for task in self.tasks
        }
        return metrics, outputs

    def _trunk(self) -> list[Tensor]:
        return [parameter for parameter in shared_of(self.model) if parameter.requires_grad]

    def _plain_length(self, epoch: int, inputs: Inputs, targets: dict[str, Tensor]) -> float:
        """Norm of the plain sum's gradient of the trunk on a batch, penalties and all."""
        torch.manual_seed(_key(self.seed, epoch))
        losses = [loss for loss in self._losses(inputs, targets)[1].values() if loss is not None]
        if not losses:
            return 0.0
        losses += [] if self._penalty is None else [self._penalty]
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
            forwards_per_step=statistics.fmean(self.forwards) if self.forwards else 0.0,
            backwards_per_step=statistics.fmean(self.backwards) if self.backwards else 0.0,
            parameters=sum(parameter.numel() for parameter in self.model.parameters()),
            step_length=statistics.median(self.lengths) if self.lengths else math.nan,
            updates=self.updates,
            forwards=sum(self.forwards),
            backwards=sum(self.backwards),
        )


class _OwnBest:
    """Every task's test metric at the epoch with its own best validation metric."""

    def __init__(self, tasks: tuple[Task, ...]) -> None:
        self.tasks = tasks
        self.best = dict.fromkeys((task.name for task in tasks), -math.inf)
        self.test = dict.fromkeys(self.best, math.nan)

    def improved(self, validation: Mapping[str, float]) -> list[str]:
        """The tasks for which this epoch is the best so far."""
        found = {task.name: score((task,), validation, None) for task in self.tasks}
        names = [name for name, value in found.items() if value > self.best[name]]
        self.best.update({name: found[name] for name in names})
        return names

    def keep(self, names: list[str], test: Mapping[str, float]) -> None:
        self.test.update({name: test[name] for name in names})


def _copy(model: nn.Module) -> dict[str, Tensor]:
    return {name: value.clone() for name, value in model.state_dict().items()}


def _norm(gradients: Iterable[Tensor | None]) -> float:
    """Norm of all gradients together."""
    return math.sqrt(sum(float(gradient.norm()) ** 2 for gradient in gradients if gradient is not None))
