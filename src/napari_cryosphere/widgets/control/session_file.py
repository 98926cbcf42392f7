"""The state of the workbench in a JSON file: saved, and restored where its files still are. Knows no Qt."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal, TypeAlias

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from napari_cryosphere._files import atomic_path
from napari_cryosphere.errors import CryosphereError, FileFormatError
from napari_cryosphere.widgets.state.layer_data import KEY, map_layer, map_of, particle_layer

if TYPE_CHECKING:
    from napari.layers import Image

    from napari_cryosphere.widgets.control.controller import Controller
    from napari_cryosphere.widgets.state.session import Session

__all__ = ["VERSION", "SavedSession", "describe", "restore_session", "save_session"]

FORMAT: Literal["napari-cryosphere session"] = "napari-cryosphere session"
VERSION = 1
_FILE = "cryosphere_file"  # in the metadata of a map that a session file named

Source: TypeAlias = Literal["network", "map", "both"]


class _Saved(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class SavedParticles(_Saved):
    """A layer of particles: its file, flags, selection, and where its distributions are."""

    name: str
    path: Path
    data_dir: Path | None = None
    number: Annotated[int, Field(ge=1)]
    flags: tuple[tuple[int, int], ...] = ()
    """Runs of equal flags: (flag, length)."""
    selected: tuple[int, ...] = ()
    distributions: dict[str, Path] = Field(default_factory=dict)


class SavedMap(_Saved):
    """A layer of a map."""

    name: str
    path: Path


class SavedCurve(_Saved):
    """A curve of the FSC plot, with the names of the layers that it belongs to."""

    group: str
    kind: str = ""
    values: tuple[float, ...]
    box: Annotated[int, Field(ge=2)]
    pixel_size_angstrom: Annotated[float, Field(gt=0)]
    threshold: float
    shown: bool = True
    owners: tuple[str, ...] = ()


class SavedSession(_Saved):
    """What a session file holds."""

    format: Literal["napari-cryosphere session"] = FORMAT
    version: int = VERSION
    particles: tuple[SavedParticles, ...] = ()
    maps: tuple[SavedMap, ...] = ()
    chosen: str | None = None
    """Name of the chosen particle layer."""
    particle: int | None = None
    """The one under the slider, counted from 0."""
    model: Path | None = None
    symmetry: str = "C1"
    source: Source = "network"
    comparison_map: str | None = None
    curves: tuple[SavedCurve, ...] = ()


# ---------------------------------------------------------------------- saving


def describe(controller: Controller, folder: Path) -> SavedSession:
    """Return the state of a workbench.

    Predictions and maps that are in memory alone are written into ``folder``, so that nothing is
    lost.

    Raises
    ------
    CryosphereError
        If they cannot be written.
    """
    chosen, inspector = controller.session, controller.inspector
    maps = [layer for layer in controller.map_layers[::-1] if map_of(layer) is not None]
    return SavedSession(
        particles=tuple(_particles(session, folder) for session in controller.sessions),
        maps=tuple(SavedMap(name=layer.name, path=_map_file(layer, folder)) for layer in maps),
        chosen=None if chosen is None else chosen.layer.name,
        particle=controller.index,
        model=None if controller.model_path is None else controller.model_path.absolute(),
        symmetry=controller.symmetry,
        source=inspector.source,
        comparison_map=None if inspector.map_layer is None else inspector.map_layer.name,
        curves=tuple(_curves(controller)),
    )


def save_session(controller: Controller, path: Path) -> None:
    """Write the state of a workbench; what is in memory alone goes into a folder beside the file.

    Raises
    ------
    CryosphereError
        If it cannot be written; an earlier file is then as it was.
    """
    folder = path.with_name(path.name.removesuffix(".json").removesuffix(".cryosphere") + ".files")
    saved = describe(controller, folder)
    with atomic_path(path, overwrite=True) as temporary:
        temporary.write_text(saved.model_dump_json(indent=2) + "\n", encoding="utf-8")


def _particles(session: Session, folder: Path) -> SavedParticles:
    from napari_cryosphere.widgets.control.session_parts import kept_predictions, runs_of

    stack = session.stack
    path, distributions = kept_predictions(session, folder)
    return SavedParticles(
        name=session.layer.name,
        path=path.absolute(),
        data_dir=None if session.data_dir is None else session.data_dir.absolute(),
        number=len(stack),
        flags=runs_of(session.choices.flags),
        selected=tuple(int(row) for row in session.choices.selected.nonzero()[0]),
        distributions={kind: file.absolute() for kind, file in distributions.items()},
    )


def _map_file(layer: Image, folder: Path) -> Path:
    """Return the file of a map; one that was made here is written."""
    density = map_of(layer)
    assert density is not None
    known = layer.source.path or layer.metadata.get(_FILE)
    if known is not None and Path(known).is_file():
        return Path(known).absolute()
    safe = "".join(letter if letter.isalnum() or letter in "-_" else "_" for letter in layer.name)
    path = folder / f"{safe}.mrc"
    density.save(path, overwrite=True)
    return path.absolute()


def _curves(controller: Controller) -> list[SavedCurve]:
    owners = controller.maps.owners
    return [
        SavedCurve(
            group=curve.group,
            kind=curve.kind,
            values=tuple(float(value) for value in curve.fsc.values),
            box=curve.fsc.box,
            pixel_size_angstrom=curve.fsc.pixel_size_angstrom,
            threshold=curve.threshold,
            shown=curve.shown,
            owners=tuple(layer.name for layer in owners.get(label, ())),
        )
        for label, curve in controller.maps.curves.items()
    ]


# ---------------------------------------------------------------------- restoring


def read_session(path: Path) -> SavedSession:
    """Read a session file.

    Raises
    ------
    FileFormatError
        If it is no session file, or of a version that is not known here.
    """
    try:
        values = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise FileFormatError(f"{path.name} is no readable session file: {error}") from error
    if not isinstance(values, dict) or values.get("format") != FORMAT:
        raise FileFormatError(f"{path.name} is no session file of CryoSphere")
    if values.get("version") != VERSION:
        raise FileFormatError(
            f"{path.name} has version {values.get('version')}; this program reads version {VERSION}: "
            "open it with the program that wrote it"
        )
    try:
        return SavedSession.model_validate(values)
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(map(str, first["loc"]))
        raise FileFormatError(f"{path.name}, {where}: {first['msg']}") from error


def restore_session(controller: Controller, path: Path) -> list[str]:
    """Open what a session file names beside what is open; returns what could not be opened.

    Raises
    ------
    FileFormatError
        As `read_session`.
    """
    from napari_cryosphere.widgets.state.notices import tell_error

    saved = read_session(path)
    lost = [f"{name}" for name in _restore_layers(controller, saved)]
    controller.choose_symmetry(saved.symmetry)
    if saved.model is not None:
        if saved.model.exists():
            controller.choose_model(saved.model)
        else:
            lost.append(saved.model.name)
    _restore_curves(controller, saved)
    layers = {layer.name: layer for layer in controller.viewer.layers}
    if saved.comparison_map in layers:
        controller.inspector.choose_map(layers[saved.comparison_map])
    controller.inspector.show_source(saved.source)
    if saved.chosen in layers:
        controller.choose(layers[saved.chosen])
        if saved.particle is not None:
            controller.show_particle(saved.particle)
    if lost:
        tell_error(f"not found: {', '.join(lost)}; the rest of {path.name} is restored")
    return lost


def _restore_layers(controller: Controller, saved: SavedSession) -> list[str]:
    """Open the files of a session; yields the names of those that cannot be."""
    from napari_cryosphere.particles import DensityMap, ParticleStack
    from napari_cryosphere.widgets.control.session_parts import restore_particles

    viewer, lost = controller.viewer, []
    for one in saved.maps:
        try:
            data, options, _ = map_layer(DensityMap.read(one.path), one.name, visible=False)
            viewer.add_image(data, **options).metadata[_FILE] = str(one.path)
        except CryosphereError:
            lost.append(one.path.name)
    for some in saved.particles:
        try:
            stack = ParticleStack.read(some.path, some.data_dir)
            data, options, _ = particle_layer(stack, some.name)
            layer = viewer.add_image(data, **options)
            assert layer.metadata[KEY] is stack
            lost += restore_particles(controller, layer, some)
        except CryosphereError:
            lost.append(some.path.name)
    return lost


def _restore_curves(controller: Controller, saved: SavedSession) -> None:
    import numpy as np

    from napari_cryosphere.reconstruction import FourierShellCorrelation
    from napari_cryosphere.widgets.state.fsc_curves import Curve

    layers = {layer.name: layer for layer in controller.viewer.layers}
    for one in saved.curves:
        fsc = FourierShellCorrelation(np.array(one.values), one.box, one.pixel_size_angstrom)
        owners = tuple(layers[name] for name in one.owners if name in layers)
        curve = Curve(one.group, one.kind, fsc, one.threshold, one.shown)
        controller.maps.add_curves([curve], owners)
