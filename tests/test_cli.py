"""The command line as its user meets it: processes, files, exit statuses and lines on standard error."""

import json
import os
import re
import signal
import subprocess
import sys
from dataclasses import dataclass

import numpy as np
import pytest
import tifffile
import torch
from imagecodecs import png_decode, png_encode
from scipy.ndimage import gaussian_filter
from skimage import data

import selfinv
from selfinv import cli, io, metrics, noise, psf

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="fork and signals")

ENVIRONMENT = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONFAULTHANDLER": "1"}
RNG = np.random.default_rng

# Importing torch takes seconds, so one process imports it and forks a fresh one for every command.
FORKER = """
import json, os, resource, sys
import selfinv.cli, selfinv.demo, selfinv.restoration
import imagecodecs, matplotlib.figure, scipy.ndimage, tifffile, torch._dynamo  # imported late otherwise
for line in sys.stdin:
    job = json.loads(line)
    child = os.fork()
    if child == 0:
        os.chdir(job["folder"])
        for number, name in ((1, job["out"]), (2, job["err"])):
            os.dup2(os.open(name, os.O_WRONLY | os.O_CREAT | os.O_TRUNC), number)
        if job["file_size"]:
            resource.setrlimit(resource.RLIMIT_FSIZE, (job["file_size"], job["file_size"]))
        try:
            selfinv.cli.main(job["arguments"])
        except SystemExit as ended:
            sys.stdout.flush()
            os._exit(ended.code)  # tearing all those modules down takes as long as the work
    print(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]), flush=True)
"""


@dataclass
class Done:
    code: int
    out: str
    err: str

    @property
    def lines(self):
        return self.err.splitlines()


def python(*arguments, folder=None):
    """Run ``python -m selfinv.cli`` for real."""
    done = subprocess.run(
        [sys.executable, "-m", "selfinv.cli", *map(str, arguments)],
        cwd=folder,
        env=ENVIRONMENT,
        capture_output=True,
        text=True,
    )
    return Done(done.returncode, done.stdout, done.stderr)


@pytest.fixture(scope="module")
def command(tmp_path_factory):
    """Run a command in a process of its own, forked from one that has imported everything."""
    logs = tmp_path_factory.mktemp("logs")
    forker = subprocess.Popen(
        [sys.executable, "-c", FORKER],
        env=ENVIRONMENT,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )

    def run(*arguments, folder, file_size=0):
        job = {
            "arguments": [str(a) for a in arguments],
            "folder": str(folder),
            "out": str(logs / "out"),
            "err": str(logs / "err"),
            "file_size": file_size,
        }
        forker.stdin.write(json.dumps(job) + "\n")
        forker.stdin.flush()
        code = int(forker.stdout.readline())
        return Done(code, (logs / "out").read_text(), (logs / "err").read_text())

    yield run
    forker.stdin.close()
    forker.wait()


def succeeded(done, codes=(0,)):
    assert done.code in codes, done.err
    assert "error" not in done.err
    assert all(line.startswith("selfinv: ") for line in done.lines), done.err
    return done


def scene(*shape, seed=0):
    """Photon counts of smooth waves, about 100 to 300."""
    rng = RNG(seed)
    y, x = (np.sin(np.arange(n) / rng.uniform(3, 5) + rng.uniform(0, 6)) for n in shape[-2:])
    return rng.poisson(np.broadcast_to(200 + 90 * np.outer(y, x), shape)).astype(np.float32)


PIXEL = {"y": 0.1, "x": 0.1}
KERNEL = psf.gaussian(1.0, (7, 7)).astype(np.float32)


@pytest.fixture(scope="module")
def folder(tmp_path_factory, command):
    """Good and bad files, and a model; tests leave it as it is."""
    here = tmp_path_factory.mktemp("files")
    image = scene(40, 36)
    io.write(here / "image.tif", io.Image(image, "yx", PIXEL))
    io.write(here / "image.npy", image)
    (here / "link.tif").symlink_to(here / "image.tif")
    io.write(here / "volume.tif", io.Image(scene(6, 20, 18), "zyx"))
    io.write(here / "stack.npy", scene(6, 32, 32))
    io.write(here / "rgb.png", np.stack([scene(32, 32, seed=i) / 2 for i in range(3)], -1).astype(np.uint8))
    holes = image.copy()
    holes[10:12, 10] = np.nan
    io.write(here / "holes.tif", holes)
    io.write(here / "constant.tif", np.full((32, 32), 7, np.float32))
    io.write(here / "dark.tif", scene(40, 36) - 1000)
    io.write(here / "small.tif", image[:12])
    io.write(here / "empty_psf.tif", KERNEL * 0)
    io.write(here / "nan_psf.tif", KERNEL * np.nan)
    io.write(here / "negative_psf.tif", KERNEL - KERNEL.max() / 2)
    io.write(here / "psf.tif", io.Image(KERNEL, "yx", PIXEL))
    io.write(here / "coarse_psf.tif", io.Image(KERNEL, "yx", {"y": 0.2, "x": 0.2}))
    io.write(here / "psf3d.tif", io.Image(psf.gaussian((0.7, 0.9, 0.9), (5, 7, 7)).astype(np.float32), "zyx"))
    (here / "truncated.tif").write_bytes((here / "image.tif").read_bytes()[:3000])
    (here / "words.txt").write_text("no image")
    (here / "photo.tif").write_bytes(b"\xff\xd8\xff\xe0 jpeg")
    (here / "nothing.tif").write_bytes(b"")
    (here / "broken.safetensors").write_bytes(b"\x10\0\0\0\0\0\0\0{broken")
    (here / "sub").mkdir()
    arguments = (
        "image.tif",
        here / "sub" / "a.tif",
        "--psf",
        "psf.tif",
        "--method",
        "ssi-network",
        "--steps",
        10,
        "-q",
    )
    succeeded(command("restore", *arguments, "--save-model", "model.safetensors", folder=here))
    from safetensors.torch import save_file

    save_file({"weight": torch.zeros(2)}, here / "strange.safetensors")
    io.write(here / "out.tif", np.zeros((3, 3), np.float32))
    return here


# ---- what works ----


