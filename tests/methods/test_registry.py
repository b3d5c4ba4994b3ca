"""The registry: names, did-you-mean, and what the docs are made from."""

import pytest

from motet import methods

LOSSES = ["sum", "si", "gls", "uw", "dwa", "rlw", "imtl-l", "famo", "stch"]
GRAM = ["mgda", "pcgrad", "cagrad", "imtl-g", "nash-mtl", "fair-grad", "aligned-mtl", "upgrad", "dual-proj", "db-mtl"]
NAMES = methods.available()


def test_names_that_outside_programs_call_stay():
    assert {*LOSSES, *GRAM, "grad-drop", "grad-vac"} <= set(NAMES)
    assert len(NAMES) == len(set(NAMES)) > 60


@pytest.mark.parametrize("name", NAMES)
def test_every_method_can_be_documented_from_its_source(name):
    entry = methods.entry(name)
    assert entry.title
    assert entry.reference
    assert entry.summary
    assert entry.cls is getattr(methods, entry.cls.__name__)
    assert entry.cls.__doc__ is not None
    for section in ("Shapes:", "Scale:", "Cost:"):
        assert section in entry.cls.__doc__
    for option in entry.options:
        assert option.help, option.name


@pytest.mark.parametrize("name", NAMES)
def test_the_declared_cost_is_what_the_method_needs(name):
    method, cost = methods.get(name), methods.entry(name).cost
    assert method.needs == ("losses" if cost == "extra-forward" else cost)
    assert method.wants_feedback == (cost == "extra-forward")


@pytest.mark.parametrize("spelling", ["fair-grad", "FairGrad", "fair_grad", "FAIRGRAD"])
def test_spelling_does_not_matter(spelling):
    assert isinstance(methods.get(spelling), methods.FairGrad)


def test_an_unknown_name_suggests_the_nearest():
    with pytest.raises(ValueError, match="'upgard': did you mean 'upgrad'"):
        methods.get("upgard")


def test_an_unknown_option_suggests_the_nearest():
    with pytest.raises(ValueError, match="fair-grad has no option 'alhpa': did you mean 'alpha'"):
        methods.get("fair-grad", alhpa=1.0)


def test_options_show_in_the_repr():
    assert repr(methods.get("famo", gamma=0.5)) == "FAMO(gamma=0.5, lr=0.025, lower_bound=0.0)"
