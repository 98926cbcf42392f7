"""Prepared images shared by the ranks of one computer: each makes a part, all map one file."""

from __future__ import annotations

import os
import tempfile
from contextlib import ExitStack
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from napari_cryosphere._files import not_written, refuse_beyond_room, temporary_folder
from napari_cryosphere.imaging.prepared import PreparedImages
from napari_cryosphere.jobs.running.ranks import Ranks

__all__ = ["load_together"]


def load_together(images: PreparedImages, rows: NDArray[np.int64], ranks: Ranks) -> Tensor:
    """Return the prepared images of some rows, ``(k, box, box)``; each rank of a computer makes a share.

    They are kept in a file in the computer's folder for temporary files. It loses its name as soon
    as all have mapped it, so that a rank that is killed later leaves nothing behind. Raises
    `CryosphereError` if there is no room for the file.
    """
    if ranks.count == 1:
        return images.load(rows)
    size = 4 * len(rows) * images.grid.box**2
    shape = (len(rows), images.grid.box, images.grid.box)
    with ExitStack() as kept:
        path = ranks.of_first(lambda: _new_file(size, kept), here=True)
        mapped = torch.from_file(path, shared=True, size=int(np.prod(shape))).view(shape)
        ranks.wait()
    mine = ranks.share_here(len(rows))
    images.load(rows[mine], mapped[mine])
    ranks.wait()
    return mapped


def _new_file(size: int, kept: ExitStack) -> str:
    """Make a file of ``size`` bytes in a folder that goes when ``kept`` is closed; return its path."""
    folder = Path(tempfile.gettempdir())
    refuse_beyond_room(folder, size, "the prepared images (TMPDIR names their folder)")
    path = kept.enter_context(temporary_folder(folder)) / "prepared"
    with path.open("wb") as file:
        try:
            if hasattr(os, "posix_fallocate"):  # a full disk is an error here, later a SIGBUS
                os.posix_fallocate(file.fileno(), 0, size)
            else:
                file.truncate(size)
        except OSError as error:
            raise not_written(path, error) from error
    return str(path)
