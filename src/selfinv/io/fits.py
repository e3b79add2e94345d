"""FITS, the format of astronomy: one array and its header."""

from __future__ import annotations

import warnings
from pathlib import Path
from typing import Any

import numpy as np

from selfinv.io.image import Format, Image
from selfinv.types import InputError, SelfinvWarning, Shape

# They describe how the old file stored its values; in the new one they would be lies.
_STALE = ("BLANK", "CHECKSUM", "DATASUM", "EXTNAME", "EXTVER", "XTENSION", "INHERIT")


def _astropy(doing: str) -> Any:
    try:
        from astropy.io import fits
    except ImportError as error:
        raise InputError(f"{doing} FITS needs astropy: pip install 'selfinv[fits]'") from error
    return fits


def read(path: Path) -> Image:
    fits = _astropy("reading")
    with warnings.catch_warnings():
        # Astropy warns of each odd header card; what matters here is the pixels, and those it checks.
        warnings.simplefilter("ignore")
        with fits.open(path, memmap=False, lazy_load_hdus=False) as hdus:
            images = [hdu for hdu in hdus if hdu.is_image and hdu.size]
            if not images:
                raise InputError(f"{path} holds no image, only tables or headers; expected an image HDU")
            data = np.asarray(images[0].data)
            header = images[0].header.copy(strip=True)
    if len(images) > 1:
        name = header.get("EXTNAME", "the first")
        warnings.warn(f"{path} holds {len(images)} images; took {name}", SelfinvWarning, stacklevel=2)
    # Degenerate axes (one frequency, one polarisation) lead in the array.
    while data.ndim > 2 and data.shape[0] == 1:
        data = data[0]
    for keyword in _STALE:
        header.remove(keyword, ignore_missing=True, remove_all=True)
    axes = "yx"[-data.ndim :] if data.ndim <= 2 else None
    return Image(data, axes, {}, {"fits_header": header.tostring(sep="\n")})


def write(path: Path, image: Image) -> None:
    fits = _astropy("writing")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        header = fits.Header.fromstring(image.metadata.get("fits_header", ""), sep="\n")
        fits.PrimaryHDU(image.data, header).writeto(path, overwrite=True, output_verify="silentfix+ignore")


def check(path: Path, dtype: np.dtype[Any] | None, shape: Shape | None, axes: str | None) -> None:
    _astropy("writing")
    if dtype == np.float16:
        raise InputError("FITS cannot hold float16 values; pass dtype='float32' (--dtype float32)")


FITS = Format("FITS", (".fits.gz", ".fits", ".fit", ".fts"), (b"SIMPLE  =",), read, write, check)
