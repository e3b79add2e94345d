r"""The fit of a PSF's parameters to one image, and what it keeps as told.

The likelihood of each PSF of a family (`selfinv.semiblind.spectrum`) is raised to the power ``1 / TEMPER``
since neighbouring rings deviate together, and averaged over the parameters :math:`\theta` within the bounds
of the family. Where that narrows the bounds to less than half, the mean is the answer; where not, the start
value is kept and said to be kept.

A hidden value's score is nearly blind to a PSF too narrow (a blurred object then explains the data as well),
so held-out values do not fit here; they only guard: a fitted PSF that predicts them significantly worse than
the start's is not taken.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
import torch

from selfinv.learning.measurement import object_pads
from selfinv.learning.stray_values import without_stray
from selfinv.methods import Request, solver_for
from selfinv.operators import Convolution, choose_boundary
from selfinv.selection import SelfTunedState
from selfinv.semiblind.families import POINTS, PSFFamily
from selfinv.semiblind.spectrum import Spectrum, first_guess, misfit, unlike
from selfinv.solvers.base import Status, run
from selfinv.trials import Difference, difference
from selfinv.types import (
    Floats,
    InputError,
    check_contrast,
    check_held,
    check_image,
    guess_axes,
    middle_of,
    parse_axes,
)

Interval = tuple[float, float]

TEMPER = 3.0  # with it 70 to 90 % of the intervals hold the truth (docs/experiments.md)
NARROWED = 0.5  # of the range's deviation: what is known less well is not identifiable
SMALLEST, SHALLOWEST = 48, 16  # samples a side, and planes: fewer have too few rings
GUARDED = {2: (384, 384), 3: (32, 128, 128)}  # samples of what the guard restores

OF_A_VOLUME = (
    "intervals tell of noise alone: what the object itself is like, soft or spread out along z, may put "
    "widths 20 to 30 % off; compare what is restored with this PSF and with the told one"
)

LEVELS = 2  # of grids, each finer than the one before

_SECTORS = 6  # of half a turn; in a volume from its planes to the z axis


@dataclass(frozen=True)
class FittedPSF:
    """A PSF, and how well the image told its parameters.

    Parameters
    ----------
    psf
        Sum 1: of the fitted values, or the told ones where the image does not tell.
    names, values, told
        Of the parameters; what they are now and were before.
    errors, intervals
        Standard error of each, and the interval that holds it with 95 % if the object's spectrum is what the
        model takes it for; of the benchmark's images, with 70 to 90 %.
    identifiable
        Whether the image narrows each parameter's range to less than half, away from its bounds.
    reasons
        Why not, in words; empty where it does.
    profile
        Of each value of the last parameters looked at: the values, and the log-likelihood below the best.
    guard
        Held-out score with the fitted PSF less that with the told; None if it was not asked.
    kept
        Whether `psf` is the told one.
    """

    psf: Floats = field(repr=False)
    names: tuple[str, ...]
    values: tuple[float, ...]
    told: tuple[float, ...]
    errors: tuple[float, ...]
    intervals: tuple[tuple[float, float], ...]
    identifiable: tuple[bool, ...]
    reasons: tuple[str, ...]
    profile: tuple[tuple[tuple[float, ...], float], ...] = field(default=(), repr=False)
    guard: Difference | None = None
    kept: bool = False

    def warnings(self) -> tuple[str, ...]:
        """A sentence for each parameter that was kept as told."""
        return tuple(
            f"{name} of the PSF is not identifiable from this image: {why}; kept as told, {told:.4g}"
            for name, told, why in zip(self.names, self.told, self.reasons, strict=True)
            if why
        )

    def summary(self) -> dict[str, Any]:
        """What was found, in plain types, by the parameters' names."""
        rows = zip(self.values, self.told, self.errors, self.intervals, self.identifiable, strict=True)
        keys = ("value", "told", "error", "interval", "identifiable")
        return {name: dict(zip(keys, row, strict=True)) for name, row in zip(self.names, rows, strict=True)}

    def explain(self, *, profile: bool = True) -> str:
        """One sentence for each parameter and the guard; before them, each value's likelihood (of one)."""
        lines = []
        if profile and len(self.names) == 1:
            lines = [f"{self.names[0]} {x[0]:.4g}: log-likelihood {score:+.2f}" for x, score in self.profile]
        for i, name in enumerate(self.names):
            low, high = self.intervals[i]
            if self.identifiable[i]:
                lines.append(
                    f"{name}: fitted {self.values[i]:.4g} ± {self.errors[i]:.2g} "
                    f"(95 %: {low:.4g} to {high:.4g}), told {self.told[i]:.4g}"
                )
            else:
                lines.append(f"{name}: not identifiable, {self.reasons[i]}; kept as told, {self.told[i]:.4g}")
        if self.psf.ndim == 3 and any(self.identifiable):
            lines.append(OF_A_VOLUME)
        if self.guard is not None:
            verdict = "significantly worse" if self.kept else "no significant difference"
            if self.guard.significant and self.guard.mean < 0:
                verdict = "significantly better"
            lines.append(
                f"held-out score less the told PSF's: {self.guard.mean:+.2g} ± {self.guard.error:.1g}, "
                f"{verdict}"
            )
        return "\n".join(lines)


