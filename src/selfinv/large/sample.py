"""A few pieces of a large image to train on, chosen without knowing what is in it."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from selfinv.io.lazy import LazyImage
from selfinv.io.regions import Region
from selfinv.noise import noise_level
from selfinv.types import Array, AxisLayout, InputError, Shape

CANDIDATES = 64  # pieces that are looked at
SIDE = {1: 65536, 2: 512, 3: 96}  # values along each axis of a piece, at most
PIECES = {1: 8, 2: 6, 3: 4}
MOST_MISSING = 0.5  # of a piece's values
WORDS = {"t": "frame", "z": "planes", "y": "rows", "x": "columns"}


@dataclass(frozen=True)
class Piece:
    """A part of a large image.

    Parameters
    ----------
    region
        One slice for each axis of the image.
    information
        Bits per value of what is no noise, as if both were Gaussian: half the logarithm of the signal's
        variance over the noise's.
    """

    region: Region
    information: float

    def describe(self, axes: str, shape: Shape) -> str:
        """Where it is in an image of this shape, in words; what it has all of is left out."""
        parts = [
            f"{WORDS[a]} {s.start}" if s.stop == s.start + 1 else f"{WORDS[a]} {s.start} to {s.stop - 1}"
            for a, s, n in zip(axes, self.region, shape, strict=True)
            if s.stop - s.start < n
        ]
        return f"{', '.join(parts) or 'the whole image'} ({self.information:.2f} bits per value)"


def choose_pieces(
    image: LazyImage, axes: str, *, count: int | None = None, mask_nan: bool = False, seed: int = 0
) -> list[Piece]:
    """Pieces with much to learn from, from all over the image and its frames.

    Candidates, spread at random, are sorted by frame and place and shared out among as many groups as pieces
    are wanted; each group's most informative one is taken. With ``mask_nan`` values may be missing, half of
    them at most, where there are not as many pieces without a gap as are wanted.

    Raises
    ------
    InputError
        If no candidate has anything but one value.
    """
    layout = AxisLayout(axes)
    ndim = len(layout.spatial)
    space = layout.spatial_shape(image.shape)
    sides = [min(n, SIDE[ndim]) for n in space]
    frames = image.shape[axes.index("t")] if "t" in axes else 1
    count = count or PIECES[ndim]
    rng = np.random.default_rng(seed)
    starts = {
        (
            int(rng.integers(frames)),
            *(int(rng.integers(n - s + 1)) for n, s in zip(space, sides, strict=True)),
        )
        for _ in range(max(CANDIDATES, 4 * count))
    }
    found: list[tuple[Piece, bool]] = []
    unread: InputError | None = None
    for frame, *corner in sorted(starts):
        places = {a: slice(c, c + s) for a, c, s in zip(layout.spatial, corner, sides, strict=True)}
        places["t"] = slice(frame, frame + 1)
        region = tuple(places.get(a, slice(0, n)) for a, n in zip(axes, image.shape, strict=True))
        try:
            block = layout.to_batch(image.read(region)).astype(np.float64)
        except InputError as error:  # a part that cannot be read is nothing to learn from
            unread = error
            continue
        missing = 1.0 - float(np.isfinite(block).mean())
        information = _information(block) if missing <= MOST_MISSING else None
        if information is not None:
            found.append((Piece(region, information), not missing))
    candidates = [piece for piece, whole in found if whole]
    if mask_nan and len(candidates) < count:
        candidates = [piece for piece, _ in found]
    if not candidates:
        why = "is constant or has no finite values where it was looked at"
        if found:
            why = (
                "has NaN or infinite values wherever it was looked at; mask_nan=True (--mask-nan) takes them "
                "as missing"
            )
        raise unread or InputError(f"{image.path} {why}")
    groups = np.array_split(np.arange(len(candidates)), min(count, len(candidates)))
    chosen: list[Piece] = []
    for group in groups:
        best = sorted((candidates[i] for i in group), key=lambda piece: -piece.information)
        fresh = [piece for piece in best if not any(_overlap(piece, other, axes) for other in chosen)]
        chosen += fresh[:1]
    return chosen


def read_pieces(image: LazyImage, axes: str, pieces: list[Piece]) -> Array:
    """The pieces as frames, ``piece channel *space``."""
    layout = AxisLayout(axes)
    return np.concatenate([layout.to_batch(image.read(piece.region)) for piece in pieces])


def _information(block: Array) -> float | None:
    """Of the finite values; None where there is nothing to see."""
    values = block[np.isfinite(block)]
    if values.min() == values.max():
        return None
    variance = float(values.var())
    noise = max(noise_level(block) ** 2, 1e-12 * variance)
    return 0.5 * float(np.log2(1.0 + max(variance - noise, 0.0) / noise))


def _overlap(one: Piece, other: Piece, axes: str) -> bool:
    """By more than a quarter along every axis."""
    return all(
        min(a.stop, b.stop) - max(a.start, b.start) > 0.25 * (a.stop - a.start)
        for axis, a, b in zip(axes, one.region, other.region, strict=True)
        if axis != "c"
    )
