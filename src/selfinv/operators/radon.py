"""Projections of a plane along parallel rays, as in tomography."""

from __future__ import annotations

import math
import warnings
from collections.abc import Sequence
from typing import Any

import numpy as np
import scipy.sparse
import torch
from torch import Tensor

from selfinv.operators.base import LinearOperator, as_numbers
from selfinv.operators.linear_map import LinearMap
from selfinv.operators.projections import CLEARLY, axis_of, shared_by_angles, surely_shared
from selfinv.types import InputError, check_flag, check_number, check_shape

OFF_CENTRE = 0.5  # pixels


class Radon(LinearOperator):
    r"""Projections along parallel rays at several angles.

    .. math:: y_{\theta,s} = \int x(t\cos\theta - s\sin\theta,\; t\sin\theta + s\cos\theta)\,dt

    Each ray is sampled at steps of one pixel, with bilinear interpolation: the values, the orientation and
    the object's centre ``n // 2`` are those of ``skimage.transform.radon``. Few angles, or a limited range,
    are just that.

    Parameters
    ----------
    shape
        Of the object, ``y x``.
    angles
        In degrees; in any order, from any range.
    circle
        The object is zero outside the circle inscribed in a square: the detector has as many pixels as a
        side. False: it has as many as the diagonal.
    centre
        The detector pixel, from 0 and with fractions, that sees the axis of rotation, which is the object's
        centre. None: ``n // 2`` of ``n``, as scikit-image has it. `find_centre` tells it from projections.

    Raises
    ------
    InputError
        If the shape is not a plane's (a square for ``circle``), there are no angles, or the detector does not
        see the centre.

    Notes
    -----
    Objects are ``(..., y, x)`` (slices of a volume are a leading axis), measurements ``(..., angle,
    detector)``: the transpose of scikit-image's. The rays' weights are kept in a sparse matrix and its
    transpose, in single precision, about 35 bytes per object pixel and angle.

    References
    ----------
    A. C. Kak and M. Slaney, *Principles of Computerized Tomographic Imaging*, 1988,
    doi:10.1137/1.9780898719277.

    Examples
    --------
    >>> import torch
    >>> Radon((3, 3), angles=[0, 90], circle=True)(torch.eye(3)[[0, 0, 2]]).round().tolist()
    [[2.0, 0.0, 1.0], [1.0, 1.0, 1.0]]
    """

    def __init__(
        self, shape: Sequence[int], angles: Any, circle: bool = False, centre: float | None = None
    ) -> None:
        shape, circle = check_shape(shape), check_flag(circle, "circle")
        angles = as_numbers(angles, "angles", "degrees, one per projection", torch.float64).detach().clone()
        if len(shape) != 2:
            raise InputError(
                f"Radon projects a plane, got the shape {shape}; slices of a volume are a leading axis"
            )
        if circle and shape[0] != shape[1]:
            raise InputError(f"circle=True expects a square object, got {shape}; use circle=False")
        if angles.ndim != 1 or not angles.numel() or not bool(angles.isfinite().all()):
            raise InputError(
                f"angles of the shape {tuple(angles.shape)} are not a list of numbers; give degrees, one per "
                f"projection"
            )
        detector = shape[0] if circle else math.ceil(math.sqrt(2) * max(shape))
        super().__init__(shape, (angles.numel(), detector))
        self.circle = circle
        self.centre = float(detector // 2)
        if centre is not None:
            self.centre = check_number(centre, "centre, a pixel of the detector,", least=0, most=detector - 1)
        self.angles: Tensor
        self.register_buffer("angles", angles)
        matrix = scipy.sparse.vstack(
            [_rays(shape, detector, self.centre, float(angle)) for angle in np.deg2rad(angles.numpy())],
            format="csr",
        )
        with warnings.catch_warnings():  # of the first sparse tensor, that these are new in torch
            warnings.filterwarnings("ignore", "Sparse CSR tensor support is in beta")
            torch.eye(1).to_sparse_csr()
        # Rows, columns and values apart: modules move dense buffers anywhere and to any precision.
        for name, m in (("rays", matrix), ("pixels", matrix.T.tocsr())):
            self.register_buffer(f"{name}_rows", torch.from_numpy(m.indptr.astype(np.int32)))
            self.register_buffer(f"{name}_columns", torch.from_numpy(m.indices.astype(np.int32)))
            self.register_buffer(f"{name}_values", torch.from_numpy(m.data))

    @property
    def hint(self) -> str:
        return "" if self.circle else "a detector as wide as the object is Radon(..., circle=True)"

    def doubts(self, y: Tensor) -> list[str]:
        count, largest = self.angles.numel(), float(self.angles.abs().max())
        if count >= 8 and largest <= 2.0 * math.pi + 0.01:
            return [f"all {count} angles are between ±{largest:.3g}: are they radians? Degrees are expected"]
        found = self.find_centre(y)
        if found is None or abs(found[0] - self.centre) <= max(OFF_CENTRE, CLEARLY * found[1]):
            return []
        return [
            f"these projections turn about detector pixel {found[0]:.1f} ± {max(found[1], 0.05):.1g}, not "
            f"{self.centre:g}, as their centres of mass show; pass centre={found[0]:.1f} "
            f"(--centre {found[0]:.1f}) if that is the axis of rotation"
        ]

    def doubts_of_residual(self, residual: Tensor) -> list[str]:
        shared = shared_by_angles(residual)
        if shared is None or shared < surely_shared(self.out_shape[1]):
            return []
        return [
            f"detector pixels seem to have offsets of their own, which make rings: what is left over of "
            f"these projections has means over the angles that differ {shared:.0f} times as much from one "
            f"pixel to the next (in the mean square) as independent noise makes them; take them off with "
            f"selfinv.without_rings (--rings), or correct the projections for the detector (flat and dark "
            f"field) before"
        ]

    def find_centre(self, y: Tensor) -> tuple[float, float] | None:
        """The detector pixel that sees the axis of rotation, and its standard error, by centres of mass.

        Parameters
        ----------
        y
            Projections, ``(..., angle, detector)``, all about one axis; those with NaN are left out.

        Returns
        -------
        tuple of float, or None
            None where it cannot be told: of fewer than 8 whole projections, of two directions alone, or of an
            object that is not all in view (they do not end in nothing, or differ in their sums).

        References
        ----------
        S. G. Azevedo et al. 1990, doi:10.1109/23.55866.
        """
        self._check(y, self.out_shape, "find_centre", "measurement")
        profiles = y.detach().cpu().double().reshape(-1, *self.out_shape).mean(0)
        return axis_of(profiles, self.angles.cpu().double().deg2rad())

    def forward(self, x: Tensor) -> Tensor:
        self._check(x, self.in_shape, "forward", "object")
        return LinearMap.apply(x, self._project, self._backproject)

    def adjoint(self, y: Tensor) -> Tensor:
        self._check(y, self.out_shape, "adjoint", "measurement")
        return LinearMap.apply(y, self._backproject, self._project)

    def filtered_backprojection(self, y: Tensor) -> Tensor:
        r"""The classical inverse: each projection through a ramp filter, then spread over the object.

        Parameters
        ----------
        y
            Projections, ``(..., angle, detector)``, at angles that cover 180° evenly.

        Returns
        -------
        Tensor
            The object, ``(..., y, x)``; with ``circle`` zero outside of it. That of
            ``skimage.transform.iradon``, of the shape of this operator's object.
        """
        self._check(y, self.out_shape, "filtered_backprojection", "measurement")
        detector = self.out_shape[1]
        across = math.ceil(math.sqrt(2) * detector) if self.circle else detector
        size = max(64, 2 ** math.ceil(math.log2(2 * across)))
        # The ramp, sampled in space: sampled in frequency, it would bias the mean (Kak & Slaney, Eq. 61).
        distance = torch.fft.fftfreq(size, d=1 / size, dtype=torch.float64, device=y.device)
        ramp = torch.where(distance.remainder(2) == 1, -1.0 / (math.pi * distance).square(), 0.0)
        ramp[0] = 0.25
        transfer = 2.0 * torch.fft.rfft(ramp).real
        filtered = torch.fft.irfft(torch.fft.rfft(y, n=size) * transfer.to(y.dtype), n=size)
        filtered = filtered[..., torch.arange(-1, detector + 1, device=y.device) % size]
        rows, columns = (
            torch.arange(n, dtype=torch.float64, device=y.device) - n // 2 for n in self.in_shape
        )
        x = y.new_zeros(*y.shape[:-2], *self.in_shape)
        for number, angle in enumerate(self.angles.to(y.device).deg2rad()):
            place = columns * angle.cos() - rows[:, None] * angle.sin() + self.centre + 1
            place = place.clamp(0, detector + 1)  # beyond, nothing was measured
            near = place.long().clamp_max(detector)
            projection = filtered[..., number, :]
            x = x + torch.lerp(projection[..., near], projection[..., near + 1], (place - near).to(y.dtype))
        if self.circle:
            x = torch.where(columns.square() + rows[:, None].square() <= (self.in_shape[0] // 2) ** 2, x, 0.0)
        return x * (math.pi / (2 * self.angles.numel()))

    def _project(self, x: Tensor) -> Tensor:
        return self._multiply("rays", x.flatten(-2)).unflatten(-1, self.out_shape)

    def _backproject(self, y: Tensor) -> Tensor:
        return self._multiply("pixels", y.flatten(-2)).unflatten(-1, self.in_shape)

    def _multiply(self, name: str, x: Tensor) -> Tensor:
        rows = self.get_buffer(f"{name}_rows")
        matrix = torch.sparse_csr_tensor(
            rows,
            self.get_buffer(f"{name}_columns"),
            self.get_buffer(f"{name}_values").to(x.dtype),
            (rows.numel() - 1, x.shape[-1]),
            check_invariants=False,
        )
        product = matrix @ x.reshape(-1, x.shape[-1]).T.contiguous()
        return product.T.reshape(*x.shape[:-1], -1)


def _rays(shape: tuple[int, ...], detector: int, centre: float, angle: float) -> scipy.sparse.csr_array:
    """The weights, ``detector pixel``, of one projection: bilinear, at steps of one pixel along each ray."""
    t, seen = np.mgrid[:detector, :detector]  # along the ray, and across
    t, s = t - detector // 2, seen - centre
    row = np.cos(angle) * t - np.sin(angle) * s + shape[0] // 2
    column = np.sin(angle) * t + np.cos(angle) * s + shape[1] // 2
    near = (row > -1) & (row < shape[0]) & (column > -1) & (column < shape[1])
    ray, row, column = seen[near], row[near], column[near]
    top, left = np.floor(row).astype(np.int32), np.floor(column).astype(np.int32)
    parts = []
    for i, u in ((top, 1 - row + top), (top + 1, row - top)):
        for j, v in ((left, 1 - column + left), (left + 1, column - left)):
            good = (i >= 0) & (i < shape[0]) & (j >= 0) & (j < shape[1]) & (u * v > 0)
            parts.append((ray[good], i[good] * shape[1] + j[good], (u * v)[good]))
    rays, pixels, weights = (np.concatenate(values) for values in zip(*parts, strict=True))
    matrix = scipy.sparse.coo_array((weights, (rays, pixels)), shape=(detector, shape[0] * shape[1]))
    return matrix.tocsr().astype(np.float32)
