"""The particle that is shown: how its image is treated, whose distribution is drawn, and what it says."""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from qtpy.QtWidgets import (
    QButtonGroup,
    QDoubleSpinBox,
    QFileDialog,
    QHBoxLayout,
    QPushButton,
    QToolButton,
    QWidget,
)

from napari_cryosphere.errors import CryosphereError
from napari_cryosphere.widgets.control.particle_keys import ParticleKeys, answering
from napari_cryosphere.widgets.control.projection_view import ShownMatch
from napari_cryosphere.widgets.docks.kit.flag_bar import FlagBar
from napari_cryosphere.widgets.docks.kit.flags import UNCERTAIN_KEYS
from napari_cryosphere.widgets.docks.kit.layer_combo import LayerCombo
from napari_cryosphere.widgets.docks.kit.seated_dock import single_shot
from napari_cryosphere.widgets.docks.kit.style import (
    Panel,
    Tiles,
    caption,
    check_box,
    enable,
    folded,
    in_row,
    push_button,
    wrapped,
)
from napari_cryosphere.widgets.docks.kit.workbench import Seat
from napari_cryosphere.widgets.docks.main.hue_key import HueKey
from napari_cryosphere.widgets.docks.main.lens_layer import LensLayer, paint_lens
from napari_cryosphere.widgets.docks.main.sphere_mouse import SphereMouse
from napari_cryosphere.widgets.docks.main.verdict_panel import VerdictPanel
from napari_cryosphere.widgets.docks.sphere.dock import marks_of
from napari_cryosphere.widgets.plugin.open_docks import SPHERE, open_dock
from napari_cryosphere.widgets.state.layer_data import map_of
from napari_cryosphere.widgets.state.notices import tell_error
from napari_cryosphere.widgets.state.reading import refined_line, tile_texts
from napari_cryosphere.widgets.state.sphere_layer import Source

if TYPE_CHECKING:
    from napari.layers import Layer

__all__ = ["InspectorPanel", "match_line"]

_SETTLED_MS = 120  # the slider rests for so long before the slow values are computed
_MARKS_KEY, _LOW_PASS_KEY, _COMPARE_KEY = "M", "R", "P"
_CAPTIONS = {
    "rot": "rlnAngleRot of the most probable pose",
    "tilt": "rlnAngleTilt of the most probable pose",
    "psi": "rlnAnglePsi of the most probable pose",
    "error": "Angle between that pose and the known one, modulo symmetry",
    "spread": "Expected angle between the true pose and the most probable one",
    "confidence": "Probability that the true pose is within 30° of the most probable one",
}
_DETAILS = {
    "entropy": "Nats relative to the uniform distribution: 0 = uniform, a sure particle has -9 or less",
    "95 % set": "Share of all poses that the smallest set with 95 % of the probability fills: "
    "100 % = uniform, a sure particle has 0.01 % or less",
}
_SOURCES: dict[Source, tuple[str, str]] = {
    "network": ("Network", "Draw what the network predicts"),
    "map": (
        "Map",
        "Draw the posterior given the map: all poses and shifts compared with the particle",
    ),
    "both": (
        "Both",
        "Draw what the network predicts and outline the 95 % most probable views given the map",
    ),
}
_NO_MAP = "No map to compare the particles with: open an MRC map or reconstruct one"
_LOW_PASS = (
    "Show less noise: without what is finer than this resolution (R). The data stay as they are"
)
_COMPARE = (
    "Show the map's projection at the particle's pose, and what it leaves of the particle (P)"
)


