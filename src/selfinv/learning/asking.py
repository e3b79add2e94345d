"""What the values of a measurement may be asked for, beyond the answer of a network trained on them."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from selfinv.arrangement import is_on_grid, is_sharp
from selfinv.learning.answer import one_of_two, predict_blind
from selfinv.learning.blind_errors import spectra_of_errors
from selfinv.learning.capacity import spectra
from selfinv.learning.forward_model import ForwardModel
from selfinv.learning.inverter import Inverter, TrainedInverse
from selfinv.learning.losses import MaskedLoss, cut_off
from selfinv.learning.measurement import Measurement
from selfinv.learning.noise_line import Limits, NoiseLine, of_counts, variance_of
from selfinv.learning.own_values import (
    OwnValues,
    at_most_what_is_there,
    find_noise,
    has_many_gaps,
    has_wild_values,
)
from selfinv.learning.random import generator_for
from selfinv.operators import LinearOperator

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
def answer_to_own(
    model: Inverter, data: Measurement, loss: MaskedLoss, *, asked: bool
) -> tuple[Tensor, OwnValues | None]:
    """The answer to what the network was trained on, and how its values were asked, if they were.

    Not behind operators that do more than add up light from a neighbourhood: places of the object then have
    no error that local means could tell. Nor where some values are wild; behind an operator only
    if hidden ones are then predicted better. ``asked``: whether they may be at all.
    """
    inverse = data.inverse(model)
    forward = None if is_sharp(data.operator) else data.forward_model
    if not asked or (forward is not None and not can_update(forward, data)):
        return inverse(data.y, data.missing), None
    x, blind = predict_blind(inverse, data.y, data.missing, forward)
    own_values = Evidence(inverse, data, loss, forward, x, blind).own_values()
    if own_values is None:
        return x, None
    return own_values.update(x, data.y, blind, data.missing, forward), own_values


@dataclass(frozen=True)
class Evidence:
    """What there is to tell by what values add to a network's answer.

    Parameters
    ----------
    inverse
        The network, as trained on ``data``.
    loss
        That of its training.
    forward
        What measured it; None where nothing is blurred.
    answered, blind
        The network's answer, and values as predicted from others (`predict_blind`).
    """

    inverse: TrainedInverse
    data: Measurement
    loss: MaskedLoss
    forward: ForwardModel | None
    answered: Tensor
    blind: Tensor

    def own_values(self) -> OwnValues | None:
        """How values are to be asked; None if they say nothing, or that is not known."""
        data, blind = self.data, self.blind
        if not bool(torch.isfinite(blind).all()):
            return None  # the run has failed, which is told by its answer
        if self.loss.kind == "l1" and has_wild_values(data.y, blind, data.missing):
            return None
        limits = self._limits()
        sharp = self.forward is None
        sparse = self.loss.kind == "l2"  # else noise itself has values that stand out
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
        if self.forward is not None:
            return self._behind_operator(self.forward, noise, limits)
        found, predicted = self._of_pixels(noise, limits, sparse=sparse)
        if counted is not None and found.response is None and max(found.excess) < CLEAR_EXCESS:
            # The answer is better than blind predictions: only what no chance has made is to count.
            found = replace(found, excess=(0.0,) * len(noise), share=(0.0,) * len(noise))
        if not self._says_something(found, predicted):
            return None
        return found.with_tails(data.y, predicted, data.missing)

    def _limits(self) -> Limits:
        """Where noise is cut off."""
        data = self.data
        measured = data.y[~data.missing]
        low, high = cut_off(data.y.masked_fill(data.missing, torch.nan))
        return float(measured.min()) if low else None, float(measured.max()) if high else None

    def _says_something(self, found: OwnValues, predicted: Tensor) -> bool:
        data = self.data
        weights = found.weights(data.y, predicted, data.missing)[~data.missing]
        return float(weights.mean()) >= LEAST_WEIGHT or float(weights.max()) >= SURE_WEIGHT

    def _of_pixels(
        self, noise: tuple[NoiseLine, ...], limits: Limits, *, sparse: bool
    ) -> tuple[OwnValues, Tensor]:
        """What values say of an object that they show as it is; and of which prediction that is."""
        data = self.data
        predicted, response = self.blind, None
        gaps = has_many_gaps(data.missing)
        if not gaps and all(spectrum.levels_off() for spectrum in spectra(data.y, data.missing)):
            predicted, response = self.answered, self._response(variance_of(noise, self.blind))
        asked = (data.y, predicted, data.missing)
        found = OwnValues.of(*asked, noise, limits=limits, response=response, uneven=not gaps, sparse=sparse)
        return found, predicted

    def _behind_operator(
        self, forward: ForwardModel, noise: tuple[NoiseLine, ...], limits: Limits
    ) -> OwnValues | None:
        """What they say through an operator, if hidden ones confirm it, and so what the noise is."""
        data, blind = self.data, self.blind
        asked = (data.y, blind, data.missing)
        found = OwnValues.of(*asked, noise, limits=limits)
        seen, told = ~data.missing, []
        if float((data.y - blind)[seen].var()) <= FAILED * float(data.y[seen].var()):
            told = spectra_of_errors(*asked, forward, variance_of(noise, blind), found.excesses(*asked))
        if not told:
            noise = self._raised(noise)
            found = OwnValues.of(*asked, noise, limits=limits)
        if not self._says_something(found, blind):
            return None
        found = replace(found, darkest=min(0.0, float(self.answered.min())))
        candidates = [replace(found, power=power, errors=spectrum) for spectrum, power in told]
        if not told:
            power = forward.near(self.answered[:1]).power(data.y.shape[1])
            candidates = [replace(found, power=power)]
        return self.confirmed(candidates, forward, noise)

    def confirmed(
        self, candidates: Sequence[OwnValues], forward: ForwardModel, noise: Sequence[NoiseLine]
    ) -> OwnValues | None:
        """The first, unless hidden values are predicted better with another; None if not than without.

        Than with the first by a quarter of what is no noise: it lets through few errors of what it
        suppresses. Than without no worse, where no two values see the same. Stars, say, are few, and errors
        are theirs: of the values set apart hardly any would be of one. So a quarter of all is asked, and
        where that does not tell, the next.
        """
        data, loss = self.data, self.loss
        sets = iter([data.validated])
        if data.entrance.crude is None:
            count = 2 ** (data.y.ndim - 2)
            sets = (one_of_two(data.y, data.pads, i) & ~data.missing for i in range(count))
        scale = variance_of(noise, self.blind).sqrt()
        of_noise = 1.0 if loss.kind == "l2" else math.sqrt(2.0 / math.pi)
        better = torch.empty(0, dtype=torch.float64)
        for asked in sets:
            hidden = data.missing | data.validation | asked
            x = self.inverse(data.y, hidden, most=1)

            def costs(x: Tensor, asked: Tensor = asked) -> Tensor:
                return loss.each(((forward(x) - data.y) / scale)[asked]).double().cpu()

            tried = [
                (costs(candidate.update(x, data.y, self.blind, hidden, forward)), candidate)
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

    def _raised(self, noise: Sequence[NoiseLine]) -> tuple[NoiseLine, ...]:
        """Each channel's noise, as large beside the predictions' errors as it must be."""
        data, blind, lines = self.data, self.blind, []
        for c, line in enumerate(noise):
            seen = ~data.missing[:, c]
            squared = (data.y - blind)[:, c][seen].square().mean(dtype=torch.float64)
            expected = line.variance(blind[:, c][seen]).mean(dtype=torch.float64)
            lines.append(line.times(max(1.0, float(squared / expected) / MOST_ERROR)) if seen.any() else line)
        return tuple(lines)

    def _response(self, noise: Tensor) -> tuple[float, ...]:
        """By how much each channel's answer changes where a value does, by random changes of all.

        On the mean over values, each counted by its noise's variance, as in Stein's identity.
        """
        data = self.data
        signs = torch.randint(0, 2, data.y.shape, generator=generator_for(0)).to(data.y) * 2.0 - 1.0
        change = SMALL * noise.sqrt()
        before, after = (self.inverse(y, data.missing, most=1) for y in (data.y, data.y + change * signs))
        change = change.masked_fill(data.missing, 0.0)
        follows, all_of_it = (
            product.double().transpose(0, 1).flatten(1).sum(dim=1)
            for product in (signs * change * (after - before), change.square())
        )
        return tuple((follows / all_of_it).nan_to_num().clamp(0.0, MOST_RESPONSE).tolist())


def _is_sure(gain: Tensor) -> bool:
    """Whether it is one, of these on the mean."""
    return float(gain.mean()) > CONVINCING * float(gain.std(correction=0)) / math.sqrt(gain.numel())


@torch.no_grad()
def can_update(forward: ForwardModel, data: Measurement) -> bool:
    """Whether values behind this operator can be asked: each adds up light from a neighbourhood."""
    operator, channels = forward.operator, data.y.shape[1]
    if isinstance(operator, LinearOperator):
        if len(operator.out_shape) < len(operator.in_shape) or operator.object_channels or operator.together:
            return False  # values in no order that local means could be taken in
        if not data.frames_alike:
            return False  # they are updated one by one
        return forward.adds_up() and (is_on_grid(operator) or forward.is_local())
    if len(data.y) > 1:
        return False
    try:
        near = forward.near(data.y.new_full((1, channels, *data.object_shape), 0.5))  # the range's middle
        return near.has_its_adjoint(channels) and near.adds_up(channels)
    except RuntimeError:  # a function that can be differentiated only once
        return False
