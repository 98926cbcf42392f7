"""Session files: what the docks know and show, saved as JSON and restored."""

from __future__ import annotations

import json
from collections.abc import Callable
from functools import partial
from itertools import groupby
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal, TypeAlias

import numpy as np
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from napari_cryosphere._files import atomic_path
from napari_cryosphere.errors import CryosphereError, FileFormatError
from napari_cryosphere.widgets.control.export import chosen_stack
from napari_cryosphere.widgets.state.choices_file import state_folder
from napari_cryosphere.widgets.state.fsc_curves import Curve
from napari_cryosphere.widgets.state.kinds import SESSION_SUFFIX
from napari_cryosphere.widgets.state.layer_data import KEY, map_layer, map_of, particle_layer
from napari_cryosphere.widgets.state.notices import tell_error

if TYPE_CHECKING:
    from napari.layers import Image, Layer

    from napari_cryosphere.widgets.control.data_sets import DataSets
    from napari_cryosphere.widgets.control.inspector import Inspector
    from napari_cryosphere.widgets.control.pose_controller import PoseController
    from napari_cryosphere.widgets.state.predictions import PredictionStore
    from napari_cryosphere.widgets.state.session import Session

__all__ = ["VERSION", "SavedSession", "SessionFile", "flags_of", "last_session", "runs_of"]

FORMAT: Literal["napari-cryosphere session"] = "napari-cryosphere session"
VERSION = 1
_FILE = "cryosphere_file"  # in the metadata of a map that a session file named

Writing: TypeAlias = Callable[[], object]
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
    symmetry: str | None = None
    """Point group that is known of them; None for none."""
    model: Path | None = None


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
    symmetry: str | None = None
    """Model and point group of the chosen particles, in files of earlier versions."""
    source: Source = "network"
    comparison_map: str | None = None
    curves: tuple[SavedCurve, ...] = ()


class SessionFile:
    """Saves what a viewer's docks know and show in a JSON file, and restores it.

    ``inspector``: knows how the particle is looked at.
    """

    def __init__(self, data: DataSets, inspector: Inspector, poses: PoseController) -> None:
        self._data = data
        self._inspector = inspector
        self._poses = poses

    def save(self, path: Path) -> None:
        """Write the session; what is in memory alone goes into a folder next to the file.

        Raises `CryosphereError` if it cannot be written; an earlier file is then as it was.
        """
        self.prepared(path)()

    def prepared(self, path: Path) -> Writing:
        """Look at the session, and return what writes it: that may be called in another thread."""
        folder = path.with_name(
            path.name.removesuffix(".json").removesuffix(".cryosphere") + ".files"
        )
        writings: list[Writing] = []
        saved = self._describe(folder, writings)

        def write() -> None:
            for one in writings:
                one()
            path.parent.mkdir(parents=True, exist_ok=True)
            with atomic_path(path, overwrite=True) as temporary:
                temporary.write_text(saved.model_dump_json(indent=2) + "\n", encoding="utf-8")

        return write

    def _describe(self, folder: Path, writings: list[Writing]) -> SavedSession:
        """Return what the session file holds.

        What writes predictions and maps that are in memory alone into ``folder`` is added to
        ``writings``.
        """
        chosen, inspector = self._data.session, self._inspector
        maps = [layer for layer in self._data.map_layers[::-1] if map_of(layer) is not None]
        return SavedSession(
            particles=tuple(
                _particles(session, folder, writings) for session in self._data.sessions
            ),
            maps=tuple(
                SavedMap(name=layer.name, path=_map_file(layer, folder, writings)) for layer in maps
            ),
            chosen=None if chosen is None else chosen.layer.name,
            particle=self._data.index,
            source=inspector.source,
            comparison_map=None if inspector.map_layer is None else inspector.map_layer.name,
            curves=tuple(self._curves()),
        )

    def _curves(self) -> list[SavedCurve]:
        owners = self._data.maps.owners
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
            for label, curve in self._data.maps.curves.items()
        ]

    def restore(self, path: Path) -> list[str]:
        """Open what a session file names, in addition to what is open; returns what could not be opened.

        Raises `FileFormatError` as `read_session`.
        """
        saved = read_session(path)
        lost = [f"{name}" for name in self._restore_layers(saved)]
        self._restore_curves(saved)
        layers = {layer.name: layer for layer in self._data.viewer.layers}
        if saved.comparison_map in layers:
            self._inspector.choose_map(layers[saved.comparison_map])
        self._inspector.show_source(saved.source)
        if saved.chosen in layers:
            self._data.choose(layers[saved.chosen])
            if saved.symmetry is not None:
                self._data.choose_symmetry(saved.symmetry)
            if saved.model is not None:
                lost += self._restore_model(saved.model, None)
            if saved.particle is not None:
                self._data.show_particle(saved.particle)
        if lost:
            tell_error(f"not found: {', '.join(lost)}; the rest of {path.name} is restored")
        return lost

    def _restore_layers(self, saved: SavedSession) -> list[str]:
        """Open the files of a session; yields the names of those that cannot be."""
        from napari_cryosphere.particles import DensityMap, ParticleStack

        viewer, lost = self._data.viewer, []
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
                lost += self._restore_particles(layer, some)
            except CryosphereError:
                lost.append(some.path.name)
        return lost

    def _restore_particles(self, layer: Layer, saved: SavedParticles) -> list[str]:
        """Give a layer its flags, selection and distributions back; returns folders not found."""
        from napari_cryosphere.so3.distributions.store import DistributionStore

        session = next(one for one in self._data.sessions if one.layer == layer)
        if saved.symmetry is not None:
            session.choose_symmetry(saved.symmetry)
        number, lost = len(session.stack), list[str]()
        if saved.model is not None:
            lost += self._restore_model(saved.model, session)
        if number == saved.number:
            selected = np.zeros(number, dtype=bool)
            selected[[row for row in saved.selected if row < number]] = True
            session.choices.restore(flags_of(saved.flags, number), selected)
        for path in saved.distributions.values():
            try:
                self._poses.attach(session, DistributionStore(path), path)
            except CryosphereError:
                lost.append(path.name)
        return lost

    def _restore_model(self, path: Path, session: Session | None) -> list[str]:
        """Choose a model; returns its name if it is not there any more."""
        if not path.exists():
            return [path.name]
        self._data.choose_model(path, session)
        return []

    def _restore_curves(self, saved: SavedSession) -> None:
        from napari_cryosphere.reconstruction import FourierShellCorrelation

        layers = {layer.name: layer for layer in self._data.viewer.layers}
        for one in saved.curves:
            fsc = FourierShellCorrelation(np.array(one.values), one.box, one.pixel_size_angstrom)
            owners = tuple(layers[name] for name in one.owners if name in layers)
            curve = Curve(one.group, one.kind, fsc, one.threshold, one.shown)
            self._data.maps.add_curves([curve], owners)


