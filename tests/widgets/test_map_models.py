"""Small models of the maps dock: half-maps by name, curves and their files, words."""

from __future__ import annotations

import csv
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from napari.layers import Image

from napari_cryosphere.errors import CryosphereError
from napari_cryosphere.particles import DensityMap
from napari_cryosphere.reconstruction import FourierShellCorrelation
from napari_cryosphere.reconstruction.map_alignment import MapAlignment
from napari_cryosphere.widgets.control.map_controller import alignment_in_words
from napari_cryosphere.widgets.state.fsc_curves import Curve, described, value_at, write_curves
from napari_cryosphere.widgets.state.layer_data import halves_of, is_half, map_layer


def named(name: str, value: float = 0.0) -> Image:
    voxels = np.full((8, 8, 8), value, dtype=np.float32)
    voxels[4, 4, 4] = 1
    data, options, _ = map_layer(DensityMap(voxels, 1.0), name)
    return Image(data, **options)


def curve(
    values: list[float], label: str = "a / b", pixel_size: float = 1.0, **options: Any
) -> Curve:
    fsc = FourierShellCorrelation(np.array(values), 2 * (len(values) - 1), pixel_size)
    return Curve(label, "", fsc, 0.5, **options)


@pytest.mark.parametrize(
    ("names", "asked", "found"),
    [
        (["run_half1_class001_unfil", "run_half2_class001_unfil"], 0, True),
        (["run_half1_class001_unfil", "run_half2_class002_unfil"], 0, False),
        (["J12_map_half_A", "J12_map_half_B"], 1, True),
        (["map, half 1", "map, half 2", "map"], 2, True),
        (["map, half 1", "other, half 2", "map"], 2, False),
        (["half12", "half2"], 1, False),
    ],
)
def test_half_maps_are_found_by_name(names: list[str], asked: int, found: bool) -> None:
    layers = [named(name, float(i)) for i, name in enumerate(names)]
    halves = halves_of(layers[asked], layers)
    assert (halves is not None) == found
    if halves is not None:
        assert [half.voxels[0, 0, 0] for half in halves] == [0, 1]
        assert is_half(layers[0].name)


def test_no_layer_has_no_halves() -> None:
    assert halves_of(None, []) is None


def test_a_curve_is_read_between_its_shells_and_not_beyond() -> None:
    falling = curve([1, 1, 0.5, 0, 0], pixel_size=2.0)
    assert value_at(falling, 2.5 / 16) == pytest.approx(0.25)
    assert value_at(falling, 0.3) is None
    assert described(falling) == "a / b: 8.0 Å at 0.5"
    assert described(curve([1, 1, 1, 1, 0.9])) == "a / b: ≤ 2.0 Å at 0.5"


def test_curves_are_written_one_file_a_grid(tmp_path: Path) -> None:
    one, two = curve([1, 0.5, 0.1]), curve([1, 0.4, 0.0], "half, maps")
    coarse = curve([1, 0.3, 0.2], "coarse", 3.0)
    cone = curve([1, 0.2, 0.1], "cones", band=(one.fsc, two.fsc))
    files = write_curves([one, two, coarse, cone], tmp_path / "fsc.csv")
    assert [file.name for file in files] == ["fsc.csv", "fsc_2.csv"]
    with files[0].open(newline="") as stream:
        rows = list(csv.reader(stream))
    assert rows[0][2:] == ["a / b", "half, maps", "cones", "cones, cone_min", "cones, cone_max"]
    assert [float(cell) for cell in rows[2][1:5]] == [4.0, 0.5, 0.4, 0.2]
    with pytest.raises(CryosphereError, match="already exists"):
        write_curves([one, coarse], tmp_path / "fsc.csv")  # nobody was asked about the second file


def test_a_folder_without_permission_is_one_clear_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*args: Any, **options: Any) -> Any:
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(tempfile, "mkdtemp", refuse)
    with pytest.raises(CryosphereError, match=r"cannot write to .*: Permission denied"):
        write_curves([curve([1, 0.5, 0.1])], tmp_path / "fsc.csv")
    assert list(tmp_path.iterdir()) == []


def test_a_hand_that_noise_decides_is_said_to_be_open() -> None:
    found = MapAlignment(np.eye(3), np.zeros(3), False, 0.81, 0.80)
    assert "not determined" in alignment_in_words(found)
