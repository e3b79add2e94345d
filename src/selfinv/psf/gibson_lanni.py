r"""The Gibson–Lanni model of a fluorescence microscope's PSF, by a Bessel series.

The scalar field of a point at distance :math:`r` from the axis is

.. math:: U(r) = \int_0^1 J_0(k\,\mathrm{NA}\,r\rho)\, e^{iW(\rho)}\,\rho\,d\rho,

with the phase :math:`W = k \sum_j L_j \sqrt{n_j^2 - \mathrm{NA}^2\rho^2}` summed over the layers that light
crosses, those of the design counted negative. The integrand oscillates fast, but
:math:`e^{iW(\rho)} \approx \sum_m c_m J_0(s_m\rho)` turns it into integrals that have a closed form.

References
----------
S. F. Gibson and F. Lanni, J. Opt. Soc. Am. A 9, 154 (1992), doi:10.1364/JOSAA.9.000154.
J. Li, F. Xue and T. Blu, J. Opt. Soc. Am. A 34, 1029 (2017), doi:10.1364/JOSAA.34.001029.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, fields

import numpy as np
from scipy.linalg import lstsq
from scipy.special import j0, j1

from selfinv.psf.checks import per_axis
from selfinv.types import Floats, InputError, check_number, check_shape

# The basis J0(s_m ρ), s_m = 2.5 m, is denser than the orthogonal one (spacing → π). That makes it a frame in
# which smooth functions converge geometrically, whatever their slope at the pupil's edge.
_SPACING = 2.5
# The series must reach the phase's fastest oscillation, max |W'|, with a margin for the tail to decay.
_REACH, _MARGIN = 1.2, 60.0
_SAMPLES_PER_TERM = 2.5
_MAX_TERMS = 2500
# Error of the fitted pupil that still leaves the PSF right to 1e-6 of its maximum at strong defocus.
_FIT_TOLERANCE = 1e-9
_CHUNK = 4_000_000


@dataclass(frozen=True)
class Objective:
    """A microscope's optics; lengths in µm.

    Parameters
    ----------
    na
        Numerical aperture.
    wavelength
        Emission wavelength in vacuum.
    ni, ni0
        Refractive index of the immersion medium, actual and design (1 air, 1.33 water, 1.515 oil).
    ns
        Refractive index of the sample; None: that of the immersion medium.
    ng, ng0
        Refractive index of the cover slip, actual and design.
    tg, tg0
        Thickness of the cover slip, actual and design; 0 for none. A design value of None is the actual one.
    working_distance
        Design thickness of the immersion layer.

    Raises
    ------
    InputError
        If a length or an index is not positive, or if ``na`` is not below every index that light must cross.

    Examples
    --------
    >>> Objective(na=0.8, wavelength=0.6, ni=1.33).index_of_sample
    1.33
    """

    na: float
    wavelength: float
    ni: float = 1.33
    ns: float | None = None
    ng: float = 1.515
    tg: float = 170.0
    ni0: float | None = None
    ng0: float | None = None
    tg0: float | None = None
    working_distance: float = 150.0

    def __post_init__(self) -> None:
        for field in fields(self):
            value = getattr(self, field.name)
            if value is None and field.default is None:
                continue
            if field.name not in ("tg", "tg0") or value != 0:  # no cover slip is a thickness of 0
                check_number(value, field.name, above=0.0)
        if self.wavelength > 50:
            raise InputError(
                f"wavelength={self.wavelength:g} µm is not light; lengths are in µm, so pass 0.6 for 600 nm"
            )
        for name in ("ni", "ni0", "ng", "ng0"):
            index = getattr(self, name)
            if index is not None and self.na >= index:
                raise InputError(
                    f"na={self.na:g} is not below the refractive index {name}={index:g}: "
                    f"no light is that steep; lower na or give the right {name} "
                    f"(air 1, water 1.33, oil 1.515, glass 1.52)"
                )

    @property
    def index_of_sample(self) -> float:
        """The sample's refractive index."""
        return self.ni if self.ns is None else self.ns

    def layers(self, particle_depth: float = 0.0) -> list[tuple[float, float]]:
        """Thickness and refractive index of the layers at the design setting; the design's count negative."""
        ni0 = self.ni if self.ni0 is None else self.ni0
        ng0 = self.ng if self.ng0 is None else self.ng0
        tg0 = self.tg if self.tg0 is None else self.tg0
        layers = [
            (particle_depth, self.index_of_sample),
            (self.tg, self.ng),
            (-tg0, ng0),
            (self.working_distance, self.ni),
            (-self.working_distance, ni0),
        ]
        # Light need not fit through a layer that is not there.
        return [layer for layer in layers if layer[0]]


