"""Methods that remember gradients, norms or losses, against their recurrences by hand and their limits."""

import copy

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from torch import Tensor
from torch.testing import assert_close

from motet.methods import MGDA, SAMGS, ExcessMTL, GradNorm, GradVac, MoCo, PCGrad, RotoGrad
from motet.methods.grad_vac import vaccinate
from motet.methods.pcgrad import surgery
from tests.matrices import jacobian, jacobians


def diagonal(*norms: float) -> Tensor:
    return torch.diag(torch.tensor(norms, dtype=torch.float64) ** 2)


def row(*values: float) -> Tensor:
    return torch.tensor(values, dtype=torch.float64)


def run_of(kind: str, tasks: int, steps: int) -> list[Tensor]:
    return [jacobian(kind, tasks, seed) for seed in range(steps)]


class TestGradNorm:
    def test_weights_are_those_of_adam_on_the_papers_objective(self):
        method, weights = GradNorm(alpha=1.5, lr=0.1), torch.ones(3, dtype=torch.float64, requires_grad=True)
        optimizer = torch.optim.Adam([weights], lr=0.1)
        first = None
        for step, rows in enumerate(run_of("scaled", 3, 20)):
            losses = torch.rand(3, generator=torch.Generator().manual_seed(step), dtype=torch.float64) + 0.1
            method.observe(losses)
            assert_close(method.weights(rows @ rows.T), weights.detach())
            first = losses if first is None else first
            lengths = weights * rows.norm(dim=1)
            mean = lengths.mean().detach()
            rate = (losses / first) / (losses / first).mean()
            optimizer.zero_grad()
            ((lengths - mean * rate**1.5).abs().sum() / mean).backward()
            optimizer.step()
            with torch.no_grad():
                weights.clamp_(min=1e-3)
                weights.mul_(3 / weights.sum())

    def settled(self, method: GradNorm, losses: Tensor) -> Tensor:
        """The weighted norms in the end, on gradients that stay as they are."""
        norms = row(0.5, 1.0, 2.0)
        for _ in range(600):
            method.observe(losses)
            weights = method.weights(diagonal(*norms))
        return weights * norms

    def test_without_alpha_all_gradients_come_to_one_length(self):
        lengths = self.settled(GradNorm(alpha=0.0, lr=5e-3), row(1.0, 1.0, 1.0))
        assert_close(lengths, lengths.mean().expand(3), rtol=0.02, atol=0)

    def test_tasks_that_lag_behind_get_longer_gradients(self):
        method = GradNorm(alpha=1.0, lr=5e-3)
        method.observe(row(1.0, 1.0, 1.0))
        method.weights(diagonal(0.5, 1.0, 2.0))
        lengths = self.settled(method, row(0.5, 1.0, 1.5))
        assert_close(lengths / lengths.mean(), row(0.5, 1.0, 1.5), rtol=0.02, atol=0)

    def test_weights_stay_positive_and_sum_to_the_number_of_tasks(self):
        method = GradNorm(lr=0.5)
        for _ in range(30):
            weights = method.weights(diagonal(1e3, 1.0, 1e-3))
            assert weights.min() > 0
            assert_close(weights.sum(), torch.tensor(3.0, dtype=torch.float64))


