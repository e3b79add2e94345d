"""What a prediction of hidden values costs, and what weights cost."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal

import numpy as np
import torch
from scipy import ndimage
from scipy.stats import norm
from torch import Tensor, nn

from selfinv.learning.noise_line import long_axes
from selfinv.learning.photons import as_counts, mostly_none
from selfinv.noise import noise_level
from selfinv.types import Array, InputError

OUTLIERS = 5e-4  # of the values: fewer are left to least squares
ALONE = 0.1  # of how far a value stands out, its neighbours: a Gaussian of 0.47 pixels has that
BEYOND_NOISE = 4.0  # deviations, of an outlier
CUT, BY_CHANCE = 5e-3, 0.5  # of the values, at a limit beside others; of these, with others on both sides
MOST_DARK = 0.5  # of the values that are no photon, with none around them
FEWEST = 200  # values of which a deviation is taken


@dataclass(frozen=True)
class MaskedLoss:
    r"""Mean cost over the scored values only, :math:`\frac{1}{|J|}\sum_{i\in J}\rho(\hat y_i - y_i)`.

    Dividing by the number of scored values keeps the loss on one scale whatever the mask's density.

    Parameters
    ----------
    kind
        ``"l2"`` (:math:`\rho(r)=r^2`, aims at the mean), ``"l1"`` (:math:`|r|`, aims at the median: unmoved
        by clipping and outliers) or ``"huber"`` (quadratic below ``delta``, linear above; Huber 1964,
        doi:10.1214/aoms/1177703732).
    delta
        Huber's threshold, in the units of the data it is given.
    """

    kind: Literal["l2", "l1", "huber"] = "l2"
    delta: float = 0.1

    def __post_init__(self) -> None:
        if self.kind not in ("l2", "l1", "huber"):
            raise InputError(f"loss {self.kind!r} is unknown; use 'l2', 'l1' or 'huber'")
        if self.kind == "huber" and not self.delta > 0:
            raise InputError(f"Huber's delta must be positive, got {self.delta}")

    def each(self, residual: Tensor) -> Tensor:
        """The cost of every residual by itself."""
        if self.kind == "l2":
            return residual.square()
        if self.kind == "l1":
            return residual.abs()
        size = residual.abs()
        return torch.where(size < self.delta, 0.5 * residual.square() / self.delta, size - 0.5 * self.delta)

    def __call__(self, prediction: Tensor, target: Tensor, scored: Tensor) -> Tensor:
        """The mean cost over the values where the boolean ``scored`` is True (all tensors of one shape)."""
        # `where` before the cost, so that an unscored value (it may be NaN) has neither value nor gradient.
        residual = torch.where(scored, prediction - target, torch.zeros((), device=target.device))
        return self.each(residual).sum() / scored.sum().clamp_min(1)


def weight_penalty(model: nn.Module, l1: float, l2: float) -> Tensor:
    """L1 and L2 regularisation of the weights of every convolution (biases and norms are left free)."""
    weights = [p for p in model.parameters() if p.ndim > 1]
    penalty = weights[0].new_zeros(())
    for weight in weights:
        if l1:
            penalty = penalty + l1 * weight.abs().sum()
        if l2:
            penalty = penalty + l2 * weight.square().sum()
    return penalty


def kernel_roughness(model: nn.Module) -> Tensor:
    """Mean squared difference between neighbouring taps of the last spatial kernels of a network.

    Added to the loss it favours smooth kernels where the output is made: less checkerboard, less sharpness.
    """
    kernels = [p for p in model.parameters() if p.ndim > 2 and max(p.shape[2:]) > 1]
    if not kernels:
        raise InputError("kernel continuity needs a network with a convolution wider than one sample")
    last = kernels[-1]
    roughness = [last.diff(dim=axis).square().mean() for axis in range(2, last.ndim) if last.shape[axis] > 1]
    return torch.stack(roughness).sum()


def choose_loss(y: Tensor) -> MaskedLoss:
    """L1 where the noise is cut off or has outliers, L2 where it is not, and for photon counts.

    The mean is what unbroken noise leaves in place, and every value counts for it. The median survives
    clipping and outliers; but where noise moves a value by a step or two only (photon counts), the median of
    what was measured is itself quantised. ``y`` is ``batch channel *space`` in any units; NaN marks missing
    values.
    """
    sample = _sample(y)
    levels = np.unique(sample[np.isfinite(sample)])
    if levels.size < 3:
        return MaskedLoss("l1")
    counts = np.array([_moves_by_steps(channel) for channel in sample.swapaxes(0, 1)])
    if counts.all():
        return MaskedLoss("l2")
    others = sample[:, ~counts]
    return MaskedLoss("l1" if any(_cut_off(others, noise_level(others))) or has_outliers(y) else "l2")


def _moves_by_steps(channel: Array) -> bool:
    """Whether noise moves values by a step or two only, as it does counts; each channel's are its own."""
    steps = np.diff(np.unique(channel[np.isfinite(channel)]))
    return not steps.size or noise_level(channel) < 4 * float(np.median(steps))


