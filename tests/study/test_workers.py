"""Several processes: the numbers of one, one clear error where one dies, and none that outlives its study."""

import json
import multiprocessing
import os
import signal
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import pytest
from torch import nn

from motet.problems.base import Data, Problem
from motet.study import looks, schedule
from motet.study.arms import parse, parse_all
from motet.study.estimate import Estimate, Running
from motet.study.history import read_history
from motet.study.jobs import Bench
from motet.study.live import Live, read_state
from motet.study.payload import pack, unpack
from motet.study.pool import WorkerError
from motet.study.results import Rule
from motet.study.study import Study
from motet.study.tables import numbers
from motet.study.training import train
from tests.study.tiny import TINY

ROOT = Path(__file__).parents[2]
ARMS = ("groups", "sum:steps=groups", "famo")


def all_of(study: Study) -> str:
    return json.dumps([numbers(run) for run in study.runs()], sort_keys=True)


def here_only(load=TINY.load) -> Problem:
    """A problem that can't be imported anywhere, as those of scripts and notebooks can't."""
    return replace(TINY, load=lambda seed: load(seed))


# Workers


def test_two_workers_give_the_numbers_of_one_process_and_tell_loggers_of_every_epoch(tmp_path):
    told = []

    class Logger:
        def start(self, folder, arm, seed, settings):
            told.append(("start", arm, seed))

        def epoch(self, tick):
            told.append(("epoch", tick.arm, tick.seed))

        def end(self, run):
            told.append(("end", run.arm, run.seed))

    one = Study(TINY, ARMS, seeds=2, out=tmp_path / "one").run()
    two = Study(here_only(), ARMS, seeds=2, out=tmp_path / "two", workers=2, loggers=[Logger()]).run()
    assert all_of(one) == all_of(two)
    for run in two.runs():
        epochs = 3 * len(run.curve) if run.arm == "stl" else len(run.curve)
        mine = [what for what, arm, seed in told if (arm, seed) == (run.arm, run.seed)]
        assert mine == ["start", *["epoch"] * epochs, "end"]
    before = [key for what, *key in told if what == "end"]
    for seed in (0, 1):
        assert before.index(["stl", seed]) < before.index(["sum", seed])
        assert before.index(["groups", seed]) < before.index(["sum:steps=groups", seed])
    assert not (two.folder / "progress.json").exists()


def _deadly(marker: Path):
    def load(seed: int) -> Data:
        if seed == 1 and not marker.exists():
            marker.touch()
            os.kill(os.getpid(), signal.SIGKILL)
        return TINY.load(seed)

    return here_only(load)


def test_a_worker_that_dies_is_named_with_its_run_and_the_rest_is_kept(tmp_path):
    problem = _deadly(tmp_path / "died")
    study = Study(problem, (), seeds=2, out=tmp_path / "runs", workers=2)
    with pytest.raises(WorkerError, match=r"trained stl, seed 1 ended by SIGKILL.*memory.*--resume"):
        study.run()
    again = Study(problem, (), seeds=2, out=tmp_path / "runs", resume=True).run()
    assert len(again.runs()) == 4


def test_an_error_in_a_worker_is_the_error_that_one_process_raises(tmp_path):
    def load(seed: int) -> Data:
        if seed == 1:
            raise ValueError("column 'dose' is gone")
        return TINY.load(seed)

    with pytest.raises(ValueError, match="column 'dose' is gone"):
        Study(here_only(load), (), seeds=[0, 1], out=tmp_path / "runs", workers=2).run()


def test_what_a_users_code_does_with_processes_and_input_is_its_own_affair(tmp_path, monkeypatch):
    """Forks take no lock of the worker with them, hold no pipe open, and there is no standard input to wait for."""
    (tmp_path / "struct.py").write_text("raise RuntimeError('a file beside the table is no module of Python')")
    monkeypatch.chdir(tmp_path)

    def load(seed: int) -> Data:
        context = multiprocessing.get_context("fork")
        done = context.Process(target=len, args=((),))
        done.start()
        done.join(30)
        assert done.exitcode == 0
        context.Process(target=time.sleep, args=(600,), daemon=False).start()  # Outlives the run.
        with pytest.raises(EOFError):
            input()
        return TINY.load(seed)

    study = Study(here_only(load), (), seeds=1, out=tmp_path / "runs", workers=1)
    study._bench = Bench(TINY, study.folder)  # In this process the data are the usual ones.
    study.workers = 2
    assert len(study.run().runs()) == 2


