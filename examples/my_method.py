"""A method of one's own in the benchmark: a function, named on the command line.

    selfinv benchmark --images DIR --methods input,tv-chambolle-pock,examples/my_method.py:my_method

(or ``package.module:function``). It is given the noisy image (float32, the clean image spanned 0 to 1), the
point spread function (sum 1, centre at ``n // 2``; None where only noise is to be removed) and a seed, and
returns an image of the same shape and units. What it raises is reported as a failure, and the rest goes on.
"""

import numpy as np


def my_method(image, psf, *, seed, weight=0.05):
    """Tikhonov: inverse filter with a constant penalty, periodic boundary."""
    if psf is None:
        return image
    padded = np.zeros(image.shape)
    padded[tuple(slice(0, n) for n in psf.shape)] = psf
    padded = np.roll(padded, [-(n // 2) for n in psf.shape], axis=range(psf.ndim))
    transfer = np.fft.rfftn(padded)
    spectrum = np.fft.rfftn(image) * transfer.conj() / (np.abs(transfer) ** 2 + weight)
    return np.fft.irfftn(spectrum, s=image.shape)


# What it is told, for the report: of "PSF", "noise level", "truth", "outside data". With "truth" it is called
# with ``truth=`` too. Without this line: the PSF.
my_method.told = ("PSF",)

# In the conditions of track d that have another forward operator it is left out: a function with a parameter
# ``operator`` would be given it (a selfinv.operators.LinearOperator; None elsewhere), and psf=None.

# It cannot take missing values (NaN), so it is given images with those filled. True would pass them on.
my_method.takes_missing = False
