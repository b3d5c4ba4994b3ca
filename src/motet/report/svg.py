"""A matplotlib figure as SVG inside a page: real text, the page's colours, ids that are its own, few bytes."""

import io
import re
import warnings
from html import escape
from xml.etree import ElementTree

import matplotlib
from markupsafe import Markup
from matplotlib.figure import Figure

from motet.report.figures.theme import STYLE, VARIABLES

_REFERENCE = re.compile(r"#([\w-]+)")
_COLOUR = re.compile(r"#[0-9a-f]{6}")
_LONG_NUMBER = re.compile(r"-?\d+\.\d{3,}")
_FAMILY = re.compile(r"font-family:[^;]*;?")
_FONT = re.compile(r"font: ?((?:[\w]+ )*?)([\d.]+)px [^;]*")
"""How matplotlib wrote size, weight and family in one before version 3.10."""


def inline(figure: Figure, name: str, title: str, description: str = "") -> Markup:
    """The figure as an ``<svg>`` element that scales to the width of its box.

    Args:
        figure: Drawn with the colours of `motet.report.figures.theme`.
        name: Unique in the page, letters, digits and hyphens: every id begins with it, since two figures with
            the same ids would use each other's clip paths.
        title: Read out by screen readers and shown by browsers in place of the figure.
        description: The figure's message in words.

    Raises:
        KeyError: for a colour that is not in `VARIABLES`, which would not follow the page into the dark.
    """
    file = io.BytesIO()
    with matplotlib.rc_context(STYLE | {"svg.fonttype": "none", "svg.hashsalt": name}), warnings.catch_warnings():
        # The browser draws the text. That matplotlib's own font lacks a letter does not matter here.
        warnings.filterwarnings("ignore", message="Glyph .* missing from", category=UserWarning)
        unset = dict.fromkeys(("Date", "Creator", "Format", "Type"))
        figure.savefig(file, format="svg", facecolor="none", metadata=unset)
    root = ElementTree.fromstring(file.getvalue())
    for element in root.iter():
        element.tag = element.tag.rpartition("}")[2]
        element.attrib = {key.rpartition("}")[2]: value for key, value in element.attrib.items()}
    _flatten(root)
    used = {
        match
        for element in root.iter()
        for key, value in element.attrib.items()
        if key == "href" or "url(" in value
        for match in _REFERENCE.findall(value)
    }
    for element in root.iter():
        element.attrib = {
            key: _attribute(key, value, name)
            for key, value in element.attrib.items()
            if key not in ("id", "transform")
            or value in used
            or (key == "transform" and not value.startswith("rotate(-0 "))
        }
    root.attrib = {"viewBox": root.attrib["viewBox"], "role": "img", "aria-labelledby": f"{name}-title {name}-desc"}
    root.attrib["style"] = f"max-width:{float(root.attrib['viewBox'].split()[2]) * 1.25:g}px"
    head = f'<title id="{name}-title">{escape(title)}</title><desc id="{name}-desc">{escape(description)}</desc>'
    body = ElementTree.tostring(root, encoding="unicode")
    start = body.index(">") + 1
    return Markup(body[:start] + head + re.sub(r">\s+<", "><", body[start:]))


def _flatten(element: ElementTree.Element) -> None:
    """Leave out metadata, the style sheet (the page has its own) and groups that group nothing."""
    children: list[ElementTree.Element] = []
    for child in list(element):
        _flatten(child)
        if child.tag in ("metadata", "style") or (child.tag == "defs" and not len(child)):
            continue
        bare = child.tag == "g" and not set(child.attrib) - {"id"}
        children.extend(child if bare else [child])
    element[:] = children


def _attribute(key: str, value: str, name: str) -> str:
    if key == "id":
        return f"{name}-{value}"
    if key == "href" or "url(" in value:
        return _REFERENCE.sub(rf"#{name}-\1", value)
    if key == "style":
        value = _FAMILY.sub("", _FONT.sub(_font, value))
        return _COLOUR.sub(lambda match: f"var({VARIABLES[match[0]]})", value).replace("; ", ";")
    return _LONG_NUMBER.sub(lambda match: f"{float(match[0]):.2f}".rstrip("0").rstrip("."), value)


def _font(match: re.Match[str]) -> str:
    weight = f";font-weight:{match[1].strip()}" if match[1].strip() else ""
    return f"font-size:{float(match[2]):g}px{weight}"
