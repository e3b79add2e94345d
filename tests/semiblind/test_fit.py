"""A PSF known up to its width or defocus: found where the image tells it, kept as told where it does not."""

import re
import warnings

import numpy as np
import pytest
from scenes import OPTICS, aberrated, blurred, family, microscope, seen_through
from scipy.ndimage import gaussian_filter
from scipy.signal import fftconvolve
from typer.testing import CliRunner

import selfinv
from selfinv import io, psf
from selfinv.cli import app
from selfinv.semiblind import PSFFamily, fit_psf, gaussian_family, scaled_family
from selfinv.semiblind.families import POINTS
from selfinv.semiblind.fit import fit_spectrum
from selfinv.types import InputError, SelfinvWarning


def restore(image, kernel):
    return selfinv.restore(image, kernel, method="wiener", weight=1.0, boundary="unknown")


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


def test_hot_pixels_do_not_hide_the_width():
    image, _ = blurred(psf.gaussian(2.0, (21, 21)))
    widths = gaussian_family(2.4, (21, 21))
    clean = fit_psf(image, widths, guard=False)
    image[[30, 70, 150], [100, 40, 90]] += 10 * np.ptp(image)
    fitted = fit_psf(image, widths, guard=False)
    assert fitted.identifiable == (True,)
    assert fitted.intervals[0] == pytest.approx(clean.intervals[0], rel=0.02)


@pytest.mark.parametrize("sigmas", [(1.2, 3.0), (3.0, 1.2), (2.0, 2.0)])
def test_channels_that_are_not_equally_sharp_are_told_of_in_any_order(sigmas):
    """The sharper one's width was taken for both, or the told one, as the order was."""
    image = np.stack([blurred(psf.gaussian(sigma, (21, 21)))[0] for sigma in sigmas])
    fitted = fit_psf(image, gaussian_family(1.9, (21, 21)), axes="cyx")
    alike = sigmas[0] == sigmas[1]
    assert fitted.identifiable == (alike,)
    assert ("channels have a sigma of their own" in fitted.reasons[0]) != alike


def test_a_first_grid_that_is_enough_knows_the_interval_to_its_step():
    image, _ = blurred(psf.gaussian(2.0, (21, 21)))
    widths = gaussian_family(2.4, (21, 21))
    fine, coarse = (
        fit_spectrum(image[None, None], widths, lambda _, e=enough: e).intervals[0]
        for enough in (False, True)
    )
    step = (widths.upper[0] / widths.lower[0]) ** (1 / (POINTS[1] - 1))
    for a, b in zip(fine, coarse, strict=True):
        assert 1 / step < a / b < step


@pytest.mark.parametrize("told", [2.6, 3.5, -3.5])
def test_a_defocus_is_found_and_its_sign_is_the_told_ones(told):
    image, _ = blurred(microscope(3.0))
    fitted = fit_psf(image, family(told), guard=False)
    assert fitted.identifiable == (True,)
    assert fitted.values[0] == pytest.approx(np.sign(told) * 3.0, rel=0.06)


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
    right = error(microscope(3.0))
    with pytest.warns(SelfinvWarning, match="too wide"):
        wrong = error(microscope(3.6))
    result = restore(image, made)
    assert np.mean((result.image - truth) ** 2) < wrong - 0.5 * (wrong - right)
    found = result.stats["psf"]["defocus"]
    assert found["identifiable"]
    assert found["told"] == 3.6


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


@pytest.mark.parametrize(("told", "end"), [(4.0, "lower"), (1.3, "upper")])
def test_a_value_beyond_the_range_is_not_taken_for_its_end(told, end):
    """Which end, and what widens the range, is told."""
    image, _ = blurred(psf.gaussian(2.0, (21, 21)))
    fitted = fit_psf(image, gaussian_family(told, (21, 21), spread=1.4), guard=False)
    assert fitted.identifiable == (False,)
    assert f"the {end} end of the range" in fitted.explain()
    assert "a larger spread (--spread) widens" in fitted.explain()


def test_a_halo_of_defocus_and_spherical_aberration_is_said_to_be_like_the_objects_own_softness():
    told = {"defocus": 0.39, "spherical": 0.13}
    fitted = fit_psf(seen_through(defocus=0.3, spherical=0.1), aberrated(told, tuple(told)), guard=False)
    assert fitted.kept
    assert fitted.values == (0.39, 0.13)
    assert fitted.explain().count("not identifiable") == 2


def test_held_out_values_veto_a_worse_psf(monkeypatch):
    from selfinv.semiblind import fit
    from selfinv.trials import Difference

    image, _ = blurred(microscope(3.0))
    monkeypatch.setattr(fit, "held_out_difference", lambda *_: Difference(1.0, 0.1))
    fitted = fit_psf(image, family(3.5))
    assert fitted.kept
    assert fitted.values == (3.5,)
    assert "significantly worse" in fitted.explain()


