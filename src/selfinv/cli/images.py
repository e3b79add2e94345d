"""Files in and out: everything is checked before any work, and nothing is lost after it."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from selfinv.atomic import check_writable
from selfinv.cli.console import say
from selfinv.types import Array, InputError, Shape, guess_axes

if TYPE_CHECKING:
    from selfinv.io import Image
    from selfinv.io.lazy import LazyImage


FEWEST_LEVELS = 8  # rounding to fewer destroys an image
NOTABLE = 0.01  # of all values: fewer may be outliers that do not come back


def open_image(
    input: Path,
    output: Path,
    axes: str | None,
    dtype: str | None,
    clip: bool,
    *,
    others: list[Path | None],
    preview: Path | None,
) -> tuple[Image, str | None, bool]:
    """Read the input and make sure, before any work, that the output can be written."""
    from selfinv import io
    from selfinv.io.casting import as_dtype

    if input.is_dir():
        raise InputError(
            f"{input} is a folder; an OME-Zarr is restored into another one: give OUTPUT the ending .zarr"
        )
    image = io.read(input, axes=axes)
    inputs = [input, *(other for other in others if other is not None)]
    if dtype is None:
        if output.suffix.lower() == ".png" and image.data.dtype in (np.uint8, np.uint16):
            # The camera's own saturation: what leaves its range is clipped, and counted aloud.
            dtype, clip = image.data.dtype.name, True
        else:
            dtype = "float32"
    as_dtype(dtype)  # that there is such a type
    check_levels(image.data, dtype, clip)
    io.check_output(output, inputs=inputs, dtype=dtype, shape=image.data.shape, axes=image.axes)
    if preview is not None:
        check_beside(preview, ".png .pdf .svg", inputs, output)
    return image, dtype, clip


def check_levels(data: Array, dtype: str, clip: bool) -> None:
    """Refuse a pixel type of which such an image would use but a few levels."""
    if not clip and (span := few_levels(data, dtype)):
        raise InputError(
            f"the image's values {span}, so {dtype} would leave it less than {FEWEST_LEVELS} levels; "
            f"write float32 (--dtype float32), or pass --clip if that is what you want"
        )


def few_levels(data: Array, dtype: str | None) -> str:
    """What the values span, in words, if this type rounds them to a few levels; else empty."""
    if dtype is None or not dtype.startswith(("int", "uint")):
        return ""
    low, high = float(np.nanmin(data)), float(np.nanmax(data))
    return f"span {low:.6g} to {high:.6g}" if high - low < FEWEST_LEVELS - 1 else ""


def check_range(data: Array, dtype: str | None, clip: bool) -> None:
    """Refuse integers that cannot hold what any method will make of such an image; warn if they may not.

    A restoration takes away noise and outliers, which may be what does not fit, but not the typical value.
    """
    from selfinv import io

    if clip or dtype is None or np.dtype(dtype).kind not in "ui":
        return
    measured = data[np.isfinite(data)] if data.dtype.kind == "f" else data
    if not measured.size or not (outside := io.count_outside(measured, dtype)):
        return
    middle = np.median(measured)
    found = f"{outside} of the image's {measured.size} values (median {middle:.6g}) do not fit {dtype}"
    advice = "write float32 (--dtype float32), or pass --clip to clip them"
    if io.count_outside(np.atleast_1d(middle), dtype):
        raise InputError(f"{found}, nor will those restored; {advice}")
    if outside > NOTABLE * measured.size:
        say(f"warning: {found}, and those restored may not; {advice}")


def check_beside(path: Path, suffixes: str, inputs: Sequence[Path | None], output: Path | None) -> None:
    """Refuse an additional output that cannot be written, or would replace an input or the output."""
    if path.suffix.lower() not in suffixes.split():
        raise InputError(f"{path} has the extension {path.suffix!r}; use {' or '.join(suffixes.split())}")
    if path.is_dir() or not path.absolute().parent.is_dir():
        raise InputError(f"{path} cannot be written: its folder does not exist, or it is a folder itself")
    if not os.access(path.absolute().parent, os.W_OK):
        raise InputError(f"{path} cannot be written: its folder is read-only")
    check_writable(path)
    for other in inputs:
        if other is not None and path.exists() and other.exists() and path.samefile(other):
            raise InputError(f"{path} is an input; choose another name")
    if output is not None:
        check_different(path, output)


def check_different(path: Path, output: Path) -> None:
    if os.path.realpath(path) == os.path.realpath(output):
        raise InputError(f"{path} is the output's own name; choose another one")


def read_psf(path: Path, image: Image | LazyImage, what: str = "the image") -> Array:
    """The PSF's values, once its voxel size is known not to contradict that of ``what`` is restored."""
    from selfinv import io

    kernel = io.read(path)
    for axis in "zyx":
        ours, theirs = image.voxel_size.get(axis), kernel.voxel_size.get(axis)
        if ours and theirs and abs(ours / theirs - 1) > 0.01:
            raise InputError(
                f"{path} has {theirs:g} µm per sample along {axis} but {what} has {ours:g}; resample it: "
                f"selfinv psf measured {path} --target-voxel-size ... -o resampled.tif"
            )
    return kernel.data


def save_image(output: Path, restored: Array, source: Image, dtype: str | None, clip: bool) -> None:
    """Write the restored image with its source's axes, voxel sizes and metadata; lose it in no case."""
    from selfinv import io

    image = replace(source, data=restored)
    if clip and dtype and (outside := io.count_outside(restored, dtype)):
        say(
            f"warning: {outside} of {restored.size} values lay outside {dtype} and were clipped; "
            f"write float32 TIFF to keep them"
        )
    if span := few_levels(restored, dtype):
        say(
            f"warning: the restored values {span}, of which {dtype} keeps less than {FEWEST_LEVELS} levels; "
            f"write float32 TIFF to keep them"
        )
    try:
        io.write(output, image, dtype=dtype, clip=clip)
    except InputError as error:
        rescue = output.with_name(output.name + ".rescued.npy")
        try:
            io.write(rescue, io.Image(restored))
        except InputError:
            raise error from None
        raise InputError(f"{error}; the result itself was kept, as float32, in {rescue}") from error


def check_float32(
    path: Path, inputs: Sequence[Path] = (), shape: Shape | None = None, axes: str | None = None
) -> None:
    """`selfinv.io.check_output` of what is float32 whatever the options."""
    from selfinv import io

    if path.suffix.lower() == ".png":
        raise InputError(f"{path}: PNG cannot hold its values, which are no integers; write a .tif")
    io.check_output(path, inputs=inputs, dtype="float32", shape=shape, axes=axes)


def check_residual(path: Path, image: Image, inputs: Sequence[Path], output: Path) -> None:
    """Refuse early to write a residual where it cannot be, or in the place of an input or the output."""
    check_float32(path, inputs, image.data.shape, image.axes)
    check_different(path, output)


def save_residual(path: Path, measured: Array, predicted: Array, source: Image) -> None:
    """Write the measurement less what is predicted of it, NaN where it is missing."""
    from selfinv import io

    left = np.where(np.isfinite(measured), measured.astype(np.float64) - predicted, np.nan)
    io.write(path, replace(source, data=left), dtype="float32")


def draw_preview(path: Path, source: Image, restored: Array) -> None:
    from selfinv.report import preview

    preview(path, {"before": source.data, "after": restored}, source.axes or guess_axes(restored.shape))
