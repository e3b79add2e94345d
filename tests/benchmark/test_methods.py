"""Who restores, and what each is told."""

import subprocess
import sys
import time
from dataclasses import replace
from itertools import pairwise

import numpy as np
import pytest
from skimage import data

from selfinv import metrics, noise
from selfinv.benchmark import methods
from selfinv.benchmark.cases import Case, Settings
from selfinv.benchmark.conditions import TRACKS, degrade
from selfinv.benchmark.execute import execute
from selfinv.benchmark.images import Loaded, Source
from selfinv.benchmark.problem import Problem, Watch, fill_missing
from selfinv.demo import microscope_psf
from selfinv.methods import METHODS
from selfinv.model import TrainedModel
from selfinv.types import InputError


@pytest.fixture(scope="module")
def problem():
    truth = noise.normalise_minmax(data.camera()[100:164, 200:264])
    noisy = noise.benchmark_degradation(truth, microscope_psf())[1]
    return Problem(noisy, microscope_psf(), truth=truth, steps=12, device="cpu")


def with_watch(problem, **changes):
    return replace(problem, watch=Watch(), **changes)


def quality(problem, restored):
    return metrics.psnr(problem.truth, np.clip(restored.image, 0, 1))


def test_every_method_of_the_package_is_measured():
    assert set(METHODS) <= set(methods.known())
    assert "auto" not in [m.name for m in methods.choose([])]
    assert {m.group for m in methods.choose(["all"])} == set(methods.GROUPS)


def test_a_new_method_is_measured_from_its_first_day(monkeypatch):
    monkeypatch.setitem(METHODS, "ssi-best", METHODS["ssi-network"])
    assert methods.known()["ssi-best"].group == "self-supervised"


def test_only_oracles_are_told_the_truth():
    for method in methods.known().values():
        assert (methods.TRUTH in method.told) == (method.group == "oracle")


@pytest.mark.parametrize("name", ["tv-chambolle-pock", "richardson-lucy", "wiener"])
def test_an_oracle_is_no_worse_than_what_tunes_itself(problem, name):
    known = methods.known()
    blind = known[name].run(with_watch(problem, truth=None))
    oracle = known[f"{name}-oracle"].run(with_watch(problem))
    assert quality(problem, oracle) >= quality(problem, blind) - 0.05
    assert oracle.training_seconds > 0
    assert oracle.inference_seconds == 0


def test_an_oracle_without_the_truth_says_so(problem):
    with pytest.raises(InputError, match="needs the truth"):
        methods.known()["wiener-oracle"].run(with_watch(problem, truth=None))


def test_the_curve_of_richardson_lucy_goes_from_blurred_to_noisy(problem):
    curve = methods.known()["richardson-lucy-oracle"].run(with_watch(problem)).curve
    assert [p["steps"] for p in curve[:3]] == [1, 2, 3]
    assert curve[0]["noise"] < curve[-1]["noise"]
    assert curve[0]["blur"] > curve[20]["blur"]
    assert all(a["seconds"] <= b["seconds"] for a, b in pairwise(curve))


@pytest.mark.parametrize(
    "name", ["skimage-richardson-lucy", "skimage-unsupervised-wiener", "deep-image-prior", "ssi-network"]
)
def test_the_others_return_images_in_the_inputs_units(problem, name):
    method = methods.known()[name]
    restored = method.run(with_watch(problem, truth=None))
    assert restored.image.shape == problem.image.shape
    assert abs(float(restored.image.mean()) - float(problem.image.mean())) < 0.2


def test_training_and_inference_are_timed_apart(problem):
    network = methods.known()["ssi-network"].run(with_watch(problem, truth=None))
    assert 0 < network.inference_seconds < network.training_seconds
    tuned = methods.known()["tv-chambolle-pock"].run(with_watch(problem, truth=None))
    assert 0 < tuned.inference_seconds < tuned.training_seconds
    plain = methods.known()["richardson-lucy-5"].run(with_watch(problem, truth=None))
    assert plain.training_seconds == 0 < plain.inference_seconds
    assert plain.steps == 5


def test_the_inference_that_is_only_timed_is_charged_to_no_method(problem, monkeypatch):
    apply, start = TrainedModel.apply, time.perf_counter()
    watch = Watch()

    def slowly(*arguments, **options):
        time.sleep(0.5)
        return apply(*arguments, **options)

    monkeypatch.setattr(TrainedModel, "apply", slowly)
    network = methods.known()["ssi-network"].run(replace(problem, truth=None, watch=watch))
    charged = watch.seconds()
    assert network.inference_seconds >= 0.5
    assert charged <= time.perf_counter() - start - network.inference_seconds


def test_the_deep_image_prior_learns_and_is_blind(problem):
    run = methods.known()["deep-image-prior"].run
    short, long = (run(with_watch(problem, truth=None, steps=n)) for n in (10, 60))
    assert quality(problem, long) > quality(problem, short)
    assert np.array_equal(long.image, run(with_watch(problem, truth=None, steps=60)).image)


def test_looking_at_the_image_on_the_way_changes_nothing_and_costs_no_time(problem):
    run = methods.known()["ssi-network"].run
    watch = Watch(lambda image: float(image.mean()))
    watch.next_look = 0.0
    watched = run(replace(problem, truth=None, watch=watch))
    assert len(watch.trace) >= 1
    assert watch.looking > 0
    assert np.array_equal(watched.image, run(with_watch(problem, truth=None)).image)


