"""One frozen config for every verb: the dock edits it, the command line fills it, the run stores it."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal, TypeAlias

from pydantic import BaseModel, ConfigDict, Field, field_validator, model_validator

from napari_cryosphere.model.card import NetworkConfig
from napari_cryosphere.so3.symmetry import normalise_group_name

__all__ = [
    "ConvertConfig",
    "DemoConfig",
    "Device",
    "FscConfig",
    "InferConfig",
    "JobConfig",
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


class ConvertConfig(JobConfig):
    """Particles from one format to another."""

    particles: Path
    output: Path
    """.star for RELION, .cs for cryoSPARC."""
    data_dir: Path | None = None

    @field_validator("output")
    @classmethod
    def _known(cls, value: Path) -> Path:
        if value.suffix.lower() not in (".star", ".cs"):
            raise ValueError(f"the output must end with .star or .cs, not {value.suffix or value.name}")
        return value


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


class FscConfig(JobConfig):
    """The Fourier shell correlation of two maps."""

    first: Path
    second: Path
    output: Path
    mask: Path | None = None


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
