"""Spheres of held-out particles, small, while a network learns. Knows no Qt."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from napari_cryosphere.widgets.state.sphere_layer import CROSS_COLOUR

if TYPE_CHECKING:
    from napari_cryosphere.jobs.events import Preview

__all__ = ["MOST_PICTURES", "preview_pictures"]

MOST_PICTURES = 6
HEIGHT, WIDTH = 56, 112


def preview_pictures(
    preview: Preview, known: NDArray[np.float64] | None
) -> list[NDArray[np.uint8]]:
    """Draw the first six particles of a preview.

    Parameters
    ----------
    preview
        What the network says now.
    known
        ``(n, 3, 3)`` poses of the whole stack, for the crosses; None if they are not known.

    Returns
    -------
    ``(56, 112, 4)`` uint8 RGBA pictures.
    """
    from napari_cryosphere.so3.mollweide import draw_cross, rasterise

    pictures = []
    for place, row in enumerate(preview.rows[:MOST_PICTURES]):
        picture = rasterise(preview.distribution[place].probability_grid(3)[0], HEIGHT, WIDTH)
        if known is not None and row < len(known):
            draw_cross(picture, known[row][:, 2], CROSS_COLOUR, 4)
        pictures.append(picture)
    return pictures
