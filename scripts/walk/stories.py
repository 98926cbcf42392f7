"""The walks, each a function of a window and of what was asked for."""

from __future__ import annotations

import argparse

import numpy as np
from actions import (
    compare,
    compare_particle,
    equal,
    idle,
    map_and_comparison,
    open_dock,
    reconstruct,
    reject,
    resolutions,
    save_not_rejected,
    select_in_scatter,
    shown_dock,
    without_poses,
)
from hands import Walk
from qtpy.QtWidgets import QDockWidget

__all__ = ["STORIES"]


def sample_story(walk: Walk, _: argparse.Namespace) -> None:
    """Sample, predict, the uncertain ones, reject, reconstruct both, compare, export."""
    from napari_cryosphere.widgets.state.layer_data import map_of

    walk.step(
        "open the sample",
        lambda: walk.menu("File", "Open Sample", "CryoSphere", "Simulated protein"),
    )
    dock = open_dock(walk, "CryoSphere")
    walk.picture("tutorial_opened")
    walk.step("predict", lambda: walk.click(dock.poses.predict), idle(dock))
    walk.note("all particles", dock.poses.overall.text())
    walk.picture("tutorial_predicted")
    walk.step("go to the most uncertain particle", lambda: walk.click(dock.inspector.next))
    walk.rest(1.0)
    walk.picture("tutorial_uncertain")
    gallery = open_dock(walk, "CryoSphere gallery")
    walk.step("reject those of a spread above 6 degrees", lambda: reject(walk, gallery, 6.0))
    walk.picture("tutorial_rejected")
    walk.note("gallery", gallery.status.text())
    maps = open_dock(walk, "CryoSphere maps")
    truth = map_of(next(layer for layer in walk.viewer.layers if layer.name == "true map"))
    for subset in ("all particles", "all but rejected"):
        map_and_comparison(walk, maps, subset, "predicted", "true map", truth)
    walk.note("resolutions", resolutions(maps))
    walk.picture("tutorial_maps")
    walk.step("slices", lambda: walk.click(maps.slices_button))
    walk.picture("tutorial_slices")
    gallery = open_dock(walk, "CryoSphere gallery")
    save_not_rejected(walk, gallery, "export", walk.output / "cleaned.star")
    walk.note("exported", gallery.status.text())
    walk.picture("tutorial_exported")


def images_story(walk: Walk, arguments: argparse.Namespace) -> None:
    """Images alone, poses found from them, the unsure ones rejected, a map, a STAR file of the rest."""
    raw = walk.output / "raw.star"
    without_poses(arguments.data / "betagalD2_test.star", raw)
    walk.picture("images_empty", "An empty window")
    walk.step("drop the particles", lambda: walk.drop(raw))
    dock = shown_dock(walk, "CryoSphere")
    walk.picture(
        "images_dropped", "Drop a STAR file: the dock opens, and the next step is highlighted"
    )
    walk.type_into(dock.data.symmetry, "D2")
    walk.click(dock.poses.find_poses)
    commands = shown_dock(walk, "CryoSphere commands")
    walk.picture("images_form", "Find poses from the images: a form with what is known filled in")
    walk.step("begin to find poses", lambda: walk.click(commands.button))
    walk.wait(lambda: "step" in commands.footer.message.text(), "the first search")
    walk.rest(5)
    walk.picture("images_searching", "Searches from random poses, until two agree on a map")
    walk.step("find poses", lambda: None, idle(dock))
    walk.note("found", commands.said.text())
    walk.rest(6)
    walk.picture(
        "images_found", "A map, and a pose for every particle: the sphere says how sure it is"
    )
    walk.click(dock.way.steps["Inspect"])
    walk.wait(lambda: dock.controller.inspector.reading is not None, "the posterior")
    walk.rest(2)
    walk.note("least sure", dock.inspector.verdict.words.text())
    walk.picture("images_unsure", "The least sure particle first")
    walk.click(dock.way.docks["Gallery"])
    gallery = shown_dock(walk, "CryoSphere gallery")
    spreads = gallery._session.store.summary().spread_degrees
    least = float(np.quantile(spreads, 0.9))
    walk.step("reject the widest tenth", lambda: reject(walk, gallery, least))
    walk.note("gallery", gallery.status.text())
    walk.picture("images_rejected", "Drag over the histogram's right end, press X: rejected")
    dock = open_dock(walk, "CryoSphere")
    walk.click(dock.way.steps["Map"])
    maps = shown_dock(walk, "CryoSphere maps")
    reconstruct(walk, maps, "all but rejected")
    walk.picture("images_map", "A map of the others, next to the first one")
    gallery = open_dock(walk, "CryoSphere gallery")
    save_not_rejected(walk, gallery, "save", walk.output / "sure.star")
    open_dock(walk, "CryoSphere")
    walk.picture("images_saved", "Save: a STAR file of the sure particles, with their poses")


