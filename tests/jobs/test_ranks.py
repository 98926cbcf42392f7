"""Processes that work together: what one tells the others, without torchrun."""

from __future__ import annotations

import pytest
from torch.distributed import HashStore

from napari_cryosphere.errors import CryosphereError
from napari_cryosphere.jobs.running.ranks import Ranks


def test_who_waits_hears_who_failed_first() -> None:
    store = HashStore()
    first, second, third = (Ranks(rank, 3, store) for rank in range(3))
    assert "another rank is gone" in first._why_lost()
    second.fail("no poses")
    third.fail("no images")
    for work in (first.wait, lambda: first.receive("anything")):
        with pytest.raises(CryosphereError, match="rank 1 failed: no poses"):
            work()
    assert first._why_lost() == "rank 1 failed: no poses"


def test_what_is_sent_reaches_all() -> None:
    store = HashStore()
    first, second = (Ranks(rank, 2, store) for rank in range(2))
    first.send("map", "done")
    assert first.receive("map") == second.receive("map") == "done"
    assert first.of_first(lambda: "resumed") == "resumed"
    assert second.of_first(lambda: pytest.fail("the first says it")) == "resumed"


@pytest.mark.parametrize("number", [0, 7, 8])
def test_shares_are_all_and_even(number: int, monkeypatch: pytest.MonkeyPatch) -> None:
    items = list(range(number))
    shares = [Ranks(rank, 3, HashStore()).share(items) for rank in range(3)]
    assert [item for share in shares for item in share] == items
    here = []
    for local in range(2):  # two of the three are on this computer
        monkeypatch.setenv("LOCAL_RANK", str(local))
        monkeypatch.setenv("LOCAL_WORLD_SIZE", "2")
        ranks = Ranks(local, 3, HashStore())
        assert ranks.first_here == (local == 0)
        here += items[ranks.share_here(number)]
    assert here == items
    assert items[Ranks().share_here(number)] == items
