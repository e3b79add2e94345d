"""A network's training on a CUDA GPU as graphs: recorded once, replayed as a whole.

The many small kernels of a step run in less time than it takes to launch them one by one.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Hashable
from dataclasses import dataclass
from typing import Any, cast

import torch
from torch import Tensor, nn

from selfinv.operators import Composition, Convolution, Identity, Mask, MixedConvolution, Scaled

MOST_SHAPES = 2  # of a network's input: an image and its quarter turns; each takes memory for all activations
MOST_PARTS = 12  # fewer shapes than `InverseFilters` keeps transforms of


@dataclass(frozen=True)
class _Recording:
    graph: torch.cuda.CUDAGraph
    inputs: tuple[Tensor, ...]
    generator: torch.Generator
    outcome: Any


class Recorder:
    """Runs parts of a training step, and from a part's second time on replays them.

    A part is a function of tensors that works on the GPU alone: it asks no tensor for its value, and depends
    on nothing else that is not the same whenever its name and its inputs' shapes are. What it changes
    (gradients, weights) it changes in place.

    Parameters
    ----------
    device
        The CUDA device of all tensors.
    """

    def __init__(self, device: torch.device) -> None:
        # One stream for all: gradients are added up where they were first.
        self._stream = torch.cuda.Stream(device)
        self._pool: Any = torch.cuda.graph_pool_handle()
        self._device = device
        self._known: set[Hashable] = set()
        self._recorded: dict[Hashable, _Recording] = {}
        self._refused = False

    @property
    def count(self) -> int:
        """How many parts are recorded."""
        return len(self._recorded)

    def __call__(
        self,
        name: str,
        part: Callable[..., Any],
        *inputs: Tensor,
        generator: torch.Generator | None = None,
    ) -> Any:
        """What ``part(*inputs)``, or ``part(*inputs, generator)``, returns: to be used before its next call.

        The generator is freshly seeded, on the device.
        """
        here = torch.cuda.current_stream(self._device)
        self._stream.wait_stream(here)
        with torch.cuda.stream(self._stream):
            outcome = self._run((name, *(x.shape for x in inputs)), part, inputs, generator)
        here.wait_stream(self._stream)
        return outcome

    def release(self) -> None:
        """Give the recordings' memory back."""
        self._recorded.clear()
        self._known.clear()

    def _run(
        self,
        key: Hashable,
        part: Callable[..., Any],
        inputs: tuple[Tensor, ...],
        generator: torch.Generator | None,
    ) -> Any:
        recording = self._recorded.get(key)
        # The first call makes what libraries keep, which cannot be made while recording.
        if recording is None and key in self._known and not self._refused and self.count < MOST_PARTS:
            recording = self._record(part, inputs, generator)
            if recording is not None:
                self._recorded[key] = recording
        self._known.add(key)
        if recording is None:
            return part(*inputs, *([generator] if generator else []))
        for place, x in zip(recording.inputs, inputs, strict=True):
            place.copy_(x)
        if generator is not None:
            recording.generator.manual_seed(generator.initial_seed())
        recording.graph.replay()
        return recording.outcome

    def _record(
        self, part: Callable[..., Any], inputs: tuple[Tensor, ...], generator: torch.Generator | None
    ) -> _Recording | None:
        places = tuple(x.contiguous().clone() for x in inputs)
        own = torch.Generator(self._device)
        graph = torch.cuda.CUDAGraph()
        graph.register_generator_state(own)
        try:
            # Not `torch.cuda.graph`, which collects garbage for longer than a recording takes.
            graph.capture_begin(pool=self._pool, capture_error_mode="thread_local")
            outcome = part(*places, *([own] if generator else []))
            graph.capture_end()
        except BaseException as error:
            self._refused = True
            with contextlib.suppress(RuntimeError):
                graph.capture_end()
            if not isinstance(error, RuntimeError):  # as Ctrl-C
                raise
            return None  # it asked for a value after all
        return _Recording(graph, places, own, outcome)


def can_be_replayed(operator: object) -> bool:
    """Whether this is known of an operator: it works on the device alone and asks for no value."""
    if isinstance(operator, Scaled):
        return can_be_replayed(operator.operator)
    if isinstance(operator, Composition):
        return can_be_replayed(operator.outer) and can_be_replayed(operator.inner)
    return type(operator) in (Identity, Mask, Convolution, MixedConvolution)


def launched(
    name: str,
    part: Callable[..., Any],
    *inputs: Tensor,
    generator: torch.Generator | None = None,
) -> Any:
    """What a `Recorder` would return, without one."""
    return part(*inputs, *([generator] if generator else []))


class GraphedPasses:
    """Calls of a network, with gradients, on inputs of one shape or a few.

    For steps that cannot be recorded in whole. The network must stay on its CUDA device, which is the current
    one, in training, and keep its settings. Where torch cannot record them, they are launched. To record
    moves the running statistics by a few batches.
    """

    def __init__(self, network: nn.Module) -> None:
        self.network = network
        self._recorded: dict[torch.Size, nn.Module] = {}

    def __call__(self, x: Tensor) -> Tensor:
        """The network's output for ``x``, which needs no gradient."""
        known = self._recorded.get(x.shape)
        if known is None:
            if len(self._recorded) == MOST_SHAPES:
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
