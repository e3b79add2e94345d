"""Recipes: beside every result, read again, and what is wrong with them in one line."""

import os

import numpy as np
import pytest
import yaml

from selfinv import cli, io, psf
from selfinv.recipe import Recipe, beside, relative, sha256
from selfinv.types import InputError

TV = ("--method", "tv-chambolle-pock", "--weight", 5, "-q")
FEW = ("--method", "ssi-network", "--steps", 3, "-q")


def waves(*shape, seed=0):
    y, x = (np.sin(np.arange(n) / 4) for n in shape[-2:])
    return np.random.default_rng(seed).poisson(200 + 90 * np.outer(y, x)).astype(np.float32)


@pytest.fixture
def folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    io.write("noisy.tif", waves(32, 32))
    io.write("psf.tif", psf.gaussian(1.0, (7, 7)).astype(np.float32))
    io.write("mask.tif", (np.arange(1024).reshape(32, 32) % 7 == 0).astype(np.uint8))
    np.savetxt("angles.txt", np.arange(32) * 180 / 32)
    return tmp_path


@pytest.fixture
def run(capsys):
    def run(*arguments):
        with pytest.raises(SystemExit) as ended:
            cli.main([str(a) for a in arguments])
        told = capsys.readouterr()
        return ended.value.code, told.err

    return run


def test_a_zarr_is_another_one_once_its_values_have_changed(tmp_path):
    zarr = pytest.importorskip("zarr")
    for version in (2, 3):
        path = tmp_path / f"{version}.zarr"
        array = zarr.create_array(path, shape=(8, 8), chunks=(4, 8), dtype="f4", zarr_format=version)
        array[:] = 1.0
        before = sha256(path)
        assert sha256(path) == before
        array[5, 5] = 2.0
        assert sha256(path) != before


# ---- beside every result ----


@pytest.mark.parametrize(
    "arguments",
    [
        ("restore", "noisy.tif", "out/a.tif", "--psf", "psf.tif", "--boundary", "reflect", *TV),
        ("restore", "noisy.tif", "out/a.tif", "--psf", "psf.tif", "--seed", 3, *FEW),
        ("denoise", "noisy.tif", "out/a.tif", "--preview", "out/p.png", "--seed", 4, *FEW),
        ("inpaint", "noisy.tif", "out/a.tif", "--mask", "mask.tif", *TV),
        ("superres", "noisy.tif", "out/a.tif", "--factor", "1.5,1", *TV),
        ("tomography", "noisy.tif", "out/a.tif", "--angles", "angles.txt", *TV),
    ],
    ids=lambda arguments: arguments[0],
)
def test_a_result_is_made_again_bit_for_bit(folder, run, arguments):
    os.mkdir("out")
    code, told = run(*arguments)
    assert code in (0, 1), told  # three steps may fail by its own checks
    recipe = Recipe.load("out/a.tif.recipe.yaml")
    assert recipe.command == arguments[0]
    assert (recipe.inputs, recipe.output) == (("../noisy.tif",), "a.tif")
    assert set(recipe.options) >= {"method", "seed"}
    assert recipe.read["../noisy.tif"] == sha256(folder / "noisy.tif")
    assert len(recipe.read) == 1 + any(str(a) in ("--psf", "--mask", "--angles") for a in arguments)
    first = io.read("out/a.tif").data
    os.remove("out/a.tif")
    assert run("batch", "out/a.tif.recipe.yaml", "-q")[0] == code
    np.testing.assert_array_equal(io.read("out/a.tif").data, first)
    assert Recipe.load("out/a.tif.recipe.yaml") == recipe
    if code == 0:
        assert "the same file as before, byte for byte" in run("batch", "out/a.tif.recipe.yaml")[1]


def test_a_model_that_is_kept_is_made_again_and_so_is_what_it_makes(folder, run):
    assert run("restore", "noisy.tif", "a.tif", "--save-model", "m.safetensors", *FEW)[0] in (0, 1)
    assert run("apply", "m.safetensors", "noisy.tif", "b.tif", "-q")[0] == 0
    made, applied = Recipe.load("a.tif.recipe.yaml"), Recipe.load("b.tif.recipe.yaml")
    assert set(made.wrote) == {"a.tif", "m.safetensors"}
    assert applied.options == {"model": "m.safetensors"}
    assert applied.read["m.safetensors"] == made.wrote["m.safetensors"]
    first = io.read("b.tif").data
    assert run("batch", "b.tif.recipe.yaml", "-q")[0] == 0
    np.testing.assert_array_equal(io.read("b.tif").data, first)


def test_the_file_is_for_people(folder, run):
    run("denoise", "noisy.tif", "restored.ome.tif", *TV)
    words = (folder / "restored.ome.tif.recipe.yaml").read_text()
    assert words.startswith(
        "# How restored.ome.tif was made. To make it again: selfinv batch restored.ome.tif.recipe."
    )
    assert list(yaml.safe_load(words)) == [
        "command",
        "inputs",
        "output",
        "options",
        "read",
        "wrote",
        "versions",
    ]
    assert yaml.safe_load(words)["options"] == {"method": "tv-chambolle-pock", "seed": 0, "weight": 5.0}
    assert str(folder) not in words


