"""Which files are images, and what is said of those that are not."""

import numpy as np
import pytest
import tifffile
from imagecodecs import png_encode

from selfinv.benchmark.images import VOXEL, Source, find_images, find_volumes, load, synthetic, synthetic_psf
from selfinv.benchmark.scores import half_maximum_widths
from selfinv.types import InputError


def picture(shape, seed=0):
    return np.random.default_rng(seed).integers(0, 255, shape, dtype=np.uint8)


def write(path, image):
    path.write_bytes(png_encode(image))


def test_the_central_crop_from_0_to_1(tmp_path):
    image = picture((60, 80))
    write(tmp_path / "a.png", image)
    sources, remarks = find_images(tmp_path, 40)
    truth = load(sources[0]).truth
    middle = image[10:50, 20:60].astype(float)
    assert np.allclose(truth, (middle - middle.min()) / np.ptp(middle), atol=1e-6)
    assert remarks == []


def test_psf_and_other_files_are_no_images(tmp_path):
    write(tmp_path / "a.png", picture((40, 40)))
    np.save(tmp_path / "psf.npy", np.ones((3, 3)))
    (tmp_path / "input_rows.csv").write_text("image,kind\n")
    assert [s.name for s in find_images(tmp_path, 0)[0]] == ["a"]


def test_colour_becomes_luminance_and_is_said(tmp_path):
    image = picture((40, 50, 3))
    write(tmp_path / "a.png", image)
    sources, remarks = find_images(tmp_path, 0)
    grey = image @ np.array([0.2125, 0.7154, 0.0721])
    assert np.corrcoef(load(sources[0]).truth.ravel(), grey.ravel())[0, 1] > 0.99999
    assert "a.png is in colour" in remarks[0]


def test_small_ones_are_left_out_and_it_is_said(tmp_path):
    write(tmp_path / "a.png", picture((40, 40)))
    write(tmp_path / "b.png", picture((20, 90)))
    tifffile.imwrite(tmp_path / "c.tif", np.zeros((5, 40, 40), np.uint8) + picture((5, 40, 40)))
    write(tmp_path / "d.png", np.full((40, 40), 7, np.uint8))
    sources, remarks = find_images(tmp_path, 64)
    assert [s.name for s in sources] == ["a"]
    said = " ".join(remarks)
    left_out = [f"{name} is left out" for name in ("b.png", "c.tif", "d.png")]
    for words in (*left_out, "it has only 20 × 90", "40 × 40 of the 64²"):
        assert words in said


def test_one_name_for_each(tmp_path):
    write(tmp_path / "a.png", picture((40, 40)))
    tifffile.imwrite(tmp_path / "a.tif", picture((40, 40)))
    assert [s.name for s in find_images(tmp_path, 0)[0]] == ["a.png", "a.tif"]


def test_nothing_there(tmp_path):
    with pytest.raises(InputError, match="there is no image"):
        find_images(tmp_path, 0)
    with pytest.raises(InputError, match="is no folder"):
        find_images(tmp_path / "none", 0)
    write(tmp_path / "b.png", picture((20, 90)))
    with pytest.raises(InputError, match=r"none is usable \(b.png"):
        find_images(tmp_path, 0)
    with pytest.raises(InputError, match="starts with zebra"):
        find_images(tmp_path, 0, ("zebra",))


def test_another_image_under_the_old_name_is_another_source(tmp_path):
    write(tmp_path / "a.png", picture((40, 40)))
    before = find_images(tmp_path, 0)[0][0]
    write(tmp_path / "a.png", picture((40, 40), seed=1))
    assert find_images(tmp_path, 0)[0][0] != before


def test_volumes_with_and_without_truth(tmp_path):
    folders = {
        "bars": ("observed", "psf", "truth"),
        "bead": ("observed", "psf"),
        "blind": ("observed",),
        "notes": (),
    }
    for name, parts in folders.items():
        (tmp_path / name).mkdir()
        for part in parts:
            values = picture((8, 20, 20), len(part)).astype(np.float32)
            tifffile.imwrite(tmp_path / name / f"{part}.tif", values)
    (tmp_path / "dark").mkdir()
    for part, value in (("observed", 1), ("psf", np.nan)):
        values = np.full((5, 8, 8), value, np.float32)
        tifffile.imwrite(tmp_path / "dark" / f"{part}.tif", values)
    sources, remarks = find_volumes(tmp_path, 0)
    assert [r.split(": ")[0] for r in remarks] == [f"{n} is left out" for n in ("blind", "dark", "notes")]
    assert "it has no psf" in remarks[0]
    assert "it has no observed and no psf" in remarks[2]
    assert [(s.name, s.has_truth) for s in sources] == [
        ("bars", True),
        ("bead", False),
        ("spheres", True),
        ("filaments", True),
    ]
    assert load(sources[1]).truth is None
    assert load(sources[0]).observed.shape == (8, 20, 20)
    cropped = load(find_volumes(tmp_path, 16)[0][0])
    assert cropped.observed.shape == cropped.psf.shape == (8, 16, 16)
    with pytest.raises(InputError, match="no volume"):
        find_volumes(tmp_path / "notes", 0)
    with pytest.raises(InputError, match="none is no folder; give one with --volumes"):
        find_volumes(tmp_path / "none", 0)


@pytest.mark.parametrize("crop", [16, 17])
@pytest.mark.parametrize("size", [20, 21])
def test_a_psf_that_is_cut_with_its_volume_keeps_its_centre(tmp_path, size, crop):
    kernel = np.zeros((5, size, size), np.float32)
    kernel[2, size // 2, size // 2] = 1
    tifffile.imwrite(tmp_path / "observed.tif", picture((8, 24, 24)))
    tifffile.imwrite(tmp_path / "psf.tif", kernel)
    cut = load(Source("a", "volume", str(tmp_path), crop)).psf
    assert cut.shape == (5, crop, crop)
    assert cut[2, crop // 2, crop // 2] == 1


def test_a_truth_of_another_shape_is_left_out(tmp_path):
    for part, width in (("observed", 20), ("psf", 20), ("truth", 21)):
        tifffile.imwrite(tmp_path / f"{part}.tif", picture((8, 20, width)).astype(np.float32))
    with pytest.raises(InputError, match=r"truth is \(8, 20, 21\) but observed \(8, 20, 20\)"):
        find_volumes(tmp_path, 16)


@pytest.mark.parametrize(("crop", "size"), [(0, 64), (32, 32), (512, 64)])
def test_synthetic_volumes_are_at_most_64_wide(crop, size):
    assert {s.crop for s in find_volumes(None, crop)[0]} == {size}


@pytest.mark.parametrize("name", ["spheres", "filaments"])
def test_synthetic_volumes(name):
    volume = synthetic(name, (16, 32, 32))
    assert (volume.min(), volume.max()) == (0, 1)
    assert 0.01 < (volume > 0.2).mean() < 0.6
    assert np.array_equal(volume, synthetic(name, (16, 32, 32)))
    assert load(Source(name, "synthetic", crop=32)).spacing == VOXEL


def test_the_synthetic_psf_is_longer_in_depth_than_it_is_wide():
    kernel = synthetic_psf((32, 64, 64))
    z, _, x = half_maximum_widths(kernel)
    assert z * VOXEL[0] > 2.5 * x * VOXEL[2]
