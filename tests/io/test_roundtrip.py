"""What is written comes back: the same values, axes, voxel sizes and metadata, also by other readers."""

from xml.etree import ElementTree

import numpy as np
import PIL.Image
import pytest
import tifffile
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from selfinv.io import Image, read, tiff, write
from selfinv.types import InputError, SelfinvWarning

DTYPES = (
    *("uint8", "uint16", "uint32", "uint64", "int8", "int16", "int32", "int64"),
    *("float16", "float32", "float64"),
)
UNFIT = {".ome.tif": {"float16", "uint64", "int64"}, ".fits": {"float16"}}


def canonical(data, axes):
    """The data and letters in the order tzcyx without axes of length 1, which files leave out."""
    order = sorted(range(data.ndim), key=lambda i: "tzcyx".index(axes[i]))
    moved = data.transpose(order)
    letters = "".join(axes[i] for i in order)
    kept = "".join(a for a, n in zip(letters, moved.shape, strict=True) if n > 1)
    return moved.squeeze(), kept


@st.composite
def images(draw, dtypes=DTYPES):
    spatial = draw(st.sampled_from(["x", "yx", "zyx"]))
    letters = spatial + "".join(draw(st.sets(st.sampled_from("tc"))))
    axes = "".join(draw(st.permutations(letters)))
    shape = tuple(draw(st.integers(1, 4)) for _ in axes)
    dtype = np.dtype(draw(st.sampled_from(dtypes)))
    # Big-endian arrays are what FITS and old TIFF give.
    stored = dtype.newbyteorder(draw(st.sampled_from("<>")))
    data = draw(hnp.arrays(stored, shape, elements=hnp.from_dtype(dtype)))
    sizes = st.floats(1e-3, 1e3)
    voxel_size = {a: draw(sizes) for a in spatial if draw(st.booleans())}
    return Image(data, axes, voxel_size)


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@pytest.mark.parametrize("suffix", [".tif", ".ome.tif"])
@given(image=images())
@example(image=Image(np.arange(24, dtype="u1").reshape(2, 4, 3), "yxc"))
@example(image=Image(np.arange(48, dtype="u1").reshape(2, 2, 4, 3), "zyxc", {"z": 2.0}))
@example(image=Image(np.arange(48, dtype="u2").reshape(2, 2, 4, 3), "tyxc", {"x": 2.0}))
@example(image=Image(np.arange(12, dtype="f4").reshape(3, 4), "xy", {"x": 2.0, "y": 3.0}))
def test_tiff_keeps_values_axes_and_voxel_sizes(tmp_path, suffix, image):
    path = tmp_path / f"image{suffix}"
    if image.data.dtype.name in UNFIT.get(suffix, ()):
        with pytest.raises(InputError, match="OME-TIFF cannot hold"):
            write(path, image)
        return
    write(path, image)
    back = read(path)
    expected, letters = canonical(image.data, image.axes)
    got, got_letters = canonical(back.data, back.axes)
    assert back.data.dtype == image.data.dtype.newbyteorder("=")
    assert got_letters == letters
    np.testing.assert_array_equal(got, expected, strict=False)
    assert got.tobytes() == expected.astype(got.dtype).tobytes()  # the sign of zero and NaN bits, too
    for axis, size in image.voxel_size.items():
        if axis in back.axes:
            assert back.voxel_size[axis] == pytest.approx(size, rel=1e-6)
    assert set(back.voxel_size) <= set(image.voxel_size)


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@pytest.mark.parametrize("suffix", [".npy", ".fits"])
@given(image=images())
def test_npy_and_fits_keep_every_value(tmp_path, suffix, image):
    if suffix == ".fits":
        pytest.importorskip("astropy")
    path = tmp_path / f"image{suffix}"
    if image.data.dtype.name in UNFIT.get(suffix, ()):
        with pytest.raises(InputError, match="FITS cannot hold"):
            write(path, image)
        return
    write(path, image)
    back = read(path, axes=image.axes) if suffix == ".npy" else read(path)
    assert back.data.dtype == image.data.dtype.newbyteorder("=")
    expected = image.data
    if suffix == ".fits":  # x is its first axis, whatever the order was
        order = (
            [image.axes.index(a) for a in "tczyx" if a in image.axes]
            if image.axes
            else range(image.data.ndim)
        )
        expected = image.data.transpose(order).reshape(back.data.shape)
    assert back.data.tobytes() == expected.astype(back.data.dtype).tobytes()
    if suffix == ".npy":
        assert (back.axes, back.data.shape) == (image.axes, image.data.shape)


