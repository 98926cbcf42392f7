"""Configs of jobs: one frozen declaration per command.

The command line and the window's forms are made of it, and the run stores it.
"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any, Literal, Self

from pydantic import Field, FiniteFloat, model_validator

from napari_cryosphere._ranges import RANGES
from napari_cryosphere.imaging.atomic_model import is_atomic_model
from napari_cryosphere.imaging.orientations import STRONGEST_PREFERENCE
from napari_cryosphere.imaging.simulate import OpticsGroup
from napari_cryosphere.jobs.configs.bases import (
    Device,
    Folder,
    ImagesInput,
    JobConfig,
    LocalDegrees,
    MapFile,
    MapFiles,
    MapInput,
    MapsInput,
    MaskChoice,
    MaskedMapInput,
    ModelFile,
    NewDistributions,
    NewMap,
    NewParticles,
    NewStar,
    NewTable,
    ParticlesFile,
    ParticlesInput,
    RunFolder,
    StateMaps,
    SymmetricConfig,
    kept_there,
)
from napari_cryosphere.jobs.configs.fields import Argument, File, Inside, Option

__all__ = [
    "AbInitioConfig",
    "AlignConfig",
    "AligningConfig",
    "ConvertConfig",
    "DemoConfig",
    "DensityConfig",
    "EquivarianceConfig",
    "FscConfig",
    "InferConfig",
    "InfoConfig",
    "ModelConfig",
    "PostprocessConfig",
    "PredictingConfig",
    "ReconstructConfig",
    "RefineConfig",
    "SearchingConfig",
    "SharpeningConfig",
    "SimulateConfig",
    "SimulatingConfig",
    "SolveConfig",
    "VariabilityConfig",
    "VaryingConfig",
    "WatchConfig",
]


_MAP_SUFFIXES = (".mrc", ".map", ".ccp4")


class InfoConfig(ImagesInput):
    """What a file holds."""

    file: Annotated[Path, Argument()]
    """Particles, map, model or run folder."""
    as_json: Annotated[bool, Option(("--json",))] = False
    """Print JSON."""
    images: bool = True
    """Whether to look at the particles' images too, and not at their table alone."""


class ConvertConfig(ParticlesInput, MapsInput):
    """Particles from one format to another, or a map to another box, pixel size and so on."""

    particles: Annotated[Path, File("read"), Argument("IN")]
    """Particles (.star or .cs), or a map (.mrc, .map or .ccp4; .gz or .bz2 may follow)."""
    output: Annotated[Path, File("write", "*.star *.cs *.mrc *.map *.ccp4"), Argument("OUT")]
    """.star for RELION, .cs for cryoSPARC; a map's ends with .mrc, .map or .ccp4."""
    box: Annotated[int, Field(ge=8, le=4096, multiple_of=2)] | None = None
    """Of a map: voxels along the edges of the new box; without it those that its content takes."""
    pixel_size_angstrom: Annotated[float, RANGES["rlnImagePixelSize"].bounds] | None = None
    """Of a map: new edge of a voxel, to which it is resampled."""
    low_pass_angstrom: Annotated[float, Field(gt=0)] | None = None
    """Of a map: resolution at which a low-pass filter is 1/2."""
    recentre: bool = False
    """Move a map's centre of mass to the centre of its box."""
    mask: Literal["auto"] | MapFile | None = None
    """Mask that a map is multiplied by at the end, on the new grid; auto makes one of the map."""

    @property
    def of_map(self) -> bool:
        """Whether a map is converted."""
        return self.output.suffix.lower() in _MAP_SUFFIXES

    @model_validator(mode="after")
    def _known(self) -> Self:
        suffix = self.output.suffix.lower()
        if suffix not in (".star", ".cs", *_MAP_SUFFIXES):
            raise ValueError(
                "the output must end with .star or .cs, or with .mrc, .map or .ccp4 for a map, "
                f"not {self.output.suffix or self.output.name}"
            )
        name = self.particles.name.lower().removesuffix(".gz").removesuffix(".bz2")
        if self.of_map and not name.endswith(_MAP_SUFFIXES):
            raise ValueError(f"{self.particles.name} is no map; particles go to .star or .cs")
        for_maps = ("box", "pixel_size_angstrom", "low_pass_angstrom", "recentre", "mask")
        given = [name for name in for_maps if name in self.model_fields_set and getattr(self, name)]
        if given and not self.of_map:
            raise ValueError(f"{given[0]} is for maps, {self.output.name} holds particles")
        if self.invert and suffix == ".star":
            raise ValueError(
                "a STAR file cannot say that images are inverted: write a .cs file, which can "
                "(blob/sign), or invert the stack (relion_image_handler --multiply_constant -1)"
            )
        return self