def test_from_an_image_and_a_psf_to_a_restored_image(tmp_path):
    """The whole way with real ``python -m``: make the PSF, restore, apply the saved model."""
    image = scene(48, 40)
    io.write(tmp_path / "cells.tif", io.Image(image, "yx", PIXEL))
    made = ("psf", "gaussian", "--sigma", "0.1", "--pixel-size", "0.1", "--shape", "7,7", "-o", "psf.tif")
    succeeded(python(*made, folder=tmp_path))
    kernel = io.read(tmp_path / "psf.tif")
    np.testing.assert_allclose(kernel.data, psf.gaussian(1.0, (7, 7)), rtol=1e-5)
    assert kernel.voxel_size == pytest.approx(PIXEL)

    options = (
        "--psf",
        "psf.tif",
        "--method",
        "ssi-network",
        "--steps",
        10,
        "--preview",
        "p.png",
        "--save-model",
        "m.safetensors",
    )
    done = succeeded(python("restore", "cells.tif", "a.tif", *options, folder=tmp_path))
    assert done.lines[0].startswith("selfinv: step 1/10, loss ")
    assert done.lines[-1].startswith("selfinv: wrote a.tif: ssi-network, 10 steps in ")
    assert done.out == ""
    restored = io.read(tmp_path / "a.tif")
    assert (restored.data.dtype, restored.data.shape, restored.axes) == (np.float32, (48, 40), "yx")
    assert restored.voxel_size == pytest.approx(PIXEL)
    assert np.corrcoef(restored.data.ravel(), image.ravel())[0, 1] > 0.5
    assert min(png_decode((tmp_path / "p.png").read_bytes()).shape[:2]) > 300

    succeeded(python("apply", "m.safetensors", "cells.tif", "b.tif", folder=tmp_path))
    np.testing.assert_array_equal(io.read(tmp_path / "b.tif").data, restored.data)
    assert io.read(tmp_path / "b.tif").voxel_size == pytest.approx(PIXEL)
    assert sorted(os.listdir(tmp_path)) == [
        "a.tif",
        "a.tif.recipe.yaml",
        "b.tif",
        "b.tif.recipe.yaml",
        "cells.tif",
        "m.safetensors",
        "p.png",
        "psf.tif",
    ]


def test_version_and_info_and_help(tmp_path, command):
    assert python("--version").out.strip() == f"selfinv {selfinv.__version__}"
    told = succeeded(command("info", folder=tmp_path)).out
    for word in (selfinv.__version__, torch.__version__, "cuda", "ssi-paper", "TIFF"):
        assert word in told
    done = command(folder=tmp_path)
    assert done.code == 2
    assert "restore" in done.out + done.err
    assert "error" not in done.err


def test_ome_tiff_keeps_names_of_channels(tmp_path, command):
    image = io.Image(
        np.stack([scene(32, 36), scene(32, 36, seed=1)]), "cyx", PIXEL, {"channel_names": ["DAPI", "GFP"]}
    )
    io.write(tmp_path / "cells.ome.tif", image)
    arguments = ("restore", "cells.ome.tif", "out.ome.tif", "--method", "ssi-network", "--steps", 10, "-q")
    assert succeeded(command(*arguments, folder=tmp_path)).err == ""
    restored = io.read(tmp_path / "out.ome.tif")
    assert (restored.axes, restored.data.shape) == ("cyx", (2, 32, 36))
    assert restored.voxel_size == pytest.approx(PIXEL)
    assert restored.metadata["channel_names"] == ["DAPI", "GFP"]
    assert tifffile.TiffFile(tmp_path / "out.ome.tif").is_ome


def test_a_16_bit_png_stays_one(tmp_path, command):
    (tmp_path / "a.png").write_bytes(png_encode(scene(32, 32).astype(np.uint16)))
    succeeded(
        command("restore", "a.png", "b.png", "--method", "ssi-network", "--steps", 10, "-q", folder=tmp_path)
    )
    restored = io.read(tmp_path / "b.png").data
    assert (restored.dtype, restored.shape) == (np.uint16, (32, 32))
    assert 100 < restored.mean() < 300


def test_what_a_png_cannot_hold_is_clipped_and_counted(tmp_path, monkeypatch, in_process):
    (tmp_path / "a.png").write_bytes(png_encode(scene(32, 32).astype(np.uint16)))
    restored = np.full((32, 32), 300.0, np.float32)
    restored[0, :3] = -20, 70_000, -0.2  # the last one rounds to 0
    result = selfinv.Result(restored, selfinv.Status.MAX_STEPS, {"method": "ssi"})
    monkeypatch.setattr("selfinv.restoration.restore", lambda *arguments, **options: result)
    done = succeeded(in_process("restore", tmp_path / "a.png", tmp_path / "b.png", "-q"))
    assert done.err.startswith("selfinv: warning: 2 of 1024 values lay outside uint16 and were clipped")
    assert io.read(tmp_path / "b.png").data[0, :4].tolist() == [0, 65535, 0, 300]


def test_a_png_that_keeps_a_few_levels_of_the_result_says_so(tmp_path, monkeypatch, in_process):
    restored = np.linspace(0.0, 0.4, 1024, dtype=np.float32).reshape(32, 32)
    result = selfinv.Result(restored, selfinv.Status.MAX_STEPS, {"method": "ssi"})
    monkeypatch.setattr("selfinv.restoration.restore", lambda *arguments, **options: result)
    (tmp_path / "a.png").write_bytes(png_encode(scene(32, 32).astype(np.uint16)))
    done = succeeded(in_process("restore", tmp_path / "a.png", tmp_path / "b.png", "-q"))
    assert "span 0 to 0.4, of which uint16 keeps less than 8 levels; write float32 TIFF" in done.err


def test_a_colour_png_comes_back_in_colour(tmp_path, command, folder):
    arguments = (
        "rgb.png",
        tmp_path / "b.png",
        "--psf",
        "psf.tif",
        "--method",
        "ssi-network",
        "--steps",
        10,
        "-q",
    )
    succeeded(command("restore", *arguments, "--preview", tmp_path / "p.png", folder=folder))
    restored = io.read(tmp_path / "b.png").data
    assert (restored.dtype, restored.shape) == (np.uint8, (32, 32, 3))
    assert png_decode((tmp_path / "p.png").read_bytes()).size


