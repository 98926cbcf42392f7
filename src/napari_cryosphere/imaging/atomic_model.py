"""A density map from the coordinates of a PDB or mmCIF model, as an electron sees it.

Each atom is the sum of five Gaussians of Peng, Ren, Dudarev & Whelan (1996), widened by its
B-factor and weighted by its occupancy; gemmi reads the model, holds the table and adds up the
atoms. The map is the electrostatic potential of neutral, independent atoms in volts: the sum of the
scattering factors' transforms (in 1/A^2) times ``h^2 / (2 pi m e)`` = 47.88 V A^2. There is no
solvent.
"""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from napari_cryosphere.errors import CryosphereError, FileFormatError
from napari_cryosphere.particles import DensityMap

if TYPE_CHECKING:
    import gemmi

__all__ = ["VOLTS_A2", "AtomicModel", "is_atomic_model"]

# Planck's constant, the electron's mass and charge in SI units (CODATA 2022)
_PLANCK, _MASS, _CHARGE = 6.62607015e-34, 9.1093837139e-31, 1.602176634e-19
VOLTS_A2 = 1e20 * _PLANCK**2 / (2 * np.pi * _MASS * _CHARGE)
_SUFFIXES = (".pdb", ".ent", ".cif", ".mmcif")
_FINER = 2  # the grid on which atoms are added up, voxels per voxel of the map
# Of a Fourier coefficient at the highest kept frequency, folded back by the fine grid.
_ALIASING = 1e-4
_CUTOFF_PER_SQUARE_ANGSTROM = 1e-7  # of an atom's density, in 1/A^2: where its Gaussians end
_EDGE = 0.9  # of the highest frequency: where the soft edge begins
_ROOM = 1.25  # of the default box, relative to the model's diameter


def is_atomic_model(path: Path) -> bool:
    """Whether a file's name is that of a model: .pdb, .ent, .cif or .mmcif, also with .gz."""
    return path.name.lower().removesuffix(".gz").endswith(_SUFFIXES)


