"""The front door: one noisy image and what is known of the instrument in, the restored image out."""

from __future__ import annotations

import inspect
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from typing import Any, Literal, cast

import numpy as np
import torch
from torch import Tensor

from selfinv.acquisition import Acquisition
from selfinv.arrangement import is_on_grid, spacing_of
from selfinv.doubts import (
    NOTHING_EXPLAINED,
    detail_taken,
    left_as_it_is,
    nothing_explained,
    shared_noise,
    smoothed_away,
    too_wide,
    transposed,
    unchanged,
    unlike_frames,
)
from selfinv.independence import NoiseCorrelation
from selfinv.instrument import check_boundary
from selfinv.learning.normalisation import in_single_precision
from selfinv.learning.solver import SSI, SSIState
from selfinv.methods import OURS, TOTAL_VARIATION, Request, solver_for
from selfinv.model import TrainedModel
from selfinv.operators import Boundary, Convolution, Downsample, Identity, LinearOperator
from selfinv.outcome import outcome, trained_model, training
from selfinv.probe import check_built
from selfinv.psf import values_of
from selfinv.result import Result
from selfinv.selection import SelfTuned, SelfTunedState
from selfinv.semiblind import PSFFamily, fit_psf
from selfinv.solvers.base import Callback, Forward, Solver, Status, run
from selfinv.solvers.chambolle_pock import ChambollePock
from selfinv.types import Array, InputError, check_integer, warn
from selfinv.versions import versions

MOST_SEED = 2**62  # others are made of it by adding
WIDEST = 4  # blind spot, in values to each side


