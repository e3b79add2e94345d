r"""The measurement already sharpened, from too little to too much, beside the measurement itself.

What a blur does to waves is known, and to learn to undo it takes a network most of its steps. So it is also
shown what linear filters make of the measurement,

.. math:: W_\lambda = \frac{\bar H}{|H|^2 + \lambda},

the inverses of :math:`H` that Tikhonov's penalty of the size keeps bounded (doi:10.1007/978-94-015-8480-7):
with a small :math:`\lambda` sharp and noisy, with a large one soft; each divided by its norm, so that noise
has the same size in all. Which is right where is for the network to learn. They work on what is shown to it,
hidden values filled in, and so tell nothing of hidden ones.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from selfinv.operators import Composition, Convolution, LinearOperator, Mask, MixedConvolution, Scaled
from selfinv.operators.transform_length import fast_length
from selfinv.solvers.base import Forward
from selfinv.types import Shape

STRENGTHS = (3e-3, 3e-2, 3e-1)  # of the greatest |H|²
REACH = 2  # of a filter, relative to how far 99 % of the PSF reach
LEAST = 2  # samples: a PSF narrower than that hides nothing
KEPT = 16  # sizes of images whose transforms are kept


@dataclass(frozen=True)
class InverseFilters:
    """Regularised inverses of one blur.

    Parameters
    ----------
    kernels
        ``filter channel *kernel``, of odd sizes; one channel for all, or one for each.
    """

    kernels: Tensor = field(repr=False)
    _convolutions: dict[tuple[Shape, torch.device], Convolution] = field(
        default_factory=dict, repr=False, compare=False
    )

    @classmethod
    def of(cls, operator: Forward) -> InverseFilters | None:
        """For an operator that blurs all places (nearly) alike; None if it does not, or not at all."""
        psf = point_spread(operator)
        if psf is None or not isinstance(operator, LinearOperator):
            return None
        ndim = len(operator.out_shape)
        if any(n > 1 for n in psf.shape[: max(0, psf.ndim - ndim - 1)]):
            return None  # another one for each frame
        psf = psf.detach().cpu().double().reshape(-1, *psf.shape[psf.ndim - ndim :])
        gains = psf.flatten(1).sum(1)
        reach = [_extent(psf, axis) for axis in range(1, ndim + 1)]
        if not bool((gains.abs() > 1e-3 * psf.abs().flatten(1).sum(1)).all()) or max(reach) < LEAST:
            return None
        psf = psf / gains.reshape(-1, *(1,) * ndim)
        kernels = torch.stack([_inverse(psf, strength, [REACH * r for r in reach]) for strength in STRENGTHS])
        return cls(kernels.float())

    @property
    def count(self) -> int:
        """How many filtered images there are of each channel."""
        return len(self.kernels)

    @property
    def reach(self) -> Shape:
        """How far along each axis a filtered value's sources can be away from it."""
        return tuple(n // 2 for n in self.kernels.shape[2:])

    def __call__(self, x: Tensor) -> Tensor:
        """``batch channel *space`` to ``batch filter·channel *space``, mirrored beyond the edges."""
        key = tuple(x.shape[2:]), x.device
        convolution = self._convolutions.get(key)
        if convolution is None:
            convolution = Convolution(self.kernels.to(x.device), key[0], "reflect", "fft")
            while len(self._convolutions) >= KEPT:
                self._convolutions.pop(next(iter(self._convolutions)), None)
            self._convolutions[key] = convolution
        return convolution(x[:, None]).flatten(1, 2)

    def __reduce__(self) -> tuple[Any, ...]:
        return InverseFilters, (self.kernels,)  # what is kept for speed stays behind


def point_spread(operator: Forward) -> Tensor | None:
    """The PSF, ``(..., *kernel)``; of a blur that varies the mean; None if that is not what it is."""
    if isinstance(operator, Scaled):
        return point_spread(operator.operator)
    if isinstance(operator, Composition) and isinstance(operator.outer, Mask):
        return point_spread(operator.inner)
    if isinstance(operator, MixedConvolution):
        return operator.convolution.psf.mean(dim=0)
    return operator.psf if isinstance(operator, Convolution) else None


def _extent(psf: Tensor, axis: int) -> int:
    """How far along an axis 99 % of a PSF reach from its middle sample."""
    profile = psf.abs().sum(dim=[a for a in range(psf.ndim) if a != axis])
    middle = len(profile) // 2
    inside = [float(profile[max(0, middle - r) : middle + r + 1].sum()) for r in range(max(1, middle + 1))]
    return next((r for r, share in enumerate(inside) if share >= 0.99 * inside[-1]), middle)


def _inverse(psf: Tensor, strength: float, reach: list[int]) -> Tensor:
    """One filter's kernel, ``channel *kernel``, faded out toward its ends; white noise keeps its size."""
    dims = tuple(range(1, psf.ndim))
    sizes = [fast_length(max(4 * r + 1, n)) for r, n in zip(reach, psf.shape[1:], strict=True)]
    middles = [n // 2 for n in psf.shape[1:]]
    wide = psf.new_zeros(psf.shape[0], *sizes)
    wide[(slice(None), *(slice(0, n) for n in psf.shape[1:]))] = psf
    transfer = torch.fft.rfftn(wide.roll([-m for m in middles], dims), dim=dims)
    power = transfer.abs().square()
    filtered = transfer.conj() / (power + strength * power.amax(dim=dims, keepdim=True))
    kernel = torch.fft.irfftn(filtered, s=sizes, dim=dims).roll(reach, dims)
    for axis, r in zip(dims, reach, strict=True):
        kernel = kernel.narrow(axis, 0, 2 * r + 1)
        outer = ((torch.arange(-r, r + 1).abs() / max(r, 1) - 0.5) * 2).clamp_min(0.0)
        fade = torch.cos(outer * (0.5 * torch.pi)).square().to(kernel)
        kernel = kernel * fade.reshape(-1, *(1,) * (psf.ndim - 1 - axis))
    return kernel / kernel.square().sum(dim=dims, keepdim=True).sqrt()
