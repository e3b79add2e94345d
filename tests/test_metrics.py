"""Metrics: against scikit-image and brute force, identities, conditioning, and FRC where theory knows it."""

from collections import Counter
from math import log

import numpy as np
import pytest
from scipy.ndimage import gaussian_filter, shift
from scipy.stats import entropy
from skimage import metrics as ski

from selfinv.metrics import (
    fourier_ring_correlation,
    frc_area,
    mutual_information,
    psnr,
    resolution,
    scores,
    spectral_concordance,
    spectral_mutual_information,
    ssim,
)
from selfinv.types import InputError

SHAPES = [(500,), (40, 31), (12, 15, 17)]
PAIRWISE = {
    "psnr": psnr,
    "ssim": lambda a, b: ssim(a, b, 1.0),
    "mi": mutual_information,
    "smi": spectral_mutual_information,
    "spectral": lambda a, b: spectral_concordance(a, b, data_range=1.0),
    "frc": lambda a, b: frc_area(fourier_ring_correlation(a, b)[1]),
}


def pair(shape, noise=0.2):
    rng = np.random.default_rng(len(shape))
    a = rng.random(shape)
    return a, a + noise * rng.standard_normal(shape)


@pytest.fixture(scope="module")
def scene():
    """Bright discs with edges on a gradient, 0…1, rounded to 8 bits as photographs are."""
    rng = np.random.default_rng(0)
    y, x = np.mgrid[:256, :256]
    image = 0.2 + 0.3 * x / 256 + 0.05 * rng.random((256, 256))
    for cy, cx, r in rng.uniform((0, 0, 2), (256, 256, 20), (60, 3)):
        image[(y - cy) ** 2 + (x - cx) ** 2 < r**2] += 0.2
    image = (image - image.min()) / (image.max() - image.min())
    return np.round(255 * image) / 255


@pytest.mark.parametrize("unit", [1e-200, 3.0, 1e202])
def test_scores_do_not_depend_on_the_unit(unit):
    a, b = pair((40, 31))
    expected = scores(a, b)
    del expected["smi"]  # which rounding decides
    found = scores(unit * a, unit * b)
    assert {name: found[name] for name in expected} == pytest.approx(expected, rel=1e-6)
    assert psnr(unit * a, unit * b, unit) == pytest.approx(psnr(a, b))


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("data_range", [1.0, 2.0, 255.0])
def test_psnr_and_ssim_equal_scikit_image(shape, data_range):
    a, b = pair(shape)
    assert psnr(a, b, data_range) == pytest.approx(ski.peak_signal_noise_ratio(a, b, data_range=data_range))
    assert ssim(a, b, data_range) == pytest.approx(ski.structural_similarity(a, b, data_range=data_range))


@pytest.mark.parametrize(
    ("shape", "window"), [((5, 40), 5), ((6, 40), 5), ((3, 20, 20), 3), ((4,), 3), ((7, 7), 7)]
)
def test_ssim_of_small_images_takes_the_largest_window_that_fits(shape, window):
    a, b = pair(shape)
    expected = ski.structural_similarity(a, b, data_range=1, win_size=window)
    assert ssim(a, b, 1) == pytest.approx(expected)


@pytest.mark.parametrize("level", [0.0, 1e6, 1e8, -1e8])
def test_ssim_on_a_level_is_that_of_every_window_by_itself(level):
    """With a mean of squares less a squared mean it was 0.2 on a level of 1e7, and -200 on 1e8."""
    a, b = pair((24, 20))
    windows = (np.lib.stride_tricks.sliding_window_view(v, (7, 7)).reshape(-1, 49) for v in (a, b))
    expected = []
    for u, v in zip(*windows, strict=True):
        (var_u, both), (_, var_v) = np.cov(u, v)
        m, n = u.mean() + level, v.mean() + level
        luminance = (2 * m * n + 0.01**2) / (m**2 + n**2 + 0.01**2)
        expected.append(luminance * (2 * both + 0.03**2) / (var_u + var_v + 0.03**2))
    assert ssim(a + level, b + level, 1.0) == pytest.approx(np.mean(expected), rel=1e-6)


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("bins", [2, 16, 256])
def test_mutual_information_equals_scikit_image(shape, bins):
    a, b = pair(shape)
    # scikit-image's is (H(a) + H(b)) / H(a, b), which is one more than I / H(a, b).
    expected = ski.normalized_mutual_information(a, b, bins=bins) - 1
    assert mutual_information(a, b, bins) == pytest.approx(expected)


