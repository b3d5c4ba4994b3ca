"""The measurement: right on problems whose affinities are known, honest about what it does not know."""

import json
import math
import shlex
import signal
from dataclasses import asdict, replace

import numpy as np
import pytest
import torch
from torch import nn
from torch.testing import assert_close

from motet.loop import Loop
from motet.problems.base import Data, Split
from motet.study import measuring
from motet.study.affinity import Source, measure, of_loop, of_problem, pooled, undisturbed
from motet.study.arms import parse
from motet.study.measured import Pair, Sure
from motet.study.sentences import by_chance, parted, proof, proposal, sureness
from tests.study.tiny import TINY

TARGETS = {"a": [1.0, 1.0, 0.5, 0.0], "b": [1.0, 0.8, 0.0, 0.5], "c": [-1.0, -1.0, 0.3, 0.3]}
"""Where each task wants the shared vector: a and b the same way, c the other."""


class Pulled(nn.Module):
    """One shared vector u, and a loss ½ ‖u - target‖² + 1 a task."""

    def __init__(self, targets=TARGETS):
        super().__init__()
        self.u = nn.Parameter(torch.full((4,), 0.1))
        self.targets = {task: torch.tensor(target) for task, target in targets.items()}

    def forward(self, shift):
        return {task: 1 + 0.5 * (self.u - t - shift).pow(2).sum() for task, t in self.targets.items()}


def batches(count=40):
    return list(0.05 * torch.randn(count, 4, generator=torch.Generator().manual_seed(1)))


def pulled(optimizer=lambda p: torch.optim.SGD(p, lr=3e-3), **changes):
    model = Pulled()
    return Loop(
        model, **({"losses": model, "batches": batches(), "optimizer": optimizer(model.parameters())} | changes)
    )


def found(loop=None, **options):
    return measure(lambda seed: of_loop(loop or pulled(), "x:y"), **({"epochs": 2, "runs": 1} | options))


def tiny(seed=0, problem=TINY, **options):
    return measure(lambda seed: of_problem(problem, seed), seed=seed, **({"runs": 1} | options))


def test_the_map_is_the_first_order_affinity_of_a_third_of_the_step():
    """B_{i→k} = η gᵢ·gₖ / Lₖ at steps so short that nothing moves."""
    late = found(pulled(lambda p: torch.optim.SGD(p, lr=3e-4)), decay=0.01).late
    gradients = torch.stack([torch.full((4,), 0.1) - torch.tensor(t) for t in TARGETS.values()]).double()
    losses = 1 + 0.5 * gradients.pow(2).sum(1)
    expected = (1e-4 * gradients @ gradients.T / losses).numpy()
    np.testing.assert_allclose(late.matrix, expected, rtol=0.1, atol=2e-6)
    np.testing.assert_allclose(late.lookahead, expected, rtol=0.1, atol=5e-6)
    norms = gradients.norm(dim=1)
    np.testing.assert_allclose(late.cosines, gradients @ gradients.T / norms[:, None] / norms, rtol=0.05, atol=0.02)


@pytest.mark.parametrize("estimator", ["pairwise", "regression"])
def test_tasks_that_pull_one_way_are_grouped_and_their_opponent_is_not(estimator):
    result = found(estimator=estimator, epochs=4)
    assert [group.tasks for group in result.groups] == [["a", "b"], ["c"]]
    assert result.groups[0].together > 0.95
    assert {(p.source, p.target) for p in result.helping()} == {("a", "b"), ("b", "a")}
    assert {p.target for p in result.hurting() if p.source == "c"} == {"a", "b"}
    assert result.disagreements == []


@pytest.mark.parametrize(
    "optimizer",
    [
        lambda p: torch.optim.SGD(p, lr=3e-3, momentum=0.9, nesterov=True),
        lambda p: torch.optim.AdamW(p, lr=3e-3, weight_decay=0.0),
    ],
)
def test_momentum_credits_no_task_with_what_others_did(optimizer):
    """With momentum, a's steps would carry c's gradients and the other way round."""
    result = found(pulled(optimizer), epochs=3)
    assert [group.tasks for group in result.groups] == [["a", "b"], ["c"]]
    assert np.array(result.late.matrix)[0, 2] < 0
    assert any("without momentum" in note for note in result.notes)


def test_a_loop_without_momentum_is_told_of_the_shorter_steps_alone():
    note = found().notes[1]
    assert "a third of its learning rate (0.001 and not 0.003)" in note
    assert "β" not in note
    assert "momentum" not in note


