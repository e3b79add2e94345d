"""Many images by one recipe."""

import os
import signal

import numpy as np
import pytest
import yaml

from selfinv import cli, io, psf
from selfinv.cli import tasks
from selfinv.recipe import Recipe, beside

TV = {"method": "tv-chambolle-pock", "weight": 5}


def waves(seed=0):
    y, x = np.sin(np.arange(32) / 4), np.sin(np.arange(32) / 3)
    return np.random.default_rng(seed).poisson(200 + 90 * np.outer(y, x)).astype(np.float32)


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """Four images below ``data``, a PSF."""
    monkeypatch.chdir(tmp_path)
    for seed, name in enumerate(("a", "b", "day/a", "day/night/c")):
        os.makedirs(os.path.dirname(f"data/{name}"), exist_ok=True)
        io.write(f"data/{name}.tif", waves(seed))
    io.write("psf.tif", psf.gaussian(1.0, (7, 7)).astype(np.float32))
    return tmp_path


@pytest.fixture
def run(capsys):
    def run(recipe, *arguments):
        if recipe is not None:
            with open("r.yaml", "w") as stream:
                yaml.safe_dump({"command": "denoise", "options": TV} | recipe, stream)
        handlers = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}
        try:
            with pytest.raises(SystemExit) as ended:
                cli.main(["batch", "r.yaml", *map(str, arguments)])
        finally:
            for number, handler in handlers.items():
                signal.signal(number, handler)
        told = capsys.readouterr()
        return ended.value.code, told.out.splitlines(), told.err.splitlines()

    return run


def files(folder, ending=".tif"):
    return sorted(str(path.relative_to(folder)) for path in folder.rglob(f"*{ending}"))


def outcomes(table):
    """What the table says of each input."""
    return [line.split()[3] for line in table]


# ---- which files ----


def test_patterns_find_files_and_name_results(folder, run):
    code, table, told = run({"inputs": "data/**/*.tif", "output": "out/{parent}/{stem}.npy"})
    assert code == 0
    assert files(folder / "out", ".npy") == [
        "data/a.npy",
        "data/b.npy",
        "data/day/a.npy",
        "data/day/night/c.npy",
    ]
    assert len(files(folder / "out", ".recipe.yaml")) == 4
    assert outcomes(table) == ["made"] * 4
    assert told[0].startswith("selfinv: 1/4 a.tif: wrote out/data/a.npy: tv-chambolle-pock, weight 5, ")
    assert told[-1].startswith("selfinv: 4 made of 4 in ")


def test_a_pattern_does_not_find_the_recipes_beside_images(folder, run):
    recipe = {"inputs": "data/*.tif*", "output": "data/{stem}.out.tif"}
    assert outcomes(run(recipe)[1]) == ["made"] * 2
    assert outcomes(run(recipe | {"inputs": "data/[ab].tif*", "output": "x/{stem}.tif"})[1]) == ["made"] * 2


def test_a_file_that_two_patterns_find_is_done_once_and_the_lists_order_is_kept(folder, run):
    recipe = {"inputs": ["data/b.tif", "data/*.tif"], "output": "out/{name}"}
    code, table, _ = run(recipe)
    assert code == 0
    assert [line.split()[0] for line in table] == ["data/b.tif", "data/a.tif"]
    assert files(folder / "out") == ["a.tif", "b.tif"]


def test_a_name_that_looks_like_a_pattern_is_a_name(folder, run):
    io.write("data/[ab].tif", waves(7))
    code, table, _ = run({"inputs": "data/[ab].tif", "output": "out/{name}"})
    assert (code, len(table)) == (0, 1)
    assert files(folder / "out") == ["[ab].tif"]


def test_results_can_go_elsewhere(folder, run):
    recipe = {"inputs": "data/*.tif", "output": "out/{stem}.tif", "options": TV | {"preview": "p/{stem}.png"}}
    assert run(recipe, "--output-folder", "else/where", "-q") == (0, [], [])
    assert files(folder / "else/where", "") == [
        "a.png",
        "a.tif",
        "a.tif.recipe.yaml",
        "b.png",
        "b.tif",
        "b.tif.recipe.yaml",
    ]
    assert not (folder / "out").exists()


def test_two_results_of_an_input_in_one_place_are_refused_before_the_first_is_begun(folder, run):
    recipe = {"inputs": "data/*.tif", "output": "res/{stem}.tif", "command": "restore"}
    recipe["options"] = {"psf": "psf.tif", "method": "wiener", "residual": "resid/{stem}.tif"}
    code, table, told = run(recipe, "--output-folder", "out")
    assert (code, table, len(told)) == (2, [], 1)
    assert "output and residual of data/" in told[0]
    assert "--output-folder leaves the recipe's folders out" in told[0]
    assert not (folder / "out").exists()


