"""Named ways to train, as frozen settings."""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType
from typing import Annotated, Literal, TypeAlias

from pydantic import BaseModel, ConfigDict, Field

from napari_cryosphere.model.card import (
    Image2SphereConfig,
    NetworkConfig,
    PolarConfig,
    ResNetConfig,
)

__all__ = [
    "CESPED",
    "CESPED_AUGMENTATION",
    "CRYOSPHERE",
    "DEFAULT",
    "IMAGE2SPHERE",
    "PRESETS",
    "TURN_AND_SHIFT",
    "Augmentation",
    "LabelKind",
    "SourceKind",
    "TrainingPreset",
]

SourceKind: TypeAlias = Literal["both", "map", "particles"]
"""Projections of a map, then the particles themselves; or only one of these."""

LabelKind: TypeAlias = Literal["mask", "raw", "one-hot"]
"""Targets that are probabilities on a grid of poses, see `napari_cryosphere.training.masks`."""

Probability: TypeAlias = Annotated[float, Field(ge=0, le=1)]


class Augmentation(BaseModel):
    """How often each change is made to an image, and how far it goes at most; the default changes nothing.

    How far it goes is drawn evenly from its range for each image.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    shift_probability: Probability = 0.0
    """Of a shift."""
    shift_fraction: Annotated[float, Field(ge=0, le=0.25)] = 0.0
    """Largest shift along x and along y, either way, as a share of the box."""
    turn_probability: Probability = 0.0
    """Of a turn by any angle."""
    turn_degrees: Annotated[float, Field(ge=0, le=180)] = 0.0
    """Largest turn about the image's centre, either way."""
    quarter_turn_probability: Probability = 0.0
    """Of a turn by 0, 90, 180 or 270 degrees, all four as likely."""
    zoom_probability: Probability = 0.0
    """Of a change of size."""
    zoom_in: Annotated[float, Field(ge=0, le=0.5)] = 0.0
    """The particle becomes larger by at most this share."""
    zoom_out: Annotated[float, Field(ge=0, le=0.5)] = 0.0
    """The particle becomes smaller by at most this share."""
    uniform_noise_probability: Probability = 0.0
    """Of added noise that is drawn evenly from an interval."""
    uniform_noise_width: Annotated[float, Field(ge=0, le=10)] = 0.0
    """Largest width of the interval about 0 that noise is drawn from, in sd of the background."""
    gaussian_noise_probability: Probability = 0.0
    """Of added Gaussian noise."""
    gaussian_noise_sd: Annotated[float, Field(ge=0, le=10)] = 0.0
    """Largest standard deviation of noise, in sd of the background."""
    erasing_probability: Probability = 0.0
    """Of a patch that is erased."""
    erasing_fraction: Annotated[float, Field(ge=0, le=0.5)] = 0.0
    """Largest area of the patch that is set to 0, as a share of the image's."""

    @property
    def turns(self) -> bool:
        """Whether images are turned, so that their poses change."""
        return self.turn_probability * self.turn_degrees > 0 or self.quarter_turn_probability > 0


CESPED_AUGMENTATION = Augmentation(
    shift_probability=0.5,
    shift_fraction=0.05,
    turn_probability=0.5,
    turn_degrees=20,
    quarter_turn_probability=1,
    zoom_probability=0.2,
    zoom_in=0.05,
    uniform_noise_probability=0.2,
    uniform_noise_width=2,
    gaussian_noise_probability=0.2,
    gaussian_noise_sd=0.5,
    erasing_probability=0.1,
    erasing_fraction=0.02,
)
"""CESPED's appendix B. That the scale of the uniform noise is its full width, and that the area of
a patch is meant, follows its program."""

TURN_AND_SHIFT = Augmentation(
    shift_probability=1, shift_fraction=1 / 64, turn_probability=1, turn_degrees=180
)
"""Any turn about the centre, and a shift by up to half a pixel of a box of 32."""


