"""Optics groups of different boxes and pixel sizes, and odd boxes: all images on one grid."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from numpy.testing import assert_allclose, assert_array_equal
from numpy.typing import NDArray

from napari_cryosphere.errors import FileFormatError
from napari_cryosphere.imaging.fourier import rescale
from napari_cryosphere.imaging.prepared import PreparedImages
from napari_cryosphere.imaging.preprocess import Preprocessing
from napari_cryosphere.particles import ImageGrid, ParticleStack, write_stack, write_star
from napari_cryosphere.particles.aberrations import aberrations_of
from napari_cryosphere.particles.image_grid import resample, resampling_matrix


def blob(
    grid: ImageGrid, x_angstrom: float = 7.0, y_angstrom: float = -4.0, sigma: float = 9.0
) -> NDArray:
    """Return a Gaussian at a place in angstrom from the centre, ``(1, box, box)``."""
    axis = (np.arange(grid.box) - grid.box // 2) * grid.pixel_size_angstrom
    profile = [np.exp(-((axis - at) ** 2) / 2 / sigma**2) for at in (y_angstrom, x_angstrom)]
    return np.outer(*profile)[None].astype(np.float32)


@pytest.mark.parametrize(("old", "new"), [(32, 24), (24, 32), (64, 32), (48, 20), (32, 96)])
def test_same_field_equals_cutting_the_transform(old: int, new: int) -> None:
    # without their own Nyquist frequency, which a finer grid can share out in several ways
    images = rescale(
        torch.randn(3, old - 2, old - 2, generator=torch.Generator().manual_seed(1)), old
    )
    ours = resample(images.numpy(), ImageGrid(old, 3.0), ImageGrid(new, 3.0 * old / new))
    assert_allclose(ours, rescale(images, new).numpy(), atol=3e-6)


@pytest.mark.parametrize(
    ("old", "new"),
    [
        (ImageGrid(64, 2.0), ImageGrid(48, 2.71)),
        (ImageGrid(64, 2.0), ImageGrid(90, 1.37)),
        (ImageGrid(65, 2.0), ImageGrid(66, 2.0)),
        (ImageGrid(65, 2.0), ImageGrid(40, 3.1)),
        (ImageGrid(63, 2.0), ImageGrid(64, 2.0)),
        (ImageGrid(64, 2.0), ImageGrid(96, 2.0)),
        (ImageGrid(64, 2.0), ImageGrid(40, 2.0)),
    ],
)
def test_a_blob_stays_where_it_is_at_any_ratio(old: ImageGrid, new: ImageGrid) -> None:
    assert_allclose(resample(blob(old), old, new), blob(new), atol=2e-4)


def test_upsampling_passes_through_the_pixels_and_keeps_grey_values() -> None:
    images = np.random.default_rng(2).normal(size=(2, 20, 20)).astype(np.float32) + 5
    finer = resample(images, ImageGrid(20, 2.0), ImageGrid(40, 1.0))
    assert_allclose(finer[:, ::2, ::2], images, atol=1e-5)
    flat = np.full((1, 20, 20), 7.25, dtype=np.float32)
    assert_array_equal(
        resample(flat, ImageGrid(20, 2.0), ImageGrid(64, 1.3)), np.full((1, 64, 64), 7.25)
    )


def test_matrix_sums_to_one_inside_and_is_kept() -> None:
    matrix = resampling_matrix(31, 50, 0.7)
    inside = np.abs(matrix).sum(axis=1) > 0
    assert 0 < inside.sum() < 50
    assert_allclose(matrix[inside].sum(axis=1), 1, atol=1e-5)
    assert matrix is resampling_matrix(31, 50, 0.7)
    assert not matrix.flags.writeable


def test_common_grid_is_the_finest_and_widest() -> None:
    grids = [ImageGrid(196, 1.25), ImageGrid(196, 1.24)]
    assert ImageGrid.common(grids) == ImageGrid(198, 1.24)
    assert ImageGrid.common([ImageGrid(32, 10.0), ImageGrid(24, 13.333333)]) == ImageGrid(32, 10.0)
    assert ImageGrid.common([ImageGrid(65, 1.0)]) == ImageGrid(66, 1.0)
    assert ImageGrid.common([ImageGrid(100, 1.0)]) == ImageGrid(100, 1.0)


def write_groups(folder: Path, grids: list[ImageGrid], number: int = 3, **columns: object) -> Path:
    """Write a STAR file with ``number`` blobs in each group's own stack, rows interleaved."""
    for group, grid in enumerate(grids, 1):
        images = np.concatenate([blob(grid, x_angstrom=3.0 * i) for i in range(number)])
        write_stack(images, folder / f"g{group}.mrcs", grid.pixel_size_angstrom, overwrite=True)
    optics = pd.DataFrame(
        {
            "rlnOpticsGroupName": [f"g{group}" for group in range(1, len(grids) + 1)],
            "rlnOpticsGroup": range(1, len(grids) + 1),
            "rlnVoltage": 300.0,
            "rlnImagePixelSize": [grid.pixel_size_angstrom for grid in grids],
            "rlnImageSize": [grid.box for grid in grids],
        }
    )
    rows = [(group, image) for image in range(number) for group in range(1, len(grids) + 1)]
    particles = pd.DataFrame(
        {
            "rlnImageName": [f"{image + 1}@g{group}.mrcs" for group, image in rows],
            "rlnOpticsGroup": [group for group, _ in rows],
            "rlnRandomSubset": [1 + index % 2 for index in range(len(rows))],
            **columns,
        }
    )
    write_star({"optics": optics, "particles": particles}, folder / "in.star", overwrite=True)
    return folder / "in.star"


