"""The job ``watch``: killed at any moment, it ends with what one run over all files gives, bit for
bit.
"""

from __future__ import annotations

import json
import multiprocessing
import os
import random
import threading
import time
from pathlib import Path

import numpy as np
import pytest
import torch

from napari_cryosphere.errors import (
    CryosphereError,
    FileFormatError,
    MetadataError,
    OutputExistsError,
)
from napari_cryosphere.imaging.phantom import protein_phantom
from napari_cryosphere.jobs import watch as watch_job
from napari_cryosphere.jobs.configs import ReconstructConfig, SimulateConfig, WatchConfig
from napari_cryosphere.jobs.events import Events, Note, Progress, Result, follow
from napari_cryosphere.jobs.info import describe
from napari_cryosphere.jobs.reconstruct import reconstruct
from napari_cryosphere.jobs.running.outputs import claimed, locked
from napari_cryosphere.jobs.simulate import simulate
from napari_cryosphere.jobs.watch import watch
from napari_cryosphere.model.card import ModelCard, PolarConfig, StateCard
from napari_cryosphere.model.pose_model import PoseModel
from napari_cryosphere.particles import DensityMap, ParticleStack, write_stack

FILES, EACH, KILLS = 20, 5, 10
OUTPUTS = ("particles.star", "map.mrc", "map_half1.mrc", "map_half2.mrc", "map_fsc.csv")


def run(events: Events) -> Result:
    return follow(events, lambda event: None)


