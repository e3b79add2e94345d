"""Several measurements of one object."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor, nn

from selfinv.operators.base import LinearOperator, as_operators
from selfinv.types import InputError


class Stack(LinearOperator):
    """Several views or frames of one object, one operator each: ``y = (A1 x, A2 x, ...)``.

    Parameters
    ----------
    operators
        With the same ``in_shape``. If their ``out_shape`` is the same too, the measurement is
        ``(views, *out_shape)``, else all values one after another, ``(values,)``.

    Raises
    ------
    InputError
        If there is no operator, or one that is in no list, they take different objects, or they are of
        different shapes and hide values together, which a flat measurement cannot say.

    Examples
    --------
    >>> from selfinv.operators import Identity, Shift
    >>> Stack([Identity((8, 8)), Shift((8, 8), 0.5)]).out_shape
    (2, 8, 8)
    """

    def __init__(self, operators: Sequence[LinearOperator]) -> None:
        if isinstance(operators, LinearOperator):
            raise InputError(
                f"Stack got {type(operators).__name__} alone; give a list, one operator per view"
            )
        operators = as_operators(operators)
        if not operators:
            raise InputError("Stack got no operators; give one per view")
        shapes = {operator.in_shape for operator in operators}
        if len(shapes) > 1:
            raise InputError(f"operators of a Stack take one object, these take the shapes {sorted(shapes)}")
        same = len({operator.out_shape for operator in operators}) == 1
        first = operators[0]
        count = len(operators)
        sizes = [math.prod(operator.out_shape) for operator in operators]
        super().__init__(first.in_shape, (count, *first.out_shape) if same else (sum(sizes),))
        # Hiding more of them together is always safe.
        self._together = tuple(sorted({axis for operator in operators for axis in operator.together}))
        if self._together and not same:
            raise InputError(
                f"operators of a Stack that hide values together (along the axes {self._together}) need the "
                f"same out_shape, got {[operator.out_shape for operator in operators]}"
            )
        self.same = same
        self.sizes = sizes
        self.operators = nn.ModuleList(operators)

    @property
    def views(self) -> list[LinearOperator]:
        """The operators, one per view."""
        return [view for view in self.operators if isinstance(view, LinearOperator)]

    @property
    def field_of_view(self) -> None:
        return None

    @property
    def view(self) -> tuple[slice, ...]:
        views = [view.view for view in self.views]
        return views[0] if all(view == views[0] for view in views) else super().view

    @property
    def together(self) -> tuple[int, ...]:
        return self._together

    @property
    def measured(self) -> Tensor | None:
        return self._joined([view.measured for view in self.views], default=True)

    @property
    def always_shown(self) -> Tensor | None:
        return self._joined([view.always_shown for view in self.views], default=False)

    def _joined(self, known: list[Tensor | None], *, default: bool) -> Tensor | None:
        """Of each view, booleans, or the default where there is nothing to say; None: of all."""
        device = next((m.device for m in known if m is not None), None)
        if device is None:
            return None
        return self._join(
            [
                torch.full(view.out_shape, default, device=device) if m is None else m
                for view, m in zip(self.views, known, strict=True)
            ]
        )

    def doubts(self, y: Tensor) -> list[str]:
        told = [
            words
            for view, part in zip(self.views, self._parts(y), strict=True)
            for words in view.doubts(part)
        ]
        return list(dict.fromkeys(told))

    def without_repeats(self, y: Tensor) -> Tensor:
        return self._join(
            [view.without_repeats(part) for view, part in zip(self.views, self._parts(y), strict=True)]
        )

    @property
    def object_channels(self) -> int | None:
        return next((view.object_channels for view in self.views if view.object_channels is not None), None)

    def forward(self, x: Tensor) -> Tensor:
        self._check(x, self.in_shape, "forward", "object")
        return self._join([view(x) for view in self.views])

    def adjoint(self, y: Tensor) -> Tensor:
        self._check(y, self.out_shape, "adjoint", "measurement")
        parts = zip(self.views, self._parts(y), strict=True)
        return torch.stack([view.adjoint(part) for view, part in parts]).sum(0)

    def _parts(self, y: Tensor) -> tuple[Tensor, ...]:
        """What each view measured."""
        if self.same:
            return y.unbind(-len(self.out_shape))
        parts = zip(y.split(self.sizes, dim=-1), self.views, strict=True)
        return tuple(part.unflatten(-1, view.out_shape) for part, view in parts)

    def _join(self, parts: list[Tensor]) -> Tensor:
        if self.same:
            return torch.stack(parts, dim=-len(self.out_shape))
        flat = [part.flatten(-len(v.out_shape)) for part, v in zip(parts, self.views, strict=True)]
        return torch.cat(flat, dim=-1)
