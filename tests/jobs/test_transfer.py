"""Models of another data set: whether its map fits, and when it is said that it does not."""

from __future__ import annotations

from collections.abc import Generator
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from napari_cryosphere.errors import MetadataError
from napari_cryosphere.imaging.phantom import protein_phantom
from napari_cryosphere.jobs.cesped import transfer as _transfer
from napari_cryosphere.jobs.events import Event, Note
from napari_cryosphere.reconstruction.map_alignment import MapAlignment
from napari_cryosphere.so3.rotations import rotation_from_relion_angles

TURN = rotation_from_relion_angles([0.0, 20.0, 0.0])


@pytest.fixture
def aligned(monkeypatch: pytest.MonkeyPatch) -> list[MapAlignment]:
    """What the alignments of maps find, one after the other."""
    answers: list[MapAlignment] = []

    def true_map(entry: Any) -> Generator[Event, None, Any]:
        yield from ()
        return protein_phantom(16, 12.0), "100 particles of 16 px, 12 Å"

    monkeypatch.setattr(_transfer, "_true_map", true_map)
    monkeypatch.setattr(_transfer, "align_maps", lambda *maps, **options: answers.pop(0))
    return answers


def frame() -> tuple[list[Event], np.ndarray, str]:
    found: list[Any] = []

    def kept() -> Generator[Event, None, None]:
        entries = (SimpleNamespace(name=name, symmetry="C1") for name in ("mine", "theirs"))
        found.extend((yield from _transfer.frame_of(*entries)))

    return list(kept()), *found


def test_the_other_hand_is_refused(aligned: list[MapAlignment]) -> None:
    aligned.append(MapAlignment(TURN, np.zeros(3), True, 0.9, 0.6))
    with pytest.raises(
        MetadataError, match=r"opposite hands \(correlation 0.90 mirrored, 0.60 not\)"
    ):
        frame()


def test_a_hand_that_is_not_determined_is_taken_as_the_same(aligned: list[MapAlignment]) -> None:
    aligned.append(MapAlignment(np.eye(3), np.zeros(3), True, 0.81, 0.8))
    aligned.append(MapAlignment(TURN, np.zeros(3), False, 0.8, float("nan")))
    events, turn, said = frame()
    assert not events
    np.testing.assert_array_equal(turn, TURN.T)
    assert "turned by 20.0°" in said
    assert "correlate at 0.80" in said
    assert not aligned


def test_maps_that_hardly_agree_are_warned_of(aligned: list[MapAlignment]) -> None:
    aligned.append(MapAlignment(TURN, np.zeros(3), False, 0.3, 0.2))
    events, _, _ = frame()
    assert events == [Note("the maps of mine and theirs correlate at 0.30 only", True)]
