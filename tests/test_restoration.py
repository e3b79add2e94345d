"""The front door: an image in, an image out, in the same shape and units, and what happened said truly."""

import json
import re
import subprocess
import sys
import warnings
from dataclasses import replace
from functools import partial
from pathlib import Path

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from safetensors import safe_open
from safetensors.torch import save_file
from scipy import ndimage
from scipy.signal import fftconvolve
from skimage import data

import selfinv
from selfinv import noise, psf
from selfinv.learning import ssi
from selfinv.learning.solver import SSI
from selfinv.operators import Convolution, Downsample, Identity, LinearOperator, Mask, MaskedFourier, Radon
from selfinv.solvers.conjugate_gradient import ConjugateGradient
from selfinv.types import InputError, SelfinvWarning

# Most runs here are too short to pass their own checks with every recipe.
pytestmark = pytest.mark.filterwarnings("ignore:failed:selfinv.types.SelfinvWarning")

KERNEL = psf.gaussian(1.0, (7, 7))
RNG = np.random.default_rng
SSI_MODULE = sys.modules[SSI.__module__]  # the package has a function of the same name


def scene(*shape, seed=0):
    """Smooth waves with photon noise, about 100 to 300."""
    rng = RNG(seed)
    y, x = (np.sin(np.arange(n) / rng.uniform(3, 5) + rng.uniform(0, 6)) for n in shape[-2:])
    waves = np.outer(y, x)
    return rng.poisson(np.broadcast_to(200 + 90 * waves, shape)).astype(np.float64)


IMAGE = scene(40, 36)


def restore(image=IMAGE, kernel=KERNEL, **options):
    return selfinv.restore(image, kernel, **{"method": "ssi-network", "max_steps": 30, **options})


# ---- what comes back ----


