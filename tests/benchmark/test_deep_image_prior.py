"""A deep image prior that diverges."""

import numpy as np
import pytest

from selfinv.benchmark.deep_image_prior import deep_image_prior
from selfinv.benchmark.problem import Problem, Watch
from selfinv.held_out import HeldOut
from selfinv.types import InputError


def test_numbers_that_are_none_are_a_failure_that_says_so(monkeypatch):
    costs = HeldOut.costs
    monkeypatch.setattr(HeldOut, "costs", lambda self, prediction: costs(self, prediction) * float("nan"))
    watch = Watch(lambda image: float(image.mean()))
    watch.next_look = 0.0
    image = np.random.default_rng(0).random((48, 48)).astype(np.float32)
    with pytest.raises(InputError, match="became NaN or infinite before any image was kept"):
        deep_image_prior(Problem(image, device="cpu", steps=10, watch=watch))
    assert watch.trace == []
