"""Dataclasses from JSON with every type checked, so that a file that was cut or edited is noticed where it is read."""

import dataclasses
import types
import typing
from typing import Any, TypeVar

_T = TypeVar("_T")


def build(cls: type[_T], data: Any) -> _T:
    """Make a dataclass of a JSON object, nested dataclasses, lists, tuples and string-keyed dicts included.

    An int is taken for a float, as JSON writes 1.0 either way; nothing else is converted.

    Raises:
        ValueError: for a field that is missing, unknown, or of another type, with its place.
    """
    return typing.cast(_T, _value(cls, data, cls.__name__))


def _value(hint: Any, data: Any, where: str) -> Any:
    if hint is Any:
        return data
    if dataclasses.is_dataclass(hint):
        return _object(typing.cast(type, hint), data, where)
    origin, arguments = typing.get_origin(hint), typing.get_args(hint)
    if origin is typing.Literal:
        if data not in arguments:
            raise ValueError(f"{where} is {data!r}")
        return data
    if origin is types.UnionType:
        if data is None and type(None) in arguments:
            return None
        return _value(next(a for a in arguments if a is not type(None)), data, where)
    if origin in (list, tuple):
        if not isinstance(data, list):
            raise ValueError(f"{where} is no list")
        return origin(_value(arguments[0], item, f"{where}[{i}]") for i, item in enumerate(data))
    if origin is dict:
        if not isinstance(data, dict):
            raise ValueError(f"{where} is no object")
        return {key: _value(arguments[1], item, f"{where}.{key}") for key, item in data.items()}
    if hint is float and isinstance(data, int) and not isinstance(data, bool):
        return float(data)
    if type(data) is not hint:
        raise ValueError(f"{where} is {data!r}, not {hint.__name__}")
    return data


def _object(cls: type, data: Any, where: str) -> Any:
    if not isinstance(data, dict):
        raise ValueError(f"{where} is no object")
    fields, hints = dataclasses.fields(cls), typing.get_type_hints(cls)
    if unknown := sorted(data.keys() - {field.name for field in fields}):
        raise ValueError(f"{where} has the unknown field {unknown[0]!r}")
    for field in fields:
        required = field.default is dataclasses.MISSING and field.default_factory is dataclasses.MISSING
        if required and field.name not in data:
            raise ValueError(f"{where} has no {field.name!r}")
    return cls(**{key: _value(hints[key], item, f"{where}.{key}") for key, item in data.items()})
