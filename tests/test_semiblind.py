"""A PSF known up to its width or defocus: found where the image tells it, kept as told where it does not."""

import warnings

import numpy as np
import pytest
from scipy.signal import fftconvolve
from typer.testing import CliRunner

import selfinv
from selfinv import io, psf
from selfinv.cli import app
from selfinv.semiblind import PSFFamily, fit_psf, gaussian_family, gibson_lanni_family, zernike_family
from selfinv.types import InputError, SelfinvWarning

OPTICS = psf.Objective(na=0.8, wavelength=0.6, ni=1.33)
SHAPE = (17, 17)
PIXEL = 0.406


def leaves(size, seed=0):
    """Discs of all sizes, each hiding what lies below: edges, and the spectrum of scenes."""
    rng = np.random.default_rng(seed)
    image = np.zeros((size, size))
    y, x = np.mgrid[:size, :size]
    for radius in np.sort(2 / np.sqrt(rng.uniform((4 / size) ** 2, 1, 900)))[::-1]:
        centre = rng.uniform(0, size, 2)
        image[(y - centre[0]) ** 2 + (x - centre[1]) ** 2 < radius**2] = rng.uniform()
    return image


SCENE = leaves(224)


def blurred(kernel, sigma=0.05, scene=SCENE, seed=1):
    """The inside of a blurred scene, and the truth there."""
    inner = (slice(16, -16),) * 2
    image = fftconvolve(scene, kernel, mode="same")[inner]
    return image + sigma * np.random.default_rng(seed).normal(size=image.shape), scene[inner]


def microscope(defocus):
    return psf.gibson_lanni(SHAPE, OPTICS, pixel_size=PIXEL, defocus=defocus)


def restore(image, kernel):
    return selfinv.restore(image, kernel, method="wiener", weight=1.0, boundary="unknown")


def family(defocus, **options):
    return gibson_lanni_family(SHAPE, OPTICS, pixel_size=PIXEL, defocus=defocus, **options)


def aberrated(told, fit, **options):
    return zernike_family((25, 25), OPTICS, told, pixel_size=0.3, fit=fit, **options)


def seen_through(scene=SCENE, **terms):
    return blurred(psf.zernike((25, 25), OPTICS, terms, pixel_size=0.3), scene=scene)[0]


# ---- found ----


@pytest.mark.parametrize("told", [1.6, 2.4])
def test_a_gaussians_width_lies_in_its_interval_and_nearer_than_told(told):
    image, _ = blurred(psf.gaussian(2.0, (21, 21)))
    fitted = fit_psf(image, gaussian_family(told, (21, 21)), guard=False)
    low, high = fitted.intervals[0]
    assert fitted.identifiable == (True,)
    assert low < 2.0 < high
    assert abs(fitted.values[0] - 2.0) < 0.5 * abs(told - 2.0)
    assert fitted.psf.sum() == pytest.approx(1.0)
    assert "sigma: fitted" in fitted.explain()


@pytest.mark.parametrize("told", [2.6, 3.5, -3.5])
def test_a_defocus_is_found_and_its_sign_is_the_told_ones(told):
    image, _ = blurred(microscope(3.0))
    fitted = fit_psf(image, family(told), guard=False)
    assert fitted.identifiable == (True,)
    assert fitted.values[0] == pytest.approx(np.sign(told) * 3.0, rel=0.06)


def test_neither_units_nor_offset_matter():
    image, _ = blurred(microscope(3.0))
    fitted, other = (fit_psf(i, family(3.4), guard=False) for i in (image, 500 + 1e4 * image))
    assert other.values[0] == pytest.approx(fitted.values[0], rel=1e-3)


def test_of_two_parameters_that_trade_off_the_one_not_told_stays():
    image, _ = blurred(microscope(3.0), sigma=0.02)
    fitted = fit_psf(image, family(3.3, fit=("defocus", "na"), spread=1.3), guard=False)
    assert fitted.names == ("defocus", "na")
    assert not all(fitted.identifiable)  # less defocus is like less aperture
    for value, told, good in zip(fitted.values, fitted.told, fitted.identifiable, strict=True):
        assert good != (value == told)
    widths = [
        np.sum(k * np.add.outer(*[(np.arange(17) - 8.0) ** 2] * 2)) for k in (fitted.psf, microscope(3.0))
    ]
    assert widths[0] == pytest.approx(widths[1], rel=0.1)


def test_the_restoration_recovers_more_than_half_of_what_a_wrong_psf_costs():
    image, truth = blurred(microscope(3.0))

    def error(kernel):
        return np.mean((restore(image, kernel).image - truth) ** 2)

    made = family(3.6)
    right, wrong = error(microscope(3.0)), error(microscope(3.6))
    result = restore(image, made)
    assert np.mean((result.image - truth) ** 2) < wrong - 0.5 * (wrong - right)
    found = result.stats["psf"]["defocus"]
    assert found["identifiable"]
    assert found["told"] == 3.6


