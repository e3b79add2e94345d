"""What a forward operator is: shapes, adjoint, algebra, and the tests every operator must pass."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from typing import Any, overload

import numpy as np
import torch
from torch import Tensor, nn

from selfinv.types import InputError, Shape, check_number, check_shape, check_unmasked, shown

TRIED, ENOUGH = 8, 2**18  # objects that an operator is tried on, of so many values in all
SLIGHT = 0.02  # of the highest value: twice what a point spread function may have


class LinearOperator(nn.Module):
    r"""A linear map :math:`A` from objects to measurements, acting on the trailing axes.

    Subclasses write `forward` with torch operations and register their data as buffers, so ``.to(device)``
    moves them. Leading (batch, channel) axes broadcast. The adjoint follows from `forward` by automatic
    differentiation unless a subclass knows a faster one.

    Parameters
    ----------
    in_shape
        Shape of the object, ``*space``.
    out_shape
        Shape of the measurement.

    Raises
    ------
    InputError
        If one of them is no shape.
    """

    def __init__(self, in_shape: Sequence[int], out_shape: Sequence[int]) -> None:
        super().__init__()
        self.in_shape: Shape = check_shape(in_shape)
        self.out_shape: Shape = check_shape(out_shape)

    def adjoint(self, y: Tensor) -> Tensor:
        """Apply the adjoint to a measurement, ``(..., *out_shape)`` to ``(..., *in_shape)``."""
        self._check(y, self.out_shape, "adjoint", "measurement")
        leading = y.shape[: y.ndim - len(self.out_shape)]
        with torch.enable_grad():
            x = torch.zeros(*leading, *self.in_shape, dtype=y.dtype, device=y.device, requires_grad=True)
            (product,) = torch.autograd.grad(self(x), x, y, create_graph=y.requires_grad)
        return product

    @property
    def field_of_view(self) -> tuple[slice, ...] | None:
        """The part of the object's grid that lies under the measurement's pixels.

        None if measured values are not pixels of that grid (coarser pixels, angles, frequencies). By default
        all of it where both shapes are the same.
        """
        return tuple(slice(0, n) for n in self.in_shape) if self.in_shape == self.out_shape else None

    @property
    def pointwise(self) -> bool:
        """Whether each measured value is the object's at its place, times a number, or missing."""
        return False

    @property
    def view(self) -> tuple[slice, ...]:
        """The part of the object that a restored image shows: without what lies beyond the frame."""
        return self.field_of_view or tuple(slice(0, n) for n in self.in_shape)

    @property
    def together(self) -> tuple[int, ...]:
        """Axes of the measurement (-1 is the last) along which values are hidden together.

        Those that share noise, or that are parts of one measured value, such as a complex value's two.
        """
        return ()

    @property
    def always_shown(self) -> Tensor | None:
        """Measured values that are never hidden, boolean, of the shape of the measurement; None: none are.

        Those that no others tell of, such as the lowest frequencies, if they stand far above the noise.
        """
        return None

    @property
    def measured(self) -> Tensor | None:
        """Where there is a measurement at all, booleans of the shape ``out_shape``; None: everywhere.

        Elsewhere the operator gives 0, and its adjoint does not look.
        """
        return None

    def without_repeats(self, y: Tensor) -> Tensor:
        """A measurement, ``(..., *out_shape)``, with NaN for every value that repeats another to rounding.

        One that is hidden would be known from the other exactly, its noise too, and keeping that look right.
        """
        return y

    @property
    def hint(self) -> str:
        """What to try if a measurement has another shape than ``out_shape``."""
        return ""

    def doubts(self, y: Tensor) -> list[str]:
        """What about a measurement, ``(..., *out_shape)``, speaks against this operator, in words."""
        return []

    def doubts_of_residual(self, residual: Tensor) -> list[str]:
        """What about the part of a measurement that a restoration leaves unexplained does, in words.

        ``residual``: ``(..., *out_shape)``, NaN where nothing was measured.
        """
        return []

    @property
    def object_channels(self) -> int | None:
        """How many channels the object's first axis holds; None if channels are a leading axis, as usual.

        An operator that mixes channels has them in ``in_shape``: one object is all of them.
        """
        return None

    @property
    def reach(self) -> tuple[tuple[int, int], ...] | None:
        """How far before and after its own place a measured value looks, along each axis.

        None if the operator differs from place to place, or looks everywhere: it has no windows then.
        """
        return None

    def window(self, shape: Sequence[int], outside: Sequence[tuple[int, int]]) -> LinearOperator:
        """The same operator for a window of the measurement, so that training can go window by window.

        Parameters
        ----------
        shape
            Of the window. Its object is larger by `reach`.
        outside
            How much of that lies beyond the whole measurement, before and after, along each axis. Where the
            whole object does not go on there, it is not part of the window's object either.
        """
        raise InputError(f"{type(self).__name__} has no windows")

    def for_shape(self, shape: Sequence[int]) -> LinearOperator | None:
        """The same instrument with a measurement of another shape; None if there is no such thing."""
        return None

    @property
    def H(self) -> LinearOperator:
        """The adjoint as an operator of its own."""
        return Adjoint(self)

    @overload
    def __matmul__(self, other: LinearOperator) -> LinearOperator: ...
    @overload
    def __matmul__(self, other: Tensor) -> Tensor: ...
    def __matmul__(self, other: LinearOperator | Tensor) -> LinearOperator | Tensor:
        if isinstance(other, Tensor):
            return self(other)
        if isinstance(other, LinearOperator):
            return Composition(self, other)
        return NotImplemented

    def __rmul__(self, scale: float) -> LinearOperator:
        return Scaled(scale, self) if isinstance(scale, int | float) else NotImplemented

    __mul__ = __rmul__

    def __neg__(self) -> LinearOperator:
        return Scaled(-1.0, self)

    def _check(self, tensor: Tensor, shape: Shape, verb: str, noun: str) -> None:
        if tuple(tensor.shape[max(tensor.ndim - len(shape), 0) :]) != shape:
            raise InputError(
                f"{type(self).__name__}.{verb} expects a {noun} whose last axes are {shape}, "
                f"got the shape {tuple(tensor.shape)}"
            )
        if not (tensor.is_floating_point() or tensor.is_complex()):  # kernels would be rounded to 0
            raise InputError(
                f"{type(self).__name__}.{verb} expects floating-point values as its {noun}, got "
                f"{tensor.dtype}; call .float() on it"
            )


