"""Multi-task problems whose groups are known: tasks of one cluster help each other, those of different ones do not."""

import math
from collections.abc import Callable, Iterable, Iterator, Sequence

import torch
from torch import Tensor, nn

OWN, HEAD = 0.3, 3
"""Length of what a task wants for itself, its cluster's wish being of length 1; the parameters of a head."""


class Quadratics(nn.Module):
    """K tasks with the losses Lₖ = 1 + ½ ‖Θs - cₖ - σξₖ‖² + ½ ‖Θₖ - uₖ‖², where ξ ~ N(0, 1) is the batch.

    Task k wants the shared parameters at cₖ: the vertex of its cluster in a simplex around zero, of length 1, plus 0.3
    along a direction that no other task uses. At Θs = 0, where training starts, the shared gradients gₖ = -cₖ have

        gᵢ·gₖ = 1 within a cluster (1.09 for i = k), -1/(C-1) between two of C clusters.

    With clusters of one size training stays near Θs = 0 and the clusters remain; otherwise Θs moves towards the larger
    ones, whose tasks then have less to agree on. The noise adds -σξₖ to the gradient of task k and leaves losses
    positive. Tasks are named "0", "1", …; clusters must hold each number once.

    Attributes:
        tasks: The names.
        shared: Θs, of C + K numbers.
        heads: Θₖ by task.
    """

    def __init__(self, clusters: Sequence[Sequence[int]], noise: float = 0.0, seed: int = 0) -> None:
        super().__init__()
        count = _count(clusters)
        self.noise = noise
        self.tasks = tuple(str(task) for task in range(count))
        self.generator = torch.Generator().manual_seed(seed)
        width = len(clusters) + count
        centres = torch.zeros(count, width, dtype=torch.float64)
        for cluster, vertex in zip(clusters, _simplex(len(clusters)), strict=True):
            centres[list(cluster), : len(clusters)] = vertex
        centres[:, len(clusters) :] = OWN * torch.eye(count, dtype=torch.float64)
        rotation = torch.linalg.qr(self._normal(width, width))[0]
        self.centres, self.ends = centres @ rotation, self._normal(count, HEAD)
        self.shared = nn.Parameter(torch.zeros(width, dtype=torch.float64))
        zeros = torch.zeros(HEAD, dtype=torch.float64)
        self.heads = nn.ParameterDict({task: nn.Parameter(zeros.clone()) for task in self.tasks})

    def _normal(self, *shape: int) -> Tensor:
        return torch.randn(*shape, generator=self.generator, dtype=torch.float64)

    def batch(self) -> Tensor:
        """The next batch: ξ (K, C + K)."""
        return self._normal(*self.centres.shape)

    def losses(self, batch: Tensor | None = None) -> dict[str, Tensor]:
        """The losses of a batch; without one, those without noise."""
        centres = self.centres if batch is None else self.centres + self.noise * batch
        shared = 1 + 0.5 * (self.shared - centres).pow(2).sum(dim=1)
        return {
            task: shared[k] + 0.5 * (self.heads[task] - self.ends[k]).pow(2).sum() for k, task in enumerate(self.tasks)
        }

    def closure(self, batch: Tensor | None = None) -> Callable[[], dict[str, Tensor]]:
        """What evaluates the losses of one batch, as often as it is called."""
        return lambda: self.losses(batch)

    @torch.no_grad()
    def affinity(self, lr: float, heads: bool = True) -> Tensor:
        """The true first-order affinity here and without noise, row = source, column = target: (K, K).

        lr (gᵢ·gₖ + 1(i = k) ‖hₖ‖²) / Lₖ: what a step of plain gradient descent for task i takes of the loss of task k.
        For a group the rows of its tasks add up. Without heads it is the look-ahead affinity's.
        """
        g = self.shared - self.centres
        h = torch.stack([self.heads[task] - end for task, end in zip(self.tasks, self.ends, strict=True)])
        products = g @ g.T + heads * h.pow(2).sum(dim=1).diag()
        return lr * products / torch.stack(list(self.losses().values()))


def quadratics(clusters: Sequence[Sequence[int]], noise: float = 0.0, seed: int = 0) -> Quadratics:
    """A planted problem to train on; gradients start with length 1.04, noise adds σ in each of C + K directions."""
    return Quadratics(clusters, noise, seed)


SELF, PARTNER, STRANGER = 0.08, 0.07, -0.07
"""The effects of simulated measurements: on the updated task, on others of its cluster, on those of other clusters."""


class Measurements:
    """Measurements of groups without a model: the relative decrease of every loss by one update of a group.

    rel_k = Σ_{i∈G} E_ik + σ ε, ε ~ N(0, 1), which is how real ones behave to first order in the step length.

    Attributes:
        effects: E, row = source, column = target: (K, K).
    """

    def __init__(self, clusters: Sequence[Sequence[int]], noise: float = 0.0, seed: int = 0) -> None:
        labels = torch.empty(_count(clusters), dtype=torch.long)
        for number, cluster in enumerate(clusters):
            labels[list(cluster)] = number
        self.effects = torch.where(labels[:, None] == labels, PARTNER, STRANGER).double().fill_diagonal_(SELF)
        self.noise = noise
        self.generator = torch.Generator().manual_seed(seed)

    def __call__(self, groups: Iterable[Sequence[int]]) -> Iterator[tuple[list[int], Tensor]]:
        """For every group in turn the group and its measurement: (K,). As losses they went from 1 to 1 - rel."""
        for group in groups:
            noise = torch.randn(len(self.effects), generator=self.generator, dtype=torch.float64)
            yield list(group), self.effects[list(group)].sum(dim=0) + self.noise * noise


def simulated_measurements(clusters: Sequence[Sequence[int]], noise: float = 0.0, seed: int = 0) -> Measurements:
    """A source of measurements: ``for group, rel in simulated_measurements(clusters)(groups)``."""
    return Measurements(clusters, noise, seed)


def _count(clusters: Sequence[Sequence[int]]) -> int:
    tasks = sorted(task for cluster in clusters for task in cluster)
    assert tasks == list(range(len(tasks))), "clusters must hold every task number once"
    return len(tasks)


def _simplex(count: int) -> Tensor:
    """Unit vectors that point away from each other: inner products -1/(C-1); a single one is (1,)."""
    if count == 1:
        return torch.ones(1, 1, dtype=torch.float64)
    vertices = torch.eye(count, dtype=torch.float64) - 1 / count
    return vertices * math.sqrt(count / (count - 1))