def test_groups_come_on_one_grid_in_the_order_of_rows(tmp_path: Path) -> None:
    grids = [ImageGrid(40, 3.0), ImageGrid(64, 2.0), ImageGrid(41, 3.0)]
    stack = ParticleStack.read(write_groups(tmp_path, grids))
    assert stack.grid == ImageGrid(64, 2.0)
    expected = np.concatenate([blob(stack.grid, x_angstrom=3.0 * (row // 3)) for row in range(9)])
    assert_allclose(stack.images(), expected, atol=2e-3)
    assert_array_equal(stack.images([8, 0, 4]), stack.images()[[8, 0, 4]])
    assert stack.images([]).shape == (0, 64, 64)


def test_slicing_keeps_the_grid_and_never_reads(tmp_path: Path) -> None:
    path = write_groups(tmp_path, [ImageGrid(40, 3.0), ImageGrid(64, 2.0)])
    stack = ParticleStack.read(path)
    images = stack.images()
    coarse = stack[stack.particles["rlnOpticsGroup"].to_numpy() == 1]
    assert coarse.grid == stack.grid
    assert_array_equal(coarse.images(), images[::2])
    coarse.save(tmp_path / "coarse.star")
    assert ParticleStack.read(tmp_path / "coarse.star").grid == ImageGrid(40, 3.0)


def test_images_as_they_are_stored(tmp_path: Path) -> None:
    stack = ParticleStack.read(write_groups(tmp_path, [ImageGrid(40, 3.0), ImageGrid(65, 2.0)]))
    found = {grid: (rows, images) for rows, images, grid in stack.images_by_grid(slice(0, 4))}
    assert list(found) == [ImageGrid(40, 3.0), ImageGrid(66, 2.0)]
    rows, images = found[ImageGrid(66, 2.0)]
    assert_array_equal(rows, [1, 3])
    assert_array_equal(
        images[:, 1:, 1:], np.concatenate([blob(ImageGrid(65, 2.0), 3.0 * i) for i in (0, 1)])
    )


def test_what_is_done_is_said(tmp_path: Path) -> None:
    summary = ParticleStack.read(
        write_groups(tmp_path, [ImageGrid(40, 3.0), ImageGrid(65, 2.0)])
    ).summary()
    assert (summary["box"], summary["pixel_size_angstrom"]) == (66, 2.0)
    assert [(group["box"], group["pixel_size_angstrom"]) for group in summary["optics"]] == [
        (40, 3),
        (65, 2),
    ]
    assert [group["particles"] for group in summary["optics"]] == [3, 3]
    rescaled, padded = summary["warnings"]
    assert (
        "40 px of 3 A, 65 px of 2 A; images are brought to 66 px of 2 A by Fourier rescaling"
        in rescaled
    )
    assert "odd box of 65 px; images are padded to 66 px" in padded


def test_two_boxes_in_one_group_are_refused(tmp_path: Path) -> None:
    path = write_groups(tmp_path, [ImageGrid(40, 3.0), ImageGrid(64, 2.0)])
    text = path.read_text().replace("g2.mrcs 2 ", "g2.mrcs 1 ")
    path.write_text(text)
    with pytest.raises(
        FileFormatError, match=r"in optics group 1 \(.*g1.mrcs has 40 px, .*g2.mrcs has 64"
    ):
        ParticleStack.read(path)


def test_group_without_particles_does_not_count(tmp_path: Path) -> None:
    path = write_groups(tmp_path, [ImageGrid(40, 3.0), ImageGrid(64, 2.0)])
    text = "\n".join(line for line in path.read_text().splitlines() if "g2.mrcs" not in line) + "\n"
    path.write_text(text)
    stack = ParticleStack.read(path)
    assert stack.grid == ImageGrid(40, 3.0)
    assert len(stack.warnings) == 1
    assert "half set 1" in stack.warnings[0]


def test_wild_groups_equal_the_base(shared_data: Path) -> None:
    folder = shared_data / "wild/variants"
    base, stack = (
        ParticleStack.read(folder / name) for name in ("r31_base.star", "two_optics_groups.star")
    )
    assert (stack.box, stack.pixel_size_angstrom) == (32, 10.0)
    assert_array_equal(stack.images()[:6], base.images()[:6])
    ours, theirs = (
        rescale(torch.from_numpy(part.images()[6:]), 22).numpy() for part in (stack, base)
    )
    assert_allclose(ours, theirs, atol=2e-6)
    assert_array_equal(stack.rotations(), base.rotations())
    assert_allclose(stack.shifts_angstrom(), base.shifts_angstrom())
    assert_array_equal(stack.ctf_parameters().voltage_kv, [300] * 6 + [200] * 6)
    assert len(stack.warnings) == 1
    assert (
        "32 px of 10 A, 24 px of 13.3333 A; images are brought to 32 px of 10 A"
        in stack.warnings[0]
    )


def test_six_groups_of_a_real_data_set(shared_data: Path) -> None:
    path = shared_data / "wild/real/cryodrgn__relion31.6opticsgroups.star"
    stack = ParticleStack.read(path, require_images=False)
    assert stack.grid == ImageGrid(198, 1.24)
    kinds = aberrations_of(stack).kinds
    assert len(kinds) == 6
    assert all(kind.odd_zernike and kind.even_zernike for kind in kinds)
    assert any(kind.matrix is not None for kind in kinds)


@pytest.mark.parametrize(
    ("column", "values", "harmless"),
    [
        ("rlnBeamTiltX", [0.0, 0.0], True),
        ("rlnOddZernike", ["[0,0,0]", "[0,0,0]"], True),
        ("rlnOddZernike", ["[0,0,0]", "[0,0.1,0]"], False),
        ("rlnMagMat00", [1.0, 1.0], True),
        ("rlnMagMat00", [1.0, 1.01], False),
        ("rlnCtfDataAreCtfPremultiplied", [0, 0], True),
        ("rlnCtfDataAreCtfPremultiplied", [0, 1], False),
    ],
)
def test_aberrations_that_do_nothing_cost_nothing(
    column: str, values: list[object], harmless: bool, tmp_path: Path
) -> None:
    path = write_groups(tmp_path, [ImageGrid(40, 3.0)] * 2, **{column: values * 3})
    assert aberrations_of(ParticleStack.read(path)).harmless is harmless


def test_a_stack_on_a_coarser_grid_keeps_poses_and_cuts_transforms(tmp_path: Path) -> None:
    images = np.random.default_rng(2).normal(size=(3, 32, 32)).astype(np.float32)
    write_stack(images, tmp_path / "images.mrcs", 3.0)
    stack = ParticleStack.read(tmp_path / "images.mrcs")
    posed = stack.with_poses(np.tile(np.eye(3), (3, 1, 1)), np.ones((3, 2)))
    coarse = ImageGrid(20, 3.0 * 32 / 20)
    small = posed.on_grid(coarse)[1:]
    assert small.grid.matches(coarse)
    assert_allclose(small.images(), resample(images[1:], ImageGrid(32, 3.0), coarse), atol=1e-6)
    assert_array_equal(small.shifts_angstrom(), posed.shifts_angstrom()[1:])
    prepared = PreparedImages(small, Preprocessing(ctf=None, mask=False))[:]
    assert prepared.shape == (2, 20, 20)
    # normalised on the pixels that are stored; white noise keeps its deviation
    assert float(prepared.std()) == pytest.approx(19 / 20, abs=0.1)  # without Nyquist
    assert posed.on_grid(posed.grid) is posed