class Adjoint(LinearOperator):
    """The adjoint of an operator, with the roles of `forward` and `adjoint` exchanged."""

    def __init__(self, operator: LinearOperator) -> None:
        check_linear(operator)
        super().__init__(operator.out_shape, operator.in_shape)
        self.operator = operator

    def forward(self, y: Tensor) -> Tensor:
        return self.operator.adjoint(y)

    def adjoint(self, x: Tensor) -> Tensor:
        return self.operator(x)

    @property
    def H(self) -> LinearOperator:
        return self.operator


class _Derived(LinearOperator):
    """One whose measured values are, but for a factor or some left out, those of another: its `source`."""

    @property
    def source(self) -> LinearOperator:
        raise NotImplementedError

    @property
    def together(self) -> tuple[int, ...]:
        return self.source.together

    @property
    def always_shown(self) -> Tensor | None:
        return self.source.always_shown

    @property
    def measured(self) -> Tensor | None:
        return self.source.measured

    def without_repeats(self, y: Tensor) -> Tensor:
        return self.source.without_repeats(y)

    def doubts(self, y: Tensor) -> list[str]:
        return self.source.doubts(y)

    def doubts_of_residual(self, residual: Tensor) -> list[str]:
        return self.source.doubts_of_residual(residual)

    @property
    def hint(self) -> str:
        return self.source.hint


