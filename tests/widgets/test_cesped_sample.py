"""The sample that is downloaded: fetched once, resumable, read as particles."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from napari_cryosphere.evaluation import download
from napari_cryosphere.evaluation.entries import CespedEntry, add_half
from napari_cryosphere.particles import ParticleStack
from napari_cryosphere.widgets.plugin.samples import load_cesped_test


def test_the_entry_is_fetched_once(
    stack: ParticleStack, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    calls = []

    def fetch(entry: CespedEntry, half: int, folder: Path) -> Iterator[tuple[int, int]]:
        calls.append((entry.name, half))
        for done in add_half(stack, folder.parent, folder.name, half, "C1"):
            yield done, len(stack)

    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    monkeypatch.setattr(download, "download_half", fetch)
    for _ in range(2):
        ((data, options, kind),) = load_cesped_test()
        assert kind == "image"
        assert len(data) == len(stack)
        assert options["name"] == "CESPED TEST, half 0"
    assert calls == [("TEST", 0)]
