"""Coordinates, filaments and aberrations of .cs files in RELION's terms, and back; groups of results."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import mrcfile
import numpy as np
import pandas as pd
import pytest
from numpy.typing import NDArray
from scipy.spatial.transform import Rotation

from napari_cryosphere.errors import CryosphereError
from napari_cryosphere.jobs.configs import ConvertConfig
from napari_cryosphere.jobs.convert import convert
from napari_cryosphere.jobs.events import Note
from napari_cryosphere.particles import ParticleStack, read_cs, write_cs, write_stack, write_star
from napari_cryosphere.particles.aberrations import aberrations_of

N, BOX = 12, 8
LAMBDA_300KV = 0.0196875  # A
FLOAT32 = 3e-7


def fields() -> dict[str, NDArray[Any]]:
    rng = np.random.default_rng(5)
    return {
        "uid": rng.integers(2**62, 2**64, N, dtype=np.uint64),
        "blob/path": np.array([b">J1/extract/a.mrc"] * N),
        "blob/idx": np.arange(N).astype("<u4"),
        "blob/shape": np.full((N, 2), BOX, dtype="<u4"),
        "blob/psize_A": np.full(N, 1.3, dtype="<f4"),
        "blob/sign": np.full(N, -1, dtype="<f4"),
        "location/micrograph_uid": np.repeat([7, 9], N // 2).astype("<u8"),
        "location/micrograph_path": np.repeat([b">J0/m1.mrc", b"J0/m2.mrc"], N // 2),
        "location/micrograph_shape": np.tile(np.array([4092, 5760], "<u4"), (N, 1)),
        "location/center_x_frac": rng.uniform(0, 1, N).astype("<f4"),
        "location/center_y_frac": rng.uniform(0, 1, N).astype("<f4"),
        "filament/filament_uid": rng.integers(2**40, 2**63, 4, dtype="<u8").repeat(3),
        "filament/filament_pose": rng.uniform(-3, 3, N).astype("<f4"),
        "filament/position_A": (np.arange(N) % 3 * 30).astype("<f4"),
        "ctf/exp_group_id": np.repeat([3, 4], N // 2).astype("<u4"),
        "ctf/accel_kv": np.full(N, 300, dtype="<f4"),
        "ctf/cs_mm": np.full(N, 2.7, dtype="<f4"),
        "ctf/amp_contrast": np.full(N, 0.1, dtype="<f4"),
        "ctf/df1_A": rng.uniform(1e4, 2e4, N).astype("<f4"),
        "ctf/df2_A": rng.uniform(1e4, 2e4, N).astype("<f4"),
        "ctf/df_angle_rad": rng.uniform(-1.5, 1.5, N).astype("<f4"),
        "ctf/bfactor": np.full(N, 25, dtype="<f4"),
        "ctf/tilt_A": np.repeat([[3000, -2000], [0, 500]], N // 2, axis=0).astype("<f4"),
        "ctf/trefoil_A": np.repeat([[100, 50], [-30, 0]], N // 2, axis=0).astype("<f4"),
        "ctf/tetra_A": np.repeat([[10, -20, 30, 40], [0, 0, 5, 0]], N // 2, 0).astype("<f4"),
        "ctf/anisomag": np.repeat([[0.01, 0, 0.002, -0.01], [0] * 4], N // 2, 0).astype("<f4"),
        "alignments3D/split": (np.arange(N) // 3 % 2).astype("<u4"),
        "alignments3D/shift": rng.normal(size=(N, 2)).astype("<f4"),
        "alignments3D/pose": Rotation.random(N, rng=1).as_rotvec().astype("<f4"),
        "alignments3D/psize_A": np.full(N, 1.3, dtype="<f4"),
    }


def written(path: Path, given: dict[str, NDArray[Any]]) -> Path:
    types = [(name, column.dtype, column.shape[1:]) for name, column in given.items()]
    made = np.zeros(N, dtype=types)
    for name, column in given.items():
        made[name] = column
    write_cs(made, path, overwrite=True)
    return path


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    images = np.random.default_rng(6).normal(size=(N, BOX, BOX))
    write_stack(images, tmp_path / "J1/extract/a.mrc", 1.3)
    return tmp_path


@pytest.mark.parametrize("between", [".star", ".cs"])
def test_all_fields_come_back(folder: Path, between: str) -> None:
    given = fields()
    ParticleStack.read(written(folder / "in.cs", given)).save(folder / f"between{between}")
    ParticleStack.read(folder / f"between{between}").save(folder / "out.cs")
    found = read_cs(folder / "out.cs")
    for name, values in given.items():
        if values.dtype.kind == "f":
            scale = np.abs(values).max()
            np.testing.assert_allclose(found[name], values, rtol=0, atol=4e-6 * scale, err_msg=name)
        else:
            np.testing.assert_array_equal(found[name], values, err_msg=name)


def test_coordinates_and_filaments_in_relions_terms(folder: Path) -> None:
    given = fields()
    particles = ParticleStack.read(written(folder / "in.cs", given)).particles
    x = np.round(given["location/center_x_frac"] * 5760.0)
    y = np.round((1 - given["location/center_y_frac"].astype(float)) * 4092)
    np.testing.assert_array_equal(particles["rlnCoordinateX"], x)
    np.testing.assert_array_equal(particles["rlnCoordinateY"], y)
    # RELION counts tubes in 32 bits, anew in each micrograph
    assert particles["rlnHelicalTubeID"].tolist() == [1, 1, 1, 2, 2, 2] * 2
    psi = 90 - np.degrees(given["filament/filament_pose"].astype(float))
    turns = (particles["rlnAnglePsiPrior"] - psi) / 360
    np.testing.assert_allclose(turns, np.round(turns), atol=1e-7)
    assert particles["rlnAnglePsiPrior"].abs().max() <= 180
    assert particles["rlnHelicalTrackLengthAngst"].tolist() == [0, 30, 60] * 4


def test_small_tube_numbers_stay(folder: Path) -> None:
    given = fields() | {"filament/filament_uid": np.repeat([111, 5, 7, 8], 3).astype("<u8")}
    particles = ParticleStack.read(written(folder / "in.cs", given)).particles
    assert particles["rlnHelicalTubeID"].tolist()[::3] == [111, 5, 7, 8]


def test_moved_coordinates_and_psi_priors_are_written(folder: Path) -> None:
    ParticleStack.read(written(folder / "in.cs", fields())).save(folder / "p.star")
    stack = ParticleStack.read(folder / "p.star")
    stack = stack.with_columns({"rlnCoordinateX": stack.particles["rlnCoordinateX"] + 100})
    stack = stack.with_poses(Rotation.random(N, rng=3).as_matrix())
    stack.save(folder / "out.cs")
    found, given = read_cs(folder / "out.cs"), fields()
    moved = (found["location/center_x_frac"] - given["location/center_x_frac"]) * 5760.0
    np.testing.assert_allclose(moved, 100, atol=0.51)
    np.testing.assert_array_equal(found["location/center_y_frac"], given["location/center_y_frac"])
    psi = stack.particles["rlnAnglePsi"].to_numpy()
    off = np.exp(1j * (found["filament/filament_pose"] - np.radians(90 - psi)))
    np.testing.assert_allclose(off, 1, atol=1e-5)


def test_tubes_of_a_star_file_become_filaments_of_their_own(folder: Path) -> None:
    table = {
        "rlnImageName": [f"{number}@J1/extract/a.mrc" for number in range(1, N + 1)],
        "rlnOpticsGroup": 1,
        "rlnMicrographName": np.repeat(["m1.mrc", "m2.mrc"], N // 2),
        "rlnHelicalTubeID": [1, 1, 1, 2, 2, 2] * 2,
    }
    optics = {"rlnOpticsGroup": [1], "rlnImagePixelSize": [1.3]}
    blocks = {"optics": pd.DataFrame(optics), "particles": pd.DataFrame(table)}
    write_star(blocks, folder / "p.star")
    stack = ParticleStack.read(folder / "p.star")
    stack.save(folder / "out.cs")
    assert len(np.unique(read_cs(folder / "out.cs")["filament/filament_uid"])) == 4
    again = ParticleStack.read(folder / "out.cs")
    np.testing.assert_array_equal(again.filaments(), stack.filaments())
    assert again.particles["rlnHelicalTubeID"].tolist() == table["rlnHelicalTubeID"]


def test_aberrations_have_cryosparcs_phase(folder: Path) -> None:
    """The phase over the frequency, of RELION's columns, against cryoSPARC's own formula."""
    stack = ParticleStack.read(written(folder / "in.cs", fields()))
    k = np.random.default_rng(7).uniform(-0.25, 0.25, (50, 2))
    radius, angle = np.hypot(*k.T), np.arctan2(k[:, 1], k[:, 0])
    wave2, wave3 = LAMBDA_300KV**2 * radius**3, LAMBDA_300KV**3 * radius**4
    found = aberrations_of(stack)
    first, second = found.kinds[found.of[0]], found.kinds[found.of[-1]]
    tilt = -2 * np.pi * wave2 * (3000 * np.cos(angle) - 2000 * np.sin(angle))
    trefoil = 2 / 3 * np.pi * wave2 * (100 * np.sin(3 * angle) + 50 * np.cos(3 * angle))
    np.testing.assert_allclose(first.odd_phase(k), tilt + trefoil, rtol=2e-5, atol=1e-6)
    twofold = 2 * np.pi * wave3 * (-10 * np.cos(2 * angle) - 20 * np.sin(2 * angle))
    fourfold = np.pi / 2 * wave3 * (30 * np.cos(4 * angle) - 40 * np.sin(4 * angle))
    even = -first.even_phase(k)
    np.testing.assert_allclose(even, twofold + fourfold, rtol=2e-5, atol=1e-7)
    np.testing.assert_allclose(first.magnification, np.array([1.01, 0, 0.002, 0.99]), rtol=1e-6)
    np.testing.assert_allclose(
        -second.even_phase(k), np.pi / 2 * wave3 * 5 * np.cos(4 * angle), rtol=2e-5, atol=1e-8
    )
    assert second.matrix is None
    # as pyem: arcsin(tilt_A / cs_mm * 1e-7) * 1e3
    group = stack.optics[stack.optics["rlnOpticsGroup"] == stack.optics_groups()[0]].iloc[0]
    assert group["rlnBeamTiltX"] == pytest.approx(np.arcsin(3000 / 2.7 * 1e-7) * 1e3, rel=1e-6)
    assert group["rlnBeamTiltY"] == pytest.approx(np.arcsin(-2000 / 2.7 * 1e-7) * 1e3, rel=1e-6)
    assert (stack.particles["rlnCtfBfactor"] == 25).all()
    assert "not applied" not in " ".join(stack.warnings)


def test_polynomials_that_cryosparc_has_none_for_come_back(folder: Path) -> None:
    ParticleStack.read(written(folder / "in.cs", fields())).save(folder / "p.star")
    stack = ParticleStack.read(folder / "p.star")
    stack.optics["rlnOddZernike"] = "[0.5,0,0.1,0.2,0,0.3,1,0,0,0,0,0]"
    stack.optics["rlnEvenZernike"] = "[0,0,2,0,0,0,0.5,0,1]"
    stack.save(folder / "out.cs")
    again = ParticleStack.read(folder / "out.cs")
    k = np.random.default_rng(7).uniform(-0.25, 0.25, (50, 2))
    for name in ("odd_phase", "even_phase"):
        now, before = (getattr(aberrations_of(each).kinds[0], name)(k) for each in (again, stack))
        np.testing.assert_allclose(now, before, rtol=1e-5, atol=1e-9)


def test_a_tilt_beyond_the_lens_is_refused(folder: Path) -> None:
    given = fields()
    given["ctf/tilt_A"][4] = 3e7
    with pytest.raises(CryosphereError, match=r"in.cs: row 5: ctf/tilt_A is .*2.7e\+07 A"):
        ParticleStack.read(written(folder / "in.cs", given))


@pytest.mark.parametrize(
    ("name", "value", "said"),
    [
        ("ctf/amp_contrast", 10, "row 4: ctf/amp_contrast is 10; amplitude contrast is 0 to 1"),
        ("ctf/accel_kv", 3e5, "row 4: ctf/accel_kv is 300000; .*300000 V would be 300 kV"),
        ("ctf/cs_mm", 2.7e7, "row 4: ctf/cs_mm is .* A would be 2.7 mm"),
        ("ctf/df1_A", 1e9, "row 4: ctf/df1_A is 1e.09; a defocus is"),
        ("alignments3D/split", 5, "row 4: alignments3D/split is 6; a half set is 1 or 2"),
    ],
)
def test_messages_use_the_files_own_names(folder: Path, name: str, value: float, said: str) -> None:
    given = fields()
    given[name][3] = value
    with pytest.raises(CryosphereError, match=said) as caught:
        ParticleStack.read(written(folder / "in.cs", given))
    assert "rln" not in str(caught.value)


def test_what_is_missing_is_named_as_the_file_names_it(folder: Path) -> None:
    given = {name: values for name, values in fields().items() if name != "ctf/df1_A"}
    del given["alignments3D/pose"], given["alignments3D/split"], given["filament/filament_uid"]
    stack = ParticleStack.read(written(folder / "in.cs", given))
    with pytest.raises(CryosphereError, match="no CTF: no column ctf/df1_A"):
        stack.ctf_parameters()
    with pytest.raises(CryosphereError, match="no poses: no column alignments3D/pose"):
        stack.rotations()
    assert not any("rln" in line for line in stack.warnings)


def test_micrographs_are_no_particles(folder: Path) -> None:
    given = {"uid": fields()["uid"], "micrograph_blob/path": fields()["blob/path"]}
    with pytest.raises(CryosphereError, match=r"micrographs .*, not particles; extract particles"):
        ParticleStack.read(written(folder / "in.cs", given))


CSG = """created: 2024-01-01 10:00:00.0
group: {description: All particles, name: particles, title: All particles, type: particle}
results:
  blob: {metafile: '>J3_particles.cs', num_items: 12, type: particle.blob}
  alignments3D: {metafile: '>J3_particles.cs', num_items: 12, type: particle.alignments3D}
  ctf: {metafile: '>J3_passthrough.cs', num_items: 12, type: particle.ctf}
  location: {metafile: '>J3_passthrough.cs', num_items: 12, type: particle.location}
