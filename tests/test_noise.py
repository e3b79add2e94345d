"""Noise: moments against theory, seeds, levels, and the benchmark's generator against a plain loop."""

import csv
import os
from pathlib import Path

import numpy as np
import pytest
import torch

from selfinv import metrics
from selfinv.noise import (
    NoiseModel,
    benchmark_degradation,
    gaussian,
    noise_level,
    normalise_minmax,
    poisson,
    poisson_gaussian,
    quantise,
    salt_and_pepper,
)
from selfinv.types import InputError

SHARED = Path(os.environ.get("SELFINV_SHARED") or Path(__file__).resolve().parents[1].parent / "shared")
N = 200_000
DRAWS = {
    "gaussian": lambda z, seed: gaussian(z, 0.1, seed),
    "poisson_gaussian": lambda z, seed: poisson_gaussian(z, 0.01, 0.1, seed),
    "poisson": lambda z, seed: poisson(z, 30, seed),
    "salt_and_pepper": lambda z, seed: salt_and_pepper(z, 0.3, seed),
    "model": lambda z, seed: NoiseModel(photons=50).apply(z, seed),
}


def assert_moments(noisy, mean, variance):
    """Mean and variance within five standard errors (the variance's for near-normal values)."""
    assert abs(noisy.mean() - mean) < 5 * np.sqrt(variance / noisy.size)
    assert abs(noisy.var() - variance) < 5 * variance * np.sqrt(2.2 / noisy.size)


@pytest.mark.parametrize("level", [0.0, 0.3, 1.0, 20.0])
def test_moments_follow_the_formulas(level):
    z = np.full(N, level)
    assert_moments(gaussian(z, 0.2, 1), level, 0.04)
    assert_moments(poisson_gaussian(z, 0.05, 0.1, 1), level, 0.05 * level + 0.01)
    if level:
        assert_moments(poisson(z, 40, 1), level, level / 40)


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("unit", [2.0**-83, 2.0**83])
def test_noise_goes_with_the_unit(unit, dtype):
    """At 1e-25 there was none, at 1e25 it was NaN: the variance left single precision."""
    z = np.linspace(0, 3, 1000, dtype=dtype)
    assert np.array_equal(gaussian(unit * z, unit * 0.1, 0), unit * gaussian(z, 0.1, 0))
    there = poisson_gaussian(unit * z, unit * 0.02, unit * 0.1, 0)
    assert np.array_equal(there, unit * poisson_gaussian(z, 0.02, 0.1, 0))
    assert gaussian(0 * z, 1e-25, 0).std() == pytest.approx(1e-25, rel=0.1)


def test_the_same_seed_gives_the_noise_that_it_always_gave():
    z = np.linspace(-0.2, 3, 1000, dtype=np.float32)
    normal = np.random.default_rng(7).standard_normal(1000)
    for alpha, sigma in ((0.0, 0.1), (0.001, 0.1), (0.02, 0.0), (3.0, 7.0)):
        plain = z + np.sqrt(np.maximum(alpha * z + sigma**2, 0)) * normal
        assert np.array_equal(poisson_gaussian(z, alpha, sigma, 7), plain.astype(np.float32))


def test_variance_is_clamped_not_nan_for_negative_intensities():
    noisy = poisson_gaussian(np.full(100, -5.0), 0.1, 0.1, 0)
    assert (noisy == -5).all()


def test_poisson_gives_whole_counts_of_the_poisson_distribution():
    counts = poisson(np.full(N, 0.5), 4, 0) * 4
    assert np.array_equal(counts, counts.round())
    expected = np.exp(-2) * np.array([1, 2, 2, 4 / 3])
    assert np.allclose([(counts == k).mean() for k in range(4)], expected, atol=0.006)
    assert (poisson(np.array([-1e-9, 1.0, 0.0]), 5, 0)[[0, 2]] == 0).all()


def test_salt_and_pepper_replaces_the_fraction_uniformly():
    z = np.full(N, 5.0)
    noisy = salt_and_pepper(z, 0.2, 0, low=-1, high=3)
    hit = noisy != 5
    assert abs(hit.mean() - 0.2) < 5 * np.sqrt(0.2 * 0.8 / N)
    assert np.allclose(np.histogram(noisy[hit], 4, (-1, 3))[0] / hit.sum(), 0.25, atol=0.015)
    assert np.array_equal(salt_and_pepper(z, 0, 0), z)
    assert (salt_and_pepper(z, 1, 0) != 5).all()


