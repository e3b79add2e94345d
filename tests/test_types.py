"""Axes are read as the user meant them, and every mistake is told in words."""

import itertools
import math
import warnings
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from selfinv.operators import Convolution
from selfinv.solvers import RichardsonLucy
from selfinv.solvers.base import run
from selfinv.types import (
    AxisLayout,
    InputError,
    SelfinvWarning,
    check_flag,
    check_image,
    check_number,
    check_shape,
    guess_axes,
    parse_axes,
    same_layout,
    warn,
)

SIZES = {"t": 2, "c": 3, "z": 4, "y": 5, "x": 6}
SPACES = ("x", "yx", "zyx")
EVERY = [
    "".join(order)
    for space in SPACES
    for others in ("", "t", "c", "tc")
    for order in itertools.permutations(others + space)
]


def test_every_order_of_axes_goes_to_the_batch_and_back():
    for axes in EVERY:
        shape = [SIZES[a] for a in axes]
        array = np.arange(np.prod(shape)).reshape(shape)
        layout = parse_axes(axes, len(shape))
        batch = layout.to_batch(array)
        inner = "".join(a for a in "tczyx" if a in axes)
        leading = [SIZES[a] if a in axes else 1 for a in "tc"]
        assert batch.shape == (*leading, *(SIZES[a] for a in layout.spatial)), axes
        # einsum rearranges by letter, which is what the layout promises.
        np.testing.assert_array_equal(batch.ravel(), np.einsum(f"{axes}->{inner}", array).ravel(), axes)
        np.testing.assert_array_equal(layout.from_batch(batch), array, axes)
        assert layout.spatial_shape(shape) == batch.shape[2:], axes


@given(st.sampled_from(EVERY), st.data())
def test_a_result_of_another_size_gets_the_same_axes(axes, data):
    sizes = {a: data.draw(st.integers(1, 4), a) for a in axes}
    array = np.random.default_rng(0).random([sizes[a] for a in axes])
    layout = AxisLayout(axes)
    wider = np.concatenate([layout.to_batch(array)] * 2, axis=-1)
    np.testing.assert_array_equal(
        layout.from_batch(wider), np.concatenate([array, array], axis=axes.index("x"))
    )


@given(st.text("tczyxq ZY,", max_size=6), st.integers(1, 5))
def test_an_axis_string_is_understood_or_refused_in_words(axes, ndim):
    letters = axes.strip().lower()
    valid = (
        set(letters) <= set("tczyx")
        and len(letters) == ndim == len(set(letters))
        and "".join(a for a in "zyx" if a in letters) in SPACES
    )
    if valid:
        assert parse_axes(axes, ndim).axes == letters
    else:
        with pytest.raises(InputError, match=r"axes=.*(use|give|expected)"):
            parse_axes(axes, ndim)


@pytest.mark.parametrize(
    ("axes", "ndim", "words"),
    [
        ("zyq", 3, "unknown letter 'q'"),
        ("yyx", 3, "names an axis twice"),
        ("yx", 3, "names 2 axes but the image has 3"),
        ("zx", 2, "spatial axes 'zx'; expected 'x', 'yx' or 'zyx'"),
        ("tc", 2, "expected 'x', 'yx' or 'zyx'"),
    ],
)
def test_what_is_wrong_with_an_axis_string_is_named(axes, ndim, words):
    with pytest.raises(InputError) as error:
        parse_axes(axes, ndim)
    assert words in str(error.value)


@pytest.mark.parametrize(
    ("shape", "psf_axes", "expected"),
    [
        ((64,), None, "x"),
        ((64, 48), None, "yx"),
        ((64, 48), 2, "yx"),
        ((64, 48, 3), None, "yxc"),
        ((64, 48, 4), 2, "yxc"),
        ((20, 64, 48), 3, "zyx"),
    ],
)
def test_axes_are_guessed_where_there_is_no_doubt(shape, psf_axes, expected):
    assert guess_axes(shape, psf_axes) == expected


@pytest.mark.parametrize(
    ("shape", "psf_axes"), [((20, 64, 48), None), ((20, 64, 48), 2), ((2, 20, 64, 48), 3), ((3, 4, 3), None)]
)
def test_axes_are_asked_for_where_there_is_doubt(shape, psf_axes):
    with pytest.raises(InputError, match=r"several ways; say which with axes=.*zyx"):
        guess_axes(shape, psf_axes)


def test_a_psf_with_too_many_axes_does_not_make_a_flat_image_ambiguous():
    assert guess_axes((64, 48), 3) == "yx"  # so that the complaint is about the psf


def test_a_single_number_is_no_image():
    with pytest.raises(InputError, match="single number"):
        guess_axes(())


