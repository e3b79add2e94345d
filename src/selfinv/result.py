"""What comes of restoring one image."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from selfinv.model import TrainedModel
from selfinv.solvers.base import Solver, Status
from selfinv.types import Array


@dataclass(frozen=True)
class Result:
    """A restored image and how it came about.

    Parameters
    ----------
    image
        Same shape, axes and intensity units as the input, float32; with an operator whose values are not
        pixels, its object.
    status
        How the run ended; ``status.failed`` says not to use it, ``status.advice`` what to do.
    stats
        How it was made, in plain types:

        - ``method`` as it was asked for, ``seed``, ``device``, ``axes``, ``boundary``, ``seconds``,
          ``versions``;
        - ``chosen``: of several methods the one (if the run was ended early, the part of it) that the image
          is by, ``weights`` and ``mixture``: what was mixed; ``trials``: name, parameter, setting, held-out
          score, steps of all that was tried, ``table``: the same in Markdown with reasons, ``skipped``: what
          could not be tried or was not taken, and why; ``weight``, ``balance``, ``fidelity``: settings, a
          weight in the image's units (of total variation alone for the noisiest channel, if noise differs; of
          ``ssi`` and ``auto`` left out, and in ``trials`` in those of ``channel_units``, where the scales of
          these differ);
        - ``held_out_score``, and that ``of_a_constant``, in the image's units (squared, if ``loss`` is
          ``"l2"``; in ``channel_units`` if there are any): what hidden values are off by, noise included;
        - of a network ``steps``, ``best_step`` (whose weights were kept), ``parameters``, ``symmetries``,
          ``history``: step, training loss (where noise is learned, minus a log-likelihood), held-out score;
        - ``noise``: whether it is independent, in words; ``stray_values``: how many were left out; ``psf``:
          what was fitted of it; ``channel_units``: offsets and scales that channels were brought to.
    model
        The trained inverse, to save or to apply to more images of the same instrument; without what was mixed
        in (``stats["weights"]``) and, of a function, without what values themselves added (of a blur that
        varies over the field they are asked in images of the same size); None where a classical method made
        the image, or most of it (with ``method="ssi-network"`` there always is one).
    solver
        What made the image, or most of it, with the settings that were chosen, for values in
        ``channel_units`` if there are any.
    predicted
        What the instrument would measure of the restored object, of its part beyond the image's edges too:
        the measurement's shape and units, float32 or complex64. The measurement less this is what nothing
        in the object explains: noise, if all is well, without any structure, and less than there is where
        the object has about as many values as were measured.
    """

    image: Array
    status: Status
    stats: dict[str, Any] = field(default_factory=dict)
    model: TrainedModel | None = None
    solver: Solver | None = None
    predicted: Array | None = None

    def __repr__(self) -> str:
        shape = " × ".join(str(n) for n in self.image.shape)
        return f"<Result of {shape} by {self.stats.get('method')}: {self.status}>"
