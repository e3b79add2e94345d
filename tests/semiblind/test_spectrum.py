"""The fit sees the PSF in the spectrum, and not the image's units, holes or own direction."""

import numpy as np
import pytest
from scenes import aberrated, blurred, family, leaves, microscope, seen_through

from selfinv.semiblind import fit_psf
from selfinv.semiblind.spectrum import Spectrum


def test_neither_units_nor_offset_matter():
    image, _ = blurred(microscope(3.0))
    fitted, other = (fit_psf(i, family(3.4), guard=False) for i in (image, 500 + 1e4 * image))
    assert other.values[0] == pytest.approx(fitted.values[0], rel=1e-3)


def test_missing_values_and_a_stack_of_planes():
    image, _ = blurred(microscope(3.0))
    holes = np.where(np.random.default_rng(3).random(image.shape) < 0.05, np.nan, image)
    one = fit_psf(holes, family(3.5), mask_nan=True, guard=False)
    assert one.values[0] == pytest.approx(3.0, rel=0.06)
    second, _ = blurred(microscope(3.0), scene=leaves(224, seed=7), seed=8)
    both = fit_psf(np.stack([image, second]), family(3.5), axes="tyx", guard=False)
    assert both.values[0] == pytest.approx(3.0, rel=0.06)


def test_blank_planes_of_less_noise_change_nothing():
    """As many more waves were counted as there were planes, so that no spectrum was smooth enough."""
    image, _ = blurred(microscope(3.0))
    rng = np.random.default_rng(0)
    series = np.stack([image, *(1e-4 * image.std() * rng.normal(size=(12, *image.shape)))])
    alone = fit_psf(image, family(3.5), guard=False)
    beside = fit_psf(series, family(3.5), axes="tyx", guard=False)
    assert beside.identifiable == alone.identifiable == (True,)
    assert beside.values[0] == pytest.approx(alone.values[0], rel=1e-3)
    assert beside.errors[0] == pytest.approx(alone.errors[0], rel=0.01)


def test_of_many_planes_alike_each_counts():
    planes = np.random.default_rng(0).normal(size=(16, 1, 64, 64))
    one, all_of_them = Spectrum(planes[:1]), Spectrum(planes)
    assert all_of_them.count.sum() == pytest.approx(16 * one.count.sum(), rel=0.02)


def test_an_objects_own_direction_is_not_taken_for_astigmatism():
    stretched = leaves(448)[::2, :224]  # twice as wide as high
    image = seen_through(stretched, defocus=0.3)
    fitted = fit_psf(image, aberrated({"defocus": 0.3}, ("astigmatism",), spread=0.2), guard=False)
    assert abs(fitted.values[0]) < 0.04


def test_an_object_unlike_what_the_fit_assumes_is_said_to_be():
    size = 224
    frequency = np.hypot(np.fft.fftfreq(size)[:, None], np.fft.fftfreq(size))
    octaves = np.log(np.maximum(frequency, 1 / size) / 0.06)  # power is made of waves of some 16 samples
    waves = np.fft.fft2(np.random.default_rng(4).normal(size=(size, size))) * np.exp(-0.7 * octaves**2)
    image, _ = blurred(microscope(3.0), sigma=0.01, scene=np.fft.ifft2(waves).real)
    fitted = fit_psf(image, family(3.3), guard=False)
    assert fitted.values == (3.3,)
    assert "not of the kind" in fitted.explain()
