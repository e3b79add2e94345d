"""Converting pixel types must round, refuse or clip, but never wrap around."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from selfinv.io import cast, count_outside
from selfinv.types import InputError

INTEGERS = ("uint8", "int8", "uint16", "int16", "uint32", "int32", "uint64", "int64")
FLOATS = ("float16", "float32", "float64")


@given(
    array=st.sampled_from([*INTEGERS, *FLOATS]).flatmap(
        lambda d: hnp.arrays(d, st.integers(1, 12), elements=hnp.from_dtype(np.dtype(d)))
    ),
    target=st.sampled_from(INTEGERS),
)
def test_cast_to_integer_agrees_with_exact_arithmetic(array, target):
    info = np.iinfo(target)
    # Python's integers have no range, and its round() is to the nearest even, too.
    values = [float(v) if array.dtype.kind == "f" else int(v) for v in array]
    exact = [0 if v != v else (v if abs(v) == np.inf else round(v)) for v in values]
    clipped = [int(min(max(e, info.min), info.max)) for e in exact]
    outside = sum(v != v or e != c for v, e, c in zip(values, exact, clipped, strict=True))

    assert count_outside(array, target) == outside
    result = cast(array, target, clip=True)
    assert result.dtype == target
    assert result.tolist() == clipped
    if outside:
        with pytest.raises(InputError, match=f"do not fit {target}"):
            cast(array, target)
    else:
        assert cast(array, target).tolist() == clipped


def test_the_error_names_the_values_the_range_and_the_way_out():
    with pytest.raises(InputError) as error:
        cast(np.array([-3.2, 301.5]), "uint8")
    assert str(error.value) == (
        "values from -3.2 to 301.5 do not fit uint8 (0 to 255); "
        "write float32 (--dtype float32) or pass --clip to clip them"
    )


def test_nan_is_refused_and_becomes_zero_when_clipped():
    with pytest.raises(InputError, match="1 NaN"):
        cast(np.array([1.0, np.nan]), "uint16")
    with pytest.raises(InputError, match="all values are NaN"):
        cast(np.full(3, np.nan), "uint16")
    assert cast(np.array([1.0, np.nan]), "uint16", clip=True).tolist() == [1, 0]


def test_a_narrower_float_does_not_overflow_silently_but_keeps_nan_and_infinity():
    with pytest.raises(InputError, match="float16"):
        cast(np.array([1e6]), "float16")
    assert count_outside(np.array([1e6, -1e300, np.inf, np.nan, 1.0]), "float16") == 2
    assert cast(np.array([1e6, -1e300]), "float16", clip=True).tolist() == [65504.0, -65504.0]
    kept = cast(np.array([np.inf, -np.inf, np.nan]), "float32")
    assert kept[0] == np.inf
    assert kept[1] == -np.inf
    assert np.isnan(kept[2])
    with pytest.raises(InputError, match="write float64"):
        cast(np.array([1e300]), "float32")


def test_same_type_and_boolean():
    array = np.array([[1.5, np.nan]])
    assert cast(array, "float64") is array
    assert cast(np.array([True, False]), "uint8").tolist() == [1, 0]


@pytest.mark.parametrize("dtype", ["uint12", "complex64", "object", "S3", "bool"])
def test_unknown_types_are_refused(dtype):
    with pytest.raises(InputError, match="unknown pixel type"):
        cast(np.zeros(2), dtype)


def test_complex_values_are_refused():
    with pytest.raises(InputError, match="complex128"):
        cast(np.zeros(2, complex), "float32")
