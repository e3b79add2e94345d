"""The methods by name: each restores, each takes what it can and refuses what it cannot."""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
import pytest
import torch
from scipy.ndimage import gaussian_filter
from skimage import data

import selfinv
from selfinv import Status, psf
from selfinv.functionals import Box
from selfinv.learning.presets import ssi
from selfinv.methods import METHODS, WEIGHTED, Request, meant, solver_for
from selfinv.operators import ChannelMixing, Convolution, Identity, MaskedFourier
from selfinv.selection import Candidate, SelfTuned
from selfinv.solvers import run
from selfinv.solvers.chambolle_pock import ChambollePock
from selfinv.solvers.conjugate_gradient import ConjugateGradient
from selfinv.solvers.richardson_lucy import RichardsonLucy
from selfinv.solvers.wiener import Wiener
from selfinv.types import InputError, SelfinvWarning

# Most runs of networks here are too short to pass their own checks.
pytestmark = pytest.mark.filterwarnings("ignore:failed:selfinv.types.SelfinvWarning")

KERNEL = psf.gaussian(1.0, (7, 7))
CLASSICAL = [name for name in METHODS if not name.startswith("ssi") and name != "auto"]
TUNED = [name for name in CLASSICAL if not name.endswith("-paper")]


def blocks(shape=(32, 32)):
    x = np.full(shape, 30.0)
    h, w = shape
    x[h // 4 : h // 2, w // 4 : 3 * w // 4] = 100.0
    x[5 * h // 8 : 7 * h // 8, w // 8 : w // 2] = 70.0
    return x


def blurred(x):
    from scipy.ndimage import convolve

    return convolve(x, KERNEL / KERNEL.sum(), mode="nearest")


def measured(shape=(32, 32), seed=0, deviation=8.0):
    noisy = blurred(blocks(shape)) + np.random.default_rng(seed).normal(0, deviation, shape)
    return np.abs(noisy)


def psnr(x, truth):
    return 10 * math.log10(float(np.max(truth)) ** 2 / float(np.mean((x - truth) ** 2)))


IMAGE = measured()
SPAN = float(np.ptp(IMAGE))


def restore(image=IMAGE, kernel=KERNEL, **options):
    return selfinv.restore(image, kernel, **options)


# ---- every method ----


@pytest.mark.parametrize("method", [name for name in METHODS if name != "ssi"])  # of that below
def test_every_method_restores_an_image(method):
    image = measured((20, 16))
    result = restore(image, method=method, max_steps=2)
    assert (result.image.shape, result.image.dtype) == ((20, 16), np.float32)
    assert np.isfinite(result.image).all()
    assert result.stats["method"] == method
    assert result.stats["steps"] >= 1
    if method in CLASSICAL:
        assert not result.status.failed
        assert result.model is None


@pytest.mark.filterwarnings("ignore:without a PSF richardson-lucy changes nothing")
@pytest.mark.filterwarnings("ignore:no measured value depends")
@pytest.mark.parametrize("method", METHODS)
def test_every_method_takes_channels_and_missing_values(method):
    image = np.stack([measured((20, 16)), 4 * measured((20, 16), seed=1)])
    image[0, 5, 5] = image[1, 9:11, 9] = np.nan
    result = restore(image, None, method=method, axes="cyx", mask_nan=True, max_steps=2)
    assert result.image.shape == image.shape
    assert np.isfinite(result.image).all()
    if method in CLASSICAL:
        assert np.nanmean(result.image[1]) > 2 * np.nanmean(result.image[0])  # each channel its own


@pytest.mark.parametrize("method", CLASSICAL)
@pytest.mark.parametrize("missing", [np.nan, np.inf])
def test_missing_values_are_refused_unless_asked_for(method, missing):
    image = IMAGE.copy()
    image[3, 3] = missing
    with pytest.raises(InputError, match=r"mask_nan=True"):
        restore(image, method=method, max_steps=1)


@pytest.mark.parametrize("method", ["tv-chambolle-pock", "richardson-lucy"])
def test_a_volume_and_a_psf_for_each_channel(method):
    volume = np.stack([measured((16, 16), seed=i) for i in range(5)])
    flat = restore(volume, psf.gaussian((0.7, 1.0, 1.0), (5, 7, 7)), method=method, max_steps=3)
    assert flat.image.shape == volume.shape
    image = np.stack([measured(seed=i) for i in range(2)])
    kernels = np.stack([KERNEL, psf.gaussian(0.5, (7, 7))])
    both = restore(image, kernels, axes="cyx", method=method, max_steps=3)
    swapped = restore(image, kernels[::-1], axes="cyx", method=method, max_steps=3)
    assert not np.allclose(both.image, swapped.image, rtol=1e-3)


@pytest.mark.parametrize("method", TUNED)
def test_tuned_methods_are_better_than_what_was_measured(method):
    truth = blocks((48, 48))
    image = measured((48, 48), seed=3)
    result = restore(image, method=method)
    assert result.status == Status.CONVERGED
    assert psnr(result.image, truth) > psnr(image, truth) + 1.5
    assert result.stats["held_out_score"] < result.stats["held_out_score_of_a_constant"]
    assert result.stats["chosen"].startswith(method)
    assert f"| {result.stats['chosen']} |" in result.stats["table"]


@pytest.mark.parametrize("method", ["tv-chambolle-pock", "richardson-lucy"])
def test_the_same_seed_gives_the_same_image(method):
    first, again = (restore(IMAGE[:20, :20], method=method, seed=5, max_steps=5).image for _ in range(2))
    np.testing.assert_array_equal(first, again)


@pytest.mark.parametrize(
    ("method", "scale"),
    [
        ("tv-chambolle-pock", 1000.0),
        ("tv-chambolle-pock", 1e-3),
        ("richardson-lucy", 1000.0),
    ],
)
def test_another_unit_gives_the_same_image_in_that_unit(method, scale):
    image = IMAGE[:20, :20]
    steps = None if method == "richardson-lucy" else 6
    one, other = (restore(factor * image, method=method, max_steps=steps) for factor in (1.0, scale))
    assert other.stats["chosen"] == one.stats["chosen"]
    if "weight" in one.stats:
        assert other.stats["weight"] == pytest.approx(scale * one.stats["weight"], rel=1e-3)
    np.testing.assert_allclose(other.image, scale * one.image, rtol=0.01, atol=0.1 * scale)


@pytest.mark.parametrize("kernel", [KERNEL, None], ids=["blur", "noise alone"])
def test_tuned_total_variation_is_nearly_as_good_as_with_the_best_weight(kernel):
    truth = blocks((96, 96))
    clean = truth if kernel is None else blurred(truth)
    lost = []
    for seed in range(3):
        image = np.abs(clean + np.random.default_rng(seed).normal(0, 8, clean.shape))
        tuned = restore(image, kernel, method="tv-chambolle-pock").image
        weights = (1.5, 2.5, 4.0, 6.0, 9.0)
        best = max(
            psnr(restore(image, kernel, method="tv-chambolle-pock", weight=w, max_steps=25).image, truth)
            for w in weights
        )
        lost.append(best - psnr(tuned, truth))
    assert np.mean(lost) < (0.4 if kernel is not None else 1.5)  # some 900 hidden values tell no better


@pytest.mark.parametrize("method", TUNED)
def test_the_solver_that_was_tuned_makes_the_image_again(method):
    """Richardson-Lucy took 200 steps where few were right."""
    tuned = restore(method=method, boundary="unknown")
    again = restore(method=tuned.solver, boundary="unknown")
    assert np.sqrt(np.mean((again.image - tuned.image) ** 2)) < 0.01 * SPAN
    if method == "richardson-lucy":
        assert again.stats["steps"] == tuned.stats["steps"]


def test_the_solver_that_was_tuned_is_the_one_that_its_weight_asks_for():
    """It took the 20 steps of a search, which start where others ended, where it starts from nothing."""
    tuned = restore(method="tv-chambolle-pock").solver
    assert tuned == restore(method="tv-chambolle-pock", weight=tuned.weight).solver


@pytest.mark.parametrize("unit", [1e-16, 1e3, 1e12])
def test_a_weight_is_told_in_the_units_that_it_is_given_in(unit):
    """Of images in very large or small units it was told in others: given back, it smoothed all away."""
    tuned = restore(IMAGE * unit, method="auto", max_steps=2, boundary="unknown")
    assert tuned.stats["chosen"].startswith("tv-chambolle-pock")
    weight = tuned.stats["weight"]
    assert f"weight {weight:.3g} " in tuned.stats["table"]
    assert weight in [setting for _, name, setting, *_ in tuned.stats["trials"] if name == "weight"]
    again = restore(IMAGE * unit, method="tv-chambolle-pock", weight=weight, boundary="unknown")
    assert np.sqrt(np.mean((again.image / unit - tuned.image / unit) ** 2)) < 0.02 * SPAN


def test_where_channels_have_several_units_no_weight_is_told_for_all():
    image = np.stack([measured((64, 64)), 1000.0 * measured((64, 64), seed=1)])
    tuned = restore(image, method="auto", axes="cyx", max_steps=2)
    assert tuned.stats["chosen"].startswith("tv-chambolle-pock")
    assert "weight" not in tuned.stats
    assert len(tuned.stats["channel_units"]) == 2


def apart_in_noise():
    """Two channels, the second ten times as bright and as noisy."""
    return np.stack([measured((48, 48)), 10.0 * measured((48, 48), seed=1)])


@pytest.mark.parametrize("method", ["tv-chambolle-pock", "tv-conjugate-gradient"])
def test_total_variation_restores_a_dim_channel_as_well_as_alone(method):
    """One weight for both was that of the bright one: the dim one came back hardly denoised."""
    image, truth = apart_in_noise(), blocks((48, 48))
    both = restore(image, axes="cyx", method=method)
    for channel, restored, unit in zip(image, both.image, (1.0, 10.0), strict=True):
        alone = restore(channel, method=method).image
        error = [np.sqrt(np.mean((x / unit - truth) ** 2)) for x in (restored, alone)]
        assert error[0] < 1.1 * error[1]


def test_the_weight_of_unlike_channels_is_given_back_as_it_is_told():
    image = apart_in_noise()
    tuned = restore(image, axes="cyx", method="tv-conjugate-gradient")
    again = restore(image, axes="cyx", method="tv-conjugate-gradient", weight=tuned.stats["weight"])
    np.testing.assert_allclose(again.image, tuned.image, rtol=1e-5)
    bright = restore(image[1], method="tv-conjugate-gradient", weight=tuned.stats["weight"])
    np.testing.assert_allclose(bright.image, tuned.image[1], rtol=1e-3)


# ---- what a name stands for ----


def direct(solver, image=IMAGE, boundary="unknown"):
    """The same by hand, from the solver and the operator."""
    operator = Convolution(torch.from_numpy(KERNEL / KERNEL.sum()).float(), image.shape, boundary, margin=8)
    state, _ = run(solver, torch.from_numpy(image)[None, None].float(), operator)
    return solver.estimate(state)[(0, 0, *operator.field_of_view)].numpy()


@pytest.mark.parametrize(
    ("options", "solver"),
    [
        ({"method": "tv-chambolle-pock", "weight": 2.0}, ChambollePock(2.0, box=Box(0.0))),
        (
            {"method": "tv-chambolle-pock", "weight": 2.0, "max_steps": 7},
            ChambollePock(2.0, box=Box(0.0), max_steps=7),
        ),
        (
            {"method": "tv-chambolle-pock", "weight": 2.0, "spacing": (3.0, 1.0)},
            ChambollePock(2.0, box=Box(0.0), spacing=(3.0, 1.0)),
        ),
        ({"method": "tv-conjugate-gradient", "weight": 2.0}, ConjugateGradient(2.0, max_steps=60)),
        ({"method": "wiener", "weight": 3.0}, Wiener(balance=3.0)),
        ({"method": "richardson-lucy", "max_steps": 6}, RichardsonLucy(max_steps=6)),
        (
            {"method": "tv-chambolle-pock-paper"},
            ChambollePock(2.5e-3 * SPAN, steps="fixed", max_steps=200, rtol=0.0),
        ),
        (
            {"method": "tv-conjugate-gradient-paper"},
            ConjugateGradient(4.5e-3 * SPAN, smoothing=1e-10 * SPAN**2, max_steps=100, rtol=0.0),
        ),
    ],
    ids=str,
)
def test_with_everything_given_nothing_is_tuned(options, solver):
    result = restore(boundary="unknown", **options)
    np.testing.assert_allclose(result.image, direct(solver), rtol=1e-4, atol=1e-2)
    assert "chosen" not in result.stats
    assert "table" not in result.stats


@pytest.mark.parametrize("method", ["tv-chambolle-pock-paper", "tv-conjugate-gradient-paper"])
def test_the_papers_settings_mean_the_same_in_any_unit(method):
    one = restore(IMAGE / 255.0, method=method, max_steps=20)
    other = restore(IMAGE, method=method, max_steps=20)
    np.testing.assert_allclose(other.image, 255.0 * one.image, rtol=0, atol=1.0)


def test_richardson_lucy_without_a_psf_says_that_it_does_nothing():
    with pytest.warns(SelfinvWarning, match="without a PSF richardson-lucy changes nothing.*use ssi"):
        result = restore(IMAGE, None, method="richardson-lucy", max_steps=3)
    np.testing.assert_allclose(result.image, IMAGE, rtol=1e-4)


def test_noise_shared_by_neighbours_cannot_be_removed_without_a_psf_and_that_is_said():
    noise = gaussian_filter(np.random.default_rng(0).normal(size=(64, 64)), 1.0)
    scene = gaussian_filter(np.random.default_rng(1).normal(size=(64, 64)), 6.0)
    with pytest.warns(SelfinvWarning, match="comes back nearly as it was.*share theirs"):
        restore(10.0 + scene / scene.std() + noise / noise.std(), None, method="tv-chambolle-pock")


def test_negative_intensities_are_kept_where_there_were_some():
    """Total variation forbids them only if the image has none."""
    image = IMAGE - 40.0
    result = restore(image, method="tv-chambolle-pock", weight=1.0)
    assert result.image.min() < -5.0
    dark = np.abs(np.random.default_rng(0).normal(0, 1, (32, 32)))
    dark[16, 16] = 500.0
    assert restore(dark, method="tv-chambolle-pock", weight=0.01).image.min() >= 0.0


def test_outliers_are_met_with_a_robust_fidelity():
    rng = np.random.default_rng(1)
    truth = blocks((48, 48))
    clean = truth + rng.normal(0, 4, truth.shape)
    spoilt = np.where(rng.random(truth.shape) < 0.05, rng.choice([0.0, 255.0], truth.shape), clean)
    assert restore(clean, None, method="tv-chambolle-pock").stats["chosen"] == "tv-chambolle-pock, L2"
    result = restore(spoilt, None, method="tv-chambolle-pock")
    assert result.stats["chosen"] == "tv-chambolle-pock, Huber"
    assert result.stats["loss"] == "l1"
    assert psnr(result.image, truth) > psnr(spoilt, truth) + 8.0


def test_spacing_smooths_long_voxels_less():
    image = np.abs(np.random.default_rng(0).normal(100, 10, (24, 24)))
    options = {"method": "tv-chambolle-pock", "weight": 5.0}
    even, stretched = (restore(image, None, spacing=s, **options).image for s in ((1, 1), (5, 1)))
    along = [np.abs(np.diff(x, axis=0)).mean() / np.abs(np.diff(x, axis=1)).mean() for x in (even, stretched)]
    assert along[1] > 1.5 * along[0]


# ---- the network and what stands in for it ----


def test_a_simple_method_is_mixed_in_where_that_is_better_than_either():
    truth = data.camera()[100:228, 150:278] / 255.0
    noisy = gaussian_filter(truth, 1.2) + np.random.default_rng(0).normal(0, 0.03, truth.shape)
    kernel = psf.gaussian(1.2, (11, 11))
    result = selfinv.restore(noisy, kernel)  # a shorter training leaves less of a margin
    weights = result.stats["weights"]
    assert result.stats["mixture"].startswith("0.")
    assert sum(weights.values()) == pytest.approx(1.0)
    assert weights["ssi-network"] > 0.2
    assert result.stats["held_out_score"] < next(
        t[3] for t in result.stats["trials"] if t[0] == "ssi-network"
    )
    alone = [
        result.model.apply(noisy),
        selfinv.restore(noisy, kernel, method="tv-chambolle-pock").image,
    ]
    assert psnr(result.image, truth) > max(psnr(image, truth) for image in alone) + 0.1


def test_a_hopeless_network_is_replaced_and_that_is_told():
    result = restore(max_steps=2)
    assert result.stats["method"] == "ssi"
    assert result.stats["chosen"] in ("tv-chambolle-pock, L2", "tv-chambolle-pock, Huber", "wiener")
    assert result.model is None
    assert not result.status.failed
    rows = result.stats["table"].splitlines()
    assert any(row.startswith("| ssi-network |") for row in rows)
    assert sum("| chosen |" in row for row in rows) == 1
    assert {name for name, *_ in result.stats["trials"]} >= {"ssi-network", result.stats["chosen"]}
    assert psnr(result.image, blocks()) > psnr(IMAGE, blocks())


def test_the_network_is_kept_where_it_is_asked_for():
    result = restore(method="ssi-network", max_steps=2)
    assert result.model is not None
    assert "chosen" not in result.stats
    assert "table" not in result.stats


@pytest.mark.parametrize("ended", ["in full", "early"])
def test_a_network_that_was_chosen_comes_back_as_a_model_that_gives_the_same_image(ended):
    plain = Candidate("rl", lambda _: RichardsonLucy(max_steps=40), "steps", reference=Wiener(max_steps=2))
    network = replace(ssi((32, 32), 1, steps=40), adapt=False)  # steps for its full width
    waves = np.add.outer(np.sin(np.arange(32) / 4), np.cos(np.arange(32) / 5))
    image = np.random.default_rng(0).poisson(200 + 60 * waves).astype(float)
    result = restore(
        image,
        None,
        method=SelfTuned((Candidate("ssi", lambda _: network), plain)),
        callback=lambda progress: ended == "in full" or progress.phase != "rl",
    )
    assert result.stats["method"] == "custom"
    assert result.stats["chosen"] == "ssi", result.stats["table"]
    assert (result.status == Status.CANCELLED) == (ended == "early")
    assert result.model is not None
    # Ended early, the image is of the values that were shown; the model is for all.
    rtol = 1e-5 if ended == "in full" else 0.1
    np.testing.assert_allclose(result.model.apply(image), result.image, rtol=rtol)
    assert result.stats["parameters"] > 1000


# ---- functions as operators ----


def sideways(x):
    return 0.5 * x + 0.5 * torch.roll(x, 1, -1)


@pytest.mark.parametrize("method", CLASSICAL)
def test_a_function_is_refused_in_one_line_by_what_needs_an_adjoint(method):
    with pytest.raises(InputError, match="needs the operator's adjoint, and sideways has none") as caught:
        restore(kernel=None, operator=sideways, method=method)
    assert "\n" not in str(caught.value)
    assert "method='ssi'" in str(caught.value)


def test_a_function_leaves_the_network_alone_or_the_others_skipped():
    result = restore(kernel=None, operator=sideways, method="ssi", max_steps=2)
    assert result.model is not None
    assert result.stats["chosen"] == "ssi-network"
    result = restore(kernel=None, operator=sideways, method="auto", max_steps=2)
    assert result.stats["chosen"] == "ssi-network"
    assert set(result.stats["skipped"]) >= {"tv-chambolle-pock, L2", "richardson-lucy", "wiener"}
    assert all("adjoint" in why for why in result.stats["skipped"].values())


# ---- mistakes ----


@pytest.mark.parametrize(
    ("word", "name"),
    [
        ("tv", "tv-chambolle-pock"),
        ("TV", "tv-chambolle-pock"),
        ("rl", "richardson-lucy"),
        ("lucy", "richardson-lucy"),
        ("wienr", "wiener"),
        ("network", "ssi-network"),
    ],
)
def test_what_a_method_is_called_for_short_is_understood(word, name):
    assert meant(word).startswith(f"did you mean {name}? Known are ssi,")


def test_an_unknown_method_is_told_all_names():
    with pytest.raises(InputError, match="method='magic' is unknown") as caught:
        restore(method="magic")
    assert all(name in str(caught.value) for name in METHODS)


@pytest.mark.parametrize("method", [name for name in METHODS if name not in WEIGHTED])
def test_a_weight_is_refused_where_there_is_none(method):
    with pytest.raises(InputError, match=f"method='{method}' has no weight; leave it out") as caught:
        restore(method=method, weight=1.0)
    assert all(name in str(caught.value) for name in WEIGHTED)


@pytest.mark.parametrize("method", WEIGHTED)
@pytest.mark.parametrize("weight", [0.0, -1.0, math.nan, math.inf])
def test_a_weight_has_to_be_positive(method, weight):
    with pytest.raises(InputError, match="weight must be a positive number, got"):
        restore(method=method, weight=weight)


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("steps", [0, -3])
def test_there_has_to_be_a_step(method, steps):
    with pytest.raises(InputError, match="max_steps must be at least 1"):
        restore(method=method, max_steps=steps)


@pytest.mark.parametrize("spacing", [(1.0,), (1.0, 0.0), (1.0, -1.0), (1.0, math.nan), (1.0, 1.0, 1.0)])
def test_a_spacing_has_to_fit(spacing):
    with pytest.raises(
        InputError, match=r"spacing=.* does not fit the axes yx; give one positive voxel size"
    ):
        restore(method="tv-chambolle-pock", spacing=spacing)


@pytest.mark.parametrize("method", [*CLASSICAL, "ssi", "ssi-network"])
def test_values_too_large_for_single_precision_are_refused(method):
    with pytest.raises(InputError, match=r"largest value is 1\.\d+e\+40; use a unit in which"):
        restore(IMAGE * 1e38, method=method)


@pytest.mark.parametrize(
    "options",
    [
        {"method": "tv-chambolle-pock", "weight": 2.0, "max_steps": 20},
        {"method": "tv-conjugate-gradient", "weight": 2.0, "max_steps": 20},
        {"method": "richardson-lucy", "max_steps": 5},
        {"method": "wiener", "weight": 2.0},
    ],
    ids=lambda options: options["method"],
)
@pytest.mark.parametrize("scale", [1e-26, 1e-10, 1e10, 1e20])
def test_intensities_in_any_unit_are_computed_with_or_refused(options, scale):
    """Squares of very large or very small values leave single precision, and then nothing would be right."""
    weight = {"weight": options["weight"] * scale} if options["method"].startswith("tv") else {}
    if not 1e-15 < scale < 1e15:
        with pytest.raises(InputError, match="use a unit in which"):
            restore(scale * IMAGE, **(options | weight))
        return
    expected = scale * restore(**options).image.astype(float)
    result = restore(scale * IMAGE, **(options | weight))
    assert not result.status.failed
    np.testing.assert_allclose(result.image, expected, rtol=0.01, atol=0.1 * scale)


def test_an_object_of_any_sign_is_not_cut_off_at_0_where_the_operator_turns_its_sign():
    """As a difference of channels does: the measurement is positive all the same."""
    sums = 0.5 * np.array([[1.0, 1.0], [1.0, -1.0]])
    difference = np.where(np.arange(32) < 16, -15.0, 15.0) * np.ones((32, 32))
    truth = np.stack([blocks(), difference])
    noise = np.random.default_rng(0).normal(size=truth.shape)
    y = np.tensordot(sums, truth, 1) + noise
    assert y.min() > 0
    mixing = ChannelMixing(sums, (32, 32))
    result = restore(y, None, method="tv-chambolle-pock", operator=mixing, axes="cyx")
    assert np.abs(result.image[1] - difference).mean() < 1.0

    blur = Convolution(torch.from_numpy(KERNEL), (32, 32), "reflect")
    usual, turned = (
        restore(IMAGE, None, method="tv-chambolle-pock", operator=operator)
        for operator in (blur, -1.0 * blur)
    )
    np.testing.assert_allclose(turned.image, -usual.image, atol=0.05)


@pytest.mark.filterwarnings("ignore:hidden values are predicted hardly better:selfinv.types.SelfinvWarning")
@pytest.mark.parametrize("sampled", [1.0, 0.6])
def test_noise_is_removed_of_the_spectrum_of_a_noisy_real_image(sampled):
    """Its opposite frequencies hold the same noise: a hidden one is known from the other, noise and all."""
    truth, noise = blocks(), np.random.default_rng(0).normal(size=(3, 32, 32))
    mask = np.random.default_rng(1).random((32, 32)) < sampled
    mask[12:21, 12:21] = True
    mask |= np.roll(mask[::-1, ::-1], 1, (0, 1))
    operator = MaskedFourier((32, 32), mask)

    def spectrum(x):
        return np.where(mask, np.fft.fftshift(np.fft.fft2(np.fft.ifftshift(x), norm="ortho")), 0)

    def error(y, operator):
        x = restore(y, None, operator=operator, method="tv-chambolle-pock").image
        return float(np.sqrt(np.mean((x - truth) ** 2)))

    half = np.arange(1024).reshape(32, 32)
    half = mask & np.fft.fftshift(half <= np.roll(half[::-1, ::-1], 1, (0, 1)))
    independent = np.where(half, spectrum(truth) + 10 * (noise[0] + 1j * noise[1]) / np.sqrt(2), 0)
    same = error(spectrum(truth + 10 * noise[2]), operator)
    assert same < 1.2 * error(independent, MaskedFourier((32, 32), half))


@pytest.mark.filterwarnings("ignore:hidden values are predicted hardly better:selfinv.types.SelfinvWarning")
def test_where_hidden_values_tell_nothing_wieners_filter_is_the_one_that_the_data_suggest():
    """Of half of all frequencies none tells of another but by edges that do not fit: of noise, nothing."""
    operator = MaskedFourier((64, 64), np.ones((64, 64), bool), centred=False)
    noise = 6 * np.random.default_rng(0).normal(size=(64, 64))

    def filtered(image, **options):
        y = np.fft.fft2(image, norm="ortho")
        return restore(y, None, operator=operator, method="wiener", **options)

    assert filtered(100 + noise).stats["balance"] == 1.0
    x = data.moon()[200:264, 200:264].astype(float)
    tuned, suggested = (
        np.sqrt(np.mean((filtered(x + noise, **options).image - x) ** 2)) for options in ({}, {"weight": 1.0})
    )
    assert tuned < 4
    assert tuned < 1.05 * suggested


def test_solvers_can_be_had_without_an_image_file_or_the_front_door():
    y = torch.from_numpy(IMAGE)[None, None].float()
    solver = solver_for("tv-chambolle-pock", Request(y, Identity((32, 32)), (32, 32), weight=3.0))
    assert solver == ChambollePock(3.0, box=Box(0.0))


def test_a_first_look_is_on_a_coarser_grid_only_where_detail_is_blurred():
    y = torch.rand(1, 1, 64, 64)
    blur = Convolution(torch.from_numpy(psf.gaussian(1.5, (9, 9))).float(), (64, 64), "reflect")
    folds = {}
    for operator in (Identity((64, 64)), blur):
        for method in ("ssi-fast", "ssi"):
            solver = solver_for(method, Request(y, operator, operator.in_shape)).candidates[0].solver(0.0)
            folds[type(operator).__name__, method] = solver.network.fold, solver.training.max_steps
    assert (
        folds["Identity", "ssi-fast"][0] == folds["Identity", "ssi"][0] < folds["Convolution", "ssi-fast"][0]
    )
    for operator in ("Identity", "Convolution"):
        assert folds[operator, "ssi-fast"][1] < 0.6 * folds[operator, "ssi"][1]
