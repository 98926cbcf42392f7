from ._front import align as align
from ._front import density as density
from ._front import evaluate as evaluate
from ._front import fsc as fsc
from ._front import infer as infer
from ._front import phantom as phantom
from ._front import postprocess as postprocess
from ._front import read_cs as read_cs
from ._front import read_map as read_map
from ._front import read_star as read_star
from ._front import reconstruct as reconstruct
from ._front import refine as refine
from ._front import sample_model as sample_model
from ._front import simulate as simulate
from ._front import train as train
from .errors import CryosphereError as CryosphereError
from .model.pose_model import PoseModel as PoseModel
from .particles import CtfParameters as CtfParameters
from .particles import DensityMap as DensityMap
from .particles import ImageGrid as ImageGrid
from .particles import ParticleStack as ParticleStack
from .reconstruction import FourierShellCorrelation as FourierShellCorrelation
from .so3.distribution import PoseDistribution as PoseDistribution

__version__: str
