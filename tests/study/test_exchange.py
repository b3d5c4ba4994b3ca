"""One study on several machines: every run trained once, every folder complete, and nobody waits for the dead."""

import json
import shutil
import sqlite3
import subprocess
import sys
import threading
import time
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import pytest

from motet.study import exchange
from motet.study.database import address, hidden
from motet.study.description import read_study
from motet.study.exchange import Exchange
from motet.study.files import DamagedError, StoreError
from motet.study.results import Rule
from motet.study.store import Store
from motet.study.study import Study
from motet.study.tables import numbers
from motet.study.trials import JOURNAL
from motet.study.trying import attempt
from tests.study import postgres
from tests.study.tiny import TINY

ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def alone(tmp_path_factory) -> Study:
    return Study(TINY, (), seeds=2, out=tmp_path_factory.mktemp("alone") / "runs").run()


@pytest.fixture
def storage(tmp_path) -> str:
    return f"sqlite:///{tmp_path / 'shared.sqlite'}"


def shared(storage: str, out: Path, **options) -> Study:
    return Study(TINY, **{"arms": (), "seeds": 2, "out": out, "storage": storage, **options})


def rows(tmp_path: Path) -> list:
    with sqlite3.connect(tmp_path / "shared.sqlite") as database:
        return database.execute("select arm, seed, state from motet_runs order by arm, seed").fetchall()


def all_of(study: Study) -> str:
    return json.dumps([numbers(run) for run in study.runs()], sort_keys=True)


def test_a_second_participant_gets_every_run_without_training(alone, storage, tmp_path, monkeypatch):
    first = shared(storage, tmp_path / "a").run()
    monkeypatch.setattr("motet.study.study.train", None)
    second = shared(storage, tmp_path / "b").run()
    assert all_of(first) == all_of(second) == all_of(alone)
    assert [run.cost for run in first.runs()] == [run.cost for run in second.runs()]
    for name in ("model", "predictions"):
        left, right = ((tmp_path / x / "runs" / "sum-seed1" / f"{name}.safetensors").read_bytes() for x in "ab")
        assert left == right
    assert rows(tmp_path) == [("stl", 0, "done"), ("stl", 1, "done"), ("sum", 0, "done"), ("sum", 1, "done")]


def test_what_a_folder_had_before_is_shared(alone, storage, tmp_path, monkeypatch):
    shared(None, tmp_path / "a").run()
    shared(storage, tmp_path / "a", resume=True).run()
    monkeypatch.setattr("motet.study.study.train", None)
    assert all_of(shared(storage, tmp_path / "b").run()) == all_of(alone)


def test_what_another_participant_trains_is_waited_for(alone, storage, tmp_path):
    other = Exchange(storage, read_study(alone.folder))
    assert other.claim(("stl", 0))
    with Store(alone.folder, read_study(alone.folder), resume=True) as store:
        trained = store.trained("stl", 0)
    late = threading.Timer(1.0, other.publish, [trained])
    late.start()
    study = shared(storage, tmp_path / "runs").run()
    late.join()
    other.close()
    assert all_of(study) == all_of(alone)
    assert next(run for run in study.runs() if (run.arm, run.seed) == ("stl", 0)).cost == trained.run.cost


def test_a_claim_without_a_heartbeat_is_taken_over(alone, storage, monkeypatch, caplog):
    one, two = (Exchange(storage, read_study(alone.folder)) for _ in range(2))
    assert one.claim(("sum", 1))
    assert not two.claim(("sum", 1))
    monkeypatch.setattr(exchange, "STALE", 0.5)
    time.sleep(0.6)
    assert two.claim(("sum", 1))
    assert "sum, seed 1: whoever was to train it has not been heard of" in caplog.text
    with Store(alone.folder, read_study(alone.folder), resume=True) as store:
        trained = store.trained("sum", 1)
    assert two.publish(trained)
    assert not one.publish(trained)
    assert not one.claim(("sum", 1))
    one.close()
    two.close()


def test_a_heartbeat_keeps_a_claim(alone, storage, monkeypatch):
    monkeypatch.setattr(exchange, "BEAT", 0.1)
    monkeypatch.setattr(exchange, "STALE", 0.8)
    one, two = (Exchange(storage, read_study(alone.folder)) for _ in range(2))
    assert one.claim(("sum", 1))
    time.sleep(1.2)
    assert not two.claim(("sum", 1))
    one.close()
    assert two.claim(("sum", 1))
    two.close()


