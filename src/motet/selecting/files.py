"""The files that ``motet select`` leaves in its folder."""

from pathlib import Path

import pandas as pd

from motet.selecting.analysis import Analysis

NAMES = {
    "selected.csv": "features of the model and stable ones, with their exit λ, stability and importance",
    "features.csv": "the same of all features",
    "predictions.csv": "every row's prediction by models that have not seen it",
    "new_predictions.csv": "predictions of the new rows",
    "path.csv": "number of features and held-out concordance at each λ",
    "model.safetensors": "for motet.estimators.MixedOutcomeNetCV.load",
    "columns.json": "medians and categories that make the model's inputs of a table",
    "report.html": "all of this on one page",
}


def write_files(folder: Path, found: Analysis) -> list[str]:
    """Write all but the model and the report; the names of what is there now, these included."""
    features = found.features
    keep = features["selected"] | features["stable"] if "stable" in features else features["selected"]
    tables: dict[str, pd.DataFrame | None] = {
        "selected.csv": features[keep].reset_index(),
        "features.csv": features.reset_index(),
        "predictions.csv": found.predictions,
        "new_predictions.csv": found.new,
        "path.csv": found.path,
    }
    for name, table in tables.items():
        if table is not None:
            part = folder / f".{name}.part"
            table.to_csv(part, index=False, float_format="%.7g", lineterminator="\n")
            part.replace(folder / name)
    found.table.preparation.save(folder / "columns.json")
    # One of an earlier start may be there, and is not of these results.
    return [name for name in NAMES if name != "new_predictions.csv" or found.new is not None]
