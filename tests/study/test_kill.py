"""SIGKILL at any moment costs the run in progress and nothing else: the resumed study has the same bits."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def found(tmp_path_factory) -> dict:
    """All kills in one process that imports torch once."""
    folder = tmp_path_factory.mktemp("killed")
    done = subprocess.run(
        [sys.executable, "-m", "tests.study.killing", folder], cwd=ROOT, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


def test_a_study_that_was_killed_at_three_random_moments_ends_with_the_same_bits(found):
    assert found["kills"] == 3
    assert found["same"]


def test_a_study_that_dies_as_it_writes_any_of_its_files_ends_with_the_same_bits(found):
    """`killed_at_writes` compares after each; here, that all kinds of files were among them."""
    assert {"study.json", "progress.json", "history.json", "run.json", "stl-seed0", "sum-seed0"} <= set(found["writes"])


def test_a_study_that_was_killed_as_two_workers_tuned_it_ends_with_the_bits_of_one_process(found):
    """`numbers` of the runs have the trial that was chosen, and all its settings."""
    assert found["tuned"]
