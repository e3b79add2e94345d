import warnings

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from scipy.sparse.linalg import aslinearoperator

import selfinv
from selfinv.operators import Convolution, Downsample, LinearOperator, MaskedFourier, Radon, from_scipy
from selfinv.probe import probe
from selfinv.types import InputError, SelfinvWarning

N = 24
IMAGE = np.random.default_rng(0).random((N, N))
KERNEL = torch.rand(5, 5, generator=torch.Generator().manual_seed(1))


class Blur(LinearOperator):
    """A user's own: correlation with a kernel that is not its own mirror image."""

    def __init__(self) -> None:
        super().__init__((N, N), (N, N))

    def forward(self, x):
        return F.conv2d(x, KERNEL.to(x).expand(x.shape[1], 1, 5, 5), padding=2, groups=x.shape[1])


class NotMirrored(Blur):
    def adjoint(self, y):
        return self.forward(y)


class TwiceTooLarge(Blur):
    def adjoint(self, y):
        return 2.0 * super().adjoint(y)


class NearlyRight(Blur):
    def adjoint(self, y):
        return 1.02 * super().adjoint(y)


class TooSmall(Blur):
    def adjoint(self, y):
        return super().adjoint(y)[..., 1:]


class NeedsSciPy(Blur):
    def adjoint(self, y):
        return np.array(y.requires_grad) + torch.zeros(3).reshape(2, 2)


class Squared(Blur):
    def forward(self, x):
        return super().forward(x).square()


class WithAnOffset(Blur):
    def forward(self, x):
        return super().forward(x) + 100.0


class SeesItsNeighbours(Blur):
    def forward(self, x):
        return super().forward(x) - 0.1 * x.mean(dim=(0, 1), keepdim=True)


class Blind(Blur):
    def forward(self, x):
        return 0.0 * x


class InNumPy(Blur):
    def adjoint(self, y):
        return super().adjoint(y).numpy()


class Broken(Blur):
    def forward(self, x):
        raise ZeroDivisionError("laser off")


class FlatField(Blur):
    """As one is read from a NumPy array: in double precision."""

    def __init__(self):
        super().__init__()
        self.field = torch.linspace(0.5, 1.0, N, dtype=torch.float64)

    def forward(self, x):
        return x * self.field


class Trained(Blur):
    def __init__(self):
        super().__init__()
        self.gain = torch.nn.Parameter(torch.tensor(1.0))

    def forward(self, x):
        return self.gain * x


class ShapesNotTold(LinearOperator):
    def __init__(self):
        pass


@pytest.mark.parametrize(
    ("operator", "words"),
    [
        (NotMirrored(), "NotMirrored.adjoint is not the adjoint of its forward: .* differ by"),
        (TwiceTooLarge(), "differ by 50%; correct it .*dot_test.*, or leave it out"),
        (TooSmall(), r"TooSmall.adjoint gives \(1, 1, 24, 23\) for the object's shape \(1, 1, 24, 24\)"),
        (NeedsSciPy(), "NeedsSciPy.adjoint failed on a measurement"),
        (Squared(), "Squared is not linear: .*pass a function instead of a LinearOperator"),
        (WithAnOffset(), "WithAnOffset is not linear"),
        (Blind(), "Blind measures nothing: it gives 0 for every object tried"),
        (InNumPy(), "InNumPy.adjoint gives ndarray; expected a real tensor"),
        (lambda x: torch.from_numpy(np.abs(x.numpy())), "calls NumPy, .* write it in torch functions"),
        (lambda x: torch.as_tensor(np.cumsum(x, axis=-1)), "calls NumPy, .* write it in torch functions"),
        (Broken(), "the operator failed on an object of the shape .*: laser off"),
        (Blur, "operator is the class Blur; pass an object of it"),
        (aslinearoperator(np.eye(N * N)), "from_scipy .* makes one of ours of it"),
        (lambda x: x + 0.1 * torch.randn_like(x), "the operator is random: .* leave noise out of it"),
        (lambda x: F.dropout(x, 0.01), r"the operator is random: .* eval\(\)"),
        (lambda x: x * torch.nan, "NaN or infinite values for an object of values like those measured"),
    ],
)
def test_a_users_operator_that_is_not_what_it_says_is_found_before_the_work(operator, words):
    with pytest.raises(InputError, match=words):
        selfinv.restore(IMAGE, operator=operator)


@pytest.mark.parametrize(("axes", "noun"), [("tyx", "frame"), ("cyx", "channel")])
def test_an_operator_that_mixes_frames_or_channels_is_refused(axes, noun):
    with pytest.raises(InputError, match=f"measures of one {noun} depends on another {noun}"):
        selfinv.restore(np.stack([IMAGE, IMAGE[::-1]]), operator=SeesItsNeighbours(), axes=axes)


@pytest.mark.parametrize("operator", [FlatField(), Trained()], ids=lambda operator: type(operator).__name__)
@pytest.mark.parametrize("method", ["tv-chambolle-pock", "wiener", "richardson-lucy", "ssi-network"])
def test_double_precision_and_parameters_of_an_operator_do_no_harm(operator, method):
    blocks = np.kron(np.random.default_rng(0).random((4, 4)), np.ones((6, 6)))
    y = operator(torch.from_numpy(blocks)).detach().numpy()
    result = selfinv.restore(y, operator=operator, method=method, max_steps=30)
    assert result.image.dtype == result.predicted.dtype == np.float32
    assert np.isfinite(result.image).all()
    assert all(p.requires_grad for p in operator.parameters())  # the caller's own stays as it is