@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    data=st.sampled_from(["uint8", "uint16"]).flatmap(
        lambda d: hnp.arrays(d, st.tuples(*[st.integers(1, 5)] * 2, st.sampled_from([1, 3])))
    ),
    axes=st.permutations("yxc").map("".join),
)
def test_png_keeps_every_value(tmp_path, data, axes):
    path = tmp_path / "image.png"
    write(path, Image(data.transpose(["yxc".index(a) for a in axes]), axes))
    back = read(path)
    assert back.axes == ("yxc" if data.shape[-1] == 3 else "yx")
    assert back.data.dtype == data.dtype
    np.testing.assert_array_equal(back.data, data.squeeze(2) if data.shape[-1] == 1 else data)


def test_pillow_sees_the_same_png(tmp_path):
    colour = np.random.default_rng(0).integers(0, 255, (5, 7, 3), np.uint8)
    write(tmp_path / "colour.png", Image(colour, "yxc"))
    np.testing.assert_array_equal(np.asarray(PIL.Image.open(tmp_path / "colour.png")), colour)
    grey = np.arange(35, dtype=np.uint16).reshape(5, 7) * 1000
    write(tmp_path / "grey.png", Image(grey, "yx"))
    np.testing.assert_array_equal(np.asarray(PIL.Image.open(tmp_path / "grey.png")), grey)


def test_a_fourth_channel_is_not_written_as_a_pngs_transparency(tmp_path):
    with pytest.raises(InputError, match="1 or 3 channels"):
        write(tmp_path / "four.png", Image(np.ones((5, 7, 4), np.uint8), "yxc"))


def test_imagej_gets_a_hyperstack_with_its_scale(tmp_path):
    data = np.random.default_rng(0).random((2, 3, 4, 6, 5)).astype(np.float32)
    image = Image(data, "ctzyx", {"z": 0.3, "y": 0.1, "x": 0.065}, {"time_interval": 2.5})
    write(tmp_path / "stack.tif", image)
    with tifffile.TiffFile(tmp_path / "stack.tif") as tif:
        assert tif.is_imagej
        tags = tif.imagej_metadata
        found = {key: tags[key] for key in ("channels", "slices", "frames", "images", "unit", "spacing")}
        expected = {"channels": 2, "slices": 4, "frames": 3, "images": 24, "unit": "micron", "spacing": 0.3}
        assert found == expected
        assert tags["finterval"] == 2.5
        assert tags["hyperstack"] is True
        pixels, units = tif.pages[0].tags["XResolution"].value
        assert pixels / units == pytest.approx(1 / 0.065)
        pixels, units = tif.pages[0].tags["YResolution"].value
        assert pixels / units == pytest.approx(1 / 0.1)
        assert tif.series[0].axes == "TZCYX"
        np.testing.assert_array_equal(tif.asarray(), data.transpose(1, 2, 0, 3, 4))


def test_imagej_colour_is_colour(tmp_path):
    colour = np.random.default_rng(0).integers(0, 255, (5, 7, 3), np.uint8)
    write(tmp_path / "colour.tif", Image(colour, "yxc"))
    with tifffile.TiffFile(tmp_path / "colour.tif") as tif:
        assert tif.is_imagej
        assert tif.pages[0].photometric == tifffile.PHOTOMETRIC.RGB
    np.testing.assert_array_equal(np.asarray(PIL.Image.open(tmp_path / "colour.tif")), colour)
    assert read(tmp_path / "colour.tif").axes == "yxc"


def test_imagej_tags_are_carried_over(tmp_path):
    labels = [f"plane {i} µ" for i in range(6)]
    tags = {
        "Info": "objective 60x\nα",
        "Labels": labels,
        "Ranges": (0.0, 1.0, 0.0, 2.0),
        "min": 3.0,
        "loop": True,
    }
    given = np.zeros((1, 3, 2, 6, 5), np.uint16)
    tifffile.imwrite(tmp_path / "in.tif", given, imagej=True, metadata={"axes": "TZCYX", **tags})
    image = read(tmp_path / "in.tif")
    write(tmp_path / "out.tif", image)
    with tifffile.TiffFile(tmp_path / "out.tif") as tif:
        assert {key: tif.imagej_metadata[key] for key in tags} == tags
    # One channel fewer: lists per plane and per channel would now be wrong.
    write(tmp_path / "less.tif", Image(image.data[:, 0], "zyx", {}, image.metadata))
    with tifffile.TiffFile(tmp_path / "less.tif") as tif:
        assert tif.imagej_metadata["Info"] == tags["Info"]
        assert not {"Labels", "Ranges"} & set(tif.imagej_metadata)


