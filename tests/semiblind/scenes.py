"""A scene, blurred by PSFs that are known, and the families that they are of."""

import numpy as np
from scipy.signal import fftconvolve

from selfinv import psf
from selfinv.semiblind import gibson_lanni_family, zernike_family

OPTICS = psf.Objective(na=0.8, wavelength=0.6, ni=1.33)
SHAPE = (17, 17)
PIXEL = 0.406


def leaves(size, seed=0):
    """Discs of all sizes, each hiding what lies below: edges, and the spectrum of scenes."""
    rng = np.random.default_rng(seed)
    image = np.zeros((size, size))
    y, x = np.mgrid[:size, :size]
    for radius in np.sort(2 / np.sqrt(rng.uniform((4 / size) ** 2, 1, 900)))[::-1]:
        centre = rng.uniform(0, size, 2)
        image[(y - centre[0]) ** 2 + (x - centre[1]) ** 2 < radius**2] = rng.uniform()
    return image


SCENE = leaves(224)


def blurred(kernel, sigma=0.05, scene=SCENE, seed=1):
    """The inside of a blurred scene, and the truth there."""
    inner = (slice(16, -16),) * 2
    image = fftconvolve(scene, kernel, mode="same")[inner]
    return image + sigma * np.random.default_rng(seed).normal(size=image.shape), scene[inner]


def microscope(defocus):
    return psf.gibson_lanni(SHAPE, OPTICS, pixel_size=PIXEL, defocus=defocus)


def family(defocus, **options):
    return gibson_lanni_family(SHAPE, OPTICS, pixel_size=PIXEL, defocus=defocus, **options)


def aberrated(told, fit, **options):
    return zernike_family((25, 25), OPTICS, told, pixel_size=0.3, fit=fit, **options)


def seen_through(scene=SCENE, **terms):
    return blurred(psf.zernike((25, 25), OPTICS, terms, pixel_size=0.3), scene=scene)[0]
