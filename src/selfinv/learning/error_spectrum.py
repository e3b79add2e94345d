r"""How the power of an answer's error falls towards high frequencies.

Behind a blur, measured values show how large the errors are that the blur passes, and an update by them
supposes what those are like that it suppresses. White errors would be as large there; but an answer cannot be
more wrong than the object has power :math:`S_x`. Taken together, of white errors of the power :math:`v` those
at the frequency :math:`f` have

.. math:: \frac{1}{1 / v + 1 / S_x(f)} = \frac{v}{1 + v / S_x(f)}, \qquad S_x(f) = c\,f^{-\gamma}.

The object's spectrum is the one that makes the measurement's the likeliest (`selfinv.solvers.wiener`). A
smooth object then gets no noise for detail; one with edges gets its finest detail back where there is little
noise.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from scipy.fft import next_fast_len
from torch import Tensor

from selfinv.learning.forward_model import ForwardModel
from selfinv.learning.normalisation import of_channels
from selfinv.operators import LinearOperator
from selfinv.solvers.modes import Modes, power_transfer, wraps
from selfinv.solvers.wiener import fill_holes, likeliest_spectrum

FINEST = 8.0  # samples: waves that are shorter only have less of the power, or tiles would need to reach far
REACH = 1.8  # times the wave that has half of it: correlation falls to a thousandth or so


@dataclass(frozen=True)
class ErrorSpectrum:
    r"""The share :math:`1 / (1 + b f^\gamma)` of a white error's power, of each channel.

    Parameters
    ----------
    ratio
        :math:`b`, the white error's power over the object's at one cycle per sample.
    exponent
        :math:`\gamma`, of the object's spectrum.
    """

    ratio: tuple[float, ...]
    exponent: tuple[float, ...]

    @classmethod
    @torch.no_grad()
    def of(
        cls, y: Tensor, missing: Tensor, forward: ForwardModel, excess: tuple[float, ...]
    ) -> ErrorSpectrum | None:
        """From a measurement, ``batch channel *space``; None if the operator does not treat all places alike.

        Parameters
        ----------
        excess
            Of each channel, the mean squared error of what is predicted, in parts of the noise's variance.
        """
        operator = forward.operator
        if not isinstance(operator, LinearOperator):
            return None
        fullest = int((~missing).flatten(1).sum(1).argmax())
        seen = (~missing[fullest : fullest + 1]).to(y)
        share = seen.flatten(2).mean(-1)
        modes = Modes(operator.in_shape, wraps(operator), y)
        if power_transfer(operator, modes) is None or not bool((share > 0.0).all()):
            return None
        values = y[fullest : fullest + 1] * seen
        mean = values.flatten(2).sum(-1) / seen.flatten(2).sum(-1)
        values = fill_holes((values - of_channels(mean[0].tolist(), y)) * seen, seen)
        exponent, ratio = likeliest_spectrum(operator, modes, values, share)
        power = [p / forward.scale**2 for p in forward.power(y.shape[1])]  # of the operator itself
        white = [e / max(p, 1e-30) for e, p in zip(excess, power, strict=True)]
        exponents = exponent[0].tolist()
        ratios = [r * w for r, w in zip(ratio[0].tolist(), white, strict=True)]
        return cls(tuple(min(r, FINEST**e) for r, e in zip(ratios, exponents, strict=True)), tuple(exponents))

    @property
    def reach(self) -> int:
        """How far an error is correlated with others, in samples."""
        lengths = [max(r, 1e-30) ** (1.0 / e) for r, e in zip(self.ratio, self.exponent, strict=True)]
        return math.ceil(REACH * max(2.0, *lengths))

    def share(self, frequency: Tensor) -> Tensor:
        """Of waves of these frequencies, ``*modes`` in cycles per sample: ``1 channel *modes``."""
        like = frequency[None, None]
        return 1.0 / (1.0 + of_channels(self.ratio, like) * like ** of_channels(self.exponent, like))

    def likely_inverse(self, forward: ForwardModel, variance: Tensor) -> Callable[[Tensor], Tensor]:
        r"""The inverse of :math:`1 + A C A^\top`, for errors of the same variance at all places.

        Parameters
        ----------
        forward
            Of an operator that this was made for.
        variance
            Of white errors in the object, in parts of the noise's, ``batch channel`` and ones.
        """
        operator = forward.operator
        assert isinstance(operator, LinearOperator)
        waves = Modes(operator.out_shape, True, variance)
        passed = power_transfer(operator, waves)
        assert passed is not None
        inverse = 1.0 / (1.0 + variance * forward.scale**2 * passed * self.share(waves.frequency))
        return lambda z: waves.synthesise(waves.analyse(z) * inverse)

    def root(self, z: Tensor) -> Tensor:
        """White noise, ``batch channel *space``, as such errors."""
        return self._filter(z, 0.5)(z)

    def covariance(self, like: Tensor) -> Callable[[Tensor], Tensor]:
        """Of errors of the variance 1, as a function of objects of this shape, ``batch channel *space``.

        An object is taken to be zero beyond its edge: symmetric, as a covariance must be.
        """
        return self._filter(like, 1.0)

    def _filter(self, like: Tensor, power: float) -> Callable[[Tensor], Tensor]:
        """Each wave times its share to this power."""
        space = like.shape[2:]
        sizes = [next_fast_len(n + self.reach, real=True) for n in space]
        waves = Modes(tuple(sizes), True, like)
        factor = self.share(waves.frequency) ** power
        beyond = [pad for size, n in zip(sizes[::-1], space[::-1], strict=True) for pad in (0, size - n)]

        def filtered(z: Tensor) -> Tensor:
            shaped = waves.synthesise(waves.analyse(F.pad(z, beyond)) * factor)
            inside = [slice(n) for n in space]
            return shaped[(slice(None), slice(None), *inside)]

        return filtered
