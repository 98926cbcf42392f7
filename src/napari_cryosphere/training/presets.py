"""Named ways to train, as frozen settings."""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType
from typing import Annotated, Literal, TypeAlias

from pydantic import BaseModel, ConfigDict, Field

from napari_cryosphere.model.card import Image2SphereConfig, NetworkConfig, PolarConfig
from napari_cryosphere.training.masks import LabelKind

__all__ = ["CRYOSPHERE", "DEFAULT", "IMAGE2SPHERE", "PRESETS", "Schedule", "SourceKind", "TrainingPreset"]

SourceKind: TypeAlias = Literal["both", "map", "particles"]
"""Projections of a map, then the particles themselves; or only one of these."""

Schedule: TypeAlias = Literal["cosine", "plateau"]


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
    epochs: Annotated[float, Field(gt=0)] = 75
    batch_size: Annotated[int, Field(ge=2, le=4096)] = 32
    learning_rate: Annotated[float, Field(gt=0, lt=1)] = 2e-3
    weight_decay: Annotated[float, Field(ge=0, lt=1)] = 1e-4
    schedule: Schedule = "cosine"
    patience: Annotated[int, Field(ge=1)] | None = None
    """Stop when the validation loss has not fallen for this many validations; None never does."""


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
    network=Image2SphereConfig(l_max=4),
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

PRESETS: Mapping[str, TrainingPreset] = MappingProxyType(
    {"default": DEFAULT, "image2sphere": IMAGE2SPHERE, "cryosphere": CRYOSPHERE}
)
"""All of them by name."""
