"""Track D's instruments: forward operators other than a convolution, and their textbook inverses."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import torch

from selfinv.operators import (
    Convolution,
    Downsample,
    Hadamard,
    Identity,
    LinearOperator,
    MaskedFourier,
    MixedConvolution,
    Radon,
    RandomProjections,
    Shift,
    Stack,
)
from selfinv.psf import gaussian
from selfinv.solvers.channelwise import linear_conjugate_gradients
from selfinv.types import Array, Shape

VIEWS = 64  # projections: for 256 pixels a sixth of what would be needed
LEAST_SQUARES_STEPS = 20
CONVERGED = 1e-8  # of the squared slope at the start: rows that are orthonormal need one step


def _blur(shape: Shape, sigma: tuple[float, ...] = (1.0, 1.0)) -> Convolution:
    size = tuple(2 * int(np.ceil(3 * s)) + 1 for s in sigma)
    return Convolution(torch.as_tensor(gaussian(sigma, size)), shape, "reflect")


def _dithered(shape: Shape) -> LinearOperator:
    """Four frames with coarse pixels, shifted by halves of them."""
    blur = _blur(shape, (0.6, 0.6))
    offsets = ((0.0, 0.0), (0.0, 1.0), (1.0, 0.0), (1.0, 1.0))
    return Stack([Downsample(shape, 2) @ Shift(shape, d) @ blur for d in offsets])


def _two_views(shape: Shape) -> LinearOperator:
    """Seen sharp along one axis at a time, as by two lenses."""
    return Stack([_blur(shape, (4.0, 0.7)), _blur(shape, (0.7, 4.0))])


def _varying(shape: Shape) -> LinearOperator:
    """Sharp in the middle and blurred towards the corners, each in its own direction."""
    ends = [(0, 0), (0, shape[1] - 1), (shape[0] - 1, 0), (shape[0] - 1, shape[1] - 1)]
    sigmas = [(3.0, 1.0), (1.0, 3.0), (1.5, 1.5), (2.5, 2.5)]
    kernels = np.stack([gaussian(s, (19, 19)) for s in sigmas])
    return MixedConvolution(torch.as_tensor(kernels), shape, positions=np.array(ends, dtype=float))


def _spectrum(shape: Shape, lines: bool) -> LinearOperator:
    """A third of the frequencies, all of the lowest: single ones, or whole lines."""
    generator = torch.Generator().manual_seed(4)
    near = [(torch.arange(n) - n // 2).abs() <= max(4, n // 24) for n in shape]
    if lines:
        kept = (torch.rand(shape[0], 1, generator=generator) < 0.3) | near[0][:, None]
        return MaskedFourier(shape, kept.expand(shape).contiguous(), lines=-1)
    kept = torch.rand(shape, generator=generator) < 0.3
    return MaskedFourier(shape, kept | (near[0][:, None] & near[1][None]))


OPERATORS: dict[str, Callable[[Shape], LinearOperator]] = {
    "identity": Identity,
    "coarser": lambda shape: Downsample(shape, 2) @ _blur(shape),
    "coarser 1.5": lambda shape: Downsample(shape, 1.5) @ _blur(shape),
    "dithered": _dithered,
    "two views": _two_views,
    "varying blur": _varying,
    "projections": lambda shape: Radon(shape, np.arange(VIEWS) * 180.0 / VIEWS),
    "limited angles": lambda shape: Radon(shape, np.arange(VIEWS) * 120.0 / VIEWS),
    "spectrum": lambda shape: _spectrum(shape, False),
    "spectrum lines": lambda shape: _spectrum(shape, True),
    "random signs": lambda shape: RandomProjections(shape, min(4096, shape[0] * shape[1] * 2 // 5)),
    "hadamard": lambda shape: Hadamard(shape, shape[0] * shape[1] * 2 // 5),
}


def textbook_inverse(operator: LinearOperator, y: Array) -> Array:
    """Filtered back-projection, or least squares by a few conjugate-gradient steps from zero."""
    values = torch.from_numpy(np.nan_to_num(y).astype(np.float32))
    if isinstance(operator, Radon):
        return operator.filtered_backprojection(values).numpy()
    with torch.no_grad():
        slope = operator.adjoint(values[None, None])
        x = linear_conjugate_gradients(
            lambda d: operator.adjoint(operator(d)), slope, LEAST_SQUARES_STEPS, CONVERGED
        )
    return x[0, 0][operator.view].numpy()
