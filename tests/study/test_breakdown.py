"""Losses that are not finite: a candidate loses, single-task and the sum end the study, and both say why."""

import math

import pytest
import torch

import motet
from motet.study.study import Study
from motet.study.training import train
from tests.study.tiny import TINY


def breaks_after(steps: int, monkeypatch) -> None:
    from motet.losses import task_loss

    calls = {"dose": 0}

    def loss(task, outputs, targets):
        calls["dose"] += task.name == "dose" and outputs.requires_grad
        broken = task.name == "dose" and calls["dose"] > steps
        return task_loss(task, outputs, targets) * (torch.nan if broken else 1.0)

    monkeypatch.setattr("motet.study.fit.task_loss", loss)


REFERENCE = dict.fromkeys(("dose", "ill", "grade"), 0.5)


def test_training_that_breaks_down_keeps_the_best_epoch_and_says_so(monkeypatch):
    # An epoch has three steps and a probe, and the first one a probe of cosines of three batches.
    breaks_after(8, monkeypatch)
    run = train(TINY, TINY.load(0), motet.study.arms.parse("sum"), 0, TINY.training, REFERENCE).run
    assert len(run.curve) == 1
    assert [notice.kind for notice in run.warnings] == ["broke down"]
    assert run.warnings[0].text == (
        "training broke down in epoch 2: the loss or gradient of task 'dose' is not finite; "
        "the best epoch before it counts"
    )
    assert all(map(math.isfinite, run.test.values()))


@pytest.mark.parametrize("arm", ["stl", "sum"])
def test_references_that_break_down_at_once_end_the_study_and_name_the_learning_rate(arm, monkeypatch):
    breaks_after(2, monkeypatch)
    message = rf"'{arm}' broke down in epoch 1 with seed 4.*task 'dose' is not finite.*--learning-rate\) than 0\.001$"
    with pytest.raises(ValueError, match=message):
        train(TINY, TINY.load(4), motet.study.arms.parse(arm), 4, TINY.training, REFERENCE)


def test_a_candidate_that_breaks_down_at_once_is_a_run_without_results(monkeypatch):
    breaks_after(2, monkeypatch)
    trained = train(TINY, TINY.load(4), motet.study.arms.parse("si"), 4, TINY.training, REFERENCE)
    assert all(map(math.isnan, [*trained.run.test.values(), *trained.run.validation.values()]))
    assert trained.run.warnings[0].text.endswith("is not finite; there is no result")
    assert trained.run.curve == []


def test_losses_that_a_method_refuses_are_an_error_of_the_first_epoch(monkeypatch):
    def refuse(*arguments, **options):
        raise ValueError("GLS needs losses above 0")

    monkeypatch.setattr("motet.balancer.Balancer.backward", refuse)
    with pytest.raises(ValueError, match="arm 'gls', seed 4: GLS needs losses above 0"):
        train(TINY, TINY.load(4), motet.study.arms.parse("gls"), 4, TINY.training, REFERENCE)


def test_a_candidate_that_diverges_does_not_end_the_study_and_is_not_trained_again(tmp_path, monkeypatch):
    calls = []

    def diverging(problem, data, arm, *rest):
        calls.append(arm.label)
        with monkeypatch.context() as patch:
            if arm.label == "si":
                breaks_after(0, patch)
            return train(problem, data, arm, *rest)

    monkeypatch.setattr(motet.study.study, "train", diverging)
    found = Study(TINY, ("si", "uw"), seeds=2, out=tmp_path / "runs").run()
    assert len(calls) == 8
    assert math.isnan(found.table().loc["si", "delta_m"])
    assert math.isfinite(found.table().loc["uw", "delta_m"])
    reasons = found.verdict().reasons
    assert "si is left out of the decision: its training broke down." in reasons
    assert any(reason.startswith("Training broke down in si (2 of 2 runs)") for reason in reasons)
    assert "si" in found.report(tmp_path / "report.html").read_text(encoding="utf8")
    Study(TINY, ("si", "uw"), seeds=2, out=tmp_path / "runs", resume=True).run()
    assert len(calls) == 8
