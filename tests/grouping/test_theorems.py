"""The mathematics that updates by groups rest on, on random quadratics: which of it holds, and where it does not.

Three tasks i, j, k share six parameters and have three each of their own. Thousands of such problems are solved at once
by formulas; some of them are models of parameters too, on which the library and torch's optimizer must find the same.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import pytest
import torch
from torch import Tensor, nn
from torch.testing import assert_close

from motet.grouping.lookahead import lookahead_affinity

I, J, K = 0, 1, 2  # noqa: E741 - the theorems call them so
SHARED, HEAD = 6, 3
LR = 1e-4
GROUPS = {"i": [I], "j": [J], "k": [K], "ik": [I, K], "jk": [J, K], "ijk": [I, J, K]}


@dataclass
class Quadratics:
    """N problems with the losses Lₜ = 1 + ½ (uₜ - cₜ)ᵀ Mₜ (uₜ - cₜ), where uₜ = (Θs, Θₜ).

    Attributes:
        matrices: M, positive definite: (N, 3, 9, 9).
        centres: c: (N, 3, 9).
        shared: Θs: (N, 6).
        heads: Θₜ: (N, 3, 3).
        lr: The step length.
    """

    matrices: Tensor
    centres: Tensor
    shared: Tensor
    heads: Tensor
    lr: float = LR

    def __getitem__(self, chosen: Tensor) -> "Quadratics":
        return Quadratics(self.matrices[chosen], self.centres[chosen], self.shared[chosen], self.heads[chosen], self.lr)

    def at(self, lr: float) -> "Quadratics":
        return Quadratics(self.matrices, self.centres, self.shared, self.heads, lr)

    def _offsets(self) -> Tensor:
        return torch.cat([self.shared[:, None].expand(-1, 3, -1), self.heads], dim=-1) - self.centres

    @property
    def losses(self) -> Tensor:
        """(N, 3)."""
        offsets = self._offsets()
        return 1 + 0.5 * torch.einsum("nta,ntab,ntb->nt", offsets, self.matrices, offsets)

    @property
    def gradients(self) -> tuple[Tensor, Tensor]:
        """g and h, with respect to the shared parameters and to the own head: (N, 3, 6), (N, 3, 3)."""
        whole = torch.einsum("ntab,ntb->nta", self.matrices, self._offsets())
        return whole[..., :SHARED], whole[..., SHARED:]

    @property
    def hessians(self) -> Tensor:
        """H, of the shared parameters: (N, 3, 6, 6)."""
        return self.matrices[..., :SHARED, :SHARED]

    @property
    def couplings(self) -> Tensor:
        """C = d²Lₜ/dΘₜ dΘs: (N, 3, 3, 6)."""
        return self.matrices[..., SHARED:, :SHARED]

    def step(self, group: Sequence[int], heads: bool = True) -> "Quadratics":
        """Where a step of gradient descent for a group leads, with its tasks' heads or without."""
        g, h = self.gradients
        moved = self.heads.clone()
        if heads:
            moved[:, group] -= self.lr * h[:, group]
        shared = self.shared - self.lr * g[:, group].sum(dim=1)
        return Quadratics(self.matrices, self.centres, shared, moved, self.lr)

    def lookahead(self, group: Sequence[int]) -> Tensor:
        """A_{G→t}: (N, 3)."""
        return 1 - self.step(group, heads=False).losses / self.losses

    def proximal(self, group: Sequence[int]) -> Tensor:
        """B_{G→t}: (N, 3)."""
        return 1 - self.step(group).losses / self.losses

    def first_order(self, group: Sequence[int], heads: bool = True) -> Tensor:
        """B or A without what is of the second order in the step length: (N, 3)."""
        g, h = self.gradients
        gain = torch.einsum("nsa,nta->nt", g[:, group], g)
        if heads:
            gain[:, group] += h[:, group].pow(2).sum(dim=-1)
        return self.lr * gain / self.losses


