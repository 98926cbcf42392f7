"""Defocus from images at known poses: the estimate in closed form, and simulated particles."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from napari_cryosphere.alignment.defocus import best_defocus
from napari_cryosphere.imaging.phantom import protein_phantom
from napari_cryosphere.jobs.align import with_refined_defocus
from napari_cryosphere.jobs.configs import AlignConfig, SimulateConfig
from napari_cryosphere.jobs.events import follow
from napari_cryosphere.jobs.running.map_detail import MapDetail
from napari_cryosphere.jobs.simulate import simulate_density
from napari_cryosphere.particles import ParticleStack

OFFSETS = np.arange(-40, 41) * 100.0
DEFOCUS = ("rlnDefocusU", "rlnDefocusV")


def test_estimates_are_those_of_normal_posteriors():
    rng = np.random.default_rng(1)
    micrographs = np.repeat(np.arange(6), 200)
    shifts = np.array([0.0, 1500.0, -2000.0, 300.0, 0.0, -100.0])
    spread, noise = 400.0, 500.0
    truth = shifts[micrographs] + rng.normal(0, spread, len(micrographs))
    seen = truth + rng.normal(0, noise, len(truth))
    logs = -0.5 * ((OFFSETS - seen[:, None]) / noise) ** 2
    found, error = best_defocus(logs, OFFSETS, micrographs)
    share = spread**2 / (spread**2 + noise**2)
    wanted = shifts[micrographs] + share * (seen - shifts[micrographs])
    middle = np.abs(seen) < 2500  # what lies at the rim of the offsets is cut off
    assert np.median(np.abs(found - wanted)[middle]) < 50
    assert np.median(error) == pytest.approx(noise * share**0.5, rel=0.02)


def test_a_micrographs_wrong_defocus_is_mended(tmp_path: Path):
    density = protein_phantom(32, 4.0)
    simulation = SimulateConfig(
        map=tmp_path, output=tmp_path / "p.star", number=60, snr=1.0, seed=3
    )
    follow(simulate_density(density, simulation), lambda event: None)
    stack = ParticleStack.read(tmp_path / "p.star")
    names = stack.particles["rlnMicrographName"].to_numpy()
    wrong = np.where(names == names[0], 2000.0, 0.0)
    truth = stack.particles[DEFOCUS[0]].to_numpy(float)
    moved = {name: stack.particles[name].to_numpy(float) + wrong for name in DEFOCUS}
    config = AlignConfig(
        particles=tmp_path / "p.star",
        map=tmp_path / "m.mrc",
        output=tmp_path / "o.star",
        device="cpu",
    )
    refined, note = with_refined_defocus(
        stack.with_columns(moved), density, config, MapDetail(None, "")
    )
    off = refined.particles[DEFOCUS[0]].to_numpy(float) - truth
    assert np.abs(off).max() < 1000
    assert np.median(np.abs(off)) < 300
    assert (refined.particles["cryosphereDefocusError"] > 0).all()
    assert note.text.startswith("defocus changed")
    astigmatism = refined.particles[DEFOCUS[0]] - refined.particles[DEFOCUS[1]]
    before = stack.particles[DEFOCUS[0]] - stack.particles[DEFOCUS[1]]
    np.testing.assert_allclose(astigmatism, before, atol=1e-6)