def test_a_volume_with_its_psf(tmp_path, command, folder):
    arguments = (
        "restore",
        "volume.tif",
        tmp_path / "v.tif",
        "--psf",
        "psf3d.tif",
        "--method",
        "ssi-network",
        "--steps",
        3,
        "-q",
    )
    succeeded(command(*arguments, folder=folder), codes=(0, 1))  # three steps may fail by its own checks
    assert io.read(tmp_path / "v.tif").axes == "zyx"
    assert io.read(tmp_path / "v.tif").data.shape == (6, 20, 18)


def test_without_a_psf_noise_is_removed(tmp_path, command):
    flat = 200 + 100 * np.outer(np.sin(np.arange(48) / 6), np.sin(np.arange(48) / 7))
    noisy = (flat + RNG(0).normal(0, 40, flat.shape)).astype(np.float32)
    np.save(tmp_path / "a.npy", noisy)
    succeeded(
        command("restore", "a.npy", "b.npy", "--method", "ssi-network", "--steps", 80, "-q", folder=tmp_path)
    )
    restored = np.load(tmp_path / "b.npy")
    assert np.abs(restored - flat).mean() < 0.7 * np.abs(noisy - flat).mean()


def test_axes_that_were_given_or_guessed_are_written(tmp_path, command):
    np.save(tmp_path / "rgb.npy", np.stack([scene(32, 32, seed=i) for i in range(3)], -1))
    succeeded(
        command(
            "restore", "rgb.npy", "rgb.tif", "--method", "ssi-network", "--steps", 10, "-q", folder=tmp_path
        )
    )
    np.save(tmp_path / "t.npy", scene(2, 32, 32))
    succeeded(
        command(
            "restore",
            "t.npy",
            "t.tif",
            "--method",
            "ssi-network",
            "--steps",
            10,
            "-q",
            "--axes",
            "tyx",
            folder=tmp_path,
        )
    )
    assert "c" in io.read(tmp_path / "rgb.tif").axes
    assert io.read(tmp_path / "t.tif").axes == "tyx"


def test_the_seed_decides_the_image(tmp_path, command, folder):
    for name, seed in (("a", 1), ("b", 1), ("c", 2)):
        arguments = (
            "image.tif",
            tmp_path / f"{name}.npy",
            "--psf",
            "psf.tif",
            "--method",
            "ssi-network",
            "--steps",
            10,
            "--seed",
            seed,
        )
        succeeded(command("restore", *arguments, "-q", folder=folder))
    a, b, c = (np.load(tmp_path / f"{name}.npy") for name in "abc")
    np.testing.assert_array_equal(a, b)
    assert not np.array_equal(a, c)


@pytest.mark.parametrize(
    ("options", "settings"),
    [
        (("--weight", 5), {"method": "tv-chambolle-pock", "weight": 5.0}),
        (("--weight", 5, "--steps", 3), {"method": "tv-chambolle-pock", "weight": 5.0, "max_steps": 3}),
        (("--weight", 4), {"method": "tv-conjugate-gradient", "weight": 4.0}),
        (("--weight", 2), {"method": "wiener", "weight": 2.0}),
        (("--steps", 5), {"method": "richardson-lucy", "max_steps": 5}),
    ],
    ids=str,
)
def test_classical_methods_are_those_of_the_library(tmp_path, command, folder, options, settings):
    arguments = (
        "image.tif",
        tmp_path / "a.tif",
        "--psf",
        "psf.tif",
        "--method",
        settings["method"],
        *options,
    )
    done = succeeded(command("restore", *arguments, folder=folder))
    assert f"wrote {tmp_path / 'a.tif'}: {settings['method']}, " in done.lines[-1]
    image, kernel = (io.read(folder / name).data for name in ("image.tif", "psf.tif"))
    expected = selfinv.restore(image, kernel, spacing=(0.1, 0.1), **settings)
    np.testing.assert_allclose(io.read(tmp_path / "a.tif").data, expected.image, rtol=1e-4, atol=1e-3)
    assert f" {expected.stats['steps']} steps in " in done.lines[-1]


def test_what_was_tuned_is_told_in_a_table(tmp_path, command, folder):
    arguments = ("image.tif", tmp_path / "a.tif", "--psf", "psf.tif", "--method", "tv-chambolle-pock")
    done = command("restore", *arguments, folder=folder)
    assert done.code == 0, done.err
    rows = [line for line in done.lines if line.startswith("|")]
    assert rows[0].startswith("| method | setting | held-out score (lower is better) |")
    assert {row.split("|")[1].strip() for row in rows[2:]} == {
        "tv-chambolle-pock, L2",
        "tv-chambolle-pock, Huber",
    }
    assert sum("| chosen |" in row for row in rows) == 1
    assert ": tv-chambolle-pock, L2, weight " in done.lines[-1]
    assert "held-out l2 score" in done.lines[-1]
    quiet = succeeded(command("restore", *arguments, "-q", folder=folder))
    assert quiet.err == ""


def test_a_mixture_is_told_and_the_model_is_the_networks_alone(tmp_path, command):
    truth = data.camera()[100:228, 150:278] / 255.0
    noisy = gaussian_filter(truth, 1.2) + np.random.default_rng(0).normal(0, 0.03, truth.shape)
    io.write(tmp_path / "noisy.tif", noisy.astype(np.float32))
    io.write(tmp_path / "psf.tif", psf.gaussian(1.2, (11, 11)).astype(np.float32))
    options = ("--psf", "psf.tif", "--steps", 60, "--save-model", "model.safetensors")
    done = command("restore", "noisy.tif", "a.tif", *options, folder=tmp_path)
    assert done.code == 0, done.err
    assert "model.safetensors holds the network alone" in done.err
    assert " ssi-network + 0." in done.lines[-1]
    assert "is a weighted mean: its score is lower by" in done.err