@pytest.mark.parametrize("trials", [None, 2])
def test_a_problem_that_exits_is_said_to(tmp_path, trials):
    def load(seed: int) -> Data:
        return TINY.load(seed)

    def trunk(inputs, training):
        if os.getpid() != here:
            sys.exit("no licence")
        return nn.Sequential(nn.Flatten(), nn.Linear(inputs[0].numel(), training.width))

    here = os.getpid()
    problem = replace(here_only(load), trunk=trunk)
    with pytest.raises(RuntimeError, match="the problem's code called sys.exit\\('no licence'\\)"):
        Study(problem, (), seeds=1, out=tmp_path / "runs", workers=2, tuning=trials).run()


_SLEEPY = """
import os, signal, sys, time
from dataclasses import replace
from motet.study.study import Study
from tests.study.tiny import TINY

def load(seed):
    if os.environ["PARENT"] != str(os.getpid()):
        print(os.getpid(), flush=True, file=sys.stderr)
        time.sleep(600)
    return TINY.load(seed)

os.environ["PARENT"] = str(os.getpid())
signal.signal(signal.SIGINT, signal.default_int_handler)  # Tests that run in the background are deaf to it.
try:
    Study(replace(TINY, load=load), (), seeds=2, out=sys.argv[1], workers=2).run()
except KeyboardInterrupt:
    print("interrupted")
"""


@pytest.mark.parametrize("how", [signal.SIGKILL, signal.SIGINT])
def test_no_worker_outlives_its_study(tmp_path, how):
    """The script has no ``if __name__ == "__main__"``, and is not started again by its workers."""
    with subprocess.Popen(
        [sys.executable, "-c", _SLEEPY, tmp_path / "runs"],
        cwd=ROOT,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    ) as started:
        workers = [int(started.stderr.readline()) for _ in range(2)]
        assert read_state(tmp_path / "runs").total == 4
        started.send_signal(how)
        out, err = started.communicate(timeout=60)
        assert err == ""
        assert out == ("interrupted\n" if how == signal.SIGINT else "")
    until = time.monotonic() + 30
    while any(_lives(pid) for pid in workers):
        assert time.monotonic() < until
        time.sleep(0.05)
    assert read_state(tmp_path / "runs") is None


