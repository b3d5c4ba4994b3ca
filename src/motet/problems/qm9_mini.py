"""Eight quantum-chemical properties of 5,000 small molecules.

Equal weights lose a third against single-task networks here, mostly because the easy targets starve next to
the hard ones: look at each task, not at the mean alone.
"""

import ast
import io
import json

import numpy as np

from motet.problems import splits
from motet.problems.assemble import Array, assemble, cut, standardise
from motet.problems.base import Data, Problem, Task, Training
from motet.problems.packages import Package
from motet.problems.prepared import prepared

PACKAGE = Package(
    problem="qm9-mini",
    name="qm9pack",
    version="1.0.3",
    file="qm9pack-1.0.3-py3-none-any.whl",
    sha256="1d88c2988007c6778e717ee3224cf511bd60e10732ebe3b7ed500ea5af05c9f0",
    size=103_712_597,
)

MOLECULES = 5000
_FILES = tuple(f"qm9pack/data/qm9_part{number}.csv" for number in (1, 2, 3))
_COLUMNS = {
    "mu": "Dipole_debye",
    "alpha": "Polarizability_bohr3",
    "homo": "HOMO_au",
    "lumo": "LUMO_au",
    "r2": "R2_bohr2",
    "zpve": "ZPVE_au",
    "u0": "InternalEnergy_0K_au",
    "cv": "Heatcapacity_Cv_cal_mol_K",
}
_UNITS = ("D", "bohr³", "Ha", "Ha", "bohr²", "Ha", "Ha", "cal/(mol K)")
_TASKS = tuple(Task(name, "regression", "mae", unit=unit) for name, unit in zip(_COLUMNS, _UNITS, strict=True))

_CHARGES = {"H": 1, "C": 6, "N": 7, "O": 8, "F": 9}
_PAIRS = ((6, 6), (6, 7), (6, 8), (7, 7), (7, 8), (8, 8), (1, 6), (1, 7), (1, 8), (6, 9))
_DISTANCES = (0, 1.25, 1.42, 1.6, 2.2, 2.7, 3.5, 10)
"""Bins in ångström: triple and double bonds, aromatic, single, then second and third neighbours."""
_ATOMS = 29
"""Of the largest molecule in QM9."""


def load(seed: int, package: Package = PACKAGE) -> Data:
    """Inputs (N, 104), standardised. Random by molecule, 60/20/20.

    The first call reads the whole package, which takes some seconds, and keeps the cut in the cache.
    """
    features, values = prepared(package, ("features", "values"), lambda: _cut(package))
    parts = splits.random(len(features), seed)
    targets = {task.name: cut(values[:, column], parts) for column, task in enumerate(_TASKS)}
    return assemble(_TASKS, standardise(cut(features, parts)), targets)


def featurise(charges: Array, positions: Array) -> Array:
    """What a molecule looks like, without a graph or its orientation: (A,), (A, 3) in ångström → (104,).

    29 eigenvalues of the Coulomb matrix by magnitude, the number of each element, and how many pairs of two
    elements lie at which distance.
    """
    distances = np.linalg.norm(positions[:, None] - positions[None], axis=-1)
    np.fill_diagonal(distances, 1)
    coulomb = np.outer(charges, charges) / distances
    np.fill_diagonal(coulomb, 0.5 * charges**2.4)
    spectrum = np.zeros(_ATOMS)
    spectrum[: len(charges)] = np.sort(np.abs(np.linalg.eigvalsh(coulomb)))[::-1]
    counts = [np.sum(charges == charge) for charge in _CHARGES.values()]
    upper = np.triu(np.ones_like(distances, dtype=bool), 1)
    histograms = []
    for one, other in _PAIRS:
        pair = np.outer(charges == one, charges == other)
        histograms.append(np.histogram(distances[(pair | pair.T) & upper], bins=_DISTANCES)[0])
    return np.concatenate([spectrum, counts, *histograms])


def _cut(package: Package) -> tuple[Array, Array]:
    import pandas as pd

    columns = ["Elements", "XYZ_Ang", *_COLUMNS.values()]
    table: pd.DataFrame = pd.concat(
        [pd.read_csv(io.BytesIO(file), usecols=columns) for file in package.read(*_FILES)], ignore_index=True
    )
    # The file is ordered by the size of the molecules: the first rows alone would be another problem.
    table = table.iloc[np.random.default_rng(0).permutation(len(table))[:MOLECULES]]
    features = [
        featurise(
            np.array([_CHARGES[element] for element in ast.literal_eval(elements)], dtype=np.float64),
            np.array(json.loads(positions), dtype=np.float64),
        )
        for elements, positions in zip(table["Elements"], table["XYZ_Ang"], strict=True)
    ]
    return np.array(features, dtype=np.float32), table[list(_COLUMNS.values())].to_numpy(np.float64)


PROBLEM = Problem(
    name="qm9-mini",
    title="Eight quantum-chemical properties of 5,000 molecules",
    source="qm9pack 1.0.3 (MIT): 5,000 of the 130,831 molecules of QM9; licence of the data not confirmed",
    caution="Much of what equal weights lose here is imbalance between easy and hard targets, "
    "not gradients that point against each other.",
    load=load,
    training=Training(epochs=40, patience=10, batch_size=128, learning_rate=1e-3, width=128, depth=2),
    package=PACKAGE,
)
