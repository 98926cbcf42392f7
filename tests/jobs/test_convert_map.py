"""Maps converted to other boxes, pixel sizes, contrasts and places, against the formula of a Gaussian."""

from __future__ import annotations

import bz2
import gzip
from pathlib import Path
from typing import Any

import mrcfile
import numpy as np
import pytest
from pydantic import ValidationError

from napari_cryosphere.errors import CryosphereError, FileFormatError
from napari_cryosphere.jobs.configs import ConvertConfig
from napari_cryosphere.jobs.convert import convert
from napari_cryosphere.jobs.info import describe
from napari_cryosphere.jobs.running import memory
from napari_cryosphere.particles import DensityMap


def blob(
    shape: tuple[int, int, int], size: float, centre: tuple[float, float, float] = (0, 0, 0)
) -> np.ndarray:
    """Return a Gaussian of 8 A about voxel n // 2 plus a displacement in A along z, y, x."""
    lines = [
        np.exp(-(((np.arange(n) - n // 2) * size - c) ** 2) / 2 / 8.0**2)
        for n, c in zip(shape, centre, strict=True)
    ]
    return np.asarray(np.einsum("z,y,x->zyx", *lines), dtype=np.float32)


def written(voxels: np.ndarray, size: float, path: Path) -> Path:
    with mrcfile.new(path) as file:
        file.set_data(voxels)
        file.voxel_size = size
    return path


def converted(source: Path, **settings: Any) -> DensityMap:
    output = source.with_name("out.mrc")
    config = ConvertConfig(particles=source, output=output, overwrite=True, **settings)
    list(convert(config))
    return DensityMap.read(output)


def test_odd_and_unequal_boxes_are_padded_to_an_even_cube(tmp_path: Path) -> None:
    source = written(blob((33, 40, 27), 3.0), 3.0, tmp_path / "odd.mrc")
    made = converted(source)
    assert (made.box, made.pixel_size_angstrom) == (40, 3.0)
    np.testing.assert_allclose(made.voxels, blob((40,) * 3, 3.0), atol=1e-4)


@pytest.mark.parametrize(
    ("settings", "box", "size"),
    [
        ({"box": 24}, 24, 3.0),
        ({"box": 64}, 64, 3.0),
        ({"pixel_size_angstrom": 2.5}, 48, 2.5),
        ({"pixel_size_angstrom": 4.1, "box": 32}, 32, 4.1),
        ({"map_pixel_size_angstrom": 3.0}, 40, 3.0),
    ],
)
def test_box_and_pixel_size(
    settings: dict[str, Any], box: int, size: float, tmp_path: Path
) -> None:
    header = 1.0 if "map_pixel_size_angstrom" in settings else 3.0
    source = written(blob((40,) * 3, 3.0), header, tmp_path / "m.map")
    made = converted(source, **settings)
    assert (made.box, made.pixel_size_angstrom) == (box, pytest.approx(size))
    np.testing.assert_allclose(made.voxels, blob((box,) * 3, size), atol=2e-4)


def test_contrast_place_and_mask(tmp_path: Path) -> None:
    source = written(1 - blob((40,) * 3, 3.0, (6.5, -9.0, 4.0)), 3.0, tmp_path / "m.ccp4")
    made = converted(source, invert=True, recentre=True)
    np.testing.assert_allclose(made.voxels - 1, blob((40,) * 3, 3.0), atol=0.01)
    masked = converted(source, invert=True, recentre=True, mask="auto")
    assert masked.voxels[20, 20, 20] == pytest.approx(2, abs=0.01)
    assert not masked.voxels[0].any()


def test_a_low_pass_filter_halves_a_wave_at_its_resolution(tmp_path: Path) -> None:
    x = np.arange(40)
    waves = [np.cos(2 * np.pi * x * k / 40) for k in (3, 8, 14)]  # 40, 15 and 8.6 A
    voxels = np.broadcast_to(sum(waves), (40, 40, 40)).astype(np.float32)
    made = converted(written(voxels, 3.0, tmp_path / "m.mrc"), low_pass_angstrom=15.0)
    power = np.abs(np.fft.rfft(made.voxels[0, 0])) / 20
    np.testing.assert_allclose(power[[3, 8, 14]], [1, 0.5, 0], atol=1e-3)


@pytest.mark.parametrize(("suffix", "pack"), [(".gz", gzip.compress), (".bz2", bz2.compress)])
def test_packed_ccp4_files(suffix: str, pack: Any, tmp_path: Path) -> None:
    plain = written(blob((24,) * 3, 3.0), 3.0, tmp_path / "m.ccp4")
    packed = tmp_path / f"m.ccp4{suffix}"
    packed.write_bytes(pack(plain.read_bytes()))
    assert describe(packed)["kind"] == "map"
    np.testing.assert_array_equal(converted(packed).voxels, blob((24,) * 3, 3.0))


@pytest.mark.parametrize(
    ("source", "output", "settings", "message"),
    [
        ("m.mrc", "m.png", {}, "must end with"),
        ("p.star", "m.mrc", {}, "p.star is no map"),
        ("p.star", "p.cs", {"box": 32}, "box is for maps"),
    ],
)
def test_senseless_requests(
    source: str, output: str, settings: dict[str, Any], message: str
) -> None:
    with pytest.raises(ValidationError, match=message):
        ConvertConfig(particles=Path(source), output=Path(output), **settings)


@pytest.mark.parametrize("shape", [(1, 40, 44), (12, 16, 16)])
def test_images_are_no_map(tmp_path: Path, shape: tuple[int, ...]) -> None:
    with mrcfile.new(tmp_path / "images.mrc") as mrc:
        mrc.set_data(np.zeros(shape, np.float32))
        mrc.set_image_stack()
        mrc.voxel_size = 3.0
    config = ConvertConfig(particles=tmp_path / "images.mrc", output=tmp_path / "map.mrc")
    with pytest.raises(
        FileFormatError, match=f"is no map: .* {shape[0]} of {shape[2]} x {shape[1]}"
    ):
        list(convert(config))


def test_a_box_beyond_the_memory_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    written(blob((16,) * 3, 12.0), 12.0, tmp_path / "a.mrc")
    monkeypatch.setattr(memory, "_machine_gigabytes", lambda: 1.0)
    config = ConvertConfig(particles=tmp_path / "a.mrc", output=tmp_path / "b.mrc", box=512)
    with pytest.raises(
        CryosphereError, match=r"a box of 512 .* 2.3 GB, over the memory of this mach"
    ):
        list(convert(config))
