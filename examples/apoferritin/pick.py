"""Particles from micrographs: picked by normalised cross-correlation with a template, and extracted.

Any picker will do; this one is here so that the example needs no other program but the one that fitted
the CTFs.
"""

from __future__ import annotations

from pathlib import Path

import mrcfile
import numpy as np
import pandas as pd
from numpy.typing import NDArray
from scipy.ndimage import gaussian_filter, zoom
from skimage.feature import match_template, peak_local_max

from napari_cryosphere.particles import write_stack, write_star

LEAST_CORRELATION = 0.3  # of a pick; at 0.3 the faintest rings of the micrographs are still found
TEMPLATE_ANGSTROM = 6.0  # pixels that picking works on, at least


def ring(box: int, radius_px: float, wall_px: float) -> NDArray[np.float32]:
    """Return the projection of a hollow sphere, bright on dark, ``(box, box)``."""
    axis = np.arange(box) - box // 2
    off = axis[:, None] ** 2 + axis**2
    chord = [
        np.sqrt(np.clip(radius**2 - off, 0, None)) for radius in (radius_px, radius_px - wall_px)
    ]
    return np.asarray(gaussian_filter(chord[0] - chord[1], 1), dtype=np.float32)


def picks(
    micrograph: NDArray[np.floating], pixel_size_angstrom: float, diameter_angstrom: float
) -> tuple[NDArray[np.int64], NDArray[np.float64]]:
    """Return where particles are, ``(n, 2)`` as x and y in pixels, and their correlations, ``(n,)``.

    ``micrograph`` is ``(height, width)``, particles dark.
    """
    factor = max(1.0, TEMPLATE_ANGSTROM / pixel_size_angstrom)
    small = zoom(gaussian_filter(-micrograph.astype(np.float32), factor / 2), 1 / factor, order=1)
    diameter_px = diameter_angstrom / pixel_size_angstrom / factor
    template = ring(int(1.3 * diameter_px) | 1, diameter_px / 2, diameter_px / 6)
    score = match_template(small, template, pad_input=True, mode="reflect")
    peaks = peak_local_max(
        score,
        min_distance=int(0.8 * diameter_px),
        threshold_abs=LEAST_CORRELATION,
        exclude_border=False,
    )
    return np.rint(peaks[:, ::-1] * factor).astype(np.int64), score[tuple(peaks.T)]


def extract(
    micrographs: pd.DataFrame,
    optics: pd.DataFrame,
    output: Path,
    box: int,
    diameter_angstrom: float,
) -> Path:
    """Pick and cut the particles of all micrographs; return the STAR file of their stack.

    Images are inverted, so that particles are bright, and have a background of mean 0 and standard
    deviation 1. Those that reach over the edge of their micrograph are left out.

    Parameters
    ----------
    micrographs, optics
        The tables of ``micrographs_ctf.star`` (RELION's CTF job), one row per micrograph and optics group.
    output
        Folder of ``particles.star`` and ``particles.mrcs``.
    box
        Edge of an image in pixels.
    diameter_angstrom
        Of the particle.
    """
    size = float(optics["rlnMicrographPixelSize"].iloc[0])
    axis = np.arange(box) - box // 2
    background = axis[:, None] ** 2 + axis**2 > (0.5 * diameter_angstrom / size) ** 2
    images, rows = [], []
    for _, micrograph in micrographs.iterrows():
        with mrcfile.open(micrograph["rlnMicrographName"]) as file:
            pixels = np.asarray(file.data, dtype=np.float32)
        for (x, y), score in zip(*picks(pixels, size, diameter_angstrom), strict=True):
            top, left = y - box // 2, x - box // 2
            image = -pixels[max(top, 0) : top + box, max(left, 0) : left + box]
            if image.shape != (box, box):
                continue
            images.append((image - image[background].mean()) / image[background].std())
            rows.append(
                micrograph.to_dict()
                | {"rlnCoordinateX": x, "rlnCoordinateY": y, "rlnAutopickFigureOfMerit": score}
            )
    output.mkdir(parents=True, exist_ok=True)
    write_stack(np.array(images), output / "particles.mrcs", size, overwrite=True)
    table = pd.DataFrame(rows)
    table["rlnImageName"] = [f"{number + 1:06d}@particles.mrcs" for number in range(len(table))]
    optics = optics.assign(rlnImagePixelSize=size, rlnImageSize=box, rlnImageDimensionality=2)
    write_star({"optics": optics, "particles": table}, output / "particles.star", overwrite=True)
    return output / "particles.star"
