"""One way of training has one name, however it is written."""

import pytest

import motet
from motet.study.arms import parse, parse_all


@pytest.mark.parametrize(
    ("text", "label"),
    [
        ("FairGrad", "fair-grad"),
        ("fair-grad:alpha=2", "fair-grad"),
        ("fair-grad:alpha=2.0@auto", "fair-grad"),
        ("fair_grad:alpha=1", "fair-grad:alpha=1"),
        ("fair-grad:alpha=1.0", "fair-grad:alpha=1"),
        ("fair-grad:alpha=0.1", "fair-grad:alpha=0.1"),
        ("fair-grad@exact", "fair-grad@exact"),
        ("single", "stl"),
        ("EMA+log+MGDA", "ema=0.9+log+mgda"),
        ("ema=.50+fair-grad:alpha=1@exact", "ema=0.5+fair-grad:alpha=1@exact"),
        ("every+nash-mtl", "every=10+nash-mtl"),
        ("uw:lr=1e+0", "uw:lr=1"),
        ("constant:weights=(1, 2.5,3)", "constant:weights=[1,2.5,3]"),
        ("gcond:thresholds=[-0.9,-0.5]", "gcond:thresholds=[-0.9,-0.5]"),
        ("gcond:thresholds=(-0.8, -0.5)", "gcond"),
        ("Prefer=[2,1]+mgda", "prefer=[2,1]+mgda"),
    ],
)
def test_aliases_share_one_label_and_one_label_reads_back_as_itself(text, label):
    assert parse(text).label == label
    assert parse(label) == parse(text)


def test_aliases_are_trained_once():
    labels = [arm.label for arm in parse_all(["fair-grad", "fair-grad:alpha=2.0", "fair-grad@auto", "sum@exact"])]
    assert labels == ["stl", "sum", "fair-grad", "sum@exact"]


def test_options_in_another_order_are_the_same_arm():
    from motet import methods

    several = next(
        entry
        for entry in map(methods.entry, methods.available())
        if sum(isinstance(option.default, float) for option in entry.options) > 1
    )
    first, second = [option.name for option in several.options if isinstance(option.default, float)][:2]
    there, back = f"{first}=0.125,{second}=0.25", f"{second}=0.25,{first}=0.125"
    assert parse(f"{several.name}:{back}") == parse(f"{several.name}:{there}")


def test_an_option_given_twice_is_refused():
    with pytest.raises(ValueError, match="one option twice"):
        parse("fair-grad:alpha=1,alpha=3")


def test_a_wrapped_arm_is_the_method_in_its_wrappers():
    method = parse("ema=0.5+log+mgda").balancer(("a", "b"), seed=0).method
    assert repr(method) == "EMA(method=LogLosses(method=MGDA(normalise='none')), beta=0.5)"


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("evry+mgda", "no wrapper 'evry': did you mean 'every'"),
        ("every=2.5+mgda", "whole number of at least 1, not 2.5"),
        ("ema=x+mgda", "ema takes a number, as in ema=0.9"),
        ("log=3+mgda", "log takes no value"),
        ("log+gls", "logarithms of losses are not"),
        ("ema+stl", "stl takes no options, no wrapper"),
    ],
)
def test_a_wrapper_that_can_not_be_is_refused_with_the_arm(text, message):
    with pytest.raises(ValueError, match=message) as caught:
        parse(text)
    assert text in str(caught.value)


def test_an_arm_is_text():
    with pytest.raises(TypeError, match="an arm is text, such as 'ema\\+fair-grad:alpha=2', and no FairGrad"):
        parse_all([motet.methods.FairGrad()])
