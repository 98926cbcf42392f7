"""Files that earlier versions wrote are opened by this one, and say what they said."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from napari_cryosphere.jobs.infer import images_for, predict
from napari_cryosphere.model.pose_model import PoseModel
from napari_cryosphere.particles import DensityMap, ParticleStack
from napari_cryosphere.so3.distributions.store import DistributionStore
from napari_cryosphere.so3.pose_summary import PoseSummary
from napari_cryosphere.widgets.control.session_file import flags_of, read_session

KEPT = sorted((Path(__file__).parents[1] / "data" / "kept").iterdir())


def assert_as_expected(summary: PoseSummary, folder: Path, tolerance: float) -> None:
    expected = json.loads((folder / "expected.json").read_text())
    for name, values in expected.items():
        np.testing.assert_allclose(getattr(summary, name), values, atol=tolerance, err_msg=name)


@pytest.mark.parametrize("folder", KEPT, ids=lambda folder: folder.name)
def test_a_model_predicts_what_it_predicted(folder: Path) -> None:
    model, stack = (
        PoseModel.load(folder / "model.safetensors"),
        ParticleStack.read(folder / "particles.star"),
    )
    ((_, predicted),) = predict(images_for(model, stack), model)
    assert_as_expected(predicted.summary(), folder, 1e-3)


@pytest.mark.parametrize("folder", KEPT, ids=lambda folder: folder.name)
@pytest.mark.parametrize(("kind", "tolerance"), [("harmonic", 2e-3), ("cells", 0.02)])
def test_distributions_say_what_they_said(folder: Path, kind: str, tolerance: float) -> None:
    store = DistributionStore(folder / f"{kind}.zarr")
    assert (store.kind, store.symmetry, len(store)) == (kind, "C1", 4)
    assert_as_expected(store[:].summary(), folder, tolerance)


@pytest.mark.parametrize("folder", KEPT, ids=lambda folder: folder.name)
def test_a_session_is_what_it_was(folder: Path) -> None:
    session = read_session(folder / "session.json")
    (particles,), (density,) = session.particles, session.maps
    assert (session.chosen, session.particle, particles.symmetry) == ("particles", 2, "C1")
    np.testing.assert_array_equal(flags_of(particles.flags, particles.number), [1, 1, 0, 0])
    assert DensityMap.read(folder / density.path).box == 16
    assert particles.distributions == {"network": Path("harmonic.zarr")}
