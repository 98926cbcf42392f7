"""Junk among particles: how well novelty tells it, and what that costs.

What is known are the reference data's training particles; a tenth of them are held out and set the
limit, as in training. Judged are the test particles and what a picker may bring beside them: white
noise; the other molecule, as large in pixels as this one and phase-flipped with its own CTF; noise
under an edge of carbon, a gradient or a round contaminant, of one to three standard deviations of
the noise; and particles under such an edge. Backgrounds are normalised as in any image. The share
of test particles above the limit is the rate of false alarms; the area under the ROC curve is of
junk against test particles. Needs the reference data (CRYOSPHERE_SHARED_DATA names its folder).
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import torch
from _common import cpu_seconds, has_data, options, report, roc_area
from network import SAMPLES, Sample
from torch import Tensor

from napari_cryosphere.imaging.prepared import PreparedImages
from napari_cryosphere.imaging.preprocess import Preprocessing, normalise_background, soft_circle
from napari_cryosphere.model.novelty import Novelty
from napari_cryosphere.particles import ImageGrid, ParticleStack

BOX = 32
PACKAGES = ["torch", "numpy"]


def prepared(path: Path, most: int) -> Tensor:
    """Return up to ``most`` particles of a file as a network sees them."""
    stack = ParticleStack.read(path)
    stack = stack[:: max(1, len(stack) // most)]
    grid = ImageGrid(BOX, stack.grid.field_angstrom / BOX)
    return PreparedImages(stack, Preprocessing(grid=grid)).load()


def junk(particles: Tensor, other: Tensor, seed: int = 0) -> dict[str, Tensor]:
    """Return images that are not of the particle, by kind."""
    generator = torch.Generator().manual_seed(seed)
    number = len(particles)
    y, x = torch.meshgrid(*[torch.linspace(-1, 1, BOX)] * 2, indexing="ij")
    angle = 2 * torch.pi * torch.rand(number, 1, 1, generator=generator)
    across = torch.cos(angle) * x + torch.sin(angle) * y
    offset = torch.rand(number, 1, 1, generator=generator) - 0.5
    height = 1 + 2 * torch.rand(number, 1, 1, generator=generator)
    noise = torch.randn(number, BOX, BOX, generator=generator)
    edge = height * torch.sigmoid(20 * (across - offset))
    blob = height * torch.exp(-((x - offset) ** 2 + (y + offset) ** 2) / (2 * 0.3**2))
    made = {
        "noise": noise,
        "edge": noise + edge,
        "gradient": noise + height * across,
        "contaminant": noise + blob,
        "particle under an edge": particles + edge,
    }
    circle = soft_circle(BOX)
    return {"other molecule": other} | {
        kind: normalise_background(of) * circle for kind, of in made.items()
    }


def told(sample: Sample, other: Sample, most: int) -> list[dict[str, Any]]:
    """Return a row for every kind of junk."""
    known = prepared(sample.path("train"), 4 * most)
    shuffled = known[torch.from_numpy(np.random.default_rng(0).permutation(len(known)))]
    held_out = max(100, len(known) // 10)
    novelty = Novelty.fit(shuffled[held_out:], shuffled[:held_out])
    assert novelty is not None
    particles = prepared(sample.path("test"), most)
    usual = novelty(particles).double().numpy()
    cost = cpu_seconds(lambda: novelty(particles), 5) / len(particles)
    rows = []
    for kind, images in junk(particles, prepared(other.path("test"), most)).items():
        unusual = novelty(images).double().numpy()
        is_junk = np.repeat([True, False], [len(unusual), len(usual)])
        rows.append(
            {
                "set": sample.name,
                "junk": kind,
                "auroc": roc_area(np.concatenate([unusual, usual]), is_junk),
                "flagged": float((unusual > 1).mean()),
                "false_alarms": float((usual > 1).mean()),
                "cost_ms": 1e3 * cost,
            }
        )
    return rows


def main() -> None:
    """Judge both sets."""
    arguments = options(__doc__.splitlines()[0])
    if not has_data():
        return
    torch.set_num_threads(1)
    most = 250 if arguments.quick else 1000
    report(
        "novelty",
        [row for at, sample in enumerate(SAMPLES) for row in told(sample, SAMPLES[1 - at], most)],
        arguments,
        PACKAGES,
    )


if __name__ == "__main__":
    main()
