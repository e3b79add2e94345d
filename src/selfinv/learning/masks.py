"""Which measured values to hide in a training step, and what to put in their place.

A scheme answers ``hidden(shape, step, seed, device)`` with a boolean tensor, True where a value is hidden;
it keeps no state, so any step can be made again. A fill replaces hidden values *without looking at them*:
this is what makes the masked prediction J-invariant (Batson & Royer 2019, arXiv:1901.11365).
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor

from selfinv.learning.random import CPU, generator_for
from selfinv.learning.smoothing import smooth
from selfinv.types import InputError, Shape, spatial_index

REACHED = 1e-3  # of the weight of a Gaussian, at least, on what is visible


class MaskScheme(Protocol):
    """Chooses the hidden values of one step."""

    def hidden(self, shape: Sequence[int], step: int, seed: int, device: torch.device = CPU) -> Tensor:
        """A boolean tensor of this ``shape`` (``batch channel *space``), True where a value is hidden."""
        ...


@dataclass(frozen=True)
class Decaying:
    """A density that starts at ``start`` and closes ``rate`` of the distance to ``end`` in every step."""

    start: float = 0.5
    end: float = 0.01
    rate: float = 0.005

    def __call__(self, step: int) -> float:
        return self.end + (self.start - self.end) * (1.0 - self.rate) ** step


@dataclass(frozen=True)
class RandomPixels:
    """Every value is hidden independently with a probability ``density``, a number or a schedule."""

    density: float | Decaying = 0.5

    def hidden(self, shape: Sequence[int], step: int, seed: int, device: torch.device = CPU) -> Tensor:
        density = self.density(step) if callable(self.density) else self.density
        _check_density(density)
        return _uniform(shape, step, seed, device) < density


@dataclass(frozen=True)
class ComplementaryPairs:
    """Random halves in pairs: what an even step hides, the next step shows, and the other way round."""

    density: float = 0.5

    def hidden(self, shape: Sequence[int], step: int, seed: int, device: torch.device = CPU) -> Tensor:
        _check_density(self.density)
        hidden = _uniform(shape, step // 2, seed, device) < self.density
        return hidden if step % 2 == 0 else ~hidden


@dataclass(frozen=True)
class Grid:
    """A partition into regular grids: each step hides every ``period``-th value along each spatial axis.

    ``period ** ndim`` successive steps hide every value exactly once, in an order drawn from the seed.
    """

    period: int = 4

    def hidden(self, shape: Sequence[int], step: int, seed: int, device: torch.device = CPU) -> Tensor:
        if self.period < 2:
            raise InputError(f"Grid(period={self.period}) would hide everything; use 2 or more")
        space = tuple(shape[2:])
        cells = list(itertools.product(range(self.period), repeat=len(space)))
        cycle, place = divmod(step, len(cells))
        order = torch.randperm(len(cells), generator=generator_for(seed, cycle))
        cell = cells[int(order[place])]
        hidden = torch.zeros(tuple(shape), dtype=torch.bool, device=device)
        hidden[spatial_index(slice(offset, None, self.period) for offset in cell)] = True
        return hidden


def drawn_shape(shape: Sequence[int], *, joint_channels: bool, together: Sequence[int] = ()) -> Shape:
    """The shape of a mask for values of ``shape``, 1 along axes that are hidden together."""
    joint = {axis % len(shape) for axis in together} | ({1} if joint_channels else set())
    return tuple(1 if axis in joint else n for axis, n in enumerate(shape))


def _uniform(shape: Sequence[int], step: int, seed: int, device: torch.device) -> Tensor:
    return torch.rand(tuple(shape), generator=generator_for(seed, step, device), device=device)


def _check_density(density: float) -> None:
    if not 0.0 < density < 1.0:
        raise InputError(f"a mask density of {density} hides everything or nothing; use a value in (0, 1)")


Fill = Callable[[Tensor, Tensor, torch.Generator], Tensor]


def zero_fill(y: Tensor, hidden: Tensor, generator: torch.Generator) -> Tensor:
    """Replace hidden values by zero (the paper's choice)."""
    return y.masked_fill(hidden, 0.0)


def random_fill(y: Tensor, hidden: Tensor, generator: torch.Generator) -> Tensor:
    """Replace each hidden value by a visible one drawn at random from the same image and channel."""
    replaced = []
    for image, mask in zip(y.flatten(0, 1), hidden.flatten(0, 1), strict=True):
        visible = image[~mask] if not mask.all() else image.new_zeros(1)
        count = (int(mask.sum()),)
        donors = torch.randint(visible.numel(), count, generator=generator, device=generator.device)
        replaced.append(image.masked_scatter(mask, visible[donors.to(y.device)]))
    return torch.stack(replaced).reshape(y.shape)


def neighbour_fill(
    y: Tensor, hidden: Tensor, generator: torch.Generator, *, widths: int | None = None
) -> Tensor:
    """Replace hidden values by the Gaussian-weighted mean of the *visible* values around them.

    Where a whole neighbourhood is hidden the Gaussian is widened until something visible comes into reach.

    Parameters
    ----------
    widths
        Try so many Gaussians whatever is hidden, and leave 0 where none reaches; None: as many as it takes.
    """
    visible = (~hidden).to(y.dtype)
    shown = y.masked_fill(hidden, 0.0)
    filled, missing = shown, hidden
    for tried, sigma in enumerate(_widths(y.shape), start=1):
        total = smooth(shown, sigma)
        weight = smooth(visible, sigma)
        reached = missing & (weight > REACHED)
        filled = torch.where(reached, total / weight.clamp_min(1e-12), filled)
        missing = missing & ~reached
        if tried == widths or (widths is None and not missing.any()):
            break
    return filled


def widths_needed(hidden: Tensor) -> int:
    """How many Gaussians `neighbour_fill` takes."""
    visible = (~hidden).to(torch.float32)
    for tried, sigma in enumerate(_widths(hidden.shape), start=1):
        hidden = hidden & (smooth(visible, sigma) <= REACHED)
        if not hidden.any():
            return tried
    return tried


def _widths(shape: Sequence[int]) -> Iterator[float]:
    """Each three times the one before, until one spans the image."""
    sigma = 0.8
    yield sigma
    while sigma <= 2 * max(shape[2:]):
        sigma *= 3.0
        yield sigma


FILLS: dict[str, Fill] = {"zero": zero_fill, "random": random_fill, "neighbours": neighbour_fill}
