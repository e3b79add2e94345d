"""The aberrated pupil against closed forms: Airy, Strehl, Noll's table, and the Gibson–Lanni series."""

import numpy as np
import pytest
from numpy.testing import assert_allclose
from scipy.special import j1

from selfinv.psf import Objective, gibson_lanni, zernike, zernike_polynomial
from selfinv.types import InputError

WATER = Objective(na=0.8, wavelength=0.6)

NOLL = {  # his table I, of ρ and θ
    "tilt_x": lambda r, a: 2 * r * np.cos(a),
    "tilt_y": lambda r, a: 2 * r * np.sin(a),
    "defocus": lambda r, a: np.sqrt(3) * (2 * r**2 - 1),
    "oblique_astigmatism": lambda r, a: np.sqrt(6) * r**2 * np.sin(2 * a),
    "astigmatism": lambda r, a: np.sqrt(6) * r**2 * np.cos(2 * a),
    "coma_y": lambda r, a: np.sqrt(8) * (3 * r**3 - 2 * r) * np.sin(a),
    "coma_x": lambda r, a: np.sqrt(8) * (3 * r**3 - 2 * r) * np.cos(a),
    "trefoil_y": lambda r, a: np.sqrt(8) * r**3 * np.sin(3 * a),
    "trefoil_x": lambda r, a: np.sqrt(8) * r**3 * np.cos(3 * a),
    "spherical": lambda r, a: np.sqrt(5) * (6 * r**4 - 6 * r**2 + 1),
    12: lambda r, a: np.sqrt(10) * (4 * r**4 - 3 * r**2) * np.cos(2 * a),
    15: lambda r, a: np.sqrt(10) * r**4 * np.sin(4 * a),
    22: lambda r, a: np.sqrt(7) * (20 * r**6 - 30 * r**4 + 12 * r**2 - 1),
}


def made(terms, n=33, pixel=0.2, **options):
    return zernike((n, n), WATER, terms, pixel_size=pixel, **options)


