"""The job ``solve``: from particles alone to a map, poses, a network that knows them, and a report."""

from __future__ import annotations

import shlex
from collections.abc import Generator
from html import escape
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from napari_cryosphere._files import atomic_path, refuse_overwrite
from napari_cryosphere._html import bars, grey, page
from napari_cryosphere.jobs.abinitio import abinitio
from napari_cryosphere.jobs.configs import AbInitioConfig, InferConfig, RefineConfig, SolveConfig
from napari_cryosphere.jobs.configs.training import TrainConfig
from napari_cryosphere.jobs.events import Event, Events, Progress, Result
from napari_cryosphere.jobs.infer import infer
from napari_cryosphere.jobs.refine import refine
from napari_cryosphere.jobs.running.inputs import described
from napari_cryosphere.jobs.running.outputs import claims
from napari_cryosphere.jobs.running.run_folder import OF_ANY_STATE
from napari_cryosphere.jobs.running.stages import Stages, result_of
from napari_cryosphere.jobs.train import train
from napari_cryosphere.particles import DensityMap, ParticleStack
from napari_cryosphere.reconstruction import read_fsc_csv
from napari_cryosphere.so3.distributions.store import DistributionStore
from napari_cryosphere.so3.mollweide import view_sphere

__all__ = ["report_page", "solve", "solve_outputs"]

_SHOWN = 4  # particles of the surest and of the least sure
_PICTURE_PX, _SPHERE_PX = 160, 192  # widths on the page
_BINS = 20  # of the histogram
_BATCH = 256  # distributions summed at a time


def solve_outputs(config: SolveConfig) -> dict[str, Path]:
    """Return what a run writes, by role."""
    names = {
        "report": "report.html",
        "particles": "refined/particles.star",
        "map": "refined/map.mrc",
        "model": "model",
        "predicted": "predicted.star",
        "distributions": "predicted.zarr",
    }
    return {role: config.output / name for role, name in names.items()}


@claims(folders=("output",))
def solve(config: SolveConfig) -> Events:
    """Find a map, refine it, train a network on the poses, predict with it, and write a report.

    Raises `NotConvergedError` if no map is found.
    """
    outputs = solve_outputs(config)
    if not config.resume:
        refuse_overwrite(outputs["report"], config.overwrite)
    described_config = described(config) | {"resume": config.resume}
    matters = [name for name in described_config if name != "resume"]
    stages = Stages(config.output, described_config, matters, config.resume)
    jobs = _stages(config, outputs)
    for number, (name, work) in enumerate(jobs.items()):
        share = 1 / len(jobs)
        yield from stages.once(name, result_of(work, name), number * share, share)
    html = report_page(config, outputs)
    with atomic_path(outputs["report"], overwrite=True) as temporary:
        temporary.write_text(html, encoding="utf-8")
    yield Progress(1.0, "done")
    curve = read_fsc_csv(config.output / "refined" / "fsc.csv")["fsc"]
    yield Result(outputs, {"resolution_0143_angstrom": curve.resolution_angstrom()})


def _stages(
    config: SolveConfig, outputs: dict[str, Path]
) -> dict[str, Generator[Event, None, None]]:
    """Return the jobs in their order; each goes on where it was if the run is resumed."""
    images = config.model_dump(include={"data_dir", "invert"})
    common: dict[str, Any] = images | {"symmetry": config.symmetry, "device": config.device}
    common |= {"overwrite": True, "resume": config.resume}
    whole = common | {"particles": config.particles, "select": config.select}
    posed = common | {"particles": outputs["particles"]}
    initial, jobs = config.output / "initial", dict[str, Generator[Event, None, None]]()
    start = config.map
    if start is None:
        start = initial / "map.mrc"
        found = AbInitioConfig(**whole, output=initial, seed=config.seed, classes=config.classes)
        jobs["initial map"] = abinitio(found)

    def maps() -> list[Path]:  # known once the search has ended
        others = [] if config.map else sorted(initial.glob(f"map{OF_ANY_STATE}.mrc"))
        return [start, *others]

    def refining() -> Events:
        given: dict[str, Any] = {"map": tuple(maps()), "output": config.output / "refined"}
        if len(given["map"]) == 1:
            given["classes"] = config.classes
        size = config.map_pixel_size_angstrom
        yield from refine(RefineConfig(**whole | given, map_pixel_size_angstrom=size))

    def training() -> Events:
        learning = posed | {"minutes": config.minutes, "seed": config.seed}
        if len(maps()) > 1:  # other kinds of particles have frames of their own
            learning["select"] = "rlnClassNumber == 1"
        yield from train(TrainConfig(**learning, output=outputs["model"]))

    jobs["refinement"], jobs["training"] = refining(), training()
    predicting = {name: of for name, of in posed.items() if name != "symmetry"}
    predicting |= {"model": outputs["model"], "distributions": outputs["distributions"]}
    jobs["prediction"] = infer(InferConfig(**predicting, output=outputs["predicted"]))
    return jobs


