"""Sharper copies of a measurement: what they are, where there are none, and that they only help."""

import pickle

import numpy as np
import pytest
import torch

from selfinv import noise
from selfinv.learning.inverse_filters import STRENGTHS, InverseFilters
from selfinv.operators import Convolution, Downsample, Identity, Mask, MixedConvolution
from selfinv.psf import gaussian

SHAPE = (40, 44)
PSF = torch.from_numpy(gaussian(1.5, (9, 9)))
CROOKED = torch.zeros(7, 7, dtype=torch.float64)
CROOKED[3, 1:6] = torch.tensor([0.1, 0.2, 0.4, 0.2, 0.1])
CROOKED[1:4, 5] = 0.3


def blurred(psf, shape=SHAPE):
    """A blurred random scene that repeats, and the scene."""
    scene = np.random.default_rng(0).standard_normal(shape).cumsum(0).cumsum(1) / 20
    x = torch.from_numpy(scene - scene.mean())
    return Convolution(psf, shape, "periodic")(x), x


@pytest.mark.parametrize("psf", [PSF, CROOKED], ids=["gaussian", "crooked"])
def test_they_are_regularised_inverses_up_to_a_factor(psf):
    filters = InverseFilters.of(Convolution(psf, SHAPE))
    n = 512
    wide = np.zeros((n, n))
    wide[: psf.shape[0], : psf.shape[1]] = psf / psf.sum()
    transfer = np.fft.fft2(np.roll(wide, [-(k // 2) for k in psf.shape], (0, 1)))
    for kernel, strength in zip(filters.kernels[:, 0].double().numpy(), STRENGTHS, strict=True):
        exact = np.fft.ifft2(np.conj(transfer) / (np.abs(transfer) ** 2 + strength)).real
        middle = [n // 2 for n in kernel.shape]
        inner = kernel[middle[0] - 2 : middle[0] + 3, middle[1] - 2 : middle[1] + 3]
        exact = np.roll(exact, (2, 2), (0, 1))[:5, :5]
        factor = (inner * exact).sum() / (exact**2).sum()
        np.testing.assert_allclose(inner, factor * exact, atol=0.03 * np.abs(inner).max())
        assert np.linalg.norm(kernel) == pytest.approx(1.0, rel=1e-5)  # noise keeps its size


@pytest.mark.parametrize("psf", [PSF, CROOKED], ids=["gaussian", "crooked"])
def test_without_noise_a_copy_is_nearer_to_the_scene_than_the_measurement_is(psf):
    y, x = blurred(psf)
    copies = InverseFilters.of(Convolution(psf, SHAPE))(y[None, None].float())[0].double()
    scene = x[8:-8, 8:-8].flatten() - x[8:-8, 8:-8].mean()

    def missed(image):
        """The share of the scene's variance that a multiple of the image, and a constant, leave."""
        image = image[8:-8, 8:-8].flatten() - image[8:-8, 8:-8].mean()
        return float(1 - (image @ scene) ** 2 / (image @ image) / (scene @ scene))

    assert min(missed(copy) for copy in copies) < 0.7 * missed(y)


def test_each_channel_is_filtered_by_the_inverse_of_its_own_psf():
    psfs = torch.stack([PSF, torch.from_numpy(gaussian(2.5, (9, 9)))])
    y = torch.rand(2, 2, *SHAPE, generator=torch.Generator().manual_seed(0))
    both = InverseFilters.of(Convolution(psfs, SHAPE))(y)
    assert both.shape == (2, 2 * len(STRENGTHS), *SHAPE)
    for channel in (0, 1):
        alone = InverseFilters.of(Convolution(psfs[channel], SHAPE))
        torch.testing.assert_close(
            both[:, channel::2][..., 20, 20],
            alone(y[:, channel : channel + 1])[..., 20, 20],
            rtol=1e-2,
            atol=1e-2,
        )


def test_bad_pixels_gain_and_a_blur_that_varies_do_not_matter():
    A = Convolution(PSF, SHAPE)
    kernels = InverseFilters.of(A).kernels
    mask = Mask(torch.rand(SHAPE, generator=torch.Generator().manual_seed(0)) < 0.9)
    mixed = MixedConvolution(torch.stack([PSF, PSF]), SHAPE, positions=[[0, 0], [0, 40]])
    for same in (mask @ A, 3.0 * A, Convolution(5.0 * PSF, SHAPE), mixed):
        torch.testing.assert_close(InverseFilters.of(same).kernels, kernels)


def test_there_are_none_where_there_is_no_blur_or_none_to_undo():
    point = torch.zeros(9, 9)
    point[4, 4] = 1.0
    difference = torch.tensor([[1.0, 1, 1, -1, -1, -1]])
    for operator in (
        Identity(SHAPE),
        Convolution(point, SHAPE),
        Convolution(difference, SHAPE),
        Downsample(SHAPE, 2),
        Convolution(torch.stack([PSF, PSF])[:, None], SHAPE),  # one for each frame
        lambda x: x,
    ):
        assert InverseFilters.of(operator) is None


def test_they_work_on_lines_and_volumes_thinner_than_they_reach():
    for shape, psf in (((50,), gaussian(2.0, (11,))), ((4, 20, 20), gaussian((2.0, 1.5, 1.5), (9, 9, 9)))):
        filters = InverseFilters.of(Convolution(torch.from_numpy(psf), shape))
        y = noise.gaussian(np.ones((1, 1, *shape)), 0.1, seed=0)
        copies = filters(torch.from_numpy(y).float())
        assert copies.shape == (1, filters.count, *shape)
        assert bool(torch.isfinite(copies).all())


def test_what_is_sent_to_a_worker_is_small():
    filters = InverseFilters.of(Convolution(PSF, SHAPE))
    y = torch.rand(1, 1, 300, 300, generator=torch.Generator().manual_seed(0))
    expected = filters(y)
    sent = pickle.dumps(filters)
    assert len(sent) < 50_000
    assert torch.equal(pickle.loads(sent)(y), expected)