class TestGradVac:
    @staticmethod
    def defined(rows: Tensor, targets: Tensor, beta: float, order: Tensor) -> tuple[Tensor, Tensor]:
        """On vectors, pair by pair, as the paper writes it."""
        targets, turned = targets.clone(), rows.clone()
        for i in range(len(rows)):
            for j in (int(task) for task in order[i] if task != i):
                cosine = turned[i] @ rows[j] / turned[i].norm() / rows[j].norm()
                wanted = targets[i, j].clone()
                if cosine < wanted:
                    top = wanted * (1 - cosine**2).sqrt() - cosine * (1 - wanted**2).sqrt()
                    turned[i] += turned[i].norm() * top / (rows[j].norm() * (1 - wanted**2).sqrt()) * rows[j]
                targets[i, j] = (1 - beta) * wanted + beta * cosine
        return turned.sum(0), targets

    @staticmethod
    def orders(tasks: int, seed: int) -> Tensor:
        generator = torch.Generator().manual_seed(seed)
        return torch.stack([torch.randperm(tasks, generator=generator) for _ in range(tasks)])

    @pytest.mark.parametrize("beta", [0.01, 0.5, 1.0])
    @pytest.mark.parametrize(("kind", "tasks"), [("weak", 2), ("strong", 3), ("scaled-strong", 6)])
    def test_steps_are_those_of_the_definition(self, kind, tasks, beta):
        ours = theirs = torch.zeros(tasks, tasks, dtype=torch.float64)
        for seed, rows in enumerate(run_of(kind, tasks, 6)):
            order = self.orders(tasks, seed)
            expected, theirs = self.defined(rows, theirs, beta, order)
            weights, ours = (found[0] for found in vaccinate((rows @ rows.T)[None], ours[None], beta, order))
            assert_close(ours, theirs, rtol=1e-6, atol=1e-9)
            assert_close(weights.sum(0) @ rows, expected, rtol=1e-6, atol=1e-7 * float(expected.norm()))

    @pytest.mark.parametrize("tasks", [2, 3, 8])
    @pytest.mark.parametrize("beta", [0.01, 0.5])
    def test_torchjd_agrees_in_the_same_order(self, tasks, beta):
        aggregation = pytest.importorskip("torchjd.aggregation")
        peer, targets = aggregation.GradVac(beta=beta), torch.zeros(1, tasks, tasks, dtype=torch.float64)
        for seed, rows in enumerate(run_of("strong", tasks, 5)):
            torch.manual_seed(seed)
            expected = peer(rows)
            torch.manual_seed(seed)
            others = [[j for j in range(tasks) if j != i] for i in range(tasks)]
            order = torch.tensor([[*(others[i][j] for j in torch.randperm(tasks - 1)), i] for i in range(tasks)])
            weights, targets = vaccinate((rows @ rows.T)[None], targets, beta, order)
            assert_close(weights[0].sum(0) @ rows, expected, rtol=1e-3, atol=1e-6 * float(expected.norm()))

    @settings(max_examples=50)
    @given(jacobians(full_rank=True))
    def test_the_first_step_is_pcgrad(self, rows):
        gram, order = rows @ rows.T, self.orders(len(rows), 0)
        weights, _ = vaccinate(gram[None], torch.zeros_like(gram)[None], 0.5, order)
        expected = surgery(gram, order)
        assert_close(weights[0], expected, rtol=1e-4, atol=1e-5 * float(expected.abs().max()))

    def test_without_an_average_it_stays_pcgrad(self):
        vac, plain = (
            make(generator=torch.Generator().manual_seed(1)) for make in (lambda **g: GradVac(0.0, **g), PCGrad)
        )
        for rows in run_of("strong", 4, 3):
            assert_close(vac.direction(rows), plain.direction(rows), rtol=1e-4, atol=1e-5)

    def test_a_gradient_that_agrees_less_than_usual_is_turned_to_the_usual_cosine(self):
        rows, targets = torch.tensor([[1.0, 0.0], [0.0, 3.0]]).double(), torch.full((1, 2, 2), 0.6).double()
        weights, _ = vaccinate((rows @ rows.T)[None], targets, 0.1, torch.tensor([[0, 1], [0, 1]]))
        turned = weights[0] @ rows
        assert_close(torch.cosine_similarity(turned, rows.flip(0), dim=1), row(0.6, 0.6))

    def test_many_layers_at_once_are_each_as_alone(self):
        layers = [run_of(kind, 4, 5) for kind in ("weak", "strong", "scaled-strong")]
        together, *alone = (GradVac(0.3, torch.Generator().manual_seed(7)) for _ in range(4))
        for step in range(5):
            grams = torch.stack([rows[step] @ rows[step].T for rows in layers])
            expected = [method.weights(gram) for method, gram in zip(alone, grams, strict=True)]
            assert_close(together.weights(grams), torch.stack(expected))

    def test_an_absent_task_keeps_its_targets_and_a_new_one_starts_at_zero(self):
        def targets(method: GradVac, tasks: int) -> Tensor:
            i, j = torch.meshgrid(torch.arange(tasks), torch.arange(tasks), indexing="ij")
            return method.state_dict()["target"][torch.where(i < j, j * j + i, i * i + i + j), 0]

        def step(method: GradVac, present: list[int], tasks: int) -> None:
            rows = jacobian("strong", tasks, 5)[present]
            with method.on_tasks(torch.tensor(present), tasks):
                method.direction(rows)

        method = GradVac(0.5)
        step(method, [0, 1, 2], 3)
        before = targets(method, 3)
        step(method, [2, 0, 3], 4)
        after = targets(method, 4)
        assert torch.equal(after[1, :3], before[1])
        assert torch.equal(after[:3, 1], before[:, 1])
        assert (after[3, 1], after[1, 3]) == (0, 0)
        assert all(after[i, j] != before[i, j] for i, j in ((0, 2), (2, 0)))
        assert all(after[i, j] != 0 for i, j in ((0, 3), (3, 0), (2, 3), (3, 2)))

    def test_an_order_of_tasks_without_names_is_kept_and_another_number_refused(self):
        method = GradVac()
        method.weights(diagonal(1.0, 1.0, 1.0))
        with pytest.raises(ValueError, match="3 tasks and was given 2.*Balancer"):
            method.weights(diagonal(1.0, 1.0))


