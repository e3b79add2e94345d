r"""Measured values set apart: nobody sees them, and how they are predicted is a method's score.

Noise in a hidden value cannot be predicted from the others, signal can; so up to a constant that is the same
for all, the score

.. math:: \frac1{|J|} \sum_{i \in J} \rho\bigl((A \hat x_{-J})_i - y_i\bigr)

is the true error of the predicted measurement (Kobayashi et al. 2020, arXiv:2006.06156, Eq. 5; Batson & Royer
2019, arXiv:1901.11365). It tunes any method and chooses between methods, for one image, without clean data
or a noise model. The hidden values are NaN in what a solver is given, so that it cannot see them.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import cached_property

import torch
from torch import Tensor

from selfinv.blind_spot import widen
from selfinv.learning.losses import MaskedLoss, choose_loss
from selfinv.learning.masks import drawn_shape
from selfinv.learning.measurement import FEWEST, sets_in
from selfinv.learning.random import generator_for
from selfinv.types import InputError

ENOUGH = 5000  # hidden values at which the score tells settings apart that differ by some hundredths of a dB
MOST = 0.1  # of the values
MAX_FOLDS = 5  # sets of hidden values, on small images
FEW_SETS = 100  # of values that are set apart together
MOST_OF_FEW = 0.125  # of these


@dataclass(frozen=True)
class HeldOut:
    """Measured values set apart to score predictions with.

    Parameters
    ----------
    y
        The measurement, ``batch channel *space``, NaN where missing.
    hidden
        True where a value is set apart; the same shape.
    loss
        What a deviation costs.
    blind_spot
        How far around each of these values nothing is shown either, along each spatial axis: where noise is
        correlated, neighbours tell of it (`selfinv.independence`).
    together
        Axes along which values are set apart together (`LinearOperator.together`).
    """

    y: Tensor
    hidden: Tensor
    loss: MaskedLoss
    blind_spot: tuple[int, ...] = ()
    together: tuple[int, ...] = ()

    @property
    def shown(self) -> Tensor:
        """What a solver may see: NaN in place of the hidden values."""
        concealed = widen(self.hidden, self.blind_spot) if any(self.blind_spot) else self.hidden
        return self.y.masked_fill(concealed, torch.nan)

    @cached_property
    def sets(self) -> Tensor:
        """Which of the sets hidden together every hidden value belongs to, 1-D; empty: each is by itself."""
        drawn = drawn_shape(self.y.shape, joint_channels=False, together=self.together)
        number = torch.arange(math.prod(drawn), device=self.y.device).reshape(drawn)
        return self.at_hidden(number.expand(self.y.shape)) if self.together else number[:0].flatten()

    def costs_of_a_constant(self) -> Tensor:
        """The cost of every hidden value where the median of what is shown is predicted everywhere, 1-D."""
        shown = self.shown
        typical = shown[torch.isfinite(shown)].median()
        return self.costs(typical.expand_as(self.y))

    def score_of_a_constant(self) -> float:
        """The mean of `costs_of_a_constant`."""
        return float(self.costs_of_a_constant().mean(dtype=torch.float64))

    def errors(self, predicted: Tensor) -> Tensor:
        """The error of every hidden value, 1-D."""
        return self.at_hidden(predicted - self.y)

    def at_hidden(self, values: Tensor) -> Tensor:
        """Those of ``values`` that belong to hidden ones, 1-D."""
        return values[self.hidden & torch.isfinite(self.y)]

    def costs(self, predicted: Tensor) -> Tensor:
        """The cost of every hidden value, 1-D, in the loss's units."""
        return self.loss.each(self.errors(predicted))


def hold_out(
    y: Tensor,
    *,
    fraction: float | None = None,
    most: float = MOST,
    loss: MaskedLoss | None = None,
    blind_spot: tuple[int, ...] = (),
    together: tuple[int, ...] = (),
    always: Tensor | None = None,
    seed: int = 0,
    fold: int = 0,
) -> HeldOut:
    """Set a random set of measured values apart.

    Parameters
    ----------
    fraction
        Of the values; None takes 2 %, more of a small image so that there are some 5000, at most ``most``.
    loss
        None chooses by the data (`choose_loss`).
    blind_spot
        See `HeldOut`; so many fewer values are then set apart.
    together
        Axes along which values are set apart together (`LinearOperator.together`).
    always
        Values that are never set apart (`LinearOperator.always_shown`), broadcast to ``y``: nothing predicts
        the lowest frequencies, and how far they are missed would outweigh all else. None: there are none.
    fold
        Which one of the sets that this seed gives; no value is in two of them, as long as there are enough.
    """
    candidates = _candidates(y, always)
    measured = int(candidates.sum())
    share = _share(measured, fraction, blind_spot, most)
    drawn = drawn_shape(y.shape, joint_channels=False, together=together)
    sets = sets_in(candidates, drawn)
    there = int(sets.sum())
    share = max(share, min(MOST_OF_FEW, FEWEST / there))
    place = (torch.rand(drawn, generator=generator_for(seed)) / share).to(y.device)
    chosen = sets & (place >= fold) & (place < fold + 1)
    if 2 <= there < FEW_SETS:  # by chance a fold might have none
        each = max(1, round(share * there))
        rank = torch.where(sets, place, torch.inf).flatten().argsort().argsort().reshape(sets.shape)
        chosen = sets & (rank // each == fold % (there // each))
    hidden = chosen.expand(y.shape) & candidates
    if there < 2 or not hidden.any():
        hidden = torch.zeros_like(hidden)
        hidden.view(-1)[int(candidates.view(-1).nonzero()[(measured // 2 + fold) % measured])] = True
    return HeldOut(y, hidden, loss or choose_loss(y), tuple(blind_spot), tuple(together))


def count_folds(
    y: Tensor,
    fraction: float | None = None,
    blind_spot: tuple[int, ...] = (),
    most: float = MOST,
    always: Tensor | None = None,
) -> int:
    """How many disjoint sets of hidden values it takes to have enough of them, at most `MAX_FOLDS`."""
    measured = int(_candidates(y, always).sum())
    share = _share(measured, fraction, blind_spot, most)
    return max(1, min(MAX_FOLDS, int(1 / share), round(ENOUGH / (share * measured))))


def _candidates(y: Tensor, always: Tensor | None) -> Tensor:
    """What may be set apart: measured values that are not always shown, unless those are nearly all."""
    measured = torch.isfinite(y)
    if always is not None and int((measured & ~always).sum()) >= 2:
        return measured & ~always
    return measured


def _share(measured: int, fraction: float | None, blind_spot: tuple[int, ...], most: float) -> float:
    if measured < 2:
        raise InputError("there are fewer than 2 measured values; nothing can be set apart to score with")
    share = min(most, max(0.02, ENOUGH / measured)) if fraction is None else fraction
    if not 0.0 < share < 1.0:
        raise InputError(f"the held-out fraction must lie in (0, 1), got {fraction}")
    return share / math.prod(2 * b + 1 for b in blind_spot)
