"""Scores of a restored image, by the conventions of the paper where there is a truth, and without one."""

from __future__ import annotations

import numpy as np

from selfinv import metrics
from selfinv.types import Array

METRICS = ("psnr", "ssim_range2", "ssim", "mi", "smi", "spectral", "frc")
LABELS = {
    "psnr": "PSNR (dB)",
    "ssim_range2": "SSIM, range 2",
    "ssim": "SSIM, range 1",
    "mi": "MI",
    "smi": "SMI",
    "spectral": "spectral",
    "frc": "FRC",
}


def clipped_psnr(truth: Array, image: Array) -> float:
    """PSNR of an image cut to 0…1, in dB."""
    return metrics.psnr(truth, np.clip(image, 0.0, 1.0))


def against_truth(truth: Array, image: Array, *, fit: bool = False) -> dict[str, float]:
    """Every score of `selfinv.metrics.scores`, and the two parts of the error.

    Parameters
    ----------
    truth
        From 0 to 1.
    image
        Same shape; cut to 0…1 before it is scored, as in the paper.
    fit
        Scale and shift the image to the truth first (least squares), where its units are its own.
    """
    values = image.astype(np.float64)
    if fit:
        slope, offset = np.polyfit(values.ravel(), truth.ravel().astype(np.float64), 1)
        values = slope * values + offset
    blur, noise = blur_and_noise(truth, np.clip(values, 0, 1))
    scores = metrics.scores(truth, values, data_range=1.0, clip=(0.0, 1.0))
    return {name: scores[name] for name in METRICS} | {"blur_rms": blur, "noise_rms": noise}


def blur_and_noise(truth: Array, image: Array) -> tuple[float, float]:
    r"""The root-mean-square error's two parts: what of the truth is missing, and what is not of the truth.

    In each ring of spatial frequency the image's spectrum is :math:`\hat X = aX + N` with :math:`a` by least
    squares; :math:`(1 - a)X` is the lost (or exaggerated) detail, :math:`N` noise and artefacts. As they are
    orthogonal, the squares of both add up to the mean squared error.

    Examples
    --------
    >>> x = np.random.default_rng(0).normal(size=(32, 32))
    >>> tuple(round(part, 6) for part in blur_and_noise(x, 0.5 * x))[1]
    0.0
    """
    x, y = truth.astype(np.float64), image.astype(np.float64)
    f, g = np.fft.fftn(x), np.fft.fftn(y)
    radius = np.sqrt(
        sum(k**2 for k in np.meshgrid(*(np.fft.fftfreq(n) for n in x.shape), indexing="ij", sparse=True))
    )
    ring = np.floor(radius * min(x.shape) + 0.5).astype(int).ravel()
    power = np.bincount(ring, (np.abs(f) ** 2).ravel())
    gain = np.bincount(ring, (f.conj() * g).real.ravel()) / np.maximum(power, 1e-30)
    along = gain[ring].reshape(x.shape) * f
    lost, added = np.sum(np.abs(f - along) ** 2), np.sum(np.abs(g - along) ** 2)
    return float(np.sqrt(lost) / x.size), float(np.sqrt(added) / x.size)


def without_truth(
    image: Array, predicted: Array, measured: Array, hidden: Array, hidden_values: Array
) -> dict[str, float]:
    """What can be said of a restored bead: predictions of hidden values, width, flux.

    ``held_out`` is the part of the hidden values' variance that is explained, at most 1; ``width_…`` the
    extent at half maximum along each axis, in voxels; ``flux`` the sum of what the image would measure, above
    the dark (the lowest hundredth of what was measured), over the measurement's. The image's own sum is no
    measure of it: light of what lies beyond its edges falls into the frame, and light of what lies inside out
    of it.

    Parameters
    ----------
    image
        What was restored.
    predicted, measured
        Of the same shape, NaN where nothing was measured.
    hidden, hidden_values
        Where values were hidden from the method, and these values.
    """
    spread = float(np.var(hidden_values.astype(np.float64)))
    error = float(np.mean((predicted[hidden].astype(np.float64) - hidden_values) ** 2))
    scores = {"held_out": 1.0 - error / spread if spread > 0 else float("nan")}
    axes = "zyx"[-image.ndim :]
    for axis, width in zip(axes, half_maximum_widths(image), strict=True):
        scores[f"width_{axis}"] = width
    known = np.isfinite(measured)
    dark = np.percentile(measured[known], 1.0)
    flux = [float(np.sum(v[known] - dark, dtype=np.float64)) for v in (predicted, measured)]
    return scores | {"flux": flux[0] / flux[1] if flux[1] else float("nan")}


def half_maximum_widths(image: Array) -> list[float]:
    """Extent at half maximum through the brightest value along each axis, above the median, in samples.

    Examples
    --------
    >>> half_maximum_widths(np.array([0.0, 0, 1, 2, 1, 0, 0]))
    [2.0]
    """
    values = image.astype(np.float64) - float(np.median(image))
    peak = np.unravel_index(int(np.argmax(values)), values.shape)
    widths = []
    for axis in range(values.ndim):
        line = values[tuple(slice(None) if a == axis else p for a, p in enumerate(peak))]
        half, centre = line[peak[axis]] / 2, int(peak[axis])
        ends = []
        for direction in (-1, 1):
            i = centre
            while 0 <= i + direction < line.size and line[i + direction] > half:
                i += direction
            j = i + direction
            inside = 0 <= j < line.size and line[i] > line[j]
            ends.append(abs(i - centre) + ((line[i] - half) / (line[i] - line[j]) if inside else 0.5))
        widths.append(float(sum(ends)))
    return widths
