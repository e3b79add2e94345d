"""Operators that weigh a few neighbours along one axis after another: coarser pixels, shifts."""

from __future__ import annotations

import math
from collections.abc import Sequence
from functools import reduce
from typing import Literal, get_args

import torch
from torch import Tensor

from selfinv.operators.base import LinearOperator, as_numbers
from selfinv.operators.boundary import reflected_index
from selfinv.types import InputError, Shape, check_shape, shown

Beyond = Literal["reflect", "zero"]


class Separable(LinearOperator):
    r"""A sum over a few taps along each axis, :math:`y_i = \sum_t w_{t,i}\, x_{k_{t,i}}`.

    Parameters
    ----------
    shape
        Spatial shape of the object.
    axes
        For each axis the places :math:`k` and the weights :math:`w`, both ``taps results``; None leaves the
        axis alone.
    """

    def __init__(self, shape: Sequence[int], axes: Sequence[tuple[Tensor, Tensor] | None]) -> None:
        super().__init__(
            shape, [n if taps is None else taps[0].shape[1] for n, taps in zip(shape, axes, strict=True)]
        )
        self.used = [axis - len(axes) for axis, taps in enumerate(axes) if taps is not None]
        for axis, taps in enumerate(axes):
            if taps is not None:
                self.register_buffer(f"places{axis}", taps[0])
                self.register_buffer(f"weights{axis}", taps[1])

    def _taps(self, axis: int, like: Tensor) -> list[tuple[Tensor, Tensor]]:
        """Places and weights of each tap, the weights shaped to multiply ``axis`` (counted from the end)."""
        number = axis + len(self.in_shape)
        weights = self.get_buffer(f"weights{number}").to(like.dtype)
        return list(
            zip(
                self.get_buffer(f"places{number}"),
                weights.reshape(*weights.shape, *(1,) * (-1 - axis)),
                strict=True,
            )
        )

    def forward(self, x: Tensor) -> Tensor:
        self._check(x, self.in_shape, "forward", "object")
        for axis in self.used:
            taps = [x.index_select(axis, places) * weights for places, weights in self._taps(axis, x)]
            x = reduce(Tensor.add, taps)
        return x

    def adjoint(self, y: Tensor) -> Tensor:
        self._check(y, self.out_shape, "adjoint", "measurement")
        for axis in reversed(self.used):
            shape = list(y.shape)
            shape[axis] = self.in_shape[axis]
            x = y.new_zeros(shape)
            for places, weights in self._taps(axis, y):
                x = x.index_add(axis % y.ndim, places, y * weights)
            y = x
        return y


class Downsample(Separable):
    r"""A detector with coarser pixels: each measures the object's mean over its area.

    Along each axis :math:`y_i = \frac{1}{f} \sum_j |[if, (i+1)f] \cap [j, j+1]|\, x_j`.

    Parameters
    ----------
    shape
        Spatial shape of the object, on the fine grid.
    factor
        How many fine pixels, 1 or more and not necessarily whole, make a coarse one: one number, or one per
        axis (1 leaves an axis alone). What is left over at an axis's far end is not seen.

    Raises
    ------
    InputError
        If a factor is below 1 or larger than the object.

    Notes
    -----
    Objects are ``(..., *shape)``, measurements ``(..., *floor(shape / factor))``. Super-resolution is
    ``Downsample(A.out_shape, factor) @ A`` with the blur ``A``, a `Convolution` on the fine grid.

    Examples
    --------
    >>> import torch
    >>> Downsample((6,), 1.5)(torch.tensor([3.0, 6, 0, 0, 0, 3])).tolist()
    [4.0, 2.0, 0.0, 2.0]
    """

    def __init__(self, shape: Sequence[int], factor: float | Sequence[float]) -> None:
        shape = check_shape(shape)
        factors = _per_axis(factor, shape, "factor")
        if not all(1.0 <= f <= n for f, n in zip(factors, shape, strict=True)):
            raise InputError(
                f"factor={factor!r} does not fit an object of the shape {shape}; expected fine pixels per "
                f"coarse one, from 1 to the number there are along each axis"
            )
        self.factor = tuple(factors)
        super().__init__(
            shape, [None if f == 1 else _overlaps(n, f) for n, f in zip(shape, factors, strict=True)]
        )


