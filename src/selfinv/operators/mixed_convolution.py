"""Blur that varies over the field, mixed from a few point spread functions."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

from selfinv.operators.base import LinearOperator, as_numbers
from selfinv.operators.convolution import Boundary, Convolution
from selfinv.types import InputError, check_shape

_KERNELS = "arrays of real numbers, one for each kernel"


class MixedConvolution(LinearOperator):
    r"""A blur that varies smoothly: :math:`Ax = \sum_k h_k * (w_k x)`, weights :math:`w_k` that sum to 1.

    Each point of the object is spread by the mixture of the kernels :math:`h_k` at its own place.

    Parameters
    ----------
    kernels
        ``kernel *kernel``, used as given; one size for all.
    shape
        Spatial shape of the measurement, 1 to 3 axes.
    positions
        Where each kernel was measured, ``kernel axis``, in pixels of the measurement: the points of a grid,
        in any order. The weights are then `interpolation_weights`.
    weights
        Instead of positions, ``kernel *shape``; beyond the measurement, where the object goes on, those at
        its edge are taken. Or ``kernel *in_shape``, also for that part.
    boundary, margin
        As for `Convolution`.

    Raises
    ------
    InputError
        If kernels, positions or weights do not fit each other or the shape, or weights do not sum to 1.

    Notes
    -----
    Objects are ``(..., *in_shape)``, measurements ``(..., *shape)``. Time and memory grow with the number of
    kernels.

    References
    ----------
    J. G. Nagy and D. P. O'Leary 1998, doi:10.1137/S106482759528507X.

    Examples
    --------
    >>> import torch
    >>> kernels = torch.tensor([[0.0, 1, 0], [1, 1, 1]])
    >>> A = MixedConvolution(kernels, (5,), positions=[[0], [4]], boundary="zero")
    >>> A(torch.tensor([0.0, 0, 4, 0, 0])).round().abs().tolist()
    [0.0, 2.0, 4.0, 2.0, 0.0]
    """

    def __init__(
        self,
        kernels: Any,
        shape: Sequence[int],
        *,
        positions: Any = None,
        weights: Any = None,
        boundary: Boundary = "unknown",
        margin: int | Sequence[int] | None = None,
    ) -> None:
        shape = check_shape(shape)
        kernels = _stacked(kernels)
        if kernels.ndim != len(shape) + 1:
            raise InputError(
                f"kernels have the shape {tuple(kernels.shape)}; expected {len(shape) + 1} axes, the first "
                f"of them one kernel after another"
            )
        if (positions is None) == (weights is None):
            raise InputError("MixedConvolution takes either positions or weights; give one of them")
        convolution = Convolution(kernels, shape, boundary, margin=margin)
        super().__init__(convolution.in_shape, shape)
        self.convolution = convolution
        if weights is None:
            before = [part.start for part in convolution.field_of_view]
            weights = interpolation_weights(positions, self.in_shape, before)
        weights = as_numbers(weights, "weights", "an array, kernel *shape", torch.float64).detach().clone()
        if weights.shape[1:] == shape != self.in_shape:
            for axis, (part, n) in enumerate(zip(convolution.field_of_view, self.in_shape, strict=True), 1):
                places = (torch.arange(n) - part.start).clamp(0, weights.shape[axis] - 1)
                weights = weights.index_select(axis, places)
        if weights.shape != (len(kernels), *self.in_shape):
            raise InputError(
                f"weights of the shape {tuple(weights.shape)} do not fit {len(kernels)} kernels and the "
                f"shape {shape}; expected {(len(kernels), *shape)}"
            )
        total = weights.sum(0)
        if not torch.allclose(total, torch.ones_like(total), atol=1e-4):
            raise InputError(
                f"weights sum to {float(total.min()):g} to {float(total.max()):g}; expected 1 everywhere: "
                f"divide them by their sum over the kernels"
            )
        self.weights: Tensor
        self.register_buffer("weights", weights)

    @property
    def field_of_view(self) -> tuple[slice, ...]:
        return self.convolution.field_of_view

    def forward(self, x: Tensor) -> Tensor:
        self._check(x, self.in_shape, "forward", "object")
        axis = -len(self.in_shape) - 1
        return self.convolution(x.unsqueeze(axis) * self.weights.to(x.dtype)).sum(axis)

    def adjoint(self, y: Tensor) -> Tensor:
        self._check(y, self.out_shape, "adjoint", "measurement")
        axis = -len(self.in_shape) - 1
        return (self.convolution.adjoint(y.unsqueeze(axis)) * self.weights.to(y.dtype)).sum(axis)


def _stacked(kernels: Any) -> Tensor:
    """Kernels one after another, given as one array or as a list of them."""
    if isinstance(kernels, Tensor | np.ndarray) or not np.iterable(kernels):
        return as_numbers(kernels, "kernels", _KERNELS)
    kernels = [as_numbers(kernel, "a kernel", _KERNELS) for kernel in kernels]
    if len({kernel.shape for kernel in kernels}) != 1:
        shapes = ", ".join(str(tuple(kernel.shape)) for kernel in kernels)
        raise InputError(f"the kernels have the shapes {shapes or '(none)'}; expected one size for all")
    return torch.stack(kernels)


def interpolation_weights(
    positions: Any, shape: Sequence[int], before: Sequence[int] | None = None
) -> Tensor:
    """How much each position's kernel counts at each pixel, by linear interpolation along each axis.

    Parameters
    ----------
    positions
        ``kernel axis``, in pixels: all points of a grid, evenly spaced or not, in any order. Beyond the
        outermost the nearest one counts.
    shape
        Of the pixels.
    before
        How many pixels there are before the one from which positions are counted, along each axis; None: 0.

    Returns
    -------
    Tensor
        ``kernel *shape``, float64, sum 1 over the kernels.

    Examples
    --------
    >>> interpolation_weights([[0], [2]], (4,)).tolist()
    [[1.0, 0.5, 0.0, 0.0], [0.0, 0.5, 1.0, 1.0]]
    """
    sizes = check_shape(shape)
    points = np.asarray(as_numbers(positions, "positions", "one row per kernel", torch.float64))
    if points.ndim != 2 or points.shape[1] != len(sizes):
        raise InputError(
            f"positions have the shape {points.shape}; expected one row per kernel, with {len(sizes)} columns"
        )
    grid = [np.unique(column, return_inverse=True) for column in points.T]
    if len(np.unique(points, axis=0)) != len(points) or len(points) != np.prod([len(g) for g, _ in grid]):
        raise InputError(
            f"the {len(points)} positions are not all points of one grid (each row with each column, once); "
            f"give weights instead"
        )
    weights = np.ones((len(points), *(1,) * len(sizes)))
    for axis, ((knots, which), n) in enumerate(zip(grid, sizes, strict=True)):
        pixels = np.arange(n) - (before[axis] if before is not None else 0)
        hats = np.stack([np.interp(pixels, knots, one) for one in np.eye(len(knots))])
        along = [1] * len(sizes)
        along[axis] = n
        weights = weights * hats[which].reshape(-1, *along)
    return torch.from_numpy(weights)
