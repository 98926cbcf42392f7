"""Values out of range, units that were mistaken, and files that are no single particles: one line each."""

from __future__ import annotations

import os
import warnings
from pathlib import Path

import mrcfile
import numpy as np
import pandas as pd
import pytest
import starfile

from napari_cryosphere.errors import CryosphereError
from napari_cryosphere.imaging.ctf import transfer_values
from napari_cryosphere.jobs.info import describe
from napari_cryosphere.particles import ParticleStack, write_stack, write_star

NUMBER = 24


def tables() -> dict[str, pd.DataFrame]:
    optics = {
        **{"rlnOpticsGroup": [1], "rlnImagePixelSize": [3.0], "rlnImageSize": [8]},
        **{"rlnVoltage": [300.0], "rlnSphericalAberration": [2.7], "rlnAmplitudeContrast": [0.1]},
    }
    rng = np.random.default_rng(0)
    particles = {
        "rlnImageName": [f"{number}@a.mrcs" for number in range(1, NUMBER + 1)],
        "rlnOpticsGroup": 1,
        "rlnRandomSubset": [1, 2] * (NUMBER // 2),
        **{f"rlnAngle{name}": rng.uniform(0, 170, NUMBER) for name in ("Rot", "Tilt", "Psi")},
        **{f"rlnOrigin{name}Angst": rng.uniform(-3, 3, NUMBER) for name in "XY"},
        **{"rlnDefocusU": 12000.0, "rlnDefocusV": 11000.0, "rlnDefocusAngle": 30.0},
    }
    return {"optics": pd.DataFrame(optics), "particles": pd.DataFrame(particles)}


def written(folder: Path, blocks: dict[str, pd.DataFrame]) -> Path:
    if not (folder / "a.mrcs").exists():
        write_stack(np.random.default_rng(1).normal(size=(NUMBER, 8, 8)), folder / "a.mrcs", 3.0)
    write_star(blocks, folder / "p.star", overwrite=True)
    return folder / "p.star"


@pytest.mark.parametrize(
    ("block", "column", "value", "said"),
    [
        ("optics", "rlnAmplitudeContrast", 10.0, "is 0 to 1; 10 % would be 0.1"),
        ("optics", "rlnAmplitudeContrast", -0.1, "is 0 to 1"),
        ("optics", "rlnVoltage", 300000.0, "is 1 to 3000 kV; 300000 V would be 300 kV"),
        ("optics", "rlnVoltage", 0.3, "0.3 MV would be 300 kV"),
        ("optics", "rlnSphericalAberration", 2.7e7, "2.7e+07 A would be 2.7 mm"),
        ("optics", "rlnSphericalAberration", 2700.0, "2700 um would be 2.7 mm"),
        ("optics", "rlnImagePixelSize", 3e-10, "3e-10 m would be 3 A"),
        ("optics", "rlnImagePixelSize", 0.0, "is 0.01 to 1000 A"),
        ("optics", "rlnImageSize", 7.5, "in whole numbers"),
        ("optics", "rlnBeamTiltX", 500.0, "is -100 to 100 mrad"),
        ("optics", "rlnMagMat00", 0.0, "is 0.5 to 2"),
        ("optics", "rlnCtfDataArePhaseFlipped", 2.0, "a flag is 0 to 1"),
        ("particles", "rlnOriginXPriorAngst", 1e9, "is -1e+06 to 1e+06 A"),
        ("particles", "rlnDefocusU", 1.2e9, "is -1e+06 to 1e+06 A"),
        ("particles", "rlnDefocusAngle", 1e9, "is -720 to 720 degrees"),
        ("particles", "rlnPhaseShift", 1e9, "is -720 to 720 degrees"),
        ("particles", "rlnCtfBfactor", -1e6, "is -1000 to 100000 A^2"),
        ("particles", "rlnCtfScalefactor", -1.0, "is 0 to 1000"),
        ("particles", "rlnAmplitudeContrast", 7.0, "is 0 to 1; 7 % would be 0.07"),
        ("particles", "rlnAngleTilt", 1e30, "degrees"),
    ],
)
def test_values_without_a_meaning_are_refused(
    tmp_path: Path, block: str, column: str, value: float, said: str
) -> None:
    blocks = tables()
    row = 1 if block == "optics" else 3
    blocks[block][column] = blocks[block].get(column, 0.0)
    blocks[block][column] = blocks[block][column].astype(float)
    blocks[block].loc[row - 1, column] = value
    path = written(tmp_path, blocks)
    with pytest.raises(CryosphereError) as caught:
        describe(path)
    message = str(caught.value)
    assert message.startswith(f"{path}: {block} row {row}: {column} is ")
    assert said in message
    assert "\n" not in message


@pytest.mark.parametrize(
    ("block", "column", "factor", "said"),
    [
        ("optics", "rlnVoltage", 0.1, "row 1: rlnVoltage is 30; usual is 60 to 1300 kV"),
        ("optics", "rlnSphericalAberration", 10, "is 27; usual is -10 to 10 mm"),
        ("optics", "rlnSphericalAberration", 1e-3, "metres? 0.0027 m would be 2.7 mm"),
        ("particles", "rlnDefocus", 1e-4, "rlnDefocusU is below 100 A for all particles"),
        ("particles", "rlnDefocusV", 1e-4, "rlnDefocusV is 1.1; others are up to 12000; is it in"),
        ("particles", "rlnDefocus", 0, "rlnDefocusU is 0 for all particles; their defocus was"),
        ("particles", "rlnDefocus", -1, "negative for all particles, which is overfocus"),
        ("particles", "rlnAngle", np.pi / 180, "are they in radians? The unit is degrees"),
        ("particles", "rlnOriginXAngst", 30, "centre lies outside its image of 24 A"),
        ("optics", "rlnImagePixelSize", 0.5, "is 1.5 A in optics group 1, but 3 A in the header"),
    ],
)
def test_values_that_are_not_usual_are_warned_of(
    tmp_path: Path, block: str, column: str, factor: float, said: str
) -> None:
    blocks = tables()
    assert ParticleStack.read(written(tmp_path, blocks)).warnings == ()
    for name in [name for name in blocks[block] if name.startswith(column)]:
        blocks[block][name] *= factor
    found = describe(written(tmp_path, blocks))["warnings"]
    assert sum(said in line for line in found) == 1


@pytest.mark.parametrize("pixel_size", [0.0, 1.0, 3.02])
def test_a_header_without_a_pixel_size_says_nothing(tmp_path: Path, pixel_size: float) -> None:
    path = written(tmp_path, tables())
    with mrcfile.open(tmp_path / "a.mrcs", "r+") as mrc:
        mrc.voxel_size = pixel_size
    assert ParticleStack.read(path).warnings == ()


@pytest.mark.parametrize("contrast", [0.0, 1.0])
@pytest.mark.parametrize("b_factor", [-1000.0, 1e5])
def test_a_ctf_at_the_ends_of_the_ranges_is_finite(
    tmp_path: Path, contrast: float, b_factor: float
) -> None:
    blocks = tables()
    blocks["optics"]["rlnAmplitudeContrast"] = contrast
    blocks["particles"] = blocks["particles"].assign(
        rlnCtfBfactor=b_factor, rlnDefocusU=1e6, rlnDefocusV=-1e6, rlnPhaseShift=720.0
    )
    stack = ParticleStack.read(written(tmp_path, blocks))
    frequencies = np.stack(np.meshgrid(np.linspace(-0.4, 0.4, 9), np.linspace(0, 0.4, 5)), -1)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert np.isfinite(transfer_values(stack, frequencies.reshape(-1, 2))).all()


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"optics": {"rlnImageDimensionality": 3}}, "rlnImageDimensionality is 3"),
        ({"particles": {"rlnTomoName": "TS_1"}}, "particles of tomograms (rlnTomoName)"),
        ({"particles": {"rlnTomoParticleName": "TS_1/1"}}, "particles of tomograms"),
        ({"particles": {"rlnCtfImage": "ctf.mrc"}}, "3D CTFs (rlnCtfImage)"),
        ({"general": {"rlnTomoSubTomosAre2DStacks": 1}}, "rlnTomoSubTomosAre2DStacks"),
        ({"particles": {"wrpAxisAngle": 85.0}}, "a tilt series of Warp (wrpAxisAngle)"),
        (
            {
                "particles": {
                    "rlnGroupName": ["TS_1_1"] * 12 + ["TS_1_2"] * 12,
                    "rlnCtfBfactor": [-4.0 * dose for dose in range(12)] * 2,
                    "rlnCtfScalefactor": np.cos(np.radians(np.arange(-60, 60, 5))),
                }
            },
            "tilt series of Warp",
        ),
    ],
)
def test_tomography_is_refused(
    tmp_path: Path, change: dict[str, dict[str, object]], said: str
) -> None:
    blocks = tables()
    for block, columns in change.items():
        blocks[block] = blocks.get(block, pd.DataFrame({"a": [1]})).assign(**columns)
    path = written(tmp_path, blocks)
    with pytest.raises(CryosphereError) as caught:
        describe(path)
    message = str(caught.value)
    assert said in message
    assert "use RELION's subtomogram averaging, or Warp and M" in message
    assert "\n" not in message


