"""The sphere of poses next to the particle: a layer whose pictures are drawn when they are shown."""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal, TypeAlias

import numpy as np
from numpy.typing import NDArray

from napari_cryosphere.widgets.state.lazy_frames import LazyFrames
from napari_cryosphere.widgets.state.particle_states import ParticleStates
from napari_cryosphere.widgets.state.posteriors import Posteriors
from napari_cryosphere.widgets.state.predictions import PredictionStore

if TYPE_CHECKING:
    from napari_cryosphere.so3.distributions import PoseDistribution

__all__ = [
    "CROSS_COLOUR",
    "DIAMOND_COLOUR",
    "HEIGHT",
    "OUTLINE_COLOUR",
    "POINT_COLOUR",
    "RING_COLOUR",
    "WIDTH",
    "PredictionStore",
    "Source",
    "SphereFrames",
]

HEIGHT, WIDTH = 320, 640
"""Size of a picture; about as large as a window of 1400 pixels shows it, larger ones take longer."""

RING_COLOUR = (255, 255, 255)
CROSS_COLOUR = (255, 226, 122)
DIAMOND_COLOUR = OUTLINE_COLOUR = (122, 226, 255)
POINT_COLOUR = (255, 120, 90)
_RADIUS = 19.0
"""Pixels, of the ring, with the other marks across and around it: 10 degrees, outside of the 95 per cent
contour of a particle whose spread is 3 degrees."""
_CLEAR = 1.6
"""Radii around a mark, to the ends of its ticks, in which labels are left out."""

Source: TypeAlias = Literal["network", "map", "both"]
"""Whose distribution is drawn: the network's, that given the map, or the first with the second outlined."""


class SphereFrames(LazyFrames):
    """One picture per particle, ``(n, 320, 640, 4)`` uint8 RGBA.

    The distribution where it is known, an empty sphere where not, and the contour that holds 95
    per cent of it. Around the predicted view stands an open ring, four ticks around the known one,
    the corners of a diamond around the one refined against a map, a small ring where one has clicked.

    - ``store``: the network's predictions.
    - ``posteriors``: what a map says.
    - ``refined``: ``(n, 3, 3)`` poses refined against a map, for particles without a posterior.
    - ``states``: the particles' states: the rim has the colour of a particle's, and its probability
      is said beside it.
    """

    def __init__(
        self,
        store: PredictionStore,
        posteriors: Posteriors | None = None,
        refined: NDArray[np.float64] | None = None,
        states: ParticleStates | None = None,
    ) -> None:
        super().__init__((store.number, HEIGHT, WIDTH, 4), np.uint8)
        self.store = store
        self.posteriors = posteriors or Posteriors()
        self.source: Source = "network"
        self.refined = refined
        self.states = states
        self.marked = True
        self._pointed: tuple[int, NDArray[np.float64]] | None = None
        store.changed.connect(self._on_changed)
        self.posteriors.changed.connect(self._on_changed)

    def show(self, source: Source, marked: bool = True) -> None:
        """Draw another distribution from now on, with marks and contours or without."""
        self.source, self.marked = source, marked
        self.forget()

    def distributions(self, index: int) -> tuple[PoseDistribution | None, PoseDistribution | None]:
        """Return what is coloured and what is outlined of a particle; None for what is not."""
        network = self.store.distribution(index) if self.source != "map" else None
        posterior = self.posteriors.get(index) if self.source != "network" else None
        given_map = None if posterior is None else posterior.distribution
        if self.source == "both":
            return network, given_map
        return (given_map if network is None else network), None

    def point_at(self, index: int, direction: NDArray[np.float64] | None) -> None:
        """Mark a place on a particle's sphere, ``(3,)``, and no other; None takes the mark away."""
        former, self._pointed = self._pointed, None if direction is None else (index, direction)
        for changed in (former, self._pointed):
            if changed is not None:
                self.forget(changed[0])

    def refined_rotation(self, index: int) -> NDArray[np.float64] | None:
        """Return a particle's pose refined against a map, ``(3, 3)``; None if there is none."""
        posterior = self.posteriors.get(index)
        if posterior is not None:
            return self.store.nearest_to_prediction(posterior.rotation, index)
        if self.refined is None:
            return None
        return self.store.nearest_to_prediction(self.refined[index], index)

    def _on_changed(self, changed: object) -> None:
        self.forget()

    def _make(self, indices: NDArray[np.int64]) -> NDArray[np.uint8]:
        return np.stack([self._draw(int(index)) for index in indices])

    def _draw(self, index: int) -> NDArray[np.uint8]:
        from napari_cryosphere.widgets.state.sphere_density import views_of
        from napari_cryosphere.widgets.state.sphere_frame import add_frame, write_above
        from napari_cryosphere.widgets.state.sphere_picture import draw_contour, paint

        coloured, outlined = self.distributions(index)
        views = views_of(coloured)
        state = None if self.states is None else self.states.colour(index)
        picture = paint(views, HEIGHT, WIDTH, rim=state)
        marked: list[tuple[float, float]] = []
        if self.marked:
            draw_contour(picture, views)
            if outlined is not None:
                draw_contour(picture, views_of(outlined), colour=OUTLINE_COLOUR)
            marked = self._mark(picture, index)
        add_frame(picture, marked, _CLEAR * _RADIUS)
        if self.states is not None and state is not None:
            write_above(picture, self.states.text(index), state)
        return picture

    def _mark(self, picture: NDArray[np.uint8], index: int) -> list[tuple[float, float]]:
        """Mark what is known of a particle's view, and where one has clicked; returns where the first are."""
        from napari_cryosphere.widgets.state.sphere_picture import (
            draw_cross,
            draw_diamond,
            draw_ring,
        )

        known, predicted = self.store.known_rotation(index), self.store.rotation(index)
        refined = self.refined_rotation(index)
        places = []
        for pose, draw, colour in (
            (predicted, draw_ring, RING_COLOUR),
            (refined, draw_diamond, DIAMOND_COLOUR),
            (known, draw_cross, CROSS_COLOUR),
        ):
            if pose is not None:
                places.append(draw(picture, pose[:, 2], colour, _RADIUS))
        if self._pointed is not None and self._pointed[0] == index:
            draw_ring(picture, self._pointed[1], POINT_COLOUR, _RADIUS / 2, whole=True)
        return places
