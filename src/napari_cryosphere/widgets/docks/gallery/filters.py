"""The gallery's upper part: what it is sorted and filtered by."""

from __future__ import annotations

import numpy as np
from qtpy.QtWidgets import (
    QComboBox,
    QGridLayout,
    QHBoxLayout,
    QSizePolicy,
    QToolButton,
    QVBoxLayout,
    QWidget,
)

from napari_cryosphere.widgets.docks.gallery.histogram import Histogram
from napari_cryosphere.widgets.docks.kit.quantity_combo import QuantityCombo, narrow_combo
from napari_cryosphere.widgets.docks.kit.style import caption, enable, enable_all
from napari_cryosphere.widgets.state.particle_choices import Flag
from napari_cryosphere.widgets.state.session import Session

__all__ = ["GalleryFilters"]

_FLAGS = {"any flag": None, "not flagged": Flag.NONE} | {
    flag.name.lower(): flag for flag in (Flag.KEEP, Flag.REJECT, Flag.REVIEW)
}
_ASCENDING, _DESCENDING = "▲", "▼"
_COLUMNS = 2
_NO_DATA = "No particles are loaded: drop a STAR or .cs file into the viewer"
_NO_FILTER = "No filter is set: all particles are shown"


class GalleryFilters(QWidget):
    """Sort order, histogram with its brush, flags and categories of one session.

    Parameters
    ----------
    theme
        napari's theme.
    """

    def __init__(self, theme: str, parent: QWidget | None = None) -> None:
        super().__init__(parent)
        self._session: Session | None = None
        self.quantity = QuantityCombo(
            "What the tiles are sorted by and say, and the histogram shows"
        )
        self.quantity.setMinimumContentsLength(3)
        self.direction = QToolButton()
        self.direction.setText(_ASCENDING)
        self.direction.setToolTip("Smallest or largest first")
        self.brush = _combo("What dragging over the histogram does")
        self.brush.addItems(["drag: filter", "drag: select"])
        self.brush.setSizeAdjustPolicy(QComboBox.SizeAdjustPolicy.AdjustToContents)
        self.brush.setSizePolicy(QSizePolicy.Policy.Fixed, QSizePolicy.Policy.Fixed)
        self.histogram = Histogram(theme)
        self.flag = _combo("Show only particles with this flag")
        self.flag.addItems(list(_FLAGS))
        self.labels: dict[str, QComboBox] = {}
        self.everything = QToolButton()
        self.everything.setText("show all")
        self.everything.setToolTip("Take all filters away")
        self._lay_out()
        self.quantity.activated.connect(self._on_sort)
        self.direction.clicked.connect(self._on_direction)
        self.histogram.brushed.connect(self._on_brushed)
        self.flag.activated.connect(self._on_flag)
        self.everything.clicked.connect(self._on_everything)
        self.set_session(None)

    def _lay_out(self) -> None:
        first = QHBoxLayout()
        first.addWidget(caption("sort by"))
        first.addWidget(self.quantity, 1)
        first.addWidget(self.direction)
        first.addWidget(self.brush)
        self._grid = QGridLayout()
        self._grid.setHorizontalSpacing(4)
        self._grid.setVerticalSpacing(4)
        column = QVBoxLayout(self)
        column.setContentsMargins(0, 0, 0, 0)
        column.setSpacing(4)
        column.addLayout(first)
        column.addWidget(self.histogram)
        column.addLayout(self._grid)
        self._place()

    def _place(self) -> None:
        """Put flags, categories and the button in rows of two."""
        for at, widget in enumerate([self.flag, *self.labels.values(), self.everything]):
            self._grid.addWidget(widget, *divmod(at, _COLUMNS))
        for column in range(_COLUMNS):
            self._grid.setColumnStretch(column, 1)

    def set_session(self, session: Session | None) -> None:
        """Show and change the filters of a session."""
        self._session = session
        for combo in self.labels.values():
            self._grid.removeWidget(combo)
            combo.deleteLater()
        self.labels = {}
        for name, category in {} if session is None else session.filter.categories.items():
            combo = _combo(f"Show only particles of one {name}")
            combo.addItem(f"any {name}", None)
            for label in category.labels:
                combo.addItem(label if name == "micrograph" else f"{name} {label}", label)
            combo.activated.connect(lambda _, name=name: self._on_label(name))
            self.labels[name] = combo
        self._place()
        enable_all(self, (session is None, _NO_DATA))
        self.update_quantities()

    def update_quantities(self) -> None:
        """Offer the quantities that are known, and show the filters as they are."""
        offered = {} if self._session is None else self._session.filter.quantities
        self.quantity.offer(offered)
        self.update_filters()

    def update_filters(self) -> None:
        """Show the filters and the histogram as they are."""
        if self._session is None:
            self.histogram.show_values(np.empty(0), np.empty(0), None)
            return
        chosen = self._session.filter
        self.quantity.choose(chosen.sort_name)
        self.direction.setText(_DESCENDING if chosen.descending else _ASCENDING)
        self.flag.setCurrentIndex(list(_FLAGS.values()).index(chosen.flag))
        for name, combo in self.labels.items():
            combo.setCurrentIndex(combo.findData(chosen.labels.get(name)))
        enable(self.everything, (not chosen.active, _NO_FILTER))
        self.update_histogram()

    def update_histogram(self) -> None:
        """Draw the quantity of the particles that pass the other filters, and of the selected ones."""
        if self._session is None:
            return
        chosen, name = self._session.filter, self._session.filter.sort_name
        quantity, passing = chosen.quantities[name], chosen.passing(without=name)
        selected = self._session.choices.selected & passing
        values = quantity.values
        self.histogram.show_values(values[passing], values[selected], chosen.ranges.get(name))

    def _on_sort(self) -> None:
        if self._session is not None:
            self._session.filter.sort_by(
                self.quantity.currentData(), self._session.filter.descending
            )

    def _on_direction(self) -> None:
        if self._session is not None:
            self._session.filter.sort_by(
                self._session.filter.sort_name, not self._session.filter.descending
            )

    def _on_brushed(self, limits: tuple[float, float] | None) -> None:
        if self._session is None:
            return
        chosen, name = self._session.filter, self._session.filter.sort_name
        if self.brush.currentIndex() == 0:
            chosen.set_range(name, limits)
        elif limits is not None:
            values, rows = chosen.quantities[name].values, chosen.rows
            inside = (values[rows] >= limits[0]) & (values[rows] <= limits[1])
            self._session.choices.select(rows[inside])

    def _on_flag(self) -> None:
        if self._session is not None:
            self._session.filter.set_flag(_FLAGS[self.flag.currentText()])

    def _on_label(self, name: str) -> None:
        if self._session is not None:
            self._session.filter.set_label(name, self.labels[name].currentData())

    def _on_everything(self) -> None:
        if self._session is not None:
            self._session.filter.clear()


def _combo(tip: str) -> QComboBox:
    combo = QComboBox()
    narrow_combo(combo, tip)
    return combo
