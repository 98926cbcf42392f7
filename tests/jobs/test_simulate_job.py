"""The jobs simulate and density: what is written, what RELION makes of it, what is refused."""

from __future__ import annotations

import shutil
import subprocess
import tracemalloc
from pathlib import Path
from typing import Any

import gemmi
import numpy as np
import pytest
from pydantic import ValidationError

from napari_cryosphere.errors import CryosphereError, MetadataError, OutputExistsError
from napari_cryosphere.imaging.phantom import protein_phantom
from napari_cryosphere.imaging.simulate import OpticsGroup
from napari_cryosphere.jobs.configs import DensityConfig, SimulateConfig
from napari_cryosphere.jobs.density import density
from napari_cryosphere.jobs.events import Events, Note, Progress, Result, follow
from napari_cryosphere.jobs.simulate import simulate, simulate_density
from napari_cryosphere.particles import DensityMap, ParticleStack, read_star
from napari_cryosphere.so3.asymmetric_unit import inside_asymmetric_unit
from napari_cryosphere.so3.symmetry import angular_error_degrees

TWO_GROUPS = (
    OpticsGroup(
        voltage_kv=200, phase_shift_degrees=60, defocus_angstrom=(6000, 9000), micrographs=3
    ),
    OpticsGroup(b_factor_angstrom2=80, astigmatism_angstrom=2000, micrographs=5),
)