def test_a_result_that_is_to_be_deblurred_again_is_told_of(folder, run):
    told = "warning: a.tif is a result itself, restored with a PSF as a.tif.recipe.yaml says"
    assert run("restore", "noisy.tif", "a.tif", "--psf", "psf.tif", *TV)[0] == 0
    assert told in run("restore", "a.tif", "b.tif", "--psf", "psf.tif", *TV)[1]
    assert told not in run("restore", "a.tif", "b.tif", *TV)[1]
    (folder / "noisy.tif").replace(folder / "a.tif")  # another image by now
    assert told not in run("restore", "a.tif", "b.tif", "--psf", "psf.tif", *TV)[1]


def test_no_recipe_is_written_if_none_is_wanted_or_nothing_was_made(folder, run):
    assert run("denoise", "noisy.tif", "a.tif", "--no-recipe", *TV)[0] == 0
    assert run("denoise", "missing.tif", "b.tif", *TV)[0] == 2
    assert not list(folder.glob("*.yaml"))


def test_results_that_differ_in_their_format_alone_have_a_recipe_each(folder, run):
    for name, weight in (("a.tif", 0.1), ("a.npy", 0.2)):
        assert run("denoise", "noisy.tif", name, *TV[:2], "--weight", weight)[0] == 0
    assert [Recipe.load(f"a.{end}.recipe.yaml").options["weight"] for end in ("tif", "npy")] == [0.1, 0.2]


def test_a_file_that_is_no_runs_recipe_is_not_replaced(folder, run):
    (folder / "a.tif.recipe.yaml").write_text("command: denoise\ninputs: '*.tif'\noutput: '{stem}.npy'\n")
    code, told = run("denoise", "noisy.tif", "a.tif", *TV)
    assert code == 2
    assert "a.tif.recipe.yaml is where the recipe of a.tif belongs" in told
    assert not (folder / "a.tif").exists()


def test_braces_in_names_are_braces(folder, run):
    os.rename("psf.tif", "{stem}.tif")
    assert run("restore", "noisy.tif", "{a}.tif", "--psf", "{stem}.tif", *TV)[0] == 0
    os.remove("{a}.tif")
    assert run("batch", "{a}.tif.recipe.yaml", "-q")[0] == 0
    assert (folder / "{a}.tif").exists()


def test_what_differs_from_then_is_said(folder, run):
    run("denoise", "noisy.tif", "a.tif", *TV)
    words = (folder / "a.tif.recipe.yaml").read_text()
    (folder / "a.tif.recipe.yaml").write_text(words.replace("python: ", "python: 1."))
    io.write("noisy.tif", waves(32, 32, seed=1))
    code, told = run("batch", "a.tif.recipe.yaml", "-q")
    assert code == 0
    lines = told.splitlines()
    assert len(lines) == 3
    assert "noisy.tif is not the file that it was for this recipe; the result may differ" in lines[0]
    assert "was made with python 1." in lines[1]
    assert lines[2] == "selfinv: 1/1 noisy.tif: warning: not the same as before"


def test_a_run_that_failed_says_so(folder, run):
    io.write("noisy.tif", waves(32, 32))
    beyond = ("--method", "tv-chambolle-pock", "--weight", 1e300)
    assert run("denoise", "noisy.tif", "a.tif", *beyond, "--steps", 1, "-q")[0] == 1
    assert Recipe.load("a.tif.recipe.yaml").ended == "failed"


# ---- the file itself ----


def test_saved_and_loaded_it_is_the_same(tmp_path):
    recipe = Recipe(
        "restore",
        ("a.tif", "b/**/*.tif"),
        "out/{stem}.tif",
        options={"seed": 1, "weight": 1e-5, "clip": True, "axes": "yx", "method": "no"},
        train="first",
        read={"a.tif": "0" * 64},
        wrote={"out/a.tif": "1" * 64},
        ended="failed",
        versions={"python": "3.10", "threads": "2"},
    )
    recipe.save(tmp_path / "r.yaml")
    assert Recipe.load(tmp_path / "r.yaml") == recipe
    assert os.listdir(tmp_path) == ["r.yaml"]


def test_paths_are_seen_from_the_folder_itself(tmp_path):
    (tmp_path / "far" / "away").mkdir(parents=True)
    (tmp_path / "link").symlink_to(tmp_path / "far" / "away")
    name = relative(tmp_path / "a.tif", tmp_path / "link")
    assert name == "../../a.tif"
    assert relative(beside(tmp_path / "link" / "b.tif"), tmp_path / "link") == "b.tif.recipe.yaml"