def draw(count: int, isotropic: bool = False, seed: int = 0) -> Quadratics:
    """Random problems; isotropic ones have shared Hessians aI and nothing that couples head and shared parameters."""
    generator = torch.Generator().manual_seed(seed)

    def normal(*shape: int) -> Tensor:
        return torch.randn(count, *shape, generator=generator, dtype=torch.float64)

    roots = normal(3, SHARED + HEAD, SHARED + HEAD)
    matrices = roots @ roots.mT / (SHARED + HEAD)
    if isotropic:
        matrices[..., :SHARED, SHARED:] = 0
        matrices[..., SHARED:, :SHARED] = 0
        stiffness = 0.2 + torch.rand(count, 3, 1, 1, generator=generator, dtype=torch.float64)
        matrices[..., :SHARED, :SHARED] = stiffness * torch.eye(SHARED, dtype=torch.float64)
    return Quadratics(matrices, normal(3, SHARED + HEAD), 0.5 * normal(SHARED), 0.5 * normal(3, HEAD))


def dot(gradients: Tensor, s: int, t: int) -> Tensor:
    return (gradients[:, s] * gradients[:, t]).sum(dim=-1)


def form(left: Tensor, matrix: Tensor, right: Tensor) -> Tensor:
    return torch.einsum("na,nab,nb->n", left, matrix, right)


PROBLEMS = draw(3000)


def three_thousand(problems: Quadratics, clear: Tensor) -> Quadratics:
    """Those whose comparison is no matter of second order."""
    chosen = problems[clear.nonzero()[:3000, 0]]
    assert len(chosen.losses) == 3000
    return chosen


# Theorems 1 to 3: affinity and gradients tell the same.


def test_the_group_of_higher_affinity_has_the_more_aligned_gradient():
    problems = draw(3600)
    difference = (problems.lookahead([I, K]) - problems.lookahead([J, K]))[:, K]
    problems = three_thousand(problems, difference.abs() > 100 * LR**2)
    higher = (problems.lookahead([I, K]) > problems.lookahead([J, K]))[:, K]
    g, _ = problems.gradients
    assert torch.equal(dot(g, I, K) >= dot(g, J, K), higher)
    assert 1000 < higher.sum() < 2000


def test_the_group_of_the_more_aligned_gradient_reaches_the_lower_loss():
    problems = draw(3600)
    g, _ = problems.gradients
    margin = (dot(g, I, K) - dot(g, J, K)).abs()
    problems = three_thousand(problems, margin > 100 * LR)
    g, _ = problems.gradients
    aligned = dot(g, I, K) >= dot(g, J, K)
    lower = problems.step([I, K], heads=False).losses[:, K] <= problems.step([J, K], heads=False).losses[:, K]
    assert torch.equal(lower, aligned)


def test_a_group_with_the_target_in_it_helps_it_more_by_its_own_gradient():
    g, _ = PROBLEMS.gradients
    gain = (PROBLEMS.lookahead([I, K]) - PROBLEMS.lookahead([I]))[:, K]
    expected = LR * dot(g, K, K) / PROBLEMS.losses[:, K]
    assert (gain > 0.5 * expected).all()
    assert ((gain / expected - 1).abs().median()) < 10 * LR


@pytest.mark.parametrize("group", [[K], [I, K], [I, J, K]])
def test_the_head_adds_to_what_the_group_does_for_its_own_tasks(group):
    _, h = PROBLEMS.gradients
    gain = (PROBLEMS.proximal(group) - PROBLEMS.lookahead(group))[:, K]
    expected = LR * h[:, K].pow(2).sum(dim=-1) / PROBLEMS.losses[:, K]
    clear = expected > 100 * LR**2
    assert (gain[clear] > 0.5 * expected[clear]).all()
    assert (gain >= 0).sum() == 3000
    outside = [t for t in range(3) if t not in group]
    assert torch.equal(PROBLEMS.proximal(group)[:, outside], PROBLEMS.lookahead(group)[:, outside])


# The proximal affinity to first order.


@pytest.mark.parametrize("group", [[I], [J, K], [I, J, K]])
@pytest.mark.parametrize("heads", [True, False])
def test_affinity_is_its_first_order_expansion_up_to_the_square_of_the_step(group, heads):
    def error(lr: float) -> Tensor:
        problems = PROBLEMS.at(lr)
        found = problems.proximal(group) if heads else problems.lookahead(group)
        return (found - problems.first_order(group, heads)).abs()

    # What is left of a quadratic is of the second order exactly: half the step, a quarter of it.
    assert_close(error(1e-3), 4 * error(5e-4), rtol=1e-6, atol=1e-13)
    assert (error(LR) / PROBLEMS.first_order(group, heads).abs()).median() < 20 * LR