def run(events: Events) -> Result:
    return follow(events, lambda event: None)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a folder with a map of 32 px of 6 A, map.mrc; tests write elsewhere."""
    made = tmp_path_factory.mktemp("simulate")
    protein_phantom(32, 6.0).save(made / "map.mrc")
    return made


def write_model(path: Path) -> Path:
    """Write a model of 60 carbons, 20 waters and some hydrogens in a lopsided cloud."""
    rng = np.random.default_rng(4)
    structure, model = gemmi.Structure(), gemmi.Model(1)
    for name, residue_name, element, number in (
        ("A", "UNK", "C", 60),
        ("B", "HOH", "O", 20),
        ("C", "UNK", "H", 5),
    ):
        chain = gemmi.Chain(name)
        for index in range(number):
            atom, residue = gemmi.Atom(), gemmi.Residue()
            atom.name, atom.element, atom.b_iso = element, gemmi.Element(element), 60.0
            atom.pos = gemmi.Position(*(rng.normal(size=3) * (12, 6, 3)))
            residue.name, residue.seqid = residue_name, gemmi.SeqId(index + 1, " ")
            residue.add_atom(atom)
            chain.add_residue(residue)
        model.add_chain(chain)
    structure.add_model(model)
    structure.setup_entities()
    structure.make_mmcif_document().write_file(str(path))
    return path


def test_poses_of_a_file_give_the_same_images(folder: Path, tmp_path: Path) -> None:
    """Everything that makes an image is in the STAR file: groups, phase shift, envelope, shifts,
    defocus.
    """
    drawn = SimulateConfig(
        map=folder / "map.mrc",
        output=tmp_path / "a.star",
        number=60,
        snr=float("inf"),
        optics=TWO_GROUPS,
    )
    run(simulate(drawn))
    taken = SimulateConfig(
        map=folder / "map.mrc",
        output=tmp_path / "b.star",
        poses=tmp_path / "a.star",
        snr=float("inf"),
    )
    assert run(simulate(taken)).metrics["particles"] == 60
    first, second = (ParticleStack.read(tmp_path / name) for name in ("a.star", "b.star"))
    scale = np.abs(first.images()).max()
    np.testing.assert_allclose(second.images(), first.images(), atol=1e-4 * scale)
    different = [name for name in first.particles if name != "rlnImageName"]
    for name in different:
        assert first.particles[name].dtype == second.particles[name].dtype
        if first.particles[name].dtype.kind == "f":
            np.testing.assert_allclose(second.particles[name], first.particles[name], atol=1e-6)
        else:
            assert list(second.particles[name]) == list(first.particles[name])
    assert len(second.optics) == 2
    assert list(second.optics["rlnVoltage"]) == [200, 300]
    fewer = run(simulate(taken.model_copy(update={"number": 7, "overwrite": True})))
    assert fewer.metrics["particles"] == 7


def test_shifts_of_a_file_are_kept_in_angstrom(folder: Path, tmp_path: Path) -> None:
    """A map of half the pixel size, with the poses of particles of the whole."""
    run(simulate(SimulateConfig(map=folder / "map.mrc", output=tmp_path / "a.star", number=10)))
    protein_phantom(64, 3.0).save(tmp_path / "fine.mrc")
    config = SimulateConfig(
        map=tmp_path / "fine.mrc",
        output=tmp_path / "b.star",
        poses=tmp_path / "a.star",
        snr=float("inf"),
    )
    run(simulate(config))
    coarse, fine = (ParticleStack.read(tmp_path / name) for name in ("a.star", "b.star"))
    assert fine.pixel_size_angstrom == 3.0
    np.testing.assert_allclose(fine.shifts_angstrom(), coarse.shifts_angstrom(), atol=1e-9)


@pytest.mark.parametrize("option", ["plain", "everything", "poses"])
def test_relion_reconstructs_the_map(folder: Path, tmp_path: Path, option: str) -> None:
    if shutil.which("relion_reconstruct") is None:
        pytest.skip("relion_reconstruct is not installed")
    config: dict[str, Any] = {"number": 600, "snr": 2.0, "output": tmp_path / "p.star"}
    if option != "plain":
        config |= {"optics": TWO_GROUPS, "preference": 1.0, "noise_length_angstrom": 30.0}
    run(simulate(SimulateConfig(map=folder / "map.mrc", **config)))
    if option == "poses":
        poses = {"poses": tmp_path / "p.star", "output": tmp_path / "q.star", "snr": 2.0}
        run(simulate(SimulateConfig(map=folder / "map.mrc", **poses)))
    name = "q.star" if option == "poses" else "p.star"
    command = ["relion_reconstruct", "--i", name, "--o", "map.mrc", "--ctf"]
    subprocess.run(command, cwd=tmp_path, check=True, capture_output=True)
    truth, made = (DensityMap.read(where / "map.mrc").voxels for where in (folder, tmp_path))
    assert np.isfinite(made).all()
    axis = np.arange(32) - 16
    ball = np.sqrt(axis[:, None, None] ** 2 + axis[:, None] ** 2 + axis**2) < 15
    assert np.corrcoef(made[ball], truth[ball])[0, 1] > 0.9
    assert np.corrcoef(made[::-1][ball[::-1]], truth[ball])[0, 1] < 0.8  # the mirror image


def test_poses_lie_in_relions_asymmetric_unit(folder: Path, tmp_path: Path) -> None:
    made = {}
    for symmetry in ("C1", "D2"):
        output = tmp_path / f"{symmetry}.star"
        run(
            simulate(
                SimulateConfig(map=folder / "map.mrc", output=output, number=200, symmetry=symmetry)
            )
        )
        made[symmetry] = ParticleStack.read(output).rotations()
    assert inside_asymmetric_unit(made["D2"][:, :, 2], "D2").all()
    assert not inside_asymmetric_unit(made["C1"][:, :, 2], "D2").all()
    assert angular_error_degrees(made["C1"], made["D2"], "D2").max() < 1e-4


def test_images_are_not_held_in_memory(tmp_path: Path) -> None:
    """1500 images of 64 px are 25 MB; a chunk of them and the table are much less."""
    config = SimulateConfig(map=tmp_path, output=tmp_path / "p.star", number=1500)
    phantom = protein_phantom()
    tracemalloc.start()
    try:
        run(simulate_density(phantom, config))
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert (tmp_path / "p.mrcs").stat().st_size > 24e6
    assert peak < 20e6


def test_stopping_leaves_nothing(folder: Path, tmp_path: Path) -> None:
    events = simulate(
        SimulateConfig(map=folder / "map.mrc", output=tmp_path / "p.star", number=3000)
    )
    for event in events:
        if isinstance(event, Progress) and event.fraction > 0.1:
            break
    events.close()
    assert not list(tmp_path.iterdir())


def test_a_model_becomes_particles(tmp_path: Path) -> None:
    """simulate MODEL equals density MODEL followed by simulate MAP."""
    model = write_model(tmp_path / "model.cif")
    made = run(
        density(
            DensityConfig(model=model, output=tmp_path / "map.mrc", pixel_size_angstrom=2.0, box=48)
        )
    )
    assert made.metrics["atoms"] == 60
    assert DensityMap.read(tmp_path / "map.mrc").pixel_size_angstrom == 2.0
    common = {"number": 20, "seed": 3}
    direct = SimulateConfig(
        map=model, output=tmp_path / "a.star", pixel_size_angstrom=2.0, box=48, **common
    )
    run(simulate(direct))
    run(simulate(SimulateConfig(map=tmp_path / "map.mrc", output=tmp_path / "b.star", **common)))
    first, second = (ParticleStack.read(tmp_path / name).images() for name in ("a.star", "b.star"))
    np.testing.assert_allclose(first, second, atol=1e-4)
    with pytest.raises(OutputExistsError):
        run(
            density(
                DensityConfig(model=model, output=tmp_path / "map.mrc", pixel_size_angstrom=2.0)
            )
        )


def test_a_map_without_a_mask_is_warned_about(tmp_path: Path) -> None:
    voxels = np.random.default_rng(0).normal(size=(16, 16, 16)).astype(np.float32)
    config = SimulateConfig(map=tmp_path, output=tmp_path / "p.star", number=4)
    notes = [
        event
        for event in simulate_density(DensityMap(voxels, 2.0), config)
        if isinstance(event, Note)
    ]
    assert len(notes) == 1
    assert notes[0].warning
    assert "mask" in notes[0].text


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"map": "m.pdb"}, "--pixel-size"),
        ({"map": "m.mrc", "box": 32}, "box belongs to an atomic model"),
        ({"map": "m.mrc", "pixel_size_angstrom": 2.0}, "pixel_size_angstrom belongs"),
        ({"map": "m.pdb", "pixel_size_angstrom": 2.0, "box": 33}, "multiple of 2"),
        ({"map": "m.mrc", "poses": "p.star", "preference": 2.0}, "poses come with their"),
        ({"map": "m.mrc", "poses": "p.star", "shift_px": 2.0}, "poses come with their"),
        ({"map": "m.mrc", "preferred_axis": (0, 0, 0)}, "direction"),
        ({"map": "m.mrc", "preference": 2000}, "less than or equal to 1000"),
        ({"map": "m.mrc", "noise_length_angstrom": 3, "noise_spectrum": "n.csv"}, "give one"),
        ({"map": "m.mrc", "optics": []}, "at least 1"),
        ({"map": "m.mrc", "optics": [{"volts": 3}]}, "volts"),
        (
            {"map": "m.mrc", "optics": [{"defocus_angstrom": [9000, 8000]}]},
            "the lowest and the highest",
        ),
    ],
)
def test_what_does_not_go_together_is_refused(values: dict[str, Any], message: str) -> None:
    with pytest.raises(ValidationError, match=message):
        SimulateConfig(output=Path("p.star"), **values)


def test_poses_that_do_not_serve_are_refused(folder: Path, tmp_path: Path) -> None:
    run(
        simulate(
            SimulateConfig(map=folder / "map.mrc", output=tmp_path / "a.star", number=5, ctf=False)
        )
    )
    taken = {"map": folder / "map.mrc", "output": tmp_path / "b.star", "poses": tmp_path / "a.star"}
    with pytest.raises(MetadataError, match="--no-ctf"):
        run(simulate(SimulateConfig(**taken)))
    with pytest.raises(CryosphereError, match="5 poses, not 6"):
        run(simulate(SimulateConfig(**taken, ctf=False, number=6)))
    assert not (tmp_path / "b.star").exists()
    run(simulate(SimulateConfig(**taken, ctf=False)))
    assert "rlnDefocusU" not in read_star(tmp_path / "b.star")["particles"]


def test_shifts_beyond_the_image_are_refused(folder: Path, tmp_path: Path) -> None:
    config = SimulateConfig(map=folder / "map.mrc", output=tmp_path / "p.star", shift_px=16.5)
    with pytest.raises(CryosphereError, match=r"up to 16.5 px leave the images of 32 px; .* 16"):
        run(simulate(config))


def test_states_are_projections_of_their_own_maps(folder, tmp_path):
    first = DensityMap.read(folder / "map.mrc")
    second = DensityMap(first.voxels[::-1].copy(), first.pixel_size_angstrom)
    second.save(tmp_path / "second.mrc")
    common = {
        "map": folder / "map.mrc",
        "number": 400,
        "ctf": False,
        "snr": float("inf"),
        "seed": 3,
    }
    mixed = SimulateConfig(
        **common, other_map=(tmp_path / "second.mrc",), share=(3.0, 1.0), output=tmp_path / "m.star"
    )
    run(simulate(mixed))
    stack = ParticleStack.read(tmp_path / "m.star")
    states = stack.particles["rlnClassNumber"].to_numpy(int)
    assert np.mean(states == 2) == pytest.approx(0.25, abs=0.06)
    for state, path in ((1, folder / "map.mrc"), (2, tmp_path / "second.mrc")):
        alone = SimulateConfig(
            **common | {"map": path}, output=tmp_path / f"{state}.star", poses=None
        )
        run(simulate(alone))
        images = ParticleStack.read(tmp_path / f"{state}.star").images()
        rows = states == state
        assert np.allclose(stack.images()[rows], images[rows], atol=1e-4 * np.abs(images).max())
        assert not np.allclose(
            stack.images()[~rows], images[~rows], atol=0.1 * np.abs(images).max()
        )


def test_states_on_another_grid_or_with_other_shares_are_refused(folder, tmp_path):
    protein_phantom(24, 6.0).save(tmp_path / "small.mrc")
    common = {"map": folder / "map.mrc", "output": tmp_path / "m.star"}
    with pytest.raises(CryosphereError, match=r"small\.mrc has 24 voxels of 6 A, .*32 of 6 A"):
        run(simulate(SimulateConfig(**common, other_map=(tmp_path / "small.mrc",))))
    with pytest.raises(ValidationError, match="1 shares for 2 maps"):
        SimulateConfig(**common, other_map=(tmp_path / "small.mrc",), share=(0.5,))
    assert not (tmp_path / "m.star").exists()
