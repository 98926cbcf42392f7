"""Files as the world has them: valid variants equal the base case, broken ones give one clear line."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from numpy.testing import assert_allclose, assert_array_equal

from napari_cryosphere.errors import CryosphereError
from napari_cryosphere.particles import DensityMap, ParticleStack, read_star

# Variant: factor that its pixels are multiplied by, and the rounding error left after division by
# it.
SAME = {
    **dict.fromkeys(
        (
            *("r31_base.star", "r31_base.star.gz", "r30_no_optics.star", "r40_version.star"),
            *("particles_first.star", "crlf_tabs.star", "columns_shuffled_quoted.star"),
            *(
                "two_stacks_subdir.star",
                "pixelsize_only_in_header.star",
                "mode2_zero_header_apix.star",
            ),
            *(
                "extended_header.star",
                "no_map_stamp.star",
                "stack_named_mrc.star",
                "project_relative_path.star",
            ),
            *(
                "missing_rlnRandomSubset.star",
                "missing_rlnOriginXAngst.star",
                "missing_rlnAngleRot.star",
            ),
            *("phase_plate.star", "stack_order_reversed.star"),
            *("compressed_gz.star", "compressed_bz2.star", "made_cryosparc.cs"),
        ),
        (1.0, 0.0),
    ),
    "mode0_int8.star": (20.0, 0.026),
    "mode1_int16.star": (1000.0, 0.00051),
    "mode12_float16.star": (1.0, 0.003),
}
WARNED = {
    "defocus_in_um.star": "micrometres",
    "duplicate_particles.star": "in both half sets",
    "subset_all_one.star": "all particles are in half set 1",
    "trailing_garbage.star": "999 bytes",
    "latin1_name.star": "not UTF-8",
    **dict.fromkeys(
        ("ok_base.star", "very_long_line.star", "constant_images.star", "huge_values.star"), ""
    ),
}
BROKEN = {
    "absolute_path.star": "not an MRC file",
    "angle_nan.star": "particles row 5: rlnAngleRot is nan",
    "angle_text.star": 'particles row 5: rlnAngleTilt is "abc"',
    "box_differs_from_star.star": "rlnImageSize is 32",
    "defocus_absurd.star": "rlnDefocusU is 1e+09",
    "dotdot_path.star": "not an MRC file",
    "empty.star": "0 bytes",
    "empty_file.star": "is empty",
    "empty_loop.star": "no particles",
    "huge_dims.star": "80000000000000001024 bytes",
    "index_negative.star": "-00001@base.mrcs",
    "index_past_end.star": "particles row 12: image 13 of",
    "index_text.star": "abc@base.mrcs",
    "loop_no_labels.star": "line 20: loop_ without labels",
    "missing_stack.star": "does_not_exist.mrcs",
    "nan_pixels.star": "in image 4, 9",
    "nonsquare.star": "must be square",
    "not_mrc.star": "not an MRC file",
    "only_comment.star": "no data_ block",
    "optics_group_missing.star": "rlnOpticsGroup is 3",
    "pixelsize_negative.star": "rlnImagePixelSize is -1.5",
    "short_row.star": "line 45 (row 12): 5 values for 13 labels",
    "tiny_100bytes.star": "100 bytes",
    "truncated.star": "50176 bytes, but the file has 29796",
    "unknown_mode.star": "MRC mode 77",
    "a_folder.mrcs": "is a folder",
    "cs_truncated.cs": "truncated: its header promises 12 rows of 124 bytes",
    "cs_pickle_object.cs": "Python objects",
}


@pytest.fixture
def wild(shared_data: Path) -> Path:
    return shared_data / "wild"


@pytest.fixture
def base(wild: Path) -> ParticleStack:
    return ParticleStack.read(wild / "variants" / "r31_base.star")


@pytest.mark.parametrize("name", SAME)
def test_valid_variants_equal_the_base(name: str, wild: Path, base: ParticleStack) -> None:
    stack = ParticleStack.read(wild / "variants" / name, data_dir=wild / "variants")
    factor, tolerance = SAME[name]
    expected = base.images()[::-1] if "reversed" in name else base.images()
    assert_allclose(stack.images() / factor, expected, rtol=0, atol=tolerance)
    assert stack.pixel_size_angstrom == pytest.approx(10.0)
    single = name.endswith(".cs")  # its numbers are in single precision
    for column in ("rlnAngleRot", "rlnAngleTilt", "rlnAnglePsi"):
        if name != f"missing_{column}.star":
            off = stack.particles[column] - base.particles[column]
            assert np.abs(off).max() <= (1e-4 if single else 0)
    assert stack.has_poses == (name != "missing_rlnAngleRot.star")
    x_is_there = name != "missing_rlnOriginXAngst.star"
    assert_allclose(stack.shifts_angstrom(), base.shifts_angstrom() * [x_is_there, 1], atol=2e-5)
    if name != "missing_rlnRandomSubset.star":
        assert_array_equal(stack.half_sets(), base.half_sets())
    ctf, expected_ctf = stack.ctf_parameters(), base.ctf_parameters()
    for field in (
        "defocus_u_angstrom",
        "defocus_v_angstrom",
        "defocus_angle_degrees",
        "voltage_kv",
    ):
        tolerance = 1e-3 if single else 1e-9
        assert_allclose(getattr(ctf, field), getattr(expected_ctf, field), rtol=0, atol=tolerance)
    assert_array_equal(
        ctf.phase_shift_degrees, np.full(len(stack), 90.0 * (name == "phase_plate.star"))
    )
    assert bool(stack.warnings) == (name.startswith(("missing", "pixelsize", "compressed")))


def test_every_variant_is_accounted_for(wild: Path) -> None:
    def names(folder: str, *suffixes: str) -> set[str]:
        return {path.name for path in (wild / folder).iterdir() if path.name.endswith(suffixes)}

    # two optics groups: see test_image_grid.py
    assert names("variants", ".star", ".star.gz", ".cs") == {*SAME, "two_optics_groups.star"}
    assert names("broken", ".star", ".cs") == (set(WARNED) | set(BROKEN)) - {"a_folder.mrcs"}


def test_unknown_columns_are_carried(wild: Path, tmp_path: Path) -> None:
    stack = ParticleStack.read(wild / "variants" / "columns_shuffled_quoted.star")
    stack.save(tmp_path / "out.star")
    again = ParticleStack.read(tmp_path / "out.star")
    assert list(again.particles) == list(stack.particles)
    assert (again.particles == "a b").any(axis=None)


@pytest.mark.parametrize("name", WARNED)
def test_odd_but_readable(name: str, wild: Path) -> None:
    stack = ParticleStack.read(wild / "broken" / name)
    assert np.isfinite(stack.images()).all()
    assert (
        any(WARNED[name] in warning for warning in stack.warnings)
        if WARNED[name]
        else not stack.warnings
    )


@pytest.mark.parametrize("name", BROKEN)
def test_broken_files_give_one_line(name: str, wild: Path) -> None:
    with pytest.raises(CryosphereError) as caught:
        ParticleStack.read(wild / "broken" / name).images()
    message = str(caught.value)
    assert BROKEN[name] in message
    assert name in message or name.replace(".star", ".mrcs") in message
    assert "\n" not in message
    assert "root:" not in message


def test_truncated_stack_as_bare_input(wild: Path) -> None:
    for path in sorted((wild / "broken").glob("*.mrcs")):
        try:
            images = ParticleStack.read(path).images()
        except CryosphereError as error:
            message = str(error)
            assert path.name in message
        else:
            assert np.isfinite(images).all()


def test_maps(wild: Path, shared_data: Path) -> None:
    for name, says in (
        ("noncubic", "cubic"),
        ("odd_65", "odd box"),
        ("anisotropic_voxel", "5 x 5 x 6 A"),
    ):
        with pytest.raises(CryosphereError, match=says):
            DensityMap.read(wild / "variants" / f"map_{name}.mrc")
    moved = DensityMap.read(wild / "variants" / "map_origin_nstart.mrc")
    assert moved.pixel_size_angstrom == pytest.approx(5.0)
    truth = DensityMap.read(shared_data / "particles/ribo70S_truth.mrc")
    assert_array_equal(moved.voxels, truth.voxels)


@pytest.mark.parametrize(
    ("name", "number", "poses", "ctf"),
    [
        ("cryodrgn__FinalRefinement-OriginalParticles-PfCRT.star", 5, True, False),
        ("cryodrgn__relion31.star", 5, True, True),
        ("cryodrgn__relion31.v2.star", 5, True, True),
        ("cryodrgn__relion5.star", 17, True, True),
        ("cryodrgn__sta_testing_bin8.star", 219, True, True),
        ("cryodrgn__toy.star", 1000, False, True),
        ("cryodrgn__toy_projections_dir.star", 1000, False, True),
        ("cryodrgn__empiar_10076_7.star", 7, False, True),
        ("aspire__rln_proj_64.star", 5, True, False),
        ("aspire__rln_proj_65_centered.star", 4, True, False),
        ("aspire__sample_particles_relion30.star", 17, True, True),
        ("aspire__sample_particles_relion31.star", 17, True, True),
        ("aspire__sample_relion_symmetry_group_D4.star", 17, True, True),
    ],
)
def test_real_tables_without_images(
    name: str, number: int, poses: bool, ctf: bool, wild: Path
) -> None:
    path = wild / "real" / name
    with pytest.raises(CryosphereError, match="no stack"):
        ParticleStack.read(path)
    stack = ParticleStack.read(path, require_images=False)
    assert (len(stack), stack.has_poses, stack.has_ctf) == (number, poses, ctf)
    if not ctf:
        with pytest.raises(CryosphereError, match="no column rln"):
            stack.ctf_parameters()


def test_relion_30_pixel_size(wild: Path) -> None:
    stack = ParticleStack.read(
        wild / "real" / "cryodrgn__empiar_10076_7.star", require_images=False
    )
    assert stack.pixel_size_angstrom == pytest.approx(5e4 / 38168)


def test_model_star_is_no_particle_table(wild: Path) -> None:
    with pytest.raises(CryosphereError, match="no particle table"):
        ParticleStack.read(wild / "real" / "aspire__sample_data_model.star")


def test_all_tables_agree_with_starfile(wild: Path) -> None:
    starfile = pytest.importorskip("starfile")
    for path in sorted((wild / "real").glob("*.star")):
        ours, theirs = read_star(path), starfile.read(path, always_dict=True)
        assert list(ours) == list(theirs)
        for name, table in theirs.items():
            if isinstance(table, dict):
                assert ours[name].iloc[0].to_dict() == table
                continue
            assert list(ours[name]) == list(table)
            for column in table:
                if table[column].dtype.kind in "if" and ours[name][column].dtype.kind in "if":
                    assert_allclose(ours[name][column], table[column], rtol=1e-15)
                else:
                    assert_array_equal(ours[name][column].astype(str), table[column].astype(str))
