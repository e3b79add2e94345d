import os
from pathlib import Path

import numpy as np
import pytest
from numpy.testing import assert_allclose
from scipy.special import j0, j1

from selfinv.psf import Objective, best_focus, gibson_lanni
from selfinv.types import InputError

SHARED = Path(os.environ.get("SELFINV_SHARED") or Path(__file__).resolve().parents[2].parent / "shared")

WATER = Objective(na=0.8, wavelength=0.6, ni=1.33, working_distance=3000)
OIL = Objective(na=1.4, wavelength=0.52, ni=1.515, ns=1.45)


def quadrature(radii, optics, travel, depth=0.0, panels=60):
    """|∫ J0(k NA r ρ) exp(iW) ρ dρ|² by Gauss–Legendre in asin ρ, the objective moved in by ``travel``."""
    k = 2 * np.pi / optics.wavelength
    x, w = np.polynomial.legendre.leggauss(32)
    angle = ((np.arange(panels)[:, None] + (x + 1) / 2) / panels).ravel() * np.pi / 2
    w = np.tile(w, panels) * np.pi / 4 / panels
    rho = np.sin(angle)

    def c(n):
        return np.sqrt(n**2 - (optics.na * rho) ** 2)

    def actual(design, value):
        return value if design is None else design

    path = depth * c(actual(optics.ns, optics.ni))
    path += optics.tg * c(optics.ng) - actual(optics.tg0, optics.tg) * c(actual(optics.ng0, optics.ng))
    path += (optics.working_distance - travel) * c(optics.ni)
    path -= optics.working_distance * c(actual(optics.ni0, optics.ni))
    pupil = np.exp(1j * k * path) * rho * np.cos(angle) * w
    return np.abs(j0(k * optics.na * np.multiply.outer(radii, rho)) @ pupil) ** 2


