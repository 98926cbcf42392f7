"""The mouse on the sphere: its place goes to the status bar, a click shows a projection."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from napari_cryosphere.errors import CryosphereError
from napari_cryosphere.widgets.state.notices import tell_error
from napari_cryosphere.widgets.state.sphere_layer import HEIGHT, WIDTH

if TYPE_CHECKING:
    from napari.components import ViewerModel

    from napari_cryosphere.widgets.control.inspector import Inspector
    from napari_cryosphere.widgets.control.projection_view import ProjectionView

__all__ = ["SphereMouse"]


class SphereMouse:
    """Listens to a viewer's mouse until `leave`.

    napari computes the status of the active layer in a thread and sets it after the mouse has
    moved: a line on the sphere is set again whenever that happens.

    ``inspector``: knows the sphere that is shown. ``projection``: shows a map's projection from the
    place that is clicked.
    """

    def __init__(
        self, viewer: ViewerModel, inspector: Inspector, projection: ProjectionView
    ) -> None:
        self._viewer = viewer
        self._inspector = inspector
        self._projection = projection
        self._line = ""
        viewer.mouse_move_callbacks.append(self.move)
        viewer.mouse_drag_callbacks.append(self.press)
        viewer.events.status.connect(self._on_status)

    def leave(self) -> None:
        """Listen no more."""
        for callbacks, callback in (
            (self._viewer.mouse_move_callbacks, self.move),
            (self._viewer.mouse_drag_callbacks, self.press),
        ):
            if callback in callbacks:
                callbacks.remove(callback)
        self._viewer.events.status.disconnect(self._on_status)

    def direction(self, position: Any) -> NDArray[np.float64] | None:
        """Return the view direction at a place in the viewer's world, ``(3,)``; None off the sphere."""
        from napari_cryosphere.so3.mollweide import direction_at

        shown = self._inspector.shown
        if shown is None:
            return None
        sphere = shown[0].sphere
        if sphere is None or sphere not in self._viewer.layers or not sphere.visible:
            return None
        row, column = np.asarray(sphere.world_to_data(position))[-2:]
        return direction_at(float(row), float(column), HEIGHT, WIDTH)

    def move(self, viewer: ViewerModel, event: Any) -> None:
        """Say what is under the mouse."""
        direction = self.direction(event.position)
        self._line = "" if direction is None else self._inspector.describe(direction)
        if self._line:
            self._viewer.status = self._line

    def press(self, viewer: ViewerModel, event: Any) -> Iterator[None]:
        """Show the projection at the place that is clicked; a drag moves the canvas as ever."""
        direction, dragged = self.direction(event.position), False
        yield
        while event.type == "mouse_move":
            dragged = True
            yield
        if direction is None or dragged:
            return
        try:
            self._projection.show(direction)
        except CryosphereError as error:
            tell_error(error)

    def forget(self) -> None:
        """Say nothing more of the sphere until the mouse moves: it shows another particle."""
        self._line = ""

    def _on_status(self, event: Any) -> None:
        if self._line and self._viewer.mouse_over_canvas and self._viewer.status != self._line:
            self._viewer.status = self._line
