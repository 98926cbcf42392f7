"""A particle next to the projection of a map, both after the same preprocessing."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

if TYPE_CHECKING:
    from napari.components import ViewerModel
    from napari.layers import Image

    from napari_cryosphere.imaging.comparison import ProjectionMatcher
    from napari_cryosphere.imaging.preprocess import Preprocessing
    from napari_cryosphere.particles import DensityMap, ParticleStack
    from napari_cryosphere.widgets.control.arrangement import Arrangement

__all__ = ["Match", "MatchLayers", "ParticleMatcher"]

_LEAST_REACH_PX = 4.0
_REACH = 0.06  # of the box


@dataclass(frozen=True)
class Match:
    """What is shown below a particle.

    Attributes
    ----------
    projection, residual
        ``(box, box)`` float32, after the steps that the particle is shown after.
    correlation
        Of the untreated image with the projection, over the inscribed circle.
    """

    projection: NDArray[np.float32]
    residual: NDArray[np.float32]
    correlation: float


class ParticleMatcher:
    """Compares particles of a stack with projections of a map; the map is transformed at the first one.

    Parameters
    ----------
    stack, density
        The particles and the map.
    """

    def __init__(self, stack: ParticleStack, density: DensityMap) -> None:
        self.stack = stack
        self.density = density
        self._matcher: ProjectionMatcher | None = None

    def __call__(
        self,
        index: int,
        rotation: NDArray[np.float64],
        shift_px: NDArray[np.float64] | None = None,
        steps: Preprocessing | None = None,
    ) -> Match:
        """Compare a particle with the projection at a pose, ``(3, 3)``.

        Parameters
        ----------
        index
            The particle.
        rotation
            Image to map coordinates.
        shift_px
            ``(2,)``: where its centre is, x and y relative to pixel n // 2; None looks around its
            origin.
        steps
            What the particle is shown after: it is done to projection and residual too.
        """
        import torch

        from napari_cryosphere.imaging.comparison import ProjectionMatcher
        from napari_cryosphere.imaging.corrections import corrected_images
        from napari_cryosphere.imaging.ctf import transfer_functions
        from napari_cryosphere.imaging.preprocess import normalise_background

        if self._matcher is None:
            self._matcher = ProjectionMatcher(self.density, self.stack.grid)
        particle = self.stack[[index]]
        image = torch.from_numpy(corrected_images(particle, particle.images(), self.stack.grid))
        if steps is not None and steps.normalise:
            image = normalise_background(image)
        ctf = transfer_functions(particle)
        centre, reach = shift_px, 0.0
        if centre is None:
            centre = self._origin_px(particle)
            reach = max(_LEAST_REACH_PX, _REACH * self.stack.box)
        found = self._matcher.match(
            image[0], None if ctf is None else ctf[0], rotation, centre, reach
        )
        pictures = torch.from_numpy(np.stack([found.projection, found.residual]))
        if steps is not None:
            done = replace(steps, normalise=False)
            pictures = done(
                pictures, self.stack.grid, None if ctf is None else ctf.expand(2, -1, -1)
            )
        projection, residual = pictures.numpy()
        return Match(projection, residual, found.correlation)

    @staticmethod
    def _origin_px(particle: ParticleStack) -> NDArray[np.float64]:
        """Return where the file says that a particle's centre is, ``(2,)`` in pixels."""
        if not particle.has_shifts:
            return np.zeros(2)
        origin: NDArray[np.float64] = -particle.shifts_angstrom()[0] / particle.pixel_size_angstrom
        return origin


class MatchLayers:
    """Two image layers of a viewer, made when they are first shown.

    Parameters
    ----------
    viewer
        The viewer.
    arrangement
        Places them.
    """

    def __init__(self, viewer: ViewerModel, arrangement: Arrangement) -> None:
        self._viewer = viewer
        self._arrangement = arrangement
        self._layers: list[Image] = []

    @property
    def shown(self) -> bool:
        """Whether the layers are there and visible."""
        return any(layer in self._viewer.layers and layer.visible for layer in self._layers)

    def show(
        self, particle: Image, projection: NDArray[np.float32], residual: NDArray[np.float32]
    ) -> None:
        """Show pictures of the particle's size."""
        self._take_away()
        low, high = np.percentile(projection, [0.5, 99.7])
        places = {
            "projection": (projection, (float(low), float(max(high, low + 1e-6)))),
            "residual": (residual, tuple(particle.contrast_limits)),
        }
        selected = self._viewer.layers.selection.active
        for name, (picture, limits) in places.items():
            options: dict[str, Any] = {
                "name": f"{particle.name} {name}",
                "units": ("angstrom",) * 2,
                "contrast_limits": limits,
                "colormap": "gray",
                "multiscale": False,
                "rgb": False,
            }
            self._layers.append(self._viewer.add_image(picture, **options))
        self._viewer.layers.selection.active = (
            selected if selected in self._viewer.layers else particle
        )
        first, second = self._layers
        self._arrangement.put(projection=first, residual=second)

    def remove(self) -> None:
        """Take the layers away, and let the others take their room."""
        if self._layers:
            self._take_away()
            self._arrangement.fit()

    def _take_away(self) -> None:
        for layer in self._layers:
            if layer in self._viewer.layers:
                self._viewer.layers.remove(layer)
        self._layers = []
