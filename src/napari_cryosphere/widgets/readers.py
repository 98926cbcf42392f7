"""Opens particles and maps in napari: STAR and .cs files, MRC stacks, MRC maps."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from os import PathLike, fspath
from pathlib import Path
from typing import Any, TypeAlias

__all__ = ["get_reader", "read_layers"]

_COMPRESSED = ("", ".gz", ".bz2")
_SUFFIXES = (
    *(kind + packed for kind in (".star", ".mrcs", ".mrc") for packed in _COMPRESSED),
    *(".cs", ".map"),
)

Paths: TypeAlias = str | PathLike[str] | Sequence[str | PathLike[str]]
Reader: TypeAlias = Callable[[Paths], list[tuple[Any, ...]]]


def get_reader(path: Paths) -> Reader | None:
    """Return the reader of a file, or of several; None for folders and for files that are not ours."""
    paths = _listed(path)
    ours = [item.name.lower().endswith(_SUFFIXES) and not item.is_dir() for item in paths]
    return read_layers if paths and all(ours) else None


def _listed(path: Paths) -> list[Path]:
    items = [path] if isinstance(path, (str, PathLike)) else path
    return [Path(fspath(item)) for item in items]


def read_layers(path: Paths) -> list[tuple[Any, ...]]:
    """Return a layer for each file; particles stay on disk until they are shown.

    Particles whose images have moved are looked for in the folder that the dock names; without one the dock
    offers to try again.

    Raises
    ------
    CryosphereError
        If a file cannot be used and no viewer is open. With a viewer the error is shown in its corner.
    """
    from napari import current_viewer

    from napari_cryosphere.errors import CryosphereError, MissingImagesError
    from napari_cryosphere.widgets.image_folder import image_folder
    from napari_cryosphere.widgets.notices import tell_error

    viewer = current_viewer()
    if viewer is None:
        return [_read(item, None) for item in _listed(path)]
    folder = image_folder(viewer)
    layers: list[tuple[Any, ...]] = []
    for item in _listed(path):
        try:
            layers.append(_read(item, folder.path))
        except MissingImagesError:
            folder.remember(item)
            remedy = "name their folder in the CryoSphere dock (images in)"
            tell_error(f"{item.name}: its images were not found; {remedy}")
        except CryosphereError as error:
            tell_error(error)
    _prepare(viewer, layers)
    return layers or [(None,)]


def _read(path: Path, data_dir: Path | None) -> tuple[Any, dict[str, Any], str]:
    """Read particles or a map, whichever the file holds."""
    from napari_cryosphere.particles import DensityMap, MrcStack, ParticleStack
    from napari_cryosphere.widgets.layer_data import map_layer, particle_layer

    if path.name.lower().removesuffix(".gz").removesuffix(".bz2").endswith((".mrc", ".map")):
        number, rows, columns = MrcStack(path).shape
        if rows != columns or number == rows:
            return map_layer(DensityMap.read(path), path.stem)
    return particle_layer(ParticleStack.read(path, data_dir))


def _prepare(viewer: Any, layers: list[tuple[Any, ...]]) -> None:
    """Keep particles out of 3D; those that come while the viewer shows 3D wait until it is back in 2D."""
    from napari_cryosphere.widgets.flat_guard import keep_flat
    from napari_cryosphere.widgets.lazy_frames import LazyFrames

    for data, options, _ in layers:
        if isinstance(data, LazyFrames):
            keep_flat(viewer)
            options["visible"] = viewer.dims.ndisplay == 2
