"""Maps and masks as jobs open them: headers against particles, masks, senseless files."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from napari_cryosphere.errors import MetadataError
from napari_cryosphere.imaging.phantom import protein_phantom
from napari_cryosphere.imaging.resample import map_on_grid
from napari_cryosphere.jobs.configs import FscConfig
from napari_cryosphere.jobs.configs.bases import MapsInput, MaskedMapInput
from napari_cryosphere.jobs.events import Note, Result
from napari_cryosphere.jobs.fsc import fsc
from napari_cryosphere.jobs.running.references import open_map, open_mask, open_reference
from napari_cryosphere.particles import DensityMap, ImageGrid

GRID = ImageGrid(48, 3.0)


@pytest.fixture(scope="module")
def reports(shared_data: Path) -> Path:
    return shared_data / "reports"


def opened(path: Path, **settings: object) -> tuple[DensityMap, list[Note]]:
    return open_reference(MaskedMapInput(map=path, **settings), path, GRID)[:2]


def test_a_header_of_1_A_is_refused_with_both_sizes_and_a_remedy(reports: Path) -> None:
    path = reports / "map_header_1A.mrc"
    with pytest.raises(MetadataError, match=r"says 1 A .* have 3 A .*--map-pixel-size 3"):
        opened(path)
    density, notes = opened(path, map_pixel_size_angstrom=3)
    right, _ = opened(reports / "map.mrc")
    np.testing.assert_array_equal(density.voxels, right.voxels)
    assert not any(note.warning for note in notes)


def test_a_small_difference_is_said_and_honoured_exactly(reports: Path) -> None:
    density, notes = opened(reports / "map_header_3.05A.mrc")
    assert ["says 3.05 A" in note.text for note in notes if note.warning] == [True]
    # a Gaussian of 3.05 A voxels on a grid of 3 A, by its formula
    axis = np.arange(48) - 24
    line = np.exp(-((axis * 3.05) ** 2) / 2 / 20**2)
    blob = DensityMap(line[:, None, None] * line[:, None] * line, density.pixel_size_angstrom)
    exact = np.exp(-((axis * 3.0) ** 2) / 2 / 20**2)
    found = map_on_grid(blob, 48, 3.0).numpy()
    np.testing.assert_allclose(found, exact[:, None, None] * exact[:, None] * exact, atol=3e-3)
    np.testing.assert_allclose(found[24, 24], exact, atol=3e-4)


@pytest.mark.parametrize("factor", [0.5, 0.9, 0.96, 1.04, 1.1, 1.5])
@pytest.mark.parametrize("box", [48, 64])
def test_wrong_headers_never_pass_without_a_word(factor: float, box: int, tmp_path: Path) -> None:
    density = protein_phantom(box, 3.0)
    DensityMap(density.voxels, 3.0 * factor).save(tmp_path / "m.mrc")
    if box == 48:
        with pytest.raises(MetadataError, match="--map-pixel-size"):
            opened(tmp_path / "m.mrc")
    else:
        assert any(note.warning for note in opened(tmp_path / "m.mrc")[1])


def test_masks_of_a_wrong_header_are_said_and_senseless_ones_refused(
    reports: Path, tmp_path: Path
) -> None:
    _, notes = opened(reports / "map.mrc", mask=reports / "mask_header_1A.mrc")
    assert any("says 1 A a voxel" in note.text and note.warning for note in notes)
    with pytest.raises(MetadataError, match="from 0 to 0"):
        open_mask(reports / "mask_zero.mrc", GRID, "the map")
    DensityMap(np.full((48,) * 3, 2.0), 3.0).save(tmp_path / "two.mrc")
    with pytest.raises(MetadataError, match="from 0 \\(outside\\) to 1"):
        open_mask(tmp_path / "two.mrc", GRID, "the map")
    lonely = np.zeros((48,) * 3, np.float32)
    lonely[24, 24, 24] = 1
    DensityMap(lonely, 3.0).save(tmp_path / "voxel.mrc")
    with pytest.raises(MetadataError, match="holds 1 voxels above"):
        open_mask(tmp_path / "voxel.mrc", GRID, "the map")
    lonely[20:29, 20:29, 20:29] = 1
    DensityMap(lonely, 2.0).save(tmp_path / "finer.mrc")
    with pytest.raises(MetadataError, match=r"says 2 A a voxel, the map 3 A.*--map-pixel-size 3"):
        open_mask(tmp_path / "finer.mrc", GRID, "the map")
    with pytest.raises(MetadataError, match="box of 48, the map one of 24"):
        open_mask(reports / "mask_header_1A.mrc", ImageGrid(24, 3.0), "the map")


def test_a_constant_map_is_refused(reports: Path) -> None:
    with pytest.raises(MetadataError, match="5 everywhere"):
        open_map(MapsInput(), reports / "map_constant.mrc")


def test_mask_settings(reports: Path) -> None:
    path = reports / "map.mrc"
    whole, _ = opened(path, mask="none")
    inside, notes = opened(path)
    assert "soft mask made from it" in notes[0].text
    sphere, _ = opened(path, mask_radius_angstrom=20)
    power = [float((one.voxels**2).sum()) for one in (sphere, inside, whole)]
    assert power[0] < 0.9 * power[1]
    assert 0.999 * power[2] < power[1] <= power[2]  # there is no noise in it
    distance = np.sqrt(sum(axis**2 for axis in np.mgrid[:48, :48, :48] - 24)) * 3
    assert not sphere.voxels[distance > 33].any()


def test_fsc_brings_maps_to_one_grid(tmp_path: Path) -> None:
    truth = protein_phantom(48, 3.0)
    truth.save(tmp_path / "a.mrc")
    other = DensityMap(map_on_grid(truth, 64, 2.5).numpy(), 2.5)
    other.save(tmp_path / "b.mrc")
    config = FscConfig(
        first=tmp_path / "a.mrc", second=tmp_path / "b.mrc", output=tmp_path / "f.csv"
    )
    events = list(fsc(config))
    assert any(isinstance(event, Note) and "is resampled" in event.text for event in events)
    result = events[-1]
    assert isinstance(result, Result)
    assert float(result.metrics["correlation"]) > 0.999
