"""Named ways to train, as frozen settings."""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType
from typing import Annotated

from pydantic import BaseModel, ConfigDict, Field

from napari_cryosphere.model.card import NetworkConfig
from napari_cryosphere.training.masks import LabelKind

__all__ = ["CRYOSPHERE", "PRESETS", "TrainingPreset"]


class TrainingPreset(BaseModel):
    """A network's shape and how it is trained."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    network: NetworkConfig
    labels: LabelKind | None = None
    """Targets on a grid of poses; None trains on the known poses themselves."""
    label_order: Annotated[int, Field(ge=0, le=4)] = 2
    """Order of the targets' grid."""
    label_fraction: Annotated[float, Field(gt=0, le=1)] = 0.05
    """Share of the grid in a ``mask``."""
    projections: Annotated[int, Field(ge=2)] | None = None
    """Number of different projections, where training images are made from a map; None for ever new ones."""
    epochs: Annotated[float, Field(gt=0)]
    batch_size: Annotated[int, Field(ge=2, le=4096)]
    learning_rate: Annotated[float, Field(gt=0, lt=1)]
    weight_decay: Annotated[float, Field(ge=0, lt=1)]


CRYOSPHERE = TrainingPreset(
    network=NetworkConfig(l_max=4),
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

PRESETS: Mapping[str, TrainingPreset] = MappingProxyType({"cryosphere": CRYOSPHERE})
"""All of them by name."""
