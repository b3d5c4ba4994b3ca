"""Tables for tests, and the check of an error."""

import numpy as np
import pandas as pd
import pytest

from motet.problems.table import from_table


def patients(rows=200, seed=0):
    """A table with outcomes of every kind, holes, and columns of every type."""
    r = np.random.default_rng(seed)
    age, sex = r.normal(60, 12, rows), r.choice(["f", "m"], rows)
    table = pd.DataFrame(
        {
            "patient": np.repeat(np.arange(rows // 4), 4)[r.permutation(rows)],
            "visit": pd.date_range("2020-01-01", periods=rows, freq="31h").astype(str).to_numpy()[r.permutation(rows)],
            "age": age,
            "sex": sex,
            "smoker": r.random(rows) < 0.4,
            "ward": r.choice(["a", "b", "c"], rows, p=[0.6, 0.38, 0.02]),
            "code": [f"case {i}" for i in range(rows)],
            "site": "north",
            "survival": 0.05 * age + r.normal(size=rows),
            "relapse": np.where(age + r.normal(0, 10, rows) > 60, "yes", "no"),
            "stage": r.integers(1, 5, rows),
        }
    )
    table.loc[r.random(rows) < 0.2, "age"] = np.nan
    table.loc[r.random(rows) < 0.1, "ward"] = None
    table.loc[r.random(rows) < 0.3, "survival"] = np.nan
    table.loc[r.random(rows) < 0.3, "relapse"] = None
    return table


TARGETS = ["survival", "relapse", "stage"]


def refuses(message, source, targets=("survival",), **options):
    with pytest.raises(ValueError, match=message) as caught:
        from_table(source, targets, **options)
    assert "\n" not in str(caught.value)
