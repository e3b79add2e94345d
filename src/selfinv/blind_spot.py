"""Hiding more than is scored, where neighbours share noise."""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor

from selfinv.types import InputError


def widen(hidden: Tensor, blind_spot: Sequence[int]) -> Tensor:
    """Hide more than is scored: all values within a box around every hidden one.

    Parameters
    ----------
    hidden
        Boolean, ``batch channel *space``, True where a value is to be scored.
    blind_spot
        Half-widths of the box in values, one per spatial axis (`NoiseCorrelation.blind_spot`).

    Returns
    -------
    Boolean, of the same shape: what the prediction must not see.

    Raises
    ------
    InputError
        If there is not one half-width of 0 or more for each spatial axis, or ``hidden`` is not boolean.

    Notes
    -----
    Source: masks larger than a pixel against correlated noise, Broaddus et al. 2020,
    doi:10.1109/ISBI45749.2020.9098336.

    Examples
    --------
    >>> widen(torch.tensor([[[True, False, False, False]]]), (2,)).int().tolist()
    [[[1, 1, 1, 0]]]
    """
    if hidden.dtype != torch.bool or not 3 <= hidden.ndim <= 5:
        raise InputError(
            f"hidden is {hidden.dtype} with {hidden.ndim} axes; expected bool, batch channel *space"
        )
    if len(blind_spot) != hidden.ndim - 2 or any(w < 0 for w in blind_spot):
        raise InputError(
            f"blind_spot is {tuple(blind_spot)}; expected one number of 0 or more for each of the "
            f"{hidden.ndim - 2} spatial axes"
        )
    for axis, width in enumerate(blind_spot, start=2):
        if width >= hidden.shape[axis] - 1:
            hidden = hidden.any(axis, keepdim=True).expand_as(hidden)
        elif width:
            moved = hidden.movedim(axis, -1)
            rows = moved.reshape(-1, 1, moved.shape[-1]).to(torch.float32)
            grown = F.max_pool1d(rows, 2 * width + 1, stride=1, padding=width) > 0
            hidden = grown.reshape(moved.shape).movedim(-1, axis)
    return hidden
