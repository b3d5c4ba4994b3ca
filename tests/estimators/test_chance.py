"""The permutation test of held-out concordance."""

import numpy as np

from motet.estimators.chance import LeftOut, p_value
from motet.estimators.outcomes import encode, read_outcomes


def left_out(signal, seed, m=40, L=5):
    rng = np.random.default_rng(seed)
    Y = {"a": rng.normal(size=m), "b": rng.integers(0, 2, m)}
    tasks = encode(read_outcomes({"a": "continuous", "b": "binary"}, Y), Y)
    scores = rng.normal(size=(L, m, 2)) + signal * np.stack([Y["a"], Y["b"]], axis=1)
    return LeftOut(tasks, np.ones(m), scores)


def test_real_order_is_told_from_chance():
    assert p_value([left_out(1.0, seed) for seed in (0, 1)], [0.5, 0.5]) == 1 / 200


def test_under_the_null_small_p_values_are_as_rare_as_they_say():
    found = np.array([p_value([left_out(0.0, seed)], [0.5, 0.5], 99, seed) for seed in range(200)])
    # 200 tests at 0.05: more than 18 rejections have a probability below 0.01.
    assert (found <= 0.05).sum() <= 18
    assert 0.4 < found.mean() < 0.6


def test_a_fold_that_can_not_be_scored_counts_for_nothing():
    fold = left_out(0.0, 0)
    tied = [task.at(np.zeros(40, dtype=int)) for task in fold.tasks]
    assert p_value([LeftOut(tied, fold.weight, fold.scores)], [0.5, 0.5]) == 1.0
    good = left_out(1.0, 1)
    assert p_value([LeftOut(tied, fold.weight, fold.scores), good], [0.5, 0.5]) == 1 / 200


def test_rows_of_one_group_are_no_evidence_of_their_own():
    found = {"rows": [], "groups": []}
    for seed in range(40):
        fold = left_out(0.0, seed, m=12)
        patient = np.repeat(np.arange(12), 4)
        fold = LeftOut([task.at(patient) for task in fold.tasks], np.ones(48), fold.scores[:, patient])
        found["rows"].append(p_value([fold], [0.5, 0.5], 99, seed))
        found["groups"].append(p_value([fold._replace(groups=patient)], [0.5, 0.5], 99, seed))
    assert np.mean(np.array(found["rows"]) <= 0.05) > 0.3
    # Of 40 tests at 0.05, more than 6 rejections have a probability below 0.01.
    assert np.sum(np.array(found["groups"]) <= 0.05) <= 6
