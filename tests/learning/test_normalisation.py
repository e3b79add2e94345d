"""Units: there and back, unmoved by hot pixels."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from selfinv.learning.normalisation import Normalisation
from selfinv.types import InputError


def test_the_range_is_the_images_own_without_its_hot_pixels():
    rng = np.random.default_rng(0)
    image = (
        200 + 1000 * np.add.outer(np.linspace(0, 1, 64), np.linspace(0, 1, 64)) + rng.normal(size=(64, 64))
    )
    image[10, 10], image[30, 40] = 60_000, -5_000
    y = torch.from_numpy(image)[None, None]
    normalisation = Normalisation.of(y)
    assert normalisation.offset == pytest.approx(200, abs=40)
    assert normalisation.offset + normalisation.scale == pytest.approx(2200, abs=60)
    assert torch.allclose(normalisation.undo(normalisation.apply(y)), y)


def test_missing_values_do_not_matter():
    y = torch.linspace(0, 1, 400, dtype=torch.float64).reshape(1, 1, 20, 20)
    holes = y.clone()
    holes[..., 5:8, 5:8] = float("nan")
    assert Normalisation.of(holes).scale == pytest.approx(Normalisation.of(y).scale, rel=0.05)


def test_a_constant_image_is_refused_in_words():
    with pytest.raises(InputError, match=r"constant \(every value is 7\)"):
        Normalisation.of(torch.full((1, 1, 16, 16), 7.0))


def test_one_bright_pixel_alone_still_has_a_range():
    y = torch.zeros(1, 1, 16, 16)
    y[..., 8, 8] = 5
    assert Normalisation.of(y).scale == 5
