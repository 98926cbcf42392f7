"""What is found about maps, in words."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from napari_cryosphere.reconstruction import ConicalFsc, Postprocessed
    from napari_cryosphere.reconstruction.map_alignment import MapAlignment
    from napari_cryosphere.widgets.control.map_steps import Comparison

__all__ = ["alignment_in_words", "comparison_in_words", "cones_in_words", "sharpening_in_words"]

_HAND_MARGIN = 0.02  # of correlation: closer than this, noise decides


def alignment_in_words(found: MapAlignment) -> str:
    """Return how a map had to be moved, and whether its hand is that of the reference."""
    angle = np.degrees(np.arccos(np.clip((np.trace(found.rotation) - 1) / 2, -1, 1)))
    shift = float(np.linalg.norm(found.shift_angstrom))
    moved = f"turned by {angle:.1f}°, moved by {shift:.1f} Å: correlation {found.correlation:.3f}."
    other = found.correlation_other_hand
    if found.correlation - other < _HAND_MARGIN:
        return f"{moved} The hand is not determined: mirror images fit as well ({other:.3f})."
    if found.mirrored:
        return f"The hand is the other one. Mirrored, {moved} As it was: {other:.3f}."
    return f"The hand is that of the reference. {moved[0].upper()}{moved[1:]} Its mirror image: {other:.3f}."


def comparison_in_words(compared: Comparison) -> str:
    """Return how alike two maps are."""
    masked, unmasked = compared.curves.masked, compared.curves.unmasked
    line = (
        f"FSC 0.5 at {masked.resolution_angstrom(0.5):.1f} Å in the mask "
        f"({unmasked.resolution_angstrom(0.5):.1f} Å without), correlation {compared.correlation:.3f}"
    )
    return f"{line}; {compared.note}" if compared.note else line


def sharpening_in_words(made: Postprocessed) -> str:
    """Return how a map was sharpened."""
    return (
        f"Sharpened with B = {made.b_factor:.0f} Å², low-passed at {made.resolution_angstrom:.1f} Å"
    )


def cones_in_words(cones: ConicalFsc) -> str:
    """Return how the resolution depends on the direction."""
    best, worst = cones.resolution_range_angstrom(0.143)
    return f"by direction {best:.1f} to {worst:.1f} Å"
