"""The path from dense to empty: its certificates, its invariances, its ends."""

import numpy as np
import pytest
import torch
from sklearn.exceptions import ConvergenceWarning
from torch.testing import assert_close

from motet.estimators.network import SharedNet
from motet.estimators.path import Path, PathOptions, State, adaptive_weights, fit_path, lambda_max, refit
from motet.estimators.proximal import Penalty
from motet.estimators.relax import relax
from motet.estimators.solver import Objective
from motet.losses.rank import Pairs

SMALL = {
    "hidden_shared": 6,
    "hidden_task": (4,),
    "dtype": torch.float64,
    "dense_steps": 30,
    "n_lambdas": 10,
    "max_iter": 60,
}
P = 8


def outcomes(n=50, seed=0):
    """Feature 0 bends, feature 3 is linear and shared; five features are noise."""
    generator = np.random.default_rng(seed)
    X = generator.standard_normal((n, P))
    common = np.abs(X[:, 0]) * 1.5 + X[:, 3]
    y = [
        np.exp(common + 0.3 * generator.standard_normal(n)),
        (common + generator.logistic(size=n) / 3 > 1).astype(float),
    ]
    return torch.tensor(X), y


def bent_outcomes(n=80, seed=0):
    """Feature 0 alone, by its absolute value: no outcome has a linear effect of any feature."""
    generator = np.random.default_rng(seed)
    X = generator.standard_normal((n, P))
    common = 2 * np.abs(X[:, 0])
    y = [common + 0.3 * generator.standard_normal(n), (common + generator.logistic(size=n) / 4 > 1.4).astype(float)]
    return torch.tensor(X), y


def run(X=None, y=None, weight=None, validation=None, start=None, seed=0, **options):
    X, y = outcomes() if X is None else (X, y)
    pairs = [Pairs(values, weight=weight) for values in y]
    generator = torch.Generator().manual_seed(seed)
    return fit_path(
        X, pairs, [0.5, 0.5], validation=validation, start=start, generator=generator,
        options=PathOptions(**{**SMALL, **options}),
    )  # fmt: skip


@pytest.fixture(scope="module")
def path() -> Path:
    return run()


def first_start(seed=0):
    options = PathOptions(**SMALL)
    return SharedNet(P, 2, 6, (4,), torch.Generator().manual_seed(seed), corner=options.corner).double()


@pytest.mark.parametrize("penalty", ["group_lasso", "group_mcp", "lassonet"])
def test_certificates_hold_for_the_gradients_of_automatic_differentiation(penalty):
    (X, y), rule = outcomes(), Penalty(penalty, skip=2)
    path = run(penalty=penalty)
    assert path.converged.sum() >= 3
    for index in np.flatnonzero(path.converged):
        net, strength = path.net(index), torch.full((P,), path.lambdas[index], dtype=torch.float64)
        losses = [Pairs(values).loss(scores, "logistic") for values, scores in zip(y, net(X).unbind(1), strict=True)]
        (sum(losses) / 2).backward()
        parts = [net.first] if net.skip is None else [net.first, net.skip]
        row, gradient = (torch.cat([take(part) for part in parts]).T for take in (torch.detach, lambda w: w.grad))
        residual = rule.residual(row, gradient, strength, 0.01 / (1 + path.lambdas[index])) / strength
        assert residual.max() <= path.kkt[index] + 1e-9
        assert path.kkt[index] <= path.tol


def test_zeros_are_exact_and_the_support_is_where_they_are_not(path):
    for index, chosen in enumerate(path.support):
        norms = path.net(index).first.norm(dim=0)
        assert ((norms > 0).numpy() == chosen).all()
    assert path.support[0].sum() > path.support[-2].sum() > 0


def test_the_path_ends_with_an_empty_network_that_orders_nothing(path):
    assert path.n_selected[-1] == 0
    assert (path.concordance_train[-1] == 0.5).all()
    assert_close(path.loss[-1], np.full(2, np.log(2)))
    X, _ = outcomes()
    assert_close(path.scores(-1, X), torch.zeros(50, 2, dtype=torch.float64))


def test_lambda_max_empties_the_network_and_it_stays_stationary():
    X, y = outcomes()
    objective = Objective([Pairs(values) for values in y], torch.tensor([0.5, 0.5], dtype=torch.float64))
    largest = lambda_max(X, objective, PathOptions(**SMALL))
    path = run(lambdas=[1.01 * largest])
    assert path.n_selected.tolist() == [0]
    assert path.converged.all()