def test_steps_that_overshoot_are_said_to_mean_little():
    result = found(pulled(lambda p: torch.optim.SGD(p, lr=6.6)), epochs=1)
    assert any(note.startswith("Steps for a, b, c mostly raise") for note in result.notes)
    assert not any("mostly raise" in note for note in found().notes)


def holed(seed):
    """dose and ill never have labels in the same row."""
    data = TINY.load(seed)
    train = {task: values.clone() for task, values in data.train.targets.items()}
    train["dose"][::2] = torch.nan
    train["ill"][1::2] = torch.nan
    return Data(data.tasks, Split(data.train.inputs, train), data.validation, data.test)


def test_pairs_without_common_rows_are_greyed_and_never_joined():
    result = tiny(problem=replace(TINY, load=holed), epochs=20)
    assert [(one, other) for one, other, _ in result.greyed] == [("dose", "ill")]
    assert "0 training rows with labels of both" in result.greyed[0][2]
    assert not {("dose", "ill"), ("ill", "dose")} & {(p.source, p.target) for p in result.pairs}
    assert np.array(result.together)[0, 1] == 0 or "grade" in {t for g in result.groups for t in g.tasks}
    assert not any({"dose", "ill"} == set(group.tasks) for group in result.groups)
    rows = {(p.source, p.target): p.rows for p in result.pairs}
    labels = holed(0).train.targets
    both = (~labels["dose"].isnan() & (labels["grade"] >= 0)).sum()
    assert rows["dose", "grade"] == rows["grade", "dose"] == both


def test_tasks_that_never_meet_in_a_batch_are_greyed():
    model = Pulled()

    def losses(batch):
        number, shift = batch
        every = model(shift)
        return {task: loss if (task == "c") == (number % 2 == 1) else None for task, loss in every.items()}

    loop = Loop(model, losses, list(enumerate(batches())), torch.optim.SGD(model.parameters(), lr=3e-3))
    result = found(loop, epochs=3)
    assert [(one, other) for one, other, _ in result.greyed] == [("a", "c"), ("b", "c")]
    assert "0 measurements, fewer than 20" in result.greyed[0][2]
    assert [group.tasks for group in result.groups] == [["a", "b"], ["c"]]
    assert math.isnan(result.late.matrix[0][2])
    assert math.isnan(result.late.lookahead[0][2])
    assert math.isnan(result.late.cosines[0][2])
    assert all(pair.rows is None for pair in result.pairs)


def test_features_beside_the_losses_are_taken_and_losses_of_one_task_refused():
    model = Pulled()
    loop = Loop(model, lambda x: (model(x), model.u * 1), batches(), torch.optim.SGD(model.parameters(), lr=3e-3))
    assert found(loop).tasks == ["a", "b", "c"]
    alone = Pulled({"a": TARGETS["a"]})
    with pytest.raises(ValueError, match="between tasks, and the losses name 1: a"):
        found(Loop(alone, alone, batches()))
    with pytest.raises(ValueError, match="must be a dict .* not list"):
        found(Loop(model, lambda x: list(model(x).values()), batches()))


def test_the_parameters_that_two_tasks_use_are_the_shared_ones():
    class Net(nn.Module):
        def __init__(self):
            super().__init__()
            self.trunk, self.bend = nn.Linear(4, 3), nn.Linear(3, 3)
            self.heads = nn.ModuleDict({task: nn.Linear(3, 1) for task in "ab"})

        def forward(self, x):
            z = self.trunk(x).relu()
            return {
                task: (head(self.bend(z) if task == "b" else z) - 1).pow(2).mean() for task, head in self.heads.items()
            }

    torch.manual_seed(0)
    model = Net()
    every = found(Loop(model, model, list(torch.randn(30, 8, 4))))
    torch.manual_seed(0)
    model = Net()
    named = found(Loop(model, model, list(torch.randn(30, 8, 4)), shared=model.trunk))
    assert every.late.cosines == named.late.cosines
    parts = nn.ParameterDict({task: nn.Parameter(torch.ones(2)) for task in "ab"})
    apart = Loop(parts, lambda x: {task: (p - x).pow(2).sum() for task, p in parts.items()}, [torch.zeros(2)] * 3)
    with pytest.raises(ValueError, match="no parameter is used by the losses of two tasks"):
        found(apart)


def test_probes_leave_no_trace_in_running_statistics():
    torch.manual_seed(0)
    norm = nn.BatchNorm1d(4)
    model = nn.Sequential(nn.Linear(4, 4), norm, nn.Dropout(0.5), nn.Linear(4, 2))
    loop = Loop(model, lambda x: dict(zip("ab", model(x).pow(2).mean(0), strict=True)), list(torch.randn(12, 16, 4)))
    found(loop, epochs=2)
    assert norm.num_batches_tracked == 24


