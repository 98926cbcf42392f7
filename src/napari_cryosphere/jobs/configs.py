"""One frozen config for every verb: the dock edits it, the command line fills it, the run stores it."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal, TypeAlias

from pydantic import BaseModel, ConfigDict, Field, field_validator, model_validator

from napari_cryosphere.model.card import NetworkConfig
from napari_cryosphere.so3.symmetry import normalise_group_name

__all__ = [
    "DemoConfig",
    "Device",
    "FscConfig",
    "InferConfig",
    "JobConfig",
    "PostprocessConfig",
    "ReconstructConfig",
    "SimulateConfig",
    "TrainConfig",
]

Device: TypeAlias = Literal["auto", "cpu", "cuda", "mps"]


class JobConfig(BaseModel):
    """What all configs share: frozen, nothing unknown, outputs replaced only on request."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    overwrite: bool = False
    """Replace outputs that exist."""

    @property
    def kept_when_stopped(self) -> str:
        """What a run that is stopped leaves behind, in words."""
        return "no output was written"


class _WithSymmetry(JobConfig):
    symmetry: str = "C1"
    """Point group of the map, in RELION's names."""

    @field_validator("symmetry")
    @classmethod
    def _canonical(cls, value: str) -> str:
        return normalise_group_name(value)


class SimulateConfig(_WithSymmetry):
    """Particles simulated from a map."""

    map: Path
    output: Path
    """STAR file to write; the images go beside it, with the suffix .mrcs."""
    number: Annotated[int, Field(ge=1)] = 1000
    snr: Annotated[float, Field(gt=0)] = 0.1
    """Signal-to-noise ratio; infinite for no noise."""
    seed: Annotated[int, Field(ge=0)] = 0
    shift_px: Annotated[float, Field(ge=0)] = 3.0
    """Largest shift along x and along y, in pixels."""
    ctf: bool = True


class TrainConfig(_WithSymmetry):
    """A pose network trained on particles with known poses, or on projections of a map."""

    particles: Path
    output: Path
    """Run folder: model.safetensors, config.json, log.jsonl."""
    data_dir: Path | None = None
    map: Path | None = None
    """Train on projections of this map, with the CTFs, shifts, noise and contrast of the particles."""
    preset: Literal["image2sphere"] = "image2sphere"
    network: NetworkConfig = NetworkConfig()
    minutes: Annotated[float, Field(gt=0)] | None = None
    """Time budget. Without it, ``epochs`` decides."""
    epochs: Annotated[float, Field(gt=0)] = 50
    """Passes over the particles (or as many simulated images), where no time budget is set."""
    batch_size: Annotated[int, Field(ge=2, le=4096)] = 64
    learning_rate: Annotated[float, Field(gt=0, lt=1)] = 5e-3
    weight_decay: Annotated[float, Field(ge=0, lt=1)] = 1e-4
    validation_fraction: Annotated[float, Field(gt=0, lt=1)] = 0.05
    half_set: Literal[1, 2] | None = None
    """Train on one half only (rlnRandomSubset)."""
    seed: Annotated[int, Field(ge=0)] = 0
    device: Device = "auto"

    @property
    def kept_when_stopped(self) -> str:
        """What a run that is stopped leaves behind, in words."""
        return f"once it has reported a loss, the model learnt so far is in {self.output}"


class InferConfig(JobConfig):
    """Poses predicted by a model."""

    particles: Path
    model: Path
    """Model file, or the run folder that holds it."""
    output: Path
    data_dir: Path | None = None
    batch_size: Annotated[int, Field(ge=1, le=4096)] = 128
    device: Device = "auto"


class ReconstructConfig(_WithSymmetry):
    """A map from particles and their poses."""

    particles: Path
    output: Path
    data_dir: Path | None = None
    half_maps: bool = False
    """Also write OUTPUT_half1.mrc, OUTPUT_half2.mrc and their FSC, OUTPUT_fsc.csv."""
    mask: Path | None = None
    """Mask for the half-maps' FSC."""
    padding: Literal[1, 2, 3] = 2
    regularise: bool = True
    """Filter the map by the FSC of its half-maps (Wiener); half-maps stay as they are."""

    @property
    def kept_when_stopped(self) -> str:
        """What a run that is stopped leaves behind, in words."""
        return (
            f"once particles were inserted, their map is in {self.output.stem}_partial.mrc beside "
            f"{self.output.name}"
        )


class FscConfig(JobConfig):
    """The Fourier shell correlation of two maps."""

    first: Path
    second: Path
    output: Path
    """CSV file to write."""
    mask: Path | None = None
    cones: bool = False
    """Also measure the FSC in cones, which shows a preferred orientation: columns cone_min and cone_max."""


class PostprocessConfig(JobConfig):
    """Half-maps to a sharpened map and their FSC."""

    half1: Path
    half2: Path
    output: Path
    """Map to write; OUTPUT_fsc.csv, OUTPUT_fsc.star and OUTPUT_fsc.xml go beside it."""
    mask: Path | None = None
    """Mask around the molecule; None makes one from the low-passed map and writes OUTPUT_mask.mrc."""
    b_factor: float | None = None
    """B-factor to sharpen with in square angstrom (negative sharpens); None fits it to the Guinier plot."""
    fit_from_angstrom: Annotated[float, Field(gt=0)] = 10.0
    """Lowest resolution of the Guinier fit."""
    fit_to_angstrom: Annotated[float, Field(ge=0)] = 0.0
    """Highest resolution of the Guinier fit; 0 for Nyquist."""
    low_pass_angstrom: Annotated[float, Field(gt=0)] | None = None
    """Resolution of the final low-pass filter; None takes that of the half-maps."""
    seed: Annotated[int, Field(ge=0, lt=2**31)] = 0
    """Of the random phases."""


class DemoConfig(JobConfig):
    """The demonstration on simulated particles."""

    output: Path = Path("demo-output")
    number: Annotated[int, Field(ge=16, le=100_000)] = 1000
    snr: Annotated[float, Field(gt=0)] = 0.3

    @model_validator(mode="after")
    def _even(self) -> DemoConfig:
        if self.number % 2:
            raise ValueError(f"number must be even (two half sets), not {self.number}")
        return self
