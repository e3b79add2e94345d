"""Windows: a part of the measurement is predicted exactly as the whole would be."""

from __future__ import annotations

import pytest
import torch

from selfinv.learning.measurement import Measurement, draw_validation, draw_window, object_pads
from selfinv.learning.normalisation import Normalisation
from selfinv.learning.symmetry import grid_symmetries
from selfinv.operators import Convolution, Identity
from selfinv.operators.boundary import reflect
from selfinv.types import InputError


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


def test_the_validation_set_has_its_size_is_fixed_and_never_empty():
    everything = torch.ones((1, 2, 100, 100), dtype=torch.bool)
    chosen = draw_validation(everything, 0.1, seed=0, joint_channels=False)
    assert chosen.double().mean().item() == pytest.approx(0.1, abs=0.01)
    assert torch.equal(chosen, draw_validation(everything, 0.1, seed=0, joint_channels=False))
    assert draw_validation(everything[..., :4, :4], 1e-9, seed=0, joint_channels=False).any()


def test_of_few_lines_enough_that_were_measured_are_validated_on():
    measured = torch.zeros((1, 1, 60, 20), dtype=torch.bool)
    measured[:, :, ::3, 5:] = True  # 20 lines, in part
    chosen = draw_validation(measured, 0.02, seed=0, joint_channels=False, together=(-1,))
    lines = chosen.any(-1).flatten()
    assert lines.sum() == 2
    assert torch.equal(chosen[..., lines, :], measured[..., lines, :])
    with pytest.raises(InputError, match="no measured value can be hidden"):
        draw_validation(torch.zeros_like(measured), 0.02, seed=0, joint_channels=False)


def test_an_operator_for_another_shape_is_refused_with_both_shapes():
    with pytest.raises(InputError, match=r"shape \(8, 8\).*spatial shape \(9, 9\)"):
        object_pads(Identity((8, 8)), (9, 9))