@pytest.mark.parametrize("axes", ["czyx", "zcyx", "ctyx", "tczyx"])
def test_ome_keeps_the_order_of_the_axes(tmp_path, axes):
    data = np.random.default_rng(0).random([2, 3, 4, 8, 9][-len(axes) :]).astype(np.float32)
    write(tmp_path / "a.ome.tif", Image(data, axes, {"y": 0.1, "x": 0.1}))
    back = read(tmp_path / "a.ome.tif")
    assert back.axes == axes
    np.testing.assert_array_equal(back.data, data)


def test_ome_says_the_physical_sizes_and_the_channels(tmp_path):
    names = ["α-tubulin <&>", "DAPI"]
    data = np.random.default_rng(0).integers(0, 4000, (4, 2, 6, 5), np.uint16)
    image = Image(
        data, "zcyx", {"z": 0.31, "y": 0.1, "x": 0.065}, {"channel_names": names, "time_interval": 1.5}
    )
    write(tmp_path / "in.ome.tif", image)
    xml = tifffile.TiffFile(tmp_path / "in.ome.tif").ome_metadata
    pixels = ElementTree.fromstring(xml).find("{*}Image/{*}Pixels")
    expected = {"PhysicalSizeX": 0.065, "PhysicalSizeY": 0.1, "PhysicalSizeZ": 0.31}
    assert {key: float(pixels.get(key)) for key in expected} == expected
    assert {pixels.get(f"{key}Unit") for key in expected} == {"µm"}
    assert [pixels.get(f"Size{a}") for a in "TZCYX"] == ["1", "4", "2", "6", "5"]
    assert [channel.get("Name") for channel in pixels.findall("{*}Channel")] == names

    write(tmp_path / "out.ome.tiff", read(tmp_path / "in.ome.tif"))
    back = read(tmp_path / "out.ome.tiff")
    assert (back.axes, back.voxel_size, back.metadata) == ("zcyx", image.voxel_size, image.metadata)
    np.testing.assert_array_equal(back.data, data)


def test_beyond_four_gigabytes_a_plain_bigtiff_keeps_everything(tmp_path, monkeypatch):
    monkeypatch.setattr(tiff, "CLASSIC_LIMIT", 100)
    image = Image(np.arange(120, dtype=np.uint16).reshape(4, 6, 5), "zyx", {"z": 0.3, "x": 0.1})
    for name in ("big.tif", "big.ome.tif"):
        write(tmp_path / name, image)
        with tifffile.TiffFile(tmp_path / name) as tif:
            assert tif.is_bigtiff
        back = read(tmp_path / name)
        assert (back.axes, back.voxel_size) == ("zyx", image.voxel_size)
        np.testing.assert_array_equal(back.data, image.data)


def test_an_unnamed_stack_stays_unnamed(tmp_path):
    data = np.arange(24.0, dtype=np.float32).reshape(2, 3, 4)
    write(tmp_path / "a.tif", data)
    assert read(tmp_path / "a.tif").axes is None
    np.testing.assert_array_equal(read(tmp_path / "a.tif").data, data)
    named = read(tmp_path / "a.tif", axes="TYX")
    assert named.axes == "tyx"
    with pytest.raises(InputError, match="pass axes"):
        write(tmp_path / "a.ome.tif", data)
    with pytest.raises(InputError, match="names 2 axes but the image has 3"):
        read(tmp_path / "a.tif", axes="yx")


def test_fits_keeps_its_header(tmp_path):
    fits = pytest.importorskip("astropy.io.fits")
    header = fits.Header([("OBJECT", "M31"), ("CRVAL1", 10.68, "degrees"), ("BUNIT", "adu")])
    header["COMMENT"] = "taken in the rain"
    fits.PrimaryHDU(np.arange(12, dtype=np.uint16).reshape(3, 4), header).writeto(tmp_path / "in.fits")
    image = read(tmp_path / "in.fits")
    assert (image.axes, image.data.dtype) == ("yx", np.uint16)
    write(tmp_path / "out.fits", Image(image.data + 0.5, image.axes, {}, image.metadata), dtype="float32")
    with fits.open(tmp_path / "out.fits") as hdus:
        assert hdus[0].header["OBJECT"] == "M31"
        assert hdus[0].header["CRVAL1"] == 10.68
        assert "rain" in str(hdus[0].header["COMMENT"])
        assert "BZERO" not in hdus[0].header
        np.testing.assert_array_equal(hdus[0].data, np.arange(12).reshape(3, 4) + 0.5)