def test_the_guard_knows_a_psf_that_is_far_too_wide():
    from selfinv.semiblind.fit import held_out_difference

    image, _ = blurred(microscope(3.0))
    compared = held_out_difference(image[None, None], microscope(3.0), microscope(4.5), 0)
    assert compared.mean > 0
    assert compared.significant


def test_the_guard_takes_any_units_and_the_first_plane_with_something_on_it():
    from selfinv.semiblind.fit import held_out_difference

    image, _ = blurred(microscope(3.0))
    told = [microscope(3.0), microscope(4.5)]
    usual = held_out_difference(image[None, None], *told, 0)
    for scale, level in ((1e-25, 0.0), (1e25, 0.0), (1.0, 1e6)):
        found = held_out_difference((scale * (image + level))[None, None], *told, 0)
        assert found.mean == pytest.approx(usual.mean, rel=0.05)
        assert found.significant
    empty, flat = np.full_like(image, np.nan), np.ones_like(image)
    found = held_out_difference(np.stack([empty, flat, image])[:, None], *told, 0)
    assert found.mean == pytest.approx(usual.mean, rel=1e-3)
    assert not held_out_difference(empty[None, None], *told, 0).significant


def test_empty_planes_do_not_count():
    image, _ = blurred(psf.gaussian(2.0, (21, 21)))
    series = np.stack([np.full_like(image, np.nan), image])
    alone = fit_psf(image, gaussian_family(1.6, (21, 21)))
    both = fit_psf(series, gaussian_family(1.6, (21, 21)), axes="tyx", mask_nan=True)
    assert both.values == pytest.approx(alone.values)
    assert both.intervals[0] == pytest.approx(alone.intervals[0])


# ---- mistakes ----