def notes(events: Events) -> list[str]:
    said = []
    follow(events, lambda event: said.append(event.text) if isinstance(event, Note) else None)
    return said


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a folder with a model, a map, and particles in files of five, each with a stack of its
    own.
    """
    folder = tmp_path_factory.mktemp("watch")
    protein_phantom(16, 12.0).save(folder / "map.mrc")
    number = FILES * EACH
    run(
        simulate(
            SimulateConfig(
                map=folder / "map.mrc", output=folder / "all.star", number=number, snr=5.0
            )
        )
    )
    network = PolarConfig(
        box=16, l_max=2, ring_channels=4, ring_blocks=0, channels=4, blocks=1, features=8
    )
    torch.manual_seed(1)
    PoseModel.create(ModelCard(network=network, pixel_size_angstrom=12.0)).save(
        folder / "model.safetensors"
    )
    (folder / "files").mkdir()
    everything = ParticleStack.read(folder / "all.star")
    for index in range(FILES):
        some, name = everything[index * EACH : (index + 1) * EACH], f"mic{index:02d}"
        write_stack(some.images(), folder / "files" / f"{name}.mrcs", 12.0)
        bare = ParticleStack.read(folder / "files" / f"{name}.mrcs")
        columns = [column for column in some.particles if column.startswith("rlnDefocus")]
        with_ctf = bare.with_columns(
            {column: some.particles[column].to_numpy() for column in columns}
        )
        with_ctf.save(folder / "files" / f"{name}.star")
    return folder


def config(made: Path, queue: Path, output: Path, **options: object) -> WatchConfig:
    quick = {
        "settle_seconds": 0.0,
        "until_idle_seconds": 0.0,
        "poll_seconds": 0.01,
        "patience_seconds": 0.0,
        "publish_seconds": 0.0,
        "batch_size": 4,
        "device": "cpu",
    }
    model = {"model": made / "model.safetensors"}
    return WatchConfig(folder=queue, output=output, **(quick | model | options))


def fill(queue: Path, made: Path, numbers: range | list[int]) -> None:
    queue.mkdir(exist_ok=True)
    for number in numbers:
        for suffix in (".mrcs", ".star"):
            source = made / "files" / f"mic{number:02d}{suffix}"
            (queue / source.name).write_bytes(source.read_bytes())


def same(first: Path, second: Path) -> list[str]:
    return [name for name in OUTPUTS if (first / name).read_bytes() == (second / name).read_bytes()]


def _watch_in_a_process(settings: str) -> None:
    """Watch until killed. Runs in a process of its own."""
    os.environ["OMP_NUM_THREADS"] = "1"
    run(watch(WatchConfig.model_validate_json(settings)))


def _write_in_chunks(queue: Path, made: Path, rng: random.Random) -> None:
    """Write all files as a slow program would: three at a time, in pieces, STAR and images in any
    order.
    """
    names = [f"mic{number:02d}" for number in range(FILES)]
    rng.shuffle(names)
    for start in range(0, FILES, 3):
        pieces = []
        for name in names[start : start + 3]:
            for suffix in (".star", ".mrcs"):
                content = (made / "files" / f"{name}{suffix}").read_bytes()
                cuts = sorted(rng.sample(range(1, len(content)), 3))
                ends = [*cuts, len(content)]
                pieces.append(
                    [(name + suffix, content[a:b]) for a, b in zip([0, *cuts], ends, strict=True)]
                )
        while pieces:
            one = rng.choice(pieces)
            name, piece = one.pop(0)
            with (queue / name).open("ab") as stream:
                stream.write(piece)
            pieces = [left for left in pieces if left]
            time.sleep(rng.uniform(0, 0.02))


@pytest.mark.skipif(os.name != "posix", reason="processes are forked")
def test_killed_ten_times_it_ends_as_one_run_over_all_files(made: Path, tmp_path: Path) -> None:
    rng = random.Random(7)
    queue, output = tmp_path / "queue", tmp_path / "killed"
    queue.mkdir()
    # nothing ends this one; with settling off, files are read half written, and again when they
    # have grown
    endless = config(made, queue, output, until_idle_seconds=None, patience_seconds=1000.0)
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["napari_cryosphere.jobs.watch"])
    writer = threading.Thread(target=_write_in_chunks, args=(queue, made, rng))
    writer.start()
    seen = []
    for _ in range(KILLS):
        watcher = context.Process(target=_watch_in_a_process, args=(endless.model_dump_json(),))
        watcher.start()
        before, wanted, limit = _work_of(output), rng.randrange(1, 8), time.monotonic() + 20
        while (
            _work_of(output) < before + wanted and time.monotonic() < limit and watcher.is_alive()
        ):
            time.sleep(0.002)
        time.sleep(rng.uniform(0, 0.03))
        assert watcher.is_alive(), "the watcher ended by itself"
        watcher.kill()
        watcher.join()
        seen.append(len(list((output / "parts").glob("*.star"))))
    writer.join()
    assert seen[0] < FILES  # it was killed while there was work
    for folder in (output, tmp_path / "once"):
        # in processes like the killed ones: other tests may have changed this one's number of threads
        last = config(made, queue, folder)
        watcher = context.Process(target=_watch_in_a_process, args=(last.model_dump_json(),))
        watcher.start()
        watcher.join()
        assert watcher.exitcode == 0
    assert same(output, tmp_path / "once") == list(OUTPUTS)
    particles = ParticleStack.read(output / "particles.star").particles
    assert len(particles) == FILES * EACH
    assert particles["rlnImageName"].is_unique
    left = [path.name for path in output.iterdir() if path.name.startswith(".")]
    assert left == []


def _work_of(output: Path) -> int:
    """Return a number that grows with what a watcher writes."""
    # os.walk, since temporary folders go while they are looked at
    written = [name for _, _, names in os.walk(output) for name in names]
    return sum(name.endswith((".star", ".safetensors", ".mrc")) for name in written) + (
        (output / "log.jsonl").read_bytes().count(b"\n") if (output / "log.jsonl").is_file() else 0
    )


@pytest.fixture(scope="module")
def once(made: Path) -> Path:
    """Return a finished run over six files."""
    fill(made / "six", made, range(6))
    run(watch(config(made, made / "six", made / "once")))
    return made / "once"


def test_the_order_of_arrival_does_not_show(made: Path, once: Path, tmp_path: Path) -> None:
    for first in ([4, 1], [5, 3], [0, 2]):
        fill(tmp_path / "queue", made, first)
        run(watch(config(made, tmp_path / "queue", tmp_path / "run")))
    assert set(same(tmp_path / "run", once)) >= set(OUTPUTS[1:])
    tables = [
        ParticleStack.read(folder / "particles.star").particles
        for folder in (tmp_path / "run", once)
    ]
    one, other = (
        table.drop(columns="rlnImageName") for table in tables
    )  # other folders, other paths
    assert one.equals(other)


def test_half_maps_are_those_of_the_command_reconstruct(once: Path, tmp_path: Path) -> None:
    output = tmp_path / "map.mrc"
    run(
        reconstruct(
            ReconstructConfig(particles=once / "particles.star", output=output, half_maps=True)
        )
    )
    for half in (1, 2):
        mine = DensityMap.read(once / f"map_half{half}.mrc").voxels
        theirs = DensityMap.read(tmp_path / f"map_half{half}.mrc").voxels
        assert np.abs(mine - theirs).max() < 1e-4 * theirs.std()


def test_maps_of_states_are_those_of_their_particles(made: Path, tmp_path: Path) -> None:
    """Of a network that tells two apart by chance: a file in the middle is taken up from disk."""
    torch.manual_seed(3)
    network = PolarConfig(
        box=16, l_max=2, ring_channels=4, ring_blocks=0, channels=4, blocks=1, features=8, states=2
    )
    card = ModelCard(network=network, pixel_size_angstrom=12.0, states=StateCard(temperature=0.01))
    model = PoseModel.create(card)
    for name, weight in model.network.named_parameters():
        if name.startswith("state_head"):
            weight.data[0] = 0  # degree 0: over all poses no state is more probable
    model.save(tmp_path / "model.safetensors")
    options = {"model": tmp_path / "model.safetensors"}
    for numbers in (range(3), range(3, 6)):
        fill(tmp_path / "queue", made, numbers)
        run(watch(config(made, tmp_path / "queue", tmp_path / "run", **options)))
    table = ParticleStack.read(tmp_path / "run" / "particles.star").particles
    shares = table["rlnClassNumber"].value_counts(normalize=True)
    assert shares.min() > 0.2
    state = json.loads((tmp_path / "run" / "state.json").read_text())
    for number in (1, 2):
        assert state[f"share_of_state_{number}"] == pytest.approx(shares[number])
        select = f"rlnClassNumber == {number}"
        for name, chosen in ((f"map_class00{number}.mrc", select), ("map.mrc", None)):
            alone = ReconstructConfig(
                particles=tmp_path / "run" / "particles.star",
                output=tmp_path / f"alone{number}-{name}",
                select=chosen,
            )
            run(reconstruct(alone))
            theirs = DensityMap.read(alone.output).voxels
            mine = DensityMap.read(tmp_path / "run" / name).voxels
            assert np.abs(mine - theirs).max() < 1e-4 * theirs.std()


def test_both_halves_fill_evenly(once: Path) -> None:
    subset = ParticleStack.read(once / "particles.star").particles["rlnRandomSubset"]
    counts = subset.value_counts()
    assert counts.min() >= 0.35 * len(subset)


def test_a_run_is_described(once: Path) -> None:
    described = describe(once)
    assert described["kind"] == "watch"
    assert described["state"]["files"] == 6


def test_what_cannot_be_read_is_set_aside_with_the_reason(made: Path, tmp_path: Path) -> None:
    fill(tmp_path / "queue", made, [0])
    cut = (made / "files" / "mic01.star").read_text().rstrip().rsplit(" ", 1)[0]
    (tmp_path / "queue" / "cut.star").write_text(cut)
    (tmp_path / "queue" / "copy.star").write_bytes((made / "files" / "mic00.star").read_bytes())
    said = notes(watch(config(made, tmp_path / "queue", tmp_path / "run")))
    assert any("cut.star" in text and "values for" in text for text in said)
    assert any("copy of" in text for text in said)
    state = json.loads((tmp_path / "run" / "state.json").read_text())
    assert state["files"] == 1
    assert sorted(state["set_aside"]) in (["copy.star", "cut.star"], ["cut.star", "mic00.star"])
    assert (tmp_path / "queue" / "cut.star").read_text() == cut  # left as it was


def test_grey_values_that_cannot_be_summed_are_set_aside(made: Path, tmp_path: Path) -> None:
    fill(tmp_path / "queue", made, [0])
    images = ParticleStack.read(tmp_path / "queue" / "mic00.star").images()
    write_stack(images * 1e13, tmp_path / "queue" / "wild.mrcs", 12.0)
    ParticleStack.read(tmp_path / "queue" / "wild.mrcs").save(tmp_path / "queue" / "a_wild.star")
    said = notes(watch(config(made, tmp_path / "queue", tmp_path / "run")))
    assert any("normalise the images" in text for text in said)
    assert len(ParticleStack.read(tmp_path / "run" / "particles.star")) == EACH
    assert [path.name for path in (tmp_path / "run" / "parts").iterdir()] == ["mic00.star"]


def test_a_file_that_changes_counts_as_it_is_last(made: Path, tmp_path: Path) -> None:
    fill(tmp_path / "queue", made, [0, 1])
    short = ParticleStack.read(tmp_path / "queue" / "mic01.star")[:2]
    short.save(tmp_path / "queue" / "mic01.star", overwrite=True)
    run(watch(config(made, tmp_path / "queue", tmp_path / "run")))
    assert len(ParticleStack.read(tmp_path / "run" / "particles.star")) == EACH + 2
    fill(tmp_path / "queue", made, [1])
    run(watch(config(made, tmp_path / "queue", tmp_path / "run")))
    run(watch(config(made, tmp_path / "queue", tmp_path / "fresh")))
    assert same(tmp_path / "run", tmp_path / "fresh") == list(OUTPUTS)
    assert len(ParticleStack.read(tmp_path / "run" / "particles.star")) == 2 * EACH


def test_sums_that_are_lost_or_damaged_are_made_again(made: Path, tmp_path: Path) -> None:
    fill(tmp_path / "queue", made, [0, 1, 2])
    settings = config(made, tmp_path / "queue", tmp_path / "run")
    run(watch(settings))
    before = [(tmp_path / "run" / name).read_bytes() for name in OUTPUTS]
    (tmp_path / "run" / "sums.safetensors").write_bytes(b"nothing of use")
    run(watch(settings))
    assert [(tmp_path / "run" / name).read_bytes() for name in OUTPUTS] == before


def test_stopped_by_hand_it_leaves_all_that_was_done(made: Path, tmp_path: Path) -> None:
    fill(tmp_path / "queue", made, [0, 1, 2])
    events = watch(config(made, tmp_path / "queue", tmp_path / "run", publish_seconds=1000.0))
    for event in events:
        if isinstance(event, Progress) and event.message.startswith("2 files"):
            break
    events.close()
    assert len(ParticleStack.read(tmp_path / "run" / "particles.star")) == 2 * EACH
    assert not list(tmp_path.rglob("*.lock"))


def test_one_watcher_a_folder(made: Path, tmp_path: Path) -> None:
    fill(tmp_path / "queue", made, [0])
    settings = config(made, tmp_path / "queue", tmp_path / "run")
    with (
        locked(tmp_path / "queue" / watch_job._LOCK, "it"),
        pytest.raises(CryosphereError, match=f"queue is in use by process {os.getpid()}"),
    ):
        run(watch(settings))
    run(watch(settings))
    with (
        claimed(folders=[tmp_path / "run"]),
        pytest.raises(CryosphereError, match=f"run is in use by process {os.getpid()}"),
    ):
        run(watch(settings))


def test_a_run_is_continued_with_its_own_settings_only(made: Path, tmp_path: Path) -> None:
    fill(tmp_path / "queue", made, [0])
    settings = config(made, tmp_path / "queue", tmp_path / "run")
    run(watch(settings))
    with pytest.raises(MetadataError, match=r"other settings \(padding\)"):
        run(watch(settings.model_copy(update={"padding": 1})))
    run(watch(settings.model_copy(update={"padding": 1, "overwrite": True})))
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "thesis.tex").write_text("")
    with pytest.raises(OutputExistsError, match="no watch"):
        run(watch(config(made, tmp_path / "queue", tmp_path / "mine")))


def test_other_images_do_not_enter_a_run(made: Path, tmp_path: Path) -> None:
    fill(tmp_path / "queue", made, [0])
    rng = np.random.default_rng(0)
    write_stack(rng.normal(size=(3, 24, 24)), tmp_path / "queue" / "larger.mrcs", 12.0)
    ParticleStack.read(tmp_path / "queue" / "larger.mrcs").save(tmp_path / "queue" / "z.star")
    said = notes(watch(config(made, tmp_path / "queue", tmp_path / "run")))
    assert any("24 px" in text and "16 px" in text for text in said)


def test_a_map_refines_and_finds_shifts(made: Path, tmp_path: Path) -> None:
    fill(tmp_path / "queue", made, [0])
    run(watch(config(made, tmp_path / "queue", tmp_path / "run", map=made / "map.mrc", modes=1)))
    table = ParticleStack.read(tmp_path / "run" / "particles.star").particles
    assert {"rlnOriginXAngst", "cryosphereNetworkAngleRot", "rlnLogLikeliContribution"} <= set(
        table
    )


def test_folders_that_cannot_be_watched(made: Path, tmp_path: Path) -> None:
    with pytest.raises(CryosphereError, match="is no folder to watch"):
        run(watch(config(made, tmp_path / "queue", tmp_path / "run")))
    fill(tmp_path / "queue", made, [0])
    with pytest.raises(CryosphereError, match="cannot be the watched one"):
        run(watch(config(made, tmp_path / "queue", tmp_path / "queue")))
    assert sorted(path.name for path in tmp_path.iterdir()) == ["queue"]


def test_a_folder_that_cannot_be_locked_is_watched_with_a_warning(
    made: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: object) -> None:
        raise OSError(30, "Read-only file system")

    monkeypatch.setattr(watch_job, "locked", fail)
    fill(tmp_path / "queue", made, [0])
    said = notes(watch(config(made, tmp_path / "queue", tmp_path / "run")))
    assert any("not be locked: let nobody else watch it" in text for text in said)
    assert len(ParticleStack.read(tmp_path / "run" / "particles.star")) == EACH


def test_what_is_still_waited_for_at_the_end_is_set_aside(made: Path, tmp_path: Path) -> None:
    fill(tmp_path / "queue", made, [0])
    (tmp_path / "queue" / "cut.star").write_text(
        "data_particles\n\nloop_\n_rlnImageName\n_rlnAngleRot\n1@a.mrcs\n"
    )
    said = notes(watch(config(made, tmp_path / "queue", tmp_path / "run", patience_seconds=1000.0)))
    assert [text for text in said if "cut.star" in text and text.startswith("set aside")]
    assert list(json.loads((tmp_path / "run" / "state.json").read_text())["set_aside"]) == [
        "cut.star"
    ]


def test_images_that_went_bad_are_taken_again(made: Path, tmp_path: Path) -> None:
    """The sums are lost, and a part's images no longer fit into them: it counts no more."""
    fill(tmp_path / "queue", made, [0, 1])
    settings = config(made, tmp_path / "queue", tmp_path / "run")
    run(watch(settings))
    (tmp_path / "run" / "sums.safetensors").unlink()
    images = ParticleStack.read(tmp_path / "queue" / "mic01.star").images()
    write_stack(images * 1e13, tmp_path / "queue" / "mic01.mrcs", 12.0, overwrite=True)
    said = notes(watch(settings))
    assert any(text.startswith("mic01.star is taken again") for text in said)
    assert any("set aside" in text and "normalise the images" in text for text in said)
    assert len(ParticleStack.read(tmp_path / "run" / "particles.star")) == EACH


def test_leftovers_of_a_killed_run_go_and_foreign_parts_are_refused(
    made: Path, tmp_path: Path
) -> None:
    fill(tmp_path / "queue", made, [0])
    settings = config(made, tmp_path / "queue", tmp_path / "run")
    run(watch(settings))
    left = [tmp_path / "run" / ".cryosphere-x1", tmp_path / "run" / "parts" / ".cryosphere-y2"]
    for path in left:
        path.mkdir()
        (path / "map.mrc").touch()
    run(watch(settings))
    assert not any(path.exists() for path in left)
    foreign = tmp_path / "run" / "parts" / "mine.star"
    foreign.write_bytes((tmp_path / "queue" / "mic00.star").read_bytes())
    with pytest.raises(FileFormatError, match=r"mine.star was not written by a watch; remove it"):
        run(watch(settings))