def volume(path: Path, shape: tuple[int, ...], space_group: int) -> Path:
    with mrcfile.new(path) as mrc:
        mrc.set_data(np.random.default_rng(2).normal(size=shape).astype(np.float32))
        mrc.voxel_size = 3.0
        mrc.header.ispg = space_group
    return path


@pytest.mark.parametrize("space_group", [0, 1])
def test_a_volume_is_no_stack(tmp_path: Path, space_group: int) -> None:
    path = volume(tmp_path / "sub.mrc", (8, 8, 8), space_group)
    with pytest.raises(CryosphereError, match="a 3D map of 8 voxels an edge"):
        ParticleStack.read(path)
    blocks = tables()
    blocks["particles"] = blocks["particles"].iloc[:1].assign(rlnImageName="sub.mrc")
    with pytest.raises(CryosphereError, match=r"a 3D map .* RELION's subtomogram averaging"):
        ParticleStack.read(written(tmp_path, blocks))


@pytest.mark.parametrize("space_group", [0, 1])
def test_a_micrograph_is_no_stack(tmp_path: Path, space_group: int) -> None:
    path = volume(tmp_path / "mic.mrc", (1, 1200, 1240), space_group)
    for work in (ParticleStack.read, describe):
        with pytest.raises(CryosphereError) as caught:
            work(path)
        assert str(caught.value) == (
            f"{path} is a micrograph of 1240 x 1200; extract particles first"
        )
    volume(tmp_path / "movie.mrc", (3, 1200, 1240), 0)
    with pytest.raises(CryosphereError, match="3 frames of 1240 x 1200; extract particles first"):
        describe(tmp_path / "movie.mrc")


