"""Density compensation: maps as relion_reconstruct makes them, noise at Nyquist included."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from napari_cryosphere.evaluation.half_maps import reconstructed
from napari_cryosphere.particles import DensityMap, ParticleStack
from napari_cryosphere.reconstruction import BackProjector
from napari_cryosphere.reconstruction._gridding import divide_gridded


def test_half_maps_are_relions(shared_data: Path) -> None:
    """Against RELION's stored half-maps: voxel by voxel, shell by shell, and how well the halves
    agree.
    """
    name, reference = "betagalD2_train", shared_data / "relion_reference/reconstruct"
    stack = ParticleStack.read(shared_data / f"particles/{name}.star")
    ours, theirs = [], []
    for half in (1, 2):
        inserting = reconstructed(stack[stack.half_sets() == half], "D2", weighted=False)
        while True:
            try:
                next(inserting)
            except StopIteration as end:
                ours.append(end.value.voxels)
                break
        theirs.append(DensityMap.read(reference / f"{name}_half{half}.mrc").voxels)

    def correlation(maps: list[np.ndarray]) -> float:
        return float(np.corrcoef(maps[0].ravel(), maps[1].ravel())[0, 1])

    assert correlation([ours[0], theirs[0]]) > 0.999
    assert correlation(ours) == pytest.approx(correlation(theirs), abs=0.005)
    amplitudes = [np.abs(np.fft.fftn(voxels)) for voxels in (ours[0], theirs[0])]
    frequency = np.fft.fftfreq(64, 1 / 64)
    grid = np.meshgrid(frequency, frequency, frequency, indexing="ij")
    shells = np.rint(np.sqrt(sum(axis**2 for axis in grid))).astype(int)
    for shell in range(2, 33):
        inside = shells == shell
        power = [np.sqrt((amplitude[inside] ** 2).sum()) for amplitude in amplitudes]
        assert power[0] / power[1] == pytest.approx(1, abs=0.04), shell


def test_even_sampling_needs_no_compensation_inside() -> None:
    """Where all weights are the same the quotient is the numerator over the weight, but at the
    edge.
    """
    size, padding = 32, 2
    sums = np.zeros((size, size, size // 2 + 1, 3), dtype=np.float32)
    sums[..., 0], sums[..., 2] = 6.0, 3.0
    quotient = divide_gridded(sums, padding, 1e-3)
    assert quotient[0, 0, 0] == 0
    assert quotient[3, 2, 1] == pytest.approx(2, rel=0.05)
    squared = np.fft.fftfreq(size, 1 / size) ** 2
    beyond = (
        squared[:, None, None] + squared[:, None] + np.arange(size // 2 + 1) ** 2
        >= (size // 2) ** 2
    )
    assert (quotient[beyond] == 0).all()
    assert np.abs(quotient[~beyond]).max() > 2.2  # towards Nyquist


def test_it_excludes_a_wiener_filter() -> None:
    projector = BackProjector(16)
    with pytest.raises(ValueError, match="exclude"):
        projector.solve(np.ones(9), gridding=True)
