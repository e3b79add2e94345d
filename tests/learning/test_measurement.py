"""Which values are set apart, and which measurements an operator is for."""

from __future__ import annotations

import pytest
import torch

from selfinv.learning.measurement import draw_validation, object_pads
from selfinv.operators import Identity
from selfinv.types import InputError


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
