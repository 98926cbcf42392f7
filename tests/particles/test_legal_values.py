"""Values out of range, units that were mistaken, and files that are no single particles: one line each."""

from __future__ import annotations

import warnings
from pathlib import Path

import mrcfile
import numpy as np
import pandas as pd
import pytest

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
        ("particles", "rlnDefocusU", 1e-4, "is it in micrometres? The unit is A"),
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
