"""From the caller's units to the network's and back."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from scipy import ndimage
from torch import Tensor

from selfinv.functionals import noise_scale, span
from selfinv.types import HELD, InputError, check_contrast

UNITS = (1e-12, 1e12)  # between which squares are safe in single precision
LEVEL = 1e4  # of the range: so large a level leaves single precision three digits of what stands on it
FAINT = 0.01  # of a channel's range: second differences of less are of no noise that matters
ALIKE = 2.0  # the largest range, or difference of levels, over the smallest range of channels left alone


@dataclass(frozen=True)
class ChannelUnits:
    """The affine map ``(y - offsets) / scales`` of each channel, of ``batch channel *space``.

    Parameters
    ----------
    offsets, scales
        In the caller's intensity units.
    """

    offsets: tuple[float, ...]
    scales: tuple[float, ...]

    @classmethod
    def of(cls, y: Tensor, *, levels: bool = True) -> ChannelUnits | None:
        """What brings channels of very different ranges or levels to the same; None where they are alike.

        To a loss, a score and a network a channel ten times darker than another would be next to nothing,
        and so would all beside one that is the same all over, and bright (an opaque alpha channel).
        Also where single precision could not take the values, or tell them apart beside their level.

        Parameters
        ----------
        levels
            Whether their levels may be taken off: not where an operator makes other constants of these.
        """
        seen = y[torch.isfinite(y)]
        low, high = (float(v) for v in seen.aminmax()) if seen.numel() else (0.0, 1.0)
        largest = max(abs(low), abs(high))
        extreme = not UNITS[0] < largest < UNITS[1] and HELD[0] < largest < HELD[1]
        if y.shape[1] < 2 and not extreme and not (levels and largest > LEVEL * (high - low)):
            return None
        found = [_units_of(channel) for channel in y.split(1, dim=1)]
        known = [n for n in found if n is not None]
        varied = [n for n in known if n.scale]
        if not varied:
            return None
        ranges = [n.scale for n in varied]
        # A constant's own level comes to 0, or where levels stay, to no more than the others' values.
        most = 1.0 + max(abs(n.offset) / n.scale for n in varied)
        each = [n or Normalisation(0.0, 0.0) for n in found]
        scales = [n.scale or max(*ranges, 0.0 if levels else abs(n.offset) / most) for n in each]
        if levels:
            offsets = [n.offset for n in known]
            extreme |= max(offsets) - min(offsets) > ALIKE * min(ranges)
            extreme |= any(abs(n.offset) > LEVEL * s for n, s in zip(each, scales, strict=True))
        if not extreme and max(scales) <= ALIKE * min(ranges):
            return None
        return cls(tuple(n.offset if levels else 0.0 for n in each), tuple(scales))

    @property
    def weight_unit(self) -> float | None:
        """What a weight of 1 is in the caller's units; None where channels differ: there is no such one."""
        return self.scales[0] if len(set(self.scales)) == 1 else None

    def apply(self, y: Tensor) -> Tensor:
        """To common units."""
        return (y - of_channels(self.offsets, y)) / of_channels(self.scales, y)

    def undo(self, x: Tensor) -> Tensor:
        """Back to each channel's own."""
        return x * of_channels(self.scales, x) + of_channels(self.offsets, x)


@dataclass(frozen=True)
class NoiseUnits(ChannelUnits):
    """Those in which noise is as large in every channel, so that one weight of total variation suits all.

    The weight is then told, and given, for the noisiest channel; that of another is in proportion to noise.
    """

    @classmethod
    def by_noise(cls, y: Tensor) -> NoiseUnits | None:
        """None where noise is about as large in all channels. No levels are taken off."""
        channels = y.split(1, dim=1)
        spans = [span(channel) for channel in channels]
        noise = [noise_scale(channel) if s else 0.0 for channel, s in zip(channels, spans, strict=True)]
        most = max((n / s for n, s in zip(noise, spans, strict=True) if s), default=0.0)
        # A mask or a drawing without noise, in units of next to none, would count for all of the score.
        known = [_typical_bend(channel) > FAINT * s for channel, s in zip(channels, spans, strict=True)]
        scales = [n if k else most * s for n, s, k in zip(noise, spans, known, strict=True)]
        varied = [scale for scale in scales if scale]
        if not varied or max(varied) <= ALIKE * min(varied):
            return None
        return cls((0.0,) * len(scales), tuple(scale or max(varied) for scale in scales))

    @property
    def weight_unit(self) -> float:
        return max(self.scales)


