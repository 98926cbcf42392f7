"""The lens on the canvas: a layer whose picture is painted when the slider rests."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray
from qtpy.QtCore import QPointF, QRectF, Qt
from qtpy.QtGui import QColor, QImage, QPainter, QPainterPath, QPen

from napari_cryosphere.widgets.docks.sphere.view import Mark, paint_mark
from napari_cryosphere.widgets.state.lens import HALF_DEGREES, Lens, lens_place
from napari_cryosphere.widgets.state.sphere_frame import TEXT

if TYPE_CHECKING:
    from napari.components import ViewerModel
    from napari.layers import Image

    from napari_cryosphere.widgets.control.arrangement import Arrangement

__all__ = ["LensLayer", "paint_lens"]

_SIDE = 480  # pixels of the picture, about as large as a window of 1400 pixels shows it
_MIDDLE, _RADIUS = QPointF(222, 232), 210.0
_DIAL, _DIAL_RADIUS = QPointF(424, 424), 40.0
_DIAL_REACH = 15.0  # of the distribution, beyond the dial
_LEVELS = (0.5, 0.95)
_LEAST_SHARE = 0.02  # of a distribution inside of the lens, to be outlined
_RINGS_DEGREES = (5, 10, 15)
_FONT_PIXELS = 24
_TEXT, _LINE = QColor(*TEXT), QColor(110, 114, 124)


class LensLayer:
    """Shows pictures of the lens in its place next to the particle; the layer is made for the first one.

    ``viewer``, ``arrangement``: the viewer, and what places its pictures.
    """

    def __init__(self, viewer: ViewerModel, arrangement: Arrangement) -> None:
        self._viewer, self._arrangement = viewer, arrangement
        self._layer: Image | None = None

    def show(self, picture: NDArray[np.uint8]) -> None:
        """Show a picture, ``(side, side, 4)`` uint8 RGBA."""
        layers = self._viewer.layers
        if self._layer is not None and self._layer in layers:
            self._layer.data = picture
            self._layer.visible = True
        else:
            selected = layers.selection.active
            units = ("angstrom", "angstrom")
            self._layer = self._viewer.add_image(picture, rgb=True, name="lens", units=units)
            layers.selection.active = selected
        self._arrangement.put(lens=self._layer)

    def hide(self) -> None:
        """Show nothing until there is a picture again."""
        if self._layer is not None and self._layer in self._viewer.layers and self._layer.visible:
            self._layer.visible = False

    def remove(self) -> None:
        """Take the layer away."""
        if self._layer is not None and self._layer in self._viewer.layers:
            self._viewer.layers.remove(self._layer)
        self._layer = None


def paint_lens(lens: Lens, outlined: Lens | None, marks: list[Mark]) -> NDArray[np.uint8]:
    """Draw a lens: density, contours, scale, marks, and the dial of in-plane angles.

    ``lens``, ``outlined``: what is seen of the distribution that is coloured, and of one that is
    outlined. ``marks``: views that are known. Returns ``(480, 480, 4)`` uint8 RGBA.
    """
    from napari_cryosphere.so3.rotations import relion_angles_from_rotation

    rot, tilt, psi = (float(angle) for angle in relion_angles_from_rotation(lens.centre))
    image = QImage(_SIDE, _SIDE, QImage.Format.Format_RGBA8888)
    image.fill(Qt.GlobalColor.transparent)
    painter = QPainter(image)
    painter.setRenderHint(QPainter.RenderHint.Antialiasing)
    painter.setRenderHint(QPainter.RenderHint.SmoothPixmapTransform)
    font = painter.font()
    font.setPixelSize(_FONT_PIXELS)
    painter.setFont(font)
    disc = QPainterPath()
    disc.addEllipse(_MIDDLE, _RADIUS, _RADIUS)
    painter.save()
    painter.setClipPath(disc)
    painter.drawImage(_square(_MIDDLE, _RADIUS), _density_image(lens, outlined, psi))
    painter.restore()
    _paint_scale(painter, lens.share)
    for mark in marks:
        right, up = lens_place(mark.direction, lens.centre) / np.radians(HALF_DEGREES)
        if (
            np.hypot(right, up) < 1
            and mark.direction @ lens.centre[:, 2] > 0
            and mark.shape != "ring"
        ):
            painter.setPen(QPen(QColor(*mark.colour), 2.5))
            paint_mark(painter, _MIDDLE + QPointF(right, -up) * _RADIUS, mark.shape)
    _paint_dial(painter, lens, psi)
    painter.setPen(_TEXT)
    sides = Qt.AlignmentFlag.AlignRight | Qt.AlignmentFlag.AlignTop
    painter.drawText(QRectF(280, 2, _SIDE - 282, 64), sides, f"rot {rot:.1f}°\ntilt {tilt:.1f}°")
    painter.drawText(QPointF(2, _SIDE - 4), f"psi {psi:.1f}° ± {lens.twist_sigma_degrees:.1f}°")
    painter.end()
    pixels = np.frombuffer(image.constBits(), dtype=np.uint8)
    return pixels.reshape(_SIDE, image.bytesPerLine() // 4, 4)[:, :_SIDE].copy()


def _square(middle: QPointF, half: float) -> QRectF:
    return QRectF(middle.x() - half, middle.y() - half, 2 * half, 2 * half)


def _density_image(lens: Lens, outlined: Lens | None, psi_degrees: float) -> QImage:
    """Return the density and its contours, twice as fine as the lens."""
    from scipy.ndimage import gaussian_filter, zoom

    from napari_cryosphere.widgets.state.sphere_density import contour_density
    from napari_cryosphere.widgets.state.sphere_layer import OUTLINE_COLOUR
    from napari_cryosphere.widgets.state.sphere_picture import blend_contour, density_colours

    fine = zoom(lens.density, 2, order=1)
    picture = np.ascontiguousarray(density_colours(fine, np.radians(psi_degrees))[0])
    for seen, colour in ((lens, (255, 255, 255)), (outlined, OUTLINE_COLOUR)):
        if seen is None or seen.share < _LEAST_SHARE:
            continue
        levels = _LEVELS if seen is lens else _LEVELS[1:]
        smooth = gaussian_filter(zoom(seen.density, 2, order=1), 1.5)
        for level in levels:
            border = contour_density(seen.density, level)
            blend_contour(picture, np.log(np.maximum(smooth, 1e-4 * border) / border), colour)
    rows, columns = picture.shape[:2]
    data = picture.tobytes()
    return QImage(data, columns, rows, 4 * columns, QImage.Format.Format_RGBA8888).copy()


def _paint_scale(painter: QPainter, share: float) -> None:
    """Draw rings at whole degrees from the middle, name them, and say how much is inside."""
    painter.setBrush(Qt.BrushStyle.NoBrush)
    for degrees in _RINGS_DEGREES:
        radius = _RADIUS * degrees / HALF_DEGREES
        painter.setPen(QPen(_LINE, 2.0 if degrees == HALF_DEGREES else 0.8))
        painter.drawEllipse(_MIDDLE, radius, radius)
        if degrees < HALF_DEGREES:
            at = _MIDDLE + QPointF(-24, 20) + QPointF(-0.707, 0.707) * radius
            for by, colour in ((1.0, QColor("black")), (0.0, QColor(222, 224, 228))):
                painter.setPen(colour)
                painter.drawText(at + QPointF(by, by), f"{degrees}°")
    painter.setPen(_TEXT)
    painter.drawText(QPointF(2, 22), f"{100 * share:.0f} % within {HALF_DEGREES:.0f}°")


def _paint_dial(painter: QPainter, lens: Lens, psi_degrees: float) -> None:
    """Draw the in-plane angles' distribution around a dial; 0 is on the right, as on the wheel of hues."""
    from napari_cryosphere.widgets.state.sphere_picture import in_plane_colours

    painter.setPen(QPen(_LINE, 1.2))
    painter.drawEllipse(_DIAL, _DIAL_RADIUS, _DIAL_RADIUS)
    colours = 255 * in_plane_colours(len(lens.twist))
    highest = max(float(lens.twist.max()), 1e-12)
    for turn in np.flatnonzero(lens.twist > 0.01 * highest):
        angle = np.radians(psi_degrees + turn)
        out = QPointF(np.cos(angle), -np.sin(angle))
        colour = colours[round(psi_degrees + turn) % len(colours)]
        painter.setPen(QPen(QColor(*(int(part) for part in colour)), 2.0))
        length = _DIAL_REACH * float(lens.twist[turn]) / highest
        painter.drawLine(_DIAL + out * 0.45 * _DIAL_RADIUS, _DIAL + out * (_DIAL_RADIUS + length))
    painter.setPen(_TEXT)
    painter.drawText(
        _square(_DIAL, 12), Qt.AlignmentFlag.AlignCenter | Qt.TextFlag.TextDontClip, "psi"
    )
