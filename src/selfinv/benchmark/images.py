"""What is degraded: the images of a folder, volumes with their own PSF, and synthetic volumes."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Literal

import numpy as np

from selfinv import io, noise, psf
from selfinv.types import Array, InputError, middle_of

SMALLEST = 32  # pixels along an axis: the benchmark's PSF is 17 wide, and frequencies need room
SUFFIXES = (".png", ".tif", ".tiff", ".npy")
LUMINANCE = (0.2125, 0.7154, 0.0721)  # ITU-R BT.709
SYNTHETIC = ("spheres", "filaments")
VOXEL = (0.5, 0.2, 0.2)  # µm, of the synthetic volumes


@dataclass(frozen=True)
class Source:
    """Where an image comes from; small, so that it can be sent to another process.

    Parameters
    ----------
    name
        Of the image, unique in a run.
    kind
        ``"image"``, ``"volume"`` (a folder with ``observed``, ``psf`` and perhaps ``truth``) or
        ``"synthetic"``.
    path
        The file, or the volume's folder.
    crop
        The central part of this size is taken; 0: everything. Synthetic volumes are made in this size.
    digest
        Of the contents, so that a resumed run notices another image under an old name.
    has_truth
        Whether it can be scored against a truth.
    """

    name: str
    kind: Literal["image", "volume", "synthetic"]
    path: str = ""
    crop: int = 0
    digest: str = ""
    has_truth: bool = True

    @property
    def ndim(self) -> int:
        """Spatial axes."""
        return 2 if self.kind == "image" else 3


@dataclass(frozen=True)
class Loaded:
    """A source's arrays.

    Parameters
    ----------
    truth
        From 0 to 1, float32, ``(y, x)`` or ``(z, y, x)``; None where there is none.
    observed, psf
        What was measured, and through what, of a volume that came with both.
    spacing
        Voxel size along each axis, µm or relative.
    """

    truth: Array | None
    observed: Array | None = None
    psf: Array | None = None
    spacing: tuple[float, ...] | None = None


def find_images(folder: Path, crop: int, names: tuple[str, ...] = ()) -> tuple[list[Source], list[str]]:
    """The 2-D images of a folder, and one line on each that is changed or left out.

    Files named ``psf`` are not images. Colour is turned to grey.

    Raises
    ------
    InputError
        If there is no folder or no usable image in it.
    """
    files = [
        p for p in _listed(folder, "--images") if p.suffix.lower() in SUFFIXES and p.stem.lower() != "psf"
    ]
    chosen = [p for p in files if not names or p.name.startswith(names)]
    sources, remarks = [], []
    for path in chosen:
        name = path.stem if sum(p.stem == path.stem for p in chosen) == 1 else path.name
        source = Source(name, "image", str(path), crop, _digest(path))
        try:
            truth = load(source).truth
        except InputError as error:
            remarks.append(f"{path.name} is left out: {error}")
            continue
        if _is_colour(path):
            remarks.append(f"{path.name} is in colour: its luminance is used")
        if truth is not None and crop and min(truth.shape) < crop:
            remarks.append(f"{path.name}: only {' × '.join(map(str, truth.shape))} of the {crop}² asked for")
        sources.append(source)
    if not sources:
        found = f"of {len(files)} images none is usable" if files else "there is no image"
        if files and names and not chosen:
            found = f"no image's name starts with {' or '.join(names)}"
        why = f" ({remarks[0]})" if remarks else ""
        raise InputError(f"{folder}: {found}{why}; give a folder of grey PNG, TIFF or NPY images")
    return sources, remarks


def find_volumes(
    folder: Path | None, crop: int, names: tuple[str, ...] = ()
) -> tuple[list[Source], list[str]]:
    """The volumes of a folder (each a subfolder with ``observed`` and ``psf``), then the synthetic ones, and
    one line on each subfolder that is left out.

    Raises
    ------
    InputError
        If there is no folder, or no volume in it.
    """
    sources, remarks = [], []
    inside = [] if folder is None else [p for p in _listed(folder, "--volumes") if p.is_dir()]
    for path in inside if folder is None else [folder, *inside]:
        parts = {stem: _part(path, stem) for stem in ("observed", "psf", "truth")}
        lacking = [stem for stem in ("observed", "psf") if parts[stem] is None]
        if not lacking:
            digest = "".join(_digest(p) for p in parts.values() if p is not None)
            source = Source(path.name, "volume", str(path), crop, digest, parts["truth"] is not None)
            try:
                load(source)
                sources.append(source)
            except InputError as error:
                remarks.append(f"{path.name} is left out: {error}")
        elif path != folder:
            remarks.append(f"{path.name} is left out: it has no {' and no '.join(lacking)} (TIFF or NPY)")
    if folder is not None and not sources:
        why = f" ({remarks[0]})" if remarks else ""
        raise InputError(
            f"{folder}: no volume{why}; each needs a folder with observed.tif, psf.tif (truth.tif)"
        )
    size = min(crop or 64, 64)
    sources += [Source(name, "synthetic", crop=size) for name in SYNTHETIC]
    return [s for s in sources if not names or s.name.startswith(names)], remarks


@lru_cache(maxsize=2)
def load(source: Source) -> Loaded:
    """The arrays of a source.

    Raises
    ------
    InputError
        If they cannot be read, are constant, have another number of axes, or are too small.
    """
    if source.kind == "synthetic":
        return Loaded(synthetic(source.name, synthetic_shape(source)), spacing=VOXEL)
    if source.kind == "volume":
        return _load_volume(source)
    image = io.read(Path(source.path))
    array, axes = image.data, image.axes or ("yx" if image.data.ndim == 2 else "yxc")
    if array.ndim == 3 and axes == "yxc" and array.shape[-1] in (3, 4):
        array = array[..., :3].astype(np.float64) @ np.array(LUMINANCE)
    if array.ndim != 2:
        raise InputError(f"it has {array.ndim} axes {array.shape}; this track takes 2-D images")
    if min(array.shape) < SMALLEST:
        small = " × ".join(str(n) for n in array.shape)
        raise InputError(f"it has only {small} pixels; at least {SMALLEST} along each axis are needed")
    return Loaded(noise.normalise_minmax(_central(array, source.crop)))


def grey(array: Array) -> Array:
    """Rescale to 0…1 for a picture; a constant becomes 0."""
    low, high = float(array.min()), float(array.max())
    return (array - low) / (high - low) if high > low else np.zeros_like(array)


def synthetic_shape(source: Source) -> tuple[int, int, int]:
    """The shape ``(z, y, x)`` of a synthetic volume: half as deep as it is wide, but at least 16."""
    return max(source.crop // 2, 16), source.crop, source.crop


def synthetic(name: str, shape: tuple[int, int, int]) -> Array:
    """A volume of ``"spheres"`` (solid, of several sizes) or ``"filaments"`` (winding, thin), 0 to 1,
    float32.

    Made with voxels of `VOXEL` µm, so round things are flat in the array. Antialiased, since nature has no
    voxels.

    Raises
    ------
    InputError
        If the name is unknown.
    """
    if name not in SYNTHETIC:
        raise InputError(f"there is no synthetic volume {name!r}; use {' or '.join(SYNTHETIC)}")
    random = np.random.default_rng(0)
    extent = np.array(shape) * VOXEL
    grid = np.stack(
        np.meshgrid(*((np.arange(n) + 0.5) * v for n, v in zip(shape, VOXEL, strict=True)), indexing="ij"), -1
    )
    volume = np.zeros(shape)
    if name == "spheres":
        for _ in range(24):
            centre, radius = random.uniform(0.08, 0.92, 3) * extent, random.uniform(0.4, 1.4)
            distance = np.linalg.norm(grid - centre, axis=-1)
            ball = random.uniform(0.3, 1.0) * np.clip((radius - distance) / 0.2 + 0.5, 0, 1)
            volume = np.maximum(volume, ball)
    else:
        for _ in range(10):
            point = random.uniform(0.1, 0.9, 3) * extent
            direction = random.normal(size=3) * (0.5, 1, 1)
            strength = random.uniform(0.5, 1.0)
            for _ in range(int(extent.max() / 0.15)):
                direction = direction / np.linalg.norm(direction) + 0.25 * random.normal(size=3) * (0.5, 1, 1)
                point = point + 0.15 * direction / np.linalg.norm(direction)
                _stamp(volume, grid, point, strength)
    return noise.normalise_minmax(volume)


def synthetic_psf(shape: tuple[int, int, int]) -> Array:
    """The anisotropic widefield PSF of the synthetic volumes: NA 0.9 in water, `VOXEL`-sized voxels."""
    optics = psf.Objective(na=0.9, wavelength=0.55, ni=1.33, tg=0.0, tg0=0.0)
    size = (min(shape[0], 17), min(shape[1], 25), min(shape[2], 25))
    return psf.gibson_lanni(size, optics, pixel_size=VOXEL[1:], z_step=VOXEL[0])


def _stamp(volume: Array, grid: Array, point: Array, strength: float, radius: float = 0.22) -> None:
    lower = [max(0, int((p - 3 * radius) / v)) for p, v in zip(point, VOXEL, strict=True)]
    upper = [int((p + 3 * radius) / v) + 1 for p, v in zip(point, VOXEL, strict=True)]
    box = tuple(slice(a, max(a, b)) for a, b in zip(lower, upper, strict=True))
    if volume[box].size:
        distance = np.linalg.norm(grid[box] - point, axis=-1)
        volume[box] = np.maximum(volume[box], strength * np.exp(-0.5 * (distance / radius) ** 2))


def _load_volume(source: Source) -> Loaded:
    folder = Path(source.path)
    files = {stem: _part(folder, stem) for stem in ("observed", "psf", "truth")}
    arrays = {k: io.read(p, axes="zyx").data for k, p in files.items() if p is not None}
    for name, array in arrays.items():
        if array.ndim != 3:
            raise InputError(f"{folder}: {name} has {array.ndim} axes; expected a volume (z, y, x)")
    observed = _central(arrays["observed"], source.crop).astype(np.float32)
    truth = arrays.get("truth")
    if truth is not None:
        if truth.shape != arrays["observed"].shape:
            raise InputError(f"{folder}: truth is {truth.shape} but observed {arrays['observed'].shape}")
        truth = noise.normalise_minmax(_central(truth, source.crop))
    try:
        kernel = psf.normalise(arrays["psf"])
    except InputError as error:
        raise InputError(f"{folder}: {error}") from None
    if source.crop:  # what a PSF spreads further than the image reaches is lost in any case
        kernel = _around_centre(kernel, observed.shape)
    return Loaded(truth, observed, kernel)


def _central(array: Array, size: int) -> Array:
    if not size:
        return array
    return array[middle_of(array.shape, [size] * array.ndim)]


def _around_centre(kernel: Array, shape: tuple[int, ...]) -> Array:
    """At most ``shape``, with the centre at ``n // 2`` before and after."""
    starts = [max(0, k // 2 - n // 2) for k, n in zip(kernel.shape, shape, strict=True)]
    return kernel[tuple(slice(a, a + n) for a, n in zip(starts, shape, strict=True))]


def _listed(folder: Path, option: str) -> list[Path]:
    if not folder.is_dir():
        raise InputError(f"{folder} is no folder; give one with {option}")
    return sorted(folder.iterdir())


def _part(folder: Path, stem: str) -> Path | None:
    found = (folder / f"{stem}{suffix}" for suffix in SUFFIXES)
    return next((path for path in found if path.is_file()), None)


def _is_colour(path: Path) -> bool:
    return io.read(path).data.ndim == 3


def _digest(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()[:16]
