"""Held-out values choose what the truth would: settings, methods, and what is mixed."""

from __future__ import annotations

import itertools
import math
from dataclasses import dataclass, field, replace

import numpy as np
import pytest
import torch
from scipy.ndimage import gaussian_filter, uniform_filter
from skimage.data import brick

import selfinv
from selfinv import psf
from selfinv.comparison import table
from selfinv.held_out import hold_out
from selfinv.learning.losses import MaskedLoss
from selfinv.operators import Convolution, Identity
from selfinv.selection import Candidate, SelfTuned
from selfinv.solvers import Status, iterate, run
from selfinv.solvers.chambolle_pock import ChambollePock
from selfinv.solvers.conjugate_gradient import ConjugateGradient
from selfinv.solvers.richardson_lucy import RichardsonLucy
from selfinv.solvers.wiener import Wiener
from selfinv.trials import SIGNIFICANT, difference
from selfinv.types import InputError

L2 = MaskedLoss("l2")
SIDE = 64
BLUR = torch.from_numpy(psf.gaussian(1.5, (9, 9))).float()


def noise(*shape, seed=0, deviation=1.0):
    return deviation * torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def blocks():
    x = torch.full((1, 1, SIDE, SIDE), 20.0)
    x[..., 8:32, 10:42] = 100.0
    x[..., 36:58, 8:21] = 60.0
    x[..., 32:42, 32:59] = 140.0
    return x


def psnr(x, truth):
    return 10 * math.log10(float(truth.max()) ** 2 / float((x - truth).square().mean()))


@dataclass
class Level:
    """The state of a solver whose estimate is a constant."""

    y: torch.Tensor
    value: float
    start: Level | None = None
    seed: int = 0
    step: int = 0
    loss: float = 0.0
    score: float = math.nan


@dataclass(frozen=True)
class Constant:
    """Estimates a constant after so many steps, and notes what it is given.

    It fails with the seeds it is told to, and plans ``spare`` steps that it never takes.
    """

    value: float
    steps: int = 2
    spare: int = 20
    fails: tuple[int, ...] = ()
    refuses: bool = False
    given: list = field(default_factory=list, compare=False)

    def planned_steps(self):
        return self.steps + self.spare

    def init(self, y, operator, *, seed=0, start=None):
        if self.refuses:
            raise InputError("this is not for me")
        state = Level(y, self.value, start, seed)
        self.given.append(state)
        return state

    def step(self, state):
        return replace(state, step=state.step + 1)

    def status(self, state):
        if state.seed in self.fails and state.step >= self.steps:
            return Status.NONFINITE
        return Status.MAX_STEPS if state.step >= self.steps else Status.RUNNING

    def estimate(self, state):
        return torch.full_like(state.y, self.value)


def constants(name="level", first=64.0, **settings):
    """A candidate whose weight is the constant it estimates, and the list of what it was given."""
    given = []
    return Candidate(name, lambda w: Constant(w, given=given, **settings), "weight", first), given


def fixed(name, value, **settings):
    solver = Constant(value, **settings)
    return Candidate(name, lambda _: solver)


def data(level=5.0, side=24, seed=0):
    return level + noise(1, 1, side, side, seed=seed)


def tune(y, *candidates, operator=None, callback=None, seed=0, **settings):
    solver = SelfTuned(candidates, loss=L2, **settings)
    operator = operator or 1.0 * Identity(y.shape[2:])  # of which nothing special is known
    state, status = run(solver, y, operator, seed=seed, callback=callback, restarts=0)
    return solver, state, status


# ---- nobody sees them ----


def test_in_the_search_no_solver_is_given_a_hidden_value_and_in_the_end_all():
    y = data()
    candidate, given = constants()
    _, state, _ = tune(y, candidate)
    *search, final = given
    assert len(search) > 4
    assert len(search) % len(state.folds) == 0
    for level, fold in zip(search, itertools.cycle(state.folds)):  # every setting without each of the sets
        torch.testing.assert_close(level.y, fold.shown, equal_nan=True, rtol=0.0, atol=0.0)
        assert torch.isnan(level.y[fold.hidden]).all()
    assert torch.equal(final.y, y)


