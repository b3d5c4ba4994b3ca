"""Runs of one study shared by several machines or processes through a database, each with its own folder.

A row is a run: claimed by one participant, who trains it, and finished with its payload, which all others fetch. A
claim is kept by a heartbeat; that of a participant who went away without a word is anybody's after `STALE` seconds.
Times are the database's own, so that machines' clocks need not agree.
"""

import logging
import os
import platform
import threading
import uuid
from collections.abc import Iterator
from contextlib import contextmanager

import sqlalchemy as sql
from sqlalchemy.dialects import postgresql, sqlite
from sqlalchemy.exc import SQLAlchemyError

from motet.study.database import BEAT, STALE, address, cause, engine, hidden
from motet.study.description import Description
from motet.study.files import DamagedError, StoreError
from motet.study.fit import Trained
from motet.study.payload import Payload, pack, unpack

_log = logging.getLogger(__name__)

Key = tuple[str, int]

_RUNS = sql.Table(
    "motet_runs",
    sql.MetaData(),
    sql.Column("study", sql.Text, primary_key=True),
    sql.Column("arm", sql.Text, primary_key=True),
    sql.Column("seed", sql.BigInteger, primary_key=True),
    sql.Column("problem", sql.Text, nullable=False),
    sql.Column("state", sql.Text, nullable=False),
    sql.Column("worker", sql.Text, nullable=False),
    sql.Column("heartbeat", sql.Double, nullable=False),
    sql.Column("run", sql.Text),
    sql.Column("parameters", sql.LargeBinary),
    sql.Column("predictions", sql.LargeBinary),
)
_CLAIMED, _DONE = "claimed", "done"
_NOW: dict[str, sql.ColumnElement[float]] = {
    "sqlite": sql.literal_column("((julianday('now') - 2440587.5) * 86400.0)", sql.Double),
    # now() would be the start of the transaction.
    "postgresql": sql.literal_column("extract(epoch from clock_timestamp())", sql.Double),
}


