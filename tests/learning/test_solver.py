"""The solver: it restores, knows its failures, and the paper's recipe is the paper's."""

from __future__ import annotations

import math
import warnings
from dataclasses import replace

import numpy as np
import pytest
import torch
from scipy.ndimage import gaussian_filter
from skimage import data

import selfinv
from selfinv.learning import (
    SSI,
    Decaying,
    Head,
    Hiding,
    RandomPixels,
    Training,
    Windows,
    ssi,
    ssi_paper,
    ssi_unmasked,
)
from selfinv.learning.inverter import Inverter
from selfinv.learning.losses import MaskedLoss
from selfinv.learning.unet import UNetSettings
from selfinv.operators import Convolution
from selfinv.psf import gaussian
from selfinv.solvers import Status, run
from selfinv.types import InputError

TINY = UNetSettings(widths=(4, 4), kernels=(3,))


def tiny(**training) -> SSI:
    return SSI(network=TINY, training=Training(**{"max_steps": 8, **training}))


def blurred(shape=(32, 32), seed=0):
    operator = Convolution(gaussian((1.2, 1.2)), shape, "unknown").float()
    generator = torch.Generator().manual_seed(seed)
    x = torch.rand(1, 1, *operator.in_shape, generator=generator).round()
    y = operator(x) + 0.1 * torch.randn(1, 1, *shape, generator=generator)
    return y, operator


def test_it_brings_a_blurred_noisy_photograph_closer_to_the_truth():
    """The main job, small: better than the input by far, and as good as the blur without the noise."""
    truth = selfinv.noise.normalise_minmax(data.coins()[64:192, 64:192])
    psf = gaussian((1.5, 1.5))
    blurry, noisy = selfinv.noise.benchmark_degradation(truth, psf)
    result = selfinv.restore(noisy, psf, max_steps=120)
    assert not result.status.failed
    psnr = {
        name: selfinv.metrics.psnr(truth, np.clip(image, 0, 1))
        for name, image in (("noisy", noisy), ("blurry", blurry), ("restored", result.image))
    }
    assert psnr["restored"] > psnr["noisy"] + 5
    assert psnr["restored"] > psnr["blurry"] - 0.5


def test_masking_keeps_noise_out_that_the_control_lets_in():
    """Denoising (g = identity): unmasked training may copy the noise, masked training cannot.

    Of the networks alone: what is made of a value's own measurement comes after them.
    """
    truth = selfinv.noise.normalise_minmax(data.coins()[64:160, 64:160])
    masked = replace(ssi(truth.shape, 1, steps=100), own_values=False)
    errors, shared = {}, {}
    for name, solver in (("masked", masked), ("unmasked", replace(masked, hiding=Hiding(scheme=None)))):
        squared, correlations = [], []
        for seed in range(3):
            noise = 0.1 * np.random.default_rng(seed).normal(size=truth.shape)
            error = selfinv.restore(truth + noise, method=solver, seed=seed).image - truth
            squared.append(np.square(error).mean())
            correlations.append(np.corrcoef(error.ravel(), noise.ravel())[0, 1])
        errors[name], shared[name] = np.mean(squared), np.mean(correlations)
    assert errors["masked"] < 0.4 * 0.1**2  # of the noise's variance
    assert errors["masked"] < errors["unmasked"]
    assert shared["masked"] < 0.15
    assert shared["unmasked"] > 0.25


def test_the_papers_recipe_has_the_papers_numbers():
    recipe = ssi_paper((512, 512), 1)
    assert recipe.network.widths == (8, 16, 32, 64, 64)
    assert recipe.network.kernels == (5, 3)
    assert recipe.hiding.scheme == RandomPixels(Decaying(0.5, 0.01, 0.005))
    assert recipe.hiding.fill == "zero"
    assert recipe.hiding.validation == 0.1
    assert recipe.loss is not None
    assert recipe.loss.kind == "l2"
    training = recipe.training
    assert (training.max_steps, training.patience, training.learning_rate) == (3000, 300, 0.01)
    assert (training.optimiser, training.schedule, training.weight_decay) == ("noisy-adam", "plateau", 1e-6)
    assert training.input_noise
    assert recipe.head == Head("clamp", overshoot=0.1)
    assert ssi_unmasked((512, 512), 1).hiding.scheme is None
    assert replace(ssi_unmasked((9, 9), 1), hiding=recipe.hiding).training == recipe.training


def test_a_clamped_value_can_come_back():
    """The paper's code clamps before the PSF, which stops the gradient of every value outside [0, 1]."""
    inverter = Inverter(TINY, Head("clamp"))
    x = torch.randn(1, 1, 16, 16)
    with torch.no_grad():
        inverter.network.last.bias.fill_(10.0)  # far above the range
    out, penalty = inverter.with_penalty(x)
    assert out.max() <= 1
    overshoot = float((inverter.network(x).detach() - 1).clamp_min(0).mean())
    assert float(penalty.detach()) == pytest.approx(0.1 * overshoot**2, rel=1e-4)
    out.sum().backward()
    assert inverter.network.last.bias.grad.abs().sum() > 0


