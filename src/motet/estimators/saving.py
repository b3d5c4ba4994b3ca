"""A fitted estimator in one file: safetensors for arrays, JSON in its header for the rest. No code is stored or run."""

import json
import math
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from safetensors import SafetensorError, safe_open
from safetensors.numpy import save_file
from torch import Tensor

__all__ = ["FORMAT", "load", "save"]

FORMAT = 1
"""Version of the file. Another version is refused, never guessed at."""

_TAG = "#"
"""Key of an object that stands for something JSON has not; a dictionary that has such a key is itself tagged."""
_DTYPES = {np.dtype(code) for code in ("?", "i1", "u1", "i2", "u2", "i4", "u4", "i8", "u8", "f2", "f4", "f8")}


def save(path: str | Path, kind: str, state: Mapping[str, Any]) -> None:
    """Write a state so that the file is whole whenever it is there; one of that name is replaced.

    Args:
        path: Of the file.
        kind: What the state is of, such as the estimator's class; `load` asks for the same.
        state: Nested dictionaries with keys of type str, lists, tuples, str, bool, int, float, None, numpy
            arrays of numbers or text, numpy scalars, and tensors. All come back with their type and value,
            NaN and infinities too; arrays in C order, tensors on the CPU, numpy scalars as Python's.

    Raises:
        TypeError: for anything else, with its place.
    """
    path = Path(path)
    arrays: dict[str, NDArray[Any]] = {}
    tree = _plain(dict(state), arrays, "state")
    header = json.dumps({"format": FORMAT, "kind": kind, "state": tree}, allow_nan=False)
    beside = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        save_file(arrays, beside, metadata={"motet": header})
        beside.replace(path)
    finally:
        beside.unlink(missing_ok=True)


def load(path: str | Path, kind: str) -> dict[str, Any]:
    """Read what `save` wrote.

    Raises:
        FileNotFoundError: if there is no such file.
        ValueError: if the file is damaged, of another format or of another kind.
    """
    path = Path(path)
    if not path.is_file():
        raise FileNotFoundError(f"there is no file {path}")
    try:
        with safe_open(path, "np") as file:
            header = json.loads((file.metadata() or {})["motet"])
            arrays = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
        version, found, tree = header["format"], header["kind"], header["state"]
    except (SafetensorError, KeyError, TypeError, ValueError, RecursionError) as error:
        raise ValueError(f"{path} is no saved estimator of motet, or is damaged ({error})") from None
    if version != FORMAT:
        raise ValueError(
            f"{path} is of format {version}, this motet reads {FORMAT}: load it with the motet that wrote it"
        )
    if found != kind:
        raise ValueError(f"{path} holds a {found}, not a {kind}: load it with {found}")
    try:
        state = _restore(tree, arrays)
    except (KeyError, TypeError, ValueError, RecursionError) as error:
        raise ValueError(f"{path} is damaged ({error})") from None
    if not isinstance(state, dict):
        raise ValueError(f"{path} is damaged (its state is no object)")
    return state


def _plain(value: Any, arrays: dict[str, NDArray[Any]], where: str) -> Any:
    """To strict JSON, the arrays put aside under their place."""
    if isinstance(value, np.generic):
        value = value.item()
    if value is None or isinstance(value, bool | int | str):
        return value
    if isinstance(value, float):
        return value if math.isfinite(value) else {_TAG: "float", "value": str(value)}
    if isinstance(value, Mapping):
        for key in value:
            if not isinstance(key, str):
                raise TypeError(f"{where} has the key {key!r}: only text can be saved as a key")
        tree = {key: _plain(item, arrays, f"{where}.{key}") for key, item in value.items()}
        return {_TAG: "dict", "value": tree} if _TAG in tree else tree
    if isinstance(value, list | tuple):
        items = [_plain(item, arrays, f"{where}[{number}]") for number, item in enumerate(value)]
        return {_TAG: "tuple", "value": items} if isinstance(value, tuple) else items
    tag = "array"
    if isinstance(value, Tensor):
        tag, value = "tensor", value.detach().cpu().numpy()
    if not isinstance(value, np.ndarray):
        raise TypeError(f"{where} is a {type(value).__name__}: only arrays, tensors, numbers, text and lists are saved")
    if value.dtype.kind in "UO" and all(isinstance(item, str) for item in value.flat):
        shape, texts = list(value.shape), [str(item) for item in value.flat]
        return {_TAG: "text", "value": texts, "shape": shape, "object": value.dtype.kind == "O"}
    dtype = value.dtype.newbyteorder("=")
    if dtype not in _DTYPES:
        raise TypeError(f"{where} is an array of {value.dtype}: only arrays of numbers, truth values or text are saved")
    # Numbered, since two places can have one name: {"a.b": …} and {"a": {"b": …}}.
    name = f"{len(arrays)}:{where}".encode("ascii", "backslashreplace").decode()
    # safetensors writes memory as it lies, so it must lie in C order; np.ascontiguousarray adds an axis to a scalar.
    arrays[name] = np.array(value, dtype=dtype, order="C")
    return {_TAG: tag, "name": name}


def _restore(value: Any, arrays: Mapping[str, NDArray[Any]]) -> Any:
    """The inverse of `_plain`."""
    if isinstance(value, list):
        return [_restore(item, arrays) for item in value]
    if not isinstance(value, dict):
        return value
    match value.get(_TAG):
        case None:
            return {key: _restore(item, arrays) for key, item in value.items()}
        case "dict":
            return {key: _restore(item, arrays) for key, item in value["value"].items()}
        case "tuple":
            return tuple(_restore(item, arrays) for item in value["value"])
        case "float":
            return float(value["value"])
        case "text":
            texts = np.array(value["value"], dtype=object if value["object"] else np.str_)
            return texts.reshape(value["shape"])
        case "array":
            return arrays[value["name"]]
        case "tensor":
            return torch.from_numpy(arrays[value["name"]])
        case other:
            raise ValueError(f"it has an entry of unknown type {other!r}")
