"""The settings of a training: how much of a large image its steps look at."""

from selfinv.learning.settings import Windows


def test_windows_grow_from_a_part_to_the_whole():
    windows = Windows(first=100, last=1600, share=0.01, growth=(0.5, 0.9))
    assert [windows.size(p, 10_000) for p in (0.0, 0.5, 0.7, 0.9, 1.0)] == [100, 100, 400, 1600, 1600]
    assert windows.size(1.0, 900) == 900
    assert {windows.size(p, 64) for p in (0.0, 0.7, 1.0)} == {64}
    assert windows.size(0.0, 40_000) == 400  # a hundredth of it
