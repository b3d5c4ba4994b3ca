"""momentum_report: shares against their definition, updates against runs of their own, and training left alone."""

import copy
import gc
import json
import math

import pytest
import torch
from torch.nn import Parameter
from torch.optim.optimizer import register_optimizer_step_post_hook
from torch.testing import assert_close

from motet import Balancer
from motet.optim import APTSGD, APTAdamW, APTMuon, Hybrid, MomentumRecorder, RankOne, momentum_report, muon

SHAPES = ((6, 4), (3, 5))


def hybrid(params, **options):
    return Hybrid([{"params": params[:1], "optimizer": "muon"}, {"params": params[1:]}], muon=options, adamw=options)


LINEAR = {
    "sgd": lambda p: torch.optim.SGD(p, lr=0.1),
    "sgd heavy ball": lambda p: torch.optim.SGD(p, lr=0.1, momentum=0.8),
    "sgd dampened": lambda p: torch.optim.SGD(p, lr=0.1, momentum=0.8, dampening=0.3),
    "sgd nesterov": lambda p: torch.optim.SGD(p, lr=0.1, momentum=0.8, nesterov=True),
    "adam": lambda p: torch.optim.Adam(p, lr=0.1),
    "adamw": lambda p: torch.optim.AdamW(p, lr=0.1, betas=(0.7, 0.99)),
    "muon": lambda p: torch.optim.Muon(p, lr=0.1),
    "apt-sgd": lambda p: APTSGD(p, lr=0.1),
    "apt-adamw": lambda p: APTAdamW(p, lr=0.1),
    "apt-muon": lambda p: APTMuon(p, lr=0.1),
    "hybrid": lambda p: hybrid(p, lr=0.1, weight_decay=0.1),
}
"""Optimizers whose momentum is a linear function of the gradients."""
OTHERS = {
    "sgd decay": lambda p: torch.optim.SGD(p, lr=0.1, momentum=0.8, weight_decay=0.3, maximize=True),
    "adam decay": lambda p: torch.optim.Adam(p, lr=0.1, weight_decay=0.3, maximize=True),
    "adamw ascent": lambda p: torch.optim.AdamW(p, lr=0.1, maximize=True, weight_decay=0.3),
    "apt-sgd adaptive": lambda p: APTSGD(p, lr=0.1, beta_min=0.2, weight_decay=0.3),
    "apt-adamw adaptive": lambda p: APTAdamW(p, lr=0.1, beta_min=0.2, scope="tensor"),
    "apt-adamw bound": lambda p: APTAdamW(p, lr=0.1, beta_min=0.2, rule="A7", adapt_second=True),
    "apt-muon adaptive": lambda p: APTMuon(p, lr=0.1, beta_min=0.2, reference="momentum", batch=False),
    "apt-muon preserving": lambda p: APTMuon(p, lr=0.1, beta_min=0.2, preserve=0.3, record=True),
    "hybrid adaptive": lambda p: hybrid(p, lr=0.1, beta_min=0.2, weight_decay=0.1),
}
ALL = LINEAR | OTHERS


def parameters(dtype=torch.float64):
    generator = torch.Generator().manual_seed(0)
    return [Parameter(torch.randn(shape, generator=generator, dtype=torch.float64).to(dtype)) for shape in SHAPES]


