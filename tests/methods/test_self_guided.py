"""Self-guided learning: its bounds for true moments, moments by hand, averages, and absent tasks."""

import itertools

import cvxpy
import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.testing import assert_close

import motet
from motet.methods import EMA, Every, LogLosses, Preference, SelfGuided
from motet.routes import Features, LastLayer, last_layer
from motet.solvers.floored import minimise_above_floor
from motet.testing import check_method

MODES = ["progress", "magnitude", "invvar", "simplex"]


def instance(seed: int) -> tuple[Tensor, Tensor]:
    """True moments M (K, K) and C (K, K), K from 2 to 8, of which some are singular, correlated or badly scaled."""
    generator = torch.Generator().manual_seed(seed)
    tasks = 2 + seed % 7

    def normal(*shape: int) -> Tensor:
        return torch.randn(*shape, generator=generator, dtype=torch.float64)

    width = max(1, tasks // 2) if seed % 3 == 0 else tasks + 2
    deviations = normal(tasks, width) * (2 * normal(tasks, 1)).exp()
    if seed % 5 == 0:
        deviations[0] = 0
    if seed % 11 == 0:
        deviations[:] = deviations[-1]
    means = normal(tasks, 6) + (seed % 2)
    return means @ means.T, deviations @ deviations.T


def fresh(mode: str = "progress", **options) -> SelfGuided:
    return SelfGuided(mode, **{"warmup": 0, **options})


@pytest.mark.parametrize("method", [SelfGuided(), *(SelfGuided(mode, warmup=0) for mode in MODES)], ids=repr)
def test_what_motet_relies_on_is_kept(method):
    check_method(method)


def test_progress_is_never_above_uniform_in_variance_or_in_noise_to_signal():
    for seed in range(300):
        floor = (0.0, 0.1, 0.7)[seed % 4 % 3]
        signal, noise = instance(seed)
        weights = fresh(floor=floor).sample_weights(signal, noise)
        assert_close(weights.sum(), torch.tensor(float(len(weights)), dtype=torch.float64), rtol=1e-9, atol=0)
        assert (weights >= floor - 1e-12).all()
        variance, square = weights @ noise @ weights, weights @ signal @ weights
        assert variance <= noise.sum() * (1 + 1e-9) + 1e-300
        if signal.sum() > 0:
            assert variance * signal.sum() <= noise.sum() * square * (1 + 1e-9) + 1e-300


@pytest.mark.parametrize("mode", ["progress", "simplex"])
def test_the_programme_is_solved_as_a_general_solver_does(mode):
    for seed in range(40):
        signal, noise = instance(seed)
        tasks, row = len(noise), signal.sum(1)
        weights = fresh(mode).sample_weights(signal, noise)
        scale = float(noise.diagonal().mean())
        root = np.linalg.cholesky(noise.numpy() / scale + 1e-6 * np.eye(tasks))
        other = cvxpy.Variable(tasks)
        allowed = [cvxpy.sum(other) == tasks, other >= 0.1]
        if mode == "progress":
            allowed.append((row / row.abs().max()).numpy() @ (other - 1) >= 0)
        cvxpy.Problem(cvxpy.Minimize(cvxpy.sum_squares(root.T @ other)), allowed).solve(solver=cvxpy.CLARABEL)
        best, ours = (float(np.sum((root.T @ w) ** 2)) for w in (other.value, weights.numpy()))
        assert ours <= best + 1e-5 * max(1.0, best)


@pytest.mark.parametrize("tau", [0.0, 0.3, 1.0])
def test_tempered_weights_are_never_above_uniform_where_noise_is_uncorrelated(tau):
    for seed in range(100):
        signal, noise = instance(seed)
        noise = noise.diagonal().diag()
        weights = fresh("invvar", tau=tau).sample_weights(signal, noise)
        assert weights @ noise @ weights <= noise.sum() * (1 + 1e-12)


def test_inverse_variance_reaches_the_harmonic_optimum():
    noise = torch.tensor([1.0, 2.0, 4.0], dtype=torch.float64).diag()
    weights = fresh("invvar", floor=0.0).sample_weights(torch.eye(3), noise)
    assert_close(weights, torch.tensor([4.0, 2.0, 1.0], dtype=torch.float64) * 3 / 7)
    assert_close(weights @ noise @ weights, torch.tensor(9 / 1.75, dtype=torch.float64))


def test_magnitude_does_not_see_the_scale_of_a_loss():
    signal, noise = instance(4)
    factors = torch.logspace(-3, 3, len(signal), dtype=torch.float64)
    scale = factors[:, None] * factors
    before = fresh("magnitude", floor=0.0).sample_weights(signal, noise)
    after = fresh("magnitude", floor=0.0).sample_weights(signal * scale, noise * scale) * factors
    assert_close(after / after.norm(), before / before.norm(), rtol=1e-12, atol=0)


@pytest.mark.parametrize("mode", MODES)
def test_identical_tasks_are_uniform_and_one_alone_is_one(mode):
    signal, noise = torch.full((4, 4), 3.0), torch.full((4, 4), 0.7)
    assert_close(fresh(mode).sample_weights(signal, noise), torch.ones(4, dtype=torch.float64))
    assert_close(fresh(mode).sample_weights(signal[:1, :1], noise[:1, :1]), torch.ones(1, dtype=torch.float64))


@pytest.mark.parametrize("mode", MODES)
def test_without_noise_only_magnitude_tells_tasks_apart(mode):
    gram = torch.tensor([[4.0, 1.0], [1.0, 1.0]])
    expected = [0.1 + 0.9 * 2 / 3, 0.1 + 0.9 * 4 / 3] if mode == "magnitude" else [1.0, 1.0]
    assert_close(fresh(mode).weights(gram), torch.tensor(expected, dtype=torch.float64))


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("value", [0.0, torch.nan, torch.inf])
def test_a_task_without_a_gradient_is_passed_over(mode, value):
    signal, noise = instance(5)
    method, others = fresh(mode), fresh(mode)
    keep = torch.arange(len(signal)) != 1
    for matrix in (signal, noise):
        matrix[1, :] = value
        matrix[:, 1] = value
    weights = method.sample_weights(signal, noise)
    assert weights[1] == 1
    assert_close(weights[keep], others.sample_weights(signal[keep][:, keep], noise[keep][:, keep]))


def test_signal_below_noise_gives_uniform_weights():
    assert (fresh().sample_weights(-torch.eye(3), torch.diag(torch.tensor([1.0, 2.0, 3.0]))) == 1).all()


def test_two_steps_are_averaged_as_by_hand():
    method = fresh("invvar", floor=0.0, beta=0.75)
    method.sample_weights(torch.eye(2), torch.diag(torch.tensor([1.0, 4.0])))
    weights = method.sample_weights(torch.eye(2), torch.diag(torch.tensor([2.0, 1.0])))
    share = 1 - 0.75**2
    variances = torch.tensor([0.75 * 0.25 * 1 + 0.25 * 2, 0.75 * 0.25 * 4 + 0.25 * 1], dtype=torch.float64) / share
    assert_close(weights, 2 * (1 / variances) / (1 / variances).sum())


def test_a_task_warms_up_alone_while_the_others_share_the_rest():
    method = SelfGuided("magnitude", floor=0.0, warmup=2)
    gram = torch.diag(torch.tensor([1.0, 4.0, 9.0]))
    for step in range(3):
        with method.on_tasks(torch.tensor([0, 1]), 2):
            weights = method.sample_weights(gram[:2, :2], torch.zeros(2, 2))
        assert (weights == 1).all() == (step < 2)
    with method.on_tasks(torch.tensor([0, 1, 2]), 3):
        weights = method.sample_weights(gram, torch.zeros(3, 3))
    assert_close(weights, torch.tensor([4 / 3, 2 / 3, 1.0], dtype=torch.float64))


def test_moments_of_an_absent_task_stay():
    method = fresh("invvar")
    signal, noise = instance(2)
    with method.on_tasks(torch.arange(4), 4):
        method.sample_weights(signal, noise)
    before = method.state_dict()["moments"]
    rest = [0, 2, 3]
    with method.on_tasks(torch.tensor(rest), 4):
        method.sample_weights(5 * signal[rest][:, rest], 3 * noise[rest][:, rest])
    after = method.state_dict()["moments"]
    # Pairs are numbered 00, 01, 10, 11, 02, 12, 20, 21, 22, 03, 13, 23, 30, 31, 32, 33.
    changed = [number for number in range(16) if not torch.equal(before[number], after[number])]
    assert changed == [0, 4, 6, 8, 9, 11, 12, 14, 15]


def test_learning_rates_are_those_by_hand():
    method = fresh("magnitude")
    assert method.learning_rates.shape == (0,)
    magnitudes = torch.tensor([1.0, 2.0, 4.0, 1e6], dtype=torch.float64)
    method.sample_weights(torch.diag(magnitudes**2), torch.zeros(4, 4))
    wanted = (magnitudes.log().mean().exp() / magnitudes).sqrt().clamp(1 / 3, 3)
    assert_close(method.learning_rates, 4 * wanted / wanted.sum())


# Moments on the routes


def by_hand(losses_of, z: Tensor, known: Tensor) -> tuple[Tensor, Tensor]:
    """M and C of batch means over the known samples of per-sample losses, sample by sample: known (K, B) bool."""
    gradients = []
    for task in range(len(known)):
        rows = []
        for sample in range(len(z)):
            point = z.detach()[sample].clone().requires_grad_()
            rows.append(torch.autograd.grad(losses_of(task, point, sample), point)[0])
        gradients.append(torch.stack(rows))
    return of_gradients(gradients, known)


def of_gradients(gradients: list[Tensor], known: Tensor) -> tuple[Tensor, Tensor]:
    """M and C from the gradients of every sample's loss, (B, P) a task.

    Different samples are independent, so that the mean of ⟨g[b], h[c]⟩ over all pairs b ≠ c is the signal, and what
    the means' own product has on top of it is the noise.
    """
    tasks = len(known)
    means = torch.stack([g[k].mean(0) for g, k in zip(gradients, known, strict=True)])
    signal = torch.zeros(tasks, tasks, dtype=means.dtype)
    for i in range(tasks):
        for j in range(tasks):
            pairs = [
                float(gradients[i][b] @ gradients[j][c])
                for b in range(known.shape[1])
                for c in range(known.shape[1])
                if known[i, b] and known[j, c] and b != c
            ]
            signal[i, j] = sum(pairs) / len(pairs)
    return signal, means @ means.T - signal


@pytest.mark.parametrize("missing", [False, True])
def test_moments_are_those_of_single_samples(missing):
    torch.manual_seed(0)
    z = torch.randn(9, 4, dtype=torch.float64, requires_grad=True) * 1
    vectors, targets = torch.randn(3, 4, dtype=torch.float64), torch.randn(3, 9, dtype=torch.float64)
    known = torch.rand(3, 9) > 0.3 if missing else torch.ones(3, 9, dtype=torch.bool)

    def one(task: int, point: Tensor, sample: int) -> Tensor:
        return (point @ vectors[task] - targets[task, sample]).tanh().square()

    losses = [torch.stack([one(k, z[b], b) for b in range(9) if known[k, b]]).mean() for k in range(3)]
    signal, noise = Features(losses, [[], [], []], [z]).moments()
    expected = by_hand(one, z, known)
    assert_close(signal, expected[0], rtol=1e-9, atol=1e-12)
    assert_close(noise, expected[1], rtol=1e-9, atol=1e-12)


def test_the_moments_are_unbiased():
    """Over all batches of two from four gradients a task, each equally likely, they are the true ones on average."""
    torch.manual_seed(0)
    population = torch.randn(3, 4, 2, dtype=torch.float64)
    total = torch.zeros(2, 3, 3, dtype=torch.float64)
    for batch in itertools.product(range(4), repeat=2):
        z = torch.zeros(2, 2, dtype=torch.float64, requires_grad=True) * 1
        losses = [(z * part).sum(1).mean() for part in population[:, batch]]
        total += torch.stack(Features(losses, [[], [], []], [z]).moments()) / 16
    means = population.mean(1)
    centred = (population - means[:, None]).flatten(1)
    assert_close(total[1], centred @ centred.T / 4 / 2)
    assert_close(total[0], means @ means.T)


def last_layers(between: nn.Module, bias: bool = True, inputs: int = 7) -> tuple[nn.Sequential, Tensor]:
    torch.manual_seed(0)
    trunk = nn.Sequential(nn.Linear(3, inputs), nn.Tanh(), nn.Linear(inputs, 5, bias=bias), between).double()
    return trunk, torch.randn(12, 3, dtype=torch.float64)


def sample_losses(z: Tensor, tasks: int, known: Tensor) -> list[list[Tensor]]:
    """Every task's losses of its known samples, others zero."""
    generator = torch.Generator().manual_seed(1)
    vectors = torch.randn(tasks, z.shape[1], generator=generator, dtype=torch.float64).to(z)
    targets = torch.randn(tasks, len(z), generator=generator, dtype=torch.float64).to(z)
    values = (z @ vectors.T - targets.T).tanh().square().T
    return [[value if there else value * 0 for value, there in zip(*pair, strict=True)]
            for pair in zip(values, known, strict=True)]  # fmt: skip


def on_last_layer(trunk: nn.Sequential, x: Tensor, tasks: int, known: Tensor) -> tuple[LastLayer, list[Tensor]]:
    """The route, and every sample's gradients of the last layer by autograd: (B, P) a task."""
    z = trunk(x)
    single = sample_losses(z, tasks, known)
    losses = [torch.stack(row).sum() / int(there.sum()) for row, there in zip(single, known, strict=True)]
    layer = last_layer([z])
    gradients = []
    for row in single:
        each = [torch.autograd.grad(value, layer, retain_graph=True, materialize_grads=True) for value in row]
        gradients.append(torch.stack([torch.cat([part.flatten() for part in parts]) for parts in each]))
    return LastLayer(losses, [[] for _ in losses], [z], layer, samples=True), gradients


@pytest.mark.parametrize("missing", [False, True])
@pytest.mark.parametrize("bias", [False, True])
@pytest.mark.parametrize("tasks", [2, 4])
@pytest.mark.parametrize("between", [nn.Identity(), nn.ReLU(), nn.LayerNorm(5, elementwise_affine=False)], ids=repr)
def test_moments_of_the_last_layer_are_those_of_single_samples_gradients_of_it(between, tasks, bias, missing):
    trunk, x = last_layers(between, bias)
    known = torch.rand(tasks, 12) > 0.3 if missing else torch.ones(tasks, 12, dtype=torch.bool)
    route, gradients = on_last_layer(trunk, x, tasks, known)
    assert not route.hindrance
    signal, noise = of_gradients(gradients, known)
    assert_close(route.moments()[0], signal, rtol=1e-9, atol=1e-12)
    assert_close(route.moments()[1], noise, rtol=1e-9, atol=1e-12)
    assert_close(route.gram(), signal + noise, rtol=1e-9, atol=1e-12)
    route.keep([1])
    assert_close(route.moments()[1], noise[1:2, 1:2], rtol=1e-9, atol=1e-12)


def test_wide_inputs_are_projected_and_the_noise_stays_a_covariance():
    trunk, x = last_layers(nn.ReLU(), inputs=400)
    known = torch.ones(3, 12, dtype=torch.bool)
    route, gradients = on_last_layer(trunk, x, 3, known)
    signal, noise = of_gradients(gradients, known)
    for found, true in ((route.moments()[1], noise), (route.gram(), signal + noise)):
        assert not torch.equal(found, true)
        assert (found - true).norm() < 0.5 * true.norm()
    assert torch.linalg.eigvalsh(route.moments()[1]).min() >= 0


@pytest.mark.parametrize("name", ["convolution", "tokens", "twice"])
def test_other_last_layers_have_the_moments_at_the_features_and_say_so_once(name, caplog):
    torch.manual_seed(0)
    heads = nn.ModuleDict({task: nn.Linear(5, 1) for task in "abc"})
    layer = nn.Linear(5, 5)
    convolution = nn.Sequential(nn.Unflatten(1, (1, 5)), nn.Conv1d(1, 5, 3), nn.AdaptiveAvgPool1d(1), nn.Flatten())
    x, tokens = torch.randn(16, 5), torch.randn(16, 3, 5)
    features = {
        "convolution": lambda: convolution(x),
        "tokens": lambda: layer(tokens).mean(1),
        "twice": lambda: layer(layer(x).tanh()),
    }[name]
    balancer = motet.Balancer(fresh(), route="last-layer")
    with caplog.at_level("INFO", logger="motet"):
        for _ in range(2):
            z = features()
            losses = losses_of(heads, z)
            seen = Features([*losses.values()], [[]] * 3, [z], retain=True, samples=True)
            step = balancer.backward(losses, features=z)
    assert_close(step.gram, seen.factor * seen.gram(), rtol=1e-5, atol=1e-9)
    assert len([record for record in caplog.records if "moments at the features" in record.message]) == 1


@pytest.mark.parametrize("route", ["features", "last-layer"])
def test_samples_that_are_alike_have_no_noise(route):
    torch.manual_seed(0)
    trunk, heads = nn.Linear(3, 200), nn.ModuleDict({name: nn.Linear(200, 1) for name in "abc"})
    z = trunk(torch.randn(3).expand(16, 3))
    losses = [head(z).square().mean() for head in heads.values()]
    options = {"layer": last_layer([z])} if route == "last-layer" else {}
    kind = LastLayer if route == "last-layer" else Features
    signal, noise = kind(losses, [[], [], []], [z], samples=True, **options).moments()
    assert (noise == 0).all()
    assert (signal.diagonal() > 0).all()


def test_two_weights_that_go_round_in_circles_are_found_all_the_same():
    for seed in range(100):
        generator = torch.Generator().manual_seed(seed)
        deviations, mean = (torch.randn(2, 4, generator=generator, dtype=torch.float64) for _ in range(2))
        noise, row = deviations @ deviations.T, (mean @ mean.T).sum(1)
        weights, converged = minimise_above_floor(noise, 0.1, row)
        assert converged
        share = torch.linspace(0.1, 1.9, 2001, dtype=torch.float64)
        line = torch.stack([share, 2 - share], 1)
        allowed = line[(line - 1) @ row >= -1e-9 * row.abs().max()]
        best = (allowed @ noise * allowed).sum(1).min()
        assert weights @ noise @ weights <= best * (1 + 1e-5)
        assert (weights - 1) @ row >= -1e-9 * row.abs().max()


def model(seed: int = 0) -> tuple[nn.Module, nn.ModuleDict, Tensor]:
    torch.manual_seed(seed)
    heads = nn.ModuleDict({name: nn.Linear(5, 1) for name in "abc"})
    return nn.Sequential(nn.Linear(3, 5), nn.Tanh()), heads, torch.randn(16, 3)


def losses_of(heads: nn.ModuleDict, z: Tensor, seed: int = 0) -> dict[str, Tensor | None]:
    generator = torch.Generator().manual_seed(seed)
    return {
        name: (head(z)[:, 0] - torch.randn(len(z), generator=generator)).square().mean() for name, head in heads.items()
    }


@pytest.mark.parametrize("route", ["auto", "features", "last-layer"])
def test_the_trunk_gets_the_weighted_sum_and_the_heads_their_own(route):
    trunk, heads, x = model()
    step = motet.Balancer(fresh(), route=route).backward(losses_of(heads, z := trunk(x)), features=z)
    assert step.cost.route == ("last-layer" if route == "auto" else route)
    assert step.cost.trunk_backwards <= 2
    found = trunk[0].weight.grad
    weights = step.weights
    assert not (weights == 1).all()
    again = losses_of(heads, trunk(x))
    expected = torch.autograd.grad(
        sum(w.float() * loss for w, loss in zip(weights, again.values(), strict=True)), trunk[0].weight
    )
    assert_close(found, expected[0], rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("route", ["exact", "probe", "disjoint"])
def test_routes_without_samples_say_what_to_use(route):
    with pytest.raises(ValueError, match="noise between samples.*features"):
        motet.Balancer("self-guided", route=route)


def test_shared_parameters_alone_say_what_to_pass():
    trunk, heads, x = model()
    with pytest.raises(ValueError, match="features=z"):
        motet.Balancer("self-guided").backward(losses_of(heads, trunk(x)), shared=trunk)


def test_what_needs_the_exact_route_is_refused():
    with pytest.raises(ValueError, match="audit_every"):
        motet.Balancer("self-guided", audit_every=5)
    with pytest.raises(ValueError, match="on_gradients"):
        motet.Balancer("self-guided", on_gradients=lambda *_: None)


def test_features_of_other_batches_are_refused():
    trunk, heads, x = model()
    first, second = trunk(x), trunk(x[:7])
    losses = {
        "a": heads["a"](first).square().mean() + heads["a"](second).square().mean(),
        "b": heads["b"](first).mean(),
    }
    with pytest.raises(ValueError, match="7 and 16 rows"):
        motet.Balancer("self-guided").backward(losses, features=[first, second])


def test_several_features_of_one_batch_are_one():
    trunk, heads, x = model()
    z = trunk(x)
    left, right = z[:, :2] * 1, z[:, 2:] * 1
    joined = losses_of(heads, torch.cat([left, right], 1))
    split = Features(list(joined.values()), [[], [], []], [left, right]).moments()
    whole = Features(list(losses_of(heads, z).values()), [[], [], []], [z]).moments()
    for one, other in zip(split, whole, strict=True):
        assert_close(one, other, rtol=1e-5, atol=1e-8)


def test_a_batch_of_one_sample_teaches_nothing():
    trunk, heads, x = model()
    balancer = motet.Balancer(fresh())
    step = balancer.backward(losses_of(heads, z := trunk(x[:1])), features=z)
    assert (step.weights == 1).all()
    assert (balancer.method.state_dict()["moments"] == 0).all()


def test_learning_rates_come_by_name_and_an_absent_task_keeps_its_own():
    trunk, heads, x = model()
    balancer = motet.Balancer(fresh(), tasks=["a", "b", "c"])
    assert motet.Balancer("mgda").learning_rates is None
    losses = losses_of(heads, z := trunk(x))
    balancer.backward(losses | {"c": None}, features=z)
    assert float(balancer.learning_rates["c"]) == 1
    balancer.backward(losses_of(heads, z := trunk(x)), features=z)
    assert balancer.learning_rates.keys() == ("a", "b", "c")
    assert_close(balancer.learning_rates.sum(), torch.tensor(3.0, dtype=torch.float64))


def test_wrappers_hand_the_noise_on():
    signal, noise = instance(3)
    plain = fresh("invvar").sample_weights(signal, noise)
    assert_close(EMA(fresh("invvar")).sample_weights(signal, noise), plain)
    assert_close(Every(3, fresh("invvar")).sample_weights(signal, noise), plain)
    assert_close(LogLosses(fresh("invvar")).sample_weights(signal, noise), plain)
    r = torch.linspace(1, 2, len(signal), dtype=torch.float64)
    scale = (r / r.mean())[:, None] * (r / r.mean())
    preferred = Preference(fresh("invvar"), r).sample_weights(signal, noise)
    assert_close(preferred, fresh("invvar").sample_weights(signal * scale, noise * scale) * r / r.mean())
    assert EMA(fresh()).samples


def test_twins_share_their_weight():
    noise = torch.tensor([[1.0, 1.0, 0.0], [1.0, 1.0, 0.0], [0.0, 0.0, 1.0]], dtype=torch.float64)
    weights, converged = minimise_above_floor(noise, 0.0)
    assert converged
    assert_close(weights, torch.tensor([0.75, 0.75, 1.5], dtype=torch.float64), rtol=1e-5, atol=0)


@pytest.mark.parametrize(
    "options", [{"mode": "best"}, {"tau": 1.5}, {"floor": -0.1}, {"floor": 1.1}, {"beta": 1.0}, {"warmup": -1}]
)
def test_an_option_out_of_range_is_named(options):
    (option,) = options
    with pytest.raises(ValueError, match=option):
        SelfGuided(**options)
