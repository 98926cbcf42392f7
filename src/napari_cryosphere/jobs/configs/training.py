"""Configs of jobs that train networks; apart, so that other jobs need not know the network's presets."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any, Literal, TypeAlias

from pydantic import Field, ValidationError, field_validator, model_validator

from napari_cryosphere.errors import CryosphereError
from napari_cryosphere.jobs.configs.bases import (
    Device,
    Folder,
    ImagesInput,
    MapFile,
    MapInput,
    MaskedMapInput,
    ParticlesFiles,
    SymmetricConfig,
)
from napari_cryosphere.jobs.configs.fields import Argument, File, Inside, Option
from napari_cryosphere.model.card import NetworkConfig, PolarConfig
from napari_cryosphere.training.presets import CRYOSPHERE, PRESETS, TrainingPreset

__all__ = ["ExperimentConfig", "PresetName", "TrainConfig", "TrainingConfig"]

PresetName: TypeAlias = Literal["default", "image2sphere", "cryosphere", "cesped"]


class TrainingConfig(SymmetricConfig, TrainingPreset):
    """How a pose network is trained. What is not given is the preset's."""

    network: Annotated[NetworkConfig, Option(("--network",), by_name=True)] = PolarConfig()
    """Shape of the network; or package.module:function, which makes a network of another package
    (see `napari_cryosphere.model.custom`)."""
    preset: PresetName = "default"
    """Named settings of network and training; what is given with it wins."""
    minutes: Annotated[float, Field(gt=0)] | None = None
    """Time budget. Without it, ``epochs`` decides: passes over the particles, or as many simulated images."""
    validation_fraction: Annotated[float, Field(gt=0, lt=1)] | None = None
    """Share of the particles held out, whole micrographs where they are known, 500 particles at
    most. Without it 5 %, or up to 10 % to have 250."""
    half_set: Literal[1, 2] | None = None
    """Train on one half only (rlnRandomSubset)."""
    seed: Annotated[int, Field(ge=0)] = 0
    """The same seed gives the same run, where its length is counted in images."""
    device: Device = "auto"
    """Where the arithmetic is done; auto takes a GPU if there is one."""

    @model_validator(mode="before")
    @classmethod
    def _the_rest_from_the_preset(cls, values: Any) -> Any:
        if not isinstance(values, dict) or values.get("preset", "default") not in PRESETS:
            return values
        preset = PRESETS[values.get("preset", "default")].model_dump()
        if values.get("map") is not None:
            preset["source"] = "map"
        return _updated(preset, values)


class TrainConfig(TrainingConfig, ImagesInput, MaskedMapInput):
    """A pose network trained on particles with known poses, or on projections of a map.

    What is not given is the preset's.
    """

    particles: Annotated[ParticlesFiles, Argument()]
    """Particles: .star or .cs file, or a bare stack (.mrcs). Of several data sets of one molecule,
    in one frame, all are learnt from, and the error on held-out particles is given for each."""
    output: Folder
    """Run folder: model.safetensors, config.json, log.jsonl, map.mrc."""
    map: MapFile | None = None
    """Map to make projections of, with the CTFs, shifts, noise and contrast of the particles.
    Without it the map that the training particles give at their own poses."""
    init: Annotated[Path, File("read", "*.safetensors")] | None = None
    """Model or run folder to begin with in place of random weights, of the same network: one
    trained on another molecule or on simulations. Its calibration and novelty are measured again.
    """
    encoder_weights: Annotated[Path, File("read", "*.safetensors")] | None = None
    """safetensors file with weights for a ResNet encoder, as ImageNet's; without it they are random."""
    checkpoint_seconds: Annotated[float, Field(ge=0), Option(("--checkpoint-seconds",))] = 60.0
    """How often the state is kept that a run can go on from."""
    resume: bool = False
    """Go on with a run that was stopped or killed."""

    @field_validator("particles")
    @classmethod
    def _each_once(cls, value: tuple[Path, ...]) -> tuple[Path, ...]:
        for place, path in enumerate(value):
            if path.absolute() in {other.absolute() for other in value[:place]}:
                raise ValueError(f"{path} is given twice; name each data set once")
        return value

    @model_validator(mode="after")
    def _map_is_used(self) -> TrainConfig:
        if self.map is not None and self.source == "particles":
            raise ValueError(
                "source 'particles' makes no projections; omit the map, or ask for 'both'"
            )
        if self.init is not None and self.encoder_weights is not None:
            raise ValueError("init gives all weights; omit encoder_weights")
        return self

    @classmethod
    def of_run(cls, folder: Path) -> TrainConfig:
        """Return the config that a folder's run was begun with. Raises `CryosphereError` if unreadable."""
        path = folder / "config.json"
        try:
            return cls.model_validate_json(path.read_text(encoding="utf-8"))
        except (OSError, ValidationError) as error:
            raise CryosphereError(f"{path} cannot be read: {str(error).splitlines()[0]}") from error

    @property
    def checkpoint(self) -> Path:
        """File that holds the state while the job runs."""
        return self.output / "checkpoint.safetensors"

    @property
    def kept_when_stopped(self) -> str:
        """What a run that is stopped leaves behind, in words."""
        return f"once it has learnt, the model is in {self.output}; the same command with --resume goes on"


class ExperimentConfig(SymmetricConfig, MapInput):
    """One of CryoSphere's experiments."""

    name: Literal["equivariance", "projections", "labels"]
    """Which one."""
    output: Folder
    """Folder for the report; the equivariance experiment also leaves its model there."""
    quick: bool = False
    """Less of everything: to see that it works, not what comes out."""
    map: MapFile | None = None
    """Volume to look at; without it the package's phantom."""
    field_angstrom: Annotated[
        Annotated[float, Field(gt=0)] | None, Option(("--field-angstrom",))
    ] = None
    """Width of the images; without it that of the map."""
    snr: Annotated[float, Field(gt=0)] | None = None
    """Signal-to-noise ratio of the images; without it no noise."""
    preset: Annotated[TrainingPreset, Inside(("epochs", "projections"))] = CRYOSPHERE
    """How networks are trained, and on how many projections unless the experiment varies that."""
    projections: Annotated[tuple[Annotated[int, Field(ge=2)], ...], Field(min_length=1)] = (
        50,
        100,
        200,
        400,
    )
    """Numbers of projections that the experiment of that name trains on."""
    test_views: Annotated[int, Field(ge=2)] = 500
    """Views held out."""
    seed: Annotated[int, Field(ge=0)] = 0
    """The same seed gives the same figures."""

    @model_validator(mode="before")
    @classmethod
    def _over_the_posters(cls, values: Any) -> Any:
        """Fill in what is not given: the poster's preset key by key, and less of everything if ``quick``."""
        if not isinstance(values, dict):
            return values
        quick = bool(values.get("quick"))
        less = {"projections": (16, 32), "test_views": 32} if quick else {}
        preset = CRYOSPHERE.model_dump() | ({"epochs": 10, "projections": 32} if quick else {})
        given = values.get("preset", {})
        if isinstance(given, TrainingPreset):
            given = given.model_dump()
        return {
            **less,
            **values,
            "preset": _updated(preset, given) if isinstance(given, dict) else given,
        }


def _updated(values: dict[str, Any], changes: dict[str, Any]) -> dict[str, Any]:
    """Return values with changes at any depth; what changes its kind keeps nothing of the other kind."""
    if changes.get("kind", values.get("kind")) != values.get("kind"):
        return changes
    merged = values | changes
    for key, change in changes.items():
        if isinstance(change, dict) and isinstance(values.get(key), dict):
            merged[key] = _updated(values[key], change)
    return merged
