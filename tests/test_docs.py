"""The examples of docs/ run as they stand, on models and data that are small enough for a test."""

import re
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from torch import nn

from motet import cli
from motet.testing.mixed_outcomes import simulate
from tests.grouping.models import TASKS, Heads, batch
from tests.study.tiny import TINY

DOCS = Path(__file__).parent.parent / "docs"


def examples(page: str) -> list[str]:
    return re.findall(r"```python\n(.*?)```", (DOCS / page).read_text(encoding="utf8"), flags=re.DOTALL)


def images(page: str) -> list[str]:
    return re.findall(r"!\[[^\]]+\]\(([^)]+)\)", (DOCS / page).read_text(encoding="utf8"))


@pytest.mark.parametrize("page", ["apt.md", "benchmarks.md", "mixed-outcomes.md"])
def test_every_figure_is_there(page):
    assert images(page)
    assert all((DOCS / image).exists() for image in images(page))


def test_the_optimizers_in_a_loop(capsys):
    torch.manual_seed(0)
    model = nn.Module()
    model.trunk = nn.Sequential(nn.Linear(3, 6), nn.ReLU(), nn.Linear(6, 4), nn.ReLU())
    model.heads = nn.ModuleDict({task: nn.Linear(4, 1) for task in ("depth", "edges")})
    known = {
        "model": model,
        "criterion": {task: nn.MSELoss() for task in model.heads},
        "loader": [(torch.randn(8, 3), {task: torch.randn(8, 1) for task in model.heads})] * 60,
    }
    before = [parameter.clone() for parameter in model.parameters()]
    for example in examples("apt.md"):
        exec(example, known)
    said = capsys.readouterr().out
    assert "hidden matrix" in said  # the routing
    assert "the update with the gradient of: depth" in said  # the report
    assert all(step.counterfactual is not None for step in known["recorder"].steps)
    assert all((a != b).any() for a, b in zip(model.parameters(), before, strict=True))


def test_the_optimizers_example_measures_the_plain_sum_as_no_change():
    torch.manual_seed(0)
    model = nn.Module()
    model.trunk = nn.Sequential(nn.Linear(3, 6), nn.ReLU(), nn.Linear(6, 4), nn.ReLU())
    model.heads = nn.ModuleDict({task: nn.Linear(4, 1) for task in ("depth", "edges")})
    inputs, targets = torch.randn(8, 3), {task: torch.randn(8, 1) for task in model.heads}
    criterion = {task: nn.MSELoss() for task in model.heads}
    (example,) = examples("apt.md")
    seen = []

    def batches():
        for _ in range(50):
            losses = [criterion[task](head(model.trunk(inputs)), targets[task]) for task, head in model.heads.items()]
            trunk = list(model.trunk.parameters())
            gradients = [torch.autograd.grad(loss, trunk, retain_graph=True) for loss in losses]
            before = [p.detach().clone() for p in trunk]
            yield inputs, targets
            seen[:] = [trunk, gradients, before]

    example = example.replace('"fair-grad"', '"sum"').replace("lr=3e-3", "lr=3e-3, weight_decay=0.0")
    known = {"model": model, "criterion": criterion, "loader": batches()}
    exec(example, known)
    (step,) = known["recorder"].steps
    trunk, gradients, before = seen
    update = torch.cat([(old - p.detach()).flatten() for old, p in zip(before, trunk, strict=True)])
    own = [torch.cat([g.flatten() for g in given]) for given in gradients]
    assert step.counterfactual < 1e-4
    assert list(step.cosine_tasks) == ["depth", "edges"]
    for cosine, g in zip(step.cosine_tasks.values(), own, strict=True):
        torch.testing.assert_close(cosine, float(torch.cosine_similarity(g, update, 0)), rtol=1e-4, atol=1e-4)


def test_group_updates():
    model = Heads()
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-2)
    model.losses_of, batches = model.losses, [batch(number) for number in range(2)]
    model.losses = lambda pair: model.losses_of(*pair)  # type: ignore[method-assign]
    scheduler = torch.optim.lr_scheduler.ExponentialLR(optimizer, 0.5)
    known = {"model": model, "tasks": TASKS, "optimizer": optimizer, "loader": batches, "scheduler": scheduler}
    (example,) = examples("grouping.md")
    exec(example, known)
    assert known["groups"].batches == 2


def patients():
    """X, Y as the examples name their columns, and rows to predict."""
    drawn = simulate("S3", 90, 8, 3, 0, kinds=("continuous", "binary", "ordinal", "survival"))
    X = pd.DataFrame(drawn.X, columns=[f"gene{q}" for q in range(8)])
    Y = drawn.Y.set_axis(["age", "er", "grade", "time", "event"], axis=1)
    Y.loc[::7, "age"] = float("nan")
    return {"X": X[:70], "Y": Y[:70], "new": X[70:], "observed": Y[70:]}


def test_the_estimator_from_fit_to_file(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    known = patients()
    (example,) = examples("mixed-outcomes.md")
    exec(example.replace("random_state=0", "random_state=0, n_lambdas=20").replace("pairs=10", "pairs=2"), known)
    assert set(known["net"].selected_features_) <= set(known["X"].columns)
    assert list(known["predicted"]) == ["age", "er", "grade", "os"]
    assert (known["bounds"]["age", "lower"] <= known["bounds"]["age", "upper"]).all()
    assert (known["curves"].diff(axis=1).iloc[:, 1:] <= 1e-12).all().all()
    assert any((tmp_path / name).exists() for name in ("model", "model.safetensors"))
    assert "threshold" in capsys.readouterr().out


def test_the_model_of_views_and_bags(capsys):
    torch.manual_seed(0)
    (example,) = examples("umda.md")
    known: dict[str, object] = {}
    exec(example, known)
    assert {task: tuple(y.shape) for task, y in known["outputs"].items()} == {
        "grade": (3, 3),
        "subtype": (3, 4),
        "msi": (3, 1),
    }
    assert known["info"]["view_mask"].tolist() == [[True, True], [True, False], [True, True]]
    assert all(y.isfinite().all() for y in known["outputs"].values())
    assert "branching.divergence" in capsys.readouterr().out


def test_the_study_of_the_page(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    example, _ = examples("studies.md")
    exec(example.replace("seeds=6", "seeds=1").replace('"planted-scale"', "TINY"), {"TINY": TINY})
    assert (tmp_path / "report.html").exists()


def test_a_problem_of_ones_own_is_trained_on(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    rng = np.random.default_rng(0)
    x = rng.normal(3, 2, size=(200, 4))
    dose, toxic = x[:, 0] + rng.normal(size=200), (x[:, 1] > 3).astype(float)
    dose[:9], toxic[9:30] = np.nan, np.nan
    np.savez("cells.npz", x=x, dose=dose, toxic=toxic)
    _, example = examples("studies.md")
    Path("cells.py").write_text(example, encoding="utf8")
    small = "--arms si --seeds 1 --epochs 1 --width 8 --quiet --json"
    assert cli.main(["compare", "cells.py:problem", *small.split()]) == 0
