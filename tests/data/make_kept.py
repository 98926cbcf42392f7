"""Make the files of today's formats that every later version has to open: ``python make_kept.py FOLDER``.

Run it for a new folder when a format changes, and never again for a folder that is kept: what matters
is that old bytes are read. `expected.json` holds what they say.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path

import torch

from napari_cryosphere.imaging.phantom import protein_phantom
from napari_cryosphere.jobs.configs import SimulateConfig
from napari_cryosphere.jobs.events import follow
from napari_cryosphere.jobs.infer import images_for, predict
from napari_cryosphere.jobs.simulate import simulate
from napari_cryosphere.model.card import ModelCard, PolarConfig
from napari_cryosphere.model.pose_model import PoseModel
from napari_cryosphere.particles import ParticleStack
from napari_cryosphere.so3.distributions.store import save_distribution
from napari_cryosphere.widgets.control.session_file import SavedMap, SavedParticles, SavedSession

NETWORK = PolarConfig(
    box=16, l_max=2, ring_channels=2, ring_blocks=0, channels=2, blocks=1, features=4
)


def main(folder: Path) -> None:
    """Write a map, particles, a model, distributions of two kinds, a session, and what they say."""
    folder.mkdir(parents=True)
    protein_phantom(16, 12.0).save(folder / "map.mrc")
    particles = folder / "particles.star"
    follow(
        simulate(SimulateConfig(map=folder / "map.mrc", output=particles, number=4, snr=5.0)),
        lambda event: None,
    )
    torch.manual_seed(1)
    model = PoseModel.create(ModelCard(network=NETWORK, pixel_size_angstrom=12.0))
    model.save(folder / "model.safetensors")
    stack = ParticleStack.read(particles)
    ((_, predicted),) = predict(images_for(model, stack), model)
    save_distribution(predicted, folder / "harmonic.zarr")
    save_distribution(predicted.cells(), folder / "cells.zarr")
    session = SavedSession(
        particles=(
            SavedParticles(
                name="particles",
                path=Path("particles.star"),
                number=4,
                flags=((1, 2), (0, 2)),
                distributions={"network": Path("harmonic.zarr")},
                symmetry="C1",
            ),
        ),
        maps=(SavedMap(name="map", path=Path("map.mrc")),),
        chosen="particles",
        particle=2,
    )
    (folder / "session.json").write_text(session.model_dump_json(indent=1) + "\n")
    summary = predicted.summary()
    expected = {"entropy": summary.entropy.tolist(), "confidence": summary.confidence.tolist()}
    (folder / "expected.json").write_text(json.dumps(expected, indent=1) + "\n")


if __name__ == "__main__":
    main(Path(sys.argv[1]))