def test_exit_lambdas_are_the_last_at_which_a_feature_is_selected(path):
    assert (path.exit_lambda == [path.lambdas[chosen].max() if chosen.any() else 0 for chosen in path.support.T]).all()
    assert path.exit_lambda.argmax() == 3


def test_a_feature_without_a_linear_effect_leaves_last():
    """At W = 0 its gradient vanishes: a path from sparse to dense could not find it."""
    path = run(*bent_outcomes(), hidden_shared=8)
    others = np.delete(path.exit_lambda, 0)
    assert path.exit_lambda[0] > 2 * others.max()


def test_the_same_seed_gives_the_same_path_to_the_bit(path):
    again = run()
    for ours, theirs in zip(again.states, path.states, strict=True):
        assert torch.equal(ours.flat, theirs.flat)
        assert torch.equal(ours.features, theirs.features)


@pytest.mark.parametrize("change", [np.exp, lambda y: y**3, lambda y: 5 * y - 2])
def test_increasing_transforms_of_an_outcome_change_no_bit(path, change):
    X, y = outcomes()
    again = run(X, [change(y[0]), y[1]])
    assert all(torch.equal(ours.flat, theirs.flat) for ours, theirs in zip(again.states, path.states, strict=True))


def short_path(X, y, start, weight=None):
    """Few steps: rounding grows with their number, and this is about what is computed, not about its last digits."""
    return run(X, y, weight=weight, start=start, lambdas=[0.01, 0.05, 0.1, 0.2], max_iter=8, dense_steps=10)


def test_permuted_columns_give_the_permuted_path():
    (X, y), start, order = outcomes(), first_start(), torch.randperm(P, generator=torch.Generator().manual_seed(5))
    permuted = first_start()
    with torch.no_grad():
        permuted.first.copy_(start.first[:, order])
    ours, theirs = short_path(X, y, start), short_path(X[:, order], y, permuted)
    assert (ours.support[:, order] == theirs.support).all()
    assert_close(ours.scores(2, X), theirs.scores(2, X[:, order]), rtol=1e-6, atol=1e-6)


def test_permuted_rows_give_the_same_path():
    (X, y), order = outcomes(), torch.randperm(50, generator=torch.Generator().manual_seed(5))
    ours, theirs = short_path(X, y, first_start()), short_path(X[order], [v[order.numpy()] for v in y], first_start())
    assert (ours.support == theirs.support).all()
    assert_close(ours.scores(2, X), theirs.scores(2, X), rtol=1e-6, atol=1e-6)


def test_a_weight_of_two_is_a_row_twice():
    X, y = outcomes()
    weight, twice = np.ones(50), np.r_[np.arange(50), 7]
    weight[7] = 2
    ours = short_path(X, y, first_start(), weight)
    theirs = short_path(X[twice], [values[twice] for values in y], first_start())
    assert (ours.support == theirs.support).all()
    assert_close(ours.loss, theirs.loss, rtol=1e-6, atol=1e-6)


def test_heads_stay_within_their_balls(path):
    for state in path.states:
        parts = state.layout.restricted(len(state.features)).split(state.flat)
        for part in (*parts.weights, parts.readout):
            assert (part.flatten(1).norm(dim=1) <= 1.5 + 1e-9).all()


def test_scores_are_centred_on_the_training_rows_and_are_the_networks(path):
    X, _ = outcomes()
    assert_close(path.scores(4, X).mean(0), torch.zeros(2, dtype=torch.float64))
    difference = path.net(4)(X).detach() - path.scores(4, X)
    assert_close(difference, difference[:1].expand(50, 2))


def test_validation_rows_stop_the_start_and_choose_among_restarts():
    (X, y), (X_new, y_new) = outcomes(), outcomes(seed=1)
    validation = (X_new, [Pairs(y_new[0]), Pairs(np.zeros(50))])
    few = {"validation": validation, "n_lambdas": 3, "max_iter": 15}
    one, other = run(X, y, seed=0, **few), run(X, y, seed=0, n_init=3, **few)
    assert np.isnan(one.concordance_validation[:, 1]).all()
    assert other.concordance_validation[:, 0].max() >= one.concordance_validation[:, 0].max()


