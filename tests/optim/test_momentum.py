import math
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor
from torch._subclasses.fake_tensor import DataDependentOutputException, FakeTensorMode
from torch.nn import Parameter

from motet.optim import AdaptiveMomentum, noise_of

COSINE_RULES = ("A1", "A2", "A3", "A4", "A5", "A6")
RISING = ("A1", "A2", "A3", "A4", "A6")


class Bench:
    """AdaptiveMomentum beside the plainest momentum recursion, one group of parameters for each set of options."""

    def __init__(self, *groups: dict[str, Any], shapes: tuple[tuple[int, ...], ...] = ((2,),), dtype=torch.float64):
        self.rule = AdaptiveMomentum()
        self.groups = []
        for options in groups:
            momentum = {"momentum": options.pop("momentum", 0.9)}
            group = momentum | AdaptiveMomentum.options(**({"beta_min": 0.5} | options))
            group["params"] = [Parameter(torch.zeros(shape, dtype=dtype)) for shape in shapes]
            AdaptiveMomentum.check(group)
            self.groups.append(group)
        self.params = [p for group in self.groups for p in group["params"]]
        self.state: dict[Tensor, dict[str, Any]] = {p: {} for p in self.params}

    def step(self, *gradients: Tensor | None) -> list[list[float | None]]:
        for p, gradient in zip(self.params, gradients, strict=True):
            p.grad = None if gradient is None else gradient.to(p.dtype).reshape(p.shape)
        betas = self.rule.betas(self.groups, self.state, "m")
        for group, row in zip(self.groups, betas, strict=True):
            for p, beta in zip(group["params"], row, strict=True):
                if p.grad is not None:
                    b = group["momentum"] if beta is None else beta
                    self.state[p]["m"] = b * self.state[p].get("m", torch.zeros_like(p)) + (1 - b) * p.grad
        return [[None if beta is None else float(beta) for beta in row] for row in betas]


def at(c: float) -> Tensor:
    """A unit vector at cosine c to (1, 0)."""
    return torch.tensor([c, math.sqrt(max(0.0, 1 - c * c))], dtype=torch.float64)


def beta_at(c: float, rule: str, **options: Any) -> float:
    bench = Bench({"rule": rule, "smoothing": 0.0} | options)
    bench.step(at(1.0))
    return bench.step(at(c))[0][0]


@given(st.floats(-1, 1), st.floats(-1, 1), st.sampled_from(RISING), st.sampled_from(["previous", "momentum"]))
def test_beta_stays_between_its_bounds_and_rises_with_the_cosine(c, other, rule, reference):
    low, high = sorted((c, other))
    first, second = (beta_at(x, rule, reference=reference) for x in (low, high))
    assert 0.5 - 1e-12 <= first <= second + 1e-9
    assert second <= 0.9 + 1e-12


@pytest.mark.parametrize("rule", RISING)
def test_a_repeated_gradient_keeps_the_whole_memory_and_an_opposite_one_the_least(rule):
    assert beta_at(1.0, rule) == pytest.approx(0.9, abs=1e-9)
    assert beta_at(-1.0, rule) == pytest.approx(0.5, abs=1e-9)


def test_the_negative_control_turns_the_rule_around():
    assert beta_at(1.0, "A5") == pytest.approx(0.5, abs=1e-9)
    assert beta_at(-1.0, "A5") == pytest.approx(0.9, abs=1e-9)


@pytest.mark.parametrize(
    ("rule", "c", "phi"),
    [
        ("A1", 0.0, 0.5),
        ("A1", 0.6, 0.8),
        ("A2", 0.0, 0.0),
        ("A2", 0.6, 0.6),
        ("A3", 0.0, 0.5),
        (
            "A3",
            0.6,
            (1 / (1 + math.exp(-3)) - 1 / (1 + math.exp(5))) / (1 / (1 + math.exp(-5)) - 1 / (1 + math.exp(5))),
        ),
        ("A4", 0.6, 0.8),
        ("A5", 0.6, 0.2),
    ],
)
def test_beta_is_the_rule_s_formula(rule, c, phi):
    assert beta_at(c, rule) == pytest.approx(0.5 + 0.4 * phi, abs=1e-9)


@pytest.mark.parametrize("rule", [*COSINE_RULES, "A7"])
def test_the_first_step_and_zero_gradients_keep_the_whole_memory(rule):
    top = 0.5 if rule == "A5" else 0.9
    bench = Bench({"rule": rule, "smoothing": 0.0})
    assert bench.step(at(0.3))[0][0] == pytest.approx(top)
    assert bench.step(torch.zeros(2))[0][0] == pytest.approx(top)
    if rule != "A7":
        assert bench.step(torch.zeros(2))[0][0] == pytest.approx(top)


