"""Writes layers from napari's File menu: particles as STAR or .cs files, maps as MRC files."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from napari_cryosphere.particles import DensityMap

__all__ = ["write_map", "write_particles"]

_SAME_SCALE = 1e-3


def write_particles(path: str, data: Any, attributes: dict[str, Any]) -> list[str]:
    """Write a layer's particles, with their predictions where all of them have one.

    ``path``: A .star or a .cs file; napari has asked whether it may be replaced. ``data``: what the
    layer shows; not used, the images stay where they are. ``attributes``: the layer's attributes,
    as napari gives them to writers. Raises `CryosphereError` if the layer holds no particles, or
    the file is the one that they came from.
    """
    from napari_cryosphere.errors import CryosphereError
    from napari_cryosphere.jobs.events import Note
    from napari_cryosphere.widgets.control.export import export_work
    from napari_cryosphere.widgets.state.layer_data import KEY
    from napari_cryosphere.widgets.state.notices import tell_note
    from napari_cryosphere.widgets.state.session import session_in

    metadata = attributes.get("metadata", {})
    session, target = session_in(metadata), Path(path)
    if session is not None:
        for event in export_work(session, np.arange(len(session.stack)), target):
            if isinstance(event, Note):
                tell_note(event.text)
        return [path]
    stack = metadata.get(KEY)
    if not hasattr(stack, "particles"):
        raise CryosphereError(
            f"{attributes.get('name')} holds no particles; choose a layer of particles"
        )
    stack.save(target, overwrite=True)
    return [path]


def write_map(path: str, data: Any, attributes: dict[str, Any]) -> list[str]:
    """Write a layer's map; of one that is shown as surfaces or slices its own voxels, not what is drawn.

    ``path``: an MRC file; napari has asked whether it may be replaced. ``data``: ``(n, n, n)``
    voxels of a layer that is no map of this plugin's; its scale is the voxel size in A.
    ``attributes``: the layer's attributes, as napari gives them to writers. Raises
    `CryosphereError` if the layer is no cubic volume.
    """
    _map_in(data, attributes).save(path, overwrite=True)
    return [path]


def _map_in(data: Any, attributes: dict[str, Any]) -> DensityMap:
    from napari_cryosphere.errors import CryosphereError
    from napari_cryosphere.particles import DensityMap
    from napari_cryosphere.widgets.state.layer_data import KEY

    name, held = attributes.get("name"), attributes.get("metadata", {}).get(KEY)
    if isinstance(held, DensityMap):
        return held
    if held is not None or getattr(data, "ndim", 0) != 3:
        raise CryosphereError(f"{name} is no map; choose a layer with a volume of n x n x n voxels")
    scale = np.abs(np.asarray(attributes.get("scale", (1.0,) * 3), dtype=float))
    if scale.max() / scale.min() - 1 > _SAME_SCALE:
        sizes = " x ".join(f"{size:g}" for size in scale)
        raise CryosphereError(
            f"{name} has voxels of {sizes} A; a map must have cubic voxels, resample it"
        )
    return DensityMap(np.asarray(data, dtype=np.float32), float(scale[0]))