class ModelConfig(SymmetricConfig):
    """How an atomic model becomes a map."""

    box: Annotated[int, Field(ge=16, le=2048, multiple_of=2)] | None = None
    """Even number of voxels along an edge; without it 1.25 times the model's diameter."""
    resolution_angstrom: Annotated[float, Field(gt=0)] | None = None
    """Where the map's frequencies end; without it at two voxels."""
    assembly: str | None = None
    """Biological assembly to build; without it the atoms as they stand in the file."""
    model_b_factor_angstrom2: Annotated[float, Field(ge=0)] | None = None
    """One B-factor for all atoms; without it those of the file."""
    waters: bool = False
    """Keep waters."""
    hydrogens: bool = False
    """Keep hydrogens."""


class DensityConfig(ModelConfig):
    """A density map from an atomic model."""

    model: Annotated[Path, File("read", "*.pdb *.cif"), Argument()]
    """PDB or mmCIF file."""
    output: NewMap
    """MRC file to write."""
    pixel_size_angstrom: Annotated[float, RANGES["rlnImagePixelSize"].bounds]
    """Edge of a voxel."""


class SimulatingConfig(JobConfig):
    """How particles are simulated from a map."""

    snr: Annotated[float, Field(gt=0)] = 0.1
    """Signal-to-noise ratio: variance of the clean images inside the particle's circle over the
    noise's in a pixel; infinite for no noise."""
    snr_radius_angstrom: Annotated[float, Field(gt=0)] | None = None
    """Radius of the circle in the ratio's definition; without it that which holds 99 % of the map's power."""
    noise_length_angstrom: Annotated[float, Field(ge=0)] = 0.0
    """Colour of the noise: its power falls as 1 / (1 + (s L)^2) with spatial frequency s; 0 is white."""
    seed: Annotated[int, Field(ge=0)] = 0
    """The same seed gives the same particles."""
    shift_px: Annotated[float, Field(ge=0), Option(("--shift-px",))] = 3.0
    """Largest shift along x and along y, in pixels."""
    ctf: bool = True
    """Whether images have a CTF."""
    optics: Annotated[
        tuple[OpticsGroup, ...],
        Field(min_length=1),
        Inside(("defocus_angstrom", "phase_shift_degrees", "b_factor_angstrom2", "voltage_kv")),
    ] = (OpticsGroup(),)
    """The optics groups; particles are spread over their micrographs."""
    preference: Annotated[float, Field(ge=-STRONGEST_PREFERENCE, le=STRONGEST_PREFERENCE)] = 0.0
    """Preferred views: density exp(preference (d . axis)^2); above 0 along the axis, below 0 across it."""
    preferred_axis: tuple[float, float, float] = (0.0, 0.0, 1.0)
    """Axis of the preferred views, x y z in the map's frame; of any length."""
    preferred_share: Annotated[float, Field(gt=0, le=1)] = 1.0
    """Share of the particles with preferred views; the others are seen from everywhere."""

    @model_validator(mode="after")
    def _with_a_direction(self) -> SimulatingConfig:
        if not any(self.preferred_axis):
            raise ValueError("preferred_axis must have a direction, not 0 0 0")
        return self


