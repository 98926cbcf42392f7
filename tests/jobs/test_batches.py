"""Reading ahead, batches in blocks, shares of ranks, limits on memory: the small parts of long
runs.
"""

from __future__ import annotations

import threading
import time
from pathlib import Path

import numpy as np
import pytest
import torch

from napari_cryosphere.errors import CryosphereError
from napari_cryosphere.jobs.running.batches import (
    Arrays,
    Batches,
    Pace,
    finished,
    joined,
    work_through,
)
from napari_cryosphere.jobs.running.compute import batches_at_once
from napari_cryosphere.jobs.running.journal import Journal
from napari_cryosphere.jobs.running.memory import (
    MemoryLimit,
    peak_gigabytes,
    reconstruction_bytes,
    watch_bytes,
)
from napari_cryosphere.jobs.running.prefetch import prefetched
from napari_cryosphere.jobs.running.ranks import Ranks
from napari_cryosphere.particles import MrcStack, write_stack


def test_items_come_in_order_and_no_more_than_asked_for_wait() -> None:
    began: list[int] = []

    def read(key: int) -> int:
        began.append(key)
        return key * key

    for used, (key, value) in enumerate(prefetched(read, range(20), ahead=2), start=1):
        time.sleep(0.002)  # a slow user holds the reader back
        assert value == key * key
        assert len(began) <= used + 2
    assert began == list(range(20))


def test_reading_is_done_in_another_thread() -> None:
    names = {value for _, value in prefetched(lambda _: threading.current_thread().name, range(3))}
    assert names == {"prefetch_0"}
    assert dict(prefetched(lambda _: threading.current_thread().name, range(1), ahead=0)) == {
        0: threading.current_thread().name
    }


def test_an_error_comes_when_its_item_is_due_and_ends_the_reading() -> None:
    def read(key: int) -> int:
        if key == 3:
            raise CryosphereError("image 3 is bad")
        return key

    items = prefetched(read, range(10))
    assert [next(items)[0] for _ in range(3)] == [0, 1, 2]
    with pytest.raises(CryosphereError, match="image 3"):
        next(items)
    assert not [thread for thread in threading.enumerate() if thread.name.startswith("prefetch")]


@pytest.mark.parametrize(("number", "size"), [(1, 128), (128, 128), (1000, 16), (200_000, 128)])
@pytest.mark.parametrize("count", [1, 2, 3, 8])
def test_ranks_share_all_rows_in_whole_blocks(number: int, size: int, count: int) -> None:
    batches = Batches.in_blocks(number, size)
    blocks = batches.blocks()
    shares = [list(Ranks(rank, count).share(blocks)) for rank in range(count)]
    assert [block for share in shares for block in share] == blocks
    assert max(map(len, shares)) - min(map(len, shares)) <= 1
    rows = [
        row for block in blocks for batch in batches.of(block) for row in (batch.start, batch.stop)
    ]
    assert rows[0] == 0
    assert rows[-1] == number
    assert rows[1:-1:2] == rows[2::2]


def test_time_left_follows_the_pace() -> None:
    pace = Pace(100)
    assert pace.remaining_seconds(0) is None
    time.sleep(0.02)
    some, more = pace.remaining_seconds(10), pace.remaining_seconds(50)
    assert some is not None
    assert more is not None
    assert some >= 0.02 * 9
    assert more < some


def test_a_limit_on_memory_makes_batches_small_and_refuses_what_cannot_fit() -> None:
    assert MemoryLimit(None).batch_size(128, 256) == 128
    sizes = [MemoryLimit(limit).batch_size(128, 256, 4e6) for limit in (0.75, 1.0, 4.0)]
    assert 1 <= sizes[0] < sizes[1] <= sizes[2] == 128
    with pytest.raises(CryosphereError, match=r"--max-memory 0\.5"):
        MemoryLimit(0.5).batch_size(128, 256)
    with pytest.raises(CryosphereError, match="padding=1"):
        MemoryLimit(4).refuse_beyond(
            reconstruction_bytes(512, 2), "the sums", "pad less (--set padding=1)"
        )


def test_pages_of_mapped_stacks_are_returned(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from napari_cryosphere.particles.mrc import pixel_views as _pixel_views

    write_stack([[[float(n)] * 64] * 64 for n in range(40)], tmp_path / "s.mrcs", 1.0)
    returned = []
    monkeypatch.setattr(_pixel_views, "_POOL", _pixel_views._Pool())  # no other test's stacks
    monkeypatch.setattr(_pixel_views, "_MOST_MAPPED_BYTES", 10 * 64 * 64 * 4)
    original = _pixel_views.PixelView.return_pages
    monkeypatch.setattr(
        _pixel_views.PixelView, "return_pages", lambda view: returned.append(original(view))
    )
    stack = MrcStack(tmp_path / "s.mrcs")
    for start in range(0, 40, 4):
        images = stack.read(slice(start, start + 4))
        assert images[:, 0, 0].tolist() == list(range(start, start + 4))
    assert 2 <= len(returned) <= 4


def test_what_running_sums_and_this_process_take() -> None:
    assert watch_bytes(64, 2) > reconstruction_bytes(64, 2) > 2 * 4 * 3 * 128**2 * 65
    assert 0.02 < peak_gigabytes() < 100  # Python and numpy alone are that much


@pytest.mark.parametrize("at_once", [1, 3])
def test_batches_side_by_side_are_kept_in_order(tmp_path: Path, at_once: int) -> None:
    batches, together = Batches(50, 8), threading.Barrier(at_once, timeout=60)
    journal = Journal(tmp_path / "journal", {}, resume=False)

    def work(rows: slice, inputs: int) -> Arrays:
        if rows.start < 8 * at_once:
            together.wait()  # fails unless as many run at once
        time.sleep(0.02 if rows.start % 16 == 0 else 0.001)  # later ones are ready earlier
        return {
            "row": np.arange(rows.start, rows.stop),
            "input": np.full(rows.stop - rows.start, inputs),
        }

    steps = work_through(
        batches, Ranks(0, 1), journal, lambda rows: rows.start, work, "done", at_once=at_once
    )
    fractions = [step.fraction for step in steps]
    assert fractions == sorted(fractions)
    assert fractions[-1] == 1
    found = joined(finished(batches, journal, ("row", "input")))
    np.testing.assert_array_equal(found["row"], np.arange(50))
    np.testing.assert_array_equal(found["input"], np.arange(50) // 8 * 8)


def test_batches_side_by_side_compute_with_a_thread_each() -> None:
    threads = torch.get_num_threads()
    torch.set_num_threads(4)
    try:
        with batches_at_once(torch.device("cpu"), limited=False) as at_once:
            found = dict(prefetched(lambda _: torch.get_num_threads(), range(6), at_once, at_once))
        assert at_once == 4
        assert set(found.values()) == {1}
        assert torch.get_num_threads() == 4
        for device, limited in (("meta", False), ("cpu", True)):
            with batches_at_once(torch.device(device), limited) as at_once:
                assert (at_once, torch.get_num_threads()) == (1, 4)
    finally:
        torch.set_num_threads(threads)
