"""Images larger than memory: what they are without reading them, and their values region by region."""

from __future__ import annotations

import warnings
from dataclasses import replace
from functools import partial
from pathlib import Path

import numpy as np

from selfinv.io.files import FilePath, format_of, read, reading
from selfinv.io.image import numeric_type
from selfinv.io.npy import NPY
from selfinv.io.regions import LazyImage, Reader
from selfinv.io.tiff import TIFF
from selfinv.io.tiff_regions import open_tiff
from selfinv.io.zarr_regions import open_zarr
from selfinv.types import InputError, parse_axes

__all__ = ["LazyImage", "open_lazily"]


def open_lazily(path: FilePath, *, axes: str | None = None) -> LazyImage:
    """Open an image without reading it: a Zarr folder, TIFF or NPY; others are read whole.

    Of an OME-Zarr image (0.4, 0.5) the full resolution is taken. ``axes`` overrides what the file says.

    Raises
    ------
    InputError
        For all that `selfinv.io.read` finds wrong with a file; for a folder that is no Zarr or whose axes
        are not among ``tczyx``; for a remote address; or if zarr is needed but not installed.

    Examples
    --------
    >>> import tempfile
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     path = Path(folder) / "volume.npy"
    ...     np.save(path, np.arange(24.0).reshape(2, 3, 4))
    ...     image = open_lazily(path, axes="zyx")
    ...     values = image.read([slice(1, 2), slice(0, 1), slice(1, 3)])
    >>> image.shape, image.axes, image.chunks, values.tolist()
    ((2, 3, 4), 'zyx', (1, 3, 4), [[[13.0, 14.0]]])
    """
    if "://" in str(path):
        raise InputError(f"{path} is a remote address, which is not supported; copy or mount it locally")
    path = Path(path)
    if path.is_dir():
        image = open_zarr(path, quiet=axes is not None)
    else:
        known = format_of(path)
        opened = None
        with reading(path, known.name):
            if known is TIFF:
                opened = open_tiff(path)
            elif known is NPY:
                opened = _open_npy(path)
        image = opened or _open_whole(path)
    letters = parse_axes(axes, len(image.shape)).axes if axes is not None else image.axes
    voxel_size = {a: size for a, size in image.voxel_size.items() if letters is None or a in letters}
    return replace(image, axes=letters, voxel_size=voxel_size)


def _open_npy(path: Path) -> LazyImage | None:
    try:
        mapped = np.load(path, mmap_mode="r", allow_pickle=False)
    except ValueError as error:
        if "Python objects" in str(error):
            return None  # to be refused by what reads the whole file
        raise
    shape = tuple(int(n) for n in mapped.shape)
    dtype = numeric_type(mapped.dtype, shape, str(path))
    planes = (1,) * (len(shape) - 2) + shape[-2:]
    return LazyImage(path, shape, dtype, None, {}, {}, planes, partial(_npy_reader, path))


def _npy_reader(path: Path) -> Reader:
    mapped = np.load(path, mmap_mode="r", allow_pickle=False)
    return lambda region: np.array(mapped[region])


def _open_whole(path: Path) -> LazyImage:
    image = read(path)
    shape = tuple(image.data.shape)
    return LazyImage(
        path,
        shape,
        image.data.dtype,
        image.axes,
        image.voxel_size,
        image.metadata,
        shape,
        partial(_whole_reader, path),
    )


def _whole_reader(path: Path) -> Reader:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # what there is to say was said on opening
        data = read(path).data
    return lambda region: data[region].copy()
