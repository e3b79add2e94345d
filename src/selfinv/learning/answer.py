"""The answer to a whole measurement: the network's, and what each value itself adds to it."""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence
from dataclasses import replace

import torch
from torch import Tensor

from selfinv.arrangement import together_of
from selfinv.learning.instrument import Instrument
from selfinv.learning.inverter import Entrance, Inverter, invert
from selfinv.learning.losses import MaskedLoss, cut_off
from selfinv.learning.measurement import Measurement, Pads
from selfinv.learning.own_values import OwnValues, has_wild_values
from selfinv.learning.random import generator_for
from selfinv.learning.symmetry import Symmetry
from selfinv.operators import Convolution, Identity, Mask
from selfinv.operators.boundary import reflect

LEAST_WEIGHT = 0.01  # on the mean: where values say less, asking them is not worth the time


@torch.no_grad()
def answer(
    model: Inverter,
    y: Tensor,
    missing: Tensor,
    pads: Pads,
    symmetries: Sequence[Symmetry],
    entrance: Entrance,
    own_values: OwnValues | None,
    instrument: Instrument | None,
    *,
    most: int = 8,
) -> Tensor:
    """Invert a normalised measurement, ``batch channel *space`` (`invert`), and ask its values.

    ``instrument`` has measured it; None where nothing is blurred.
    """
    x = invert(model, y, missing, pads, symmetries, entrance, most=most)
    if own_values is None:
        return x
    blind = predict_blind(model, y, missing, pads, symmetries, entrance, instrument)
    return own_values.update(x, y, blind, missing, instrument)


@torch.no_grad()
def predict_blind(
    model: Inverter,
    y: Tensor,
    missing: Tensor,
    pads: Pads,
    symmetries: Sequence[Symmetry],
    entrance: Entrance,
    instrument: Instrument | None,
    beyond: Pads = (),
) -> Tensor:
    """Every value of a normalised measurement as predicted from the others.

    A sample in two is hidden along each axis at a time; channels do not hide the same pixels.

    Parameters
    ----------
    beyond
        How far the instrument's object reaches beyond the network's; it is taken to be mirrored there.
    """
    marks, space = model.network.settings.marks, y.shape[2:]
    # Counted on the object's grid, where a part of an image begins at an even place.
    firsts = [before % 2 for before, _ in pads] if entrance.crude is None else [0] * len(space)
    phases = [
        [(p + first) % 2 for p, first in zip(phase, firsts, strict=True)]
        for phase in itertools.product((0, 1), repeat=len(space))
    ]
    blind = torch.zeros_like(y)
    for i in range(len(phases)):
        hidden = torch.zeros_like(missing)
        for channel in range(y.shape[1]):
            phase = phases[(i + channel) % len(phases)]
            hidden[:, channel][(slice(None), *(slice(p, None, 2) for p in phase))] = True
        symmetry = symmetries[i * len(symmetries) // len(phases)]
        for k in range(len(y)):  # one by one: less memory
            frame, places = slice(k, k + 1), hidden[k : k + 1]
            shown = entrance(y[frame], places | missing[frame], pads, marks, generator_for(0))
            x = reflect(symmetry.inverse(model(symmetry(shown))), beyond)
            blind[frame][places] = (x if instrument is None else instrument(x))[places]
    return blind


@torch.no_grad()
def find_own_values(model: Inverter, data: Measurement, loss: MaskedLoss) -> OwnValues | None:
    """The noise and the network's error, if the values of this measurement have anything to add.

    Not behind operators that do more than add up light, for which places of the object have no error that
    local means could tell; nor where some values are wild, or hidden ones are then predicted worse.
    """
    sharp = isinstance(data.operator, Identity | Mask)
    instrument = None if sharp else data.instrument
    if instrument is not None and not _has_say(instrument):
        return None
    given = (data.pads, data.symmetries, data.entrance)
    blind = predict_blind(model, data.y, data.missing, *given, instrument)
    if loss.kind == "l1" and has_wild_values(data.y, blind, data.missing):
        return None
    shown = data.y.masked_fill(data.missing, torch.nan)
    cut_low, cut_high = cut_off(shown)
    limits = (
        float(data.y[~data.missing].min()) if cut_low else -math.inf,
        float(data.y[~data.missing].max()) if cut_high else math.inf,
    )
    found = OwnValues.of(data.y, blind, data.missing, data.validated, limits)
    if float(found.weights(data.y, blind, data.missing).mean()) < LEAST_WEIGHT:
        return None
    if instrument is None:
        return found
    found = replace(found, power=instrument.power())
    hidden = data.missing | data.validation
    x = invert(model, data.y, hidden, data.pads, data.symmetries[:1], data.entrance)
    asked = found.update(x, data.y, blind, hidden, instrument)
    before, after = (loss.each((instrument(z) - data.y)[data.validated]) for z in (x, asked))
    worse = after - before
    error = float(worse.std()) / math.sqrt(worse.numel())
    return found if float(worse.mean()) <= error else None


def _has_say(instrument: Instrument) -> bool:
    operator = instrument.operator
    on_grid = getattr(operator, "field_of_view", None) is not None
    if on_grid and not isinstance(operator, Convolution):  # a model for other sizes would not have it
        return False
    return not together_of(operator) and instrument.adds_up()
