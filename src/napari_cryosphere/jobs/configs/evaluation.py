"""The configs of CESPED's benchmark: evaluation, entries and protocol."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any, Literal, TypeAlias

from pydantic import AfterValidator, Field, model_validator

from napari_cryosphere.evaluation.download import ZENODO
from napari_cryosphere.evaluation.half_maps import Predicts
from napari_cryosphere.jobs.configs.bases import (
    Device,
    Folder,
    ImagesInput,
    JobConfig,
    MapFile,
    ParticlesFile,
    kept_there,
)
from napari_cryosphere.jobs.configs.fields import Argument, Option
from napari_cryosphere.so3.symmetry import normalise_group_name

__all__ = [
    "AddEntryConfig",
    "CespedConfig",
    "DownloadEntryConfig",
    "EvaluateConfig",
    "EvaluatingConfig",
    "ListEntriesConfig",
    "MergeReportsConfig",
    "PointGroup",
]

PointGroup: TypeAlias = Annotated[str, AfterValidator(normalise_group_name)]
"""A point group in RELION's names, in capitals."""
Tables: TypeAlias = Annotated[tuple[ParticlesFile, ...], Field(min_length=1, max_length=2)]
"""One STAR file, or one for each half."""
Confidence: TypeAlias = Literal["cryosphereConfidence", "rlnMaxValueProbDistribution", "none"]

DEFAULT_FOLDER = Path("cesped")
"""Where entries are looked for."""


EntriesFolder: TypeAlias = Annotated[
    Folder, Option(("--benchmark-dir",), variable="CESPED_BENCHMARK_DIR")
]


class EvaluatingConfig(JobConfig):
    """How predicted poses, and the maps that they give, are compared with true ones."""

    symmetry: PointGroup = "C1"
    """Point group of the map, in RELION's names."""
    maps: bool | None = None
    """Whether maps are reconstructed and compared; None where the truth's images are found."""
    predicts: Predicts = "SO3"
    """What the maps take from the predictions; the rest of a pose is the truth's."""
    weighted: bool = True
    """Weigh particles by rlnParticleFigureOfMerit, where the column is there."""
    relion: bool = False
    """Reconstruct with relion_reconstruct."""


class EvaluateConfig(EvaluatingConfig, ImagesInput):
    """Predicted poses against true ones, and the maps of both."""

    truth: Tables
    """STAR files with the true poses: one, or one a half."""
    predicted: Tables
    """STAR files with the predicted poses: one, or one a half."""
    output: Folder
    """Folder for metrics.json, errors.csv, fsc.csv, plot.svg and the maps."""
    mask: MapFile | None = None
    """Mask that both maps of a comparison are multiplied with; without it the maps as they are."""
    data_dir: Folder | None = None
    """Folder of the truth's images, where they have moved."""
    select: Annotated[str, Field(min_length=1)] | None = None
    """Compare only the particles for which an expression on the predictions' columns is true, such
    as ``cryosphereConfidence > 0.8``."""


class ListEntriesConfig(JobConfig):
    """The entries on Zenodo and those in the folder."""

    benchmark_dir: EntriesFolder = DEFAULT_FOLDER
    """Folder of the entries."""
    as_json: Annotated[bool, Option(("--json",))] = False
    """Print JSON."""


class DownloadEntryConfig(JobConfig):
    """An entry, or one half of it, from Zenodo."""

    entry: Annotated[str, Argument()]
    """Its name, such as TEST or 10280."""
    half: Annotated[Literal[0, 1] | None, Argument()] = None
    """One half only; None for both."""
    benchmark_dir: EntriesFolder = DEFAULT_FOLDER
    """Folder of the entries."""
    mask: bool = True
    """Also fetch the entry's mask."""
    server: str = ZENODO
    """Where the records are."""

    @property
    def kept_when_stopped(self) -> str:
        """What a run that is stopped leaves behind, in words."""
        return "the bytes so far are kept: the same command goes on from there"


class AddEntryConfig(ImagesInput):
    """Particles with poses as a local entry."""

    name: Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9_.-]*$"), Argument()]
    """Name of the entry and of its folder."""
    particles: Annotated[Tables, Argument()]
    """One file for each half, or one that rlnRandomSubset splits."""
    symmetry: PointGroup = "C1"
    """Point group of the map, in RELION's names."""
    benchmark_dir: EntriesFolder = DEFAULT_FOLDER
    """Folder of the entries."""
    mask: MapFile | None = None
    """Mask to evaluate with; copied into the entry."""
    simulated: bool = False
    """Reports say so."""


class CespedConfig(JobConfig):
    """The gold-standard protocol: each half's poses predicted by a model that saw the other half only."""

    entry: Annotated[str, Argument()]
    """Name of an entry in the folder."""
    output: Folder
    """Folder for models, predictions, maps and the report."""
    benchmark_dir: EntriesFolder = DEFAULT_FOLDER
    """Folder of the entries."""
    minutes: Annotated[float, Field(gt=0)] = 15
    """Time for training each of the two models."""
    preset: str | None = None
    """Named settings of network and training, as of ``train``; None for its default."""
    network: str | None = None
    """A network of another package, package.module:function, as of ``train``."""
    device: Device = "auto"
    """Where the arithmetic is done; auto takes a GPU if there is one."""
    train: dict[str, Any] = Field(default_factory=dict)
    """Further settings of the command ``train``, by its keys."""
    trained_on: str | None = None
    """Train on this entry instead, of the same molecule: its box, pixels, noise and defocus may differ."""
    models: Folder | None = None
    """Output of an earlier run whose models are used instead of training."""
    mask: MapFile | None = None
    """Mask to evaluate with; without it the entry's, if it has one."""
    predicts: Predicts = "SO3"
    """What the maps take from the predictions; the rest of a pose is the truth's."""
    confidence: Confidence = "cryosphereConfidence"
    """Column of the predictions that becomes rlnParticleFigureOfMerit, by which particles weigh in a map."""
    relion: bool = False
    """Reconstruct with relion_reconstruct; with ``local_degrees`` also refine with relion_refine."""
    local_degrees: Annotated[
        Annotated[float, Field(gt=0, le=180)] | None, Option(("--local", "--local-degrees"))
    ] = None
    """Refine the predicted poses within this angle, each half against its own map, and evaluate again."""
    rounds: Annotated[int, Field(ge=1, le=20)] = 2
    """Rounds of reconstruction and refinement."""
    compare_global: bool = False
    """Also search all orientations against the same maps, for its time and its errors."""
    resume: bool = False
    """Go on with a run that was stopped: stages that it finished are not done again."""

    @model_validator(mode="after")
    def _consistent(self) -> CespedConfig:
        if self.compare_global and self.local_degrees is None:
            raise ValueError("compare_global goes with local_degrees, whose maps it searches with")
        taken = {
            "particles",
            "output",
            "symmetry",
            "half_set",
            "minutes",
            "overwrite",
        } & self.train.keys()
        if taken:
            raise ValueError(f"train.{sorted(taken)[0]} is set by the protocol")
        return self

    @property
    def kept_when_stopped(self) -> str:
        """What a run that is stopped leaves behind, in words."""
        text = f"finished stages are kept in {self.output}: the same command with --resume goes on"
        return kept_there(self.output, text)


class MergeReportsConfig(JobConfig):
    """The reports of several runs as one."""

    runs: Annotated[tuple[Folder, ...], Field(min_length=1), Argument()]
    """Outputs of ``cesped run``."""
    output: Folder
    """Folder for the report."""
