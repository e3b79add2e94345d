"""The methods by name: which solver a word stands for, and what is tuned for the image in hand."""

from __future__ import annotations

import difflib
import math
import numbers
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import torch
from torch import Tensor

from selfinv.arrangement import is_on_grid, is_sharp, together_of
from selfinv.functionals import Fidelity, Huber, SquaredL2, noise_scale, span
from selfinv.held_out import MOST
from selfinv.learning.losses import choose_loss
from selfinv.learning.masks import drawn_shape
from selfinv.learning.measurement import gain
from selfinv.learning.presets import ssi, ssi_paper, ssi_unmasked
from selfinv.learning.solver import SSI
from selfinv.operators import Identity, LinearOperator
from selfinv.selection import Candidate, SelfTuned
from selfinv.solvers.base import Forward, Solver
from selfinv.solvers.chambolle_pock import ChambollePock, box_of_light, strong_weight
from selfinv.solvers.conjugate_gradient import ConjugateGradient, paper_conjugate_gradient
from selfinv.solvers.richardson_lucy import RichardsonLucy
from selfinv.solvers.wiener import Wiener
from selfinv.trials import SIGNIFICANT
from selfinv.types import InputError, check_integer


@dataclass(frozen=True)
class Request:
    """What a method is asked to do.

    Parameters
    ----------
    y, operator
        The measurement, ``batch channel *space`` with NaN where missing, and what measured it.
    object_shape
        Spatial shape of the object.
    weight
        Of the regularisation; None tunes it by held-out values.
    steps
        Iterations or training steps; None is the method's own number, for Richardson-Lucy the one that
        predicts held-out values best.
    spacing
        Voxel size along each axis of the operator's object.
    blind_spot
        How far noise is correlated along each axis, in values, as far as so many can be hidden.
    correlated
        Whether it is, over however many of them.
    channels
        Of the object; None: those of the measurement.
    """

    y: Tensor
    operator: Forward
    object_shape: Sequence[int]
    weight: float | None = None
    steps: int | None = None
    spacing: tuple[float, ...] | None = None
    blind_spot: tuple[int, ...] = ()
    correlated: bool = False
    channels: int | None = None

    def __post_init__(self) -> None:
        if self.steps is not None:
            check_integer(self.steps, "max_steps", least=1)
        number = isinstance(self.weight, numbers.Real) and not isinstance(self.weight, bool)
        if self.weight is not None and not (number and 0.0 < self.weight < math.inf):
            raise InputError(
                f"weight must be a positive number, got {self.weight!r}; leave it out to have it tuned"
            )


def solver_for(method: str, request: Request) -> Solver:
    """The solver a method's name stands for.

    Raises
    ------
    InputError
        If there is no such method, or it cannot do what is asked.
    """
    if method not in METHODS:
        raise InputError(f"method={method!r} is unknown; {meant(method)}")
    if request.weight is not None and method not in WEIGHTED:
        raise InputError(
            f"method={method!r} has no weight; leave it out, or use one of {', '.join(WEIGHTED)}"
        )
    return METHODS[method](request)


def meant(method: str) -> str:
    """Which method may have been meant by a word that is none: a slip, a part of a name, or its initials."""
    word = method.strip().lower()
    close = difflib.get_close_matches(word, METHODS, n=1)
    close += [name for name in METHODS if word and (word in name or word == _initials(name))]
    hint = f"did you mean {close[0]}? Known are" if close else "use one of"
    return f"{hint} {', '.join(METHODS)}"


def _initials(name: str) -> str:
    return "".join(part[0] for part in name.split("-"))


# ---- one function for each name ----


def _tuned(request: Request, *candidates: Candidate, **settings: Any) -> SelfTuned:
    return SelfTuned(candidates, blind_spot=request.blind_spot, **settings)


