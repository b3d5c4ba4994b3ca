"""Problems by name."""

import pytest

from motet import problems


def test_all_problems_are_listed_under_their_own_name():
    views = ["mfeat", "yeast-views", "musk", "ucsb", "birds", "mnist-bags", "icons", "movies"]
    assert problems.available()[:12] == ["digits-overlay", "qm9-mini", "yeast", "pbmc", *views]
    for name in problems.available():
        problem = problems.get(name)
        assert problem.name == name
        assert problem.title
        assert problem.source
        assert problem.package is None or problem.package.problem == name


@pytest.mark.parametrize("name", ["digits-overlay", "Digits_Overlay", "DIGITSOVERLAY", "digits"])
def test_spelling_and_aliases_do_not_matter(name):
    assert problems.get(name).name == "digits-overlay"


@pytest.mark.parametrize(("name", "hint"), [("yest", "did you mean 'yeast'"), ("xyzzy", "`motet problems` lists them")])
def test_an_unknown_name_is_answered_with_the_nearest(name, hint):
    with pytest.raises(ValueError, match=f"no problem '{name}': {hint}"):
        problems.get(name)


def test_a_bundled_problem_needs_no_fetch():
    assert problems.fetch("digits") is None
