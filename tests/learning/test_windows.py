"""Windows: a part of the measurement is predicted exactly as the whole would be."""

from __future__ import annotations

from dataclasses import replace

import torch

from selfinv.learning.measurement import Measurement, object_pads
from selfinv.learning.normalisation import Normalisation
from selfinv.learning.symmetry import grid_symmetries
from selfinv.learning.windows import Windows, draw_window
from selfinv.operators import Convolution, Identity
from selfinv.operators.boundary import reflect


def measurement(operator, shape, batch=1):
    y = torch.rand(batch, 1, *shape, dtype=torch.float64)
    nothing = torch.zeros_like(y, dtype=torch.bool)
    pads = object_pads(operator, shape)
    return Measurement(
        y,
        nothing,
        nothing,
        operator,
        pads,
        Normalisation(0, 1),
        Normalisation(0, 1),
        tuple(grid_symmetries(len(shape))),
    )


KERNEL = torch.rand(4, 7, generator=torch.Generator().manual_seed(1), dtype=torch.float64)


def test_a_window_of_the_object_predicts_its_part_of_the_measurement():
    shape = (70, 90)
    data = measurement(Convolution(KERNEL, shape, "unknown"), shape)
    whole_object = reflect(data.y, data.pads)  # any object will do; this one is known everywhere
    whole = data.operator(whole_object)
    seen = torch.zeros(shape)
    for step in range(300):
        window = draw_window(data, 40 * 40, (8, 8), seed=0, step=step)
        region = window.see(data.y)
        local_object = reflect(region, window.pads)
        assert all(n % 8 == 0 for n in local_object.shape[2:])
        predicted = window.operator(local_object)
        rows, columns = (
            slice(r.start + c.start, r.start + c.stop)
            for r, c in zip(window.region, window.core, strict=True)
        )
        assert torch.allclose(predicted, whole[..., rows, columns], atol=1e-12)
        assert torch.equal(window.score(region), data.y[..., rows, columns])
        seen[rows, columns] += 1
    assert (seen > 0).all(), "every value is trained on, also at the edges"


def test_a_window_knows_that_nothing_is_outside():
    """Boundary zero: at the image's edges as in its middle, windows predict what the whole image would."""
    shape = (70, 90)
    data = measurement(Convolution(KERNEL, shape, "zero"), shape)
    whole = data.operator(data.y)
    seen = torch.zeros(shape)
    for step in range(300):
        window = draw_window(data, 40 * 40, (8, 8), seed=0, step=step)
        region = window.see(data.y)
        assert window.pads == ((0, 0), (0, 0))
        rows, columns = (
            slice(r.start + c.start, r.start + c.stop)
            for r, c in zip(window.region, window.core, strict=True)
        )
        assert torch.allclose(window.operator(region), whole[..., rows, columns], atol=1e-12)
        seen[rows, columns] += 1
    assert (seen > 0).all(), "every value is trained on, also at the edges"


def test_small_images_and_operators_without_windows_are_taken_whole():
    shape = (30, 30)
    for operator in (Convolution(KERNEL, shape, "unknown"), Convolution(KERNEL, shape, "reflect")):
        data = measurement(operator, shape)
        size = 10_000 if operator.boundary == "unknown" else 100
        window = draw_window(data, size, (8, 8), seed=0, step=0)
        assert window.see(data.y).shape == data.y.shape
        assert window.operator is operator


def test_thin_volumes_keep_their_whole_depth():
    shape = (6, 80, 80)
    data = measurement(Identity(shape), shape)
    window = draw_window(data, 6 * 32 * 32, (2, 8, 8), seed=0, step=0)
    assert window.see(data.y).shape[2:] == (6, 32, 32)


def test_time_series_are_trained_on_a_frame_at_a_time():
    shape = (32, 32)
    data = measurement(Identity(shape), shape, batch=5)
    frames = {draw_window(data, 32 * 32, (8, 8), seed=0, step=step).frames.start for step in range(40)}
    assert frames == set(range(5))


def test_frames_with_a_psf_each_are_trained_on_together():
    """A frame drawn alone met the PSFs of all: a series of more than one window could not be restored."""
    shape, psfs = (70, 90), torch.stack([KERNEL, KERNEL.flip(0), KERNEL.flip(1)])[:, None]
    for boundary in ("zero", "reflect"):  # with windows, and without
        data = measurement(Convolution(psfs, shape, boundary), shape, batch=3)
        window = draw_window(data, 3 * 40 * 40, (8, 8), seed=0, step=0)
        predicted = window.operator(reflect(window.see(data.y), window.pads))
        assert predicted.numel() <= 3 * 40 * 40 or boundary == "reflect"
        rows, columns = (
            slice(r.start + c.start, r.start + c.stop)
            for r, c in zip(window.region, window.core, strict=True)
        )
        assert torch.allclose(predicted, data.operator(data.y)[..., rows, columns], atol=1e-12)
    windows = Windows(first=400, last=400, share=0.01)
    assert windows.looks(data, 8) == 8


def test_windows_grow_from_a_part_to_the_whole():
    windows = Windows(first=100, last=1600, share=0.01, growth=(0.5, 0.9))
    assert [windows.size(p, 10_000) for p in (0.0, 0.5, 0.7, 0.9, 1.0)] == [100, 100, 400, 1600, 1600]
    assert windows.size(1.0, 900) == 900
    assert {windows.size(p, 64) for p in (0.0, 0.7, 1.0)} == {64}
    assert windows.size(0.0, 40_000) == 400  # a hundredth of it


def test_windows_grow_in_few_steps_so_that_memory_is_used_again():
    windows = Windows(first=100, last=1600, share=0.01)
    sizes = [windows.size(step / 300, 10_000) for step in range(300)]
    assert sizes == sorted(sizes)
    assert len(set(sizes)) == 1 + windows.stages


def test_how_often_a_value_is_looked_at_counts_what_steps_take():
    shape, windows = (40, 40), Windows(first=400, last=400, share=0.01)
    cut = measurement(Convolution(KERNEL, shape, "zero"), shape)
    assert windows.looks(cut, 8) == 8 * 400 / 1600
    assert windows.looks(measurement(Convolution(KERNEL, shape, "reflect"), shape), 8) == 8
    assert windows.looks(replace(cut, y=cut.y.expand(5, -1, -1, -1)), 8) == 8 * 400 / 8000