def test_mutual_information_equals_counting_by_hand():
    rng = np.random.default_rng(0)
    a, b = rng.integers(0, 4, (2, 300))
    b[:150] = a[:150]
    a[:4] = b[:4] = range(4)  # both span 0…3, so four bins hold one value each
    n = a.size
    joint, in_a, in_b = Counter(zip(a, b, strict=True)), Counter(a), Counter(b)
    information = sum(c / n * log(c * n / (in_a[i] * in_b[j])) for (i, j), c in joint.items())
    assert mutual_information(a, b, 4) == pytest.approx(information / entropy(list(joint.values())))


@pytest.mark.parametrize("shape", [(8,), (4, 6)])
def test_smi_equals_a_dct_by_matrices(shape):
    a, b = pair(shape)

    def spectrum(v):
        v = v / np.sqrt((v**2).sum())
        for axis, n in enumerate(shape):
            k, i = np.mgrid[:n, :n]
            v = np.moveaxis(
                np.tensordot(2 * np.cos(np.pi * k * (2 * i + 1) / (2 * n)), v, (1, axis)), 0, axis
            )
        return v

    expected = ski.normalized_mutual_information(spectrum(a), spectrum(b), bins=256) - 1
    assert spectral_mutual_information(a, b) == pytest.approx(expected)
    for unit in (2.0**-900, 2.0**900):  # whose squares are 0 and infinite
        assert spectral_mutual_information(unit * a, unit * b) == spectral_mutual_information(a, b)


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("name", PAIRWISE)
def test_identity_and_symmetry(shape, name):
    a, b = pair(shape)
    metric = PAIRWISE[name]
    assert metric(a, a) == pytest.approx(np.inf if name == "psnr" else 1)
    assert metric(a, b) == pytest.approx(metric(b, a))
    assert metric(a, b) < metric(a, a)


@pytest.mark.parametrize("shape", SHAPES)
def test_invariances(shape):
    a, b = pair(shape)
    assert psnr(a, b) == pytest.approx(psnr(7 * a + 3, 7 * b + 3, 7))
    assert mutual_information(a, b) == pytest.approx(mutual_information(8 * a, 1 - b))
    assert spectral_concordance(a, b) == pytest.approx(spectral_concordance(7 * a + 3, 7 * b - 2))
    frc = fourier_ring_correlation(a, b)[1]
    assert np.allclose(frc, fourier_ring_correlation(5 * a - 2, 3 * b + 1)[1])
    assert np.allclose(-frc, fourier_ring_correlation(a, -b)[1])
    assert spectral_concordance(a, -b) == 0


def test_a_constant_restoration_scores_badly_but_scores(scene):
    found = scores(scene, np.zeros_like(scene))
    assert all(np.isfinite(v) for v in found.values())
    assert found["mi"] == found["smi"] == found["spectral"] == found["frc"] == 0


def test_unrelated_images_score_zero(scene):
    noise = np.random.default_rng(1).random(scene.shape)
    assert spectral_concordance(scene, noise) < 0.02
    assert abs(frc_area(fourier_ring_correlation(scene, noise)[1])) < 0.03
    assert mutual_information(scene, noise, bins=16) < 0.01


def test_spectral_concordance_is_well_conditioned_where_smi_swings(scene):
    rng = np.random.default_rng(0)
    blurry = gaussian_filter(scene, 2)
    noisy = blurry + 0.1 * rng.standard_normal(scene.shape)
    for image in (scene, blurry, noisy):
        changes = [1e-3 * rng.standard_normal(scene.shape), *np.linspace(0.002, 0.02, 7)]
        smi, spectral = (
            [score(scene, image + c) - score(scene, image) for c in changes]
            for score in (spectral_mutual_information, spectral_concordance)
        )
        assert np.abs(spectral).max() < 0.01
        if image is noisy:
            # One noisy image, made brighter by at most 2 %: 0.04 to 0.46 in SMI.
            assert np.ptp(smi) > 0.3
            assert np.ptp(spectral) < 0.001


def test_spectral_concordance_falls_with_noise_with_blur_and_with_shift(scene):
    noise = np.random.default_rng(0).standard_normal(scene.shape)
    ladders = (
        [scene + s * noise for s in (0, 0.001, 0.01, 0.05, 0.1, 0.3, 1)],
        [gaussian_filter(scene, s) for s in (0.01, 0.5, 1, 2, 4, 8)],
        [shift(scene, (0, s), mode="nearest") for s in (0, 0.25, 0.5, 1, 2)],
    )
    for ladder in ladders:
        values = [spectral_concordance(scene, image) for image in ladder]
        assert values[0] == pytest.approx(1)
        assert np.all(np.diff(values) < 0)
        assert 0 <= values[-1] < 0.5


