"""Where the stacks of a table are found: the project's folder, --data-dir, other ways to write a
path.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from napari_cryosphere.errors import CryosphereError
from napari_cryosphere.particles import ParticleStack, write_stack


def star(folder: Path, *names: str) -> Path:
    """Write a table with these image names."""
    rows = "".join(f"{name} 2.0\n" for name in names)
    path = folder / "in.star"
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(f"data_particles\nloop_\n_rlnImageName\n_rlnImagePixelSize\n{rows}")
    return path


def stack(path: Path, value: float) -> None:
    write_stack(np.full((2, 4, 4), value), path, 2.0)


@pytest.mark.parametrize(
    "where", ["Extract/job1/Movies/a.mrcs", "job1/Movies/a.mrcs", "Movies/a.mrcs", "a.mrcs"]
)
def test_images_of_a_project_that_moved(where: str, tmp_path: Path) -> None:
    stack(tmp_path / "new" / where, 1.0)
    path = star(tmp_path / "old", "1@Extract/job1/Movies/a.mrcs")
    with pytest.raises(CryosphereError, match=r"row 1: no stack .*--data-dir"):
        ParticleStack.read(path)
    assert ParticleStack.read(path, tmp_path / "new").images().max() == 1.0


def test_the_folder_that_is_given_comes_first(tmp_path: Path) -> None:
    stack(tmp_path / "here" / "a.mrcs", 1.0)
    stack(tmp_path / "given" / "a.mrcs", 2.0)
    stack(tmp_path / "given" / "b.mrcs", 3.0)
    stack(tmp_path / "here" / "sub" / "b.mrcs", 4.0)
    path = star(tmp_path / "here", "1@a.mrcs", "1@sub/b.mrcs")
    assert ParticleStack.read(path).images()[:, 0, 0].tolist() == [1.0, 4.0]
    # The whole name is looked for everywhere before a part of it is.
    assert ParticleStack.read(path, tmp_path / "given").images()[:, 0, 0].tolist() == [2.0, 4.0]


def test_two_stacks_never_become_one(tmp_path: Path) -> None:
    stack(tmp_path / "given" / "a.mrcs", 1.0)
    path = star(tmp_path / "here", "1@first/a.mrcs", "2@second/a.mrcs")
    with pytest.raises(
        CryosphereError, match=r'row 2: "second/a.mrcs" and "first/a.mrcs" are both'
    ):
        ParticleStack.read(path, tmp_path / "given")


def test_ways_to_write_a_name(tmp_path: Path) -> None:
    stack(tmp_path / "sub" / "A.MRCS", 1.0)
    (tmp_path / "sub" / "link.mrcs").symlink_to("A.MRCS")
    names = ("1@sub/A.MRCS", "2@./sub/A.MRCS", "1@sub\\A.MRCS", "02@sub/link.mrcs", "sub/A.MRCS")
    read = ParticleStack.read(star(tmp_path, *names, f"1@{tmp_path}/sub/A.MRCS"))
    assert (read.images() == 1.0).all()


@pytest.mark.parametrize("name", ["1@" + "x" * 5000, "1@a\u00e9" * 300])
def test_names_that_no_file_can_have(name: str, tmp_path: Path) -> None:
    with pytest.raises(CryosphereError, match="row 1: no stack") as caught:
        ParticleStack.read(star(tmp_path, name), tmp_path)
    assert "\n" not in str(caught.value)
