"""What a file of particles says besides poses and CTF, and what jobs do about it: lines for ``info``."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import pandas as pd

from napari_cryosphere.particles._checks import counted
from napari_cryosphere.particles.aberrations import aberrations_of
from napari_cryosphere.particles.stack import ParticleStack

__all__ = ["notes_of"]


def notes_of(stack: ParticleStack) -> Iterator[str]:
    """Yield a line for each thing besides poses and CTF that a file says and jobs heed.

    Raises `MetadataError` if aberrations cannot be read.
    """
    kinds = [kind for _, kind in aberrations_of(stack).parts()]
    treatments = {kind.treatment for kind in kinds}
    without = "" if stack.has_ctf else "; but the file has no CTF"
    if "phase-flipped" in treatments:
        yield (
            "images are phase-flipped (rlnCtfDataArePhaseFlipped): the absolute value of their CTF "
            f"is taken{without}"
        )
    if "premultiplied" in treatments:
        yield (
            "images were multiplied by their CTF (rlnCtfDataAreCtfPremultiplied): they are divided "
            f"by it again{without}"
        )
    stretched = [np.abs(kind.matrix - np.eye(2)).max() for kind in kinds if kind.matrix is not None]
    found = [
        name
        for name, there in (
            ("antisymmetric phases (beam tilt, trefoil)", any(kind.odd_zernike for kind in kinds)),
            ("symmetric phases (tetrafoil and others)", any(kind.even_zernike for kind in kinds)),
            (f"anisotropic magnification of {max(stretched, default=0):.2%}", bool(stretched)),
        )
        if there
    ]
    if found:
        yield f"aberrations are corrected: {', '.join(found)}"
    tubes, micrographs = stack.filaments(), stack.micrographs()
    if tubes is not None:
        yield f"segments of {counted(int(tubes.max()) + 1, 'filament')}, which half sets keep whole"
    if micrographs is not None and "rlnCoordinateX" in stack.particles:
        number = len(pd.unique(micrographs))
        yield f"coordinates on {counted(number, 'micrograph')} (rlnCoordinateX, rlnCoordinateY)"
