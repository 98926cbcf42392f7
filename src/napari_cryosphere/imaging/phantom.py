"""A protein-like map made from code alone: helices and strands packed into domains, without symmetry."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from scipy.ndimage import gaussian_filter
from scipy.spatial.transform import Rotation

from napari_cryosphere.particles.density_map import DensityMap

__all__ = ["protein_phantom"]

# The geometry of textbooks: rise, radius and turn per residue of an alpha helix; rise and pleat of
# a strand; distance of packed helices and sheets, and of the strands of a sheet.
_HELIX_RISE_ANGSTROM, _HELIX_RADIUS_ANGSTROM = 1.5, 2.3
_HELIX_TURN_RADIANS = np.radians(100.0)
_STRAND_RISE_ANGSTROM, _STRAND_PLEAT_ANGSTROM = 3.3, 0.9
_HELIX_SPACING_ANGSTROM, _STRAND_SPACING_ANGSTROM = 10.0, 4.8

# Domains: kind, number of helices or strands, residues in each, centre in angstrom. An uneven set
# of arms around a core, so that no two views look alike.
_DOMAINS: tuple[tuple[str, int, int, tuple[float, float, float]], ...] = (
    ("helices", 10, 26, (0.0, 0.0, 0.0)),
    ("helices", 7, 20, (29.0, 7.0, -5.0)),
    ("strands", 10, 9, (-6.0, 30.0, 8.0)),
    ("helices", 6, 26, (-17.0, -19.0, 22.0)),
    ("strands", 12, 8, (4.0, -8.0, -31.0)),
    ("helices", 4, 16, (48.0, 18.0, 16.0)),
    ("strands", 8, 9, (-36.0, 14.0, -11.0)),
)


def protein_phantom(box: int = 64, pixel_size_angstrom: float = 3.0, seed: int = 7) -> DensityMap:
    """Build a map that looks like a protein of some 100 kDa at about twice its pixel size.

    Residues are placed along ideal alpha helices (1.5 A rise, 100 degrees a residue) and beta
    strands (3.3 A rise), these are packed side by side into seven domains, and each residue becomes
    a Gaussian.

    ``box``: even box in voxels; the molecule is about 150 A long. ``pixel_size_angstrom``: voxel
    size in angstrom. ``seed``: chooses the directions of the domains; the same seed gives the same
    map. Returns a C1 map with its centre of mass at voxel box // 2 and a maximum of 1.
    """
    rng = np.random.default_rng(seed)
    residues = np.concatenate([_domain(*domain, rng) for domain in _DOMAINS])
    residues -= residues.mean(axis=0)
    density = _splat(residues / pixel_size_angstrom + box // 2, box)
    density = gaussian_filter(density, 2.6 / pixel_size_angstrom, mode="constant")
    return DensityMap((density / density.max()).astype(np.float32), pixel_size_angstrom)


def _domain(
    kind: str,
    number: int,
    length: int,
    centre: tuple[float, float, float],
    rng: np.random.Generator,
) -> NDArray[np.float64]:
    """Return residue positions, ``(n, 3)`` x, y, z in angstrom: elements on a lattice, turned at random."""
    elements = []
    for index in range(number):
        residues = length + int(rng.integers(-length // 5, length // 5 + 1))
        element = _helix(residues) if kind == "helices" else _strand(residues)
        if index % 2:
            element[:, 2] *= -1
        tilt = Rotation.from_euler("XY", rng.normal(scale=12.0, size=2), degrees=True)
        elements.append(tilt.apply(element) + _lattice_site(kind, index, number))
    positions = np.concatenate(elements)
    turned = Rotation.random(random_state=rng).apply(positions - positions.mean(axis=0))
    return np.asarray(turned + np.array(centre))


def _helix(residues: int) -> NDArray[np.float64]:
    step = np.arange(residues)
    along = (step - (residues - 1) / 2) * _HELIX_RISE_ANGSTROM
    return np.stack(
        [
            _HELIX_RADIUS_ANGSTROM * np.cos(_HELIX_TURN_RADIANS * step),
            _HELIX_RADIUS_ANGSTROM * np.sin(_HELIX_TURN_RADIANS * step),
            along,
        ],
        axis=1,
    )


def _strand(residues: int) -> NDArray[np.float64]:
    step = np.arange(residues)
    along = (step - (residues - 1) / 2) * _STRAND_RISE_ANGSTROM
    return np.stack([_STRAND_PLEAT_ANGSTROM * (-1.0) ** step, np.zeros(residues), along], axis=1)


def _lattice_site(kind: str, index: int, number: int) -> NDArray[np.float64]:
    """Return the place of an element: helices on a hexagonal spiral, strands in two facing sheets."""
    if kind == "helices":
        ring = 0 if index == 0 else 1 if index <= 6 else 2
        angle = np.pi / 3 * (index - 1) + (np.pi / 6 if ring == 2 else 0)
        return _HELIX_SPACING_ANGSTROM * ring * np.array([np.cos(angle), np.sin(angle), 0.0])
    row, sheet = divmod(index, 2)
    return np.array(
        [
            _HELIX_SPACING_ANGSTROM * (sheet - 0.5),
            _STRAND_SPACING_ANGSTROM * (row - (number // 2 - 1) / 2),
            0.0,
        ]
    )


def _splat(positions: NDArray[np.float64], box: int) -> NDArray[np.float64]:
    """Spread unit masses at ``(n, 3)`` x, y, z voxel positions over their eight neighbours; z, y, x array."""
    density = np.zeros((box, box, box))
    base = np.floor(positions).astype(int)
    part = positions - base
    for corner in np.ndindex(2, 2, 2):
        weight = np.prod(np.where(corner, part, 1 - part), axis=1)
        x, y, z = (base + corner).T
        np.add.at(density, (z, y, x), weight)
    return density
