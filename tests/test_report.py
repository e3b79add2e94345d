"""The picture shows what a user compares: the images, where there is detail, their spectra."""

import numpy as np
import pytest
from imagecodecs import png_decode

from selfinv.report import preview, spectrum
from selfinv.types import InputError

DPI, SIDE = 110, 3.4


def scene(*shape):
    noise = np.random.default_rng(0).normal(0, 5, shape)
    return 100 + 80 * np.sin(np.arange(shape[-1]) / 3) * np.cos(np.arange(shape[-2]) / 4)[:, None] + noise


def drawn(path, images, axes, rows):
    """The decoded picture, checked to have a column for each image and as many rows."""
    preview(path, images, axes, title="a comparison")
    picture = png_decode(path.read_bytes())[..., :3]
    assert picture.shape == (round(SIDE * rows * DPI), round(SIDE * len(images) * DPI), 3)
    return picture.astype(int)


def is_grey(picture):
    return np.ptp(picture, axis=-1).max() == 0


@pytest.mark.parametrize(
    ("axes", "shape", "rows"),
    [
        ("yx", (120, 90), 3),
        ("yx", (16, 16), 3),
        ("zyx", (8, 32, 40), 4),
        ("xyz", (40, 32, 8), 4),
        ("tyx", (3, 32, 40), 3),
        ("cyx", (2, 32, 40), 3),
        ("tczyx", (2, 2, 4, 32, 32), 4),
    ],
)
def test_every_kind_of_image_is_drawn(tmp_path, axes, shape, rows):
    image = np.ascontiguousarray(scene(*shape[::-1]).T) if axes == "xyz" else scene(*shape)
    picture = drawn(tmp_path / "a.png", {"before": image, "after": image / 2}, axes, rows)
    assert is_grey(picture)
    assert len(np.unique(picture)) > 50  # the images, not just their frames and titles


@pytest.mark.parametrize("axes", ["yxc", "cyx"])
def test_three_channels_are_shown_in_colour(tmp_path, axes):
    image = np.zeros((3, 40, 48))
    image[0] = scene(40, 48)
    image = image if axes == "cyx" else np.moveaxis(image, 0, -1)
    picture = drawn(tmp_path / "a.png", {"before": image, "after": image}, axes, 3)
    red = (picture[..., 0] > 200) & (picture[..., 1] < 50) & (picture[..., 2] < 50)
    assert red.mean() > 0.02


def test_before_and_after_share_one_grey_scale(tmp_path):
    image = scene(48, 48)
    same = drawn(tmp_path / "a.png", {"": image, " ": image}, "yx", 3)
    dark = drawn(tmp_path / "b.png", {"": image / 4, " ": image}, "yx", 3)
    half = same.shape[1] // 2
    top = slice(60, same.shape[0] // 4)
    assert dark[top, 20 : half - 20].mean() < same[top, 20 : half - 20].mean() - 30
    np.testing.assert_allclose(dark[top, half:], same[top, half:], atol=2)


@pytest.mark.parametrize("bad", ["some", "all"])
def test_missing_values_do_not_spoil_the_picture(tmp_path, bad):
    image = scene(40, 48)
    holes = image.copy()
    holes[:10] = np.nan
    holes[20, 20] = np.inf
    if bad == "all":
        holes[:] = np.nan
    picture = drawn(tmp_path / "a.png", {"before": holes, "after": image}, "yx", 3)
    after_alone = drawn(tmp_path / "b.png", {"before": image, "after": image}, "yx", 3)
    half, top = picture.shape[1] // 2, picture.shape[0] // 4
    np.testing.assert_allclose(picture[60:top, half:], after_alone[60:top, half:], atol=2)


def test_a_constant_image_and_integers_are_drawn(tmp_path):
    images = {"before": np.full((20, 20), 7, np.uint16), "after": np.ones((20, 20))}
    assert is_grey(drawn(tmp_path / "a.png", images, "yx", 3))


@pytest.mark.parametrize(("name", "magic"), [("a.pdf", b"%PDF"), ("a.svg", b"<?xml"), ("a.PNG", b"\x89PNG")])
def test_the_extension_says_the_format(tmp_path, name, magic):
    preview(tmp_path / name, {"before": scene(20, 20)}, "yx")
    assert (tmp_path / name).read_bytes().startswith(magic)


@pytest.mark.parametrize("unit", [1e-25, 1e25])
def test_spectra_are_the_same_in_any_unit(unit):
    """Those of an image in W/m² were black."""
    image = scene(40, 48)
    np.testing.assert_allclose(spectrum(unit * image), spectrum(image), atol=1e-3)


def test_a_missing_folder_or_unknown_extension_is_an_input_error(tmp_path):
    images = {"before": scene(20, 20)}
    with pytest.raises(InputError, match=r"nowhere.*could not be written"):
        preview(tmp_path / "nowhere" / "a.png", images, "yx")
    for name in ("a.xyz", "a"):
        with pytest.raises(InputError, match=r"extension.*use \.png, \.pdf, \.svg"):
            preview(tmp_path / name, images, "yx")
    assert list(tmp_path.iterdir()) == []


def test_a_picture_that_breaks_off_leaves_the_old_one(tmp_path, monkeypatch):
    from matplotlib.figure import Figure

    path = tmp_path / "a.png"
    path.write_bytes(b"old")

    def full(self, target, **options):
        target.write_bytes(b"half")
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(Figure, "savefig", full)
    with pytest.raises(InputError, match="no space left"):
        preview(path, {"before": scene(20, 20)}, "yx")
    assert path.read_bytes() == b"old"
    assert [p.name for p in tmp_path.iterdir()] == ["a.png"]
