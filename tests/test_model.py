"""A trained model says of an image what makes it unlike the one that it was trained on."""

from __future__ import annotations

import dataclasses
import warnings

import numpy as np
import pytest
import torch
import zarr
from scipy.ndimage import gaussian_filter
from skimage import data

import selfinv
from selfinv.large import NetworkRestorer, apply
from selfinv.learning.normalisation import Normalisation
from selfinv.likeness import Likeness
from selfinv.operators import Convolution, MixedConvolution
from selfinv.types import InputError, SelfinvWarning

PSF = selfinv.psf.gaussian(1.5, (13, 13))
SCENE = data.coins()[:, :256] / 255.0


@pytest.fixture(scope="module")
def model():
    return selfinv.restore(frame(1.5, 0.003), PSF, method="ssi-network", max_steps=20).model


def frame(blur, noise, seed=0):
    image = gaussian_filter(SCENE, blur)
    return image + noise * np.random.default_rng(seed).standard_normal(image.shape)


def test_frames_like_it_are_restored_without_a_word(model):
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        model.apply(frame(1.5, 0.003, seed=1)[::-1])
        model.apply(frame(1.5, 0.004, seed=1), device="auto")
    assert not caught


def test_an_image_of_which_a_model_knows_too_little_is_told_of(tmp_path):
    """Of smooth cells alone it has not learned what edges are."""
    rng = np.random.default_rng(0)
    cells, scene = data.cell()[266:394, 211:339] / 255.0, data.camera()[192:320, 192:320] / 255.0
    cells, scene = (image + 0.05 * rng.standard_normal(image.shape) for image in (cells, scene))
    model = selfinv.restore(cells, method="ssi-network", max_steps=60).model
    with pytest.warns(SelfinvWarning, match="does not suit this image"):
        model.apply(scene)
    np.save(tmp_path / "scene.npy", scene)
    with pytest.warns(SelfinvWarning, match="does not suit this image"):
        apply(model, tmp_path / "scene.npy", tmp_path / "out.zarr", axes="yx", workers=0)


def test_what_is_not_finite_is_missing(model):
    image = frame(1.5, 0.003, seed=1)
    holes = np.random.default_rng(0).random(image.shape) < 0.02
    by_each = [model.apply(np.where(holes, value, image), mask_nan=True) for value in (np.nan, np.inf)]
    assert np.array_equal(*by_each)


@pytest.mark.parametrize("unit", [1e-200, 1e200])
def test_values_that_single_precision_does_not_hold_are_refused(model, unit):
    with pytest.raises(InputError, match="use a unit in which it lies between 1e-36 and"):
        model.apply(unit * frame(1.5, 0.003))


def test_no_such_device(model):
    with pytest.raises(InputError, match="device"):
        model.apply(SCENE, device="abacus")


def test_unless_it_is_not_to_be_looked_for(model):
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        model.apply(frame(1.0, 0.009), check=False)


@pytest.mark.parametrize("in_tiles", [False, True], ids=["whole", "tile by tile"])
@pytest.mark.parametrize(
    ("blur", "noise", "words"),
    [
        (1.0, 0.003, "the model's PSF seems to be too wide: one 0"),
        (1.5, 0.009, "noise of this image, about 0.009.*, is .* times that of"),
        (1.5, 0.001, "noise of this image, about 0.001.*, is .* times that of"),
    ],
)
def test_another_blur_or_noise_is_told(model, tmp_path, blur, noise, words, in_tiles):
    def restored():
        if not in_tiles:
            return model.apply(frame(blur, noise))
        np.save(tmp_path / "frame.npy", frame(blur, noise))
        return apply(model, tmp_path / "frame.npy", tmp_path / "frame.zarr", axes="yx", workers=0)

    with pytest.warns(SelfinvWarning, match=words) as told:
        restored()
    assert len(told) == 1


