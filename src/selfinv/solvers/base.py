"""The one contract and the one loop of everything that gets better step by step."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from functools import partial
from typing import Any, ClassVar, Protocol, runtime_checkable

import numpy as np
import torch
from torch import Tensor

from selfinv.operators import LinearOperator
from selfinv.resources import memory_kept
from selfinv.types import InputError

Forward = Callable[[Tensor], Tensor]


@dataclass(frozen=True)
class Status:
    """How a run stands or ended; two are equal if their ``name`` is.

    Parameters
    ----------
    name
        One word, for programs.
    message
        What happened, for people.
    advice
        What to do about it; empty where nothing need be done.
    failed_attempts
        What went wrong in earlier attempts of the same run, each started again with another seed.
    """

    name: str
    message: str = field(default="", compare=False)
    advice: str = field(default="", compare=False)
    failed_attempts: tuple[str, ...] = field(default=(), compare=False)

    RUNNING: ClassVar[Status]
    CONVERGED: ClassVar[Status]
    MAX_STEPS: ClassVar[Status]
    CANCELLED: ClassVar[Status]
    NONFINITE: ClassVar[Status]
    CHECKERBOARD: ClassVar[Status]
    WORSE_THAN_START: ClassVar[Status]

    @property
    def failed(self) -> bool:
        """Whether the result should not be used."""
        return self.name in ("nonfinite", "checkerboard", "worse-than-start")

    @property
    def reason(self) -> str:
        """What happened, without saying again that it is a failure."""
        return self.message.removeprefix("failed: ")

    def after(self, *failed_attempts: str) -> Status:
        """The same status, telling of attempts that failed before it."""
        return replace(self, failed_attempts=failed_attempts)

    def __str__(self) -> str:
        words = self.message + (f"; {self.advice}" if self.advice else "")
        if self.failed_attempts:
            counted = Counter(self.failed_attempts).items()
            reasons = [f"{why}, {count} times" if count > 1 else why for why, count in counted]
            words += f" (after {len(self.failed_attempts)} failed: {'; '.join(reasons)})"
        return words


Status.RUNNING = Status("running", "still running")
Status.CONVERGED = Status("converged", "converged: the held-out score stopped getting better")
Status.MAX_STEPS = Status("max-steps", "finished the planned number of steps")
Status.CANCELLED = Status(
    "cancelled",
    "stopped on request",
    "this is the best result so far, which may be worse than the measurement",
)
Status.NONFINITE = Status(
    "nonfinite",
    "failed: the numbers became NaN or infinite",
    "look for extreme values in the image, the psf and the settings given",
)
Status.CHECKERBOARD = Status(
    "checkerboard",
    "failed: the result has a checkerboard pattern that the measurement cannot see",
    "use more steps or another seed",
)
Status.WORSE_THAN_START = Status(
    "worse-than-start",
    "failed: the held-out values are predicted no better than at the start",
    "use more steps; check that the psf belongs to this image; there may be no signal above the noise",
)


@dataclass(frozen=True)
class Phase:
    """A part of a run that has steps of its own, such as one solve of a search."""

    name: str
    step: int
    planned: int
    attempt: int = 1


class State(Protocol):
    """What every solver's state shows of itself; a run with several parts also has a ``phase``."""

    step: int
    loss: float
    score: float


@runtime_checkable
class Solver(Protocol):
    """A frozen dataclass of hyper-parameters; the data come in the call.

    One that no seed changes says so by a class attribute ``deterministic = True``: it is not tried again.
    """

    def init(self, y: Tensor, operator: Forward, *, seed: int = 0) -> Any:
        """The state before the first step. ``y`` is ``batch channel *space``; NaN marks missing values."""
        ...

    def step(self, state: Any) -> Any:
        """The state one iteration later."""
        ...

    def status(self, state: Any) -> Status:
        """Whether to go on, and if not, why."""
        ...

    def estimate(self, state: Any) -> Tensor:
        """The object as estimated now, in the measurement's units, on the object's grid."""
        ...

    def planned_steps(self) -> int:
        """The largest number of steps that will be taken."""
        ...


@dataclass(frozen=True)
class Progress:
    """What a callback is told after every step.

    Parameters
    ----------
    step, max_steps
        Steps taken and planned.
    loss, score
        The present loss and held-out score (NaN where there is none); on a GPU, of some steps before.
    seconds, seconds_left
        Time spent and, if the plan is carried out in full, still to be spent.
    attempt
        1 for the first seed, 2 after a failed run, and so on.
    phase
        What is going on, where a run has several parts; ``step``, ``max_steps`` and the times are then this
        part's own.
    estimate
        Call it for the present reconstruction; it costs time only when called.
    """

    step: int
    max_steps: int
    loss: float
    score: float
    seconds: float
    seconds_left: float
    attempt: int
    estimate: Callable[[], Tensor] = field(repr=False)
    phase: str = ""


Callback = Callable[[Progress], bool | None]