def _learned(preset: Callable[..., SSI], request: Request, **options: Any) -> SSI:
    if preset is ssi:
        options["pixels"] = is_on_grid(request.operator)
        together = together_of(request.operator)
        options["sets"] = math.prod(drawn_shape(request.y.shape, joint_channels=False, together=together))
    solver = preset(request.object_shape, request.channels or request.y.shape[1], **options)
    if preset is ssi:
        solver = replace(solver, hiding=replace(solver.hiding, blind_spot=request.blind_spot))
    if request.steps is None:
        return solver
    return replace(solver, training=replace(solver.training, max_steps=request.steps))


FEWEST = 500  # values to tell a network that has failed by, if there are ten times as many
MARGIN = 0.01  # of what a network explains: behind a blur it makes fewer errors that the operator hides
PRESETS: dict[str, dict[str, Any]] = {
    # Training steps, relative to the default's and no more for large images, on a coarser grid.
    "fast": {"effort": 0.5, "growth": 1.0, "fold": 4},
    "default": {},
    "best": {"effort": 2.5},
}
FAST_UNBLURRED = {"effort": 0.35}  # where nothing is blurred, a coarser grid lacks detail that is there


def _ssi(request: Request, preset: str = "default") -> Solver:
    """The trained network, with simple methods mixed in, or in its place, where held-out values say so."""
    options = PRESETS[preset]
    if preset == "fast" and is_sharp(request.operator):
        options = FAST_UNBLURRED
    if not isinstance(request.operator, LinearOperator):
        return _learned(ssi, request, **options)  # nothing to compare with
    plain = replace(request, steps=None)
    network = _candidate_ssi(request, **options)
    simple = (*_tv_candidates(plain)[:1], Candidate("wiener", lambda _: Wiener()))
    pixels = is_on_grid(request.operator)
    # What is set apart is missed: the network does not learn from it, afterwards either.
    most = 0.5 * MOST
    if pixels:
        most = min(MOST, max(most, FEWEST / max(1, int(torch.isfinite(request.y).sum()))))
    if request.correlated:  # held-out values prefer what keeps the noise, which a network does least
        network = replace(network, margin=math.inf)
    plain_image = isinstance(request.operator, Identity) and request.steps is None
    # Of volumes no lessons teach edges, and fewer values are hidden.
    cautious = pixels and len(request.object_shape) < 3
    mixed = None if request.correlated else SIGNIFICANT if cautious else 0.0
    settings = {"mixed_beyond": mixed, "cautious": cautious, "most": most, "keeps_detail": plain_image}
    return _tuned(request, network, *simple, **settings)


def _auto(request: Request) -> Solver:
    plain = replace(request, steps=None)
    candidates = (*_tv_candidates(plain), _richardson_lucy(), _wiener(plain))
    return _tuned(request, _candidate_ssi(request), *candidates, cautious=is_on_grid(request.operator))


def _candidate_ssi(request: Request, **options: Any) -> Candidate:
    solver = _learned(ssi, request, **options)
    return Candidate("ssi-network", lambda _: solver, margin=MARGIN if is_on_grid(request.operator) else 0.0)


def _chambolle_pock(request: Request) -> Solver:
    if request.weight is not None:
        return _tv_candidates(request)[0].fixed(request.weight)
    return _tuned(request, *_tv_candidates(request))


def _conjugate_gradient(request: Request) -> Solver:
    def solver(weight: float) -> ConjugateGradient:
        return ConjugateGradient(weight, spacing=request.spacing, max_steps=request.steps or 60)

    if request.weight is not None:
        return solver(request.weight)
    return _tuned(request, Candidate("tv-conjugate-gradient", solver, "weight", _strongest(request)))


