"""Arms with another optimizer: one label each, the tasks' gradients handed over, and plain AdamW as it was."""

import logging
import math
from dataclasses import replace

import pytest
import torch

from motet.problems.base import Training
from motet.study import caveats, fit
from motet.study.arms import parse, parse_all
from motet.study.catalogue import _MIXED, _OPTIMIZERS
from motet.study.momentum import Watch
from motet.study.optimizers import OPTIONS, PLAIN, Chosen, optimizer_of
from motet.study.store import read_runs
from motet.study.study import Study
from motet.study.training import train
from tests.study.tiny import TINY

REFERENCE = dict.fromkeys(("dose", "ill", "grade"), 0.5)
DEEP = replace(TINY.training, depth=2, epochs=4)
"""A trunk with a hidden matrix, and 12 batches."""


def trained(label, training=DEEP):
    return train(TINY, TINY.load(0), parse(label), 0, training, REFERENCE)


def same(one, other):
    return all(torch.equal(value, other.parameters[name]) for name, value in one.parameters.items())


@pytest.mark.parametrize(
    ("text", "label"),
    [
        ("adamw+sum", "sum"),
        ("AdamW(beta=0.90) + FairGrad", "fair-grad"),
        ("adamw(beta=.8)+sum", "adamw(beta=0.8)+sum"),
        ("Muon+sum", "muon+sum"),
        ("muon(beta=0.95)+ema+mgda@auto", "muon+ema=0.9+mgda"),
        ("APTAdamW+upgrad", "apt-adamw+upgrad"),
        ("apt_adamw(beta_min=0.50,rule=a1)+upgrad", "apt-adamw+upgrad"),
        (
            "apt-adamw(rule=A2,reference=momentum,beta_min=0.3)+sum",
            "apt-adamw(beta_min=0.3,rule=A2,reference=momentum)+sum",
        ),
        ("apt-adamw(rule=A4)+sum", "apt-adamw(reference=momentum)+sum"),
        ("apt-adamw(rule=A6)+sum", "apt-adamw(smoothing=0.9)+sum"),
        ("apt-adamw(rule=A6,smoothing=0)+sum", "apt-adamw+sum"),
        ("apt-adamw(rule=A7,reference=momentum,smoothing=0.9)+sum", "apt-adamw(rule=A7)+sum"),
        ("apt-adamw(scope=group)+sum", "apt-adamw+sum"),
        ("apt-muon(scope=group)+sum", "apt-muon(scope=group)+sum"),
        ("apt-muon+fair-grad:alpha=1@exact", "apt-muon+fair-grad:alpha=1@exact"),
        ("apt-muon(variant=l2,preserve=.1)+fair-grad", "apt-muon(preserve=0.1)+fair-grad"),
        ("apt-muon(preserve=0.1)+fair-grad@exact", "apt-muon(preserve=0.1)+fair-grad"),
        (
            "apt-muon(preserve=0.1,variant=L3)+fair-grad@features",
            "apt-muon(preserve=0.1,variant=L3)+fair-grad@features",
        ),
        ("muon(preserve=0,variant=L4)+sum", "muon+sum"),
        ("ada-task+sum@exact", "ada-task+sum"),
        ("apt-adamw+groups:warmup=5", "apt-adamw+groups:warmup=5"),
        ("muon+sum:epochs=2", "muon+sum:epochs=2"),
        ("muon+prefer=(2,1)+mgda", "muon+prefer=[2,1]+mgda"),
        ("muon(lr=1e-2)+sum", "muon(lr=0.01)+sum"),
        ("adamw(beta=0.8,lr=.003)+fair-grad", "adamw(lr=0.003,beta=0.8)+fair-grad"),
        ("ada-task(lr=1.0)+sum", "ada-task(lr=1)+sum"),
    ],
)
def test_one_way_of_training_has_one_label_that_reads_back_as_itself(text, label):
    assert parse(text).label == label
    assert parse(label) == parse(text)
    assert optimizer_of(label) == parse(text).optimizer


