"""The family of point spread functions that ``psf fit`` is told of by its options."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from selfinv.cli.images import read_psf
from selfinv.cli.options import numbers, per_axis, shape_of
from selfinv.types import InputError

if TYPE_CHECKING:
    from selfinv.io import Image
    from selfinv.semiblind import PSFFamily

NOT_OF_FAMILY = {
    "gaussian": ("psf", "defocus", "terms", "na", "wavelength", "immersion", "fit"),
    "scaled": ("sigma", "defocus", "terms", "na", "wavelength", "immersion", "fit", "shape"),
    "gibson-lanni": ("psf", "sigma", "terms"),
    "zernike": ("psf", "sigma"),
}
IMMERSION = 1.33


@dataclass(frozen=True)
class Told:
    """What is told of a point spread function; all of it as the options of that name."""

    family: str
    psf: Path | None = None
    shape: str | None = None
    sigma: str | None = None
    defocus: float | None = None
    terms: str | None = None
    na: float | None = None
    wavelength: float | None = None
    immersion: float | None = None
    fit: str | None = None
    pixel_size: str | None = None
    spread: float | None = None

    def of(self, image: Image) -> tuple[PSFFamily, list[float] | None]:
        """The family, for an image, and the pixel sizes in µm as far as they are known."""
        families = {
            "gaussian": self._gaussian,
            "scaled": self._scaled,
            "gibson-lanni": self._optics,
            "zernike": self._optics,
        }
        if self.family not in families:
            raise InputError(
                f"--family {self.family!r} is unknown; use gaussian, scaled, gibson-lanni or zernike"
            )
        for option in NOT_OF_FAMILY[self.family]:
            if getattr(self, option) is not None:
                raise InputError(
                    f"--{option} says nothing of --family {self.family}; leave it out, or name its family"
                )
        return families[self.family](image)

    def _gaussian(self, image: Image) -> tuple[PSFFamily, list[float] | None]:
        from selfinv import semiblind

        if self.sigma is None:
            raise InputError("--family gaussian needs --sigma, about how wide the PSF is")
        widths = numbers("--sigma", self.sigma, "3,1.5")
        sizes, pixels = self._sizes(len(widths) + 1)
        spread = semiblind.WIDTH_SPREAD if self.spread is None else self.spread
        return semiblind.gaussian_family(widths, sizes, pixel_size=pixels or 1.0, spread=spread), pixels

    def _scaled(self, image: Image) -> tuple[PSFFamily, list[float] | None]:
        from selfinv import semiblind

        if self.psf is None:
            raise InputError("--family scaled needs --psf, a PSF of the right shape")
        kernel = read_psf(self.psf, image)
        _, pixels = self._sizes(kernel.ndim)
        letters = "zyx"[-kernel.ndim :]
        if pixels is None and all(a in image.voxel_size for a in letters):
            pixels = [image.voxel_size[a] for a in letters]
        spread = semiblind.WIDTH_SPREAD if self.spread is None else self.spread
        return semiblind.scaled_family(kernel, spread=spread), pixels

    def _optics(self, image: Image) -> tuple[PSFFamily, list[float] | None]:
        from selfinv import semiblind
        from selfinv.psf import Objective

        sizes, pixels = self._sizes(2)
        if pixels is None and "x" in image.voxel_size:
            pixels = [image.voxel_size.get(a, image.voxel_size["x"]) for a in "yx"]
        about = self.defocus if self.family == "gibson-lanni" else self.terms
        if about is None or self.na is None or self.wavelength is None or pixels is None:
            first = {
                "gibson-lanni": "--defocus (about how far out of focus, as 1 for a micrometre; it is fitted)",
                "zernike": "--terms",
            }[self.family]
            raise InputError(
                f"--family {self.family} needs {first}, --na, --wavelength and, "
                f"where the file does not tell it, --pixel-size, all lengths in µm"
            )
        index = IMMERSION if self.immersion is None else self.immersion
        optics = Objective(na=self.na, wavelength=self.wavelength, ni=index)
        if isinstance(about, str):
            found = semiblind.zernike_family(
                sizes or (25, 25),
                optics,
                terms_of(about),
                pixel_size=pixels,
                defocus=self.defocus or 0.0,
                fit=_words(self.fit or "defocus,spherical"),
                spread=semiblind.TERM_SPREAD if self.spread is None else self.spread,
            )
        else:
            found = semiblind.gibson_lanni_family(
                sizes or (17, 17),
                optics,
                pixel_size=pixels,
                defocus=about,
                fit=_words(self.fit or "defocus"),
                spread=semiblind.SPREAD if self.spread is None else self.spread,
            )
        return found, pixels

    def _sizes(self, ndim: int) -> tuple[tuple[int, ...] | None, list[float] | None]:
        """``--shape`` and ``--pixel-size``, as far as they are given."""
        sizes = None if self.shape is None else shape_of(self.shape, ndim)
        told = self.pixel_size
        return sizes, None if told is None else per_axis("--pixel-size", told, ndim, "0.3,0.1,0.1")


def terms_of(listed: str) -> dict[str, float]:
    """The Zernike coefficients of a list like ``defocus=0.3,spherical=-0.1``."""
    found: dict[str, float] = {}
    for word in _words(listed):
        name, equals, value = word.partition("=")
        if not equals or name.strip() in found:
            raise InputError(f"--terms {listed!r}: expected each term once, e.g. defocus=0.3,spherical=-0.1")
        found[name.strip()] = numbers(f"--terms {name.strip()}", value, "0.3")[0]
    return found


def _words(listed: str) -> list[str]:
    return [word.strip() for word in listed.split(",")]
