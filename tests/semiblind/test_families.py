"""Families of PSFs: what their bounds hold, and which have a direction."""

import numpy as np
import pytest
from scenes import aberrated, family

from selfinv import psf
from selfinv.semiblind import PSFFamily, gaussian_family, gibson_lanni_family, scaled_family, zernike_family
from selfinv.types import InputError


@pytest.mark.parametrize(
    ("optics", "depth", "index"),
    [
        ({"na": 1.2, "ni": 1.515, "ns": 1.33}, 5.0, 1.33),  # the sample's bounds it only from within
        ({"na": 1.2, "ni": 1.515, "ns": 1.33}, 0.0, 1.515),
        ({"na": 1.505, "ni": 1.515}, 0.0, 1.515),  # told within 1 % of the index
    ],
)
def test_an_aperture_is_looked_for_up_to_what_the_optics_let_through(optics, depth, index):
    told = psf.Objective(wavelength=0.5, **optics)
    made = gibson_lanni_family(
        (5, 5), told, pixel_size=0.1, defocus=1.0, particle_depth=depth, fit=("na",), spread=1.5
    )
    assert told.na < made.upper[0] < index
    assert made.at(made.upper).shape == (5, 5)


@pytest.mark.parametrize(
    ("told", "fit", "lower", "upper"),
    [
        # The sign of all even terms is the told one of the largest, in case all could be negated.
        ({"astigmatism": 0.1}, ("astigmatism",), (0.0,), (0.25,)),
        ({"astigmatism": -0.1}, ("astigmatism",), (-0.25,), (0.0,)),
        ({"spherical": -0.1}, ("defocus", "spherical"), (-0.15, -0.25), (0.15, 0.0)),
        ({}, ("defocus", "spherical"), (0.0, -0.15), (0.15, 0.15)),
        ({"coma_x": 0.05, "defocus": 0.3}, ("coma_x",), (0.0,), (0.2,)),
        ({"astigmatism": 0.3}, ("defocus", "astigmatism"), (-0.15, 0.15), (0.15, 0.45)),
        # Something else tells it.
        ({"defocus": 0.3}, ("astigmatism",), (-0.15,), (0.15,)),
        ({"trefoil_x": 0.2}, ("coma_y",), (-0.15,), (0.15,)),
    ],
)
def test_no_range_holds_two_psfs_of_one_power_spectrum(told, fit, lower, upper):
    made = aberrated(told, fit)
    assert made.lower == pytest.approx(lower)
    assert made.upper == pytest.approx(upper)


@pytest.mark.parametrize(
    ("told", "fit"),
    [
        ({"defocus": -0.2}, ("defocus", "spherical")),
        ({"astigmatism": 0.0}, ("defocus",)),
        ({"astigmatism": -0.2}, ("astigmatism",)),
        ({"coma_y": 0.1}, ("spherical",)),
        ({}, ("trefoil_x",)),
    ],
)
def test_sectors_are_for_psfs_that_are_not_the_same_all_around(told, fit):
    made = aberrated(told, fit)
    turned = [(0, 5), (3, 4), (4, 3), (5, 0), (4, -3), (3, -4)]  # five pixels from the centre
    around = [[made.at(values)[12 + y, 12 + x] for y, x in turned] for values in (made.lower, made.upper)]
    assert made.directional == (np.ptp(around, axis=1).max() > 1e-6)


def test_a_defocus_in_micrometres_or_a_wrong_cover_slip_tells_the_sign():
    assert aberrated({"spherical": 0.1}, ("spherical",), defocus=2.0).lower[0] < 0
    thick = psf.Objective(na=0.8, wavelength=0.6, ni=1.33, tg=200.0, tg0=170.0)
    made = zernike_family((25, 25), thick, {}, pixel_size=0.3, fit=("spherical",))
    assert made.lower[0] < 0


@pytest.mark.parametrize("scale", [0.6, 0.8, 1.0, 1.3, 1.9])
@pytest.mark.parametrize("widths", [(2.0, 2.0), (3.0, 1.5), (2.5, 2.0, 2.0)])
def test_a_scaled_gaussian_is_a_gaussian_of_another_width(scale, widths):
    told = psf.gaussian(widths, [33] * len(widths))
    made = scaled_family(told).at((scale,))
    expected = psf.gaussian([scale * w for w in widths], made.shape)
    assert np.abs(made - expected).max() < 0.06 * expected.max()  # the pixels are scaled along


def test_a_kernel_of_even_size_is_scaled_about_its_centre():
    made = scaled_family(psf.gaussian(2.0, (16, 16))).at((1.5,))
    middle = np.array(made.shape) // 2
    centroid = [(made.sum(1 - axis) * np.arange(n)).sum() for axis, n in enumerate(made.shape)]
    assert np.allclose(centroid, middle, atol=0.02)


def test_only_a_kernel_with_a_direction_is_looked_at_in_sectors():
    assert not scaled_family(psf.gaussian(2.0, (17, 17))).directional
    assert scaled_family(psf.gaussian((3.0, 1.5), (17, 17))).directional
    assert scaled_family(np.ones((1, 9))).directional


def test_mistakes_are_told_in_one_line():
    for mistake, words in [
        (lambda: gaussian_family(0.0), "positive"),
        (lambda: gaussian_family([]), "0 values; pass one"),
        (lambda: gaussian_family(2.0, spread="a"), "spread must be a number above 1, got 'a'"),
        (lambda: gaussian_family("wide"), "sigma='wide' is no width"),
        (lambda: gaussian_family(2.0, spread=1.0), "above 1"),
        (lambda: scaled_family(np.ones((5, 5)), spread=0.5), "above 1"),
        (lambda: scaled_family(-np.ones((5, 5))), "negative"),
        (lambda: scaled_family(None), "array of real numbers"),
        (lambda: gaussian_family((3.0, 2.0, 2.0)), "3 values; pass one, or for a volume two"),
        (lambda: family(0.0), "defocus=0"),
        (lambda: family(3.0, fit=("tilt",)), "'defocus', 'na'"),
        (lambda: aberrated({}, ()), "one to 3 Zernike terms"),
        (lambda: aberrated({}, ("defocus", 4)), "one to 3|twice"),
        (lambda: aberrated({}, (4, 5, 6, 11)), "one to 3 Zernike terms"),
        (lambda: aberrated({}, ("tilt_x",)), "displaces"),
        (lambda: aberrated({}, ("defocos",)), "no Zernike term 'defocos'"),
        (lambda: aberrated({}, ("defocus",), spread=0.0), "spread must be a positive number, got 0.0"),
        (lambda: PSFFamily(lambda: 0, (), (), (), ()), "1 to 3"),
        (lambda: PSFFamily(lambda a: a, ("a",), (3.0,), (1.0,), (2.0,)), "between"),
        (lambda: PSFFamily(lambda a: a, ("a",), (3.0,), (1.0, 1.0), (4.0,)), "as many"),
    ]:
        with pytest.raises(InputError, match=words) as caught:
            mistake()
        assert "\n" not in str(caught.value)
