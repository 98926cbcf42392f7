"""A trained network with its card: saved, loaded and asked for poses."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from os import PathLike
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from pydantic import ValidationError
from safetensors import SafetensorError, safe_open
from torch import Tensor

from napari_cryosphere._files import write_tensors
from napari_cryosphere.errors import ModelError
from napari_cryosphere.model.card import (
    Calibration,
    CustomConfig,
    Image2SphereConfig,
    ModelCard,
    NetworkConfig,
)
from napari_cryosphere.model.custom import CustomNetwork
from napari_cryosphere.model.image2sphere import Image2Sphere
from napari_cryosphere.model.novelty import Novelty
from napari_cryosphere.model.polar import PolarNetwork
from napari_cryosphere.model.pose_network import PoseNetwork, log_contrast, state_shares
from napari_cryosphere.so3.distributions import PoseDistribution

__all__ = [
    "LARGEST_CHANGE",
    "MODEL_FILE",
    "REFERENCE_MAP",
    "PoseModel",
    "Prediction",
    "build_network",
    "model_file",
    "temperatures",
]

MODEL_FILE = "model.safetensors"
"""Name of the model in a run folder."""

REFERENCE_MAP = "map.mrc"
"""Name of the map in a run folder that training images were projections of."""

LARGEST_CHANGE = 0.4
"""Of a temperature's logarithm, by the CTF; no calibration looks farther. Chosen, not tuned."""

_CARD_KEY = "napari_cryosphere"
_NOVELTY = "novelty."  # what the names of its tensors begin with


def model_file(path: Path) -> Path:
    """Return the model file that a path means: itself, or the one in a run folder."""
    return path / MODEL_FILE if path.is_dir() else path


def build_network(config: NetworkConfig) -> PoseNetwork:
    """Return an untrained network; its weights come from torch's global random generator."""
    if isinstance(config, CustomConfig):
        return CustomNetwork(config)
    return Image2Sphere(config) if isinstance(config, Image2SphereConfig) else PolarNetwork(config)


def temperatures(calibration: Calibration, ctf: Tensor | None) -> Tensor:
    """Return what each particle's coefficients are divided by, ``(n, 1, 1, 1)``, or one for all."""
    mean = torch.tensor(calibration.temperature)
    if ctf is None or calibration.slope == 0:
        return mean
    change = calibration.slope * (log_contrast(ctf) - calibration.log_contrast)
    bounded = change.clamp(-LARGEST_CHANGE, LARGEST_CHANGE)
    return (mean.to(ctf) * bounded.exp())[:, None, None, None]


class Prediction(NamedTuple):
    """What a model says of ``n`` particles.

    - ``distribution``: of their poses.
    - ``novelty``, ``(n,)``: how unlike the training's particles they are, above 1 where one is
      suspect, see `napari_cryosphere.model.novelty`; None if the model has no measure of it.
    - ``origins_angstrom``: ``(n, 2)`` x and y, as rlnOriginX/YAngst: the particle's centre is at
      minus this from pixel n // 2. None if the model does not say.
    - ``origin_spread_angstrom``: ``(n,)`` standard deviation of these along each axis; None
      likewise.
    - ``states``: ``(n, k)`` probabilities of the states; None from a model of one state.
    """

    distribution: PoseDistribution
    novelty: NDArray[np.float64] | None
    origins_angstrom: NDArray[np.float64] | None = None
    origin_spread_angstrom: NDArray[np.float64] | None = None
    states: NDArray[np.float64] | None = None