def test_a_prefix_that_changes_nothing_is_trained_once():
    labels = [arm.label for arm in parse_all(["adamw+sum", "muon+sum", "muon(beta=0.95)+sum", "adamw+mgda", "mgda"])]
    assert labels == ["stl", "sum", "muon+sum", "mgda"]


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("muno+sum", "did you mean 'muon'"),
        ("muno(beta=0.9)+sum", "no optimizer 'muno': did you mean 'muon'"),
        ("muon(momentum=0.9)+sum", "muon has no option 'momentum': did you mean 'beta'"),
        ("muon(speed=0.9)+sum", "muon has no option 'speed': there are lr, beta, preserve, variant"),
        ("apt-muon(rho=0.1)+sum", "did you mean 'preserve'"),
        ("apt+sum", "the optimizers adamw, muon, apt-adamw"),
        ("sgd+sum", "the optimizers adamw, muon, apt-adamw"),
        ("muon:lr=0.01+sum", r"write muon\(lr=0.01\)\+sum"),
        ("muon lr=0.01+sum", r"write muon\(lr=0.01\)\+sum"),
        ("muon(lr=.01+sum", "the bracket of muon is not closed"),
        ("adamw(beta_min=0.5)+sum", "adamw has no option 'beta_min': did you mean 'beta'"),
        ("muon(lr=0)+sum", "lr must be positive and finite, not 0"),
        ("adamw(lr=-1)+sum", "lr must be positive and finite, not -1"),
        ("adamw(lr=1e999)+sum", "lr must be positive and finite"),
        ("apt-muon(lr=high)+sum", "lr must be a number, not 'high'"),
        ("apt-adamw(lr=None)+sum", "lr must be a number"),
        ("adamw(beta=1)+sum", r"beta must be in \[0, 1\)"),
        ("adamw(beta=high)+sum", "beta must be a number, not 'high'"),
        ("adamw(beta=True)+sum", "beta must be a number"),
        ("adamw(0.8)+sum", "name=value"),
        ("adamw(beta=0.8,beta=0.9)+sum", "twice"),
        ("apt-adamw(beta_min=0.95)+sum", r"beta_min must be in \[0, 0.9\]"),
        ("apt-adamw(rule=A9)+sum", "rule must be one of A1"),
        ("apt-adamw(adapt_second=1)+sum", "adapt_second must be True or False"),
        ("apt-muon(preserve=-1)+sum", "preserve must be at least 0"),
        ("apt-muon(preserve=2,variant=L4)+sum", "at most 1 for L4"),
        ("muon", "muon is an optimizer: write what it trains behind it, as in muon\\+sum"),
        ("muon(preserve=0.1)", "as in muon\\+sum"),
        ("ema+muon+mgda", "an optimizer stands before all wrappers: move 'muon'"),
        ("muon+adamw+mgda", "an optimizer stands before all wrappers: move 'adamw'"),
        ("muon+stl", "stl is what all arms are compared with, .* compare muon\\+sum with sum"),
        ("muon+groups:random", "takes a number"),
        ("muon+sum:steps=groups", "takes a number"),
        ("muon+no-such-method", "there is no arm"),
        ("muon(preserve=0.1)+fair-grad@features", "which the features route does not have: it needs @exact"),
        ("muon(preserve=0.1)+groups", "variant=L3 or variant=L4"),
        ("muon(preserve=0.1)+sum:steps=2", "variant=L3 or variant=L4"),
        ("ada-task+fair-grad", "write ada-task\\+sum"),
        ("ada-task+groups", "write ada-task\\+sum"),
    ],
)
def test_what_can_not_be_trained_is_refused_with_the_arm_and_the_reason(text, says):
    with pytest.raises(ValueError, match=says) as caught:
        parse(text)
    assert text in str(caught.value)


def test_without_a_prefix_the_optimizer_is_torchs_adamw_with_the_studys_settings():
    training = Training(learning_rate=0.007, weight_decay=0.03)
    model = TINY.model(TINY.load(0), 0, DEEP)
    assert parse("fair-grad").optimizer == PLAIN
    found = PLAIN.make(model, training)
    expected = torch.optim.AdamW(model.parameters(), lr=0.007, weight_decay=0.03)
    assert type(found) is torch.optim.AdamW
    assert found.state_dict() == expected.state_dict()
    assert [p for group in found.param_groups for p in group["params"]] == list(model.parameters())


@pytest.mark.parametrize("name", OPTIONS)
def test_every_optimizer_takes_the_studys_learning_rate_and_decay_for_all_parameters(name):
    model = TINY.model(TINY.load(0), 0, DEEP)
    found = Chosen(name).make(model, Training(learning_rate=0.007, weight_decay=0.03))
    assert all((group["lr"], group["weight_decay"]) == (0.007, 0.03) for group in found.param_groups)
    assert {p for group in found.param_groups for p in group["params"]} == set(model.parameters())


