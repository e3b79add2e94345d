"""FITS, the format of astronomy: an array and its header, of one extension of the file."""

from __future__ import annotations

import itertools
import os
import re
import warnings
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from selfinv.io.image import Format, Image
from selfinv.types import AXES, InputError, Shape, warn

_SUFFIXES = (".fits.gz", ".fits", ".fit", ".fts")
# They describe how the old file stored its values; in the new one they would be lies.
_STALE = ("BLANK", "CHECKSUM", "DATASUM", "XTENSION")
_NAMED = ("EXTNAME", "EXTVER", "INHERIT")  # they tell an extension from others, and mean nothing alone


def _astropy(doing: str) -> Any:
    try:
        from astropy.io import fits
    except ImportError as error:
        raise InputError(f"{doing} FITS needs astropy: pip install 'selfinv[fits]'") from error
    return fits


@dataclass(frozen=True)
class Source:
    """Where in which file an image was, to carry over what is beside it.

    ``stamp`` tells whether the file is still the same, ``shape`` is the image's and ``named`` its cards that
    only mean something among others.
    """

    path: Path
    stamp: tuple[int, int] | None
    index: int
    shape: Shape
    named: dict[str, Any]


def _stamp(path: Path) -> tuple[int, int] | None:
    try:
        told = os.stat(path)
    except OSError:
        return None
    return told.st_mtime_ns, told.st_size


def parted(path: Path) -> tuple[Path, str | None]:
    """A file, and the extension asked for in brackets behind its name; None if none is.

    A file whose own name ends so is meant itself.

    Examples
    --------
    >>> parted(Path("m31.fits[SCI,2]")), parted(Path("m31.fits"))
    ((PosixPath('m31.fits'), 'SCI,2'), (PosixPath('m31.fits'), None))
    """
    match = re.fullmatch(r"(.+)\[([^\[\]]+)\]", path.name)
    if match is None or os.path.exists(path):
        return path, None
    file = path.with_name(match[1])
    named = file.name.lower().endswith(_SUFFIXES) or os.path.isfile(file)
    return (file, match[2].strip()) if named else (path, None)


def read(path: Path) -> Image:
    fits = _astropy("reading")
    path, wanted = parted(path)
    stamp = _stamp(path)
    with warnings.catch_warnings():
        # Astropy warns of each odd header card; what matters here is the pixels, and those it checks.
        warnings.simplefilter("ignore")
        with fits.open(path, memmap=False, lazy_load_hdus=False) as hdus:
            images = [i for i, hdu in enumerate(hdus) if hdu.is_image and hdu.size]
            if not images:
                raise InputError(f"{path} holds no image, only tables or headers; expected an image HDU")
            index = images[0] if wanted is None else _found(path, hdus, wanted, images)
            there, alone = _listed(hdus), len(hdus) == 1
            blank = "BLANK" in hdus[index].header
            data = np.asarray(hdus[index].data)
            header = hdus[index].header.copy(strip=True)
            illegible = _drop_illegible(header)
        if blank and data.dtype.kind == "u":  # which has no NaN, so that astropy gives a number there
            with fits.open(path, memmap=False, uint=False) as hdus:
                data = np.asarray(hdus[index].data)
    if illegible:
        warn(f"{path}: control characters in its header; left out: {', '.join(illegible)}")
    if len(images) > 1 and wanted is None:
        name = header.get("EXTNAME", "the first")
        warn(
            f"{path} holds {len(images)} images; took {name} of {there}; {path.name}[{images[1]}] is another"
        )
    # Degenerate axes (one frequency, one polarisation) lead in the array.
    while data.ndim > 2 and data.shape[0] == 1:
        data = data[0]
    named = {keyword: header[keyword] for keyword in _NAMED if keyword in header}
    for keyword in _STALE + _NAMED:
        header.remove(keyword, ignore_missing=True, remove_all=True)
    axes = "yx"[-data.ndim :] if data.ndim <= 2 else None
    source = {} if alone else {"fits_source": Source(path, stamp, index, data.shape, named)}
    return Image(data, axes, {}, {"fits_header": header.tostring(sep="\n")} | source)


def _drop_illegible(header: Any) -> list[str]:
    """Remove cards that astropy refuses, for control characters in them; their keywords."""
    illegible = []
    for place, card in reversed(list(enumerate(header.cards))):
        try:
            str(card)
        except ValueError:
            illegible.append(card.keyword)
            del header[place]
    return illegible[::-1]


def _found(path: Path, hdus: Any, wanted: str, images: list[int]) -> int:
    """The place of the extension of this number, or this name (and version), among those of a file."""
    name, _, version = (word.strip().upper() for word in wanted.partition(","))
    for index, hdu in enumerate(hdus):
        if wanted == str(index) or (name == hdu.name.upper() and version in ("", str(hdu.ver))):
            if index not in images:
                raise InputError(f"{path}[{wanted}] is no image; the file has {_listed(hdus)}")
            return index
    raise InputError(f"{path}[{wanted}] is not there; the file has {_listed(hdus)}")


def _listed(hdus: Any) -> str:
    """The extensions of a file by number and name."""
    names = [f"{hdu.name},{hdu.ver}" if hdu.ver > 1 else hdu.name for hdu in hdus]
    kinds = ["" if hdu.is_image and hdu.size else ": no image" for hdu in hdus]
    return ", ".join(f"{i} ({n}{k})" for i, (n, k) in enumerate(zip(names, kinds, strict=True)))


