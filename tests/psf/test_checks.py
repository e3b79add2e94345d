import os
from pathlib import Path

import numpy as np
import pytest
from numpy.testing import assert_allclose

from selfinv.psf import Objective, check_psf, gaussian, gibson_lanni, normalise
from selfinv.types import InputError

SHARED = Path(os.environ.get("SELFINV_SHARED") or Path(__file__).resolve().parents[2].parent / "shared")


def read_shared(name):
    file = SHARED / name
    if not file.exists():
        pytest.skip(f"{file} is missing; set SELFINV_SHARED to the folder that holds {name}")
    if file.suffix == ".npy":
        return np.load(file)
    return pytest.importorskip("tifffile").imread(file)


def test_a_psf_that_spreads_beyond_its_array_without_a_bright_edge_is_said_to_be_cut_off():
    """Far from focus no sample is bright, but many together are."""
    z, y, x = np.indices((15, 15, 15)) - 7.0
    cone = np.exp(-(x**2 + y**2) / (2.0 * (1.0 + np.abs(z)) ** 2)) / (1.0 + np.abs(z)) ** 2
    assert any("of its sum lies on its outermost samples" in w for w in check_psf(cone, 3))


@pytest.mark.parametrize("name", ["images/psf.npy", "volumes/bars/psf.tif", "volumes/bead/psf.tif"])
def test_real_psfs_pass_without_a_word(name):
    psf = read_shared(name)
    assert check_psf(psf, psf.ndim) == ()


MOTION = np.zeros((9, 9))
MOTION[4] = 1 / 9
COMA = np.zeros((21, 21))
COMA[10, 10:19] = 0.9 ** np.arange(9)


@pytest.mark.parametrize(
    "psf",
    [
        gaussian(1.5, (13, 13)),
        gaussian((2.0, 1.0, 1.0)),
        gaussian(1.5, (16, 16)),
        1000 * gaussian(1.5, (13, 13)),
        gaussian(1.5, (13, 13)) / gaussian(1.5, (13, 13)).max(),
        np.ones((5, 5)) / 25,
        np.ones((4, 4)) / 16,
        np.outer([1, 2, 1], [1, 2, 1]) / 16,
        MOTION,
        COMA / COMA.sum(),
        gibson_lanni((17, 31, 31), Objective(1.2, 0.52), pixel_size=0.1, z_step=0.3),
    ],
    ids=[
        "odd",
        "3-D",
        "even",
        "counts",
        "peak 1",
        "box",
        "even box",
        "binomial",
        "motion",
        "coma",
        "widefield",
    ],
)
def test_sound_psfs_pass_without_a_word(psf):
    assert check_psf(psf, psf.ndim, (64,) * psf.ndim) == ()


def with_value(value):
    psf = gaussian(1.5, (13, 13))
    psf[6, 6] = value
    return psf


@pytest.mark.parametrize(
    ("psf", "ndim", "words"),
    [
        (np.array([["a"]]), 2, "expected an array of real numbers"),
        (np.ones((3, 3), complex), 2, "complex128"),
        (np.zeros((0, 3)), 2, r"shape \(0, 3\)"),
        (with_value(np.nan), 2, "1 values that are NaN or infinite"),
        (with_value(np.inf), 2, "NaN or infinite"),
        (
            np.ma.masked_less(gaussian(1.5, (13, 13)), 1e-3),
            2,
            "psf is a masked array with [0-9]+ masked values",
        ),
        ([[1, 2], [1]], 2, "psf: a list with rows of different lengths is no array"),
        (np.zeros((3, 3)), 2, "zero everywhere"),
        (np.full((3, 3), 1e308), 2, "divide it by its maximum"),
        (gaussian(1.5, (13, 13)) - 0.001, 2, "negative values down to -0.001.*selfinv psf measured"),
        (np.full((3, 3), -1.0), 2, "negative|positive sum"),
        (
            gaussian(1.5, (13, 13)),
            3,
            r"psf has 2 axes but the image has 3 spatial axes \(zyx\); pass a 3-D psf or axes='cyx'",
        ),
        (
            gaussian(1, (5, 5, 5)),
            2,
            r"psf has 3 axes but the image has 2 spatial axes \(yx\); pass a 2-D psf",
        ),
    ],
)
def test_what_cannot_work_is_refused_with_advice(psf, ndim, words):
    with pytest.raises(InputError, match=words):
        check_psf(psf, ndim)


