"""What an arm is for, by its label: groups of tasks, or a control that they must be held against.

A gain of group-wise updates has four explanations, and only one is that the right tasks share a group. Each control
takes the others away one by one: `steps` has as many optimizer steps on every batch, `epochs` as many in all at equal
compute, `random` as many groups with other tasks in them, `fixed` a partition that never changes.
"""

from typing import Literal

from motet.study.results import GROUPS, SUM

Role = Literal["groups", "random", "fixed", "steps", "epochs"]

EXPLAINED: dict[Role, str] = {
    "groups": "one update a group of tasks, learnt while training",
    "random": "control: groups drawn at random, kept from the first batch to the last",
    "fixed": "control: the same groups from the first batch to the last",
    "steps": "control: plain sum, several optimizer steps on every batch",
    "epochs": "control: plain sum, trained for several times the epochs",
}
"""What an arm is, in half a line."""


def role(label: str) -> Role | None:
    """What an arm is for, by its label; None where it has to do with neither groups nor their controls.

    >>> role("groups:estimator=regression"), role("groups:random=3"), role("sum:steps=groups"), role("sum")
    ('groups', 'random', 'steps', None)
    """
    head, _, rest = label.partition("@")[0].partition(":")
    first = rest.partition(",")[0].partition("=")[0]
    if head == SUM and first in ("steps", "epochs"):
        return "steps" if first == "steps" else "epochs"
    if head != GROUPS:
        return None
    return "random" if first == "random" else "fixed" if first == "fixed" else "groups"