def _arranged(image: Image) -> np.ndarray[Any, Any]:
    """The data in the order tczyx, in which x is NAXIS1; as it came where a header says what its axes are."""
    if image.axes is None or "fits_header" in image.metadata:
        return image.data
    return image.data.transpose([image.axes.index(a) for a in AXES if a in image.axes])


def write(path: Path, image: Image) -> None:
    fits = _astropy("writing")
    data = _arranged(image)
    source: Source | None = image.metadata.get("fits_source")
    with ExitStack() as opened, warnings.catch_warnings():
        warnings.simplefilter("ignore")
        header = fits.Header.fromstring(image.metadata.get("fits_header", ""), sep="\n")
        if "history" in image.metadata:
            header.add_history(_printable_ascii(image.metadata["history"]))
        before, after, lost = _others(fits, opened, source, data.shape)
        if source is not None:
            header.update(source.named)
        own = fits.ImageHDU(data, header) if before else fits.PrimaryHDU(data, header)
        fits.HDUList([*before, own, *after]).writeto(path, overwrite=True, output_verify="silentfix+ignore")
    if lost:
        warn(lost)


def _printable_ascii(words: str) -> str:
    r"""What a header can hold: spaces for control characters, escapes such as \xb5 for other letters."""
    printable = "".join(letter if letter.isprintable() else " " for letter in words)
    return printable.encode("ascii", "backslashreplace").decode()


def _others(
    fits: Any, opened: ExitStack, source: Source | None, shape: Shape
) -> tuple[list[Any], list[Any], str]:
    """What the file has before and after the image that came from it, and a warning of what is lost of it."""
    if source is None:
        return [], [], ""
    if source.stamp != _stamp(source.path):
        return [], [], f"{source.path} has changed since it was read; what is beside its image is left out"
    # What is compressed stays so, byte for byte.
    options = {"memmap": False, "lazy_load_hdus": False, "disable_image_compression": True}
    hdus = list(opened.enter_context(fits.open(source.path, **options)))
    dropped = [_drop_illegible(hdu.header) for hdu in hdus]
    before, after = hdus[: source.index], hdus[source.index + 1 :]
    if shape == source.shape:
        cards = ", ".join(itertools.chain(*dropped[: source.index], *dropped[source.index + 1 :]))
        lost = f"{source.path}: control characters in headers beside its image; left out: {cards}"
        return before, after, lost if cards else ""
    names = ", ".join(hdu.name or "one without a name" for hdu in before[1:] + after)
    lost = f"of {source.path} {names} is left out: its pixels are not those of an image of {shape}"
    return before[:1], [], lost if names else ""


def _scaled_by_defaults(cards: Any, turned: set[str]) -> Iterator[tuple[str, str]]:
    """Keywords, with a place for the axis, and versions of the coordinates that are scaled by them."""
    found = [re.fullmatch(r"(CTYPE|CRVAL|PC|CD)\d+(?:_\d+)?([A-Z]?)", keyword) for keyword in cards]
    kinds = {(match[1], match[2]) for match in found if match}
    for version in sorted({version for _, version in kinds}):
        if ("CD", version) not in kinds:
            yield "CDELT{}", version
            if version in turned:
                yield "PC{0}_{0}", version


def with_finer_pixels(header: str, factors: dict[str, float]) -> str:
    """The header of the same field in pixels so many times finer along x and y (and z), its coordinates kept.

    Pixel 1 is centred at 1, so that its first edge, at 0.5, stays (Greisen and Calabretta 2002,
    doi:10.1051/0004-6361:20021326; distortions as in Shupe et al. 2005, SIP).
    """
    fits = _astropy("changing")
    cards = fits.Header.fromstring(header, sep="\n")
    by = {i: factors[a] for i, a in enumerate("xyz", start=1) if a in factors}
    x, y = by.get(1, 1.0), by.get(2, 1.0)
    turned = {match[1] for keyword in cards if (match := re.fullmatch(r"PC\d+_\d+([A-Z]?)", keyword))}
    for words, version in _scaled_by_defaults(cards, turned):  # that are 1 where they are not given
        for i in by:
            cards.setdefault(words.format(i) + version, 1.0)
    for keyword in list(cards):
        if keyword in ("", "COMMENT", "HISTORY") or not isinstance(cards[keyword], int | float):
            continue
        if match := re.fullmatch(r"CRPIX(\d+)[A-Z]?", keyword):
            factor = by.get(int(match[1]), 1.0)
            cards[keyword] = (cards[keyword] - 0.5) * factor + 0.5
        elif match := re.fullmatch(r"CD\d+_(\d+)[A-Z]?", keyword):
            cards[keyword] /= by.get(int(match[1]), 1.0)
        elif match := re.fullmatch(r"PC\d+_(\d+)[A-Z]?", keyword):
            if len(set(by.values())) > 1:
                cards[keyword] /= by.get(int(match[1]), 1.0)
        elif match := re.fullmatch(r"CDELT(\d+)([A-Z]?)", keyword):
            if match[2] not in turned or len(set(by.values())) == 1:
                cards[keyword] /= by.get(int(match[1]), 1.0)
        elif match := re.fullmatch(r"([AB])P?_(\d)_(\d)", keyword):
            own = x if match[1] == "A" else y
            cards[keyword] *= own / (x ** int(match[2]) * y ** int(match[3]))
    return str(cards.tostring(sep="\n"))


def check(path: Path, dtype: np.dtype[Any] | None, shape: Shape | None, axes: str | None) -> None:
    _astropy("writing")
    if dtype == np.float16:
        raise InputError("FITS cannot hold float16 values; pass dtype='float32' (--dtype float32)")


FITS = Format("FITS", _SUFFIXES, (b"SIMPLE  =",), read, write, check)
