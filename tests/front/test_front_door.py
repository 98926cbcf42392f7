"""What ``import napari_cryosphere as nc`` offers: the same engine as the jobs, without files."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

import napari_cryosphere as nc
from napari_cryosphere.errors import MetadataError
from napari_cryosphere.jobs.align import align as align_job
from napari_cryosphere.jobs.configs import AlignConfig, ReconstructConfig, SimulateConfig
from napari_cryosphere.jobs.events import Event, Progress, follow
from napari_cryosphere.jobs.reconstruct import reconstruct as reconstruct_job
from napari_cryosphere.jobs.simulate import simulate as simulate_job
from napari_cryosphere.so3.distributions.store import DistributionStore
from napari_cryosphere.so3.symmetry import angular_error_degrees

SETTINGS = {"snr": 0.5, "seed": 3, "shift_px": 1.0}


@pytest.fixture(scope="module")
def density() -> nc.DensityMap:
    return nc.phantom(box=32, pixel_size_angstrom=6.0)


@pytest.fixture(scope="module")
def stack(density: nc.DensityMap) -> nc.ParticleStack:
    return nc.simulate(density, 64, **SETTINGS)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory, density: nc.DensityMap) -> Path:
    """The same particles as a job writes them."""
    folder = tmp_path_factory.mktemp("front")
    density.save(folder / "map.mrc")
    config = SimulateConfig(
        map=folder / "map.mrc", output=folder / "particles.star", number=64, **SETTINGS
    )
    follow(simulate_job(config), lambda event: None)
    return folder


def test_importing_loads_neither_torch_nor_pandas_nor_numpy() -> None:
    code = (
        "import sys, napari_cryosphere as nc; dir(nc); nc.CryosphereError; "
        "sys.exit(str(sorted({'torch', 'pandas', 'numpy', 'scipy', 'napari'} & set(sys.modules))))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.stderr.strip() == "[]"


def test_every_name_is_there_and_documented() -> None:
    assert 20 <= len(nc.__all__) <= 30
    for name in nc.__all__:
        if name != "__version__":
            assert getattr(nc, name).__doc__, name
    with pytest.raises(AttributeError):
        nc.no_such_name  # noqa: B018


def test_simulated_in_memory_is_what_the_job_writes(folder: Path, stack: nc.ParticleStack) -> None:
    written = nc.read_star(folder / "particles.star")
    np.testing.assert_array_equal(stack.images(), written.images())
    np.testing.assert_allclose(stack.rotations(), written.rotations(), atol=1e-12)
    np.testing.assert_allclose(
        stack.ctf_parameters().defocus_u_angstrom, written.ctf_parameters().defocus_u_angstrom
    )


def test_aligned_in_memory_is_what_the_job_writes(
    folder: Path, stack: nc.ParticleStack, density: nc.DensityMap
) -> None:
    few, shown = stack[:24], list[Event]()
    found = nc.align(few, density, local_degrees=10, batch_size=16, progress=shown.append)
    truth = nc.read_star(folder / "particles.star")[:24]
    truth.save(folder / "few.star")
    config = AlignConfig(
        particles=folder / "few.star",
        map=folder / "map.mrc",
        output=folder / "aligned.star",
        distributions=folder / "posterior.zarr",
        local_degrees=10,
        batch_size=16,
    )
    follow(align_job(config), lambda event: None)
    written = nc.read_star(folder / "aligned.star")
    np.testing.assert_allclose(found.particles.rotations(), written.rotations(), atol=1e-5)
    np.testing.assert_allclose(found.shifts_angstrom, written.shifts_angstrom(), atol=1e-3)
    posterior = DistributionStore(folder / "posterior.zarr")[:]
    assert found.distribution is not None
    np.testing.assert_allclose(found.distribution.entropy(), posterior.entropy(), atol=1e-3)
    assert isinstance(shown[-1], Progress)
    errors = angular_error_degrees(few.rotations(), found.particles.rotations())
    assert np.median(errors) < 5


def test_reconstructed_in_memory_is_what_the_job_writes(
    folder: Path, stack: nc.ParticleStack, density: nc.DensityMap
) -> None:
    made = nc.reconstruct(stack)
    config = ReconstructConfig(
        particles=folder / "particles.star", output=folder / "made.mrc", half_maps=True
    )
    follow(reconstruct_job(config), lambda event: None)
    written = nc.read_map(folder / "made.mrc")
    np.testing.assert_allclose(made.density.voxels, written.voxels, atol=1e-5)
    assert len(made.halves) == 2
    assert made.curve is not None
    curve = nc.fsc(made.density, density)
    assert isinstance(curve, nc.FourierShellCorrelation)
    assert curve.resolution_angstrom(0.5) < 40
    assert nc.postprocess(*made.halves, b_factor=-50.0).density.box == 32


def test_a_short_training_gives_a_model_that_infers(stack: nc.ParticleStack) -> None:
    network = {"kind": "polar", "box": 16, "l_max": 2, "ring_channels": 8, "channels": 8}
    model = nc.train(stack, network=network | {"features": 16}, epochs=1.0, source="particles")
    distribution = nc.infer(stack, model, batch_size=48)
    assert len(distribution) == len(stack)
    parts = [nc.infer(stack[:20], model), nc.infer(stack[20:], model)]
    entropies = np.concatenate([part.entropy() for part in parts])
    np.testing.assert_allclose(distribution.entropy(), entropies, atol=1e-4)
    posed = stack.with_distribution(distribution)
    assert posed.has_poses
    assert {"cryosphereEntropy", "cryosphereInputAngleRot"} <= set(posed.particles)
    found = nc.evaluate(stack, posed)
    errors = angular_error_degrees(stack.rotations(), posed.rotations())
    assert found.values()["median_error_degrees"] == pytest.approx(np.median(errors), abs=1e-6)
    weighted = nc.reconstruct(posed, distribution=distribution, samples=2, half_maps=False)
    assert weighted.density.box == stack.box


def test_wrong_options_name_the_legal_ones(stack: nc.ParticleStack, density: nc.DensityMap) -> None:
    with pytest.raises(nc.CryosphereError, match=r"shift_range: .* options are .*shift_range_px"):
        nc.align(stack, density, shift_range=3)
    with pytest.raises(nc.CryosphereError, match=r"snr: .* greater than 0, not -1"):
        nc.simulate(density, 4, snr=-1)
    bare = nc.ParticleStack.from_tables(
        {"optics": stack.optics, "particles": stack.particles[["rlnOpticsGroup"]]}, stack.images()
    )
    with pytest.raises(MetadataError, match="no poses"):
        nc.align(bare, density, local_degrees=5)


def test_warnings_are_logged_where_nobody_listens(
    stack: nc.ParticleStack, caplog: pytest.LogCaptureFixture
) -> None:
    dark = nc.ParticleStack.from_tables(stack.to_tables(), -stack.images())
    nc.reconstruct(dark)
    assert "dark" in caplog.text