def test_importing_the_package_does_not_wait_for_torch():
    code = (
        "import sys, selfinv; print('torch' in sys.modules, selfinv.restore.__name__, 'torch' in sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.split() == ["False", "restore", "True"]


@pytest.mark.parametrize("dtype", ["uint8", "uint16", ">i4", "float32", "float64"])
def test_every_type_comes_back_as_float32_of_the_same_shape(dtype):
    image = (IMAGE / 2).astype(dtype)
    before = image.copy()
    result = restore(image, max_steps=1)
    assert result.image.dtype == np.float32
    assert result.image.shape == image.shape
    np.testing.assert_array_equal(image, before)


def test_intensities_and_flux_come_back_in_the_callers_units():
    rng = RNG(1)
    waves = np.sin(np.arange(48) / 5)[:, None] * np.cos(np.arange(48) / 6)
    image = 1000 + 500 * (0.5 + 0.5 * waves) + rng.normal(0, 25, (48, 48))
    result = restore(image, max_steps=120)
    assert not result.status.failed
    signal, restored = image - 1000, result.image - 1000
    assert restored.mean() == pytest.approx(signal.mean(), rel=0.05)
    assert np.percentile(restored, [2, 98]) == pytest.approx([0, 500], abs=120)
    assert np.corrcoef(restored.ravel(), waves.ravel())[0, 1] > 0.97


def test_another_unit_gives_the_same_image_in_that_unit():
    np.testing.assert_array_equal(restore(IMAGE * 4).image, restore().image * 4)


def test_the_psf_is_divided_by_its_sum():
    np.testing.assert_array_equal(restore(kernel=KERNEL * 8).image, restore().image)


def test_the_same_seed_gives_the_same_image_and_another_another():
    first, again, other = (restore(seed=seed).image for seed in (5, 5, 6))
    np.testing.assert_array_equal(first, again)
    assert not np.array_equal(first, other)


def test_the_callers_random_numbers_are_left_alone():
    torch.manual_seed(0)
    expected = torch.rand(3)
    torch.manual_seed(0)
    restore(max_steps=1)
    assert torch.equal(torch.rand(3), expected)


@pytest.mark.parametrize("without_gradients", [torch.no_grad, torch.inference_mode])
@pytest.mark.parametrize("operator", [None, Convolution(KERNEL, (40, 36)), lambda x: x.sqrt()])
def test_networks_learn_where_the_caller_has_turned_gradients_off(without_gradients, operator):
    psf = KERNEL if operator is None else None
    with without_gradients():
        image = restore(IMAGE, psf, operator=operator, max_steps=3).image
    np.testing.assert_array_equal(image, restore(IMAGE, psf, operator=operator, max_steps=3).image)


def test_an_array_that_must_not_be_written_to_is_as_good(tmp_path):
    model = restore(max_steps=1).model
    np.save(tmp_path / "image.npy", IMAGE)
    mapped = np.load(tmp_path / "image.npy", mmap_mode="r")
    spectrum = np.fft.fftshift(np.fft.fft2(IMAGE, norm="ortho"))
    whole = MaskedFourier(IMAGE.shape, np.ones(IMAGE.shape, bool))

    def restored(image, spectrum):
        return (
            restore(image, method="wiener", max_steps=1).image,
            model.apply(image),
            selfinv.restore(spectrum, operator=whole, method="wiener", max_steps=1).image,
        )

    expected = restored(IMAGE, spectrum)
    spectrum.setflags(write=False)
    torch.set_warn_always(True)
    try:
        with warnings.catch_warnings():
            warnings.filterwarnings("error", "The given NumPy array is not writable")
            found = restored(mapped, spectrum)
    finally:
        torch.set_warn_always(False)
    for one, other in zip(found, expected, strict=True):
        np.testing.assert_array_equal(one, other)


def test_networks_are_in_single_precision_whatever_the_callers_default_is(tmp_path):
    image = np.where(RNG(1).random((3 * 40, 3 * 36)) < 0.05, 2000.0, np.tile(IMAGE, (3, 3)))  # with lessons
    result = restore(image)
    result.model.save(tmp_path / "m.safetensors")
    torch.set_default_dtype(torch.float64)
    try:
        again = selfinv.load_model(tmp_path / "m.safetensors").apply(image)
        other = restore(image)
        other.model.save(tmp_path / "other.safetensors")
    finally:
        torch.set_default_dtype(torch.float32)
    np.testing.assert_array_equal(again, result.image)
    np.testing.assert_array_equal(
        selfinv.load_model(tmp_path / "other.safetensors").apply(image), other.image
    )


def test_the_prediction_is_the_restored_object_measured_again():
    y = scene(2, 40, 36)
    result = restore(y, axes="tyx", method="wiener", boundary="periodic", max_steps=None)
    for image, predicted in zip(result.image, result.predicted, strict=True):
        kernel = KERNEL / KERNEL.sum()
        np.testing.assert_allclose(predicted, ndimage.convolve(image, kernel, mode="wrap"), rtol=1e-4)
    beyond = restore(y[0], method="wiener", boundary="unknown", max_steps=None)
    residual = np.abs(y[0] - beyond.predicted)
    assert residual[:, :2].mean() < 1.5 * residual.mean()  # what lies outside explains the edge


@pytest.mark.parametrize("axes", ["tyx", "ctyx"])
def test_the_prediction_has_the_shape_and_type_of_what_was_measured(axes):
    operator = MaskedFourier((32, 32), torch.rand(32, 32, generator=torch.Generator().manual_seed(0)) < 0.6)
    shape = (2, 3)[: len(axes) - 2]
    measured = torch.view_as_complex(operator(torch.from_numpy(scene(*shape, 32, 32))).contiguous()).numpy()
    result = selfinv.restore(measured, operator=operator, axes=axes, method="wiener")
    assert result.predicted.shape == measured.shape
    assert result.predicted.dtype == np.complex64
    # Within a tenth of what was measured it is not: more is noise, which opposite frequencies share.
    spectrum = np.fft.fft2(np.fft.ifftshift(result.image, axes=(-2, -1)), norm="ortho")
    expected = np.where(operator.mask, np.fft.fftshift(spectrum, axes=(-2, -1)), 0.0)
    assert np.abs(result.predicted - expected).max() < 1e-5 * np.abs(measured).max()


def test_the_statistics_tell_how_it_came_about():
    stats = restore(max_steps=20, seed=9).stats
    assert (stats["method"], stats["steps"], stats["seed"], stats["device"]) == ("ssi-network", 20, 9, "cpu")
    assert stats["versions"]["selfinv"] == selfinv.__version__
    assert stats["versions"]["torch"] == torch.__version__
    # In the caller's units: the constant image's L1 score is the waves' mean deviation.
    if stats["loss"] == "l1":
        deviation = np.abs(IMAGE - np.median(IMAGE)).mean()
        assert stats["held_out_score_of_a_constant"] == pytest.approx(deviation, rel=0.5)


@pytest.mark.parametrize("method", ["ssi-paper", "ssi-unmasked"])
def test_the_other_methods_run(method):
    result = restore(scene(32, 32), method=method, max_steps=2)
    assert result.stats["method"] == method
    assert np.isfinite(result.image).all()


# ---- models ----


@pytest.mark.parametrize("kernel", [KERNEL, None], ids=["psf", "denoising"])
def test_a_saved_model_gives_the_same_image_bit_for_bit(tmp_path, kernel):
    result = restore(kernel=kernel)
    np.testing.assert_array_equal(result.model.apply(IMAGE), result.image)
    result.model.save(tmp_path / "m.safetensors")
    loaded = selfinv.load_model(tmp_path / "m.safetensors")
    np.testing.assert_array_equal(loaded.apply(IMAGE), result.image)
    assert loaded.origin["seed"] == 0


def test_a_model_of_an_image_with_hot_pixels_is_kept_whole(tmp_path):
    image = np.clip(IMAGE, 150.0, None)
    image[RNG(1).random(image.shape) < 0.01] = 2000.0
    result = restore(image)
    assert result.model.filters is not None
    assert result.model.outliers is not None
    result.model.save(tmp_path / "m.safetensors")
    loaded = selfinv.load_model(tmp_path / "m.safetensors")
    assert loaded.outliers == result.model.outliers
    np.testing.assert_array_equal(loaded.apply(image), result.image)


@pytest.mark.parametrize("name", ["coarser", "frequencies"])
@pytest.mark.parametrize("counts", [True, False])
@pytest.mark.filterwarnings("ignore")
def test_where_values_are_no_pixels_a_model_restores_its_image_as_it_was(name, counts):
    truth = 20.0 + 100.0 * (ndimage.gaussian_filter(np.random.default_rng(3).random((48, 48)), 3) > 0.5)
    if name == "coarser":
        blur = Convolution(torch.from_numpy(psf.gaussian(1.2, (7, 7))), (48, 48), "reflect")
        operator = Downsample((48, 48), 2) @ blur
    else:
        kept = torch.rand(48, 48, generator=torch.Generator().manual_seed(1)) < 0.4
        operator = MaskedFourier((48, 48), kept)
    y = operator(torch.from_numpy(truth).float()).numpy()
    rng = np.random.default_rng(0)
    y = rng.poisson(y).astype(float) if counts and name == "coarser" else y + rng.normal(0, 5, y.shape)
    result = selfinv.restore(y, operator=operator, method="ssi-network", max_steps=60)
    np.testing.assert_allclose(result.model.apply(y), result.image, atol=1e-3)


@pytest.mark.parametrize(
    ("version", "words"), [(1, "older .* train it again"), (99, "newer .* update selfinv")]
)
def test_a_model_of_another_format_is_refused(tmp_path, version, words):
    file = tmp_path / "m.safetensors"
    restore().model.save(file)
    with safe_open(file, "pt") as opened:
        description = json.loads(opened.metadata()["selfinv"])
        tensors = {name: opened.get_tensor(name) for name in opened.keys()}  # noqa: SIM118
    save_file(tensors, file, {"selfinv": json.dumps(description | {"format_version": version})})
    with pytest.raises(InputError, match=words):
        selfinv.load_model(file)


def test_a_models_result_is_the_mean_of_as_many_turned_copies_as_are_asked_for():
    model = replace(restore().model, own_values=None)  # those are asked in no symmetric order
    turned = [np.flipud, np.fliplr, np.rot90]
    uneven = [
        np.abs(t(model.apply(IMAGE, symmetries=n)) - model.apply(t(IMAGE), symmetries=n)).max()
        for t in turned
        for n in (1, 8)
    ]
    assert min(uneven[::2]) > 10 * max(uneven[1::2])
    with pytest.raises(InputError, match="from 1 to 8"):
        model.apply(IMAGE, symmetries=0)


def test_a_model_takes_another_size_and_a_series_but_not_other_channels():
    model = restore().model
    other = scene(52, 44, seed=3)
    alone = model.apply(other)
    assert alone.shape == other.shape
    np.testing.assert_allclose(model.apply(np.stack([other, other]))[1], alone, rtol=1e-4)
    with pytest.raises(InputError, match=r"trained on 1 channel.* this image has 3"):
        model.apply(np.stack([other] * 3), axes="cyx")


def test_a_model_says_when_an_image_has_another_noise_than_it_was_trained_on(tmp_path):
    clean = ndimage.gaussian_filter(np.random.default_rng(4).standard_normal((48, 48)), 4.0) * 10.0
    noisy = [noise.gaussian(clean, sigma, seed=5) for sigma in (0.2, 0.02, 1.0, 0.25)]
    restore(noisy[0], kernel=None).model.save(tmp_path / "m.safetensors")
    model = selfinv.load_model(tmp_path / "m.safetensors")
    for image in noisy[1:3]:
        with pytest.warns(SelfinvWarning, match="times that of the one that the model was trained on"):
            model.apply(image)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        model.apply(noisy[3])


def test_a_model_says_when_an_images_values_are_far_from_those_it_was_trained_on():
    rng = np.random.default_rng(7)
    stars = np.zeros((48, 48))
    stars[rng.integers(0, 48, 20), rng.integers(0, 48, 20)] = rng.uniform(1e4, 1e5, 20)
    clean = 150.0 + ndimage.gaussian_filter(stars, 2.0)

    def photographed(light):
        return rng.poisson(light).astype(float)

    image = photographed(clean)
    model = restore(image, kernel=None).model
    for unlike in (photographed(clean / 16.0), photographed(clean * 16.0), photographed(clean) + 1e5):
        with pytest.warns(
            SelfinvWarning, match=r"values span about .* far from the 1.* to .* train a"
        ) as told:
            model.apply(unlike)
        assert len(told) == 1
    for factor in (1 / 16.0, 16.0):  # in another format, noise and all
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            other = model.apply(factor * image) / factor
        assert np.abs(other - model.apply(image)).max() < 0.01 * np.ptp(image)
    for factor in (0.5, 1.0, 2.0):  # the next frames of the same instrument
        for light in (clean * factor, 100.0 + (clean - 100.0) * factor, np.roll(clean, 9, 0) * factor):
            with warnings.catch_warnings():
                warnings.simplefilter("error")
                model.apply(photographed(light))


# ---- axes ----


@pytest.mark.parametrize(
    ("axes", "shape"),
    [("tyx", (2, 32, 36)), ("yxc", (32, 36, 3)), ("cyx", (2, 32, 36)), ("tcyx", (2, 2, 32, 36))],
)
def test_time_and_channels_come_back_where_they_were(axes, shape):
    space = [axes.index(a) for a in "yx"]
    frames = [scene(32, 36, seed=i) for i in range(int(np.prod(shape)) // (32 * 36))]
    leading = [shape[i] for i in range(len(shape)) if i not in space]
    image = np.moveaxis(np.reshape(frames, (*leading, 32, 36)), (-2, -1), space)
    result = restore(image, axes=axes, max_steps=20)
    assert result.image.shape == shape
    restored = np.moveaxis(result.image, space, (-2, -1)).reshape(len(frames), -1)
    likeness = np.corrcoef(restored, np.reshape(frames, (len(frames), -1)))[: len(frames), len(frames) :]
    np.testing.assert_array_equal(likeness.argmax(axis=0), range(len(frames)))
    assert likeness.diagonal().min() > 0.6


def test_a_volume_and_its_psf():
    image = scene(6, 24, 20)
    result = restore(image, psf.gaussian((0.7, 0.9, 0.9), (5, 7, 7)), max_steps=3)
    assert result.model.axes == "zyx"
    assert result.image.shape == image.shape
    with pytest.raises(InputError) as error:
        restore(image, KERNEL, axes="zyx")
    assert str(error.value) == (
        "psf has 2 axes but the image has 3 spatial axes (zyx); pass a 3-D psf or axes='cyx'"
    )


def test_the_order_in_which_axes_are_stored_does_not_matter():
    np.testing.assert_array_equal(restore(IMAGE.T, axes="xy").image, restore().image.T)


def test_a_psf_for_each_channel_blurs_its_own_channel():
    image = np.stack([IMAGE, scene(40, 36, seed=2)])
    wide = psf.gaussian((0.7, 1.1), (7, 7))
    solver = ssi((40, 36), 2)  # a few steps in single precision: rounding must not decide
    solver = replace(solver, network=replace(solver.network, precision="single"))
    one = restore(image, KERNEL, axes="cyx", method=solver, max_steps=5)
    same = restore(image, np.stack([KERNEL, KERNEL]), axes="cyx", method=solver, max_steps=5)
    np.testing.assert_allclose(same.image, one.image, rtol=0.05)
    differing = restore(image, np.stack([KERNEL, wide]), axes="cyx")
    swapped = restore(image, np.stack([wide, KERNEL]), axes="cyx")
    assert not np.array_equal(differing.image, swapped.image)
    assert differing.model.psf.shape == (2, 7, 7)
    np.testing.assert_allclose(differing.model.psf[1], wide, rtol=1e-6)


# ---- operators ----


def test_no_psf_means_the_identity():
    np.testing.assert_array_equal(
        restore(kernel=None).image, restore(kernel=None, operator=Identity(IMAGE.shape)).image
    )


def test_any_callable_is_an_operator():
    def sideways(x):
        return 0.5 * x + 0.5 * torch.roll(x, 1, -1)

    result = restore(kernel=None, operator=sideways, max_steps=60)
    assert not result.status.failed
    assert result.image.shape == IMAGE.shape
    assert result.model.psf is None
    again = sideways(torch.from_numpy(result.image)).numpy()
    inner = (slice(4, -4), slice(4, -4))
    assert np.corrcoef(again[inner].ravel(), IMAGE[inner].ravel())[0, 1] > 0.9


def test_a_function_that_is_the_identity_is_as_good_as_denoising():
    """It was 9 dB worse: it knew of no symmetry, and asked no value itself."""
    truth = data.camera()[100:196, 150:246].astype(float)
    noisy = truth + 4.0 * RNG(0).standard_normal(truth.shape)

    def error(image):
        return float(np.square(image - truth).mean())

    plain = selfinv.restore(noisy, method="ssi-network", max_steps=150)
    by_function = selfinv.restore(noisy, operator=lambda x: x.clone(), max_steps=150)
    assert error(by_function.image) < 1.3 * error(plain.image)
    assert error(by_function.image) < error(noisy)
    assert by_function.model.own_values is None  # of a function a saved model knows nothing


def test_a_logarithm_is_inverted_although_it_has_no_values_below_a_limit():
    """The run failed: a dark pixel below -1 made everything NaN."""
    truth = data.camera()[100:196, 150:246].astype(float)
    noisy = np.log1p(truth) + 0.1 * RNG(0).standard_normal(truth.shape)
    result = selfinv.restore(noisy, operator=torch.log1p, max_steps=150)
    assert not result.status.failed
    assert result.image.min() > -1.0

    def error(image):
        return float(np.square(image - truth).mean())

    assert error(result.image) < error(np.expm1(noisy))


# ---- missing values ----


class Sums(LinearOperator):
    """Random sums, in single precision alone."""

    def __init__(self):
        super().__init__((24, 24), (200,))
        generator = torch.Generator().manual_seed(0)
        self.register_buffer("matrix", torch.randn(200, 24 * 24, generator=generator) / 24)

    def forward(self, x):
        return x.flatten(-2) @ self.matrix.T

    @property
    def field_of_view(self):
        return None


@pytest.mark.parametrize("method", ["ssi", "ssi-network", "tv-chambolle-pock", "wiener"])
def test_an_operator_in_single_precision_alone_will_do(method):
    kernel = torch.from_numpy(KERNEL).float()[None, None]

    def blur(x):
        return F.conv2d(x, kernel, padding=3)

    if method == "ssi-network":
        assert restore(kernel=None, operator=blur, max_steps=2).predicted.shape == IMAGE.shape
    sums = Sums()
    measured = sums(torch.from_numpy(scene(24, 24)).float()).numpy()
    steps = None if method == "wiener" else 2
    result = selfinv.restore(measured, operator=sums, method=method, max_steps=steps)
    assert result.image.shape == (24, 24)
    assert result.predicted.shape == (200,)


@pytest.mark.parametrize("operator", [None, Identity(IMAGE.shape)])
def test_values_that_numpy_masks_are_not_taken_for_measured_ones(operator):
    masked = np.ma.array(IMAGE, mask=np.percentile(IMAGE, 95) < IMAGE)
    with pytest.raises(InputError, match=r"masked array with [0-9]+ masked values"):
        restore(masked, None, operator=operator)
    assert restore(np.ma.array(IMAGE), None, max_steps=1).image.shape == IMAGE.shape


def test_missing_values_are_filled_in_only_if_asked_for():
    holes, infinite = IMAGE.copy(), IMAGE.copy()
    holes[10:13, 10:14] = np.nan
    infinite[10:13, 10:14] = np.inf
    with pytest.raises(InputError, match=r"12 NaN .*mask_nan=True"):
        restore(holes)
    result = restore(holes, mask_nan=True)
    assert np.isfinite(result.image).all()
    np.testing.assert_array_equal(result.image, restore(infinite, mask_nan=True).image)


def test_cosmic_rays_are_told_of_left_out_and_do_no_harm():
    rng = RNG(0)
    stars = np.full((96, 96), 50.0)
    stars[tuple(rng.integers(6, 90, (2, 30)))] += 10 ** rng.uniform(2, 4.5, 30)
    kernel = psf.gaussian(1.5, (11, 11))
    clean = rng.poisson(ndimage.convolve(stars, kernel)) + rng.normal(0.0, 4.0, stars.shape)
    rays = tuple(rng.integers(4, 92, (2, 12)))
    image = clean.copy()
    image[rays] += rng.uniform(3000, 20000, 12)
    with pytest.warns(SelfinvWarning, match=r"1[2-4] values .* of all\) stand out"):
        result = restore(image, kernel, method="tv-chambolle-pock", max_steps=None)
    assert 12 <= result.stats["stray_values"] <= 14

    def error(x):
        return float(np.sqrt(np.square(x - stars).mean()))

    undisturbed = restore(clean, kernel, method="tv-chambolle-pock", max_steps=None)
    assert "stray_values" not in undisturbed.stats
    assert error(result.image) < 1.2 * error(undisturbed.image)
    with pytest.warns(SelfinvWarning, match="stand out"):
        model = restore(image, kernel, max_steps=5).model
    other = clean.copy()
    other[40, 50] += 1e5
    other[41:43, 20] += 2e5
    with pytest.warns(SelfinvWarning, match="stand out"):
        found = model.apply(other)
    np.testing.assert_allclose(found, model.apply(clean), rtol=0.2, atol=0.02 * clean.max())


def test_hot_pixels_are_left_out_without_a_psf_too():
    """A single one of 65535 cost four decibels."""
    rng = np.random.default_rng(0)
    truth = ndimage.zoom(data.camera()[128:192, 160:224].astype(float), 1.5, order=1)
    noisy = truth + rng.normal(0.0, 10.0, truth.shape)
    hot = noisy.copy()
    hot[rng.integers(96, size=9), rng.integers(96, size=9)] = 65535.0
    expected = restore(noisy, None, max_steps=60)
    with pytest.warns(SelfinvWarning, match=r"9 values .* stand out far and each alone"):
        result = restore(hot, None, max_steps=60)
    assert result.stats["stray_values"] == 9

    def error(image):
        return float(np.sqrt(np.square(image - truth).mean()))

    assert error(result.image) < 1.1 * error(expected.image) < 8.0
    with pytest.warns(SelfinvWarning, match="9 values"):
        again = result.model.apply(hot)
    assert error(again) < 1.1 * error(expected.image)


# ---- mistakes ----


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"operator": Identity((40, 36))}, "both psf and operator"),
        (
            {"method": "richardson"},
            r"method='richardson' is unknown; did you mean richardson-lucy\? Known are ",
        ),
        ({"image": np.full((32, 32), 7.0)}, "image is constant .every value is 7"),
        (
            {"image": np.full((32, 32), 7.0), "method": "richardson-lucy"},
            "image is constant .every value is 7",
        ),
        ({"method": 3}, "method is a int; give a method's name or a Solver"),
        ({"method": "wiener", "weight": "a"}, "weight must be a positive number, got 'a'"),
        ({"image": IMAGE[:12]}, "only 12 samples along y; at least 16"),
        ({"image": IMAGE[:1]}, "only 1 sample along y; .* give a line of values as an array of one axis"),
        ({"image": IMAGE + 1j}, "complex"),
        ({"image": np.stack([IMAGE] * 5), "kernel": None}, "say which with axes="),
        ({"image": 3.0}, "single number"),
        ({"axes": "zyx"}, "names 3 axes but the image has 2"),
        ({"boundary": "mirror"}, "boundary='mirror' is unknown; use one of auto, unknown"),
        ({"boundary": "mirror", "kernel": None}, "boundary='mirror' is unknown; use one of auto, unknown"),
        ({"boundary": "zero", "kernel": None}, "boundary='zero' has no effect without a psf; leave it out"),
        (
            {"boundary": "zero", "kernel": None, "operator": Identity((40, 36))},
            "boundary='zero' has no effect with an operator, which has its own; leave it out",
        ),
        ({"device": "abacus"}, "device='abacus' is unknown; use 'auto'"),
        ({"max_steps": 0}, "max_steps must be at least 1"),
        ({"max_steps": 2.5}, r"max_steps must be an integer, got 2\.5"),
        ({"seed": None}, "seed must be an integer, got None"),
        ({"seed": -1}, "seed must be at least 0, got -1"),
        ({"axes": 2}, "axes is a int; give one letter per axis"),
        ({"device": None}, "device=None is unknown"),
        ({"callback": 3}, "callback is a int; pass a function"),
        ({"callback": lambda: None}, r"callback\(\) does not take a Progress .*; give it one argument"),
        ({"callback": lambda a, b: None}, r"callback\(a, b\) does not take a Progress \(missing .* 'b'\)"),
        ({"image": Path("a.tif")}, "image is a PosixPath; .* a file is read with selfinv.io.read"),
        ({"method": "tv-chambolle-pock", "spacing": "ab"}, "spacing='ab' is no list of numbers"),
        ({"kernel": KERNEL[None]}, "psf has 3 axes but the image has 2 spatial axes"),
        ({"kernel": KERNEL * 0}, "psf is zero everywhere"),
        ({"kernel": KERNEL * np.nan}, "psf has 49 values that are NaN"),
        ({"kernel": KERNEL - 0.05}, "psf has negative values"),
        ({"kernel": "psf.tif"}, "psf is .* expected an array of real numbers"),
        ({"kernel": None, "operator": Identity((9, 9))}, r"the shape \(9, 9\) but the image has"),
        ({"method": "wiener", "kernel": None, "operator": Identity((9, 9))}, r"the shape \(9, 9\) but the"),
        ({"weight": 1.0}, "method='ssi-network' has no weight; leave it out"),
        ({"method": "wiener", "weight": -1.0}, "weight must be a positive number, got -1"),
        ({"method": "tv-chambolle-pock", "spacing": (1.0, 2.0, 3.0)}, "does not fit the axes yx; give one"),
    ],
)
def test_a_mistake_is_an_input_error_that_says_what_to_do(options, words):
    with pytest.raises(InputError, match=words):
        restore(**options)


