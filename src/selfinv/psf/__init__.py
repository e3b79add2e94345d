"""Point-spread functions: computed from a model, measured from a bead, and checked before use.

Every PSF is a float64 array with its axes in the order ``z y x``, its centre at ``n // 2`` and its sum 1.
"""

from selfinv.psf.checks import check_psf, normalise
from selfinv.psf.gaussian import gaussian
from selfinv.psf.gibson_lanni import Objective, best_focus, gibson_lanni
from selfinv.psf.measured import MeasuredPSF, from_bead, values_of
from selfinv.psf.zernike import zernike, zernike_polynomial

__all__ = [
    "MeasuredPSF",
    "Objective",
    "best_focus",
    "check_psf",
    "from_bead",
    "gaussian",
    "gibson_lanni",
    "normalise",
    "values_of",
    "zernike",
    "zernike_polynomial",
]
