r"""Convex functionals with their proximal maps: what a solver minimises the sum of.

For a functional :math:`f`, ``prox`` is :math:`\arg\min_v f(v) + \|v - u\|^2 / 2\tau` and ``dual_prox`` the
same of the conjugate :math:`f^*`, which tells the other by Moreau's identity :math:`u =
\mathrm{prox}_{\sigma f^*}(u) + \sigma\,\mathrm{prox}_{f/\sigma}(u/\sigma)` (Moreau 1965,
doi:10.24033/bsmf.1625). All act value by value and never sum: the caller leaves out what was not measured.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor

from selfinv.noise import noise_level
from selfinv.types import InputError, check_number


class Fidelity(Protocol):
    """The cost of a predicted measurement ``v`` where ``y`` was measured."""

    def value(self, v: Tensor, y: Tensor) -> Tensor:
        """The cost of every value."""
        ...

    def conjugate(self, u: Tensor, y: Tensor) -> Tensor:
        """The conjugate's value at ``u``, of every value."""
        ...

    def dual_prox(self, u: Tensor, sigma: float, y: Tensor) -> Tensor:
        """The proximal map of the conjugate."""
        ...

    def curvature(self, y: Tensor) -> float:
        """The typical second derivative, from which step sizes are taken; NaN in ``y`` are missing values.

        Raises `InputError` if such values cannot be measured.
        """
        ...


@dataclass(frozen=True)
class SquaredL2:
    r"""Half the squared difference, :math:`\tfrac12 (v - y)^2`: Gaussian noise."""

    def value(self, v: Tensor, y: Tensor) -> Tensor:
        return (v - y).square_().mul_(0.5)

    def conjugate(self, u: Tensor, y: Tensor) -> Tensor:
        return u * (0.5 * u + y)

    def dual_prox(self, u: Tensor, sigma: float, y: Tensor) -> Tensor:
        return torch.sub(u, y, alpha=sigma).div_(1.0 + sigma)

    def curvature(self, y: Tensor) -> float:
        return 1.0


@dataclass(frozen=True)
class Huber:
    r"""Quadratic up to ``delta``, linear beyond: Gaussian noise with outliers or clipping.

    :math:`r^2/2` for :math:`|r| \le \delta`, else :math:`\delta|r| - \delta^2/2`, with :math:`r = v - y`;
    ``delta`` in the units of ``y`` (Huber 1964, doi:10.1214/aoms/1177703732).
    """

    delta: float

    def __post_init__(self) -> None:
        check_number(self.delta, "Huber's delta", above=0.0)

    def value(self, v: Tensor, y: Tensor) -> Tensor:
        size = (v - y).abs_()
        inner = size.clamp(max=self.delta)
        return inner * (size - 0.5 * inner)

    def conjugate(self, u: Tensor, y: Tensor) -> Tensor:
        return u * (0.5 * u + y)  # for |u| <= delta, where `dual_prox` keeps it

    def dual_prox(self, u: Tensor, sigma: float, y: Tensor) -> Tensor:
        return torch.sub(u, y, alpha=sigma).div_(1.0 + sigma).clamp_(-self.delta, self.delta)

    def curvature(self, y: Tensor) -> float:
        return 1.0


@dataclass(frozen=True)
class L1:
    r"""The absolute difference :math:`|v - y|`: aims at the median, unmoved by clipping and outliers."""

    def value(self, v: Tensor, y: Tensor) -> Tensor:
        return (v - y).abs_()

    def conjugate(self, u: Tensor, y: Tensor) -> Tensor:
        return u * y  # for |u| <= 1, where `dual_prox` keeps it

    def dual_prox(self, u: Tensor, sigma: float, y: Tensor) -> Tensor:
        return torch.sub(u, y, alpha=sigma).clamp_(-1.0, 1.0)

    def curvature(self, y: Tensor) -> float:
        return 1.0 / noise_scale(y)