def test_fits_history_is_kept_in_ascii_which_is_all_that_a_header_holds(tmp_path):
    fits = pytest.importorskip("astropy.io.fits")
    write(
        tmp_path / "a.fits", Image(np.ones((3, 4)), "yx", {}, {"history": "trained on zelle_µ.fits\nby day"})
    )
    assert str(fits.getheader(tmp_path / "a.fits")["HISTORY"]) == r"trained on zelle_\xb5.fits by day"


@pytest.mark.parametrize("wanted", ["[0]", "[1]"])
def test_fits_cards_with_control_characters_are_left_out_and_told_of(tmp_path, wanted):
    fits = pytest.importorskip("astropy.io.fits")
    cards = [fits.Header([(name, "a#b"), ("OBJECT", "M31")]) for name in ("OBSERVER", "AUTHOR")]
    images = [
        fits.PrimaryHDU(np.zeros((3, 4)), cards[0]),
        fits.ImageHDU(np.ones((3, 4)), cards[1], name="SCI"),
    ]
    fits.HDUList(images).writeto(tmp_path / "in.fits")
    (tmp_path / "in.fits").write_bytes((tmp_path / "in.fits").read_bytes().replace(b"#", b"\a"))
    own, other = ("OBSERVER", "AUTHOR") if wanted == "[0]" else ("AUTHOR", "OBSERVER")
    with pytest.warns(SelfinvWarning, match=f"control characters in its header; left out: {own}"):
        image = read(f"{tmp_path}/in.fits{wanted}")
    with pytest.warns(SelfinvWarning, match=f"beside its image; left out: {other}"):
        write(tmp_path / "out.fits", image)
    with fits.open(tmp_path / "out.fits") as hdus:
        assert [hdu.header["OBJECT"] for hdu in hdus] == ["M31", "M31"]
        assert [hdu.data.max() for hdu in hdus] == [0, 1]
        assert not any(name in hdu.header for hdu in hdus for name in ("OBSERVER", "AUTHOR"))


def test_fits_has_x_as_its_first_axis_whatever_the_order_was(tmp_path):
    pytest.importorskip("astropy.io.fits")
    values = np.arange(24.0, dtype="f4").reshape(2, 4, 3)
    for axes, turned in (("yxc", (2, 0, 1)), ("cxy", (0, 2, 1)), ("tyx", (0, 1, 2))):
        write(tmp_path / "a.fits", Image(values, axes))
        assert np.array_equal(read(tmp_path / "a.fits").data, values.transpose(turned))
    write(tmp_path / "a.fits", Image(values[0], "xy"))
    assert np.array_equal(read(tmp_path / "a.fits").data, values[0].T)


def test_fits_extensions_scaling_and_compression(tmp_path):
    fits = pytest.importorskip("astropy.io.fits")
    values = np.arange(400, dtype=np.int16).reshape(20, 20)
    packed = fits.CompImageHDU(values, fits.Header([("OBJECT", "M31")]), name="SCI")
    fits.HDUList([fits.PrimaryHDU(), packed]).writeto(tmp_path / "in.fits.gz")
    image = read(tmp_path / "in.fits.gz")
    np.testing.assert_array_equal(image.data, values)
    write(tmp_path / "out.fits.gz", image)
    assert (tmp_path / "out.fits.gz").read_bytes()[:2] == b"\x1f\x8b"
    with fits.open(tmp_path / "out.fits.gz") as hdus:
        assert hdus["SCI"].header["OBJECT"] == "M31"
        np.testing.assert_array_equal(hdus["SCI"].data, values)
    # A radio map: two degenerate axes in front.
    fits.PrimaryHDU(np.ones((1, 1, 5, 6))).writeto(tmp_path / "radio.fits")
    assert read(tmp_path / "radio.fits").data.shape == (5, 6)