def report_page(config: SolveConfig, outputs: dict[str, Path]) -> str:
    """Return the report: one HTML page that needs no other file. All text from files is escaped."""
    density = DensityMap.read(outputs["map"])
    curve = read_fsc_csv(outputs["map"].with_name("fsc.csv"))["fsc"]
    predicted = ParticleStack.read(outputs["predicted"], config.data_dir)
    predicted = predicted.inverted() if config.invert else predicted
    store = DistributionStore(outputs["distributions"])
    spread = predicted.particles["cryosphereSpread"].to_numpy(float)
    order = np.argsort(spread)
    projections = [
        grey(density.voxels.sum(axis), _PICTURE_PX, f"projection along {name}")
        for axis, name in enumerate("zyx")
    ]
    parts = [
        density._repr_html_(),
        page("Projections of the map", {}, projections),
        curve._repr_html_(),
        page(
            "Views", {}, [view_sphere(_all_views(store), _SPHERE_PX * 2, "views of all particles")]
        ),
        page(
            "Uncertainty of the network, degrees",
            {"median": float(np.median(spread)), "drawn to": float(spread.max())},
            [bars(np.histogram(spread, _BINS, (0, max(float(spread.max()), 1e-6)))[0])],
        ),
        _particles("The surest particles", predicted, store, order[:_SHOWN]),
        _particles("The least sure particles", predicted, store, order[: -_SHOWN - 1 : -1]),
        _next_steps(outputs, config),
    ]
    title = escape(f"{config.particles.name}: map, poses and a network that knows them")
    body = "\n<hr>\n".join(parts)
    return (
        f"<!DOCTYPE html>\n<html lang='en'><head><meta charset='utf-8'><title>{title}</title></head>\n"
        f"<body style='font-family:sans-serif;margin:2em'><h1>{title}</h1>\n{body}\n</body></html>\n"
    )


def _all_views(store: DistributionStore) -> NDArray[np.float64]:
    """Return how much of all particles' probability each view direction has."""
    parts = (store[start : start + _BATCH] for start in range(0, len(store), _BATCH))
    return np.asarray(sum(np.asarray(part.view_map()).sum(0) for part in parts), dtype=np.float64)


def _particles(
    title: str, stack: ParticleStack, store: DistributionStore, rows: NDArray[np.int64]
) -> str:
    """Return some particles, each next to its distribution over views."""
    pictures = []
    for row in rows.tolist():
        label = f"particle {row + 1}"
        pictures.append(grey(stack.images(row)[0], _PICTURE_PX, label))
        views = np.asarray(store[row : row + 1].view_map())[0]
        pictures.append(view_sphere(views, _SPHERE_PX, f"views of {label}"))
    return page(title, {"rows": ", ".join(str(row + 1) for row in rows.tolist())}, pictures)


def _next_steps(outputs: dict[str, Path], config: SolveConfig) -> str:
    model, volume = (shlex.quote(str(outputs[role])) for role in ("model", "map"))
    halves = [shlex.quote(str(outputs["map"].with_name(f"half{half}.mrc"))) for half in (1, 2)]
    steps = {
        "poses of other particles": f"infer OTHER.star --model {model} --output POSES.star --refine",
        "while a microscope writes": f"watch FOLDER --model {model} --map {volume} --output LIVE",
        "a sharpened map": f"postprocess {' '.join(halves)} --output SHARPENED.mrc",
    }
    if config.map is None:
        steps["the other hand"] = "images cannot tell it: look for right-handed helices in the map"
    return page("What to do next", steps)