@pytest.mark.parametrize("shape", [(20000,), (256, 200), (40, 36, 44)])
@pytest.mark.parametrize("snr", [0.25, 1, 4])
@pytest.mark.parametrize("taper", [0, 0.25, 1])
def test_frc_of_two_noisy_images_is_snr_over_one_plus_snr(shape, snr, taper):
    rng = np.random.default_rng(0)
    signal = np.sqrt(snr) * rng.standard_normal(shape)
    a, b = (signal + rng.standard_normal(shape) for _ in range(2))
    _, correlation = fourier_ring_correlation(a, b, bins=10, taper=taper)
    # The first rings hold few coefficients, and a window ties neighbouring ones together.
    assert np.allclose(correlation[2:], snr / (1 + snr), atol=0.06 + 0.06 * taper)
    assert np.mean(correlation[2:]) == pytest.approx(snr / (1 + snr), abs=0.03)


def test_frc_follows_a_coloured_spectrum_and_finds_its_resolution():
    rng = np.random.default_rng(0)
    signal = gaussian_filter(rng.standard_normal((512, 512)), 1.5, mode="wrap")
    a, b = (signal + 0.05 * rng.standard_normal(signal.shape) for _ in range(2))
    f, correlation = fourier_ring_correlation(a, b, taper=0, bins=64)
    snr = np.exp(-((2 * np.pi * f * 1.5) ** 2)) / 0.05**2
    assert np.allclose(correlation, snr / (1 + snr), atol=0.08)
    crossing = np.sqrt(np.log(6 / 0.05**2)) / (2 * np.pi * 1.5)  # where the SNR is 1/6, the correlation 1/7
    assert resolution(f, correlation) == pytest.approx(1 / crossing, rel=0.05)


