"""How large arrays are cut."""

import math

import numpy as np
import pytest

from selfinv.large.tiles import Plan, Reach, chunks_for, cores_for
from selfinv.types import InputError


@pytest.mark.parametrize(
    ("shape", "axes", "core"), [((3, 2, 70, 51), "tcyx", (32, 16)), ((20, 40, 50), "zyx", (16, 16, 32))]
)
def test_every_value_is_written_once(shape, axes, core):
    written = np.zeros(shape, int)
    plan = Plan(shape, axes, core)
    numbers = []
    for tile in plan:
        written[tile.core] += 1
        numbers.append(tile.number)
    assert (written == 1).all()
    assert numbers == list(range(len(plan)))


def test_what_is_seen_begins_and_ends_in_step_with_the_whole():
    reach = Reach(halo=20, multiple=16, before=5, after=3)
    n = 1000
    for start in (0, 100, 333, 900):
        seen = reach.around(slice(start, start + 64), n)
        assert seen.start == 0 or (seen.start + 5) % 16 == 0
        assert seen.stop == n or (n + 3 - seen.stop) % 16 == 0
        assert seen.start <= max(0, start - 20)
        assert seen.stop >= min(n, start + 84)


@pytest.mark.parametrize("most", [3e5, 1e6, 2e7])
def test_cores_are_whole_chunks_and_what_they_see_is_no_more_than_allowed(most):
    space, reaches = (3000, 4000), [Reach(50, 16)] * 2
    core = cores_for(space, (256, 256), reaches, most)
    for c, n in zip(core, space, strict=True):
        assert c == n or c % 256 == 0
    assert math.prod(min(n, c + 2 * 66) for c, n in zip(core, space, strict=True)) <= most


def test_a_flat_volume_is_taken_whole_along_its_short_axis():
    core = cores_for((20, 2000, 2000), (20, 64, 64), [Reach(16)] * 3, 4e6)
    assert core[0] == 20
    assert abs(core[1] - core[2]) <= 64


def test_enough_tiles_for_all_workers_where_that_costs_little():
    assert math.prod(-(-4096 // c) for c in cores_for((4096, 4096), (512, 512), [Reach(60)] * 2, 1e9, 4)) >= 4


def test_no_more_tiles_than_cost_a_third_more():
    # One for each of 64 workers would be a chunk, with half as much again around it.
    core = cores_for((4096, 4096), (512, 512), [Reach(60)] * 2, 1e9, 64)
    assert math.prod(-(-4096 // c) for c in core) < 64
    assert math.prod(c + 2 * 61 for c in core) <= 4 / 3 * math.prod(core)


def test_too_little_memory_is_said():
    with pytest.raises(InputError, match=r"allow more \(--memory\)"):
        cores_for((3000, 3000), (512, 512), [Reach(50)] * 2, 1000)


def test_chunks_hold_one_frame_and_one_channel():
    assert chunks_for((9, 3, 40, 1000, 30), "tczyx") == (1, 1, 40, 64, 30)
    assert chunks_for((1000, 700, 3), "yxc") == (512, 512, 1)