def test_where_nothing_is_blurred_each_setting_is_also_tried_on_all_values_but_not_scored_by_that():
    y = data()
    candidate, given = constants()
    _, state, _ = tune(y, candidate, operator=Identity(y.shape[2:]))
    count = len(state.folds) + 1
    assert all(torch.equal(level.y, y) for level in given[count - 1 :: count])
    _, blind, _ = tune(y, constants()[0])
    assert [trial.score for trial in state.trials] == [trial.score for trial in blind.trials]
    assert all(math.isnan(trial.tuned_by) for trial in blind.trials)


@pytest.mark.parametrize(("side", "folds"), [(24, 5), (96, 5), (128, 3), (400, 1)])
def test_small_images_have_several_sets_of_hidden_values_without_one_in_common(side, folds):
    _, state, _ = tune(data(side=side), constants()[0])
    assert len(state.folds) == folds
    times_hidden = sum(fold.hidden.int() for fold in state.folds)
    assert int(times_hidden.max()) == 1
    assert state.trials[0].costs.numel() == int(times_hidden.sum())  # all are scored, each once
    assert all(fold.loss == state.held_out.loss for fold in state.folds)


def test_what_takes_long_to_train_is_trained_once():
    _, state, _ = tune(data(), constants()[0], fixed("network", 5.0))
    assert len(state.folds) == 1


@pytest.mark.parametrize("name", ["chambolle-pock", "conjugate-gradient"])
@pytest.mark.parametrize("fold", [0, 3])
def test_no_prediction_depends_on_the_values_of_its_own_set(name, fold):
    """Changing what one set hides changes its costs alone by what the score sees of the change."""
    operator = Convolution(BLUR, (24, 24), "unknown")
    y = operator(100 * torch.rand(1, 1, *operator.in_shape, generator=torch.Generator().manual_seed(0)))
    solve = {
        "chambolle-pock": lambda w: ChambollePock(w, max_steps=10),
        "conjugate-gradient": lambda w: ConjugateGradient(w, max_steps=5),
    }[name]

    def predictions(values):
        """Of the hidden values of the fold, from the costs of the first trial."""
        solver = SelfTuned((Candidate("tv", solve, "weight", 2.0),), loss=L2)
        for state in iterate(solver, values, operator):
            if state.trials:
                break
        counts = [int(f.hidden.sum()) for f in state.folds]
        return state.folds[fold].hidden, state.trials[0].costs.split(counts)[fold]

    hidden, costs = predictions(y)
    # Twice as far on the other side: had a prediction moved, the costs would tell.
    _, up = predictions(torch.where(hidden, y + 30.0, y))
    _, down = predictions(torch.where(hidden, y - 30.0, y))
    torch.testing.assert_close((up + down) / 2 - costs, torch.full_like(costs, 900.0), rtol=1e-3, atol=1e-2)


REAL = {
    "chambolle-pock": Candidate("tv", lambda _: ChambollePock(2.0, max_steps=20)),
    "conjugate-gradient": Candidate("tv", lambda _: ConjugateGradient(2.0, max_steps=10)),
    "wiener": Candidate("wiener", lambda _: Wiener(max_steps=10)),
    "richardson-lucy": Candidate(
        "rl", lambda _: RichardsonLucy(max_steps=20), "steps", reference=Wiener(max_steps=10)
    ),
}


