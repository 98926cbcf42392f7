"""An image beside a map's projection."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from napari_cryosphere.imaging.comparison import ProjectionMatcher
from napari_cryosphere.imaging.ctf import transfer_functions
from napari_cryosphere.imaging.phantom import protein_phantom
from napari_cryosphere.jobs.configs import SimulateConfig
from napari_cryosphere.jobs.events import Result
from napari_cryosphere.jobs.simulate import simulate
from napari_cryosphere.particles import DensityMap, ImageGrid, ParticleStack
from napari_cryosphere.so3.rotations import rotation_from_relion_angles


@pytest.fixture(scope="module")
def density() -> DensityMap:
    return protein_phantom(box=48, pixel_size_angstrom=4.0)


@pytest.fixture(scope="module")
def stack(density: DensityMap, tmp_path_factory: pytest.TempPathFactory) -> ParticleStack:
    folder = tmp_path_factory.mktemp("clean")
    density.save(folder / "map.mrc")
    config = SimulateConfig(
        map=folder / "map.mrc", output=folder / "clean.star", number=4, snr=float("inf"), seed=3
    )
    assert isinstance(list(simulate(config))[-1], Result)
    return ParticleStack.read(folder / "clean.star")


def test_a_clean_image_is_its_own_projection(density: DensityMap, stack: ParticleStack) -> None:
    matcher = ProjectionMatcher(density, stack.grid)
    ctf = transfer_functions(stack)
    assert ctf is not None
    true_px = -stack.shifts_angstrom() / stack.pixel_size_angstrom
    for row in range(len(stack)):
        image = torch.from_numpy(stack.images([row])[0])
        found = matcher.match(image, ctf[row], stack.rotations()[row])
        assert found.correlation > 0.995
        np.testing.assert_allclose(found.shift_px, true_px[row], atol=0.2)
        assert found.residual.std() < 0.12 * image.numpy().std()
        np.testing.assert_allclose(found.projection + found.residual, image.numpy(), atol=1e-4)


def test_another_pose_agrees_less(density: DensityMap, stack: ParticleStack) -> None:
    matcher = ProjectionMatcher(density, stack.grid)
    ctf = transfer_functions(stack)
    assert ctf is not None
    image = torch.from_numpy(stack.images([0])[0])
    turned = stack.rotations()[0] @ rotation_from_relion_angles([0.0, 90.0, 0.0])
    wrong = matcher.match(image, ctf[0], turned)
    assert wrong.correlation < 0.9
    assert np.abs(wrong.shift_px).max() <= 4.5


def test_correlation_knows_neither_offset_nor_contrast(
    density: DensityMap, stack: ParticleStack
) -> None:
    matcher = ProjectionMatcher(density, stack.grid)
    image = torch.from_numpy(stack.images([1])[0])
    plain = matcher.match(image, None, stack.rotations()[1], reach_px=0)
    other = matcher.match(3 * image + 7, None, stack.rotations()[1], reach_px=0)
    assert other.correlation == pytest.approx(plain.correlation, abs=1e-5)
    np.testing.assert_array_equal(other.shift_px, 0)


def test_an_empty_image_has_no_correlation(density: DensityMap, stack: ParticleStack) -> None:
    found = ProjectionMatcher(density, stack.grid).match(torch.zeros(48, 48), None, np.eye(3))
    assert found.correlation == 0
    assert np.isfinite(found.residual).all()


def test_a_particle_at_the_border_is_found_there(density: DensityMap) -> None:
    """The summit of the correlation has no neighbour beyond the last row: it is that row."""
    from napari_cryosphere.imaging.fourier import from_fourier, shift_phases
    from napari_cryosphere.imaging.projection import Projector

    clean = Projector(density.voxels, 3).slices(np.eye(3)[None])
    image = from_fourier(clean * shift_phases(torch.tensor([[-24.0, 23.0]]), 48))[0]
    grid = ImageGrid(48, density.pixel_size_angstrom)
    found = ProjectionMatcher(density, grid).match(image, None, np.eye(3), (-22.0, 22.0))
    np.testing.assert_array_equal(found.shift_px, (-24, 23))
