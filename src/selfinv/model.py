"""A trained inverse on its own: apply it to more images, save it, load it."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
import torch
from torch import Tensor

from selfinv import model_file
from selfinv.arrangement import Arrangement, as_measured, for_operator
from selfinv.doubts import further_than_measured, saturated, shared_noise, too_wide
from selfinv.instrument import choose_device
from selfinv.learning.answer import answer
from selfinv.learning.crude import CrudeInverse
from selfinv.learning.forward_model import ForwardModel
from selfinv.learning.inverse_filters import InverseFilters
from selfinv.learning.inverter import Entrance, Inverter, Looks, TrainedInverse
from selfinv.learning.measurement import field_of_view
from selfinv.learning.normalisation import Normalisation
from selfinv.learning.outliers import OutlierTest
from selfinv.learning.own_values import OwnValues, has_many_gaps
from selfinv.learning.photometry import brightened
from selfinv.learning.stray_values import without_stray
from selfinv.learning.symmetry import Symmetry
from selfinv.likeness import Likeness
from selfinv.operators import Boundary, Convolution, LinearOperator
from selfinv.types import (
    Array,
    InputError,
    Pads,
    check_held,
    check_image,
    middle_of,
    parse_axes,
    same_layout,
    spatial_index,
    warn,
)

LOOKED_AT = {1: 4096, 2: 160, 3: 32}  # values along each axis, to see whether the model suits an image


@dataclass(frozen=True)
class TrainedModel:
    """A network trained to invert one forward operator, with all that is needed to use it again.

    Parameters
    ----------
    inverter
        Network and head, in evaluation mode.
    normalisation, object_normalisation
        The intensity scales of measurement and object it was trained on, also used for further images.
    pads
        How far the object's grid reaches beyond the measurement's.
    symmetries
        What its answers are averaged over.
    fill
        What stands in for missing values.
    axes
        Axes of the image it was trained on.
    psf
        The point spread function it inverts, or None for another operator.
    sharp
        Whether nothing is blurred: the operator measures the object itself, or a part of it.
    operator
        The operator on pixels that it inverts, if that is neither a convolution nor sharp, or does not
        measure everywhere, as far as it is known (`load`): what images of its shape are updated by, in the
        end.
    crude
        The first guess, where measured values are not pixels; it holds the operator.
    filters
        What makes the sharper copies of the image that the network sees beside it, if it does.
    outliers
        What is filled in before the network sees it, if anything is.
    own_values
        The noise and the network's error, where each value is asked what it adds in the end.
    light
        What each channel of the object is multiplied by in the end; empty: nothing.
    looks
        What is hidden of a measurement whose values are not pixels.
    boundary
        Of the convolution with ``psf``.
    noise
        Its deviation in the image it was trained on (`selfinv.doubts.white_noise`), in its units; 0 if it is
        not known.
    origin
        How it was made: method, seed, versions, steps, held-out score.
    """

    inverter: Inverter = field(repr=False)
    normalisation: Normalisation
    object_normalisation: Normalisation
    pads: Pads
    symmetries: tuple[Symmetry, ...]
    fill: str
    axes: str
    psf: Tensor | None = field(default=None, repr=False)
    sharp: bool = False
    operator: LinearOperator | None = field(default=None, repr=False)
    crude: CrudeInverse | None = field(default=None, repr=False)
    filters: InverseFilters | None = None
    outliers: OutlierTest | None = None
    own_values: OwnValues | None = None
    light: tuple[float, ...] = ()
    looks: Looks | None = None
    boundary: Boundary = "unknown"
    noise: float = 0.0
    origin: dict[str, Any] = field(default_factory=dict)

    @property
    def on_one_grid(self) -> bool:
        """Whether measurement and object are alike: pixels, behind a PSF or as they are."""
        return self.psf is not None or self.sharp

    def inverse(self, device: str | torch.device, pads: Pads | None = None) -> TrainedInverse:
        """The network on a device, for an object that reaches as far beyond the measurement as in training.

        ``pads``: or so far.
        """
        entrance = Entrance(self.fill, self.crude, self.filters, self.outliers, self.looks)
        reach = self.pads if pads is None else pads
        return TrainedInverse(self.inverter.to(device), reach, self.symmetries, entrance)

    def forward_model(self, shape: Sequence[int]) -> ForwardModel | None:
        """What measures an image of this spatial shape, as far as `own_values` ask for it; else None."""
        if self.own_values is None or self.sharp:
            return None
        operator = self._known_operator(shape)
        if self.psf is not None:
            operator = Convolution(self.psf, shape, self.boundary, margin=[max(pad) for pad in self.pads])
        if operator is None:
            return None
        # In the units that channels have in common: beside a large level, single precision tells little.
        both = (replace(n, channels=None) for n in (self.normalisation, self.object_normalisation))
        return ForwardModel(operator, *both)

    def _known_operator(self, shape: Sequence[int]) -> LinearOperator | None:
        """What measures an image of this spatial shape, if that is no PSF and known."""
        if self.crude is not None:
            return self.crude.operator
        fits = self.operator is not None and self.operator.out_shape == tuple(shape)
        return self.operator if fits else None

    def apply(
        self,
        image: Any,
        *,
        axes: str | None = None,
        mask_nan: bool = False,
        device: str | None = None,
        symmetries: int = 8,
        check: bool = True,
    ) -> Array:
        """Restore another image of the same instrument.

        Parameters
        ----------
        image
            Any size; as many channels as in training; the same intensity units. One that is brighter, or on
            another level, is restored within the range that the network knows (`in_units_of`).
        axes
            Its axes; by default those of the training image.
        mask_nan
            Treat NaN and infinite values as missing. Others are taken for missing, too, if neither blur nor
            noise can have made them (`selfinv.learning.stray_values`).
        device
            As for `selfinv.restore`; None: where the network is.
        symmetries
            Average over so many flips and turns at most; 1 is up to 8 times as fast.
        check
            Whether to warn of an image unlike the one it was trained on (`doubts`); without, it is quicker.

        Returns
        -------
        array
            The restored image, float32, same shape and units.

        Raises
        ------
        InputError
            If the image's axes or channels are not those the model was trained for, ``symmetries`` is not
            1 to 8, or there is no such device.

        Warns
        -----
        SelfinvWarning
            If values are taken for missing, as neither blur nor noise makes them; unless the image is only
            scaled, if its range is less than a quarter of that of training or more than four times as wide
            or elsewhere, or if the noise is more than 1.6 times as much, or as much less; if the PSF is too
            wide for this image; or if the answer is probably worse than what was measured
            (`selfinv.doubts.further_than_measured`).
        """
        if not 1 <= symmetries <= 8:
            raise InputError(f"symmetries={symmetries} is not a number from 1 to 8")
        place = choose_device(device) if device else next(self.inverter.parameters()).device
        settings = self.inverter.network.settings
        known = self._known_operator(np.shape(image)[-settings.ndim :])
        array = check_image(as_measured(image, known), allow_nan=mask_nan)
        arrangement = None
        if self.crude is not None:
            A = self.crude.operator
            ndim = array.ndim - len(A.out_shape) + len(A.in_shape)
            arrangement = Arrangement.of(A, array.shape, axes or same_layout(self.axes, ndim))
            layout, batch = arrangement.layout, arrangement.to_batch(array)
        else:
            layout = parse_axes(axes or same_layout(self.axes, array.ndim), array.ndim)
            batch = layout.to_batch(array)
        fits = batch.ndim - 2 == settings.ndim and batch.shape[1] == settings.channels
        if arrangement is None and not fits:
            raise InputError(
                f"the model was trained on {settings.channels} channel(s) and {settings.ndim} spatial axes "
                f"({self.axes}); this image has {batch.shape[1]} and {batch.ndim - 2} ({layout.axes}); "
                f"train a model on an image like it"
            )
        y, words = self.measured(batch)
        check_held(y)
        likeness = self.likeness(y) if check or self.on_one_grid else None
        for told in (words, *(self.doubts(y, likeness) if check else ())):
            warn(told)
        x = self.in_units_of(likeness).restored(y, device=place, most=symmetries)
        if arrangement is None:
            x = x[field_of_view(self.pads, y.shape[2:])]
        else:
            x = arrangement.from_object(for_operator(arrangement.operator, x))
        return layout.from_batch(x.cpu().numpy())

    def measured(self, batch: Array) -> tuple[Tensor, str]:
        """A measurement ``batch channel *space``, NaN where missing or stray; and a warning of the stray."""
        y = torch.from_numpy(np.array(batch, dtype=np.float64, order="C"))
        y = y.masked_fill(~torch.isfinite(y), torch.nan)
        known = self._known_operator(y.shape[2:])
        if known is not None and known.measured is not None:
            y = y.masked_fill(~known.measured.cpu(), torch.nan)
        y = y if known is None else known.without_repeats(y)
        if not self.on_one_grid:
            return y, ""
        y, _, words = without_stray(self.psf, y)
        return y, words

    @torch.no_grad()
    def restored(
        self,
        y: Tensor,
        *,
        device: str | torch.device = "cpu",
        most: int = 8,
        pads: Pads | None = None,
        beyond: Pads = (),
    ) -> Tensor:
        """The object behind a measurement (`measured`), in the image's units, on the forward model's grid.

        Parameters
        ----------
        y
            ``batch channel *space``, NaN where missing.
        most
            Of the symmetries, to average over.
        pads, beyond
            How far the network's object reaches beyond the measurement's grid, and the answer's beyond that
            (`selfinv.learning.answer`); None: as in training.
        """
        missing = ~torch.isfinite(y)
        y = self.normalisation.apply(y).masked_fill(missing, 0.0).to(torch.float32)
        if self.outliers is not None:
            missing = self.outliers.left_out(y, missing)
        forward = self.forward_model(y.shape[2:])
        if forward is not None and self.operator is not None:
            self.operator.to(device)
        alone = self.own_values is not None and forward is None and not self.sharp  # nothing to ask them by
        x = answer(
            self.inverse(device, pads),
            y.to(device),
            missing.to(device),
            None if alone else self.own_values,
            forward,
            most=most,
            beyond=beyond,
        )
        return self.object_normalisation.undo(brightened(x, () if alone else self.light))

    def likeness(self, y: Tensor, *, part: bool = False) -> Likeness | None:
        """Of a measurement (`measured`) or a part of it; None where there are no values, or no pixels."""
        return None if self.crude is not None else Likeness.of(y, self.normalisation, self.noise, part=part)

    def in_units_of(self, likeness: Likeness | None) -> TrainedModel:
        """The model in units in which an image lies within the range of training, as the network knows it.

        An image that is only scaled (`Likeness.scaled`) comes out as it would without that. Others have the
        noise that they have in training's units. Nothing is changed behind other operators than a PSF.
        """
        if likeness is None or not self.on_one_grid:
            return self
        trained = self.normalisation
        found = likeness.place(level=self.sharp or self.boundary != "zero")
        if found == trained:
            return self
        own_values, outliers = self.own_values, self.outliers
        if not likeness.scaled:  # the same noise, then, in other units
            level, span = (found.offset - trained.offset) / trained.scale, found.scale / trained.scale
            own_values = own_values and own_values.in_units(level, span)
            outliers = outliers and replace(outliers, deviation=outliers.deviation / span)
        return replace(
            self,
            normalisation=found,
            object_normalisation=found.divided_by(trained.scale / self.object_normalisation.scale),
            own_values=own_values,
            outliers=outliers,
        )

    def doubts(self, y: Tensor, likeness: Likeness | None) -> Iterator[str]:
        """What makes an image unlike the one that the model was trained on, in words for a warning.

        Nothing is said where measured values are not pixels.

        Parameters
        ----------
        y
            ``batch channel *space``, in the image's units, NaN where missing.
        likeness
            Of it.
        """
        if self.crude is not None:
            return
        told = [] if likeness is None else [likeness.doubt()]
        if self.psf is not None and not saturated(y):
            forward = Convolution(self.psf, y.shape[2:], self.boundary)
            told.append(too_wide(y, forward, shared_noise(y, forward), "the model's PSF"))
        if not any(told):
            told.append(self._doubt_of_answer(y, likeness))
        yield from filter(None, told)

    def _doubt_of_answer(self, y: Tensor, likeness: Likeness | None) -> str:
        """In words, if the answer to the middle of the first frame is worse than what was measured there."""
        space = y.shape[2:]
        if not self.on_one_grid or likeness is None:
            return ""
        part = y[:1][spatial_index(middle_of(space, [LOOKED_AT[len(space)]] * len(space)))]
        if part.shape[2:] != space and self.boundary in ("periodic", "zero"):
            return ""  # a part has other edges
        if has_many_gaps(~torch.isfinite(part)):
            return ""
        device = next(self.inverter.parameters()).device
        x = self.in_units_of(likeness).restored(part, device=device).cpu()
        x = x[field_of_view(self.pads, part.shape[2:])]
        forward = None if self.psf is None else Convolution(self.psf, part.shape[2:], self.boundary)
        return further_than_measured(part, x, forward)

    def save(self, path: str | os.PathLike[str]) -> None:
        """Write weights and description to one ``.safetensors`` file (written beside, then renamed).

        Of an operator other than a PSF only the shapes are kept, and those only where measured values are not
        pixels.
        """
        model_file.write(path, self)

    @classmethod
    def load(cls, path: str | os.PathLike[str], operator: LinearOperator | None = None) -> TrainedModel:
        """Read a model written by `save`.

        Parameters
        ----------
        operator
            The one it was trained for: it is not in the file, so that another one is noticed by its shapes at
            most. Where measured values are not pixels it must be given; where they are, of a blur that varies
            from place to place say, images of its shape are then updated by their values in the end, as that
            was which it was trained on.

        Raises
        ------
        InputError
            If the file is missing, damaged, or not such a model; or if the operator is missing, has other
            shapes (where measured values are not pixels), or is none that such a model takes.
        """
        return cls(**model_file.read(path, operator))

    def described(self, **origin: Any) -> TrainedModel:
        """The same model with more said about its origin."""
        return replace(self, origin={**self.origin, **origin})
