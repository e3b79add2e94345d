"""What there is to doubt of an image or of its restoration, for the front door to warn of."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from selfinv.independence import SHARED, SMOOTH, NoiseCorrelation, noise_correlation
from selfinv.learning.capacity import spectra, white_variance
from selfinv.learning.lost_detail import lost_detail
from selfinv.learning.normalisation import Normalisation, varies
from selfinv.learning.own_values import has_many_gaps
from selfinv.noise import noise_level
from selfinv.operators import Convolution
from selfinv.semiblind.orientation import is_transposed
from selfinv.semiblind.width import narrower
from selfinv.solvers import Wiener
from selfinv.solvers.base import Forward, run
from selfinv.types import InputError, middle_of, spatial_index

EPSILON = float(np.finfo(np.float32).eps)
FLAT = 0.15  # of the variance of what is seen in the image
SEEN = 0.1  # of an image's variance: less may be chance
STEP = 0.01  # of the range, between two numbers of the result: it would be seen
INSIDE = 0.8  # of the values between two at the highest, at it too: what makes a plateau
FEWEST_INSIDE, FEWEST_FULL = 20, 5  # of them; where a converter ends
SAMPLES = 64  # of a transfer function along each axis
FAINT = 2e-3  # of the image's deviation: what matters little, whatever it is
HARDLY = 0.999  # of a constant's score
AS_FAR_OFF = math.sqrt(2.0)  # times the noise, from the values
FURTHER = 1.5  # times the measurement's distance from a plain answer
FRAMES = 4  # that noise is looked for in
UNLIKE = 4.0  # times: of frames' ranges; below, dim ones gain little by being treated apart
EMPTY = 6.0  # deviations of noise: what has a range (of medians of 3 samples) of no more may be noise alone
NAMED = 8  # frames in a warning
BELOW_PEAKS = 0.98  # of the values
PAIRS, FEW = 3, 0.05  # of the highest value, and how much of an image: a plateau of a detector's
FULL_SCALES = tuple(2.0**bits - 1.0 for bits in (8, 10, 12, 14, 16))  # what converters end at
DRAWN, LEVELS = 0.05, 16  # of the others, in plateaus, too; other values: else it is no image with noise


def shared_noise(y: Tensor, forward: Forward) -> NoiseCorrelation | None:
    """Whether held-out values can be trusted; None where the image may have structure as fine as noise.

    The test takes what lies beyond a quarter of a cycle per value for noise, so the operator must remove all
    else from there.
    """
    if not isinstance(forward, Convolution):
        return None
    space = tuple(max(SAMPLES, 2 * k) for k in forward.kernel_shape)  # zeros around it show what lies between
    transfer = torch.fft.fftn(forward.psf.cpu().double(), s=space, dim=tuple(range(-len(space), 0))).abs()
    fine = torch.zeros(space, dtype=torch.bool)
    for axis, n in enumerate(space):
        beyond = torch.fft.fftfreq(n).abs() > 0.25
        fine |= beyond.reshape(-1, *(1,) * (len(space) - 1 - axis))
    total = transfer.amax(dim=tuple(range(-len(space), 0)), keepdim=True)
    if float((transfer / total)[..., fine].square().mean().sqrt()) > 0.1:
        return None
    side = {1: 300_000, 2: 512}.get(len(space), 64)  # enough to see any correlation that matters
    part = y[spatial_index(middle_of(y.shape[2:], [side] * len(space)))][:FRAMES]
    try:
        found = noise_correlation(part.cpu().numpy())
    except InputError:
        return None  # too little to judge by
    if found.unknown == SMOOTH:
        known = spectra(part, torch.isnan(part))
        faint = all(s.beyond(0.25) < FAINT**2 * float(s.power.mean()) for s in known)
        if not faint and not any(s.levels_off() for s in known):
            return replace(found, unknown=SHARED)  # independent noise would level off
    return found


def white_noise(y: Tensor) -> float:
    """The deviation of the noise in an image's first frames; 0 where details hide it, or there is none."""
    part = y[:FRAMES]
    variance = white_variance(part, ~torch.isfinite(part))
    return 0.0 if math.isnan(variance) else math.sqrt(variance)


def lacks_peaks(y: Tensor) -> bool:
    """Whether values are missing where the image, ``batch channel y x``, is brightest, as if saturated.

    Of those beside missing ones half and more are then among the highest; of values that are missing
    anywhere, as many as of all.
    """
    missing = torch.isnan(y)
    near = F.max_pool2d(missing.double(), 3, stride=1, padding=1) > 0
    beside, values = y[near & ~missing], y[~missing]
    return bool(beside.numel()) and float((values < beside.median()).double().mean()) > BELOW_PEAKS


