"""Particles and maps on disk: STAR, CS and MRC files, particle stacks and density maps."""

from napari_cryosphere.particles._poses import (
    ANGLES,
    ORIGIN_SPREAD,
    ORIGINS,
    SYMMETRY,
    UNCERTAINTY,
    is_pose_column,
    network_column,
    pose_columns,
    state_columns,
)
from napari_cryosphere.particles._selection import spread_rows
from napari_cryosphere.particles.cs import read_cs, write_cs
from napari_cryosphere.particles.ctf_parameters import CtfParameters
from napari_cryosphere.particles.density_map import DensityMap
from napari_cryosphere.particles.image_grid import ImageGrid
from napari_cryosphere.particles.mrc import MrcStack, stack_writer, write_stack
from napari_cryosphere.particles.stack import ParticleStack
from napari_cryosphere.particles.star import read_star, write_star

__all__ = [
    "ANGLES",
    "ORIGINS",
    "ORIGIN_SPREAD",
    "SYMMETRY",
    "UNCERTAINTY",
    "CtfParameters",
    "DensityMap",
    "ImageGrid",
    "MrcStack",
    "ParticleStack",
    "is_pose_column",
    "network_column",
    "pose_columns",
    "read_cs",
    "read_star",
    "spread_rows",
    "stack_writer",
    "state_columns",
    "write_cs",
    "write_stack",
    "write_star",
]