def test_the_learned_range_follows_an_object_brighter_than_its_blurred_image():
    operator = Convolution(gaussian((1.5, 1.5)), (64, 64), "unknown").float()
    x = torch.zeros(1, 1, *operator.in_shape)
    x[..., 10::16, 10::16] = 10.0
    view = (..., *operator.field_of_view)
    solver = ssi(operator.in_shape, 1, steps=250)
    fluxes = []
    for seed in range(3):  # single runs of so few steps on so few stars differ by a few per cent
        noise = torch.randn(1, 1, 64, 64, generator=torch.Generator().manual_seed(seed))
        y = operator(x) + 0.01 * noise
        state, _ = run(solver, y, operator, seed=seed)
        estimate = solver.estimate(state)
        assert estimate[view].max() > 1.7 * y.max()
        fluxes.append(float(estimate[view].sum() / x[view].sum()))
    assert sorted(fluxes)[1] == pytest.approx(1, abs=0.05)


def test_early_stopping_keeps_the_best_weights():
    y, operator = blurred()
    solver = tiny(
        max_steps=400, patience=12, check_every=3, schedule="plateau", average=0.0, learning_rate=0.2
    )
    state, status = run(solver, y, operator, restarts=0)
    assert status in (Status.CONVERGED, Status.WORSE_THAN_START, Status.CHECKERBOARD)
    assert state.step < 400
    assert state.best_score == min(score for _, _, score in state.history)
    assert (state.best_step, state.best_score) in [(step, score) for step, _, score in state.history]


def test_of_a_line_of_16_values_one_cannot_tell_when_to_stop():
    """A single value is validated by: the last weights are kept, without torch's words about deviations."""
    line = np.arange(16) + np.random.default_rng(0).normal(0, 1, 16)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        result = selfinv.restore(line, method="ssi-network", max_steps=20)
    assert result.stats["best_step"] == 20


def test_a_run_that_becomes_nan_is_started_again_and_told():
    y, operator = blurred()
    explode = {"left": 1}

    def fragile(x):  # a forward model that breaks down in the first attempt only
        if explode["left"] and torch.is_grad_enabled():
            explode["left"] -= 1
            return operator(x) * float("nan")
        return operator(x)

    fragile_operator = Wrapped(operator, fragile)
    solver = tiny(max_steps=60, learning_rate=0.02)
    state, status = run(solver, y, fragile_operator, seed=5)
    assert not status.failed
    assert len(status.failed_attempts) == 1
    assert "NaN" in status.failed_attempts[0]
    assert "seed 5" in status.failed_attempts[0]
    assert state.seed != 5
    assert math.isfinite(state.best_score)


class Wrapped(Convolution):
    """A convolution whose forward pass is replaced."""

    def __init__(self, operator, function):
        super().__init__(operator.psf, operator.out_shape, operator.boundary)
        self.function = function

    def forward(self, x):
        return self.function(x)

    def window(self, shape):
        return None


def test_a_run_that_fails_with_every_seed_says_so_and_what_to_do():
    """A forward model that has nothing to do with the image never beats a constant."""
    y, operator = blurred()
    wrong = Wrapped(operator, lambda x: 0 * operator(x) + 100)
    solver = tiny(max_steps=5)
    state, status = run(solver, y, wrong, restarts=1)
    assert status == Status.WORSE_THAN_START
    assert status.failed
    assert len(status.failed_attempts) == 1
    assert "psf" in status.advice
    assert torch.isfinite(solver.estimate(state)).all()


def test_weights_and_kernels_can_be_regularised():
    y, operator = blurred()
    plain, _ = run(tiny(), y, operator)
    for option in ({"l1": 1e-2}, {"kernel_continuity": 10.0}):
        other, _ = run(tiny(**option), y, operator)
        assert other.loss > plain.loss


def test_missing_values_are_neither_seen_nor_scored():
    y, operator = blurred()
    y[..., 5:9, 20:24] = float("nan")
    results = []
    for junk in (float("nan"), float("inf")):
        z = y.clone()
        z[torch.isnan(y)] = junk
        solver = tiny()
        state, _ = run(solver, z, operator, restarts=0)
        results.append(solver.estimate(state))
    assert torch.isfinite(results[0]).all()
    assert torch.equal(*results)


def test_torchs_global_random_numbers_are_left_alone():
    y, operator = blurred()
    torch.manual_seed(3)
    expected = torch.rand(3)
    torch.manual_seed(3)
    run(tiny(), y, operator)
    assert torch.equal(torch.rand(3), expected)


def test_a_network_for_other_data_is_refused():
    y, operator = blurred()
    with pytest.raises(InputError, match="1 channels and 2 spatial axes, got the shape"):
        tiny().init(y.expand(1, 2, 32, 32), operator)


