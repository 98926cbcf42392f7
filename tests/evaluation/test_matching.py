"""Predictions are paired with the truth whatever their order and folder; what does not fit is
named.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from napari_cryosphere.errors import MetadataError
from napari_cryosphere.evaluation.matching import matched_halves
from napari_cryosphere.jobs.configs.evaluation import EvaluateConfig
from napari_cryosphere.jobs.evaluate import evaluate
from napari_cryosphere.jobs.events import Note
from napari_cryosphere.particles import ParticleStack, write_star

OPTICS = pd.DataFrame({"rlnOpticsGroup": [1], "rlnImagePixelSize": [2.0], "rlnImageSize": [16]})


def stack(
    folder: Path, name: str, images: list[str], halves: list[int] | None = None
) -> ParticleStack:
    """Write and read a table whose first angle is the number of the image."""
    rot = [float(image.split("@")[0]) for image in images]
    columns = {"rlnImageName": images, "rlnOpticsGroup": 1, "rlnAngleRot": rot}
    table = pd.DataFrame(columns | {"rlnAngleTilt": 0.0, "rlnAnglePsi": 0.0})
    if halves is not None:
        table["rlnRandomSubset"] = halves
    path = folder / name
    write_star({"optics": OPTICS, "particles": table}, path)
    return ParticleStack.read(path, require_images=False)


def names(numbers: list[int], path: str) -> list[str]:
    return [f"{number:06d}@{path}" for number in numbers]


def test_rows_in_any_order_and_folder(tmp_path: Path) -> None:
    truth = stack(tmp_path, "t.star", names([1, 2, 3, 4], "a.mrcs"), [1, 2, 1, 2])
    found = stack(tmp_path, "p.star", names([4, 2, 1, 3], "../elsewhere/a.mrcs"))
    first, second = matched_halves([truth], [found])
    assert list(first.truth.particles["rlnAngleRot"]) == [1, 3]
    assert list(first.predicted.particles["rlnAngleRot"]) == [1, 3]
    assert list(second.predicted.particles["rlnAngleRot"]) == [2, 4]


def test_stacks_of_one_name_in_two_folders_are_told_apart(tmp_path: Path) -> None:
    images = names([1, 2], "one/a.mrcs") + names([1, 2], "two/a.mrcs")
    truth = stack(tmp_path, "t.star", images, [1, 1, 2, 2])
    found = stack(
        tmp_path, "p.star", names([2, 1], "/x/two/a.mrcs") + names([1, 2], "/x/one/a.mrcs")
    )
    _, second = matched_halves([truth], [found])
    assert list(second.predicted.image_names()) == names([1, 2], "/x/two/a.mrcs")


def test_two_files_are_the_two_halves(tmp_path: Path) -> None:
    zero = stack(tmp_path, "t0.star", names([1, 2], "p.mrcs"))
    one = stack(tmp_path, "t1.star", names([3, 4], "p.mrcs"))
    whole = stack(tmp_path, "t.star", names([1, 2, 3, 4], "p.mrcs"))
    found = [
        stack(tmp_path, f"p{half}.star", names(rows, "p.mrcs"))
        for half, rows in enumerate(([2, 1], [3, 4]))
    ]
    both = stack(tmp_path, "p.star", names([4, 3, 2, 1], "p.mrcs"))
    for truth, predicted in (([zero, one], found), ([whole], found), ([zero, one], [both])):
        halves = matched_halves(truth, predicted)
        for half, rows in zip(halves, ([1, 2], [3, 4]), strict=True):
            assert list(half.truth.particles["rlnAngleRot"]) == rows
            assert list(half.predicted.particles["rlnAngleRot"]) == rows


def test_all_in_one_half_is_one_half(tmp_path: Path) -> None:
    truth = stack(tmp_path, "t.star", names([1, 2], "p.mrcs"), [2, 2])
    assert len(matched_halves([truth], [truth])) == 1


@pytest.mark.parametrize(
    ("predicted", "message"),
    [
        ([1, 2, 4], r"1 of 4 particles have no prediction \(first 000003@p.mrcs, .*t.star row 3\)"),
        (
            [1, 2, 3, 4, 9],
            r"1 predictions are of particles that the truth lacks \(first 000009@p.mrcs",
        ),
        ([1, 2, 3, 3], r"row 4 is the same particle as .*p.star row 3, 000003@p.mrcs"),
        ([1, 2, 3, 7], r"1 of 4 .*; 1 predictions"),
    ],
)
def test_what_does_not_fit_is_named_in_one_line(
    tmp_path: Path, predicted: list[int], message: str
) -> None:
    truth = stack(tmp_path, "t.star", names([1, 2, 3, 4], "p.mrcs"), [1, 2, 1, 2])
    found = stack(tmp_path, "p.star", names(predicted, "p.mrcs"))
    with pytest.raises(MetadataError, match=message) as caught:
        matched_halves([truth], [found])
    assert "\n" not in str(caught.value)


def test_duplicates_in_the_truth_are_named(tmp_path: Path) -> None:
    truth = stack(tmp_path, "t.star", names([1, 2, 2], "p.mrcs"))
    with pytest.raises(MetadataError, match=r"t.star row 3 is the same particle as .*t.star row 2"):
        matched_halves([truth], [truth])


def test_a_particle_in_both_prediction_files_is_named(tmp_path: Path) -> None:
    truth = stack(tmp_path, "t.star", names([1, 2, 3], "p.mrcs"))
    zero, one = (
        stack(tmp_path, f"p{h}.star", names(rows, "p.mrcs"))
        for h, rows in enumerate(([1, 2], [2, 3]))
    )
    with pytest.raises(
        MetadataError, match=r"p1.star row 1 is the same particle as .*p0.star row 2"
    ):
        matched_halves([truth], [zero, one])


def test_three_files_are_too_many(tmp_path: Path) -> None:
    truth = stack(tmp_path, "t.star", names([1], "p.mrcs"))
    with pytest.raises(MetadataError, match="one file or two"):
        matched_halves([truth] * 3, [truth])


def test_a_large_set_takes_no_quadratic_time(tmp_path: Path) -> None:
    """Twenty thousand particles are matched in order."""
    numbers = np.arange(1, 20_001)
    truth = stack(tmp_path, "t.star", names(list(numbers), "p.mrcs"), list(numbers % 2 + 1))
    found = truth[np.random.default_rng(0).permutation(len(truth))]
    for half in matched_halves([truth], [found]):
        assert (half.truth.image_names() == half.predicted.image_names()).all()


def expanded(folder: Path, name: str, order: list[int], copies: int = 4) -> ParticleStack:
    """Return particles with C4 copies of their poses, one after the other."""
    rng = np.random.default_rng(3)
    poses = {number: rng.uniform(5, 85, 3) for number in sorted(set(order))}
    rows = [
        f"{number}@p.mrcs {number % 2 + 1} {poses[number][0] + 90 * copy:.4f} "
        f"{poses[number][1]:.4f} {poses[number][2]:.4f} 0 0"
        for number in order
        for copy in range(copies)
    ]
    labels = ("ImageName", "RandomSubset", "AngleRot", "AngleTilt", "AnglePsi")
    labels += ("OriginXAngst", "OriginYAngst")
    head = "".join(f"_rln{label}\n" for label in labels)
    (folder / name).write_text("data_particles\nloop_\n" + head + "\n".join(rows) + "\n")
    return ParticleStack.read(folder / name, require_images=False)


@pytest.mark.parametrize("copies", [4, 1])
def test_expanded_particles_are_matched_row_by_row(tmp_path: Path, copies: int) -> None:
    truth = expanded(tmp_path, "t.star", [1, 2, 3, 4, 5, 6])
    found = expanded(tmp_path, "p.star", [6, 2, 1, 4, 3, 5], copies)
    halves = matched_halves([truth], [found])
    assert [len(half.truth) for half in halves] == [12, 12]
    for half in halves:
        assert half.truth.image_names().tolist() == half.predicted.image_names().tolist()
        turned = half.truth.particles["rlnAngleRot"] - half.predicted.particles["rlnAngleRot"]
        expected = np.zeros(12) if copies == 4 else np.tile([0, 90, 180, 270], 3)
        np.testing.assert_allclose(turned, expected, atol=1e-3)


def test_expanded_predictions_need_an_expanded_truth(tmp_path: Path) -> None:
    truth, found = (expanded(tmp_path, f"{n}.star", [1, 2, 3, 4], n) for n in (1, 4))
    with pytest.raises(MetadataError, match=r"4 rows of each particle, .* has 1; expand both"):
        matched_halves([truth], [found])


def test_expanded_particles_are_counted_once(tmp_path: Path) -> None:
    truth = expanded(tmp_path, "t.star", [1, 2, 3, 4, 5, 6])
    config = EvaluateConfig(
        truth=(truth.source,),
        predicted=(truth.source,),
        symmetry="C4",
        output=tmp_path / "out",
        maps=False,
    )
    events = list(evaluate(config))
    metrics = events[-1].metrics
    assert (metrics["particles"], metrics["rows"]) == (6, 24)
    assert metrics["mane_degrees"] == pytest.approx(0, abs=1e-5)
    said = [event.text for event in events if isinstance(event, Note)]
    assert any("24 rows of 6 particles (symmetry-expanded)" in line for line in said)
