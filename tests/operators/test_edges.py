"""What lies outside the image is read off the image, and said to be unknown when in doubt."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from skimage import data

from selfinv import noise
from selfinv.operators import Convolution, choose_boundary
from selfinv.psf import gaussian

PSF = torch.from_numpy(gaussian((3.0, 3.0), (17, 17)))
NAMES = ["camera", "coins", "moon", "brick", "grass"]


def blurred(name, boundary, seed=0):
    image = torch.from_numpy(noise.normalise_minmax(getattr(data, name)()[:320, :320])).double()
    if boundary == "unknown":  # the scene goes on beyond the frame
        image = Convolution(PSF, [n - k + 1 for n, k in zip(image.shape, PSF.shape, strict=True)], "unknown")(
            image
        )
    else:
        image = Convolution(PSF, image.shape, boundary)(image)
    return torch.from_numpy(noise.NoiseModel().apply(image.numpy(), seed))[None, None]


@pytest.mark.parametrize("name", NAMES)
def test_a_simulation_with_nothing_outside_is_recognised(name):
    assert choose_boundary(blurred(name, "zero"), PSF) == "zero"


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("boundary", ["unknown", "reflect", "periodic"])
def test_a_scene_that_goes_on_is_never_taken_to_end(name, boundary):
    for seed in range(3):
        assert choose_boundary(blurred(name, boundary, seed), PSF) == "unknown"


def test_darkness_an_offset_and_small_images_leave_it_unknown():
    rng = np.random.default_rng(0)
    dark = torch.from_numpy(np.abs(rng.normal(size=(1, 1, 128, 128))))
    dark[..., 50:70, 50:70] += 100
    assert choose_boundary(dark, PSF) == "unknown"
    assert choose_boundary(dark + 200, PSF) == "unknown"
    assert choose_boundary(dark[..., :20, :20], PSF) == "unknown"


def test_missing_values_do_not_disturb():
    y = blurred("coins", "zero")
    y[..., 100:120, 3:40] = float("nan")
    assert choose_boundary(y, PSF) == "zero"
