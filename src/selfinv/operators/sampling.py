"""Operators that choose which values are measured."""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor

from selfinv.operators.base import LinearOperator


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

    def window(self, shape: Sequence[int]) -> LinearOperator:
        return Identity(shape)

    def forward(self, x: Tensor) -> Tensor:
        self._check(x, self.in_shape, "forward", "object")
        return x

    def adjoint(self, y: Tensor) -> Tensor:
        self._check(y, self.out_shape, "adjoint", "measurement")
        return y