class TestRotoGrad:
    def test_the_first_step_brings_all_gradients_to_the_mean_length(self):
        assert_close(RotoGrad().weights(diagonal(1.0, 2.0, 6.0)), row(3.0, 1.5, 0.5))

    def test_later_lengths_follow_the_tasks_that_have_converged_least(self):
        method = RotoGrad()
        method.weights(diagonal(1.0, 4.0))
        # Half and all of the first gradient are left: α = 1/3 and 2/3, so that the length is 0.5/3 + 8/3.
        weights = method.weights(diagonal(0.5, 4.0))
        assert_close(weights * row(0.5, 4.0), row(8.5 / 3, 8.5 / 3))

    def test_the_reference_is_taken_anew_after_the_burn_in(self):
        method = RotoGrad(burn_in=2)
        for norms in ((1.0, 4.0), (2.0, 1.0), (3.0, 2.0)):
            weights = method.weights(diagonal(*norms))
        assert_close(weights * row(3.0, 2.0), row(2.5, 2.5))

    def test_a_task_without_gradient_has_no_part(self):
        assert_close(RotoGrad().weights(diagonal(1.0, 0.0, 3.0)), row(2.0, 0.0, 2.0 / 3))


class TestMoCo:
    def test_two_steps_by_hand(self):
        method = MoCo(beta=0.5, gamma=0.1, rho=0.5, decay=0.5)
        one, two = np.array([[2.0, 0.0], [0.0, 4.0]]), np.array([[1.0, 1.0], [-1.0, 1.0]])
        tracked = 0.5 * one
        # λ - γ(YYᵀ + ρ)λ with YYᵀ = diag(1, 4) is (0.425, 0.275), which misses a sum of 1 by 0.3.
        weights = np.array([0.575, 0.425])
        assert_close(method.direction(torch.from_numpy(one)), torch.from_numpy(tracked.T @ weights))
        root = 2**-0.5
        tracked = tracked + 0.5 * root * (two - tracked)
        point = weights - 0.1 * root * (tracked @ tracked.T + 0.5 * np.eye(2)) @ weights
        weights = point + (1 - point.sum()) / 2
        assert (weights > 0).all()
        assert_close(method.direction(torch.from_numpy(two)), torch.from_numpy(tracked.T @ weights))

    def test_a_weight_that_would_fall_below_zero_is_zero(self):
        rows = row(2.0, 0.0), row(20.0, 10.0)
        assert_close(MoCo(beta=1.0, gamma=0.1).direction(torch.stack(rows)), rows[0])

    def test_on_gradients_that_stay_it_comes_to_mgda(self):
        rows = jacobian("strong", 4, 0)
        method = MoCo(beta=0.5, gamma=0.02, decay=0.0)
        for _ in range(800):
            direction = method.direction(rows)
        assert_close(direction, MGDA().direction(rows), rtol=1e-3, atol=1e-4)

    def test_strong_regularisation_keeps_weights_equal(self):
        method = MoCo(beta=1.0, gamma=1e-3, rho=900.0, decay=0.0)
        for _ in range(20):
            direction = method.direction(jacobian("weak", 3, 0))
        assert_close(direction, jacobian("weak", 3, 0).mean(0), rtol=0, atol=0.02)

    def test_gradients_are_of_the_same_parameters_in_every_step(self):
        assert MoCo.needs == "jacobian"
        assert MoCo.same_rows


