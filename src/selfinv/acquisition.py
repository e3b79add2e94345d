"""What was measured, and by what, as solvers take it; and the way back to the caller's arrays."""

from __future__ import annotations

import copy
from dataclasses import dataclass, replace
from typing import Any, Literal

import numpy as np
import torch
from torch import Tensor

from selfinv.arrangement import Arrangement, as_measured, is_on_grid, is_sharp, space_of, unmasked
from selfinv.doubts import beside_a_level, nothing_measured, saturated
from selfinv.instrument import choose_device, psf_operator
from selfinv.learning.inverse_filters import point_spread
from selfinv.learning.measurement import field_of_view, object_pads
from selfinv.learning.normalisation import ChannelUnits, NoiseUnits
from selfinv.learning.stray_values import without_stray
from selfinv.methods import AS_PUBLISHED, OURS, TOTAL_VARIATION
from selfinv.operators import Boundary, LinearOperator
from selfinv.probe import probe
from selfinv.solvers.base import Forward
from selfinv.types import (
    Array,
    AxisLayout,
    InputError,
    Pads,
    Shape,
    as_array,
    check_contrast,
    check_held,
    check_image,
    guess_axes,
    parse_axes,
    warn,
)

SMALLEST = 16


@dataclass(frozen=True)
class Acquisition:
    """A measurement and the operator that made it, on one device.

    Parameters
    ----------
    y
        ``batch channel *space``, NaN where nothing was measured.
    forward
        From the object to it, where it is measured.
    instrument
        The same, with 0 where nothing is measured.
    layout, arrangement
        The axes of the caller's image, and if values are no pixels, those of the measurement.
    shape, pads
        Of the object's part that is shown, and how far the object reaches beyond it.
    device
        Where the work is done.
    complex_pairs
        Whether the caller's values are complex, and those of ``y`` pairs.
    stray
        How many values were left out because neither blur nor noise can have made them.
    plateau
        Whether values lie at the highest side by side.
    units
        Those that channels were brought to; None: the caller's.
    """

    y: Tensor
    forward: Forward
    instrument: Forward
    layout: AxisLayout
    arrangement: Arrangement | None
    shape: Shape
    pads: Pads
    device: torch.device
    complex_pairs: bool = False
    stray: int = 0
    plateau: bool = False
    units: ChannelUnits | None = None

    @classmethod
    def of(
        cls,
        image: Any,
        kernel: Array | None,
        operator: Forward | None,
        *,
        axes: str | None,
        boundary: Boundary | Literal["auto"],
        mask_nan: bool,
        device: str,
    ) -> Acquisition:
        """From what `selfinv.restore` is given, with a warning for what is doubtful."""
        array = check_image(as_measured(image, operator), allow_nan=mask_nan)
        arrangement = None
        if isinstance(operator, LinearOperator) and not is_on_grid(operator):
            arrangement = Arrangement.of(operator, array.shape, axes)
            layout, batch, shape = arrangement.layout, arrangement.to_batch(array), space_of(operator)
        else:
            layout = _layout(array, axes, kernel)
            batch, shape = layout.to_batch(array), layout.spatial_shape(array.shape)
        _check_size(shape, layout.spatial)
        check_contrast(array)
        y = torch.from_numpy(np.array(batch, dtype=np.float64, order="C"))
        y = y.masked_fill(~torch.isfinite(y), torch.nan)
        warn(nothing_measured(y, alone=operator is None))
        warn(beside_a_level(y))
        plateau = "" if arrangement else saturated(y)
        warn(plateau)
        forward = operator if operator is not None else psf_operator(kernel, shape, layout, boundary, y)
        place = choose_device(device)
        if isinstance(forward, torch.nn.Module):  # the caller's own stays where it is
            forward = copy.deepcopy(forward).to(place).requires_grad_(False)
        y = (y if place.type != "mps" else y.float()).to(place)
        pads = ((0, 0),) * len(shape) if arrangement else object_pads(forward, shape)
        if operator is not None:
            forward = probe(forward, y)
            if isinstance(forward, LinearOperator):
                if forward.measured is not None:
                    y = y.masked_fill(~forward.measured, torch.nan)
                for words in forward.doubts(y):
                    warn(words)
                y = forward.without_repeats(y)
        instrument = forward
        if isinstance(forward, LinearOperator) and not arrangement:
            forward = unmasked(forward)
        pairs = np.iscomplexobj(as_array(image)) and y.shape[-1] == 2
        return cls(
            y, forward, instrument, layout, arrangement, shape, pads, place, pairs, plateau=bool(plateau)
        )

    def for_method(self, method: Any, operator: Any) -> Acquisition:
        """As a method of ours takes it: without stray values, very different channels made alike.

        ``operator`` is the caller's, if there was one.
        """
        if not isinstance(method, str) or method in AS_PUBLISHED:
            check_held(self.y)
            return self
        y, stray, psf = self.y, 0, point_spread(self.forward)
        if psf is not None or is_sharp(self.forward):
            y, stray, words = without_stray(psf, y)
            warn(words)
        check_held(y)
        units = _common_units(method, y, self.forward, operator)
        return replace(self, y=y if units is None else units.apply(y), stray=stray, units=units)

    @property
    def object_shape(self) -> Shape:
        """Of the object, with what reaches beyond the part that is shown."""
        return tuple(n + a + b for n, (a, b) in zip(self.shape, self.pads, strict=True))

    def to_image(self, x: Tensor) -> Array:
        """An object as the caller's image is, float32."""
        x = x if self.units is None else self.units.undo(x)
        x = self.arrangement.from_object(x) if self.arrangement else x[field_of_view(self.pads, self.shape)]
        return self.layout.from_batch(x.to(torch.float32).cpu().numpy())

    def to_measurement(self, y: Tensor) -> Array:
        """What is measured of an object as the caller's measurement is, float32 or complex64."""
        y = y if self.units is None else self.units.undo(y)
        if isinstance(self.instrument, LinearOperator) and self.instrument.measured is not None:
            y = y.masked_fill(~self.instrument.measured, 0.0)
        values = y.to(torch.float32).cpu().numpy()
        values = self.arrangement.from_batch(values) if self.arrangement else self.layout.from_batch(values)
        return np.ascontiguousarray(values).view(np.complex64)[..., 0] if self.complex_pairs else values


