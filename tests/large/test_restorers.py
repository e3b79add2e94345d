"""A tile's result is the whole image's."""

import warnings
from dataclasses import replace

import numpy as np
import pytest
import torch

import selfinv
from selfinv.large.restorers import ClassicalRestorer, NetworkRestorer, restore_core
from selfinv.large.tiles import Plan
from selfinv.learning.inverse_filters import InverseFilters
from selfinv.learning.outliers import OutlierTest
from selfinv.learning.presets import ssi, ssi_paper
from selfinv.psf import gaussian
from selfinv.solvers.chambolle_pock import ChambollePock
from selfinv.solvers.conjugate_gradient import ConjugateGradient
from selfinv.solvers.richardson_lucy import RichardsonLucy
from selfinv.solvers.wiener import Wiener
from selfinv.types import InputError, SelfinvWarning

RNG = np.random.default_rng


def scene(*shape):
    grid = np.indices(shape).astype(float)
    x = sum(np.sin(g / (5.0 + 3 * i)) for i, g in enumerate(grid)) + (RNG(0).random(shape) < 0.002) * 5.0
    return (20.0 + 4.0 * x + RNG(1).normal(0, 1.0, shape)).astype(np.float32)


def lopsided(*shape):
    """Without any symmetry, and nothing at its edge."""
    psf = np.pad(RNG(2).random([n - 2 for n in shape]), 1)
    return psf / psf.sum()


def tile_by_tile(restorer, image, core):
    space = image.shape[1:]
    reaches = restorer.reaches(space)
    whole = np.full(image.shape, np.nan, np.float32)
    for tile in Plan(space, "zyx"[-len(space) :], core):
        whole[(slice(None), *tile.core)] = restore_core(
            restorer, lambda seen: image[(slice(None), *seen)], tile.core, space, reaches
        )
    return whole


def trained(image, psf, axes, recipe=ssi, *, mask_nan=False, **changes):
    preset = recipe(image.shape[1:], image.shape[0], steps=2)
    # Single precision here: in half precision equality is up to its rounding.
    preset = replace(preset, network=replace(preset.network, precision="single", **changes))
    with warnings.catch_warnings():  # after two steps it is no good, but it is a network
        warnings.simplefilter("ignore", SelfinvWarning)
        boundary = "auto" if psf is None else "unknown"
        return selfinv.restore(
            image, psf, method=preset, axes=axes, boundary=boundary, mask_nan=mask_nan
        ).model


@pytest.mark.parametrize(
    ("shape", "psf", "core", "recipe", "changes"),
    [
        ((1, 300, 411), (5, 8), (96, 128), ssi, {}),
        ((2, 301, 290), None, (128, 96), ssi, {}),
        ((1, 420, 300), (4, 3), (160, 160), ssi_paper, {}),
        ((1, 12, 70, 90), (3, 3, 4), (12, 24, 32), ssi, {"widths": (4, 8), "pooled_axes": ((True,) * 3,)}),
    ],
)
@pytest.mark.filterwarnings("ignore:the model does not suit this image")  # it has hardly learned
def test_a_network_sees_of_a_tile_what_it_would_see_of_the_whole(shape, psf, core, recipe, changes):
    image = scene(*shape)
    axes = "c" + "zyx"[-len(shape) + 1 :]
    model = trained(image, None if psf is None else lopsided(*psf), axes, recipe, **changes)
    restorer = NetworkRestorer(model)
    tiled = tile_by_tile(restorer, image, core)
    whole = model.apply(image, axes=axes)
    assert len(list(Plan(shape[1:], axes[1:], core))) > 3
    assert np.abs(tiled - whole).max() < 1e-4 * np.ptp(image)


def test_where_noise_is_uneven_and_values_are_missing_tiles_are_the_whole_too():
    image = scene(1, 280, 400)
    image[:, 140:] += RNG(3).normal(0, 6.0, (1, 140, 400)).astype(np.float32)
    image[:, :, :60][RNG(4).random((1, 280, 60)) < 0.35] = np.nan
    model = trained(image, None, "cyx", mask_nan=True)
    assert model.own_values.uneven
    whole = model.apply(image, axes="cyx", mask_nan=True)
    for halo in (None, 8):
        tiled = tile_by_tile(NetworkRestorer(model, halo=halo), image, (96, 96))
        assert np.sqrt(np.mean((tiled - whole) ** 2)) < (1e-5 if halo is None else 1e-2) * np.ptp(whole)


def test_the_receptive_radius_is_what_the_gradient_says():
    settings = replace(ssi((256, 256), 1).network, precision="single")
    (radius, _) = settings.receptive_radius()
    model = selfinv.learning.unet.UNet(settings).eval()
    x = torch.randn(1, 2, 384, 64, requires_grad=True)
    reached = 0
    for place in range(184, 200):  # any offset within the coarsest sample
        (slope,) = torch.autograd.grad(model(x)[0, 0, place, 32], x, retain_graph=False)
        rows = slope.abs().sum((0, 1, 3)).nonzero().flatten()
        reached = max(reached, place - int(rows.min()), int(rows.max()) - place)
    assert radius - 16 <= reached <= radius