def test_a_recipe_in_another_folder_counts_from_there(folder, run):
    assert run({"inputs": "data/*.tif", "output": "out/{stem}.tif"}, "-q")[0] == 0
    first = io.read("out/a.tif").data
    os.remove("out/a.tif")
    os.rename("r.yaml", "data/r.yaml")
    (folder / "data/r.yaml").write_text((folder / "data/r.yaml").read_text().replace("data/*.tif", "'*.tif'"))
    with pytest.raises(SystemExit) as ended:
        cli.main(["batch", "data/r.yaml", "-q"])
    assert ended.value.code == 0
    np.testing.assert_array_equal(io.read("data/out/a.tif").data, first)


def test_each_input_may_have_its_own_mask(folder, run):
    os.mkdir("masks")
    for name in "ab":
        io.write(f"masks/{name}.tif", (waves(9) > 250).astype(np.uint8))
    recipe = {"command": "inpaint", "inputs": "data/*.tif", "output": "out/{stem}.tif"}
    assert run(recipe | {"options": TV | {"mask": "masks/{stem}.tif"}})[0] == 0
    assert set(Recipe.load("out/b.tif.recipe.yaml").read) == {"../data/b.tif", "../masks/b.tif"}
    os.remove("masks/b.tif")
    code, _, told = run(None)
    assert (code, len(told)) == (2, 1)
    assert "mask masks/b.tif does not exist" in told[0]


def test_an_extension_of_a_fits_file_is_found_again(folder, run, capsys):
    fits = pytest.importorskip("astropy.io.fits")
    bad = fits.ImageHDU((waves(9) > 250).astype(np.uint8), name="DQ")
    fits.HDUList([fits.PrimaryHDU(), fits.ImageHDU(waves(0), name="SCI"), bad]).writeto("m.fits")
    recipe = {"command": "inpaint", "inputs": "m.fits[SCI]", "output": "out/{stem}.tif"}
    assert run(recipe | {"options": TV | {"mask": "m.fits[DQ]"}})[0] == 0
    assert set(Recipe.load("out/m.tif.recipe.yaml").read) == {"../m.fits[SCI]", "../m.fits[DQ]"}
    with pytest.raises(SystemExit) as ended:
        cli.main(["batch", "out/m.tif.recipe.yaml"])
    assert ended.value.code == 0
    assert "byte for byte" in capsys.readouterr().err
    code, _, told = run(recipe | {"output": "m.fits", "options": TV | {"mask": "m.fits[DQ]"}})
    assert (code, len(told)) == (2, 1)
    assert "which is an input" in told[0]


# ---- what goes wrong ----


def test_a_poisoned_input_is_reported_and_the_rest_completes(folder, run):
    holes = waves()
    holes[3, 4] = np.nan
    io.write("data/holes.tif", holes)
    (folder / "data/cut.tif").write_bytes((folder / "data/a.tif").read_bytes()[:3000])
    (folder / "data/words.tif").write_text("no image")
    code, table, told = run({"inputs": "data/*.tif", "output": "out/{stem}.tif"}, "-q")
    assert code == 1
    assert files(folder / "out") == ["a.tif", "b.tif"]
    assert len(told) == 4
    assert told[0].startswith("selfinv: 3/5 cut.tif: error: data/cut.tif ")
    assert told[1].startswith("selfinv: 4/5 holes.tif: error: image has 1 NaN")
    assert told[2].startswith("selfinv: 5/5 words.tif: error: data/words.tif ")
    assert told[3].startswith("selfinv: 2 made, 3 failed of 5 in ")
    code, table, told = run(None)
    assert outcomes(table) == ["made", "made", "failed", "failed", "failed"]
    assert "1 NaN" in table[3]


def test_even_a_flaw_of_the_program_does_not_stop_the_rest(folder, run, monkeypatch):
    import selfinv.restoration

    real, calls = selfinv.restoration.restore, []

    def flawed(*arguments, **options):
        calls.append(1)
        if len(calls) == 1:
            raise ZeroDivisionError("by\nzero")
        return real(*arguments, **options)

    monkeypatch.setattr(selfinv.restoration, "restore", flawed)
    code, _, told = run({"inputs": "data/*.tif", "output": "out/{stem}.tif"}, "-q")
    assert code == 1
    assert told[0] == "selfinv: 1/2 a.tif: error: ZeroDivisionError: by zero"
    assert files(folder / "out") == ["b.tif"]


