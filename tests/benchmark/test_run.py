"""The whole way: images in, a table and a page out; a kill, a resume, a full disk, methods that fail or
die."""

import csv
import html.parser
import json
import os
import re
import resource
import signal
import subprocess
import sys
import time
from dataclasses import replace

import numpy as np
import pytest
from imagecodecs import png_encode
from skimage import data

from selfinv import cli
from selfinv.benchmark.run import Plan, run_benchmark, share
from selfinv.types import InputError, SelfinvWarning

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="signals")

# Each takes note of being called, so that a test can count.
USERS = """
import os, pathlib, time
HERE = pathlib.Path(os.environ["SELFINV_TEST_CALLS"])
def note(name, seed):
    (HERE / f"{name}-{time.time_ns()}").touch()
def quick(image, psf, *, seed):
    note("quick", seed)
    return image
def slow(image, psf, *, seed):
    note("slow", seed)
    time.sleep(600 if (HERE / "sleep").exists() else 0)
    return image
def broken(image, psf, *, seed):
    raise RuntimeError("boom")
def dies(image, psf, *, seed):
    os._exit(9)
def any_operator(image, psf, *, seed, operator):
    import torch
    assert psf is None or operator is None
    y = torch.from_numpy(image)[None, None]
    return image if operator is None else operator.adjoint(y)[0, 0].numpy()
"""
QUICK = "input,users:quick"


@pytest.fixture
def place(tmp_path, monkeypatch):
    """A folder with two images, one in colour, and users' methods."""
    images = tmp_path / "images"
    images.mkdir()
    (images / "camera.png").write_bytes(png_encode(data.camera()[80:280, 150:350]))
    (images / "astronaut.png").write_bytes(png_encode(np.ascontiguousarray(data.astronaut()[:160, 150:310])))
    (images / "tiny.png").write_bytes(png_encode(data.camera()[:20, :20]))
    (tmp_path / "users.py").write_text(USERS)
    np.save(tmp_path / "holes.npy", np.full((3, 3), np.nan))
    np.save(tmp_path / "line.npy", np.ones(3))
    calls = tmp_path / "calls"
    calls.mkdir()
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.setenv("SELFINV_TEST_CALLS", str(calls))
    yield tmp_path
    sys.modules.pop("users", None)


def command(*words):
    return [sys.executable, "-m", "selfinv", "benchmark", "--images", "images", "--output", "out", *words]


def run(*words, **options):
    return subprocess.run(
        command(*words), capture_output=True, text=True, timeout=250, check=False, **options
    )


def table(place):
    with (place / "out" / "results.csv").open(newline="") as stream:
        return list(csv.DictReader(stream))


def calls(place, name):
    return len(list((place / "calls").glob(f"{name}-*")))


def test_the_whole_path(place):
    names = "reference,richardson-lucy-5,ssi-network,tv-chambolle-pock,richardson-lucy-oracle,users:broken"
    done = run("--methods", names, "--crop", "128", "--steps", "6", "--jobs", "2", "--device", "cpu")
    assert done.returncode == 1  # one method failed, and it is said which
    assert "failed: users:broken on camera (paper): RuntimeError: boom" in done.stderr
    assert "Traceback" not in done.stderr
    assert "astronaut.png is in colour" in done.stderr
    assert "tiny.png is left out" in done.stderr
    rows = table(place)
    assert len(rows) == 2 * 7
    assert {r["status"] for r in rows if r["method"] != "users:broken"} <= {"ok", "flagged"}
    good = next(r for r in rows if r["method"] == "richardson-lucy-5")
    for column in (
        "psnr",
        "ssim",
        "mi",
        "smi",
        "frc",
        "seconds",
        "peak_memory_mib",
        "torch",
        "cpu",
        "seed",
        "threads",
    ):
        assert good[column], column
    page = (place / "out" / "report.html").read_text()
    parser = html.parser.HTMLParser()
    parser.feed(page)
    assert not re.search(r"(src|href)=['\"](?!data:)", page)  # needs nothing but itself
    for words in (
        "is best",
        "published",
        "Time and memory",
        "Crops and spectra",
        "Between blur and noise",
        "boom",
    ):
        assert words in page
    assert page.count("<img") > 20
    text = (place / "out" / "report.md").read_text()
    assert "users:broken **failed** on camera" in text
    assert "told" in text
    # A finished folder is not written over unasked; asked, only what failed is done again.
    again = Plan(
        images=place / "images",
        output=place / "out",
        methods=tuple(names.split(",")),
        crop=128,
        steps=6,
        device="cpu",
    )
    with pytest.raises(InputError, match="holds 14 cases of an earlier run; go on with --resume"):
        run_benchmark(again)
    said = []
    run_benchmark(replace(again, resume=True, jobs=1), said.append)
    assert any("2 cases to do, 12 are there already" in words for words in said)


