"""Maps brought to another box, pixel size, resolution, contrast or place."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import scipy.fft
from numpy.typing import NDArray
from scipy.ndimage import center_of_mass, fourier_shift

from napari_cryosphere.errors import FileFormatError
from napari_cryosphere.imaging.fourier import even_box
from napari_cryosphere.imaging.map_mask import map_background, particle_mask
from napari_cryosphere.imaging.resample import border_mean, resampled_map
from napari_cryosphere.jobs.configs import ConvertConfig
from napari_cryosphere.jobs.events import Events, Note, Result
from napari_cryosphere.jobs.running.memory import MemoryLimit
from napari_cryosphere.jobs.running.references import open_mask
from napari_cryosphere.particles import DensityMap, ImageGrid, MrcStack
from napari_cryosphere.reconstruction.filters import low_passed

__all__ = ["convert_map"]

_VOLUMES = 3  # of single precision at once: before, after, and between two axes

_SAME_VOXEL_SIZE = 1e-3  # relative, along the three axes: headers are rounded


def convert_map(config: ConvertConfig) -> Events:
    """Read a map of any shape and write it as the config asks for.

    In this order: padded to an even cube with the mean of its border, inverted about its
    background, low-passed, recentred, resampled, masked. Raises `CryosphereError` if a file cannot
    be read, voxels are not cubes, or the mask does not fit the new grid.
    """
    density, padded = _even_cube(config.particles, config.map_pixel_size_angstrom)
    if padded:
        yield Note(f"{config.particles} has {padded} voxels; padded to a box of {density.box}")
    voxels, size = density.voxels, density.pixel_size_angstrom
    if voxels.min() == voxels.max():
        yield Note(f"{config.particles} is {voxels.flat[0]:g} everywhere", warning=True)
    if config.invert:
        voxels = np.float32(2 * map_background(voxels)[0]) - voxels
    if config.low_pass_angstrom is not None:
        voxels = low_passed(voxels, size, config.low_pass_angstrom)
    if config.recentre:
        voxels, moved = _recentred(voxels, size)
        shown = " ".join(f"{one * size:.2f}" for one in moved[::-1])
        yield Note(f"moved by {shown} A along x, y, z")
    wanted = config.pixel_size_angstrom or size
    box = config.box or even_box(density.box * size / wanted - 1e-6)
    MemoryLimit(None).refuse_beyond(_VOLUMES * 4.0 * box**3, f"a box of {box}", "ask for a smaller")
    made = resampled_map(DensityMap(voxels, size), box, wanted)
    if config.mask == "auto":
        made = DensityMap(made.voxels * particle_mask(made.voxels, wanted), wanted)
    elif isinstance(config.mask, Path):
        opened = open_mask(config.mask, ImageGrid(box, wanted), "the map written")
        yield from opened.notes
        made = DensityMap(made.voxels * opened.density.voxels, wanted)
    made.save(config.output, config.overwrite)
    yield Result({"map": config.output}, {"box": box, "pixel_size_angstrom": wanted})


def _even_cube(path: Path, pixel_size_angstrom: float | None) -> tuple[DensityMap, str]:
    """Read a map and pad it to an even cube about its centre, voxel n // 2 of each axis.

    Also returns its shape in words if it was none.
    """
    stack = MrcStack(path)
    sections, rows, columns = stack.shape
    if sections == 1 or (not stack.header.is_volume and len({sections, rows, columns}) > 1):
        raise FileFormatError(
            f"{path} is no map: its header tells of images (space group 0, or one section), "
            f"{sections} of {columns} x {rows}"
        )
    sizes = stack.header.voxel_size_angstrom
    if pixel_size_angstrom is None:
        written = " x ".join(f"{size:.4g}" for size in sizes)
        if min(sizes) <= 0:
            raise FileFormatError(
                f"{path} has no voxel size in its header; give it with --map-pixel-size"
            )
        if max(sizes) / min(sizes) - 1 > _SAME_VOXEL_SIZE:
            raise FileFormatError(
                f"{path} has voxels of {written} A; only cubes can be converted: resample it first, or give "
                "--map-pixel-size if the header is wrong"
            )
    voxels = stack.read()
    box = max(voxels.shape) + max(voxels.shape) % 2
    MemoryLimit(None).refuse_beyond(_VOLUMES * 4.0 * box**3, f"a box of {box}", "crop it first")
    size = pixel_size_angstrom or sizes[0]
    if voxels.shape == (box,) * 3:
        return DensityMap(voxels, size), ""
    cube = np.full((box,) * 3, border_mean(voxels), dtype=np.float32)
    cube[tuple(slice(box // 2 - n // 2, box // 2 - n // 2 + n) for n in voxels.shape)] = voxels
    return DensityMap(cube, size), " x ".join(str(n) for n in voxels.shape[::-1])


def _recentred(
    voxels: NDArray[np.float32], pixel_size_angstrom: float
) -> tuple[NDArray[np.float32], NDArray[np.float64]]:
    """Move what stands out of the background so that its centre of mass is voxel n // 2.

    Returns the map and the displacement in voxels along z, y and x.
    """
    level, _ = map_background(voxels)
    dense = np.clip(voxels - level, 0, None) * particle_mask(voxels, pixel_size_angstrom)
    moved = len(voxels) // 2 - np.array(center_of_mass(dense))
    transform = fourier_shift(scipy.fft.rfftn(voxels - level), moved, n=voxels.shape[2])
    back = scipy.fft.irfftn(transform, voxels.shape) + level
    return np.asarray(back, dtype=np.float32), moved
