"""The polar network: turning or mirroring the image moves its answer exactly.

1. The image is read at polar coordinates about its centre by trigonometric interpolation: one small
  matrix.
2. Radii become channels. Convolutions over the angle follow, none of which knows where the angle
  starts; a turn of the image by phi shifts all signals by phi.
3. The harmonic n of a signal over the angle is then multiplied by ``exp(-i n phi)``. Turning the
  image does the same to the coefficients ``f^l_mn`` of a function of the pose, so that each may be
  a linear function of the harmonics n of all signals. The rotations about the optical axis are
  exact by construction, the others of SO(3) are learnt.
4. Where the particle lies in its image is a vector, which a turn of the image turns by phi: a linear
  function of the harmonics -1, whose weights may depend on what a turn leaves as it is.
5. Which of several states an image shows depends on its pose: logarithms of their probabilities at each
  pose, each a linear function of the harmonics, as the log-density of the poses is.
6. The view from behind is the mirror image of the view (thin specimen, no Ewald sphere): with
  ``Rx`` half a turn about x, ``image(x, -y)`` has the pose ``R Rx``. The layers of
  `napari_cryosphere.model.mirror` and the weights of steps 3 to 5 keep this too, which halves what has to
  be learnt and stored.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn

from napari_cryosphere.model.card import PolarConfig
from napari_cryosphere.model.mirror import (
    MirrorConvolution,
    MirrorNorm,
    MirrorResidual,
    PairedInput,
    fewer_angles,
)
from napari_cryosphere.model.pose_network import Answers, PoseNetwork, Shifts, at_least_single
from napari_cryosphere.so3.wigner import band_mask

__all__ = [
    "PolarImage",
    "PolarNetwork",
    "ShiftHead",
    "StateHead",
    "WignerHead",
    "trigonometric_interpolation",
]

_STEM_KERNEL = 7  # angular samples, as the first kernel of a ResNet (He et al. 2016); not tuned
_INITIAL_SPREAD = 0.05
"""Of the log-density: logits that begin with a large spread cost more than a uniform guess."""
_LEAST_SHIFT_SD_PX = 0.03
"""Of the network's pixels: no shift is surer. Labels that all agree would let the width fall
without end. 0.3 A at 10 A per pixel, below what alignment resolves; chosen, not tuned."""


def trigonometric_interpolation(box: int, x: Tensor, y: Tensor) -> Tensor:
    """Return what reads an image of an even box between its pixels, exactly up to Nyquist.

    ``box``: even number of pixels. ``x``, ``y``: ``(p,)`` float64 positions in pixels from pixel n
    // 2. Returns ``(p, box * box)`` float64, to be multiplied with the image's rows one after the
    other.
    """
    pixel = torch.arange(box, dtype=torch.float64) - box // 2

    def kernel(distance: Tensor) -> Tensor:
        """Return the periodic sinc, the Nyquist frequency counted half on either side."""
        angle = distance * math.pi
        ratio = torch.sin(angle) / (box * torch.tan(angle / box))
        return torch.where(distance.abs() < 1e-9, 1.0, ratio)

    along_x, along_y = kernel(x[:, None] - pixel), kernel(y[:, None] - pixel)
    return (along_y[:, :, None] * along_x[:, None, :]).flatten(1)


class PolarImage(nn.Module):
    """Images ``(b, box, box)`` at polar coordinates, ``(b, radii, angles)``; angles from +x towards +y."""

    def __init__(self, box: int) -> None:
        super().__init__()
        self.radii, self.angles = box // 2 - 1, 2 * box
        radius = (
            torch.arange(1, self.radii + 1, dtype=torch.float64) * (box - 1) / (2 * self.radii + 1)
        )
        angle = torch.arange(self.angles, dtype=torch.float64) * (2 * math.pi / self.angles)
        x, y = (radius[:, None] * wave(angle) for wave in (torch.cos, torch.sin))
        matrix = trigonometric_interpolation(box, x.flatten(), y.flatten())
        self.register_buffer("matrix", matrix.float().T.contiguous(), persistent=False)
        self.matrix: Tensor

    def forward(self, images: Tensor) -> Tensor:
        """Sample images at polar coordinates, ``(b, radii, angles)``."""
        return (images.flatten(1) @ self.matrix).unflatten(1, (self.radii, self.angles))


class MatchedFilter(nn.Module):
    """Images ``(b, box, box)`` multiplied by a function of frequency's modulus, ``(b, box // 2 + 1)``.

    A likelihood sees an image through its product with the CTF: frequencies count as much as they hold of
    the particle, and how much that is in all says how sure one may be. The function is linear between its
    values and keeps the last one beyond them. The images are padded, so that nothing comes back on the
    other side and what is turned stays so.
    """

    def __init__(self, box: int) -> None:
        super().__init__()
        self.padded = 2 * box
        y, x = torch.fft.fftfreq(self.padded, 1 / box), torch.fft.rfftfreq(self.padded, 1 / box)
        radius = torch.hypot(y[:, None], x).clamp(max=box // 2).flatten()
        hats = (1 - (radius - torch.arange(box // 2 + 1)[:, None]).abs()).clamp(min=0)
        self.register_buffer("hats", hats, persistent=False)
        self.hats: Tensor

    def forward(self, images: Tensor, profile: Tensor) -> Tensor:
        """Return the filtered images, ``(b, box, box)``."""
        size, box = (self.padded, self.padded), images.shape[-1]
        spectra = torch.fft.rfft2(at_least_single(images), s=size)
        with torch.autocast(images.device.type, enabled=False):
            filters = (profile @ self.hats).view(len(images), *spectra.shape[1:])
        return torch.fft.irfft2(spectra * filters, s=size)[:, :box, :box]


class WignerHead(nn.Module):
    """Paired signals on the circle to a log-density: ``f^l_mn = sum_c W^l_mnc F_c(n)``.

    ``(b, channels, angles)`` to ``(b, L + 1, 2 L + 1, L + 1)`` complex. Half a turn about x takes
    f^l_mn to ``(-1)^l f^l_m,-n = (-1)^(l + m + n) conj(f^l_-m,n)``, the signal being real. The
    weights of the second channels of the pairs follow from those of the first.
    """

    def __init__(self, channels: int, l_max: int) -> None:
        super().__init__()
        self.l_max = l_max
        mask = band_mask(l_max)
        scale = _INITIAL_SPREAD / math.sqrt(channels)
        self.weight = nn.Parameter(torch.randn(int(mask.sum()), channels // 2, 2) * scale)
        self.register_buffer("place", mask.flatten().nonzero()[:, 0], persistent=False)
        self.register_buffer("sign", _alternating(l_max), persistent=False)
        self.place: Tensor
        self.sign: Tensor

    def forward(self, signals: Tensor) -> Tensor:
        """Return the coefficients of the log-density, ``(b, L + 1, 2 L + 1, L + 1)`` complex."""
        count = self.l_max + 1
        harmonics = torch.fft.rfft(at_least_single(signals), norm="ortho")[..., :count]
        out = torch.bmm(harmonics.permute(2, 0, 1), self.weights())  # n, b, l m
        return out.permute(1, 2, 0).unflatten(1, (count, 2 * count - 1))

    def weights(self) -> Tensor:
        """Return what harmonics are multiplied with, ``(n, channels, l m)`` complex."""
        shape = self.sign.shape[:3]
        stored = torch.view_as_complex(self.weight)
        first = stored.new_zeros(self.sign.numel(), stored.shape[1]).index_copy(
            0, self.place, stored
        )
        first = first.unflatten(0, shape)
        second = self.sign * first.flip(1).conj()
        return torch.cat([first, second], dim=-1).permute(2, 3, 0, 1).flatten(2)


class ShiftHead(nn.Module):
    """Paired signals on the circle, ``(b, channels, angles)``, to where the particle lies.

    The sum of a signal times ``(cos, sin)`` of its angle is a vector that turns with the image. Vectors
    are added with complex weights, which turn them: those of the second channels of the pairs are the
    conjugates of the first's, so that the mirror image of the picture mirrors the sum. The weights are
    scaled by, and the width follows from, what neither a turn nor the mirror changes.
    """

    def __init__(self, channels: int, angles: int) -> None:
        super().__init__()
        pairs, narrow = channels // 2, max(8, channels // 8)
        angle = torch.arange(angles, dtype=torch.float64) * (2 * math.pi / angles)
        waves = torch.stack([torch.cos(angle), torch.sin(angle)], dim=1) / math.sqrt(angles)
        self.register_buffer("waves", waves.float(), persistent=False)
        self.waves: Tensor
        self.weight = nn.Parameter(torch.randn(pairs, 2) * (_INITIAL_SPREAD / math.sqrt(pairs)))
        self.squeeze = nn.Linear(pairs, narrow)
        self.excite = nn.Linear(narrow, pairs)
        self.log_sd = nn.Linear(narrow, 1)

    def forward(self, signals: Tensor) -> Shifts:
        """Return the shifts, in pixels of the box."""
        first, second = at_least_single(signals).chunk(2, dim=1)
        hidden = torch.relu(self.squeeze((first + second).mean(dim=2)))
        gate = 2 * torch.sigmoid(self.excite(hidden))
        even, odd = (first + second) @ self.waves, (first - second) @ self.waves  # b, pairs, 2
        real, imaginary = (gate * part for part in self.weight.unbind(1))
        x = (real * even[..., 0] - imaginary * odd[..., 1]).sum(dim=1)
        y = (real * even[..., 1] + imaginary * odd[..., 0]).sum(dim=1)
        variances = torch.exp(2 * self.log_sd(hidden)[:, 0]) + _LEAST_SHIFT_SD_PX**2
        return Shifts(torch.stack([x, y], dim=1), variances)


class StateHead(nn.ModuleList):
    """Paired signals on the circle to the logarithms of states' probabilities at each pose.

    ``(b, channels, angles)`` to ``(b, states, L + 1, 2 L + 1, L + 1)`` complex: a `WignerHead` each.
    How states differ in an image follows from its pose.
    """

    def __init__(self, channels: int, l_max: int, states: int) -> None:
        super().__init__(WignerHead(channels, l_max) for _ in range(states))

    def forward(self, signals: Tensor) -> Tensor:
        """Return the coefficients of each state's, up to a function that all have in common."""
        return torch.stack([head(signals) for head in self], dim=1)


