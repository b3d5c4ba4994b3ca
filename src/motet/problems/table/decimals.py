"""Numbers as half of the world writes them: 3,5 for three and a half, 1.234,5 with a separator for thousands."""

import pandas as pd

from motet.problems.table.missing import is_mark

_NUMBER = r"[+-]?(?:(?:\d+|[1-9]\d{0,2}(?:\.\d{3})+)(?:,\d*)?|,\d+)(?:[eE][+-]?\d+)?"
_THOUSANDS = r"[+-]?[1-9]\d{0,2}(?:[.,]\d{3})+"
"""What may be a whole number with separators for thousands: 1,234 or 1.234."""


def may_have_commas(table: pd.DataFrame) -> bool:
    """Whether a column of text could be numbers with decimal commas, so that `decimal_commas` must look."""
    return any(_decides(table[name]) is not None for name in table.columns if _is_text(table[name]))


def decimal_commas(table: pd.DataFrame, raw: pd.DataFrame, semicolons: bool) -> tuple[pd.DataFrame, list[str]]:
    """The table with its decimal commas read, where the file has them, and notes on that.

    One column decides for the file: all its entries are numbers with decimal commas, and one at least, such
    as 0,5, can't be 1,234 with a separator for thousands. Where no column decides, commas are decimal if the
    file is separated by semicolons, since that is why it is, and no number has a decimal point. In a file
    with decimal commas, points in front of three digits each (1.234) are separators for thousands.

    Args:
        table: As read with decimal points.
        raw: The same, all text.
        semicolons: Whether the columns are separated by semicolons.
    """
    texts = [name for name in table.columns if _is_text(table[name])]
    points = {name: _points(raw[name]) for name in table.columns if pd.api.types.is_float_dtype(table[name])}
    votes = [vote for name in texts if (vote := _decides(table[name])) is not None]
    if not (any(votes) or (votes and semicolons and "decimal" not in points.values())):
        return table, []
    read: dict[str, pd.Series] = {}
    for name in texts:
        known = table[name].dropna().astype(str).str.strip()
        numbers = known.str.fullmatch(_NUMBER)
        changed = numbers & known.str.contains("[.,]")
        # A column of some stray numbers among text is not a column of numbers.
        if changed.any() and numbers.sum() * 2 > (~is_mark(known)).sum():
            read[name] = table[name].astype(object)
            read[name].loc[known.index[changed]] = _pointed(known[changed])
            if pd.to_numeric(read[name], errors="coerce").notna().sum() == len(known):
                read[name] = pd.to_numeric(read[name]).astype("float64")
    thousands = [name for name, point in points.items() if point == "thousands"]
    notes = [f"decimal commas read in {_names(list(read))}"]
    if thousands:
        notes.append(f"points read as separators for thousands, as in 1.234, in {_names(thousands)}")
        read |= {name: pd.to_numeric(_pointed(raw[name].str.strip())).astype("float64") for name in thousands}
    return table.assign(**read), notes


def _decides(series: pd.Series) -> bool | None:
    """True: decimal commas for sure. False: decimal commas or separators for thousands. None: neither."""
    known = series.dropna().astype(str).str.strip()
    known = known[~is_mark(known)]
    commas = known[known.str.contains(",")]
    if commas.empty or not known.str.fullmatch(_NUMBER).all():
        return None
    return not commas.str.fullmatch(_THOUSANDS).all()


def _points(raw: pd.Series) -> str:
    """What the points of a column of numbers can be: "decimal", "thousands", or "none" where there are none."""
    points = raw.dropna().str.strip()
    points = points[points.str.contains(".", regex=False)]
    if points.empty:
        return "none"
    return "thousands" if points.str.fullmatch(_THOUSANDS).all() else "decimal"


def _pointed(texts: pd.Series) -> pd.Series:
    return texts.str.replace(".", "", regex=False).str.replace(",", ".", regex=False)


def _is_text(series: pd.Series) -> bool:
    return bool(pd.api.types.is_string_dtype(series)) and not pd.api.types.is_numeric_dtype(series)


def _names(names: list[str], most: int = 5) -> str:
    return ", ".join(map(repr, names[:most])) + (f" and {len(names) - most} more columns" if len(names) > most else "")
