"""What can't be changed once a study has begun, and what is remembered of how it was run."""

from dataclasses import replace

import pytest

from motet.problems.base import Data
from motet.study.files import StoreError
from motet.study.results import Rule
from motet.study.study import Study, opened
from tests.study.tiny import TINY

ARMS = ("fair-grad", "famo")


@pytest.fixture(scope="module")
def study(tmp_path_factory) -> Study:
    return Study(TINY, ARMS, seeds=2, out=tmp_path_factory.mktemp("study") / "runs").run()


def test_the_rule_is_fixed_with_the_first_run(tmp_path):
    out = tmp_path / "runs"
    rule = Rule(margin=7.0, worst_task=50.0)
    first = Study(TINY, (), seeds=1, out=out, rule=rule).run()
    assert first.summary().rule == rule
    assert opened(out).summary().rule == rule
    assert Study(TINY, (), seeds=1, out=out, resume=True).run().summary().rule == rule
    assert Study(TINY, (), seeds=1, out=out, resume=True, rule=rule).run().summary().rule == rule
    changed = Study(TINY, (), seeds=1, out=out, resume=True, rule=Rule(margin=30.0))
    message = r"fixed before its first result as alpha 0\.05, margin 7, worst task 50.* can't become .*margin 30"
    with pytest.raises(StoreError, match=message):
        changed.run()
    with pytest.raises(StoreError, match=message):
        changed.summary()


@pytest.mark.parametrize("seeds", [[0, 1], [1], [1, 2]])
def test_changed_data_are_noticed_with_work_left_and_without(study, seeds):
    def changed(seed: int) -> Data:
        data = TINY.load(seed)
        data.train.inputs[0, 0] += 1
        return data

    before = sorted((study.folder / "runs").iterdir())
    with pytest.raises(StoreError, match="data of seed 0 are not those"):
        Study(replace(TINY, load=changed), ARMS, seeds=seeds, out=study.folder, resume=True).run()
    assert sorted((study.folder / "runs").iterdir()) == before


def test_data_of_one_seed_that_changed_are_noticed_before_they_are_trained_on(study):
    def changed(seed: int) -> Data:
        data = TINY.load(seed)
        data.train.inputs[0, 0] += seed == 1
        return data

    with pytest.raises(StoreError, match="data of seed 1 are not those"):
        Study(replace(TINY, load=changed), (*ARMS, "si"), seeds=[1], out=study.folder, resume=True).run()


def test_arms_and_seeds_that_were_tried_stay_in_the_table_and_in_holm(tmp_path):
    out = tmp_path / "runs"
    every = Study(TINY, ("si", "uw", "famo"), seeds=2, out=out).run()
    fewer = Study(TINY, ("uw",), seeds=1, out=out, resume=True).run()
    assert list(fewer.table().index) == ["stl", "sum", "uw", "famo", "si"]
    assert fewer.table().loc["uw", "p_sum_holm"] == every.table().loc["uw", "p_sum_holm"]
    assert any("after Holm over 3 arms" in reason for reason in fewer.verdict().reasons)
    assert fewer.verdict().seeds == 2
    assert fewer.finished() == 3


def test_every_look_at_more_seeds_is_counted_and_said(tmp_path):
    out = tmp_path / "runs"
    first = Study(TINY, (), seeds=1, out=out).run()
    first.run()  # Nothing new to see.
    assert not any("look" in reason for reason in first.verdict().reasons)
    Study(TINY, (), seeds=2, out=out, resume=True).run()
    last = Study(TINY, (), seeds=3, out=out, resume=True).run()
    text = "This is look 3 at the verdict, after 1, 2 and 3 seeds."
    for again in (last, opened(out)):
        assert any(reason.startswith(text) for reason in again.verdict().reasons)


def test_the_commands_that_made_the_runs_are_kept(tmp_path, monkeypatch):
    out = tmp_path / "runs"
    for arguments in (["/bin/motet", "compare", "a b"], ["train.py"], ["motet", "again"], ["motet", "report"]):
        monkeypatch.setattr("sys.argv", arguments)
        Study(TINY, (), seeds=1 if "compare" in arguments else 2, out=out, resume=True).run()
    page = opened(out).report(tmp_path / "r.html").read_text(encoding="utf8")
    assert "<code>motet compare &#39;a b&#39;</code><br><code>train.py</code></dd>" in page
    assert "motet again" not in page
    assert "pandas" in page
