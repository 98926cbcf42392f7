"""Where a viewer looks for the images of particles that have moved. Knows no Qt."""

from __future__ import annotations

import weakref
from pathlib import Path
from typing import TYPE_CHECKING

from psygnal import Signal

if TYPE_CHECKING:
    from napari.components import ViewerModel

__all__ = ["ImageFolder", "image_folder"]


class ImageFolder:
    """The folder that the dock names, and the files that could not be opened without it."""

    changed = Signal()

    def __init__(self) -> None:
        self.path: Path | None = None
        self.waiting: list[Path] = []

    def remember(self, file: Path) -> None:
        """Note a file whose images were not found."""
        if file not in self.waiting:
            self.waiting.append(file)
        self.changed.emit()

    def choose(self, path: Path | None) -> list[Path]:
        """Look in another folder from now on; returns the files that have waited for one."""
        self.path = path
        waiting, self.waiting = self.waiting, []
        self.changed.emit()
        return waiting


_folders: weakref.WeakKeyDictionary[ViewerModel, ImageFolder] = weakref.WeakKeyDictionary()


def image_folder(viewer: ViewerModel) -> ImageFolder:
    """Return the viewer's folder, made at the first call."""
    viewer = getattr(viewer, "__wrapped__", viewer)  # plugins get a proxy of the viewer
    if viewer not in _folders:
        _folders[viewer] = ImageFolder()
    return _folders[viewer]
