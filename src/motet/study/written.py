"""Options as they are written behind an arm's name: ``name=value,name=[1,2]``."""

import ast
from typing import Any

_NEVER = object()


def read_options(text: str, rest: str) -> dict[str, Any]:
    """Options from what stands behind the colon. Lists become tuples, however deep.

    Raises:
        ValueError: that names the arm, for an option without a value, or given twice.
    """
    found: dict[str, Any] = {}
    for part in _split(rest):
        key, value = read_option(text, part)
        if key in found:
            raise ValueError(f"arm {text!r} gives one option twice: keep one")
        found[key] = value
    return found


def read_option(text: str, part: str) -> tuple[str, Any]:
    """One option."""
    key, equals, value = part.partition("=")
    if not equals or not key or not value:
        raise ValueError(f"arm {text!r}: write its options as name=value, separated by commas")
    try:
        return key.strip(), _frozen(ast.literal_eval(value.strip()))
    except (ValueError, SyntaxError):
        return key.strip(), value.strip()


def canonical(given: dict[str, Any], defaults: dict[str, Any]) -> tuple[tuple[str, Any], ...]:
    """Without those that equal their default, and in the order of the defaults; unknown ones come last."""
    order = list(defaults)
    kept = [(key, value) for key, value in given.items() if not _same(value, defaults.get(key, _NEVER))]
    return tuple(sorted(kept, key=lambda item: order.index(item[0]) if item[0] in order else len(order)))


def write_options(options: tuple[tuple[str, Any], ...]) -> str:
    """What `read_options` reads."""
    return ",".join(f"{key}={write(value)}" for key, value in options)


def write(value: object) -> str:
    """A number as short as it can be read back: 1 for 1.0."""
    if isinstance(value, tuple):
        return f"[{','.join(map(write, value))}]"
    if isinstance(value, bool) or not isinstance(value, int | float):
        return str(value)
    short = f"{value:g}"
    return short if float(short) == value else str(value)


def _split(rest: str) -> list[str]:
    """At the commas outside brackets."""
    parts, depth = [""], 0
    for character in rest:
        depth += (character in "[(") - (character in "])")
        if character == "," and depth <= 0:
            parts.append("")
        else:
            parts[-1] += character
    return parts if rest else []


def _frozen(value: Any) -> Any:
    return tuple(map(_frozen, value)) if isinstance(value, list | tuple) else value


def _same(value: object, default: object) -> bool:
    """Equal, where 2 is 2.0 and True is not 1."""
    return value == default and isinstance(value, bool) == isinstance(default, bool)