def test_an_unknown_keyword_is_refused():
    with pytest.raises(TypeError, match="stepps"):
        restore(stepps=3)


def test_a_psf_that_looks_wrong_is_used_but_not_in_silence():
    with pytest.warns(SelfinvWarning, match="psf is off-centre"):
        restore(kernel=np.pad(KERNEL, ((8, 0), (8, 0))), max_steps=1)


# ---- progress, stopping, failure ----


def test_the_callback_is_told_of_every_step_and_can_look_at_the_image():
    seen = []
    restore(callback=lambda progress: seen.append((progress, progress.estimate())), max_steps=3)
    seen = [(p, image) for p, image in seen if p.attempt == 1]  # so short a run may well be started again
    assert [p.step for p, _ in seen] == [1, 2, 3]
    assert {p.max_steps for p, _ in seen} == {3}
    assert all(np.isfinite(p.loss) for p, _ in seen)
    seconds = [p.seconds for p, _ in seen]
    assert 0 < seconds[0] < seconds[1] < seconds[2]
    assert seen[0][0].seconds_left > seen[-1][0].seconds_left == 0
    assert all(image.shape == IMAGE.shape and image.dtype == np.float32 for _, image in seen)


@pytest.mark.parametrize("callback", [[].append, str, partial(max, 0, key=id)])
def test_builtins_are_callbacks_too(callback):
    assert restore(callback=callback, max_steps=2).stats["steps"] == 2


