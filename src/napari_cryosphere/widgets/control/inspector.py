"""Inspection of one particle: its image, its distributions, and places on its sphere."""

from __future__ import annotations

import weakref
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar

import numpy as np
from numpy.typing import NDArray
from psygnal import Signal

from napari_cryosphere.errors import CryosphereError
from napari_cryosphere.widgets.control.map_view import MOST_MAPS
from napari_cryosphere.widgets.control.running import Background
from napari_cryosphere.widgets.state.layer_data import frame_limits, layers_of_states, map_of
from napari_cryosphere.widgets.state.lens import Lens, look_through
from napari_cryosphere.widgets.state.notices import tell_note
from napari_cryosphere.widgets.state.posteriors import MapAligner, Posterior
from napari_cryosphere.widgets.state.reading import (
    NEAR_DEGREES,
    Reading,
    SphereProbe,
    read_distribution,
    view_angles,
)
from napari_cryosphere.widgets.state.verdict import Candidate, agreement

if TYPE_CHECKING:
    from napari.layers import Layer

    from napari_cryosphere.imaging.preprocess import Preprocessing
    from napari_cryosphere.particles import DensityMap
    from napari_cryosphere.widgets.control.data_sets import DataSets
    from napari_cryosphere.widgets.state.session import Session
    from napari_cryosphere.widgets.state.sphere_layer import Source

__all__ = ["Inspector", "last_or_new"]

_LIMITS_FROM = 8
T = TypeVar("T")


def last_or_new(kept: list[T], fits: Callable[[T], bool], make: Callable[[], T]) -> T:
    """Return the one of ``kept`` that fits, else a new one; as many as states are shown stay."""
    found = next((one for one in kept if fits(one)), None)
    if found is not None:
        kept.remove(found)
    kept.append(make() if found is None else found)
    del kept[:-MOST_MAPS]
    return kept[-1]