def test_a_model_that_there_is_not_is_told(tmp_path, command, folder):
    """A classical method that took the network's place has none to save."""
    for name, options in (("ssi", ("--steps", 2)),):
        model = tmp_path / f"{name}.safetensors"
        arguments = ("restore", "image.tif", tmp_path / f"{name}.tif", "--psf", "psf.tif", *options)
        done = command(*arguments, "--save-model", model, folder=folder)
        assert done.code == 0, done.err
        (told,) = [line for line in done.lines if "no model was written" in line]
        assert str(model) in told
        assert "by tv-chambolle-pock" in told
        assert "--method ssi-network" in told
        assert not model.exists()
        assert (tmp_path / f"{name}.tif").exists()


@pytest.mark.filterwarnings("ignore:the weight of .* leaves next to nothing")
def test_the_files_voxel_sizes_are_those_that_total_variation_counts_by(tmp_path, command):
    image = scene(32, 36)
    io.write(tmp_path / "a.tif", io.Image(image, "yx", {"y": 0.5, "x": 0.1}))
    options = ("--method", "tv-chambolle-pock", "--weight", 20, "-q")
    succeeded(command("restore", "a.tif", "b.tif", *options, folder=tmp_path))
    even, stretched = (
        selfinv.restore(image, method="tv-chambolle-pock", weight=20.0, spacing=spacing).image
        for spacing in (None, (0.5, 0.1))
    )
    restored = io.read(tmp_path / "b.tif").data
    np.testing.assert_allclose(restored, stretched, rtol=1e-3, atol=0.1)
    assert np.abs(restored - even).max() > 5.0


def test_missing_pixels_are_filled_in_if_asked_for(tmp_path, command, folder):
    arguments = (
        "restore",
        "holes.tif",
        tmp_path / "a.tif",
        "--mask-nan",
        "--method",
        "ssi-network",
        "--steps",
        10,
        "-q",
    )
    succeeded(command(*arguments, "--preview", tmp_path / "p.png", folder=folder))
    assert np.isfinite(io.read(tmp_path / "a.tif").data).all()


def test_a_failed_run_is_written_but_says_so_once_and_exits_with_1(tmp_path, command):
    io.write(tmp_path / "a.tif", scene(32, 32))
    beyond = ("--method", "tv-chambolle-pock", "--weight", 1e300)
    done = command("restore", "a.tif", "b.tif", *beyond, "--steps", 1, "-q", folder=tmp_path)
    assert done.code == 1
    assert len(done.lines) == 1
    assert "failed: the numbers became NaN or infinite" in done.err
    assert (tmp_path / "b.tif").exists()


def test_psfs_by_formula_and_from_a_bead(tmp_path, command):
    optics = ("--na", 0.8, "--wavelength", 0.6, "--pixel-size", 0.2, "--z-step", 0.5, "--shape", "5,17,17")
    succeeded(command("psf", "gibson-lanni", *optics, "-o", "a.tif", folder=tmp_path))
    kernel = io.read(tmp_path / "a.tif")
    assert (kernel.axes, kernel.data.shape) == ("zyx", (5, 17, 17))
    assert kernel.voxel_size == pytest.approx({"z": 0.5, "y": 0.2, "x": 0.2})
    assert kernel.data.sum() == pytest.approx(1, rel=1e-5)

    bead = 100 + 5000 * np.roll(psf.gaussian(1.5, (21, 21)), (2, -1), (0, 1))
    io.write(tmp_path / "bead.tif", io.Image(bead.astype(np.float32), "yx", PIXEL))
    done = succeeded(
        command("psf", "measured", "bead.tif", "-o", "b.tif", "--shape", "13,13", folder=tmp_path)
    )
    measured = io.read(tmp_path / "b.tif")
    np.testing.assert_allclose(measured.data, psf.gaussian(1.5, (13, 13)), atol=2e-3)
    assert measured.voxel_size == pytest.approx(PIXEL)
    assert "background 100 removed; bead off centre by y +2.000, x -1.000 pixels" in done.err


def test_a_gaussian_that_its_shape_cuts_off_is_told_with_a_shape_that_holds_it(tmp_path, in_process):
    out = tmp_path / "a.tif"
    for size in (("--sigma", 5), ("--sigma", 0.5, "--pixel-size", 0.1)):
        done = succeeded(in_process("psf", "gaussian", *size, "--shape", "9,9", "-o", out))
        assert "warning: --shape 9,9 holds only 40% of the Gaussian's light" in done.err
        assert "--shape 29,29 holds 99%" in done.err
        done = succeeded(in_process("psf", "gaussian", *size, "--shape", "29,29", "-o", out))
        assert "warning" not in done.err


def test_optics_that_their_shape_cuts_off_are_told_with_a_shape_that_holds_them(tmp_path, in_process):
    out = tmp_path / "a.tif"
    optics = ("--na", 0.8, "--wavelength", 0.6, "--pixel-size", 0.406, "-o", out)
    for model, shape, share, larger in (
        (("gibson-lanni", "--defocus", 10), "17,17", "3[0-9]%", "41,41 holds 9[0-9]%"),
        (("gibson-lanni", "--z-step", 10), "3,17,17", "5[0-9]%", "3,41,41 holds 9[0-9]%"),
        (("zernike", "--terms", "defocus=0", "--defocus", 10), "17,17", "3[0-9]%", "41,41 holds 9[0-9]%"),
    ):
        done = succeeded(in_process("psf", *model, *optics, "--shape", shape))
        assert re.search(
            f"warning: --shape {shape} holds only {share} of the light.*--shape {larger}", done.err
        )
        done = succeeded(in_process("psf", *model, *optics, "--shape", shape.replace("17", "41")))
        assert "warning" not in done.err


