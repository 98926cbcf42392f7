"""cryoSPARC files: conventions against other programs' files, passthrough files, and STAR to CS to
STAR.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from numpy.testing import assert_allclose, assert_array_equal
from numpy.typing import NDArray
from scipy.spatial.transform import Rotation

from napari_cryosphere.errors import (
    CryosphereError,
    FileFormatError,
    MetadataError,
    OutputExistsError,
)
from napari_cryosphere.particles import ParticleStack, read_cs, write_cs, write_stack, write_star
from napari_cryosphere.so3.rotations import geodesic_distance_degrees

N, BOX = 24, 8
Make = Callable[..., Path]


@pytest.fixture
def fields() -> dict[str, NDArray[Any]]:
    rng = np.random.default_rng(5)
    return {
        "uid": rng.integers(2**62, 2**64, N, dtype=np.uint64),
        "blob/path": np.array([b">J1/extract/a.mrc", b">J1/extract/b.mrc"] * (N // 2)),
        "blob/idx": (np.arange(N) // 2).astype("<u4"),
        "blob/shape": np.full((N, 2), BOX, dtype="<u4"),
        "blob/psize_A": np.full(N, 1.3, dtype="<f4"),
        "ctf/exp_group_id": (np.arange(N) % 3 + 7).astype("<u4"),
        "ctf/accel_kv": np.full(N, 300, dtype="<f4"),
        "ctf/cs_mm": np.full(N, 2.7, dtype="<f4"),
        "ctf/amp_contrast": np.full(N, 0.1, dtype="<f4"),
        "ctf/df1_A": rng.uniform(1e4, 2e4, N).astype("<f4"),
        "ctf/df2_A": rng.uniform(1e4, 2e4, N).astype("<f4"),
        "ctf/df_angle_rad": rng.uniform(-1.5, 1.5, N).astype("<f4"),
        "ctf/phase_shift_rad": np.full(N, np.pi / 2, dtype="<f4"),
        "alignments3D/split": (np.arange(N) % 2).astype("<u4"),
        "alignments3D/shift": rng.normal(size=(N, 2)).astype("<f4"),
        "alignments3D/pose": Rotation.random(N, rng=1).as_rotvec().astype("<f4"),
        "alignments3D/psize_A": np.full(N, 2.6, dtype="<f4"),
        "alignments3D/alpha": rng.normal(size=N).astype("<f4"),
        "alignments3D/class": np.zeros(N, dtype="<u4"),
        "extra/vector": rng.normal(size=(N, 2)),
    }


def records(fields: dict[str, NDArray[Any]]) -> NDArray[Any]:
    made = np.zeros(
        N, dtype=[(name, column.dtype, column.shape[1:]) for name, column in fields.items()]
    )
    for name, column in fields.items():
        made[name] = column
    return made


@pytest.fixture
def make(fields: dict[str, NDArray[Any]], tmp_path: Path) -> Make:
    """A project of two stacks, and a .cs file in it with some fields changed (None leaves one out)."""
    rng = np.random.default_rng(6)
    for name in ("a", "b"):
        write_stack(rng.normal(size=(N // 2, BOX, BOX)), tmp_path / f"J1/extract/{name}.mrc", 1.3)

    def write(name: str = "J3_010_particles.cs", **changes: Any) -> Path:
        changed = {**fields, **{key.replace("__", "/"): value for key, value in changes.items()}}
        path = tmp_path / "J3" / name
        write_cs(records({key: value for key, value in changed.items() if value is not None}), path)
        return path

    return write


def test_fields_in_relions_terms(make: Make, fields: dict[str, NDArray[Any]]) -> None:
    stack = ParticleStack.read(make())
    expected = Rotation.from_rotvec(fields["alignments3D/pose"].astype(np.float64)).as_matrix()
    assert geodesic_distance_degrees(stack.rotations(), expected).max() < 1e-6
    assert_allclose(stack.shifts_angstrom(), fields["alignments3D/shift"] * 2.6, rtol=1e-6)
    assert_array_equal(stack.half_sets(), fields["alignments3D/split"] + 1)
    assert stack.pixel_size_angstrom == 1.3  # not 1.2999999523162842
    ctf = stack.ctf_parameters()
    assert_allclose(ctf.defocus_angle_degrees, np.degrees(fields["ctf/df_angle_rad"]), rtol=1e-6)
    assert_allclose(ctf.phase_shift_degrees, 90, rtol=1e-6)
    assert (ctf.spherical_aberration_mm == 2.7).all()
    assert sorted(stack.optics["cryosparc/ctf/exp_group_id"]) == [7, 8, 9]
    assert stack.particles["rlnImageName"].tolist()[:3] == [
        *("000001@J1/extract/a.mrc", "000001@J1/extract/b.mrc", "000002@J1/extract/a.mrc")
    ]
    assert stack.images().shape == (N, BOX, BOX)


def test_a_cs_file_and_a_star_file_of_one_data_set(shared_data: Path) -> None:
    real = shared_data / "wild/real"
    cs, star = (
        ParticleStack.read(real / f"cryodrgn__empiar_10076_7.{kind}", require_images=False)
        for kind in ("cs", "star")
    )
    for field in (
        "defocus_u_angstrom",
        "defocus_v_angstrom",
        "defocus_angle_degrees",
        "amplitude_contrast",
    ):
        ours, theirs = getattr(cs.ctf_parameters(), field), getattr(star.ctf_parameters(), field)
        assert_allclose(ours, theirs, rtol=1e-6)
    assert cs.pixel_size_angstrom == pytest.approx(star.pixel_size_angstrom, rel=1e-6)
    assert (
        cs.particles["rlnImageName"].str.lstrip("0").tolist()
        == star.particles["rlnImageName"].tolist()
    )


def test_real_files(shared_data: Path) -> None:
    real = shared_data / "wild/real"
    refined = ParticleStack.read(
        real / "cryodrgn__cryosparc_P12_J24_001_particles.cs", require_images=False
    )
    assert (len(refined), refined.has_poses, refined.has_ctf, refined.box) == (
        2019,
        True,
        True,
        180,
    )
    assert set(refined.half_sets()) == {1, 2}
    assert any("dark on light" in warning for warning in refined.warnings)
    classified = ParticleStack.read(
        real / "cryodrgn__cryosparc_J2_particles_exported.cs", require_images=False
    )
    assert not classified.has_poses
    assert any("no 3D poses" in warning for warning in classified.warnings)
    with pytest.raises(CryosphereError, match="no stack"):
        ParticleStack.read(real / "cryodrgn__cryosparc_J2_particles_exported.cs")


def test_there_and_back_keeps_every_field(
    make: Make, fields: dict[str, NDArray[Any]], tmp_path: Path
) -> None:
    source = make()
    ParticleStack.read(source).save(tmp_path / "a.star")
    ParticleStack.read(tmp_path / "a.star").save(tmp_path / "a.cs")
    back = read_cs(tmp_path / "a.cs")
    same_size = fields["alignments3D/shift"] * 2  # in pixels of the images, not of the refinement
    for name, column in fields.items():
        if name == "blob/path":
            assert_array_equal(back[name], column)
        elif name.startswith("alignments3D/psize"):
            assert_array_equal(back[name], fields["blob/psize_A"])
        else:
            expected = same_size if name == "alignments3D/shift" else column
            assert_allclose(
                back[name], expected, rtol=3e-7, atol=1e-6 if name.endswith("pose") else 0
            )
    assert_array_equal(back["uid"], fields["uid"])


def test_star_to_cs_to_star(shared_data: Path, tmp_path: Path) -> None:
    star = shared_data / "particles/ribo70S_test.star"
    first = ParticleStack.read(star)
    first.save(tmp_path / "a.cs")
    ParticleStack.read(tmp_path / "a.cs").save(tmp_path / "b.star")
    second = ParticleStack.read(tmp_path / "b.star")
    assert geodesic_distance_degrees(first.rotations(), second.rotations()).max() < 1e-4
    assert_allclose(first.shifts_angstrom(), second.shifts_angstrom(), rtol=0, atol=1e-3)
    assert_array_equal(first.half_sets(), second.half_sets())
    assert set(first.particles) <= set(second.particles)
    assert_array_equal(first.particles["rlnMicrographName"], second.particles["rlnMicrographName"])
    assert_allclose(first.particles["rlnDefocusU"], second.particles["rlnDefocusU"], atol=1e-3)
    for column in first.optics:
        assert first.optics[column].tolist() == second.optics[column].tolist()
    assert_array_equal(first.images([3, 900]), second.images([3, 900]))


def test_writing_is_stable(make: Make, tmp_path: Path) -> None:
    ParticleStack.read(make()).save(tmp_path / "a.cs")
    ParticleStack.read(tmp_path / "a.cs").save(tmp_path / "b.cs")
    assert (tmp_path / "a.cs").read_bytes() == (tmp_path / "b.cs").read_bytes()
    with pytest.raises(OutputExistsError):
        ParticleStack.read(tmp_path / "a.cs").save(tmp_path / "b.cs")


def test_columns_of_other_kinds_come_back(tmp_path: Path) -> None:
    particles = pd.DataFrame(
        {
            "rlnImageName": ["1@none.mrcs", "2@none.mrcs"],
            "rlnRandomSubset": [1, 1],
            "rlnClassNumber": [3, 4],
            "myText": ["a b", ""],
            "myNumber": [0.1, 1e300],
            "myInteger": [-5, 2**60],
        }
    )
    write_star({"particles": particles, "general": pd.DataFrame({"x": [1]})}, tmp_path / "a.star")
    stack = ParticleStack.read(tmp_path / "a.star", require_images=False)
    stack.save(tmp_path / "a.cs")
    back = ParticleStack.read(tmp_path / "a.cs", require_images=False)
    for column in particles.columns[1:]:
        assert back.particles[column].tolist() == particles[column].tolist()
    assert back.optics["rlnOpticsGroupName"].tolist() == stack.optics["rlnOpticsGroupName"].tolist()


@pytest.mark.parametrize("order", ["same", "shuffled"])
def test_passthrough_file_is_merged_by_uid(
    order: str, make: Make, fields: dict[str, NDArray[Any]], tmp_path: Path
) -> None:
    kept = (
        "uid",
        "alignments3D/pose",
        "alignments3D/shift",
        "alignments3D/psize_A",
        "alignments3D/split",
    )
    rows = np.arange(N) if order == "same" else np.random.default_rng(0).permutation(N)
    whole = ParticleStack.read(make("whole.cs"))
    path = make(**{name.replace("/", "__"): None for name in fields if name not in kept})
    with pytest.raises(MetadataError, match=r"no images: no field blob/path"):
        ParticleStack.read(path)
    others = {name: column[rows] for name, column in fields.items() if name not in kept[1:]}
    write_cs(records(others), tmp_path / "J3" / "J3_passthrough_particles.cs")
    write_cs(records(others), tmp_path / "J3" / "J4_passthrough_particles.cs")
    stack = ParticleStack.read(path)
    assert stack.particles["rlnImageName"].tolist() == whole.particles["rlnImageName"].tolist()
    assert_array_equal(stack.rotations(), whole.rotations())
    assert_array_equal(
        stack.ctf_parameters().defocus_u_angstrom, whole.ctf_parameters().defocus_u_angstrom
    )
    assert any(
        "taken from J3_passthrough_particles.cs, by uid" in warning for warning in stack.warnings
    )
    assert not any("J4" in warning for warning in stack.warnings)


def test_the_likeliest_class(make: Make, fields: dict[str, NDArray[Any]]) -> None:
    rng = np.random.default_rng(2)
    likelihood = rng.random((N, 3)).astype("<f4")
    poses = Rotation.random(3 * N, rng=3).as_rotvec().reshape(N, 3, 3)
    best = poses[np.arange(N), likelihood.argmax(axis=1)]
    none = {name.replace("/", "__"): None for name in fields if name.startswith("alignments3D/")}
    multi = {"alignments3D_multi__class_posterior": likelihood, "alignments3D_multi__pose": poses}
    separate = {
        f"alignments_class_{k}__{name}": values[:, k]
        for k in range(3)
        for name, values in (("class_posterior", likelihood), ("pose", poses))
    }
    for number, changes in enumerate((multi, separate)):
        stack = ParticleStack.read(make(f"{number}.cs", **none, **changes))
        expected = Rotation.from_rotvec(best).as_matrix()
        assert geodesic_distance_degrees(stack.rotations(), expected).max() < 1e-6
        assert any("3 classes" in warning for warning in stack.warnings)


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        (
            {"alignments3D__pose": np.full((N, 3), np.nan)},
            "row 1: alignments3D/pose is [nan nan nan]",
        ),
        ({"alignments3D__pose": np.zeros(N)}, "alignments3D/pose has float64 of shape (24,)"),
        ({"ctf__df1_A": np.where(np.arange(N) == 4, np.inf, 1e4)}, "row 5: ctf/df1_A is inf"),
        ({"ctf__df1_A": np.full(N, 1e9)}, "row 1: ctf/df1_A is 1e+09"),
        ({"blob__psize_A": np.full(N, -1.0)}, "blob/psize_A is -1"),
        (
            {"blob__shape": np.tile([8, 6], (N, 1))},
            "row 1: blob/shape is [8 6]; images must be square",
        ),
        ({"blob__shape": np.full((N, 2), 16)}, "blob/shape is 16, but the images"),
        ({"blob__idx": np.full(N, 12)}, "row 1: image 13 of"),
        ({"blob__idx": np.full(N, -1)}, "blob/idx must be integers from 0 on"),
        ({"blob__path": np.zeros(N)}, "blob/path has float64; expected text"),
        ({"blob__path": np.full(N, b"J9/none.mrc")}, 'row 1: no stack "J9/none.mrc"; tried'),
        ({"blob__path": None}, "no images"),
        (
            {"blob__path": np.full(N, b"a.mrc\n")},
            r'row 1: blob/path is "a.mrc\n"; expected text without',
        ),
    ],
)
def test_values_that_are_refused(changes: dict[str, Any], says: str, make: Make) -> None:
    with pytest.raises(CryosphereError) as caught:
        ParticleStack.read(make(**changes))
    assert says in str(caught.value)
    assert "\n" not in str(caught.value)


def test_other_files_are_refused(make: Make, tmp_path: Path) -> None:
    good = make().read_bytes()
    plain, empty = tmp_path / "plain.npy", tmp_path / "empty.npy"
    np.save(plain, np.zeros((3, 3)))
    np.save(empty, records({"uid": np.zeros(N, dtype="<u8")})[:0])
    huge = good.replace(b"'shape': (24,)", b"'shape': (9999999999999,)", 1)
    for content, says in (
        (good[:-1], "is truncated"),
        (good[:200], "header is not whole"),
        (good[:5], "not a .cs file"),
        (b"PK\x03\x04" + good, "not a .cs file"),
        (b"\x94CSDAT" + good, "streaming format"),
        (good.replace(b"'descr'", b"'desxr'", 1), "header makes no sense"),
        (good.replace(b"'<f4'", b"'<q9'", 1), "header makes no sense"),
        (good.replace(b"'<f4'", b"'|O'", 1).replace(b"'|O'", b"'|O' ", 1), "Python objects"),
        (huge, "is truncated"),
        (plain.read_bytes(), "no table of particles"),
        (empty.read_bytes(), "no particles"),
    ):
        path = tmp_path / "bad.cs"
        path.write_bytes(content)
        with pytest.raises(CryosphereError) as caught:
            ParticleStack.read(path)
        assert says in str(caught.value)
        assert "\n" not in str(caught.value)
    with pytest.raises(FileFormatError, match="does not exist"):
        read_cs(tmp_path / "none.cs")


def test_one_half_for_all_is_no_split(make: Make) -> None:
    stack = ParticleStack.read(make(alignments3D__split=np.zeros(N, dtype="<u4")))
    assert "rlnRandomSubset" not in stack.particles
    assert any(
        "split is 0 for all particles: no half sets" in warning for warning in stack.warnings
    )


def test_classes_without_likelihoods_give_no_poses(
    make: Make, fields: dict[str, NDArray[Any]]
) -> None:
    none = {name.replace("/", "__"): None for name in fields if name.startswith("alignments3D/")}
    multi = {"alignments3D_multi__pose": np.zeros((N, 2, 3), dtype="<f4")}
    assert not ParticleStack.read(make(**none, **multi)).has_poses


def test_what_is_kept_but_not_applied(make: Make) -> None:
    odd = {
        "blob__sign": np.full(N, -1, dtype="<i4"),
        "extra__times": np.zeros(N, dtype="<M8[s]"),
        "extra__words": np.array([b"one", "zw\xf6lf".encode("latin-1")] * (N // 2)),
    }
    stack = ParticleStack.read(make(**odd))
    warnings = "\n".join(stack.warnings)
    assert "images are multiplied by it" in warnings
    assert "1 field left out: extra/times" in warnings
    words = next(stack.particles[name] for name in stack.particles if name.endswith("extra/words"))
    assert words.tolist()[:2] == ["one", "zw\xf6lf"]


@pytest.mark.parametrize("kind", ["broken", "without uid", "uids twice", "other uids"])
def test_passthrough_files_that_do_not_help(
    kind: str, make: Make, fields: dict[str, NDArray[Any]], tmp_path: Path
) -> None:
    path = make(**{name.replace("/", "__"): None for name in fields if name.startswith("blob/")})
    other = tmp_path / "J3" / "J3_passthrough_particles.cs"
    changed = dict(fields)
    if kind == "without uid":
        del changed["uid"]
    elif kind == "uids twice":
        changed["uid"] = np.repeat(fields["uid"][: N // 2], 2)
    elif kind == "other uids":
        changed["uid"] = fields["uid"] - 1
    write_cs(records(changed), other)
    if kind == "broken":
        other.write_bytes(other.read_bytes()[:100])
    with pytest.raises(MetadataError, match="no images: no field blob/path"):
        ParticleStack.read(path)


def test_what_cannot_be_read_or_written_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(FileFormatError, match="is not a file but a folder"):
        read_cs(tmp_path)
    (tmp_path / "a.cs").write_bytes(b"\x93NUMPY\x04\x00" + b"0" * 100)
    with pytest.raises(FileFormatError, match="version 4 of numpy's format; known are 1, 2 and 3"):
        read_cs(tmp_path / "a.cs")

    def fail(*arguments: object, **options: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(np.lib.format, "write_array", fail)
    with pytest.raises(CryosphereError, match=r"cannot write .*b.cs: No space left"):
        write_cs(np.zeros(1, dtype=[("uid", "<u8")]), tmp_path / "b.cs")
    assert [path.name for path in tmp_path.iterdir()] == ["a.cs"]


def test_shifts_need_a_pixel_size_in_a_cs_file(make: Make, tmp_path: Path) -> None:
    stack = ParticleStack.read(make())
    stack.optics = stack.optics.drop(columns="rlnImagePixelSize")
    with pytest.raises(MetadataError, match="shifts in pixels need the pixel size"):
        stack.save(tmp_path / "out.cs")
    assert not (tmp_path / "out.cs").exists()