@pytest.mark.parametrize("name", OPTIONS)
def test_an_arm_may_have_a_learning_rate_of_its_own(name):
    model = TINY.model(TINY.load(0), 0, DEEP)
    found = parse(f"{name}(lr=0.02)+sum").optimizer.make(model, Training(learning_rate=0.007, weight_decay=0.03))
    assert all((group["lr"], group["weight_decay"]) == (0.02, 0.03) for group in found.param_groups)


def test_the_own_learning_rate_is_what_the_study_would_give():
    given = trained("muon(lr=0.01)+sum")
    assert given.run.arm == "muon(lr=0.01)+sum"
    assert same(given, trained("muon+sum", replace(DEEP, learning_rate=0.01)))
    assert not same(given, trained("muon+sum", replace(DEEP, learning_rate=0.02)))


def test_momentum_of_the_trunk_adapts_and_that_of_the_heads_does_not():
    model = TINY.model(TINY.load(0), 0, DEEP)
    heads = set(model.heads.parameters())
    for name in ("apt-adamw", "apt-muon"):
        for group in Chosen(name).make(model, DEEP).param_groups:
            assert group["beta_min"] == (None if set(group["params"]) <= heads else 0.5)


@pytest.mark.parametrize(
    "label",
    [
        "adamw(beta=0.5)+sum",
        "apt-adamw+mgda",
        "apt-adamw(beta_min=0.2,rule=A3,scope=tensor,adapt_second=True)+sum",
        "muon(beta=0.8)+ema=0.9+fair-grad",
        "apt-muon(rule=A2,reference=momentum)+uw",
        "ada-task+sum",
        "apt-adamw+groups:warmup=3",
        "muon+sum:steps=2",
    ],
)
def test_every_optimizer_trains_on_a_problem_with_missing_labels(label):
    found = trained(label)
    assert all(math.isfinite(value) for value in found.run.test.values())
    assert found.run.arm == label
    plain = label.partition("+")[2]
    assert not same(found, trained(plain))


@pytest.mark.parametrize("variant", ["L1", "L2", "L5", "L6"])
def test_direction_preservation_is_given_the_tasks_gradients(variant, caplog):
    with caplog.at_level(logging.WARNING, logger="motet"):
        kept = trained(f"muon(preserve=0.5,variant={variant})+fair-grad")
    assert "has no tasks' gradients" not in caplog.text
    assert not same(kept, trained("muon+fair-grad@exact"))


def test_a_preservation_that_needs_no_tasks_leaves_the_route_alone():
    assert not parse("muon(preserve=0.1,variant=L4)+fair-grad").optimizer.wants_tasks
    assert math.isfinite(trained("muon(preserve=0.1,variant=L4)+fair-grad@features").run.test["dose"])


def test_muon_without_a_hidden_matrix_is_refused_and_not_adamw_by_another_name():
    with pytest.raises(ValueError, match=r"'muon\+sum': muon has nothing to train .*--depth"):
        trained("muon+sum", replace(DEEP, depth=1))


def test_measuring_momentum_changes_no_bit_of_the_training(monkeypatch):
    labels = ("sum", "apt-muon(preserve=0.2)+fair-grad", "famo", "groups:warmup=3")
    measured = {label: trained(label) for label in labels}
    assert all(found.run.momentum for found in measured.values())
    monkeypatch.setattr(fit.Watch, "__init__", lambda self, *_: setattr(self, "_recorder", None))
    for label, found in measured.items():
        blind = trained(label)
        assert not blind.run.momentum
        assert same(found, blind)
        assert blind.run.test == found.run.test


def test_a_few_steps_are_measured_and_none_where_there_is_nothing_to_measure():
    run = trained("fair-grad", replace(DEEP, epochs=12, patience=12)).run
    assert [row.step for row in run.momentum] == [12, 24, 36]
    row = run.momentum[0]
    assert row.beta == pytest.approx(0.9)
    assert row.nominal == pytest.approx(0.1)
    assert row.instant == pytest.approx(row.shares[0])
    assert set(row.cosine_tasks) == set(REFERENCE)
    assert row.counterfactual > 0
    early = trained("fair-grad", replace(DEEP, epochs=40, patience=3)).run
    assert early.curve[-1].epoch < 13
    assert early.momentum[0].step == 9
    assert trained("stl").run.momentum == trained("ada-task+sum").run.momentum == []