def last_session() -> Path:
    """Return where the session is kept after every job."""
    return state_folder() / f"last{SESSION_SUFFIX}"


def _particles(session: Session, folder: Path, writings: list[Writing]) -> SavedParticles:
    stack = session.stack
    path, distributions = kept_predictions(session, folder, writings)
    return SavedParticles(
        name=session.layer.name,
        path=path.absolute(),
        data_dir=None if session.data_dir is None else session.data_dir.absolute(),
        number=len(stack),
        flags=runs_of(session.choices.flags),
        selected=tuple(int(row) for row in session.choices.selected.nonzero()[0]),
        distributions={kind: file.absolute() for kind, file in distributions.items()},
        symmetry=session.symmetry if session.symmetry_known else None,
        model=None if session.model_path is None else session.model_path.absolute(),
    )


def _safe(name: str) -> str:
    """Return a layer's name as a file's: no two layers of a viewer have the same."""
    return "".join(letter if letter.isalnum() or letter in "-_" else "_" for letter in name)


def _map_file(layer: Image, folder: Path, writings: list[Writing]) -> Path:
    """Return the file of a map; one that was made here is to be written."""
    density = map_of(layer)
    assert density is not None
    known = layer.source.path or layer.metadata.get(_FILE)
    if known is not None and Path(known).is_file():
        return Path(known).absolute()
    path = folder / f"{_safe(layer.name)}.mrc"
    writings.append(partial(density.save, path, overwrite=True))
    return path.absolute()


def read_session(path: Path) -> SavedSession:
    """Read a session file. Raises `FileFormatError` if it is none, or of an unknown version."""
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


def runs_of(flags: NDArray[np.uint8]) -> tuple[tuple[int, int], ...]:
    """Return flags as runs of equal ones, (flag, length); empty if there is none."""
    if not flags.any():
        return ()
    return tuple((int(flag), sum(1 for _ in run)) for flag, run in groupby(flags))


def flags_of(runs: tuple[tuple[int, int], ...], number: int) -> NDArray[np.uint8]:
    """Invert `runs_of`; what the runs do not reach has no flag."""
    flags = np.zeros(number, dtype=np.uint8)
    if runs:
        values = np.repeat([flag for flag, _ in runs], [length for _, length in runs])[:number]
        flags[: len(values)] = values
    return flags


def kept_predictions(
    session: Session, folder: Path, writings: list[Writing]
) -> tuple[Path, dict[str, Path]]:
    """Return the file of a data set and the folders of its distributions.

    What writes those that are in memory alone is added to ``writings``: for ``folder``, a STAR file
    with the poses of all particles, and their distributions. A run that was stopped half-way is not
    kept: it is predicted again in less time than it takes to explain.
    """
    store, files = session.store, dict(session.distribution_files)
    made = session.refined is not None and session.refined is not session.stack
    if not made and (store.of_file or not store.predicted.all()):
        return session.stack.source, files
    name = _safe(session.layer.name)
    star, zarr = folder / f"{name}_predicted.star", folder / f"{name}_predicted.zarr"
    if "harmonic" not in files and store.predicted.all():
        writings.append(partial(_write_distributions, store, zarr))
        files["harmonic"] = zarr
    stack = chosen_stack(session, np.arange(len(session.stack)))
    writings.append(partial(stack.save, star, overwrite=True))
    return star, files


def _write_distributions(store: PredictionStore, path: Path) -> None:
    from napari_cryosphere.so3.distributions.store import write_distributions

    with write_distributions(path, overwrite=True) as writer:
        for part in store.distributions(store.predicted):
            writer.append(part)