def docks_story(walk: Walk, _: argparse.Namespace) -> None:
    """Every dock with something in it, in both themes."""
    walk.menu("File", "Open Sample", "CryoSphere", "Simulated protein")
    dock = open_dock(walk, "CryoSphere")
    walk.step("predict", lambda: walk.click(dock.poses.predict), idle(dock))
    walk.click(dock.inspector.next)
    walk.click(dock.inspector.turn)
    walk.rest(1.5)
    walk.picture("dock_sphere")
    sphere = walk.viewer.window.dock_widgets["CryoSphere sphere (CryoSphere)"]
    walk.viewer.window.remove_dock_widget(sphere.parent())
    compare_particle(walk, dock)
    walk.picture("inspector")
    views = open_dock(walk, "CryoSphere orientations")
    walk.rest(1.0)
    walk.wait(lambda: " of " not in views.evenness.number.text(), "the views of all particles")
    for name in ("orientations", "gallery", "scatter", "training"):
        opened = open_dock(walk, f"CryoSphere {name}")
        walk.rest(2.5)
        if name == "scatter":
            select_in_scatter(walk, opened)
        walk.picture(f"dock_{name}")
    maps = open_dock(walk, "CryoSphere maps")
    reconstruct(walk, maps, "all particles")
    walk.step("FSC", lambda: compare(walk, maps), idle(maps))
    walk.picture("dock_maps")


def maps_story(walk: Walk, _: argparse.Namespace) -> None:
    """A map at the input poses, its reference and their difference, as surfaces and as slices."""
    walk.menu("File", "Open Sample", "CryoSphere", "Simulated protein")
    maps = open_dock(walk, "CryoSphere maps")
    reconstruct(walk, maps, "all particles", "input")
    walk.step("FSC", lambda: compare(walk, maps), idle(maps))
    walk.picture("maps_surfaces")
    walk.step("difference", lambda: walk.click(maps.maps.subtract), idle(maps))
    walk.step("slices", lambda: walk.click(maps.slices_button))
    walk.picture("maps_slices")
    walk.menu("File", "Open Sample", "CryoSphere", "preferred views")
    dock = open_dock(walk, "CryoSphere")
    walk.step("predict", lambda: walk.click(dock.poses.predict), idle(dock))
    views = open_dock(walk, "CryoSphere orientations")
    walk.wait(lambda: " of " not in views.evenness.number.text(), "the views of all particles")
    walk.step("spikes", lambda: walk.click(views.spikes_panel.wanted))
    walk.rest(2)
    walk.picture("orientations")


def training_story(walk: Walk, arguments: argparse.Namespace) -> None:
    """Train on one set, predict and refine another, save it, open it again, reconstruct, compare."""
    from napari_cryosphere.particles import DensityMap

    data = arguments.data
    walk.step("drop ribo70S_train.star", lambda: walk.drop(data / "ribo70S_train.star"))
    dock = shown_dock(walk, "CryoSphere")
    walk.picture("train_dropped", "Particles with poses: the next step is to train on them")
    walk.click(dock.poses.train)
    training = shown_dock(walk, "CryoSphere training")
    form, run = training.panel.form, training.controller.training
    walk.type_into(form.settings.widgets["minutes"].native, f"{arguments.minutes:g}")
    walk.type_into(form.folder, str(walk.output / "run"))
    walk.picture("train_form")
    busy = walk.lateness()
    walk.step("begin to train", lambda: walk.click(training.panel.button), lambda: bool(run.losses))
    walk.wait(lambda: run.fractions[-1] > 0.6, "training")
    walk.picture("train_training", "Train: the loss falls, held-out spheres sharpen")
    walk.step("the rest of the training", lambda: None, idle(training))
    walk.note("UI lateness while training, ms", busy())
    walk.note("trained", f"{training.panel.headline.text()}; {training.panel.text.text()}")
    walk.picture("train_trained", "The model is chosen at once")
    walk.step("drop ribo70S_test.star", lambda: walk.drop(data / "ribo70S_test.star"))
    dock = open_dock(walk, "CryoSphere")
    walk.note("model", dock.poses.models.currentText())
    walk.step("predict", lambda: walk.click(dock.poses.predict), idle(dock))
    walk.note("all particles", dock.poses.overall.text())
    walk.step("go to the most uncertain particle", lambda: walk.click(dock.inspector.next))
    walk.rest(2)
    walk.picture("train_predicted", "Predict other particles; the least sure one first")
    walk.step("refine", lambda: walk.click(dock.poses.refine), idle(dock))
    said = dock.poses.overall.text()
    walk.note("all particles", said)
    walk.rest(2)
    walk.picture("train_refined", "Refine against the map of the training's particles")
    left, star = dock.controller.poses.stack(), walk.output / "refined.star"
    walk.step(
        "save", lambda: walk.name_file(lambda: walk.click(dock.poses.save), star), star.exists
    )
    walk.step("open it again", lambda: walk.drop(star))
    walk.rest(2)
    walk.picture(
        "train_reopened", "Saved, and opened again: all that was known is in the STAR file"
    )
    if not equal(left, dock.controller.session.stack) or dock.poses.overall.text() != said:
        raise AssertionError(
            f"{star} is not what was left: {dock.poses.overall.text()}, not {said}"
        )
    walk.note("what was read back is what was left", True)
    gallery = open_dock(walk, "CryoSphere gallery")
    least = float(np.quantile(gallery._session.store.summary().spread_degrees, 0.8))
    walk.note("the widest fifth begins at a spread of, degrees", round(least, 1))
    walk.step("reject the widest fifth", lambda: reject(walk, gallery, least))
    walk.note("gallery", gallery.status.text())
    walk.picture("train_gallery")
    walk.step("drop the true map", lambda: walk.drop(data / "ribo70S_truth.mrc"))
    truth = DensityMap.read(data / "ribo70S_truth.mrc")
    maps = open_dock(walk, "CryoSphere maps")
    for poses in ("predicted", "refined"):
        for subset in ("all particles", "all but rejected"):
            map_and_comparison(walk, maps, subset, poses, "ribo70S_truth", truth)
    walk.picture("train_maps", "Maps at predicted and at refined poses, next to the true one")
    walk.step("slices", lambda: walk.click(maps.slices_button))
    walk.picture("train_slices")


