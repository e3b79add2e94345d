"""Forward operators: how an object becomes a measurement."""

from selfinv.operators.adapters import from_deepinv, from_pylops, from_scipy
from selfinv.operators.base import (
    Adjoint,
    Composition,
    LinearOperator,
    Scaled,
    device_of,
    dot_test,
    is_nonnegative,
    norm,
    random_like,
)
from selfinv.operators.channels import ChannelMixing, EachChannel
from selfinv.operators.convolution import Boundary, Convolution
from selfinv.operators.edges import choose_boundary
from selfinv.operators.fourier import MaskedFourier, as_real
from selfinv.operators.gradient import Gradient
from selfinv.operators.mixed_convolution import MixedConvolution, interpolation_weights
from selfinv.operators.radon import Radon
from selfinv.operators.random_projections import Hadamard, RandomProjections
from selfinv.operators.rings import RingFilter
from selfinv.operators.sampling import Identity, Mask, Surround
from selfinv.operators.separable import Downsample, Shift
from selfinv.operators.stack import Stack

__all__ = [
    "Adjoint",
    "Boundary",
    "ChannelMixing",
    "Composition",
    "Convolution",
    "Downsample",
    "EachChannel",
    "Gradient",
    "Hadamard",
    "Identity",
    "LinearOperator",
    "Mask",
    "MaskedFourier",
    "MixedConvolution",
    "Radon",
    "RandomProjections",
    "RingFilter",
    "Scaled",
    "Shift",
    "Stack",
    "Surround",
    "as_real",
    "choose_boundary",
    "device_of",
    "dot_test",
    "from_deepinv",
    "from_pylops",
    "from_scipy",
    "interpolation_weights",
    "is_nonnegative",
    "norm",
    "random_like",
]
