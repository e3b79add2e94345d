"""The UNet that inverts: the paper's (Fig. 2) and ours are two settings of one architecture."""

from __future__ import annotations

import contextlib
import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass
from functools import lru_cache
from typing import Any, Literal

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from selfinv.learning.precision import autocast
from selfinv.operators.boundary import reflect
from selfinv.types import InputError, spatial_index


@dataclass(frozen=True)
class UNetSettings:
    """The architecture of a `UNet`, all that is needed to build it again.

    Parameters
    ----------
    ndim
        Number of spatial axes, 1 to 3.
    channels
        Channels of the image, in and out.
    marks
        Further input channels that carry no intensities (see `lift`).
    copies
        Further input channels with filtered copies of the image, so many for each of its channels.
    widths
        Channels of each level, finest first; the decoder mirrors them.
    kernels
        Sizes of the successive convolutions of a level.
    first_kernels
        The same of the finest level on the way down, where samples are many; None: as ``kernels``.
    pool
        ``"max"`` or ``"average"``.
    slope
        Negative slope of the (leaky) rectifier; 0 is ReLU.
    fold
        Work on a grid coarser by this factor: neighbouring samples become channels on the way in
        and channels become samples on the way out (Shi et al. 2016, arXiv:1609.05158).
    pooled_axes
        For each pooling, which spatial axes are halved; thin axes stay whole. None halves all.
    skip
        How the way up takes in what the way down had: ``"concatenate"``, or ``"add"``, which is cheaper where
        the samples are many.
    precision
        ``"auto"``: bfloat16 where the processor is built for it (all but the last layer); ``"single"``.
    """

    ndim: int = 2
    channels: int = 1
    marks: int = 0
    copies: int = 0
    widths: tuple[int, ...] = (8, 16, 32, 64, 64)
    kernels: tuple[int, ...] = (5, 3)
    first_kernels: tuple[int, ...] | None = None
    pool: Literal["max", "average"] = "max"
    slope: float = 0.0
    fold: int = 1
    pooled_axes: tuple[tuple[bool, ...], ...] | None = None
    skip: Literal["concatenate", "add"] = "concatenate"
    precision: Literal["auto", "single"] = "single"

    def to_dict(self) -> dict[str, Any]:
        """The settings as plain JSON types."""
        return asdict(self)

    @classmethod
    def from_dict(cls, settings: dict[str, Any]) -> UNetSettings:
        """Undo `to_dict`, also after a passage through JSON."""
        values = dict(settings)
        values["widths"] = tuple(values["widths"])
        for name in ("kernels", "first_kernels"):
            if values.get(name) is not None:
                values[name] = tuple(values[name])
        if values.get("pooled_axes") is not None:
            values["pooled_axes"] = tuple(tuple(axes) for axes in values["pooled_axes"])
        return cls(**values)

    def factors(self) -> list[tuple[int, ...]]:
        """The pooling factor of every axis, for each pooling."""
        axes = self.pooled_axes or ((True,) * self.ndim,) * (len(self.widths) - 1)
        return [tuple(2 if halved else 1 for halved in level) for level in axes]

    def multiple(self) -> tuple[int, ...]:
        """The input's size must be a multiple of this along each axis; `UNet` pads up to it."""
        product = [self.fold] * self.ndim
        for level in self.factors():
            product = [p * f for p, f in zip(product, level, strict=True)]
        return tuple(product)

    def receptive_radius(self) -> tuple[int, ...]:
        """How far along each axis an output sample's inputs can be away from it, at most."""
        across = sum(kernel // 2 for kernel in self.kernels)
        first = sum(kernel // 2 for kernel in self.first_kernels or self.kernels)
        radii = []
        for axis in range(self.ndim):
            scales = [self.fold]
            for level in self.factors():
                scales.append(scales[-1] * level[axis])
            # Down and up again through all levels but the coarsest; then pooling and unfolding, which look at
            # whole blocks, and the smoothing of the output.
            convolved = across * (2 * sum(scales[:-1]) + scales[-1]) + (first - across) * scales[0]
            radii.append(convolved + 2 * (scales[-1] - 1) + (2 * (self.fold // 2) if self.fold > 1 else 0))
        return tuple(radii)


def pooled_axes_for(
    shape: Sequence[int], levels: int, *, fold: int = 1, smallest: int = 4
) -> tuple[tuple[bool, ...], ...]:
    """Which axes to halve between ``levels`` levels so that none gets shorter than ``smallest`` samples."""
    sizes = [max(1, n // fold) for n in shape]
    pattern: list[tuple[bool, ...]] = []
    for _ in range(levels - 1):
        halved = tuple(n >= 2 * smallest for n in sizes)
        pattern.append(halved)
        sizes = [n // 2 if h else n for n, h in zip(sizes, halved, strict=True)]
    return tuple(pattern)


POOLS: dict[str, tuple[Callable[..., Tensor], ...]] = {
    "max": (F.max_pool1d, F.max_pool2d, F.max_pool3d),
    "average": (F.avg_pool1d, F.avg_pool2d, F.avg_pool3d),
}


PRECISION = torch.float32  # of the weights, whatever a caller has made torch's default

# Channels innermost: twice as fast in single precision on CPUs, and what half precision needs.
LAYOUTS = {2: torch.channels_last, 3: torch.channels_last_3d}


class Repeat(torch.autograd.Function):
    """Nearest-neighbour upsampling whose gradient is a pooling: much faster on CPUs than torch's own."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, factor: tuple[int, ...]) -> Tensor:
        ctx.factor = factor
        return _repeated(x, factor)

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, None]:
        pool: Callable[..., Tensor] = POOLS["average"][gradient.ndim - 3]
        whole = gradient.float() if gradient.ndim == 5 else gradient  # there is no half-precision 3-D pooling
        return (pool(whole, ctx.factor) * math.prod(ctx.factor)).to(gradient.dtype), None


class Average(torch.autograd.Function):
    """Average pooling of whole blocks whose gradient is an upsampling: faster than torch's own likewise."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, factor: tuple[int, ...]) -> Tensor:
        ctx.factor, ctx.dtype = factor, x.dtype
        pool: Callable[..., Tensor] = POOLS["average"][x.ndim - 3]
        return pool(x, factor)

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, None]:
        share = (gradient / math.prod(ctx.factor)).to(ctx.dtype)
        return _repeated(share, ctx.factor), None


def _repeated(x: Tensor, factor: tuple[int, ...]) -> Tensor:
    return F.interpolate(x, scale_factor=tuple(float(f) for f in factor), mode="nearest")


class UNet(nn.Module):
    """A UNet for ``batch channel *space`` of any spatial size (Ronneberger et al. 2015, arXiv:1505.04597).

    Every level is a few convolutions, each with batch normalisation and a rectifier; nearest-neighbour
    upsampling and concatenation on the way up; a convolution of one sample makes the output.
    """

    def __init__(self, settings: UNetSettings) -> None:
        super().__init__()
        if not 1 <= settings.ndim <= 3:
            raise InputError(f"a UNet works on 1 to 3 spatial axes, got {settings.ndim}")
        self.settings = settings
        samples = settings.fold**settings.ndim
        widths = settings.widths
        self.down = nn.ModuleList()
        previous = (settings.channels * (1 + settings.copies) + settings.marks) * samples
        for width in widths:
            first = not self.down and settings.first_kernels
            self.down.append(self._block(previous, width, first or settings.kernels))
            previous = width
        self.up = nn.ModuleList()
        self.to_skip = nn.ModuleList()
        for width in reversed(widths[:-1]):
            if settings.skip == "add":
                self.to_skip.append(self._conv(previous, width, 1, bias=False))
                self.up.append(self._block(width, width, settings.kernels))
            else:
                self.up.append(self._block(previous + width, width, settings.kernels))
            previous = width
        self.last = self._conv(previous, settings.channels * samples, 1, bias=True)
        if settings.ndim in LAYOUTS:
            self.to(memory_format=LAYOUTS[settings.ndim])  # type: ignore[call-overload]

    def hidden_weights(self) -> list[Tensor]:
        """The weights of all convolutions but the last; batch normalisation takes their scale away."""
        convolutions = (nn.Conv1d, nn.Conv2d, nn.Conv3d)
        return [m.weight for m in self.modules() if isinstance(m, convolutions) and m is not self.last]

    def _conv(self, inputs: int, outputs: int, kernel: int, bias: bool) -> Any:
        conv = (nn.Conv1d, nn.Conv2d, nn.Conv3d)[self.settings.ndim - 1]
        return conv(inputs, outputs, kernel, padding=kernel // 2, bias=bias, dtype=PRECISION)

    def _block(self, inputs: int, outputs: int, kernels: Sequence[int]) -> nn.Sequential:
        norm = (nn.BatchNorm1d, nn.BatchNorm2d, nn.BatchNorm3d)[self.settings.ndim - 1]
        layers: list[nn.Module] = []
        for kernel in kernels:
            layers += [
                self._conv(inputs, outputs, kernel, bias=False),
                norm(outputs, dtype=PRECISION),
                nn.LeakyReLU(self.settings.slope, inplace=True),
            ]
            inputs = outputs
        return nn.Sequential(*layers)

    def _output(self, x: Tensor) -> Tensor:
        """The last convolution, of one sample, as the matrix product it is: twice as fast on CPUs."""
        return F.linear(x.movedim(1, -1), self.last.weight.flatten(1), self.last.bias).movedim(-1, 1)

    def forward(self, x: Tensor) -> Tensor:
        with autocast(x.device, self.settings.precision):
            return self._forward(x)

    def _forward(self, x: Tensor) -> Tensor:
        settings = self.settings
        shape = x.shape[2:]
        pads = [(0, -n % m) for n, m in zip(shape, settings.multiple(), strict=True)]
        x = reflect(x, pads)
        if settings.fold > 1:
            x = fold(x, settings.fold)
        if settings.ndim in LAYOUTS:
            x = x.contiguous(memory_format=LAYOUTS[settings.ndim])
        pool: Callable[..., Tensor] = (
            Average.apply if settings.pool == "average" else POOLS["max"][x.ndim - 3]
        )
        skips = []
        factors = settings.factors()
        for level, block in enumerate(self.down):
            x = block(x)
            if level < len(factors):
                skips.append(x)
                x = pool(x, factors[level])
        for level, (block, factor) in enumerate(zip(self.up, reversed(factors), strict=True)):
            if settings.skip == "add":
                x = block(Repeat.apply(self.to_skip[level](x), factor) + skips.pop())
            else:
                x = block(torch.cat([Repeat.apply(x, factor), skips.pop()], dim=1))
        with torch.autocast(x.device.type, enabled=False):  # half precision would show as steps of brightness
            x = self._output(x.float())
        if settings.fold > 1:
            x = InStep.apply(unfold(x, settings.fold), settings.fold)
        return x if x.shape[2:] == shape else x[spatial_index(slice(0, n) for n in shape)]


class InStep(torch.autograd.Function):
    """Take out of each spatial axis exactly the patterns of a ``period`` and of its parts, edges repeated.

    `unfold` makes neighbouring samples from different channels, and nothing else keeps those in step where
    the forward operator cannot see it (Sugawara et al. 2018, arXiv:1806.02658). In place where it can be,
    which takes less than half as long as the same by torch's gradients.
    """

    @staticmethod
    def forward(ctx: Any, x: Tensor, period: int) -> Tensor:
        ctx.taps = _taps(period)
        reach = len(ctx.taps) // 2
        for axis in range(2, x.ndim):
            n = x.shape[axis]
            margin = [reach if a == axis else -1 for a in range(x.ndim)]
            ends = (x.narrow(axis, 0, 1).expand(margin), x.narrow(axis, n - 1, 1).expand(margin))
            wide = torch.cat([ends[0], x, ends[1]], dim=axis)
            x = ctx.taps[0] * wide.narrow(axis, 0, n)
            for k, tap in enumerate(ctx.taps[1:], start=1):
                x.add_(wide.narrow(axis, k, n), alpha=tap)
        return x

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, None]:
        reach = len(ctx.taps) // 2
        for axis in range(2, gradient.ndim):
            n = gradient.shape[axis]
            size = [m + 2 * reach if a == axis else m for a, m in enumerate(gradient.shape)]
            wide = gradient.new_zeros(size)
            for k, tap in enumerate(ctx.taps):
                wide.narrow(axis, k, n).add_(gradient, alpha=tap)
            gradient = wide.narrow(axis, reach, n)
            for end, beyond in ((0, 0), (n - 1, n + reach)):
                outside = wide.narrow(axis, beyond, reach).sum(dim=axis, keepdim=True)
                gradient.narrow(axis, end, 1).add_(outside)
        return gradient, None


@lru_cache(maxsize=8)
def _taps(period: int) -> tuple[float, ...]:
    r"""A box of ``period`` samples (and of 2, if that is even) :math:`S`, sharpened: :math:`2S - S^2`.

    That keeps its zeros, and of waves in between it takes only the square of what the box takes (Tukey's
    twicing, 1977).
    """
    box = np.full(period, 1.0 / period)
    once = np.convolve(box, [0.5, 0.5]) if period % 2 == 0 else box
    reach = len(once) // 2
    return tuple(map(float, 2.0 * np.pad(once, reach) - np.convolve(once, once)))


def fold(x: Tensor, factor: int) -> Tensor:
    """Turn each ``factor``-sized neighbourhood into channels, for any number of spatial axes."""
    batch, channels, *space = x.shape
    ndim = len(space)
    split = x.reshape(batch, channels, *(n for size in space for n in (size // factor, factor)))
    order = [0, 1, *range(3, 3 + 2 * ndim, 2), *range(2, 2 + 2 * ndim, 2)]
    return split.permute(order).reshape(batch, channels * factor**ndim, *(n // factor for n in space))


def unfold(x: Tensor, factor: int) -> Tensor:
    """Undo `fold`."""
    batch, channels, *space = x.shape
    ndim = len(space)
    split = x.reshape(batch, channels // factor**ndim, *([factor] * ndim), *space)
    order = [0, 1] + [axis for i in range(ndim) for axis in (2 + ndim + i, 2 + i)]
    return split.permute(order).reshape(batch, -1, *(n * factor for n in space))


@contextlib.contextmanager
def frozen_statistics(model: nn.Module) -> Iterator[None]:
    """Normalise batches by their own statistics without moving the running ones toward them."""
    norms = [m for m in model.modules() if isinstance(m, nn.modules.batchnorm._BatchNorm)]
    momenta = [norm.momentum for norm in norms]
    for norm in norms:
        norm.momentum = 0.0
    try:
        yield
    finally:
        for norm, momentum in zip(norms, momenta, strict=True):
            norm.momentum = momentum