@pytest.mark.parametrize("name", REAL)
def test_changing_hidden_values_changes_nothing_of_what_is_found_without_them(name):
    operator = Convolution(BLUR, (24, 24), "unknown")
    y = operator(100 * torch.rand(1, 1, *operator.in_shape, generator=torch.Generator().manual_seed(0)))
    hidden = hold_out(y, seed=11).hidden  # what a run with the seed 0 hides
    found = []
    for values in (y, torch.where(hidden, 3 * y + noise(*y.shape, deviation=50.0).abs(), y)):
        solver = SelfTuned((REAL[name], fixed("next", 5.0)), loss=L2)
        for state in iterate(solver, values, operator):
            if state.trials:
                break
        assert torch.equal(state.held_out.hidden, hidden)
        found.append((solver.estimate(state), state.trials[0].setting, state.trials[0].score))
    assert torch.equal(found[0][0], found[1][0])
    np.testing.assert_equal(found[0][1], found[1][1])
    assert found[0][2] < found[1][2]  # the score is what looks at them


@pytest.mark.parametrize("seed", [0, 1])
def test_where_the_first_has_no_advantage_a_hint_is_enough(seed):
    y, better = data(level=5.0), fixed("better", 5.0)
    hints = 0
    for value in np.linspace(4.0, 4.9, 10):
        first = fixed("first", float(value))
        _, cautious, _ = tune(y, first, better, seed=seed)
        _, free, _ = tune(y, first, better, seed=seed, cautious=False)
        d = difference(cautious.best["first"], cautious.best["better"])
        hints += d.error < d.mean <= 3.0 * d.error
        assert cautious.chosen.name == ("better" if d.mean > 3.0 * d.error else "first")
        assert free.chosen.name == ("better" if d.mean > d.error else "first")
    assert hints


# ---- a mean of several methods ----


LOW, HIGH = fixed("low", 4.0), fixed("high", 8.0)


def test_weights_sum_to_one_and_the_result_is_the_mean_with_them():
    y = data(level=5.0)
    solver, state, status = tune(y, LOW, HIGH, fixed("higher", 9.0), mixed_beyond=SIGNIFICANT)
    assert str(status).startswith("finished")
    weights = state.mixture.weights
    assert sum(weights.values()) == pytest.approx(1.0)
    assert weights["high"] == pytest.approx(0.125, abs=0.03)  # half of the way from 4 to 5
    values = {"low": 4.0, "high": 8.0, "higher": 9.0}
    expected = sum(w * values[name] for name, w in weights.items())
    assert torch.allclose(solver.estimate(state), torch.full_like(y, expected))
    assert solver.end(state)[0].value == values[state.chosen.name]
    assert "| mean | 0." in table(state)
    assert state.mixture.trial.score < state.chosen.score
    _, alone, _ = tune(y, LOW, HIGH)
    assert alone.mixture is None


@dataclass(frozen=True)
class Unfit(Constant):
    """Takes what is shown, but not the whole: refuses it, or fails."""

    how: str = "fails"

    def init(self, y, operator, *, seed=0, start=None):
        whole = bool(torch.isfinite(y).all())
        if whole and self.how == "refuses":
            raise InputError("not all at once")
        return super().init(y, operator, seed=-1 if whole and self.how == "fails" else seed)

    def estimate(self, state):
        wild = self.how == "is infinite" and bool(torch.isfinite(state.y).all())
        return torch.full_like(state.y, math.inf if wild else self.value)


@pytest.mark.parametrize("how", ["fails", "refuses", "is infinite"])
def test_what_cannot_be_solved_in_the_end_is_left_out_of_the_mixture(how):
    y = data(level=5.0)
    unfit = Candidate("unfit", lambda _: Unfit(8.0, fails=(-1,), how=how))
    solver, state, status = tune(y, LOW, unfit, mixed_beyond=SIGNIFICANT)
    assert not status.failed
    assert torch.equal(solver.estimate(state), torch.full_like(y, 4.0))
    assert state.mixture is None
    assert "unfit" in state.skipped


