r"""Batch normalisation after the rectifier, carried out by the convolution that comes next.

A convolution of normalised features, :math:`W \ast (z - m)/s + b`, is one of the features as they are with
weights :math:`W/s` (beyond the edges are zeros of the features as they are, not of the normalised ones), so
what is normalised need never be written; and means and variances are those of evenly
spaced rows, which are a sample of all. On processors that wait for memory the usual order (Ioffe and Szegedy
2015, arXiv:1502.03167), where features are read and written five times to be normalised and rectified and
eight times for their gradient, takes as long as the convolutions themselves.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

SAMPLES = 2**13  # of each channel, at least where there are as many: means to some 1 % of a deviation
# Deviation of what is normalised: that of rectified normal numbers, which the rates of learning are for.
SIZE = 0.6
# Channels innermost: twice as fast in single precision on CPUs, and what half precision needs.
LAYOUTS = {2: torch.channels_last, 3: torch.channels_last_3d}


@dataclass(frozen=True)
class Features:
    """What one layer of a network hands to the next.

    Parameters
    ----------
    values
        ``batch channel *space``.
    mean, scale
        Of each channel, what the next layer takes away and then multiplies by; None: nothing.
    """

    values: Tensor
    mean: Tensor | None = None
    scale: Tensor | None = None

    def convolution(self, weight: Tensor, bias: Tensor | None) -> tuple[Tensor, Tensor | None]:
        """The weights and bias that make of the values what these make of the normalised ones."""
        if self.mean is None or self.scale is None:
            return weight, bias
        weight = weight * self.scale.view(_along(weight, 1))
        shift = (weight.reshape(*weight.shape[:2], -1).sum(dim=2) * self.mean).sum(dim=1)
        return weight, -shift if bias is None else bias - shift

    def in_units_of(self, other: Features, weight: Tensor) -> tuple[Tensor, Tensor | None]:
        """The same without a bias, for a sum with another's values instead of its normalised ones."""
        weight, bias = self.convolution(weight, None)
        if other.scale is None:
            return weight, bias
        weight = weight / other.scale.view(_along(weight, 0))
        return weight, None if bias is None else bias / other.scale


class RectifiedConvolution(nn.Module):
    """A convolution and a leaky rectifier, and how what comes out has to be normalised.

    Parameters
    ----------
    convolution
        Of odd size, of which weight, bias and padding are used.
    slope
        Of the rectifier below 0.
    momentum
        How far the running statistics, which are used out of training, move in a step; the variance is that
        of a sample, as it is.
    """

    mean: Tensor
    variance: Tensor

    def __init__(self, convolution: Any, slope: float, momentum: float = 0.1, eps: float = 1e-5) -> None:
        super().__init__()
        self.convolution, self.slope, self.momentum, self.eps = convolution, slope, momentum, eps
        self.register_buffer("mean", torch.zeros(convolution.out_channels))
        self.register_buffer("variance", torch.ones(convolution.out_channels))

    def forward(self, x: Features) -> Features:
        kind = x.values.device.type
        weight, bias = self.convolution.weight, self.convolution.bias
        dtype = torch.get_autocast_dtype(kind) if torch.is_autocast_enabled(kind) else weight.dtype
        settings = (self.slope, self.eps, dtype, self.training)
        values, mean, scale, variance = _Rectified.apply(x.values, x.mean, x.scale, weight, bias, settings)
        if not self.training:
            return Features(values, self.mean, _scale(self.variance, self.eps))
        if self.momentum:
            with torch.no_grad():
                self.mean.lerp_(mean, self.momentum)
                self.variance.lerp_(variance, self.momentum)
        return Features(values, mean, scale)


