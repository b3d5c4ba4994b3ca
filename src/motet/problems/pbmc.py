"""Blood cells by single-cell sequencing: cell type, cell-cycle phase and four numbers from 765 genes."""

import io

import numpy as np

from motet.problems import splits
from motet.problems.assemble import Array, assemble, cut, standardise
from motet.problems.base import Data, Problem, Task, Training
from motet.problems.packages import Package

PACKAGE = Package(
    problem="pbmc",
    name="scanpy",
    version="1.11.5",
    file="scanpy-1.11.5-py3-none-any.whl",
    sha256="fcd383ddcf7acbf7c0ca232c25ad51b00aec9f8d2f7c8954b8c6ee0962257166",
    size=2_097_836,
)


def load(seed: int, package: Package = PACKAGE) -> Data:
    """Inputs (N, 765), standardised. Random by cell, 60/20/20 within each cell type: the rarest has 8 cells.

    Raises:
        ImportError: without h5py, which only this problem needs.
    """
    try:
        import h5py
    except ImportError as error:
        raise ImportError("problem 'pbmc' is an HDF5 file and needs h5py: run `pip install 'motet[pbmc]'`") from error

    (file,) = package.read("scanpy/datasets/10x_pbmc68k_reduced.h5ad")
    with h5py.File(io.BytesIO(file)) as archive:
        genes: Array = archive["X"][:]
        cells: Array = archive["obs"][:]
        types = _names(archive["uns"]["bulk_labels_categories"][:])
        phases = _names(archive["uns"]["phase_categories"][:])

    tasks = (
        Task("cell_type", "multiclass", "accuracy", classes=len(types), labels=types),
        Task("phase", "multiclass", "accuracy", classes=len(phases), labels=phases),
        Task("n_genes", "regression", "mae", unit="ln(genes)"),
        Task("percent_mito", "regression", "mae", unit="fraction"),
        Task("s_score", "regression", "mae"),
        Task("g2m_score", "regression", "mae"),
    )
    values = {
        "cell_type": cells["bulk_labels"].astype(np.int64),
        "phase": cells["phase"].astype(np.int64),
        "n_genes": np.log(cells["n_genes"]),
        "percent_mito": cells["percent_mito"],
        "s_score": cells["S_score"],
        "g2m_score": cells["G2M_score"],
    }
    parts = splits.stratified(values["cell_type"], seed)
    targets = {name: cut(column, parts) for name, column in values.items()}
    return assemble(tasks, standardise(cut(genes, parts)), targets)


def _names(categories: Array) -> tuple[str, ...]:
    return tuple(category.decode() for category in categories)


PROBLEM = Problem(
    name="pbmc",
    title="Blood cells by their genes: cell type, cycle phase and four numbers",
    source="10x_pbmc68k_reduced.h5ad in scanpy 1.11.5 (BSD-3): 700 cells of 10x Genomics' PBMC 68k",
    caution="Phase and its two scores are computed from the same genes, and 140 test cells give wide intervals.",
    load=load,
    training=Training(epochs=40, patience=10, batch_size=32, learning_rate=1e-3, width=64, depth=2),
    package=PACKAGE,
)
