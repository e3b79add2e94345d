"""NumPy's own format: one array, no axes, no units."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from selfinv.io.image import Format, Image
from selfinv.types import InputError, Shape


def read(path: Path) -> Image:
    try:
        return Image(np.load(path, allow_pickle=False))
    except ValueError as error:
        if "allow_pickle" not in str(error):
            raise
        raise InputError(
            f"{path} holds pickled Python objects, which can run any code when loaded; "
            f"save a plain numeric array with numpy.save"
        ) from error


def write(path: Path, image: Image) -> None:
    np.save(path, image.data, allow_pickle=False)


def check(path: Path, dtype: np.dtype[Any] | None, shape: Shape | None, axes: str | None) -> None:
    """Every array of numbers fits."""


NPY = Format("NPY", (".npy",), (b"\x93NUMPY",), read, write, check)
