"""What is done to each tile: a trained network, or a classical method with its settings fixed."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Protocol

import numpy as np
import torch
from torch import Tensor

from selfinv import model_file
from selfinv.io.regions import Region
from selfinv.large.journal import array_digest
from selfinv.large.tiles import Reach
from selfinv.learning.measurement import field_of_view, object_pads
from selfinv.learning.noise_line import smoothing_reach, surplus_reach
from selfinv.learning.normalisation import ChannelUnits, in_single_precision
from selfinv.learning.outliers import REACH as OUTLIER_REACH
from selfinv.learning.random import generator_for
from selfinv.learning.stray_values import without_stray
from selfinv.model import TrainedModel
from selfinv.operators import Convolution, Identity, LinearOperator
from selfinv.operators.boundary import reflect
from selfinv.solvers.base import Solver, run
from selfinv.types import Array, InputError, Shape, spatial_index, warn

SCORED = 0.05  # of a tile's middle: hidden to see whether the model still fits
MIDDLE = {1: 4096, 2: 192, 3: 48}  # values along each axis of that


class Restorer(Protocol):
    """Restores a part of an array from it and its surroundings."""

    @property
    def channels(self) -> int | None:
        """How many it takes; None: any number."""
        ...

    @property
    def ndim(self) -> int | None:
        """Spatial axes that it takes; None: any number."""
        ...

    def fitted(self, pieces: Array) -> Restorer:
        """As pieces of an image take it, ``piece channel *space``, with warnings of what they say against it.

        Raises `InputError` if it cannot compute with their values.
        """
        ...

    def digest(self) -> str:
        """What tells it from others that make other tiles."""
        ...

    def reaches(self, space: Sequence[int]) -> list[Reach]:
        """What must be seen around a core, along each axis of an array of this spatial shape."""
        ...

    def bytes_for(self, values: int, channels: int) -> float:
        """About how much memory it takes to restore what is seen."""
        ...

    def restore(self, block: Array, seen: Region, space: Shape) -> Array:
        """The object under a block, ``channel *space``, that is the part ``seen`` of the whole ``space``."""
        ...

    def score(self, block: Array) -> float | None:
        """How badly held-out values in the middle of a block are predicted; None if that says nothing."""
        ...


@dataclass(frozen=True)
class NetworkRestorer:
    """A trained network, with everything it sees of a tile just as it would see it of the whole.

    Tiles begin where the network's coarsest grid has a sample, counted from both ends of the image (for it
    also sees it flipped), and reach as far beyond the core as the network looks: the result is that of the
    whole image, up to rounding, and behind a PSF up to what values further away say of the object. But what
    is stray (`selfinv.learning.stray_values`) is told by the tile alone: behind a PSF fewer than three values
    are not believed, however many others there are elsewhere.

    Parameters
    ----------
    model
        Trained on pixels of the object.
    symmetries
        Over how many flips and turns to average, at most.
    device
        Where to.
    halo
        To look no further than this beyond a core: less work for volumes, where the network's whole reach is
        many times the core, but a difference at the seams. None: as far as the network looks.
    """

    model: TrainedModel
    symmetries: int = 8
    device: str = "cpu"
    halo: int | None = None

    def __post_init__(self) -> None:
        if self.model.crude is not None:
            raise InputError("a model for an operator whose values are not pixels cannot go tile by tile")

    @property
    def channels(self) -> int | None:
        return self.model.inverter.network.settings.channels

    @property
    def ndim(self) -> int | None:
        return self.model.inverter.network.settings.ndim

    def fitted(self, pieces: Array) -> NetworkRestorer:
        y, _ = self.model.measured(pieces)
        likeness = self.model.likeness(y, part=True)
        for words in self.model.doubts(y, likeness):
            warn(words)
        return replace(self, model=self.model.in_units_of(likeness))

    def digest(self) -> str:
        made = model_file.packed(replace(self.model, origin={}))  # but not how it came to be
        return hashlib.sha256(made + repr((self.symmetries, self.halo)).encode()).hexdigest()[:16]

    def reaches(self, space: Sequence[int]) -> list[Reach]:
        settings = self.model.inverter.network.settings
        ndim = settings.ndim
        asked = self._tiled.own_values
        others = smoothing_reach(ndim) if asked and asked.sparse else 0  # which values are not to be counted
        beyond = smoothing_reach(ndim) + others if asked else 0
        beyond += OUTLIER_REACH if self.model.outliers else 0
        filtered = self.model.filters.reach if self.model.filters else (0,) * ndim
        blurred = [0] * ndim  # what values say of an object behind a PSF: further than that it is little
        if asked and self.model.psf is not None:
            errors = asked.errors.reach if asked.errors else 0
            blurred = [smoothing_reach(ndim) + 2 * (k // 2) + errors for k in self.model.psf.shape[-ndim:]]
        least = surplus_reach(ndim) + others if asked and asked.uneven else 0
        return [
            Reach(
                max(
                    min(radius + sources, self.halo or radius + sources) + max(pads) + beyond + more,
                    least,
                ),
                multiple,
                *pads,
            )
            for radius, sources, multiple, pads, more in zip(
                settings.receptive_radius(),
                filtered,
                settings.multiple(),
                self.model.pads,
                blurred,
                strict=True,
            )
        ]

    @property
    def _tiled(self) -> TrainedModel:
        """The model as a tile takes it: of an object that repeats, it has not got the other end.

        Nor has it what an operator that is no PSF measures of a part.
        """
        model = replace(self.model, operator=None)
        periodic = model.psf is not None and model.boundary == "periodic"
        if periodic or not model.on_one_grid:
            return replace(model, own_values=None, light=())
        return model

    def bytes_for(self, values: int, channels: int) -> float:
        settings = self.model.inverter.network.settings
        at_once = 3 * max(settings.widths[0], settings.widths[min(1, len(settings.widths) - 1)])
        images = channels * (1 + settings.copies)
        asked = 64.0 * channels if self._tiled.own_values and self.model.psf is not None else 0.0
        return values * (4.0 * at_once / settings.fold**settings.ndim + 32.0 * images + asked + 16.0)

    def restore(self, block: Array, seen: Region, space: Shape) -> Array:
        y, words = self._tiled.measured(block[None])
        warn(words)
        all_pads = self.model.pads
        pads = tuple(
            (a if part.start == 0 else 0, b if part.stop == n else 0)
            for part, n, (a, b) in zip(seen, space, all_pads, strict=True)
        )
        beyond = tuple((a - c, b - d) for (a, b), (c, d) in zip(all_pads, pads, strict=True))
        x = self._tiled.restored(y, device=self.device, most=self.symmetries, pads=pads, beyond=beyond)
        return x[field_of_view(all_pads, y.shape[2:])][0].cpu().numpy()

    @torch.no_grad()
    def score(self, block: Array) -> float | None:
        """Mean cost of hidden values, in the units of the training image's range."""
        model = self.model
        side = MIDDLE[block.ndim - 1]
        middle = tuple(slice(max(0, n // 2 - side // 2), n // 2 + side // 2) for n in block.shape[1:])
        part = torch.from_numpy(np.array(block[(slice(None), *middle)], np.float32, order="C"))[None]
        y = model.normalisation.apply(part.to(self.device))
        missing = ~torch.isfinite(y)
        y = y.masked_fill(missing, 0.0)
        hidden = (torch.rand(y.shape, generator=generator_for(0)) < SCORED).to(y.device) & ~missing
        if not hidden.any():
            return None
        x = model.inverse(self.device)(y, hidden | missing, most=1)
        operator = _operator(model.psf, y.shape[2:]).to(self.device)
        if operator.in_shape != tuple(x.shape[2:]):  # trained with another boundary
            x = reflect(x[field_of_view(model.pads, y.shape[2:])], object_pads(operator, y.shape[2:]))
        predicted = model.normalisation.apply(operator(model.object_normalisation.undo(x)))
        error = (predicted - y)[hidden].abs()
        return float(error.mean())


@dataclass(frozen=True)
class ClassicalRestorer:
    """A solver with its settings fixed, on each tile with a part of its neighbours.

    What lies beyond a tile is unknown to it, as what lies beyond the image. Its influence decays but does not
    end: the halo leaves a difference at the seams (docs/large.md has it measured). What is stray is
    told by the tile alone, as by `NetworkRestorer`.

    Parameters
    ----------
    solver
        With all settings: what would be tuned would be tuned for each tile apart.
    psf
        With sum 1; None for the identity.
    halo
        Beyond twice the PSF's size, along each axis.
    units
        Those that the settings are for; None: the image's.
    """

    solver: Solver
    psf: Tensor | None
    halo: int = 16
    seed: int = 0
    units: ChannelUnits | None = None

    @property
    def channels(self) -> int | None:
        return None if self.units is None else len(self.units.scales)

    @property
    def ndim(self) -> int | None:
        return None

    def fitted(self, pieces: Array) -> ClassicalRestorer:
        y = torch.from_numpy(pieces.astype(np.float64))
        y = y.masked_fill(~torch.isfinite(y), torch.nan)
        in_single_precision(y if self.units is None else self.units.apply(y))
        return self

    def digest(self) -> str:
        psf = None if self.psf is None else array_digest(self.psf.numpy())
        made = repr((self.solver, self.halo, self.seed, self.units, psf))
        return hashlib.sha256(made.encode()).hexdigest()[:16]

    def reaches(self, space: Sequence[int]) -> list[Reach]:
        sizes = (1,) * len(space) if self.psf is None else self.psf.shape[self.psf.ndim - len(space) :]
        return [Reach(self.halo + 2 * (k - 1)) for k in sizes]

    def bytes_for(self, values: int, channels: int) -> float:
        return 100.0 * values * channels

    def restore(self, block: Array, seen: Region, space: Shape) -> Array:
        # In single precision a high level would leave few digits of what stands on it.
        y = torch.from_numpy(np.array(block, dtype=np.float64, order="C"))[None]
        operator = _operator(self.psf, y.shape[2:])
        y, _, words = without_stray(self.psf, y.masked_fill(~torch.isfinite(y), torch.nan))
        warn(words)
        y = y if self.units is None else self.units.apply(y)
        state, status = run(self.solver, y.float(), operator, seed=self.seed)
        if status.failed:
            raise RuntimeError(str(status))
        view = operator.field_of_view
        assert view is not None
        x = self.solver.estimate(state)[spatial_index(view)]
        x = x if self.units is None else self.units.undo(x)
        return x[0].to(torch.float32).cpu().numpy()

    def score(self, block: Array) -> float | None:
        return None


def _operator(psf: Tensor | None, shape: Sequence[int]) -> LinearOperator:
    return Identity(shape) if psf is None else Convolution(psf, shape, "unknown")


def restore_core(
    restorer: Restorer,
    read: Callable[[Region], Array],
    core: Region,
    space: Shape,
    reaches: Sequence[Reach],
) -> Array:
    """Restore one core, ``channel *space``; where memory does not suffice, in halves.

    Parameters
    ----------
    read
        Gives ``channel *space`` of a region of the whole.
    """
    seen = tuple(r.around(part, n) for r, part, n in zip(reaches, core, space, strict=True))
    try:
        x = restorer.restore(read(seen), seen, space)
    except (MemoryError, RuntimeError) as error:
        if not _out_of_memory(error):
            raise
        sides = [part.stop - part.start for part in core]
        axis = int(np.argmax(sides))
        if sides[axis] < 32:
            raise MemoryError(f"a tile of {' × '.join(map(str, sides))} does not fit in memory") from None
        middle = core[axis].start + sides[axis] // 2
        halves = [slice(core[axis].start, middle), slice(middle, core[axis].stop)]
        parts = [
            restore_core(restorer, read, (*core[:axis], half, *core[axis + 1 :]), space, reaches)
            for half in halves
        ]
        return np.concatenate(parts, axis=axis + 1)
    inner = tuple(slice(c.start - s.start, c.stop - s.start) for c, s in zip(core, seen, strict=True))
    return x[(slice(None), *inner)]


def _out_of_memory(error: BaseException) -> bool:
    words = str(error).lower()
    return isinstance(error, MemoryError | torch.OutOfMemoryError) or (
        "memory" in words and ("alloc" in words or "out of" in words)
    )
