"""Beyond blur, from the shell: denoise, inpaint, superres, tomography."""

import numpy as np
import pytest
import tifffile
from scipy.ndimage import gaussian_filter
from skimage.data import camera, shepp_logan_phantom
from skimage.transform import iradon, radon, resize

import selfinv
from selfinv import __version__, cli, io, metrics, psf
from selfinv.recipe import Recipe

RNG = np.random.default_rng
TRUTH = resize(camera() / 255.0, (64, 64), anti_aliasing=True)


@pytest.fixture
def folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    tifffile.imwrite("noisy.tif", (TRUTH + RNG(0).normal(0, 0.1, TRUTH.shape)).astype("f4"))
    return tmp_path


TV = ("--method", "tv-chambolle-pock")


def run(capsys, *arguments):
    with pytest.raises(SystemExit) as ended:
        cli.main([str(a) for a in arguments])
    return ended.value.code, capsys.readouterr().err


def test_denoising_removes_noise(folder, capsys):
    code, _ = run(capsys, "denoise", "noisy.tif", "out.tif", "--steps", 60, "--method", "ssi-network", "-q")
    assert code == 0
    restored = tifffile.imread("out.tif")
    assert metrics.psnr(TRUTH, restored) > metrics.psnr(TRUTH, tifffile.imread("noisy.tif")) + 2.0


def test_inpainting_does_not_look_at_bad_pixels_and_fills_them_in(folder, capsys):
    bad = RNG(1).random(TRUTH.shape) < 0.2
    tifffile.imwrite("bad.tif", bad.astype("u1"))
    outputs = []
    for value in (0.0, 50.0):
        tifffile.imwrite("spoilt.tif", np.where(bad, value, TRUTH).astype("f4"))
        arguments = ("inpaint", "spoilt.tif", "out.tif", "--mask", "bad.tif", "--steps", 40, "-q")
        assert run(capsys, *arguments, "--method", "ssi-network")[0] == 0
        outputs.append(tifffile.imread("out.tif"))
    assert np.array_equal(*outputs)
    error = (outputs[0] - TRUTH)[bad]
    assert np.sqrt(np.mean(error**2)) < 0.6 * np.std(TRUTH[bad])


def test_what_inpainting_does_not_fill_in_is_said(folder, capsys):
    counts = RNG(0).poisson(50 * TRUTH).astype("f4")
    tifffile.imwrite("counts.tif", counts)
    tifffile.imwrite("zeros.tif", np.zeros((64, 64), "u1"))
    weighted = (*TV, "--weight", 5, "--steps", 5, "-q")
    code, told = run(capsys, "inpaint", "counts.tif", "out.tif", "--mask", "zeros.tif", *weighted)
    assert code == 0
    assert told.startswith("selfinv: warning: zeros.tif marks no pixel")
    counts[20:40, 20:40] = np.nan  # then it need not
    tifffile.imwrite("counts.tif", counts)
    code, told = run(capsys, "inpaint", "counts.tif", "out.tif", "--mask", "zeros.tif", *weighted)
    assert (code, told) == (0, "")
    options = ("--method", "richardson-lucy", "--steps", 5, "-q")
    code, told = run(capsys, "inpaint", "counts.tif", "out.tif", "--mask", "zeros.tif", *options)
    assert code == 0
    assert "no measured value depends on 400 of the object's 4096 pixels" in told


def test_inpainting_takes_nan_for_what_is_to_be_filled_in(folder, capsys):
    holes = tifffile.imread("noisy.tif")
    code, told = run(capsys, "inpaint", "noisy.tif", "out.tif", *TV, "--steps", 5, "-q")
    assert code == 2
    assert "noisy.tif has no NaN, and neither --mask nor --saturation" in told
    holes[20:24, 20:24] = np.nan
    tifffile.imwrite("holes.tif", holes)
    weighted = (*TV, "--weight", 0.05, "--steps", 20, "-q")
    assert run(capsys, "inpaint", "holes.tif", "out.tif", *weighted) == (0, "")
    assert np.isfinite(tifffile.imread("out.tif")).all()


