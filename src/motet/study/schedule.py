"""What is to be trained, in which order, and what has to be there before."""

from collections.abc import Container, Sequence

from motet.study.arms import Arm
from motet.study.results import GROUPS, SINGLE

Item = tuple[Arm, int]


def ordered(arms: Sequence[Arm], seeds: Sequence[int], done: Container[tuple[str, int]]) -> list[Item]:
    """Arms times seeds without what is done: seed by seed, and within a seed what waits for others comes last."""
    first = sorted(arms, key=lambda arm: (arm.label != SINGLE, arm.follows))
    return [(arm, seed) for seed in seeds for arm in first if (arm.label, seed) not in done]


def is_ready(item: Item, done: Container[tuple[str, int]]) -> bool:
    """Whether all that this run needs to know of others is there.

    The epoch of a shared model is chosen against the single-task models of its seed; and some arms take their number
    of groups from the run of `groups`.
    """
    arm, seed = item
    if arm.label == SINGLE:
        return True
    return (SINGLE, seed) in done and (not arm.follows or (GROUPS, seed) in done)


def alone(arms: Sequence[Arm], here: bool = False) -> str:
    """Why the controls among these arms can't be trained without the arm `groups`; empty where it is there too."""
    following = [arm.label for arm in arms if arm.follows]
    if here or not following or any(arm.label == GROUPS for arm in arms):
        return ""
    return (
        f"{following[0]} takes its number of groups from the arm {GROUPS}, which is not in this study: add {GROUPS} to "
        "the arms, or write a number, as in sum:steps=3, sum:epochs=3 or groups:random=3"
    )


def check_followers(items: Sequence[Item], done: Container[tuple[str, int]]) -> None:
    """Refuse a control whose `groups` run is neither there nor to come.

    Raises:
        ValueError: that names it.
    """
    for seed in dict.fromkeys(seed for _, seed in items):
        if why := alone([arm for arm, other in items if other == seed], (GROUPS, seed) in done):
            raise ValueError(why)
