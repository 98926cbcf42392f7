"""Chosen particles as new files."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from napari.components import ViewerModel

from napari_cryosphere.errors import CryosphereError
from napari_cryosphere.particles import ParticleStack
from napari_cryosphere.widgets.control.export import (
    Which,
    chosen_stack,
    export_work,
    rows_to_export,
)
from napari_cryosphere.widgets.control.running import SynchronousRunner
from napari_cryosphere.widgets.docks.kit.workbench import take_seat
from napari_cryosphere.widgets.state.particle_choices import Flag
from napari_cryosphere.widgets.state.session import Session


@pytest.fixture
def session(viewer_model: ViewerModel, stack: ParticleStack, add_particles: Any) -> Session:
    add_particles(viewer_model, stack)
    made = take_seat(viewer_model, SynchronousRunner()).controller.session
    assert made is not None
    return made


def test_which_particles(session: Session) -> None:
    session.choices.select([5, 3])
    session.choices.flag([3, 8], Flag.KEEP)
    session.choices.flag([4], Flag.REJECT)
    session.filter.set_flag(Flag.KEEP)
    session.filter.sort_by("file order", True)
    assert rows_to_export(session, Which.SELECTED).tolist() == [3, 5]
    assert rows_to_export(session, Which.SHOWN).tolist() == [3, 8]
    assert rows_to_export(session, Which.KEPT).tolist() == [3, 8]
    assert len(rows_to_export(session, Which.NOT_REJECTED)) == 79


@pytest.mark.parametrize("suffix", [".star", ".cs"])
def test_all_that_the_file_says_is_kept(session: Session, tmp_path: Path, suffix: str) -> None:
    rows = np.array([2, 30, 61])
    said = [step.message for step in export_work(session, rows, tmp_path / f"some{suffix}")]
    assert said[-1] == f"3 particles in some{suffix}"
    again = ParticleStack.read(tmp_path / f"some{suffix}")
    parent = session.stack
    assert set(parent.particles) <= set(again.particles)
    assert set(parent.optics) <= set(again.optics)
    np.testing.assert_allclose(again.rotations(), parent.rotations()[rows], atol=1e-5)
    np.testing.assert_array_equal(again.images(), parent.images(rows))
    np.testing.assert_array_equal(again.half_sets(), parent.half_sets()[rows])


def test_predictions_become_columns_where_all_have_one(
    session: Session, predictions: tuple[Any, Any, Any], tmp_path: Path
) -> None:
    session.store.add(*predictions)
    rows = np.array([7, 0, 33])
    made = chosen_stack(session, rows)
    summary = predictions[2]
    np.testing.assert_allclose(made.rotations(), summary.rotations[rows], atol=1e-6)
    np.testing.assert_allclose(made.particles["cryosphereSpread"], summary.spread_degrees[rows])
    np.testing.assert_allclose(
        made.particles["cryosphereInputAngleTilt"], session.stack.particles["rlnAngleTilt"][rows]
    )
    *_, last = export_work(session, np.array([7, 50]), tmp_path / "mixed.star")
    assert "only 1 of them are predicted" in last.message
    assert "cryosphereSpread" not in ParticleStack.read(tmp_path / "mixed.star").particles


def test_what_cannot_be_saved(session: Session, tmp_path: Path) -> None:
    with pytest.raises(CryosphereError, match="no particles to save"):
        list(export_work(session, np.empty(0, dtype=np.int64), tmp_path / "none.star"))
    before = session.stack.source.read_bytes()
    with pytest.raises(CryosphereError, match="choose another name"):
        list(export_work(session, np.array([1]), session.stack.source))
    assert session.stack.source.read_bytes() == before
    assert not list(tmp_path.glob("none*"))
