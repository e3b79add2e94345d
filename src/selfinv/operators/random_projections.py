"""Random mixtures of all pixels, as a single-pixel camera measures them."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor

from selfinv.operators.base import LinearOperator
from selfinv.types import InputError, check_integer


class RandomProjections(LinearOperator):
    r"""Sums of all pixels with random signs, :math:`y = \frac{1}{\sqrt m} S x`, :math:`S_{ij} = \pm 1`.

    The matrix is dense, ``count`` times the number of pixels; `Hadamard` does without one.

    Parameters
    ----------
    shape
        Of the object.
    count
        The number :math:`m` of measured values.
    seed
        Of the signs.

    Raises
    ------
    InputError
        If ``count`` is no positive integer, or ``seed`` none.

    Notes
    -----
    Objects are ``(..., *shape)``, measurements ``(..., count)``. On average :math:`A^\top A` is the identity.

    References
    ----------
    D. Achlioptas 2003, doi:10.1016/S0022-0000(03)00025-4.

    Examples
    --------
    >>> import torch
    >>> float(RandomProjections((4, 4), count=9, seed=0)(torch.eye(16)[0].reshape(4, 4)).norm())
    1.0
    """

    def __init__(self, shape: Sequence[int], count: int, seed: int = 0) -> None:
        count = check_integer(count, "count", least=1)
        super().__init__(shape, (count,))
        generator = _generator(seed)
        signs = torch.randint(0, 2, (count, math.prod(self.in_shape)), generator=generator)
        self.signs: Tensor
        self.register_buffer("signs", 2.0 * signs.float() - 1.0)

    @property
    def field_of_view(self) -> None:
        return None

    def forward(self, x: Tensor) -> Tensor:
        self._check(x, self.in_shape, "forward", "object")
        return F.linear(x.flatten(-len(self.in_shape)), self.signs.to(x.dtype)) / math.sqrt(self.out_shape[0])

    def adjoint(self, y: Tensor) -> Tensor:
        self._check(y, self.out_shape, "adjoint", "measurement")
        return (y @ self.signs.to(y.dtype) / math.sqrt(self.out_shape[0])).unflatten(-1, self.in_shape)


class Hadamard(LinearOperator):
    r"""Some rows of a scrambled Walsh-Hadamard transform, :math:`y = R\,H_N P D x / \sqrt N`.

    :math:`D` flips the signs of random pixels, :math:`P` permutes the object, filled up with zeros to
    :math:`N`, the next power of two; :math:`H_N` is the transform in natural order, done fast, and :math:`R`
    picks rows. The rows are orthonormal where the object has :math:`N` pixels.

    Parameters
    ----------
    shape
        Of the object.
    count
        The number of measured values, at most :math:`N`.
    seed
        Of the signs, the permutation and the rows.

    Raises
    ------
    InputError
        If ``count`` is no positive integer or larger than :math:`N`, or ``seed`` none.

    Notes
    -----
    Objects are ``(..., *shape)``, measurements ``(..., count)``.

    References
    ----------
    T. T. Do, L. Gan, N. H. Nguyen and T. D. Tran 2012, doi:10.1109/TSP.2011.2170977.

    Examples
    --------
    >>> import torch
    >>> A = Hadamard((8, 8), count=20)
    >>> torch.allclose(A(A.adjoint(torch.ones(20))), torch.ones(20), atol=1e-5)
    True
    """

    def __init__(self, shape: Sequence[int], count: int, seed: int = 0) -> None:
        count = check_integer(count, "count", least=1)
        super().__init__(shape, (count,))
        pixels = math.prod(self.in_shape)
        self.size = 2 ** (pixels - 1).bit_length()
        if count > self.size:
            raise InputError(f"count={count} is more than there are rows, {self.size}, for {pixels} pixels")
        generator = _generator(seed)
        self.signs: Tensor
        self.places: Tensor
        self.rows: Tensor
        self.register_buffer("signs", 2.0 * torch.randint(0, 2, (pixels,), generator=generator).float() - 1.0)
        self.register_buffer("places", torch.randperm(self.size, generator=generator)[:pixels])
        self.register_buffer("rows", torch.randperm(self.size, generator=generator)[:count])

    @property
    def field_of_view(self) -> None:
        return None

    def forward(self, x: Tensor) -> Tensor:
        self._check(x, self.in_shape, "forward", "object")
        signed = x.flatten(-len(self.in_shape)) * self.signs.to(x.dtype)
        scrambled = x.new_zeros(*signed.shape[:-1], self.size).index_add(-1, self.places, signed)
        return walsh_hadamard(scrambled).index_select(-1, self.rows) / math.sqrt(self.size)

    def adjoint(self, y: Tensor) -> Tensor:
        self._check(y, self.out_shape, "adjoint", "measurement")
        rows = y.new_zeros(*y.shape[:-1], self.size).index_add(-1, self.rows, y)
        signed = walsh_hadamard(rows).index_select(-1, self.places) * self.signs.to(y.dtype)
        return signed.unflatten(-1, self.in_shape) / math.sqrt(self.size)


def walsh_hadamard(x: Tensor) -> Tensor:
    """The last axis, a power of two long, times Hadamard's matrix (Sylvester's order), not normalised."""
    n = x.shape[-1]
    half = 1
    while half < n:
        pairs = x.unflatten(-1, (-1, 2, half))
        a, b = pairs.unbind(-2)
        x = torch.stack((a + b, a - b), dim=-2).flatten(-3)
        half *= 2
    return x


def _generator(seed: int) -> torch.Generator:
    seed = check_integer(seed, "seed", least=-(2**63), most=2**64 - 1)  # torch's bounds
    return torch.Generator().manual_seed(seed)