def test_a_run_cancelled_before_all_parts_are_there_does_not_call_itself_a_mixture():
    y = data(level=5.0)
    stop = lambda progress: not progress.phase.startswith("final")  # noqa: E731
    solver, state, status = tune(y, LOW, HIGH, mixed_beyond=SIGNIFICANT, callback=stop)
    assert status.name == "cancelled"
    assert state.mixture is None
    assert torch.equal(solver.estimate(state), torch.full_like(y, 4.0))


# ---- tuning ----


def test_the_search_goes_from_strong_to_weak_and_then_looks_closer():
    candidate, given = constants()
    _, state, status = tune(data(), candidate)
    settings = [trial.setting for trial in state.trials]
    assert settings == pytest.approx([64, 32, 16, 8, 4, 2, 1, 4 / math.sqrt(2), 4 * math.sqrt(2)])
    assert state.chosen.setting == pytest.approx(4 * math.sqrt(2))  # the nearest to 5
    assert state.chosen.score == min(trial.score for trial in state.trials)
    assert status == Status.CONVERGED
    assert "chosen by held-out values" in str(status)
    tried = [level.value for level in given[: -1 : len(state.folds)]]
    assert [*tried, given[-1].value] == pytest.approx([*settings, state.chosen.setting])


def test_if_the_first_setting_is_the_best_stronger_ones_are_tried_too():
    candidate, _ = constants(first=2.0)
    _, state, status = tune(data(40.0), candidate)
    settings = [trial.setting for trial in state.trials]
    root = math.sqrt(2)
    assert settings == pytest.approx([2, 1, 0.5, 4, 8, 16, 32, 64, 32 / root, 32 * root])
    assert state.chosen.setting == pytest.approx(32 * root)
    assert status == Status.CONVERGED


def test_each_solve_starts_where_a_stronger_one_ended():
    candidate, given = constants(first=16.0)
    tune(data(side=300), candidate)
    assert [level.value for level in given[:5]] == [16.0, 8.0, 4.0, 2.0, 1.0]
    starts = [level.start for level in given]
    assert starts[0] is None
    assert [start.value for start in starts[1:]] == [16.0, 8.0, 4.0, 2.0, 4.0, 4.0, 4.0]
    assert all(start.step == 2 for start in starts[1:])  # an end, not a beginning


def test_the_tuned_weight_is_as_good_as_the_best_that_the_truth_would_choose():
    """Blurred blocks with Gaussian noise: the mean loss of three images is below 0.3 dB."""
    truth, deviation = blocks(), 8.0
    operator = Convolution(BLUR, (SIDE, SIDE), "zero")

    def solver(weight):
        return ChambollePock(weight, max_steps=40)

    losses = []
    for seed in range(3):
        y = operator(truth) + noise(*truth.shape, seed=seed, deviation=deviation)
        tuned, state, _ = tune(y, Candidate("tv", solver, "weight", 4 * deviation), operator=operator)
        weights = np.geomspace(2 * deviation, deviation / 16, 11)
        ends = [run(solver(float(w)), y, operator)[0] for w in weights]
        quality = [psnr(solver(1.0).estimate(end), truth) for end in ends]
        assert 0 < int(np.argmax(quality)) < len(weights) - 1  # the grid holds the best
        losses.append(max(quality) - psnr(tuned.estimate(state), truth))
    assert max(losses) < 0.6
    assert np.mean(losses) < 0.3


def test_the_tuned_weight_of_denoising_is_as_good_as_the_best():
    truth, deviation = blocks(), 15.0
    losses = []
    for seed in range(3):
        y = truth + noise(*truth.shape, seed=seed, deviation=deviation)
        candidate = Candidate("tv", lambda w: ChambollePock(w, max_steps=40), "weight", 4 * deviation)
        tuned, state, _ = tune(y, candidate, operator=Identity((SIDE, SIDE)))
        quality = []
        for weight in np.geomspace(3 * deviation, deviation / 4, 9):
            solver = ChambollePock(float(weight), max_steps=40)
            quality.append(psnr(solver.estimate(run(solver, y, Identity((SIDE, SIDE)))[0]), truth))
        losses.append(max(quality) - psnr(tuned.estimate(state), truth))
    assert max(losses) < 0.8
    assert np.mean(losses) < 0.3


