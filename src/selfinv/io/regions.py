"""An image that stays in its file: what it is, and its values region by region."""

from __future__ import annotations

import os
import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from selfinv.io.files import reading
from selfinv.io.image import Metadata
from selfinv.types import Array, InputError, Shape

Region = tuple[slice, ...]
Reader = Callable[[Region], Array]

opening = threading.Lock()  # openers silence warnings, which two threads at once would leave so for good


def _free_lock() -> None:
    global opening
    opening = threading.Lock()


if hasattr(os, "register_at_fork"):  # a child has no thread that could free what its parent held
    os.register_at_fork(after_in_child=_free_lock)


@dataclass(frozen=True)
class LazyImage:
    """An image in a file, of which only the regions that are asked for are read.

    It can be pickled: what goes to another process is how to open the file, and each process opens it when
    it first reads.

    Parameters
    ----------
    path
        The file or folder.
    shape, dtype
        Those of the whole image; ``dtype`` is native.
    axes, voxel_size, metadata
        As in `selfinv.io.Image`.
    chunks
        The shape of the pieces in which the image is stored. To read one value is to read its piece, except
        where the file is memory-mapped.
    opener
        Opens the file and returns what reads a region of it.

    Examples
    --------
    >>> image = open_lazily("embryo.ome.zarr")                                        # doctest: +SKIP
    >>> image.shape, image.axes                                                       # doctest: +SKIP
    ((2, 4000, 9000, 9000), 'czyx')
    >>> image.read([slice(0, 1), slice(10, 20), slice(0, 512), slice(0, 512)]).shape  # doctest: +SKIP
    (1, 10, 512, 512)
    """

    path: Path
    shape: Shape
    dtype: np.dtype[Any]
    axes: str | None
    voxel_size: dict[str, float]
    metadata: Metadata
    chunks: Shape
    opener: Callable[[], Reader] = field(repr=False, compare=False)

    def read(self, region: Sequence[slice]) -> Array:
        """The values of a region, one slice for each axis, in native byte order.

        Raises
        ------
        InputError
            If the region does not suit the shape, or if the file is damaged or gone.
        """
        inside = resolved(region, self.shape)
        with reading(self.path, self.path.suffix.lstrip(".").upper() or "image"):
            return np.ascontiguousarray(self._reader()(inside), dtype=self.dtype)

    def _reader(self) -> Reader:
        # A forked child must not share its parent's open files, so what is open belongs to one process.
        process = os.getpid()
        if self.__dict__.get("_process") != process:
            with opening:
                if self.__dict__.get("_process") != process:  # another thread may have been here
                    self.__dict__.update(_opened=self.opener(), _process=process)
        opened: Reader = self.__dict__["_opened"]
        return opened

    def __getstate__(self) -> dict[str, Any]:
        return {name: value for name, value in self.__dict__.items() if name not in ("_opened", "_process")}


def resolved(region: Sequence[slice], shape: Shape) -> Region:
    """``region`` with every start and stop spelled out, as NumPy's slicing takes them.

    Raises
    ------
    InputError
        If there is not one slice for each axis, or if a slice has a step.

    Examples
    --------
    >>> resolved([slice(None, 3), slice(-2, 99)], (8, 9))
    (slice(0, 3, None), slice(7, 9, None))
    """
    if len(region) != len(shape) or not all(isinstance(one, slice) for one in region):
        raise InputError(f"the region has {len(region)} parts; expected one slice for each axis of {shape}")
    if any(one.step not in (None, 1) for one in region):
        raise InputError("the region has a step; read all of it and take every nth value of the result")
    bounds = [one.indices(size)[:2] for one, size in zip(region, shape, strict=True)]
    return tuple(slice(start, max(start, stop)) for start, stop in bounds)
