"""Scores with and without a truth."""

import numpy as np
import pytest
from scipy.ndimage import gaussian_filter

from selfinv.benchmark.scores import (
    METRICS,
    against_truth,
    blur_and_noise,
    half_maximum_widths,
    without_truth,
)

TRUTH = np.random.default_rng(0).random((48, 40))


def test_blur_and_noise_add_up_to_the_error():
    image = gaussian_filter(TRUTH, 1) + 0.1 * np.random.default_rng(1).normal(size=TRUTH.shape)
    blur, noise = blur_and_noise(TRUTH, image)
    assert blur**2 + noise**2 == pytest.approx(np.mean((image - TRUTH) ** 2))


def test_blur_is_missing_detail_and_noise_is_not():
    noisy = TRUTH + 0.1 * np.random.default_rng(1).normal(size=TRUTH.shape)
    blurred = gaussian_filter(TRUTH, 1.5, mode="wrap")
    assert blur_and_noise(TRUTH, noisy)[0] < 0.03 < 0.09 < blur_and_noise(TRUTH, noisy)[1]
    blur, noise = blur_and_noise(TRUTH, blurred)
    assert blur > 5 * noise


def test_images_are_cut_to_the_truths_range_before_they_are_scored():
    image = 3 * (TRUTH - 0.5) + 0.5
    assert against_truth(TRUTH, image) == against_truth(TRUTH, np.clip(image, 0, 1))
    assert set(METRICS) < set(against_truth(TRUTH, image))


def test_other_units_are_fitted_where_asked():
    assert against_truth(TRUTH, 500 + 70 * TRUTH, fit=True)["psnr"] > 100


def test_width_at_half_maximum():
    z, y, x = np.meshgrid(*(np.arange(n) - n // 2 for n in (21, 25, 31)), indexing="ij")
    bead = 100 + np.exp(-0.5 * ((z / 4) ** 2 + (y / 2) ** 2 + (x / 3) ** 2))
    assert half_maximum_widths(bead) == pytest.approx([4 * 2.355, 2 * 2.355, 3 * 2.355], rel=0.03)


def test_a_bead_at_the_border_ends_at_the_edge_of_its_last_pixel():
    # Half a pixel to the edge, and one to where the other side falls to a half.
    assert half_maximum_widths(np.array([2.0, 1, 0, 0, 0, 0, 0])) == [1.5]
    assert half_maximum_widths(np.array([0.0, 0, 0, 0, 0, 1, 2])) == [1.5]


def test_held_out_is_1_for_the_measured_values_themselves_and_0_for_a_constant():
    values = np.random.default_rng(0).random((8, 8, 8))
    hidden = np.arange(512).reshape(8, 8, 8) % 5 == 0
    measured = np.where(hidden, np.nan, values)
    assert without_truth(values, values, measured, hidden, values[hidden])["held_out"] == 1
    constant = np.full_like(values, values[hidden].mean())
    scores = without_truth(values, constant, measured, hidden, values[hidden])
    assert scores["held_out"] == pytest.approx(0)


def test_flux_is_what_the_restored_object_would_measure_above_the_dark():
    bead = np.zeros((9, 32, 32))
    bead[4, 16, 16] = 1e5
    measured = 100.0 + gaussian_filter(bead, 2.0)
    hidden = np.zeros(bead.shape, bool)
    hidden[::3, ::5, ::5] = True
    seen, values = np.where(hidden, np.nan, measured), measured[hidden]
    for lost in (0.0, 0.1):
        predicted = 100.0 + (1.0 - lost) * gaussian_filter(bead, 2.0)
        scores = without_truth(100.0 + bead, predicted, seen, hidden, values)
        assert scores["flux"] == pytest.approx(1.0 - lost, abs=1e-6)