def cut_off(y: Tensor) -> tuple[bool, bool]:
    """Whether the noise is cut off at the lowest, and at the highest value (as `choose_loss` takes ``y``).

    Where it is, values at the limit have neighbours well away from it, on both sides as often as chance has
    it. True darkness, and what is evenly bright, does not: there such neighbours are an edge, on one side.
    """
    sample = _sample(y)
    return _cut_off(sample, noise_level(sample)) if np.isfinite(sample).any() else (False, False)


def _cut_off(sample: Array, noise: float) -> tuple[bool, bool]:
    values = sample[np.isfinite(sample)]
    here, beside = sample[..., :-1], sample[..., 1:]
    apart = np.abs(here - beside) > 0.5 * noise
    limits = values.min(), values.max()
    pairs = max(1, int(np.count_nonzero(np.isfinite(here) & np.isfinite(beside))))
    shares = [int(np.count_nonzero((here == limit) & apart)) / pairs for limit in limits]
    low, high = (
        share > CUT and _alone(sample, limit) > BY_CHANCE * share
        for share, limit in zip(shares, limits, strict=True)
    )
    return low and not _on_nothing(sample), high


def _on_nothing(sample: Array) -> bool:
    """Whether these are numbers of photons, most of which are none, and have none around them.

    Noise that is cut off has other values beside the lowest wherever that is.
    """
    counted = as_counts(sample[np.isfinite(sample)])
    if counted is None or not mostly_none(counted[0]):
        return False
    lowest = np.nanmin(sample)
    filled = np.where(np.isfinite(sample), sample, lowest)
    around = (1, 1, *(min(5, n) for n in sample.shape[2:]))
    dark = ndimage.maximum_filter(filled, around) == lowest
    return bool(np.count_nonzero(dark) > MOST_DARK * np.count_nonzero(sample == lowest))


def _alone(sample: Array, limit: float) -> float:
    """The share of values at a limit with neighbours on both sides that are not; along the axis of fewest.

    An axis that is too short for neighbours is not asked.
    """
    finite, at = np.isfinite(sample), sample == limit
    shares = []
    for axis in range(2, sample.ndim):
        if sample.shape[axis] >= 3:
            there, here = np.moveaxis(finite, axis, -1), np.moveaxis(at, axis, -1)
            whole = there[..., :-2] & there[..., 1:-1] & there[..., 2:]
            alone = ~here[..., :-2] & here[..., 1:-1] & ~here[..., 2:] & whole
            shares.append(int(np.count_nonzero(alone)) / max(1, int(np.count_nonzero(whole))))
    return min(shares, default=0.0)