@pytest.mark.parametrize("command", ["restore", "denoise", "superres"])
@pytest.mark.parametrize("marked", ["mask", "saturation"])
def test_bad_pixels_are_taken_as_missing(folder, capsys, command, marked):
    bad = np.zeros((64, 64), "u1")
    bad[20:26, 30:36] = 1
    tifffile.imwrite("bad.tif", bad)
    how = {"mask": ("--mask", "bad.tif"), "saturation": ("--saturation", 40)}[marked]
    outputs = []
    for value in (40.0, 90.0):
        tifffile.imwrite("spoilt.tif", np.where(bad, value, TRUTH).astype("f4"))
        told = run(capsys, command, "spoilt.tif", "out.tif", *how, *TV, "--weight", 0.05, "--steps", 20, "-q")
        assert told == (0, "")
        outputs.append(tifffile.imread("out.tif"))
    assert np.array_equal(*outputs)
    assert outputs[0].max() < 1.5


def test_a_model_does_not_look_at_bad_pixels_either(folder, capsys):
    network = ("--method", "ssi-network", "--steps", 5, "--save-model", "m.safetensors", "-q")
    assert run(capsys, "denoise", "noisy.tif", "out.tif", *network)[0] == 0
    outputs = []
    for value in (40.0, 90.0):
        spoilt = tifffile.imread("noisy.tif")
        spoilt[20:26, 30:36] = value
        tifffile.imwrite("spoilt.tif", spoilt)
        assert (
            run(capsys, "apply", "m.safetensors", "spoilt.tif", "out.tif", "--saturation", 40, "-q")[0] == 0
        )
        outputs.append(tifffile.imread("out.tif"))
    assert np.array_equal(*outputs)


def test_what_a_mask_or_a_level_cannot_mean_is_told(folder, capsys):
    image = tifffile.imread("noisy.tif")
    image[3, 4] = np.nan
    tifffile.imwrite("nan.tif", image)
    tifffile.imwrite("bad.tif", (image > 0.9).astype("u1"))
    weighted = (*TV, "--weight", 0.05, "--steps", 5, "-q")
    code, told = run(capsys, "denoise", "nan.tif", "o.tif", "--mask", "bad.tif", *weighted)
    assert code == 2
    assert "1 values that are not marked as bad are NaN or infinite; pass --mask-nan" in told
    assert run(capsys, "denoise", "nan.tif", "o.tif", "--mask", "bad.tif", "--mask-nan", *weighted) == (0, "")
    code, told = run(capsys, "denoise", "noisy.tif", "o.tif", "--saturation", 9, *weighted)
    assert code == 0
    assert "no value reaches --saturation 9 (the highest is 1." in told
    code, told = run(capsys, "denoise", "noisy.tif", "o.tif", "--saturation", 0.1, *weighted)
    assert code == 0
    assert "% of the values (the highest is 1." in told
    assert "is it where pixels saturate?" in told
    code, told = run(capsys, "denoise", "noisy.tif", "o.tif", "--saturation", -9)
    assert code == 2
    assert "--saturation -9 is reached by 100% of the image's values" in told
    code, told = run(capsys, "denoise", "noisy.tif", "o.zarr", "--saturation", 9)
    assert code == 2
    assert "--saturation is not for an OUTPUT that ends in .zarr" in told


def test_what_is_left_over_is_noise_and_can_be_written(folder, capsys):
    image = gaussian_filter(TRUTH, 1.5) + RNG(0).normal(0, 0.05, TRUTH.shape)
    image[5, 6] = np.nan
    io.write("blurred.tif", io.Image(image.astype("f4"), "yx", {"y": 0.2, "x": 0.2}))
    io.write("psf.tif", psf.gaussian(1.5, (13, 13)).astype("f4"))
    blurred = ("restore", "blurred.tif", "out.tif", "--psf", "psf.tif", "--mask-nan", "-q")
    weighted = (*TV, "--weight", 0.02)
    assert run(capsys, *blurred, *weighted, "--residual", "left.tif") == (0, "")
    left = io.read("left.tif")
    assert (left.data.dtype, left.axes, left.voxel_size["x"]) == (np.float32, "yx", pytest.approx(0.2))
    assert np.isnan(left.data[5, 6])
    assert np.isnan(left.data).sum() == 1
    assert np.nanstd(left.data) == pytest.approx(0.05, rel=0.2)
    options = {"method": TV[1], "weight": 0.02, "mask_nan": True, "spacing": (0.2, 0.2)}
    same = selfinv.restore(io.read("blurred.tif").data, io.read("psf.tif").data, **options)
    np.testing.assert_allclose(left.data, image - same.predicted, atol=1e-5)
    assert "left.tif" in Recipe.load("out.tif.recipe.yaml").wrote
    refused = {
        "out.tif": "output's own name",
        "psf.tif": "same file as the input",
        "a.png": "PNG cannot hold its values",
    }
    for wrong, words in refused.items():
        code, told = run(capsys, *blurred, *weighted, "--residual", wrong)
        assert code == 2
        assert words in told
    code, told = run(capsys, "restore", "blurred.tif", "o.zarr", "--residual", "left.tif")
    assert code == 2
    assert "--residual is not for an OUTPUT that ends in .zarr" in told