class Composition(_Derived):
    """The product ``outer @ inner``: first ``inner``, then ``outer``."""

    def __init__(self, outer: LinearOperator, inner: LinearOperator) -> None:
        check_linear(outer, inner)
        if inner.out_shape != outer.in_shape:
            raise InputError(
                f"cannot compose {type(outer).__name__} @ {type(inner).__name__}: the inner operator gives "
                f"the shape {inner.out_shape} but the outer one takes {outer.in_shape}"
            )
        super().__init__(inner.in_shape, outer.out_shape)
        self.outer = outer
        self.inner = inner

    def forward(self, x: Tensor) -> Tensor:
        return self.outer(self.inner(x))

    def adjoint(self, y: Tensor) -> Tensor:
        return self.inner.adjoint(self.outer.adjoint(y))

    @property
    def field_of_view(self) -> tuple[slice, ...] | None:
        inner, outer = self.inner.field_of_view, self.outer.field_of_view
        if inner is None or outer is None:
            return None
        return tuple(slice(i.start + o.start, i.start + o.stop) for i, o in zip(inner, outer, strict=True))

    @property
    def view(self) -> tuple[slice, ...]:
        return self.field_of_view or self.inner.view

    @property
    def pointwise(self) -> bool:
        return self.outer.pointwise and self.inner.pointwise

    @property
    def source(self) -> LinearOperator:
        return self.inner if self.outer.pointwise else self.outer

    @property
    def always_shown(self) -> Tensor | None:
        always, measured = super().always_shown, self.outer.measured
        return always if always is None or measured is None else always & measured

    @property
    def measured(self) -> Tensor | None:
        told, outer = super().measured, self.outer.measured
        return told if outer is None else outer if told is None else told & outer

    @property
    def object_channels(self) -> int | None:
        return self.inner.object_channels


class Scaled(_Derived):
    """An operator times a real number; in the precision of what it is applied to."""

    def __init__(self, scale: float, operator: LinearOperator) -> None:
        check_linear(operator)
        super().__init__(operator.in_shape, operator.out_shape)
        self.scale = check_number(scale, "scale")
        self.operator = operator

    def forward(self, x: Tensor) -> Tensor:
        return self.scale * self.operator(x).to(x.dtype)

    def adjoint(self, y: Tensor) -> Tensor:
        return self.scale * self.operator.adjoint(y).to(y.dtype)

    @property
    def source(self) -> LinearOperator:
        return self.operator

    @property
    def field_of_view(self) -> tuple[slice, ...] | None:
        return self.operator.field_of_view

    @property
    def view(self) -> tuple[slice, ...]:
        return self.operator.view

    @property
    def pointwise(self) -> bool:
        return self.operator.pointwise

    @property
    def object_channels(self) -> int | None:
        return self.operator.object_channels

    @property
    def reach(self) -> tuple[tuple[int, int], ...] | None:
        return self.operator.reach

    def window(self, shape: Sequence[int], outside: Sequence[tuple[int, int]]) -> LinearOperator:
        return self.scale * self.operator.window(shape, outside)

    def for_shape(self, shape: Sequence[int]) -> LinearOperator | None:
        other = self.operator.for_shape(shape)
        return None if other is None else self.scale * other


def check_linear(*operators: object) -> None:
    """Raise `InputError` if one is no `LinearOperator`, or has not been told its shapes."""
    for operator in operators:
        name = type(operator).__name__
        if isinstance(operator, type):
            raise InputError(f"operator is the class {operator.__name__}; pass an object of it")
        if not isinstance(operator, LinearOperator):
            raise InputError(
                f"{getattr(operator, '__name__', name)} is no LinearOperator, so it has neither shapes nor "
                f"an adjoint; subclass LinearOperator, or use from_scipy for a matrix"
            )
        if not hasattr(operator, "out_shape"):
            raise InputError(
                f"{name} has no shapes; let its __init__ call super().__init__(in_shape, out_shape)"
            )


def as_operators(operators: Any) -> list[LinearOperator]:
    """Operators given as one or as several, each of them checked by `check_linear`."""
    each = list(operators) if isinstance(operators, Iterable) else [operators]
    check_linear(*each)
    return each