class SimulateConfig(ModelConfig, SimulatingConfig, MapInput):
    """Particles simulated from a map, or from an atomic model."""

    map: Annotated[Path, File("read", "*.mrc *.map *.pdb *.cif"), Argument()]
    """MRC file; or PDB or mmCIF, with ``pixel_size_angstrom`` and what else belongs to a model."""
    pixel_size_angstrom: Annotated[float, RANGES["rlnImagePixelSize"].bounds] | None = None
    """Pixel size of images from an atomic model; a map brings its own."""
    output: NewStar
    """STAR file to write; the images go next to it, with the suffix .mrcs."""
    other_map: tuple[MapFile, ...] = ()
    """Map of a further state, in the frame and on the grid of the first. The STAR file says in
    rlnClassNumber which state each particle is in, 1 for the first map's."""
    share: tuple[Annotated[float, Field(gt=0)], ...] = ()
    """Share of the particles in each state, the first map's first; without it all states are as frequent."""
    motion: Literal["half"] | MapFile | None = None
    """Part of the map that turns, by another angle in each particle: a mask, 0 to 1, on the map's
    grid; or half for all on one side of the middle, across the longest axis. The hinge is where the
    part touches the rest. The STAR file says each particle's angle in cryosphereMotionAngle."""
    motion_angle_degrees: Annotated[float, Field(gt=0, le=360)] = 30.0
    """Range of the motion: angles are uniform from minus to plus half of it."""
    motion_axis: tuple[FiniteFloat, FiniteFloat, FiniteFloat] | None = None
    """Axis of the motion, x y z, of any length; without it that about which the part opens and closes."""
    poses: ParticlesFile | None = None
    """STAR file whose poses, shifts, CTFs, micrographs and halves are taken instead of drawn."""
    number: Annotated[int, Field(ge=1)] | None = None
    """Number of particles; without it 1000, or all that ``poses`` has."""
    noise_spectrum: Annotated[Path, File("read", "*.csv")] | None = None
    """CSV file with the noise's power (frequency_per_angstrom, power) instead."""

    @model_validator(mode="after")
    def _consistent(self) -> SimulateConfig:
        if self.noise_spectrum is not None and self.noise_length_angstrom:
            raise ValueError(
                "noise_spectrum and noise_length_angstrom both colour the noise; give one"
            )
        if self.motion is None and self.model_fields_set & {"motion_angle_degrees", "motion_axis"}:
            raise ValueError(
                "motion_angle_degrees and motion_axis go with motion, the part that turns"
            )
        if self.motion_axis is not None and not any(self.motion_axis):
            raise ValueError("motion_axis must have a direction, not 0 0 0")
        if self.motion is not None and self.other_map:
            raise ValueError("motion and other_map both say how particles differ; give one")
        if self.share and len(self.share) != 1 + len(self.other_map):
            raise ValueError(
                f"{len(self.share)} shares for {1 + len(self.other_map)} maps; give one for each"
            )
        if self.other_map and is_atomic_model(self.map):
            raise ValueError("states are given as maps; make them of atomic models with density")
        if self.poses is not None and (
            self.preference or self.model_fields_set & {"optics", "shift_px"}
        ):
            raise ValueError(
                "poses come with their views, shifts and optics; leave out what draws these"
            )
        if is_atomic_model(self.map):
            if self.pixel_size_angstrom is None:
                raise ValueError(
                    f"{self.map.name} is an atomic model; give pixel_size_angstrom (--pixel-size)"
                )
            if self.map_pixel_size_angstrom is not None:
                raise ValueError(
                    f"{self.map.name} is an atomic model without a header that "
                    "map_pixel_size_angstrom could correct; leave it out"
                )
            return self
        for_models = ModelConfig.model_fields.keys() - SymmetricConfig.model_fields.keys()
        given = sorted((for_models | {"pixel_size_angstrom"}) & self.model_fields_set)
        if given:
            raise ValueError(
                f"{given[0]} belongs to an atomic model; {self.map.name} is a map and brings its own "
                "(map_pixel_size_angstrom corrects its header)"
            )
        return self