def test_superresolution_gives_a_finer_grid_and_finer_voxels(folder, capsys):
    coarse = TRUTH.reshape(32, 2, 32, 2).mean((1, 3)) + RNG(0).normal(0, 0.02, (32, 32))
    image = io.Image(np.stack([coarse, coarse]).astype("f4"), "tyx", {"y": 0.2, "x": 0.2})
    io.write("coarse.ome.tif", image)
    weighted = (*TV, "--weight", 0.05, "--steps", 5, "-q")
    third = ("superres", "third.ome.tif", "finer.ome.tif", "--factor", 3, *weighted)
    io.write("third.ome.tif", io.Image(coarse.astype("f4"), "yx", {"y": 0.3, "x": 0.3}))
    assert run(capsys, *third)[0] == 0
    assert 'PhysicalSizeX="0.1"' in tifffile.TiffFile("finer.ome.tif").ome_metadata
    arguments = ("superres", "coarse.ome.tif", "fine.ome.tif", "--method", "tv-chambolle-pock", "-q")
    code, told = run(capsys, *arguments, "--preview", "both.png")
    assert code == 0, told
    fine = io.read("fine.ome.tif")
    assert fine.data.shape == (2, 64, 64)
    assert fine.axes == "tyx"
    assert fine.voxel_size == pytest.approx({"y": 0.1, "x": 0.1})
    repeated = np.kron(coarse, np.ones((2, 2)))
    assert metrics.psnr(TRUTH, fine.data[0]) > metrics.psnr(TRUTH, repeated) + 0.5
    assert (folder / "both.png").stat().st_size > 0


def test_a_mask_that_leaves_nothing_is_named(folder, capsys):
    mask = np.ones(TRUTH.shape, np.uint8)
    mask[10, 10] = 0
    tifffile.imwrite("mask.tif", mask)
    code, told = run(capsys, "inpaint", "noisy.tif", "o.tif", "--mask", "mask.tif")
    assert code == 2
    assert "mask.tif marks 4095 of 4096 pixels" in told


def test_richardson_lucy_without_a_blur_says_that_it_repeats_pixels(folder, capsys):
    code, told = run(capsys, "superres", "noisy.tif", "o.tif", "--method", "richardson-lucy")
    assert code == 0
    assert "coarse pixels are repeated" in told


@pytest.mark.parametrize("scale", ["cdelt", "cd", "pc", "pc alone", "pc in part", "none"])
def test_what_lies_where_in_the_sky_is_still_there_in_finer_pixels(folder, capsys, scale):
    fits, wcs = pytest.importorskip("astropy.io.fits"), pytest.importorskip("astropy.wcs")
    header = fits.Header({"CTYPE1": "RA---TAN-SIP", "CTYPE2": "DEC--TAN-SIP", "CRVAL1": 10.0, "CRVAL2": 41.0})
    header.update({"CRPIX1": 20.0, "CRPIX2": 31.5, "A_ORDER": 2, "A_2_0": 1e-4, "B_ORDER": 2, "B_1_1": -2e-4})
    turned = {"1_1": -0.8, "1_2": 0.6, "2_1": 0.6, "2_2": 0.8}
    if scale == "cd":
        header.update({f"CD{place}": 7e-5 * value for place, value in turned.items()})
    elif scale == "pc alone":
        header.update({f"PC{place}": 7e-5 * value for place, value in turned.items()})
    elif scale == "pc in part":
        header.update({"CDELT1": 7e-5, "CDELT2": 7e-5, "PC1_2": 0.6, "PC2_1": 0.3})
    elif scale != "none":
        header.update({"CDELT1": 7e-5, "CDELT2": 7e-5})
        header.update({f"PC{place}": value for place, value in turned.items()} if scale == "pc" else {})
    header["HISTORY"] = "taken at night"
    fits.PrimaryHDU(TRUTH.astype("f4"), header).writeto("sky.fits")
    assert run(capsys, "superres", "sky.fits", "fine.fits", "--factor", "3,2", *TV, "-q")[0] == 0
    finer = fits.getheader("fine.fits")
    assert f"selfinv {__version__}: restored by tv-chambolle-pock" in str(finer["HISTORY"])
    assert "taken at night" in str(finer["HISTORY"])
    before, after = (wcs.WCS(h, naxis=2) for h in (header, finer))
    for x, y in ((0.0, 0.0), (63.0, 10.0), (30.0, 55.0)):  # of coarse pixels, the centres of finer ones
        there = after.pixel_to_world_values(2.0 * x + 0.5, 3.0 * y + 1.0)
        np.testing.assert_allclose(there, before.pixel_to_world_values(x, y), rtol=0, atol=1e-9)


