"""Particles and maps as napari layers, and back."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, TypeAlias

import numpy as np
from numpy.typing import NDArray

from napari_cryosphere.widgets.state.lazy_frames import ParticleFrames

if TYPE_CHECKING:
    from napari.layers import Layer

    from napari_cryosphere.particles import DensityMap, ParticleStack

__all__ = [
    "KEY",
    "LayerData",
    "contour_levels",
    "frame_limits",
    "map_layer",
    "map_of",
    "particle_layer",
    "particles_of",
]

LayerData: TypeAlias = tuple[Any, dict[str, Any], str]

KEY = "cryosphere"
"""Where a layer's metadata hold its ParticleStack or DensityMap."""

_SAMPLED_FRAMES = 24
_ABOVE_MEAN = 2.0  # standard deviations at which a map is contoured


def particle_layer(stack: ParticleStack, name: str | None = None) -> LayerData:
    """Return an image layer of particles, one a step of the slider; no pixels are kept.

    Scale and units are angstrom on every axis (1 a particle): with mixed units napari shows none.
    """
    frames = ParticleFrames(stack)
    options = {
        "name": name or stack.source.name.removesuffix(".gz").rsplit(".", 1)[0],
        "scale": (1.0, stack.pixel_size_angstrom, stack.pixel_size_angstrom),
        "units": ("angstrom",) * 3,
        "axis_labels": ("particle", "y", "x"),
        "contrast_limits": frame_limits(frames),
        "colormap": "gray",
        "multiscale": False,
        "rgb": False,
        "metadata": {KEY: stack},
    }
    return frames, options, "image"


def frame_limits(frames: ParticleFrames, number: int = _SAMPLED_FRAMES) -> tuple[float, float]:
    """Return contrast limits from a few images spread over the stack."""
    rows = np.unique(np.linspace(0, len(frames) - 1, number).astype(int))
    low, high = np.percentile(frames[rows], [0.5, 99.7])
    return float(low), float(high if high > low else low + 1)


def map_layer(density: DensityMap, name: str, visible: bool = True) -> LayerData:
    """Return a volume layer of a map, contoured at two standard deviations above its mean."""
    threshold, top = contour_levels(density.voxels)
    options = {
        "name": name,
        "scale": (density.pixel_size_angstrom,) * 3,
        "units": ("angstrom",) * 3,
        "rendering": "iso",
        "iso_threshold": threshold,
        "contrast_limits": (min(0.0, threshold), top),
        "colormap": "gray",
        "multiscale": False,
        "rgb": False,
        "visible": visible,
        "metadata": {KEY: density},
    }
    return density.voxels, options, "image"


def contour_levels(voxels: NDArray[np.float32]) -> tuple[float, float]:
    """Return the contour, and the 95th percentile of what lies above it (others look dark or flat)."""
    threshold = float(voxels.mean() + _ABOVE_MEAN * voxels.std())
    above = voxels[voxels > threshold]
    top = float(np.percentile(above, 95)) if above.size else threshold + 1
    return threshold, top if top > max(0.0, threshold) else threshold + 1


def particles_of(layer: Layer | None) -> ParticleStack | None:
    """Return the particles that a layer shows; None for other layers."""
    from napari_cryosphere.particles import ParticleStack

    held = None if layer is None else layer.metadata.get(KEY)
    return held if isinstance(held, ParticleStack) else None


def map_of(layer: Layer | None) -> DensityMap | None:
    """Return the map that a layer shows; None for other layers."""
    from napari_cryosphere.particles import DensityMap

    held = None if layer is None else layer.metadata.get(KEY)
    return held if isinstance(held, DensityMap) else None
