"""Where numbers come from: versions, the command, a fingerprint of the data."""

import hashlib
import platform
import shlex
import sys
from collections.abc import Iterator
from importlib.metadata import version
from pathlib import Path

import torch

from motet.problems.base import Data, Split
from motet.problems.views import Views


def versions() -> dict[str, str]:
    """The versions on which numbers depend."""
    found = {name: version(name) for name in ("motet", "torch", "numpy", "scipy", "scikit-learn", "pandas")}
    return {"python": platform.python_version(), **found}


def command() -> str:
    """How this process was started, without the folder of the program: ``motet compare …``, or a script's name."""
    return shlex.join([Path(sys.argv[0]).name or "python", *sys.argv[1:]])


def fingerprint(data: Data) -> str:
    """SHA-256 over all tensors of the three splits, 16 hex digits of it."""
    digest = hashlib.sha256()
    for split in (data.train, data.validation, data.test):
        for name, tensor in _tensors(split):
            digest.update(name.encode())
            digest.update(tensor.contiguous().numpy().tobytes())
    return digest.hexdigest()[:16]


def _tensors(split: Split) -> Iterator[tuple[str, torch.Tensor]]:
    if isinstance(split.inputs, Views):
        yield from ((f"inputs.{name}", tensor) for name, tensor in split.inputs.tensors())
    else:
        yield "inputs", split.inputs
    yield from sorted(split.targets.items())