class Exchange:
    """One participant's view of the runs of one study in a database.

    Args:
        storage: Address of the database, as `motet.study.database.address` reads it.
        description: Of the study; its digest says which rows are its own, so that a database holds many studies.

    Raises:
        StoreError: if the database can't be reached, and so does everything below.
        ValueError: for an address that is none.
    """

    def __init__(self, storage: str, description: Description) -> None:
        self.study, self.problem = description.digest(), description.problem
        self.worker = f"{platform.node()}-{os.getpid()}-{uuid.uuid4().hex[:8]}"
        url = address(storage)
        self._shown, self._met = hidden(storage), False
        self._engine = engine(url)
        self._now = _NOW[url.get_backend_name()]
        self._insert = sqlite.insert if url.get_backend_name() == "sqlite" else postgresql.insert
        self._held: set[Key] = set()
        self._lost: StoreError | None = None
        self._closed = threading.Event()
        self._make()
        if others := self.others():
            _log.warning(
                "%s also holds %d runs of %s with other settings, data, rule or versions: they are of other studies, "
                "and left alone",
                self._shown,
                others,
                self.problem,
            )
        self._thread = threading.Thread(target=self._beat, daemon=True)
        self._thread.start()

    def others(self) -> int:
        """How many runs there are of the same problem with other settings, data, rule or versions."""
        other = (_RUNS.c.problem == self.problem) & (_RUNS.c.study != self.study) & (_RUNS.c.state == _DONE)
        with self._transaction() as connection:
            return int(connection.scalar(sql.select(sql.func.count()).select_from(_RUNS).where(other)) or 0)

    def finished(self) -> set[Key]:
        """Arm and seed of all finished runs of the study, whoever trained them."""
        query = sql.select(_RUNS.c.arm, _RUNS.c.seed).where(_RUNS.c.study == self.study, _RUNS.c.state == _DONE)
        with self._transaction() as connection:
            return {(arm, seed) for arm, seed in connection.execute(query)}

    def fetch(self, key: Key) -> Trained:
        """A finished run.

        Raises:
            StoreError: if it is damaged.
        """
        query = sql.select(_RUNS.c.run, _RUNS.c.parameters, _RUNS.c.predictions).where(self._is(key))
        with self._transaction() as connection:
            row = connection.execute(query).one()
        try:
            return unpack(Payload(row.run, bytes(row.parameters), bytes(row.predictions)))
        except DamagedError as error:
            raise DamagedError(
                f"{key[0]}, seed {key[1]}, in {self._shown}: {error}; delete its row in {_RUNS.name}, and it is "
                "trained again"
            ) from None

    def claim(self, key: Key) -> bool:
        """Whether this run is now this participant's to train: nobody else's, and not finished."""
        self._alive()
        new = self._insert(_RUNS).values(
            {**self._names(key), "state": _CLAIMED, "worker": self.worker, "heartbeat": self._now}
        )
        stale = self._is(key) & (_RUNS.c.state == _CLAIMED) & (_RUNS.c.heartbeat < self._now - STALE)
        over = sql.update(_RUNS).where(stale).values(worker=self.worker, heartbeat=self._now)
        with self._transaction() as connection:
            # What came back, and not a count of rows: drivers differ in whether they know one.
            got = connection.execute(new.on_conflict_do_nothing().returning(_RUNS.c.seed)).first() is not None
            if not got and connection.execute(over.returning(_RUNS.c.seed)).first() is not None:
                got = True
                _log.warning("%s, seed %d: whoever was to train it has not been heard of, so it is taken over", *key)
        if got:
            self._held.add(key)
        return got

    def publish(self, trained: Trained) -> bool:
        """Hand a finished run to all. False where another participant finished it first: then that one counts."""
        key = (trained.run.arm, trained.run.seed)
        payload = pack(trained)
        values = {
            "state": _DONE,
            "worker": self.worker,
            "heartbeat": self._now,
            "run": payload.run,
            "parameters": payload.parameters,
            "predictions": payload.predictions,
        }
        row = self._insert(_RUNS).values({**self._names(key), **values})
        row = row.on_conflict_do_update(
            index_elements=["study", "arm", "seed"], set_=values, where=_RUNS.c.state != _DONE
        )
        with self._transaction() as connection:
            won = connection.execute(row.returning(_RUNS.c.seed)).first() is not None
        self._held.discard(key)
        return won

    def close(self) -> None:
        """Give claims back that came to nothing. What can't be given back is stale after a minute."""
        self._closed.set()
        self._thread.join()
        mine = (_RUNS.c.study == self.study) & (_RUNS.c.worker == self.worker) & (_RUNS.c.state == _CLAIMED)
        try:
            if self._held:
                with self._transaction() as connection:
                    connection.execute(sql.delete(_RUNS).where(mine))
        except StoreError as error:
            _log.info("claims were not given back: %s", error)
        self._engine.dispose()

    def _names(self, key: Key) -> dict[str, object]:
        return {"study": self.study, "arm": key[0], "seed": key[1], "problem": self.problem}

    def _is(self, key: Key) -> sql.ColumnElement[bool]:
        return (_RUNS.c.study == self.study) & (_RUNS.c.arm == key[0]) & (_RUNS.c.seed == key[1])

    def _make(self) -> None:
        for attempt in (1, 2):
            try:
                with self._transaction() as connection:
                    _RUNS.metadata.create_all(connection)
                return
            except StoreError:
                if attempt == 2:  # The first may have met another participant that was making the same table.
                    raise

    def _beat(self) -> None:
        while not self._closed.wait(BEAT):
            mine = (_RUNS.c.study == self.study) & (_RUNS.c.worker == self.worker) & (_RUNS.c.state == _CLAIMED)
            try:
                with self._transaction() as connection:
                    connection.execute(sql.update(_RUNS).where(mine).values(heartbeat=self._now))
                self._lost = None
            except StoreError as error:
                self._lost = error  # Until the database is back.

    def _alive(self) -> None:
        if self._lost is not None:
            raise self._lost

    @contextmanager
    def _transaction(self) -> Iterator[sql.Connection]:
        try:
            with self._engine.begin() as connection:
                yield connection
            self._met = True
        except SQLAlchemyError as error:
            fix = "finished runs are kept in the folder, and --resume goes on when it is back"
            if not self._met:
                fix = "nothing was trained; correct --storage, or see that the database is there and lets you in"
            raise StoreError(f"the database {self._shown} can't be used ({cause(error)}): {fix}") from None
