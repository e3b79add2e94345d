r"""Is the noise independent from one measured value to the next, as every held-out score supposes?

A hidden value cannot be predicted from values whose noise knows nothing of its own (Batson & Royer 2019,
arXiv:1901.11365, Eq. 1). Camera rows, interpolation, demosaicing or compression break this: the values around
a hidden one tell of its noise, and a held-out score then rewards a reconstruction for keeping the noise.

`noise_correlation` looks for this in what a reconstruction leaves unexplained; `selfinv.blind_spot` is the
remedy.
"""

from __future__ import annotations

import itertools
import math
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from scipy.fft import irfftn
from scipy.stats import norm
from torch import Tensor

from selfinv.autocorrelation import (
    LEAST_ROUGH,
    LIMIT,
    Autocorrelation,
    Lag,
    Model,
    distance,
    half_box,
    inside,
    line_covariance,
    longer,
    size_of,
    smooth_covariance,
)
from selfinv.high_pass import high_passed
from selfinv.standardised import standardised
from selfinv.types import SPACE, Array, InputError, Shape, check_image, check_integer

FALSE_ALARMS = 0.01  # the chance of one in a whole call, shared by all lags (Bonferroni)
WEAKEST = 0.5  # where even this correlation would be missed nothing is said
SUSPECT = 0.1  # with correlated noise about, what is correlated this much next to it is taken for noise, too

PASS_BAND = 0.25  # cycles per value; structure is taken to lie below, unless the caller knows better
ROUGHNESS = 0.01  # correlation from structure beyond it: edges, clipping

ROUNDED = 4  # times the precision of the largest value: what varies no more may be nothing but rounding

FAR = 32  # how far along a line values are compared
MOST_LAGS = 8000  # in the window

MUCH = 0.3  # of the noise's variance: with less, hiding whole lines costs more than it gains
SMOOTH = "nearly all of it is smooth: little noise beside the rest, or noise blurred over several values"
SHARED = "what lies beyond the PSF's reach is smooth, too: noise that several neighbours share, or hardly any"
CONSTANT = "the residual is constant, to within the rounding of its numbers"
NEGATIVE = "neighbours are negatively correlated, as fitting the noise makes them; use held-out values"


@dataclass(frozen=True)
class NoiseCorrelation:
    """How a residual's noise is correlated from one value to others; made by `noise_correlation`.

    Parameters
    ----------
    lags
        Offsets in values along the spatial axes, one of each ± pair, the nearest first.
    correlation, error, bound
        Of the noise at these lags, the standard errors, and what the absolute values must exceed to count.
    stripes, stripe_bound
        Per spatial axis, the share of the noise's variance that whole lines along it have in common, and what
        it must exceed to count: infinite where the axis is too short to tell.
    blind_spot
        Per spatial axis, how many values on each side of a scored one must be hidden with it, so that the
        noise left visible tells nothing of its own: 0 where it is independent, all of the axis for stripes.
    values
        How many values were compared.
    unknown
        Why nothing can be said; empty where something can.
    """

    lags: tuple[Lag, ...]
    correlation: tuple[float, ...]
    error: tuple[float, ...]
    bound: tuple[float, ...]
    stripes: tuple[float, ...]
    stripe_bound: tuple[float, ...]
    blind_spot: tuple[int, ...]
    values: int
    unknown: str = ""

    @property
    def independent(self) -> bool:
        """Whether no correlation was found where one would have been; False also where nothing is known."""
        return not self.unknown and not any(self.blind_spot)

    @property
    def correlated(self) -> bool:
        """Whether values share noise, over however many of them."""
        return any(self.blind_spot) or self.unknown == SHARED

    @property
    def lines(self) -> tuple[int, ...]:
        """The spatial axis (-1 is the last) along which whole lines share much of the noise, if there is one.

        The one of several along which they share most: with lines of two hidden, little would be left.
        """
        axes = range(-len(self.stripes), 0)
        found = zip(self.stripes, axes, self.stripe_bound, strict=True)
        much = [(share, axis) for share, axis, bound in found if share > max(bound, MUCH)]
        return (max(much)[1],) if much else ()

    @property
    def worst_lag(self) -> Lag | None:
        """The lag with the strongest correlation for its bound, among those that count if any do."""
        counted = [i for i, lag in enumerate(self.lags) if inside(lag, self.blind_spot)]
        places = counted or range(len(self.lags))
        worst = max(places, key=lambda i: abs(self.correlation[i]) / self.bound[i], default=None)
        return None if worst is None else self.lags[worst]

    def explain(self) -> str:
        """The finding in a sentence or two, and what to do about it."""
        harm = "held-out scores are too optimistic and prefer results that keep the noise"
        if self.unknown == SHARED:
            return f"the noise is correlated ({SHARED}, as of smoothed, resampled or restored images): {harm}"
        if self.unknown:
            return f"whether the noise is independent is not known: {self.unknown}"
        axes = SPACE[-len(self.blind_spot) :]
        if self.independent:
            nearest = max(b for lag, b in zip(self.lags, self.bound, strict=True) if distance(lag) == 1)
            return (
                f"no correlation of the noise was found in {self.values} values; "
                f"between neighbours |r| above {nearest:.2f} would have been"
            )
        found = [
            f"whole lines along {axis} share {share:.0%} of its variance"
            for axis, share, bound in zip(axes, self.stripes, self.stripe_bound, strict=True)
            if share > bound
        ]
        if not found and self.worst_lag is not None:
            place = self.lags.index(self.worst_lag)
            steps = " and ".join(
                f"{_values(abs(h))} along {a}" for a, h in zip(axes, self.worst_lag, strict=True) if h
            )
            found = [f"r = {self.correlation[place]:.2f} ± {self.error[place]:.2f} over {steps}"]
        if any(share > bound for share, bound in zip(self.stripes, self.stripe_bound, strict=True)):
            remedy = "; take the lines out of the measurement first, for instance by their medians"
        else:
            more = [f"{_values(n)} along {a}" for a, n in zip(axes, self.blind_spot, strict=True) if n]
            remedy = f", unless {' and '.join(more)} on each side of every scored one are hidden too"
        return f"the noise is correlated ({', '.join(found)}): {harm}{remedy}"


