"""What a path is, and the noun that it holds."""

from __future__ import annotations

from os import PathLike
from pathlib import Path
from typing import TYPE_CHECKING, TypeAlias

from napari_cryosphere.errors import CryosphereError, FileFormatError

if TYPE_CHECKING:
    from napari_cryosphere.model.pose_model import PoseModel
    from napari_cryosphere.particles import DensityMap, ParticleStack
    from napari_cryosphere.reconstruction import FourierShellCorrelation
    from napari_cryosphere.reconstruction.relion_files import RelionJob
    from napari_cryosphere.so3.distributions import PoseDistribution

    Curves: TypeAlias = dict[str, FourierShellCorrelation]
    Noun: TypeAlias = ParticleStack | DensityMap | PoseModel | PoseDistribution | RelionJob | Curves

__all__ = ["read"]

_COMPRESSED = (".gz", ".bz2")


def read(path: str | PathLike[str], data_dir: str | PathLike[str] | None = None) -> Noun:
    """Read a file or folder as what it is.

    Particles (.star, .cs, .mrcs) come as a `ParticleStack`, a map as a `DensityMap`, a model or a
    run folder as a `PoseModel`, a folder of distributions as a `PoseDistribution`, RELION's
    postprocess.star and model.star and our fsc.csv as FSC curves by name, a folder of a RELION job
    as a `RelionJob`.

    ``path``: the file or folder. ``data_dir``: folder of the particles' images, where they have
    moved. Raises `CryosphereError` if there is no such file, it is of no known kind, or it cannot
    be read.
    """
    path = Path(path)
    if not path.exists():
        raise CryosphereError(f"{path} does not exist")
    if path.is_dir():
        return _read_folder(path)
    name = path.name.lower()
    for end in _COMPRESSED:
        name = name.removesuffix(end)
    suffix = Path(name).suffix
    if suffix == ".safetensors":
        from napari_cryosphere.model.pose_model import PoseModel

        return PoseModel.load(path)
    if suffix == ".csv":
        from napari_cryosphere.reconstruction import read_fsc_csv

        return read_fsc_csv(path)
    if suffix == ".star":
        from napari_cryosphere.reconstruction.relion_files import holds_fsc, read_fsc_star

        if holds_fsc(path):
            return read_fsc_star(path)
    return _read_images(path, suffix, data_dir)


def _read_images(
    path: Path, suffix: str, data_dir: str | PathLike[str] | None
) -> ParticleStack | DensityMap:
    from napari_cryosphere.particles import DensityMap, MrcStack, ParticleStack

    if suffix in (".mrc", ".map"):
        number, rows, columns = MrcStack(path).shape
        if rows != columns or number == rows:
            return DensityMap.read(path)
    elif suffix not in (".star", ".cs", ".mrcs"):
        raise FileFormatError(
            f"{path} is of no known kind; known are .star, .cs, .mrcs, .mrc, .map, .safetensors and "
            ".csv files and the folders of runs, distributions and RELION jobs"
        )
    return ParticleStack.read(path, data_dir)


def _read_folder(path: Path) -> PoseModel | PoseDistribution | RelionJob:
    if (path / "zarr.json").is_file():
        from napari_cryosphere.so3.distributions.store import DistributionStore

        return DistributionStore(path)[:]
    from napari_cryosphere.model.pose_model import MODEL_FILE, PoseModel
    from napari_cryosphere.reconstruction.relion_files import RelionJob

    if (path / MODEL_FILE).is_file():
        return PoseModel.load(path)
    return RelionJob.open(path)