def best_focus(optics: Objective, particle_depth: float = 0.0) -> float:
    """How far the objective must move towards the sample, from its design distance, to focus the particle.

    Best focus is where the phase varies least over the pupil (in the mean square), which is where the peak is
    brightest as long as aberrations are small. With matched indices it is ``particle_depth`` itself.

    Parameters
    ----------
    optics
        The microscope.
    particle_depth
        Distance of the particle from the cover slip into the sample, µm.

    Returns
    -------
    Distance in µm.

    Raises
    ------
    InputError
        If the depth is negative, or if the particle's light does not fit through the sample's index.
    """
    _check_depth(optics, particle_depth)
    u, weight = np.polynomial.legendre.leggauss(200)
    weight = weight / 2  # over the pupil's area: ρ dρ = d(ρ²)/2
    rho = np.sqrt((u + 1) / 2)
    path = sum(length * _cosine(optics, index, rho) for length, index in optics.layers(particle_depth))
    axial = _cosine(optics, optics.ni, rho)
    axial = axial - weight @ axial
    return float(weight @ (path * axial) / (weight @ axial**2))


def gibson_lanni(
    shape: Sequence[int],
    optics: Objective,
    *,
    pixel_size: float | Sequence[float],
    z_step: float | None = None,
    defocus: float = 0.0,
    particle_depth: float = 0.0,
    integrate_pixels: bool = False,
    normalise: bool = True,
) -> Floats:
    """The Gibson–Lanni PSF of a widefield microscope, right to 1e-6 of its maximum.

    Parameters
    ----------
    shape
        ``(ny, nx)`` for one plane, ``(nz, ny, nx)`` for a stack.
    optics
        The microscope.
    pixel_size
        Pixel size in the sample, µm: one number, or ``(y, x)``.
    z_step
        The objective's travel between the planes of a stack, µm.
    defocus
        Position, from the particle's `best_focus`, of the plane or of the stack's plane ``nz // 2``, µm.
        Positive is deeper in the sample: the objective comes closer. Planes are in the order of rising depth.
    particle_depth
        Distance of the particle from the cover slip into the sample, µm.
    integrate_pixels
        Average the intensity over each pixel's area, as a camera does, instead of sampling at its centre.
    normalise
        Divide by the sum; else each value is its pixel's share of all the light of its plane, so that a
        plane's sum tells how much of that the shape holds.

    Returns
    -------
    Array of ``shape``, centre at ``n // 2``, sum 1. In a stack the planes keep their relative energies.

    Raises
    ------
    InputError
        If the shape is not that of a plane or a stack, if a length is not positive or not finite, if ``na``
        does not fit through the sample's index, or if the phase is too steep to be computed.

    References
    ----------
    J. Li, F. Xue and T. Blu, J. Opt. Soc. Am. A 34, 1029 (2017), doi:10.1364/JOSAA.34.001029.

    Examples
    --------
    >>> optics = Objective(na=1.4, wavelength=0.52, ni=1.515)
    >>> gibson_lanni((9, 17, 17), optics, pixel_size=0.1, z_step=0.2).shape
    (9, 17, 17)
    """
    sizes = check_shape(shape, (2, 3))
    pixel = per_axis("pixel_size", pixel_size, 2)
    depths = np.array([check_number(defocus, "defocus")])
    if len(sizes) == 3:
        if z_step is None:
            raise InputError(
                f"shape={sizes} is a stack; pass z_step (--z-step), the distance of its planes in µm"
            )
        depths = depths + (np.arange(sizes[0]) - sizes[0] // 2) * check_number(z_step, "z_step", above=0.0)

    nodes: Floats = np.zeros(1)
    weights: Floats = np.ones(1)
    if integrate_pixels:
        # Across half a pixel the intensity's phase turns by at most this much (its band ends at 2 NA / λ).
        # Gauss–Legendre converges geometrically once it has half as many nodes.
        turn = 2 * math.pi * optics.na / optics.wavelength * max(pixel)
        roots, areas = np.polynomial.legendre.leggauss(math.ceil(turn / 2) + 6)
        nodes, weights = roots / 2, areas / 2
    y, x = (
        ((np.arange(n) - n // 2)[:, None] + nodes).ravel() * size
        for n, size in zip(sizes[-2:], pixel, strict=True)
    )
    # Rounding to 1e-12 µm folds the mirror images of a radius into one.
    distance = np.round(np.hypot(y[:, None], x), 12).astype(np.float64)
    radii, where = np.unique(distance, return_inverse=True)
    where = where.reshape(sizes[-2], len(nodes), sizes[-1], len(nodes))
    profiles = _intensity(radii, depths, optics, particle_depth)
    planes = [np.einsum("iajb,a,b->ij", profile[where], weights, weights) for profile in profiles]
    psf = np.stack(planes).reshape(sizes)
    # By Parseval's theorem |U|² integrates to π over a plane, in units of 1 / (k NA).
    unit = optics.wavelength / (2 * math.pi * optics.na)
    return psf / (psf.sum() if normalise else math.pi * unit**2 / math.prod(pixel))


def _intensity(radii: Floats, depths: Floats, optics: Objective, particle_depth: float) -> Floats:
    """|U|² for ``depths`` × ``radii``."""
    # In the wave number's unit NA·k the pupil has radius 1 and the field's argument is beta·ρ.
    wave = 2 * math.pi / optics.wavelength
    scale, coefficients = _fit_pupil(depths + best_focus(optics, particle_depth), optics, particle_depth)
    intensity = np.empty((len(depths), len(radii)))
    step = max(1, _CHUNK // len(scale))
    for start in range(0, len(radii), step):
        part = slice(start, start + step)
        field = _lommel(wave * optics.na * radii[part], scale) @ coefficients
        intensity[:, part] = (field[:, 0::2] ** 2 + field[:, 1::2] ** 2).T
    return intensity


def _fit_pupil(positions: Floats, optics: Objective, particle_depth: float) -> tuple[Floats, Floats]:
    """The series' s_m, and its coefficients (terms × real and imaginary parts of each plane)."""
    wave = 2 * math.pi / optics.wavelength
    edge = np.sin(np.linspace(0, np.pi / 2, 400))
    slope = max(
        np.abs(phase).max() for phase in pupil_phases(positions, optics, particle_depth, edge, wave, True)
    )
    terms = math.ceil((_REACH * slope + _MARGIN) / _SPACING)
    while terms <= _MAX_TERMS:
        count = math.ceil(_SAMPLES_PER_TERM * terms)
        rho = (1 + np.cos(np.pi * (np.arange(count) + 0.5) / count)) / 2
        scale = _SPACING * np.arange(terms)
        basis = j0(np.outer(rho, scale))
        phases = np.stack(list(pupil_phases(positions, optics, particle_depth, rho, wave)), axis=1)
        pupil = np.stack([np.cos(phases), np.sin(phases)], axis=2).reshape(count, -1)
        coefficients = lstsq(basis, pupil, cond=1e-14, lapack_driver="gelsy", check_finite=False)[0]
        if np.abs(basis @ coefficients - pupil).max() < _FIT_TOLERANCE:
            return scale, coefficients
        terms = math.ceil(1.5 * terms)
    raise InputError(
        f"the phase changes by up to {slope:.0f} rad per pupil radius, too steep to compute; "
        f"lower the defocus or the stack's height, or na if it is close to a refractive index"
    )


def pupil_phases(
    positions: Floats,
    optics: Objective,
    particle_depth: float,
    rho: Floats,
    wave: float,
    derivative: bool = False,
) -> list[Floats]:
    """W(ρ), or W'(ρ), for each position of the objective."""

    def path(index: float) -> Floats:
        cosine = _cosine(optics, index, rho)
        return -(optics.na**2) * rho / cosine if derivative else cosine

    still: Floats = sum(
        (length * path(index) for length, index in optics.layers(particle_depth)), start=np.zeros_like(rho)
    )
    immersion = path(optics.ni)
    return [wave * (still - position * immersion) for position in positions]


def _cosine(optics: Objective, index: float, rho: Floats) -> Floats:
    cosine: Floats = np.sqrt(np.maximum(index**2 - (optics.na * rho) ** 2, 0))
    return cosine


def _lommel(beta: Floats, scale: Floats) -> Floats:
    r"""∫₀¹ J0(s ρ) J0(β ρ) ρ dρ for every β (rows) and s (columns)."""
    b, s = beta[:, None], scale[None, :]
    close = np.abs(b - s) < 1e-5
    with np.errstate(divide="ignore", invalid="ignore"):
        integral = (s * j1(s) * j0(b) - b * j0(s) * j1(b)) / (s**2 - b**2)
    # The integral is symmetric in s and β, so its value at their mean is off by only the square of 1e-5.
    middle = ((b + s) / 2)[close]
    integral[close] = (j0(middle) ** 2 + j1(middle) ** 2) / 2
    return integral


def _check_depth(optics: Objective, particle_depth: float) -> None:
    check_number(particle_depth, "particle_depth", least=0.0)
    ns = optics.index_of_sample
    if particle_depth > 0 and optics.na >= ns:
        raise InputError(
            f"na={optics.na:g} is not below the sample's refractive index ns={ns:g}: "
            f"no light that steep leaves a particle at depth {particle_depth:g} µm; "
            f"pass na={0.99 * ns:.3g} (--na {0.99 * ns:.3g}) or less, or particle_depth=0 (--depth 0)"
        )
