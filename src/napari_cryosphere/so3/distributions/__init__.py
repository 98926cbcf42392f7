"""Probability distributions over poses: one noun, kept as coefficients, cells or weighted poses.

The layers, lowest first: `cells` (arrays), `questions` and `modes` (functions of cells),
`distribution` (what every kind can be asked, and piecewise constant ones), `smooth` (kinds given by
a formula), `kernel` and `harmonic` (the kinds), `store` (files). A layer imports those below it
alone. All kinds are loaded here, so that `PoseDistribution` can construct each of them; `torch`
comes with them, and what needs only names of results takes them from `so3.pose_summary`.
"""

from napari_cryosphere.so3.distributions.distribution import (
    CellDistribution,
    CredibleSet,
    PoseDistribution,
)
from napari_cryosphere.so3.distributions.harmonic import HarmonicDistribution
from napari_cryosphere.so3.distributions.kernel import KernelDistribution

__all__ = [
    "CellDistribution",
    "CredibleSet",
    "HarmonicDistribution",
    "KernelDistribution",
    "PoseDistribution",
]
