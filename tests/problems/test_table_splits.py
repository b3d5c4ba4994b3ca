"""Splits of a table that would leave a target without what it needs: drawn again, or refused before training."""

import re

import numpy as np
import pandas as pd
import pytest
import torch

from motet.problems import splits
from motet.problems.table import from_table
from tests.problems.tables import refuses


def few_groups(positive, seed=0):
    """40 groups of 5 rows; the class "yes" is in one row of each of the groups ``positive``."""
    r = np.random.default_rng(seed)
    table = pd.DataFrame({"site": np.repeat(np.arange(40), 5), "x": r.normal(size=200), "y": r.normal(size=200)})
    table["event"] = "no"
    table.loc[[group * 5 for group in positive], "event"] = "yes"
    return table


def test_splits_by_group_are_drawn_again_until_every_part_has_both_classes():
    problem = from_table(few_groups([3, 17, 30]), ["y", "event"], group="site")
    notes = []
    for seed in range(20):
        data = problem.load(seed)
        for part in (data.train, data.validation, data.test):
            assert set(part.targets["event"].tolist()) == {0, 1}
        assert torch.equal(data.train.inputs, problem.load(seed).train.inputs)
        notes += [note for note in data.notes if f"the split of seed {seed} was drawn again" in note]
    assert notes
    assert re.search(
        r"drawn again (once|\d+ times): first, target 'event' has one class only in the \w+ part", notes[0]
    )
    assert "drawn again where a part would lack labels or a class" in " ".join(problem.describe())


def test_a_first_split_that_serves_every_target_is_kept():
    table = few_groups(range(40))
    train, _, test = splits.grouped(table["site"].to_numpy(), 5)
    data = from_table(table, ["y", "event"], group="site").load(5)
    expected = (table["y"].iloc[test] - table["y"].iloc[train].mean()) / table["y"].iloc[train].std(ddof=0)
    torch.testing.assert_close(data.test.targets["y"], torch.tensor(expected.to_numpy(), dtype=torch.float32))
    assert not any("drawn again" in note and "seed 5" in note for note in data.notes)


def test_random_splits_are_drawn_again_for_the_target_that_they_are_not_stratified_by():
    x = np.random.default_rng(0).normal(size=100)
    table = pd.DataFrame({"x": x, "a": [1] * 4 + [0] * 96, "b": [0] * 90 + [1] * 5 + [0] * 5})
    problem = from_table(table, ["a", "b"])
    for seed in range(20):
        data = problem.load(seed)
        for part in (data.train, data.validation, data.test):
            assert set(part.targets["a"].tolist()) == set(part.targets["b"].tolist()) == {0, 1}


@pytest.mark.parametrize("positive", [[3, 17], [3]])
def test_a_class_in_too_few_groups_or_rows_is_an_error_before_any_seed(positive):
    groups = "2 groups" if len(positive) == 2 else "1 group"
    message = f"target 'event' has class 'yes' in {groups} of 'site', and training, validation and test"
    refuses(message, few_groups(positive), ["event"], group="site")
    rows = groups.replace("group", "row")
    refuses(f"target 'event' has class 'yes' in {rows}, and", few_groups(positive), ["event"], drop="site")


def test_labels_in_too_few_groups_are_an_error_before_any_seed():
    table = few_groups([1, 2, 3, 4])
    table.loc[10:, "y"] = np.nan
    refuses("target 'y' has labels in 2 groups of 'site'", table, ["y", "event"], group="site")


def test_needs_that_exclude_each_other_are_an_error_before_any_seed():
    """Groups 0, 1, 2 must be in different parts, then 3 with 2, and with 1."""
    table = few_groups([0, 1, 2]).assign(other=0, third=0)
    table.loc[[0, 5, 15], "other"] = 1
    table.loc[[0, 10, 15], "third"] = 1
    message = "none of 200 random splits with seed 0 serves every target; in the last, target '"
    refuses(message, table, ["event", "other", "third"], group="site")


def test_a_split_by_time_that_serves_no_target_is_an_error_before_any_seed():
    x = np.random.default_rng(0).normal(size=100)
    table = pd.DataFrame({"x": x, "z": x[::-1], "t": range(100), "y": [0, 1] * 30 + [1] * 40})
    refuses("target 'y' has one class only in the validation part", table, ["y"], time="t")
    refuses("the training part has no rows, since too many have the same time", table.assign(t=1.0), ["y"], time="t")
    table["y"] = [0.5] * 60 + [2.5] * 40
    refuses("target 'y' has one value only in the training part", table, ["y:regression"], time="t")
    table["y"] = np.where(np.arange(100) < 50, x, np.nan)
    refuses("target 'y' has no label in the validation part", table, ["y", "z"], time="t")