def _common_units(method: str, y: Tensor, forward: Any, operator: Any) -> ChannelUnits | None:
    """Those that channels of very different ranges, or values of any size, are brought to; None: left alone.

    Where an operator does the same to each channel. Levels are taken off where it keeps constants. To total
    variation alone, noise matters instead of the range.
    """
    if not isinstance(forward, LinearOperator) or forward.object_channels:
        return None
    if method in TOTAL_VARIATION:
        return NoiseUnits.by_noise(y)
    if method not in (*OURS, "auto"):
        return None
    keeps = operator is None and getattr(forward, "boundary", "") != "zero"
    return ChannelUnits.of(y, levels=keeps)


def _layout(array: Array, axes: str | None, psf: Array | None) -> AxisLayout:
    if axes is not None:
        return parse_axes(axes, array.ndim)
    if psf is not None and psf.ndim == array.ndim == 3 and psf.shape[0] == array.shape[-1] in (3, 4):
        return parse_axes("yxc", 3)  # colour, with one psf per channel in front
    return parse_axes(guess_axes(array.shape, None if psf is None else psf.ndim), array.ndim)


def _check_size(shape: Shape, spatial: str) -> None:
    small = {a: n for a, n in zip(spatial, shape, strict=True) if a != "z" and n < SMALLEST}
    if small:
        few = ", ".join(f"{n} sample{'s' * (n != 1)} along {a}" for a, n in small.items())
        line = "; give a line of values as an array of one axis" if 1 in small.values() else ""
        raise InputError(
            f"the image has only {few}; at least {SMALLEST} are needed, because fewer hold too little to "
            f"learn from{line}"
        )
