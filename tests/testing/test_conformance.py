"""The record of which methods conform: what is in it, and that it is what is measured now."""

import json

import pytest

from motet import methods
from motet.testing import conformance, oracle
from tests.oracles import ORACLES

RECORD = json.loads(conformance.PATH.read_text(encoding="utf-8"))


def test_the_record_covers_exactly_the_registry():
    assert list(RECORD) == methods.available()


def test_every_method_passes():
    assert [name for name, record in RECORD.items() if not record["passes"]] == []


def test_the_record_says_which_methods_have_been_compared_with_their_definition():
    assert {name for name, record in RECORD.items() if record["oracle"]} == set(ORACLES)
    assert all(("oracle_covers" in record) is (name in ORACLES) for name, record in RECORD.items())


@pytest.mark.parametrize(
    ("name", "covers"),
    [
        ("mgda", "every update"),
        ("rlw", "every update"),  # random numbers alone
        ("dwa", "first update"),
        ("famo", "first update"),
        ("sdm-grad", "first update"),  # a second batch, too
    ],
)
def test_an_oracle_is_the_whole_definition_only_where_nothing_is_kept_between_steps(name, covers):
    assert RECORD[name]["oracle_covers"] == covers
    assert oracle.first_is_all(lambda: methods.get(name)) is (covers == "every update")


@pytest.mark.parametrize("name", RECORD)
def test_what_is_declared_is_what_was_seen(name):
    record = RECORD[name]
    if record["scale_declared"] is not None:
        assert record["scale"] == pytest.approx(record["scale_declared"], abs=1e-3)
    assert record["never_conflicted"] or not record["no_conflict_declared"]


@pytest.mark.parametrize("name", methods.available())
def test_what_is_measured_now_is_what_the_record_has(name):
    recorded = {key: RECORD[name][key] for key in RECORD[name] if key not in ("passes", "oracle", "oracle_covers")}
    assert conformance.differences({name: recorded}, {name: conformance.figures(name)}) == []


def test_a_record_that_is_stale_is_told_line_by_line():
    now = {"mgda": {"passes": True, "scale": 1.0, "length_agreeing": 0.5}, "new": {"passes": True}}
    assert conformance.differences(now, now) == []
    was = {"mgda": {"passes": True, "scale": None, "length_agreeing": 0.5004}, "gone": {"passes": True}}
    assert conformance.differences(was, now) == [
        "gone: no longer a method",
        "mgda: scale is 1.0, and the record has None",
        "new: not in the record",
    ]
    was["mgda"]["length_agreeing"] = 0.502
    assert "mgda: length_agreeing is 0.5, and the record has 0.502" in conformance.differences(was, now)


@pytest.fixture
def two_methods(monkeypatch, tmp_path):
    monkeypatch.setattr(conformance, "PATH", tmp_path / "conformance.json")
    monkeypatch.setattr(methods, "available", lambda: ["sum", "gls"])
    monkeypatch.setattr("tests.oracles.ORACLES", {"sum": ORACLES["sum"]})
    return conformance.PATH


def test_writing_and_then_checking_finds_nothing(two_methods, capsys):
    assert conformance.main(["--check"]) == 1
    assert "sum: not in the record" in capsys.readouterr().out
    assert conformance.main([]) == 0
    assert "2 methods, 2 pass, 1 beside their definition, 0 beside its first update" in capsys.readouterr().out
    written = json.loads(two_methods.read_text(encoding="utf-8"))
    assert list(written) == ["sum", "gls"]
    assert written["sum"]["length_agreeing"] == 5.0
    assert written["sum"]["oracle"] == "The gradients added up"
    assert written["gls"]["oracle"] is False
    before = two_methods.read_bytes()
    assert conformance.main(["--check"]) == 0
    assert two_methods.read_bytes() == before


def test_a_record_of_other_figures_is_stale(two_methods, capsys):
    conformance.main([])
    record = json.loads(two_methods.read_text(encoding="utf-8"))
    record["gls"]["length_conflicting"] *= 1.01
    two_methods.write_text(json.dumps(record), encoding="utf-8")
    capsys.readouterr()
    assert conformance.main(["--check"]) == 1
    assert "gls: length_conflicting is" in capsys.readouterr().out


def test_a_method_that_fails_its_definition_fails_the_record(two_methods, monkeypatch, capsys):
    monkeypatch.setattr("tests.oracles.ORACLES", {"sum": lambda jacobian: jacobian.mean(0)})
    assert conformance.main([]) == 1
    assert "sum: the oracle: at worst" in capsys.readouterr().out
    assert json.loads(two_methods.read_text(encoding="utf-8"))["sum"]["passes"] is False


def test_an_oracle_of_no_method_is_an_error(two_methods, monkeypatch, capsys):
    monkeypatch.setattr("tests.oracles.ORACLES", {"summ": ORACLES["sum"]})
    with pytest.raises(SystemExit):
        conformance.main([])
    assert "no method: summ" in capsys.readouterr().err
