"""Short texts as numbers: hashed pieces of words, which need no model and no download."""

import re
import zlib
from collections.abc import Sequence

import numpy as np

from motet.problems.assemble import Array

_LETTERS = (3, 4)


def hashed(texts: Sequence[str], width: int) -> Array:
    """log(1 + count) of words and of runs of 3 and 4 letters in each text, by hash: (N,) → (N, width), float32.

    Words are in lower case, and runs include the borders of a word. Different pieces may share a column; CRC-32 makes
    it the same one on every machine.
    """
    counts = np.zeros((len(texts), width), dtype=np.float32)
    for row, text in zip(counts, texts, strict=True):
        for word in re.findall(r"\w+", text.lower()):
            pieces = [word]
            for size in _LETTERS:
                bordered = f"<{word}>"
                pieces += [bordered[start : start + size] for start in range(len(bordered) - size + 1)]
            for piece in pieces:
                row[zlib.crc32(piece.encode()) % width] += 1
    return np.log1p(counts)
