"""The job ``convert``: particles from RELION's STAR to cryoSPARC's .cs and back, and maps to other grids."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from napari_cryosphere._files import refuse_overwrite
from napari_cryosphere.jobs.configs import ConvertConfig
from napari_cryosphere.jobs.events import Events, Note, Result
from napari_cryosphere.jobs.running.inputs import open_particles
from napari_cryosphere.jobs.running.outputs import claims
from napari_cryosphere.particles import read_cs
from napari_cryosphere.particles.cs.fields import SIGN

__all__ = ["convert"]

_RELION_SUFFIX = ".mrcs"


@claims(files=("output",))
def convert(config: ConvertConfig) -> Events:
    """Read particles and write them in the format that the output's suffix names; images stay where they are.

    Images need not be there: their names are then kept as they are. A map is converted by
    `convert_map`.
    """
    refuse_overwrite(config.output, config.overwrite)
    if config.of_map:
        from napari_cryosphere.jobs.convert_map import convert_map  # scipy and torch

        yield from convert_map(config)
        return
    stack = open_particles(config, require_images=False)
    for warning in stack.warnings:
        yield Note(warning, warning=True)
    to_cs = config.output.suffix.lower() == ".cs"
    signs = np.asarray(stack.particles.get(SIGN, np.ones(len(stack))), dtype=np.float32)
    if config.invert:
        stack = stack.with_columns({SIGN: -signs})
    elif not to_cs and (signs < 0).any():
        yield Note(
            "the images are dark on light (blob/sign -1), which RELION does not know: invert the "
            "stacks for it (relion_image_handler --multiply_constant -1)",
            warning=True,
        )
    if to_cs and stack.other_blocks:
        names = ", ".join(f"data_{name}" for name in stack.other_blocks)
        yield Note(f"a .cs file holds particles only; left out: {names}", warning=True)
    if not to_cs and not stack.particles["rlnImageName"].str.endswith(_RELION_SUFFIX).all():
        yield Note(
            f"RELION reads stacks whose names end with {_RELION_SUFFIX} only; rename or link the others",
            warning=True,
        )
    stack.save(config.output, config.overwrite)
    if to_cs and "rlnCoordinateX" in stack.particles and not _has_locations(config.output):
        yield Note(
            "coordinates are kept as relion/rlnCoordinateX and Y: cryoSPARC needs the micrographs' size, "
            "and not all files of rlnMicrographName are there to tell it",
            warning=True,
        )
    yield Result({"particles": config.output}, {"number": len(stack)})


def _has_locations(path: Path) -> bool:
    """Return whether a .cs file has places on micrographs."""
    return "location/center_x_frac" in (read_cs(path).dtype.names or ())