@pytest.mark.parametrize("bits", [1, 3, 10, 16])
@pytest.mark.parametrize(("low", "high"), [(0.0, 1.0), (-50.0, 4000.0)])
def test_quantise_has_two_to_the_bits_levels_and_rounds_to_the_nearest(bits, low, high):
    z = np.random.default_rng(0).uniform(low, high, 4_000_000 if bits == 16 else N)
    z[:2] = low, high
    levels = quantise(z, bits, low, high)
    assert len(np.unique(levels)) == 2**bits
    assert levels.min() == low
    assert levels.max() == pytest.approx(high)
    assert np.abs(levels - z).max() <= 0.5001 * (high - low) / (2**bits - 1)
    assert np.allclose(quantise(levels, bits, low, high), levels)


def test_quantise_does_not_clip():
    assert np.allclose(quantise(np.array([-1.2, 2.4]), 1), [-1, 2])


@pytest.mark.parametrize("name", DRAWS)
@pytest.mark.parametrize("shape", [(40,), (6, 7), (3, 4, 5)])
def test_seeds_shapes_and_inputs(name, shape):
    draw = DRAWS[name]
    z = np.random.default_rng(9).random(shape)
    before = z.copy()
    first = draw(z, 3)
    assert first.shape == shape
    assert np.array_equal(first, draw(z, 3))
    assert np.array_equal(first, draw(z, np.random.default_rng(3)))
    assert not np.array_equal(first, draw(z, 4))
    shared = np.random.default_rng(3)
    assert not np.array_equal(draw(z, shared), draw(z, shared))  # a shared generator moves on
    assert np.array_equal(z, before)


@pytest.mark.parametrize("name", DRAWS)
def test_types_and_the_global_generator_are_left_alone(name):
    state = np.random.get_state()[1].copy()  # noqa: NPY002
    z = np.random.default_rng(0).integers(0, 2, (5, 5))
    expected = {np.uint8: np.float32, np.uint16: np.float32, np.float32: np.float32, np.float64: np.float64}
    for given, returned in expected.items():
        assert DRAWS[name](z.astype(given), 0).dtype == returned
    assert np.array_equal(state, np.random.get_state()[1])  # noqa: NPY002


def test_model_chains_its_steps_in_order():
    z = np.random.default_rng(0).random((50, 60))
    model = NoiseModel(0.02, 0.3, 0.1, 4, 20, clip=True, low=-0.5, high=1.5)
    rng = np.random.default_rng(5)
    expected = poisson_gaussian(poisson(z, 20, rng), 0.02, 0.3, rng)
    expected = quantise(salt_and_pepper(expected, 0.1, rng, -0.5, 1.5), 4, -0.5, 1.5)
    assert np.array_equal(model.apply(z, 5), expected.clip(-0.5, 1.5))
    assert len(np.unique(model.apply(z, 5))) == 16
    assert NoiseModel(clip=False).apply(np.zeros(N), 0).min() < -0.3
    continuous = NoiseModel(bits=None, clip=False, salt_pepper=0).apply(z, 0)
    assert np.array_equal(continuous, poisson_gaussian(z, 0.001, 0.1, np.random.default_rng(0)))


def test_model_has_the_statistics_of_the_benchmark():
    truth = np.full((400, 400), 0.6, dtype=np.float32)
    model = NoiseModel().apply(truth, 0)
    benchmark = benchmark_degradation(truth, np.ones((1, 1)))[1]
    assert abs(model.mean() - benchmark.mean()) < 0.0015
    assert abs(model.std() - benchmark.std()) < 0.0015


def test_normalise_minmax():
    image = np.array([[3, 250], [17, 100]], dtype=np.uint8)
    out = normalise_minmax(image)
    assert out.dtype == np.float32
    assert np.array_equal(out, (image.astype(np.float32) - 3) / np.float32(247))
    assert np.allclose(normalise_minmax(image * 8.0 - 1e4), out, atol=1e-6)


