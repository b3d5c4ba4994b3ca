"""The methods that LibMTL has, beside its definitions: the same to 1e-3, or the difference in the test's name."""

import numpy as np
import pytest
import torch

from motet import methods
from motet.methods.grad_drop import keep_one_sign
from motet.methods.pcgrad import surgery
from motet.testing.steps import ask
from tests.golden import libmtl_definitions as libmtl

TASKS, WIDTH, EPOCH = 3, 7, 4


def run(steps=10, tasks=TASKS, seed=0, conflict=0.0, slope=0.05):
    """Losses that fall, each at its own rate, and gradients; the first two go against each other as told."""
    draws = np.random.default_rng(seed)
    common = draws.normal(size=WIDTH)
    sides = np.where(np.arange(tasks) % 2, -1.0, 1.0)[:, None]
    return [
        (
            (0.5 + draws.random(tasks)) * np.exp(-slope * step * (1 + np.arange(tasks))),
            draws.normal(size=(tasks, WIDTH)) + conflict * sides * common,
        )
        for step in range(steps)
    ]


def updates(method, steps, after=None):
    """What a method makes of a run."""
    found = []
    for number, (losses, rows) in enumerate(steps):
        found.append(ask(method, torch.from_numpy(losses), torch.from_numpy(rows)).numpy())
        if after is not None:
            method.update(torch.from_numpy(after[number]))
    return found


def assert_same(actual, expected):
    assert len(actual) == len(expected)
    for step, (one, other) in enumerate(zip(actual, expected, strict=True)):
        off = np.abs(one - other).max() / np.abs(other).max()
        assert off <= 1e-3, f"step {step} is off by {off:.2g}"


CONFLICTS = [0.0, 1.5]


@pytest.mark.parametrize("conflict", CONFLICTS)
@pytest.mark.parametrize(
    ("method", "definition"),
    [
        (methods.Sum, libmtl.ew),
        (methods.GLS, libmtl.gls),
        (methods.IMTL, libmtl.imtl),
        (lambda: methods.FairGrad(1.0), libmtl.fair_grad),
        (lambda: methods.FairGrad(2.0), lambda steps: libmtl.fair_grad(steps, alpha=2.0)),
        (lambda: methods.STCH(warmup=EPOCH), lambda steps: libmtl.stch(steps, EPOCH)),
        (lambda: methods.DBMTL(beta=0.0), lambda steps: libmtl.db_mtl(steps, beta=0.0)),
        (methods.MoDo, libmtl.modo),
        (lambda: methods.SDMGrad(lr=5.0), libmtl.sdm_grad),
    ],
    ids=["ew", "gls", "imtl", "fair-grad", "fair-grad-2", "stch", "db-mtl without smoothing", "modo", "sdm-grad lr=5"],
)
def test_the_updates_of_a_run_are_the_same(method, definition, conflict):
    steps = run(conflict=conflict)
    assert_same(updates(method(), steps), definition(steps))


@pytest.mark.parametrize("conflict", CONFLICTS)
def test_upgrad_is_the_same_up_to_the_peers_regularisation(conflict):
    """Of 1e-4 of the trace, which is left out here: TorchJD's definition, which UPGrad's note describes."""
    steps = run(conflict=conflict)
    assert_same(updates(methods.UPGrad(), steps), libmtl.upgrad(steps, reg=1e-9))
    for ours, theirs in zip(updates(methods.UPGrad(), steps), libmtl.upgrad(steps), strict=True):
        assert np.linalg.norm(ours - theirs) < 5e-3 * np.linalg.norm(theirs)


def test_famo_is_the_same_with_feedback_on_the_same_batch():
    steps = run(20)
    draws = np.random.default_rng(1)
    after = [losses * (0.8 + 0.3 * draws.random(TASKS)) for losses, _ in steps]
    assert_same(updates(methods.FAMO(), steps, after), libmtl.famo(steps, after))


