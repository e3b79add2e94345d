"""Lessons at a coarser scale: sized for the network, only in their time, without touching statistics."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
from skimage import data
from skimage.transform import resize

from selfinv.learning import ssi
from selfinv.learning.equivariance import ScaleLessons, reduced
from selfinv.learning.unet import UNet, UNetSettings, frozen_statistics
from selfinv.operators import Convolution


def test_a_reduced_object_is_the_image_made_smaller():
    image = data.camera()[:256, :256].astype(np.float64) / 255
    x = torch.from_numpy(image)[None, None]
    small = reduced(x, 0.5, 16)
    assert small.shape == (1, 1, 128, 128)
    expected = resize(image, (128, 128), order=3, anti_aliasing=True)
    assert np.abs(small[0, 0].numpy() - expected)[4:-4, 4:-4].mean() < 0.01


def test_sizes_suit_the_network_and_what_is_too_small_is_left_out():
    x = torch.rand(1, 1, 100, 75)
    sizes = set()
    for scale in np.linspace(0.4, 0.9, 20):
        small = reduced(x, scale, 16)
        if 75 * scale < 32:
            assert small is None
        else:
            assert all(n % 16 == 0 and n >= 32 for n in small.shape[2:])
            sizes.add(tuple(small.shape[2:]))
    assert len(sizes) > 2
    assert reduced(torch.rand(1, 1, 30, 30), 0.8, 16) is None


def test_lessons_have_their_time():
    lessons = ScaleLessons(begin=0.25, end=0.7)
    due = [step for step in range(100) if lessons.due(step, 100)]
    assert due == list(range(26, 70))


def test_statistics_stay_those_of_the_data():
    net = UNet(UNetSettings(widths=(4, 4), kernels=(3,))).train()
    before = {k: v.clone() for k, v in net.state_dict().items() if "running" in k}
    with frozen_statistics(net):
        net(torch.rand(1, 1, 32, 32))
    assert all(torch.equal(v, net.state_dict()[k]) for k, v in before.items())
    net(torch.rand(1, 1, 32, 32))
    assert not all(torch.equal(v, net.state_dict()[k]) for k, v in before.items())


def test_lessons_that_are_recorded_have_few_shapes_and_lie_both_ways():
    operator = Convolution(torch.full((3, 3), 1 / 9), (96, 160), "zero")
    y = torch.rand(1, 1, 96, 160, generator=torch.Generator().manual_seed(0))
    measurement = ssi(operator.in_shape, 1, steps=2).init(y, operator, seed=0).data
    lessons = ScaleLessons()

    def shapes(recorded):
        drawn = [lessons.draw(y, measurement, 16, 0, step, recorded=recorded) for step in range(60)]
        return {tuple(lesson.object.shape[2:]) for lesson in drawn}

    few = shapes(recorded=True)
    assert len(few) == lessons.few
    assert len(shapes(recorded=False)) == 2 * lessons.sizes  # each lies both ways
    assert {rows < columns for rows, columns in few} == {True, False}


@pytest.mark.parametrize("boundary", ["zero", "unknown"])
def test_lessons_change_the_training_and_never_see_validation_values(boundary):
    shape = (96, 96)
    kernel = torch.rand(5, 4, generator=torch.Generator().manual_seed(0))  # no symmetry at all
    operator = Convolution(kernel / kernel.sum(), shape, boundary)
    generator = torch.Generator().manual_seed(1)
    y = operator(torch.rand(1, 1, *operator.in_shape, generator=generator).round())
    y = y + 0.1 * torch.randn(y.shape, generator=generator)
    solver = ssi(operator.in_shape, 1, steps=10)
    network = replace(solver.network, widths=(4, 4), pooled_axes=None)
    solver = replace(solver, network=network)
    weights = {}
    for name, change, lessons in (
        ("with", 0.0, solver.lessons),
        ("other validation values", 0.3, solver.lessons),
        ("without", 0.0, None),
    ):
        taught = replace(solver, lessons=lessons)
        state = taught.init(y, operator, seed=0)
        state.data.y[state.data.validation] += change
        for _ in range(8):
            state = taught.step(state)
        weights[name] = torch.cat([p.detach().flatten() for p in state.model.parameters()])
    assert torch.equal(weights["with"], weights["other validation values"])
    assert not torch.equal(weights["with"], weights["without"])
