"""What is done to an image, and what is told of it."""

import os
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from scipy.signal import convolve2d
from skimage import data

from selfinv import noise
from selfinv.benchmark import psfs
from selfinv.benchmark.conditions import TRACKS, blur, blur_beyond, conditions_of, degrade, noise_from
from selfinv.benchmark.images import Loaded, Source, find_images, load
from selfinv.benchmark.run import compare_with
from selfinv.benchmark.scores import against_truth
from selfinv.demo import microscope_psf
from selfinv.types import InputError

SHARED = Path(os.environ.get("SELFINV_SHARED") or Path(__file__).resolve().parents[2].parent / "shared")
needs_shared = pytest.mark.skipif(
    not (SHARED / "images" / "input_rows.csv").exists(), reason=f"the benchmark's images are not in {SHARED}"
)


@pytest.fixture(scope="module")
def truth():
    return Loaded(noise.normalise_minmax(data.camera()[100:164, 200:280]))


def test_track_a_is_the_papers_generator_to_the_bit(truth):
    (condition,) = TRACKS["a"]
    measured = degrade(truth, condition, seed=0)
    blurry, noisy = noise.benchmark_degradation(truth.truth, microscope_psf(), 0)
    assert np.array_equal(measured.image, noisy)
    assert np.array_equal(measured.blurred, blurry)
    assert np.array_equal(measured.psf, microscope_psf())


@needs_shared
def test_our_model_of_the_benchmark_psf_is_close_to_the_published_file():
    published = psfs.benchmark_psf(SHARED / "images" / "psf.npy")
    assert np.abs(microscope_psf() - published).max() < 0.04 * published.max()


@needs_shared
@pytest.mark.parametrize("name", ["fishembryo700x700", "usaf768x812"])
def test_the_inputs_scores_are_the_published_ones(name):
    (source,) = find_images(SHARED / "images", 0, (name,))[0]
    loaded = load(source)
    measured = degrade(loaded, TRACKS["a"][0], 0, SHARED / "images" / "psf.npy")
    rows = [
        {"track": "a", "seed": 0, "image": name, "method": method, "status": "ok"}
        | against_truth(loaded.truth, image)
        for method, image in (("blurred", measured.blurred), ("input", measured.image))
    ]
    assert compare_with(SHARED / "images" / "input_rows.csv", rows) == ([], len(rows))
    rows[1]["psnr"] += 0.01
    assert "psnr" in compare_with(SHARED / "images" / "input_rows.csv", rows)[0][0]


def test_every_condition_degrades_and_no_two_alike(truth):
    seen = {}
    for condition in (*TRACKS["b"], *TRACKS["d"]):
        measured = degrade(truth, condition, seed=0)
        assert measured.pictured(measured.image).shape == truth.truth.shape
        assert measured.image.dtype == np.float32
        again = degrade(truth, condition, seed=0)
        assert np.array_equal(measured.image, again.image, equal_nan=True)
        other = degrade(truth, condition, seed=1)
        assert not np.array_equal(measured.image, other.image, equal_nan=True)
        told = b"" if measured.psf is None else measured.psf.tobytes()
        key = (measured.image.tobytes(), told)
        assert key not in seen, (condition.name, seen[key])
        seen[key] = condition.name


def test_a_wrong_psf_is_told_while_the_right_one_blurs(truth):
    wrong = next(c for c in TRACKS["b"] if c.name == "told na-20%")
    measured = degrade(truth, wrong, seed=0)
    assert np.allclose(measured.blurred, blur(truth.truth, microscope_psf()), atol=1e-5)
    assert np.allclose(measured.psf, microscope_psf(na=0.64))
    assert not np.allclose(measured.psf, microscope_psf())


def test_the_fraction_asked_for_is_missing_and_nothing_is_told_of_a_blur_that_was_not(truth):
    denoising = next(c for c in TRACKS["d"] if c.name == "30 % missing")
    measured = degrade(truth, denoising, seed=0)
    assert np.isnan(measured.image).mean() == pytest.approx(0.3, abs=0.03)
    assert measured.psf is None
    assert measured.operator is None
    assert np.array_equal(measured.blurred, truth.truth)
    other = degrade(truth, denoising, seed=1)
    assert not np.array_equal(np.isnan(measured.image), np.isnan(other.image))


def test_noise_is_in_proportion_to_values_that_are_no_intensities(truth):
    condition = next(c for c in TRACKS["d"] if c.name == "projections")
    measured = degrade(truth, condition, seed=0)
    spread = measured.blurred.std()
    assert spread > 2  # sums along lines
    assert np.std(measured.image - measured.blurred) == pytest.approx(0.05 * spread, rel=0.05)


