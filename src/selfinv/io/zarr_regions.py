"""Zarr folders region by region, with OME metadata or without."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np

from selfinv.io.files import reading
from selfinv.io.image import numeric_type
from selfinv.io.ome_metadata import Described, described, ome_of
from selfinv.io.regions import LazyImage, Reader
from selfinv.types import AXES, InputError, warn

MARKS = ("zarr.json", ".zgroup", ".zarray", ".zattrs")  # files that describe a Zarr


def import_zarr() -> ModuleType:
    """The module zarr; raise `InputError` where it is not installed."""
    try:
        import zarr
    except ImportError as error:
        raise InputError(
            "Zarr images need the package zarr; install it with: pip install 'selfinv[large]'"
        ) from error
    return zarr


def is_zarr(path: Path) -> bool:
    """Whether a folder is a Zarr array or group."""
    return any((path / mark).is_file() for mark in MARKS)


def zarr_digest(path: Path) -> str:
    """What tells the states of a Zarr folder apart: SHA-256 of its description and its chunks' stamps.

    Chunks may be many and large: of each only its name, its size and when it was written count.
    """
    digest = hashlib.sha256()
    for name, file in sorted(_files(path)):
        if file.name in MARKS:
            words: object = Path(file).read_bytes()
        else:
            stamp = file.stat()
            words = (stamp.st_size, stamp.st_mtime_ns)
        digest.update(f"{name}: {words!r}\n".encode())
    return digest.hexdigest()


def _files(path: Path | str, within: str = "") -> Iterator[tuple[str, os.DirEntry[str]]]:
    """All files below a folder, with their names as seen from it."""
    with os.scandir(path) as entries:
        for entry in entries:
            if entry.is_dir():
                yield from _files(entry.path, f"{within}{entry.name}/")
            else:
                yield within + entry.name, entry


def open_zarr(path: Path, *, quiet: bool = False) -> LazyImage:
    """The full resolution of an OME-Zarr image, or the array in another Zarr.

    With ``quiet`` it goes without saying that a single array names no axes.

    Raises
    ------
    InputError
        If zarr is not installed, or if the folder holds no image that this package knows.
    """
    if not is_zarr(path):
        raise InputError(f"{path} is a folder but no Zarr; give an image file in it, or an OME-Zarr folder")
    zarr = import_zarr()
    with reading(path, "Zarr"):
        node = zarr.open(str(path), mode="r")
        place, found = _image(zarr, path, node)
        array = node[place] if place else node
        if not isinstance(array, zarr.Array):
            raise InputError(
                f"{path} has no array at {place!r}, where it says its image is; convert it again"
            )
        shape = tuple(int(n) for n in array.shape)
        dtype = numeric_type(_numpy_type(path, array), shape, str(path))
        chunks = tuple(max(1, min(int(n), m)) for n, m in zip(array.chunks, shape, strict=True))
    if len(shape) > len(AXES):
        raise InputError(
            f"{path} has {len(shape)} axes {shape}; expected at most 5 (t, c, z, y, x), "
            f"so save the part of it that has only these"
        )
    axes = _named(array) if found is None else found.axes
    if axes is not None and len(axes) != len(shape):
        raise InputError(f"{path} names the axes {axes!r} but has the shape {shape}; convert it again")
    if found is None and not quiet:
        assumed = f"took the axes {axes!r} from its dimensions" if axes else "nothing names its axes"
        warn(f"{path} has no OME metadata; read the array {place or path.name!r} of shape {shape}, {assumed}")
    opener = partial(_reader, path, place)
    voxel_size, metadata = (found.voxel_size, found.metadata) if found else ({}, {})
    return LazyImage(path, shape, dtype, axes, voxel_size, metadata, chunks, opener)


def _reader(path: Path, place: str) -> Reader:
    node = import_zarr().open(str(path), mode="r")
    array = node[place] if place else node
    return lambda region: np.asarray(array[region])


def _image(zarr: ModuleType, path: Path, node: Any) -> tuple[str, Described | None]:
    """Where the image is in an array or group, and what OME metadata say of it."""
    if isinstance(node, zarr.Array):
        return "", None
    ome = ome_of(dict(node.attrs))
    if "multiscales" in ome:
        found = described(str(path), ome)
        return found.dataset, found
    if "plate" in ome or "well" in ome:
        raise InputError(
            f"{path} is a plate or a well of many images; give the folder of one, e.g. .../A/1/0"
        )
    series = [name for name, _ in node.groups() if "multiscales" in ome_of(dict(node[name].attrs))]
    if series:
        first = min(series, key=lambda name: (len(name), name))
        if len(series) > 1:
            warn(
                f"{path} holds {len(series)} images; took {first!r}, give the folder of another to read that"
            )
        found = described(f"{path}/{first}", ome_of(dict(node[first].attrs)))
        return f"{first}/{found.dataset}", found
    arrays = {name: array.size for name, array in node.arrays()}
    if not arrays:
        raise InputError(f"{path} is a Zarr group without an image; give the folder of an image or an array")
    return max(arrays, key=lambda name: arrays[name]), None


def _numpy_type(path: Path, array: Any) -> np.dtype[Any]:
    try:
        return np.dtype(array.dtype)
    except TypeError:
        raise InputError(f"{path} has the type {array.dtype}; expected integers or floats") from None


def _named(array: Any) -> str | None:
    """The axes that a Zarr array's own dimension names spell, if they do."""
    names = getattr(array.metadata, "dimension_names", None) or ()
    letters = "".join(str(name).lower() for name in names)
    single = len(letters) == len(names) == array.ndim == len(set(letters))
    return letters if single and set(letters) <= set(AXES) else None
