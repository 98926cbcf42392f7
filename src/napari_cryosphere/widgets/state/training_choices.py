"""Settings of a training run, read from the job's own config."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, get_args

if TYPE_CHECKING:
    from napari_cryosphere.jobs.training_configs import TrainConfig
    from napari_cryosphere.particles import DensityMap, ParticleStack

__all__ = [
    "BOTH",
    "LOADED",
    "PROJECTIONS",
    "TrainingChoices",
    "can_resume",
    "legal",
    "source_of",
    "sources",
]

BOTH, LOADED, PROJECTIONS = (
    "projections, then the particles",
    "the particles at their poses",
    "projections",
)
_NAMES = {BOTH: "both", LOADED: "particles", PROJECTIONS: "map"}


def legal(field: str) -> tuple[str, ...]:
    """Return the legal values of a field of the config that takes names: ``preset``, ``device``."""
    from napari_cryosphere.jobs.training_configs import TrainConfig

    known = TrainConfig.model_fields.get(field)
    return () if known is None else tuple(str(value) for value in get_args(known.annotation))


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

    Attributes
    ----------
    folder
        Run folder.
    minutes
        Time budget.
    source
        One of `sources`.
    density
        The map that is projected; None for the one that the particles give at their own poses.
    preset, device
        Names of the config; None for its own default.
    resume
        Go on with the run in the folder, as it was begun: of the other choices, only the device
        counts.
    """

    folder: Path
    minutes: float = 10.0
    source: str = BOTH
    density: DensityMap | None = None
    preset: str | None = None
    device: str | None = None
    resume: bool = False

    def config(self, stack: ParticleStack, symmetry: str) -> TrainConfig:
        """Return the job's config; a map in memory is written into the run folder.

        Raises
        ------
        CryosphereError
            If the folder cannot be written, or the run in it cannot be read.
        """
        from napari_cryosphere.jobs.training_configs import TrainConfig

        if self.resume:
            here = {"particles": stack.source, "output": self.folder, "resume": True}
            return TrainConfig.of_run(self.folder).model_copy(update=here | self._named("device"))
        values: dict[str, Any] = {
            "particles": stack.source,
            "output": self.folder,
            "minutes": self.minutes,
            "symmetry": symmetry,
            "source": _NAMES[self.source],
        }
        values |= self._named("preset") | self._named("device")
        if self.source != LOADED and self.density is not None:
            values["map"] = self._map_file(self.density)
        return TrainConfig(**values)

    def _named(self, field: str) -> dict[str, str]:
        """Return a choice that may be left to the config, if it is made."""
        name = getattr(self, field)
        return {} if name is None else {field: name}

    def _map_file(self, density: DensityMap) -> Path:
        path = self.folder / "reference.mrc"
        density.save(path, overwrite=True)
        return path