@dataclass(frozen=True)
class Poisson:
    r"""Generalised Kullback-Leibler divergence of counts, :math:`v + b - y + y \log\frac{y}{v + b}`.

    ``background`` :math:`b` is what was counted without the object, in the units of ``y``. The scale of ``y``
    matters: in photon counts this is the negative log-likelihood.
    """

    background: float = 0.0

    def value(self, v: Tensor, y: Tensor) -> Tensor:
        rate = (v + self.background).clamp_min(0.0)
        return rate - y + torch.xlogy(y, y / rate.clamp_min(torch.finfo(y.dtype).tiny))

    def conjugate(self, u: Tensor, y: Tensor) -> Tensor:
        return -torch.xlogy(y, (1.0 - u).clamp_min(0.0)) - self.background * u

    def dual_prox(self, u: Tensor, sigma: float, y: Tensor) -> Tensor:
        above = u + (sigma * self.background - 1.0)
        root = (above.square() + 4.0 * sigma * y).sqrt_()
        # The same, without the difference of large numbers: never above 1, where the conjugate is infinite.
        below = torch.where(above > 0.0, 2.0 * sigma * y / (root + above), 0.5 * (root - above))
        return 1.0 - below

    def curvature(self, y: Tensor) -> float:
        seen = y[torch.isfinite(y)]
        if bool((seen < 0.0).any()):
            raise InputError(
                f"{int((seen < 0.0).sum())} of {seen.numel()} values are below 0, down to "
                f"{float(seen.min()):.4g}, but the Poisson fidelity is for counts; leave in an offset that "
                f"was subtracted (background), set them to 0, or use SquaredL2()"
            )
        return 1.0 / max(float(seen.mean()) + self.background, 1e-12)


@dataclass(frozen=True)
class TotalVariation:
    r"""``weight`` times the length of each gradient vector, :math:`\lambda \|(\nabla x)_i\|_2` (isotropic).

    Rudin, Osher & Fatemi 1992, doi:10.1016/0167-2789(92)90242-F. Gradients are ``(..., ndim, *space)``.
    """

    weight: float

    def value(self, gradient: Tensor, ndim: int) -> Tensor:
        return self.weight * _length(gradient, ndim)

    def dual_prox_(self, p: Tensor, ndim: int) -> Tensor:
        """Project onto vectors no longer than the weight, in place (whatever the step size)."""
        if self.weight == 0.0:
            return p.zero_()
        scale = _length(p, ndim).div_(self.weight).clamp_min_(1.0)
        return p.div_(scale.unsqueeze(-ndim - 1))


@dataclass(frozen=True)
class Box:
    """Values outside ``lower`` to ``upper`` are impossible; None leaves a side open."""

    lower: float | None = None
    upper: float | None = None

    def __post_init__(self) -> None:
        if self.lower is not None and self.upper is not None and not self.lower < self.upper:
            raise InputError(f"the lower bound {self.lower} is not below the upper bound {self.upper}")

    @property
    def open(self) -> bool:
        """Whether nothing is excluded."""
        return self.lower is None and self.upper is None

    def prox(self, x: Tensor) -> Tensor:
        return x if self.open else x.clamp(self.lower, self.upper)


def noise_scale(y: Tensor, least: float = 1e-3) -> float:
    """The noise's deviation in ``batch channel *space``, NaN where missing; never 0.

    Nor is it below ``least`` times the range of the channel that has the widest: their levels are no signal.
    """
    channels = y.split(1, dim=1)
    spans = [span(channel) for channel in channels]
    varied = [channel for channel, s in zip(channels, spans, strict=True) if s]
    level = noise_level(torch.cat(varied, dim=1).detach().cpu()) if varied else 0.0
    return max(level, least * max(spans), torch.finfo(torch.float32).tiny)


def span(values: Tensor) -> float:
    """From the lowest of those that are there to the highest; 0 where there are none, or all are the same."""
    seen = values[torch.isfinite(values)]
    return float(seen.max() - seen.min()) if seen.numel() else 0.0


def _length(gradient: Tensor, ndim: int) -> Tensor:
    first, *others = gradient.unbind(-ndim - 1)
    length = first.square()  # component by component: a norm over a strided axis is ten times slower
    for component in others:
        length.addcmul_(component, component)
    return length.sqrt_()
