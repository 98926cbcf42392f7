"""The CTF against its formula, computed here in double precision."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from scipy import constants

from napari_cryosphere.imaging.ctf import ctf_2d, ctf_values, radial_ctf
from napari_cryosphere.particles import CtfParameters, ImageGrid, ParticleStack

BOX, PIXEL_SIZE = 48, 1.7


def by_formula(p: CtfParameters) -> np.ndarray:
    """sin(pi lambda dz s^2 - pi/2 Cs lambda^3 s^4 + asin(w) + phase shift), envelope and scale; all
    in A.
    """
    y, x = np.fft.fftfreq(BOX, PIXEL_SIZE)[:, None], np.arange(BOX // 2 + 1) / (BOX * PIXEL_SIZE)
    s2, theta = x**2 + y**2, np.arctan2(y, x)
    volts = p.voltage_kv[:, None, None] * 1e3
    energy = constants.e * volts * (1 + constants.e * volts / (2 * constants.m_e * constants.c**2))
    wavelength = constants.h / np.sqrt(2 * constants.m_e * energy) * 1e10
    u, v, angle, cs, w, phase, b, scale = (
        values[:, None, None]
        for values in (
            p.defocus_u_angstrom,
            p.defocus_v_angstrom,
            np.radians(p.defocus_angle_degrees),
            p.spherical_aberration_mm * 1e7,
            p.amplitude_contrast,
            np.radians(p.phase_shift_degrees),
            p.b_factor_angstrom2,
            p.scale_factor,
        )
    )
    defocus = (u + v) / 2 + (u - v) / 2 * np.cos(2 * (theta - angle))
    gamma = np.pi * wavelength * defocus * s2 - np.pi / 2 * cs * wavelength**3 * s2**2
    return scale * np.exp(-b * s2 / 4) * np.sin(gamma + np.arcsin(w) + phase)


@pytest.fixture
def particles() -> CtfParameters:
    """Four particles that differ in everything; the last has U below V and overfocus."""
    return CtfParameters(
        defocus_u_angstrom=[15000, 21000, 8000, -5000],
        defocus_v_angstrom=[14000, 17000, 7900, -3000],
        defocus_angle_degrees=[10, 150, -70, 33],
        voltage_kv=[300, 200, 120, 300],
        spherical_aberration_mm=[2.7, 0.01, 2.0, 2.7],
        amplitude_contrast=[0.1, 0.07, 0.0, 1.0],
        phase_shift_degrees=[0, 90, 30, 0],
        b_factor_angstrom2=[0, 50, 200, 20],
        scale_factor=[1, 0.8, 1, 1.2],
    )


def test_every_parameter_is_where_the_formula_has_it(particles: CtfParameters) -> None:
    np.testing.assert_allclose(
        ctf_2d(particles, BOX, PIXEL_SIZE).numpy(), by_formula(particles), atol=2e-4
    )


def test_a_batch_is_its_single_particles(particles: CtfParameters) -> None:
    together = ctf_2d(particles, BOX, PIXEL_SIZE)
    for row in range(len(particles)):
        torch.testing.assert_close(ctf_2d(particles[row], BOX, PIXEL_SIZE)[0], together[row])


def test_one_value_serves_all_particles(particles: CtfParameters) -> None:
    one = CtfParameters(
        particles.defocus_u_angstrom, particles.defocus_v_angstrom, 0.0, 300, 2.7, 0.1
    )
    assert len(one) == 4
    assert (one.voltage_kv == 300).all()
    assert not one.b_factor_angstrom2.any()
    assert (one.scale_factor == 1).all()
    with pytest.raises(ValueError, match="one length"):
        CtfParameters(particles.defocus_u_angstrom, np.zeros(3), 0.0, 300, 2.7, 0.1)


def test_a_particles_own_value_goes_before_its_groups(tmp_path: Path) -> None:
    """As relion_project takes them: measured with rlnVoltage in both tables, 3.1.3."""
    (tmp_path / "p.star").write_text(
        "data_optics\n\nloop_\n_rlnOpticsGroup\n_rlnVoltage\n_rlnSphericalAberration\n_rlnAmplitudeContrast\n"
        "_rlnPhaseShift\n_rlnCtfBfactor\n1 300 2.7 0.1 90 40\n2 200 2.0 0.1 60 50\n\n"
        "data_particles\n\nloop_\n_rlnImageName\n_rlnOpticsGroup\n_rlnDefocusU\n_rlnDefocusV\n_rlnDefocusAngle\n"
        "_rlnVoltage\n_rlnCtfBfactor\n"
        "000001@x.mrcs 1 9000 8000 10 120 7\n000002@x.mrcs 2 9000 8000 10 100 8\n"
    )
    ctf = ParticleStack.read(tmp_path / "p.star", require_images=False).ctf_parameters()
    assert list(ctf.voltage_kv) == [120, 100]
    assert list(ctf.b_factor_angstrom2) == [7, 8]
    assert list(ctf.phase_shift_degrees) == [90, 60]
    assert list(ctf.spherical_aberration_mm) == [2.7, 2.0]
    assert list(ctf.scale_factor) == [1, 1]


def test_the_radial_ctf_is_its_mean_on_circles(tmp_path: Path) -> None:
    """4000 A of astigmatism; the mean of 360 directions, and 1 without a CTF."""
    (tmp_path / "p.star").write_text(
        "data_optics\n\nloop_\n_rlnOpticsGroup\n_rlnVoltage\n_rlnSphericalAberration\n_rlnAmplitudeContrast\n"
        "_rlnImagePixelSize\n_rlnImageSize\n_rlnImageDimensionality\n1 300 2.7 0.1 3.0 64 2\n\n"
        "data_particles\n\nloop_\n_rlnImageName\n_rlnOpticsGroup\n_rlnDefocusU\n_rlnDefocusV\n_rlnDefocusAngle\n"
        "000001@x.mrcs 1 15000 11000 20\n000002@x.mrcs 1 9000 8800 130\n"
    )
    stack = ParticleStack.read(tmp_path / "p.star", require_images=False)
    grid = ImageGrid(32, 6.0)
    found = radial_ctf(stack, grid)
    assert found is not None
    assert found.shape == (2, 17)
    angle = np.radians(np.arange(360))
    for shell in (0, 5, 16):
        circle = shell / (32 * 6.0) * np.stack([np.cos(angle), np.sin(angle)], axis=1)
        expected = np.abs(ctf_values(stack.ctf_parameters(), circle)).mean(axis=1)
        np.testing.assert_allclose(found[:, shell], expected, atol=0.02)
