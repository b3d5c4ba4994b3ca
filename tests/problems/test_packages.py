"""Fetching: pip delivers a pinned file, and nothing else ever stands in the cache under its name."""

import subprocess

import pytest

from motet.problems import DataError, Package, cache, get, yeast
from tests.problems.wheels import pack, yeast_wheel

MEMBERS = {"data/table.csv": b"a,b\n1,2\n"}


@pytest.fixture
def index(tmp_path, monkeypatch):
    """A folder that pip takes for its index; the cache is empty."""
    monkeypatch.setenv("MOTET_DATA", str(tmp_path / "cache"))
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    monkeypatch.setenv("PIP_FIND_LINKS", str(tmp_path / "index"))
    monkeypatch.setenv("PIP_DISABLE_PIP_VERSION_CHECK", "1")
    return tmp_path / "index"


def listing():
    return sorted(path.name for path in cache().iterdir()) if cache().exists() else []


@pytest.mark.parametrize("tags", ["py3-none-any", "cp311-cp311-manylinux_2_28_x86_64", "cp311-cp311-win_amd64"])
def test_fetches_the_pinned_wheel_of_any_platform_and_reads_it(index, tags):
    package = pack(index, Package("demo", "demo-data", "1.2", f"demo_data-1.2-{tags}.whl", "", 0), MEMBERS)
    assert package.fetch() == package.path
    assert package.read("data/table.csv") == [b"a,b\n1,2\n"]
    assert listing() == [package.file]


def test_a_second_fetch_needs_no_index(index, monkeypatch):
    package = yeast_wheel(index)
    package.fetch()
    monkeypatch.setenv("PIP_FIND_LINKS", str(index / "nowhere"))
    assert package.fetch() == package.path


def test_without_the_file_the_error_says_what_to_run(index):
    with pytest.raises(DataError) as caught:
        get("yeast").load(0)
    assert str(caught.value) == (
        "problem 'yeast' needs data from the package river 0.26.1 (2.7 MB): run `motet problems fetch yeast`"
    )


def test_a_file_with_another_digest_is_not_kept(index):
    yeast_wheel(index)
    with pytest.raises(DataError, match=r"gave a river.*nothing was kept for problem 'yeast'"):
        yeast.PACKAGE.fetch()
    assert listing() == []


def test_a_damaged_file_is_named_and_a_fetch_replaces_it(index):
    package = yeast_wheel(index)
    package.fetch().write_bytes(b"half a download")
    with pytest.raises(DataError, match=r"'yeast' are damaged: .*run `motet problems fetch yeast` to replace it"):
        yeast.load(0, package)
    package.fetch()
    assert len(yeast.load(0, package).train)


def test_a_package_that_the_index_lacks(index):
    index.mkdir()
    with pytest.raises(DataError, match=r"pip could not download river 0\.26\.1 for problem 'yeast': .*No matching"):
        yeast.PACKAGE.fetch()
    assert listing() == []


def test_an_interrupted_download_leaves_nothing(index, monkeypatch):
    package = yeast_wheel(index)

    def interrupted(command, **_):
        folder = command[command.index("--dest") + 1]
        with open(f"{folder}/{package.file}", "wb") as file:  # noqa: PTH123
            file.write(b"the first half")
        raise KeyboardInterrupt

    monkeypatch.setattr(subprocess, "run", interrupted)
    with pytest.raises(KeyboardInterrupt):
        package.fetch()
    assert listing() == []


def test_a_cache_that_cannot_be_made(index, tmp_path, monkeypatch):
    (tmp_path / "file").write_text("in the way")
    monkeypatch.setenv("MOTET_DATA", str(tmp_path / "file" / "cache"))
    with pytest.raises(DataError, match="could not be fetched into .*set MOTET_DATA"):
        yeast_wheel(index).fetch()


def test_the_cache_follows_the_environment(monkeypatch, tmp_path):
    monkeypatch.delenv("MOTET_DATA", raising=False)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    assert cache() == tmp_path / "motet"
    monkeypatch.setenv("MOTET_DATA", str(tmp_path / "here"))
    assert cache() == tmp_path / "here"