@pytest.mark.parametrize(
    ("gain", "level"), [(0.5, 0.0), (1.3, 0.0), (1.0, 0.3), (1.0, -0.3), (1e3, 2e3), (1e-20, 0.0)]
)
def test_the_same_brighter_or_on_a_level_comes_out_the_same(model, gain, level):
    """It came out worse than measured, without a word, from 1.3 times as bright on."""
    image = frame(1.5, 0.003, seed=1)
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        found = model.apply(gain * image + level, symmetries=1)
    assert not caught
    change = (found - level) / gain - model.apply(image, symmetries=1)
    assert np.sqrt(np.square(change).mean()) < 0.005


@pytest.mark.filterwarnings("ignore:the noise of this image:selfinv.types.SelfinvWarning")
@pytest.mark.parametrize("gains", [(1.3, 1.3), (1e3, 1e3), (1.0, 0.6)])
def test_tiles_too_and_what_is_darker_says_nothing_of_the_rest(model, tmp_path, gains):
    frames = np.stack([gain * frame(1.5, 0.003, seed=1) for gain in gains])
    np.save(tmp_path / "frames.npy", frames)
    apply(model, tmp_path / "frames.npy", tmp_path / "out.zarr", axes="tyx", workers=0)
    found = zarr.open_group(tmp_path / "out.zarr", mode="r")["0"][0] / gains[0]
    change = found - model.apply(frame(1.5, 0.003, seed=1))
    assert np.sqrt(np.square(change).mean()) < 0.005


def test_a_part_that_is_darker_does_not_take_the_rest_for_scaled(model):
    y = torch.from_numpy(0.3 * frame(1.5, 0.003, seed=1))[None, None]
    scaled = [Likeness.of(y, model.normalisation, model.noise, part=part).scaled for part in (False, True)]
    assert scaled == [True, False]


def test_a_run_on_a_brighter_image_with_a_gap_goes_on_with_the_gap_masked(model, tmp_path):
    image = 3.0 * frame(1.5, 0.003, seed=1)
    image[::50, ::50] = np.nan  # in every piece
    np.save(tmp_path / "in.npy", image)
    arguments, job = (model, tmp_path / "in.npy", tmp_path / "out.zarr"), {"axes": "yx", "workers": 0}
    assert apply(*arguments, **job).outcome.failed
    done = apply(*arguments, **job, resume=True, mask_nan=True).outcome
    assert done.done + done.skipped == done.tiles


def test_what_is_darker_than_all_of_training_is_restored_as_well(model, monkeypatch):
    truth = data.camera()[100:356, 100:356] / 255.0 * 0.4 - 0.3
    image = gaussian_filter(truth, 1.5) + 0.003 * np.random.default_rng(0).standard_normal(truth.shape)
    off = np.abs(model.apply(image, check=False) - truth).mean()
    monkeypatch.setattr(Likeness, "place", lambda likeness, **options: likeness.trained)
    assert off < 0.5 * np.abs(model.apply(image, check=False) - truth).mean()


@pytest.mark.parametrize("sign", [1.0, -1.0])
def test_where_nothing_lies_around_nothing_stays_0(sign):
    truth = np.zeros((64, 64))
    truth[20:44, 24:40] = SCENE[100:124, 100:116]

    def seen(brighter, noise=0.01):
        blurred = brighter * gaussian_filter(truth, 1.5, mode="constant")
        return sign * (blurred + noise * np.random.default_rng(0).standard_normal(truth.shape))

    given = {"boundary": "zero", "method": "ssi-network", "max_steps": 60}
    model = selfinv.restore(seen(1.0), PSF, **given).model
    scaled = model.apply(3.0 * seen(1.0), check=False)
    assert np.abs(scaled / 3.0 - model.apply(seen(1.0))).max() < 0.02
    brighter = model.apply(seen(3.0), check=False)
    assert np.abs(brighter[:8]).max() < 0.1 * np.abs(brighter).max()
    off = np.abs(brighter - sign * 3.0 * truth).mean()
    assert off < np.abs(seen(3.0) - sign * 3.0 * truth).mean()


def test_an_image_that_is_nowhere_above_zero_has_room_below_alone():
    trained = Normalisation(-3.0, 3.0)  # to 0
    brighter = Likeness(trained, Normalisation(-6.0, 8.0), 0.0, 0.0)
    assert brighter.place(level=False) == Normalisation(-6.0, 6.0)


