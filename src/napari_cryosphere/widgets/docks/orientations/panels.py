"""The parts of the orientation view: the map and how even it is, the brush, the spikes."""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray
from qtpy.QtCore import Signal
from qtpy.QtWidgets import (
    QButtonGroup,
    QComboBox,
    QHBoxLayout,
    QLabel,
    QPushButton,
    QSpinBox,
    QWidget,
)

from napari_cryosphere.widgets.control.export import Which
from napari_cryosphere.widgets.docks.kit.layer_combo import LayerCombo
from napari_cryosphere.widgets.docks.kit.style import (
    Panel,
    Tiles,
    caption,
    check_box,
    enable,
    in_row,
    restyle,
    wrapped,
)
from napari_cryosphere.widgets.docks.orientations.mollweide_map import MollweideMap
from napari_cryosphere.widgets.state.particle_states import ParticleStates
from napari_cryosphere.widgets.state.view_statistics import ViewMap

__all__ = ["BrushPanel", "EvennessPanel", "SpikesPanel", "verdict"]

SIDE_VIEWS = 0.81
"""Sampling compensation factor of even side views, 8 / pi^2: worse than that, something is missing."""

_FEWEST = 100  # particles; fewer leave holes by chance
_CAPTIONS = {
    "SCF": "Sampling compensation factor (Baldwin and Lyumkis 2020): 1 for even views, 0.81 for even side "
    "views, 0 if a direction of Fourier space is never seen",
    "hardly seen": "Directions of Fourier space with less than a tenth of even sampling",
    "densest": "Density of views at the densest place, as a multiple of even views",
    "near it": "Share of the views within 30° of the densest place; of even views in brackets",
}
_NOTHING = "No views: the particles have no poses yet. Find or predict them, or open a file that has poses."


def verdict(views: ViewMap) -> tuple[str, bool]:
    """Return a line that says whether views are preferred, and whether it is a warning."""
    if views.particles < _FEWEST:
        return f"Too few particles ({views.particles}) to tell preferred views from chance.", False
    x, y, z = views.peak
    where = _angles(x, y, z)
    weak = f"{100 * views.weak_fraction:.0f} % of the directions of Fourier space are hardly seen"
    if views.compensation_factor < SIDE_VIEWS:
        said = f"Preferred orientation: {weak}; views crowd at {where} ({views.peak_density:.1f} × even)."
        return f"⚠ {said}", True
    return (
        f"No direction is missing: SCF {views.compensation_factor:.2f}, densest at {where}.",
        False,
    )


def _angles(x: float, y: float, z: float) -> str:
    rot, tilt = math.degrees(math.atan2(y, x)), math.degrees(math.acos(max(-1, min(1, z))))
    return f"rot {rot:.0f}°, tilt {tilt:.0f}°"


