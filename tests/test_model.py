"""A trained model says of an image what makes it unlike the one that it was trained on."""

from __future__ import annotations

import warnings

import numpy as np
import pytest
from scipy.ndimage import gaussian_filter
from skimage import data

import selfinv
from selfinv.large import apply
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
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        model.apply(frame(1.5, 0.003, seed=1)[::-1])
        model.apply(frame(1.5, 0.004, seed=1), device="auto")


def test_what_is_not_finite_is_missing(model):
    image = frame(1.5, 0.003, seed=1)
    holes = np.random.default_rng(0).random(image.shape) < 0.02
    by_each = [model.apply(np.where(holes, value, image), mask_nan=True) for value in (np.nan, np.inf)]
    assert np.array_equal(*by_each)


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
