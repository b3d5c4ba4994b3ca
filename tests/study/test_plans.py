"""Arms that update group by group, and their controls: one label each, and no value that is refused only later."""

import pytest

from motet.study.arms import parse, parse_all
from motet.study.plans import Grouped, Repeats
from motet.study.roles import role


@pytest.mark.parametrize(
    ("text", "label"),
    [
        ("Groups", "groups"),
        ("groups:grouping=correlation,decay=0.0010", "groups"),
        ("groups:warmup=20,estimator=regression", "groups:estimator=regression,warmup=20"),
        ("groups:method=FairGrad", "groups:method=fair-grad"),
        ("groups:method=fair-grad@exact", "groups:method=fair-grad@exact"),
        ("groups:explore=.1@auto", "groups:explore=0.1"),
        ("groups:released", "groups:released"),
        ("groups:released,decay=1e-4", "groups:released,decay=0.0001"),
        ("groups:fixed=[[2], [1,0]]", "groups:fixed=[[0,1],[2]]"),
        ("groups:fixed=[[0,1],[2]],order=theorem-5", "groups:fixed=[[0,1],[2]],order=theorem-5"),
        ("groups:random", "groups:random"),
        ("groups:random=groups", "groups:random"),
        ("groups:random=3", "groups:random=3"),
        ("sum:steps=3", "sum:steps=3"),
        ("sum:steps=groups", "sum:steps=groups"),
        ("sum:epochs=groups", "sum:epochs=groups"),
        ("sum:epochs=1", "sum"),
    ],
)
def test_one_way_of_grouping_has_one_label_that_reads_back_as_itself(text, label):
    assert parse(text).label == label
    assert parse(label) == parse(text)


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("groups:decai=0.1", "did you mean 'decay'"),
        ("groups:decay=2", "decay"),
        ("groups:measure=guess", "measure"),
        ("groups:warmup=-1", "warmup"),
        ("groups:seed=3", "no option 'seed'"),
        ("groups:grouping=random", "groups:random=3"),
        ("groups:grouping=[[0],[1]]", r"groups:fixed=\[\[0\],\[1\]\]"),
        ("groups:random=0", "whole number of at least 1"),
        ("groups:random=2,max_groups=2", "grouping itself"),
        ("groups:fixed=[0,1]", "list of groups"),
        ("groups:fixed=[[0,2]]", "list of groups"),
        ("groups:fixed=[[0],[0]]", "list of groups"),
        ("groups:method=modo", "second batch"),
        ("groups:method=nope", r"arm 'groups:method=nope': there is no method 'nope'"),
        ("groups:randm", r"arm 'groups:randm': 'randm' is no way to group: did you mean 'random'\?"),
        ("groups:Relesed,decay=0.1", "did you mean 'released'"),
        ("groups:quick", "'quick' is no way to group: write its options as name=value"),
        ("groups:fixed", r"as in fixed=\[\[0,1\],\[2\]\]"),
        ("groups:released,random=2", "released and random are different ways to group: keep one"),
        ("groups:random=2,released", "random and released are different ways to group: keep one"),
        ("groups:random,fixed=[[0,1]]", "random and fixed are different ways to group: keep one"),
        ("groups:fixed=[[0,1]],random=2", "fixed and random are different ways to group: keep one"),
        ("groups:decay=0.1,random", "random stands first, as in groups:random,decay=0.1"),
        ("groups:released,measure=jvp", "released"),
        ("ema+groups", "takes no wrapper"),
        ("sum:steps=2.5", "whole number"),
        ("sum:steps=0", "whole number"),
        ("sum:steps=2,epochs=2", "stands alone"),
        ("sum:steps=2@exact", "no route"),
        ("log+sum:epochs=2", "no wrapper"),
        ("grups", "'groups'"),
    ],
)
def test_what_can_not_be_trained_is_refused_with_the_reason(text, says):
    with pytest.raises(ValueError, match=says):
        parse(text)


def test_controls_of_one_label_are_trained_once():
    labels = [arm.label for arm in parse_all(["groups:random=groups", "groups", "groups:random", "sum:steps=1"])]
    assert labels == ["stl", "sum", "groups:random", "groups"]


def test_which_arms_wait_for_the_groups_arm():
    waiting = {text for text in ("groups", "groups:random=2", "groups:random", "sum:steps=groups", "sum:epochs=groups",
                                 "sum:steps=2", "groups:released", "fair-grad") if parse(text).follows}  # fmt: skip
    assert waiting == {"groups:random", "sum:steps=groups", "sum:epochs=groups"}


def test_a_fixed_partition_must_hold_every_task_and_no_more():
    arm = parse("groups:fixed=[[0,1],[2]]")
    arm.check(["a", "b", "c"])
    with pytest.raises(ValueError, match=r"'groups:fixed=\[\[0,1\],\[2\]\]'.*0 a, 1 b, 2 c, 3 d"):
        arm.check(["a", "b", "c", "d"])
    with pytest.raises(ValueError, match="more groups than there are tasks"):
        parse("groups:random=4").check(["a", "b"])


def test_the_plan_holds_what_the_label_says():
    assert parse("sum:epochs=groups").plan == Repeats("epochs", None)
    assert parse("groups:fixed=[[1],[0]]").plan == Grouped("fixed", groups=((0,), (1,)))
    assert parse("groups:random=2,warmup=5").plan == Grouped("random", (("warmup", 5),), number=2)
    assert parse("fair-grad").plan is None


@pytest.mark.parametrize(
    ("label", "found"),
    [
        ("groups", "groups"),
        ("groups@exact", "groups"),
        ("groups:released", "groups"),
        ("groups:random,warmup=5", "random"),
        ("groups:fixed=[[0]]", "fixed"),
        ("sum:steps=groups", "steps"),
        ("sum:epochs=2", "epochs"),
        ("sum@exact", None),
        ("fair-grad:alpha=1", None),
        ("stl", None),
    ],
)
def test_what_an_arm_is_for_can_be_told_by_its_label(label, found):
    assert role(label) == found
