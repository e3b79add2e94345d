"""Noise independence: rates of false alarms and detections, and scores of correlated noise."""

import numpy as np
import pytest
import torch
from scipy.ndimage import convolve, gaussian_filter
from skimage import data

from selfinv import noise
from selfinv.blind_spot import widen
from selfinv.independence import noise_correlation
from selfinv.types import InputError

SEEDS = 20
WHITE = {
    "gaussian": lambda z, rng: noise.gaussian(z, 0.1, rng),
    "weak": lambda z, rng: noise.gaussian(z, 0.02, rng),
    "5 photons": lambda z, rng: noise.poisson(z, 5, rng),
    "100 photons": lambda z, rng: noise.poisson(z, 100, rng),
    "salt and pepper": lambda z, rng: noise.salt_and_pepper(noise.gaussian(z, 0.05, rng), 0.01, rng),
    "clipped": lambda z, rng: noise.gaussian(z, 0.2, rng).clip(0, 1),
    "quantised": lambda z, rng: noise.quantise(noise.gaussian(z, 0.05, rng), 5),
    "benchmark": lambda z, rng: noise.NoiseModel().apply(z, rng),
}


def box(n):
    n = n + np.roll(n, 1, 0)
    return n + np.roll(n, 1, 1)


def demosaiced(n):
    """Half the values measured, as a colour camera's green ones, the others means of their neighbours."""
    measured = np.indices(n.shape).sum(0) % 2 == 0
    cross = np.array([[0, 1, 0], [1, 0, 1], [0, 1, 0]]) / 4
    return np.where(measured, n, convolve(np.where(measured, n, 0.0), cross, mode="wrap"))


