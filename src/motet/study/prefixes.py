"""What may stand before the method of an arm, as ``NAME(option=value,…)+``: read in one way, refused in one way."""

import difflib
import re
from collections.abc import Mapping
from typing import Any

from motet.study.written import read_options

_PREFIX = re.compile(r"\s*([\w-]+)\s*(?:\(([^()]*)\))?\s*(?:(\+)(.*))?$", re.DOTALL)

Options = Mapping[str, Mapping[str, Any]]
"""{name: {option: default}}."""


def key(word: str) -> str:
    """A name in any spelling: APTAdamW, apt_adamw and apt-adamw are one."""
    return re.sub("[-_]", "", word.lower())


def find(word: str, known: Options) -> str | None:
    """The name that a word spells, if it is one."""
    return {key(name): name for name in known}.get(key(word))


def read_prefix(
    text: str, spec: str, known: Options, kind: str, elsewhere: Mapping[str, str]
) -> tuple[str, dict[str, Any], str] | None:
    """The name at the front of ``spec``, its options, and what stands behind; None where it is no such name.

    Args:
        text: The whole arm, for errors.
        spec: What is left of it.
        known: All names.
        kind: What they are, with its article: "an optimizer".
        elsewhere: What options are called elsewhere.

    Raises:
        ValueError: that names the arm, for options without brackets, an unknown option, or nothing behind the name.
    """
    _check_brackets(text, spec, known, kind)
    found = _PREFIX.match(spec)
    name = find(found[1], known) if found else None
    if found is None or name is None:
        return None
    if not (found[4] or "").strip():
        raise ValueError(f"arm {text!r}: {name} is {kind}: write what it trains behind it, as in {name}+sum")
    given = read_options(text, found[2] or "")
    for option in given:
        if option not in known[name]:
            near = difflib.get_close_matches(option, known[name], n=1)
            if (meant := elsewhere.get(option)) in known[name]:
                near = [str(meant)]
            hint = f"did you mean {near[0]!r}?" if near else f"there are {', '.join(known[name])}"
            raise ValueError(f"arm {text!r}: {name} has no option {option!r}: {hint}")
    return name, given, found[4].strip()


def refuse_unknown(text: str, spec: str, known: Mapping[str, Options]) -> None:
    """Raise a ValueError for a name with brackets that is none of these: {kind: names}."""
    found = _PREFIX.match(spec)
    if found is None or found[2] is None:
        return
    everywhere = {name: kind for kind, names in known.items() for name in names}
    near = difflib.get_close_matches(found[1].lower(), everywhere, n=1)
    kind = everywhere[near[0]] if near else " or ".join(known)
    hint = f"did you mean {near[0]!r}?" if near else f"there are {', '.join(everywhere)}"
    raise ValueError(f"arm {text!r}: there is no {kind} {found[1]!r}: {hint}")


def _check_brackets(text: str, spec: str, known: Options, kind: str) -> None:
    """Refuse options that stand in no brackets, or in half of them."""
    bare = re.match(r"\s*([\w-]+)[:\s]\s*(\w+\s*=[^+()]*?)\s*\+", spec)
    if bare and find(bare[1], known):
        right = f"{bare[1]}({bare[2]}){spec[bare.end() - 1 :]}"
        raise ValueError(f"arm {text!r}: {kind}'s options stand in brackets: write {right}")
    half = re.match(r"\s*([\w-]+)\s*\(([^()+]*)(\+|$)", spec)
    if half and find(half[1], known):
        raise ValueError(f"arm {text!r}: the bracket of {half[1]} is not closed: write {half[1]}({half[2]})+METHOD")
