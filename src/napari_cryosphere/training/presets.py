"""Named ways to train, as frozen settings."""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType
from typing import Annotated, Literal, TypeAlias

from pydantic import BaseModel, ConfigDict, Field

from napari_cryosphere.model.card import Image2SphereConfig, NetworkConfig, PolarConfig, ResNetConfig
from napari_cryosphere.training.augmentation import CESPED_AUGMENTATION, TURN_AND_SHIFT, Augmentation
from napari_cryosphere.training.masks import LabelKind

__all__ = ["CESPED", "CRYOSPHERE", "DEFAULT", "IMAGE2SPHERE", "PRESETS", "SourceKind", "TrainingPreset"]

SourceKind: TypeAlias = Literal["both", "map", "particles"]
"""Projections of a map, then the particles themselves; or only one of these."""


class TrainingPreset(BaseModel):
    """A network's shape and how it is trained.

    As it stands: the polar network on projections of the map that the particles' own poses give, then on the
    particles.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    network: NetworkConfig = PolarConfig()
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
    """Number of different projections, where labels are made from a map; None for one a particle."""
    loss_order: Annotated[int, Field(ge=2, le=5)] = 3
    """Order of the grid that the density is normalised on, where the labels are the known poses."""
    augmentation: Augmentation = TURN_AND_SHIFT
    """How the particles themselves are changed every time they are shown."""
    optimizer: Literal["adamw", "radam"] = "adamw"
    epochs: Annotated[float, Field(gt=0)] = 75
    batch_size: Annotated[int, Field(ge=2, le=4096)] = 32
    learning_rate: Annotated[float, Field(gt=0, lt=1)] = 2e-3
    weight_decay: Annotated[float, Field(ge=0, lt=1)] = 1e-4
    halve_after_epochs: Annotated[int, Field(ge=1)] | None = None
    """The learning rate is halved when the validation loss has not fallen for so long; None lets it fall
    along a cosine."""
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
"""CryoSphere's settings (Chheda & Nori, poster): Image2Sphere of degree 4, 200 epochs at a learning rate of
0.001 on 50 to 400 projections, labels the largest 5 % of 1/MSE. The poster does not state the grid, the batch
size, the optimiser and the encoder; these are this package's."""

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
"""CESPED's settings (Sanchez-Garcia et al. 2023, section 2.4, appendix B); the batch size is its program's.

512 channels on the half-sphere go into the S2 convolution and 16 come out of it. Its filters, of global
support, are held as harmonics of degree 8, which is all that a filter on a HEALPix grid can contribute. What
differs: all points of the half-sphere are used at inference; features are laid on it by bilinear
interpolation; a linear path stands beside the SO(3) convolution, and batch normalisation before the ReLU;
the density is read at the known pose rather than at the nearest of the grid's."""

PRESETS: Mapping[str, TrainingPreset] = MappingProxyType(
    {"default": DEFAULT, "image2sphere": IMAGE2SPHERE, "cryosphere": CRYOSPHERE, "cesped": CESPED}
)
"""All of them by name."""