def test_a_comparison_of_numpy_ends_a_run():
    result = restore(method="ssi-network", max_steps=9, callback=lambda p: np.float64(p.step) < 4)
    assert (result.status, result.stats["steps"]) == (selfinv.Status.CANCELLED, 4)
    assert str(result.status) == (
        "stopped on request at step 4 of 9; this is the best result so far, which may be worse than the "
        "measurement"
    )


class Stop:
    """A callback that ends the run at a step, and remembers the image that was best until then."""

    def __init__(self, step, how):
        self.step, self.how, self.best = step, how, None

    def __call__(self, progress):
        if progress.step < self.step:
            return None
        assert progress.step == self.step, "it went on"
        self.best = progress.estimate()
        if self.how == "ctrl-c":
            raise KeyboardInterrupt
        return False


@pytest.mark.parametrize("how", ["return False", "ctrl-c"])
def test_stopping_early_keeps_the_best_so_far(how):
    solver = ssi(IMAGE.shape, 1)
    solver = replace(solver, training=replace(solver.training, check_every=1))
    stop = Stop(12, how)
    result = restore(method=solver, max_steps=40, callback=stop)
    assert result.status == selfinv.Status.CANCELLED
    assert not result.status.failed
    assert result.stats["steps"] == 12
    np.testing.assert_array_equal(result.image, stop.best)
    np.testing.assert_array_equal(result.model.apply(IMAGE), result.image)
    scores = {step: score for step, _, score in result.stats["history"]}
    assert result.stats["held_out_score"] == scores[result.stats["best_step"]]


