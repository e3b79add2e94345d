"""How the power of an answer's error depends on the frequency, as an update needs it."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import torch
import torch.nn.functional as F
from scipy.fft import next_fast_len
from torch import Tensor

from selfinv.learning.forward_model import ForwardModel
from selfinv.operators import LinearOperator
from selfinv.solvers.modes import Modes, power_transfer
from selfinv.types import Floats

SIDE, UNCORRELATED = 256, 2e-3
FURTHEST = 64  # samples: or tiles would have to reach further than they are large


@dataclass(frozen=True)
class ErrorSpectrum:
    """The error's power, of each channel, in parts of its highest.

    Parameters
    ----------
    frequency
        Of rings, in cycles per sample, rising; between them logarithms are interpolated.
    log_power
        Of each channel, at these.
    measured
        The power of what is measured of it; None: as the operator, a filter, lets it through.
    """

    frequency: tuple[float, ...]
    log_power: tuple[tuple[float, ...], ...]
    measured: ErrorSpectrum | None = None

    @classmethod
    def of(
        cls, frequency: Floats, powers: Sequence[Floats], measured: ErrorSpectrum | None = None
    ) -> ErrorSpectrum:
        """Of powers of each channel in rings."""
        logs = (np.log(power.clip(1e-30)) for power in powers)
        return cls(tuple(frequency.tolist()), tuple(tuple(part.tolist()) for part in logs), measured)

    @cached_property
    def reach(self) -> int:
        """How far an error is correlated with others, in samples; as far as tiles may reach."""
        waves = Modes((SIDE, SIDE), True, torch.zeros((), dtype=torch.float64))
        kernel = waves.synthesise(self.share(waves.frequency).to(torch.complex128))[0, :, 0, : SIDE // 2]
        far = (kernel.abs() > UNCORRELATED * kernel[:, :1]).any(0).nonzero()
        return min(int(far.max()) + 1, FURTHEST)

    def share(self, frequency: Tensor) -> Tensor:
        """Of waves of these frequencies, ``*modes`` in cycles per sample: ``1 channel *modes``."""
        rings = torch.tensor(self.frequency, dtype=torch.float64).log().to(frequency)
        at = frequency.clamp(self.frequency[0], self.frequency[-1]).log()
        above = torch.searchsorted(rings, at.contiguous()).clamp(1, len(rings) - 1)
        weight = (at - rings[above - 1]) / (rings[above] - rings[above - 1])
        powers = torch.tensor(self.log_power, dtype=torch.float64).to(frequency)
        return torch.lerp(powers[:, above - 1], powers[:, above], weight).exp()[None]

    def likely_inverse(self, forward: ForwardModel, variance: Tensor) -> Callable[[Tensor], Tensor]:
        r"""The inverse of :math:`1 + A C A^\top`, for errors of the same variance at all places.

        Parameters
        ----------
        forward
            Of an operator that this was made for.
        variance
            Of errors in the object, were all waves as strong, in parts of the noise's, ``batch channel`` and
            ones.
        """
        operator = forward.operator
        assert isinstance(operator, LinearOperator)
        waves = Modes(operator.out_shape, True, variance)
        if self.measured is not None:
            seen = self.measured.share(waves.frequency)
        else:
            passed = power_transfer(operator, waves)
            assert passed is not None
            seen = forward.scale**2 * passed * self.share(waves.frequency)
        inverse = 1.0 / (1.0 + variance * seen)
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
        inside = [slice(n) for n in space]

        def filtered(z: Tensor) -> Tensor:
            shaped = waves.synthesise(waves.analyse(F.pad(z, beyond)) * factor)
            return shaped[(slice(None), slice(None), *inside)]

        return filtered
