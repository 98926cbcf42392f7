"""Simulated particles: statistics as stated, and reproducible."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from napari_cryosphere.imaging import forward
from napari_cryosphere.imaging.coloured_noise import NoiseSpectrum
from napari_cryosphere.imaging.forward import (
    clean_images,
    noise_level,
    noisy_images,
    projector_of,
)
from napari_cryosphere.imaging.map_mask import map_radius_angstrom
from napari_cryosphere.imaging.phantom import protein_phantom
from napari_cryosphere.imaging.simulate import OpticsGroup, draw_parameters
from napari_cryosphere.particles import DensityMap

PIXEL_SIZE = 6.0


@pytest.fixture(scope="module")
def density() -> DensityMap:
    return protein_phantom(32, PIXEL_SIZE)


@pytest.mark.parametrize("spectrum", [None, NoiseSpectrum.falling(40.0)])
@pytest.mark.parametrize("radius", [None, 60.0])
def test_signal_to_noise_ratio_is_the_one_asked_for(
    density: DensityMap, spectrum: NoiseSpectrum | None, radius: float | None
) -> None:
    """By the written definition, over all particles, with 700 of which 512 are looked at."""
    parameters, projector = draw_parameters(700, seed=3), projector_of(density)
    level = noise_level(density, projector, parameters, 0.5, radius)
    arguments = (projector, parameters, PIXEL_SIZE)
    noisy = np.concatenate(list(noisy_images(*arguments, level.deviation, 4, spectrum)))
    clean = np.concatenate(list(clean_images(*arguments)))
    residual = noisy - clean / level.deviation
    assert residual.var() == pytest.approx(1.0, rel=0.02)
    axis = (np.arange(32) - 16) * PIXEL_SIZE
    inside = np.hypot(axis[:, None], axis) <= level.radius_angstrom
    assert level.radius_angstrom == (map_radius_angstrom(density) if radius is None else radius)
    assert clean[:, inside].var(axis=1).mean() / level.deviation**2 == pytest.approx(0.5, rel=0.02)


def test_circle_holds_the_maps_power(density: DensityMap) -> None:
    axis = (np.arange(32) - 16) * PIXEL_SIZE
    radius = np.sqrt(axis[:, None, None] ** 2 + axis[:, None] ** 2 + axis**2)
    reach = map_radius_angstrom(density)
    total = (density.voxels**2).sum()
    assert (density.voxels[radius <= reach + PIXEL_SIZE / 2] ** 2).sum() >= 0.99 * total
    assert (density.voxels[radius <= reach - PIXEL_SIZE / 2] ** 2).sum() < 0.99 * total


def test_seed_decides_everything_and_chunks_nothing(
    density: DensityMap, monkeypatch: pytest.MonkeyPatch
) -> None:
    def images(seed: int) -> np.ndarray:
        made = noisy_images(
            projector_of(density), draw_parameters(10, seed), PIXEL_SIZE, 3.0, seed=7
        )
        return np.concatenate(list(made))

    first, second, other = (images(seed) for seed in (1, 1, 2))
    np.testing.assert_array_equal(first, second)
    assert not np.array_equal(first, other)
    monkeypatch.setattr(forward, "_CHUNK_PIXELS", 3 * 32**2)
    np.testing.assert_allclose(images(1), first, atol=1e-5)


def test_poses_are_uniform_and_shifts_bounded() -> None:
    parameters = draw_parameters(4000, seed=5, shift_px=2.0)
    directions = parameters.rotations[:, :, 2]
    np.testing.assert_allclose(directions.mean(0), 0, atol=0.05)
    np.testing.assert_allclose((directions**2).mean(0), 1 / 3, atol=0.02)
    assert np.abs(parameters.shifts_px).max() <= 2.0
    assert set(parameters.half_sets) == {1, 2}


def test_without_noise_and_ctf_it_is_the_projection(density: DensityMap) -> None:
    parameters = draw_parameters(3, seed=6, shift_px=0.0, with_ctf=False)
    projector = projector_of(density)
    images = next(noisy_images(projector, parameters, PIXEL_SIZE, None, seed=0))
    np.testing.assert_allclose(images, projector.project(parameters.rotations).numpy(), atol=1e-4)


def test_the_microscope_by_default() -> None:
    """300 kV, 2.7 mm, 10 % amplitude contrast, 0.8 to 2.5 um of defocus: what the reference page
    promises.
    """
    drawn = draw_parameters(4000, seed=5)
    optics = drawn.tables("x.mrcs", 32, PIXEL_SIZE)["optics"].iloc[0]
    values = optics[["rlnVoltage", "rlnSphericalAberration", "rlnAmplitudeContrast"]]
    np.testing.assert_allclose(values.astype(float), [300, 2.7, 0.1])
    assert drawn.ctf is not None
    assert set(drawn.tables("x.mrcs", 32, PIXEL_SIZE)["particles"]).isdisjoint(
        {"rlnPhaseShift", "rlnCtfBfactor"}
    )
    middle = (drawn.ctf.defocus_u_angstrom + drawn.ctf.defocus_v_angstrom) / 2
    assert 7500 < middle.min() < 9000
    assert 24000 < middle.max() < 25500
    names = drawn.micrographs
    assert names is not None
    assert len(set(names)) == 20


def test_optics_groups_have_their_own_microscope_and_micrographs() -> None:
    groups = (
        OpticsGroup(
            voltage_kv=200, defocus_angstrom=(5000, 6000), astigmatism_angstrom=0, micrographs=3
        ),
        OpticsGroup(
            phase_shift_degrees=90, defocus_angstrom=(20000, 20000), defocus_spread_angstrom=0
        ),
    )
    drawn = draw_parameters(2000, seed=8, optics=groups)
    assert drawn.ctf is not None
    first = drawn.optics_groups == 1
    assert 0.08 < first.mean() < 0.18  # 3 of 23 micrographs
    assert (drawn.ctf.voltage_kv == np.where(first, 200, 300)).all()
    assert (drawn.ctf.phase_shift_degrees == np.where(first, 0, 90)).all()
    np.testing.assert_array_equal(
        drawn.ctf.defocus_u_angstrom[first], drawn.ctf.defocus_v_angstrom[first]
    )
    middle = (drawn.ctf.defocus_u_angstrom + drawn.ctf.defocus_v_angstrom)[~first] / 2
    np.testing.assert_allclose(middle, 20000)
    names = drawn.micrographs
    assert names is not None
    assert len(set(names[first])) == 3
    assert not set(names[first]) & set(names[~first])
    optics = drawn.tables("x.mrcs", 32, PIXEL_SIZE)["optics"]
    assert list(optics["rlnVoltage"]) == [200, 300]


def test_defocus_varies_from_particle_to_particle() -> None:
    drawn = draw_parameters(
        2000, seed=9, optics=(OpticsGroup(micrographs=1, defocus_spread_angstrom=250),)
    )
    assert drawn.ctf is not None
    assert drawn.ctf.defocus_u_angstrom.std() == pytest.approx(250, rel=0.1)
    assert (
        np.ptp(drawn.ctf.defocus_u_angstrom - drawn.ctf.defocus_v_angstrom) < 1e-6
    )  # one astigmatism


def test_clean_images_come_in_chunks_too(
    density: DensityMap, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(forward, "_CHUNK_PIXELS", 2 * density.box**2)
    parameters = draw_parameters(5, seed=6, shift_px=0.0, with_ctf=False)
    projector = projector_of(density)
    chunks = list(noisy_images(projector, parameters, PIXEL_SIZE, None, seed=0))
    assert [len(chunk) for chunk in chunks] == [2, 2, 1]
    whole = projector.project(parameters.rotations).numpy()
    np.testing.assert_allclose(np.concatenate(chunks), whole, atol=1e-4)


def test_a_table_says_what_is_known() -> None:
    """Micrographs that are not known have no column; a scale that is not 1 has one."""
    drawn = draw_parameters(4, seed=6)
    assert drawn.ctf is not None
    scaled = replace(
        drawn, micrographs=None, ctf=replace(drawn.ctf, scale_factor=np.array([1, 1, 0.5, 1.0]))
    )
    table = scaled.tables("x.mrcs", 32, PIXEL_SIZE)["particles"]
    assert "rlnMicrographName" not in table
    assert list(table["rlnCtfScalefactor"]) == [1, 1, 0.5, 1]
    assert "rlnCtfScalefactor" not in drawn.tables("x.mrcs", 32, PIXEL_SIZE)["particles"]
