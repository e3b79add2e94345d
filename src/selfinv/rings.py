"""Tomography with a detector whose pixels have offsets of their own, without the rings that these make.

Rings come from what a detector pixel adds to all projections alike. A restoration that is told that noise is
independent takes it for the object. What it leaves over of the measurement still shows it: fine differences
between the means over angles that are larger than chance makes them, by the factor :math:`e`. So the means'
finest detail is given as much less weight (`selfinv.operators.RingFilter`), which is what generalised least
squares do with noise that values share (Aitken 1936, doi:10.1017/S0370164600014346), and what is then left
over tells whether that was enough.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

from selfinv.operators import LinearOperator, Radon, RingFilter
from selfinv.operators.projections import shared_by_angles, surely_shared
from selfinv.restoration import restore
from selfinv.solvers import Status
from selfinv.solvers.base import Callback
from selfinv.types import Array, InputError, as_array, warn

ROUNDS = 4
ENOUGH = 1.5  # times what chance leaves, once something was found


@dataclass(frozen=True)
class WithoutRings:
    """What to restore from.

    Parameters
    ----------
    sinogram
        The projections, weighed; the shape they had.
    operator
        What then measures them.
    excess
        How many times as much as independent noise makes them the finest differences between the detector
        pixels' means vary; 1: there are no offsets, and nothing is changed.
    """

    sinogram: Array
    operator: LinearOperator
    excess: float


def without_rings(
    sinogram: Any, operator: Radon, *, device: str = "auto", callback: Callback | None = None
) -> WithoutRings:
    """Projections and operator so weighed that offsets of detector pixels make no rings.

    Takes up to four restorations of one slice by total variation, each tuned. What is round about the axis of
    rotation, as a tube that holds a specimen, cannot be told from rings, and loses sharpness.

    Parameters
    ----------
    sinogram
        ``(..., angle, detector)``, without missing values. Of several slices the one of most contrast tells
        how large the offsets are.
    operator
        That of the projections.
    device, callback
        As for `selfinv.restore`; the latter is called of each restoration.

    Raises
    ------
    InputError
        If the operator is no `Radon`, or projections do not have its shape or are not all finite.
    KeyboardInterrupt
        If a restoration is cancelled.

    Examples
    --------
    >>> found = without_rings(sinogram, A)  # doctest: +SKIP
    >>> selfinv.restore(found.sinogram, operator=found.operator)  # doctest: +SKIP
    """
    if not isinstance(operator, Radon):
        raise InputError(
            f"rings come from projections; the operator is a {type(operator).__name__}, no Radon"
        )
    y = as_array(sinogram, "sinogram")
    if y.dtype.kind not in "biuf" or not y.size:
        raise InputError(f"the sinogram has the type {y.dtype} and the shape {y.shape}; expected real values")
    y = y.astype(np.float64)
    if y.shape[-2:] != operator.out_shape:
        raise InputError(
            f"the sinogram has the shape {y.shape}; the operator's projections have (..., "
            f"{operator.out_shape[0]}, {operator.out_shape[1]}), angle and detector"
        )
    if not np.isfinite(y).all():
        raise InputError(
            "the sinogram has values that are not finite; means over all angles need all of them: fill them "
            "in first, or leave rings as they are"
        )
    slices = torch.from_numpy(y.reshape(-1, *operator.out_shape))
    for words in operator.doubts(slices):
        warn(words)
    one = slices[slices.var(dim=(1, 2)).argmax()]
    weighed = RingFilter(operator.out_shape, 1.0)
    for _ in range(ROUNDS):
        seen = weighed(one).numpy()
        found = restore(
            seen, operator=weighed @ operator, method="tv-chambolle-pock", device=device, callback=callback
        )
        if found.status == Status.CANCELLED:
            raise KeyboardInterrupt
        left = shared_by_angles(torch.from_numpy(seen - found.predicted))
        if left is None or left < (surely_shared(y.shape[-1]) if weighed.excess == 1.0 else ENOUGH):
            break
        weighed = RingFilter(operator.out_shape, weighed.excess * left)
    if weighed.excess == 1.0:
        return WithoutRings(y, operator, 1.0)
    return WithoutRings(weighed(torch.from_numpy(y)).numpy(), weighed @ operator, weighed.excess)
