"""The front door: one noisy image and what is known of the instrument in, the restored image out."""

from __future__ import annotations

import copy
import inspect
import time
import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Literal, cast

import numpy as np
import torch
from torch import Tensor

from selfinv.arrangement import Arrangement, as_measured, is_on_grid, space_of, spacing_of
from selfinv.doubts import (
    NOTHING_EXPLAINED,
    left_as_it_is,
    nothing_explained,
    saturated,
    shared_noise,
    stray_values,
    too_wide,
    unchanged,
)
from selfinv.instrument import check_boundary, choose_device, psf_operator
from selfinv.learning.inverse_filters import point_spread
from selfinv.learning.measurement import field_of_view, object_pads
from selfinv.learning.model import TrainedModel, versions
from selfinv.learning.normalisation import ChannelUnits
from selfinv.learning.solver import SSI, SSIState
from selfinv.learning.stray_values import find_stray
from selfinv.methods import AS_PUBLISHED, OURS, Request, solver_for
from selfinv.operators import Boundary, Convolution, Downsample, Identity, LinearOperator
from selfinv.outcome import outcome, trained_model, training
from selfinv.probe import check_built, probe
from selfinv.psf import values_of
from selfinv.selection import SelfTuned, SelfTunedState
from selfinv.semiblind import PSFFamily, fit_psf
from selfinv.solvers.base import Callback, Forward, Solver, Status, run
from selfinv.solvers.chambolle_pock import ChambollePock
from selfinv.types import (
    Array,
    AxisLayout,
    InputError,
    SelfinvWarning,
    Shape,
    check_contrast,
    check_image,
    check_integer,
    guess_axes,
    parse_axes,
)

SMALLEST = 16
MOST_SEED = 2**62  # others are made of it by adding
WIDEST = 4  # blind spot, in values to each side


