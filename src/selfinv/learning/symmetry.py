"""Flips and quarter turns of an image grid, and which of them a forward operator does not notice."""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from selfinv.operators import Convolution, Identity, LinearOperator, random_like

# Of the norm: what a crude inverse leaves is alike in all turns then, and one network inverts them all.
COMMUTES = 0.05
SHIFTED = 0.27  # as much is a shift by part of a pixel, where each value sees a neighbourhood


@dataclass(frozen=True)
class Symmetry:
    """A signed permutation of the trailing ``ndim`` axes.

    Parameters
    ----------
    order
        Which spatial axis comes to each place.
    flipped
        Which axes are reversed after that.
    """

    order: tuple[int, ...]
    flipped: tuple[bool, ...]

    def __call__(self, x: Tensor) -> Tensor:
        """Transform the trailing axes of ``x``."""
        lead = x.ndim - len(self.order)
        x = x.permute(*range(lead), *(lead + axis for axis in self.order))
        return x.flip([lead + i for i, flip in enumerate(self.flipped) if flip])

    def inverse(self, x: Tensor) -> Tensor:
        """Undo the transformation."""
        lead = x.ndim - len(self.order)
        x = x.flip([lead + i for i, flip in enumerate(self.flipped) if flip])
        back = [self.order.index(axis) for axis in range(len(self.order))]
        return x.permute(*range(lead), *(lead + place for place in back))


@dataclass(frozen=True)
class Rearrangement:
    """What a symmetry does to grids of one shape, by where each sample comes from.

    A recording (`selfinv.learning.graphs.Recorder`) can be given other tables, but no other `Symmetry`.

    Parameters
    ----------
    there, back
        Integer tables of the shapes of the transformed and of the original grid.
    """

    there: Tensor
    back: Tensor

    @classmethod
    def of(cls, symmetry: Symmetry, shape: Sequence[int], device: torch.device) -> Rearrangement:
        """For a grid of this shape."""
        places = torch.arange(math.prod(shape), device=device).reshape(tuple(shape))
        there = symmetry(places)
        return cls(there, symmetry.inverse(places.reshape(there.shape)))

    def __call__(self, x: Tensor) -> Tensor:
        """Transform the trailing axes of ``batch channel *space``."""
        return _rearranged(x, self.there)

    def inverse(self, x: Tensor) -> Tensor:
        """Undo the transformation."""
        return _rearranged(x, self.back)


def _rearranged(x: Tensor, places: Tensor) -> Tensor:
    return x.flatten(2).index_select(2, places.flatten()).reshape(*x.shape[:2], *places.shape)


def grid_symmetries(ndim: int) -> list[Symmetry]:
    """All flips and axis exchanges of an ``ndim``-dimensional grid, the identity first (2, 8 or 48)."""
    return [
        Symmetry(order, flipped)
        for order in itertools.permutations(range(ndim))
        for flipped in itertools.product((False, True), repeat=ndim)
    ]


def operator_symmetries(
    operator: Callable[[Tensor], Tensor],
    ndim: int,
    *,
    rtol: float = 0.02,
    commutes: float = COMMUTES,
    like: Tensor | None = None,
) -> list[Symmetry]:
    r"""The grid symmetries that commute with ``operator`` to within ``rtol``.

    For a convolution these are the symmetries of its kernel; the identity has them all. Where measured values
    are not pixels, :math:`A^\top A` is to commute, to within ``commutes`` on a random object; other operators
    and functions are tried on ``like``, an object without any symmetry. Without one only the identity
    transformation is sure.
    """
    everything = grid_symmetries(ndim)
    if isinstance(operator, Identity):
        return everything
    if isinstance(operator, LinearOperator) and operator.field_of_view is None:
        return _commuting(everything, operator, commutes)
    if not isinstance(operator, Convolution):
        return everything[:1] if like is None else _unnoticed(everything, operator, like, rtol)
    # An even kernel's centre n // 2 is not its middle: one zero sample makes it so.
    psf = operator.psf
    for axis in range(psf.ndim - ndim, psf.ndim):
        if psf.shape[axis] % 2 == 0:
            psf = torch.cat([psf, psf.new_zeros(psf.narrow(axis, 0, 1).shape)], dim=axis)
    size = psf.norm()
    return [
        s
        for s in everything
        if s(psf).shape == psf.shape and float((s(psf) - psf).norm()) <= rtol * float(size)
    ]


@torch.no_grad()
def _unnoticed(
    symmetries: list[Symmetry], operator: Callable[[Tensor], Tensor], x: Tensor, rtol: float
) -> list[Symmetry]:
    """Those for which the measurement of what is turned is the measurement, turned."""
    measured = operator(x)
    spread = rtol * float((measured - measured.mean()).norm())
    return symmetries[:1] + [
        s
        for s in symmetries[1:]
        if s(x).shape == x.shape
        and s(measured).shape == measured.shape
        and float((operator(s(x)) - s(measured)).norm()) <= spread
    ]


@torch.no_grad()
def _commuting(symmetries: list[Symmetry], operator: LinearOperator, rtol: float) -> list[Symmetry]:
    def twice(x: Tensor) -> Tensor:
        return operator.adjoint(operator(x))

    x = random_like(operator, (1, 1, *operator.in_shape), torch.float32, seed=0)
    seen = twice(x)
    least = rtol * float(seen.norm())
    return [s for s in symmetries if s(x).shape == x.shape and float((twice(s(x)) - s(seen)).norm()) <= least]
