"""A first look: degrade a sample image as the paper does, restore it, and show how much was gained."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from selfinv import io, metrics, noise, psf
from selfinv.report import preview
from selfinv.restoration import restore
from selfinv.result import Result
from selfinv.solvers.base import Callback
from selfinv.types import Array, InputError

STEPS = 400
NA, DEFOCUS = 0.8, 3.045


@dataclass(frozen=True)
class Demo:
    """The images and scores of a demonstration.

    Parameters
    ----------
    truth, blurry, noisy
        The sample (0 to 1), what the microscope makes of it, and what the camera makes of that.
    result
        The restoration.
    scores
        PSNR, SSIM and the others, for ``"noisy"``, ``"blurry"`` (without noise) and ``"restored"``.
    picture
        Where the comparison was written.
    """

    truth: Array
    blurry: Array
    noisy: Array
    result: Result
    scores: dict[str, dict[str, float]]
    picture: Path


def sample() -> Array:
    """A photograph that ships with scikit-image, 0 to 1, float32."""
    from skimage import data

    return noise.normalise_minmax(data.coins()[:256, :256])


def microscope_psf(na: float = NA, defocus: float = DEFOCUS) -> Array:
    """The paper's microscope (16x, 0.406 µm pixels, 0.6 µm light) or one like it, so many µm out of focus."""
    optics = psf.Objective(na=na, wavelength=0.6, ni=1.33, tg=0.0, tg0=0.0, working_distance=3000.0)
    return psf.gibson_lanni((17, 17), optics, pixel_size=0.406, defocus=defocus)


def run_demo(
    folder: Path, *, steps: int = STEPS, seed: int = 0, device: str = "auto", callback: Callback | None = None
) -> Demo:
    """Degrade, restore, score, and write ``demo.png`` and the images to ``folder``."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise InputError(f"the folder {folder} could not be made: {error.strerror}") from error
    picture = folder / "demo.png"
    for name in ("truth.tif", "noisy.tif", "psf.tif", "restored.tif"):
        io.check_output(folder / name)
    truth, kernel = sample(), microscope_psf()
    blurry, noisy = noise.benchmark_degradation(truth, kernel)
    result = restore(noisy, kernel, seed=seed, max_steps=steps, device=device, callback=callback)
    images = {"noisy": noisy, "blurry": blurry, "restored": result.image}
    scores = {
        name: metrics.scores(truth, image, data_range=1.0, clip=(0.0, 1.0)) for name, image in images.items()
    }
    for name, image in {"truth": truth, "noisy": noisy, "psf": kernel, "restored": result.image}.items():
        io.write(folder / f"{name}.tif", io.Image(image.astype("float32"), "yx"))
    words = {
        f"before: {scores['noisy']['psnr']:.1f} dB": noisy,
        f"after: {scores['restored']['psnr']:.1f} dB": result.image,
        "truth": truth,
    }
    preview(picture, words, "yx", title="selfinv demo: restored from the noisy image and the PSF alone")
    return Demo(truth, blurry, noisy, result, scores, picture)
