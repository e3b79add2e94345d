"""Checkerboards are found; honest detail is not taken for one."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from skimage import data

from selfinv.learning.artefacts import checkerboard_energy, has_checkerboard


def tensor(image):
    image = np.asarray(image, dtype=np.float64)
    return torch.from_numpy((image - image.min()) / (image.max() - image.min()))[None, None]


@pytest.mark.parametrize("name", ["camera", "coins", "page", "text", "moon", "grass", "brick"])
def test_honest_images_are_far_from_the_limit(name):
    assert checkerboard_energy(tensor(getattr(data, name)())) < 15


@pytest.mark.parametrize("period", [2, 4])
@pytest.mark.parametrize("name", ["camera", "coins"])
def test_a_faint_checkerboard_is_found(period, name):
    image = tensor(getattr(data, name)())
    rows, columns = np.indices(image.shape[2:])
    pattern = np.where((rows // (period // 2) + columns // (period // 2)) % 2, 1.0, -1.0)
    assert has_checkerboard(image + 0.02 * torch.from_numpy(pattern), image)
    stripes = np.where((columns // (period // 2)) % 2, 1.0, -1.0)
    assert has_checkerboard(image + 0.02 * torch.from_numpy(stripes), image)


def test_noise_smooth_and_small_images_are_no_checkerboards():
    noise = torch.randn(1, 1, 64, 64, generator=torch.Generator().manual_seed(0))
    assert not has_checkerboard(noise, noise)
    assert not has_checkerboard(torch.linspace(0, 1, 64 * 64).reshape(1, 1, 64, 64), noise)
    assert not has_checkerboard(torch.zeros(1, 1, 64, 64), noise)
    assert not has_checkerboard(noise[..., :8, :8], noise)
    volume = torch.randn(1, 1, 24, 24, 24, generator=torch.Generator().manual_seed(0))
    assert not has_checkerboard(volume, volume)
    board = torch.from_numpy(np.indices((24, 24, 24)).sum(axis=0) % 2).float()
    assert has_checkerboard(volume + 3 * board, volume)


def test_a_pattern_that_was_measured_is_not_an_artefact():
    board = torch.from_numpy(np.indices((64, 64)).sum(axis=0) % 2).double()[None, None]
    noisy = board + 0.1 * torch.randn(board.shape, generator=torch.Generator().manual_seed(0))
    assert checkerboard_energy(board + tensor(data.coins()[:64, :64])) > 50
    assert not has_checkerboard(board, noisy)
