"""Pose distributions on disk: a zarr folder that is written batch by batch and read by row.

A folder holds distributions of one kind and symmetry. Wigner coefficients are half floats, the
entries that may differ from zero alone (1 kB per particle at degree 6); cells and weighted poses are
lists, one after another, with a table of where each particle's begin. Arrays are chunked, so that a
few rows are read without the rest. Nothing is pickled.
"""

from __future__ import annotations

import math
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from napari_cryosphere._files import not_written, refuse_overwrite, temporary_folder
from napari_cryosphere.errors import CryosphereError, FileFormatError
from napari_cryosphere.so3.distributions.distribution import CellDistribution, PoseDistribution
from napari_cryosphere.so3.distributions.harmonic import HarmonicDistribution
from napari_cryosphere.so3.distributions.kernel import KernelDistribution
from napari_cryosphere.so3.rotations import quaternion_from_rotation, rotation_from_quaternion
from napari_cryosphere.so3.wigner import band_mask

if TYPE_CHECKING:
    import zarr

__all__ = ["DistributionStore", "DistributionWriter", "save_distribution", "write_distributions"]

_FORMAT, _VERSION = "napari-cryosphere pose distributions", 1
_ROWS, _ENTRIES = 64, 16_384  # a chunk: 64 kB or more
_MOST_CHUNK_BYTES = 1 << 26  # unfolded; 64 particles of degree 32 take 6 MB
_LISTS: dict[str, dict[str, tuple[str, tuple[int, ...]]]] = {
    "cells": {"orders": ("int8", ()), "indices": ("int64", ()), "log_density": ("float32", ())},
    "poses": {"quaternions": ("float32", (4,)), "log_weights": ("float32", ())},
}


class DistributionWriter:
    """Appends batches to a folder that is being written; made by `write_distributions`."""

    def __init__(self, folder: Path) -> None:
        import zarr

        self._group = zarr.open_group(folder, mode="w", zarr_format=3)
        self._attributes: dict[str, Any] = {}

    def append(self, distribution: PoseDistribution) -> None:
        """Add the next particles.

        Raises `ValueError` if they are of another kind, degree, kernel or symmetry than those
        before.
        """
        attributes = {"format": _FORMAT, "version": _VERSION, **_describe(distribution)}
        if not self._attributes:
            self._attributes = attributes
            self._group.update_attributes(attributes)
            self._create(distribution)
        elif attributes != self._attributes:
            raise ValueError(f"a folder holds one kind: {self._attributes}, not {attributes}")
        if isinstance(distribution, HarmonicDistribution):
            self._extend("coefficients", _packed(distribution))
            return
        lists, counts = _lists(distribution)
        for name, values in lists.items():
            self._extend(name, values)
        last = int(self._array("ends")[-1]) if self._array("ends").shape[0] else 0
        self._extend("ends", last + np.cumsum(counts))

    def _create(self, distribution: PoseDistribution) -> None:
        """Make empty arrays for a kind of distribution."""
        if isinstance(distribution, HarmonicDistribution):
            width = 2 * int(_mask(distribution.l_max).sum())
            shape, chunk = (0, width), (_ROWS, width)
            self._group.create_array("coefficients", shape=shape, chunks=chunk, dtype="float16")
            return
        for name, (dtype, tail) in _LISTS[self._attributes["kind"]].items():
            self._group.create_array(name, shape=(0, *tail), chunks=(_ENTRIES, *tail), dtype=dtype)
        self._group.create_array("ends", shape=(0,), chunks=(_ENTRIES,), dtype="int64")

    def _array(self, name: str) -> Any:
        return self._group[name]

    def _extend(self, name: str, values: NDArray[Any]) -> None:
        array = self._array(name)
        start = array.shape[0]
        array.resize((start + len(values), *array.shape[1:]))
        array[start:] = values.astype(array.dtype)


@contextmanager
def write_distributions(path: Path, *, overwrite: bool = False) -> Iterator[DistributionWriter]:
    """Write distributions batch by batch; the folder appears when the block ends without an error.

    Raises `OutputExistsError` if ``path`` exists and ``overwrite`` is False; `CryosphereError` if
    the folder cannot be written to, or ``path`` exists and is no folder of distributions.
    """
    path = Path(path)
    refuse_overwrite(path, overwrite)
    if path.exists() and not (path / "zarr.json").is_file():
        raise CryosphereError(
            f"{path} is not a zarr folder and is not replaced; choose another output"
        )
    with temporary_folder(path.parent) as folder:
        try:
            yield DistributionWriter(folder / "new")
            if path.exists():
                os.replace(path, folder / "old")
            os.replace(folder / "new", path)
        except OSError as error:
            raise not_written(path, error) from error


def save_distribution(
    distribution: PoseDistribution, path: Path, *, overwrite: bool = False
) -> None:
    """Write one batch of distributions to a folder, see `write_distributions`."""
    with write_distributions(path, overwrite=overwrite) as writer:
        writer.append(distribution)