def test_a_killed_run_goes_on_where_it_was(place):
    (place / "calls" / "sleep").touch()
    words = (
        "--methods",
        "input,users:quick,users:slow",
        "--crop",
        "64",
        "--jobs",
        "1",
        "--names",
        "camera",
        "--seeds",
        "2",
    )
    process = subprocess.Popen(command(*words), stderr=subprocess.DEVNULL)
    deadline = time.monotonic() + 100
    while not calls(place, "slow") and time.monotonic() < deadline:
        time.sleep(0.1)
    process.send_signal(signal.SIGKILL)
    process.wait()
    cases = {p: p.stat().st_mtime_ns for p in (place / "out" / "cases").glob("*.json")}
    assert len(cases) == 2  # input and quick of the first seed; slow was in flight
    (place / "calls" / "sleep").unlink()
    done = run(*words, "--resume")
    assert done.returncode == 0, done.stderr
    assert "4 cases to do, 2 are there already" in done.stderr
    assert all(p.stat().st_mtime_ns == when for p, when in cases.items())
    assert (calls(place, "quick"), calls(place, "slow")) == (2, 3)
    assert len(table(place)) == 6
    assert not list((place / "out").rglob(".*"))  # no halves are left


def test_interrupted_it_says_how_to_go_on(place):
    (place / "calls" / "sleep").touch()
    words = ("--methods", "input,users:slow", "--crop", "64", "--jobs", "1", "--names", "camera")
    process = subprocess.Popen(command(*words), stderr=subprocess.PIPE, text=True)
    deadline = time.monotonic() + 100
    while not calls(place, "slow") and time.monotonic() < deadline:
        time.sleep(0.1)
    process.send_signal(signal.SIGINT)
    _, said = process.communicate(timeout=60)
    assert process.returncode == 130
    assert "interrupted; what is finished is kept and reported in out: go on with --resume" in said
    assert "Traceback" not in said
    assert [r["method"] for r in table(place)] == ["input"]
    assert "1 of 2 cases are not there yet" in (place / "out" / "report.md").read_text()


def test_a_process_that_dies_is_a_failed_case_and_the_rest_goes_on(place):
    outcome = run_benchmark(plan(place, ("users:dies", "users:quick"), names=("camera",)))
    status = {row["method"]: (row["status"], row["error"]) for row in outcome.rows}
    assert status["users:quick"] == ("ok", "")
    assert status["users:dies"][0] == "failed"
    assert "its process ended by exit status 9" in status["users:dies"][1]


def test_other_settings_make_the_old_results_stale(place):
    first = plan(place, ("input", "users:quick"), names=("camera",))
    run_benchmark(first)
    assert calls(place, "quick") == 1
    said = []
    other = plan(place, ("input", "users:quick"), names=("camera",), crop=48, resume=True)
    with pytest.warns(SelfinvWarning, match=r"2 finished cases were made .* \(crop 64, now 48\)"):
        run_benchmark(other, said.append)
    assert calls(place, "quick") == 2
    assert any("2 cases to do" in words for words in said)


