"""Opens what is dropped on napari: particles, maps, models, runs, distributions, session files."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from os import PathLike, fspath
from pathlib import Path
from typing import Any, TypeAlias

__all__ = ["get_reader", "read_layers"]

Paths: TypeAlias = str | PathLike[str] | Sequence[str | PathLike[str]]
Reader: TypeAlias = Callable[[Paths], list[tuple[Any, ...]]]


def get_reader(path: Paths) -> Reader | None:
    """Return the reader of a file or folder, or of several; None where one is not ours."""
    from napari_cryosphere.widgets.state.kinds import kind_of

    paths = _listed(path)
    return read_layers if paths and all(kind_of(item) for item in paths) else None


def _listed(path: Paths) -> list[Path]:
    items = [path] if isinstance(path, (str, PathLike)) else path
    return [Path(fspath(item)) for item in items]


def read_layers(path: Paths) -> list[tuple[Any, ...]]:
    """Return a layer for each image file; particles stay on disk until they are shown.

    What is no layer goes to the viewer's `Inbox`, from which a dock takes it. Particles whose
    images have moved are looked for in the folder that the dock names; without one the dock offers
    to try again. Raises `CryosphereError` if a file cannot be used and no viewer is open. With a
    viewer the error is shown in its corner.
    """
    from napari import current_viewer

    from napari_cryosphere.errors import CryosphereError, MissingImagesError
    from napari_cryosphere.widgets.state.notices import tell_error
    from napari_cryosphere.widgets.state.viewer_context import context_of

    viewer = current_viewer()
    files = _files_of(_listed(path), viewer)
    if viewer is None:
        return [_read(item, None) for item in files]
    folder, drop = context_of(viewer).image_folder, context_of(viewer).drop
    layers: list[tuple[Any, ...]] = []
    for item in files:
        try:
            layers.append(_read(item, folder.path))
        except MissingImagesError:
            folder.remember(item, drop)
            drop.note_file()
            remedy = "name their folder in the CryoSphere dock (images in)"
            tell_error(f"{item.name}: its images were not found; {remedy}")
        except CryosphereError as error:
            tell_error(error)
    _prepare(viewer, layers)
    return layers or [(None,)]


def _files_of(paths: list[Path], viewer: Any) -> list[Path]:
    """Return the images among what was dropped; the rest goes to the viewer's inbox."""
    from napari_cryosphere.errors import CryosphereError
    from napari_cryosphere.reconstruction.relion_files import holds_fsc
    from napari_cryosphere.widgets.state.kinds import kind_of, outputs_in
    from napari_cryosphere.widgets.state.viewer_context import context_of

    files: list[Path] = []
    for item in paths:
        kind = kind_of(item)
        curves = kind == "images" and item.suffix.lower() == ".star" and holds_fsc(item)
        if kind == "images" and not curves:
            files.append(item)
        elif kind == "outputs":
            files += _files_of(outputs_in(item), viewer)
        elif viewer is None:
            raise CryosphereError(f"{item.name} is no layer; open it in napari's window")
        else:
            context_of(viewer).inbox.put(item)
            _open_dock_for("curves" if curves else kind, viewer)
    return files


def _open_dock_for(kind: str | None, viewer: Any) -> None:
    """Open a dock for what is no layer, where none has taken it."""
    from napari_cryosphere.widgets.plugin.open_docks import MAIN, MAPS, TRAINING, open_dock
    from napari_cryosphere.widgets.state.viewer_context import context_of

    if not hasattr(viewer, "window"):
        return
    if kind == "run":
        open_dock(viewer, TRAINING)
    elif kind == "curves":
        open_dock(viewer, MAPS)
    elif len(context_of(viewer).inbox):
        open_dock(viewer, MAIN)


def _read(path: Path, data_dir: Path | None) -> tuple[Any, dict[str, Any], str]:
    """Read particles or a map, whichever the file holds."""
    from napari_cryosphere.particles import DensityMap, MrcStack, ParticleStack
    from napari_cryosphere.widgets.state.layer_data import map_layer, particle_layer

    if (
        path.name.lower()
        .removesuffix(".gz")
        .removesuffix(".bz2")
        .endswith((".mrc", ".map", ".ccp4"))
    ):
        number, rows, columns = MrcStack(path).shape
        if rows != columns or number == rows:
            return map_layer(DensityMap.read(path), path.stem)
    return particle_layer(ParticleStack.read(path, data_dir))


def _prepare(viewer: Any, layers: list[tuple[Any, ...]]) -> None:
    """Open the dock for particles, keep them out of 3D, and maps that came with particles out of sight.

    Half-maps are hidden where there is another map to be looked at. Particles that come while the viewer
    shows 3D wait until it is back in 2D.
    """
    from napari_cryosphere.widgets.control.flat_guard import keep_flat
    from napari_cryosphere.widgets.plugin.open_docks import open_main_for_particles
    from napari_cryosphere.widgets.state.layer_data import is_half, map_of
    from napari_cryosphere.widgets.state.lazy_frames import LazyFrames
    from napari_cryosphere.widgets.state.viewer_context import context_of

    if any(isinstance(data, LazyFrames) for data, _, _ in layers):
        open_main_for_particles(viewer)
    drop = context_of(viewer).drop
    names = [options["name"] for data, options, _ in layers if not isinstance(data, LazyFrames)]
    names += [layer.name for layer in viewer.layers if map_of(layer) is not None]
    whole = not all(map(is_half, names))
    for data, options, _ in layers:
        if isinstance(data, LazyFrames):
            keep_flat(viewer)
            options["visible"] = viewer.dims.ndisplay == 2
            drop.note_particles()
            context_of(viewer).image_folder.take_over(drop)
        else:
            options["visible"] = not (drop.has_particles or (whole and is_half(options["name"])))
            drop.note_file()