@torch.inference_mode(False)  # as a caller may have it, and a network learns by gradients
@torch.enable_grad()
def restore(
    image: Any,
    psf: Any = None,
    *,
    operator: Forward | None = None,
    method: str | Solver = "ssi",
    axes: str | None = None,
    boundary: Boundary | Literal["auto"] = "auto",
    mask_nan: bool = False,
    device: str = "auto",
    seed: int = 0,
    weight: float | None = None,
    max_steps: int | None = None,
    spacing: Sequence[float] | None = None,
    callback: Callback | None = None,
) -> Result:
    r"""Restore a noisy, blurred image from itself and its point spread function alone.

    Parameters
    ----------
    image
        The measurement :math:`y`, 2-D or 3-D space, with channels and time if ``axes`` says so.
    psf
        Point spread function with one axis per spatial axis of the image (centre at ``n // 2``), or one more
        in front for a PSF per channel; used as given, divided by its sum. Or a `MeasuredPSF`. Or a
        `selfinv.semiblind.PSFFamily`, whose parameters are fitted first (``stats["psf"]``). None without an
        ``operator``: nothing but noise is to be removed.
    operator
        The forward operator :math:`g` instead of a ``psf``: a `LinearOperator`, then ``image`` ends with the
        axes of its measurement (angles and detector, for instance, or complex frequencies) and the result is
        on its object's grid; or any differentiable callable from ``batch channel *space`` to the same shape.
    method
        ``"ssi"`` (our best: a network trained on this image, with simple methods mixed in, or in its place,
        if that predicts held-out values better), ``"ssi-fast"`` and ``"ssi-best"`` (the same in 0.2 and 2.5
        times the training time), ``"ssi-network"`` (that network alone), ``"auto"`` (one of all
        methods, unmixed), ``"tv-chambolle-pock"``, ``"tv-conjugate-gradient"``, ``"richardson-lucy"``,
        ``"wiener"`` (each tuned for this image),
        ``"ssi-paper"`` (Kobayashi et al. 2020, arXiv:2006.06156), ``"ssi-unmasked"`` (its control),
        ``"tv-chambolle-pock-paper"``, ``"tv-conjugate-gradient-paper"`` (the paper's fixed settings, as for
        an image rescaled to 0 … 1); or a solver with settings of your own.
    axes
        One letter per axis of the image: ``t`` time, ``c`` channel, ``z``, ``y``, ``x``; with an operator
        whose values are not pixels, of the result.
    boundary
        With ``psf``: what lies outside the image (see `Convolution`). ``"auto"``: ``"zero"`` if the image
        fades at its edges as only an empty surrounding makes it (`choose_boundary`), else ``"unknown"``.
        An operator has its own.
    mask_nan
        Treat NaN and infinite values as missing instead of refusing them. A few values that neither blur nor
        noise can make (cosmic rays, hot pixels; without a PSF those that stand out far and each alone) are
        taken for missing in any case, with a warning (``stats["stray_values"]``).
    device
        ``"auto"``, ``"cpu"``, ``"cuda"``, ``"mps"``.
    seed
        Of every random draw: the same seed on the same machine gives the same image.
    weight
        Of the regularisation of a TV method, in the image's intensity units (of channels whose noise differs
        by more than two for the noisiest, less for the others in proportion), or the balance of ``"wiener"``,
        instead of tuning it.
    max_steps
        Train for this many steps, or take this many iterations, instead of the method's own number.
    spacing
        Voxel size along each spatial axis (their ratio matters), for total variation.
    callback
        Called after every step with a `Progress` (its ``estimate()`` gives the present image); returning
        False, or Ctrl-C, ends the run and keeps the best so far.

    Raises
    ------
    InputError
        If something passed cannot be used; the message says what to do.

    Examples
    --------
    >>> import numpy as np, selfinv
    >>> image = np.random.default_rng(0).poisson(10 + np.add.outer(np.arange(32), np.arange(32)))
    >>> psf = selfinv.psf.gaussian(1.0, (7, 7))
    >>> selfinv.restore(image, psf, max_steps=30).image.shape
    (32, 32)
    """
    start = time.monotonic()
    seed, max_steps = _checked(seed, max_steps, mask_nan, callback)
    if psf is not None and operator is not None:
        raise InputError("both psf and operator were given; pass one of them")
    check_built(operator)
    check_boundary(boundary)
    if psf is None and boundary != "auto":
        own = "without a psf" if operator is None else "with an operator, which has its own"
        raise InputError(f"boundary={boundary!r} has no effect {own}; leave it out")
    fitted = None
    if isinstance(psf, PSFFamily):
        fitted = fit_psf(image, psf, axes=axes, mask_nan=mask_nan, seed=seed)
        psf = fitted.psf
        for words in fitted.warnings():
            warn(words)
    acquired = Acquisition.of(
        image,
        values_of(psf),
        operator,
        axes=axes,
        boundary=boundary,
        mask_nan=bool(mask_nan),
        device=device,
    ).for_method(method, operator)
    y, forward = acquired.y, acquired.forward
    if method in (*OURS, *TOTAL_VARIATION, "auto"):
        warn(unlike_frames(y, acquired.layout.axes))
    noise = shared_noise(y, forward) if isinstance(method, str) else None
    if isinstance(forward, Convolution) and noise is not None:
        forward.lines_share_noise = forward.lines_share_noise or noise.lines
    request = _request(acquired, noise, weight, max_steps, spacing)
    name = method if isinstance(method, str) else "custom"
    solver = _solver(method, request, alone=weight is None and spacing is None)
    trusted = isinstance(method, str) and (fitted is None or fitted.kept) and not acquired.plateau
    if trusted:
        warn(transposed(y, forward, noise) or too_wide(y, forward, noise))

    if not isinstance(solver, SSI):
        y = in_single_precision(y)
    limit = None if isinstance(method, str) else max_steps
    callback = _with_images(callback, acquired.to_image)
    state, status = run(solver, y, forward, seed=seed, max_steps=limit, callback=callback)
    estimate = solver.estimate(state)
    with torch.no_grad():
        measured = forward(estimate.float())  # the only precision it is sure to take
    stats = {"method": name, "seed": seed} | _about(acquired, solver)
    if fitted is not None:
        stats["psf"] = fitted.summary()
    if weight is not None:
        stats |= {"balance" if name == "wiener" else "weight": weight}
    stats |= outcome(state, acquired.units) | {"seconds": time.monotonic() - start, "versions": versions()}
    if name in OURS and name != "ssi-network":
        stats.setdefault("chosen", "ssi-network")  # of a function there is nothing to choose from
    if noise is not None:
        stats["noise"] = noise.explain()
        if noise.correlated:
            warn(f"{stats['noise']}{_what_is_done(noise, request, solver, stats)}")
    whole = acquired.arrangement is None and max_steps is None  # of pixels, and no quick look
    for words in _doubts(solver, status, stats, forward, y, measured, weight if whole else None):
        warn(words)
    inner, inner_solver = state, solver
    if isinstance(state, SelfTunedState):
        status = status.after(*status.failed_attempts, *state.failures)
        ended, inner = cast(SelfTuned, solver).end(state)
        inner_solver = cast(Solver, ended)
    if status.failed:
        warn(str(status))
    model = None
    if isinstance(inner, SSIState) and isinstance(inner_solver, SSI):
        # A choice between methods has scores of its own, on the same values for all of them.
        compared = ("loss", "held_out_score", "held_out_score_of_a_constant")
        stats |= training(inner) | {key: stats[key] for key in compared if key in stats}
        given = (acquired.layout, forward, acquired.instrument, stats, acquired.units)
        model = trained_model(inner_solver, inner, y, *given)
        if whole and isinstance(forward, Identity) and inner.loss_function.kind == "l2":
            warn(detail_taken(y, measured))
    image, predicted = acquired.to_image(estimate), acquired.to_measurement(measured)
    return Result(image, status, stats, model, inner_solver, predicted)