def jacobian(t, tasks=3):
    """Tasks' gradients of step t, which turn: (tasks, 39)."""
    generator = torch.Generator().manual_seed(100 + t)
    still = torch.Generator().manual_seed(t // 4)
    size = (tasks, sum(math.prod(shape) for shape in SHAPES))
    noise, mean = (torch.randn(size, generator=each, dtype=torch.float64) for each in (generator, still))
    return noise + 2 * mean


def rows(params, row):
    parts = row.split([p.numel() for p in params])
    return [part.view_as(p).to(p.dtype) for part, p in zip(parts, params, strict=True)]


def weighted(t):
    """What a method makes of the tasks: not their sum."""
    return torch.tensor([0.1, 2.0, 0.5], dtype=torch.float64) @ jacobian(t)


def train(params, optimizer, steps, recorder=None, make=weighted, missing=lambda t, j: False):
    for t in steps:
        for j, (p, g) in enumerate(zip(params, rows(params, make(t)), strict=True)):
            p.grad = None if missing(t, j) else g
        if hasattr(optimizer, "task_gradients") and any(group.get("preserve") for group in optimizer.param_groups):
            optimizer.task_gradients(jacobian(t).to(params[0].dtype), params)
        if recorder is not None and recorder.due:
            recorder.tasks(jacobian(t))
        optimizer.step()


def flat(tensors):
    return torch.cat([x.detach().reshape(-1).double() for x in tensors])


def momentum_of(params, optimizer):
    states = [optimizer.state[p] for p in params]
    return flat([state.get("exp_avg", state.get("momentum_buffer")) for state in states])


def bits(x):
    """Nested state as numbers, for ==."""
    if isinstance(x, dict):
        return {name: bits(value) for name, value in x.items()}
    if isinstance(x, list):
        return [bits(value) for value in x]
    return (x.dtype, x.tolist()) if isinstance(x, torch.Tensor) else x


def absent(t, j):
    return (t, j) in ((1, 1), (5, 0), (6, 1))


@pytest.mark.parametrize("missing", [lambda t, j: False, absent])
@pytest.mark.parametrize("name", [name for name in LINEAR if name != "sgd"])
def test_a_share_is_what_the_momentum_would_be_of_that_gradient_alone(name, missing):
    steps, window = 9, 4
    params = parameters()
    optimizer = LINEAR[name](params)
    with MomentumRecorder(optimizer, window=window, every=steps) as recorder:
        train(params, optimizer, range(steps), recorder, missing=missing)
    whole, shares = momentum_of(params, optimizer), []
    for age in range(steps):
        alone, s = parameters(), steps - 1 - age
        other = LINEAR[name](alone)
        train(alone, other, range(steps), make=lambda t, s=s: weighted(t) * (t == s), missing=missing)
        shares.append(float(momentum_of(alone, other) @ whole / (whole @ whole)))
    (step,) = recorder.steps
    assert_close(list(step.shares), shares[:window], rtol=1e-9, atol=1e-12)
    assert_close(step.older, sum(shares[window:]), rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize("missing", [lambda t, j: False, absent])
@pytest.mark.parametrize("name", ALL)
def test_the_shares_of_all_ages_add_up_to_one(name, missing):
    params = parameters()
    optimizer = ALL[name](params)
    with MomentumRecorder(optimizer, window=20, every=10) as recorder:
        train(params, optimizer, range(20), recorder, missing=missing)
    for step in recorder.steps:
        assert len(step.shares) == step.step
        # What is left for older gradients, of which there are none.
        assert abs(step.older) < 1e-9
        assert_close(sum(step.shares), 1.0, rtol=1e-9, atol=1e-9)


def test_a_recorder_that_joins_late_counts_what_it_did_not_see_as_older():
    params = parameters()
    optimizer = torch.optim.Adam(params)
    train(params, optimizer, range(5))
    before = momentum_of(params, optimizer)
    with MomentumRecorder(optimizer, window=8, every=2) as recorder:
        train(params, optimizer, range(5, 7))
    m = momentum_of(params, optimizer)
    assert len(recorder.steps[0].shares) == 2
    assert_close(recorder.steps[0].older, float(0.81 * before @ m / (m @ m)))


@pytest.mark.parametrize(("name", "beta"), [("adam", 0.9), ("adamw", 0.7), ("muon", 0.95), ("apt-sgd", 0.9)])
def test_constant_gradients_have_the_shares_that_beta_says(name, beta):
    params = parameters()
    optimizer = LINEAR[name](params)
    with MomentumRecorder(optimizer, window=5, every=60) as recorder:
        train(params, optimizer, range(60), make=lambda t: weighted(0))
    whole = 1 if name == "apt-sgd" else 1 - beta**60  # averaged SGD starts as the first gradient
    assert_close(list(recorder.steps[0].shares), [(1 - beta) * beta**k / whole for k in range(5)])
    assert_close(list(recorder.steps[0].weights), [(1 - beta) * beta**k for k in range(5)])


def test_shares_of_an_adaptive_momentum_follow_its_own_betas():
    params = parameters()
    optimizer = APTAdamW(params, beta_min=0.1, scope="tensor")
    betas, gradients = [], []
    with MomentumRecorder(optimizer, window=3, every=7) as recorder:
        for t in range(7):
            train(params, optimizer, range(t, t + 1))
            gradients.append([p.grad.clone() for p in params])
            betas.append(optimizer.param_groups[0]["beta"].tolist())
    step, m = recorder.steps[0], momentum_of(params, optimizer)
    assert len({beta for row in betas[1:] for beta in row}) == 12
    sizes = [p.numel() for p in params]
    for k in range(3):
        weights = [(1 - betas[6 - k][j]) * math.prod(betas[s][j] for s in range(7 - k, 7)) for j in range(2)]
        part = flat([w * g for w, g in zip(weights, gradients[6 - k], strict=True)])
        assert_close(step.shares[k], float(part @ m / (m @ m)))
        assert_close(step.weights[k], sum(w * n for w, n in zip(weights, sizes, strict=True)) / sum(sizes))
    assert_close(step.beta, (betas[6][0] * 24 + betas[6][1] * 15) / 39)
    assert_close(step.nominal, 1 - step.beta)


@pytest.mark.parametrize(
    ("name", "nominal"),
    [
        ("sgd", 1.0),
        ("sgd heavy ball", 0.2),
        ("sgd nesterov", 0.36),
        ("adam", 0.1),
        ("muon", 0.0975),
        ("apt-muon", 0.0975),
        ("apt-adamw", 0.1),
        ("hybrid", (24 * 0.0975 + 15 * 0.1) / 39),
    ],
)
def test_the_nominal_weight_of_the_current_gradient(name, nominal):
    params = parameters()
    optimizer = LINEAR[name](params)
    assert_close(momentum_report(optimizer).steps[0].nominal, nominal)
    with MomentumRecorder(optimizer, every=300) as recorder:
        train(params, optimizer, range(300), make=lambda t: weighted(0))
    assert_close(recorder.steps[0].nominal, nominal)
    if name != "hybrid":  # there the longer gradient of one part counts for more
        assert_close(recorder.steps[0].instant, nominal, rtol=1e-5, atol=0)


@pytest.mark.parametrize("name", ["muon", "sgd nesterov"])
def test_the_instant_share_is_that_of_the_momentum_with_nesterovs_correction(name):
    params = parameters()
    optimizer = LINEAR[name](params)
    with MomentumRecorder(optimizer, every=6) as recorder:
        train(params, optimizer, range(6))
    d, m = flat([p.grad for p in params]), momentum_of(params, optimizer)
    u, weight = (0.05 * d + 0.95 * m, 0.0975) if name == "muon" else (d + 0.8 * m, 1.8)
    assert_close(recorder.steps[0].instant, float(weight * d @ u / (u @ u)))


@pytest.mark.parametrize("name", ALL)
def test_cosines_and_counterfactual_are_those_of_runs_with_either_gradient(name):
    """Two runs part in the last step, which the recorder measures: one is given the plain sum there."""
    ours, theirs = parameters(), parameters()
    one, two = ALL[name](ours), ALL[name](theirs)
    with MomentumRecorder(one, every=6) as recorder:
        train(ours, one, range(5), recorder)
        train(theirs, two, range(5))
        before = flat(ours)
        has_momentum = name != "sgd"
        previous = momentum_of(ours, one) if has_momentum else None
        train(ours, one, range(5, 6), recorder)
        train(theirs, two, range(5, 6), make=lambda t: jacobian(t).sum(0))
    group = one.param_groups[0]
    decoupled = "AdamW" in type(one).__name__ or "Muon" in type(one).__name__ or name.startswith("hybrid")
    u = before * (1 - (group["lr"] * group["weight_decay"] if decoupled else 0)) - flat(ours)
    sign = -1 if group.get("maximize") else 1
    d = sign * weighted(5) + (0 if decoupled else group["weight_decay"]) * before
    step = recorder.steps[0]
    assert_close(step.update_norm, float(u.norm()))
    assert_close(step.gradient_norm, float(d.norm()))
    assert_close(step.momentum_norm, float(momentum_of(ours, one).norm()) if has_momentum else step.gradient_norm)
    assert_close(step.cosine_gradient, float(torch.cosine_similarity(u, d, 0)))
    if has_momentum:
        assert_close(step.cosine_momentum, float(torch.cosine_similarity(u, previous, 0)))
    else:
        assert step.cosine_momentum is None
    for k, g in enumerate(jacobian(5)):
        assert_close(step.cosine_tasks[str(k)], float(torch.cosine_similarity(u, sign * g, 0)))
    assert_close(step.counterfactual, float((flat(ours) - flat(theirs)).norm() / u.norm()), rtol=1e-6, atol=1e-9)
    assert step.counterfactual > 1e-3


@pytest.mark.parametrize("name", ALL)
def test_the_plain_sum_itself_changes_nothing(name):
    params = parameters()
    optimizer = ALL[name](params)
    with MomentumRecorder(optimizer, every=2) as recorder:
        train(params, optimizer, range(6), recorder, make=lambda t: jacobian(t).sum(0))
    assert [step.counterfactual for step in recorder.steps] == [0.0, 0.0, 0.0]


def test_the_counterfactual_of_a_part_leaves_the_other_gradients_as_they_were():
    """They share one cosine, so that without them β would be another."""
    params = parameters()
    optimizer = hybrid(params, lr=0.1, beta_min=0.2)
    with MomentumRecorder(optimizer, every=3, parameters=params[1:]) as recorder:
        for t in range(3):
            for p, g in zip(params, rows(params, jacobian(t).sum(0)), strict=True):
                p.grad = g
            recorder.tasks(jacobian(t)[:, 24:])
            optimizer.step()
    assert recorder.steps[0].counterfactual == 0


@pytest.mark.parametrize("batch", [True, False])
def test_the_counterfactual_batches_matrices_as_the_optimizer_does(batch, monkeypatch):
    """A batched product may round in another way than single ones."""
    shapes, real = [], muon.newton_schulz
    monkeypatch.setattr(muon, "newton_schulz", lambda X, *options: shapes.append(X.shape) or real(X, *options))
    params = [Parameter(torch.zeros(6, 4)) for _ in range(3)]
    optimizer = APTMuon(params, batch=batch)
    with MomentumRecorder(optimizer, every=1) as recorder:
        for p in params:
            p.grad = torch.ones_like(p)
        recorder.tasks({"only": [p.grad for p in params]})
        optimizer.step()
    half = len(shapes) // 2
    assert half == (1 if batch else 3)
    assert shapes[:half] == shapes[half:]


def test_the_counterfactual_of_averaged_sgd_in_closed_form():
    """u is linear, so that with β = 0.9 a tenth of the gradients' difference arrives."""
    params = parameters()
    optimizer = APTSGD(params, lr=0.1)
    with MomentumRecorder(optimizer, every=5) as recorder:
        train(params, optimizer, range(5), recorder)
    change = 0.1 * (weighted(4) - jacobian(4).sum(0)).norm() / momentum_of(params, optimizer).norm()
    assert_close(recorder.steps[0].counterfactual, float(change))


@pytest.mark.parametrize("every", [1, 3])
@pytest.mark.parametrize("name", ALL)
def test_training_is_the_same_bit_for_bit(name, every):
    ours, theirs = parameters(torch.float32), parameters(torch.float32)
    one, two = ALL[name](ours), ALL[name](theirs)
    with MomentumRecorder(one, window=2, every=every) as recorder:
        torch.manual_seed(0)
        train(ours, one, range(9), recorder, missing=absent)
        drawn = torch.rand(())
    torch.manual_seed(0)
    train(theirs, two, range(9), missing=absent)
    assert torch.equal(drawn, torch.rand(()))
    assert len(recorder.steps) == 9 // every
    for p, q in zip(ours, theirs, strict=True):
        assert torch.equal(p, q)
        assert p.grad is q.grad is None or torch.equal(p.grad, q.grad)
    assert bits(one.state_dict()) == bits(two.state_dict())


@pytest.mark.parametrize("positional", [True, False])
def test_a_closure_is_called_once_and_measured_with_the_gradients_that_it_makes(positional):
    ours, theirs, calls = parameters(), parameters(), []
    one, two = APTAdamW(ours, beta_min=0.5), APTAdamW(theirs, beta_min=0.5)
    recorder, expected = MomentumRecorder(one, every=2), MomentumRecorder(two, every=2)
    for t in range(4):

        def closure(t=t):
            calls.append(torch.is_grad_enabled())
            for p, g in zip(ours, rows(ours, weighted(t)), strict=True):
                p.grad = g
            recorder.tasks(jacobian(t))
            return t

        assert (one.step(closure) if positional else one.step(closure=closure)) == t
    train(theirs, two, range(4), expected)
    assert calls == [True] * 4
    assert recorder.steps == expected.steps


def test_only_a_window_of_gradients_is_held_and_only_before_a_measured_step():
    p = Parameter(torch.zeros(13, 17))
    optimizer = APTAdamW([p], beta_min=0.5)
    p.grad = torch.ones(13, 17)
    optimizer.step()

    def held():
        """Tensors of the parameter's size that were made from here on."""
        return sum(type(x) is torch.Tensor and x.shape == p.shape for x in gc.get_objects())

    gc.collect()
    gc.freeze()
    try:
        counts = []
        with MomentumRecorder(optimizer, window=3, every=10) as recorder:
            for _ in range(20):
                optimizer.step()
                counts.append(held())
        assert counts == ([0] * 7 + [1, 2, 0]) * 2
        assert len(recorder.steps) == 2
        with MomentumRecorder(optimizer, window=4, every=3):
            for _ in range(9):
                optimizer.step()
                assert held() <= 4
        assert held() == 0
    finally:
        gc.unfreeze()


def test_a_step_that_is_not_measured_copies_nothing(monkeypatch):
    params = parameters()
    optimizer = torch.optim.Adam(params)
    recorder = MomentumRecorder(optimizer, window=2, every=10)
    monkeypatch.setattr(MomentumRecorder, "_look", lambda self: pytest.fail("looked at a step in between"))
    train(params, optimizer, range(8))
    assert recorder.count == 8


def test_recorders_with_overlapping_windows_agree_with_one_for_each_step():
    params = parameters()
    optimizer = APTMuon(params, beta_min=0.3)
    often, seldom = MomentumRecorder(optimizer, window=5, every=1), MomentumRecorder(optimizer, window=5, every=3)
    train(params, optimizer, range(12))
    assert seldom.steps == often.steps[2::3]


def test_one_task_is_helped_by_its_own_gradient_and_loses_nothing():
    params = parameters()
    optimizer = torch.optim.SGD(params, lr=0.1)
    with MomentumRecorder(optimizer, every=2) as recorder:
        for t in range(2):
            for p, g in zip(params, rows(params, jacobian(t, 1)[0]), strict=True):
                p.grad = g
            recorder.tasks({"only": [p.grad for p in params]})
            optimizer.step()
    (step,) = recorder.steps
    assert_close(step.cosine_tasks, {"only": 1.0})
    assert step.counterfactual == 0
    assert_close((step.instant, step.cosine_gradient, step.older), (1.0, 1.0, 0.0))


def test_parameters_that_a_step_leaves_alone_do_not_count():
    """A second parameter without gradients, with momentum of its own, changes no number; nor does an empty one."""
    alone, both = parameters()[:1], parameters()
    both.append(Parameter(torch.zeros(0, 4, dtype=torch.float64)))
    one, two = APTMuon(alone, lr=0.1), APTMuon(both, lr=0.1)
    for params, optimizer in ((alone, one), (both, two)):
        for p in params:
            p.grad = torch.ones_like(p)
        optimizer.step()
    first, second = MomentumRecorder(one, every=3), MomentumRecorder(two, every=3)
    for t in range(3):
        g = jacobian(t)[0, :24].view(6, 4)
        alone[0].grad, both[0].grad, both[1].grad, both[2].grad = g, g, None, torch.zeros(0, 4).double()
        first.tasks({"a": [g]})
        second.tasks({"a": [g, None, None]})
        one.step()
        two.step()
    assert first.steps == second.steps
    for p in both:
        p.grad = None
    for _ in range(3):
        two.step()
    nothing = second.steps[1]
    assert nothing.shares is nothing.older is nothing.instant is nothing.cosine_gradient is nothing.beta is None
    assert nothing.update_norm == 0


def test_a_measure_of_some_parameters_is_that_of_the_part_alone():
    params, lonely = parameters(), parameters()
    optimizer, alone = hybrid(params, lr=0.1), torch.optim.AdamW(lonely[1:], lr=0.1)
    recorder = MomentumRecorder(optimizer, every=4, parameters=params[1:])
    expected = MomentumRecorder(alone, every=4)
    for t in range(4):
        for p, q, g in zip(params, lonely, rows(params, weighted(t)), strict=True):
            p.grad, q.grad = g, g.clone()
        recorder.tasks(jacobian(t)[:, 24:])
        expected.tasks(jacobian(t)[:, 24:])
        optimizer.step()
        alone.step()
    ours, theirs = (copy.copy(vars(each.steps[0])) for each in (recorder, expected))
    assert ours.pop("betas") == (None, 0.9)
    assert theirs.pop("betas") == (0.9,)
    assert ours.pop("cosine_tasks") == pytest.approx(theirs.pop("cosine_tasks"))
    assert ours.pop("effective_ranks") is theirs.pop("effective_ranks") is None
    assert_close(ours, theirs)


def test_a_zero_or_broken_gradient_leaves_undefined_what_it_cannot_define():
    for value in (0.0, math.nan, math.inf):
        p = Parameter(torch.ones(4))
        optimizer = torch.optim.SGD([p], lr=0.1, momentum=0.9)
        with MomentumRecorder(optimizer, every=1) as recorder:
            p.grad = torch.full_like(p, value)
            recorder.tasks({"a": [p.grad], "b": [None]})
            optimizer.step()
        (step,) = recorder.steps
        assert step.shares is step.older is step.instant is step.cosine_gradient is step.counterfactual is None
        assert step.cosine_tasks == {"a": None, "b": None}
        json.dumps(momentum_report(recorder).to_dict(), allow_nan=False)


@pytest.mark.parametrize("size", [1e-12, 1e12])
def test_shares_and_cosines_do_not_depend_on_the_losses_scale(size):
    found = []
    for scale in (1.0, size):
        params = parameters()
        optimizer = torch.optim.SGD(params, lr=1 / scale, momentum=0.9)
        with MomentumRecorder(optimizer, every=4) as recorder:
            train(params, optimizer, range(4), make=lambda t, scale=scale: scale * weighted(t))
        step = recorder.steps[0]
        found.append([*step.shares, step.older, step.instant, step.cosine_gradient, step.cosine_momentum])
    assert_close(*found)


def test_effective_ranks_are_the_means_of_those_that_muon_recorded():
    params = parameters()
    optimizer = APTMuon(params, preserve=0.3, record=True)
    with MomentumRecorder(optimizer, every=3) as recorder:
        train(params, optimizer, range(3), recorder)
    ranks = optimizer.effective_ranks
    for i, name in enumerate(("plain", "preserved", "update")):
        mean = float(sum(getattr(ranks[p], name).mean() for p in params) / 2)
        assert_close(recorder.steps[0].effective_ranks[i], mean)
    assert "effective rank" in str(momentum_report(recorder))


def test_rank_one_summaries_of_the_tasks_reach_the_counterfactual_too():
    params = parameters()[:1]
    optimizer = APTMuon(params, preserve=0.5)
    left, right = torch.randn(2, 6, dtype=torch.float64), torch.randn(2, 4, dtype=torch.float64)
    with MomentumRecorder(optimizer, every=1) as recorder:
        params[0].grad = torch.ones(6, 4, dtype=torch.float64)
        optimizer.task_gradients({params[0]: RankOne(left, right)})
        recorder.tasks({"a": [params[0].grad]})
        optimizer.step()
    assert recorder.steps[0].counterfactual == 0


def test_the_counterfactual_tells_nobody():
    """Neither hooks on all optimizers' steps nor a noise hook may notice, and no warning is said twice."""
    seen, asked = [], []
    params = parameters()
    optimizer = APTSGD(params, beta_min=0.1, rule="A7")
    handle = register_optimizer_step_post_hook(lambda *_: seen.append(1))
    try:
        with MomentumRecorder(optimizer, every=1) as recorder:
            train(params, optimizer, range(3), recorder)
            optimizer.adaptive.noise_hook = lambda: asked.append(1) or torch.tensor(1.0)
            train(params, optimizer, range(3), recorder)
    finally:
        handle.remove()
    assert len(seen) == 6
    assert len(asked) == 3
    assert [step.counterfactual is None for step in recorder.steps] == [False] * 3 + [True] * 3


def test_a_failed_step_is_not_counted_and_the_next_is_measured_in_its_place():
    params = parameters()
    optimizer = torch.optim.Adam(params)
    recorder = MomentumRecorder(optimizer, every=2)
    train(params, optimizer, range(1))

    def fails():
        raise RuntimeError("no loss today")

    with pytest.raises(RuntimeError, match="no loss"):
        optimizer.step(fails)
    train(params, optimizer, range(1, 2))
    assert [step.step for step in recorder.steps] == [2]
    assert abs(recorder.steps[0].older) < 1e-12


def test_tasks_are_those_of_one_step():
    params = parameters()
    optimizer = torch.optim.Adam(params)
    recorder = MomentumRecorder(optimizer, every=2)
    assert not recorder.due
    recorder.tasks(jacobian(0))  # for a step that is not due
    train(params, optimizer, range(1))
    assert recorder.due
    train(params, optimizer, range(1, 2))
    assert recorder.steps[0].cosine_tasks == {}
    train(params, optimizer, range(2, 3), recorder)
    recorder.tasks(jacobian(3), names=["a", "b", "c"])
    optimizer.step()
    assert list(recorder.steps[1].cosine_tasks) == ["a", "b", "c"]
    train(params, optimizer, range(4, 6))
    assert recorder.steps[2].cosine_tasks == {}
    assert recorder.steps[2].counterfactual is None


class Shared(torch.nn.Module):
    """A trunk of two layers under two heads."""

    def __init__(self):
        super().__init__()
        torch.manual_seed(0)
        self.trunk = torch.nn.Sequential(
            torch.nn.Linear(6, 5), torch.nn.Tanh(), torch.nn.Linear(5, 4), torch.nn.Tanh()
        ).double()
        self.heads = torch.nn.ModuleDict({"a": torch.nn.Linear(4, 1), "b": torch.nn.Linear(4, 1)}).double()

    def losses(self, z):
        return {task: (head(z) - 1).pow(2).mean() for task, head in self.heads.items()}


def by_features(scaler=None, change=lambda model: None, optimizer=lambda p: torch.optim.SGD(p, lr=0.01, momentum=0.9)):
    """The recorder after steps on the plain sum from features, the tasks' gradients as autograd has them, and u."""
    model = Shared()
    optimizer = optimizer(model.parameters())
    recorder = MomentumRecorder(optimizer, every=2, parameters=model.trunk.parameters(), names=("a", "b"))
    balancer = Balancer("sum", on_gradients=recorder.task_gradients)
    truth, moved = [], []
    for _ in range(6):
        z = model.trunk(torch.randn(8, 6, dtype=torch.float64))
        losses = model.losses(z)
        trunk = list(model.trunk.parameters())
        truth.append([flat(torch.autograd.grad(loss, trunk, retain_graph=True)) for loss in losses.values()])
        before = flat(trunk)
        optimizer.zero_grad()
        balancer.backward({t: loss if scaler is None else scaler.scale(loss) for t, loss in losses.items()}, features=z)
        if scaler is not None:
            scaler.unscale_(optimizer)
        change(model)
        optimizer.step() if scaler is None else scaler.step(optimizer)
        if scaler is not None:
            scaler.update()
        moved.append(before - flat(trunk))
    return recorder, truth, moved


@pytest.mark.parametrize("make", [torch.optim.SGD, torch.optim.AdamW])
@pytest.mark.parametrize("scaled", [False, True])
@pytest.mark.parametrize("clipped", [False, True])
def test_a_balancer_hands_over_gradients_that_are_compared_as_they_are_in_the_step(make, scaled, clipped):
    options = {"momentum": 0.9} if make is torch.optim.SGD else {"weight_decay": 0.0}
    recorder, truth, moved = by_features(
        torch.amp.GradScaler("cpu") if scaled else None,
        (lambda model: torch.nn.utils.clip_grad_norm_(model.parameters(), 0.1)) if clipped else lambda model: None,
        lambda p: make(p, lr=0.01, **options),
    )
    for step in recorder.steps:
        cosines = [torch.cosine_similarity(g, moved[step.step - 1], 0) for g in truth[step.step - 1]]
        assert list(step.cosine_tasks) == ["a", "b"]
        assert_close(list(step.cosine_tasks.values()), [float(c) for c in cosines], rtol=1e-6, atol=1e-9)
        assert step.counterfactual < 1e-5
        assert step.reason is None


def test_gradients_changed_by_more_than_one_factor_are_not_compared():
    def clamp(model):
        for p in model.parameters():
            p.grad.clamp_(-0.01, 0.01)

    recorder, _, _ = by_features(change=clamp)
    for step in recorder.steps:
        assert step.cosine_tasks == {"a": None, "b": None}
        assert step.counterfactual is None
        assert "more than one factor" in step.reason
        assert step.cosine_gradient is not None
    assert "of 3 steps neither cosines nor change can be told" in str(momentum_report(recorder))


def test_gradients_of_tasks_may_come_before_the_one_of_the_step_is_written():
    params = parameters()
    optimizer = torch.optim.SGD(params, lr=0.1, momentum=0.9)
    recorder = MomentumRecorder(optimizer, every=1)
    for t in range(3):  # While .grad is still that of the step before.
        recorder.tasks(jacobian(t))
        train(params, optimizer, range(t, t + 1), make=lambda t: jacobian(t).sum(0))
        assert recorder.steps[-1].counterfactual < 1e-12


def test_columns_go_to_the_parameters_they_are_named_for():
    params = parameters()
    optimizer = torch.optim.SGD(params, lr=0.1, momentum=0.9)
    recorder = MomentumRecorder(optimizer, every=1, parameters=params[:1])
    for p, g in zip(params, rows(params, weighted(0)), strict=True):
        p.grad = g
    J = jacobian(0)
    turned = torch.cat([J[:, 24:], J[:, :24]], 1)
    recorder.task_gradients(turned, params[::-1])  # A parameter more, which is passed over.
    optimizer.step()
    assert_close(recorder.steps[0].cosine_tasks["0"], float(torch.cosine_similarity(J[0, :24], weighted(0)[:24], 0)))
    for theirs in (params[1:], []):
        with pytest.raises(ValueError, match="not those of the recorder's parameters: 1 of its 1 have"):
            recorder.task_gradients(J[:, : sum(p.numel() for p in theirs)], theirs)
    whole = MomentumRecorder(optimizer, every=1)
    with pytest.raises(ValueError, match="not those of the recorder's parameters: 1 of its 2 have"):
        whole.task_gradients(J[:, :24], params[:1])
    params[1].grad = None  # What has no part in the step may be missing.
    whole.task_gradients(J[:, :24], params[:1])


def test_a_group_that_joins_later_is_measured_from_then_on():
    params = parameters()
    optimizer = torch.optim.Adam(params[:1])
    recorder = MomentumRecorder(optimizer, every=2)
    train(params[:1], optimizer, range(2), make=lambda t: weighted(t)[:24])
    optimizer.add_param_group({"params": params[1:], "betas": (0.5, 0.9)})
    train(params, optimizer, range(2, 4), recorder)
    assert recorder.steps[0].betas == (0.9,)
    assert recorder.steps[1].betas == (0.9, 0.5)
    assert len(momentum_report(recorder).rows) == 2


def test_the_state_alone_tells_beta_and_nominal_weights_and_no_shares():
    params = parameters()
    optimizer = APTAdamW(params, beta_min=0.2)
    train(params, optimizer, range(5))
    report = momentum_report(optimizer)
    (step,) = report.steps
    beta = float(optimizer.param_groups[0]["beta"][0])
    assert not report.recorded
    assert 0.2 < beta < 0.9
    assert_close(step.beta, beta)
    assert_close(list(step.weights), [(1 - beta) * beta**k for k in range(8)])
    assert_close(step.momentum_norm, float(momentum_of(params, optimizer).norm()), rtol=1e-6, atol=0)
    assert step.step is step.shares is step.instant is step.cosine_gradient is None
    assert "attach a MomentumRecorder" in str(report)
    assert momentum_report(torch.optim.Muon(params)).steps[0].momentum_norm == 0


def test_an_optimizer_answers_through_its_one_recorder():
    params = parameters()
    optimizer = torch.optim.Adam(params)
    with MomentumRecorder(optimizer, every=2) as recorder:
        assert momentum_report(optimizer).steps == ()
        assert "no step measured yet" in str(momentum_report(optimizer))
        train(params, optimizer, range(2))
        assert momentum_report(optimizer) == momentum_report(recorder)
        with MomentumRecorder(optimizer), pytest.raises(ValueError, match="2 recorders .* the one that you mean"):
            momentum_report(optimizer)
    assert not momentum_report(optimizer).recorded
    assert momentum_report(recorder).recorded
    assert not optimizer._optimizer_step_pre_hooks
    assert not optimizer._optimizer_step_post_hooks
    train(params, optimizer, range(5))
    assert not recorder.due
    assert len(recorder.steps) == 1
    recorder.remove()


def test_the_report_is_plain_numbers_in_rows_that_all_have_the_same_keys():
    params = parameters()
    optimizer = hybrid(params, lr=0.1, beta_min=0.3)
    with MomentumRecorder(optimizer, window=3, every=2) as recorder:
        train(params, optimizer, range(2))
        train(params, optimizer, range(2, 6), recorder)
    report = momentum_report(recorder)
    first, second, third = report.rows
    assert first.keys() == second.keys() == third.keys()
    assert first["share_2"] is first["cosine_task_1"] is first["counterfactual"] is None
    assert second["cosine_task_1"] == recorder.steps[1].cosine_tasks["1"]
    assert second["beta_group_0"] == recorder.steps[1].betas[0]
    assert_close(third["share_0"] + third["share_1"] + third["share_2"] + third["older"], 1.0)
    assert report.median("counterfactual") == (second["counterfactual"] + third["counterfactual"]) / 2
    again = json.loads(json.dumps(report.to_dict(), allow_nan=False))
    assert again == report.to_dict()
    assert again["steps"][2]["shares"] == list(recorder.steps[2].shares)
    with pytest.raises(AttributeError):
        report.numbers = 0


def test_the_text_says_the_share_the_weight_and_every_task():
    params = parameters()
    optimizer = torch.optim.Adam(params)
    with MomentumRecorder(optimizer, window=2, every=1) as recorder:
        for t in range(30):
            for p, g in zip(params, rows(params, weighted(t)), strict=True):
                p.grad = g
            recorder.tasks(jacobian(t), names=["depth", "normals", "edges"])
            optimizer.step()
    text = str(momentum_report(recorder))
    assert "momentum of Adam, 39 numbers: 30 steps from 1 to 30" in text
    assert f"{momentum_report(recorder).median('instant'):.3f} of what the update is made of (0.1000 by β" in text
    assert "depth" in text
    assert "given the plain sum instead" in text
    table = text.split("\n\n")[-1].splitlines()
    assert len(table) == 13
    assert table[0].split()[:3] == ["step", "beta", "instant"]
    assert table[1].split()[0] == "1"
    assert table[-1].split()[0] == "30"
    assert len({len(line) for line in table}) == 1


@pytest.mark.parametrize(
    ("given", "message"),
    [
        (lambda p: {"window": 0}, "window must be a whole number of at least 1, not 0"),
        (lambda p: {"every": 2.5}, "every must be a whole number of at least 1, not 2.5"),
        (lambda p: {"names": ("a", "a")}, "names must be different names, one a task"),
        (lambda p: {"parameters": []}, "parameters must be one or more of the optimizer's own"),
        (lambda p: {"parameters": [p[0], Parameter(torch.ones(1))]}, "parameters must be one or more of the"),
    ],
)
def test_options_out_of_range_are_refused(given, message):
    params = parameters()
    optimizer = torch.optim.Adam(params)
    with pytest.raises(ValueError, match=message):
        MomentumRecorder(optimizer, **given(params))
    assert not optimizer._optimizer_step_pre_hooks


def test_optimizers_of_another_momentum_are_refused():
    p = Parameter(torch.ones(2))
    for make in (MomentumRecorder, momentum_report):
        with pytest.raises(TypeError, match="NAdam is not one of the optimizers .* APTAdamW"):
            make(torch.optim.NAdam([p]))
        with pytest.raises(TypeError, match="complex"):
            make(torch.optim.Adam([Parameter(torch.ones(2, dtype=torch.complex64))]))
    with pytest.raises(TypeError, match="an optimizer or a MomentumRecorder, not list"):
        momentum_report([p])


def test_sparse_and_scaled_gradients_are_refused_before_the_step():
    p = Parameter(torch.ones(4))
    optimizer = torch.optim.SGD([p], lr=0.1, momentum=0.9)
    MomentumRecorder(optimizer, every=1)
    p.grad = torch.ones(4).to_sparse()
    with pytest.raises(TypeError, match="sparse"):
        optimizer.step()
    p.grad = torch.ones(4)
    optimizer.grad_scale = torch.tensor(2.0)
    with pytest.raises(ValueError, match=r"unscale_\(optimizer\) before"):
        optimizer.step()
    assert torch.equal(p, torch.ones(4))


@pytest.mark.parametrize(
    ("given", "names", "message"),
    [
        (torch.ones(2, 38), None, r"must be \(K, 39\), not \(2, 38\)"),
        (torch.ones(39), None, r"must be \(K, 39\), not \(39,\)"),
        (torch.ones(0, 39), None, r"must be \(K, 39\), not \(0, 39\)"),
        (torch.ones(2, 39), ["a"], "names must be 2 different names"),
        (torch.ones(2, 39), ["a", "a"], "names must be 2 different names"),
        ({}, None, "at least one"),
        ({"a": [torch.ones(6, 4), None]}, ["a"], "names are for a Jacobian"),
        ({"a": [torch.ones(6, 4)]}, None, "task 'a' must have one gradient, or None, for each of the 2"),
        ({"a": [torch.ones(6, 4), torch.ones(4)]}, None, "task 'a' must have one gradient"),
    ],
)
def test_tasks_gradients_of_the_wrong_shape_are_refused_by_name(given, names, message):
    recorder = MomentumRecorder(torch.optim.Adam(parameters()))
    with pytest.raises(ValueError, match=message):
        recorder.tasks(given, names)
