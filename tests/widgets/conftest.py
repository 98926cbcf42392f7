"""A small sample, an untrained model, and a viewer where there is a display."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

pytest.importorskip("napari", reason="napari (extra: gui) shows the widgets")

from napari.components import ViewerModel

from napari_cryosphere.jobs.events import Progress
from napari_cryosphere.jobs.sample import make_sample
from napari_cryosphere.model.card import Image2SphereConfig, ModelCard
from napari_cryosphere.model.pose_model import PoseModel
from napari_cryosphere.particles import DensityMap, ParticleStack
from napari_cryosphere.so3.distributions import PoseDistribution
from napari_cryosphere.so3.pose_summary import PoseSummary
from napari_cryosphere.widgets.control.flat_guard import keep_flat
from napari_cryosphere.widgets.control.running import SynchronousRunner
from napari_cryosphere.widgets.control.work import SAMPLE_MODEL
from napari_cryosphere.widgets.state.layer_data import map_layer, particle_layer

NUMBER = 80


class HeldRunner(SynchronousRunner):
    """Runs one step at a time, when told to."""

    def __init__(self) -> None:
        self.busy = False
        self.stopped = False
        self._events: Iterator[object] = iter(())

    def start(
        self,
        title: str,
        work: Callable[[], Iterator[object]],
        on_event: Callable[[object], None],
        on_end: Callable[[], None],
        whole: bool = False,
    ) -> None:
        self.busy, self._events, self._on_event = True, work(), on_event

    def advance(self) -> None:
        for event in self._events:
            self._on_event(event)
            if isinstance(event, Progress):
                return

    def stop(self) -> None:
        self.stopped = True


class HeldBackground:
    """Keeps short work until it is told to do it."""

    def __init__(self) -> None:
        self.work: list[tuple[str, Callable[[], Any], Callable[[Any], None]]] = []

    def run(self, kind: str, work: Callable[[], Any], take: Callable[[Any], None]) -> None:
        self.work.append((kind, work, take))

    def advance(self) -> None:
        held, self.work = self.work, []
        for _, work, take in held:
            take(work())

    def close(self) -> None: ...


@pytest.fixture
def held_runner() -> HeldRunner:
    return HeldRunner()


@pytest.fixture
def held_background() -> HeldBackground:
    return HeldBackground()


@pytest.fixture(scope="session")
def sample(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Folder with truth.mrc, particles.star and particles.mrcs: more particles than are read at
    once.
    """
    folder = tmp_path_factory.mktemp("sample")
    for _ in make_sample(folder, NUMBER):
        pass
    return folder


@pytest.fixture(scope="session")
def stack(sample: Path) -> ParticleStack:
    return ParticleStack.read(sample / "particles.star")


@pytest.fixture(scope="session")
def truth(sample: Path) -> DensityMap:
    return DensityMap.read(sample / "truth.mrc")


@pytest.fixture(scope="session")
def model_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A small model that has learnt nothing; only how it is handled matters here."""
    network = Image2SphereConfig(
        encoder_channels=(4, 8), sphere_channels=8, sphere_order=1, l_max=2, so3_channels=2
    )
    import torch

    torch.manual_seed(0)
    path = tmp_path_factory.mktemp("model") / "untrained.safetensors"
    PoseModel.create(ModelCard(network=network, pixel_size_angstrom=6.0)).save(path)
    return path


@pytest.fixture(autouse=True)
def sample_model(model_file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Let the untrained model stand for the package's, and be chosen for all particles."""
    monkeypatch.setattr(
        "napari_cryosphere.widgets.state.session.proposed_model", lambda layer: SAMPLE_MODEL
    )
    monkeypatch.setattr(
        "napari_cryosphere.jobs.sample.sample_model", lambda: PoseModel.load(model_file)
    )


@pytest.fixture(autouse=True)
def own_state(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Keep flags out of the user's own folder, and every test's from the others'."""
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "state"))


@pytest.fixture
def viewer(request: pytest.FixtureRequest) -> Any:
    """A real viewer with its window."""
    if sys.platform.startswith("linux") and not (
        os.environ.get("DISPLAY") or os.environ.get("WAYLAND_DISPLAY")
    ):
        pytest.skip("napari's window needs a display; run under xvfb-run")
    return request.getfixturevalue("make_napari_viewer")()


@pytest.fixture
def viewer_model() -> ViewerModel:
    return ViewerModel()


@pytest.fixture
def add_particles() -> Callable[..., Any]:
    """Return a function that adds particles to a viewer as the reader does."""

    def add(viewer: ViewerModel, stack: ParticleStack, name: str = "particles") -> Any:
        keep_flat(viewer)
        data, options, _ = particle_layer(stack, name)
        return viewer.add_image(data, **options)

    return add


@pytest.fixture
def add_map() -> Callable[..., Any]:
    """Return a function that adds a map to a viewer as the reader does."""

    def add(
        viewer: ViewerModel, density: DensityMap, name: str = "map", visible: bool = True
    ) -> Any:
        data, options, _ = map_layer(density, name, visible)
        return viewer.add_image(data, **options)

    return add


@pytest.fixture(scope="session")
def predictions(
    stack: ParticleStack, model_file: Path
) -> tuple[slice, PoseDistribution, PoseSummary]:
    """Sharp made-up predictions of the first 40 particles, 10 degrees off their known poses."""
    import torch
    from scipy.spatial.transform import Rotation

    from napari_cryosphere.so3.wigner import evaluate_at

    off = Rotation.from_rotvec([0, np.radians(10), 0]).as_matrix()
    poses = torch.from_numpy(stack.rotations()[:40] @ off).float()
    empty = torch.zeros(40, 7, 13, 7, dtype=torch.complex64, requires_grad=True)
    evaluate_at(empty, poses[:, None]).sum().backward()
    assert empty.grad is not None
    degree = torch.arange(7)[:, None, None]
    distribution = PoseDistribution.from_coefficients(0.1 * (2 * degree + 1) * empty.grad)
    return slice(0, 40), distribution, distribution.summary()
