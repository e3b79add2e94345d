"""TIFF in its three dialects: ImageJ's, OME's, and tifffile's own for what neither of them can hold."""

from __future__ import annotations

import logging
import math
import struct
from collections import ChainMap
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import numpy as np

from selfinv.io.image import SECONDS, Format, Image, Metadata, drop_alpha, micrometres
from selfinv.types import Array, InputError, Shape, warn

# Classic TIFF counts bytes in 32 bits; some of them are for tags.
CLASSIC_LIMIT = 2**32 - 2**25

_ORDER = "tzcyx"
# What ImageJ's description says of the shape and the sampling, which is written anew.
_IMAGEJ_LAYOUT = {
    *("ImageJ", "images", "channels", "slices", "frames", "hyperstack", "axes", "shape"),
    *("unit", "xunit", "yunit", "zunit", "spacing", "finterval"),
}
# What OME says of a channel's light and colour, and tifffile writes.
_OME_LIGHT = (
    *("AcquisitionMode", "Color", "ContrastMethod", "Fluor", "IlluminationType", "NDFilter"),
    *("EmissionWavelength", "EmissionWavelengthUnit", "ExcitationWavelength", "ExcitationWavelengthUnit"),
    *("PinholeSize", "PinholeSizeUnit", "PockelCellSetting"),
)
_TYPE_SIZES = dict(enumerate((1, 1, 2, 4, 8, 1, 1, 2, 4, 8, 4, 8, 4), start=1)) | dict.fromkeys(
    (16, 17, 18), 8
)


def read(path: Path) -> Image:
    with series_of(path) as (_, series, layout):
        data = np.asarray(series.asarray()).reshape(series.shape)
    if layout.alpha is not None:
        data = drop_alpha(data, layout.alpha, path)
    return Image(data.reshape(layout.shape), layout.axes, layout.voxel_size, layout.metadata)


@dataclass(frozen=True)
class Layout:
    """What the stored axes of a series mean.

    ``alpha`` is the axis whose last entry is transparency, ``single`` are the axes of length 1 without it,
    and ``shape`` is what remains without either.
    """

    shape: Shape
    alpha: int | None
    single: tuple[int, ...]
    axes: str | None
    voxel_size: dict[str, float]
    metadata: Metadata


@contextmanager
def series_of(path: Path) -> Iterator[tuple[Any, Any, Layout]]:
    """The opened file, its largest series (all of it is there) and what the axes of that mean."""
    import tifffile

    _check_directories(path)
    with _quiet(), tifffile.TiffFile(path) as tif:
        index, series = max(enumerate(tif.series), key=lambda one: one[1].size)
        if len(tif.series) > 1:
            warn(
                f"{path} holds {len(tif.series)} images; took the largest, number "
                f"{index + 1} with the shape {tuple(series.shape)}"
            )
        _check_announced(path, tif, series)
        _check_pages(path, series)
        yield tif, series, _layout(path, tif, series, index)


def _layout(path: Path, tif: Any, series: Any, index: int) -> Layout:
    names, shape, alpha = series.axes, list(series.shape), None
    # Planes that are stored one by one are more likely four frames, which tifffile writes so by default.
    if series.keyframe.extrasamples and series.keyframe.extrasamples[-1] in (1, 2) and names.endswith("S"):
        alpha = names.index("S")
        shape[alpha] -= 1
    single = tuple(i for i, a in enumerate(names) if shape[i] == 1 and a not in "YX")
    kept = tuple(n for i, n in enumerate(shape) if i not in single)
    letters = "".join(a for i, a in enumerate(names) if i not in single).lower().replace("s", "c")
    if letters.count("c") > 1:
        raise InputError(f"{path} has both channels and RGB colours {tuple(shape)}; split its channels first")
    axes = letters if set(letters) <= set(_ORDER) else None
    return Layout(kept, alpha, single, axes, *_described(tif, series, index))


