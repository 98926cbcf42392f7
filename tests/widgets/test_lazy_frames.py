"""Stacks that are read one image at a time."""

from __future__ import annotations

from copy import deepcopy

import numpy as np
import pytest
from napari.layers._data_protocols import LayerDataProtocol

from napari_cryosphere.errors import CryosphereError
from napari_cryosphere.particles import ParticleStack
from napari_cryosphere.widgets.state.lazy_frames import ParticleFrames


@pytest.fixture
def frames(stack: ParticleStack) -> ParticleFrames:
    return ParticleFrames(stack)


def test_frames_follow_naparis_protocol(frames: ParticleFrames) -> None:
    assert isinstance(frames, LayerDataProtocol)
    assert (frames.shape, frames.ndim, frames.size) == ((80, 64, 64), 3, 80 * 64 * 64)
    assert frames.dtype == np.float32
    assert len(frames) == 80


@pytest.mark.parametrize(
    "key",
    [
        3,
        -1,
        np.int64(7),
        (5, slice(None), slice(None)),
        (5, slice(10, 20), 3),
        (Ellipsis, slice(2, 9), slice(None)),
        slice(4, 9),
        (slice(4, 9, 2), slice(None), slice(30, 40)),
        ([1, 7, 1], 5),
    ],
)
def test_frames_are_indexed_like_an_array(
    frames: ParticleFrames, stack: ParticleStack, key: object
) -> None:
    if isinstance(key, tuple) and key[0] is Ellipsis:
        frames = ParticleFrames(stack[:20])
        expected = stack[:20].images()[..., 2:9, :]
    else:
        expected = stack.images()[key]  # type: ignore[index]
    np.testing.assert_array_equal(frames[key], expected)


def test_a_picture_that_was_forgotten_while_it_was_made_is_made_again(
    frames: ParticleFrames, monkeypatch: pytest.MonkeyPatch
) -> None:
    made = frames._make

    def make(indices: np.ndarray) -> np.ndarray:
        frames.forget()
        return made(indices)

    monkeypatch.setattr(frames, "_make", make)
    frames[3]
    frames[3]
    assert frames.frames_made == 2


def test_frames_can_be_copied_with_their_layer(frames: ParticleFrames) -> None:
    np.testing.assert_array_equal(deepcopy(frames)[3], frames[3])


def test_a_frame_is_read_once(frames: ParticleFrames) -> None:
    for _ in range(3):
        frames[5]
    assert frames.frames_made == 1
    frames.forget()
    frames[5]
    assert frames.frames_made == 2


@pytest.mark.parametrize("key", [slice(None), (slice(None), slice(None), 3), Ellipsis])
def test_many_frames_at_once_are_refused_before_reading(
    frames: ParticleFrames, key: object
) -> None:
    with pytest.raises(CryosphereError, match=r"80 pictures at once are too many \(64 at most\)"):
        frames[key]
    assert frames.frames_made == 0


def test_an_empty_slice_has_the_right_shape(frames: ParticleFrames) -> None:
    assert frames[3:3].shape == (0, 64, 64)


def test_memory_stays_small(frames: ParticleFrames) -> None:
    for index in range(80):
        frames[index]
    assert len(frames._kept) == 64


def test_index_out_of_range(frames: ParticleFrames) -> None:
    with pytest.raises(IndexError):
        frames[80]
