"""The other end of `motet.study.pool`: a process that trains what it is sent, and ends with its parent.

It talks through its standard input and output; what a user's code prints goes to standard error.
"""

import os
import pickle
import queue
import signal
import sys
import threading
import traceback
from functools import partial
from typing import Any, BinaryIO

import cloudpickle  # type: ignore[import-untyped]
import torch

from motet.study.fit import Tick
from motet.study.jobs import Bench
from motet.study.payload import pack
from motet.study.training import train

KEPT = 2
"""Seeds whose data a worker keeps: it may go back and forth between two."""


def main() -> None:
    """Train one job after another until the parent ends, or ends this."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is the parent's to deal with.
    out = os.fdopen(os.dup(1), "wb")
    os.dup2(2, 1)
    inbox: queue.SimpleQueue[Any] = queue.SimpleQueue()
    threading.Thread(target=_receive, args=(sys.stdin.buffer, inbox), daemon=True).start()
    torch.set_num_threads(1)
    bench = None
    while True:
        try:
            message = pickle.loads(inbox.get())
            if bench is None:
                problem, folder, dtype = message
                torch.set_default_dtype(dtype)
                bench = Bench(problem, folder, KEPT)
                continue
            trained = bench.train(message, train, partial(_tell, out))
            answer: tuple[str, Any] = ("finished", pack(trained))
        except Exception as error:
            error.add_note(f"In the worker process:\n{traceback.format_exc()}")
            answer = ("failed", _sendable(error))
        _send(out, answer)


def _receive(source: BinaryIO, inbox: "queue.SimpleQueue[Any]") -> None:
    """Hand on what the parent sends. When the parent is gone, however it ended, so is this process."""
    while True:
        try:
            inbox.put(pickle.load(source))
        except BaseException:
            os._exit(1)


def _tell(out: BinaryIO, tick: Tick) -> None:
    _send(out, ("tick", tick))


def _send(out: BinaryIO, message: tuple[str, Any]) -> None:
    try:
        cloudpickle.dump(message, out)
        out.flush()
    except BrokenPipeError:
        os._exit(1)


def _sendable(error: Exception) -> Exception:
    """The error itself where it survives the way."""
    try:
        pickle.loads(cloudpickle.dumps(error))
        return error
    except Exception:
        stand_in = RuntimeError(f"{type(error).__name__}: {error}")
        stand_in.add_note("\n".join(getattr(error, "__notes__", ())))
        return stand_in