def test_colours_and_series_are_scored_plane_by_plane_whatever_their_order(tmp_path, command):
    truth = np.stack([scene(32, 32, seed=i) for i in range(3)]) / 2
    image = truth + np.random.default_rng(0).normal(0, 2.0, truth.shape).astype(np.float32)
    for name, channels in (("truth", truth), ("image", image)):
        io.write(tmp_path / f"{name}.tif", io.Image(channels.astype(np.float32), "cyx"))
    as_png = truth.clip(0, 255).round().astype(np.uint8).transpose(1, 2, 0)
    io.write(tmp_path / "truth.png", np.ascontiguousarray(as_png))
    done = succeeded(command("score", "truth.tif", "image.tif", "truth.png", "--json", folder=tmp_path))
    found = json.loads(done.out)
    span = float(np.ptp(truth))
    kept = image.clip(truth.min(), truth.max())
    expected = [metrics.psnr(a, b, span) for a, b in zip(truth, kept, strict=True)]
    assert found["image.tif"]["psnr"] == pytest.approx(np.mean(expected), abs=1e-3)
    assert found["truth.png"]["psnr"] > 40.0
    np.save(tmp_path / "unnamed.npy", image)  # of the same shape, so of the same axes
    for pair in (("truth.tif", "unnamed.npy"), ("unnamed.npy", "truth.tif")):
        done = succeeded(
            command("score", *pair, "--json", "--no-clip", "--data-range", span, folder=tmp_path)
        )
        each = [metrics.psnr(a, b, span) for a, b in zip(truth, image, strict=True)]
        assert json.loads(done.out)[pair[1]]["psnr"] == pytest.approx(np.mean(each), abs=1e-3)
    io.write(tmp_path / "grey.tif", io.Image(truth[0].astype(np.float32), "yx"))
    refused(command("score", "truth.tif", "grey.tif", folder=tmp_path), "3 images in it")


@pytest.mark.parametrize(("unit", "dtype"), [(100.0, np.float16), (1e202, np.float64)])
def test_scores_do_not_depend_on_the_unit_of_values(tmp_path, command, unit, dtype):
    truth = scene(40, 36).astype(np.float64)
    image = truth + 1.0
    for name, values in (("truth", truth), ("image", image)):
        np.save(tmp_path / f"{name}.npy", values)
        np.save(tmp_path / f"{name}-scaled.npy", (unit * values).astype(dtype))
    one = succeeded(command("score", "truth.npy", "image.npy", "--json", folder=tmp_path))
    other = succeeded(command("score", "truth-scaled.npy", "image-scaled.npy", "--json", folder=tmp_path))
    assert (one.err, other.err) == ("", "")
    expected, found = (next(iter(json.loads(done.out).values())) for done in (one, other))
    assert found["psnr"] == pytest.approx(expected["psnr"], rel=2e-2)
    assert found["ssim"] == pytest.approx(expected["ssim"], rel=2e-2)


def test_simulate_and_score_agree_with_the_library(tmp_path, command):
    truth = scene(40, 36)
    io.write(tmp_path / "truth.tif", io.Image(truth, "yx", PIXEL))
    io.write(tmp_path / "psf.tif", KERNEL)
    options = ("--psf", "psf.tif", "--clean", "clean.tif", "--seed", 3)
    succeeded(command("simulate", "truth.tif", "paper.tif", *options, "--benchmark", folder=tmp_path))
    clean, paper = (io.read(tmp_path / name) for name in ("clean.tif", "paper.tif"))
    assert paper.voxel_size == pytest.approx(PIXEL)
    np.testing.assert_array_equal(clean.data, noise.normalise_minmax(truth))
    expected = noise.benchmark_degradation(clean.data, psf.normalise(KERNEL), 3)[1]
    np.testing.assert_array_equal(paper.data, expected)

    bare = ("--photons", 50, "--sigma", 0, "--salt-pepper", 0, "--bits", 0, "--no-saturate")
    succeeded(command("simulate", "truth.tif", "photons.tif", *bare, folder=tmp_path))
    counts = io.read(tmp_path / "photons.tif").data * 50  # photons and no other noise besides
    np.testing.assert_allclose(counts, np.round(counts), atol=1e-3)

    own = ("--psf", "psf.tif", "--alpha", 0, "--sigma", 0, "--salt-pepper", 0, "--bits", 0)
    succeeded(command("simulate", "truth.tif", "blurred.tif", *own, folder=tmp_path))
    from scipy.ndimage import convolve

    blurred = convolve(clean.data, KERNEL / KERNEL.sum(), mode="constant")
    np.testing.assert_allclose(io.read(tmp_path / "blurred.tif").data, np.clip(blurred, 0, 1), atol=1e-5)

    told = succeeded(command("score", "clean.tif", "paper.tif", "clean.tif", "--json", folder=tmp_path)).out
    rows = json.loads(told, parse_constant=lambda word: pytest.fail(f"{word} is no JSON"))
    wanted = metrics.scores(clean.data, paper.data, clip=(0, 1))
    assert rows["paper.tif"] == pytest.approx(wanted)
    assert rows["clean.tif"]["psnr"] is None  # infinite
    table = succeeded(
        command("score", "truth.tif", "paper.tif", "--rescale", folder=tmp_path)
    ).out.splitlines()
    assert table[0].split() == list(wanted)
    assert [float(word) for word in table[1].split()[1:]] == pytest.approx(list(wanted.values()), abs=1e-4)
    done = succeeded(command("score", "truth.tif", "paper.tif", folder=tmp_path))
    assert "is --rescale meant?" in done.err


def test_the_demo_shows_what_it_gained(tmp_path, command):
    done = command("demo", "-o", "shown", "--steps", 2, "-q", folder=tmp_path)
    assert done.code in (0, 1), done.err  # two steps may be too few for its own checks
    assert "Traceback" not in done.err
    files = {"demo.png", "noisy.tif", "psf.tif", "restored.tif", "truth.tif"}
    assert set(os.listdir(tmp_path / "shown")) == files
    assert "before (blurred, noisy)" in done.out
    assert png_decode((tmp_path / "shown" / "demo.png").read_bytes()).size
    truth, noisy = (io.read(tmp_path / "shown" / f"{name}.tif").data for name in ("truth", "noisy"))
    assert f"{metrics.scores(truth, noisy, data_range=1.0, clip=(0, 1))['psnr']:8.2f}" in done.out


# ---- mistakes ----