@pytest.mark.parametrize("group", [[I, K], [J, K], [I, J, K]])
def test_affinity_adds_up_over_the_sources_up_to_the_square_of_the_step(group):
    def gap(lr: float) -> Tensor:
        problems = PROBLEMS.at(lr)
        return problems.proximal(group) - sum(problems.proximal([source]) for source in group)

    assert_close(gap(1e-3), 4 * gap(5e-4), rtol=1e-6, atol=1e-13)
    relative = gap(LR).abs() / PROBLEMS.proximal(group).abs()
    assert 0 < relative.median() < 20 * LR


# The order of updates, to second order.


def after(problems: Quadratics, *groups: Sequence[int]) -> Tensor:
    """The losses after one step for each group in turn: (N, 3)."""
    for group in groups:
        problems = problems.step(group)
    return problems.losses


def test_the_unrelated_group_first_differs_from_the_joint_step_by_the_law():
    g, h = PROBLEMS.gradients
    H, C = PROBLEMS.hessians, PROBLEMS.couplings
    found = (after(PROBLEMS, [J], [I, K]) - after(PROBLEMS, [I, J, K]))[:, K]
    law = LR**2 * (form(g[:, K], H[:, I] + H[:, K], g[:, J]) + form(h[:, K], C[:, K], g[:, J]))
    assert ((found - law).abs() / law.abs()).median() < 1e-3


def test_the_own_group_first_differs_from_the_joint_step_by_the_law():
    g, _ = PROBLEMS.gradients
    found = (after(PROBLEMS, [I, K], [J]) - after(PROBLEMS, [I, J, K]))[:, K]
    law = LR**2 * form(g[:, K], PROBLEMS.hessians[:, J], g[:, I] + g[:, K])
    assert ((found - law).abs() / law.abs()).median() < 1e-3


def test_all_orders_are_the_joint_step_to_first_order():
    for groups in ([[J], [I, K]], [[I, K], [J]]):
        gaps = [after(PROBLEMS.at(lr), *groups) - after(PROBLEMS.at(lr), [I, J, K]) for lr in (LR, LR / 2)]
        decrease = PROBLEMS.losses - after(PROBLEMS, [I, J, K])
        assert (gaps[0].abs() / decrease.abs()).median() < 20 * LR
        assert (gaps[0].norm() / gaps[1].norm()).item() == pytest.approx(4, rel=1e-3)


def formed_by_affinity(isotropic: bool) -> Quadratics:
    """Problems in which i helps k and j hurts it, as groups {i, k} and {j} are made for."""
    problems = draw(3000, isotropic)
    g, _ = problems.gradients
    return problems[(dot(g, I, K) > 0) & (dot(g, J, K) < 0)]


def test_theorem_5_holds_where_its_condition_does():
    problems = draw(3000, isotropic=True)
    g, _ = problems.gradients
    problems = problems[dot(g, J, K) < 0]
    assert len(problems.losses) > 900
    assert (after(problems, [J], [I, K])[:, K] <= after(problems, [I, J, K])[:, K]).all()


def test_theorem_5_does_not_hold_for_all_convex_losses():
    problems = formed_by_affinity(isotropic=False)
    holds = (after(problems, [J], [I, K]) <= after(problems, [I, J, K]))[:, K].double().mean()
    assert 0.8 < holds < 0.95
    # It is the sign of the second-order law that decides.
    g, h = problems.gradients
    H, C = problems.hessians, problems.couplings
    law = form(g[:, K], H[:, I] + H[:, K], g[:, J]) + form(h[:, K], C[:, K], g[:, J])
    clear = law.abs() > 1000 * LR
    found = (after(problems, [J], [I, K]) - after(problems, [I, J, K]))[:, K]
    assert torch.equal(found.sign()[clear], law.sign()[clear])


def test_the_other_order_is_no_better_than_the_joint_step_where_theorem_5_holds():
    problems = formed_by_affinity(isotropic=True)
    assert len(problems.losses) > 500
    assert (after(problems, [I, K], [J]) > after(problems, [I, J, K]))[:, K].all()