@pytest.mark.parametrize("gain", [0.5, 2.0])
def test_objects_come_back_in_their_own_units_whatever_the_operators_gain(gain):
    truth = torch.from_numpy(selfinv.noise.normalise_minmax(data.coins()[64:128, 64:128])) * 500 + 1000
    blur = Convolution(gaussian((1.0, 1.0)), truth.shape, "reflect").float()
    y = gain * blur(truth)
    y = y + 5 * torch.randn(y.shape, generator=torch.Generator().manual_seed(0))
    result = selfinv.restore(y.numpy(), operator=gain * blur, max_steps=60)
    assert result.image.mean() == pytest.approx(float(truth.mean()), rel=0.02)


def test_nothing_outside_does_not_bend_the_level_inside():
    """A bright, even object that ends at the frame: its blurred image fades at the edges, it does not."""
    truth = np.full((48, 48), 1000.0)
    truth[20:28, 20:28] = 1200.0
    operator = Convolution(gaussian((2.0, 2.0)), truth.shape, "zero").float()
    y = operator(torch.from_numpy(truth).float()).numpy() + np.random.default_rng(0).normal(
        0, 10, truth.shape
    )
    result = selfinv.restore(y, gaussian((2.0, 2.0)), max_steps=120)
    assert result.stats["boundary"] == "zero"
    edge = np.concatenate([result.image[0], result.image[-1], result.image[:, 0], result.image[:, -1]])
    assert edge.mean() == pytest.approx(1000, rel=0.08)
    assert y[0].mean() < 700


def test_steps_see_parts_of_a_large_image_first_and_all_of_it_in_the_end():
    seen = []

    class Watched(RandomPixels):
        def hidden(self, shape, step, seed, device):
            seen.append(math.prod(shape))
            return super().hidden(shape, step, seed, device)

    y, operator = blurred((64, 64))
    solver = replace(tiny(max_steps=20), hiding=Hiding(Watched(0.5)), windows=Windows(24 * 24, 10**6))
    run(solver, y, operator, restarts=0)
    assert max(seen[:10]) < 40 * 40
    assert len(set(seen)) > 3
    assert seen[18:] == [y.numel()] * 2


@pytest.mark.parametrize(
    "windows", [None, Windows(24 * 24, 10**6)], ids=["the whole in each step", "parts at first"]
)
def test_a_long_run_hides_each_value_no_more_often_than_asked_for(windows):
    """How much noise a network learns by heart goes by how often it is asked for it."""
    hidden = []

    class Watched(RandomPixels):
        def hidden(self, shape, step, seed, device):
            hidden.append(super().hidden(shape, step, seed, device))
            return hidden[-1]

    y, operator = blurred((64, 64))
    times = []
    for most in (3.0, math.inf):
        hidden.clear()
        solver = replace(tiny(max_steps=20), hiding=Hiding(Watched(0.5), most=most), windows=windows)
        run(solver, y, operator, restarts=0)
        times.append(sum(float(h.sum()) for h in hidden) / y.numel())
    assert times[0] == pytest.approx(3, rel=0.1)
    assert times[1] > 4


def test_short_runs_hide_as_much_at_a_time_as_ever():
    y, operator = blurred((64, 64))
    for steps, density in ((200, 0.25), (1000, 0.1)):
        state = (solver := ssi((64, 64), 1, steps=steps)).init(y, operator)
        assert state.hiding.scheme == RandomPixels(density)
        assert solver.hiding.scheme == RandomPixels(0.25)


def test_what_was_left_out_stays_so_where_a_run_goes_on():
    """Of counts with values that no blur makes, in the run that goes on with all others, too."""
    rng = np.random.default_rng(0)
    counts = rng.poisson(gaussian_filter(rng.random((64, 64)) * 4.0, 2.0)).astype(float)
    wild = np.zeros(counts.shape, dtype=bool)
    wild[rng.integers(4, 60, 40), rng.integers(4, 60, 40)] = True
    y = torch.from_numpy(np.where(wild, 60.0, counts))[None, None]
    operator = Convolution(gaussian((2.0, 2.0)), (64, 64), "unknown").float()
    solver = replace(tiny(max_steps=2), outliers=True, loss=MaskedLoss("l2"))
    left_out = []
    state = solver.init(y, operator)
    while solver.status(state) == Status.RUNNING:
        state = solver.step(state)
    for here in (state, solver.init(y, operator, start=state)):
        left_out.append(here.data.missing[0, 0].numpy())
    assert left_out[0][wild].mean() > 0.5
    assert np.array_equal(*left_out)


def test_a_chequered_answer_to_all_values_is_a_failure_where_a_run_goes_on_with_them(monkeypatch):
    """Only its answer to those that it was trained on was looked at."""
    y, operator = blurred()
    solver = tiny(max_steps=20)
    state, status = run(solver, y, operator, restarts=0)
    assert not status.failed
    assert not solver.status(solver.init(y, operator, start=state)).failed
    monkeypatch.setattr("selfinv.learning.solver.has_checkerboard", lambda x, image: True)
    assert solver.status(solver.init(y, operator, start=state)) == Status.CHECKERBOARD
