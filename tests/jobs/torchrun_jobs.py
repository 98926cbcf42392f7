"""Jobs of one rank; torchrun starts it: model, map and particles in the folder given, results
beside them.
"""

from __future__ import annotations

import atexit
import os
import sys
from pathlib import Path

from napari_cryosphere.jobs.align import align
from napari_cryosphere.jobs.configs import (
    AlignConfig,
    InferConfig,
    ReconstructConfig,
    WatchConfig,
)
from napari_cryosphere.jobs.configs.training import TrainConfig
from napari_cryosphere.jobs.events import Events, follow
from napari_cryosphere.jobs.infer import infer
from napari_cryosphere.jobs.reconstruct import reconstruct
from napari_cryosphere.jobs.train import train
from napari_cryosphere.jobs.watch import watch
from napari_cryosphere.model.card import Image2SphereConfig, PolarConfig

POLAR = PolarConfig(
    box=16, l_max=2, ring_channels=4, ring_blocks=0, channels=4, blocks=1, features=8
)
IMAGE2SPHERE = Image2SphereConfig(
    box=16, encoder_channels=(4, 8), sphere_channels=4, sphere_order=2, l_max=2, so3_channels=2
)


def trainings(folder: Path, output: Path) -> list[TrainConfig]:
    """Return two short runs: on projections of the particles' own map, then on these; on particles
    alone.
    """
    made = {"particles": folder / "particles.star", "epochs": 1, "batch_size": 15, "device": "cpu"}
    return [
        TrainConfig(output=output / "polar", network=POLAR, fine_tuning=0.3, **made),
        TrainConfig(output=output / "sphere", preset="image2sphere", network=IMAGE2SPHERE, **made),
    ]


def all_jobs(folder: Path, name: str) -> None:
    """Infer, align, reconstruct, watch and train; outputs go to ``folder / name``."""
    made, output = {"particles": folder / "particles.star"}, folder / name
    predicting = {"model": folder / "model.safetensors", "batch_size": 4, "device": "cpu"}
    jobs: list[Events] = [
        infer(
            InferConfig(
                **made, **predicting, output=output / "i.star", distributions=output / "i.zarr"
            )
        ),
        align(
            AlignConfig(
                **made,
                map=folder / "map.mrc",
                output=output / "a.star",
                local_degrees=5.0,
                shift_range_px=1.0,
                batch_size=4,
                device="cpu",
            )
        ),
        reconstruct(ReconstructConfig(**made, output=output / "map.mrc", half_maps=True)),
        watch(
            WatchConfig(
                folder=folder / "queue",
                output=output / "watch",
                **predicting,
                settle_seconds=0,
                until_idle_seconds=0,
                poll_seconds=0.05,
            )
        ),
        *(train(config) for config in trainings(folder, output)),
    ]
    for job in jobs:
        follow(job, lambda event: None)


def end_with_no_thread_of_gloo() -> None:
    """Fail where a thread may still hold tensors when Python ends: now and then that aborts the process."""
    names = [path.read_text().strip() for path in Path("/proc/self/task").glob("*/comm")]
    if any("gloo" in name for name in names):
        sys.stderr.write(f"threads outlive the process group: {names}\n")
        sys.stderr.flush()
        os._exit(3)


if __name__ == "__main__":
    atexit.register(end_with_no_thread_of_gloo)  # the first to register is the last to be called
    all_jobs(Path(sys.argv[1]), sys.argv[2])
