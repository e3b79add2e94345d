"""OME-Zarr 0.5 written region by region, then completed with coarser levels and moved into place."""

from __future__ import annotations

import itertools
import os
import secrets
import shutil
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from selfinv.atomic import flush
from selfinv.io.casting import as_dtype, cast
from selfinv.io.files import FilePath, reading
from selfinv.io.image import Metadata
from selfinv.io.ome_metadata import Level, described, description, ome_of
from selfinv.io.regions import Region, resolved
from selfinv.io.zarr_regions import import_zarr, is_zarr
from selfinv.types import AXES, SPACE, Array, InputError, Shape, parse_axes

# Viewers show the coarsest level first, and whole.
COARSEST = 256


@dataclass(frozen=True)
class ZarrTarget:
    """An OME-Zarr image being written, by several processes if need be.

    It can be pickled; each process opens the folder when it first reads or writes. What is not written yet
    is NaN, or 0 where the type is an integer's.

    Parameters
    ----------
    path
        The folder.
    shape, dtype, chunks
        Those of the full resolution; ``chunks`` is the shape of the pieces that are written at once.
    axes, voxel_size, metadata
        As in `selfinv.io.Image`, the axes in the order ``tczyx``.

    Examples
    --------
    >>> import tempfile
    >>> with tempfile.TemporaryDirectory() as folder:                    # doctest: +SKIP
    ...     path = Path(folder) / "restored.ome.zarr"
    ...     target = ZarrTarget.create(path, shape=(300, 400), axes="yx", chunks=(128, 128))
    ...     target.write([slice(0, 128), slice(256, 400)], np.ones((128, 144)))
    ...     target.finish()
    """

    path: Path
    shape: Shape
    dtype: np.dtype[Any]
    chunks: Shape
    axes: str
    voxel_size: dict[str, float]
    metadata: Metadata

    @classmethod
    def create(
        cls,
        path: FilePath,
        *,
        shape: Sequence[int],
        axes: str,
        dtype: npt.DTypeLike = "float32",
        chunks: Sequence[int],
        voxel_size: dict[str, float] | None = None,
        metadata: Metadata | None = None,
        overwrite: bool = False,
    ) -> ZarrTarget:
        """Make the folder, with the full resolution still empty.

        Of ``metadata`` the ``"channel_names"`` (one for each channel) and the ``"time_interval"`` are kept.

        Raises
        ------
        InputError
            If the axes are not in the order that OME-Zarr wants, if the folder is there already and
            ``overwrite`` is False or it is no Zarr, or if it cannot be written.
        """
        path, shape = Path(path), tuple(int(n) for n in shape)
        target = cls(
            path,
            shape,
            as_dtype(dtype),
            _chunks(shape, chunks),
            _ordered(axes, len(shape)),
            {a: float(size) for a, size in (voxel_size or {}).items() if a in axes},
            _kept(metadata or {}, shape, axes),
        )
        zarr = import_zarr()
        if not path.parent.is_dir():
            raise InputError(f"the folder {path.parent} of {path.name} does not exist; make it first")
        with _writing(path):
            if path.exists():
                if not overwrite:
                    raise InputError(f"{path} exists already; choose another name or allow overwriting")
                _check_replaceable(path)
                shutil.rmtree(path)
            zarr.create_group(str(path), zarr_format=3)
            target._create_level(Level("0", (1,) * len(shape)))
            target._describe([Level("0", (1,) * len(shape))])
            _flush_all(path)
        return target

    @classmethod
    def open(cls, path: FilePath) -> ZarrTarget:
        """A target that was made before, to go on with it.

        Raises
        ------
        InputError
            If there is none, or if it is damaged.
        """
        path, zarr = Path(path), import_zarr()
        if not is_zarr(path):
            raise InputError(f"{path} is no Zarr folder; expected one that was begun before")
        with reading(path, "Zarr"):
            node = zarr.open_group(str(path), mode="r")
            found = described(str(path), ome_of(dict(node.attrs)))
            array = node["0"]
            return cls(
                path,
                tuple(array.shape),
                np.dtype(array.dtype),
                tuple(array.chunks),
                found.axes,
                found.voxel_size,
                found.metadata,
            )

    def write(self, region: Sequence[slice], values: Array) -> None:
        """Write whole chunks, which a power cut after it leaves as they are.

        Raises
        ------
        InputError
            If the region cuts a chunk, which another process may be writing; if ``values`` do not have its
            shape or do not fit the type; or if the disk refuses.
        """
        inside = resolved(region, self.shape)
        for one, chunk, size, letter in zip(inside, self.chunks, self.shape, self.axes, strict=True):
            if one.start % chunk or (one.stop % chunk and one.stop != size):
                raise InputError(
                    f"the region {one.start}:{one.stop} along {letter} cuts a chunk; "
                    f"start and stop at multiples of {chunk} or at the end ({size})"
                )
        wanted = tuple(one.stop - one.start for one in inside)
        if values.shape != wanted:
            raise InputError(f"the values have the shape {values.shape}, but the region is {wanted}")
        converted = cast(values, self.dtype)
        with _writing(self.path):
            self._array()[inside] = converted
            self._flush(inside)

    def read(self, region: Sequence[slice]) -> Array:
        """What has been written to a region so far."""
        inside = resolved(region, self.shape)
        with reading(self.path, "Zarr"):
            return np.asarray(self._array()[inside])

    def finish(self) -> None:
        """Add the coarser levels, each the mean of 2 voxels per axis in the one before, NaN left out.

        An axis is halved while it is less than twice as coarse as the finest, until none of those is longer
        than 256. It may be called again, also after it was interrupted; nothing else may be writing.

        Raises
        ------
        InputError
            If the full resolution cannot be read or the disk refuses.
        """
        levels = _levels(self.shape, self.axes, self.voxel_size)
        with _writing(self.path):
            for leftover in self.path.rglob("*.partial"):  # of writers that were killed
                leftover.unlink()
            for fine, coarse in itertools.pairwise(levels):
                self._coarsen(fine, coarse)
            self._describe(levels, self._windows(levels[-1]))

    def _flush(self, region: Region) -> None:
        """Wait until a region's chunks are on the disk, and all names on the way to them."""
        numbers = (
            range(one.start // chunk, -(-one.stop // chunk))
            for one, chunk in zip(region, self.chunks, strict=True)
        )
        name_of = self._array().metadata.encode_chunk_key
        files = [self.path / "0" / name_of(place) for place in itertools.product(*numbers)]
        files = [file for file in files if file.exists()]  # what is empty has none
        ways = {way for file in files for way in file.parents if way.is_relative_to(self.path.parent)}
        for path in (*files, *ways):
            flush(path)

    def _array(self) -> Any:
        if "_opened" not in self.__dict__:
            self.__dict__["_opened"] = self._level("0")
        return self.__dict__["_opened"]

    def __getstate__(self) -> dict[str, Any]:
        return {name: value for name, value in self.__dict__.items() if name != "_opened"}

    def _level(self, name: str) -> Any:
        return import_zarr().open_array(str(self.path / name), mode="r+")

    def _create_level(self, level: Level) -> Any:
        shape = _coarse(self.shape, level.factors)
        return import_zarr().create_array(
            str(self.path),
            name=level.path,
            shape=shape,
            chunks=_chunks(shape, self.chunks),
            dtype=self.dtype,
            fill_value=np.nan if self.dtype.kind == "f" else 0,
            dimension_names=list(self.axes),
            zarr_format=3,
            overwrite=True,
        )

    def _describe(self, levels: list[Level], windows: list[tuple[float, float]] | None = None) -> None:
        name = self.path.name.split(".zarr")[0].removesuffix(".ome")
        said = description(name, self.axes, self.voxel_size, self.metadata, levels, windows)
        import_zarr().open_group(str(self.path), mode="r+").attrs.update(said)

    def _coarsen(self, fine: Level, coarse: Level) -> None:
        source, result = self._level(fine.path), self._create_level(coarse)
        factors = tuple(b // a for a, b in zip(fine.factors, coarse.factors, strict=True))
        for place in _regions(result.shape, result.chunks):
            values = np.empty([one.stop - one.start for one in place], self.dtype)
            # About one chunk of the finer level at a time.
            pieces = tuple(-(-n // factor) for n, factor in zip(result.chunks, factors, strict=True))
            for part in _regions(values.shape, pieces):
                covered = tuple(
                    slice((whole.start + one.start) * factor, (whole.start + one.stop) * factor)
                    for whole, one, factor in zip(place, part, factors, strict=True)
                )
                values[part] = _block_means(np.asarray(source[covered]), factors)
            result[place] = values

    def _windows(self, level: Level) -> list[tuple[float, float]] | None:
        """The smallest and largest finite value of each channel."""
        if "channel_names" not in self.metadata:
            return None
        array, axis = self._level(level.path), self.axes.index("c")
        low, high = np.full(self.shape[axis], np.inf), np.full(self.shape[axis], -np.inf)
        for place in _regions(array.shape, array.chunks):
            values = np.moveaxis(np.asarray(array[place]), axis, 0).astype(np.float64)
            values = values.reshape(values.shape[0], -1)
            finite = np.isfinite(values)
            channels = place[axis]
            low[channels] = np.minimum(low[channels], np.where(finite, values, np.inf).min(1))
            high[channels] = np.maximum(high[channels], np.where(finite, values, -np.inf).max(1))
        return [(float(a), float(b)) if a < b else (0.0, 1.0) for a, b in zip(low, high, strict=True)]


def check_axes(axes: str) -> None:
    """Raise `InputError` if an OME-Zarr cannot hold an image with these axes."""
    if "y" not in axes:
        raise InputError(f"OME-Zarr needs the axes y and x, but the image has {axes!r}; write a .npy or .tif")


def commit_folder(part: FilePath, target: FilePath, overwrite: bool) -> None:
    """Move a finished Zarr folder to its final name, in place of an older one only at the very end.

    Raises
    ------
    InputError
        If ``target`` is there and ``overwrite`` is False or it is no Zarr; or if the operating system
        refuses.
    """
    part, target = Path(part), Path(os.path.realpath(target))
    with _writing(target):
        _flush_all(part)
        if not target.exists():
            os.rename(part, target)
            flush(target.parent)
            return
        if not overwrite:
            raise InputError(f"{target} exists already; choose another name or allow overwriting")
        _check_replaceable(target)
        old = target.with_name(f".{target.name}.{secrets.token_hex(4)}.old")
        os.rename(target, old)
        try:
            os.rename(part, target)
        except OSError:
            os.rename(old, target)
            raise
        flush(target.parent)
        shutil.rmtree(old)


def _flush_all(folder: Path) -> None:
    for inside, _, names in os.walk(folder):
        for name in names:
            flush(Path(inside, name))
        flush(Path(inside))


@contextmanager
def _writing(path: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        why = (error.strerror or " ".join(str(error).split())).lower()
        raise InputError(f"{path} could not be written: {why}") from error


def _check_replaceable(path: Path) -> None:
    """Refuse to delete what is not an image, such as a folder of somebody's work."""
    empty = path.is_dir() and not any(path.iterdir())
    if not path.is_dir() or not (empty or is_zarr(path)):
        raise InputError(f"{path} is there already and is no Zarr folder; choose another name")


def _ordered(axes: str, ndim: int) -> str:
    letters = parse_axes(axes, ndim).axes
    ordered = "".join(a for a in AXES if a in letters)
    if letters != ordered:
        raise InputError(
            f"OME-Zarr stores the axes {letters!r} in the order {ordered!r}; transpose the image"
        )
    check_axes(letters)
    return letters


def _chunks(shape: Shape, chunks: Sequence[int]) -> Shape:
    if len(chunks) != len(shape) or min(chunks) < 1:
        raise InputError(
            f"the chunks {tuple(chunks)} do not suit {shape}; give one size from 1 for each axis"
        )
    return tuple(min(int(n), size) for n, size in zip(chunks, shape, strict=True))


def _kept(metadata: Metadata, shape: Shape, axes: str) -> Metadata:
    kept = {key: metadata[key] for key in ("channel_names", "time_interval") if metadata.get(key)}
    channels = shape[axes.index("c")] if "c" in axes else 0
    if len(kept.get("channel_names", ())) != channels:
        kept.pop("channel_names", None)
    if "t" not in axes:
        kept.pop("time_interval", None)
    return kept


def _levels(shape: Shape, axes: str, voxel_size: dict[str, float]) -> list[Level]:
    """The levels of a pyramid, whose voxels get as long as they are wide, and then stay so."""
    finest = min(voxel_size.values(), default=1.0)
    spacing = [voxel_size.get(a, finest) for a in axes]
    factors = [1] * len(shape)
    levels = [Level("0", tuple(factors))]
    while True:
        size = _coarse(shape, factors)
        able = [i for i, a in enumerate(axes) if a in SPACE and size[i] > 1]
        now = {i: spacing[i] * factors[i] for i in able}
        halved = [i for i in able if now[i] < 2 * min(now.values())]
        if max((size[i] for i in halved), default=0) <= COARSEST:
            return levels
        for i in halved:
            factors[i] *= 2
        levels.append(Level(str(len(levels)), tuple(factors)))


def _coarse(shape: Shape, factors: Sequence[int]) -> Shape:
    return tuple(-(-n // factor) for n, factor in zip(shape, factors, strict=True))


def _regions(shape: Shape, pieces: Shape) -> Iterator[Region]:
    """Every piece of an array of this shape."""
    for corner in itertools.product(*(range(0, n, piece) for n, piece in zip(shape, pieces, strict=True))):
        yield tuple(
            slice(start, min(start + piece, n)) for start, piece, n in zip(corner, pieces, shape, strict=True)
        )


def _block_means(values: Array, factors: Sequence[int]) -> Array:
    """The mean over blocks of 1 or 2 values along each axis, of those there are that are not NaN."""
    present = ~np.isnan(values) if values.dtype.kind == "f" else np.ones(values.shape, bool)
    total = np.where(present, values, 0).astype(np.float64)
    count = present.astype(np.uint8)
    for axis, factor in enumerate(factors):
        if factor > 1:
            starts = range(0, total.shape[axis], factor)
            total, count = np.add.reduceat(total, starts, axis), np.add.reduceat(count, starts, axis)
    with np.errstate(invalid="ignore"):  # 0 / 0 is the mean of nothing, NaN
        means = total / count
    return means if values.dtype.kind == "f" else np.rint(means)
