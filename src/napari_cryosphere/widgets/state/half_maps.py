"""Which two half-maps belong to a map."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import TYPE_CHECKING

from napari_cryosphere.widgets.state.layer_data import map_of

if TYPE_CHECKING:
    from napari.layers import Image, Layer

    from napari_cryosphere.particles import DensityMap

__all__ = ["halves_of", "is_half", "remember_halves"]

_KEY = "cryosphere_halves"
_HALF = re.compile(
    r"^(?P<stem>.*?)[ _,.-]*half[ _-]?(?:map)?[ _-]?(?P<number>[12AB])(?P<rest>(?![0-9A-Za-z]).*)$",
    re.IGNORECASE,
)
_NUMBERS = {"1": 0, "A": 0, "2": 1, "B": 1}


def remember_halves(layer: Layer, halves: Sequence[DensityMap]) -> None:
    """Note a map's half-maps with its layer."""
    if len(halves) == 2:
        layer.metadata[_KEY] = tuple(halves)


def is_half(layer: Layer) -> bool:
    """Return whether a layer's name says that it is a half-map."""
    return _HALF.match(layer.name) is not None


def halves_of(layer: Layer | None, layers: Sequence[Image]) -> tuple[DensityMap, DensityMap] | None:
    """Return a map's half-maps: those noted with it, or the layers that are named as its halves.

    Names are those of RELION (``run_half1_class001_unfil``), cryoSPARC (``map_half_A``) and this
    package. None if there are not both.
    """
    if layer is None:
        return None
    if _KEY in layer.metadata:
        first, second = layer.metadata[_KEY]
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
