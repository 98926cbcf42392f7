"""The dock's maps: made from particles, compared with one another, shown."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from psygnal import Signal

from napari_cryosphere.errors import CryosphereError
from napari_cryosphere.widgets import steps
from napari_cryosphere.widgets.display_map import RESOLUTION
from napari_cryosphere.widgets.layer_data import map_layer, map_of
from napari_cryosphere.widgets.map_view import MapView
from napari_cryosphere.widgets.workers import Runner

if TYPE_CHECKING:
    from napari.components import ViewerModel
    from napari.layers import Image, Layer

    from napari_cryosphere.jobs.events import Snapshot
    from napari_cryosphere.jobs.reconstruct import Reconstruction
    from napari_cryosphere.particles import DensityMap, ParticleStack
    from napari_cryosphere.reconstruction import FourierShellCorrelation, HalfMapFsc, MapComparison

__all__ = ["Curve", "MapController"]


@dataclass(frozen=True)
class Curve:
    """A curve of the FSC plot and the threshold at which its resolution is read."""

    fsc: FourierShellCorrelation
    threshold: float


class MapController:
    """Reconstructs, compares and shows maps.

    Parameters
    ----------
    viewer
        The viewer.
    runner
        Runs long work.
    """

    curves_changed = Signal()
    mode_changed = Signal(bool)
    """Sent with whether maps are shown."""
    reconstructed = Signal(object)
    """Sent with the new map's layer."""
    compared = Signal(str)
    """Sent with a line that says how alike two maps are."""

    def __init__(self, viewer: ViewerModel, runner: Runner) -> None:
        self.viewer = viewer
        self.runner = runner
        self.view = MapView(viewer)
        self.curves: dict[str, Curve] = {}
        self._owners: dict[str, tuple[Layer, ...]] = {}
        self._growing: Image | None = None

    @property
    def layers(self) -> list[Image]:
        """The viewer's layers of maps, the topmost first."""
        return [layer for layer in reversed(self.viewer.layers) if map_of(layer) is not None]

    def show(self, *layers: Layer | None) -> None:
        """Show a map, and its reference, in 3D; with none, go back to the particles."""
        shown = list(dict.fromkeys(layer for layer in layers if layer is not None))
        if shown:
            self.view.show(shown[::-1])
        else:
            self.view.leave()
        self.mode_changed.emit(self.view.active)

    def forget(self, layer: Layer) -> None:
        """Take note that a layer was removed."""
        was_active = self.view.active
        self.view.forget(layer)
        gone = [label for label, owners in self._owners.items() if layer in owners]
        for label in gone:
            del self.curves[label], self._owners[label]
        if gone:
            self.curves_changed.emit()
        if was_active and not self.view.active:
            self.mode_changed.emit(False)

    def add_curve(
        self, label: str, fsc: FourierShellCorrelation, threshold: float, owners: tuple[Layer, ...] = ()
    ) -> None:
        """Add a curve to the plot; it goes when a layer that it belongs to is removed."""
        self.curves[label] = Curve(fsc, threshold)
        self._owners[label] = owners
        self.curves_changed.emit()

    def add_map(self, density: DensityMap, name: str, visible: bool = False) -> Image:
        """Add a map as a layer."""
        data, options, _ = map_layer(density, name, visible)
        active = self.viewer.layers.selection.active
        layer: Image = self.viewer.add_image(data, **options)
        if active is not None:
            self.viewer.layers.selection.active = active
        return layer

    def reconstruct(self, stack: ParticleStack, name: str, symmetry: str, half_maps: bool) -> None:
        """Reconstruct from a stack's poses; the map shows from the start and sharpens, half-maps are hidden.

        Stopped, the map of the particles so far stays.
        """
        if self.runner.busy:
            return
        self._growing = None
        self.runner.start(
            f"Reconstructing {name}",
            lambda: steps.reconstruction_steps(stack, symmetry, half_maps),
            lambda step: self._take_reconstruction(name, step.payload),
            lambda: None,
        )

    def _take_reconstruction(self, name: str, made: Snapshot | Reconstruction | HalfMapFsc | None) -> None:
        """Take what a step has made: see `steps.reconstruction_steps`."""
        from napari_cryosphere.jobs.reconstruct import Reconstruction
        from napari_cryosphere.reconstruction import HalfMapFsc

        if made is None:
            return
        if isinstance(made, HalfMapFsc):
            self._take_curves(made)
            return
        if isinstance(made, Reconstruction):
            for number, half in enumerate(made.halves, start=1):
                self.add_map(half, f"{name}, half {number}")
        grown = self._growing is not None and self._growing in self.viewer.layers
        layer = self._growing if grown and self._growing is not None else self.add_map(made.density, name)
        if isinstance(made, Reconstruction) and made.curve is not None:
            layer.metadata[RESOLUTION] = made.curve.resolution_angstrom(0.143)
            self.add_curve(f"half-maps of {layer.name}", made.curve, 0.143, (layer,))
        self._growing = layer
        if grown:
            self.view.replace(layer, made.density)
        else:
            self.reconstructed.emit(layer)

    def _take_curves(self, curves: HalfMapFsc) -> None:
        """Add the masked and the corrected FSC of the map that was just made."""
        layer = self._growing
        if layer is None or layer not in self.viewer.layers:
            return
        for kind, curve in (("masked", curves.masked), ("corrected", curves.corrected)):
            self.add_curve(f"{kind}, {layer.name}", curve, 0.143, (layer,))

    def compare(self, first: Layer | None, second: Layer | None) -> None:
        """Measure the FSC of two maps inside a mask around the second.

        Raises
        ------
        CryosphereError
            If there are not two maps.
        """
        one, other = map_of(first), map_of(second)
        if first is None or second is None or one is None or other is None:
            raise CryosphereError("two maps are needed; reconstruct one or open an MRC file")
        if first is second:
            raise CryosphereError("choose two different maps to compare")
        if self.runner.busy:
            return
        names = f"{first.name} / {second.name}"

        def take(step: steps.Step) -> None:
            result: MapComparison | None = step.payload
            if result is not None:
                present = all(layer in self.viewer.layers for layer in (first, second))
                if present:
                    self.add_curve(names, result.curve, 0.5, (first, second))
                    resolution = result.curve.resolution_angstrom(0.5)
                    self.compared.emit(f"FSC 0.5 at {resolution:.1f} Å, correlation {result.correlation:.3f}")

        self.runner.start("Comparing maps", lambda: steps.comparison_steps(one, other), take, lambda: None)
