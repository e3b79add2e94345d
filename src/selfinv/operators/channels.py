"""Operators on objects of several channels: colours, spectral bands, fluorophores."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from selfinv.operators.base import LinearOperator, as_numbers, as_operators
from selfinv.types import InputError, check_integer, check_shape


class ChannelMixing(LinearOperator):
    r"""Each measured channel is a mixture of the object's, :math:`y_i = \sum_j M_{ij} x_j`.

    Bleed-through between colours, a filter array's sensitivities, or spectra to be unmixed.

    Parameters
    ----------
    matrix
        :math:`M`, ``measured object``.
    shape
        Spatial shape.

    Raises
    ------
    InputError
        If the matrix has not two axes, or holds nothing, or values that are not real and finite.

    Notes
    -----
    Objects are ``(..., object channels, *shape)``, measurements ``(..., measured channels, *shape)``. A
    measured channel is none of the object's, so there is no `field_of_view`.

    Examples
    --------
    >>> import torch
    >>> ChannelMixing([[1.0, 0.25], [0.0, 0.75]], (1,))(torch.tensor([[4.0], [8.0]])).tolist()
    [[6.0], [6.0]]
    """

    def __init__(self, matrix: Any, shape: Sequence[int]) -> None:
        shape = check_shape(shape)
        rows = "one row per measured channel, one column per channel of the object"
        matrix = as_numbers(matrix, "matrix", rows, torch.float64).detach().clone()
        if matrix.ndim != 2 or not matrix.numel() or not bool(matrix.isfinite().all()):
            raise InputError(
                f"matrix of the shape {tuple(matrix.shape)} does not mix channels; expected finite values, "
                f"{rows}"
            )
        super().__init__((matrix.shape[1], *shape), (matrix.shape[0], *shape))
        self.matrix: Tensor
        self.register_buffer("matrix", matrix)

    @property
    def field_of_view(self) -> None:
        return None

    @property
    def object_channels(self) -> int:
        return self.in_shape[0]

    def forward(self, x: Tensor) -> Tensor:
        self._check(x, self.in_shape, "forward", "object")
        return self._mix(x, self.matrix, self.out_shape)

    def adjoint(self, y: Tensor) -> Tensor:
        self._check(y, self.out_shape, "adjoint", "measurement")
        return self._mix(y, self.matrix.T, self.in_shape)

    def _mix(self, x: Tensor, matrix: Tensor, shape: tuple[int, ...]) -> Tensor:
        lead = x.shape[: x.ndim - len(shape)]
        pixels = x.reshape(*lead, matrix.shape[1], math.prod(shape[1:]))
        return (matrix.to(x.dtype) @ pixels).reshape(*lead, *shape)


class EachChannel(LinearOperator):
    """An operator on each channel of an object, the same one or one each; channels can be mixed after.

    Parameters
    ----------
    operators
        On one channel: one for all, or a list with one per channel, all of the same shapes.
    channels
        How many, where there is one operator for all.

    Raises
    ------
    InputError
        If the number of channels is missing or does not fit, or operators differ in their shapes or have
        channels of their own.

    Notes
    -----
    Objects are ``(..., channels, *in_shape)``, measurements ``(..., channels, *out_shape)``, with the shapes
    of the operators. ``ChannelMixing(M, A.out_shape) @ EachChannel(A, M.shape[1])`` is a blurred mixture.

    Examples
    --------
    >>> from selfinv.operators import Downsample, Identity
    >>> EachChannel(Downsample((8, 8), 2), channels=3).out_shape
    (3, 4, 4)
    """

    def __init__(
        self, operators: LinearOperator | Sequence[LinearOperator], channels: int | None = None
    ) -> None:
        each = as_operators(operators)
        channels = None if channels is None else check_integer(channels, "channels", least=1)
        count = channels if isinstance(operators, LinearOperator) else len(each)
        if not count or channels not in (None, count):
            raise InputError(
                f"EachChannel got {len(each)} operators and channels={channels}; give one operator and the "
                f"number of channels, or one operator per channel"
            )
        if len({(operator.in_shape, operator.out_shape) for operator in each}) > 1:
            raise InputError(
                f"operators of EachChannel need the same shapes, "
                f"got {[(operator.in_shape, operator.out_shape) for operator in each]}"
            )
        if any(operator.object_channels is not None for operator in each):
            raise InputError("operators of EachChannel work on one channel, but one of these has its own")
        super().__init__((count, *each[0].in_shape), (count, *each[0].out_shape))
        self.operators = nn.ModuleList(each)

    @property
    def each(self) -> list[LinearOperator]:
        """The operators: one for all channels, or one per channel."""
        return [operator for operator in self.operators if isinstance(operator, LinearOperator)]

    @property
    def object_channels(self) -> int:
        return self.in_shape[0]

    @property
    def field_of_view(self) -> tuple[slice, ...] | None:
        views = [operator.field_of_view for operator in self.each]
        if views[0] is None or any(view != views[0] for view in views):
            return None
        return (slice(0, self.in_shape[0]), *views[0])

    @property
    def together(self) -> tuple[int, ...]:
        return tuple(sorted({axis for operator in self.each for axis in operator.together}))

    @property
    def measured(self) -> Tensor | None:
        return self._stacked([operator.measured for operator in self.each], default=True)

    @property
    def always_shown(self) -> Tensor | None:
        return self._stacked([operator.always_shown for operator in self.each], default=False)

    def _stacked(self, known: list[Tensor | None], *, default: bool) -> Tensor | None:
        """Of each channel, booleans, or the default where there is nothing to say; None: of all."""
        device = next((m.device for m in known if m is not None), None)
        if device is None:
            return None
        whole = torch.full(self.out_shape[1:], default, device=device)
        return torch.stack([whole if m is None else m for m in known]).expand(self.out_shape)

    @property
    def hint(self) -> str:
        return self.each[0].hint

    def doubts(self, y: Tensor) -> list[str]:
        told = [words for a, channel in self._with_channels(y) for words in a.doubts(channel)]
        return list(dict.fromkeys(told))

    def without_repeats(self, y: Tensor) -> Tensor:
        return torch.stack([a.without_repeats(c) for a, c in self._with_channels(y)], -len(self.out_shape))

    def _with_channels(self, y: Tensor) -> Iterator[tuple[LinearOperator, Tensor]]:
        """Each channel of a measurement, after its operator."""
        channels = y.unbind(-len(self.out_shape))
        return zip(self.each * len(channels) if len(self.each) == 1 else self.each, channels, strict=True)

    def forward(self, x: Tensor) -> Tensor:
        self._check(x, self.in_shape, "forward", "object")
        if len(self.each) == 1:
            return self.each[0](x)
        parts = zip(self.each, x.unbind(-len(self.in_shape)), strict=True)
        return torch.stack([a(c) for a, c in parts], -len(self.out_shape))

    def adjoint(self, y: Tensor) -> Tensor:
        self._check(y, self.out_shape, "adjoint", "measurement")
        if len(self.each) == 1:
            return self.each[0].adjoint(y)
        parts = zip(self.each, y.unbind(-len(self.out_shape)), strict=True)
        return torch.stack([a.adjoint(c) for a, c in parts], -len(self.in_shape))