def test_a_factor_that_is_not_whole_keeps_the_field(folder, capsys):
    assert run(capsys, "superres", "noisy.tif", "o.tif", "--factor", "1.5,1", *TV)[0] == 0
    assert tifffile.imread("o.tif").shape == (96, 64)


def test_tomography_beats_filtered_back_projection(folder, capsys):
    phantom = resize(shepp_logan_phantom(), (64, 64), anti_aliasing=True)
    angles = np.arange(32) * 180 / 32
    projected = radon(phantom, angles)
    noisy = (projected + RNG(0).normal(0, 0.5, projected.shape)).T
    tifffile.imwrite("sinogram.tif", noisy.astype("f4"))
    np.savetxt("angles.txt", angles, header="degrees")
    arguments = ("tomography", "sinogram.tif", "slice.tif", "--angles", "angles.txt")
    assert run(capsys, *arguments, *TV, "-q")[0] == 0
    assert (
        metrics.psnr(phantom, tifffile.imread("slice.tif"))
        > metrics.psnr(phantom, iradon(noisy.T, angles)) + 0.5
    )
    np.save("angles.npy", angles)
    assert run(capsys, "tomography", "sinogram.tif", "again.tif", "--angles", "angles.npy", *TV, "-q")[0] == 0
    assert np.array_equal(tifffile.imread("again.tif"), tifffile.imread("slice.tif"))
    tifffile.imwrite("stack.tif", np.stack([noisy, 0.5 * noisy]).astype("f4"))
    arguments = ("tomography", "stack.tif", "slices.tif", "--angles", "angles.txt", "--method", "ssi-network")
    assert run(capsys, *arguments, "--steps", 5, "-q")[0] == 0
    assert io.read("slices.tif").axes == "zyx"
    assert io.read("slices.tif").data.shape == (2, 64, 64)


def test_an_axis_off_the_detectors_middle_is_seen_and_can_be_told(folder, capsys):
    phantom = np.pad(resize(shepp_logan_phantom(), (48, 48), anti_aliasing=True), 8)
    angles = np.arange(32) * 180 / 32
    np.savetxt("angles.txt", angles)
    tifffile.imwrite("moved.tif", np.roll(radon(phantom, angles).T, 3, axis=1).astype("f4"))
    arguments = ("tomography", "moved.tif", "slice.tif", "--angles", "angles.txt", *TV)
    code, told = run(capsys, *arguments)
    assert code == 0
    assert "turn about detector pixel 35.0" in told
    assert "--centre 35.0" in told
    without = metrics.psnr(phantom, tifffile.imread("slice.tif"))
    code, told = run(capsys, *arguments, "--centre", 35)
    assert "turn about" not in told
    assert metrics.psnr(phantom, tifffile.imread("slice.tif")) > without + 10.0
    assert run(capsys, *arguments, "--centre", 64)[0] == 2


