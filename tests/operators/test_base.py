"""What holds for every operator."""

from __future__ import annotations

import re

import pytest
import torch
from registry import OPERATORS, asymmetric_kernel, dense

from selfinv.operators import (
    Adjoint,
    ChannelMixing,
    Composition,
    Convolution,
    Downsample,
    EachChannel,
    Gradient,
    Hadamard,
    Identity,
    LinearOperator,
    Mask,
    MaskedFourier,
    MixedConvolution,
    Radon,
    RandomProjections,
    Scaled,
    Shift,
    Stack,
    Surround,
    dot_test,
    from_scipy,
    is_nonnegative,
    norm,
)
from selfinv.types import InputError


@pytest.mark.parametrize("name", OPERATORS)
@pytest.mark.parametrize(("dtype", "limit"), [(torch.float64, 1e-10), (torch.float32, 1e-5)])
def test_adjoint_is_the_adjoint_of_forward(name, dtype, limit):
    operator = OPERATORS[name]()
    if name == "kernel-per-channel":  # one object seen through three kernels at once
        x, y = torch.randn(2, 3, 9, 8, dtype=dtype), torch.randn(2, 3, 9, 8, dtype=dtype)
        left, right = (operator(x) * y).sum(), (x * operator.adjoint(y)).sum()
        assert abs(left - right) <= limit * x.norm() * y.norm()
        return
    assert dot_test(operator.to(dtype), dtype=dtype) < limit
    assert dot_test(operator.to(dtype).H, dtype=dtype) < limit


@pytest.mark.parametrize("name", OPERATORS)
def test_adjoint_equals_the_vector_jacobian_product(name):
    operator = OPERATORS[name]()
    leading = (2, 3)
    y = torch.randn(*leading, *operator.out_shape, dtype=torch.float64)
    by_autograd = LinearOperator.adjoint(operator, y)
    assert torch.allclose(operator.adjoint(y), by_autograd, atol=1e-12)


@pytest.mark.parametrize("name", OPERATORS)
def test_batches_are_handled_one_by_one_and_dtype_is_kept(name):
    operator = OPERATORS[name]()
    x = torch.randn(2, 3, *operator.in_shape, dtype=torch.float32)
    out = operator(x)
    assert out.dtype == torch.float32
    assert out.shape == (2, 3, *operator.out_shape)
    if name != "kernel-per-channel":
        assert torch.allclose(out[1, 2], operator(x[1, 2]), atol=1e-5)


def test_dot_test_finds_a_wrong_adjoint():
    class Wrong(Convolution):
        def adjoint(self, y):  # the forward operator in the place of the adjoint
            return self(y)

    assert dot_test(Wrong(asymmetric_kernel((5, 5)), (16, 16), "periodic")) > 1e-3


def test_norm_is_not_below_the_largest_singular_value_and_close_to_it():
    operator = Convolution(asymmetric_kernel((5, 4)) - 0.03, (12, 10), "zero")
    truth = float(torch.linalg.matrix_norm(dense(operator), 2))
    estimate = norm(operator, dtype=torch.float64)
    assert truth <= estimate <= 1.02 * truth
    assert norm(-3 * Identity((4, 4))) == pytest.approx(3 * 1.01)


@pytest.mark.parametrize("gain", [1e-30, 1e-25, 1e-20, 1e20, 1e25, 1e30])
def test_norm_is_right_in_any_unit(gain):
    """Squares left single precision: it was 0, or infinite."""
    assert norm(gain * Identity((4, 4))) == pytest.approx(gain * 1.01)
    assert norm(gain * OPERATORS[KINDS[0]]()) == pytest.approx(gain * norm(OPERATORS[KINDS[0]]()))


KINDS = [name for name in OPERATORS if not name.startswith(("convolution-", "kernel-per"))]


@pytest.mark.parametrize("name", KINDS)
def test_norm_works_on_every_operator(name):
    operator = OPERATORS[name]()
    truth = float(torch.linalg.matrix_norm(dense(operator), 2))
    assert norm(operator) == pytest.approx(1.01 * truth, rel=0.01)