def write(path: Path, image: Image) -> None:
    import tifffile

    data, letters = _arranged(path, image)
    samples = "yxc" in letters
    layout: Metadata = {"photometric": "rgb" if samples else "minisblack"}
    names = letters[:-1].upper() + "S" if samples else letters.upper()
    big = data.nbytes > CLASSIC_LIMIT
    interval = image.metadata.get("time_interval")
    if _is_ome(path):
        layout |= {"ome": True, "bigtiff": big, "metadata": {"axes": names, **_ome(image, data, letters)}}
    elif _imagej_holds(data) and letters:
        full = "tzyxc" if samples else _ORDER
        shape = [data.shape[letters.index(a)] if a in letters else 1 for a in full]
        if samples:
            shape.insert(2, 1)
        data = data.reshape(shape)
        described, resolution = _imagej(image, shape)
        layout |= {"imagej": True, "resolution": resolution}
        layout["metadata"] = {"axes": "TZCYXS"[: len(shape)], **described}
    else:
        described = {"voxel_size_um": image.voxel_size} if image.voxel_size else {}
        described |= {"axes": names} if letters else {}
        described |= {"time_interval": interval} if interval else {}
        layout |= {"bigtiff": big, "metadata": described}
    with _quiet():
        tifffile.imwrite(path, data, **layout)


def check(path: Path, dtype: np.dtype[Any] | None, shape: Shape | None, axes: str | None) -> None:
    if not _is_ome(path):
        return
    if dtype is not None and dtype.name in ("float16", "int64", "uint64"):
        raise InputError(
            f"OME-TIFF cannot hold {dtype} values; "
            f"write a plain .tif, or pass dtype='float32' (--dtype float32)"
        )
    if shape is not None and axes is None and len(shape) > 2:
        raise InputError(
            f"OME-TIFF names its axes, but nothing names those of {shape}; pass axes, e.g. 'zyx'"
        )


TIFF = Format(
    "TIFF",
    (".ome.tif", ".ome.tiff", ".tif", ".tiff"),
    (b"II*\0", b"MM\0*", b"II+\0", b"MM\0+"),
    read,
    write,
    check,
)


# --- is the file whole? -------------------------------------------------------------------------------------


def _truncated(path: Path, what: str) -> InputError:
    return InputError(f"{path} is truncated or corrupt: {what}; copy or export it again")


def _check_directories(path: Path) -> None:
    """Follow the chain of page directories to its end; readers make do with the pages that they find."""
    size = path.stat().st_size
    with open(path, "rb") as stream:
        header = stream.read(16).ljust(16, b"\0")
        order = "<" if header.startswith(b"II") else ">"
        if b"+" in header[:4]:
            start, count, entry, pointer = 8, struct.Struct(order + "Q"), struct.Struct(order + "HHQ8s"), "Q"
        else:
            start, count, entry, pointer = 4, struct.Struct(order + "H"), struct.Struct(order + "HHI4s"), "I"
        address = struct.Struct(order + pointer)
        (offset,) = address.unpack_from(header, start)
        seen: set[int] = set()
        if not offset:
            raise _truncated(path, "it has no page")
        while offset:
            if offset in seen or offset + count.size > size:
                raise _truncated(path, f"page {len(seen) + 1} should be at byte {offset} of {size}")
            seen.add(offset)
            stream.seek(offset)
            (entries,) = count.unpack(stream.read(count.size))
            length = entries * entry.size
            directory = stream.read(length + address.size) if offset + length < size else b""
            if len(directory) < length + address.size:
                raise _truncated(
                    path, f"the directory of page {len(seen)} ends after the file's {size} bytes"
                )
            for tag, kind, number, value in entry.iter_unpack(directory[:length]):
                room = _TYPE_SIZES.get(kind, 0) * number
                # Private tags (from 32768) are often left dangling by editors, and hold no pixels.
                if tag < 32768 and room > len(value) and address.unpack(value)[0] + room > size:
                    raise _truncated(
                        path, f"tag {tag} of page {len(seen)} lies beyond the file's {size} bytes"
                    )
            (offset,) = address.unpack_from(directory, length)


def _check_announced(path: Path, tif: Any, series: Any) -> None:
    """Check that a stack stored under a single page is all there; if not, tifffile reads that page alone."""
    if tif.is_imagej and series.kind != "imagej":
        tags = tif.imagej_metadata or {}
        announced, found = (
            math.prod(int(tags.get(a, 1)) for a in ("frames", "slices", "channels")),
            len(tif.pages),
        )
    elif tif.is_shaped and series.kind != "shaped":
        announced, found = math.prod(tif.shaped_metadata[0]["shape"]), series.size
    else:
        return
    if announced > found:
        raise _truncated(path, f"it announces {announced} planes or pixels but has {found}")


