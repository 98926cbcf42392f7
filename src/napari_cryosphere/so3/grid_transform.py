"""Wigner coefficients to values on a whole HEALPix x S1 grid, and back by the adjoint.

The sum is separated (see `napari_cryosphere.so3.wigner`): over l with one small matrix a ring of
HEALPix and pair m, n; over m with one matrix a ring and n, which carries the offset of the views'
frames too; over n with one matrix product for all views, which writes the answer. All matrices are
real. Batches are worked through in parts, so that what lies between the steps stays in the
processor's cache: apart from the answer a transform of degree 8 to order 4 takes 15 MB, where the dense
Wigner matrix has 1143 MB.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import numpy as np
import torch
from torch import Tensor

from napari_cryosphere.so3.grid import SO3Grid
from napari_cryosphere.so3.wigner import degree_of, small_d

__all__ = ["adjoint_on_grid", "evaluate_alone", "evaluate_on_grid"]

_PART = 8  # functions at once: what lies between the steps stays in the processor's cache
_ALONE = 48
"""Views in one matrix product: OpenBLAS takes threads above 262,144 multiplications, which 48 views of 192
angles have up to degree 13; it divides the views of every grid from order 1 on."""


@dataclass(frozen=True)
class _Rings:
    """Rings of one padded length: the middle of the sphere, or both caps.

    - ``tilt``, ``((2 L + 1) (L + 1), r, L + 1)``: d^l_mn(tilt) for every m, n.
    - ``rot``, ``(r (L + 1), 2 (2 L + 1), 2 length)``: for every n, from real and imaginary parts
      over m to both over the ring's pixels; zero in the padding.
    - ``spans``: of every run of rings that follow each other on the sphere and have one length: its
      first ring in this group, the number of rings, the first view, and the number of views in a
      ring.
    """

    tilt: Tensor
    rot: Tensor
    spans: tuple[tuple[int, int, int, int], ...]


@dataclass(frozen=True)
class _Tables:
    groups: tuple[_Rings, ...]
    psi: Tensor  # (2 (L + 1), n_psi): cosines, then sines, weighted


# Tables made in inference mode could never be used in training: whoever comes first, they are
# ordinary.
@lru_cache(maxsize=16)
@torch.inference_mode(False)
def _tables(l_max: int, order: int, dtype: torch.dtype, device: torch.device) -> _Tables:
    grid = SO3Grid(order)
    n = np.arange(l_max + 1)
    weights = np.where(n == 0, 1.0, 2.0)[:, None]
    angle = n[:, None] * grid.psi_angles()
    psi = np.concatenate([weights * np.cos(angle), weights * np.sin(angle)])
    _, tilt = grid.view_angles()
    starts = np.flatnonzero(np.r_[True, np.abs(np.diff(tilt)) > 1e-9])
    lengths = np.diff(np.r_[starts, grid.n_views])
    longest = lengths == lengths.max()
    groups = [group for group in (longest, ~longest) if group.any()]
    return _Tables(
        groups=tuple(
            _rings(grid, starts[group], lengths[group], l_max, dtype, device) for group in groups
        ),
        psi=torch.from_numpy(psi).to(device, dtype),
    )


def _rings(
    grid: SO3Grid,
    starts: np.ndarray,
    lengths: np.ndarray,
    l_max: int,
    dtype: torch.dtype,
    device: torch.device,
) -> _Rings:
    """Tabulate d-matrices and ``exp(-i (m rot + n offset))`` for rings of views."""
    rot, tilt = grid.view_angles()
    length = int(lengths.max())
    views = np.minimum(starts[:, None] + np.arange(length), grid.n_views - 1)
    valid = np.arange(length) < lengths[:, None]
    turns = np.arange(-l_max, l_max + 1)[:, None] * rot[views][:, None]  # ring, m, pixel
    offsets = grid.psi_offsets()[views][:, None]
    table = torch.zeros(len(starts), l_max + 1, 2, 2 * l_max + 1, 2, length, dtype=dtype)
    for n in range(l_max + 1):  # one at a time, for the sake of memory
        # (a + i b) exp(-i phase): the real part a cos + b sin, the imaginary part b cos - a sin
        cosine, sine = (
            torch.from_numpy(wave(turns + n * offsets) * valid[:, None])
            for wave in (np.cos, np.sin)
        )
        table[:, n, 0, :, 0] = table[:, n, 1, :, 1] = cosine
        table[:, n, 1, :, 0], table[:, n, 0, :, 1] = sine, -sine
    d = small_d(torch.from_numpy(tilt[starts]), l_max)
    return _Rings(
        tilt=d.permute(2, 3, 0, 1).flatten(0, 1).contiguous().to(device, dtype),
        rot=table.view(-1, 4 * l_max + 2, 2 * length).to(device),
        spans=_spans(starts, lengths),
    )


def _spans(starts: np.ndarray, lengths: np.ndarray) -> tuple[tuple[int, int, int, int], ...]:
    """Return runs of rings, see `_Rings`."""
    spans: list[tuple[int, int, int, int]] = []
    for ring, (first, length) in enumerate(zip(starts.tolist(), lengths.tolist(), strict=True)):
        if spans and spans[-1][3] == length and spans[-1][2] + spans[-1][1] * length == first:
            spans[-1] = (spans[-1][0], spans[-1][1] + 1, spans[-1][2], length)
        else:
            spans.append((ring, 1, first, length))
    return tuple(spans)


def _synthesise(coefficients: Tensor, tables: _Tables, order: int) -> Tensor:
    """Return ``(b, n_views, n_psi)`` from ``(b, L + 1, 2 L + 1, L + 1, 2)`` real."""
    grid = SO3Grid(order)
    values = _new((len(coefficients), grid.n_views, grid.n_psi), coefficients)
    for start in range(0, len(coefficients), _PART):
        part = coefficients[start : start + _PART]
        batch, count, width = part.shape[:3]
        packed = part.permute(2, 3, 1, 0, 4).reshape(width * count, count, -1)
        on_views = values.new_empty(2, count, batch, grid.n_views)
        for group in tables.groups:
            on_rings = torch.bmm(group.tilt, packed).view(width, count, -1, batch, 2)
            over_m = on_rings.permute(2, 1, 3, 4, 0).reshape(len(group.rot), batch, 2 * width)
            padded = torch.bmm(over_m, group.rot).view(-1, count, batch, 2, group.rot.shape[2] // 2)
            by_ring = padded.permute(3, 1, 2, 0, 4)
            for ring, rings, first, length in group.spans:
                target = on_views[..., first : first + rings * length].unflatten(
                    -1, (rings, length)
                )
                target.copy_(by_ring[..., ring : ring + rings, :length])
        out = values[start : start + _PART].view(-1, grid.n_psi)
        torch.mm(on_views.view(2 * count, -1).T, tables.psi, out=out)
    return values


def _new(shape: tuple[int, ...], like: Tensor) -> Tensor:
    """Return an uninitialised tensor; on the CPU from numpy, which asks Linux for large pages.

    Handing out 38 MB in pages of 4 kB takes longer than to compute what is written there.
    """
    if like.device.type != "cpu":
        return like.new_empty(shape)
    return torch.from_numpy(
        np.empty(shape, dtype=np.float64 if like.dtype == torch.float64 else np.float32)
    )


def _adjoin(values: Tensor, tables: _Tables, order: int, l_max: int) -> Tensor:
    """Return ``(b, L + 1, 2 L + 1, L + 1, 2)`` real from ``(b, n_views, n_psi)``."""
    grid = SO3Grid(order)
    count, width = l_max + 1, 2 * l_max + 1
    coefficients = values.new_empty(len(values), count, width, count, 2)
    for start in range(0, len(values), _PART):
        part = values[start : start + _PART]
        batch = len(part)
        on_views = (tables.psi @ part.reshape(-1, grid.n_psi).T).view(2, count, batch, grid.n_views)
        total = values.new_zeros(width, count, count, batch, 2)
        for group in tables.groups:
            length = group.rot.shape[2] // 2
            padded = values.new_zeros(len(group.rot) // count, count, batch, 2, length)
            by_ring = padded.permute(3, 1, 2, 0, 4)
            for ring, rings, first, number in group.spans:
                source = on_views[..., first : first + rings * number].unflatten(
                    -1, (rings, number)
                )
                by_ring[..., ring : ring + rings, :number] = source
            over_m = torch.bmm(padded.view(len(group.rot), batch, 2 * length), group.rot.mT)
            on_rings = over_m.view(-1, count, batch, 2, width).permute(4, 1, 0, 2, 3)
            packed = on_rings.reshape(width * count, -1, batch * 2)
            total += torch.bmm(group.tilt.mT, packed).view(total.shape)
        coefficients[start : start + _PART] = total.permute(3, 2, 0, 1, 4)
    return coefficients


class _Synthesis(torch.autograd.Function):
    """The transform; its gradient is the adjoint, and the other way round."""

    @staticmethod
    def forward(ctx: Any, coefficients: Tensor, order: int) -> Tensor:
        """Take real pairs to values."""
        ctx.l_max, ctx.order = coefficients.shape[3] - 1, order
        tables = _tables(ctx.l_max, order, coefficients.dtype, coefficients.device)
        return _synthesise(coefficients, tables, order)

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, None]:
        """Take values to real pairs."""
        return _Adjoint.apply(gradient, ctx.order, ctx.l_max), None  # type: ignore[no-untyped-call]


class _Adjoint(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, values: Tensor, order: int, l_max: int) -> Tensor:
        """Take values to real pairs."""
        ctx.order = order
        return _adjoin(values, _tables(l_max, order, values.dtype, values.device), order, l_max)

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, None, None]:
        """Take real pairs to values."""
        return _Synthesis.apply(gradient, ctx.order), None, None  # type: ignore[no-untyped-call]


def evaluate_on_grid(coefficients: Tensor, order: int) -> Tensor:
    """Evaluate functions on the whole HEALPix x S1 grid.

    ``coefficients``: ``(b, L + 1, 2 L + 1, L + 1)`` complex. ``order``: order of the grid, see
    `SO3Grid`. Returns ``(b, n_views, n_psi)`` real; view pixels in HEALPix RING order.
    Differentiable.
    """
    degree_of(coefficients)
    pairs = torch.view_as_real(coefficients.resolve_conj())
    values: Tensor = _Synthesis.apply(pairs, order)  # type: ignore[no-untyped-call]
    return values


def evaluate_alone(coefficients: np.ndarray, order: int) -> np.ndarray:
    """Evaluate one function as `evaluate_on_grid` does, in the caller's thread and no other.

    Of a transform that takes half a millisecond, torch's threads would spend more on waiting for each
    other, and their number can only be set for the whole process.

    ``coefficients``: ``(L + 1, 2 L + 1, L + 1)`` complex64. ``order``: order of the grid, from 1
    on. Returns ``(n_views, n_psi)`` float32; view pixels in HEALPix RING order.
    """
    width, count = coefficients.shape[1:]
    tables, grid = _tables(count - 1, order, torch.float32, torch.device("cpu")), SO3Grid(order)
    packed = np.ascontiguousarray(coefficients.transpose(1, 2, 0)).view(np.float32)
    packed = packed.reshape(width * count, count, 2)
    on_views = np.empty((2, count, grid.n_views), np.float32)
    for group in tables.groups:
        rot = group.rot.numpy()
        on_rings = (group.tilt.numpy() @ packed).reshape(width, count, -1, 2)
        over_m = on_rings.transpose(2, 1, 3, 0).reshape(len(rot), 1, 2 * width)
        by_ring = (over_m @ rot).reshape(-1, count, 2, rot.shape[2] // 2).transpose(2, 1, 0, 3)
        for ring, rings, first, length in group.spans:
            part = by_ring[:, :, ring : ring + rings, :length]
            on_views[..., first : first + rings * length] = part.reshape(2, count, -1)
    parts = np.ascontiguousarray(on_views.reshape(2 * count, -1).T).reshape(-1, _ALONE, 2 * count)
    values: np.ndarray = (parts @ tables.psi.numpy()).reshape(grid.n_views, grid.n_psi)
    return values


def adjoint_on_grid(values: Tensor, l_max: int) -> Tensor:
    """Return the adjoint of `evaluate_on_grid`: ``Re <c, adjoint(v)> = <evaluate(c), v>``.

    ``values``: ``(b, n_views, n_psi)`` real. ``l_max``: largest degree L of the result. Returns
    ``(b, L + 1, 2 L + 1, L + 1)`` complex. Differentiable. The inner product is the plain sum over
    stored coefficients, of which those at n > 0 count twice. Raises `ValueError` if the values are
    not on such a grid.
    """
    order = int(np.log2(values.shape[1] // 12)) // 2
    if values.ndim != 3 or values.shape[1:] != (SO3Grid(order).n_views, SO3Grid(order).n_psi):
        raise ValueError(
            f"values must be (b, n_views, n_psi) on a HEALPix x S1 grid, not {tuple(values.shape)}"
        )
    pairs: Tensor = _Adjoint.apply(values, order, l_max)  # type: ignore[no-untyped-call]
    return torch.view_as_complex(pairs.contiguous())
