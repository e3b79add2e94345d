"""Projections against scikit-image's and against those of a disc."""

from __future__ import annotations

import numpy as np
import pytest
import skimage.data
import skimage.transform
import torch

from selfinv.operators import Radon
from selfinv.types import InputError

ANGLES = np.array([0.0, 10, 45, 90, 133.3, 180, 250, -20])


def phantom(n):
    x = skimage.transform.resize(skimage.data.shepp_logan_phantom().astype(float), (n, n))
    y = np.arange(n) - n // 2
    return np.where(np.hypot(y, y[:, None]) <= n // 2, x, 0.0)


@pytest.mark.parametrize("n", [32, 33])
@pytest.mark.parametrize("circle", [False, True])
def test_projections_are_those_of_scikit_image(n, circle):
    x = phantom(n)
    expected = skimage.transform.radon(x, ANGLES, circle=circle).T
    ours = Radon((n, n), ANGLES, circle)(torch.from_numpy(x)).numpy()
    np.testing.assert_allclose(ours, expected, atol=1e-6 * expected.max())


@pytest.mark.parametrize("shape", [(20, 31), (31, 20)])
def test_oblong_objects_too(shape):
    x = np.random.default_rng(0).normal(size=shape)
    expected = skimage.transform.radon(x, ANGLES, circle=False).T
    ours = Radon(shape, ANGLES)(torch.from_numpy(x)).numpy()
    np.testing.assert_allclose(ours, expected, atol=1e-6 * expected.max())


def test_a_disc_has_its_chords():
    n, radius, centre = 128, 40.0, (5.0, -12.0)
    grid = (torch.arange(n * 4, dtype=torch.float64) + 0.5) / 4 - 0.5 - n // 2
    fine = ((grid[:, None] - centre[0]) ** 2 + (grid - centre[1]) ** 2 < radius**2).double()
    disc = fine.unfold(0, 4, 4).unfold(1, 4, 4).mean((-1, -2))
    y = Radon((n, n), ANGLES)(disc)
    theta = torch.from_numpy(ANGLES).deg2rad()[:, None]
    middle = centre[1] * theta.cos() - centre[0] * theta.sin()
    s = torch.arange(y.shape[1]) - y.shape[1] // 2 - middle
    chords = 2 * (radius**2 - s.square()).clamp(min=0).sqrt()
    assert float((y - chords).abs().mean()) < 0.01 * radius


@pytest.mark.parametrize("n", [32, 33])
@pytest.mark.parametrize("circle", [False, True])
def test_filtered_backprojection_is_that_of_scikit_image(n, circle):
    angles = np.linspace(0, 180, 40, endpoint=False)
    operator = Radon((n, n), angles, circle)
    y = operator(torch.from_numpy(phantom(n)))
    expected = skimage.transform.iradon(y.numpy().T, angles, output_size=n, circle=circle)
    ours = operator.filtered_backprojection(y)
    near = slice(1, None)  # the outermost corner lies off the detector: zero there, or what the filter has
    np.testing.assert_allclose(ours[near], expected[near], atol=1e-6)
    both = operator.filtered_backprojection(torch.stack([y, -y]).float())
    assert both.dtype == torch.float32
    assert torch.allclose(both[1].double(), -ours, atol=1e-5)


def test_derivatives_of_any_order_are_right():
    operator = Radon((4, 5), [20, 70])
    x = torch.randn(2, 4, 5, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(operator, x)
    assert torch.autograd.gradgradcheck(lambda x: operator(x).square(), x)
    tangent = torch.randn(2, 4, 5, dtype=torch.float64)
    _, product = torch.func.jvp(operator, (x.detach(),), (tangent,))
    assert torch.allclose(product, operator(tangent))
    assert torch.allclose(torch.vmap(operator)(x), operator(x))


def test_mistakes_are_said_in_words():
    with pytest.raises(InputError, match="projects a plane"):
        Radon((4, 5, 6), [0])
    with pytest.raises(InputError, match="expects a square"):
        Radon((4, 5), [0], circle=True)
    with pytest.raises(InputError, match="not a list of numbers"):
        Radon((4, 4), [])
    for angles in ("0,90", None, [[0], [1, 2]]):
        with pytest.raises(InputError, match=r"angles=.* is no array; expected degrees, one per projection"):
            Radon((4, 4), angles)
    with pytest.raises(InputError, match="angles has complex values"):
        Radon((4, 4), np.array([1j]))
    with pytest.raises(InputError, match="circle must be True or False, got 'no'"):
        Radon((4, 4), [0], circle="no")


def test_radians_are_doubted_and_degrees_are_not():
    y = torch.zeros(1, 1, 30, 23)
    assert "radians" in Radon((16, 16), np.linspace(0, np.pi, 30, endpoint=False)).doubts(y)[0]
    assert Radon((16, 16), np.linspace(0, 180, 30, endpoint=False)).doubts(y) == []
    assert Radon((16, 16), [0.0, 1.0, 2.0]).doubts(y[:, :, :3]) == []


@pytest.mark.parametrize("centre", [34.0, 29.5])
def test_an_axis_off_the_detectors_middle_moves_the_projections(centre):
    place = np.arange(64) - 32
    blob = np.exp(-((place[:, None] - 6.0) ** 2 + (place + 9.0) ** 2) / (2 * 3.0**2))
    y = Radon((64, 64), ANGLES, circle=True, centre=centre)(torch.from_numpy(blob)).numpy()
    theta = np.deg2rad(ANGLES)[:, None]
    s = np.arange(64) - (centre - 9.0 * np.cos(theta) - 6.0 * np.sin(theta))
    np.testing.assert_allclose(y, 3.0 * np.sqrt(2 * np.pi) * np.exp(-(s**2) / (2 * 3.0**2)), atol=0.1)


def test_with_its_axis_told_an_object_comes_back_in_its_place():
    x, angles = torch.from_numpy(phantom(64)), np.linspace(0, 180, 90, endpoint=False)
    off = [
        float((Radon((64, 64), angles, True, c).filtered_backprojection(y) - x).square().mean().sqrt())
        for y in [Radon((64, 64), angles, True, 34.5)(x)]
        for c in (34.5, None)
    ]
    assert off[0] < 0.5 * off[1]


@pytest.mark.parametrize("last", [180.0, 120.0])
@pytest.mark.parametrize("centre", [None, 29.3])
def test_the_axis_is_found_by_centres_of_mass(last, centre):
    x = torch.zeros(64, 64)
    x[20:35, 15:40], x[40:44, 30:50] = 1.0, 2.0
    angles = np.linspace(0, last, 60, endpoint=False)
    A = Radon((64, 64), angles, circle=True, centre=centre)
    noise = torch.randn(A.out_shape, generator=torch.Generator().manual_seed(0))
    y = A(x) + 0.5 * noise
    y[3, 5] = torch.nan
    found, error = A.find_centre(y)
    assert abs(found - A.centre) < 4.0 * error + 0.02
    assert error < 0.5
    assert A.doubts(y) == []
    (words,) = Radon((64, 64), angles, circle=True, centre=A.centre + 3.0).doubts(y)
    assert f"centre={found:.1f}" in words


def test_of_an_object_that_is_not_all_in_view_no_axis_is_told():
    angles = np.linspace(0, 180, 40, endpoint=False)
    A = Radon((64, 64), angles, circle=True)
    assert A.find_centre(A(torch.ones(64, 64))) is None
    assert A.find_centre(torch.full(A.out_shape, torch.nan)) is None
    assert A.find_centre(torch.zeros(A.out_shape)) is None


@pytest.mark.parametrize("centre", [-1, 64, "middle", float("nan")])
def test_a_centre_that_the_detector_does_not_see(centre):
    with pytest.raises(InputError, match="centre"):
        Radon((64, 64), [0.0], circle=True, centre=centre)


def test_offsets_of_detector_pixels_are_told_of_by_what_is_left_over():
    A = Radon((64, 64), np.linspace(0, 180, 30, endpoint=False), circle=True)
    generator = torch.Generator().manual_seed(0)
    noise = torch.randn(2, *A.out_shape, generator=generator)
    smooth = torch.linspace(-1, 1, 64).square()  # as a reconstruction misses it
    noise[0, 3, 5] = torch.nan
    for residual in (noise, noise + smooth, 1e-9 * noise):
        assert A.doubts_of_residual(residual) == []
    offsets = noise + 0.5 * torch.randn(64, generator=generator)
    offsets[0, 7, 9], offsets[1, 20, 40] = 1e3, -1e3  # hot values hide nothing
    (words,) = A.doubts_of_residual(offsets)
    assert "rings" in words
    assert Radon((64, 64), [0.0, 90.0], circle=True).doubts_of_residual(smooth.expand(2, 64)) == []


def test_what_a_reconstruction_misses_of_an_object_round_about_the_axis_is_no_offset():
    A = Radon((64, 64), np.linspace(0, 180, 60, endpoint=False), circle=True)
    y, x = torch.meshgrid([torch.arange(64.0) - 32] * 2, indexing="ij")
    disc = (torch.hypot(y, x) < 20).float()
    blurred = torch.nn.functional.avg_pool2d(disc[None, None], 3, 1, 1)[0, 0]
    noise = 0.1 * torch.randn(A.out_shape, generator=torch.Generator().manual_seed(0))
    assert A.doubts_of_residual(A(disc - blurred) + noise) == []


def test_two_directions_do_not_tell_an_axis():
    x = torch.zeros(64, 64)
    x[20:35, 15:40] = 1.0
    A = Radon((64, 64), [0.0, 90.0] * 4, circle=True)
    assert A.find_centre(A(x)) is None