def _typical_bend(channel: Tensor) -> float:
    """The median of second differences along the last axis, which noise has everywhere and edges few."""
    bend = channel.diff(n=2, dim=-1).abs()
    return float(bend[torch.isfinite(bend)].median()) if bool(torch.isfinite(bend).any()) else 0.0


def varies(channel: Tensor) -> bool:
    """Whether there are values that differ."""
    return span(channel) > 0.0


def _units_of(channel: Tensor) -> Normalisation | None:
    """Those of one channel; of a constant its level and 0, of no values None."""
    seen = channel[torch.isfinite(channel)]
    if not seen.numel():
        return None
    return Normalisation.of(channel) if varies(channel) else Normalisation(float(seen[0]), 0.0)


def in_single_precision(y: Tensor) -> Tensor:
    """A measurement in the precision that convolutions run in (a network normalises first).

    Raises
    ------
    InputError
        If squares of its values would leave that precision.
    """
    largest = float(torch.where(torch.isfinite(y), y.abs(), 0.0).max())
    if not 1e-15 < largest < 1e15:
        raise InputError(
            f"the image's largest value is {largest:.3g}; use a unit in which it lies between 1e-15 and 1e15"
        )
    return y.float()


def of_channels(numbers: Sequence[float], y: Tensor) -> Tensor:
    """One number for each channel of ``batch channel *space``, to be combined with it."""
    return torch.tensor(numbers, dtype=y.dtype, device=y.device).reshape(1, -1, *(1,) * (y.ndim - 2))


@dataclass(frozen=True)
class Normalisation:
    """The affine map ``(y - offset) / scale``.

    Parameters
    ----------
    offset, scale
        In the caller's intensity units, or the common ones of ``channels``.
    channels
        Of channels that are brought to common units first.
    """

    offset: float
    scale: float
    channels: ChannelUnits | None = None

    @classmethod
    def from_dict(cls, settings: dict[str, Any]) -> Normalisation:
        """Undo `dataclasses.asdict`, also after a passage through JSON."""
        channels = settings.get("channels")
        units = ChannelUnits(*(tuple(channels[k]) for k in ("offsets", "scales"))) if channels else None
        return cls(**{**settings, "channels": units})

    @classmethod
    def of(cls, y: Tensor) -> Normalisation:
        """The map that takes the range of ``y`` without its outliers to [0, 1].

        The range is that of the median of every 3-sample neighbourhood: a hot pixel stands alone, what an
        instrument has blurred does not.

        Raises
        ------
        InputError
            If the image is constant.
        """
        array = y.detach().cpu().numpy().astype(np.float64)
        finite = np.isfinite(array)
        if not finite.all():
            array = np.where(finite, array, np.median(array[finite]))
        check_contrast(array)
        low, high = float(array.min()), float(array.max())
        smooth = ndimage.median_filter(array, size=(1, 1, *(3,) * (array.ndim - 2)))
        if smooth.max() > smooth.min():
            low, high = float(smooth.min()), float(smooth.max())
        return cls(low, high - low)

    def meets(self, other: Normalisation, brighter: float) -> bool:
        """Whether the range, made so many times brighter or darker at most, has values of another."""
        low, high = self.offset, self.offset + self.scale
        reach = min(low / brighter, low * brighter), max(high / brighter, high * brighter)
        return reach[0] <= other.offset + other.scale and other.offset <= reach[1]

    def within(self, level: float, span: float) -> Normalisation:
        """The map that takes to 0 and 1 what this takes to ``level`` and ``level + span``."""
        return replace(self, offset=self.offset + level * self.scale, scale=span * self.scale)

    def divided_by(self, gain: float) -> Normalisation:
        """The map for an object that an operator of this gain turns into such a measurement."""
        return replace(self, offset=self.offset / gain, scale=self.scale / gain)

    def apply(self, y: Tensor) -> Tensor:
        """To the network's units."""
        return ((y if self.channels is None else self.channels.apply(y)) - self.offset) / self.scale

    def undo(self, x: Tensor) -> Tensor:
        """Back to the caller's units."""
        x = x * self.scale + self.offset
        return x if self.channels is None else self.channels.undo(x)
