"""ParticleStack on data sets made here: conventions, slicing, poses, paths and what is refused."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import starfile
from numpy.testing import assert_allclose, assert_array_equal
from numpy.typing import NDArray
from scipy.spatial.transform import Rotation

from napari_cryosphere.errors import (
    CryosphereError,
    FileFormatError,
    MetadataError,
    OutputExistsError,
)
from napari_cryosphere.particles import DensityMap, MrcStack, ParticleStack, write_stack, write_star

NUMBER, BOX = 10, 8
Make = Callable[..., Path]


@pytest.fixture
def images() -> NDArray[np.float32]:
    return np.random.default_rng(3).normal(size=(NUMBER, BOX, BOX)).astype(np.float32)


@pytest.fixture
def make(images: NDArray[np.float32], tmp_path: Path) -> Make:
    """Return a function that writes two stacks and a STAR file (by starfile); columns can be
    changed.
    """

    def write(
        *,
        optics: dict[str, Any] | None = None,
        drop: tuple[str, ...] = (),
        name: str = "in.star",
        **columns: Any,
    ) -> Path:
        if not (tmp_path / "a.mrcs").exists():
            write_stack(images[::2], tmp_path / "a.mrcs", 2.5)
            write_stack(images[1::2], tmp_path / "sub" / "b.mrcs", 2.5)
        rng = np.random.default_rng(4)
        rows = range(NUMBER)
        table = {
            "rlnImageName": [
                f"{i // 2 + 1:06d}@{'sub/b.mrcs' if i % 2 else 'a.mrcs'}" for i in rows
            ],
            "rlnMicrographName": [f"mic{i // 4}.mrc" for i in rows],
            "rlnOpticsGroup": [1 + i % 2 for i in rows],
            "rlnRandomSubset": [1 + i // 5 for i in rows],
            **{f"rlnAngle{name}": rng.uniform(5, 175, NUMBER) for name in ("Rot", "Tilt", "Psi")},
            **{f"rlnOrigin{axis}Angst": rng.normal(size=NUMBER) for axis in "XY"},
            "rlnDefocusU": rng.uniform(9000, 20000, NUMBER),
            "rlnDefocusV": rng.uniform(9000, 20000, NUMBER),
            "rlnDefocusAngle": rng.uniform(0, 180, NUMBER),
            **columns,
        }
        groups = {
            "rlnOpticsGroupName": ["one", "two"],
            "rlnOpticsGroup": [1, 2],
            "rlnVoltage": [300.0, 200.0],
            "rlnSphericalAberration": [2.7, 2.0],
            "rlnAmplitudeContrast": [0.1, 0.07],
            "rlnImagePixelSize": [2.5, 2.5],
            "rlnImageSize": [BOX, BOX],
            "rlnImageDimensionality": [2, 2],
            **(optics or {}),
        }
        keep = {key: pd.Series(value) for key, value in groups.items() if key not in drop}
        blocks = {
            "optics": pd.DataFrame(keep),
            "particles": pd.DataFrame(
                {key: value for key, value in table.items() if key not in drop}
            ),
            "extra": pd.DataFrame({"rlnFoo": [1, 2]}),
        }
        if "optics" in drop:
            del blocks["optics"]
        starfile.write(blocks, tmp_path / name, float_format="%.12g")
        return tmp_path / name

    return write


@pytest.fixture
def stack(make: Make) -> ParticleStack:
    return ParticleStack.read(make())


def test_what_is_read(stack: ParticleStack, images: NDArray[np.float32]) -> None:
    assert len(stack) == NUMBER
    assert (stack.box, stack.pixel_size_angstrom) == (BOX, 2.5)
    assert stack.has_poses
    assert stack.has_shifts
    assert stack.has_ctf
    assert stack.warnings == ()
    assert_array_equal(stack.images(), images)
    angles = stack.particles[["rlnAngleRot", "rlnAngleTilt", "rlnAnglePsi"]].to_numpy()
    assert_allclose(
        stack.rotations(), Rotation.from_euler("ZYZ", angles, degrees=True).as_matrix(), atol=1e-12
    )
    assert_array_equal(stack.shifts_angstrom()[:, 1], stack.particles["rlnOriginYAngst"])
    assert_array_equal(stack.half_sets(), [1] * 5 + [2] * 5)
    micrographs = stack.micrographs()
    assert micrographs is not None
    assert micrographs[4] == "mic1.mrc"
    assert list(stack.other_blocks) == ["extra"]


def test_ctf_takes_each_group_own_values(stack: ParticleStack) -> None:
    ctf = stack.ctf_parameters()
    assert_array_equal(ctf.voltage_kv, [300, 200] * 5)
    assert_array_equal(ctf.spherical_aberration_mm, [2.7, 2.0] * 5)
    assert_array_equal(ctf.amplitude_contrast, [0.1, 0.07] * 5)
    assert_array_equal(ctf.defocus_u_angstrom, stack.particles["rlnDefocusU"])
    assert_array_equal(ctf.phase_shift_degrees, np.zeros(NUMBER))
    assert len(ctf) == NUMBER
    assert_array_equal(ctf[[3, 1]].defocus_v_angstrom, stack.particles["rlnDefocusV"].iloc[[3, 1]])
    assert_array_equal(stack[3:].ctf_parameters().voltage_kv, ctf[3:].voltage_kv)


@pytest.mark.parametrize(
    "indices",
    [
        slice(2, 9, 3),
        slice(None, None, -1),
        np.array([7, 0, 0, 3]),
        np.arange(NUMBER) % 3 == 0,
        [9, 8, 1],
        [],
        np.zeros(NUMBER, dtype=bool),
        -1,
    ],
    ids=lambda value: str(value),
)
def test_slicing_and_indexing_agree(
    indices: Any, stack: ParticleStack, images: NDArray[np.float32]
) -> None:
    expected = images[indices].reshape(-1, BOX, BOX)
    part = stack[indices]
    assert_array_equal(part.images(), expected)
    assert_array_equal(stack.images(indices), expected)
    assert_array_equal(part.half_sets(), np.atleast_1d(stack.half_sets()[indices]))
    assert_array_equal(part.rotations(), stack.rotations()[indices].reshape(-1, 3, 3))
    assert part.box == BOX
    assert json.dumps(part.summary())
    with pytest.raises(IndexError):
        stack[[NUMBER]]


def test_slicing_never_opens_a_file(stack: ParticleStack, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object, **__: object) -> None:
        raise AssertionError("pixels were read")

    monkeypatch.setattr(MrcStack, "read", refuse)
    part = stack[::2][1:]
    part.summary(), part.half_sets(), part.rotations(), part.ctf_parameters()
    with pytest.raises(AssertionError):
        part.images()


def test_neighbours_are_read_in_one_go(
    stack: ParticleStack, monkeypatch: pytest.MonkeyPatch
) -> None:
    calls = []
    original = MrcStack.read
    monkeypatch.setattr(
        MrcStack, "read", lambda self, index: calls.append(self.path.name) or original(self, index)
    )
    stack.images([9, 0, 3, 2, 1])
    assert calls == ["a.mrcs", "b.mrcs"]


def test_half_sets_without_column_are_kept_by_slices(make: Make) -> None:
    stack = ParticleStack.read(make(drop=("rlnRandomSubset",)))
    assert_array_equal(stack.half_sets(), [1, 2] * 5)
    assert_array_equal(stack[1:4].half_sets(), [2, 1, 2])
    assert "no column rlnRandomSubset" in stack.warnings[0]


def test_relion_30_layout(make: Make, images: NDArray[np.float32], tmp_path: Path) -> None:
    base = ParticleStack.read(make())
    old = base.particles.drop(
        columns=["rlnOriginXAngst", "rlnOriginYAngst", "rlnOpticsGroup"]
    ).assign(
        rlnOriginX=base.particles["rlnOriginXAngst"] / 2.5,
        rlnOriginY=base.particles["rlnOriginYAngst"] / 2.5,
        rlnMagnification=20000.0,
        rlnDetectorPixelSize=5.0,
        rlnVoltage=[300.0, 200.0] * 5,
        rlnSphericalAberration=[2.7, 2.0] * 5,
        rlnAmplitudeContrast=[0.1, 0.07] * 5,
    )
    starfile.write({"": old}, tmp_path / "old.star", float_format="%.12g")
    stack = ParticleStack.read(tmp_path / "old.star")
    assert stack.pixel_size_angstrom == 2.5
    assert_allclose(stack.shifts_angstrom(), base.shifts_angstrom(), atol=1e-10)
    assert_array_equal(stack.ctf_parameters().voltage_kv, base.ctf_parameters().voltage_kv)
    assert_array_equal(stack.images(), images)
    assert stack.warnings == ()
    moved = stack.with_poses(stack.rotations(), np.ones((NUMBER, 2)))
    assert_allclose(moved.particles["rlnOriginX"], 0.4)
    moved.save(tmp_path / "new.star")
    again = ParticleStack.read(tmp_path / "new.star")
    assert_allclose(again.shifts_angstrom(), 1.0)
    assert again.summary()["optics_groups"] == 2
    assert list(starfile.read(tmp_path / "new.star")) == ["optics", "particles"]


def test_with_poses_keeps_the_earlier_ones(stack: ParticleStack) -> None:
    rotations = Rotation.random(NUMBER, random_state=5).as_matrix()
    turned = stack.with_poses(rotations)
    assert_allclose(turned.rotations(), rotations, atol=1e-9)
    assert_array_equal(
        stack.with_poses(stack.rotations()).particles["rlnAnglePsi"].round(6),
        stack.particles["rlnAnglePsi"].round(6),
    )
    assert_array_equal(turned.shifts_angstrom(), stack.shifts_angstrom())
    assert_array_equal(
        turned.particles["cryosphereInputAngleTilt"], stack.particles["rlnAngleTilt"]
    )
    twice = turned.with_poses(stack.rotations(), np.full((NUMBER, 2), 3.0))
    assert_array_equal(twice.particles["cryosphereInputAngleRot"], stack.particles["rlnAngleRot"])
    assert_array_equal(
        twice.particles["cryosphereInputOriginXAngst"], stack.particles["rlnOriginXAngst"]
    )
    assert_array_equal(twice.shifts_angstrom(), np.full((NUMBER, 2), 3.0))
    assert "cryosphereInputAngleRot" not in stack.particles


@pytest.mark.parametrize(
    ("rotations", "shifts", "says"),
    [
        (np.eye(3), None, "shape"),
        (np.tile(-np.eye(3), (NUMBER, 1, 1)), None, "rotation 1 is no rotation"),
        (np.tile(2 * np.eye(3), (NUMBER, 1, 1)), None, "no rotation"),
        (np.full((NUMBER, 3, 3), np.nan), None, "no rotation"),
        (np.tile(np.eye(3), (NUMBER, 1, 1)), np.zeros((NUMBER, 3)), "shifts must be finite"),
        (np.tile(np.eye(3), (NUMBER, 1, 1)), np.full((NUMBER, 2), np.nan), "shifts must be finite"),
    ],
)
def test_poses_that_are_refused(
    rotations: NDArray[np.float64],
    shifts: NDArray[np.float64] | None,
    says: str,
    stack: ParticleStack,
) -> None:
    with pytest.raises(MetadataError, match=says):
        stack.with_poses(rotations, shifts)


def test_with_columns(stack: ParticleStack, tmp_path: Path) -> None:
    more = stack.with_columns({"cryosphereSpread": np.arange(NUMBER) / 7})
    more.save(tmp_path / "out.star")
    again = ParticleStack.read(tmp_path / "out.star")
    assert_array_equal(again.particles["cryosphereSpread"], np.arange(NUMBER) / 7)
    assert "cryosphereSpread" not in stack.particles
    for bad, says in (
        ({"a": [1.0]}, "shape"),
        ({"rlnImageName": ["x"] * NUMBER}, "cannot be replaced"),
        ({"rlnDefocusU": [np.nan] * NUMBER}, "row 1: rlnDefocusU is nan"),
    ):
        with pytest.raises(MetadataError, match=says):
            stack.with_columns(bad)


@pytest.mark.parametrize("target", ["out.star", "below/deep/out.star", "../beside/out.star"])
def test_saved_paths_hold(
    target: str, stack: ParticleStack, images: NDArray[np.float32], tmp_path: Path
) -> None:
    stack.save(tmp_path / target)
    folder = (tmp_path / target).resolve().parent
    names = starfile.read(folder / "out.star")["particles"]["rlnImageName"]
    for name in names:  # as RELION resolves them when it runs in the STAR file's folder
        assert (folder / name.partition("@")[2]).is_file()
    assert_array_equal(ParticleStack.read(folder / "out.star").images(), images)
    with pytest.raises(OutputExistsError):
        stack.save(tmp_path / target)


def test_project_paths_stay_inside_the_project(
    make: Make, images: NDArray[np.float32], tmp_path: Path
) -> None:
    (tmp_path / "Refine3D" / "job001").mkdir(parents=True)
    make(name="Refine3D/job001/data.star")
    stack = ParticleStack.read(tmp_path / "Refine3D" / "job001" / "data.star")
    assert_array_equal(stack.images(), images)
    stack.save(tmp_path / "Other" / "job002" / "out.star")
    saved = ParticleStack.read(tmp_path / "Other" / "job002" / "out.star")
    assert saved.particles["rlnImageName"][1] == "000001@sub/b.mrcs"
    assert_array_equal(saved.images(), images)


def test_moved_images_need_the_data_dir(
    make: Make, images: NDArray[np.float32], tmp_path: Path
) -> None:
    path = make()
    (tmp_path / "moved").mkdir()
    shutil.move(tmp_path / "a.mrcs", tmp_path / "moved" / "a.mrcs")
    shutil.move(tmp_path / "sub" / "b.mrcs", tmp_path / "moved" / "b.mrcs")
    with pytest.raises(FileFormatError) as caught:
        ParticleStack.read(path)
    for part in ("row 1", str(tmp_path / "a.mrcs"), "--data-dir"):
        assert part in str(caught.value)
    stack = ParticleStack.read(path, data_dir=tmp_path / "moved")
    assert_array_equal(stack.images(), images)
    stack.save(tmp_path / "out.star")
    assert_array_equal(ParticleStack.read(tmp_path / "out.star").images(), images)
    poses_only = ParticleStack.read(path, require_images=False)
    assert poses_only.rotations().shape == (NUMBER, 3, 3)
    assert "2 stacks not found" in poses_only.warnings[0]
    with pytest.raises(MetadataError, match=r"particles row 1: the stack .* was not found"):
        poses_only.images()


def test_bare_stack(images: NDArray[np.float32], tmp_path: Path) -> None:
    write_stack(images, tmp_path / "bare.mrcs", 1.7)
    stack = ParticleStack.read(tmp_path / "bare.mrcs")
    assert_array_equal(stack.images([2, 5]), images[[2, 5]])
    assert stack.pixel_size_angstrom == pytest.approx(1.7)
    assert (stack.has_poses, stack.has_ctf, stack.has_shifts) == (False, False, False)
    with pytest.raises(MetadataError, match="rlnAngleRot"):
        stack.rotations()
    with pytest.raises(MetadataError, match="rlnDefocusU"):
        stack.ctf_parameters()
    posed = stack.with_poses(Rotation.random(NUMBER, random_state=6).as_matrix())
    posed.save(tmp_path / "posed.star")
    assert_allclose(
        ParticleStack.read(tmp_path / "posed.star").rotations(), posed.rotations(), atol=1e-12
    )


def test_summary_is_json(stack: ParticleStack) -> None:
    summary = json.loads(json.dumps(stack.summary()))
    assert summary["kind"] == "particles"
    assert (summary["particles"], summary["box"], summary["pixel_size_angstrom"]) == (
        NUMBER,
        BOX,
        2.5,
    )
    assert summary["half_sets"] == {"1": 5, "2": 5}
    assert summary["optics_groups"] == 2
    assert summary["size_bytes"] == 2 * 1024 + NUMBER * BOX * BOX * 4


def column(value: Any, row: int, good: float = 10.0) -> list[Any]:
    values: list[Any] = [good] * NUMBER
    values[row] = value
    return values


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        (
            {"rlnAngleTilt": column("abc", 4)},
            'particles row 5: rlnAngleTilt is "abc"; expected a finite number',
        ),
        ({"rlnAngleRot": column("nan", 2)}, "particles row 3: rlnAngleRot is nan"),
        ({"rlnAnglePsi": column("inf", 9)}, "particles row 10: rlnAnglePsi is inf"),
        ({"rlnOriginXAngst": column("x", 0)}, "row 1: rlnOriginXAngst"),
        ({"rlnDefocusU": column(1e9, 1, 1e4)}, "row 2: rlnDefocusU is 1e+09"),
        ({"rlnDefocusV": column("?", 1, 1e4)}, "row 2: rlnDefocusV"),
        ({"rlnPhaseShift": column("nan", 1)}, "row 2: rlnPhaseShift"),
        ({"rlnRandomSubset": column(3, 6, 1)}, "row 7: rlnRandomSubset is 3; a half set is 1 or 2"),
        (
            {"rlnOpticsGroup": column(3, 8, 1)},
            "row 9: rlnOpticsGroup is 3; the optics table has only 1, 2",
        ),
        ({"optics": {"rlnImagePixelSize": [2.5, -1.5]}}, "optics row 2: rlnImagePixelSize is -1.5"),
        (
            {"optics": {"rlnImagePixelSize": [0.0, 0.0]}},
            "optics row 1: rlnImagePixelSize is 0; it must be positive",
        ),
        ({"optics": {"rlnVoltage": ["kV", 300]}}, 'optics row 1: rlnVoltage is "kV"'),
        ({"optics": {"rlnImageSize": [8, 16]}}, "rlnImageSize is 16, but the images"),
        ({"optics": {"rlnImageSize": [16, 16]}}, "rlnImageSize is 16, but the images"),
        (
            {"optics": {"rlnOpticsGroup": [1, 1]}, "rlnOpticsGroup": 1},
            "row 2: rlnOpticsGroup is 1; each group",
        ),
        ({"drop": ("rlnOpticsGroup",)}, "data_optics has 2 rows but no column rlnOpticsGroup"),
        ({"drop": ("rlnImageName",)}, "no column rlnImageName"),
        ({"rlnImageName": column("000006@a.mrcs", 7, "1@a.mrcs")}, "row 8: image 6 of"),
        ({"rlnImageName": column("000000@a.mrcs", 7, "1@a.mrcs")}, "row 8: rlnImageName"),
        ({"rlnImageName": column("-1@a.mrcs", 7, "1@a.mrcs")}, "row 8: rlnImageName"),
        ({"rlnImageName": column("abc@a.mrcs", 7, "1@a.mrcs")}, "row 8: rlnImageName"),
        ({"rlnImageName": column("1@", 7, "1@a.mrcs")}, "row 8: rlnImageName"),
        ({"rlnImageName": column("1@sub", 7, "1@a.mrcs")}, "row 8: "),
        ({"rlnImageName": column("1@in.star", 7, "1@a.mrcs")}, "row 8: "),
    ],
)
def test_values_that_are_refused(changes: dict[str, Any], says: str, make: Make) -> None:
    path = make(**changes)
    with pytest.raises(CryosphereError) as caught:
        ParticleStack.read(path)
    assert says in str(caught.value)
    assert str(path.parent) in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({"rlnDefocusU": 1.2}, "is it in micrometres"),
        ({"rlnRandomSubset": 2}, "all particles are in half set 2"),
        (
            {"rlnImageName": column("2@a.mrcs", 7, "1@a.mrcs")},
            "8 rows with the image of an earlier row; some are in both",
        ),
        ({"drop": ("rlnOriginXAngst",)}, "no column rlnOriginXAngst; shifts there are taken as 0"),
        ({"drop": ("rlnAngleTilt",)}, "poses are incomplete: no column rlnAngleTilt"),
        ({"drop": ("rlnVoltage",)}, "the CTF is incomplete: no column rlnVoltage"),
        ({"drop": ("rlnImagePixelSize",)}, "no rlnImagePixelSize; 2.5 A was taken from the header"),
        ({"drop": ("optics",)}, "there is no optics table"),
    ],
)
def test_what_is_warned_of(changes: dict[str, Any], says: str, make: Make) -> None:
    stack = ParticleStack.read(make(**changes))
    assert any(says in warning for warning in stack.warnings), stack.warnings
    assert stack.images().shape == (NUMBER, BOX, BOX)
    assert stack.shifts_angstrom().shape == (NUMBER, 2)


@pytest.mark.parametrize(("shape", "says"), [((2, 6, 8), "must be square")])
def test_images_that_are_refused(shape: tuple[int, ...], says: str, tmp_path: Path) -> None:
    write_stack(np.ones(shape), tmp_path / "a.mrcs", 1.0)
    with pytest.raises(FileFormatError, match=says):
        ParticleStack.read(tmp_path / "a.mrcs")


def test_non_finite_pixels_name_the_row(make: Make, tmp_path: Path) -> None:
    path = make()
    data = bytearray((tmp_path / "sub" / "b.mrcs").read_bytes())
    start = 1024 + 2 * BOX * BOX * 4
    data[start : start + 4] = np.array([np.nan], dtype="<f4").tobytes()
    (tmp_path / "sub" / "b.mrcs").write_bytes(data)
    stack = ParticleStack.read(path)
    with pytest.raises(FileFormatError, match=r"particles row 6: .*b\.mrcs .* in image 3;"):
        stack[1:].images()
    assert stack.images([0, 1, 2, 3]).shape == (4, BOX, BOX)


def test_other_inputs(tmp_path: Path) -> None:
    write_stack(np.zeros((2, 4, 4)), tmp_path / "zero.mrcs", 1.0)
    for name, says in (
        ("none.cs", "does not exist"),
        ("none.star", "does not exist"),
        ("none.mrcs", "does not exist"),
    ):
        with pytest.raises(FileFormatError, match=says):
            ParticleStack.read(tmp_path / name)
    with pytest.raises(FileFormatError, match="is a folder"):
        ParticleStack.read(tmp_path)


def test_one_image_that_cannot_be_read_names_its_row(make: Make, tmp_path: Path) -> None:
    path = make()
    moved = tmp_path / "elsewhere.mrcs"
    (tmp_path / "sub" / "b.mrcs").rename(moved)
    stack = ParticleStack.read(path, require_images=False)
    assert stack.images(0).shape[-2:] == (BOX, BOX)
    for rows in (1, [0, 1]):
        with pytest.raises(
            MetadataError, match=r"particles row 2: the stack .*b.mrcs.* was not found"
        ):
            stack.images(rows)
    moved.rename(tmp_path / "sub" / "b.mrcs")
    whole = ParticleStack.read(path)
    (tmp_path / "sub" / "b.mrcs").write_bytes((tmp_path / "sub" / "b.mrcs").read_bytes()[:1100])
    with pytest.raises(FileFormatError, match=r"particles row 4: .*b\.mrcs"):
        whole.images(3)


def test_what_is_not_known_without_images_is_said(make: Make, tmp_path: Path) -> None:
    path = make(drop=("rlnImageSize", "rlnImagePixelSize"))
    for name in ("a.mrcs", "sub/b.mrcs"):
        (tmp_path / name).unlink()
    stack = ParticleStack.read(path, require_images=False)
    with pytest.raises(MetadataError, match="the box is not known; add rlnImageSize"):
        _ = stack.box
    with pytest.raises(MetadataError, match="the pixel size is not known; add rlnImagePixelSize"):
        _ = stack.pixel_size_angstrom
    assert stack.micrographs() is not None
    path = make(drop=("rlnMicrographName",), name="b.star")
    assert ParticleStack.read(path, require_images=False).micrographs() is None


def test_tables_that_leave_open_what_is_meant(tmp_path: Path) -> None:
    write_stack(np.zeros((2, 4, 4)), tmp_path / "a.mrcs", 1.0)
    rows = pd.DataFrame({"rlnImageName": ["1@a.mrcs", "2@a.mrcs"]})
    groups = pd.DataFrame({"rlnOpticsGroup": [1, 2], "rlnImagePixelSize": [1.0, 1.0]})
    for blocks, says in (
        ({"one": rows, "two": rows}, "several blocks with rlnImageName (data_one, data_two)"),
        (
            {"optics": groups[["rlnImagePixelSize"]], "particles": rows},
            "data_optics has 2 rows but no column",
        ),
        (
            {"optics": groups, "particles": rows},
            "particles have no column rlnOpticsGroup, but there are 2",
        ),
    ):
        write_star(blocks, tmp_path / "in.star", overwrite=True)
        with pytest.raises(MetadataError) as caught:
            ParticleStack.read(tmp_path / "in.star")
        assert says in str(caught.value)
    write_star(
        {"optics": groups[["rlnImagePixelSize"]][:1], "particles": rows}, tmp_path / "in.star", True
    )
    assert ParticleStack.read(tmp_path / "in.star").optics["rlnOpticsGroup"].tolist() == [1]


def test_a_map_and_stacks_of_two_pixel_sizes_are_no_particles(tmp_path: Path) -> None:
    DensityMap(np.zeros((8, 8, 8), dtype=np.float32), 2.0).save(tmp_path / "map.mrc")
    with pytest.raises(FileFormatError, match="a 3D map of 8 voxels an edge, not a stack"):
        ParticleStack.read(tmp_path / "map.mrc")
    for name, size in (("a", 1.0), ("b", 2.0)):
        write_stack(np.zeros((1, 4, 4)), tmp_path / f"{name}.mrcs", size)
    rows = pd.DataFrame({"rlnImageName": ["1@a.mrcs", "1@b.mrcs"]})
    write_star({"particles": rows}, tmp_path / "in.star")
    with pytest.raises(
        MetadataError, match="stacks with different pixel sizes; add rlnImagePixelSize"
    ):
        ParticleStack.read(tmp_path / "in.star")
