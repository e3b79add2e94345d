"""A linear map and its adjoint as one differentiable function, however they are computed."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

Map = Callable[[Tensor], Tensor]


class LinearMap(torch.autograd.Function):
    """``there(x)``, whose derivative is ``back``; neither need be differentiable, so any depth works.

    Called with ``x``, the map and its adjoint. Both broadcast over leading axes and keep the dtype.
    """

    @staticmethod
    def forward(x: Tensor, there: Map, back: Map) -> Tensor:
        return there(x)

    @staticmethod
    def setup_context(ctx: Any, inputs: Any, output: Any) -> None:
        ctx.lead = inputs[0].shape
        _, ctx.there, ctx.back = inputs

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> Any:
        product = LinearMap.apply(gradient, ctx.back, ctx.there)
        return product.sum_to_size(ctx.lead), None, None  # a map may have leading axes of its own

    @staticmethod
    def jvp(ctx: Any, tangent: Tensor, *_: Any) -> Any:
        return LinearMap.apply(tangent, ctx.there, ctx.back)

    @staticmethod
    def vmap(info: Any, in_dims: Any, x: Tensor, there: Map, back: Map) -> Any:
        return LinearMap.apply(x.movedim(in_dims[0], 0), there, back), 0
