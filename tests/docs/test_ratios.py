"""The watch over ratios: what has fallen is named."""

from __future__ import annotations

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[2] / "benchmarks"))

import ratios


def test_a_fall_of_more_than_fifteen_percent_is_named() -> None:
    before = [{"task": "a", "ratio": 10.0}, {"task": "b", "ratio": 2.0}]
    now = [{"task": "a", "ratio": 8.4}, {"task": "b", "ratio": 1.75}, {"task": "new", "ratio": 0.1}]
    assert ratios.fallen(now, before) == ["a: 8.4, before 10"]
    assert ratios.fallen(before, before) == []
