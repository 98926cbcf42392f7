"""Which particles the dock works on, and what there is to know about them."""

from __future__ import annotations

from qtpy.QtWidgets import QHBoxLayout, QLabel, QLineEdit, QWidget

from napari_cryosphere.particles import ParticleStack
from napari_cryosphere.widgets.controller import Controller
from napari_cryosphere.widgets.layer_combo import LayerCombo
from napari_cryosphere.widgets.notices import cause_first
from napari_cryosphere.widgets.style import Panel, caption, wrapped

__all__ = ["DataPanel", "described"]

_EMPTY = "Drop a STAR file or an MRC stack into the viewer, or take File ▸ Open Sample ▸ CryoSphere."
_MOST_WARNINGS = 2


class DataPanel(Panel):
    """The list of particle layers, a summary of the chosen one and its warnings."""

    def __init__(self, controller: Controller, parent: QWidget | None = None) -> None:
        super().__init__("Particles", parent)
        self._controller = controller
        self.layers = LayerCombo("no particles loaded")
        self.symmetry = QLineEdit(controller.symmetry)
        self.symmetry.setFixedWidth(44)
        self.symmetry.setToolTip("Point group of the molecule, for training and maps: C1, C4, D7, O, I")
        self.symmetry.textChanged.connect(lambda text: setattr(controller, "symmetry", text.strip()))
        row = QHBoxLayout()
        row.addWidget(self.layers, 1)
        row.addWidget(caption("symmetry"))
        row.addWidget(self.symmetry)
        self.body.addLayout(row)
        self.summary = wrapped(caption())
        self.warnings = wrapped(QLabel())
        self.warnings.setObjectName("warning")
        for widget in (self.summary, self.warnings):
            self.body.addWidget(widget)
        self.layers.layer_chosen.connect(controller.choose)
        controller.layers_changed.connect(self._on_layers)
        controller.session_changed.connect(self._on_session)
        self._on_layers()
        self._on_session()

    def _on_layers(self) -> None:
        chosen = self._controller.session
        self.layers.blockSignals(True)
        self.layers.set_layers(self._controller.particle_layers)
        self.layers.blockSignals(False)
        self.layers.choose(None if chosen is None else chosen.layer)

    def _on_session(self) -> None:
        session = self._controller.session
        if session is None:
            self.layers.choose(None)
            self.summary.setText(_EMPTY)
            self.warnings.hide()
            return
        self.layers.choose(session.layer)
        self.summary.setText(described(session.stack))
        self.summary.setToolTip(str(session.stack.source))
        lines = [cause_first(warning) for warning in session.stack.warnings]
        more = len(lines) - _MOST_WARNINGS
        shown = lines[:_MOST_WARNINGS] + ([f"and {more} more"] if more > 0 else [])
        self.warnings.setText("\n".join(f"⚠ {line}" for line in shown))
        self.warnings.setToolTip("\n".join(session.stack.warnings))
        self.warnings.setVisible(bool(lines))


def described(stack: ParticleStack) -> str:
    """Return a line on a data set: number, box, pixel size, what is known of CTF and poses."""
    return " · ".join(
        [
            f"{len(stack):,} particles",
            f"{stack.box} px",
            f"{stack.pixel_size_angstrom:.4g} Å/px",
            "CTF" if stack.has_ctf else "no CTF",
            "poses known" if stack.has_poses else "no poses",
        ]
    )
