"""Paths to images and images to paths: which format it is, what is wrong with it, and whole files only."""

from __future__ import annotations

import difflib
import errno
import os
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import numpy.typing as npt

from selfinv.atomic import check_writable, written_beside
from selfinv.io.casting import as_dtype, cast
from selfinv.io.fits import FITS, parted
from selfinv.io.image import Format, Image, micrometres, numeric
from selfinv.io.npy import NPY
from selfinv.io.png import PNG
from selfinv.io.tiff import TIFF
from selfinv.types import Array, InputError, Shape, as_array, parse_axes, shown

FilePath = str | os.PathLike[str]

FORMATS = (TIFF, PNG, NPY, FITS)
KNOWN = ", ".join(f"{known.name} ({' '.join(known.suffixes)})" for known in FORMATS)
_STRANGERS = {
    b"\xff\xd8\xff": "JPEG",
    b"\x89HDF": "HDF5",
    b"PK\x03\x04": "ZIP",
    b"GIF8": "GIF",
    b"%PDF": "PDF",
}


def read(path: FilePath, *, axes: str | None = None) -> Image:
    """Read an image, its axes and its voxel sizes (µm) from a TIFF, PNG, NPY or FITS file.

    The content decides the format, not the file's name. Of a FITS file the first image is read, or the
    extension that is named behind it: ``m31.fits[DQ]``, ``m31.fits[2]``, ``m31.fits[SCI,2]``. The order of
    the axes is kept as stored; those of length 1 among ``tcz`` that a TIFF names are left out. ``axes``
    overrides what the file says.

    Raises
    ------
    InputError
        If the file is missing, unreadable, empty, truncated, corrupt or of an unknown kind; if its values are
        not real numbers; or if ``axes`` does not match them.

    Examples
    --------
    >>> image = read("cells.ome.tif")                     # doctest: +SKIP
    >>> image.axes, image.data.shape, image.voxel_size    # doctest: +SKIP
    ('zyx', (40, 512, 512), {'z': 0.3, 'y': 0.1, 'x': 0.1})
    """
    path = _path(path)
    known = format_of(path)
    with reading(path, known.name):
        image = known.read(path)
    data = numeric(image.data, str(path))
    letters = parse_axes(axes, data.ndim).axes if axes is not None else image.axes
    voxel_size = {a: size for a, size in image.voxel_size.items() if letters is None or a in letters}
    return replace(image, data=data, axes=letters, voxel_size=voxel_size)


def format_of(path: Path) -> Format:
    """The format of a file, by its content; raise `InputError` if it is missing or of an unknown kind."""
    file, extension = parted(path)
    known = _recognise(file, _beginning(file))
    if extension is not None and known is not FITS:
        raise InputError(
            f"{path}: {file.name} is a {known.name} file, and only FITS has extensions; "
            f"leave [{extension}] out"
        )
    return known


@contextmanager
def reading(path: Path, kind: str) -> Iterator[None]:
    """Say in one `InputError` that ``path`` is no good as a ``kind`` of file, whatever its decoder raises."""
    try:
        yield
    except InputError:
        raise
    except MemoryError as error:
        raise InputError(
            f"{path} does not fit in memory ({_line(error)}); crop it, or it is corrupt"
        ) from error
    # A damaged file can make a decoder raise nearly anything, so all of it means the same here.
    except Exception as error:
        raise InputError(
            f"{path} could not be read as {kind}, it is truncated or corrupt ({_line(error)}); "
            f"copy or export it again"
        ) from error


def write(
    path: FilePath,
    image: Image | Array,
    *,
    dtype: npt.DTypeLike | None = None,
    clip: bool = False,
    overwrite: bool = True,
) -> None:
    """Write an image in the format that the extension names, whole or not at all.

    The file is made beside its final place and renamed, so an older one stays intact until then. TIFF is
    written for ImageJ where the type allows it (uint8, uint16, float32, below 4 GB), and as OME-TIFF to
    ``.ome.tif``; the one stores the axes in the order ``tzcyx``, the other as they are if y and x
    come last. PNG and NPY keep neither axes nor voxel sizes.
    ``dtype`` converts the values by `cast`; None keeps their type.

    Raises
    ------
    InputError
        For all that `check_output` finds, values that do not fit ``dtype`` (unless ``clip``), or a failure to
        write such as a full disk.

    Examples
    --------
    >>> write("restored.tif", image, dtype="uint16", clip=True)  # doctest: +SKIP
    """
    path = _path(path)
    if not isinstance(image, Image):
        image = Image(image)
    data = numeric(as_array(image.data, "the image to write"), "the image to write")
    axes = parse_axes(image.axes, data.ndim).axes if image.axes is not None else None
    wanted = data.dtype if dtype is None else as_dtype(dtype)
    check_output(path, overwrite=overwrite, dtype=wanted, shape=data.shape, axes=axes)
    known, suffix = _by_suffix(path)
    voxel_size = {a: size for a, given in image.voxel_size.items() if (size := micrometres(given, "um"))}
    image = replace(image, data=cast(data, wanted, clip=clip), axes=axes, voxel_size=voxel_size)

    with written_beside(path, suffix=suffix) as beside:
        try:
            known.write(beside, image)
        except OSError as error:
            if error.errno is None:
                # NumPy reports that fewer bytes were written than asked for, without the reason.
                raise OSError(errno.ENOSPC, f"the disk is probably full ({_line(error)})") from error
            raise


