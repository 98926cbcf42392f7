"""Preprocessing: Fourier rescaling by a matrix against cutting the transform, and what the steps
cost.
"""

from __future__ import annotations

from functools import partial
from typing import Any

import torch
from _common import cpu_seconds, options, report

from napari_cryosphere.imaging.fourier import rescale
from napari_cryosphere.imaging.preprocess import Preprocessing, rescale_to_grid
from napari_cryosphere.particles import ImageGrid

NUMBER = 256
SIZES = ((64, 32), (128, 32), (128, 96), (256, 64))


def main() -> None:
    """Measure and print."""
    arguments = options(__doc__ or "")
    repeats = 3 if arguments.quick else 10
    rows: list[dict[str, Any]] = []
    for old, new in SIZES:
        images = torch.randn(NUMBER, old, old)
        before, after = ImageGrid(old, 1.0), ImageGrid(new, old / new)
        matrix = cpu_seconds(
            partial(rescale_to_grid, images, before, after, keep_noise=False), repeats
        )
        transform = cpu_seconds(partial(rescale, images, new), repeats)
        ctf = torch.rand(NUMBER, old, old // 2 + 1) - 0.5
        whole = cpu_seconds(partial(Preprocessing(grid=after), images, before, ctf), repeats)
        rows.append(
            {
                "from px": old,
                "to px": new,
                "matrix ms/image": 1e3 * matrix / NUMBER,
                "cut transform ms/image": 1e3 * transform / NUMBER,
                "ratio": matrix / transform,
                "all steps ms/image": 1e3 * whole / NUMBER,
            }
        )
    report("preprocessing", rows, arguments, ["torch"])


if __name__ == "__main__":
    main()
