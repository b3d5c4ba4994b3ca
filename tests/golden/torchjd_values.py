"""What TorchJD 0.18.0 computes on `tests.matrices.REFERENCE`, to the four digits that its own tests state.

UPGrad and DualProj are regularised there, by 1e-4 of the trace of the Gram matrix, and differ from the exact
projections in the fourth digit.
"""

DIRECTIONS = [
    ("mgda", {}, (0.0, 1.0, 1.0)),
    ("upgrad", {}, (0.2929, 1.9004, 1.9004)),
    ("dual-proj", {}, (0.5563, 1.1109, 1.1109)),
    ("pcgrad", {}, (0.5848, 3.8012, 3.8012)),
    ("imtl-g", {}, (0.0767, 1.0, 1.0)),
    ("aligned-mtl", {}, (0.2133, 0.9673, 0.9673)),
    ("cagrad", {"c": 0.5}, (0.1835, 1.2041, 1.2041)),
    ("nash-mtl", {"max_norm": 1.0}, (0.0542, 0.7061, 0.7061)),
    ("fair-grad", {"alpha": 1.0}, (0.0766, 0.9985, 0.9985)),
]
"""(method, options, direction)"""
