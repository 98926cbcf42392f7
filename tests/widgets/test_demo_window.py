"""The window on the demo's results."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from napari_cryosphere.errors import CryosphereError
from napari_cryosphere.particles import DensityMap
from napari_cryosphere.reconstruction import fourier_shell_correlation, write_fsc_csv
from napari_cryosphere.widgets.control.running import SynchronousRunner
from napari_cryosphere.widgets.docks.main import demo
from napari_cryosphere.widgets.plugin.open_docks import MAPS, open_dock


@pytest.fixture
def outputs(sample: Path, truth: DensityMap, tmp_path: Path) -> dict[str, Path]:
    curve = fourier_shell_correlation(truth.voxels, truth.voxels, truth.pixel_size_angstrom)
    for name in ("half.csv", "truth.csv"):
        write_fsc_csv({"fsc": curve}, tmp_path / name, overwrite=True)
    return {
        "truth": sample / "truth.mrc",
        "particles": sample / "particles.star",
        "map": sample / "truth.mrc",
        "half_map_fsc": tmp_path / "half.csv",
        "fsc_to_truth": tmp_path / "truth.csv",
    }


def test_everything_is_there(viewer: Any, outputs: dict[str, Path]) -> None:
    dock = demo.open_demo(viewer, outputs, SynchronousRunner())
    dock.controller.poses.predict()
    assert [layer.name for layer in viewer.layers if layer.visible] == [
        "simulated particles",
        "simulated particles poses",
    ]
    maps = open_dock(viewer, MAPS)
    assert maps.fsc is not None
    assert [label.split(":")[0] for label in maps.fsc.labels] == [
        "half-maps",
        "against the true map",
    ]
    maps.show_maps()
    assert [layer.name for layer in viewer.layers if layer.visible] == [
        "3D  true map",
        "3D  map from predicted poses",
    ]
    dock.controller.maps.show()


def test_a_written_curve_is_read_back(outputs: dict[str, Path], truth: DensityMap) -> None:
    curve = demo.read_fsc(outputs["half_map_fsc"], 3.0)
    assert (curve.box, len(curve.values)) == (64, 33)
    np.testing.assert_allclose(curve.values, 1)


def test_without_a_display_screenshots_are_made(
    monkeypatch: pytest.MonkeyPatch, outputs: dict[str, Path], sample: Path
) -> None:
    commands: list[list[str]] = []

    def run(command: list[str], **options: Any) -> subprocess.CompletedProcess[str]:
        commands.append(command)
        return subprocess.CompletedProcess(command, 0, "", "")

    monkeypatch.setattr(demo, "_has_display", lambda: False)
    monkeypatch.setattr(demo.shutil, "which", lambda name: f"/usr/bin/{name}")
    monkeypatch.setattr(demo.subprocess, "run", run)
    (line,) = demo.show_demo(outputs)
    assert f"{sample}/screenshot_*.png" in line
    (command,) = commands
    assert command[0] == "/usr/bin/xvfb-run"
    assert command[-4:] == [
        "-m",
        "napari_cryosphere.widgets.docks.main.demo",
        str(sample),
        "--screenshots",
    ]
    assert sys.executable in command


def test_without_xvfb_the_user_learns_what_to_install(
    monkeypatch: pytest.MonkeyPatch, outputs: dict[str, Path]
) -> None:
    monkeypatch.setattr(demo, "_has_display", lambda: False)
    monkeypatch.setattr(demo.shutil, "which", lambda name: None)
    assert any("apt-get install xvfb" in line for line in demo.show_demo(outputs))


def test_a_failure_without_a_display_is_told(
    monkeypatch: pytest.MonkeyPatch, outputs: dict[str, Path]
) -> None:
    failed = subprocess.CompletedProcess([], 1, "", "Traceback\nRuntimeError: no GL\n")
    monkeypatch.setattr(demo, "_has_display", lambda: False)
    monkeypatch.setattr(demo.shutil, "which", lambda name: name)
    monkeypatch.setattr(demo.subprocess, "run", lambda *args, **options: failed)
    with pytest.raises(CryosphereError, match="RuntimeError: no GL"):
        demo.show_demo(outputs)
