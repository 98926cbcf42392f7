"""Prepared images that the ranks of one computer hold together: made in shares, kept once, mapped by all."""

from __future__ import annotations

import shutil
import tempfile
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from napari_cryosphere.errors import CryosphereError
from napari_cryosphere.imaging.prepared import PreparedImages
from napari_cryosphere.jobs.running.ranks import Ranks

__all__ = ["load_together"]


def load_together(images: PreparedImages, rows: NDArray[np.int64], ranks: Ranks) -> Tensor:
    """Return the prepared images of some rows, ``(k, box, box)``; each rank of a computer makes a share.

    They lie in a file in the computer's folder for temporary files. It loses its name as soon as
    all have mapped it, so that a rank that is killed leaves nothing behind.

    Raises
    ------
    CryosphereError
        If there is no room for the file.
    """
    if ranks.count == 1:
        return images.load(rows)
    size = 4 * len(rows) * images.grid.box**2
    path = Path(ranks.of_first(lambda: _new_file(size), here=True))
    shape = (len(rows), images.grid.box, images.grid.box)
    try:
        mapped = torch.from_file(str(path), shared=True, size=int(np.prod(shape))).view(shape)
        ranks.wait()
    finally:
        if ranks.first_here:
            path.unlink(missing_ok=True)
    mine = ranks.share_here(len(rows))
    images.load(rows[mine], mapped[mine])
    ranks.wait()
    return mapped


def _new_file(size: int) -> str:
    """Make a file of so many bytes and return its path."""
    folder = Path(tempfile.gettempdir())
    free = shutil.disk_usage(folder).free
    if size > free:
        raise CryosphereError(
            f"the prepared images need {size / 1e9:.2g} GB in {folder}, where {free / 1e9:.2g} GB are free; "
            "make room there, or name another folder in TMPDIR"
        )
    with tempfile.NamedTemporaryFile(prefix="napari_cryosphere_", delete=False) as file:
        file.truncate(size)
    return file.name
