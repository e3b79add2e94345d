"""Floor 0: files that are written whole or not at all."""

from __future__ import annotations

import contextlib
import os
import secrets
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from selfinv.types import InputError


def check_writable(path: str | os.PathLike[str]) -> None:
    """Find out before a long computation whether a file can be made beside ``path``.

    Permissions alone do not tell: there are folders that grant what they then refuse, /proc for one.

    Raises
    ------
    InputError
        If the operating system refuses, in its words.
    """
    target = Path(os.path.realpath(path))
    beside = _name_beside(target, ".tmp")
    try:
        beside.touch(exist_ok=False)
    except OSError as error:
        why = (error.strerror or str(error)).lower()
        raise InputError(
            f"{path} cannot be written: no file can be made in {target.parent} ({why}); write elsewhere"
        ) from error
    finally:
        with contextlib.suppress(OSError):
            beside.unlink()


def flush(path: Path) -> None:
    """Wait until a file, or a folder's list of names, is on the disk, where a power cut leaves it."""
    if path.is_dir():
        with contextlib.suppress(OSError):  # some systems do not let a folder be flushed
            _flush(path, os.O_RDONLY)
    else:
        _flush(path, os.O_RDWR)


def _flush(path: Path, flags: int) -> None:
    handle = os.open(path, flags)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def _name_beside(target: Path, suffix: str) -> Path:
    return target.with_name(f".{secrets.token_hex(8)}{suffix}")


@contextmanager
def written_beside(path: str | os.PathLike[str], *, suffix: str | None = None) -> Iterator[Path]:
    """A new name beside ``path`` to write to, renamed to ``path`` only when the block has ended well.

    If it raises, an existing ``path`` stays as it was and nothing is left behind.

    Parameters
    ----------
    suffix
        Ending of the temporary name, because writers look at it; by default that of ``path``.

    Raises
    ------
    InputError
        If the operating system refuses (disk full, no permission), in its words.
    """
    path = Path(path)
    target = Path(os.path.realpath(path))  # through a symbolic link, so that the link stays one
    beside = _name_beside(target, path.suffix if suffix is None else suffix)
    try:
        yield beside
        flush(beside)
        if target.exists():
            with contextlib.suppress(OSError):  # some file systems have no permissions to copy
                shutil.copymode(target, beside)
        os.replace(beside, target)
    except OSError as error:
        why = (error.strerror or str(error)).lower()
        raise InputError(f"{path} could not be written: {why}; nothing was changed") from error
    finally:
        beside.unlink(missing_ok=True)
