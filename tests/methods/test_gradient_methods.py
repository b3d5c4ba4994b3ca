"""Methods on gradients of this step against their definitions, solved in another way."""

import itertools

import cvxpy as cp
import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor
from torch.testing import assert_close

from motet import methods
from motet.methods import MGDA, NTKMTL, CAGrad, ConFIG, ConicGrad, FairGrad, IMGrad
from motet.testing import check_method
from tests.matrices import jacobian, jacobians

OPTIONS = {
    "grad-norm": {"alpha": 0.5, "lr": 0.2},
    "grad-vac": {"beta": 0.5},
    "im-grad": {"c": 1.5},
    "roto-grad": {"burn_in": 3},
    "moco": {"beta": 0.2, "gamma": 0.01, "rho": 0.1, "decay": 0.0},
    "config": {},
    "conic-grad": {"c": 0.9},
    "pivrg": {"bound": 4.0, "temperature": 1.0, "beta": 0.0},
    "sam-gs": {"gamma": 0.9, "beta1": 0.5, "beta2": 0.5},
    "excess-mtl": {"eta": 0.1, "warmup": 5},
    "ntk-mtl": {"exponent": 0.3},
}

FAULTY = [
    ("grad-norm", {"alpha": -1.0}, "alpha"),
    ("grad-norm", {"lr": -1.0}, "lr"),
    ("grad-vac", {"beta": 1.1}, "beta"),
    ("im-grad", {"c": -0.1}, "c is"),
    ("roto-grad", {"burn_in": -1}, "burn_in"),
    ("moco", {"beta": 0.0}, "beta"),
    ("moco", {"gamma": 0.0}, "gamma"),
    ("moco", {"rho": -1.0}, "rho"),
    ("conic-grad", {"c": 0.0}, "c is"),
    ("conic-grad", {"c": 1.1}, "c is"),
    ("pivrg", {"bound": 1.0}, "bound"),
    ("pivrg", {"beta": 1.0}, "beta"),
    ("pivrg", {"baseline": [1.0, 0.0]}, "baseline"),
    ("sam-gs", {"gamma": 2.0}, "gamma"),
    ("sam-gs", {"beta1": 1.0}, "beta1"),
    ("excess-mtl", {"eta": 0.0}, "eta"),
    ("excess-mtl", {"warmup": 0}, "warmup"),
    ("ntk-mtl", {"exponent": 0.6}, "exponent"),
]


def double(rows: list[list[float]]) -> Tensor:
    return torch.tensor(rows, dtype=torch.float64)


def worst_gain(rows: Tensor, direction: Tensor) -> float:
    """The least progress of a task, over the length of the mean gradient squared."""
    return float((rows @ direction).min() / rows.mean(0).square().sum())


@pytest.mark.parametrize("name", OPTIONS)
def test_all_that_motet_relies_on_holds_by_default(name):
    check_method(name)


@pytest.mark.parametrize("name", OPTIONS)
def test_all_that_motet_relies_on_holds_with_other_options(name):
    check_method(lambda: methods.get(name, **OPTIONS[name]))


@pytest.mark.parametrize(("name", "options", "option"), FAULTY)
def test_an_option_out_of_range_is_named(name, options, option):
    with pytest.raises(ValueError, match=option):
        methods.get(name, **options)


class TestConFIG:
    @staticmethod
    def defined(rows: Tensor) -> Tensor:
        norms = rows.norm(dim=1, keepdim=True)
        units = torch.where(norms > 0, rows / torch.where(norms > 0, norms, 1.0), 0.0)
        best = torch.linalg.pinv(units, rtol=1e-3) @ torch.ones(len(rows), dtype=rows.dtype)
        best = best / best.norm()
        return (rows @ best).sum() * best

    @given(jacobians(full_rank=True))
    def test_it_is_the_pseudo_inverse_applied_to_ones(self, rows):
        expected = self.defined(rows)
        assert_close(ConFIG().direction(rows), expected, rtol=1e-6, atol=1e-7 * float(expected.norm()))

    @pytest.mark.parametrize("kind", ["duplicates", "zero-rows"])
    def test_it_is_on_dependent_gradients_too(self, kind):
        rows = jacobian(kind, 5, 1)
        expected = self.defined(rows)
        assert_close(ConFIG().direction(rows), expected, rtol=1e-6, atol=1e-7 * float(expected.norm()))

    @given(jacobians(full_rank=True))
    def test_every_task_has_the_same_positive_cosine(self, rows):
        direction = ConFIG().direction(rows)
        cosines = rows @ direction / rows.norm(dim=1) / direction.norm()
        assert cosines.min() > 0
        assert_close(cosines, cosines.mean().expand(len(cosines)), rtol=1e-5, atol=0)

    @given(jacobians(full_rank=True), st.floats(-3, 3))
    def test_the_size_of_one_loss_leaves_the_direction(self, rows, exponent):
        scaled = rows.clone()
        scaled[0] *= 10**exponent
        one, other = ConFIG().direction(rows), ConFIG().direction(scaled)
        assert_close(one / one.norm(), other / other.norm(), rtol=1e-6, atol=1e-7)

    def test_opposite_gradients_leave_nothing_to_do(self):
        assert (ConFIG().direction(double([[1.0, 2.0], [-1.0, -2.0]])) == 0).all()

    @pytest.mark.parametrize("tasks", [2, 3, 8])
    @pytest.mark.parametrize("kind", ["weak", "strong", "scaled"])
    def test_torchjd_agrees(self, kind, tasks):
        aggregation = pytest.importorskip("torchjd.aggregation")
        rows = jacobian(kind, tasks, tasks)
        expected = aggregation.ConFIG()(rows)
        assert_close(ConFIG().direction(rows), expected, rtol=1e-3, atol=1e-6 * float(expected.norm()))


