"""A density from coordinates, against sums of Gaussians by formula and gemmi's own numbers."""

from __future__ import annotations

import gzip
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import gemmi
import numpy as np
import pytest

from napari_cryosphere.errors import CryosphereError, FileFormatError
from napari_cryosphere.imaging.atomic_model import VOLTS_A2, AtomicModel, is_atomic_model

Atom = tuple[str, Sequence[float], float, float]  # element, position, B-factor, occupancy


def structure_of(atoms: Sequence[Atom], residue: str = "UNK") -> gemmi.Structure:
    structure, model, chain = gemmi.Structure(), gemmi.Model(1), gemmi.Chain("A")
    for number, (element, position, b_factor, occupancy) in enumerate(atoms, 1):
        atom = gemmi.Atom()
        atom.name, atom.element = element.upper(), gemmi.Element(element)
        atom.pos, atom.b_iso, atom.occ = gemmi.Position(*position), b_factor, occupancy
        holder = gemmi.Residue()
        holder.name, holder.seqid = residue, gemmi.SeqId(number, " ")
        holder.add_atom(atom)
        chain.add_residue(holder)
    model.add_chain(chain)
    structure.add_model(model)
    structure.setup_entities()
    return structure


def write(structure: gemmi.Structure, path: Path) -> Path:
    if path.suffix == ".pdb":
        structure.write_pdb(str(path))
    else:
        structure.make_mmcif_document().write_file(str(path))
    return path


@pytest.fixture
def atoms() -> list[Atom]:
    rng = np.random.default_rng(7)
    elements = ["C", "N", "O", "S", "P", "Zn", "C", "Mg"] * 3
    return [
        (element, (rng.normal(size=3) * 6 + 40).round(3), round(b, 2), round(occupancy, 2))
        for element, b, occupancy in zip(
            elements, rng.uniform(150, 250, 24), rng.uniform(0.3, 1, 24), strict=True
        )
    ]


