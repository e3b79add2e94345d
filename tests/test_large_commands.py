"""Larger than memory, from the shell: train, apply, restore, killed in the middle."""

import json
import os
import re
import shutil
import signal
import subprocess
import sys
import time

import numpy as np
import pytest
import tifffile

import selfinv
from selfinv import cli, large, model_file
from selfinv.io.lazy import open_lazily

zarr = pytest.importorskip("zarr")
pytest.importorskip("distributed")

RNG = np.random.default_rng
TV = ("--method", "tv-chambolle-pock")
UNTUNED = ("--method", "richardson-lucy", "--steps", "40")


@pytest.fixture
def folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    grid = np.indices((300, 320)) / 9.0
    scene = 100 + 40 * np.sin(grid[0]) * np.cos(grid[1])
    frames = np.stack([scene + RNG(i).normal(0, 5, scene.shape) for i in range(4)]).astype("f4")
    tifffile.imwrite("frames.tif", frames, imagej=True, metadata={"axes": "TYX"})
    tifffile.imwrite("psf.tif", selfinv.psf.gaussian(1.2, (9, 9)).astype("f4"))
    return tmp_path


def run(capsys, *arguments):
    with pytest.raises(SystemExit) as ended:
        cli.main([str(a) for a in arguments])
    return ended.value.code, capsys.readouterr().err


def values(path):
    return zarr.open_group(path, mode="r")["0"][:]


def test_train_then_apply_to_the_rest(folder, capsys):
    code, told = run(capsys, "train", "frames.tif", "m.safetensors", "--psf", "psf.tif", "--steps", 30)
    assert code == 0
    assert len(re.findall(r"learned from frame \d \(", told)) >= 2
    code, told = run(capsys, "apply", "m.safetensors", "frames.tif", "out.zarr", "--workers", 0)
    assert code == 0, told
    assert "4 tiles" in told
    assert open_lazily("out.zarr").axes == "tyx"
    one, _ = run(capsys, "apply", "m.safetensors", "frames.tif", "out.tif", "-q")
    assert one == 0
    assert np.abs(values("out.zarr") - tifffile.imread("out.tif")).max() < 0.5
    assert (folder / "out.zarr.recipe.yaml").exists()


def test_what_was_learned_from_is_said_in_words(folder, capsys):
    """Of a flat NPY, whose axes leave no doubt, nothing is said about them, as 'restore' does not."""
    frame = tifffile.imread("frames.tif")[0]
    np.save("flat.npy", frame)
    code, told = run(capsys, "train", "flat.npy", "m.safetensors", "--steps", 3)
    assert code == 0
    assert "learned from the whole image (" in told
    assert "axes" not in told
    np.save("wide.npy", np.tile(frame, (1, 3)))
    code, told = run(capsys, "train", "wide.npy", "m.safetensors", "--steps", 3, "--pieces", 1)
    first, last = re.search(r"learned from columns (\d+) to (\d+) \(", told).groups()
    assert int(last) - int(first) == 511


def test_restore_to_zarr_trains_and_keeps_its_network(folder, capsys):
    arguments = ("restore", "frames.tif", "out.zarr", "--psf", "psf.tif", "--steps", 20, "--workers", 0)
    code, told = run(capsys, *arguments, "--method", "ssi-network")
    assert code == 0, told
    assert re.search(r"wrote out.zarr: 4 tiles of .*, in \d+ s, after \d+ s of training", told)
    assert (folder / "out.model.safetensors").exists()
    code, told = run(capsys, *arguments)
    assert code == 2
    assert "exists already" in told
    code, told = run(capsys, *arguments[:-4], "--workers", 0, *TV, "--overwrite", "--dtype", "uint16")
    assert code == 0, told
    assert values("out.zarr").dtype == np.uint16