def test_more_pictures_than_were_kept_are_said_to_be_missing(place):
    first = plan(place, ("input", "users:quick"), names=("camera",), pictures=0)
    run_benchmark(first)
    said = []
    run_benchmark(replace(first, resume=True, pictures=1), said.append)
    assert any(words.startswith("restored images of camera were not kept") for words in said)
    assert "restored images of camera were not kept" in (place / "out" / "report.html").read_text()
    assert calls(place, "quick") == 1
    said.clear()
    run_benchmark(replace(first, resume=True), said.append)
    assert not any("not kept" in words for words in said)


@pytest.mark.parametrize("method", ["users:quick", "users.py:quick"])
def test_another_code_of_a_users_method_makes_its_results_stale(place, method):
    first = plan(place, ("input", method), names=("camera",))
    run_benchmark(first)
    (place / "users.py").write_text(USERS + "# mended\n")
    sys.modules.pop("users", None)
    with pytest.warns(SelfinvWarning, match=r"1 finished case was made .* \(another .* or code\)"):
        run_benchmark(replace(first, resume=True))
    assert calls(place, "quick") == 2


def test_quiet_leaves_the_headline_and_the_failures(place):
    done = run("--methods", "users:quick,users:broken", "--crop", "64", "--names", "camera", "-q")
    assert done.stderr.splitlines() == [
        "selfinv: failed: users:broken on camera (paper): RuntimeError: boom (users.py:14)"
    ]
    assert done.stdout.startswith("Track A: paper: users:quick is best")


def test_a_full_disk_ends_the_run_in_one_line_and_keeps_what_there_is(place):
    def small():
        resource.setrlimit(resource.RLIMIT_FSIZE, (20_000, 20_000))

    # The row fits, the restored image does not.
    done = run("--methods", QUICK, "--crop", "128", "--jobs", "1", "--names", "camera", preexec_fn=small)
    assert done.returncode == 2
    lines = [line for line in done.stderr.splitlines() if "error" in line]
    assert len(lines) == 1
    assert "could not be written" in lines[0]
    assert "go on with --resume" in lines[0]
    assert "Traceback" not in done.stderr
    assert (
        run("--methods", QUICK, "--crop", "128", "--jobs", "1", "--names", "camera", "--resume").returncode
        == 0
    )


def plan(place, methods, **changes):
    settings = {"crop": 64, "jobs": 1, "device": "cpu", "pictures": 0} | changes
    return Plan(images=place / "images", output=place / "out", methods=methods, **settings)


def test_cores_are_shared_out(place, monkeypatch):
    monkeypatch.setattr("selfinv.benchmark.machine.cores", lambda: 12)
    for jobs, cases, expected in (
        (None, 100, (8, 1)),
        (None, 3, (3, 4)),
        (2, 100, (2, 6)),
        (50, 100, (50, 1)),
    ):
        assert share(plan(place, (), jobs=jobs), cases) == expected


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["--images", "none"], "none is no folder"),
        (["--images", "calls"], "there is no image"),
        (["--methods", "telepathy"], "no method 'telepathy'"),
        (["--track", "x"], "no track 'x'"),
        (["--condition", "rain"], "no condition 'rain'"),
        (["--noise", "sigma"], "--noise 'sigma'"),
        (["--psf", "none.npy"], "none.npy is no file"),
        (["--psf", "holes.npy"], "holes.npy: psf"),
        (["--psf", "line.npy"], "line.npy: psf has 1 axis but"),
        (["--crop", "8"], "a crop of 32 or more"),
        (["--ours", "ssi", "--methods", "input"], "--ours 'ssi' is not among"),
        (["--output", "users.py"], "users.py is a file"),
        (["--output", "images"], "images is the folder of the images; give another one"),
        (["--check-inputs", "none.csv"], "none.csv is no file"),
        (["--check-inputs", "users.py"], "compares whole images degraded as in the paper: give --crop 0"),
        (["--check-inputs", "users.py", "--crop", "0"], "users.py is no table of inputs"),
        (["--boundary", "wall"], "'wall' is unknown"),
        (["--device", "abacus"], "'abacus' is unknown"),
        (["--methods", "deepinv-splitting"], 'pip install "selfinv[deepinv]"'),
    ],
)
def test_mistakes_are_one_line(place, capfd, words, said):
    if "deepinv" in said:
        monkey = pytest.importorskip("importlib.util").find_spec("deepinv")
        if monkey is not None:
            pytest.skip("deepinv is installed")
    before = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        with pytest.raises(SystemExit) as ended:
            cli.main(["benchmark", "--images", "images", "--output", "out", *words])
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
    found = capfd.readouterr().err
    assert ended.value.code == 2
    assert said in found
    assert len([line for line in found.splitlines() if "error" in line]) == 1


