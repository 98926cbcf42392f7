"""What the plugin keeps of a viewer, with or without docks: one object for each."""

from __future__ import annotations

import time
import weakref
from pathlib import Path
from typing import TYPE_CHECKING, Any

from psygnal import Signal

from napari_cryosphere.widgets.state.layer_data import map_of

if TYPE_CHECKING:
    from napari.components import ViewerModel

__all__ = ["Drop", "ImageFolder", "Inbox", "ViewerContext", "context_of", "unwrapped"]

_TOGETHER_SECONDS = 2.0
"""From the end of one file to the beginning of the next, layers and docks made in between."""


def unwrapped(viewer: Any) -> Any:
    """Return the viewer itself: napari gives plugins a proxy, and proxies of all that it returns.

    Qt refuses proxied widgets, and two proxies of one layer are different objects.
    """
    return getattr(viewer, "__wrapped__", viewer)


class Inbox:
    """Models, run folders, distributions and session files until a dock takes them, in order."""

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


class ImageFolder:
    """The folder where images that have moved are looked for, and the files that wait for one."""

    changed = Signal()

    def __init__(self) -> None:
        self.path: Path | None = None
        self.waiting: list[Path] = []
        self._drop: Drop | None = None

    def remember(self, file: Path, drop: Drop) -> None:
        """Note a file whose images were not found, and with which others it came."""
        self._drop = drop
        if file not in self.waiting:
            self.waiting.append(file)
        self.changed.emit()

    def take_over(self, drop: Drop) -> None:
        """Take note that particles came: files that have waited since an earlier drop are given up."""
        if self.waiting and drop is not self._drop:
            self.waiting = []
            self.changed.emit()

    def choose(self, path: Path | None) -> list[Path]:
        """Look in another folder from now on; returns the files that have waited for one."""
        self.path = path
        waiting, self.waiting = self.waiting, []
        self.changed.emit()
        return waiting


class Drop:
    """Files that came together: napari reads each file of a drop by itself, one after the other.

    Maps that came with particles stay hidden, since they would cover them.

    ``viewer``: where they were dropped.
    """

    def __init__(self, viewer: ViewerModel) -> None:
        self._viewer = weakref.ref(viewer)
        self._last = time.monotonic()
        self.has_particles = False

    @property
    def over(self) -> bool:
        """Whether a file that comes now came by itself."""
        return time.monotonic() - self._last > _TOGETHER_SECONDS

    def note_particles(self) -> None:
        """Take particles that came; maps that cover them in 2D are hidden."""
        self._last = time.monotonic()
        self.has_particles = True
        viewer = self._viewer()
        if viewer is None or viewer.dims.ndisplay == 3:
            return
        for layer in viewer.layers:
            if map_of(layer) is not None:
                layer.visible = False

    def note_file(self) -> None:
        """Take a map that came, or particles whose images were not found."""
        self._last = time.monotonic()


class ViewerContext:
    """What the plugin keeps of one viewer; use `context_of`.

    ``image_folder``, ``inbox``: where images are looked for, and what waits for a dock.
    ``flat_guard``: keeps particles out of 3D, see `napari_cryosphere.widgets.control.flat_guard`.
    ``workbench``: refers to the controller of the open docks. They alone hold it: a viewer without
    docks has none, and keeps nothing alive.
    """

    def __init__(self, viewer: ViewerModel) -> None:
        self.image_folder = ImageFolder()
        self.inbox = Inbox()
        self.flat_guard: Any = None
        self.workbench: weakref.ref[Any] | None = None
        self._viewer = weakref.ref(viewer)
        self._drop: Drop | None = None

    @property
    def drop(self) -> Drop:
        """The drop that the viewer is reading; a new one some time after the last file."""
        if self._drop is None or self._drop.over:
            viewer = self._viewer()
            assert viewer is not None
            self._drop = Drop(viewer)
        return self._drop


_contexts: weakref.WeakKeyDictionary[ViewerModel, ViewerContext] = weakref.WeakKeyDictionary()


def context_of(viewer: ViewerModel) -> ViewerContext:
    """Return the viewer's context, made at the first call."""
    viewer = unwrapped(viewer)
    if viewer not in _contexts:
        _contexts[viewer] = ViewerContext(viewer)
    return _contexts[viewer]