def check_output(
    path: FilePath,
    *,
    inputs: Iterable[FilePath] = (),
    overwrite: bool = True,
    dtype: npt.DTypeLike | None = None,
    shape: Shape | None = None,
    axes: str | None = None,
) -> None:
    """Find out before a long computation whether its result can be written to ``path``.

    ``dtype``, ``shape`` and ``axes`` are those of the result, as far as they are known by then.

    Raises
    ------
    InputError
        If the extension is unknown, the folder missing or read-only, the target a folder, read-only, one of
        the ``inputs`` (also by another name), or there already while ``overwrite`` is False; or if the format
        cannot hold such an image.

    Examples
    --------
    >>> check_output("restored.jpg")  # doctest: +ELLIPSIS
    Traceback (most recent call last):
    selfinv.types.InputError: restored.jpg has the unknown extension '.jpg'; use one of TIFF (.ome.tif ...
    """
    path = _path(path)
    known, _ = _by_suffix(path)
    target = Path(os.path.realpath(path))
    if target.is_dir():
        raise InputError(f"{path} is a folder; give the name of a file in it")
    if not target.parent.is_dir():
        raise InputError(f"the folder {target.parent} of {path.name} does not exist; make it first")
    for other in (parted(Path(other))[0] for other in inputs):
        if target.exists() and os.path.exists(other) and os.path.samefile(target, other):
            raise InputError(f"the output {path} is the same file as the input {other}; choose another name")
    if target.exists() and not overwrite:
        raise InputError(f"{path} exists already; choose another name or allow overwriting")
    if not os.access(target.parent, os.W_OK | os.X_OK):
        raise InputError(
            f"the folder {target.parent} is read-only; write elsewhere or change its permissions"
        )
    if target.exists() and not (target.is_file() and os.access(target, os.W_OK)):
        raise InputError(f"{path} is read-only or no regular file; choose another name")
    known.check(path, None if dtype is None else as_dtype(dtype), shape, axes)
    check_writable(path)


def _path(path: FilePath) -> Path:
    """A path that the operating system takes, whether there is a file or not."""
    try:
        path = Path(path)
        os.lstat(path)
    except TypeError:
        raise InputError(f"{shown(path)} is no path; give a file's name") from None
    except UnicodeError:
        raise InputError(f"{shown(str(path))} is no file's name: it has a character that is none") from None
    except ValueError:
        raise InputError(f"{shown(str(path))} is no file's name: it has a null character") from None
    except OSError as error:
        if error.errno == errno.ENAMETOOLONG:
            raise InputError(f"{shown(str(path))} is too long for a file's name") from None
    return Path(path)


def _by_suffix(path: Path) -> tuple[Format, str]:
    name = path.name.lower()
    for known in FORMATS:
        for suffix in known.suffixes:
            if name.endswith(suffix) and name != suffix:
                return known, suffix
    found = f"has the unknown extension {path.suffix!r}" if path.suffix else "has no extension"
    raise InputError(f"{path} {found}; use one of {KNOWN}")


def _beginning(path: Path) -> bytes:
    """The first bytes of a file that is there and not empty."""
    try:
        if path.is_dir():
            raise InputError(f"{path} is a folder; give an image file in it")
        if not path.exists():
            raise InputError(f"{path} does not exist{_similar(path)}")
        if not path.is_file():
            raise InputError(f"{path} is no regular file; give an image file")
        with open(path, "rb") as stream:
            beginning = stream.read(16)
    except OSError as error:
        raise InputError(
            f"{path} could not be opened: {error.strerror or _line(error)}; check its permissions"
        ) from error
    if not beginning:
        raise InputError(f"{path} is empty (0 bytes); copy or export it again")
    return beginning


def _recognise(path: Path, beginning: bytes) -> Format:
    for known in FORMATS:
        if beginning.startswith(known.magic):
            return known
    if beginning.startswith(b"\x1f\x8b") and path.name.lower().endswith(".fits.gz"):
        return FITS
    found = next((name for magic, name in _STRANGERS.items() if beginning.startswith(magic)), None)
    try:
        promised = _by_suffix(path)[0].name
    except InputError:
        promised = None
    if found is None and promised is not None:
        raise InputError(
            f"{path} is no {promised} file, or a corrupt one: it begins with {beginning[:8]!r}; "
            f"copy or export it again"
        )
    kind = f"is a {found} file" if found else f"is of an unknown format (it begins with {beginning[:8]!r})"
    raise InputError(f"{path} {kind}; expected one of {KNOWN}")


def _similar(path: Path) -> str:
    """What may have been meant: names that differ by a letter or two, not every short name there is."""
    if not path.parent.is_dir():
        return f", nor does the folder {path.parent}"
    close = difflib.get_close_matches(path.name, os.listdir(path.parent), n=3, cutoff=0.8)
    return f"; did you mean {' or '.join(str(path.with_name(name)) for name in close)}?" if close else ""


def _line(error: BaseException) -> str:
    return " ".join(str(error).split())[:200] or type(error).__name__
