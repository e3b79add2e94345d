"""Operators of other packages: SciPy, PyLops, deepinv."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import scipy.sparse.linalg
import torch
from torch import Tensor

from selfinv.operators.base import LinearOperator
from selfinv.operators.linear_map import LinearMap
from selfinv.types import Array, InputError, Shape, check_flag, check_shape


def from_scipy(
    operator: Any,
    in_shape: Sequence[int] | None = None,
    out_shape: Sequence[int] | None = None,
    *,
    pixels: bool = False,
) -> LinearOperator:
    """An operator from SciPy's, a sparse matrix, or an array.

    Parameters
    ----------
    operator
        A ``scipy.sparse.linalg.LinearOperator`` with ``rmatvec``, a sparse matrix, or a dense one,
        ``measurement object``.
    in_shape, out_shape
        What its flat vectors are, in NumPy's order; None: flat.
    pixels
        Measured values are the object's pixels, seen through a blur, say: see `LinearOperator.field_of_view`.

    Returns
    -------
    LinearOperator
        It works in NumPy on the CPU, whatever device the data are on, and can be differentiated any number of
        times. Objects are real; a complex measurement is ``(..., *out_shape, 2)``, the real and the imaginary
        part, which are hidden together.

    Raises
    ------
    InputError
        If the shapes do not fit, it lacks an adjoint, fails on zeros, holds NaN, or is no operator.

    Examples
    --------
    >>> import numpy as np, torch
    >>> A = from_scipy(np.eye(6)[:4], in_shape=(2, 3), out_shape=(2, 2))
    >>> A(torch.arange(6.0).reshape(2, 3)).tolist()
    [[0.0, 1.0], [2.0, 3.0]]
    """
    try:
        linear = scipy.sparse.linalg.aslinearoperator(operator)
    except (TypeError, ValueError):
        raise InputError(
            f"{type(operator).__name__} is no linear operator; expected one of SciPy's, a sparse matrix or "
            f"an array of two axes"
        ) from None
    rows, columns = check_shape(linear.shape)
    shapes = (
        (columns,) if in_shape is None else check_shape(in_shape),
        (rows,) if out_shape is None else check_shape(out_shape),
    )
    for name, size, shape in zip(("in_shape", "out_shape"), (columns, rows), shapes, strict=True):
        if math.prod(shape) != size:
            raise InputError(
                f"{name}={shape} has {math.prod(shape)} values but the operator of the shape "
                f"{(rows, columns)} has {size} there"
            )
    name = type(operator).__name__
    measured = _tried(linear, "matvec", np.zeros(columns), name)
    _tried(linear, "rmatvec", measured, name)
    return _FromNumPy(linear, *shapes, pixels, np.iscomplexobj(measured))


def _tried(operator: Any, verb: str, zeros: Array, name: str) -> Array:
    """What an operator's method makes of zeros: NaN where a matrix holds NaN or infinity."""
    try:
        result: Array = getattr(operator, verb)(zeros)
        finite = bool(np.isfinite(result).all())
    except NotImplementedError:
        raise InputError(f"{name} has no adjoint; define its {verb}") from None
    except Exception as error:  # whatever a caller's code may raise
        raise InputError(f"{name}.{verb} failed on {zeros.size} zeros: {error!r}") from error
    if not finite:
        raise InputError(f"{name}.{verb} makes NaN or infinity of zeros; expected finite numbers")
    return result


def from_pylops(operator: Any, *, pixels: bool = False) -> LinearOperator:
    """An operator from one of PyLops, with the shapes ``operator.dims`` and ``operator.dimsd``.

    See `from_scipy` for ``pixels``, for what it does and raises.
    """
    if not hasattr(operator, "dims") or not hasattr(operator, "dimsd"):
        raise InputError(
            f"{type(operator).__name__} has no dims and dimsd; expected an operator of PyLops 2 or newer, "
            f"or use from_scipy"
        )
    return from_scipy(operator, operator.dims, operator.dimsd, pixels=pixels)


def from_deepinv(
    physics: Any,
    in_shape: Sequence[int],
    out_shape: Sequence[int],
    *,
    channels: bool = False,
    pixels: bool = False,
) -> LinearOperator:
    """An operator from a linear physics of deepinv, its ``A`` and ``A_adjoint``, without its noise.

    Parameters
    ----------
    physics
        For instance a ``deepinv.physics.Blur``. Its parameters should have the data's precision.
    in_shape, out_shape
        Of one object and its measurement without deepinv's batch axis; and without its channel axis, unless
        ``channels`` is True. Channels go through one by one then.
    channels
        The first axis of both shapes is deepinv's channel axis, for physics that mix channels.
    pixels
        As for `from_scipy`.

    Raises
    ------
    InputError
        If the physics is not linear, or gives another shape than said.
    """
    if not callable(getattr(physics, "A", None)) or not callable(getattr(physics, "A_adjoint", None)):
        raise InputError(
            f"{type(physics).__name__} lacks A or A_adjoint; expected a linear physics of deepinv"
        )
    return _FromDeepinv(physics, in_shape, out_shape, channels, pixels)


