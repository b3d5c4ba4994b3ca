"""Agreement with TorchJD where its definitions are the same, and how the others are related."""

import pytest
import torch
from torch import Tensor
from torch.testing import assert_close

from motet import methods
from motet.methods.grad_drop import keep_one_sign
from motet.methods.pcgrad import surgery
from tests.golden.torchjd_values import DIRECTIONS
from tests.matrices import REFERENCE, jacobian

aggregation = pytest.importorskip("torchjd.aggregation")
scalarization = pytest.importorskip("torchjd.scalarization")
linalg = pytest.importorskip("torchjd.linalg")

pytestmark = pytest.mark.filterwarnings("ignore:You are solving a parameterized problem:UserWarning")


def nearly_singular(tasks: int, seed: int) -> Tensor:
    rows = jacobian("weak", tasks, seed)
    rows[-1] = rows[0] + 0.03 * rows[-1]
    return rows


CASES = {
    f"{name}-{tasks}": make(tasks, tasks)
    for tasks in (2, 3, 8)
    for name, make in {
        "random": lambda tasks, seed: jacobian("weak", tasks, seed),
        "conflicting": lambda tasks, seed: jacobian("strong", tasks, seed),
        "near-singular": nearly_singular,
    }.items()
}

# Its regularisation is turned off: with it, TorchJD solves another problem than it defines.
exact = linalg.QuadprogProjector(norm_eps=0.0, reg_eps=1e-10)
PEERS = {
    "upgrad": (methods.UPGrad(), lambda _: aggregation.UPGrad(projector=exact)),
    "dual-proj": (methods.DualProj(), lambda _: aggregation.DualProj(projector=exact)),
    "cagrad": (methods.CAGrad(0.4), lambda _: aggregation.CAGrad(c=0.4, norm_eps=1e-9)),
    "wide cagrad": (methods.CAGrad(1.0), lambda _: aggregation.CAGrad(c=1.0, norm_eps=1e-9)),
    "imtl-g": (methods.IMTLG(), lambda _: aggregation.IMTLG()),
    "aligned-mtl": (methods.AlignedMTL(), lambda _: aggregation.AlignedMTL()),
    "fair-grad": (methods.FairGrad(1.0), lambda _: aggregation.FairGrad(alpha=1.0)),
    "fair-grad 2": (methods.FairGrad(2.0), lambda _: aggregation.FairGrad(alpha=2.0)),
    "nash-mtl": (methods.NashMTL(1.0), lambda k: aggregation.NashMTL(n_tasks=k, max_norm=1.0, optim_niter=100)),
}


@pytest.mark.parametrize("case", CASES)
@pytest.mark.parametrize("peer", PEERS)
def test_directions_agree(peer, case):
    ours, make = PEERS[peer]
    rows = CASES[case]
    expected = make(len(rows))(rows)
    assert_close(ours.direction(rows), expected, rtol=1e-3, atol=1e-3 * float(expected.norm()))


@pytest.mark.parametrize("case", ["random-2", "conflicting-2", "near-singular-2", "random-3"])
def test_mgda_agrees_where_the_peers_frank_wolfe_steps_converge(case):
    """They have not after thousands of steps where several tasks share the weight: see the next test."""
    expected = aggregation.MGDA(epsilon=1e-9, max_iters=5_000)(CASES[case])
    assert_close(methods.MGDA().direction(CASES[case]), expected, rtol=1e-3, atol=1e-3 * float(expected.norm()))


@pytest.mark.parametrize(("name", "options", "direction"), DIRECTIONS)
def test_known_values(name, options, direction):
    actual = methods.get(name, **options).direction(torch.tensor(REFERENCE))
    assert_close(actual, torch.tensor(direction), rtol=0, atol=1e-3)


@pytest.mark.parametrize("case", CASES)
def test_pcgrad_agrees_in_the_same_order(case):
    rows = CASES[case]
    torch.manual_seed(0)
    expected = aggregation.PCGrad()(rows)
    torch.manual_seed(0)
    order = torch.stack([torch.randperm(len(rows)) for _ in rows])
    assert_close(surgery(rows @ rows.T, order).sum(0) @ rows, expected, rtol=1e-3, atol=1e-9)


@pytest.mark.parametrize("case", CASES)
def test_grad_drop_agrees_with_the_same_draws(case):
    rows = CASES[case]
    torch.manual_seed(0)
    expected = aggregation.GradDrop()(rows)
    torch.manual_seed(0)
    assert_close(keep_one_sign(rows, torch.rand(rows.shape[1], dtype=rows.dtype)), expected)


