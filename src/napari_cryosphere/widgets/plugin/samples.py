"""The sample data of File > Open Sample: simulated particles, and the small entry of CESPED."""

from __future__ import annotations

import os
import tempfile
from pathlib import Path
from typing import Any

__all__ = ["load_cesped_test", "load_preferred_views", "load_sample", "sample_folder"]

_NUMBER = 500
_PREFERENCE = 6.0  # 73 % of the views within 30 degrees of z, see imaging/orientations.py


def load_sample() -> list[tuple[Any, dict[str, Any], str]]:
    """Simulate particles of the package's own phantom and return them with the map they came from.

    The map is hidden; it is there to compare a reconstruction with.
    """
    return _load("simulated particles", preference=0.0)


def load_preferred_views() -> list[tuple[Any, dict[str, Any], str]]:
    """Do the same with most views near the z axis, as of particles that lie on the ice's surface."""
    return _load("particles with preferred views", preference=_PREFERENCE)


def _load(name: str, preference: float) -> list[tuple[Any, dict[str, Any], str]]:
    from napari import current_viewer

    from napari_cryosphere.jobs.sample import make_sample
    from napari_cryosphere.particles import DensityMap, ParticleStack
    from napari_cryosphere.widgets.control.flat_guard import keep_flat
    from napari_cryosphere.widgets.control.work import SAMPLE_MODEL
    from napari_cryosphere.widgets.plugin.open_docks import open_main_for_particles
    from napari_cryosphere.widgets.state.layer_data import map_layer, particle_layer
    from napari_cryosphere.widgets.state.session import MODEL

    folder = sample_folder(f"preference-{preference:g}" if preference else "")
    if not (folder / "particles.star").exists():  # which is written last
        for _ in make_sample(folder, _NUMBER, preference=preference):
            pass
    viewer = current_viewer()
    particles = particle_layer(ParticleStack.read(folder / "particles.star"), name)
    if viewer is not None:
        open_main_for_particles(viewer)
        keep_flat(viewer)
        particles[1]["visible"] = viewer.dims.ndisplay == 2
    particles[1]["metadata"][MODEL] = str(SAMPLE_MODEL)
    return [particles, map_layer(DensityMap.read(folder / "truth.mrc"), "true map", visible=False)]


def load_cesped_test() -> list[tuple[Any, dict[str, Any], str]]:
    """Download half 0 of CESPED's entry TEST from Zenodo, once, and return its particles.

    Raises `CryosphereError` if there is no network; what was fetched is kept, and the next try goes
    on from there.
    """
    from napari.utils import progress

    from napari_cryosphere.evaluation.download import download_half
    from napari_cryosphere.evaluation.entries import cesped_entry
    from napari_cryosphere.particles import ParticleStack
    from napari_cryosphere.widgets.state.layer_data import particle_layer

    folder = _cache_folder("cesped") / "TEST"
    if not (folder / "particles_0.star").exists():  # which is fetched last
        with progress(total=100, desc="CESPED TEST") as bar:
            for done, total in download_half(cesped_entry("TEST"), 0, folder):
                bar.update(int(100 * done / total) - bar.n)
    return [particle_layer(ParticleStack.read(folder / "particles_0.star"), "CESPED TEST, half 0")]


def sample_folder(kind: str = "") -> Path:
    """Return a sample's folder under the user's cache, or a temporary one where that cannot be written.

    Samples follow from code and a seed, so that each is made once for each version of the package.
    """
    from napari_cryosphere import __version__

    return _cache_folder(
        "-".join(part for part in ("sample", __version__, str(_NUMBER), kind) if part)
    )


def _cache_folder(name: str) -> Path:
    """Return a folder under the user's cache, or a temporary one."""
    cache = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "napari-cryosphere"
    folder = cache / name
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError:
        return Path(tempfile.mkdtemp(prefix="napari-cryosphere-sample-"))
    return folder
