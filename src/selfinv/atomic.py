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
    beside = target.with_name(f".{secrets.token_hex(8)}{path.suffix if suffix is None else suffix}")
    try:
        yield beside
        with open(beside, "rb+") as stream:
            os.fsync(stream.fileno())
        if target.exists():
            with contextlib.suppress(OSError):  # some file systems have no permissions to copy
                shutil.copymode(target, beside)
        os.replace(beside, target)
    except OSError as error:
        why = (error.strerror or str(error)).lower()
        raise InputError(f"{path} could not be written: {why}; nothing was changed") from error
    finally:
        beside.unlink(missing_ok=True)