def noise_correlation(
    residual: Any, reach: int = 3, *, noise_band: Array | None = None, blind: bool = True
) -> NoiseCorrelation:
    r"""Test whether noise is independent, on a residual :math:`r = y - A\hat x` or on ``y`` itself.

    The autocorrelation at the lag :math:`h` is modelled as

    .. math:: C(h) = q\,[\delta(h) + \rho(h)] + S(h), \qquad
              S(h) = \int_{\text{pass band}} P(f) \cos(2\pi f \cdot h)\,df,

    with the noise's variance :math:`q` and correlation :math:`\rho`, and :math:`S`, what a reconstruction got
    wrong or an image shows. This may be strong and reach far, but no instrument transmits frequencies beyond
    its pass band, and there independent noise is flat. :math:`P` is random, made of Gaussians of all widths
    that fit the pass band and a little of anything else. Generalised least squares then estimates
    :math:`\rho` and its error, be there a few pairs of held-out values or those of whole images. The finding
    is the smallest box of lags that leaves nothing unexplained outside. What could be structure is taken for
    it, so :math:`\rho` is a lower bound.

    Local means and scales, and clipping at three of these, take care of outliers and of a noise variance that
    follows the signal; a finding must persist where the pass band is filtered away before. Lines in the
    residual (row or column noise, drift) are also compared up to 32 values
    apart and averaged, which finds weak ones. A finding must persist in the half of the values around
    which the residual is smaller: noise is everywhere, missed structure where there was structure.

    Parameters
    ----------
    residual
        ``batch channel *space``, NumPy or torch, any units; NaN where missing or not measured. Values are
        compared within one channel of one image only. Best are held-out predictions, each fold an image of
        its own, since values held out in different folds have seen each other, which correlates them
        negatively. The measurement itself is as good if it is sampled finely enough for the pass band.
    reach
        The longest lag along each axis; shorter where the axis is. Use a larger one if the blind spot found
        is as wide as this.
    noise_band
        True at the frequencies that the instrument cannot transmit, as laid out by ``numpy.fft.rfftn`` over
        the spatial axes. None: all those above a quarter of a cycle per value.
    blind
        Whether no value helped to predict itself or its neighbours. If False, negative correlations are no
        finding but an unknown result: whatever follows the noise leaves them behind.

    Raises
    ------
    InputError
        If an array has the wrong axes, shape or type, or if ``reach`` is out of range.

    Notes
    -----
    Not everything can be told apart. Structure as fine as single values that was missed everywhere looks like
    correlated noise; noise without power beyond the pass band looks like structure. A prediction that used
    its neighbours' noise hides some of it: test again with a widened mask. "Unknown" is not a finding: a
    measurement without noise, or a residual full of model error, ends there, too.
    Source: kriging with a nugget and a random trend, Cressie 1993, doi:10.1002/9781119115151, ch. 3.

    Examples
    --------
    >>> noise = np.random.default_rng(0).standard_normal((1, 1, 128, 128))
    >>> noise_correlation(noise).independent
    True
    >>> found = noise_correlation(noise + np.roll(noise, 1, axis=-1))
    >>> found.worst_lag, found.blind_spot
    ((0, 1), (0, 1))
    """
    array, rounding = _checked(residual)
    space = array.shape[2:]
    # Lags beyond the tested ones tell what smooth structure does; in 3-D there are plenty of them anyway.
    check_integer(reach, "reach", least=1)
    wide = tuple(min(2 * reach + 1 if len(space) < 3 else reach + 2, n - 1) for n in space)
    if size_of(wide) > MOST_LAGS:
        raise InputError(f"reach is {reach}; expected few enough lags to solve for, such as 3")
    test = _Test(space, reach, wide, _pass_kernel(noise_band, space), blind)

    z, known, quiet = standardised(array.reshape(-1, *space), rounding)
    result = test.judge(z, known)
    if any(result.blind_spot):
        # Noise is everywhere, what a reconstruction misses is not: a finding must persist where less remains.
        again = test.judge(np.where(quiet, z, 0.0), quiet)
        if again.independent and _vanished(result, again):
            return again
        # Local scales and clipping spread a lattice beyond the pass band, which a filter before does not.
        z, known, _ = standardised(high_passed(array, test.kernel).reshape(-1, *space), rounding)
        again = test.judge(z, known)
        if again.independent and _vanished(result, again):
            return again
    return result


