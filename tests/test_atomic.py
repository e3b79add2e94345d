"""A file is there whole or as it was before, whatever happens in between."""

import errno
import os
import stat

import pytest

from selfinv.atomic import check_writable, written_beside
from selfinv.types import InputError


def write(path, content, error=None):
    """Write through a name beside, breaking off with ``error`` after the content."""
    with written_beside(path) as beside:
        beside.write_bytes(content)
        if error is not None:
            raise error


@pytest.fixture
def target(tmp_path):
    path = tmp_path / "result.tif"
    path.write_bytes(b"old")
    return path


def test_the_new_content_replaces_the_old_only_at_the_end(target):
    with written_beside(target) as beside:
        assert beside.parent == target.parent  # else the rename is a copy, which can break off
        assert beside.suffix == ".tif"
        beside.write_bytes(b"new")
        assert target.read_bytes() == b"old"
    assert target.read_bytes() == b"new"
    assert os.listdir(target.parent) == ["result.tif"]


def test_whether_a_file_can_be_made_is_known_before_and_leaves_nothing(target, monkeypatch):
    check_writable(target)
    assert os.listdir(target.parent) == ["result.tif"]

    def refuse(*args, **kwargs):
        raise OSError(errno.EDQUOT, "Disk quota exceeded")

    monkeypatch.setattr("pathlib.Path.touch", refuse)
    with pytest.raises(InputError, match=r"result.tif cannot be written: .* \(disk quota exceeded\)"):
        check_writable(target)
    assert target.read_bytes() == b"old"


def test_another_ending_for_writers_that_look_at_it(target):
    with written_beside(target, suffix=".ome.tif") as beside:
        assert beside.name.endswith(".ome.tif")
        beside.write_bytes(b"new")
    assert target.read_bytes() == b"new"


@pytest.mark.parametrize("error", [RuntimeError, KeyboardInterrupt, InputError, SystemExit])
def test_an_exception_leaves_everything_as_it_was_and_passes(target, error):
    with pytest.raises(error, match="why"):
        write(target, b"half", error("why"))
    assert target.read_bytes() == b"old"
    assert os.listdir(target.parent) == ["result.tif"]


@pytest.mark.parametrize("step", ["write", "fsync", "replace"])
def test_a_disk_error_is_told_in_the_systems_words(target, monkeypatch, step):
    full = OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    def fail(*args):
        raise full

    if step != "write":
        monkeypatch.setattr(os, step, fail)
    with pytest.raises(InputError, match=r"result\.tif could not be written: no space.*nothing was changed"):
        write(target, b"half", full if step == "write" else None)
    assert target.read_bytes() == b"old"
    assert os.listdir(target.parent) == ["result.tif"]


def test_nothing_written_is_an_error_not_a_missing_file(target):
    with pytest.raises(InputError, match="could not be written"), written_beside(target):
        pass
    assert target.read_bytes() == b"old"


def test_a_missing_folder_is_named(tmp_path):
    with pytest.raises(InputError, match=r"nowhere.*no such file"):
        write(tmp_path / "nowhere" / "a.tif", b"new")


@pytest.mark.parametrize("there", [True, False], ids=["target exists", "dangling"])
def test_a_symbolic_link_stays_one(tmp_path, there):
    (tmp_path / "data").mkdir()
    target, link = tmp_path / "data" / "real.tif", tmp_path / "link.tif"
    if there:
        target.write_bytes(b"old")
    link.symlink_to(target)
    write(link, b"new")
    assert link.is_symlink()
    assert target.read_bytes() == b"new"
    assert sorted(os.listdir(tmp_path)) == ["data", "link.tif"]
    assert os.listdir(tmp_path / "data") == ["real.tif"]


@pytest.mark.parametrize("mode", [0o600, 0o664])
def test_the_permissions_are_kept(target, mode):
    target.chmod(mode)
    write(target, b"new")
    assert stat.S_IMODE(target.stat().st_mode) == mode


def test_a_new_file_has_the_usual_permissions(tmp_path):
    before = os.umask(0o027)
    try:
        write(tmp_path / "new.tif", b"new")
    finally:
        os.umask(before)
    assert stat.S_IMODE((tmp_path / "new.tif").stat().st_mode) == 0o640
