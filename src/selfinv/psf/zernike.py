r"""The PSF of an objective with aberrations, told as Zernike terms of the pupil's phase.

The scalar field at :math:`\mathbf r = (y, x)` in the plane of focus is

.. math:: U(\mathbf r) = \int_{|\mathbf p| \le 1} e^{iW(\mathbf p) - ik\,\mathrm{NA}\,\mathbf p\cdot\mathbf r}
          \, d\mathbf p, \qquad W = W_0 + 2\pi \sum_j a_j Z_j,

with :math:`W_0` the phase of the Gibson–Lanni model and :math:`Z_j` Noll's polynomials, whose mean square
over the pupil is 1: :math:`a_j` is the term's rms in waves. Rows of the pupil are chords; with
:math:`p_y = \sin t` and :math:`p_x = s \cos t` the integrand is smooth up to the pupil's edge, and Gauss's
rule converges geometrically.

References
----------
R. J. Noll, J. Opt. Soc. Am. 66, 207 (1976), doi:10.1364/JOSA.66.000207.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from functools import lru_cache
from typing import Any

import numpy as np
import numpy.typing as npt

from selfinv.psf.checks import per_axis
from selfinv.psf.gibson_lanni import Objective, best_focus, pupil_phases
from selfinv.types import Floats, InputError, check_number, check_shape

#: Noll's indices of the terms that have a name.
TERMS = {
    "tilt_x": 2,
    "tilt_y": 3,
    "defocus": 4,
    "oblique_astigmatism": 5,
    "astigmatism": 6,
    "coma_y": 7,
    "coma_x": 8,
    "trefoil_y": 9,
    "trefoil_x": 10,
    "spherical": 11,
}

_TOLERANCE = 1e-7  # of the maximum: how much finer quadrature may still change the PSF
_MOST_NODES = 500


def zernike(
    shape: Sequence[int],
    optics: Objective,
    terms: Mapping[Any, float],
    *,
    pixel_size: float | Sequence[float],
    defocus: float = 0.0,
    particle_depth: float = 0.0,
    normalise: bool = True,
) -> Floats:
    """A plane of a widefield microscope's PSF with aberrations, right to 1e-6 of its maximum.

    Parameters
    ----------
    shape
        ``(ny, nx)``.
    optics
        The microscope, as of `gibson_lanni`; a mismatch with its design aberrates, too.
    terms
        Coefficients in waves rms, by name (``"defocus"``, ``"astigmatism"``, ``"oblique_astigmatism"``,
        ``"coma_x"``, ``"coma_y"``, ``"trefoil_x"``, ``"trefoil_y"``, ``"spherical"``, ``"tilt_x"``,
        ``"tilt_y"``) or by Noll's index, 2 or more. ``_x`` terms go with the cosine of the angle from the x
        axis towards y, ``_y`` ones with its sine; a positive tilt displaces towards larger x or y.
    pixel_size
        Pixel size in the sample, µm: one number, or ``(y, x)``. Intensity is sampled at the pixels' centres.
    defocus
        Distance from `best_focus`, µm, exact at any NA; it adds to the term of that name, which is parabolic:
        at low NA they agree for ``terms["defocus"] = defocus * na**2 / (4 * sqrt(3) * ni * wavelength)``.
    particle_depth
        Distance of the particle from the cover slip into the sample, µm.
    normalise
        Divide by the sum; else each value is its pixel's share of all the light.

    Returns
    -------
    Array of ``shape``, centre at ``n // 2``, sum 1. Terms of even angular order (defocus, astigmatism,
    spherical) all negated together give the same PSF if nothing else aberrates; those of odd order (coma,
    trefoil), its mirror image through the centre.

    Raises
    ------
    InputError
        If a term is unknown or not finite, if the shape or a length is no such thing, or if the phase is too
        steep to be computed.

    References
    ----------
    R. J. Noll, J. Opt. Soc. Am. 66, 207 (1976), doi:10.1364/JOSA.66.000207.

    Examples
    --------
    >>> optics = Objective(na=0.8, wavelength=0.6)
    >>> zernike((17, 17), optics, {"astigmatism": 0.1, "spherical": -0.05}, pixel_size=0.3).shape
    (17, 17)
    """
    sizes = check_shape(shape, (2,))
    coefficients = check_terms(terms)
    check_number(defocus, "defocus")
    wave = 2 * math.pi / optics.wavelength
    position = np.array([best_focus(optics, particle_depth) + defocus])

    def phase(y: Floats, x: Floats) -> Floats:
        (total,) = pupil_phases(position, optics, particle_depth, np.hypot(y, x), wave)
        for term, waves in coefficients.items():
            total = total + 2 * math.pi * waves * zernike_polynomial(term, y, x)
        return total

    pixels = [wave * optics.na * size for size in per_axis("pixel_size", pixel_size, 2)]
    y, x = (size * (np.arange(n, dtype=np.float64) - n // 2) for n, size in zip(sizes, pixels, strict=True))
    # Across a chord the kernel turns by twice its largest argument; Gauss's rule needs half as many nodes.
    count = math.ceil(0.6 * max(np.abs(y).max(), np.abs(x).max())) + 20
    coarse = _intensity(y, x, phase, count)
    while count <= _MOST_NODES:
        count = math.ceil(1.3 * count)
        fine = _intensity(y, x, phase, count)
        if np.abs(fine - coarse).max() < _TOLERANCE * fine.max():
            # By Parseval's theorem |U|² integrates to (2π)² times the pupil's area over the plane.
            return fine / (fine.sum() if normalise else 4 * math.pi**3 / math.prod(pixels))
        coarse = fine
    raise InputError(
        "the phase is too steep over the pupil to be computed; lower the terms, the defocus, or the shape"
    )


def zernike_polynomial(term: str | int, y: npt.ArrayLike, x: npt.ArrayLike) -> Floats:
    """Noll's Zernike polynomial at points of the unit disc; its mean square over the disc is 1.

    Parameters
    ----------
    term
        A name or Noll's index, as of `zernike`; 1 is the constant.
    y, x
        Of shapes that broadcast; 1 at the pupil's edge.

    Raises
    ------
    InputError
        If there is no such term.

    References
    ----------
    R. J. Noll, J. Opt. Soc. Am. 66, 207 (1976), doi:10.1364/JOSA.66.000207.

    Examples
    --------
    >>> float(zernike_polynomial("defocus", 0.0, 1.0))  # √3 (2ρ² − 1)
    1.7320508075688772
    """
    n, m = orders(term)
    y, x = np.asarray(y, dtype=np.float64), np.asarray(x, dtype=np.float64)
    square = y**2 + x**2
    turns = abs(m)
    # Divided by ρ^|m|, which the angular factor below brings, the radial part is a polynomial in ρ².
    radial: Floats = np.zeros_like(square)
    for s in range((n - turns) // 2 + 1):
        ways = math.comb(n - s, s) * math.comb(n - 2 * s, (n - turns) // 2 - s)
        radial = radial + (-1) ** s * ways * square ** ((n - turns) // 2 - s)
    angular = (x + 1j * y) ** turns
    norm = math.sqrt((n + 1) * (2 if turns else 1))
    return np.asarray(norm * radial * (angular.imag if m < 0 else angular.real), dtype=np.float64)


def orders(term: str | int) -> tuple[int, int]:
    """Radial order and angular order, negative for sines, of a term; `InputError` if there is no such term.

    Examples
    --------
    >>> orders("spherical"), orders("coma_y"), orders(14)
    ((4, 0), (3, -1), (4, 4))
    """
    j = _noll_index(term)
    n = next(n for n in range(j) if (n + 1) * (n + 2) // 2 >= j)
    place = j - n * (n + 1) // 2
    m = 2 * (place // 2) if n % 2 == 0 else 2 * ((place - 1) // 2) + 1
    return n, -m if j % 2 else m


def check_terms(terms: Mapping[Any, float]) -> dict[str, float]:
    """Coefficients by name, or by Noll's index as a word where it has none; `InputError` if one is wrong."""
    names = {index: name for name, index in TERMS.items()}
    found: dict[str, float] = {}
    for term, waves in terms.items():
        index = _noll_index(term)
        name = names.get(index, str(index))
        if index == 1:
            raise InputError("Noll's term 1, the constant, changes nothing; leave it out")
        if name in found:
            raise InputError(f"the term {name!r} (Noll's index {index}) is given twice; give it once")
        found[name] = check_number(waves, name)
    return found