def states_story(walk: Walk, arguments: argparse.Namespace) -> None:
    """Particles in two states: sphere, tiles, orientations and maps in the colours of the states."""
    files = [arguments.data / name for name in ("particles.star", "map.mrc", "map_class002.mrc")]
    walk.step("drop particles and maps", lambda: walk.drop(*files))
    shown_dock(walk, "CryoSphere")
    dock = open_dock(walk, "CryoSphere")
    walk.click(dock.way.steps["Inspect"])
    walk.wait(lambda: dock.controller.inspector.reading is not None, "the posterior")
    walk.wait(lambda: dock.controller.projection.match is not None, "the projection")
    walk.rest(1.0)
    walk.note("shown", walk.viewer.canvas.overlays.text.text)
    open_dock(walk, "CryoSphere gallery")
    walk.rest(2.0)
    walk.picture("states_gallery")
    views = open_dock(walk, "CryoSphere orientations")
    walk.wait(lambda: " of " not in views.evenness.number.text(), "the views of all particles")
    walk.click(views.evenness.by_state)
    walk.rest(1.0)
    walk.picture("states_orientations")
    maps = open_dock(walk, "CryoSphere maps")
    walk.click(maps.surfaces_button)
    walk.step("all maps", lambda: walk.click(maps.maps.together))
    walk.step("difference", lambda: walk.click(maps.maps.subtract), idle(maps))
    walk.rest(1.0)
    walk.picture("states_maps")


def slider_story(walk: Walk, _: argparse.Namespace) -> None:
    """From the surest to the least sure particle."""
    walk.menu("File", "Open Sample", "CryoSphere", "Simulated protein")
    dock = open_dock(walk, "CryoSphere")
    walk.step("predict", lambda: walk.click(dock.poses.predict), idle(dock))
    for beside in walk.window.findChildren(QDockWidget):
        if beside.windowTitle() in ("layer controls", "layer list"):
            beside.hide()
    order = np.argsort(dock.controller.session.store.summary().spread_degrees)
    for place, share in enumerate(_SHARES):
        dock.controller.show_particle(int(order[int(share * (len(order) - 1))]))
        walk.wait(lambda: dock.controller.inspector.reading is not None, "the verdict")
        walk.rest(1.5)
        words = dock.inspector.verdict.words.text()
        walk.picture(f"slider_{place:02}", words)


_SHARES = (0.05, 0.2, 0.4, 0.6, 0.8, 0.9, 0.96, 0.985, 0.993, 0.996, 0.998, 1.0)
"""Which particles, in the order of their spread: from the surest to the least sure."""

STORIES = {
    "sample": sample_story,
    "images": images_story,
    "train": training_story,
    "docks": docks_story,
    "maps": maps_story,
    "slider": slider_story,
    "states": states_story,
}