def test_a_search_tells_its_parts_and_shows_images():
    seen = []
    result = restore(
        method="tv-chambolle-pock", max_steps=6, callback=lambda p: seen.append((p, p.estimate()))
    )
    parts = list(dict.fromkeys(p.phase for p, _ in seen))
    assert parts[0].startswith("tv-chambolle-pock, L2, weight ")
    assert parts[-1] == "final"
    assert len(parts) == len(result.stats["trials"]) + 1
    assert all(0 <= p.step <= p.max_steps == 6 for p, _ in seen)
    assert all(image.shape == IMAGE.shape and np.isfinite(image).all() for _, image in seen)
    np.testing.assert_array_equal(seen[-1][1], result.image)


def test_the_score_of_a_network_is_told_while_it_trains_in_a_search():
    seen = []
    # Before that most of what is predicted is the update's by measured values, which training does not see.
    result = restore(method="ssi", max_steps=60, callback=lambda p: seen.append(p))
    scores = [p.score for p in seen if p.phase == "ssi-network" and p.step > 10]
    assert np.isfinite(scores).all()
    assert len(set(scores)) > 1  # it is the present one
    last = next(score for name, _, _, score, _ in result.stats["trials"] if name == "ssi-network")
    assert 0.3 * last < scores[-1] < 3.0 * last  # in the same units, on other values


