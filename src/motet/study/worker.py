"""The other end of `motet.study.pool`: a process that trains one job after another."""

from functools import partial

from motet.study.jobs import Bench
from motet.study.payload import pack
from motet.study.process import Parent, unpacked
from motet.study.training import train

KEPT = 2
"""Seeds whose data a worker keeps: it may go back and forth between two."""


def main() -> None:
    """Train what is sent until the parent ends, or ends this."""
    parent = Parent()
    bench = None
    while True:
        try:
            message = parent.receive()
            if bench is None:
                problem, folder = unpacked(message)
                bench = Bench(problem, folder, KEPT)
                continue
            trained = bench.train(message, train, partial(parent.tell, "tick"))
            parent.tell("finished", pack(trained))
        except Exception as error:
            parent.fail(error)