class _WithMemory(JobConfig):
    max_memory_gb: Annotated[float, Field(gt=0)] | None = None
    """Most memory that a process may take, in 10^9 bytes: batches shrink, what cannot fit is refused."""


class _Resumable(_WithMemory):
    output: NewParticles
    """STAR file to write."""
    resume: bool = False
    """Go on with a run that was stopped."""

    @property
    def journal(self) -> Path:
        """Folder that holds the finished batches while the job runs."""
        return self.output.with_name(f"{self.output.name}.unfinished")

    @property
    def kept_when_stopped(self) -> str:
        """What a run that is stopped leaves behind, in words."""
        return kept_there(
            self.journal,
            f"finished batches are kept in {self.journal}: the same command with --resume goes on",
        )


class PredictingConfig(_WithMemory, ImagesInput, MaskedMapInput):
    """What prediction needs, of a file or of a folder that is followed."""

    model: ModelFile
    """Model file, or the run folder that holds it."""
    batch_size: Annotated[int, Field(ge=1, le=4096)] = 128
    """Images that are worked on at once."""
    device: Device = "auto"
    """Where the arithmetic is done; auto takes a GPU if there is one."""
    map: Path | None = None
    """Map to refine against."""
    modes: Annotated[int, Field(ge=1, le=50)] = 14
    """How many modes of each distribution are compared with the map, on a coarse lattice about each."""
    climbed: Annotated[int, Field(ge=1, le=50)] = 4
    """How many of the best places found so are refined to the end."""
    resolution_angstrom: Annotated[float, Field(gt=0)] | None = None
    """Finest detail compared when refining. Without it: as far as the map can be trusted, by the
    FSC beside it or its own noise, and no farther than the particles tell of poses."""
    shift_range_px: Annotated[float, Field(ge=0, le=100)] = 4.0
    """Largest change of the shift when refining."""


class InferConfig(PredictingConfig, _Resumable, ParticlesInput):
    """Poses predicted by a model."""

    distributions: NewDistributions | None = None
    """Also write every particle's distribution (zarr)."""
    refine: bool = False
    """Refine the network's best modes against `map`, which also finds shifts. Without one: against
    the map in the model's run folder, up to the resolution of that."""

    @model_validator(mode="after")
    def _refined_against_a_map(self) -> InferConfig:
        if self.map is not None and not self.refine:
            raise ValueError(
                "a map is used to refine against and for nothing else; ask for refine too"
            )
        return self


class WatchConfig(PredictingConfig):
    """A folder followed while particles arrive in it: poses, half-maps and their FSC grow with them."""

    folder: Annotated[Folder, Argument()]
    """Where STAR files appear; nothing is written there but a lock."""
    output: Folder
    """Run folder."""
    pattern: str = "*.star"
    """Which files are taken, relative to the folder; ``**/*.star`` for those in all its folders."""
    padding: Literal[1, 2, 3] = 2
    """How many times its box a map is padded to before its transform is used."""
    settle_seconds: Annotated[float, Field(ge=0)] = 5.0
    """How long a file and its images must have been left alone before they are taken."""
    patience_seconds: Annotated[float, Field(ge=0)] = 120.0
    """How long a file that cannot be read is waited for before it is set aside."""
    until_idle_seconds: Annotated[float, Field(ge=0)] | None = None
    """End when nothing has come for so long; without it the watch goes on until it is stopped."""
    poll_seconds: Annotated[float, Field(gt=0)] = 1.0
    """How often the folder is looked at."""
    publish_seconds: Annotated[float, Field(ge=0)] = 30.0
    """How often maps, FSC and STAR file are written anew while files come in; at most a fifth of the time."""

    @property
    def kept_when_stopped(self) -> str:
        """What a run that is stopped leaves behind, in words."""
        return f"what was predicted so far is in {self.output}: the same command goes on"