@pytest.mark.parametrize("name", OPERATORS)
def test_operators_that_make_negative_values_of_light_are_told(name):
    operator = OPERATORS[name]()
    matrix = dense(operator)
    assert is_nonnegative(operator) == (float(matrix.min()) > -1e-9)
    assert is_nonnegative(-1 * operator) == (float(matrix.max()) < 1e-9)


def test_a_measured_kernel_may_be_slightly_negative_and_one_with_side_lobes_is_told():
    kernel = asymmetric_kernel((5, 5))
    assert is_nonnegative(Convolution(kernel - 0.01 * kernel.max(), (32, 32)))
    lobes = torch.tensor([[-0.05, -0.1, -0.05], [-0.1, 1.6, -0.1], [-0.05, -0.1, -0.05]])
    assert not is_nonnegative(Convolution(lobes, (32, 32)))


@pytest.mark.parametrize("name", [name for name in KINDS if not name.startswith(("radon", "scipy"))])
def test_data_follow_the_operator_to_another_device(name):
    operator = OPERATORS[name]().to("meta")  # which has no sparse matrices, and no NumPy
    y = operator(torch.empty(2, *operator.in_shape, device="meta"))
    assert y.shape == (2, *operator.out_shape)
    assert y.device.type == operator.adjoint(y).device.type == "meta"
    assert operator.measured is None or operator.measured.device.type == "meta"


def test_an_operator_is_not_scaled_by_what_is_no_number():
    for scale in (float("nan"), float("inf"), "2"):
        with pytest.raises(InputError, match="scale must be a finite number"):
            Scaled(scale, Identity((3,)))


@pytest.mark.parametrize("name", OPERATORS)
@pytest.mark.parametrize("dtype", [torch.uint8, torch.int64, torch.bool])
def test_integers_are_refused_in_whose_type_a_kernel_would_be_zero(name, dtype):
    operator = OPERATORS[name]()
    for use, shape in ((operator, operator.in_shape), (operator.adjoint, operator.out_shape)):
        with pytest.raises(InputError, match=rf"floating-point.*{dtype}.*\.float\(\)"):
            use(torch.ones(2, *shape, dtype=dtype))


def test_algebra_matches_matrices():
    inner = Convolution(asymmetric_kernel((3, 2)), (7, 6), "reflect")
    outer = Convolution(asymmetric_kernel((2, 3)), (6, 4), "unknown")
    product = 0.5 * (outer @ inner)
    assert torch.allclose(dense(product), 0.5 * dense(outer) @ dense(inner), atol=1e-12)
    assert torch.allclose(dense(product.H), dense(product).T, atol=1e-12)
    x = torch.randn(7, 6, dtype=torch.float64)
    assert torch.equal(inner @ x, inner(x))


def test_field_of_view_of_a_product_lies_under_the_measurement():
    spike = torch.zeros(3, 3, dtype=torch.float64)
    spike[1, 1] = 1
    inner = Convolution(spike, (12, 12), "unknown")
    outer = Convolution(torch.nn.functional.pad(spike, (1, 1)), (10, 8), "unknown")
    product = outer @ inner
    x = torch.randn(product.in_shape, dtype=torch.float64)
    assert torch.allclose(x[product.field_of_view], product(x), atol=1e-12)


def test_a_mask_leaves_to_what_is_behind_it_to_say_what_values_are():
    lines = torch.zeros(8, 8, dtype=torch.bool)
    lines[::2] = True
    fourier = MaskedFourier((8, 8), lines, lines=-1)
    seen = torch.ones(8, 8, 2, dtype=torch.bool)
    seen[4, 4] = False
    for mask in (Mask(seen), 2.0 * Mask(seen), Mask(seen) @ Identity((8, 8, 2))):
        both = mask @ fourier
        assert both.together == fourier.together == (-2, -1)
        assert torch.equal(both.measured, fourier.measured & seen)
        assert torch.equal(both.always_shown, fourier.always_shown & seen)
        assert both.hint == fourier.hint
    moved = Shift((8, 8, 2), (0.5, 0, 0)) @ fourier
    assert moved.together == ()
    assert moved.always_shown is None
    part = Mask(torch.arange(8) > 3)
    assert (part @ Mask(torch.arange(8) < 6)).measured.tolist() == [False] * 4 + [True] * 2 + [False] * 2
    assert (Identity((8,)) @ part).measured.tolist() == [False] * 4 + [True] * 4
    assert (Identity((8,)) @ Identity((8,))).measured is None


