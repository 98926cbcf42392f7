"""What several stories do in the docks."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

from hands import Walk
from qtpy.QtCore import QPointF

__all__ = [
    "compare",
    "compare_particle",
    "equal",
    "idle",
    "map_and_comparison",
    "open_dock",
    "reconstruct",
    "reject",
    "resolutions",
    "save_not_rejected",
    "select_in_scatter",
    "shown_dock",
    "without_poses",
]


def open_dock(walk: Walk, name: str) -> Any:
    """Open a dock from the Plugins menu, or go to its tab, and return what it holds."""
    docks = walk.viewer.window.dock_widgets
    title = f"{name} (CryoSphere)"
    if title not in docks:
        walk.menu("Plugins", "CryoSphere", name)
        walk.rest(0.3)
    docks[title].parent().raise_()
    walk.rest(0.3)
    return docks[title]


def shown_dock(walk: Walk, name: str) -> Any:
    """Return what a dock holds that a click or a drop has opened."""
    walk.rest(0.5)
    docks = walk.viewer.window.dock_widgets
    content = next(content for title, content in docks.items() if title.startswith(f"{name} ("))
    walk.wait(content.isVisible, name)
    return content


def without_poses(source: Path, target: Path) -> None:
    """Write the particles of a STAR file without poses and shifts, as they come from picking."""
    from napari_cryosphere.particles import ParticleStack

    tables = ParticleStack.read(source).to_tables()
    columns = [name for name in tables["particles"] if name.startswith(("rlnAngle", "rlnOrigin"))]
    tables["particles"] = tables["particles"].drop(columns=columns)
    ParticleStack.from_tables(tables, data_dir=source.parent).save(target, overwrite=True)


def equal(one: Any, other: Any) -> bool:
    """Return whether two sets of particles have the same columns, values and images."""
    from pandas.testing import assert_frame_equal

    columns = [name for name in one.particles if name != "rlnImageName"]
    assert_frame_equal(one.particles[columns], other.particles[columns], check_dtype=False)
    return bool((one.images([0, len(one) - 1]) == other.images([0, len(other) - 1])).all())


def idle(dock: Any) -> Callable[[], bool]:
    """Return what tells whether no work is going on."""
    return lambda: not dock.controller.runner.busy


def compare_particle(walk: Walk, dock: Any) -> None:
    """Show what map and network say of a particle, and the map's projection from the known view."""
    inspector, controller = dock.inspector, dock.controller
    walk.step("posterior", lambda: walk.click(inspector.sources["both"]))
    walk.rest(2.0)
    walk.wait(lambda: not controller.inspector.waiting, "the posterior")
    controller.projection.show(controller.session.store.known[controller.index][:, 2])
    walk.wait(lambda: controller.projection.match is not None, "the projection")
    walk.rest(1.0)


def map_and_comparison(
    walk: Walk, maps: Any, subset: str, poses: str, reference: str, truth: Any
) -> None:
    """Reconstruct, measure the FSC with another map, and note what is found to more digits than are
    shown.
    """
    from napari_cryosphere.reconstruction import corrected_fsc, masked_correlation, soft_mask
    from napari_cryosphere.widgets.state.layer_data import map_of

    reconstruct(walk, maps, subset, poses)
    name = f"{poses} poses, {subset}"
    walk.step(f"FSC with the true map, {name}", lambda: compare(walk, maps, reference), idle(maps))
    walk.note(f"with the true map, {name}", maps.maps.result.text())
    made = map_of(maps.maps.map.layer())
    mask = soft_mask(truth.voxels, truth.pixel_size_angstrom)
    curve = corrected_fsc(made, truth, mask).masked
    found = {
        "FSC 0.5, A": round(curve.resolution_angstrom(0.5), 3),
        "mean FSC to there": round(float(curve.values[: len(curve.values) // 2].mean()), 5),
        "correlation": round(masked_correlation(made.voxels, truth.voxels, mask), 5),
    }
    walk.note(f"to more digits, {name}", found)


def reject(walk: Walk, gallery: Any, least: float) -> None:
    """Select the particles of a spread above a value in the histogram, and reject them."""
    filters = gallery.filters
    walk.choose(filters.quantity, "spread")
    if not gallery._session.filter.descending:
        walk.click(filters.direction)
    walk.rest(1.5)
    walk.choose(filters.brush, "drag: select")
    plot = filters.histogram.plot
    box = plot.getViewBox()
    high = float(box.viewRange()[0][1])
    ends = [
        plot.mapFromScene(box.mapViewToScene(QPointF(x, box.viewRange()[1][1] / 2)))
        for x in (least, high)
    ]
    walk.drag(plot.viewport(), *ends)
    walk.rest(0.5)
    walk.click(
        next(button for flag, button in gallery.actions_bar.flags.items() if flag.name == "REJECT")
    )


def select_in_scatter(walk: Walk, scatter: Any) -> None:
    """Show the error against the spread, and draw a lasso around unsure particles that are right."""
    walk.choose(scatter.up, "error")
    walk.choose(scatter.across, "spread")
    walk.rest(1.0)
    plot = scatter.plot.plot
    box = plot.getViewBox()
    corners = ((6.5, 3), (30, 2.5), (30, 6.5), (6.5, 7.2), (6.3, 3.2))  # degrees
    way = [plot.mapFromScene(box.mapViewToScene(QPointF(*corner))) for corner in corners]
    walk.drag(plot.viewport(), *way)


def save_not_rejected(walk: Walk, gallery: Any, what: str, star: Path) -> None:
    """Save all particles but the rejected ones."""
    walk.choose(gallery.actions_bar.which, "not rejected")
    walk.step(
        what,
        lambda: walk.name_file(lambda: walk.click(gallery.actions_bar.save), star),
        lambda: star.exists() and idle(gallery)(),
    )


def reconstruct(walk: Walk, maps: Any, subset: str, poses: str = "predicted") -> None:
    """Reconstruct some particles."""
    panel = maps.reconstruction
    walk.choose(panel.poses, poses)
    walk.choose(panel.subset, subset)
    walk.step(
        f"reconstruct at {poses} poses, {panel.subset.currentText()}",
        lambda: walk.click(panel.reconstruct),
        idle(maps),
    )
    walk.note(f"half-maps, {poses}, {subset}", maps.maps.result.text())


def compare(walk: Walk, maps: Any, reference: str = "true map") -> None:
    """Measure the FSC of the map with another."""
    walk.choose(maps.maps.reference, reference)
    walk.click(maps.maps.compare)


def resolutions(maps: Any) -> dict[str, str]:
    """Return what the plot's legend says of every curve."""
    from napari_cryosphere.widgets.state.fsc_curves import resolution_of

    return {label: resolution_of(curve) for label, curve in maps.controller.maps.curves.items()}