def _noll_index(term: str | int) -> int:
    if term in TERMS:
        return TERMS[str(term)]
    try:
        index = int(term)
    except (TypeError, ValueError, OverflowError):
        index = 0
    if not 1 <= index <= 231 or index != float(term):  # 231 terms make the orders up to 20
        raise InputError(
            f"there is no Zernike term {term!r}; use {', '.join(TERMS)}, or Noll's index, 2 to 231"
        )
    return index


def _intensity(y: Floats, x: Floats, phase: Callable[[Floats, Floats], Floats], count: int) -> Floats:
    """|U|² at ``y`` × ``x``, in units of 1 / (k NA), by ``count`` chords of as many nodes."""
    nodes, weights = _gauss(count)
    angle = nodes * math.pi / 2
    rows, widths = np.sin(angle), np.cos(angle)
    columns = widths[:, None] * nodes
    area = (weights * math.pi / 2 * widths**2)[:, None] * weights
    pupil = area * np.exp(1j * phase(rows[:, None], columns))
    chords = np.stack([np.exp(-1j * np.outer(x, c)) @ p for c, p in zip(columns, pupil, strict=True)])
    field = np.exp(-1j * np.outer(y, rows)) @ chords
    return np.asarray(field.real**2 + field.imag**2, dtype=np.float64)


@lru_cache(maxsize=32)
def _gauss(count: int) -> tuple[Floats, Floats]:
    nodes, weights = np.polynomial.legendre.leggauss(count)
    return nodes, weights