class Shift(Separable):
    r"""Move an object by a fraction of a pixel, as between dithered frames: :math:`y(r) = x(r - d)`.

    Linear interpolation: exact for pixels that measure the mean over their area, of an object that is
    constant within each pixel of its grid.

    Parameters
    ----------
    shape
        Spatial shape of the object.
    offset
        The shift :math:`d` in pixels, one number per axis; positive is towards larger indices.
    boundary
        What comes in from beyond the object: ``"reflect"``, its mirror image (half-sample; up to one pixel
        this repeats the edge), or ``"zero"``.

    Raises
    ------
    InputError
        If the offset does not fit the shape, or the boundary is unknown.

    Examples
    --------
    >>> import torch
    >>> Shift((4,), (0.5,), "zero")(torch.tensor([2.0, 0, 0, 4])).tolist()
    [1.0, 1.0, 0.0, 2.0]
    """

    def __init__(
        self, shape: Sequence[int], offset: float | Sequence[float], boundary: Beyond = "reflect"
    ) -> None:
        shape = check_shape(shape)
        offsets = _per_axis(offset, shape, "offset")
        if not all(math.isfinite(d) for d in offsets):
            raise InputError(f"offset={offset!r} is not finite; give a number of pixels for each axis")
        if boundary not in get_args(Beyond):
            raise InputError(f"boundary={boundary!r} is unknown; use one of {', '.join(get_args(Beyond))}")
        self.offset = tuple(offsets)
        self.boundary = boundary
        super().__init__(
            shape, [_between(n, d, boundary) if d else None for n, d in zip(shape, offsets, strict=True)]
        )

    @property
    def field_of_view(self) -> tuple[slice, ...] | None:
        return None if any(self.offset) else super().field_of_view


def _per_axis(value: float | Sequence[float], shape: Shape, name: str) -> list[float]:
    values = as_numbers(value, name, "one number, or one per axis", torch.float64)
    values = values.expand(len(shape)) if values.ndim == 0 else values
    if values.shape != (len(shape),):
        raise InputError(
            f"{name}={shown(value)} does not fit an object of the shape {shape}; give one number, or one per "
            f"axis"
        )
    return list(values.tolist())


def _overlaps(n: int, factor: float) -> tuple[Tensor, Tensor]:
    """The fine pixels under each coarse one, and the shares of its area that they fill."""
    count = int(n / factor + 1e-9)
    low = torch.arange(count, dtype=torch.float64) * factor
    high = (low + factor).clamp(max=n)
    first = (low + 1e-9).floor()
    places = first + torch.arange(math.ceil(factor) + (not factor.is_integer()))[:, None]
    overlap = (torch.minimum(high, places + 1) - torch.maximum(low, places)).clamp(min=0.0)
    return places.long().clamp(max=n - 1), overlap / factor


def _between(n: int, offset: float, boundary: Beyond) -> tuple[Tensor, Tensor]:
    """The two pixels between which each one of a shifted axis lies, and their weights."""
    whole = math.floor(-offset)
    fraction = -offset - whole
    places = torch.arange(n) + whole + torch.tensor([[0], [1]])
    weights = torch.tensor([[1.0 - fraction], [fraction]], dtype=torch.float64).expand(2, n)
    if boundary == "zero":
        return places.clamp(0, n - 1), weights * ((places >= 0) & (places < n))
    outside = min(0, whole)
    index = reflected_index(n, -outside, max(0, whole + 1))
    return index[places - outside], weights.clone()
