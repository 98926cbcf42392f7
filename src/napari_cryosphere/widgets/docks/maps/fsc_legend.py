"""The legend of the FSC plot: what is shown, its resolution, its value under the cross-hair."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from html import escape

from qtpy.QtCore import Qt, Signal
from qtpy.QtGui import QFont, QFontMetrics
from qtpy.QtWidgets import QCheckBox, QFrame, QGridLayout, QLabel, QScrollArea, QVBoxLayout, QWidget

from napari_cryosphere.widgets.docks.kit.style import caption
from napari_cryosphere.widgets.state.fsc_curves import Curve, described, resolution_of

__all__ = ["FscLegend"]

_WIDTH = 224
_FONT_PIXELS = 11  # of a "cell", see `dock_style`
_STROKES = {"masked": "╌╌", "unmasked": "┈┈"}


class FscLegend(QScrollArea):
    """A heading for each group of curves, and under it a line a curve."""

    toggled = Signal()
    """Sent when a curve is to be shown or hidden."""

    def __init__(self, parent: QWidget | None = None) -> None:
        super().__init__(parent)
        self._colours: dict[str, str] = {}
        self._hidden: dict[str, bool] = {}
        self.boxes: dict[str, QCheckBox] = {}
        self.values: dict[str, QLabel] = {}
        self.setFixedWidth(_WIDTH)
        self.setWidgetResizable(True)
        self.setFrameShape(QFrame.Shape.NoFrame)
        self.setHorizontalScrollBarPolicy(Qt.ScrollBarPolicy.ScrollBarAlwaysOff)
        self.where = caption()
        self.where.setAlignment(Qt.AlignmentFlag.AlignRight)

    def colour(self, curve: Curve) -> str:
        """Return a curve's colour."""
        return self._colours[curve.group]

    def is_shown(self, curve: Curve) -> bool:
        """Return whether a curve is to be drawn."""
        return not self._hidden.get(curve.label, not curve.shown)

    def show_curves(self, curves: Sequence[Curve], colours: Mapping[str, str]) -> None:
        """List these curves; what was hidden or shown by hand stays so."""
        self._colours = dict(colours)
        self._hidden = {
            curve.label: self._hidden[curve.label]
            for curve in curves
            if curve.label in self._hidden
        }
        self.boxes, self.values, self.where = {}, {}, caption()
        content = QWidget()
        outer = QVBoxLayout(content)
        outer.setContentsMargins(6, 2, 6, 2)
        outer.setSpacing(1)
        self.where.setAlignment(Qt.AlignmentFlag.AlignRight)
        outer.addWidget(self.where)
        for group, colour in colours.items():
            outer.addWidget(self._heading(group, colour))
            outer.addLayout(self._lines([curve for curve in curves if curve.group == group]))
        outer.addStretch(1)
        self.setWidget(content)
        self.read_out(None, {})

    @staticmethod
    def _heading(group: str, colour: str) -> QLabel:
        label, font = QLabel(), QFont()
        font.setPixelSize(_FONT_PIXELS)
        name = QFontMetrics(font).elidedText(group, Qt.TextElideMode.ElideMiddle, _WIDTH - 36)
        label.setText(f'<span style="color:{colour}">▬</span> {escape(name)}')
        label.setObjectName("cell")
        label.setToolTip(group)
        return label

    def _lines(self, curves: Sequence[Curve]) -> QGridLayout:
        grid = QGridLayout()
        grid.setContentsMargins(0, 0, 0, 0)
        grid.setHorizontalSpacing(6)
        grid.setVerticalSpacing(0)
        grid.setColumnStretch(0, 1)
        for line, curve in enumerate(curves):
            box = QCheckBox(f"{_STROKES.get(curve.kind, '──')} {curve.kind or 'FSC'}")
            box.setChecked(self.is_shown(curve))
            box.setToolTip(described(curve))
            box.toggled.connect(lambda on, label=curve.label: self._on_toggled(label, on))
            resolution, value = caption(resolution_of(curve)), QLabel()
            resolution.setToolTip(f"resolution at FSC {curve.threshold:g}")
            value.setObjectName("cell")
            value.setFixedWidth(34)
            value.setAlignment(Qt.AlignmentFlag.AlignRight | Qt.AlignmentFlag.AlignVCenter)
            for column, widget in enumerate((box, resolution, value)):
                grid.addWidget(widget, line, column)
            self.boxes[curve.label], self.values[curve.label] = box, value
        return grid

    def _on_toggled(self, label: str, shown: bool) -> None:
        self._hidden[label] = not shown
        self.toggled.emit()

    def read_out(
        self, resolution_angstrom: float | None, values: Mapping[str, float | None]
    ) -> None:
        """Show the curves' values at a resolution; None for no cross-hair."""
        away = resolution_angstrom is None
        self.where.setText(
            "point at a curve to read it" if away else f"at {resolution_angstrom:.2f} Å"
        )
        for label, shown in self.values.items():
            value = values.get(label)
            shown.setText("" if value is None else f"{value:.2f}")