def fit_psf(
    image: Any,
    family: PSFFamily,
    *,
    axes: str | None = None,
    mask_nan: bool = False,
    guard: bool = True,
    seed: int = 0,
) -> FittedPSF:
    """Fit a family's parameters from one noisy, blurred image.

    Parameters
    ----------
    image
        The measurement; as many spatial axes as the PSF, with channels and time if ``axes`` says so: all of
        its planes, or volumes, share the PSF. Where channels do not, the told one is kept. Values that stand
        out each alone, as nothing blurred does (hot pixels), are left out.
    family
        The PSF as a function of its parameters.
    axes, mask_nan, seed
        As in `selfinv.restore`; the seed is of the guard's hidden values.
    guard
        Whether to restore (a part of) the image with the told and the fitted PSF by self-tuned total
        variation, and not to take the fitted one if it predicts held-out values significantly worse.

    Raises
    ------
    InputError
        If the image is constant, has NaN (without ``mask_nan``) or other spatial axes than the PSF, or if the
        family is none or makes kernels that are no PSFs.

    Examples
    --------
    >>> from selfinv.semiblind import gaussian_family
    >>> rng = np.random.default_rng(0)
    >>> fitted = fit_psf(rng.normal(size=(64, 64)), gaussian_family(2.0))  # noise alone tells nothing
    >>> fitted.identifiable, fitted.values
    ((False,), (2.0,))
    """
    if not isinstance(family, PSFFamily):
        raise InputError(f"family is a {type(family).__name__}; pass a PSFFamily, e.g. gaussian_family(2.0)")
    array = check_image(image, allow_nan=mask_nan)
    told = family.at(family.start)
    layout = parse_axes(axes or guess_axes(array.shape, told.ndim), array.ndim)
    if layout.spatial != "zyx"[-told.ndim :]:
        raise InputError(
            f"the image has the spatial axes {layout.spatial!r} and the family's PSF "
            f"{'zyx'[-told.ndim :]!r}; give a family of the image's axes, or name these by axes"
        )
    check_contrast(array)
    check_held(array)
    y = np.ascontiguousarray(layout.to_batch(array), dtype=np.float64)
    y = np.where(np.isfinite(y), y, np.nan)
    # A few hot pixels, which no blur has spread, would hide the spectrum of all that it has.
    y = without_stray(None, torch.from_numpy(y))[0].numpy()
    why = too_small(y.shape[2:], told.shape)
    if why:
        return _not_told(family, why)
    batch, planes = y, y.reshape(-1, 1, *y.shape[2:])
    y = planes[[bool(np.isfinite(plane).any()) for plane in planes]]  # of the others nothing is told
    fitted = fit_spectrum(y, family)
    why = _unlike_channels(batch, family) if any(fitted.identifiable) else ""
    if why:
        return replace(_not_told(family, why), profile=fitted.profile)
    if guard and any(fitted.identifiable):
        compared = held_out_difference(y, told, fitted.psf, seed)
        if compared.mean > 0 and compared.significant:
            why = "held-out values are predicted significantly worse with the fitted PSF"
            kept = _not_told(family, why)
            return replace(
                kept, errors=fitted.errors, intervals=fitted.intervals, profile=fitted.profile, guard=compared
            )
        fitted = replace(fitted, guard=compared)
    return fitted