def by_formula(atoms: Sequence[Atom], box: int, pixel_size: float) -> np.ndarray:
    """Sum over atoms and Gaussians of a (4 pi / b)^(3/2) exp(-4 pi^2 r^2 / b), b widened by B; in
    volts.
    """
    weights = [gemmi.Element(element).weight * occupancy for element, _, _, occupancy in atoms]
    centre = np.average([position for _, position, _, _ in atoms], axis=0, weights=weights)
    axis = (np.arange(box) - box // 2) * pixel_size
    volume = np.zeros((box, box, box))
    for element, position, b_factor, occupancy in atoms:
        x, y, z = np.asarray(position) - centre
        r2 = (axis - x) ** 2 + (axis[:, None] - y) ** 2 + (axis[:, None, None] - z) ** 2
        peng = gemmi.Element(element).c4322
        for a, b in zip(peng.a, peng.b, strict=True):
            wide = b + b_factor
            volume += occupancy * a * (4 * np.pi / wide) ** 1.5 * np.exp(-4 * np.pi**2 * r2 / wide)
    return volume * VOLTS_A2


@pytest.mark.parametrize("suffix", [".pdb", ".cif"])
@pytest.mark.parametrize(("pixel_size", "box"), [(0.7, 90), (1.0, 60)])
def test_density_is_the_sum_of_gaussians(
    atoms: list[Atom], tmp_path: Path, suffix: str, pixel_size: float, box: int
) -> None:
    model = AtomicModel.read(write(structure_of(atoms), tmp_path / f"model{suffix}"))
    ours = model.density(pixel_size, box)
    exact = by_formula(atoms, box, pixel_size)
    assert ours.voxels.shape == (box, box, box)
    assert np.linalg.norm(ours.voxels - exact) / np.linalg.norm(exact) < 2e-4
    assert ours.voxels.sum() / exact.sum() == pytest.approx(1, abs=1e-4)


def test_unit_is_that_of_gemmi_times_a_constant(atoms: list[Atom], tmp_path: Path) -> None:
    """gemmi's own grid of the same atoms, in 1/A^2, at the same points."""
    assert pytest.approx(47.878, abs=1e-3) == VOLTS_A2
    model = AtomicModel.read(write(structure_of(atoms), tmp_path / "model.pdb"))
    moved = model.model.clone()
    move = gemmi.Transform()
    move.vec.fromlist((30 - model.centre_angstrom).tolist())
    moved.transform_pos_and_adp(move)
    calculator = gemmi.DensityCalculatorE()
    calculator.grid.set_unit_cell(gemmi.UnitCell(60, 60, 60, 90, 90, 90))
    calculator.grid.spacegroup = gemmi.SpaceGroup("P1")
    calculator.grid.set_size(60, 60, 60)
    calculator.add_model_density_to_grid(moved)
    theirs = calculator.grid.array.transpose(2, 1, 0) * VOLTS_A2
    ours = model.density(1.0, 60).voxels
    assert np.abs(ours - theirs).max() < 2e-3 * theirs.max()


def test_sharp_atoms_are_band_limited_not_aliased(tmp_path: Path) -> None:
    """Without a B-factor: the transform at every frequency is the scattering factor times the
    phase.
    """
    atoms: list[Atom] = [("C", (0.0, 0.0, 0.0), 0.0, 1.0), ("O", (3.3, -4.1, 2.2), 0.0, 1.0)]
    model = AtomicModel.read(write(structure_of(atoms), tmp_path / "model.pdb"))
    box, pixel_size = 32, 1.5
    ours = (
        np.fft.fftn(np.fft.ifftshift(model.density(pixel_size, box).voxels))
        * pixel_size**3
        / VOLTS_A2
    )
    s = np.fft.fftfreq(box, pixel_size)
    z, y, x = np.meshgrid(s, s, s, indexing="ij")
    s2 = x**2 + y**2 + z**2
    exact = np.zeros(s2.shape, dtype=complex)
    for element, position, _, _ in atoms:
        peng = gemmi.Element(element).c4322
        factor = sum(a * np.exp(-b * s2 / 4) for a, b in zip(peng.a, peng.b, strict=True))
        u, v, w = np.asarray(position) - model.centre_angstrom
        exact += factor * np.exp(-2j * np.pi * (x * u + y * v + z * w))
    inside = np.sqrt(s2) < 0.9 / (2 * pixel_size)
    assert np.abs(ours - exact)[inside].max() < 5e-5 * np.abs(exact).max()
    beyond = np.sqrt(s2) > 1.001 / (2 * pixel_size)
    assert np.abs(ours)[beyond].max() < 1e-4 * np.abs(exact).max()


def test_resolution_cuts_and_b_factor_overrides(atoms: list[Atom], tmp_path: Path) -> None:
    file = write(structure_of(atoms), tmp_path / "model.cif")
    cut = AtomicModel.read(file).density(1.5, 48, resolution_angstrom=8.0)
    transform = np.abs(np.fft.fftn(cut.voxels))
    s = np.fft.fftfreq(48, 1.5)
    radius = np.sqrt(s[:, None, None] ** 2 + s[:, None] ** 2 + s**2)
    assert transform[radius > 1.001 / 8].max() < 1e-4 * transform.max()
    assert transform[radius < 0.9 / 8].min() > 1e-4 * transform.max()
    one_b: list[Atom] = [
        (element, position, 300.0, occupancy) for element, position, _, occupancy in atoms
    ]
    ours = AtomicModel.read(file, b_factor_angstrom2=300.0).density(1.0, 60).voxels
    exact = by_formula(one_b, 60, 1.0)
    assert np.linalg.norm(ours - exact) / np.linalg.norm(exact) < 2e-4


def test_waters_and_hydrogens_go_unless_kept(atoms: list[Atom], tmp_path: Path) -> None:
    structure = structure_of(
        [*atoms, ("H", (40.0, 40.0, 41.0), 50.0, 1.0), ("D", (41.0, 40.0, 40.0), 50.0, 1.0)]
    )
    water = structure_of([("O", (45.0, 40.0, 40.0), 50.0, 1.0)], residue="HOH")[0]["A"]
    water.name = "W"
    structure[0].add_chain(water)
    structure.setup_entities()
    file = write(structure, tmp_path / "model.pdb")
    assert AtomicModel.read(file).atoms == 24
    assert AtomicModel.read(file, hydrogens=True).atoms == 26
    assert AtomicModel.read(file, waters=True).atoms == 25


@pytest.mark.parametrize("suffix", [".pdb", ".cif"])
def test_biological_assembly_is_built(tmp_path: Path, suffix: str) -> None:
    """A two-fold about z through (20, 20): the assembly's density is symmetric, the single copy's
    is not.
    """
    rng = np.random.default_rng(9)
    structure = structure_of(
        [("C", (rng.normal(size=3) * 3 + 26).round(3), 100.0, 1.0) for _ in range(12)]
    )
    assembly, generator = gemmi.Assembly("1"), gemmi.Assembly.Gen()
    for number, turn in enumerate((gemmi.Transform(), _two_fold(20.0, 20.0)), 1):
        operator = gemmi.Assembly.Operator()
        operator.name, operator.transform = str(number), turn
        generator.operators.append(operator)
    if suffix == ".pdb":
        generator.chains = ["A"]
    else:
        generator.subchains = [structure[0]["A"][0].subchain]
    assembly.generators.append(generator)
    structure.assemblies.append(assembly)
    file = write(structure, tmp_path / f"model{suffix}")
    single, whole = AtomicModel.read(file), AtomicModel.read(file, assembly="1")
    assert (single.atoms, whole.atoms) == (12, 24)
    np.testing.assert_allclose(whole.centre_angstrom[:2], 20, atol=1e-3)
    for model, least, most in ((whole, 0.9999, 1.0), (single, -1.0, 0.99)):
        voxels = model.density(2.0, 40).voxels
        turned = np.roll(voxels[:, ::-1, ::-1], 1, (1, 2))
        assert least <= min(np.corrcoef(voxels.ravel(), turned.ravel())[0, 1], 1.0) <= most
    with pytest.raises(CryosphereError, match="'2'; it has 1"):
        AtomicModel.read(file, assembly="2")


def test_an_assembly_of_chains_that_are_not_there_is_refused(
    atoms: list[Atom], tmp_path: Path
) -> None:
    structure = structure_of(atoms)
    assembly, generator, operator = (
        gemmi.Assembly("1"),
        gemmi.Assembly.Gen(),
        gemmi.Assembly.Operator(),
    )
    operator.name, generator.chains = "1", ["Z"]
    generator.operators.append(operator)
    assembly.generators.append(generator)
    structure.assemblies.append(assembly)
    file = write(structure, tmp_path / "model.pdb")
    with pytest.raises(FileFormatError, match=r"assembly '1' cannot be built: .*Z"):
        AtomicModel.read(file, assembly="1")


def _two_fold(x: float, y: float) -> gemmi.Transform:
    turn = gemmi.Transform()
    turn.mat.fromlist([[-1, 0, 0], [0, -1, 0], [0, 0, 1]])
    turn.vec.fromlist([2 * x, 2 * y, 0])
    return turn


def test_box_by_default_and_too_small(atoms: list[Atom], tmp_path: Path) -> None:
    model = AtomicModel.read(write(structure_of(atoms), tmp_path / "model.pdb"))
    box = model.default_box(1.5)
    assert box % 2 == 0
    assert box * 1.5 >= 2.5 * model.radius_angstrom
    with pytest.raises(CryosphereError, match=f"at least {model.smallest_box(1.5)}"):
        model.density(1.5, model.smallest_box(1.5) - 2)
    assert model.density(1.5, model.smallest_box(1.5)).box == model.smallest_box(1.5)
    with pytest.raises(CryosphereError, match="beyond the 3 A"):
        model.density(1.5, resolution_angstrom=2.0)


def test_gzip_and_names(atoms: list[Atom], tmp_path: Path) -> None:
    plain = write(structure_of(atoms), tmp_path / "model.pdb")
    packed = tmp_path / "packed.pdb.gz"
    packed.write_bytes(gzip.compress(plain.read_bytes()))
    assert AtomicModel.read(packed).atoms == 24
    for name, expected in (
        ("a.PDB", True),
        ("a.cif.gz", True),
        ("a.ent", True),
        ("a.mrc", False),
        ("a.gz", False),
    ):
        assert is_atomic_model(Path(name)) is expected


@pytest.mark.parametrize(
    ("name", "text", "message"),
    [
        ("none.pdb", None, "does not exist"),
        ("empty.pdb", "", "no atoms"),
        ("short.pdb", "ATOM garbage\n", "line 1"),
        ("text.cif", "hello\n", "data_"),
        ("header.cif", "data_x\n_cell.length_a 10\n", "no atoms"),
    ],
)
def test_what_is_no_model_is_refused(
    tmp_path: Path, name: str, text: str | None, message: str
) -> None:
    file = tmp_path / name
    if text is not None:
        file.write_text(text)
    with pytest.raises(FileFormatError, match=message) as error:
        AtomicModel.read(file)
    assert str(file) in str(error.value)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize("element", ["X", "Es"])
def test_elements_without_a_scattering_factor_are_refused(tmp_path: Path, element: str) -> None:
    wrong: list[Any] = [("C", (0.0, 0.0, 0.0), 20.0, 1.0), (element, (3.0, 0.0, 0.0), 20.0, 1.0)]
    with pytest.raises(FileFormatError, match="scattering factor"):
        AtomicModel.read(write(structure_of(wrong), tmp_path / "model.cif"))


def test_coordinates_that_are_no_numbers_are_refused(atoms: list[Atom], tmp_path: Path) -> None:
    file = write(
        structure_of([("C", (1.0, np.nan, 2.0), 20.0, 1.0), *atoms]), tmp_path / "model.cif"
    )
    with pytest.raises(FileFormatError, match="coordinates that are not finite"):
        AtomicModel.read(file)
