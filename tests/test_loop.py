"""MODULE:FACTORY: a user's loop is found, and whatever is wrong with it is named."""

import sys

import pytest
import torch
from torch import nn

from motet.loop import Loop, is_factory, load

TRAIN = """
import torch
from motet.loop import Loop

def loop():
    model = torch.nn.Linear(2, 2)
    return Loop(model, lambda x: dict(zip("ab", model(x).pow(2).mean(0))), [torch.ones(3, 2)])

class Experiment:
    @staticmethod
    def loop():
        return loop()

def wants(size):
    return loop()

def nothing():
    pass

def generator():
    return Loop(torch.nn.Linear(2, 2), print, (x for x in [1]))

ready = loop()
number = 3
"""


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """A working directory with modules of names that no other test uses."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", list(sys.path))
    (tmp_path / "my_train_e.py").write_text(TRAIN)
    (tmp_path / "my_broken_e.py").write_text("import no_such_thing_e\n")
    (tmp_path / "my_package_e").mkdir()
    (tmp_path / "my_package_e" / "inner.py").write_text(TRAIN)
    yield tmp_path
    for name in [name for name in sys.modules if name.startswith(("my_train_e", "my_package_e", "my_broken_e"))]:
        del sys.modules[name]


@pytest.mark.parametrize("name", ["my_train_e:loop", "my_train_e:Experiment.loop", "my_package_e.inner:loop"])
def test_a_factory_in_the_current_directory_is_found(folder, name):
    assert is_factory(name)
    loop = load(name)
    assert set(loop.losses(next(iter(loop.batches)))) == {"a", "b"}


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("my_tain_e:loop", "no module 'my_tain_e' in .* or on Python's path"),
        ("my_package_e.outer:loop", "no module 'my_package_e.outer'"),
        ("my_train_e.py:loop", "write it as import does, 'my_train_e'"),
        ("my_package_e/inner.py:loop", "write it as import does, 'my_package_e.inner'"),
        ("my_broken_e:loop", "'my_broken_e' can't be imported: No module named 'no_such_thing_e'"),
        ("./my_train_e:loop", "'./my_train_e' is a path and no module: write it as import does, 'my_train_e'"),
        (".my_train_e:loop", "is a path and no module"),
        ("my_train_e:generator", "can be gone through only once: give a DataLoader"),
        ("my_train_e:lop", "'my_train_e' has no 'lop': did you mean 'loop'"),
        ("my_train_e:Experiment.lop", "no 'lop': did you mean 'loop'"),
        ("my_train_e:wants", "called without arguments, and that fails: .*size"),
        ("my_train_e:nothing", r"must return a motet.Loop and returned None"),
        ("my_train_e:ready", "is a Loop itself"),
        ("my_train_e:number", "is an int and no function"),
        ("my_train_e:", "is no MODULE:FACTORY"),
        (":loop", "is no MODULE:FACTORY"),
    ],
)
def test_what_is_wrong_with_a_name_is_said(folder, name, message):
    with pytest.raises(ValueError, match=message):
        load(name)


def test_an_error_in_the_users_own_code_keeps_its_traceback(folder):
    (folder / "my_train_e2.py").write_text("def loop():\n    return {}['absent']\n")
    with pytest.raises(KeyError, match="absent"):
        load("my_train_e2:loop")


def test_files_and_problems_are_no_factories(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "a:b.csv").write_text("x\n")
    assert not is_factory("a:b.csv")
    assert not is_factory("digits-overlay")
    assert not is_factory("C:\\table.csv")


def piece(**changes):
    model = nn.Linear(2, 2)
    given = {"model": model, "losses": lambda x: {"a": model(x).sum()}, "batches": [torch.ones(1, 2)]}
    return Loop(**(given | changes))


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"model": print}, "model must be a torch.nn.Module, not a builtin"),
        ({"losses": {"a": 1}}, "losses must be a function .* not a dict"),
        ({"batches": 3}, "batches must be something to loop over"),
        ({"optimizer": "adam"}, "optimizer must be a torch.optim.Optimizer or None, not a str"),
        ({"shared": torch.ones(2)}, "shared must be a module or its parameters"),
        ({"shared": 3}, "shared must be a module or its parameters"),
    ],
)
def test_a_piece_that_is_something_else_is_named(changes, message):
    with pytest.raises(TypeError, match=message):
        piece(**changes)


def test_batches_that_can_be_gone_through_only_once_are_refused():
    with pytest.raises(TypeError, match="only once: give a DataLoader"):
        piece(batches=(x for x in [torch.ones(1, 2)]))


def test_shared_parameters_from_a_generator_can_be_read_twice():
    model = nn.Linear(2, 2)
    loop = piece(model=model, shared=model.parameters())
    assert len(list(loop.shared)) == len(list(loop.shared)) == 2
