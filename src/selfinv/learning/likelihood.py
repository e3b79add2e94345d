r"""The noise's distribution, learned from the values that the network does not see.

One family holds what instruments do to a value of mean :math:`\mu`: with a probability :math:`1 - p` it gets
read noise :math:`s` and photon noise :math:`a`, else it is wild, and then it is cut off at the limits
:math:`l, h` (if they are limits):

.. math::
    y = \min(\max(\mu + e,\ l),\ h), \qquad
    e \sim (1 - p)\, \mathcal N\bigl(0,\ s^2 + a\,\mu_+\bigr) + p\, \mathrm{Laplace}(b)

:math:`s, a, p` and :math:`b` are what makes the data likeliest, of each channel its own. Without wild values
this is least squares with the right weights, with many it tends to least absolute deviations. A value at a
limit says that the mean lies there or beyond, no more (the Tobit model, Tobin 1958, doi:10.2307/1907382), so
that dark regions stay unbiased. No value loses all influence, however wild: what the network has not
explained yet must not be given up.

Foi et al. 2008, doi:10.1109/TIP.2008.2001399 (Poisson-Gaussian noise, cut off).
"""

from __future__ import annotations

import math
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from selfinv.learning.losses import cut_off
from selfinv.noise import noise_level


class NoiseLikelihood(nn.Module):
    """Negative log-likelihood of measured values, with noise parameters to be learned along with the network.

    Parameters
    ----------
    y
        The measurement, ``batch channel *space``, normalised to about [0, 1]: photons count from 0 on.
    missing
        Where there is no value.
    """

    def __init__(self, y: Tensor, missing: Tensor) -> None:
        super().__init__()
        seen = y[~missing]
        self.low, self.high = (float(limit) for limit in seen.aminmax())
        shown = y.masked_fill(missing, torch.nan).detach().cpu()
        self.cut_low, self.cut_high = cut_off(shown)
        spread = max(float(seen.std()), 1e-6)
        levels = [max(noise_level(channel), 1e-3 * spread) for channel in shown.unbind(1)]
        level = torch.tensor(levels, dtype=torch.float32).reshape(-1, *(1,) * (y.ndim - 2))
        self.least: Tensor
        self.register_buffer("least", (0.1 * level).log())
        self.log_deviation = nn.Parameter(level.log())
        self.log_gain = nn.Parameter((0.1 * level.square()).log())
        self.log_width = nn.Parameter((2.0 * level).clamp_min(spread).log())
        self.wildness = nn.Parameter(torch.full_like(level, math.log(0.01)))

    def deviation(self, mean: Tensor, channels: Tensor | None = None) -> Tensor:
        r""":math:`\sigma(\mu)`; no gradient to the mean: it changes weights, not what is aimed at.

        Of ``batch channel *space``, or of single values from these ``channels``.
        """
        floor = (2.0 * self._of(torch.maximum(self.log_deviation, self.least), channels)).exp()
        return (floor + self._of(self.log_gain, channels).exp() * mean.detach().clamp_min(0.0)).sqrt()

    def _of(self, parameter: Tensor, channels: Tensor | None) -> Tensor:
        if channels is None:
            return parameter
        each = parameter.flatten()
        return each if len(each) == 1 else each.index_select(0, channels)

    def forward(self, mean: Tensor, y: Tensor, scored: Tensor) -> Tensor:
        """Mean over the ``scored`` values, times the typical deviation: on the scale of a residual."""
        among = scored if mean.is_cuda else None  # a GPU would have to wait to be told how many they are
        channels = None
        if among is None:
            places = scored.flatten().nonzero().squeeze(1)
            if not places.numel():
                return 0.0 * mean.sum()
            channels = places // math.prod(y.shape[2:]) % self.log_width.numel()
            mean, y = mean.flatten().index_select(0, places), y.flatten().index_select(0, places)
        deviation, width = self.deviation(mean, channels), self._of(self.log_width, channels).exp()
        wildness = self._of(self.wildness, channels)
        error = y - mean
        t, w = error / deviation, error.abs() / width
        tame, wild = F.logsigmoid(-wildness), F.logsigmoid(wildness)
        log = torch.logaddexp(
            tame - 0.5 * t.square() - deviation.log() - 0.5 * math.log(2.0 * math.pi),
            wild - w - width.log() - math.log(2.0),
        )
        for cut, limit, side in ((self.cut_low, self.low, 1.0), (self.cut_high, self.high, -1.0)):
            if cut:
                beyond = torch.logaddexp(
                    tame + torch.special.log_ndtr(side * t), wild + _log_laplace(side * error / width)
                )
                log = torch.where(side * y <= side * limit, beyond, log)
        return -_mean(log, among) * _mean(deviation.detach(), among)

    @torch.no_grad()
    def sample(self, mean: Tensor, generator: torch.Generator) -> Tensor:
        """A measurement of this mean with noise of this kind; the generator is on its device."""
        place: Any = {"generator": generator, "device": mean.device}
        normal = torch.randn(mean.shape, **place).to(mean) * self.deviation(mean)
        uniform = torch.rand(mean.shape, **place).clamp_min(1e-6)
        sign = torch.where(torch.rand(mean.shape, **place) < 0.5, -1.0, 1.0)
        wild = torch.rand(mean.shape, **place) < torch.sigmoid(self.wildness)
        y = mean + torch.where(wild, self.log_width.exp() * (-sign * uniform.log()).to(mean), normal)
        y = y.clamp_min(self.low) if self.cut_low else y
        return y.clamp_max(self.high) if self.cut_high else y


def _mean(values: Tensor, among: Tensor | None) -> Tensor:
    if among is None:
        return values.mean()
    return torch.where(among, values, 0.0).sum() / among.sum().clamp_min(1)


def _log_laplace(t: Tensor) -> Tensor:
    r""":math:`\log P(T \le t)` of a Laplace distribution."""
    return torch.where(
        t < 0, t.clamp_max(0.0) - math.log(2.0), torch.log1p(-0.5 * torch.exp(-t.clamp_min(0.0)))
    )