@pytest.mark.parametrize(
    ("solver", "bound"),
    [
        (ChambollePock(2.0, max_steps=300, rtol=0.0), 3e-4),
        (ConjugateGradient(0.5, max_steps=60), 5e-3),
        (RichardsonLucy(max_steps=10), 1e-5),
        (Wiener(balance=8.0), 1e-2),
    ],
)
def test_what_tiles_change_of_classical_methods_is_within_its_bound(solver, bound):
    """Root mean square, of the range: the documentation's table."""
    image, psf = scene(1, 220, 200), lopsided(5, 7)
    tiled = tile_by_tile(ClassicalRestorer(solver, torch.tensor(psf, dtype=torch.float32)), image, (96, 96))
    whole = selfinv.restore(image[0], psf, method=solver, boundary="unknown").image
    assert np.sqrt(np.mean((tiled[0] - whole) ** 2)) < bound * np.ptp(image)


class Greedy(NetworkRestorer):
    """Runs out of memory where more than so many values are seen."""

    def restore(self, block, seen, space):
        if block.size > 200 * 200:
            raise RuntimeError("DefaultCPUAllocator: can't allocate memory: you tried to allocate 9 bytes")
        return super().restore(block, seen, space)


@pytest.mark.filterwarnings("ignore:the model does not suit this image")  # it has hardly learned
def test_out_of_memory_backs_off_to_smaller_tiles():
    image = scene(1, 400, 420)
    model = trained(image, None, "cyx", widths=(4, 8), pooled_axes=((True, True),))
    core = (slice(0, 400), slice(0, 420))
    read = lambda seen: image[(slice(None), *seen)]  # noqa: E731
    reaches = NetworkRestorer(model).reaches((400, 420))
    x = restore_core(Greedy(model), read, core, (400, 420), reaches)
    assert np.allclose(x, model.apply(image, axes="cyx"), atol=1e-4 * np.ptp(image))


def test_an_error_that_is_not_about_memory_is_an_error():
    class Broken(NetworkRestorer):
        def restore(self, block, seen, space):
            raise RuntimeError("shapes do not match")

    model = trained(scene(1, 64, 64), None, "cyx", widths=(4, 8), pooled_axes=((True, True),))
    with pytest.raises(RuntimeError, match="do not match"):
        restore_core(
            Broken(model),
            lambda seen: scene(1, 64, 64),
            (slice(0, 64), slice(0, 64)),
            (64, 64),
            Broken(model).reaches((64, 64)),
        )


def test_a_model_still_fits_what_it_was_trained_on_and_not_another_noise():
    image = scene(1, 200, 200)
    model = selfinv.restore(
        image, lopsided(5, 5), method="ssi-network", axes="cyx", boundary="unknown", max_steps=60
    ).model
    restorer = NetworkRestorer(model)
    assert restorer.score(image + RNG(3).normal(0, 5.0, image.shape)) > 2.0 * restorer.score(image)
    assert restorer.score(image[:, ::-1]) < 1.3 * restorer.score(image)


def test_models_of_operators_off_the_pixel_grid_are_refused():
    A = selfinv.operators.Downsample((32, 32), 2)
    result = selfinv.restore(scene(16, 16), operator=A, method="ssi-network", max_steps=2)
    with pytest.raises(InputError, match="cannot go tile by tile"):
        NetworkRestorer(result.model)


@pytest.mark.parametrize("classical", [False, True])
def test_hot_pixels_are_left_out_tile_by_tile_too(classical):
    grid, kernel, whole = np.indices((96, 96)) / 6.0, gaussian(1.2, (7, 7)), (slice(0, 96),) * 2
    image = (20.0 + 4.0 * np.sin(grid[0]) * np.cos(grid[1]) + RNG(1).normal(0, 0.3, (96, 96))).astype("f4")
    if classical:
        restorer = ClassicalRestorer(Wiener(), torch.from_numpy(kernel).float())
    else:
        restorer = NetworkRestorer(trained(image[None], kernel, "cyx"))
    clean = restorer.restore(image[None], whole, (96, 96))
    hot = image.copy()
    hot[[20, 40, 60, 70], [30, 70, 20, 50]] += 2000.0
    with pytest.warns(SelfinvWarning, match="^4 values .* stand out"):
        restored = restorer.restore(hot[None], whole, (96, 96))
    assert np.abs(restored - clean).max() < np.ptp(image)


def test_tiles_of_another_model_are_not_gone_on_with(tmp_path):
    model = trained(scene(1, 64, 64), lopsided(5, 5), "cyx", widths=(8, 8), pooled_axes=((True,) * 2,))
    model.described(pieces=["another"]).save(tmp_path / "m.safetensors")
    digest = NetworkRestorer(model).digest()
    assert NetworkRestorer(selfinv.load_model(tmp_path / "m.safetensors")).digest() == digest
    others = {
        "psf": 2.0 * model.psf,
        "outliers": OutlierTest(sharpness=0.5, deviation=0.1),
        "object_normalisation": replace(model.object_normalisation, scale=3.0),
        "filters": InverseFilters(torch.ones(1, 1, 3, 3)),
        "fill": "zero",
    }
    assert digest not in {NetworkRestorer(replace(model, **{k: v})).digest() for k, v in others.items()}


def test_tiles_of_a_psf_of_another_shape_are_not_gone_on_with():
    wide, high = (ClassicalRestorer(Wiener(), torch.full(shape, 1.0 / 9.0)) for shape in ((1, 9), (9, 1)))
    assert wide.digest() != high.digest()
    assert wide.digest() == replace(wide, psf=wide.psf.clone()).digest()