def test_missing_values_are_filled_from_their_neighbours_alone():
    image = np.add.outer(np.arange(30.0), np.arange(30.0)).astype(np.float32)
    missing = np.random.default_rng(0).random(image.shape) < 0.3
    missing[10:16, 10:16] = True
    filled = fill_missing(np.where(missing, 1e6, image), missing)
    assert np.array_equal(filled[~missing], image[~missing])
    assert np.abs(filled - image).max() < 8


USERS = '''
import numpy as np
CALLS = []
def plain(image, psf, *, seed):
    """Does nothing, well."""
    assert np.isfinite(image).all()
    return image + 0.25
def liar(image, psf, *, seed, truth):
    return truth
liar.told = ("truth", "outside data")
def broken(image, psf, *, seed):
    raise ZeroDivisionError("one over nothing")
def wrong_shape(image, psf, *, seed):
    return image[1:]
def holes(image, psf, *, seed):
    return np.where(image > image.mean(), np.nan, image)
def unfilled(image, psf, *, seed):
    return image
unfilled.takes_missing = True
def nothing(image, psf, *, seed):
    pass
def seedless(image, psf):
    return image
number = 3
'''


@pytest.fixture
def users(tmp_path, monkeypatch):
    (tmp_path / "users_methods.py").write_text(USERS)
    monkeypatch.chdir(tmp_path)
    yield tmp_path
    sys.modules.pop("users_methods", None)


def case(method, condition=TRACKS["a"][0]):
    source = Source("filaments", "image")
    return Case(source, condition, method, 0, Settings(device="cpu", steps=5))


@pytest.fixture
def a_source(monkeypatch):
    truth = noise.normalise_minmax(data.camera()[100:148, 200:248])
    monkeypatch.setattr("selfinv.benchmark.images.load", lambda source: Loaded(truth))
    return truth


def test_a_users_function_by_module_or_file(users, a_source):
    for name in ("users_methods:plain", f"{users}/users_methods.py:plain"):
        assert methods.named(name).about == "Does nothing, well."
        row, _ = execute(case(name))
        assert (row["status"], row["told"], row["group"]) == ("ok", "PSF", "other")
        assert row["seconds"] > 0
    missing = next(c for c in TRACKS["d"] if c.name == "30 % missing")
    assert execute(case("users_methods:plain", missing))[0]["status"] == "ok"  # the holes were filled


def test_what_was_not_measured_is_for_the_method_to_fill_in(users, a_source):
    missing = next(c for c in TRACKS["d"] if c.name == "30 % missing")
    row, _ = execute(case("users_methods:unfilled", missing))
    assert row["status"] == "failed"  # or it would be scored by how the benchmark fills in the input's holes
    assert "values that are NaN or infinite; expected numbers everywhere" in row["error"]
    assert execute(case("input", missing))[0]["status"] == "ok"


def test_nothing_is_told_of_a_psf_where_only_noise_is_to_be_removed(a_source):
    assert execute(case("richardson-lucy-5", TRACKS["d"][0]))[0]["told"] == ""
    assert execute(case("richardson-lucy-oracle", TRACKS["d"][0]))[0]["told"] == "truth"


def test_a_users_function_that_is_told_the_truth_is_labelled(users, a_source):
    row, _ = execute(case("users_methods:liar"))
    assert (row["told"], row["psnr"]) == ("truth, outside data", float("inf"))


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("broken", "ZeroDivisionError: one over nothing (users_methods.py:"),
        ("wrong_shape", "returned the shape (47, 48) for an image (48, 48)"),
        ("holes", "values that are NaN or infinite"),
        ("nothing", "users_methods:nothing returned nothing; expected an image"),
    ],
)
def test_what_goes_wrong_is_a_row(users, a_source, name, words):
    row, image = execute(case(f"users_methods:{name}"))
    assert row["status"] == "failed"
    assert words in row["error"]
    assert image is None


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("telepathy", "no method 'telepathy'"),
        ("users_methods:none", "could not be imported"),
        ("nowhere:f", "could not be imported"),
        ("nowhere.py:f", "there is no file nowhere.py"),
        ("users_methods:number", "expected a function"),
        (
            "users_methods:seedless",
            r"called with \(image, psf, \*, seed\), and takes \(image, psf\): got an unexp",
        ),
    ],
)
def test_names_that_are_none(users, name, words):
    with pytest.raises(InputError, match=words):
        methods.choose([name])


def test_the_memory_of_a_case_is_measured(users, a_source):
    row, _ = execute(case("richardson-lucy-5"))
    assert 0 <= row["peak_memory_mib"] < 2000
    assert row["torch"]
    assert row["cpu"]
    assert row["commit"] is not None


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="elsewhere peaks cannot be reset")
def test_a_process_s_first_case_is_not_charged_for_its_start(tmp_path):
    program = f"""
import numpy as np
from selfinv.benchmark.cases import Case, Settings
from selfinv.benchmark.conditions import TRACKS
from selfinv.benchmark.execute import execute
from selfinv.benchmark.images import Source
np.save({str(tmp_path / "a.npy")!r}, np.random.default_rng(0).random((96, 96)))
source = Source("a", "image", {str(tmp_path / "a.npy")!r})
case = Case(source, TRACKS["a"][0], "richardson-lucy-10", 0, Settings(device="cpu"))
print(execute(case)[0]["peak_memory_mib"])
"""
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert float(done.stdout) < 25  # the image takes 0.04, modules and plans of transforms about 50


def test_a_degradation_has_the_psf_it_was_told(a_source):
    measured = degrade(Loaded(a_source), TRACKS["a"][0], 0)
    assert measured.psf.sum() == pytest.approx(1)