def too_small(space: Sequence[int], kernel: Sequence[int]) -> str:
    """What an image, or a volume, lacks; empty if nothing."""
    if len(space) == 3:
        side = max(SMALLEST, *kernel[1:])
        if space[0] >= SHALLOWEST and min(space[1:]) >= side:
            return ""
        least = f"{SHALLOWEST} planes of {side} a side"
    else:
        side = max(SMALLEST, *(2 * n for n in kernel))
        if min(space) >= side:
            return ""
        least = f"{side} a side"
    what = "a volume" if len(space) == 3 else "an image"
    return f"{what} of {' × '.join(map(str, space))} is too small (at least {least})"


def fit_spectrum(
    y: Floats, family: PSFFamily, enough: Callable[[Sequence[Interval]], bool] = lambda _: False
) -> FittedPSF:
    """The fit alone, of ``batch channel *space`` with NaN where nothing is measured; see `fit_psf`.

    Where the parameters' intervals on a first grid, known to its step, are ``enough``, there is no finer one.
    """
    ndim = y.ndim - 2
    return _fit(Spectrum(y, _SECTORS if family.directional or ndim == 3 else 1), family, enough)


def _fit(spectrum: Spectrum, family: PSFFamily, enough: Callable[[Sequence[Interval]], bool]) -> FittedPSF:
    """The mean over the range, weighted by the tempered likelihood; on a grid, then on a finer one."""
    n = len(family.names)
    low, high = np.zeros(n), np.ones(n)
    guess = first_guess(spectrum)
    first: tuple[tuple[tuple[float, ...], float], ...] = ()
    at_bound = [""] * n
    mean = deviation = np.zeros(n)
    marginals: list[tuple[Floats, Floats]] = []
    for level in range(LEVELS):
        sides = [np.linspace(a, b, POINTS[n]) for a, b in zip(low, high, strict=True)]
        misfits, values, spectra, previous = [], [], [], guess
        for unit in itertools.product(*sides):
            where = tuple(family.place(u, i) for i, u in enumerate(unit))
            transfer = spectrum.transfer(family.at(where))
            # From the neighbour's optimum and from a common guess: the misfit has more than one minimum.
            near, far = misfit(spectrum, transfer, previous), misfit(spectrum, transfer, guess)
            least, previous = min(near, far, key=lambda pair: pair[0])
            misfits.append(least)
            values.append(where)
            spectra.append(previous)
        cost = np.array(misfits).reshape([len(side) for side in sides]) / TEMPER
        weight = np.exp(cost.min() - cost)
        for axis in range(n):  # the trapezoid rule
            ends = np.ones(cost.shape[axis])
            ends[[0, -1]] = 0.5
            weight = weight * ends.reshape([-1 if i == axis else 1 for i in range(n)])
        weight /= weight.sum()
        marginals = [(sides[i], weight.sum(axis=tuple(j for j in range(n) if j != i))) for i in range(n)]
        mean = np.array([w @ u for u, w in marginals])
        deviation = np.sqrt([w @ (u - m) ** 2 for (u, w), m in zip(marginals, mean, strict=True)])
        if level == 0:
            first = tuple(zip(values, (-(cost - cost.min())).ravel().tolist(), strict=True))
            lowest = np.unravel_index(int(cost.argmin()), cost.shape)
            at_bound = [{0: "lower", POINTS[n] - 1: "upper"}.get(int(i), "") for i in lowest]
        step = (high - low) / (POINTS[n] - 1)
        reach = np.maximum(4 * deviation, 2 * step)
        if (2 * reach > 0.7 * (high - low)).all() or enough(_intervals(family, marginals)):
            break
        low, high = np.maximum(mean - reach, 0.0), np.minimum(mean + reach, 1.0)
    why = unlike(spectra[int(np.argmin(misfits))])
    if why:
        if any(at_bound):  # of a PSF far from the right one the object's spectrum is odd
            why += (
                "; or the parameter lies beyond the range that was looked in: widen it by spread (--spread)"
            )
        kept = _not_told(family, why)
        return replace(kept, profile=first)
    known = deviation < NARROWED / math.sqrt(12)
    identifiable = tuple(bool(k) and not b for k, b in zip(known, at_bound, strict=True))
    told = family.start
    if any(identifiable) and not all(identifiable):
        # What the image does not tell is held, and the rest fitted to that.
        held = {name: t for name, t, good in zip(family.names, told, identifiable, strict=True) if not good}
        rest = _fit(spectrum, family.fix(held), enough)
        return _merge(
            family, rest, _summary(family, first, mean, deviation, marginals, identifiable, at_bound)
        )
    return _summary(family, first, mean, deviation, marginals, identifiable, at_bound)


