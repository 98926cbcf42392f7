"""From the shape of a network to the network."""

from __future__ import annotations

from napari_cryosphere.model.card import Image2SphereConfig, NetworkConfig
from napari_cryosphere.model.image2sphere import Image2Sphere
from napari_cryosphere.model.polar import PolarNetwork
from napari_cryosphere.model.pose_network import PoseNetwork

__all__ = ["build_network"]


def build_network(config: NetworkConfig) -> PoseNetwork:
    """Return an untrained network; its weights come from torch's global random generator."""
    if isinstance(config, Image2SphereConfig):
        return Image2Sphere(config)
    return PolarNetwork(config)
