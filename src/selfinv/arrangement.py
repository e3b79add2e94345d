"""How a caller's array becomes a measurement tensor, and an object tensor an array like the caller's."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from selfinv.operators import Composition, Identity, LinearOperator, Mask, as_real
from selfinv.types import (
    SPACE,
    Array,
    AxisLayout,
    InputError,
    Shape,
    as_array,
    check_unmasked,
    parse_axes,
    spatial_index,
)

APART = 1e6  # voxels: channels are no neighbours of each other


@dataclass(frozen=True)
class Arrangement:
    """The axes of a measurement whose values are not pixels, and those of its object.

    The measurement's array ends with the operator's ``out_shape``; before that come time and channel, if the
    axes name them (but not the channels that the operator mixes itself).

    Parameters
    ----------
    layout
        Of the restored image.
    operator
        From object to measurement.
    """

    layout: AxisLayout
    operator: LinearOperator

    @classmethod
    def of(cls, operator: LinearOperator, shape: Sequence[int], axes: str | None) -> Arrangement:
        """For an array of this ``shape``; ``axes`` are those of the restored image.

        Raises
        ------
        InputError
            If the operator does not give such measurements, or the axes do not fit.
        """
        space = SPACE[-len(space_of(operator)) :]
        own = "c" + space if operator.object_channels else space
        more = len(shape) - len(operator.out_shape)
        if more < 0 or tuple(shape[more:]) != operator.out_shape:
            raise InputError(
                f"the operator gives measurements of the shape {operator.out_shape} but the array has the "
                f"shape {tuple(shape)}; its last axes must be the operator's"
                f"{operator.hint and '; ' + operator.hint}"
            )
        if axes is None and more:
            raise InputError(
                f"the array {tuple(shape)} has {more} more axes in front of the operator's "
                f"{operator.out_shape}; name the axes of the restored image, e.g. axes='t{own}'"
            )
        layout = parse_axes(axes or own, more + len(own))
        if layout.spatial != space or (operator.object_channels and "c" not in layout.axes):
            raise InputError(f"axes={axes!r} does not fit the operator's object, which has the axes {own!r}")
        return cls(layout, operator)

    def to_batch(self, array: Array) -> Array:
        """From the caller's array to ``batch channel *out_shape``."""
        leading = self._leading
        front = [leading.index(a) for a in "tc" if a in leading]
        values = np.transpose(array, [*front, *range(len(leading), array.ndim)])
        sizes = [array.shape[leading.index(a)] if a in leading else 1 for a in "tc"]
        return values.reshape(*sizes, *self.operator.out_shape)

    def from_batch(self, values: Array) -> Array:
        """Undo `to_batch`."""
        leading = self._leading
        present = [a for a in "tc" if a in leading]
        kept = [n for a, n in zip("tc", values.shape, strict=False) if a in leading]
        array = values.reshape(*kept, *self.operator.out_shape)
        return np.transpose(array, [*map(present.index, leading), *range(len(leading), array.ndim)])

    @property
    def _leading(self) -> str:
        """The axes in front of the operator's, in the caller's order."""
        own = self.layout.spatial + ("c" if self.operator.object_channels else "")
        return "".join(a for a in self.layout.axes if a not in own)

    def from_object(self, x: Tensor) -> Tensor:
        """From the operator's object, ``batch channel *in_shape``, to what is shown of it."""
        return for_network(self.operator, x[spatial_index(self.operator.view)])


def space_of(operator: LinearOperator) -> Shape:
    """The spatial shape of an operator's object."""
    return operator.in_shape[1 if operator.object_channels else 0 :]


def spacing_of(operator: LinearOperator, voxel: tuple[float, ...] | None) -> tuple[float, ...] | None:
    """Sizes along each axis of an operator's object: a voxel's, and of channels that it mixes, far apart."""
    if operator.object_channels is None:
        return voxel
    return (APART, *(voxel or (1.0,) * len(space_of(operator))))


def for_operator(operator: object, x: Tensor) -> Tensor:
    """From ``batch channel *space``: an operator that mixes channels has them among its own axes."""
    return x[:, None] if _mixes(operator) else x


def for_network(operator: object, x: Tensor) -> Tensor:
    """The inverse of `for_operator`."""
    return x[:, 0] if _mixes(operator) else x


def together_of(operator: object) -> tuple[int, ...]:
    """Axes along which an operator's values are hidden together; none of a function."""
    return operator.together if isinstance(operator, LinearOperator) else ()


def always_shown_of(operator: object, y: Tensor) -> Tensor:
    """Which values of ``y`` are never hidden, as an operator says."""
    always = operator.always_shown if isinstance(operator, LinearOperator) else None
    return torch.zeros_like(y, dtype=torch.bool) if always is None else always.to(y.device).expand(y.shape)


def _mixes(operator: object) -> bool:
    return isinstance(operator, LinearOperator) and operator.object_channels is not None


def as_measured(array: Any, operator: object) -> Any:
    """What an operator has measured of an array: complex values as pairs of real ones, where it has those.

    Where it measures nothing, there may be anything, NaN too; it becomes 0.
    """
    check_unmasked(array)
    if not isinstance(operator, LinearOperator):
        return array
    array, ending = as_array(array), len(operator.out_shape)

    def fits(values: Array) -> bool:
        return values.shape[max(values.ndim - ending, 0) :] == operator.out_shape

    if np.iscomplexobj(array):
        pairs = as_real(np.asarray(array, dtype=np.complex128, order="C")).numpy()
        if not fits(pairs) and operator.out_shape[-1] == 2:
            raise InputError(
                f"the operator gives complex values of the shape {operator.out_shape[:-1]} but the array has "
                f"the shape {array.shape}; its last axes must be the operator's"
            )
        array = pairs if fits(pairs) else array
    if operator.measured is not None and array.dtype.kind == "f" and fits(array):
        array = np.where(operator.measured.cpu().numpy(), array, 0)
    return array


def is_on_grid(operator: object) -> bool:
    """Whether measured values are pixels of the object, as those of any function are taken to be."""
    if not isinstance(operator, LinearOperator):
        return True
    return operator.field_of_view is not None and operator.object_channels is None


def unmasked(operator: LinearOperator) -> LinearOperator:
    """The operator without a `Mask` that comes last: what that leaves out is missing, and nothing else.

    A mask has hardly any symmetry, and what is behind it has more.
    """
    if isinstance(operator, Mask):
        return Identity(operator.in_shape)
    if isinstance(operator, Composition):
        outer = unmasked(operator.outer)
        if isinstance(outer, Identity):
            return operator.inner
        return operator if outer is operator.outer else outer @ operator.inner
    return operator


def is_sharp(operator: object) -> bool:
    """Whether an operator measures the object itself, or a part of it."""
    return isinstance(operator, Identity | Mask)