@dataclass(frozen=True, eq=False)
class AtomicModel:
    """Atoms that are ready to be made a density; made by :meth:`read`.

    - ``path``: the file.
    - ``model``: gemmi's model: chains, residues, atoms.
    - ``centre_angstrom``: ``(3,)`` centre of mass in the file's coordinates.
    - ``radius_angstrom``: distance of the outermost atom from it.
    - ``atoms``: number of atoms.
    """

    path: Path
    model: gemmi.Model
    centre_angstrom: NDArray[np.float64]
    radius_angstrom: float
    atoms: int

    @classmethod
    def read(
        cls,
        path: str | os.PathLike[str],
        *,
        assembly: str | None = None,
        waters: bool = False,
        hydrogens: bool = False,
        b_factor_angstrom2: float | None = None,
    ) -> AtomicModel:
        """Read the first model of a file; alternative conformations count by their occupancies.

        Raises `FileFormatError` if the file is missing or no model, no atom is left, or an element
        has no scattering factor; `CryosphereError`, which names the assemblies, if there is no such
        one.

        - ``path``: PDB or mmCIF, plain or gzip-compressed.
        - ``assembly``: name of the biological assembly to build, usually "1"; None takes the atoms
          as they are.
        - ``waters``, ``hydrogens``: whether to keep them; a deuterium counts as a hydrogen.
        - ``b_factor_angstrom2``: one isotropic B-factor for all atoms; None takes those of the
          file.
        """
        path = Path(path)
        structure = _read(path)
        if assembly is not None:
            _build_assembly(path, structure, assembly)
        if not waters:
            structure.remove_waters()
        if not hydrogens:
            structure.remove_hydrogens()
        if not len(structure) or not structure[0].count_atom_sites():
            raise FileFormatError(
                f"{path} has no atoms; give a PDB or mmCIF model with coordinates"
            )
        model = structure[0]
        positions = _prepare(path, model, b_factor_angstrom2)
        centre = np.array(model.calculate_center_of_mass().tolist())
        radius = float(np.linalg.norm(positions - centre, axis=1).max())
        return cls(path, model, centre, radius, len(positions))

    def smallest_box(self, pixel_size_angstrom: float) -> int:
        """Return the smallest even box in which the model, seen from anywhere, leaves two voxels free."""
        return 2 * int(np.ceil(self.radius_angstrom / pixel_size_angstrom + 2))

    def default_box(self, pixel_size_angstrom: float) -> int:
        """Return an even box, fast to transform, of at least 1.25 times the model's diameter."""
        from scipy.fft import next_fast_len

        least = max(self.smallest_box(pixel_size_angstrom), 16)
        least = max(least, int(np.ceil(2 * _ROOM * self.radius_angstrom / pixel_size_angstrom)))
        return 2 * int(next_fast_len((least + 1) // 2))

    def density(
        self,
        pixel_size_angstrom: float,
        box: int | None = None,
        resolution_angstrom: float | None = None,
        symmetry: str = "C1",
    ) -> DensityMap:
        """Return the map, the model's centre of mass at voxel ``box // 2`` and its axes those of the file.

        Frequencies fall to 0 from 0.9 to 1 times the highest one, by a raised cosine. Raises
        `CryosphereError` if the model does not fit into the box, or the resolution is beyond
        Nyquist's.

        - ``pixel_size_angstrom``: edge of a voxel.
        - ``box``: even number of voxels along an edge; None is :meth:`default_box`.
        - ``resolution_angstrom``: inverse of the highest frequency; None is Nyquist's, two voxels.
        - ``symmetry``: point group to note with the map; the model is not turned.
        """
        box = self.default_box(pixel_size_angstrom) if box is None else box
        least = self.smallest_box(pixel_size_angstrom)
        if box < least:
            raise CryosphereError(
                f"{self.path} reaches {self.radius_angstrom:.0f} A from its centre of mass and does not fit "
                f"into {box} px of {pixel_size_angstrom:g} A; give a box of at least {least} or larger pixels"
            )
        finest = 2 * pixel_size_angstrom
        resolution = finest if resolution_angstrom is None else resolution_angstrom
        if resolution < finest * (1 - 1e-6):
            raise CryosphereError(
                f"{resolution:g} A is beyond the {finest:g} A that pixels of {pixel_size_angstrom:g} A can "
                "hold; give smaller pixels"
            )
        fine, blur = self._fine_grid(box, pixel_size_angstrom)
        voxels = _band_limited(fine, box, pixel_size_angstrom, 1 / resolution, blur)
        return DensityMap(voxels * np.float32(VOLTS_A2), pixel_size_angstrom, symmetry)

    def _fine_grid(self, box: int, pixel_size_angstrom: float) -> tuple[NDArray[np.float32], float]:
        """Return the atoms on a grid ``_FINER`` times as fine (x, y, z), and the B-factor added to all.

        The added B keeps what the grid folds back below ``_ALIASING``: the lowest such frequency is
        ``(_FINER - 1/2)`` pixel^-1, compared with 1/2 at the highest one that is kept.
        """
        import gemmi

        calculator = gemmi.DensityCalculatorE()
        calculator.cutoff = _CUTOFF_PER_SQUARE_ANGSTROM
        length = box * pixel_size_angstrom
        calculator.grid.spacegroup = gemmi.SpaceGroup("P1")
        calculator.grid.set_unit_cell(gemmi.UnitCell(length, length, length, 90, 90, 90))
        calculator.grid.set_size(*(3 * [_FINER * box]))
        wanted = 4 * np.log(1 / _ALIASING) * pixel_size_angstrom**2 / (_FINER**2 - _FINER)
        lowest = min(site.atom.b_iso for site in self.model.all())
        calculator.blur = max(0.0, float(wanted - lowest))
        moved = self.model.clone()
        move = gemmi.Transform()
        move.vec.fromlist((length / 2 - self.centre_angstrom).tolist())
        moved.transform_pos_and_adp(move)
        calculator.add_model_density_to_grid(moved)
        return calculator.grid.array, float(calculator.blur)


def _read(path: Path) -> gemmi.Structure:
    import gemmi

    try:
        return gemmi.read_structure(str(path))
    except FileNotFoundError as error:
        raise FileFormatError(f"{path} does not exist") from error
    except (OSError, RuntimeError, ValueError) as error:
        reason = " ".join(str(error).split())
        raise FileFormatError(f"{path} is no PDB or mmCIF model: {reason}") from error


def _build_assembly(path: Path, structure: gemmi.Structure, name: str) -> None:
    import gemmi

    names = [one.name for one in structure.assemblies]
    if name not in names:
        known = f"it has {', '.join(names)}" if names else "it has none; leave the option out"
        raise CryosphereError(f"{path} has no biological assembly {name!r}; {known}")
    try:
        structure.transform_to_assembly(name, gemmi.HowToNameCopiedChain.Short)
    except RuntimeError as error:
        raise FileFormatError(f"{path}: assembly {name!r} cannot be built: {error}") from error


def _prepare(
    path: Path, model: gemmi.Model, b_factor_angstrom2: float | None
) -> NDArray[np.float64]:
    """Set the B-factors if asked, refuse atoms that cannot scatter, and return the positions ``(n, 3)``."""
    import gemmi

    positions = []
    for site in model.all():
        atom: Any = site.atom
        if atom.element == gemmi.Element("X") or atom.element.c4322 is None:
            raise FileFormatError(
                f"{path}: atom {site} has the element {atom.element.name}, which has no electron scattering "
                "factor; correct or remove it"
            )
        if b_factor_angstrom2 is not None:
            atom.b_iso = b_factor_angstrom2
            atom.aniso = gemmi.SMat33f(0, 0, 0, 0, 0, 0)
        positions.append(atom.pos.tolist())
    values = np.array(positions)
    if not np.isfinite(values).all():
        raise FileFormatError(f"{path} has coordinates that are not finite numbers")
    return values


def _band_limited(
    fine: NDArray[np.float32], box: int, pixel_size_angstrom: float, highest: float, blur: float
) -> NDArray[np.float32]:
    """Cut the fine grid's (x, y, z) transform to the box, undo the blur, and return voxels (z, y, x)."""
    # late: whoever only asks whether a file is a model does without
    from scipy import fft

    from napari_cryosphere.imaging.map_mask import falling_edge

    transform = fft.rfftn(np.ascontiguousarray(fine.transpose(2, 1, 0)))
    kept = np.arange(-(box // 2), box // 2)
    transform = transform[np.ix_(kept, kept, np.arange(box // 2 + 1))]
    full, half = (k / (box * pixel_size_angstrom) for k in (kept, np.arange(box // 2 + 1)))
    s = np.sqrt(full[:, None, None] ** 2 + full[:, None] ** 2 + half**2)
    kept_share = falling_edge((s / highest - _EDGE) / (1 - _EDGE))
    weight = kept_share * np.exp(np.minimum(s, highest) ** 2 * (blur / 4))
    weighted = fft.ifftshift(transform * weight.astype(np.float32), axes=(0, 1))
    voxels = fft.irfftn(weighted, s=(box, box, box)) * (box / fine.shape[0]) ** 3
    return voxels.astype(np.float32)