def linear(operator: Forward, y: Tensor) -> LinearOperator:
    """The operator, once it is sure that it has an adjoint and measures values of ``y``'s spatial shape.

    Raises
    ------
    InputError
        If it is not a `LinearOperator`, or measures another shape.
    """
    if not isinstance(operator, LinearOperator):
        name = getattr(operator, "__name__", type(operator).__name__)
        raise InputError(
            f"this method needs the operator's adjoint, and {name} has none; pass a LinearOperator, or use "
            f"method='ssi', which takes any differentiable function"
        )
    if tuple(y.shape[2:]) != operator.out_shape:
        raise InputError(
            f"the operator gives measurements of the shape {operator.out_shape} "
            f"but the image has the spatial shape {tuple(y.shape[2:])}"
        )
    return operator


def observed(y: Tensor) -> tuple[Tensor, Tensor]:
    """The measured values with 0 in place of missing ones (NaN), and weights: 1 where measured, else 0.

    The values may be ``y`` itself: change none in place.
    """
    weights = torch.isfinite(y)
    if bool(weights.all()):
        return y, torch.ones_like(y)
    return torch.where(weights, y, torch.zeros((), dtype=y.dtype, device=y.device)), weights.to(y.dtype)


def _planned(solver: Solver, max_steps: int | None) -> int:
    return min(solver.planned_steps(), max_steps or solver.planned_steps())


def _phase(state: Any, planned: int) -> Phase:
    return getattr(state, "phase", None) or Phase("", state.step, planned)


def _cancelled(phase: Phase) -> Status:
    """With how far the run had come."""
    name = f" ({phase.name})" if phase.name else ""
    message = f"{Status.CANCELLED.message} at step {phase.step} of {phase.planned}{name}"
    return replace(Status.CANCELLED, message=message)


class _Clock:
    """Time spent in a phase, and time left."""

    def __init__(self) -> None:
        self.part = ("", 1)
        self.start = self.first = self.last = time.monotonic()

    def read(self, phase: Phase) -> tuple[float, float]:
        now = time.monotonic()
        if (phase.name, phase.attempt) != self.part:
            self.part, self.start = (phase.name, phase.attempt), self.last
        if phase.step <= 1:
            self.first = now  # the first step also sets everything up; the second tells how long steps take
        self.last = now
        pace = (now - self.first) / (phase.step - 1) if phase.step > 1 else now - self.start
        return now - self.start, pace * max(0, phase.planned - phase.step)


def iterate(
    solver: Solver,
    y: Tensor,
    operator: Forward,
    *,
    seed: int = 0,
    max_steps: int | None = None,
    callback: Callback | None = None,
    attempt: int = 1,
) -> Iterator[Any]:
    """Yield the state after every step until the solver, ``max_steps`` or a callback ends the run.

    Parameters
    ----------
    callback
        Called with a `Progress` after every step; returning False stops the loop.
    """
    clock = _Clock()
    state = solver.init(y, operator, seed=seed)
    planned = _planned(solver, max_steps)
    yield state
    while solver.status(state) == Status.RUNNING and state.step < planned:
        state = solver.step(state)
        if callback is not None:
            phase = _phase(state, planned)
            seconds, seconds_left = clock.read(phase)
            progress = Progress(
                step=phase.step,
                max_steps=phase.planned,
                loss=state.loss,
                score=getattr(state, "image_score", state.score),
                seconds=seconds,
                seconds_left=seconds_left,
                attempt=max(attempt, phase.attempt),
                estimate=partial(solver.estimate, state),
                phase=phase.name,
            )
            answer = callback(progress)
            # Not 0, which functions return that write something.
            if isinstance(answer, bool | np.bool_) and not answer:
                yield state
                return
        yield state


def seed_of_attempt(seed: int, attempt: int) -> int:
    """The seed of the first attempt (1) is the caller's own, those of later ones follow from it."""
    return seed + 7919 * (attempt - 1)


def attempts_of(solver: Solver, most: int) -> int:
    """How often a run that fails is tried."""
    return 1 if getattr(solver, "deterministic", False) else most


@memory_kept()
def run(
    solver: Solver,
    y: Tensor,
    operator: Forward,
    *,
    seed: int = 0,
    max_steps: int | None = None,
    callback: Callback | None = None,
    restarts: int = 2,
) -> tuple[Any, Status]:
    """Iterate to the end, start failed runs again with another seed, and keep the best so far on Ctrl-C.

    Where a seed changes nothing (`Solver`), there is no second run.

    Returns
    -------
    state, status
        The last state, and how it was reached (with what failed before). A run that fails with every seed is
        returned as it is, with its failed status.
    """
    failures: list[str] = []
    most = attempts_of(solver, restarts + 1)
    for attempt in range(1, most + 1):
        state = None
        cancelled = False
        used_seed = seed_of_attempt(seed, attempt)
        try:
            states = iterate(
                solver, y, operator, seed=used_seed, max_steps=max_steps, callback=callback, attempt=attempt
            )
            for latest in states:
                state = latest
        except KeyboardInterrupt:
            if state is None or state.step == 0:
                raise
            cancelled = True
        assert state is not None
        status = solver.status(state)
        if status == Status.RUNNING:
            planned = _planned(solver, max_steps)
            done = state.step >= planned and not cancelled
            status = Status.MAX_STEPS if done else _cancelled(_phase(state, planned))
        if not status.failed or cancelled or attempt == most:
            return state, status.after(*failures)
        failures.append(f"seed {used_seed}: {status.reason}")
    raise AssertionError("unreachable")
