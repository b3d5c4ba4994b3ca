"""The README's examples run as they stand, on models and data that are small enough for a test."""

import re
from pathlib import Path

import pytest
import torch
from torch import nn

from motet.nn import Bag
from tests.grouping.models import TASKS, Heads, batch
from tests.study.tiny import TINY
from tests.test_docs import patients

TEXT = (Path(__file__).parent.parent / "README.md").read_text(encoding="utf8")
EXAMPLES = re.findall(r"```python\n(.*?)```", TEXT, flags=re.DOTALL)


def example(part: str) -> str:
    (found,) = [text for text in EXAMPLES if part in text]
    return found


def test_every_example_is_tested_here():
    assert len(EXAMPLES) == 6


def test_the_training_loop():
    torch.manual_seed(0)
    model = nn.Module()
    model.trunk = nn.Sequential(nn.Linear(3, 4), nn.ReLU())
    model.heads = nn.ModuleDict({task: nn.Linear(4, 1) for task in ("depth", "edges")})
    logged: list[dict[str, float]] = []
    known = {
        "model": model,
        "criterion": {task: nn.MSELoss() for task in model.heads},
        "optimizer": torch.optim.SGD(model.parameters(), lr=0.1),
        "loader": [(torch.randn(8, 3), {task: torch.randn(8, 1) for task in model.heads})] * 2,
        "log": logged.append,
    }
    before = [parameter.clone() for parameter in model.parameters()]
    exec(example("for inputs, targets in loader"), known)
    assert len(logged) == 2
    assert set(logged[0]) == {"weight/depth", "weight/edges"}
    assert all((a != b).any() for a, b in zip(model.parameters(), before, strict=True))


def test_the_study(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("motet.problems.get", lambda name: TINY)
    exec(example("motet.Study").replace("seeds=10, tuning=16, workers=2", "seeds=1, tuning=2"), {})
    said = capsys.readouterr().out
    assert "ema=0.9+fair-grad@exact" in said
    assert "sum:tuned" in said
    assert (tmp_path / "report.html").exists()


def test_the_estimator(capsys):
    known = patients()
    text = example("MixedOutcomeNetCV").replace("random_state=0", "random_state=0, n_lambdas=20, max_iter=200")
    exec(text.replace("pairs=10", "pairs=2"), known)
    assert list(known["table"]) == ["age", "er", "grade", "os"]
    assert (known["bounds"]["age", "lower"] <= known["bounds"]["age", "upper"]).all()
    assert "threshold" in capsys.readouterr().out


def test_bags_in_several_views():
    torch.manual_seed(0)
    views = {"slide": Bag.of([torch.randn(size, 384) for size in (3, 5, 1)]), "clinic": torch.randn(3, 12)}
    targets = {"grade": torch.tensor([0, 2, 1]), "msi": torch.ones(3, 1)}
    known = {
        "loader": [(views, targets), (views | {"clinic": None}, targets)],
        "criterion": {"grade": nn.CrossEntropyLoss(), "msi": nn.BCEWithLogitsLoss()},
    }
    exec(example("motet.nn.UMDA"), known)
    assert all(parameter.isfinite().all() for parameter in known["model"].parameters())
    assert set(known["losses"]) == {"grade", "msi"}


def test_a_method_of_ones_own():
    known: dict[str, object] = {}
    exec(example("class InverseNorm"), known)
    weights = known["InverseNorm"]().weights(torch.diag(torch.tensor([4.0, 16.0])))
    assert weights.tolist() == pytest.approx([0.5, 0.25])


def test_group_updates():
    model = Heads()
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-2)
    model.losses_of, batches = model.losses, [batch(number) for number in range(2)]
    model.losses = lambda pair: model.losses_of(*pair)  # type: ignore[method-assign]
    scheduler = torch.optim.lr_scheduler.ExponentialLR(optimizer, 0.5)
    known = {"model": model, "tasks": TASKS, "optimizer": optimizer, "loader": batches, "scheduler": scheduler}
    exec(example("motet.GroupedUpdates"), known)
    assert known["groups"].batches == 2
    assert optimizer.param_groups[0]["lr"] == pytest.approx(2.5e-3)
