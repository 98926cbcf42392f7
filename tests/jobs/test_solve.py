"""The job ``solve``: which jobs it runs on what, and its page of results."""

from __future__ import annotations

from html.parser import HTMLParser

import numpy as np
import pytest
from scipy.spatial.transform import Rotation

from napari_cryosphere.imaging.phantom import protein_phantom
from napari_cryosphere.jobs import solve as module
from napari_cryosphere.jobs.configs import JobConfig, SimulateConfig, SolveConfig
from napari_cryosphere.jobs.events import Events, Result, follow
from napari_cryosphere.jobs.simulate import simulate
from napari_cryosphere.particles import ParticleStack
from napari_cryosphere.reconstruction import fourier_shell_correlation, write_fsc_csv
from napari_cryosphere.so3.distributions import PoseDistribution
from napari_cryosphere.so3.distributions.store import save_distribution

NUMBER = 12
JOBS = ["abinitio", "refine", "train", "infer"]


class Tags(HTMLParser):
    """Collects the tags of a page."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.seen = list[tuple[str, dict[str, str | None]]]()
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.seen.append((tag, dict(attrs)))


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> SolveConfig:
    """Return the config of a run whose four jobs have left their files."""
    folder = tmp_path_factory.mktemp("solve")
    (folder / "run/refined").mkdir(parents=True)
    config = SolveConfig(particles=folder / "<script>p&.star", output=folder / "run")
    outputs = module.solve_outputs(config)
    density = protein_phantom(32, 6.0)
    density.save(outputs["map"])
    curve = fourier_shell_correlation(density.voxels, density.voxels, 6.0)
    write_fsc_csv({"fsc": curve}, outputs["map"].with_name("fsc.csv"), overwrite=True)
    given = {"map": outputs["map"], "output": outputs["particles"], "number": NUMBER}
    follow(simulate(SimulateConfig(**given)), lambda event: None)
    poses = Rotation.random(NUMBER, random_state=0).as_matrix()
    distribution = PoseDistribution.from_poses(poses[:, None], np.ones((NUMBER, 1)), 8.0)
    save_distribution(distribution, outputs["distributions"])
    stack = ParticleStack.read(outputs["particles"])
    stack.with_distribution(distribution).save(outputs["predicted"])
    return config


def test_the_page_needs_no_other_file_and_escapes_names(finished: SolveConfig) -> None:
    text = module.report_page(finished, module.solve_outputs(finished))
    tags = Tags(text).seen
    assert "script" not in [tag for tag, _ in tags]
    assert "&lt;script&gt;p&amp;.star" in text
    sources = [attributes["src"] for tag, attributes in tags if tag == "img"]
    # three slices, three projections, all views, and eight particles with their spheres
    assert len(sources) == 3 + 3 + 1 + 2 * 8
    assert all(source is not None and source.startswith("data:image/png;") for source in sources)
    assert not any("href" in attributes for _, attributes in tags)
    assert sum(tag == "rect" for tag, _ in tags) == 20
    assert "--model" in text


@pytest.mark.parametrize("given_map", [False, True])
def test_jobs_follow_each_other_and_are_not_repeated(
    finished: SolveConfig, given_map: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    ran = list[JobConfig]()

    def job(config: JobConfig) -> Events:
        ran.append(config)
        yield Result({}, {})

    for name in JOBS:
        monkeypatch.setattr(module, name, job)
    outputs = module.solve_outputs(finished)
    start = outputs["map"] if given_map else None
    config = finished.model_copy(update={"overwrite": True, "map": start, "invert": True})
    result = follow(module.solve(config), lambda event: None)
    kinds = ["AbInitioConfig", "RefineConfig", "TrainConfig", "InferConfig"][given_map:]
    assert [type(one).__name__ for one in ran] == kinds
    assert [one.model_dump()["invert"] for one in ran] == [True] * len(kinds)
    maps = [one.model_dump().get("map") for one in ran if type(one).__name__ == "RefineConfig"]
    assert maps == [(start or config.output / "initial/map.mrc",)]
    assert ran[-1].model_dump()["particles"] == outputs["particles"]
    assert result.outputs["report"].is_file()
    ran.clear()
    again = config.model_copy(update={"resume": True})
    follow(module.solve(again), lambda event: None)
    assert not ran


@pytest.mark.parametrize("kinds", [1, 2])
def test_kinds_that_were_found_are_refined_each(
    finished: SolveConfig, kinds: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A search that finds one kind leaves it to the refinement to find states of it."""
    ran = list[JobConfig]()

    def job(config: JobConfig) -> Events:
        ran.append(config)
        if type(config).__name__ == "AbInitioConfig":
            folder = finished.output / "initial"
            folder.mkdir(exist_ok=True)
            for number in range(2, kinds + 1):
                (folder / f"map_class{number:03d}.mrc").touch()
        yield Result({}, {})

    for name in JOBS:
        monkeypatch.setattr(module, name, job)
    config = finished.model_copy(update={"overwrite": True, "classes": 2})
    follow(module.solve(config), lambda event: None)
    search, refinement, training, _ = (one.model_dump() for one in ran)
    assert search["classes"] == 2
    assert [path.name for path in refinement["map"]] == ["map.mrc", "map_class002.mrc"][:kinds]
    assert refinement["classes"] == (2 if kinds == 1 else 1)
    assert training["select"] == (None if kinds == 1 else "rlnClassNumber == 1")
