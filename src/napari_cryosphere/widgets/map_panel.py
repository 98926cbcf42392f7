"""Reconstructing, comparing and saving maps."""

from __future__ import annotations

from typing import Any

from qtpy.QtCore import QTimer
from qtpy.QtWidgets import (
    QCheckBox,
    QComboBox,
    QFileDialog,
    QGridLayout,
    QHBoxLayout,
    QPushButton,
    QWidget,
)

from napari_cryosphere.errors import CryosphereError
from napari_cryosphere.widgets.controller import Controller
from napari_cryosphere.widgets.layer_combo import LayerCombo
from napari_cryosphere.widgets.layer_data import map_of
from napari_cryosphere.widgets.notices import tell_error
from napari_cryosphere.widgets.style import Panel, caption, wrapped

__all__ = ["MapPanel"]

_NOTE = (
    "Contours enclose equal volumes, in standard deviations; maps reconstructed here are shown "
    "low-passed to their half-map resolution (FSC 0.143) and saved as they are."
)


class MapPanel(Panel):
    """From poses to a map, and from two maps to their FSC."""

    def __init__(self, controller: Controller, parent: QWidget | None = None) -> None:
        super().__init__("Maps", parent)
        self._controller = controller
        self._known: list[Any] = []
        self.poses = QComboBox()
        self.poses.addItems(["predicted poses", "input poses"])
        self.half_maps = QCheckBox("half-maps")
        self.half_maps.setChecked(True)
        self.half_maps.setToolTip("Also reconstruct both halves, and draw their FSC")
        self.reconstruct = QPushButton("Reconstruct")
        self.reconstruct.clicked.connect(self._on_reconstruct)
        self.map, self.reference = LayerCombo("no map yet"), LayerCombo("no other map")
        self.compare = QPushButton("Compare")
        self.compare.setToolTip("Draw the FSC of the two maps inside a mask around the second")
        self.compare.clicked.connect(self._on_compare)
        self.save = QPushButton("Save map…")
        self.save.clicked.connect(self._ask_save)
        self.result = wrapped(caption())
        self.note = wrapped(caption(_NOTE))
        self.note.hide()
        self._lay_out()
        for combo in (self.map, self.reference):
            combo.layer_chosen.connect(self._on_maps_chosen)
        maps = controller.maps
        controller.layers_changed.connect(self._on_layers)
        controller.session_changed.connect(self._update)
        controller.predictions_changed.connect(self._update)
        controller.runner.busy_changed.connect(self._update)
        maps.mode_changed.connect(self._on_mode)
        maps.reconstructed.connect(self._on_reconstructed)
        maps.compared.connect(self._on_compared)
        self._on_layers()

    def _lay_out(self) -> None:
        first, second, third = QHBoxLayout(), QHBoxLayout(), QHBoxLayout()
        first.addWidget(caption("from"))
        first.addWidget(self.poses, 1)
        first.addWidget(self.half_maps)
        second.addWidget(self.reconstruct, 1)
        form = QGridLayout()
        for line, (name, combo) in enumerate((("map", self.map), ("reference", self.reference))):
            form.addWidget(caption(name), line, 0)
            form.addWidget(combo, line, 1)
        form.setColumnStretch(1, 1)
        third.addWidget(self.compare, 1)
        third.addWidget(self.save)
        for layout in (first, second, form, third):
            self.body.addLayout(layout)
        self.body.addWidget(self.result)
        self.body.addWidget(self.note)

    def show_maps(self) -> None:
        """Show the chosen map and its reference in 3D."""
        self._controller.maps.show(self.map.layer(), self.reference.layer())

    def _on_mode(self, maps_shown: bool) -> None:
        self.note.setVisible(maps_shown)

    def _on_layers(self) -> None:
        layers = self._controller.map_layers
        new = [layer for layer in layers if layer not in self._known]
        self._known = list(layers)
        self.map.set_layers(layers)
        self.reference.set_layers(layers)
        if len(layers) > 1 and self.map.layer() is self.reference.layer():
            others = [layer for layer in layers if layer is not self.map.layer()]
            self.reference.choose(others[-1])
        if any(layer.visible for layer in new) and self._controller.session is not None:
            # a map dropped onto particles would lie over them; its visual is not ready before the next turn
            QTimer.singleShot(0, self._show_dropped)
        self._update()

    def _show_dropped(self) -> None:
        if self.map.layer() is not None:
            self.show_maps()

    def _on_maps_chosen(self, layer: Any) -> None:
        self._update()
        if self._controller.maps.view.active:
            self.show_maps()

    def _on_reconstructed(self, layer: Any) -> None:
        references = [known for known in self._known if known is not layer and "half" not in known.name]
        self.map.choose(layer)
        self.reference.choose(references[-1] if references else None)
        self.show_maps()

    def _on_compared(self, text: str) -> None:
        self.result.setText(text)
        self.result.show()
        self.show_maps()

    def _on_reconstruct(self) -> None:
        try:
            predicted = self.poses.currentIndex() == 0
            self._controller.reconstruct(predicted, self.half_maps.isChecked())
        except CryosphereError as error:
            tell_error(error)

    def _on_compare(self) -> None:
        try:
            self._controller.maps.compare(self.map.layer(), self.reference.layer())
        except CryosphereError as error:
            tell_error(error)

    def _ask_save(self) -> None:
        density = map_of(self.map.layer())
        if density is None:
            return
        path, _ = QFileDialog.getSaveFileName(self, "Save map", "map.mrc", "MRC maps (*.mrc)")
        if path:
            try:
                density.save(path if path.endswith((".mrc", ".map")) else f"{path}.mrc", overwrite=True)
            except (CryosphereError, OSError) as error:
                tell_error(error)

    def _update(self) -> None:
        busy, session = self._controller.runner.busy, self._controller.session
        first, second = self.map.layer(), self.reference.layer()
        self.reconstruct.setEnabled(session is not None and not busy)
        self.compare.setEnabled(None not in (first, second) and first is not second and not busy)
        self.save.setEnabled(first is not None)
        self.result.setVisible(bool(self.result.text()))
