"""What a run says of itself, and the trained model it leaves."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from torch import Tensor

from selfinv.arrangement import is_on_grid, is_sharp
from selfinv.comparison import setting_of, table
from selfinv.doubts import white_noise
from selfinv.learning.normalisation import ChannelUnits
from selfinv.learning.solver import SSI, SSIState
from selfinv.model import TrainedModel
from selfinv.operators import Convolution, LinearOperator
from selfinv.selection import SelfTunedState
from selfinv.solvers.base import Forward
from selfinv.types import AxisLayout


def outcome(state: Any, units: ChannelUnits | None = None) -> dict[str, Any]:
    """What a run says of itself; scores in the units of what it was given, settings in the caller's.

    ``units``: those that channels were brought to; a weight may have no others (`ChannelUnits.weight_unit`).
    """
    if not isinstance(state, SelfTunedState):
        return {"steps": state.step}
    best = state.trial
    if best is None:  # ended in the first solve, which the image is of
        begun = {} if state.phase is None else {"chosen": state.phase.name}
        return {"steps": state.step, **begun, "loss": state.held_out.loss.kind}
    setting = {} if best.parameter is None else {best.parameter: setting_of(best, units)}
    if units is not None and units.weight_unit is None:
        setting.pop("weight", None)
    return {
        "steps": state.step,
        "chosen": best.name,
        **({"mixture": str(state.mixture), "weights": state.mixture.weights} if state.mixture else {}),
        **setting,
        "loss": state.held_out.loss.kind,
        "held_out_score": state.mixture.trial.score if state.mixture else best.score,
        "held_out_score_of_a_constant": state.held_out.score_of_a_constant(),
        "trials": [(t.name, t.parameter, setting_of(t, units), t.score, t.steps) for t in state.trials],
        "table": table(state, units),
        "skipped": dict(state.skipped),
    }


def training(state: SSIState) -> dict[str, Any]:
    """What the training of a network says of itself; scores in the caller's units."""
    unit = state.unit
    return {
        "seed": state.seed,
        "steps": state.step,
        "best_step": state.best_step,
        "loss": state.loss_function.kind,
        "held_out_score": state.best_score * unit,
        "held_out_score_of_a_constant": state.start_score * unit,
        "parameters": sum(p.numel() for p in state.model.parameters()),
        "symmetries": len(state.data.symmetries),
        "history": [(step, loss * unit, score * unit) for step, loss, score in state.history],
    }


def trained_model(
    solver: SSI,
    state: SSIState,
    y: Tensor,
    layout: AxisLayout,
    forward: Forward,
    instrument: Forward,
    stats: dict[str, Any],
    units: ChannelUnits | None = None,
) -> TrainedModel:
    """The trained inverse with all that it needs to be used again.

    ``instrument``: ``forward``, with 0 where nothing is measured.
    ``units``: those that the channels of what it was trained on, ``y``, were brought to.
    """
    psf = forward.psf if isinstance(forward, Convolution) else None
    entrance = state.data.entrance
    # A model for images of any size has a PSF for all frames, and nothing else to update by.
    one_psf = psf is not None and psf.ndim <= len(layout.spatial) + 1
    operator = instrument if isinstance(instrument, LinearOperator) and is_on_grid(instrument) else None
    if instrument is forward and (psf is not None or is_sharp(forward)):
        operator = None
    alone = one_psf or entrance.crude is not None or is_sharp(forward) or operator is not None
    return TrainedModel(
        inverter=solver.best_model(state),
        normalisation=replace(state.data.normalisation, channels=units),
        object_normalisation=replace(state.data.object_normalisation, channels=units),
        pads=state.data.pads,
        symmetries=state.data.symmetries,
        fill=solver.hiding.fill,
        axes=layout.axes,
        psf=psf,
        sharp=is_sharp(forward),
        operator=operator,
        crude=entrance.crude,
        filters=entrance.filters,
        outliers=entrance.outliers,
        own_values=state.own_values if alone else None,
        light=state.light if alone or state.own_values is None else (),  # of the answer updated by values
        looks=entrance.looks,
        boundary=forward.boundary if isinstance(forward, Convolution) else "unknown",
        noise=white_noise(y if units is None else units.undo(y)),
        origin={k: v for k, v in stats.items() if k != "history"},
    )