class AligningConfig(SymmetricConfig, _WithMemory):
    """How particles are compared with a map."""

    local_degrees: LocalDegrees = None
    """Search within this angle of the particles' poses; without it everywhere."""
    resolution_angstrom: Annotated[float, Field(gt=0)] | None = None
    """Finest detail compared. Without it: as far as the map can be trusted, by the FSC beside it
    (OUTPUT_fsc.csv of `reconstruct --half-maps`) or its own noise, and no farther than the
    particles tell of poses."""
    shift_range_px: Annotated[float, Field(ge=0, le=100)] | None = None
    """Largest shift searched, from the particles' origins if the search is local. Without it: a
    twelfth of the box, and up to a sixth for images whose answers lie at the rim; 4 pixels if the
    search is local."""
    batch_size: Annotated[int, Field(ge=1, le=4096)] = 128
    """Images that are worked on at once."""
    device: Device = "auto"
    """Where the arithmetic is done; auto takes a GPU if there is one."""


class AlignConfig(AligningConfig, _Resumable, ParticlesInput, StateMaps):
    """Poses and shifts found by comparing particles with a map.

    They have the map's hand, right or wrong: a map and its mirror image have the same projections.
    """

    distributions: NewDistributions | None = None
    """Also write every particle's posterior, evaluated cell by cell (zarr)."""
    refine_defocus: bool = False
    """Also find each particle's defocus at its new pose, and write it with its standard deviation
    (cryosphereDefocusError, angstrom)."""
    scale_check: bool = False
    """First find the pixel size of the map at which particles fit it best, and warn if it is not
    the one given."""


class RefineConfig(AligningConfig, ParticlesInput, MapsInput, RunFolder):
    """Poses and a map refined with independent halves."""

    map: MapFiles
    """Starting map; only its coarse features are used. Of several, one for each state of the
    molecule, in one frame, each state gets its own refined map."""
    initial_resolution_angstrom: Annotated[float, Field(gt=0)] = 30.0
    """Resolution to which the starting map is low-passed; all that the halves share."""
    mask: MaskChoice = "auto"
    """Solvent mask: a file, values 0 to 1, in the particles' box; auto makes one from the map in
    every iteration; none uses none."""
    iterations: Annotated[int, Field(ge=1, le=100)] = 20
    """Most iterations; it ends before when neither resolution nor poses improve."""
    classes: Annotated[int, Field(ge=1, le=20)] = 1
    """States that the particles may be in, to be found from one starting map. Of more than one each
    gets its own map; those that are empty or alike are merged."""

    @model_validator(mode="after")
    def _states_are_sought_or_given(self) -> Self:
        if len(self.map) > 1 and self.classes not in (1, len(self.map)):
            raise ValueError(
                f"classes is {self.classes}, but there are {len(self.map)} starting maps, one for each "
                "state; leave classes out, or give one map"
            )
        return self

    @property
    def states(self) -> int:
        """How many states the particles may be in."""
        return max(self.classes, len(self.map))


class VaryingConfig(SymmetricConfig, _WithMemory):
    """How it is found in what particles at known poses differ."""

    components: Annotated[int, Field(ge=1, le=20)] = 4
    """Most components that are sought; those that the two half sets do not both find are none."""
    resolution_angstrom: Annotated[float, Field(gt=0)] | None = None
    """Finest detail in which particles are compared. Without it: as far as the half-maps agree, and
    16 shells at most, which a box of 38 voxels holds."""
    pose_error_degrees: Annotated[float, Field(ge=0, le=20)] = 1.0
    """By how much poses may be off, and shifts by as much at the particle's rim (standard
    deviation): what a particle may owe to that counts as no variability."""
    seed: Annotated[int, Field(ge=0)] = 0
    """Random seed of the components' start."""
    batch_size: Annotated[int, Field(ge=1, le=4096)] = 128
    """Images that are read at once."""