GOOD = {"command": "denoise", "inputs": "noisy.tif", "output": "out/{stem}.tif"}
BAD = {
    "missing": (None, "no such file"),
    "no text": (b"\xff\xfe\0\0", "is no text file"),
    "no yaml": ("command: [", "is no YAML: line 1"),
    "star": ("command: denoise\ninputs: *.tif\n", "must be in quotes, e.g. '*.tif'"),
    "stem": ("command: denoise\ninputs: a.tif\noutput: {stem}.tif\n", "must be in quotes"),
    "only stem": (GOOD | {"output": {"stem": None}}, "output is {'stem': None}; expected words; what begins"),
    "python": ("command: !!python/object/apply:os.getcwd []", "is no YAML: line 1: could not determine"),
    "twice": ("command: denoise\ncommand: restore\n", "is no YAML: line 2: 'command' is there twice"),
    "words": ("restore it", "is no recipe; expected lines such as 'command: restore'"),
    "empty": ("", "is no recipe"),
    "key": (GOOD | {"input": "a.tif"}, "'input' is unknown; did you mean inputs?"),
    "no command": ({"inputs": "noisy.tif", "output": "a.tif"}, "command is missing; add a line such as"),
    "no inputs": (GOOD | {"inputs": []}, "inputs is missing"),
    "inputs": (GOOD | {"inputs": {"a": 1}}, "expected a path, a pattern or a list of such"),
    "command": (GOOD | {"command": "denoize"}, "command 'denoize' is unknown; did you mean denoise?"),
    "option": (GOOD | {"options": {"save_model": "m"}}, "no option 'save_model'; did you mean save-model?"),
    "other's option": (GOOD | {"options": {"psf": "psf.tif"}}, "denoise has no option 'psf'"),
    "options": (GOOD | {"options": ["seed"]}, "options is ['seed']; expected lines such as 'seed: 1'"),
    "empty option": (GOOD | {"options": {"seed": None}}, "options has 'seed': None; expected"),
    "steps": (GOOD | {"options": {"steps": 0}}, "Invalid value for '--steps'"),
    "weight": (GOOD | {"options": {"weight": "much"}}, "Invalid value for '--weight'"),
    "flag": (GOOD | {"options": {"clip": "x"}}, "clip is 'x'; expected true or false"),
    "method": (GOOD | {"options": {"method": "wienr"}}, "method 'wienr' is unknown; did you mean wiener?"),
    "no psf": (GOOD | {"command": "restore", "options": {"psf": "p.tif"}}, "psf p.tif does not exist"),
    "no word for a key": (b"{stem}: c\n", "a key is no word"),
    "no angles": (GOOD | {"command": "tomography"}, "Missing option '--angles'"),
    "no model": (GOOD | {"command": "apply"}, "apply needs the option model"),
    "no input": (GOOD | {"inputs": "noise.tif"}, "inputs: noise.tif does not exist"),
    "no match": (GOOD | {"inputs": "data/**/*.tif"}, "data/**/*.tif matches no file"),
    "folder": (GOOD | {"inputs": "."}, "is a folder; expected files, e.g."),
    "placeholder": (GOOD | {"output": "{stm}.tif"}, "unknown placeholder {stm}; use {stem}"),
    "brace": (GOOD | {"output": "{stem.tif"}, "a brace on its own"),
    "one output": (GOOD | {"inputs": "*.tif", "output": "a.tif"}, "would both be written to a.tif"),
    "output is input": (GOOD | {"output": "{name}"}, "which is an input; write to a folder of its own"),
    "train": (GOOD | {"train": "once"}, "train is 'once'; use each or first"),
    "train what": (
        GOOD | {"train": "first", "options": {"method": "wiener"}},
        "train: first needs a method that trains; use 'method: ssi'",
    ),
}


@pytest.mark.parametrize(("content", "words"), BAD.values(), ids=BAD)
def test_a_bad_recipe_is_one_line_with_status_2(folder, run, content, words):
    before = sorted(os.listdir(folder))
    if isinstance(content, bytes):
        (folder / "r.yaml").write_bytes(content)
    elif content is not None:
        (folder / "r.yaml").write_text(content if isinstance(content, str) else yaml.safe_dump(content))
    code, told = run("batch", "r.yaml")
    assert code == 2, told
    assert len(told.splitlines()) == 1, told
    assert told.startswith("selfinv: error: r.yaml")
    assert words in told
    assert sorted({*os.listdir(folder)} - {"r.yaml"}) == before


def test_a_placeholder_of_an_option_is_checked_too(folder, run):
    (folder / "r.yaml").write_text(yaml.safe_dump(GOOD | {"options": {"preview": "{x}.png"}}))
    assert run("batch", "r.yaml")[0] == 2


def test_a_huge_file_is_not_read(tmp_path):
    with open(tmp_path / "r.yaml", "wb") as stream:
        stream.truncate(20_000_000)
    with pytest.raises(InputError, match="which is no recipe"):
        Recipe.load(tmp_path / "r.yaml")