def _check_pages(path: Path, series: Any) -> None:
    """Check that every pixel of a series is backed by bytes of a file."""
    pages = [page for page in series.pages if page is not None]
    if len(pages) < len(series.pages):
        raise _truncated(path, f"{len(series.pages) - len(pages)} of {len(series.pages)} planes are missing")
    for number, page in enumerate(pages, start=1):
        size = page.parent.filehandle.size
        segments = math.prod(page.chunked)
        if not len(page.dataoffsets) == len(page.databytecounts) >= segments:
            raise _truncated(path, f"page {number} has {len(page.dataoffsets)} of {segments} pieces")
        ends = [offset + length for offset, length in zip(page.dataoffsets, page.databytecounts, strict=True)]
        if max(ends, default=0) > size:
            raise _truncated(path, f"the pixels of page {number} end at byte {max(ends)} of {size}")
        if not all(page.databytecounts):
            raise _truncated(
                path, f"page {number} has pieces without pixels, as an interrupted writer leaves"
            )
        # Bytes that an uncompressed page lacks would be taken from whatever follows.
        needed = page.size * page.keyframe.bitspersample // 8
        if page.compression == 1 and sum(page.databytecounts) < needed:
            raise _truncated(path, f"page {number} has {sum(page.databytecounts)} of {needed} bytes")
    present = sum(page.size for page in pages)
    if present != series.size:
        # One page may stand for a whole stack that follows it, as in ImageJ's files beyond 4 GB.
        start = series.dataoffset if len(pages) == 1 else None
        if start is None or start + series.nbytes > pages[0].parent.filehandle.size:
            raise _truncated(path, f"it has {present} of the {series.size} pixels it announces")


# --- what the file says of itself ---------------------------------------------------------------------------


def _described(tif: Any, series: Any, index: int) -> tuple[dict[str, float], Metadata]:
    """Voxel sizes in µm and the metadata to carry over."""
    metadata: Metadata = {}
    sizes: dict[str, float | None]
    if series.kind == "ome":
        sizes, metadata = _ome_described(tif.ome_metadata, index)
    elif tif.is_imagej:
        tags = tif.imagej_metadata or {}
        unit = tags.get("unit")
        sizes = {
            "z": micrometres(tags.get("spacing"), tags.get("zunit", unit)),
            "y": micrometres(_pitch(series, "YResolution"), tags.get("yunit", unit)),
            "x": micrometres(_pitch(series, "XResolution"), unit),
        }
        kept = {key: value for key, value in tags.items() if key not in _IMAGEJ_LAYOUT}
        metadata = {"imagej": kept} if kept else {}
        if isinstance(tags.get("finterval"), int | float) and tags["finterval"] > 0:
            metadata["time_interval"] = float(tags["finterval"])
    else:
        own: Metadata = (tif.shaped_metadata or ({},))[0] if tif.is_shaped else {}
        sizes = {a: micrometres(size, "um") for a, size in dict(own.get("voxel_size_um", {})).items()}
        # Of the two units that TIFF knows, inches are those of printers: 72 or 300 dots per inch say nothing.
        if not sizes and series.keyframe.resolutionunit == 3:
            sizes = {a: micrometres(_pitch(series, f"{a.upper()}Resolution"), "cm") for a in "yx"}
        if "time_interval" in own:
            metadata["time_interval"] = own["time_interval"]
    return {axis: size for axis, size in sizes.items() if size is not None}, metadata


def _pitch(series: Any, tag: str) -> float | None:
    """The length of a pixel, in the file's unit, from its pixels per unit."""
    pixels, units = series.keyframe.tags.valueof(tag, (0, 0))
    return units / pixels if pixels else None


def _ome_described(xml: str, index: int) -> tuple[dict[str, float | None], Metadata]:
    images = ElementTree.fromstring(xml).findall("{*}Image")
    pixels = images[index].find("{*}Pixels") if index < len(images) else None
    if pixels is None:
        return {}, {}
    sizes = {
        a.lower(): micrometres(pixels.get(f"PhysicalSize{a}"), pixels.get(f"PhysicalSize{a}Unit", "µm"))
        for a in "ZYX"
    }
    metadata: Metadata = {}
    channels = pixels.findall("{*}Channel")
    names = [channel.get("Name") or "" for channel in channels]
    if any(names):
        metadata["channel_names"] = names
    told: Metadata = {"Name": images[index].get("Name")}
    told |= {name: images[index].findtext(f"{{*}}{name}") for name in ("AcquisitionDate", "Description")}
    unnamed = f"Image{index}"  # what tifffile writes where there is no name
    told = {name: value for name, value in told.items() if value and value != unnamed}
    light = [{name: one.attrib[name] for name in _OME_LIGHT if name in one.attrib} for one in channels]
    if any(light):
        told["Channel"] = light
    if told:
        metadata["ome"] = told
    unit = SECONDS.get(pixels.get("TimeIncrementUnit", "s"))
    if unit and pixels.get("TimeIncrement"):
        metadata["time_interval"] = float(pixels.get("TimeIncrement", "nan")) * unit
    return sizes, metadata