def test_missing_values_and_a_stack_of_planes():
    image, _ = blurred(microscope(3.0))
    holes = np.where(np.random.default_rng(3).random(image.shape) < 0.05, np.nan, image)
    one = fit_psf(holes, family(3.5), mask_nan=True, guard=False)
    assert one.values[0] == pytest.approx(3.0, rel=0.06)
    second, _ = blurred(microscope(3.0), scene=leaves(224, seed=7), seed=8)
    both = fit_psf(np.stack([image, second]), family(3.5), axes="tyx", guard=False)
    assert both.values[0] == pytest.approx(3.0, rel=0.06)


@pytest.mark.parametrize(
    ("terms", "told"),
    [
        ({"spherical": 0.2}, {"spherical": 0.14}),
        ({"spherical": -0.2}, {"spherical": -0.26}),
        ({"oblique_astigmatism": 0.2}, {"oblique_astigmatism": 0.26}),
        (
            {"astigmatism": 0.15, "oblique_astigmatism": 0.1},
            {"astigmatism": 0.105, "oblique_astigmatism": 0.07},
        ),
    ],
)
def test_zernike_terms_are_found_nearer_than_told(terms, told):
    held = {"coma_y": 0.05}
    image = seen_through(**terms, **held)
    fitted = fit_psf(image, aberrated(told | held, tuple(told)), guard=False)
    assert all(fitted.identifiable)
    for name, value, first in zip(fitted.names, fitted.values, fitted.told, strict=True):
        assert abs(value - terms[name]) < 0.6 * abs(first - terms[name])


@pytest.mark.parametrize("term", ["astigmatism", "oblique_astigmatism"])
@pytest.mark.parametrize("waves", [0.12, -0.12])
def test_out_of_focus_the_sign_of_an_astigmatism_told_to_be_0_is_found(term, waves):
    image = seen_through(defocus=0.3, **{term: waves})
    fitted = fit_psf(image, aberrated({"defocus": 0.3}, (term,), spread=0.2), guard=False)
    assert fitted.identifiable == (True,)
    assert fitted.values[0] == pytest.approx(waves, abs=0.04)


def test_an_objects_own_direction_is_not_taken_for_astigmatism():
    stretched = leaves(448)[::2, :224]  # twice as wide as high
    image = seen_through(stretched, defocus=0.3)
    fitted = fit_psf(image, aberrated({"defocus": 0.3}, ("astigmatism",), spread=0.2), guard=False)
    assert abs(fitted.values[0]) < 0.04


# ---- not told ----


@pytest.mark.parametrize("which", ["noise", "flat field", "small"])
def test_what_the_image_does_not_tell_is_kept_and_said(which):
    rng = np.random.default_rng(5)
    image = {
        "noise": rng.normal(size=(128, 128)),
        "flat field": rng.poisson(np.broadcast_to(100 + np.linspace(0, 5, 128), (128, 128))),
        "small": blurred(psf.gaussian(2.0, (21, 21)))[0][:40, :40],
    }[which]
    fitted = fit_psf(image, gaussian_family(2.4, (21, 21)))
    assert fitted.identifiable == (False,)
    assert fitted.kept
    assert fitted.values == (2.4,)
    np.testing.assert_allclose(fitted.psf, psf.gaussian(2.4, (21, 21)), atol=1e-12)
    assert "not identifiable" in fitted.explain()


def test_a_restoration_warns_of_what_is_kept():
    noise = 10 + np.random.default_rng(5).normal(size=(64, 64))
    with pytest.warns(SelfinvWarning, match="not identifiable"):
        result = selfinv.restore(noise, gaussian_family(2.4, (21, 21)), method="richardson-lucy", max_steps=2)
    assert result.stats["psf"]["sigma"]["value"] == 2.4


def test_a_value_beyond_the_range_is_not_taken_for_its_end():
    image, _ = blurred(psf.gaussian(2.0, (21, 21)))
    fitted = fit_psf(image, gaussian_family(4.0, (21, 21), spread=1.4), guard=False)
    assert fitted.identifiable == (False,)
    assert "end of the range" in fitted.explain()


