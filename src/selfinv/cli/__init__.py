"""The command line: ``selfinv restore | denoise | inpaint | superres | tomography | train | apply | batch |
psf | simulate | score | benchmark | demo | info``.

Exit status: 0 when the output was written whole; 2 for a mistake in what was given (one line on standard
error); 1 when a run failed by its own checks; 130 when it was interrupted.
"""

from __future__ import annotations

import importlib.util
import signal
import sys
import time
import warnings
from pathlib import Path
from typing import Annotated

import typer

from selfinv import __version__
from selfinv.cli.batching import batch
from selfinv.cli.benchmarking import benchmark
from selfinv.cli.console import (
    FAILED,
    INTERRUPTED,
    USAGE,
    ClickException,
    Interruption,
    as_options,
    progress,
    say,
    show_warning,
)
from selfinv.cli.large import train
from selfinv.cli.options import Device, Quiet, Seed, Steps
from selfinv.cli.psf import psf_app
from selfinv.cli.restoring import apply, restore
from selfinv.cli.simulating import score, simulate
from selfinv.cli.tasks import denoise, inpaint, superres, tomography
from selfinv.types import InputError, SelfinvWarning

app = typer.Typer(
    name="selfinv",
    help="Restore one noisy, blurred image from the image itself and the point spread function.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    rich_markup_mode="rich",
    context_settings={"help_option_names": ["-h", "--help"]},
)
app.add_typer(psf_app, name="psf")

for command in (
    restore,
    denoise,
    inpaint,
    superres,
    tomography,
    train,
    apply,
    batch,
    simulate,
    score,
    benchmark,
):
    app.command()(command)


@app.command()
def demo(
    output: Annotated[Path, typer.Option("--output", "-o", help="Folder for the picture and images.")] = Path(
        "demo"
    ),
    steps: Steps = None,
    seed: Seed = 0,
    device: Device = "auto",
    quiet: Quiet = False,
) -> None:
    """Degrade a sample image as the paper does, restore it, print the scores, write a picture."""
    from selfinv.demo import STEPS, run_demo

    if output.exists() and not output.is_dir():
        raise InputError(f"{output} is a file; give a folder with --output")
    start = time.monotonic()
    with progress(quiet) as callback:
        shown = run_demo(output, steps=steps or STEPS, seed=seed, device=device, callback=callback)
    print(f"{'':24}{'PSNR':>8}{'SSIM':>8}{'MI':>8}{'SMI':>8}")
    labels = {"noisy": "before (blurred, noisy)", "restored": "after", "blurry": "(blurred, no noise)"}
    for name, label in labels.items():
        row = shown.scores[name]
        print(f"{label:24}{row['psnr']:8.2f}{row['ssim_range2']:8.3f}{row['mi']:8.3f}{row['smi']:8.3f}")
    print(f"picture: {shown.picture}  ({time.monotonic() - start:.0f} s)")
    if shown.result.status.name == "cancelled":
        say(str(shown.result.status))
        sys.exit(INTERRUPTED)
    if shown.result.status.failed:
        say(str(shown.result.status))
        raise typer.Exit(FAILED)


@app.command()
def info() -> None:
    """Versions, devices and file formats."""
    import torch

    from selfinv.io.files import KNOWN
    from selfinv.methods import METHODS
    from selfinv.versions import versions

    for name, version in versions().items():
        print(f"{name:10} {version}")
    print(f"{'cpu':10} {torch.get_num_threads()} threads")
    gpus = [torch.cuda.get_device_name(i) for i in range(torch.cuda.device_count())]
    print(f"{'cuda':10} {', '.join(gpus) or 'none'}")
    print(f"{'mps':10} {'yes' if torch.backends.mps.is_available() else 'none'}")
    print(f"{'methods':10} {', '.join(METHODS)}")
    print(f"{'formats':10} {KNOWN}")
    for extra, needed in (("fits", ("astropy",)), ("large", ("dask", "distributed", "zarr"))):
        if any(importlib.util.find_spec(name) is None for name in needed):
            what = "FITS" if extra == "fits" else ".zarr"
            print(f"{'':10} {what} only with {', '.join(needed)}: pip install 'selfinv[{extra}]'")


@app.callback(invoke_without_command=True)
def _root(
    context: typer.Context,
    version: Annotated[bool, typer.Option("--version", help="Print the version.")] = False,
) -> None:
    if version:
        print(f"selfinv {__version__}")
        raise typer.Exit


def main(arguments: list[str] | None = None) -> None:
    """Run the command line and exit with its status."""
    warnings.showwarning = show_warning
    warnings.simplefilter("always", SelfinvWarning)
    interruption = Interruption()
    signal.signal(signal.SIGINT, interruption)
    signal.signal(signal.SIGTERM, interruption)
    try:
        code = app(arguments, standalone_mode=False, prog_name="selfinv")
        if code == INTERRUPTED:  # what typer makes of a KeyboardInterrupt
            raise KeyboardInterrupt
    except InputError as error:
        say(f"error: {as_options(str(error))}")
        code = USAGE
    except ClickException as error:
        words = error.format_message().rstrip(".")
        context = getattr(error, "ctx", None)
        if words:  # without arguments the help has been printed
            say(f"error: {words}. See '{context.command_path if context else 'selfinv'} --help'.")
        code = USAGE
    except OSError as error:
        say(f"error: {error}")
        code = USAGE
    except (MemoryError, RuntimeError) as error:  # torch's own lack of memory is a RuntimeError
        if isinstance(error, RuntimeError) and "memory" not in str(error):
            raise
        say("error: not enough memory; crop the image or use a machine with more")
        code = USAGE
    except (KeyboardInterrupt, typer.Abort):
        say("interrupted before there was a result; nothing was written")
        code = INTERRUPTED
    sys.exit(code if isinstance(code, int) else 0)
