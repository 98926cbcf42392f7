"""The README quotes what the benchmarks wrote."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT / "scripts"))

import results  # noqa: E402


def test_the_readme_quotes_the_results() -> None:
    assert results.quoted(results.README.read_text(encoding="utf-8")) == results.table()


def test_another_number_would_be_noticed(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    for path in results.RESULTS.glob("*.json"):
        text = path.read_text(encoding="utf-8")
        (tmp_path / path.name).write_text(text, encoding="utf-8")
    demo = tmp_path / "demo.json"
    demo.write_text(
        demo.read_text().replace(
            '"masked_correlation_to_truth": 0.', '"masked_correlation_to_truth": 1.'
        )
    )
    monkeypatch.setattr(results, "RESULTS", tmp_path)
    assert results.quoted(results.README.read_text(encoding="utf-8")) != results.table()


def test_what_was_not_run_is_left_out(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(results, "RESULTS", tmp_path)
    assert list(results.results()) == []
    with pytest.raises(LookupError, match="demo"):
        results.row("demo")
