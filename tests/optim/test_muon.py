"""APTMuon against torch's Muon, against its own recurrence, and in every part of an optimizer's life."""

import copy
import logging

import pytest
import torch
from torch import nn
from torch.testing import assert_close

from motet.optim.muon import APTMuon
from motet.optim.newton_schulz import newton_schulz
from motet.optim.preservation import RankOne, preserved_input

SHAPES = [(6, 4), (4, 6), (5, 5), (5, 5), (1, 7), (8, 2, 3, 3)]
EXACT = {"weight_decay": 0.0, "ns_dtype": "float32"}

needs_muon = pytest.mark.skipif(not hasattr(torch.optim, "Muon"), reason="this torch has no Muon")


def numbers(shape, seed=0):
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


def parameters(shapes=SHAPES, seed=0):
    return [nn.Parameter(numbers(shape, seed + i)) for i, shape in enumerate(shapes)]


def train(optimizer, steps=6, start=0, scale=1.0, flip=False):
    """Steps along a fixed series of gradients."""
    params = [p for group in optimizer.param_groups for p in group["params"]]
    for t in range(start, start + steps):
        for i, p in enumerate(params):
            sign = -1 if flip and t % 2 else 1
            p.grad = scale * sign * (numbers(p.shape, 100 + i) + 0.3 * numbers(p.shape, 1000 * t + i)).to(p)
        optimizer.step()
    return [p.detach().clone() for p in params]


@needs_muon
@pytest.mark.parametrize("beta_min", [None, 0.9])
@pytest.mark.parametrize("batch", [False, None, True])
@pytest.mark.parametrize(
    "options",
    [
        {},
        {"nesterov": False},
        {"adjust_lr_fn": "match_rms_adamw", "weight_decay": 0.0},
        {"adjust_lr_fn": "original", "ns_steps": 3, "eps": 1e-5, "ns_coefficients": (2.0, -1.5, 0.5)},
    ],
    ids=["default", "plain momentum", "rms", "other iteration"],
)
def test_without_adaptation_it_is_torchs_muon(options, batch, beta_min):
    matrices = [shape for shape in SHAPES if len(shape) == 2]
    theirs = train(torch.optim.Muon(parameters(matrices), lr=0.02, momentum=0.9, **options))
    ours = train(APTMuon(parameters(matrices), lr=0.02, momentum=0.9, beta_min=beta_min, batch=batch, **options))
    for mine, reference in zip(ours, theirs, strict=True):
        assert_close(mine, reference, rtol=0 if batch is False else 1e-6, atol=1e-6 if batch is False else 2e-3)


@needs_muon
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16])
def test_one_by_one_it_is_torchs_muon_bit_for_bit(dtype):
    matrices = [p.detach().to(dtype) for p in parameters([(6, 4), (4, 6), (40, 30)])]
    theirs = train(torch.optim.Muon([nn.Parameter(p.clone()) for p in matrices]))
    ours = train(APTMuon([nn.Parameter(p.clone()) for p in matrices], batch=False))
    assert all(torch.equal(a, b) for a, b in zip(ours, theirs, strict=True))


@needs_muon
def test_it_goes_on_from_torchs_state():
    matrices = SHAPES[:4]
    theirs = torch.optim.Muon(parameters(matrices), lr=0.02)
    train(theirs, 3)
    ours = APTMuon([p.detach().clone().requires_grad_() for p in theirs.param_groups[0]["params"]], batch=False)
    ours.load_state_dict(copy.deepcopy(theirs.state_dict()))
    for a, b in zip(train(ours, 3, 3), train(theirs, 3, 3), strict=True):
        assert torch.equal(a, b)


def test_the_recurrence_over_two_steps_by_hand():
    p = nn.Parameter(torch.zeros(2, 2))
    optimizer = APTMuon([p], lr=0.1, momentum=0.9, beta_min=0.5, weight_decay=0.2, ns_dtype="float32")
    first, second = torch.tensor([[3.0, 0.0], [0.0, 4.0]]), torch.tensor([[0.0, 5.0], [0.0, 0.0]])
    p.grad = first
    optimizer.step()
    M = 0.1 * first
    expected = -0.1 * newton_schulz(0.1 * first + 0.9 * M, dtype=torch.float32)
    assert_close(p.detach(), expected)
    p.grad = second  # At a right angle to the first: A1 puts β half way.
    optimizer.step()
    M = 0.7 * M + 0.3 * second
    expected = (1 - 0.1 * 0.2) * expected - 0.1 * newton_schulz(0.3 * second + 0.7 * M, dtype=torch.float32)
    assert_close(p.detach(), expected)


