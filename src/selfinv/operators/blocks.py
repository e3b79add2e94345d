"""Convolution block by block, two real blocks in one complex Fourier transform.

A real kernel treats the real and the imaginary part of a complex image alike, so two blocks of an image cost
one complex transform each way: about half of what real transforms cost, whose inverse is slow in most
libraries. Blocks that overlap by the kernel's reach (overlap-save: Stockham 1966,
doi:10.1145/1464182.1464209) stay in a processor's cache, and no copy of the whole image in Fourier space is
made.
"""

from __future__ import annotations

import itertools
import math
from dataclasses import dataclass
from functools import cached_property, lru_cache
from typing import Any

import torch
from torch import Tensor

from selfinv.operators.transform_length import fast_length
from selfinv.types import Shape

# Measured on a processor with 2 MB of cache for each core; in complex numbers.
CACHE = 160_000  # the largest transform (of a plane) that is fast; twice as many cost twice as much each
CALLS = 5000  # could be transformed in the time that the calls for one pair of blocks take
REAL = 0.8  # what a real number costs in real transforms


@dataclass(frozen=True)
class Axis:
    r"""One axis cut into blocks: of :math:`y_m = \sum_a h_a\, x_{m + s - a}`, with zeros beyond :math:`x`.

    Parameters
    ----------
    source, result, kernel, shift
        The lengths of :math:`x`, :math:`y` and :math:`h`, and :math:`s`.
    count
        How many blocks.
    gpu
        Where they are transformed.
    """

    source: int
    result: int
    kernel: int
    shift: int
    count: int
    gpu: bool = False

    @property
    def core(self) -> int:
        """How many results a block gives."""
        return -(-self.result // self.count)

    @cached_property
    def size(self) -> int:
        """Of a block's transform."""
        if self.count > 1:
            return fast_length(self.core + self.kernel - 1, gpu=self.gpu)
        # What wraps around in a single block may fall where there are zeros in any case.
        least = max(self.result + self.shift, self.source + self.kernel - 1 - self.shift)
        return fast_length(least, gpu=self.gpu)

    def pieces(self, block: int) -> tuple[slice, slice, slice, slice]:
        """Where a block's values are in the source and in the block, its results in the block and in all."""
        if self.count == 1:
            whole, all_results = slice(0, self.source), slice(0, self.result)
            return whole, whole, slice(self.shift, self.shift + self.result), all_results
        first = block * self.core
        base = first + self.shift - self.kernel + 1  # the source's place of the block's first value
        low, high = min(max(base, 0), self.source), max(min(base + self.size, self.source), 0)
        last = max(first, min(first + self.core, self.result))
        return (
            slice(low, max(low, high)),
            slice(low - base, max(low, high) - base),
            slice(self.kernel - 1, self.kernel - 1 + last - first),
            slice(first, last),
        )


class Blocks:
    """Convolve, zeros beyond the source included, in blocks of the size that is fastest.

    Parameters
    ----------
    source, result, kernel, shift
        As for `Axis`, one number for each axis.
    gpu
        Where they are transformed. Not cut there: the calls cost more than it saves.
    """

    def __init__(
        self, source: Shape, result: Shape, kernel: Shape, shift: Shape, *, gpu: bool = False
    ) -> None:
        self.result = result
        self.dims = tuple(range(-len(source), 0))
        lengths = tuple(zip(source, result, kernel, shift, strict=True))
        self.cut(tuple(Axis(*length, count=1, gpu=True) for length in lengths) if gpu else _fastest(lengths))

    def cut(self, axes: tuple[Axis, ...]) -> None:
        """Use these blocks; with more than one, the number along some axis must be even."""
        self.axes = axes
        self.size: Shape = tuple(axis.size for axis in axes)
        self.paired = _paired(axes)
        steps = [range(0, a.count, 2 if i == self.paired else 1) for i, a in enumerate(axes)]
        self.places = [
            [self._place(block, second) for second in (False, True)[: 1 if self.paired is None else 2]]
            for block in itertools.product(*steps)
        ]

    def _place(self, block: tuple[int, ...], second: bool) -> list[tuple[Any, ...]]:
        """Where a block, or the second one of a pair, takes from and puts to: see `Axis.pieces`."""
        pieces = [
            a.pieces(b + (second and i == self.paired))
            for i, (a, b) in enumerate(zip(self.axes, block, strict=True))
        ]
        return [(..., *slices) for slices in zip(*pieces, strict=True)]

    def spectrum(self, kernel: Tensor, dtype: torch.dtype) -> Tensor:
        """Of a kernel, for `convolve` in this precision; scaled, so that the transform back need not be."""
        wide = kernel.to(torch.promote_types(kernel.dtype, dtype))
        transform = torch.fft.rfftn if self.paired is None else torch.fft.fftn
        spectrum = transform(wide, s=self.size, dim=self.dims, norm="forward")
        return spectrum.to(torch.complex128 if dtype == torch.float64 else torch.complex64)

    def convolve(self, x: Tensor, spectrum: Tensor) -> Tensor:
        """``(..., *source)`` to ``(..., *result)``; not differentiable by itself."""
        own = x.shape[: x.ndim - len(self.size)]
        lead = torch.broadcast_shapes(own, spectrum.shape[: -len(self.size)])
        y = x.new_empty(*lead, *self.result)
        x = x.to(spectrum.real.dtype)
        space = (*own, *self.size)
        if self.paired is None:
            [[[take, put, kept, _]]] = self.places
            block = x.new_zeros(space)
            block[put] = x[take]
            product = torch.fft.rfftn(block, dim=self.dims) * spectrum
            return torch.fft.irfftn(product, s=self.size, dim=self.dims, norm="forward")[kept].to(y.dtype)
        pair = torch.zeros(space, dtype=spectrum.dtype, device=x.device)
        filled = [put for _, put, _, _ in self.places[0]]
        for places in self.places:
            (take, put, _, _), (other_take, other_put, _, _) = places
            if filled != [put, other_put]:
                pair.zero_()
                filled = [put, other_put]
            if put == other_put:
                torch.complex(x[take], x[other_take], out=pair[put])
            else:
                pair.real[put], pair.imag[other_put] = x[take], x[other_take]
            product = torch.fft.fftn(pair, dim=self.dims)
            product = product.mul_(spectrum) if lead == own else product * spectrum
            product = torch.fft.ifftn(product, dim=self.dims, norm="forward")
            for part, (_, _, kept, place) in enumerate(places):
                y[place] = (product.real, product.imag)[part][kept]
        return y


@lru_cache(maxsize=256)
def _fastest(lengths: tuple[tuple[int, int, int, int], ...]) -> tuple[Axis, ...]:
    """How to cut axes of these lengths (source, result, kernel, shift)."""
    choices = []
    for source, result, kernel, shift in lengths:
        most = max(1, result // max(kernel, 8))
        counts = sorted({1, *(n for n in (2, 3, 4, 6, 8, 12, 16, 24, 32, 48, 64, 96, 128) if n <= most)})
        choices.append([Axis(source, result, kernel, shift, count) for count in counts])
    return min(itertools.product(*choices), key=_cost)


def _paired(axes: tuple[Axis, ...]) -> int | None:
    """The axis along which two blocks make a pair; None if there is none."""
    return next((i for i, axis in enumerate(axes) if axis.count % 2 == 0), None)


def _cost(axes: tuple[Axis, ...]) -> tuple[float, list[int]]:
    """How long it takes, in arbitrary units; of equals those that cut along slow axes come first."""
    size, count = math.prod(a.size for a in axes), math.prod(a.count for a in axes)
    paired = _paired(axes) is not None
    plane = math.prod(a.size for a in axes[-2:]) / (1 if paired else 2)
    cost = size * (1 + min(max(plane / CACHE - 1, 0.0), 1.0)) * (1.0 if paired else REAL) + CALLS
    counts = [axis.count for axis in reversed(axes)]
    return (cost * count / 2 if paired else cost if count == 1 else math.inf), counts