def test_rings_are_taken_off(folder, capsys):
    phantom = np.pad(resize(shepp_logan_phantom(), (40, 40), anti_aliasing=True), 4)
    angles = np.arange(30) * 6.0
    np.savetxt("angles.txt", angles)
    clean = radon(phantom, angles).T + RNG(0).normal(0, 0.2, (30, 48))
    tifffile.imwrite("clean.tif", clean.astype("f4"))
    tifffile.imwrite("rings.tif", (clean + RNG(1).normal(0, 0.4, 48)).astype("f4"))
    scores = {}
    for name, options in (("clean", []), ("rings", []), ("rings", ["--rings"]), ("clean", ["--rings"])):
        arguments = ("tomography", f"{name}.tif", "slice.tif", "--angles", "angles.txt", *TV, *options)
        code, told = run(capsys, *arguments)
        assert code == 0
        scores[name, bool(options)] = metrics.psnr(phantom, tifffile.imread("slice.tif"))
        if options:
            assert ("no rings" in told) == (name == "clean")
        else:
            assert ("--rings" in told) == (name == "rings")
    assert scores["rings", True] > max(scores["rings", False] + 3.0, scores["clean", False] - 2.0)
    assert scores["clean", True] == pytest.approx(scores["clean", False], abs=1e-6)
    code, told = run(capsys, *arguments[:5], "--rings", "--model", "m.safetensors")
    assert code == 2
    assert "--rings" in told


def test_a_model_for_a_finer_grid_is_kept_and_used_again(folder, capsys):
    arguments = ("superres", "noisy.tif", "out.tif", "--save-model", "model.safetensors", "-q")
    assert run(capsys, *arguments, "--method", "ssi-network", "--steps", 5)[0] == 0
    assert run(capsys, "superres", "noisy.tif", "again.tif", "--model", "model.safetensors")[0] == 0
    assert np.allclose(tifffile.imread("again.tif"), tifffile.imread("out.tif"), atol=5e-3)
    code, told = run(capsys, "apply", "model.safetensors", "noisy.tif", "o.tif")
    assert code == 2
    assert "not pixels" in told


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["superres", "noisy.tif", "o.tif", "--factor", "0.5"], "--factor 0.5 is not between 1 and 16"),
        (
            ["superres", "noisy.tif", "o.tif", "--factor", "two"],
            "'two' is no list of numbers; expected e.g. 2 or",
        ),
        (["superres", "noisy.tif", "o.tif", "--factor", "1000"], "--factor 1000 is not between 1 and 16"),
        (["inpaint", "noisy.tif", "o.tif", "--mask", "other.tif"], r"has the shape \(8, 8\) but the image"),
        (["inpaint", "noisy.tif", "o.tif", "--mask", "ones.tif"], "marks every pixel as bad"),
        (["inpaint", "noisy.tif", "o.tif", "--mask", "nan.tif"], "has 1 NaN; a mask must be 0 where"),
        (
            ["tomography", "noisy.tif", "o.tif", "--angles", "few.txt"],
            "has 3 angles but the sinogram 64",
        ),
        (
            ["tomography", "noisy.tif", "o.tif", "--angles", "none.txt"],
            "is no list of angles: 'north' is no number",
        ),
        (
            ["superres", "coarse.ome.tif", "o.tif", "--psf", "coarse.ome.tif"],
            "has 0.2 µm per sample along y but the finer grid has 0.1",
        ),
        (["tomography", "four.npy", "o.tif", "--angles", "few.txt"], "expected angle × detector"),
        (
            ["superres", "noisy.tif", "o.tif", "--model", "noisy.tif", "--save-model", "m.safetensors"],
            "--save-model: with --model none is trained",
        ),
        (
            ["superres", "noisy.tif", "o.tif", "--model", "m.safetensors", "--method", "wiener"],
            "--method wiener has no effect with --model",
        ),
        (
            ["tomography", "noisy.tif", "o.tif", "--angles", "all.txt", "--model", "m", "--steps", "5"],
            "--steps 5 has no effect with --model",
        ),
    ],
)
def test_a_mistake_is_one_line_with_status_2_and_writes_nothing(folder, capsys, arguments, words):
    tifffile.imwrite("other.tif", np.zeros((8, 8), "u1"))
    tifffile.imwrite("ones.tif", np.ones((64, 64), "u1"))
    tifffile.imwrite("nan.tif", np.pad([[np.nan]], (0, 63)).astype("f4"))
    np.save("four.npy", np.zeros((2, 2, 32, 32)))
    io.write("coarse.ome.tif", io.Image(TRUTH.astype("f4"), "yx", {"y": 0.2, "x": 0.2}))
    np.savetxt("few.txt", [0.0, 1.0, 2.0])
    np.savetxt("all.txt", np.arange(64.0))
    (folder / "none.txt").write_text("north\n")
    code, told = run(capsys, *arguments)
    assert code == 2
    assert len(told.strip().splitlines()) == 1
    assert pytest.importorskip("re").search(words, told)
    assert not (folder / "o.tif").exists()
