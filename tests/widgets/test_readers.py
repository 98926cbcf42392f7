"""Opening particles and maps."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from napari.utils.notifications import notification_manager

from napari_cryosphere.errors import CryosphereError, FileFormatError
from napari_cryosphere.particles import DensityMap, ParticleStack
from napari_cryosphere.widgets.plugin import samples as sample_module
from napari_cryosphere.widgets.plugin.readers import get_reader, read_layers
from napari_cryosphere.widgets.state.layer_data import map_of, particles_of
from napari_cryosphere.widgets.state.notices import cause_first


def read(path: Any) -> list[Any]:
    reader = get_reader(path)
    assert reader is not None
    return reader(path)


def test_particles_become_a_lazy_layer(sample: Path) -> None:
    ((data, options, kind),) = read(str(sample / "particles.star"))
    assert kind == "image"
    assert not isinstance(data, np.ndarray)
    assert data.shape == (80, 64, 64)
    assert options["name"] == "particles"
    np.testing.assert_allclose(options["scale"], (1, 3, 3))
    assert options["units"] == ("angstrom",) * 3
    assert isinstance(options["metadata"]["cryosphere"], ParticleStack)
    low, high = options["contrast_limits"]
    assert low < np.median(data[0]) < high
    assert data.frames_made <= 32


def test_particles_of_a_run_are_named_after_its_folder(sample: Path, tmp_path: Path) -> None:
    run = tmp_path / "particles_abinitio"
    ParticleStack.read(sample / "particles.star").save(run / "particles.star")
    assert read(str(run / "particles.star"))[0][1]["name"] == "particles"
    (run / "config.json").write_text("{}")
    assert read(str(run / "particles.star"))[0][1]["name"] == "particles_abinitio"


def test_a_bare_stack_opens_whatever_its_suffix(sample: Path, tmp_path: Path) -> None:
    ((data, _, _),) = read(str(sample / "particles.mrcs"))
    assert data.shape == (80, 64, 64)
    other = tmp_path / "stack.mrc"
    other.write_bytes((sample / "particles.mrcs").read_bytes())
    ((data, options, _),) = read(str(other))
    assert data.shape == (80, 64, 64)
    assert options["name"] == "stack"


def test_a_map_becomes_a_contoured_volume(sample: Path, truth: DensityMap) -> None:
    ((data, options, _),) = read(str(sample / "truth.mrc"))
    np.testing.assert_array_equal(data, truth.voxels)
    assert options["rendering"] == "iso"
    assert options["iso_threshold"] == pytest.approx(truth.voxels.mean() + 2 * truth.voxels.std())
    low, high = options["contrast_limits"]
    assert low <= options["iso_threshold"] < high
    assert options["units"] == ("angstrom",) * 3
    np.testing.assert_allclose(options["scale"], 3)


def test_several_files_at_once(sample: Path) -> None:
    layers = read([str(sample / "particles.star"), sample / "truth.mrc"])
    assert [options["name"] for _, options, _ in layers] == ["particles", "truth"]


def test_what_is_not_ours_is_left_to_others(sample: Path, tmp_path: Path) -> None:
    folder = tmp_path / "odd.star"
    folder.mkdir()
    assert get_reader(str(folder)) is None
    (folder / "notes.txt").write_text("nothing of ours")
    assert get_reader(str(folder)) is None
    assert get_reader(str(sample)) is not None  # a table of particles is in it
    assert get_reader(str(sample / "picture.tif")) is None
    assert get_reader([str(sample / "particles.star"), "picture.tif"]) is None
    assert get_reader([]) is None


def test_without_a_viewer_a_broken_file_raises(tmp_path: Path) -> None:
    broken = tmp_path / "broken.mrc"
    broken.write_bytes(b"not an MRC file")
    with pytest.raises(FileFormatError, match=r"broken\.mrc"):
        read(str(broken))


def test_with_a_viewer_our_line_is_what_is_shown(viewer: Any, tmp_path: Path) -> None:
    broken = tmp_path / "broken.star"
    broken.write_text("no table here\n")
    with pytest.raises(CryosphereError) as expected:
        ParticleStack.read(broken)
    notification_manager.records.clear()
    assert read(str(broken)) == [(None,)]
    (record,) = notification_manager.records
    assert record.message == cause_first(expected.value)
    assert record.message.startswith("broken.star")
    viewer.open(broken, plugin="napari-cryosphere")
    assert len(viewer.layers) == 0


def test_one_broken_file_of_two_does_not_spoil_the_other(
    viewer: Any, sample: Path, tmp_path: Path
) -> None:
    broken = tmp_path / "broken.map"
    broken.write_bytes(b"")
    layers = read([str(broken), str(sample / "truth.mrc")])
    assert [options["name"] for _, options, _ in layers] == ["truth"]


@pytest.mark.parametrize(
    ("message", "shown"),
    [
        ("/a/b/c.star row 3: bad", "c.star row 3: bad"),
        (
            "/a/b/c.star row 3: no stack '/x/y.mrcs'; tried /q/y.mrcs",
            "c.star row 3: no stack 'y.mrcs'; tried y.mrcs",
        ),
        ("1/2 of a/b", "1/2 of a/b"),
    ],
)
def test_messages_lose_their_folders(message: str, shown: str) -> None:
    assert cause_first(message) == shown


def test_importing_the_reader_is_cheap() -> None:
    heavy = {"torch", "e3nn", "healpy", "pandas", "qtpy", "napari"}
    code = "import sys, napari_cryosphere.widgets.plugin.readers; print(*sys.modules)"
    loaded = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True
    ).stdout
    assert not heavy & set(loaded.split())


def test_sample_is_made_once(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    monkeypatch.setattr(sample_module, "_NUMBER", 8)
    particles, truth = sample_module.load_sample()
    assert particles[0].shape == (8, 64, 64)
    assert truth[1]["visible"] is False
    (star,) = tmp_path.rglob("particles.star")
    written = star.stat().st_mtime_ns
    sample_module.load_sample()
    assert star.stat().st_mtime_ns == written


def test_metadata_say_what_a_layer_holds(
    viewer_model: Any, sample: Path, add_particles: Any, add_map: Any
) -> None:
    particles = add_particles(viewer_model, ParticleStack.read(sample / "particles.star"))
    volume = add_map(viewer_model, DensityMap.read(sample / "truth.mrc"))
    other = viewer_model.add_image(np.zeros((4, 4)))
    assert [particles_of(layer) is not None for layer in (particles, volume, other, None)] == [
        True,
        False,
        False,
        False,
    ]
    assert [map_of(layer) is not None for layer in (particles, volume, other, None)] == [
        False,
        True,
        False,
        False,
    ]


def test_half_maps_are_hidden_next_to_a_whole_map(
    viewer_model: Any, truth: DensityMap, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    names = ("run_half1_class001_unfil", "run_half2_class001_unfil", "run_class001")
    files = [tmp_path / f"{name}.mrc" for name in names]
    for file in files:
        truth.save(file)
    monkeypatch.setattr("napari.current_viewer", lambda: viewer_model)
    halves = read_layers([str(file) for file in files[:2]])
    assert [options["visible"] for _, options, _ in halves] == [True, True]
    together = read_layers([str(file) for file in files])
    assert [options["visible"] for _, options, _ in together] == [False, False, True]