def test_an_object_unlike_what_the_fit_assumes_is_said_to_be():
    size = 224
    frequency = np.hypot(np.fft.fftfreq(size)[:, None], np.fft.fftfreq(size))
    octaves = np.log(np.maximum(frequency, 1 / size) / 0.06)  # power is made of waves of some 16 samples
    waves = np.fft.fft2(np.random.default_rng(4).normal(size=(size, size))) * np.exp(-0.7 * octaves**2)
    image, _ = blurred(microscope(3.0), sigma=0.01, scene=np.fft.ifft2(waves).real)
    fitted = fit_psf(image, family(3.3), guard=False)
    assert fitted.values == (3.3,)
    assert "not of the kind" in fitted.explain()


def test_a_halo_of_defocus_and_spherical_aberration_is_said_to_be_like_the_objects_own_softness():
    told = {"defocus": 0.39, "spherical": 0.13}
    fitted = fit_psf(seen_through(defocus=0.3, spherical=0.1), aberrated(told, tuple(told)), guard=False)
    assert fitted.kept
    assert fitted.values == (0.39, 0.13)
    assert fitted.explain().count("not identifiable") == 2


@pytest.mark.parametrize(
    ("told", "fit", "lower", "upper"),
    [
        # The sign of all even terms is the told one of the largest, in case all could be negated.
        ({"astigmatism": 0.1}, ("astigmatism",), (0.0,), (0.25,)),
        ({"astigmatism": -0.1}, ("astigmatism",), (-0.25,), (0.0,)),
        ({"spherical": -0.1}, ("defocus", "spherical"), (-0.15, -0.25), (0.15, 0.0)),
        ({}, ("defocus", "spherical"), (0.0, -0.15), (0.15, 0.15)),
        ({"coma_x": 0.05, "defocus": 0.3}, ("coma_x",), (0.0,), (0.2,)),
        ({"astigmatism": 0.3}, ("defocus", "astigmatism"), (-0.15, 0.15), (0.15, 0.45)),
        # Something else tells it.
        ({"defocus": 0.3}, ("astigmatism",), (-0.15,), (0.15,)),
        ({"trefoil_x": 0.2}, ("coma_y",), (-0.15,), (0.15,)),
    ],
)
def test_no_range_holds_two_psfs_of_one_power_spectrum(told, fit, lower, upper):
    made = aberrated(told, fit)
    assert made.lower == pytest.approx(lower)
    assert made.upper == pytest.approx(upper)


@pytest.mark.parametrize(
    ("told", "fit"),
    [
        ({"defocus": -0.2}, ("defocus", "spherical")),
        ({"astigmatism": 0.0}, ("defocus",)),
        ({"astigmatism": -0.2}, ("astigmatism",)),
        ({"coma_y": 0.1}, ("spherical",)),
        ({}, ("trefoil_x",)),
    ],
)
def test_sectors_are_for_psfs_that_are_not_the_same_all_around(told, fit):
    made = aberrated(told, fit)
    turned = [(0, 5), (3, 4), (4, 3), (5, 0), (4, -3), (3, -4)]  # five pixels from the centre
    around = [[made.at(values)[12 + y, 12 + x] for y, x in turned] for values in (made.lower, made.upper)]
    assert made.directional == (np.ptp(around, axis=1).max() > 1e-6)


def test_a_defocus_in_micrometres_or_a_wrong_cover_slip_tells_the_sign():
    assert aberrated({"spherical": 0.1}, ("spherical",), defocus=2.0).lower[0] < 0
    thick = psf.Objective(na=0.8, wavelength=0.6, ni=1.33, tg=200.0, tg0=170.0)
    made = zernike_family((25, 25), thick, {}, pixel_size=0.3, fit=("spherical",))
    assert made.lower[0] < 0


def test_held_out_values_veto_a_worse_psf(monkeypatch):
    from selfinv import semiblind
    from selfinv.selection import Difference

    image, _ = blurred(microscope(3.0))
    monkeypatch.setattr(semiblind, "_guard", lambda *_: Difference(1.0, 0.1))
    fitted = fit_psf(image, family(3.5))
    assert fitted.kept
    assert fitted.values == (3.5,)
    assert "significantly worse" in fitted.explain()


def test_the_guard_knows_a_psf_that_is_far_too_wide():
    from selfinv.semiblind import _guard

    image, _ = blurred(microscope(3.0))
    compared = _guard(image[None, None], microscope(3.0), microscope(4.5), 0)
    assert compared.mean > 0
    assert compared.significant


# ---- mistakes ----