@pytest.mark.filterwarnings("ignore:the weight of .* leaves next to nothing")  # the larger ones
@pytest.mark.parametrize(("photons", "deviation"), [(1.0, 0.0), (0.0, 0.1), (0.0, 0.03)])
def test_the_tuned_weight_of_denoising_is_right_for_values_that_are_shown(photons, deviation):
    """What predicts hidden values best leaves single photons, and faint noise, in those that are shown."""
    image = gaussian_filter(brick()[::2, ::2].astype(float), 1.0)[64:192, 64:192]
    image = (image - image.min()) / np.ptp(image)
    rng = np.random.default_rng(0)
    truth = image * photons if photons else image
    y = rng.poisson(truth).astype(float) if photons else truth + rng.normal(0.0, deviation, truth.shape)
    result = selfinv.restore(y, method="tv-chambolle-pock")
    weights = result.stats["weight"] * np.geomspace(0.25, 8.0, 11)
    errors = [
        float(np.mean((selfinv.restore(y, method="tv-chambolle-pock", weight=w).image - truth) ** 2))
        for w in weights
    ]
    assert 10 * np.log10(np.mean((result.image - truth) ** 2) / min(errors)) < 0.5


def test_richardson_and_lucy_stop_where_the_truth_would_stop_them():
    truth = 0.3 * blocks()
    operator = Convolution(BLUR, (SIDE, SIDE), "zero")
    for seed in range(3):
        y = torch.poisson(operator(truth).clamp_min(0), generator=torch.Generator().manual_seed(seed))
        candidate = Candidate("rl", lambda _: RichardsonLucy(max_steps=100), "steps", reference=Wiener())
        tuned, state, status = tune(y, candidate, operator=operator)
        quality = {s.step: psnr(s.x, truth) for s in iterate(RichardsonLucy(max_steps=40), y, operator)}
        assert status == Status.CONVERGED
        assert state.inner.step == state.chosen.setting
        assert psnr(tuned.estimate(state), truth) > max(quality.values()) - 0.2
        assert max(quality.values()) > quality[40] + 1.0  # it would have made a difference


@dataclass(frozen=True)
class Walk(Constant):
    """Estimates the number of its step, from ``value`` on."""

    def estimate(self, state):
        return torch.full_like(state.y, self.value + state.step)


def test_iterations_are_counted_by_the_distance_to_a_reference():
    walk = Walk(-3.0, steps=50)
    candidate = Candidate("walk", lambda _: walk, "steps", reference=Constant(5.2))
    _, state, status = tune(data(), candidate)
    assert state.chosen.setting == 8
    assert state.inner.step == 8
    assert status == Status.CONVERGED
    with pytest.raises(InputError, match="give a reference"):
        tune(data(), Candidate("walk", lambda _: walk, "steps"))


def test_iterations_without_a_finite_estimate_are_not_chosen():
    broken = Candidate("broken", lambda _: Walk(math.nan, steps=6), "steps", reference=Wiener(max_steps=3))
    _, state, status = tune(data(), fixed("plain", 5.0), broken)
    assert state.chosen.name == "plain"
    assert not status.failed


# ---- choosing ----


def test_the_first_is_kept_unless_another_is_better_by_three_standard_errors():
    y = data()
    near, good, bad = fixed("near", 5.03), fixed("good", 5.0), fixed("bad", 6.0)
    assert tune(y, near, good)[1].chosen.name == "near"
    assert tune(y, good, near)[1].chosen.name == "good"
    assert tune(y, bad, good)[1].chosen.name == "good"
    assert tune(y, bad, near, good)[1].chosen.name == "near"  # the first that is not worse than the best
    solver, state, _ = tune(y, bad, good)
    assert torch.equal(solver.estimate(state), torch.full_like(y, 5.0))
    assert state.solver == good.solver(0.0)