def test_adaptive_weights_count_the_strong_less_and_keep_the_dropped_out(path):
    index = int(np.flatnonzero(path.n_selected < P)[0])
    a, norms = adaptive_weights(path.states[index]), path.states[index].norms()
    dropped = norms == 0
    assert dropped.any()
    assert a[dropped].isinf().all()
    assert_close(a[norms.argmax()], torch.tensor(1.0, dtype=torch.float64))
    kept, largest = norms[~dropped], norms.max()
    assert_close(a[~dropped], 1.001 * largest / (kept + 0.001 * largest))
    X, y = outcomes()
    again = fit_path(
        X, [Pairs(values) for values in y], [0.5, 0.5], adaptive=a, options=PathOptions(**{**SMALL, "n_lambdas": 4})
    )
    assert not again.support[:, dropped.numpy()].any()
    assert again.n_selected[-1] == 0


def test_a_refit_keeps_the_support_and_undoes_the_shrinkage(path):
    X, y = outcomes()
    pairs = [Pairs(values) for values in y]
    index = int(np.flatnonzero(path.n_selected == 2)[-1])
    state = refit(X, pairs, [0.5, 0.5], path.support[index], options=PathOptions(**SMALL), start=path.states[index])
    assert torch.equal(state.features, path.states[index].features)
    loss = [pairs[k].loss(state.scores(X)[:, k], "logistic") for k in range(2)]
    assert sum(loss) < path.loss[index].sum()
    with pytest.raises(ValueError, match="other features"):
        refit(X, pairs, [0.5, 0.5], ~path.support[index], options=PathOptions(**SMALL), start=path.states[index])


def test_refits_choose_the_feature_that_matters():
    (X, y), (X_new, y_new) = bent_outcomes(), bent_outcomes(100, seed=1)
    pairs, validation = [Pairs(values) for values in y], (X_new, [Pairs(values) for values in y_new])
    wide = {"hidden_shared": 16, "hidden_task": (16,)}
    path, options = run(X, y, **wide), PathOptions(**{**SMALL, **wide})
    relaxed = relax(X, pairs, [0.5, 0.5], path, validation=validation, options=options, largest=5, steps=60)
    assert path.support[relaxed.best(within=0.02)].tolist() == [True] + [False] * 7
    for index, state in enumerate(relaxed.states):
        assert (state is None) == (path.n_selected[index] > 5)
        assert state is None or torch.equal(state.features, path.states[index].features)
    assert (relaxed.concordance_validation[-1] == 0.5).all()
    without = relax(X, pairs, [0.5, 0.5], path, options=options, largest=1, steps=1)
    with pytest.raises(ValueError, match="validation"):
        without.best()


def test_an_unsolved_lambda_is_reported_with_what_to_do():
    path = run(lambdas=[0.001], max_iter=1)
    assert not path.converged[0]
    with pytest.warns(ConvergenceWarning, match="Raise max_iter"):
        path.warn(0)


def test_a_solved_lambda_is_not_reported(path):
    assert path.converged[-1]
    path.warn(-1)


def test_progress_is_told_of_each_lambda_and_an_interrupt_goes_through():
    seen = []

    def interrupt(index, value, features):
        seen.append((index, value, features))
        if index == 1:
            raise KeyboardInterrupt

    X, y = outcomes()
    with pytest.raises(KeyboardInterrupt):
        fit_path(
            X, [Pairs(v) for v in y], [0.5, 0.5], options=PathOptions(**{**SMALL, "max_iter": 5}), progress=interrupt
        )
    assert [index for index, _, _ in seen] == [0, 1]


def test_a_path_may_start_empty():
    X, y = outcomes()
    out = torch.full((P,), torch.inf)
    path = fit_path(
        X, [Pairs(v) for v in y], [0.5, 0.5], adaptive=out, options=PathOptions(**SMALL, lambdas=[0.1, 0.2])
    )
    assert path.n_selected.tolist() == [0, 0]
    assert isinstance(path.dense, State)


@pytest.mark.parametrize(
    "wrong",
    [{"corner": 0.0}, {"bound": -1.0}, {"first": 1.0}, {"n_lambdas": 1}, {"max_iter": 0}, {"lambdas": [0.2, 0.1]}],
)
def test_options_are_checked(wrong):
    with pytest.raises(ValueError, match=next(iter(wrong))):
        PathOptions(**wrong)


def test_a_start_must_fit_the_options():
    with pytest.raises(ValueError, match="start is a network of"):
        run(start=SharedNet(P, 2))
    with pytest.raises(ValueError, match="n_init"):
        run(start=first_start(), n_init=2)
