"""How a large array is cut: cores that are written once, and what must be seen to restore each."""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from selfinv.io.regions import Region
from selfinv.types import AxisLayout, InputError, Shape

CHUNK = {1: 65536, 2: 512, 3: 64}  # values along each spatial axis of a chunk that is written


@dataclass(frozen=True)
class Reach:
    """How far around a core a restorer must see along one axis, and where its grid begins.

    Parameters
    ----------
    halo
        Values on each side.
    multiple
        A network that halves its grid sees the same as in the whole image only from places that are a
        multiple of this apart, counted from both ends of its object's grid.
    before, after
        How far that grid reaches beyond the image.
    """

    halo: int
    multiple: int = 1
    before: int = 0
    after: int = 0

    def around(self, core: slice, n: int) -> slice:
        """The part, of ``n`` values in all, to be seen for a core."""
        start, stop = core.start - self.halo, core.stop + self.halo
        start -= (start + self.before) % self.multiple
        stop += (n + self.after - stop) % self.multiple
        # What is nearly the whole may as well be the whole: its end must not fall out of step.
        return slice(max(0, start), min(stop, n))


@dataclass(frozen=True)
class Tile:
    """One piece of work.

    Parameters
    ----------
    number
        Its place in the plan.
    core
        What is written, one slice for each axis of the array.
    """

    number: int
    core: Region

    def describe(self, axes: str) -> str:
        """Where it is, in words."""
        return ", ".join(f"{a} {s.start}:{s.stop}" for a, s in zip(axes, self.core, strict=True))


@dataclass(frozen=True)
class Plan:
    """All tiles of an array: frames one by one, channels together, space in cores of one size.

    Parameters
    ----------
    shape, axes
        Of the array.
    core
        Spatial shape of a tile's core, multiples of the chunks.
    """

    shape: Shape
    axes: str
    core: Shape

    @property
    def layout(self) -> AxisLayout:
        return AxisLayout(self.axes)

    def __len__(self) -> int:
        return math.prod(len(parts) for parts in self._parts())

    def __iter__(self) -> Iterator[Tile]:
        for number, core in enumerate(itertools.product(*self._parts())):
            yield Tile(number, core)

    def _parts(self) -> list[list[slice]]:
        sides = dict(zip(self.layout.spatial, self.core, strict=True)) | {"t": 1}
        parts = []
        for axis, n in zip(self.axes, self.shape, strict=True):
            side = sides.get(axis, n)
            parts.append([slice(start, min(n, start + side)) for start in range(0, n, side)])
        return parts


def chunks_for(shape: Sequence[int], axes: str) -> Shape:
    """The chunks in which a result of this shape is kept: one frame, one channel, a piece of space."""
    side = CHUNK[len(AxisLayout(axes).spatial)]
    return tuple(min(n, side) if a in "zyx" else 1 for n, a in zip(shape, axes, strict=True))


def cores_for(
    space: Sequence[int], chunks: Sequence[int], reaches: Sequence[Reach], most: float, least_tiles: int = 1
) -> Shape:
    """The largest cores, in whole chunks, of which what must be seen is at most ``most`` values.

    Parameters
    ----------
    space, chunks
        Spatial shapes of the array and of its chunks.
    least_tiles
        So many tiles at least, as long as what is seen twice stays below a third.

    Raises
    ------
    InputError
        If not even one chunk with its surroundings is that small.
    """

    def seen(core: Sequence[int]) -> int:
        """Of a core in the middle."""
        return math.prod(
            min(n, c + 2 * (r.halo + r.multiple)) for n, c, r in zip(space, core, reaches, strict=True)
        )

    def tiles(core: Sequence[int]) -> int:
        return math.prod(-(-n // c) for n, c in zip(space, core, strict=True))

    core = [min(n, c) for n, c in zip(space, chunks, strict=True)]
    if seen(core) > most:
        raise InputError(
            f"a tile of {' × '.join(str(c) for c in core)} with its surroundings takes {seen(core)} values, "
            f"and the memory allows {int(most)}; allow more (--memory) or use fewer workers"
        )
    while True:
        grown = [
            [*core[:a], min(space[a], core[a] + chunks[a]), *core[a + 1 :]]
            for a in range(len(core))
            if core[a] < space[a]
        ]
        fitting = [g for g in grown if seen(g) <= most]
        fitting = [g for g in fitting if tiles(g) >= least_tiles or seen(core) > 4 / 3 * math.prod(core)]
        if not fitting:
            return tuple(core)
        core = min(fitting, key=lambda g: seen(g) / math.prod(g))
