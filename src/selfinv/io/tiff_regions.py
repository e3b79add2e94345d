"""TIFF region by region: mapped into memory where its bytes allow it, else one strip or tile at a time."""

from __future__ import annotations

import itertools
import math
import warnings
from collections.abc import Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from selfinv.io.image import numeric_type
from selfinv.io.regions import LazyImage, Reader, Region
from selfinv.io.tiff import series_of
from selfinv.types import Array, Shape, warn


def open_tiff(path: Path) -> LazyImage | None:
    """The largest image of a TIFF file; None where its layout can only be read whole."""
    with series_of(path) as (tif, series, layout):
        dtype = numeric_type(np.dtype(series.dtype), layout.shape, str(path))
        mapped = _mapping(path, tif, series) is not None
        pages = None if mapped else _pages(series)
        if not mapped and pages is None:
            return None
        if layout.alpha is not None:
            warn(f"{path} has transparency, which is ignored")
        pieces = _plane(series) if pages is None else pages.pieces
    chunks = tuple(min(n, m) for n, m in zip(layout.shape, _without(pieces, layout.single), strict=True))
    opener = partial(_reader, path, layout.single)
    return LazyImage(
        path, layout.shape, dtype, layout.axes, layout.voxel_size, layout.metadata, chunks, opener
    )


def _reader(path: Path, single: tuple[int, ...]) -> Reader:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # what there is to say was said on opening
        with series_of(path) as (tif, series, _):
            mapped = _mapping(path, tif, series)
            stored: Any = _pages(series) if mapped is None else mapped
            ndim = len(series.shape)

    def read(region: Region) -> Array:
        left = iter(region)
        whole = tuple(slice(0, 1) if i in single else next(left) for i in range(ndim))
        return np.array(stored[whole]).squeeze(single)

    return read


def _mapping(path: Path, tif: Any, series: Any) -> Array | None:
    """The whole series mapped into memory, if it is one uncompressed block of this file."""
    dtype = np.dtype(series.dtype).newbyteorder(tif.byteorder)
    offset = series.dataoffset
    # Truth values are packed into bits.
    if offset is None or series.is_multifile or dtype.kind not in "uif":
        return None
    return np.memmap(path, dtype, "r", offset, tuple(series.shape))


def _plane(series: Any) -> Shape:
    """One page of a series, in all its axes."""
    page = tuple(series.keyframe.shape)
    inner = page if tuple(series.shape[-len(page) :]) == page else tuple(series.shape[-2:])
    return (1,) * (len(series.shape) - len(inner)) + inner


def _without(shape: Shape, axes: tuple[int, ...]) -> Shape:
    return tuple(n for i, n in enumerate(shape) if i not in axes)


@dataclass(frozen=True)
class _Pages:
    """The pages of a series, of which each region reads the strips and tiles that it touches.

    Files are opened anew for every read: that is cheap beside decoding, and leaves threads nothing to share.
    """

    shape: Shape
    pieces: Shape
    pages: list[Any]
    keyframe: Any
    files: list[str]

    def __getitem__(self, region: Region) -> Array:
        inner = len(self.keyframe.shape)
        outer, within = region[: len(region) - inner], region[len(region) - inner :]
        result = np.zeros([one.stop - one.start for one in region], self.keyframe.dtype)
        if not result.size:
            return result
        numbers = np.arange(len(self.pages)).reshape(self.shape[: len(outer)])[outer]
        for place, number in np.ndenumerate(numbers):
            self._fill(result[place], int(number), within)
        return result

    def _fill(self, out: Array, number: int, region: Region) -> None:
        """Decode what one page has of a region of its shape."""
        page, keyframe = self.pages[number], self.keyframe
        # A page is decoded as sample, depth, length, width, sample; which one holds samples depends.
        place = {"S": 0 if keyframe.planarconfig == 2 else 4, "Y": 2, "X": 3}
        axes = [place[a] for a in keyframe.axes]
        full = [slice(0, 1)] * 5
        for axis, one in zip(axes, region, strict=True):
            full[axis] = one
        # The letters of a page come in this order already, so only axes of length 1 are to be added.
        target = out.reshape([one.stop - one.start for one in full])
        options: dict[str, Any] = {}
        if keyframe.compression in (6, 7, 34892, 33007):  # kinds of JPEG, whose tables are kept apart
            options = {"jpegtables": page.jpegtables, "jpegheader": keyframe.jpegheader}
        with open(self.files[number], "rb") as stream:
            for index in self._touched(full):
                stream.seek(page.dataoffsets[index])
                data = stream.read(page.databytecounts[index])
                piece, start, _ = keyframe.decode(data, index, **options)
                _paste(target, full, piece, start)

    def _touched(self, full: list[slice]) -> Iterator[int]:
        """The numbers of the strips or tiles that have a part of a region."""
        keyframe = self.keyframe
        length, width = _segment(keyframe)
        rows = range(full[2].start // length, -(-full[2].stop // length))
        columns = range(full[3].start // width, -(-full[3].stop // width))
        down, across = -(-keyframe.imagelength // length), -(-keyframe.imagewidth // width)
        separate = range(full[0].start, full[0].stop) if keyframe.planarconfig == 2 else range(1)
        for sample, row, column in itertools.product(separate, rows, columns):
            yield (sample * down + row) * across + column


def _segment(keyframe: Any) -> tuple[int, int]:
    if keyframe.is_tiled:
        return int(keyframe.tilelength), int(keyframe.tilewidth)
    return min(int(keyframe.rowsperstrip), int(keyframe.imagelength)), int(keyframe.imagewidth)


def _paste(target: Array, region: list[slice], piece: Array, start: tuple[int, ...]) -> None:
    """Copy what ``piece``, whose first value belongs at ``start``, has of the region."""
    into, taken = [], []
    for one, first, length in zip(region, start, (1, *piece.shape), strict=True):
        low, high = max(one.start, first), min(one.stop, first + length)
        into.append(slice(low - one.start, max(low, high) - one.start))
        taken.append(slice(low - first, max(low, high) - first))
    target[tuple(into)] = piece[None][tuple(taken)]


def _pages(series: Any) -> _Pages | None:
    """The pages of a series by themselves; None if a page is no plane of it."""
    keyframe = series.keyframe
    page, shape, pages = tuple(keyframe.shape), tuple(series.shape), list(series.pages)
    outer = len(shape) - len(page)
    if (
        outer < 0
        or shape[outer:] != page
        or math.prod(shape[:outer]) != len(pages)
        or not {"Y", "X"} <= set(keyframe.axes) <= set("SYX")
        or keyframe.imagedepth > 1
    ):
        return None
    pieces = [1] * outer + list(page)
    if keyframe.is_tiled:
        for letter, size in zip("YX", _segment(keyframe), strict=True):
            pieces[outer + keyframe.axes.index(letter)] = size
    if keyframe.planarconfig == 2 and "S" in keyframe.axes:
        pieces[outer + keyframe.axes.index("S")] = 1
    # The decoder is made while the file is open; after that it needs the bytes alone.
    assert keyframe.decode is not None
    for one in pages:
        assert one.dataoffsets is not None
    return _Pages(shape, tuple(pieces), pages, keyframe, [one.parent.filehandle.path for one in pages])
