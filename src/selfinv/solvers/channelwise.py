"""Linear algebra for each batch and channel by itself, ``batch channel *space``."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from selfinv.operators import LinearOperator, random_like

ROUNDING = 1e3  # times the precision: what an operator shows of a constant beside what it shows of others


def dot(a: Tensor, b: Tensor) -> Tensor:
    """The inner product of each channel, ``batch channel *space`` to ``batch channel``."""
    return (a * b).flatten(2).sum(-1)


def spread(factor: Tensor, x: Tensor) -> Tensor:
    """A number for each channel in the shape that broadcasts against ``x``."""
    return factor.reshape(*factor.shape, *(1,) * (x.ndim - 2))


def ratio(a: Tensor, b: Tensor) -> Tensor:
    """``a / b``, and 0 where ``b`` is 0: a channel that is done stands still."""
    return torch.where(b != 0.0, a, 0.0) / torch.where(b != 0.0, b, 1.0)


def unchanged(z: Tensor) -> Tensor:
    """Neither weighed nor correlated."""
    return z


def linear_conjugate_gradients(
    curve: Callable[[Tensor], Tensor],
    slope: Tensor,
    steps: int,
    enough: float = 0.0,
    precondition: Callable[[Tensor], Tensor] = unchanged,
) -> Tensor:
    r"""Some steps from 0 towards the :math:`x` with :math:`Cx = b`, for each batch and channel by itself.

    Parameters
    ----------
    curve
        :math:`C`, symmetric and nowhere negative.
    slope
        :math:`b`, ``batch channel *space``.
    enough
        Stop where what is left of the slope, squared, is this part of what it was; 0: take all steps.
    precondition
        About the inverse of :math:`C`, as symmetric; it is the norm that ``enough`` is of, too.
    """
    axes = tuple(range(2, slope.ndim))
    x, residual, direction = torch.zeros_like(slope), slope, precondition(slope)
    energy = first = (residual * direction).sum(axes, keepdim=True)
    for _ in range(steps):
        if enough and bool((energy <= enough * first).all()):
            break
        curved = curve(direction)
        t = energy / (direction * curved).sum(axes, keepdim=True).clamp_min(1e-30)
        x, residual = x + t * direction, residual - t * curved
        turned = precondition(residual)
        previous, energy = energy, (residual * turned).sum(axes, keepdim=True)
        direction = turned + energy / previous.clamp_min(1e-30) * direction
    return x


def constant_object(A: LinearOperator, values: Tensor, measured: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """The constant object that explains the measured values best, what it predicts of them, and the gain.

    The gain is what the operator makes of a constant of 1, the root of its mean square; 1 where that is 0,
    but for rounding.
    """
    ones = values.new_ones(*values.shape[:2], *A.in_shape)
    flat, uneven = A(ones) * measured, A(random_like(A, ones.shape, values.dtype, seed=0).to(ones)) * measured
    least = (ROUNDING * torch.finfo(values.dtype).eps) ** 2 * dot(uneven, uneven)
    flat = flat * spread(dot(flat, flat) > least, flat)
    power = dot(flat, flat)
    level = ratio(dot(flat, values), power)
    gain = torch.where(power > 0.0, ratio(power, dot(measured, measured)).sqrt(), 1.0)
    return spread(level, ones) * ones, spread(level, flat) * flat, gain
