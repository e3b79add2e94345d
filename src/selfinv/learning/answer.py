"""The answer to a whole measurement: the network's, and what each value itself adds to it."""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence
from dataclasses import replace

import torch
from torch import Tensor

from selfinv.arrangement import is_on_grid
from selfinv.learning.blind_errors import spectra_of_errors
from selfinv.learning.capacity import spectra
from selfinv.learning.forward_model import ForwardModel
from selfinv.learning.inverter import Entrance, Inverter, invert, invert_parts
from selfinv.learning.losses import MaskedLoss, cut_off
from selfinv.learning.measurement import Measurement, Pads
from selfinv.learning.noise_line import Limits, NoiseLine, of_counts, variance_of
from selfinv.learning.own_values import (
    OwnValues,
    at_most_what_is_there,
    find_noise,
    has_many_gaps,
    has_wild_values,
)
from selfinv.learning.random import generator_for
from selfinv.learning.symmetry import Symmetry
from selfinv.operators import Identity, LinearOperator, Mask
from selfinv.operators.boundary import reflect

LEAST_WEIGHT = 0.01  # on the mean: where values say less, asking them is not worth the time
SURE_WEIGHT = 0.9  # unless one says much
CLEAR_EXCESS = 0.5  # of blind errors over the noise of counted photons
SMALL = 0.3  # deviations of the noise, by which values are changed to see what that does
MOST_RESPONSE = 0.9
# In parts of the noise, behind an operator where nothing tells the spectrum of errors: they are not as white
# as the update then takes them for; the larger they are beside the noise, the more of what is suppressed it
# makes of them. A network that has failed would pass for a good one: the update fits hidden values all the
# same.
MOST_ERROR = 3.0
FAILED = 0.5  # of the variance, not predicted: of such a network's errors less still is known
MUCH = 0.25  # of what is not noise
CONVINCING = 2.0  # standard errors; hidden values do not show the noise that an operator suppresses


@torch.no_grad()
def answer(
    model: Inverter,
    y: Tensor,
    missing: Tensor,
    pads: Pads,
    symmetries: Sequence[Symmetry],
    entrance: Entrance,
    own_values: OwnValues | None,
    forward: ForwardModel | None,
    *,
    most: int = 8,
    beyond: Pads = (),
) -> Tensor:
    """Invert a normalised measurement, ``batch channel *space`` (`invert`), and update by its values.

    Parameters
    ----------
    forward
        What measured it; None where nothing is blurred.
    beyond
        How far the forward model's object, and the answer, reach beyond the network's object, which is taken
        to be mirrored there; nowhere where measured values are not pixels.
    """
    given = (y, missing, pads, symmetries, entrance)
    if own_values is None or own_values.response is not None:
        x = reflect(invert(model, *given, most=most), beyond)
        return x if own_values is None else own_values.update(x, y, x, missing, forward)
    x, blind = predict_blind(model, *given, forward, most=most, beyond=beyond)
    return own_values.update(x, y, blind, missing, forward)


