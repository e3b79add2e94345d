"""Where measured values are not pixels, the answer is made of parts of them, as training was."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from skimage import data
from skimage.transform import resize

import selfinv
from selfinv.learning.inverter import Looks
from selfinv.learning.presets import ssi
from selfinv.operators import Downsample, Hadamard, MaskedFourier

SHAPE = (32, 32)


def test_each_partition_hides_every_value_once_and_no_two_are_alike():
    y = torch.zeros(1, 1, 64, 64)
    looks = list(Looks(4, 2, spare=0.1).hidden(y, Downsample((128, 128), 2)))
    parts = [part for part, _ in looks]
    assert len(parts) == 2 * 4
    assert (sum(p.int() for p in parts[:4]) == 1).all()
    assert not any(torch.equal(a, b) for a, b in zip(parts[:4], parts[4:], strict=True))
    for part, concealed in looks:
        assert concealed[part].all()
        assert float(concealed[~part].float().mean()) == pytest.approx(0.1, abs=0.03)


def test_a_frequency_is_hidden_whole_and_the_mean_never():
    A = MaskedFourier(SHAPE, torch.ones(SHAPE, dtype=torch.bool))
    for _, hidden in Looks(3, 1, spare=0.2).hidden(torch.zeros(1, 1, *A.out_shape), A):
        assert torch.equal(hidden[..., 0], hidden[..., 1])
        assert not hidden[A.always_shown.expand(hidden.shape)].any()


def test_the_mean_over_parts_is_nearer_to_the_object_than_one_look_at_all():
    truth = resize(data.camera() / 255.0, (64, 64), anti_aliasing=True)
    A = Hadamard(truth.shape, truth.size // 2)
    y = A(torch.from_numpy(truth).float()).numpy()
    y = y + 0.02 * y.std() * np.random.default_rng(0).normal(size=y.shape).astype(np.float32)
    model = selfinv.restore(y, operator=A, method="ssi-network", max_steps=120).model
    error = {
        k is None: np.square(replace(model, looks=k).apply(y) - truth).mean() for k in (None, model.looks)
    }
    assert error[False] < 0.85 * error[True]


def test_fewer_symmetries_are_fewer_looks():
    A = Downsample(SHAPE, 2)
    y = A(torch.rand(1, 1, *SHAPE, generator=torch.Generator().manual_seed(0)))
    solver = ssi(SHAPE, 1, steps=1, pixels=False)
    state = solver.step(solver.init(y, A))
    model, looks = solver.best_model(state), []
    model.network.register_forward_hook(lambda *_: looks.append(1))
    counts = {}
    for most in (8, 1):
        looks.clear()
        state.data.inverse(model)(state.data.y, state.data.missing, most=most)
        counts[most] = len(looks)
    assert counts == {8: 4 * 4, 1: 4}


def test_what_was_hidden_from_a_training_for_comparison_is_as_much_hidden_later():
    A = Downsample((64, 64), 2)
    y = A(torch.rand(1, 1, 64, 64, generator=torch.Generator().manual_seed(0)))
    apart = torch.rand(y.shape, generator=torch.Generator().manual_seed(1)) < 0.1
    solver = ssi((64, 64), 1, steps=1, pixels=False)
    state = solver.init(y.masked_fill(apart, torch.nan), A)
    validated = float((state.data.validation & ~apart).float().mean())
    assert state.data.entrance.looks.spare == pytest.approx(validated / 0.9, rel=0.05)
    later = solver.init(y, A, start=state)
    assert later.data.entrance.looks.spare == pytest.approx(validated + float(apart.float().mean()), rel=0.05)
