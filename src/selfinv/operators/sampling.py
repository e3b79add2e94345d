"""Operators that choose which values are measured."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from selfinv.operators.base import LinearOperator, as_numbers
from selfinv.types import InputError, check_shape, shown


class Identity(LinearOperator):
    """The measurement is the object itself: restoring through it is denoising.

    Examples
    --------
    >>> import torch
    >>> x = torch.rand(8, 8)
    >>> bool((Identity((8, 8))(x) == x).all())
    True
    """

    def __init__(self, shape: Sequence[int]) -> None:
        super().__init__(shape, shape)

    @property
    def pointwise(self) -> bool:
        return True

    @property
    def reach(self) -> tuple[tuple[int, int], ...]:
        return ((0, 0),) * len(self.in_shape)

    def window(self, shape: Sequence[int], outside: Sequence[tuple[int, int]]) -> LinearOperator:
        return Identity(shape)

    def forward(self, x: Tensor) -> Tensor:
        self._check(x, self.in_shape, "forward", "object")
        return x

    def adjoint(self, y: Tensor) -> Tensor:
        self._check(y, self.out_shape, "adjoint", "measurement")
        return y


class Surround(LinearOperator):
    """Put zeros around an object.

    Parameters
    ----------
    shape
        Of the object.
    pads
        How many, before and after, along each axis.

    Raises
    ------
    InputError
        If the shape is none, or the pads do not fit it.

    Examples
    --------
    >>> import torch
    >>> Surround((2,), [(1, 2)])(torch.ones(2)).tolist()
    [0.0, 1.0, 1.0, 0.0, 0.0]
    """

    def __init__(self, shape: Sequence[int], pads: Sequence[tuple[int, int]]) -> None:
        sizes, expected = check_shape(shape), "two whole numbers, 0 or more, for each axis"
        given = as_numbers(pads, "pads", expected)
        if given.shape != (len(sizes), 2) or given.is_floating_point() or bool((given < 0).any()):
            raise InputError(f"pads={shown(pads)} does not fit the shape {sizes}; expected {expected}")
        each = [(int(a), int(b)) for a, b in given.tolist()]
        super().__init__(sizes, [n + a + b for n, (a, b) in zip(sizes, each, strict=True)])
        self.pads = tuple(each)

    def forward(self, x: Tensor) -> Tensor:
        self._check(x, self.in_shape, "forward", "object")
        return F.pad(x, [p for pair in reversed(self.pads) for p in pair])

    def adjoint(self, y: Tensor) -> Tensor:
        self._check(y, self.out_shape, "adjoint", "measurement")
        for axis, (before, _), n in zip(range(-len(self.pads), 0), self.pads, self.in_shape, strict=True):
            y = y.narrow(axis, before, n)
        return y


class Mask(LinearOperator):
    """Pixels that are missing, bad or saturated: zero in the measurement, whatever the object is there.

    Parameters
    ----------
    mask
        Booleans, ``*space``: True where there is a measurement.

    Raises
    ------
    InputError
        If the mask is not boolean, or nothing is measured.

    Notes
    -----
    What stands at a pixel that was not measured, NaN for instance, never gets into the adjoint.

    Examples
    --------
    >>> import torch
    >>> Mask([True, False, True])(torch.ones(3)).tolist()
    [1.0, 0.0, 1.0]
    """

    def __init__(self, mask: Any) -> None:
        mask = boolean(mask)
        super().__init__(mask.shape, mask.shape)
        self.mask: Tensor
        self.register_buffer("mask", mask)

    @property
    def pointwise(self) -> bool:
        return True

    @property
    def measured(self) -> Tensor:
        return self.mask

    def forward(self, x: Tensor) -> Tensor:
        self._check(x, self.in_shape, "forward", "object")
        return torch.where(self.mask, x, 0.0)

    def adjoint(self, y: Tensor) -> Tensor:
        self._check(y, self.out_shape, "adjoint", "measurement")
        return torch.where(self.mask, y, 0.0)


def boolean(mask: Any) -> Tensor:
    """A copy of a mask, True where there is a measurement, or what is wrong with it."""
    mask = as_numbers(mask, "mask", "booleans, True where there is a measurement").detach().clone()
    if mask.dtype != torch.bool:
        raise InputError(
            f"mask has the type {mask.dtype}; expected booleans, True where there is a measurement: "
            f"compare it with a threshold, for instance mask > 0"
        )
    if not bool(mask.any()):
        raise InputError(f"mask of the shape {tuple(mask.shape)} is False everywhere: nothing is measured")
    return mask
