"""What is done once before training: nothing is set apart or hidden that must not be, units fit."""

from __future__ import annotations

import pytest
import torch

from selfinv.learning.preparation import draw_hidden, prepare
from selfinv.learning.settings import Hiding
from selfinv.operators import Convolution, Downsample, Identity, LinearOperator, MaskedFourier, Radon

N = 32


def object_like(operator: LinearOperator) -> torch.Tensor:
    blocks = torch.rand(2, 1, N // 4, N // 4, generator=torch.Generator().manual_seed(0))
    x = torch.kron(blocks, torch.ones(4, 4))
    return torch.nn.functional.pad(x, [0, operator.in_shape[1] - N, 0, operator.in_shape[0] - N])


OPERATORS = {
    "identity": lambda: Identity((N, N)),
    "convolution": lambda: Convolution(torch.rand(5, 5) + 0.1, (N, N), "unknown"),
    "radon": lambda: Radon((N, N), range(0, 180, 6)),
    "fourier": lambda: MaskedFourier(
        (N, N), torch.rand(N, N, generator=torch.Generator().manual_seed(1)) < 0.5
    ),
}


@pytest.mark.parametrize("name", OPERATORS)
def test_missing_and_always_shown_values_are_never_set_apart_nor_hidden(name):
    operator = OPERATORS[name]()
    y = operator(object_like(operator)).clone()
    y[0, 0, 3:6] = torch.nan
    if operator.measured is not None:
        y = y.masked_fill(~operator.measured, torch.nan)
    hiding = Hiding()
    data = prepare(y, operator, hiding, 2, augment=True, filters=True, wild=False, robust=True, seed=0)
    assert data.validation.any()
    assert not (data.validation & data.missing).any()
    assert torch.equal(data.missing, ~torch.isfinite(y))
    always = operator.always_shown
    for step in range(3):
        hidden = draw_hidden(hiding, y, operator, step, seed=0)
        assert hidden.any()
        if always is not None:
            assert not (hidden | data.validation)[:, :, always].any()


@pytest.mark.parametrize("name", OPERATORS)
@pytest.mark.parametrize("scale", [1e-25, 1e-3, 1e4, 1e18])
def test_the_units_of_a_measurement_do_not_matter(name, scale):
    operator = OPERATORS[name]()
    x = object_like(operator)
    plain, scaled = (
        prepare(
            operator(k * x),
            operator,
            Hiding(),
            2,
            augment=True,
            filters=False,
            wild=False,
            robust=True,
            seed=0,
        )
        for k in (1.0, scale)
    )
    torch.testing.assert_close(plain.y, scaled.y, rtol=1e-3, atol=1e-3)
    model = scaled.forward_model
    in_network = scaled.object_normalisation.apply(scale * x)
    torch.testing.assert_close(model(in_network), scaled.y, rtol=1e-3, atol=2e-3)
    if scaled.entrance.crude is not None:  # it was a constant, or NaN, of very small or large values
        shown = (data.entrance.crude(data.y, data.validation) for data in (plain, scaled))
        torch.testing.assert_close(*shown, rtol=1e-3, atol=1e-2)


@pytest.mark.parametrize(
    "function",
    [
        lambda x: 100.0 * x,
        lambda x: 1e-3 * x,
        lambda x: x.square(),
        lambda x: torch.log1p(x.clamp(min=0.0)),
        lambda x: torch.exp(-x / 100.0),
        lambda x: x,
    ],
    ids=["times 100", "times 0.001", "square", "logarithm", "absorption", "identity"],
)
def test_the_units_of_a_functions_object_are_found(function):
    x = 10.0 + 200.0 * object_like(Identity((N, N)))
    data = prepare(
        function(x), function, Hiding(), 2, augment=True, filters=False, wild=False, robust=True, seed=0
    )
    inside = data.object_normalisation.apply(x)
    assert float(inside.min()) > -0.3
    assert 0.5 < float(inside.max()) < 1.5


@pytest.mark.parametrize(
    "function",
    [lambda x: 100.0 * torch.tanh(x / 100.0), lambda x: torch.fft.fft2(x, norm="ortho").abs()],
    ids=["saturation", "intensities of a far field"],
)
def test_units_are_kept_where_the_function_nearly_does_or_does_not_tell(function):
    y = function(100.0 * object_like(Identity((N, N))))
    data = prepare(y, function, Hiding(), 2, augment=True, filters=False, wild=False, robust=True, seed=0)
    assert data.object_normalisation == data.normalisation


def test_the_control_hides_nothing():
    y = torch.rand(1, 1, N, N)
    assert not draw_hidden(Hiding(scheme=None), y, Identity((N, N)), 0, seed=0).any()


COARSER = {
    "by 1.5": (1.5, 1.2, 1.2, 8),
    "by 2": (2, 1.2, 1.2, 8),
    "blurred along an axis": (1.5, 0.8, 2.4, 4),
}


@pytest.mark.parametrize("name", COARSER)
@pytest.mark.filterwarnings("ignore")
def test_coarser_pixels_are_turned_whatever_part_of_a_pixel_that_shifts_them(name):
    factor, *widths, turns = COARSER[name]
    kernel = torch.exp(
        -sum(
            (torch.arange(-6, 7.0)[(slice(None), None)[:: 1 - 2 * k]] / w) ** 2 for k, w in enumerate(widths)
        )
        / 2
    )
    operator = Downsample((38, 38), factor) @ Convolution(kernel / kernel.sum(), (38, 38), "reflect")
    y = operator(torch.rand(1, 1, 38, 38, generator=torch.Generator().manual_seed(0)))
    data = prepare(y, operator, Hiding(), 2, augment=True, filters=False, wild=False, robust=False, seed=0)
    assert len(data.symmetries) == turns
    assert data.entrance.crude is not None
    assert not data.entrance.crude.asks_rest  # each value is asked by itself


@pytest.mark.parametrize("robust", [True, False])
def test_of_frequencies_what_is_left_over_is_asked_unless_noise_has_outliers(robust):
    operator = OPERATORS["fourier"]()
    y = operator(object_like(operator))
    data = prepare(y, operator, Hiding(), 2, augment=True, filters=False, wild=False, robust=robust, seed=0)
    assert data.entrance.crude.asks_rest is not robust
