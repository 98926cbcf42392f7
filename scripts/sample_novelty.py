"""Put the novelty reference into the model that ships with the package; its weights stay the same.

    python scripts/sample_novelty.py [--output FILE]

The reference comes from the 2000 simulated particles that the model was trained with
(docs/measurements.md, "The sample and its model"), its limit from 1000 others.
"""

from __future__ import annotations

import argparse
import tempfile
from dataclasses import replace
from pathlib import Path

from torch import Tensor

from napari_cryosphere.imaging.phantom import protein_phantom
from napari_cryosphere.jobs.configs import SimulateConfig
from napari_cryosphere.jobs.events import follow
from napari_cryosphere.jobs.infer import images_for
from napari_cryosphere.jobs.sample import SAMPLE_SNR, sample_model
from napari_cryosphere.jobs.simulate import simulate_density
from napari_cryosphere.model.card import NoveltyCard
from napari_cryosphere.model.novelty import FALSE_ALARM_RATE, Novelty
from napari_cryosphere.model.pose_model import PoseModel
from napari_cryosphere.particles import ParticleStack

ROOT = Path(__file__).resolve().parents[1]
SHIPPED = ROOT / "src/napari_cryosphere/data/sample_model.safetensors"
TRAINING_SEED, HELD_OUT_SEED = 7, 8
TRAINING_PARTICLES, HELD_OUT_PARTICLES = 2000, 1000


def prepared(model: PoseModel, folder: Path, number: int, seed: int) -> Tensor:
    """Return simulated particles of the sample's map as the model takes them."""
    density = protein_phantom()
    density.save(folder / "truth.mrc", overwrite=True)
    output = folder / f"particles{seed}.star"
    config = SimulateConfig(
        map=folder / "truth.mrc", output=output, number=number, snr=SAMPLE_SNR, seed=seed
    )
    follow(simulate_density(density, config), lambda event: None)
    return images_for(model, ParticleStack.read(output)).load()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--output", type=Path, default=SHIPPED)
    output = parser.parse_args().output
    model = sample_model()
    with tempfile.TemporaryDirectory() as name:
        known = prepared(model, Path(name), TRAINING_PARTICLES, TRAINING_SEED)
        held_out = prepared(model, Path(name), HELD_OUT_PARTICLES, HELD_OUT_SEED)
    novelty = Novelty.fit(known, held_out)
    told = NoveltyCard(false_alarm_rate=FALSE_ALARM_RATE, particles=len(held_out))
    card = model.card.model_copy(update={"novelty": told})
    replace(model, card=card, novelty=novelty).save(output, overwrite=True)
    print(f"{output}: limit from {len(held_out)} particles")


if __name__ == "__main__":
    main()
