"""How an image compares with the one that a model was trained on, and in which units it is most like it."""

from __future__ import annotations

import math
from dataclasses import dataclass

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
    """

    trained: Normalisation
    found: Normalisation
    noise: float
    times: float

    @classmethod
    def of(cls, y: Tensor, trained: Normalisation, noise: float) -> Likeness | None:
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
        return cls(trained, found, own, own / noise if noise else 0.0)

    @property
    def size(self) -> float:
        """Of the range, in parts of that of training."""
        return self.found.scale / self.trained.scale

    @property
    def scaled(self) -> bool:
        """Whether the noise is as many times that of training as the range: by exposure, gain or format."""
        if self.size == 0.0 or self.times == 0.0:
            return False
        other = abs(math.log(self.size)) > math.log(ALIKE)
        return other and abs(math.log(self.size / self.times)) < math.log(ALIKE)

    def place(self, *, level: bool) -> tuple[float, float]:
        """What is to be 0 and the range, in those of training, for the image to lie within that.

        Parameters
        ----------
        level
            Whether one may be taken off: not where an operator makes other constants of these.
        """
        size, low = self.size, (self.found.offset - self.trained.offset) / self.trained.scale
        if not self.scaled and low >= -SLACK and low + size <= 1.0 + SLACK:
            return 0.0, 1.0
        if level:
            span = size if self.scaled else max(1.0, size)
            return min(max(0.0, low + size - span), low), span
        nothing = -self.trained.offset / self.trained.scale
        span = size if self.scaled else max(1.0, (low + size - nothing) / (1.0 - nothing))
        return nothing * (1.0 - span), span

    def doubt(self) -> str:
        """What makes the image unlike the one of training, in words for a warning; "" if nothing does."""
        if self.scaled:
            return ""
        alike = 1.0 / OTHER_RANGE <= self.size <= OTHER_RANGE
        if not (alike and self.found.meets(self.trained, BRIGHTER)):
            units = self.trained.channels
            several = units is not None and len(units.scales) > 1
            spans = [f"{n.offset:.4g} to {n.offset + n.scale:.4g}" for n in (self.found, self.trained)]
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