def test_the_other_order_is_worse_than_the_joint_step_for_nearly_all_convex_losses():
    # The law's gₖᵀ Hⱼ (gᵢ + gₖ) is not positive for all positive definite Hⱼ, though gᵢ·gₖ is: 5 of 667 here.
    problems = formed_by_affinity(isotropic=False)
    worse = (after(problems, [I, K], [J]) > after(problems, [I, J, K]))[:, K].double().mean()
    assert 0.98 < worse < 1


@pytest.mark.parametrize(("isotropic", "most"), [(True, 0.01), (False, 0.25)])
def test_both_orders_in_turn_are_mostly_worse_than_the_joint_step_in_the_sum_of_losses(isotropic, most):
    problems = formed_by_affinity(isotropic)
    turns = (after(problems, [J], [I, K]) + after(problems, [I, K], [J])).sum(dim=1) / 2
    assert (turns < after(problems, [I, J, K]).sum(dim=1)).double().mean() < most


# The library and torch's optimizer on the same problems.


class Model(nn.Module):
    """One of the problems as a module."""

    def __init__(self, problems: Quadratics, index: int) -> None:
        super().__init__()
        self.shared = nn.Parameter(problems.shared[index].clone())
        self.heads = nn.ParameterList(nn.Parameter(head.clone()) for head in problems.heads[index])
        self.matrices, self.centres = problems.matrices[index], problems.centres[index]

    def losses(self) -> list[Tensor]:
        offsets = [torch.cat([self.shared, head]) - c for head, c in zip(self.heads, self.centres, strict=True)]
        return [1 + 0.5 * (u @ m @ u) for u, m in zip(offsets, self.matrices, strict=True)]

    def sums(self) -> dict[str, Tensor]:
        """The losses of groups: a group's affinity is that of the sum of its losses."""
        losses = self.losses()
        return {name: torch.stack([losses[t] for t in group]).sum() for name, group in GROUPS.items()}


SAMPLE = range(0, 3000, 200)


@pytest.mark.parametrize("index", SAMPLE)
@pytest.mark.parametrize("heads", [True, False])
def test_the_library_measures_these_affinities(index, heads):
    model = Model(PROBLEMS, index)
    moving = list(model.parameters()) if heads else [model.shared]
    found = lookahead_affinity(model.sums, moving, LR)[:, [0, 1, 2]]
    one = PROBLEMS[torch.tensor([index])]
    expected = [(one.proximal(group) if heads else one.lookahead(group))[0] for group in GROUPS.values()]
    assert_close(found, torch.stack(expected), rtol=1e-9, atol=1e-14)


def test_the_library_measures_what_the_theorems_say():
    names = list(GROUPS)
    for index in SAMPLE:
        model = Model(PROBLEMS, index)
        A = lookahead_affinity(model.sums, [model.shared], LR)
        B = lookahead_affinity(model.sums, model, LR)
        value = {(s, t): A[names.index(s), names.index(t)] for s in names for t in names}
        g = torch.stack([torch.autograd.grad(loss, model.shared)[0] for loss in model.losses()])
        difference = value["ik", "k"] - value["jk", "k"]
        if difference.abs() > 100 * LR**2:
            assert (difference > 0) == (g[I] @ g[K] > g[J] @ g[K])
        assert value["ik", "k"] >= value["i", "k"]
        for s, group in GROUPS.items():
            for t in group:
                assert B[names.index(s), t] >= A[names.index(s), t]


@pytest.mark.parametrize("groups", [[[I, J, K]], [[J], [I, K]], [[I, K], [J]]])
def test_torchs_optimizer_takes_these_steps(groups):
    for index in SAMPLE:
        model = Model(PROBLEMS, index)
        optimizer = torch.optim.SGD(model.parameters(), lr=LR)
        for group in groups:
            optimizer.zero_grad()
            losses = model.losses()
            torch.stack([losses[t] for t in group]).sum().backward()
            optimizer.step()
        expected = after(PROBLEMS[torch.tensor([index])], *groups)[0]
        assert_close(torch.stack(model.losses()).detach(), expected, rtol=1e-14, atol=0)
