"""Particles to and from the tables of starfile, and images that are in no file."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import starfile

from napari_cryosphere.errors import FileFormatError, MetadataError, OutputExistsError
from napari_cryosphere.particles import MrcStack, ParticleStack, write_stack

BOX, NUMBER = 8, 6


@pytest.fixture
def images() -> np.ndarray:
    return np.random.default_rng(0).normal(size=(NUMBER, BOX, BOX)).astype(np.float32)


def tables(name: str = "stack.mrcs") -> dict[str, pd.DataFrame | dict[str, object]]:
    optics = pd.DataFrame(
        {"rlnOpticsGroup": [1], "rlnOpticsGroupName": ["one"], "rlnImagePixelSize": [2.5]}
    )
    particles = pd.DataFrame(
        {
            "rlnImageName": [f"{row + 1:06d}@{name}" for row in range(NUMBER)],
            "rlnAngleRot": np.linspace(0.0, 50.0, NUMBER),
            "rlnAngleTilt": 90.0,
            "rlnAnglePsi": 10.0,
            "rlnOriginXAngst": 0.5,
            "rlnOriginYAngst": -0.5,
            "rlnOpticsGroup": 1,
        }
    )
    return {"optics": optics, "particles": particles, "general": {"rlnOurNote": "none", "n": 3}}


def test_what_starfile_reads_is_what_the_package_reads(tmp_path: Path, images: np.ndarray) -> None:
    write_stack(images, tmp_path / "stack.mrcs", 2.5)
    path = tmp_path / "particles.star"
    starfile.write(tables(), path)
    read = ParticleStack.read(path)
    taken = ParticleStack.from_tables(starfile.read(path), data_dir=tmp_path)
    np.testing.assert_array_equal(taken.images(), read.images())
    np.testing.assert_allclose(taken.rotations(), read.rotations())
    assert taken.grid == read.grid


def test_tables_come_back_and_starfile_writes_them(tmp_path: Path, images: np.ndarray) -> None:
    write_stack(images, tmp_path / "stack.mrcs", 2.5)
    starfile.write(tables(), tmp_path / "first.star")
    given = ParticleStack.read(tmp_path / "first.star").to_tables()
    assert given["general"] == {"rlnOurNote": "none", "n": 3}
    starfile.write(given, tmp_path / "second.star")
    first, second = (starfile.read(tmp_path / f"{name}.star") for name in ("first", "second"))
    pd.testing.assert_frame_equal(
        first["particles"], second["particles"][list(first["particles"])], check_dtype=False
    )
    assert first["general"] == second["general"]


def test_a_table_alone_is_the_particles(tmp_path: Path, images: np.ndarray) -> None:
    write_stack(images, tmp_path / "stack.mrcs", 2.5)
    starfile.write({"particles": tables()["particles"]}, tmp_path / "old.star")
    table = starfile.read(tmp_path / "old.star")
    assert isinstance(table, pd.DataFrame)
    assert len(ParticleStack.from_tables(table, data_dir=tmp_path)) == NUMBER


def test_images_in_memory_are_read_sliced_and_joined(images: np.ndarray) -> None:
    stack = ParticleStack.from_tables(tables(), images)
    np.testing.assert_array_equal(stack.images(), images)
    np.testing.assert_array_equal(stack[[4, 1]].images(), images[[4, 1]])
    np.testing.assert_array_equal(stack[2].images(0), images[[2]])
    other = ParticleStack.from_tables(tables(), images + 1)
    both = ParticleStack.join([stack, other])
    np.testing.assert_array_equal(both.images(), np.concatenate([images, images + 1]))
    assert not any("same image" in text or "duplicate" in text for text in both.warnings)


def test_images_in_memory_are_saved_next_to_the_table(tmp_path: Path, images: np.ndarray) -> None:
    stack = ParticleStack.from_tables(tables(), images)
    two = ParticleStack.join([stack, ParticleStack.from_tables(tables(), images + 1)])
    two[::2].save(tmp_path / "made.star")
    read = ParticleStack.read(tmp_path / "made.star")
    np.testing.assert_array_equal(read.images(), two.images()[::2])
    assert MrcStack(tmp_path / "made.mrcs").pixel_size_angstrom == 2.5
    with pytest.raises(OutputExistsError):
        two.save(tmp_path / "made.star")


def test_what_does_not_fit_is_refused(images: np.ndarray) -> None:
    with pytest.raises(MetadataError, match="6 rows for 5 images"):
        ParticleStack.from_tables(tables(), images[:5])
    with pytest.raises(MetadataError, match=r"\(n, box, box\)"):
        ParticleStack.from_tables(tables(), images[0])
    images[3, 0, 0] = np.nan
    with pytest.raises(MetadataError, match="image 4 "):
        ParticleStack.from_tables(tables(), images)
    with pytest.raises(FileFormatError, match=r"row 1: no stack"):
        ParticleStack.from_tables(tables("gone.mrcs"))
