"""A list of layers to choose from that follows the viewer."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from qtpy.QtCore import QSignalBlocker, Signal
from qtpy.QtWidgets import QComboBox, QSizePolicy, QWidget

from napari_cryosphere.widgets.docks.kit.style import enable

if TYPE_CHECKING:
    from napari.layers import Layer

__all__ = ["LayerCombo"]


class LayerCombo(QComboBox):
    """Names of layers; the chosen one stays chosen while others come and go."""

    layer_chosen = Signal(object)
    """Sent when the user, or a change of the layers, chooses another layer."""

    def __init__(self, placeholder: str, parent: QWidget | None = None) -> None:
        super().__init__(parent)
        self._layers: list[Layer | None] = []
        self.setPlaceholderText(placeholder)
        self.setSizePolicy(QSizePolicy.Policy.Ignored, QSizePolicy.Policy.Fixed)
        self.setSizeAdjustPolicy(QComboBox.SizeAdjustPolicy.AdjustToMinimumContentsLengthWithIcon)
        self.currentIndexChanged.connect(lambda _: self.layer_chosen.emit(self.layer()))

    def layer(self) -> Layer | None:
        """Return the chosen layer."""
        index = self.currentIndex()
        return self._layers[index] if 0 <= index < len(self._layers) else None

    @property
    def chosen(self) -> bool:
        """Whether anything is chosen."""
        return bool(self.currentIndex() >= 0)

    def set_layers(self, layers: Sequence[Layer], other: str = "") -> None:
        """Offer these layers, after an entry that is no layer if ``other`` names one.

        Without a chosen one the first is chosen.
        """
        chosen = self.layer()
        with QSignalBlocker(self):  # one who has blocked them keeps them blocked
            self.clear()
            self._layers = [*([None] if other else []), *layers]
            self.addItems([*([other] if other else []), *(layer.name for layer in layers)])
        self.choose(chosen if chosen in self._layers else next(iter(self._layers), None))
        if self.layer() != chosen:
            self.layer_chosen.emit(self.layer())

    def choose(self, layer: Layer | None) -> None:
        """Choose a layer without telling anybody."""
        with QSignalBlocker(self):
            self.setCurrentIndex(self._layers.index(layer) if layer in self._layers else -1)
        enable(
            self,
            (not self._layers, f"{self.placeholderText()[:1].upper()}{self.placeholderText()[1:]}"),
        )