def test_the_references_are_the_previous_gradient_and_the_momentum():
    d = [torch.tensor(x, dtype=torch.float64) for x in ([1.0, 0.0], [0.0, 2.0], [3.0, 1.0])]
    previous, momentum = Bench({}), Bench({"reference": "momentum"})
    for x in d[:2]:
        previous.step(x)
        momentum.step(x)
    m1 = 0.1 * d[0]
    beta2 = 0.5 + 0.4 / 2  # d₂ is at a right angle to d₁ and m₁
    m2 = beta2 * m1 + (1 - beta2) * d[1]
    c3 = float(d[2] @ m2 / (d[2].norm() * m2.norm()))
    assert momentum.step(d[2])[0][0] == pytest.approx(0.5 + 0.4 * (1 + c3) / 2)
    assert previous.step(d[2])[0][0] == pytest.approx(0.5 + 0.4 * (1 + 1 / math.sqrt(10)) / 2)
    assert "previous_gradient" not in momentum.state[momentum.params[0]]


def test_rule_a4_compares_with_the_momentum_whatever_the_reference():
    gradients = torch.randn(5, 2, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    one, two = Bench({"rule": "A4"}), Bench({"rule": "A1", "reference": "momentum"})
    assert [one.step(d) for d in gradients] == [two.step(d) for d in gradients]


def test_the_smoothed_cosine_is_the_recurrence():
    bench = Bench({"rule": "A6", "smoothing": 0.75})
    bench.step(at(1.0))  # c̄ = 1
    assert bench.step(at(0.0))[0][0] == pytest.approx(0.5 + 0.4 * (1 + 0.75) / 2)
    bench.step(at(1.0))  # c̄ = 0.5625
    assert bench.step(at(-1.0))[0][0] == pytest.approx(0.5 + 0.4 * (1 + 0.75 * 0.5625 - 0.25) / 2)
    assert AdaptiveMomentum.options(rule="A6")["smoothing"] is None
    default = Bench({"rule": "A6"})
    default.step(at(1.0))
    assert default.step(at(-1.0))[0][0] == pytest.approx(0.5 + 0.4 * (1 + 0.8) / 2)


def test_each_scope_is_one_cosine_over_its_parameters():
    generator = torch.Generator().manual_seed(1)
    first, second = (torch.randn(4, 3, generator=generator, dtype=torch.float64) for _ in range(2))

    def beta(rows: list[int]) -> float:
        c = torch.nn.functional.cosine_similarity(first[rows].flatten(), second[rows].flatten(), dim=0)
        return 0.5 + 0.4 * (1 + float(c)) / 2

    for scope, expected in {
        "global": [[beta([0, 1, 2, 3])] * 2] * 2,
        "group": [[beta([0, 1])] * 2, [beta([2, 3])] * 2],
        "tensor": [[beta([0]), beta([1])], [beta([2]), beta([3])]],
    }.items():
        bench = Bench({"scope": scope}, {"scope": scope}, shapes=((3,), (3, 1)))
        bench.step(*first)
        found = bench.step(*second)
        for row, wanted in zip(found, expected, strict=True):
            assert row == pytest.approx(wanted, rel=1e-12)


def test_a_group_that_does_not_adapt_enters_no_cosine_and_bounds_are_each_group_s_own():
    bench = Bench({}, {"beta_min": None}, {"beta_min": 0.2, "momentum": 0.8})
    bench.step(at(1.0), at(1.0), at(1.0))
    assert bench.step(at(0.0), at(-1.0), at(0.0)) == [[pytest.approx(0.7)], [None], [pytest.approx(0.5)]]
    assert "previous_gradient" not in bench.state[bench.params[1]]


def test_a_parameter_without_a_gradient_enters_no_cosine_and_keeps_what_it_had():
    bench = Bench({}, shapes=((2,), (2,)))
    bench.step(at(1.0), at(1.0))
    before = [bench.groups[0][name][1].clone() for name in ("beta", "momentum_weight")]
    assert bench.step(at(0.0), None) == [[pytest.approx(0.7), None]]
    for name, value in zip(("beta", "momentum_weight"), before, strict=True):
        assert torch.equal(bench.groups[0][name][1], value)
    assert torch.equal(bench.state[bench.params[1]]["previous_gradient"], at(1.0))
    c = (0.0 - 1.0) / 2  # (0, 1)·(1, 0) and (-1, 0)·(1, 0), over √2·√2
    assert bench.step(at(1.0), at(-1.0))[0] == [pytest.approx(0.5 + 0.4 * (1 + c) / 2)] * 2


def test_a_parameter_that_comes_late_enters_with_its_second_gradient():
    bench = Bench({}, shapes=((2,), (2,)))
    bench.step(at(1.0), None)
    assert bench.step(at(0.0), 100 * at(1.0))[0] == [pytest.approx(0.7)] * 2


def test_the_weight_of_the_momentum_is_one_minus_the_product_of_the_betas():
    generator = torch.Generator().manual_seed(2)
    bench, product = Bench({}), 1.0
    for _ in range(6):
        product *= bench.step(torch.randn(2, generator=generator))[0][0]
        assert float(bench.groups[0]["momentum_weight"]) == pytest.approx(1 - product)


@given(st.integers(-12, 12), st.sampled_from([*COSINE_RULES, "A7"]), st.sampled_from(["global", "group", "tensor"]))
def test_beta_does_not_see_the_scale_of_the_losses(exponent, rule, scope):
    generator = torch.Generator().manual_seed(3)
    d = torch.randn(5, 2, 4, generator=generator)
    plain, scaled = (Bench({"rule": rule, "scope": scope}, shapes=((4,), (4,)), dtype=torch.float32) for _ in range(2))
    for row in d:
        assert scaled.step(*(row * 10.0**exponent))[0] == pytest.approx(plain.step(*row)[0], abs=1e-5)


@pytest.mark.parametrize("scope", ["global", "tensor"])
@pytest.mark.parametrize("rule", ["A1", "A4", "A7"])
def test_beta_does_not_see_a_change_of_basis_of_each_matrix(rule, scope):
    generator = torch.Generator().manual_seed(4)
    d = torch.randn(6, 2, 3, 4, generator=generator, dtype=torch.float64)
    turns = [torch.linalg.qr(torch.randn(n, n, generator=generator, dtype=torch.float64))[0] for n in (3, 4)]
    plain, turned = (Bench({"rule": rule, "scope": scope}, shapes=((3, 4), (3, 4))) for _ in range(2))
    for row in d:
        assert turned.step(*(turns[0] @ row @ turns[1]))[0] == pytest.approx(plain.step(*row)[0], abs=1e-9)


@pytest.mark.parametrize("bad", [math.nan, math.inf])
@pytest.mark.parametrize("rule", ["A1", "A6", "A7"])
def test_a_gradient_that_is_not_finite_never_reaches_beta(rule, bad):
    bench = Bench({"rule": rule}, shapes=((2,), (2,)))
    bench.step(at(1.0), at(1.0))
    bench.step(at(0.5), at(0.5))
    assert all(0.5 <= beta <= 0.9 for beta in bench.step(at(1.0), torch.tensor([bad, 1.0]))[0])
    assert all(0.5 <= beta <= 0.9 for beta in bench.step(at(1.0), at(1.0))[0])
    for name in ("beta", "momentum_weight", "cosine", "drift", "noise"):
        assert bench.groups[0].get(name, torch.zeros(1)).isfinite().all()
    bench.step(at(1.0), at(1.0))
    if rule == "A1":
        assert bench.step(at(-1.0), at(-1.0))[0] == [pytest.approx(0.5)] * 2


def test_ascent_compares_the_gradient_with_the_momentum_of_its_own_sign():
    bench = Bench({"reference": "momentum"})
    bench.groups[0]["maximize"] = True
    bench.step(at(1.0))
    bench.state[bench.params[0]]["m"] = -bench.state[bench.params[0]]["m"]  # an optimizer that ascends keeps -d
    assert bench.step(at(1.0))[0][0] == pytest.approx(0.9)


def test_products_of_half_precision_gradients_are_taken_in_single_precision():
    d = torch.full((4096,), 0.1, dtype=torch.bfloat16)
    bench = Bench({"rule": "A2"}, shapes=((4096,),), dtype=torch.bfloat16)
    bench.step(d)
    bench.step(d)
    assert float(bench.groups[0]["cosine"]) == pytest.approx(1.0, abs=1e-6)


def test_double_precision_sees_an_angle_that_single_precision_does_not():
    bench = Bench({})
    bench.step(at(1.0))
    bench.step(torch.tensor([1.0, 1e-6]))
    assert 1 - float(bench.groups[0]["cosine"]) == pytest.approx(5e-13, rel=1e-2)


def test_a7_has_the_beta_of_the_bound_from_its_own_two_distances():
    bench = Bench({"rule": "A7", "smoothing": 0.0, "momentum": 0.95, "beta_min": 0.1})
    d = torch.tensor([[1.0, 0.0], [0.9, 0.5], [0.6, 1.0]], dtype=torch.float64)
    b1, b2 = (bench.step(x)[0][0] for x in d[:2])
    assert (b1, b2) == (pytest.approx(0.95), pytest.approx(0.95))  # with one gradient in m the two distances are one
    weights = torch.tensor([b2 * (1 - b1), 1 - b2], dtype=torch.float64)
    weights /= weights.sum()
    m = weights @ d[:2]
    a, q = float(weights @ torch.tensor([2.0, 1.0], dtype=torch.float64)), float(weights @ weights)
    Q, R = float((d[2] - d[1]).square().sum()), float((d[2] - m).square().sum())
    drift = (R - Q * (1 + q) / 2) / (a**2 - (1 + q) / 2)
    noise = (Q - drift) / 2
    assert bench.step(d[2])[0][0] == pytest.approx(1 - min(max((2 * drift / noise) ** (1 / 3), 0.05), 0.9))


def test_a7_recovers_drift_and_noise_of_a_mean_that_moves_steadily():
    generator = torch.Generator().manual_seed(5)
    bench = Bench({"rule": "A7", "smoothing": 0.99, "momentum": 0.9, "beta_min": 0.9}, shapes=((2000,),))
    velocity = torch.full((2000,), 0.3 / math.sqrt(2000), dtype=torch.float64)
    for t in range(400):
        bench.step(t * velocity + torch.randn(2000, generator=generator, dtype=torch.float64) / math.sqrt(2000))
    assert float(bench.groups[0]["noise"]) == pytest.approx(1.0, rel=0.1)
    assert float(bench.groups[0]["drift"]) == pytest.approx(0.09, rel=0.1)


def test_a7_keeps_the_whole_memory_of_a_constant_gradient_and_the_least_under_drift_without_noise():
    bench = Bench({"rule": "A7"}, shapes=((500,),), dtype=torch.float32)
    d = torch.randn(500, generator=torch.Generator().manual_seed(6))
    assert all(bench.step(d)[0][0] == pytest.approx(0.9) for _ in range(20))
    drifting = Bench({"rule": "A7"}, shapes=((500,),), dtype=torch.float32)
    assert [drifting.step(d + t * d.flip(0))[0][0] for t in range(20)][-1] == pytest.approx(0.5)


def test_a7_takes_the_noise_that_is_measured_for_it():
    bench = Bench({"rule": "A7", "smoothing": 0.0, "momentum": 0.95, "beta_min": 0.1})
    bench.rule.noise_hook = lambda: torch.tensor(0.4)
    bench.step(at(1.0))
    beta = bench.step(at(0.5))[0][0]  # Q = 1, D² = 1 - 0.8
    assert beta == pytest.approx(1 - min((2 * 0.2 / 0.4) ** (1 / 3), 0.9), rel=1e-5)
    local = Bench({"rule": "A7", "scope": "tensor"})
    local.rule.noise_hook = lambda: torch.tensor(0.4)
    with pytest.raises(ValueError, match="scope must be global"):
        local.step(at(1.0))


def test_the_noise_of_two_half_batches_is_a_quarter_of_their_squared_distance():
    g = torch.randn(2, 7, generator=torch.Generator().manual_seed(8))
    assert float(noise_of(g)) == pytest.approx(float((g[0] - g[1]).square().sum()) / 4)
    many = torch.randn(2000, 16, 5, generator=torch.Generator().manual_seed(9))
    assert float(torch.stack([noise_of(x) for x in many]).mean()) == pytest.approx(5 / 16, rel=0.05)
    with pytest.raises(ValueError, match="at least two"):
        noise_of(g[:1])


@pytest.mark.parametrize("rule", [*COSINE_RULES, "A7"])
@pytest.mark.parametrize("scope", ["global", "group", "tensor"])
def test_no_number_is_read_back_from_the_device(rule, scope):
    with FakeTensorMode():  # tensors without values: reading one raises
        bench = Bench({"rule": rule, "scope": scope}, shapes=((2,), (2,)))
        for _ in range(3):
            for p in bench.params:
                p.grad = torch.randn(2, dtype=torch.float64)
            betas = bench.rule.betas(bench.groups, bench.state, "m")
            with pytest.raises(DataDependentOutputException):
                float(betas[0][0])


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"beta_min": -0.1}, "beta_min"),
        ({"beta_min": 0.95}, "beta_min"),
        ({"beta_min": math.nan}, "beta_min"),
        ({"momentum": 1.0}, "momentum"),
        ({"rule": "A9"}, "rule must be one of A1"),
        ({"reference": "mean"}, "reference must be one of previous, momentum"),
        ({"scope": "layer"}, "scope must be one of global"),
        ({"smoothing": 1.0}, "smoothing"),
    ],
)
def test_an_option_out_of_range_is_refused_by_name(options, message):
    with pytest.raises(ValueError, match=message):
        Bench(options)