def _without_plateaus(y: Tensor) -> Tensor:
    """``batch channel y x``, its highest values missing if some lie side by side, as in saturated stars."""
    at = y == y[torch.isfinite(y)].max()
    pairs = int((at[..., 1:] & at[..., :-1]).sum() + (at[..., 1:, :] & at[..., :-1, :]).sum())
    return y.masked_fill(at, torch.nan) if pairs >= PAIRS and float(at.double().mean()) < FEW else y


def too_wide(y: Tensor, forward: Forward, noise: NoiseCorrelation | None, name: str = "the PSF") -> str:
    """The warning of a PSF that the image shows to be clearly wider than what it was blurred by, else "".

    Of an image that does not saturate; ``noise`` is what `shared_noise` found.
    """
    if not isinstance(forward, Convolution) or len(forward.out_shape) != 2:
        return ""
    if has_many_gaps(torch.isnan(y)):
        return ""  # what is filled in has a spectrum of its own
    if lacks_peaks(_without_plateaus(y)):
        return ""  # and so has what is left of saturated stars
    values, kernels = y.cpu().double().numpy(), forward.psf.cpu().double().numpy()
    each = kernels.ndim == 3 and len(kernels) > 1
    if kernels.ndim > 3 or (each and len(kernels) != y.shape[1]):
        return ""
    planes = [values[:, c : c + 1] for c in range(len(kernels))] if each else [values]
    independent = noise is not None and noise.independent
    try:
        told = [
            narrower(plane, kernel, independent=independent)
            for plane, kernel in zip(planes, kernels.reshape(-1, *kernels.shape[-2:]), strict=True)
        ]
    except InputError:  # an operator's kernel need not be a PSF
        return ""
    channel, found = next(((c, one) for c, one in enumerate(told) if one is not None), (0, None))
    whose = f"{name} of channel {channel} (counted from 0)" if each else name
    if found is None:
        return ""
    return (
        f"{whose} seems to be too wide: one {found[0]:.2f} to {found[1]:.2f} times as wide fits the image's "
        f"spectrum, and predicts hidden values better; a PSF that is too wide makes ringing of noise. Check "
        f"its pixel size and optics, or fit its size (selfinv psf fit --family scaled, "
        f"or selfinv.semiblind.scaled_family)"
    )


def transposed(y: Tensor, forward: Forward, noise: NoiseCorrelation | None) -> str:
    """The warning of a PSF that the image shows to be told with its axes exchanged, else "".

    Of one PSF for all channels; parameters as for `too_wide`.
    """
    if not isinstance(forward, Convolution) or len(forward.out_shape) != 2 or has_many_gaps(torch.isnan(y)):
        return ""
    values, kernel = y.cpu().double().numpy(), forward.psf.cpu().double().numpy()
    independent = noise is not None and noise.independent
    if kernel.shape[:-2] not in ((), (1,)) or not kernel.sum() > 0.0:
        return ""
    if not is_transposed(values, kernel.reshape(kernel.shape[-2:]), independent=independent):
        return ""
    return (
        "the PSF seems to have its axes exchanged: transposed, it predicts hidden values clearly better; "
        "check which of its axes comes first"
    )


def further_than_measured(y: Tensor, x: Tensor, forward: Convolution | None) -> str:
    """The warning of a model's answer that is probably worse than the measurement itself; "" if it is not.

    The answer to values is off by as much as they are if it differs from them by more than sqrt(2) times the
    noise. Behind a PSF what is left over tells nothing of that: large errors hide where little is passed on.
    Wiener's filter makes few of these (`selfinv.solvers.wiener`), so nothing should be further from it than
    the measurement is; that a few stars are, which it leaves blurred, is as it should be.

    Parameters
    ----------
    y, x
        Measurement and answer on its grid, ``batch channel *space``, NaN where missing (of the former, few).
    forward
        The convolution; None: nothing is blurred.
    """
    seen = torch.isfinite(y)
    scale = float(y[seen].double().std())
    if not scale > 0.0:
        return ""
    if forward is None:
        noise = white_noise(y)
        times = float((y - x)[seen].square().mean().sqrt()) / noise if noise else 0.0
        if times < AS_FAR_OFF:
            return ""
        how = f"what it takes away is {times:.2g} times the noise"
    else:
        level = float(y[seen].mean())
        wiener = Wiener()
        state, status = run(wiener, ((y - level) / scale).float(), forward)
        if status.failed:
            return ""
        plain = level + scale * wiener.estimate(state)[spatial_index(forward.field_of_view or ())].to(y)
        answered, measured = ((values - plain)[seen].square() for values in (x, y))
        least = (EPSILON * scale) ** 2
        times = min(
            float((of(answered) / of(measured).clamp_min(least)).sqrt()) for of in (torch.mean, torch.median)
        )
        if times < FURTHER:
            return ""
        how = f"its answer is {times:.2g} times as far from a plain one (Wiener's filter) as the image is"
    return (
        f"the model does not suit this image: {how}, so that the result may be worse than what was measured; "
        f"restore the image by itself, or train a model on one like it"
    )


