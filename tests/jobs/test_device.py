"""Devices by name."""

from __future__ import annotations

import pytest
import torch

from napari_cryosphere.errors import CryosphereError
from napari_cryosphere.jobs.running.compute import choose_device


def test_device_names() -> None:
    assert choose_device("cpu").type == "cpu"
    if not torch.backends.mps.is_available():
        with pytest.raises(CryosphereError, match="there is cpu"):
            choose_device("mps")
