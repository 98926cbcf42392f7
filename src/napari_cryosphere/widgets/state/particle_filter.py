"""Which particles are shown, and in which order."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray
from psygnal import Signal

from napari_cryosphere.widgets.state.particle_choices import Flag, ParticleChoices
from napari_cryosphere.widgets.state.quantities import (
    Category,
    Quantity,
    categories_of,
    quantities_of,
)

if TYPE_CHECKING:
    from napari_cryosphere.particles import ParticleStack
    from napari_cryosphere.widgets.state.predictions import PredictionStore

__all__ = ["FILE_ORDER", "ParticleFilter"]

FILE_ORDER = "file order"


class ParticleFilter:
    """The particles of a data set that pass some filters, sorted by a quantity.

    Filters are ranges of quantities, labels of categories, flags and particles that were picked; a
    particle is shown if it passes all.

    ``stack``, ``store``: the particles and what is predicted of them. ``choices``: their flags.
    """

    changed = Signal()
    """Other particles are shown, or in another order, or other quantities are known of them."""

    def __init__(
        self, stack: ParticleStack, store: PredictionStore, choices: ParticleChoices
    ) -> None:
        self._stack, self._store, self._choices = stack, store, choices
        self.sort_name, self.descending = FILE_ORDER, False
        self.ranges: dict[str, tuple[float, float]] = {}
        self.labels: dict[str, str] = {}
        self.flag: Flag | None = None
        self.only: NDArray[np.bool_] | None = None
        """``(n,)``: the particles that a person picked to be shown; None for no such filter."""
        self.quantities: dict[str, Quantity] = quantities_of(stack, store)
        self.categories: dict[str, Category] = categories_of(stack)
        self._rows: NDArray[np.int64] | None = None
        choices.flags_changed.connect(self._on_flags)

    @property
    def rows(self) -> NDArray[np.int64]:
        """The particles that are shown, in their order."""
        if self._rows is None:
            kept = np.flatnonzero(self.passing())
            quantity = self.quantities.get(self.sort_name)
            if quantity is None or (self.sort_name == FILE_ORDER and not self.descending):
                self._rows = kept
            else:
                values = quantity.values[kept]  # NaN sorts to the end in both directions
                self._rows = kept[np.argsort(-values if self.descending else values, kind="stable")]
        return self._rows

    @property
    def active(self) -> bool:
        """Whether anything is filtered."""
        return bool(self.ranges or self.labels or self.flag is not None or self.only is not None)

    def passing(self, without: str = "") -> NDArray[np.bool_]:
        """Return which particles pass all filters, ``(n,)``, or all but the range of one quantity."""
        kept = np.ones(len(self._stack), dtype=bool)
        for name, (low, high) in self.ranges.items():
            if name in self.quantities and name != without:
                values = self.quantities[name].values
                kept &= (values >= low) & (values <= high)
        for name, label in self.labels.items():
            category = self.categories[name]
            kept &= category.codes == category.labels.index(label)
        if self.flag is not None:
            kept &= self._choices.flags == self.flag
        if self.only is not None:
            kept &= self.only
        return kept

    def sort_by(self, name: str, descending: bool) -> None:
        """Sort by a quantity; what is not known comes last."""
        self.sort_name, self.descending = name, descending
        self._renew()

    def set_range(self, name: str, limits: tuple[float, float] | None) -> None:
        """Show only particles within limits of a quantity; None takes the limits away."""
        if self.ranges.get(name) == limits:
            return
        if limits is None:
            del self.ranges[name]
        else:
            self.ranges[name] = limits
        self._renew()

    def set_label(self, category: str, label: str | None) -> None:
        """Show only particles with a label; None shows all. Raises `ValueError` if there is no such label."""
        if label is None:
            self.labels.pop(category, None)
        else:
            self.categories[category].labels.index(label)
            self.labels[category] = label
        self._renew()

    def set_flag(self, flag: Flag | None) -> None:
        """Show only particles with a flag; None shows all."""
        self.flag = flag
        self._renew()

    def show_only(self, picked: NDArray[np.bool_] | None) -> None:
        """Show only these particles, ``(n,)``; None shows all that pass the other filters."""
        self.only = None if picked is None else picked.copy()
        self._renew()

    def clear(self) -> None:
        """Show all particles."""
        self.ranges, self.labels, self.flag, self.only = {}, {}, None, None
        self._renew()

    def refresh(self, rows: slice | None = None) -> None:
        """Take note that more is known of particles."""
        self.quantities = quantities_of(self._stack, self._store)
        self.ranges = {
            name: limits for name, limits in self.ranges.items() if name in self.quantities
        }
        if self.sort_name not in self.quantities:
            self.sort_name, self.descending = FILE_ORDER, False
        self._renew()

    def _on_flags(self) -> None:
        if self.flag is not None:
            self._renew()

    def _renew(self) -> None:
        self._rows = None
        self.changed.emit()