def _summary(
    family: PSFFamily,
    profile: tuple[tuple[tuple[float, ...], float], ...],
    mean: Floats,
    deviation: Floats,
    marginals: Sequence[tuple[Floats, Floats]],
    identifiable: tuple[bool, ...],
    at_bound: Sequence[str],
) -> FittedPSF:
    values, errors, reasons = [], [], []
    intervals = _intervals(family, marginals)
    for i, (m, d) in enumerate(zip(mean.tolist(), deviation.tolist(), strict=True)):
        low, high = intervals[i]
        at, around = family.place(m, i), (family.place(m + d, i) - family.place(m - d, i)) / 2
        values.append(at if identifiable[i] else family.start[i])
        errors.append(abs(around))
        bounds = f"{family.lower[i]:.4g} to {family.upper[i]:.4g}"
        if identifiable[i]:
            reasons.append("")
        elif at_bound[i]:
            reasons.append(
                f"the likeliest value lies at or beyond the {at_bound[i]} end of the range {bounds}, which a "
                f"larger spread (--spread) widens"
            )
        else:
            reasons.append(f"the data allow {low:.4g} to {high:.4g} of the range {bounds}")
    return FittedPSF(
        family.at(values),
        family.names,
        tuple(values),
        family.start,
        tuple(errors),
        intervals,
        identifiable,
        tuple(reasons),
        profile,
        kept=not any(identifiable),
    )


def _unlike_channels(y: Floats, family: PSFFamily) -> str:
    """What channels by themselves tell of a parameter, if that is not the same; empty if it is."""
    channels = [y[:, c : c + 1] for c in range(y.shape[1])]
    if len(channels) < 2:
        return ""
    each = [fit_spectrum(one, family) if from_0_to_1(one) is not None else None for one in channels]
    for i, name in enumerate(family.names):
        told = [
            (c, one.intervals[i]) for c, one in enumerate(each) if one is not None and one.identifiable[i]
        ]
        if len(told) < 2:
            continue
        first = min(told, key=lambda pair: sum(pair[1]))
        last = max(told, key=lambda pair: sum(pair[1]))
        # Some intervals miss the truth (`FittedPSF.intervals`), hardly any by half of what they are wide.
        if first[1][1] + np.ptp(first[1]) / 2 < last[1][0] - np.ptp(last[1]) / 2:
            words = [
                f"channel {c} (counted from 0) {low:.4g} to {high:.4g}" for c, (low, high) in (first, last)
            ]
            return (
                f"channels have a {name} of their own, {' and '.join(words)}; fit each by itself, and "
                f"restore with a PSF for each (stacked, one axis more in front)"
            )
    return ""