def test_where_the_blur_varies_images_of_its_size_are_updated_by_their_values(tmp_path):
    """`apply` gave the network's answer alone, several decibels behind."""
    truth = SCENE[60:156, 40:136]
    kernels = np.stack([selfinv.psf.gaussian(s, (13, 13)) for s in (1.0, 1.4, 1.8, 2.2)])
    corners = [[0, 0], [0, 95], [95, 0], [95, 95]]
    A = MixedConvolution(
        torch.from_numpy(kernels).float(), truth.shape, positions=corners, boundary="reflect"
    )

    def measured(seed):
        blurred = A(torch.from_numpy(truth).float()).numpy()
        return blurred + 0.002 * np.random.default_rng(seed).standard_normal(truth.shape)

    def quality(image):
        return selfinv.metrics.psnr(truth, image, 1.0)

    image = measured(0)
    result = selfinv.restore(image, operator=A, method="ssi-network", max_steps=60)
    assert np.allclose(result.model.apply(image), result.image, atol=1e-4)
    result.model.save(tmp_path / "m.safetensors")
    again, alone = (selfinv.load_model(tmp_path / "m.safetensors", operator) for operator in (A, None))
    assert np.allclose(again.apply(image), result.image, atol=1e-4)
    other = measured(1)
    assert quality(again.apply(other)) > quality(alone.apply(other)) + 1.0
    assert again.apply(other[:80]).shape == (80, 96)  # of another size: by the network


def test_a_model_of_a_psf_takes_no_operator(model, tmp_path):
    model.save(tmp_path / "m.safetensors")
    kernels = torch.from_numpy(np.stack([PSF, PSF])).float()
    A = MixedConvolution(kernels, SCENE.shape, positions=[[0, 0], [0, 255]])
    with pytest.raises(InputError, match="takes no operator"):
        selfinv.load_model(tmp_path / "m.safetensors", A)


def test_an_answer_that_no_value_was_asked_of_keeps_its_light():
    rng = np.random.default_rng(0)
    counts = rng.poisson(3.0 * gaussian_filter(SCENE[:128, :128], 1.5)).astype(float)
    result = selfinv.restore(counts, PSF, method="ssi-network", max_steps=10)
    model = dataclasses.replace(result.model, own_values=None, light=(1.2,))
    dark = dataclasses.replace(model, light=())
    assert np.allclose(model.apply(counts, check=False), 1.2 * dark.apply(counts, check=False), rtol=1e-4)


def test_a_tile_of_the_operators_shape_is_not_updated_by_it():
    psfs = torch.from_numpy(np.stack([PSF, PSF])).float()
    A = MixedConvolution(psfs, (64, 64), positions=[[0, 0], [0, 63]], boundary="reflect")
    image = frame(1.5, 0.003)[:64, :64]
    model = selfinv.restore(image, operator=A, method="ssi-network", max_steps=10).model
    restorer = NetworkRestorer(model)
    alone = dataclasses.replace(model, own_values=None, light=()).apply(image, check=False)
    tile = restorer.restore(image[None].astype("f4"), (slice(0, 64), slice(0, 64)), (128, 128))
    assert np.allclose(tile[0], alone, atol=1e-4)


def test_of_frames_with_a_psf_each_it_gives_as_much_light_as_the_run_did():
    widths = (0.8, 1.2, 1.6)
    psfs = np.stack([selfinv.psf.gaussian(width, (9, 9)) for width in widths])
    blurred = np.stack([gaussian_filter(SCENE[:48, :48], width, mode="mirror") for width in widths])
    series = blurred + 0.05 * np.random.default_rng(0).standard_normal(blurred.shape)
    A = Convolution(torch.from_numpy(psfs)[:, None], (48, 48), "reflect")
    found = selfinv.restore(series, operator=A, axes="tyx", method="ssi-network", max_steps=8)
    assert found.model.light not in ((), (1.0,))
    np.testing.assert_allclose(found.model.apply(series, check=False), found.image, atol=1e-5)