def test_the_same_seed_gives_the_same_result_and_leaves_the_global_generator_alone():
    torch.manual_seed(7)
    expected = torch.rand(3)
    torch.manual_seed(7)
    first, second = (asdict(tiny(3, epochs=3, runs=2)) for _ in range(2))
    assert_close(torch.rand(3), expected, rtol=0, atol=0)
    for result in (first, second):
        del result["cost"]
    assert json.dumps(first) == json.dumps(second)


def test_snapshots_are_early_middle_and_late_and_the_timeline_ends_with_the_proposal():
    result = found()
    assert [(s.name, s.batch) for s in result.snapshots] == [("early", 8), ("middle", 40), ("late", 80)]
    assert result.timeline[-1].groups == [group.tasks for group in result.groups]
    assert result.cost["passes"] == 80 * 3
    assert [s.epoch for s in result.snapshots] == [0.2, 1.0, 2.0]


def test_without_epochs_the_training_has_a_fixed_length(monkeypatch):
    monkeypatch.setattr(measuring, "BATCHES", 50)
    assert found(epochs=None).cost["batches"] == 50
    assert found(pulled(batches=batches(70)), epochs=None).cost["batches"] == 50


def test_a_small_table_is_not_gone_through_until_it_is_known_by_heart():
    few, some = found(pulled(batches=batches(8)), epochs=None), found(pulled(batches=batches(12)), epochs=None)
    assert few.cost["batches"] == 80
    assert some.cost["batches"] == 120
    assert not any("by heart" in note for note in few.notes + some.notes)


def test_training_for_many_epochs_is_said():
    least, asked = found(pulled(batches=batches(3)), epochs=None), found(epochs=11)
    assert least.cost["batches"] == 60
    assert any(note.startswith("Each training was 20 passes over its 3 batches, more than 10") for note in least.notes)
    assert any(note.startswith("Each training was 11 passes") for note in asked.notes)


class Stream:
    """Batches whose number nobody says."""

    def __init__(self, count):
        self.count, self.given = count, 0

    def __iter__(self):
        for batch in batches(self.count):
            self.given += 1
            yield batch


def test_batches_without_a_length_are_counted_no_further_than_it_matters():
    assert found(pulled(batches=Stream(8)), epochs=None).cost["batches"] == 80
    stream = Stream(400)
    assert found(pulled(batches=stream), epochs=None).cost["batches"] == 300
    assert stream.given < 300 + 31 + 10


def turning(turn):
    """a and b pull one way up to batch ``turn``, and apart from there on."""
    model = Pulled({"a": [1.0] * 4, "b": [1.0] * 4, "c": [-1.0] * 4})
    flipped = Pulled({"a": [1.0] * 4, "b": [-1.0] * 4, "c": [-1.0] * 4})
    flipped.u = model.u

    def losses(batch):
        number, shift = batch
        return (model if number < turn else flipped)(shift)

    return Loop(model, losses, list(enumerate(batches(120))), torch.optim.SGD(model.parameters(), lr=3e-4))


def test_a_proposal_that_the_middle_of_the_training_does_not_share_is_said():
    changed = [note for note in found(turning(70), epochs=1).notes if note.startswith("The proposal depends")]
    assert len(changed) == 1
    assert "after 60 batches it would be a + b; c, and after 120 it is a; b + c." in changed[0]
    assert not any(note.startswith("The proposal depends") for note in found(turning(120), epochs=1).notes)


def apart(*holes):
    """The tiny problem without labels of a task in the rows of a slice."""

    def load(seed):
        data = TINY.load(seed)
        train = {task: values.clone() for task, values in data.train.targets.items()}
        for task, rows in holes:
            train[task][rows] = -1 if task == "grade" else torch.nan
        return Data(data.tasks, Split(data.train.inputs, train), data.validation, data.test)

    return replace(TINY, load=load)


def test_pairs_that_share_too_few_rows_are_said_before_training():
    said = []

    def tick(done, total):
        assert said

    holes = (("dose", slice(None, None, 2)), ("ill", slice(1, None, 2)))
    tiny(problem=apart(*holes), epochs=2, say=said.append, tick=tick)
    assert len(said) == 1
    assert "1 of 3 pairs of tasks can't be measured" in said[0]
    assert said[0].endswith("dose and ill (0).")
    tiny(epochs=1, say=said.append)
    assert len(said) == 1