def test_a_database_that_was_away_for_a_moment_is_used_again(alone, storage, monkeypatch):
    monkeypatch.setattr(exchange, "BEAT", 0.05)
    one = Exchange(storage, read_study(alone.folder))
    real, away = one._transaction, threading.Event()

    @contextmanager
    def transaction():
        if away.is_set():
            raise StoreError("the server restarts")
        with real() as connection:
            yield connection

    monkeypatch.setattr(one, "_transaction", transaction)
    away.set()
    until = time.monotonic() + 30
    while one._lost is None and time.monotonic() < until:
        time.sleep(0.01)
    with pytest.raises(StoreError, match="the server restarts"):
        one.claim(("sum", 1))
    away.clear()
    while one._lost is not None and time.monotonic() < until:
        time.sleep(0.01)
    assert one.claim(("sum", 1))
    one.close()


def test_a_run_whose_parameters_are_gone_is_named(alone, storage, tmp_path):
    shutil.copytree(alone.folder, tmp_path / "runs")
    (tmp_path / "runs" / "runs" / "sum-seed0" / "model.safetensors").unlink()
    with pytest.raises(DamagedError, match="sum-seed0.*delete the folder .*, and the run is trained again"):
        shared(storage, tmp_path / "runs", resume=True).run()


def test_an_interrupted_study_gives_its_claims_back(storage, tmp_path, monkeypatch):
    def interrupted(*arguments):
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr("motet.study.study.train", interrupted)
        with pytest.raises(KeyboardInterrupt):
            shared(storage, tmp_path / "a").run()
    assert rows(tmp_path) == []


def test_one_database_holds_many_studies_and_says_so(storage, tmp_path, caplog):
    shared(storage, tmp_path / "a", seeds=1).run()
    assert "other studies" not in caplog.text
    other = shared(storage, tmp_path / "b", seeds=1, rule=Rule(margin=2.0)).run()
    assert "holds 2 runs of tiny with other settings, data, rule or versions" in caplog.text
    assert len(other.runs()) == 2
    assert len(rows(tmp_path)) == 4


def test_an_arm_that_another_participant_alone_trains_is_told_of(storage, tmp_path, caplog):
    shared(storage, tmp_path / "a", arms=("famo",), seeds=1).run()
    assert "another participant" not in caplog.text
    shared(storage, tmp_path / "b", seeds=1).run()
    assert caplog.text.count("another participant also trains famo, and its runs count here too") == 1


def test_where_looks_decide_all_must_name_the_same_arms(storage, tmp_path):
    shared(storage, tmp_path / "a", arms=("famo",), seeds=2, max_seeds=3, look_every=1).run()
    other = shared(storage, tmp_path / "b", arms=(), seeds=2, max_seeds=3, look_every=1)
    with pytest.raises(StoreError, match="another participant also trains famo.*name them all, with --resume"):
        other.run()
    again = shared(storage, tmp_path / "b", arms=("famo",), seeds=2, max_seeds=3, look_every=1, resume=True).run()
    assert {run.arm for run in again.runs()} == {"stl", "sum", "famo"}


def test_a_damaged_row_is_named(storage, tmp_path):
    shared(storage, tmp_path / "a", seeds=1).run()
    with sqlite3.connect(tmp_path / "shared.sqlite") as database:
        database.execute("update motet_runs set parameters = x'00' where arm = 'sum'")
    with pytest.raises(DamagedError, match=r"sum, seed 0, in sqlite.*is damaged.*delete its row in motet_runs"):
        shared(storage, tmp_path / "b", seeds=1).run()


def test_runs_on_other_data_are_not_mixed_in(storage, tmp_path):
    shared(storage, tmp_path / "a").run()
    other = replace(TINY, load=lambda seed: TINY.load(seed if seed == 0 else 99))
    Study(other, (), seeds=2, out=tmp_path / "b").run()
    shutil.rmtree(tmp_path / "b" / "runs" / "sum-seed1")
    study = Study(other, (), seeds=2, out=tmp_path / "b", storage=storage, resume=True)
    with pytest.raises(StoreError, match="the data of seed 1 are not those"):
        study.run()


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("shared.sqlite", "'shared.sqlite' is no address of a database: write sqlite:///FILE or postgresql://"),
        ("sqlite://", "can't be shared: write sqlite:///FILE"),
        ("mysql://ann:secret@host/db", r"'mysql://ann:\*\*\*@host/db' can't be shared"),
    ],
)
def test_a_wrong_address_is_refused_before_any_work_and_without_its_password(text, message):
    with pytest.raises(ValueError, match=message):
        Study(TINY, (), storage=text)


