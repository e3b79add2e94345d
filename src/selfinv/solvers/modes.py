"""Modes of a grid, waves or cosines, and how much of each an operator lets through."""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor

from selfinv.operators import Adjoint, Composition, Convolution, Identity, LinearOperator, Scaled
from selfinv.operators.transform_length import fast_length
from selfinv.solvers.channelwise import ratio
from selfinv.types import Shape

BINS = 128  # of the radial spectra
PROBES = 4


class Modes:
    """Orthonormal modes on a grid ``*shape``: waves where the object repeats, else cosines.

    Waves fit what goes on at the other side, cosines (DCT-II) what goes on evenly beyond the edge.
    """

    def __init__(self, shape: Shape, periodic: bool, like: Tensor) -> None:
        self.shape = shape
        self.periodic = periodic
        self.dims = tuple(range(-len(shape), 0))
        self.like = like.detach().new_zeros(())
        self.axes = []  # frequencies in cycles per sample, in double precision on the CPU
        squared = torch.zeros((), dtype=torch.float64)
        for dim, n in zip(self.dims, shape, strict=True):
            frequencies = torch.arange(n, dtype=torch.float64) / (2 * n)
            if periodic:
                sampled = torch.fft.rfftfreq if dim == -1 else torch.fft.fftfreq
                frequencies = sampled(n, dtype=torch.float64)
            self.axes.append(frequencies)
            squared = squared + frequencies.square().reshape(-1, *(1,) * (-1 - dim))
        self.frequency = squared.sqrt().to(self.like)
        self.twice = self.like.new_ones(len(self.axes[-1]))
        if periodic:  # a real object's spectrum is symmetric, and rfft leaves out the second half
            self.twice[1 : (shape[-1] + 1) // 2] = 2.0

    def analyse(self, x: Tensor) -> Tensor:
        """The coefficients of an object, ``(..., *shape)`` to ``(..., *modes)``."""
        if self.periodic:
            return torch.fft.rfftn(x, dim=self.dims, norm="ortho")
        for dim in self.dims:
            x = _cosine(x.movedim(dim, -1)).movedim(-1, dim)
        return x

    def synthesise(self, coefficients: Tensor) -> Tensor:
        """The inverse, and the adjoint, of `analyse`."""
        if self.periodic:
            return torch.fft.irfftn(coefficients, s=self.shape, dim=self.dims, norm="ortho")
        for dim in self.dims:
            coefficients = _inverse_cosine(coefficients.movedim(dim, -1)).movedim(-1, dim)
        return coefficients

    def dot(self, a: Tensor, b: Tensor) -> Tensor:
        """The inner product of the objects with these coefficients, ``batch channel``."""
        product = (a * b.conj()).real if a.is_complex() else a * b
        return (self.twice * product).flatten(2).sum(-1)


def _cosine(x: Tensor) -> Tensor:
    """The orthonormal DCT-II of the last axis by one FFT (Makhoul 1980, doi:10.1109/TASSP.1980.1163351)."""
    n = x.shape[-1]
    spectrum = torch.fft.fft(torch.cat([x[..., ::2], x[..., 1::2].flip(-1)], -1))
    return (spectrum * _turns(n, x).conj()).real * _scales(n, x)


def _inverse_cosine(c: Tensor) -> Tensor:
    n = c.shape[-1]
    c = c / _scales(n, c)
    x = torch.fft.ifft(torch.complex(c, -F.pad(c[..., 1:].flip(-1), (1, 0))) * _turns(n, c)).real
    half = (n + 1) // 2
    return torch.stack([x[..., :half], F.pad(x[..., half:].flip(-1), (0, n % 2))], -1).flatten(-2)[..., :n]


def _turns(n: int, like: Tensor) -> Tensor:
    angle = torch.arange(n, device=like.device, dtype=like.dtype) * (math.pi / (2 * n))
    return torch.polar(torch.ones_like(angle), angle)


def _scales(n: int, like: Tensor) -> Tensor:
    scales = like.new_full((n,), math.sqrt(2.0 / n))
    scales[0] = math.sqrt(1.0 / n)
    return scales


# ---- what the operator does to each mode ----


def wraps(A: LinearOperator) -> bool:
    """Whether the object repeats beyond its grid."""
    if isinstance(A, Scaled | Adjoint):
        return wraps(A.operator)
    if isinstance(A, Composition):
        return wraps(A.outer) and wraps(A.inner)
    return isinstance(A, Convolution) and A.boundary == "periodic"


def power_transfer(A: LinearOperator, modes: Modes) -> Tensor | None:
    r""":math:`|H|^2` of each mode far from edges; None if ``A`` may differ from place to place."""
    if wraps(A):
        impulse = modes.like.new_zeros(modes.shape)
        impulse[(0,) * impulse.ndim] = 1.0
        return torch.fft.rfftn(A(impulse), dim=modes.dims).abs().square()
    return _even_power(A, modes)


def _even_power(A: LinearOperator, modes: Modes) -> Tensor | None:
    """The same where modes stand for all signs of their frequencies."""
    if isinstance(A, Identity):
        return torch.ones_like(modes.frequency)
    if isinstance(A, Adjoint):
        return _even_power(A.operator, modes)
    if isinstance(A, Scaled):
        power = _even_power(A.operator, modes)
        return None if power is None else A.scale**2 * power
    if isinstance(A, Composition):
        inner, outer = _even_power(A.inner, modes), _even_power(A.outer, modes)
        return None if inner is None or outer is None else inner * outer
    return _kernel_power(A, modes) if isinstance(A, Convolution) else None


def _kernel_power(A: Convolution, modes: Modes) -> Tensor:
    r""":math:`|H|^2` at the modes' frequencies, averaged over their signs.

    It is the cosine series of the kernel's autocorrelation, whose lags are folded onto positive ones.
    """
    like = modes.like
    kernel = A.psf.to(like.device, torch.promote_types(A.psf.dtype, like.dtype))
    sizes = [fast_length(2 * k - 1) for k in A.kernel_shape]
    spectrum = torch.fft.rfftn(kernel, s=sizes, dim=modes.dims)
    power = torch.fft.irfftn(spectrum.abs().square(), s=sizes, dim=modes.dims)
    for dim, k, frequencies in zip(modes.dims, A.kernel_shape, modes.axes, strict=True):
        power = power.movedim(dim, -1)
        negative = power[..., power.shape[-1] - k + 1 :].flip(-1)
        power = torch.cat([power[..., :1], power[..., 1:k] + negative], -1)
        cosines = torch.cos(2 * math.pi * torch.arange(k)[:, None] * frequencies)
        power = (power @ cosines.to(power)).movedim(-1, dim)
    return power.clamp_min(0.0).to(like.dtype)


def probed_power(A: LinearOperator, modes: Modes, channels: int) -> Tensor:
    r"""The mean of :math:`|A u_f|^2` over the modes of about the same frequency, from random objects.

    With independent signs :math:`v`, :math:`v_f (U^\top A^\top A U v)_f` is right on average (Hutchinson
    1990, doi:10.1080/03610919008812866); the weakest are taken to be a thousandth of the strongest.
    """
    generator = torch.Generator().manual_seed(0)
    total = modes.like
    for _ in range(PROBES):
        signs = torch.randint(2, (1, channels, *modes.shape), generator=generator).to(modes.like) * 2.0 - 1.0
        total = total + signs * modes.analyse(A.adjoint(A(modes.synthesise(signs))))
    rings = Rings(modes)
    profile = rings.mean(total / PROBES)
    return torch.maximum(profile, 1e-3 * profile.amax(-1, keepdim=True))[..., rings.index]


class Rings:
    """Modes sorted by frequency into rings (shells), the same for waves and cosines; the mean is in none."""

    def __init__(self, modes: Modes) -> None:
        bins = min(BINS, max(modes.shape)) + 1
        highest = 0.5 * math.sqrt(len(modes.shape))
        self.index = (modes.frequency * ((bins - 1) / highest)).round().long()
        self.twice = modes.twice.expand(modes.frequency.shape).flatten()[1:]
        self.counts = self.twice.new_zeros(bins).index_add(0, self.index.flatten()[1:], self.twice)
        self.frequency = self.mean(modes.frequency)

    def mean(self, values: Tensor) -> Tensor:
        """The mean over each ring, 0 over empty ones, ``(..., *modes)`` to ``(..., ring)``."""
        flat = values.flatten(values.ndim - self.index.ndim)[..., 1:] * self.twice
        sums = flat.new_zeros(*flat.shape[:-1], len(self.counts))
        return ratio(sums.index_add(-1, self.index.flatten()[1:], flat), self.counts)
