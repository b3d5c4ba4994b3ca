"""Twelve properties of 20,903 molecules from handbooks, of which half have one label and 70 all twelve."""

import io
import zlib
from typing import TYPE_CHECKING

import numpy as np

from motet.problems import splits
from motet.problems.assemble import Array, assemble, cut, standardise
from motet.problems.base import Data, Problem, Task, Training
from motet.problems.packages import Package
from motet.problems.prepared import prepared

if TYPE_CHECKING:
    import pandas as pd

PACKAGE = Package(
    problem="chemicals",
    name="chemicals",
    version="1.5.2",
    file="chemicals-1.5.2-py3-none-any.whl",
    sha256="f85ef7f36e77fee634686c26562929ee61026cd548d89cebd57b2251ca843d6e",
    size=22_288_884,
)

WIDTH, LONGEST = 512, 4
"""Of the features, and of a piece of SMILES."""

_TABLES = {
    "tb": ("Phase Change/Yaws Boiling Points.tsv", "Tb", "K"),
    "tm": ("Phase Change/OpenNotebook Melting Points.tsv", "Tm", "K"),
    "logp": ("Environment/Syrres logP data.csv.gz", "logP", ""),
    "ri": ("Misc/CRC Handbook Organic RI.csv", "RI", ""),
    "hfg": ("Reactions/Yaws Hf S0 (g).tsv", "Hfg", "J/mol"),
    "s0g": ("Reactions/Yaws Hf S0 (g).tsv", "S0g", "J/(mol K)"),
    "tc": ("Critical Properties/IUPACOrganicCriticalProps.tsv", "Tc", "K"),
    "hvap": ("Phase Change/Ghazerati Appendix Vaporization Enthalpy.tsv", "Hvap298", "J/mol"),
    "hfus": ("Phase Change/CRC Handbook Heat of Fusion.tsv", "Hfus", "J/mol"),
    "tflash": ("Safety/DIPPR T_flash Serat.csv", "T_flash", "K"),
    "rho": ("Misc/Physical Constants of Organic Compounds.csv", "rho", "kg/m³"),
    "delta_h": ("Misc/alshehri_hansen_solubility_parameters.tsv", "HANSEN_DELTA_H", "Pa^½"),
}
"""Of each task: the file, the column and the unit. Tables of predicted properties are left alone."""
_STRUCTURES = tuple(f"chemicals/Identifiers/chemical identifiers pubchem {size}.tsv" for size in ("small", "large"))
_TASKS = tuple(Task(name, "regression", "mae", unit=unit) for name, (_, _, unit) in _TABLES.items())


def load(seed: int, package: Package = PACKAGE) -> Data:
    """Inputs (N, 512), standardised; missing labels are NaN. Random by molecule, 60/20/20.

    The first call reads the whole package, which takes some seconds, and keeps features and labels in the cache.
    """
    features, values = prepared(package, ("features", "values"), lambda: _molecules(package))
    parts = splits.random(len(features), seed)
    targets = {task.name: cut(values[:, k], parts) for k, task in enumerate(_TASKS)}
    return assemble(_TASKS, standardise(cut(np.log1p(features.astype(np.float64)), parts)), targets)


def pieces(smiles: str) -> Array:
    """How often each piece of one to four letters occurs, hashed by CRC-32 into 512 places: (512,)."""
    counts = np.zeros(WIDTH, dtype=np.int64)
    for length in range(1, LONGEST + 1):
        for start in range(len(smiles) - length + 1):
            counts[zlib.crc32(smiles[start : start + length].encode()) % WIDTH] += 1
    return counts


def _molecules(package: Package) -> list[Array]:
    """Features (N, 512) and labels (N, 12) in the order of CAS numbers. No two molecules share their SMILES."""
    import pandas as pd

    files = list(dict.fromkeys(file for file, _, _ in _TABLES.values()))
    members = package.read(*(f"chemicals/{file}" for file in files))
    tables = {
        file: pd.read_csv(
            io.BytesIO(member), sep="\t", low_memory=False, compression="gzip" if file.endswith(".gz") else None
        )
        for file, member in zip(files, members, strict=True)
    }
    columns = {}
    for name, (file, column, _) in _TABLES.items():
        table = tables[file]
        values = pd.to_numeric(table[column], errors="coerce").to_numpy(np.float64)
        labels = pd.Series(values, index=_registry_numbers(table["CAS"]))
        columns[name] = labels[~labels.index.duplicated()]
    smiles = _smiles(package)
    labels = pd.DataFrame(columns)
    labels = labels[labels.index.isin(list(smiles))].dropna(how="all").sort_index()
    features = np.stack([pieces(smiles[number]) for number in labels.index]).astype(np.uint16)
    return [features, labels.to_numpy(np.float64)]


def _registry_numbers(column: "pd.Series") -> Array:
    """CAS numbers as integers; some tables write 50-99-7, others 50997."""
    numbers: Array = column.astype(str).str.replace("-", "").str.removesuffix(".0").astype(np.int64).to_numpy()
    return numbers


def _smiles(package: Package) -> dict[int, str]:
    found = {}
    for file in package.read(*_STRUCTURES):
        for line in file.decode().splitlines():
            _, number, _, _, smiles, *_ = line.split("\t")
            found[int(number.replace("-", ""))] = smiles
    return found


PROBLEM = Problem(
    name="chemicals",
    title="Twelve properties of 20,903 molecules with few labels each",
    source="tables of chemicals 1.5.2 (MIT): values of several handbooks and data collections, with structures of "
    "PubChem; licence of the values not confirmed",
    caution="Some handbook values are estimates, and a hashed count of pieces of SMILES knows little chemistry. Tasks "
    "have 670 to 11,384 labels: sharing tends to help those with few and to cost those with many, and a mean over "
    "tasks hides both.",
    load=load,
    training=Training(epochs=30, patience=8, batch_size=128, learning_rate=1e-3, width=128, depth=2),
    package=PACKAGE,
)
