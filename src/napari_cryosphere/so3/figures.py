"""Figures for papers: view directions on the sphere, drawn with healpy and matplotlib."""

from __future__ import annotations

import io
from os import PathLike
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import ArrayLike

from napari_cryosphere._files import atomic_path
from napari_cryosphere.errors import CryosphereError

if TYPE_CHECKING:
    from matplotlib.figure import Figure

__all__ = ["draw_views"]

_COLUMNS, _ROWS = 720, 360  # pixels of the picture of the sphere: half a degree
_WIDTH_INCHES, _HEIGHT_INCHES = 6.0, 3.8  # one column and a half of a page
_DOTS_PER_INCH = 200  # of figures in files: chosen, not tuned
_LOWEST, _HIGHEST = 0.1, 1000.0
"""Densities over the uniform one at the ends of a logarithmic scale, as on the spheres of the window."""
_SUFFIXES = (".png", ".svg", ".pdf")


def draw_views(
    view_map: ArrayLike,
    path: str | PathLike[str] | None = None,
    *,
    levels: tuple[float, ...] = (0.5, 0.9),
    logarithmic: bool = False,
    title: str = "",
    overwrite: bool = False,
) -> Figure:
    """Draw a map of view directions in Mollweide projection, with graticule, colour bar and contours.

    North is the map's z axis, the middle its x axis, and y lies to the left, as healpy draws.
    Raises `CryosphereError` if healpy or matplotlib is not installed, the suffix is another, or the
    length is that of no HEALPix map; `OutputExistsError` if the file exists and ``overwrite`` is
    False.

    - ``view_map``: ``(12 * 4**order,)`` probabilities of HEALPix pixels in RING order: a row of
      `PoseDistribution.view_map`, or a sum of rows.
    - ``path``: PNG, SVG or PDF file to write; None writes none.
    - ``levels``: contours around the smallest sets of views that hold these probabilities.
    - ``logarithmic``: whether colour follows the logarithm of the density, from 0.1 to at least
      1000 times the uniform one: the same scale for all distributions that are not sharper.
    """
    try:
        import healpy
        from matplotlib.colors import LogNorm
        from matplotlib.figure import Figure
    except ImportError as error:
        raise CryosphereError(
            f"figures need {error.name}: pip install napari-cryosphere[plots] (healpy has no Windows build)"
        ) from error
    target = None if path is None else Path(path)
    if target is not None and target.suffix.lower() not in _SUFFIXES:
        raise CryosphereError(f"{target} must end with one of {', '.join(_SUFFIXES)}")
    values = np.asarray(view_map, dtype=np.float64)
    if values.ndim != 1 or not healpy.isnpixok(len(values)):
        raise CryosphereError(f"a HEALPix map has 12 * 4**order values, not shape {values.shape}")
    density = values / values.sum() * len(values)  # relative to uniform
    longitude = np.linspace(-np.pi, np.pi, _COLUMNS)
    latitude = np.linspace(-np.pi / 2, np.pi / 2, _ROWS)
    across, up = np.meshgrid(longitude, latitude)
    picture = healpy.get_interp_val(density, np.pi / 2 - up, -across)  # y to the left
    # notebooks show a figure that was made without pyplot by this method alone
    kind = type("ViewFigure", (Figure,), {"_repr_png_": _png_of})
    figure: Figure = kind(figsize=(_WIDTH_INCHES, _HEIGHT_INCHES), layout="constrained")
    axes = figure.add_subplot(projection="mollweide")
    norm = LogNorm(_LOWEST, max(_HIGHEST, float(density.max()))) if logarithmic else None
    shown = np.maximum(picture, _LOWEST) if logarithmic else picture
    drawn = axes.pcolormesh(
        across, up, shown, cmap="viridis", shading="gouraud", rasterized=True, norm=norm
    )
    heights = sorted({_height(density, level) for level in levels})
    if heights and density.max() > heights[-1]:
        axes.contour(across, up, picture, heights, colors="white", linewidths=0.8)
    axes.grid(color="grey", linewidth=0.4)
    axes.set_xticklabels([])
    bar = figure.colorbar(drawn, ax=axes, orientation="horizontal", shrink=0.6, pad=0.05)
    bar.set_label("probability density, relative to uniform")
    axes.set_title(title)
    if target is not None:
        with atomic_path(target, overwrite=overwrite) as temporary:
            figure.savefig(temporary, dpi=_DOTS_PER_INCH, format=target.suffix[1:].lower())
    return figure


def _png_of(figure: Figure) -> bytes:
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png")
    return buffer.getvalue()


def _height(density: np.ndarray, level: float) -> float:
    """Return the density above which the pixels hold a probability."""
    ordered = np.sort(density)[::-1]
    held = np.cumsum(ordered) / ordered.sum()
    return float(ordered[min(int(np.searchsorted(held, level)), len(ordered) - 1)])