def test_a_scaled_operator_has_the_windows_and_other_sizes_of_what_it_scales():
    blur = Convolution(asymmetric_kernel((3, 3)), (12, 12), "unknown")
    scaled = -2.0 * blur
    assert scaled.reach == blur.reach
    for part, other in (
        (scaled.window((5, 6), [(0, 0)] * 2), blur.window((5, 6), [(0, 0)] * 2)),
        (scaled.for_shape((7, 8)), blur.for_shape((7, 8))),
    ):
        x = torch.randn(other.in_shape, dtype=torch.float64)
        torch.testing.assert_close(part(x), -2.0 * other(x))
    assert (2.0 * Radon((8, 8), [0, 90])).for_shape((8, 8)) is None


def test_shapes_that_do_not_fit_are_named():
    with pytest.raises(InputError, match=r"inner operator gives the shape \(8, 8\).*takes \(9, 9\)"):
        Identity((9, 9)) @ Identity((8, 8))
    with pytest.raises(InputError, match=r"last axes are \(9, 9\).*\(8, 9\)"):
        Identity((9, 9))(torch.zeros(8, 9))


KERNEL = asymmetric_kernel((3, 3))
SHAPED = {
    "identity": Identity,
    "surround": lambda shape: Surround(shape, [(1, 1), (1, 1)]),
    "downsample": lambda shape: Downsample(shape, 1),
    "shift": lambda shape: Shift(shape, 0.5),
    "gradient": Gradient,
    "radon": lambda shape: Radon(shape, [0, 90]),
    "fourier": lambda shape: MaskedFourier(shape, torch.ones(8, 9, dtype=torch.bool)),
    "random": lambda shape: RandomProjections(shape, 1),
    "hadamard": lambda shape: Hadamard(shape, 1),
    "convolution": lambda shape: Convolution(KERNEL, shape),
    "mixed": lambda shape: MixedConvolution([KERNEL, KERNEL], shape, positions=[(0, 0), (0, 7)]),
    "channels": lambda shape: ChannelMixing([[1.0]], shape),
    "scipy": lambda shape: from_scipy(torch.ones(4, 72).numpy(), shape),
    "a user's own": lambda shape: LinearOperator(shape, (3,)),
}


@pytest.mark.parametrize("name", SHAPED)
def test_what_is_no_shape_is_refused_by_all(name):
    assert SHAPED[name]((8, 9)).in_shape[-2:] >= (8, 9)
    for shape in (5, (-8, 9), (5.5, 9)):
        with pytest.raises(InputError, match=re.escape(f"shape={shape} is no shape; expected whole numbers")):
            SHAPED[name](shape)


class ShapesNotTold(LinearOperator):
    def __init__(self):
        torch.nn.Module.__init__(self)


NOT_LINEAR = {
    "dot_test": dot_test,
    "norm": norm,
    "stack": lambda operator: Stack([Identity((4, 4)), operator]),
    "each channel": lambda operator: EachChannel(operator, 2),
    "adjoint": Adjoint,
    "scaled": lambda operator: Scaled(2.0, operator),
    "outer": lambda operator: Composition(operator, Identity((4, 4))),
    "inner": lambda operator: Composition(Identity((4, 4)), operator),
}


@pytest.mark.parametrize("name", NOT_LINEAR)
def test_what_is_no_operator_is_refused_by_all(name):
    for operator, words in (
        (torch.sin, "sin is no LinearOperator, so it has neither shapes nor an adjoint; subclass"),
        (5, "int is no LinearOperator, .* or use from_scipy for a matrix"),
        (Identity, "operator is the class Identity; pass an object of it"),
        (ShapesNotTold(), r"ShapesNotTold has no shapes; let its __init__ call super\(\).__init__"),
    ):
        with pytest.raises(InputError, match=words):
            NOT_LINEAR[name](operator)
