"""Any forward operator through the front door: arrays, axes, units, mistakes."""

import numpy as np
import pytest
import torch

import selfinv
from selfinv.operators import (
    ChannelMixing,
    Convolution,
    Downsample,
    EachChannel,
    Identity,
    LinearOperator,
    MaskedFourier,
    Radon,
    Stack,
)
from selfinv.types import InputError

N = 32
RNG = np.random.default_rng
Y, X = np.mgrid[:N, :N]
TRUTH = (10.0 + 40.0 * ((Y - 14) ** 2 + (X - 18) ** 2 < 60) + 0.5 * X).astype(np.float32)


def measured(operator, x=TRUTH, sigma=0.0):
    y = operator(torch.as_tensor(x)).numpy()
    return y + RNG(0).normal(0, sigma, y.shape).astype(np.float32)


def error(x, truth=TRUTH):
    return float(np.sqrt(np.mean((x - truth) ** 2)) / truth.std())


OPERATORS = {
    "coarser": Downsample((N, N), 2),
    "frames": Stack([Identity((N, N)), Identity((N, N))]),
    "projections": Radon((N, N), np.arange(40) * 4.5),
    "spectrum": MaskedFourier((N, N), (np.add.outer(np.arange(N), np.arange(N)) % 3 > 0)),
}


@pytest.mark.parametrize("method", ["ssi-network", "tv-chambolle-pock", "wiener"])
@pytest.mark.parametrize("name", OPERATORS)
def test_the_object_comes_back_on_its_own_grid_in_its_own_units(name, method):
    A = OPERATORS[name]
    if method == "wiener" and name != "frames":
        pytest.skip("one is enough: it takes long")
    y = measured(A)
    result = selfinv.restore(y + RNG(0).normal(0, 0.02 * y.std(), y.shape), operator=A, method=method)
    assert result.image.shape == (N, N)
    assert error(result.image) < 0.45
    assert result.image.mean() == pytest.approx(TRUTH.mean(), rel=0.05)


def test_complex_values_are_pairs_of_real_ones():
    A = OPERATORS["spectrum"]
    y = measured(A, sigma=0.5)
    pairs = selfinv.restore(y, operator=A, method="tv-chambolle-pock").image
    complex_values = selfinv.restore(y[..., 0] + 1j * y[..., 1], operator=A, method="tv-chambolle-pock").image
    assert np.array_equal(pairs, complex_values)
    with pytest.raises(InputError, match=r"complex .complex64.; expected real"):
        selfinv.restore(TRUTH + 1j * TRUTH, operator=Downsample((2 * N, 2 * N), 2))


def test_what_was_not_measured_is_not_looked_at():
    A = OPERATORS["spectrum"]
    y = measured(A, sigma=0.5)
    other = np.where(A.measured.numpy(), y, 1e6).astype(np.float32)
    one, two = (selfinv.restore(v, operator=A, method="tv-chambolle-pock").image for v in (y, other))
    assert np.array_equal(one, two)


def test_a_blurred_coarser_image_shows_the_field_and_not_what_lies_beyond():
    blur = Convolution(torch.full((5, 5), 0.04), (N, N), "unknown")
    A = Downsample((N, N), 2) @ blur
    inside = torch.nn.functional.pad(torch.as_tensor(TRUTH)[None], (2, 2, 2, 2), mode="reflect")[0]
    y = A(inside).numpy()
    result = selfinv.restore(y + RNG(0).normal(0, 0.3, y.shape), operator=A, method="tv-chambolle-pock")
    assert result.image.shape == (N, N)
    assert error(result.image) < 0.3


@pytest.mark.parametrize("method", ["ssi-network", "tv-chambolle-pock"])
def test_mixed_channels_are_separated(method):
    truth = np.stack([TRUTH, TRUTH[::-1].copy()])
    A = ChannelMixing([[0.8, 0.2], [0.3, 0.7], [0.5, 0.5]], (N, N))
    y = measured(A, truth, sigma=1.0)
    result = selfinv.restore(y, operator=A, method=method)
    assert result.image.shape == (2, N, N)
    assert error(result.image, truth) < 0.35
    blurred = A @ EachChannel(Convolution(torch.full((3, 3), 1 / 9), (N, N), "reflect"), 2)
    result = selfinv.restore(measured(blurred, truth, 1.0), operator=blurred, method=method, axes="cyx")
    assert result.image.shape == (2, N, N)


def test_a_time_series_shares_one_network_which_can_be_applied_to_more():
    A = OPERATORS["projections"]
    frames = np.stack([measured(A, TRUTH * f, sigma=5.0) for f in (1.0, 0.8)])
    result = selfinv.restore(frames, operator=A, method="ssi-network", axes="tyx", max_steps=60)
    assert result.image.shape == (2, N, N)
    again = result.model.apply(frames[0])
    assert np.allclose(again, result.image[0], atol=5e-3 * TRUTH.max())