@pytest.mark.parametrize("name", ["spectrum", "spectrum lines"])
def test_frequencies_that_are_not_sampled_are_missing(truth, name):
    condition = next(c for c in TRACKS["d"] if c.name == name)
    measured = degrade(truth, condition, seed=0)
    assert np.array_equal(np.isfinite(measured.image), measured.operator.measured.numpy())
    assert 0.2 < np.isfinite(measured.image).mean() < 0.5


def test_photons_are_counted(truth):
    condition = next(c for c in TRACKS["b"] if c.name == "10 photons")
    counts = degrade(truth, condition, seed=0).image * 10
    assert np.allclose(counts, np.round(counts), atol=1e-4)
    assert counts.max() > 10  # nothing clipped


@pytest.mark.parametrize("name", ["motion", "asymmetric", "in-focus", "defocused", *psfs.NAMES[6:]])
def test_psfs_are_psfs(name):
    kernel = psfs.named(name)
    assert kernel.shape == psfs.SHAPE
    assert kernel.sum() == pytest.approx(1)
    assert kernel.min() >= 0
    symmetric = np.allclose(kernel, kernel[::-1, ::-1])
    assert symmetric == (name != "asymmetric")


@pytest.mark.parametrize("shape", [(5, 5), (4, 7)])
def test_blur_is_scipys_with_the_centre_at_half(shape):
    random = np.random.default_rng(0)
    image, kernel = random.random((20, 31)), random.random(shape)
    full = convolve2d(image, kernel)
    expected = full[shape[0] // 2 :, shape[1] // 2 :][:20, :31]
    assert np.allclose(blur(image, kernel), expected, atol=1e-5)


def test_light_that_is_nowhere_negative_is_not_behind_a_blur_either():
    point = np.zeros((40, 40), np.float32)
    point[5, 5] = 1
    assert (
        blur(point, microscope_psf()).min() == 0
    )  # rounding would leave less, of which no photons are drawn
    assert blur(-point, microscope_psf()).min() < -0.01


@pytest.mark.parametrize("shape", [(5, 5), (4, 7)])
def test_a_background_goes_on_beyond_the_edges(shape):
    random = np.random.default_rng(0)
    image, kernel = random.random((20, 31)), random.random(shape)
    inside = (slice(7, -7),) * 2
    assert np.allclose(blur_beyond(image, kernel)[inside], blur(image, kernel)[inside], atol=1e-5)
    assert np.allclose(blur_beyond(np.full((20, 31), 200.0), kernel / kernel.sum()), 200, atol=1e-3)


def test_a_bead_without_truth_has_values_hidden_from_everyone():
    random = np.random.default_rng(0)
    observed = random.random((12, 16, 16)).astype(np.float32)
    kernel = random.random((3, 3, 3))
    measured = degrade(Loaded(None, observed, kernel), TRACKS["c"][0], seed=0)
    assert np.isnan(measured.image[measured.hidden]).all()
    assert np.array_equal(measured.hidden_values, observed[measured.hidden])
    assert 0.005 < measured.hidden.mean() < 0.05
    other = degrade(Loaded(None, observed, kernel), TRACKS["c"][0], seed=1)
    assert not np.array_equal(measured.hidden, other.hidden)


def test_noise_in_words():
    assert noise_from("sigma=0.05,clip=no") == replace(noise.NoiseModel(), sigma=0.05, clip=False)
    assert noise_from("photons=30,bits=0") == noise.NoiseModel(0, 0, 0, None, 30.0, False)
    (condition,) = conditions_of("a", noise=["salt-pepper=0"])
    assert (condition.name, condition.noise.salt_pepper) == ("salt-pepper=0", 0)


@pytest.mark.parametrize("words", ["sigma", "sigma=x", "gain=3", "clip=perhaps", "sigma=-1"])
def test_noise_that_is_none(words):
    with pytest.raises(InputError):
        noise_from(words)


def test_the_words_of_a_noise_are_given_as_they_are_written():
    with pytest.raises(InputError, match=r"'gain' is unknown; use alpha, sigma, salt-pepper, bits"):
        noise_from("gain=3")


def test_names_that_are_none():
    with pytest.raises(InputError, match="no track 'x'"):
        conditions_of("x")
    with pytest.raises(InputError, match="has no condition 'rain'"):
        conditions_of("b", ["rain"])
    with pytest.raises(InputError, match="there is none"):
        degrade(Loaded(None), TRACKS["a"][0], 0)
    assert Source("x", "image").ndim == 2
