"""Particles chosen by an expression on their columns."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from napari_cryosphere.errors import MetadataError
from napari_cryosphere.particles import ParticleStack, read_star, write_stack, write_star


@pytest.fixture
def stack(tmp_path: Path) -> ParticleStack:
    write_stack(np.random.default_rng(0).normal(size=(6, 8, 8)), tmp_path / "a.mrcs", 1.5)
    optics = {"rlnOpticsGroup": [1, 2], "rlnVoltage": [300.0, 200.0], "rlnImagePixelSize": 1.5}
    particles = {
        "rlnImageName": [f"{number}@a.mrcs" for number in range(1, 7)],
        "rlnOpticsGroup": [1, 1, 1, 2, 2, 2],
        "rlnClassNumber": [1, 2, 3, 1, 2, 3],
        "rlnDefocusU": [1e4, 1.1e4, 1.2e4, 1.3e4, 1.4e4, 1.5e4],
        "cryosparc/uid": range(6),
        "rlnMicrographName": ["a.mrc", "b.mrc"] * 3,
    }
    blocks = {"optics": pd.DataFrame(optics), "particles": pd.DataFrame(particles)}
    write_star(blocks, tmp_path / "p.star")
    return ParticleStack.read(tmp_path / "p.star")


@pytest.mark.parametrize(
    ("expression", "rows"),
    [
        ("rlnClassNumber == 2", [1, 4]),
        ("rlnClassNumber in [1, 3] and 11500 < rlnDefocusU <= 14500", [2, 3]),
        ("rlnVoltage == 200", [3, 4, 5]),
        ("`cryosparc/uid` >= 4", [4, 5]),
        ("rlnMicrographName == 'b.mrc'", [1, 3, 5]),
        ("rlnMicrographName.str.startswith('a') and not rlnClassNumber == 1", [2, 4]),
    ],
)
def test_rows_are_those_that_pandas_chooses(
    stack: ParticleStack, expression: str, rows: list[int], tmp_path: Path
) -> None:
    chosen = stack.select(expression)
    assert chosen.particles["cryosparc/uid"].tolist() == rows
    np.testing.assert_array_equal(chosen.images(), stack.images()[rows])
    chosen.save(tmp_path / "some.star")
    again = read_star(tmp_path / "some.star")
    assert len(again["optics"]) == 2
    assert again["particles"]["rlnClassNumber"].tolist() == [row % 3 + 1 for row in rows]
    assert list(again["particles"]) == list(stack.particles)


@pytest.mark.parametrize(
    ("expression", "said"),
    [
        ("rlnClasNumber == 2", "columns are rlnClassNumber, "),
        ("rlnClassNumber ==", "cannot be used"),
        ("rlnClassNumber = 2", "is no condition"),
        ("rlnClassNumber + 2", "is no condition"),
        ("rlnClassNumber == 9", "is true for none of 6 particles"),
        ("rlnMicrographName < 3", "cannot be used"),
        ("", "cannot be used"),
        ("True", "is no condition"),
        ("rlnClassNumber == @x", "an @ outside quotes"),
        ("rlnClassNumber == 1\nrlnClassNumber == 2", "cannot be used"),
        ("__import__('os').getcwd()", "cannot be used"),
    ],
)
def test_a_bad_expression_is_one_line(stack: ParticleStack, expression: str, said: str) -> None:
    with pytest.raises(MetadataError) as caught:
        stack.select(expression)
    message = str(caught.value)
    assert said in message
    assert "\n" not in message
    assert message.startswith(str(stack.source))
