"""The discrete gradient, whose length is what total variation sums."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from selfinv.operators.base import LinearOperator, as_numbers
from selfinv.types import InputError, check_shape, shown


class Gradient(LinearOperator):
    r"""Forward differences, :math:`(\nabla x)_{a,i} = (x_{i+e_a} - x_i) / s_a`, 0 at each axis's far end.

    Parameters
    ----------
    shape
        Spatial shape of the object.
    spacing
        Voxel size along each axis, relative to each other: differences count per length, so that 3-D voxels
        which are longer along z are smoothed less along z. None: 1 everywhere.

    Raises
    ------
    InputError
        If the shape is none, or the spacing does not fit it.

    Notes
    -----
    Objects are ``(..., *shape)``, gradients ``(..., ndim, *shape)``.

    Examples
    --------
    >>> import torch
    >>> Gradient((4,))(torch.tensor([0.0, 1, 3, 3])).tolist()
    [[1.0, 2.0, 0.0, 0.0]]
    """

    def __init__(self, shape: Sequence[int], spacing: Sequence[float] | None = None) -> None:
        shape = check_shape(shape)
        super().__init__(shape, (len(shape), *shape))
        expected = "one positive voxel size per axis"
        steps = torch.ones(len(shape), dtype=torch.float64)
        if spacing is not None:
            steps = as_numbers(spacing, "spacing", expected, torch.float64)
        if steps.shape != (len(shape),) or not bool(((steps > 0.0) & steps.isfinite()).all()):
            raise InputError(
                f"spacing={shown(spacing)} does not fit an object of the shape {shape}; give {expected}"
            )
        self.spacing: tuple[float, ...] = tuple(steps.tolist())

    def forward(self, x: Tensor) -> Tensor:
        self._check(x, self.in_shape, "forward", "object")
        ndim = len(self.in_shape)
        gradient = x.new_zeros(*x.shape[: x.ndim - ndim], ndim, *self.in_shape)
        for axis, spacing in enumerate(self.spacing):
            place = axis - ndim
            component = gradient.select(-ndim - 1, axis)
            component.narrow(place, 0, x.shape[place] - 1).copy_(x.diff(dim=place).div_(spacing))
        return gradient

    def adjoint(self, y: Tensor) -> Tensor:
        self._check(y, self.out_shape, "adjoint", "gradient")
        ndim = len(self.in_shape)
        x = y.new_zeros(*y.shape[: y.ndim - ndim - 1], *self.in_shape)
        for axis, spacing in enumerate(self.spacing):
            place = axis - ndim
            n = self.in_shape[axis]
            component = y.select(-ndim - 1, axis).narrow(place, 0, n - 1)
            x.narrow(place, 0, n - 1).sub_(component, alpha=1.0 / spacing)
            x.narrow(place, 1, n - 1).add_(component, alpha=1.0 / spacing)
        return x