def test_momentum_is_short_after_a_turn_and_full_without():
    for flip, beta in ((True, 0.5), (False, 0.95)):
        optimizer = APTMuon(parameters([(5, 4)]), beta_min=0.5)
        p = optimizer.param_groups[0]["params"][0]
        for sign in (1, -1 if flip else 1):
            p.grad = sign * numbers((5, 4))
            optimizer.step()
        assert_close(optimizer.param_groups[0]["beta"], torch.tensor([beta], dtype=torch.float64))


@pytest.mark.parametrize("scope", ["global", "tensor"])
def test_steps_turn_with_the_basis_of_every_matrix(scope):
    Q, R = torch.linalg.qr(numbers((6, 6))).Q, torch.linalg.qr(numbers((4, 4))).Q
    plain, turned = nn.Parameter(torch.zeros(6, 4)), nn.Parameter(torch.zeros(6, 4))
    optimizers = [APTMuon([p], lr=0.1, beta_min=0.3, scope=scope, ns_dtype="float32") for p in (plain, turned)]
    for t in range(4):
        plain.grad = numbers((6, 4), t)
        turned.grad = Q @ plain.grad @ R
        for optimizer in optimizers:
            optimizer.step()
    assert_close(turned.detach(), Q @ plain.detach() @ R, rtol=0, atol=1e-5)


def test_the_scale_of_all_losses_is_no_matter():
    expected = train(APTMuon(parameters(), lr=0.02, beta_min=0.5, **EXACT), flip=True)
    for scale in (1e-3, 1e5):
        found = train(APTMuon(parameters(), lr=0.02, beta_min=0.5, **EXACT), scale=scale, flip=True)
        for a, b in zip(found, expected, strict=True):
            assert_close(a, b, rtol=0, atol=1e-4)


@pytest.mark.parametrize("adjust", [None, "match_rms_adamw", "none"])
def test_a_convolution_is_the_matrix_of_its_output_channels(adjust):
    kernel, matrix = parameters([(8, 2, 3, 3), (8, 18)])
    with torch.no_grad():
        matrix.copy_(kernel.reshape(8, 18))
    options = {"lr": 0.1, "adjust_lr_fn": adjust}
    two = APTMuon([kernel], **options), APTMuon([matrix], **options)
    for _ in range(2):
        kernel.grad = numbers(kernel.shape, 5).to(memory_format=torch.channels_last)
        matrix.grad = kernel.grad.reshape(8, 18)
        for optimizer in two:
            optimizer.step()
    assert_close(kernel.detach().reshape(8, 18), matrix.detach(), rtol=0, atol=1e-6)


@pytest.mark.parametrize("batch", [True, False])
@pytest.mark.parametrize("adjust", [None, "match_rms_adamw"])
def test_blocks_of_a_fused_projection_are_matrices_of_their_own(adjust, batch):
    options = {"lr": 0.1, "adjust_lr_fn": adjust, "batch": batch, "ns_dtype": "float32"}
    fused = parameters([(12, 4)])
    parts = [nn.Parameter(part.clone()) for part in fused[0].detach().split(4)]
    whole, three = APTMuon(fused, split=3, **options), APTMuon(parts, **options)
    fused[0].grad = numbers((12, 4), 9) * torch.tensor([1.0, 10.0, 100.0]).repeat_interleave(4)[:, None]
    for part, gradient in zip(parts, fused[0].grad.split(4), strict=True):
        part.grad = gradient
    whole.step()
    three.step()
    assert_close(fused[0].detach(), torch.cat([part.detach() for part in parts]), rtol=0, atol=1e-5)


def test_batches_are_orthogonalised_as_matrices_alone_are():
    results = [train(APTMuon(parameters(), lr=0.02, beta_min=0.5, batch=batch, **EXACT)) for batch in (True, False)]
    for a, b in zip(*results, strict=True):
        assert_close(a, b, rtol=0, atol=1e-5)


