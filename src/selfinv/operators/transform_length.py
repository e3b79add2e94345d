"""Lengths of Fourier transforms that are quick."""

from __future__ import annotations

from scipy.fft import next_fast_len


def fast_length(least: int, *, gpu: bool = False) -> int:
    """The shortest quick transform of at least this length.

    On a CPU the next product of 2, 3 and 5: the factors 7 and 11 make transforms slower again. On a GPU the
    next power of 2, or three quarters of one: cuFFT takes a tenth of a second to make ready for every other
    length, and each image brings several.

    Examples
    --------
    >>> fast_length(1042), fast_length(1042, gpu=True)
    (1080, 1536)
    """
    if not gpu:
        return int(next_fast_len(least, real=True))
    power = 1 << max(0, least - 1).bit_length()
    return 3 * power // 4 if power >= 4 and 3 * power // 4 >= least else power