def has_outliers(y: Tensor) -> bool:
    """Whether some values leave the range of their 24 to 26 neighbours by more than its width, and are
    further from their mean than noise is anywhere; and whether these stand alone, as no star does.

    At an image's ends as many are further inside: of a mirrored image each would be among its own. Two planes
    are looked at one by one.

    Of Gaussian noise those are less than one in 10 000; blurred structure never does it. In the dark a single
    photon does, beside read noise; but where there is more light, photon noise is as large as it. ``y`` as
    `choose_loss` takes it.
    """
    sample = _sample(y)
    finite = np.isfinite(sample)
    filled = np.where(finite, sample, np.median(sample[finite]))
    axes = long_axes(sample)
    if not axes:
        return False
    side = {1: 25, 2: 5}.get(len(axes), 3)
    around = [min(side, n - 1 + n % 2) if axis in axes else 1 for axis, n in enumerate(sample.shape)]
    neighbours = np.ones(around, dtype=bool)
    neighbours[tuple(n // 2 for n in around)] = False
    wide = filled
    for axis in axes:
        n, r = sample.shape[axis], around[axis] // 2
        wide = wide.take(np.r_[r + 1 : 2 * r + 1, :n, n - 2 * r - 1 : n - r - 1], axis)
    inside = tuple(slice(n // 2, n // 2 + m) for n, m in zip(around, sample.shape, strict=True))
    high = ndimage.maximum_filter(wide, footprint=neighbours)[inside]
    low = ndimage.minimum_filter(wide, footprint=neighbours)[inside]
    width = high - low
    beyond = ((filled > high + width) | (filled < low - width)) & finite
    if beyond.sum() <= OUTLIERS * finite.sum():
        return False
    total = ndimage.uniform_filter(wide, around)[inside] * neighbours.size
    mean = (total - filled) / (neighbours.size - 1)
    wild = beyond & (np.abs(filled - mean) > BEYOND_NOISE * _largest_noise(filled, mean))
    return bool(wild.sum() > OUTLIERS * finite.sum()) and _stand_alone(filled, mean, wild)


def _stand_alone(image: Array, mean: Array, wild: Array) -> bool:
    """Whether values that stand out do so alone: a star or a bead raises its neighbours along every axis."""
    means = [ndimage.correlate1d(image, (0.5, 0.0, 0.5), axis, mode="mirror") for axis in long_axes(image)]
    beside = np.min(means, axis=0)
    return bool(np.median((beside - mean)[wild] / (image - mean)[wild]) < ALONE)


def _sample(y: Tensor) -> Array:
    """The middle of the first image, NaN where missing."""
    side = {1: 500_000, 2: 512}.get(y.ndim - 2, 48)  # half of it: enough to judge by, quick to look through
    centre = [slice(max(0, n // 2 - side), n // 2 + side) for n in y.shape[2:]]
    sample = y[(slice(0, 1), slice(None), *centre)].detach().cpu().numpy().astype(np.float64)
    return np.where(np.isfinite(sample), sample, np.nan)


def _largest_noise(image: Array, mean: Array) -> float:
    """The deviation of the noise of all values, of those in the brighter half, quarter, ...: the largest.

    ``mean`` is that of the others around each. Told from the smallest second difference along any axis, in
    which edges are not seen.
    """
    axes = long_axes(image)
    bends = [ndimage.correlate1d(image, (0.5, -1.0, 0.5), axis, mode="mirror") for axis in axes]
    rough = np.min(np.abs(bends), axis=0)
    ordered = rough.ravel()[np.argsort(-mean, axis=None)]
    # The median of the smallest of so many independent ones, of noise with the deviation 1.
    median = math.sqrt(1.5) * float(norm.isf(0.5 ** (1 + 1 / len(axes))))
    return max((float(np.median(ordered[:count])) / median for count in halvings(len(ordered))), default=0.0)


def halvings(count: int) -> Iterator[int]:
    """How many all values are, the brighter half, a quarter, ...: as long as there are `FEWEST`.

    Most noise grows with the light, and where it is cut off at zero, the dark has less than there is: in one
    of these parts it is largest.
    """
    while count:
        yield count
        count = count // 2 if count >= 2 * FEWEST else 0
