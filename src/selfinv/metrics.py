"""How close an image is to a reference: by pixel (PSNR, SSIM, MI) and by frequency (SMI, concordance, FRC).

Every function takes two real arrays of one shape, with any number of axes, computes in double precision, and
raises `InputError` if their shapes differ, if either is complex, empty or not finite, or if the first is
constant. Nothing is clipped or rescaled, except by `scores` where the caller asks for it.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from selfinv.spectrum import taper as cosine_window
from selfinv.types import Array, InputError, check_image, check_integer, check_number, shown


def psnr(reference: npt.ArrayLike, image: npt.ArrayLike, data_range: float = 1.0) -> float:
    r"""Peak signal-to-noise ratio in dB, :math:`10 \log_{10}(R^2 / \mathrm{MSE})`; infinite if identical.

    Any shape. Raises `InputError` as said above, or if ``data_range`` (:math:`R`) is not positive.
    Source: Wang & Bovik 2009, doi:10.1109/MSP.2008.930649.

    >>> round(psnr(np.array([0.0, 1.0]), np.array([0.1, 1.1])), 6)
    20.0
    """
    x, y = _pair(reference, image)
    data_range = check_number(data_range, "data_range", above=0.0)
    error = float(np.mean(((x - y) / data_range) ** 2))
    return float("inf") if error == 0 else float(-10 * np.log10(error))


def ssim(reference: npt.ArrayLike, image: npt.ArrayLike, data_range: float) -> float:
    """Structural similarity, -1…1 with 1 for identical images: scikit-image's with its defaults.

    Any shape of at least 3 along every axis: the window is 7 wide, or the largest odd number that fits.
    Variances are of the images less their means, so that a level takes no digits from them.
    Raises `InputError` as said above, if an axis is shorter than 3, or if ``data_range`` is not positive.
    Source: Wang et al. 2004, doi:10.1109/TIP.2003.819861.

    >>> round(ssim(np.eye(16), np.eye(16), data_range=1), 6)
    1.0
    """
    from scipy.ndimage import uniform_filter

    x, y = _pair(reference, image)
    data_range = check_number(data_range, "data_range", above=0.0)
    x, y = x / data_range, y / data_range
    shortest = min(x.shape)
    if shortest < 3:
        raise InputError(f"SSIM needs 3 values or more along every axis; the images have the shape {x.shape}")
    window = min(7, shortest - 1 + shortest % 2)
    inside = (slice(window // 2, -(window // 2)),) * x.ndim  # where the window does not reach beyond

    def local(v: Array) -> Array:
        return np.asarray(uniform_filter(v, window)[inside])

    levels = x.mean(), y.mean()
    x, y = x - levels[0], y - levels[1]
    mean_x, mean_y = local(x), local(y)
    unbiased = window**x.ndim / (window**x.ndim - 1)
    spread = unbiased * (local(x * x) + local(y * y) - mean_x**2 - mean_y**2)
    covariance = unbiased * (local(x * y) - mean_x * mean_y)
    bright_x, bright_y = mean_x + levels[0], mean_y + levels[1]
    luminance = (2 * bright_x * bright_y + 0.01**2) / (bright_x**2 + bright_y**2 + 0.01**2)
    return float((luminance * (2 * covariance + 0.03**2) / (spread + 0.03**2)).mean())


def mutual_information(a: npt.ArrayLike, b: npt.ArrayLike, bins: int = 256) -> float:
    r"""Mutual information over joint entropy, :math:`I(a;b)/H(a,b)`: 0 if independent, 1 if one-to-one.

    From a joint histogram over each image's own range. Any shape; 0 if ``b`` is constant. It is biased upward
    where the histogram holds few values per cell: compare images of one size.
    Raises `InputError` as said above, or if ``bins`` is below 2. Source: Rajski 1961,
    doi:10.1016/S0019-9958(61)80055-7; Russakoff et al. 2004, doi:10.1007/978-3-540-24672-5_47.

    >>> round(mutual_information(np.arange(16), -3 * np.arange(16), bins=4), 6)
    1.0
    """
    x, y = _pair(a, b)
    check_integer(bins, "bins", least=2)
    joint = np.histogram2d(x.ravel(), y.ravel(), bins=bins)[0] / x.size
    h_x, h_y, h_xy = (-float(p[p > 0] @ np.log(p[p > 0])) for p in (joint.sum(1), joint.sum(0), joint))
    return max(0.0, (h_x + h_y - h_xy) / h_xy)


def spectral_mutual_information(a: npt.ArrayLike, b: npt.ArrayLike, bins: int = 256) -> float:
    """The paper's SMI, 0…1: `mutual_information` between the DCT-II of the images over their L2 norms.

    Any shape (transformed over all axes); 0 if ``b`` is zero. As published, and badly conditioned: the DC
    coefficient sets the histogram's range, nearly all others share a bin or two, and the score depends on
    where the edge between these falls. Adding 0.01 to an image can turn 0.09 into 0.5.
    Raises `InputError` as `mutual_information` does. Source: Kobayashi et al. 2020, arXiv:2006.06156.

    >>> round(spectral_mutual_information(np.arange(16), 2 * np.arange(16)), 6)
    1.0
    """
    from scipy.fft import dctn

    # In units near the values', lest squares overflow or vanish; of a power of two: nothing is rounded.
    held = (np.ldexp(v, -int(np.frexp(np.abs(v).max())[1])) for v in _pair(a, b))
    x, y = (dctn(v / (np.linalg.norm(v) or 1.0)) for v in held)
    return mutual_information(x, y, bins)


def spectral_concordance(
    reference: npt.ArrayLike, image: npt.ArrayLike, *, data_range: float | None = None, floor: float = 0.01
) -> float:
    r"""A well-conditioned spectral score, 0…1: the concordance of the compressed DCT coefficients.

    With :math:`u, v = \operatorname{arsinh}(\mathrm{DCT}/(R f))` of the images less their means (orthonormal
    DCT-II, any shape), it is :math:`\max(0, 2\langle u, v\rangle / (\|u\|^2 + \|v\|^2))`: 1 only for images
    equal up to a constant. :math:`R` is the ``data_range`` (None: the reference's maximum less its minimum;
    if given, the score is symmetric), :math:`f` the ``floor``.

    The logarithm lets every frequency count, not the strongest alone; those below the floor (white noise of
    1 % of the range) fade, so that the 8-bit rounding of a reference does not decide; and it is smooth, which
    histograms are not. Unlike a correlation ring by ring, it also falls with blur.

    Raises `InputError` as said above, or if ``data_range`` or ``floor`` is not positive. Source: the
    concordance of Lin 1989, doi:10.2307/2532051, about zero, since the signs of a DCT are arbitrary.

    >>> round(spectral_concordance(np.eye(8), 1 + np.eye(8)), 6), spectral_concordance(np.eye(8), -np.eye(8))
    (1.0, 0.0)
    """
    from scipy.fft import dctn

    x, y = _pair(reference, image)
    full = check_number(_range(x) if data_range is None else data_range, "data_range", above=0.0)
    scale = full * check_number(floor, "floor", above=0.0)
    u, v = (np.arcsinh(dctn(w - w.mean(), norm="ortho") / scale) for w in (x, y))
    return max(0.0, float(2 * np.vdot(u, v) / (np.vdot(u, u) + np.vdot(v, v))))


def fourier_ring_correlation(
    a: npt.ArrayLike,
    b: npt.ArrayLike,
    *,
    bins: int | None = None,
    spacing: float | tuple[float, ...] | None = None,
    taper: float = 0.25,
) -> tuple[Array, Array]:
    r"""Correlation of two images, -1…1, in each ring (2-D) or shell (3-D) of spatial frequency.

    :math:`\mathrm{Re}\sum F \bar G / \sqrt{\sum|F|^2 \sum|G|^2}` over each ring; 0 where either has no power.
    Two images of one signal with independent noise of one strength give SNR/(1 + SNR).
    Returns the frequencies (in cycles per pixel, or in 1/µm with ``spacing`` in µm) and the correlation, two
    arrays of length ``bins``. Raises `InputError` as said above, or if an argument does not fit. Source:
    Saxton & Baumeister 1982, doi:10.1111/j.1365-2818.1982.tb00405.x; Nieuwenhuizen et al. 2013,
    doi:10.1038/nmeth.2448.

    Parameters
    ----------
    a, b
        Any shape; axes of length 1 are ignored, the others need 4 values or more.
    bins
        The number of rings, evenly spaced up to the Nyquist frequency of the coarsest axis; None takes what
        the shortest axis resolves, or 16 if that is less and the longest axis resolves these.
    spacing
        The pixel size, one for all axes or one per axis; None means 1.
    taper
        The fraction of each axis, 0…1, over which a Tukey window fades out (0: no window, 1: Hann), since the
        jumps between opposite edges of a periodic image correlate too.

    >>> frequencies, correlation = fourier_ring_correlation(np.eye(32), np.eye(32))
    >>> frequencies[[0, -1]], bool(np.allclose(correlation, 1))
    (array([0.03125, 0.5    ]), True)
    """
    from scipy.fft import fftfreq, rfftfreq, rfftn

    x, y = _pair(a, b)
    pixel = np.ones(1) if spacing is None else np.atleast_1d(np.asarray(spacing, dtype=float))
    if pixel.shape not in ((1,), (x.ndim,)) or not (np.isfinite(pixel) & (pixel > 0)).all():
        raise InputError(
            f"spacing is {spacing}; expected one positive length, or one for each axis of {x.shape}"
        )
    pixel = np.broadcast_to(pixel, x.ndim)[[n > 1 for n in x.shape]]
    x, y = x.squeeze(), y.squeeze()
    if min(x.shape) < 4:
        raise InputError(f"Fourier ring correlation needs 4 values or more along every axis, not {x.shape}")
    check_number(taper, "taper", least=0.0, most=1.0)

    nyquist = 0.5 / float(pixel.max())
    # How many multiples of its frequency step each axis has up to there; the addend undoes rounding.
    resolved = np.floor(nyquist * pixel * x.shape + 1e-9).astype(int)
    most = int(resolved.max())
    least = max(int(resolved.min()), min(16, most))
    count = least if bins is None else check_integer(bins, "bins", least=1)
    if not 1 <= count <= most:
        raise InputError(f"bins is {bins}; expected 1 to {most}, what the longest axis resolves")

    window = cosine_window(x.shape, taper)
    f, g = (rfftn((v - v.mean()) * window) for v in (x, y))

    steps = [fftfreq(n, d) for n, d in zip(x.shape[:-1], pixel[:-1], strict=True)]
    grid = np.meshgrid(*steps, rfftfreq(x.shape[-1], pixel[-1]), indexing="ij", sparse=True)
    radius = np.sqrt(sum(k**2 for k in grid))
    # Ring 0 is the mean, which was taken away; ring count + 1 gathers the corners beyond Nyquist.
    # The addend sends a frequency on the edge of two rings outwards, whatever the spacing's rounding.
    ring = np.minimum(np.floor(radius * (count / nyquist) + 0.5 + 1e-9).astype(int), count + 1).ravel()
    # rfftn keeps one of two conjugate frequencies, except along the planes that are their own conjugates.
    weight = np.full(f.shape, 2.0)
    weight[..., 0] = 1
    if x.shape[-1] % 2 == 0:
        weight[..., -1] = 1
    cross, power_f, power_g = (
        np.bincount(ring, (weight * v).ravel(), count + 2)[1:-1]
        for v in ((f * g.conj()).real, np.abs(f) ** 2, np.abs(g) ** 2)
    )
    power = np.sqrt(power_f) * np.sqrt(power_g)
    correlation = np.divide(cross, power, out=np.zeros(count), where=power > 0)
    return nyquist / count * np.arange(1, count + 1), correlation


def resolution(frequencies: npt.ArrayLike, correlation: npt.ArrayLike, threshold: float = 1 / 7) -> float:
    """The finest resolved period: 1 / the frequency at which the correlation first falls below ``threshold``.

    From the two 1-D arrays of `fourier_ring_correlation`, linear between rings, in pixels or the unit of
    ``spacing``: the last ring's period if none falls below, infinity if the first does. 1/7 is for two
    independent noisy images; with a noise-free reference the same point lies at 0.5.
    Raises `InputError` unless both are 1-D, of one length, and the frequencies increase. Source: Rosenthal &
    Henderson 2003, doi:10.1016/j.jmb.2003.07.013; Nieuwenhuizen et al. 2013, doi:10.1038/nmeth.2448.

    >>> round(resolution([0.1, 0.2, 0.3], [1.0, 0.6, 0.4], threshold=0.5), 6)
    4.0
    """
    f, c = np.asarray(frequencies, dtype=float), np.asarray(correlation, dtype=float)
    if f.ndim != 1 or f.shape != c.shape or f.size == 0 or (np.diff(f) <= 0).any():
        raise InputError(
            f"expected increasing 1-D frequencies and as many values, got {f.shape} and {c.shape}"
        )
    below = np.flatnonzero(c < threshold)
    if below.size == 0:
        return float(1 / f[-1])
    i = int(below[0])
    if i == 0:
        return float("inf")
    return float(1 / (f[i - 1] + (f[i] - f[i - 1]) * (c[i - 1] - threshold) / (c[i - 1] - c[i])))


def frc_area(correlation: npt.ArrayLike) -> float:
    """The mean over the rings of a `fourier_ring_correlation`, -1…1: 1 if identical, 0 if unrelated.

    Raises `InputError` if ``correlation`` is empty.

    >>> frc_area([1.0, 0.5, 0.0])
    0.5
    """
    values = np.asarray(correlation, dtype=float)
    if values.size == 0:
        raise InputError("the correlation is empty; expected the second result of fourier_ring_correlation")
    return float(values.mean())


def scores(
    reference: npt.ArrayLike,
    image: npt.ArrayLike,
    *,
    data_range: float | None = None,
    clip: tuple[float, float] | None = None,
) -> dict[str, float]:
    """Every score of an image of any shape against its reference, by name; in all of them higher is better.

    ``psnr``, ``ssim_range2`` (as in the paper: with twice the range), ``ssim``, ``mi``, ``smi``, ``spectral``
    (`spectral_concordance`), ``frc`` (`frc_area`). ``data_range`` None takes the reference's maximum less its
    minimum; ``clip`` limits the image, not the reference, first: the paper's convention is ``clip=(0, 1)``.
    Raises `InputError` as said above, if an axis is shorter than 4, or if either option is not a range.

    >>> list(scores(np.eye(8), np.eye(8) + 0.1))
    ['psnr', 'ssim_range2', 'ssim', 'mi', 'smi', 'spectral', 'frc']
    """
    x, y = _pair(reference, image)
    full = check_number(_range(x) if data_range is None else data_range, "data_range", above=0.0)
    if clip is not None:
        try:
            low, high = clip
            ordered = bool(low < high)
        except (TypeError, ValueError):
            ordered = False
        if not ordered:
            raise InputError(f"clip is {shown(clip)}; expected (low, high) with low < high")
        y = np.clip(y, low, high)
    # In units near the range, lest squares overflow; of a power of two, so that nothing is rounded.
    unit = -int(np.frexp(full)[1])
    x, y, full = np.ldexp(x, unit), np.ldexp(y, unit), float(np.ldexp(full, unit))
    return {
        "psnr": psnr(x, y, full),
        "ssim_range2": ssim(x, y, 2 * full),
        "ssim": ssim(x, y, full),
        "mi": mutual_information(x, y),
        "smi": spectral_mutual_information(x, y),
        "spectral": spectral_concordance(x, y, data_range=full),
        "frc": frc_area(fourier_ring_correlation(x, y)[1]),
    }


def _pair(a: npt.ArrayLike, b: npt.ArrayLike) -> tuple[Array, Array]:
    """Both as float64, checked."""
    x, y = (check_image(v, name=name, allow_nan=True) for name, v in (("reference", a), ("image", b)))
    for name, array in (("reference", x), ("image", y)):
        if not np.isfinite(array).all():
            raise InputError(f"{name} has NaN or infinite values, which have no score; crop or replace them")
    if x.shape != y.shape:
        raise InputError(f"reference has the shape {x.shape} but the image {y.shape}; expected the same")
    x, y = x.astype(np.float64), y.astype(np.float64)
    if _range(x) == 0:
        raise InputError(
            f"reference is constant ({x.flat[0]:.6g} everywhere): nothing can be scored against it"
        )
    return x, y


def _range(x: Array) -> float:
    return float(x.max() - x.min())