def test_a_function_with_an_array_of_numpys_precision_in_it_does_no_harm():
    field = torch.from_numpy(np.linspace(0.5, 1.0, N))
    result = selfinv.restore(field.numpy() * IMAGE, operator=lambda x: x * field, max_steps=3)
    assert result.image.dtype == result.predicted.dtype == np.float32


@pytest.mark.parametrize(
    "method", ["tv-chambolle-pock", "tv-conjugate-gradient", "wiener", "richardson-lucy"]
)
@pytest.mark.parametrize("gain", [2.0**-14, 2.0**14])
@pytest.mark.parametrize("kind", ["pixels", "projections"])
def test_the_unit_of_what_is_measured_does_not_matter(method, gain, kind):
    blocks = 1.0 + np.kron(np.random.default_rng(0).random((6, 6)), np.ones((4, 4)))
    operator = Blur() if kind == "pixels" else Radon((N, N), range(0, 180, 10))
    if kind == "projections" and method in ("tv-conjugate-gradient", "richardson-lucy"):
        pytest.skip("one stops after a number of steps, wherever it is, the other takes no dark noise")
    clean = operator(torch.from_numpy(blocks)[None, None])[0, 0].numpy()
    y = clean + np.random.default_rng(1).normal(0, 0.05 * clean.std(), clean.shape)
    plain, scaled = (selfinv.restore(k * y, operator=k * operator, method=method).image for k in (1.0, gain))
    # Each is stopped somewhere near its optimum, not at the same place.
    assert np.sqrt(np.mean((scaled - plain) ** 2)) < 0.1 * blocks.std()


def test_an_operator_without_shapes_is_refused():
    with pytest.raises(InputError, match=r"ShapesNotTold has no shapes; let its __init__ call super"):
        selfinv.restore(IMAGE, operator=ShapesNotTold())


def test_a_nearly_right_adjoint_is_used_with_a_warning():
    with pytest.warns(SelfinvWarning, match=r"only nearly the adjoint of its forward \(to 2.0%\)"):
        selfinv.restore(IMAGE, operator=NearlyRight(), method="tv-chambolle-pock", weight=0.1, max_steps=2)


@pytest.mark.parametrize(
    "operator",
    [
        Blur(),
        Convolution(KERNEL, (N, N), "unknown"),
        Radon((N, N), range(0, 180, 9)),
        MaskedFourier((N, N), torch.rand(N, N, generator=torch.Generator().manual_seed(0)) < 0.4),
        Downsample((N, N), 1.5),
        from_scipy(np.random.default_rng(2).normal(size=(50, N * N)), (N, N)),
    ],
    ids=lambda operator: type(operator).__name__,
)
@pytest.mark.parametrize("offset", [0.0, 1e4])
def test_what_is_linear_and_has_its_adjoint_passes_without_a_word(operator, offset):
    y = offset + torch.rand(2, 3, *operator.out_shape, generator=torch.Generator().manual_seed(3))
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert probe(operator, y) is operator


@pytest.mark.parametrize("unit", [1e-25, 1e-20, 1e18, 1e25])
def test_in_any_unit_a_right_operator_passes_and_a_wrong_one_is_found(unit):
    """In single precision squares of such values are 0 or infinite: one "measured nothing" and the like."""
    low = np.kron(np.random.default_rng(1).random((4, 4)), np.ones((4, 4)))
    larger = Downsample((32, 32), 2)
    expected, image = (selfinv.restore(k * low, operator=larger, max_steps=2).image for k in (1.0, unit))
    np.testing.assert_allclose(image.astype(float) / unit, expected, atol=0.02)
    radon = Radon((N, N), range(0, 180, 9))
    assert probe(radon, unit * torch.rand(1, 1, *radon.out_shape, dtype=torch.float64)) is radon
    with pytest.raises(InputError, match=r"NotMirrored.adjoint is not the adjoint of its forward"):
        selfinv.restore(unit * IMAGE, operator=NotMirrored())


def test_what_measures_nothing_but_the_mean_is_no_false_alarm():
    mean = from_scipy(np.full((4, N * N), 1.0 / N**2), (N, N))
    assert probe(mean, torch.tensor([[[1.0, 2.0, 3.0, 4.0]]])) is mean


@pytest.mark.parametrize("gain", [1e-25, 1e-14, 1e12, 1e20])
def test_an_operator_in_extreme_units_is_refused_as_such(gain):
    """It gave a flat image without a word, or was said to have another operator's adjoint."""
    with pytest.raises(InputError, match="1e-10 to 1e\\+08 times, where single"):
        selfinv.restore(IMAGE, operator=gain * Blur(), method="tv-conjugate-gradient")


def test_an_operator_in_units_far_from_the_images_is_computed_with():
    expected = selfinv.restore(IMAGE, operator=Blur(), method="tv-conjugate-gradient", weight=0.1).image
    other = selfinv.restore(IMAGE, operator=1e-9 * Blur(), method="tv-conjugate-gradient", weight=1e-10)
    assert np.std(1e-9 * other.image - expected) < 0.05 * np.std(expected)