class _Rectified(torch.autograd.Function):
    """Convolves normalised features and rectifies; of what comes out also the statistics, if asked.

    All in one, for a dozen small operations each with a gradient take as long as a pass over the features.
    """

    @staticmethod
    def forward(
        ctx: Any,
        x: Tensor,
        mean: Tensor | None,
        scale: Tensor | None,
        weight: Tensor,
        bias: Tensor,
        settings: tuple[float, float, torch.dtype, bool],
    ) -> tuple[Tensor | None, ...]:
        slope, eps, dtype, measured = settings
        ctx.settings, ctx.dtypes, sums = settings, (x.dtype, weight.dtype), None
        folded = weight
        if mean is not None and scale is not None:
            folded = weight * scale.view(_along(weight, 1))
            sums = folded.flatten(2).sum(dim=2)
            bias = bias - (sums * mean).sum(dim=1)
        x, folded = x.to(dtype), folded.to(dtype)
        z = _convolved_and_rectified(x, folded, bias.to(dtype), slope)
        found: tuple[Tensor | None, ...] = (None, None, None)
        ctx.every = max(1, min(z.numel() // z.shape[1] // SAMPLES, z.shape[2] // 4))
        if measured:
            middle, variance = _statistics(_rows(z, ctx.every))
            found = (middle, _scale(variance, eps), variance)
            ctx.mark_non_differentiable(variance)
        ctx.save_for_backward(x, mean, scale, weight, folded, sums, z, *found[:2])
        return z, *found

    @staticmethod
    def backward(
        ctx: Any, of_z: Tensor, of_middle: Tensor | None, of_spread: Tensor | None, _: Tensor | None
    ) -> Any:
        x, mean, scale, weight, folded, sums, z, middle, spread = ctx.saved_tensors
        slope = ctx.settings[0]
        rectified = torch.ops.aten.leaky_relu_backward
        if middle is None:
            gradient = rectified(of_z, z, slope, True)
        else:
            assert of_middle is not None
            assert of_spread is not None
            # The variance is the mean of (z - mean)², and SIZE² over the square of the scale.
            of_variance = of_spread * spread.pow(3) * (-0.5 / SIZE**2)
            rows = _rows(z, ctx.every)
            each = of_variance * (2.0 * rows.shape[1] / rows.numel())
            share = _scaled(rows, each, of_middle * (rows.shape[1] / rows.numel()) - each * middle)
            if ctx.every == 1:
                gradient = rectified(share.add_(of_z), z, slope, True)
            else:
                gradient = rectified(of_z, z, slope, True)
                gradient[:, :, :: ctx.every] += rectified(share, rows, slope, True)
        ones = [1] * (z.ndim - 2)
        wanted = [ctx.needs_input_grad[0], True, True]
        of_x, of_folded, of_bias = torch.ops.aten.convolution_backward(
            gradient,
            x,
            folded,
            [len(folded)],
            ones,
            _padding(folded),
            ones,
            False,
            [0] * len(ones),
            1,
            wanted,
        )
        image, parameters = ctx.dtypes
        of_x = None if of_x is None else of_x.to(image)
        of_folded, of_bias = of_folded.to(parameters), of_bias.to(parameters)
        if sums is None:
            return of_x, None, None, of_folded, of_bias, None
        of_folded = of_folded - of_bias.view(_along(weight, 0)) * mean.view(_along(weight, 1))
        of_scale = (of_folded * weight).sum(dim=[a for a in range(weight.ndim) if a != 1])
        of_mean = -(of_bias[:, None] * sums).sum(dim=0)
        return of_x, of_mean, of_scale, of_folded * scale.view(_along(weight, 1)), of_bias, None


def _along(weight: Tensor, axis: int) -> list[int]:
    """The shape of numbers along one axis of a convolution's weights."""
    return [-1 if a == axis else 1 for a in range(weight.ndim)]


def _scale(variance: Tensor, eps: float) -> Tensor:
    return SIZE * torch.rsqrt(variance + eps)


def _padding(weight: Tensor) -> list[int]:
    return [n // 2 for n in weight.shape[2:]]


def _convolved_and_rectified(x: Tensor, weight: Tensor, bias: Tensor, slope: float) -> Tensor:
    if x.device.type == "cpu" and x.ndim > 3 and x.dtype in (torch.float32, torch.bfloat16) and _fuses():
        return _fused(x, weight, bias, slope)
    return _one_by_one(x, weight, bias, slope)


def _one_by_one(x: Tensor, weight: Tensor, bias: Tensor, slope: float) -> Tensor:
    convolve = (F.conv1d, F.conv2d, F.conv3d)[x.ndim - 3]
    return F.leaky_relu_(convolve(x, weight, bias, padding=_padding(weight)), slope)


def _fused(x: Tensor, weight: Tensor, bias: Tensor, slope: float) -> Tensor:
    """The two in one pass over memory, as torch's compiler has them done."""
    ones = [1] * (x.ndim - 2)
    z: Tensor = torch.ops.mkldnn._convolution_pointwise(
        x, weight, bias, _padding(weight), ones, ones, 1, "leaky_relu", [slope], "none"
    )
    return z


@lru_cache(maxsize=1)
def _fuses() -> bool:
    """Whether this torch has that; it is not promised to, so it is tried."""
    x, weight, bias = torch.linspace(-1, 1, 18).view(1, 2, 3, 3), torch.ones(1, 2, 3, 3), torch.ones(1)
    try:
        with torch.no_grad(), torch.autocast("cpu", enabled=False):
            return torch.allclose(_fused(x, weight, bias, 0.1), _one_by_one(x, weight, bias, 0.1))
    except (AttributeError, RuntimeError, TypeError):
        return False


def _rows(z: Tensor, every: int) -> Tensor:
    if every == 1:
        return z
    return z[:, :, ::every].contiguous(memory_format=LAYOUTS.get(z.ndim - 2, torch.contiguous_format))


def _statistics(z: Tensor) -> tuple[Tensor, Tensor]:
    """Mean and variance of each channel, in single precision at least."""
    if z.device.type == "cpu":
        unused = z.new_zeros(z.shape[1], dtype=torch.promote_types(z.dtype, torch.float32))
        return torch.batch_norm_update_stats(z, unused, unused.clone(), 0.0)
    whole = z.to(torch.promote_types(z.dtype, torch.float32))
    axes = [0, *range(2, z.ndim)]
    variance, mean = torch.var_mean(whole, dim=axes, correction=0)
    return mean, variance


def _scaled(z: Tensor, scale: Tensor, shift: Tensor) -> Tensor:
    """``z * scale + shift``, channel by channel, in one pass."""
    return F.batch_norm(z, torch.zeros_like(scale), torch.ones_like(scale), scale, shift, eps=0.0)
