"""A PSF that is clearly too wide is noticed, and no other."""

from __future__ import annotations

import numpy as np
import pytest
from scenes import blurred, microscope
from scipy.ndimage import gaussian_filter

from selfinv import psf
from selfinv.semiblind import scaled_family
from selfinv.semiblind.width import narrower


@pytest.mark.parametrize("which", ["gaussian", "defocus", "oblong"])
def test_a_psf_too_wide_is_noticed_the_right_one_and_one_too_narrow_are_not(which):
    right = {
        "gaussian": psf.gaussian(2.0, (17, 17)),
        "defocus": microscope(3.0),
        "oblong": psf.gaussian((3.0, 1.5), (21, 13)),
    }[which]
    image, _ = blurred(right, sigma=0.02)
    y = image[None, None]
    family = scaled_family(right)
    low, high = narrower(y, family.at((1.5,)), independent=True)
    assert low < 1 / 1.5 < high * 1.05
    assert high < 0.9
    assert narrower(y, right, independent=True) is None
    assert narrower(y, family.at((0.7,)), independent=True) is None


def test_what_tells_nothing_is_no_evidence():
    rng = np.random.default_rng(0)
    kernel = psf.gaussian(2.0, (17, 17))
    assert narrower(rng.normal(size=(1, 1, 96, 96)), kernel, independent=True) is None  # noise alone
    assert narrower(rng.normal(size=(1, 1, 24, 24)), kernel, independent=True) is None  # too small
    y = np.pad(np.full((1, 1, 600, 600), 3.0), ((0, 0), (0, 0), (40, 40), (40, 40)), constant_values=5.0)
    assert narrower(y, kernel, independent=True) is None  # its middle is constant
    assert narrower(np.full((1, 1, 96, 96), np.nan), kernel, independent=True) is None


def test_frames_that_tell_nothing_do_not_stand_in_the_way():
    image, _ = blurred(psf.gaussian(2.0, (17, 17)), sigma=0.02)
    y = np.stack([np.full_like(image, np.nan), np.full_like(image, 7.0), image])[:, None]
    assert narrower(y, psf.gaussian(3.0, (25, 25)), independent=True) is not None
    assert narrower(1e20 * y, psf.gaussian(3.0, (25, 25)), independent=True) is not None
    assert narrower(y, psf.gaussian(2.0, (17, 17)), independent=True) is None


@pytest.mark.parametrize("sigma", [0.003, 0.012])
def test_noise_that_neighbours_share_is_not_taken_for_a_narrower_psf(sigma):
    """Its spectrum falls as that of what a narrower PSF passes, and keeping it predicts values."""
    right = psf.gaussian(2.0, (17, 17))
    image, _ = blurred(right, sigma=0.0)
    own = np.random.default_rng(0).standard_normal(image.shape)
    shared = gaussian_filter(own, 0.6)
    y = (image + sigma * shared / shared.std())[None, None]
    assert narrower(y, right, independent=True) is not None  # which it is not
    assert narrower(y, right, independent=False) is None
    y = (image + sigma * own)[None, None]
    assert narrower(y, psf.gaussian(3.0, (25, 25)), independent=False) is not None
