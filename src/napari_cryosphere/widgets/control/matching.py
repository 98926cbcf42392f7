"""A particle next to the projection of a map, both after the same preprocessing."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from napari_cryosphere.errors import CryosphereError
from napari_cryosphere.widgets.control.arrangement import NAMED
from napari_cryosphere.widgets.state.lazy_frames import low_passed_images

if TYPE_CHECKING:
    from napari.components import ViewerModel
    from napari.layers import Image, Layer

    from napari_cryosphere.imaging.comparison import ProjectionMatcher
    from napari_cryosphere.imaging.preprocess import Preprocessing
    from napari_cryosphere.particles import DensityMap, ParticleStack
    from napari_cryosphere.widgets.control.arrangement import Arrangement

__all__ = ["Match", "MatchLayers", "ParticleMatcher"]

_LEAST_REACH_PX = 4.0
_REACH = 0.06  # of the box
_LIMITS = (0.5, 99.7)  # percentiles that are black and white
_NAME = (0.6, 0.62, 0.66, 1.0)  # legible on a black and on a white canvas


@dataclass(frozen=True)
class Match:
    """What is shown below a particle.

    ``projection``, ``residual``: ``(box, box)`` float32, after the steps that the particle is shown
    after. ``correlation``: of the untreated image with the projection, over the inscribed circle.
    """

    projection: NDArray[np.float32]
    residual: NDArray[np.float32]
    correlation: float


class ParticleMatcher:
    """Compares particles of a stack with projections of a map; the map is transformed at the first one.

    ``reference``: the map, or its file, which is read at the first comparison.
    """

    def __init__(self, stack: ParticleStack, reference: DensityMap | Path) -> None:
        self.stack = stack
        self.reference = reference
        self.failed = False
        """Whether the map's file could not be read."""
        self._matcher: ProjectionMatcher | None = None

    def __call__(
        self,
        index: int,
        rotation: NDArray[np.float64],
        shift_px: NDArray[np.float64] | None = None,
        steps: Preprocessing | None = None,
        low_pass_angstrom: float | None = None,
    ) -> Match:
        """Compare a particle with the projection at a pose, ``(3, 3)``.

        Raises `CryosphereError` if the map cannot be read.

        - ``index``: the particle.
        - ``rotation``: image to map coordinates.
        - ``shift_px``, ``(2,)``: where its centre is, x and y relative to pixel n // 2; None looks
          around its origin.
        - ``steps``, ``low_pass_angstrom``: what the particle is shown after: it is done to
          projection and residual too.
        """
        import torch

        from napari_cryosphere.imaging.corrections import corrected_images
        from napari_cryosphere.imaging.ctf import transfer_functions
        from napari_cryosphere.imaging.preprocess import normalise_background

        matcher = self._opened()
        particle = self.stack[[index]]
        image = torch.from_numpy(corrected_images(particle, particle.images(), self.stack.grid))
        if steps is not None and steps.normalise:
            image = normalise_background(image)
        ctf = transfer_functions(particle)
        centre, reach = shift_px, 0.0
        if centre is None:
            centre = self._origin_px(particle)
            reach = max(_LEAST_REACH_PX, _REACH * self.stack.box)
        found = matcher.match(image[0], None if ctf is None else ctf[0], rotation, centre, reach)
        pictures = torch.from_numpy(np.stack([found.projection, found.residual]))
        if steps is not None:
            done = replace(steps, normalise=False)
            pictures = done(
                pictures, self.stack.grid, None if ctf is None else ctf.expand(2, -1, -1)
            )
        shown = pictures.numpy()
        if low_pass_angstrom is not None:
            shown = low_passed_images(shown, self.stack.pixel_size_angstrom, low_pass_angstrom)
        projection, residual = shown
        return Match(projection, residual, found.correlation)

    def thumbnails(self, rotations: NDArray[np.float64]) -> NDArray[np.uint8]:
        """Return the map's projections at poses ``(k, 3, 3)``, ``(k, box, box)`` grey values on one scale.

        Raises `CryosphereError` if the map cannot be read.
        """
        pictures = self._opened().projections(rotations)
        low, high = np.percentile(pictures, _LIMITS)
        grey = (pictures - low) * (255 / max(float(high - low), 1e-12))
        return grey.clip(0, 255).astype(np.uint8)

    def _opened(self) -> ProjectionMatcher:
        """Return what compares, made at the first call."""
        if self._matcher is None:
            from napari_cryosphere.imaging.comparison import ProjectionMatcher
            from napari_cryosphere.particles import DensityMap

            density = self.reference
            if isinstance(density, Path):
                try:
                    density = DensityMap.read(density)
                except CryosphereError:
                    self.failed = True
                    raise
            self._matcher = ProjectionMatcher(density, self.stack.grid)
        return self._matcher

    @staticmethod
    def _origin_px(particle: ParticleStack) -> NDArray[np.float64]:
        """Return where the file says that a particle's centre is, ``(2,)`` in pixels."""
        if not particle.has_shifts:
            return np.zeros(2)
        origin: NDArray[np.float64] = -particle.shifts_angstrom()[0] / particle.pixel_size_angstrom
        return origin


