"""What the command palette and the Layers menu offer beyond the docks."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import napari

__all__ = [
    "align_maps",
    "compare_maps",
    "next_uncertain",
    "predict_poses",
    "previous_uncertain",
    "reconstruct",
    "show_particles",
    "show_slices",
    "show_surfaces",
    "subtract_maps",
]


def predict_poses(viewer: napari.Viewer) -> None:
    """Open the dock and predict the poses of the chosen particles."""
    from napari_cryosphere.widgets.plugin.open_docks import MAIN, open_dock

    open_dock(viewer, MAIN).poses.predict.click()


def next_uncertain(viewer: napari.Viewer) -> None:
    """Go to the next particle in the order of falling spread."""
    from napari_cryosphere.widgets.plugin.open_docks import MAIN, open_dock

    open_dock(viewer, MAIN).inspector.next.click()


def previous_uncertain(viewer: napari.Viewer) -> None:
    """Go back in the order of falling spread."""
    from napari_cryosphere.widgets.plugin.open_docks import MAIN, open_dock

    open_dock(viewer, MAIN).inspector.back.click()


def reconstruct(viewer: napari.Viewer) -> None:
    """Open the dock of the maps and reconstruct as it is set."""
    from napari_cryosphere.widgets.plugin.open_docks import MAPS, open_dock

    panel = open_dock(viewer, MAPS).reconstruction
    if panel.reconstruct.isEnabled():
        panel.reconstruct.click()
    else:
        _tell(panel.reconstruct.toolTip() or "other work is going on; wait for it or stop it")


def compare_maps(viewer: napari.Viewer) -> None:
    """Measure the FSC of the two maps that are chosen."""
    _press(viewer, "compare")


def subtract_maps(viewer: napari.Viewer) -> None:
    """Subtract the reference from the map that is chosen."""
    _press(viewer, "subtract")


def align_maps(viewer: napari.Viewer) -> None:
    """Align the chosen map with the reference and check its hand."""
    _press(viewer, "align")


def show_surfaces(viewer: napari.Viewer) -> None:
    """Show the chosen maps in 3D, side by side."""
    _show(viewer, slices=False)


def show_slices(viewer: napari.Viewer) -> None:
    """Show three slices of each of the chosen maps."""
    _show(viewer, slices=True)


def show_particles(viewer: napari.Viewer) -> None:
    """Go back from the maps to the particles."""
    from napari_cryosphere.widgets.plugin.open_docks import MAPS, open_dock

    open_dock(viewer, MAPS).controller.maps.show()


def _press(viewer: napari.Viewer, button: str) -> None:
    from napari_cryosphere.widgets.plugin.open_docks import MAPS, open_dock

    pressed = getattr(open_dock(viewer, MAPS).maps, button)
    if pressed.isEnabled():
        pressed.click()
    else:
        _tell("two maps are needed; reconstruct one or open an MRC file")


def _show(viewer: napari.Viewer, slices: bool) -> None:
    from napari_cryosphere.widgets.plugin.open_docks import MAPS, open_dock

    dock = open_dock(viewer, MAPS)
    if dock.controller.map_layers:
        dock.show_maps(slices)
    else:
        _tell("no map is loaded; reconstruct one or open an MRC file")


def _tell(text: str) -> None:
    from napari_cryosphere.widgets.state.notices import tell_error

    tell_error(text)
