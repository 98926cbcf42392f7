"""What a training run can be told, read from the job's own config. Knows no Qt."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, get_args

from napari_cryosphere.errors import CryosphereError

if TYPE_CHECKING:
    from napari_cryosphere.jobs.configs import TrainConfig
    from napari_cryosphere.particles import DensityMap, ParticleStack

__all__ = ["BOTH", "LOADED", "PROJECTIONS", "TrainingChoices", "can_resume", "legal", "sources"]

LOADED, PROJECTIONS, BOTH = "loaded poses", "projections of a map", "both"
_SOURCE_FIELD = {LOADED: "poses", PROJECTIONS: "map", BOTH: "both"}


def legal(field: str) -> tuple[str, ...]:
    """Return the legal values of a field of the config that takes names: ``preset``, ``device``."""
    from napari_cryosphere.jobs.configs import TrainConfig

    known = TrainConfig.model_fields.get(field)
    return () if known is None else tuple(str(value) for value in get_args(known.annotation))


def sources() -> tuple[str, ...]:
    """Return what a network can be trained on; both only where the job knows how."""
    return (LOADED, PROJECTIONS, BOTH) if _SOURCE_FIELD[BOTH] in legal("source") else (LOADED, PROJECTIONS)


def can_resume(folder: Path) -> bool:
    """Return whether a run folder holds a run that the job can go on with."""
    from napari_cryosphere.jobs.configs import TrainConfig

    return "resume" in TrainConfig.model_fields and (folder / "config.json").is_file()


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
        The map that is projected, where the source needs one.
    preset, device
        Names of the config; None for its own default.
    resume
        Go on with the run in the folder.
    """

    folder: Path
    minutes: float = 10.0
    source: str = LOADED
    density: DensityMap | None = None
    preset: str | None = None
    device: str | None = None
    resume: bool = False

    def config(self, stack: ParticleStack, symmetry: str) -> TrainConfig:
        """Return the job's config; a map in memory is written into the run folder.

        Raises
        ------
        CryosphereError
            If a map is needed and none is chosen, or the folder cannot be written.
        """
        from napari_cryosphere.jobs.configs import TrainConfig

        values: dict[str, Any] = {
            "particles": stack.source,
            "output": self.folder,
            "minutes": self.minutes,
            "symmetry": symmetry,
        }
        values |= {name: value for name, value in self._named().items() if value is not None}
        if self.source != LOADED:
            values["map"] = self._map_file()
        if self.resume:
            values["resume"] = True
        return TrainConfig(**values)

    def _named(self) -> dict[str, str | None]:
        named = {"preset": self.preset, "device": self.device}
        if _SOURCE_FIELD[self.source] in legal("source"):
            named["source"] = _SOURCE_FIELD[self.source]
        return named

    def _map_file(self) -> Path:
        if self.density is None:
            raise CryosphereError("no map to train on: open an MRC map or reconstruct one")
        path = self.folder / "reference.mrc"
        self.density.save(path, overwrite=True)
        return path
