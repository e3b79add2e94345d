"""The table of what was tried for an image, and why one was chosen."""

from __future__ import annotations

import math
from dataclasses import dataclass

import pytest
import torch

from selfinv.comparison import table
from selfinv.learning.losses import MaskedLoss
from selfinv.operators import Convolution
from selfinv.psf import gaussian
from selfinv.selection import Candidate, SelfTuned
from selfinv.solvers import run
from selfinv.solvers.conjugate_gradient import ConjugateGradient
from selfinv.solvers.wiener import Wiener
from selfinv.trials import SIGNIFICANT
from selfinv.types import InputError


def wiener(margin=0.0):
    return Candidate("wiener", lambda _: Wiener(), margin=margin)


VARIATION = Candidate("variation", lambda w: ConjugateGradient(w, max_steps=30), "weight", 8.0)
FLAT = Candidate("flat", lambda _: ConjugateGradient(1e6, max_steps=5))


def compared(*candidates, noise=2.0, **settings):
    """The state, the lines, and the cells of each row."""
    x = torch.full((1, 1, 48, 48), 20.0)
    x[..., 10:30, 12:40] = 100.0
    operator = Convolution(torch.from_numpy(gaussian(1.5, (9, 9))).float(), (48, 48), "reflect")
    y = operator(x) + noise * torch.randn(x.shape, generator=torch.Generator().manual_seed(0))
    solver = SelfTuned(candidates, loss=MaskedLoss("l2"), **settings)
    state, _ = run(solver, y, operator, seed=0, restarts=0)
    lines = table(state).splitlines()
    rows = [
        [cell.strip() for cell in line.strip("|").split("|")] for line in lines[2:] if line.startswith("|")
    ]
    return state, lines, rows


def test_it_tells_what_was_tried_and_why():
    state, lines, rows = compared(wiener(), FLAT, VARIATION)
    assert lines[0].startswith(
        "| method | setting | held-out score (lower is better) | against the chosen one (± standard error"
    )
    assert [row[0] for row in rows] == ["variation", "wiener", "flat"]
    scores = [float(row[2]) for row in rows]
    assert scores == sorted(scores)
    cells = {row[0]: row[1:] for row in rows}
    assert cells["variation"][0] == f"weight {state.best['variation'].setting:.3g}"
    assert cells["variation"][-1] == "chosen"
    assert cells["wiener"][0] == "-"
    assert "no significant" not in cells["flat"][2]
    worse = float(cells["flat"][2].split("±")[0])
    assert worse == pytest.approx(state.best["flat"].score - state.best["variation"].score, rel=0.01)


@dataclass(frozen=True)
class Choosy(Wiener):
    """Takes no balance below 1."""

    def init(self, y, operator, **given):
        if self.balance < 1.0:
            raise InputError("this is too little")
        return super().init(y, operator, **given)


def test_what_takes_no_part_is_not_told_of_and_what_gave_up_is():
    refusing = Candidate("refusing", lambda _: Choosy(0.01))
    state, lines, rows = compared(FLAT, refusing)
    assert state.skipped == {"refusing": "this is too little"}
    assert [row[0] for row in rows] == ["flat"]
    assert not any("left out" in line for line in lines)
    in_part = Candidate("in part", Choosy, "balance", 2.0)
    state, lines, rows = compared(FLAT, in_part)
    assert len(state.trials) > 1
    assert state.chosen.name == "flat"
    assert [row[0] for row in rows] == ["flat"]
    assert lines[-1] == "in part was left out: this is too little."


def test_of_a_weighted_mean_it_tells_how_much_better_that_is():
    state, lines, rows = compared(wiener(), VARIATION, noise=5.0, mixed_beyond=SIGNIFICANT)
    assert next(row for row in rows if row[-1] == "chosen")[1] == str(state.mixture)
    gain = state.trial.score - state.mixture.trial.score
    assert lines[-1].startswith(
        f"The result is a weighted mean: its score is lower by {gain:.3g} than that of {state.trial.name}"
    )


def test_it_says_so_where_the_first_is_kept_although_another_predicts_better():
    _, lines, rows = compared(wiener(margin=math.inf), VARIATION)
    assert [row[0] for row in rows] == ["variation", "wiener"]
    assert lines[-1].startswith("wiener is kept, although another method predicts hidden values better")
