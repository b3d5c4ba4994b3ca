"""Numbers as a reader wants them: few digits, a true minus, spaces that do not break, and "–" for what is not there."""

import math

from motet.study.results import Interval

MISSING = "–"
THIN = "\u202f"
"""The narrow no-break space, between a number and its unit and between thousands."""


def plain(value: float, digits: int) -> str:
    """With a fixed number of decimals: −1 234.5. What rounds to zero has no sign."""
    if not math.isfinite(value):
        return MISSING if math.isnan(value) else ("∞" if value > 0 else "−∞")
    text = f"{abs(value):,.{digits}f}".replace(",", THIN)
    negative = value < 0 and any(digit in text for digit in "123456789")
    return f"−{text}" if negative else text


def change(value: float) -> str:
    """A change in per cent or points, always with its sign: +3.2, −0.4, 0.0."""
    text = plain(value, 1)
    positive = value > 0 and any(digit in text for digit in "123456789")
    return f"+{text}" if positive else text


def bounds(interval: Interval) -> str:
    """The interval alone: [1.0, 5.4], or nothing where there is none."""
    if math.isnan(interval.low) or math.isnan(interval.high):
        return ""
    return f"[{change(interval.low)}, {change(interval.high)}]"


def ratio(value: float) -> str:
    """How many times: 1.25×, 14.2×, 210×."""
    if not math.isfinite(value):
        return plain(value, 0)
    size = abs(value)
    return plain(value, 2 if size < 10 else 1 if size < 100 else 0) + "×"


def seconds(value: float) -> str:
    """A duration in the units that suit it: 3.2 ms, 41 s, 3 min 05 s, 2 h 10 min."""
    if not math.isfinite(value):
        return plain(value, 0)
    if value < 0.9995:
        return f"{_significant(value * 1e3, 3)}{THIN}ms"
    if value < 99.95:
        return f"{_significant(value, 3)}{THIN}s"
    whole = round(value)
    if whole < 120:
        return f"{whole}{THIN}s"
    if whole < 3600:
        return f"{whole // 60}{THIN}min {whole % 60:02d}{THIN}s".replace(" ", "\u00a0")
    minutes = round(value / 60)
    return f"{plain(minutes // 60, 0)}{THIN}h {minutes % 60:02d}{THIN}min".replace(" ", "\u00a0")


def about(value: float) -> str:
    """A duration that is only guessed, in words: less than a minute, 12 min, 2 h 10 min, 3 days."""
    minutes = round(value / 60)
    if minutes < 1:
        return "less than a minute"
    if minutes < 60:
        return f"{minutes}{THIN}min"
    if minutes < 48 * 60:
        return f"{minutes // 60}{THIN}h {minutes % 60:02d}{THIN}min".replace(" ", "\u00a0")
    return f"{round(minutes / 60 / 24)}{THIN}days"


def mebibytes(value: float) -> str:
    """Memory from MiB: 48 MiB, 1.5 GiB."""
    if not math.isfinite(value):
        return plain(value, 0)
    return f"{plain(value, 0 if value >= 10 else 1)}{THIN}MiB" if value < 1024 else f"{plain(value / 1024, 1)}{THIN}GiB"


def probability(value: float) -> str:
    """A p-value with three decimals, never "0.000"."""
    if math.isnan(value):
        return MISSING
    return f"<{THIN}0.001" if value < 0.001 else f"{value:.3f}"


def measure(value: float) -> str:
    """A result on its own scale, with four significant digits: 0.9312, 41.07, 1.204·10⁻⁵."""
    if not math.isfinite(value):
        return plain(value, 0)
    size = abs(value)
    if size and not 1e-3 <= size < 1e6:
        mantissa, exponent = f"{value:.3e}".split("e")
        power = str(int(exponent)).translate(str.maketrans("-0123456789", "⁻⁰¹²³⁴⁵⁶⁷⁸⁹"))
        return f"{mantissa}·10{power}".replace("-", "−")
    return _significant(value, 4)


def _significant(value: float, digits: int) -> str:
    """With so many digits from the first that is not zero; whole numbers keep all of theirs."""
    exponent = int(f"{value:.{digits - 1}e}".split("e")[1])  # after rounding: 0.9999 may be 1.00
    return plain(value, min(max(digits - 1 - exponent, 0), 12) if value else digits - 1)


def short(value: float) -> str:
    """As short as an axis wants it: 0.5, 10, −20."""
    return f"{value:.4g}".replace("-", "−").replace("−0.0000", "0")


def plural(count: int, noun: str) -> str:
    """Counted: 1 seed, 6 seeds."""
    return f"{plain(count, 0)}\u00a0{noun}{'' if count == 1 else 's'}"