def test_more_frames_of_the_same_instrument_have_the_same_axes_and_time():
    assert same_layout("zyx", 4) == "tzyx"
    assert same_layout("tyx", 2) == "yx"
    assert same_layout("yxt", 2) == "yx"
    assert same_layout("yxc", 3) == "yxc"


@pytest.mark.parametrize(
    ("image", "words"),
    [
        (np.ones((4, 4), complex), "complex"),
        ("cells.tif", r"image is a str; expected .*; a file is read with selfinv.io.read\(path\).data"),
        (Path("cells.tif"), "image is a PosixPath; expected integers or floating point; a file is read with"),
        (None, "image is a NoneType; expected integers or floating point"),
        ([[1, None]], "expected integers or floating point"),
        (np.zeros((0, 5)), r"empty \(shape \(0, 5\)\)"),
        ([[1.0, np.nan], [np.inf, np.nan]], "2 NaN and 1 infinite values; .*--mask-nan"),
    ],
)
def test_what_is_no_image_is_refused(image, words):
    with pytest.raises(InputError, match=words):
        check_image(image)


def test_missing_values_are_allowed_if_asked_for_but_not_everywhere():
    image = np.array([[1.0, np.nan], [np.inf, 2.0]])
    assert check_image(image, allow_nan=True) is image
    with pytest.raises(InputError, match="no finite value"):
        check_image(np.full((3, 3), np.nan), allow_nan=True)


@pytest.mark.parametrize("dtype", ["bool", "uint8", "int32", ">u2", "float16", "float64"])
def test_every_real_type_keeps_its_values(dtype):
    image = np.array([[0, 1], [1, 0]]).astype(dtype)
    checked = check_image(image)
    assert checked.dtype.kind in "uif"
    np.testing.assert_array_equal(checked, [[0, 1], [1, 0]])


@pytest.mark.parametrize(
    "shape", [(8, 9), [8.0, 9], np.array([8, 9]), torch.Size((8, 9)), torch.tensor([8, 9])]
)
def test_a_shape_is_any_list_of_whole_numbers(shape):
    assert check_shape(shape) == (8, 9)
    assert {type(n) for n in check_shape(shape)} == {int}


@pytest.mark.parametrize(
    ("shape", "found"),
    [
        (5, "5"),
        (None, "None"),
        ("ab", "'ab'"),
        ((-8, 9), r"\(-8, 9\)"),
        ((0, 9), r"\(0, 9\)"),
        ((5.5, 9), r"\(5.5, 9\)"),
        ((np.nan, 9), r"\(nan, 9\)"),
        ((8, "9"), r"\(8, '9'\)"),
        (np.zeros((99, 99)), r"array\(\[\[0., 0., .*…"),
        (torch.zeros(9, 9), r"tensor\(\[\[0., 0., .*…"),
    ],
)
def test_what_is_no_shape_is_shown_on_one_line(shape, found):
    with pytest.raises(
        InputError, match=f"^shape={found} is no shape; expected whole numbers, 1 or more"
    ) as e:
        check_shape(shape)
    assert "\n" not in str(e.value)


@pytest.mark.parametrize("value", [2, 2.0, np.float32(2), np.int64(2), np.array(2.0), torch.tensor(2.0)])
def test_a_number_is_any_librarys(value):
    assert check_number(value, "n", least=0, most=2) == 2.0


@pytest.mark.parametrize(
    ("value", "bounds", "expected"),
    [
        (None, {}, "n must be a finite number, got None"),
        ("2", {"above": 0}, "n must be a positive number, got '2'"),
        (True, {"above": 0}, "n must be a positive number, got True"),
        (math.nan, {"least": 0}, "n must be 0 or more, got nan"),
        (math.inf, {"above": 1}, "n must be a number above 1, got inf"),
        (1.5, {"least": 0, "most": 1}, "n must be a number from 0 to 1, got 1.5"),
        (1j, {}, "n must be a finite number, got 1j"),
        ([2.0], {}, r"n must be a finite number, got \[2.0\]"),
    ],
)
def test_what_is_no_number_within_bounds_is_shown(value, bounds, expected):
    with pytest.raises(InputError, match=f"^{expected}$"):
        check_number(value, "n", **bounds)


def test_a_flag_is_true_or_false():
    assert check_flag(np.True_, "circle") is True
    with pytest.raises(InputError, match="circle must be True or False, got 'no'"):
        check_flag("no", "circle")


def test_a_warning_points_at_the_line_that_called_the_package():
    operator = Convolution(torch.ones(3, 3) / 9, (16, 16), "unknown")
    y = operator(torch.rand(1, 1, *operator.in_shape)) - 0.4
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        run(RichardsonLucy(max_steps=1), y, operator)
        warn("")
    assert [Path(w.filename) for w in caught] == [Path(__file__)]
    assert isinstance(caught[0].message, SelfinvWarning)
