"""Two processes with half a batch each train and group as one with all of it."""

from pathlib import Path

import pytest
import torch
from torch import distributed as dist
from torch import multiprocessing, nn
from torch.optim import SGD

from motet import GroupedUpdates
from tests.grouping.models import TASKS, Heads, batch


class Losses(nn.Module):
    """DDP wraps a module whose forward is the whole pass."""

    def __init__(self) -> None:
        super().__init__()
        self.model = Heads()

    def forward(self, x: torch.Tensor, y: torch.Tensor) -> dict[str, torch.Tensor]:
        return self.model.losses(x, y)


def options() -> dict[str, object]:
    return {"warmup": 2, "regroup_every": 1, "decay": 0.2}


def train(rank: int, folder: str) -> None:
    torch.set_num_threads(1)
    dist.init_process_group("gloo", init_method=f"file://{folder}/meet", rank=rank, world_size=2)
    model = nn.parallel.DistributedDataParallel(Losses(), find_unused_parameters=True)
    updates = GroupedUpdates(TASKS, SGD(model.parameters(), lr=0.05), **options())  # type: ignore[arg-type]
    groups = []
    for number in range(6):
        x, y = batch(number)
        half = slice(0, 8) if rank == 0 else slice(8, 16)
        groups.append(updates.step(lambda x=x[half], y=y[half]: model(x, y)).groups)

    parameters = [p.detach().clone() for p in model.parameters()]

    def lacking() -> dict[str, torch.Tensor | None]:
        losses: dict[str, torch.Tensor | None] = dict(model(*batch(9)))
        return losses | ({"a": None} if rank == 0 else {})

    updates = GroupedUpdates(TASKS, SGD(model.parameters(), lr=0.0), grouping="singletons")
    left = updates.step(lacking).groups

    def infinite() -> dict[str, torch.Tensor]:
        losses = dict(model(*batch(9)))
        return losses | ({"b": losses["b"] * torch.nan} if rank == 0 else {})

    updates = GroupedUpdates(TASKS, SGD(model.parameters(), lr=0.0), grouping="singletons", nonfinite="skip")
    skipped = updates.step(infinite).groups

    def with_features() -> tuple[dict[str, torch.Tensor], torch.Tensor]:
        x, y = batch(rank)  # Other data and so other gradients in each process.
        z = model.module.model.trunk(x)
        heads = model.module.model.heads
        return {task: (head(z)[:, 0] - y[:, k]).pow(2).mean() for k, (task, head) in enumerate(heads.items())}, z

    updates = GroupedUpdates(TASKS, SGD(model.parameters(), lr=0.01), measure="features", warmup=1, regroup_every=1)
    by_features = [updates.step(with_features).groups for _ in range(4)]
    seen = {"skipped": skipped, "by_features": by_features}
    updates = GroupedUpdates(TASKS, SGD(model.parameters(), lr=0.0), seed=rank)
    try:
        updates.step(lambda: model(*batch(0)))
    except RuntimeError as error:
        seen["seeds"] = str(error)
    state = {**seen, "parameters": parameters}
    torch.save({"groups": groups, "left": left, **state}, f"{folder}/{rank}.pt")
    dist.destroy_process_group()


@pytest.mark.skipif(not dist.is_available(), reason="torch was built without distributed")
def test_two_processes_equal_one(tmp_path: Path) -> None:
    multiprocessing.spawn(train, args=(str(tmp_path),), nprocs=2)
    found = [torch.load(tmp_path / f"{rank}.pt", weights_only=False) for rank in range(2)]
    model = Losses()
    updates = GroupedUpdates(TASKS, SGD(model.parameters(), lr=0.05), **options())  # type: ignore[arg-type]
    groups = [updates.step(lambda n=number: model(*batch(n))).groups for number in range(6)]
    assert found[0]["groups"] == found[1]["groups"] == groups
    for one, two, alone in zip(found[0]["parameters"], found[1]["parameters"], model.parameters(), strict=True):
        assert torch.equal(one, two)
        torch.testing.assert_close(one, alone.detach())
    assert sorted(found[0]["skipped"]) == sorted(found[1]["skipped"]) == [("a",), ("c",), ("d",)]
    assert found[0]["by_features"] == found[1]["by_features"]
    assert "the processes differ in the groups of a batch" in found[0]["seeds"]
    assert found[0]["seeds"] == found[1]["seeds"]
    # A task that one process lacks has no gradient to average: its group is left out everywhere.
    assert found[0]["left"] == found[1]["left"]
    assert sorted(found[0]["left"]) == [("b",), ("c",), ("d",)]