class TestExcessMTL:
    def test_two_steps_by_hand(self):
        method = ExcessMTL(eta=0.5)
        one, two = torch.tensor([[3.0, 0.0], [1.0, 2.0]]).double(), torch.tensor([[4.0, 1.0], [0.0, 1.0]]).double()
        assert_close(method.direction(one), one.mean(0))
        # Sums of squares (25, 1) and (1, 5); excesses 3 and 3 at first, now 16/5 + 1 and 1/√5.
        powers = torch.tensor([0.5 * 4.2 / 3, 0.5 * 5**-0.5 / 3]).double().exp()
        assert_close(method.direction(two), powers / powers.sum() @ two)

    @pytest.mark.parametrize("warmup", [1, 3])
    def test_torchjd_agrees(self, warmup):
        aggregation = pytest.importorskip("torchjd.aggregation")
        method, peer = ExcessMTL(eta=0.3, warmup=warmup), aggregation.ExcessMTL(0.3, n_warmup_steps=warmup)
        for rows in run_of("strong", 4, 8):
            assert_close(method.direction(rows), peer(rows), rtol=1e-3, atol=1e-5)

    def test_the_size_of_one_loss_does_not_matter_to_the_weights(self):
        one, other = ExcessMTL(), ExcessMTL()
        factors = row(1e-4, 1.0, 1e4)[:, None]
        for rows in run_of("weak", 3, 5):
            one.direction(rows)
            other.direction(factors * rows)
        assert_close(one.state_dict()["logits"], other.state_dict()["logits"])

    def test_a_part_of_the_tasks_keeps_the_weight_that_it_has(self):
        method = ExcessMTL()
        for rows in run_of("weak", 3, 4):
            method.direction(rows)
        before = method.state_dict()["logits"].softmax(0)
        with method.on_tasks(torch.tensor([0, 2]), 3):
            for rows in run_of("weak", 3, 4):
                method.direction(rows[[0, 2]])
        after = method.state_dict()["logits"].softmax(0)
        assert_close(after[1], before[1])
        assert abs(after[0] - before[0]) > 1e-3


class TestSAMGS:
    @staticmethod
    def defined(run: list[np.ndarray], gamma: float, beta1: float, beta2: float) -> list[np.ndarray]:
        momentum, spread, directions = np.zeros_like(run[0]), 0.0, []
        for step, rows in enumerate(run, start=1):
            norms = np.linalg.norm(rows, axis=1)
            pairs = [(i, j) for j in range(len(rows)) for i in range(j)]
            alike = np.mean([2 * norms[i] * norms[j] / (norms[i] ** 2 + norms[j] ** 2) for i, j in pairs])
            momentum = beta1 * momentum + (1 - beta1) * rows
            spread = beta2 * spread + (1 - beta2) * (1 - alike) ** 2 + 1e-8
            m, v = momentum / (1 - beta1**step), spread / (1 - beta2**step)
            equalised = (rows / norms[:, None]).sum(0) * norms.mean()
            directions.append(equalised if alike < gamma else (rows * abs(m) / np.sqrt(v)).sum(0))
        return directions

    # Never equalised, always equalised, and now this, now that.
    @pytest.mark.parametrize("gamma", [0.0, 1.0, 0.3])
    def test_steps_are_those_of_the_definition(self, gamma):
        method = SAMGS(gamma, beta1=0.8, beta2=0.9)
        run = run_of("scaled", 3, 8)
        expected = self.defined([rows.numpy() for rows in run], gamma, 0.8, 0.9)
        for rows, direction in zip(run, expected, strict=True):
            assert_close(method.direction(rows), torch.from_numpy(direction))

    def test_a_threshold_between_takes_both_ways(self):
        run = [rows.numpy() for rows in run_of("scaled", 3, 8)]
        mixed, never, always = (self.defined(run, gamma, 0.8, 0.9) for gamma in (0.3, 0.0, 1.0))
        assert {np.allclose(m, a) for m, a in zip(mixed, always, strict=True)} == {True, False}
        assert {np.allclose(m, n) for m, n in zip(mixed, never, strict=True)} == {True, False}

    def test_equalised_gradients_have_the_mean_length(self):
        rows = torch.diag(row(1.0, 2.0, 9.0))
        assert_close(SAMGS(gamma=1.0).direction(rows), row(4.0, 4.0, 4.0))

    def test_a_task_alone_is_followed(self):
        assert_close(SAMGS().direction(row(3.0, -4.0)[None]), row(3.0, -4.0))


@pytest.mark.parametrize("make", [GradNorm, RotoGrad, MoCo, ExcessMTL, SAMGS], ids=lambda make: make.__name__)
def test_another_number_of_tasks_without_names_is_refused(make):
    method = make()
    method.direction(jacobian("weak", 3, 0))
    with pytest.raises(ValueError, match="3 tasks and was given 2.*Balancer"):
        method.direction(jacobian("weak", 3, 1)[:2])


@pytest.mark.parametrize("make", [GradNorm, RotoGrad, MoCo, ExcessMTL, SAMGS], ids=lambda make: make.__name__)
def test_a_step_without_a_task_is_the_step_of_the_others_alone(make):
    """What an absent task has learned neither changes nor counts."""
    method = make()
    for rows in run_of("weak", 3, 3):
        method.direction(rows)
    rest = copy.deepcopy(method)
    rest.load_state_dict({name: value[[0, 2]] for name, value in method.state_dict().items()})
    rows = jacobian("weak", 3, 4)[[0, 2]]
    with method.on_tasks(torch.tensor([0, 2]), 3):
        assert_close(method.direction(rows), rest.direction(rows))