class Inspector:
    """What is looked at, and how; results stay with the particle they belong to.

    ``data``: the viewer's data sets, the chosen particles and the one under the slider.
    ``background``: does what takes longer than a step of the slider may.
    """

    changed = Signal()
    """The reading or what is looked at has changed."""
    left = Signal()
    """Another particle, treatment or map is looked at: what was shown next to the particle goes."""
    rested = Signal()
    """The slider rests on a particle, or more is known of it: what takes time may be shown."""
    went = Signal(object)
    """A candidate is looked at; sent with its pose, ``(3, 3)``."""

    def __init__(self, data: DataSets, background: Background) -> None:
        self._data = data
        self._background = background
        self.source: Source = "network"
        self.marked = True
        """Whether marks and contours are drawn on the spheres."""
        self.steps: Preprocessing | None = None
        self.low_pass_angstrom: float | None = None
        self.map_layer: Layer | None = None
        self.reading: Reading | None = None
        self.lens: Lens | None = None
        """What is seen around the candidate that is looked at."""
        self.outlined_lens: Lens | None = None
        """The same of the distribution that is outlined."""
        self.waiting = False
        """Whether a posterior is being computed."""
        self._aligners: weakref.WeakKeyDictionary[Session, list[MapAligner]] = (
            weakref.WeakKeyDictionary()
        )
        self._of_states: list[Layer] = []
        self._probe: SphereProbe | None = None
        self._walked: tuple[Session, int] | None = None
        self._last, self._stride = 0, 0
        data.particle_changed.connect(self._on_particle)
        data.session_changed.connect(self._on_session)

    @property
    def shown(self) -> tuple[Session, int] | None:
        """The chosen particles and the one under the slider; None if there is none."""
        return self._data.shown

    @property
    def compared_layer(self) -> Layer | None:
        """The map that the particle under the slider is compared with, of several states' its own."""
        return self.map_layer if self.shown is None else self._compared(*self.shown)

    def _compared(self, session: Session, index: int) -> Layer | None:
        if session.states is None:
            return self.map_layer
        maps = layers_of_states(self.map_layer, self._data.map_layers)
        return maps.get(int(session.states.numbers[index]), self.map_layer)

    # ------------------------------------------------------------------ how

    def show_source(self, source: Source) -> None:
        """Draw the network's distribution, that given the map, or both."""
        self.source = source
        self._show_session()

    def show_marks(self, marked: bool) -> None:
        """Draw marks and contours on the spheres, or leave them out."""
        self.marked = marked
        if self._data.session is not None:
            self._data.session.frames.show(self.source, marked)
        self.refresh()

    def show_steps(
        self, steps: Preprocessing | None, low_pass_angstrom: float | None = None
    ) -> None:
        """Show the particles after some steps of preprocessing, low-passed; None for as they are stored."""
        self.left.emit()
        self.steps, self.low_pass_angstrom = steps, low_pass_angstrom
        self._prepare()
        self.changed.emit()

    def choose_map(self, layer: Layer | None) -> None:
        """Take another map for posteriors and projections."""
        if layer is self.map_layer:
            return
        self.map_layer = layer
        self._forget_posteriors()
        self.left.emit()
        shown = self._data.session
        if layer is None and not (shown is not None and shown.posteriors.stored):
            self.source = "network"  # nothing else can be shown
        self._prefer_map()
        if shown is not None:
            shown.frames.show(self.source, self.marked)
        self.refresh()

    def _forget_posteriors(self) -> None:
        """Forget what was computed with maps that are no longer those that particles are compared with."""
        self._aligners.clear()
        for session in self._data.sessions:
            if not session.posteriors.stored:
                session.posteriors.clear()

    def _follow_states(self) -> None:
        """Compare anew where another state's map has come, or one has gone."""
        maps = layers_of_states(self.map_layer, self._data.map_layers)
        of_states = [maps[state] for state in sorted(maps)]
        if of_states != self._of_states:
            self._of_states = of_states
            self._forget_posteriors()

    def _prefer_map(self) -> None:
        """Draw what a map says of particles that no network has predicted."""
        session = self._data.session
        if session is not None and session.store.only_refined and self.map_layer is not None:
            self.source = "map" if self.source == "network" else self.source

    def _on_session(self) -> None:
        self._prefer_map()
        self._show_session()

    def _show_session(self) -> None:
        session = self._data.session
        if session is not None:
            session.frames.show(self.source, self.marked)
        self._prepare()
        self.refresh()
        self.left.emit()

    def leave(self) -> None:
        """Show the particles alone, as they are stored."""
        self.show_steps(None)

    def _prepare(self) -> None:
        """Let the chosen particles be shown after the steps that are set."""
        session = self._data.session
        wanted = self.steps, self.low_pass_angstrom
        if session is None or session.steps_shown == wanted:
            return
        session.steps_shown = wanted
        frames = session.layer.data
        frames.prepare(*wanted)
        session.layer.contrast_limits = frame_limits(frames, _LIMITS_FROM)
        session.layer.refresh()

    def refresh(self) -> None:
        """Redraw the sphere."""
        session = self._data.session
        self._probe = None
        if session is not None:
            session.refresh_sphere(self._data.viewer)
        self.changed.emit()

    # ------------------------------------------------------------------ the particle's distribution

    def _on_particle(self) -> None:
        self.reading = self.lens = self.outlined_lens = self._probe = None
        self.left.emit()
        self.changed.emit()
        self._draw_ahead()

    def _draw_ahead(self) -> None:
        """Draw the next sphere where the slider goes on as before, while the window is painted."""
        shown = self.shown
        if shown is None:
            return
        session, index = shown
        stride, before = index - self._last, self._stride
        self._last, self._stride = index, stride
        following = index + stride
        steady = stride and stride == before and session.sphere is not None
        if steady and 0 <= following < len(session.stack):
            self._background.run("sphere", lambda: session.frames[following], lambda _: None)

    def settle(self) -> None:
        """Read the particle that is shown, and compute its posterior if that is looked at."""
        shown = self.shown
        if shown is None:
            return
        session, index = shown
        self._follow_states()
        density = map_of(self._compared(session, index))
        if self.source != "network" and (density is not None or session.posteriors.stored):
            self._data.show_sphere(session)
        wanted = self.source != "network" and session.posteriors.get(index) is None
        if wanted and density is not None and not session.posteriors.stored:
            aligner = self._aligner(session, density)
            self.waiting = True
            self.changed.emit()
            self._background.run(
                "posterior",
                lambda: aligner(index),
                lambda found: self._take_posterior(shown, aligner, found),
            )
        self._read(shown)
        self.rested.emit()

    def _read(self, shown: tuple[Session, int]) -> None:
        session, index = shown
        coloured, outlined = session.frames.distributions(index)
        distribution, known = (
            outlined if coloured is None else coloured,
            session.store.known_rotation(index),
        )
        if distribution is not None:
            self._background.run(
                "reading",
                lambda: read_distribution(distribution, known),
                lambda reading: self._take_reading(shown, reading),
            )

    def _aligner(self, session: Session, density: DensityMap) -> MapAligner:
        symmetry = self._data.symmetry
        return last_or_new(
            self._aligners.setdefault(session, []),
            lambda aligner: aligner.density is density and aligner.symmetry == symmetry,
            lambda: MapAligner(session.stack, density, symmetry),
        )

    def _take_posterior(
        self, asked: tuple[Session, int], aligner: MapAligner, found: Posterior
    ) -> None:
        self.waiting = False
        session, index = asked
        if aligner in self._aligners.get(session, []):  # the map is still the one that was asked
            session.posteriors.add(index, found)
        if self.shown == asked:
            self.refresh()
            self._read(asked)
            self.rested.emit()
        else:
            self.changed.emit()

    def _take_reading(self, asked: tuple[Session, int], reading: Reading) -> None:
        if self.shown == asked:
            self.reading = reading
            self._take_lenses(asked, reading.lens, None)
            session, index = asked
            coloured, outlined = session.frames.distributions(index)
            if coloured is not None and outlined is not None:
                self._look(asked, reading.candidates[0])

    def go_to(self, place: int) -> None:
        """Look at one of the candidates: it is marked on the sphere, and the lens is moved there."""
        shown, reading = self.shown, self.reading
        if shown is None or reading is None or place >= len(reading.candidates):
            return
        session, index = shown
        candidate = reading.candidates[place]
        session.frames.point_at(index, candidate.rotation[:, 2])
        self.refresh()
        self._look(shown, candidate)
        self.went.emit(candidate.rotation)

    def _look(self, shown: tuple[Session, int], candidate: Candidate) -> None:
        """Look through the lens at a candidate, at both distributions where two are shown."""
        session, index = shown
        coloured, outlined = session.frames.distributions(index)
        main, second = (outlined, None) if coloured is None else (coloured, outlined)
        if main is None:
            return

        def look() -> tuple[Lens, Lens | None]:
            pose = candidate.rotation
            return look_through(main, pose), None if second is None else look_through(second, pose)

        self._background.run("lens", look, lambda seen: self._take_lenses(shown, *seen))

    def _take_lenses(self, asked: tuple[Session, int], lens: Lens, outlined: Lens | None) -> None:
        if self.shown == asked and self.reading is not None:
            self.lens, self.outlined_lens = lens, outlined
            self.changed.emit()

    def draw_figure(self, path: Path) -> None:
        """Draw the sphere that is shown as a figure for a paper: PNG, SVG or PDF by the path's suffix.

        Raises `CryosphereError` if nothing is known of the particle that is shown.
        """
        shown = self.shown
        coloured, outlined = (
            (None, None) if shown is None else shown[0].frames.distributions(shown[1])
        )
        distribution = outlined if coloured is None else coloured
        if shown is None or distribution is None:
            raise CryosphereError(
                "nothing is predicted of this particle: there is no sphere to draw"
            )
        title = f"{shown[0].layer.name}, particle {shown[1] + 1:,}"

        def draw() -> None:
            from napari_cryosphere.so3.figures import draw_views
            from napari_cryosphere.widgets.state.sphere_density import views_of

            density = views_of(distribution).density
            draw_views(
                density, path, levels=(0.5, 0.95), logarithmic=True, title=title, overwrite=True
            )

        self._background.run("figure", draw, lambda _: tell_note(f"{title} in {path.name}"))

    def agreement(self) -> str:
        """Return a line on whether network and map agree; empty where one of them is not known."""
        from napari_cryosphere.so3.symmetry import angular_error_degrees

        if self.shown is None:
            return ""
        session, index = self.shown
        network, posterior = session.store.rotation(index), session.posteriors.get(index)
        if network is None or posterior is None or session.store.only_refined:
            return ""
        poses = network[None], posterior.rotation[None]
        return agreement(float(angular_error_degrees(*poses, session.store.symmetry)[0]))

    # ------------------------------------------------------------------ the sphere under the mouse

    def probe(self) -> SphereProbe | None:
        """Return what the sphere that is shown can be asked; None if it is empty."""
        shown = self.shown
        if shown is None:
            return None
        session, index = shown
        coloured, outlined = session.frames.distributions(index)
        distribution = outlined if coloured is None else coloured
        if self._probe is None and distribution is not None:
            self._probe = SphereProbe(distribution)
        return self._probe

    def describe(self, direction: NDArray[np.float64]) -> str:
        """Return a line on a place of the sphere, for the status bar."""
        rot, tilt = view_angles(direction)
        line = f"view rot {rot:.1f}°, tilt {tilt:.1f}°"
        probe = self.probe()
        if probe is None:
            return f"{line} · nothing predicted"
        share = 100 * probe.probability_near(direction)
        likely = probe.psi_degrees(direction)
        return f"{line} · probability {share:.3g} % within {NEAR_DEGREES:.0f}° · most likely ψ {likely:.0f}°"

    # ------------------------------------------------------------------ the most uncertain

    def step_uncertain(self, by: int) -> None:
        """Go to the next particle (1) in order of falling spread, or back (-1); around at the ends.

        The first step, and the first after another particle was looked at, goes to the most
        uncertain one.
        """
        shown = self.shown
        session = self._data.session
        order = np.empty(0, dtype=np.int64) if session is None else session.store.uncertain_order()
        if not order.size:
            return
        at = np.flatnonzero(order == (-1 if shown is None else shown[1]))
        walking = at.size and (at[0] == 0 or shown == self._walked)
        place = (int(at[0]) + by) % len(order) if walking else 0
        self._data.open_particle(int(order[place]))
        self._walked = self.shown
