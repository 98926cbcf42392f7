"""The sample data of File > Open Sample."""

from __future__ import annotations

import os
import tempfile
from pathlib import Path
from typing import Any

__all__ = ["load_preferred_views", "load_sample", "sample_folder"]

_NUMBER = 500
_PREFERENCE = 6.0  # 73 % of the views within 30 degrees of z, see imaging/orientations.py


def load_sample() -> list[tuple[Any, dict[str, Any], str]]:
    """Simulate particles of the package's own phantom and return them with the map they came from.

    The map is hidden; it is there to compare a reconstruction with.
    """
    return _load("simulated particles", preference=0.0)


def load_preferred_views() -> list[tuple[Any, dict[str, Any], str]]:
    """The same with most views near the z axis, as of particles that lie on the ice's surface."""
    return _load("particles with preferred views", preference=_PREFERENCE)


def _load(name: str, preference: float) -> list[tuple[Any, dict[str, Any], str]]:
    from napari import current_viewer

    from napari_cryosphere.jobs.sample import make_sample
    from napari_cryosphere.particles import DensityMap, ParticleStack
    from napari_cryosphere.widgets.flat_guard import keep_flat
    from napari_cryosphere.widgets.layer_data import map_layer, particle_layer

    folder = sample_folder(f"preference-{preference:g}" if preference else "")
    if not (folder / "particles.star").exists():  # which is written last
        for _ in make_sample(folder, _NUMBER, preference=preference):
            pass
    viewer = current_viewer()
    particles = particle_layer(ParticleStack.read(folder / "particles.star"), name)
    if viewer is not None:
        keep_flat(viewer)
        particles[1]["visible"] = viewer.dims.ndisplay == 2
    return [particles, map_layer(DensityMap.read(folder / "truth.mrc"), "true map", visible=False)]


def sample_folder(kind: str = "") -> Path:
    """Return a sample's folder under the user's cache, or a temporary one where that cannot be written.

    Samples follow from code and a seed, so that each is made once for each version of the package.
    """
    from napari_cryosphere import __version__

    cache = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "napari-cryosphere"
    folder = cache / "-".join(part for part in ("sample", __version__, str(_NUMBER), kind) if part)
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError:
        return Path(tempfile.mkdtemp(prefix="napari-cryosphere-sample-"))
    return folder
