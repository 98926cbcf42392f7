"""Arrays on the pixels of stacks: memory maps of plain files, decompressed copies of compressed ones.

Both are limited over all stacks: at most 64 files are mapped at a time, so that a data set of
30,000 stacks opens where 256 files may be open, and decompressed stacks take at most 1 GiB. The
oldest are let go first, and those of stacks that nobody holds; an array that is still in use stays
valid. Pages of mapped files count as the process's memory once they were read, so they are returned
(to the system's cache) every 256 MiB.
"""

from __future__ import annotations

import mmap
import os
import threading
import weakref
from collections import OrderedDict
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from napari_cryosphere.errors import FileFormatError
from napari_cryosphere.particles._opening import damaged, reading, unpacked
from napari_cryosphere.particles.mrc.header import MOST_UNPACKED_BYTES, MrcHeader

__all__ = ["PixelView", "ViewKey", "count_copied", "open_view"]

_MOST_MAPS = 64  # a quarter of the files that macOS lets a process open; chosen, not tuned
_MOST_MAPPED_BYTES = 256 << 20  # copied, before pages are returned; chosen, not tuned


class PixelView:
    """The pixels of one file, ``(sections, rows, columns)`` along z, y, x, in the type they are stored in."""

    __slots__ = ("_map", "_needed", "array", "nbytes", "path")

    def __init__(self, path: Path, header: MrcHeader, content: mmap.mmap | bytes) -> None:
        stored = header.stored_shape
        number = stored[0] * stored[1] * stored[2]
        self._map = content if isinstance(content, mmap.mmap) else None
        offset = 0 if self._map is None else header.offset
        array = np.frombuffer(content, dtype=header.dtype, count=number, offset=offset).reshape(
            stored
        )
        self.path = path
        self.array: NDArray[Any] = array.transpose(header.order)
        self.nbytes = array.nbytes if self._map is None else 0
        self._needed = header.offset + array.nbytes

    def return_pages(self) -> None:
        """Let the pages of a mapped file count as the system's again; they are read again where needed."""
        if self._map is not None and hasattr(mmap, "MADV_DONTNEED"):
            self._map.madvise(mmap.MADV_DONTNEED)

    def refuse_if_shorter(self) -> None:
        """Check that the file has not shrunk: touching a page that is gone ends the process.

        Raises `FileFormatError` if the file is shorter than when it was opened.
        """
        if self._map is not None and self._map.size() < self._needed:
            raise FileFormatError(
                f"{self.path} has become shorter since it was opened; copy it again"
            )


class ViewKey:
    """What a view is kept under; when it is gone, so is the view."""

    __slots__ = ("__weakref__",)


class _Pool:
    """The views that are kept, oldest first."""

    def __init__(self) -> None:
        self.reset()
        if hasattr(os, "register_at_fork"):
            os.register_at_fork(after_in_child=self.reset)

    def reset(self) -> None:
        """Forget all views; a child process starts with a lock that nobody holds."""
        self.lock = threading.Lock()
        self.views: OrderedDict[weakref.ref[ViewKey], PixelView] = OrderedDict()
        self.copied = 0

    def count(self, nbytes: int) -> None:
        """Count pixels that were copied out of views, and return pages from time to time."""
        self.copied += nbytes
        if self.copied > _MOST_MAPPED_BYTES:
            self.copied = 0
            for view in list(self.views.values()):
                view.return_pages()

    def get(self, key: ViewKey) -> PixelView | None:
        """Return the view kept under ``key``."""
        return self.views.get(weakref.ref(key))

    def forget(self, key: weakref.ref[ViewKey]) -> None:
        """Let go of the view of a key that is gone; called at any time, so without the lock."""
        self.views.pop(key, None)

    def add(self, key: ViewKey, view: PixelView) -> None:
        """Keep a view, and let go of the oldest of its kind where there are too many."""
        with self.lock:
            self.views[weakref.ref(key, self.forget)] = view
            unpacked = view.nbytes > 0
            alike = [
                (name, kept.nbytes)
                for name, kept in list(self.views.items())
                if (kept.nbytes > 0) == unpacked
            ]
            total = sum(nbytes for _, nbytes in alike)
            while len(alike) > 1 and (
                total > MOST_UNPACKED_BYTES if unpacked else len(alike) > _MOST_MAPS
            ):
                name, nbytes = alike.pop(0)
                self.forget(name)
                total -= nbytes


_POOL = _Pool()


def open_view(key: ViewKey, path: Path, header: MrcHeader) -> PixelView:
    """Return the pixels of a file whose header has been read; kept under ``key`` for the next time.

    Raises `FileFormatError` if the file cannot be read, has become shorter, or is a compressed file
    that is damaged.
    """
    view = _POOL.get(key)
    if view is None:
        with reading(path):
            content = _unpacked(path, header) if header.compression else _mapped(path, header)
        view = PixelView(path, header, content)
        _POOL.add(key, view)
    view.refuse_if_shorter()
    return view


def count_copied(pixels: NDArray[Any]) -> None:
    """Count pixels of any shape, in the type they are stored in, as copied out of a view."""
    _POOL.count(pixels.nbytes)


def _mapped(path: Path, header: MrcHeader) -> mmap.mmap:
    with path.open("rb", buffering=0) as stream:
        if os.fstat(stream.fileno()).st_size < header.file_bytes:
            raise FileFormatError(f"{path} has become shorter since it was opened; copy it again")
        return mmap.mmap(stream.fileno(), 0, access=mmap.ACCESS_READ)


def _unpacked(path: Path, header: MrcHeader) -> bytes:
    """Return the decompressed pixels."""
    expected = int(np.prod(header.stored_shape, dtype=object)) * header.dtype.itemsize
    with unpacked(path, header.compression) as stream:
        stream.seek(header.offset)
        content = stream.read(expected)
    if len(content) < expected:
        what = f"{expected} bytes of pixels promised, {len(content)} found"
        raise damaged(path, header.compression, what)
    return content
