"""From a table's numbers and categories to inputs of a network, fitted on the training rows alone."""

import numpy as np
import pandas as pd

from motet.problems.assemble import Triple
from motet.problems.splits import Parts
from motet.problems.table.columns import Features

RARE = 5
"""A category seen in fewer training rows than this shares one column with the other rare ones."""


def inputs(features: Features, parts: Parts) -> Triple:
    """(N, D) for each part.

    Numbers: the median for missing values, an indicator for each column that misses some, mean 0 and
    deviation 1. Categories: one column each, rare ones together, all zeros for one never seen in training.
    """
    from sklearn.compose import ColumnTransformer
    from sklearn.impute import SimpleImputer
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import OneHotEncoder, StandardScaler

    # keep_empty_features: a column may be empty in one seed's training part and not in another's.
    imputer = SimpleImputer(strategy="median", add_indicator=True, keep_empty_features=True)
    encoder = OneHotEncoder(min_frequency=RARE, handle_unknown="ignore", sparse_output=False)
    transformer = ColumnTransformer(
        [
            ("numbers", make_pipeline(imputer, StandardScaler()), list(features.numbers.columns)),
            ("categories", encoder, list(features.categories.columns)),
        ],
        sparse_threshold=0,
    )
    table = pd.concat([features.numbers, features.categories], axis=1)
    transformer.fit(table.iloc[parts[0]])
    train, validation, test = (transformer.transform(table.iloc[part]).astype(np.float64) for part in parts)
    return train, validation, test
