"""A network's passes in training as CUDA graphs: recorded once, replayed as a whole."""

from __future__ import annotations

from typing import cast

import torch
from torch import Tensor, nn

MOST = 2  # shapes of input: an image and its quarter turns; each takes memory for all activations


class GraphedPasses:
    """Calls of a network, with gradients, on inputs of one shape or a few.

    Its many small kernels run in less time than it takes to launch them one by one. The network must stay on
    its CUDA device, which is the current one, in training, and keep its settings. Where torch cannot record
    them, they are launched. To record moves the running statistics by a few batches.
    """

    def __init__(self, network: nn.Module) -> None:
        self.network = network
        self._recorded: dict[torch.Size, nn.Module] = {}

    def __call__(self, x: Tensor) -> Tensor:
        """The network's output for ``x``, which needs no gradient."""
        known = self._recorded.get(x.shape)
        if known is None:
            if len(self._recorded) == MOST:
                return cast(Tensor, self.network(x))
            known = self._recorded[x.shape] = self._record(x)
        return cast(Tensor, known(x))

    def release(self) -> None:
        """Give the recordings' memory back; they could not be used on."""
        for call in self._recorded.values():
            call.__dict__.pop("forward", None)  # which refers to its module
        self._recorded.clear()

    def _record(self, x: Tensor) -> nn.Module:
        # What torch would warn of, gradients that come from the stream of the recording, is meant.
        warn = getattr(torch.autograd.graph, "set_warn_on_accumulate_grad_stream_mismatch", None)
        if warn is not None:
            warn(False)
        # A module of its own for every shape, because its `forward` is replaced.
        try:
            return cast(nn.Module, torch.cuda.make_graphed_callables(_Call(self.network), (x.clone(),)))
        except RuntimeError:  # as long as something else holds a graph of gradients of this network
            return self.network


class _Call(nn.Module):
    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.network = network

    def forward(self, x: Tensor) -> Tensor:
        return cast(Tensor, self.network(x))