@pytest.mark.parametrize(("margin", "chosen"), [(0.0, "second"), (0.01, "second"), (0.05, "first")])
def test_what_the_score_cannot_see_is_allowed_for_by_a_margin(margin, chosen):
    """The first explains 3 % less of the image than the second, beyond any doubt."""
    truth = torch.linspace(0.0, 10.0, 300).repeat(300, 1)[None, None]
    off = math.sqrt(0.03 * float(truth.var()))

    class Ramp(Constant):
        def estimate(self, state):
            return truth + self.value

    first = Candidate("first", lambda _: Ramp(off), margin=margin)
    second = Candidate("second", lambda _: Ramp(0.0))
    _, state, _ = tune(truth + 0.01 * noise(1, 1, 300, 300), first, second)
    assert state.chosen.name == chosen


def test_each_candidate_is_tuned_before_it_is_compared():
    candidate, _ = constants("tuned", first=20.0)
    _, state, _ = tune(data(), fixed("fixed", 9.0), candidate)
    assert state.chosen.name == "tuned"
    assert set(state.best) == {"fixed", "tuned"}
    assert state.best["tuned"].setting == pytest.approx(5.0)


def test_what_is_far_behind_is_not_tuned_to_the_end_but_what_may_win_is():
    def settings(other, first=64.0):
        _, state, _ = tune(data(), fixed("fixed", other), constants("tuned", first=first)[0])
        return [trial.setting for trial in state.trials if trial.name == "tuned"]

    # 4 and 5.7 are the nearest to 5: both are far behind 5 itself, and 4 is far better than 9.
    assert settings(5.0) == [64, 32, 16, 8, 4, 2]
    assert settings(9.0) == pytest.approx([64, 32, 16, 8, 4, 2, 1, 4 / math.sqrt(2), 4 * math.sqrt(2)])
    assert settings(5.0, first=1.0) == [1, 0.5, 2, 4, 8]  # the best is still looked for


def test_a_candidate_that_fails_is_tried_again_and_then_left_out():
    y = data()
    failing = fixed("failing", 5.0, fails=(0, 7919, 15838))
    _, state, status = tune(y, failing, fixed("plain", 6.0))
    assert state.chosen.name == "plain"
    assert not status.failed
    assert state.failures == ["failing: the numbers became NaN or infinite"] * 3
    assert state.best["failing"].score == math.inf
    assert "| failing | - | failed | left out |" in table(state)
    assert str(status.after(*state.failures)).endswith(
        "(after 3 failed: failing: the numbers became NaN or infinite, 3 times)"
    )

    lucky, told = fixed("lucky", 5.0, fails=(0,)), []
    solver, state, _ = tune(y, lucky, fixed("plain", 6.0), callback=told.append)
    assert {p.attempt for p in told if p.phase == "lucky"} == {1, 2}
    assert state.chosen.name == "lucky"
    assert len(state.failures) == 1
    assert torch.equal(solver.estimate(state), torch.full_like(y, 5.0))


def test_failing_again_and_again_does_not_use_up_the_steps_of_the_others():
    failing = fixed("failing", 5.0, fails=(0, 7919, 15838), steps=50, spare=0)
    solver, state, status = tune(data(), failing, fixed("plain", 6.0, steps=10, spare=0))
    assert status == Status.CONVERGED
    assert state.chosen.name == "plain"
    assert state.step <= solver.planned_steps()


@pytest.mark.parametrize("steps", [1, 2, 30])
@pytest.mark.parametrize("level", [0.0, 5.0, 64.0])
def test_the_plan_is_long_enough_for_the_search(steps, level):
    candidate, _ = constants(steps=steps, spare=0)
    solver, state, status = tune(data(level), candidate)
    assert status == Status.CONVERGED
    assert state.step <= solver.planned_steps()


