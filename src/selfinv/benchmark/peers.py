"""Other packages' methods, as their documentation has them called."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor, nn

from selfinv.benchmark.problem import Problem, Restored
from selfinv.types import Array, InputError


def skimage_richardson_lucy(problem: Problem) -> Restored:
    """``skimage.restoration.richardson_lucy`` with its default 30 iterations, not clipped to -1…1."""
    from skimage.restoration import richardson_lucy

    image = richardson_lucy(problem.image, _kernel(problem), num_iter=30, clip=False, filter_epsilon=1e-12)
    return Restored(image, inference_seconds=problem.watch.seconds(), steps=30)


def skimage_unsupervised_wiener(problem: Problem) -> Restored:
    """``skimage.restoration.unsupervised_wiener`` with its defaults, not clipped, its sampler seeded."""
    from skimage.restoration import unsupervised_wiener

    scale = float(np.abs(problem.image).max()) or 1.0
    kernel = _kernel(problem)
    random = np.random.default_rng(problem.seed)
    image, _ = unsupervised_wiener(problem.image / scale, kernel, clip=False, rng=random)
    return Restored(np.asarray(image) * scale, inference_seconds=problem.watch.seconds())


def deepinv_splitting(problem: Problem) -> Restored:
    """Deepinv's `SplittingLoss` with its defaults (90 % of the pixels shown, squared error, mean of 5
    splits).

    The network, its output bounds, the optimiser and the number of steps are those of ``ssi``, whole images
    in every step; the forward operator is ours, wrapped as its `LinearPhysics`.
    """
    try:
        from deepinv.loss import SplittingLoss
        from deepinv.physics import LinearPhysics
        from deepinv.physics.generator import BernoulliSplittingMaskGenerator
    except ImportError:
        raise InputError('deepinv is not installed; pip install "selfinv[deepinv]"') from None
    from selfinv.learning.inverter import Head, build_inverter, lift
    from selfinv.learning.measurement import gain, object_pads
    from selfinv.learning.normalisation import Normalisation
    from selfinv.learning.optimiser import Muon, muon_groups, one_cycle
    from selfinv.learning.presets import ssi

    y, A, to_image = problem.forward_model()
    recipe = ssi(A.in_shape, 1, steps=problem.steps)
    settings, steps = recipe.network, recipe.training.max_steps
    pads = object_pads(A, tuple(y.shape[2:]))
    normalisation = Normalisation.of(y)
    units = normalisation.divided_by(gain(A))
    target = normalisation.apply(y).float()
    inverter = build_inverter(settings, Head(), start=float(target.median()), seed=problem.seed).to(y.device)

    class Reconstruct(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.inverter = inverter

        def forward(self, measured: Tensor, physics: object) -> Tensor:
            return units.undo(self.inverter(lift(measured, pads, settings.marks)))

    def forward(x: Tensor, **_: object) -> Tensor:
        return normalisation.apply(A(x)).float()

    physics = LinearPhysics(A=forward, A_adjoint=lambda v, **_: A.adjoint(v), device=str(y.device))
    with torch.random.fork_rng(devices=[y.device] if y.device.type == "cuda" else []):
        torch.manual_seed(problem.seed)
        random = torch.Generator(y.device).manual_seed(problem.seed)
        shape = tuple(target.shape[1:])
        masks = BernoulliSplittingMaskGenerator(shape, split_ratio=0.9, device=y.device, rng=random)
        loss_function = SplittingLoss(mask_generator=masks)
        model = loss_function.adapt_model(Reconstruct())
        rate = recipe.training.learning_rate
        groups = muon_groups(model, inverter.network.hidden_weights(), rate)
        optimiser = Muon(groups, weight_decay=recipe.training.weight_decay)
        schedule = one_cycle(optimiser, steps)
        model.train()
        for _ in range(steps):
            x = model(target, physics, update_parameters=True)
            loss = loss_function(x, target, physics, model).mean()
            optimiser.zero_grad(set_to_none=True)
            loss.backward()
            optimiser.step()
            schedule.step()
        trained = problem.watch.seconds()
        model.eval()
        with torch.no_grad():
            image = to_image(model(target, physics))
    return Restored(
        image,
        training_seconds=trained,
        inference_seconds=problem.watch.seconds() - trained,
        steps=steps,
        device=str(y.device),
    )


def _kernel(problem: Problem) -> Array:
    """The PSF, a single 1 if there is none."""
    return np.ones((1,) * problem.image.ndim) if problem.psf is None else problem.psf