def test_a_table_of_micrographs_is_none_of_particles(tmp_path: Path) -> None:
    write_star({"micrographs": pd.DataFrame({"rlnMicrographName": ["a.mrc"]})}, tmp_path / "m.star")
    with pytest.raises(CryosphereError, match=r"micrographs .*, not particles; extract particles"):
        describe(tmp_path / "m.star")


def test_rows_that_name_one_stack_without_a_number_are_refused(tmp_path: Path) -> None:
    blocks = tables()
    blocks["particles"]["rlnImageName"] = "a.mrcs"
    with pytest.raises(CryosphereError, match=r"row 1: .*without the number .*23 more rows"):
        ParticleStack.read(written(tmp_path, blocks))
    blocks["particles"] = blocks["particles"].iloc[:1]
    (warning,) = ParticleStack.read(written(tmp_path, blocks)).warnings[:1]
    assert "has 24 images and is named without the number of one; the first is taken" in warning


def test_files_of_one_image_need_no_number(tmp_path: Path) -> None:
    images = np.random.default_rng(1).normal(size=(NUMBER, 8, 8)).astype(np.float32)
    blocks = tables()
    blocks["particles"]["rlnImageName"] = [f"{number}.mrcs" for number in range(NUMBER)]
    for number, image in enumerate(images):
        write_stack(image[None], tmp_path / f"{number}.mrcs", 3.0)
    np.testing.assert_array_equal(ParticleStack.read(written(tmp_path, blocks)).images(), images)


@pytest.mark.parametrize("name", ["C:\\data\\J1\\a.mrcs", "D:/data/J1/a.mrcs"])
def test_windows_paths_are_known_as_such(tmp_path: Path, name: str) -> None:
    blocks = tables()
    names = [f"{number}@{name}" for number in range(1, NUMBER + 1)]
    blocks["particles"]["rlnImageName"] = names
    path = written(tmp_path, blocks)
    with pytest.raises(CryosphereError, match=r"a path of Windows: .* --data-dir"):
        ParticleStack.read(path)
    assert len(ParticleStack.read(path, data_dir=tmp_path).images()) == NUMBER