def test_settings_that_fail_are_not_chosen():
    given = []
    candidate = Candidate("level", lambda w: Constant(w if w < 30 else math.nan, given=given), "weight", 40.0)
    solver, state, status = tune(data(), candidate)
    assert math.isfinite(state.chosen.score)
    assert not status.failed
    assert torch.isfinite(solver.estimate(state)).all()


def test_if_all_fail_that_is_said():
    fails = (0, 7919, 15838)
    _, state, status = tune(data(), fixed("a", 5.0, fails=fails), fixed("b", 5.0, fails=fails))
    assert status == Status.NONFINITE
    assert status.failed
    assert len(state.failures) == 6


def test_what_a_later_candidate_cannot_take_is_noted_and_what_the_first_cannot_is_an_error():
    refusing = fixed("refusing", 5.0, refuses=True)
    _, state, status = tune(data(), fixed("plain", 6.0), refusing, fixed("third", 5.0))
    assert state.skipped == {"refusing": "this is not for me"}
    assert state.chosen.name == "third"
    assert status == Status.CONVERGED
    solver = SelfTuned((refusing, fixed("plain", 6.0)), loss=L2)
    with pytest.raises(InputError, match="this is not for me"):
        solver.init(data(), Identity((24, 24)))


def test_there_has_to_be_a_candidate():
    with pytest.raises(InputError, match="no method to choose from"):
        SelfTuned(())


def test_the_seed_decides_everything():
    y = blocks() + noise(1, 1, SIDE, SIDE, deviation=15.0)
    candidate = Candidate("tv", lambda w: ChambollePock(w, max_steps=15), "weight", 20.0)
    ends = [tune(y, candidate, seed=seed) for seed in (3, 3, 4)]
    estimates = [solver.estimate(state) for solver, state, _ in ends]
    scores = [[trial.score for trial in state.trials] for _, state, _ in ends]
    assert torch.equal(estimates[0], estimates[1])
    assert scores[0] == scores[1]
    assert scores[0] != scores[2]


# ---- progress and ending early ----


def test_a_callback_is_told_which_part_is_going_on_and_how_far_it_is():
    seen = []
    candidate, _ = constants(first=8.0)
    tune(data(), candidate, fixed("plain", 9.0, steps=3), callback=lambda p: seen.append((p, p.estimate())))
    phases = list(dict.fromkeys(p.phase for p, _ in seen))
    assert phases[:2] == ["level, weight 8", "level, weight 4"]
    assert phases[-2:] == ["plain", "final"]
    for phase in phases:
        steps = [(p.step, p.max_steps) for p, _ in seen if p.phase == phase]
        taken = 3 if phase == "plain" else 2
        assert {of for _, of in steps} == {taken + 20}
        assert list(dict.fromkeys(step for step, _ in steps)) == list(range(steps[0][0], taken + 1))
    assert all(torch.isfinite(image).all() for _, image in seen)


@pytest.mark.parametrize("how", ["return False", "ctrl-c"])
@pytest.mark.parametrize(
    ("phase", "best"),
    [("level, weight 64", 64.0), ("level, weight 32", 64.0), ("level, weight 1", 4.0), ("final", 4 * 2**0.5)],
)
def test_ending_early_keeps_the_best_so_far(how, phase, best):
    def callback(progress):
        if progress.phase == phase and progress.step == 1:
            if how == "ctrl-c":
                raise KeyboardInterrupt
            return False
        return None

    y = data()
    candidate, _ = constants()
    solver, state, status = tune(y, candidate, callback=callback)
    assert status == Status.CANCELLED
    assert not status.failed
    torch.testing.assert_close(solver.estimate(state), torch.full_like(y, best))
    assert len(table(state).splitlines()) >= 2 if state.trials else True


