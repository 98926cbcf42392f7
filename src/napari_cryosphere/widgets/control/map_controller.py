"""The dock's maps: made from particles, compared with one another, shown."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING, Any

import numpy as np
from psygnal import Signal

from napari_cryosphere.errors import CryosphereError
from napari_cryosphere.jobs.events import Note, Progress
from napari_cryosphere.widgets.control import map_work
from napari_cryosphere.widgets.control.map_view import MOST_MAPS, MapView
from napari_cryosphere.widgets.control.running import Runner
from napari_cryosphere.widgets.control.work import Events
from napari_cryosphere.widgets.state.display_map import LOW_PASSED, RESOLUTION, UNIT, is_difference
from napari_cryosphere.widgets.state.fsc_curves import Curve, curves_by_kind
from napari_cryosphere.widgets.state.layer_data import (
    halves_of,
    is_component,
    is_half,
    map_layer,
    map_of,
    remember_halves,
)

if TYPE_CHECKING:
    from napari.components import ViewerModel
    from napari.layers import Image, Layer

    from napari_cryosphere.particles import DensityMap
    from napari_cryosphere.reconstruction import ConicalFsc, FourierShellCorrelation, Postprocessed
    from napari_cryosphere.reconstruction.map_alignment import MapAlignment
    from napari_cryosphere.widgets.control.map_work import Comparison

__all__ = [
    "MapController",
    "alignment_in_words",
    "comparison_in_words",
    "cones_in_words",
    "sharpening_in_words",
]

_HALVES = {"corrected": True, "masked": True, "unmasked": True}
_PAIR = {"masked": True, "unmasked": False, "corrected": False}
"""Kinds of curves, and whether they are drawn at first."""

_HAND_MARGIN = 0.02  # of correlation: closer than this, noise decides


class MapController:
    """Reconstructs, compares and shows maps."""

    curves_changed = Signal()
    mode_changed = Signal(bool)
    """Sent with whether maps are shown."""
    reconstructed = Signal(object)
    """Sent with a new map's layer, which is to be shown."""
    reported = Signal(str)
    """Sent with a line that says what was found."""

    def __init__(self, viewer: ViewerModel, runner: Runner) -> None:
        self.viewer = viewer
        self.runner = runner
        self.view = MapView(viewer)
        self.curves: dict[str, Curve] = {}
        self.owners: dict[str, tuple[Layer, ...]] = {}
        self._growing: Image | None = None
        self._differences: dict[Image, tuple[Image, Image]] = {}
        self._unmoved: dict[Image, DensityMap] = {}

    @property
    def layers(self) -> list[Image]:
        """The viewer's layers of maps, the topmost first; differences are not among them."""
        layers = [layer for layer in reversed(self.viewer.layers) if map_of(layer) is not None]
        return [layer for layer in layers if not is_difference(layer)]

    def show(
        self, first: Layer | None = None, reference: Layer | None = None, slices: bool = False
    ) -> None:
        """Show a map, its reference and their difference if there is one; with none, the particles."""
        shown = list(dict.fromkeys(layer for layer in (reference, first) if layer is not None))
        shown += [layer for layer, pair in self._differences.items() if pair == (first, reference)]
        self._show(shown, slices)

    def show_all(self, slices: bool = False) -> None:
        """Show all whole maps, the oldest first, and the differences of those; six at most."""
        whole = [
            layer
            for layer in reversed(self.layers)
            if not (is_half(layer.name) or is_component(layer.name))
        ]
        shown = whole + [one for one, pair in self._differences.items() if set(pair) <= set(whole)]
        self._show(shown[:MOST_MAPS], slices)

    def _show(self, shown: list[Image], slices: bool) -> None:
        if shown:
            self.view.show(shown, slices)
        else:
            self.view.leave()
        self.mode_changed.emit(self.view.active)

    def components_of(self, layer: Layer | None) -> list[Image]:
        """Return the components of variability that a map may be moved along, the first one first."""
        own = map_of(layer)
        if own is None:
            return []
        found = [one for one in self.layers if is_component(one.name) and one != layer]
        same = [one for one in found if getattr(map_of(one), "box", None) == own.box]
        return sorted(same, key=lambda one: one.name)

    def move_along(self, layer: Image, component: Image, coordinate: float) -> None:
        """Show a map plus a multiple of a component in the map's layer; at 0 it is the map again.

        ``layer``, ``component``: the map, and one of its `components_of`. ``coordinate``: in
        standard deviations of the particles along the component, as ``variability`` writes them.
        """
        own, axis = self._unmoved.get(layer) or map_of(layer), map_of(component)
        assert own is not None
        assert axis is not None
        self._unmoved[layer] = own
        voxels = own.voxels + np.float32(coordinate) * axis.voxels
        self.view.replace(layer, replace(own, voxels=voxels) if coordinate else own)

    def put_back(self) -> None:
        """Show maps that were moved along components as they are."""
        while self._unmoved:
            layer, own = self._unmoved.popitem()
            if map_of(layer) is not own:
                self.view.replace(layer, own)

    def forget(self, layer: Layer) -> None:
        """Take note that a layer was removed."""
        was_active = self.view.active
        self.view.forget(layer)
        self._unmoved = {one: own for one, own in self._unmoved.items() if one is not layer}
        self._differences = {
            difference: pair
            for difference, pair in self._differences.items()
            if layer not in (difference, *pair)
        }
        gone = [label for label, owners in self.owners.items() if layer in owners]
        for label in gone:
            del self.curves[label], self.owners[label]
        if gone:
            self.curves_changed.emit()
        if was_active and not self.view.active:
            self.mode_changed.emit(False)

    def add_curve(
        self,
        group: str,
        fsc: FourierShellCorrelation,
        threshold: float,
        owners: tuple[Layer, ...] = (),
    ) -> None:
        """Add a curve to the plot; it goes when a layer that it belongs to is removed."""
        self.add_curves([Curve(group, "", fsc, threshold)], owners)

    def add_curves(self, curves: list[Curve], owners: tuple[Layer, ...]) -> None:
        """Add curves; they go when a layer that they belong to is removed."""
        for curve in curves:
            self.curves[curve.label] = curve
            self.owners[curve.label] = owners
        self.curves_changed.emit()

    def add_map(
        self,
        density: DensityMap,
        name: str,
        visible: bool = False,
        noted: Mapping[str, Any] | None = None,
    ) -> Image:
        """Add a map as a layer, with more to note in its metadata."""
        data, options, _ = map_layer(density, name, visible)
        options["metadata"] |= noted or {}
        active = self.viewer.layers.selection.active
        layer: Image = self.viewer.add_image(data, **options)
        if active in self.viewer.layers:
            self.viewer.layers.selection.active = active
        return layer

    def _add_made(self, made: map_work.MadeMap, name: str) -> Image:
        return self.add_map(made.density, name, noted=_how_shown(made))

    def _put_above(self, layer: Image, other: Image) -> None:
        """Place a layer directly above another in the list: next to the map that it was made of."""
        layers = self.viewer.layers
        layers.move(layers.index(layer), layers.index(other) + 1)

    def reconstruct(self, recipe: map_work.Recipe) -> None:
        """Reconstruct; the map shows from the start and sharpens, half-maps are hidden.

        Stopped, or its layer closed, the work ends; the map of the particles so far stays.
        """
        if self.runner.busy:
            return
        self._growing = None
        self.runner.start(
            f"Reconstructing {recipe.name}",
            lambda: map_work.reconstruction_work(recipe),
            lambda event: self._take_reconstruction(recipe.name, event),
            lambda: None,
        )

    def _take_reconstruction(self, name: str, made: Any) -> None:
        """Take what the work has made: see `map_work.reconstruction_work`."""
        from napari_cryosphere.jobs.reconstruct import Reconstruction

        if isinstance(made, (Progress, Note)):
            return
        layer = self._growing
        if layer is not None and layer not in self.viewer.layers:
            self.runner.stop()
            return
        if isinstance(made, map_work.HalfMapCurves):
            self._take_half_map_curves(layer, made)
            return
        if isinstance(made, map_work.HalfMap):
            self.add_map(made.density, f"{name}, half {made.number}")
            return
        self._growing = grown = self.add_map(made.density, name) if layer is None else layer
        if isinstance(made, Reconstruction):
            remember_halves(grown, made.halves)
        if layer is None:
            self.reconstructed.emit(grown)
        else:
            self.view.replace(grown, made.density)

    def _take_half_map_curves(self, layer: Image | None, made: map_work.HalfMapCurves) -> None:
        """Add the curves of the map that was just made."""
        if layer is None:
            return
        band = None if made.cones is None else (made.cones.lowest, made.cones.highest)
        curves = curves_by_kind(f"half-maps of {layer.name}", made.curves, 0.143, _HALVES, band)
        self.add_curves(curves, (layer,))
        layer.metadata.update(_how_shown(made.made))
        self.view.replace(layer, made.made.density)
        cones = "" if made.cones is None else f"; {cones_in_words(made.cones)}"
        self.reported.emit(
            f"{layer.name}: FSC 0.143 at {made.made.resolution_angstrom:.1f} Å{cones}"
        )

    def compare(self, first: Layer | None, second: Layer | None) -> None:
        """Measure the FSC of two maps inside a mask around the second.

        Raises `CryosphereError` if there are not two maps; the same for what follows.
        """

        def take(compared: map_work.Comparison, one: Image, other: Image) -> None:
            curves = curves_by_kind(f"{one.name} / {other.name}", compared.curves, 0.5, _PAIR)
            self.add_curves(curves, (one, other))
            self.reported.emit(comparison_in_words(compared))

        self._start_pair("Comparing maps", map_work.comparison_work, take, first, second)

    def subtract(self, first: Layer | None, second: Layer | None) -> None:
        """Add the first map less the second as a layer, and show it next to them."""

        def take(made: map_work.MadeMap, one: Image, other: Image) -> None:
            for old in [old for old, pair in self._differences.items() if pair == (one, other)]:
                self.viewer.layers.remove(old)
            layer = self._add_made(made, f"{one.name} − {other.name}")
            layer.colormap = "orange"
            self._put_above(layer, one)
            self._differences[layer] = (one, other)
            self.reported.emit(
                f"Difference {layer.name}, amplitudes matched shell by shell inside a mask"
            )
            self.reconstructed.emit(one)

        work = partial(map_work.difference_work, resolution=_resolution_of(first))
        self._start_pair("Subtracting maps", work, take, first, second)

    def align(self, first: Layer | None, second: Layer | None) -> None:
        """Lay the first map on the second, in the hand that fits better, as a new layer."""

        def take(found: Any, one: Image, other: Image) -> None:
            alignment, made = found
            layer = self._add_made(made, f"{one.name}, aligned")
            self._put_above(layer, one)
            self.reported.emit(alignment_in_words(alignment))
            self.reconstructed.emit(layer)

        work = partial(map_work.alignment_work, resolution=_resolution_of(first))
        self._start_pair("Aligning maps", work, take, first, second)

    def _start_pair(
        self,
        title: str,
        work: Callable[[DensityMap, DensityMap], Events],
        take: Callable[[Any, Image, Image], None],
        first: Layer | None,
        second: Layer | None,
    ) -> None:
        """Run work on two maps and take its result, unless one of their layers is gone by then."""
        one, other = map_of(first), map_of(second)
        if first is None or second is None or one is None or other is None:
            raise CryosphereError("two maps are needed; reconstruct one or open an MRC file")
        if first == second:
            raise CryosphereError("choose two different maps to compare")
        if self.runner.busy:
            return
        self.runner.start(
            title,
            lambda: work(one, other),
            lambda event: self._take(event, take, first, second),
            lambda: None,
        )

    def _take(self, event: object, take: Callable[..., None], *layers: Layer) -> None:
        if not isinstance(event, Progress) and all(layer in self.viewer.layers for layer in layers):
            take(event, *layers)

    def sharpen(self, layer: Layer | None, b_factor: float | None = None) -> None:
        """Sharpen the mean of a map's half-maps, as a new layer.

        ``layer``: the map, or one of its halves. ``b_factor``: in A^2, negative to sharpen; None
        fits it. Raises `CryosphereError` if its half-maps are not known.
        """
        halves = halves_of(layer, self.layers)
        if layer is None or halves is None:
            raise CryosphereError(
                "half-maps are needed: reconstruct with half-maps, or open NAME_half1.mrc and NAME_half2.mrc"
            )
        if self.runner.busy:
            return

        def take(made: Any, one: Image) -> None:
            if made.note:
                self.reported.emit(sharpening_in_words(made))
                return
            sharp = self.add_map(made.density, f"{one.name}, sharpened")
            self._put_above(sharp, one)
            remember_halves(sharp, halves)
            curves = curves_by_kind(f"half-maps of {sharp.name}", made.curves, 0.143, _HALVES)
            self.add_curves(curves, (sharp,))
            self.reported.emit(sharpening_in_words(made))
            self.reconstructed.emit(sharp)

        self.runner.start(
            f"Sharpening {layer.name}",
            lambda: map_work.sharpening_work(*halves, b_factor),
            lambda event: self._take(event, take, layer),
            lambda: None,
        )


def _how_shown(made: map_work.MadeMap) -> dict[str, Any]:
    """Return what `ShownMap` looks for in the metadata of a map's layer."""
    noted = {RESOLUTION: made.resolution_angstrom, LOW_PASSED: made.low_passed, UNIT: made.unit}
    return {key: value for key, value in noted.items() if value is not None}


def _resolution_of(layer: Layer | None) -> float | None:
    """Return the resolution down to which a map is shown; None for as it is."""
    return None if layer is None else layer.metadata.get(RESOLUTION)


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
    """Return how a map was sharpened, or why it was not."""
    if made.note:
        return f"{made.note[0].upper()}{made.note[1:]}"
    return (
        f"Sharpened with B = {made.b_factor:.0f} Å², low-passed at {made.resolution_angstrom:.1f} Å"
    )


def cones_in_words(cones: ConicalFsc) -> str:
    """Return how the resolution depends on the direction."""
    best, worst = cones.resolution_range_angstrom(0.143)
    return f"by direction {best:.1f} to {worst:.1f} Å"
