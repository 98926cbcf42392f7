"""Which device a job computes on."""

from __future__ import annotations

import torch

from napari_cryosphere.errors import CryosphereError

__all__ = ["choose_device"]


def choose_device(name: str) -> torch.device:
    """Return the device of a name; ``auto`` takes CUDA, then the CPU.

    Raises
    ------
    CryosphereError
        If the device is not there.
    """
    available = {"cpu": True, "cuda": torch.cuda.is_available(), "mps": torch.backends.mps.is_available()}
    if name == "auto":
        return torch.device("cuda" if available["cuda"] else "cpu")
    if not available.get(name, False):
        present = ", ".join(device for device, there in available.items() if there)
        raise CryosphereError(f"device {name!r} is not available here; there is {present}")
    return torch.device(name)