def test_ending_in_the_last_solve_is_no_worse_than_ending_before_it():
    truth = 0.3 * blocks()
    operator = Convolution(BLUR, (SIDE, SIDE), "zero")
    y = torch.poisson(operator(truth).clamp_min(0), generator=torch.Generator().manual_seed(0))
    candidate = Candidate("rl", lambda _: RichardsonLucy(max_steps=50), "steps", reference=Wiener())
    kept = []

    def callback(progress):
        kept.append(progress.estimate())
        return progress.phase != "final"

    solver, state, status = tune(y, candidate, operator=operator, callback=callback)
    assert status == Status.CANCELLED
    assert psnr(solver.estimate(state), truth) > psnr(kept[-2], truth) - 0.3


def test_of_a_search_ended_in_the_last_solve_the_table_tells_what_the_image_is_by():
    """That is the best so far, not the one preferred to it."""
    candidates = fixed("first", 5.1), fixed("best", 5.0)
    solver, state, _ = tune(data(), *candidates, callback=lambda progress: progress.phase != "final")
    assert state.chosen.name == "first"
    assert state.trial.name == "best"
    assert float(solver.estimate(state).mean()) == 5.0
    assert next(line for line in table(state).splitlines() if "| chosen |" in line).startswith("| best |")
    solver, state, _ = tune(data(), *candidates)
    assert state.trial.name == "first"


def lines_and_noise():
    truth = np.zeros((96, 96))
    for place in range(6, 96, 9):
        truth[place, 10 + place // 3 : 60 + place // 3] = 1.0
    noisy = truth + 0.03 * np.random.default_rng(0).standard_normal(truth.shape)
    return truth, torch.from_numpy(noisy)[None, None]


class Blurs(Wiener):
    """Takes lines for noise."""

    def estimate(self, state):
        return torch.from_numpy(uniform_filter(super().estimate(state).numpy(), (1, 1, 9, 9)))


@pytest.mark.parametrize("keeps", [False, True])
def test_a_method_that_takes_lines_for_noise_is_not_taken_if_another_keeps_them(keeps):
    truth, y = lines_and_noise()
    candidates = (
        Candidate("blurs", lambda _: Blurs(), margin=math.inf),
        Candidate("keeps", lambda _: Wiener()),
    )
    state, status = run(SelfTuned(candidates, keeps_detail=keeps, loss=L2), y, Identity((96, 96)))
    assert not status.failed
    assert state.chosen.name == ("keeps" if keeps else "blurs")
    solver = SelfTuned(candidates)
    error = (solver.estimate(state) - torch.from_numpy(truth)).square().mean()
    assert (float(error) < 0.03**2) is keeps
    assert ("stands out of the noise" in state.skipped.get("blurs", "")) is keeps


class Shown(Constant):
    """What it is shown, and a constant in place of the rest."""

    def estimate(self, state):
        return state.y.nan_to_num(self.value)


def test_the_table_tells_that_the_best_prediction_had_lost_detail():
    """It said that the difference between both was too small to matter."""
    truth, y = lines_and_noise()
    dark, shown = fixed("dark", truth.mean()), Candidate("shown", lambda _: Shown(-5.0))
    _, state, _ = tune(y, dark, shown, operator=Identity((96, 96)), keeps_detail=True)
    assert (state.trial.name, state.best["dark"].score < state.best["shown"].score) == ("shown", True)
    *_, last = table(state).splitlines()
    assert last == "dark was left out: what it takes away stands out of the noise, as fine detail does."
    assert "is kept, although" not in table(state)


def test_where_none_keeps_them_the_chosen_one_stays():
    _, y = lines_and_noise()
    both = [Candidate(name, lambda _: Blurs()) for name in ("first", "second")]
    state, _ = run(SelfTuned(tuple(both), keeps_detail=True, loss=L2), y, Identity((96, 96)))
    assert state.chosen.name == "first"
    assert state.skipped == {}
