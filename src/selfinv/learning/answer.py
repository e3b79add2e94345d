"""The answer to a whole measurement: the network's, and what each value itself adds to it."""

from __future__ import annotations

import itertools

import torch
from torch import Tensor

from selfinv.learning.forward_model import ForwardModel
from selfinv.learning.inverter import TrainedInverse
from selfinv.learning.own_values import OwnValues
from selfinv.operators.boundary import reflect
from selfinv.types import Pads


@torch.no_grad()
def answer(
    inverse: TrainedInverse,
    y: Tensor,
    missing: Tensor,
    own_values: OwnValues | None,
    forward: ForwardModel | None,
    *,
    most: int = 8,
    beyond: Pads = (),
) -> Tensor:
    """Invert a normalised measurement, ``batch channel *space``, and update by its values.

    Parameters
    ----------
    forward
        What measured it; None where nothing is blurred.
    most
        Of the symmetries, to average over.
    beyond
        How far the forward model's object, and the answer, reach beyond the network's object, which is taken
        to be mirrored there; nowhere where measured values are not pixels.
    """
    if own_values is None or own_values.response is not None:
        x = reflect(inverse(y, missing, most=most), beyond)
        return x if own_values is None else own_values.update(x, y, x, missing, forward)
    x, blind = predict_blind(inverse, y, missing, forward, most=most, beyond=beyond)
    return own_values.update(x, y, blind, missing, forward)


@torch.no_grad()
def predict_blind(
    inverse: TrainedInverse,
    y: Tensor,
    missing: Tensor,
    forward: ForwardModel | None,
    *,
    most: int = 8,
    beyond: Pads = (),
) -> tuple[Tensor, Tensor]:
    """The network's answer, and every value of a normalised measurement as predicted from others.

    Of pixels, a sample in two is hidden along each axis at a time; channels do not hide the same pixels. Of
    other values, as in the looks that the answer is the mean of. Parameters as in `answer`.
    """
    entrance, symmetries = inverse.entrance, inverse.symmetries
    if entrance.looks is not None:
        return inverse.of_parts(y, missing, forward, most=most)
    answered = reflect(inverse(y, missing, most=most), beyond)
    pads, count = inverse.pads if entrance.crude is None else (), 2 ** (y.ndim - 2)
    blind = torch.zeros_like(y)
    for i in range(count):
        hidden = one_of_two(y, pads, i)
        symmetry = symmetries[i * len(symmetries) // count]
        for k in range(len(y)):  # one by one: less memory
            frame, places = slice(k, k + 1), hidden[k : k + 1]
            seen = inverse.look(y[frame], places | missing[frame])
            x = reflect(inverse.turned(symmetry, seen), beyond)
            blind[frame][places] = (x if forward is None else forward(x))[places]
    return answered, blind


def one_of_two(y: Tensor, pads: Pads, which: int) -> Tensor:
    """True at one sample of two along each axis, in each channel other ones; ``which`` of these sets.

    Counted on the object's grid, where a part of an image begins at an even place.
    """
    space = y.shape[2:]
    firsts = [before % 2 for before, _ in pads] or [0] * len(space)
    phases = list(itertools.product((0, 1), repeat=len(space)))
    hidden = torch.zeros(y.shape, dtype=torch.bool, device=y.device)
    for channel in range(y.shape[1]):
        phase = zip(phases[(which + channel) % len(phases)], firsts, strict=True)
        hidden[:, channel][(slice(None), *(slice((p + first) % 2, None, 2) for p, first in phase))] = True
    return hidden
