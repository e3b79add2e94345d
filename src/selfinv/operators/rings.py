"""Projections whose detector pixels have offsets of their own, so weighed that their noise is independent."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from selfinv.operators.base import LinearOperator
from selfinv.types import InputError, check_number, check_shape

SMOOTH = 1.5  # detector pixels: wider detail of what projections have in common is left to the object


class RingFilter(LinearOperator):
    r"""What all projections have in common counts for less, in its finest detail across the detector.

    .. math:: W = I - \bigl(1 - e^{-1/2}\bigr)\, H M

    with the mean over angles :math:`M` and a high-pass filter across the detector :math:`H`. Noise of the
    variance :math:`\sigma^2` and offsets of the variance :math:`\tau^2` make a mean over :math:`n` angles
    :math:`e = 1 + n\tau^2/\sigma^2` times as uncertain as noise alone; the noise of :math:`Wy` is as
    independent there as everywhere else.

    Parameters
    ----------
    shape
        Of the measurement, ``angle detector``.
    excess
        :math:`e`, 1 or more.

    Raises
    ------
    InputError
        If the shape has not two axes, or ``excess`` is no number above or at 1.

    Notes
    -----
    Its own adjoint; measurements ``(..., angle, detector)``, as `Radon` has them. `selfinv.without_rings`
    finds ``excess``.
    """

    def __init__(self, shape: Sequence[int], excess: float) -> None:
        shape = check_shape(shape)
        if len(shape) != 2:
            raise InputError(
                f"projections of a plane have two axes, angle and detector; got the shape {shape}"
            )
        super().__init__(shape, shape)
        self.excess = check_number(excess, "excess", least=1.0)
        place = torch.arange(shape[1], dtype=torch.float64)
        near = torch.exp(-(place[:, None] - place).square() / (2.0 * SMOOTH**2))
        self.fine: Tensor  # symmetric
        self.register_buffer("fine", torch.eye(shape[1], dtype=torch.float64) - near / near.sum(1).max())

    def forward(self, x: Tensor) -> Tensor:
        self._check(x, self.in_shape, "forward", "object")
        return x - (1.0 - self.excess**-0.5) * (x.mean(-2, keepdim=True) @ self.fine.to(x))

    def adjoint(self, y: Tensor) -> Tensor:
        self._check(y, self.out_shape, "adjoint", "measurement")
        return self.forward(y)
