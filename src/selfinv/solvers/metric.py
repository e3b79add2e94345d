r"""The steps of Chambolle and Pock's method, :math:`T`, filtered so that every frequency takes its longest.

:math:`T` is the inverse of :math:`M = K^\top \Sigma K` (plus a margin), :math:`K = (A, \nabla, 1)`, on a
periodic domain around the object, which for a convolution costs no Fourier transform beyond its own. Where
another operator measures pixels, :math:`A^\top A` is bounded by :math:`\|A\|^2`. Where values are no pixels,
as of projections, :math:`d = T K^\top z` is approached by a few conjugate-gradient steps, preconditioned by
an estimate of :math:`M`'s diagonal in Fourier space. They solve :math:`Md = K^\top z` exactly within the
space :math:`V` of their directions, so the step taken is that of
:math:`T = V(V^\top M V)^{-1}V^\top \le M^{-1}`: no iteration's is longer than the condition allows, though
:math:`T` differs from one to the next.

Inexact solves: Eckstein & Yao 2018, doi:10.1007/s10107-017-1160-5; a diagonal from random probes: Bekas,
Kokiopoulou & Saad 2007, doi:10.1016/j.apnum.2007.01.003.
"""

from __future__ import annotations

import copy
import math
from functools import cached_property

import torch
import torch.nn.functional as F
from torch import Tensor

from selfinv.arrangement import is_on_grid
from selfinv.operators import Convolution, Gradient, LinearOperator, norm
from selfinv.solvers.channelwise import dot, ratio, spread
from selfinv.types import Shape, spatial_index

MARGIN = 1.01  # of T's inverse above K^T Sigma K, so that the steps' product stays below 1
SOLVE_STEPS = 2  # of conjugate gradients within an iteration
PROBES = 8  # of the operator's gain at each frequency
LEAST_GAIN = 0.1  # of the mean: what is believed of such a probing


