"""Numbers within sentences: few digits, a true minus, never an exponent."""

import math


def number(value: float) -> str:
    """One digit after the point; two below one, so that a small change does not read as none.

    >>> number(-0.554), number(12.04), number(-0.001)
    ('−0.55', '12.0', '0.00')
    """
    if not math.isfinite(value):
        return "–"
    digits = 1 if abs(value) >= 0.95 else 2
    return f"{round(value, digits) + 0.0:.{digits}f}".replace("-", "−")  # + 0.0: no "−0.00"


def signed(value: float) -> str:
    """A change with its sign, one digit after the point.

    >>> signed(0.31), signed(-2), signed(-0.04)
    ('+0.3', '−2.0', '0.0')
    """
    if not math.isfinite(value):
        return "–"
    rounded = round(value, 1)
    return f"{rounded:+.1f}".replace("-", "−") if rounded else "0.0"


def times(value: float) -> str:
    """A ratio with two digits.

    >>> times(968.2), times(4.74), times(0.0516)
    ('970×', '4.7×', '0.052×')
    """
    if not math.isfinite(value) or value <= 0:
        return "–"
    digits = 1 - math.floor(math.log10(value))
    return f"{round(value, digits):.{max(digits, 0)}f}×"
