"""Mistakes of the command line itself, each in one sentence: commands, options and numbers that are none."""

import difflib
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, fields, is_dataclass
from pathlib import Path
from types import UnionType
from typing import Annotated, Literal, Union, get_args, get_origin, get_type_hints

from tyro.conf import Positional

_POSITIONAL = get_args(Positional[int])[1]
_HELP = ("-h", "--help")
_ALSO = {"--target": "--outcome", "--targets": "--target", "--outcome": "--target"}
"""What another command calls an option."""


class UsageError(ValueError):
    """A command line that can't be read."""


@dataclass(frozen=True)
class _Option:
    """What follows an option: how many values, of which type, or one of which words."""

    many: bool = False
    type: type = str
    words: tuple[str, ...] = ()
    positional: bool = False


def check_spelling(commands: Mapping[str, type], arguments: Sequence[str]) -> None:
    """Refuse what the parser would refuse in a box of its own, and what it would accept without a word.

    Args:
        commands: Their options as dataclasses.
        arguments: Without the program's name.

    Raises:
        UsageError: for an unknown command or option, and a value that is missing or of another type.
        ValueError: for an option that is given twice, of which the parser takes the last one only.
    """
    if set(arguments) & set(_HELP):
        return
    if not arguments or arguments[0] not in commands:
        names = ", ".join(commands)
        if not arguments:
            raise UsageError(f"which command? There are {names}; `motet --help` describes them")
        raise UsageError(f"there is no command {arguments[0]!r}: {_near(arguments[0], commands, f'there are {names}')}")
    command, *rest = arguments
    options = _options(commands[command])
    positional = [option for option in options.values() if option.positional]
    free, index, seen = 0, 0, Counter[str]()
    while index < len(rest):
        word = rest[index]
        index += 1
        if not _is_option(word):
            free += 1
            if not any(option.many for option in positional) and free > len(positional):
                raise UsageError(_too_many(command, rest, word, len(positional)))
            continue
        name, equals, given = word.partition("=")
        name = "--" + name.lstrip("-").replace("_", "-")
        known = {f"--{key}": option for key, option in options.items() if not option.positional}
        if name not in known or not word.startswith("--"):
            hint = _near(_ALSO.get(name, name), known, f"`motet {command} --help` lists what there is")
            raise UsageError(f"motet {command} has no option {word.partition('=')[0]}: {hint}")
        seen[name] += 1
        option, values = known[name], [given] if equals else []
        while not equals and option.type is not bool and index < len(rest) and not _is_option(rest[index]):
            values.append(rest[index])
            index += 1
            if not option.many:
                break
        _check_values(name, option, values)
    if twice := [name for name, count in seen.items() if count > 1]:
        raise ValueError(f"{twice[0]} is given twice: give it once, with all its values behind it")
    _check_positional(command, commands[command], free, options, rest)


def _options(cls: type) -> dict[str, _Option]:
    """The options by name, those of nested classes too."""
    found: dict[str, _Option] = {}
    hints = get_type_hints(cls, include_extras=True)
    for field in fields(cls):
        hint, positional = hints[field.name], False
        while get_origin(hint) is Annotated:
            positional = positional or _POSITIONAL in get_args(hint)
            hint = get_args(hint)[0]
        if is_dataclass(hint):
            found |= _options(hint)  # type: ignore[arg-type]
            continue
        if get_origin(hint) in (Union, UnionType):
            hint = next(part for part in get_args(hint) if part is not type(None))
        many = get_origin(hint) is tuple
        words = get_args(hint) if get_origin(hint) is Literal else ()
        kind = hint if hint in (int, float, bool, Path) else str
        found[field.name.replace("_", "-")] = _Option(many, kind, words, positional)
    return found


def _is_option(word: str) -> bool:
    """A dash and a letter: -1 is a number."""
    return word.lstrip("-")[:1].isalpha() and word.startswith("-")


def _check_values(name: str, option: _Option, values: list[str]) -> None:
    if option.type is bool:
        if values:
            raise UsageError(f"{name} takes no value, and {values[0]!r} stands behind it: leave it out")
        return
    if not values:
        raise UsageError(f"{name} needs {'one value or more' if option.many else 'a value'} behind it")
    for value in values:
        if option.words and value not in option.words:
            raise UsageError(f"{name} can't be {value!r}: {_near(value, option.words, ' or '.join(option.words))}")
        if option.type in (int, float):
            try:
                option.type(value)
            except ValueError:
                what = "a whole number" if option.type is int else "a number"
                raise UsageError(f"{name} must be {what}, not {value!r}") from None


def _check_positional(command: str, cls: type, free: int, options: Mapping[str, _Option], rest: Sequence[str]) -> None:
    """What has no default must be there; it is lost easily behind an option that takes many values."""
    needed = [field.name for field in fields(cls) if options.get(field.name, _Option()).positional]
    if free or not needed or command not in ("compare", "affinity", "select"):
        return
    what = "table" if command == "select" else "problem or table"
    raise UsageError(
        f"which {what}? It stands first: motet {command} {'TABLE' if command == 'select' else 'PROBLEM|TABLE'} "
        f"{' '.join(rest)[:60]}".rstrip()
    )


def _too_many(command: str, rest: Sequence[str], word: str, count: int) -> str:
    first = next((other for other in rest if not _is_option(other)), word)
    if count == 1 and command in ("compare", "affinity", "select"):
        return (
            f"motet {command} takes one {'table' if command == 'select' else 'problem or table'}, {first!r}, and "
            f"{word!r} is one too many: put quotes around a name with spaces, or the option's name before it"
        )
    return f"motet {command} has no use for {word!r}: leave it out"


def _near(name: str, known: Iterable[str], otherwise: str) -> str:
    near = difflib.get_close_matches(name, list(known), n=1)
    return f"did you mean {near[0]!r}?" if near else otherwise
