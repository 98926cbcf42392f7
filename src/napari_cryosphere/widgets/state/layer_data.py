"""Particles and maps as napari layers, and back."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, TypeAlias

import numpy as np
from numpy.typing import NDArray

from napari_cryosphere.widgets.state.lazy_frames import ParticleFrames

if TYPE_CHECKING:
    from pathlib import Path

    from napari.layers import Image, Layer

    from napari_cryosphere.particles import DensityMap, ParticleStack

__all__ = [
    "KEY",
    "LayerData",
    "contour_levels",
    "frame_limits",
    "halves_of",
    "is_component",
    "is_half",
    "layers_of_states",
    "map_layer",
    "map_of",
    "particle_layer",
    "particles_of",
    "remember_halves",
    "state_of",
]

LayerData: TypeAlias = tuple[Any, dict[str, Any], str]

KEY = "cryosphere"
"""Where a layer's metadata hold its ParticleStack or DensityMap."""

_SAMPLED_FRAMES = 24
_ABOVE_MEAN = 2.0  # standard deviations at which a map is contoured

_HALVES = "cryosphere_halves"
_HALF = re.compile(
    r"^(?P<stem>.*?)[ _,.-]*half[ _-]?(?:map)?[ _-]?(?P<number>[12AB])(?P<rest>(?![0-9A-Za-z]).*)$",
    re.IGNORECASE,
)
_COMPONENT = re.compile(r"component_(\d+)")
_CLASS = re.compile(r"_class(\d+)$")
_NUMBERS = {"1": 0, "A": 0, "2": 1, "B": 1}


def particle_layer(stack: ParticleStack, name: str | None = None) -> LayerData:
    """Return an image layer of particles, one per step of the slider; no pixels are kept.

    Scale and units are angstrom on every axis (1 per particle): with mixed units napari shows none.
    """
    frames = ParticleFrames(stack)
    options = {
        "name": name or _name_of(stack.source),
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


def _name_of(path: Path) -> str:
    """Return a name for what a file shows: that of its folder for a run's ``particles.star``."""
    stem = path.name.removesuffix(".gz").rsplit(".", 1)[0]
    of_run = stem == "particles" and (path.parent / "config.json").exists()
    return path.absolute().parent.name if of_run else stem


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


def remember_halves(layer: Layer, halves: Sequence[DensityMap]) -> None:
    """Note a map's half-maps with its layer."""
    if len(halves) == 2:
        layer.metadata[_HALVES] = tuple(halves)


def is_half(name: str) -> bool:
    """Return whether a layer's name says that it is a half-map."""
    return _HALF.match(name) is not None


def is_component(name: str) -> bool:
    """Return whether a layer's name is that of a component of variability: no map of a particle by itself."""
    return _COMPONENT.fullmatch(name) is not None


def state_of(name: str, others: Sequence[str]) -> int | None:
    """Return the state that a map is of, by its name and those of the other maps; None for no state.

    ``refine --classes`` writes ``map.mrc`` of the first, ``map_class002.mrc`` of the second; ``train`` and
    ``watch`` write ``map.mrc`` of all, and ``map_class001.mrc`` of the first.
    """
    found = _CLASS.search(name)
    if found is not None:
        return int(found[1])
    states = {
        int(of[1])
        for each in others
        if (of := _CLASS.search(each)) and _CLASS.sub("", each) == name
    }
    return 1 if states and 1 not in states else None


def layers_of_states(chosen: Layer | None, layers: Sequence[Image]) -> dict[int, Image]:
    """Return the maps of the states that a map is one of, by state; none where it is not of a state."""
    names = [layer.name for layer in layers]
    if chosen is None or state_of(chosen.name, names) is None:
        return {}
    stem = _CLASS.sub("", chosen.name)
    return {
        state: layer
        for layer in layers
        if _CLASS.sub("", layer.name) == stem and (state := state_of(layer.name, names)) is not None
    }


def halves_of(layer: Layer | None, layers: Sequence[Image]) -> tuple[DensityMap, DensityMap] | None:
    """Return a map's half-maps: those noted with it, or the layers that are named as its halves.

    Names are those of RELION (``run_half1_class001_unfil``), cryoSPARC (``map_half_A``) and this
    package. None if there are not both.
    """
    if layer is None:
        return None
    if _HALVES in layer.metadata:
        first, second = layer.metadata[_HALVES]
        return first, second
    own = _HALF.match(layer.name)
    stem = own["stem"] if own else layer.name
    halves: dict[int, DensityMap] = {}
    for other in layers:
        named, density = _HALF.match(other.name), map_of(other)
        if named is None or density is None or named["stem"] != stem:
            continue
        if own is None or own["rest"] == named["rest"]:
            halves[_NUMBERS[named["number"].upper()]] = density
    return (halves[0], halves[1]) if len(halves) == 2 else None
