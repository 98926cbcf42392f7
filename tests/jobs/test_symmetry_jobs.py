"""The jobs ``symmetry`` and ``flip-hand``."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

import numpy as np
import pytest

from napari_cryosphere.errors import MetadataError
from napari_cryosphere.imaging.phantom import protein_phantom
from napari_cryosphere.jobs.configs import ReconstructConfig, SimulateConfig
from napari_cryosphere.jobs.configs.map_tools import FlipHandConfig, MapSymmetryConfig
from napari_cryosphere.jobs.events import Event, Events, Note, Result, follow
from napari_cryosphere.jobs.map_tools import flip_hand, mirrored_poses, symmetry
from napari_cryosphere.jobs.reconstruct import reconstruct
from napari_cryosphere.jobs.simulate import simulate
from napari_cryosphere.particles import DensityMap
from napari_cryosphere.reconstruction import masked_correlation
from napari_cryosphere.so3.symmetry import point_group


def run(events: Events) -> tuple[Result, list[str]]:
    seen: list[Event] = []
    result = follow(events, seen.append)
    return result, [event.text for event in seen if isinstance(event, Note)]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a folder with particles and the map and half-maps that they make."""
    made = tmp_path_factory.mktemp("hand")
    protein_phantom(32, 6.0).save(made / "phantom.mrc")
    run(
        simulate(
            SimulateConfig(map=made / "phantom.mrc", output=made / "p.star", number=300, snr=5)
        )
    )
    run(
        reconstruct(
            ReconstructConfig(particles=made / "p.star", output=made / "map.mrc", half_maps=True)
        )
    )
    return made


def test_map_halves_and_poses_flip_together(folder: Path) -> None:
    config = FlipHandConfig(
        map=folder / "map.mrc", output=folder / "flipped.mrc", particles=folder / "p.star"
    )
    result, notes = run(flip_hand(config))
    assert sorted(path.name for path in result.outputs.values()) == [
        "flipped.mrc",
        "flipped.star",
        "flipped_half1.mrc",
        "flipped_half2.mrc",
    ]
    assert any("both hands alike" in note for note in notes)
    # what the turned poses make of the same images is the mirrored map
    again = ReconstructConfig(
        particles=folder / "flipped.star", output=folder / "again.mrc", half_maps=True
    )
    run(reconstruct(again))
    for name in ("", "_half1", "_half2"):
        mirrored = DensityMap.read(folder / f"flipped{name}.mrc").voxels
        made = DensityMap.read(folder / f"again{name}.mrc").voxels
        assert masked_correlation(made, mirrored) > 0.995
        assert masked_correlation(made, DensityMap.read(folder / f"map{name}.mrc").voxels) < 0.95


@pytest.mark.skipif(shutil.which("relion_image_handler") is None, reason="no RELION here")
def test_the_mirror_is_relions(folder: Path) -> None:
    run(flip_hand(FlipHandConfig(map=folder / "map.mrc", output=folder / "ours.mrc")))
    command = ["relion_image_handler", "--i", "map.mrc", "--o", "theirs.mrc", "--invert_hand"]
    subprocess.run(command, check=True, cwd=folder, stdout=subprocess.DEVNULL)
    ours, theirs = (DensityMap.read(folder / f"{name}.mrc").voxels for name in ("ours", "theirs"))
    np.testing.assert_array_equal(ours, theirs)


@pytest.mark.parametrize(
    ("group", "mirrored"), [("D3", "D3"), ("T", "T"), ("O", "O"), ("I1", "I1"), ("I3", "I4")]
)
def test_mirrored_axes_are_those_of_the_group_that_is_said(group: str, mirrored: str) -> None:
    across = np.diag([-1.0, 1.0, 1.0])
    for operator in across @ point_group(group) @ across:
        assert np.abs(point_group(mirrored) - operator).max((1, 2)).min() < 1e-6


def test_mirrored_twice_is_the_pose_itself() -> None:
    poses = point_group("O")
    twice = mirrored_poses(mirrored_poses(poses, np.zeros((24, 2)))[0], np.zeros((24, 2)))[0]
    np.testing.assert_allclose(twice, poses, atol=1e-12)
    assert (np.linalg.det(mirrored_poses(poses, np.zeros((24, 2)))[0]) > 0).all()


def test_an_asymmetric_map_has_no_axes_to_lay(folder: Path) -> None:
    told, notes = run(symmetry(MapSymmetryConfig(map=folder / "phantom.mrc", symmetry="D2")))
    assert told.metrics["symmetry"] == "C1"
    assert any("no symmetry D2" in note for note in notes)
    config = MapSymmetryConfig(
        map=folder / "phantom.mrc", symmetry="D2", output=folder / "laid.mrc"
    )
    with pytest.raises(MetadataError, match="no axes to lay"):
        run(symmetry(config))
    assert not (folder / "laid.mrc").exists()