def test_nash_mtl_has_the_same_length_where_it_is_not_cut():
    rows = CASES["conflicting-3"]
    expected = aggregation.NashMTL(n_tasks=3, max_norm=0.0, optim_niter=100)(rows)
    assert_close(methods.NashMTL().direction(rows), expected, rtol=1e-3, atol=1e-3)


@pytest.mark.parametrize("case", CASES)
def test_the_peers_approximate_mgda_is_as_far_off_as_it_is_too_long(case):
    """For the shortest vector d of a convex set and any other e of it, |e - d|² ≤ |e|² - |d|²."""
    rows = CASES[case]
    ours, theirs = methods.MGDA().direction(rows), aggregation.MGDA(epsilon=1e-6, max_iters=2000)(rows)
    assert (theirs - ours).square().sum() <= theirs.square().sum() - ours.square().sum() + 1e-12


def test_cagrad_moves_on_where_torchjd_returns_zero():
    rows = jacobian("stationary", 3, 1)
    assert (aggregation.CAGrad(c=1.5)(rows) == 0).all()
    ours = methods.CAGrad(1.5).direction(rows)
    assert_close(ours, methods.DualProj().direction(rows))


def gradient(scalarizer: object, losses: Tensor) -> Tensor:
    """The weights that a scalarizer gives: its derivative with respect to the losses."""
    values = losses.clone().requires_grad_()
    return torch.autograd.grad(scalarizer(values), values)[0]


def run_of_losses(steps: int, tasks: int = 4) -> Tensor:
    generator = torch.Generator().manual_seed(0)
    decay = torch.linspace(1.0, 0.3, steps, dtype=torch.float64)[:, None]
    return decay * (torch.rand(steps, tasks, generator=generator, dtype=torch.float64) + 0.2)


@pytest.mark.parametrize(("ours", "peer"), [("uw", "UW"), ("imtl-l", "IMTLL")])
def test_learned_weights_are_those_of_adam_on_the_peers_parameters(ours, peer):
    method, scalarizer = methods.get(ours), getattr(scalarization, peer)(4).double()
    optimizer = torch.optim.Adam(scalarizer.parameters(), lr=0.025)
    for losses in run_of_losses(30):
        assert_close(method.weights(losses), gradient(scalarizer, losses), rtol=1e-9, atol=0)
        optimizer.zero_grad()
        scalarizer(losses).backward()
        optimizer.step()


def test_famo_learns_the_same_weights():
    method, scalarizer = methods.FAMO(), scalarization.FAMO(4).double()
    for losses in run_of_losses(30):
        assert_close(method.weights(losses), gradient(scalarizer, losses), rtol=1e-6, atol=0)
        after = losses * torch.tensor([0.9, 0.99, 1.0, 1.1], dtype=losses.dtype)
        method.update(after)
        scalarizer.update(after)


def test_dwa_is_the_same_where_windows_are_epochs():
    method, scalarizer = methods.DWA(window=5), scalarization.DWA()
    losses = run_of_losses(11)
    for step, row in enumerate(losses):
        ours, theirs = method.weights(row), gradient(scalarizer, row)
        if step in (0, 4, 10):  # Uniform until both windows are full; then the window moves, the epoch does not.
            assert_close(ours, theirs)
        if step % 5 == 4:
            scalarizer.step()


def test_stch_is_the_general_form_on_log_losses():
    method = methods.STCH(mu=0.7, warmup=5)
    losses = run_of_losses(6)
    for row in losses[:5]:
        assert_close(method.weights(row), 1 / row)
    level = losses[:5].mean(0)
    general = scalarization.STCH(mu=0.7, weights=torch.ones(4).double(), reference=level.log())
    assert_close(method.weights(losses[5]), 4 * gradient(lambda values: general(values.log()), losses[5]))


def test_gls_is_the_geometric_mean():
    losses = run_of_losses(1)[0]
    assert_close(methods.GLS().weights(losses), gradient(scalarization.GeometricMean(), losses))


def test_rlw_draws_as_the_peer_does():
    losses = run_of_losses(1)[0].float()
    torch.manual_seed(5)
    expected = gradient(scalarization.Random(), losses)
    generator = torch.Generator().manual_seed(5)
    assert_close(methods.RLW(generator).weights(losses), expected.double(), rtol=1e-6, atol=0)