def plain_benchmark(truth, psf):
    """The benchmark spelt out pixel by pixel, from the same legacy draws."""
    rows, columns = truth.shape
    blurry = np.zeros(truth.shape)
    for i, j in np.ndindex(rows, columns):
        for k, m in np.ndindex(psf.shape):
            p, q = i - k + psf.shape[0] // 2, j - m + psf.shape[1] // 2
            if 0 <= p < rows and 0 <= q < columns:
                blurry[i, j] += psf[k, m] * truth[p, q]
    legacy = np.random.RandomState(0)
    normal, chance, value = (
        draw(size=truth.shape) for draw in (legacy.normal, legacy.uniform, legacy.uniform)
    )
    noisy = np.zeros(truth.shape)
    for at in np.ndindex(rows, columns):
        v = blurry[at] + (0.001 * blurry[at] + 0.01) ** 0.5 * normal[at]
        v = value[at] if chance[at] < 0.01 else v
        noisy[at] = min(max(round(v * 1024) / 1024, 0), 1)
    return blurry, noisy


@pytest.mark.parametrize("size", [(3, 5), (4, 2), (1, 1), (15, 3)])
def test_benchmark_equals_the_plain_loop(size):
    rng = np.random.default_rng(0)
    truth = rng.random((12, 17)).astype(np.float32)
    truth[:, :3] = 0
    psf = rng.random(size)
    psf /= psf.sum()
    blurry, noisy = benchmark_degradation(truth, psf)
    assert blurry.dtype == noisy.dtype == np.float32
    expected = plain_benchmark(truth, psf)
    assert np.allclose(blurry, expected[0], atol=1e-6)
    assert np.abs(noisy - expected[1]).max() <= 1 / 1024  # float32 may tip a rounding...
    assert (noisy != expected[1].astype(np.float32)).mean() < 0.01  # ...but hardly ever does
    assert not np.array_equal(noisy, benchmark_degradation(truth, psf, seed=1)[1])


def test_benchmark_pixels_stay_what_they_are():
    truth = np.arange(16).reshape(4, 4) / 15
    noisy = benchmark_degradation(truth, np.full((1, 2), 0.5))[1]
    # The first legacy normals after seed(0) are 1.764052, 0.400157, 0.978738, 2.240893.
    blurred = (truth[0] + np.append(truth[0, 1:], 0)) / 2
    expected = blurred + np.sqrt(0.001 * blurred + 0.01) * [1.764052, 0.400157, 0.978738, 2.240893]
    assert np.allclose(noisy[0] * 1024, np.round(expected * 1024), atol=1e-3)


@pytest.mark.parametrize(
    "name",
    ["nuclei924x624", "cytoplasm924x624", "fishembryo700x700", "usaf768x812", "drosophilaslice532x1352"],
)
def test_benchmark_reproduces_the_published_input_scores(name):
    images = SHARED / "images"
    if not (images / "input_rows.csv").exists():
        pytest.skip(f"no benchmark images in {images}; set SELFINV_SHARED to the folder that has images/")
    from skimage.io import imread

    with open(images / "input_rows.csv", newline="") as file:
        rows = {row["kind"]: row for row in csv.DictReader(file) if row["image"] == name}
    truth = normalise_minmax(imread(images / f"{name}.png"))
    degraded = benchmark_degradation(truth, np.load(images / "psf.npy"))
    for kind, image in zip(("blurry", "noisy"), degraded, strict=True):
        found = metrics.scores(truth, image, clip=(0, 1))
        found["ssim_range1"] = found["ssim"]
        for column in ("psnr", "ssim_range2", "ssim_range1", "mi", "smi"):
            assert found[column] == pytest.approx(float(rows[kind][column]), abs=1e-3), (kind, column)


# ---- how much noise there is ----


@pytest.mark.parametrize("shape", [(4000,), (100, 90), (20, 30, 25), (2, 3, 60, 50)])
@pytest.mark.parametrize("sigma", [1e-4, 0.1, 300.0])
def test_noise_level_is_the_deviation_of_gaussian_noise(shape, sigma):
    noisy = gaussian(np.full(shape, 7 * sigma), sigma, seed=0)
    assert noise_level(noisy) == pytest.approx(sigma, rel=0.05)
    assert isinstance(noise_level(noisy), float)


def test_noise_level_is_that_of_photons_too():
    counts = 30 * poisson(np.ones((200, 200)), 30, 0)
    assert noise_level(counts) == pytest.approx(np.sqrt(30), rel=0.03)