def test_ome_keeps_name_date_and_wavelengths(tmp_path):
    wavelengths = {"EmissionWavelength": [461.0, 509.0], "EmissionWavelengthUnit": ["nm", "nm"]}
    channels = wavelengths | {
        "Name": ["DAPI", "GFP"],
        "ExcitationWavelength": [405.0, 488.0],
        "Color": [255, -1],
    }
    told = {"Name": "embryo 7", "AcquisitionDate": "2024-05-06T07:08:09", "Channel": channels}
    data = np.zeros((2, 8, 9), np.uint16)
    tifffile.imwrite(tmp_path / "in.ome.tif", data, metadata={"axes": "CYX"} | told)
    write(tmp_path / "out.ome.tif", read(tmp_path / "in.ome.tif"), dtype="float32")
    xml = [
        ElementTree.fromstring(tifffile.TiffFile(tmp_path / f"{n}.ome.tif").ome_metadata)
        for n in ("in", "out")
    ]
    (before, after) = (one.find("{*}Image") for one in xml)
    assert after.get("Name") == "embryo 7"
    assert after.findtext("{*}AcquisitionDate") == "2024-05-06T07:08:09"
    light = [
        [dict(one.attrib) for one in image.iter() if one.tag.endswith("Channel")] for image in (before, after)
    ]
    assert light[0] == light[1]
    assert [one["EmissionWavelength"] for one in light[1]] == ["461.0", "509.0"]
    image = read(tmp_path / "in.ome.tif")  # of one channel alone nothing is known
    write(tmp_path / "one.ome.tif", Image(data[0], "yx", {}, image.metadata))
    assert "Wavelength" not in tifffile.TiffFile(tmp_path / "one.ome.tif").ome_metadata


def exposure(fits, path):
    """A telescope's file: a header, then the image, its errors and its bad pixels."""
    primary = fits.PrimaryHDU(header=fits.Header([("TELESCOP", "JWST", "who looked")]))
    science = fits.ImageHDU(np.arange(12.0).reshape(3, 4), fits.Header([("BUNIT", "MJy")]), name="SCI")
    error = fits.ImageHDU(np.ones((3, 4), "f4"), name="ERR")
    bad = fits.CompImageHDU(np.eye(3, 4, dtype="i2"), name="DQ")
    fits.HDUList([primary, science, error, bad]).writeto(path, checksum=True)


def test_fits_keeps_what_is_beside_the_image(tmp_path):
    fits = pytest.importorskip("astropy.io.fits")
    exposure(fits, tmp_path / "in.fits")
    image = read(tmp_path / "in.fits[SCI]")
    restored = Image(image.data + 0.5, image.axes, {}, image.metadata | {"history": "done by hand"})
    write(tmp_path / "out.fits", restored, dtype="float32")
    with fits.open(tmp_path / "in.fits") as old, fits.open(tmp_path / "out.fits", checksum=True) as new:
        assert [hdu.name for hdu in new] == ["PRIMARY", "SCI", "ERR", "DQ"]
        assert new[0].header["TELESCOP"] == "JWST"
        assert (new["SCI"].header["BUNIT"], str(new["SCI"].header["HISTORY"])) == ("MJy", "done by hand")
        np.testing.assert_array_equal(new["SCI"].data, old["SCI"].data + 0.5)
        for name in ("ERR", "DQ"):
            assert new[name].header.tostring() == old[name].header.tostring()
            np.testing.assert_array_equal(new[name].data, old[name].data)
    write(tmp_path / "in.fits", restored)  # also in its own place
    assert read(tmp_path / "in.fits[DQ]").data.sum() == 3
    assert read(tmp_path / "in.fits[SCI]").data[0, 0] == 0.5


def test_fits_leaves_out_what_does_not_belong_to_the_image_and_says_so(tmp_path):
    fits = pytest.importorskip("astropy.io.fits")
    exposure(fits, tmp_path / "in.fits")
    image = read(tmp_path / "in.fits[SCI]")
    with pytest.warns(SelfinvWarning, match=r"in.fits ERR, DQ is left out: its pixels are not those of"):
        write(tmp_path / "fine.fits", Image(np.ones((6, 8)), "yx", {}, image.metadata))
    with fits.open(tmp_path / "fine.fits") as hdus:
        assert [hdu.name for hdu in hdus] == ["PRIMARY", "SCI"]
        assert hdus[0].header["TELESCOP"] == "JWST"
    (tmp_path / "in.fits").unlink()
    with pytest.warns(SelfinvWarning, match="has changed since it was read"):
        write(tmp_path / "late.fits", image)
    np.testing.assert_array_equal(read(tmp_path / "late.fits").data, image.data)


def test_conversion_while_writing(tmp_path):
    data = np.array([[-3.0, 1.6], [2.4, 300.0]])
    with pytest.raises(InputError, match="do not fit uint8"):
        write(tmp_path / "a.png", data, dtype="uint8")
    assert not list(tmp_path.iterdir())
    write(tmp_path / "a.png", data, dtype="uint8", clip=True)
    assert read(tmp_path / "a.png").data.tolist() == [[0, 2], [2, 255]]