@dataclass(frozen=True)
class Result:
    """A restored image and how it came about.

    Parameters
    ----------
    image
        Same shape, axes and intensity units as the input, float32; with an operator whose values are not
        pixels, its object.
    status
        How the run ended; ``status.failed`` says not to use it, ``status.advice`` what to do.
    stats
        How it was made, in plain types:

        - ``method`` as it was asked for, ``seed``, ``device``, ``axes``, ``boundary``, ``seconds``,
          ``versions``;
        - ``chosen``: of several methods the one (if the run was ended early, the part of it) that the image
          is by, ``weights`` and ``mixture``: what was mixed; ``trials``: name, parameter, setting, held-out
          score, steps of all that was tried, ``table``: the same in Markdown with reasons, ``skipped``: what
          could not be tried; ``weight``, ``balance``, ``fidelity``: settings;
        - ``held_out_score``, and that ``of_a_constant``, in the image's units (squared, if ``loss`` is
          ``"l2"``): what hidden values are off by, their noise included;
        - of a network ``steps``, ``best_step`` (whose weights were kept), ``parameters``, ``symmetries``,
          ``history``: step, training loss (where noise is learned, minus a log-likelihood), held-out score;
        - ``noise``: whether it is independent, in words; ``stray_values``: how many were left out; ``psf``:
          what was fitted of it; ``channel_units``: offsets and scales that channels were brought to.
    model
        The trained inverse, to save or to apply to more images of the same instrument; without what was mixed
        in (``stats["weights"]``); None where a classical method made the image, or most of it (with
        ``method="ssi-network"`` there always is one).
    solver
        What made the image, or most of it, with the settings that were chosen.
    predicted
        What the instrument would measure of the restored object, of its part beyond the image's edges too:
        the measurement's shape and units, float32 or complex64. The measurement less this is what nothing
        in the object explains: noise, if all is well, without any structure, and less than there is where
        the object has about as many values as were measured.
    """

    image: Array
    status: Status
    stats: dict[str, Any] = field(default_factory=dict)
    model: TrainedModel | None = None
    solver: Solver | None = None
    predicted: Array | None = None


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
        if that predicts held-out values better), ``"ssi-fast"`` and ``"ssi-best"`` (the same in 0.25 and 2.5
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
        Treat NaN and infinite values as missing instead of refusing them. Behind a PSF a few values that
        neither blur nor noise can make (cosmic rays) are taken for missing in any case, with a warning
        (``stats["stray_values"]``).
    device
        ``"auto"``, ``"cpu"``, ``"cuda"``, ``"mps"``.
    seed
        Of every random draw: the same seed on the same machine gives the same image.
    weight
        Of the regularisation of a TV method, in the image's intensity units, or the balance of ``"wiener"``,
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
    seed = check_integer(seed, "seed", least=0, most=MOST_SEED)
    if not isinstance(mask_nan, bool | np.bool_):
        raise InputError(
            f"mask_nan is a {type(mask_nan).__name__}; pass True, and NaN where values are missing"
        )
    max_steps = None if max_steps is None else check_integer(max_steps, "max_steps", least=1)
    _check_callback(callback)
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
            warnings.warn(words, SelfinvWarning, stacklevel=2)
    array = check_image(as_measured(image, operator), allow_nan=mask_nan)
    kernel = values_of(psf)
    arrangement = None
    if isinstance(operator, LinearOperator) and not is_on_grid(operator):
        arrangement = Arrangement.of(operator, array.shape, axes)
        layout, batch, shape = arrangement.layout, arrangement.to_batch(array), space_of(operator)
    else:
        layout = _layout(array, axes, kernel)
        batch, shape = layout.to_batch(array), layout.spatial_shape(array.shape)
    _check_size(shape, layout.spatial)
    check_contrast(array)
    y = torch.from_numpy(np.ascontiguousarray(batch, dtype=np.float64))
    y = y.masked_fill(~torch.isfinite(y), torch.nan)
    empty = (~torch.isfinite(y).flatten(1).any(1)).nonzero().flatten().tolist()
    if empty:
        warnings.warn(
            f"nothing is measured in frame {', '.join(map(str, empty))} (counted from 0); what comes back "
            f"there is made up",
            SelfinvWarning,
            stacklevel=2,
        )
    flat = "" if arrangement else saturated(y)
    if flat:
        warnings.warn(flat, SelfinvWarning, stacklevel=2)
    forward = operator if operator is not None else psf_operator(kernel, shape, layout, boundary, y)
    place = choose_device(device)
    if isinstance(forward, torch.nn.Module):
        forward = copy.deepcopy(forward).to(place).requires_grad_(False)  # the caller's own stays where it is
    y = (y if place.type != "mps" else y.float()).to(place)
    pads = ((0, 0),) * len(shape) if arrangement else object_pads(forward, shape)
    if operator is not None:
        forward = probe(forward, y)
        if isinstance(forward, LinearOperator):
            if forward.measured is not None:
                y = y.masked_fill(~forward.measured, torch.nan)
            for words in forward.doubts(y):
                warnings.warn(words, SelfinvWarning, stacklevel=2)
    y, stray = _without_stray(y, forward, method)
    if stray:
        warnings.warn(stray_values(stray, y.numel()), SelfinvWarning, stacklevel=2)
    units = _common_units(y, forward, operator, method)
    if units is not None:
        y = units.apply(y)
    sizes = [n + a + b for n, (a, b) in zip(shape, pads, strict=True)]
    correlation = shared_noise(y, forward) if isinstance(method, str) else None
    correlated = correlation is not None and correlation.correlated
    # Of noise common to whole lines, no blind spot that leaves anything to learn from is rid.
    blind_spot = correlation.blind_spot if correlation and max(correlation.blind_spot) <= WIDEST else ()
    lines = correlation.lines if correlation else ()
    trusted = fitted is None or fitted.kept
    if trusted and not flat and (words := too_wide(y, forward, correlation)):
        warnings.warn(words, SelfinvWarning, stacklevel=2)
    if isinstance(forward, Convolution):
        forward.lines_share_noise = lines
    voxel = _spacing(spacing, layout.spatial)
    request = Request(y, forward, sizes, weight, max_steps, voxel, blind_spot, correlated)
    if arrangement and arrangement.operator.object_channels:
        mixed = arrangement.operator
        request = replace(request, channels=mixed.object_channels, spacing=spacing_of(mixed, voxel))
    name = method if isinstance(method, str) else "custom"
    solver = solver_for(method, request) if isinstance(method, str) else method
    if not isinstance(solver, Solver):
        raise InputError(f"method is a {type(method).__name__}; give a method's name or a Solver")
    if isinstance(method, SSI) and max_steps is not None:  # the schedule is made for this many
        solver = replace(method, training=replace(method.training, max_steps=max_steps))

    def to_image(x: Tensor) -> Array:
        x = x if units is None else units.undo(x)
        x = arrangement.from_object(x) if arrangement else x[field_of_view(pads, shape)]
        return layout.from_batch(x.to(torch.float32).cpu().numpy())

    def to_measurement(y: Tensor) -> Array:
        values = y.to(torch.float32).cpu().numpy()
        values = arrangement.from_batch(values) if arrangement else layout.from_batch(values)
        pairs = np.iscomplexobj(image) and values.shape[-1] == 2
        return np.ascontiguousarray(values).view(np.complex64)[..., 0] if pairs else values

    if not isinstance(solver, SSI):
        y = _single(y)
    limit = None if isinstance(method, str) else max_steps
    callback = _with_images(callback, to_image)
    state, status = run(solver, y, forward, seed=seed, max_steps=limit, callback=callback)
    estimate = solver.estimate(state)
    restored = to_image(estimate)
    with torch.no_grad():
        measured = forward(estimate.float())  # the only precision it is sure to take
    predicted = to_measurement(measured if units is None else units.undo(measured))
    stats = {
        "method": name,
        "seed": seed,
        "device": str(place),
        "axes": layout.axes,
        "boundary": getattr(forward, "boundary", None),
    }
    if stray:
        stats["stray_values"] = stray
    if units is not None:  # of which the scores are, too
        stats["channel_units"] = list(zip(units.offsets, units.scales, strict=True))
    if fitted is not None:
        stats["psf"] = fitted.summary()
    if weight is not None:
        stats |= {"balance" if name == "wiener" else "weight": weight}
    if isinstance(solver, ChambollePock):
        stats["fidelity"] = type(solver.fidelity).__name__
    stats |= outcome(state) | {"seconds": time.monotonic() - start, "versions": versions()}
    if correlation is not None:
        stats["noise"] = correlation.explain()
        if correlated:
            tuned = isinstance(solver, SSI | SelfTuned)
            done = ""
            if tuned and lines:
                done = " (whole lines are hidden here)"
            elif any(blind_spot):
                done = " (done here)" if tuned else " (nothing was scored here)"
            if name in OURS and isinstance(solver, SelfTuned):
                done += "; the network is therefore taken alone"
            warnings.warn(f"{stats['noise']}{done}", SelfinvWarning, stacklevel=2)
    tells = name == "richardson-lucy" or isinstance(solver, SelfTuned)  # of a weight given, it is no news
    sharp = (Identity, Downsample) if name == "richardson-lucy" else Identity
    if tells and isinstance(forward, sharp) and left_as_it_is(y, measured):
        warnings.warn(unchanged(name), SelfinvWarning, stacklevel=2)
    if isinstance(state, SelfTunedState) and not status.failed and nothing_explained(stats):
        other = "" if name.startswith("ssi") else ", or use ssi"
        warnings.warn(f"{NOTHING_EXPLAINED}{other}", SelfinvWarning, stacklevel=2)
    inner, inner_solver = state, solver
    if isinstance(state, SelfTunedState):
        status = status.after(*status.failed_attempts, *state.failures)
        ended, inner = cast(SelfTuned, solver).end(state)
        inner_solver = cast(Solver, ended)
    if status.failed:
        warnings.warn(str(status), SelfinvWarning, stacklevel=2)
    model = None
    if isinstance(inner, SSIState) and isinstance(inner_solver, SSI):
        # A choice between methods has scores of its own, on the same values for all of them.
        compared = ("loss", "held_out_score", "held_out_score_of_a_constant")
        stats |= training(inner) | {key: stats[key] for key in compared if key in stats}
        model = trained_model(inner_solver, inner, y, layout, forward, stats, units)
    return Result(restored, status, stats, model, inner_solver, predicted)


def _without_stray(y: Tensor, forward: Any, method: Any) -> tuple[Tensor, int]:
    """The measurement without values that neither blur nor noise can make, and how many there were."""
    psf = point_spread(forward) if isinstance(method, str) and method not in AS_PUBLISHED else None
    if psf is None:
        return y, 0
    stray = find_stray(psf, y)
    return y.masked_fill(stray, torch.nan), int(stray.sum())


def _common_units(y: Tensor, forward: Any, operator: Any, method: Any) -> ChannelUnits | None:
    """Those that channels of very different ranges are brought to for our own methods; None: left alone.

    Where an operator does the same to each channel. Levels are taken off where it keeps constants.
    """
    if not isinstance(method, str) or method not in OURS or y.shape[1] < 2:
        return None
    if not isinstance(forward, LinearOperator) or forward.object_channels:
        return None
    if operator is not None and not is_on_grid(operator):
        return None
    keeps = operator is None and getattr(forward, "boundary", "") != "zero"
    return ChannelUnits.of(y, levels=keeps)


def load_model(path: Any, operator: LinearOperator | None = None) -> TrainedModel:
    """Read a trained model written by ``result.model.save(path)`` (see `TrainedModel.load`)."""
    return TrainedModel.load(path, operator)


def _layout(array: Array, axes: str | None, psf: Array | None) -> AxisLayout:
    if axes is not None:
        return parse_axes(axes, array.ndim)
    if psf is not None and psf.ndim == array.ndim == 3 and psf.shape[0] == array.shape[-1] in (3, 4):
        return parse_axes("yxc", 3)  # colour, with one psf per channel in front
    return parse_axes(guess_axes(array.shape, None if psf is None else psf.ndim), array.ndim)


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


def _check_size(shape: Shape, spatial: str) -> None:
    small = {a: n for a, n in zip(spatial, shape, strict=True) if a != "z" and n < SMALLEST}
    if small:
        raise InputError(
            f"the image has only {', '.join(f'{n} samples along {a}' for a, n in small.items())}; at least "
            f"{SMALLEST} are needed, because fewer hold too little to learn from"
        )


def _single(y: Tensor) -> Tensor:
    """In the precision that convolutions run in (a network normalises first)."""
    largest = float(torch.where(torch.isfinite(y), y.abs(), 0.0).max())
    if not 1e-15 < largest < 1e15:  # squares must stay within single precision
        raise InputError(
            f"the image's largest value is {largest:.3g}; use a unit in which it lies between 1e-15 and 1e15"
        )
    return y.float()


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