class TestIMGrad:
    @staticmethod
    def defined(rows: Tensor, c: float) -> Tensor:
        """The objective of the method, minimised by a conic solver."""
        mean, mgda = rows.mean(0), MGDA().direction(rows)
        q = float(torch.cosine_similarity(mean, mgda, dim=0))
        size = float(mean.norm())
        matrix = rows.numpy() / size
        weights = cp.Variable(len(rows), nonneg=True)
        change = cp.norm(matrix.T @ weights)
        objective = (1.5 - q) * (matrix @ mean.numpy() / size) @ weights + q * c * change
        cp.Problem(cp.Minimize(objective), [cp.sum(weights) == 1]).solve(
            solver=cp.CLARABEL, tol_gap_abs=1e-9, tol_gap_rel=1e-9, tol_feas=1e-9
        )
        turned = torch.from_numpy(weights.value) @ rows
        return mean + c * size * turned / turned.norm()

    @pytest.mark.parametrize("c", [0.3, 0.8, 2.0])
    @pytest.mark.parametrize(("kind", "tasks"), [("weak", 3), ("strong", 4), ("scaled", 5), ("strong", 8)])
    def test_its_objective_is_at_its_minimum(self, kind, tasks, c):
        rows = jacobian(kind, tasks, 2)
        expected = self.defined(rows, c)
        assert_close(IMGrad(c).direction(rows), expected, rtol=1e-4, atol=1e-4 * float(expected.norm()))

    @given(jacobians(full_rank=True), st.floats(0.1, 3))
    def test_the_change_from_the_mean_is_as_long_as_declared(self, rows, c):
        change = IMGrad(c).direction(rows) - rows.mean(0)
        assert_close(change.norm(), c * rows.mean(0).norm(), rtol=1e-6, atol=0)

    def test_no_change_is_the_mean(self):
        rows = jacobian("strong", 4, 0)
        assert_close(IMGrad(0.0).direction(rows), rows.mean(0))

    def test_tasks_that_agree_are_followed(self):
        rows = double([[1.0, 0.0], [0.0, 1.0]])
        assert_close(IMGrad(0.8).direction(rows), 1.8 * rows.mean(0))

    @pytest.mark.parametrize("c", [0.4, 0.8])
    def test_cagrad_is_the_middle(self, c):
        # Orthogonal gradients of lengths 1 and s have q = 2s/(1+s²), which is 3/4 here.
        rows = double([[1.0, 0.0], [0.0, (1 - (1 - 0.75**2) ** 0.5) / 0.75]])
        assert_close(IMGrad(c).direction(rows), CAGrad(c).direction(rows), rtol=1e-6, atol=1e-8)

    def test_at_a_stationary_point_it_turns_to_the_task_that_gains_least(self):
        rows = double([[2.0, 0.0, 0.0], [-1.0, 0.0, 0.0], [0.0, 0.0, 1.0]])
        mean = rows.mean(0)
        expected = mean + 0.8 * mean.norm() * rows[1] / rows[1].norm()
        assert_close(IMGrad(0.8).direction(rows), expected, rtol=1e-3, atol=1e-3)