def test_a_run_that_failed_by_its_own_checks_counts_as_failed_also_when_resumed(folder, run):
    io.write("data/a.tif", waves() * np.float64(1e300))
    options = {"method": "ssi-network", "steps": 1}
    recipe = {"inputs": "data/*.tif", "output": "out/{stem}.tif", "options": options}
    for arguments in ((), ("--resume",)):
        code, table, _ = run(recipe, *arguments)
        assert code == 1
        assert outcomes(table)[0] == "failed"


def test_an_output_folder_that_is_a_file(folder, run):
    code, _, told = run({"inputs": "data/*.tif", "output": "{stem}.tif"}, "--output-folder", "psf.tif")
    assert (code, told) == (2, ["selfinv: error: psf.tif is a file; give a folder with --output-folder"])


@pytest.mark.skipif(
    not os.path.isdir("/proc/self"), reason="a folder in which even a superuser makes no file"
)
def test_an_output_folder_that_takes_no_files_is_told_at_once(folder, run):
    recipe = {"inputs": "data/*.tif", "output": "{stem}.tif"}
    code, table, told = run(recipe, "--output-folder", "/proc/results")
    assert (code, table, len(told)) == (2, [], 1)
    assert "cannot be written: no file can be made in /proc" in told[0]


def test_the_recipe_itself_is_not_replaced(folder, run):
    os.makedirs("out")
    with open("out/a.tif.recipe.yaml", "w") as stream:
        yaml.safe_dump({"command": "denoise", "inputs": "../data/*.tif", "output": "{stem}.tif"}, stream)
    with pytest.raises(SystemExit) as ended:
        cli.main(["batch", "out/a.tif.recipe.yaml"])
    assert ended.value.code == 2
    assert files(folder / "out", "") == ["a.tif.recipe.yaml"]


# ---- going on ----


def test_resume_does_nothing_twice_and_redoes_what_changed(folder, run):
    recipe = {"inputs": "data/**/*.tif", "output": "out/{parent}/{stem}.tif"}
    run(recipe)
    outputs = [folder / "out" / name for name in files(folder / "out")]
    before = [path.stat().st_mtime_ns for path in outputs]
    code, table, told = run(recipe, "--resume")
    assert (code, outcomes(table)) == (0, ["kept"] * 4)
    assert [path.stat().st_mtime_ns for path in outputs] == before
    assert told[-1].startswith("selfinv: 0 made, 4 kept of 4 in ")

    io.write("data/b.tif", waves(8))  # another input
    outputs[2].write_bytes(b"spoilt")  # another output
    os.remove(beside(outputs[3]))  # nobody knows how it was made
    assert outcomes(run(recipe, "--resume")[1]) == ["kept", "made", "made", "made"]
    recipe["options"] = TV | {"weight": 6}
    assert outcomes(run(recipe, "--resume")[1]) == ["made"] * 4
    assert outcomes(run(recipe)[1]) == ["made"] * 4  # without --resume all are


def test_another_psf_is_another_result(folder, run):
    recipe = {"command": "restore", "inputs": "data/*.tif", "output": "out/{stem}.tif"}
    recipe["options"] = TV | {"psf": "psf.tif"}
    run(recipe)
    assert outcomes(run(recipe, "--resume")[1]) == ["kept", "kept"]
    io.write("psf.tif", psf.gaussian(1.2, (7, 7)).astype(np.float32))
    assert outcomes(run(recipe, "--resume")[1]) == ["made", "made"]


@pytest.fixture
def interrupted(monkeypatch):
    """Ctrl-C so many times while the first image is being restored."""
    import selfinv.restoration

    real = selfinv.restoration.restore

    def patch(times, number=signal.SIGINT):
        left = [times]

        def restore(*arguments, **options):
            while left[0]:
                left[0] -= 1
                os.kill(os.getpid(), number)
            return real(*arguments, **options)

        monkeypatch.setattr(selfinv.restoration, "restore", restore)

    return patch


def test_ctrl_c_ends_after_the_present_image(folder, run, interrupted):
    interrupted(1)
    recipe = {"inputs": "data/*.tif", "output": "out/{stem}.tif"}
    code, table, told = run(recipe)
    assert (code, outcomes(table)) == (130, ["made"])
    assert told[0].startswith("selfinv: 1/2 a.tif: ending after this one; once more to end now")
    assert told[-1].startswith("selfinv: interrupted: 1 made of 2 in ")
    code, table, _ = run(recipe, "--resume")
    assert (code, outcomes(table)) == (0, ["kept", "made"])


@pytest.mark.parametrize(("times", "number"), [(2, signal.SIGINT), (1, signal.SIGTERM)])
def test_twice_or_a_request_to_end_ends_at_once(folder, run, interrupted, times, number):
    interrupted(times, number)
    code, table, told = run({"inputs": "data/*.tif", "output": "out/{stem}.tif"})
    assert (code, outcomes(table)) == (130, ["interrupted"])
    assert told[-1].startswith("selfinv: interrupted: 0 made, 1 interrupted of 2 in ")
    assert files(folder / "out", "") == []


