"""Two real tables of mixed outcomes, read out of packages that are never imported.

Both are breast cancer studies with gene expression. They come with packages under the GPL, so nothing of them is in
this repository: where a package is installed its file is checked against a digest, read, and kept as Parquet in
motet's folder of fetched data (``$MOTET_DATA``, by default ``~/.cache/motet``); where it is not, `DataError` says so.
"""

import hashlib
import importlib.metadata
import io
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from sklearn.model_selection import StratifiedShuffleSplit

from motet.estimators.outcomes import Survival
from motet.problems.frames import read_frame
from motet.problems.packages import DataError, cache


@dataclass(frozen=True)
class Table:
    """Rows, and what the outcomes are.

    Attributes:
        name: Of the data.
        X: Columns of gene expression; NaN where missing.
        Y: Outcomes as numbers; NaN where missing.
        outcomes: Name → kind, or Survival(time, event).
        strata: The binary outcomes and the event, for splits.
    """

    name: str
    X: pd.DataFrame
    Y: pd.DataFrame
    outcomes: dict[str, Any]
    strata: tuple[str, ...]

    def splits(self, count: int = 20, test: float = 0.2) -> list[tuple[np.ndarray, np.ndarray]]:
        """Training and test rows, stratified; a missing value counts with its column's commonest one."""
        known = pd.concat([self.Y[c].fillna(self.Y[c].mode()[0]).astype(int).astype(str) for c in self.strata], axis=1)
        made = StratifiedShuffleSplit(count, test_size=test, random_state=0)
        return list(made.split(self.X, known.agg("".join, axis=1)))

    def prepared(self, train: np.ndarray, test: np.ndarray, genes: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """X of both parts: median for missing, the so many columns of largest variance, standardised; and which.

        All three are learnt from the training rows, and none looks at an outcome.
        """
        X = self.X.to_numpy(float)
        middle = np.nanmedian(X[train], axis=0)
        X = np.where(np.isnan(X), middle, X)
        varied = X[train].std(0)
        kept = np.sort(np.argsort(-varied, kind="stable")[:genes])
        kept = kept[varied[kept] > 0]
        A = (X[:, kept] - X[train][:, kept].mean(0)) / varied[kept]
        return A[train], A[test], kept


def load(name: str) -> Table:
    """One of `TABLES`.

    Raises:
        DataError: if neither the cache nor an installed package has it.
    """
    kept = cache() / "mixed-outcomes" / f"{name}.parquet"
    package, make = TABLES[name]
    if kept.is_file():
        return make(pd.read_parquet(kept))
    table = package.read()
    kept.parent.mkdir(parents=True, exist_ok=True)
    partial = kept.with_suffix(".part")
    table.to_parquet(partial)
    partial.replace(kept)
    return make(table)


@dataclass(frozen=True)
class Installed:
    """A file of an installed distribution, found by its metadata: no code of the package runs."""

    distribution: str
    version: str
    file: str
    sha256: str
    parse: Callable[[bytes], pd.DataFrame]

    def read(self) -> pd.DataFrame:
        try:
            distribution = importlib.metadata.distribution(self.distribution)
        except importlib.metadata.PackageNotFoundError:
            raise DataError(f"{self.file} is in {self.distribution} {self.version}, which is not installed") from None
        content = Path(str(distribution.locate_file(self.file))).read_bytes()
        if (found := hashlib.sha256(content).hexdigest()) != self.sha256:
            raise DataError(
                f"{self.file} of {self.distribution} {distribution.version} has SHA-256 {found[:12]}…, "
                f"not {self.sha256[:12]}… as in {self.version}"
            )
        return self.parse(content)


def _arff(content: bytes) -> pd.DataFrame:
    """Attributes without quotes, and rows of comma-separated values."""
    head, _, rows = content.decode().partition("@data")
    names = [line.split()[1] for line in head.splitlines() if line.lower().startswith("@attribute")]
    return pd.read_csv(io.StringIO(rows), names=names, skipinitialspace=True)


def _frame(content: bytes) -> pd.DataFrame:
    table = read_frame(content)
    # Parquet keeps it, and whichever pandas reads it next.
    return table.astype({column: str for column in table if str(table[column].dtype) in ("category", "object")})


def _gse7390(table: pd.DataFrame) -> Table:
    grades = {"well differentiated": 0.0, "intermediate": 1.0, "poorly differentiated": 2.0}  # and "unkown"
    Y = pd.DataFrame(
        {
            "age": table["age"].astype(float),
            "size": table["size"].astype(float),
            "grade": table["grade"].map(grades),
            "er": (table["er"] == "positive").astype(float),
            "days": table["t.tdm"].astype(float),
            "metastasis": table["e.tdm"].astype(float),
        }
    )
    outcomes = {"age": "continuous", "size": "continuous", "grade": "ordinal", "er": "binary"}
    X = table[[column for column in table if column.startswith("X")]].astype(float)
    return Table(
        "gse7390", X, Y, outcomes | {"metastasis-free": Survival("days", "metastasis")}, strata=("er", "metastasis")
    )


def _gse1992(table: pd.DataFrame) -> Table:
    columns = {"er": "fac_er_positive", "node": "fac_node_status", "grade": "fac_grade", "size": "fac_size"}
    Y = pd.DataFrame({name: pd.to_numeric(table[column], errors="coerce") for name, column in columns.items()})
    Y = Y.assign(
        age=table["num_age"].astype(float), time=table["time"].astype(float), event=table["event"].astype(float)
    )
    outcomes = {"age": "continuous", "er": "binary", "node": "binary", "grade": "ordinal", "size": "ordinal"}
    X = table[[column for column in table if column.startswith("num_HS_")]].astype(float)
    X.columns = [column.removeprefix("num_HS_") for column in X]
    return Table("gse1992", X, Y, outcomes | {"survival": Survival("time", "event")}, strata=("er", "event"))


TABLES: dict[str, tuple[Installed, Callable[[pd.DataFrame], Table]]] = {
    "gse7390": (
        Installed(
            "scikit-survival",
            "0.28.0",
            "sksurv/datasets/data/breast_cancer_GSE7390-metastasis.arff",
            "233f4c1c06b2ee299fffcba0f9881f6ed66a3566ccbec30b5004f0d298b52570",
            _arff,
        ),
        _gse7390,
    ),
    "gse1992": (
        Installed(
            "SurvSet",
            "0.2.11",
            "SurvSet/resources/pickles/gse1992.pickle",
            "86601d8810ca2738c0d460f7ee371815ba3d7354c8264abfbb6a5153133ff1da",
            _frame,
        ),
        _gse1992,
    ),
}
"""198 × 76 with five outcomes of four kinds, and 124 × 15,528 with six."""
