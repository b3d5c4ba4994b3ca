"""Single-task results of the common benchmarks, against which published Δm are computed.

Every Δm in the literature stands on one of these rows, and two papers can be compared only where it is the same
row. They are data with a source, so that nobody has to copy them by hand; they change only with a release.
"""

from dataclasses import dataclass

_CAGRAD = "single-task row in the public code of CAGrad, Nash-MTL, FAMO and FairGrad"


@dataclass(frozen=True)
class Reference:
    """Single-task results of a benchmark.

    Attributes:
        results: {metric: value}, in the order of the published tables.
        higher_is_better: {metric: direction}.
        tasks: {metric: task that it judges}.
        source: Where the row comes from.
        protocol: The settings under which it holds.
    """

    results: dict[str, float]
    higher_is_better: dict[str, bool]
    tasks: dict[str, str]
    source: str
    protocol: str


def _reference(rows: str, results: str, source: str, protocol: str) -> Reference:
    """``rows``: "metric:task:direction" with direction + where higher is better, - where lower is."""
    parts = [row.strip().split(":") for row in rows.split(",")]
    return Reference(
        results={metric: float(v) for (metric, _, _), v in zip(parts, results.split(), strict=True)},
        higher_is_better={metric: direction == "+" for metric, _, direction in parts},
        tasks={metric: task for metric, task, _ in parts},
        source=source,
        protocol=protocol,
    )


_QM9 = ",".join(f"{t}:{t}:-" for t in ["mu", "alpha", "homo", "lumo", "R2", "zpve", "U0", "U", "H", "G", "Cv"])
_ATTRIBUTES = """
5_o_Clock_Shadow Arched_Eyebrows Attractive Bags_Under_Eyes Bald Bangs Big_Lips Big_Nose Black_Hair Blond_Hair Blurry
Brown_Hair Bushy_Eyebrows Chubby Double_Chin Eyeglasses Goatee Gray_Hair Heavy_Makeup High_Cheekbones Male
Mouth_Slightly_Open Mustache Narrow_Eyes No_Beard Oval_Face Pale_Skin Pointy_Nose Receding_Hairline Rosy_Cheeks
Sideburns Smiling Straight_Hair Wavy_Hair Wearing_Earrings Wearing_Hat Wearing_Lipstick Wearing_Necklace
Wearing_Necktie Young
"""
_CELEBA = ",".join(f"{attribute}:{attribute}:+" for attribute in _ATTRIBUTES.split())

references: dict[str, Reference] = {
    "nyuv2": _reference(
        "mIoU:segmentation:+, pixel accuracy:segmentation:+, absolute error:depth:-, relative error:depth:-, "
        "mean angle:normals:-, median angle:normals:-, within 11.25°:normals:+, within 22.5°:normals:+, "
        "within 30°:normals:+",
        "38.30 63.76 0.6754 0.2780 25.01 19.21 30.14 57.20 69.15",
        _CAGRAD,
        "SegNet with MTAN, Adam 1e-4, 200 epochs, batch 2; mean of the last 10 epochs on the test split, 3 seeds",
    ),
    "cityscapes": _reference(
        "mIoU:segmentation:+, pixel accuracy:segmentation:+, absolute error:depth:-, relative error:depth:-",
        "74.01 93.16 0.0125 27.77",
        _CAGRAD,
        "SegNet with MTAN, 7 classes, Adam 1e-4, 200 epochs, batch 8; mean of the last 10 epochs, 3 seeds",
    ),
    "celeba": _reference(
        _CELEBA,
        ".6736886 .68121034 .81524944 .5760289 .7205613 .8555076 .38203922 .58225113 .787647 .8321292 .5029583 "
        ".68694085 .6781237 .5240381 .5161666 .95694304 .6968786 .67976356 .8808315 .8582131 .97034 .93267566 "
        ".5057539 .40307626 .9703734 .48644206 .60786104 .5261031 .56907415 .59815097 .6858371 .924108 .5424991 "
        ".7406311 .71019936 .87365365 .9305602 .33704284 .7647628 .91907",
        "F1 of single-task models posted by the authors of FAMO, issue 2 of its repository",
        "9-layer CNN, 64×64, Adam 3e-4, 15 epochs, batch 256; F1 of each attribute on the test split",
    ),
    "qm9": _reference(
        _QM9,
        ".0671 .1814 60.576 53.915 .5027 4.539 58.838 64.244 63.852 66.223 .07212",
        _CAGRAD,
        "MPNN, Adam 1e-3, 300 epochs, batch 120, patience of the schedule 5; mean absolute error, energies in meV",
    ),
    "qm9-retuned": _reference(
        _QM9,
        ".060 .156 60.54 51.22 .419 3.08 39.3 42.9 41.7 43.1 .061",
        "NTKMTL, NeurIPS 2025, arXiv 2510.18258, whose authors found that the rate decays too fast in the usual code",
        "as qm9 with batch 60 and patience 10; the ranking of methods differs from that of qm9",
    ),
}
"""By benchmark: nyuv2, cityscapes, celeba, qm9, and qm9-retuned."""