class InspectorPanel(Panel):
    """Values of a particle, and the keys ``U`` and ``Shift-U`` to the most uncertain ones."""

    def __init__(self, seat: Seat, parent: QWidget | None = None) -> None:
        super().__init__("Particle", parent)
        self._controller = controller = seat.controller
        self._inspector = controller.inspector
        self._viewer = controller.viewer
        self._painted: object = None
        self._make_walk_row()
        self.flags = FlagBar(seat)
        self.body.addWidget(self.flags)
        self._make_image_row()
        self._make_source_row()
        self.verdict = VerdictPanel(self._inspector.go_to)
        self.tiles, self.details = Tiles(_CAPTIONS), Tiles(_DETAILS)
        self.match, self.refined = wrapped(caption()), wrapped(caption())
        details = folded("Details", self.details)
        self.add(self.verdict, self.tiles, self.refined, self.match, details, HueKey())
        self.lens = LensLayer(controller.viewer, controller.arrangement)
        self._settled = single_shot(self, _SETTLED_MS, self._inspector.settle)
        for signal, callback in (
            (controller.particle_changed, self._on_particle),
            (controller.predictions_changed, self._on_predictions),
            (controller.layers_changed, self._on_layers),
            (controller.maps.mode_changed, self._show),
            (self._inspector.changed, self._show),
            (self._controller.projection.changed, self._show),
        ):
            seat.connect(signal, callback)
        self._mouse: SphereMouse | None = SphereMouse(
            controller.viewer, self._inspector, controller.projection
        )
        for key, by in UNCERTAIN_KEYS.items():
            walk = answering(partial(self._inspector.step_uncertain, by))
            controller.viewer.bind_key(key, walk, overwrite=True)
        controller.viewer.bind_key(_MARKS_KEY, self._on_marks, overwrite=True)
        own = {_LOW_PASS_KEY: self.low_pass.toggle, _COMPARE_KEY: self.compare.toggle}
        self._keys = ParticleKeys(controller, own)
        self.low_pass.setChecked(True)  # as they are stored, nothing is seen of noisy particles
        self._on_layers()
        self._on_predictions()

    def leave(self) -> None:
        """Let go of the viewer's mouse and keys; the second time nothing happens."""
        mouse, self._mouse = self._mouse, None
        if mouse is None:
            return
        self._settled.stop()
        mouse.leave()
        self.lens.remove()
        for key in (*UNCERTAIN_KEYS, _MARKS_KEY):
            self._viewer.bind_key(key, None)
        self._keys.leave()
        self.flags.leave()

    # ------------------------------------------------------------------ rows

    def _make_walk_row(self) -> None:
        self.particle = wrapped(caption())
        self.back, self.next = QToolButton(), QToolButton()
        for button, text, tip, by in (
            (self.back, "◀", "Back to the more uncertain particle (Shift-U)", -1),
            (self.next, "▶", "Next most uncertain particle: widest spread first (U)", 1),
        ):
            button.setText(text)
            button.setToolTip(tip)
            button.clicked.connect(lambda _=False, by=by: self._inspector.step_uncertain(by))
        self.add(in_row(self.particle, caption("uncertain"), self.back, self.next))

    def _make_image_row(self) -> None:
        self.normalise = check_box("norm", "Background to mean 0 and standard deviation 1")
        self.flip = check_box("flip", "Undo the CTF's sign (phase flip)")
        self.low_pass, self.resolution = check_box("low-pass", _LOW_PASS), QDoubleSpinBox()
        self.resolution.setRange(1, 200)
        self.resolution.setDecimals(0)
        self.resolution.setValue(20)
        self.resolution.setSuffix(" Å")
        self.resolution.setKeyboardTracking(False)
        self.resolution.setFixedWidth(70)
        row = QHBoxLayout()
        row.setSpacing(3)
        for box in (self.normalise, self.flip, self.low_pass):
            box.setObjectName("tight")
            box.toggled.connect(self._on_steps)
            row.addWidget(box)
        self.resolution.valueChanged.connect(self._on_steps)
        row.addWidget(self.resolution)
        row.addStretch(1)
        self.body.addLayout(row)

    def _make_source_row(self) -> None:
        self.sources: dict[Source, QPushButton] = {}
        self._source_group = QButtonGroup(self)
        row = QHBoxLayout()
        row.setSpacing(2)
        for source, (text, tip) in _SOURCES.items():
            button = push_button(text, tip, partial(self._on_source, source), "mode")
            button.setCheckable(True)
            button.setMinimumWidth(40)
            self.sources[source] = button
            self._source_group.addButton(button)
            row.addWidget(button, 1)
        tip = "The distribution on a sphere, in its own window: turn it with the mouse"
        self.turn = push_button(
            "3D", tip, lambda: open_dock(self._viewer, SPHERE, floating=True), "step"
        )
        row.addWidget(self.turn)
        tip = "Save this sphere for a paper: PNG, SVG or PDF"
        self.figure = push_button("Figure…", tip, self._on_figure, "step")
        row.addWidget(self.figure)
        self.sources["network"].setChecked(True)
        self.map = LayerCombo("no map loaded")
        self.map.setToolTip("The map that particles are compared with")
        self.map.layer_chosen.connect(self._on_map)
        projection = self._controller.projection
        self.compare = check_box("compare", _COMPARE, projection.compared)
        self.compare.toggled.connect(projection.compare)
        self.add(row, in_row(caption("map"), self.map, self.compare, wide=1))

    # ------------------------------------------------------------------ what the user does

    def _on_steps(self) -> None:
        """Show the particles after the steps that are ticked."""
        normalise, flip = self.normalise.isChecked(), self.flip.isChecked()
        low_pass = self.resolution.value() if self.low_pass.isChecked() else None
        steps = None
        if normalise or flip:
            from napari_cryosphere.imaging.preprocess import Preprocessing

            steps = Preprocessing(normalise=normalise, ctf="flip" if flip else None, mask=False)
        if (steps, low_pass) != (self._inspector.steps, self._inspector.low_pass_angstrom):
            self._inspector.show_steps(steps, low_pass)
            self._settled.start()

    def _on_marks(self, viewer: object) -> None:
        """Take the marks from the sphere, or bring them back."""
        self._inspector.show_marks(not self._inspector.marked)

    def _on_map(self, layer: Layer | None) -> None:
        self._inspector.choose_map(layer)
        self._settled.start()

    def _on_figure(self) -> None:
        index = self._controller.index
        name = "sphere.png" if index is None else f"sphere_{index + 1}.png"
        path, _ = QFileDialog.getSaveFileName(
            self, "Save the sphere", name, "Figures (*.png *.svg *.pdf)"
        )
        if path:
            try:
                self._inspector.draw_figure(Path(path))
            except CryosphereError as error:
                tell_error(error)

    def _on_source(self, source: Source, checked: bool = False) -> None:
        self._inspector.show_source(source)
        self._settled.start()

    # ------------------------------------------------------------------ what has changed

    def _on_layers(self) -> None:
        self.map.set_layers(self._controller.map_layers)
        if self.map.layer() is not self._inspector.map_layer:
            self._on_map(self.map.layer())
        self._show()

    def _on_particle(self) -> None:
        """Begin to wait for the slider to rest; the inspector has said what is shown at once."""
        if self._mouse is not None:
            self._mouse.forget()
            self._settled.start()

    def _on_predictions(self) -> None:
        self._on_particle()
        self._show()

    def _show(self, *_: object) -> None:
        """Show what is known of the particle under the slider."""
        session, index = self._controller.session, self._controller.index
        inspector = self._inspector
        self.sources[inspector.source].setChecked(True)
        predicted = session is not None and bool(session.store.predicted.any())
        for button in (self.back, self.next):
            enable(button, (not predicted, "Nothing is predicted yet: find or predict poses first"))
        has_map = map_of(inspector.map_layer) is not None
        given_map = has_map or (session is not None and session.posteriors.stored)
        for given in (self.sources["map"], self.sources["both"]):
            enable(given, (not given_map, _NO_MAP))
        if session is None or index is None:
            self.particle.setText("No particle shown")
            texts = {}
        else:
            at = f"{index + 1:,} of {len(session.stack):,}"
            compared = inspector.compared_layer
            looked_at = inspector.source != "network" or self._controller.projection.compared
            if looked_at and compared not in (None, inspector.map_layer):
                at = f"{at} · {compared.name}"
            waiting = inspector.source != "network" and inspector.waiting
            self.particle.setText(f"{at} · comparing…" if waiting else at)
            pose = session.store.pose(index) if inspector.source != "map" else None
            texts = tile_texts(pose, inspector.reading)
        self.tiles.set(texts)
        refined = None if session is None or index is None else session.store.refined_pose(index)
        of_file = session is not None and session.store.only_refined
        self.refined.setText(refined_line(refined, "In the file" if of_file else "Refined"))
        told = of_file and inspector.source == "network"  # by the tiles
        self.refined.setVisible(refined is not None and not told)
        self.details.set(texts)
        projection = self._controller.projection
        reading = None if index is None else inspector.reading
        self.verdict.show_reading(reading, inspector.agreement(), projection.thumbnails)
        self._show_lens()
        drawn = session is not None and session.sphere is not None
        for needing in (self.turn, self.figure):
            enable(needing, (not drawn, "There is no sphere yet: find or predict poses first"))
        compared = projection.reference is not None
        enable(self.compare, (not compared, _NO_MAP))
        self.match.setText(match_line(projection.match, compared))
        self.match.setVisible(drawn and index is not None)

    def _show_lens(self) -> None:
        """Paint what is seen around the candidate that is looked at."""
        shown, lens = self._inspector.shown, self._inspector.lens
        if shown is None or lens is None or self._controller.maps.view.active:
            self.lens.hide()
            self._painted = None
            return
        wanted = lens, self._inspector.outlined_lens, self._inspector.marked
        if wanted != self._painted:
            marks = marks_of(*shown) if self._inspector.marked else []
            self.lens.show(paint_lens(*wanted[:2], marks))
            self._painted = wanted


def match_line(match: ShownMatch | None, has_map: bool) -> str:
    """Return a line on the projection that is shown, or on how to get one."""
    if match is not None:
        return f"Projection at the {match.what}: correlation {match.correlation:.3f}"
    if has_map:
        return "Click on the sphere: the map's projection from there is shown with what it leaves"
    return "Open or reconstruct a map to see its projections next to the particle"