@pytest.mark.parametrize("shape", [(21,), (20,), (9, 12), (12, 9), (6, 5, 8)])
def test_frc_equals_a_loop_over_the_full_transform(shape):
    a, b = pair(shape)
    f, g = (np.fft.fftn(v - v.mean()) for v in (a, b))
    sums = np.zeros((3, 100))
    frequencies, correlation = fourier_ring_correlation(a, b, taper=0)
    step = frequencies[0]
    for at in np.ndindex(shape):
        k = [(i if i <= n // 2 else i - n) / n for i, n in zip(at, shape, strict=True)]
        ring = int(np.sqrt(np.dot(k, k)) / step + 0.5 + 1e-9)
        sums[:, ring] += (f[at] * g[at].conjugate()).real, abs(f[at]) ** 2, abs(g[at]) ** 2
    sums = sums[:, 1 : len(frequencies) + 1]
    assert np.allclose(correlation, sums[0] / np.sqrt(sums[1] * sums[2]))


def test_frc_frequencies_and_spacing():
    a, b = pair((64, 48))
    pixels, c = fourier_ring_correlation(a, b)
    assert len(pixels) == 24
    assert pixels[-1] == pytest.approx(0.5)
    assert np.allclose(np.diff(pixels), pixels[0])
    lengths, same = fourier_ring_correlation(a, b, spacing=0.1)
    assert np.allclose(lengths, pixels / 0.1)
    assert np.allclose(c, same)
    # Coarse planes: up to the planes' Nyquist; the fine axes still resolve every shell.
    a, b = pair((8, 40, 40))
    f, _ = fourier_ring_correlation(a, b, spacing=(0.5, 0.1, 0.1))
    assert f[-1] == pytest.approx(1.0)
    f, c = fourier_ring_correlation(a[:1], b[:1], spacing=(0.5, 0.1, 0.1))
    assert f[-1] == pytest.approx(5.0)
    assert np.allclose(c, fourier_ring_correlation(a[0], b[0])[1])
    assert len(fourier_ring_correlation(a, b)[0]) == 16
    assert len(fourier_ring_correlation(a, b, bins=5)[0]) == 5


def test_frc_of_a_wave_sits_in_its_ring_of_physical_frequency():
    x = np.mgrid[:16, :64][1]
    wave = np.cos(2 * np.pi * 4 * x / 64)  # period 16 pixels of 0.1 µm
    noise = 1e-3 * np.random.default_rng(0).standard_normal((2, 16, 64))
    f, c = fourier_ring_correlation(wave + noise[0], wave + noise[1], spacing=(0.3, 0.1), taper=0, bins=8)
    assert np.argmax(c) == np.argmin(abs(f - 1 / 1.6))
    assert np.sort(c)[-2] < 0.6 < 0.99 < c.max()


def test_the_window_removes_correlation_from_the_edges():
    rng = np.random.default_rng(0)
    ramp = 5 * np.mgrid[:128, :128].sum(0) / 128
    a, b = (ramp + rng.standard_normal(ramp.shape) for _ in range(2))
    high = slice(16, None)
    assert fourier_ring_correlation(a, b, taper=0)[1][high].mean() > 0.1
    assert abs(fourier_ring_correlation(a, b)[1][high].mean()) < 0.02


def test_resolution_interpolates_and_names_its_limits():
    f = [0.1, 0.2, 0.3, 0.4]
    assert resolution(f, [1, 0.8, 0.2, 0.9], 0.5) == pytest.approx(1 / 0.25)
    assert resolution(f, [1, 0.9, 0.8, 0.7]) == pytest.approx(1 / 0.4)
    assert resolution(f, [0.1, 1, 1, 1]) == np.inf


def test_scores_gathers_the_named_metrics(scene):
    image = scene + 0.3 * np.random.default_rng(0).standard_normal(scene.shape)
    found = scores(scene, image, clip=(0, 1))
    clipped = image.clip(0, 1)
    assert {name: found[name] for name in PAIRWISE} == {n: PAIRWISE[n](scene, clipped) for n in PAIRWISE}
    assert found["ssim_range2"] == ssim(scene, clipped, 2) != found["ssim"]
    assert scores(scene, image)["psnr"] == pytest.approx(psnr(scene, image))
    assert found["psnr"] > scores(scene, image)["psnr"]


@pytest.mark.parametrize("shape", [(64,), (20, 24), (8, 9, 10)])
def test_scores_do_not_depend_on_units(shape):
    a, b = pair(shape)
    a = (a - a.min()) / np.ptp(a)
    small, large = scores(a, b), scores(4095 * a, 4095 * b)
    assert small == pytest.approx(large)
    assert scores(4095 * a, 4095 * b, data_range=1)["psnr"] < 0
    assert large["ssim_range2"] == pytest.approx(ssim(a, b, 2))


def test_integers_do_not_wrap_around():
    a = np.array([[0, 200], [255, 3]], dtype=np.uint8).repeat(4, 0).repeat(4, 1)
    assert scores(a, a[::-1]) == pytest.approx(scores(a.astype(float), a[::-1].astype(float)))


GOOD = np.eye(8)


@pytest.mark.parametrize("metric", [*PAIRWISE.values(), scores])
@pytest.mark.parametrize(
    ("reference", "image", "message"),
    [
        (GOOD, np.eye(9), "shape"),
        (GOOD, np.full((8, 8), np.nan), "NaN|finite"),
        (np.where(GOOD == 1, np.inf, 0), GOOD, "infinite"),
        (GOOD * 1j, GOOD, "complex"),
        (np.full((8, 8), 3.0), GOOD, "constant"),
        (np.zeros((0, 3)), np.zeros((0, 3)), "empty"),
    ],
)
def test_unusable_images_are_said_in_one_line(metric, reference, image, message):
    with pytest.raises(InputError, match=message) as caught:
        metric(reference, image)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: psnr(GOOD, GOOD, 0), "data_range"),
        (lambda: ssim(GOOD, GOOD, -1), "data_range"),
        (lambda: ssim(GOOD[:2], GOOD[:2], 1), r"\(2, 8\)"),
        (lambda: mutual_information(GOOD, GOOD, 1), "bins"),
        (lambda: spectral_concordance(GOOD, GOOD, floor=0), "floor"),
        (lambda: spectral_concordance(GOOD, GOOD, data_range=np.nan), "data_range"),
        (lambda: fourier_ring_correlation(GOOD, GOOD, bins=0), "bins"),
        (lambda: fourier_ring_correlation(GOOD, GOOD, bins=5), "1 to 4"),
        (lambda: fourier_ring_correlation(GOOD, GOOD, bins=2.0), "bins must be an integer, got 2.0"),
        (lambda: mutual_information(GOOD, GOOD, bins=2.5), "bins must be an integer, got 2.5"),
        (lambda: scores(GOOD, GOOD, clip=(0,)), "clip"),
        (lambda: scores(GOOD, GOOD, data_range="1"), "data_range must be a positive number, got '1'"),
        (lambda: fourier_ring_correlation(GOOD, GOOD, taper=2), "taper"),
        (lambda: fourier_ring_correlation(GOOD, GOOD, spacing=(1, 2, 3)), "spacing"),
        (lambda: fourier_ring_correlation(GOOD, GOOD, spacing=-1), "spacing"),
        (lambda: fourier_ring_correlation(GOOD[:3], GOOD[:3]), "4 values"),
        (lambda: resolution([0.2, 0.1], [1, 1]), "increasing"),
        (lambda: resolution([0.1], [1, 1]), "as many"),
        (lambda: frc_area([]), "empty"),
        (lambda: scores(GOOD, GOOD, clip=(1, 0)), "clip"),
        (lambda: scores(GOOD, GOOD, data_range=0), "data_range"),
    ],
)
def test_mistaken_options_are_said_in_one_line(call, message):
    with pytest.raises(InputError, match=message) as caught:
        call()
    assert "\n" not in str(caught.value)
