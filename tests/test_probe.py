import warnings

import numpy as np
import pytest
import torch
import torch.nn.functional as F

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
    ],
)
def test_a_users_operator_that_is_not_what_it_says_is_found_before_the_work(operator, words):
    with pytest.raises(InputError, match=words):
        selfinv.restore(IMAGE, operator=operator)


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
        probe(operator, y)


def test_what_measures_nothing_but_the_mean_is_no_false_alarm():
    mean = from_scipy(np.full((4, N * N), 1.0 / N**2), (N, N))
    probe(mean, torch.tensor([[[1.0, 2.0, 3.0, 4.0]]]))
