"""The verdict's table as a data frame, and what in it no clock has measured."""

from dataclasses import asdict
from typing import Any

import pandas as pd

from motet.study.results import Run, Summary

CLOCKS = ("step_cost",)
"""Columns of the table that a clock measured. Two studies with the same settings differ in these alone."""
RUN_CLOCKS = ("seconds", "seconds_per_step", "finished")
"""The same of a run: within its curve, its cost and its provenance."""


def table(summary: Summary) -> pd.DataFrame:
    """One row an arm: Δm with its interval, the comparison with the plain sum, worst task and cost."""
    rows = [
        {
            "arm": arm.arm,
            "seeds": arm.seeds,
            "delta_m": arm.delta_m.mean,
            "delta_m_low": arm.delta_m.low,
            "delta_m_high": arm.delta_m.high,
            "mean_rank": arm.mean_rank,
            "over_sum": arm.over_sum.mean,
            "p_sum_holm": arm.p_sum_holm,
            "worst_task": arm.worst_task,
            "worst_change": arm.worst_change,
            "harmed": len(arm.harmed),
            "step_cost": arm.step_cost,
            "peak_memory_mib": arm.peak_memory_mib,
        }
        for arm in summary.arms
    ]
    return pd.DataFrame(rows).set_index("arm")


def numbers(run: Run) -> dict[str, Any]:
    """All of a run that no clock has measured."""
    row = asdict(run)
    for part in (*row["curve"], row["cost"], row["provenance"]):
        for name in RUN_CLOCKS:
            part.pop(name, None)
    return row