class MatchLayers:
    """Projection and residual as image layers with names above them. ``arrangement``: places them."""

    def __init__(self, viewer: ViewerModel, arrangement: Arrangement) -> None:
        self._viewer = viewer
        self._arrangement = arrangement
        self._layers: dict[str, Layer] = {}

    def show(
        self, particle: Image, projection: NDArray[np.float32], residual: NDArray[np.float32]
    ) -> None:
        """Show pictures on the particle's grid."""
        low, high = np.percentile(projection, _LIMITS)
        selected = self._viewer.layers.selection.active
        self._show_image(
            particle, "projection", projection, (float(low), float(max(high, low + 1e-6)))
        )
        limits = particle.contrast_limits
        self._show_image(particle, "residual", residual, (float(limits[0]), float(limits[1])))
        self._show_names()
        self._viewer.layers.selection.active = (
            selected if selected in self._viewer.layers else particle
        )
        self._arrangement.put(**self._layers)

    def _show_image(
        self, particle: Image, what: str, picture: NDArray[np.float32], limits: tuple[float, float]
    ) -> None:
        name, layer = f"{particle.name} {what}", self._present(what)
        if layer is None:
            options: dict[str, Any] = {
                "name": name,
                "units": ("angstrom",) * 2,
                "contrast_limits": limits,
                "colormap": "gray",
                "multiscale": False,
                "rgb": False,
            }
            self._layers[what] = self._viewer.add_image(picture, **options)
            return
        layer.name, layer.data = name, picture
        layer.contrast_limits_range = layer.contrast_limits = limits
        layer.visible = True

    def _show_names(self) -> None:
        layer = self._present("names")
        if layer is None:
            text = {"string": list(NAMED), "color": _NAME, "size": 10, "anchor": "lower_left"}
            options: dict[str, Any] = {
                "name": "names",
                "units": ("angstrom",) * 2,
                "text": text,
                "face_color": "transparent",
                "blending": "translucent_no_depth",  # else the points hide what is below them
                "border_color": "transparent",
            }
            places = np.zeros((len(NAMED), 2))
            self._layers["names"] = self._viewer.add_points(places, **options)
        else:
            layer.visible = True

    def _present(self, what: str) -> Any:
        """Return a layer that is in the viewer; None for another."""
        layer = self._layers.get(what)
        return layer if layer is not None and layer in self._viewer.layers else None

    def hide(self) -> None:
        """Show nothing until there is something new; the place stays empty."""
        for what in self._layers:
            layer = self._present(what)
            if layer is not None and layer.visible:
                layer.visible = False

    def remove(self) -> None:
        """Take the layers away, and let the others take their room."""
        layers, self._layers = self._layers, {}
        present = [layer for layer in layers.values() if layer in self._viewer.layers]
        for layer in present:
            self._viewer.layers.remove(layer)
        if present:
            self._arrangement.fit()