def test_the_best_so_far_is_kept_but_not_taken_for_the_whole(folder, run, interrupt_training):
    interrupt_training(signal.SIGTERM)
    options = {"method": "ssi-network", "steps": 5}
    recipe = {"inputs": "data/*.tif", "output": "out/{stem}.tif", "options": options}
    code, table, _ = run(recipe)
    assert (code, outcomes(table)) == (130, ["interrupted"])
    assert files(folder / "out") == ["a.tif"]
    assert Recipe.load("out/a.tif.recipe.yaml").ended == "interrupted"
    assert "kept" not in outcomes(run(recipe, "--resume")[1])


# ---- one network for all ----

LEARNED = {"method": "ssi-network", "steps": 20, "psf": "psf.tif"}
FIRST = {
    "command": "restore",
    "inputs": "data/**/*.tif",
    "output": "out/{parent}/{stem}.tif",
    "options": LEARNED,
    "train": "first",
}


def test_one_network_is_trained_and_applied_to_the_rest(folder, run):
    code, table, told = run(FIRST)
    assert (code, outcomes(table)) == (0, ["made"] * 4), told
    assert files(folder, ".safetensors") == ["out/data/a.safetensors"]
    commands = [Recipe.load(folder / "out" / name).command for name in files(folder / "out", ".recipe.yaml")]
    assert commands == ["restore", "apply", "apply", "apply"]
    rest = Recipe.load("out/data/b.tif.recipe.yaml")
    assert rest.options == {"model": "a.safetensors"}
    model = io.read("out/data/b.tif").data
    cli_arguments = ["apply", "out/data/a.safetensors", "data/b.tif", "b.tif", "-q"]
    with pytest.raises(SystemExit):
        cli.main(cli_arguments)
    np.testing.assert_array_equal(io.read("b.tif").data, model)

    assert outcomes(run(FIRST, "--resume")[1]) == ["kept"] * 4
    io.write("data/day/a.tif", waves(8))
    assert outcomes(run(FIRST, "--resume")[1]) == ["kept", "kept", "made", "kept"]
    os.remove("out/data/a.safetensors")  # the model's file tells how long it took, so it is another one
    assert outcomes(run(FIRST, "--resume")[1]) == ["made"] * 4
    np.testing.assert_array_equal(io.read("out/data/b.tif").data, model)


def test_where_the_first_cannot_be_restored_the_next_one_trains(folder, run):
    (folder / "data/a.tif").write_bytes(b"")
    code, table, _ = run(FIRST | {"options": LEARNED | {"save-model": "model.safetensors"}})
    assert (code, outcomes(table)) == (1, ["failed", "made", "made", "made"])
    assert files(folder, ".safetensors") == ["model.safetensors"]
    assert Recipe.load("out/data/b.tif.recipe.yaml").command == "restore"
    assert Recipe.load("out/data/day/a.tif.recipe.yaml").command == "apply"


def test_a_network_for_a_finer_grid_is_used_again(folder, run):
    options = {"method": "ssi-network", "steps": 3, "factor": 2}
    recipe = {"command": "superres", "inputs": "data/*.tif", "output": "out/{stem}.tif", "options": options}
    code, table, told = run(recipe | {"train": "first"})
    if outcomes(table)[0] == "failed":
        pytest.skip("three steps were too few for its own checks")
    assert (code, outcomes(table)) == (0, ["made", "made"]), told
    assert Recipe.load("out/b.tif.recipe.yaml").options["model"] == "a.safetensors"
    assert io.read("out/b.tif").data.shape == (64, 64)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"command": "inpaint", "options": {"mask": "psf.tif"}}, "train: first is not for inpaint"),
        ({"options": {"method": "wiener"}}, "needs a method that trains"),
        ({"options": {"psf": "{stem}.tif"}}, "needs one psf for all inputs"),
        ({"command": "restore", "options": {"residual": "{stem}.tif"}}, "leaves no residual of the others"),
    ],
)
def test_one_network_for_what_has_none_is_refused(folder, run, change, words):
    code, _, told = run(FIRST | change)
    assert (code, len(told)) == (2, 1)
    assert words in told[0]


def test_every_option_of_a_recipe_is_one_of_the_command_line(folder):
    from selfinv.cli.commands import COMMANDS
    from selfinv.cli.recording import told

    assert tasks.superres.__name__ in COMMANDS
    assert {"psf", "factor", "save-model", "mask-nan"} <= set(told(COMMANDS["superres"]))
    assert not {"quiet", "no-recipe", "input", "output"} & {n for f in COMMANDS.values() for n in told(f)}
