"""Prepared images of whole stacks, their transfer functions, and what a look at them finds."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from numpy.typing import NDArray

from napari_cryosphere.imaging.ctf import ctf_2d, transfer_functions
from napari_cryosphere.imaging.forward import noise_level, noisy_images, projector_of
from napari_cryosphere.imaging.fourier import frequency_grid, rescale
from napari_cryosphere.imaging.inspection import inspect_images
from napari_cryosphere.imaging.phantom import protein_phantom
from napari_cryosphere.imaging.prepared import PreparedImages
from napari_cryosphere.imaging.preprocess import Preprocessing
from napari_cryosphere.imaging.simulate import draw_parameters
from napari_cryosphere.particles import ImageGrid, ParticleStack, write_stack, write_star

NUMBER = 40


@pytest.fixture(scope="module")
def images() -> NDArray[np.float32]:
    density, parameters = protein_phantom(), draw_parameters(NUMBER, 5)
    projector = projector_of(density)
    deviation = noise_level(density, projector, parameters, 0.3).deviation
    return np.concatenate(list(noisy_images(projector, parameters, 3.0, deviation, 6)))


@pytest.fixture(scope="module")
def one_grid(
    images: NDArray[np.float32], tmp_path_factory: pytest.TempPathFactory
) -> ParticleStack:
    return save(tmp_path_factory.mktemp("one"), images)


@pytest.fixture(scope="module")
def two_grids(
    images: NDArray[np.float32], tmp_path_factory: pytest.TempPathFactory
) -> ParticleStack:
    """The same particles, the second half of them Fourier-cut to 48 px of 4 A."""
    folder = tmp_path_factory.mktemp("two")
    save(folder, images[: NUMBER // 2])
    coarse = rescale(torch.from_numpy(images[NUMBER // 2 :]), 48).numpy()
    write_stack(coarse, folder / "q.mrcs", 4.0)
    tables = draw_parameters(NUMBER, 5).tables("p.mrcs", 64, 3.0)
    optics = pd.concat([tables["optics"]] * 2, ignore_index=True)
    optics = optics.assign(
        rlnOpticsGroup=[1, 2],
        rlnOpticsGroupName=["a", "b"],
        rlnImagePixelSize=[3.0, 4.0],
        rlnImageSize=[64, 48],
    )
    rows = np.arange(NUMBER)
    groups = np.where(rows < NUMBER // 2, 1, 2)
    names = [
        f"{row % (NUMBER // 2) + 1}@{'p' if group == 1 else 'q'}.mrcs"
        for row, group in enumerate(groups)
    ]
    particles = tables["particles"].assign(rlnOpticsGroup=groups, rlnImageName=names)
    write_star({"optics": optics, "particles": particles}, folder / "two.star")
    return ParticleStack.read(folder / "two.star")


def save(folder: Path, images: NDArray[np.float32]) -> ParticleStack:
    write_stack(images, folder / "p.mrcs", 3.0, overwrite=True)
    tables = draw_parameters(NUMBER, 5).tables("p.mrcs", images.shape[-1], 3.0)
    tables["particles"] = tables["particles"].iloc[: len(images)]
    write_star(tables, folder / "p.star", overwrite=True)
    return ParticleStack.read(folder / "p.star")


def test_two_optics_groups_look_the_same_to_a_network(
    one_grid: ParticleStack, two_grids: ParticleStack
) -> None:
    steps = Preprocessing(grid=ImageGrid(32, 6.0))
    first, second = PreparedImages(one_grid, steps).load(), PreparedImages(two_grids, steps).load()
    torch.testing.assert_close(first[: NUMBER // 2], second[: NUMBER // 2])
    pairs = zip(first[NUMBER // 2 :].flatten(1), second[NUMBER // 2 :].flatten(1), strict=True)
    correlations = [float(torch.corrcoef(torch.stack(pair))[0, 1]) for pair in pairs]
    assert min(correlations) > 0.99
    ratio = float(first[NUMBER // 2 :].std() / second[NUMBER // 2 :].std())
    assert ratio == pytest.approx(1, abs=0.05)


def test_rows_come_in_the_order_asked_for(two_grids: ParticleStack) -> None:
    prepared = PreparedImages(two_grids, Preprocessing(grid=ImageGrid(32, 6.0)))
    everything = prepared.load()
    for rows in ([30, 2, 21], slice(15, 25, 2), np.arange(NUMBER) % 7 == 0):
        index = torch.from_numpy(rows) if isinstance(rows, np.ndarray) else rows
        torch.testing.assert_close(prepared[rows], everything[index])
    torch.testing.assert_close(prepared[3], everything[3:4])


def test_without_a_grid_several_groups_come_on_the_stacks(two_grids: ParticleStack) -> None:
    prepared = PreparedImages(two_grids, Preprocessing())
    assert prepared.grid == two_grids.grid
    assert prepared[18:22].shape == (4, 64, 64)


def test_transfer_functions_end_at_each_groups_nyquist(
    one_grid: ParticleStack, two_grids: ParticleStack
) -> None:
    whole, cut = transfer_functions(one_grid), transfer_functions(two_grids)
    assert whole is not None
    assert cut is not None
    torch.testing.assert_close(whole, ctf_2d(one_grid.ctf_parameters(), 64, 3.0))
    half = NUMBER // 2
    torch.testing.assert_close(cut[:half], whole[:half])
    inside = frequency_grid(64).abs().amax(-1) < 24  # of 32: 64 px of 3 A against 48 px of 4 A
    torch.testing.assert_close(cut[half:, inside], whole[half:, inside])
    assert (cut[half:, ~inside] == 0).all()


def test_transfer_functions_without_a_ctf(
    one_grid: ParticleStack, two_grids: ParticleStack
) -> None:
    bare = two_grids._with(two_grids.particles.drop(columns="rlnDefocusU"))
    cut = transfer_functions(bare)
    assert cut is not None
    assert (cut[: NUMBER // 2] == 1).all()
    assert set(cut[NUMBER // 2 :].unique().tolist()) == {0.0, 1.0}
    assert (
        transfer_functions(one_grid._with(one_grid.particles.drop(columns="rlnDefocusU"))) is None
    )


@pytest.mark.parametrize(
    ("factor", "contrast"), [(1, "white"), (-1, "black"), (1000, "white"), (-1e-3, "black")]
)
def test_contrast_sign(
    factor: float, contrast: str, images: NDArray[np.float32], tmp_path: Path
) -> None:
    seen = inspect_images(save(tmp_path, factor * images + 3))
    assert seen.contrast == contrast
    assert seen.inspected == NUMBER
    assert [("darker" in line, "multiply_constant -1" in line) for line in seen.warnings] == [
        (True, True)
    ] * (contrast == "black")


def test_noise_has_no_contrast(tmp_path: Path) -> None:
    noise = np.random.default_rng(1).normal(size=(NUMBER, 64, 64)).astype(np.float32)
    assert inspect_images(save(tmp_path, noise)).contrast == "unclear"


def test_constant_and_wild_images_are_named(images: NDArray[np.float32], tmp_path: Path) -> None:
    odd = images.copy()
    odd[5], odd[6], odd[11] = 0, 7, images[11] * 1e30
    stack = save(tmp_path, odd)
    flat, wild = inspect_images(stack).warnings
    assert "particles 6, 7 have a constant background" in flat
    assert "particle 12 has grey values up to" in wild
    prepared = PreparedImages(stack, Preprocessing(grid=ImageGrid(32, 6.0)))
    assert torch.isfinite(prepared[:4]).all()
    assert prepared.warnings == []
    assert torch.isfinite(prepared.load()).all()
    assert "2 images with a constant background, the first particle 6" in prepared.warnings[0]


def test_all_images_constant(tmp_path: Path) -> None:
    seen = inspect_images(save(tmp_path, np.zeros((NUMBER, 64, 64), dtype=np.float32)))
    assert seen.contrast == "unclear"
    assert "particles 1, 2, 3, 4 and 36 more have a constant background" in seen.warnings[0]


@pytest.mark.parametrize(
    ("name", "contrast"), [("ribo70S_test", "white"), ("betagalD2_test", "white")]
)
def test_contrast_of_reference_particles(name: str, contrast: str, shared_data: Path) -> None:
    assert (
        inspect_images(ParticleStack.read(shared_data / f"particles/{name}.star")).contrast
        == contrast
    )
