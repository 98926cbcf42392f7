"""Every code block of README and docs is executed, or at least parsed by what it is written for."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import pytest
from doc_blocks import (
    ROOT,
    Block,
    blocks,
    check,
    check_inline,
    execute,
    inline_commands,
    pages,
    run_here,
)

ALL = [block for page in pages() for block in blocks(page)]
RUN = sorted({block.page for block in ALL if block.reason is None})
KEPT = [block for block in ALL if block.reason is not None]


def _here(line: str) -> None:
    status, text = run_here(line.split())
    assert status == 0, text


@pytest.fixture(scope="module")
def inputs(
    tmp_path_factory: pytest.TempPathFactory, monkeypatch_module: pytest.MonkeyPatch
) -> Path:
    """A folder with the files that the pages take for granted, all small.

    map.mrc (also as reference.mrc), particles.star and other.star of it, and run, the folder of a
    model that was hardly trained.
    """
    from napari_cryosphere.imaging.phantom import protein_phantom

    folder = tmp_path_factory.mktemp("inputs")
    monkeypatch_module.chdir(folder)
    protein_phantom().save(folder / "map.mrc")
    shutil.copy(folder / "map.mrc", folder / "reference.mrc")
    _here("simulate map.mrc --output particles.star --number 40 --snr 0.5 --seed 1")
    _here("simulate map.mrc --output other.star --number 24 --snr 0.5 --seed 2")
    _here("train particles.star --output run --map map.mrc --epochs 1 --set batch_size=16")
    shutil.copy(folder / "map.mrc", folder / "run" / "map.mrc")
    return folder


@pytest.fixture(scope="module")
def monkeypatch_module() -> Any:
    with pytest.MonkeyPatch.context() as patch:
        yield patch


@pytest.mark.parametrize("page", RUN)
def test_blocks_run(
    page: str, inputs: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = tmp_path / "here"
    shutil.copytree(inputs, folder)
    monkeypatch.setenv("CESPED_BENCHMARK_DIR", "cesped")
    names: dict[str, Any] = {"__name__": "__main__"}
    for block in (block for block in ALL if block.page == page and block.reason is None):
        execute(block, folder, names)


@pytest.mark.parametrize("block", KEPT, ids=str)
def test_blocks_parse(block: Block, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    check(block)


@pytest.mark.parametrize(
    "page", [page for page in pages() if inline_commands(page)], ids=lambda page: page.name
)
def test_commands_in_the_text_exist(page: Path) -> None:
    for text in inline_commands(page):
        check_inline(text)


def test_blocks_are_found(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    page = tmp_path / "page.md"
    in_a_list = (
        "1. first\n\n    <!-- checked, not run: slow -->\n    ```bash\n    sleep 9\n    ```\n"
    )
    page.write_text(f"```python\nx = 1\n```\n\n{in_a_list}")
    monkeypatch.setattr("doc_blocks.ROOT", tmp_path)
    assert [(block.line, block.code, block.reason) for block in blocks(page)] == [
        (2, "x = 1\n", None),
        (9, "sleep 9\n", "slow"),
    ]


def test_a_wrong_block_is_found() -> None:
    def block(code: str, language: str = "bash") -> Block:
        return Block("page.md", 1, language, code, "")

    wrong = (
        "napari-cryosphere infer a.star --model m --output b.star --refin",
        "napari-cryosphere infer a.star --model m --output b.star --set mode=3",
        "napari-cryosphere reconstruct a.star --output b.mrc --symmetry Q7",
        "torchrun -m napari_cryosphere align a.star --local 10 --map b.mrc --output c.star",
        "make nothing-like-this",
        "python benchmarks/nothing.py --quick",
        "if true; then",
    )
    for code in wrong:
        with pytest.raises(AssertionError):
            check(block(code))
    with pytest.raises(SyntaxError):
        check(block("def f(", "python"))
    with pytest.raises(AssertionError):
        execute(block("napari-cryosphere info nothing.star"), ROOT, {})
    with pytest.raises(AssertionError, match="no option"):
        check_inline("napari-cryosphere align --nothing")
