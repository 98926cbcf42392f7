"""The choices of the training dock, and the job's config that they make."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from napari_cryosphere.errors import CryosphereError

if TYPE_CHECKING:
    from napari_cryosphere.jobs.configs.training import TrainConfig
    from napari_cryosphere.particles import DensityMap, ParticleStack

__all__ = ["BOTH", "LOADED", "PROJECTIONS", "TrainingChoices", "can_resume", "source_of", "sources"]

BOTH, LOADED, PROJECTIONS = (
    "projections, then the particles",
    "the particles at their poses",
    "projections",
)
_NAMES = {BOTH: "both", LOADED: "particles", PROJECTIONS: "map"}


def sources() -> tuple[str, ...]:
    """Return what a network can be trained on, in words."""
    return tuple(_NAMES)


def source_of(config: TrainConfig) -> str:
    """Return what a run learns from, in words."""
    return next(words for words, name in _NAMES.items() if name == config.source)


def can_resume(folder: Path) -> bool:
    """Return whether a run folder holds a run that was stopped or killed and can go on."""
    return (folder / "config.json").is_file() and (folder / "checkpoint.safetensors").is_file()


@dataclass(frozen=True)
class TrainingChoices:
    """The choices of the training dock.

    - ``folder``: run folder.
    - ``settings``: values of `TrainConfig`'s fields, such as ``preset`` and ``minutes``; what is
      not there has the config's own default.
    - ``source``: one of `sources`.
    - ``density``: the map that is projected; None for the one that the particles give at their own
      poses.
    - ``resume``: go on with the run in the folder, as it was begun: of the other choices, only the
      device counts.
    """

    folder: Path
    settings: Mapping[str, Any] = field(default_factory=dict)
    source: str = BOTH
    density: DensityMap | None = None
    resume: bool = False

    def config(self, stack: ParticleStack, symmetry: str) -> TrainConfig:
        """Return the job's config; a map in memory is written into the run folder.

        Raises `CryosphereError` if a setting is not legal, the folder cannot be written, or the run
        in it cannot be read.
        """
        from pydantic import ValidationError

        from napari_cryosphere.jobs.configs.fields import complaint, fields_of
        from napari_cryosphere.jobs.configs.training import TrainConfig

        if self.resume:
            here = {"particles": (stack.source,), "output": self.folder, "resume": True}
            device = {"device": self.settings["device"]} if "device" in self.settings else {}
            return TrainConfig.of_run(self.folder).model_copy(update=here | device)
        values: dict[str, Any] = {
            **self.settings,
            "particles": stack.source,
            "output": self.folder,
            "symmetry": symmetry,
            "source": _NAMES[self.source],
        }
        if self.source != LOADED and self.density is not None:
            values["map"] = self._map_file(self.density)
        try:
            return TrainConfig.model_validate(values)
        except ValidationError as error:
            text = complaint(error, TrainConfig, fields_of(TrainConfig), lambda spec: spec.label)
            raise CryosphereError(text) from error

    def _map_file(self, density: DensityMap) -> Path:
        path = self.folder / "reference.mrc"
        density.save(path, overwrite=True)
        return path