@pytest.mark.parametrize("how", ["return False", "ctrl-c"])
def test_stopping_a_search_keeps_the_best_so_far(how):
    """Of the weights that were tried, the one that predicts held-out values best, and it is told which."""
    seen = []

    def callback(progress):
        seen.append(progress.phase)
        if len(set(seen)) == 6:
            if how == "ctrl-c":
                raise KeyboardInterrupt
            return False
        return None

    result = restore(method="tv-chambolle-pock", callback=callback)
    assert result.status == selfinv.Status.CANCELLED
    assert not result.status.failed
    assert len(result.stats["trials"]) == 5
    scores = {setting: score for _, _, setting, score, _ in result.stats["trials"]}
    assert result.stats["weight"] == min(scores, key=scores.get)
    assert result.stats["held_out_score"] == min(scores.values())
    assert result.model is None
    assert np.corrcoef(result.image.ravel(), IMAGE.ravel())[0, 1] > 0.9


def test_of_a_search_ended_in_its_first_part_it_is_told_what_the_image_is_by():
    result = restore(method="ssi", callback=lambda progress: progress.step < 5)
    assert result.status == selfinv.Status.CANCELLED
    assert (result.stats["method"], result.stats["chosen"]) == ("ssi", "ssi-network")
    assert re.match(r"stopped on request at step 5 of \d+ \(ssi-network\); ", str(result.status))
    assert result.model is not None


def test_of_a_function_too_it_is_told_what_the_image_is_by():
    result = restore(kernel=None, operator=lambda x: x.square(), method="ssi", max_steps=3)
    assert result.stats["chosen"] == "ssi-network"


def test_a_solver_with_settings_of_ones_own_is_a_method_too():
    from selfinv.solvers.richardson_lucy import RichardsonLucy

    result = restore(method=RichardsonLucy(max_steps=50, background=20.0), max_steps=7)
    assert (result.stats["method"], result.stats["steps"]) == ("custom", 7)
    assert result.model is None
    other = restore(method="richardson-lucy", max_steps=7)
    assert not np.allclose(result.image, other.image, rtol=1e-3)


def test_ctrl_c_before_there_is_anything_is_ctrl_c(monkeypatch):
    def interrupted(*args, **options):
        raise KeyboardInterrupt

    monkeypatch.setattr(SSI, "step", interrupted)
    with pytest.raises(KeyboardInterrupt):
        restore()


def test_a_failed_run_is_started_again_and_that_is_told(monkeypatch):
    answers = iter([True, False])
    monkeypatch.setattr(SSI_MODULE, "has_checkerboard", lambda x, y: next(answers))
    attempts = []
    result = restore(IMAGE, max_steps=25, seed=3, callback=lambda progress: attempts.append(progress.attempt))
    assert not result.status.failed
    assert len(result.status.failed_attempts) == 1
    assert result.status.failed_attempts[0].startswith("seed 3: ")
    assert "checkerboard" in str(result.status)
    assert attempts == [1] * 25 + [2] * 25
    assert result.stats["seed"] != 3  # the one to give for the same image


def test_a_run_that_fails_with_every_seed_says_so_and_what_to_do(monkeypatch):
    monkeypatch.setattr(SSI_MODULE, "has_checkerboard", lambda x, y: True)
    with pytest.warns(SelfinvWarning, match=r"checkerboard.*another seed"):
        result = restore(max_steps=25)
    assert result.status == selfinv.Status.CHECKERBOARD
    assert result.status.failed
    assert [words.split(":")[0] for words in result.status.failed_attempts] == ["seed 0", "seed 7919"]
    assert result.image.shape == IMAGE.shape


def test_a_run_no_better_than_a_constant_has_failed():
    with pytest.warns(SelfinvWarning, match=r"no better than at the start; use more steps"):
        result = restore(kernel=None, operator=lambda x: 1e-9 * x + 100, max_steps=3)
    assert result.status == selfinv.Status.WORSE_THAN_START


def test_values_too_large_to_compute_with_are_refused_and_such_settings_a_failure_with_advice():
    with pytest.raises(InputError, match="single precision"):
        restore(IMAGE * 1e300, max_steps=1)
    with pytest.warns(SelfinvWarning, match="NaN or infinite"):
        result = restore(max_steps=1, method="tv-chambolle-pock", weight=1e300)
    assert result.status == selfinv.Status.NONFINITE


def test_a_measured_psf_is_taken_as_it_is():
    bead = selfinv.psf.from_bead(KERNEL)
    assert np.array_equal(
        restore(kernel=bead, max_steps=2).image, restore(kernel=bead.psf, max_steps=2).image
    )


def test_image_and_psf_in_each_others_place_are_refused():
    with pytest.raises(InputError, match=r"larger than the image .* along every axis; were they swapped"):
        selfinv.restore(KERNEL if KERNEL.shape[0] >= 16 else np.pad(KERNEL, 16), np.ones((99, 99)))


# ---- noise that neighbours share ----


