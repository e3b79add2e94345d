"""A PSF told with its axes exchanged is noticed, and no other."""

from __future__ import annotations

import numpy as np
import pytest
from scenes import blurred, microscope

import selfinv
from selfinv import psf
from selfinv.semiblind.orientation import is_transposed
from selfinv.types import SelfinvWarning

OBLONG = psf.gaussian((2.5, 1.0), (17, 9))


def streak():
    """Motion along x, that ends."""
    kernel = np.zeros((11, 11))
    kernel[5, 2:9] = np.linspace(1.0, 0.2, 7)
    return kernel / kernel.sum()


@pytest.mark.parametrize("right", [OBLONG, streak()], ids=["oblong", "streak"])
@pytest.mark.parametrize("sigma", [0.01, 0.05])
def test_the_transpose_is_noticed_and_the_right_one_is_not(right, sigma):
    image, _ = blurred(right, sigma=sigma)
    y = image[None, None]
    y[..., 40, 50] = np.nan
    assert is_transposed(y, right.T, independent=True)
    assert not is_transposed(y, right, independent=True)


def test_a_psf_alike_along_both_axes_is_not_asked_about(monkeypatch):
    def never(*arguments, **options):
        raise AssertionError

    monkeypatch.setattr("selfinv.semiblind.orientation.held_out_difference", never)
    image, _ = blurred(microscope(3.0), sigma=0.02)
    assert not is_transposed(image[None, None], microscope(3.0), independent=True)
    image, _ = blurred(OBLONG, sigma=0.02)
    assert not is_transposed(image[None, None], OBLONG, independent=True)  # nor one that is plainly right


def test_it_is_told_before_a_restoration():
    image, _ = blurred(OBLONG, sigma=0.02)
    with pytest.warns(SelfinvWarning, match="the PSF seems to have its axes exchanged"):
        selfinv.restore(image, OBLONG.T, method="wiener")
