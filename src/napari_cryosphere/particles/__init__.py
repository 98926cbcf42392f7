"""Particles and maps on disk: STAR, CS and MRC files, particle stacks and density maps."""

from napari_cryosphere.particles._poses import (
    ANGLES,
    CLASS_NUMBER,
    ORIGIN_SPREAD,
    ORIGINS,
    STATE_PROBABILITY,
    SYMMETRY,
    UNCERTAINTY,
    is_pose_column,
    is_state_column,
    network_column,
    number_of_states,
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
    "CLASS_NUMBER",
    "ORIGINS",
    "ORIGIN_SPREAD",
    "STATE_PROBABILITY",
    "SYMMETRY",
    "UNCERTAINTY",
    "CtfParameters",
    "DensityMap",
    "ImageGrid",
    "MrcStack",
    "ParticleStack",
    "is_pose_column",
    "is_state_column",
    "network_column",
    "number_of_states",
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