def test_shared_noise_is_noticed_told_and_hidden_around_scored_values():
    rng, options = RNG(0), {"method": "tv-chambolle-pock", "max_steps": None}
    kernel = psf.gaussian(2.0, (13, 13))
    blurred = ndimage.convolve(scene(128, 128), kernel, mode="reflect")
    shared = ndimage.uniform_filter(rng.standard_normal((128, 128)), 2) * 2
    with pytest.warns(SelfinvWarning, match="noise is correlated"):
        result = restore(blurred + 0.3 * np.ptp(blurred) * shared, kernel, **options)
    own = rng.standard_normal((128, 128))
    plain = restore(blurred + 0.3 * np.ptp(blurred) * own, kernel, **options)
    assert "no correlation" in plain.stats["noise"]
    kept = [ndimage.laplace(r.image).std() for r in (result, plain)]
    assert kept[0] < 3 * kept[1]  # the weight is not tuned to keep the noise


@pytest.mark.parametrize("axis", [0, 1])
def test_noise_that_lines_share_is_not_restored_with_the_image(axis):
    """It was: a line's own values told its noise, which deconvolution then made larger."""
    rng = RNG(0)
    kernel = psf.gaussian(1.5, (11, 11))
    truth = data.camera()[128:288, 160:320] / 255.0
    clean = fftconvolve(np.pad(truth, 5, mode="reflect"), kernel, mode="valid")
    noise_of_lines = 0.06 * rng.standard_normal((160, 1) if axis == 0 else (1, 160))
    noisy = clean + 0.03 * rng.standard_normal(clean.shape) + noise_of_lines
    with pytest.warns(SelfinvWarning, match=r"whole lines .* share .*whole lines are hidden here"):
        result = restore(noisy, kernel, max_steps=100)

    def error(x):
        return float(np.square(x - truth).mean())

    assert error(result.image) < 0.75 * error(noisy)
    smoothed = min(error(ndimage.gaussian_filter(noisy, s)) for s in (0.5, 1.0, 1.5, 2.0))
    assert error(result.image) < smoothed


def test_lines_that_a_caller_says_share_noise_are_hidden_as_a_whole():
    """Behind so narrow a PSF the noise itself does not tell."""
    rng = RNG(0)
    truth = data.camera()[128:288, 160:320] / 255.0
    kernel, of_lines = psf.gaussian(0.6, (5, 5)), 0.06 * rng.standard_normal((160, 1))
    operators = [Convolution(kernel, truth.shape, "reflect", lines_share_noise=axes) for axes in ((), -1)]
    y = operators[0](torch.from_numpy(truth)).numpy() + 0.03 * rng.standard_normal(truth.shape) + of_lines
    unsaid, said = (selfinv.restore(y, operator=a, method="wiener").image - truth for a in operators)
    assert np.square(said).mean() < np.square(y - truth).mean() < 0.5 * np.square(unsaid).mean()


def test_a_frame_of_which_nothing_was_measured_is_warned_of():
    series = np.random.default_rng(0).random((3, 32, 32)) + np.linspace(0.0, 9.0, 32)
    series[1] = np.nan
    for axes, noun in (("tyx", "frame"), ("cyx", "channel")):
        with pytest.warns(SelfinvWarning, match=f"nothing is measured in {noun} 1 "):
            restore(series, axes=axes, mask_nan=True, method="wiener")


UNITS = [(1e-17, 0.0), (1e-30, 0.0), (1e20, 0.0), (1.0, 3e4)]


@pytest.mark.parametrize(("unit", "level"), UNITS, ids=["1e-17", "1e-30", "1e20", "on a level"])
def test_intensities_of_any_size(unit, level):
    """W/m² were refused, and a level of a million left nothing of what stands on it."""
    truth = data.camera()[100:164, 200:264] / 255.0
    kernel = psf.gaussian(1.0, (7, 7))
    blurred = ndimage.gaussian_filter(truth, 1.0, mode="reflect")
    noisy = blurred + 0.03 * np.random.default_rng(0).normal(size=truth.shape)
    image = noisy * unit + level
    result = restore(image, kernel, max_steps=40)
    assert np.sqrt(np.mean((result.image - level - truth * unit) ** 2)) < 0.05 * unit
    assert np.sqrt(np.mean((result.predicted - level - blurred * unit) ** 2)) < 0.02 * unit
    assert np.array_equal(result.model.apply(image), result.image)


@pytest.mark.parametrize("method", ["ssi-network", "tv-chambolle-pock"])
def test_beside_an_opaque_alpha_channel_an_image_is_restored_as_alone(method):
    """It was next to nothing beside values of 65535."""
    truth = 10.0 * data.camera()[100:148, 200:248] / 255.0
    noisy = truth + np.random.default_rng(0).normal(size=truth.shape)
    both = np.stack([noisy, np.full_like(noisy, 65535.0)])
    options = {"kernel": None, "method": method, "max_steps": 60, "axes": "cyx"}
    alone, beside = restore(noisy[None], **options).image, restore(both, **options).image
    assert np.std(beside[0] - truth) < 1.2 * np.std(alone[0] - truth) < 0.6
    assert np.abs(beside[1] - 65535.0).max() < 0.5


def test_channels_on_different_levels_are_both_restored():
    truth = data.camera()[100:164, 200:264] / 255.0
    noisy = truth[..., None] + 0.03 * np.random.default_rng(0).normal(size=(64, 64, 2))
    levels = np.array([0.0, 300.0])
    result = restore(noisy + levels, kernel=None, axes="yxc", max_steps=40)
    error = np.sqrt(np.mean((result.image - levels - truth[..., None]) ** 2, axis=(0, 1)))
    assert error.max() < 0.03


def test_a_level_beside_which_the_result_has_no_digits_is_warned_of():
    image = np.random.default_rng(0).random((32, 32)) + 1e7
    with pytest.warns(SelfinvWarning, match="take a level off first"):
        restore(image, method="wiener", weight=1.0)


@pytest.mark.parametrize("method", ["ssi-network", "ssi"])
def test_a_dark_channel_is_restored_as_well_as_a_bright_one(method, tmp_path):
    """It was lost: beside a channel a hundred times brighter its errors were next to nothing."""
    truth = np.stack([data.camera()[100:196, 150:246], data.coins()[60:156, 60:156]]) / 255.0
    units = np.array([1000.0, 10.0])[:, None, None]
    kernel = psf.gaussian(1.2, (9, 9))
    light = np.stack([fftconvolve(np.pad(c, 4, mode="reflect"), kernel, mode="valid") for c in truth])
    noisy = (light + 0.04 * np.random.default_rng(0).normal(size=light.shape)) * units + 100.0
    result = selfinv.restore(noisy, kernel, axes="cyx", method=method, max_steps=60)
    for image, measured, right in zip(result.image, noisy, truth * units + 100.0, strict=True):
        assert np.square(image - right).mean() < 0.6 * np.square(measured - right).mean()
    assert np.corrcoef(result.predicted[1].ravel(), light[1].ravel())[0, 1] > 0.97
    assert len(result.stats["channel_units"]) == 2
    if method == "ssi-network":
        result.model.save(tmp_path / "model.safetensors")
        again = selfinv.load_model(tmp_path / "model.safetensors").apply(noisy)
        assert np.allclose(again, result.image, rtol=1e-4, atol=1e-2)