class VariabilityConfig(VaryingConfig, ParticlesInput, RunFolder):
    """How particles at known poses differ from each other: principal components of their volumes."""

    mask: MaskChoice = "auto"
    """Where particles may differ: a file, values 0 to 1, in the particles' box; auto makes a wide
    one of their map; none uses none."""


class SearchingConfig(SymmetricConfig, _WithMemory):
    """How a map is found from images alone."""

    diameter_angstrom: Annotated[float, Field(gt=0)] | None = None
    """Diameter of the particle; without it measured from the images."""
    resolution_angstrom: Annotated[float, Field(gt=0)] | None = None
    """Finest detail compared. Without it: as far as poses 15 degrees apart can be told, some eleven
    shells for a particle that fills three quarters of its box."""
    starts: Annotated[int, Field(ge=1, le=100)] = 10
    """Most searches from random poses on each half of the particles. The first eight compete; it
    ends with the first two that agree and explain the images best."""
    classes: Annotated[int, Field(ge=1, le=20)] = 1
    """Kinds of particles that there may be; each gets a map. Those that the two halves of the
    particles do not both find, or that are empty or alike, are merged."""
    minutes: Annotated[float, Field(gt=0)] | None = None
    """No further search is begun after so many minutes."""
    seed: Annotated[int, Field(ge=0)] = 0
    """Random seed: the same gives the same map."""
    device: Device = "auto"
    """Where all particles are aligned at the end; auto takes a GPU if there is one."""


class AbInitioConfig(SearchingConfig, ParticlesInput, RunFolder):
    """A coarse map and poses from images alone."""


class SolveConfig(SymmetricConfig, ParticlesInput, MapInput, RunFolder):
    """From particles alone to poses, a map, and a network that knows them."""

    map: MapFile | None = None
    """Map to start from; without it one is found from the images."""
    classes: Annotated[int, Field(ge=1, le=20)] = 1
    """Kinds of particles, or states of one, that there may be. The network is trained on the most
    frequent kind."""
    minutes: Annotated[float, Field(gt=0)] = 20.0
    """Time budget of the training."""
    seed: Annotated[int, Field(ge=0)] = 0
    """Random seed of search and training."""
    device: Device = "auto"
    """Where the arithmetic is done; auto takes a GPU if there is one."""


class ReconstructConfig(SymmetricConfig, _WithMemory, ParticlesInput):
    """A map from particles and their poses."""

    output: NewMap
    """MRC file to write."""
    half_maps: bool = False
    """Also write OUTPUT_half1.mrc, OUTPUT_half2.mrc and their FSC, OUTPUT_fsc.csv."""
    mask: MapFile | None = None
    """Mask for the half-maps' FSC."""
    padding: Literal[1, 2, 3] = 2
    """How many times its box a map is padded to before its transform is used."""
    regularise: bool = True
    """Filter the map by the FSC of its half-maps (Wiener); half-maps stay as they are."""
    weights: Literal["poses", "distributions"] = "poses"
    """Insert each particle at its one pose, or at samples of its distribution. The default is
    samples if ``distributions`` is given, otherwise poses."""
    distributions: Annotated[Path, File("read", "*.zarr")] | None = None
    """The particles' distributions (zarr), in the same order (of those that ``select`` leaves)."""
    samples: Annotated[int, Field(ge=1, le=1000)] = 8
    """Poses drawn from each distribution; each counts for its share."""
    seed: Annotated[int, Field(ge=0)] = 0
    """Random seed for drawing the samples."""

    @model_validator(mode="before")
    @classmethod
    def _distributions_weigh_if_given(cls, values: Any) -> Any:
        if isinstance(values, dict) and values.get("distributions") and "weights" not in values:
            return values | {"weights": "distributions"}
        return values

    @model_validator(mode="after")
    def _distributions_where_they_weigh(self) -> ReconstructConfig:
        if (self.weights == "distributions") != (self.distributions is not None):
            raise ValueError(
                "weights 'distributions' needs distributions to draw from, 'poses' takes none"
            )
        return self

    @property
    def kept_when_stopped(self) -> str:
        """What a run that is stopped leaves behind, in words."""
        return (
            f"once particles were inserted, their map is in {self.output.stem}_partial.mrc beside "
            f"{self.output.name}"
        )