def cropped(psf, size):
    middle = psf.shape[0] // 2
    part = slice(middle - size // 2, middle + size // 2 + 1)
    return psf[part, part]


BIG = gaussian(2.0, (41, 41))
DISC = gibson_lanni((17, 17), Objective(na=0.8, wavelength=0.6), pixel_size=0.406, defocus=20.0)
BETWEEN = np.exp(-0.5 * np.add.outer(*[(np.arange(16) - 7.5) ** 2] * 2) / 2.0**2)


@pytest.mark.parametrize(
    ("psf", "image_shape", "words"),
    [
        (np.roll(BIG, (5, -3), (0, 1)), None, r"off-centre by \(\+5.0, -3.0\) pixels \(yx\)"),
        (np.fft.ifftshift(BIG), None, "in the corner .* pass numpy.fft.fftshift"),
        (
            normalise(cropped(BIG, 7)),
            None,
            "cut off: at the edge of its . axis it is still 3[0-9]% of its maximum",
        ),
        (gaussian(3.0, (9, 9)), None, "cut off: at the edge of its . axis it is still 4[0-9]%"),
        (gaussian(5.0, (9, 9)), None, "cut off: at the edge of its . axis it is still 7[0-9]%"),
        (BIG + 0.02 * BIG.max(), None, "constant background that holds 5[0-9]% of its sum"),
        (BIG + 0.5 * BIG.max(), None, "33% of its maximum or more all along its edge: if it is cut off"),
        (DISC, None, "[45][0-9]% of its maximum or more all along its edge: if it is cut off, compute"),
        (BIG[8:-8, 8:-8] + 0.003 * BIG.max(), None, "constant background that holds 7% of its sum"),
        (BETWEEN, None, r"symmetric about the middle between two samples \(y, x\).* odd size"),
        (BETWEEN[1:], None, r"symmetric about the middle between two samples \(x\)"),
        (gaussian(0.2, (7, 7)), None, r"nearly a single pixel \(its OTF is still 9[0-9]%"),
        (BIG, (64, 40), r"psf \(41, 41\) is larger than the image \(64, 40\)"),
        (gaussian(1.0, (129, 129)), None, r"almost all empty.* crop it to its inner \(9, 9\) pixels"),
        (0.8 * BIG, None, "sums to 0.8, not 1"),
        (BIG - 1e-3 * BIG.max(), None, "slightly negative values"),
    ],
    ids=[
        "shift",
        "corner",
        "cut",
        "cut closely",
        "cut to its middle",
        "background",
        "high background",
        "disc",
        "faint",
        "between",
        "along x",
        "narrow",
        "large",
        "empty",
        "sum",
        "negative",
    ],
)
def test_what_looks_wrong_is_said_once(psf, image_shape, words):
    warnings = check_psf(psf, 2, image_shape)
    found = [w for w in warnings if "sums to" not in w or "sums to" in words]
    assert len(found) == 1
    with pytest.raises(AssertionError, match=words):
        raise AssertionError(found[0])


def test_a_noisy_background_is_still_told():
    clean = gaussian(2.0, (33, 33))
    for seed in range(20):
        noise = 0.2 * np.random.default_rng(seed).standard_normal(clean.shape)
        noisy = clean + 0.05 * clean.max() * (1.0 + noise)
        assert any("constant background" in words for words in check_psf(noisy, 2))


def test_the_raw_image_of_a_bead_is_not_taken_for_a_psf_silently():
    observed = read_shared("volumes/bead/observed.tif")
    text = " ".join(check_psf(observed, 3))
    assert "constant background" in text
    assert "off-centre by (-" in text


def test_normalise_keeps_the_form_and_leaves_its_input_alone():
    psf = np.arange(12, dtype=np.uint8).reshape(3, 4)
    out = normalise(psf)
    assert out.dtype == np.float64
    assert_allclose(out * 66, psf)
    with pytest.raises(InputError, match="zero everywhere"):
        normalise(np.zeros((3, 3)))
