"""What is written beside the weights: everything needed to rebuild a model and to use it rightly."""

from __future__ import annotations

from typing import Annotated, Any

from pydantic import BaseModel, ConfigDict, Field, field_validator

from napari_cryosphere.so3.symmetry import normalise_group_name

__all__ = ["ModelCard", "NetworkConfig"]


class NetworkConfig(BaseModel):
    """Shape of the network."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    box: Annotated[int, Field(ge=16, le=256, multiple_of=2)] = 32
    """Box of the images that the network sees, in pixels; particles are resampled to it."""
    encoder_channels: Annotated[tuple[int, ...], Field(min_length=1, max_length=5)] = (32, 64, 128)
    """Channels of the encoder's stages; each stage after the first halves the image."""
    encoder_blocks: Annotated[int, Field(ge=1, le=8)] = 1
    """Residual blocks a stage."""
    sphere_channels: Annotated[int, Field(ge=1, le=2048)] = 96
    """Channels of the feature map that is laid on the half-sphere."""
    sphere_order: Annotated[int, Field(ge=1, le=5)] = 3
    """HEALPix order of the points of the half-sphere; all of them are used, in training and after."""
    l_max: Annotated[int, Field(ge=1, le=16)] = 6
    """Largest degree of the spherical and SO(3) harmonics."""
    so3_channels: Annotated[int, Field(ge=1, le=512)] = 8
    """Signals on SO(3) between the S2 and the SO(3) convolution."""


class ModelCard(BaseModel):
    """The JSON that travels in a model file."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    format: Annotated[int, Field(ge=1, le=1)] = 1
    network: NetworkConfig
    pixel_size_angstrom: Annotated[float, Field(gt=0)]
    """Pixel size of the images that the network sees (not of the particles it was trained on)."""
    symmetry: str = "C1"
    training: dict[str, Any] = Field(default_factory=dict)
    """How the model came to be: data, seconds, validation error. For people; nothing reads it back."""

    @field_validator("symmetry")
    @classmethod
    def _canonical(cls, value: str) -> str:
        return normalise_group_name(value)