def upsampled(n):
    half = n[::2, ::2]
    for axis in (0, 1):
        between = (half + np.roll(half, -1, axis)) / 2
        half = np.stack([half, between], axis + 1).reshape(n.shape if axis else (n.shape[0], n.shape[1] // 2))
    return half


CORRELATED = {
    "box": (box, 1, 1),
    "blurred 0.5": (lambda n: gaussian_filter(n, 0.5, mode="wrap"), 1, 1),
    "blurred 0.8": (lambda n: gaussian_filter(n, 0.8, mode="wrap"), 1, 1),
    "rows": (lambda n: n + 0.5 * n[:, :1], 0, None),
    "columns": (lambda n: n + 0.5 * n[:1], None, 0),
    "upsampled": (upsampled, 1, 1),
    "demosaiced": (demosaiced, 1, 1),
}


@pytest.fixture(scope="module")
def scene():
    """A photograph, blurred: edges, flat and dark regions."""
    return gaussian_filter(data.camera() / 255, 1.5)


def crop(scene, seed, size=128):
    y, x = np.random.default_rng(seed).integers(0, 512 - size, 2)
    return scene[y : y + size, x : x + size]


def colour(z, correlate, rng, sigma=0.1):
    n = correlate(rng.standard_normal(z.shape))
    return z + sigma * n / n.std()


def smoothed_from(y, visible, sigma, truncate=4.0):
    """A prediction that sees what is visible only."""
    total, weight = (
        gaussian_filter(v, sigma, truncate=truncate) for v in (np.where(visible, y, 0), visible * 1.0)
    )
    return total / weight


def held_out(y, fraction, sigma, rng):
    hidden = rng.random(y.shape) < fraction
    return np.where(hidden, y - smoothed_from(y, ~hidden, sigma), np.nan)[None, None]


RESIDUALS = {"oversmoothed": lambda y: y - gaussian_filter(y, 2), "measurement": lambda y: y}


@pytest.mark.parametrize("kind", WHITE)
def test_white_noise_is_called_independent(scene, kind):
    for residual in RESIDUALS.values():
        found = []
        for seed in range(SEEDS):
            z = crop(scene, seed)
            y = WHITE[kind](z, np.random.default_rng(seed))
            found.append(noise_correlation(residual(y)[None, None]))
        assert sum(any(f.blind_spot) for f in found) <= SEEDS // 20
        assert sum(f.independent for f in found) >= 0.95 * SEEDS


@pytest.mark.parametrize("kind", CORRELATED)
def test_correlated_noise_is_found(scene, kind):
    correlate, *expected = CORRELATED[kind]
    for residual in RESIDUALS.values():
        spots = []
        for seed in range(SEEDS):
            z = crop(scene, seed)
            y = colour(z, correlate, np.random.default_rng(seed))
            spots.append(noise_correlation(residual(y)[None, None]).blind_spot)
        for axis, least in enumerate(expected):
            wide_enough = [spot[axis] >= (127 if least is None else least) for spot in spots]
            assert np.mean(wide_enough) >= 0.95


@pytest.mark.parametrize("kind", ["5 photons", "benchmark"])
def test_few_held_out_values_of_white_noise_raise_no_alarm(scene, kind):
    found = []
    for seed in range(5):
        rng = np.random.default_rng(seed)
        found.append(noise_correlation(held_out(WHITE[kind](scene, rng), 0.05, 1.0 + seed % 2, rng)))
    assert all(f.independent for f in found)
    assert 0.1 < found[0].bound[0] < 0.3


@pytest.mark.parametrize("kind", ["box", "rows"])
def test_few_held_out_values_of_correlated_noise_are_enough(scene, kind):
    for seed in range(5):
        rng = np.random.default_rng(seed)
        result = noise_correlation(held_out(colour(scene, CORRELATED[kind][0], rng), 0.05, 1.5, rng))
        assert result.blind_spot == {"box": (1, 1), "rows": (0, 511)}[kind]


def test_folds_together_see_weaker_correlations_than_one(scene):
    rng = np.random.default_rng(0)
    y = colour(scene, CORRELATED["blurred 0.5"][0], rng)[:256, :256]
    parts = rng.integers(0, 20, y.shape)
    folds = [np.where(parts == k, y - smoothed_from(y, parts != k, 1.0), np.nan) for k in range(20)]
    one, all_of_them = noise_correlation(folds[0][None, None]), noise_correlation(np.stack(folds)[:, None])
    assert not any(one.blind_spot)
    assert all_of_them.blind_spot == (1, 1)
    assert all_of_them.bound[0] < one.bound[0] / 3


def test_correlations_have_the_right_size():
    n = np.random.default_rng(0).standard_normal((1, 1, 512, 512))
    result = noise_correlation(n + 0.5 * np.roll(n, (1, 2), (2, 3)))
    assert result.worst_lag == (1, 2)
    r = dict(zip(result.lags, result.correlation, strict=True))
    assert r[1, 2] == pytest.approx(0.4, abs=0.04)
    assert max(abs(r[lag]) for lag in r if lag != (1, 2)) < 0.04
    assert result.blind_spot == (1, 2)
    stripes = noise_correlation(n + 0.5 * np.random.default_rng(1).standard_normal((512, 1))).stripes
    assert stripes == pytest.approx((0.0, 0.2), abs=0.03)


def test_only_lines_that_share_much_are_told_of_and_those_of_one_axis():
    n = np.random.default_rng(0).standard_normal((1, 1, 256, 256))
    rows, columns = (np.random.default_rng(seed).standard_normal(256) for seed in (1, 2))
    assert noise_correlation(n).lines == ()
    assert noise_correlation(n + 0.5 * rows[:, None]).lines == ()  # a fifth of the variance
    assert noise_correlation(n + rows[:, None]).lines == (-1,)
    assert noise_correlation(n + columns).lines == (-2,)
    assert noise_correlation(n + rows[:, None] + 1.5 * columns).lines == (-2,)


def test_an_overfitted_residual_is_no_finding_unless_said_to_be_blind(scene):
    y = noise.gaussian(crop(scene, 0), 0.1, 0)
    residual = (y - gaussian_filter(y, 0.6))[None, None]
    result = noise_correlation(residual, blind=False)
    assert result.blind_spot == (0, 0)
    assert "negatively" in result.explain()
    assert any(noise_correlation(residual).blind_spot)
    found = colour(crop(scene, 0), CORRELATED["blurred 0.8"][0], np.random.default_rng(0))
    assert any(noise_correlation((found - gaussian_filter(found, 0.6))[None, None], blind=False).blind_spot)


def test_smooth_noise_is_found_where_the_instrument_is_known_to_transmit_nothing(scene):
    z, rng = gaussian_filter(crop(scene, 1), 2.6), np.random.default_rng(0)
    band = np.hypot(np.fft.fftfreq(128)[:, None], np.fft.rfftfreq(128)) > 0.12
    smooth = colour(z, lambda n: gaussian_filter(n, 1.5, mode="wrap"), rng)[None, None]
    assert "smooth" in noise_correlation(smooth).unknown
    assert min(noise_correlation(smooth, noise_band=band).blind_spot) >= 2
    assert noise_correlation(noise.gaussian(z, 0.1, 0)[None, None], noise_band=band).independent


def lattice(kind):
    """A crystal of 160², periods of 6 and more values, blurred by a Gaussian of 1.5."""
    y, x = np.indices((160, 160))
    atoms = {
        "square": np.where((x % 8 == 0) & (y % 8 == 0), 4000.0, 0.0),
        "hexagonal": 160
        * sum(np.cos(2 * np.pi * (x * np.cos(a) + y * np.sin(a)) / 6) for a in (0.1, 1.15, 2.2)),
        "stripes": np.where((x + y) // 4 % 2, 1000.0, 0.0),
    }[kind]
    return gaussian_filter(600.0 + atoms, 1.5, mode="wrap")


@pytest.mark.parametrize("kind", ["square", "hexagonal", "stripes"])
@pytest.mark.parametrize("deviation", [2.0, 20.0])
def test_a_lattice_is_no_correlated_noise(kind, deviation):
    rng = np.random.default_rng(0)
    white = rng.normal(0.0, deviation, (160, 160))
    clean = lattice(kind)
    assert not noise_correlation((clean + white)[None, None]).correlated
    shared = noise_correlation((clean + 10 * box(white))[None, None])
    assert shared.blind_spot >= (1, 1)


@pytest.mark.parametrize("shape", [(1, 1, 8192), (2, 3, 96, 64), (1, 1, 12, 64, 64), (1, 2, 2, 64, 64)])
def test_any_number_of_axes(shape):
    n = np.random.default_rng(0).standard_normal(shape)
    assert noise_correlation(n).independent
    result = noise_correlation(torch.from_numpy(n + np.roll(n, 1, -1)).float())
    assert result.blind_spot == (0,) * (n.ndim - 3) + (1,)
    assert "1 value along x" in result.explain()


def test_missing_values_units_and_arguments_are_left_alone(scene):
    rng = np.random.default_rng(0)
    y = colour(scene[:256, :256], box, rng)[None, None]
    y[..., 40:90, :] = np.nan
    y[rng.random(y.shape) < 0.2] = np.inf
    before = y.copy()
    result = noise_correlation(y)
    assert np.array_equal(y, before, equal_nan=True)
    assert result.values == np.isfinite(y).sum()
    assert result.blind_spot == (1, 1)
    assert noise_correlation(3e4 * y - 7).correlation == pytest.approx(result.correlation, abs=1e-6)


def test_images_are_not_compared_with_each_other():
    n = np.random.default_rng(0).standard_normal((1, 1, 128, 128))
    assert noise_correlation(np.concatenate([n, np.roll(n, 1, -1), n], 1)).independent


@pytest.mark.parametrize(
    ("residual", "word"),
    [
        (np.full((1, 1, 64, 64), 0.1, np.float32), "constant"),
        (np.random.default_rng(0).standard_normal((1, 1, 6, 6)), "36 values"),
        (np.ones((1, 1, 1, 1)), "neighbours"),
        (gaussian_filter(np.random.default_rng(0).standard_normal((128, 128)), 4)[None, None], "smooth"),
    ],
)
def test_what_cannot_be_judged_is_said_to_be_unknown(residual, word):
    result = noise_correlation(residual)
    assert word in result.unknown
    assert not result.independent
    assert not any(result.blind_spot)
    assert "not known" in result.explain()


def test_weak_correlation_is_not_taken_for_structure_because_half_of_the_values_is_too_few_to_see_it():
    found = 0
    for seed in range(12):
        noise = np.random.default_rng(seed).standard_normal((1, 1, 48, 48))
        found += any(noise_correlation(noise + 0.15 * np.roll(noise, 1, -1)).blind_spot)
    assert found >= 8


@pytest.mark.parametrize(
    ("dtype", "level", "deviation"),
    [(np.float32, 1e5, 0.5), (np.float16, 100.0, 1.0), (np.float64, 1e9, 1e-3)],
)
def test_noise_on_a_level_that_its_type_can_tell_is_no_rounding(dtype, level, deviation):
    noise = deviation * np.random.default_rng(0).standard_normal((1, 1, 64, 64))
    for shared, independent in ((noise, True), (noise + np.roll(noise, 1, -1), False)):
        found = noise_correlation((level + shared).astype(dtype))
        assert not found.unknown
        assert found.independent == independent


def test_bad_input_is_told():
    n = np.random.default_rng(0).standard_normal((1, 1, 32, 32))
    with pytest.raises(InputError, match="batch, channel"):
        noise_correlation(n[0, 0])
    with pytest.raises(InputError, match="no finite value"):
        noise_correlation(np.full_like(n, np.nan))
    with pytest.raises(InputError, match=r"reach must be an integer, got 2\.5"):
        noise_correlation(np.zeros((1, 1, 32, 32)), reach=2.5)
    with pytest.raises(InputError, match="reach must be at least 1, got 0"):
        noise_correlation(n, reach=0)
    with pytest.raises(InputError, match=r"\(32, 17\)"):
        noise_correlation(n, noise_band=np.ones((32, 32), bool))
    with pytest.raises(InputError, match="noise_band leaves"):
        noise_correlation(n, noise_band=np.zeros((32, 17), bool))


def test_the_finding_is_put_in_words():
    n = np.random.default_rng(0).standard_normal((1, 1, 128, 128))
    words = noise_correlation(n + np.roll(n, 1, -2)).explain()
    assert "correlated (r = 0." in words
    assert "1 value along y" in words
    assert "too optimistic" in words
    assert "no correlation" in noise_correlation(n).explain()
    lines = np.random.default_rng(1).standard_normal((128, 1))
    assert "whole lines along x share" in noise_correlation(n + lines).explain()


def test_correlated_noise_fools_a_held_out_score_unless_the_mask_is_widened():
    rng = np.random.default_rng(0)
    x = gaussian_filter(rng.standard_normal((512, 512)), 3, mode="wrap")
    x /= x.std()
    y = colour(x, box, rng, sigma=0.5)
    scored = rng.random(y.shape) < 0.05
    sigmas = [0.6, 0.8, 1.0, 1.4, 2.0, 2.8]

    def losses(spot):
        visible = ~widen(torch.from_numpy(scored)[None, None], spot)[0, 0].numpy()
        predictions = [smoothed_from(y, visible, sigma, truncate=9.0)[scored] for sigma in sigmas]
        score = [np.mean((p - y[scored]) ** 2) for p in predictions]
        return np.array(score), np.array([np.mean((p - x[scored]) ** 2) for p in predictions])

    score, truth = losses((0, 0))
    assert sigmas[score.argmin()] == 0.6  # nearly the identity
    assert sigmas[truth.argmin()] == 1.4
    assert truth[score.argmin()] > 1.4 * truth.min()
    assert (score - truth).max() < 0.25  # less than the noise itself: some of it was predicted

    spot = noise_correlation(
        np.where(scored, y - smoothed_from(y, ~scored, 1.4), np.nan)[None, None]
    ).blind_spot
    assert spot == (1, 1)
    score, truth = losses(spot)
    assert truth[score.argmin()] < 1.02 * truth.min()
    assert np.corrcoef(score, truth)[0, 1] > 0.99
    assert score - truth == pytest.approx(0.25, abs=0.03)  # Eq. 5: the truth plus the variance of the noise
