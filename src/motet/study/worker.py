"""The other end of `motet.study.pool`: a process that trains one job after another."""

import os
from functools import partial
from typing import BinaryIO

from motet.study.jobs import Bench
from motet.study.payload import pack
from motet.study.process import Parent, unpacked
from motet.study.training import train

KEPT = 2
"""Seeds whose data a worker keeps: it may go back and forth between two."""


def main(pipe: BinaryIO) -> None:
    """Train what is sent until the parent ends, or ends this."""
    parent = Parent(pipe)
    bench = None
    try:
        while True:
            try:
                message = parent.receive()
                if bench is None:
                    problem, folder = unpacked(message)
                    bench = Bench(problem, folder, KEPT)
                    continue
                trained = bench.train(message, train, partial(parent.tell, "tick"))
                parent.tell("finished", pack(trained))
            except (Exception, SystemExit) as error:
                parent.fail(error)
    finally:
        os._exit(1)  # The thread that follows the parent still reads, and Python would wait for it.