def test_no_common_rows_at_all_are_refused_before_training():
    holes = (("dose", slice(30, None)), ("ill", slice(0, 30)), ("ill", slice(60, None)), ("grade", slice(0, 60)))
    with pytest.raises(ValueError, match="no two tasks have labels in 30 training rows .* at most 0. More rows"):
        tiny(problem=apart(*holes), tick=lambda done, total: pytest.fail("it trained"))


def test_a_task_of_which_nothing_was_measured_is_not_called_alone():
    holes = (("dose", slice(0, 48)), ("ill", slice(48, None)), ("grade", slice(48, None)))
    result = tiny(problem=apart(*holes), epochs=20)
    said = {tuple(group.tasks): sureness(group) for group in result.groups}
    assert said["dose",] == "not known: too little was measured between dose and any other task"
    assert not any(words.startswith("not known") for tasks, words in said.items() if tasks != ("dose",))
    assert proposal(result).startswith("Proposed")


def test_without_a_measured_pair_there_is_no_proposal():
    result = tiny(epochs=1)
    assert result.pairs == []
    assert proposal(result) == "No proposal"
    assert by_chance(result) == "No pair could be measured."
    assert all(sureness(group).startswith("not known") for group in result.groups)
    assert result.command == ""
    assert "no groups to test" in proof(result)


def test_the_suggested_command_tests_the_proposal_itself():
    result = tiny(epochs=20)
    words = shlex.split(result.command)
    assert words[:4] == ["motet", "compare", "tiny", "--arms"]
    proposed = [[result.tasks.index(task) for task in group.tasks] for group in result.groups]
    assert [list(group) for group in parse(words[4]).plan.groups] == proposed
    assert words[5:] == ["groups", "sum:steps=groups", "sum:epochs=groups", "groups:random"]
    assert f"`{result.command}` tests that" in proof(result)
    assert found().command == ""
    assert "`motet compare` can't test that for a loop of one's own" in proof(found())


def test_the_strongest_pair_in_two_groups_is_explained():
    result = found()

    def pair(source, target, affinity):
        return Pair(source, target, affinity, 0.001, 0, 1, 0, 1, 50, None)

    helping = [pair("a", "b", 0.03), pair("c", "b", 0.02)]
    groups = [Sure(["a"], math.nan, [], 0, []), Sure(["b", "c"], 1, [], 0, [])]
    each_other = [pair("a", "c", -0.02), pair("c", "a", -0.02)]
    said = parted(replace(result, pairs=helping + each_other, groups=groups))
    assert said == "a helps b most, but a and c hurt each other, and b can be in one group only: it is with c."
    second = parted(replace(result, pairs=[pair("b", "c", 0.04), *helping, *each_other], groups=groups))
    assert second.startswith("a helps b, but a and c hurt")
    assert parted(replace(result, pairs=[*helping, pair("a", "c", -0.02)], groups=groups)) == ""
    assert parted(result) == ""


def test_losses_that_are_no_tensors_are_named_with_the_task():
    model = Pulled()
    for change, kind in ((lambda loss: loss.item(), "not float"), (lambda loss: loss.expand(3), "tensor of shape")):

        def losses(x, change=change):
            return {task: change(loss) if task == "b" else loss for task, loss in model(x).items()}

        with pytest.raises(ValueError, match=f"the loss of 'b' must be a tensor with one number.*{kind}"):
            found(Loop(model, losses, batches()))


@pytest.mark.parametrize("late", [False, True])
def test_losses_that_call_backward_or_an_optimizer_are_refused(late):
    model = Pulled()
    optimizer = torch.optim.SGD(model.parameters(), lr=1e-3)

    def losses(x):
        every = model(x)
        sum(every.values()).backward(retain_graph=True)
        if late:
            optimizer.step()
            optimizer.zero_grad()
        return every

    with pytest.raises(ValueError, match="call neither backward"):
        found(Loop(model, losses, batches(), optimizer))


def test_layers_that_learn_their_size_in_the_first_call_are_no_such_losses():
    model = nn.LazyLinear(2)
    loop = Loop(model, lambda x: dict(zip("ab", (model(x) - 1).pow(2).mean(0), strict=True)), list(torch.ones(8, 3, 4)))
    assert found(loop, epochs=1).tasks == ["a", "b"]


def test_a_second_interrupt_does_not_reach_what_is_put_together():
    before = signal.getsignal(signal.SIGINT)
    with undisturbed():
        signal.raise_signal(signal.SIGINT)
    assert signal.getsignal(signal.SIGINT) is before