RESTORE = ("restore", "image.tif", "out.tif")
FLAT = (*RESTORE, "--psf", "psf.tif")
MISTAKES = {
    # the input
    "missing": (("restore", "imagee.tif", "out.tif"), "does not exist; did you mean image.tif"),
    "folder": (("restore", "sub", "out.tif"), "sub is a folder"),
    "truncated": (("restore", "truncated.tif", "out.tif"), "truncated"),
    "text": (("restore", "words.txt", "out.tif"), "words.txt is of an unknown format"),
    "jpeg": (("restore", "photo.tif", "out.tif"), "photo.tif is a JPEG file; expected one of TIFF"),
    "empty file": (("restore", "nothing.tif", "out.tif"), "is empty (0 bytes)"),
    "nan": (("restore", "holes.tif", "out.tif"), "2 NaN", "--mask-nan"),
    "constant": (("restore", "constant.tif", "out.tif"), "constant (every value is 7)"),
    "small": (("restore", "small.tif", "out.tif"), "only 12 samples along y; at least 16"),
    "ambiguous": (("restore", "stack.npy", "out.tif"), "several ways", "'zyx' (a volume)"),
    "unknown axis": ((*RESTORE, "--axes", "zq"), "unknown letter 'q'"),
    "too many axes": ((*RESTORE, "--axes", "zyx"), "names 3 axes but the image has 2"),
    "axis twice": ((*RESTORE, "--axes", "yy"), "names an axis twice"),
    # the output
    "extension": (("restore", "image.tif", "out.jpg"), "unknown extension '.jpg'; use one of TIFF"),
    "no folder": (("restore", "image.tif", "nowhere/out.tif"), "nowhere", "does not exist; make it first"),
    "output is folder": (("restore", "image.tif", "."), "."),
    "same file": (("restore", "image.tif", "image.tif"), "same file as the input"),
    "same by link": (("restore", "image.tif", "link.tif"), "same file as the input"),
    "same as psf": (("restore", "image.tif", "psf.tif", "--psf", "psf.tif"), "same file as the input"),
    "float png": (("restore", "image.tif", "out.png"), "PNG cannot hold float32", "--dtype uint16"),
    "psf png": (("psf", "gaussian", "--sigma", "1", "-o", "p.png"), "which are no integers; write a .tif"),
    "bead png": (("psf", "measured", "psf.tif", "-o", "p.png"), "which are no integers; write a .tif"),
    "simulated png": (("simulate", "image.tif", "s.png"), "which are no integers; write a .tif"),
    "residual png": ((*RESTORE, "--residual", "r.png"), "r.png: PNG cannot hold its values"),
    "volume png": (("restore", "volume.tif", "o.png", "--dtype", "uint8"), "PNG holds one flat image"),
    "dtype": ((*RESTORE, "--dtype", "uint7"), "unknown pixel type 'uint7'; use uint8"),
    "preview format": ((*RESTORE, "--preview", "p.gif"), "'.gif'; use .png or .pdf or .svg"),
    "preview folder": ((*RESTORE, "--preview", "nowhere/p.png"), "its folder does not exist"),
    "preview is output": (("restore", "rgb.png", "o.png", "--preview", "o.png"), "the output's own name"),
    "no network": (
        (*RESTORE, "--method", "wiener", "--save-model", "m.safetensors"),
        "wiener trains no model",
    ),
    "model format": ((*RESTORE, "--save-model", "m.pt"), "'.pt'; use .safetensors"),
    # the PSF
    "no psf": ((*RESTORE, "--psf", "psff.tif"), "psff.tif does not exist"),
    "flat psf": (
        ("restore", "volume.tif", "out.tif", "--psf", "psf.tif"),
        "psf has 2 axes but the image has 3 spatial axes (zyx); pass a 3-D psf or --axes cyx",
    ),
    "deep psf": ((*RESTORE, "--psf", "psf3d.tif"), "psf has 3 axes but the image has 2 spatial axes (yx)"),
    "deep psf, no names": (
        ("restore", "image.npy", "out.tif", "--psf", "psf3d.tif"),
        "psf has 3 axes but the image has 2 spatial axes (yx)",
    ),
    "zero psf": ((*RESTORE, "--psf", "empty_psf.tif"), "psf is zero everywhere"),
    "nan psf": ((*RESTORE, "--psf", "nan_psf.tif"), "psf has 49 values that are NaN"),
    "negative psf": ((*RESTORE, "--psf", "negative_psf.tif"), "psf has negative values"),
    "other pixels": (
        (*RESTORE, "--psf", "coarse_psf.tif"),
        "0.2 µm per sample along y but the image has 0.1",
    ),
    # the options
    "method": ((*FLAT, "--method", "magic"), "--method magic is unknown; use one of ssi,"),
    "boundary": ((*FLAT, "--boundary", "wall"), "--boundary wall is unknown"),
    "device": ((*FLAT, "--device", "abacus"), "device='abacus' is unknown; use 'auto'"),
    "steps": ((*FLAT, "--steps", "0"), "'--steps'"),
    "no weight": (
        (*FLAT, "--method", "tv-chambolle-pock", "--weight", "0"),
        "weight must be a positive number, got 0",
    ),
    "negative weight": ((*FLAT, "--method", "wiener", "--weight", "-2"), "positive number, got -2"),
    "weight of a network": (
        (*FLAT, "--method", "ssi", "--weight", "1"),
        "--method ssi has no weight; leave it out, or use one of tv-chambolle-pock",
    ),
    "weight in words": ((*FLAT, "--weight", "much"), "'--weight'"),
    "no number": ((*FLAT, "--seed", "x"), "'--seed'"),
    "option": ((*FLAT, "--stepps", "3"), "--stepps", "See 'selfinv restore --help'."),
    "command": (("restor", "a", "b"), "No such command 'restor'"),
    "argument": (("restore", "image.tif"), "Missing argument 'OUTPUT'"),
    # the other commands
    "no model": (("apply", "modell.safetensors", "image.tif", "out.tif"), "no such model file"),
    "image as model": (("apply", "image.tif", "image.tif", "out.tif"), "not a model file; expected one"),
    "corrupt model": (
        ("apply", "broken.safetensors", "image.tif", "out.tif"),
        "not a model file; expected one",
    ),
    "strange model": (("apply", "strange.safetensors", "image.tif", "out.tif"), "not one written by selfinv"),
    "model's channels": (
        ("apply", "model.safetensors", "rgb.png", "out.tif"),
        "trained on 1 channel",
        "has 3",
    ),
    "apply nan": (("apply", "model.safetensors", "holes.tif", "out.tif"), "--mask-nan"),
    "bead in colour": (("psf", "measured", "rgb.png", "-o", "out.tif"), "axes 'yxc'; a bead's image has"),
    "bead axes": (("psf", "measured", "psf.tif", "-o", "out.tif", "--axes", "tyx"), "names 3 axes"),
    "bead is output": (("psf", "measured", "psf.tif", "-o", "psf.tif"), "same file as the input"),
    "no bead": (
        ("psf", "measured", "constant.tif", "-o", "out.tif"),
        "above its background",
        "; pass a lower one, --background",
    ),
    "two backgrounds": (
        ("psf", "measured", "psf.tif", "-o", "out.tif", "--background", "1,2"),
        "--background '1,2' has 2 numbers; expected 1",
    ),
    "too steep for a depth": (
        (
            "psf",
            "gibson-lanni",
            "--na=1.4",
            "--wavelength=0.5",
            "--pixel-size=0.1",
            "--shape=9,9",
            "--depth=5",
            "--sample=1.33",
            "--immersion=1.515",
            "-o",
            "out.tif",
        ),
        "pass --na 1.32 or less, or --depth 0",
    ),
    "nothing above 0": (
        ("restore", "dark.tif", "out.tif", "--psf", "psf.tif", "--method", "richardson-lucy"),
        "no measured value is above 0",
        "leave in an offset that was subtracted, or use a TV method",
    ),
    "track without images": (
        ("benchmark", "--track", "c,a", "--methods", "input", "-o", "out"),
        "track a needs images",
    ),
    "sigma": (("psf", "gaussian", "--sigma", "wide", "-o", "out.tif"), "--sigma 'wide' is no list"),
    "sigma 0": (("psf", "gaussian", "--sigma", "0", "-o", "out.tif"), "must be a positive number"),
    "half pixels": (
        ("psf", "gaussian", "--sigma", "1", "--shape", "7.5,7", "-o", "out.tif"),
        "no whole number",
    ),
    "nan pixels": (
        ("psf", "gaussian", "--sigma", "1", "--shape", "nan,7", "-o", "out.tif"),
        "no whole number",
    ),
    "too many pixels": (
        ("psf", "gaussian", "--sigma", "1", "--shape", "1000000,1000000", "-o", "out.tif"),
        "--shape 1000000,1000000 takes 1.12e+04 GiB of memory, more than is free",
    ),
    "bead with nan": (("psf", "measured", "holes.tif", "-o", "out.tif"), "2 values that are NaN", "crop"),
    "paper psf": (("simulate", "image.tif", "out.tif", "--benchmark"), "--benchmark needs --psf"),
    "shot noise twice": (
        ("simulate", "image.tif", "out.tif", "--photons", "100", "--alpha", "0.1"),
        "--photons 100 and --alpha 0.1 both make shot noise",
    ),
    "too bright": ((*RESTORE, "--dtype", "int8"), "do not fit int8, nor will those restored", "--clip"),
    "too bright for a model": (
        ("apply", "model.safetensors", "image.tif", "out.tif", "--dtype", "int8"),
        "do not fit int8, nor will those restored",
    ),
    "alpha": (("simulate", "image.tif", "out.tif", "--alpha", "-1"), "alpha must be 0 or more, got -1"),
    "no photons": (
        ("simulate", "image.tif", "out.tif", "--photons", "-5"),
        "photons at intensity 1 (peak, --photons) must be a positive number, got -5",
    ),
    "clean is output": (("simulate", "image.tif", "out.tif", "--clean", "out.tif"), "the output's own name"),
    "simulate constant": (("simulate", "constant.tif", "out.tif"), "the image is constant"),
    "shapes": (("score", "image.tif", "constant.tif"), "has the shape (40, 36) but the image (32, 32)"),
    "score nan": (("score", "image.tif", "holes.tif"), "NaN"),
    "demo in file": (("demo", "-o", "image.tif"), "image.tif is a file"),
    "demo below file": (("demo", "-o", "image.tif/demo"), "could not be made"),
}