class _Foreign(LinearOperator):
    """An operator of another package, which cannot say what its values are."""

    def __init__(self, in_shape: Sequence[int], out_shape: Sequence[int], pixels: bool) -> None:
        super().__init__(in_shape, out_shape)
        if check_flag(pixels, "pixels") and self.in_shape != self.out_shape:
            raise InputError(
                f"pixels=True, but the object {self.in_shape} and the measurement {self.out_shape} differ in "
                f"shape; leave it out"
            )
        self.pixels = pixels

    @property
    def field_of_view(self) -> tuple[slice, ...] | None:
        return super().field_of_view if self.pixels else None


class _FromNumPy(_Foreign):
    """A SciPy operator, whose matrices' columns are flat objects or measurements."""

    def __init__(
        self,
        operator: Any,
        in_shape: Sequence[int],
        out_shape: Sequence[int],
        pixels: bool,
        parts: bool,
    ) -> None:
        super().__init__(in_shape, (*out_shape, 2) if parts else out_shape, pixels)
        self._operator = operator
        self._parts = parts

    @property
    def together(self) -> tuple[int, ...]:
        return (-1,) if self._parts else ()

    def forward(self, x: Tensor) -> Tensor:
        self._check(x, self.in_shape, "forward", "object")
        return LinearMap.apply(x, self._forward, self._adjoint)

    def adjoint(self, y: Tensor) -> Tensor:
        self._check(y, self.out_shape, "adjoint", "measurement")
        return LinearMap.apply(y, self._adjoint, self._forward)

    def _forward(self, x: Tensor) -> Tensor:
        product = np.ascontiguousarray(self._operator.matmat(_rows(x, len(self.in_shape)).T).T)
        return self._like(product.view(product.real.dtype), x, self.in_shape, self.out_shape)

    def _adjoint(self, y: Tensor) -> Tensor:
        rows = _rows(y, len(self.out_shape))
        if self._parts:
            rows = rows.view(np.result_type(rows.dtype, np.complex64))
        product = np.ascontiguousarray(self._operator.rmatmat(rows.T).T.real)
        return self._like(product, y, self.out_shape, self.in_shape)

    @staticmethod
    def _like(product: Array, x: Tensor, shape: Shape, result: Shape) -> Tensor:
        return torch.from_numpy(product).to(x).reshape(*x.shape[: x.ndim - len(shape)], *result)


def _rows(x: Tensor, ndim: int) -> Array:
    """One flat object or measurement per row, however many leading axes there are."""
    rows: Array = x.detach().reshape(-1, math.prod(x.shape[x.ndim - ndim :])).cpu().contiguous().numpy()
    return rows


class _FromDeepinv(_Foreign):
    """A physics, called with its batch axis and, unless the object has it, its channel axis."""

    def __init__(
        self,
        physics: Any,
        in_shape: Sequence[int],
        out_shape: Sequence[int],
        channels: bool,
        pixels: bool,
    ) -> None:
        super().__init__(in_shape, out_shape, pixels)
        self.physics = physics
        self.channels = check_flag(channels, "channels")

    @property
    def object_channels(self) -> int | None:
        return self.in_shape[0] if self.channels else None

    def forward(self, x: Tensor) -> Tensor:
        self._check(x, self.in_shape, "forward", "object")
        return self._through(self.physics.A, x, self.in_shape, self.out_shape)

    def adjoint(self, y: Tensor) -> Tensor:
        self._check(y, self.out_shape, "adjoint", "measurement")
        return self._through(self.physics.A_adjoint, y, self.out_shape, self.in_shape)

    def _through(
        self, function: Callable[[Tensor], Tensor], x: Tensor, shape: Shape, result: Shape
    ) -> Tensor:
        lead = x.shape[: x.ndim - len(shape)]
        batch = x.reshape(math.prod(lead), *(() if self.channels else (1,)), *shape)
        product = function(batch)
        if product.numel() != math.prod(lead) * math.prod(result) or product.shape[-1] != result[-1]:
            raise InputError(
                f"the physics makes {tuple(product.shape)} of {tuple(batch.shape)}; expected the last axes "
                f"{result}: correct in_shape or out_shape, or set channels=True if they have deepinv's "
                f"channel axis"
            )
        return product.reshape(*lead, *result)
