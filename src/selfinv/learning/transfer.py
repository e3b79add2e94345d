"""How much power an operator gives a measurement at each frequency, of an object's at each."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from functools import cached_property

import numpy as np
import numpy.typing as npt
import torch
from scipy import sparse
from torch import Tensor

from selfinv.learning.forward_model import ForwardModel
from selfinv.learning.random import generator_for
from selfinv.operators import LinearOperator
from selfinv.solvers.modes import Modes, power_transfer
from selfinv.spectrum import taper
from selfinv.types import Floats

LONGEST, PER_OCTAVE = 32.0, 4  # samples, of the longest waves that are told apart; and rings
FEWEST = 4  # modes in a ring
TAPER = 0.5  # of the measurement, both ends of an axis together
ENOUGH, MOST_PROBES = 200, 8  # modes that a ring is told by, if so few random objects have as many


@dataclass(frozen=True)
class Transfer:
    """The mean power of a measurement's modes, of an object with the power 1 in one ring of frequencies.

    A filter lets each mode through by itself. Others, as coarser pixels, where fine waves are seen as long
    ones, or a blur that is not the same at all places, are tried on random objects, and what is measured is
    told by rings alone.

    Parameters
    ----------
    axes
        Of space.
    frequency, measured_frequency
        Of the rings (shells) of object and measurement, in cycles per sample of their own grid.
    cell
        Of each mode of the measurement that of which a mean is taken; -1: of none.
    ring
        Of each cell that of its frequencies.
    count
        Of each cell, how many modes it has, those counted twice that stand for two.
    gains
        Of each channel, ``cell ring``.
    """

    axes: int
    frequency: Floats
    measured_frequency: Floats
    cell: npt.NDArray[np.int64]
    ring: npt.NDArray[np.int64]
    count: Floats
    gains: tuple[sparse.csr_array, ...]

    @classmethod
    @torch.no_grad()
    def of(cls, forward: ForwardModel, channels: int, like: Tensor) -> Transfer:
        """Of a linear one whose measurement has as many axes as the object, in the network's units."""
        operator = forward.operator
        assert isinstance(operator, LinearOperator)
        waves = Modes(operator.out_shape, True, like)
        ring, frequency = rings_of(waves)
        inside, rings = ring >= 0, len(frequency)
        twice = _flat(waves.twice.expand(waves.frequency.shape))
        passed = power_transfer(operator, waves)
        if passed is not None:
            cell = np.where(inside, np.cumsum(inside) - 1, -1)
            places, shape = (np.arange(inside.sum()), ring[inside]), (int(inside.sum()), rings)
            gains = tuple(
                sparse.csr_array((forward.scale**2 * _flat(part)[inside], places), shape)
                for part in passed.expand(channels, *waves.frequency.shape)
            )
            return cls(len(operator.in_shape), frequency, frequency, cell, ring[inside], twice[inside], gains)
        objects = Modes(operator.in_shape, True, like)
        ring_of_object, of_object = rings_of(objects)
        count = np.bincount(ring[inside], twice[inside], rings).astype(np.float64)
        found = cls(len(operator.in_shape), of_object, frequency, ring, np.arange(rings), count, ())
        tried = [found._tried(forward, channels, objects, ring_of_object == j) for j in range(len(of_object))]
        return replace(found, gains=tuple(sparse.csr_array(part) for part in np.stack(tried, axis=-1)))

    def _tried(
        self, forward: ForwardModel, channels: int, objects: Modes, chosen: npt.NDArray[np.bool_]
    ) -> Floats:
        """The mean power in each cell, ``channel cell``, of random objects with some modes alone."""
        like, generator = objects.like, generator_for(0)
        only = torch.from_numpy(chosen).reshape(objects.frequency.shape).to(like.device)
        modes = float((objects.twice * only).sum())
        measured, given = np.zeros((channels, len(self.count))), np.zeros((channels, 1))
        for _ in range(math.ceil(min(ENOUGH / modes, MOST_PROBES))):
            x = torch.randn((1, channels, *objects.shape), generator=generator).to(like)
            waves = objects.analyse(x) * only
            measured += self.power_of(forward.respond(objects.synthesise(waves))[0])
            given += objects.dot(waves, waves).T.double().cpu().numpy() / modes
        return np.asarray(measured / given)

    @property
    def is_filter(self) -> bool:
        """Whether each cell is one mode."""
        return len(self.ring) > len(self.measured_frequency)

    @cached_property
    def modes(self) -> Floats:
        """How many there are in each ring of the measurement, counted as in ``count``."""
        return np.bincount(self.ring, self.count, len(self.measured_frequency)).astype(np.float64)

    def window(self, values: Tensor) -> Tensor:
        """What tapers values ``... *space``."""
        return torch.from_numpy(taper(values.shape[-self.axes :], TAPER)).to(values)

    def power_of(self, values: Tensor, seen: Tensor | None = None) -> Floats:
        """The mean power in each cell, of values ``channel *space``, tapered, as ``channel cell``.

        ``seen``: 1 where there is a value, 0 where not.
        """
        waves = Modes(tuple(values.shape[1:]), True, values)
        window = self.window(values) if seen is None else self.window(values) * seen
        power = waves.analyse(values * window).abs().square()
        power = power * waves.twice / window.square().mean(waves.dims, keepdim=True).clamp_min(1e-30)
        inside = self.cell >= 0
        sums = [np.bincount(self.cell[inside], _flat(part)[inside], len(self.ring)) for part in power]
        return np.stack(sums) / self.count

    def by_ring(self, values: Floats) -> Floats:
        """The means, over rings of the measurement, of what cells have, ``... cell``."""
        rings = len(self.modes)
        sums = [
            np.bincount(self.ring, self.count * part, rings) for part in values.reshape(-1, len(self.ring))
        ]
        return np.reshape(sums, (*values.shape[:-1], rings)) / self.modes


def rings_of(waves: Modes) -> tuple[npt.NDArray[np.int64], Floats]:
    """Of each mode its ring, none of which is empty, and the rings' frequencies; the mean is in none (-1)."""
    frequency = _flat(waves.frequency)
    with np.errstate(divide="ignore"):
        place = np.floor(PER_OCTAVE * np.log2(frequency * LONGEST)).clip(-1.0)
    counted = _flat(waves.twice.expand(waves.frequency.shape)) * (frequency > 0.0)
    rings = (place + 1.0).astype(np.int64)
    enough = np.bincount(rings, counted) >= FEWEST
    index = np.where((frequency > 0.0) & enough[rings], (np.cumsum(enough) - 1)[rings], -1)
    there = index >= 0
    sums, logs = (
        np.bincount(index[there], values[there])
        for values in (counted, counted * np.log(frequency.clip(1e-9)))
    )
    return index, np.exp(logs / sums)


def _flat(values: Tensor) -> Floats:
    return np.asarray(values.flatten().double().cpu().numpy())