def quadrature(terms, n, pixel):
    """|U|² by a sum over rings and angles of the pupil, Noll's table for the terms."""
    nodes, weights = np.polynomial.legendre.leggauss(80)
    r = ((nodes + 1) / 2)[:, None]
    angle = np.arange(200) / 200 * 2 * np.pi
    phase = sum(2 * np.pi * waves * NOLL[term](r, angle) for term, waves in terms.items())
    pupil = (weights[:, None] * r * np.exp(1j * phase)).ravel()
    at = 2 * np.pi / 0.6 * 0.8 * pixel * (np.arange(n) - n // 2)
    py, px = (r * np.sin(angle)).ravel(), (r * np.cos(angle)).ravel()
    intensity = [[np.abs(np.exp(-1j * (y * py + x * px)) @ pupil) ** 2 for x in at] for y in at]
    return intensity / np.sum(intensity)


@pytest.mark.parametrize("integrate", [False, True])
def test_values_that_are_not_normalised_are_shares_of_all_the_light(integrate):
    wide = gibson_lanni(
        (121, 121), WATER, pixel_size=0.15, defocus=5.0, integrate_pixels=integrate, normalise=False
    )
    assert wide.sum() == pytest.approx(1.0, abs=0.01)
    inner = wide[50:71, 50:71]
    assert_allclose(made({}, 21, 0.15, defocus=5.0, normalise=False).sum(), inner.sum(), rtol=0.01)
    assert inner.sum() < 0.35


@pytest.mark.parametrize("term", NOLL)
def test_polynomials_are_nolls(term):
    r, angle = np.random.default_rng(0).uniform(0, [[1], [2 * np.pi]], (2, 50))
    found = zernike_polynomial(term, r * np.sin(angle), r * np.cos(angle))
    assert_allclose(found, NOLL[term](r, angle), atol=1e-12)


def test_polynomials_are_orthonormal_over_the_disc():
    nodes, weights = np.polynomial.legendre.leggauss(20)
    r, angle = np.sqrt((nodes + 1) / 2)[:, None], np.arange(40) / 40 * 2 * np.pi
    values = np.stack(
        [zernike_polynomial(j, r * np.sin(angle), r * np.cos(angle)).mean(1) for j in range(1, 37)]
    )
    assert_allclose(values[1:] @ weights, 0, atol=1e-12)  # all but the constant vanish on average
    full = [zernike_polynomial(j, r * np.sin(angle), r * np.cos(angle)) for j in range(1, 37)]
    products = np.einsum("iab,jab,a->ij", full, full, weights / 2 / 40)
    assert_allclose(products, np.eye(36), atol=1e-12)


def test_is_an_airy_pattern_without_aberrations():
    v = 2 * np.pi / 0.6 * 0.8 * np.abs(np.arange(41) - 20.0) * 0.05
    v[20] = 1e-9
    row = made({}, 41, 0.05)[20]
    assert_allclose(row / row[20], (2 * j1(v) / v) ** 2, atol=1e-9)


@pytest.mark.parametrize(
    "terms",
    [
        {"astigmatism": 0.3, "defocus": -0.2},
        {"coma_y": 0.25, "spherical": 0.1},
        {"trefoil_x": 0.2, 12: -0.1, "oblique_astigmatism": 0.1},
    ],
)
def test_agrees_with_polar_quadrature(terms):
    expected = quadrature(terms, 12, 0.3)
    assert_allclose(made(terms, 12, 0.3), expected, rtol=0, atol=1e-6 * expected.max())


@pytest.mark.parametrize(
    ("optics", "pixel", "options"),
    [
        (WATER, 0.3, {"defocus": 3.0}),
        (WATER, (0.2, 0.3), {"defocus": -10.0}),
        (Objective(na=1.32, wavelength=0.6), 0.1, {"defocus": 1.0}),
        (Objective(na=1.4, wavelength=0.52, ni=1.515, ns=1.45), 0.1, {"defocus": 0.5, "particle_depth": 3.0}),
    ],
)
def test_without_terms_it_is_gibson_and_lannis(optics, pixel, options):
    expected = gibson_lanni((24, 25), optics, pixel_size=pixel, **options)
    found = zernike((24, 25), optics, {}, pixel_size=pixel, **options)
    assert_allclose(found, expected, rtol=0, atol=2e-6 * expected.max())


def test_at_low_na_the_term_defocus_is_a_distance():
    optics = Objective(na=0.1, wavelength=0.5, ni=1.0)
    distance = 60.0
    waves = distance * 0.1**2 / (4 * np.sqrt(3) * 0.5)
    found = zernike((21, 21), optics, {"defocus": waves}, pixel_size=1.0)
    expected = zernike((21, 21), optics, {}, pixel_size=1.0, defocus=distance)
    assert np.abs(expected - zernike((21, 21), optics, {}, pixel_size=1.0)).max() > 0.1 * expected.max()
    assert_allclose(found, expected, atol=1e-2 * expected.max())


@pytest.mark.parametrize("term", ["defocus", "astigmatism", "coma_x", "trefoil_y", "spherical", 17])
def test_the_strehl_ratio_tells_that_coefficients_are_rms_waves(term):
    # Fine and wide enough that the sum is all light, so the middle of one and the other compare.
    middles = [made(terms, 121, 0.15)[60, 60] for terms in ({}, {term: 0.04})]
    assert middles[1] / middles[0] == pytest.approx(np.exp(-((2 * np.pi * 0.04) ** 2)), rel=5e-3)


def test_a_tilt_displaces_towards_larger_x():
    # A wave rms of Noll's tilt is four waves across the pupil: 2 λ / NA.
    moved = made({"tilt_x": 0.4}, 33, 0.2)
    expected = made({}, 33, 0.2)
    pixels = round(0.4 * 2 * 0.6 / 0.8 / 0.2)
    assert_allclose(moved[:, pixels:], moved.max() / expected.max() * expected[:, :-pixels], atol=1e-6)


def test_signs_that_the_image_does_not_tell():
    even = {"defocus": 0.2, "oblique_astigmatism": 0.15}
    odd = {"coma_x": 0.1, "trefoil_y": -0.1}
    psf = made(even | odd)
    other = made({name: -waves for name, waves in even.items()} | odd)
    mirror = made(even | {name: -waves for name, waves in odd.items()})
    assert_allclose(other, psf, atol=1e-6 * psf.max())
    assert_allclose(mirror, psf[::-1, ::-1], atol=1e-6 * psf.max())
    assert np.abs(mirror - psf).max() > 0.1 * psf.max()


@pytest.mark.parametrize(
    ("call", "words"),
    [
        (lambda: made({"comma": 0.1}), "no Zernike term 'comma'; use tilt_x, .*Noll's index"),
        (lambda: made({0: 0.1}), "no Zernike term 0"),
        (lambda: made({4.5: 0.1}), "no Zernike term 4.5"),
        (lambda: made({1: 0.1}), "changes nothing; leave it out"),
        (lambda: made({"defocus": 0.1, 4: 0.1}), "'defocus' .* is given twice"),
        (lambda: made({None: 0.1}), "no Zernike term None"),
        (lambda: made({np.inf: 0.1}), "no Zernike term inf"),
        (lambda: made({"coma_x": "a"}), "coma_x must be a finite number, got 'a'"),
        (lambda: made({"defocus": np.nan}), "defocus must be a finite number, got nan"),
        (lambda: made({}, defocus=np.inf), "defocus must be a finite number, got inf"),
        (lambda: made({"defocus": 300.0}), "too steep"),
        (lambda: zernike((9, 9, 9), WATER, {}, pixel_size=0.1), "3 axes; expected 2"),
        (lambda: made({}, pixel=0.0), "pixel_size"),
    ],
)
def test_mistakes_in_the_call_are_named(call, words):
    with pytest.raises(InputError, match=words) as caught:
        call()
    assert "\n" not in str(caught.value)
