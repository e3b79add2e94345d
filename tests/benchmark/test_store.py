"""Results on disk belong together."""

import numpy as np

from selfinv.benchmark.cases import Case, Settings
from selfinv.benchmark.conditions import TRACKS
from selfinv.benchmark.images import Source
from selfinv.benchmark.store import Store


def test_a_new_result_without_a_picture_is_not_shown_with_the_old_one(tmp_path):
    case = Case(Source("a", "image"), TRACKS["a"][0], "wiener", 0, Settings())
    store = Store(tmp_path)
    store.keep(case, {"psnr": 20.0}, np.full((4, 5), 0.25))
    assert np.array_equal(store.image(case.key), np.full((4, 5), 0.25))
    store.keep(case, {"psnr": 30.0}, None)
    assert store.row(case.key) == {"psnr": 30.0}
    assert store.image(case.key) is None
