"""As much light in the answer as was measured.

Noise is as often above as below, so what many values add up to is known far better than each of them. A
network is asked for values, not for sums, and where photons are few or an object stands on nothing its
errors need not cancel: some 2 % of the light are lost. A factor for each channel gives them back.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor

from selfinv.learning.losses import MaskedLoss
from selfinv.learning.measurement import Measurement
from selfinv.learning.normalisation import of_channels

SURE = 1.0  # standard errors
MOST = 1.25  # or one over that: more is no lack of light, but a failure


@torch.no_grad()
def light_factors(x: Tensor, data: Measurement, loss: MaskedLoss) -> tuple[float, ...]:
    """By what each channel of an answer is multiplied for as much to be measured of it as was.

    1 where the difference is within a standard error, as of independent noise; where noise is cut off or has
    outliers, as an L1 loss says, so that it does not add up to 0; and where an operator does more than add up
    light, or has object channels of its own.

    Parameters
    ----------
    x
        The network's object, ``batch channel *space``.
    """
    one = (1.0,) * x.shape[1]
    if loss.kind == "l1" or x.shape[1] != data.y.shape[1] or not data.forward_model.adds_up(x.shape[1]):
        return one
    dark, predicted = data.forward_model(torch.zeros_like(x[:1])), data.forward_model(x)
    factors = []
    for c in range(x.shape[1]):
        seen = ~data.missing[:, c]
        if not seen.any():
            factors.append(1.0)
            continue
        lacks = (data.y - predicted)[:, c][seen].double()
        light = float((predicted - dark)[:, c][seen].sum(dtype=torch.float64))
        chance = float(lacks.std(correction=0)) * math.sqrt(lacks.numel())
        factor = 1.0 + float(lacks.sum()) / light if light > 0.0 else 1.0
        sure = abs(float(lacks.sum())) > SURE * chance and 1.0 / MOST < factor < MOST
        factors.append(factor if sure else 1.0)
    return tuple(factors)


def brightened(x: Tensor, factors: Sequence[float]) -> Tensor:
    """The object times a factor for each channel; none are none to be multiplied by."""
    if all(factor == 1.0 for factor in factors):
        return x
    return x * of_channels(factors, x)
