"""What is done once before a network is trained: a measurement is normalised, and values set apart."""

from __future__ import annotations

from dataclasses import replace

import torch
from torch import Tensor

from selfinv.arrangement import always_shown_of, is_on_grid, together_of
from selfinv.learning.asking import can_update
from selfinv.learning.crude import CrudeInverse
from selfinv.learning.domain import within_domain
from selfinv.learning.inverse_filters import InverseFilters
from selfinv.learning.inverter import Entrance
from selfinv.learning.masks import widths_needed
from selfinv.learning.measurement import Measurement, draw_validation, object_pads, object_units
from selfinv.learning.normalisation import Normalisation
from selfinv.learning.outliers import OutlierTest
from selfinv.learning.random import generator_for
from selfinv.learning.settings import Hiding
from selfinv.learning.symmetry import COMMUTES, SHIFTED, operator_symmetries
from selfinv.operators import Convolution, LinearOperator
from selfinv.solvers.base import Forward, linear


def prepare(
    y: Tensor,
    operator: Forward,
    hiding: Hiding,
    ndim: int,
    *,
    augment: bool,
    filters: bool,
    wild: bool,
    robust: bool,
    seed: int,
) -> Measurement:
    """All that does not change in training.

    Parameters
    ----------
    y
        The measurement, ``batch channel *space``, NaN where missing.
    ndim
        Spatial axes of the object.
    augment, filters
        See `selfinv.learning.solver.SSI`.
    wild
        Values that no blur makes are to be filled in.
    robust
        Whether the loss has outliers, so that such values may count; else they are missing.
    """
    y = y.detach()
    missing = ~torch.isfinite(y)
    validation = draw_validation(
        ~missing & ~always_shown_of(operator, y),
        hiding.validation,
        seed + 2,
        joint_channels=hiding.joint_channels,
        together=together_of(operator),
    )
    random = None
    if is_on_grid(operator):
        normalisation = Normalisation.of(y)
        object_normalisation = object_units(operator, y, normalisation)
        pads = object_pads(operator, y.shape[2:])
        if not isinstance(operator, LinearOperator):
            operator = within_domain(operator, object_normalisation, y)
        if not isinstance(operator, Convolution):  # whose kernel tells
            random = _random_object(operator, y, object_normalisation)
        y = normalised(y, normalisation)
        outliers = OutlierTest.of(operator, y, missing | validation, left=not robust) if wild else None
        if outliers is not None:
            missing = outliers.left_out(y, missing)
            validation = validation & ~missing
        entrance = Entrance(
            hiding.fill,
            filters=InverseFilters.of(operator) if filters else None,
            outliers=outliers,
        )
    else:
        hidden = draw_hidden(hiding, y, operator, 0, seed + 12)
        crude = CrudeInverse.of(linear(operator, y), y.masked_fill(validation, torch.nan), hidden)
        normalisation, object_normalisation = crude.normalisation, crude.object_normalisation
        pads = ((0, 0),) * len(crude.shape)
        y = normalised(y, normalisation)
        looks = hiding.looks
        if looks is not None:
            looks = replace(looks, spare=share_of(validation, ~missing))
        entrance = Entrance(crude=crude, looks=looks)
    data = Measurement(
        y=y,
        missing=missing,
        validation=validation,
        operator=operator,
        pads=pads,
        normalisation=normalisation,
        object_normalisation=object_normalisation,
        symmetries=(),
        entrance=entrance,
    )
    commutes = COMMUTES
    if entrance.crude is not None:
        if can_update(data.forward_model, data):
            commutes = SHIFTED
        elif not robust:
            entrance = replace(entrance, crude=replace(entrance.crude, asks_rest=True))
    symmetries = operator_symmetries(operator, ndim, commutes=commutes, like=random)
    return replace(data, symmetries=tuple(symmetries if augment else symmetries[:1]), entrance=entrance)


def _random_object(operator: Forward, y: Tensor, units: Normalisation) -> Tensor:
    """Of random values in the object's range, as an operator takes it, in the caller's units."""
    space = operator.in_shape if isinstance(operator, LinearOperator) else y.shape[2:]
    x = torch.rand((1, y.shape[1], *space), generator=generator_for(0)).to(y.device)
    return units.undo(x)


def draw_hidden(hiding: Hiding, y: Tensor, operator: Forward, step: int, seed: int) -> Tensor:
    """What one step hides of ``y``."""
    drawn = hiding.drawn(y.shape, step, seed, together_of(operator), y.device)
    return drawn & ~always_shown_of(operator, y)


def filling_widths(hiding: Hiding, data: Measurement, seed: int) -> int:
    """How far a filling has to look: as in the first steps, but for single values."""
    drawn = [draw_hidden(hiding, data.y, data.operator, step, seed) for step in (0, 1)]  # a pair, of some
    hidden = [hiding.concealed(d | data.validation) | data.missing for d in drawn]
    more = any(hiding.blind_spot) or bool(together_of(data.operator))
    return max(map(widths_needed, hidden)) + more


def normalised(y: Tensor, normalisation: Normalisation) -> Tensor:
    """In the network's units and precision, missing values 0."""
    return normalisation.apply(y).masked_fill(~torch.isfinite(y), 0.0).to(torch.float32)


def share_of(part: Tensor, of: Tensor) -> float:
    """Which part of ``of`` is in ``part``, too; both boolean."""
    return float((part & of).sum()) / max(1, int(of.sum()))