def test_mistakes_are_told_in_one_line():
    image, _ = blurred(microscope(3.0))
    for mistake, words in [
        (lambda: fit_psf(image, psf.gaussian(1.0, (7, 7))), "pass a PSFFamily"),
        (lambda: fit_psf(np.ones((64, 64)), gaussian_family(2.0)), "constant"),
        (lambda: fit_psf(np.zeros((9, 64, 64)), gaussian_family(2.0), axes="zyx"), "planes"),
        (lambda: fit_psf(np.full((64, 64), np.nan), gaussian_family(2.0)), "NaN"),
        (lambda: gaussian_family(0.0), "positive"),
        (lambda: gaussian_family(2.0, spread=1.0), "above 1"),
        (lambda: family(0.0), "defocus=0"),
        (lambda: family(3.0, fit=("tilt",)), "'defocus', 'na'"),
        (lambda: aberrated({}, ()), "one to 3 Zernike terms"),
        (lambda: aberrated({}, ("defocus", 4)), "one to 3|twice"),
        (lambda: aberrated({}, (4, 5, 6, 11)), "one to 3 Zernike terms"),
        (lambda: aberrated({}, ("tilt_x",)), "displaces"),
        (lambda: aberrated({}, ("defocos",)), "no Zernike term 'defocos'"),
        (lambda: aberrated({}, ("defocus",), spread=0.0), "spread=0.0 must be a positive"),
        (lambda: PSFFamily(lambda: 0, (), (), (), ()), "1 to 3"),
        (lambda: PSFFamily(lambda a: a, ("a",), (3.0,), (1.0,), (2.0,)), "between"),
        (lambda: PSFFamily(lambda a: a, ("a",), (3.0,), (1.0, 1.0), (4.0,)), "as many"),
        (lambda: fit_psf(image, PSFFamily(lambda a: [a], ("a",), (2.0,), (1.0,), (3.0,))), "axes"),
        (lambda: selfinv.restore(image, family(3.0), operator=lambda x: x), "one of them"),
    ]:
        with pytest.raises(InputError, match=words) as caught:
            mistake()
        assert "\n" not in str(caught.value)


# ---- the shell ----


def test_from_the_shell_the_fitted_psf_is_a_file(tmp_path):
    image, _ = blurred(psf.gaussian(2.0, (21, 21)))
    io.write(tmp_path / "noisy.tif", io.Image(image.astype(np.float32), "yx"))
    command = ["psf", "fit", str(tmp_path / "noisy.tif"), "-o", str(tmp_path / "psf.tif")]
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        done = CliRunner().invoke(app, [*command, "--sigma", "2.4", "--shape", "21,21"])
    assert done.exit_code == 0, done.output
    kernel = io.read(tmp_path / "psf.tif").data
    assert kernel.shape == (21, 21)
    assert kernel.max() > psf.gaussian(2.3, (21, 21)).max()
    assert isinstance(CliRunner().invoke(app, command).exception, InputError)  # no --sigma


def test_from_the_shell_zernike_terms_are_fitted(tmp_path):
    image = seen_through(oblique_astigmatism=0.2)
    io.write(tmp_path / "noisy.tif", io.Image(image.astype(np.float32), "yx", {"y": 0.3, "x": 0.3}))
    optics = ["--na", "0.8", "--wavelength", "0.6"]
    command = ["psf", "fit", str(tmp_path / "noisy.tif"), "-o", str(tmp_path / "psf.tif"), *optics]
    zernike = [*command, "--family", "zernike"]
    term = "oblique_astigmatism"
    done = CliRunner().invoke(app, [*zernike, "--terms", f"{term}=0.26", "--fit", term])
    assert done.exit_code == 0, done.output
    found = io.read(tmp_path / "psf.tif")
    assert found.voxel_size == pytest.approx({"y": 0.3, "x": 0.3})
    right, told = (psf.zernike((25, 25), OPTICS, {term: waves}, pixel_size=0.3) for waves in (0.2, 0.26))
    assert np.abs(found.data - right).max() < 0.5 * np.abs(told - right).max()

    made = [
        "psf",
        "zernike",
        *optics,
        "--pixel-size",
        "0.3",
        "--shape",
        "25,25",
        "-o",
        str(tmp_path / "z.tif"),
    ]
    done = CliRunner().invoke(app, [*made, "--terms", f"{term}=0.2"])
    assert done.exit_code == 0, done.output
    np.testing.assert_allclose(io.read(tmp_path / "z.tif").data, right, rtol=1e-5, atol=1e-9)

    for wrong in ([*zernike], [*zernike, "--terms", "defocus"], [*made, "--terms", "a=1"]):
        assert isinstance(CliRunner().invoke(app, wrong).exception, InputError)
    for family, option in (
        ("zernike", "--sigma=2"),
        ("gibson-lanni", "--terms=a=1"),
        ("gaussian", "--fit=na"),
    ):
        error = CliRunner().invoke(app, [*command[:5], "--family", family, option]).exception
        assert isinstance(error, InputError)
        assert f"{option.split('=')[0]} says nothing of --family {family}" in str(error)