def test_mistakes_are_told_in_one_line():
    image, _ = blurred(microscope(3.0))
    for mistake, words in [
        (lambda: fit_psf(image, psf.gaussian(1.0, (7, 7))), "pass a PSFFamily"),
        (lambda: fit_psf(np.ones((64, 64)), gaussian_family(2.0)), "constant"),
        (
            lambda: fit_psf(np.zeros((9, 64, 64)), gaussian_family(2.0), axes="zyx"),
            "'zyx' and the family's PSF 'yx'",
        ),
        (lambda: fit_psf(np.full((64, 64), np.nan), gaussian_family(2.0)), "NaN"),
        (lambda: fit_psf(1e-200 * image, gaussian_family(2.0)), "use a unit in which it lies"),
        (lambda: fit_psf(1e200 * image, gaussian_family(2.0)), "use a unit in which it lies"),
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
    quiet = CliRunner().invoke(app, [*command, "--sigma", "2.4", "-q"])
    assert "sigma: fitted" in quiet.output
    assert "fitting" not in quiet.output
    assert isinstance(CliRunner().invoke(app, command).exception, InputError)  # no --sigma


def test_from_the_shell_a_psf_of_the_right_shape_is_scaled(tmp_path):
    image, _ = blurred(microscope(3.0))
    io.write(tmp_path / "noisy.tif", io.Image(image.astype(np.float32), "yx"))
    wide = scaled_family(microscope(3.0)).at((1.25,))
    io.write(tmp_path / "told.tif", io.Image(wide.astype(np.float32), "yx"))
    command = ["psf", "fit", str(tmp_path / "noisy.tif"), "-o", str(tmp_path / "psf.tif")]
    scaled = [*command, "--family", "scaled"]
    done = CliRunner().invoke(app, [*scaled, "--psf", str(tmp_path / "told.tif")])
    assert done.exit_code == 0, done.output
    found = float(re.search(r"scale: fitted ([0-9.]+)", done.output)[1])
    assert found == pytest.approx(0.8, abs=0.04)
    assert io.read(tmp_path / "psf.tif").data.sum() == pytest.approx(1.0, abs=1e-4)
    assert isinstance(CliRunner().invoke(app, scaled).exception, InputError)  # no --psf
    other = CliRunner().invoke(app, [*command, "--sigma", "2", "--psf", str(tmp_path / "told.tif")])
    assert isinstance(other.exception, InputError)


def test_from_the_shell_a_volumes_psf_is_scaled(tmp_path):
    rng = np.random.default_rng(0)
    scene = gaussian_filter((rng.random((24, 64, 64)) < 0.01) * 1.0, 0.7) * 50
    kernel = psf.gaussian((2.0, 1.5, 1.5), (13, 9, 9))
    volume = fftconvolve(scene, kernel, mode="same") + 0.01 * rng.standard_normal(scene.shape)
    sizes = {"z": 0.3, "y": 0.1, "x": 0.1}
    io.write(tmp_path / "noisy.tif", io.Image(volume.astype(np.float32), "zyx", sizes))
    io.write(tmp_path / "told.tif", io.Image(kernel.astype(np.float32), "zyx", sizes))
    command = ["psf", "fit", str(tmp_path / "noisy.tif"), "-o", str(tmp_path / "psf.tif")]
    done = CliRunner().invoke(app, [*command, "--family", "scaled", "--psf", str(tmp_path / "told.tif")])
    assert done.exit_code == 0, done.output
    fitted = io.read(tmp_path / "psf.tif")
    assert fitted.data.ndim == 3
    assert fitted.voxel_size == pytest.approx(sizes)


def test_from_the_shell_zernike_terms_are_fitted(tmp_path):
    image = seen_through(oblique_astigmatism=0.2)
    io.write(tmp_path / "noisy.tif", io.Image(image.astype(np.float32), "yx", {"y": 0.3, "x": 0.3}))
    optics = ["--na", "0.8", "--wavelength", "0.6"]
    command = ["psf", "fit", str(tmp_path / "noisy.tif"), "-o", str(tmp_path / "psf.tif"), *optics]
    zernike = [*command, "--family", "zernike"]
    term = "oblique_astigmatism"
    done = CliRunner().invoke(app, [*zernike, "--terms", f"{term}=0.26", "--fit", term])
    assert done.exit_code == 0, done.output
    assert f"fitting {term}" in done.output
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
    for kind, option in (
        ("zernike", "--sigma=2"),
        ("gibson-lanni", "--terms=a=1"),
        ("gaussian", "--fit=na"),
    ):
        error = CliRunner().invoke(app, [*command[:5], "--family", kind, option]).exception
        assert isinstance(error, InputError)
        assert f"{option.split('=')[0]} says nothing of --family {kind}" in str(error)


# ---- volumes ----


def cloudy(psf_widths=(1.8, 1.3, 1.3), shape=(28, 72, 72), seed=0):
    """A volume with the spectrum of a cloud, seen through a Gaussian, with a little noise."""
    rng = np.random.default_rng(seed)
    wide = [n + 16 for n in shape]
    frequency = np.sqrt(sum(f**2 for f in np.meshgrid(*map(np.fft.fftfreq, wide), indexing="ij")))
    frequency[0, 0, 0] = 1.0
    cloud = np.fft.ifftn(np.fft.fftn(rng.normal(size=wide)) * frequency**-1.7).real
    seen = gaussian_filter(cloud, psf_widths)[(slice(8, -8),) * 3]
    return seen + 0.02 * np.ptp(seen) * rng.normal(size=shape)


@pytest.mark.parametrize("factor", [1.35, 1 / 1.35])
def test_the_widths_of_a_volume_are_found_nearer_than_told(factor):
    told = (1.8 * factor, 1.3 * factor)
    fitted = fit_psf(cloudy(), gaussian_family(told), guard=False)
    assert fitted.names == ("sigma_z", "sigma")
    assert fitted.identifiable == (True, True)
    assert fitted.psf.ndim == 3
    for value, right, start in zip(fitted.values, (1.8, 1.3), told, strict=True):
        assert abs(value - right) < 0.5 * abs(start - right)


def test_a_volume_larger_than_a_block_or_with_channels_tells_the_same(monkeypatch):
    volume = cloudy()
    alone = fit_psf(volume, gaussian_family((2.2, 1.6)), guard=False)
    monkeypatch.setattr("selfinv.semiblind.spectrum._BLOCK", (28, 40, 40))
    parts = fit_psf(volume, gaussian_family((2.2, 1.6)), guard=False)
    both = np.stack([volume, cloudy(seed=1)])
    channels = fit_psf(both, gaussian_family((2.2, 1.6)), axes="czyx", guard=False)
    for found in (parts, channels):
        assert found.values == pytest.approx(alone.values, rel=0.2)
        assert found.values != alone.values


def test_a_volume_of_too_few_planes_tells_nothing_and_noise_neither():
    flat = fit_psf(cloudy(shape=(10, 64, 64)), gaussian_family((2.0, 1.5)))
    assert "10 × 64 × 64 is too small (at least 16 planes of 48 a side)" in flat.reasons[0]
    noise = fit_psf(np.random.default_rng(0).normal(size=(20, 48, 48)), gaussian_family((2.0, 1.5)))
    assert flat.kept
    assert noise.kept
    assert noise.values == (2.0, 1.5)


def test_from_the_shell_a_volumes_psf_is_a_volume(tmp_path):
    io.write(tmp_path / "v.tif", io.Image(cloudy(shape=(20, 56, 56)).astype(np.float32), "zyx", {}))
    psf_file = tmp_path / "psf.tif"
    arguments = ["psf", "fit", str(tmp_path / "v.tif"), "-o", str(psf_file), "--sigma", "2.2,1.6"]
    result = CliRunner().invoke(app, arguments)
    assert result.exit_code == 0, result.output
    assert "sigma_z: fitted" in result.output
    assert "intervals tell of noise alone: what the object itself is like" in result.output
    kernel = io.read(psf_file)
    assert kernel.axes == "zyx"
    assert kernel.data.shape[0] == 19  # no more than the image has, and centred
    assert kernel.data.argmax() == kernel.data.size // 2
    assert kernel.data.sum() == pytest.approx(1.0, abs=1e-4)
    flat = CliRunner().invoke(app, [*arguments[:-1], "2.2"])
    assert "'zyx'" in str(flat.exception)