def test_what_cannot_be_is_told_before_training_and_what_ended_after_it_goes_on(folder, capsys):
    arguments = ("restore", "frames.tif", "out.zarr", "--psf", "psf.tif", "--steps", 10, "--workers", 0)
    arguments += ("--method", "ssi-network")
    code, told = run(capsys, *arguments, "--memory", "300MiB")
    assert code == 2
    assert "is less than the libraries take" in told
    assert not (folder / "out.model.safetensors").exists()
    code, told = run(capsys, *arguments, "--memory", "460MiB")  # for a network's tiles too little
    assert code == 2
    assert (folder / "out.model.safetensors").exists()
    trained = (folder / "out.model.safetensors").read_bytes()
    code, told = run(capsys, *arguments, "--resume")
    assert code == 0, told
    assert (folder / "out.model.safetensors").read_bytes() == trained
    assert values("out.zarr").shape == (4, 300, 320)


def test_a_network_of_another_image_or_psf_is_not_gone_on_with(folder, capsys):
    first = ("restore", "frames.tif", "out.zarr", "--psf", "psf.tif", "--workers", 0)
    network = ("--method", "ssi-network", "--steps", 10)
    assert run(capsys, *first, *network)[0] == 0
    trained = (folder / "out.model.safetensors").read_bytes()
    shutil.rmtree("out.zarr")
    tifffile.imwrite("other.tif", tifffile.imread("frames.tif")[::-1] * 2.0 + 5.0)
    other = ("restore", "other.tif", *first[2:])
    code, told = run(capsys, *other, *network, "--resume")
    assert code == 0, told
    assert (folder / "out.model.safetensors").read_bytes() != trained
    (folder / "out.zarr.journal.jsonl").write_text(json.dumps({"job": {}}) + "\n")
    code, told = run(capsys, *first, *network, "--resume")
    assert code == 2
    assert "was begun otherwise: input is another one" in told
    code, told = run(capsys, *other, *network, "--seed", 3, "--resume")
    assert code == 2
    assert "seed was 0 and is 3" in told


@pytest.mark.parametrize("method", [UNTUNED, ("--method", "ssi-network", "--steps", 3)])
def test_a_run_does_not_go_on_with_a_psf_of_the_same_numbers_in_another_shape(folder, capsys, method):
    frames = tifffile.imread("frames.tif")[:2, :64, :64]
    frames[1, 5, 5] = np.nan  # so that a tile is left to be done
    np.save("holes.npy", frames)
    np.save("wide.npy", np.full((1, 9), 1 / 9))
    np.save("high.npy", np.full((9, 1), 1 / 9))
    command = ("restore", "holes.npy", "out.zarr", "--axes", "tyx", "--workers", 0, "-q", *method)
    assert run(capsys, *command, "--psf", "wide.npy")[0] == 1
    code, told = run(capsys, *command, "--psf", "high.npy", "--resume", "--mask-nan")
    assert (code, len(told.splitlines())) == (2, 1), told
    assert "was begun otherwise" in told
    assert run(capsys, *command, "--psf", "wide.npy", "--resume", "--mask-nan")[0] == 0


@pytest.mark.parametrize("method", [UNTUNED, ("--method", "ssi-network", "--steps", 5)])
def test_a_model_that_the_user_has_put_there_stays(folder, capsys, method):
    assert run(capsys, "train", "frames.tif", "out.model.safetensors", "--steps", 5, "-q")[0] == 0
    own = (folder / "out.model.safetensors").read_bytes()
    restore = ("restore", "frames.tif", "out.zarr", "--workers", 0, "--overwrite", *method)
    for kept in (own, b"of another program"):
        (folder / "out.model.safetensors").write_bytes(kept)
        code, told = run(capsys, *restore)
        assert (code, len(told.splitlines())) == (2, 1), told
        assert re.search(
            "out.model.safetensors is where a network for out.zarr is kept, and .* is there", told
        )
        assert (folder / "out.model.safetensors").read_bytes() == kept
        assert not (folder / "out.zarr").exists()


@pytest.mark.parametrize("option", ["--overwrite", "--resume"])
def test_a_network_that_an_older_version_has_kept_is_replaced(folder, capsys, monkeypatch, option):
    restore = ("restore", "frames.tif", "out.zarr", "--workers", 0, "--method", "ssi-network", "--steps", 5)
    with monkeypatch.context() as older:
        older.setattr(model_file, "FORMAT_VERSION", 1)
        assert run(capsys, *restore)[0] == 0
    if option == "--resume":  # it goes on with no tile
        shutil.rmtree("out.zarr")
        (folder / "out.zarr.journal.jsonl").write_text(json.dumps({"job": {}}) + "\n")
        (folder / "out.zarr.part").mkdir()
        code, told = run(capsys, *restore, option)
        assert (code, "is older than this program's" in told) == (2, True)  # tiles of it may be there
        shutil.rmtree("out.zarr.part")
    code, told = run(capsys, *restore, option)
    assert code == 0, told
    selfinv.load_model("out.model.safetensors")


