"""CESPED's entries, local ones in its layout, and the published values."""

from __future__ import annotations

import json
import statistics
from pathlib import Path

import numpy as np
import pytest

from napari_cryosphere.errors import (
    CryosphereError,
    FileFormatError,
    MetadataError,
    OutputExistsError,
)
from napari_cryosphere.evaluation.cesped_report import (
    COLUMNS,
    Measured,
    published_entries,
    published_summary,
    write_report,
)
from napari_cryosphere.evaluation.entries import (
    CESPED_ENTRIES,
    add_half,
    cesped_entry,
    local_entries,
    local_entry,
)
from napari_cryosphere.imaging.phantom import protein_phantom
from napari_cryosphere.jobs.configs import SimulateConfig
from napari_cryosphere.jobs.events import follow
from napari_cryosphere.jobs.simulate import simulate_density
from napari_cryosphere.particles import ParticleStack


@pytest.fixture(scope="module")
def particles(tmp_path_factory: pytest.TempPathFactory) -> ParticleStack:
    folder = tmp_path_factory.mktemp("particles")
    config = SimulateConfig(map=folder / "m.mrc", output=folder / "p.star", number=12, snr=2)
    follow(simulate_density(protein_phantom(16, 12.0), config), lambda event: None)
    return ParticleStack.read(folder / "p.star")


def test_the_seven_entries_and_test() -> None:
    """Supplementary Table 1."""
    assert [entry.name for entry in CESPED_ENTRIES] == [*published_entries(), "TEST"]
    assert [entry.symmetry for entry in CESPED_ENTRIES] == [
        "C1",
        "C1",
        "C2",
        "C1",
        "D2",
        "C1",
        "C2",
        "C1",
    ]
    assert [entry.box for entry in CESPED_ENTRIES[:7]] == [284, 184, 182, 232, 222, 240, 216]
    assert sum(entry.particles or 0 for entry in CESPED_ENTRIES) == 2_196_405
    assert len({record for entry in CESPED_ENTRIES for record in entry.records}) == 16


def test_an_entry_by_its_other_name_and_by_none() -> None:
    assert cesped_entry("10648") is cesped_entry("10647")
    assert cesped_entry("test").name == "TEST"
    with pytest.raises(CryosphereError, match=r"'10000'; it has 10166, .*, TEST"):
        cesped_entry("10000")


def test_published_means_are_those_of_table_1() -> None:
    """What Table 1 and Supplementary Table 2 both say agrees, but for the differences of
    resolution.
    """
    rows = list(published_entries().values())
    stated, spread = published_summary()["mean"], published_summary()["std"]
    for name in ("mane_degrees", "wmane_degrees"):
        assert statistics.mean(row[name] for row in rows) == pytest.approx(stated[name], abs=0.05)
    lost = [row["pcc_gt0_gt1"] - row["pcc_gt_v"] for row in rows]
    assert statistics.mean(lost) == pytest.approx(stated["delta_pcc"], abs=5e-4)
    assert statistics.stdev(lost) == pytest.approx(spread["delta_pcc"], abs=5e-4)
    shells = [row["fscr_05_gt_v_angstrom"] - row["fscr_05_gt0_gt1_angstrom"] for row in rows]
    assert statistics.mean(shells) == pytest.approx(3.91, abs=0.01)
    assert stated["delta_fscr_05_angstrom"] == 3.6


def test_a_half_keeps_images_poses_and_optics(particles: ParticleStack, tmp_path: Path) -> None:
    for half, stack in enumerate(particles.halves()):
        assert list(add_half(stack, tmp_path, "mine", half, "d2", simulated=True)) == [6]
    entry = local_entry(tmp_path, "mine")
    assert (entry.symmetry, entry.simulated, entry.mask) == ("D2", True, None)
    for half, stack in enumerate(particles.halves()):
        read = entry.read(half)
        assert list(read.image_names()) == [
            f"{row:06d}@particles_{half}.mrcs" for row in range(1, 7)
        ]
        np.testing.assert_array_equal(read.images(), stack.images())
        np.testing.assert_allclose(read.rotations(), stack.rotations(), atol=1e-7)
        assert set(read.half_sets()) == {half + 1}
        assert read.grid == stack.grid
    assert list(local_entries(tmp_path)) == [("mine", (0, 1))]
    with pytest.raises(OutputExistsError):
        list(add_half(particles, tmp_path, "mine", 0, "C1"))


def test_what_is_missing_of_an_entry_is_named(particles: ParticleStack, tmp_path: Path) -> None:
    list(add_half(particles, tmp_path, "half", 0, "C1"))
    with pytest.raises(
        CryosphereError, match=r"lacks particles_1.star, info_1.json; .*cesped download half"
    ):
        local_entry(tmp_path, "half")
    list(add_half(particles, tmp_path, "half", 1, "C2"))
    with pytest.raises(MetadataError, match="half 0 has the symmetry C1, half 1 C2"):
        local_entry(tmp_path, "half")
    for broken in ("[]", "{", '{"symmetry": 2}'):
        (tmp_path / "half" / "info_1.json").write_text(broken)
        with pytest.raises(FileFormatError, match=r"info_1.json"):
            local_entry(tmp_path, "half")


def test_an_entry_needs_poses(particles: ParticleStack, tmp_path: Path) -> None:
    with pytest.raises(MetadataError, match="no particles for half 0"):
        list(add_half(particles[:0], tmp_path, "none", 0, "C1"))
    assert not (tmp_path / "none").exists()


def test_a_report_has_every_column_and_says_where_values_come_from(tmp_path: Path) -> None:
    values = dict.fromkeys(COLUMNS, 1.25) | {"wmane_degrees": None}
    lines = [
        Measured("10280", values),
        Measured("mine", values, simulated=True, notes=("A note.",)),
    ]
    files = write_report(lines, tmp_path, "Title", "## More\n", overwrite=False)
    text = files["md"].read_text()
    header = next(line for line in text.splitlines() if line.startswith("| entry"))
    paper = ["MAnE (°)", "wMAnE (°)", "PCC(V0, V1)", "PCC(GT, V)", "FSCR 0.143 (V0, V1) (Å)"]
    assert all(f"| {name} |" in header for name in paper)
    assert header.count("|") == len(COLUMNS) + 3
    rows = json.loads(files["json"].read_text())["rows"]
    assert [row["source"] for row in rows[:3]] == [
        "measured here",
        "published, Image2Sphere",
        "measured here, simulated",
    ]
    # ours beside the published line
    assert [row["entry"] for row in rows[:3]] == ["10280", "10280", "mine"]
    assert len(rows) == 2 + 7
    assert files["csv"].read_text().splitlines()[1].startswith("10280,measured here,1.25,,1.25")
    assert "- mine: A note." in text
    with pytest.raises(OutputExistsError):
        write_report(lines, tmp_path, "Title", overwrite=False)
