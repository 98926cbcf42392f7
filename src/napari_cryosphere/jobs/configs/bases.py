"""Bases of all configs: what jobs on particles, on maps and on both have in common."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal, Self, TypeAlias

from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    field_validator,
    model_validator,
)

from napari_cryosphere._ranges import RANGES
from napari_cryosphere.jobs.configs.fields import Argument, File, Option
from napari_cryosphere.so3.symmetry import normalise_group_name

__all__ = [
    "ComparedMaps",
    "Device",
    "Folder",
    "ImagesInput",
    "JobConfig",
    "LocalDegrees",
    "MapFile",
    "MapFiles",
    "MapInput",
    "MapsInput",
    "MaskChoice",
    "MaskedMapInput",
    "ModelFile",
    "NewDistributions",
    "NewMap",
    "NewParticles",
    "NewStar",
    "NewTable",
    "ParticlesFile",
    "ParticlesFiles",
    "ParticlesInput",
    "RunFolder",
    "StateMaps",
    "SymmetricConfig",
    "kept_there",
]

Device: TypeAlias = Literal["auto", "cpu", "cuda", "mps"]
ParticlesFile: TypeAlias = Annotated[Path, File("read", "*.star *.cs *.csg *.mrcs")]
_ONE_OR_MORE = Field(min_length=1, max_length=99)
_SINGLE_TOO = BeforeValidator(lambda value: (value,) if isinstance(value, str | Path) else value)
ParticlesFiles: TypeAlias = Annotated[tuple[ParticlesFile, ...], _ONE_OR_MORE, _SINGLE_TOO]
"""One or several files of particles; a single path will do."""
MapFile: TypeAlias = Annotated[Path, File("read", "*.mrc *.map *.ccp4")]
MapFiles: TypeAlias = Annotated[tuple[MapFile, ...], _ONE_OR_MORE, _SINGLE_TOO]
"""One map, or one for each state; a single path will do."""
MaskChoice: TypeAlias = Annotated[
    Literal["auto", "none"] | MapFile,
    # these words are no files
    BeforeValidator(lambda value: str(value) if str(value) in ("auto", "none") else value),
]
ModelFile: TypeAlias = Annotated[Path, File("read", "*.safetensors")]


def _ending_with(*suffixes: str) -> AfterValidator:
    """Return a check of an output's name: whoever reads the file goes by its suffix."""

    def checked(path: Path) -> Path:
        if path.suffix.lower() not in suffixes:
            raise ValueError(f"{path.name or path} must end with {' or '.join(suffixes)}")
        return path

    return AfterValidator(checked)


NewMap: TypeAlias = Annotated[
    Path, File("write", "*.mrc *.map *.ccp4"), _ending_with(".mrc", ".map", ".ccp4")
]
NewParticles: TypeAlias = Annotated[
    Path, File("write", "*.star *.cs"), _ending_with(".star", ".cs")
]
NewStar: TypeAlias = Annotated[Path, File("write", "*.star"), _ending_with(".star")]
NewDistributions: TypeAlias = Annotated[Path, File("write", "*.zarr")]
NewTable: TypeAlias = Annotated[Path, File("write", "*.csv")]
Folder: TypeAlias = Annotated[Path, File("folder")]
LocalDegrees: TypeAlias = Annotated[
    Annotated[float, Field(ge=0, le=180)] | None,
    # torchrun takes --local for the beginning of an option of its own
    Option(
        ("--local", "--local-degrees"),
        unset=("--global", "Search all orientations, which is the default."),
    ),
]


class JobConfig(BaseModel):
    """What all configs share: frozen, nothing unknown, outputs replaced only on request."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    overwrite: bool = False
    """Replace outputs that exist."""

    @property
    def kept_when_stopped(self) -> str:
        """What a run that is stopped leaves behind, in words."""
        return "no output was written"


def kept_there(where: Path, text: str) -> str:
    """Return what a run that is stopped leaves in a place, in words; nothing if it was not yet made."""
    return text if where.exists() else "nothing was finished yet"


class RunFolder(JobConfig):
    """A job that fills a folder, and keeps there what it goes on from if it is stopped."""

    output: Folder
    """Run folder."""
    resume: bool = False
    """Go on with a run that was stopped."""

    @property
    def kept_when_stopped(self) -> str:
        """What a run that is stopped leaves behind, in words."""
        text = f"what is finished is kept in {self.output}: the same command with --resume goes on"
        return kept_there(self.output, text)


class SymmetricConfig(JobConfig):
    """A job on a map, or on particles of one."""

    symmetry: str = "C1"
    """Point group of the map, in RELION's names."""

    @field_validator("symmetry")
    @classmethod
    def _canonical(cls, value: str) -> str:
        return normalise_group_name(value)


class ImagesInput(JobConfig):
    """How particles are read, whichever file they are in."""

    data_dir: Folder | None = None
    """Folder of the images, where they have moved."""
    select: Annotated[str, Field(min_length=1)] | None = None
    """Only the particles for which an expression on their columns is true, such as ``rlnClassNumber
    == 3 and rlnDefocusU < 20000``."""
    invert: bool = False
    """Invert the contrast of the images: for particles that are dark on a light background."""


class ParticlesInput(ImagesInput):
    """The particles that a job reads; `jobs.running.inputs.open_particles` opens them."""

    particles: Annotated[ParticlesFile, Argument()]
    """Particles: .star or .cs file, or a bare stack (.mrcs)."""


class MapsInput(JobConfig):
    """How maps are read, whichever files they are in; `jobs.running.references` opens them."""

    map_pixel_size_angstrom: Annotated[float, RANGES["rlnImagePixelSize"].bounds] | None = None
    """Pixel size of maps whose header is wrong; without it the header's."""


class MapInput(MapsInput):
    """The map that a job reads."""

    map: MapFile | None = None
    """Map, an MRC file."""

    @model_validator(mode="after")
    def _pixel_size_of_a_map(self) -> Self:
        if self.map is None and self.map_pixel_size_angstrom is not None:
            raise ValueError("map_pixel_size_angstrom goes with map, whose header it corrects")
        return self


class ComparedMaps(MapsInput):
    """How maps that particles are compared with are masked."""

    mask: MaskChoice = "auto"
    """Mask around the molecule that the map is multiplied by before it is compared: a file, values
    0 to 1; auto makes a wide soft one of what stands out of the map's background; none leaves the
    solvent in."""
    mask_radius_angstrom: Annotated[float, Field(gt=0)] | None = None
    """Radius of a soft sphere that takes the place of the mask."""


class MaskedMapInput(ComparedMaps, MapInput):
    """A map that particles are compared with."""


class StateMaps(ComparedMaps):
    """One map that particles are compared with, or one for each state."""

    map: MapFiles
    """Map to compare with, an MRC file; of several, one for each state of the molecule, in one
    frame, each particle's state is found with its pose."""