@torch.no_grad()
def predict_blind(
    model: Inverter,
    y: Tensor,
    missing: Tensor,
    pads: Pads,
    symmetries: Sequence[Symmetry],
    entrance: Entrance,
    forward: ForwardModel | None,
    *,
    most: int = 8,
    beyond: Pads = (),
) -> tuple[Tensor, Tensor]:
    """The network's answer, and every value of a normalised measurement as predicted from others.

    Of pixels, a sample in two is hidden along each axis at a time; channels do not hide the same pixels. Of
    other values, as in the looks that the answer is the mean of. Parameters as in `answer`.
    """
    if entrance.looks is not None:
        return invert_parts(model, y, missing, symmetries, entrance, forward, most=most)
    answered = reflect(invert(model, y, missing, pads, symmetries, entrance, most=most), beyond)
    marks, count = model.network.settings.marks, 2 ** (y.ndim - 2)
    blind = torch.zeros_like(y)
    for i in range(count):
        hidden = _one_of_two(y, pads if entrance.crude is None else (), i)
        symmetry = symmetries[i * len(symmetries) // count]
        for k in range(len(y)):  # one by one: less memory
            frame, places = slice(k, k + 1), hidden[k : k + 1]
            shown = entrance(y[frame], places | missing[frame], pads, marks, generator_for(0))
            x = reflect(symmetry.inverse(model(symmetry(shown))), beyond)
            blind[frame][places] = (x if forward is None else forward(x))[places]
    return answered, blind


def _one_of_two(y: Tensor, pads: Pads, which: int) -> Tensor:
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


@torch.no_grad()
def answer_to_own(
    model: Inverter, data: Measurement, loss: MaskedLoss, *, asked: bool
) -> tuple[Tensor, OwnValues | None]:
    """The answer to what the network was trained on, and how its values were asked, if they were.

    Not behind operators that do more than add up light from a neighbourhood: places of the object then have
    no error that local means could tell. Nor where some values are wild; behind an operator only
    if hidden ones are then predicted better. ``asked``: whether they may be at all.
    """
    given = (model, data.y, data.missing, data.pads, data.symmetries, data.entrance)
    forward = None if is_sharp(data.operator) else data.forward_model
    if not asked or (forward is not None and not _can_update(forward, data)):
        return answer(*given, None, None), None
    x, blind = predict_blind(*given, forward)
    own_values = _find_own_values(model, data, loss, forward, x, blind)
    if own_values is None:
        return x, None
    return own_values.update(x, data.y, blind, data.missing, forward), own_values


def _find_own_values(
    model: Inverter,
    data: Measurement,
    loss: MaskedLoss,
    forward: ForwardModel | None,
    answered: Tensor,
    blind: Tensor,
) -> OwnValues | None:
    if not bool(torch.isfinite(blind).all()):
        return None  # the run has failed, which is told by its answer
    if loss.kind == "l1" and has_wild_values(data.y, blind, data.missing):
        return None
    measured = data.y[~data.missing]
    cut_low, cut_high = cut_off(data.y.masked_fill(data.missing, torch.nan))
    limits = (float(measured.min()) if cut_low else None, float(measured.max()) if cut_high else None)
    sharp = forward is None
    sparse = loss.kind == "l2"  # else noise itself has values that stand out
    counted = of_counts(data.y, blind, data.missing, limits) if sharp else None
    noise = None
    if counted is None:
        noise = find_noise(data.y, blind, data.missing, data.validated, limits, sparse=sparse)
        if noise is not None and sharp and limits == (None, None):
            noise = at_most_what_is_there(noise, data.y, blind, data.missing)
    if noise is None and not sharp:  # where hidden values confirm it
        counted = of_counts(data.y, blind, data.missing, limits)
    if counted is not None:
        noise = (counted,) * data.y.shape[1]
    if noise is None:
        return None
    if forward is not None:
        return _behind_operator(model, data, loss, forward, answered, blind, noise, limits)
    found, predicted = _of_pixels(model, data, answered, blind, noise, limits, sparse=sparse)
    if counted is not None and found.response is None and max(found.excess) < CLEAR_EXCESS:
        # The answer is better than blind predictions: only what no chance has made is to count.
        found = replace(found, excess=(0.0,) * len(noise), share=(0.0,) * len(noise))
    return found if _says_something(found, data, predicted) else None


def _says_something(found: OwnValues, data: Measurement, predicted: Tensor) -> bool:
    weights = found.weights(data.y, predicted, data.missing)[~data.missing]
    return float(weights.mean()) >= LEAST_WEIGHT or float(weights.max()) >= SURE_WEIGHT


def _of_pixels(
    model: Inverter,
    data: Measurement,
    answered: Tensor,
    blind: Tensor,
    noise: tuple[NoiseLine, ...],
    limits: Limits,
    *,
    sparse: bool,
) -> tuple[OwnValues, Tensor]:
    """What values say of an object that they show as it is; and of which prediction that is."""
    predicted, response = blind, None
    gaps = has_many_gaps(data.missing)
    if not gaps and all(spectrum.levels_off() for spectrum in spectra(data.y, data.missing)):
        predicted, response = answered, _response(model, data, variance_of(noise, blind))
    asked = (data.y, predicted, data.missing)
    found = OwnValues.of(*asked, noise, limits=limits, response=response, uneven=not gaps, sparse=sparse)
    return found, predicted


def _behind_operator(
    model: Inverter,
    data: Measurement,
    loss: MaskedLoss,
    forward: ForwardModel,
    answered: Tensor,
    blind: Tensor,
    noise: tuple[NoiseLine, ...],
    limits: Limits,
) -> OwnValues | None:
    """What they say through an operator, if hidden ones confirm it, and so what the noise is."""
    asked = (data.y, blind, data.missing)
    found = OwnValues.of(*asked, noise, limits=limits)
    seen, told = ~data.missing, []
    if float((data.y - blind)[seen].var()) <= FAILED * float(data.y[seen].var()):
        told = spectra_of_errors(*asked, forward, variance_of(noise, blind), found.excesses(*asked))
    if not told:
        noise = _raised(noise, data, blind)
        found = OwnValues.of(*asked, noise, limits=limits)
    if not _says_something(found, data, blind):
        return None
    found = replace(found, darkest=min(0.0, float(answered.min())))
    candidates = [replace(found, power=power, errors=spectrum) for spectrum, power in told]
    if not told:
        candidates = [replace(found, power=forward.near(answered[:1]).power(data.y.shape[1]))]
    return _confirmed(candidates, model, data, loss, forward, blind, noise)


def _confirmed(
    candidates: Sequence[OwnValues],
    model: Inverter,
    data: Measurement,
    loss: MaskedLoss,
    forward: ForwardModel,
    blind: Tensor,
    noise: Sequence[NoiseLine],
) -> OwnValues | None:
    """The first, unless hidden values are predicted better with another; None if not better than without.

    Than with the first by a quarter of what is no noise: it lets through few errors of what it suppresses.
    Than without no worse, where no two values see the same. Stars, say, are few, and errors are theirs: of
    the values set apart hardly any would be of one. So a quarter of all is asked, and where that does not
    tell, the next.
    """
    sets = iter([data.validated])
    if data.entrance.crude is None:
        sets = (_one_of_two(data.y, data.pads, i) & ~data.missing for i in range(2 ** (data.y.ndim - 2)))
    scale = variance_of(noise, blind).sqrt()
    of_noise = 1.0 if loss.kind == "l2" else math.sqrt(2.0 / math.pi)
    better = torch.empty(0, dtype=torch.float64)
    for asked in sets:
        hidden = data.missing | data.validation | asked
        x = invert(model, data.y, hidden, data.pads, data.symmetries[:1], data.entrance, most=1)

        def costs(x: Tensor, asked: Tensor = asked) -> Tensor:
            return loss.each(((forward(x) - data.y) / scale)[asked]).double().cpu()

        tried = [
            (costs(candidate.update(x, data.y, blind, hidden, forward)), candidate)
            for candidate in candidates
        ]
        after, found = tried[0]
        for other, candidate in tried[1:]:
            least = float(other.mean()) + MUCH * max(0.0, float(other.mean()) - of_noise)
            if _is_sure(after - other) and float(after.mean()) > least:
                after, found = other, candidate
        candidates = [found]
        better = torch.cat([better, costs(x) - after])
        # Both are 0 where no two values see the same, as of coarser pixels: nothing is suppressed there.
        if not bool(better.any()) or _is_sure(better):
            return found
        if float(better.mean()) <= 0.0:
            return None
    return None


def _is_sure(gain: Tensor) -> bool:
    """Whether it is one, of these on the mean."""
    return float(gain.mean()) > CONVINCING * float(gain.std(correction=0)) / math.sqrt(gain.numel())


def _raised(noise: Sequence[NoiseLine], data: Measurement, blind: Tensor) -> tuple[NoiseLine, ...]:
    """Each channel's noise, as large beside the predictions' errors as it must be."""
    lines = []
    for c, line in enumerate(noise):
        seen = ~data.missing[:, c]
        squared = (data.y - blind)[:, c][seen].square().mean(dtype=torch.float64)
        expected = line.variance(blind[:, c][seen]).mean(dtype=torch.float64)
        lines.append(line.times(max(1.0, float(squared / expected) / MOST_ERROR)) if seen.any() else line)
    return tuple(lines)


def _response(model: Inverter, data: Measurement, noise: Tensor) -> tuple[float, ...]:
    """By how much each channel's answer changes where a value does, by random changes of all.

    On the mean over values, each counted by its noise's variance, as in Stein's identity.
    """
    signs = torch.randint(0, 2, data.y.shape, generator=generator_for(0)).to(data.y) * 2.0 - 1.0
    change = SMALL * noise.sqrt()
    given = (data.missing, data.pads, data.symmetries[:1], data.entrance)
    before, after = (invert(model, y, *given) for y in (data.y, data.y + change * signs))
    change = change.masked_fill(data.missing, 0.0)
    follows, all_of_it = (
        product.double().transpose(0, 1).flatten(1).sum(dim=1)
        for product in (signs * change * (after - before), change.square())
    )
    return tuple((follows / all_of_it).nan_to_num().clamp(0.0, MOST_RESPONSE).tolist())


def is_sharp(operator: object) -> bool:
    """Whether an operator measures the object itself, or a part of it."""
    return isinstance(operator, Identity | Mask)


@torch.no_grad()
def _can_update(forward: ForwardModel, data: Measurement) -> bool:
    operator, channels = forward.operator, data.y.shape[1]
    if isinstance(operator, LinearOperator):
        if len(operator.out_shape) < len(operator.in_shape) or operator.object_channels or operator.together:
            return False  # values in no order that local means could be taken in
        one = torch.zeros((1, channels, *operator.in_shape)).to(data.y)
        # Frames are updated one by one, which takes an operator that is the same for all.
        if len(data.y) > 1 and len(operator(one)) > 1:
            return False
        return forward.adds_up() and (is_on_grid(operator) or forward.is_local())
    if len(data.y) > 1:
        return False
    try:
        near = forward.near(data.y.new_full((1, channels, *data.object_shape), 0.5))  # the range's middle
        return near.has_its_adjoint(channels) and near.adds_up(channels)
    except RuntimeError:  # a function that can be differentiated only once
        return False
