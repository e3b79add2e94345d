"""A PSF known up to a few parameters, fitted from the one noisy, blurred image that it made.

A family says what the PSF is for each value of its parameters, and within which bounds these lie; the
spectrum of the image says how likely each value is. What the image does not tell is kept as it was told.
"""

from selfinv.semiblind.families import (
    SPREAD,
    TERM_SPREAD,
    WIDTH_SPREAD,
    PSFFamily,
    gaussian_family,
    gibson_lanni_family,
    scaled_family,
    zernike_family,
)
from selfinv.semiblind.fit import FittedPSF, fit_psf

__all__ = [
    "SPREAD",
    "TERM_SPREAD",
    "WIDTH_SPREAD",
    "FittedPSF",
    "PSFFamily",
    "fit_psf",
    "gaussian_family",
    "gibson_lanni_family",
    "scaled_family",
    "zernike_family",
]