def test_a_saved_model_goes_on_with_its_operator_and_no_other(tmp_path):
    blur = Convolution(torch.full((5, 5), 0.04), (N, N), "unknown")
    A = Downsample((N, N), 2) @ blur
    wide = torch.nn.functional.pad(torch.as_tensor(TRUTH)[None], (2, 2, 2, 2), mode="reflect")[0]
    y = A(wide).numpy() + RNG(0).normal(0, 1.0, A.out_shape)
    result = selfinv.restore(y, operator=A, method="ssi-network", max_steps=20)
    result.model.save(tmp_path / "model.safetensors")
    model = selfinv.load_model(tmp_path / "model.safetensors", A)
    assert model.apply(y).shape == (N, N)
    assert np.allclose(model.apply(y), result.image, atol=5e-3 * TRUTH.max())
    with pytest.raises(InputError, match="values are not pixels; give that to load_model"):
        selfinv.load_model(tmp_path / "model.safetensors")
    with pytest.raises(InputError, match=r"from \(36, 36\) to \(16, 16\), and the one given goes from"):
        selfinv.load_model(tmp_path / "model.safetensors", Downsample((N, N), 2))


def test_lines_of_a_small_spectrum_are_few_but_enough_to_train_on():
    lines = RNG(0).random(N) < 0.5
    lines[N // 2 - 2 : N // 2 + 3] = True
    A = MaskedFourier((N, N), np.repeat(lines[:, None], N, axis=1), lines=-1)
    result = selfinv.restore(measured(A, sigma=1.0), operator=A, method="ssi-network", max_steps=30)
    assert not result.status.failed_attempts
    assert np.isfinite(result.stats["held_out_score"])


def test_where_nothing_was_measured_there_may_be_nan():
    A = OPERATORS["spectrum"]
    y = measured(A, sigma=0.5)
    holes = np.where(A.measured.numpy(), y, np.nan)
    as_complex = holes[..., 0] + 1j * holes[..., 1]
    images = [
        selfinv.restore(v, operator=A, method="tv-chambolle-pock").image for v in (y, holes, as_complex)
    ]
    assert np.array_equal(images[0], images[1])
    assert np.array_equal(images[0], images[2])
    with pytest.raises(InputError, match="1 NaN"):
        selfinv.restore(np.where(y == y[N // 2, N // 2, 0], np.nan, y), operator=A)


def test_a_spectrum_in_the_other_order_is_noticed():
    A = OPERATORS["spectrum"]
    y = measured(A, sigma=0.5)
    with pytest.warns(selfinv.SelfinvWarning, match="pass centred=False"):
        selfinv.restore(np.fft.ifftshift(y, axes=(0, 1)), operator=A, method="tv-chambolle-pock", weight=1.0)


class NotDifferentiable(LinearOperator):
    def forward(self, x):
        return torch.as_tensor(x.detach().numpy() * 2.0)


@pytest.mark.parametrize(
    ("image", "operator", "options", "words"),
    [
        (
            TRUTH,
            Downsample((N, N), 2),
            {},
            r"shape \(16, 16\) but the array has the shape \(32, 32\)",
        ),
        (
            np.zeros((3, 16, 16)),
            Downsample((N, N), 2),
            {},
            "name the axes of the restored image, e.g. axes='tyx",
        ),
        (np.ones((16, 16)), Downsample((N, N), 2), {"axes": "zx"}, "expected 'x', 'yx' or 'zyx'"),
        (np.ones((16, 16)), Downsample((N, N), 2), {}, "constant"),
        (TRUTH, NotDifferentiable((N, N), (N, N)), {}, "not differentiable"),
        (TRUTH, lambda x: x.detach(), {}, "not differentiable"),
        (TRUTH, torch.round, {}, "gradient is zero at every pixel"),
        (TRUTH, lambda x: (x - 1e9).sqrt(), {}, "gives NaN or infinite values"),
        (TRUTH, lambda x: (x - x).sqrt(), {}, "gradient is NaN"),
        (TRUTH, torch.fft.fft2, {}, "complex values; give the real"),
        (
            np.ones((N, N // 2), complex),
            MaskedFourier((N, N), torch.ones(N, N, dtype=torch.bool)),
            {},
            r"complex values of the shape \(32, 32\) but the array has the shape \(32, 16\)",
        ),
        (
            TRUTH,
            MaskedFourier((N, N), torch.ones(N, N, dtype=torch.bool)),
            {},
            r"that is complex frequencies of the shape \(32, 32\)",
        ),
        (np.ones((40, 32)), Radon((N, N), range(40)), {}, r"Radon\(..., circle=True\)"),
        (TRUTH, lambda x: x[..., ::2], {}, r"gives \(1, 1, 32, 16\) for the measurement's shape"),
    ],
)
def test_a_mistake_is_an_input_error_that_says_what_to_do(image, operator, options, words):
    with pytest.raises(InputError, match=words):
        selfinv.restore(image, operator=operator, **options)


def test_a_function_that_is_not_linear_is_inverted():
    """Saturation: what the camera shows of bright places is less than in proportion."""
    saturate = lambda x: 100.0 * torch.tanh(x / 60.0)  # noqa: E731
    y = saturate(torch.as_tensor(TRUTH)).numpy() + RNG(0).normal(0, 1.0, TRUTH.shape)
    result = selfinv.restore(y, operator=saturate, method="ssi-network")
    assert error(result.image) < 0.35
    assert error(result.image) < 0.5 * error(y)