def _intervals(family: PSFFamily, marginals: Sequence[tuple[Floats, Floats]]) -> tuple[Interval, ...]:
    """What holds each parameter with 95 %, of the weights along its axis of the grid."""
    intervals = []
    for i, (side, weight) in enumerate(marginals):
        below = weight.cumsum() - weight / 2
        low, high = (family.place(float(np.interp(q, below, side)), i) for q in (0.025, 0.975))
        intervals.append((low, high))
    return tuple(intervals)


def _merge(family: PSFFamily, rest: FittedPSF, whole: FittedPSF) -> FittedPSF:
    """``whole`` with what ``rest`` says of the parameters that were fitted again."""
    places = {name: i for i, name in enumerate(rest.names)}

    def merged(name: str) -> tuple[Any, ...]:
        ours, theirs = getattr(whole, name), getattr(rest, name)
        pairs = zip(family.names, ours, strict=True)
        return tuple(theirs[places[n]] if n in places else mine for n, mine in pairs)

    fields = ("values", "errors", "intervals", "identifiable", "reasons")
    changed: dict[str, Any] = {name: merged(name) for name in fields}
    return replace(whole, psf=family.at(changed["values"]), kept=not any(changed["identifiable"]), **changed)


def _not_told(family: PSFFamily, why: str) -> FittedPSF:
    n = len(family.names)
    bounds = tuple(zip(family.lower, family.upper, strict=True))
    return FittedPSF(
        family.at(family.start),
        family.names,
        family.start,
        family.start,
        (math.inf,) * n,
        bounds,
        (False,) * n,
        (why,) * n,
        kept=True,
    )


def from_0_to_1(part: Floats) -> Floats | None:
    """In units of its range; None if nothing varies."""
    measured = part[np.isfinite(part)]
    range_ = float(np.ptp(measured)) if measured.size else 0.0
    return (part - measured.min()) / range_ if range_ > 0.0 else None


def held_out_difference(
    y: Floats, told: Floats, fitted: Floats, seed: int, blind_spot: tuple[int, ...] = ()
) -> Difference:
    """The held-out score of self-tuned total variation with the fitted PSF, less that with the told one.

    Of the middle of the first plane, or volume, that is not the same all over, of ``batch channel *space``,
    NaN where nothing is measured, in units of its range. As many values as ``blind_spot`` says are hidden to
    each side of a scored one, along each axis.
    """
    space = y.shape[2:]
    middle = middle_of(space, GUARDED[len(space)])
    parts = y[(slice(None), slice(None), *middle)]
    planes = parts.reshape(-1, *parts.shape[2:])
    varied = next((plane for plane in map(from_0_to_1, planes) if plane is not None), None)
    if varied is None:
        return Difference(0.0, math.inf)  # nothing is measured in the middle of any
    part = torch.from_numpy(np.ascontiguousarray(varied)).float()[None, None]
    chosen = []
    for kernel in (told, fitted):
        tensor = torch.from_numpy(kernel).float()
        shape = tuple(part.shape[2:])
        boundary = choose_boundary(part, tensor)
        operator = Convolution(tensor, shape, boundary, margin=[max(8, n // 8) for n in shape])
        sizes = [n + sum(pads) for n, pads in zip(shape, object_pads(operator, shape), strict=True)]
        solver = solver_for("tv-chambolle-pock", Request(part, operator, sizes, blind_spot=blind_spot))
        state, status = run(solver, part, operator, seed=seed)
        if status == Status.CANCELLED:
            raise KeyboardInterrupt
        assert isinstance(state, SelfTunedState)
        assert state.chosen is not None
        chosen.append(state.chosen)
    return difference(chosen[1], chosen[0])
