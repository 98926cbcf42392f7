"""Flags of the particle under the slider, as buttons and keys of the canvas."""

from __future__ import annotations

from functools import partial

from qtpy.QtCore import Qt
from qtpy.QtWidgets import QButtonGroup, QHBoxLayout, QSizePolicy, QToolButton, QWidget

from napari_cryosphere.widgets.control.particle_keys import ParticleKeys
from napari_cryosphere.widgets.docks.kit.flags import FLAG_KEYS, flag_icon
from napari_cryosphere.widgets.docks.kit.style import enable
from napari_cryosphere.widgets.docks.kit.workbench import Seat
from napari_cryosphere.widgets.state.particle_choices import Flag

__all__ = ["FlagBar"]


class FlagBar(QWidget):
    """Keep, reject, review or clear the particle that is shown; its flag's button is pressed."""

    def __init__(self, seat: Seat, parent: QWidget | None = None) -> None:
        super().__init__(parent)
        self._seat, self._controller = seat, seat.controller
        self.buttons: dict[Flag, QToolButton] = {}
        self._group = QButtonGroup(self)
        self._group.setExclusive(False)
        row = QHBoxLayout(self)
        row.setContentsMargins(0, 0, 0, 0)
        row.setSpacing(4)
        for flag, (text, key) in FLAG_KEYS.items():
            button = self.buttons[flag] = QToolButton()
            button.setText(text)
            button.setIcon(flag_icon(flag))
            button.setObjectName("mode")
            button.setCheckable(flag is not Flag.NONE)
            button.setToolTip(f"{text} the particle that is shown ({key})")
            if not button.icon().isNull():
                button.setToolButtonStyle(Qt.ToolButtonStyle.ToolButtonTextBesideIcon)
            button.setSizePolicy(QSizePolicy.Policy.Ignored, QSizePolicy.Policy.Fixed)
            button.clicked.connect(lambda _=False, flag=flag: self._flag(flag))
            row.addWidget(button, 1)
        keys = {key: partial(self._flag, flag) for flag, (_, key) in FLAG_KEYS.items()}
        self._keys: ParticleKeys | None = ParticleKeys(self._controller, keys)
        self._followed: object = None
        for signal in (
            self._controller.session_changed,
            self._controller.particle_changed,
            self._controller.maps.mode_changed,
        ):
            seat.connect(signal, self._show)
        self._show()

    def leave(self) -> None:
        """Give the keys back; the second time nothing happens."""
        keys, self._keys = self._keys, None
        if keys is not None:
            keys.leave()

    def _flag(self, flag: Flag) -> None:
        shown = self._controller.shown
        if shown is not None:
            shown[0].choices.flag([shown[1]], flag)
        self._show()

    def _show(self, *_: object) -> None:
        session, shown = self._controller.session, self._controller.shown
        if session is not None and session is not self._followed:
            self._followed = session
            self._seat.connect(session.choices.flags_changed, self._show)
        has = Flag.NONE if shown is None else Flag(int(shown[0].choices.flags[shown[1]]))
        for flag, button in self.buttons.items():
            button.setChecked(flag is not Flag.NONE and flag == has)
            enable(
                button,
                (shown is None, "No particle is shown: open particles, or press Particles"),
                (flag is Flag.NONE and has is Flag.NONE, "This particle has no flag"),
            )
