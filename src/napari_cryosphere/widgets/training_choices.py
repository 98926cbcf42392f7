"""What a training run can be told, read from the job's own config. Knows no Qt."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, get_args

if TYPE_CHECKING:
    from napari_cryosphere.jobs.configs import TrainConfig
    from napari_cryosphere.particles import DensityMap, ParticleStack

__all__ = ["BOTH", "LOADED", "PROJECTIONS", "TrainingChoices", "can_resume", "legal", "sources"]

BOTH, LOADED, PROJECTIONS = "projections, then the particles", "the particles at their poses", "projections"
_NAMES = {BOTH: "both", LOADED: "particles", PROJECTIONS: "map"}


def legal(field: str) -> tuple[str, ...]:
    """Return the legal values of a field of the config that takes names: ``preset``, ``device``."""
    from napari_cryosphere.jobs.configs import TrainConfig

    known = TrainConfig.model_fields.get(field)
    return () if known is None else tuple(str(value) for value in get_args(known.annotation))


def sources() -> tuple[str, ...]:
    """Return what a network can be trained on, in words."""
    return tuple(_NAMES)


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
        Go on with the run in the folder.
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
            If the folder cannot be written.
        """
        from napari_cryosphere.jobs.configs import TrainConfig

        values: dict[str, Any] = {
            "particles": stack.source,
            "output": self.folder,
            "minutes": self.minutes,
            "symmetry": symmetry,
            "source": _NAMES[self.source],
            "resume": self.resume,
        }
        values |= {name: value for name, value in self._named().items() if value is not None}
        if self.source != LOADED and self.density is not None:
            values["map"] = self._map_file(self.density)
        return TrainConfig(**values)

    def _named(self) -> dict[str, str | None]:
        return {"preset": self.preset, "device": self.device}

    def _map_file(self, density: DensityMap) -> Path:
        path = self.folder / "reference.mrc"
        density.save(path, overwrite=True)
        return path