def as_numbers(values: Any, name: str, expected: str, dtype: torch.dtype | None = None) -> Tensor:
    """A tensor of what a caller gives as real numbers or booleans, or `InputError`."""
    check_unmasked(values, name=name)
    if isinstance(values, np.ndarray):  # torch takes neither other bytes nor negative strides
        values = np.array(values, values.dtype.newbyteorder("="), order="C")
    elif isinstance(values, Iterable) and not isinstance(values, str | bytes | Sequence | Tensor):
        values = list(values)
    try:
        tensor = torch.as_tensor(values, dtype=None if hasattr(values, "dtype") else dtype)
    except (TypeError, ValueError, RuntimeError):
        raise InputError(f"{name}={shown(values)} is no array; expected {expected}") from None
    if tensor.is_complex():
        raise InputError(f"{name} has complex values; expected {expected}")
    return tensor if dtype is None else tensor.to(dtype)


def random_like(operator: LinearOperator, shape: Shape, dtype: torch.dtype, seed: int) -> Tensor:
    """Normally distributed numbers on the operator's device."""
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(shape, generator=generator, dtype=dtype).to(device_of(operator))


def device_of(operator: LinearOperator) -> torch.device:
    """Where an operator's numbers are; the CPU if it has none."""
    return next((buffer.device for buffer in operator.buffers()), torch.device("cpu"))


@torch.no_grad()
def is_nonnegative(operator: LinearOperator) -> bool:
    """Whether objects that are nowhere negative, as light is, are measured so: tried on some of few peaks.

    Between peaks any operator's negative values show, be they of a kernel's side lobes or of a difference of
    channels. Slight ones pass, as of a point spread function that was measured. Large objects show enough
    at once.
    """
    size = math.prod(operator.in_shape)
    for seed in range(max(1, min(TRIED, ENOUGH // size))):
        peaks = (3.0 * random_like(operator, (1, 1, *operator.in_shape), torch.float32, seed)).exp()
        image = operator(peaks)
        if not float(image.min()) >= -SLIGHT * float(image.abs().max()):
            return False
    return True


def norm(
    operator: LinearOperator,
    *,
    margin: float = 0.01,
    rtol: float = 1e-4,
    max_steps: int = 300,
    dtype: torch.dtype = torch.float32,
) -> float:
    r"""The operator norm :math:`\|A\|_2` by power iteration on :math:`A^\top A`, enlarged by ``margin``.

    Power iteration approaches the norm from below, and step sizes taken from too small a norm diverge: hence
    the margin.

    Raises
    ------
    InputError
        If it is no `LinearOperator`.
    """
    check_linear(operator)
    x = random_like(operator, (1, 1, *operator.in_shape), dtype, seed=0)
    estimate = 0.0
    with torch.no_grad():
        for _ in range(max_steps):
            image = operator(x / _length(x))
            previous, estimate = estimate, _length(image)
            if estimate == 0.0:
                return 0.0
            if abs(estimate - previous) <= rtol * estimate:
                break
            x = operator.adjoint(image / estimate)
    return estimate * (1.0 + margin)


def _length(x: Tensor) -> float:
    """The Euclidean norm, also where squares of the values would leave their precision."""
    largest = float(x.abs().max())
    return largest * float((x / largest).norm()) if largest else 0.0


def dot_test(
    operator: LinearOperator, *, dtype: torch.dtype = torch.float64, seed: int = 0, channels: int = 1
) -> float:
    r"""The relative mismatch between :math:`\langle Ax, y\rangle` and :math:`\langle x, A^\top y\rangle`.

    Rounding alone gives less than 1e-10 in float64 and 1e-5 in float32; more means that `adjoint` is not the
    adjoint of `forward`. ``channels`` are those that the operator takes, if they are not any.

    Raises
    ------
    InputError
        If it is no `LinearOperator`.
    """
    check_linear(operator)
    x = random_like(operator, (1, channels, *operator.in_shape), dtype, seed)
    y = random_like(operator, (1, channels, *operator.out_shape), dtype, seed + 1)
    with torch.no_grad():
        ax, ahy = operator(x), operator.adjoint(y)
    left, right = float((ax * y).sum()), float((x * ahy).sum())
    scale = math.sqrt(float(ax.norm() * y.norm()) * float(x.norm() * ahy.norm()))
    return abs(left - right) / scale if scale else 0.0
