"""Whether a model is one for these particles: a look at some of them before any prediction.

A network answers for every image, also of a molecule that it has never seen, and may be sure of it.
What tells is asked here: pixel size and box, the point group, how unlike the training's images the
particles are, and whether they show the map of the model's own run.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np

from napari_cryosphere.errors import CryosphereError
from napari_cryosphere.jobs.align import prepare_aligner
from napari_cryosphere.jobs.configs import PredictingConfig
from napari_cryosphere.jobs.running.predictor import Predictor, pilot_of
from napari_cryosphere.model.novelty import is_novel
from napari_cryosphere.model.pose_model import REFERENCE_MAP, PoseModel, model_file
from napari_cryosphere.particles import DensityMap, ParticleStack

__all__ = ["ModelFit", "check_fit"]

_CHECKED = 64  # particles: a share of a half is then known to 6 percent
_FIELD_SEEN = 0.75  # of the model's field of view: less, and a third of its image is padding
_COARSER = 1.02  # of the model's pixels, which are rounded to whole boxes


@dataclass(frozen=True)
class ModelFit:
    """What was found.

    - ``checked``: number of particles looked at.
    - ``foreign``: reasons to think that the model was trained on something else; empty if there are
      none.
    - ``odd``: what lowers the accuracy and does not forbid a prediction.
    - ``model_symmetry``: point group of the model.
    - ``symmetry``: that of the particles, None if it is not known.
    """

    checked: int
    foreign: tuple[str, ...]
    odd: tuple[str, ...]
    model_symmetry: str
    symmetry: str | None

    @property
    def symmetry_differs(self) -> bool:
        """Whether particles and model are known to have different point groups."""
        return self.symmetry not in (None, self.model_symmetry)

    @property
    def verdict(self) -> str:
        """The result in a sentence or two."""
        if self.foreign:
            reasons = "; ".join(self.foreign)
            return f"This model was trained on another molecule, or on other images: {reasons}."
        seen = f"The model fits these particles ({self.checked} looked at)"
        return f"{seen}, but {'; '.join(self.odd)}." if self.odd else f"{seen}."


def check_fit(
    model: PoseModel, stack: ParticleStack, symmetry: str | None = None, path: Path | None = None
) -> ModelFit:
    """Look at up to 64 particles spread over a stack; takes a few seconds.

    The map is only looked for where the images are like the training's.

    ``model``, ``path``: the model, and its file or run folder, whose own map is compared with where
    there is one. ``stack``, ``symmetry``: the particles, and their point group where it is known.
    Raises `CryosphereError` if images cannot be read.
    """
    rows = np.unique(np.linspace(0, len(stack) - 1, _CHECKED).round().astype(int))
    some = stack[rows]
    foreign = []
    reference = None if path is None else model_file(path).with_name(REFERENCE_MAP)
    if model.novelty is not None:
        unlike = Predictor(model, some).novelty()
        if unlike is not None and is_novel(unlike):
            foreign.append(f"{(unlike > 1).sum()} of {len(rows)} images are unlike its training's")
    if not foreign and reference is not None and reference.is_file():
        seen = _seen(model, some, DensityMap.read(reference))
        if seen <= len(rows) // 2:
            foreign.append(f"its map is seen in {seen} of {len(rows)} images")
    return ModelFit(len(rows), tuple(foreign), _odd(model, stack), model.card.symmetry, symmetry)


def _seen(model: PoseModel, some: ParticleStack, density: DensityMap) -> int:
    """Return in how many particles a map is seen more probably than not."""
    settings = PredictingConfig(model=Path())
    try:
        aligner = prepare_aligner(
            some,
            density,
            model.card.symmetry,
            model.card.map_resolution_angstrom,
            device=next(model.network.parameters()).device,
            pilot=pilot_of(model, some, settings.modes),
        )
    except CryosphereError:  # nothing of the map in them, or dark where it is bright
        return 0
    predictor = Predictor(model, some, aligner, settings.modes, settings.climbed)
    every = slice(0, len(some))
    posed, _ = predictor.posed(predictor.work(every, predictor.read(every)))
    return int((posed.particles["cryospherePresence"] > 0.5).sum())


def _odd(model: PoseModel, stack: ParticleStack) -> tuple[str, ...]:
    """Return how pixel size and field of view differ from what the network sees."""
    odd = []
    card, grid = model.card, stack.grid
    field = card.network.box * card.pixel_size_angstrom
    if grid.pixel_size_angstrom > _COARSER * card.pixel_size_angstrom:
        odd.append(
            f"their pixels of {grid.pixel_size_angstrom:.3g} Å are coarser than the "
            f"{card.pixel_size_angstrom:.3g} Å that it sees"
        )
    if grid.field_angstrom < _FIELD_SEEN * field:
        odd.append(f"their images show {grid.field_angstrom:.0f} Å of the {field:.0f} Å it sees")
    return tuple(odd)