def _lives(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    status = Path(f"/proc/{pid}/stat")
    return not status.exists() or status.read_text().rpartition(")")[2].split()[0] != "Z"


def test_a_problem_that_cannot_be_sent_is_refused_with_the_way_out(tmp_path):
    with Path(tmp_path / "data").open("w") as file:
        problem = replace(TINY, load=lambda seed: TINY.load(seed) if file else None)
        with pytest.raises(ValueError, match="the problem tiny can't be sent to other processes.*workers=1"):
            Study(problem, (), seeds=1, out=tmp_path / "runs", workers=2).run()


@pytest.mark.parametrize("workers", [0, -1, 1.5, True])
def test_a_wrong_number_of_workers_is_refused(workers):
    with pytest.raises(ValueError, match="workers must be a whole number of at least 1"):
        Study(TINY, (), workers=workers)


def test_a_run_comes_back_from_text_and_bytes_as_it_was():
    data = TINY.load(0)
    trained = train(TINY, data, parse("stl"), 0, TINY.training)
    undefined = replace(
        trained, run=replace(trained.run, test={"dose": float("nan"), "ill": float("inf"), "grade": 1.0})
    )
    back = unpack(pack(undefined))
    assert repr(back.run) == repr(undefined.run)
    assert all((back.parameters[name] == value).all() for name, value in trained.parameters.items())
    assert back.predictions.keys() == trained.predictions.keys()


# Order


def test_runs_wait_for_what_they_need_and_for_nothing_else():
    arms = parse_all(["sum:steps=groups", "groups"])
    items = schedule.ordered(arms, [3, 1], {("stl", 3)})
    assert [(arm.label, seed) for arm, seed in items] == [
        ("sum", 3),
        ("groups", 3),
        ("sum:steps=groups", 3),
        ("stl", 1),
        ("sum", 1),
        ("groups", 1),
        ("sum:steps=groups", 1),
    ]
    ready = [(arm.label, seed) for arm, seed in items if schedule.is_ready((arm, seed), {("stl", 3)})]
    assert ready == [("sum", 3), ("groups", 3), ("stl", 1)]
    assert schedule.is_ready(items[2], {("stl", 3), ("groups", 3)})


# Seeds that are added


class Decided(Study):
    """Decides as soon as there are so many seeds."""

    at = 99
    asked: list

    def verdict(self):
        seeds = len({run.seed for run in self.runs()})
        self.asked.append(seeds)
        return replace(super().verdict(), decision="KEEP SUM" if seeds >= self.at else "UNDECIDED")


@pytest.mark.parametrize(("at", "seeds", "asked"), [(2, 2, [2]), (3, 3, [2, 3]), (99, 5, [2, 3, 4])])
def test_seeds_are_added_until_the_verdict_is_decided(tmp_path, at, seeds, asked):
    study = Decided(TINY, (), seeds=[7, 4], max_seeds=5, look_every=1, out=tmp_path / "runs")
    study.at, study.asked = at, []
    study.run()
    assert study.rule.looks == (2, 3, 4, 5)
    assert sorted({run.seed for run in study.runs()}) == sorted([7, 4, 8, 9, 10][:seeds])
    assert study.asked == asked
    assert read_history(study.folder).looks == [2, 3, 4, 5][: seeds - 1]


def test_a_look_that_was_passed_is_not_taken_again_after_a_kill(tmp_path):
    """With seeds of the next look half trained, its verdict would be another one."""
    options = {"max_seeds": 4, "look_every": 1, "out": tmp_path / "runs"}
    first = Decided(TINY, (), seeds=2, **options)
    first.at, first.asked = 99, []

    class Killed(Exception):
        pass

    class Deadly:
        def start(self, folder, arm, seed, settings):
            if (arm, seed) == ("sum", 2):
                raise Killed

        def epoch(self, tick): ...

        def end(self, run): ...

    first.loggers = [Deadly()]
    with pytest.raises(Killed):
        first.run()
    again = Decided(TINY, (), seeds=2, resume=True, out=tmp_path / "runs")
    again.at, again.asked = 99, []
    again.run()
    assert first.asked == [2]
    assert again.asked == [3]
    assert again.rule.looks == (2, 3, 4)
    assert read_history(again.folder).looks == [2, 3, 4]


def test_looks_are_part_of_the_rule_and_cannot_be_changed(tmp_path):
    Study(TINY, (), seeds=1, out=tmp_path / "runs").run()
    with pytest.raises(ValueError, match="fixed before its first result.*can't become.*looks after 1, 3, 5 seeds"):
        Study(TINY, (), seeds=1, max_seeds=5, out=tmp_path / "runs", resume=True).run()
    with pytest.raises(ValueError, match="max_seeds=3 must be more than the 3 seeds of the first look"):
        Study(TINY, (), seeds=3, max_seeds=3)
    with pytest.raises(ValueError, match="the rule looks at 4 seeds at most, and 5 are named"):
        Study(TINY, (), seeds=5, rule=Rule(looks=(2, 4)))


def test_seeds_beyond_the_named_ones_are_the_next_whole_numbers():
    assert looks.extended([9, 2], 4) == [9, 2, 10, 11]


# Time left


def test_the_time_left_knows_that_arms_differ_in_cost():
    estimate = Estimate([("slow", 100.0)])
    estimate.add("quick", 1.0)
    running = [Running("quick", since=0.0, share=0.1)]
    assert estimate.left(["slow", "slow", "quick"], running, now=0.5) == pytest.approx(201.5)
    assert estimate.left(["slow"] * 4, [], now=0.0, workers=2) == pytest.approx(200)
    assert estimate.left(["unknown"], [], now=0.0) == pytest.approx(50.5)


def test_before_anything_is_finished_what_runs_tells_of_the_rest():
    estimate = Estimate()
    assert estimate.left(["sum"], [], now=0.0) is None
    assert estimate.left(["sum"], [Running("stl", since=0.0, share=0.25)], now=10.0) == pytest.approx(30 + 40)


def test_a_study_tells_other_programs_what_it_does_and_where_there_is_no_terminal_prints_a_line_at_times(
    tmp_path, monkeypatch, capsys
):
    seconds = [1000.0]
    monkeypatch.setattr("motet.study.live.time.monotonic", lambda: seconds[0])
    monkeypatch.setattr("motet.study.lock.is_held", lambda folder: True)
    with Live(tmp_path, shown=True) as live:
        live.plan(2, ["sum", "famo", "famo"])
        live.start("sum, seed 0", "sum", epochs=4)
        for _ in range(4):
            seconds[0] += 5
            live.epoch("sum, seed 0")
        live.finish("sum, seed 0")
        seconds[0] += 15
        live.start("famo, seed 0", "famo", epochs=4)
        state = read_state(tmp_path)
        assert (state.done, state.total, state.seconds_left) == (3, 5, 40.0)
        assert [now.name for now in state.running] == ["famo, seed 0"]
    assert read_state(tmp_path) is None
    assert capsys.readouterr().err == "3/5 runs · left 40 s · famo, seed 0\n"