def _alternating(l_max: int) -> Tensor:
    """Return ``(-1)^(l + m + n)``, ``(L + 1, 2 L + 1, L + 1, 1)`` float32."""
    degree = torch.arange(l_max + 1)[:, None, None]
    m = torch.arange(-l_max, l_max + 1)[:, None]
    odd = (degree + m + torch.arange(l_max + 1)) % 2
    return (1.0 - 2.0 * odd)[..., None]


class PolarNetwork(PoseNetwork):
    """A network of rings: polar sampling, circular convolutions, and a head of Wigner coefficients."""

    def __init__(self, config: PolarConfig) -> None:
        super().__init__()
        self.config = config
        self.polar = PolarImage(config.box)
        self.matched = MatchedFilter(config.box) if config.matched else None
        self.stem = PairedInput(self.polar.radii, config.ring_channels, _STEM_KERNEL)
        self.stem_norm = MirrorNorm(config.ring_channels)
        self.ring = nn.Sequential(
            *(MirrorResidual(config.ring_channels) for _ in range(config.ring_blocks))
        )
        self.widen = MirrorConvolution(config.ring_channels, config.channels, 3)
        self.widen_norm = MirrorNorm(config.channels)
        self.body = nn.Sequential(*(MirrorResidual(config.channels) for _ in range(config.blocks)))
        self.last = MirrorConvolution(config.channels, config.features)
        self.last_norm = MirrorNorm(config.features)
        self.head = WignerHead(config.features, config.l_max)
        self.shift_head = ShiftHead(config.features, config.box) if config.shifts else None
        self.state_head = (
            StateHead(config.features, config.l_max, config.states) if config.states > 1 else None
        )

    @property
    def draws(self) -> bool:
        """See `PoseNetwork`: nothing here is random."""
        return False

    @property
    def learns_in_bfloat16(self) -> bool:
        """See `PoseNetwork`."""
        return True

    def forward(self, images: Tensor, ctf: Tensor | None = None) -> Tensor:
        """Return the log-densities of images, ``(b, L + 1, 2 L + 1, L + 1)`` complex."""
        return self.head(self._signals(images, ctf))

    def answers(self, images: Tensor, ctf: Tensor | None = None) -> Answers:
        """See `PoseNetwork`."""
        signals = self._signals(images, ctf)
        return Answers(
            self.head(signals),
            None if self.shift_head is None else self.shift_head(signals),
            None if self.state_head is None else self.state_head(signals),
        )

    def _signals(self, images: Tensor, ctf: Tensor | None) -> Tensor:
        """Return ``(b, features, box)``: what is known of the image at every angle."""
        if self.matched is not None and ctf is not None:
            images = self.matched(images, ctf)
        ring = self.ring(torch.relu(self.stem_norm(self.stem(self.polar(images)))))
        ring = fewer_angles(ring, self.config.box)
        body = self.body(torch.relu(self.widen_norm(self.widen(ring))))
        return torch.relu(self.last_norm(self.last(body)))
