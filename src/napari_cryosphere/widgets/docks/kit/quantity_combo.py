"""A list of the quantities that are known of particles."""

from __future__ import annotations

from collections.abc import Mapping

from qtpy.QtCore import Qt
from qtpy.QtWidgets import QComboBox, QSizePolicy, QWidget

from napari_cryosphere.widgets.state.quantities import Quantity

__all__ = ["QuantityCombo", "narrow_combo"]


class QuantityCombo(QComboBox):
    """Quantities by names with units, each with its meaning as a tool tip. ``tip``: what they are for."""

    def __init__(self, tip: str, parent: QWidget | None = None) -> None:
        super().__init__(parent)
        narrow_combo(self, tip)

    @property
    def name(self) -> str | None:
        """Name of the chosen quantity; None for none."""
        found = self.currentData()
        return None if found is None else str(found)

    def choose(self, name: str | None) -> None:
        """Choose a quantity by its name; none where it is not offered."""
        self.setCurrentIndex(self.findData(name))

    def offer(self, quantities: Mapping[str, Quantity]) -> None:
        """Offer these quantities; the chosen one stays chosen where it is among them."""
        if [self.itemData(at) for at in range(self.count())] == list(quantities):
            return
        chosen = self.name
        self.clear()
        for name, quantity in quantities.items():
            self.addItem(quantity.label, name)
            self.setItemData(self.count() - 1, quantity.tip, Qt.ItemDataRole.ToolTipRole)
        self.choose(chosen)


def narrow_combo(combo: QComboBox, tip: str) -> None:
    """Let a list of choices be narrower than its longest entry, and say what it is for."""
    combo.setToolTip(tip)
    combo.setSizePolicy(QSizePolicy.Policy.Expanding, QSizePolicy.Policy.Fixed)
    combo.setSizeAdjustPolicy(QComboBox.SizeAdjustPolicy.AdjustToMinimumContentsLengthWithIcon)
    combo.setMinimumContentsLength(6)
