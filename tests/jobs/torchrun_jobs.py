"""Jobs of one rank; torchrun starts it: model, map and particles in the folder given, results beside them."""

from __future__ import annotations

import sys
from pathlib import Path

from napari_cryosphere.jobs.align import align
from napari_cryosphere.jobs.configs import AlignConfig, InferConfig, ReconstructConfig, WatchConfig
from napari_cryosphere.jobs.events import Events, follow
from napari_cryosphere.jobs.infer import infer
from napari_cryosphere.jobs.reconstruct import reconstruct
from napari_cryosphere.jobs.watch import watch


def all_jobs(folder: Path, name: str) -> None:
    """Infer, align, reconstruct and watch; outputs go to ``folder / name``."""
    made, output = {"particles": folder / "particles.star"}, folder / name
    predicting = {"model": folder / "model.safetensors", "batch_size": 4, "device": "cpu"}
    jobs: list[Events] = [
        infer(InferConfig(**made, **predicting, output=output / "i.star", distributions=output / "i.zarr")),
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
    ]
    for job in jobs:
        follow(job, lambda event: None)


if __name__ == "__main__":
    all_jobs(Path(sys.argv[1]), sys.argv[2])