class EvennessPanel(Panel):
    """The map of views, of which particles, and the values."""

    which_changed = Signal()

    def __init__(self, theme: str, parent: QWidget | None = None) -> None:
        super().__init__("Views", parent)
        self._which = QComboBox()
        self._which.addItems(["all particles", *(f"{which.value} particles" for which in Which)])
        self._which.setToolTip("Whose views the map shows")
        self._which.activated.connect(lambda: self.which_changed.emit())
        self.number = caption()
        tip = "Each direction in the mixed colour of the particles seen from there"
        self.by_state = check_box("in the colours of the states", tip)
        self.by_state.toggled.connect(lambda: self.which_changed.emit())
        self.key = wrapped(QLabel())
        self.map = MollweideMap(theme)
        self.scale = caption()
        self.tiles = Tiles(_CAPTIONS)
        self.verdict = wrapped(QLabel())
        self.add(in_row(self._which, self.number), self.by_state, self.map, self.key)
        self.add(self.scale, self.tiles, self.verdict)
        self.offer_states(None)

    def offer_states(self, states: ParticleStates | None) -> None:
        """Offer colours where particles have states, and say whose each is."""
        self.by_state.setVisible(states is not None)
        if states is None:
            self.by_state.setChecked(False)
        self.key.setText("" if states is None else states.key)
        self.key.setVisible(self.by_state.isChecked())

    @property
    def which(self) -> Which | None:
        """Whose views are shown; None for all."""
        at = self._which.currentIndex()
        return None if at == 0 else list(Which)[at - 1]

    def choose(self, which: Which | None) -> None:
        """Show the views of these particles."""
        self._which.setCurrentIndex(0 if which is None else 1 + list(Which).index(which))
        self.which_changed.emit()

    def show_views(
        self,
        views: ViewMap | None,
        chosen: int,
        left: int,
        symmetry: str,
        hues: NDArray[np.float64] | None = None,
    ) -> None:
        """Show where views fall; ``left`` of the ``chosen`` particles are still to be worked out."""
        self.map.show_density(None if views is None else views.density, hues)
        self.key.setVisible(hues is not None)
        if views is None:
            self.number.setText("")
            self.scale.setText("")
            self.tiles.set({})
            self._say(_NOTHING if left == 0 else "Working out the views…", False)
            return
        total = (
            f"{views.particles:,}"
            if views.particles == chosen
            else f"{views.particles:,} of {chosen:,}"
        )
        self.number.setText(f"{total} · {symmetry}")
        self.scale.setText(
            f"black: none · brightest: {views.peak_density:.1f} × the density of even views"
        )
        self.tiles.set(
            {
                "SCF": f"{views.compensation_factor:.2f}",
                "hardly seen": f"{100 * views.weak_fraction:.0f} %",
                "densest": f"{views.peak_density:.1f} ×",
                "near it": f"{100 * views.near_peak:.0f} % ({100 * views.near_peak_if_even:.0f})",
            }
        )
        self._say(*verdict(views))

    def _say(self, text: str, warning: bool) -> None:
        restyle(self.verdict, "warning" if warning else "caption")
        self.verdict.setText(text)


class BrushPanel(Panel):
    """What a brush on the map does."""

    lasso_changed = Signal(bool)
    share_changed = Signal()

    def __init__(self, parent: QWidget | None = None) -> None:
        super().__init__("Brush a region to select its particles", parent)
        self.rectangle, self.lasso = QPushButton("Rectangle"), QPushButton("Lasso")
        self._shapes = QButtonGroup(self)
        shapes = QHBoxLayout()
        for button in (self.rectangle, self.lasso):
            button.setObjectName("mode")
            button.setCheckable(True)
            self._shapes.addButton(button)
            shapes.addWidget(button)
        self.rectangle.setChecked(True)
        self.lasso.toggled.connect(self.lasso_changed)
        self._share = QSpinBox()
        self._share.setRange(1, 100)
        self._share.setValue(50)
        self._share.setSuffix(" %")
        self._share.setToolTip(
            "Least probability that a particle's view lies in the region or its equivalents"
        )
        self._share.valueChanged.connect(lambda _: self.share_changed.emit())
        self.result = wrapped(caption())
        share = in_row(caption("with a probability of at least"), self._share)
        self.add(shapes, share, self.result)
        self.say(None)

    @property
    def share(self) -> float:
        """Least probability in the region, in (0, 1]."""
        return self._share.value() / 100

    def say(self, found: int | None, area: float = 0.0) -> None:
        """Say how many particles a region has, and how much of the sphere it is."""
        if found is None:
            self.result.setText(
                "Drag on the map; Ctrl adds, a click takes one direction, a double click none."
            )
        else:
            self.result.setText(f"{found:,} particles selected in {100 * area:.1f} % of the sphere")


class SpikesPanel(Panel):
    """The same views as spikes around a map, in 3D."""

    wanted_changed = Signal(bool)

    def __init__(self, parent: QWidget | None = None) -> None:
        super().__init__("Around a map", parent)
        self.layers = LayerCombo("no map loaded")
        tip = "A spike for each view direction, as long as views are dense there"
        self.wanted = check_box("Spikes in 3D", tip)
        self.wanted.clicked.connect(self.wanted_changed)
        self.add(in_row(self.layers, self.wanted))

    def update_enabled(self) -> None:
        """Enable what can be used."""
        enable(self.wanted, (self.layers.layer() is None, "Open a map, or reconstruct one"))