def test_three_places_are_named(tmp_path: Path) -> None:
    path = written(tmp_path, tables())
    (tmp_path / "a.mrcs").unlink()
    with pytest.raises(CryosphereError) as caught:
        ParticleStack.read(path)
    tried = str(caught.value).partition("tried ")[2].partition(";")[0]
    assert tried.count("a.mrcs") == min(3, len(tmp_path.parents) + 1)


def test_info_without_images_opens_none(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = written(tmp_path, tables())

    def refuse(self: object, path: object) -> None:
        raise AssertionError(f"opened {path}")

    monkeypatch.setattr("napari_cryosphere.particles.mrc.MrcStack.__init__", refuse)
    found = describe(path, images=False)
    assert found["particles"] == NUMBER
    assert found["box"] == 8
    assert found["warnings"] == []


def read_with(folder: Path, columns: dict[str, object]) -> ParticleStack:
    blocks = tables()
    blocks["particles"] = blocks["particles"].assign(**columns)
    return ParticleStack.read(written(folder, blocks))


def test_one_row_in_another_unit_is_named(tmp_path: Path) -> None:
    defocus = np.full(NUMBER, 12000.0)
    defocus[4] = 1.2
    (warning,) = read_with(tmp_path, {"rlnDefocusU": defocus}).warnings
    assert "particles row 5: rlnDefocusU is 1.2; others are up to 12000" in warning


def test_astigmatism_in_radians_is_warned_of(tmp_path: Path) -> None:
    (warning,) = read_with(tmp_path, {"rlnDefocusAngle": np.linspace(0, 3, NUMBER)}).warnings
    assert (
        "rlnDefocusAngle is 3 at most, and no angle is above 6.3; are they in radians?" in warning
    )


def priors(particles: pd.DataFrame, degrees: float = 0, angstrom: float = 0) -> dict[str, object]:
    angles = {f"rlnAngle{name}Prior": particles[f"rlnAngle{name}"] for name in ("Rot", "Tilt")}
    return {
        **angles,
        "rlnAnglePsiPrior": particles["rlnAnglePsi"] + degrees,
        "rlnOriginXPriorAngst": particles["rlnOriginXAngst"] + angstrom,
        "rlnOriginYPriorAngst": particles["rlnOriginYAngst"],
    }


@pytest.mark.parametrize(
    ("degrees", "angstrom", "said"),
    [
        (0, 0, ""),
        (360, 1, ""),
        (40, 0, "up to 40 degrees from the poses"),
        (0, 9, "up to 9 A from the poses"),
        (40, 9, "up to 40 degrees and 9 A from the poses"),
    ],
)
def test_priors_of_other_poses_are_warned_of(
    tmp_path: Path, degrees: float, angstrom: float, said: str
) -> None:
    columns = priors(tables()["particles"], degrees, angstrom)
    warnings = read_with(tmp_path, columns).warnings
    assert len(warnings) == bool(said)
    assert said in "".join(warnings)
    tubes = np.arange(NUMBER) // 2 % 2 + 1  # a tube's own priors are right
    halves = {"rlnHelicalTubeID": tubes, "rlnRandomSubset": tubes}
    assert read_with(tmp_path, columns | halves).warnings == ()


def test_info_says_what_images_hold_beside_a_ctf(tmp_path: Path) -> None:
    assert describe(written(tmp_path, tables()))["notes"] == []
    blocks = tables()
    blocks["optics"] = blocks["optics"].assign(
        rlnCtfDataArePhaseFlipped=1, rlnBeamTiltX=0.5, rlnBeamTiltY=0.0
    )
    blocks["optics"] = blocks["optics"].assign(
        rlnMagMat00=1.02, rlnMagMat01=0.0, rlnMagMat10=0.0, rlnMagMat11=0.99
    )
    columns = {"rlnCoordinateX": 5.0, "rlnCoordinateY": 6.0, "rlnHelicalTubeID": 1}
    blocks["particles"] = blocks["particles"].assign(**columns, rlnMicrographName="m.mrc")
    notes = describe(written(tmp_path, blocks))["notes"]
    assert "phase-flipped" in notes[0]
    assert "beam tilt" in notes[1]
    assert "anisotropic magnification of 2.00%" in notes[1]
    assert "1 filament" in notes[2]
    assert "1 micrograph" in notes[3]
    blocks["optics"]["rlnCtfDataAreCtfPremultiplied"] = 1
    blocks["particles"] = blocks["particles"].drop(columns="rlnDefocusU")
    notes = describe(written(tmp_path, blocks))["notes"]
    assert notes[0].startswith("images were multiplied by their CTF")
    assert notes[0].endswith("but the file has no CTF")


def test_flags_are_written_as_whole_numbers(tmp_path: Path) -> None:
    """RELION reads a flag as an integer."""
    blocks = tables()
    blocks["optics"]["rlnCtfDataArePhaseFlipped"] = 1
    ParticleStack.read(written(tmp_path, blocks)).save(tmp_path / "q.star")
    optics = starfile.read(tmp_path / "q.star")["optics"]
    assert optics["rlnCtfDataArePhaseFlipped"].dtype.kind == "i"


@pytest.mark.parametrize("text", ["[0,x]", "[nan,0]", "[1e30,0]"])
def test_info_reads_aberrations(tmp_path: Path, text: str) -> None:
    blocks = tables()
    blocks["optics"]["rlnOddZernike"] = text
    with pytest.raises(CryosphereError, match="rlnOddZernike of"):
        describe(written(tmp_path, blocks))


def test_symmetry_expansion_is_told_from_chance_repeats(tmp_path: Path) -> None:
    blocks = tables()
    blocks["particles"] = pd.concat([blocks["particles"]] * 3)
    said = "(each of 24 images is in 3 rows, as after symmetry expansion)"
    assert said in ParticleStack.read(written(tmp_path, blocks)).warnings[0]
    blocks["particles"] = blocks["particles"].iloc[:-1]
    assert "as after" not in ParticleStack.read(written(tmp_path, blocks)).warnings[0]


def test_a_map_named_like_a_stack_is_refused(tmp_path: Path) -> None:
    with pytest.raises(CryosphereError, match="a 3D map of 8 voxels an edge, not a stack"):
        describe(volume(tmp_path / "v.mrcs", (8, 8, 8), 1))
    with pytest.raises(CryosphereError, match=r"has 10 x 8 x 8 voxels; .* --box 10 pads or crops"):
        describe(volume(tmp_path / "v.mrc", (8, 8, 10), 1))


def test_a_map_written_as_an_image_stack_has_its_pixel_size(tmp_path: Path) -> None:
    """mrcfile gives image stacks mz = 1, and the whole depth as the cell's length."""
    with mrcfile.new(tmp_path / "m.mrc") as mrc:
        mrc.set_data(np.random.default_rng(2).normal(size=(8, 8, 8)).astype(np.float32))
        mrc.voxel_size = 3.0
        mrc.set_image_stack()
    assert describe(tmp_path / "m.mrc")["pixel_size_angstrom"] == 3


def test_a_voxel_size_out_of_range_is_refused(tmp_path: Path) -> None:
    path = volume(tmp_path / "m.mrc", (8, 8, 8), 1)
    with mrcfile.open(path, "r+") as mrc:
        mrc.voxel_size = 5000.0
    with pytest.raises(CryosphereError, match=r"voxels of 5000 A; a pixel size is 0\.01 to 1000 A"):
        describe(path)


@pytest.mark.parametrize("name", ["a\nb.star", "a\rb.mrc", "a\udcff.star", "a\x1b[31m.cs"])
def test_any_name_gives_one_printable_line(tmp_path: Path, name: str) -> None:
    with pytest.raises(CryosphereError) as caught:
        describe(tmp_path / name)
    assert str(caught.value).isprintable()


def test_pipes_and_folders_of_images_that_are_not_there_are_refused(tmp_path: Path) -> None:
    """A pipe's end may never come; who names a folder of images wants it to be used."""
    if hasattr(os, "mkfifo"):
        for name in ("a.star", "a.cs"):
            os.mkfifo(tmp_path / name)
            with pytest.raises(CryosphereError, match="is a pipe or device"):
                ParticleStack.read(tmp_path / name)
    with pytest.raises(CryosphereError, match=r"none \(--data-dir\) is not there"):
        ParticleStack.read(written(tmp_path, tables()), tmp_path / "none")