def test_a_dark_channel_of_projections_is_as_good_as_alone(tmp_path):
    """Channels were brought to common units on pixels only: 21.5 dB instead of 26.7."""
    disc = np.hypot(*(np.indices((48, 48)) - 24)) < 22
    slices = [i[100:148, 100:148] / 255.0 * disc for i in (data.camera(), data.coins())]
    A = Radon((48, 48), np.arange(0, 180, 6.0), circle=True)
    projections = np.stack([A(torch.from_numpy(x)).numpy() for x in slices])
    noisy = projections + 0.3 * np.random.default_rng(0).normal(size=projections.shape)
    dark = noisy * np.array([1.0, 0.05])[:, None, None]
    options = {"operator": A, "axes": "cyx", "method": "ssi-network", "max_steps": 60}
    bright, both = (selfinv.restore(y, **options) for y in (noisy, dark))
    error = [np.square(x - slices[1]).mean() for x in (bright.image[1], both.image[1] / 0.05)]
    assert error[1] < 1.2 * error[0]
    assert len(both.stats["channel_units"]) == 2
    both.model.save(tmp_path / "model.safetensors")
    again = selfinv.load_model(tmp_path / "model.safetensors", A).apply(dark, axes="cyx")
    assert np.allclose(again, both.image, rtol=1e-3, atol=1e-4)


def test_a_tensor_that_is_differentiated_is_an_image_too():
    tensor = torch.tensor(IMAGE, requires_grad=True)
    expected = restore(method="wiener", weight=1.0).image
    assert np.array_equal(restore(tensor, method="wiener", weight=1.0).image, expected)


def test_counts_of_sparse_spots_on_nothing_are_not_made_worse():
    """They were taken for what no neighbour tells, and came back ten decibels further from the truth."""
    rng = np.random.default_rng(4)
    light = np.zeros((96, 96))
    light[rng.integers(96, size=45), rng.integers(96, size=45)] = 10 ** rng.uniform(2, 4, 45)
    truth = ndimage.gaussian_filter(light, 0.8)
    counts = rng.poisson(truth).astype(float)
    result = restore(counts, None, max_steps=100)

    def error(image):
        return float(np.sqrt(np.square(image - truth).mean()))

    assert error(result.image) < 1.3 * error(counts)
    assert error(replace(result.model, own_values=None).apply(counts)) > 2.0 * error(counts)


def test_sparse_spots_under_little_noise_keep_their_light():
    """Denoised, they were seventeen times further from the truth than before, and a quarter of them lost."""
    rng = np.random.default_rng(3)
    light = np.zeros((96, 96))
    light[rng.integers(96, size=80), rng.integers(96, size=80)] = 10 ** rng.uniform(2, 4, 80)
    truth = ndimage.gaussian_filter(light, 0.6)
    noisy = truth + 50.0 + rng.normal(0, 5.0, truth.shape)
    for method in ("ssi", "tv-chambolle-pock"):
        result = selfinv.restore(noisy, method=method).image - 50.0
        assert result.sum() == pytest.approx(truth.sum(), rel=0.02)
        assert np.sqrt(np.mean((result - truth) ** 2)) < 2.5 * 5.0


@pytest.mark.parametrize("given", [{"weight": 0.5}, {"spacing": (1.0, 1.0)}])
def test_a_solver_has_settings_of_its_own(given):
    with pytest.raises(InputError, match="give them to the solver itself"):
        selfinv.restore(IMAGE, KERNEL, method=ConjugateGradient(0.1, max_steps=2), **given)


@pytest.mark.parametrize("blur", [None, Convolution(torch.as_tensor(KERNEL).float(), (40, 36), "unknown")])
@pytest.mark.parametrize("method", ["ssi-network", "tv-chambolle-pock"])
def test_what_a_mask_leaves_out_is_missing(blur, method):
    measured = RNG(1).random(IMAGE.shape) < 0.7
    A = Mask(measured) if blur is None else Mask(measured) @ blur
    gaps = np.where(measured, IMAGE, np.nan)
    options = {"max_steps": 10 if method.startswith("ssi") else None, "method": method}
    by_nan = restore(gaps, None, operator=blur, mask_nan=True, **options)
    by_mask = restore(np.where(measured, IMAGE, 0.0), None, operator=A, **options)
    assert np.array_equal(by_mask.image, by_nan.image)
    assert not by_mask.predicted[~measured].any()
    if by_mask.model is not None:
        assert np.array_equal(by_mask.model.apply(np.where(measured, IMAGE, 0.0)), by_mask.image)


def test_a_saved_model_of_a_mask_takes_images_with_gaps_or_the_mask(tmp_path):
    measured = RNG(1).random(IMAGE.shape) < 0.7
    result = restore(IMAGE, None, operator=Mask(measured), max_steps=5)
    result.model.save(tmp_path / "m.safetensors")
    model = selfinv.load_model(tmp_path / "m.safetensors")
    assert np.array_equal(model.apply(np.where(measured, IMAGE, np.nan), mask_nan=True), result.image)
    model = selfinv.load_model(tmp_path / "m.safetensors", Mask(measured))
    assert np.array_equal(model.apply(IMAGE), result.image)


def test_rings_are_told_of():
    A = Radon((32, 32), np.arange(0, 180, 9), circle=True)
    disc = np.zeros((32, 32))
    disc[8:20, 10:24] = 1.0
    y = A(torch.from_numpy(disc)).numpy() + 0.2 * RNG(0).standard_normal(A.out_shape)
    for offsets, words in ((0.0, []), (0.3, ["rings"])):
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            selfinv.restore(y + offsets * RNG(1).standard_normal(32), operator=A, method="wiener", weight=1.0)
        assert [word for word in words if any(word in str(w.message) for w in caught)] == words
        assert bool(caught) == bool(words)
