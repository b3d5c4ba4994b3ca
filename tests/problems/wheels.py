"""Tiny wheels with the layout of the real ones, so that nothing is downloaded."""

import gzip
import hashlib
import io
import zipfile
from dataclasses import replace

import h5py
import numpy as np
import pandas as pd

from motet.problems import pbmc, qm9_mini, yeast


def pack(folder, package, members):
    """Write a wheel under the package's file name; → the package with this wheel's digest and size."""
    info = f"{package.name.replace('-', '_')}-{package.version}.dist-info"
    tags = "-".join(package.file.removesuffix(".whl").split("-")[-3:])
    files = {
        f"{info}/METADATA": f"Metadata-Version: 2.1\nName: {package.name}\nVersion: {package.version}\n".encode(),
        f"{info}/WHEEL": f"Wheel-Version: 1.0\nGenerator: test\nRoot-Is-Purelib: true\nTag: {tags}\n".encode(),
        f"{info}/RECORD": b"",
    }
    path = folder / package.file
    folder.mkdir(parents=True, exist_ok=True)
    with zipfile.ZipFile(path, "w") as wheel:
        for name, content in (members | files).items():
            wheel.writestr(name, content)
    return replace(package, sha256=hashlib.sha256(path.read_bytes()).hexdigest(), size=path.stat().st_size)


def yeast_wheel(folder, rows=120):
    generator = np.random.default_rng(0)
    columns = {f"Att{i}": generator.normal(3, 2, rows) for i in range(1, 104)}
    columns |= {f"Class{i}": generator.integers(0, 2, rows) for i in range(1, 15)}
    table = gzip.compress(pd.DataFrame(columns).to_csv(index=False).encode())
    return pack(folder, yeast.PACKAGE, {"river/datasets/yeast.csv.gz": table})


def pbmc_wheel(folder, rows=100):
    generator = np.random.default_rng(0)
    numbers = [("n_genes", "<i8"), ("percent_mito", "<f4"), ("S_score", "<f4"), ("G2M_score", "<f4")]
    cells = np.zeros(rows, dtype=[("index", "S16"), ("bulk_labels", "i1"), ("phase", "i1"), *numbers])
    cells["bulk_labels"] = np.arange(rows) % 10
    cells["phase"] = generator.integers(0, 3, rows)
    cells["n_genes"] = generator.integers(1000, 2600, rows)
    for name in ("percent_mito", "S_score", "G2M_score"):
        cells[name] = generator.normal(size=rows)
    stream = io.BytesIO()
    with h5py.File(stream, "w") as archive:
        archive["X"] = generator.normal(size=(rows, 30)).astype("f4")
        archive["obs"] = cells
        archive["uns/bulk_labels_categories"] = np.array([f"type {i}" for i in range(10)], dtype="S8")
        archive["uns/phase_categories"] = np.array(["G1", "G2M", "S"], dtype="S3")
    return pack(folder, pbmc.PACKAGE, {"scanpy/datasets/10x_pbmc68k_reduced.h5ad": stream.getvalue()})


def qm9_wheel(folder, rows=90):
    generator = np.random.default_rng(0)
    members = {}
    for part in (1, 2, 3):
        table = []
        for _ in range(rows // 3):
            elements = ["C", *generator.choice(["H", "C", "N", "O", "F"], generator.integers(2, 9))]
            positions = generator.normal(0, 2, (len(elements), 3)).round(4).tolist()
            row = {"Elements": str([str(e) for e in elements]), "XYZ_Ang": str(positions), "SMILES": "C"}
            table.append(row | {name: generator.normal(-5, 3) for name in qm9_mini._COLUMNS.values()})
        members[f"qm9pack/data/qm9_part{part}.csv"] = pd.DataFrame(table).to_csv(index=False).encode()
    return pack(folder, qm9_mini.PACKAGE, members)
