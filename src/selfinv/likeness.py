"""How an image compares with the one that a model was trained on, and in which units it is most like it."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from selfinv.doubts import white_noise
from selfinv.learning.normalisation import Normalisation
from selfinv.types import InputError

SLACK = 0.07  # of the range: a network is right so far beyond that of its training
ALIKE = 1.1  # times, or a part of it: range and noise of an image that is only scaled differ by so much
OTHER_RANGE = 4.0  # times that of training, or a part of it, at which an image is called unlike it
BRIGHTER = 2.0  # times, or a part of it, that the next frame may be
OTHER_NOISE = 1.6  # times that of training, or a part of it: more than twice the photons make


@dataclass(frozen=True)
class Likeness:
    """The range and the noise of an image beside those of training.

    Parameters
    ----------
    trained, found
        The range of the one and of the other, in the units that channels have in common.
    noise
        The deviation of the image's noise, in its own units; 0 if it is not known.
    times
        So many times that of training; 0 if one of them is not known.
    part
        Whether it is only a part of an image, of which others may be brighter.
    """

    trained: Normalisation
    found: Normalisation
    noise: float
    times: float
    part: bool = False

    @classmethod
    def of(cls, y: Tensor, trained: Normalisation, noise: float, *, part: bool = False) -> Likeness | None:
        """Of an image ``batch channel *space``, NaN where missing; None where there is no value.

        ``noise``: that of training, in the image's units; 0 if it is not known.
        """
        if not bool(torch.isfinite(y).any()):
            return None
        alike = y if trained.channels is None else trained.channels.apply(y)
        try:
            found = Normalisation.of(alike)
        except InputError:  # of one value only
            found = Normalisation(float(alike.nanmean()), 0.0)
        own = white_noise(y)
        return cls(trained, found, own, own / noise if noise else 0.0, part)

    @property
    def size(self) -> float:
        """Of the range, in parts of that of training."""
        return self.found.scale / self.trained.scale

    @property
    def scaled(self) -> bool:
        """Whether the noise is as many times that of training as the range: by exposure, gain or format."""
        if self.size == 0.0 or self.times == 0.0 or (self.part and self.size < 1.0):
            return False
        other = abs(math.log(self.size)) > math.log(ALIKE)
        return other and abs(math.log(self.size / self.times)) < math.log(ALIKE)

    def place(self, *, level: bool) -> Normalisation:
        """The range to be taken for that of training, so that the image lies within.

        Parameters
        ----------
        level
            Whether one may be taken off: not where an operator makes other constants of these.
        """
        trained, found = self.trained, self.found
        if self.scaled:
            offset = found.offset if level else trained.offset * self.size
            return replace(trained, offset=offset, scale=found.scale)
        low = (found.offset - trained.offset) / trained.scale
        high = low + self.size
        if low >= -SLACK and high <= 1.0 + SLACK:
            return trained
        if level:
            span = max(1.0, self.size)
            return trained.within(min(max(0.0, high - span), low), span)
        nothing = -trained.offset / trained.scale
        sides = [(high - nothing, 1.0 - nothing), (nothing - low, nothing)]  # above it and below, in training
        span = max(1.0, *(reach / room for reach, room in sides if room > SLACK))
        return trained.within(nothing * (1.0 - span), span)

    def doubt(self) -> str:
        """What makes the image unlike the one of training, in words for a warning; "" if nothing does."""
        if self.scaled:
            return ""
        alike = 1.0 / OTHER_RANGE <= self.size <= OTHER_RANGE
        if not (alike and self.found.meets(self.trained, BRIGHTER)):
            units = self.trained.channels
            several = units is not None and len(units.scales) > 1
            ends = [torch.tensor([n.offset, n.offset + n.scale]).double() for n in (self.found, self.trained)]
            if units is not None and not several:
                ends = [units.undo(pair[None, None])[0, 0] for pair in ends]
            spans = [f"{float(first):.4g} to {float(last):.4g}" for first, last in ends]
            return (
                f"this image's values span about {spans[0]}, which is far from the {spans[1]} of the one "
                f"that the model was trained on"
                f"{', in units that channels have in common' if several else ''}; give it in the same "
                f"units, or train a model on one like it"
            )
        if self.times and not 1.0 / OTHER_NOISE <= self.times <= OTHER_NOISE:
            return (
                f"the noise of this image, about {self.noise:.3g}, is {self.times:.2g} times that of the one "
                f"that the model was trained on; train a model on an image like this"
            )
        return ""