@pytest.mark.parametrize("options", [{}, {"beta_min": 0.5}, {"beta_min": 0.5, "preserve": 0.3}, {"nesterov": False}])
def test_gradients_stay_as_they_are(options):
    params = parameters()
    optimizer = APTMuon(params, **options)
    for p in params:
        p.grad = numbers(p.shape, 3)
    before = [p.grad.clone() for p in params]
    jacobian = numbers((2, sum(p.numel() for p in params)))
    kept = jacobian.clone()
    optimizer.task_gradients(jacobian, params)
    optimizer.step()
    assert all(torch.equal(p.grad, gradient) for p, gradient in zip(params, before, strict=True))
    assert torch.equal(jacobian, kept)


@pytest.mark.parametrize("variant", ["L1", "L2", "L3", "L4", "L5", "L6"])
def test_strength_zero_is_plain_muon_bit_for_bit(variant):
    plain, params = parameters(), parameters()
    one, other = APTMuon(plain), APTMuon(params, preserve=0.0, variant=variant)
    for t in range(3):
        for p, q in zip(plain, params, strict=True):
            p.grad = q.grad = numbers(p.shape, t)
        other.task_gradients(numbers((2, sum(p.numel() for p in params))), params)
        one.step()
        other.step()
    assert all(torch.equal(p, q) for p, q in zip(plain, params, strict=True))


@pytest.mark.parametrize("variant", ["L1", "L2", "L5", "L6"])
def test_one_task_is_single_task_training(variant):
    plain, params = parameters([(5, 4)]), parameters([(5, 4)])
    one, other = APTMuon(plain), APTMuon(params, preserve=0.5, variant=variant)
    for t in range(3):
        plain[0].grad = params[0].grad = numbers((5, 4), t)
        other.task_gradients(params[0].grad.reshape(1, -1), params)
        one.step()
        other.step()
    assert torch.equal(plain[0], params[0])


@pytest.mark.parametrize("variant", ["L1", "L2", "L6"])
def test_the_jacobian_reaches_every_parameter_in_its_place(variant):
    shapes = [(5, 4), (3,), (4, 2, 3), (6, 4)]  # The vector is AdamW's.
    params = parameters(shapes)
    muon = [params[0], params[2], params[3]]
    optimizer = APTMuon(
        [{"params": muon[:2]}, {"params": muon[2:], "split": 2}], lr=1.0, preserve=0.4, variant=variant, **EXACT
    )
    jacobian = numbers((3, sum(p.numel() for p in params)), 7)
    start = [p.detach().clone() for p in params]
    for p in params:
        p.grad = numbers(p.shape, 11)
    optimizer.task_gradients(jacobian, params)
    optimizer.step()
    parts = jacobian.split([p.numel() for p in params], 1)
    for p, part, begin, shape in zip(params, parts, start, [(1, 5, 4), None, (1, 4, 6), (2, 3, 4)], strict=True):
        if shape is None:
            assert torch.equal(p, begin)
            continue
        M = 0.05 * p.grad
        U = (0.05 * p.grad + 0.95 * M).reshape(shape)
        X = preserved_input(variant, 0.4, U, M.reshape(shape), p.grad.reshape(shape), part.reshape(3, *shape))
        O = newton_schulz(X, dtype=torch.float32)  # noqa: E741
        expected = begin - max(1, shape[1] / shape[2]) ** 0.5 * O.reshape(p.shape)
        assert_close(p.detach(), expected, rtol=0, atol=1e-4)


def test_summaries_of_rank_one_do_what_their_products_do():
    left, right = numbers((3, 6)), numbers((3, 8), 1)
    results = []
    for summary in (RankOne(left, right), torch.einsum("kr,kc->krc", left, right)):
        p = nn.Parameter(torch.zeros(6, 2, 4))
        optimizer = APTMuon([p], preserve=0.5, split=2, **EXACT)
        p.grad = numbers((6, 2, 4), 2)
        optimizer.task_gradients({p: summary})
        optimizer.step()
        results.append(p.detach())
    assert_close(*results, rtol=0, atol=1e-6)


def test_l5_keeps_a_momentum_a_task_and_none_of_absent_ones_decays():
    p = nn.Parameter(torch.zeros(4, 4))
    optimizer = APTMuon([p], preserve=1.0, variant="L5", momentum=0.5)
    for _ in range(2):
        p.grad = numbers((4, 4))
        jacobian = torch.stack([p.grad.flatten(), torch.zeros(16) if optimizer.state else numbers(16, 1)])
        optimizer.task_gradients(jacobian, [p])
        optimizer.step()
    momenta = optimizer.state[p]["task_momentum"][:, 0]
    assert_close(momenta, torch.stack([0.75 * p.grad, 0.5 * numbers(16, 1).view(4, 4)]))
    optimizer.task_gradients(numbers((3, 16)), [p])
    with pytest.raises(ValueError, match="2 tasks and is given 3"):
        optimizer.step()


