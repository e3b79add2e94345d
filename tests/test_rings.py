"""Offsets of detector pixels are found and do no harm."""

from __future__ import annotations

import numpy as np
import pytest
import torch

import selfinv
from selfinv.operators import Identity, Radon
from selfinv.types import InputError, SelfinvWarning

ANGLES = np.arange(24) * 7.5
A = Radon((40, 40), ANGLES, circle=True)


def projections(offsets, slices=1):
    x = np.zeros((40, 40))
    x[9:20, 12:28], x[24:30, 14:18] = 1.0, 2.0
    rng = np.random.default_rng(0)
    y = A(torch.from_numpy(x)).numpy() + offsets * rng.standard_normal(40)
    return x, y + 0.2 * rng.standard_normal((slices, *A.out_shape))


@pytest.mark.filterwarnings("ignore:detector pixels")
def test_what_is_found_is_how_much_more_means_vary_than_by_chance():
    x, y = projections(0.4)
    found = selfinv.without_rings(y[0], A)
    assert found.sinogram.shape == y[0].shape
    assert 1 / 4 < found.excess / (1 + 24 * 0.4**2 / 0.2**2) < 4
    with pytest.warns(SelfinvWarning, match="without_rings"):
        selfinv.restore(y[0], operator=A, method="wiener", weight=1.0)
    off = [
        np.sqrt(np.mean((selfinv.restore(v, operator=g, method="tv-chambolle-pock").image - x) ** 2))
        for v, g in ((y[0], A), (found.sinogram, found.operator))
    ]
    assert off[1] < 0.6 * off[0]


def test_where_there_are_none_nothing_is_changed():
    _, y = projections(0.0, slices=3)
    found = selfinv.without_rings(y, A)
    assert found.excess == 1.0
    assert found.operator is A
    assert np.array_equal(found.sinogram, y)


def test_all_slices_of_a_stack_are_weighed_alike():
    _, y = projections(0.4, slices=3)
    y[1] = 0.0  # nothing there to tell them by
    found = selfinv.without_rings(y, A)
    assert found.excess > 10.0
    each = [found.operator.outer(torch.from_numpy(one)).numpy() for one in y]
    np.testing.assert_allclose(found.sinogram, each, atol=1e-12)


def test_a_run_that_is_cancelled_gives_nothing():
    with pytest.raises(KeyboardInterrupt):
        selfinv.without_rings(projections(0.0)[1], A, callback=lambda progress: False)


@pytest.mark.parametrize(
    ("y", "operator", "words"),
    [
        (np.zeros((24, 39)), A, "shape"),
        (np.full((24, 40), np.nan), A, "not finite"),
        (np.zeros((24, 40)), Identity((24, 40)), "no Radon"),
        (np.zeros((24, 40), complex), A, "expected real values"),
        (np.zeros((0, 24, 40)), A, "expected real values"),
    ],
)
def test_what_has_no_rings(y, operator, words):
    with pytest.raises(InputError, match=words):
        selfinv.without_rings(y, operator)
