"""A stack as a value: joining, splitting in halves, and what is said of duplicates."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from numpy.testing import assert_array_equal

from napari_cryosphere.errors import MetadataError
from napari_cryosphere.particles import MrcStack, ParticleStack, write_stack, write_star

NUMBER = 6


@pytest.fixture
def make(tmp_path: Path) -> Any:
    """Return a function that writes ``name/in.star`` with six images of its own, and reads it."""

    def write(name: str, optics: dict[str, Any] | None = None, **columns: Any) -> ParticleStack:
        seed = sum(map(ord, name))
        images = np.random.default_rng(seed).normal(size=(NUMBER, 8, 8)).astype(np.float32)
        write_stack(images, tmp_path / name / "p.mrcs", 2.0, overwrite=True)
        table = {
            "rlnImageName": [f"{i + 1}@p.mrcs" for i in range(NUMBER)],
            "rlnOpticsGroup": 1,
            "rlnRandomSubset": [1, 1, 1, 2, 2, 2],
            **columns,
        }
        groups = {
            "rlnOpticsGroupName": ["opticsGroup1"],
            "rlnOpticsGroup": [1],
            "rlnVoltage": [300.0],
            "rlnImagePixelSize": [2.0],
            **(optics or {}),
        }
        particles = pd.DataFrame({key: value for key, value in table.items() if value is not None})
        path = tmp_path / name / "in.star"
        write_star({"optics": pd.DataFrame(groups), "particles": particles}, path, overwrite=True)
        return ParticleStack.read(path)

    return write


@pytest.fixture
def no_reading(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: Any) -> None:
        raise AssertionError("pixels were read")

    monkeypatch.setattr(MrcStack, "read", refuse)


@pytest.mark.usefixtures("no_reading")
def test_no_verb_touches_pixels(make: Any) -> None:
    stack = ParticleStack.join([make("a"), make("b")])
    first, second = stack[1:][np.arange(11) % 2 == 0].halves()
    assert len(first) + len(second) == 6


def test_joined_images_come_from_their_own_stacks(make: Any, tmp_path: Path) -> None:
    a, b = make("a"), make("b")
    joined = ParticleStack.join([a, b[::-1]])
    assert_array_equal(joined.images(), np.concatenate([a.images(), b.images()[::-1]]))
    assert_array_equal(joined.half_sets(), [1, 1, 1, 2, 2, 2, 2, 2, 2, 1, 1, 1])
    assert len(joined.optics) == 1
    assert joined.warnings == ()
    joined.save(tmp_path / "joined.star")
    again = ParticleStack.read(tmp_path / "joined.star")
    assert_array_equal(again.images(), joined.images())
    assert again.image_names()[0] == "000001@a/p.mrcs"
    assert again.image_names()[-1] == "000001@b/p.mrcs"


def test_cutting_and_joining_gives_the_same_stack(make: Any, tmp_path: Path) -> None:
    stack = make("a")
    stack.save(tmp_path / "a" / "one.star")
    ParticleStack.join([stack[:2], stack[2:]]).save(tmp_path / "a" / "two.star")
    assert (tmp_path / "a" / "one.star").read_bytes() == (tmp_path / "a" / "two.star").read_bytes()


def test_different_groups_keep_their_values_under_names_of_their_own(
    make: Any, tmp_path: Path
) -> None:
    a, b = make("a"), make("b", {"rlnVoltage": [200.0], "rlnImagePixelSize": [4.0]})
    joined = ParticleStack.join([b, a, b])
    assert joined.optics["rlnOpticsGroupName"].tolist() == ["opticsGroup1", "opticsGroup1_2"]
    assert joined.particles["rlnOpticsGroup"].tolist() == [1] * 6 + [2] * 6 + [1] * 6
    assert (joined.box, joined.pixel_size_angstrom) == (16, 2.0)
    assert joined.images().shape == (18, 16, 16)
    joined.save(tmp_path / "joined.star")
    assert ParticleStack.read(tmp_path / "joined.star").optics.equals(joined.optics)


def test_columns_that_not_all_have_are_left_out_and_named(make: Any) -> None:
    joined = ParticleStack.join([make("a", rlnFoo=1), make("b", {"rlnBar": [2]})])
    assert "rlnFoo" not in joined.particles
    assert "rlnBar" not in joined.optics
    assert "rlnBar, rlnFoo, which" in joined.warnings[0]


def test_half_sets_survive_a_join_with_a_stack_without(make: Any) -> None:
    joined = ParticleStack.join([make("a"), make("b", rlnRandomSubset=None)])
    assert joined.particles["rlnRandomSubset"].tolist() == [1, 1, 1, 2, 2, 2, 1, 2, 1, 2, 1, 2]
    assert ["rlnRandomSubset" in line for line in joined.warnings] == []


def test_two_halves_join_without_a_warning_of_one_half(make: Any) -> None:
    first, second = make("a", rlnRandomSubset=1), make("b", rlnRandomSubset=2)
    assert "half set 1" in first.warnings[0]
    assert ParticleStack.join([first, second]).warnings == ()


def test_an_image_in_both_halves_is_found_across_files(make: Any, tmp_path: Path) -> None:
    stack = make("a")
    swapped = stack.with_columns({"rlnRandomSubset": 3 - stack.half_sets()})
    swapped.save(tmp_path / "other.star")
    joined = ParticleStack.join([stack, ParticleStack.read(tmp_path / "other.star")])
    assert "6 rows with the image of an earlier row" in joined.warnings[0]
    assert "some are in both half sets" in joined.warnings[0]
    assert stack.warnings == ()


def test_a_missing_split_is_made_the_same_every_time(make: Any, tmp_path: Path) -> None:
    stack = make("a", rlnRandomSubset=None)
    assert_array_equal(stack.half_sets(), [1, 2, 1, 2, 1, 2])
    assert "split in turn" in stack.warnings[0]
    assert stack.summary()["half_sets"] == {"1": 3, "2": 3}
    assert_array_equal(stack[::-2].half_sets(), [2, 2, 2])
    first, second = stack.halves()
    first.save(tmp_path / "first.star")
    assert_array_equal(ParticleStack.read(tmp_path / "first.star").half_sets(), [1, 1, 1])
    assert_array_equal(second.images(), stack.images()[1::2])
    assert stack.with_half_sets().warnings == ()


def test_a_made_split_keeps_duplicates_in_one_half(make: Any) -> None:
    names = [f"{i}@p.mrcs" for i in (1, 1, 2, 3, 2, 4)]
    stack = make("a", rlnRandomSubset=None, rlnImageName=names)
    assert_array_equal(stack.half_sets(), [1, 1, 2, 1, 2, 2])
    assert any("2 rows with the image of an earlier row" in line for line in stack.warnings)
    assert not any("both" in line for line in stack.warnings)


def test_errors_name_the_row_of_the_file_they_come_from(make: Any, tmp_path: Path) -> None:
    joined = ParticleStack.join([make("a"), make("b")])
    images = MrcStack(tmp_path / "b" / "p.mrcs").read()
    images[4, 0, 0] = np.nan
    data = (tmp_path / "b" / "p.mrcs").read_bytes()[:1024] + images.tobytes()
    (tmp_path / "b" / "p.mrcs").write_bytes(data)
    with pytest.raises(
        MetadataError.__mro__[1], match=r"b/in.star: particles row 5: .*b/p.mrcs .* image 5"
    ):
        joined.images()


def test_what_cannot_be_joined(make: Any) -> None:
    with pytest.raises(MetadataError, match="no stacks to join"):
        ParticleStack.join([])
    with_size, without = make("a"), make("b")
    without.optics = without.optics.drop(columns="rlnImagePixelSize")
    with pytest.raises(MetadataError, match=r"b/in.star: no rlnImagePixelSize in data_optics"):
        ParticleStack.join([with_size, without])