version: v4.4.1
"""


def test_groups_are_read(folder: Path) -> None:
    given = fields()
    order = np.random.default_rng(8).permutation(N)
    first = {name: values for name, values in given.items() if name.split("/")[0] != "location"}
    first["ctf/df1_A"] = np.full(N, 1e4, "<f4")  # the group takes the CTF from the other file
    second = {
        name: values[order]
        for name, values in given.items()
        if name.split("/")[0] in ("uid", "ctf", "location")
    }
    written(folder / "J3_particles.cs", first)
    written(folder / "J3_passthrough.cs", second)
    (folder / "group.csg").write_text(CSG)
    stack = ParticleStack.read(folder / "group.csg")
    expected = ParticleStack.read(written(folder / "in.cs", given))
    for name in ("rlnDefocusU", "rlnAngleRot", "rlnCoordinateY", "rlnImageName"):
        assert stack.particles[name].tolist() == expected.particles[name].tolist()
    np.testing.assert_array_equal(stack.images(), expected.images())
    np.testing.assert_array_equal(
        expected.images(), -np.random.default_rng(6).normal(size=(N, BOX, BOX)).astype(np.float32)
    )


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("", "has no results"),
        ("results: {}", "it names none"),
        ("results: [1]", "it names none"),
        ("results: {blob: {num_items: 2}}", 'the result "blob" has no metafile'),
        ("results: {blob: {metafile: '>none.cs'}}", "none.cs does not exist"),
        ("\x00", "is not YAML"),
        ("results: !!python/object:os.system {}", "is not YAML"),
        ("a: &a [*a]", "it names none|no results|not YAML"),
        ("results: {blob: {metafile: '>a:\n\n b.cs'}}", r"a:\\nb\.cs does not exist"),
        (
            "results: {blob: {metafile: '>in.cs', num_items: 7}}",
            "num_items is 7 for in.cs, which has 12",
        ),
    ],
)
def test_broken_groups_are_one_line(folder: Path, text: str, said: str) -> None:
    written(folder / "in.cs", fields())
    (folder / "group.csg").write_text(text)
    with pytest.raises(CryosphereError, match=said) as caught:
        ParticleStack.read(folder / "group.csg")
    assert "\n" not in str(caught.value)


def test_reported_files(shared_data: Path, tmp_path: Path) -> None:
    folder = (shared_data / "reports/locations.cs").parent
    located = ParticleStack.read(folder / "locations.cs").particles
    assert located.loc[0, ["rlnCoordinateX", "rlnCoordinateY"]].tolist() == [1841, 3265]
    helical = ParticleStack.read(folder / "filaments.cs")
    assert helical.particles["rlnAnglePsiPrior"][0] == pytest.approx(90 - np.degrees(0.5), abs=1e-5)
    for name in ("locations", "filaments", "aberrations"):
        ParticleStack.read(folder / f"{name}.cs").save(tmp_path / "p.star", overwrite=True)
        ParticleStack.read(tmp_path / "p.star").save(tmp_path / "p.cs", overwrite=True)
        given, found = read_cs(folder / f"{name}.cs"), read_cs(tmp_path / "p.cs")
        for field in given.dtype.names or ():
            if given[field].dtype.kind == "f":
                scale = max(np.abs(given[field]).max(), 1e-6)
                np.testing.assert_allclose(found[field], given[field], rtol=0, atol=4e-6 * scale)


def test_fields_that_a_star_file_carries_are_translated(folder: Path) -> None:
    """A table converted without RELION's columns is read as one with them."""
    ParticleStack.read(written(folder / "in.cs", fields())).save(folder / "new.star")
    new = ParticleStack.read(folder / "new.star")
    columns = [
        *("rlnCoordinateX", "rlnCoordinateY", "rlnHelicalTubeID", "rlnAnglePsiPrior"),
        *("rlnHelicalTrackLengthAngst", "rlnCtfBfactor"),
    ]
    old = new.particles.drop(columns=columns)
    for name in ("ctf/bfactor", "filament/filament_pose", "filament/position_A"):
        old[f"cryosparc/{name}"] = fields()[name]
    for name in ("ctf/tilt_A", "ctf/trefoil_A", "ctf/tetra_A", "ctf/anisomag"):
        for component, values in enumerate(fields()[name].T):
            old[f"cryosparc/{name}[{component}]"] = values
    aberrations = [name for name in new.optics if "Zernike" in name or "Tilt" in name]
    aberrations += [name for name in new.optics if "MagMat" in name]
    optics = new.optics.drop(columns=aberrations)
    write_star({"optics": optics, "particles": old}, folder / "old.star")
    again = ParticleStack.read(folder / "old.star")
    for name in columns:
        np.testing.assert_allclose(
            again.particles[name].astype(float), new.particles[name].astype(float), rtol=1e-6
        )
    assert not any("tilt_A" in name or "filament_pose" in name for name in again.particles)
    for now, before in zip(aberrations_of(again).kinds, aberrations_of(new).kinds, strict=True):
        np.testing.assert_allclose(now.odd_zernike, before.odd_zernike, rtol=1e-5)
        np.testing.assert_allclose(now.even_zernike, before.even_zernike, rtol=1e-5)
        np.testing.assert_allclose(now.magnification, before.magnification, rtol=1e-6)
    assert set(aberrations) <= set(again.optics)
    again.save(folder / "out.cs")
    found = read_cs(folder / "out.cs")
    for name in ("ctf/tilt_A", "ctf/trefoil_A", "filament/filament_pose", "ctf/bfactor"):
        np.testing.assert_allclose(found[name], fields()[name], rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("there", [True, False])
def test_coordinates_of_a_star_file_need_the_micrographs_size(folder: Path, there: bool) -> None:
    for number in range(2 if there else 1):
        with mrcfile.new(folder / f"m{number}.mrc") as mrc:
            mrc.set_data(np.zeros((40 + number, 80), dtype=np.int8))
    table = {
        "rlnImageName": [f"{number}@J1/extract/a.mrc" for number in range(1, N + 1)],
        "rlnMicrographName": np.repeat(["m0.mrc", "m1.mrc"], N // 2),
        "rlnCoordinateX": np.arange(N) * 2.0,
        "rlnCoordinateY": np.arange(N) * 3.0,
        "rlnImagePixelSize": 1.3,
    }
    write_star({"particles": pd.DataFrame(table)}, folder / "p.star")
    config = ConvertConfig(particles=folder / "p.star", output=folder / "out.cs")
    notes = [event.text for event in convert(config) if isinstance(event, Note)]
    assert any("cryoSPARC needs the micrographs' size" in note for note in notes) != there
    found = read_cs(folder / "out.cs")
    if there:
        rows = np.repeat([40, 41], N // 2)
        np.testing.assert_allclose(found["location/center_x_frac"], np.arange(N) * 2 / 80)
        np.testing.assert_allclose(
            found["location/center_y_frac"], 1 - np.arange(N) * 3 / rows, rtol=1e-6
        )
    again = ParticleStack.read(folder / "out.cs").particles
    for name in ("rlnCoordinateX", "rlnCoordinateY"):
        assert again[name].tolist() == table[name].tolist()


@pytest.mark.parametrize("name", ["ctf/df_angle_rad", "ctf/phase_shift_rad", "alignments3D/pose"])
def test_degrees_for_radians_are_refused(folder: Path, name: str) -> None:
    given = fields()
    given[name] = given.get(name, np.full(N, 1, "<f4")) * np.float32(180 / np.pi)
    with pytest.raises(CryosphereError, match=f"row 1: {name} is .*degrees. The unit is radians"):
        ParticleStack.read(written(folder / "in.cs", given))


@pytest.mark.parametrize("axis", ["x", "y"])
def test_a_place_outside_the_micrograph_is_named(folder: Path, axis: str) -> None:
    given = fields()
    given[f"location/center_{axis}_frac"][2] = 1.5
    warnings = ParticleStack.read(written(folder / "in.cs", given)).warnings
    assert any(
        f"row 3: location/center_{axis}_frac is 1.5; the particle lies" in w for w in warnings
    )


def test_volumes_are_no_particles(folder: Path) -> None:
    with pytest.raises(CryosphereError, match=r"holds volumes \(map/path\), not particles"):
        ParticleStack.read(written(folder / "in.cs", {"map/path": np.full(N, b"a.mrc")}))


def test_a_voltage_out_of_range_is_refused_before_it_is_used(folder: Path) -> None:
    """The wavelength of 1e300 V overflows; in a STAR file that carries cryoSPARC's fields too."""
    given = fields()
    ParticleStack.read(written(folder / "in.cs", given)).save(folder / "p.star")
    text = (folder / "p.star").read_text()
    (folder / "q.star").write_text(text.replace(" 300.0 ", " 1e300 "))
    given["ctf/accel_kv"] = np.full(N, 1e300)
    for path, name in ((folder / "q.star", "rlnVoltage"), (folder / "in.cs", "ctf/accel_kv")):
        if path.suffix == ".cs":
            written(path, given)
        with pytest.raises(CryosphereError, match=f"{name} is 1e.?300; a voltage is 1 to 3000 kV"):
            ParticleStack.read(path)
