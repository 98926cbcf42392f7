"""Models whose equivariance is known: the measure must say so, frame by frame and to the sign of an
angle.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from scipy.spatial.transform import Rotation

from napari_cryosphere.evaluation.equivariance import VolumeErrors, in_plane_errors, volume_errors
from napari_cryosphere.evaluation.equivariance_report import EquivarianceTest, equivariance_report
from napari_cryosphere.evaluation.views import MapViews
from napari_cryosphere.imaging.phantom import protein_phantom
from napari_cryosphere.imaging.projection import Projector
from napari_cryosphere.particles import ImageGrid
from napari_cryosphere.so3.distributions import PoseDistribution
from napari_cryosphere.so3.rotations import (
    geodesic_distance_degrees,
    random_rotations,
    rotation_from_vector,
)

BOX = 16
GRID = ImageGrid(BOX, 192 / BOX)


def written(poses: NDArray[np.float64]) -> torch.Tensor:
    """Images that say their pose: what a perfect pose estimator would read in them."""
    images = torch.zeros(len(poses), BOX, BOX, dtype=torch.float64)
    images[:, 4:7, 4:7] = torch.from_numpy(poses)
    return images


@dataclass
class Reader:
    """Reads the pose and answers with three peaks: offsets in the image's frame, in the map's, or
    fixed.
    """

    offsets_in: str
    symmetry: str = "C1"

    def predict(self, images: torch.Tensor) -> PoseDistribution:
        poses = images[:, 4:7, 4:7].numpy()
        offsets = rotation_from_vector(np.array([[0.0, 0, 0], [0.9, 0.2, 0], [0, 0.3, 1.4]]))
        sides = {
            "camera": offsets @ poses[:, None],  # p(X) = F(X Q^-1)
            "map": poses[:, None] @ offsets,  # p(X) = F(Q^-1 X)
            "nothing": np.broadcast_to(offsets, (len(poses), 3, 3, 3)),
        }
        weights = np.log(np.broadcast_to([0.5, 0.3, 0.2], (len(poses), 3)))
        return PoseDistribution.from_poses(sides[self.offsets_in], weights, 20.0, self.symmetry)


def errors_of(model: Reader) -> dict[str, VolumeErrors]:
    poses, turns = (random_rotations(4, np.random.default_rng(seed)) for seed in (0, 1))
    return {errors.frame: errors for errors in volume_errors(model, written, poses, turns, order=1)}


@pytest.mark.parametrize(("frame", "other"), [("camera", "map"), ("map", "camera")])
def test_exactly_equivariant_model_has_no_error_in_its_frame(frame: str, other: str) -> None:
    errors = errors_of(Reader(frame))
    # as exact as the normalisation
    assert errors[frame].matched.max() < 1e-5 * errors[frame].shuffled.max()
    assert errors[other].ratio > 0.05  # the best peak moves rightly, the shape does not


def test_model_that_ignores_the_volume_is_no_better_than_shuffled() -> None:
    for errors in errors_of(Reader("nothing")).values():
        assert errors.matched.min() > 0.01
        assert 0.5 < errors.ratio < 2


def test_symmetric_model_is_tested_in_the_cameras_frame_alone() -> None:
    errors = errors_of(Reader("camera", "D2"))
    assert list(errors) == ["camera"]
    assert errors["camera"].ratio < 1e-5


def test_one_pair_cannot_be_shuffled() -> None:
    pose = random_rotations(1, np.random.default_rng(0))
    with pytest.raises(ValueError, match="at least two"):
        volume_errors(Reader("map"), written, pose, pose)


@dataclass
class Matcher:
    """Finds the in-plane angle of one view by comparing with its projections, one every three
    degrees.
    """

    view: NDArray[np.float64]
    sign: int = 1

    def __post_init__(self) -> None:
        self.degrees = np.arange(0, 360, 3)
        projector = Projector(protein_phantom(BOX, 12.0).voxels, 3)
        self.gallery = projector.project(self._poses(1)).flatten(1)

    def _poses(self, sign: int) -> NDArray[np.float64]:
        return (
            self.view
            @ Rotation.from_euler("z", sign * self.degrees[:, None], degrees=True).as_matrix()
        )

    def predict(self, images: torch.Tensor) -> PoseDistribution:
        best = (images.flatten(1) @ self.gallery.T).argmax(1).numpy()
        poses = self._poses(self.sign)[best][:, None]
        return PoseDistribution.from_poses(poses, np.zeros((len(images), 1)), 5.0)


def test_in_plane_angle_has_the_sign_of_a_reprojection() -> None:
    """Images are turned as pixels, the answers come from projections at turned poses: both must
    agree.
    """
    view = random_rotations(1, np.random.default_rng(4))[0]
    images = Projector(protein_phantom(BOX, 12.0).voxels, 3).project(view[None])
    angles = np.array([0.0, 45.0, 100.0, 201.0, 300.0])
    right = in_plane_errors(Matcher(view), images, angles)
    assert right.degrees.shape == (1, 5)
    assert right.degrees.max() < 3
    assert geodesic_distance_degrees(right.poses, view).max() < 3
    wrong = in_plane_errors(Matcher(view, sign=-1), images, angles)
    assert wrong.degrees[0, 0] < 3
    assert wrong.degrees[0, 1] == pytest.approx(90, abs=6)  # twice the angle


def test_views_have_the_signal_to_noise_ratio_asked_for() -> None:
    poses = random_rotations(100, np.random.default_rng(3))
    rng = np.random.default_rng(0)
    clean = MapViews(protein_phantom(), GRID)
    noisy = MapViews(protein_phantom(), GRID, snr=0.5)
    signal = clean.images(poses, rng)
    inside = clean.mask > 0.5
    assert float(signal[:, inside].var(1).mean()) == pytest.approx(1, rel=0.05)
    noise = noisy.unmasked(poses, rng) - clean.unmasked(poses, rng) * 0.5**0.5
    assert float(noise.std()) == pytest.approx(1, abs=0.03)


def test_report_names_models_and_frames() -> None:
    views = MapViews(protein_phantom(), GRID)

    class Blind:
        def predict(self, images: torch.Tensor) -> PoseDistribution:
            eye = np.broadcast_to(np.eye(3), (len(images), 1, 3, 3))
            return PoseDistribution.from_poses(eye, np.zeros((len(images), 1)), 30.0)

    steps = equivariance_report(
        {"blind": Blind()}, views, EquivarianceTest(3, 2, 2, 0), "a phantom"
    )
    fractions = []
    try:
        while True:
            fractions.append(next(steps))
    except StopIteration as end:
        report = end.value
    assert fractions == sorted(fractions)
    volume, in_plane = report.tables.values()
    assert [row[:3] for row in volume.rows] == [
        ("blind", frame, rotations)
        for frame in ("camera", "map")
        for rotations in ("own", "shuffled")
    ]
    for row in volume.rows:
        assert row[4] <= row[3] <= row[5]
    assert in_plane.rows[0][3] > 10  # it answers the same however the image is turned
    assert "a phantom" in report.text