class TestConicGrad:
    @staticmethod
    def defined(rows: Tensor, c: float) -> float:
        """The largest worst gain of a direction in the cone, by a conic solver; the cap has the cone's optimum."""
        mean = rows.mean(0)
        size = float(mean.norm())
        direction = cp.Variable(rows.shape[1])
        gains = (rows.numpy() / size) @ direction
        cap = [cp.norm(direction) <= 1, (mean.numpy() / size) @ direction >= c]
        return float(cp.Problem(cp.Maximize(cp.min(gains)), cap).solve(solver=cp.CLARABEL))

    @pytest.mark.parametrize("c", [0.05, 0.25, 0.6, 0.95])
    @pytest.mark.parametrize(
        ("kind", "tasks"),
        [("weak", 3), ("strong", 4), ("scaled", 5), ("scaled-strong", 6), ("stationary", 4), ("duplicates", 5)],
    )
    def test_no_direction_in_the_cone_does_more_for_the_worst_task(self, kind, tasks, c):
        rows = jacobian(kind, tasks, 3)
        direction = ConicGrad(c).direction(rows)
        gain = worst_gain(rows, direction)
        if gain < 0:
            # Then shorter is better, as long as it stays in the cap.
            gain *= c / float(torch.cosine_similarity(direction, rows.mean(0), dim=0))
        assert gain == pytest.approx(self.defined(rows, c), rel=1e-4, abs=1e-5)

    @given(jacobians(full_rank=True), st.floats(0.05, 1))
    def test_it_is_in_the_cone_and_as_long_as_the_mean(self, rows, c):
        mean, direction = rows.mean(0), ConicGrad(c).direction(rows)
        assert_close(direction.norm(), mean.norm(), rtol=1e-6, atol=0)
        assert torch.cosine_similarity(direction, mean, dim=0) >= c - 1e-6

    @given(jacobians(full_rank=True))
    def test_a_wider_cone_helps_the_worst_task_more(self, rows):
        gains = [worst_gain(rows, ConicGrad(c).direction(rows)) for c in (1.0, 0.9, 0.5, 0.1)]
        assert all(after >= before - 1e-6 for before, after in itertools.pairwise(gains))

    def test_the_narrowest_cone_holds_the_mean_alone(self):
        rows = jacobian("strong", 4, 0)
        assert_close(ConicGrad(1.0).direction(rows), rows.mean(0))

    def test_a_wide_cone_leads_to_mgda(self):
        rows = jacobian("strong", 4, 0)
        one, other = ConicGrad(0.01).direction(rows), MGDA().direction(rows)
        assert_close(one / one.norm(), other / other.norm(), rtol=1e-6, atol=1e-8)

    def test_without_a_mean_there_is_no_cone(self):
        assert (ConicGrad().direction(double([[1.0, -2.0], [-1.0, 2.0]])) == 0).all()


class TestNTKMTL:
    def test_weights_are_the_share_of_the_trace_to_the_power(self):
        gram = double([[4.0, 1.0], [1.0, 16.0]])
        assert_close(NTKMTL(0.3).weights(gram), double([[5.0, 1.25]])[0] ** 0.3)

    def test_all_gradients_come_to_one_length(self):
        rows = jacobian("scaled", 4, 0)
        lengths = NTKMTL().weights(rows @ rows.T) * rows.norm(dim=1)
        assert_close(lengths, rows.norm().expand(4))

    def test_exponent_zero_is_the_sum(self):
        rows = jacobian("scaled", 4, 0)
        assert_close(NTKMTL(0.0).direction(rows), rows.sum(0))


class TestPIVRG:
    @staticmethod
    def step(method: methods.PIVRG, losses: list[float], gram: Tensor) -> Tensor:
        method.observe(torch.tensor(losses, dtype=torch.float64))
        return method.weights(gram)

    @settings(max_examples=25)
    @given(jacobians(full_rank=True))
    def test_tasks_that_are_equally_well_off_give_fair_grad(self, rows):
        gram = rows @ rows.T
        assert_close(methods.PIVRG().weights(gram), FairGrad(2.0).weights(gram))

    def test_weights_solve_the_equation_of_their_scores(self):
        rows = jacobian("strong", 3, 0)
        gram = rows @ rows.T
        method = methods.PIVRG(baseline=[0.5, 1.0, 2.0], bound=3.0, temperature=10.0)
        weights = self.step(method, [1.0, 1.1, 2.0], gram)  # 100, 10 and 0 per cent behind
        temperature = 100 / np.log(3.0)
        share = np.exp(np.array([100.0, 10.0, 0.0]) / temperature)
        omega = torch.from_numpy(3 * share / share.sum())
        assert_close(gram @ weights, (omega / weights).sqrt(), rtol=1e-6, atol=0)
        assert_close(omega.max() / omega.min(), torch.tensor(3.0, dtype=torch.float64))

    def test_the_least_temperature_keeps_small_differences_small(self):
        rows = jacobian("strong", 2, 0)
        gram = rows @ rows.T
        weights = self.step(methods.PIVRG(baseline=[1.0, 1.0], temperature=10.0), [1.01, 1.0], gram)
        omega = weights * (gram @ weights) ** 2
        assert_close(omega[0] / omega[1], torch.tensor(np.exp(0.1), dtype=torch.float64), rtol=1e-6, atol=0)

    def test_losses_are_smoothed_and_held_against_the_first(self):
        rows = jacobian("strong", 2, 0)
        gram = rows @ rows.T
        method = methods.PIVRG(beta=0.9)
        self.step(method, [2.0, 4.0], gram)
        weights = self.step(method, [2.0, 2.0], gram)  # averages 2 and 3.8: 100 and 95 per cent are left
        omega = weights * (gram @ weights) ** 2
        assert_close(omega[0] / omega[1], torch.tensor(np.exp(0.5), dtype=torch.float64), rtol=1e-6, atol=0)

    def test_a_baseline_for_other_tasks_is_an_error(self):
        with pytest.raises(ValueError, match="2 values, one a task, and there are 3 tasks"):
            methods.PIVRG(baseline=[1.0, 1.0]).weights(torch.eye(3))
