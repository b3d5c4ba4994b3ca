"""Tables of pandas that were pickled, read without running any code of the file's choice."""

import importlib
import io
import pickle
from typing import TYPE_CHECKING, Any

from motet.problems.packages import DataError

if TYPE_CHECKING:
    import pandas as pd


class _Frames(pickle.Unpickler):
    """Makes pandas' tables and nothing else: any other name in the file is an error, whatever it would do."""

    names = frozenset(
        {
            ("builtins", "slice"),
            ("numpy", "dtype"),
            ("numpy", "ndarray"),
            ("numpy.core.multiarray", "_reconstruct"),
            ("numpy.core.numeric", "_frombuffer"),
            ("numpy._core.multiarray", "_reconstruct"),
            ("numpy._core.numeric", "_frombuffer"),
            ("pandas", "DataFrame"),
            ("pandas", "Index"),
            ("pandas", "RangeIndex"),
            ("pandas._libs.arrays", "__pyx_unpickle_NDArrayBacked"),
            ("pandas._libs.internals", "_unpickle_block"),
            ("pandas.core.arrays.categorical", "Categorical"),
            ("pandas.core.dtypes.dtypes", "CategoricalDtype"),
            ("pandas.core.frame", "DataFrame"),
            ("pandas.core.indexes.base", "Index"),
            ("pandas.core.indexes.base", "_new_Index"),
            ("pandas.core.indexes.range", "RangeIndex"),
            ("pandas.core.internals.managers", "BlockManager"),
        }
    )

    def find_class(self, module: str, name: str) -> Any:
        """The class or function of a name that is on the list.

        Raises:
            DataError: for any other.
        """
        if (module, name) not in self.names:
            raise DataError(f"the file asks for {module}.{name}, which no table needs: it was not read")
        # numpy.core is numpy._core since numpy 2, and says so with a warning under its old name.
        moved = module.replace("numpy.core.", "numpy._core.")
        try:
            return getattr(importlib.import_module(moved), name)
        except ModuleNotFoundError:
            return super().find_class(module, name)


def read_frame(content: bytes) -> "pd.DataFrame":
    """The table in a pickle.

    Raises:
        DataError: if the file would make anything but a table.
    """
    table: pd.DataFrame = _Frames(io.BytesIO(content)).load()
    return table
