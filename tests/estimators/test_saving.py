"""Saved states: what comes back, what is refused, and that nothing runs."""

import json
import math
import pickle

import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays
from safetensors.numpy import save_file

from motet.estimators.outcomes import Outcome
from motet.estimators.saving import load, save


def same(a, b):
    if isinstance(a, np.ndarray):
        assert type(b) is np.ndarray
        assert (a.dtype, a.shape) == (b.dtype, b.shape)
        np.testing.assert_array_equal(a, b)
    elif isinstance(a, torch.Tensor):
        assert isinstance(b, torch.Tensor)
        assert a.dtype == b.dtype
        assert torch.equal(a, b)
    elif isinstance(a, dict):
        assert list(a) == list(b)
        for key in a:
            same(a[key], b[key])
    elif isinstance(a, list | tuple):
        assert type(a) is type(b)
        for left, right in zip(a, b, strict=True):
            same(left, right)
    else:
        assert type(a) is type(b)
        assert a == b or (a != a and b != b)


def round_trip(tmp_path, state):
    save(tmp_path / "fit.motet", "Net", state)
    return load(tmp_path / "fit.motet", "Net")


def test_everything_comes_back_with_its_type(tmp_path):
    state = {
        "numbers": [1, 2.5, math.inf, -math.inf, math.nan, True, None, "NaN", "#NaN", 10**30, -0.0],
        "pair": ("a", ("b", [])),
        "arrays": {"scalar": np.array(3.5), "empty": np.zeros((32, 0), np.float32), "mask": np.eye(3, dtype=bool)},
        "tensor": torch.arange(6, dtype=torch.float32).reshape(2, 3),
        "names": np.array(["größe", "", "\ud800"], dtype=object),
        "labels": np.array([["a", "bcd"]]),
        "#": {"#": "array", "name": "0"},
        "a.b": np.ones(1),
        "a": {"b": np.zeros(1)},
        "": {},
    }
    same(state, round_trip(tmp_path, state))


def test_views_and_foreign_byte_orders_keep_their_values(tmp_path):
    base = np.arange(12.0).reshape(3, 4)
    state = {"t": base.T, "step": base[::2, ::-1], "big": base.astype(">f8"), "tensor": torch.tensor(base).T}
    loaded = round_trip(tmp_path, state)
    for key in state:
        np.testing.assert_array_equal(loaded[key], state[key])


def test_numpy_scalars_become_python_numbers(tmp_path):
    same({"a": 1.5, "b": 2, "c": True}, round_trip(tmp_path, {"a": np.float32(1.5), "b": np.int64(2), "c": np.True_}))


def test_an_outcome_can_be_made_from_its_saved_fields(tmp_path):
    outcome = Outcome("grade", "ordinal", ("grade",), (1, 2, 3), notes=("n",))
    assert Outcome(**round_trip(tmp_path, {"outcome": vars(outcome)})["outcome"]) == outcome


TREES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text() | arrays.arrays(np.float64, (2, 1)),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=3), inner, max_size=3),
    max_leaves=8,
)


@given(st.dictionaries(st.text(), TREES, max_size=4))
@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_any_state_comes_back(tmp_path, state):
    same(state, round_trip(tmp_path, state))


# What is refused


@pytest.mark.parametrize(
    ("message", "value"),
    [
        (r"state.a.f\[1\] is a function", {"f": [1, lambda: 0]}),
        (r"state.a has the key 1", {1: 2}),
        (r"state.a is an array of datetime64", np.array(["2020-01-01"], dtype="datetime64[D]")),
        (r"state.a is an array of object", np.array([1, "a"], dtype=object)),
        (r"state.a is a complex", 1j),
        (r"state.a is a set", {1, 2}),
    ],
)
def test_what_has_no_form_is_refused_with_its_place_and_leaves_the_old_file(tmp_path, message, value):
    save(tmp_path / "fit.motet", "Net", {"old": 1})
    with pytest.raises(TypeError, match=message):
        save(tmp_path / "fit.motet", "Net", {"a": value})
    assert load(tmp_path / "fit.motet", "Net") == {"old": 1}
    assert [path.name for path in tmp_path.iterdir()] == ["fit.motet"]


def test_a_file_that_could_not_be_written_leaves_the_old_one_and_nothing_else(tmp_path, monkeypatch):
    def fails(arrays, path, metadata):
        path.write_bytes(b"half")
        raise OSError("disk full")

    save(tmp_path / "fit.motet", "Net", {"old": 1})
    monkeypatch.setattr("motet.estimators.saving.save_file", fails)
    with pytest.raises(OSError, match="disk full"):
        save(tmp_path / "fit.motet", "Net", {"new": 1})
    assert load(tmp_path / "fit.motet", "Net") == {"old": 1}
    assert [path.name for path in tmp_path.iterdir()] == ["fit.motet"]


def test_other_files_are_refused(tmp_path):
    path = tmp_path / "fit.motet"
    with pytest.raises(FileNotFoundError, match="there is no file"):
        load(path, "Net")
    for content in (b"", b"\x00" * 100, pickle.dumps({"a": 1})):
        path.write_bytes(content)
        with pytest.raises(ValueError, match="is no saved estimator of motet, or is damaged"):
            load(path, "Net")
    save_file({"a": np.ones(2)}, path)
    with pytest.raises(ValueError, match="is no saved estimator"):
        load(path, "Net")


def test_a_file_that_was_cut_is_refused_wherever_it_was_cut(tmp_path):
    path = tmp_path / "fit.motet"
    save(path, "Net", {"a": np.ones(5), "b": ["x"]})
    whole = path.read_bytes()
    for length in range(0, len(whole), 7):
        path.write_bytes(whole[:length])
        with pytest.raises(ValueError, match="damaged"):
            load(path, "Net")


def test_another_kind_or_format_is_refused(tmp_path):
    path = tmp_path / "fit.motet"
    save(path, "Net", {})
    with pytest.raises(ValueError, match="holds a Net, not a Forest: load it with Net"):
        load(path, "Forest")
    save_file({}, path, metadata={"motet": json.dumps({"format": 99, "kind": "Net", "state": {}})})
    with pytest.raises(ValueError, match="is of format 99"):
        load(path, "Net")


@pytest.mark.parametrize(
    "state", [{"a": {"#": "array", "name": "gone"}}, {"a": {"#": "call"}}, {"a": {"#": "text"}}, 3]
)
def test_an_entry_that_was_edited_is_refused(tmp_path, state):
    save_file({}, tmp_path / "fit", metadata={"motet": json.dumps({"format": 1, "kind": "Net", "state": state})})
    with pytest.raises(ValueError, match="is damaged"):
        load(tmp_path / "fit", "Net")