def test_nothing_is_gone_on_with_where_the_result_was_removed(folder, capsys):
    frames = tifffile.imread("frames.tif")
    frames[1, 5, 5] = np.nan
    np.save("holes.npy", frames)
    command = ("restore", "holes.npy", "out.zarr", "--axes", "tyx", "--workers", 0, "-q", *UNTUNED)
    assert run(capsys, *command)[0] == 1
    shutil.rmtree("out.zarr")
    assert (folder / "out.zarr.journal.jsonl").exists()
    code, told = run(capsys, *command, "--resume", "--mask-nan")
    assert (code, told.splitlines()) == (2, [told.strip()])
    assert "there is no unfinished run at" in told
    assert run(capsys, *command, "--mask-nan")[0] == 0
    assert np.isfinite(values("out.zarr")).all()


def test_what_ctrl_c_leaves_of_a_training_is_said(folder, capsys, interrupt_training):
    interrupt_training()
    options = ("--psf", "psf.tif", "--method", "ssi-network", "--steps", 9, "-q")
    code, told = run(capsys, "train", "frames.tif", "m.safetensors", *options)
    assert code == 130
    assert re.search(r"stopped on request.*\n.*wrote m.safetensors", told)
    assert run(capsys, "apply", "m.safetensors", "frames.tif", "one.zarr", "--workers", 0)[0] == 0
    interrupt_training()
    before = sorted(folder.iterdir())
    code, told = run(capsys, "restore", "frames.tif", "out.zarr", *options)
    assert code == 130
    assert told == "selfinv: interrupted before there was a result; nothing was written\n"
    assert sorted(folder.iterdir()) == before


def test_denoising_to_zarr_takes_the_same_options(folder, capsys):
    arguments = ("denoise", "frames.tif", "out.zarr", "--steps", 20, "--workers", 0, "--symmetries", 1)
    for _ in range(2):
        code, told = run(capsys, *arguments, "--method", "ssi-network", "--overwrite")
        assert code == 0, told
    assert (folder / "out.zarr.recipe.yaml").exists()
    assert values("out.zarr").shape == tifffile.imread("frames.tif").shape


def test_an_extension_of_a_fits_file_goes_to_zarr(folder, capsys):
    fits = pytest.importorskip("astropy.io.fits")
    frames = tifffile.imread("frames.tif")
    extensions = (fits.ImageHDU(frames[i], name=name) for i, name in enumerate(("SCI", "REF")))
    fits.HDUList([fits.PrimaryHDU(), *extensions]).writeto("m.fits")
    command = ("denoise", "m.fits[REF]", "out.zarr", "--method", "wiener", "--workers", 0, "-q")
    code, told = run(capsys, *command)
    assert code == 0, told
    assert np.abs(values("out.zarr") - frames[1]).mean() < np.abs(values("out.zarr") - frames[0]).mean()


