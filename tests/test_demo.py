"""The demonstration degrades as the paper does, and its scores are those of the files it leaves."""

import numpy as np
import pytest

from selfinv import demo, io, metrics, noise
from selfinv.types import InputError, SelfinvWarning


@pytest.fixture
def small(monkeypatch):
    """A part of the sample, so that a few steps take no time."""
    truth = noise.normalise_minmax(demo.sample()[60:124, 60:124])
    monkeypatch.setattr(demo, "sample", lambda: truth)
    return truth


@pytest.mark.filterwarnings(f"ignore::{SelfinvWarning.__module__}.{SelfinvWarning.__name__}")  # few steps
def test_what_is_shown_is_what_is_written(tmp_path, small):
    seen = []
    shown = demo.run_demo(tmp_path / "a" / "b", steps=3, callback=lambda progress: seen.append(progress.step))
    assert seen[:3] == [1, 2, 3]
    files = {p.stem: p for p in shown.picture.parent.iterdir()}
    assert set(files) == {"demo", "truth", "noisy", "psf", "restored"}
    images = {name: io.read(path).data for name, path in files.items() if name != "demo"}
    np.testing.assert_array_equal(images["truth"], small)
    np.testing.assert_array_equal(images["restored"], shown.result.image)
    np.testing.assert_array_equal(
        images["noisy"], noise.benchmark_degradation(small, demo.microscope_psf())[1]
    )
    for name in ("noisy", "restored"):
        expected = metrics.scores(small, images[name], data_range=1.0, clip=(0.0, 1.0))
        assert shown.scores[name] == pytest.approx(expected)


def test_the_sample_and_the_psf_are_what_the_paper_says():
    assert (demo.sample().min(), demo.sample().max()) == (0, 1)
    kernel = demo.microscope_psf()
    assert kernel.shape == (17, 17)
    assert kernel.sum() == pytest.approx(1)
    assert kernel.max() < 0.2  # out of focus: the light is spread


def test_a_folder_that_cannot_be_made_is_said_before_any_work(tmp_path, monkeypatch):
    monkeypatch.setattr(demo, "restore", lambda *arguments, **options: pytest.fail("it went on"))
    (tmp_path / "file").write_text("")
    with pytest.raises(InputError, match=r"the folder .*file/sub could not be made"):
        demo.run_demo(tmp_path / "file" / "sub")