class Metric:
    """The operator, and T, on a periodic domain with the object at its start and zeros beyond it."""

    def __init__(self, A: LinearOperator, gradient: Gradient, like: Tensor) -> None:
        torus = A.torus(like) if isinstance(A, Convolution) else None
        self.A = A
        self.gradient = gradient
        self.otf = None if torus is None else torus.otf
        self.starts = None if torus is None else torus.starts
        self.domain: Shape = A.in_shape if torus is None else torus.shape
        self.dims = tuple(range(-len(self.domain), 0))
        self.on_grid = is_on_grid(A)
        self.sigmas: tuple[float, float, float] | None = None
        self.measured: Tensor | None = None
        self.channels = like.shape[1]
        self.slope = torch.zeros((), device=like.device, dtype=like.dtype)
        for axis, (n, spacing) in enumerate(zip(self.domain, gradient.spacing, strict=True)):
            last = axis == len(self.domain) - 1
            frequency = (torch.fft.rfftfreq if last else torch.fft.fftfreq)(n, device=like.device)
            squared = (2.0 * torch.sin(math.pi * frequency) / spacing).square().to(like.dtype)
            self.slope = self.slope + squared.reshape(-1, *(1,) * (len(self.domain) - 1 - axis))
        self.inverse = self.slope

    @cached_property
    def gain(self) -> Tensor:
        """Of the operator at each frequency, squared: known, estimated, or a bound for all of them."""
        if self.otf is not None:
            return self.otf.abs().square()
        if self.on_grid:
            return torch.tensor(norm(self.A, dtype=self.slope.dtype) ** 2).to(self.slope.device)
        return self._estimated_gain()

    def stepping(self, sigmas: tuple[float, float, float], measured: Tensor) -> Metric:
        """The same with T for these dual steps."""
        sigma_a, sigma_g, sigma_b = sigmas
        inverse = 1.0 / (MARGIN * (sigma_a * self.gain + sigma_g * self.slope + sigma_b))
        other = copy.copy(self)  # which knows the gain then
        other.inverse = inverse
        if not self.on_grid:
            other.sigmas, other.measured = sigmas, measured
        return other

    def norm(self) -> float:
        """At least that of K."""
        gain = float(self.gain.max()) if self.on_grid else norm(self.A, dtype=self.slope.dtype) ** 2
        return math.sqrt(MARGIN * (gain + float(self.slope.max()) + 1.0))

    def fixed(self, tau: float) -> Metric:
        """The same with T a number."""
        other = copy.copy(self)
        other.sigmas = None
        other.inverse = torch.full_like(self.slope, tau)
        return other

    def inside(self, x: Tensor) -> Tensor:
        """The object's part of the domain (a view)."""
        return x[spatial_index(slice(0, n) for n in self.A.in_shape)]

    def embed(self, x: Tensor) -> Tensor:
        """An object on the domain, zeros beyond."""
        missing = [(0, n - m) for n, m in zip(self.domain, self.A.in_shape, strict=True)]
        return F.pad(x, [p for pair in reversed(missing) for p in pair])

    def predict(self, x: Tensor) -> Tensor:
        """A x."""
        if self.otf is None:
            return self.A(x)
        return self._window(self._irfft(self._rfft(x).mul_(self.otf)))

    def solve(self, u: Tensor, p: Tensor, q: Tensor) -> tuple[Tensor, Tensor]:
        r""":math:`d = T(A^\top u + \nabla^\top p + q)` and :math:`Ad`."""
        total = q.clone()
        self.inside(total).add_(self.gradient.adjoint(p))
        if self.otf is None:
            total.add_(self.A.adjoint(u))
            if self.sigmas is not None:
                return self._approach(total, self.sigmas)
            change = self._filtered(total)
            return change, self.A(change)
        spectrum = self._rfft(self._place(u)).mul_(self.otf.conj()).add_(self._rfft(total)).mul_(self.inverse)
        return self._irfft(spectrum), self._window(self._irfft(spectrum * self.otf))

    def adjoint(self, u: Tensor) -> Tensor:
        r""":math:`A^\top u` on the object's grid."""
        if self.otf is None:
            return self.A.adjoint(u)
        return self.inside(self._irfft(self._rfft(self._place(u)).mul_(self.otf.conj())))

    def _approach(self, slope: Tensor, sigmas: tuple[float, float, float]) -> tuple[Tensor, Tensor]:
        """Some conjugate-gradient steps towards the :math:`d` with :math:`Md` = ``slope``, and :math:`Ad`."""
        sigma_a, sigma_g, sigma_b = (MARGIN * sigma for sigma in sigmas)
        steps = []
        direction = self._filtered(slope)
        energy = dot(slope, direction)
        while True:
            seen, gradient = self.A(direction), self.gradient(direction)
            shown = seen if self.measured is None else seen * self.measured
            curvature = sigma_g * dot(gradient, gradient) + sigma_b * dot(direction, direction)
            length = ratio(energy, curvature + sigma_a * dot(shown, shown))
            steps.append((spread(length, direction) * direction, spread(length, seen) * seen))
            if len(steps) == SOLVE_STEPS:
                change, predicted = zip(*steps, strict=True)
                return sum(change[1:], start=change[0]), sum(predicted[1:], start=predicted[0])
            curved = sigma_a * self.A.adjoint(shown) + sigma_g * self.gradient.adjoint(gradient)
            slope = slope - spread(length, slope) * curved.add_(direction, alpha=sigma_b)
            filtered = self._filtered(slope)
            previous, energy = energy, dot(slope, filtered)
            direction = filtered.add_(spread(ratio(energy, previous), direction) * direction)

    @torch.no_grad()
    def _estimated_gain(self) -> Tensor:
        r"""The diagonal of :math:`A^\top A` in Fourier space, or as much of it as random probes agree on.

        Two estimates, from half of the probes each, differ by their errors alone: by as much as they vary
        together they are believed, and for the rest their mean is.
        """
        generator = torch.Generator().manual_seed(0)
        shape, device = (1, self.channels, *self.domain), self.slope.device
        halves = []
        for _ in range(2):
            shown = power = torch.zeros((), device=device)
            for _ in range(PROBES // 2):
                probe = torch.randn(shape, generator=generator, dtype=self.slope.dtype).to(device)
                spectrum = self._rfft(probe)
                shown = shown + (spectrum.conj() * self._rfft(self.A.adjoint(self.A(probe)))).real.sum((0, 1))
                power = power + spectrum.abs().square().sum((0, 1))
            halves.append(shown / power)
        gain = 0.5 * (halves[0] + halves[1])
        mean = gain.mean()
        together = ((halves[0] - mean) * (halves[1] - mean)).mean()
        agreed = together / (gain - mean).square().mean().clamp_min(torch.finfo(gain.dtype).tiny)
        return torch.lerp(mean, gain, agreed.clamp(0.0, 1.0)).clamp_min(LEAST_GAIN * mean)

    def _filtered(self, x: Tensor) -> Tensor:
        return self._irfft(self._rfft(x).mul_(self.inverse))

    def _rfft(self, x: Tensor) -> Tensor:
        return torch.fft.rfftn(x, dim=self.dims)

    def _irfft(self, spectrum: Tensor) -> Tensor:
        return torch.fft.irfftn(spectrum, s=self.domain, dim=self.dims)

    def _window(self, x: Tensor) -> Tensor:
        assert self.starts is not None
        window = (slice(a, a + n) for a, n in zip(self.starts, self.A.out_shape, strict=True))
        return x[spatial_index(window)]

    def _place(self, u: Tensor) -> Tensor:
        assert self.starts is not None
        sizes = zip(self.starts, self.domain, self.A.out_shape, strict=True)
        pads = [(a, n - a - m) for a, n, m in sizes]
        return F.pad(u, [p for pair in reversed(pads) for p in pair])