def test_missing_task_gradients_are_said_once(caplog):
    optimizer = APTMuon(parameters(), preserve=0.1)
    with caplog.at_level(logging.WARNING, "motet"):
        train(optimizer, 3)
    assert [record.getMessage().count("task_gradients") for record in caplog.records] == [1]


def test_task_gradients_serve_one_step(caplog):
    p = parameters([(3, 3)])[0]
    optimizer = APTMuon([p], preserve=0.1)
    p.grad = numbers((3, 3))
    optimizer.task_gradients(numbers((2, 9)), [p])
    optimizer.step()
    assert not caplog.records
    optimizer.step()
    assert len(caplog.records) == 1


@pytest.mark.parametrize("variant", ["L1", "L2", "L3", "L4", "L5"])
def test_effective_ranks_are_recorded_on_request(variant):
    p = nn.Parameter(torch.zeros(12, 4))
    optimizer = APTMuon([p], preserve=0.5, variant=variant, split=2, record=True, nesterov=False)
    p.grad = torch.cat([torch.ones(6, 4), numbers((6, 4))])
    optimizer.task_gradients(numbers((2, 48), 1), [p])
    optimizer.step()
    ranks = optimizer.effective_ranks[p]
    assert ranks.plain.shape == (2,)
    assert_close(ranks.plain[0], torch.tensor(1.0, dtype=torch.float64), rtol=0, atol=1e-4)
    if variant in ("L1", "L2"):
        assert ranks.preserved[0] > 2
        assert ranks.update[0] > ranks.preserved[0]
    optimizer.record = False
    optimizer.step()
    assert optimizer.effective_ranks == {}


def test_ten_steps_saved_and_ten_more_are_twenty_bit_for_bit():
    options = {"beta_min": 0.5, "lr": 0.02}
    whole = train(APTMuon(parameters(), **options), 20, flip=True)
    first = APTMuon(parameters(), **options)
    train(first, 10, flip=True)
    second = APTMuon([p.detach().clone().requires_grad_() for p in first.param_groups[0]["params"]], **options)
    second.load_state_dict(copy.deepcopy(first.state_dict()))
    assert all(torch.equal(a, b) for a, b in zip(train(second, 10, 10, flip=True), whole, strict=True))


def test_a_copied_optimizer_goes_on_alike():
    first = APTMuon(parameters(), beta_min=0.5, preserve=0.1, variant="L3")
    train(first, 3)
    second = copy.deepcopy(first)
    for a, b in zip(train(first, 2, 3), train(second, 2, 3), strict=True):
        assert torch.equal(a, b)


def test_schedulers_and_a_learning_rate_as_a_tensor():
    results = []
    for lr in (0.02, torch.tensor(0.02)):
        optimizer = APTMuon(parameters([(5, 4)]), lr=lr)
        scheduler = torch.optim.lr_scheduler.StepLR(optimizer, 2, 0.1)
        for t in range(4):
            train(optimizer, 1, t)
            scheduler.step()
        results.append(optimizer.param_groups[0]["params"][0].detach())
    assert_close(*results, rtol=1e-6, atol=1e-7)


def test_a_closure_runs_once_with_gradients_on():
    p = nn.Parameter(numbers((3, 3)))
    optimizer = APTMuon([p])
    calls = []

    def closure():
        optimizer.zero_grad()
        loss = p.square().sum()
        loss.backward()
        calls.append(loss)
        return loss

    before = p.detach().clone()
    assert optimizer.step(closure) is calls[0]
    assert len(calls) == 1
    assert not torch.equal(p, before)


def test_parameters_without_a_gradient_stay_put_and_zero_ones_decay_only():
    still, zero, empty = nn.Parameter(torch.ones(2, 2)), nn.Parameter(torch.ones(2, 2)), nn.Parameter(torch.ones(0, 2))
    optimizer = APTMuon([still, zero, empty], lr=0.1, weight_decay=0.5, beta_min=0.5)
    zero.grad, empty.grad = torch.zeros(2, 2), torch.zeros(0, 2)
    optimizer.step()
    assert torch.equal(still, torch.ones(2, 2))
    assert_close(zero.detach(), torch.full((2, 2), 0.95))
    assert still not in optimizer.state