def left_as_it_is(y: Tensor, x: Tensor, *, from_0: bool = False) -> bool:
    """Whether the measurement comes back, to within a small part of its apparent noise.

    ``x`` is what would be measured of the result. ``from_0``: of a method that takes no values below. Where
    many values are missing, what is filled in is no little change.
    """
    if has_many_gaps(torch.isnan(y)):
        return False
    change = (x.to(y) - y)[torch.isfinite(y) & (y >= (0.0 if from_0 else -math.inf))]
    return float(change.square().mean().sqrt()) < 0.05 * noise_level(y.cpu().numpy())


def smoothed_away(y: Tensor, x: Tensor, weight: float) -> str:
    """The warning of a weight given that leaves next to nothing of the image; "" if it does not.

    ``x`` is what would be measured of the result.
    """
    seen, values = torch.isfinite(y).cpu(), y.cpu().double()
    values = values - values[seen].mean()
    # What neighbours have in common is no noise.
    lengths = [(axis, values.shape[axis] - 1) for axis in range(2, values.ndim)]
    pairs = [values.narrow(axis, 0, n) * values.narrow(axis, 1, n) for axis, n in lengths]
    there = float(torch.cat([both.flatten() for both in pairs]).nanmean())
    if math.isnan(there) or there < SEEN * float(values[seen].square().mean()):
        return ""
    if float(x.cpu()[seen].double().var(correction=0)) > FLAT * there:
        return ""
    return (
        f"the weight of {weight:g} leaves next to nothing of what there is in the image; leave it out, to "
        f"be set by hidden values, or give a smaller one (of total variation it is in the image's units)"
    )


def detail_taken(y: Tensor, x: Tensor) -> str:
    """The warning of a denoised image ``x`` that has lost more than noise; "" if it has not."""
    found = lost_detail(y, x)
    if not found:
        return ""
    return (
        f"{found} values of what was taken away ({found / y.numel():.2g} of all) stand out of the noise, as "
        f"fine detail does: thin lines or small spots may have lost light; look at what is left over (the "
        f"image less the result; --residual), or try method='tv-chambolle-pock'"
    )


def unchanged(name: str) -> str:
    """The warning of an image that a method has `left_as_it_is`."""
    if name == "richardson-lucy":
        return (
            f"without a PSF {name} changes nothing (coarse pixels are repeated): it only undoes blur; give a "
            f"psf, or use ssi"
        )
    network = "" if name.startswith("ssi") else " (which a network may tell apart: use ssi)"
    return (
        f"the image comes back nearly as it was: either it has hardly any noise, or hardly any beside detail "
        f"as fine as noise{network}, or neighbouring values share theirs (smoothed, interpolated, compressed "
        f"images), which cannot be told without a PSF, or a few values outweigh all others (hot pixels: mark "
        f"them as missing)"
    )


def nothing_measured(y: Tensor, *, alone: bool) -> str:
    """The warning of frames or channels without any value; "" if there are none.

    ``alone``: whether no other channel tells of one.
    """
    empty = ~torch.isfinite(y).flatten(2).any(2)
    frames, channels = (empty.all(axis).nonzero().flatten().tolist() for axis in (1, 0))
    noun, numbers = ("frame", frames) if frames or not alone else ("channel", channels)
    if not numbers:
        return ""
    return (
        f"nothing is measured in {noun} {', '.join(map(str, numbers))} (counted from 0); what comes back "
        f"there is made up"
    )


