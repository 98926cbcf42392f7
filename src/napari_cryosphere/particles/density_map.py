"""Density maps in MRC files."""

from __future__ import annotations

from dataclasses import dataclass
from os import PathLike
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from napari_cryosphere._ranges import RANGES
from napari_cryosphere.errors import CryosphereError, FileFormatError
from napari_cryosphere.particles.mrc import MrcStack
from napari_cryosphere.particles.mrc.writer import section_writer

__all__ = ["DensityMap"]

_SAME_VOXEL_SIZE = 1e-3  # relative, of the three axes: headers are rounded


@dataclass(frozen=True, eq=False)
class DensityMap:
    """A cubic density map with an even box; its centre is voxel ``box // 2``.

    ``voxels``: ``(box, box, box)`` float32, axes ``[z, y, x]``. ``pixel_size_angstrom``: edge of a
    voxel. ``symmetry``: point group of the map, in RELION's notation. Raises `CryosphereError` if
    the map is not cubic, its box is odd, a voxel is not finite, or the pixel size is not positive.
    """

    voxels: NDArray[np.float32]
    pixel_size_angstrom: float
    symmetry: str = "C1"

    def __post_init__(self) -> None:
        """Check the voxels and make them a float32 array."""
        _check_voxels(
            np.asarray(self.voxels), float(self.pixel_size_angstrom), "the map", CryosphereError
        )
        object.__setattr__(self, "voxels", np.ascontiguousarray(self.voxels, dtype=np.float32))
        object.__setattr__(self, "pixel_size_angstrom", float(self.pixel_size_angstrom))

    @property
    def box(self) -> int:
        """Number of voxels along an edge."""
        return int(self.voxels.shape[0])

    def _repr_html_(self) -> str:
        """Return a table and the three central slices, for notebooks."""
        from napari_cryosphere._html import grey, page

        half = self.box // 2
        entries = {
            "box": self.box,
            "pixel_size_angstrom": self.pixel_size_angstrom,
            "symmetry": self.symmetry,
            "lowest": float(self.voxels.min()),
            "highest": float(self.voxels.max()),
        }
        slices = [
            grey(self.voxels.take(half, axis), 128, f"central slice across {name}")
            for axis, name in enumerate("zyx")
        ]
        return page("Density map", entries, slices)

    @classmethod
    def read(
        cls,
        path: str | PathLike[str],
        symmetry: str = "C1",
        *,
        pixel_size_angstrom: float | None = None,
    ) -> DensityMap:
        """Read a map from an MRC file.

        The axis order of the header (mapc, mapr, maps) is honoured; its ORIGIN and NSTART are
        ignored, so that the map is where its voxels are.

        ``path``: an MRC file of mode 0, 1, 2, 6 or 12. ``symmetry``: point group to note with the
        map. ``pixel_size_angstrom``: edge of a voxel, where the header is wrong; None takes the
        header's. Raises `FileFormatError` if the file is no MRC file, or the map in it is not
        cubic, has an odd box, voxels that are not cubes, no pixel size, or values that are not
        finite.
        """
        stack = MrcStack(path)
        _check_shape(stack.shape, str(path), FileFormatError)
        if pixel_size_angstrom is not None:
            return cls(stack.read(), pixel_size_angstrom, symmetry)
        sizes = stack.header.voxel_size_angstrom
        if min(sizes) <= 0:
            raise FileFormatError(
                f"{path} has no voxel size in its header; give --map-pixel-size, or set it with "
                "relion_image_handler --angpix"
            )
        legal = RANGES["rlnImagePixelSize"]
        if not legal.lowest <= sizes[0] <= legal.highest:
            raise FileFormatError(
                f"{path} has voxels of {sizes[0]:g} A; {legal.refusal(sizes[0])}; give --map-pixel-size"
            )
        if max(sizes) / min(sizes) - 1 > _SAME_VOXEL_SIZE:
            written = " x ".join(f"{size:.4g}" for size in sizes)
            raise FileFormatError(
                f"{path} has voxels of {written} A; resample the map to cubic voxels"
            )
        return cls(stack.read(), sizes[0], symmetry)

    def save(self, path: str | PathLike[str], overwrite: bool = False) -> None:
        """Write the map as an MRC file (mode 2), which appears whole or not at all.

        Raises `OutputExistsError` if the file exists and ``overwrite`` is False.
        """
        path = Path(path)
        with section_writer(
            path, self.pixel_size_angstrom, overwrite=overwrite, volume=True
        ) as append:
            append(self.voxels)


def _check_shape(shape: tuple[int, ...], where: str, kind: type[CryosphereError]) -> None:
    """Refuse what is not cubic or has an odd box."""
    written = " x ".join(str(number) for number in shape[::-1])
    if len(shape) != 3 or len(set(shape)) != 1:
        box = max(shape, default=2) + max(shape, default=2) % 2
        raise kind(
            f"{where} has {written} voxels; a map must be cubic: convert IN OUT --box {box} pads or crops it"
        )
    if shape[0] % 2:
        raise kind(
            f"{where} has an odd box of {shape[0]}; pad it: convert IN OUT --box {shape[0] + 1}"
        )


def _check_voxels(
    voxels: NDArray[np.float32], pixel_size_angstrom: float, where: str, kind: type[CryosphereError]
) -> None:
    """Refuse maps that the package cannot use."""
    _check_shape(voxels.shape, where, kind)
    if not (np.isfinite(pixel_size_angstrom) and pixel_size_angstrom > 0):
        raise kind(f"{where} has a pixel size of {pixel_size_angstrom} A; it must be positive")
    if not np.isfinite(voxels).all():
        raise kind(f"{where} has {int((~np.isfinite(voxels)).sum())} voxels that are not finite")
