"""The model card, stored with the weights: what is needed to rebuild a model and to use it correctly."""

from __future__ import annotations

from typing import Annotated, Any, Literal, TypeAlias

from pydantic import (
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    PositiveFloat,
    PositiveInt,
    field_validator,
    model_validator,
)

from napari_cryosphere.so3.symmetry import normalise_group_name

__all__ = [
    "Calibration",
    "CustomConfig",
    "Image2SphereConfig",
    "ModelCard",
    "NetworkConfig",
    "NoveltyCard",
    "PolarConfig",
    "ResNetConfig",
    "ShiftCard",
    "StateCard",
]


class PolarConfig(BaseModel):
    """Shape of the polar network, see `napari_cryosphere.model.polar`."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    kind: Literal["polar"] = "polar"
    """Which network this is."""
    box: Annotated[int, Field(ge=16, le=64, multiple_of=2)] = 32
    """Box of the images that the network sees, in pixels; particles are resampled to it."""
    l_max: Annotated[int, Field(ge=1, le=16)] = 10
    """Largest degree of the log-density."""
    ring_channels: Annotated[int, Field(ge=2, le=2048, multiple_of=2)] = 128
    """Signals on the circle that all radii are merged into, at twice as many angles as the box."""
    ring_blocks: Annotated[int, Field(ge=0, le=8)] = 1
    """Residual blocks on these."""
    channels: Annotated[int, Field(ge=2, le=4096, multiple_of=2)] = 256
    """Signals on the circle after that, at as many angles as the box."""
    blocks: Annotated[int, Field(ge=0, le=16)] = 3
    """Residual blocks on these."""
    features: Annotated[int, Field(ge=2, le=4096, multiple_of=2)] = 384
    """Signals whose harmonics the log-density is a linear function of."""
    shifts: bool = False
    """Whether it also says where the particle lies in its image."""
    states: Annotated[int, Field(ge=1, le=20)] = 1
    """How many states of the molecule it tells apart: as many as the training's particles have."""
    matched: bool = False
    """Whether images are multiplied by their CTF first, where it is known: a matched filter."""

    @model_validator(mode="after")
    def _band_fits(self) -> PolarConfig:
        if 2 * self.l_max >= self.box:
            raise ValueError(
                f"l_max {self.l_max} needs a box of more than {2 * self.l_max}, not {self.box}"
            )
        return self


class ResNetConfig(BaseModel):
    """Shape of a ResNet of bottleneck blocks, see `napari_cryosphere.model.resnet`; that of ResNet-152."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    blocks: tuple[PositiveInt, PositiveInt, PositiveInt, PositiveInt] = (3, 8, 36, 3)
    """Blocks of each stage; 3, 4, 6, 3 is ResNet-50."""
    width: Annotated[int, Field(ge=1, le=256)] = 64
    """Channels of the first layer; the feature map has 32 times as many."""


class Image2SphereConfig(BaseModel):
    """Shape of Image2Sphere, see `napari_cryosphere.model.image2sphere`."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    kind: Literal["image2sphere"] = "image2sphere"
    """Which network this is."""
    box: Annotated[int, Field(ge=16, le=256, multiple_of=2)] = 32
    """Box of the images that the network sees, in pixels; particles are resampled to it."""
    encoder_channels: Annotated[tuple[int, ...], Field(min_length=1, max_length=5)] = (32, 64, 128)
    """Channels of the encoder's stages; each stage after the first halves the image."""
    encoder_blocks: Annotated[int, Field(ge=1, le=8)] = 1
    """Residual blocks a stage."""
    resnet: ResNetConfig | None = None
    """An encoder in place of the one above; its feature map is 32 times smaller than the image."""
    blurs_px: tuple[PositiveFloat, ...] = ()
    """Standard deviations of Gaussian filters; the filtered images are further channels of the input."""
    sphere_channels: Annotated[int, Field(ge=1, le=2048)] = 96
    """Channels of the feature map that is laid on the half-sphere."""
    sphere_order: Annotated[int, Field(ge=1, le=5)] = 3
    """HEALPix order of the points of the half-sphere."""
    sphere_share: Annotated[float, Field(gt=0, le=1)] = 1.0
    """Share of these points that a step of the training uses, drawn at random; afterwards all are used."""
    l_max: Annotated[int, Field(ge=1, le=16)] = 6
    """Largest degree of the spherical and SO(3) harmonics."""
    so3_channels: Annotated[int, Field(ge=1, le=512)] = 8
    """Signals on SO(3) between the S2 and the SO(3) convolution."""
    so3_filter: Literal["global", "local"] = "global"
    """Filters of the SO(3) convolution: any, or those that are zero where they tilt by over 22.5 degrees."""

    @model_validator(mode="after")
    def _centre_stays_on_a_pixel(self) -> Image2SphereConfig:
        if self.resnet is not None and self.box % 32:
            raise ValueError(f"a ResNet needs a box that is a multiple of 32, not {self.box}")
        return self


