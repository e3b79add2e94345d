"""A file is written whole or not at all, and what cannot be written is known before the work starts."""

import errno
import os
import resource
import subprocess
import sys
from contextlib import contextmanager

import numpy as np
import pytest
import torch

from selfinv.io import Image, check_output, files, read, write
from selfinv.types import InputError

DATA = np.arange(20, dtype=np.uint8).reshape(4, 5)
NAMES = ("a.tif", "a.ome.tif", "a.png", "a.npy", "a.fits")


def refused(path, **options):
    with pytest.raises(InputError) as error:
        check_output(path, **options)
    assert "\n" not in str(error.value)
    return str(error.value)


@contextmanager
def small_disk(size):
    """Let no file grow beyond ``size`` bytes: a real failure in the middle of writing."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


@pytest.mark.parametrize("name", NAMES)
def test_a_write_that_breaks_off_leaves_the_old_file(tmp_path, name):
    if name == "a.fits":
        pytest.importorskip("astropy")
    path = tmp_path / name
    write(path, DATA)
    before = path.read_bytes()
    noise = np.random.default_rng(0).integers(0, 255, (600, 700), np.uint8)
    with small_disk(100_000), pytest.raises(InputError, match=r"could not be written: .*nothing was changed"):
        write(path, noise)
    assert path.read_bytes() == before
    assert os.listdir(tmp_path) == [name]
    write(path, noise)
    np.testing.assert_array_equal(read(path).data, noise)


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("step", ["fsync", "replace"])
def test_a_full_disk_leaves_the_old_file(tmp_path, monkeypatch, name, step):
    if name == "a.fits":
        pytest.importorskip("astropy")
    path = tmp_path / name
    write(path, DATA)
    before = path.read_bytes()

    def full(*args):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(os, step, full)
    with pytest.raises(InputError, match="no space left on device; nothing was changed"):
        write(path, DATA + 1)
    assert path.read_bytes() == before
    assert os.listdir(tmp_path) == [name]


@pytest.mark.parametrize("failure", [KeyboardInterrupt, RuntimeError])
def test_an_interruption_leaves_nothing_behind(tmp_path, monkeypatch, failure):
    def stop(*args):
        raise failure

    monkeypatch.setattr(os, "fsync", stop)
    with pytest.raises(failure):
        write(tmp_path / "a.tif", DATA)
    assert not os.listdir(tmp_path)


def test_the_file_is_complete_before_it_takes_its_name(tmp_path, monkeypatch):
    path = tmp_path / "a.tif"
    steps = []
    replace = os.replace

    def watched(source, target):
        assert steps == ["fsync"]
        assert not path.exists()
        np.testing.assert_array_equal(read(source).data, DATA)
        assert os.path.dirname(source) == str(tmp_path)
        replace(source, target)

    monkeypatch.setattr(os, "fsync", lambda number: steps.append("fsync"))
    monkeypatch.setattr(os, "replace", watched)
    write(path, DATA)
    np.testing.assert_array_equal(read(path).data, DATA)


def test_permissions_and_links_stay(tmp_path):
    write(tmp_path / "real.tif", DATA)
    umask = os.umask(0)
    os.umask(umask)
    assert (tmp_path / "real.tif").stat().st_mode & 0o777 == 0o666 & ~umask
    (tmp_path / "real.tif").chmod(0o640)
    (tmp_path / "link.tif").symlink_to("real.tif")
    write(tmp_path / "link.tif", DATA + 1)
    assert (tmp_path / "link.tif").is_symlink()
    assert (tmp_path / "real.tif").stat().st_mode & 0o777 == 0o640
    np.testing.assert_array_equal(read(tmp_path / "real.tif").data, DATA + 1)


def test_awkward_names(tmp_path):
    for name in ("µ 100% [a] 'b'.tif", "A.TIF", "-x.png", "a.b.c.npy", "n" * 250 + ".tif"):
        write(tmp_path / name, DATA)
        np.testing.assert_array_equal(read(tmp_path / name).data, DATA)


def test_nothing_is_overwritten_unasked(tmp_path):
    write(tmp_path / "a.tif", DATA)
    with pytest.raises(InputError, match="exists already"):
        write(tmp_path / "a.tif", DATA + 1, overwrite=False)
    np.testing.assert_array_equal(read(tmp_path / "a.tif").data, DATA)
    write(tmp_path / "b.tif", DATA, overwrite=False)


@pytest.mark.parametrize(
    "bad", [np.zeros((2, 2), complex), np.zeros((0, 2)), np.array([[None]]), np.float32(1)]
)
def test_what_is_no_image_is_not_written(tmp_path, bad):
    with pytest.raises(InputError, match="the image to write"):
        write(tmp_path / "a.npy", bad)
    assert not os.listdir(tmp_path)


@pytest.mark.parametrize(
    ("path", "words"),
    [
        (None, "None is no path"),
        ("a\0.tif", "null character"),
        (f"{'a' * 300}.tif", "too long for a file's name"),
    ],
)
def test_what_is_no_path_is_said_to_be_none(path, words):
    for call in (lambda: write(path, DATA), lambda: read(path), lambda: check_output(path)):
        with pytest.raises(InputError, match=words):
            call()


def test_a_tensor_is_written_and_masked_values_are_not(tmp_path):
    write(tmp_path / "a.npy", torch.ones(3, 4).requires_grad_())
    assert read(tmp_path / "a.npy").data.tolist() == np.ones((3, 4)).tolist()
    for bad in (np.ma.masked_equal(DATA, 7), Image(np.ma.masked_equal(DATA, 7)), [[1, 2], [3]]):
        with pytest.raises(InputError, match=r"the image to write(:| is a masked array with 1 masked)"):
            write(tmp_path / "b.npy", bad)


def test_axes_that_do_not_match_are_refused(tmp_path):
    with pytest.raises(InputError, match="names 3 axes but the image has 2"):
        write(tmp_path / "a.tif", Image(DATA, "zyx"))


# --- check_output ------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["a.jpg", "a", ".tif", "a.tif.zip"])
def test_unknown_extension(tmp_path, name):
    text = refused(tmp_path / name)
    assert "extension" in text
    assert all(suffix in text for suffix in (".ome.tif", ".png", ".npy", ".fits"))


def test_folders(tmp_path):
    (tmp_path / "a.tif").mkdir()
    assert "is a folder" in refused(tmp_path / "a.tif")
    assert "does not exist" in refused(tmp_path / "nowhere" / "b.tif")
    check_output(tmp_path / "b.tif")
    assert os.listdir(tmp_path) == ["a.tif"]  # checking makes nothing


def test_the_current_folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    check_output("b.tif")
    write("b.tif", DATA)
    assert os.listdir(tmp_path) == ["b.tif"]


def test_read_only_folder_and_file(tmp_path, monkeypatch):
    # Root may write anywhere, so the refusals are made up.
    write(tmp_path / "a.tif", DATA)
    monkeypatch.setattr(files.os, "access", lambda path, mode: not os.path.isdir(path))
    assert "is read-only" in refused(tmp_path / "a.tif")
    monkeypatch.setattr(files.os, "access", lambda path, mode: os.path.isdir(path))
    assert "read-only" in refused(tmp_path / "a.tif")
    check_output(tmp_path / "b.tif")


@pytest.mark.skipif(not os.path.isdir("/proc/self"), reason="a folder that grants what it refuses")
def test_a_folder_in_which_no_file_can_be_made_is_known_before_any_work():
    with pytest.raises(InputError, match=r"/proc/o.npy cannot be written|read-only"):
        check_output("/proc/o.npy")


def test_the_output_is_not_an_input_by_any_name(tmp_path, monkeypatch):
    write(tmp_path / "a.tif", DATA)
    write(tmp_path / "psf.tif", DATA)
    (tmp_path / "link.tif").symlink_to("a.tif")
    os.link(tmp_path / "psf.tif", tmp_path / "hard.tif")
    monkeypatch.chdir(tmp_path)
    inputs = (tmp_path / "missing.tif", tmp_path / "a.tif", "psf.tif")
    for same in (
        "a.tif",
        "./a.tif",
        f"../{tmp_path.name}/a.tif",
        tmp_path / "link.tif",
        "psf.tif",
        "hard.tif",
    ):
        assert "same file as the input" in refused(same, inputs=inputs)
    check_output("b.tif", inputs=inputs)


def test_types_and_shapes_that_a_format_cannot_hold(tmp_path):
    assert "PNG cannot hold float32" in refused(tmp_path / "a.png", dtype="float32")
    assert "PNG cannot hold int32" in refused(tmp_path / "a.png", dtype=np.int32)
    check_output(tmp_path / "a.png", dtype="uint16")
    assert "OME-TIFF cannot hold float16" in refused(tmp_path / "a.ome.tif", dtype="float16")
    assert "unknown pixel type" in refused(tmp_path / "a.tif", dtype="float31")
    assert "one flat image" in refused(tmp_path / "a.png", shape=(5, 6, 7), axes="zyx")
    assert "one flat image" in refused(tmp_path / "a.png", shape=(2, 6, 7), axes="cyx")
    check_output(tmp_path / "a.png", shape=(1, 6, 7), axes="zyx")
    with pytest.raises(InputError, match="PNG cannot hold float64"):
        write(tmp_path / "a.png", DATA * 1.0)


def test_importing_needs_only_numpy():
    code = (
        "import sys, selfinv.io; "
        "print([m for m in ('tifffile', 'imagecodecs', 'astropy', 'torch') if m in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