def state(folder):
    """Every file's content; folders and links as such."""
    return {p.name: p.read_bytes() if p.is_file() else None for p in folder.iterdir()}


def refused(done, *words):
    assert done.code == 2, done
    assert len(done.lines) == 1, done.err
    assert done.err.startswith("selfinv: error: ")
    for word in words:
        assert word in done.err
    assert done.out == ""


@pytest.mark.parametrize(("arguments", "words"), [(a, w) for a, *w in MISTAKES.values()], ids=MISTAKES)
def test_a_mistake_is_one_line_that_helps_and_changes_nothing(command, folder, arguments, words):
    before = state(folder)
    refused(
        command(*arguments, *(("-q",) if arguments[0] in ("restore", "demo") else ()), folder=folder), *words
    )
    assert state(folder) == before


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU")
def test_a_gpu_that_is_not_there(folder):
    before = state(folder)
    refused(
        python(*FLAT, "--device", "cuda", folder=folder), "device='cuda' was asked for but", "'auto' or 'cpu'"
    )
    assert state(folder) == before


def test_a_pixel_type_that_would_leave_two_levels_is_refused_before_any_work(tmp_path, command):
    image = scene(32, 32)
    io.write(tmp_path / "unit.tif", (image / image.max()).astype(np.float32))
    arguments = ("restore", "unit.tif", "a.tif", "--method", "tv-chambolle-pock", "--dtype", "uint8")
    refused(command(*arguments, folder=tmp_path), "uint8 would leave it less than 8 levels", "float32")
    assert not (tmp_path / "a.tif").exists()


def test_guessed_axes_are_said(tmp_path, command):
    np.save(tmp_path / "frames.npy", np.stack([scene(32, 32)[..., None]] * 3, axis=-1)[..., 0, :])
    arguments = ("restore", "frames.npy", "a.npy", "--method", "tv-chambolle-pock", "--weight", 1)
    done = succeeded(command(*arguments, folder=tmp_path))
    assert "the file does not name its axes; taken as yxc (--axes tells them)" in done.err


