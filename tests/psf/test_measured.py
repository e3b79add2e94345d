import os
from pathlib import Path

import numpy as np
import pytest
import torch
from numpy.testing import assert_allclose

from selfinv.psf import Objective, check_psf, from_bead, gaussian, gibson_lanni, normalise
from selfinv.types import InputError

SHARED = Path(os.environ.get("SELFINV_SHARED") or Path(__file__).resolve().parents[2].parent / "shared")


def bead(shape, sigma, shift=None, peak=1.0, step=None):
    """A Gaussian averaged over pixels of size ``step`` (µm; ``sigma`` too), ``shift`` pixels off n // 2."""
    image = np.ones(())
    step = step or (1.0,) * len(shape)
    for n, s, d, p in zip(shape, sigma, shift or (0.0,) * len(shape), step, strict=True):
        fine = (np.arange(n * 20) + 0.5) / 20 - 0.5 - n // 2 - d
        image = np.multiply.outer(image, np.exp(-0.5 * (fine * p / s) ** 2).reshape(n, 20).mean(1))
    return peak * image


def width(psf, axis, step=1.0):
    profile = psf.sum(axis=tuple(i for i in range(psf.ndim) if i != axis))
    x = (np.arange(len(profile)) - len(profile) // 2) * step
    mean = x @ profile / profile.sum()
    return np.sqrt((x - mean) ** 2 @ profile / profile.sum())


def test_a_bead_may_be_a_tensor_that_needs_a_gradient():
    clean = bead((15, 15), (1.5, 1.5), peak=1000)
    spot = torch.from_numpy(clean).requires_grad_()
    assert_allclose(from_bead(spot).psf, from_bead(clean).psf)
    assert_allclose(normalise(spot), clean / clean.sum())


def test_a_bead_that_is_left_off_centre_has_its_shift_reported():
    image = bead((31, 31), (1.5, 1.5), shift=(2.3, -1.7), peak=1000)
    left = from_bead(image, centre=False)
    assert_allclose(left.shift, (2.3, -1.7), atol=0.01)
    assert_allclose(left.psf, image / image.sum())


@pytest.mark.parametrize("seed", range(3))
def test_a_noisy_shifted_bead_on_a_camera_offset_is_centred_and_its_shift_reported(seed):
    rng = np.random.default_rng(seed)
    shift, sigma = (0.3, -1.4, 0.25), (2.5, 1.5, 1.5)
    clean = bead((32, 33, 32), sigma, shift, peak=3000)
    image = rng.poisson(clean + 200) + rng.normal(scale=5, size=clean.shape)
    result = from_bead(image, shape=(25, 25, 25))
    assert_allclose(result.shift, shift, atol=0.05)
    assert result.background == pytest.approx(200, abs=1)
    assert result.noise == pytest.approx(np.sqrt(200 + 25), rel=0.15)
    assert result.warnings == ()
    expected = bead((25, 25, 25), sigma)
    expected /= expected.sum()
    assert result.psf.sum() == pytest.approx(1)
    assert result.psf.min() >= 0
    assert_allclose(result.psf, expected, rtol=0, atol=0.06 * expected.max())
    assert [width(result.psf, a) for a in range(3)] == pytest.approx(
        [width(expected, a) for a in range(3)], rel=0.05
    )
    assert from_bead(result.psf).shift == pytest.approx((0, 0, 0), abs=0.05)
    assert check_psf(result.psf, 3) == ()


def test_a_clean_shift_is_undone_accurately():
    shift = (0.37, -1.45)
    result = from_bead(bead((36, 37), (2.0, 1.5), shift))
    assert_allclose(result.shift, shift, atol=2e-3)
    expected = bead((36, 37), (2.0, 1.5))
    assert_allclose(result.psf, expected / expected.sum(), rtol=0, atol=2e-3 * result.psf.max())


OIL = Objective(na=1.4, wavelength=0.52, ni=1.515)


@pytest.mark.parametrize(
    "psf",
    [
        gaussian(1.5, (13, 13)),
        7 * gaussian((2.0, 1.5, 1.5), (16, 12, 13)),
        gibson_lanni((33, 33), OIL, pixel_size=0.1, defocus=1.0),
        gibson_lanni((17, 32, 32), OIL, pixel_size=0.1, z_step=0.2),
        gibson_lanni((41, 41), OIL, pixel_size=0.05),
    ],
    ids=["gaussian", "even", "defocused", "stack", "airy"],
)
def test_a_centred_psf_without_background_is_only_normalised(psf):
    result = from_bead(psf)
    assert result.shift == (0,) * psf.ndim
    assert result.background == 0
    assert_allclose(result.psf, psf / psf.sum(), rtol=0, atol=1e-6 * result.psf.max())


def test_the_benchmarks_psf_is_only_normalised():
    file = SHARED / "images" / "psf.npy"
    if not file.exists():
        pytest.skip(f"{file} is missing; set SELFINV_SHARED to the folder that holds images/psf.npy")
    psf = np.load(file)
    assert_allclose(from_bead(psf).psf, psf, rtol=0, atol=1e-9)


def test_a_real_bead_loses_its_camera_offset():
    file = SHARED / "volumes" / "bead" / "observed.tif"
    if not file.exists():
        pytest.skip(f"{file} is missing; set SELFINV_SHARED to the folder that holds volumes/bead")
    image = pytest.importorskip("tifffile").imread(file)
    result = from_bead(image, shape=(33, 33, 33))
    assert result.background == pytest.approx(200, abs=15)
    assert result.psf.argmax() // 33**2 in (14, 15, 16, 17, 18, 19)
    assert result.psf.min() >= 0
    assert not any("background" in w for w in check_psf(result.psf, 3))


@pytest.mark.parametrize("target", [(0.3, 0.12, 0.12), (0.5, 0.25, 0.2), (0.1, 0.05, 0.07)])
def test_resampling_keeps_width_in_micrometres_flux_and_centre(target):
    voxel, sigma = (0.2, 0.1, 0.1), (0.6, 0.3, 0.3)
    image = bead((41, 41, 40), sigma, peak=50, step=voxel)
    result = from_bead(image, voxel_size=voxel, target_voxel_size=target, normalise=False)
    assert result.voxel_size == target
    assert result.psf.sum() == pytest.approx(image.sum(), rel=1e-3)
    for axis in range(3):
        # A pixel averages over its area, which adds step² / 12 to the variance.
        expected = np.sqrt(sigma[axis] ** 2 + target[axis] ** 2 / 12)
        assert width(result.psf, axis, target[axis]) == pytest.approx(expected, rel=0.01)
    ideal = bead(result.psf.shape, sigma, step=target)
    assert_allclose(
        result.psf / result.psf.sum(), ideal / ideal.sum(), rtol=0, atol=2e-3 * ideal.max() / ideal.sum()
    )


def test_coarsening_does_not_alias():
    """A pattern at the fine Nyquist frequency averages out; picking every fourth pixel would keep it."""
    image = bead((64, 65), (8.0, 8.0))
    stripes = image * (1 + (-1.0) ** np.arange(65))
    plain, striped = (
        from_bead(i, voxel_size=1, target_voxel_size=4, centre=False, background=0).psf
        for i in (image, stripes)
    )
    assert_allclose(striped, plain, atol=0.02 * plain.max())


@pytest.mark.parametrize("size", [(9, 8), (8, 9), (25, 26)])
def test_crop_and_pad_keep_the_centre(size):
    psf = from_bead(gaussian(1.2, (16, 17)), shape=size).psf
    assert psf.shape == size
    assert np.unravel_index(psf.argmax(), size) == (size[0] // 2, size[1] // 2)
    expected = gaussian(1.2, size)
    assert_allclose(psf, expected, atol=1e-4)


def test_an_asymmetric_psf_can_be_kept_where_it_is():
    psf = np.roll(gaussian(1.5, (21, 21)), (2, 1), (0, 1))
    assert_allclose(from_bead(psf, centre=False).psf, psf, atol=1e-15)
    assert_allclose(from_bead(psf).shift, (2, 1), atol=1e-3)


def test_a_given_background_is_used_as_it_is():
    image = 100 + 500 * gaussian(1.5, (21, 21))
    assert from_bead(image, background=90).background == 90
    assert from_bead(image).background == pytest.approx(100)


def test_what_a_user_should_know_is_said():
    rng = np.random.default_rng(0)
    two = bead((48, 48), (1.5, 1.5), (-8, -8)) + 0.8 * bead((48, 48), (1.5, 1.5), (10, 10))
    assert "second bright object" in " ".join(from_bead(two).warnings)
    faint = bead((32, 32), (2.0, 2.0), peak=60) + 100 + 10 * rng.normal(size=(32, 32))
    assert "times the noise" in " ".join(from_bead(faint).warnings)
    flat = np.minimum(bead((32, 32), (3.0, 3.0), peak=500), 255).astype(np.uint8)
    assert "saturated" in " ".join(from_bead(flat).warnings)
    corner = bead((32, 32), (1.5, 1.5), (-12, 0))
    assert "near the image's edge" in " ".join(from_bead(corner).warnings)
    assert "bead's light falls inside" in " ".join(from_bead(gaussian(3.0, (31, 31)), shape=(7, 7)).warnings)


@pytest.mark.parametrize("shape", [(33, 33), (129, 129), (15, 33, 33)])
def test_noise_is_no_bead(shape):
    """It was made a PSF; a bead with a peak four times the noise still is one."""
    rng = np.random.default_rng(0)
    for noise in (rng.normal(100, 10, shape), rng.poisson(200, shape)):
        with pytest.raises(InputError, match="no bead can be told from the noise"):
            from_bead(noise)
    faint = from_bead(bead(shape, [2.0] * len(shape), peak=40) + rng.normal(100, 10, shape))
    assert "times the noise" in " ".join(faint.warnings)


@pytest.mark.parametrize(
    ("image", "options", "words"),
    [
        (np.zeros((9, 9)), {}, "nothing in the bead image is above its background"),
        (np.ones((2, 2, 2, 2)), {}, "4 axes; expected 1 to 3"),
        (np.ones((9, 9)), {"background": "Auto"}, "background must be a finite number, got 'Auto'"),
        (
            100 + bead((21, 21), (1.5, 1.5), peak=1400),
            {"background": 1000},
            "background of 1000 is above all that surrounds the bead, on average 100",
        ),
        (
            np.pad(np.ones((3, 3)), (2, 28)),
            {"centre": False, "shape": (5, 5)},
            r"none of the bead's light falls inside the result's \(5, 5\) pixels",
        ),
        (np.full((5, 5), np.nan), {}, "no finite value"),
        (np.diag([np.nan, 1.0, 1.0]), {}, "bead image has 1 values that are NaN or infinite; crop"),
        (gaussian(1, (9, 9)), {"target_voxel_size": 0.1}, "without voxel_size"),
        (gaussian(1, (9, 9)), {"voxel_size": 0}, "voxel_size must be a positive number, got 0"),
        (gaussian(1, (9, 9)), {"shape": (9,)}, r"1 axes; expected 2 \(yx\)"),
    ],
)
def test_mistakes_are_named(image, options, words):
    with pytest.raises(InputError, match=words):
        from_bead(image, **options)
