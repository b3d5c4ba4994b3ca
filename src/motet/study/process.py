"""Both ends of a process of motet's own: `Process` where it is started, `Parent` inside it.

Not those of `concurrent.futures`: it must be known what a process died of, epochs are shown while they pass, a script
without ``if __name__ == "__main__"`` must not start itself again, and none may outlive the one that started it.
"""

import io
import os
import pickle
import queue
import signal
import subprocess
import sys
import threading
import traceback
from contextlib import suppress
from typing import Any, BinaryIO

import cloudpickle  # type: ignore[import-untyped]
import torch

DONE = 64
"""The exit code of a process whose work is done: 0 may be a ``sys.exit`` in a user's code."""
_START = (
    "import os, pickle, sys; pipe = os.fdopen(os.dup(0), 'rb'); os.dup2(os.open(os.devnull, os.O_RDONLY), 0); "
    "sys.path[:] = pickle.load(pipe); from {} import main; main(pipe)"
)
"""The pipe is no standard input: what a user's code forks or reads there must not meet it."""


class Process:
    """One process and the thread that listens to it.

    Args:
        module: Whose ``main`` it runs.
        messages: Where ``(this process, kind, value)`` goes for all that it says; at last the kind is "died".
    """

    def __init__(self, module: str, messages: "queue.Queue[tuple[Process, str, Any]]") -> None:
        # A session of its own, so that Ctrl-C in the terminal reaches this process alone.
        self.popen = subprocess.Popen(
            [sys.executable, "-P", "-c", _START.format(module)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            start_new_session=True,
        )
        self._thread = threading.Thread(target=self._listen, args=(messages,), daemon=True)
        self._thread.start()
        self.send(sys.path)

    def send(self, message: object) -> None:
        """Give it what `Parent.receive` returns there; pickled bytes are unpacked."""
        assert self.popen.stdin is not None
        with suppress(BrokenPipeError):  # It is dead then, and the listening thread says so.
            pickle.dump(message, self.popen.stdin)
            self.popen.stdin.flush()

    @property
    def dead(self) -> bool:
        """Whether it has ended. Its end of the pipe may be open still, in a process that a user's code forked."""
        return self.popen.poll() is not None

    def code(self) -> int:
        """Its exit code; it is dead, or killed now."""
        try:
            return self.popen.wait(5)
        except subprocess.TimeoutExpired:  # It closed its pipe, or wrote what is no message, and lives.
            self.kill()
            return self.popen.wait()

    def kill(self) -> None:
        """End it at once, and all that it started, which might hold its end of the pipe."""
        if not hasattr(os, "killpg"):
            self.popen.kill()
            return
        with suppress(ProcessLookupError, PermissionError):
            os.killpg(self.popen.pid, signal.SIGKILL)

    def obituary(self, task: str) -> str:
        """What it died of, while it did something."""
        code = self.code()
        cause = f"with exit code {code}"
        if code < 0:
            name = signal.Signals(-code).name
            cause = f"by {name}"
            if name == "SIGKILL":
                cause += ", as happens where memory runs out (then use fewer workers)"
        during = f"that {task} " if task else ""
        return f"the process {during}ended {cause}: what is finished is kept, and --resume goes on"

    def end(self, patience: float = 0) -> None:
        """Wait for so many seconds, kill it then, and leave nothing behind."""
        with suppress(subprocess.TimeoutExpired):
            self.popen.wait(patience)
        self.kill()
        self.popen.wait()
        self._thread.join()
        for pipe in (self.popen.stdin, self.popen.stdout):
            with suppress(BrokenPipeError):
                pipe.close()  # type: ignore[union-attr]

    def _listen(self, messages: "queue.Queue[tuple[Process, str, Any]]") -> None:
        assert self.popen.stdout is not None
        while True:
            try:
                kind, value = pickle.load(self.popen.stdout)
            except Exception:  # The pipe is closed, or closed in the middle of a message.
                messages.put((self, "died", None))
                return
            messages.put((self, kind, value))


class Parent:
    """The process that started this one. When it is gone, however it ended, so is this.

    It talks through a pipe of its own and standard output; what a user's code prints goes to standard error.

    Args:
        pipe: What the parent sends.
    """

    def __init__(self, pipe: BinaryIO) -> None:
        signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is the parent's to deal with.
        self._out = os.fdopen(os.dup(1), "wb")
        os.dup2(2, 1)
        if isinstance(sys.stdout, io.TextIOWrapper):
            sys.stdout.reconfigure(line_buffering=True)  # This process may be killed, and nothing flushed.
        self._pipe = pipe
        self._inbox: queue.SimpleQueue[Any] = queue.SimpleQueue()
        threading.Thread(target=self._follow, daemon=True).start()
        torch.set_num_threads(1)

    def receive(self) -> Any:
        """What it sent, in the order in which it came.

        Raises:
            Exception: what unpacking raised.
        """
        return pickle.loads(self._inbox.get())

    def tell(self, kind: str, value: object) -> None:
        """Say something."""
        try:
            cloudpickle.dump((kind, value), self._out)
            self._out.flush()
        except BrokenPipeError:
            os._exit(1)

    def fail(self, error: Exception | SystemExit) -> None:
        """Say what went wrong: the error itself where it survives the way."""
        if isinstance(error, SystemExit):
            error = RuntimeError(f"the problem's code called sys.exit({error.code!r})")
        error.add_note(f"In the worker process:\n{traceback.format_exc()}")
        try:
            pickle.loads(cloudpickle.dumps(error))
        except Exception:
            stand_in = RuntimeError(f"{type(error).__name__}: {error}")
            stand_in.add_note("\n".join(error.__notes__))
            error = stand_in
        self.tell("failed", error)

    def _follow(self) -> None:
        while True:
            try:
                self._inbox.put(pickle.load(self._pipe))
            except BaseException:
                os._exit(1)


def packed(what: object, problem: str, doing: str) -> bytes:
    """What `unpacked` gives back in another process, where torch is then set up as in this one.

    Raises:
        ValueError: that names the problem, if it can't be sent; ``doing`` is what needs no other process.
    """
    try:
        return bytes(cloudpickle.dumps((what, _settings())))
    except Exception as error:
        raise ValueError(
            f"the problem {problem} can't be sent to other processes ({error}): {doing} with workers=1, or let its "
            "functions open files and connections themselves"
        ) from None


def unpacked(received: tuple[Any, "_Settings"]) -> Any:
    """What was `packed`."""
    what, (dtype, precision, deterministic, warn_only) = received
    torch.set_default_dtype(dtype)
    torch.set_float32_matmul_precision(precision)
    torch.use_deterministic_algorithms(deterministic, warn_only=warn_only)
    return what


_Settings = tuple[torch.dtype, str, bool, bool]


def _settings() -> _Settings:
    """All of torch's that change digits and can be asked for."""
    return (
        torch.get_default_dtype(),
        torch.get_float32_matmul_precision(),
        torch.are_deterministic_algorithms_enabled(),
        torch.is_deterministic_algorithms_warn_only_enabled(),
    )