class CustomConfig(BaseModel):
    """A network from another package, see `napari_cryosphere.model.custom`."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    kind: Literal["custom"] = "custom"
    """Which network this is."""
    factory: Annotated[str, Field(pattern=r"^[A-Za-z_][\w.]*:[A-Za-z_]\w*$")]
    """Where it is made, ``package.module:function``; the function is marked by ``pose_network``."""
    box: Annotated[int, Field(ge=16, le=512, multiple_of=2)] = 32
    """Box of the images that the network sees, in pixels; particles are resampled to it."""
    l_max: Annotated[int, Field(ge=1, le=16)] = 6
    """Largest degree of the log-density."""
    options: dict[str, bool | int | float | str] = Field(default_factory=dict)
    """Further keyword arguments of the function."""


def _from_name(value: Any) -> Any:
    """Let a string name a custom network's factory."""
    return {"kind": "custom", "factory": value} if isinstance(value, str) else value


NetworkConfig: TypeAlias = Annotated[
    Annotated[PolarConfig | Image2SphereConfig | CustomConfig, Field(discriminator="kind")],
    BeforeValidator(_from_name),
]
"""The shape of any network; ``kind`` says which. A string is the ``factory`` of a custom one."""


class Calibration(BaseModel):
    """How probabilities compare with frequencies, see `napari_cryosphere.training.calibration`."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    temperature: Annotated[float, Field(gt=0)] = 1.0
    """Predicted log-densities are divided by this, at the contrast that follows or where it is not known."""
    log_contrast: float = 0.0
    """Mean contrast of these particles, see `napari_cryosphere.model.pose_network.log_contrast`."""
    slope: float = 0.0
    """How the temperature's logarithm changes with it; 0 for models that do not know."""
    particles: Annotated[int, Field(ge=0)] = 0
    """Number of held-out particles that it was fitted to."""
    coverage: dict[str, float] = Field(default_factory=dict)
    """Of credible sets, by their level: the share of these particles whose pose was inside."""


class NoveltyCard(BaseModel):
    """From what novelty on particles are suspect, see `napari_cryosphere.model.novelty`."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    false_alarm_rate: Annotated[float, Field(gt=0, lt=1)]
    """Share of particles like those of the training whose novelty is above 1."""
    particles: Annotated[int, Field(ge=1)]
    """Number of held-out particles that this limit comes from."""


class ShiftCard(BaseModel):
    """How sure predicted shifts are, see `napari_cryosphere.training.calibration`."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    scale: Annotated[float, Field(gt=0)] = 1.0
    """The network's standard deviations are multiplied by this."""
    particles: Annotated[int, Field(ge=0)] = 0
    """Number of held-out particles that it was fitted to."""
    median_angstrom: Annotated[float, Field(ge=0)] | None = None
    """Median error on these."""
    coverage: dict[str, float] = Field(default_factory=dict)
    """Of discs about the predicted shift, by their probability: the share of these particles inside."""


class StateCard(BaseModel):
    """How sure predicted states are, see `napari_cryosphere.training.calibration`."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    temperature: Annotated[float, Field(gt=0)] = 1.0
    """The logarithms of the states' probabilities are divided by this."""
    particles: Annotated[int, Field(ge=0)] = 0
    """Number of held-out particles that it was fitted to."""
    agreement: Annotated[float, Field(ge=0, le=1)] | None = None
    """Share of these whose most probable state is that of their labels."""


class ModelCard(BaseModel):
    """The JSON that travels in a model file."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    format: Annotated[int, Field(ge=1, le=1)] = 1
    network: NetworkConfig
    pixel_size_angstrom: Annotated[float, Field(gt=0)]
    """Pixel size of the images that the network sees (not of the particles it was trained on)."""
    symmetry: str = "C1"
    calibration: Calibration = Calibration()
    novelty: NoveltyCard | None = None
    """None for a model without it, which was trained on too few particles."""
    shifts: ShiftCard | None = None
    """None for a model that does not say where particles lie, or whose training did not know."""
    states: StateCard | None = None
    """None for a model of one state."""
    map_resolution_angstrom: Annotated[float, Field(gt=0)] | None = None
    """Where the half-maps of the run's map end (FSC 0.143); None for a map from elsewhere."""
    training: dict[str, Any] = Field(default_factory=dict)
    """How the model came to be: data, seconds, validation error. For people; nothing reads it back."""

    @field_validator("symmetry")
    @classmethod
    def _canonical(cls, value: str) -> str:
        return normalise_group_name(value)