def unlike_frames(y: Tensor, axes: str) -> str:
    """The warning of frames that are much dimmer than another one, "" if none are.

    Empty ones, which show nothing but noise or one value, have nothing to lose. ``axes`` are the caller's.
    """
    if len(y) < 2:
        return ""
    side = {1: 65_536, 2: 256}.get(y.ndim - 2, 48)
    ranges: dict[int, float] = {}
    for t, frame in enumerate(y[spatial_index(middle_of(y.shape[2:], [side] * (y.ndim - 2)))].split(1)):
        range_ = Normalisation.of(frame).scale if varies(frame) else 0.0
        if range_ > EMPTY * noise_level(frame.cpu()):
            ranges[t] = range_
    widest = max(ranges, key=lambda t: ranges[t], default=0)
    dim = [t for t, span in ranges.items() if UNLIKE * span < ranges[widest]]
    if not dim:
        return ""
    ratio = ranges[widest] / min(ranges.values())
    named = ", ".join(map(str, dim[:NAMED])) + (f" and {len(dim) - NAMED} more" if len(dim) > NAMED else "")
    apart = "" if "c" in axes else f"give frames as channels (axes='{axes.replace('t', 'c')}'), or "
    return (
        f"the values of frame {named} (counted from 0) span up to {ratio:.3g} times less than those of frame "
        f"{widest}: all frames are restored as the brightest needs it, and dim ones may come back worse than "
        f"they are; {apart}divide each frame by its range first and multiply the result by it"
    )


def beside_a_level(y: Tensor) -> str:
    """The warning of values on a level so large that the result's single precision tells few steps apart."""
    for channel in y.unbind(1):
        seen = channel[torch.isfinite(channel)]
        lowest, highest = (float(v) for v in seen.aminmax()) if seen.numel() else (0.0, 0.0)
        step = EPSILON * max(abs(lowest), abs(highest))
        if step > STEP * (highest - lowest) > 0.0:
            return (
                f"the values lie between {lowest:.9g} and {highest:.9g}: the result is in single precision, "
                f"which has steps of {step:.2g} there; take a level off first, and put it back in double "
                f"precision"
            )
    return ""


def saturated(y: Tensor) -> str:
    """The warning of values that all lie at the highest, side by side, whatever their noise; "" if none do.

    Noise that is cut off at its middle leaves half of the values between two at the limit, and is no plateau;
    a star of nine saturated pixels leaves all of them. A channel of one value is no image.
    """
    varied = [channel for channel in y.split(1, dim=1) if varies(channel)]
    if not varied:
        return ""
    y = torch.cat(varied, dim=1)
    lowest, highest = y[torch.isfinite(y)].aminmax()
    at, flat = y == highest, torch.ones_like(y, dtype=torch.bool)
    between = inside = 0
    for axis in range(2, y.ndim):
        n = y.shape[axis]
        if n < 3:
            continue
        same = y.narrow(axis, 0, n - 1) == y.narrow(axis, 1, n - 1)
        ends = torch.zeros_like(same.narrow(axis, 0, 1))
        flat &= torch.cat([ends, same], axis) & torch.cat([same, ends], axis)
        enclosed = at.narrow(axis, 0, n - 2) & at.narrow(axis, 2, n - 2)
        between += int(enclosed.sum())
        inside += int((enclosed & at.narrow(axis, 1, n - 2)).sum())
    fewest = FEWEST_FULL if float(highest) in FULL_SCALES else FEWEST_INSIDE
    if inside < max(fewest, INSIDE * between):
        return ""
    others = torch.isfinite(y) & ~at & (y != lowest)
    if float(flat[others].double().mean()) > DRAWN or y[others].unique().numel() < LEVELS:
        return ""
    count = int(at.sum())
    return (
        f"{count} values ({count / at.numel():.2g} of all) lie at the highest, {float(highest):g}, side by "
        f"side, as where a detector saturates: the light there is a lower bound, and so it is in the result; "
        f"to have them filled in from around instead, which forgets the bound (better of a few than of large "
        f"areas), mark them as missing (NaN, with mask_nan; from the shell --saturation {float(highest):g})"
    )


def nothing_explained(stats: Mapping[str, Any]) -> bool:
    """Whether a run that has compared methods predicted hidden values hardly better than a constant."""
    score, of_a_constant = stats.get("held_out_score"), stats.get("held_out_score_of_a_constant")
    return score is not None and of_a_constant is not None and bool(score >= HARDLY * of_a_constant)


NOTHING_EXPLAINED = (
    "hidden values are predicted hardly better than by a constant: either the image is noise, or its light "
    "is in a few values that no others explain: stars and small spots, of which some may be lost (look at "
    "what is left over), or cosmic rays and hot pixels (mark those as missing: NaN, with mask_nan)"
)
