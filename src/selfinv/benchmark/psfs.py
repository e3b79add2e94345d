"""The point spread functions of the tracks, by name."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from selfinv import io, psf
from selfinv.demo import DEFOCUS, NA, microscope_psf
from selfinv.types import Array, InputError

SHAPE = (17, 17)
OFF = (-20, -10, 10, 20)  # percent

NAMES = (
    "benchmark",
    "model",
    "in-focus",
    "defocused",
    "motion",
    "asymmetric",
    *(f"na{p:+d}%" for p in OFF),
    *(f"defocus{p:+d}%" for p in OFF),
)


def benchmark_psf(file: Path | None) -> Array:
    """The PSF of a file, or the paper's microscope by our own Gibson-Lanni model; sum 1.

    Raises
    ------
    InputError
        If the file is no PSF of two axes (`selfinv.psf.check_psf`).
    """
    if file is None:
        return microscope_psf()
    kernel = io.read(file).data.astype(np.float64)
    try:
        psf.check_psf(kernel, 2)
        return psf.normalise(kernel)
    except InputError as error:
        raise InputError(f"{file}: {error}") from None


def named(name: str, file: Path | None = None) -> Array:
    """The PSF of a name in `NAMES`, 2-D, sum 1.

    ``benchmark`` is the file's if there is one; ``na-10%`` and the like are the microscope with one parameter
    changed by so much; ``defocused`` is twice as far out of focus as the paper's.

    Raises
    ------
    InputError
        If the name is unknown.
    """
    if name == "benchmark":
        return benchmark_psf(file)
    if name == "model":
        return microscope_psf()
    if name == "in-focus":
        return microscope_psf(defocus=0.0)
    if name == "defocused":
        return microscope_psf(defocus=2 * DEFOCUS)
    if name == "motion":
        return _line(length=11.0, angle=0.5)
    if name == "asymmetric":
        return _coma()
    for parameter in ("na", "defocus"):
        if name.startswith(parameter) and name.endswith("%"):
            factor = 1 + int(name[len(parameter) : -1]) / 100
            return microscope_psf(
                NA * factor if parameter == "na" else NA, DEFOCUS * factor if parameter != "na" else DEFOCUS
            )
    raise InputError(f"there is no PSF {name!r}; use one of {', '.join(NAMES)}")


def _line(length: float, angle: float) -> Array:
    """A straight, even motion of ``length`` pixels at ``angle`` radians."""
    grid = np.arange(SHAPE[0]) - SHAPE[0] // 2
    kernel = np.zeros(SHAPE)
    for t in np.linspace(-0.5, 0.5, 200) * length:
        y, x = t * np.sin(angle), t * np.cos(angle)
        kernel += np.outer(np.clip(1 - np.abs(grid - y), 0, 1), np.clip(1 - np.abs(grid - x), 0, 1))
    return kernel / kernel.sum()


def _coma() -> Array:
    """A bright core with a tail to one side, as of a tilted lens; no symmetry that a flip would keep."""
    grid = np.arange(SHAPE[0]) - SHAPE[0] // 2
    y, x = grid[:, None], grid[None, :]
    kernel = np.zeros(SHAPE)
    for t in np.linspace(0, 1, 40):  # circles that grow as they move away
        kernel += np.exp(-0.5 * ((y - 2.2 * t) ** 2 + (x - 4.5 * t) ** 2) / (0.8 + 1.6 * t) ** 2) * (
            1 - 0.6 * t
        )
    return kernel / kernel.sum()