def stopped_after(count):
    def tick(done, total):
        if done == count:
            raise KeyboardInterrupt

    return tick


def test_stopped_later_it_says_what_was_measured():
    result = found(tick=stopped_after(50))
    assert result.interrupted
    assert result.notes[0].startswith(
        "Interrupted in training 1 of 1, after 50 of 80 batches: the map is from these alone."
    )
    assert result.late.batch == 50
    assert math.isnan(result.late.lookahead[0][1])
    assert [group.tasks for group in result.groups] == [["a", "b"], ["c"]]


def test_stopped_at_once_there_is_nothing_to_say():
    with pytest.raises(KeyboardInterrupt):
        found(tick=stopped_after(1))


class Once:
    """Batches that are there the first time only."""

    def __init__(self, times):
        self.times = times

    def __iter__(self):
        self.times -= 1
        yield from batches(10) if self.times >= 0 else []


def test_what_cannot_be_measured_is_named():
    with pytest.raises(ValueError, match="the loop's batches are empty"):
        found(pulled(batches=[]), epochs=None)
    with pytest.raises(ValueError, match="gave nothing from batch 11 on"):
        found(pulled(batches=Once(3)), epochs=None)
    model = Pulled()
    bad = [*batches(12), torch.full((4,), torch.nan)]
    loop = Loop(model, model, bad, torch.optim.SGD(model.parameters(), lr=1e-3))
    with pytest.raises(ValueError, match="broke down at batch 13: .*'a', 'b', 'c'"):
        found(loop)
    with pytest.raises(ValueError, match="epochs must be at least 1"):
        found(epochs=0)
    with pytest.raises(ValueError, match="seed must lie between 0 and"):
        found(seed=-1)
    with pytest.raises(ValueError, match="decay .* between 0 and 1"):
        found(decay=1.0)


def test_a_problem_names_the_comparison_that_would_prove_it():
    source = of_problem(TINY, 0)
    assert source.command == "motet compare tiny"
    assert isinstance(source, Source)
    assert "It means nothing." in source.notes


def test_errors_know_what_another_seed_changes():
    """Between trainings that differ more than their own batches tell, the error of the mean is that of the spread."""
    generator = np.random.default_rng(0)
    spread, own, runs = 3.0, 1.0, 4
    tries = []
    for _ in range(200):
        values = spread * generator.standard_normal((runs, 6, 6)) + own * generator.standard_normal((runs, 6, 6))
        mean, error = pooled(values, np.full((runs, 6, 6), own))
        tries.append((mean / error)[~np.eye(6, dtype=bool)])
    assert np.mean(np.abs(np.concatenate(tries)) > 2) == pytest.approx(0.05, abs=0.02)


def test_trainings_that_agree_have_the_error_of_their_batches_and_one_alone_says_so():
    values = np.ones((4, 3, 3))
    assert_close(torch.tensor(pooled(values, 2 * values)[1]), torch.ones(3, 3).double())
    assert_close(torch.tensor(pooled(values[:1], 2 * values[:1])[1]), torch.full((3, 3), 2.0).double())
    assert found().notes[0].startswith("One training alone")
    assert not tiny(epochs=2, runs=2).notes[0].startswith("One training alone")


def test_what_one_training_did_not_measure_is_of_the_others():
    values, errors = np.ones((3, 2, 2)), np.ones((3, 2, 2))
    values[0, 0, 1], errors[0, 0, 1] = np.nan, np.inf
    values[:, 1, 0], errors[:, 1, 0] = np.nan, np.inf
    mean, error = pooled(values, errors)
    assert mean[0, 1] == 1
    assert error[0, 1] == pytest.approx(2**-0.5)
    assert np.isnan(mean[1, 0])
    assert error[1, 0] == np.inf


def test_stopped_in_a_later_training_the_whole_ones_count():
    result = tiny(epochs=20, runs=3, tick=stopped_after(70))
    assert result.interrupted
    assert result.settings["trainings"] == 1
    kept = "which do not count: the map is from the whole training before alone."
    assert f"Interrupted in training 2 of 3, after 10 of 60 batches, {kept}" in result.notes


def test_a_factory_whose_tasks_change_is_refused():
    loops = iter([Pulled(), Pulled({"a": TARGETS["a"], "z": TARGETS["b"]})])

    def make(seed):
        model = next(loops)
        return of_loop(Loop(model, model, batches(8)), "x:y")

    with pytest.raises(ValueError, match="every training must have the same"):
        measure(make, runs=2, epochs=1)