def _tv_candidates(request: Request) -> tuple[Candidate, ...]:
    """Total variation with each fidelity that may suit the noise, the likeliest first."""
    y = request.y
    box = box_of_light(request.operator, y)

    def candidate(name: str, fidelity: Fidelity, first: float) -> Candidate:
        def solver(weight: float, steps: int) -> ChambollePock:
            return ChambollePock(weight, fidelity, box, request.spacing, max_steps=request.steps or steps)

        # A search starts each solve where the last one ended.
        return Candidate(name, partial(solver, steps=20), "weight", first, alone=partial(solver, steps=200))

    if isinstance(request.operator, LinearOperator) and not is_on_grid(request.operator):
        # Differences of values that are no pixels are no noise.
        first = strong_weight(request.operator, y.float())
    else:
        first = _strongest(request)
    robust = candidate("tv-chambolle-pock, Huber", Huber(noise_scale(y, least=1e-6)), first)
    square = candidate("tv-chambolle-pock, L2", SquaredL2(), first)
    return (robust, square) if choose_loss(y).kind == "l1" else (square, robust)


def _strongest(request: Request) -> float:
    """Where the search for total variation's weight begins: half the noise's deviation, at a gain of 1.

    A weight is of the gain's size, which is taken to the nearest power of 2, the search's own steps.
    """
    size = abs(gain(request.operator))
    return 0.5 * noise_scale(request.y, least=1e-6) * 2.0 ** round(math.log2(size))


def _richardson_lucy() -> Candidate:
    def solver(steps: float) -> RichardsonLucy:
        return RichardsonLucy(max_steps=round(steps))

    return Candidate("richardson-lucy", solver, "steps", first=200, reference=Wiener())


def _richardson_lucy_solver(request: Request) -> Solver:
    if request.steps is not None:
        return RichardsonLucy(max_steps=request.steps)
    return _tuned(request, _richardson_lucy())


def _wiener(request: Request) -> Candidate:
    # Frequencies, say, are all but independent in what the filter takes an object for.
    own = None if is_on_grid(request.operator) else 1.0
    return Candidate("wiener", lambda balance: _wiener_with(request, balance), "balance", 8.0, own=own)


def _wiener_with(request: Request, balance: float) -> Wiener:
    return Wiener(balance=balance, max_steps=request.steps or Wiener.max_steps)


def _wiener_solver(request: Request) -> Solver:
    if request.weight is not None:
        return _wiener_with(request, request.weight)
    return _tuned(request, _wiener(request))


def _paper_conjugate_gradient(request: Request) -> Solver:
    solver, width = paper_conjugate_gradient(), span(request.y)
    assert solver.smoothing is not None
    return replace(
        solver,
        weight=solver.weight * width,
        smoothing=solver.smoothing * width**2,
        max_steps=request.steps or solver.max_steps,
    )


def _paper_chambolle_pock(request: Request) -> Solver:
    weight = 2.5e-3 * span(request.y)  # the paper's settings are for images that span 0 to 1
    return ChambollePock(weight, steps="fixed", max_steps=request.steps or 200, rtol=0.0)


METHODS: dict[str, Callable[[Request], Solver]] = {
    "ssi": _ssi,
    "ssi-fast": partial(_ssi, preset="fast"),
    "ssi-best": partial(_ssi, preset="best"),
    "ssi-network": partial(_learned, ssi),
    "auto": _auto,
    "tv-chambolle-pock": _chambolle_pock,
    "tv-conjugate-gradient": _conjugate_gradient,
    "richardson-lucy": _richardson_lucy_solver,
    "wiener": _wiener_solver,
    "ssi-paper": partial(_learned, ssi_paper),
    "ssi-unmasked": partial(_learned, ssi_unmasked),
    "tv-conjugate-gradient-paper": _paper_conjugate_gradient,
    "tv-chambolle-pock-paper": _paper_chambolle_pock,
}
TOTAL_VARIATION = ("tv-chambolle-pock", "tv-conjugate-gradient")
WEIGHTED = (*TOTAL_VARIATION, "wiener")
OURS = ("ssi", "ssi-fast", "ssi-best", "ssi-network")
AS_PUBLISHED = ("ssi-paper", "ssi-unmasked", "tv-conjugate-gradient-paper", "tv-chambolle-pock-paper")
