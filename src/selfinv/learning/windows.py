"""How much of a large measurement a training step looks at, and which part of it."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from selfinv.learning.measurement import Measurement
from selfinv.learning.random import generator_for
from selfinv.operators import LinearOperator
from selfinv.solvers.base import Forward
from selfinv.types import Pads, Shape


@dataclass(frozen=True)
class Windows:
    """How much of a large image a training step looks at: a random part at first, the whole in the end.

    While the rate is high a part teaches as much as the whole; the last steps need all of it, because a
    network normalises by the statistics of what it looks at. (A CUDA GPU always looks at the last size.)
    There are few sizes: memory that one step has used then fits the next, and what a library prepares for
    arrays of a shape is used again.

    Parameters
    ----------
    first, share
        Values of the object to look at first: this many, or this share of the whole if that is more.
    last
        Values at the end, at most.
    growth
        Fractions of the run between which the window grows, geometrically.
    stages
        In so many steps.
    """

    first: int
    last: int
    share: float = 0.25
    growth: tuple[float, float] = (0.4, 0.8)
    stages: int = 6

    def size(self, progress: float, whole: int) -> int:
        """Values to look at after this fraction of the run, of an object of ``whole`` values."""
        begin, end = self.growth
        last = min(self.last, whole)
        first = min(max(self.first, self.share * whole), last)
        grown = round(self.stages * min(1.0, max(0.0, (progress - begin) / (end - begin)))) / self.stages
        return last if grown == 1.0 else round(first * (last / first) ** grown)

    def values(self, data: Measurement, progress: float) -> int:
        """How many of a measurement's object are looked at after this fraction of the run."""
        # A GPU takes as long for a part as for the whole, and longer for ever other sizes.
        size = self.size(1.0 if data.y.is_cuda else progress, data.object_values)
        if data.can_be_cut:
            return size
        return max(size, math.prod(data.object_shape) if data.frames_alike else data.object_values)

    def looks(self, data: Measurement, steps: int) -> float:
        """How often a run of so many steps looks at each value, on the mean."""
        return sum(self.values(data, step / steps) for step in range(steps)) / data.object_values


@dataclass(frozen=True)
class Window:
    """The part of a measurement that one training step looks at.

    Parameters
    ----------
    frames
        Which of the batch.
    region
        What the network sees: the core and its surroundings, as far as they were measured.
    pads
        How far the window's object reaches beyond the region, where it sticks out of the image.
    core
        What is predicted and scored, relative to the region.
    operator
        From the window's object to the core.
    """

    frames: slice
    region: tuple[slice, ...]
    pads: Pads
    core: tuple[slice, ...]
    operator: Forward

    def see(self, tensor: Tensor) -> Tensor:
        """Cut the region out of ``batch channel *space``."""
        return tensor[(self.frames, slice(None), *self.region)]

    def score(self, tensor: Tensor) -> Tensor:
        """Cut the core out of a region."""
        return tensor[(slice(None), slice(None), *self.core)]


def draw_window(data: Measurement, size: int | None, multiple: Sequence[int], seed: int, step: int) -> Window:
    """The whole measurement, or a random part of about ``size`` values of its object if it is larger.

    Of frames, some, or a part of each where they are not measured alike.

    Parameters
    ----------
    multiple
        The window's object has a multiple of this many samples along each axis (the network would pad).
    """
    batch, space = data.y.shape[0], data.y.shape[2:]
    voxels = math.prod(data.object_shape)
    generator = generator_for(seed, step)
    frames = slice(0, batch)
    if size is not None and batch > 1 and batch * voxels > size:
        count = max(1, size // voxels) if data.frames_alike else batch
        first = int(torch.randint(batch - count + 1, (1,), generator=generator))
        frames = slice(first, first + count)
        size = size // count
    whole = tuple(slice(0, n) for n in space)
    operator = data.operator
    if size is None or voxels <= size or not data.can_be_cut:
        return Window(frames, whole, data.pads, whole, operator)
    assert isinstance(operator, LinearOperator)
    reach = operator.reach
    assert reach is not None
    cores = _core_shape(data.object_shape, space, reach, size, multiple)
    region, outside, core = [], [], []
    for n, w, (a, b) in zip(space, cores, reach, strict=True):
        # Drawn beyond the ends and pushed back, so that edges are seen about as often as the rest.
        start = int(torch.randint(-(w // 2), n - w + w // 2 + 1, (1,), generator=generator))
        start = min(max(start, 0), n - w)
        first, last = max(0, start - a), min(n, start + w + b)
        region.append(slice(first, last))
        outside.append((first - (start - a), start + w + b - last))
        core.append(slice(start - first, start - first + w))
    goes_on = any(before or after for before, after in data.pads)
    pads = tuple(outside) if goes_on else ((0, 0),) * len(space)
    return Window(frames, tuple(region), pads, tuple(core), operator.window(cores, outside))


def _core_shape(
    whole: Sequence[int], space: Sequence[int], reach: Pads, size: int, multiple: Sequence[int]
) -> Shape:
    """As near to a cube of ``size`` values as the object's shape allows."""
    sides = [0] * len(whole)
    left, axes = float(size), list(range(len(whole)))
    while axes:  # short axes are taken whole, the rest of the budget is shared by the long ones
        side = left ** (1 / len(axes))
        short = [a for a in axes if whole[a] <= side]
        for a in short or axes:
            sides[a] = whole[a] if short else max(multiple[a], int(side) // multiple[a] * multiple[a])
            left /= sides[a]
            axes = [other for other in axes if other != a]
    return tuple(max(1, min(n, s - a - b)) for n, s, (a, b) in zip(space, sides, reach, strict=True))
