"""Configs of jobs on a finished map: its symmetry, and its hand."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field, field_validator

from napari_cryosphere.jobs.configs.bases import (
    Folder,
    MapFile,
    MapsInput,
    NewMap,
    ParticlesFile,
    SymmetricConfig,
)
from napari_cryosphere.jobs.configs.fields import Argument, Option
from napari_cryosphere.so3.symmetry import normalise_group_name

__all__ = ["FlipHandConfig", "MapSymmetryConfig"]


class _MapAndParticles(MapsInput):
    map: Annotated[MapFile, Argument()]
    """Map; its half-maps, MAP_half1.mrc and MAP_half2.mrc or half1.mrc and half2.mrc next to it, go
    the same way."""
    particles: ParticlesFile | None = None
    """Particles whose poses belong to the map; written as OUTPUT with the suffix .star."""
    data_dir: Folder | None = None
    """Folder of the images, where they have moved."""


class MapSymmetryConfig(_MapAndParticles):
    """The point groups that a map has, and its axes laid into RELION's frame."""

    output: NewMap | None = None
    """Map to write with the axes in RELION's frame; without it nothing is moved."""
    symmetry: Annotated[str, Field(min_length=1), Option(("--symmetry",))] | None = None
    """The group whose axes are looked for; without it every one, and the largest found is laid."""
    resolution_angstrom: Annotated[float, Field(gt=0)] | None = None
    """Finest detail compared. Without it: as far as the map can be trusted, by the FSC next to it
    or its own noise, and 20 shells at most."""

    @field_validator("symmetry")
    @classmethod
    def _canonical(cls, value: str | None) -> str | None:
        return None if value is None else normalise_group_name(value)


class FlipHandConfig(_MapAndParticles, SymmetricConfig):
    """A map and its particles' poses, both of the other hand."""

    output: NewMap
    """Map to write."""
