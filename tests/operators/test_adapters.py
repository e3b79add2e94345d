"""Other packages' operators, or stand-ins that behave as they do."""

from __future__ import annotations

import numpy as np
import pytest
import scipy.sparse
import scipy.sparse.linalg
import torch
from registry import asymmetric_kernel, dense

from selfinv.operators import (
    ChannelMixing,
    Convolution,
    LinearOperator,
    as_real,
    dot_test,
    from_deepinv,
    from_pylops,
    from_scipy,
    norm,
)
from selfinv.types import InputError

MATRIX = np.random.default_rng(0).normal(size=(12, 20))


class Differences(scipy.sparse.linalg.LinearOperator):
    """As in PyLops: a SciPy operator that knows its shapes; here differences along the first axis."""

    def __init__(self, *dims):
        self.dims, self.dimsd = dims, (dims[0] - 1, *dims[1:])
        super().__init__(float, (int(np.prod(self.dimsd)), int(np.prod(dims))))

    def _matvec(self, x):
        return np.diff(x.reshape(self.dims), axis=0).ravel()

    def _rmatvec(self, y):
        return -np.diff(y.reshape(self.dimsd), axis=0, prepend=0, append=0).ravel()


class Physics(torch.nn.Module):
    """As in deepinv: acts on ``batch channel *space``."""

    def __init__(self, operator):
        super().__init__()
        self.operator = operator

    def A(self, x):
        assert x.ndim == 4
        return self.operator(x)

    def A_adjoint(self, y):
        return self.operator.adjoint(y)


def batches_and_adjoint_hold(operator):
    x = torch.randn(2, 3, *operator.in_shape, dtype=torch.float64)
    y = operator(x)
    assert torch.allclose(y[1, 2], operator(x[1, 2]), atol=1e-10)
    assert torch.allclose(LinearOperator.adjoint(operator, y), operator.adjoint(y), atol=1e-10)


@pytest.mark.parametrize(
    "kind",
    [np.asarray, scipy.sparse.csr_array, scipy.sparse.coo_matrix, scipy.sparse.linalg.aslinearoperator],
)
def test_scipys_operators_are_their_matrices(kind):
    operator = from_scipy(kind(MATRIX), (4, 5), (3, 4))
    np.testing.assert_allclose(dense(operator), MATRIX, atol=1e-12)
    assert norm(operator, dtype=torch.float64) == pytest.approx(1.01 * np.linalg.norm(MATRIX, 2), rel=1e-2)