class DistributionStore:
    """Distributions in a folder, read when rows are asked for: ``store[3]``, ``store[100:200]``.

    Raises `FileFormatError` if the folder is not there or not one of ours.
    """

    def __init__(self, path: Path) -> None:
        import zarr
        from zarr.errors import BaseZarrError

        try:
            self._group: zarr.Group = zarr.open_group(path, mode="r")
        except (BaseZarrError, OSError, ValueError) as error:
            raise FileFormatError(f"{path} is no readable zarr folder; write it again") from error
        attributes: dict[str, Any] = dict(self._group.attrs)
        if attributes.get("format") != _FORMAT or attributes.get("version") != _VERSION:
            raise FileFormatError(
                f"{path} holds no pose distributions of version {_VERSION}; write it again"
            )
        self._attributes = attributes
        self.symmetry = str(attributes["symmetry"])
        self._refuse_wrong_arrays(path)

    def _refuse_wrong_arrays(self, path: Path) -> None:
        """Check that the arrays are there and that no chunk unfolds into more than ours do."""
        import zarr

        harmonic = self._attributes["kind"] == "harmonic"
        for name in ("coefficients",) if harmonic else ("ends", *_LISTS[self._attributes["kind"]]):
            array = self._group.get(name)
            if not isinstance(array, zarr.Array):
                raise FileFormatError(f"{path} holds no array {name!r}; write it again")
            size = math.prod(array.chunks) * array.dtype.itemsize
            if size > _MOST_CHUNK_BYTES:
                raise FileFormatError(
                    f"{path}, {name!r}: chunks of {size} bytes, more than the {_MOST_CHUNK_BYTES} that "
                    "any version writes; write it again"
                )

    def _array(self, name: str) -> Any:
        return self._group[name]

    @property
    def kind(self) -> str:
        """How they are stored: ``harmonic`` (coefficients), ``cells`` or ``poses``."""
        return str(self._attributes["kind"])

    def __len__(self) -> int:
        name = "coefficients" if self._attributes["kind"] == "harmonic" else "ends"
        return int(self._array(name).shape[0])

    def __getitem__(self, index: int | slice) -> PoseDistribution:
        """Read consecutive particles; an integer gives a batch of one."""
        rows = np.arange(len(self))[index].reshape(-1)
        if len(rows) == 0 or (np.diff(rows) != 1).any():
            raise IndexError("ask for one row or for consecutive rows within the store")
        first, stop = int(rows[0]), int(rows[-1]) + 1
        if self._attributes["kind"] == "harmonic":
            values = self._array("coefficients")[first:stop]
            return _unpacked(values, self._attributes["l_max"], self.symmetry)
        ends = self._array("ends")[max(first - 1, 0) : stop]
        ends = np.concatenate([[0], ends]) if first == 0 else ends
        lists = {
            name: self._array(name)[int(ends[0]) : int(ends[-1])]
            for name in _LISTS[self._attributes["kind"]]
        }
        return _from_lists(lists, np.diff(ends), self._attributes)


def _describe(distribution: PoseDistribution) -> dict[str, Any]:
    """Return what all batches of a folder have in common."""
    common: dict[str, Any] = {"symmetry": distribution.symmetry}
    if isinstance(distribution, HarmonicDistribution):
        return common | {"kind": "harmonic", "l_max": distribution.l_max}
    if isinstance(distribution, KernelDistribution):
        return common | {"kind": "poses", "width_degrees": distribution.width_degrees}
    return common | {"kind": "cells"}


def _mask(l_max: int) -> NDArray[np.bool_]:
    return band_mask(l_max).numpy()


def _packed(distribution: HarmonicDistribution) -> NDArray[np.float16]:
    """Return the entries that may differ from zero, real and imaginary parts in turn, ``(n, width)``."""
    values = distribution.coefficients.detach().cpu().numpy()[:, _mask(distribution.l_max)]
    pairs: NDArray[np.float16] = np.stack([values.real, values.imag], axis=-1).reshape(
        len(values), -1
    )
    return pairs.astype(np.float16)


def _unpacked(values: NDArray[np.float16], l_max: int, symmetry: str) -> HarmonicDistribution:
    import torch

    pairs = values.astype(np.float32).reshape(len(values), -1, 2)
    mask = _mask(l_max)
    coefficients = np.zeros((len(values), *mask.shape), dtype=np.complex64)
    coefficients[:, mask] = pairs[..., 0] + 1j * pairs[..., 1]
    return HarmonicDistribution(torch.from_numpy(coefficients), symmetry)


def _lists(distribution: PoseDistribution) -> tuple[dict[str, NDArray[Any]], NDArray[np.int64]]:
    """Return the entries of all particles one after another, without padding, and how many each has."""
    if isinstance(distribution, KernelDistribution):
        there = np.isfinite(distribution.log_weights)
        quaternions = quaternion_from_rotation(distribution.poses[there])
        return {
            "quaternions": quaternions,
            "log_weights": distribution.log_weights[there],
        }, there.sum(1)
    assert isinstance(distribution, CellDistribution)
    there = (distribution.indices >= 0) & np.isfinite(distribution.log_density)
    names = ("orders", "indices", "log_density")
    return {name: getattr(distribution, name)[there] for name in names}, there.sum(1)


def _from_lists(
    lists: dict[str, NDArray[Any]], counts: NDArray[np.int64], attributes: dict[str, Any]
) -> PoseDistribution:
    """Pad lists and make a distribution of them."""
    shape = len(counts), int(counts.max())
    there = np.arange(shape[1]) < counts[:, None]
    if attributes["kind"] == "poses":
        rotations = np.broadcast_to(np.eye(3), (*shape, 3, 3)).copy()
        weights = np.full(shape, -np.inf)
        rotations[there] = rotation_from_quaternion(lists["quaternions"])
        weights[there] = lists["log_weights"]
        return KernelDistribution(
            rotations, weights, attributes["width_degrees"], attributes["symmetry"]
        )
    orders, indices = np.zeros(shape, dtype=np.int8), np.full(shape, -1, dtype=np.int64)
    density = np.full(shape, -np.inf)
    orders[there], indices[there] = lists["orders"], lists["indices"]
    density[there] = lists["log_density"]
    return CellDistribution(orders, indices, density, attributes["symmetry"], check=False)