class FscConfig(MapsInput):
    """The Fourier shell correlation of two maps."""

    first: Annotated[MapFile, Argument("A")]
    """MRC file."""
    second: Annotated[MapFile, Argument("B")]
    """MRC file, on the same grid."""
    output: NewTable
    """CSV file to write."""
    mask: MapFile | None = None
    """MRC file that both maps are multiplied with."""
    cones: bool = False
    """Also measure the FSC in cones, which shows a preferred orientation: columns cone_min and cone_max."""


class SharpeningConfig(JobConfig):
    """How a map is sharpened."""

    b_factor: float | None = None
    """B-factor to sharpen with in square angstrom (negative sharpens); None fits it to the Guinier plot."""
    fit_from_angstrom: Annotated[float, Field(gt=0)] = 10.0
    """Lowest resolution of the Guinier fit."""
    fit_to_angstrom: Annotated[float, Field(ge=0)] = 0.0
    """Highest resolution of the Guinier fit; 0 for Nyquist."""
    low_pass_angstrom: Annotated[float, Field(gt=0)] | None = None
    """Resolution of the final low-pass filter; None takes that of the half-maps."""
    seed: Annotated[int, Field(ge=0, lt=2**31)] = 0
    """Of the random phases."""


class PostprocessConfig(SharpeningConfig, MapsInput):
    """Half-maps to a sharpened map and their FSC."""

    half1: Annotated[MapFile, Argument()]
    """Unfiltered half-map, MRC file."""
    half2: Annotated[MapFile, Argument()]
    """The other half-map."""
    output: NewMap
    """Map to write; OUTPUT_fsc.csv, OUTPUT_fsc.star and OUTPUT_fsc.xml go next to it."""
    mask: MapFile | None = None
    """Mask around the molecule; None makes one from the low-passed map and writes OUTPUT_mask.mrc."""


class DemoConfig(JobConfig):
    """The demonstration on simulated particles."""

    output: Folder = Path("demo-output")
    """Folder for what the demo makes; an earlier demo there is replaced."""
    number: Annotated[int, Field(ge=16, le=100_000)] = 1000
    """Number of particles, even."""
    snr: Annotated[float, Field(gt=0)] = 0.3
    """Signal-to-noise ratio of the particles."""
    gui: bool = True
    """Open napari on the result."""
    overwrite: bool = True
    """Replace the files of an earlier demo."""

    @model_validator(mode="after")
    def _even(self) -> DemoConfig:
        if self.number % 2:
            raise ValueError(f"number must be even (two half sets), not {self.number}")
        return self


class EquivarianceConfig(MapInput):
    """How equivariant a model is."""

    model: ModelFile
    """Model file, or the run folder that holds it."""
    output: Folder
    """Folder for the report."""
    map: MapFile | None = None
    """Volume to look at; without it the package's phantom."""
    snr: Annotated[float, Field(gt=0)] | None = None
    """Signal-to-noise ratio of the images; without it no noise."""
    pairs: Annotated[int, Field(ge=2)] = 100
    """Pairs of images before and after the volume is turned."""
    images: Annotated[int, Field(ge=1)] = 50
    """Images that are turned in their plane."""
    angles: Annotated[int, Field(ge=1)] = 36
    """Random angles that each of them is turned by."""
    order: Annotated[int, Field(ge=0, le=4)] = 2
    """Order of the grid of poses that squared errors are averaged over."""
    seed: Annotated[int, Field(ge=0)] = 0
    """The same seed gives the same figures."""
    device: Device = "auto"
    """Where the arithmetic is done; auto takes a GPU if there is one."""
