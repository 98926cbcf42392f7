"""The chosen particles' poses: predicted, refined against a map, put together for a file. Knows no Qt."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

import numpy as np

from napari_cryosphere.errors import CryosphereError
from napari_cryosphere.widgets.control import steps
from napari_cryosphere.widgets.control.export import chosen_stack

if TYPE_CHECKING:
    from napari_cryosphere.particles import DensityMap, ParticleStack
    from napari_cryosphere.widgets.control.controller import Controller
    from napari_cryosphere.widgets.state.session import Session

__all__ = ["PoseController"]


class PoseController:
    """Predicts and refines; results stay with the layer that they came from.

    Parameters
    ----------
    controller
        Of the viewer.
    """

    def __init__(self, controller: Controller) -> None:
        self._controller = controller

    def predict(self) -> None:
        """Predict the poses of the chosen particles and show their spheres as they come."""
        controller = self._controller
        session = controller.session
        if session is None or controller.runner.busy:
            return
        controller.maps.show()
        session.take_refined(None)
        session.store.clear()
        controller.show_sphere(session)
        controller.predictions_changed.emit()
        path, stack = controller.model_path, session.stack
        title = f"Predicting {session.layer.name}"
        self.run(session, title, lambda: steps.prediction_steps(stack, path))

    def refine(self, reference: DensityMap | None) -> None:
        """Refine the predicted poses of the chosen particles, and find their shifts.

        Stopped before its end it leaves nothing.

        Parameters
        ----------
        reference
            The map to refine against; None for that of the model's run.
        """
        controller = self._controller
        session = controller.session
        if session is None or controller.runner.busy:
            return
        path, stack = controller.model_path, session.stack

        def take(step: steps.Step) -> None:
            if session.layer not in controller.viewer.layers:
                controller.runner.stop()
            elif step.payload is not None:
                session.take_refined(step.payload)
                session.refresh_sphere(controller.viewer)

        controller.runner.start(
            f"Refining {session.layer.name}",
            lambda: steps.refinement_steps(stack, path, reference),
            take,
            controller.predictions_changed.emit,
        )

    def run(self, session: Session, title: str, work: Callable[[], steps.Steps]) -> None:
        """Run steps that predict, and show the spheres of a data set as they come."""
        controller = self._controller
        controller.runner.start(
            title, work, lambda step: self._take(session, step), controller.predictions_changed.emit
        )

    def _take(self, session: Session, step: steps.Step) -> None:
        """Keep a batch with the layer it came from; stop if that layer is gone."""
        controller = self._controller
        if session.layer not in controller.viewer.layers:
            controller.runner.stop()
            return
        if step.payload is None:
            return
        rows, distribution, summary = step.payload
        session.store.add(rows, distribution, summary)
        session.refresh_sphere(controller.viewer)
        if session is controller.session:
            controller.predictions_changed.emit()
            controller.particle_changed.emit()

    def stack(self) -> ParticleStack:
        """Return the chosen particles that have been predicted, with their poses as columns.

        Raises
        ------
        CryosphereError
            If nothing has been predicted.
        """
        session = self._controller.session
        if session is None or not session.store.predicted.any():
            raise CryosphereError("nothing is predicted yet; press Predict poses first")
        return chosen_stack(session, np.flatnonzero(session.store.predicted))
