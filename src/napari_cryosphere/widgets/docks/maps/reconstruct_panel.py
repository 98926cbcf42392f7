"""From particles to a map: which of them, at which poses."""

from __future__ import annotations

import weakref

from qtpy.QtWidgets import QComboBox, QGridLayout, QWidget

from napari_cryosphere.errors import CryosphereError
from napari_cryosphere.widgets.control.map_sources import (
    MISSING,
    Poses,
    Subset,
    chosen_rows,
    posed_rows,
    recipe,
)
from napari_cryosphere.widgets.docks.kit.style import (
    BUSY,
    Panel,
    caption,
    check_box,
    enable,
    in_row,
    push_button,
    wrapped,
)
from napari_cryosphere.widgets.docks.kit.workbench import Seat
from napari_cryosphere.widgets.state.notices import tell_error
from napari_cryosphere.widgets.state.particle_choices import ParticleChoices

__all__ = ["ReconstructPanel"]

_WEIGH = (
    "Insert each particle at eight samples of its predicted distribution instead of its best pose: "
    "uncertain particles blur themselves out"
)
_CONES = "Also correlate the half-maps in cones of 20°: a wide band means that views are missing"


class ReconstructPanel(Panel):
    """Chooses poses and particles, and starts the reconstruction."""

    def __init__(self, seat: Seat, parent: QWidget | None = None) -> None:
        super().__init__("Reconstruct", parent)
        self._controller = controller = seat.controller
        self.source = wrapped(caption())
        self.poses, self.subset = QComboBox(), QComboBox()
        for poses in Poses:
            self.poses.addItem(poses.value, poses)
        for subset in Subset:
            self.subset.addItem(subset.value, subset)
        self.poses.setToolTip(
            "Predicted: the model's best poses; refined: the file's, against a map; input: taken for true"
        )
        tip = "Also reconstruct both halves (rlnRandomSubset), and draw their FSC"
        self.half_maps = check_box("half-maps", tip, True)
        self.weigh = check_box("weight by distributions", _WEIGH)
        self.cones = check_box("by direction", _CONES)
        self.reconstruct = push_button("Reconstruct", "", self._on_reconstruct, "primary")
        self.poses.currentIndexChanged.connect(lambda _: self._update())
        self.subset.currentIndexChanged.connect(lambda _: self._update())
        self.half_maps.toggled.connect(lambda _: self._update())
        self._lay_out()
        for signal in (controller.session_changed, controller.predictions_changed):
            seat.connect(signal, self._on_session)
        seat.connect(controller.runner.busy_changed, self._update)
        self._seat = seat
        self._followed: weakref.WeakSet[ParticleChoices] = weakref.WeakSet()
        self._on_session()

    def _lay_out(self) -> None:
        form = QGridLayout()
        for line, (name, combo) in enumerate((("at", self.poses), ("from", self.subset))):
            form.addWidget(caption(name), line, 0)
            form.addWidget(combo, line, 1)
        form.setColumnStretch(1, 1)
        boxes = in_row(self.half_maps, self.cones, wide=-1)
        boxes.addStretch(1)
        self.add(self.source, form, boxes, self.weigh, self.reconstruct)

    def choose(self, subset: Subset) -> None:
        """Choose which particles count, at poses that they have: predicted ones where there are any."""
        self.subset.setCurrentIndex(self.subset.findData(subset))
        session, poses = self._controller.session, self.poses.currentData()
        if session is not None and not posed_rows(session, poses).any():
            known = (poses for poses in Poses if posed_rows(session, poses).any())
            self.poses.setCurrentIndex(self.poses.findData(next(known, Poses.PREDICTED)))

    def _on_session(self) -> None:
        session = self._controller.session
        if session is not None and session.choices not in self._followed:
            self._followed.add(session.choices)
            for signal in (session.choices.selection_changed, session.choices.flags_changed):
                self._seat.connect(signal, self._update)
        self._update()

    def _on_reconstruct(self) -> None:
        controller = self._controller
        try:
            chosen = recipe(
                controller.session,
                self.poses.currentData(),
                self.subset.currentData(),
                self.weigh.isChecked(),
                controller.symmetry,
                self.half_maps.isChecked(),
                self.cones.isChecked(),
                name_data=len(controller.particle_layers) > 1,
            )
            controller.maps.reconstruct(chosen)
        except CryosphereError as error:
            tell_error(error)

    def _update(self) -> None:
        """Show how many particles each choice has, and what can be pressed."""
        session, busy = self._controller.session, self._controller.runner.busy
        poses: Poses = self.poses.currentData()
        predicted = poses is Poses.PREDICTED
        self.source.setText(self._described())
        number = 0
        for index, subset in enumerate(Subset):
            rows = None if session is None else chosen_rows(session, subset)
            if rows is not None and session is not None:
                rows &= posed_rows(session, poses)
            count = 0 if rows is None else int(rows.sum())
            self.subset.setItemText(
                index, subset.value if session is None else f"{subset.value} ({count:,})"
            )
            number = count if subset is self.subset.currentData() else number
        unposed = session is not None and not posed_rows(session, poses).any()
        enable(self.weigh, (not predicted, "Only predicted poses have distributions"))
        enable(self.cones, (not self.half_maps.isChecked(), "This needs the half-maps"))
        enable(
            self.reconstruct,
            (session is None, "No particles are loaded: open a STAR or .cs file"),
            (unposed, MISSING[poses][0].upper() + MISSING[poses][1:]),
            (not number, "None of these particles has such a pose: choose others"),
            (busy, BUSY),
        )

    def _described(self) -> str:
        """Return whose map this would be."""
        session = self._controller.session
        if session is None:
            return "no particles loaded"
        number = int(session.store.predicted.sum())
        poses = f"{number:,} predicted" if number else "none predicted yet"
        return f"{session.layer.name} · {poses} · symmetry {self._controller.symmetry}"
