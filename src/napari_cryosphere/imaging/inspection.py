"""A look at some of a stack's images: contrast sign, constant images, grey values out of all proportion.

Needs numpy only, so that the command ``info`` answers at once.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from napari_cryosphere.particles import ParticleStack, spread_rows

__all__ = ["ImageInspection", "inspect_images"]

_MOST = 128  # images looked at: `_CLEAR` standard errors of their mean are a third of a deviation
_CHUNK_PIXELS = 1 << 22  # of the images that are read at once: 16 MB
_CLEAR = 4.0  # standard errors that the mean contrast must be away from zero
# Times the usual largest grey value: broken numbers, not contrast; chosen, not tuned.
_OUT_OF_PROPORTION = 1e6
_FLAT = 1e-6  # of the largest grey value: float32 has 1.2e-7, so less spread than this is rounding


@dataclass(frozen=True)
class ImageInspection:
    """What the images look like.

    - ``inspected``: number of images that were read, spread evenly over the stack.
    - ``contrast``: whether particles are lighter or darker than their background: ``"white"``
      (RELION's convention), ``"black"``, or ``"unclear"`` where the sign cannot be decided.
    - ``warnings``: one line for each oddity.
    - ``empty``: whether every pixel of each image has one value.
    """

    inspected: int
    contrast: Literal["white", "black", "unclear"]
    warnings: tuple[str, ...]
    empty: bool


def inspect_images(stack: ParticleStack) -> ImageInspection:
    """Look at up to 128 images of a stack.

    The contrast is the mean of the disc of half the box's diameter less that of the background
    (outside the inscribed circle), in units of the background's standard deviation about a plane;
    it is clear where its mean over the images is four standard errors from zero. Raises
    `CryosphereError` if an image cannot be read or has pixels that are not finite.
    """
    rows = spread_rows(len(stack), _MOST)
    step = max(1, _CHUNK_PIXELS // stack.box**2)
    parts = [
        _measured(stack.images(rows[start : start + step])) for start in range(0, len(rows), step)
    ]
    contrasts, deviations, largest, ranges = (
        np.concatenate(values) for values in zip(*parts, strict=True)
    )
    empty = bool((ranges <= _FLAT * largest).all())
    flat = deviations <= _FLAT * largest
    usual = np.median(largest[~flat]) if not flat.all() else 0.0
    wild = ~flat & (largest > _OUT_OF_PROPORTION * usual)
    contrast = _sign(contrasts[~flat & ~wild])
    warnings = [
        *_named(stack, rows[flat], "a constant background: there is no noise to normalise by"),
        *_named(
            stack,
            rows[wild],
            f"grey values up to {largest[wild].max(initial=0):.1e}, where {usual:.1e} is usual: "
            "leave them out, they swamp every map",
        ),
    ]
    if contrast == "black":
        warnings.append(
            f"{stack.source}: particles are darker than their background; RELION's convention is white "
            "particles: invert the images (relion_image_handler --multiply_constant -1)"
        )
    return ImageInspection(len(rows), contrast, tuple(warnings), empty)


def _measured(images: NDArray[np.float32]) -> tuple[NDArray[np.float64], ...]:
    """Return contrast, background deviation, largest absolute grey value and range, each ``(k,)``."""
    axis = np.arange(images.shape[-1]) - images.shape[-1] // 2
    radius = np.hypot(axis[:, None], axis)
    largest = np.maximum(images.max((1, 2)), -images.min((1, 2))).astype(np.float64)
    scaled = images / np.where(largest > 0, largest, 1).astype(np.float32)[:, None, None]
    outside = radius > images.shape[-1] / 2
    background = scaled[:, outside].astype(np.float64)
    inside = scaled[:, radius <= images.shape[-1] / 4].mean(1, dtype=np.float64)
    y, x = (coordinate[outside] for coordinate in np.meshgrid(axis, axis, indexing="ij"))
    plane = np.stack([np.ones(len(x)), x, y])
    deviation = (background - background @ np.linalg.pinv(plane) @ plane).std(1)
    contrast = (inside - background.mean(1)) / np.where(deviation > 0, deviation, 1)
    return contrast, deviation * largest, largest, np.ptp(images, axis=(1, 2)).astype(np.float64)


def _sign(contrasts: NDArray[np.float64]) -> Literal["white", "black", "unclear"]:
    if len(contrasts) < 2:
        return "unclear"
    error = contrasts.std(ddof=1) / np.sqrt(len(contrasts))
    if abs(contrasts.mean()) <= _CLEAR * error:
        return "unclear"
    return "white" if contrasts.mean() > 0 else "black"


def _named(stack: ParticleStack, rows: NDArray[np.int64], what: str) -> list[str]:
    """Return a line that names particles, from 1, and what is wrong with them; none without particles."""
    if not len(rows):
        return []
    first = ", ".join(str(row + 1) for row in rows[:4])
    more = f" and {len(rows) - 4} more" if len(rows) > 4 else ""
    verb = "particle {} has" if len(rows) == 1 else "particles {} have"
    return [f"{stack.source}: {verb.format(first + more)} {what}"]