@pytest.mark.parametrize("operator", [from_scipy(MATRIX, (4, 5), (3, 4)), from_pylops(Differences(4, 5))])
def test_numpy_operators_can_be_differentiated_twice_and_mapped(operator):
    x = torch.randn(2, *operator.in_shape, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(operator, x)
    assert torch.autograd.gradgradcheck(lambda x: operator(x).square(), x)
    assert torch.autograd.gradcheck(operator.adjoint, operator(x).detach().requires_grad_())
    assert torch.allclose(torch.vmap(operator)(x), operator(x))
    assert operator(x.float()).dtype == torch.float32


def test_pylops_shapes_are_taken():
    operator = from_pylops(Differences(4, 5))
    x = torch.randn(3, 4, 5, dtype=torch.float64)
    assert torch.allclose(operator(x), x.diff(dim=1))
    assert dot_test(operator) < 1e-12


def test_complex_measurements_are_two_values_hidden_together():
    matrix = MATRIX + 1j * np.random.default_rng(1).normal(size=MATRIX.shape)
    operator = from_scipy(matrix, (4, 5), (3, 4))
    assert operator.out_shape == (3, 4, 2)
    assert operator.together == (-1,)
    x = np.random.default_rng(2).normal(size=(2, 3, 20))
    expected = as_real((x @ matrix.T).reshape(2, 3, 3, 4))
    assert torch.allclose(operator(torch.from_numpy(x).reshape(2, 3, 4, 5)), expected)
    assert dot_test(operator) < 1e-12
    assert dot_test(operator, dtype=torch.float32) < 1e-5


def test_a_physics_without_and_with_channels():
    blur = Convolution(asymmetric_kernel((3, 4)), (9, 8), "zero")
    operator = from_deepinv(Physics(blur), (9, 8), (9, 8), pixels=True)
    assert torch.allclose(dense(operator), dense(blur), atol=1e-12)
    assert operator.object_channels is None
    assert operator.field_of_view == blur.field_of_view
    assert operator(torch.randn(2, 3, 9, 8)).shape == (2, 3, 9, 8)
    mixing = ChannelMixing(np.ones((2, 3)), (9, 8))
    mixed = from_deepinv(Physics(mixing), (3, 9, 8), (2, 9, 8), channels=True)
    assert mixed.object_channels == 3
    assert torch.allclose(dense(mixed), dense(mixing), atol=1e-12)
    assert dot_test(operator) < 1e-12
    assert dot_test(mixed) < 1e-12
    assert "physics.operator.psf" in dict(operator.named_buffers())  # so it follows .to(device)


def test_real_pylops():
    pylops = pytest.importorskip("pylops")
    kernel = asymmetric_kernel((3, 5))
    theirs = pylops.signalprocessing.Convolve2D((9, 8), kernel.numpy(), offset=(1, 2))
    operator = from_pylops(theirs)
    assert torch.allclose(dense(operator), dense(Convolution(kernel, (9, 8), "zero")), atol=1e-12)
    others = [
        pylops.Gradient((6, 7)),
        pylops.signalprocessing.Shift((6, 7), 0.3, axis=1, real=True),
        pylops.signalprocessing.FFT2D((6, 7)),
    ]
    for other in others:
        assert dot_test(from_pylops(other)) < 1e-10
        batches_and_adjoint_hold(from_pylops(other))


def test_real_deepinv():
    deepinv = pytest.importorskip("deepinv", exc_type=ImportError)
    kernel = asymmetric_kernel((3, 5))
    blur = deepinv.physics.Blur(filter=kernel[None, None], padding="circular")
    operator = from_deepinv(blur, (9, 8), (9, 8), pixels=True)
    assert torch.allclose(dense(operator), dense(Convolution(kernel, (9, 8), "periodic")), atol=1e-12)
    down = deepinv.physics.Downsampling(img_size=(3, 8, 8), factor=2, filter="bilinear")
    small = from_deepinv(down.double(), (3, 8, 8), (3, 4, 4), channels=True)
    for other in (operator, small):
        assert dot_test(other) < 1e-10
        batches_and_adjoint_hold(other)


def test_mistakes_are_said_in_words():
    with pytest.raises(InputError, match=r"in_shape=\(4, 4\) has 16 values but .* has 20"):
        from_scipy(MATRIX, (4, 4))
    with pytest.raises(InputError, match="str is no linear operator"):
        from_scipy("A")
    with pytest.raises(InputError, match=r"ndarray is no linear operator; expected .* an array of two axes"):
        from_scipy(np.ones((2, 2, 2)))
    with pytest.raises(InputError, match=r"shape=\(0, 8\) is no shape"):
        from_scipy(np.ones((0, 8)))
    with pytest.raises(InputError, match="no adjoint; define its rmatvec"):
        from_scipy(scipy.sparse.linalg.LinearOperator((3, 3), matvec=lambda x: x, dtype=float))
    with pytest.raises(InputError, match="pixels=True"):
        from_scipy(MATRIX, pixels=True)
    with pytest.raises(InputError, match="pixels must be True or False, got 'no'"):
        from_scipy(MATRIX, pixels="no")
    with pytest.raises(InputError, match="channels must be True or False, got 3"):
        from_deepinv(Physics(None), (3, 3), (3, 3), channels=3)
    with pytest.raises(InputError, match="no dims and dimsd"):
        from_pylops(MATRIX)
    with pytest.raises(InputError, match="lacks A or A_adjoint"):
        from_deepinv(torch.nn.Identity(), (3, 3), (3, 3))
    mixing = Physics(ChannelMixing(np.ones((2, 3)), (9, 8)))
    wrong = from_deepinv(mixing, (3, 9, 8), (9, 8), channels=True)
    with pytest.raises(InputError, match=r"makes \(1, 2, 9, 8\) of \(1, 3, 9, 8\)"):
        wrong(torch.ones(3, 9, 8))


@pytest.mark.parametrize("kind", [np.asarray, scipy.sparse.csr_array, scipy.sparse.coo_matrix])
@pytest.mark.parametrize("value", [np.nan, np.inf])
@pytest.mark.filterwarnings("ignore:invalid value:RuntimeWarning")
def test_a_matrix_that_holds_nan_is_refused(kind, value):
    matrix = MATRIX.copy()
    matrix[3, 4] = value
    with pytest.raises(InputError, match="matvec makes NaN or infinity of zeros; expected finite numbers"):
        from_scipy(kind(matrix))


def laser_off(x):
    raise RuntimeError("laser off")


@pytest.mark.parametrize(
    ("there", "back", "words"),
    [
        (laser_off, np.copy, r"Operator.matvec failed on 3 zeros: RuntimeError\('laser off'\)"),
        (np.copy, laser_off, r"Operator.rmatvec failed on 3 zeros: RuntimeError\('laser off'\)"),
        (lambda x: x[1:], np.copy, r"matvec failed on 3 zeros: ValueError\('cannot reshape"),
        (lambda x: x / 0 * 0, np.copy, "matvec makes NaN or infinity of zeros"),
    ],
)
@pytest.mark.filterwarnings("ignore:invalid value:RuntimeWarning")
def test_a_users_function_that_fails_is_named(there, back, words):
    with pytest.raises(InputError, match=words):
        from_scipy(scipy.sparse.linalg.LinearOperator((3, 3), matvec=there, rmatvec=back, dtype=float))
