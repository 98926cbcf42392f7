"""From particles and poses to maps, and how good a map is."""

from napari_cryosphere.reconstruction.backprojection import BackProjector
from napari_cryosphere.reconstruction.comparison import MapComparison, compare_maps
from napari_cryosphere.reconstruction.fsc import FourierShellCorrelation, fourier_shell_correlation
from napari_cryosphere.reconstruction.mask import masked_correlation, soft_mask

__all__ = [
    "BackProjector",
    "FourierShellCorrelation",
    "MapComparison",
    "compare_maps",
    "fourier_shell_correlation",
    "masked_correlation",
    "soft_mask",
]