def test_rlw_draws_the_same_weights():
    steps, generator = run(4), torch.Generator().manual_seed(3)
    draws = [torch.randn(TASKS, generator=generator).double().numpy() for _ in steps]
    method = methods.RLW(torch.Generator().manual_seed(3))
    assert_same(updates(method, steps), libmtl.rlw(steps, draws))


@pytest.mark.parametrize("conflict", [0.5, 1.5])
def test_pcgrad_is_the_same_in_the_same_orders(conflict):
    steps, draws = run(5, tasks=5, conflict=conflict), np.random.default_rng(2)
    # LibMTL lets a task meet itself, too: its own gradient never turns against itself here.
    orders = [np.stack([draws.permutation(5) for _ in range(5)]) for _ in steps]
    ours = [
        (surgery(torch.from_numpy(rows @ rows.T), torch.from_numpy(order)).sum(0).numpy()) @ rows
        for (_, rows), order in zip(steps, orders, strict=True)
    ]
    assert_same(ours, libmtl.pcgrad(steps, orders))


def test_grad_drop_is_the_same_on_positive_features_with_the_same_draws():
    steps, draws = run(4), np.random.default_rng(4)
    drawn = [draws.random(WIDTH) for _ in steps]
    ours = [
        keep_one_sign(torch.from_numpy(rows), torch.from_numpy(draw)).numpy()
        for (_, rows), draw in zip(steps, drawn, strict=True)
    ]
    assert_same(ours, libmtl.grad_drop(steps, drawn))


def test_dwa_is_the_same_at_the_start_of_an_epoch_where_windows_are_epochs():
    """In between LibMTL's means stay as they are, and the windows move."""
    steps = run(4 * EPOCH + 1)
    ours, theirs = updates(methods.DWA(window=EPOCH), steps), libmtl.dwa(steps, EPOCH)
    at = [0, EPOCH, 2 * EPOCH, 3 * EPOCH, 4 * EPOCH]
    assert_same([ours[step] for step in at], [theirs[step] for step in at])


def test_uw_is_the_same_from_another_start():
    """LibMTL's log-variance starts at -1/2, so that its first weights are e^½ times as large: as if losses were."""
    steps, more = run(20), np.exp(0.5)
    ours = updates(methods.UW(), [(losses * more, rows) for losses, rows in steps])
    assert_same([update * more for update in ours], libmtl.uw(steps))
    assert_same(updates(methods.UW(), steps), libmtl.uw(steps, start=0.0))


def test_mgda_of_two_is_the_same_inside_and_up_to_a_thousandth_at_the_ends():
    inside = [(losses, rows) for losses, rows in run(20, tasks=2, conflict=1.0) if rows[0] @ rows[1] < 0]
    assert_same(updates(methods.MGDA(), inside), libmtl.mgda_of_two(inside))
    ends = [(losses, np.stack([rows[0], 3 * rows[0] + 0.1 * rows[1]])) for losses, rows in run(5, tasks=2)]
    for (_, rows), ours, theirs in zip(ends, updates(methods.MGDA(), ends), libmtl.mgda_of_two(ends), strict=True):
        np.testing.assert_allclose(ours, rows[0], rtol=1e-6)
        np.testing.assert_allclose(theirs, 0.999 * rows[0] + 0.001 * rows[1], rtol=1e-12)


@pytest.mark.parametrize("c", [0.2, 0.5])
def test_cagrad_is_the_same_but_for_the_division_by_one_and_c_squared(c):
    steps = run(4, conflict=1.0)
    assert_same([update / (1 + c**2) for update in updates(methods.CAGrad(c), steps)], libmtl.cagrad(steps, c))


def test_nash_mtl_is_the_same_but_for_the_length_that_is_cut():
    """LibMTL solves for G/‖G‖, whose solution is √‖G‖ times as long, and cuts what is longer than 1."""
    steps = run(conflict=1.0)
    assert_same(updates(methods.NashMTL(max_norm=1.0), steps), libmtl.nash(steps))
    short = [(losses, rows * 0.01) for losses, rows in steps]
    lengths = [np.linalg.norm(rows @ rows.T) ** 0.5 for _, rows in short]
    ours = [update * length for update, length in zip(updates(methods.NashMTL(), short), lengths, strict=True)]
    assert_same(ours, libmtl.nash(short))