class TrainingPreset(BaseModel):
    """A network's shape and how it is trained.

    The defaults: the polar network on projections of the map that the particles' own poses give,
    then on the particles.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    network: NetworkConfig = PolarConfig(shifts=True, matched=True)
    """Shape of the network."""
    source: SourceKind = "both"
    """What is shown."""
    fine_tuning: Annotated[float, Field(ge=0, lt=1)] = 0.1
    """Share of the run that the particles themselves have at the end, where the source is ``both``."""
    labels: LabelKind | None = None
    """Targets on a grid of poses; None trains on the known poses themselves."""
    label_order: Annotated[int, Field(ge=0, le=4)] = 2
    """Order of the targets' grid."""
    label_fraction: Annotated[float, Field(gt=0, le=1)] = 0.05
    """Share of the grid in a ``mask``."""
    projections: Annotated[int, Field(ge=2)] | None = None
    """Number of different projections, where labels are made from a map; None for one per particle."""
    loss_order: Annotated[int, Field(ge=2, le=5)] = 3
    """Order of the grid that the density is normalised on, where the labels are the known poses."""
    augmentation: Augmentation = TURN_AND_SHIFT
    """How the particles themselves are changed every time they are shown."""
    optimizer: Literal["adamw", "radam"] = "adamw"
    """How weights follow from gradients: AdamW, or RAdam."""
    epochs: Annotated[float, Field(gt=0)] = 75
    """Passes over the particles, or as many simulated images."""
    batch_size: Annotated[int, Field(ge=2, le=4096)] = 32
    """Images of a step."""
    learning_rate: Annotated[float, Field(gt=0, lt=1)] = 2e-3
    """Largest step, after the warm-up."""
    weight_decay: Annotated[float, Field(ge=0, lt=1)] = 1e-4
    """How fast weights shrink, relative to the learning rate."""
    halve_after_epochs: Annotated[int, Field(ge=1)] | None = None
    """The learning rate is halved when the validation loss has not fallen for so long; None lets it
    fall along a cosine."""
    stop_after_epochs: Annotated[int, Field(ge=1)] | None = None
    """The training ends when the validation loss has not fallen for so long."""


DEFAULT = TrainingPreset()

IMAGE2SPHERE = TrainingPreset(
    network=Image2SphereConfig(),
    source="particles",
    epochs=50,
    batch_size=64,
    learning_rate=5e-3,
    weight_decay=1e-4,
)
"""A small Image2Sphere (Klee et al. 2023), every layer of it in one frame, on the particles."""

CRYOSPHERE = TrainingPreset(
    network=Image2SphereConfig(l_max=4, encoder_channels=(16, 32, 64), sphere_channels=64),
    source="map",
    labels="mask",
    label_order=2,
    label_fraction=0.05,
    projections=400,
    epochs=200,
    batch_size=32,
    learning_rate=1e-3,
    weight_decay=1e-4,
)
"""CryoSphere's settings (Chheda & Nori, poster): Image2Sphere of degree 4, 200 epochs at a learning
rate of 0.001 on 50 to 400 projections, labels the largest 5 % of 1/MSE. The poster does not state
the grid, the batch size, the optimiser and the encoder; these are this package's."""

CESPED = TrainingPreset(
    network=Image2SphereConfig(
        box=256,
        resnet=ResNetConfig(blocks=(3, 8, 36, 3), width=64),
        blurs_px=(1.0, 2.0),
        sphere_channels=512,
        sphere_order=3,
        sphere_share=0.5,
        l_max=8,
        so3_channels=16,
        so3_filter="local",
    ),
    source="particles",
    loss_order=4,
    augmentation=CESPED_AUGMENTATION,
    optimizer="radam",
    halve_after_epochs=10,
    stop_after_epochs=12,
    epochs=400,
    batch_size=128,
    learning_rate=1e-3,
    weight_decay=1e-5,
)
"""CESPED's settings (Sanchez-Garcia et al. 2023, section 2.4, appendix B); the batch size is its
program's.

512 channels on the half-sphere go into the S2 convolution and 16 come out of it. Its filters, of
global support, are held as harmonics of degree 8, which is all that a filter on a HEALPix grid can
contribute. What differs: all points of the half-sphere are used at inference; features are laid on
it by bilinear interpolation; a linear path is added to the SO(3) convolution, and batch
normalisation before the ReLU; the density is read at the known pose rather than at the nearest of
the grid's."""

PRESETS: Mapping[str, TrainingPreset] = MappingProxyType(
    {"default": DEFAULT, "image2sphere": IMAGE2SPHERE, "cryosphere": CRYOSPHERE, "cesped": CESPED}
)
"""All of them by name."""