def _checked(seed: Any, max_steps: Any, mask_nan: Any, callback: Any) -> tuple[int, int | None]:
    """The first two as integers, if all are what they have to be."""
    seed = check_integer(seed, "seed", least=0, most=MOST_SEED)
    if not isinstance(mask_nan, bool | np.bool_):
        raise InputError(
            f"mask_nan is a {type(mask_nan).__name__}; pass True, and NaN where values are missing"
        )
    max_steps = None if max_steps is None else check_integer(max_steps, "max_steps", least=1)
    _check_callback(callback)
    return seed, max_steps


def _solver(method: str | Solver, request: Request, *, alone: bool) -> Solver:
    """``alone``: whether nothing else is said that a solver has settings of its own for."""
    if isinstance(method, str):
        return solver_for(method, request)
    if not isinstance(method, Solver):
        raise InputError(f"method is a {type(method).__name__}; give a method's name or a Solver")
    if not alone:
        raise InputError("weight and spacing are for methods by name; give them to the solver itself")
    if isinstance(method, SSI) and request.steps is not None:  # the schedule is made for this many
        return replace(method, training=replace(method.training, max_steps=request.steps))
    return method


def _doubts(
    solver: Solver,
    status: Status,
    stats: dict[str, Any],
    forward: Forward,
    y: Tensor,
    measured: Tensor,
    weight: float | None,
) -> Iterator[str]:
    """What is to be warned of in a result, by what would be ``measured`` of it; some of it may be empty.

    ``weight``: as given, if the result is to be compared with the image by it.
    """
    name, tuned = stats["method"], isinstance(solver, SelfTuned)
    richardson_lucy = name == "richardson-lucy"
    sharp = (Identity, Downsample) if richardson_lucy else Identity
    # Of a weight given it is no news.
    doubtful = (richardson_lucy or tuned) and isinstance(forward, sharp)
    if doubtful and left_as_it_is(y, measured, from_0=richardson_lucy):
        yield unchanged(name)
    if weight is not None:
        yield smoothed_away(y, measured, weight)
    if isinstance(forward, LinearOperator) and not status.failed:
        yield from forward.doubts_of_residual(y - measured)
    # Of frequencies, say, Wiener's filter of the object's own spectrum foretells no others; and the lowest,
    # of which all methods know most, are never set apart.
    foretells = not isinstance(forward, LinearOperator) or (
        forward.always_shown is None and (name != "wiener" or is_on_grid(forward))
    )
    if tuned and foretells and not status.failed and nothing_explained(stats):
        yield NOTHING_EXPLAINED + ("" if name.startswith("ssi") else ", or use ssi")


