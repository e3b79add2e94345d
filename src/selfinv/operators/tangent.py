"""A differentiable function about one object: its derivative there, as a linear operator."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from selfinv.operators.base import LinearOperator


class Tangent(LinearOperator):
    r""":math:`J v`, with :math:`J` the derivative of a function at an object, and its adjoint.

    Both are got from the function's gradient, once of the object and once more of what it is linear in; a
    function that can be differentiated only once has no `forward` (`RuntimeError`).

    Parameters
    ----------
    function
        From ``batch channel *space`` to the same, or other, ``batch channel *space``.
    at
        The object; operands have its batch and channels.

    Examples
    --------
    >>> square = Tangent(torch.square, torch.tensor([[[1.0, 2.0, 3.0]]]))
    >>> square(torch.ones(1, 1, 3))
    tensor([[[2., 4., 6.]]])
    """

    def __init__(self, function: Callable[[Tensor], Tensor], at: Tensor) -> None:
        with torch.enable_grad():
            leaf = at.detach().requires_grad_()
            image = function(leaf)
            cotangent = torch.zeros_like(image, requires_grad=True)
            (pulled,) = torch.autograd.grad(image, leaf, cotangent, create_graph=True, retain_graph=True)
        super().__init__(at.shape[2:], image.shape[2:])
        self.register_buffer("at", at.detach())  # says on which device it works
        self._leaf, self._image, self._cotangent, self._pulled = leaf, image, cotangent, pulled

    def forward(self, x: Tensor) -> Tensor:
        (image,) = torch.autograd.grad(self._pulled, self._cotangent, x, retain_graph=True)
        return image

    def adjoint(self, y: Tensor) -> Tensor:
        (pulled,) = torch.autograd.grad(self._image, self._leaf, y, retain_graph=True)
        return pulled
