"""The commands of the command line and of the window: their jobs and configs, imported when asked for.

A new command is a config, a job that takes it, and a row here.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from napari_cryosphere.jobs.configs import JobConfig
    from napari_cryosphere.jobs.configs.fields import FieldSpec
    from napari_cryosphere.jobs.events import Events

__all__ = ["COMMANDS", "GROUPS", "Command"]


@dataclass(frozen=True)
class Command:
    """One command.

    - ``name``: as it is typed; a command of a group has two words.
    - ``job``, ``config``: where function and config are, ``module:name`` below
      `napari_cryosphere.jobs`. The function takes the config and yields events, or returns the text
      to print.
    - ``help``: one line.
    - ``fixed``: fields of the config that the command itself gives.
    - ``without``: further fields that it does not offer.
    """

    name: str
    job: str
    config: str
    help: str
    fixed: Mapping[str, Any] = field(default_factory=dict)
    without: tuple[tuple[str, ...], ...] = ()

    def load_job(self) -> Callable[[Any], Events | str]:
        """Return the function that does the work."""
        return _load(self.job)

    def load_config(self) -> type[JobConfig]:
        """Return the class of the config."""
        return _load(self.config)

    def fields(self) -> tuple[FieldSpec, ...]:
        """Return the fields of the config that the command offers."""
        from napari_cryosphere.jobs.configs.fields import fields_of

        return tuple(
            spec
            for spec in fields_of(self.load_config())
            if spec.kind != "nested"
            and spec.name not in self.fixed
            and spec.path not in self.without
        )


def _load(where: str) -> Any:
    module, _, name = where.partition(":")
    return getattr(import_module(f"napari_cryosphere.jobs.{module}"), name)


GROUPS = {
    "cesped": "CESPED's benchmark: its entries, and its protocol on them.",
    "experiment": "CryoSphere's experiments: each writes CSV, PNG and a Markdown report.",
}
"""Groups of commands, and what they are for."""

_EXPERIMENT = ("experiment:experiment", "configs.training:ExperimentConfig")

COMMANDS = (
    Command(
        "demo",
        "demo:demo",
        "configs:DemoConfig",
        "Simulate, predict, reconstruct and compare, and open napari on the result.",
    ),
    Command(
        "info",
        "info:info",
        "configs:InfoConfig",
        "Say what a file holds.",
        without=(("overwrite",),),
    ),
    Command(
        "convert",
        "convert:convert",
        "configs:ConvertConfig",
        "Convert particles between STAR and .cs, or a map to another box, pixel size or resolution.",
    ),
    Command(
        "simulate",
        "simulate:simulate",
        "configs:SimulateConfig",
        "Simulate particles from a map, or from an atomic model.",
    ),
    Command(
        "density",
        "density:density",
        "configs:DensityConfig",
        "Make a density map from an atomic model.",
    ),
    Command(
        "train",
        "train:train",
        "configs.training:TrainConfig",
        "Train a pose network on particles with known poses.",
    ),
    Command(
        "infer",
        "infer:infer",
        "configs:InferConfig",
        "Predict each particle's pose and how sure it is.",
    ),
    Command(
        "align",
        "align:align",
        "configs:AlignConfig",
        "Find each particle's pose and shift by comparing it with a map.",
    ),
    Command(
        "abinitio",
        "abinitio:abinitio",
        "configs:AbInitioConfig",
        "Find a coarse map and poses from the images alone, without a map and without poses.",
    ),
    Command(
        "refine",
        "refine:refine",
        "configs:RefineConfig",
        "Refine poses and a map from a coarse start, with half sets that never see each other.",
    ),
    Command(
        "variability",
        "variability:variability",
        "configs:VariabilityConfig",
        "Find in which ways particles at known poses differ, and place each along that.",
    ),
    Command(
        "solve",
        "solve:solve",
        "configs:SolveConfig",
        "Go from particles alone to a map, poses, a trained network and one page of results.",
    ),
    Command(
        "reconstruct",
        "reconstruct:reconstruct",
        "configs:ReconstructConfig",
        "Reconstruct a map from particles at their poses.",
    ),
    Command(
        "fsc", "fsc:fsc", "configs:FscConfig", "Compare two maps by Fourier shell correlation."
    ),
    Command(
        "postprocess",
        "postprocess:postprocess",
        "configs:PostprocessConfig",
        "Sharpen a map and measure its resolution from its half-maps.",
    ),
    Command(
        "symmetry",
        "map_tools:symmetry",
        "configs.map_tools:MapSymmetryConfig",
        "Say which point groups a map has, and lay its axes into RELION's frame.",
    ),
    Command(
        "flip-hand",
        "map_tools:flip_hand",
        "configs.map_tools:FlipHandConfig",
        "Mirror a map with its half-maps and its particles' poses.",
    ),
    Command(
        "evaluate",
        "evaluate:evaluate",
        "configs.evaluation:EvaluateConfig",
        "Compare predicted poses, and the maps they make, with the true ones: CESPED's metrics.",
    ),
    Command(
        "equivariance",
        "equivariance:equivariance",
        "configs:EquivarianceConfig",
        "Measure how equivariant a model is: volumes turned in space, images in their plane.",
    ),
    Command(
        "watch",
        "watch:watch",
        "configs:WatchConfig",
        "Follow a folder while a microscope writes: poses, half-maps and FSC grow with it.",
    ),
    Command(
        "cesped list",
        "cesped.entries:entries_text",
        "configs.evaluation:ListEntriesConfig",
        "List the entries on Zenodo and those in the folder.",
        without=(("overwrite",),),
    ),
    Command(
        "cesped download",
        "cesped.entries:download_entry",
        "configs.evaluation:DownloadEntryConfig",
        "Fetch an entry from Zenodo; run again, it goes on where it stopped.",
    ),
    Command(
        "cesped add",
        "cesped.entries:add_entry",
        "configs.evaluation:AddEntryConfig",
        "Make a local entry of particles with poses; their images are copied.",
    ),
    Command(
        "cesped run",
        "cesped.protocol:run_entry",
        "configs.evaluation:CespedConfig",
        "Run the gold-standard protocol: each half's poses from a model of the other half.",
    ),
    Command(
        "cesped report",
        "cesped.entries:merge_reports",
        "configs.evaluation:MergeReportsConfig",
        "Put the reports of several runs into one table, next to the published values.",
    ),
    Command(
        "experiment equivariance",
        *_EXPERIMENT,
        "Train, then measure equivariance against an untrained network and shuffled rotations.",
        {"name": "equivariance"},
        (("projections",), ("test_views",)),
    ),
    Command(
        "experiment projections",
        *_EXPERIMENT,
        "Train on more and more projections: what is known of views seen, and of others.",
        {"name": "projections"},
        (("preset", "projections"),),
    ),
    Command(
        "experiment labels",
        *_EXPERIMENT,
        "Train on binary masks, on raw 1/MSE and on one-hot labels.",
        {"name": "labels"},
        (("projections",),),
    ),
)
