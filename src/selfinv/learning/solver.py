r"""Self-supervised inversion: a network trained on one image to predict what was hidden from it.

In every step some measured values :math:`J` are hidden, the network :math:`f` reconstructs the object from
the rest, the forward operator :math:`g` turns that into a prediction of the measurement, and only the hidden
values are compared (Kobayashi et al. 2020, arXiv:2006.06156, Eq. 3):

.. math:: \mathcal L(f) = \mathbb E \sum_J \rho\bigl( (g \circ f \circ m_J)(y)_J - y_J \bigr)

A fixed set of validation values is hidden from the network's input in *every* step and never trained on:
their score says when to stop and which weights to keep.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
import torch
from torch import Tensor

from selfinv.arrangement import always_shown_of, for_network, for_operator, is_on_grid
from selfinv.learning.artefacts import has_checkerboard
from selfinv.learning.asking import answer_to_own
from selfinv.learning.capacity import adapted
from selfinv.learning.domain import WithinDomain
from selfinv.learning.equivariance import Lesson, ScaleLessons, instrument
from selfinv.learning.graphs import GraphedPasses, Recorder, can_be_replayed, launched
from selfinv.learning.inverter import Entrance, Head, Inverter, TrainedInverse, build_inverter
from selfinv.learning.likelihood import NoiseLikelihood
from selfinv.learning.losses import (
    MaskedLoss,
    choose_loss,
    has_outliers,
    kernel_roughness,
    weight_penalty,
)
from selfinv.learning.measurement import Measurement
from selfinv.learning.optimiser import WeightAverage, optimiser_and_schedule
from selfinv.learning.own_values import OwnValues
from selfinv.learning.photometry import brightened, light_factors
from selfinv.learning.preparation import draw_hidden, filling_widths, normalised, prepare, share_of
from selfinv.learning.random import generator_for
from selfinv.learning.settings import Hiding, Training
from selfinv.learning.symmetry import Rearrangement, Symmetry
from selfinv.learning.unet import UNetSettings
from selfinv.learning.windows import Window, Windows, draw_window
from selfinv.operators import LinearOperator
from selfinv.solvers.base import Forward, Status
from selfinv.types import InputError

ASK_EVERY = 10  # steps: to ask a GPU for the loss is to wait for it


@dataclass
class SSIState:
    """A run in progress (changed in place by `SSI.step`)."""

    data: Measurement
    model: Inverter
    optimiser: torch.optim.Optimizer
    schedule: torch.optim.lr_scheduler.LRScheduler | torch.optim.lr_scheduler.ReduceLROnPlateau
    average: WeightAverage | None
    loss_function: MaskedLoss
    hiding: Hiding
    seed: int
    start_score: float
    lowest_score: float = math.inf
    lowest_costs: Tensor = field(default_factory=lambda: torch.empty(0))
    best_score: float = math.inf
    best_step: int = 0
    best_weights: dict[str, Tensor] = field(default_factory=dict)
    step: int = 0
    loss: float = math.nan  # where steps are replayed, of the last step of which it was asked
    score: float = math.nan
    history: list[tuple[int, float, float]] = field(default_factory=list)
    failure: Status | None = None
    cached: tuple[int, Tensor] | None = None
    own_values: OwnValues | None = None
    light: tuple[float, ...] = ()
    likelihood: NoiseLikelihood | None = None
    lessons: ScaleLessons | None = None
    lesson: Tensor | None = None
    lesson_step: int = 0
    instruments: dict[torch.Size, LinearOperator] = field(default_factory=dict)
    averaged: Inverter | None = None
    recorder: Recorder | None = None
    widths: int = 1
    passes: GraphedPasses | None = None

    @property
    def unit(self) -> float:
        """A score of 1 in the image's units."""
        with np.errstate(over="ignore"):
            return float(
                np.power(self.data.normalisation.scale, 2.0 if self.loss_function.kind == "l2" else 1.0)
            )

    @property
    def image_score(self) -> float:
        """The present held-out score in the image's units; NaN before there is one."""
        return self.score * self.unit