@dataclass(frozen=True)
class _Test:
    """What to look for, whatever the residual."""

    space: Shape
    reach: int
    wide: Lag
    kernel: Array
    blind: bool

    @property
    def far(self) -> Lag:
        """The longest lags to look at."""
        return tuple(max(w, min(FAR, n - 1)) for w, n in zip(self.wide, self.space, strict=True))

    def judge(self, z: Array, known: Array) -> NoiseCorrelation:
        """The correlation of standardised residuals."""
        nowhere: Lag = (0,) * len(self.space)
        near = tuple(min(self.reach, (n - 1) // 2) for n in self.space)
        seen = Autocorrelation.of(z, known, self.far)
        nothing = NoiseCorrelation((), (), (), (), (), (), nowhere, seen.values)
        if not any(near):
            return replace(nothing, unknown=f"an image of the shape {self.space} is too small for neighbours")
        if not seen.values:
            return replace(nothing, unknown=CONSTANT)

        window = half_box(self.wide)
        c, variance = seen.at(window)
        # Bartlett: structure that correlates the values leaves fewer independent pairs.
        variance *= 1 + 2 * seen.values / known.size * float(c[1:] @ c[1:])
        covariance = np.diag(variance + ROUGHNESS**2) + smooth_covariance(window, self.kernel)
        lags = [lag for lag in window if any(lag) and inside(lag, near)]
        threshold = float(norm.isf(FALSE_ALARMS / 2 / (len(lags) + 1 + len(near))))
        noise = Model.of(window, c, covariance).fit(nowhere, lags, threshold).noise
        if noise < LEAST_ROUGH:
            return replace(nothing, unknown=SMOOTH)

        stripes, stripe_bound = self._stripes(seen, noise, threshold, variance[0] * seen.values)
        striped = [share > bound for share, bound in zip(stripes, stripe_bound, strict=True)]
        for axis in range(len(near)):
            if striped[axis]:  # with few lines their autocorrelation is not quite white
                covariance += stripes[axis] ** 2 * line_covariance(window, axis)

        model = Model.of(window, c, covariance)
        boxes = sorted(itertools.product(*(range(n + 1) for n in near)), key=size_of)
        fits = (model.fit(box, lags, threshold) for box in boxes)
        fit = next(fit for fit in fits if fit.unexplained <= 1)  # at the latest the one with all lags
        if fit.noise < LEAST_ROUGH:
            return replace(nothing, unknown=SMOOTH)
        box = fit.box
        for axis in range(len(near)) if any(box) else ():
            along = [float(c[window.index(longer(nowhere, axis, n))]) for n in range(near[axis] + 1)]
            while box[axis] < near[axis] and along[box[axis] + 1] > SUSPECT:
                box = longer(box, axis)

        result = NoiseCorrelation(
            lags=tuple(lags),
            correlation=tuple(fit.correlation.tolist()),
            error=tuple(fit.error.tolist()),
            bound=tuple(fit.bound.tolist()),
            stripes=tuple(stripes),
            stripe_bound=tuple(stripe_bound),
            blind_spot=tuple(n - 1 if s else b for s, b, n in zip(striped, box, self.space, strict=True)),
            values=seen.values,
        )
        if any(striped) or (any(box) and (self.blind or fit.positive)):
            return result
        if any(box):
            return replace(result, blind_spot=nowhere, unknown=NEGATIVE)
        if min(b for lag, b in zip(lags, result.bound, strict=True) if distance(lag) == 1) > WEAKEST:
            return replace(
                result, unknown=f"{seen.values} values are too few to see r = {WEAKEST} between neighbours"
            )
        return result

    def _stripes(
        self, seen: Autocorrelation, noise: float, threshold: float, spread: float
    ) -> tuple[list[float], list[float]]:
        """The share of the noise that lines along each axis have in common, and what would be significant."""
        shares, bounds = [0.0] * len(self.space), [math.inf] * len(self.space)
        for axis, n in enumerate(self.space):
            lengths = min(FAR, n - 1) - self.reach
            if len(self.space) > 1 and lengths > 0:
                lines = half_box(self.wide[:axis] + self.wide[axis + 1 :])
                c, variance = seen.along(axis, self.reach + 1).at(lines)
                # What lines have in common has the frequency 0 along them, the sum of the kernel.
                covariance = smooth_covariance(lines, self.kernel.sum(axis))
                covariance += np.diag(spread * variance + ROUGHNESS**2 / lengths)
                common = Model.of(lines, c, covariance).fit((), [], threshold)
                shares[axis] = common.noise / noise
                bounds[axis] = max(LIMIT, threshold * common.noise_error / noise)
        return shares, bounds


def _vanished(first: NoiseCorrelation, again: NoiseCorrelation) -> bool:
    """Whether another part of the values shows clearly less than half of a first finding."""
    pairs = [
        (share, other, bound)
        for share, limit, other, bound in zip(
            first.stripes, first.stripe_bound, again.stripes, again.stripe_bound, strict=True
        )
        if share > limit
    ]
    if not pairs and first.worst_lag is not None:
        place = first.lags.index(first.worst_lag)
        sign = math.copysign(1.0, first.correlation[place])
        pairs = [(abs(first.correlation[place]), sign * again.correlation[place], again.bound[place])]
    # A bound is three to four standard errors.
    return all(other < strong / 2 and strong - other > bound / 2 for strong, other, bound in pairs)


def _pass_kernel(noise_band: Array | None, space: Shape) -> Array:
    """The autocorrelation, periodic and with lag 0 first, of structure that fills the pass band evenly."""
    if noise_band is None:
        space = (64,) * len(space)
        axes = [np.fft.fftfreq(n) for n in space[:-1]] + [np.fft.rfftfreq(space[-1])]
        noise_band = sum(f**2 for f in np.meshgrid(*axes, indexing="ij")) > PASS_BAND**2
    noise_band = np.asarray(noise_band)
    expected = (*space[:-1], space[-1] // 2 + 1)
    if noise_band.dtype != bool or noise_band.shape != expected:
        raise InputError(
            f"noise_band is {noise_band.dtype} of the shape {noise_band.shape}; expected bool of the shape "
            f"{expected}, as numpy.fft.rfftn lays out the frequencies of a measurement of the shape {space}"
        )
    if noise_band.mean() < 0.1:
        raise InputError(
            "noise_band leaves less than a tenth of all frequencies to noise; too few to judge it"
        )
    return irfftn((~noise_band).astype(np.float64), space)


def _checked(residual: Any) -> tuple[Array, float]:
    """The residual in double precision with NaN where unknown, and the size of its rounding errors."""
    if isinstance(residual, Tensor):
        residual = residual.detach().cpu().numpy()
    given = check_image(residual, name="residual", allow_nan=True)
    if not 3 <= given.ndim <= 5:
        raise InputError(
            f"the residual has the shape {given.shape}; expected batch, channel and 1 to 3 spatial axes"
        )
    array = given.astype(np.float64)
    array[~np.isfinite(array)] = np.nan
    precision = np.finfo(given.dtype if given.dtype.kind == "f" else np.float64).eps
    return array, ROUNDED * float(precision) * float(np.nanmax(np.abs(array)))


def _values(n: int) -> str:
    return f"{n} value" if n == 1 else f"{n} values"