def test_postgres_addresses_get_the_driver_and_passwords_are_hidden():
    for text in ("postgres://ann:secret@host/db", "postgresql://ann:secret@host/db"):
        url = address(text)
        assert url.drivername == "postgresql+psycopg"
        assert url.password == "secret"
        assert hidden(text).endswith("://ann:***@host/db")
    assert hidden("x?user=a&password=secret&b=1") == "x?user=a&password=***&b=1"


def test_a_database_that_is_away_is_named_without_its_password(tmp_path):
    study = shared(f"postgresql://ann:secret@/db?host={tmp_path}", tmp_path / "runs")
    with pytest.raises(StoreError, match=r"the database .*ann:\*\*\*@.* can't be used .*nothing was trained") as raised:
        study.run()
    assert "secret" not in str(raised.value)
    assert "psycopg" not in str(raised.value)
    assert raised.value.__suppress_context__
    assert not (tmp_path / "runs").exists()


def check_sharing(storage: str, folder: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "tests.study.sharing", storage, folder],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout)
    assert found["codes"] == [0, 0, -9]
    assert found["same"] == [True, True]
    assert found["trained"] == 12
    assert found["twice"] == []
    assert "secret" not in done.stdout + done.stderr


def test_three_processes_one_of_them_killed_share_a_study_through_sqlite(storage, tmp_path):
    check_sharing(storage, tmp_path)


@pytest.fixture(scope="module")
def postgresql():
    pytest.importorskip("psycopg")
    try:
        with postgres.server() as server:
            yield server
    except postgres.Missing as reason:
        pytest.skip(str(reason))


def test_three_processes_one_of_them_killed_share_a_study_through_postgresql(postgresql, tmp_path):
    check_sharing(postgresql.url, tmp_path)


def test_a_study_that_is_tuned_through_postgresql_is_tuned_once_and_alike(postgresql, tmp_path, monkeypatch):
    alone = shared(None, tmp_path / "alone", seeds=1, tuning=2).run()
    trained = []
    monkeypatch.setattr("motet.study.tuning.attempt", lambda *given: trained.append(given[2].label) or attempt(*given))
    found = [shared(postgresql.url, tmp_path / name, seeds=1, tuning=2).run() for name in "ab"]
    assert all_of(found[0]) == all_of(found[1]) == all_of(alone)
    assert trained == ["stl", "stl", "sum", "sum"]
    assert not (tmp_path / "a" / JOURNAL).exists()


def test_a_lost_connection_while_tuning_is_one_error_and_tuning_goes_on_when_it_is_back(
    postgresql, tmp_path, monkeypatch
):
    trained = []

    def unplugged(*given):
        trained.append(given[2].label)
        if len(trained) == 2:
            postgresql.stop()
        return attempt(*given)

    options = {"seeds": 1, "tuning": 2, "rule": Rule(margin=1.7)}
    with monkeypatch.context() as patch:
        patch.setattr("motet.study.tuning.attempt", unplugged)
        with pytest.raises(StoreError, match="storage of the trials, postgresql:.*can't be used.*--resume") as raised:
            shared(postgresql.url, tmp_path / "a", **options).run()
    assert "secret" not in str(raised.value)
    postgresql.start()
    monkeypatch.setattr("motet.study.trials.STALE", 1)
    alone = shared(None, tmp_path / "alone", **options).run()
    assert all_of(shared(postgresql.url, tmp_path / "a", resume=True, **options).run()) == all_of(alone)


def test_a_lost_connection_is_one_error_and_the_study_goes_on_when_it_is_back(postgresql, alone, tmp_path):
    class Unplugged:
        runs = 0

        def start(self, folder, arm, seed, settings):
            self.runs += 1
            if self.runs == 2:
                postgresql.stop()

        def epoch(self, tick): ...

        def end(self, run): ...

    study = shared(postgresql.url, tmp_path / "runs", loggers=[Unplugged()], rule=Rule(margin=1.5))
    with pytest.raises(StoreError, match="can't be used.*--resume") as raised:
        study.run()
    assert "secret" not in str(raised.value)
    assert len(study.runs()) == 2
    postgresql.start()
    again = shared(postgresql.url, tmp_path / "runs", resume=True).run()
    assert [run.test for run in again.runs()] == [run.test for run in alone.runs()]
