"""A plain deep image prior: a network fed fixed noise, stopped where it predicts held-out pixels best."""

from __future__ import annotations

import math
from functools import partial

import torch
from torch import Tensor

from selfinv.benchmark.problem import Problem, Restored
from selfinv.held_out import hold_out
from selfinv.learning.inverter import Head, build_inverter
from selfinv.learning.measurement import gain
from selfinv.learning.normalisation import Normalisation
from selfinv.learning.presets import ssi
from selfinv.learning.random import generator_for
from selfinv.types import InputError

LEARNING_RATE = 0.01
CHECK_EVERY = 10


def deep_image_prior(problem: Problem) -> Restored:
    """The architecture, output bounds and number of steps of ``ssi``, but a fixed random input and plain
    Adam.

    Ulyanov et al. 2018, arXiv:1711.10925, through the forward operator; 2 % of the pixels (at least some
    5000, at most 10 %) are never trained on, and the image that predicts them best is kept.

    Raises
    ------
    InputError
        If there is none, since the numbers became NaN or infinite at once.
    """
    y, A, to_image = problem.forward_model()
    recipe = ssi(A.in_shape, 1, steps=problem.steps)
    steps = recipe.training.max_steps
    held_out = hold_out(y, seed=problem.seed + 11)
    trained_on = torch.isfinite(held_out.shown)
    normalisation = Normalisation.of(held_out.shown)
    units = normalisation.divided_by(gain(A))
    target = torch.where(trained_on, normalisation.apply(y), 0.0).float()
    settings = recipe.network
    model = build_inverter(settings, Head(), start=float(target[trained_on].median()), seed=problem.seed)
    model.to(y.device).train()
    shape = (1, settings.channels + settings.marks, *A.in_shape)
    noise = 0.1 * torch.rand(shape, generator=generator_for(problem.seed)).to(y.device)
    optimiser = torch.optim.Adam(model.parameters(), lr=LEARNING_RATE)
    best_score, best_step = math.inf, 0
    best: Tensor | None = None
    for step in range(1, steps + 1):
        x = units.undo(model(noise))
        prediction = A(x)
        loss = held_out.loss(normalisation.apply(prediction), target, trained_on)
        optimiser.zero_grad(set_to_none=True)
        loss.backward()
        optimiser.step()
        if step % CHECK_EVERY == 0 or step == steps:
            score = float(held_out.costs(prediction.detach()).mean())
            if score < best_score:
                best_score, best_step, best = score, step, x.detach()
            if best is not None:
                problem.watch.look(partial(to_image, best))
    if best is None:
        raise InputError("the numbers became NaN or infinite before any image was kept")
    return Restored(
        to_image(best),
        training_seconds=problem.watch.seconds(),
        steps=steps,
        setting=f"best step {best_step}",
        device=str(y.device),
    )
