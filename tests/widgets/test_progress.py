"""The bar below a dock while a command runs: how far it is."""

from __future__ import annotations

from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest

from napari_cryosphere.jobs.sample import make_sample
from napari_cryosphere.widgets.plugin.open_docks import COMMANDS, MAIN, open_dock

SHORT = {
    "_searches.STEPS": 8,
    "_confirmed_searches.STEPS": 8,
    "_searches.EARLY_STEPS": 4,
    "_confirmed_searches.EARLY_STEPS": 4,
    "_searches._FEWEST_PARTICLES": 40,
    "_confirmed_searches.AGREEMENT": -1.0,
}
"""A short search whose first two maps are believed: what it finds does not matter here."""


def test_it_says_how_far_finding_poses_is(
    viewer: Any, qtbot: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, value in SHORT.items():
        monkeypatch.setattr(f"napari_cryosphere.jobs.{name}", value)
    for _ in make_sample(tmp_path, 100):
        pass
    viewer.open(tmp_path / "particles.star", plugin="napari-cryosphere")
    open_dock(viewer, MAIN).poses.find_poses.click()
    dock = open_dock(viewer, COMMANDS)
    dock.form.fill("resolution_angstrom", 32.0)
    shown = list[int]()
    runner = dock.controller.runner
    runner.progressed.connect(lambda *_: shown.append(dock.footer.progress.value()))
    dock.button.click()
    qtbot.waitUntil(lambda: not runner.busy, timeout=120_000)
    assert dock.run.lines, "it ended with an error"
    assert shown == sorted(shown)
    assert len(set(shown)) > 10
    assert max(b - a for a, b in pairwise(shown)) < 35
    assert shown[-1] == 100
    assert dock.footer.progress.value() == 0  # nothing goes on any more
