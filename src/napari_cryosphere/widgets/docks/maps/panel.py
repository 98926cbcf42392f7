"""Comparing, looking at and saving maps."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from qtpy.QtCore import QSignalBlocker, Qt
from qtpy.QtWidgets import (
    QDoubleSpinBox,
    QFileDialog,
    QGridLayout,
    QPushButton,
    QSlider,
    QWidget,
)

from napari_cryosphere.errors import CryosphereError
from napari_cryosphere.widgets.docks.kit.layer_combo import LayerCombo
from napari_cryosphere.widgets.docks.kit.style import (
    BUSY,
    Panel,
    caption,
    check_box,
    enable,
    in_row,
    wrapped,
)
from napari_cryosphere.widgets.docks.kit.workbench import Seat
from napari_cryosphere.widgets.state.layer_data import halves_of, is_component, is_half, map_of
from napari_cryosphere.widgets.state.notices import tell_error

if TYPE_CHECKING:
    from napari.layers import Layer

__all__ = ["NO_MAP", "MapPanel"]

NO_MAP = "No map is loaded: open an MRC file, or reconstruct one"
"""Why what needs a map is disabled."""

_NOTE = (
    "Shown in standard deviations, at one contrast; contours enclose equal volumes. Maps made here are shown "
    "low-passed at their half-map resolution (FSC 0.143) and saved as they are."
)
_NO_HALVES = (
    "Half-maps are needed: reconstruct with half-maps, or open NAME_half1.mrc and NAME_half2.mrc"
)
_AUTOMATIC = -1000.0
_STEPS_PER_SD, _MOST_STEPS = 10, 30  # of the slider along a component: to three standard deviations
_TIPS = {
    "compare": "FSC and correlation of the two maps inside a soft mask around the reference",
    "subtract": "The map less the reference, amplitudes matched shell by shell",
    "align": "Turn and move the map onto the reference, in both hands, and say which fits",
    "sharpen": "Sharpen the mean of the half-maps as relion_postprocess does",
    "save": "Write the map as an MRC file",
}


class MapPanel(Panel):
    """Two maps: their FSC, difference and alignment, and how they are looked at."""

    def __init__(self, seat: Seat, parent: QWidget | None = None) -> None:
        super().__init__("Compare", parent)
        self._controller = seat.controller
        self._known: list[Any] = []
        self._slices = False
        self._moving: Layer | None = None
        self.map, self.reference = LayerCombo("no map yet"), LayerCombo("no other map")
        self.compare, self.subtract = QPushButton("FSC"), QPushButton("Difference")
        self.align, self.sharpen = QPushButton("Align and check hand"), QPushButton("Sharpen")
        self.save = QPushButton("Save map…")
        for name, tip in _TIPS.items():
            getattr(self, name).setToolTip(tip)
        self.b_factor = QDoubleSpinBox()
        self.b_factor.setRange(_AUTOMATIC, 0)
        self.b_factor.setDecimals(0)
        self.b_factor.setSingleStep(10)
        self.b_factor.setSpecialValueText("B fitted")
        self.b_factor.setSuffix(" Å²")
        self.b_factor.setValue(_AUTOMATIC)
        self.b_factor.setToolTip("B-factor in Å², negative sharpens; at the lower end it is fitted")
        tip = "Those of all states, say: up to six, turning together"
        self.together = check_box("all maps side by side", tip)
        self.along, self.coordinate = LayerCombo("no component"), QSlider(Qt.Orientation.Horizontal)
        self.along.setToolTip("A component of variability that the map is moved along")
        self.along.setMinimumWidth(122)  # its name and number
        self.coordinate.setRange(-_MOST_STEPS, _MOST_STEPS)
        self.coordinate.setToolTip(
            "Coordinate, in standard deviations of the particles; 0 is the mean"
        )
        self.moved = caption()
        self.offset = QSlider(Qt.Orientation.Horizontal)
        self.offset.setToolTip("Distance of the slices from the map's centre, in Å")
        self.where = caption()
        self.result = wrapped(caption())
        self.result.setTextInteractionFlags(Qt.TextInteractionFlag.TextSelectableByMouse)
        self.note = wrapped(caption(_NOTE))
        self._lay_out()
        self._connect(seat)
        self._on_layers()

    def _lay_out(self) -> None:
        form = QGridLayout()
        for line, (name, combo) in enumerate((("map", self.map), ("reference", self.reference))):
            form.addWidget(caption(name), line, 0)
            form.addWidget(combo, line, 1)
        form.setColumnStretch(1, 1)
        buttons = in_row(self.compare, self.subtract)
        buttons.setStretch(1, 1)
        place = in_row(caption("slices at"), self.offset, self.where, wide=1)
        along = in_row(caption("along"), self.along, self.coordinate, self.moved, wide=1)
        along.setStretch(2, 1)
        self._place, self._motion = QWidget(), QWidget()
        for widget, row in ((self._place, place), (self._motion, along)):
            widget.setLayout(row)
            row.setContentsMargins(0, 0, 0, 0)
        self.add(form, self.together, self._motion, self._place, buttons, self.align, self.result)
        self.add(in_row(self.sharpen, self.b_factor, self.save), self.note)

    def _connect(self, seat: Seat) -> None:
        controller, maps = seat.controller, seat.controller.maps
        for combo in (self.map, self.reference):
            combo.layer_chosen.connect(self._on_maps_chosen)
        for button, work in (
            (self.compare, maps.compare),
            (self.subtract, maps.subtract),
            (self.align, maps.align),
        ):
            button.clicked.connect(
                lambda _=False, work=work: self._try(work, self.map.layer(), self.reference.layer())
            )
        self.sharpen.clicked.connect(self._on_sharpen)
        self.save.clicked.connect(self._ask_save)
        self.offset.valueChanged.connect(self._on_offset)
        self.together.toggled.connect(self._on_together)
        self.coordinate.valueChanged.connect(self._on_coordinate)
        self.along.layer_chosen.connect(lambda _: self._on_coordinate(self.coordinate.value()))
        for signal, callback in (
            (controller.layers_changed, self._on_layers),
            (controller.runner.busy_changed, self._update),
            (maps.mode_changed, self._on_mode),
            (maps.reconstructed, self.show_new),
            (maps.reported, self._on_reported),
        ):
            seat.connect(signal, callback)

    def choose(self, first: Layer, reference: Layer) -> None:
        """Choose a map and what it is compared with."""
        self.map.choose(first)
        self._offer_references()
        self.reference.choose(reference)
        self._update()

    def show_maps(self, slices: bool = False) -> None:
        """Show the chosen map and its reference in 3D, or their slices."""
        self._slices = slices
        maps = self._controller.maps
        if self.together.isChecked():
            maps.show_all(slices)
        else:
            maps.show(self.map.layer(), self.reference.layer(), slices)

    def _on_mode(self, maps_shown: bool) -> None:
        if not maps_shown:
            self._put_back()  # particles are compared with the map as it is
        view = self._controller.maps.view.slices
        self._place.setVisible(bool(view.layers))
        self.note.setVisible(maps_shown)
        if view.layers:
            reach = int(view.reach_angstrom)
            self.offset.blockSignals(True)
            self.offset.setRange(-reach, reach)
            self.offset.setValue(round(view.offset_angstrom))
            self.offset.blockSignals(False)
            self.where.setText(f"{view.offset_angstrom:+.0f} Å")

    def _on_offset(self, value: int) -> None:
        self._controller.maps.view.slices.move(value)
        self.where.setText(f"{value:+d} Å")

    def _on_together(self) -> None:
        if self._controller.maps.view.active:
            self.show_maps(self._slices)

    def _on_coordinate(self, value: int) -> None:
        """Move the chosen map along the chosen component."""
        layer, component = self.map.layer(), self.along.layer()
        coordinate = value / _STEPS_PER_SD
        self.moved.setText(f"{coordinate:+.1f} sd" if value else "mean")
        if layer is not None and component is not None:
            self._controller.maps.move_along(layer, component, coordinate)

    def _offer_components(self) -> None:
        """Offer what the chosen map may be moved along; a map that was moved goes back to its place."""
        chosen = self.map.layer()
        found = self._controller.maps.components_of(chosen)
        with QSignalBlocker(self.along):
            self.along.set_layers(found)
        self._motion.setVisible(bool(found))
        if chosen is not self._moving:
            self._moving = chosen
            self._put_back()

    def _put_back(self) -> None:
        """Put the map that was moved back to its place."""
        self._controller.maps.put_back()
        with QSignalBlocker(self.coordinate):
            self.coordinate.setValue(0)
        self.moved.setText("mean")

    def _on_layers(self) -> None:
        layers, reference = self._controller.map_layers, self.reference.layer()
        self._known = list(layers)
        self.map.set_layers(layers)
        self._offer_references()
        self._update()
        if reference not in (None, *layers) and self._controller.maps.view.active:
            self.show_maps(self._slices)

    def _offer_references(self, anew: bool = False) -> None:
        """Offer all other maps than the first as its reference.

        Without one that was chosen, or ``anew``, it is the oldest that is no half-map; of a half-map it may
        be one. The maps that are shown stay.
        """
        others = [layer for layer in self._known if layer != self.map.layer()]
        chosen = self.reference.layer()
        with QSignalBlocker(self.reference):
            self.reference.set_layers(others)
        if anew or chosen not in others:
            first = self.map.layer()
            parts = [layer for layer in others if is_half(layer.name) or is_component(layer.name)]
            whole = [layer for layer in others if layer not in parts]
            among = others if first is not None and is_half(first.name) and not whole else whole
            self.reference.choose(next(reversed(among), None))

    def _on_maps_chosen(self, layer: Any) -> None:
        self._offer_references()
        self._update()
        if self._controller.maps.view.active:
            self.show_maps(self._slices)

    def show_new(self, layer: Layer) -> None:
        """Show what was made; a reference that was chosen by hand stays."""
        self.map.choose(layer)
        reference = self.reference.layer()
        self._offer_references(anew=reference is not None and is_half(reference.name))
        self.show_maps(self._slices and self._controller.maps.view.sliced)
        self._update()

    def _on_reported(self, text: str) -> None:
        self.result.setText(text)
        self._update()

    def _try(self, work: Callable[..., None], *arguments: Any) -> None:
        """Start work; what is wrong with the choice is shown in napari's corner."""
        try:
            work(*arguments)
        except CryosphereError as error:
            tell_error(error)

    def _on_sharpen(self) -> None:
        value = self.b_factor.value()
        b_factor = None if value == _AUTOMATIC else value
        self._try(self._controller.maps.sharpen, self.map.layer(), b_factor)

    def _ask_save(self) -> None:
        path, _ = QFileDialog.getSaveFileName(self, "Save map", "map.mrc", "MRC maps (*.mrc)")
        if path:
            self.save_map(Path(path if path.endswith((".mrc", ".map", ".ccp4")) else f"{path}.mrc"))

    def save_map(self, path: Path) -> None:
        """Write the chosen map, as it is and not as it is shown; an error is shown in napari's corner."""
        density = map_of(self.map.layer())
        if density is None:
            return
        try:
            density.save(path, overwrite=True)
        except (CryosphereError, OSError) as error:
            tell_error(error)

    def _update(self) -> None:
        busy, first, second = self._controller.runner.busy, self.map.layer(), self.reference.layer()
        for button in (self.compare, self.subtract, self.align):
            enable(
                button,
                (first is None, NO_MAP),
                (second is None, "Another map is needed: open one, or reconstruct one"),
                (busy, BUSY),
            )
        halves = halves_of(first, self._known)
        for widget in (self.sharpen, self.b_factor):
            enable(widget, (first is None, NO_MAP), (halves is None, _NO_HALVES), (busy, BUSY))
        enable(self.save, (first is None, NO_MAP))
        enable(
            self.together, (second is None, "Another map is needed: open one, or reconstruct one")
        )
        self._offer_components()
        self.result.setVisible(bool(self.result.text()))
        self._on_mode(self._controller.maps.view.active)