@dataclass(frozen=True)
class PoseModel:
    """A network, its card, and its measure of novelty, None if it was trained on too few particles."""

    network: PoseNetwork
    card: ModelCard
    novelty: Novelty | None = None

    def _repr_html_(self) -> str:
        """Return a table of the card, for notebooks."""
        from napari_cryosphere._html import page

        card = self.card
        entries = {
            "network": card.network.kind,
            "l_max": card.network.l_max,
            "parameters": sum(parameter.numel() for parameter in self.network.parameters()),
            "box": card.network.box,
            "pixel_size_angstrom": card.pixel_size_angstrom,
            "symmetry": card.symmetry,
            "temperature": card.calibration.temperature,
        }
        return page("Pose model", entries | card.training)

    @classmethod
    def create(cls, card: ModelCard) -> PoseModel:
        """Build an untrained model; its weights come from torch's global random generator."""
        return cls(build_network(card.network), card)

    def predict(self, images: Tensor, ctf: Tensor | None = None) -> PoseDistribution:
        """Return the pose distributions of prepared images.

        ``images``: ``(n, box, box)`` float32, prepared at the card's box and pixel size. ``ctf``,
        ``(n, box // 2 + 1)``: what the CTF left of them, see
        `napari_cryosphere.imaging.ctf.radial_ctf`; None where it is not known. The same images give
        the same distributions, in any batch.
        """
        return self.predict_all(images, ctf).distribution

    def predict_all(self, images: Tensor, ctf: Tensor | None = None) -> Prediction:
        """Return the poses, novelty, shifts and states of prepared images, see `predict`."""
        self.network.eval()
        device = next(self.network.parameters()).device
        with torch.inference_mode():
            moved, ctf = images.to(device), None if ctf is None else ctf.to(device)
            logits, shifts, states = self.network.answers(moved, ctf)
            coefficients = logits / temperatures(self.card.calibration, ctf)
            if states is not None and self.card.states is not None:
                temperature = torch.tensor([self.card.states.temperature])
                states = state_shares(states, coefficients, temperature)[0]
            distance = None if self.novelty is None else self.novelty(moved).double().cpu().numpy()
        distribution = PoseDistribution.from_coefficients(coefficients, self.card.symmetry)
        said = Prediction(distribution, distance)
        if shifts is not None and self.card.shifts is not None:
            pixel, scale = self.card.pixel_size_angstrom, self.card.shifts.scale
            means, variances = (values.double().cpu().numpy() for values in shifts)
            spread = np.sqrt(variances) * scale * pixel
            said = said._replace(origins_angstrom=-means * pixel, origin_spread_angstrom=spread)
        if states is not None and self.card.states is not None:
            said = said._replace(states=states.double().cpu().numpy())
        return said

    def to(self, device: torch.device) -> PoseModel:
        """Move the network to a device, in place; returns self."""
        self.network.to(device)
        if self.novelty is not None:
            self.novelty.to(device)
        return self

    def save(self, path: Path, *, overwrite: bool = False) -> None:
        """Write weights and card to one safetensors file; what can be rebuilt is not stored."""
        tensors = self.network.state_dict()
        if self.novelty is not None:
            tensors |= {_NOVELTY + name: value for name, value in self.novelty.state_dict().items()}
        weights = {name: value.detach().cpu().numpy() for name, value in tensors.items()}
        card = {_CARD_KEY: self.card.model_dump_json()}
        write_tensors(weights, path, card, overwrite=overwrite)

    @classmethod
    def load(cls, path: str | PathLike[str]) -> PoseModel:
        """Read a model file, or the one in a run folder.

        Raises `ModelError` if there is no model, or it is broken or not one of ours.
        """
        file = model_file(Path(path))
        if not file.is_file():
            raise ModelError(
                f"{file} does not exist; give a model file or a run folder that holds {MODEL_FILE}"
            )
        try:
            with safe_open(file, framework="pt") as stored:
                metadata: Mapping[str, str] = stored.metadata() or {}
                weights = {name: stored.get_tensor(name) for name in stored.keys()}  # noqa: SIM118
            card = ModelCard.model_validate_json(metadata[_CARD_KEY])
        except (SafetensorError, KeyError, ValidationError, OSError) as error:
            reason = (
                "it has no model card"
                if isinstance(error, KeyError)
                else str(error).splitlines()[0]
            )
            raise ModelError(
                f"{file} is not a napari-cryosphere model: {reason}; train one or give another"
            ) from error
        model = cls.create(card)
        stored = {name: weights.pop(name) for name in list(weights) if name.startswith(_NOVELTY)}
        try:
            model.network.load_state_dict(weights)
            if card.novelty is not None:
                novelty = Novelty(card.network.box)
                novelty.load_state_dict(
                    {name.removeprefix(_NOVELTY): value for name, value in stored.items()}
                )
                model = replace(model, novelty=novelty)
        except RuntimeError as error:
            raise ModelError(
                f"{file}: its weights do not fit its own card; the file is damaged"
            ) from error
        model.network.eval()
        return model
