"""The page of all benchmarks, from figures that scripts leave behind."""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT / "benchmarks"))

import run_all  # noqa: E402

WORKING = '''"""Ours beside theirs.

More of it.
"""
import json, sys
place = sys.argv[sys.argv.index("--json") + 1]
rows = [{"task": "a|b", "ratio": 2.34567}, {"task": "c", "ratio": float("nan")}]
rows += [{"other": 3, "--quick": "--quick" in sys.argv}]
figures = {"benchmark": "working", "rows": rows, "machine": {}, "versions": {"numpy": "2.4.6"}}
open(place, "w").write(json.dumps(figures))
'''
FAILING = '"""It fails."""\nraise ValueError("no such thing")\n'


def test_every_script_is_run_and_the_short_ones_exist() -> None:
    assert {"so3", "particles", "alignment", "network", "reconstruction", "workbench"} <= set(
        run_all.scripts()
    )
    assert set(run_all.SHORT) <= set(run_all.scripts())
    for name in run_all.scripts():
        assert run_all._purpose(name).endswith("."), name


def test_page(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "working.py").write_text(WORKING)
    (tmp_path / "failing.py").write_text(FAILING)
    monkeypatch.setattr(run_all, "FOLDER", tmp_path)
    output = tmp_path / "docs" / "page.md"
    monkeypatch.setattr(sys, "argv", ["run_all.py", "--quick", "--output", str(output)])
    assert run_all.main() == 1
    page = output.read_text()
    assert "A quick run" in page
    assert "numpy 2.4.6" in page
    assert "## working\n\nOurs beside theirs.\n" in page
    assert "| task | ratio |\n| --- | --- |\n| a\\|b | 2.346 |\n| c |  |\n" in page
    assert "| other | --quick |\n| --- | --- |\n| 3 | True |\n" in page
    assert "**It failed:** `ValueError: no such thing`" in page


def test_a_script_without_figures_is_not_passed_over() -> None:
    outcome = run_all.Outcome("cryopares", "Ours beside theirs.", 0.1, [], None)
    page = run_all.page([outcome], argparse.Namespace(quick=True, short=False, only=["cryopares"]))
    assert "Not run: what it compares with" in page
    assert 'made by `make benchmark ARGS="--quick --only cryopares"` in one go' in page


def test_a_whole_run_says_so() -> None:
    figures = {"benchmark": "so3", "rows": [{"task": "a", "ms": 1.0}], "versions": {}}
    outcome = run_all.Outcome("so3", "Ours.", 3.0, [json.loads(json.dumps(figures))], None)
    page = run_all.page([outcome], argparse.Namespace(quick=False, short=False, only=None))
    assert "made by `make benchmark` in one go" in page.replace("\n", " ")
    assert "quick" not in page
