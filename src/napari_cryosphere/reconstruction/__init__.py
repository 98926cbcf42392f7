"""Reconstruction of maps from particles and poses, and their validation.

Maps are aligned by `napari_cryosphere.reconstruction.map_alignment`, and views counted by
`napari_cryosphere.reconstruction.fourier_sampling`; few need them, and they are not imported here.
"""

from napari_cryosphere.imaging.map_mask import soft_mask
from napari_cryosphere.imaging.resample import resampled_map
from napari_cryosphere.reconstruction.backprojection import BackProjector
from napari_cryosphere.reconstruction.comparison import (
    MapComparison,
    check_one_grid,
    compare_maps,
    difference_map,
    masked_correlation,
)
from napari_cryosphere.reconstruction.cones import ConicalFsc, conical_fsc
from napari_cryosphere.reconstruction.exact_sums import ExactSums
from napari_cryosphere.reconstruction.fsc import (
    FourierShellCorrelation,
    fourier_shell_correlation,
    ssnr_of_full_map,
)
from napari_cryosphere.reconstruction.fsc_files import (
    read_fsc_csv,
    write_fsc_csv,
    write_fsc_star,
    write_fsc_xml,
)
from napari_cryosphere.reconstruction.postprocessing import (
    HalfMapFsc,
    Postprocessed,
    corrected_fsc,
    postprocess_maps,
)
from napari_cryosphere.reconstruction.weighted_poses import WeightedPoses

__all__ = [
    "BackProjector",
    "ConicalFsc",
    "ExactSums",
    "FourierShellCorrelation",
    "HalfMapFsc",
    "MapComparison",
    "Postprocessed",
    "WeightedPoses",
    "check_one_grid",
    "compare_maps",
    "conical_fsc",
    "corrected_fsc",
    "difference_map",
    "fourier_shell_correlation",
    "masked_correlation",
    "postprocess_maps",
    "read_fsc_csv",
    "resampled_map",
    "soft_mask",
    "ssnr_of_full_map",
    "write_fsc_csv",
    "write_fsc_star",
    "write_fsc_xml",
]
