"""Particles from one program's table to another's: what is lost is said."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from pydantic import ValidationError

from napari_cryosphere.errors import OutputExistsError
from napari_cryosphere.jobs.configs import ConvertConfig
from napari_cryosphere.jobs.convert import convert
from napari_cryosphere.jobs.events import Events, Note, follow
from napari_cryosphere.particles import ParticleStack, read_cs, write_stack, write_star


def warnings(events: Events) -> list[str]:
    said: list[str] = []
    follow(
        events,
        lambda event: (
            said.append(event.text) if isinstance(event, Note) and event.warning else None
        ),
    )
    return said


@pytest.fixture
def table(tmp_path: Path) -> Path:
    write_stack(np.zeros((2, 8, 8)), tmp_path / "a.mrc", 2.0)
    rows = {"rlnImageName": ["1@a.mrc", "2@a.mrc"], "rlnAngleRot": [1.0, 2.0]}
    rows |= {"rlnAngleTilt": [3.0, 4.0], "rlnAnglePsi": [5.0, 6.0]}
    general = pd.DataFrame({"rlnFinalResolution": [3.4]})
    write_star({"general": general, "particles": pd.DataFrame(rows)}, tmp_path / "in.star")
    return tmp_path / "in.star"


def test_what_a_cs_file_cannot_hold_is_named(table: Path) -> None:
    output = table.with_name("out.cs")
    said = warnings(convert(ConvertConfig(particles=table, output=output)))
    assert any("a .cs file holds particles only; left out: data_general" in text for text in said)
    back = ParticleStack.read(output)
    np.testing.assert_allclose(back.rotations(), ParticleStack.read(table).rotations(), atol=1e-6)
    with pytest.raises(OutputExistsError):
        warnings(convert(ConvertConfig(particles=table, output=output)))


def test_stacks_that_relion_would_not_read_are_named(table: Path) -> None:
    said = warnings(convert(ConvertConfig(particles=table, output=table.with_name("out.star"))))
    assert any("RELION reads stacks whose names end with .mrcs only" in text for text in said)
    assert len(ParticleStack.read(table.with_name("out.star"))) == 2


def test_inverted_particles_need_a_file_that_says_so(table: Path) -> None:
    write_stack(
        np.random.default_rng(0).normal(size=(2, 8, 8)), table.with_name("a.mrc"), 2.0, True
    )
    given = ParticleStack.read(table).images()
    with pytest.raises(ValidationError, match="a STAR file cannot say that images are inverted"):
        ConvertConfig(particles=table, output=table.with_name("out.star"), invert=True)
    once, twice = table.with_name("once.cs"), table.with_name("twice.cs")
    for source, output in ((table, once), (once, twice)):
        assert warnings(convert(ConvertConfig(particles=source, output=output, invert=True)))
    assert read_cs(once)["blob/sign"].tolist() == [-1, -1]
    np.testing.assert_array_equal(ParticleStack.read(once).images(), -given)
    np.testing.assert_array_equal(ParticleStack.read(twice).images(), given)
    back = table.with_name("back.star")
    said = warnings(convert(ConvertConfig(particles=once, output=back)))
    assert any("which RELION does not know: invert the stacks" in text for text in said)
    np.testing.assert_array_equal(ParticleStack.read(back).images(), -given)
