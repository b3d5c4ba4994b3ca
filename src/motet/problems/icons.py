"""Icons by picture and words: which of the categories an icon is in. Some have an outline as a third view."""

import io
import json
from collections.abc import Sequence

import numpy as np
import torch

from motet.problems.assemble import Array, assemble, cut
from motet.problems.base import Data, Problem, Task, Training
from motet.problems.packages import DataError, Package
from motet.problems.table.columns import Column, Outcome
from motet.problems.table.splitting import Splitter, draw
from motet.problems.texts import hashed
from motet.problems.views import Views, standardised

PACKAGE = Package(
    problem="icons",
    name="fontawesomefree",
    version="6.6.0",
    file="fontawesomefree-6.6.0-py3-none-any.whl",
    sha256="599b574431c9bd92ed5fc054d1045a07c42335da36c17884f2b934755eef9089",
    size=25_645_298,
)

SIDE = 24
"""Pixels of a picture's side."""
WORDS = 512
"""Columns of the view of words."""
FEWEST = 30
"""A category of fewer icons is no task: its test part would have less than six."""

_FOLDER = "fontawesomefree/static/fontawesomefree/"
_FONTS = {"solid": "fa-solid-900.ttf", "regular": "fa-regular-400.ttf"}


def load(seed: int, package: Package = PACKAGE) -> Data:
    """Views "solid" and "outline" (N, 576), grey in [0, 1] before they are standardised, and "words" (N, 512).

    The outline is missing where an icon has none, which is most of them. Words are the icon's label and search terms.
    One binary task for each category of 30 icons or more. Random by icon, 60/20/20.
    """
    icons, categories, *fonts = package.read(
        f"{_FOLDER}metadata/icons.json",
        f"{_FOLDER}metadata/categories.yml",
        *(f"{_FOLDER}webfonts/{font}" for font in _FONTS.values()),
    )
    found = {name: icon for name, icon in json.loads(icons).items() if "solid" in icon["free"]}
    names = sorted(found)
    pictures = {
        style: [_draw(font, found[name]["unicode"]) if style in found[name]["free"] else None for name in names]
        for style, font in zip(_FONTS, map(_font, fonts), strict=True)
    }
    words = [" ".join([found[name]["label"], *map(str, found[name]["search"]["terms"])]) for name in names]
    views = Views(
        {
            "solid": _stack(pictures["solid"]),
            "outline": _stack(pictures["regular"]),
            "words": torch.as_tensor(hashed(words, WORDS)),
        }
    )
    outcomes = []
    for category, members in read_categories(categories.decode()).items():
        values = np.isin(names, members).astype(np.float64)
        if values.sum() >= FEWEST:
            outcomes.append(Outcome(Task(category, "binary", "auroc"), values, Column(category, "target", "binary")))
    parts, drawn = draw(Splitter(None, None, np.zeros(len(names), dtype=np.int64), "icons", ""), outcomes, seed)
    ready = standardised(views, torch.as_tensor(parts[0]))
    train, validation, test = (ready[torch.as_tensor(part)] for part in parts)
    targets = {o.task.name: cut(o.values, parts) for o in outcomes}
    return assemble([o.task for o in outcomes], (train, validation, test), targets, drawn)


def read_categories(text: str) -> dict[str, list[str]]:
    """The icons of each category, from the one form of YAML that this file has.

    Raises:
        DataError: for a line of any other form.
    """
    found: dict[str, list[str]] = {}
    for number, line in enumerate(text.splitlines(), 1):
        if line.startswith("    - ") and found:
            found[list(found)[-1]].append(line[6:].strip().strip("'"))
        elif line and not line.startswith(" ") and line.endswith(":"):
            found[line[:-1].strip("'")] = []
        elif line.strip() and line.rstrip() != "  icons:" and not line.startswith("  label: "):
            raise DataError(f"line {number} of categories.yml is of another form than expected: {line!r}")
    return found


def _font(content: bytes) -> object:
    from PIL import ImageFont

    return ImageFont.truetype(io.BytesIO(content), SIDE - 4)


def _draw(font: object, code: str) -> Array:
    from PIL import Image, ImageDraw

    picture = Image.new("L", (SIDE, SIDE))
    ImageDraw.Draw(picture).text((SIDE / 2, SIDE / 2), chr(int(code, 16)), fill=255, font=font, anchor="mm")  # type: ignore[arg-type]
    return np.asarray(picture, dtype=np.float32).ravel() / 255


def _stack(pictures: Sequence[Array | None]) -> torch.Tensor:
    gap = np.full(SIDE * SIDE, np.nan, dtype=np.float32)
    return torch.as_tensor(np.stack([gap if picture is None else picture for picture in pictures]))


PROBLEM = Problem(
    name="icons",
    title="Icons by picture and words: the categories that they are in",
    source="fontawesomefree 6.6.0: 1,395 solid icons (CC BY 4.0; fonts OFL 1.1)",
    caution="A category is sometimes among an icon's own words, and variants of one picture may be in several parts.",
    load=load,
    training=Training(epochs=40, patience=10, batch_size=64, learning_rate=1e-3, width=128, depth=2, dropout=0.25),
    package=PACKAGE,
)