@dataclass(frozen=True)
class SSI:
    """Self-supervised inversion with one network per image.

    Parameters
    ----------
    network
        The architecture.
    hiding, training, head
        See there.
    loss
        The masked loss. None takes L2 or, where noise is cut off or has outliers (`choose_loss`), the
        likelihood of the hidden values under noise whose kind is learned as well (`NoiseLikelihood`), and L1
        as the score.
    lessons
        What the network learns from its own reduced reconstruction (2-D convolutions only); None: nothing.
    augment
        Train on, and average over, the flips and quarter turns that the operator does not notice.
    windows
        How much of a larger image a step looks at; None always takes the whole, as do operators that cannot
        look at a window.
    filters
        Whether the network is also shown the measurement filtered by regularised inverses of the blur
        (`selfinv.learning.inverse_filters`).
    outliers
        Fill in what the blur cannot have made before the network sees it (`selfinv.learning.outliers`), where
        noise is cut off or has outliers; of photon counts such values are left out.
    own_values
        Ask each value itself in the end what it adds, where that can be told
        (`selfinv.learning.own_values`), and all together for how much light there is
        (`selfinv.learning.photometry`).
    adapt
        Take a narrower network where the measurement tells less (`selfinv.learning.capacity`).
    """

    network: UNetSettings
    hiding: Hiding = field(default_factory=Hiding)
    training: Training = field(default_factory=Training)
    head: Head = field(default_factory=Head)
    loss: MaskedLoss | None = None
    lessons: ScaleLessons | None = None
    augment: bool = True
    windows: Windows | None = None
    filters: bool = False
    outliers: bool = False
    own_values: bool = False
    adapt: bool = False

    def planned_steps(self) -> int:
        """The largest number of training steps."""
        return self.training.max_steps

    # ---- the solver contract ----

    def init(self, y: Tensor, operator: Forward, *, seed: int = 0, start: SSIState | None = None) -> SSIState:
        """Normalise the data, set validation values apart and build the network.

        Parameters
        ----------
        start
            A run on another measurement of the same shape: its network goes on with this one, which it has
            been trained for if that run had ended; its answer to this one may fail as any run's.
        """
        if is_on_grid(operator) and (y.ndim - 2 != self.network.ndim or y.shape[1] != self.network.channels):
            raise InputError(
                f"the network takes batch channel *space with {self.network.channels} channels and "
                f"{self.network.ndim} spatial axes, got the shape {tuple(y.shape)}"
            )
        if start is not None:
            missing = ~torch.isfinite(y)
            shown = normalised(y, start.data.normalisation)
            entrance = start.data.entrance
            if entrance.outliers is not None:
                missing = entrance.outliers.left_out(shown, missing)
            if entrance.looks is not None:  # as much is to be hidden as when it was trained
                spare = share_of(start.data.validation | start.data.missing, ~missing)
                entrance = replace(entrance, looks=replace(entrance.looks, spare=spare))
            data = replace(start.data, y=shown, missing=missing, entrance=entrance)
            state = replace(start, data=data, cached=None, recorder=None)  # which refers to the old values
            if self._ended(state):
                state.failure = state.failure or self._failure(state)
            return state
        suited = choose_loss(y) if self.loss is None or self.outliers else self.loss
        data = prepare(
            y,
            operator,
            self.hiding,
            self.network.ndim,
            augment=self.augment,
            filters=self.filters,
            wild=self.outliers and (suited.kind == "l1" or has_outliers(y)),
            robust=suited.kind == "l1",
            seed=seed,
        )
        loss = self.loss or suited
        typical = float(data.y[~(data.missing | data.validation)].median())
        crude = data.entrance.crude
        first = typical if crude is None else float(crude(data.y, data.missing | data.validation).median())
        filters = data.entrance.filters
        network = adapted(self.network, data) if self.adapt else self.network
        if filters:
            network = replace(network, copies=filters.count)
        model = build_inverter(network, self.head, start=first, seed=seed).to(y.device)
        likelihood = None
        lessons = self.lessons if self.lessons and self.lessons.suit(data) else None
        if self.loss is None and (loss.kind == "l1" or lessons):
            likelihood = NoiseLikelihood(data.y, data.missing | data.validation).to(y.device)
        recorder = Recorder(y.device) if self._can_be_recorded(data) else None
        optimiser, schedule = optimiser_and_schedule(
            self.training, model, likelihood, seed, replayed=recorder is not None
        )
        steps = self.training.max_steps
        length = self.training.average * steps
        return SSIState(
            data=data,
            model=model,
            optimiser=optimiser,
            schedule=schedule,
            average=WeightAverage(model, 1 - 1 / max(1.0, length)) if length else None,
            loss_function=loss,
            hiding=self.hiding.spread(self.windows.looks(data, steps) if self.windows else steps),
            seed=seed,
            start_score=float(loss(torch.full_like(data.y, typical), data.y, data.validated)),
            best_weights=_copy(model.state_dict()),
            likelihood=likelihood,
            lessons=lessons if likelihood else None,  # which are to have its noise
            recorder=recorder,
            widths=filling_widths(self.hiding, data, seed) if recorder else 1,
            passes=GraphedPasses(model.network) if _records(y) and recorder is None else None,
        )

    def step(self, state: SSIState) -> SSIState:
        """One training step, and now and then a look at the validation values."""
        if state.failure is not None:
            return state
        loss = self._descend(state)
        state.step += 1
        if state.average is not None:
            state.average.update()
        max_steps = self.training.max_steps
        check_every = self.training.check_every or max(1, max_steps // 10)
        checked = state.step % check_every == 0 or state.step == max_steps
        if state.recorder is None or checked or state.step % ASK_EVERY == 0:
            state.loss = float(loss)
            if not math.isfinite(state.loss):
                state.failure = Status.NONFINITE
                _release(state)
                return state
        if checked:
            self._check(state)
        if isinstance(state.schedule, torch.optim.lr_scheduler.ReduceLROnPlateau):
            state.schedule.step(state.score)
        else:
            state.schedule.step()
        if self._ended(state):
            _release(state)
            state.failure = state.failure or self._failure(state)
        return state

    def status(self, state: SSIState) -> Status:
        """Running, converged, out of steps, or failed and how."""
        if state.failure is not None:
            return state.failure
        if self._out_of_patience(state):
            return Status.CONVERGED
        return Status.MAX_STEPS if self._ended(state) else Status.RUNNING

    def estimate(self, state: SSIState) -> Tensor:
        """The object from the whole measurement with the best weights so far, in the caller's units."""
        if state.best_step == 0 < state.step and state.failure is None:
            self._check(state)  # cancelled before the first look
        if state.cached is None or state.cached[0] != state.best_step:
            data = state.data
            asked = self.own_values and not any(self.hiding.blind_spot)
            x, state.own_values = answer_to_own(
                self.best_model(state), data, state.loss_function, asked=asked
            )
            if asked:
                state.light = light_factors(x, data, state.loss_function)
            x = brightened(x, state.light)
            x = for_operator(data.operator, data.object_normalisation.undo(x))
            if isinstance(data.operator, WithinDomain):
                x = data.operator.within(x)
            state.cached = (state.best_step, x)
        return state.cached[1]

    def best_model(self, state: SSIState) -> Inverter:
        """The network with the weights of the best held-out score."""
        return self._model_with(state.best_weights, state)

    # ---- blind predictions ----

    def predict(
        self,
        state: SSIState,
        y: Tensor,
        hidden: Tensor,
        pads: Any,
        operator: Forward,
        symmetry: Symmetry | Rearrangement,
    ) -> tuple[Tensor, Tensor]:
        """The measurement as predicted without its ``hidden`` values, and the head's penalty.

        Every value that is ever scored is predicted here; it depends on ``y`` only where ``hidden`` is False.
        """
        if self.hiding.scheme is None:  # the control sees everything
            hidden = torch.zeros_like(hidden)
        generator = generator_for(state.seed + 4, state.step)
        seen = self._entrance(state)(y, hidden, pads, self.network.marks, generator)
        if self.training.input_noise and state.model.training:
            amplitude = 0.1 / (1.0 + 10_000.0 * state.step / self.training.max_steps)
            noise = torch.randn(seen.shape, generator=generator_for(state.seed + 1, state.step))
            seen = seen + amplitude * noise.to(seen)
        x, penalty = state.model.with_penalty(symmetry(seen), state.passes if state.model.training else None)
        forward = replace(state.data.forward_model, operator=operator)
        return forward(symmetry.inverse(x)), penalty

    def _descend(self, state: SSIState) -> Tensor:
        """Move the weights a step down the loss; what it was before."""
        data, run = state.data, state.recorder or launched
        if not state.model.training:
            state.model.train()
        state.optimiser.zero_grad(set_to_none=state.recorder is None)
        window = self._window(state, state.seed + 6)
        drawn = draw_hidden(state.hiding, window.see(data.y), data.operator, state.step, state.seed)
        generator = generator_for(state.seed + 5, state.step)
        symmetry = data.symmetries[int(torch.randint(len(data.symmetries), (1,), generator=generator))]
        tables = []
        if state.recorder is not None:
            turned = Rearrangement.of(symmetry, data.object_shape, data.y.device)
            tables = [turned.there, turned.back]

        def measured(drawn: Tensor, *tables: Tensor) -> Tensor:
            loss = self._loss(state, window, drawn, Rearrangement(*tables) if tables else symmetry)
            loss.backward()
            return loss.detach()

        def taught(x: Tensor, hidden: Tensor, generator: torch.Generator) -> Tensor:
            loss = self._lesson_loss(state, Lesson(x, hidden), generator)
            loss.backward()
            return loss.detach()

        loss: Tensor = run("measured", measured, drawn, *tables)
        lesson = self._lesson(state)
        if lesson is not None:
            noise = generator_for(state.seed + 13, state.step, data.y.device)
            loss = loss + run("taught", taught, lesson.object, lesson.hidden, generator=noise)
        run("weights", state.optimiser.step)
        return loss

    def _loss(
        self, state: SSIState, window: Window, drawn: Tensor, symmetry: Symmetry | Rearrangement
    ) -> Tensor:
        """Of what is predicted without the values ``drawn`` from the window's, and of the weights."""
        data, training = state.data, self.training
        y, missing, validation = (window.see(t) for t in (data.y, data.missing, data.validation))
        prediction, penalty = self.predict(
            state,
            y,
            self.hiding.concealed(drawn | validation) | missing,
            window.pads,
            window.operator,
            symmetry,
        )
        # What is never hidden is not blind, but far above the noise; nothing else would hold it.
        always = always_shown_of(data.operator, y)
        scored = (drawn | always if self.hiding.scheme is not None else ~drawn) & ~validation & ~missing
        target, places = window.score(y), window.score(scored)
        loss = penalty
        if state.likelihood is None or state.loss_function.kind == "l2":
            loss = loss + state.loss_function(prediction, target, places)
            prediction = prediction.detach()  # the likelihood then only learns what noise lessons are to have
        if state.likelihood is not None:
            loss = loss + state.likelihood(prediction, target, places)
        l2 = training.weight_decay if training.optimiser == "noisy-adam" else 0.0  # AdamW decays by itself
        if training.l1 or l2:
            loss = loss + weight_penalty(state.model, training.l1, l2)
        if training.kernel_continuity:
            loss = loss + training.kernel_continuity * kernel_roughness(state.model.network)
        return loss

    def _window(self, state: SSIState, seed: int) -> Window:
        """What the present step looks at."""
        progress = state.step / self.training.max_steps
        size = self.windows.values(state.data, progress) if self.windows else None
        return draw_window(state.data, size, self.network.multiple(), seed, state.step)

    def _lesson(self, state: SSIState) -> Lesson | None:
        """What the present step teaches besides, if anything."""
        lessons = state.lessons
        if lessons is None or not lessons.due(state.step, self.training.max_steps):
            return None
        if state.lesson is None or state.step - state.lesson_step >= lessons.renew:
            state.lesson, state.lesson_step = self._reconstruct(state), state.step
        multiple = max(state.model.network.settings.multiple())
        recorded = state.recorder is not None
        return lessons.draw(state.lesson, state.data, multiple, state.seed, state.step, recorded=recorded)

    def _lesson_loss(self, state: SSIState, lesson: Lesson, generator: torch.Generator) -> Tensor:
        assert state.lessons is not None
        assert state.likelihood is not None
        data = replace(state.data, entrance=self._entrance(state))
        shape = lesson.object.shape[2:]
        operator = state.instruments.get(shape) or instrument(data, shape)
        if state.recorder is not None:  # what an operator keeps cannot be made while recording
            state.instruments[shape] = operator
        loss = state.lessons.teach(state.model, lesson, data, operator, state.likelihood, generator)
        return state.lessons.weight * loss

    def _entrance(self, state: SSIState) -> Entrance:
        """While steps are recorded nothing may depend on values, as how far a filling has to look does."""
        entrance = state.data.entrance
        recorded = state.recorder is not None and state.model.training
        return replace(entrance, widths=state.widths) if recorded else entrance

    @torch.no_grad()
    def _reconstruct(self, state: SSIState) -> Tensor:
        """The object in a window as the averaged weights see it now, without the validation values."""
        data = state.data
        window = self._window(state, state.seed + 9)
        y, missing, validation = (window.see(t) for t in (data.y, data.missing, data.validation))
        weights = state.average.average if state.average else state.model.state_dict()
        hidden = self.hiding.concealed(validation) | missing
        model = self._averaged(weights, state)
        return TrainedInverse(model, window.pads, data.symmetries, data.entrance)(y, hidden, most=4)

    @torch.no_grad()
    def _check(self, state: SSIState) -> None:
        """Score the (averaged) weights on the validation values and keep them if they are the best."""
        data, current = state.data, state.model
        weights = current.state_dict() if state.average is None else state.average.average
        state.model = self._averaged(weights, state) if state.average else current.eval()
        prediction, _ = self.predict(
            state,
            data.y,
            self.hiding.concealed(data.validation) | data.missing,
            data.pads,
            data.operator,
            data.symmetries[0],
        )
        state.model = current
        costs = state.loss_function.each((prediction - data.y)[data.validated])
        state.score = float(costs.mean())
        state.history.append((state.step, state.loss, state.score))
        if not math.isfinite(state.score):
            state.failure = Status.NONFINITE
            return
        better = state.score < state.lowest_score
        if better or self._no_worse(costs, state.lowest_costs):
            state.best_score, state.best_step = state.score, state.step
            state.best_weights = _copy(weights)
        if better:
            state.lowest_score, state.lowest_costs = state.score, costs

    def _no_worse(self, costs: Tensor, lowest: Tensor) -> bool:
        """Whether later weights are to be kept although earlier ones had a (slightly) lower score.

        A one-cycle schedule ends in finer weights than it passes through, and what the operator hides from
        the score gains from them too: so the latest are kept unless the same validation values, compared one
        by one, tell them from the best by more than three standard errors (there are some ten looks); a
        single value tells nothing.
        """
        if self.training.schedule != "one-cycle":
            return False
        if costs.numel() == 1:
            return True
        worse = costs - lowest
        return float(worse.mean()) <= 3.0 * float(worse.std()) / math.sqrt(worse.numel())

    # ---- preparation and ending ----

    def _can_be_recorded(self, data: Measurement) -> bool:
        """Whether no step on these data asks for a value, or looks at another part of them."""
        return (
            _records(data.y)
            and can_be_replayed(data.operator)
            and data.entrance.crude is None
            and (self.windows is None or self.windows.last >= data.object_values)
            and self.hiding.scheme is not None
            and self.hiding.fill == "neighbours"
            and self.training.optimiser == "muon"
            and self.training.schedule == "one-cycle"
            and not self.training.input_noise
        )

    def _averaged(self, weights: dict[str, Tensor], state: SSIState) -> Inverter:
        """A second network to look at these weights with; always the same one."""
        if state.averaged is None:
            state.averaged = self._model_with(weights, state)
        else:
            state.averaged.load_state_dict(weights)
        return state.averaged

    def _model_with(self, weights: dict[str, Tensor], state: SSIState) -> Inverter:
        model = build_inverter(state.model.network.settings, self.head)
        model.load_state_dict(weights)
        return model.eval().to(state.data.y.device)

    def _out_of_patience(self, state: SSIState) -> bool:
        patience = self.training.patience
        return patience is not None and state.step - state.best_step >= patience

    def _ended(self, state: SSIState) -> bool:
        return state.step >= self.training.max_steps or self._out_of_patience(state)

    def _failure(self, state: SSIState) -> Status | None:
        if not state.best_score < state.start_score:
            return Status.WORSE_THAN_START
        estimate = self.estimate(state)
        if not bool(torch.isfinite(estimate).all()):
            return Status.NONFINITE
        data = state.data
        image = data.entrance.crude(data.y, data.missing) if data.entrance.crude else data.y
        return Status.CHECKERBOARD if has_checkerboard(for_network(data.operator, estimate), image) else None


def _records(y: Tensor) -> bool:
    return y.is_cuda and y.device.index == torch.cuda.current_device()  # torch records that one alone


def _release(state: SSIState) -> None:
    """Give back what only training needs."""
    state.instruments.clear()
    for recorded in (state.recorder, state.passes):
        if recorded is not None:
            recorded.release()


def _copy(weights: dict[str, Tensor]) -> dict[str, Tensor]:
    return {name: value.detach().clone() for name, value in weights.items()}