@pytest.mark.parametrize("conflict", CONFLICTS)
def test_aligned_mtl_is_the_mean_where_libmtl_has_the_sum(conflict):
    steps = run(conflict=conflict)
    assert_same([TASKS * update for update in updates(methods.AlignedMTL(), steps)], libmtl.aligned(steps))


def test_db_mtls_average_is_the_same_but_for_its_start_and_its_share_of_the_past():
    """From zero, where motet corrects for the start; and β/√t, where motet's share of the past stays."""
    steps, beta = run(6), 0.9
    ours = updates(methods.DBMTL(beta=beta), steps)
    from_zero = [update * (1 - beta ** (step + 1)) for step, update in enumerate(ours)]
    assert_same(from_zero, libmtl.db_mtl(steps, beta=beta, sigma=0.0))


def test_grad_vac_is_the_same_where_all_cosines_are_below_their_targets():
    """LibMTL's targets learn from those alone, motet's and TorchJD's from all. β is LibMTL's 0.5."""
    steps = run(2, tasks=2, conflict=3.0)
    # Two tasks ever more against each other: targets follow from above.
    angles = np.linspace(2.0, 3.0, 6)
    first = steps[0][1][0] / np.linalg.norm(steps[0][1][0])
    second = steps[1][1][0] - (steps[1][1][0] @ first) * first
    second /= np.linalg.norm(second)
    steps = [
        (np.ones(2), np.stack([2.0 * first, 3.0 * (np.cos(angle) * first + np.sin(angle) * second)]))
        for angle in angles
    ]
    orders = [np.array([[1, 0], [1, 0]])] * len(steps)
    assert_same(updates(methods.get("grad-vac", beta=0.5), steps), libmtl.grad_vac(steps, orders))


def test_grad_norm_descends_the_same_objective():
    """LibMTL learns a softmax by the model's optimizer, motet the weights by Adam, and both scale them to sum to K."""
    norms, rates = np.array([4.0, 1.0, 0.5]), np.array([0.8, 1.0, 1.2])
    rows, losses = torch.diag(torch.from_numpy(norms)), torch.ones(3, dtype=torch.float64)
    method = methods.get("grad-norm", lr=0.003)
    ask(method, losses, rows)
    objective = [
        libmtl.grad_norm_objective(ask(method, losses * torch.from_numpy(rates), rows).numpy() / norms, norms, rates)
        for _ in range(800)
    ]
    grid = [np.array([a, b, 3 - a - b]) for a in np.arange(0.02, 3, 0.02) for b in np.arange(0.02, 3 - a, 0.02)]
    least = min(libmtl.grad_norm_objective(weights, norms, rates) for weights in grid)
    assert objective[0] > 4
    assert abs(objective[-1] - least) < 0.05


def test_moco_tracks_the_same_gradients_and_projects_where_libmtl_takes_a_softmax():
    """LibMTL first brings gradients to the lengths of their losses: here they have them."""
    steps = [(losses, rows * (losses / np.linalg.norm(rows, axis=1))[:, None]) for losses, rows in run(conflict=1.0)]
    ours = updates(methods.get("moco"), steps)
    assert_same(ours, libmtl.moco(steps, soft=False))
    # A softmax near even weights moves them by a K-th of the step and forgets those of before.
    assert_same(updates(methods.get("moco", gamma=1e-9), steps), libmtl.moco(steps, gamma=1e-9))


def test_excess_mtls_weights_sum_to_one_where_libmtls_sum_to_the_number_of_tasks():
    steps = run()
    assert_same([TASKS * update for update in updates(methods.get("excess-mtl"), steps)], libmtl.excess_mtl(steps))