def test_killed_at_any_moment_and_gone_on_with(folder, capsys):
    frames = np.concatenate([tifffile.imread("frames.tif")] * 6)
    np.save("many.npy", frames)
    common = ["many.npy", "--psf", "psf.tif", "--axes", "tyx", "--workers", "2", *UNTUNED]
    whole = [sys.executable, "-m", "selfinv", "restore", common[0], "whole.zarr", *common[1:]]
    subprocess.run(whole, check=True, capture_output=True)
    command = [sys.executable, "-m", "selfinv", "restore", common[0], "out.zarr", *common[1:]]
    job = subprocess.Popen(command, start_new_session=True, stderr=subprocess.PIPE)
    journal = folder / "out.zarr.journal.jsonl"
    while job.poll() is None and not (journal.exists() and journal.read_text().count('"tile"') >= 5):
        time.sleep(0.01)
    os.killpg(job.pid, signal.SIGKILL)
    job.wait()
    before = [json.loads(line)["tile"] for line in journal.read_text().splitlines()[1:]]
    assert 5 <= len(before) < 24
    assert not (folder / "out.zarr").exists()
    done = subprocess.run([*command, "--resume"], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert re.search(rf"24 tiles of .*, {len(before)} of them earlier", done.stderr)  # nothing twice
    assert [path.name for path in folder.glob("out.zarr.*")] == ["out.zarr.recipe.yaml"]
    assert np.array_equal(values("out.zarr"), values("whole.zarr"))


def test_ctrl_c_ends_the_run_and_keeps_what_is_done(folder):
    np.save("many.npy", np.concatenate([tifffile.imread("frames.tif")] * 10))
    command = [sys.executable, "-m", "selfinv", "restore", "many.npy", "out.zarr", "--axes", "tyx"]
    job = subprocess.Popen(
        [*command, "--psf", "psf.tif", "--workers", "1", *UNTUNED], stderr=subprocess.PIPE, text=True
    )
    journal = folder / "out.zarr.journal.jsonl"
    while job.poll() is None and not (journal.exists() and journal.read_text().count('"tile"') >= 2):
        time.sleep(0.01)
    job.send_signal(signal.SIGINT)
    _, told = job.communicate(timeout=60)
    assert job.returncode == 130
    assert "--resume goes on" in told
    assert "Traceback" not in told
    assert "distributed" not in told
    again = [*command, "--psf", "psf.tif", "--workers", "1", *UNTUNED, "--resume"]
    done = subprocess.run(again, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


def test_a_zarr_is_made_again_from_its_recipe(folder, capsys):
    common = ("--psf", "psf.tif", "--workers", 0, *UNTUNED)
    assert run(capsys, "restore", "frames.tif", "one.zarr", *common)[0] == 0
    assert run(capsys, "restore", "one.zarr", "two.zarr", *common)[0] == 0
    before = values("two.zarr")
    code, told = run(capsys, "batch", "two.zarr.recipe.yaml")
    assert code == 0, told
    assert "byte for byte" not in told  # nobody has looked at all its values
    assert np.array_equal(values("two.zarr"), before)
    code, told = run(capsys, "batch", "two.zarr.recipe.yaml", "--resume")
    assert "kept two.zarr" in told
    zarr.open_group("one.zarr")["0"][0, :9] += 5.0
    code, told = run(capsys, "batch", "two.zarr.recipe.yaml", "--resume")
    assert "wrote two.zarr" in told
    assert not np.array_equal(values("two.zarr"), before)


def test_a_batch_goes_on_with_tiles_that_are_done(folder, capsys, monkeypatch):
    (folder / "r.yaml").write_text(
        "command: restore\ninputs: frames.tif\noutput: out.zarr\n"
        "options: {psf: psf.tif, method: richardson-lucy, steps: 2, workers: 0}\n"
    )
    from selfinv.large.restorers import ClassicalRestorer

    whole, done = ClassicalRestorer.restore, []

    def third(self, *arguments):
        done.append(1)
        if len(done) == 3:
            os.kill(os.getpid(), signal.SIGTERM)
        return whole(self, *arguments)

    monkeypatch.setattr(ClassicalRestorer, "restore", third)
    assert run(capsys, "batch", "r.yaml")[0] == 130
    earlier = (folder / "out.zarr.journal.jsonl").read_text().count('"tile"')
    assert earlier
    code, told = run(capsys, "batch", "r.yaml", "--resume")
    assert code == 0, told
    assert f"{earlier} of them earlier" in told
    code, told = run(capsys, "batch", "r.yaml", "--resume")
    assert (code, "kept out.zarr" in told) == (0, True)
    recipe = folder / "r.yaml"
    recipe.write_text(recipe.read_text().replace("steps: 2", "steps: 3"))
    done.clear()
    assert run(capsys, "batch", "r.yaml", "--resume")[0] == 130
    recipe.write_text(recipe.read_text().replace("steps: 3", "steps: 4"))
    code, told = run(capsys, "batch", "r.yaml", "--resume")  # other tiles are no part of it
    assert (code, "earlier" in told) == (0, False), told


def test_a_tile_that_fails_is_one_line(folder):
    frames = tifffile.imread("frames.tif")
    frames[1, 5, 5] = np.nan
    np.save("holes.npy", frames)
    command = [sys.executable, "-m", "selfinv", "restore", "holes.npy", "out.zarr", "--axes", "tyx"]
    command += ["--psf", "psf.tif", "--workers", "1", "-q", *TV]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 1
    first, second = done.stderr.strip().splitlines()
    assert re.match(r"selfinv: not restored: t 1:2, .*: 1 values are NaN", first)
    assert second.endswith("1 tile is left empty (NaN, or 0); --resume --mask-nan tries again")


@pytest.mark.parametrize("method", [TV, ("--method", "ssi-network", "--steps", 5)])
def test_tiles_that_lacked_mask_nan_are_gone_on_with(folder, capsys, method):
    frames = tifffile.imread("frames.tif")
    frames[1, 5, 5] = np.nan
    frames[2] = np.nan
    np.save("holes.npy", frames)
    command = ("restore", "holes.npy", "out.zarr", "--axes", "tyx", "--workers", 0, "-q", *method)
    assert run(capsys, *command)[0] == 1
    before = values("out.zarr")
    code, told = run(capsys, *command, "--resume", "--mask-nan")
    assert code == 1
    assert told.splitlines()[-1].endswith("1 tile is left empty (NaN, or 0)")  # nothing would help
    after = values("out.zarr")
    assert np.isfinite(after[1]).all()
    assert np.array_equal(after[[0, 3]], before[[0, 3]])


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["restore", "frames.tif", "out.tif", "--memory", "1GiB"], "--memory is for an OUTPUT that ends in"),
        (
            ["denoise", "frames.tif", "out.tif", "--symmetries", "2"],
            "--symmetries is for an OUTPUT that ends",
        ),
        (["restore", "frames.tif", "out.zarr", "--memory", "much"], "memory 'much' is not understood"),
        (["restore", "frames.tif", "out.zarr", "--memory", "1e999"], "memory '1e999' is not understood"),
        (["restore", "frames.tif", "out.zarr", "--weight", "1", *TV], "--weight is not for an OUTPUT"),
        (["restore", "frames.tif", "out.zarr", "--boundary", "zero"], "what lies beyond a tile is unknown"),
        (["restore", "nothing.zarr", "out.zarr"], "nothing.zarr does not exist"),
        (["denoise", "frames.tif", "out.zarr", "--dtype", "uint7"], "unknown pixel type 'uint7'"),
        (["denoise", "line.npy", "out.zarr"], "OME-Zarr needs the axes y and x, but the image has 'x'"),
        (
            ["denoise", "frames.tif", "out.zarr", "--memory", "460MiB", *TV],
            "a tile of 300 × 320 with its surroundings takes .* allow more .--memory",
        ),
        (["restore", "empty.zarr", "out.zarr"], "empty.zarr"),
        (["restore", "empty.zarr", "out.tif"], "give OUTPUT the ending .zarr"),
        (["restore", "frames.tif", "out.zarr", "--resume"], "there is no unfinished run"),
        (["train", "frames.tif", "m.tif"], "safetensors"),
        (["train", "frames.tif", "m.safetensors", *TV], "trains no network"),
        (["apply", "frames.tif", "frames.tif", "out.zarr"], "not a model file; expected one"),
    ],
)
def test_a_mistake_is_one_line_with_status_2_and_writes_nothing(
    folder, capsys, monkeypatch, arguments, words
):
    """Before anything is trained or tuned for."""
    monkeypatch.setattr(large.front, "choose_pieces", lambda *_, **__: pytest.fail("this is training"))
    (folder / "empty.zarr").mkdir()
    np.save("line.npy", np.arange(3000.0))
    code, told = run(capsys, *arguments, *(["-q"] if "train" in arguments else []))
    assert code == 2, told
    assert len(told.strip().splitlines()) == 1, told
    assert re.search(words, told)
    assert not list(folder.glob("out*"))
    assert not (folder / "m.safetensors").exists()
