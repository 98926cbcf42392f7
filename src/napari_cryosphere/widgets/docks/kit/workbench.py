"""One controller for all docks of a viewer."""

from __future__ import annotations

import weakref
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from napari_cryosphere.widgets.control.controller import Controller
from napari_cryosphere.widgets.control.running import Runner, SynchronousBackground
from napari_cryosphere.widgets.docks.kit.workers import ThreadBackground, ThreadRunner
from napari_cryosphere.widgets.state.viewer_context import context_of, unwrapped

if TYPE_CHECKING:
    from napari.components import ViewerModel

__all__ = ["Seat", "take_seat"]


class _Workbench:
    """A viewer's controller and how many docks use it."""

    def __init__(self, controller: Controller) -> None:
        self.controller = controller
        self.seats = 0


class Seat:
    """A dock's hold on its viewer's controller, which closes when the last dock leaves.

    Use `take_seat`, which finds the controller of a viewer or makes it.

    ``controller``: shared with the other docks of the viewer.
    """

    def __init__(self, workbench: _Workbench) -> None:
        self.controller = workbench.controller
        self._workbench: _Workbench | None = workbench
        self._connections: list[tuple[Any, Callable[..., Any]]] = []
        workbench.seats += 1

    def connect(self, signal: Any, callback: Callable[..., Any]) -> None:
        """Connect a signal (psygnal's, or an emitter of napari's) until the dock leaves.

        The controller and the viewer outlive a dock that is closed: it must not answer them any
        more.
        """
        signal.connect(callback)
        self._connections.append((signal, callback))

    def leave(self, viewer_stays: bool = True) -> None:
        """Let go of the controller; the second time nothing happens.

        ``viewer_stays``: whether the viewer lives on; it then gets its former view back when the
        last dock leaves.
        """
        workbench, self._workbench = self._workbench, None
        if workbench is None:
            return
        while self._connections:
            signal, callback = self._connections.pop()
            signal.disconnect(callback)
        workbench.seats -= 1
        if workbench.seats == 0:
            workbench.controller.close(viewer_stays)


def take_seat(viewer: ViewerModel, runner: Runner | None = None) -> Seat:
    """Return a hold on a viewer's controller, made for its first dock.

    ``viewer``: napari's viewer. ``runner``: runs long work; None for napari's threads, and short
    work in one of its own. The first dock's counts.
    """
    viewer, context = unwrapped(viewer), context_of(viewer)
    workbench = None if context.workbench is None else context.workbench()
    if workbench is None or workbench.seats == 0:
        background = ThreadBackground() if runner is None else SynchronousBackground()
        workbench = _Workbench(Controller(viewer, runner or ThreadRunner(), background))
        context.workbench = weakref.ref(workbench)
    return Seat(workbench)