def plane_by_quadrature(n, pixel, *args, **kwargs):
    x = (np.arange(n) - n // 2) * pixel
    radii, where = np.unique(np.hypot(x[:, None], x), return_inverse=True)
    plane = quadrature(radii, *args, **kwargs)[where].reshape(n, n)
    return plane / plane.sum()


@pytest.mark.parametrize(
    ("optics", "pixel", "defocus", "depth"),
    [
        (Objective(na=0.8, wavelength=0.6, ni=1.0), 0.3, 0.0, 0.0),
        (Objective(na=0.8, wavelength=0.6, ni=1.0), 0.3, 12.0, 0.0),
        (WATER, 0.406, 3.045, 0.0),
        (WATER, 0.406, -30.0, 0.0),
        (Objective(na=1.2, wavelength=0.5, ns=1.36), 0.08, 0.7, 50.0),
        (OIL, 0.06, 0.0, 5.0),
        (OIL, 0.2, 15.0, 20.0),
        (Objective(na=1.4, wavelength=0.52, ni=1.515, ni0=1.518, tg=175, tg0=170, ng0=1.525), 0.1, -4.0, 0.0),
        (Objective(na=1.31, wavelength=0.5), 0.1, 2.0, 0.0),
        (Objective(na=0.1, wavelength=0.5, ni=1.0), 1.0, 0.0, 0.0),
    ],
)
def test_agrees_with_direct_quadrature(optics, pixel, defocus, depth):
    psf = gibson_lanni((24, 24), optics, pixel_size=pixel, defocus=defocus, particle_depth=depth)
    expected = plane_by_quadrature(24, pixel, optics, best_focus(optics, depth) + defocus, depth)
    assert_allclose(psf, expected, rtol=0, atol=1e-6 * expected.max())


def test_planes_of_a_stack_share_one_normalisation_and_go_deeper_with_the_index():
    psf = gibson_lanni((6, 15, 15), OIL, pixel_size=0.1, z_step=0.3, particle_depth=8.0)
    travel = best_focus(OIL, 8.0) + (np.arange(6) - 3) * 0.3
    x = (np.arange(15) - 7) * 0.1
    radii = np.hypot(x[:, None], x).ravel()
    expected = np.stack([quadrature(radii, OIL, t, 8.0).reshape(15, 15) for t in travel])
    assert_allclose(psf, expected / expected.sum(), rtol=0, atol=1e-6 * psf.max())


def test_is_an_airy_pattern_in_focus():
    v = 2 * np.pi / 0.6 * 0.8 * np.abs(np.arange(41) - 20.0) * 0.05
    v[20] = 1e-9
    row = gibson_lanni((41, 41), WATER, pixel_size=0.05)[20]
    assert_allclose(row / row[20], (2 * j1(v) / v) ** 2, atol=1e-9)


def test_agrees_with_the_benchmarks_psf():
    """That file was interpolated linearly from a radial grid of half a pixel: 3 % from the exact integral."""
    file = SHARED / "images" / "psf.npy"
    if not file.exists():
        pytest.skip(f"{file} is missing; set SELFINV_SHARED to the folder that holds images/psf.npy")
    published = np.load(file)
    exact = gibson_lanni((17, 17), WATER, pixel_size=0.406, defocus=3.045)
    assert 0.02 < np.abs(exact - published).max() / published.max() < 0.035

    radial = gibson_lanni((1, 61), WATER, pixel_size=0.203, defocus=3.045)[0, 30:]
    x = np.arange(17) - 8
    coarse = np.interp(np.hypot(x[:, None], x) * 2, np.arange(31), radial)
    coarse /= coarse.sum()
    assert np.abs(coarse - published).max() / published.max() < 0.0025


def test_pixel_integration_agrees_with_brute_force_averaging():
    optics = Objective(na=1.4, wavelength=0.5, ni=1.515)
    psf = gibson_lanni((11, 12), optics, pixel_size=0.25, defocus=0.5, integrate_pixels=True)
    # The midpoint rule, 25 × 25 points per pixel, on a field of the same pixels.
    fine = gibson_lanni((11 * 25, 13 * 25), optics, pixel_size=0.01, defocus=0.5)
    brute = fine.reshape(11, 25, 13, 25).sum((1, 3))[:, :12]
    assert_allclose(psf, brute / brute.sum(), rtol=0, atol=1e-3 * psf.max())
    sampled = gibson_lanni((11, 12), optics, pixel_size=0.25, defocus=0.5)
    assert np.abs(psf - sampled).max() > 0.05 * psf.max()


def test_anisotropic_pixels_sample_the_same_pattern():
    fine = gibson_lanni((21, 21), WATER, pixel_size=0.2, defocus=2.0)
    coarse = gibson_lanni((11, 21), WATER, pixel_size=(0.4, 0.2), defocus=2.0)
    kept = fine[::2]
    assert_allclose(coarse, kept / kept.sum(), atol=1e-12)


def test_best_focus_is_the_depth_when_indices_match_and_the_peak_is_there_when_they_do_not():
    assert best_focus(WATER, 7.0) == pytest.approx(7.0)
    column = gibson_lanni((81, 1, 1), OIL, pixel_size=0.1, z_step=0.02, particle_depth=4.0)[:, 0, 0]
    assert abs(column.argmax() - 40) * 0.02 < 0.1
    assert best_focus(OIL, 4.0) > 4.0 * 1.515 / 1.45  # marginal rays focus even later than paraxial ones


def test_oil_objective_images_a_bead_on_the_cover_slip_in_water():
    optics = Objective(na=1.4, wavelength=0.52, ni=1.515, ns=1.33)
    psf = gibson_lanni((33, 33), optics, pixel_size=0.06)
    assert psf.argmax() == 16 * 33 + 16
    with pytest.raises(
        InputError, match=r"na=1.4 is not below the sample's refractive index ns=1.33.*na=1.32"
    ):
        gibson_lanni((33, 33), optics, pixel_size=0.06, particle_depth=1.0)


@pytest.mark.parametrize(
    ("optics", "words"),
    [
        ({"na": 1.4}, r"na=1.4 is not below the refractive index ni=1.33"),
        ({"na": 1.4, "ni": 1.515, "ng0": 1.39}, "ng0=1.39"),
        ({"na": 0}, "na must be a positive number, got 0"),
        ({"working_distance": -1}, "working_distance must be a positive number, got -1"),
        ({"wavelength": 520}, "lengths are in µm"),
        ({"tg": None}, "tg must be a positive number, got None"),
        ({"ni": None}, "ni must be a positive number, got None"),
    ],
)
def test_impossible_optics_are_named(optics, words):
    with pytest.raises(InputError, match=words):
        Objective(**{"na": 0.8, "wavelength": 0.6, **optics})


@pytest.mark.parametrize(
    ("shape", "options", "words"),
    [
        ((9, 9, 9), {}, "pass z_step"),
        ((9, 9, 9), {"z_step": 0.0}, "z_step must be a positive number, got 0.0"),
        ((9, 9), {"pixel_size": -1}, "pixel_size must be a positive number, got -1"),
        ((9,), {}, r"shape=\(9,\) has 1 axes; expected 2 \(yx\) or 3 \(zyx\)"),
        ((9, 9), {"defocus": float("nan")}, "defocus must be a finite number, got nan"),
        ((9, 9), {"defocus": "far"}, "defocus must be a finite number, got 'far'"),
        ((9, 9), {"particle_depth": -2.0}, "particle_depth must be 0 or more.*got -2.0"),
        ((9, 9), {"defocus": 1e5}, "too steep to compute; lower the defocus"),
    ],
)
def test_mistakes_in_the_call_are_named(shape, options, words):
    with pytest.raises(InputError, match=words):
        gibson_lanni(shape, WATER, **{"pixel_size": 0.1, **options})