def test_what_is_smooth_counts_little():
    y, x = np.mgrid[:200, :200]
    assert noise_level(3.0 * x - 20.0 * y) == pytest.approx(0.0, abs=1e-9)  # slopes count nothing
    waves = 100 * np.sin(x / 15) * np.cos(y / 20)
    assert noise_level(gaussian(waves, 5.0, 0)) == pytest.approx(5.0, rel=0.05)
    edges = 100.0 * (x // 40 % 2)
    assert noise_level(gaussian(edges, 5.0, 0)) == pytest.approx(5.0, rel=0.5)


def test_noise_level_goes_with_the_unit_and_not_with_the_offset():
    noisy = gaussian(np.zeros((80, 80)), 2.0, 1)
    assert noise_level(1000 * noisy) == pytest.approx(1000 * noise_level(noisy))
    assert noise_level(noisy + 1e4) == pytest.approx(noise_level(noisy), rel=1e-6)


@pytest.mark.parametrize("missing", [np.nan, np.inf, -np.inf])
def test_noise_level_leaves_missing_values_out(missing):
    noisy = gaussian(np.zeros((200, 200)), 2.0, 1)
    holes = noisy.copy()
    holes[np.random.default_rng(2).random(noisy.shape) < 0.2] = missing
    before = holes.copy()
    assert noise_level(holes) == pytest.approx(2.0, rel=0.05)
    np.testing.assert_array_equal(holes, before)


def test_noise_level_takes_tensors_and_no_masked_values():
    values = gaussian(np.zeros((20, 20)), 1.0, seed=0)
    assert noise_level(torch.from_numpy(values).requires_grad_()) == noise_level(values)
    with pytest.raises(InputError, match="masked values; fill them in"):
        noise_level(np.ma.masked_greater(values, 1.0))


@pytest.mark.parametrize(
    "values",
    [np.zeros(0), np.ones(2), np.full((4, 4), np.nan), np.ones((50, 1)), np.full((9, 9), 3)],
    ids=str,
)
def test_noise_level_is_0_where_nothing_can_be_said(values):
    assert noise_level(values) == 0.0


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: gaussian([0.0], -1, 0), "sigma"),
        (lambda: gaussian([np.nan, 1], 1, 0), "NaN"),
        (lambda: gaussian([1j], 1, 0), "complex"),
        (lambda: gaussian([0.0], 1, -1), "seed"),
        (lambda: gaussian([0.0], 1, None), "seed"),
        (lambda: poisson_gaussian([0.0], np.nan, 1, 0), "alpha"),
        (lambda: poisson([0.5], 0, 0), "peak"),
        (lambda: poisson([-0.5, 1], 10, 0), "-0.5"),
        (lambda: poisson([1e12], 1e9, 0), "1e18"),
        (lambda: salt_and_pepper([0.0], 1.5, 0), "fraction"),
        (lambda: salt_and_pepper([0.0], 0.5, 0, 1, 1), "low < high"),
        (lambda: quantise([0.0], 0), "bits"),
        (lambda: quantise([0.0], 2.5), "bits"),
        (lambda: quantise([0.0], 8, 1, 0), "low < high"),
        (lambda: NoiseModel(sigma=-0.1), "sigma"),
        (lambda: NoiseModel(bits=64), "bits"),
        (lambda: NoiseModel(alpha="x"), "alpha must be 0 or more, got 'x'"),
        (lambda: NoiseModel(photons="x"), "peak.* must be a positive number, got 'x'"),
        (lambda: NoiseModel(photons=-1), "peak"),
        (lambda: NoiseModel(salt_pepper=2), "fraction"),
        (lambda: NoiseModel(low=1), "low < high"),
        (lambda: normalise_minmax(np.full((3, 3), 7)), "constant"),
        (lambda: benchmark_degradation(np.ones(5), np.ones((1, 1))), "2-D"),
        (lambda: benchmark_degradation(np.full((5, 5), 255), np.ones((1, 1))), "normalise_minmax"),
        (lambda: benchmark_degradation(np.eye(5), np.ones((3, 3))), "sums to 9"),
    ],
)
def test_mistakes_are_said_in_one_line(call, message):
    with pytest.raises(InputError, match=message) as caught:
        call()
    assert "\n" not in str(caught.value)
