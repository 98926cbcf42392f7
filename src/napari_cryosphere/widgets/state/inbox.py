"""Things that were dropped on a viewer and are no layers, until a dock takes them. Knows no Qt."""

from __future__ import annotations

import weakref
from pathlib import Path
from typing import TYPE_CHECKING

from psygnal import Signal

if TYPE_CHECKING:
    from napari.components import ViewerModel

__all__ = ["Inbox", "inbox"]


class Inbox:
    """Models, run folders, distributions and session files, in the order in which they came."""

    arrived = Signal()

    def __init__(self) -> None:
        self._waiting: list[Path] = []

    def put(self, path: Path) -> None:
        """Leave something for the dock."""
        self._waiting.append(path)
        self.arrived.emit()

    def take(self) -> list[Path]:
        """Return what has come since the last call."""
        waiting, self._waiting = self._waiting, []
        return waiting

    def __len__(self) -> int:
        return len(self._waiting)


_inboxes: weakref.WeakKeyDictionary[ViewerModel, Inbox] = weakref.WeakKeyDictionary()


def inbox(viewer: ViewerModel) -> Inbox:
    """Return the viewer's inbox, made at the first call."""
    viewer = getattr(viewer, "__wrapped__", viewer)  # plugins get a proxy of the viewer
    if viewer not in _inboxes:
        _inboxes[viewer] = Inbox()
    return _inboxes[viewer]