def _request(
    acquired: Acquisition,
    noise: NoiseCorrelation | None,
    weight: float | None,
    max_steps: int | None,
    spacing: Sequence[float] | None,
) -> Request:
    """What a method is asked for."""
    forward, blind_spot = acquired.forward, noise.blind_spot if noise else ()
    if any(n > WIDEST for n in blind_spot):  # of noise common to lines, none that leaves enough is rid
        blind_spot = ()
    voxel, channels = _spacing(spacing, acquired.layout.spatial), None
    if acquired.arrangement and acquired.arrangement.operator.object_channels:
        mixed = acquired.arrangement.operator
        voxel, channels = spacing_of(mixed, voxel), mixed.object_channels
    request = Request(
        acquired.y,
        forward,
        acquired.object_shape,
        weight,
        max_steps,
        voxel,
        blind_spot,
        noise is not None and noise.correlated,
        channels,
    )
    unit = acquired.units.weight_unit if acquired.units is not None else None
    return request if weight is None or unit is None else replace(request, weight=weight / unit)


def _about(acquired: Acquisition, solver: Solver) -> dict[str, Any]:
    """What is to be said of the measurement, and of a solver's settings."""
    about = {
        "device": str(acquired.device),
        "axes": acquired.layout.axes,
        "boundary": getattr(acquired.forward, "boundary", None),
    }
    if acquired.stray:
        about["stray_values"] = acquired.stray
    if acquired.units is not None:  # of which the scores are, too
        units = acquired.units
        about["channel_units"] = list(zip(units.offsets, units.scales, strict=True))
    if isinstance(solver, ChambollePock):
        about["fidelity"] = type(solver.fidelity).__name__
    return about


def _what_is_done(noise: NoiseCorrelation, request: Request, solver: Solver, stats: dict[str, Any]) -> str:
    """About correlated noise, for the end of the warning."""
    tuned = isinstance(solver, SSI | SelfTuned)
    done = ""
    if tuned and noise.lines:
        done = " (whole lines are hidden here)"
    elif any(request.blind_spot):
        done = " (done here)" if tuned else " (nothing was scored here)"
    if stats["method"] in OURS and stats.get("chosen") == "ssi-network":
        done += "; the network is therefore taken alone"
    return done


def load_model(path: Any, operator: LinearOperator | None = None) -> TrainedModel:
    """Read a trained model written by ``result.model.save(path)`` (see `TrainedModel.load`)."""
    return TrainedModel.load(path, operator)


def _check_callback(callback: Callback | None) -> None:
    """Raise `InputError` if it cannot be called with a `Progress`; of some builtins that is not known."""
    if callback is None:
        return
    if not callable(callback):
        raise InputError(f"callback is a {type(callback).__name__}; pass a function of a Progress")
    try:
        signature = inspect.signature(callback, follow_wrapped=False)
    except (TypeError, ValueError):
        return
    try:
        signature.bind(None)
    except TypeError as error:
        raise InputError(
            f"callback{signature} does not take a Progress ({error}); give it one argument"
        ) from None


def _spacing(spacing: Sequence[float] | None, axes: str) -> tuple[float, ...] | None:
    if spacing is None:
        return None
    try:
        sizes = tuple(float(s) for s in spacing)
    except (TypeError, ValueError):
        raise InputError(f"spacing={spacing!r} is no list of numbers; give one for each of {axes}") from None
    if len(sizes) != len(axes) or not all(0.0 < s < np.inf for s in sizes):
        raise InputError(
            f"spacing={sizes} does not fit the axes {axes}; give one positive voxel size for each"
        )
    return sizes


def _with_images(callback: Callback | None, to_image: Callable[[Tensor], Array]) -> Callback | None:
    """Let a callback's `estimate` give an image like the result instead of a tensor on the object's grid."""
    if callback is None:
        return None
    return lambda progress: callback(
        replace(progress, estimate=cast(Any, lambda: to_image(progress.estimate())))
    )