def test_a_table_of_published_inputs_is_compared(place):
    (place / "published.csv").write_text(
        "image,kind,psnr,ssim_range2,ssim_range1,mi,smi\ncamera,noisy,10.0,0.1,0.1,0.1,0.1\n"
    )
    done = run("--methods", "input", "--crop", "0", "--check-inputs", "published.csv", "--names", "camera")
    assert done.returncode == 1
    assert "not as published: camera, noisy: psnr is" in done.stderr
    (row,) = table(place)
    scores = [row[name] for name in ("psnr", "ssim_range2", "ssim", "mi", "smi")]
    for values, said in (
        (scores, "the inputs' scores are those of published.csv to 0.001 (1 compared)"),
        (["nan"] * 5, "published.csv is no table of inputs"),
    ):
        (place / "published.csv").write_text(
            f"image,kind,psnr,ssim_range2,ssim_range1,mi,smi\ncamera,noisy,{','.join(values)}\n"
        )
        words = ("--methods", "input", "--crop", "0", "--names", "camera", "--resume")
        assert said in run(*words, "--check-inputs", "published.csv").stderr


def test_rows_are_whole_json_and_the_folder_cannot_be_half_made(place):
    outcome = run_benchmark(plan(place, ("input",), names=("camera",)))
    (case,) = (place / "out" / "cases").iterdir()
    assert json.loads(case.read_text())["psnr"] == outcome.rows[0]["psnr"]
    (place / "blocked").mkdir()
    os.chmod(place / "blocked", 0o500)
    if os.access(place / "blocked", os.W_OK):
        pytest.skip("a superuser may write anywhere")
    with pytest.raises(InputError, match="could not be made"):
        run_benchmark(Plan(images=place / "images", output=place / "blocked" / "out", methods=("input",)))


def test_a_users_method_is_given_an_operator_if_it_takes_one_and_is_left_out_if_not(place):
    others = ("--condition", "projections", "--condition", "30 % missing", "--crop", "48", "--jobs", "1")
    done = run("--track", "d", "--methods", "users:quick,users:any_operator", *others)
    assert done.returncode == 0, done.stderr
    assert "users:quick takes no operator: left out of 1 of 2 conditions" in done.stderr
    rows = table(place)
    assert {r["condition"] for r in rows if r["method"] == "users:quick"} == {"30 % missing"}
    assert {r["condition"] for r in rows if r["method"] == "users:any_operator"} == {
        "30 % missing",
        "projections",
    }


def test_pictures_of_values_that_are_no_pixels(place):
    (place / "images" / "astronaut.png").unlink()
    names = ("projections", "spectrum", "dithered", "hadamard")
    chosen = [word for name in names for word in ("--condition", name)]
    shown = ("--crop", "64", "--pictures", "1", "--jobs", "1")
    done = run("--track", "d", "--methods", "blurred,wiener", *chosen, *shown)
    assert done.returncode == 0, done.stderr
    page = (place / "out" / "report.html").read_text()
    for name in names:
        assert name in page
    assert page.count("alt='crop'") >= 8