def test_a_training_that_might_have_ended_is_measured_at_ever_longer_intervals():
    p = torch.nn.Parameter(torch.ones(4))
    optimizer = torch.optim.SGD([p], lr=0.01, momentum=0.9)
    watch = Watch(optimizer, [p], most=300, least=10)
    for _ in range(300):
        optimizer.zero_grad()
        loss = p.square().sum()
        watch.look({"a": loss, "b": None})
        loss.backward()
        optimizer.step()
    found = watch.found()
    assert [row.step for row in found] == [10, 20, 40, 80, 160]
    assert all(set(row.cosine_tasks) == {"a"} and len(row.shares) == 6 for row in found)


def test_the_plain_sums_update_is_the_plain_sums():
    row = trained("adamw(beta=0.5)+sum").run.momentum[0]
    assert row.counterfactual == pytest.approx(0, abs=1e-3)
    assert row.beta == pytest.approx(0.5)


def test_adaptive_momentum_stays_between_its_bounds_and_moves():
    betas = [
        row.beta for row in trained("apt-adamw(beta_min=0.2)+sum", replace(DEEP, epochs=12, patience=12)).run.momentum
    ]
    assert all(0.2 <= beta <= 0.9 for beta in betas)
    assert len(set(betas)) > 1


def test_a_study_keeps_what_was_measured_and_says_that_another_optimizer_is_part_of_a_gain(tmp_path):
    study = Study(TINY, ["muon+fair-grad"], seeds=1, out=tmp_path / "runs", training=DEEP).run()
    [run] = [run for run in read_runs(tmp_path / "runs") if run.arm == "muon+fair-grad"]
    assert run.momentum == study.runs()[-1].momentum
    assert len(run.momentum) == 1
    assert any("muon+fair-grad has another optimizer than stl and sum" in why for why in study.verdict().reasons)
    assert any("Not in this study: muon+sum." in why for why in study.verdict().reasons)


def test_the_caveat_names_no_arm_with_the_plain_optimizer_and_no_control_that_is_there():
    assert caveats.of_optimizers(["stl", "sum", "ema=0.9+mgda", "something(else)+sum"]) == []
    [said, _] = caveats.of_optimizers(["stl", "sum", "muon+sum", "muon+mgda", "mgda"])
    assert "Not in this study" not in said
    assert " mgda" not in said


def test_the_report_names_arms_with_a_learning_rate_of_their_own(tmp_path):
    for arm, says in (
        ("muon(lr=0.02)+sum", "One learning rate for all arms but muon(lr=0.02)+sum.</strong> An arm's prefix may set"),
        ("muon+sum", "One learning rate for all arms.</strong> Arms differ"),
    ):
        study = Study(TINY, [arm], seeds=1, out=tmp_path / arm, training=replace(DEEP, epochs=1)).run()
        study.report(tmp_path / "report.html")
        assert says in (tmp_path / "report.html").read_text(encoding="utf-8")


def test_the_caveat_names_arms_with_a_learning_rate_of_their_own():
    arms = ["stl", "sum", "muon(lr=0.01)+sum", "muon(lr=0.01)+mgda", "muon+sum"]
    other, rate, _ = caveats.of_optimizers(arms)
    assert "learning rate" not in other
    assert rate.startswith("muon(lr=0.01)+sum and muon(lr=0.01)+mgda train at learning rates of their own")
    assert "muon+sum," not in rate


def test_the_catalogue_names_every_optimizer_and_how_to_tell_its_gain_apart():
    assert [name for name, *_ in _OPTIMIZERS] == list(OPTIONS)
    for label in ("muon+sum", "muon+fair-grad", "apt-adamw+fair-grad", "muon(lr=0.01)+sum"):
        assert label in _MIXED
        assert parse(label).label == label


def test_the_caveat_says_that_muon_at_the_studys_rate_may_look_bad():
    *_, said = caveats.of_optimizers(["stl", "sum", "muon+sum", "apt-muon+mgda", "muon(lr=0.01)+sum", "apt-adamw+sum"])
    assert said.startswith("muon+sum and apt-muon+mgda train at the study's learning rate.")
    assert not any("Muon's best" in text for text in caveats.of_optimizers(["stl", "sum", "muon(lr=0.01)+sum"]))
