"""PNG: flat images of 8 or 16 bits, grey or coloured."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from selfinv.io.image import Format, Image, drop_alpha
from selfinv.types import Array, InputError, Shape


def read(path: Path) -> Image:
    from imagecodecs import png_decode

    data = png_decode(path.read_bytes())
    if data.ndim == 3 and data.shape[-1] in (2, 4):
        data = drop_alpha(data, -1, path)
    return Image(data, "yx" if data.ndim == 2 else "yxc")


def write(path: Path, image: Image) -> None:
    from imagecodecs import png_encode

    path.write_bytes(png_encode(np.ascontiguousarray(_flat(image.data, image.axes))))


def check(path: Path, dtype: np.dtype[Any] | None, shape: Shape | None, axes: str | None) -> None:
    if dtype is not None and dtype not in (np.uint8, np.uint16):
        raise InputError(
            f"PNG cannot hold {dtype} values; write a .tif, or pass dtype='uint16' (--dtype uint16)"
        )
    if shape is not None:
        _flat(np.broadcast_to(np.uint8(0), shape), axes)


def _flat(data: Array, axes: str | None) -> Array:
    """``data`` as y x, or y x c with 3 channels; a fourth would be its transparency."""
    letters = axes or {1: "x", 2: "yx", 3: "yxc"}.get(data.ndim, "?" * data.ndim)
    single = tuple(i for i, a in enumerate(letters) if data.shape[i] == 1 and a not in "yx")
    kept = "".join(a for i, a in enumerate(letters) if i not in single)
    flat = data.squeeze(single)
    if kept == "x":
        kept, flat = "yx", flat[None]
    channels = flat.shape[kept.index("c")] if "c" in kept else 1
    if not {"y", "x"} <= set(kept) <= set("yxc") or channels not in (1, 3):
        named = f" ({axes})" if axes else ""
        raise InputError(
            f"PNG holds one flat image with 1 or 3 channels but this one has the shape "
            f"{data.shape}{named}; write a .tif"
        )
    return np.transpose(flat, [kept.index(a) for a in "yxc" if a in kept])


PNG = Format("PNG", (".png",), (b"\x89PNG\r\n\x1a\n",), read, write, check)