# --- what we say of it --------------------------------------------------------------------------------------


def _is_ome(path: Path) -> bool:
    return path.name.lower().endswith((".ome.tif", ".ome.tiff"))


def _imagej_holds(data: Array) -> bool:
    # tifffile takes a last axis of length 1 for the samples of a pixel, though axes says X.
    return (
        data.dtype in (np.uint8, np.uint16, np.float32)
        and data.nbytes <= CLASSIC_LIMIT
        and data.shape[-1] > 1
    )


def _arranged(path: Path, image: Image) -> tuple[Array, str]:
    """The data in the order tzcyx, or t z y x c where the colours can be stored as RGB; and its letters.

    OME-TIFF knows any order with y and x last, and keeps the image's own.
    """
    data = image.data
    letters = image.axes if image.axes is not None else "yx"[-data.ndim :] if data.ndim <= 2 else ""
    if letters and "y" not in letters:
        data, letters = data[..., None], letters + "y"
    order = [a for a in _ORDER if a in letters]
    rgb = (np.uint8, np.uint16) if _is_ome(path) else (np.uint8,)
    if letters.endswith("c") and data.shape[-1] == 3 and data.dtype in rgb:
        order = [a for a in "tzyxc" if a in letters]
    elif _is_ome(path) and letters.endswith("yx"):
        order = list(letters)
    return np.ascontiguousarray(
        data.transpose([letters.index(a) for a in order]) if order else data
    ), "".join(order)


def _imagej(image: Image, shape: list[int]) -> tuple[Metadata, tuple[float, float] | None]:
    """ImageJ's description and the pixels per unit in x and y."""
    kept = {k: v for k, v in image.metadata.get("imagej", {}).items() if k not in _IMAGEJ_LAYOUT}
    # Lists with one entry per plane or channel are only true while those are the same.
    for key, length in (
        ("Labels", shape[0] * shape[1] * shape[2]),
        ("LUTs", shape[2]),
        ("Ranges", 2 * shape[2]),
    ):
        if key in kept and len(kept[key]) != length:
            del kept[key]
    if 1 < shape[2] <= 7:
        kept.setdefault("mode", "composite")
    # Beyond these the ratio of two 32-bit integers, which TIFF stores, gets coarse.
    pitch = {a: size for a, size in image.voxel_size.items() if a == "z" or 1e-6 < size < 1e6}
    unit, yunit = ("micron" if a in pitch else "pixel" for a in "xy")
    kept |= {"unit": unit} if unit == yunit else {"unit": unit, "yunit": yunit}
    if "z" in pitch:
        kept |= {"spacing": pitch["z"]} if unit == "micron" else {"spacing": pitch["z"], "zunit": "micron"}
    if "time_interval" in image.metadata:
        kept["finterval"] = image.metadata["time_interval"]
    resolution = 1 / pitch.get("x", 1.0), 1 / pitch.get("y", 1.0)
    return kept, resolution if {"x", "y"} & set(pitch) else None


def _ome(image: Image, data: Array, letters: str) -> Metadata:
    described: Metadata = {}
    for a, size in image.voxel_size.items():
        described |= {f"PhysicalSize{a.upper()}": size, f"PhysicalSize{a.upper()}Unit": "µm"}
    if "time_interval" in image.metadata:
        described |= {"TimeIncrement": image.metadata["time_interval"], "TimeIncrementUnit": "s"}
    described |= image.metadata.get("ome", {})
    # Colours of an RGB image are the samples of a single OME channel.
    channels = data.shape[letters.index("c")] if "c" in letters and "yxc" not in letters else 1
    names = [{"Name": name} for name in image.metadata.get("channel_names", ())]
    both = [told for told in (names, described.pop("Channel", ())) if len(told) == channels]
    if both:
        described["Channel"] = [dict(ChainMap(*of_one)) for of_one in zip(*both, strict=True)]
    return described


@contextmanager
def _quiet() -> Iterator[None]:
    """Keep tifffile's complaints off the screen: what matters of them is checked and raised here."""

    def nothing(record: logging.LogRecord) -> bool:
        return False

    logger = logging.getLogger("tifffile")
    logger.addFilter(nothing)
    try:
        yield
    finally:
        logger.removeFilter(nothing)