@pytest.mark.parametrize("scale", [1e-30, 1e-12, 1e12, 1e30])
@pytest.mark.parametrize("variant", ["L1", "L2", "L3", "L4", "L5", "L6"])
def test_steps_are_finite_at_any_scale(variant, scale):
    params = parameters([(6, 4), (4, 4), (1, 5), (5, 1)])
    optimizer = APTMuon(params, lr=0.1, beta_min=0.5, preserve=0.5, variant=variant)
    for t in range(3):
        for p in params:
            p.grad = numbers(p.shape, t)[:, :1].expand(p.shape) * scale  # Of rank one.
        optimizer.task_gradients(numbers((3, sum(p.numel() for p in params)), t) * scale, params)
        optimizer.step()
    assert all(p.isfinite().all() for p in params)


def test_a_gradient_that_is_not_finite_never_enters_beta():
    params = parameters([(3, 3), (4, 4)])
    optimizer = APTMuon(params, beta_min=0.5)
    for value in (1.0, torch.nan, 1.0):
        for p in params:
            p.grad = torch.full(p.shape, value)
        optimizer.step()
        assert optimizer.param_groups[0]["beta"].isfinite().all()


def test_sparse_and_complex_are_refused_by_name():
    with pytest.raises(TypeError, match="complex"):
        APTMuon([nn.Parameter(torch.zeros(2, 2, dtype=torch.complex64))])
    p = nn.Parameter(torch.zeros(3, 2))
    p.grad = torch.sparse_coo_tensor([[0], [0]], [1.0], (3, 2), check_invariants=False)
    with pytest.raises(TypeError, match="sparse"):
        APTMuon([p]).step()


def test_a_refused_group_leaves_the_optimizer_as_it_was():
    optimizer = APTMuon(parameters([(3, 3)]))
    with pytest.raises(ValueError, match="give it to AdamW"):
        optimizer.add_param_group({"params": [nn.Parameter(torch.zeros(3))]})
    assert len(optimizer.param_groups) == 1
    optimizer.add_param_group({"params": parameters([(6, 2)]), "split": 2, "lr": 0.5})
    train(optimizer, 2)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"lr": -1.0}, "lr must be finite and at least 0"),
        ({"lr": float("nan")}, "lr must be finite"),
        ({"weight_decay": -1.0}, "weight_decay must be"),
        ({"eps": -1.0}, "eps must be"),
        ({"ns_steps": 100}, "ns_steps must be .* from 1 to 99"),
        ({"ns_coefficients": (1.0, 2.0)}, "three numbers"),
        ({"ns_dtype": "float16"}, "ns_dtype must be one of bfloat16, float32"),
        ({"adjust_lr_fn": "rms"}, "adjust_lr_fn must be"),
        ({"variant": "L7"}, "variant must be one of L1"),
        ({"preserve": -0.1}, "preserve must be at least 0"),
        ({"preserve": 1.5, "variant": "L4"}, "at most 1 for L4"),
        ({"split": 0}, "split must be"),
        ({"split": 4}, "6 rows, which split=4 does not divide"),
        ({"momentum": 1.0}, "momentum coefficient"),
        ({"beta_min": 0.99}, "beta_min must be"),
        ({"rule": "A8"}, "rule must be"),
    ],
)
def test_options_out_of_range_are_named(options, message):
    with pytest.raises(ValueError, match=message):
        APTMuon(parameters([(6, 4)]), **options)


def test_task_gradients_that_do_not_fit_are_refused():
    p = parameters([(6, 4)])[0]
    optimizer = APTMuon([p], preserve=0.1)
    with pytest.raises(ValueError, match="parameters="):
        optimizer.task_gradients(torch.zeros(2, 24))
    with pytest.raises(ValueError, match=r"must be \(K, 24\)"):
        optimizer.task_gradients(torch.zeros(2, 25), [p])
    with pytest.raises(ValueError, match="have shape"):
        optimizer.task_gradients({p: torch.zeros(2, 6, 5)})
    with pytest.raises(ValueError, match=r"\(K, 6\) and \(K, 4\)"):
        optimizer.task_gradients({p: RankOne(torch.zeros(2, 5), torch.zeros(2, 4))})
    with pytest.raises(ValueError, match="none of these"):
        optimizer.task_gradients(torch.zeros(2, 4), [nn.Parameter(torch.zeros(2, 2))])