def test_values_that_do_not_fit_are_refused_but_the_result_is_kept(tmp_path, command):
    io.write(tmp_path / "bright.tif", scene(32, 32) * 1.25)
    out, rescued = tmp_path / "a.tif", tmp_path / "a.tif.rescued.npy"
    arguments = (
        "restore",
        "bright.tif",
        out,
        "--method",
        "ssi-network",
        "--steps",
        10,
        "--dtype",
        "uint8",
        "-q",
    )
    done = command(*arguments, folder=tmp_path)
    assert done.code == 2
    before, after = done.lines
    assert before.startswith("selfinv: warning: ")
    assert "do not fit uint8, and those restored may not" in before
    for words in ("do not fit uint8 (0 to 255)", "--clip", f"float32, in {rescued}"):
        assert words in after
    assert not out.exists()
    kept = np.load(rescued)
    assert (kept.dtype, kept.shape) == (np.float32, (32, 32))
    rescued.unlink()

    done = succeeded(command(*arguments, "--clip", folder=tmp_path))
    outside = int((np.rint(kept) > 255).sum() + (np.rint(kept) < 0).sum())
    assert f"warning: {outside} of 1024 values lay outside uint8 and were clipped" in done.err
    np.testing.assert_array_equal(io.read(out).data, np.clip(np.rint(kept), 0, 255))
    assert sorted(os.listdir(tmp_path)) == ["a.tif", "a.tif.recipe.yaml", "bright.tif"]


@pytest.mark.parametrize("what", ["restore", "simulate", "psf"])
def test_a_full_disk_leaves_the_old_file_and_nothing_else(tmp_path, command, folder, what):
    out = tmp_path / "a.tif"
    out.write_bytes(b"old")
    arguments = {
        "restore": (
            "restore",
            "image.tif",
            out,
            "--psf",
            "psf.tif",
            "--method",
            "ssi-network",
            "--steps",
            10,
            "-q",
        ),
        "simulate": ("simulate", "image.tif", out),
        "psf": ("psf", "gaussian", "--sigma", 1, "--shape", "40,40", "-o", out),
    }[what]
    # No file may grow beyond 2000 bytes: a stand-in that the system itself enforces.
    refused(
        command(*arguments, folder=folder, file_size=2000),
        "a.tif could not be written",
        "nothing was changed",
    )
    assert out.read_bytes() == b"old"
    assert os.listdir(tmp_path) == ["a.tif"]


# ---- interruption ----


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM], ids=["SIGINT", "SIGTERM"])
def test_an_interrupted_run_writes_the_best_so_far(tmp_path, folder, number):
    out = tmp_path / "a.tif"
    arguments = (
        "restore",
        "image.tif",
        str(out),
        "--psf",
        "psf.tif",
        "--method",
        "ssi-network",
        "--steps",
        "100000",
    )
    with subprocess.Popen(
        [sys.executable, "-m", "selfinv.cli", *arguments],
        cwd=folder,
        env=ENVIRONMENT,
        stderr=subprocess.PIPE,
        text=True,
    ) as process:
        first = process.stderr.readline()
        process.send_signal(number)
        rest = process.stderr.read()
    assert first.startswith("selfinv: step 1/100000")
    assert process.returncode == 130
    assert re.search(
        r"stopped on request at step \d+ of 100000; this is the best result so far, which may be worse", rest
    )
    assert "Traceback" not in rest
    assert "nan" not in rest
    restored = io.read(out)
    assert restored.data.shape == (40, 36)
    assert np.isfinite(restored.data).all()
    assert sorted(os.listdir(tmp_path)) == ["a.tif", "a.tif.recipe.yaml"]
    assert "ended: interrupted" in (tmp_path / "a.tif.recipe.yaml").read_text()


@pytest.fixture
def in_process(monkeypatch, capsys):
    """Run a command in this process, where a signal can be timed exactly."""
    before = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}

    def run(*arguments):
        with pytest.raises(SystemExit) as ended:
            cli.main([str(a) for a in arguments])
        told = capsys.readouterr()
        return Done(ended.value.code, told.out, told.err)

    yield run
    for number, handler in before.items():
        signal.signal(number, handler)


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM], ids=["SIGINT", "SIGTERM"])
def test_an_interruption_before_the_first_step_writes_nothing(
    tmp_path, folder, monkeypatch, in_process, number
):
    from selfinv.learning.solver import SSI

    monkeypatch.setattr(SSI, "step", lambda self, state: os.kill(os.getpid(), number))
    done = in_process(
        "restore", folder / "image.tif", tmp_path / "a.tif", "--method", "ssi-network", "--steps", 10
    )
    assert done.code == 130
    assert done.err == "selfinv: interrupted before there was a result; nothing was written\n"
    assert os.listdir(tmp_path) == []


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM], ids=["SIGINT", "SIGTERM"])
def test_an_interruption_while_the_result_is_written_waits(tmp_path, folder, monkeypatch, in_process, number):
    write = io.write

    def interrupted(*arguments, **options):
        os.kill(os.getpid(), number)
        write(*arguments, **options)

    monkeypatch.setattr(io, "write", interrupted)
    done = in_process("apply", folder / "model.safetensors", folder / "image.tif", tmp_path / "a.tif")
    assert done.code == 0
    assert io.read(tmp_path / "a.tif").data.shape == (40, 36)


def test_a_reader_that_has_gone_ends_no_run(monkeypatch):
    from selfinv.cli.console import say

    reading, writing = os.pipe()
    os.close(reading)
    with os.fdopen(writing, "w") as stream:
        monkeypatch.setattr(sys, "stderr", stream)
        for _ in range(3):
            say("still at work")
        monkeypatch.undo()
        assert os.fstat(stream.fileno()).st_rdev == os.stat(os.devnull).st_rdev  # where the rest goes


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM], ids=["SIGINT", "SIGTERM"])
def test_a_signal_while_files_are_written_waits_until_they_are(number):
    """And is forgotten if they were all that was left to do."""
    from selfinv.cli.console import about, uninterrupted

    written = []
    before = signal.signal(number, lambda *_: written.append("told"))
    try:
        with uninterrupted(last=False):
            signal.raise_signal(number)
            written.append("file")
        with about("one of a batch"), uninterrupted():
            signal.raise_signal(number)
            written.append("another")
        with uninterrupted():
            signal.raise_signal(number)
            written.append("last")
    finally:
        signal.signal(number, before)
    assert written == ["file", "told", "another", "told", "last"]
